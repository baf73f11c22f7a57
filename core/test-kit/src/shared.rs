//! What a lab lends to its runs.

use core::cell::{Cell, RefCell};
use core::fmt::Display;
use core::future::{Future, poll_fn};
use core::task::{Poll, Waker};
use std::collections::HashMap;

use grafolean_core::bot::{BackendError, Bot, Context, EntityDraft, HandOverError, Sensor, StateError};
use grafolean_core::collector::Collector;
use grafolean_core::context::{Lender, RunContext};
use grafolean_core::jobs::{Due, RunId};
use grafolean_core::storage::Storage;
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::{Number, NumberText};

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
    /// The time that the bot gives to the value which it is handing over.
    given_time: Cell<Option<UnixMillis>>,
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
            given_time: Cell::new(None),
        }
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

    fn system_clock(&self) -> Option<UnixMillis> {
        self.has_clock.then(|| UnixMillis(self.clock.unix_ms()))
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

    fn value_taken(&self, due: &Due, path: &str, number: &NumberText) {
        *self.values.borrow_mut().entry(due.run).or_default() += 1;
        let start_ms = i64::try_from(self.clock.start_unix_ms()).unwrap_or(i64::MAX);
        let time = self.given_time.get().or_else(|| self.system_clock());
        self.handed_over.borrow_mut().push(HandedOver {
            at_ms: self.clock.now_ms(),
            time_ms: time.map(|unix| i64::try_from(unix.0).unwrap_or(i64::MAX).saturating_sub(start_ms)),
            run: due.run,
            key: due.key,
            path: path.to_owned(),
            number: number.as_str().to_owned(),
        });
    }
}

/// What a run is given: the [`RunContext`] of all adapters, watched for the times that the bot gives to its values.
pub(crate) struct Watched<'a, B: Bot, S: Storage<B>> {
    shared: &'a Shared<B, S>,
    inner: RunContext<'a, Shared<B, S>>,
}

impl<'a, B: Bot, S: Storage<B>> Watched<'a, B, S> {
    pub(crate) const fn new(shared: &'a Shared<B, S>, due: &'a Due) -> Self {
        Watched { shared, inner: RunContext::new(shared, due) }
    }
}

impl<B: Bot, S: Storage<B>> Context for Watched<'_, B, S> {
    type Bot = B;

    fn now(&self) -> Millis {
        self.inner.now()
    }

    async fn sleep_ms(&mut self, ms: u32) {
        self.inner.sleep_ms(ms).await;
    }

    fn entity(&mut self) -> Option<B::Entity> {
        self.inner.entity()
    }

    fn entity_name(&mut self) -> Option<B::Name> {
        self.inner.entity_name()
    }

    fn credential(&mut self) -> Option<B::Credential> {
        self.inner.credential()
    }

    fn sensor(&mut self, n: usize) -> Option<Sensor<B::Sensor>> {
        self.inner.sensor(n)
    }

    fn value(&mut self, path: impl Display, number: impl Number) -> Result<(), HandOverError> {
        self.inner.value(path, number)
    }

    fn value_at(
        &mut self,
        time: UnixMillis,
        path: impl Display,
        number: impl Number,
    ) -> Result<(), HandOverError> {
        self.shared.given_time.set(Some(time));
        let result = self.inner.value_at(time, path, number);
        self.shared.given_time.set(None);
        result
    }

    fn get_state(&mut self, name: &str, buf: &mut [u8]) -> Option<usize> {
        self.inner.get_state(name, buf)
    }

    fn set_state(&mut self, name: &str, value: &[u8]) -> Result<(), StateError> {
        self.inner.set_state(name, value)
    }

    async fn list_entities(&mut self) -> Result<(), BackendError> {
        self.inner.list_entities().await
    }

    async fn next_entity(&mut self, buf: &mut [u8]) -> Result<Option<usize>, BackendError> {
        self.inner.next_entity(buf).await
    }

    async fn create_entity(&mut self, entity: &EntityDraft<'_>) -> Result<u64, BackendError> {
        self.inner.create_entity(entity).await
    }

    async fn update_entity(&mut self, id: u64, entity: &EntityDraft<'_>) -> Result<(), BackendError> {
        self.inner.update_entity(id, entity).await
    }

    async fn delete_entity(&mut self, id: u64) -> Result<(), BackendError> {
        self.inner.delete_entity(id).await
    }
}
