//! The world of a simulation: one queue of events on true time, the machine with its process, the network, the backend.

use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context as TaskContext, Poll, Waker};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use grafolean_core::api::{Method, Token};
use grafolean_core::bot::Bot;
use grafolean_core::collector::{
    Action, BodyStatus, Collector, RequestError, RequestHead, RequestId, ResponseHead, Settings,
};
use grafolean_core::context::{Lender, RunContext};
use grafolean_core::hash::Fnv1a64;
use grafolean_core::jobs::{Due, JobKey, RunId};
use grafolean_core::journal::{Event, RefreshSummary};
use grafolean_core::outbox::{DeliveryMethod, DropReason};
use grafolean_core::storage::Storage;
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_stand_in::Request;
use grafolean_std::driver::Keeper;
use grafolean_std::outbox::faulty::{self, FaultyDisk};
use grafolean_std::outbox::{OpenError, Sync, WritePolicy};
use grafolean_test::Memory;

use crate::bot::SimBot;
use crate::flash::{BoardFlash, Nor, PAGE};
use crate::machine::{Clock, Counts, Durable, Files, Kept, Process, Shared, Wants};
use crate::plan::{Act, BOARD_CELLS, Fault, Plan, Target};
use crate::random::{Purpose, Random};
use crate::schedule::Jobs;
use crate::server::{Answered, Server, TOKEN};
use crate::values::Outcome;
use crate::violation::{Invariant, Violation};
use crate::wire;

/// Unix time at the start: 2026-01-01T00:00:00Z.
const START_UNIX_MS: u64 = 1_767_225_600_000;
/// How long adapters wait for a silent backend, in milliseconds.
const SILENCE_MS: u64 = 30_000;
/// How long adapters wait for a connection, in milliseconds.
const CONNECT_MS: u64 = 10_000;
/// Answers arrive in pieces of so many bytes.
const PIECE_BYTES: usize = 1460;
/// So often something may happen at one instant.
const STEPS_AT_ONCE: u32 = 20_000;
/// How long a process that is told to stop gets for it.
const STOP_MS: u64 = 10_000;
/// Lines of the trace that are kept.
const TRACE_LINES: usize = 200;

/// What a simulation went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Simulated time, in milliseconds.
    pub simulated_ms: u64,
    /// Values handed over.
    pub values: u64,
    /// Runs begun.
    pub runs: u64,
    /// Requests sent.
    pub requests: u64,
    /// Faults that happened.
    pub faults: u64,
    /// Lives of the process.
    pub lives: u64,
    /// Values that a life found in its durable outbox.
    pub recovered: u64,
    /// Values that a life thinned out at most.
    pub thinned: u64,
    /// FNV-1a over all that happened: the same seed gives the same number, on every machine.
    pub digest: u64,
}

/// A simulation's end.
#[derive(Clone, Debug)]
#[must_use]
pub struct Report {
    /// What it went through.
    pub stats: Stats,
    /// The invariant that did not hold, if any.
    pub violation: Option<Violation>,
    /// What happened last, if it was to be traced.
    pub trace: Vec<String>,
}

grafolean_core::inline_storage! {
    struct BoardMemory for SimBot {
        accounts: 3, entities: 12, links: 6, credentials: 4, sensors: 14, jobs: 40, spare: 3, intervals: 96,
        distinct_intervals: 16, runs: 2, cells: BOARD_CELLS, element: 1024, scratch: 128, listing: 1024, states: 40,
        faults: 8, events: 8,
    }
}

grafolean_core::inline_storage! {
    struct StoredBoardMemory for SimBot {
        accounts: 3, entities: 12, links: 6, credentials: 4, sensors: 14, jobs: 40, spare: 3, intervals: 96,
        distinct_intervals: 16, runs: 2, cells: BOARD_CELLS, element: 1024, scratch: 128, listing: 1024, states: 40,
        faults: 8, events: 8, stored: 1,
    }
}

/// Memory of a kind of machine.
pub(crate) trait Room: Storage<SimBot> + Sized + 'static {
    fn make(plan: &Plan) -> Self;
    /// Runs at once.
    const RUNS: usize;
}

impl Room for BoardMemory {
    fn make(_: &Plan) -> Self {
        BoardMemory::new()
    }
    const RUNS: usize = 2;
}

impl Room for StoredBoardMemory {
    fn make(_: &Plan) -> Self {
        StoredBoardMemory::new()
    }
    const RUNS: usize = 2;
}

impl Room for Memory<SimBot> {
    fn make(plan: &Plan) -> Self {
        let mut memory = if plan.store.is_some() { Memory::new().stored() } else { Memory::new() };
        memory.cell_limit = plan.cells;
        memory
    }
    const RUNS: usize = 64;
}

/// Simulates a plan to its end, or to the first violation; with the trace of what happened last, if wanted.
pub fn simulate(plan: &Plan, trace: bool) -> Report {
    match plan.target {
        Target::Board if plan.flash.is_some() => World::<StoredBoardMemory>::run(plan, trace),
        Target::Board => World::<BoardMemory>::run(plan, trace),
        Target::Host => World::<Memory<SimBot>>::run(plan, trace),
    }
}

/// Something that happens at a certain time.
enum Happening {
    /// A request goes on, as the machine sees it.
    Flight(u64),
    /// A request arrives at the backend.
    Arrive(Box<Arrival>),
    /// The next act of the plan.
    Act(usize),
    /// The machine starts the process.
    Start,
    /// A process that was told to stop has had its time.
    StopLimit(u64),
    /// The outage ends, if it is still this one.
    OutageEnds,
    PutAgain,
    /// This account is made again.
    AccountComes(i32),
    DiskWorks,
    /// Faults end.
    Calm,
    /// By now the backlog must move and live values be fast.
    Settled,
    /// By now the backlog must be gone.
    Drained,
    /// By now the process must have stopped.
    Stopped,
}

struct Arrival {
    flight: u64,
    request: Request,
    fate: Fate,
    /// The bot has given it up, or it is a copy.
    ghost: bool,
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Fine,
    NotSent,
    Dropped,
    Lost,
    Late,
    Duplicate,
    Drip,
    Cut,
    Garbage,
    Status { code: u16, retry_after_s: Option<u64> },
    DoneBut(u16),
}

enum Step {
    Head(ResponseHead),
    Piece(Vec<u8>),
    End,
    Fails(RequestError),
}

/// How a life of the process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Killed,
    PowerCut,
    Stopped,
}

/// A request under way, as the machine sees it.
struct Flight {
    number: u64,
    id: RequestId,
    head: RequestHead,
    values: bool,
    numbers: Vec<u64>,
    /// When the collector made it.
    made_ms: u64,
    status: u16,
    validation: bool,
    /// Its target and body as far as read, until it departs.
    sending: Option<(String, Vec<u8>)>,
    steps: VecDeque<(u64, Step)>,
    taken: u64,
    /// The collector takes no more for now.
    blocked: bool,
}

type Running = Pin<Box<dyn Future<Output = Result<(), String>>>>;

struct Task {
    due: Due,
    future: Running,
    wants: Wants,
    seen: u32,
}

struct World<S: Room> {
    plan: Plan,
    clock: Rc<Clock>,
    shared: Rc<Shared>,
    bot: Rc<SimBot>,
    process: Option<Rc<Process<S>>>,
    tasks: Vec<Task>,
    flights: Vec<Flight>,
    server: Server,
    jobs: Jobs,
    /// The jobs when the last refresh had ended.
    configured: BTreeMap<JobKey, Vec<u32>>,
    queue: BTreeMap<(u64, u64), Happening>,
    queued: u64,
    suspended_until: u64,
    /// When it was suspended, and until when, one after the other.
    sleeps: Vec<(u64, u64)>,
    outage_until: u64,
    no_put_until: u64,
    disk: FaultyDisk,
    nor: Nor,
    /// The outbox of this life has found what earlier ones have left.
    begun: bool,
    /// How long the process stays away if it dies in a writing.
    dies_for: u64,
    disk_faults_until: u64,
    /// Values that this life has thinned out, and how often a file was thinned at most in all lives.
    thinned: u64,
    passes: u32,
    /// When the durable outbox wants to be called.
    keep_at: Option<u64>,
    backend_offset: i64,
    stopping: bool,
    ending: bool,
    ended: bool,
    settled_ms: u64,
    /// When an answer's byte was spoilt last: that can spoil a part of what is configured.
    flipped_ms: u64,
    settles: u64,
    /// When the process did all that there was to do last.
    settled_at_ms: u64,
    /// When the present life began.
    life_began_ms: u64,
    /// What was handed over before, and is in files, is there after a power cut too.
    synced_before_ms: u64,
    stats: Stats,
    digest: Fnv1a64,
    trace: Option<VecDeque<String>>,
}

macro_rules! trace {
    ($world:expr, $($text:tt)*) => {
        if $world.trace.is_some() {
            let text = format!($($text)*);
            $world.trace_line(text);
        }
    };
}

impl<S: Room> World<S> {
    fn run(plan: &Plan, trace: bool) -> Report {
        let clock = Rc::new(Clock::new(START_UNIX_MS, plan.target == Target::Host));
        let shared = Rc::new(Shared::default());
        {
            let mut values = shared.values.borrow_mut();
            values.start_unix_ms = START_UNIX_MS;
            values.board = plan.target == Target::Board;
            values.stored = plan.is_stored();
            values.flash = plan.flash.is_some();
            values.small_flash = plan.flash.is_some_and(|flash| flash.pages < 24);
            values.healthy = plan.healthy_disk();
            values.thins = plan.thins();
            values.max_age_ms = plan.max_age_ms;
            // Each end of a board is one.
            values.power_cuts = plan.faults.has(Fault::PowerCut) || plan.flash.is_some();
            values.clock_jumps = plan.faults.has(Fault::ClockJump)
                || plan.flash.is_some() && plan.faults.has(Fault::BackendClock);
        }
        let bot = Rc::new(SimBot::new(plan.clone(), Rc::clone(&clock), Rc::clone(&shared)));
        let server = match Server::new(plan) {
            Ok(server) => server,
            Err(found) => {
                let violation = Some(Violation { invariant: Invariant::Rest, at_ms: 0, found });
                return Report { stats: Stats::default(), violation, trace: Vec::new() };
            }
        };
        let mut world = World::<S> {
            plan: plan.clone(),
            clock,
            shared,
            bot,
            process: None,
            tasks: Vec::new(),
            flights: Vec::new(),
            server,
            jobs: Jobs::default(),
            configured: BTreeMap::new(),
            queue: BTreeMap::new(),
            queued: 0,
            suspended_until: 0,
            sleeps: Vec::new(),
            outage_until: 0,
            no_put_until: 0,
            disk: FaultyDisk::new(plan.seed),
            nor: Nor::new(plan.flash.map_or(0, |flash| flash.pages), plan.seed),
            begun: false,
            dies_for: 0,
            disk_faults_until: 0,
            thinned: 0,
            passes: 0,
            keep_at: None,
            backend_offset: 0,
            stopping: false,
            ending: false,
            ended: false,
            settled_ms: u64::MAX,
            flipped_ms: 0,
            settles: 0,
            settled_at_ms: 0,
            life_began_ms: 0,
            synced_before_ms: 0,
            stats: Stats::default(),
            digest: Fnv1a64::new(),
            trace: trace.then(VecDeque::new),
        };
        world.go();
        let mut values = world.shared.values.borrow_mut();
        let stats = Stats {
            simulated_ms: world.clock.now_ms(),
            values: values.count(),
            digest: world.digest.finish(),
            ..world.stats
        };
        let violation = values.violation.take();
        drop(values);
        Report { stats, violation, trace: world.trace.take().unwrap_or_default().into() }
    }

    fn trace_line(&mut self, text: String) {
        let now_ms = self.clock.now_ms();
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_LINES {
                trace.pop_front();
            }
            trace.push_back(format!("{:>9}.{:03} {text}", now_ms / 1000, now_ms % 1000));
        }
    }

    fn note(&mut self, what: u64, n: u64) {
        self.digest = self.digest.u64(self.clock.now_ms()).u64(what).u64(n);
    }

    fn violate(&self, invariant: Invariant, found: impl Into<String>) {
        self.shared.values.borrow_mut().violate(invariant, found.into());
    }

    fn is_violated(&self) -> bool {
        self.shared.values.borrow().violation.is_some()
    }

    fn at(&mut self, ms: u64, happening: Happening) {
        self.queued += 1;
        self.queue.insert((ms, self.queued), happening);
    }

    fn after(&mut self, ms: u64, happening: Happening) {
        self.at(self.clock.now_ms().saturating_add(ms), happening);
    }

    fn lend<R>(&self, call: impl FnOnce(&mut Collector<SimBot, S>) -> R) -> Option<R> {
        self.process.as_ref().map(|process| process.lend(call))
    }

    // Time.

    fn go(&mut self) {
        self.at(0, Happening::Start);
        for (i, (at_ms, _)) in self.plan.acts.clone().into_iter().enumerate() {
            if at_ms <= self.plan.chaos_ms {
                self.at(at_ms, Happening::Act(i));
            }
        }
        self.at(self.plan.chaos_ms, Happening::Calm);
        while !self.ended && !self.is_violated() {
            let Some(next_ms) = self.next_ms() else {
                self.violate(Invariant::Rest, "nothing happens any more");
                return;
            };
            self.clock.set_now(self.clock.now_ms().max(next_ms));
            self.shared.values.borrow_mut().set_now(self.clock.now_ms());
            while let Some(entry) = self.queue.first_entry().filter(|e| e.key().0 <= self.clock.now_ms()) {
                let happening = entry.remove();
                self.happen(happening);
                if self.ended || self.is_violated() {
                    return;
                }
            }
            if self.clock.now_ms() >= self.suspended_until {
                self.settle();
            }
        }
    }

    /// A busy machine notices late.
    fn late(&self, at_ms: u64) -> u64 {
        if self.plan.busy_ms == 0 || self.clock.calm() {
            return at_ms;
        }
        at_ms + Random::of(self.plan.seed, Purpose::Busy, at_ms).between(0, self.plan.busy_ms)
    }

    fn next_ms(&mut self) -> Option<u64> {
        let queue = self.queue.first_key_value().map(|((at_ms, _), _)| *at_ms);
        let mut machine = None;
        if let Some(timeout) = self.lend(Collector::poll_timeout) {
            let timeout = timeout.map(|at| self.clock.since_start_ms(at));
            let tasks = self.tasks.iter().filter_map(|task| task.wants.at_ms).min();
            machine =
                timeout.into_iter().chain(tasks).chain(self.keep_at).map(|at_ms| self.late(at_ms)).min();
            let now_ms = self.clock.now_ms();
            if timeout.is_some_and(|at_ms| at_ms <= now_ms) && now_ms >= self.suspended_until {
                self.violate(
                    Invariant::Rest,
                    "the collector wants to be called again at once, and then does nothing",
                );
            }
            machine = machine.map(|at_ms| at_ms.max(self.suspended_until));
        }
        queue.into_iter().chain(machine).min()
    }

    // What happens.

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Flight(number) => {
                if self.clock.now_ms() < self.suspended_until {
                    self.at(self.suspended_until, Happening::Flight(number));
                } else {
                    self.fly(number);
                }
            }
            Happening::Arrive(arrival) => self.arrive(*arrival),
            Happening::Act(i) => self.act_of_plan(i),
            Happening::Start => self.start(),
            Happening::StopLimit(life) => {
                if self.stopping && self.stats.lives == life {
                    trace!(self, "the process was given {STOP_MS} ms to stop and has not");
                    self.die(End::Stopped);
                }
            }
            Happening::OutageEnds => {}
            Happening::PutAgain => {
                if self.clock.now_ms() >= self.no_put_until {
                    self.permit_put(true);
                }
            }
            Happening::AccountComes(id) => self.account_comes(id),
            Happening::DiskWorks => {
                if self.clock.now_ms() >= self.disk_faults_until {
                    self.nor.with(|nor| nor.fail(false));
                    self.disk.set_faults(faulty::Faults::default());
                }
            }
            Happening::Calm if self.clock.now_ms() < self.suspended_until => {
                self.at(self.suspended_until, Happening::Calm);
            }
            Happening::Calm => self.calm(),
            Happening::Settled => {
                self.settled_ms = self.clock.now_ms();
                let (lanes_ms, per_request) = (self.request_ms(), self.values_per_request());
                let queued = self.lend(|c| c.ledger().queued).unwrap_or(0);
                trace!(self, "settled: {queued} values wait");
                // A value that is refused is found by halving.
                let refused = self.lend(|c| c.ledger().dropped_by(DropReason::Refused)).unwrap_or(0);
                let bad = self.shared.values.borrow().bad().saturating_sub(refused);
                let requests = queued / per_request + 2 + bad * u64::from(per_request.ilog2() + 2);
                let drain_ms = 90_000 + requests * (lanes_ms + 200) * 2;
                self.after(drain_ms, Happening::Drained);
            }
            Happening::Drained => self.drained(),
            Happening::Stopped => {
                let ledger = self.lend(|c| *c.ledger());
                self.violate(Invariant::Rest, format!("it was told to stop and has not: {ledger:?}"));
            }
        }
    }

    fn act_of_plan(&mut self, i: usize) {
        let Some((_, act)) = self.plan.acts.get(i).copied() else { return };
        if self.clock.calm() || !self.plan.faults.has(act.fault()) {
            return;
        }
        let now_ms = self.clock.now_ms();
        self.stats.faults += 1;
        trace!(self, "ACT {act:?}");
        self.note(1, i as u64);
        match act {
            Act::Outage(ms) => self.outage_until = self.outage_until.max(now_ms + ms),
            Act::ClockJump(ms) => {
                self.clock.jump(ms);
                if self.clock.has_wall {
                    self.shared.values.borrow_mut().clock_set(self.clock.ahead_ms());
                }
            }
            Act::BackendClock(ms) => {
                self.backend_offset += ms;
            }
            Act::Suspend(ms) => {
                self.suspended_until = now_ms + ms;
                self.sleeps.push((now_ms, self.suspended_until));
                // So that it wakes up then.
                self.at(self.suspended_until, Happening::OutageEnds);
            }
            Act::Kill(ms) => {
                if self.process.is_some() {
                    self.suspended_until = now_ms;
                    self.die(End::Killed);
                    self.after(ms, Happening::Start);
                }
            }
            Act::Restart(ms) => {
                if self.process.is_some() && !self.stopping {
                    self.stopping = true;
                    let _ = self.lend(Collector::stop);
                    self.after(STOP_MS, Happening::StopLimit(self.stats.lives));
                    self.after(STOP_MS + ms, Happening::Start);
                }
            }
            Act::Config(choice) => match self.server.change(choice, now_ms) {
                Ok(what) => trace!(self, "configuration: {what}"),
                Err(why) => self.violate(Invariant::Rest, why),
            },
            Act::PowerCut(ms) => {
                if self.process.is_some() {
                    self.suspended_until = now_ms;
                    self.die(End::PowerCut);
                    self.after(ms, Happening::Start);
                }
            }
            Act::DieWriting(ms) => {
                self.dies_for = ms;
                self.disk.die_in(1 + ms % 7);
                self.nor.with(|nor| match ms % 3 {
                    0 => nor.cut_erasure_after((ms / 3 % 3) as u32, (ms / 9 % 4) as u32),
                    _ => nor.cut_after(ms % 97),
                });
            }
            Act::DiskFull(ms) => {
                let capacity = Some(self.disk.bytes_used() + 500);
                self.disk.set_faults(faulty::Faults { capacity, ..faulty::Faults::default() });
                self.disk_faults_until = now_ms + ms;
                self.after(ms, Happening::DiskWorks);
            }
            Act::DiskErrors(ms) => {
                let mut r = Random::of(self.plan.seed, Purpose::Disk, i as u64);
                let mut rate = || r.pick(&[0, 0, 300, 5_000, 10_000]);
                self.nor.with(|nor| nor.fail(true));
                self.disk.set_faults(faulty::Faults {
                    write_error: rate(),
                    read_error: rate(),
                    sync_error: rate(),
                    name_error: rate(),
                    capacity: None,
                });
                self.disk_faults_until = now_ms + ms;
                self.after(ms, Happening::DiskWorks);
            }
            Act::BitFlip(choice) => {
                let bits = self.plan.flash.map_or(1, |flash| u64::from(flash.pages) * PAGE as u64 * 8);
                self.nor.with(|nor| nor.flip(choice % bits));
                let files = self.disk.files();
                let file = files.get(choice as usize % files.len().max(1));
                if let Some((file, bytes)) = file.and_then(|f| Some((f, self.disk.contents(f)?))) {
                    let bit = (choice >> 20) as usize % (bytes.len() * 8).max(1);
                    self.disk.flip_bit(file, bit / 8, (bit % 8) as u8);
                }
            }
            Act::Account(ms) => match self.server.account_goes(ms, now_ms) {
                Ok(Some(id)) => {
                    trace!(self, "account {id} goes");
                    self.shared.values.borrow_mut().account_gone(id);
                    self.after(ms, Happening::AccountComes(id));
                }
                Ok(None) => {}
                Err(why) => self.violate(Invariant::Rest, why),
            },
            Act::NoPut(ms) => {
                self.permit_put(false);
                self.no_put_until = now_ms + ms;
                self.after(ms, Happening::PutAgain);
            }
        }
    }

    fn permit_put(&mut self, put: bool) {
        if let Err(why) = self.server.set_permissions(put) {
            self.violate(Invariant::Rest, why);
        }
    }

    fn account_comes(&mut self, id: i32) {
        trace!(self, "account {id} comes");
        if let Err(why) = self.server.account_comes(id, self.clock.now_ms()) {
            self.violate(Invariant::Rest, why);
        }
    }

    /// How long a request takes at most, in milliseconds.
    fn request_ms(&self) -> u64 {
        self.plan.latency_ms.1 * 2 + 300
    }

    /// How many values a request has that is full.
    fn values_per_request(&self) -> u64 {
        let body = self.plan.front_limit.min(if self.plan.target == Target::Board { 8192 } else { 1 << 18 });
        // Those from flash come back as memory has room for them.
        let most = if self.plan.flash.is_some() { self.plan.max_values.min(8) } else { self.plan.max_values };
        u64::from(most).min(body as u64 / 2 / 180).max(1)
    }

    /// Faults end; how long it may take until nothing is felt of them any more.
    fn calm(&mut self) {
        trace!(self, "CALM: faults end");
        self.clock.set_calm();
        self.outage_until = 0;
        self.permit_put(true);
        self.server.away().into_iter().for_each(|id| self.account_comes(id));
        self.disk.set_faults(faulty::Faults::default());
        self.nor.with(|nor| {
            nor.fail(false);
            nor.power_on();
        });
        if !self.disk.is_dead() {
            // Not any more.
            self.disk.die_in(u64::MAX / 2);
        }
        if self.process.is_none() {
            self.queue.retain(|_, happening| !matches!(happening, Happening::Start));
            self.start();
        }
        let faults = self.plan.faults;
        let retry_ms = if faults.has(Fault::TooMany) { self.plan.retry_after_max_s * 1000 } else { 0 };
        let denied = faults.has(Fault::Status4xx) || faults.has(Fault::Accounts);
        let denied_ms = if denied { 600_000 } else { 0 };
        let refresh_ms = u64::from(self.plan.refresh_interval_s) * 1000;
        let waits_ms = u64::from(self.plan.backoff_max_ms).max(retry_ms).max(denied_ms).max(refresh_ms);
        let mut settle_ms = waits_ms + SILENCE_MS * 2 + 20 * self.request_ms() + STOP_MS;
        // To find a bad value takes requests; under 500 each of them three times, with waits.
        if faults.has(Fault::Invalid) {
            settle_ms += u64::from(self.plan.backoff_max_ms) + 400 * self.request_ms();
        }
        if faults.has(Fault::Odd) {
            settle_ms += 2 * (1_200_000 + 120 * self.request_ms() + u64::from(self.plan.backoff_max_ms) * 4);
        }
        self.after(settle_ms, Happening::Settled);
    }

    fn drained(&mut self) {
        self.settle();
        let now_ms = self.clock.now_ms();
        let live_ms = 4_000 + 8 * self.request_ms();
        if let Some(ledger) = self.lend(|c| *c.ledger()) {
            let fresh = self.shared.values.borrow().handed_over_since(now_ms.saturating_sub(live_ms));
            trace!(self, "drained: {ledger}; {fresh} fresh");
            if ledger.queued > fresh {
                self.violate(
                    Invariant::Drain,
                    format!(
                        "{} values wait, {fresh} of them fresh: the backlog has not drained; {ledger}",
                        ledger.queued
                    ),
                );
            }
        }
        let until_ms = now_ms.saturating_sub(live_ms);
        self.shared.values.borrow_mut().check_live(self.settled_ms, until_ms, live_ms);
        self.sync_jobs();
        let wanted = self.wanted_jobs();
        let jobs = self.jobs.table();
        if jobs != wanted {
            self.violate(
                Invariant::Jobs,
                format!("after the faults there are {jobs:?}, configured is {wanted:?}"),
            );
        }
        if self.tasks.len() < S::RUNS
            && let Err((invariant, found)) = self.jobs.at_rest(self.tick())
        {
            self.violate(invariant, found);
        }
        trace!(self, "told to stop");
        self.stopping = true;
        self.ending = true;
        let _ = self.lend(Collector::stop);
        self.after(330_000 + 20 * self.request_ms(), Happening::Stopped);
        self.settle();
    }

    fn finish(&mut self) {
        let ledger = self.lend(|c| *c.ledger()).unwrap_or_default();
        if ledger.queued > 0 {
            self.violate(Invariant::Drain, format!("it has stopped, and values wait: {ledger}"));
        }
        let rows: Vec<_> = self.server.rows().collect();
        let mut values = self.shared.values.borrow_mut();
        values.check_rows(rows.into_iter());
        values.check_thinned();
        drop(values);
        self.ended = true;
    }

    // The process.

    fn start(&mut self) {
        if self.process.is_some() {
            return;
        }
        self.clock.start();
        self.stats.lives += 1;
        self.life_began_ms = self.clock.now_ms();
        trace!(self, "the process starts, life {}", self.stats.lives);
        let Ok(token) = Token::parse(TOKEN) else { return };
        let plan = &self.plan;
        let mut settings = match plan.target {
            Target::Board => Settings::board(token, "/api"),
            Target::Host => Settings::host(token, "/api"),
        };
        settings.refresh_interval_s = plan.refresh_interval_s;
        settings.seed = plan.seed ^ self.stats.lives;
        settings.outbox.seed = plan.seed ^ self.stats.lives;
        settings.outbox.backoff_max_ms = plan.backoff_max_ms;
        settings.outbox.max_values = plan.max_values;
        settings.outbox.max_age_ms = plan.max_age_ms;
        if plan.post_only {
            settings.outbox.delivery = DeliveryMethod::PostOnly;
            self.shared.values.borrow_mut().put_denied();
        }
        let mut collector = Collector::new(settings, S::make(plan));
        collector.handle_time(Millis(self.clock.monotonic_ms()));
        let mut outbox = Durable::Nowhere;
        if let Some(store) = plan.store {
            collector.handle_system_clock(UnixMillis(self.clock.wall_ms()));
            match Keeper::open(self.disk.handle(), store, &mut collector) {
                Ok(keeper) => {
                    let random = Random::of(plan.seed, Purpose::Sync, self.stats.lives);
                    let files = Files::new(keeper, plan.sync_ms, random);
                    outbox = Durable::Files(Box::new(RefCell::new(files)));
                }
                Err(error) => {
                    trace!(self, "the process can't start: {error}");
                    if self.clock.calm() || matches!(error, OpenError::InUse) {
                        self.violate(Invariant::Storage, format!("the outbox can't be opened: {error}"));
                    }
                    // Whoever supervises it tries again.
                    self.disk.restart();
                    self.after(10_000, Happening::Start);
                    return;
                }
            }
        }
        if let Some(flash) = &plan.flash {
            match BoardFlash::new(self.nor.clone(), flash) {
                Ok(flash) => outbox = Durable::Flash(Box::new(RefCell::new(flash))),
                Err(error) => self.violate(Invariant::Storage, format!("flash can't be used: {error}")),
            }
        }
        let (clock, shared) = (Rc::clone(&self.clock), Rc::clone(&self.shared));
        let process = Rc::new(Process::new(collector, clock, shared, outbox));
        if self.plan.flash.is_some() {
            process.keep(true);
        }
        let ledger = process.lend(|c| *c.ledger());
        self.process = Some(process);
        self.note(2, self.stats.lives);
        trace!(self, "found: {ledger}");
        self.begun = !self.nor.with(|nor| nor.is_off());
        if self.begun {
            self.stats.recovered += ledger.recovered;
            self.shared.values.borrow_mut().life_begins(&ledger);
        }
        self.check_flash();
    }

    /// What the flash of a board told of. Whether the board still runs.
    fn check_flash(&mut self) -> bool {
        let told = self.process.as_ref().and_then(|p| p.flash(|flash| (flash.was_full(), flash.failed())));
        let Some((was_full, failed)) = told else { return true };
        if self.nor.with(|nor| nor.is_off()) {
            trace!(self, "the power is cut in the middle of a writing");
            self.die(End::PowerCut);
            self.after(self.dies_for, Happening::Start);
            return false;
        }
        if let (Some(error), true) = (failed, self.plan.healthy_disk()) {
            self.violate(Invariant::Storage, format!("a healthy flash fails: {error}"));
        }
        if was_full {
            self.shared.values.borrow_mut().flash_is_full();
            // Two pages are for states, one is being filled, one is free; records do not cross pages.
            let pages = u64::from(self.plan.flash.map_or(0, |flash| flash.pages));
            let (written, room) = (self.nor.with(|nor| nor.steps()) * 4, pages.saturating_sub(4) * 700);
            if written < room {
                self.violate(Invariant::Storage, format!("flash is full after {written} bytes of {room}"));
            }
        }
        true
    }

    /// The process ends, whatever it has in memory.
    fn die(&mut self, mut end: End) {
        if self.begun {
            self.check_values();
        }
        // Files may have been thinned just now, without a count.
        self.look_at_passes();
        let ledger = self.lend(|c| *c.ledger()).unwrap_or_default();
        trace!(self, "the process ends, {end:?}: {ledger}");
        if end == End::Stopped && self.process.as_ref().is_some_and(|process| !process.close()) {
            self.violate(Invariant::Ledger, "the counts of all lives do not balance");
        }
        if self.nor.with(|nor| nor.is_off()) {
            end = End::PowerCut;
        }
        if end == End::Stopped && self.plan.store.is_some() && self.disk.is_dead() {
            trace!(self, "killed in the last writing");
            end = End::Killed;
        }
        let unstored = self.lend(|c| c.oldest_unstored(Millis(u64::MAX), &mut [])).flatten();
        let unstored_ms = unstored.map(|value| self.clock.since_start_ms(value.handed_over));
        // What the store gave up at the end is counted.
        let ledger = self.lend(|c| *c.ledger()).unwrap_or(ledger);
        self.process = None;
        self.tasks.clear();
        self.flights.clear();
        match end {
            End::Killed | End::Stopped => self.disk.restart(),
            End::PowerCut => {
                // Half of them leave nothing that was not synced, the others some of it.
                let mut r = Random::of(self.plan.seed, Purpose::Disk, self.stats.lives << 32);
                if r.chance(500) {
                    self.disk.power_cut_losing_all()
                } else {
                    self.disk.power_cut()
                };
                self.nor.with(|nor| nor.power_on());
            }
        }
        let of_flash = self.plan.flash.map(|flash| match end {
            End::Stopped => 0,
            _ => u64::from(flash.settings.store_after_ms) + 300 + 2 * self.plan.busy_ms,
        });
        let now_ms = self.clock.now_ms();
        let busy_ms = self.plan.busy_ms;
        // The sync under way, and then the next one.
        let synced_ms = 2 * (self.plan.sync_ms + 2 * busy_ms);
        let unsafe_ms = self.plan.store.and_then(|store| {
            let written_ms = if store.write == WritePolicy::First { 0 } else { 1_000 };
            let until_synced_ms = match store.sync {
                Sync::Never => u64::MAX,
                // A hand-over waits for its sync.
                Sync::Always if store.write == WritePolicy::First => busy_ms,
                Sync::Always => written_ms + busy_ms + synced_ms,
                Sync::Every { ms } => written_ms + ms + 100 + 2 * busy_ms + synced_ms,
            };
            // What a killed life has left in files without a sync has it as late as what is written after the start.
            let inherited = now_ms.saturating_sub(self.life_began_ms)
                <= until_synced_ms.saturating_add(written_ms + synced_ms);
            if !inherited {
                self.synced_before_ms = self.settled_at_ms.saturating_sub(until_synced_ms);
            }
            match end {
                End::Stopped => Some(0),
                End::Killed => Some(written_ms + busy_ms),
                End::PowerCut if store.sync == Sync::Never => None,
                End::PowerCut => Some(until_synced_ms.max(now_ms.saturating_sub(self.synced_before_ms))),
            }
        });
        if end != End::Killed {
            self.synced_before_ms = now_ms;
        }
        // A suspended machine writes nothing.
        let unsafe_ms =
            unsafe_ms.or(of_flash).map(|ms| self.awake_ms(ms + now_ms.saturating_sub(self.settled_at_ms)));
        self.jobs = Jobs::default();
        self.configured.clear();
        self.stopping = false;
        self.keep_at = None;
        let states = core::mem::take(&mut *self.shared.states.borrow_mut());
        let mut kept = self.shared.kept_states.borrow_mut();
        // So long after it changed a state is written, whatever the policy for values, and then synced as they are.
        let unwritten_ms =
            self.plan.flash.map_or(2_000, |flash| u64::from(flash.settings.states_every_ms)) + busy_ms;
        let unsynced_ms = self.plan.store.map_or(0, |store| match store.sync {
            Sync::Never => u64::MAX,
            Sync::Always => synced_ms,
            Sync::Every { ms } => ms + 100 + 2 * busy_ms + synced_ms,
        });
        let safe_before_ms = unsafe_ms
            .map(|ms| self.awake_ms(ms.saturating_add(unwritten_ms).saturating_add(unsynced_ms)))
            .map(|ms| now_ms.saturating_sub(ms));
        let unwritten_ms = self.awake_ms(unwritten_ms + now_ms.saturating_sub(self.settled_at_ms));
        let written_before_ms = now_ms.saturating_sub(unwritten_ms);
        let may_come_back = end == End::PowerCut || self.plan.flash.is_some() && end == End::Killed;
        let most_stored = self.shared.most_stored.borrow();
        let most = |key: &JobKey| most_stored.get(key).copied().unwrap_or(0);
        let of_last = |key: JobKey, stored: Counts| {
            let safe = match end {
                End::Stopped => Some(stored.last),
                End::Killed if self.plan.flash.is_none() => Some(stored.stored_at(written_before_ms)),
                End::Killed | End::PowerCut => safe_before_ms.map(|ms| stored.stored_at(ms)),
            };
            let most = if may_come_back { most(&key) } else { stored.last };
            safe.map(|safe| (key, Kept { stored, safe, most }))
        };
        // Those that did not run in this life are as they were, but what was not synced then may be gone now.
        if may_come_back {
            match safe_before_ms {
                Some(ms) => kept.iter_mut().for_each(|(key, kept)| {
                    (kept.safe, kept.most) = (kept.safe.min(kept.stored.stored_at(ms)), most(key));
                }),
                None => kept.clear(),
            }
        }
        kept.extend(states.into_iter().filter_map(|(key, stored)| of_last(key, stored)));
        drop(most_stored);
        if !self.plan.healthy_disk() {
            kept.clear();
        }
        drop(kept);
        // Of a board's values each has its record, or is none of those that the collector names for the flash.
        let stored_before_ms = unstored_ms.unwrap_or(u64::MAX);
        let stored_before_ms = (self.plan.flash.is_some() && end != End::Stopped).then_some(stored_before_ms);
        let mut values = self.shared.values.borrow_mut();
        values.life_ended(&ledger, unsafe_ms, stored_before_ms, self.begun);
        drop(values);
        self.note(3, 0);
    }

    /// How long it is since the machine has been awake for so long.
    fn awake_ms(&self, ms: u64) -> u64 {
        let now_ms = self.clock.now_ms();
        self.sleeps.iter().rev().fold(ms, |ms, &(from, until)| {
            let in_it = until.min(now_ms) > now_ms.saturating_sub(ms);
            if in_it { ms.saturating_add(until.min(now_ms).saturating_sub(from)) } else { ms }
        })
    }

    fn tick(&self) -> u64 {
        self.clock.monotonic_ms() / 1000
    }

    /// Does all that there is to do now.
    fn settle(&mut self) {
        let bot = Rc::clone(&self.bot);
        for _ in 0..STEPS_AT_ONCE {
            let Some(process) = self.process.clone() else { return };
            let mut any = false;
            while let Some(action) = process.lend(|c| c.poll(&bot)) {
                any = true;
                match action {
                    Action::Send(id) => self.send(id),
                    Action::Run(due) => self.begin(&process, due),
                    Action::Cancel(run) => self.cancel(run),
                    _ => {}
                }
                if self.is_violated() {
                    return;
                }
            }
            any |= self.poll_tasks(&process);
            any |= self.unblock();
            while let Some(event) = process.lend(|c| c.poll_event()) {
                trace!(self, "event: {event}");
                if let Event::Refreshed(summary) = event {
                    self.refreshed(&summary);
                }
            }
            if self.is_violated() {
                return;
            }
            let keep_at = process.keep(!self.stopping);
            self.keep_at = keep_at.map(|at| self.clock.since_start_ms(at));
            if self.plan.store.is_some() && self.disk.is_dead() {
                trace!(self, "killed in the middle of a writing");
                self.die(End::Killed);
                self.after(self.dies_for, Happening::Start);
                return;
            }
            if !self.check_flash() {
                return;
            }
            // Values that were given back may be sent.
            any |=
                keep_at.is_some() && process.lend(|c| c.poll_timeout()).is_some_and(|at| at <= process.now());
            if !any {
                self.settled_at_ms = self.clock.now_ms();
                self.check();
                if self.stopping && process.lend(|c| c.is_finished()) {
                    if self.ending {
                        self.finish();
                    } else {
                        self.die(End::Stopped);
                    }
                }
                return;
            }
        }
        let (ledger, at) = self.lend(|c| (*c.ledger(), c.poll_timeout())).unzip();
        let at_ms = at.flatten().map(|at| self.clock.since_start_ms(at));
        let (keep_at, parked) = (self.keep_at, self.lend(|c| c.parked()));
        self.violate(
            Invariant::Rest,
            format!("it never comes to rest: the collector waits for {at_ms:?} ms, its outbox for {keep_at:?} ms; {ledger:?}, {parked:?} parked"),
        );
    }

    /// What must hold whenever all is done.
    fn check(&mut self) {
        self.check_values();
        let Some(running) = self.lend(|c| c.load().0) else { return };
        if running != self.tasks.len() {
            let tasks = self.tasks.len();
            self.violate(
                Invariant::Jobs,
                format!("the collector counts {running} runs under way, there are {tasks}"),
            );
        }
        self.settles += 1;
        if self.settles.is_multiple_of(64) {
            self.check_files();
        }
        let looks = self.settles.is_multiple_of(16) && !self.stopping && self.tasks.len() < S::RUNS;
        if looks && let Err((invariant, found)) = self.jobs.at_rest(self.tick()) {
            self.violate(invariant, found);
        }
    }

    /// The files of values are within their bound, but for what was written since it was looked after.
    fn check_files(&mut self) {
        let fails = [Fault::DiskFull, Fault::DiskErrors].iter().any(|fault| self.plan.faults.has(*fault));
        let Some(store) = self.plan.store.filter(|_| !fails) else { return };
        let files = self.disk.files().into_iter().filter(|file| file.ends_with(".seg"));
        let bytes: usize = files.filter_map(|file| self.disk.contents(&file)).map(|bytes| bytes.len()).sum();
        // Users can ask for 64 KiB at least; below that a file of usual size is more than the bound.
        let bound = store.max_bytes.max(64 << 10);
        let limit = bound + bound / 8 + 4096;
        if bytes as u64 > limit {
            self.violate(
                Invariant::Storage,
                format!("{bytes} bytes in files, of at most {}", store.max_bytes),
            );
        }
    }

    fn check_values(&mut self) {
        let Some((ledger, parked)) = self.lend(|c| (*c.ledger(), c.parked())) else { return };
        let (cells, max_age_ms) = (self.plan.cells, self.plan.max_age_ms);
        let thinned = ledger.dropped_by(DropReason::Thinned);
        if thinned != self.thinned {
            self.thinned = thinned;
            self.look_at_passes();
            trace!(self, "thinned: {thinned} values, passes {}", self.passes);
            self.stats.thinned = self.stats.thinned.max(thinned);
        }
        let mut values = self.shared.values.borrow_mut();
        values.passes = self.passes;
        values.check(&ledger, parked, cells, max_age_ms);
    }

    /// Files can go as soon as their values are delivered.
    fn look_at_passes(&mut self) {
        if self.plan.thins() {
            self.passes = self.passes.max(self.passes_of_files());
        }
    }

    /// How often the file was thinned that was thinned most, as its first frame says: kind, length, checksum, and then numbers, of which
    /// it is the fourth.
    fn passes_of_files(&self) -> u32 {
        let files = self.disk.files().into_iter().filter(|file| file.ends_with(".seg"));
        let passes = files.filter_map(|file| {
            let bytes = self.disk.contents(&file)?;
            let mut numbers = bytes.get(7..)?.split_inclusive(|byte| byte & 0x80 == 0);
            numbers.nth(3)?.first().map(|byte| u32::from(*byte))
        });
        passes.max().unwrap_or(0)
    }

    // Runs.

    fn begin(&mut self, process: &Rc<Process<S>>, due: Due) {
        self.stats.runs += 1;
        trace!(
            self,
            "run: {} scheduled at tick {} for {:?} s",
            due.key,
            due.scheduled.0,
            due.affecting_seconds().collect::<Vec<_>>()
        );
        self.note(4, due.scheduled.0);
        if self.jobs.intervals_of(&due.key) != Some(due.intervals.as_slice()) {
            self.sync_jobs();
        }
        if let Err((invariant, found)) = self.jobs.begins(self.tick(), &due) {
            self.violate(invariant, found);
        }
        let Some(job) = process.lend(|c| c.job(due.run)) else {
            self.violate(Invariant::Jobs, format!("the {} runs and has no parameters", due.key));
            return;
        };
        let (bot, process) = (Rc::clone(&self.bot), Rc::clone(process));
        let future: Running = Box::pin(async move {
            let mut cx = RunContext::new(&*process, &due);
            bot.perform(&job, &due, &mut cx).await.map_err(|error| error.to_string())
        });
        let wants = Wants { at_ms: Some(0), change: false };
        self.tasks.push(Task { due, future, wants, seen: 0 });
    }

    fn cancel(&mut self, run: RunId) {
        let now = self.clock.monotonic_ms();
        let Some(at) = self.tasks.iter().position(|task| task.due.run == run) else {
            self.violate(Invariant::Jobs, "a run is cancelled that is not under way");
            return;
        };
        let due = self.tasks.remove(at).due;
        trace!(self, "cancelled: {}", due.key);
        if now < due.deadline.0 {
            self.violate(Invariant::Schedule, format!("the {} is cancelled before its deadline", due.key));
        }
        self.end(due);
    }

    fn end(&mut self, due: Due) {
        self.jobs.ends(&due.key);
        let _ = self.lend(|c| c.handle_completed(due.run));
        if let Some(process) = &self.process {
            process.tell();
        }
    }

    fn poll_tasks(&mut self, process: &Rc<Process<S>>) -> bool {
        let now_ms = self.clock.now_ms();
        let mut any = false;
        let mut i = 0;
        while let Some(task) = self.tasks.get_mut(i) {
            let due = task.wants.at_ms.is_some_and(|at_ms| at_ms <= now_ms);
            let changed = task.wants.change && process.changes() != task.seen;
            if !due && !changed {
                i += 1;
                continue;
            }
            any = true;
            task.seen = process.changes();
            let polled = task.future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()));
            task.wants = process.take_wants();
            match polled {
                Poll::Pending => i += 1,
                Poll::Ready(result) => {
                    let task = self.tasks.remove(i);
                    if let Err(why) = result {
                        trace!(self, "failed: {}: {why}", task.due.key);
                    }
                    self.end(task.due);
                }
            }
        }
        any
    }

    // Configuration.

    fn sync_jobs(&mut self) {
        let table = self.lend(|c| {
            c.jobs(|table| {
                let jobs = table
                    .iter()
                    .filter_map(|(_, key, _)| Some((*key, table.grid(key)?.0.as_slice().to_vec())));
                jobs.collect::<BTreeMap<_, _>>()
            })
        });
        if let Some(table) = table {
            self.jobs.configured(self.tick(), &table);
            self.shared.states.borrow_mut().retain(|key, _| table.contains_key(key));
            // Before its first refresh a life knows no jobs, and forgets none.
            if !table.is_empty() {
                self.shared.kept_states.borrow_mut().retain(|key, _| table.contains_key(key));
            }
        }
    }

    fn wanted_jobs(&self) -> BTreeMap<JobKey, Vec<u32>> {
        if !self.plan.custom {
            return self.server.jobs();
        }
        let own = SimBot::own(&self.plan).into_iter();
        own.map(|(item, intervals)| (JobKey { account: 1, entity: 0, item, name: "" }, intervals)).collect()
    }

    /// A refresh has ended: what it did to the jobs must come from the configuration as it was meanwhile.
    fn refreshed(&mut self, summary: &RefreshSummary) {
        self.note(5, u64::from(summary.jobs));
        self.sync_jobs();
        let now_ms = self.clock.now_ms();
        let (jobs, wanted) = (self.jobs.table(), self.wanted_jobs());
        let before = core::mem::take(&mut self.configured);
        let began_ms = now_ms.saturating_sub(summary.took_ms);
        let whole = summary.failed_accounts == 0
            && summary.faults == 0
            && summary.committed.deferred == 0
            && summary.requests > 0;
        let spoilt = self.flipped_ms > 0 && self.flipped_ms >= began_ms;
        let keys = jobs.keys().chain(wanted.keys()).chain(before.keys()).filter(|_| !spoilt);
        for key in keys {
            if self.server.changed_since(key.account, began_ms) {
                continue;
            }
            let (now, want, was) = (jobs.get(key), wanted.get(key), before.get(key));
            if now != want && (whole || now != was) {
                self.violate(
                    Invariant::Jobs,
                    format!("after a refresh ({summary}) the {key} has {now:?} s, configured is {want:?}, before it had {was:?}"),
                );
            }
        }
        self.configured = jobs;
    }

    // Requests.

    fn flight(&mut self, number: u64) -> Option<&mut Flight> {
        self.flights.iter_mut().find(|flight| flight.number == number)
    }

    fn send(&mut self, id: RequestId) {
        self.stats.requests += 1;
        let number = self.stats.requests;
        let made = self.lend(|c| {
            let head = c.request_head(id)?;
            let mut target = String::new();
            c.write_target(id, &mut target).ok()?;
            Some((head, target))
        });
        let Some((head, target)) = made.flatten() else {
            self.violate(Invariant::Rest, "a request is to be sent and has no head");
            return;
        };
        // Of a request that the collector has given up the connection is closed.
        if let Some(process) = self.process.clone() {
            self.flights.retain(|flight| process.lend(|c| c.request_head(flight.id)).is_some());
        }
        let busy = self.flights.len() + 1;
        let limit = if self.plan.target == Target::Board { 1 } else { 3 };
        if busy > limit {
            self.violate(Invariant::Bounds, format!("{busy} requests are under way at once"));
        }
        let made_ms = self.clock.now_ms();
        let values = matches!(head.resource, grafolean_core::api::Resource::Values(_));
        self.flights.push(Flight {
            number,
            id,
            head,
            values,
            numbers: Vec::new(),
            made_ms,
            status: 0,
            validation: false,
            sending: Some((target, Vec::new())),
            steps: VecDeque::new(),
            taken: 0,
            blocked: false,
        });
        let mut r = Random::of(self.plan.seed, Purpose::Request, number);
        let body_len = head.body_len.unwrap_or(0);
        let part = if r.chance(300) { r.between(0, body_len as u64) as usize } else { body_len };
        if !self.pull(number, part) {
            return;
        }
        if part < body_len {
            // The rest leaves later; meanwhile the bot goes on.
            self.after(r.between(1, 300), Happening::Flight(number));
        } else {
            self.depart(number);
        }
    }

    /// Reads a request's body up to this byte.
    fn pull(&mut self, number: u64, until: usize) -> bool {
        let Some(process) = self.process.clone() else { return false };
        let Some(flight) = self.flights.iter_mut().find(|flight| flight.number == number) else {
            return false;
        };
        let (id, Some((_, body))) = (flight.id, flight.sending.as_mut()) else { return false };
        let mut buf = [0; 700];
        while body.len() < until {
            let room = buf.len().min(until - body.len());
            let n = process.lend(|c| c.request_body(id, body.len(), buf.get_mut(..room).unwrap_or_default()));
            if n == 0 || process.lend(|c| c.request_head(id)).is_none() {
                let text = format!("a body ends at byte {} of {:?}", body.len(), flight.head.body_len);
                let over = process.lend(|c| c.request_head(id)).is_none();
                self.flights.retain(|flight| flight.number != number);
                if !over {
                    self.violate(Invariant::Values, text);
                }
                return false;
            }
            body.extend_from_slice(buf.get(..n).unwrap_or_default());
        }
        true
    }

    /// A request has left the machine, or tried to.
    fn depart(&mut self, number: u64) {
        let now_ms = self.clock.now_ms();
        let post_max_age_ms = self.lend(|c| u64::from(c.settings().outbox.post_max_age_ms)).unwrap_or(0);
        let Some(flight) = self.flight(number) else { return };
        let Some((target, body)) = flight.sending.take() else { return };
        let (head, values, made_ms) = (flight.head, flight.values, flight.made_ms);
        let mut numbers = Vec::new();
        if values && let grafolean_core::api::Resource::Values(account) = head.resource {
            let Some(elements) = wire::elements(&body) else {
                let text = String::from_utf8_lossy(&body).into_owned();
                self.violate(Invariant::Values, format!("a body is none of values: {text}"));
                return;
            };
            let most = if head.method == Method::Post { 100 } else { usize::from(self.plan.max_values) };
            let largest = if self.plan.target == Target::Board { 8 * 1024 } else { 256 * 1024 };
            if elements.len() > most || elements.len() > 1 && body.len() > largest {
                let count = elements.len();
                self.violate(
                    Invariant::Bounds,
                    format!("a request has {count} values in {} bytes", body.len()),
                );
            }
            numbers = self.shared.values.borrow_mut().sent(
                account,
                head.method == Method::Post,
                &elements,
                post_max_age_ms,
                made_ms,
            );
        }
        let mut r = Random::of(self.plan.seed, Purpose::Request, number);
        let _ = (r.next(), r.next());
        let fate = self.fate(&mut r, now_ms, values);
        trace!(
            self,
            "request {number}: {} {} {} bytes, values {:?}..{:?}: {fate:?}",
            head.method.as_str(),
            head.resource,
            body.len(),
            numbers.first(),
            numbers.last()
        );
        self.note(6, Fnv1a64::of(&body));
        if fate != Fate::Fine {
            self.stats.faults += 1;
        }
        if let Some(flight) = self.flight(number) {
            flight.numbers = numbers;
        }
        let method = head.method.as_str();
        let request = match head.body_len {
            Some(_) => Request::json(method, &target, body),
            None => Request { method: method.to_owned(), ..Request::get(&target) },
        };
        let way_ms = r.between(self.plan.latency_ms.0, self.plan.latency_ms.1);
        let gone_ms = r.pick(&[way_ms, SILENCE_MS]);
        let arrive = |ghost| {
            Happening::Arrive(Box::new(Arrival { flight: number, request: request.clone(), fate, ghost }))
        };
        match fate {
            Fate::NotSent => {
                let ms = r.between(0, CONNECT_MS);
                self.step(number, now_ms + ms, Step::Fails(RequestError::NotSent));
            }
            Fate::Dropped => self.step(number, now_ms + gone_ms, Step::Fails(RequestError::Lost)),
            Fate::Late => {
                self.step(number, now_ms + SILENCE_MS, Step::Fails(RequestError::Lost));
                self.after(SILENCE_MS + r.scaled(1, 600_000), arrive(true));
            }
            Fate::Duplicate => {
                self.after(way_ms, arrive(false));
                self.after(way_ms + r.scaled(1, 60_000), arrive(true));
            }
            _ => self.after(way_ms, arrive(false)),
        }
    }

    fn fate(&self, r: &mut Random, now_ms: u64, values: bool) -> Fate {
        if now_ms < self.outage_until && (values || !self.plan.outages_of_values) {
            return if r.chance(500) { Fate::NotSent } else { Fate::Dropped };
        }
        if self.clock.calm() || !r.chance(self.plan.faulty_per_mille) {
            return Fate::Fine;
        }
        let faults: Vec<Option<Fault>> =
            Fault::OF_REQUESTS.into_iter().filter(|fault| self.plan.faults.has(*fault)).map(Some).collect();
        let retry_after_s = Some(r.scaled(1, self.plan.retry_after_max_s));
        let status = |code| Fate::Status { code, retry_after_s: None };
        match r.pick(&faults) {
            Some(Fault::NotSent) => Fate::NotSent,
            Some(Fault::Dropped) => Fate::Dropped,
            Some(Fault::Lost) => Fate::Lost,
            Some(Fault::Late) => Fate::Late,
            Some(Fault::Duplicate) => Fate::Duplicate,
            Some(Fault::Drip) => Fate::Drip,
            Some(Fault::Cut) => Fate::Cut,
            Some(Fault::Garbage) => Fate::Garbage,
            Some(Fault::Status4xx) => status(r.pick(&[400, 400, 401, 403, 404, 408])),
            Some(Fault::TooLarge) => status(413),
            Some(Fault::TooMany) => Fate::Status { code: r.pick(&[429, 503]), retry_after_s },
            Some(Fault::Status5xx) => status(r.pick(&[500, 502, 503, 504])),
            Some(Fault::DoneBut5xx) => Fate::DoneBut(r.pick(&[500, 504])),
            _ => Fate::Fine,
        }
    }

    fn step(&mut self, number: u64, at_ms: u64, step: Step) {
        if let Some(flight) = self.flight(number) {
            flight.steps.push_back((at_ms, step));
            if flight.steps.len() == 1 {
                self.at(at_ms, Happening::Flight(number));
            }
        }
    }

    /// A request is at the backend.
    fn arrive(&mut self, arrival: Arrival) {
        let now_ms = self.clock.now_ms();
        let Arrival { flight: number, request, fate, ghost } = arrival;
        let unix_ms = self.clock.true_unix_ms().saturating_add_signed(self.backend_offset);
        let mut r = Random::of(self.plan.seed, Purpose::Request, number ^ 1 << 40);
        let back_ms = r.between(self.plan.latency_ms.0, self.plan.latency_ms.1);
        let mut retry_after_ms = None;
        let answered = match fate {
            Fate::Status { code, retry_after_s } => {
                retry_after_ms = retry_after_s.and_then(|s| u32::try_from(s * 1000).ok());
                let body = match code {
                    400 => br#"{"detail":"There was an error parsing the body"}"#.to_vec(),
                    401 => b"Access denied".to_vec(),
                    _ => format!("<html>{code}</html>").into_bytes(),
                };
                Answered { status: code, body, validation: false }
            }
            _ => {
                let mut values = self.shared.values.borrow_mut();
                let over = ghost || !self.flights.iter().any(|flight| flight.number == number);
                self.server.answer(&request, unix_ms, over, &mut values)
            }
        };
        if ghost {
            trace!(self, "request {number} arrives late or again: {}", answered.status);
            return;
        }
        let Answered { mut status, mut body, mut validation } = answered;
        match fate {
            Fate::Lost => {
                let ms = r.pick(&[back_ms, SILENCE_MS]);
                self.step(number, now_ms + ms, Step::Fails(RequestError::Lost));
                return;
            }
            Fate::DoneBut(code) => {
                (status, body, validation) = (code, b"Internal Server Error".to_vec(), false);
            }
            Fate::Garbage if request.method == "GET" => {
                status = 200;
                match r.between(0, 2) {
                    0 => body.truncate(r.between(0, body.len() as u64) as usize),
                    1 => body = b"<html>It works!</html>".to_vec(),
                    _ => {
                        let at = r.between(0, body.len().saturating_sub(1) as u64) as usize;
                        self.flipped_ms = now_ms + back_ms;
                        if let Some(byte) = body.get_mut(at) {
                            *byte = 0xff;
                        }
                    }
                }
            }
            Fate::Garbage => {
                (status, body, validation) = (502, b"\x00\xff<html>".to_vec(), false);
            }
            _ => {}
        }
        if status == 403 && request.method == "PUT" {
            self.shared.values.borrow_mut().put_denied();
        }
        if let Some(flight) = self.flight(number) {
            (flight.status, flight.validation) = (status, validation);
        }
        let date_unix_s = Some(unix_ms / 1000);
        let mut at_ms = now_ms + back_ms;
        self.step(number, at_ms, Step::Head(ResponseHead { status, date_unix_s, retry_after_ms }));
        let mut piece = PIECE_BYTES;
        let mut gap_ms = 0;
        match fate {
            Fate::Drip => {
                piece = body.len() / r.between(2, 30) as usize + 1;
                gap_ms = r.scaled(1, 6_000);
            }
            Fate::Cut => body.truncate(r.between(0, body.len() as u64) as usize),
            _ => {}
        }
        for bytes in body.chunks(piece) {
            at_ms += gap_ms;
            self.step(number, at_ms, Step::Piece(bytes.to_vec()));
        }
        let end = if fate == Fate::Cut { Step::Fails(RequestError::Lost) } else { Step::End };
        self.step(number, at_ms, end);
    }

    /// A request goes on, as the machine sees it.
    fn fly(&mut self, number: u64) {
        let now_ms = self.clock.now_ms();
        let Some(process) = self.process.clone() else { return };
        let Some(flight) = self.flight(number) else { return };
        if flight.sending.is_some() {
            let until = flight.head.body_len.unwrap_or(0);
            if self.pull(number, until) {
                self.depart(number);
            }
            return;
        }
        let bot = Rc::clone(&self.bot);
        loop {
            let Some(flight) = self.flight(number) else { return };
            let (id, limit) = (flight.id, flight.head.answer_limit);
            match flight.steps.front() {
                None => return,
                Some((at_ms, _)) if *at_ms > now_ms => {
                    let at_ms = *at_ms;
                    self.at(at_ms, Happening::Flight(number));
                    return;
                }
                Some(_) => {}
            }
            let Some((at_ms, step)) = flight.steps.pop_front() else { return };
            match step {
                Step::Head(head) => {
                    if let Some(unix_s) = head.date_unix_s {
                        self.shared.values.borrow_mut().date_told(unix_s);
                    }
                    process.lend(|c| c.handle_response_head(id, head));
                }
                Step::Piece(bytes) => {
                    if flight.taken + bytes.len() as u64 > limit {
                        self.over(number, Some(RequestError::Lost));
                        return;
                    }
                    match process.lend(|c| c.handle_response_body(&bot, id, &bytes)) {
                        BodyStatus::Unwanted => {
                            self.flights.retain(|flight| flight.number != number);
                            process.tell();
                            self.sync_jobs();
                            return;
                        }
                        BodyStatus::Taken(n) if n < bytes.len() => {
                            let rest = bytes.get(n..).unwrap_or_default().to_vec();
                            if let Some(flight) = self.flight(number) {
                                flight.taken += n as u64;
                                flight.steps.push_front((at_ms, Step::Piece(rest)));
                                flight.blocked = true;
                            }
                            if n > 0 {
                                process.tell();
                            }
                            return;
                        }
                        BodyStatus::Taken(n) => {
                            if let Some(flight) = self.flight(number) {
                                flight.taken += n as u64;
                            }
                        }
                    }
                }
                Step::End => {
                    self.over(number, None);
                    return;
                }
                Step::Fails(error) => {
                    self.over(number, Some(error));
                    return;
                }
            }
            process.tell();
        }
    }

    /// A request has come to its end.
    fn over(&mut self, number: u64, error: Option<RequestError>) {
        let Some(at) = self.flights.iter().position(|flight| flight.number == number) else { return };
        let flight = self.flights.remove(at);
        trace!(self, "request {number} ends: {}, {error:?}", flight.status);
        self.note(7, u64::from(flight.status));
        if flight.values {
            let outcome = match error {
                None => Outcome::Status { code: flight.status, validation: flight.validation },
                Some(RequestError::NotSent) => Outcome::NotSent,
                Some(RequestError::Lost) => Outcome::Lost,
            };
            let post = flight.head.method == Method::Post;
            self.shared.values.borrow_mut().ended(&flight.numbers, post, outcome);
        }
        let (bot, id) = (Rc::clone(&self.bot), flight.id);
        let _ = self.lend(|c| match error {
            None => c.handle_response_end(&bot, id),
            Some(error) => c.handle_request_error(&bot, id, error),
        });
        if let Some(process) = &self.process {
            process.tell();
        }
        if !flight.values {
            self.sync_jobs();
        }
    }

    /// Lets requests go on whose answers the collector did not take.
    fn unblock(&mut self) -> bool {
        let blocked = self.flights.iter_mut().filter(|flight| flight.blocked);
        let blocked: Vec<u64> = blocked
            .map(|flight| {
                flight.blocked = false;
                flight.number
            })
            .collect();
        let mut any = false;
        for number in blocked {
            let left = |world: &mut Self| world.flight(number).map(|f| (f.taken, f.steps.len()));
            let before = left(self);
            self.fly(number);
            any |= left(self) != before;
        }
        any
    }
}
