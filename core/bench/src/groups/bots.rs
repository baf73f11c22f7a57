//! Bots that run in a program of their own (`bench --child ...`), so that its memory and processor time are theirs alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grafolean_bot_ping::{Host, PingBot, PingFault, Pinger};
use grafolean_core::bot::{Anything, Bot, Context, HandOverError, JobSink, NewJob};
use grafolean_core::interval::{Interval, Intervals};
use grafolean_core::jobs::Due;
use grafolean_std::driver::{Config, Observer, Runner};
use nix::time::ClockId;

use super::sink::Sink;
use crate::refresh::{ACCOUNT, PROFILE, TOKEN};

/// What a child measured, by name.
pub type Figures = BTreeMap<String, f64>;

/// What a child is to do.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Jobs of its own; 0: the ping bot with a thousand devices.
    pub jobs: u32,
    /// Their interval.
    pub interval_s: u32,
    /// Values that each run posts.
    pub values: u32,
    /// What each run computes: turns of an empty loop, about 1 ns each.
    pub spin: u32,
    /// Values in a request at most.
    pub batch: u16,
    /// Threads that perform runs; 0: all in one task.
    pub threads: usize,
    /// How long is measured.
    pub seconds: u32,
    /// Jobs that remain afterwards, and then, each measured for another 5 s; 0: no such window.
    pub then: [u32; 2],
    /// Whether the age of values is looked at, which takes some processor time, too.
    pub ages: bool,
}

impl Scenario {
    fn arguments(self) -> Vec<String> {
        let Scenario { jobs, interval_s, values, spin, batch, threads, seconds, then, ages } = self;
        let [one, two] = then;
        let numbers =
            [jobs, interval_s, values, spin, batch.into(), threads as u32, seconds, one, two, ages.into()];
        numbers.map(|n| n.to_string()).to_vec()
    }

    fn parse(arguments: &[String]) -> Self {
        let n: Vec<u32> = arguments.iter().map(|a| a.parse().unwrap()).collect();
        Scenario {
            jobs: n[0],
            interval_s: n[1],
            values: n[2],
            spin: n[3],
            batch: n[4] as u16,
            threads: n[5] as usize,
            seconds: n[6],
            then: [n[7], n[8]],
            ages: n[9] == 1,
        }
    }

    /// Runs it in a child against a backend of its own. The child is a copy of this program: of a file that two processes
    /// have mapped, each would be told half.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn measure(self) -> Figures {
        let (entities, sensors, credentials) = ping_lists(1_000);
        let sink = Sink::start(&[
            ("/status/info", r#"{"db_migration_needed":false,"user_exists":true}"#),
            ("/profile", PROFILE),
            ("/accounts", r#"{"list":[{"id":7,"name":"Large"}]}"#),
            ("/accounts/7/entities", &entities),
            ("/accounts/7/sensors", &sensors),
            ("/accounts/7/credentials", &credentials),
        ]);
        let me = std::env::current_exe().unwrap();
        let copy = me.with_file_name(format!("bench-child-{}", std::process::id()));
        std::fs::copy(me, &copy).unwrap();
        let mut command = Command::new(&copy);
        command.arg("--child").arg(sink.address.port().to_string()).args(self.arguments());
        let child = command.stdout(Stdio::piped()).spawn();
        std::fs::remove_file(copy).unwrap();
        let mut child = child.unwrap();
        let mut figures = Figures::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            let Some((name, value)) = line.split_once('=') else { continue };
            figures.insert(name.to_owned(), value.parse().unwrap());
            // What the sink counts is told apart where a window begins and ends.
            if let Some(prefix) = name.strip_suffix("window") {
                let before = figures.get(&format!("{prefix}requests")).copied().unwrap_or(0.0);
                figures.insert(format!("{prefix}requests"), sink.requests() as f64 - before);
            }
        }
        assert!(child.wait().unwrap().success(), "{self:?}: {figures:?}");
        figures
    }
}

/// Its jobs do nothing, or post a few values.
struct Own {
    load: Arc<Load>,
    interval: Interval,
    values: u32,
    spin: u32,
}

/// What is shared with who measures.
struct Load {
    /// How many jobs there are to be.
    jobs: AtomicU32,
    /// Of each job; empty if it does not matter.
    runs: Vec<AtomicU32>,
}

impl Bot for Own {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = ();
    type Error = HandOverError;

    fn protocol(&self) -> Option<&str> {
        None
    }

    fn own_jobs(&self, _: u64, jobs: &mut dyn JobSink<()>) {
        for i in 0..self.load.jobs.load(Relaxed) {
            jobs.add(NewJob::new(Intervals::one(self.interval), ()).item(i.into()));
        }
    }

    async fn perform<C: Context<Bot = Self>>(
        &self,
        _: &(),
        due: &Due,
        cx: &mut C,
    ) -> Result<(), HandOverError> {
        let item = due.key.item;
        if let Some(runs) = self.load.runs.get(item as usize) {
            runs.fetch_add(1, Relaxed);
        }
        (0..self.spin).for_each(|n| _ = std::hint::black_box(n));
        for k in 0..self.values {
            cx.value(format_args!("device.{item}.metric.{k}"), item as f64 / 8.0 + f64::from(k) / 100.0)?;
        }
        Ok(())
    }
}

/// Every device answers after 1.5 ms.
struct Lab;

impl Pinger for Lab {
    type Target = std::net::IpAddr;

    async fn resolve(&self, host: Host<'_>) -> Result<Self::Target, PingFault> {
        match host {
            Host::Ip(ip) => Ok(ip),
            Host::Name(_) => Err(PingFault::NameNotFound),
        }
    }

    async fn ping(&self, _: Self::Target, _: u32) -> Result<Option<u32>, PingFault> {
        tokio::time::sleep(Duration::from_micros(1500)).await;
        Ok(Some(1500))
    }
}

fn ping_lists(n: u32) -> (String, String, String) {
    let mut list = "{\"list\":[".to_owned();
    for i in 0..n {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(
            list,
            r#"{comma}{{"id":{},"name":"Device {i}","entity_type":"device","parent":null,"details":{{"ipv4":"10.0.{}.{}"}},"protocols":{{"ping":{{"credential":1,"sensors":[{{"sensor":2,"interval":null}}],"bot":null}}}}}}"#,
            1_000 + i,
            i / 250,
            i % 250 + 1
        );
    }
    list.push_str("]}");
    let sensors = r#"{"list":[{"id":2,"name":"Ping","protocol":"ping","default_interval":60,"details":{}}]}"#;
    let credentials = r#"{"list":[{"id":1,"name":"Ping","protocol":"ping","details":{"n_packets":"3","timeout":"1.0","retry":"0","sleep_packets":"1.0"}}]}"#;
    (list, sensors.to_owned(), credentials.to_owned())
}

/// How late runs began: in ms, each its own place up to the last one.
struct Lateness(Vec<AtomicU64>);

impl Observer for &'static Lateness {
    fn run_began(&self, due: &Due) {
        let last = self.0.len() - 1;
        if let Some(bucket) = self.0.get((due.late_ms as usize).min(last)) {
            bucket.fetch_add(1, Relaxed);
        }
    }
}

impl Lateness {
    fn clear(&self) {
        self.0.iter().for_each(|b| b.store(0, Relaxed));
    }

    fn percentile(&self, p: f64) -> usize {
        let counts: Vec<u64> = self.0.iter().map(|b| b.load(Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() as f64 * p) as u64;
        let mut sum = 0;
        let found = counts.iter().position(|c| {
            sum += c;
            sum > wanted
        });
        found.unwrap_or(0)
    }
}

fn cpu_s() -> f64 {
    Duration::from(ClockId::CLOCK_PROCESS_CPUTIME_ID.now().unwrap()).as_secs_f64()
}

/// kB of `name` in this process' memory.
fn memory_kb(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(name));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok()).unwrap_or(f64::NAN)
}

fn settings(port: &str, scenario: Scenario) -> Config {
    let mut config = Config::new(&format!("http://127.0.0.1:{port}/api"), TOKEN).unwrap();
    if scenario.jobs > 0 {
        config.collector.account = Some(ACCOUNT);
        // All values of a second may be there at once.
        config.limits.outbox_bytes = 512 << 20;
        config.collector.outbox.max_values = scenario.batch;
        if scenario.batch < 1000 {
            config.collector.outbox.linger_ms = 0;
        }
    }
    config
}

/// Does it, in the child.
pub fn child(arguments: &[String]) {
    let (port, scenario) = (&arguments[0], Scenario::parse(&arguments[1..]));
    let config = settings(port, scenario);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lateness: &'static Lateness =
        Box::leak(Box::new(Lateness((0..2_000).map(|_| AtomicU64::new(0)).collect())));
    println!("pss_before_kb={}", memory_kb("Pss:"));
    if scenario.jobs == 0 {
        let bot: PingBot<Lab> = PingBot::new(Lab);
        let runner = Runner::new(bot, config).unwrap();
        runtime.block_on(async {
            let measured = async {
                // The first runs of all devices are over then, and half of the second ones.
                tokio::time::sleep(Duration::from_secs(scenario.seconds.into())).await;
                println!("pss_kb={}", memory_kb("Pss:"));
                println!("rss_kb={}", memory_kb("Rss:"));
                println!("cpu_s={}", cpu_s());
                println!("runs={}", runner.report().runs.runs);
            };
            runner.run(measured).await;
        });
        return;
    }
    let counted = if scenario.interval_s == 1 { scenario.jobs } else { 0 };
    let load = Arc::new(Load {
        jobs: AtomicU32::new(scenario.jobs),
        runs: (0..counted).map(|_| AtomicU32::new(0)).collect(),
    });
    let interval = Interval::new(scenario.interval_s.into()).unwrap();
    let bot = Own { load: Arc::clone(&load), interval, values: scenario.values, spin: scenario.spin };
    let runner = Runner::observed(bot, config, lateness).unwrap();
    let watch = async {
        while runner.report().runs.runs == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // First runs, growing memory.
        tokio::time::sleep(Duration::from_secs(3)).await;
        window(&runner, &load, lateness, scenario, "").await;
        println!("pss_kb={}", memory_kb("Pss:"));
        println!("rss_kb={}", memory_kb("Rss:"));
        for (jobs, prefix) in scenario.then.into_iter().zip(THEN).filter(|(jobs, _)| *jobs > 0) {
            load.jobs.store(jobs, Relaxed);
            runner.refresh_soon();
            tokio::time::sleep(CALM_DOWN).await;
            window(&runner, &load, lateness, Scenario { seconds: 5, ..scenario }, prefix).await;
        }
    };
    runtime.block_on(async {
        if scenario.threads == 0 {
            runner.run(watch).await
        } else {
            runner.run_on_threads(scenario.threads, watch).await.unwrap()
        }
    });
}

/// How long the bot has for it, once there are fewer jobs: to learn of it, to end what waits.
pub const CALM_DOWN: Duration = Duration::from_secs(6);
/// What the names of figures of [`Scenario::then`] begin with.
pub const THEN: [&str; 2] = ["then_", "then2_"];

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// What happens in so many seconds. Jobs are due at whole ones: it begins and ends half a second off.
async fn window(runner: &Runner<Own>, load: &Load, lateness: &Lateness, scenario: Scenario, prefix: &str) {
    let of_each = || load.runs.iter().map(|r| r.load(Relaxed)).collect::<Vec<_>>();
    let say = |name: &str, value: f64| println!("{prefix}{name}={value}");
    tokio::time::sleep(Duration::from_millis(u64::from(1_500 - unix().subsec_millis()) % 1_000)).await;
    say("window", 0.0);
    let (before, cpu, begin) = (runner.report(), cpu_s(), unix());
    let first = of_each();
    lateness.clear();
    let end = tokio::time::Instant::now() + Duration::from_secs(scenario.seconds.into());
    let mut counts = vec![(unix(), before.ledger.collected, before.ledger.delivered)];
    // For the age of values; else it only waits.
    while scenario.ages && tokio::time::Instant::now() + AGE_STEP < end {
        tokio::time::sleep(AGE_STEP).await;
        let ledger = runner.report().ledger;
        counts.push((unix(), ledger.collected, ledger.delivered));
    }
    tokio::time::sleep_until(end).await;
    let (after, now) = (runner.report(), unix());
    say("window", 1.0);
    let live = load.jobs.load(Relaxed) as usize;
    let each: Vec<u32> = of_each().iter().zip(&first).map(|(now, then)| now - then).collect();
    let ticks = now.as_secs() - begin.as_secs();
    say("seconds", (now - begin).as_secs_f64());
    say("cpu_s", cpu_s() - cpu);
    let runs = after.runs.runs - before.runs.runs;
    say("runs", runs.into());
    say("of_due", f64::from(runs) / (live as f64 * ticks as f64));
    say("missed", f64::from(after.runs.missed - before.runs.missed));
    let (old, new) = (&before.ledger, &after.ledger);
    let delivered = new.delivered - old.delivered;
    say("delivered", delivered as f64);
    say("queued", new.queued as f64);
    say("runs_min", each.iter().take(live).min().copied().unwrap_or(0).into());
    say("runs_max", each.iter().take(live).max().copied().unwrap_or(0).into());
    say("late_p50_ms", lateness.percentile(0.5) as f64);
    say("late_p99_ms", lateness.percentile(0.99) as f64);
    if scenario.values > 0 {
        assert_eq!(new.dropped_total(), 0, "{new}");
        // As the bot itself counts; threads may be within a run at either end.
        let produced = each.iter().map(|n| u64::from(*n)).sum::<u64>() * u64::from(scenario.values);
        let within = 2 * scenario.threads as u64 * u64::from(scenario.values);
        let off = (delivered + new.queued).abs_diff(produced + old.queued);
        assert!(off <= within, "{produced} values produced; {old}, then {new}");
    }
    if scenario.ages {
        let ages = ages_ms(&counts);
        say("age_p50_ms", ages[ages.len() / 2]);
        say("age_p99_ms", ages[ages.len() * 99 / 100]);
    }
}

/// How often values handed over and delivered are counted: their age is known as exactly.
const AGE_STEP: Duration = Duration::from_millis(10);

/// How long values waited for the answer to their request, ascending. From counts of those handed over and of those delivered: the
/// outbox of one account is a queue.
fn ages_ms(counts: &[(Duration, u64, u64)]) -> Vec<f64> {
    let (first, last) = (counts[0], counts[counts.len() - 1]);
    let when = |of: fn(&(Duration, u64, u64)) -> u64, n: u64| {
        counts[counts.partition_point(|c| of(c) <= n).min(counts.len() - 1)].0
    };
    let values = first.1..last.2.max(first.1 + 1);
    let step = ((values.end - values.start) / 10_000).max(1) as usize;
    let age = |n| when(|c| c.2, n).saturating_sub(when(|c| c.1, n)).as_secs_f64() * 1e3;
    let mut ages: Vec<f64> = values.step_by(step).map(age).collect();
    ages.sort_by(f64::total_cmp);
    ages
}
