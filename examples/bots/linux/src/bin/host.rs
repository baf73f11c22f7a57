//! A custom bot that posts this machine's load and memory. Besides the settings of all bots it takes `HOST_NAME` (the
//! machine's own) and `HOST_INTERVAL` (seconds, 60).

use std::error::Error;
use std::process::ExitCode;

use grafolean_bot_host::linux::ProcReadings;
use grafolean_bot_host::{DEFAULT_INTERVAL_S, HostBot};
use grafolean_std::core::interval::Interval;

fn main() -> ExitCode {
    grafolean_std::app::main("grafolean-host-bot", env!("CARGO_PKG_VERSION"), |_settings| make())
}

fn make() -> Result<HostBot<ProcReadings>, Box<dyn Error>> {
    let readings = ProcReadings::default();
    let name = match std::env::var("HOST_NAME") {
        Ok(name) => name,
        Err(_) => readings.host_name()?,
    };
    let interval_s = match std::env::var("HOST_INTERVAL") {
        Ok(text) => text.trim().parse().map_err(|_| format!("HOST_INTERVAL: {text:?} is not a whole number of seconds"))?,
        Err(_) => i64::from(DEFAULT_INTERVAL_S),
    };
    let interval = Interval::new(interval_s).map_err(|error| format!("HOST_INTERVAL: {error}"))?;
    Ok(HostBot::new(readings, &name)?.every(interval))
}
