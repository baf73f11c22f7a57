//! A board and a host with the same configuration do the same: they ask the same of the backend, and run the same jobs at the same
//! seconds for the same intervals.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grafolean_bot_ping::{Host, PingBot, PingFault, Pinger};
use grafolean_core::jobs::{Due, JobKey};
use grafolean_emulation::{Board, Firmware, Machine};
use grafolean_stand_in::{Config as Backend, StandIn, StandInThread};
use grafolean_std::driver::{Config, Observer, Runner};

const PATIENCE: Duration = Duration::from_secs(90);
const TOKEN: &str = "66666666-6666-4666-8666-666666666666";
/// All intervals divide it, so that grids that are counted from seconds that differ by a multiple of it are the same.
const CYCLE_S: u64 = 12;
/// The seconds whose runs are compared: without those of the first cycle, in which new jobs have their extra first runs.
const COMPARED: std::ops::Range<u64> = CYCLE_S..3 * CYCLE_S;

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

fn on_the_board() -> (Vec<Run>, Vec<String>) {
    let firmware = Firmware::build(Machine::Mps2).unwrap();
    let stand_in = backend();
    let mut board =
        Board::builder(&firmware).backend(&stand_in).setting("PING_BOT_TOKEN", TOKEN).start().unwrap();
    board.press('r').unwrap();
    board.wait_for_line(PATIENCE, &format!(" at {} for", COMPARED.end), 1).unwrap();
    let asked = asked(&stand_in);
    board.press('q').unwrap();
    assert_eq!(board.wait(PATIENCE).unwrap(), 0, "{}", board.log());
    let run = |line: &str| {
        let (job, rest) = line.strip_prefix("run ")?.split_once(" at ")?;
        let (at, intervals) = rest.split_once(" for")?;
        let intervals = intervals.split_whitespace().map(|i| i.parse().unwrap()).collect();
        Some((at.parse().unwrap(), job.to_owned(), intervals))
    };
    (board.log().lines().filter_map(run).collect(), asked)
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
}

impl Observer for Runs {
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

fn on_the_host() -> (Vec<Run>, Vec<String>) {
    let stand_in = backend();
    let mut config = Config::new(&stand_in.base_url(), TOKEN).unwrap();
    config.threads = None;
    // A host counts from 1970: it begins when a cycle begins.
    let now_ms = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let cycle_ms = CYCLE_S * 1_000;
    std::thread::sleep(Duration::from_millis(cycle_ms - now_ms() % cycle_ms + 20));
    let start_s = now_ms() / cycle_ms * CYCLE_S;
    let runs = Arc::new(Mutex::new(Vec::new()));
    let observer = Runs { start_s, runs: Arc::clone(&runs) };
    // The names that the board keeps.
    let runner = Runner::observed(PingBot::<_, 32>::new(Lab), config, observer).unwrap();
    let seen = Arc::clone(&runs);
    let enough = async move {
        while seen.lock().unwrap().last().is_none_or(|(at, ..)| *at < COMPARED.end) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limited = async { tokio::time::timeout(PATIENCE, runner.run(enough)).await };
    runtime.block_on(limited).unwrap();
    let asked = asked(&stand_in);
    let runs = runs.lock().unwrap().clone();
    (runs, asked)
}

#[test]
#[ignore = "needs QEMU"]
fn a_board_runs_the_same_jobs_at_the_same_seconds_as_a_host_and_asks_the_same_of_the_backend() {
    let ((board, board_asked), (host, host_asked)) = std::thread::scope(|scope| {
        let board = scope.spawn(on_the_board);
        let host = on_the_host();
        (board.join().unwrap(), host)
    });
    assert_eq!(board_asked, host_asked);
    let compared =
        |runs: Vec<Run>| runs.into_iter().filter(|(at, ..)| COMPARED.contains(at)).collect::<Vec<_>>();
    let (board, host) = (compared(board), compared(host));
    assert!(board.len() > 40, "{board:?}");
    assert_eq!(board, host);
}
