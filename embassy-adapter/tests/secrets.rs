//! The token reaches no log, whatever happens.
#![cfg(feature = "log")]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "all/support/mod.rs"]
mod support;
#[path = "all/support/wire.rs"]
mod wire;

use std::fmt::Display;
use std::sync::Mutex;

use embassy_futures::join::join;
use embassy_time::Timer;
use grafolean_embassy::core::api::{BaseUrl, Resource, Token};
use grafolean_embassy::core::bot::{Anything, Bot, Context, JobSink, NewJob};
use grafolean_embassy::core::collector::Settings;
use grafolean_embassy::core::interval::{Interval, Intervals};
use grafolean_embassy::core::jobs::Due;
use grafolean_embassy::core::journal::Event;
use grafolean_embassy::http::{Http, Limits};
use grafolean_embassy::{DriverSettings, Observer, Shared, run};

use wire::{Act, Arrived, Wire, send};

const TOKEN: &str = "3bfae491-8c49-42ca-8332-0ae431d59014";

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        LINES.lock().unwrap().push(format!("{} {}", record.level(), record.args()));
    }
    fn flush(&self) {}
}

struct Bad;

impl Bot for Bad {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = ();
    type Error = &'static str;
    fn protocol(&self) -> Option<&str> {
        None
    }
    fn own_jobs(&self, _: u64, jobs: &mut dyn JobSink<()>) {
        jobs.add(NewJob::new(Intervals::one(Interval::new(5).unwrap()), ()));
    }
    async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, cx: &mut C) -> Result<(), &'static str> {
        cx.value("a", 1).map_err(|_| "not taken")?;
        Err("the thermometer is gone")
    }
}

grafolean_embassy::core::inline_storage! {
    struct Memory for Bad {
        accounts: 1, entities: 0, links: 0, credentials: 0, sensors: 0, jobs: 1, spare: 1, intervals: 2,
        distinct_intervals: 1, runs: 1, cells: 64, element: 512, scratch: 128, listing: 0, states: 0,
        faults: 8, events: 8,
    }
}

/// Prints whatever it is told.
struct Told;

impl Observer for Told {
    fn event(&self, event: &Event, path: &str) {
        LINES.lock().unwrap().push(format!("{event:?} {path}"));
    }
    fn request_failed(&self, what: Resource, why: &dyn Display) {
        LINES.lock().unwrap().push(format!("failed {what:?} {why}"));
    }
}

#[test]
fn neither_the_log_nor_the_observer_sees_the_token_and_a_repeated_failure_warns_once() {
    log::set_logger(&Lines).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    // Answers of every kind, one of them with the request in it.
    let answer = |a: &Arrived| {
        let echo = format!(
            "HTTP/1.1 307 Go\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
            a.head.replace("\r\n", " ")
        );
        if a.head.starts_with("GET") && a.connection == 1 {
            let profile = r#"{"user_id":5,"record":{"protocol":null,"tied_to_account":1}}"#;
            return vec![send(&format!(
                "HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-length: {}\r\n\r\n{profile}",
                profile.len()
            ))];
        }
        match a.connection {
            0 => vec![send(&echo), Act::Close],
            3 => vec![send(&a.head)],
            4 => vec![Act::Break],
            5 => vec![send("HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\nno"), Act::Close],
            _ => vec![Act::Close],
        }
    };
    let wire = Wire::new(&answer);
    let url = BaseUrl::parse("http://grafolean.lan:8080/api").unwrap();
    let settings =
        Settings { wait_until_ready: false, ..Settings::board(Token::parse(TOKEN).unwrap(), url.prefix) };
    let shared: Shared<Bad, Memory, 1> = Shared::new(settings, Memory::new());
    let mut buf = [0; 1024];
    let mut http = Http::new(&wire, url, &mut buf, Limits::DEFAULT).unwrap();
    let driver_settings = DriverSettings::default();
    let stop = async {
        Timer::after_secs(4_000).await;
        shared.stop(1_000);
    };
    support::simulate(4_100, join(run(&Bad, &shared, &mut http, &Told, &driver_settings), stop)).0.unwrap();
    shared.with(|c| LINES.lock().unwrap().push(format!("{c:?} {:?}", c.settings())));
    LINES.lock().unwrap().push(format!("{http:?}"));

    let lines = LINES.lock().unwrap();
    assert!(wire.connections.get() > 8 && lines.len() > 20, "{lines:#?}");
    for line in lines.iter() {
        assert!(!line.contains(&TOKEN[..8]) && !line.contains("b="), "{line}");
    }
    let clear =
        lines.iter().filter(|l| l.starts_with("WARN") && l.contains("travels in clear to grafolean.lan"));
    assert_eq!(clear.count(), 1);
    let closed = "/values/: connection closed before the end of the answer";
    let told = |level: &str| lines.iter().filter(|l| l.starts_with(level) && l.ends_with(closed)).count();
    assert!(told("WARN") <= 2 && told("DEBUG") >= 2, "{} {}", told("WARN"), told("DEBUG"));
    assert!(lines.iter().any(|l| l == "WARN job of account 1: the thermometer is gone"));
}
