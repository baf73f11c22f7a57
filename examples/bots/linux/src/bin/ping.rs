//! Grafolean's ICMP ping bot. Takes the settings of the Python bot, so that a container can be swapped in place.

use std::process::ExitCode;

use grafolean_bot_ping::PingBot;
use grafolean_bots::pinger::IcmpPinger;
use grafolean_icmp::{Family, Icmp, IcmpConfig};
use grafolean_std::app::Purpose;

fn main() -> ExitCode {
    grafolean_std::app::main("grafolean-ping-bot", env!("CARGO_PKG_VERSION"), |start| {
        // A dry run needs no permission.
        if start.purpose == Purpose::Plan {
            return Ok(PingBot::<IcmpPinger, 253>::new(IcmpPinger::none()));
        }
        let icmp = Icmp::open(IcmpConfig::default())?;
        for socket in icmp.sockets() {
            let (family, kind, bytes) = (socket.family, socket.kind, socket.receive_buffer_bytes);
            tracing::info!("{family}: {kind:?} ICMP socket, receive buffer of {bytes} bytes");
        }
        for family in [Family::V4, Family::V6] {
            if let Some(error) = icmp.unavailable(family) {
                tracing::warn!("{error}");
            }
        }
        // Host names of up to 253 bytes: the longest that there are.
        Ok(PingBot::<IcmpPinger, 253>::new(IcmpPinger::new(icmp)))
    })
}
