//! Whether the bots make progress, and whether their network does.

use embassy_rp::watchdog::Watchdog;
use embassy_time::{Duration, Timer};
use grafolean_firmware::Control;

/// The chip starts again when the watchdog was not fed for so long; it can count to 8.3 s.
const WATCHDOG_PERIOD: Duration = Duration::from_secs(8);
/// From one look to the next, in seconds.
const LOOK_S: u64 = 1;

/// After so many failed requests without a value delivered the network is joined again: at the collectors' pace that is
/// about two minutes.
pub const FAILED_REQUESTS_LIMIT: u32 = 8;

/// Starts the watchdog, and feeds it as long as the loops of all bots come round.
pub async fn feed(mut watchdog: Watchdog, control: &Control) {
    watchdog.pause_on_debug(true);
    watchdog.start(WATCHDOG_PERIOD);
    loop {
        if control.is_alive() {
            watchdog.feed(WATCHDOG_PERIOD);
        }
        Timer::after_secs(LOOK_S).await;
    }
}

/// Returns when [`FAILED_REQUESTS_LIMIT`] requests have failed since a value was delivered last.
pub async fn many_failed_requests(control: &Control) {
    let look = || {
        let (ping, sensor) = (control.ping(), control.sensor());
        let delivered = ping.ledger.delivered.wrapping_add(sensor.ledger.delivered);
        (delivered, ping.failed_requests.saturating_add(sensor.failed_requests))
    };
    let mut last = look();
    loop {
        let (delivered, failed) = look();
        if delivered != last.0 {
            last = (delivered, failed);
        } else if failed.saturating_sub(last.1) >= FAILED_REQUESTS_LIMIT {
            return;
        }
        Timer::after_secs(LOOK_S).await;
    }
}
