//! A board and a host with the same configuration do the same: they ask the same of the backend, and run the same jobs at the same
//! seconds for the same intervals, from the first second after both have their jobs.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grafolean_bot_ping::{Host, PingBot, PingFault, Pinger};
use grafolean_core::jobs::{Due, JobKey};
use grafolean_core::journal::Event;
use grafolean_emulation::{Board, Firmware, Machine};
use grafolean_stand_in::{Config as Backend, StandIn, StandInThread};
use grafolean_std::driver::{Config, Observer, Runner};

const PATIENCE: Duration = Duration::from_secs(90);
const TOKEN: &str = "66666666-6666-4666-8666-666666666666";
/// All intervals divide it, so that grids that are counted from seconds that differ by a multiple of it are the same.
const CYCLE_S: u64 = 12;
/// The first second that is not compared any more.
const END: u64 = 3 * CYCLE_S;

/// Intervals of the six devices: as many sensors as the board has room for.
const INTERVALS: [&[u32]; 6] = [&[2, 3], &[4], &[6], &[3], &[3, 4], &[4, 6]];

fn backend() -> StandInThread {
    let sensor = |n: u32| {
        format!(
            r#"{{"id": {}, "name": "s{n}", "protocol": "ping", "default_interval": {n}, "details": {{}}}}"#,
            20 + n
        )
    };
    let entity = |(n, intervals): (usize, &&[u32])| {
        let sensors: Vec<_> =
            intervals.iter().map(|i| format!(r#"{{"sensor": {}, "interval": null}}"#, 20 + i)).collect();
        format!(
            r#"{{"id": {}, "name": "d{n}", "entity_type": "device", "details": {{"ipv4": "10.0.2.2"}},
               "protocols": {{"ping": {{"credential": 11, "bot": 41, "sensors": [{}]}}}}}}"#,
            31 + n,
            sensors.join(",")
        )
    };
    let text = format!(
        r#"{{"seed": 5, "accounts": [{{"id": 1, "name": "Boards",
          "credentials": [{{"id": 11, "name": "c", "protocol": "ping", "details": {{"n_packets": 1, "timeout": 0.5}}}}],
          "sensors": [{}], "entities": [{}]}}],
          "bots": [{{"id": 41, "name": "ping", "short_name": "ping", "protocol": "ping", "token": "{TOKEN}"}}]}}"#,
        [2, 3, 4, 6].map(sensor).join(","),
        INTERVALS.iter().enumerate().map(entity).collect::<Vec<_>>().join(",")
    );
    StandIn::builder().config(Backend::from_json(&text).unwrap()).spawn_thread().unwrap()
}

/// What was asked of the backend, without values.
fn asked(stand_in: &StandIn) -> Vec<String> {
    let requests = stand_in.requests();
    requests.iter().filter(|r| r.method == "GET").map(|r| format!("{} {}", r.method, r.path)).collect()
}

/// A run: its second, its job, the intervals that it is for.
type Run = (u64, String, Vec<u32>);

/// What a side has done.
struct Seen {
    runs: Vec<Run>,
    asked: Vec<String>,
    /// The second in which its first configuration was complete, and its jobs made.
    committed: u64,
}

fn on_the_board() -> Seen {
    let firmware = Firmware::build(Machine::Mps2).unwrap();
    let stand_in = backend();
    let board = Board::builder(&firmware).backend(&stand_in).setting("PING_BOT_TOKEN", TOKEN);
    let mut board = board.setting("PING_GRID_ONLY", "1").start().unwrap();
    board.press('r').unwrap();
    board.wait_for_line(PATIENCE, "refreshed: ", 1).unwrap();
    // Its clock, as soon as that was seen.
    board.press('s').unwrap();
    let line = board.wait_for_line(PATIENCE, "report stack: ", 1).unwrap();
    let ms = line.rsplit_once("after ").unwrap().1.trim_end_matches(" ms");
    let committed = ms.parse::<u64>().unwrap() / 1_000;
    board.wait_for_line(PATIENCE, &format!(" at {END} for"), 1).unwrap();
    let asked = asked(&stand_in);
    board.press('q').unwrap();
    assert_eq!(board.wait(PATIENCE).unwrap(), 0, "{}", board.log());
    let run = |line: &str| {
        let (job, rest) = line.strip_prefix("run ")?.split_once(" at ")?;
        let (at, intervals) = rest.split_once(" for")?;
        let intervals = intervals.split_whitespace().map(|i| i.parse().unwrap()).collect();
        Some((at.parse().unwrap(), job.to_owned(), intervals))
    };
    Seen { runs: board.log().lines().filter_map(run).collect(), asked, committed }
}

/// Answers at once.
struct Lab;

impl Pinger for Lab {
    type Target = IpAddr;
    async fn resolve(&self, host: Host<'_>) -> Result<IpAddr, PingFault> {
        match host {
            Host::Ip(ip) => Ok(ip),
            Host::Name(_) => Err(PingFault::NameNotFound),
        }
    }
    async fn ping(&self, _: IpAddr, _: u32) -> Result<Option<u32>, PingFault> {
        Ok(Some(1_000))
    }
}

struct Runs {
    /// The second that counts as 0.
    start_s: u64,
    runs: Arc<Mutex<Vec<Run>>>,
    committed: Arc<OnceLock<u64>>,
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

impl Observer for Runs {
    fn event(&self, event: &Event, _: &str) {
        if let Event::Refreshed(_) = event {
            self.committed.get_or_init(|| unix_ms() / 1_000 - self.start_s);
        }
    }

    fn run_began(&self, due: &Due) {
        let JobKey { account, entity, item, name } = due.key;
        let run = (
            due.scheduled.0 - self.start_s,
            format!("{account}.{entity}.{item}.{name}"),
            due.affecting_seconds().collect(),
        );
        self.runs.lock().unwrap().push(run);
    }
}

fn on_the_host() -> Seen {
    let stand_in = backend();
    let mut config = Config::new(&stand_in.base_url(), TOKEN).unwrap();
    config.threads = None;
    // A host counts from 1970: it begins when a cycle begins.
    let cycle_ms = CYCLE_S * 1_000;
    std::thread::sleep(Duration::from_millis(cycle_ms - unix_ms() % cycle_ms + 20));
    let start_s = unix_ms() / cycle_ms * CYCLE_S;
    let runs = Arc::new(Mutex::new(Vec::new()));
    let committed = Arc::new(OnceLock::new());
    let observer = Runs { start_s, runs: Arc::clone(&runs), committed: Arc::clone(&committed) };
    // The names that the board keeps.
    let runner = Runner::observed(PingBot::<_, 32>::new(Lab).grid_only(true), config, observer).unwrap();
    let seen = Arc::clone(&runs);
    let enough = async move {
        while seen.lock().unwrap().last().is_none_or(|(at, ..)| *at < END) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limited = async { tokio::time::timeout(PATIENCE, runner.run(enough)).await };
    runtime.block_on(limited).unwrap();
    let asked = asked(&stand_in);
    let runs = runs.lock().unwrap().clone();
    Seen { runs, asked, committed: *committed.get().unwrap() }
}

#[test]
#[ignore = "needs QEMU"]
fn a_board_runs_the_same_jobs_as_a_host_from_the_first_second_after_both_have_them_and_asks_the_same_of_the_backend()
 {
    let (board, host) = std::thread::scope(|scope| {
        let board = scope.spawn(on_the_board);
        let host = on_the_host();
        (board.join().unwrap(), host)
    });
    assert_eq!(board.asked, host.asked);
    let first = board.committed.max(host.committed) + 1;
    assert!(first + CYCLE_S <= END, "no whole cycle to compare: the jobs came in second {first}");
    let compared =
        |seen: Seen| seen.runs.into_iter().filter(|(at, ..)| (first..END).contains(at)).collect::<Vec<_>>();
    let (board, host) = (compared(board), compared(host));
    println!("{} runs, seconds {first} to {END}", board.len());
    assert!(board.len() > 20, "{board:?}");
    assert_eq!(board, host);
}
