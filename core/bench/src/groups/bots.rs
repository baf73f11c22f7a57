//! Bots that run in a program of their own (`bench --child ...`), so that its memory and processor time are theirs alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

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
    /// Jobs that remain afterwards, and are measured for another 5 s; 0: none.
    pub then: u32,
}

impl Scenario {
    fn arguments(self) -> Vec<String> {
        let Scenario { jobs, interval_s, values, spin, batch, threads, seconds, then } = self;
        let numbers = [jobs, interval_s, values, spin, batch.into(), threads as u32, seconds, then];
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
            then: n[7],
        }
    }

    /// Runs it in a child against a backend of its own.
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
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.arg("--child").arg(sink.address.port().to_string()).args(self.arguments());
        let out = command.output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{self:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
        let pairs = text.lines().filter_map(|l| l.split_once('='));
        let mut figures: Figures = pairs.filter_map(|(k, v)| Some((k.to_owned(), v.parse().ok()?))).collect();
        figures.insert("requests_of_all".to_owned(), sink.requests() as f64);
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
        window(&runner, &load, lateness, scenario.seconds, "").await;
        println!("pss_kb={}", memory_kb("Pss:"));
        if scenario.then > 0 {
            load.jobs.store(scenario.then, Relaxed);
            runner.refresh_soon();
            tokio::time::sleep(Duration::from_secs(4)).await;
            window(&runner, &load, lateness, 5, "then_").await;
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

/// What happens in so many seconds.
async fn window(runner: &Runner<Own>, load: &Load, lateness: &Lateness, seconds: u32, prefix: &str) {
    let of_each = || load.runs.iter().map(|r| r.load(Relaxed)).collect::<Vec<_>>();
    let (before, cpu, begin) = (runner.report(), cpu_s(), std::time::Instant::now());
    let first = of_each();
    lateness.clear();
    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    let (after, took) = (runner.report(), begin.elapsed().as_secs_f64());
    let live = load.jobs.load(Relaxed) as usize;
    let each: Vec<u32> = of_each().iter().zip(&first).map(|(now, then)| now - then).take(live).collect();
    let say = |name: &str, value: f64| println!("{prefix}{name}={value}");
    say("seconds", took);
    say("cpu_s", cpu_s() - cpu);
    say("runs", f64::from(after.runs.runs - before.runs.runs));
    say("missed", f64::from(after.runs.missed - before.runs.missed));
    say("delivered", (after.ledger.delivered - before.ledger.delivered) as f64);
    say("dropped", (after.ledger.dropped_total() - before.ledger.dropped_total()) as f64);
    say("runs_min", each.iter().min().copied().unwrap_or(0).into());
    say("runs_max", each.iter().max().copied().unwrap_or(0).into());
    say("late_p50_ms", lateness.percentile(0.5) as f64);
    say("late_p99_ms", lateness.percentile(0.99) as f64);
}
