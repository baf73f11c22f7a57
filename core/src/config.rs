//! The refresh: reads accounts, entities, credentials and sensors as they arrive, keeps what concerns this bot, and
//! has the bot make jobs of it, as one transaction.
//!
//! A refresh costs `1 + 3·A` requests for A accounts, after `/profile` once. Bodies are read element by element:
//! memory does not depend on their length. What concerns another bot is skipped, not stored.

use crate::api::Resource;
use crate::bot::{AccountView, Bot, EntityList, EntityName, EntityView, JobSink, NewJob, view};
use crate::hash::Fnv1a64;
use crate::interval::TooManyIntervals;
use crate::jobs::{InsertError, JobEvent, JobKey, JobSpec, JobTable, JobsMem, JobsState};
use crate::journal::{DetailsError, Event, Fault, FaultKind, Journal, Kind, RefreshError, RefreshSummary};
use crate::json::{self, Frame, FrameError, FrameErrorKind, Framer, MAX_DEPTH, ReadError, Reader};
use crate::model::{
    DetailHead, DetailRecord, EntityHead, EntityRecord, ItemKey, Link, LinkList, RawInterval, first_id, read_sensors,
};
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
}

/// A job as the table keeps it: what the bot made, and the entity that it was made of.
#[derive(Clone, PartialEq, Debug)]
pub struct Made<J> {
    /// The entity's index, [`NONE`] for a job without entity.
    pub(crate) entity: u32,
    /// What the bot made.
    pub(crate) params: J,
}

/// The memory of a configuration.
pub struct ConfigMem<'a, B: Bot, L> {
    /// Accounts.
    pub accounts: TableMem<'a, AccountKey, AccountRecord>,
    /// Entities that concern the bot.
    pub entities: TableMem<'a, ItemKey, EntityRecord<B::Name, B::Entity, L>>,
    /// Credentials that these name.
    pub credentials: TableMem<'a, ItemKey, DetailRecord<B::Credential>>,
    /// Sensors that these name.
    pub sensors: TableMem<'a, ItemKey, DetailRecord<B::Sensor>>,
    /// Jobs.
    pub jobs: JobsMem<'a, Made<B::Job>>,
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

/// Why [`Config::push`] stopped before the end of the bytes, or [`Config::work`] before it was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// A table is too small. Grow it, or say with [`Config::give_up`] that it can't grow; then call again.
    Shortage(Kind),
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
    /// Indices of the entities met in it: from, to.
    range: (u32, u32),
    user_id: Option<u64>,
    tied: Option<u64>,
    ready: bool,
    /// The account of a custom bot.
    own_account: Option<u64>,
    seen_accounts: u32,
    framer: Framer,
    pending: Option<Frame>,
    /// Kinds of tables that can't grow.
    fixed: u8,
    /// Entity and job at which making jobs goes on.
    cursor: (u32, u32),
    singles: heapless::Vec<u64, SINGLES>,
    singles_after: u64,
    singles_more: bool,
    legacy: bool,
    consecutive_losses: u8,
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
            range: (NONE, 0),
            user_id: None,
            tied: None,
            ready: false,
            own_account: None,
            seen_accounts: 0,
            framer: Framer::document(),
            pending: None,
            fixed: 0,
            cursor: (0, 0),
            singles: heapless::Vec::new(),
            singles_after: 0,
            singles_more: false,
            legacy: false,
            consecutive_losses: 0,
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

    /// Begins a refresh.
    pub fn begin<B: Bot, L: LinkList>(
        &mut self,
        settings: &ConfigSettings,
        mem: &mut ConfigMem<'_, B, L>,
        jobs: &mut JobsState,
        journal: &mut Journal<'_>,
        now: Millis,
    ) {
        self.started = now;
        self.summary = RefreshSummary::default();
        self.fixed = 0;
        self.consecutive_losses = 0;
        journal.begin();
        Table::new(&mut self.entities, mem.entities.reborrow()).begin();
        Table::new(&mut self.credentials, mem.credentials.reborrow()).begin();
        Table::new(&mut self.sensors, mem.sensors.reborrow()).begin();
        JobTable::new(jobs, mem.jobs.reborrow()).begin();
        self.enter(if settings.wait_until_ready && !self.ready { Stage::Status } else { Stage::Profile });
    }

    /// The request of [`Config::resource`] is sent (again): its answer is read from the beginning.
    pub fn request_sent(&mut self) {
        self.pending = None;
        self.framer = match self.stage {
            Stage::Accounts | Stage::Entities | Stage::Credentials | Stage::Sensors => Framer::list("list"),
            _ => Framer::document(),
        };
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
        self.legacy = false;
    }

    /// Tables of this kind can't grow: what does not fit is a fault from now on.
    pub fn give_up(&mut self, kind: Kind) {
        self.fixed |= 1 << kind as u8;
    }

    const fn can_grow(&self, kind: Kind) -> bool {
        self.fixed & (1 << kind as u8) == 0
    }

    /// Reads on in the body of an answer: how many bytes were taken, and why not all.
    pub fn push<B: Bot, L: LinkList>(
        &mut self,
        bot: &B,
        settings: &ConfigSettings,
        mem: &mut ConfigMem<'_, B, L>,
        journal: &mut Journal<'_>,
        bytes: &[u8],
    ) -> (usize, Option<Stop>) {
        let mut taken = 0;
        loop {
            if let Some(frame) = self.pending {
                if let Err(stop) = self.frame(bot, settings, mem, journal, frame) {
                    return (taken, Some(stop));
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

    fn frame<B: Bot, L: LinkList>(
        &mut self,
        bot: &B,
        settings: &ConfigSettings,
        mem: &mut ConfigMem<'_, B, L>,
        journal: &mut Journal<'_>,
        frame: Frame,
    ) -> Result<(), Stop> {
        self.summary.elements = self.framer.elements();
        match self.stage {
            Stage::Status | Stage::Profile => self.answer(bot, mem, journal, frame).map_err(Stop::Failed),
            Stage::Accounts => self.account(settings, mem, journal, frame).map_err(Stop::Shortage),
            Stage::Entities | Stage::Single => self.entity(bot, mem, journal, frame).map_err(Stop::Shortage),
            Stage::Credentials => {
                let mut table = Table::new(&mut self.credentials, mem.credentials.reborrow());
                detail(Kind::Credential, self.account.1, &mut table, mem.element, mem.scratch, journal, frame);
                Ok(())
            }
            Stage::Sensors => {
                let mut table = Table::new(&mut self.sensors, mem.sensors.reborrow());
                detail(Kind::Sensor, self.account.1, &mut table, mem.element, mem.scratch, journal, frame);
                Ok(())
            }
            Stage::Idle | Stage::MakeJobs | Stage::Commit => Ok(()),
        }
    }

    fn answer<B: Bot, L>(
        &mut self,
        bot: &B,
        mem: &mut ConfigMem<'_, B, L>,
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

    fn account<B: Bot, L>(
        &mut self,
        settings: &ConfigSettings,
        mem: &mut ConfigMem<'_, B, L>,
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
                    journal.fault(Fault { account: 0, entity: 0, item: (Kind::Account, 0), kind });
                }
                return Ok(());
            }
        };
        self.seen_accounts += 1;
        if settings.account.is_some_and(|only| only != id) {
            return Ok(());
        }
        match table.stage(AccountKey(id), AccountRecord::default(), |_, _| true) {
            Ok(_) => Ok(()),
            Err(error) => {
                let fault = Fault { account: id, entity: 0, item: (Kind::Account, 0), kind: FaultKind::Duplicate };
                self.no_room(error, fault, Kind::Account, journal)
            }
        }
    }

    /// Something was not staged: a shortage if its table can grow, else a fault.
    fn no_room(&self, error: StageError, fault: Fault, of: Kind, journal: &mut Journal<'_>) -> Result<(), Kind> {
        let kind = match error {
            StageError::Duplicate => FaultKind::Duplicate,
            _ if self.can_grow(of) => return Err(of),
            StageError::Capacity { capacity } => FaultKind::Capacity { of, capacity },
            // Kept as it was: told only if no further refresh follows.
            StageError::NoSpare => return Ok(()),
        };
        journal.fault(Fault { kind, ..fault });
        Ok(())
    }

    fn entity<B: Bot, L: LinkList>(
        &mut self,
        bot: &B,
        mem: &mut ConfigMem<'_, B, L>,
        journal: &mut Journal<'_>,
        frame: Frame,
    ) -> Result<(), Kind> {
        let account = self.account.1;
        let (bytes, whole) = bytes_of(frame, mem.element);
        let fault = |id: u64, kind| Fault { account, entity: id, item: (Kind::Entity, 0), kind };
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
        let head = match EntityHead::read(bytes) {
            Ok(head) => head,
            Err(error) => {
                journal.fault(fault(first_id(bytes).unwrap_or(0), FaultKind::Malformed(error)));
                return Ok(());
            }
        };
        if !head.is_device {
            return Ok(());
        }
        if head.protocols.is_none() && self.stage == Stage::Entities {
            self.legacy = true;
            self.remember_single(head.id);
            return Ok(());
        }
        let key = ItemKey { account, id: head.id };
        let entry = match head.protocol(bytes, bot.protocol().unwrap_or("")) {
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
            let about = Fault { account, entity: head.id, item: (Kind::Sensor, id), kind: FaultKind::Duplicate };
            if let Err(error) = interval.checked() {
                journal.fault(Fault { kind: FaultKind::Interval(error), ..about });
                return;
            }
            link_in(&mut links, Link { id, sensor: NONE, interval }, about, journal);
        });
        if let Err(error) = read {
            journal.fault(fault(head.id, FaultKind::Malformed(error)));
            return Ok(());
        }
        if count == 0 {
            return Ok(());
        }
        for link in links.as_slice() {
            set = set.wrapping_add(Fnv1a64::new().u64(link.id).u64(link.interval.bits()).finish());
        }
        let details = head.details.of(bytes);
        let mut name_hash = Fnv1a64::new();
        if let Some(name) = head.name {
            for c in name.chars().map_while(Result::ok) {
                name_hash = name_hash.bytes(&u32::from(c).to_le_bytes());
            }
        }
        let hash = name_hash.u64(head.parent).u64(credential_id).u64(set).bytes(details).finish();

        let entities = Table::new(&mut self.entities, mem.entities.reborrow());
        let found = entities.find(&key);
        if let Some(i) = found {
            if entities.is_named(i) {
                journal.fault(fault(head.id, FaultKind::Duplicate));
                return Ok(());
            }
            if entities.get(i).is_some_and(|e| e.hash == hash) {
                self.keep_entity(mem, key);
                return Ok(());
            }
        }
        let decoded = if details.is_empty() { b"{}" } else { details };
        let details: B::Entity = match json::from_slice(decoded, mem.scratch) {
            Ok(details) => details,
            Err(error) => {
                let error = DetailsError::from(&error);
                journal.fault(fault(head.id, FaultKind::Details(error)));
                if error.beyond_bounds {
                    self.keep_entity(mem, key);
                }
                return Ok(());
            }
        };
        let name = match head.name {
            Some(name) => B::Name::keep(name.to_str(mem.scratch).unwrap_or_default()),
            None => B::Name::keep(""),
        };

        // Its credential and sensors get their places; their details come with later lists.
        let mut credentials = Table::new(&mut self.credentials, mem.credentials.reborrow());
        let credential = match place(&mut credentials, ItemKey { account, id: credential_id }) {
            Ok(i) => i,
            Err(error) => {
                let about = Fault { item: (Kind::Credential, credential_id), ..fault(head.id, FaultKind::Missing) };
                self.no_room(error, about, Kind::Credential, journal)?;
                if error == StageError::NoSpare {
                    self.keep_entity(mem, key);
                }
                return Ok(());
            }
        };
        let mut complete = true;
        let mut placed = L::new();
        for link in links.as_slice() {
            let mut sensors = Table::new(&mut self.sensors, mem.sensors.reborrow());
            match place(&mut sensors, ItemKey { account, id: link.id }) {
                Ok(sensor) => {
                    let at = placed.as_slice().len();
                    let _ = placed.insert(at, Link { sensor, ..*link });
                }
                Err(error) => {
                    complete = false;
                    let about = Fault { item: (Kind::Sensor, link.id), ..fault(head.id, FaultKind::Missing) };
                    self.no_room(error, about, Kind::Sensor, journal)?;
                }
            }
        }
        // One that lacks a sensor for want of room must not look unchanged next time.
        let hash = if complete { hash } else { !hash };
        let record = EntityRecord { hash, name, parent: head.parent, details, credential, links: placed };
        let mut entities = Table::new(&mut self.entities, mem.entities.reborrow());
        let staged = match found {
            None => entities.stage_new(key, record),
            Some(i) => entities.stage_change(i, record).map(|()| i),
        };
        match staged {
            Ok(i) => self.met(i),
            Err(error) => {
                self.no_room(error, fault(head.id, FaultKind::Duplicate), Kind::Entity, journal)?;
                self.keep_entity(mem, key);
            }
        }
        Ok(())
    }

    /// An entity stays as it is, with all that it names.
    fn keep_entity<B: Bot, L: LinkList>(&mut self, mem: &mut ConfigMem<'_, B, L>, key: ItemKey) {
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
        self.met(i);
    }

    fn met(&mut self, index: u32) {
        self.range = (self.range.0.min(index), self.range.1.max(index.saturating_add(1)));
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
    pub fn end<B: Bot, L: LinkList>(
        &mut self,
        bot: &B,
        settings: &ConfigSettings,
        mem: &mut ConfigMem<'_, B, L>,
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
            Stage::Status => {
                self.enter(Stage::Profile);
                Step::Request
            }
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
                self.cursor = (self.range.0, 0);
                self.go_to_work(Stage::MakeJobs)
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

    fn go_to_accounts<B: Bot, L>(&mut self, mem: &mut ConfigMem<'_, B, L>) -> Step {
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

    fn accounts_read<B: Bot, L>(
        &mut self,
        bot: &B,
        settings: &ConfigSettings,
        mem: &mut ConfigMem<'_, B, L>,
        journal: &mut Journal<'_>,
    ) -> Step {
        let seen = self.seen_accounts as usize;
        let mut accounts = Table::new(&mut self.accounts, mem.accounts.reborrow());
        let capacity = accounts.capacity();
        accounts.commit(
            |_| false,
            |_, key, change| {
                if let Change::Refused(_) = change {
                    let kind = FaultKind::Capacity { of: Kind::Account, capacity };
                    journal.fault(Fault { account: key.0, entity: 0, item: (Kind::Account, 0), kind });
                }
            },
        );
        if let Some(account) = settings.account
            && accounts.is_empty()
        {
            return self.abort_with(RefreshError::NoSuchAccount { account });
        }
        if bot.protocol().is_none() {
            let only = accounts.iter().map(|(_, key, _)| key.0).next();
            return match only.filter(|_| seen == 1) {
                Some(account) => self.own(journal, account),
                None => self.abort_with(RefreshError::WhichAccount { seen }),
            };
        }
        for i in 0..accounts.upper_index() {
            if let Some(record) = accounts.get_mut(i) {
                record.done = false;
            }
        }
        self.account = (NONE, 0);
        self.next_account(mem)
    }

    fn next_account<B: Bot, L>(&mut self, mem: &mut ConfigMem<'_, B, L>) -> Step {
        let accounts = Table::new(&mut self.accounts, mem.accounts.reborrow());
        let from = self.account.0.wrapping_add(1);
        let next = (from..accounts.upper_index()).find(|i| accounts.is_live(*i));
        let found = next.and_then(|i| Some((i, accounts.key(i)?.0)));
        self.range = (NONE, 0);
        match found {
            Some(account) => {
                self.account = account;
                self.summary.accounts += 1;
                self.enter(Stage::Entities);
                self.singles.clear();
                self.singles_after = 0;
                self.legacy = false;
                Step::Request
            }
            None => self.go_to_work(Stage::Commit),
        }
    }

    fn request_failed<B: Bot, L: LinkList>(
        &mut self,
        bot: &B,
        mem: &mut ConfigMem<'_, B, L>,
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
        let kind = FaultKind::AccountFailed(error);
        journal.fault(Fault { account: self.account.1, entity: 0, item: (Kind::Account, 0), kind });
        self.next_account(mem)
    }

    fn fail<B: Bot, L>(&mut self, _bot: &B, mem: &mut ConfigMem<'_, B, L>, error: RefreshError) -> Step {
        Table::new(&mut self.accounts, mem.accounts.reborrow()).abort();
        self.abort_with(error)
    }

    /// What there is to do without the backend: making jobs, and the commit. `Ok(None)`: a further request is next;
    /// `Ok(Some)`: the refresh has ended.
    ///
    /// # Errors
    /// A table is too small: see [`Stop::Shortage`].
    pub fn work<B: Bot, L: LinkList>(
        &mut self,
        bot: &B,
        mem: &mut ConfigMem<'_, B, L>,
        jobs: &mut JobsState,
        journal: &mut Journal<'_>,
        now: Millis,
        on: &mut dyn FnMut(&JobEvent),
    ) -> Result<Option<RefreshSummary>, Kind> {
        if self.stage == Stage::MakeJobs {
            self.make_jobs(bot, mem, jobs, journal)?;
            let mut accounts = Table::new(&mut self.accounts, mem.accounts.reborrow());
            if let Some(record) = accounts.get_mut(self.account.0) {
                record.done = true;
            }
            self.next_account(mem);
        }
        if self.stage == Stage::Commit {
            if let Some(account) = self.own_account {
                let mut sink = self.sink(mem.jobs.reborrow(), jobs, journal.reborrow(), (account, 0, NONE));
                bot.own_jobs(account, &mut sink);
                let (shortage, done) = (sink.shortage, sink.done);
                if let Some(kind) = shortage {
                    self.cursor.1 = done;
                    return Err(kind);
                }
            }
            return Ok(Some(self.commit(mem, jobs, journal, now, on)));
        }
        Ok(None)
    }

    /// Takes the jobs made for (account, entity, index of the entity).
    fn sink<'s, J: PartialEq>(
        &self,
        mem: JobsMem<'s, Made<J>>,
        jobs: &'s mut JobsState,
        journal: Journal<'s>,
        (account, entity, index): (u64, u64, u32),
    ) -> Sink<'s, J> {
        let (table, skip) = (JobTable::new(jobs, mem), self.cursor.1);
        Sink { table, journal, fixed: self.fixed, account, entity, index, skip, done: 0, shortage: None }
    }

    fn make_jobs<B: Bot, L: LinkList>(
        &mut self,
        bot: &B,
        mem: &mut ConfigMem<'_, B, L>,
        jobs: &mut JobsState,
        journal: &mut Journal<'_>,
    ) -> Result<(), Kind> {
        let account = self.account.1;
        while self.cursor.0 < self.range.1 {
            let i = self.cursor.0;
            let entities = mem.entities.reader();
            let key = entities.key(i).copied().filter(|k| k.account == account && entities.is_named(i));
            if let (Some(key), Some(record)) = (key, entities.staged(i)) {
                let (credentials, sensors) = (mem.credentials.reader(), mem.sensors.reader());
                if self.cursor.1 == 0 {
                    self.summary.entities += 1;
                    sensors_at_fault(key, record.links.as_slice(), sensors, journal);
                }
                match view::<B, L>(key, record, credentials, sensors, false) {
                    Some(view) => {
                        let place = (account, key.id, i);
                        let mut sink = self.sink(mem.jobs.reborrow(), jobs, journal.reborrow(), place);
                        bot.entity_jobs(&view, &mut sink);
                        if let Some(kind) = sink.shortage {
                            self.cursor.1 = sink.done;
                            return Err(kind);
                        }
                    }
                    None => {
                        let id = credentials.key(record.credential).map_or(0, |k| k.id);
                        let (item, kind) = ((Kind::Credential, id), FaultKind::Missing);
                        journal.fault(Fault { account, entity: key.id, item, kind });
                    }
                }
            }
            self.cursor = (i + 1, 0);
        }
        let list = Listed::<B, L> {
            account,
            range: self.range,
            entities: mem.entities.reader(),
            credentials: mem.credentials.reader(),
            sensors: mem.sensors.reader(),
        };
        let mut sink = self.sink(mem.jobs.reborrow(), jobs, journal.reborrow(), (account, 0, NONE));
        bot.account_jobs(&AccountView { account, entities: &list }, &mut sink);
        let (shortage, done) = (sink.shortage, sink.done);
        match shortage {
            Some(kind) => {
                self.cursor.1 = done;
                Err(kind)
            }
            None => {
                self.cursor = (0, 0);
                Ok(())
            }
        }
    }

    fn commit<B: Bot, L: LinkList>(
        &mut self,
        mem: &mut ConfigMem<'_, B, L>,
        jobs: &mut JobsState,
        journal: &mut Journal<'_>,
        now: Millis,
        on: &mut dyn FnMut(&JobEvent),
    ) -> RefreshSummary {
        let accounts = Table::new(&mut self.accounts, mem.accounts.reborrow());
        let failed = |account: u64| {
            let record = accounts.find(&AccountKey(account)).and_then(|i| accounts.get(i));
            record.is_some_and(|r| !r.done)
        };
        let mut deferred = 0;
        let mut changed = false;
        let mut add = |c: Committed| {
            deferred += c.deferred;
            changed |= c.changed_anything();
        };
        let mut entities = Table::new(&mut self.entities, mem.entities.reborrow());
        let capacity = entities.capacity();
        add(entities.commit(failed, |_, key, change| {
            if let Change::Refused(_) = change {
                let kind = FaultKind::Capacity { of: Kind::Entity, capacity };
                journal.fault(Fault { account: key.account, entity: key.id, item: (Kind::Entity, 0), kind });
            }
        }));
        add(commit_details(Kind::Credential, &mut self.credentials, mem.credentials.reborrow(), failed, journal));
        add(commit_details(Kind::Sensor, &mut self.sensors, mem.sensors.reborrow(), failed, journal));
        let mut table = JobTable::new(jobs, mem.jobs.reborrow());
        let committed = table.commit(now, failed, |event| {
            if let JobEvent::Refused(error) = event {
                job_fault(error, journal);
            }
            on(&event);
        });
        add(committed);
        journal.commit(|fault| failed(fault.account));
        self.summary.jobs = u32::try_from(table.len()).unwrap_or(u32::MAX);
        self.summary.committed = Committed { deferred, ..committed };
        if changed && !committed.changed_anything() && deferred > 0 {
            // Details changed only: what was deferred follows all the same.
            self.summary.committed.changed += 1;
        }
        self.summary.faults = journal.count();
        self.summary.took_ms = now.since(self.started);
        self.enter(Stage::Idle);
        self.summary
    }

    /// The entity of a job as it is now.
    pub fn entity_of<'m, B: Bot, L: LinkList>(
        &self,
        mem: &'m ConfigMem<'_, B, L>,
        job: &JobKey,
        index: u32,
    ) -> Option<EntityView<'m, B>> {
        let entities = mem.entities.reader();
        let key = *entities.key(index)?;
        if key.account != job.account || key.id != job.entity {
            return None;
        }
        view::<B, L>(key, entities.get(index)?, mem.credentials.reader(), mem.sensors.reader(), true)
    }
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
fn place<D>(table: &mut Table<'_, ItemKey, DetailRecord<D>>, key: ItemKey) -> Result<u32, StageError> {
    match table.find(&key) {
        Some(i) => {
            table.keep(i);
            Ok(i)
        }
        None => table.stage_new(key, DetailRecord::UNREAD),
    }
}

/// One credential or sensor of its list.
fn detail<D: serde::de::DeserializeOwned>(
    of: Kind,
    account: u64,
    table: &mut Table<'_, ItemKey, DetailRecord<D>>,
    element: &[u8],
    scratch: &mut [u8],
    journal: &mut Journal<'_>,
    frame: Frame,
) {
    let (bytes, whole) = bytes_of(frame, element);
    let Some(id) = first_id(bytes).or_else(|| DetailHead::read(bytes).ok().map(|h| h.id)) else {
        let kind = unreadable(frame, element.len())
            .or_else(|| DetailHead::read(bytes).err().map(FaultKind::Malformed));
        if let Some(kind) = kind {
            journal.fault(Fault { account, entity: 0, item: (of, 0), kind });
        }
        return;
    };
    // One that no kept entity names is skipped, whatever is in it.
    let Some(i) = table.find(&ItemKey { account, id }).filter(|i| table.is_named(*i)) else { return };
    let fault = |kind| Fault { account, entity: 0, item: (of, id), kind };
    if !whole {
        if let Some(kind) = unreadable(frame, element.len()) {
            journal.fault(fault(kind));
        }
        return;
    }
    let hash = Fnv1a64::of(bytes);
    if table.staged(i).is_some_and(|r| r.hash == hash && r.details.is_some()) {
        return;
    }
    let record = match DetailHead::read(bytes) {
        Ok(head) => {
            let details = head.details.of(bytes);
            let details = if details.is_empty() { b"{}" } else { details };
            match json::from_slice(details, scratch) {
                Ok(details) => DetailRecord { hash, default_interval: head.default_interval, details: Some(details) },
                Err(error) => {
                    let error = DetailsError::from(&error);
                    journal.fault(fault(FaultKind::Details(error)));
                    if error.beyond_bounds {
                        return;
                    }
                    DetailRecord { hash, ..DetailRecord::UNREAD }
                }
            }
        }
        Err(error) => {
            journal.fault(fault(FaultKind::Malformed(error)));
            DetailRecord { hash, ..DetailRecord::UNREAD }
        }
    };
    if let Some(staged) = table.staged_mut(i) {
        if staged.hash == 0 {
            *staged = record;
        } else {
            journal.fault(fault(FaultKind::Duplicate));
        }
    } else {
        // Without spare room it keeps its old state until a further refresh.
        let _ = table.stage_change(i, record);
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
            journal.fault(Fault { account: key.account, entity: 0, item: (of, key.id), kind });
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
    for link in links {
        let record = sensors.staged(link.sensor).filter(|r| r.details.is_some());
        let kind = match record {
            None => FaultKind::Missing,
            Some(record) => match link.interval.or(record.default_interval).checked() {
                Err(error) => FaultKind::Interval(error),
                Ok(_) => continue,
            },
        };
        journal.fault(Fault { account: entity.account, entity: entity.id, item: (Kind::Sensor, link.id), kind });
    }
}

fn job_fault(error: InsertError, journal: &mut Journal<'_>) {
    let (key, kind) = match error {
        InsertError::NoIntervals { key } => (key, FaultKind::NoIntervals),
        InsertError::Duplicate { key, .. } => (key, FaultKind::Duplicate),
        InsertError::Jobs { key, capacity } => (key, FaultKind::Capacity { of: Kind::Job, capacity }),
        InsertError::Entries { key, capacity } => (key, FaultKind::Capacity { of: Kind::IntervalEntry, capacity }),
        InsertError::DistinctIntervals { key, capacity, .. } => {
            (key, FaultKind::Capacity { of: Kind::DistinctInterval, capacity })
        }
        InsertError::NoSpare { key } => (key, FaultKind::Deferred),
    };
    journal.fault(Fault { account: key.account, entity: key.entity, item: (Kind::Job, key.item), kind });
}

/// Takes the jobs of one entity, or of one account.
struct Sink<'a, J> {
    table: JobTable<'a, Made<J>>,
    journal: Journal<'a>,
    fixed: u8,
    account: u64,
    entity: u64,
    index: u32,
    /// Jobs taken before a table was grown.
    skip: u32,
    done: u32,
    shortage: Option<Kind>,
}

impl<J: PartialEq> JobSink<J> for Sink<'_, J> {
    fn add(&mut self, job: NewJob<J>) {
        if self.shortage.is_some() {
            return;
        }
        if self.done < self.skip {
            self.done += 1;
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
        if let Err(error) = self.table.upsert(spec) {
            let of = match error {
                InsertError::Jobs { .. } | InsertError::NoSpare { .. } => Some(Kind::Job),
                InsertError::Entries { .. } => Some(Kind::IntervalEntry),
                InsertError::DistinctIntervals { .. } => Some(Kind::DistinctInterval),
                _ => None,
            };
            if let Some(of) = of
                && self.fixed & (1 << of as u8) == 0
            {
                self.shortage = Some(of);
                return;
            }
            if !matches!(error, InsertError::NoSpare { .. }) {
                job_fault(error, &mut self.journal);
            }
        }
        self.done += 1;
    }

    fn refuse(&mut self, why: &'static str) {
        let (account, entity, kind) = (self.account, self.entity, FaultKind::Refused(why));
        self.journal.fault(Fault { account, entity, item: (Kind::Entity, 0), kind });
    }

    fn leave_out(&mut self, sensor: u64, why: TooManyIntervals) {
        let (account, entity, kind) = (self.account, self.entity, FaultKind::NinthInterval(why.0));
        self.journal.fault(Fault { account, entity, item: (Kind::Sensor, sensor), kind });
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
            let key = *self.entities.key(i).filter(|k| k.account == self.account && self.entities.is_named(i))?;
            Some((i, view::<B, L>(key, self.entities.staged(i)?, self.credentials, self.sensors, false)?))
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
                } else if key == "protocol" && !reader.null()? {
                    let own = reader.text()?;
                    profile.other_protocol = protocol.is_some_and(|p| !(own == *p));
                } else if key != "protocol" {
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

impl<J> JobsMem<'_, J> {
    /// The same memory, for a shorter time.
    pub fn reborrow(&mut self) -> JobsMem<'_, J> {
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

impl RawInterval {
    /// As a number that tells it from others.
    const fn bits(self) -> u64 {
        self.raw() as u32 as u64
    }
}
