//! What there is to say: faults of the configuration, remembered so that each is told when it appears and when it
//! goes, and a bounded queue of events for the driver to log or to count.

use core::fmt;

use serde::de::{Expected, Unexpected};

use crate::bot::SensorRefusal;
use crate::hash::Fnv1a64;
use crate::interval::{Interval, IntervalError};
use crate::json::{DecodeError, DecodeErrorKind, Failure, FrameError, ReadError, ReadErrorKind};
use crate::outbox::OutboxEvent;
use crate::probe::{self, Probed};
use crate::table::Committed;
use crate::time::DateNotice;

/// The kinds of things that have a table of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Kind {
    /// Accounts.
    Account,
    /// Entities.
    Entity,
    /// Credentials.
    Credential,
    /// Sensors.
    Sensor,
    /// Jobs.
    Job,
    /// Intervals of all jobs together.
    IntervalEntry,
    /// Distinct intervals.
    DistinctInterval,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Account => "account",
            Kind::Entity => "entity",
            Kind::Credential => "credential",
            Kind::Sensor => "sensor",
            Kind::Job => "job",
            Kind::IntervalEntry => "interval entry",
            Kind::DistinctInterval => "distinct interval",
        })
    }
}

/// What is wrong with a part of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FaultKind {
    /// The element is longer than its buffer; what it was stays.
    TooLong {
        /// Its length in bytes.
        bytes: u64,
        /// The buffer's size in bytes.
        limit: usize,
    },
    /// The element is nested deeper than can be read; what it was stays.
    TooDeep {
        /// The deepest level that can be read.
        limit: usize,
    },
    /// The element was read and is not what the backend gives.
    Malformed(ReadError),
    /// The details were read and the bot refuses them.
    Details(DetailsError),
    /// The bot refuses the entity's settings.
    Refused(&'static str),
    /// The bot can't use a sensor's details; the sensor is left out.
    SensorRefused(SensorRefusal),
    /// A sensor's interval is none; the sensor is left out.
    Interval(IntervalError),
    /// A sensor's interval would be the ninth distinct one of its entity; the sensor is left out.
    NinthInterval(Interval),
    /// The entity has more sensors than there is room for; this one is left out.
    TooManySensors {
        /// How many there can be.
        limit: usize,
    },
    /// No interval is left, so there is no job.
    NoIntervals,
    /// What the entity names is not in its account's list, or was not readable.
    Missing,
    /// It was named twice; the first one counts.
    Duplicate,
    /// There is no room for it.
    Capacity {
        /// Of what there is not enough.
        of: Kind,
        /// How many there can be.
        capacity: usize,
    },
    /// There is no room for its new state before commit: it stays as it was until a further refresh.
    Deferred,
    /// A list of the account could not be had: the account's jobs stay as they were.
    AccountFailed(RefreshError),
}

/// Why details were refused: what fits into an event of a [`DecodeError`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DetailsError {
    /// Where in the details, in bytes.
    pub offset: u32,
    /// The field.
    pub field: Option<&'static str>,
    /// What is wrong with it.
    pub what: &'static str,
    /// The details are beyond the bounds of what can be read, rather than refused.
    pub beyond_bounds: bool,
}

impl From<&DecodeError> for DetailsError {
    fn from(error: &DecodeError) -> Self {
        let what = match error.kind() {
            DecodeErrorKind::Read(kind) => Refusal::of(kind),
            DecodeErrorKind::TooDeep => Refusal::TooDeep,
            DecodeErrorKind::WrongKind { .. } => Refusal::OtherKind,
            DecodeErrorKind::UnfitValue { .. } => Refusal::Value,
            DecodeErrorKind::WrongLength { .. } | DecodeErrorKind::TooManyItems => Refusal::Length,
            DecodeErrorKind::MissingField(_) => Refusal::Missing,
            DecodeErrorKind::DuplicateField(_) => Refusal::Twice,
            DecodeErrorKind::UnknownField(_) => Refusal::UnknownField,
            DecodeErrorKind::UnknownVariant(_) => Refusal::UnknownVariant,
            _ => Refusal::Other,
        };
        let field = match error.kind() {
            DecodeErrorKind::MissingField(f) | DecodeErrorKind::DuplicateField(f) => Some(*f),
            _ => error.field(),
        };
        Refused { offset: u32::try_from(error.offset()).unwrap_or(u32::MAX), field, what }.into()
    }
}

/// Why details are refused, in a byte: it is in all code that decodes a bot's types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    TextTooLong,
    TooDeep,
    Number,
    LoneSurrogate,
    Kind,
    OtherKind,
    Value,
    Length,
    Missing,
    Twice,
    UnknownField,
    UnknownVariant,
    Other,
}

impl Refusal {
    const fn of(kind: &ReadErrorKind) -> Self {
        match kind {
            ReadErrorKind::TextTooLong { .. } => Refusal::TextTooLong,
            ReadErrorKind::TooDeep => Refusal::TooDeep,
            ReadErrorKind::Number(_) => Refusal::Number,
            ReadErrorKind::LoneSurrogate => Refusal::LoneSurrogate,
            _ => Refusal::Kind,
        }
    }
}

/// A [`DetailsError`] while it is being made: with it the decoder keeps what an event says, and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    /// `u32::MAX` until it is known.
    offset: u32,
    field: Option<&'static str>,
    what: Refusal,
}

impl Refused {
    const fn new(what: Refusal, field: Option<&'static str>) -> Self {
        Refused { offset: u32::MAX, field, what }
    }
}

impl From<Refused> for DetailsError {
    fn from(Refused { offset, field, what }: Refused) -> Self {
        let text = match what {
            Refusal::TextTooLong => "text too long",
            Refusal::TooDeep => "nested too deep",
            Refusal::Number => "not the number expected",
            Refusal::LoneSurrogate => "half a surrogate pair",
            Refusal::Kind => "not the kind of value expected",
            Refusal::OtherKind => "another kind of value expected",
            Refusal::Value => "value not allowed",
            Refusal::Length => "too long",
            Refusal::Missing => "missing",
            Refusal::Twice => "there twice",
            Refusal::UnknownField => "unknown",
            Refusal::UnknownVariant => "none of the known values",
            Refusal::Other => "refused",
        };
        let beyond_bounds = matches!(what, Refusal::TextTooLong | Refusal::TooDeep);
        DetailsError { offset, field, what: text, beyond_bounds }
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        let offset = u32::try_from(error.offset).unwrap_or(u32::MAX);
        Refused { offset, field: None, what: Refusal::of(&error.kind) }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", DetailsError::from(*self))
    }
}

impl core::error::Error for Refused {}

impl serde::de::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::new(Refusal::Other, None)
    }

    fn invalid_type(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        Self::new(Refusal::OtherKind, None)
    }

    fn invalid_value(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        Self::new(Refusal::Value, None)
    }

    fn invalid_length(_: usize, _: &dyn Expected) -> Self {
        Self::new(Refusal::Length, None)
    }

    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        Self::new(Refusal::UnknownVariant, None)
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Self::new(Refusal::UnknownField, None)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Refusal::Missing, Some(field))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(Refusal::Twice, Some(field))
    }
}

impl Failure for Refused {
    fn wrong_kind(_: &'static str, _: &dyn Expected) -> Self {
        Self::new(Refusal::OtherKind, None)
    }

    fn too_many_items() -> Self {
        Self::new(Refusal::Length, None)
    }

    fn too_deep() -> Self {
        Self::new(Refusal::TooDeep, None)
    }

    fn locate(&mut self, offset: usize) {
        if self.offset == u32::MAX {
            self.offset = u32::try_from(offset).unwrap_or(u32::MAX);
        }
    }

    fn field(&self) -> Option<&'static str> {
        self.field
    }

    fn set_field(&mut self, field: Option<&'static str>) {
        self.field = field;
    }
}

impl fmt::Display for DetailsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = self.field {
            write!(f, "`{field}`: ")?;
        }
        write!(f, "{} (byte {})", self.what, self.offset)
    }
}

/// What is wrong, and with what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Fault {
    /// The account, 0 if none.
    pub account: u64,
    /// The entity, 0 if none.
    pub entity: u64,
    /// Kind and id of the credential or sensor, or of what else it is about.
    pub item: (Kind, u64),
    /// The name of the job, empty if it has none or the fault is not about a job.
    pub job: &'static str,
    /// What is wrong.
    pub kind: FaultKind,
}

impl Fault {
    /// What is wrong with this item of an account and entity (0 if none).
    #[must_use]
    pub const fn new(account: u64, entity: u64, item: (Kind, u64), kind: FaultKind) -> Self {
        Fault { account, entity, item, job: "", kind }
    }

    /// A number that is equal for the same fault of the same thing, whatever its circumstances: where in the bytes it
    /// was met, how long they are, how much room there is.
    fn identity(&self) -> u64 {
        let (of, id) = self.item;
        let mut hash = TextHash(Fnv1a64::new());
        hash.bytes(&[of as u8]);
        hash.0 = hash.0.u64(self.account).u64(self.entity).u64(id);
        // No name holds the byte that ends it.
        hash.bytes(self.job.as_bytes());
        hash.bytes(&[0xff]);
        let kind = match self.kind {
            FaultKind::TooLong { .. } => 1,
            FaultKind::TooDeep { .. } => 2,
            FaultKind::Malformed(e) => {
                hash.text(format_args!("{}", e.kind));
                3
            }
            FaultKind::Details(e) => {
                hash.bytes(e.field.unwrap_or_default().as_bytes());
                hash.bytes(&[0xff]);
                hash.bytes(e.what.as_bytes());
                4
            }
            FaultKind::Refused(why) => {
                hash.bytes(why.as_bytes());
                5
            }
            FaultKind::SensorRefused(e) => {
                hash.bytes(e.field.as_bytes());
                hash.bytes(&[0xff]);
                hash.bytes(e.why.as_bytes());
                // It moves only when somebody edits the field, who then wants to be told.
                hash.bytes(&e.column.to_le_bytes());
                15
            }
            FaultKind::Interval(e) => {
                hash.text(format_args!("{e}"));
                6
            }
            FaultKind::NinthInterval(_) => 7,
            FaultKind::TooManySensors { .. } => 8,
            FaultKind::NoIntervals => 9,
            FaultKind::Missing => 10,
            FaultKind::Duplicate => 11,
            FaultKind::Capacity { of, .. } => {
                hash.bytes(&[of as u8]);
                12
            }
            FaultKind::Deferred => 13,
            FaultKind::AccountFailed(e) => {
                let e = match e {
                    RefreshError::Body(e) => RefreshError::Body(FrameError { offset: 0, ..e }),
                    RefreshError::Answer(e) => RefreshError::Answer(ReadError { offset: 0, ..e }),
                    e => e,
                };
                hash.text(format_args!("{e}"));
                14
            }
        };
        hash.bytes(&[kind]);
        hash.0.finish()
    }
}

/// The hash of what is written, piece by piece.
struct TextHash(Fnv1a64);

impl TextHash {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 = self.0.bytes(bytes);
    }

    fn text(&mut self, text: fmt::Arguments<'_>) {
        // Hashing can't fail.
        let _ = fmt::Write::write_fmt(self, text);
    }
}

impl fmt::Write for TextHash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "account {}", self.account)?;
        if self.entity != 0 {
            write!(f, ", entity {}", self.entity)?;
        }
        let (of, id) = self.item;
        match (id, self.job) {
            (0, "") => {}
            (0, job) => write!(f, ", {of} `{job}`")?,
            (id, "") => write!(f, ", {of} {id}")?,
            (id, job) => write!(f, ", {of} {id} `{job}`")?,
        }
        f.write_str(": ")?;
        match self.kind {
            FaultKind::TooLong { bytes, limit } => {
                write!(f, "{of} of {bytes} bytes is longer than the buffer of {limit} bytes, left as it was")
            }
            FaultKind::TooDeep { limit } => {
                write!(f, "{of} is nested deeper than {limit} levels, left as it was")
            }
            FaultKind::Malformed(e) => write!(f, "{of} is not what the backend gives: {e}"),
            FaultKind::Details(e) => write!(f, "details of the {of} refused: {e}"),
            FaultKind::Refused(why) => f.write_str(why),
            FaultKind::SensorRefused(e) => write!(f, "{e}; the sensor is left out"),
            FaultKind::Interval(e) => write!(f, "{e}; the sensor is left out"),
            FaultKind::NinthInterval(i) => {
                write!(f, "interval {i} would be the ninth distinct one of this job; the sensor is left out")
            }
            FaultKind::TooManySensors { limit } => {
                write!(
                    f,
                    "more than the {limit} sensors that an entity can have here; the sensor is left out"
                )
            }
            FaultKind::NoIntervals => f.write_str("no interval, so no job"),
            FaultKind::Missing => write!(f, "{of} is not in the account's list, or not readable"),
            FaultKind::Duplicate => write!(f, "{of} is named twice, the first one counts"),
            FaultKind::Capacity { of, capacity } => {
                write!(f, "not taken: there is room for {capacity} {}", Plural(of))
            }
            FaultKind::Deferred => {
                write!(f, "no spare room for its new state, it follows with a further refresh")
            }
            FaultKind::AccountFailed(e) => write!(f, "its jobs stay as they were: {e}"),
        }
    }
}

struct Plural(Kind);

impl fmt::Display for Plural {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Entity => f.write_str("entities"),
            Kind::IntervalEntry => f.write_str("intervals of all jobs together"),
            kind => write!(f, "{kind}s"),
        }
    }
}

/// Why a refresh, or a list of it, failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RefreshError {
    /// No connection to the backend.
    NotSent,
    /// The connection broke, or a time limit passed.
    Lost,
    /// The backend answered with this status.
    Status(u16),
    /// The body is not what the backend gives.
    Body(FrameError),
    /// The answer lacks what is needed, at this place of its (only) element.
    Answer(ReadError),
    /// The answer is longer than the buffer for one element.
    TooLong {
        /// The buffer's size in bytes.
        limit: usize,
    },
    /// The backend is not ready: its database wants a migration, or nobody has signed up yet.
    NotReady,
    /// The bot sees no account, or several: the setting `ACCOUNT_ID` must name the one to post to.
    WhichAccount {
        /// How many accounts it sees.
        seen: usize,
    },
    /// The account that `ACCOUNT_ID` names is not among those that the bot sees.
    NoSuchAccount {
        /// The account.
        account: u64,
    },
}

impl fmt::Display for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefreshError::NotSent => f.write_str("no connection to the backend"),
            RefreshError::Lost => f.write_str("the connection to the backend broke or was silent for too long"),
            RefreshError::Status(401) => f.write_str(
                "the backend answered 401: check that the bot's token is right, that the bot still exists, and that \
                 BACKEND_URL is right (it usually ends in /api); a proxy must not add an Authorization header",
            ),
            RefreshError::Status(403) => f.write_str(
                "the backend answered 403: check the bot's permissions (accounts/N/entities, credentials, sensors: GET)",
            ),
            RefreshError::Status(404) => {
                f.write_str("the backend answered 404: check BACKEND_URL, which usually ends in /api")
            }
            RefreshError::Status(s @ 300..=399) => {
                write!(f, "the backend answered {s}, a redirect, which is not followed: check BACKEND_URL")
            }
            RefreshError::Status(s) => write!(f, "the backend answered {s}"),
            RefreshError::Body(e) => write!(f, "the answer is not what the backend gives: {e}"),
            RefreshError::Answer(e) => write!(f, "the answer lacks what is needed: {e}"),
            RefreshError::TooLong { limit } => write!(f, "the answer is longer than the buffer of {limit} bytes"),
            RefreshError::NotReady => f.write_str("the backend is not ready (migration needed or no user yet)"),
            RefreshError::WhichAccount { seen } => {
                write!(f, "the bot sees {seen} accounts: set ACCOUNT_ID to the one that its values belong to")
            }
            RefreshError::NoSuchAccount { account } => {
                write!(f, "the account {account} that ACCOUNT_ID names is not among those that the bot sees")
            }
        }
    }
}

impl core::error::Error for RefreshError {}

/// What a refresh found and did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RefreshSummary {
    /// Requests sent, repeated ones not counted.
    pub requests: u32,
    /// Accounts read.
    pub accounts: u32,
    /// Accounts of which a list failed.
    pub failed_accounts: u32,
    /// Elements of all lists.
    pub elements: u32,
    /// Entities that concern this bot.
    pub entities: u32,
    /// Jobs after it.
    pub jobs: u32,
    /// Faults, those told before included.
    pub faults: u32,
    /// What it did to the jobs.
    pub committed: Committed,
    /// From its start to its end, in milliseconds.
    pub took_ms: u64,
}

impl fmt::Display for RefreshSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.committed;
        write!(
            f,
            "{} jobs ({} new, {} changed, {} removed) of {} entities in {} accounts; {} requests, {} faults, {} ms",
            self.jobs,
            c.added,
            c.changed,
            c.removed,
            self.entities,
            self.accounts,
            self.requests,
            self.faults,
            self.took_ms
        )?;
        if self.failed_accounts > 0 {
            write!(f, "; {} accounts failed", self.failed_accounts)?;
        }
        Ok(())
    }
}

/// Something worth a line in a log.
// Its tag begins at 1, so that room for an event, `None`, is all zeros and takes no room in flash.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
#[repr(u8)]
pub enum Event {
    /// A fault has appeared.
    Fault(Fault) = 1,
    /// A fault has gone.
    FaultGone(Fault),
    /// Events were lost because the queue was full.
    Lost(u32),
    /// The backend's `/profile` was read: the bot's user id.
    Profile {
        /// Its id.
        user_id: u64,
    },
    /// The token belongs to a bot of another protocol: probably it is the wrong one.
    OtherProtocol,
    /// The account of a custom bot.
    OwnAccount {
        /// Its id.
        account: u64,
    },
    /// A refresh has ended.
    Refreshed(RefreshSummary),
    /// A refresh failed; nothing was removed.
    RefreshFailed {
        /// Why.
        error: RefreshError,
        /// When it will be tried again, in milliseconds from now.
        retry_in_ms: u64,
    },
    /// The deadline of a run has passed.
    RunCancelled(crate::jobs::JobKey),
    /// What a `Date` header told.
    Clock(DateNotice),
    /// Of the delivery of values.
    Outbox(OutboxEvent),
}

impl Event {
    /// Whether it asks for somebody's attention.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            Event::Fault(_)
            | Event::Lost(_)
            | Event::RefreshFailed { .. }
            | Event::RunCancelled(_)
            | Event::OtherProtocol => true,
            Event::FaultGone(_) | Event::Profile { .. } | Event::OwnAccount { .. } => false,
            Event::Refreshed(s) => s.failed_accounts > 0,
            Event::Clock(n) => matches!(n, DateNotice::Skewed(_)),
            Event::Outbox(e) => !matches!(
                e,
                OutboxEvent::RoomAgain { .. }
                    | OutboxEvent::BackToPut { .. }
                    | OutboxEvent::Recovered { .. }
                    | OutboxEvent::LinkUp
            ),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Fault(fault) => write!(f, "{fault}"),
            Event::FaultGone(fault) => write!(f, "no longer: {fault}"),
            Event::Lost(n) => write!(f, "{n} events were lost: the queue was full"),
            Event::Profile { user_id } => write!(f, "this bot's user id is {user_id}"),
            Event::OtherProtocol => f.write_str(
                "the token belongs to a bot of another protocol: entities that name their bot are not for it",
            ),
            Event::OwnAccount { account } => write!(f, "values go to account {account}"),
            Event::Refreshed(s) => write!(f, "refreshed: {s}"),
            Event::RefreshFailed { error, retry_in_ms } => {
                let (s, tenths) = (retry_in_ms / 1000, retry_in_ms % 1000 / 100);
                write!(f, "refresh failed, jobs stay as they were: {error}; next try in {s}.{tenths} s")
            }
            Event::RunCancelled(key) => write!(f, "{key}: the run was cancelled at its deadline"),
            Event::Clock(DateNotice::Skewed(ms)) => {
                write!(f, "this machine's clock is off from the backend's by {ms} ms")
            }
            Event::Clock(DateNotice::Moved(ms)) => write!(f, "the clock was moved by {ms} ms"),
            Event::Clock(_) => f.write_str("the clock is known"),
            Event::Outbox(e) => write!(f, "{e}"),
        }
    }
}

/// Room for one remembered fault.
#[derive(Clone, Copy, Debug)]
pub struct FaultSlot {
    identity: u64,
    held: Held,
}

/// Not an `Option`: its tag is 0 if nothing is there.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Held {
    Nothing = 0,
    Fault { seen: bool, fault: Fault },
}

impl FaultSlot {
    /// No fault, all bytes zero.
    pub const EMPTY: Self = FaultSlot { identity: 0, held: Held::Nothing };

    const fn fault(&self) -> Option<&Fault> {
        match &self.held {
            Held::Nothing => None,
            Held::Fault { fault, .. } => Some(fault),
        }
    }
}

impl Probed for FaultSlot {
    const EMPTY: Self = FaultSlot::EMPTY;
    fn hash(&self) -> Option<u64> {
        self.fault().map(|_| self.identity)
    }
}

/// What a journal remembers besides its memory.
#[derive(Clone, Debug, Default)]
pub struct JournalState {
    faults: u32,
    /// Faults of the refresh under way.
    count: u32,
    head: u32,
    len: u32,
    lost: u32,
    /// Faults to come that have been reported already.
    repeated: u32,
}

impl JournalState {
    /// Nothing to say yet.
    #[must_use]
    pub const fn new() -> Self {
        JournalState { faults: 0, count: 0, head: 0, len: 0, lost: 0, repeated: 0 }
    }

    /// Faults of the refresh under way, or of the last one.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }
}

/// The journal for the time of a call.
///
/// Reporting a fault costs a few looks at remembered ones on average, about √n where all n places are taken; a refresh's
/// begin and its commit each look at all places once.
#[derive(Debug)]
pub struct Journal<'a> {
    state: &'a mut JournalState,
    faults: &'a mut [FaultSlot],
    events: &'a mut [Option<Event>],
}

impl<'a> Journal<'a> {
    /// The journal of `state` in the memory `faults` (8 on a board, 1024 on a host), of the same length at each call, and
    /// `events`.
    #[must_use]
    pub fn new(
        state: &'a mut JournalState,
        faults: &'a mut [FaultSlot],
        events: &'a mut [Option<Event>],
    ) -> Self {
        Journal { state, faults, events }
    }

    /// Faults of the refresh under way, or of the last one.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.state.count
    }

    /// The same journal, for a shorter time.
    pub fn reborrow(&mut self) -> Journal<'_> {
        Journal { state: self.state, faults: self.faults, events: self.events }
    }

    /// The same work is done once more, from its beginning: the first `repeated` faults have been reported before.
    pub fn repeat(&mut self, repeated: u32) {
        self.state.repeated = repeated;
    }

    /// A refresh begins.
    pub fn begin(&mut self) {
        self.state.count = 0;
        self.state.repeated = 0;
        for slot in self.faults.iter_mut() {
            if let Held::Fault { seen, .. } = &mut slot.held {
                *seen = false;
            }
        }
    }

    /// Reports a fault: told if it is new and there is room to remember it, counted in any case.
    pub fn fault(&mut self, fault: Fault) {
        if self.state.repeated > 0 {
            self.state.repeated -= 1;
            return;
        }
        self.state.count = self.state.count.saturating_add(1);
        self.remember(fault);
    }

    fn remember(&mut self, fault: Fault) {
        let identity = fault.identity();
        let there = self.find(identity);
        if let Some(slot) = there.and_then(|at| self.faults.get_mut(at)) {
            slot.held = Held::Fault { seen: true, fault };
            return;
        }
        if self.state.faults as usize >= self.faults.len() {
            return;
        }
        if self.state.len as usize >= self.events.len() {
            // It is told at the next refresh, then.
            self.state.lost = self.state.lost.saturating_add(1);
            return;
        }
        if probe::insert(self.faults, FaultSlot { identity, held: Held::Fault { seen: true, fault } }) {
            self.state.faults += 1;
            self.event(Event::Fault(fault));
        }
    }

    fn find(&self, identity: u64) -> Option<usize> {
        probe::find(self.faults, identity, |slot| slot.identity == identity)
    }

    /// A refresh was committed: faults that it did not meet are gone, unless `unknown` says that it did not look.
    pub fn commit(&mut self, unknown: impl Fn(&Fault) -> bool) {
        let mut at = 0;
        while let Some(slot) = self.faults.get(at) {
            let seen = matches!(slot.held, Held::Fault { seen: true, .. });
            if seen || slot.fault().is_none_or(&unknown) {
                at += 1;
            } else {
                // Another one may have moved here.
                self.forget(at);
            }
        }
    }

    fn forget(&mut self, at: usize) {
        let Some(fault) = self.faults.get(at).and_then(|slot| slot.fault().copied()) else { return };
        probe::remove(self.faults, at);
        self.state.faults = self.state.faults.saturating_sub(1);
        self.event(Event::FaultGone(fault));
    }

    /// Says of a fault that is judged after the commit whether it is there: told when it appears and when it goes.
    pub fn lasting(&mut self, fault: Fault, there: bool) {
        if there {
            self.state.count = self.state.count.saturating_add(1);
            return self.remember(fault);
        }
        if let Some(at) = self.find(fault.identity()) {
            self.forget(at);
        }
    }

    /// Queues an event; if the queue is full, it is lost and counted.
    pub fn event(&mut self, event: Event) {
        let (len, capacity) = (self.state.len as usize, self.events.len());
        if len >= capacity {
            self.state.lost = self.state.lost.saturating_add(1);
            return;
        }
        let at = (self.state.head as usize + len) % capacity;
        if let Some(slot) = self.events.get_mut(at) {
            *slot = Some(event);
            self.state.len += 1;
        }
    }

    /// The next event, in order.
    pub fn poll(&mut self) -> Option<Event> {
        if self.state.len == 0 {
            let lost = core::mem::take(&mut self.state.lost);
            return (lost > 0).then_some(Event::Lost(lost));
        }
        let head = self.state.head as usize;
        let event = self.events.get_mut(head)?.take();
        self.state.head = ((head + 1) % self.events.len()) as u32;
        self.state.len -= 1;
        event
    }

    /// Whether half of the queue is taken, so that it should grow if it can.
    #[must_use]
    pub fn is_half_full(&self) -> bool {
        self.state.len as usize >= self.events.len() / 2
    }

    /// Moves the events so that the queue begins at the first place: its memory may be made longer then.
    pub fn straighten(&mut self) {
        self.events.rotate_left((self.state.head as usize).min(self.events.len()));
        self.state.head = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fault(id: u64) -> Fault {
        Fault::new(1, 2, (Kind::Sensor, id), FaultKind::Missing)
    }

    struct Owner(JournalState, [FaultSlot; 2], [Option<Event>; 4]);
    impl Owner {
        fn new() -> Self {
            Owner(JournalState::new(), [FaultSlot::EMPTY; 2], [None; 4])
        }
        fn journal(&mut self) -> Journal<'_> {
            Journal::new(&mut self.0, &mut self.1, &mut self.2)
        }
        fn refresh(&mut self, faults: &[u64]) -> std::vec::Vec<Event> {
            let mut j = self.journal();
            j.begin();
            faults.iter().for_each(|&id| j.fault(fault(id)));
            j.commit(|_| false);
            std::iter::from_fn(|| j.poll()).collect()
        }
    }

    #[test]
    fn a_fault_is_told_when_it_appears_and_when_it_goes() {
        let mut o = Owner::new();
        assert_eq!(o.refresh(&[7]), [Event::Fault(fault(7))]);
        assert_eq!(o.refresh(&[7]), []);
        assert_eq!(o.refresh(&[8]), [Event::Fault(fault(8)), Event::FaultGone(fault(7))]);
        assert_eq!(o.refresh(&[]), [Event::FaultGone(fault(8))]);
    }

    #[test]
    fn faults_beyond_the_table_are_counted() {
        let mut o = Owner::new();
        assert_eq!(o.refresh(&[1, 2, 3, 4]).len(), 2);
        assert_eq!(o.0.count(), 4);
    }

    #[test]
    fn a_fault_of_an_account_that_was_not_read_is_not_gone() {
        let mut o = Owner::new();
        o.refresh(&[7]);
        let mut j = o.journal();
        j.begin();
        j.commit(|f| f.account == 1);
        assert_eq!(j.poll(), None);
        assert_eq!(o.refresh(&[7]), []);
    }

    #[test]
    fn events_beyond_the_queue_are_counted_as_lost() {
        let mut o = Owner::new();
        let mut j = o.journal();
        for user_id in 0..6 {
            j.event(Event::Profile { user_id });
        }
        let told: std::vec::Vec<_> = std::iter::from_fn(|| j.poll()).collect();
        assert_eq!(told.len(), 5);
        assert_eq!(told.last(), Some(&Event::Lost(2)));
    }

    #[test]
    fn a_fault_names_what_where_and_the_limit() {
        let text = std::format!(
            "{}",
            Fault { kind: FaultKind::Interval(Interval::new(-5).unwrap_err()), ..fault(9) }
        );
        assert_eq!(
            text,
            "account 1, entity 2, sensor 9: interval -5 s is not within 1..=2147483647 s; the sensor is left out"
        );
    }

    #[test]
    fn another_fault_of_the_same_thing_is_told_and_the_first_one_is_gone() {
        use crate::json::{FrameErrorKind, NumberError, Syntax};
        let read = |offset, kind| FaultKind::Malformed(ReadError { offset, kind });
        let details = |offset, field, what| {
            FaultKind::Details(DetailsError { offset, field, what, beyond_bounds: false })
        };
        let failed = FaultKind::AccountFailed;
        let body = |offset, kind| failed(RefreshError::Body(FrameError { offset, kind }));
        let interval = |s| FaultKind::Interval(Interval::new(s).unwrap_err());
        let full = |of, capacity| FaultKind::Capacity { of, capacity };
        // A fault, the same one in other circumstances, and another one.
        for (a, same, other) in [
            (failed(RefreshError::Lost), failed(RefreshError::Lost), failed(RefreshError::Status(403))),
            (
                failed(RefreshError::Status(500)),
                failed(RefreshError::Status(500)),
                failed(RefreshError::Status(403)),
            ),
            (
                body(7, FrameErrorKind::NoList("list")),
                body(8, FrameErrorKind::NoList("list")),
                body(7, FrameErrorKind::NotAnArray("list")),
            ),
            (interval(0), interval(0), interval(-5)),
            (FaultKind::Refused("a"), FaultKind::Refused("a"), FaultKind::Refused("b")),
            (
                details(1, Some("x"), "unknown"),
                details(9, Some("x"), "unknown"),
                details(1, Some("y"), "unknown"),
            ),
            (
                details(1, Some("x"), "unknown"),
                details(9, Some("x"), "unknown"),
                details(1, Some("x"), "missing"),
            ),
            (
                read(4, ReadErrorKind::Number(NumberError::NotANumber)),
                read(5, ReadErrorKind::Number(NumberError::NotANumber)),
                read(4, ReadErrorKind::Syntax(Syntax::BadEscape)),
            ),
            (full(Kind::Job, 4), full(Kind::Job, 8), full(Kind::IntervalEntry, 4)),
        ] {
            let mut o = Owner::new();
            let of = |kind| Fault { kind, ..fault(7) };
            let mut refresh = |kind| {
                let mut j = o.journal();
                j.begin();
                j.fault(of(kind));
                j.commit(|_| false);
                std::iter::from_fn(|| j.poll()).collect::<std::vec::Vec<_>>()
            };
            assert_eq!(refresh(a), [Event::Fault(of(a))]);
            assert_eq!(refresh(same), [], "{same:?}");
            assert_eq!(refresh(other), [Event::Fault(of(other)), Event::FaultGone(of(same))]);
        }
    }

    #[test]
    fn jobs_of_the_same_entity_are_told_apart_by_their_names() {
        let of = |job| Fault { item: (Kind::Job, 0), job, kind: FaultKind::NoIntervals, ..fault(0) };
        let mut o = Owner::new();
        let mut j = o.journal();
        j.begin();
        j.fault(of("a"));
        j.fault(of("b"));
        j.fault(of("a"));
        j.commit(|_| false);
        let told: std::vec::Vec<_> = std::iter::from_fn(|| j.poll()).collect();
        assert_eq!(told, [Event::Fault(of("a")), Event::Fault(of("b"))]);
        assert_eq!(std::format!("{}", of("a")), "account 1, entity 2, job `a`: no interval, so no job");
        let numbered = Fault { item: (Kind::Job, 5), ..of("a") };
        assert_eq!(std::format!("{numbered}"), "account 1, entity 2, job 5 `a`: no interval, so no job");
    }

    #[test]
    fn a_full_table_tells_each_of_its_faults_once_and_of_each_when_it_goes() {
        let n = 4096;
        let mut state = JournalState::new();
        let mut faults = std::vec![FaultSlot::EMPTY; n as usize];
        let mut events = std::vec![None; 2 * n as usize];
        let mut j = Journal::new(&mut state, &mut faults, &mut events);
        // The first, twice what there is room for; then the upper half of those remembered.
        for (met, told, gone) in
            [(0..2 * n, n, 0), (0..n, 0, 0), (n / 2..n, 0, n / 2), (0..n, n / 2, 0), (0..0, 0, n)]
        {
            j.begin();
            met.clone().for_each(|id| j.fault(fault(id)));
            j.commit(|_| false);
            assert_eq!(u64::from(j.count()), met.end - met.start);
            let mut ids = (std::vec::Vec::new(), std::vec::Vec::new());
            while let Some(event) = j.poll() {
                match event {
                    Event::Fault(f) => ids.0.push(f.item.1),
                    Event::FaultGone(f) => ids.1.push(f.item.1),
                    _ => panic!("{event:?}"),
                }
            }
            ids.1.sort_unstable();
            assert_eq!((ids.0.len() as u64, ids.1.len() as u64), (told, gone));
            assert!(ids.0.is_sorted_by(|a, b| a < b) && ids.1.is_sorted_by(|a, b| a < b));
        }
        assert_eq!(j.state.faults, 0);
    }

    #[test]
    fn a_fault_that_a_full_table_does_not_know_costs_few_looks() {
        // Looks are counted by the slots that a search for an unknown fault compares.
        let n = 16_384u64;
        let mut state = JournalState::new();
        let mut faults = std::vec![FaultSlot::EMPTY; n as usize];
        let mut events = std::vec![None; n as usize];
        let mut j = Journal::new(&mut state, &mut faults, &mut events);
        (0..n).for_each(|id| j.fault(fault(id)));
        let (looks, most) = (core::cell::Cell::new(0u64), core::cell::Cell::new(0u64));
        for id in n..n + 1000 {
            let before = looks.get();
            let found = probe::find(j.faults, fault(id).identity(), |_| {
                looks.set(looks.get() + 1);
                false
            });
            assert_eq!(found, None);
            most.set(most.get().max(looks.get() - before));
        }
        assert!(looks.get() / 1000 <= 256 && most.get() <= 1024, "{} {}", looks.get() / 1000, most.get());
    }

    #[derive(Debug, serde::Deserialize, PartialEq)]
    #[allow(dead_code)]
    struct Details {
        host: heapless::String<8>,
        #[serde(default)]
        count: Option<u8>,
        #[serde(default)]
        more: heapless::Vec<Nested, 2>,
        #[serde(default)]
        way: Way,
    }

    #[derive(Debug, serde::Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Nested {
        id: u32,
        pair: (bool, i8),
    }

    #[derive(Debug, Default, serde::Deserialize, PartialEq)]
    #[allow(dead_code)]
    enum Way {
        #[default]
        One,
        Two(u8),
    }

    proptest! {
        #[test]
        fn details_are_refused_for_the_same_reason_whichever_error_the_decoder_makes(
            parts in prop::collection::vec(prop::sample::select(&[
                "{", "}", "[", "]", ",", ":", "\"host\":", "\"a\"", "\"abcdefghij\"", "\"a\\u0041\"", "\"\\ud800\"", "\"count\":",
                "\"more\":[{\"id\":1,\"pair\":", "[true,-1]}]", "\"id\":", "\"other\":", "\"way\":", "\"One\"", "{\"Two\":3}",
                "{\"host\":\"a\",", "1", "-1", "300", "1.5", "null", "true", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
            ][..]), 0..12),
            scratch in 0usize..6,
        ) {
            let text = parts.concat();
            let mut room = [0; 6];
            let whole = crate::json::from_slice::<Details>(text.as_bytes(), &mut room[..scratch]);
            let reader = crate::json::Reader::new(text.as_bytes());
            let short = crate::json::from_reader::<Details, Refused>(reader, &mut room[..scratch]);
            prop_assert_eq!(whole.map_err(|e| DetailsError::from(&e)), short.map_err(DetailsError::from), "{}", text);
        }
    }
}
