//! What the stand-in remembers of the requests it got, and what it tells those who listen.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::misbehave::RuleId;
use crate::store::StoredValue;

/// How many requests the log keeps; older ones are dropped.
pub const LOG_CAPACITY: usize = 100_000;

/// One request as it was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestRecord {
    /// Unix time in microseconds at which its head and body had been read.
    pub time_us: i64,
    /// Which connection it came on, from 1.
    pub connection: u64,
    /// Its place on that connection, from 1.
    pub nth_on_connection: u64,
    /// The method.
    pub method: String,
    /// Path and query; each token is replaced by the short name of its bot, as in `/api/profile/?b=<ping>`.
    pub path: String,
    /// Short name of the bot whose token came with it; `unknown` for a token of no bot, none without a token.
    pub bot: Option<String>,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// Length of the body in bytes.
    pub body_len: usize,
    /// The body, if the stand-in was told to keep bodies.
    pub body: Option<Bytes>,
    /// The status it was answered with; none if the connection was closed without an answer.
    pub status: Option<u16>,
    /// The rule by which it was treated, if one was; see [`StandIn::misbehave`](crate::StandIn::misbehave).
    pub misbehaved: Option<RuleId>,
    /// How many values it stored.
    pub values_stored: usize,
    /// From reading it to having the answer.
    pub took: Duration,
}

impl RequestRecord {
    /// The path without the query.
    pub fn path_only(&self) -> &str {
        self.path.split('?').next().unwrap_or("")
    }

    /// Whether it got no answer, or a status from 400.
    pub fn failed(&self) -> bool {
        self.status.is_none_or(|status| status >= 400)
    }
}

/// Sums since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that were accepted.
    pub connections: u64,
    /// Connections that are open now.
    pub open_connections: u64,
    /// Requests, those without an answer included.
    pub requests: u64,
    /// Answers by status.
    pub by_status: BTreeMap<u16, u64>,
    /// Values that were stored; overwriting counts again.
    pub values: u64,
    /// Bytes of request bodies.
    pub body_bytes: u64,
}

/// Something that happened; see [`StandIn::subscribe`](crate::StandIn::subscribe).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A value was stored.
    Value(StoredValue),
    /// A request was answered; follows the events of its values.
    Request(RequestRecord),
}

/// What came with one bot's token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) last_us: i64,
    pub(crate) requests: u64,
    /// Those without an answer, or with a status from 400.
    pub(crate) failed: u64,
    pub(crate) values: u64,
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) requests: VecDeque<RequestRecord>,
    pub(crate) counters: Counters,
    /// By short name; none: without a token.
    pub(crate) heard: BTreeMap<Option<String>, Heard>,
}

impl Log {
    pub(crate) fn add(&mut self, record: RequestRecord) {
        self.counters.requests += 1;
        self.counters.values += record.values_stored as u64;
        self.counters.body_bytes += record.body_len as u64;
        if let Some(status) = record.status {
            *self.counters.by_status.entry(status).or_default() += 1;
        }
        // Names are those of bots, so there are few; only a new one is copied.
        if !self.heard.contains_key(&record.bot) {
            self.heard.insert(record.bot.clone(), Heard::default());
        }
        if let Some(heard) = self.heard.get_mut(&record.bot) {
            heard.last_us = record.time_us;
            heard.requests += 1;
            heard.failed += u64::from(record.failed());
            heard.values += record.values_stored as u64;
        }
        if self.requests.len() == LOG_CAPACITY {
            self.requests.pop_front();
        }
        self.requests.push_back(record);
    }
}
