//! What an observer and a look from outside see of a bot that runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::driver_support::{Captured, Notes, config, quick, scripted};
use grafolean_core::bot::{Anything, Bot, Context, JobSink, NewJob};
use grafolean_core::config::RefreshPhase;
use grafolean_core::interval::{Interval, Intervals};
use grafolean_core::jobs::Due;
use grafolean_core::journal::Event;
use grafolean_std::driver::{Config, Observer, Runner};
use grafolean_std::http::HttpError;

/// One job, each second.
struct Ticks;

impl Bot for Ticks {
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
        jobs.add(NewJob::new(Intervals::one(Interval::new(1).unwrap()), ()));
    }

    async fn perform<C: Context<Bot = Self>>(&self, (): &(), _: &Due, cx: &mut C) -> Result<(), String> {
        cx.value("ticks", 1u8).map_err(|e| e.to_string())
    }
}

#[derive(Clone, Default)]
struct Failures(Arc<Mutex<Vec<String>>>, Notes);

impl Observer for Failures {
    fn event(&self, event: &Event, path: &str) {
        self.1.event(event, path);
    }

    fn request_failed(&self, error: &HttpError) {
        self.0.lock().unwrap().push(error.to_string());
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

#[tokio::test]
async fn every_refresh_that_finds_no_connection_is_logged_with_the_backend_and_the_cause() {
    let captured = Captured::here();
    // A port that nobody listens at.
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let url = format!("http://127.0.0.1:{port}/api");
    let mut config = quick(Config::new(&url, "55555555-5555-4555-8555-555555555555").unwrap());
    config.collector.wait_until_ready = false;
    let failures = Failures::default();
    let runner = Runner::observed(Ticks, config, failures.clone()).unwrap();
    let failed = |e: &Event| matches!(e, Event::RefreshFailed { .. });
    runner.run(until("two refreshes fail", || failures.1.events(failed) >= 2)).await;
    let peer = format!("http://127.0.0.1:{port}: no connection: ");
    let lines = captured.lines(&["WARN", "refresh failed", "next try in", &peer, "refused"]);
    assert!(lines >= 2, "{}", captured.text());
    // The cause by itself is told once.
    assert_eq!(captured.lines(&["WARN"]), lines + 1, "{}", captured.text());
    let seen = failures.0.lock().unwrap();
    assert!(seen.len() >= 2 && seen.iter().all(|text| text.starts_with(&peer)), "{seen:?}");
    assert!(!captured.text().contains("55555555"));
}

#[tokio::test]
async fn progress_and_report_are_seen_while_a_bot_runs() {
    let server = scripted(|_| None).await;
    let mut config = config(&server);
    config.collector.account = Some(7);
    let notes = Notes::default();
    let runner = Runner::observed(Ticks, config, notes.clone()).unwrap();
    assert_eq!(runner.report().turns, 0);
    let watch = async {
        until("three values are delivered", || runner.report().ledger.delivered >= 3).await;
        let report = runner.report();
        assert!(report.runs.runs >= 3 && report.turns > 0 && report.failed_runs == 0, "{report}");
        until("a refresh has ended", || runner.inspect(|c| c.refresh_progress()).phase == RefreshPhase::Idle)
            .await;
        let (progress, now) = runner.inspect(|c| (c.refresh_progress(), c.now()));
        assert!(progress.next.is_some_and(|next| next > now), "{progress:?}");
        assert_eq!(progress.requests_expected, Some(progress.requests_done));
    };
    let report = runner.run(watch).await;
    assert_eq!(report.ledger, runner.report().ledger);
    assert_eq!(runner.inspect(|c| c.refresh_progress()).next, None);
}
