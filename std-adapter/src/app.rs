//! Makes a program of a bot: settings from the environment, logs on standard error, the dry run, a graceful stop.
//!
//! ```no_run
//! # use grafolean_core::{bot::*, jobs::Due};
//! # struct MyBot; impl Bot for MyBot { type Name = (); type Entity = Anything; type Credential = Anything;
//! # type Sensor = Anything; type Job = (); type Error = &'static str; fn protocol(&self) -> Option<&str> { None }
//! # async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, _: &mut C) -> Result<(), &'static str> { Ok(()) } }
//! fn main() -> std::process::ExitCode {
//!     grafolean_std::app::main("my-bot", env!("CARGO_PKG_VERSION"), |_start| Ok(MyBot))
//! }
//! ```
//!
//! A bot with settings of its own names them for `--help` with [`Program`].

use core::future::Future;
use std::error::Error;
use std::io::{BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use grafolean_core::bot::Bot;
use grafolean_core::collector::Collector;
use tracing_subscriber::EnvFilter;

use crate::driver::{Config, Heap, Report, Runner, StoreConfig, stop_signal};
use crate::env::{Settings, SettingsError};
use crate::outbox::RealDisk;
use crate::plan::plan;

const HELP: &str = "\
Usage: NAME [--plan]

  --plan     fetch once and print, as JSON lines, the jobs that would run, what was skipped and why, and the load
  --version  print the version
  --help     print this

Settings come from the environment, or from a file .env:
  BACKEND_URL            base URL of the backend, ends in /api (required)
  BOT_TOKEN              the bot's token, or
  BOT_TOKEN_FROM_FILE    a file that holds it
  JOBS_REFRESH_INTERVAL  seconds from one refresh of the jobs to the next (120)
  ACCOUNT_ID             only this account; a custom bot that sees several needs it
  GRAFOLEAN_CA_FILE      PEM file of further certificate authorities
  GRAFOLEAN_THREADS      threads that perform runs (one task)
  GRAFOLEAN_MAX_RUNS     runs at once
  GRAFOLEAN_MAX_JOBS     jobs at most
  GRAFOLEAN_OUTBOX_BYTES bytes of values kept in memory while the backend is away
  GRAFOLEAN_OUTBOX_DIR   directory, of this bot alone, in which waiting values outlive the process (memory only)
  GRAFOLEAN_OUTBOX_DISK_BYTES  bytes of values in it (268435456)
  GRAFOLEAN_OUTBOX_MAX_AGE     seconds after which they are given up (604800)
  GRAFOLEAN_OUTBOX_WRITE       behind (within a second), or first (before anything else) (behind)
  GRAFOLEAN_OUTBOX_THIN        1: when it is full, values are thinned before any are dropped (0)
  GRAFOLEAN_OUTBOX_FSYNC       never, always, or seconds until they survive a power cut (1)
  GRAFOLEAN_VALUES_METHOD put (with times) or post
  GRAFOLEAN_STOP_SECONDS from SIGTERM or Ctrl-C to the end, at most (9); a second signal ends at once
  RUST_LOG               log filter (info)
OWN
Exit codes: 0 all values were delivered, or are in the outbox's directory; 1 a fault; 2 bad arguments or settings; 3 stopped while values were still
waiting for the backend, which are lost; 130 a second signal.
";

enum Command {
    Run,
    Plan,
    Print(String),
}

/// What a bot is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is to run.
    Run,
    /// Only its jobs are wanted, for the dry run: none will be performed, so what performing needs may be missing.
    Plan,
}

/// What a bot is made of.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Start<'a> {
    /// The settings; a bot's own ones are read with [`Settings::own`].
    pub settings: &'a Settings,
    /// What for.
    pub purpose: Purpose,
}

/// A bot's program: its name, and settings of its own.
///
/// ```no_run
/// # use grafolean_core::{bot::*, jobs::Due};
/// # struct MyBot(String); impl Bot for MyBot { type Name = (); type Entity = Anything; type Credential = Anything;
/// # type Sensor = Anything; type Job = (); type Error = &'static str; fn protocol(&self) -> Option<&str> { None }
/// # async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, _: &mut C) -> Result<(), &'static str> { Ok(()) } }
/// use grafolean_std::app::{Program, Purpose};
///
/// fn main() -> std::process::ExitCode {
///     Program::new("my-bot", env!("CARGO_PKG_VERSION"))
///         .setting("MY_DEVICE", "device that is read (/dev/ttyUSB0)")
///         .main(|start| {
///             let device = start.settings.own("MY_DEVICE")?.unwrap_or_else(|| "/dev/ttyUSB0".to_owned());
///             if start.purpose == Purpose::Run {
///                 std::fs::metadata(&device)?;
///             }
///             Ok(MyBot(device))
///         })
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Program<'a> {
    name: &'a str,
    version: &'a str,
    own: Vec<(&'a str, &'a str)>,
}

impl<'a> Program<'a> {
    /// A program without settings of its own.
    #[must_use]
    pub const fn new(name: &'a str, version: &'a str) -> Self {
        Program { name, version, own: Vec::new() }
    }

    /// Names a setting of the bot's own for `--help`: what it is, and in brackets what counts without it.
    #[must_use]
    pub fn setting(mut self, name: &'a str, what: &'a str) -> Self {
        self.own.push((name, what));
        self
    }

    fn help(&self) -> String {
        let mut own = String::new();
        if !self.own.is_empty() {
            own.push_str("\nSettings of this bot:\n");
        }
        for (name, what) in &self.own {
            own.push_str(&format!("  {name:<22} {what}\n"));
        }
        HELP.replace("OWN\n", &format!("{own}\n")).replace("NAME [", &format!("{} [", self.name))
    }
}

fn command(program: &Program<'_>, mut args: impl Iterator<Item = String>) -> Result<Command, String> {
    let Program { name, version, .. } = program;
    let Some(arg) = args.next() else { return Ok(Command::Run) };
    if let Some(more) = args.next() {
        return Err(format!("unexpected argument {more:?}; try --help"));
    }
    match arg.as_str() {
        "--plan" => Ok(Command::Plan),
        "--version" | "-V" => Ok(Command::Print(format!("{name} {version}\n"))),
        "--help" | "-h" => Ok(Command::Print(program.help())),
        other => Err(format!("unknown argument {other:?}; try --help")),
    }
}

/// Logs on standard error: `filter` in the manner of `RUST_LOG`, else `info`. Logs that there are already stay.
///
/// # Errors
/// [`SettingsError::Unfit`] names `RUST_LOG`.
pub fn init_logs(filter: Option<&str>) -> Result<(), SettingsError> {
    let filter = EnvFilter::try_new(filter.unwrap_or("info")).map_err(|_| SettingsError::Unfit {
        name: "RUST_LOG",
        why: "it is no filter such as info, or warn,hyper=error".to_owned(),
    })?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        // Files and journals get no colours.
        .with_ansi(std::io::stderr().is_terminal());
    let _ = logs.try_init();
    Ok(())
}

/// The program `name` of the bot that `make` makes, without settings of its own: [`Program::main`].
pub fn main<B>(
    name: &str,
    version: &str,
    make: impl FnOnce(&Start<'_>) -> Result<B, Box<dyn Error>>,
) -> ExitCode
where
    B: Bot + Send + Sync + 'static,
    Collector<B, Heap<B>>: Send,
{
    Program::new(name, version).main(make)
}

impl Program<'_> {
    /// Reads arguments and environment, has `make` make the bot, runs it until SIGTERM or Ctrl-C, and says where every
    /// value is; or prints its plan.
    ///
    /// Exit codes: 0 if all values were delivered (or dropped with a reason told); 1 for a fault; 2 for bad arguments or
    /// settings, among them what `make` refuses with a [`SettingsError`]; 3 if values still waited for the backend when
    /// `GRAFOLEAN_STOP_SECONDS` were over; 130 after a second signal.
    pub fn main<B>(self, make: impl FnOnce(&Start<'_>) -> Result<B, Box<dyn Error>>) -> ExitCode
    where
        B: Bot + Send + Sync + 'static,
        Collector<B, Heap<B>>: Send,
    {
        start(&self, make)
    }
}

fn start<B>(program: &Program<'_>, make: impl FnOnce(&Start<'_>) -> Result<B, Box<dyn Error>>) -> ExitCode
where
    B: Bot + Send + Sync + 'static,
    Collector<B, Heap<B>>: Send,
{
    let name = program.name;
    let command = match command(program, std::env::args().skip(1)) {
        Ok(Command::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Ok(command) => command,
        Err(why) => return fault(name, &why, 2),
    };
    let settings = match Settings::load() {
        Ok(settings) => settings,
        Err(error) => return fault(name, &error, 2),
    };
    if let Err(error) = init_logs(settings.log_filter.as_deref()) {
        return fault(name, &error, 2);
    }
    let config = match Config::from_env(&settings) {
        Ok(config) => config,
        Err(error) => return fault(name, &error, 2),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fault(name, &error, 1),
    };
    for name in &settings.without_effect {
        tracing::warn!(
            "{name} has no effect without GRAFOLEAN_OUTBOX_DIR: values that wait are in memory only, and gone with the process"
        );
    }
    let purpose = if matches!(command, Command::Plan) { Purpose::Plan } else { Purpose::Run };
    let bot = match runtime.block_on(async { make(&Start { settings: &settings, purpose }) }) {
        Ok(bot) => bot,
        Err(error) if error.is::<SettingsError>() => return fault(name, &error, 2),
        Err(error) => return fault(name, &error, 1),
    };
    let code = match command {
        Command::Plan => runtime.block_on(print_plan(name, bot, config)),
        _ => runtime.block_on(run(name, bot, config)),
    };
    // Not to wait for a resolver that blocks a thread of the runtime.
    runtime.shutdown_background();
    code
}

/// The dry run of a bot: prints its plan as JSON lines on standard output.
pub async fn print_plan<B: Bot>(name: &str, bot: B, config: Config) -> ExitCode {
    match plan(bot, config).await {
        Ok(plan) => {
            let mut out = BufWriter::new(std::io::stdout().lock());
            match plan.write_json_lines(&mut out).and_then(|()| out.flush()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fault(name, &error, 1),
            }
        }
        Err(error) => fault(name, &error, 1),
    }
}

async fn run<B>(name: &str, bot: B, config: Config) -> ExitCode
where
    B: Bot + Send + Sync + 'static,
    Collector<B, Heap<B>>: Send,
{
    let stop = match stop_signal() {
        Ok(stop) => stop,
        Err(error) => return fault(name, &error, 1),
    };
    match run_until(bot, config, stop).await {
        Ok(report) => {
            tracing::info!("{report}");
            // What is written is found by the next start.
            match report.ledger.queued.saturating_sub(report.written) {
                0 => ExitCode::SUCCESS,
                lost => fault(name, &format!("stopped while {lost} values waited for the backend"), 3),
            }
        }
        Err(error) => fault(name, &error, 1),
    }
}

/// That values are in files, where, within which bounds, and what waits there.
fn tell_outbox(store: &StoreConfig, report: &Report) {
    let StoreConfig { dir, settings } = store;
    tracing::info!("outbox in {}: {settings}; {} values wait in it", dir.display(), report.written);
    if RealDisk::is_open_to_others(dir).unwrap_or(false) {
        tracing::warn!(
            "outbox's directory {} is open to all users, and holds values and paths: chmod 700 keeps them out",
            dir.display()
        );
    }
}

async fn run_until<B>(
    bot: B,
    config: Config,
    stop: impl Future<Output = ()>,
) -> Result<Report, crate::driver::ConfigError>
where
    B: Bot + Send + Sync + 'static,
    Collector<B, Heap<B>>: Send,
{
    let (threads, store) = (config.threads, config.store.clone());
    let runner = Runner::new(bot, config)?;
    if let Some(store) = &store {
        tell_outbox(store, &runner.report());
    }
    match threads {
        Some(threads) => runner.run_on_threads(threads, stop).await,
        None => Ok(runner.run(stop).await),
    }
}

fn fault(name: &str, why: &(impl core::fmt::Display + ?Sized), code: u8) -> ExitCode {
    eprintln!("{name}: {why}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Command, String> {
        command(&Program::new("bot", "1.2.3"), args.iter().map(|a| (*a).to_owned()))
    }

    #[test]
    fn unknown_arguments_are_named() {
        assert!(matches!(parse(&[]), Ok(Command::Run)));
        assert!(matches!(parse(&["--plan"]), Ok(Command::Plan)));
        assert!(matches!(parse(&["-V"]), Ok(Command::Print(text)) if text == "bot 1.2.3\n"));
        assert!(matches!(parse(&["--nope"]), Err(why) if why.contains("--nope")));
        assert!(matches!(parse(&["--plan", "x"]), Err(why) if why.contains("\"x\"")));
    }

    #[test]
    fn the_help_names_every_setting() {
        let Ok(Command::Print(help)) = parse(&["--help"]) else { panic!("no help") };
        for name in [
            "BACKEND_URL",
            "BOT_TOKEN_FROM_FILE",
            "JOBS_REFRESH_INTERVAL",
            "GRAFOLEAN_MAX_RUNS",
            "GRAFOLEAN_STOP_SECONDS",
            "RUST_LOG",
        ] {
            assert!(help.contains(name), "{name}");
        }
        assert!(help.starts_with("Usage: bot [--plan]\n"));
        assert!(help.contains("(info)\n\nExit codes:"), "{help}");
    }

    #[test]
    fn the_help_names_the_settings_of_the_bots_own_after_those_of_all_bots() {
        let help = Program::new("bot", "1").setting("MY_NAME", "a name (none)").help();
        assert!(
            help.contains("(info)\n\nSettings of this bot:\n  MY_NAME                a name (none)\n\nExit"),
            "{help}"
        );
    }
}
