//! Grafolean's SNMP bot. Takes the settings of the Python bot, so that a container can be swapped in place; besides them
//! `SNMP_TIMEOUT` (seconds, 1), `SNMP_RETRIES` (2), `SNMP_MAX_ROWS` (100,000) and `SNMP_INTERFACES` (yes).

use std::error::Error;
use std::process::ExitCode;

use grafolean_bot_snmp::HostSnmpBot;
use grafolean_bot_snmp::memory::HostMemory;
use grafolean_bot_snmp::poll::PollSettings;
use grafolean_bots::snmp::{RECEIVE_BUFFER_BYTES, UdpNetwork};
use grafolean_std::app::{Program, Purpose, Start};
use grafolean_std::env::SettingsError;

fn main() -> ExitCode {
    Program::new("grafolean-snmp-bot", env!("CARGO_PKG_VERSION"))
        .setting("SNMP_TIMEOUT", "seconds until a request is repeated, then twice as long, and so on (1)")
        .setting("SNMP_RETRIES", "how often a request without an answer is repeated, 0 to 10 (2)")
        .setting("SNMP_MAX_ROWS", "the most rows of a walk (100000)")
        .setting("SNMP_INTERFACES", "whether entities are kept for the devices' interfaces, yes or no (yes)")
        .main(make)
}

fn make(start: &Start<'_>) -> Result<HostSnmpBot<UdpNetwork>, Box<dyn Error>> {
    let settings = settings(start)?;
    let interfaces = match start.settings.own("SNMP_INTERFACES")?.as_deref() {
        None | Some("yes") => true,
        Some("no") => false,
        Some(_) => return Err(unfit("SNMP_INTERFACES", "neither yes nor no").into()),
    };
    // A dry run needs no sockets.
    let network = if start.purpose == Purpose::Plan {
        UdpNetwork::none()
    } else {
        let network = UdpNetwork::open()?;
        for (family, bytes) in ["IPv4", "IPv6"].into_iter().zip(network.receive_buffer_bytes()) {
            match bytes {
                Some(bytes) => tracing::info!("{family}: receive buffer of {bytes} bytes"),
                None => tracing::warn!("{family}: no UDP socket, such agents can't be asked"),
            }
            if bytes.is_some_and(|bytes| bytes < RECEIVE_BUFFER_BYTES / 8) {
                tracing::info!("for thousands of devices raise net.core.rmem_max to {RECEIVE_BUFFER_BYTES}");
            }
        }
        network
    };
    Ok(HostSnmpBot::new(network, HostMemory::new()).settings(settings).with_interfaces(interfaces))
}

fn settings(start: &Start<'_>) -> Result<PollSettings, SettingsError> {
    let mut settings = PollSettings::DEFAULT;
    if let Some(text) = start.settings.own("SNMP_TIMEOUT")? {
        let seconds = text.parse::<f64>().ok().filter(|seconds| (0.01..=60.0).contains(seconds));
        let seconds = seconds.ok_or_else(|| unfit("SNMP_TIMEOUT", "not within 0.01 to 60 seconds"))?;
        settings.timeout_ms = (seconds * 1000.0) as u32;
    }
    if let Some(text) = start.settings.own("SNMP_RETRIES")? {
        let retries = text.parse::<u8>().ok().filter(|retries| *retries <= 10);
        settings.retries = retries.ok_or_else(|| unfit("SNMP_RETRIES", "not within 0 to 10"))?;
    }
    if let Some(text) = start.settings.own("SNMP_MAX_ROWS")? {
        let rows = text.parse::<u32>().ok().filter(|rows| (1..=1_000_000).contains(rows));
        settings.max_rows = rows.ok_or_else(|| unfit("SNMP_MAX_ROWS", "not within 1 to 1000000"))?;
    }
    Ok(settings)
}

fn unfit(name: &'static str, why: &str) -> SettingsError {
    SettingsError::Unfit { name, why: why.to_owned() }
}
