//! The driver and what goes wrong: backends that cut, deny, flood and hang, and runs that block, fail or panic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::driver_support::*;
use crate::http_support::*;
use grafolean_std::core::bot::{Anything, Bot, Context, EntityView, JobSink, NewJob};
use grafolean_std::core::interval::{Interval, Intervals};
use grafolean_std::core::jobs::Due;
use grafolean_std::core::journal::{Event, FaultKind, RefreshError};
use grafolean_std::driver::{Report, RunEnd, Runner};

/// What each run does.
enum Does {
    Post,
    /// Reads so many entities of its list, says so by a value, and asks for no more until its deadline.
    ReadSome(usize),
    /// Waits for a thread of the runtime that blocks, as a resolver can.
    WaitForBlocked(Arc<Gate>),
    /// Blocks its own thread.
    Block(Arc<Gate>),
    /// Fails with the number of the run in its text, unless told to run well.
    Fail(Arc<AtomicBool>),
    /// Waits, holding what panics when it is dropped.
    PanicWhenDropped,
}

/// Blocks whoever comes until it is opened.
struct Gate {
    waits: Mutex<mpsc::Receiver<()>>,
    opens: Mutex<Option<mpsc::Sender<()>>>,
    reached: AtomicUsize,
}

impl Gate {
    fn new() -> Arc<Self> {
        let (opens, waits) = mpsc::channel();
        Arc::new(Gate {
            waits: Mutex::new(waits),
            opens: Mutex::new(Some(opens)),
            reached: AtomicUsize::new(0),
        })
    }

    fn block(&self) {
        self.reached.fetch_add(1, Ordering::SeqCst);
        let _ = self.waits.lock().map(|waits| waits.recv());
    }

    /// Whether it was still closed.
    fn open(&self) -> bool {
        self.opens.lock().unwrap().take().is_some()
    }
}

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

struct TestBot {
    /// One of the scripted backend, with a job per entity; else one with a single job of its own.
    controlled: bool,
    does: Does,
    runs: AtomicUsize,
}

impl TestBot {
    fn controlled(does: Does) -> Self {
        TestBot { controlled: true, does, runs: AtomicUsize::new(0) }
    }

    fn custom(does: Does) -> Self {
        TestBot { controlled: false, does, runs: AtomicUsize::new(0) }
    }
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
        let second = Interval::new(1).map(Intervals::one).unwrap();
        jobs.add(NewJob::new(second, ()).deadline_ms(if matches!(self.does, Does::PanicWhenDropped) {
            50
        } else {
            10_000
        }));
    }

    async fn perform<C: Context<Bot = Self>>(&self, (): &(), due: &Due, cx: &mut C) -> Result<(), String> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst);
        let value = |cx: &mut C, what: &str, n: usize| {
            cx.value(format_args!("test.{}.{what}", due.key.entity), n as u64).map_err(|e| e.to_string())
        };
        match &self.does {
            Does::Post => value(cx, "run", run),
            Does::ReadSome(most) => {
                let mut buf = vec![0; 64 << 10];
                cx.list_entities().await.map_err(|e| e.to_string())?;
                for n in 1..=*most {
                    cx.next_entity(&mut buf).await.map_err(|e| e.to_string())?.ok_or("the list has ended")?;
                    value(cx, ["read0", "read1", "read2", "read3"][n.min(3)], n)?;
                }
                core::future::pending().await
            }
            Does::WaitForBlocked(gate) => {
                let gate = gate.clone();
                tokio::task::spawn_blocking(move || gate.block()).await.map_err(|e| e.to_string())
            }
            Does::Block(gate) => {
                gate.block();
                Ok(())
            }
            Does::Fail(well) => {
                value(cx, "run", run)?;
                if well.load(Ordering::SeqCst) { Ok(()) } else { Err(format!("it failed, run {run}")) }
            }
            Does::PanicWhenDropped => {
                value(cx, "run", run)?;
                let _guard = Guard;
                core::future::pending().await
            }
        }
    }
}

fn is_failure(event: &Event) -> bool {
    matches!(event, Event::RefreshFailed { .. })
        || matches!(event, Event::Fault(fault) if matches!(fault.kind, FaultKind::AccountFailed(_)))
}

fn assert_all_delivered(report: &Report) {
    let ledger = &report.ledger;
    assert!(ledger.balanced() && ledger.collected > 0, "{ledger}");
    assert_eq!((ledger.collected, ledger.queued), (ledger.delivered, 0), "{ledger}");
}

#[tokio::test]
async fn a_refresh_that_fails_in_any_way_and_at_any_list_leaves_the_jobs_running() {
    type Fault = fn(&str) -> Sends;
    let faults: [(&str, Fault); 5] = [
        ("cut", cut),
        ("error", |_| json(502, "bad gateway")),
        ("no JSON", |_| json(200, "<html>")),
        ("another kind of JSON", |_| json(200, "{\"list\": 5}")),
        ("redirect", |_| {
            Sends::Bytes(b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n".to_vec(), false)
        }),
    ];
    let lists = ["accounts", "entities", "credentials", "sensors"];
    let check = |what: &'static str, fault: Fault, list: &'static str| async move {
        let faulty = Arc::new(AtomicBool::new(false));
        let told = faulty.clone();
        let server = scripted(move |request| {
            (told.load(Ordering::SeqCst) && kind(request) == list).then(|| fault(right(list)))
        })
        .await;
        let notes = Notes::default();
        let runner =
            Runner::observed(TestBot::controlled(Does::Post), config(&server), notes.clone()).unwrap();
        let stop = async {
            until("runs end", || notes.ended() >= 2).await;
            faulty.store(true, Ordering::SeqCst);
            until("a refresh fails", || notes.events(is_failure) >= 1).await;
            let before = notes.ended();
            until("runs go on", || notes.ended() >= before + 4).await;
            let jobs = runner.inspect(|c| c.jobs(|jobs| jobs.iter().count()));
            assert_eq!(jobs, 2, "{list}: {what}");
            // And it is noticed that all is well again.
            faulty.store(false, Ordering::SeqCst);
            let good = |e: &Event| matches!(e, Event::Refreshed(s) if s.failed_accounts == 0);
            let before = notes.events(good);
            until("a refresh succeeds", || notes.events(good) > before).await;
        };
        assert_all_delivered(&runner.run(stop).await);
    };
    let cases = faults.iter().flat_map(|(what, fault)| lists.map(|list| check(what, *fault, list)));
    futures_util::future::join_all(cases).await;
}

#[tokio::test]
async fn denied_access_is_told_with_what_to_check_and_ends_when_a_refresh_is_asked_for() {
    let denied = Arc::new(AtomicBool::new(true));
    let told = denied.clone();
    let server = scripted(move |_| told.load(Ordering::SeqCst).then(|| json(401, "\"Access denied\""))).await;
    let notes = Notes::default();
    let runner = Runner::observed(TestBot::controlled(Does::Post), config(&server), notes.clone()).unwrap();
    let stop = async {
        let is_401 = |e: &Event| {
            matches!(e, Event::RefreshFailed { error: RefreshError::Status(401), retry_in_ms: 600_000 })
                && e.to_string().contains("token")
        };
        until("it is told", || notes.events(is_401) == 1).await;
        denied.store(false, Ordering::SeqCst);
        runner.refresh_soon();
        until("runs end", || notes.ended() >= 2).await;
    };
    assert_all_delivered(&runner.run(stop).await);
}

/// Serves the right answers, but a list of entities without end.
async fn endless(sent: Arc<AtomicUsize>, closed: Arc<AtomicBool>) -> Server {
    Server::start(move |mut peer| {
        let (sent, closed) = (sent.clone(), closed.clone());
        async move {
            while let Some(request) = peer.request().await {
                match kind(&request) {
                    "values" => peer.send("HTTP/1.1 204 No Content\r\n\r\n").await,
                    "entities" => {
                        peer.send(
                            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nb\r\n{\"list\": [ \r\n",
                        )
                        .await;
                        let entity = format!(
                            "{{\"id\": 5, \"name\": \"{}\", \"entity_type\": \"interface\"}},",
                            "x".repeat(2000)
                        );
                        let chunk = format!("{:x}\r\n{entity}\r\n", entity.len());
                        while peer.send(&chunk).await {
                            sent.fetch_add(chunk.len(), Ordering::SeqCst);
                        }
                        closed.store(true, Ordering::SeqCst);
                        return;
                    }
                    kind => peer.answer(200, right(kind)).await,
                };
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_list_over_the_limit_is_given_up_with_its_connection_and_told() {
    let (sent, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let server = endless(sent.clone(), closed.clone()).await;
    let mut config = config(&server);
    config.collector.list_limit_bytes = 4 << 20;
    config.collector.refresh_interval_s = 3600;
    let notes = Notes::default();
    let runner = Runner::observed(TestBot::controlled(Does::Post), config, notes.clone()).unwrap();
    runner
        .run(async {
            until("it is told", || notes.events(is_failure) >= 1).await;
            until("the connection is closed", || closed.load(Ordering::SeqCst)).await;
        })
        .await;
    assert!(sent.load(Ordering::SeqCst) >= 4 << 20);
}

#[tokio::test]
async fn a_bots_list_is_read_no_faster_than_the_bot_asks_and_is_closed_with_its_run() {
    for threads in [None, Some(2)] {
        let (sent, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let server = endless(sent.clone(), closed.clone()).await;
        let mut config = config(&server);
        config.collector.account = Some(1);
        (config.stop_runs, config.stop_flush) = (Duration::from_millis(100), Duration::from_secs(20));
        let notes = Notes::default();
        let runner = Runner::observed(TestBot::custom(Does::ReadSome(3)), config, notes.clone()).unwrap();
        let stop = async {
            until("three were read", || {
                let values = server.seen.received();
                values.iter().any(|r| String::from_utf8_lossy(&r.body).contains("test.0.read3"))
            })
            .await;
            // It does not get on any more.
            let mut last = (usize::MAX, 0);
            until("the server is held back", || {
                let now = sent.load(Ordering::SeqCst);
                last = if last.0 == now { (now, last.1 + 1) } else { (now, 0) };
                last.1 >= 50
            })
            .await;
            assert!(!closed.load(Ordering::SeqCst));
        };
        let report = match threads {
            None => runner.run(stop).await,
            Some(n) => runner.run_on_threads(n, stop).await.unwrap(),
        };
        assert_all_delivered(&report);
        assert_eq!(notes.read(|n| n.ended.last().map(|(_, end)| end.clone())), Some(RunEnd::Cancelled));
        drop(runner);
        until("the connection is closed", || closed.load(Ordering::SeqCst)).await;
    }
}

#[tokio::test]
async fn a_stop_waits_neither_for_a_blocked_thread_of_a_runtime_nor_for_a_run_that_blocks_its_own() {
    let cases: [fn(Arc<Gate>) -> Does; 2] = [Does::WaitForBlocked, Does::Block];
    for does in cases {
        let gate = Gate::new();
        let server = scripted(|_| None).await;
        let mut config = config(&server);
        config.collector.account = Some(1);
        (config.stop_runs, config.stop_flush) = (Duration::from_millis(100), Duration::from_millis(100));
        let runner = Runner::new(TestBot::custom(does(gate.clone())), config).unwrap();
        // A test that fails ends, too.
        let late = gate.clone();
        std::thread::spawn(move || {
            std::thread::sleep(PATIENCE);
            late.open();
        });
        let stop = until("it blocks", || gate.reached.load(Ordering::SeqCst) > 0);
        let report = runner.run_on_threads(2, stop).await.unwrap();
        assert!(gate.open(), "the stop came only when the thread was not blocked any more");
        assert!(report.ledger.balanced());
    }
}

#[tokio::test]
async fn a_run_that_panics_when_it_is_dropped_harms_no_other() {
    for threads in [None, Some(1)] {
        let server = scripted(|_| None).await;
        let mut config = config(&server);
        config.collector.account = Some(1);
        config.stop_runs = Duration::from_secs(20);
        let notes = Notes::default();
        let runner =
            Runner::observed(TestBot::custom(Does::PanicWhenDropped), config, notes.clone()).unwrap();
        let stop = until("runs end", || notes.ended() >= 2);
        let report = match threads {
            None => runner.run(stop).await,
            Some(n) => runner.run_on_threads(n, stop).await.unwrap(),
        };
        assert_all_delivered(&report);
        assert!(notes.read(|n| n.ended.iter().all(|(_, end)| *end == RunEnd::Panicked)));
    }
}

#[tokio::test]
async fn a_job_that_fails_is_told_once_and_again_when_it_is_well() {
    let captured = Captured::here();
    let server = scripted(|_| None).await;
    let notes = Notes::default();
    let well = Arc::new(AtomicBool::new(false));
    let runner =
        Runner::observed(TestBot::controlled(Does::Fail(well.clone())), config(&server), notes.clone())
            .unwrap();
    let stop = async {
        until("runs fail", || notes.ended() >= 8).await;
        well.store(true, Ordering::SeqCst);
        until("both jobs are well again", || captured.lines(&["INFO", "runs well again"]) >= 2).await;
    };
    let report = runner.run(stop).await;
    assert!(report.failed_runs >= 7, "{report}");
    let log = captured.text();
    assert_eq!(captured.lines(&["WARN", "it failed"]), 2, "{log}");
    assert!(captured.lines(&["DEBUG", "it failed"]) >= 5, "{log}");
    assert!(captured.lines(&["WARN", "more runs failed; 2 jobs are failing"]) >= 1, "{log}");
    assert_eq!(captured.lines(&["INFO", "runs well again"]), 2, "{log}");
}
