//! The machine that a bot runs on: its clocks, and what the driver lends to runs.

use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::task::Poll;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use grafolean_core::bot::HandOverError;
use grafolean_core::collector::Collector;
use grafolean_core::context::Lender;
use grafolean_core::jobs::{Due, JobKey};
use grafolean_core::storage::Storage;
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::NumberText;
use grafolean_std::driver::Keeper;
use grafolean_std::outbox::faulty::FaultyDisk;
use grafolean_std::outbox::{SyncJob, Synced};

use crate::bot::SimBot;
use crate::flash::BoardFlash;
use crate::random::Random;
use crate::values::Values;
use crate::wire;

/// True time, and the clocks of the machine. All in milliseconds.
#[derive(Debug)]
pub(crate) struct Clock {
    /// True time since the start of the simulation.
    now: Cell<u64>,
    start_unix: u64,
    /// How far the machine's wall clock is from true time.
    wall_offset: Cell<i64>,
    /// Monotonic time is true time plus this.
    monotonic_offset: Cell<i64>,
    /// Boards have no wall clock of their own.
    pub(crate) has_wall: bool,
    calm: Cell<bool>,
}

fn plus(ms: u64, offset: i64) -> u64 {
    ms.saturating_add_signed(offset)
}

impl Clock {
    pub(crate) fn new(start_unix: u64, has_wall: bool) -> Self {
        Clock {
            now: Cell::new(0),
            start_unix,
            wall_offset: Cell::new(0),
            monotonic_offset: Cell::new(0),
            has_wall,
            calm: Cell::new(false),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now.get()
    }

    pub(crate) fn set_now(&self, ms: u64) {
        self.now.set(ms);
    }

    pub(crate) fn true_unix_ms(&self) -> u64 {
        self.start_unix + self.now.get()
    }

    pub(crate) fn wall_ms(&self) -> u64 {
        plus(self.true_unix_ms(), self.wall_offset.get())
    }

    /// How far the wall clock is ahead of true time.
    pub(crate) fn ahead_ms(&self) -> i64 {
        self.wall_offset.get()
    }

    pub(crate) fn jump(&self, ms: i64) {
        self.wall_offset.set(self.wall_offset.get() + ms);
    }

    /// A process starts: hosts anchor monotonic time to the wall clock, boards begin at 0.
    pub(crate) fn start(&self) {
        let anchor = if self.has_wall { self.wall_ms() } else { 0 };
        let offset = i64::try_from(anchor).unwrap_or(0) - i64::try_from(self.now.get()).unwrap_or(0);
        self.monotonic_offset.set(offset);
    }

    pub(crate) fn monotonic_ms(&self) -> u64 {
        plus(self.now.get(), self.monotonic_offset.get())
    }

    /// A monotonic time as true time since the start of the simulation.
    pub(crate) fn since_start_ms(&self, monotonic: Millis) -> u64 {
        plus(monotonic.0, -self.monotonic_offset.get())
    }

    pub(crate) fn calm(&self) -> bool {
        self.calm.get()
    }

    pub(crate) fn set_calm(&self) {
        self.calm.set(true);
    }
}

/// What all lives of the process, the bot and the world share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) values: RefCell<Values>,
    /// What each job stored.
    pub(crate) states: RefCell<BTreeMap<JobKey, Counts>>,
    /// What each job stored in an earlier life.
    pub(crate) kept_states: RefCell<BTreeMap<JobKey, Kept>>,
    /// The most that each job ever stored: what was forgotten may come back by a power cut.
    pub(crate) most_stored: RefCell<BTreeMap<JobKey, u64>>,
}

/// What a life has left of a job's state.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) stored: Counts,
    /// What must have survived, and what can have survived at most.
    pub(crate) safe: u64,
    pub(crate) most: u64,
}

/// A job's state: a number that each run makes one higher.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// What was stored last.
    pub(crate) last: u64,
    /// When the last ones were stored, in milliseconds of true time.
    at_ms: VecDeque<u64>,
}

impl Counts {
    /// Longer than it takes until anything is synced.
    const REMEMBERED_MS: u64 = 7_200_000;

    pub(crate) fn store(&mut self, count: u64, now_ms: u64) {
        self.last = count;
        self.at_ms.push_back(now_ms);
        while self.at_ms.front().is_some_and(|&at| at + Self::REMEMBERED_MS < now_ms) {
            self.at_ms.pop_front();
        }
    }

    /// What had been stored at that time, at least.
    pub(crate) fn stored_at(&self, ms: u64) -> u64 {
        if self.at_ms.back().is_some_and(|&last| ms + Self::REMEMBERED_MS < last) {
            return 0;
        }
        self.last.saturating_sub(self.at_ms.iter().filter(|&&at| at > ms).count() as u64)
    }

    /// Only what came up to `count` has survived.
    pub(crate) fn survived(mut self, count: u64) -> Self {
        let lost = usize::try_from(self.last.saturating_sub(count)).unwrap_or(usize::MAX);
        self.at_ms.truncate(self.at_ms.len().saturating_sub(lost));
        self.last = count;
        self
    }
}

/// What a run that was polled waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Wants {
    /// This true time.
    pub(crate) at_ms: Option<u64>,
    /// Any change.
    pub(crate) change: bool,
}

/// One life of the process.
pub(crate) struct Process<S: Storage<SimBot>> {
    collector: RefCell<Collector<SimBot, S>>,
    clock: Rc<Clock>,
    shared: Rc<Shared>,
    changes: Cell<u32>,
    wants: Cell<Wants>,
    own_time_ms: u64,
    outbox: Durable,
}

/// Where values are that outlive the process.
pub(crate) enum Durable {
    Nowhere,
    Files(Box<RefCell<Files>>),
    Flash(Box<RefCell<BoardFlash>>),
}

/// A sync that takes its time.
enum Work {
    /// The disk does it at the end: what is written meanwhile is synced as well.
    AtEnd(SyncJob),
    /// The disk has done it at once, and says so at the end.
    AtOnce(Synced),
}

impl Work {
    fn end(self) -> Synced {
        match self {
            Work::AtEnd(job) => job.run(),
            Work::AtOnce(synced) => synced,
        }
    }
}

/// A host's files, with what the driver's thread for syncs does.
pub(crate) struct Files {
    keeper: Keeper<FaultyDisk>,
    /// What is under way, and when it ends.
    under_way: Option<(Millis, Work)>,
    longest_ms: u64,
    random: Random,
}

impl Files {
    /// `longest_ms`: of a sync.
    pub(crate) fn new(mut keeper: Keeper<FaultyDisk>, longest_ms: u64, random: Random) -> Self {
        keeper.sync_elsewhere();
        Files { keeper, under_way: None, longest_ms, random }
    }

    fn begin_sync(&mut self, now: Millis) {
        if self.under_way.is_none()
            && let Some(job) = self.keeper.poll_sync(now)
        {
            let ends = now.saturating_add(self.random.between(0, self.longest_ms));
            let at_once = self.random.chance(500);
            self.under_way = Some((ends, if at_once { Work::AtOnce(job.run()) } else { Work::AtEnd(job) }));
        }
    }

    fn end_sync(&mut self, now: Millis) {
        if let Some((_, work)) = self.under_way.take() {
            self.keeper.handle_synced(now, work.end());
        }
    }

    fn is_over(&self, now: Millis) -> bool {
        self.under_way.as_ref().is_some_and(|(ends, _)| *ends <= now)
    }

    /// Waits for all syncs that are due.
    fn wait(&mut self, now: Millis) {
        self.begin_sync(now);
        while self.under_way.is_some() {
            self.end_sync(now);
            self.begin_sync(now);
        }
    }

    fn keep<S: Storage<SimBot>>(
        &mut self,
        c: &mut Collector<SimBot, S>,
        now: Millis,
        unix: UnixMillis,
        feeding: bool,
    ) -> Millis {
        if self.is_over(now) {
            self.end_sync(now);
        }
        let at = self.keeper.step(c, now, unix, feeding);
        self.begin_sync(now);
        self.under_way.as_ref().map_or(at, |(ends, _)| at.min(*ends))
    }
}

impl<S: Storage<SimBot>> Process<S> {
    pub(crate) fn new(
        collector: Collector<SimBot, S>,
        clock: Rc<Clock>,
        shared: Rc<Shared>,
        outbox: Durable,
    ) -> Self {
        let own_time_ms = u64::from(collector.settings().outbox.post_max_age_ms);
        Process {
            collector: RefCell::new(collector),
            clock,
            shared,
            changes: Cell::new(0),
            wants: Cell::new(Wants::default()),
            own_time_ms,
            outbox,
        }
    }

    /// Does what is due for the durable outbox: the time of the next call.
    pub(crate) fn keep(&self, feeding: bool) -> Option<Millis> {
        match &self.outbox {
            Durable::Nowhere => None,
            Durable::Files(files) => {
                let mut files = files.borrow_mut();
                Some(self.lend(|c| files.keep(c, self.now(), UnixMillis(self.clock.wall_ms()), feeding)))
            }
            Durable::Flash(flash) => Some(flash.borrow_mut().keep(self)),
        }
    }

    /// The process ends as it should. Whether the counts of all lives balance.
    pub(crate) fn close(&self) -> bool {
        match &self.outbox {
            Durable::Nowhere => true,
            Durable::Files(files) => {
                let mut files = files.borrow_mut();
                // As the driver does.
                files.end_sync(self.now());
                let keeper = &mut files.keeper;
                self.lend(|c| {
                    keeper.close(c, self.now(), UnixMillis(self.clock.wall_ms()));
                    keeper.totals(c, self.now()).balanced()
                })
            }
            Durable::Flash(flash) => {
                flash.borrow_mut().step(self, true);
                true
            }
        }
    }

    /// The board's flash.
    pub(crate) fn flash<R>(&self, use_it: impl FnOnce(&BoardFlash) -> R) -> Option<R> {
        match &self.outbox {
            Durable::Flash(flash) => Some(use_it(&flash.borrow())),
            _ => None,
        }
    }

    fn system_clock(&self) -> Option<UnixMillis> {
        self.clock.has_wall.then(|| UnixMillis(self.clock.wall_ms()))
    }

    /// What the run that was just polled waits for.
    pub(crate) fn take_wants(&self) -> Wants {
        self.wants.take()
    }

    fn want(&self, change: impl FnOnce(&mut Wants)) {
        let mut wants = self.wants.get();
        change(&mut wants);
        self.wants.set(wants);
    }
}

impl<S: Storage<SimBot>> Lender for Process<S> {
    type Bot = SimBot;
    type Storage = S;

    fn lend<R>(&self, call: impl FnOnce(&mut Collector<SimBot, S>) -> R) -> R {
        let mut collector = self.collector.borrow_mut();
        collector.handle_time(self.now());
        if let Some(unix) = self.system_clock() {
            collector.handle_system_clock(unix);
        }
        call(&mut collector)
    }

    fn now(&self) -> Millis {
        Millis(self.clock.monotonic_ms())
    }

    fn sleep_ms(&self, ms: u32) -> impl Future<Output = ()> {
        let until = self.clock.now_ms().saturating_add(ms.into());
        poll_fn(move |_| {
            if self.clock.now_ms() >= until {
                return Poll::Ready(());
            }
            self.want(|wants| wants.at_ms = Some(until));
            Poll::Pending
        })
    }

    fn changes(&self) -> u32 {
        self.changes.get()
    }

    fn changed_since(&self, seen: u32) -> impl Future<Output = ()> {
        poll_fn(move |_| {
            if self.changes.get() != seen {
                return Poll::Ready(());
            }
            self.want(|wants| wants.change = true);
            Poll::Pending
        })
    }

    fn tell(&self) {
        self.changes.set(self.changes.get().wrapping_add(1));
    }

    fn hand_over(
        &self,
        account: u64,
        time: Option<UnixMillis>,
        path: &str,
        number: &NumberText,
    ) -> Result<(), HandOverError> {
        self.lend(|c| match &self.outbox {
            Durable::Nowhere | Durable::Flash(_) => c.handle_value(account, time, path, number),
            Durable::Files(files) => {
                let mut files = files.borrow_mut();
                let result = files.keeper.hand_over(c, account, time, path, number);
                if files.keeper.take_unsynced().is_some() {
                    files.wait(self.now());
                } else {
                    files.begin_sync(self.now());
                }
                result
            }
        })
    }

    fn value_taken(&self, due: &Due, time: Option<UnixMillis>, path: &str, number: &NumberText) {
        // A board's value has the time that its collector knows.
        if let Durable::Flash(_) = self.outbox {
            self.tell();
        }
        let known = time.or(self.system_clock()).or_else(|| self.lend(|c| c.wall()));
        let number = wire::identity(number.as_str().parse().unwrap_or(0));
        let time_ms = known.map(|unix| unix.0);
        // As the rule has it: a time far from the wall clock's is the value's own.
        let wall = self.lend(|c| c.wall()).map(|unix| unix.0);
        let far = |(wall, time): (u64, u64)| wall.abs_diff(time) > self.own_time_ms;
        let own_time = time.is_some() && wall.zip(time_ms).is_none_or(far);
        self.shared.values.borrow_mut().handed_over(
            due.key.account,
            path,
            number,
            time_ms,
            own_time,
            time.is_none() && !self.clock.has_wall,
        );
    }
}
