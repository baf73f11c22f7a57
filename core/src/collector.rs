//! The collector: the refresh, the schedule, the outbox and a bot's own requests behind `handle_*` and `poll_*`.
//!
//! It is a state machine: inputs go in by `handle_*`, outputs come out by [`Collector::poll`]. It reads no clock, opens no
//! socket and spawns nothing; time comes in with [`Collector::handle_time`]. The same inputs give the same outputs on
//! every target.
//!
//! The driver's loop, after anything has happened:
//!
//! 1. [`Collector::handle_time`] (and on hosts [`Collector::handle_system_clock`]);
//! 2. [`Collector::poll`] until it gives `None`, doing what it says;
//! 3. [`Collector::poll_event`] until it gives `None`, for the log;
//! 4. wait for [`Collector::poll_timeout`], a completion, or bytes. Calling early is harmless.
//!
//! Actions own nothing and borrow nothing, so the collector stays free while work is under way.

use core::fmt;

use crate::api::{Method, Resource, Target, Token};
use crate::bot::{BackendError, Bot, EntityDraft, HandOverError, Sensor, StateError};
use crate::config::{
    BODY_LIMIT, Config, ConfigSettings, MAX_AT_ONCE, Made, Outcome, RefreshProgress, Step, Stop,
};
use crate::jobs::{Due, JobCounters, JobEvent, JobKey, JobTable, JobsState, RunId};
use crate::journal::{Event, Fault, FaultKind, Journal, JournalState, Kind, RefreshError, RefreshSummary};
use crate::json::{Frame, Framer, Writer};
use crate::model::first_id;
use crate::outbox::{self, BatchHead, DropReason, Ledger, Left, Outbox, PushError, Unstored, ValueTime};
use crate::random::SplitMix64;
use crate::state::{StateSlot, States};
use crate::storage::{Parts, Storage};
use crate::time::{DateNotice, Millis, UnixMillis, WallClock, WallSource};
use crate::values::{MAX_PATH_BYTES, NumberText, ValuePath};

/// So many removed jobs' states are forgotten by one look at all states.
const FORGOTTEN_AT_ONCE: usize = 32;

/// How long a list of a bot's own waits for its next entity to be asked for, in milliseconds.
pub const LISTING_LIMIT_MS: u32 = 60_000;
/// How often it is tried when the backend is not ready, in milliseconds.
pub const NOT_READY_RETRY_MS: u64 = 10_000;
/// How often it is tried when the backend denies access, in milliseconds, at least.
pub const DENIED_RETRY_MS: u64 = 600_000;
/// What a 400 says first that is about values.
const VALIDATION: &[u8] = b"Input validation failed";

/// How a collector works. Capacities are those of its [`Storage`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// The path of the base URL, without a slash at its end ([`crate::api::BaseUrl::prefix`]).
    pub prefix: heapless::String<{ crate::api::MAX_PREFIX }>,
    /// The bot's token.
    pub token: Token,
    /// From the start of a refresh to the start of the next, in seconds.
    pub refresh_interval_s: u32,
    /// Only this account is polled; a custom bot's values belong to it.
    pub account: Option<u64>,
    /// First wait until the backend's status page says that it is ready.
    pub wait_until_ready: bool,
    /// The most bytes of a list of the backend.
    pub list_limit_bytes: u64,
    /// First runs are spread so that this many per second begin at least: 1 on a board, 50 on a host.
    pub first_runs_per_s: u32,
    /// Requests under way at once: 1 on a board, 3 on a host.
    pub max_requests: u8,
    /// Where the wall clock comes from.
    pub wall: WallSource,
    /// How values are delivered.
    pub outbox: outbox::Settings,
    /// The longest path of a value, in bytes; at most [`MAX_PATH_BYTES`].
    pub max_path_bytes: usize,
    /// Fetch once and run nothing: the dry run.
    pub plan_only: bool,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Settings {
    /// What suits a host.
    #[must_use]
    pub fn host(token: Token, prefix: &str) -> Self {
        Settings {
            prefix: prefix.try_into().unwrap_or_default(),
            token,
            refresh_interval_s: 120,
            account: None,
            wait_until_ready: true,
            list_limit_bytes: 1 << 30,
            first_runs_per_s: 50,
            max_requests: 3,
            wall: WallSource::System,
            outbox: outbox::Settings::DEFAULT,
            max_path_bytes: MAX_PATH_BYTES,
            plan_only: false,
            seed: 0,
        }
    }

    /// What suits a board.
    #[must_use]
    pub fn board(token: Token, prefix: &str) -> Self {
        let outbox =
            outbox::Settings { max_values: 100, max_body_bytes: 8 * 1024, ..outbox::Settings::DEFAULT };
        Settings {
            first_runs_per_s: 1,
            max_requests: 1,
            wall: WallSource::DateHeader,
            list_limit_bytes: 16 << 20,
            outbox,
            ..Self::host(token, prefix)
        }
    }
}

/// Which request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RequestId {
    lane: Lane,
    seq: u32,
}

/// Requests of one kind go one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
enum Lane {
    Values = 0,
    Refresh = 1,
    Own = 2,
}

const LANES: [Lane; 3] = [Lane::Values, Lane::Refresh, Lane::Own];

/// What the driver is to do.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Action {
    /// Send this request: ask for its head and body, give its answer back.
    Send(RequestId),
    /// Perform this run: ask for its job, give its values and its end back.
    Run(Due),
    /// The run's deadline has passed: drop its future, then say that it has ended.
    Cancel(RunId),
}

/// A request, but for its target and its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RequestHead {
    /// Its method.
    pub method: Method,
    /// What it is about.
    pub resource: Resource,
    /// The length of its body in bytes, `None` if it has none.
    pub body_len: Option<usize>,
    /// The most bytes that its answer's body may have.
    pub answer_limit: u64,
}

/// The head of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ResponseHead {
    /// Its status.
    pub status: u16,
    /// Its `Date`, in Unix seconds.
    pub date_unix_s: Option<u64>,
    /// Its `Retry-After`, in milliseconds.
    pub retry_after_ms: Option<u32>,
}

/// Why a request got no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum RequestError {
    /// It surely did not reach the backend.
    NotSent,
    /// It may have reached the backend, and the answer, or its end, is lost.
    Lost,
}

/// What became of bytes of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum BodyStatus {
    /// This many were taken. If not all: call again with the rest when something has happened.
    Taken(usize),
    /// The request is over: close its connection, give nothing more back.
    Unwanted,
}

/// Progress of a bot's own request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum OwnProgress {
    /// Ask again when something has happened.
    Pending,
    /// An entity of this many bytes was copied.
    Entity(usize),
    /// It has ended well; a creation gives the new id.
    Done(Option<u64>),
}

/// A bot's own request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum OwnRequest {
    /// List the account's entities.
    List,
    /// Create an entity.
    Create,
    /// Change an entity.
    Update(u64),
    /// Delete an entity.
    Delete(u64),
}

/// A bot's own request that is under way: stale ones are harmless.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct OwnId(u32);

#[derive(Clone, Copy, Debug, Default)]
struct LaneState {
    seq: u32,
    busy: bool,
    sent: Millis,
    status: u16,
    retry_after_ms: Option<u32>,
    /// Bytes of [`VALIDATION`] that the body began with.
    matched: u8,
    /// Bytes of the body of an answer that tells no success.
    error_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum OwnStage {
    /// Waits to be sent.
    Queued,
    /// Sent, or its answer arrives.
    Open,
    /// An entity waits in the buffer, to be taken before this time.
    Entity(Frame, Millis),
    /// It has ended; not told yet.
    Ended(Result<Option<u64>, BackendError>),
}

#[derive(Clone, Debug)]
struct Own {
    id: u32,
    run: RunId,
    account: u64,
    request: OwnRequest,
    body_len: usize,
    stage: OwnStage,
    framer: Framer,
}

/// A bot's collector: see the [module](self).
pub struct Collector<B: Bot, S: Storage<B>> {
    settings: Settings,
    storage: S,
    now: Millis,
    wall: WallClock,
    config: Config,
    jobs: JobsState,
    journal: JournalState,
    outbox: Outbox,
    lanes: [LaneState; 3],
    next_lane: u8,
    batch: Option<BatchHead>,
    own: Option<Own>,
    own_seq: u32,
    next_refresh: Millis,
    /// Another refresh was wanted while one was under way, which may have read already what has changed.
    refresh_wanted: bool,
    refresh_started: Option<Millis>,
    failures: u32,
    at_once: u8,
    work: bool,
    planned: bool,
    random: SplitMix64,
    stopping: bool,
    states_forgotten: u32,
    bot: core::marker::PhantomData<fn() -> B>,
}

impl<B: Bot, S: Storage<B>> fmt::Debug for Collector<B, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (now, ledger) = (self.now, self.outbox.ledger());
        f.debug_struct("Collector").field("now", &now).field("ledger", ledger).finish_non_exhaustive()
    }
}

fn config_settings(settings: &Settings) -> ConfigSettings {
    ConfigSettings {
        account: settings.account,
        wait_until_ready: settings.wait_until_ready,
        list_limit: settings.list_limit_bytes,
        start_alone: !settings.plan_only,
    }
}

impl<B: Bot, S: Storage<B>> Collector<B, S> {
    /// A collector that knows nothing yet; the first refresh is due at once.
    #[must_use]
    pub fn new(settings: Settings, storage: S) -> Self {
        let wall = WallClock::new(settings.wall);
        let (first_runs_per_s, outbox, random) =
            (settings.first_runs_per_s, Outbox::new(settings.outbox), SplitMix64::new(settings.seed));
        Collector {
            settings,
            storage,
            now: Millis(0),
            wall,
            config: Config::new(),
            jobs: JobsState::new(first_runs_per_s),
            journal: JournalState::new(),
            outbox,
            lanes: [LaneState::default(); 3],
            next_lane: 0,
            batch: None,
            own: None,
            own_seq: 0,
            next_refresh: Millis(0),
            refresh_wanted: false,
            refresh_started: None,
            failures: 0,
            at_once: 0,
            work: false,
            planned: false,
            random,
            stopping: false,
            states_forgotten: 0,
            bot: core::marker::PhantomData,
        }
    }

    /// Its settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The latest time that it was told.
    #[must_use]
    pub const fn now(&self) -> Millis {
        self.now
    }

    /// It is `now`. A time before the last one counts as the last one.
    pub fn handle_time(&mut self, now: Millis) {
        self.now = self.now.max(now);
        let mem = self.storage.parts().config.jobs;
        JobTable::new(&mut self.jobs, mem).advance(self.now);
    }

    /// The system's clock shows `unix` now. Only for hosts ([`WallSource::System`]).
    pub fn handle_system_clock(&mut self, unix: UnixMillis) {
        self.wall.handle_system(self.now, unix);
        if self.wall.source() == WallSource::System {
            // It tells values of another time, which a POST must not stamp, from live ones.
            let mut mem = self.storage.parts().outbox;
            self.outbox.handle_wall(&mut mem, self.now, unix);
        }
    }

    /// The present wall-clock time, if known.
    #[must_use]
    pub fn wall(&self) -> Option<UnixMillis> {
        self.wall.at(self.now)
    }

    // What there is to do.

    /// What to do next; `None`: nothing until [`Collector::poll_timeout`] or something happens.
    pub fn poll(&mut self, bot: &B) -> Option<Action> {
        if let Some(run) = self.poll_expired() {
            return Some(Action::Cancel(run));
        }
        if let Some(Own { stage: OwnStage::Entity(_, until), .. }) = self.own
            && self.now >= until
        {
            // Its connection is free for others; the bot is told when it asks again.
            self.own_failed(BackendError::TimedOut { limit_ms: LISTING_LIMIT_MS });
        }
        self.refresh(bot);
        if let Some(id) = self.poll_request() {
            return Some(Action::Send(id));
        }
        if self.stopping || self.settings.plan_only {
            return None;
        }
        let mem = self.storage.parts().config.jobs;
        JobTable::new(&mut self.jobs, mem).next_run(self.now).map(Action::Run)
    }

    fn poll_expired(&mut self) -> Option<RunId> {
        let Parts { config, faults, events, .. } = self.storage.parts();
        let mut table = JobTable::new(&mut self.jobs, config.jobs);
        let run = table.expired(self.now)?;
        if let Some(key) = table.running_key(run) {
            Journal::new(&mut self.journal, faults, events).event(Event::RunCancelled(key));
        }
        Some(run)
    }

    /// When [`Collector::poll`] has something to do next, if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&mut self) -> Option<Millis> {
        let mut next: Option<Millis> = None;
        let mut at = |t: Option<Millis>| {
            if let Some(t) = t {
                next = Some(next.map_or(t, |n| n.min(t)));
            }
        };
        let mem = self.storage.parts().config.jobs;
        let table = JobTable::new(&mut self.jobs, mem);
        if self.stopping || self.settings.plan_only {
            at(table.next_deadline());
        } else {
            at(table.poll_timeout());
        }
        if !self.stopping && self.config.is_idle() && !(self.settings.plan_only && self.planned) {
            at(Some(self.next_refresh));
        }
        if !self.lane(Lane::Values).busy && self.has_room() {
            at(self.outbox.poll_timeout());
        }
        if let Some(Own { stage: OwnStage::Entity(_, until), .. }) = self.own {
            at(Some(until));
        }
        next
    }

    /// The next event, in order; for each of the outbox's, [`Collector::refused_path`] names the path.
    pub fn poll_event(&mut self) -> Option<Event> {
        let Parts { faults, events, .. } = self.storage.parts();
        let event = Journal::new(&mut self.journal, faults, events).poll();
        event.or_else(|| self.outbox.poll_event().map(Event::Outbox))
    }

    /// The path of the value that the backend refused last.
    #[must_use]
    pub fn refused_path(&self) -> &str {
        self.outbox.event_path()
    }

    // Requests.

    fn lane(&self, lane: Lane) -> &LaneState {
        &self.lanes[lane as usize]
    }

    fn has_room(&self) -> bool {
        self.lanes.iter().filter(|l| l.busy).count() < usize::from(self.settings.max_requests.max(1))
    }

    fn poll_request(&mut self) -> Option<RequestId> {
        for i in 0..3u8 {
            let turn = (self.next_lane + i) % 3;
            let lane = LANES[usize::from(turn)];
            if !self.has_room() || self.lane(lane).busy {
                continue;
            }
            let ready = match lane {
                Lane::Values => {
                    let mut mem = self.storage.parts().outbox;
                    self.batch = self.outbox.poll(&mut mem, self.now);
                    self.batch.is_some()
                }
                Lane::Refresh => {
                    let ready = self.config.resource().is_some() && !self.stopping;
                    if ready {
                        self.config.request_sent(&config_settings(&self.settings));
                    }
                    ready
                }
                Lane::Own => self.own.as_ref().is_some_and(|o| o.stage == OwnStage::Queued),
            };
            if !ready {
                continue;
            }
            if let (Lane::Own, Some(own)) = (lane, &mut self.own) {
                own.stage = OwnStage::Open;
            }
            let state = &mut self.lanes[lane as usize];
            *state = LaneState {
                seq: state.seq.wrapping_add(1),
                busy: true,
                sent: self.now,
                ..LaneState::default()
            };
            self.next_lane = (turn + 1) % 3;
            return Some(RequestId { lane, seq: state.seq });
        }
        None
    }

    fn is_open(&self, id: RequestId) -> bool {
        let lane = self.lane(id.lane);
        lane.busy && lane.seq == id.seq
    }

    /// The head of a request, `None` if it is over.
    #[must_use]
    pub fn request_head(&self, id: RequestId) -> Option<RequestHead> {
        if !self.is_open(id) {
            return None;
        }
        let body = |n: usize| Some(n);
        let (method, resource, body_len, answer_limit) = match id.lane {
            Lane::Values => {
                let batch = self.batch?;
                let method = match batch.method {
                    outbox::Method::Put => Method::Put,
                    outbox::Method::Post => Method::Post,
                };
                (method, Resource::Values(batch.account), body(batch.body_len as usize), BODY_LIMIT)
            }
            Lane::Refresh => {
                let limit = self.config.body_limit(&config_settings(&self.settings));
                (Method::Get, self.config.resource()?, None, limit)
            }
            Lane::Own => {
                let own = self.own.as_ref()?;
                let list = Resource::Entities(own.account);
                let n = body(own.body_len);
                match own.request {
                    OwnRequest::List => (Method::Get, list, None, self.settings.list_limit_bytes),
                    OwnRequest::Create => (Method::Post, list, n, BODY_LIMIT),
                    OwnRequest::Update(e) => (Method::Put, Resource::Entity(own.account, e), n, BODY_LIMIT),
                    OwnRequest::Delete(e) => {
                        (Method::Delete, Resource::Entity(own.account, e), None, BODY_LIMIT)
                    }
                }
            }
        };
        Some(RequestHead { method, resource, body_len, answer_limit })
    }

    /// Writes a request's target. It holds the token: it goes into the request line and nowhere else.
    ///
    /// # Errors
    /// Those of `out`; also if the request is over.
    pub fn write_target(&self, id: RequestId, out: &mut dyn fmt::Write) -> fmt::Result {
        let resource = self.request_head(id).ok_or(fmt::Error)?.resource;
        Target { prefix: &self.settings.prefix, resource, token: &self.settings.token }.write(out)
    }

    /// Copies bytes of a request's body from `offset` on: how many. Cheap if asked in order; a request that is repeated
    /// on another connection asks from 0 again.
    pub fn request_body(&mut self, id: RequestId, offset: usize, buf: &mut [u8]) -> usize {
        if !self.is_open(id) {
            return 0;
        }
        let Parts { mut outbox, listing, .. } = self.storage.parts();
        match (id.lane, &self.own) {
            (Lane::Values, _) => self.outbox.body(&mut outbox, offset, buf),
            (Lane::Own, Some(own)) => {
                let body = listing.get(offset..own.body_len).unwrap_or_default();
                let n = body.len().min(buf.len());
                if let (Some(to), Some(from)) = (buf.get_mut(..n), body.get(..n)) {
                    to.copy_from_slice(from);
                }
                n
            }
            _ => 0,
        }
    }

    /// The head of a request's answer has arrived.
    pub fn handle_response_head(&mut self, id: RequestId, head: ResponseHead) {
        if !self.is_open(id) {
            return;
        }
        if let Some(unix_s) = head.date_unix_s {
            self.handle_date(self.lane(id.lane).sent, unix_s);
        }
        let lane = &mut self.lanes[id.lane as usize];
        lane.status = head.status;
        lane.retry_after_ms = head.retry_after_ms;
    }

    fn handle_date(&mut self, sent: Millis, unix_s: u64) {
        let notice = self.wall.handle_answer(sent, self.now, unix_s);
        if notice == DateNotice::Fine {
            return;
        }
        let Parts { mut outbox, faults, events, .. } = self.storage.parts();
        Journal::new(&mut self.journal, faults, events).event(Event::Clock(notice));
        if let Some(unix) = self.wall.at(self.now)
            && self.wall.source() == WallSource::DateHeader
        {
            // Only a time that a value has got may not be gone back over.
            if let Some(latest) = self.outbox.handle_wall(&mut outbox, self.now, unix) {
                self.wall.mark_used(latest);
            }
        }
    }

    /// Bytes of a request's answer have arrived.
    pub fn handle_response_body(&mut self, bot: &B, id: RequestId, bytes: &[u8]) -> BodyStatus {
        if !self.is_open(id) {
            return BodyStatus::Unwanted;
        }
        let lane = &mut self.lanes[id.lane as usize];
        if !(200..300).contains(&lane.status) {
            // What it says beyond its status may be of any length: a proxy's page, at any speed.
            lane.error_bytes = lane.error_bytes.saturating_add(bytes.len() as u64);
            if lane.error_bytes > BODY_LIMIT {
                self.handle_response_end(bot, id);
                return BodyStatus::Unwanted;
            }
        }
        let lane = self.lanes[id.lane as usize];
        match id.lane {
            Lane::Values => {
                let matched = usize::from(lane.matched);
                let rest = VALIDATION.get(matched..).unwrap_or_default();
                // One that went astray never comes to the end.
                let same = rest.iter().zip(bytes).take_while(|(a, b)| a == b).count();
                let stray = same < rest.len().min(bytes.len());
                self.lanes[id.lane as usize].matched =
                    if stray { u8::MAX } else { lane.matched.saturating_add(same as u8) };
                BodyStatus::Taken(bytes.len())
            }
            Lane::Refresh if lane.status != 200 => BodyStatus::Taken(bytes.len()),
            Lane::Refresh => self.refresh_body(bot, bytes),
            Lane::Own => self.own_body(lane.status, bytes),
        }
    }

    fn refresh_body(&mut self, bot: &B, bytes: &[u8]) -> BodyStatus {
        let settings = config_settings(&self.settings);
        let mut taken = 0;
        loop {
            let Parts { mut config, faults, events, .. } = self.storage.parts();
            let mut journal = Journal::new(&mut self.journal, faults, events);
            let rest = bytes.get(taken..).unwrap_or_default();
            let (n, stop) = self.config.push(bot, &settings, &mut config, &mut journal, rest);
            taken += n;
            match stop {
                None => return BodyStatus::Taken(taken),
                Some(Stop::Events) => {
                    if !self.grow_events() {
                        self.config.give_up_events();
                    }
                }
                Some(Stop::Shortage(kind)) => self.grow(kind),
                Some(Stop::Failed(error)) => {
                    self.refresh_request_ended(bot, Outcome::Failed(error));
                    return BodyStatus::Unwanted;
                }
            }
        }
    }

    fn grow(&mut self, kind: Kind) {
        if !self.storage.grow(kind) {
            self.config.give_up(kind);
        }
    }

    fn grow_events(&mut self) -> bool {
        let Parts { faults, events, .. } = self.storage.parts();
        Journal::new(&mut self.journal, faults, events).straighten();
        self.storage.grow_events()
    }

    /// A request's answer has ended.
    pub fn handle_response_end(&mut self, bot: &B, id: RequestId) {
        if !self.is_open(id) {
            return;
        }
        let LaneState { status, retry_after_ms, matched, .. } = self.lanes[id.lane as usize];
        match id.lane {
            Lane::Values => {
                let validation_failed = status == 400 && usize::from(matched) == VALIDATION.len();
                self.batch_ended(outbox::Outcome::Status { code: status, validation_failed, retry_after_ms });
            }
            Lane::Refresh if status == 200 => self.refresh_request_ended(bot, Outcome::Ok),
            Lane::Refresh => self.refresh_request_ended(bot, Outcome::Failed(RefreshError::Status(status))),
            Lane::Own => self.own_ended(status),
        }
    }

    /// A request got no answer, or not all of it.
    pub fn handle_request_error(&mut self, bot: &B, id: RequestId, error: RequestError) {
        if !self.is_open(id) {
            return;
        }
        match (id.lane, error) {
            (Lane::Values, RequestError::NotSent) => self.batch_ended(outbox::Outcome::NotSent),
            (Lane::Values, RequestError::Lost) => self.batch_ended(outbox::Outcome::Lost),
            (Lane::Refresh, RequestError::NotSent) => {
                self.refresh_request_ended(bot, Outcome::Failed(RefreshError::NotSent));
            }
            (Lane::Refresh, RequestError::Lost) => {
                self.refresh_request_ended(bot, Outcome::Failed(RefreshError::Lost));
            }
            (Lane::Own, RequestError::NotSent) => self.own_failed(BackendError::NotSent),
            (Lane::Own, RequestError::Lost) => self.own_failed(BackendError::Connection),
        }
    }

    fn batch_ended(&mut self, outcome: outbox::Outcome) {
        self.lanes[Lane::Values as usize].busy = false;
        self.batch = None;
        let mut mem = self.storage.parts().outbox;
        self.outbox.handle_outcome(&mut mem, self.now, outcome);
    }

    // The refresh.

    /// Begins a refresh that is due, and does what can be done of it without the backend.
    fn refresh(&mut self, bot: &B) {
        while self.go_on(bot) {}
    }

    /// Whether one that needed no request has ended, so that another may be due.
    fn go_on(&mut self, bot: &B) -> bool {
        let begins = self.config.is_idle();
        if begins {
            let planned = self.settings.plan_only && self.planned;
            if self.stopping || planned || self.now < self.next_refresh {
                return false;
            }
            self.refresh_started = Some(self.now);
            self.refresh_wanted = false;
            let settings = config_settings(&self.settings);
            let Parts { mut config, faults, events, .. } = self.storage.parts();
            let mut journal = Journal::new(&mut self.journal, faults, events);
            let step = self.config.begin(bot, &settings, &mut config, &mut journal, self.now);
            self.work = step == Step::Work;
        }
        while self.work {
            let Parts { mut config, faults, events, states, .. } = self.storage.parts();
            let mut journal = Journal::new(&mut self.journal, faults, events);
            // Several at a time, because forgetting looks at all states.
            let mut removed = heapless::Vec::<u64, FORGOTTEN_AT_ONCE>::new();
            let mut any = false;
            let mut forget = |event: &JobEvent| {
                if let JobEvent::Removed { key, .. } = event {
                    if removed.is_full() {
                        any |= States::new(states).forget_all(&mut removed);
                        removed.clear();
                    }
                    let _ = removed.push(key.fnv1a64());
                }
            };
            let (now, jobs) = (self.now, &mut self.jobs);
            let done = self.config.work(bot, &mut config, jobs, &mut journal, now, &mut forget);
            if !removed.is_empty() {
                any |= States::new(states).forget_all(&mut removed);
            }
            if any {
                self.states_forgotten = self.states_forgotten.wrapping_add(1);
            }
            if journal.is_half_full() {
                self.grow_events();
            }
            match done {
                Err(kind) => self.grow(kind),
                Ok(summary) => {
                    self.work = false;
                    self.refreshed(summary);
                }
            }
        }
        begins && self.config.is_idle()
    }

    fn refreshed(&mut self, summary: RefreshSummary) {
        let deferred = summary.committed.deferred > 0;
        let again = deferred && self.config.progressed() && self.at_once < MAX_AT_ONCE;
        if summary.requests == 0 {
            // A custom bot has its jobs; now it asks who it is: this refresh is still due.
        } else if again {
            self.at_once += 1;
            self.next_refresh = self.now;
        } else {
            self.at_once = 0;
            self.planned = true;
            let interval_ms = u64::from(self.settings.refresh_interval_s.max(1)) * 1000;
            let started = self.refresh_started.unwrap_or(self.now);
            let next = started.saturating_add(interval_ms).max(self.now);
            self.next_refresh = if self.refresh_wanted { self.now } else { next };
        }
        if summary.requests > 0 {
            self.failures = 0;
            self.outbox.note_refresh();
        }
        let Parts { faults, events, .. } = self.storage.parts();
        let mut journal = Journal::new(&mut self.journal, faults, events);
        if !again {
            let kind = FaultKind::Deferred;
            journal.lasting(Fault::new(0, 0, (Kind::Job, 0), kind), deferred);
        }
        journal.event(Event::Refreshed(summary));
    }

    fn refresh_request_ended(&mut self, bot: &B, outcome: Outcome) {
        let lane = &mut self.lanes[Lane::Refresh as usize];
        lane.busy = false;
        let retry_after_ms = lane.retry_after_ms.take().filter(|_| outcome != Outcome::Ok);
        if outcome == Outcome::Ok {
            self.outbox.note_other_success();
        }
        // A backend that is just starting may refuse connections, or answer 500 or 502.
        let starting = self.config.resource() == Some(Resource::Status);
        let settings = config_settings(&self.settings);
        let Parts { mut config, faults, events, .. } = self.storage.parts();
        let mut journal = Journal::new(&mut self.journal, faults, events);
        match self.config.end(bot, &settings, &mut config, &mut journal, outcome) {
            Step::Request => {}
            Step::Work => self.work = true,
            Step::Failed(error) => self.refresh_failed(error, starting, retry_after_ms),
        }
        self.refresh(bot);
    }

    fn refresh_failed(&mut self, error: RefreshError, starting: bool, retry_after_ms: Option<u32>) {
        let interval_ms = u64::from(self.settings.refresh_interval_s.max(1)) * 1000;
        let retry_in_ms = match error {
            RefreshError::NotReady => NOT_READY_RETRY_MS,
            RefreshError::Status(401 | 403)
            | RefreshError::WhichAccount { .. }
            | RefreshError::NoSuchAccount { .. } => interval_ms.max(DENIED_RETRY_MS),
            _ => {
                let ceiling = (1_000u64 << self.failures.min(20)).min(interval_ms);
                self.failures += 1;
                // Between half of it and all of it, so that many bots do not come back at once.
                let half = u32::try_from(ceiling / 2).unwrap_or(u32::MAX);
                let pause_ms = ceiling - u64::from(self.random.below(half.saturating_add(1)));
                if starting { pause_ms.min(NOT_READY_RETRY_MS) } else { pause_ms }
            }
        };
        // The backend's own wish counts for longer pauses, up to a limit.
        let wish_ms = retry_after_ms.map_or(0, |ms| ms.min(self.settings.outbox.retry_after_max_ms));
        let retry_in_ms = if self.refresh_wanted { 0 } else { retry_in_ms.max(u64::from(wish_ms)) };
        self.next_refresh = self.now.saturating_add(retry_in_ms);
        self.planned = true;
        let Parts { faults, events, .. } = self.storage.parts();
        let event = Event::RefreshFailed { error, retry_in_ms };
        Journal::new(&mut self.journal, faults, events).event(event);
    }

    /// A refresh is wanted now rather than at its time (push refresh). While one is under way, another follows it.
    pub fn refresh_soon(&mut self) {
        self.refresh_wanted = !self.config.is_idle();
        self.next_refresh = self.next_refresh.min(self.now);
    }

    // Runs.

    /// A copy of the job's parameters, `None` if it has been removed.
    #[must_use]
    pub fn job(&mut self, run: RunId) -> Option<B::Job> {
        let mem = self.storage.parts().config.jobs;
        JobTable::new(&mut self.jobs, mem).params(run).map(|made| made.params.clone())
    }

    /// What `look` sees of the run's entity as it is configured now; `None` if it has none (any more).
    pub fn entity<R>(
        &mut self,
        run: RunId,
        look: impl FnOnce(crate::bot::EntityView<'_, B>) -> R,
    ) -> Option<R> {
        let mut config = self.storage.parts().config;
        let table = JobTable::new(&mut self.jobs, config.jobs.reborrow());
        let key = table.running_key(run)?;
        let index = table.params(run)?.entity;
        self.config.entity_of(&config, &key, index).map(look)
    }

    /// A copy of the `n`-th sensor of the run's entity.
    #[must_use]
    pub fn sensor(&mut self, run: RunId, n: usize) -> Option<Sensor<B::Sensor>> {
        self.entity(run, |entity| {
            let sensor = entity.sensors().nth(n)?;
            Some(Sensor { id: sensor.id, interval: sensor.interval, details: sensor.details.clone() })
        })?
    }

    /// A value is handed over for `account`; without a `time` it gets the present one.
    ///
    /// # Errors
    /// [`HandOverError`]: it was not taken, and never collected.
    pub fn handle_value(
        &mut self,
        account: u64,
        time: Option<UnixMillis>,
        path: &str,
        number: &NumberText,
    ) -> Result<(), HandOverError> {
        let path = self.value_path(path)?;
        let time = self.value_time(time);
        self.hand_over(account, time, path, number, None)
    }

    /// The time that a value handed over now is to have; without a `time` of its own the present one. For a store, which
    /// needs it before [`Collector::handle_stored_value`].
    pub fn value_time(&mut self, time: Option<UnixMillis>) -> ValueTime {
        match time.or_else(|| self.wall.use_at(self.now)) {
            Some(unix) => ValueTime::Unix(unix),
            None => ValueTime::Monotonic(self.now),
        }
    }

    fn value_path<'p>(&self, path: &'p str) -> Result<ValuePath<'p>, HandOverError> {
        let limit = self.settings.max_path_bytes.min(MAX_PATH_BYTES);
        ValuePath::new(path, limit).map_err(|e| HandOverError::Value(e.into()))
    }

    fn hand_over(
        &mut self,
        account: u64,
        time: ValueTime,
        path: ValuePath<'_>,
        number: &NumberText,
        entry: Option<Entry>,
    ) -> Result<(), HandOverError> {
        // A flush ends when all values have gone; those of the last runs go without waiting, too.
        // What comes back from a store keeps its pauses.
        let flush = self.stopping && self.outbox.is_idle() && !matches!(entry, Some(Entry::Parked(..)));
        // On a host the outbox grows, up to its limit, before anything is dropped or parked.
        let text_bytes = path.as_str().len() + number.as_bytes().len();
        while !self.outbox.has_room(&self.storage.parts().outbox, text_bytes) && self.storage.grow_outbox() {
            self.outbox.handle_grown(&mut self.storage.parts().outbox);
        }
        loop {
            let (mut mem, now) = (self.storage.parts().outbox, self.now);
            let pushed = match entry {
                None => self.outbox.push(&mut mem, now, account, time, path, number),
                Some(Entry::Stored(r)) => {
                    self.outbox.push_stored(&mut mem, now, account, time, path, number, r)
                }
                Some(Entry::Parked(at, r)) => {
                    self.outbox.recover(&mut mem, now, account, time, at, path, number, r)
                }
            };
            match pushed {
                Err(PushError::TooManyAccounts { .. }) if self.storage.grow_queues() => {
                    self.outbox.handle_grown(&mut self.storage.parts().outbox);
                }
                result => {
                    if flush {
                        self.outbox.flush(&mut self.storage.parts().outbox, self.now);
                    }
                    return result.map_err(HandOverError::Outbox);
                }
            }
        }
    }

    // What a store needs: see the chapter of `outbox` about it.

    /// Like [`Collector::handle_value`], for a value that a store has under `record`; `time` is of
    /// [`Collector::value_time`]. See [`Outbox::push_stored`].
    ///
    /// # Errors
    /// [`HandOverError`]: it was not taken, never collected, and its record did not come in.
    pub fn handle_stored_value(
        &mut self,
        account: u64,
        time: ValueTime,
        path: &str,
        number: &NumberText,
        record: u64,
    ) -> Result<(), HandOverError> {
        let path = self.value_path(path)?;
        self.hand_over(account, time, path, number, Some(Entry::Stored(record)))
    }

    /// A store has found so many values of earlier lives: see [`Outbox::handle_stored`].
    pub fn handle_stored(&mut self, values: u64) {
        self.outbox.handle_stored(self.now, values);
    }

    /// A parked value comes back: see [`Outbox::recover`].
    ///
    /// # Errors
    /// [`HandOverError`]: it stays parked.
    pub fn recover_value(
        &mut self,
        account: u64,
        time: ValueTime,
        handed_over: ValueTime,
        path: &str,
        number: &NumberText,
        record: u64,
    ) -> Result<(), HandOverError> {
        let path = self.value_path(path)?;
        self.hand_over(account, time, path, number, Some(Entry::Parked(handed_over, record)))
    }

    /// The next record that has left, until there is none: see [`Outbox::poll_left`].
    pub fn poll_left(&mut self) -> Option<Left> {
        self.outbox.poll_left(&mut self.storage.parts().outbox)
    }

    /// Values that only the store has.
    #[must_use]
    pub const fn parked(&self) -> u64 {
        self.outbox.parked()
    }

    /// The store has given up parked values: see [`Outbox::drop_parked`].
    pub fn drop_parked(&mut self, reason: DropReason, values: u64) -> u64 {
        self.outbox.drop_parked(reason, values)
    }

    /// Counts values found in a store that can't be taken back: see [`Outbox::count_unrecoverable`].
    pub fn count_unrecoverable(&mut self, reason: DropReason, values: u64) {
        self.outbox.count_unrecoverable(reason, values);
    }

    /// How many parked values of an account may come back now: see [`Outbox::room_for_backlog`].
    #[must_use]
    pub fn room_for_backlog(&mut self, account: u64) -> u32 {
        self.outbox.room_for_backlog(&mut self.storage.parts().outbox, account)
    }

    /// The oldest value without a record, and its text in `text` (path, then number): see [`Outbox::oldest_unstored`].
    pub fn oldest_unstored(&mut self, before: Millis, text: &mut [u8]) -> Option<Unstored> {
        let mut mem = self.storage.parts().outbox;
        let unstored = self.outbox.oldest_unstored(&mut mem, before)?;
        self.outbox.unstored_text(&mut mem, text);
        Some(unstored)
    }

    /// The next value without a record, and its text in `text` (path, then number): see [`Outbox::next_unstored`].
    pub fn next_unstored(&mut self, text: &mut [u8]) -> Option<Unstored> {
        let mut mem = self.storage.parts().outbox;
        let unstored = self.outbox.next_unstored(&mut mem)?;
        self.outbox.unstored_text(&mut mem, text);
        Some(unstored)
    }

    /// No value of that account can be stored now: see [`Outbox::pass_account`].
    pub fn pass_account(&mut self) {
        self.outbox.pass_account();
    }

    /// The store has lost records: see [`Outbox::forget_records`].
    pub fn forget_records(&mut self, lost: impl FnMut(u64) -> bool) -> u32 {
        self.outbox.forget_records(&mut self.storage.parts().outbox, lost)
    }

    /// That value is stored now: see [`Outbox::set_record`].
    pub fn set_record(&mut self, record: u64) -> bool {
        self.outbox.set_record(&mut self.storage.parts().outbox, record)
    }

    /// Whether a value in memory has this record. O(cells).
    #[must_use]
    pub fn has_record(&mut self, record: u64) -> bool {
        record != 0 && self.storage.parts().outbox.records.contains(&record)
    }

    /// Memory taken by values that wait, and all that there is for them, in bytes.
    #[must_use]
    pub fn outbox_bytes(&mut self) -> (usize, usize) {
        let cells = self.storage.parts().outbox.cells.len();
        (self.outbox.bytes_used(), cells * outbox::Cell::BYTES)
    }

    /// The records of the values that are on their way: see [`Outbox::records_in_flight`].
    pub fn records_in_flight(&mut self, each: impl FnMut(u64)) {
        self.outbox.records_in_flight(&mut self.storage.parts().outbox, each);
    }

    /// Gives each state that was set to another value since it was given last: see [`States::changed`].
    pub fn changed_states(&mut self, each: impl FnMut(&StateSlot)) {
        States::new(self.storage.parts().states).changed(each);
    }

    /// The next state that was set to another value since it was given last: for a store that writes one at a time. O(slots).
    #[must_use]
    pub fn next_changed_state(&mut self) -> Option<StateSlot> {
        States::new(self.storage.parts().states).next_changed()
    }

    /// All states count as changed: what a store has of them is not known any more.
    pub fn states_to_store(&mut self) {
        States::new(self.storage.parts().states).all_changed();
    }

    /// Gives all states: for a store that writes them all anew.
    pub fn all_states(&mut self, each: impl FnMut(&StateSlot)) {
        States::new(self.storage.parts().states).all(each);
    }

    /// How often states were forgotten, as their job is gone: when it has moved, a store writes all states anew. Wraps.
    #[must_use]
    pub const fn states_forgotten(&self) -> u32 {
        self.states_forgotten
    }

    /// Puts a state back that a store kept: see [`States::restore`].
    ///
    /// # Errors
    /// [`StateError::Full`].
    pub fn restore_state(&mut self, state: StateSlot) -> Result<(), StateError> {
        match States::new(self.storage.parts().states).restore(state) {
            Err(StateError::Full { .. }) if self.storage.grow_states() => {
                States::new(self.storage.parts().states).restore(state)
            }
            result => result,
        }
    }

    /// A run has ended, by itself or because it was cancelled. Late calls are harmless.
    pub fn handle_completed(&mut self, run: RunId) {
        if let Some(own) = &self.own
            && own.run == run
        {
            self.close_own();
        }
        let mem = self.storage.parts().config.jobs;
        let _ = JobTable::new(&mut self.jobs, mem).complete(run);
    }

    /// Reads a job's state into `buf`: its length.
    #[must_use]
    pub fn get_state(&mut self, job: &JobKey, name: &str, buf: &mut [u8]) -> Option<usize> {
        States::new(self.storage.parts().states).get(job, name, buf)
    }

    /// Stores a job's state.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn set_state(&mut self, job: &JobKey, name: &str, value: &[u8]) -> Result<(), StateError> {
        match States::new(self.storage.parts().states).set(job, name, value) {
            Err(StateError::Full { .. }) if self.storage.grow_states() => {
                States::new(self.storage.parts().states).set(job, name, value)
            }
            result => result,
        }
    }

    /// Forgets those states of a job that it has neither read nor set since the last call: see [`States::forget_untouched`].
    pub fn forget_untouched_states(&mut self, job: &JobKey) {
        if States::new(self.storage.parts().states).forget_untouched(job) {
            self.states_forgotten = self.states_forgotten.wrapping_add(1);
        }
    }

    // A bot's own requests.

    /// Queues a bot's own request: its id, or `None` while another run's is under way (try again when something has
    /// happened). One that the same run has not finished is given up.
    ///
    /// # Errors
    /// [`BackendError::TooLong`] if the body does not fit into the buffer.
    pub fn start_own(
        &mut self,
        due: &Due,
        request: OwnRequest,
        draft: Option<&EntityDraft<'_>>,
    ) -> Result<Option<OwnId>, BackendError> {
        match &self.own {
            Some(own) if own.run == due.run => self.close_own(),
            Some(_) => return Ok(None),
            None => {}
        }
        if self.lane(Lane::Own).busy {
            return Ok(None);
        }
        let listing = self.storage.parts().listing;
        let limit = listing.len();
        let body_len = match draft {
            Some(draft) => write_draft(draft, request, listing).ok_or(BackendError::TooLong { limit })?,
            None => 0,
        };
        self.own_seq = self.own_seq.wrapping_add(1);
        let framer = if request == OwnRequest::List { Framer::list("list") } else { Framer::document() };
        let (id, stage) = (self.own_seq, OwnStage::Queued);
        let (run, account) = (due.run, due.key.account);
        self.own = Some(Own { id, run, account, request, body_len, stage, framer });
        Ok(Some(OwnId(id)))
    }

    /// How a bot's own request gets on; an entity of a list is copied into `buf`.
    ///
    /// # Errors
    /// [`BackendError`]; after [`BackendError::TooLong`] a list goes on with the next entity.
    pub fn poll_own(&mut self, id: OwnId, buf: &mut [u8]) -> Result<OwnProgress, BackendError> {
        let now = self.now;
        let Some(own) = self.own.as_mut().filter(|o| o.id == id.0) else { return Err(BackendError::Stopped) };
        match own.stage {
            OwnStage::Queued | OwnStage::Open => Ok(OwnProgress::Pending),
            OwnStage::Entity(frame, until) => {
                if now >= until {
                    self.close_own();
                    return Err(BackendError::TimedOut { limit_ms: LISTING_LIMIT_MS });
                }
                own.stage = OwnStage::Open;
                let listing = self.storage.parts().listing;
                let Frame::Element { len } = frame else {
                    return Err(BackendError::TooLong { limit: listing.len() });
                };
                match (listing.get(..len), buf.get_mut(..len)) {
                    (Some(from), Some(to)) => {
                        to.copy_from_slice(from);
                        Ok(OwnProgress::Entity(len))
                    }
                    _ => Err(BackendError::TooLong { limit: buf.len() }),
                }
            }
            OwnStage::Ended(result) => {
                self.own = None;
                result.map(OwnProgress::Done)
            }
        }
    }

    fn close_own(&mut self) {
        self.own = None;
        self.lanes[Lane::Own as usize].busy = false;
    }

    fn own_failed(&mut self, error: BackendError) {
        self.lanes[Lane::Own as usize].busy = false;
        if let Some(own) = &mut self.own {
            own.stage = OwnStage::Ended(Err(error));
        }
    }

    fn own_body(&mut self, status: u16, bytes: &[u8]) -> BodyStatus {
        let now = self.now;
        let listing = self.storage.parts().listing;
        let Some(own) = &mut self.own else { return BodyStatus::Unwanted };
        if !(200..300).contains(&status) {
            return BodyStatus::Taken(bytes.len());
        }
        if let OwnStage::Entity(_, until) = own.stage {
            if now < until {
                return BodyStatus::Taken(0);
            }
            self.own_failed(BackendError::TimedOut { limit_ms: LISTING_LIMIT_MS });
            return BodyStatus::Unwanted;
        }
        match own.framer.push(bytes, listing) {
            Ok((n, None)) => BodyStatus::Taken(n),
            Ok((n, Some(frame))) => {
                own.stage = match (own.request, frame) {
                    (OwnRequest::List, _) => {
                        OwnStage::Entity(frame, now.saturating_add(u64::from(LISTING_LIMIT_MS)))
                    }
                    (OwnRequest::Create, Frame::Element { len }) => {
                        let id = first_id(listing.get(..len).unwrap_or_default());
                        OwnStage::Ended(id.map(Some).ok_or(BackendError::Answer { offset: 0 }))
                    }
                    (_, Frame::Element { .. }) => OwnStage::Ended(Ok(None)),
                    _ => OwnStage::Ended(Err(BackendError::TooLong { limit: listing.len() })),
                };
                BodyStatus::Taken(n)
            }
            Err(error) => {
                self.own_failed(BackendError::Answer { offset: error.offset });
                BodyStatus::Unwanted
            }
        }
    }

    fn own_ended(&mut self, status: u16) {
        self.lanes[Lane::Own as usize].busy = false;
        let Some(own) = &mut self.own else { return };
        if !(200..300).contains(&status) {
            own.stage = OwnStage::Ended(Err(BackendError::Status(status)));
            return;
        }
        self.outbox.note_other_success();
        own.stage = match (own.stage, own.request) {
            (ended @ OwnStage::Ended(_), _) => ended,
            (_, OwnRequest::List) => match own.framer.finish() {
                Ok(_) => OwnStage::Ended(Ok(None)),
                Err(error) => OwnStage::Ended(Err(BackendError::Answer { offset: error.offset })),
            },
            (_, OwnRequest::Create) => OwnStage::Ended(Err(BackendError::Answer { offset: 0 })),
            _ => OwnStage::Ended(Ok(None)),
        };
    }

    // Stop, and what it knows.

    /// No run and no refresh begins from now on, values are sent without waiting for company.
    pub fn stop(&mut self) {
        self.stopping = true;
        let mut mem = self.storage.parts().outbox;
        self.outbox.flush(&mut mem, self.now);
    }

    /// Whether it was told to stop and has nothing under way or queued in memory any more; values may be parked.
    #[must_use]
    pub fn is_finished(&mut self) -> bool {
        let mem = self.storage.parts().config.jobs;
        self.stopping && JobTable::new(&mut self.jobs, mem).running() == 0 && self.outbox.is_idle()
    }

    /// In the dry run: whether the refresh has ended, well or not.
    #[must_use]
    pub fn is_planned(&self) -> bool {
        self.planned && self.config.is_idle()
    }

    /// Where every value is.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        self.outbox.ledger()
    }

    /// What has happened to runs.
    #[must_use]
    pub fn counters(&mut self) -> JobCounters {
        let mem = self.storage.parts().config.jobs;
        JobTable::new(&mut self.jobs, mem).counters()
    }

    /// Runs under way, and jobs that are due and wait.
    #[must_use]
    pub fn load(&mut self) -> (usize, usize) {
        let mem = self.storage.parts().config.jobs;
        let table = JobTable::new(&mut self.jobs, mem);
        (table.running(), table.ready())
    }

    /// What the refresh under way, or the last one, has found so far.
    #[must_use]
    pub const fn refresh_summary(&self) -> &RefreshSummary {
        self.config.summary()
    }

    /// How far the refresh under way has got, or the last one had; when the next one begins. O(1), copies some 70 bytes.
    ///
    /// A refresh goes on between two calls of the collector only as far as answers arrive: one whose lists arrive at once
    /// is hardly ever seen under way.
    #[must_use]
    pub fn refresh_progress(&self) -> RefreshProgress {
        let mut progress = self.config.progress(self.lane(Lane::Refresh).busy);
        let planned = self.settings.plan_only && self.planned;
        progress.began = self.refresh_started;
        progress.next = (self.config.is_idle() && !self.stopping && !planned).then_some(self.next_refresh);
        progress
    }

    /// Looks at the job table.
    pub fn jobs<R>(&mut self, look: impl FnOnce(&JobTable<'_, Made<B::Job>, S::Entry>) -> R) -> R {
        let mem = self.storage.parts().config.jobs;
        look(&JobTable::new(&mut self.jobs, mem))
    }

    /// The entity that a job was made of, as it is configured now.
    pub fn entity_of<R>(
        &mut self,
        key: &JobKey,
        look: impl FnOnce(crate::bot::EntityView<'_, B>) -> R,
    ) -> Option<R> {
        let mut config = self.storage.parts().config;
        let index = JobTable::new(&mut self.jobs, config.jobs.reborrow()).get(key)?.1.entity;
        self.config.entity_of(&config, key, index).map(look)
    }

    /// Its memory, to be looked at.
    pub const fn storage(&self) -> &S {
        &self.storage
    }
}

/// What a value that comes in has to do with a store.
#[derive(Clone, Copy)]
enum Entry {
    /// It is handed over, and stored under this record.
    Stored(u64),
    /// It was parked, and handed over at this time.
    Parked(ValueTime, u64),
}

fn write_draft(draft: &EntityDraft<'_>, request: OwnRequest, buf: &mut [u8]) -> Option<usize> {
    let mut json = Writer::new(buf);
    json.begin_object().key("name").string(draft.name).key("entity_type").string(draft.entity_type);
    if request == OwnRequest::Create {
        json.key("parent");
        match draft.parent {
            Some(id) => json.u64(id),
            None => json.null(),
        };
    }
    json.key("details").raw(draft.details.as_bytes());
    if let Some(protocols) = draft.protocols {
        json.key("protocols").raw(protocols.as_bytes());
    }
    json.end_object().finish().ok()
}
