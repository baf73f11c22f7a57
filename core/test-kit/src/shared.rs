//! What a lab lends to its runs.

use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::task::{Poll, Waker};
use std::collections::HashMap;

use grafolean_core::bot::Bot;
use grafolean_core::collector::Collector;
use grafolean_core::context::Lender;
use grafolean_core::jobs::{Due, RunId};
use grafolean_core::storage::Storage;
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::NumberText;

use crate::clock::Clock;
use crate::record::HandedOver;

pub(crate) struct Shared<B: Bot, S: Storage<B>> {
    collector: RefCell<Collector<B, S>>,
    clock: Clock,
    /// Whether values get their time from the system's clock; else the collector learns the time.
    has_clock: bool,
    changes: Cell<u32>,
    waiting: RefCell<Vec<Waker>>,
    pub(crate) handed_over: RefCell<Vec<HandedOver>>,
    values: RefCell<HashMap<RunId, u32>>,
}

impl<B: Bot, S: Storage<B>> Shared<B, S> {
    pub(crate) fn new(collector: Collector<B, S>, clock: Clock, has_clock: bool) -> Self {
        Shared {
            collector: RefCell::new(collector),
            clock,
            has_clock,
            changes: Cell::new(0),
            waiting: RefCell::default(),
            handed_over: RefCell::default(),
            values: RefCell::default(),
        }
    }

    fn system_clock(&self) -> Option<UnixMillis> {
        self.has_clock.then(|| UnixMillis(self.clock.unix_ms()))
    }

    /// How many values the run, which has ended, has handed over.
    pub(crate) fn take_values_of(&self, run: RunId) -> u32 {
        self.values.borrow_mut().remove(&run).unwrap_or(0)
    }

    pub(crate) fn values_of(&self, run: RunId) -> u32 {
        self.values.borrow().get(&run).copied().unwrap_or(0)
    }
}

impl<B: Bot, S: Storage<B>> Lender for Shared<B, S> {
    type Bot = B;
    type Storage = S;

    fn lend<R>(&self, call: impl FnOnce(&mut Collector<B, S>) -> R) -> R {
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
        self.clock.sleep_ms(ms)
    }

    fn changes(&self) -> u32 {
        self.changes.get()
    }

    fn changed_since(&self, seen: u32) -> impl Future<Output = ()> {
        poll_fn(move |cx| {
            if self.changes.get() != seen {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    fn tell(&self) {
        self.changes.set(self.changes.get().wrapping_add(1));
        let waiting = core::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    fn value_taken(&self, due: &Due, time: Option<UnixMillis>, path: &str, number: &NumberText) {
        *self.values.borrow_mut().entry(due.run).or_default() += 1;
        let start_ms = i64::try_from(self.clock.start_unix_ms()).unwrap_or(i64::MAX);
        self.handed_over.borrow_mut().push(HandedOver {
            at_ms: self.clock.now_ms(),
            time_ms: time
                .or(self.system_clock())
                .map(|unix| i64::try_from(unix.0).unwrap_or(i64::MAX).saturating_sub(start_ms)),
            run: due.run,
            key: due.key,
            path: path.to_owned(),
            number: number.as_str().to_owned(),
        });
    }
}
