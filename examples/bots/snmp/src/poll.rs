//! Asks an agent: requests with repetitions, GETs of any number of names, and walks, in memory that does not depend on how
//! much the agent has.
//!
//! [`Poller`] is one agent for the time of a run. [`Poller::get`] reads names that a [`Wanted`] lists; [`Poller::next_rows`]
//! goes on with a [`Walk`].
//!
//! # What goes out
//! - Names go into as few datagrams as they fit (as long as the poller's buffer, at most [`MAX_NAMES`] each), sysUpTime with
//!   them. An agent that finds its answer too big is asked for half of them; one that names a single variable as its error (as
//!   SNMPv1 does where one is missing) is asked for the others again.
//! - Walks use GETBULK where the version has it, for as many rows as should fit into a datagram by what the rows so far took;
//!   half as many after "too big" or a time-out. An agent that refuses or never answers GETBULK is walked by GETNEXT for the run.
//! - A request without an answer is repeated with the same number, so that a late answer to the first try counts.
//!
//! # What ends a walk
//! A name outside of the column, the end of the agent's view, an error, the limit of rows, or a name that comes again: the same
//! one twice, the first one, or any of a cycle by Brent's method, which needs one name only and finds a cycle at the latest
//! after three times as many rows as there are before its end. Tables that are not in order but come to an end are read.
//!
//! # Cost
//! The buffer of `P` bytes, and one datagram of the agent at a time.

use core::fmt;

use core::future::Future;
use core::ops::Range;

use grafolean_core::hash::Fnv1a64;
use grafolean_core::time::Millis;
#[cfg(feature = "v3")]
use grafolean_snmp_codec::v3;
use grafolean_snmp_codec::{
    DecodeError, EncodeError, ErrorStatus, Message, MessageWriter, Oid, OidError, OidRef, PduHeader, PduKind,
    RequestTag, Value, VarBind, Version, request_tag,
};

use crate::network::{Network, NetworkFault};

/// The most names of a request.
pub const MAX_NAMES: usize = 64;
/// The longest name that is kept, in bytes of its encoding: a column and a row's index of about a hundred numbers.
pub const NAME_BYTES: usize = 128;
/// The most rows that are asked for at once.
const MAX_REPETITIONS: u16 = 512;
/// What an answer holds besides its variables, in bytes, roughly: frames, a community, sysUpTime.
const OVERHEAD_BYTES: usize = 96;

/// A name that is kept.
pub type Name = Oid<NAME_BYTES>;

/// sysUpTime.0 in BER.
const UPTIME: &[u8] = &[0x2b, 6, 1, 2, 1, 1, 3, 0];

/// sysUpTime.0, or sysUpTime, whose successor it is.
fn uptime_name(instance: bool) -> Option<OidRef<'static>> {
    let len = if instance { UPTIME.len() } else { UPTIME.len() - 1 };
    OidRef::from_ber(UPTIME.get(..len)?).ok()
}

/// How an agent is polled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PollSettings {
    /// How long the answer to the first try is waited for, in milliseconds; to the second twice as long, and so on.
    pub timeout_ms: u32,
    /// How often a request without an answer is repeated.
    pub retries: u8,
    /// The most rows of a walk.
    pub max_rows: u32,
}

impl PollSettings {
    /// 1 s, then 2 s, then 3 s; up to 100,000 rows.
    pub const DEFAULT: Self = PollSettings { timeout_ms: 1_000, retries: 2, max_rows: 100_000 };

    /// How long a request without an answer takes with its repetitions, in milliseconds.
    #[must_use]
    pub const fn silence_ms(&self) -> u32 {
        let tries = self.retries as u32 + 1;
        self.timeout_ms.saturating_mul(tries * (tries + 1) / 2)
    }

    /// How long the answer to the `nth` try is waited for, from 1; `None` if there is no time for it.
    fn wait_ms(&self, nth: u8, now: Millis, until: Millis) -> Option<u32> {
        let left = u32::try_from(until.0.saturating_sub(now.0)).unwrap_or(u32::MAX);
        Some(self.timeout_ms.saturating_mul(nth.into()).min(left)).filter(|ms| *ms > 0)
    }
}

impl Default for PollSettings {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// By what an agent lets us read.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Access<'a> {
    /// A community string, which is a secret.
    Community {
        /// The version.
        version: Version,
        /// The community.
        community: &'a [u8],
    },
    /// A user of SNMPv3.
    #[cfg(feature = "v3")]
    User {
        /// Its name.
        name: &'a [u8],
        /// Its keys for this agent.
        keys: &'a v3::LocalizedKeys,
        /// What is known of the agent's clock; kept up to date.
        engine: &'a core::cell::Cell<v3::Engine>,
    },
}

impl Access<'_> {
    const fn has_bulk(&self) -> bool {
        !matches!(self, Access::Community { version: Version::V1, .. })
    }
}

impl fmt::Debug for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Access::Community { version, .. } => {
                f.debug_struct("Community").field("version", version).finish_non_exhaustive()
            }
            #[cfg(feature = "v3")]
            Access::User { keys, .. } => {
                f.debug_struct("User").field("level", &keys.level()).finish_non_exhaustive()
            }
        }
    }
}

/// Why nothing, or nothing more, was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PollFault {
    /// Nothing was sent, or the answer came from elsewhere.
    Network(NetworkFault),
    /// No answer came.
    NoAnswer {
        /// How often it was asked.
        tries: u8,
    },
    /// The time of the run is up: it was not even asked.
    OutOfTime,
    /// What came is not readable.
    Unreadable(DecodeError),
    /// What came is no answer to what was asked.
    NoResponse,
    /// The agent refused the request as a whole.
    Refused(ErrorStatus),
    /// The agent did not look at the request, for the reason given.
    #[cfg(feature = "v3")]
    Reported(v3::ReportReason),
    /// What came is no answer that this user may trust.
    #[cfg(feature = "v3")]
    Untrusted(v3::AnswerError),
    /// No keys can be made of the credential.
    #[cfg(feature = "v3")]
    NoKeys,
    /// The request can't be written: a community or a name too long for the buffer.
    Unwritable(EncodeError),
    /// A name of the agent is too long to be kept.
    LongName(OidError),
    /// The agent gives a name again that it gave before: the walk would never end.
    Endless,
    /// The table has more rows than are read.
    TooManyRows {
        /// How many are read.
        limit: u32,
    },
    /// The answer has no rows, and does not say that there are none.
    NoRows,
}

impl PollFault {
    /// Whether no answer came.
    pub(crate) const fn is_no_answer(&self) -> bool {
        matches!(self, PollFault::NoAnswer { .. })
    }

    /// Whether it is of no use to ask this agent for something else now.
    #[must_use]
    pub const fn is_of_agent(&self) -> bool {
        match self {
            PollFault::Network(_) | PollFault::NoAnswer { .. } | PollFault::OutOfTime => true,
            #[cfg(feature = "v3")]
            PollFault::Reported(_) | PollFault::Untrusted(_) | PollFault::NoKeys => true,
            _ => false,
        }
    }
}

impl fmt::Display for PollFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PollFault::Network(fault) => write!(f, "{fault}"),
            PollFault::NoAnswer { tries } => {
                write!(
                    f,
                    "no answer to {tries} requests: is the agent up, and are address, port and credential right?"
                )
            }
            PollFault::OutOfTime => {
                f.write_str("the run's time is up, so the agent was not asked for the rest")
            }
            PollFault::Unreadable(error) => write!(f, "the agent's answer is not readable {error}"),
            PollFault::NoResponse => {
                f.write_str("the agent answered with something that is no response to the request")
            }
            PollFault::Refused(status) => write!(f, "the agent refused the request: {status}"),
            #[cfg(feature = "v3")]
            PollFault::Reported(reason) => write!(f, "{reason}"),
            #[cfg(feature = "v3")]
            PollFault::Untrusted(error) => write!(f, "{error}"),
            #[cfg(feature = "v3")]
            PollFault::NoKeys => f.write_str("no keys can be made of the credential's passwords"),
            PollFault::Unwritable(error) => write!(f, "the request can't be written: {error}"),
            PollFault::LongName(error) => write!(f, "a row's name can't be kept: {error}"),
            PollFault::Endless => f.write_str("the agent gives the same row again: its table has no end"),
            PollFault::TooManyRows { limit } => {
                write!(f, "the table has more than {limit} rows, the others are not read")
            }
            PollFault::NoRows => {
                f.write_str("the agent's answer holds no rows, and does not say that there are none")
            }
        }
    }
}

impl core::error::Error for PollFault {}

impl From<NetworkFault> for PollFault {
    fn from(fault: NetworkFault) -> Self {
        PollFault::Network(fault)
    }
}

/// Why a single name has no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ReadFault {
    /// The agent has no such object, or no such instance of it.
    Absent,
    /// The agent's error for this variable.
    Refused(ErrorStatus),
    /// This variable alone is too big for a datagram.
    TooBig,
    /// Its name is too long for a datagram.
    LongName,
    /// The agent answered with another name, or left it out.
    OtherName,
    /// Its value is not readable.
    Unreadable(DecodeError),
}

impl fmt::Display for ReadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadFault::Absent => f.write_str("the agent has no such object or instance"),
            ReadFault::Refused(status) => write!(f, "the agent refused it: {status}"),
            ReadFault::TooBig => f.write_str("its value is too big for a datagram"),
            ReadFault::LongName => f.write_str("the name is too long for a datagram"),
            ReadFault::OtherName => f.write_str("the agent answered with another name"),
            ReadFault::Unreadable(error) => write!(f, "its value is not readable {error}"),
        }
    }
}

impl core::error::Error for ReadFault {}

/// Names to be read, and what takes their values.
pub trait Wanted {
    /// How many there are.
    fn count(&self) -> usize;
    /// The name at this position, from 0; `None` if it is too long to be kept.
    fn name(&self, at: usize) -> Option<Name>;
    /// What was read for the name at this position: called once for each, unless the request as a whole fails.
    fn take(&mut self, at: usize, when: When, read: Result<Value<'_>, ReadFault>);
}

/// When something was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct When {
    /// sysUpTime from the same datagram, in hundredths of a second.
    pub uptime_cs: Option<u32>,
    /// When the datagram came, by the network's clock.
    pub now: Millis,
}

/// What is asked.
#[derive(Clone, Copy)]
enum Ask {
    Get,
    Next,
    Bulk { once: bool, repetitions: u16 },
}

impl Ask {
    const fn header(self, request_id: i32) -> PduHeader {
        match self {
            Ask::Get => PduHeader::get(request_id),
            Ask::Next => PduHeader::get_next(request_id),
            Ask::Bulk { once, repetitions } => {
                PduHeader::get_bulk(request_id, once as u32, repetitions as u32)
            }
        }
    }

    /// What is asked instead when it was not answered: an answer to this one is one to the first, too.
    const fn less(self) -> Self {
        match self {
            Ask::Bulk { once, repetitions } if repetitions > 1 => {
                Ask::Bulk { once, repetitions: repetitions / 2 }
            }
            other => other,
        }
    }
}

/// Whether GETBULK was asked of an agent that has not answered one.
const fn has_no_bulk_yet(ask: Ask, has_bulk: Option<bool>) -> bool {
    matches!(ask, Ask::Bulk { .. }) && has_bulk.is_none()
}

/// An agent's answer.
struct Answer<D> {
    datagram: D,
    /// Where a message with a community is in it; one of SNMPv3 was made one.
    message: Range<usize>,
    header: PduHeader,
    now: Millis,
    /// How many rows the last try asked for.
    repetitions: u16,
}

impl<D: AsRef<[u8]>> Answer<D> {
    fn var_binds(&self) -> impl Iterator<Item = Result<VarBind<'_>, DecodeError>> + Clone {
        // It was readable when it came.
        let message = self.datagram.as_ref().get(self.message.clone()).unwrap_or_default();
        Message::decode(message).ok().into_iter().flat_map(|message| message.pdu.var_binds)
    }
}

/// One agent, for the time of a run. It asks one thing at a time, by datagrams of up to `P` bytes.
pub struct Poller<'a, N: Network, const P: usize> {
    network: &'a N,
    target: N::Target,
    access: Access<'a>,
    settings: PollSettings,
    until: Millis,
    /// Whether it has GETBULK, if it has been asked.
    has_bulk: Option<bool>,
    /// Whether the agent has sysUpTime, as far as is known.
    has_uptime: bool,
    /// The most names of a request, by what was too big.
    names: usize,
    requests: u32,
    /// Whether it was asked for something with success.
    has_answered: bool,
    /// How many things it was asked for since then in vain.
    silences: u8,
    buffer: [u8; P],
}

impl<N: Network, const P: usize> fmt::Debug for Poller<'_, N, P> {
    /// Without the buffer, which holds secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller")
            .field("access", &self.access)
            .field("requests", &self.requests)
            .finish_non_exhaustive()
    }
}

impl<'a, N: Network, const P: usize> Poller<'a, N, P> {
    /// The agent at `target`.
    pub const fn new(network: &'a N, target: N::Target, access: Access<'a>, settings: PollSettings) -> Self {
        Poller {
            network,
            target,
            access,
            settings,
            until: Millis(u64::MAX),
            has_bulk: None,
            has_uptime: true,
            names: MAX_NAMES,
            requests: 0,
            has_answered: false,
            silences: 0,
            buffer: [0; P],
        }
    }

    /// Asks for nothing more from then on, by the network's clock.
    #[must_use]
    pub const fn until(mut self, until: Millis) -> Self {
        self.until = until;
        self
    }

    /// How many requests were sent, with repetitions.
    #[must_use]
    pub const fn requests(&self) -> u32 {
        self.requests
    }

    /// Whether the agent has answered anything.
    pub(crate) const fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Whether the run should end with this fault: one time-out may be about a single table, a second in a row is not.
    pub(crate) const fn is_gone(&self, fault: PollFault) -> bool {
        if fault.is_no_answer() { self.silences > 1 } else { fault.is_of_agent() }
    }

    /// Writes the request that `fill` makes: where it is in the buffer; `None` if `fill` wanted none.
    fn write(
        &mut self,
        header: PduHeader,
        fill: &mut dyn FnMut(&mut MessageWriter<'_, '_>) -> bool,
    ) -> Result<Option<Range<usize>>, PollFault> {
        let base = self.buffer.as_ptr() as usize;
        let writer = match self.access {
            Access::Community { version, community } => {
                MessageWriter::new(&mut self.buffer, version, community, header)
            }
            #[cfg(feature = "v3")]
            Access::User { name, keys, engine } => {
                let Ok(security) = v3::Security::new(name, keys) else { return Err(PollFault::NoKeys) };
                let salt = u64::from(self.network.random()) << 32 | u64::from(self.network.random());
                let now_ms = self.network.now().0;
                let mut params = v3::RequestParams::new(header.request_id(), header, now_ms, salt);
                // What the network can take is not known; what goes out comes back.
                params.max_answer_bytes = u32::try_from(P).unwrap_or(u32::MAX).max(1_472);
                security.encode_request(&mut self.buffer, &engine.get(), params)
            }
        };
        let mut writer = writer.map_err(PollFault::Unwritable)?;
        if !fill(&mut writer) {
            return Ok(None);
        }
        let message = writer.finish().map_err(PollFault::Unwritable)?;
        let start = message.as_ptr() as usize - base;
        Ok(Some(start..start + message.len()))
    }

    /// Reads an answer; `None` if the same is to be asked once more, as the agent has told its clock.
    #[cfg_attr(not(feature = "v3"), allow(unused_mut))]
    fn read(
        &self,
        mut datagram: N::Datagram,
        request_id: i32,
        repetitions: u16,
    ) -> Result<Option<Answer<N::Datagram>>, PollFault> {
        let now = self.network.now();
        let message = match self.access {
            Access::Community { .. } => 0..datagram.as_ref().len(),
            #[cfg(feature = "v3")]
            Access::User { name, keys, engine } => {
                let Ok(security) = v3::Security::new(name, keys) else { return Err(PollFault::NoKeys) };
                let mut known = engine.get();
                let opened = open(security, &mut known, datagram.as_mut(), now);
                engine.set(known);
                match opened? {
                    Some(message) => message,
                    None => return Ok(None),
                }
            }
        };
        let header = response(datagram.as_ref().get(message.clone()).unwrap_or_default(), request_id)?;
        Ok(Some(Answer { datagram, message, header, now, repetitions }))
    }

    /// Sends a request until it is answered; `None` if `fill` wanted none.
    #[allow(clippy::manual_async_fn, reason = "an `async fn` holds its arguments twice, which a board feels")]
    fn ask(
        &mut self,
        ask: Ask,
        fill: &mut dyn FnMut(&mut MessageWriter<'_, '_>) -> bool,
    ) -> impl Future<Output = Result<Option<Answer<N::Datagram>>, PollFault>> {
        async move {
            let mut ask = ask;
            let mut request_id = self.request_id();
            let mut fault = None;
            let mut told_clock = false;
            #[cfg(feature = "v3")]
            let mut told_report = false;
            let mut tries = self.settings.retries.saturating_add(1);
            let usual = tries;
            let mut nth = 1u8;
            while nth <= tries {
                let Some(timeout_ms) =
                    self.settings.wait_ms(if nth > usual { 1 } else { nth }, self.network.now(), self.until)
                else {
                    if nth == 1 {
                        return Err(PollFault::OutOfTime);
                    }
                    tries = nth - 1;
                    break;
                };
                let Some(range) = self.write(ask.header(request_id), fill)? else { return Ok(None) };
                self.requests = self.requests.saturating_add(1);
                let request = self.buffer.get(range).unwrap_or_default();
                let tag = request_tag(request).unwrap_or(RequestTag::RequestId(request_id));
                let Some(datagram) = self.network.exchange(self.target, request, tag, timeout_ms).await?
                else {
                    if nth == 1 && timeout_ms < self.settings.timeout_ms {
                        // It may be slow only.
                        return Err(PollFault::OutOfTime);
                    }
                    ask = ask.less();
                    nth = nth.saturating_add(1);
                    if nth > usual && tries == usual && has_no_bulk_yet(ask, self.has_bulk) {
                        // It may have no GETBULK.
                        (ask, tries) = (Ask::Next, usual.saturating_add(1));
                    }
                    continue;
                };
                let repetitions = if let Ask::Bulk { repetitions, .. } = ask { repetitions } else { 1 };
                match self.read(datagram, request_id, repetitions) {
                    Ok(Some(answer)) => {
                        (self.has_answered, self.silences) = (true, 0);
                        if matches!(ask, Ask::Bulk { .. }) {
                            self.has_bulk = Some(true);
                        } else if tries > usual {
                            self.has_bulk = Some(false);
                        }
                        return Ok(Some(answer));
                    }
                    Ok(None) if !told_clock => {
                        // A new number: the agent's answer to the old one was this.
                        (told_clock, request_id) = (true, self.request_id());
                    }
                    Ok(None) => return Err(PollFault::NoResponse),
                    #[cfg(feature = "v3")]
                    Err(
                        why @ (PollFault::NoKeys | PollFault::Reported(v3::ReportReason::UnknownEngineId)),
                    ) => {
                        return Err(why);
                    }
                    // Anyone may have sent it, so the right answer is waited for; reports are repeated once, as they are
                    // mostly right.
                    #[cfg(feature = "v3")]
                    Err(why @ PollFault::Reported(_)) => {
                        fault = Some(why);
                        nth = nth.saturating_add(1).max(usual);
                        if told_report {
                            break;
                        }
                        told_report = true;
                    }
                    Err(why) => {
                        fault = Some(why);
                        nth += 1;
                    }
                }
            }
            if fault.is_none() {
                self.silences = self.silences.saturating_add(1);
            }
            Err(fault.unwrap_or(PollFault::NoAnswer { tries }))
        }
    }

    fn request_id(&self) -> i32 {
        (self.network.random() & 0x7fff_ffff).max(1) as i32
    }

    /// Reads all names that `wanted` lists.
    ///
    /// # Errors
    /// [`PollFault`]: those not taken yet are not read. What is wrong with one name only is told to `wanted`.
    pub async fn get(&mut self, wanted: &mut dyn Wanted) -> Result<(), PollFault> {
        let count = wanted.count();
        let mut from = 0;
        // Which of the names from `from` on have been taken already.
        let mut taken = 0u64;
        let mut with_uptime = self.has_uptime;
        while from < count {
            let (mut end, mut asked) = (from, 0usize);
            let (limit, names) = (self.names, &*wanted);
            let answer = self
                .ask(Ask::Get, &mut |writer| {
                    (end, asked) = (from, 0);
                    if with_uptime && let Some(uptime) = uptime_name(true) {
                        let _ = writer.push_oid(uptime);
                    }
                    while end < count && end - from < MAX_NAMES && asked < limit {
                        if !is_taken(taken, end - from) {
                            match names.name(end) {
                                Some(name) if writer.push_oid(&name).is_ok() => asked += 1,
                                _ => break,
                            }
                        }
                        end += 1;
                    }
                    asked > 0
                })
                .await?;
            let Some(answer) = answer else {
                if end < count && end - from < MAX_NAMES {
                    // It does not even fit alone.
                    let when = When { uptime_cs: None, now: self.network.now() };
                    wanted.take(end, when, Err(ReadFault::LongName));
                    end += 1;
                }
                taken = taken.checked_shr((end - from) as u32).unwrap_or(0);
                from = end;
                continue;
            };
            let status = answer.header.error_status();
            if status == ErrorStatus::NoError {
                deliver(&answer, wanted, from..end, taken, with_uptime);
            } else {
                match blamed(&answer.header, with_uptime, asked) {
                    Blamed::Uptime => {
                        (with_uptime, self.has_uptime) = (false, false);
                        continue;
                    }
                    Blamed::Many if asked > 1 => {
                        self.names = (asked / 2).max(1);
                        continue;
                    }
                    Blamed::Many if with_uptime && status == ErrorStatus::TooBig => {
                        with_uptime = false;
                        continue;
                    }
                    Blamed::Many => refuse(wanted, from..end, &mut taken, 0, &answer),
                    Blamed::Nth(nth) => refuse(wanted, from..end, &mut taken, nth, &answer),
                }
                if (from..end).any(|at| !is_taken(taken, at - from)) {
                    continue;
                }
            }
            taken = taken.checked_shr((end - from) as u32).unwrap_or(0);
            from = end;
        }
        Ok(())
    }

    /// The next rows of a walk; `None` at its end.
    ///
    /// # Errors
    /// [`PollFault`], also behind the last rows that were readable; the walk has then ended.
    pub async fn next_rows(&mut self, walk: &mut Walk) -> Result<Option<Rows<N::Datagram>>, PollFault> {
        let mut with_uptime = self.has_uptime;
        while !walk.ended {
            if let Some(fault) = walk.fault.take() {
                walk.ended = true;
                return Err(fault);
            }
            let is_bulk = self.access.has_bulk() && self.has_bulk != Some(false);
            let ask = if is_bulk {
                Ask::Bulk { once: with_uptime, repetitions: walk.repetitions(P) }
            } else {
                Ask::Next
            };
            let last = &walk.last;
            let mut unwritable = None;
            let answer = self
                .ask(ask, &mut |writer| {
                    if with_uptime && let Some(uptime) = uptime_name(false) {
                        let _ = writer.push_oid(uptime);
                    }
                    unwritable = writer.push_oid(last).err();
                    unwritable.is_none()
                })
                .await;
            let answer = match (answer, unwritable) {
                (Ok(Some(answer)), _) => answer,
                (Ok(None), Some(error)) => return Err(walk.end(PollFault::Unwritable(error))),
                (Ok(None), None) => return Err(walk.end(PollFault::NoRows)),
                (Err(fault), _) => return Err(walk.end(fault)),
            };
            walk.most = walk.most.min(answer.repetitions);
            match answer.header.error_status() {
                ErrorStatus::NoError => {}
                ErrorStatus::TooBig if answer.repetitions > 1 => {
                    walk.most = answer.repetitions / 2;
                    continue;
                }
                ErrorStatus::TooBig if with_uptime => {
                    with_uptime = false;
                    continue;
                }
                ErrorStatus::NoSuchName if with_uptime && answer.header.error_index() == 1 => {
                    (with_uptime, self.has_uptime) = (false, false);
                    continue;
                }
                ErrorStatus::NoSuchName => break,
                ErrorStatus::GenErr if is_bulk && self.has_bulk == Some(true) => {
                    self.has_bulk = Some(false);
                    continue;
                }
                status => return Err(walk.end(PollFault::Refused(status))),
            }
            let skip = usize::from(with_uptime);
            let uptime_cs = uptime_of(answer.var_binds().next().filter(|_| with_uptime));
            let when = When { uptime_cs, now: answer.now };
            let (count, bytes) =
                (walk.accept(&answer, skip, self.settings.max_rows), answer.datagram.as_ref().len());
            if let Some(row_bytes) = bytes.saturating_sub(OVERHEAD_BYTES / 2).checked_div(count) {
                walk.row_bytes = row_bytes.max(1);
                return Ok(Some(Rows { answer, skip, count, when }));
            }
            if !walk.ended && walk.fault.is_none() {
                if answer.repetitions == 1 {
                    return Err(walk.end(PollFault::NoRows));
                }
                walk.most = answer.repetitions / 2;
            }
        }
        walk.ended = true;
        Ok(None)
    }
}

/// Asks an agent for its SNMPv3 engine: its name and clock.
///
/// # Errors
/// [`PollFault`].
#[cfg(feature = "v3")]
pub async fn discover<N: Network>(
    network: &N,
    target: N::Target,
    settings: PollSettings,
    until: Millis,
) -> Result<v3::Engine, PollFault> {
    let number = || (network.random() & 0x7fff_ffff).max(1) as i32;
    let (message_id, request_id) = (number(), number());
    let mut buffer = [0; 128];
    let request =
        v3::discovery_request(&mut buffer, message_id, request_id).map_err(PollFault::Unwritable)?;
    let tries = settings.retries.saturating_add(1);
    let mut fault = None;
    for nth in 1..=tries {
        let Some(timeout_ms) = settings.wait_ms(nth, network.now(), until) else {
            return Err(if nth > 1 { PollFault::NoAnswer { tries: nth - 1 } } else { PollFault::OutOfTime });
        };
        let tag = RequestTag::MessageId(message_id);
        if let Some(datagram) = network.exchange(target, request, tag, timeout_ms).await? {
            match v3::Engine::from_discovery(datagram.as_ref(), network.now().0) {
                Ok(engine) => return Ok(engine),
                Err(error) => fault = Some(PollFault::Untrusted(error)),
            }
        }
    }
    Err(fault.unwrap_or(PollFault::NoAnswer { tries }))
}

/// Verifies and decrypts an answer of SNMPv3, and makes it a message with a community where it lies, so that what follows
/// reads one form only, as often as it likes: where that is. `None`: the agent has told its clock, and wants to be asked again.
#[cfg(feature = "v3")]
fn open(
    security: v3::Security<'_>,
    engine: &mut v3::Engine,
    datagram: &mut [u8],
    now: Millis,
) -> Result<Option<Range<usize>>, PollFault> {
    let base = datagram.as_ptr() as usize;
    let pdu_at = match security.decode_response(engine, datagram, now.0).map_err(PollFault::Untrusted)? {
        v3::Answer::Response(scoped) => {
            (scoped.context_name.as_ptr() as usize + scoped.context_name.len()).wrapping_sub(base)
        }
        v3::Answer::Report(report) if report.send_again => return Ok(None),
        v3::Answer::Report(report) => return Err(PollFault::Reported(report.reason)),
    };
    // Tag, then a length of the short or the long form.
    let length_of = |at: usize| -> Option<usize> {
        let first = usize::from(*datagram.get(at + 1)?);
        if first < 0x80 {
            return Some(2 + first);
        }
        let digits = datagram.get(at + 2..at + 2 + (first & 0x7f))?;
        let length =
            digits.iter().try_fold(0usize, |n, digit| n.checked_mul(256)?.checked_add((*digit).into()))?;
        length.checked_add(2 + digits.len())
    };
    let front = |at: usize| -> Option<(Range<usize>, [u8; 9])> {
        let end = at.checked_add(length_of(at)?).filter(|end| *end <= datagram.len())?;
        let [high, low] = u16::try_from(end - at + 5).ok()?.to_be_bytes();
        // SEQUENCE, version 1 (SNMPv2c), no community.
        Some((at.checked_sub(9)?..end, [0x30, 0x82, high, low, 2, 1, 1, 4, 0]))
    };
    let (message, front) = front(pdu_at).ok_or(PollFault::NoResponse)?;
    let place = datagram.get_mut(message.start..message.start + front.len()).ok_or(PollFault::NoResponse)?;
    place.copy_from_slice(&front);
    Ok(Some(message))
}

/// The header, if these bytes are a response to the request.
fn response(datagram: &[u8], request_id: i32) -> Result<PduHeader, PollFault> {
    let message = Message::decode(datagram).map_err(PollFault::Unreadable)?;
    let header = message.pdu.header;
    let fits = header.kind() == PduKind::Response && header.request_id() == request_id;
    if fits { Ok(header) } else { Err(PollFault::NoResponse) }
}

fn is_taken(taken: u64, nth: usize) -> bool {
    taken.checked_shr(nth as u32).is_some_and(|bits| bits & 1 == 1)
}

fn uptime_of(first: Option<Result<VarBind<'_>, DecodeError>>) -> Option<u32> {
    let Some(Ok(VarBind { oid, value: Value::TimeTicks(ticks) })) = first else { return None };
    (Some(oid) == uptime_name(true)).then_some(ticks)
}

/// Which variable an error is about.
enum Blamed {
    Uptime,
    /// Of those asked for, counted from 0.
    Nth(usize),
    /// It does not say.
    Many,
}

fn blamed(header: &PduHeader, with_uptime: bool, asked: usize) -> Blamed {
    let index = header.error_index() as usize;
    if header.error_status() == ErrorStatus::TooBig {
        return Blamed::Many;
    }
    match index.checked_sub(1 + usize::from(with_uptime)) {
        Some(nth) if nth < asked => Blamed::Nth(nth),
        None if index == 1 => Blamed::Uptime,
        _ => Blamed::Many,
    }
}

/// The `nth` of those asked for in `range` has no value.
fn refuse<D>(wanted: &mut dyn Wanted, range: Range<usize>, taken: &mut u64, nth: usize, answer: &Answer<D>) {
    let from = range.start;
    let mut asked = range.filter(|at| !is_taken(*taken, at - from));
    if let Some(at) = asked.nth(nth) {
        let fault = match answer.header.error_status() {
            ErrorStatus::NoSuchName => ReadFault::Absent,
            ErrorStatus::TooBig => ReadFault::TooBig,
            status => ReadFault::Refused(status),
        };
        wanted.take(at, When { uptime_cs: None, now: answer.now }, Err(fault));
        *taken |= 1u64.checked_shl((at - from) as u32).unwrap_or(0);
    }
}

fn deliver<D: AsRef<[u8]>>(
    answer: &Answer<D>,
    wanted: &mut dyn Wanted,
    range: Range<usize>,
    taken: u64,
    with_uptime: bool,
) {
    let mut var_binds = answer.var_binds();
    let uptime_cs = if with_uptime { uptime_of(var_binds.next()) } else { None };
    let when = When { uptime_cs, now: answer.now };
    let from = range.start;
    for at in range.filter(|at| !is_taken(taken, at - from)) {
        let read = match var_binds.next() {
            Some(Ok(VarBind { oid, .. })) if wanted.name(at).is_none_or(|name| name != oid) => {
                Err(ReadFault::OtherName)
            }
            Some(Ok(VarBind { value, .. })) if value.is_exception() => Err(ReadFault::Absent),
            Some(Ok(VarBind { value, .. })) => Ok(value),
            Some(Err(error)) => Err(ReadFault::Unreadable(error)),
            None => Err(ReadFault::OtherName),
        };
        wanted.take(at, when, read);
    }
}

/// A walk over what lies below a name: where it is, and whether it goes in circles.
#[derive(Clone, Debug)]
pub struct Walk {
    column: Name,
    last: Name,
    /// The most rows to be asked for at once, by what was too big or not answered.
    most: u16,
    /// What a row took, in bytes; before the first a guess.
    row_bytes: usize,
    rows: u32,
    first: u64,
    /// Brent's method: the hash of an earlier name, the steps since then, and after how many it is set anew.
    mark: u64,
    steps: u32,
    span: u32,
    /// To be told behind the rows.
    fault: Option<PollFault>,
    ended: bool,
}

impl Walk {
    /// Over what lies below `column`.
    ///
    /// # Errors
    /// [`OidError`]: the name is longer than [`NAME_BYTES`].
    pub fn new<'o>(column: impl Into<OidRef<'o>>) -> Result<Self, OidError> {
        let column = Name::try_from(column.into())?;
        // Its name with an index, and a number or a short text.
        let row_bytes = column.as_ber().len() + 20;
        Ok(Walk {
            last: column.clone(),
            column,
            most: MAX_REPETITIONS,
            row_bytes,
            rows: 0,
            first: 0,
            mark: 0,
            steps: 0,
            span: 1,
            fault: None,
            ended: false,
        })
    }

    /// What is walked.
    #[must_use]
    pub const fn column(&self) -> &Name {
        &self.column
    }

    /// How many rows there were so far.
    #[must_use]
    pub const fn rows(&self) -> u32 {
        self.rows
    }

    fn repetitions(&self, datagram_bytes: usize) -> u16 {
        let fit = datagram_bytes.saturating_sub(OVERHEAD_BYTES) / self.row_bytes.max(1);
        u16::try_from(fit).unwrap_or(u16::MAX).clamp(1, self.most.max(1))
    }

    fn end(&mut self, fault: PollFault) -> PollFault {
        self.ended = true;
        fault
    }

    /// How many rows of the answer are of this walk and new.
    fn accept<D: AsRef<[u8]>>(&mut self, answer: &Answer<D>, skip: usize, max_rows: u32) -> usize {
        let mut count = 0;
        for var_bind in answer.var_binds().skip(skip) {
            let VarBind { oid, value } = match var_bind {
                Ok(var_bind) => var_bind,
                Err(error) => {
                    self.fault = Some(PollFault::Unreadable(error));
                    break;
                }
            };
            let is_below = oid.suffix_of(&self.column).is_some_and(|mut suffix| suffix.next().is_some());
            if value.is_exception() || !is_below {
                self.ended = true;
                break;
            }
            let name = match Name::try_from(oid) {
                Ok(name) => name,
                Err(error) => {
                    self.fault = Some(PollFault::LongName(error));
                    break;
                }
            };
            if self.is_met_again(&name) {
                self.fault = Some(PollFault::Endless);
                break;
            }
            if self.rows >= max_rows {
                self.fault = Some(PollFault::TooManyRows { limit: max_rows });
                break;
            }
            self.last = name;
            self.rows += 1;
            count += 1;
        }
        // The rows before it are given first.
        count
    }

    fn is_met_again(&mut self, name: &Name) -> bool {
        let hash = Fnv1a64::of(name.as_ber());
        if self.rows == 0 {
            (self.first, self.mark) = (hash, hash);
            return false;
        }
        if *name == self.last || hash == self.first || hash == self.mark {
            return true;
        }
        self.steps += 1;
        if self.steps >= self.span {
            (self.mark, self.steps, self.span) = (hash, 0, self.span.saturating_mul(2));
        }
        false
    }
}

/// Rows of a walk, in the agent's datagram.
pub struct Rows<D> {
    answer: Answer<D>,
    skip: usize,
    count: usize,
    when: When,
}

impl<D> fmt::Debug for Rows<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("count", &self.count).field("when", &self.when).finish_non_exhaustive()
    }
}

impl<D: AsRef<[u8]>> Rows<D> {
    /// Their names and values.
    pub fn iter(&self) -> impl Iterator<Item = VarBind<'_>> + Clone {
        self.answer.var_binds().skip(self.skip).take(self.count).filter_map(Result::ok)
    }

    /// How many there are, at least one.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// When they were read.
    #[must_use]
    pub const fn when(&self) -> When {
        self.when
    }
}
