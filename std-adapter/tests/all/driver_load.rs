//! The driver under load: it serves everything however busy the bot is, keeps its limits, and does nothing when there is
//! nothing to do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::driver_support::*;
use crate::http_support::*;
use grafolean_std::core::bot::{Anything, Bot, Context, JobSink, NewJob};
use grafolean_std::core::interval::{Interval, Intervals};
use grafolean_std::core::jobs::Due;
use grafolean_std::driver::{Report, Runner};

/// A custom bot with so many jobs at an interval of one second.
struct Many {
    jobs: u64,
    /// Computed in each run without waiting for anything.
    computes: Duration,
    /// Slept in each run.
    sleeps_ms: u32,
    /// All runs together compute no more often than this, so that a test that fails also ends.
    most: usize,
    runs: AtomicUsize,
}

impl Default for Many {
    fn default() -> Self {
        Many { jobs: 1, computes: Duration::ZERO, sleeps_ms: 0, most: usize::MAX, runs: AtomicUsize::new(0) }
    }
}

impl Bot for Many {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = ();
    type Error = String;

    fn protocol(&self) -> Option<&str> {
        None
    }

    fn own_jobs(&self, _account: u64, jobs: &mut dyn JobSink<()>) {
        let second = Interval::new(1).map(Intervals::one).unwrap();
        (1..=self.jobs).for_each(|n| jobs.add(NewJob::new(second, ()).item(n)));
    }

    async fn perform<C: Context<Bot = Self>>(&self, (): &(), due: &Due, cx: &mut C) -> Result<(), String> {
        let computes = self.runs.fetch_add(1, Ordering::SeqCst) < self.most;
        let began = Instant::now();
        while computes && began.elapsed() < self.computes {
            core::hint::spin_loop();
        }
        if self.sleeps_ms > 0 {
            cx.sleep_ms(self.sleeps_ms).await;
        }
        cx.value(format_args!("load.j{}", due.key.item), 1).map_err(|e| e.to_string())
    }
}

async fn run(runner: &Runner<Many>, threads: Option<usize>, stop: impl Future<Output = ()>) -> Report {
    match threads {
        None => runner.run(stop).await,
        Some(n) => runner.run_on_threads(n, stop).await.unwrap(),
    }
}

fn count_values(server: &Server) -> usize {
    server.seen.received().iter().filter(|r| kind(r) == "values").count()
}

#[tokio::test]
async fn a_bot_that_computes_without_end_still_delivers_and_stops() {
    for threads in [None, Some(1)] {
        let server = scripted(|_| None).await;
        let mut config = config(&server);
        config.collector.account = Some(1);
        // Two seconds of work each second; it ends after 40 s, for a test that fails.
        let bot = Many { jobs: 1000, computes: Duration::from_millis(2), most: 20_000, ..Many::default() };
        config.limits.runs = 100;
        let notes = Notes::default();
        let runner = Runner::observed(bot, config, notes.clone()).unwrap();
        let mut at_stop = 0;
        let stop = async {
            until("values arrive again and again", || count_values(&server) >= 3).await;
            at_stop = notes.ended();
        };
        let report = run(&runner, threads, stop).await;
        assert!(at_stop < 20_000, "what was waited for came only when the bot had ended computing");
        assert!(report.ledger.balanced() && report.ledger.delivered > 0, "{report}");
    }
}

#[tokio::test]
async fn no_more_runs_are_under_way_than_allowed_and_every_job_has_its_turn() {
    for threads in [None, Some(3)] {
        let server = scripted(|_| None).await;
        let mut config = config(&server);
        config.collector.account = Some(1);
        config.limits.runs = 2;
        let bot = Many { jobs: 12, sleeps_ms: 50, ..Many::default() };
        let notes = Notes::default();
        let runner = Runner::observed(bot, config, notes.clone()).unwrap();
        let every_job_ran = || {
            let mut runs: HashMap<u64, u32> = HashMap::new();
            notes.read(|n| n.ended.iter().for_each(|(due, _)| *runs.entry(due.key.item).or_default() += 1));
            runs.len() == 12 && runs.values().all(|n| *n >= 2)
        };
        let report = run(&runner, threads, until("every job has run twice", every_job_ran)).await;
        assert_eq!(notes.read(|n| n.most_at_once), 2);
        assert_eq!(report.ledger.collected, u64::from(report.runs.runs), "{report}");
        assert_eq!(report.ledger.delivered, report.ledger.collected, "{report}");
    }
}

/// A loop that spins has tens of thousands of turns in this time.
const WATCHED: Duration = Duration::from_millis(1500);
const FEW: u64 = 400;

#[tokio::test]
async fn the_loop_turns_only_when_there_is_something_to_do() {
    type Script = fn(&Received) -> Option<Sends>;
    let states: [(&str, Script); 6] = [
        ("all is well", |_| None),
        ("no answer to anything", |_| Some(Sends::Nothing)),
        ("no answer to values", |r| (kind(r) == "values").then_some(Sends::Nothing)),
        ("access denied", |_| Some(json(401, "no"))),
        ("errors", |_| Some(json(500, "no"))),
        ("values refused", |r| (kind(r) == "values").then(|| json(400, "Input validation failed: x"))),
    ];
    let watch = |state: &'static str, script: Script, jobs: u64, runs: usize| async move {
        let server = scripted(script).await;
        let mut config = config(&server);
        config.collector.account = Some(1);
        config.limits.runs = runs;
        // With one run at a time, others are always ready and must wait.
        let bot = Many { jobs, sleeps_ms: 100, ..Many::default() };
        (config.stop_runs, config.stop_flush) = (Duration::from_millis(200), Duration::from_millis(200));
        let runner = Runner::new(bot, config).unwrap();
        let report = runner.run(tokio::time::sleep(WATCHED)).await;
        assert!(report.ledger.balanced() && report.ledger.collected > 0, "{state}: {report}");
        let work = u64::from(report.runs.runs) + server.seen.received().len() as u64;
        assert!(report.turns <= FEW + 10 * work, "{state}: {} turns for {work}", report.turns);
    };
    let cases = states
        .iter()
        .flat_map(|(state, script)| [watch(state, *script, 3, 100), watch(state, *script, 20, 1)]);
    futures_util::future::join_all(cases).await;
}

#[tokio::test]
async fn the_loop_does_not_spin_while_no_backend_listens() {
    let address = {
        let server = scripted(|_| None).await;
        server.address
    };
    let config = grafolean_std::driver::Config::new(&format!("http://{address}/api"), TOKEN).unwrap();
    let mut config = quick(config);
    config.collector.account = Some(1);
    (config.stop_runs, config.stop_flush) = (Duration::from_millis(200), Duration::from_millis(200));
    let runner = Runner::new(Many { jobs: 3, ..Many::default() }, config).unwrap();
    let report = runner.run(tokio::time::sleep(WATCHED)).await;
    assert!(report.ledger.balanced() && report.ledger.queued > 0, "{report}");
    assert!(report.turns <= FEW, "{} turns", report.turns);
}

/// A bot whose futures hold what is not `Send` over a wait. The bot itself is neither `Clone` nor `Copy`.
struct NotSendWithin;

impl Bot for NotSendWithin {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = String;
    type Error = String;

    fn protocol(&self) -> Option<&str> {
        None
    }

    fn own_jobs(&self, _account: u64, jobs: &mut dyn JobSink<String>) {
        let second = Interval::new(1).map(Intervals::one).unwrap();
        (1..=4).for_each(|n| jobs.add(NewJob::new(second, format!("rc.j{n}")).item(n)));
    }

    async fn perform<C: Context<Bot = Self>>(&self, job: &String, _: &Due, cx: &mut C) -> Result<(), String> {
        thread_local!(static RUNS: Cell<u32> = const { Cell::new(0) });
        let here = std::thread::current().id();
        let path = Rc::new(RefCell::new(String::new()));
        let writer = path.clone();
        cx.sleep_ms(20).await;
        writer.borrow_mut().push_str(job);
        RUNS.set(RUNS.get() + 1);
        cx.sleep_ms(20).await;
        if std::thread::current().id() != here {
            return Err("a run has moved to another thread".to_owned());
        }
        cx.value(&*path.borrow(), RUNS.get()).map_err(|e| e.to_string())
    }
}

#[tokio::test]
async fn a_runs_future_need_not_be_send_and_stays_on_its_thread() {
    for threads in [None, Some(2)] {
        let server = scripted(|_| None).await;
        let mut config = config(&server);
        config.collector.account = Some(1);
        let notes = Notes::default();
        let runner = Runner::observed(NotSendWithin, config, notes.clone()).unwrap();
        let stop = until("runs end", || notes.ended() >= 12);
        let report = match threads {
            None => runner.run(stop).await,
            Some(n) => runner.run_on_threads(n, stop).await.unwrap(),
        };
        assert_eq!(report.failed_runs, 0, "{report}");
        assert_eq!(report.ledger.delivered, u64::from(report.runs.runs), "{report}");
    }
}

/// A bot that can't leave its thread at all.
struct NotSend(Rc<Cell<u32>>);

impl Bot for NotSend {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = Rc<()>;
    type Error = String;

    fn protocol(&self) -> Option<&str> {
        None
    }

    fn own_jobs(&self, _account: u64, jobs: &mut dyn JobSink<Rc<()>>) {
        jobs.add(NewJob::new(Interval::new(1).map(Intervals::one).unwrap(), Rc::new(())));
    }

    async fn perform<C: Context<Bot = Self>>(&self, _: &Rc<()>, _: &Due, cx: &mut C) -> Result<(), String> {
        self.0.set(self.0.get() + 1);
        cx.value("rc.runs", self.0.get()).map_err(|e| e.to_string())
    }
}

#[tokio::test]
async fn on_one_task_the_bot_itself_need_not_be_send() {
    let server = scripted(|_| None).await;
    let mut config = config(&server);
    config.collector.account = Some(1);
    let runs = Rc::new(Cell::new(0));
    let runner = Runner::new(NotSend(runs.clone()), config).unwrap();
    let report = runner.run(until("runs", || runs.get() >= 2)).await;
    assert_eq!(report.ledger.delivered, u64::from(runs.get()), "{report}");
}
