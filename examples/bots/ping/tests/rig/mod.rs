//! A bot under test: a collector on simulated time that is told a configuration, and runs that are performed one after
//! the other; the values and the entities that they make are kept to be looked at.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test uses a part of it"
)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};

use grafolean_core::api::{Resource, Token};
use grafolean_core::bot::{BackendError, Bot, Context, EntityDraft, HandOverError, Sensor, StateError};
use grafolean_core::collector::{Action, BodyStatus, Collector, ResponseHead, Settings};
use grafolean_core::jobs::{Due, JobKey};
use grafolean_core::journal::Event;
use grafolean_core::storage::Storage;
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::{MAX_PATH_BYTES, Number, check_path};
use serde_json::{Value, json};

/// The account of all that is configured.
pub const ACCOUNT: u64 = 1;

/// A clock that only tests move; clones show the same time.
#[derive(Clone, Default)]
pub struct Clock(Rc<Cell<u64>>);

impl Clock {
    /// Milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        self.0.get()
    }
    /// Lets time pass.
    pub fn pass_ms(&self, ms: u64) {
        self.0.set(self.0.get() + ms);
    }
}

/// A value that was handed over.
#[derive(Clone, PartialEq, Debug)]
pub struct HandedOver {
    pub at_ms: u64,
    /// Its own time, if it was given one.
    pub unix_ms: Option<u64>,
    pub path: String,
    pub number: String,
}

/// What is outside of the collector.
#[derive(Default)]
pub struct World {
    pub clock: Clock,
    /// What the backend lists: entities, credentials, sensors.
    pub entities: Vec<Value>,
    pub credentials: Vec<Value>,
    pub sensors: Vec<Value>,
    /// What the backend answers to a bot's own requests that change something, if not 200.
    pub status: Option<u16>,
    /// A bot's own requests, in order.
    pub requests: Vec<String>,
    pub values: Vec<HandedOver>,
    /// Values whose path begins so find no room.
    pub no_room_for: Option<&'static str>,
    next_id: u64,
}

/// A bot with its collector.
pub struct Rig<B: Bot, S: Storage<B>> {
    pub bot: B,
    pub collector: Collector<B, S>,
    pub world: Rc<RefCell<World>>,
    pub clock: Clock,
    pub events: Vec<String>,
}

impl<B: Bot, S: Storage<B>> Rig<B, S> {
    pub fn new(bot: B, storage: S, clock: Clock) -> Self {
        let token = Token::parse("00000000-0000-4000-8000-000000000000").unwrap();
        let settings = Settings {
            account: Some(ACCOUNT),
            refresh_interval_s: 1_000_000,
            ..Settings::host(token, "/api")
        };
        let mut collector = Collector::new(settings, storage);
        collector.handle_time(Millis(clock.now_ms()));
        let world = World { clock: clock.clone(), next_id: 9000, ..World::default() };
        Rig { bot, collector, world: Rc::new(RefCell::new(world)), clock, events: Vec::new() }
    }

    /// Fetches the configuration.
    pub fn refresh(&mut self) {
        self.collector.refresh_soon();
        self.collector.handle_time(Millis(self.clock.now_ms()));
        while let Some(action) = self.collector.poll(&self.bot) {
            match action {
                Action::Send(id) => {
                    let resource = self.collector.request_head(id).unwrap().resource;
                    let body = answer(&self.world.borrow(), resource).to_string();
                    self.collector
                        .handle_response_head(id, ResponseHead { status: 200, ..ResponseHead::default() });
                    let taken = self.collector.handle_response_body(&self.bot, id, body.as_bytes());
                    assert_eq!(taken, BodyStatus::Taken(body.len()), "{resource}");
                    self.collector.handle_response_end(&self.bot, id);
                }
                Action::Run(due) => panic!("no run is due before time passes: {}", due.key),
                _ => {}
            }
        }
        self.log();
    }

    fn log(&mut self) {
        while let Some(event) = self.collector.poll_event() {
            if !matches!(event, Event::Refreshed(_)) {
                self.events.push(event.to_string());
            }
        }
    }

    /// The jobs: key, intervals in seconds.
    pub fn jobs(&mut self) -> BTreeMap<JobKey, Vec<u32>> {
        self.collector.jobs(|table| {
            let all = table.iter().map(|(_, key, _)| (*key, table.grid(key).unwrap().0.as_slice().to_vec()));
            all.collect()
        })
    }

    /// Performs the runs that are due until `until_ms`, one after the other: what each came to.
    pub fn run_until(&mut self, until_ms: u64) -> Vec<(Due, Result<(), String>)> {
        let mut ended = Vec::new();
        loop {
            self.collector.handle_time(Millis(self.clock.now_ms()));
            match self.collector.poll(&self.bot) {
                Some(Action::Run(due)) => {
                    let result = self.perform(&due);
                    self.collector.handle_time(Millis(self.clock.now_ms()));
                    self.collector.handle_completed(due.run);
                    ended.push((due, result));
                }
                Some(Action::Send(id)) => panic!("{:?}", self.collector.request_head(id)),
                Some(_) => {}
                None => match self.collector.poll_timeout() {
                    Some(next) if next.0 <= until_ms => {
                        let now_ms = self.clock.now_ms();
                        self.clock.pass_ms(next.0.saturating_sub(now_ms).max(1));
                    }
                    _ => break,
                },
            }
        }
        self.log();
        ended
    }

    /// Performs one run, which must be under way.
    pub fn perform(&mut self, due: &Due) -> Result<(), String> {
        let job = self.collector.job(due.run).unwrap();
        self.perform_job(&job, due)
    }

    /// Performs `job`, even if it has been removed.
    pub fn perform_job(&mut self, job: &B::Job, due: &Due) -> Result<(), String> {
        let world = self.world.clone();
        let mut cx = Cx { collector: &mut self.collector, due: *due, world, listed: None };
        let future = self.bot.perform(job, due, &mut cx);
        println!("a run's future of {} bytes", std::mem::size_of_val(&future));
        finish(future).map_err(|error| error.to_string())
    }

    /// The first run that is due, within `limit_ms`; it is under way then.
    pub fn next_due(&mut self, limit_ms: u64) -> Due {
        let until = self.clock.now_ms() + limit_ms;
        while self.clock.now_ms() < until {
            self.collector.handle_time(Millis(self.clock.now_ms()));
            if let Some(Action::Run(due)) = self.collector.poll(&self.bot) {
                return due;
            }
            self.clock.pass_ms(1000);
        }
        panic!("no run within {limit_ms} ms");
    }

    /// Values handed over so far, `path=number`, and forgets them.
    pub fn take_values(&self) -> Vec<String> {
        let values = std::mem::take(&mut self.world.borrow_mut().values);
        values.into_iter().map(|v| format!("{}={}", v.path, v.number)).collect()
    }
}

/// Nothing here waits: time passes in the calls.
pub fn finish<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it waits for what never comes"),
    }
}

fn answer(world: &World, resource: Resource) -> Value {
    match resource {
        Resource::Status => json!({"db_migration_needed": false, "user_exists": true}),
        Resource::Profile => json!({"user_id": 7, "record": {"tied_to_account": ACCOUNT}}),
        Resource::Accounts => json!({"list": [{"id": ACCOUNT, "name": "Test"}]}),
        Resource::Entities(_) => json!({"list": world.entities}),
        Resource::Credentials(_) => json!({"list": world.credentials}),
        Resource::Sensors(_) => json!({"list": world.sensors}),
        other => panic!("{other} is not asked for"),
    }
}

struct Cx<'a, B: Bot, S: Storage<B>> {
    collector: &'a mut Collector<B, S>,
    due: Due,
    world: Rc<RefCell<World>>,
    listed: Option<std::vec::IntoIter<Value>>,
}

impl<B: Bot, S: Storage<B>> Cx<'_, B, S> {
    fn hand_over(&self, unix_ms: Option<u64>, path: &str, number: impl Number) -> Result<(), HandOverError> {
        let mut world = self.world.borrow_mut();
        check_path(path, MAX_PATH_BYTES).map_err(|e| HandOverError::Value(e.into()))?;
        let number = number.number_text().map_err(|e| HandOverError::Value(e.into()))?.to_string();
        if world.no_room_for.is_some_and(|beginning| path.starts_with(beginning)) {
            return Err(HandOverError::Outbox(grafolean_core::outbox::PushError::TooManyAccounts {
                capacity: 1,
            }));
        }
        let at_ms = world.clock.now_ms();
        world.values.push(HandedOver { at_ms, unix_ms, path: path.to_string(), number });
        Ok(())
    }

    fn write(&self, request: String) -> Result<(), BackendError> {
        let mut world = self.world.borrow_mut();
        world.requests.push(request);
        world.status.map_or(Ok(()), |status| Err(BackendError::Status(status)))
    }
}

fn drafted(id: u64, entity: &EntityDraft<'_>) -> Value {
    let parse = |json: &str| serde_json::from_str::<Value>(json).unwrap();
    json!({
        "id": id, "name": entity.name, "entity_type": entity.entity_type, "parent": entity.parent,
        "details": parse(entity.details), "protocols": parse(entity.protocols.unwrap_or("{}")),
    })
}

impl<B: Bot, S: Storage<B>> Context for Cx<'_, B, S> {
    type Bot = B;

    fn now(&self) -> Millis {
        Millis(self.world.borrow().clock.now_ms())
    }
    async fn sleep_ms(&mut self, ms: u32) {
        self.world.borrow().clock.pass_ms(ms.into());
    }
    fn entity(&mut self) -> Option<B::Entity> {
        self.collector.entity(self.due.run, |entity| entity.details().clone())
    }
    fn entity_name(&mut self) -> Option<B::Name> {
        self.collector.entity(self.due.run, |entity| entity.name().clone())
    }
    fn credential(&mut self) -> Option<B::Credential> {
        self.collector.entity(self.due.run, |entity| entity.credential().clone())
    }
    fn sensor(&mut self, n: usize) -> Option<Sensor<B::Sensor>> {
        self.collector.sensor(self.due.run, n)
    }
    fn value(&mut self, path: impl Display, number: impl Number) -> Result<(), HandOverError> {
        self.hand_over(None, &path.to_string(), number)
    }
    fn value_at(
        &mut self,
        time: UnixMillis,
        path: impl Display,
        number: impl Number,
    ) -> Result<(), HandOverError> {
        self.hand_over(Some(time.0), &path.to_string(), number)
    }
    fn get_state(&mut self, name: &str, buf: &mut [u8]) -> Option<usize> {
        self.collector.get_state(&self.due.key, name, buf)
    }
    fn set_state(&mut self, name: &str, value: &[u8]) -> Result<(), StateError> {
        self.collector.set_state(&self.due.key, name, value)
    }
    async fn list_entities(&mut self) -> Result<(), BackendError> {
        let mut world = self.world.borrow_mut();
        world.requests.push("GET".to_string());
        self.listed = Some(world.entities.clone().into_iter());
        Ok(())
    }
    async fn next_entity(&mut self, buf: &mut [u8]) -> Result<Option<usize>, BackendError> {
        let Some(entity) = self.listed.as_mut().ok_or(BackendError::Stopped)?.next() else {
            self.listed = None;
            return Ok(None);
        };
        let text = entity.to_string();
        let limit = buf.len();
        buf.get_mut(..text.len()).ok_or(BackendError::TooLong { limit })?.copy_from_slice(text.as_bytes());
        Ok(Some(text.len()))
    }
    async fn create_entity(&mut self, entity: &EntityDraft<'_>) -> Result<u64, BackendError> {
        self.write(format!("POST {}", entity.name))?;
        let mut world = self.world.borrow_mut();
        world.next_id += 1;
        let id = world.next_id;
        world.entities.push(drafted(id, entity));
        Ok(id)
    }
    async fn update_entity(&mut self, id: u64, entity: &EntityDraft<'_>) -> Result<(), BackendError> {
        self.write(format!("PUT {id} {}", entity.name))?;
        let mut world = self.world.borrow_mut();
        let there = world.entities.iter_mut().find(|e| e["id"] == id).ok_or(BackendError::Status(404))?;
        // The backend keeps the parent.
        let parent = there["parent"].take();
        *there = drafted(id, entity);
        there["parent"] = parent;
        Ok(())
    }
    async fn delete_entity(&mut self, id: u64) -> Result<(), BackendError> {
        self.write(format!("DELETE {id}"))?;
        self.world.borrow_mut().entities.retain(|e| e["id"] != id);
        Ok(())
    }
}
