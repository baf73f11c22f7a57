//! The driver on simulated time, with a backend in memory.

use std::cell::{Cell, RefCell};
use std::fmt::Display;

use embassy_futures::join::join;
use embassy_time::Timer;
use grafolean_embassy::core::api::{Method, Resource, Token};
use grafolean_embassy::core::bot::{
    BackendError, Bot, Context, EntityDraft, EntityView, HandOverError, JobSink, NewJob,
};
use grafolean_embassy::core::collector::Settings;
use grafolean_embassy::core::interval::{Interval, Intervals};
use grafolean_embassy::core::jobs::{Due, JobKey};
use grafolean_embassy::core::journal::Event;
use grafolean_embassy::core::time::{Millis, UnixMillis};
use grafolean_embassy::core::values::{MAX_PATH_BYTES, PathError};
use grafolean_embassy::{DriverSettings, Observer, SetupError, Shared, run};
use serde::Deserialize;

use crate::backend::{Answer, Backend, TOKEN};
use crate::support::{now_ms, simulate};

/// A controlled bot that does what an entity's details say.
#[derive(Default)]
struct LabBot {
    under_way: Cell<u32>,
    most_under_way: Cell<u32>,
    dropped: Cell<u32>,
    /// What runs have noted.
    notes: RefCell<Vec<String>>,
    /// For the list: how many bytes the backend had given when an entity was asked for.
    given: Option<&'static Backend>,
}

#[derive(Clone, Deserialize)]
struct Task {
    #[serde(rename = "do")]
    what: heapless::String<16>,
}

#[derive(Clone, Deserialize)]
struct Packets {
    packets: u8,
}

#[derive(Clone, Deserialize)]
struct Oid {
    oid: heapless::String<16>,
}

/// Counts runs that are under way, and those dropped before their end.
struct Guard<'a>(&'a LabBot, bool);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
        if !self.1 {
            self.0.dropped.set(self.0.dropped.get() + 1);
        }
    }
}

impl LabBot {
    fn note(&self, what: impl Display) {
        self.notes.borrow_mut().push(what.to_string());
    }

    fn noted(&self, what: &str) -> usize {
        self.notes.borrow().iter().filter(|n| n.as_str() == what).count()
    }

    async fn list<C: Context<Bot = Self>>(&self, cx: &mut C) -> Result<(), BackendError> {
        cx.list_entities().await?;
        let mut buf = [0; 64];
        loop {
            cx.sleep_ms(700).await;
            let given = self.given.map_or(0, |b| b.given.get());
            match cx.next_entity(&mut buf).await {
                Ok(Some(len)) => {
                    self.note(format_args!("{given} {}", std::str::from_utf8(&buf[..len]).unwrap()))
                }
                Ok(None) => break,
                Err(e @ BackendError::TooLong { .. }) => self.note(e),
                Err(e) => return Err(e),
            }
        }
        self.note("list ended");
        Ok(())
    }

    async fn upkeep<C: Context<Bot = Self>>(&self, cx: &mut C) -> Result<(), BackendError> {
        let draft = EntityDraft {
            name: "eth0",
            entity_type: "interface",
            parent: Some(9),
            details: "{}",
            protocols: None,
        };
        let id = cx.create_entity(&draft).await?;
        self.note(format_args!("created {id}"));
        cx.update_entity(id, &draft).await?;
        cx.delete_entity(id).await?;
        self.note("upkeep ended");
        Ok(())
    }
}

impl Bot for LabBot {
    type Name = heapless::String<8>;
    type Entity = Task;
    type Credential = Packets;
    type Sensor = Oid;
    type Job = ();
    type Error = BackendError;

    fn protocol(&self) -> Option<&str> {
        Some("lab")
    }

    fn entity_jobs(&self, entity: &EntityView<'_, Self>, jobs: &mut dyn JobSink<()>) {
        let intervals = entity.intervals(jobs);
        jobs.add(NewJob::new(intervals, ()));
    }

    async fn perform<C: Context<Bot = Self>>(
        &self,
        _: &(),
        due: &Due,
        cx: &mut C,
    ) -> Result<(), BackendError> {
        self.under_way.set(self.under_way.get() + 1);
        self.most_under_way.set(self.most_under_way.get().max(self.under_way.get()));
        let mut guard = Guard(self, false);
        let id = due.key.entity;
        let task = cx.entity().unwrap();
        let result = match task.what.as_str() {
            "work" => {
                cx.sleep_ms(300).await;
                let (name, packets) = (cx.entity_name().unwrap(), cx.credential().unwrap().packets);
                let sensor = cx.sensor(0).unwrap();
                assert!(cx.sensor(1).is_none());
                cx.value(format_args!("e.{id}.{name}.{}.{}", sensor.id, sensor.details.oid), packets)
                    .unwrap();
                Ok(())
            }
            "hang" => {
                cx.value(format_args!("e.{id}.before"), 1).unwrap();
                cx.sleep_ms(u32::MAX).await;
                Ok(())
            }
            "fail" => Err(BackendError::Connection),
            "bad" => {
                let long = "a".repeat(MAX_PATH_BYTES + 5);
                let error = PathError::TooLong { len: long.len(), limit: MAX_PATH_BYTES };
                assert_eq!(cx.value(&long, 1), Err(HandOverError::Value(error.into())));
                assert!(matches!(cx.value("nan", f64::NAN), Err(HandOverError::Value(_))));
                cx.value_at(UnixMillis(1_500), "old", 1).unwrap();
                Ok(())
            }
            "count" => {
                let mut buf = [0; 4];
                let n = cx.get_state("runs", &mut buf).map_or(0, |_| buf[0]) + 1;
                cx.set_state("runs", &[n]).unwrap();
                self.note(format_args!("run {n}"));
                Ok(())
            }
            "list" => self.list(cx).await,
            "upkeep" => self.upkeep(cx).await,
            "lazy" => {
                cx.list_entities().await?;
                let mut buf = [0; 64];
                assert!(matches!(cx.next_entity(&mut buf).await, Ok(Some(_))));
                cx.sleep_ms(100_000).await;
                self.note(format_args!("given up: {}", self.given.map_or(0, |b| b.given_up.get())));
                cx.next_entity(&mut buf).await.map(|_| ())
            }
            other => panic!("{other}"),
        };
        guard.1 = true;
        drop(guard);
        result
    }
}

grafolean_embassy::core::inline_storage! {
    struct Memory for LabBot {
        accounts: 2, entities: 16, links: 4, credentials: 4, sensors: 8, jobs: 16, spare: 1, intervals: 32,
        distinct_intervals: 8, runs: 2, cells: 64, element: 1024, scratch: 128, listing: 256, states: 4,
        faults: 8, events: 8,
    }
}

/// Notes what an observer is told.
#[derive(Default)]
struct Watch {
    events: RefCell<Vec<(Event, String)>>,
    failed_runs: RefCell<Vec<(JobKey, String)>>,
    failed_requests: RefCell<Vec<String>>,
    answered: RefCell<Vec<Resource>>,
    turns: RefCell<Vec<u64>>,
}

impl Observer for Watch {
    fn event(&self, event: &Event, refused_path: &str) {
        self.events.borrow_mut().push((*event, refused_path.to_string()));
    }
    fn run_failed(&self, job: &JobKey, why: &dyn Display) {
        self.failed_runs.borrow_mut().push((*job, why.to_string()));
    }
    fn request_answered(&self, what: Resource) {
        self.answered.borrow_mut().push(what);
    }
    fn request_failed(&self, what: Resource, why: &dyn Display) {
        self.failed_requests.borrow_mut().push(format!("{what}: {why}"));
    }
    fn turn(&self, now: Millis) {
        self.turns.borrow_mut().push(now.0);
    }
}

fn settings() -> Settings {
    let token = Token::parse(TOKEN).unwrap();
    Settings { wait_until_ready: false, refresh_interval_s: 600, ..Settings::board(token, "/api") }
}

type Lab = Shared<LabBot, Memory, 2>;

fn lab() -> Lab {
    Shared::new(settings(), Memory::new())
}

/// Runs `bot` against `backend` for `seconds`, then stops within `limit_ms`.
fn run_for(bot: &LabBot, backend: &Backend, watch: &Watch, seconds: u64, limit_ms: u32) -> Lab {
    let shared = lab();
    let mut transport = backend;
    simulate(seconds + 3600, async {
        let driver_settings = DriverSettings::default();
        let driver = run(bot, &shared, &mut transport, watch, &driver_settings);
        let stop = async {
            Timer::after_secs(seconds).await;
            shared.stop(limit_ms);
        };
        let ledger = join(driver, stop).await.0.unwrap();
        assert!(ledger.balanced(), "{ledger}");
    });
    shared
}

const PROFILE: &str = r#"{"user_id":5,"user_type":"bot","record":{"protocol":"lab","tied_to_account":null}}"#;
const CREDENTIALS: &str = r#"{"list":[{"id":1,"name":"c","protocol":"lab","details":{"packets":3}}]}"#;
const SENSORS: &str =
    r#"{"list":[{"id":2,"name":"s","protocol":"lab","details":{"oid":"o1"},"default_interval":10}]}"#;

/// The entities of account 1.
macro_rules! entities {
    ($($id:literal $task:literal),*) => {
        concat!(r#"{"list":["#, entities!(@ $($id $task),*), "]}")
    };
    (@ $id:literal $task:literal) => {
        concat!(r#"{"id":"#, $id, r#","name":"n"#, $id, r#"","entity_type":"device","parent":null,"details":{"do":""#,
            $task, r#""},"protocols":{"lab":{"credential":1,"sensors":[{"sensor":2,"interval":null}],"bot":5}}}"#)
    };
    (@ $id:literal $task:literal, $($more:tt)*) => {
        concat!(entities!(@ $id $task), ",", entities!(@ $($more)*))
    };
}

fn answer(method: Method, resource: Resource, entities: &'static str) -> Answer {
    match (method, resource) {
        (Method::Get, Resource::Profile) => Answer::Is(200, PROFILE),
        (Method::Get, Resource::Accounts) => Answer::Is(200, r#"{"list":[{"id":1,"name":"a"}]}"#),
        (Method::Get, Resource::Entities(1)) => Answer::Is(200, entities),
        (Method::Get, Resource::Credentials(1)) => Answer::Is(200, CREDENTIALS),
        (Method::Get, Resource::Sensors(1)) => Answer::Is(200, SENSORS),
        (Method::Put, Resource::Values(1)) => Answer::Is(204, ""),
        (Method::Post, Resource::Entities(1)) => Answer::Is(201, r#"{"id":77}"#),
        (Method::Put | Method::Delete, Resource::Entity(1, 77)) => Answer::Is(204, ""),
        other => panic!("{other:?}"),
    }
}

fn three(method: Method, resource: Resource) -> Answer {
    answer(method, resource, entities!(11 "work", 12 "work", 13 "work"))
}

#[test]
fn a_controlled_bot_gets_its_jobs_from_the_backend_and_its_values_arrive() {
    let (bot, backend, watch) = (LabBot::default(), Backend::new(three), Watch::default());
    let shared = run_for(&bot, &backend, &watch, 60, 10_000);
    for id in [11, 12, 13] {
        let value = format!(r#"{{"p":"e.{id}.n{id}.2.o1","v":3,"t":17672256"#);
        assert!(backend.holding(&value) >= 5, "{value}");
    }
    let ledger = shared.ledger();
    assert_eq!((ledger.collected, ledger.queued), (ledger.delivered, 0), "{ledger}");
    assert!(ledger.delivered >= 15, "{ledger}");
    assert!(backend.closed.get(), "the transport was to close its connection");
    assert_eq!(bot.dropped.get(), 0);
}

#[test]
fn as_many_runs_as_there_are_workers_are_under_way_at_once() {
    let (bot, watch) = (LabBot::default(), Watch::default());
    let backend = Backend::new(|m, r| answer(m, r, entities!(11 "work", 12 "work", 13 "work", 14 "hang")));
    run_for(&bot, &backend, &watch, 60, 10_000);
    assert_eq!(bot.most_under_way.get(), 2);
}

#[test]
fn a_run_is_dropped_at_its_deadline_and_its_values_from_before_count() {
    let (bot, watch) = (LabBot::default(), Watch::default());
    let backend = Backend::new(|m, r| answer(m, r, entities!(11 "hang")));
    let shared = run_for(&bot, &backend, &watch, 60, 10_000);
    let cancelled =
        watch.events.borrow().iter().filter(|e| e.0 == Event::RunCancelled(JobKey::new(1, 11))).count();
    assert!(cancelled >= 4, "{cancelled}");
    // With the stop, the last one ends by itself or is cancelled too.
    assert_eq!(bot.dropped.get() as usize, cancelled);
    assert_eq!(bot.under_way.get(), 0);
    assert_eq!(shared.ledger().delivered as usize, cancelled);
    assert_eq!(shared.with(|c| c.counters()).cancelled as usize, cancelled);
}

#[test]
fn a_run_that_fails_is_named_with_its_job() {
    let (bot, watch) = (LabBot::default(), Watch::default());
    let backend = Backend::new(|m, r| answer(m, r, entities!(11 "fail")));
    run_for(&bot, &backend, &watch, 30, 10_000);
    let failed = watch.failed_runs.borrow();
    assert!(failed.len() >= 2);
    assert_eq!(
        failed[0],
        (JobKey::new(1, 11), "no answer from the backend, which may have done it or not".to_string())
    );
}

#[test]
fn bad_values_are_refused_one_by_one_and_a_given_time_is_kept() {
    let (bot, watch) = (LabBot::default(), Watch::default());
    let backend = Backend::new(|m, r| answer(m, r, entities!(11 "bad")));
    let shared = run_for(&bot, &backend, &watch, 15, 10_000);
    assert!(backend.holding(r#"[{"p":"old","v":1,"t":1.500}]"#) >= 1);
    assert_eq!(shared.ledger().collected, shared.ledger().delivered);
}

#[test]
fn a_jobs_state_is_there_for_its_next_run() {
    let (bot, watch) = (LabBot::default(), Watch::default());
    let backend = Backend::new(|m, r| answer(m, r, entities!(11 "count", 12 "count")));
    run_for(&bot, &backend, &watch, 35, 10_000);
    for n in 1..=3 {
        assert_eq!(bot.noted(&format!("run {n}")), 2, "{:?}", bot.notes.borrow());
    }
}

/// A list with an entity that is longer than the bot's buffer of 64 bytes.
const LIST: &str = concat!(
    r#"{"list":[{"id":1,"details":{}},{"id":2,"details":{"long":""#,
    "0123456789012345678901234567890123456789012345678901234567890123456789",
    r#""}},{"id":3,"details":{}},{"id":4,"details":{}}]}"#
);

#[test]
fn a_list_is_read_from_the_connection_as_the_bot_asks_for_entities() {
    fn lists(method: Method, resource: Resource) -> Answer {
        thread_local!(static TIMES: Cell<u32> = const { Cell::new(0) });
        match (method, resource) {
            (Method::Get, Resource::Entities(1)) if TIMES.replace(TIMES.get() + 1) > 0 => {
                Answer::Is(200, LIST)
            }
            _ => answer(method, resource, entities!(11 "list")),
        }
    }
    let backend: &'static Backend = Box::leak(Box::new(Backend::new(lists)));
    let bot = LabBot { given: Some(backend), ..LabBot::default() };
    let watch = Watch::default();
    run_for(&bot, backend, &watch, 15, 20_000);
    let notes = bot.notes.borrow();
    let ends: Vec<usize> = LIST.match_indices(r#""details":"#).map(|(at, _)| at).collect();
    // When the bot asks for the n-th entity, no more than that one has been taken, rounded up to a piece.
    let mut told = Vec::new();
    for (note, end) in notes.iter().take(4).zip(ends) {
        if let Some((given, entity)) = note.split_once(" {") {
            let given: usize = given.parse().unwrap();
            assert!(given < end + 20, "{given} bytes were given before {entity}");
            told.push(format!("{{{entity}"));
        } else {
            told.push(note.clone());
        }
    }
    let expected = [
        r#"{"id":1,"details":{}}"#,
        "longer than the buffer of 64 bytes",
        r#"{"id":3,"details":{}}"#,
        r#"{"id":4,"details":{}}"#,
    ];
    assert_eq!(told, expected);
    assert_eq!(notes[4], "list ended");
}

#[test]
fn a_list_that_nobody_reads_on_gives_its_connection_up_at_its_limit() {
    fn lists(method: Method, resource: Resource) -> Answer {
        thread_local!(static TIMES: Cell<u32> = const { Cell::new(0) });
        match (method, resource) {
            (Method::Get, Resource::Entities(1)) if TIMES.replace(TIMES.get() + 1) > 0 => {
                Answer::Is(200, LIST)
            }
            (_, Resource::Sensors(1)) => Answer::Is(
                200,
                r#"{"list":[{"id":2,"name":"s","protocol":"lab","details":{"oid":"o1"},"default_interval":300}]}"#,
            ),
            _ => answer(method, resource, entities!(11 "lazy")),
        }
    }
    let backend: &'static Backend = Box::leak(Box::new(Backend::new(lists)));
    let bot = LabBot { given: Some(backend), ..LabBot::default() };
    let watch = Watch::default();
    run_for(&bot, backend, &watch, 310, 110_000);
    assert!(bot.noted("given up: 1") == 1, "{:?}", bot.notes.borrow());
    let why = "the next entity was not asked for within 60000 ms";
    assert_eq!(watch.failed_runs.borrow()[0], (JobKey::new(1, 11), why.to_string()));
}

#[test]
fn an_answer_that_is_longer_than_it_may_be_is_not_read_to_its_end() {
    let (bot, backend, watch) = (LabBot::default(), Backend::new(three), Watch::default());
    let settings = Settings { list_limit_bytes: 200, ..settings() };
    let shared: Lab = Shared::new(settings, Memory::new());
    let mut transport = &backend;
    simulate(100, async {
        let driver_settings = DriverSettings::default();
        let stop = async {
            Timer::after_secs(5).await;
            shared.stop(0);
        };
        join(run(&bot, &shared, &mut transport, &watch, &driver_settings), stop).await.0.unwrap();
    });
    let failed = watch.failed_requests.borrow();
    assert_eq!(failed[0], "/accounts/1/entities/: answer longer than 200 bytes");
    assert!(backend.given.get() <= 200 && backend.given_up.get() >= 1);
}

#[test]
fn own_requests_of_two_runs_go_one_after_the_other() {
    let (bot, watch) = (LabBot::default(), Watch::default());
    let backend = Backend::new(|m, r| answer(m, r, entities!(11 "upkeep", 12 "upkeep")));
    run_for(&bot, &backend, &watch, 21, 10_000);
    assert!(bot.noted("upkeep ended") >= 2, "{:?}", bot.notes.borrow());
    assert_eq!(bot.noted("created 77"), bot.noted("upkeep ended"));
    let created = backend.count(Method::Post, Resource::Entities(1));
    assert_eq!(created, bot.noted("created 77"));
    assert_eq!(backend.count(Method::Put, Resource::Entity(1, 77)), created);
    assert_eq!(backend.count(Method::Delete, Resource::Entity(1, 77)), created);
    assert_eq!(
        backend.holding(r#"{"name":"eth0","entity_type":"interface","parent":9,"details":{}}"#),
        created
    );
}

#[test]
fn a_request_of_a_run_that_was_cancelled_makes_way_for_others() {
    // The list hangs: the run that waits for it is cancelled, and values of the other go on.
    fn hangs(method: Method, resource: Resource) -> Answer {
        thread_local!(static TIMES: Cell<u32> = const { Cell::new(0) });
        match (method, resource) {
            (Method::Get, Resource::Entities(1)) if TIMES.replace(TIMES.get() + 1) > 0 => Answer::Hangs,
            _ => answer(method, resource, entities!(11 "list", 12 "work")),
        }
    }
    let (bot, backend, watch) = (LabBot::default(), Backend::new(hangs), Watch::default());
    let shared = run_for(&bot, &backend, &watch, 60, 30_000);
    assert!(bot.dropped.get() >= 3);
    assert_eq!(backend.given_up.get(), bot.dropped.get());
    assert!(shared.ledger().delivered >= 4, "{}", shared.ledger());
    assert_eq!(shared.ledger().queued, 0);
}

#[test]
fn stop_lets_runs_under_way_end_and_delivers_their_values() {
    let (bot, watch) = (LabBot::default(), Watch::default());
    let shared = lab();
    let backend = Backend::new(three);
    let mut transport = &backend;
    simulate(100, async {
        let driver_settings = DriverSettings::default();
        let driver = run(&bot, &shared, &mut transport, &watch, &driver_settings);
        let stop = async {
            while bot.under_way.get() == 0 {
                Timer::after_millis(10).await;
            }
            shared.stop(60_000);
        };
        let ledger = join(driver, stop).await.0.unwrap();
        assert!(ledger.delivered >= 1 && ledger.queued == 0, "{ledger}");
    });
    assert_eq!((bot.under_way.get(), bot.dropped.get()), (0, 0));
    // It did not wait for its limit.
    assert!(now_ms() < 20_000, "{} ms", now_ms());
}

#[test]
fn stop_ends_at_its_limit_and_the_ledger_names_what_is_left() {
    fn no_values(method: Method, resource: Resource) -> Answer {
        match resource {
            Resource::Values(_) => Answer::NoConnection,
            _ => three(method, resource),
        }
    }
    let (bot, backend, watch) = (LabBot::default(), Backend::new(no_values), Watch::default());
    let shared = run_for(&bot, &backend, &watch, 30, 4_000);
    let ledger = shared.ledger();
    assert!(ledger.queued > 0 && ledger.delivered == 0, "{ledger}");
    assert_eq!(now_ms(), 34_000);
    assert!(watch.failed_requests.borrow().contains(&"/accounts/1/values/: no connection".to_string()));
    // The others were answered.
    let answered = watch.answered.borrow();
    assert!(
        answered.contains(&Resource::Profile) && answered.contains(&Resource::Entities(1)),
        "{answered:?}"
    );
    assert!(!answered.contains(&Resource::Values(1)), "{answered:?}");
}

#[test]
fn a_transport_that_hangs_is_dropped_after_the_limit_for_closing() {
    let (bot, watch) = (LabBot::default(), Watch::default());
    let backend = Backend::new(|_, _| Answer::Hangs);
    run_for(&bot, &backend, &watch, 30, 1_000);
    // The request is over when the driver ends: the transport closes at once, the limit is not needed.
    assert!(backend.closed.get());
    assert_eq!(backend.given_up.get(), 1);

    struct Deaf;
    impl grafolean_embassy::Transport for Deaf {
        async fn serve<R: grafolean_embassy::Requests>(&mut self, _: &R) {
            core::future::pending::<()>().await;
        }
    }
    let shared = lab();
    let start = now_ms();
    simulate(1_000, async {
        let stop = async {
            Timer::after_secs(1).await;
            shared.stop(0);
        };
        let driver_settings = DriverSettings::default();
        join(run(&bot, &shared, &mut Deaf, &(), &driver_settings), stop).await.0.unwrap();
    });
    assert_eq!(now_ms(), start + 3_000);
}

#[test]
fn a_backend_that_comes_back_gets_what_was_kept() {
    fn late(method: Method, resource: Resource) -> Answer {
        if now_ms() < 40_000 { Answer::Breaks } else { three(method, resource) }
    }
    let (bot, backend, watch) = (LabBot::default(), Backend::new(late), Watch::default());
    let shared = run_for(&bot, &backend, &watch, 120, 10_000);
    let ledger = shared.ledger();
    assert!(ledger.delivered >= 9 && ledger.queued == 0, "{ledger}");
    assert!(watch.events.borrow().iter().any(|(e, _)| matches!(e, Event::RefreshFailed { .. })));
}

#[test]
fn the_loop_comes_round_often_enough_for_a_watchdog() {
    let (bot, backend, watch) = (LabBot::default(), Backend::new(three), Watch::default());
    let shared = lab();
    let mut transport = &backend;
    simulate(100, async {
        let driver_settings = DriverSettings { longest_wait_ms: 900, ..DriverSettings::default() };
        let stop = async {
            Timer::after_secs(30).await;
            shared.stop(10_000);
        };
        join(run(&bot, &shared, &mut transport, &watch, &driver_settings), stop).await.0.unwrap();
    });
    let turns = watch.turns.borrow();
    let longest = turns.windows(2).map(|w| w[1] - w[0]).max().unwrap();
    assert!(longest <= 900, "{longest} ms");
    // And it does not turn without a reason: a few times for each request, run and second.
    assert!(turns.len() < 2_000, "{} turns", turns.len());
}

#[test]
fn a_refused_value_is_named_with_its_path() {
    fn refuses(method: Method, resource: Resource) -> Answer {
        match resource {
            Resource::Values(_) => Answer::Is(400, "Input validation failed: no"),
            _ => answer(method, resource, entities!(11 "work")),
        }
    }
    let (bot, backend, watch) = (LabBot::default(), Backend::new(refuses), Watch::default());
    run_for(&bot, &backend, &watch, 10, 10_000);
    assert!(
        watch.events.borrow().iter().any(|(_, path)| path == "e.11.n11.2.o1"),
        "{:?}",
        watch.events.borrow()
    );
}

#[test]
fn a_collector_with_more_runs_than_workers_or_run_before_is_refused() {
    let (bot, backend) = (LabBot::default(), Backend::new(three));
    let few: Shared<LabBot, Memory, 1> = Shared::new(settings(), Memory::new());
    let error = simulate(1, run(&bot, &few, &mut &backend, &(), &DriverSettings::default())).unwrap_err();
    assert_eq!(error, SetupError::Workers { runs: 2, workers: 1 });
    assert_eq!(error.to_string(), "memory for 2 runs at once, but 1 workers: W must be at least `runs`");
    let shared = lab();
    shared.stop(0);
    simulate(10, async {
        run(&bot, &shared, &mut &backend, &(), &DriverSettings::default()).await.unwrap();
        let again = run(&bot, &shared, &mut &backend, &(), &DriverSettings::default()).await;
        assert_eq!(again, Err(SetupError::RunBefore));
    });
}

#[test]
fn a_collector_can_lie_in_a_static_cell() {
    fn send<T: Send>(_: &T) {}
    send(&lab());
}

#[test]
fn sizes_are_printed() {
    let (bot, backend, shared) = (LabBot::default(), Backend::new(three), lab());
    let mut transport = &backend;
    let driver_settings = DriverSettings::default();
    let future = run(&bot, &shared, &mut transport, &(), &driver_settings);
    let (memory, whole) = (size_of::<Memory>(), size_of_val(&shared));
    println!(
        "16 jobs, W = 2: Shared {whole} bytes, of it memory {memory}; future {} bytes",
        size_of_val(&future)
    );
    // What is the driver's own must stay small.
    assert!(whole - memory < 4096, "{}", whole - memory);
}

#[test]
fn intervals_of_a_second_are_met_on_the_second() {
    // The clock's and the durations' rounding must not make a run late or early by a tick.
    struct Second(RefCell<Vec<u64>>);
    impl Bot for Second {
        type Name = ();
        type Entity = grafolean_embassy::core::bot::Anything;
        type Credential = grafolean_embassy::core::bot::Anything;
        type Sensor = grafolean_embassy::core::bot::Anything;
        type Job = ();
        type Error = &'static str;
        fn protocol(&self) -> Option<&str> {
            None
        }
        fn own_jobs(&self, _: u64, jobs: &mut dyn JobSink<()>) {
            jobs.add(NewJob::new(Intervals::one(Interval::new(1).unwrap()), ()));
        }
        async fn perform<C: Context<Bot = Self>>(
            &self,
            _: &(),
            _: &Due,
            cx: &mut C,
        ) -> Result<(), &'static str> {
            self.0.borrow_mut().push(cx.now().0);
            cx.value("board.t", 1).map_err(|_| "not taken")
        }
    }
    grafolean_embassy::core::inline_storage! {
        struct Small for Second {
            accounts: 1, entities: 0, links: 0, credentials: 0, sensors: 0, jobs: 1, spare: 1, intervals: 2,
            distinct_intervals: 1, runs: 1, cells: 16, element: 512, scratch: 128, listing: 0, states: 0,
            faults: 2, events: 4,
        }
    }
    let (bot, watch) = (Second(RefCell::default()), Watch::default());
    let backend = Backend::new(three);
    let shared: Shared<Second, Small, 1> = Shared::new(settings(), Small::new());
    let mut transport = &backend;
    simulate(60, async {
        let stop = async {
            Timer::after_secs(20).await;
            shared.stop(5_000);
        };
        let driver_settings = DriverSettings::default();
        join(run(&bot, &shared, &mut transport, &watch, &driver_settings), stop).await.0.unwrap();
    });
    println!("{:?}", watch.events.borrow());
    let at = bot.0.borrow();
    assert!(at.len() >= 17, "{at:?}");
    assert!(at.iter().all(|ms| ms % 1000 == 0), "{at:?}");
    assert!(at.windows(2).all(|w| w[1] - w[0] == 1000), "{at:?}");
}
