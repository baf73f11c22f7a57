//! The refresh: reads accounts, entities, credentials and sensors as they arrive, keeps what concerns this bot, and
//! has the bot make jobs of it, as one transaction.
//!
//! A refresh costs `1 + 3·A` requests for A accounts, after `/profile` once. A custom bot, which reads no lists, asks
//! `/profile` at each refresh: it is its only request once its account is known, and tells it the date (`Date` header)
//! and that the backend is there, after which values are sent by PUT again where a POST had to do.
//!
//! Bodies are read element by element: memory does not depend on their length. What concerns another bot is skipped, not
//! stored. When all lists have been read, entities, credentials and sensors are committed; then the bot makes jobs of what
//! is there, and these are committed.

use core::fmt;

use crate::api::Resource;
use crate::bot::{
    AccountView, Bot, EntityList, EntityName, EntityView, JobSink, NewJob, SensorRefusal, view,
};
use crate::hash::Fnv1a64;
use crate::interval::{Interval, TooManyIntervals};
use crate::jobs::{InsertError, JobEvent, JobKey, JobSpec, JobTable, JobsMem, JobsState};
use crate::journal::{
    DetailsError, Event, Fault, FaultKind, Journal, Kind, RefreshError, RefreshSummary, Refused,
};
use crate::json::{self, Frame, FrameError, FrameErrorKind, Framer, MAX_DEPTH, ReadError, Reader};
use crate::model::{
    DetailHead, DetailRecord, EntityHead, EntityRecord, ItemKey, Link, LinkList, first_id, read_sensors,
};
use crate::schedule::{Entry, EntryFormat};
use crate::table::{Change, Committed, NONE, StageError, Table, TableKey, TableMem, TableRef, TableState};
use crate::time::Millis;

/// An account's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccountKey(pub u64);

impl TableKey for AccountKey {
    fn hash(&self) -> u64 {
        Fnv1a64::new().u64(self.0).finish()
    }
    fn account(&self) -> u64 {
        self.0
    }
}

/// What is kept of an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AccountRecord {
    /// The refresh under way has read all its lists.
    done: bool,
    /// Indices of its entities: from, to. For the time of making jobs.
    range: (u32, u32),
}

/// A job as the table keeps it: what the bot made, and the entity that it was made of.
#[derive(Clone, PartialEq)]
pub struct Made<J> {
    /// The entity's index, [`NONE`] for a job without entity.
    pub(crate) entity: u32,
    /// What the bot made.
    pub(crate) params: J,
}

impl<J> fmt::Debug for Made<J> {
    /// Without what the bot made, which can hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made").field("entity", &self.entity).finish_non_exhaustive()
    }
}

/// The memory of a configuration.
pub struct ConfigMem<'a, B: Bot, L, E: EntryFormat = Entry> {
    /// Accounts.
    pub accounts: TableMem<'a, AccountKey, AccountRecord>,
    /// Entities that concern the bot.
    pub entities: TableMem<'a, ItemKey, EntityRecord<B::Name, B::Entity, L>>,
    /// Credentials that these name.
    pub credentials: TableMem<'a, ItemKey, DetailRecord<B::Credential>>,
    /// Sensors that these name.
    pub sensors: TableMem<'a, ItemKey, DetailRecord<B::Sensor>>,
    /// Jobs.
    pub jobs: JobsMem<'a, Made<B::Job>, E>,
    /// Room for one element of a list.
    pub element: &'a mut [u8],
    /// Room for one string with its escapes resolved.
    pub scratch: &'a mut [u8],
}

/// What the refresh is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigSettings {
    /// Only this account is polled; a custom bot's values belong to it.
    pub account: Option<u64>,
    /// First wait until `/status/info` says that the backend is ready.
    pub wait_until_ready: bool,
    /// The most bytes of a list.
    pub list_limit: u64,
    /// A custom bot whose account is set has its jobs before the backend has answered at all.
    pub start_alone: bool,
}

/// The most bytes of an answer that is no list.
pub const BODY_LIMIT: u64 = 64 * 1024;
/// Entities that the fall-back for old backends asks for before it reads their list again.
const SINGLES: usize = 8;
/// Refreshes that follow at once, one after the other, where spare room was short.
pub const MAX_AT_ONCE: u8 = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Idle,
    Status,
    Profile,
    Accounts,
    Entities,
    /// Old backends: one request for each entity.
    Single,
    Credentials,
    Sensors,
    MakeJobs,
    Commit,
}

/// What a refresh does at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RefreshPhase {
    /// None is under way.
    #[default]
    Idle,
    /// It asks whether the backend is ready.
    Status,
    /// It asks who this bot is.
    Profile,
    /// It reads the list of accounts.
    Accounts,
    /// It reads an account's entities.
    Entities,
    /// It reads a single entity, of a backend whose lists have no protocols.
    SingleEntity,
    /// It reads an account's credentials.
    Credentials,
    /// It reads an account's sensors.
    Sensors,
    /// All lists have been read: what they tell is taken over, and jobs are made of it.
    Jobs,
}

impl fmt::Display for RefreshPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RefreshPhase::Idle => "idle",
            RefreshPhase::Status => "status",
            RefreshPhase::Profile => "profile",
            RefreshPhase::Accounts => "accounts",
            RefreshPhase::Entities => "entities",
            RefreshPhase::SingleEntity => "single entity",
            RefreshPhase::Credentials => "credentials",
            RefreshPhase::Sensors => "sensors",
            RefreshPhase::Jobs => "jobs",
        })
    }
}

/// How far the refresh under way has got, or the last one had at its end: for displays and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct RefreshProgress {
    /// What it does.
    pub phase: RefreshPhase,
    /// The account that is being read.
    pub account: Option<u64>,
    /// Which one that is, from 1; 0 if none has been read yet.
    pub account_number: u32,
    /// How many accounts there are to read, once their list has been read.
    pub accounts: Option<u32>,
    /// Elements of lists of entities read so far, of all accounts, those that concern other bots included. A list that
    /// is read again counts again.
    pub entities: u32,
    /// Elements of lists of credentials read so far.
    pub credentials: u32,
    /// Elements of lists of sensors read so far.
    pub sensors: u32,
    /// Requests that have ended, well or not.
    pub requests_done: u32,
    /// Requests that it takes as far as can be told, those done included: `1 + 3·A` for A accounts, and what was asked
    /// before. `None` until the number of accounts is known. Accounts that fail make it fewer, old backends more.
    pub requests_expected: Option<u32>,
    /// When it began; `None` if there was none yet.
    pub began: Option<Millis>,
    /// When the next one begins; `None` while one is under way, and if there will be none.
    pub next: Option<Millis>,
}

/// Why [`Config::push`] stopped before the end of the bytes, or [`Config::work`] before it was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// A table is too small. Grow it, or say with [`Config::give_up`] that it can't grow; then call again.
    Shortage(Kind),
    /// There is little room for events. Make more, or say with [`Config::give_up_events`] that there is no more; then
    /// call again.
    Events,
    /// The body can't be read: the request is to be ended with this.
    Failed(RefreshError),
}

/// What came of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The next request is [`Config::resource`].
    Request,
    /// [`Config::work`] is to be called.
    Work,
    /// The refresh has failed; nothing was removed.
    Failed(RefreshError),
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A 200 with its whole body.
    Ok,
    /// Anything else.
    Failed(RefreshError),
}

/// The refresh: a state machine that is given bodies and gives requests.
#[derive(Clone, Debug)]
pub struct Config {
    accounts: TableState,
    entities: TableState,
    credentials: TableState,
    sensors: TableState,
    stage: Stage,
    /// The account that is being read: its index, and its id.
    account: (u32, u64),
    user_id: Option<u64>,
    tied: Option<u64>,
    ready: bool,
    /// The account of a custom bot.
    own_account: Option<u64>,
    seen_accounts: u32,
    /// Accounts to be read, once known.
    account_count: Option<u32>,
    /// Elements read of entities, credentials, sensors.
    read: [u32; 3],
    framer: Framer,
    pending: Option<Frame>,
    /// Kinds of tables that can't grow.
    fixed: u8,
    events_fixed: bool,
    /// The frame at hand was begun before, and stopped for a shortage.
    again: bool,
    /// Faults that the work at hand reported before it stopped for a shortage.
    repeated: u32,
    /// What kept its old state, or is missing, for lack of spare room.
    deferred: u32,
    /// Whether this refresh has changed anything.
    progressed: bool,
    /// What was done to the jobs so far.
    committed: Committed,
    singles: heapless::Vec<u64, SINGLES>,
    singles_after: u64,
    singles_more: bool,
    consecutive_losses: u8,
    /// Accounts of this refresh whose lists were answered by 403.
    denied_accounts: u32,
    summary: RefreshSummary,
    started: Millis,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// Nothing is configured.
    #[must_use]
    pub const fn new() -> Self {
        Config {
            accounts: TableState::new(),
            entities: TableState::new(),
            credentials: TableState::new(),
            sensors: TableState::new(),
            stage: Stage::Idle,
            account: (0, 0),
            user_id: None,
            tied: None,
            ready: false,
            own_account: None,
            seen_accounts: 0,
            account_count: None,
            read: [0; 3],
            framer: Framer::document(),
            pending: None,
            fixed: 0,
            events_fixed: false,
            again: false,
            repeated: 0,
            deferred: 0,
            progressed: false,
            committed: Committed { added: 0, changed: 0, removed: 0, refused: 0, deferred: 0 },
            singles: heapless::Vec::new(),
            singles_after: 0,
            singles_more: false,
            consecutive_losses: 0,
            denied_accounts: 0,
            summary: RefreshSummary {
                requests: 0,
                accounts: 0,
                failed_accounts: 0,
                elements: 0,
                entities: 0,
                jobs: 0,
                faults: 0,
                committed: Committed { added: 0, changed: 0, removed: 0, refused: 0, deferred: 0 },
                took_ms: 0,
            },
            started: Millis(0),
        }
    }

    /// Whether no refresh is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// The account of a custom bot, once known.
    #[must_use]
    pub const fn own_account(&self) -> Option<u64> {
        self.own_account
    }

    /// What has been done so far.
    #[must_use]
    pub const fn summary(&self) -> &RefreshSummary {
        &self.summary
    }

    /// How far it has got; `sent`: the request of [`Config::resource`] is under way. O(1).
    #[must_use]
    pub fn progress(&self, sent: bool) -> RefreshProgress {
        let phase = match self.stage {
            Stage::Idle => RefreshPhase::Idle,
            Stage::Status => RefreshPhase::Status,
            Stage::Profile => RefreshPhase::Profile,
            Stage::Accounts => RefreshPhase::Accounts,
            Stage::Entities => RefreshPhase::Entities,
            Stage::Single => RefreshPhase::SingleEntity,
            Stage::Credentials => RefreshPhase::Credentials,
            Stage::Sensors => RefreshPhase::Sensors,
            Stage::MakeJobs | Stage::Commit => RefreshPhase::Jobs,
        };
        // Of the account that is being read, the request at hand included.
        let singles = self.singles.len() as u32 + u32::from(self.singles_more);
        let rest = match self.stage {
            Stage::Entities => 3 + singles,
            Stage::Single => 2 + singles,
            Stage::Credentials => 2,
            Stage::Sensors => 1,
            _ => 0,
        };
        let number = self.summary.accounts;
        let done = self.summary.requests - u32::from(sent && self.summary.requests > 0);
        let expected = |rest: u32| done.saturating_add(rest);
        RefreshProgress {
            phase,
            account: (rest > 0).then_some(self.account.1),
            account_number: number,
            accounts: self.account_count,
            entities: self.read[0],
            credentials: self.read[1],
            sensors: self.read[2],
            requests_done: done,
            requests_expected: match (self.stage, self.account_count) {
                (Stage::Idle | Stage::MakeJobs | Stage::Commit, _) => Some(done),
                (_, Some(all)) if rest > 0 => {
                    Some(expected(rest.saturating_add(all.saturating_sub(number).saturating_mul(3))))
                }
                _ => None,
            },
            began: None,
            next: None,
        }
    }

    /// Whether the last refresh has changed anything, so that what it deferred may fit now.
    #[must_use]
    pub const fn progressed(&self) -> bool {
        self.progressed
    }

    /// What is to be asked for now.
    #[must_use]
    pub fn resource(&self) -> Option<Resource> {
        let account = self.account.1;
        Some(match self.stage {
            Stage::Idle | Stage::MakeJobs | Stage::Commit => return None,
            Stage::Status => Resource::Status,
            Stage::Profile => Resource::Profile,
            Stage::Accounts => Resource::Accounts,
            Stage::Entities => Resource::Entities(account),
            Stage::Single => Resource::Entity(account, *self.singles.first()?),
            Stage::Credentials => Resource::Credentials(account),
            Stage::Sensors => Resource::Sensors(account),
        })
    }

    /// The most bytes that the answer to [`Config::resource`] may have.
    #[must_use]
    pub fn body_limit(&self, settings: &ConfigSettings) -> u64 {
        match self.stage {
            Stage::Status | Stage::Profile => BODY_LIMIT,
            _ => settings.list_limit,
        }
    }

    /// Begins a refresh: what is to be done first.
    pub fn begin<B: Bot, L: LinkList, E: EntryFormat>(
        &mut self,
        bot: &B,
        settings: &ConfigSettings,
        mem: &mut ConfigMem<'_, B, L, E>,
        journal: &mut Journal<'_>,
        now: Millis,
    ) -> Step {
        self.started = now;
        self.summary = RefreshSummary::default();
        self.fixed = 0;
        self.events_fixed = false;
        self.again = false;
        self.repeated = 0;
        self.deferred = 0;
        self.progressed = false;
        self.consecutive_losses = 0;
        self.denied_accounts = 0;
        self.account_count = None;
        self.read = [0; 3];
        journal.begin();
        Table::new(&mut self.entities, mem.entities.reborrow()).begin();
        begin_details(&mut Table::new(&mut self.credentials, mem.credentials.reborrow()));
        begin_details(&mut Table::new(&mut self.sensors, mem.sensors.reborrow()));
        if let Some(account) = settings.account
            && bot.protocol().is_none()
            && settings.start_alone
            && self.own_account.is_none()
        {
            return self.own(journal, account);
        }
        if settings.wait_until_ready && !self.ready {
            self.enter(Stage::Status);
            return Step::Request;
        }
        self.go_to_profile(bot, mem)
    }

    /// A controlled bot needs to know its user id once. A custom bot asks each time: it has no other request that
    /// tells it the date and that the backend is there.
    fn go_to_profile<B: Bot, L, E: EntryFormat>(
        &mut self,
        bot: &B,
        mem: &mut ConfigMem<'_, B, L, E>,
    ) -> Step {
        if self.user_id.is_some() && bot.protocol().is_some() {
            return self.go_to_accounts(mem);
        }
        self.enter(Stage::Profile);
        Step::Request
    }

    /// The request of [`Config::resource`] is sent (again): its answer is read from the beginning.
    pub fn request_sent(&mut self, settings: &ConfigSettings) {
        self.pending = None;
        self.again = false;
        let framer = match self.stage {
            Stage::Accounts | Stage::Entities | Stage::Credentials | Stage::Sensors => Framer::list("list"),
            _ => Framer::document(),
        };
        self.framer = framer.with_max_bytes(self.body_limit(settings));
        self.summary.requests += 1;
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.pending = None;
        if stage == Stage::Single || stage == Stage::Entities {
            return;
        }
        self.singles.clear();
        self.singles_after = 0;
        self.singles_more = false;
    }

    /// Tables of this kind can't grow: what does not fit is a fault from now on.
    pub fn give_up(&mut self, kind: Kind) {
        self.fixed |= 1 << kind as u8;
    }

    /// There is no more room for events: what does not fit is lost and counted.
    pub fn give_up_events(&mut self) {
        self.events_fixed = true;
    }

    const fn can_grow(&self, kind: Kind) -> bool {
        self.fixed & (1 << kind as u8) == 0
    }

    /// Reads on in the body of an answer: how many bytes were taken, and why not all.
    pub fn push<B: Bot, L: LinkList, E: EntryFormat>(
        &mut self,
        bot: &B,
        settings: &ConfigSettings,
        mem: &mut ConfigMem<'_, B, L, E>,
        journal: &mut Journal<'_>,
        bytes: &[u8],
    ) -> (usize, Option<Stop>) {
        let mut taken = 0;
        loop {
            if let Some(frame) = self.pending {
                if journal.is_half_full() && !self.events_fixed {
                    return (taken, Some(Stop::Events));
                }
                let told = journal.count();
                journal.repeat(self.repeated);
                let done = self.frame(bot, settings, mem, journal, frame);
                journal.repeat(0);
                self.again = done.is_err();
                self.repeated = if self.again { self.repeated + (journal.count() - told) } else { 0 };
                if let Err(stop) = done {
                    return (taken, Some(stop));
                }
                self.summary.elements = self.summary.elements.saturating_add(1);
                let read = match self.stage {
                    Stage::Entities | Stage::Single => Some(0),
                    Stage::Credentials => Some(1),
                    Stage::Sensors => Some(2),
                    _ => None,
                };
                if let Some(read) = read.and_then(|list: usize| self.read.get_mut(list)) {
                    *read = read.saturating_add(1);
                }
                self.pending = None;
            }
            let rest = bytes.get(taken..).unwrap_or_default();
            match self.framer.push(rest, mem.element) {
                Err(error) => return (taken, Some(Stop::Failed(RefreshError::Body(error)))),
                Ok((n, frame)) => {
                    taken += n;
                    self.pending = frame;
                    if frame.is_none() {
                        return (taken, None);
                    }
                }
            }
        }
    }

    fn frame<B: Bot, L: LinkList, E: EntryFormat>(
        &mut self,
        bot: &B,
        settings: &ConfigSettings,
        mem: &mut ConfigMem<'_, B, L, E>,
        journal: &mut Journal<'_>,
        frame: Frame,
    ) -> Result<(), Stop> {
        match self.stage {
            Stage::Status | Stage::Profile => self.answer(bot, mem, journal, frame).map_err(Stop::Failed),
            Stage::Accounts => self.account(settings, mem, journal, frame).map_err(Stop::Shortage),
            Stage::Entities | Stage::Single => self.entity(bot, mem, journal, frame).map_err(Stop::Shortage),
            Stage::Credentials => {
                let mut table = Table::new(&mut self.credentials, mem.credentials.reborrow());
                let (of, element, scratch) = (Kind::Credential, &*mem.element, &mut *mem.scratch);
                let done = detail(of, self.account.1, &mut table, element, scratch, journal, frame);
                self.detail_done(of, done).map_err(Stop::Shortage)
            }
            Stage::Sensors => {
                let mut table = Table::new(&mut self.sensors, mem.sensors.reborrow());
                let (of, element, scratch) = (Kind::Sensor, &*mem.element, &mut *mem.scratch);
                let done = detail(of, self.account.1, &mut table, element, scratch, journal, frame);
                self.detail_done(of, done).map_err(Stop::Shortage)
            }
            Stage::Idle | Stage::MakeJobs | Stage::Commit => Ok(()),
        }
    }

    /// Without spare room it keeps its old state until a further refresh.
    fn detail_done(&mut self, of: Kind, done: Result<(), StageError>) -> Result<(), Kind> {
        match done {
            Err(StageError::NoSpare) if self.can_grow(of) => return Err(of),
            Err(StageError::NoSpare) => self.deferred += 1,
            _ => {}
        }
        Ok(())
    }

    fn answer<B: Bot, L, E: EntryFormat>(
        &mut self,
        bot: &B,
        mem: &mut ConfigMem<'_, B, L, E>,
        journal: &mut Journal<'_>,
        frame: Frame,
    ) -> Result<(), RefreshError> {
        let Frame::Element { len } = frame else {
            return Err(RefreshError::TooLong { limit: mem.element.len() });
        };
        let element = mem.element.get(..len).unwrap_or_default();
        if self.stage == Stage::Status {
            let (needed, exists) = read_status(element).map_err(RefreshError::Answer)?;
            self.ready = needed == Some(false) && exists == Some(true);
            return if self.ready { Ok(()) } else { Err(RefreshError::NotReady) };
        }
        let profile = read_profile(element, bot.protocol()).map_err(RefreshError::Answer)?;
        if self.user_id != Some(profile.user_id) {
            journal.event(Event::Profile { user_id: profile.user_id });
            if profile.other_protocol {
                journal.event(Event::OtherProtocol);
            }
        }
        self.user_id = Some(profile.user_id);
        self.tied = profile.tied;
        Ok(())
    }

    fn account<B: Bot, L, E: EntryFormat>(
        &mut self,
        settings: &ConfigSettings,
        mem: &mut ConfigMem<'_, B, L, E>,
        journal: &mut Journal<'_>,
        frame: Frame,
    ) -> Result<(), Kind> {
        let (prefix, whole) = bytes_of(frame, mem.element);
        let read = if whole { DetailHead::read(prefix).map(|h| Some(h.id)) } else { Ok(first_id(prefix)) };
        let mut table = Table::new(&mut self.accounts, mem.accounts.reborrow());
        let id = match read {
            Ok(Some(id)) => id,
            Ok(None) | Err(_) => {
                // Which account it is can't be told: all of them stay.
                (0..table.upper_index()).for_each(|i| table.keep(i));
                let kind = unreadable(frame, mem.element.len()).or(read.err().map(FaultKind::Malformed));
                if let Some(kind) = kind {
                    journal.fault(Fault::new(0, 0, (Kind::Account, 0), kind));
                }
                return Ok(());
            }
        };
        let (key, grows) = (AccountKey(id), self.fixed & (1 << Kind::Account as u8) == 0);
        let staged = match table.find(&key) {
            None if settings.account.is_some_and(|only| only != id) => Ok(()),
            None if grows => table.stage_beside(key, AccountRecord::default()).map(|_| ()),
            _ => table.stage(key, AccountRecord::default(), |_, _| true).map(|_| ()),
        };
        if let Err(error) = staged {
            let fault = Fault::new(id, 0, (Kind::Account, 0), FaultKind::Duplicate);
            self.no_room(error, fault, Kind::Account, journal)?;
        }
        self.seen_accounts += 1;
        Ok(())
    }

    /// Something was not staged: a shortage if its table can grow, else a fault.
    fn no_room(
        &mut self,
        error: StageError,
        fault: Fault,
        of: Kind,
        journal: &mut Journal<'_>,
    ) -> Result<(), Kind> {
        let kind = match error {
            StageError::Duplicate => FaultKind::Duplicate,
            _ if self.can_grow(of) => return Err(of),
            StageError::Capacity { capacity } => FaultKind::Capacity { of, capacity },
            // Kept as it was: told only if no further refresh follows.
            StageError::NoSpare => {
                self.deferred += 1;
                return Ok(());
            }
        };
        journal.fault(Fault { kind, ..fault });
        Ok(())
    }

    fn entity<B: Bot, L: LinkList, E: EntryFormat>(
        &mut self,
        bot: &B,
        mem: &mut ConfigMem<'_, B, L, E>,
        journal: &mut Journal<'_>,
        frame: Frame,
    ) -> Result<(), Kind> {
        let account = self.account.1;
        let (bytes, whole) = bytes_of(frame, mem.element);
        let fault = |id: u64, kind| Fault::new(account, id, (Kind::Entity, 0), kind);
        if !whole {
            let id = first_id(bytes);
            if let Some(kind) = unreadable(frame, mem.element.len()) {
                journal.fault(fault(id.unwrap_or(0), kind));
            }
            if let Some(id) = id {
                self.keep_entity(mem, ItemKey { account, id });
            }
            return Ok(());
        }
        let (head, entry) = match EntityHead::read_framed(bytes, bot.protocol().unwrap_or("")) {
            Ok(read) => read,
            Err(error) => {
                journal.fault(fault(first_id(bytes).unwrap_or(0), FaultKind::Malformed(error)));
                return Ok(());
            }
        };
        if !head.is_device() {
            return Ok(());
        }
        if self.stage == Stage::Entities {
            if head.protocols.is_none() {
                self.remember_single(head.id);
                return Ok(());
            }
            if self.singles_after > 0 {
                // Met when the list was read first; now it is read only for those without protocols.
                return Ok(());
            }
        }
        let key = ItemKey { account, id: head.id };
        let entry = match entry {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(()),
            Err(error) => {
                journal.fault(fault(head.id, FaultKind::Malformed(error)));
                return Ok(());
            }
        };
        let (Some(credential_id), Some(sensors)) = (entry.credential, entry.sensors) else { return Ok(()) };
        if entry.bot.is_some() && entry.bot != self.user_id {
            return Ok(());
        }
        // What is kept, hashed; sensors as a set.
        let mut links = L::new();
        let mut set = 0u64;
        let mut count = 0u32;
        let read = read_sensors(bytes, sensors, |id, interval| {
            count += 1;
            let about = Fault::new(account, head.id, (Kind::Sensor, id), FaultKind::Duplicate);
            match interval {
                Ok(interval) => link_in(&mut links, Link { id, sensor: NONE, interval }, about, journal),
                Err(error) => journal.fault(Fault { kind: FaultKind::Interval(error), ..about }),
            }
        });
        if let Err(error) = read {
            journal.fault(fault(head.id, FaultKind::Malformed(error)));
            return Ok(());
        }
        if count == 0 {
            return Ok(());
        }
        for link in links.as_slice() {
            let seconds = link.interval.map_or(0, Interval::seconds);
            set = set.wrapping_add(Fnv1a64::new().u64(link.id).u64(seconds.into()).finish());
        }
        let details = head.details.of(bytes);
        let mut name_hash = Fnv1a64::new();
        for c in name_of(&head) {
            name_hash = name_hash.bytes(&u32::from(c).to_le_bytes());
        }
        let hash = name_hash.u64(head.parent).u64(credential_id).u64(set).bytes(details).finish();

        let entities = Table::new(&mut self.entities, mem.entities.reborrow());
        let found = entities.find(&key);
        if let Some(i) = found {
            if entities.is_named(i) && !self.again {
                journal.fault(fault(head.id, FaultKind::Duplicate));
                return Ok(());
            }
            if entities.get(i).is_some_and(|e| e.hash == hash) {
                self.keep_entity(mem, key);
                return Ok(());
            }
        }
        let decoded = if details.is_empty() { b"{}" } else { details };
        let details: B::Entity = match json::from_reader(Reader::framed(decoded), mem.scratch) {
            Ok(details) => details,
            Err(error) => {
                let error = <DetailsError as From<Refused>>::from(error);
                journal.fault(fault(head.id, FaultKind::Details(error)));
                if error.beyond_bounds {
                    self.keep_entity(mem, key);
                }
                return Ok(());
            }
        };
        let name = B::Name::keep(name_of(&head));

        let record = EntityRecord { hash, name, parent: head.parent, details, credential: NONE, links };
        let grows = self.can_grow(Kind::Entity);
        let mut entities = Table::new(&mut self.entities, mem.entities.reborrow());
        let staged = match found {
            None if grows => entities.stage_beside(key, record),
            None => entities.stage_new(key, record),
            Some(i) => entities.stage_change(i, record).map(|()| i),
        };
        let i = match staged {
            Ok(i) => i,
            Err(error) => {
                self.no_room(error, fault(head.id, FaultKind::Duplicate), Kind::Entity, journal)?;
                self.keep_entity(mem, key);
                return Ok(());
            }
        };
        // Its credential and sensors get their places; their details come with later lists.
        let placed = self.place_all(mem, journal, key, credential_id, i);
        if placed != Ok(true) {
            Table::new(&mut self.entities, mem.entities.reborrow()).discard(i);
        }
        if !placed? {
            self.keep_entity(mem, key);
        }
        Ok(())
    }

    /// Gives the credential and the sensors that the entity staged at `i` names their places. `Ok(false)`: it can't be
    /// staged, for want of room.
    fn place_all<B: Bot, L: LinkList, E: EntryFormat>(
        &mut self,
        mem: &mut ConfigMem<'_, B, L, E>,
        journal: &mut Journal<'_>,
        key: ItemKey,
        credential_id: u64,
        i: u32,
    ) -> Result<bool, Kind> {
        let account = key.account;
        let about = |item| Fault::new(account, key.id, item, FaultKind::Missing);
        let mut credentials = Table::new(&mut self.credentials, mem.credentials.reborrow());
        let grows = self.fixed & (1 << Kind::Credential as u8) == 0;
        let credential = match place(&mut credentials, ItemKey { account, id: credential_id }, grows) {
            Ok(credential) => credential,
            Err(error) => {
                let about = about((Kind::Credential, credential_id));
                return self.no_room(error, about, Kind::Credential, journal).map(|()| false);
            }
        };
        let mut n = 0;
        loop {
            let mut entities = Table::new(&mut self.entities, mem.entities.reborrow());
            let Some(record) = entities.staged_mut(i) else { return Ok(false) };
            record.credential = credential;
            let Some(link) = record.links.as_mut_slice().get_mut(n) else { return Ok(true) };
            let mut sensors = Table::new(&mut self.sensors, mem.sensors.reborrow());
            let grows = self.fixed & (1 << Kind::Sensor as u8) == 0;
            match place(&mut sensors, ItemKey { account, id: link.id }, grows) {
                Ok(sensor) => link.sensor = sensor,
                Err(error) => {
                    // One that lacks a sensor for want of room must not look unchanged next time. Without spare room it
                    // goes on with those that it has: if it kept its old ones, there would never be room.
                    record.hash = 0;
                    let about = about((Kind::Sensor, link.id));
                    self.no_room(error, about, Kind::Sensor, journal)?;
                }
            }
            n += 1;
        }
    }

    /// An entity stays as it is, with all that it names.
    fn keep_entity<B: Bot, L: LinkList, E: EntryFormat>(
        &mut self,
        mem: &mut ConfigMem<'_, B, L, E>,
        key: ItemKey,
    ) {
        let mut entities = Table::new(&mut self.entities, mem.entities.reborrow());
        let Some(i) = entities.find(&key).filter(|i| entities.is_live(*i)) else { return };
        entities.keep(i);
        if let Some(entity) = entities.get(i) {
            Table::new(&mut self.credentials, mem.credentials.reborrow()).keep(entity.credential);
            let mut sensors = Table::new(&mut self.sensors, mem.sensors.reborrow());
            for link in entity.links.as_slice() {
                if sensors.key(link.sensor).is_some_and(|k| k.id == link.id) {
                    sensors.keep(link.sensor);
                }
            }
        }
    }

    fn remember_single(&mut self, id: u64) {
        if id <= self.singles_after {
            return;
        }
        let Err(at) = self.singles.binary_search(&id) else { return };
        if self.singles.is_full() {
            self.singles_more = true;
            if at == SINGLES {
                return;
            }
            self.singles.pop();
        }
        let _ = self.singles.insert(at, id);
    }

    /// The request of [`Config::resource`] has ended.
    pub fn end<B: Bot, L: LinkList, E: EntryFormat>(
        &mut self,
        bot: &B,
        settings: &ConfigSettings,
        mem: &mut ConfigMem<'_, B, L, E>,
        journal: &mut Journal<'_>,
        outcome: Outcome,
    ) -> Step {
        let outcome = match outcome {
            Outcome::Ok => match self.framer.finish() {
                Ok(None) => Outcome::Ok,
                // Only a bare number is ended by the end of its body, and that is no answer of the backend.
                Ok(Some(_)) => Outcome::Failed(RefreshError::Body(FrameError {
                    offset: 0,
                    kind: FrameErrorKind::NotAnObject("id"),
                })),
                Err(error) => Outcome::Failed(RefreshError::Body(error)),
            },
            failed @ Outcome::Failed(_) => failed,
        };
        if let Outcome::Failed(error) = outcome {
            return self.request_failed(bot, mem, journal, error);
        }
        self.consecutive_losses = 0;
        match self.stage {
            Stage::Status => self.go_to_profile(bot, mem),
            Stage::Profile => match self.user_id {
                None => self.abort_with(RefreshError::NotReady),
                Some(_) if bot.protocol().is_none() => match settings.account.or(self.tied) {
                    Some(account) => self.own(journal, account),
                    None if self.own_account.is_some() => self.go_to_work(Stage::Commit),
                    None => self.go_to_accounts(mem),
                },
                Some(_) => self.go_to_accounts(mem),
            },
            Stage::Accounts => self.accounts_read(bot, settings, mem, journal),
            Stage::Entities | Stage::Single => {
                if self.stage == Stage::Single {
                    self.singles_after = self.singles.first().copied().unwrap_or(u64::MAX);
                    self.singles.remove(0);
                }
                self.next_single()
            }
            Stage::Credentials => {
                self.enter(Stage::Sensors);
                Step::Request
            }
            Stage::Sensors => {
                let mut accounts = Table::new(&mut self.accounts, mem.accounts.reborrow());
                if let Some(record) = accounts.get_mut(self.account.0) {
                    record.done = true;
                }
                self.next_account(bot, mem)
            }
            Stage::Idle | Stage::MakeJobs | Stage::Commit => Step::Work,
        }
    }

    fn next_single(&mut self) -> Step {
        if !self.singles.is_empty() {
            self.stage = Stage::Single;
        } else if core::mem::take(&mut self.singles_more) {
            self.stage = Stage::Entities;
        } else {
            self.enter(Stage::Credentials);
        }
        Step::Request
    }

    fn go_to_work(&mut self, stage: Stage) -> Step {
        self.enter(stage);
        Step::Work
    }

    fn go_to_accounts<B: Bot, L, E: EntryFormat>(&mut self, mem: &mut ConfigMem<'_, B, L, E>) -> Step {
        self.seen_accounts = 0;
        Table::new(&mut self.accounts, mem.accounts.reborrow()).begin();
        self.enter(Stage::Accounts);
        Step::Request
    }

    fn own(&mut self, journal: &mut Journal<'_>, account: u64) -> Step {
        if self.own_account != Some(account) {
            journal.event(Event::OwnAccount { account });
            self.own_account = Some(account);
        }
        self.go_to_work(Stage::Commit)
    }

    fn abort_with(&mut self, error: RefreshError) -> Step {
        self.enter(Stage::Idle);
        Step::Failed(error)
    }

    fn accounts_read<B: Bot, L, E: EntryFormat>(
        &mut self,
        bot: &B,
        settings: &ConfigSettings,
        mem: &mut ConfigMem<'_, B, L, E>,
        journal: &mut Journal<'_>,
    ) -> Step {
        let seen = self.seen_accounts as usize;
        let mut accounts = Table::new(&mut self.accounts, mem.accounts.reborrow());
        let capacity = accounts.capacity();
        let done = accounts.commit(
            |_| false,
            |_, key, change| {
                if let Change::Refused(_) = change {
                    let kind = FaultKind::Capacity { of: Kind::Account, capacity };
                    journal.fault(Fault::new(key.0, 0, (Kind::Account, 0), kind));
                }
            },
        );
        self.progressed |= done.changed_anything();
        if let Some(account) = settings.account
            && accounts.is_empty()
        {
            return self.abort_with(RefreshError::NoSuchAccount { account });
        }
        let custom = bot.protocol().is_none();
        for i in 0..accounts.upper_index() {
            if let Some(record) = accounts.get_mut(i) {
                // A custom bot reads no lists that could fail.
                record.done = custom;
            }
        }
        if custom {
            let only = accounts.iter().map(|(_, key, _)| key.0).next();
            return match only.filter(|_| seen == 1) {
                Some(account) => self.own(journal, account),
                None => self.abort_with(RefreshError::WhichAccount { seen }),
            };
        }
        self.account = (NONE, 0);
        self.account_count = Some(accounts.len() as u32);
        self.next_account(bot, mem)
    }

    fn next_account<B: Bot, L, E: EntryFormat>(&mut self, bot: &B, mem: &mut ConfigMem<'_, B, L, E>) -> Step {
        let accounts = Table::new(&mut self.accounts, mem.accounts.reborrow());
        let from = self.account.0.wrapping_add(1);
        let next = (from..accounts.upper_index()).find(|i| accounts.is_live(*i));
        let found = next.and_then(|i| Some((i, accounts.key(i)?.0)));
        match found {
            Some(account) => {
                self.account = account;
                self.summary.accounts += 1;
                self.enter(Stage::Entities);
                self.singles.clear();
                self.singles_after = 0;
                self.singles_more = false;
                Step::Request
            }
            // Each was told; it is the bot that is not let in, as with a 403 for the list of accounts.
            None if self.denied_accounts > 0 && self.denied_accounts == self.summary.accounts => {
                self.fail(bot, mem, RefreshError::Status(403))
            }
            None => self.go_to_work(Stage::Commit),
        }
    }

    fn request_failed<B: Bot, L: LinkList, E: EntryFormat>(
        &mut self,
        bot: &B,
        mem: &mut ConfigMem<'_, B, L, E>,
        journal: &mut Journal<'_>,
        error: RefreshError,
    ) -> Step {
        match self.stage {
            // An entity that is gone by now is skipped.
            Stage::Single if error == RefreshError::Status(404) => {
                self.singles_after = self.singles.first().copied().unwrap_or(u64::MAX);
                self.singles.remove(0);
                return self.next_single();
            }
            Stage::Entities | Stage::Single | Stage::Credentials | Stage::Sensors => {}
            Stage::Status => {
                self.ready = false;
                return self.fail(bot, mem, error);
            }
            _ => return self.fail(bot, mem, error),
        }
        if error == RefreshError::Lost {
            self.consecutive_losses += 1;
        }
        // One account's fault is its own; a backend that is not there, or not for us, is everybody's.
        if matches!(error, RefreshError::NotSent | RefreshError::Status(401)) || self.consecutive_losses > 2 {
            return self.fail(bot, mem, error);
        }
        self.summary.failed_accounts += 1;
        self.denied_accounts += u32::from(error == RefreshError::Status(403));
        let kind = FaultKind::AccountFailed(error);
        journal.fault(Fault::new(self.account.1, 0, (Kind::Account, 0), kind));
        self.next_account(bot, mem)
    }

    fn fail<B: Bot, L, E: EntryFormat>(
        &mut self,
        _bot: &B,
        mem: &mut ConfigMem<'_, B, L, E>,
        error: RefreshError,
    ) -> Step {
        Table::new(&mut self.accounts, mem.accounts.reborrow()).abort();
        self.abort_with(error)
    }

    /// What there is to do without the backend, after which the refresh has ended: the commit of entities, credentials
    /// and sensors, making jobs of them, and the commit of these.
    ///
    /// # Errors
    /// A table is too small: as with [`Stop::Shortage`].
    pub fn work<B: Bot, L: LinkList, E: EntryFormat>(
        &mut self,
        bot: &B,
        mem: &mut ConfigMem<'_, B, L, E>,
        jobs: &mut JobsState,
        journal: &mut Journal<'_>,
        now: Millis,
        on: &mut dyn FnMut(&JobEvent),
    ) -> Result<RefreshSummary, Kind> {
        if self.stage == Stage::Commit {
            self.commit_items(mem, journal);
            self.repeated = 0;
            self.committed = Committed::default();
            self.enter(Stage::MakeJobs);
        }
        // After a shortage it all begins anew: what a bot makes is the same every time.
        let told = journal.count();
        journal.repeat(self.repeated);
        let made = self.make_jobs(bot, mem, jobs, journal);
        journal.repeat(0);
        self.repeated += journal.count() - told;
        made?;
        self.commit_jobs(mem, jobs, journal, now, on)
    }

    fn make_jobs<B: Bot, L: LinkList, E: EntryFormat>(
        &mut self,
        bot: &B,
        mem: &mut ConfigMem<'_, B, L, E>,
        jobs: &mut JobsState,
        journal: &mut Journal<'_>,
    ) -> Result<(), Kind> {
        JobTable::new(jobs, mem.jobs.reborrow()).begin();
        let fixed = self.fixed;
        let mut accounts = Table::new(&mut self.accounts, mem.accounts.reborrow());
        for i in 0..accounts.upper_index() {
            if let Some(record) = accounts.get_mut(i) {
                record.range = (NONE, 0);
            }
        }
        let upper = Table::new(&mut self.entities, mem.entities.reborrow()).upper_index();
        let (entities, credentials, sensors) =
            (mem.entities.reader(), mem.credentials.reader(), mem.sensors.reader());
        self.summary.entities = 0;
        for i in 0..upper {
            let (Some(key), Some(record)) = (entities.key(i), entities.get(i)) else { continue };
            let at = accounts.find(&AccountKey(key.account));
            let Some(of) = at.and_then(|at| accounts.get_mut(at)).filter(|a| a.done) else { continue };
            of.range = (of.range.0.min(i), i + 1);
            self.summary.entities += 1;
            sensors_at_fault(*key, record.links.as_slice(), sensors, journal);
            let Some(view) = view::<B, L>(*key, record, credentials, sensors) else {
                // One that has no place was told when it got none.
                if let Some(credential) = credentials.key(record.credential) {
                    let (item, kind) = ((Kind::Credential, credential.id), FaultKind::Missing);
                    journal.fault(Fault::new(key.account, key.id, item, kind));
                }
                continue;
            };
            let table = JobTable::new(jobs, mem.jobs.reborrow());
            let mut sink = Sink::new(table, journal.reborrow(), fixed, key.account, (key.id, i));
            bot.entity_jobs(&view, &mut sink);
            sink.end()?;
        }
        if bot.protocol().is_some() {
            for (_, account, record) in accounts.iter().filter(|(_, _, record)| record.done) {
                let (account, range) = (account.0, record.range);
                let list = Listed::<B, L> { account, range, entities, credentials, sensors };
                let table = JobTable::new(jobs, mem.jobs.reborrow());
                let mut sink = Sink::new(table, journal.reborrow(), fixed, account, (0, NONE));
                bot.account_jobs(&AccountView { account, entities: &list }, &mut sink);
                sink.end()?;
            }
        }
        if let Some(account) = self.own_account {
            let table = JobTable::new(jobs, mem.jobs.reborrow());
            let mut sink = Sink::new(table, journal.reborrow(), fixed, account, (0, NONE));
            bot.own_jobs(account, &mut sink);
            sink.end()?;
        }
        Ok(())
    }

    /// Commits what the lists have told: entities, credentials and sensors.
    fn commit_items<B: Bot, L: LinkList, E: EntryFormat>(
        &mut self,
        mem: &mut ConfigMem<'_, B, L, E>,
        journal: &mut Journal<'_>,
    ) {
        let accounts = Table::new(&mut self.accounts, mem.accounts.reborrow());
        let failed = |account: u64| has_failed(&accounts, account);
        let mut entities = Table::new(&mut self.entities, mem.entities.reborrow());
        let capacity = entities.capacity();
        let mut done = entities.commit(failed, |_, key, change| {
            if let Change::Refused(_) = change {
                let kind = FaultKind::Capacity { of: Kind::Entity, capacity };
                journal.fault(Fault::new(key.account, key.id, (Kind::Entity, 0), kind));
            }
        });
        self.progressed |= done.changed_anything();
        done = commit_details(
            Kind::Credential,
            &mut self.credentials,
            mem.credentials.reborrow(),
            failed,
            journal,
        );
        self.progressed |= done.changed_anything();
        let mut refused = done.refused;
        done = commit_details(Kind::Sensor, &mut self.sensors, mem.sensors.reborrow(), failed, journal);
        self.progressed |= done.changed_anything();
        refused += done.refused;
        if refused == 0 {
            return;
        }
        // What was refused has left its place, where something else may be soon.
        let (credentials, sensors) = (mem.credentials.reader(), mem.sensors.reader());
        for i in 0..entities.upper_index() {
            let Some(record) = entities.get_mut(i) else { continue };
            if credentials.get(record.credential).is_none() {
                record.credential = NONE;
                record.hash = 0;
            }
            for link in record.links.as_mut_slice().iter_mut().filter(|l| sensors.get(l.sensor).is_none()) {
                link.sensor = NONE;
                record.hash = 0;
            }
        }
    }

    fn commit_jobs<B: Bot, L: LinkList, E: EntryFormat>(
        &mut self,
        mem: &mut ConfigMem<'_, B, L, E>,
        jobs: &mut JobsState,
        journal: &mut Journal<'_>,
        now: Millis,
        on: &mut dyn FnMut(&JobEvent),
    ) -> Result<RefreshSummary, Kind> {
        let accounts = Table::new(&mut self.accounts, mem.accounts.reborrow());
        let failed = |account: u64| has_failed(&accounts, account);
        let (fixed, mut shortage) = (self.fixed, None);
        let mut table = JobTable::new(jobs, mem.jobs.reborrow());
        let done = table.commit(now, failed, |event| {
            if let JobEvent::Refused(error) = event {
                match short_of(&error).filter(|of| fixed & (1 << *of as u8) == 0) {
                    Some(of) => shortage = Some(of),
                    None => job_fault(error, journal),
                }
            }
            on(&event);
        });
        self.committed.added += done.added;
        self.committed.changed += done.changed;
        self.committed.removed += done.removed;
        if let Some(of) = shortage {
            // With more room, what was refused follows.
            return Err(of);
        }
        self.progressed |= self.committed.changed_anything();
        self.summary.jobs = u32::try_from(table.len()).unwrap_or(u32::MAX);
        self.summary.committed =
            Committed { refused: done.refused, deferred: self.deferred + done.deferred, ..self.committed };
        // What an account's lists would have told is unknown if one failed; how they fail is known.
        journal.commit(|fault| match fault.kind {
            FaultKind::AccountFailed(_) => false,
            FaultKind::Deferred => true,
            _ => failed(fault.account),
        });
        self.summary.faults = journal.count();
        self.summary.took_ms = now.since(self.started);
        self.enter(Stage::Idle);
        Ok(self.summary)
    }

    /// The entity of a job as it is now.
    pub fn entity_of<'m, B: Bot, L: LinkList, E: EntryFormat>(
        &self,
        mem: &'m ConfigMem<'_, B, L, E>,
        job: &JobKey,
        index: u32,
    ) -> Option<EntityView<'m, B>> {
        let entities = mem.entities.reader();
        let key = *entities.key(index)?;
        if key.account != job.account || key.id != job.entity {
            return None;
        }
        view::<B, L>(key, entities.get(index)?, mem.credentials.reader(), mem.sensors.reader())
    }
}

/// Whether not all lists of an account have been read.
fn has_failed(accounts: &Table<'_, AccountKey, AccountRecord>, account: u64) -> bool {
    let record = accounts.find(&AccountKey(account)).and_then(|i| accounts.get(i));
    record.is_some_and(|r| !r.done)
}

fn begin_details<D>(table: &mut Table<'_, ItemKey, DetailRecord<D>>) {
    table.begin();
    for i in 0..table.upper_index() {
        if let Some(record) = table.get_mut(i) {
            record.met = false;
        }
    }
}

/// The characters of an entity's name; what is none is U+FFFD, and ends it.
fn name_of<'a>(head: &EntityHead<'a>) -> impl Iterator<Item = char> + use<'a> {
    let name = head.name.into_iter().flat_map(|name| name.chars());
    name.map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
}

/// The bytes of a frame, and whether they are the whole element.
fn bytes_of(frame: Frame, buffer: &[u8]) -> (&[u8], bool) {
    let (len, whole) = match frame {
        Frame::Element { len } => (len, true),
        Frame::TooLong { kept, .. } | Frame::TooDeep { kept, .. } => (kept, false),
    };
    (buffer.get(..len).unwrap_or_default(), whole)
}

fn unreadable(frame: Frame, limit: usize) -> Option<FaultKind> {
    match frame {
        Frame::Element { .. } => None,
        Frame::TooLong { total_bytes, .. } => Some(FaultKind::TooLong { bytes: total_bytes, limit }),
        Frame::TooDeep { .. } => Some(FaultKind::TooDeep { limit: MAX_DEPTH as usize }),
    }
}

/// Inserts a link by ascending id; where there is no room, the largest id is left out and named.
fn link_in<L: LinkList>(links: &mut L, link: Link, about: Fault, journal: &mut Journal<'_>) {
    let at = match links.as_slice().binary_search_by_key(&link.id, |l| l.id) {
        Ok(_) => return journal.fault(about),
        Err(at) => at,
    };
    let Err(full) = links.insert(at, link) else { return };
    let kind = FaultKind::TooManySensors { limit: full.capacity };
    let last = if at < links.as_slice().len() { links.pop() } else { None };
    let left_out = match last {
        Some(last) => {
            let _ = links.insert(at, link);
            last.id
        }
        None => link.id,
    };
    journal.fault(Fault { item: (Kind::Sensor, left_out), kind, ..about });
}

/// The place of a credential or sensor that an entity names.
fn place<D>(
    table: &mut Table<'_, ItemKey, DetailRecord<D>>,
    key: ItemKey,
    grows: bool,
) -> Result<u32, StageError> {
    match table.find(&key) {
        Some(i) => {
            table.keep(i);
            Ok(i)
        }
        None if grows => table.stage_beside(key, DetailRecord::UNREAD),
        None => table.stage_new(key, DetailRecord::UNREAD),
    }
}

/// One credential or sensor of its list.
///
/// # Errors
/// There is no room for its new state.
fn detail<D: serde::de::DeserializeOwned>(
    of: Kind,
    account: u64,
    table: &mut Table<'_, ItemKey, DetailRecord<D>>,
    element: &[u8],
    scratch: &mut [u8],
    journal: &mut Journal<'_>,
    frame: Frame,
) -> Result<(), StageError> {
    let (bytes, whole) = bytes_of(frame, element);
    let Some(id) = first_id(bytes).or_else(|| DetailHead::read(bytes).ok().map(|h| h.id)) else {
        let kind = unreadable(frame, element.len())
            .or_else(|| DetailHead::read(bytes).err().map(FaultKind::Malformed));
        if let Some(kind) = kind {
            journal.fault(Fault::new(account, 0, (of, 0), kind));
        }
        return Ok(());
    };
    // One that no kept entity names is skipped, whatever is in it.
    let Some(i) = table.find(&ItemKey { account, id }).filter(|i| table.is_named(*i)) else { return Ok(()) };
    let fault = |kind| Fault::new(account, 0, (of, id), kind);
    let hash = Fnv1a64::of(bytes);
    let Some(stored) = table.staged(i) else { return Ok(()) };
    if stored.met {
        journal.fault(fault(FaultKind::Duplicate));
        return Ok(());
    }
    let same = stored.hash == hash;
    if same && stored.details.is_some() {
        met(table, i);
        return Ok(());
    }
    if !whole {
        if let Some(kind) = unreadable(frame, element.len()) {
            journal.fault(fault(kind));
        }
        met(table, i);
        return Ok(());
    }
    let mut record = DetailRecord { hash, met: true, ..DetailRecord::UNREAD };
    match DetailHead::read(bytes) {
        Ok(head) => {
            record.default_interval = head.default_interval;
            let details = head.details.of(bytes);
            let details = if details.is_empty() { b"{}" } else { details };
            match json::from_reader(Reader::framed(details), scratch) {
                Ok(details) => record.details = Some(details),
                Err(error) => {
                    let error = <DetailsError as From<Refused>>::from(error);
                    journal.fault(fault(FaultKind::Details(error)));
                    if error.beyond_bounds {
                        met(table, i);
                        return Ok(());
                    }
                }
            }
        }
        Err(error) => journal.fault(fault(FaultKind::Malformed(error))),
    }
    if let Some(staged) = table.staged_mut(i) {
        *staged = record;
    } else if same {
        // Refused before.
        met(table, i);
    } else {
        table.stage_change(i, record)?;
    }
    Ok(())
}

/// Its element has been met, and it stays as it is.
fn met<D>(table: &mut Table<'_, ItemKey, DetailRecord<D>>, i: u32) {
    if let Some(record) = table.staged_mut(i) {
        record.met = true;
    } else if let Some(record) = table.get_mut(i) {
        record.met = true;
    }
}

fn commit_details<D>(
    of: Kind,
    state: &mut TableState,
    mem: TableMem<'_, ItemKey, DetailRecord<D>>,
    failed: impl Fn(u64) -> bool,
    journal: &mut Journal<'_>,
) -> Committed {
    let mut table = Table::new(state, mem);
    let capacity = table.capacity();
    table.commit(failed, |_, key, change| {
        if let Change::Refused(_) = change {
            let kind = FaultKind::Capacity { of, capacity };
            journal.fault(Fault::new(key.account, 0, (of, key.id), kind));
        }
    })
}

/// Sensors that an entity names and that can't be used.
fn sensors_at_fault<D>(
    entity: ItemKey,
    links: &[Link],
    sensors: TableRef<'_, ItemKey, DetailRecord<D>>,
    journal: &mut Journal<'_>,
) {
    // One that has no place was told when it got none.
    for link in links.iter().filter(|l| l.sensor != NONE) {
        let record = sensors.get(link.sensor).filter(|r| r.details.is_some());
        let kind = match record {
            None => FaultKind::Missing,
            Some(record) => match link.interval.map_or(record.default_interval, |own| Ok(Some(own))) {
                Err(error) => FaultKind::Interval(error),
                Ok(_) => continue,
            },
        };
        journal.fault(Fault::new(entity.account, entity.id, (Kind::Sensor, link.id), kind));
    }
}

fn job_fault(error: InsertError, journal: &mut Journal<'_>) {
    let (key, kind) = match error {
        InsertError::NoIntervals { key } => (key, FaultKind::NoIntervals),
        InsertError::Duplicate { key, .. } => (key, FaultKind::Duplicate),
        InsertError::Jobs { key, capacity } => (key, FaultKind::Capacity { of: Kind::Job, capacity }),
        InsertError::Entries { key, capacity } => {
            (key, FaultKind::Capacity { of: Kind::IntervalEntry, capacity })
        }
        InsertError::DistinctIntervals { key, capacity, .. } => {
            (key, FaultKind::Capacity { of: Kind::DistinctInterval, capacity })
        }
        InsertError::NoSpare { key } => (key, FaultKind::Deferred),
    };
    let fault = Fault::new(key.account, key.entity, (Kind::Job, key.item), kind);
    journal.fault(Fault { job: key.name, ..fault });
}

/// Of what there is too little, if that is why a job was not taken.
fn short_of(error: &InsertError) -> Option<Kind> {
    match error {
        InsertError::Jobs { .. } | InsertError::NoSpare { .. } => Some(Kind::Job),
        InsertError::Entries { .. } => Some(Kind::IntervalEntry),
        InsertError::DistinctIntervals { .. } => Some(Kind::DistinctInterval),
        _ => None,
    }
}

/// Takes the jobs of one entity, or of one account.
struct Sink<'a, J, E: EntryFormat> {
    table: JobTable<'a, Made<J>, E>,
    journal: Journal<'a>,
    fixed: u8,
    account: u64,
    entity: u64,
    index: u32,
    shortage: Option<Kind>,
}

impl<'a, J: PartialEq, E: EntryFormat> Sink<'a, J, E> {
    fn new(
        table: JobTable<'a, Made<J>, E>,
        journal: Journal<'a>,
        fixed: u8,
        account: u64,
        (entity, index): (u64, u32),
    ) -> Self {
        Sink { table, journal, fixed, account, entity, index, shortage: None }
    }

    fn end(self) -> Result<(), Kind> {
        self.shortage.map_or(Ok(()), Err)
    }

    fn say(&mut self, fault: Fault) {
        if self.shortage.is_none() {
            self.journal.fault(fault);
        }
    }
}

impl<J: PartialEq, E: EntryFormat> JobSink<J> for Sink<'_, J, E> {
    fn add(&mut self, job: NewJob<J>) {
        if self.shortage.is_some() {
            return;
        }
        let key = JobKey { account: self.account, entity: self.entity, item: job.item, name: job.name };
        let spec = JobSpec {
            key,
            intervals: job.intervals,
            phase: job.phase,
            first_run: job.first_run,
            deadline_ms: job.deadline_ms,
            params: Made { entity: self.index, params: job.params },
        };
        let Err(error) = self.table.upsert(spec) else { return };
        match short_of(&error) {
            Some(of) if self.fixed & (1 << of as u8) == 0 => self.shortage = Some(of),
            // A further refresh follows.
            _ if matches!(error, InsertError::NoSpare { .. }) => {}
            _ => job_fault(error, &mut self.journal),
        }
    }

    fn refuse(&mut self, why: &'static str) {
        let (account, entity, kind) = (self.account, self.entity, FaultKind::Refused(why));
        self.say(Fault::new(account, entity, (Kind::Entity, 0), kind));
    }

    fn leave_out(&mut self, sensor: u64, why: TooManyIntervals) {
        let (account, entity, kind) = (self.account, self.entity, FaultKind::NinthInterval(why.0));
        self.say(Fault::new(account, entity, (Kind::Sensor, sensor), kind));
    }

    fn refuse_sensor(&mut self, sensor: u64, why: SensorRefusal) {
        let (account, entity, kind) = (self.account, self.entity, FaultKind::SensorRefused(why));
        self.say(Fault::new(account, entity, (Kind::Sensor, sensor), kind));
    }
}

/// The entities of an account, as the hook per account sees them.
struct Listed<'a, B: Bot, L> {
    account: u64,
    range: (u32, u32),
    entities: TableRef<'a, ItemKey, EntityRecord<B::Name, B::Entity, L>>,
    credentials: TableRef<'a, ItemKey, DetailRecord<B::Credential>>,
    sensors: TableRef<'a, ItemKey, DetailRecord<B::Sensor>>,
}

impl<B: Bot, L: LinkList> EntityList<B> for Listed<'_, B, L> {
    fn next(&self, index: u32) -> Option<(u32, EntityView<'_, B>)> {
        (index.max(self.range.0)..self.range.1).find_map(|i| {
            let key = *self.entities.key(i).filter(|k| k.account == self.account)?;
            Some((i, view::<B, L>(key, self.entities.get(i)?, self.credentials, self.sensors)?))
        })
    }
}

fn read_status(element: &[u8]) -> Result<(Option<bool>, Option<bool>), ReadError> {
    let mut reader = Reader::new(element);
    let (mut migration_needed, mut user_exists) = (None, None);
    reader.begin_object()?;
    while let Some(key) = reader.next_key()? {
        let field = if key == "db_migration_needed" {
            &mut migration_needed
        } else if key == "user_exists" {
            &mut user_exists
        } else {
            reader.skip_value()?;
            continue;
        };
        *field = if reader.null()? { None } else { Some(reader.bool()?) };
    }
    Ok((migration_needed, user_exists))
}

/// The product's own controlled bots.
const CONTROLLED: [&str; 3] = ["ping", "snmp", "netflow"];

struct Profile {
    user_id: u64,
    tied: Option<u64>,
    other_protocol: bool,
}

fn read_profile(element: &[u8], protocol: Option<&str>) -> Result<Profile, ReadError> {
    let mut reader = Reader::new(element);
    let mut profile = Profile { user_id: 0, tied: None, other_protocol: false };
    let mut user_id = None;
    reader.begin_object()?;
    while let Some(key) = reader.next_key()? {
        if key == "user_id" {
            user_id = Some(reader.u64()?);
        } else if key == "record" && !reader.null()? {
            reader.begin_object()?;
            while let Some(key) = reader.next_key()? {
                if key == "tied_to_account" {
                    profile.tied = if reader.null()? { None } else { Some(reader.u64()?) };
                } else if key == "protocol" {
                    let own = if reader.null()? { None } else { Some(reader.text()?) };
                    profile.other_protocol = match (protocol, own) {
                        (Some(wanted), Some(own)) => !(own == *wanted),
                        (Some(_), None) => true,
                        // A custom bot's token may say anything but this.
                        (None, Some(own)) => CONTROLLED.iter().any(|controlled| own == *controlled),
                        (None, None) => false,
                    };
                } else {
                    reader.skip_value()?;
                }
            }
        } else if key != "record" {
            reader.skip_value()?;
        }
    }
    profile.user_id = match user_id {
        Some(id) => id,
        None => return Err(crate::model::missing(&reader)),
    };
    Ok(profile)
}

impl<K: TableKey, V> TableMem<'_, K, V> {
    /// The same memory, for a shorter time.
    pub fn reborrow(&mut self) -> TableMem<'_, K, V> {
        TableMem { slots: self.slots, heads: self.heads, spare: self.spare }
    }

    /// The table, to look at.
    #[must_use]
    pub fn reader(&self) -> TableRef<'_, K, V> {
        TableRef::new(self.slots)
    }
}

impl<J, E: EntryFormat> JobsMem<'_, J, E> {
    /// The same memory, for a shorter time.
    pub fn reborrow(&mut self) -> JobsMem<'_, J, E> {
        JobsMem {
            slots: self.slots,
            heads: self.heads,
            spare: self.spare,
            progress: self.progress,
            ready: self.ready,
            extras: self.extras,
            entries: self.entries,
            classes: self.classes,
            running: self.running,
        }
    }
}
