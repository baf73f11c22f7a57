//! The collector and what the parts of its driver tell each other.

use core::cell::{Cell, RefCell, RefMut};

use embassy_time::{Instant, Timer};
use grafolean_core::bot::Bot;
use grafolean_core::collector::{Collector, RequestId, Settings};
use grafolean_core::context::Lender;
use grafolean_core::jobs::Due;
use grafolean_core::journal::Kind;
use grafolean_core::outbox::Ledger;
use grafolean_core::storage::{Parts, Storage};
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::NumberText;

use crate::changes::Changes;

/// Requests that can be under way at once: one of each kind.
const REQUESTS: usize = 3;

/// The present time of embassy-time: since boot.
#[inline(never)]
pub(crate) fn now() -> Millis {
    Millis(Instant::now().as_millis())
}

/// A collector of the bot `B` in the memory `S`, and W places for runs that are under way at once.
///
/// W must be at least the `runs` of the memory. One task awaits [`run`](crate::run); others on the same executor may
/// use the methods at any time. It is not `Sync`: interrupts and other cores must go through a channel.
///
/// Its size is that of the collector and its memory, plus 136 bytes per worker.
pub struct Shared<B: Bot, S: Storage<B>, const W: usize> {
    pub(crate) collector: RefCell<Collector<B, S>>,
    pub(crate) changes: Changes,
    pub(crate) places: [Place; W],
    /// Requests that wait for the transport, in order.
    pub(crate) waiting: RefCell<heapless::Vec<RequestId, REQUESTS>>,
    /// After `stop`: when it ends at the latest.
    pub(crate) stop_at: Cell<Option<Millis>>,
    /// Nothing more is wanted of the transport.
    pub(crate) closing: Cell<bool>,
    pub(crate) started: Cell<bool>,
    /// What the memory has room for.
    pub(crate) runs: usize,
}

/// The memory of a collector that lies elsewhere: a [`Storage`] that is moved at no cost.
///
/// A memory that is made by a call passes through the call stack, which must then be larger than the memory. One that is a static from the
/// beginning does not:
///
/// ```no_run
/// # use grafolean_embassy::core::bot::*; use grafolean_embassy::core::jobs::Due;
/// # struct MyBot; impl Bot for MyBot { type Name = (); type Entity = Anything; type Credential = Anything;
/// # type Sensor = Anything; type Job = (); type Error = &'static str; fn protocol(&self) -> Option<&str> { None }
/// # async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, _: &mut C) -> Result<(), &'static str> { Ok(()) } }
/// # grafolean_embassy::core::inline_storage! { struct Memory for MyBot { accounts: 1, entities: 0, links: 0, credentials: 0,
/// # sensors: 0, jobs: 1, spare: 1, intervals: 2, distinct_intervals: 1, runs: 1, cells: 64, element: 512, scratch: 128,
/// # listing: 0, states: 0, faults: 8, events: 8, } }
/// use grafolean_embassy::core::collector::Settings;
/// use grafolean_embassy::{Lent, Shared};
///
/// /// `memory` is `MEMORY.take()` of a `static MEMORY: ConstStaticCell<Memory> = ConstStaticCell::new(Memory::new())`, from the
/// /// crate `static_cell`. What this returns is put into a `StaticCell` by its `init_with`.
/// fn collector(settings: Settings, memory: &'static mut Memory) -> Shared<MyBot, Lent<'static, Memory>, 1> {
///     Shared::new(settings, Lent(memory))
/// }
/// ```
pub struct Lent<'a, S>(
    /// The memory.
    pub &'a mut S,
);

impl<S> core::fmt::Debug for Lent<'_, S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Not what is in it: there may be secrets.
        f.debug_tuple("Lent").finish()
    }
}

impl<B: Bot, S: Storage<B>> Storage<B> for Lent<'_, S> {
    type Links = S::Links;
    type Entry = S::Entry;

    fn parts(&mut self) -> Parts<'_, B, S::Links, S::Entry> {
        self.0.parts()
    }

    fn grow(&mut self, kind: Kind) -> bool {
        self.0.grow(kind)
    }

    fn grow_queues(&mut self) -> bool {
        self.0.grow_queues()
    }

    fn grow_outbox(&mut self) -> bool {
        self.0.grow_outbox()
    }

    fn grow_events(&mut self) -> bool {
        self.0.grow_events()
    }
}

/// What the loop tells a worker.
pub(crate) struct Place {
    /// The run that is under way here, or is to be begun. Its worker borrows it as long as it is.
    pub(crate) due: RefCell<Option<Due>>,
    /// It is to be begun.
    pub(crate) begin: Cell<bool>,
    /// It is to be dropped.
    pub(crate) cancelled: Cell<bool>,
}

impl Place {
    const fn free() -> Self {
        Place { due: RefCell::new(None), begin: Cell::new(false), cancelled: Cell::new(false) }
    }
}

impl<B: Bot, S: Storage<B>, const W: usize> Shared<B, S, W> {
    /// A collector that knows nothing yet. A board has one connection: [`Settings::max_requests`] should be 1.
    #[must_use]
    pub fn new(settings: Settings, mut storage: S) -> Self {
        let runs = storage.parts().config.jobs.running.len();
        Shared {
            collector: RefCell::new(Collector::new(settings, storage)),
            changes: Changes::new(),
            places: [const { Place::free() }; W],
            waiting: RefCell::new(heapless::Vec::new()),
            stop_at: Cell::new(None),
            closing: Cell::new(false),
            started: Cell::new(false),
            runs,
        }
    }

    /// Lends the collector, told the present time, for the time of a call; afterwards the driver looks at it again. So
    /// for instance a refresh is asked for:
    /// `shared.with(|collector| collector.refresh_soon())`.
    ///
    /// # Panics
    /// If called from within another call that has the collector: from `use_it`, or from
    /// [`Bot::entity_jobs`], [`Bot::account_jobs`] or [`Bot::own_jobs`].
    pub fn with<R>(&self, use_it: impl FnOnce(&mut Collector<B, S>) -> R) -> R {
        let result = self.now(use_it);
        self.changes.tell();
        result
    }

    /// Where every value is.
    ///
    /// # Panics
    /// As [`Shared::with`].
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        *self.collector.borrow().ledger()
    }

    /// Ends the collector: no run begins any more, those under way may end, values are sent. When nothing is left to do,
    /// or after `limit_ms`, [`run`](crate::run) returns; what is still queued then shows in its ledger. A later call can
    /// only shorten the limit.
    ///
    /// # Panics
    /// As [`Shared::with`].
    pub fn stop(&self, limit_ms: u32) {
        let until = now().saturating_add(u64::from(limit_ms));
        self.stop_at.set(Some(self.stop_at.get().map_or(until, |at| at.min(until))));
        self.with(Collector::stop);
    }

    /// As [`Shared::with`], for calls that nobody needs to hear of.
    pub(crate) fn now<R>(&self, use_it: impl FnOnce(&mut Collector<B, S>) -> R) -> R {
        use_it(&mut self.at_present())
    }

    /// The collector, told the present time.
    #[inline(never)]
    pub(crate) fn at_present(&self) -> RefMut<'_, Collector<B, S>> {
        let mut collector = self.collector.borrow_mut();
        collector.handle_time(now());
        collector
    }

    /// Queues a request for the transport.
    #[inline(never)]
    pub(crate) fn queue(&self, id: RequestId) {
        let collector = self.collector.borrow();
        let mut waiting = self.waiting.borrow_mut();
        // Requests that are over meanwhile make room; of the others there are never more than one of each kind.
        waiting.retain(|id| collector.request_head(*id).is_some());
        let queued = waiting.push(id);
        debug_assert!(queued.is_ok(), "more requests under way than there are kinds");
    }

    /// The request that waits longest.
    pub(crate) fn unqueue(&self) -> Option<RequestId> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() { None } else { Some(waiting.remove(0)) }
    }
}

impl<B: Bot, S: Storage<B>, const W: usize> Lender for Shared<B, S, W> {
    type Bot = B;
    type Storage = S;

    fn lend<R>(&self, call: impl FnOnce(&mut Collector<B, S>) -> R) -> R {
        Shared::now(self, call)
    }

    fn now(&self) -> Millis {
        now()
    }

    fn sleep_ms(&self, ms: u32) -> impl Future<Output = ()> {
        Timer::after_millis(u64::from(ms))
    }

    fn changes(&self) -> u32 {
        self.changes.count()
    }

    fn changed_since(&self, seen: u32) -> impl Future<Output = ()> {
        self.changes.wait_since(seen)
    }

    fn tell(&self) {
        self.changes.tell();
    }

    fn value_taken(&self, _: &Due, _: Option<UnixMillis>, _: &str, _: &NumberText) {
        self.changes.tell();
    }
}
