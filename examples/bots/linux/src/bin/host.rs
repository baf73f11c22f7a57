//! A custom bot that posts this machine's load and memory. Besides the settings of all bots it takes `HOST_NAME` (the
//! machine's own) and `HOST_INTERVAL` (seconds, 60).

use std::error::Error;
use std::process::ExitCode;

use grafolean_bot_host::linux::ProcReadings;
use grafolean_bot_host::{DEFAULT_INTERVAL_S, HostBot};
use grafolean_std::app::{Program, Start};
use grafolean_std::core::interval::Interval;
use grafolean_std::env::SettingsError;

fn main() -> ExitCode {
    let interval = format!("seconds from one post to the next ({DEFAULT_INTERVAL_S})");
    Program::new("grafolean-host-bot", env!("CARGO_PKG_VERSION"))
        .setting("HOST_NAME", "name in the paths of the values, host.NAME.load1 (this machine's)")
        .setting("HOST_INTERVAL", &interval)
        .main(make)
}

fn make(start: &Start<'_>) -> Result<HostBot<ProcReadings>, Box<dyn Error>> {
    let (settings, readings) = (start.settings, ProcReadings::default());
    let interval = match settings.own("HOST_INTERVAL")? {
        Some(text) => interval(&text).map_err(|why| SettingsError::Unfit { name: "HOST_INTERVAL", why })?,
        None => Interval::new(DEFAULT_INTERVAL_S.into())?,
    };
    let bot = match settings.own("HOST_NAME")? {
        Some(name) => HostBot::new(readings, &name)
            .map_err(|error| SettingsError::Unfit { name: "HOST_NAME", why: error.to_string() })?,
        None => {
            let name = readings.host_name()?;
            HostBot::new(readings, &name)?
        }
    };
    Ok(bot.every(interval))
}

fn interval(text: &str) -> Result<Interval, String> {
    let seconds: i64 = text.parse().map_err(|_| "not a whole number of seconds".to_owned())?;
    Interval::new(seconds).map_err(|error| error.to_string())
}
