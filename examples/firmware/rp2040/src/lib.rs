//! What both RP2040 boards have in common: the settings, the chip's thermometer, the watchdog, and random numbers for TLS. The bots are those of `grafolean-firmware`.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "tls")]
mod random;
mod thermometer;
mod watchdog;

#[cfg(feature = "tls")]
pub use random::random;
pub use thermometer::ChipThermometer;
pub use watchdog::feed;

use core::fmt::Debug;

use embassy_executor::{SpawnToken, Spawner};
use grafolean_firmware::{Ends, Settings};

/// The settings that this firmware was built with.
pub const SETTINGS: Settings<'static> = include!(concat!(env!("OUT_DIR"), "/settings.rs"));

/// What the Wi-Fi chip is loaded with: its firmware, regulatory data, and the board's parameters.
#[cfg(feature = "pico-w")]
pub mod radio {
    include!(concat!(env!("OUT_DIR"), "/radio.rs"));
}

/// Starts a task that is started nowhere else.
pub fn start<S, E: Debug>(spawner: &Spawner, task: Result<SpawnToken<S>, E>) {
    match task {
        Ok(task) => spawner.spawn(task),
        Err(why) => defmt::error!("a task can't be started: {}", defmt::Debug2Format(&why)),
    }
}

/// Bots end only if they can't be run.
pub fn say_why(ends: &Ends) {
    let mut none = true;
    for (name, end) in [("ping bot", ends.ping), ("sensor bot", ends.sensor), ("snmp bot", ends.snmp)] {
        if let Some(Err(why)) = end {
            defmt::error!("{=str}: {}", name, defmt::Display2Format(&why));
        }
        none &= end.is_none();
    }
    if none {
        defmt::error!(
            "none of the bots' tokens is set (PING_BOT_TOKEN, SENSOR_BOT_TOKEN, with snmp SNMP_BOT_TOKEN): there is nothing to do"
        );
    }
}
