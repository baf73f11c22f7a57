//! The driver with a real stand-in backend over real sockets: on one task and on threads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::driver_support::Captured;
use grafolean_stand_in::{Config as Backend, StandIn};
use grafolean_std::core::bot::{
    Anything, BackendError, Bot, Context, EntityDraft, EntityView, JobSink, NewJob,
};
use grafolean_std::core::interval::{Interval, Intervals};
use grafolean_std::core::jobs::Due;
use grafolean_std::core::model::ListedEntity;
use grafolean_std::driver::{Config, Observer, Report, RunEnd, Runner};

const LIMIT: Duration = Duration::from_secs(30);
const BACKEND: &str = r#"{
  "seed": 3,
  "accounts": [{"id": 1, "name": "One",
    "credentials": [{"id": 11, "name": "c", "protocol": "test", "details": {"password": "hunter2"}}],
    "sensors": [{"id": 21, "name": "s", "protocol": "test", "default_interval": 1, "details": {}}],
    "entities": [
      {"id": 31, "name": "a", "entity_type": "device", "details": {"ipv4": "127.0.0.1"},
       "protocols": {"test": {"credential": 11, "bot": 41, "sensors": [{"sensor": 21, "interval": null}]}}},
      {"id": 32, "name": "b", "entity_type": "device", "details": {"ipv4": "127.0.0.2"},
       "protocols": {"test": {"credential": 11, "bot": 41, "sensors": [{"sensor": 21, "interval": 2}]}}}]}],
  "bots": [
    {"id": 41, "name": "test", "short_name": "test", "protocol": "test",
     "token": "33333333-3333-4333-8333-333333333333"},
    {"id": 42, "name": "tied", "short_name": "tied", "protocol": "custom", "tied_to_account": 1,
     "token": "44444444-4444-4444-8444-444444444444"}]
}"#;

/// What a run does.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Post,
    Fail,
    Panic,
    Hang,
    /// Lists the entities, then creates, changes and deletes one.
    Entities,
}

struct TestBot {
    controlled: bool,
    does: Does,
}

impl Bot for TestBot {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = ();
    type Error = String;

    fn protocol(&self) -> Option<&str> {
        self.controlled.then_some("test")
    }

    fn entity_jobs(&self, entity: &EntityView<'_, Self>, jobs: &mut dyn JobSink<()>) {
        let intervals = entity.intervals(jobs);
        jobs.add(NewJob::new(intervals, ()));
    }

    fn own_jobs(&self, _account: u64, jobs: &mut dyn JobSink<()>) {
        let second = Interval::new(1).map(Intervals::one).unwrap_or_default();
        jobs.add(NewJob::new(second, ()).named("own").deadline_ms(if self.does == Does::Hang {
            100
        } else {
            10_000
        }));
    }

    async fn perform<C: Context<Bot = Self>>(&self, (): &(), due: &Due, cx: &mut C) -> Result<(), String> {
        cx.value(format_args!("test.{}.began", due.key.entity), 1).map_err(|e| e.to_string())?;
        match self.does {
            Does::Post => cx.sleep_ms(5).await,
            Does::Fail => return Err("it failed".to_owned()),
            Does::Panic => panic!("it panicked"),
            Does::Hang => core::future::pending().await,
            Does::Entities => {
                let told = entities(cx).await.map_err(|e| e.to_string())?;
                cx.value(format_args!("test.{}.entities", due.key.entity), told)
                    .map_err(|e| e.to_string())?;
            }
        }
        let mut runs = [0];
        let _ = cx.get_state("runs", &mut runs);
        runs[0] += 1;
        cx.set_state("runs", &runs).map_err(|e| e.to_string())?;
        cx.value(format_args!("test.{}.runs", due.key.entity), runs[0]).map_err(|e| e.to_string())
    }
}

async fn entities<C: Context>(cx: &mut C) -> Result<u32, BackendError> {
    let mut buf = [0; 4096];
    let mut count = 0;
    cx.list_entities().await?;
    while let Some(len) = cx.next_entity(&mut buf).await? {
        let entity =
            ListedEntity::parse(&buf[..len]).map_err(|e| BackendError::Answer { offset: e.offset as u64 })?;
        assert!(entity.id > 0);
        count += 1;
    }
    let draft = EntityDraft {
        name: "made \"here\"",
        entity_type: "device",
        parent: None,
        details: r#"{"ipv4":"127.0.0.9"}"#,
        protocols: None,
    };
    let id = cx.create_entity(&draft).await?;
    cx.update_entity(id, &EntityDraft { name: "renamed", ..draft }).await?;
    cx.delete_entity(id).await?;
    Ok(count)
}

/// How runs ended.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<RunEnd>>>);

impl Observer for Ends {
    fn run_ended(&self, _due: &Due, end: &RunEnd, _took: Duration, _values: u32) {
        self.0.lock().unwrap().push(end.clone());
    }
}

async fn backend() -> StandIn {
    StandIn::builder().config(Backend::from_json(BACKEND).unwrap()).start().await.unwrap()
}

fn config(stand_in: &StandIn, bot: &str) -> Config {
    let mut config = Config::new(&stand_in.base_url(), &stand_in.token(bot).unwrap()).unwrap();
    config.collector.refresh_interval_s = 1;
    config.collector.outbox.backoff_min_ms = 50;
    config.collector.outbox.backoff_max_ms = 200;
    config
}

/// Runs a bot until a condition holds, then stops it.
async fn run_until(
    stand_in: &StandIn,
    runner: &Runner<TestBot>,
    threads: Option<usize>,
    condition: impl FnMut(&StandIn) -> bool,
) -> Report {
    let stop = async {
        stand_in.wait_for(LIMIT, condition).await.expect("the condition held in time");
    };
    match threads {
        None => runner.run(stop).await,
        Some(n) => runner.run_on_threads(n, stop).await.unwrap(),
    }
}

fn assert_all_delivered(report: &Report) {
    let ledger = &report.ledger;
    assert!(ledger.balanced(), "{ledger}");
    assert!(ledger.collected > 0, "{ledger}");
    assert_eq!((ledger.collected, ledger.queued), (ledger.delivered, 0), "{ledger}");
}

#[tokio::test]
async fn a_controlled_bot_delivers_on_one_task() {
    let stand_in = backend().await;
    let runner =
        Runner::new(TestBot { controlled: true, does: Does::Post }, config(&stand_in, "test")).unwrap();
    let report = run_until(&stand_in, &runner, None, |s| {
        s.values_of(1, "test.31.runs").len() >= 2 && !s.values_of(1, "test.32.runs").is_empty()
    })
    .await;
    assert_all_delivered(&report);
    assert_eq!(report.ledger.delivered, stand_in.value_count());
    // Each run found the state that the one before had left.
    let runs: Vec<f64> = stand_in.values_of(1, "test.31.runs").iter().map(|(_, v)| *v).collect();
    let expected: Vec<f64> = (1..=runs.len()).map(|n| n as f64).collect();
    assert_eq!(runs, expected);
}

#[tokio::test]
async fn a_controlled_bot_delivers_on_threads() {
    let stand_in = backend().await;
    let runner =
        Runner::new(TestBot { controlled: true, does: Does::Post }, config(&stand_in, "test")).unwrap();
    let report = run_until(&stand_in, &runner, Some(3), |s| s.values_of(1, "test.31.runs").len() >= 2).await;
    assert_all_delivered(&report);
    assert_eq!(report.ledger.delivered, stand_in.value_count());
}

#[tokio::test]
async fn a_custom_bot_finds_its_account_in_its_profile() {
    let stand_in = backend().await;
    let runner =
        Runner::new(TestBot { controlled: false, does: Does::Post }, config(&stand_in, "tied")).unwrap();
    let report = run_until(&stand_in, &runner, None, |s| !s.values_of(1, "test.0.runs").is_empty()).await;
    assert_all_delivered(&report);
    assert!(stand_in.requests().iter().all(|r| !r.path.contains("/accounts/?")), "it asked for the accounts");
}

#[tokio::test]
async fn a_run_that_fails_or_panics_or_hangs_harms_no_other() {
    for (does, threads) in [
        (Does::Fail, None),
        (Does::Panic, None),
        (Does::Panic, Some(2)),
        (Does::Hang, None),
        (Does::Hang, Some(2)),
    ] {
        let stand_in = backend().await;
        let ends = Ends::default();
        let mut config = config(&stand_in, "tied");
        config.stop_runs = Duration::from_millis(50);
        let runner = Runner::observed(TestBot { controlled: false, does }, config, ends.clone()).unwrap();
        let report =
            run_until(&stand_in, &runner, threads, |s| s.values_of(1, "test.0.began").len() >= 2).await;
        assert_all_delivered(&report);
        let expected = match does {
            Does::Fail => RunEnd::Failed("it failed".to_owned()),
            Does::Panic => RunEnd::Panicked,
            _ => RunEnd::Cancelled,
        };
        let ends = ends.0.lock().unwrap();
        assert!(ends.len() >= 2 && ends.iter().all(|end| *end == expected), "{ends:?}");
    }
}

#[tokio::test]
async fn entities_are_listed_created_changed_and_deleted_through_the_queue() {
    for threads in [None, Some(2)] {
        let stand_in = backend().await;
        let mut allowed = config(&stand_in, "test");
        allowed.collector.account = Some(1);
        let runner = Runner::new(TestBot { controlled: true, does: Does::Entities }, allowed).unwrap();
        let report = run_until(&stand_in, &runner, threads, |s| {
            !s.values_of(1, "test.31.entities").is_empty() && !s.values_of(1, "test.32.entities").is_empty()
        })
        .await;
        assert_all_delivered(&report);
        assert_eq!(report.failed_runs, 0);
        assert!(stand_in.values_of(1, "test.31.entities").iter().all(|(_, v)| *v >= 2.0));
        let made = |method| {
            stand_in.requests().iter().filter(|r| r.method == method && r.path.contains("entities")).count()
        };
        assert!(made("POST") >= 2 && made("PUT") >= 2 && made("DELETE") >= 2);
    }
}

#[tokio::test]
async fn values_of_an_outage_arrive_afterwards_with_their_times() {
    let stand_in = backend().await;
    let ends = Ends::default();
    let runner = Runner::observed(
        TestBot { controlled: true, does: Does::Post },
        config(&stand_in, "test"),
        ends.clone(),
    )
    .unwrap();
    let run = runner.run(async {
        stand_in.wait_for(LIMIT, |s| s.value_count() >= 2).await.expect("first values");
        stand_in.shutdown().await;
        let before = ends.0.lock().unwrap().len();
        let more = async {
            while ends.0.lock().unwrap().len() < before + 4 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, more).await.expect("runs go on while the backend is down");
        stand_in.restart().await.unwrap();
        let waiting = || runner.inspect(|c| c.ledger().queued);
        let drained = async {
            while waiting() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, drained).await.expect("the backlog drains");
    });
    let report = run.await;
    assert_all_delivered(&report);
    assert_eq!(report.ledger.delivered, stand_in.value_count());
    let times: Vec<i64> = stand_in.values_of(1, "test.31.began").iter().map(|(t, _)| *t).collect();
    // One each second, also while the backend was down.
    assert!(times.windows(2).all(|w| w[1] - w[0] < 2_500_000), "{times:?}");
}

#[tokio::test]
async fn the_token_appears_in_no_log_at_any_level_and_in_no_debug_output() {
    let captured = Captured::here();
    let stand_in = backend().await;
    let token = stand_in.token("test").unwrap();
    let mut config = config(&stand_in, "test");
    // What waits at the end is not what this is about.
    (config.stop_runs, config.stop_flush) = (Duration::from_millis(200), Duration::from_millis(200));
    assert!(!format!("{config:?}").contains(&token));
    let runner = Runner::new(TestBot { controlled: true, does: Does::Entities }, config).unwrap();
    assert!(!format!("{runner:?}").contains(&token));
    let run = runner.run(async {
        stand_in.wait_for(LIMIT, |s| s.value_count() >= 2).await.expect("values");
        // 401: the bot is gone. Then no connection at all.
        stand_in.change(|b| b.remove_bot(41)).unwrap();
        stand_in
            .wait_for(LIMIT, |s| s.counters().by_status.get(&401).is_some_and(|n| *n >= 2))
            .await
            .expect("401");
        stand_in.shutdown().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    });
    let report = run.await;
    assert!(report.ledger.balanced());
    let logs = captured.text();
    assert!(logs.contains("TRACE") && logs.contains("401"), "the log is not as expected: {logs}");
    assert!(!logs.contains(&token), "the token is in the log");
    assert!(!logs.contains("hunter2"), "a password is in the log");
}

#[tokio::test]
async fn a_bot_that_may_only_post_switches_to_post_and_goes_on() {
    let stand_in = backend().await;
    stand_in.change(|b| {
        let mut bot = b.bot(42).unwrap().clone();
        for permission in bot.permissions.iter_mut().flatten() {
            if let Some(methods) = &mut permission.methods {
                methods.retain(|m| m != "PUT");
            }
        }
        b.set_bot(bot).unwrap();
    });
    let runner =
        Runner::new(TestBot { controlled: false, does: Does::Post }, config(&stand_in, "tied")).unwrap();
    let report = run_until(&stand_in, &runner, None, |s| s.value_count() >= 4).await;
    assert!(report.ledger.balanced() && report.ledger.queued == 0, "{}", report.ledger);
    let statuses: Vec<(String, Option<u16>)> = stand_in
        .requests()
        .iter()
        .filter(|r| r.path.contains("values"))
        .map(|r| (r.method.clone(), r.status))
        .collect();
    assert!(statuses.contains(&("PUT".to_owned(), Some(403))), "{statuses:?}");
    assert!(statuses.contains(&("POST".to_owned(), Some(204))), "{statuses:?}");
}
