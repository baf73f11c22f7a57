//! Bots with a durable outbox are killed at random moments, while the backend is away half of the time.
//!
//! It takes most of a minute, so it is run by `cargo test -p grafolean-bots --test outbox_kill -- --ignored --nocapture`.
//! `OUTBOX_SEED=n` repeats the moments and faults of a run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

mod outbox_support;
mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use grafolean_stand_in::{Misbehaviour, StandIn, StandInThread, Status};
use grafolean_std::app::init_logs;
use grafolean_std::core::bot::{Anything, Bot, Context, JobSink, NewJob};
use grafolean_std::core::interval::{Interval, Intervals};
use grafolean_std::core::jobs::Due;
use grafolean_std::driver::{Config, Runner, stop_signal};
use grafolean_std::env::Settings;
use grafolean_std::outbox::WritePolicy;
use outbox_support::*;
use support::*;

/// In each of two directories for each way of writing.
const PING_KILLS: u64 = 25;
const DIARY_KILLS: u64 = 30;
/// What the default may lose of live values, ms.
const LOSS_MS: u64 = 1_000;
/// Between two values of the bot that keeps a diary, ms.
const PACE_MS: u32 = 15;
const DIARY: &str = "OUTBOX_TEST_DIARY";
const FIRST_NUMBER: &str = "OUTBOX_TEST_FIRST_NUMBER";

/// What the backend does during one life of a bot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    Up,
    /// Values get 503.
    Overloaded,
    /// Values get no answer.
    Hangs,
    /// Values are stored, but the answer is lost.
    LosesAnswers,
    /// Nobody listens any more after this time, ms.
    Gone(u64),
}

impl Backend {
    /// Up half of the time.
    fn any(rng: &mut Rng) -> Self {
        match rng.below(8) {
            0..4 => Backend::Up,
            4 => Backend::Overloaded,
            5 => Backend::Hangs,
            6 => Backend::LosesAnswers,
            _ => Backend::Gone(100 + rng.below(700)),
        }
    }

    /// Jobs can be fetched in any case: without them a bot has no values.
    fn begin(self, stand_in: &StandInThread) {
        stand_in.restart().unwrap();
        stand_in.behave_all();
        let misbehaviour = match self {
            Backend::Up | Backend::Gone(_) => return,
            Backend::Overloaded => Misbehaviour::Status(Status::new(503)),
            Backend::Hangs => Misbehaviour::Hang,
            Backend::LosesAnswers => Misbehaviour::CloseAfterDoing,
        };
        misbehave_at_values(stand_in, misbehaviour);
    }

    /// Lets a bot live for so many ms.
    fn live(self, stand_in: &StandInThread, ms: u64) {
        let sleep = |ms| std::thread::sleep(Duration::from_millis(ms));
        match self {
            Backend::Gone(after) if after < ms => {
                sleep(after);
                stand_in.drop_connections();
                stand_in.shutdown();
                sleep(ms - after);
            }
            _ => sleep(ms),
        }
    }
}

/// Settings for a write policy.
fn settings(policy: WritePolicy) -> [(&'static str, &'static str); 1] {
    [("GRAFOLEAN_OUTBOX_WRITE", policy_name(policy))]
}

/// The ping bot is killed, and what its files held or the backend had at each kill is with the backend at the end.
fn kill_the_ping_bot(policy: WritePolicy, seed: u64) {
    let (stand_in, folder, mut rng) = (backend(6), Folder::new(), Rng(seed));
    let url = stand_in.base_url();
    let (mut safe, mut waited, mut away) = (BTreeSet::new(), 0, 0);
    for life in 0..PING_KILLS {
        // Some last long enough for the slower way to write.
        let (backend, ms) = match life % 6 {
            5 => (Backend::Overloaded, 2_500),
            _ => (Backend::any(&mut rng), 200 + rng.below(2_200)),
        };
        backend.begin(&stand_in);
        let bot = start_ping(&folder, &url, &settings(policy));
        backend.live(&stand_in, ms);
        let ended = bot.kill();
        assert!(!ended.said.contains("damaged") && !ended.said.contains("outbox can't"), "{}", ended.said);
        // In the files first: what is in neither was not acknowledged either.
        let files = in_files(&folder.outbox());
        waited += u64::from(!files.is_empty());
        away += u64::from(backend != Backend::Up);
        safe.extend(files);
        safe.extend(arrived(&stand_in));
    }
    assert!(waited > 0, "values never waited in files");

    let ledger =
        drain(&stand_in, || start_ping(&folder, &url, &settings(policy)), |s| arrived(s).is_superset(&safe));
    assert_eq!((ledger.all.starts, ledger.all.dropped), (PING_KILLS + 1, 0), "{ledger:?}");
    say(&format!(
        "ping bot, written {}: {PING_KILLS} kills, {away} with the backend away, {waited} with values in files; \
         all {} values that were there at a kill arrived; of all starts: {:?}",
        policy_name(policy),
        safe.len(),
        ledger.all
    ));
}

/// The last life: the backend is there, and all that waits arrives.
fn drain(
    stand_in: &StandInThread,
    start: impl Fn() -> Process,
    mut all_there: impl FnMut(&StandIn) -> bool,
) -> Ledger {
    Backend::Up.begin(stand_in);
    let bot = start();
    if stand_in.wait_for(LIMIT, &mut all_there).is_err() {
        panic!("values are missing; the bot said: {}", bot.said());
    }
    // Not before it knows what a signal is.
    bot.wait_for("refreshed: ");
    let ended = bot.stop();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.said);
    Ledger::of(&ended)
}

/// Hands over a value every few milliseconds, and writes down each before and after it did. What is written down outlives
/// the process as it went through `write`.
struct DiaryBot {
    diary: Mutex<File>,
    next: AtomicU64,
}

impl DiaryBot {
    fn note(&self, what: char, n: u64) {
        let line = format!("{what} {n} {}\n", unix_ms());
        self.diary.lock().unwrap().write_all(line.as_bytes()).unwrap();
    }
}

impl Bot for DiaryBot {
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
        jobs.add(NewJob::new(second, ()).deadline_ms(60_000));
    }

    async fn perform<C: Context<Bot = Self>>(&self, (): &(), _due: &Due, cx: &mut C) -> Result<(), String> {
        for _ in 0..1_000 {
            let n = self.next.fetch_add(1, Ordering::SeqCst);
            self.note('b', n);
            cx.value(format_args!("diary.n{}", n % 4), n).map_err(|e| e.to_string())?;
            self.note('a', n);
            cx.sleep_ms(PACE_MS).await;
        }
        Ok(())
    }
}

/// Not a test of its own: the process that is killed by the test below.
#[test]
fn another_process_that_keeps_a_diary() {
    let Ok(diary) = std::env::var(DIARY) else { return };
    init_logs(None).unwrap();
    let config = Config::from_env(&Settings::load().unwrap()).unwrap();
    let next = std::env::var(FIRST_NUMBER).unwrap().parse().unwrap();
    let diary = Mutex::new(File::options().append(true).create(true).open(diary).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(async {
        let stop = stop_signal().unwrap();
        Runner::new(DiaryBot { diary, next: AtomicU64::new(next) }, config).unwrap().run(stop).await
    });
    eprintln!("{report}");
}

/// A bot is killed; what it had handed over more than a second before, or written first, is in its files or arrived, and
/// what was there at any kill is with the backend at the end.
fn kill_the_bot_with_a_diary(policy: WritePolicy, seed: u64) {
    let (stand_in, folder, mut rng) = (backend(0), Folder::new(), Rng(seed));
    let (url, diary) = (stand_in.base_url(), folder.0.join("diary"));
    let start = |life: u64| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "another_process_that_keeps_a_diary", "--nocapture"]);
        let first = (life * 1_000_000).to_string();
        let more = [("BOT_TOKEN", HOST_TOKEN), (DIARY, diary.to_str().unwrap()), (FIRST_NUMBER, &first)];
        start(command, &folder, &url, &[&more, &settings(policy)[..]].concat())
    };
    let read = || std::fs::read_to_string(&diary).unwrap_or_default();
    let numbers = |s: &StandIn| -> Vec<u64> { s.values(1).into_iter().map(|v| v.value as u64).collect() };
    let (mut handed_over, mut safe) = (0, BTreeSet::new());
    // Of values that were lost: how long before the kill they had been handed over; and the longest stall.
    let (mut lost_ms, mut longest_stall_ms) = (Vec::new(), 0);
    for life in 0..DIARY_KILLS {
        let (backend, ms) = (Backend::any(&mut rng), rng.below(1_800));
        backend.begin(&stand_in);
        let began = read().len();
        let bot = start(life);
        wait_until("it hands values over", || read().len() > began);
        backend.live(&stand_in, ms);
        let at_ms = unix_ms();
        let said = bot.kill().said;
        // In the files first: what is in neither was not acknowledged either.
        safe.extend(values_in_files(&folder.outbox()).into_iter().map(|(_, n)| n.parse::<u64>().unwrap()));
        safe.extend(numbers(&stand_in));

        let text = read();
        let lines: Vec<(&str, u64, u64)> = text.get(began..).unwrap().lines().map(line).collect();
        // The longest time in the last seconds in which the process did not get on: the machine was busy with others.
        let mut stamps: Vec<u64> = lines.iter().map(|l| l.2).filter(|ms| ms + 3_000 >= at_ms).collect();
        stamps.push(at_ms);
        let stalled_ms = stamps.windows(2).map(|w| w[1].saturating_sub(w[0])).max().unwrap_or(0);
        longest_stall_ms = longest_stall_ms.max(stalled_ms);
        let returned: Vec<(u64, u64)> = lines.iter().filter(|l| l.0 == "a").map(|l| (l.1, l.2)).collect();
        handed_over += returned.len();
        let lost: Vec<(u64, u64)> = returned
            .into_iter()
            .filter(|(n, _)| !safe.contains(n))
            .map(|(n, ms)| (n, at_ms.saturating_sub(ms)))
            .collect();
        let too_old = lost.iter().any(|(_, ms)| *ms > LOSS_MS + stalled_ms);
        assert!(
            !too_old && (policy == WritePolicy::Behind || lost.is_empty()),
            "written {}, {backend:?}: lost (value, ms before the kill) {lost:?}, stalled for {stalled_ms} ms at most; the bot said: {said}",
            policy_name(policy)
        );
        lost_ms.extend(lost.into_iter().map(|(_, ms)| ms));
    }
    assert!(safe.len() > 100, "{} values are to arrive", safe.len());

    let ledger = drain(
        &stand_in,
        || start(DIARY_KILLS),
        |s| numbers(s).into_iter().collect::<BTreeSet<u64>>().is_superset(&safe),
    );
    assert_eq!((ledger.all.starts, ledger.all.dropped), (DIARY_KILLS + 1, 0), "{ledger:?}");
    let all = numbers(&stand_in);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "a value came at two times");
    say(&format!(
        "bot with a diary, written {}: {DIARY_KILLS} kills, {handed_over} values handed over, {} of them lost, the oldest \
         {} ms before its kill (longest stall of a process {longest_stall_ms} ms); of all starts: {:?}",
        policy_name(policy),
        lost_ms.len(),
        lost_ms.iter().max().unwrap_or(&0),
        ledger.all
    ));
}

/// A diary's line: what, number, Unix ms.
fn line(line: &str) -> (&str, u64, u64) {
    let mut parts = line.split(' ');
    let mut next = || parts.next().unwrap();
    let what = next();
    (what, next().parse().unwrap(), next().parse().unwrap())
}

#[test]
#[ignore = "takes most of a minute"]
fn kills_at_any_moment_lose_at_most_a_second_of_values_and_none_where_they_are_written_first() {
    let mut rng = Rng(seed());
    let pings = pings_are_allowed();
    std::thread::scope(|scope| {
        for policy in [WritePolicy::Behind, WritePolicy::First] {
            for _ in 0..2 {
                let seed = rng.next();
                if pings {
                    scope.spawn(move || kill_the_ping_bot(policy, seed));
                }
            }
            let seed = rng.next();
            scope.spawn(move || kill_the_bot_with_a_diary(policy, seed));
        }
    });
}
