//! Starts a stand-in backend, a ping bot that pings loopback addresses and a custom bot, and shows what they do: in a
//! terminal as a view that is drawn anew a few times a second, else as plain lines.
//!
//! `grafolean-demo [--for 30s] [--plain]`: without `--for` it runs until Ctrl-C.

#![forbid(unsafe_code)]

mod plain;
mod view;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use grafolean_bot_host::HostBot;
use grafolean_bot_host::linux::ProcReadings;
use grafolean_bot_ping::PingBot;
use grafolean_bots::pinger::IcmpPinger;
use grafolean_icmp::{Icmp, IcmpConfig};
use grafolean_stand_in::{Config as BackendConfig, Misbehaviour, Rule, StandIn};
use grafolean_std::core::interval::Interval;
use grafolean_std::core::jobs::JobKey;
use grafolean_std::driver::{Config, Observer, Report, Runner, stop_signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use plain::{Lines, show_arrivals};
use view::{Seen, Source, View, terminal};

const USAGE: &str = "\
Usage: grafolean-demo [--for 30s] [--plain]

  --for TIME  ends after this time: 30s, 2m, 500ms; else it runs until Ctrl-C
  --plain     prints lines; else it shows a view where standard input and output are a terminal

In the view: q, Esc or Ctrl-C ends it, arrow keys, PgUp, PgDn, Home and End move in the table of jobs.
Environment: TERM (dumb: lines), NO_COLOR (not empty: no colours).
";

/// The bots by their numbers.
const BOTS: [&str; 2] = ["ping", "host"];

/// `println!` for a reader that may have gone (`| head`), which is no reason to panic.
macro_rules! say {
    ($($text:tt)*) => {
        let _ = writeln!(std::io::stdout(), $($text)*);
    };
}

/// How long the stand-in takes for each list that a bot fetches.
const LIST_DELAY: Duration = Duration::from_millis(300);

/// How often the custom bot posts, in seconds.
const HOST_INTERVAL_S: i64 = 2;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Usage,
    Run { limit: Option<Duration>, plain: bool },
}

fn main() -> ExitCode {
    let (limit, plain) = match arguments(std::env::args().skip(1)) {
        Ok(Command::Run { limit, plain }) => (limit, plain),
        Ok(Command::Usage) => {
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
    let with_view = !plain && terminal::is_able();
    let code = match runtime.block_on(demo(limit, with_view)) {
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

fn arguments(mut args: impl Iterator<Item = String>) -> Result<Command, String> {
    let (mut limit, mut plain) = (None, false);
    while let Some(arg) = args.next() {
        let time = match arg.as_str() {
            "--help" | "-h" => return Ok(Command::Usage),
            "--plain" => {
                plain = true;
                continue;
            }
            "--for" => args.next().ok_or("--for needs a time, such as 30s")?,
            _ => arg.strip_prefix("--for=").ok_or_else(|| format!("unexpected argument {arg:?}"))?.to_owned(),
        };
        if limit.replace(duration(&time)?).is_some() {
            return Err(format!("unexpected argument {arg:?}: the time was given before"));
        }
    }
    Ok(Command::Run { limit, plain })
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

async fn demo(limit: Option<Duration>, with_view: bool) -> Result<ExitCode, Box<dyn Error>> {
    let began = Instant::now();
    // First of all what this machine may not allow: the error says what is missing.
    let icmp = Icmp::open(IcmpConfig::default())?;
    let backend = BackendConfig::from_json(include_str!("../backend.json"))?;
    // As one far away: a refresh takes long enough to be watched.
    let far = Rule::new(Misbehaviour::Delay(LIST_DELAY)).method("GET").path("/accounts/*/*");
    let stand_in = Arc::new(StandIn::builder().config(backend).misbehave(far).start().await?);
    let page = stand_in.page_url();
    say!("stand-in backend at {}: one account, five devices, two bots", stand_in.base_url());
    say!("its live page: {page}");

    let seen = Seen::new(&BOTS, began);
    let observer = |bot: usize| -> Box<dyn Observer> {
        if with_view { Box::new(seen.observer(bot)) } else { Box::new(Lines { bot: BOTS[bot], began }) }
    };
    let ping = Arc::new(Runner::observed(
        PingBot::<IcmpPinger, 253>::new(IcmpPinger::new(icmp.clone())),
        config(&stand_in, "ping")?,
        observer(0),
    )?);
    let readings = ProcReadings::default();
    let name = readings.host_name().unwrap_or_else(|_| "localhost".to_owned());
    let host = Arc::new(Runner::observed(
        HostBot::new(readings, &name)?.every(Interval::new(HOST_INTERVAL_S)?),
        config(&stand_in, "custom")?,
        observer(1),
    )?);

    let (stop, stopped) = watch::channel(false);
    let stop = Arc::new(stop);
    let wait = || {
        let mut stopped = stopped.clone();
        async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    };
    let shown = if with_view {
        stop_by_signals(stop.clone())?;
        let names = stand_in.clone();
        let sources: Vec<Arc<dyn Source>> = vec![ping.clone(), host.clone()];
        let name = Box::new(move |job: &JobKey| entity_name(&names, job));
        Some(View { seen, sources, name, page, limit, stop: stop.clone() }.show()?)
    } else {
        say!("seconds  who      what");
        let (signal, stop) = (stop_signal()?, stop.clone());
        tokio::spawn(async move {
            signal.await;
            stop.send_replace(true);
        });
        None
    };
    let end = async {
        match limit {
            Some(limit) => tokio::select! { () = tokio::time::sleep(limit) => {} () = wait() => {} },
            None => wait().await,
        }
        stop.send_replace(true);
    };
    let arrivals = async {
        if !with_view {
            tokio::select! { () = show_arrivals(&stand_in, began) => {} () = wait() => {} }
        }
    };
    let (ping_report, host_report, (), ()) = tokio::join!(ping.run(wait()), host.run(wait()), end, arrivals);
    let viewed = shown.map_or(Ok(()), view::Shown::end);
    let code = summary(&stand_in, &icmp, [(BOTS[0], ping_report), (BOTS[1], host_report)], began.elapsed());
    viewed.map_err(|error| format!("the view: {error}"))?;
    Ok(code)
}

/// Has it end at SIGTERM, SIGINT or SIGHUP: at once, with exit code 130, at the second one. The terminal is given back
/// first.
fn stop_by_signals(stop: Arc<watch::Sender<bool>>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hang_up.recv() => {}
            }
            if stop.send_replace(true) {
                terminal::give_back();
                std::process::exit(130);
            }
        }
    });
    Ok(())
}

/// The name that the stand-in has for a job's entity.
fn entity_name(stand_in: &StandIn, job: &JobKey) -> Option<String> {
    let (account, entity) = (i32::try_from(job.account).ok()?, i32::try_from(job.entity).ok()?);
    stand_in.read(|backend| backend.entity(account, entity).map(|e| e.name.clone()))
}

fn config(stand_in: &StandIn, bot: &str) -> Result<Config, Box<dyn Error>> {
    let token = stand_in.token(bot).ok_or("the demo's configuration lacks a bot")?;
    let mut config = Config::new(&stand_in.base_url(), &token)?;
    config.collector.refresh_interval_s = 10;
    Ok(config)
}

fn summary(stand_in: &StandIn, icmp: &Icmp, reports: [(&str, Report); 2], took: Duration) -> ExitCode {
    let counters = stand_in.counters();
    let stats = icmp.stats();
    say!("\nafter {:.1} s", took.as_secs_f64());
    for (bot, report) in &reports {
        say!("  {bot} bot: {report}");
    }
    say!("  ICMP: {} echo requests sent, {} answered", stats.sent, stats.answered);
    let paths = stand_in.read(|b| b.paths(1).len());
    say!(
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
        say!("every value is accounted for");
        ExitCode::SUCCESS
    } else {
        say!("not as it should be: see above");
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
        let run =
            |limit: Option<u64>, plain| Ok(Command::Run { limit: limit.map(Duration::from_secs), plain });
        assert_eq!(parse(&[]), run(None, false));
        assert_eq!(parse(&["--for", "3s"]), run(Some(3), false));
        assert_eq!(parse(&["--for=3s", "--plain"]), run(Some(3), true));
        assert_eq!(parse(&["--plain", "--for", "3s"]), run(Some(3), true));
        assert_eq!(parse(&["--help"]), Ok(Command::Usage));
        for bad in [&["--for"][..], &["--nope"], &["--for", "3s", "x"], &["--for", "3s", "--for=4s"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
