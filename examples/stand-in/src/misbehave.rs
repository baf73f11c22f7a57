//! Misbehaviour on demand: rules by which the stand-in treats requests as a broken, overloaded or unreachable backend does.
//!
//! ```
//! use std::time::Duration;
//! use grafolean_stand_in::{Config, Misbehaviour, Rule, StandIn, Status};
//! let stand_in = StandIn::builder().config(Config::demo()?).spawn_thread()?;
//! // The second and third PUT of values is stored, but answered by 500.
//! let rule = stand_in.misbehave(
//!     Rule::new(Misbehaviour::StatusAfterDoing(Status::new(500)))
//!         .method("PUT")
//!         .path("/accounts/*/values")
//!         .skip(1)
//!         .times(2),
//! )?;
//! assert_eq!(stand_in.misbehaved(rule), 0);
//! stand_in.behave(rule);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Rules are asked in the order in which they were added, when the head of a request has been read; the first that matches decides,
//! and one that lets a request pass (by `skip`, `times` or `chance`) leaves it to the next. Without rules this costs a lock;
//! else a look at each rule. The same requests in the same order meet the same fate: chances follow from their seed.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::{HeaderName, HeaderValue};
use tokio::sync::watch;

use crate::json::JsonError;

/// How many rules may stand at once.
pub const MAX_RULES: usize = 1000;

/// Longest wait that a rule can ask for, and longest time that it can stand if it has an end.
pub const MAX_WAIT: Duration = Duration::from_secs(86_400);

/// Most bytes that a rule can speak of, whether of a body, a cut or garbage.
pub const MAX_RULE_BYTES: usize = 16 * 1024 * 1024;

/// How many rules that are gone are still counted.
const GONE_CAPACITY: usize = 10_000;

/// What a rule does to a request.
///
/// *Done* means that the backend worked on the request as usual: values are stored, entities made. Whoever is not told so
/// cannot know.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// Nobody listens while the rule stands: connecting is refused by the system, and open connections are closed, except
    /// those of the stand-in's own pages. The port stays taken. It is about no request: only [`Rule::lasts`] goes with it,
    /// and it counts as applied once.
    Refuse,
    /// Connections are accepted and then reset at once, those to the stand-in's own pages included. It is about connections: `method`,
    /// `path` and `bot` do not go with it.
    ResetOnConnect,
    /// The request is read, then the connection is reset; nothing is done.
    Reset,
    /// The request is read, then the connection is closed without a word; nothing is done.
    Close,
    /// Done, then closed without a word: the answer is lost.
    CloseAfterDoing,
    /// No answer while the rule stands, as from a frozen process. Then it is done and answered, even if the client has gone.
    Hang,
    /// Done, and the answer is held back while the rule stands, as with a frozen MQTT broker.
    HangAfterDoing,
    /// Done and answered as usual after this time.
    Delay(Duration),
    /// This answer; nothing is done.
    Status(Status),
    /// Done, but this is the answer.
    StatusAfterDoing(Status),
    /// The first pages of [`PAGE`](crate::PAGE) values are stored, the rest is not, and the answer is 500. It concerns only POST and
    /// PUT of values; a request that the backend refuses anyway is refused as usual.
    Pages(usize),
    /// Requests with a body over this many bytes get the 413 of the product's front, which closes; others pass. A chunked
    /// body, whose length is not known at first, counts as applied even if it is short.
    BodyLimit(usize),
    /// Requests whose body holds this text get this answer and nothing is done; others pass, and count as not applied to. It is the
    /// backend's own refusal of one bad value among good ones, for a value of one's choice.
    RefuseBody {
        /// A text in the body as it is sent, as `"lab.bad"`.
        containing: String,
        /// The answer.
        answer: Status,
    },
    /// The refusal of plain HTTP by a front that has certificates (not if the `Host` is `grafolean`); nothing is done.
    PlainHttp,
    /// A redirection; nothing is done.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// The `location`; if none, the request's own target as the backend does it, with a final slash the other way round.
        to: Option<String>,
    },
    /// Done and answered, with another `date` header.
    Date(DateHeader),
    /// Done and answered; then the connection is closed without a word when it has been idle for this long.
    IdleClose(Duration),
    /// Done, but the connection ends after so many bytes of the answer's head.
    CutHead {
        /// How many bytes of the head are sent.
        after_bytes: usize,
    },
    /// Done, but the connection ends after so many bytes of the answer's body, or at its end if it is shorter.
    CutBody {
        /// How many bytes of the body are sent.
        after_bytes: usize,
    },
    /// Done and answered, but the body comes in small pieces.
    Drip {
        /// Bytes at a time.
        bytes: usize,
        /// Pause before each.
        pause: Duration,
    },
    /// Done and answered, but the head comes in small pieces.
    DripHead {
        /// Bytes at a time.
        bytes: usize,
        /// Pause before each.
        pause: Duration,
    },
    /// Random bytes that are no HTTP, then the connection is closed; nothing is done.
    Garbage {
        /// What the bytes follow from.
        seed: u64,
        /// How many.
        bytes: usize,
    },
    /// Done, but with another body.
    WrongBody(WrongBody),
}

impl Misbehaviour {
    pub(crate) const fn is_about_connections(&self) -> bool {
        matches!(self, Self::Refuse | Self::ResetOnConnect)
    }

    /// Whether it is about a request with this body. Only then is it applied.
    pub(crate) fn is_about_body(&self, body: &[u8]) -> bool {
        match self {
            Self::RefuseBody { containing, .. } => {
                body.windows(containing.len().max(1)).any(|w| w == containing.as_bytes())
            }
            _ => true,
        }
    }

    /// Its name in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::ResetOnConnect => "reset_on_connect",
            Self::Reset => "reset",
            Self::Close => "close",
            Self::CloseAfterDoing => "close_after_doing",
            Self::Hang => "hang",
            Self::HangAfterDoing => "hang_after_doing",
            Self::Delay(_) => "delay",
            Self::Status(_) => "status",
            Self::StatusAfterDoing(_) => "status_after_doing",
            Self::Pages(_) => "pages",
            Self::BodyLimit(_) => "body_limit",
            Self::RefuseBody { .. } => "refuse_body",
            Self::PlainHttp => "plain_http",
            Self::Redirect { .. } => "redirect",
            Self::Date(_) => "date",
            Self::IdleClose(_) => "idle_close",
            Self::CutHead { .. } => "cut_head",
            Self::CutBody { .. } => "cut_body",
            Self::Drip { .. } => "drip",
            Self::DripHead { .. } => "drip_head",
            Self::Garbage { .. } => "garbage",
            Self::WrongBody(_) => "wrong_body",
        }
    }
}

/// An answer of one's own making. What is left out is as the real backend, or the product's front, answers with this status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<String>,
    pub(crate) closes: Option<bool>,
}

impl Status {
    /// A status from 200 to 599.
    pub const fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: None, closes: None }
    }

    /// One more header. `content-type` replaces the usual one.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `retry-after` in seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header("retry-after", &seconds.to_string())
    }

    /// The body, without a content type unless a header names one.
    #[must_use]
    pub fn text(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self
    }

    /// Whether the connection is closed after the answer, without having said so.
    #[must_use]
    pub const fn closing(mut self, closes: bool) -> Self {
        self.closes = Some(closes);
        self
    }
}

/// A `date` header that is not the clock's.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DateHeader {
    /// The clock's time plus so many seconds.
    OffsetS(i64),
    /// No such header.
    Missing,
    /// This text.
    Text(String),
}

/// A body that is not what it should be. An answer that has none (204) becomes a 200.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WrongBody {
    /// This text with its right length, such as the page of a hotel's login.
    Text(String),
    /// The first half of the right body, with the length of that half: JSON that ends in the middle.
    Half,
    /// Random bytes with their right length.
    Random {
        /// What the bytes follow from.
        seed: u64,
        /// How many.
        bytes: usize,
    },
    /// The right body, but the announced length is larger by this much; the connection stays open.
    AnnouncedLonger(usize),
    /// The right body, but the announced length is smaller by this much (or 0), so that bytes are left over before the next answer.
    AnnouncedShorter(usize),
}

/// Which requests are to be treated how; see [`StandIn::misbehave`](crate::StandIn::misbehave).
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Rule {
    pub(crate) misbehaviour: Misbehaviour,
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) bot: Option<String>,
    pub(crate) skip: u64,
    pub(crate) times: Option<u64>,
    pub(crate) chance: Option<(f64, u64)>,
    pub(crate) lasts: Option<Duration>,
}

impl Rule {
    /// For every request to the backend, until it is taken away.
    pub const fn new(misbehaviour: Misbehaviour) -> Self {
        Self {
            misbehaviour,
            method: None,
            path: None,
            bot: None,
            skip: 0,
            times: None,
            chance: None,
            lasts: None,
        }
    }

    /// Only requests of this method.
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only requests of this path below `/api`, as `/accounts/*/values`: `*` stands for one segment, `**` at the end for any number of
    /// them. A slash at the end makes no difference.
    pub fn path(mut self, pattern: &str) -> Self {
        self.path = Some(pattern.to_owned());
        self
    }

    /// Only requests with the token of the bot of this short name; `unknown`: with a token of no bot.
    pub fn bot(mut self, short_name: &str) -> Self {
        self.bot = Some(short_name.to_owned());
        self
    }

    /// Lets so many matching requests pass at first.
    pub const fn skip(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// Is done with after it has been applied so often.
    pub const fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Is applied to a matching request with this probability, from 0 to 1. Which ones follows from the seed.
    pub const fn chance(mut self, probability: f64, seed: u64) -> Self {
        self.chance = Some((probability, seed));
        self
    }

    /// Goes away by itself after this time.
    pub const fn lasts(mut self, time: Duration) -> Self {
        self.lasts = Some(time);
        self
    }

    /// Whether it can be applied at all.
    pub(crate) fn check(&self) -> Result<(), RuleError> {
        let about = self.misbehaviour.name();
        let counted = !matches!(self.misbehaviour, Misbehaviour::Refuse);
        let requests = !self.misbehaviour.is_about_connections();
        for (field, given, goes) in [
            ("method", self.method.is_some(), requests),
            ("path", self.path.is_some(), requests),
            ("bot", self.bot.is_some(), requests),
            ("skip", self.skip > 0, counted),
            ("times", self.times.is_some(), counted),
            ("chance", self.chance.is_some(), counted),
        ] {
            if given && !goes {
                return Err(RuleError::DoesNotGoWith { field, misbehaviour: about });
            }
        }
        if let Some(method) = &self.method
            && (method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase()))
        {
            return Err(expected("method", "a method in capital letters, such as PUT"));
        }
        if let Some(path) = &self.path {
            if path == "/api" || path.starts_with("/api/") {
                return Err(expected("path", "without the /api at its beginning: patterns are below /api"));
            }
            let inner = path.strip_suffix("/**").unwrap_or(path);
            if !path.starts_with('/') || inner.contains("**") || path.contains(['?', '#']) {
                return Err(expected(
                    "path",
                    "a path below /api that begins with a slash, with `**` only at the end",
                ));
            }
        }
        if let Some((probability, _)) = self.chance
            && !(0.0..=1.0).contains(&probability)
        {
            return Err(expected("chance", "a number from 0 to 1"));
        }
        if self.times == Some(0) {
            return Err(expected("times", "at least 1: a rule for no request does nothing"));
        }
        if let Some(time) = self.lasts
            && !(Duration::from_millis(1)..=MAX_WAIT).contains(&time)
        {
            return Err(expected("for_ms", "from 1 to 86400000 milliseconds"));
        }
        self.misbehaviour.check()
    }
}

const fn expected(field: &'static str, expected: &'static str) -> RuleError {
    RuleError::Expected { field, expected }
}

fn wait(field: &'static str, time: Duration) -> Result<(), RuleError> {
    if time <= MAX_WAIT { Ok(()) } else { Err(expected(field, "from 0 to 86400000 milliseconds")) }
}

fn some_bytes(field: &'static str, bytes: usize, least: usize) -> Result<(), RuleError> {
    match (bytes >= least && bytes <= MAX_RULE_BYTES, least) {
        (true, _) => Ok(()),
        (false, 0) => Err(expected(field, "from 0 to 16777216 bytes")),
        (false, _) => Err(expected(field, "from 1 to 16777216 bytes")),
    }
}

impl Misbehaviour {
    fn check(&self) -> Result<(), RuleError> {
        match self {
            Self::Delay(time) => wait("ms", *time),
            Self::IdleClose(time) => wait("after_ms", *time),
            Self::Status(status) | Self::StatusAfterDoing(status) => status.check(),
            Self::RefuseBody { containing, answer } => {
                if containing.is_empty() || containing.len() > MAX_RULE_BYTES {
                    return Err(expected("containing", "a text of 1 to 16777216 bytes"));
                }
                answer.check()
            }
            Self::Redirect { status, to } => {
                if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                    return Err(expected("status", "301, 302, 303, 307 or 308"));
                }
                match to {
                    Some(to) if to.is_empty() || HeaderValue::from_str(to).is_err() => {
                        Err(expected("to", "an address without control characters"))
                    }
                    _ => Ok(()),
                }
            }
            Self::Date(DateHeader::Text(text)) if HeaderValue::from_str(text).is_err() => {
                Err(expected("text", "a text without control characters"))
            }
            // Beyond, the year would need more than four digits.
            Self::Date(DateHeader::OffsetS(offset)) if offset.unsigned_abs() > 30_000_000_000 => {
                Err(expected("offset_s", "from -30000000000 to 30000000000 seconds"))
            }
            Self::CutHead { after_bytes } | Self::CutBody { after_bytes } => {
                some_bytes("after_bytes", *after_bytes, 0)
            }
            Self::Drip { bytes, pause } | Self::DripHead { bytes, pause } => {
                some_bytes("bytes", *bytes, 1)?;
                wait("pause_ms", *pause)
            }
            Self::Garbage { bytes, .. } | Self::WrongBody(WrongBody::Random { bytes, .. }) => {
                some_bytes("bytes", *bytes, 1)
            }
            Self::WrongBody(WrongBody::AnnouncedLonger(by) | WrongBody::AnnouncedShorter(by)) => {
                some_bytes("by_bytes", *by, 1)
            }
            _ => Ok(()),
        }
    }
}

impl Status {
    fn check(&self) -> Result<(), RuleError> {
        if !(200..=599).contains(&self.status) {
            return Err(expected("status", "from 200 to 599"));
        }
        if matches!(self.status, 204 | 304) && self.body.as_ref().is_some_and(|b| !b.is_empty()) {
            return Err(expected("text", "left out with a status that has no body"));
        }
        if self.body.as_ref().is_some_and(|b| b.len() > MAX_RULE_BYTES) {
            return Err(expected("text", "of at most 16777216 bytes"));
        }
        for (name, value) in &self.headers {
            let own = ["content-length", "transfer-encoding", "connection", "date"];
            if HeaderName::from_bytes(name.as_bytes()).is_err()
                || own.iter().any(|o| name.eq_ignore_ascii_case(o))
            {
                return Err(expected(
                    "headers",
                    "names that are not the server's own to set (length, connection, date)",
                ));
            }
            if HeaderValue::from_str(value).is_err() {
                return Err(expected("headers", "values without control characters"));
            }
        }
        Ok(())
    }
}

/// Names a rule that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub(crate) u64);

impl RuleId {
    /// The number that stands for it in JSON.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a rule is refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum RuleError {
    /// The file cannot be read.
    Read(std::io::Error),
    /// The text is not JSON.
    Json(JsonError),
    /// A field is missing.
    Missing {
        /// Its name in JSON.
        field: &'static str,
    },
    /// A field is not known for this misbehaviour.
    Unknown {
        /// The field.
        field: String,
        /// What it was given for.
        misbehaviour: &'static str,
        /// The ones that are known for it.
        known: Vec<&'static str>,
    },
    /// A field has a value that it cannot have.
    Expected {
        /// Its name in JSON.
        field: &'static str,
        /// What it can have.
        expected: &'static str,
    },
    /// A field stands there more than once.
    Twice {
        /// The field.
        field: String,
    },
    /// There is no bot of this short name.
    NoSuchBot {
        /// The short name.
        bot: String,
        /// The first [`Self::NAMED_BOTS`] of those that there are.
        known: Vec<String>,
        /// How many there are besides.
        more: usize,
    },
    /// A field says which requests, but the misbehaviour is about none.
    DoesNotGoWith {
        /// Its name in JSON.
        field: &'static str,
        /// The misbehaviour.
        misbehaviour: &'static str,
    },
    /// [`MAX_RULES`] stand already.
    TooMany,
    /// It stands in a list.
    InList {
        /// Its place there, from 0.
        index: usize,
        /// What is wrong with it.
        error: Box<RuleError>,
    },
}

impl RuleError {
    /// How many bots [`Self::NoSuchBot`] names at most.
    pub const NAMED_BOTS: usize = 20;
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot be read: {error}"),
            Self::Json(error) => error.fmt(f),
            Self::Missing { field } => write!(f, "`{field}` is missing"),
            Self::Unknown { field, misbehaviour, known } => {
                write!(f, "`{field}` is not known for {misbehaviour}; known are {}", known.join(", "))
            }
            Self::Expected { field, expected } => write!(f, "`{field}` must be {expected}"),
            Self::Twice { field } => write!(f, "`{field}` stands there twice"),
            Self::NoSuchBot { bot, known, more } => {
                write!(
                    f,
                    "`bot` must be the short name of a bot, or unknown; no bot is called `{bot}`, but "
                )?;
                match known.as_slice() {
                    [] => f.write_str("there is none at all")?,
                    known => f.write_str(&known.join(", "))?,
                }
                if *more > 0 {
                    write!(f, " and {more} more")?;
                }
                Ok(())
            }
            Self::DoesNotGoWith { field, misbehaviour } => {
                write!(f, "`{field}` does not go with {misbehaviour}, which is not about single requests")
            }
            Self::TooMany => write!(f, "there are {MAX_RULES} rules already"),
            Self::InList { index, error } => write!(f, "rule [{index}]: {error}"),
        }
    }
}

impl core::error::Error for RuleError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::Json(error) => Some(error),
            Self::InList { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// A request as far as rules look at it.
pub(crate) struct Asked<'a, F> {
    pub(crate) method: &'a str,
    /// Without the query.
    pub(crate) path: &'a str,
    /// The length of the body, if the head tells it.
    pub(crate) body_bytes: Option<u64>,
    /// Short name of the bot; asked only if a rule wants it.
    pub(crate) bot: F,
}

struct Standing {
    id: RuleId,
    rule: Rule,
    seen: u64,
    applied: u64,
    until: Option<Instant>,
}

impl Standing {
    /// Whether a request or connection that it is about is to be treated.
    fn applies(&mut self) -> bool {
        if self.rule.times.is_some_and(|times| self.applied >= times) {
            return false;
        }
        self.seen += 1;
        if self.seen <= self.rule.skip {
            return false;
        }
        if let Some((probability, seed)) = self.rule.chance {
            // 53 bits of the hash are a number from 0 to 1, exactly.
            #[allow(clippy::cast_precision_loss)]
            let drawn = (random(seed, self.seen) >> 11) as f64 / (1_u64 << 53) as f64;
            if drawn >= probability {
                return false;
            }
        }
        self.applied += 1;
        true
    }

    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// A rule with what became of it.
pub(crate) struct Listed {
    pub(crate) id: RuleId,
    pub(crate) rule: Rule,
    pub(crate) matched: u64,
    pub(crate) applied: u64,
    pub(crate) left: Option<Duration>,
}

#[derive(Default)]
struct State {
    last: u64,
    standing: Vec<Standing>,
    gone: BTreeMap<RuleId, u64>,
}

impl State {
    fn forget_if(&mut self, gone: impl Fn(&Standing) -> bool) -> bool {
        let before = self.standing.len();
        let counts = &mut self.gone;
        self.standing.retain(|s| {
            let goes = gone(s);
            if goes {
                counts.insert(s.id, s.applied);
            }
            !goes
        });
        while counts.len() > GONE_CAPACITY {
            counts.pop_first();
        }
        self.standing.len() < before
    }
}

/// All rules.
pub(crate) struct Rules {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Rules {
    /// The rules that still stand.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.standing.iter().any(|s| s.until.is_some()) {
            let now = Instant::now();
            state.forget_if(|s| s.is_over(now));
        }
        state
    }

    pub(crate) fn add(&self, rule: Rule) -> Result<RuleId, RuleError> {
        rule.check()?;
        let id = {
            let mut state = self.state();
            if state.standing.len() >= MAX_RULES {
                return Err(RuleError::TooMany);
            }
            state.last += 1;
            let id = RuleId(state.last);
            let until = rule.lasts.and_then(|time| Instant::now().checked_add(time));
            let applied = u64::from(matches!(rule.misbehaviour, Misbehaviour::Refuse));
            tracing::info!(id = id.0, ?rule, "misbehaving");
            state.standing.push(Standing { id, rule, seen: 0, applied, until });
            id
        };
        self.changed.send_replace(());
        Ok(id)
    }

    /// Whether it stood.
    pub(crate) fn remove(&self, id: RuleId) -> bool {
        let stood = self.state().forget_if(|s| s.id == id);
        self.changed.send_replace(());
        stood
    }

    pub(crate) fn remove_all(&self) {
        self.state().forget_if(|_| true);
        self.changed.send_replace(());
    }

    pub(crate) fn applied(&self, id: RuleId) -> u64 {
        let state = self.state();
        let standing = state.standing.iter().find(|s| s.id == id).map(|s| s.applied);
        standing.or_else(|| state.gone.get(&id).copied()).unwrap_or(0)
    }

    pub(crate) fn list(&self) -> Vec<Listed> {
        let now = Instant::now();
        let listed = |s: &Standing| Listed {
            id: s.id,
            rule: s.rule.clone(),
            matched: s.seen,
            applied: s.applied,
            left: s.until.map(|until| until.saturating_duration_since(now)),
        };
        self.state().standing.iter().map(listed).collect()
    }

    /// What is to become of a request, and by which rule.
    pub(crate) fn of_request<F: Fn() -> Option<String>>(
        &self,
        asked: &Asked<'_, F>,
    ) -> Option<(RuleId, Misbehaviour)> {
        let mut state = self.state();
        if state.standing.is_empty() {
            return None;
        }
        let mut bot = None;
        state.standing.iter_mut().find_map(|standing| {
            let rule = &standing.rule;
            let matches = !rule.misbehaviour.is_about_connections()
                && rule.method.as_ref().is_none_or(|m| m == asked.method)
                && rule.path.as_ref().is_none_or(|p| path_matches(p, asked.path))
                && rule.bot.as_ref().is_none_or(|b| bot.get_or_insert_with(&asked.bot).as_ref() == Some(b))
                && match &rule.misbehaviour {
                    Misbehaviour::BodyLimit(limit) => asked.body_bytes.is_none_or(|n| n > *limit as u64),
                    Misbehaviour::Pages(_) => {
                        matches!(asked.method, "POST" | "PUT")
                            && path_matches("/accounts/*/values", asked.path)
                    }
                    _ => true,
                };
            (matches && standing.applies()).then(|| (standing.id, standing.rule.misbehaviour.clone()))
        })
    }

    /// A request that a rule was found for is none that it is about, after all.
    pub(crate) fn let_pass(&self, id: RuleId) {
        let mut state = self.state();
        if let Some(standing) = state.standing.iter_mut().find(|s| s.id == id) {
            standing.applied = standing.applied.saturating_sub(1);
        } else if let Some(applied) = state.gone.get_mut(&id) {
            *applied = applied.saturating_sub(1);
        }
    }

    /// Whether a connection that was accepted is to be reset.
    pub(crate) fn resets_connection(&self) -> bool {
        let mut state = self.state();
        let mut rules =
            state.standing.iter_mut().filter(|s| matches!(s.rule.misbehaviour, Misbehaviour::ResetOnConnect));
        rules.any(Standing::applies)
    }

    /// Whether connecting is to be refused.
    pub(crate) fn refuses(&self) -> bool {
        self.state().standing.iter().any(|s| matches!(s.rule.misbehaviour, Misbehaviour::Refuse))
    }

    /// Returns when a rule has gone.
    pub(crate) async fn gone(&self, id: RuleId) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let until = match self.state().standing.iter().find(|s| s.id == id) {
                Some(standing) => standing.until,
                None => return,
            };
            self.next_change(&mut changed, until).await;
        }
    }

    /// Returns when the rules have changed, or one of them is over.
    pub(crate) async fn change(&self, changed: &mut watch::Receiver<()>) {
        let until = self.state().standing.iter().filter_map(|s| s.until).min();
        self.next_change(changed, until).await;
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    async fn next_change(&self, changed: &mut watch::Receiver<()>, until: Option<Instant>) {
        match until {
            None => {
                let _ = changed.changed().await;
            }
            Some(until) => tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(until.into()) => {}
            },
        }
    }
}

/// Whether a request's path is one that a pattern below `/api` means.
fn path_matches(pattern: &str, path: &str) -> bool {
    let Some(below) = path.strip_prefix("/api").filter(|rest| rest.is_empty() || rest.starts_with('/'))
    else {
        return false;
    };
    let mut segments = segments(below);
    for wanted in self::segments(pattern) {
        if wanted == "**" {
            return true;
        }
        match segments.next() {
            Some(segment) if wanted == "*" || wanted == segment => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/').filter(move |_| !path.is_empty())
}

/// The nth of the 64 random bits that follow from a seed (SplitMix64 of Steele, Lea and Flood, 2014).
fn random(seed: u64, nth: u64) -> u64 {
    let mut z = seed.wrapping_add(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Bytes that follow from a seed. The first is no letter, so that they never begin as HTTP does.
pub(crate) fn random_bytes(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out: Vec<u8> =
        (0..bytes.div_ceil(8) as u64).flat_map(|n| random(seed, n).to_le_bytes()).collect();
    out.truncate(bytes);
    if let Some(first) = out.first_mut() {
        *first |= 0x80;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_segment_and_two_are_the_rest() {
        for (pattern, path, matches) in [
            ("/accounts/*/values", "/api/accounts/1/values/", true),
            ("/accounts/*/values/", "/api/accounts/1/values", true),
            ("/accounts/*/values", "/api/accounts/1/values/a.b", false),
            ("/accounts/*/values", "/api/accounts/values", false),
            ("/accounts/**", "/api/accounts/1/values", true),
            ("/accounts/**", "/api/accounts", true),
            ("/accounts/**", "/api/profile", false),
            ("/**", "/api", true),
            ("/", "/api/", true),
            ("/profile", "/profile", false),
            ("/profile", "/apiprofile", false),
            ("/accounts", "/api//accounts", false),
        ] {
            assert_eq!(path_matches(pattern, path), matches, "{pattern} {path}");
        }
    }

    fn asked(rules: &Rules, method: &str, path: &str, bot: &str) -> Option<u64> {
        let asked = Asked { method, path, body_bytes: Some(10), bot: || Some(bot.to_owned()) };
        rules.of_request(&asked).map(|(id, _)| id.0)
    }

    #[test]
    fn the_first_matching_rule_decides_and_leaves_what_it_lets_pass_to_the_next() {
        let rules = Rules::default();
        let first = rules.add(Rule::new(Misbehaviour::Close).method("PUT").skip(1).times(2)).unwrap();
        let second = rules.add(Rule::new(Misbehaviour::Reset).bot("ping")).unwrap();
        let put = |bot| asked(&rules, "PUT", "/api/profile", bot);
        assert_eq!(put("other"), None);
        assert_eq!(put("ping"), Some(first.0));
        assert_eq!(asked(&rules, "GET", "/api/profile", "ping"), Some(second.0));
        assert_eq!(put("ping"), Some(first.0));
        assert_eq!(put("ping"), Some(second.0));
        assert_eq!((rules.applied(first), rules.applied(second)), (2, 2));
        assert!(rules.remove(second));
        assert!(!rules.remove(second));
        assert_eq!(put("ping"), None);
        assert_eq!(rules.applied(second), 2, "what is gone is still counted");
    }

    #[test]
    fn chances_follow_from_their_seed() {
        let fate = |probability, seed| {
            let rules = Rules::default();
            rules.add(Rule::new(Misbehaviour::Close).chance(probability, seed)).unwrap();
            (0..1000).map(|_| asked(&rules, "GET", "/api", "").is_some()).collect::<Vec<_>>()
        };
        assert_eq!(fate(0.3, 7), fate(0.3, 7));
        assert_ne!(fate(0.3, 7), fate(0.3, 8));
        let applied = fate(0.3, 7).into_iter().filter(|a| *a).count();
        assert!((250..350).contains(&applied), "{applied} of 1000 at 0.3");
        assert!(!fate(0.0, 1).contains(&true));
        assert!(!fate(1.0, 1).contains(&false));
    }

    #[test]
    fn a_limit_of_bodies_passes_over_what_is_short_enough() {
        let rules = Rules::default();
        let id = rules.add(Rule::new(Misbehaviour::BodyLimit(10)).times(2)).unwrap();
        let with = |body_bytes| {
            let asked = Asked { method: "PUT", path: "/api", body_bytes, bot: || None };
            rules.of_request(&asked).is_some()
        };
        assert!(!with(Some(10)));
        assert!(with(Some(11)));
        assert!(with(None));
        assert!(!with(Some(11)));
        assert_eq!(rules.applied(id), 2);
    }

    #[test]
    fn a_rule_that_cannot_be_is_refused_with_field_and_limit() {
        let second = Duration::from_secs(1);
        for (rule, why) in [
            (
                Rule::new(Misbehaviour::Refuse).times(1),
                "`times` does not go with refuse, which is not about single requests",
            ),
            (
                Rule::new(Misbehaviour::ResetOnConnect).path("/"),
                "`path` does not go with reset_on_connect, which is not about single requests",
            ),
            (
                Rule::new(Misbehaviour::Close).method("put"),
                "`method` must be a method in capital letters, such as PUT",
            ),
            (
                Rule::new(Misbehaviour::Close).path("accounts"),
                "`path` must be a path below /api that begins with a slash, with `**` only at the end",
            ),
            (
                Rule::new(Misbehaviour::Close).path("/**/values"),
                "`path` must be a path below /api that begins with a slash, with `**` only at the end",
            ),
            (Rule::new(Misbehaviour::Close).chance(1.5, 0), "`chance` must be a number from 0 to 1"),
            (Rule::new(Misbehaviour::Close).chance(f64::NAN, 0), "`chance` must be a number from 0 to 1"),
            (
                Rule::new(Misbehaviour::Close).lasts(MAX_WAIT + second),
                "`for_ms` must be from 1 to 86400000 milliseconds",
            ),
            (
                Rule::new(Misbehaviour::Close).lasts(Duration::ZERO),
                "`for_ms` must be from 1 to 86400000 milliseconds",
            ),
            (
                Rule::new(Misbehaviour::Close).times(0),
                "`times` must be at least 1: a rule for no request does nothing",
            ),
            (
                Rule::new(Misbehaviour::Close).path("/api/accounts/*/values"),
                "`path` must be without the /api at its beginning: patterns are below /api",
            ),
            (
                Rule::new(Misbehaviour::Delay(MAX_WAIT + second)),
                "`ms` must be from 0 to 86400000 milliseconds",
            ),
            (Rule::new(Misbehaviour::Status(Status::new(199))), "`status` must be from 200 to 599"),
            (
                Rule::new(Misbehaviour::Status(Status::new(204).text("x"))),
                "`text` must be left out with a status that has no body",
            ),
            (
                Rule::new(Misbehaviour::Status(Status::new(500).header("Date", "x"))),
                "`headers` must be names that are not the server's own to set (length, connection, date)",
            ),
            (
                Rule::new(Misbehaviour::Status(Status::new(500).header("x", "\n"))),
                "`headers` must be values without control characters",
            ),
            (
                Rule::new(Misbehaviour::Redirect { status: 304, to: None }),
                "`status` must be 301, 302, 303, 307 or 308",
            ),
            (
                Rule::new(Misbehaviour::Drip { bytes: 0, pause: second }),
                "`bytes` must be from 1 to 16777216 bytes",
            ),
            (
                Rule::new(Misbehaviour::CutBody { after_bytes: MAX_RULE_BYTES + 1 }),
                "`after_bytes` must be from 0 to 16777216 bytes",
            ),
            (
                Rule::new(Misbehaviour::Date(DateHeader::OffsetS(i64::MIN))),
                "`offset_s` must be from -30000000000 to 30000000000 seconds",
            ),
        ] {
            assert_eq!(Rules::default().add(rule).unwrap_err().to_string(), why);
        }
        let rules = Rules::default();
        for _ in 0..MAX_RULES {
            rules.add(Rule::new(Misbehaviour::Close)).unwrap();
        }
        assert_eq!(
            rules.add(Rule::new(Misbehaviour::Close)).unwrap_err().to_string(),
            "there are 1000 rules already"
        );
    }

    #[test]
    fn garbage_follows_from_its_seed_and_begins_as_no_text() {
        for seed in 0..100 {
            let bytes = random_bytes(seed, 13);
            assert_eq!(bytes.len(), 13);
            assert!(!bytes[0].is_ascii());
            assert_eq!(bytes, random_bytes(seed, 13));
            assert_ne!(bytes, random_bytes(seed + 1, 13));
        }
    }
}
