//! The driver with an outbox in files: what waits outlives the process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::driver_support::*;
use crate::http_support::*;
use grafolean_std::core::bot::{Anything, Bot, Context, JobSink, NewJob};
use grafolean_std::core::interval::{Interval, Intervals};
use grafolean_std::core::jobs::Due;
use grafolean_std::driver::{Config, ConfigError, Report, Runner, StoreConfig};
use grafolean_std::outbox::{OpenError, Settings, Sync, WritePolicy};

/// Hands over some values a second, each another number, and counts its runs in a state.
struct Counter(Arc<AtomicUsize>);

impl Bot for Counter {
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
        jobs.add(NewJob::new(Interval::new(1).map(Intervals::one).unwrap(), ()));
    }

    async fn perform<C: Context<Bot = Self>>(&self, (): &(), _due: &Due, cx: &mut C) -> Result<(), String> {
        let mut buf = [0; 8];
        let runs = cx.get_state("runs", &mut buf).map_or(0, |_| u64::from_le_bytes(buf)) + 1;
        cx.set_state("runs", &runs.to_le_bytes()).map_err(|e| e.to_string())?;
        cx.value("test.runs", runs).map_err(|e| e.to_string())?;
        for i in 0..20 {
            let n = self.0.fetch_add(1, Ordering::SeqCst);
            cx.value(format_args!("test.n{n}.i{i}"), n as u64).map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

/// A directory that goes away with this.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("grafolean-driver-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a backend has stored: how often each path of `test.n..` came, and the highest `test.runs`.
#[derive(Default)]
struct Rows {
    paths: BTreeMap<String, usize>,
    runs: u64,
}

struct Backend {
    server: Server,
    up: Arc<AtomicBool>,
    rows: Arc<Mutex<Rows>>,
}

impl Backend {
    async fn new(up: bool) -> Self {
        let (up, rows) = (Arc::new(AtomicBool::new(up)), Arc::new(Mutex::new(Rows::default())));
        let (is_up, store) = (up.clone(), rows.clone());
        let server = scripted(move |request| {
            if kind(request) != "values" {
                return None;
            }
            if !is_up.load(Ordering::SeqCst) {
                return Some(json(503, ""));
            }
            let mut rows = store.lock().unwrap();
            let values: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
            for value in values.as_array().unwrap() {
                let path = value["p"].as_str().unwrap();
                if path == "test.runs" {
                    rows.runs = rows.runs.max(value["v"].as_u64().unwrap());
                } else {
                    *rows.paths.entry(path.to_owned()).or_default() += 1;
                }
            }
            None
        })
        .await;
        Backend { server, up, rows }
    }

    fn config(&self, dir: &Dir, write: WritePolicy) -> Config {
        let mut config = config(&self.server);
        config.collector.account = Some(1);
        config.stop_runs = std::time::Duration::from_millis(100);
        config.stop_flush = std::time::Duration::from_millis(100);
        let settings = Settings { write, sync: Sync::Never, ..Settings::DEFAULT };
        config.store = Some(StoreConfig { dir: dir.0.clone(), settings });
        config
    }

    fn paths(&self) -> usize {
        self.rows.lock().unwrap().paths.len()
    }
}

fn assert_kept(report: &Report) {
    assert!(report.ledger.balanced(), "{report}");
    assert_eq!(report.ledger.dropped_total(), 0, "{report}");
    assert_eq!(report.written, report.ledger.queued, "{report}");
    assert!(report.totals.is_some_and(|t| t.balanced() && t.queued == report.ledger.queued), "{report}");
}

#[tokio::test]
async fn values_that_wait_at_a_stop_are_delivered_after_the_next_start_and_states_go_on() {
    let (dir, n) = (Dir::new("stop"), Arc::new(AtomicUsize::new(0)));
    let backend = Backend::new(false).await;
    let runner = Runner::new(Counter(n.clone()), backend.config(&dir, WritePolicy::Behind)).unwrap();
    let first = soon("runs", runner.run(until("three runs", || n.load(Ordering::SeqCst) >= 60))).await;
    assert_kept(&first);
    assert!(first.ledger.delivered == 0 && first.written >= 63, "{first}");
    drop(runner);

    backend.up.store(true, Ordering::SeqCst);
    let before = n.load(Ordering::SeqCst);
    let runner = Runner::new(Counter(n.clone()), backend.config(&dir, WritePolicy::Behind)).unwrap();
    let all = || backend.paths() >= before && n.load(Ordering::SeqCst) > before;
    let second = soon("delivery", runner.run(until("all values", all))).await;
    assert_kept(&second);
    assert_eq!(second.ledger.recovered, first.ledger.queued, "{second}");
    drop(runner);

    // The last run's values may wait for the third start.
    let runner = Runner::new(Counter(n.clone()), backend.config(&dir, WritePolicy::Behind)).unwrap();
    let old = n.load(Ordering::SeqCst);
    let third = soon("delivery", runner.run(until("the rest", || backend.paths() >= old))).await;
    assert_kept(&third);
    let totals = third.totals.unwrap();
    assert_eq!((totals.lives, totals.lost), (3, 0), "{third}");
    let rows = backend.rows.lock().unwrap();
    assert!(rows.paths.values().all(|&times| times == 1), "a value was sent twice");
    assert!(rows.runs as usize * 20 >= rows.paths.len(), "the state began anew: {}", rows.runs);
}

#[tokio::test]
async fn a_collector_that_ends_without_notice_loses_nothing_that_was_written_first() {
    let (dir, n) = (Dir::new("kill"), Arc::new(AtomicUsize::new(0)));
    let backend = Backend::new(false).await;
    let runner = Runner::new(Counter(n.clone()), backend.config(&dir, WritePolicy::First)).unwrap();
    tokio::select! {
        _ = runner.run(core::future::pending()) => {}
        () = until("two runs", || n.load(Ordering::SeqCst) >= 40) => {}
    }
    drop(runner);
    backend.up.store(true, Ordering::SeqCst);
    let before = n.load(Ordering::SeqCst);
    let runner = Runner::new(Counter(n.clone()), backend.config(&dir, WritePolicy::First)).unwrap();
    let report = soon("delivery", runner.run(until("all values", || backend.paths() >= before))).await;
    assert_kept(&report);
    assert!(report.ledger.recovered >= 40, "{report}");
}

#[tokio::test]
async fn more_values_than_memory_holds_wait_in_the_files_and_all_arrive() {
    let (dir, n) = (Dir::new("small"), Arc::new(AtomicUsize::new(0)));
    let backend = Backend::new(false).await;
    let mut config = backend.config(&dir, WritePolicy::Behind);
    // Room for about 32 values.
    config.limits.outbox_bytes = 64 * 48;
    let runner = Runner::new(Counter(n.clone()), config).unwrap();
    let parked = || runner.inspect(|c| c.parked()) >= 40;
    let script = async {
        until("values are parked", parked).await;
        backend.up.store(true, Ordering::SeqCst);
        let old = n.load(Ordering::SeqCst);
        until("all of them", || backend.paths() >= old).await;
    };
    let report = soon("delivery", runner.run(script)).await;
    assert_kept(&report);
    assert!(backend.rows.lock().unwrap().paths.values().all(|&times| times == 1));
}

#[tokio::test]
async fn a_directory_in_use_or_that_is_none_is_named() {
    let dir = Dir::new("lock");
    let backend = Backend::new(true).await;
    let make = || Runner::new(Counter(Arc::default()), backend.config(&dir, WritePolicy::Behind));
    let first = make().unwrap();
    let error = make().unwrap_err();
    assert!(matches!(error, ConfigError::Store { error: OpenError::InUse, .. }), "{error}");
    assert!(error.to_string().contains(dir.0.to_str().unwrap()), "{error}");
    drop(first);
    drop(make().unwrap());
    std::fs::remove_dir_all(&dir.0).unwrap();
    std::fs::write(&dir.0, "").unwrap();
    let error = make().unwrap_err().to_string();
    assert!(error.contains("make the directory") && error.contains(dir.0.to_str().unwrap()), "{error}");
    std::fs::remove_file(&dir.0).unwrap();
}
