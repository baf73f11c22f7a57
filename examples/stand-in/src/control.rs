//! Rules of misbehaviour as JSON: in files, and over HTTP below `/stand-in/misbehaviour`.
//!
//! ```
//! use grafolean_stand_in::{Misbehaviour, Rule, Status};
//! let rule = Rule::from_json(
//!     &r#"{"kind": "status", "status": 503, "retry_after_s": 30, "method": "PUT", "times": 2}"#.parse()?,
//! )?;
//! let same = Rule::new(Misbehaviour::Status(Status::new(503).retry_after(30))).method("PUT").times(2);
//! assert_eq!(rule, same);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Whoever reaches the stand-in may use it. A web page of somewhere else may not: browsers let it neither send JSON nor
//! delete here, as they ask first and get no consent; and a foreign `Origin`, or a `Host` that is a name which could be anybody's, is refused.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Response, StatusCode};

use crate::body::Payload;
use crate::exchange::OwnRequest;
use crate::json::Json;
use crate::misbehave::{DateHeader, Listed, Misbehaviour, Rule, RuleError, RuleId, Status, WrongBody};

/// Where the rules are.
const RULES: &str = "/stand-in/misbehaviour";

/// The fields of a JSON object, with those that somebody asked for.
struct Fields<'a> {
    object: &'a Json,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// A field with a value; null is none.
    fn get(&mut self, field: &'static str) -> Option<&'a Json> {
        self.known.push(field);
        self.object.get(field).filter(|value| **value != Json::Null)
    }

    fn text(&mut self, field: &'static str) -> Result<Option<&'a str>, RuleError> {
        match self.get(field) {
            None => Ok(None),
            Some(Json::Str(text)) => Ok(Some(text)),
            Some(_) => Err(RuleError::Expected { field, expected: "a text" }),
        }
    }

    fn number(&mut self, field: &'static str) -> Result<Option<u64>, RuleError> {
        match self.get(field) {
            None => Ok(None),
            Some(Json::Int(digits)) if digits.parse::<u64>().is_ok() => Ok(digits.parse().ok()),
            Some(_) => {
                Err(RuleError::Expected { field, expected: "a whole number from 0 to 18446744073709551615" })
            }
        }
    }

    fn flag(&mut self, field: &'static str) -> Result<Option<bool>, RuleError> {
        match self.get(field) {
            None => Ok(None),
            Some(Json::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(RuleError::Expected { field, expected: "true or false" }),
        }
    }

    fn required<T>(field: &'static str, value: Option<T>) -> Result<T, RuleError> {
        value.ok_or(RuleError::Missing { field })
    }

    fn bytes(&mut self, field: &'static str) -> Result<usize, RuleError> {
        let bytes = Self::required(field, self.number(field)?)?;
        // What is too large for this machine is too large for any rule.
        Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    fn wait(&mut self, field: &'static str) -> Result<Duration, RuleError> {
        Self::required(field, self.number(field)?).map(Duration::from_millis)
    }

    fn status(&mut self) -> Result<Option<u16>, RuleError> {
        // What is no status at all is refused with the others that are none.
        Ok(self.number("status")?.map(|status| u16::try_from(status).unwrap_or(u16::MAX)))
    }

    fn answer(&mut self) -> Result<Status, RuleError> {
        let mut answer = Status::new(Self::required("status", self.status()?)?);
        if let Some(text) = self.text("text")? {
            answer = answer.text(text);
        }
        let expected = RuleError::Expected { field: "headers", expected: "an object of texts" };
        match self.get("headers") {
            None => {}
            Some(Json::Object(headers)) => {
                for (name, value) in headers {
                    let Json::Str(value) = value else { return Err(expected) };
                    answer = answer.header(name, value);
                }
            }
            Some(_) => return Err(expected),
        }
        if let Some(seconds) = self.number("retry_after_s")? {
            answer = answer.retry_after(seconds);
        }
        if let Some(closes) = self.flag("close")? {
            answer = answer.closing(closes);
        }
        Ok(answer)
    }

    fn date(&mut self) -> Result<DateHeader, RuleError> {
        let offset = match self.get("offset_s") {
            None => None,
            Some(Json::Int(digits)) => Some(digits.parse::<i64>().unwrap_or(i64::MAX)),
            Some(_) => {
                return Err(RuleError::Expected { field: "offset_s", expected: "a whole number of seconds" });
            }
        };
        match (offset, self.text("text")?, self.flag("missing")?) {
            (Some(offset), None, None) => Ok(DateHeader::OffsetS(offset)),
            (None, Some(text), None) => Ok(DateHeader::Text(text.to_owned())),
            (None, None, Some(true)) => Ok(DateHeader::Missing),
            _ => Err(RuleError::Expected {
                field: "offset_s",
                expected: "given, or `text`, or `missing` as true, one of the three",
            }),
        }
    }

    fn wrong_body(&mut self) -> Result<WrongBody, RuleError> {
        match self.text("body")? {
            None => Err(RuleError::Missing { field: "body" }),
            Some("text") => Ok(WrongBody::Text(Self::required("text", self.text("text")?)?.to_owned())),
            Some("half") => Ok(WrongBody::Half),
            Some("random") => {
                Ok(WrongBody::Random { seed: self.number("seed")?.unwrap_or(0), bytes: self.bytes("bytes")? })
            }
            Some("longer") => Ok(WrongBody::AnnouncedLonger(self.bytes("by_bytes")?)),
            Some("shorter") => Ok(WrongBody::AnnouncedShorter(self.bytes("by_bytes")?)),
            Some(_) => {
                Err(RuleError::Expected { field: "body", expected: "text, half, random, longer or shorter" })
            }
        }
    }

    fn misbehaviour(&mut self) -> Result<Misbehaviour, RuleError> {
        use Misbehaviour as M;
        Ok(match Self::required("kind", self.text("kind")?)? {
            "refuse" => M::Refuse,
            "reset_on_connect" => M::ResetOnConnect,
            "reset" => M::Reset,
            "close" => M::Close,
            "close_after_doing" => M::CloseAfterDoing,
            "hang" => M::Hang,
            "hang_after_doing" => M::HangAfterDoing,
            "delay" => M::Delay(self.wait("ms")?),
            "status" => M::Status(self.answer()?),
            "status_after_doing" => M::StatusAfterDoing(self.answer()?),
            "pages" => M::Pages(self.bytes("pages")?),
            "body_limit" => M::BodyLimit(self.bytes("bytes")?),
            "refuse_body" => M::RefuseBody {
                containing: Self::required("containing", self.text("containing")?)?.to_owned(),
                answer: self.answer()?,
            },
            "plain_http" => M::PlainHttp,
            "redirect" => {
                M::Redirect { status: self.status()?.unwrap_or(307), to: self.text("to")?.map(str::to_owned) }
            }
            "date" => M::Date(self.date()?),
            "idle_close" => M::IdleClose(self.wait("after_ms")?),
            "cut_head" => M::CutHead { after_bytes: self.bytes("after_bytes")? },
            "cut_body" => M::CutBody { after_bytes: self.bytes("after_bytes")? },
            "drip" => M::Drip { bytes: self.bytes("bytes")?, pause: self.wait("pause_ms")? },
            "drip_head" => M::DripHead { bytes: self.bytes("bytes")?, pause: self.wait("pause_ms")? },
            "garbage" => M::Garbage { seed: self.number("seed")?.unwrap_or(0), bytes: self.bytes("bytes")? },
            "wrong_body" => M::WrongBody(self.wrong_body()?),
            _ => {
                return Err(RuleError::Expected {
                    field: "kind",
                    expected: "refuse, reset_on_connect, reset, close, close_after_doing, hang, hang_after_doing, delay, \
                               status, status_after_doing, pages, body_limit, refuse_body, plain_http, redirect, date, \
                               idle_close, cut_head, cut_body, drip, drip_head, garbage or wrong_body",
                });
            }
        })
    }
}

impl Rule {
    /// Reads a rule: `kind` is [`Misbehaviour::name`], beside it the kind's own fields, and `method`, `path`, `bot`, `skip`, `times`,
    /// `chance` with `chance_seed` (0), `for_ms`. The README has an example of each.
    ///
    /// # Errors
    /// [`RuleError`] with the field. A rule about connections needs an end, `for_ms` (or `times` to reset
    /// them), as nobody could take it away.
    pub fn from_json(json: &Json) -> Result<Self, RuleError> {
        let Json::Object(entries) = json else {
            return Err(RuleError::Expected { field: "rule", expected: "an object" });
        };
        let mut fields = Fields { object: json, known: Vec::new() };
        let mut rule = Self::new(fields.misbehaviour()?);
        if let Some(method) = fields.text("method")? {
            rule = rule.method(method);
        }
        if let Some(path) = fields.text("path")? {
            rule = rule.path(path);
        }
        if let Some(bot) = fields.text("bot")? {
            rule = rule.bot(bot);
        }
        if let Some(skip) = fields.number("skip")? {
            rule = rule.skip(skip);
        }
        if let Some(times) = fields.number("times")? {
            rule = rule.times(times);
        }
        let chance = match fields.get("chance") {
            None => None,
            Some(Json::Float(chance)) => Some(*chance),
            Some(Json::Int(digits)) => digits.parse().ok(),
            Some(_) => {
                return Err(RuleError::Expected { field: "chance", expected: "a number from 0 to 1" });
            }
        };
        match (chance, fields.number("chance_seed")?) {
            (Some(chance), seed) => rule = rule.chance(chance, seed.unwrap_or(0)),
            (None, Some(_)) => return Err(RuleError::Missing { field: "chance" }),
            (None, None) => {}
        }
        if let Some(ms) = fields.number("for_ms")? {
            rule = rule.lasts(Duration::from_millis(ms));
        }
        if let Some((unknown, _)) = entries.iter().find(|(key, _)| !fields.known.contains(&key.as_str())) {
            return Err(RuleError::Unknown {
                field: unknown.clone(),
                misbehaviour: rule.misbehaviour.name(),
                known: fields.known,
            });
        }
        let locks_out = match rule.misbehaviour {
            Misbehaviour::Refuse => rule.lasts.is_none(),
            Misbehaviour::ResetOnConnect => rule.lasts.is_none() && rule.times.is_none(),
            _ => false,
        };
        if locks_out {
            return Err(RuleError::Missing { field: "for_ms" });
        }
        rule.check()?;
        Ok(rule)
    }

    /// Reads a list of rules from a JSON text.
    ///
    /// # Errors
    /// [`RuleError`] with the place in the list.
    pub fn list_from_json(text: &str) -> Result<Vec<Self>, RuleError> {
        match without_keys_twice(text.as_bytes())? {
            Json::List(rules) => rules
                .iter()
                .enumerate()
                .map(|(index, rule)| {
                    Self::from_json(rule).map_err(|error| RuleError::InList { index, error: Box::new(error) })
                })
                .collect(),
            _ => Err(RuleError::Expected { field: "rules", expected: "a list" }),
        }
    }

    /// Reads a file with a list of rules.
    ///
    /// # Errors
    /// [`RuleError::Read`], and as [`Self::list_from_json`].
    pub fn read(file: &Path) -> Result<Vec<Self>, RuleError> {
        Self::list_from_json(&std::fs::read_to_string(file).map_err(RuleError::Read)?)
    }

    /// The same rule as [`Self::from_json`] reads it.
    pub fn to_json(&self) -> Json {
        let mut out = Written(vec![("kind".to_owned(), Json::from(self.misbehaviour.name()))]);
        out.misbehaviour(&self.misbehaviour);
        out.text("method", self.method.as_deref());
        out.text("path", self.path.as_deref());
        out.text("bot", self.bot.as_deref());
        out.number("skip", Some(self.skip).filter(|skip| *skip > 0));
        out.number("times", self.times);
        if let Some((chance, seed)) = self.chance {
            out.put("chance", Json::Float(chance));
            out.number("chance_seed", Some(seed));
        }
        out.wait("for_ms", self.lasts);
        Json::Object(out.0)
    }
}

/// The fields of a rule that is written.
struct Written(Vec<(String, Json)>);

impl Written {
    fn put(&mut self, field: &str, value: Json) {
        self.0.push((field.to_owned(), value));
    }

    fn text(&mut self, field: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.put(field, Json::from(text));
        }
    }

    fn number(&mut self, field: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.put(field, Json::Int(number.to_string()));
        }
    }

    fn bytes(&mut self, field: &str, bytes: usize) {
        self.put(field, Json::Int(bytes.to_string()));
    }

    fn wait(&mut self, field: &str, time: Option<Duration>) {
        self.number(field, time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
    }

    fn answer(&mut self, answer: &Status) {
        self.number("status", Some(answer.status.into()));
        self.text("text", answer.body.as_deref());
        if !answer.headers.is_empty() {
            let headers =
                answer.headers.iter().map(|(name, value)| (name.clone(), Json::from(value.as_str())));
            self.put("headers", Json::Object(headers.collect()));
        }
        if let Some(closes) = answer.closes {
            self.put("close", Json::Bool(closes));
        }
    }

    fn misbehaviour(&mut self, misbehaviour: &Misbehaviour) {
        use Misbehaviour as M;
        match misbehaviour {
            M::Refuse
            | M::ResetOnConnect
            | M::Reset
            | M::Close
            | M::CloseAfterDoing
            | M::Hang
            | M::HangAfterDoing
            | M::PlainHttp => {}
            M::Delay(time) => self.wait("ms", Some(*time)),
            M::Status(answer) | M::StatusAfterDoing(answer) => self.answer(answer),
            M::Pages(pages) => self.bytes("pages", *pages),
            M::BodyLimit(bytes) => self.bytes("bytes", *bytes),
            M::RefuseBody { containing, answer } => {
                self.text("containing", Some(containing));
                self.answer(answer);
            }
            M::Redirect { status, to } => {
                self.number("status", Some((*status).into()));
                self.text("to", to.as_deref());
            }
            M::Date(DateHeader::OffsetS(offset)) => self.put("offset_s", Json::int(*offset)),
            M::Date(DateHeader::Missing) => self.put("missing", Json::Bool(true)),
            M::Date(DateHeader::Text(text)) => self.text("text", Some(text)),
            M::IdleClose(time) => self.wait("after_ms", Some(*time)),
            M::CutHead { after_bytes } | M::CutBody { after_bytes } => {
                self.bytes("after_bytes", *after_bytes)
            }
            M::Drip { bytes, pause } | M::DripHead { bytes, pause } => {
                self.bytes("bytes", *bytes);
                self.wait("pause_ms", Some(*pause));
            }
            M::Garbage { seed, bytes } => {
                self.number("seed", Some(*seed));
                self.bytes("bytes", *bytes);
            }
            M::WrongBody(WrongBody::Text(text)) => {
                self.text("body", Some("text"));
                self.text("text", Some(text));
            }
            M::WrongBody(WrongBody::Half) => self.text("body", Some("half")),
            M::WrongBody(WrongBody::Random { seed, bytes }) => {
                self.text("body", Some("random"));
                self.number("seed", Some(*seed));
                self.bytes("bytes", *bytes);
            }
            M::WrongBody(WrongBody::AnnouncedLonger(by)) => {
                self.text("body", Some("longer"));
                self.bytes("by_bytes", *by);
            }
            M::WrongBody(WrongBody::AnnouncedShorter(by)) => {
                self.text("body", Some("shorter"));
                self.bytes("by_bytes", *by);
            }
        }
    }
}

/// The answer to a request about rules; none if it is about something else.
pub(crate) fn answer(request: &OwnRequest<'_>) -> Option<Response<Payload>> {
    let rest = request.path.strip_prefix(RULES)?;
    let id = match rest.strip_prefix('/') {
        None if rest.is_empty() => None,
        None => return None,
        Some("") => None,
        Some(id) => Some(id.parse().ok().map(RuleId)),
    };
    let core = request.core;
    Some(match (request.method, id) {
        (&Method::GET, None) => {
            let list = core.rules.list().iter().map(listed).collect();
            json(StatusCode::OK, Json::Object(vec![("list".to_owned(), Json::List(list))]))
        }
        (&Method::GET, Some(id)) => match core.rules.list().iter().find(|rule| Some(rule.id) == id) {
            Some(rule) => json(StatusCode::OK, listed(rule)),
            None => no_such_rule(),
        },
        (&Method::POST, None) if !is_json(request) => {
            failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, "`Content-Type` must be application/json")
        }
        (&Method::POST, None) => {
            let rule = without_keys_twice(&request.body);
            let rule = rule.and_then(|rule| Rule::from_json(&rule)).and_then(|rule| known_bot(request, rule));
            match rule.and_then(|rule| core.misbehave(rule)) {
                Ok(id) => {
                    let id = vec![("id".to_owned(), Json::Int(id.to_string()))];
                    json(StatusCode::CREATED, Json::Object(id))
                }
                Err(error) => failure(StatusCode::BAD_REQUEST, &error.to_string()),
            }
        }
        (&Method::DELETE, None) => {
            core.behave_all();
            no_content()
        }
        (&Method::DELETE, Some(id)) => {
            if id.is_some_and(|id| core.behave(id)) {
                no_content()
            } else {
                no_such_rule()
            }
        }
        (_, id) => {
            let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, "no such method here");
            let allowed = if id.is_none() { "GET, POST, DELETE" } else { "GET, DELETE" };
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
            response
        }
    })
}

fn without_keys_twice(text: &[u8]) -> Result<Json, RuleError> {
    match Json::with_key_twice(text).map_err(RuleError::Json)? {
        (json, None) => Ok(json),
        (_, Some(field)) => Err(RuleError::Twice { field }),
    }
}

/// A rule for a bot that is not there would never be applied. Tests in Rust may add the bot later.
fn known_bot(request: &OwnRequest<'_>, rule: Rule) -> Result<Rule, RuleError> {
    let Some(bot) = rule.bot.as_ref().filter(|bot| *bot != "unknown") else { return Ok(rule) };
    let backend = request.core.backend();
    let bots = backend.bots();
    if bots.iter().any(|b| b.short_name == *bot) {
        return Ok(rule);
    }
    let known: Vec<String> = bots.iter().take(RuleError::NAMED_BOTS).map(|b| b.short_name.clone()).collect();
    let more = bots.len() - known.len();
    Err(RuleError::NoSuchBot { bot: bot.clone(), known, more })
}

fn is_json(request: &OwnRequest<'_>) -> bool {
    let content_type = request.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| {
        value
            .split(';')
            .next()
            .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
    })
}

fn listed(rule: &Listed) -> Json {
    let mut out = Written(vec![("id".to_owned(), Json::Int(rule.id.to_string()))]);
    if let Json::Object(fields) = rule.rule.to_json() {
        out.0.extend(fields);
    }
    out.number("matched", Some(rule.matched));
    out.number("applied", Some(rule.applied));
    out.wait("ends_in_ms", rule.left);
    Json::Object(out.0)
}

fn json(status: StatusCode, body: Json) -> Response<Payload> {
    // Everything that is written here can be: there are no infinities and no halves of characters.
    let body = body.to_compact().unwrap_or_default();
    OwnRequest::reply(status, "application/json", Bytes::from(body))
}

fn failure(status: StatusCode, error: &str) -> Response<Payload> {
    json(status, Json::Object(vec![("error".to_owned(), Json::from(error))]))
}

fn no_such_rule() -> Response<Payload> {
    failure(StatusCode::NOT_FOUND, "no such rule stands")
}

fn no_content() -> Response<Payload> {
    let mut response = Response::new(Payload::Whole(crate::backend::ReplyBody::None));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
