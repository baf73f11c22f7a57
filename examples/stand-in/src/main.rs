//! The stand-in as a program: serves a configuration file, or a small demo, until it is told to stop.
#![forbid(unsafe_code)]

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use grafolean_stand_in::{Config, Event, FRONT_BODY_LIMIT, Rule, StandIn, StandInThread};
use tokio::sync::broadcast::error::RecvError;

/// A stand-in for the Grafolean backend: the bot side of its API.
#[derive(Parser, Debug)]
#[command(version)]
struct Options {
    /// Accounts and bots as JSON; without it a small demo is served.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8480")]
    listen: SocketAddr,
    /// Lets the live page and the rules be asked for by this name of this host too, besides its IP addresses and localhost; may be
    /// given several times.
    #[arg(long, value_name = "NAME")]
    host_name: Vec<String>,
    /// Keeps the values in this file; without it they are gone at the end.
    #[arg(long, value_name = "FILE")]
    db: Option<PathBuf>,
    /// What random ids and tokens follow from, in place of the configuration's seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds without a request after which a connection is closed; 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    keep_alive: f64,
    /// Longest request body in bytes; 0: no limit.
    #[arg(long, value_name = "BYTES", default_value_t = FRONT_BODY_LIMIT)]
    body_limit: usize,
    /// Misbehaves by the rules in this file, a list in JSON; see the README.
    #[arg(long, value_name = "FILE")]
    misbehave: Option<PathBuf>,
    /// Prints each value that is stored: Unix time in seconds, account, path, number.
    #[arg(long)]
    print_values: bool,
    /// Prints each request: Unix time in seconds, connection, place on it, method, path, status, and the rule of
    /// misbehaviour if one was applied.
    #[arg(long)]
    print_requests: bool,
    /// Prints the bots' tokens at the start.
    #[arg(long)]
    print_tokens: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if (0.0..=86_400.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("must be from 0 to 86400 seconds".to_owned())
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).init();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn core::error::Error>> {
    let mut config = match &options.config {
        Some(file) => Config::read(file)?,
        None => Config::demo()?,
    };
    if let Some(seed) = options.seed {
        config.seed = seed;
    }
    let seed = config.seed;
    let keep_alive = Duration::from_secs_f64(options.keep_alive);
    let mut builder = StandIn::builder()
        .config(config)
        .listen(options.listen)
        .keep_alive((!keep_alive.is_zero()).then_some(keep_alive))
        .body_limit((options.body_limit > 0).then_some(options.body_limit));
    for name in &options.host_name {
        builder = builder.host_name(name);
    }
    if let Some(file) = &options.db {
        builder = builder.db(file);
    }
    if let Some(file) = &options.misbehave {
        let rules = Rule::read(file).map_err(|error| format!("rules, {}: {error}", file.display()))?;
        for rule in rules {
            builder = builder.misbehave(rule);
        }
    }
    // Whoever has read that it is up may tell it to stop.
    let signals = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut stop = signals.block_on(async { Stop::listen() })?;
    let stand_in = builder.spawn_thread()?;
    let printer = (options.print_values || options.print_requests).then(|| {
        let events = stand_in.subscribe();
        let (values, requests) = (options.print_values, options.print_requests);
        std::thread::spawn(move || print_events(events, values, requests))
    });
    if let Err(error) = print_start(&stand_in, options.print_tokens) {
        tracing::warn!(%error, "the start could not be printed");
    }
    tracing::info!(url = stand_in.base_url(), seed, "listening");

    signals.block_on(stop.asked());
    drop(signals);
    tracing::info!(counters = ?stand_in.counters(), "stopping");
    stand_in.shutdown();
    drop(stand_in);
    if let Some(printer) = printer {
        let _ = printer.join();
    }
    Ok(())
}

fn print_start(stand_in: &StandInThread, tokens: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "backend {}", stand_in.base_url())?;
    writeln!(out, "live page: {}", stand_in.page_url())?;
    let bots = stand_in.read(|b| b.bots().to_vec());
    for bot in bots {
        let kind = match bot.tied_to_account {
            Some(account) => format!("account {account}"),
            None => "systemwide".to_owned(),
        };
        let protocol = bot.protocol.as_deref().unwrap_or("custom");
        write!(out, "bot {} ({}, {protocol}, {kind}, user id {})", bot.short_name, bot.name, bot.id)?;
        match bot.token {
            Some(token) if tokens => writeln!(out, " token {}", token.reveal())?,
            _ => writeln!(out)?,
        }
    }
    out.flush()
}

fn print_events(mut events: tokio::sync::broadcast::Receiver<Event>, values: bool, requests: bool) {
    loop {
        match events.blocking_recv() {
            Ok(event) => {
                if print_event(&mut std::io::stdout().lock(), &event, values, requests).is_err() {
                    tracing::warn!("nobody reads the output any more; printing stops");
                    return;
                }
            }
            Err(RecvError::Lagged(lost)) => {
                tracing::warn!(lost, "events came faster than they could be printed")
            }
            Err(RecvError::Closed) => return,
        }
    }
}

fn print_event(out: &mut impl Write, event: &Event, values: bool, requests: bool) -> std::io::Result<()> {
    let seconds = |us: i64| format!("{}.{:06}", us.div_euclid(1_000_000), us.rem_euclid(1_000_000));
    match event {
        Event::Value(value) if values => {
            writeln!(out, "value {} {} {} {}", seconds(value.time_us), value.account, value.path, value.value)
        }
        Event::Request(request) if requests => {
            let status = request.status.map_or_else(|| "closed".to_owned(), |s| s.to_string());
            let rule = request.misbehaved.map_or_else(String::new, |id| format!(" by rule {id}"));
            writeln!(
                out,
                "request {} {} {} {} {} {status}{rule}",
                seconds(request.time_us),
                request.connection,
                request.nth_on_connection,
                request.method,
                request.path
            )
        }
        _ => Ok(()),
    }
}

/// The signals that ask it to stop: Ctrl-C, and SIGTERM where there is such a thing.
#[cfg(unix)]
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Stop {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Stop;

#[cfg(not(unix))]
impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn asked(&mut self) {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "cannot listen for Ctrl-C");
        }
    }
}
