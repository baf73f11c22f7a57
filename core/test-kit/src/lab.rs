//! A bot under test: the real collector, the backend's answers, and a driver on simulated time.

use core::fmt::{self, Display};
use core::future::Future;
use core::ops::{Range, RangeInclusive};
use core::pin::Pin;
use core::task::{Context as TaskContext, Poll, Waker};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;
use std::thread::ThreadId;

use grafolean_core::api::Token;
use grafolean_core::bot::Bot;
use grafolean_core::collector::{
    Action, BodyStatus, Collector, RequestError, RequestId, ResponseHead, Settings,
};
use grafolean_core::context::{Lender, RunContext};
use grafolean_core::jobs::{Due, JobKey, RunId};
use grafolean_core::journal::{Event, RefreshError, RefreshSummary};
use grafolean_core::outbox::{Ledger, OutboxEvent};
use grafolean_core::random::SplitMix64;
use grafolean_core::storage::Storage;
use grafolean_stand_in::{
    Account, Backend, Credential as BackendCredential, Entity, EntityProtocol, EntitySensor, Json,
    Permission, ReplyBody, Request, Sensor as BackendSensor,
};

use crate::answer::{Answer, Misbehaviour, SILENCE_LIMIT_MS};
use crate::clock::{self, Clock};
use crate::device::{Credential, Device, Sensor};
use crate::memory::Memory;
use crate::record::{HandedOver, Job, Outcome, Run, Sent, Stored, Told};
use crate::shared::Shared;

/// The account that a lab's devices and values belong to, unless told otherwise.
pub const ACCOUNT: u64 = 1;
/// The bot's own user id.
pub const BOT: u64 = 71;
/// The environment variable that sets the seed of labs that are given none.
pub const SEED_VARIABLE: &str = "GRAFOLEAN_TEST_SEED";

const TOKEN: &str = "3bfae491-8c49-42ca-8332-0ae431d59014";
/// So often something may happen at one instant before it counts as a run that never waits.
const STEPS_AT_ONCE: u32 = 100_000;
/// Bodies of answers arrive in pieces of this many bytes.
const PIECE_BYTES: usize = 1460;
const DAY_MS: u64 = 86_400_000;

/// How a lab is made, where [`Lab::new`] is not enough.
///
/// ```no_run
/// # use grafolean_core::bot::{Anything, Bot, Context}; use grafolean_core::jobs::Due;
/// # struct Thermo; impl Bot for Thermo { type Name = (); type Entity = Anything; type Credential = Anything;
/// # type Sensor = Anything; type Job = (); type Error = &'static str; fn protocol(&self) -> Option<&str> { None }
/// # async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, _: &mut C) -> Result<(), &'static str> { Ok(()) } }
/// use grafolean_test::Setup;
/// grafolean_core::inline_storage! {
///     struct Small for Thermo {
///         accounts: 1, entities: 4, links: 2, credentials: 4, sensors: 4, jobs: 4, spare: 1, intervals: 8,
///         distinct_intervals: 4, runs: 1, cells: 64, element: 1024, scratch: 128, listing: 0, states: 0, faults: 8, events: 8,
///     }
/// }
/// let lab = Setup::board().settings(|s| s.refresh_interval_s = 600).lab_with(Small::new(), |_clock| Thermo);
/// # let _ = lab;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Setup {
    settings: Settings,
    board: bool,
    start_unix_ms: u64,
    seed: Option<u64>,
}

impl Setup {
    /// A host: the system's clock is right, and monotonic time is Unix time, as with `grafolean-std`.
    pub fn host() -> Self {
        let Ok(token) = Token::parse(TOKEN) else { unreachable!("the kit's token is a UUID") };
        Setup {
            settings: Settings::host(token, "/api"),
            board: false,
            // 2026-01-01T00:00:00Z, on all grids of up to a day.
            start_unix_ms: 1_767_225_600_000,
            seed: None,
        }
    }

    /// A board: monotonic time begins at 0, the collector learns the wall clock's from the backend's answers, one request at a
    /// time, first runs are spread widely. Its small memory: [`Setup::lab_with`].
    pub fn board() -> Self {
        let setup = Self::host();
        Setup { settings: Settings::board(setup.settings.token, "/api"), board: true, ..setup }
    }

    /// Changes the collector's settings.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Begins at this Unix time instead of the beginning of 2026.
    pub fn start_unix_s(self, seconds: u64) -> Self {
        Setup { start_unix_ms: seconds.saturating_mul(1000), ..self }
    }

    /// With this seed of all randomness (jitter, ids that the backend chooses, latency) instead of the one of [`SEED_VARIABLE`].
    pub fn seed(self, seed: u64) -> Self {
        Setup { seed: Some(seed), ..self }
    }

    /// The lab of this bot, with growing memory. The clock is for the bot's drivers.
    pub fn lab<B: Bot + 'static>(self, bot: impl FnOnce(&Clock) -> B) -> Lab<B> {
        self.lab_with(Memory::host(), bot)
    }

    /// The lab of this bot, with this memory, for example of [`grafolean_core::inline_storage!`].
    ///
    /// # Panics
    /// If [`SEED_VARIABLE`] is no number.
    pub fn lab_with<B: Bot + 'static, S: Storage<B> + 'static>(
        self,
        storage: S,
        bot: impl FnOnce(&Clock) -> B,
    ) -> Lab<B, S> {
        let seed = self.seed.unwrap_or_else(|| match std::env::var(SEED_VARIABLE) {
            Ok(text) => match text.trim().parse() {
                Ok(seed) => seed,
                Err(error) => panic!("{SEED_VARIABLE}={text:?} is no seed: {error}"),
            },
            Err(_) => 1,
        });
        println!("{SEED_VARIABLE}={seed}");
        let mut settings = self.settings;
        settings.seed = seed;
        settings.outbox.seed = seed;
        let clock = Clock::new(if self.board { 0 } else { self.start_unix_ms }, self.start_unix_ms);
        let bot = bot(&clock);
        let backend = backend(bot.protocol(), seed);
        let shared = Shared::new(Collector::new(settings, storage), clock.clone(), !self.board);
        Lab {
            bot: Rc::new(bot),
            shared: Rc::new(shared),
            clock,
            backend,
            random: SplitMix64::new(seed),
            next_id: 1000,
            latency_ms: 0..=0,
            misbehaviour: Misbehaviour::default(),
            flights: Vec::new(),
            tasks: Vec::new(),
            held: Vec::new(),
            holds: false,
            runs: Vec::new(),
            sent: Vec::new(),
            events: Vec::new(),
            taken: 0,
            posted_ms: BTreeSet::new(),
            elsewhere: Elsewhere::default(),
        }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::host()
    }
}

/// A backend with one account and the bot: a systemwide one of its protocol, or a custom one of the account.
fn backend(protocol: Option<&str>, seed: u64) -> Backend {
    use grafolean_stand_in::{Bot, Token};
    let made = || -> Result<Backend, Box<dyn core::error::Error>> {
        let mut backend = Backend::in_memory(seed)?;
        backend.set_account(Account { id: int4(ACCOUNT), name: "Lab".to_owned() })?;
        let bot = match protocol {
            Some(protocol) => Bot::systemwide(int4(BOT), "Lab", protocol),
            None => Bot::of_account(int4(BOT), "Lab", int4(ACCOUNT), None),
        };
        backend.set_bot(bot.token(Token::new(TOKEN).ok_or("the kit's token is no UUID")?))?;
        Ok(backend)
    };
    match made() {
        Ok(backend) => backend,
        Err(error) => panic!("the lab's backend: {error}"),
    }
}

/// The backend's ids are int4.
#[track_caller]
fn int4(id: u64) -> i32 {
    match i32::try_from(id) {
        Ok(id) => id,
        Err(_) => panic!("id {id} is over the backend's limit of {}", i32::MAX),
    }
}

/// A bot under test: see the [crate's description](crate). Time passes only in calls of `run_*`, [`Lab::next_run`],
/// [`Lab::refresh`] and [`Lab::stop`]; all times are in simulated time since the lab's start.
pub struct Lab<B: Bot + 'static, S: Storage<B> + 'static = Memory<B>> {
    bot: Rc<B>,
    shared: Rc<Shared<B, S>>,
    clock: Clock,
    backend: Backend,
    random: SplitMix64,
    next_id: u64,
    latency_ms: RangeInclusive<u32>,
    pub(crate) misbehaviour: Misbehaviour,
    flights: Vec<Flight>,
    tasks: Vec<Task>,
    held: Vec<(Due, B::Job)>,
    holds: bool,
    runs: Vec<Run>,
    sent: Vec<Sent>,
    events: Vec<Told>,
    /// So many of the values handed over were taken.
    taken: usize,
    /// When the backend was given values by POST: what it stores by them has these times, in milliseconds since the start.
    pub(crate) posted_ms: BTreeSet<i64>,
    elsewhere: Elsewhere,
}

/// A run under way.
struct Task {
    due: Due,
    future: Pin<Box<dyn Future<Output = Result<(), String>>>>,
    woken: Arc<Woken>,
    /// How often it was polled at the instant of this many milliseconds.
    polls: u32,
    polled_ms: u64,
}

struct Woken {
    now: AtomicBool,
    key: JobKey,
    thread: ThreadId,
    elsewhere: Elsewhere,
}

/// The job of a run that was woken by another thread than its lab's, which simulated time cannot wait for.
type Elsewhere = Arc<Mutex<Option<JobKey>>>;

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if std::thread::current().id() != self.thread {
            *self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.key);
        }
        self.now.store(true, Ordering::Relaxed);
    }
}

/// A request under way.
struct Flight {
    id: RequestId,
    /// Its place in the record.
    sent: usize,
    answer_limit: u64,
    stage: Stage,
}

enum Stage {
    /// It arrives at the backend then, and its answer or failure this much later.
    Out { at_ms: u64, back_ms: u64, request: Request },
    /// Its answer arrives then.
    Back { at_ms: u64, head: ResponseHead, body: Body },
    /// Its failure shows then.
    Fails { at_ms: u64, error: RequestError },
    /// Its answer's body is being read.
    Open(Body),
}

struct Body {
    bytes: Vec<u8>,
    read: usize,
    /// The connection breaks after it.
    breaks: bool,
}

impl<B: Bot + 'static> Lab<B> {
    /// A lab of a bot on a host, with growing memory, whose drivers need no clock of their own (as [`Script`](crate::Script)).
    #[must_use]
    pub fn new(bot: B) -> Self {
        Setup::host().lab(|_| bot)
    }

    /// The same for a bot whose drivers keep the clock.
    #[must_use]
    pub fn of(bot: impl FnOnce(&Clock) -> B) -> Self {
        Setup::host().lab(bot)
    }
}

impl<B: Bot + 'static, S: Storage<B> + 'static> Lab<B, S> {
    /// A lab of a bot on a host with this memory, for example of [`grafolean_core::inline_storage!`].
    #[must_use]
    pub fn with_storage(storage: S, bot: B) -> Self {
        Setup::host().lab_with(storage, |_| bot)
    }

    // What is configured.

    /// The bot.
    #[must_use]
    pub fn bot(&self) -> &B {
        &self.bot
    }

    /// The clock.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// The backend, to be configured or looked at in any way that it allows.
    #[must_use]
    pub const fn backend(&mut self) -> &mut Backend {
        &mut self.backend
    }

    /// Adds a device with its credential and sensors, or replaces the one of this id: its id. The bot sees it with its next
    /// refresh.
    ///
    /// # Panics
    /// If the backend does not take it: details that are no JSON object, ids that are of nothing. If it has a credential or sensors,
    /// but neither it nor the bot has a protocol.
    #[track_caller]
    pub fn add(&mut self, device: Device) -> u64 {
        let account = device.account.unwrap_or(ACCOUNT);
        let protocol = device.protocol.or_else(|| self.bot.protocol().map(str::to_owned));
        let mut entity = Entity::device(int4(device.id), &device.name);
        entity.entity_type = device.entity_type;
        entity.parent = device.parent.map(int4);
        entity.details = json(&device.details, "details of a device");
        if let Some(protocol) = protocol {
            let credential = match device.credential {
                Credential::Default => self.new_credential(account, &protocol, "{}"),
                Credential::New(details) => self.new_credential(account, &protocol, &details),
                Credential::Known(id) => id,
            };
            let mut sensors = Vec::new();
            for sensor in device.sensors {
                let (id, interval) = match sensor {
                    Sensor::New { details, default_interval } => {
                        (self.new_sensor(account, &protocol, &details, default_interval), None)
                    }
                    Sensor::Known { id, interval } => (id, interval),
                };
                sensors.push(EntitySensor { sensor: int4(id), interval });
            }
            let bot = device.assigned.then_some(int4(BOT));
            let made = EntityProtocol { credential: int4(credential), sensors, bot };
            entity.protocols.push((protocol, made));
        } else if !device.sensors.is_empty() || !matches!(device.credential, Credential::Default) {
            panic!(
                "device {} has a credential or sensors, which are of a protocol: a custom bot has none, give Device::protocol",
                device.id
            )
        }
        self.put(account, entity)
    }

    #[track_caller]
    fn put(&mut self, account: u64, entity: Entity) -> u64 {
        let id = entity.id;
        match self.backend.set_entity(int4(account), entity) {
            Ok(id) => u64::try_from(id).unwrap_or(0),
            Err(error) => panic!("the backend does not take entity {id}: {error}"),
        }
    }

    /// Adds a credential of the bot's protocol to the first account: its id, for [`Device::credential_id`].
    ///
    /// # Panics
    /// If the details are no JSON object, or the bot has no protocol.
    #[track_caller]
    pub fn credential(&mut self, details: impl Display) -> u64 {
        let protocol = self.protocol();
        self.new_credential(ACCOUNT, &protocol, &details.to_string())
    }

    /// Adds a sensor of the bot's protocol with this default interval in seconds, if any, to the first account: its id, for
    /// [`Device::sensor_id`].
    ///
    /// # Panics
    /// If the details are no JSON object, or the bot has no protocol.
    #[track_caller]
    pub fn sensor(&mut self, details: impl Display, interval_s: impl Into<Option<i32>>) -> u64 {
        let protocol = self.protocol();
        self.new_sensor(ACCOUNT, &protocol, &details.to_string(), interval_s.into())
    }

    #[track_caller]
    fn protocol(&self) -> String {
        match self.bot.protocol() {
            Some(protocol) => protocol.to_owned(),
            None => panic!("a custom bot has no protocol, so no credentials and sensors"),
        }
    }

    #[track_caller]
    fn new_credential(&mut self, account: u64, protocol: &str, details: &str) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        let mut made = BackendCredential::new(int4(id), &format!("Credential {id}"), protocol);
        made.details = json(details, "details of a credential");
        match self.backend.set_credential(int4(account), made) {
            Ok(_) => id,
            Err(error) => panic!("the backend does not take a credential of `{protocol}`: {error}"),
        }
    }

    #[track_caller]
    fn new_sensor(&mut self, account: u64, protocol: &str, details: &str, interval_s: Option<i32>) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        let mut made = BackendSensor::new(int4(id), &format!("Sensor {id}"), protocol, interval_s);
        made.details = json(details, "details of a sensor");
        match self.backend.set_sensor(int4(account), made) {
            Ok(_) => id,
            Err(error) => panic!("the backend does not take a sensor of `{protocol}`: {error}"),
        }
    }

    /// Adds another account.
    ///
    /// # Panics
    /// If the backend does not take it.
    #[track_caller]
    pub fn add_account(&mut self, account: u64) {
        let made = Account { id: int4(account), name: format!("Account {account}") };
        if let Err(error) = self.backend.set_account(made) {
            panic!("the backend does not take account {account}: {error}")
        }
    }

    /// An entity of any account as the backend has it.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn entity(&self, id: u64) -> Entity {
        self.find(id).1
    }

    #[track_caller]
    fn find(&self, id: u64) -> (u64, Entity) {
        let accounts = self.backend.accounts();
        let found = accounts.iter().find_map(|a| Some((a.id, self.backend.entity(a.id, int4(id))?.clone())));
        match found {
            Some((account, entity)) => (u64::try_from(account).unwrap_or(0), entity),
            None => {
                let all: Vec<_> =
                    accounts.iter().flat_map(|a| self.backend.entities(a.id)).map(|e| e.id).collect();
                panic!("the backend has no entity {id}; it has {all:?}")
            }
        }
    }

    /// The entities of the first account, by ascending id.
    #[must_use]
    pub fn entities(&self) -> Vec<Entity> {
        self.backend.entities(int4(ACCOUNT))
    }

    /// Changes an entity of any account. The bot sees it with its next refresh.
    ///
    /// # Panics
    /// If there is none, or the backend does not take the change.
    #[track_caller]
    pub fn change(&mut self, id: u64, change: impl FnOnce(&mut Entity)) {
        let (account, mut entity) = self.find(id);
        change(&mut entity);
        self.put(account, entity);
    }

    /// Gives an entity of any account other details: a JSON object.
    ///
    /// # Panics
    /// If there is none, or these are no JSON object.
    #[track_caller]
    pub fn set_details(&mut self, id: u64, details: impl Display) {
        let details = json(&details.to_string(), "details of a device");
        self.change(id, |entity| entity.details = details);
    }

    /// Removes an entity of any account, and its children.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn remove(&mut self, id: u64) {
        let (account, _) = self.find(id);
        if let Err(error) = self.backend.remove_entity(int4(account), int4(id)) {
            panic!("the backend does not remove entity {id}: {error}")
        }
    }

    /// Gives the bot exactly these permissions. At first it has those that the product gives: a systemwide bot of a protocol may do
    /// anything in all accounts, a custom bot may read its account's configuration and write values.
    pub fn permissions(&mut self, permissions: impl IntoIterator<Item = Permission>) {
        let Some(bot) = self.backend.bot(int4(BOT)).cloned() else { return };
        if let Err(error) = self.backend.set_bot(bot.permissions(permissions)) {
            panic!("the backend does not take the bot's permissions: {error}")
        }
    }

    // Misbehaviour.

    /// How long requests take, in milliseconds there and back: the same each time, or by chance within a range.
    pub fn latency_ms(&mut self, ms: impl Into<LatencyMs>) {
        self.latency_ms = ms.into().0;
    }

    /// What becomes of the next request that matches, instead of the backend's own answer. Several of them take turns in their order.
    ///
    /// `which` is a method, a part of the path, or both: `"PUT values"`, `"POST"`, `"/accounts/1/sensors/"`, `""` for any. Whether
    /// there was such a request tells [`Lab::assert_all_answered`].
    ///
    /// # Panics
    /// If `which` can match no request: a method not in capitals, or one that a collector does not use; a space in the path.
    #[track_caller]
    pub fn answer_next(&mut self, which: &str, answer: Answer) {
        self.misbehaviour.add(which, answer, true);
    }

    /// What becomes of all requests that match, until [`Lab::answer_as_usual`]. The first of several counts.
    ///
    /// # Panics
    /// As [`Lab::answer_next`].
    #[track_caller]
    pub fn answer_always(&mut self, which: &str, answer: Answer) {
        self.misbehaviour.add(which, answer, false);
    }

    /// The backend behaves again: what was scripted holds no longer, outages included. What has not happened until now was in vain:
    /// [`Lab::assert_all_answered`] tells it.
    pub fn answer_as_usual(&mut self) {
        self.misbehaviour.clear();
    }

    /// There is no connection to the backend from the first until just before the second, in seconds since the start.
    ///
    /// # Panics
    /// If there is nothing between them, or all of it has passed.
    #[track_caller]
    pub fn outage_s(&mut self, seconds: Range<u64>) {
        if seconds.is_empty() {
            panic!("an outage of {seconds:?} s ends before it begins")
        }
        if seconds.end.saturating_mul(1000) <= self.now_ms() {
            panic!("an outage of {seconds:?} s since the start has passed: it is {} ms now", self.now_ms())
        }
        let ms = seconds.start.saturating_mul(1000)..seconds.end.saturating_mul(1000);
        self.misbehaviour.add_outage(ms);
    }

    // Time.

    /// Goes on for this many seconds.
    #[track_caller]
    pub fn run_for_s(&mut self, seconds: u64) {
        self.run_for_ms(seconds.saturating_mul(1000));
    }

    /// Goes on for this many milliseconds.
    #[track_caller]
    pub fn run_for_ms(&mut self, ms: u64) {
        let end_ms = self.now_ms().saturating_add(ms);
        self.go_on(end_ms, &mut |_| false);
    }

    /// Goes on until this many seconds since the start; at once if that has passed.
    #[track_caller]
    pub fn run_until_s(&mut self, seconds: u64) {
        self.go_on(seconds.saturating_mul(1000), &mut |_| false);
    }

    /// Goes on until `reached` says so, which is asked whenever something has happened.
    ///
    /// # Panics
    /// If it has not within this many seconds, telling what has happened instead.
    #[track_caller]
    pub fn run_until(&mut self, within_s: u64, mut reached: impl FnMut(&mut Self) -> bool) {
        let end_ms = self.now_ms().saturating_add(within_s.saturating_mul(1000));
        if !self.go_on(end_ms, &mut reached) {
            panic!("what was waited for has not come within {within_s} s\n{}", self.report())
        }
    }

    /// Goes on until another run has ended, or was ended: its record.
    ///
    /// # Panics
    /// If none has within two days.
    #[track_caller]
    pub fn next_run(&mut self) -> Run {
        self.next_run_that("run", |_| true)
    }

    /// Goes on until another run of a job of this name has ended, or was ended: its record.
    ///
    /// # Panics
    /// If none has within two days.
    #[track_caller]
    pub fn next_run_of(&mut self, name: &str) -> Run {
        self.next_run_that(&format!("run of a job {name:?}"), |run| run.due.key.name == name)
    }

    /// Goes on until another run for which `which` is true has ended, or was ended: its record.
    ///
    /// # Panics
    /// If none has within two days.
    #[track_caller]
    pub fn next_run_where(&mut self, which: impl FnMut(&Run) -> bool) -> Run {
        self.next_run_that("such run", which)
    }

    #[track_caller]
    fn next_run_that(&mut self, what: &str, mut which: impl FnMut(&Run) -> bool) -> Run {
        let end_ms = self.now_ms().saturating_add(2 * DAY_MS);
        let running = |(i, run): (usize, &Run)| (run.outcome == Outcome::Running).then_some(i);
        let open: Vec<usize> = self.runs.iter().enumerate().filter_map(running).collect();
        let known = self.runs.len();
        let mut last = None;
        self.go_on(end_ms, &mut |lab| {
            let candidates = open.iter().copied().chain(known..lab.runs.len());
            let mut ended =
                candidates.filter_map(|i| lab.runs.get(i)).filter(|r| r.outcome != Outcome::Running);
            // Of several that ended at the same instant, the one that began first.
            last = ended.find(|run| which(run)).cloned();
            last.is_some()
        });
        match last {
            Some(run) => run,
            None => panic!("no {what} has ended within two days\n{}", self.report()),
        }
    }

    /// Time passes, but nothing happens: the machine is suspended.
    pub fn suspend_ms(&mut self, ms: u64) {
        self.clock.advance_to(self.now_ms().saturating_add(ms));
    }

    /// Has the bot fetch its configuration now, and waits for that: what it found.
    ///
    /// # Panics
    /// If it fails, or does not end within an hour.
    #[track_caller]
    pub fn refresh(&mut self) -> RefreshSummary {
        match self.try_refresh() {
            Ok(summary) => summary,
            Err(error) => panic!("the refresh failed: {error}\n{}", self.report()),
        }
    }

    /// The same where it may fail.
    ///
    /// # Errors
    /// Those of the refresh.
    ///
    /// # Panics
    /// If it does not end within an hour.
    #[track_caller]
    pub fn try_refresh(&mut self) -> Result<RefreshSummary, RefreshError> {
        let (began_ms, seen) = (self.now_ms(), self.events.len());
        self.shared.lend(Collector::refresh_soon);
        let mut result = None;
        self.go_on(began_ms.saturating_add(3_600_000), &mut |lab| {
            result = lab.events.iter().skip(seen).find_map(|told| match told.event {
                // One that had begun before does not count.
                Event::Refreshed(summary) if told.at_ms - summary.took_ms >= began_ms => Some(Ok(summary)),
                Event::RefreshFailed { error, .. } => Some(Err(error)),
                _ => None,
            });
            result.is_some()
        });
        match result {
            Some(result) => result,
            None => panic!("no refresh has ended within an hour\n{}", self.report()),
        }
    }

    /// Tells the bot to stop, and goes on until its runs have ended and its values are delivered: false if that takes longer than
    /// this many seconds.
    #[track_caller]
    pub fn stop(&mut self, within_s: u64) -> bool {
        self.shared.lend(Collector::stop);
        let end_ms = self.now_ms().saturating_add(within_s.saturating_mul(1000));
        self.go_on(end_ms, &mut |lab| lab.shared.lend(Collector::is_finished))
    }

    // Runs by hand.

    /// From now on runs begin, but are not performed before [`Lab::release`]: to change something between the two.
    pub fn hold_runs(&mut self) {
        self.holds = true;
    }

    /// The runs that have begun and are held.
    #[must_use]
    pub fn held(&self) -> Vec<Due> {
        self.held.iter().map(|(due, _)| *due).collect()
    }

    /// Performs the runs that are held; no further one will be. Time has to pass for their end.
    pub fn release(&mut self) {
        self.holds = false;
        for (due, job) in core::mem::take(&mut self.held) {
            self.perform(due, job);
        }
    }

    // What has happened.

    /// All runs that have begun, in order.
    #[must_use]
    pub fn runs(&self) -> Vec<Run> {
        let mut runs = self.runs.clone();
        for run in runs.iter_mut().filter(|run| run.outcome == Outcome::Running) {
            run.values = self.shared.values_of(run.due.run);
        }
        runs
    }

    /// The runs that have begun of jobs of this name, in order.
    #[must_use]
    pub fn runs_of(&self, name: &str) -> Vec<Run> {
        self.runs().into_iter().filter(|run| run.due.key.name == name).collect()
    }

    /// All values that were handed over and taken, in order.
    #[must_use]
    pub fn handed_over(&self) -> Vec<HandedOver> {
        self.shared.handed_over.borrow().clone()
    }

    /// Those handed over since the last call of this, as `path=number`, in order.
    #[must_use]
    pub fn take_handed_over(&mut self) -> Vec<String> {
        let handed_over = self.shared.handed_over.borrow();
        let new = handed_over.iter().skip(self.taken).map(ToString::to_string).collect();
        self.taken = handed_over.len();
        new
    }

    /// All values that the backend has stored, by account, path and time.
    ///
    /// # Panics
    /// Never: its values lie in memory.
    #[must_use]
    pub fn values(&self) -> Vec<Stored> {
        let mut all = Vec::new();
        for account in self.backend.accounts() {
            let Ok(values) = self.backend.values(account.id) else {
                panic!("values in memory were not read")
            };
            all.extend(values.into_iter().map(|value| Stored {
                account: u64::try_from(value.account).unwrap_or(0),
                path: value.path,
                at_ms: self.at_ms(value.time_us),
                number: value.value,
            }));
        }
        all
    }

    /// The values that the backend has stored of one path of the first account: milliseconds since the start (negative if
    /// before), and the number.
    ///
    /// # Panics
    /// Never: its values lie in memory.
    #[must_use]
    pub fn series(&self, path: &str) -> Vec<(i64, f64)> {
        self.series_of(ACCOUNT, path)
    }

    /// The same of any account.
    ///
    /// # Panics
    /// Never: its values lie in memory.
    #[must_use]
    pub fn series_of(&self, account: u64, path: &str) -> Vec<(i64, f64)> {
        let Ok(values) = self.backend.values_of(int4(account), path) else {
            panic!("values in memory were not read")
        };
        values.into_iter().map(|(time_us, number)| (self.at_ms(time_us), number)).collect()
    }

    /// The newest value that the backend has stored of a path of the first account.
    #[must_use]
    pub fn value(&self, path: &str) -> Option<f64> {
        self.series(path).last().map(|(_, number)| *number)
    }

    fn at_ms(&self, time_us: i64) -> i64 {
        let unix_ms = time_us.saturating_add(500).div_euclid(1000);
        unix_ms.saturating_sub(i64::try_from(self.clock.start_unix_ms()).unwrap_or(i64::MAX))
    }

    /// All requests, in order.
    #[must_use]
    pub fn requests(&self) -> &[Sent] {
        &self.sent
    }

    /// The requests that match, as in [`Lab::answer_next`].
    ///
    /// # Panics
    /// As there.
    #[must_use]
    #[track_caller]
    pub fn requests_of(&self, which: &str) -> Vec<&Sent> {
        let which = crate::answer::Matcher::new(which);
        self.sent.iter().filter(|sent| which.matches(sent)).collect()
    }

    /// What the collector has told, in order: faults, refreshes, cancelled runs, refused values.
    #[must_use]
    pub fn events(&self) -> &[Told] {
        &self.events
    }

    /// Where every value is.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.shared.lend(|c| *c.ledger())
    }

    /// The jobs as they are planned now, by key: none before the first refresh.
    #[must_use]
    pub fn jobs(&self) -> Vec<Job> {
        let jobs: BTreeMap<_, _> = self.shared.lend(|c| {
            c.jobs(|table| {
                let job = |key| {
                    let intervals_s = table.grid(key)?.0.as_slice().to_vec();
                    Some(Job { key: *key, intervals_s, deadline_ms: table.deadline_ms(key)? })
                };
                table.iter().filter_map(|(_, key, _)| Some((*key, job(key)?))).collect()
            })
        });
        jobs.into_values().collect()
    }

    /// Lends the collector, for what the lab has no call for.
    pub fn collector<R>(&mut self, look: impl FnOnce(&mut Collector<B, S>) -> R) -> R {
        self.shared.lend(look)
    }

    // The driver.

    /// Goes on until `reached` or the end; whether it was reached.
    #[track_caller]
    fn go_on(&mut self, end_ms: u64, reached: &mut dyn FnMut(&mut Self) -> bool) -> bool {
        loop {
            self.settle();
            if reached(self) {
                return true;
            }
            match self.next_ms().filter(|next_ms| *next_ms <= end_ms) {
                Some(next_ms) => self.clock.advance_to(next_ms),
                None if self.now_ms() < end_ms => self.clock.advance_to(end_ms),
                None => return false,
            }
        }
    }

    /// When something happens next.
    #[track_caller]
    fn next_ms(&mut self) -> Option<u64> {
        let now_ms = self.now_ms();
        let wanted = self.shared.lend(Collector::poll_timeout).map(|at| self.clock.since_start_ms(at.0));
        if wanted.is_some_and(|at_ms| at_ms <= now_ms) {
            panic!("the collector wants to be called again at once, and then does nothing\n{}", self.report())
        }
        let flights = self.flights.iter().filter_map(|flight| match flight.stage {
            Stage::Out { at_ms, .. } | Stage::Back { at_ms, .. } | Stage::Fails { at_ms, .. } => Some(at_ms),
            Stage::Open(_) => None,
        });
        flights.chain(wanted).chain(self.clock.next_timer_ms()).min()
    }

    /// Does all that there is to do now.
    #[track_caller]
    fn settle(&mut self) {
        for _ in 0..STEPS_AT_ONCE {
            if let Some(hint) = self.woken_elsewhere() {
                panic!("{hint}\n{}", self.report())
            }
            // None of the three may be left out because another one did something.
            let (acts, flies, runs) = (self.act(), self.fly(), self.wake());
            self.tell();
            self.check();
            if !(acts || flies || runs) {
                return;
            }
        }
        let now_ms = self.now_ms();
        let most = self.tasks.iter().filter(|task| task.polled_ms == now_ms).max_by_key(|task| task.polls);
        match most {
            Some(Task { due, polls, .. }) => panic!(
                "it never comes to rest: a run that goes on without waiting? The {} was polled {polls} times at {now_ms} ms\n{}",
                due.key,
                self.report()
            ),
            None => panic!("it never comes to rest at {now_ms} ms\n{}", self.report()),
        }
    }

    /// What to say if a run was woken by another thread.
    pub(crate) fn woken_elsewhere(&self) -> Option<String> {
        let key = (*self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(format!(
            "the {key} was woken by another thread: simulated time does not wait for threads, so its runs end by chance; \
             let its driver work on the lab's thread, as a Script or over a Clock"
        ))
    }

    fn act(&mut self) -> bool {
        let mut acts = false;
        while let Some(action) = self.shared.lend(|c| c.poll(&self.bot)) {
            acts = true;
            match action {
                Action::Send(id) => self.send(id),
                Action::Run(due) => self.begin(due),
                Action::Cancel(run) => {
                    self.tasks.retain(|task| task.due.run != run);
                    self.held.retain(|(due, _)| due.run != run);
                    self.ended(run, Outcome::Cancelled);
                }
                _ => {}
            }
        }
        acts
    }

    fn begin(&mut self, due: Due) {
        let Some(job) = self.shared.lend(|c| c.job(due.run)) else {
            self.shared.lend(|c| c.handle_completed(due.run));
            return;
        };
        let here = self.tasks.iter().map(|task| &task.due).chain(self.held.iter().map(|(due, _)| due));
        if here.into_iter().any(|other| other.key == due.key) {
            panic!("the job {} runs twice at once\n{}", due.key, self.report())
        }
        self.runs.push(Run {
            due,
            scheduled_ms: self.clock.since_start_ms(due.scheduled.start().0),
            began_ms: self.now_ms(),
            took_ms: None,
            values: 0,
            outcome: Outcome::Running,
        });
        if self.holds {
            self.held.push((due, job));
        } else {
            self.perform(due, job);
        }
    }

    fn perform(&mut self, due: Due, job: B::Job) {
        let (bot, shared) = (Rc::clone(&self.bot), Rc::clone(&self.shared));
        let future = Box::pin(async move {
            let mut cx = RunContext::new(&*shared, &due);
            bot.perform(&job, &due, &mut cx).await.map_err(|error| error.to_string())
        });
        let woken = Woken {
            now: AtomicBool::new(true),
            key: due.key,
            thread: std::thread::current().id(),
            elsewhere: Arc::clone(&self.elsewhere),
        };
        self.tasks.push(Task { due, future, woken: Arc::new(woken), polls: 0, polled_ms: 0 });
    }

    /// Polls the runs that were woken, in the order of their begin.
    fn wake(&mut self) -> bool {
        let now_ms = self.now_ms();
        let mut any = false;
        let mut i = 0;
        while let Some(task) = self.tasks.get_mut(i) {
            if !task.woken.now.swap(false, Ordering::Relaxed) {
                i += 1;
                continue;
            }
            any = true;
            task.polls = if task.polled_ms == now_ms { task.polls.saturating_add(1) } else { 1 };
            task.polled_ms = now_ms;
            let waker = Waker::from(Arc::clone(&task.woken));
            let polled = clock::within(&self.clock, task.due.key, || {
                task.future.as_mut().poll(&mut TaskContext::from_waker(&waker))
            });
            match polled {
                Poll::Pending => i += 1,
                Poll::Ready(result) => {
                    let task = self.tasks.remove(i);
                    self.ended(task.due.run, result.map_or_else(Outcome::Failed, |()| Outcome::Done));
                }
            }
        }
        any
    }

    fn ended(&mut self, run: RunId, outcome: Outcome) {
        let now_ms = self.now_ms();
        let values = self.shared.take_values_of(run);
        if let Some(record) = self.runs.iter_mut().rev().find(|record| record.due.run == run) {
            record.took_ms = Some(now_ms - record.began_ms);
            record.values = values;
            record.outcome = outcome;
        }
        self.shared.lend(|c| c.handle_completed(run));
        self.shared.tell();
    }

    fn send(&mut self, id: RequestId) {
        let made = self.shared.lend(|c| {
            let head = c.request_head(id)?;
            let mut target = String::new();
            c.write_target(id, &mut target).ok()?;
            let mut body = vec![0; head.body_len.unwrap_or(0)];
            let mut at = 0;
            while at < body.len() {
                let n = c.request_body(id, at, body.get_mut(at..)?);
                assert!(n > 0, "the body of {} is shorter than it says: {at} bytes", head.resource);
                at += n;
            }
            Some((head, target, body))
        });
        let Some((head, target, body)) = made else { return };
        let method = head.method.as_str();
        self.sent.push(Sent {
            at_ms: self.now_ms(),
            method: method.to_owned(),
            path: head.resource.to_string(),
            body: String::from_utf8_lossy(&body).into_owned(),
            status: None,
        });
        let request = match head.body_len {
            Some(_) => Request::json(method, &target, body),
            None => Request { method: method.to_owned(), ..Request::get(&target) },
        };
        let (min, max) = (*self.latency_ms.start(), *self.latency_ms.end());
        let latency_ms = if max > min { min + self.random.below(max - min + 1) } else { min };
        let at_ms = self.now_ms() + u64::from(latency_ms / 2);
        let stage = Stage::Out { at_ms, back_ms: u64::from(latency_ms - latency_ms / 2), request };
        let sent = self.sent.len() - 1;
        self.flights.push(Flight { id, sent, answer_limit: head.answer_limit, stage });
    }

    /// Moves requests on, in the order in which they were sent.
    fn fly(&mut self) -> bool {
        let mut any = false;
        for mut flight in core::mem::take(&mut self.flights) {
            let over = loop {
                match self.stage(&mut flight) {
                    Moved::No => break false,
                    Moved::On => any = true,
                    Moved::Over => {
                        any = true;
                        break true;
                    }
                }
            };
            if !over {
                self.flights.push(flight);
            }
        }
        if any {
            // Whoever waits for an answer looks again.
            self.shared.tell();
        }
        any
    }

    fn stage(&mut self, flight: &mut Flight) -> Moved {
        let (now_ms, id) = (self.now_ms(), flight.id);
        match &mut flight.stage {
            Stage::Out { at_ms, .. } | Stage::Back { at_ms, .. } | Stage::Fails { at_ms, .. }
                if *at_ms > now_ms =>
            {
                Moved::No
            }
            Stage::Out { back_ms, request, .. } => {
                let (back_ms, request) = (*back_ms, core::mem::take(request));
                flight.stage = self.arrive(flight.sent, back_ms, &request);
                Moved::On
            }
            Stage::Back { head, body, .. } => {
                let head = *head;
                let body = core::mem::replace(body, Body { bytes: Vec::new(), read: 0, breaks: false });
                self.shared.lend(|c| c.handle_response_head(id, head));
                if let Some(sent) = self.sent.get_mut(flight.sent) {
                    sent.status = Some(head.status);
                }
                flight.stage = Stage::Open(body);
                Moved::On
            }
            Stage::Fails { error, .. } => {
                let error = *error;
                self.shared.lend(|c| c.handle_request_error(&self.bot, id, error));
                Moved::Over
            }
            Stage::Open(body) => {
                let rest = body.bytes.get(body.read..).unwrap_or_default();
                let piece = rest.get(..PIECE_BYTES).unwrap_or(rest);
                if piece.is_empty() {
                    let breaks = body.breaks;
                    self.shared.lend(|c| match breaks {
                        true => c.handle_request_error(&self.bot, id, RequestError::Lost),
                        false => c.handle_response_end(&self.bot, id),
                    });
                    return Moved::Over;
                }
                if (body.read + piece.len()) as u64 > flight.answer_limit {
                    self.shared.lend(|c| c.handle_request_error(&self.bot, id, RequestError::Lost));
                    return Moved::Over;
                }
                match self.shared.lend(|c| c.handle_response_body(&self.bot, id, piece)) {
                    BodyStatus::Unwanted => Moved::Over,
                    BodyStatus::Taken(0) => Moved::No,
                    BodyStatus::Taken(n) => {
                        body.read += n;
                        // A list that a bot reads: it takes what there is before more comes.
                        self.shared.tell();
                        Moved::On
                    }
                }
            }
        }
    }

    /// A request is at the backend.
    fn arrive(&mut self, sent: usize, back_ms: u64, request: &Request) -> Stage {
        let now_ms = self.now_ms();
        let answer = self.sent.get(sent).and_then(|sent| self.misbehaviour.of(now_ms, sent));
        let at_ms = now_ms + back_ms;
        let date_unix_s = Some(self.clock.unix_ms() / 1000);
        let fails = |at_ms, error| Stage::Fails { at_ms, error };
        match answer {
            Some(Answer::NotSent) => fails(at_ms, RequestError::NotSent),
            Some(Answer::Dropped) => fails(at_ms, RequestError::Lost),
            Some(Answer::Silence) => fails(now_ms + SILENCE_LIMIT_MS, RequestError::Lost),
            Some(Answer::Status { status, body, retry_after_ms }) => {
                let head = ResponseHead { status, date_unix_s, retry_after_ms };
                Stage::Back { at_ms, head, body: Body { bytes: body, read: 0, breaks: false } }
            }
            done @ (None | Some(Answer::Lost | Answer::Cut { .. })) => {
                let now_us = i64::try_from(self.clock.unix_ms()).unwrap_or(i64::MAX).saturating_mul(1000);
                if self
                    .sent
                    .get(sent)
                    .is_some_and(|sent| sent.method == "POST" && sent.path.contains("/values"))
                {
                    self.posted_ms.insert(i64::try_from(now_ms).unwrap_or(i64::MAX));
                }
                let reply = self.backend.answer(request, now_us);
                let mut bytes = match reply.body {
                    ReplyBody::Bytes(bytes) => bytes.to_vec(),
                    _ => Vec::new(),
                };
                let breaks = match done {
                    Some(Answer::Lost) => return fails(at_ms, RequestError::Lost),
                    Some(Answer::Cut { bytes: limit }) => {
                        bytes.truncate(limit);
                        true
                    }
                    _ => false,
                };
                let head = ResponseHead { status: reply.status, date_unix_s, retry_after_ms: None };
                Stage::Back { at_ms, head, body: Body { bytes, read: 0, breaks } }
            }
        }
    }

    /// Takes the collector's events.
    fn tell(&mut self) {
        let at_ms = self.now_ms();
        while let Some((event, path)) =
            self.shared.lend(|c| c.poll_event().map(|event| (event, c.refused_path().to_owned())))
        {
            let mut text = event.to_string();
            if matches!(event, Event::Outbox(OutboxEvent::ValueRefused { .. })) && !path.is_empty() {
                text.push_str(", path ");
                text.push_str(&path);
            }
            self.events.push(Told { at_ms, event, text });
        }
    }

    /// What must hold at every moment.
    #[track_caller]
    fn check(&self) {
        let ((running, _), ledger) = self.shared.lend(|c| (c.load(), *c.ledger()));
        if !ledger.balanced() {
            panic!("the ledger does not balance: {ledger:?}\n{}", self.report())
        }
        let here = self.tasks.len() + self.held.len();
        if running != here {
            panic!("the collector counts {running} runs under way, there are {here}\n{}", self.report())
        }
    }
}

enum Moved {
    No,
    On,
    Over,
}

#[track_caller]
fn json(text: &str, of: &str) -> Json {
    match Json::from_bytes(text.as_bytes()) {
        Ok(json) => json,
        Err(error) => panic!("{of} are no JSON: {error}"),
    }
}

/// How long requests take, in milliseconds: a number, or a range.
#[derive(Clone, Debug)]
pub struct LatencyMs(RangeInclusive<u32>);

impl From<u32> for LatencyMs {
    fn from(ms: u32) -> Self {
        LatencyMs(ms..=ms)
    }
}

impl From<RangeInclusive<u32>> for LatencyMs {
    fn from(ms: RangeInclusive<u32>) -> Self {
        LatencyMs(ms)
    }
}

impl<B: Bot + 'static, S: Storage<B> + 'static> fmt::Debug for Lab<B, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lab")
            .field("now_ms", &self.now_ms())
            .field("runs", &self.runs.len())
            .field("requests", &self.sent.len())
            .finish_non_exhaustive()
    }
}
