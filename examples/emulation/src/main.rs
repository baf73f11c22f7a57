//! The stand-in and an emulated board with both bots, in one terminal: `cargo run -p grafolean-emulation`.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use grafolean_emulation::{Board, Faults, Firmware, Link, Machine};
use grafolean_stand_in::{Config, Event, StandIn};

/// Runs the firmware on an emulated board against the stand-in, and prints the values that arrive.
#[derive(Parser, Debug)]
#[command(version)]
struct Options {
    /// The board.
    #[arg(long, value_enum, default_value_t = Model::Mps2)]
    machine: Model,
    /// How long, in seconds.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 30)]
    seconds: u32,
    /// Accounts and bots as JSON (see the stand-in); without it a device for the board to ping.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Of each 1000 frames so many are lost.
    #[arg(long, value_name = "FRAMES", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1000))]
    lost: u16,
    /// What the losses follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only checks whether everything that is needed is there, and builds the firmware.
    #[arg(long)]
    check: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Model {
    /// Cortex-M3, both bots.
    Mps2,
    /// 256 kB of flash and 64 kB of RAM, the ping bot.
    Lm3s6965evb,
}

const CONFIG: &str = include_str!("../backend.json");

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<u8, Box<dyn core::error::Error>> {
    let mut out = std::io::stdout();
    let machine = match options.machine {
        Model::Mps2 => Machine::Mps2,
        Model::Lm3s6965evb => Machine::Lm3s6965,
    };
    grafolean_emulation::check()?;
    writeln!(out, "building the firmware for {}", machine.name())?;
    let firmware = Firmware::build(machine)?;
    writeln!(
        out,
        "flash {} bytes, ram {} bytes without call stack",
        firmware.flash_bytes, firmware.ram_bytes
    )?;
    if options.check {
        return Ok(0);
    }
    let config = match &options.config {
        Some(file) => Config::read(file)?,
        None => Config::from_json(CONFIG)?,
    };
    let stand_in = StandIn::builder().config(config).spawn_thread()?;
    let mut events = stand_in.subscribe();
    std::thread::spawn(move || {
        while let Ok(event) = events.blocking_recv() {
            if let Event::Value(value) = event {
                let _ = writeln!(std::io::stdout(), "backend {} {}", value.path, value.value);
            }
        }
    });
    let link = if options.lost == 0 {
        None
    } else {
        Some(Link::start(options.seed, Faults { lost: options.lost, ..Faults::default() })?)
    };
    let mut board = Board::builder(&firmware).backend(&stand_in).show();
    if let Some(link) = &link {
        board = board.link(link);
    }
    for (bot, key) in [("ping", "PING_BOT_TOKEN"), ("custom", "SENSOR_BOT_TOKEN")] {
        if let Some(token) = stand_in.token(bot) {
            board = board.setting(key, &token);
        }
    }
    let mut board = board.setting("SENSOR_INTERVAL", "5").setting("JOBS_REFRESH_INTERVAL", "30").start()?;
    let until = Instant::now() + Duration::from_secs(options.seconds.into());
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    board.press('q')?;
    let code = board.wait(Duration::from_secs(30))?;
    writeln!(out, "{} values stored; the board ended with code {code}", stand_in.value_count())?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
