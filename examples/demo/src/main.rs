//! Starts a stand-in backend, a ping bot that pings loopback addresses and a custom bot, and shows runs and values as
//! they happen.
//!
//! `grafolean-demo [--for 30s]`: without `--for` it runs until Ctrl-C.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use grafolean_bot_host::HostBot;
use grafolean_bot_host::linux::ProcReadings;
use grafolean_bot_ping::PingBot;
use grafolean_bots::pinger::IcmpPinger;
use grafolean_icmp::{Icmp, IcmpConfig};
use grafolean_stand_in::{Config as BackendConfig, Event as BackendEvent, StandIn};
use grafolean_std::core::interval::Interval;
use grafolean_std::core::jobs::Due;
use grafolean_std::core::journal::Event;
use grafolean_std::driver::{Config, Observer, Report, RunEnd, Runner, stop_signal};

const USAGE: &str = "Usage: grafolean-demo [--for 30s]\n\nWithout --for it runs until Ctrl-C.\n";

/// How often the custom bot posts, in seconds.
const HOST_INTERVAL_S: i64 = 2;

fn main() -> ExitCode {
    let limit = match arguments(std::env::args().skip(1)) {
        Ok(Some(limit)) => limit,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("grafolean-demo: {why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fault(&error),
    };
    let code = match runtime.block_on(demo(limit)) {
        Ok(code) => code,
        Err(error) => fault(&*error),
    };
    runtime.shutdown_background();
    code
}

fn fault(error: &dyn Error) -> ExitCode {
    eprintln!("grafolean-demo: {error}");
    ExitCode::FAILURE
}

/// How long to run (`None` within: for ever); `None`: only print the usage.
fn arguments(mut args: impl Iterator<Item = String>) -> Result<Option<Option<Duration>>, String> {
    let limit = match args.next().as_deref() {
        None => return Ok(Some(None)),
        Some("--help" | "-h") => return Ok(None),
        Some("--for") => args.next().ok_or("--for needs a time, such as 30s")?,
        Some(arg) => match arg.strip_prefix("--for=") {
            Some(text) => text.to_owned(),
            None => return Err(format!("unknown argument {arg:?}")),
        },
    };
    match args.next() {
        Some(more) => Err(format!("unexpected argument {more:?}")),
        None => duration(&limit).map(|d| Some(Some(d))),
    }
}

/// `30s`, `2m`, `500ms`, or plain seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let bad = || format!("{text:?} is no time: write 30s, 2m or 500ms");
    let number: u64 = number.parse().map_err(|_| bad())?;
    match unit {
        "" | "s" => Ok(Duration::from_secs(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(bad()),
    }
}

/// Prints what one bot does.
struct Lines {
    bot: &'static str,
    began: Instant,
}

impl Lines {
    fn say(&self, what: &str, text: &str) {
        // A reader that has gone (head, less) is no reason to panic within a run.
        let at = self.began.elapsed().as_secs_f64();
        let _ = writeln!(std::io::stdout(), "{at:>7.2}  {:<8} {what:<6} {text}", self.bot);
    }
}

impl Observer for Lines {
    fn event(&self, event: &Event, path: &str) {
        let what = if event.is_warning() { "warn" } else { "info" };
        self.say(what, &format!("{event}{}{path}", if path.is_empty() { "" } else { ", path " }));
    }

    fn run_began(&self, due: &Due) {
        let intervals: Vec<String> = due.affecting_seconds().map(|s| format!("{s} s")).collect();
        self.say("run", &format!("{}, due by {}, {} ms late", due.key, intervals.join(", "), due.late_ms));
    }

    fn run_ended(&self, due: &Due, end: &RunEnd, took: Duration, values: u32) {
        let end = match end {
            RunEnd::Done => "done".to_owned(),
            RunEnd::Failed(why) => format!("failed: {why}"),
            other => format!("{other:?}"),
        };
        self.say("end", &format!("{}: {end}, {values} values in {} ms", due.key, took.as_millis()));
    }
}

async fn demo(limit: Option<Duration>) -> Result<ExitCode, Box<dyn Error>> {
    let began = Instant::now();
    // First of all what this machine may not allow: the error says what is missing.
    let icmp = Icmp::open(IcmpConfig::default())?;
    let backend = BackendConfig::from_json(include_str!("../backend.json"))?;
    let stand_in = StandIn::builder().config(backend).start().await?;
    println!("stand-in backend at {}: one account, five devices, two bots", stand_in.base_url());
    println!("seconds  who      what");

    let ping = Runner::observed(
        PingBot::<IcmpPinger, 253>::new(IcmpPinger::new(icmp.clone())),
        config(&stand_in, "ping")?,
        Lines { bot: "ping", began },
    )?;
    let readings = ProcReadings::default();
    let name = readings.host_name().unwrap_or_else(|_| "localhost".to_owned());
    let host = Runner::observed(
        HostBot::new(readings, &name)?.every(Interval::new(HOST_INTERVAL_S)?),
        config(&stand_in, "custom")?,
        Lines { bot: "host", began },
    )?;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let signal = stop_signal()?;
    let end = async {
        match limit {
            Some(limit) => tokio::select! { () = tokio::time::sleep(limit) => {} () = signal => {} },
            None => signal.await,
        }
        let _ = stop.send(true);
    };
    let wait = || {
        let mut stopped = stopped.clone();
        async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    };
    let arrivals = async {
        tokio::select! { () = show_arrivals(&stand_in, began) => {} () = wait() => {} }
    };
    let (ping_report, host_report, (), ()) = tokio::join!(ping.run(wait()), host.run(wait()), end, arrivals);
    Ok(summary(&stand_in, &icmp, [("ping", ping_report), ("host", host_report)], began.elapsed()))
}

fn config(stand_in: &StandIn, bot: &str) -> Result<Config, Box<dyn Error>> {
    let token = stand_in.token(bot).ok_or("the demo's configuration lacks a bot")?;
    let mut config = Config::new(&stand_in.base_url(), &token)?;
    config.collector.refresh_interval_s = 10;
    Ok(config)
}

/// Prints the values that the backend stores.
async fn show_arrivals(stand_in: &StandIn, began: Instant) {
    let lines = Lines { bot: "backend", began };
    let mut events = stand_in.subscribe();
    loop {
        match events.recv().await {
            Ok(BackendEvent::Value(value)) => {
                lines.say("stored", &format!("{} = {}", value.path, value.value))
            }
            Ok(_) => {}
            Err(tokio::sync::broadcast::error::RecvError::Lagged(n)) => {
                lines.say("stored", &format!("... {n} more values and requests"));
            }
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn summary(stand_in: &StandIn, icmp: &Icmp, reports: [(&str, Report); 2], took: Duration) -> ExitCode {
    let counters = stand_in.counters();
    let stats = icmp.stats();
    println!("\nafter {:.1} s", took.as_secs_f64());
    for (bot, report) in &reports {
        println!("  {bot} bot: {report}");
    }
    println!("  ICMP: {} echo requests sent, {} answered", stats.sent, stats.answered);
    let paths = stand_in.read(|b| b.paths(1).len());
    println!(
        "  backend: {} values of {paths} series stored, {} requests answered",
        stand_in.value_count(),
        counters.requests
    );
    let delivered: u64 = reports.iter().map(|(_, r)| r.ledger.delivered).sum();
    let good = delivered > 0
        && stats.answered > 0
        && delivered == stand_in.value_count()
        && reports.iter().all(|(_, r)| r.ledger.balanced() && r.ledger.queued == 0);
    if good {
        println!("every value is accounted for");
        ExitCode::SUCCESS
    } else {
        println!("not as it should be: see above");
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for bad in ["", "s", "-1s", "1h", "1.5s", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn arguments_are_checked() {
        let parse = |args: &[&str]| arguments(args.iter().map(|a| (*a).to_owned()));
        assert_eq!(parse(&[]), Ok(Some(None)));
        assert_eq!(parse(&["--for", "3s"]), Ok(Some(Some(Duration::from_secs(3)))));
        assert_eq!(parse(&["--for=3s"]), Ok(Some(Some(Duration::from_secs(3)))));
        assert_eq!(parse(&["--help"]), Ok(None));
        assert!(
            parse(&["--for"]).is_err()
                && parse(&["--nope"]).is_err()
                && parse(&["--for", "3s", "x"]).is_err()
        );
    }
}
