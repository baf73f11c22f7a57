//! The watchdog.

use embassy_rp::watchdog::Watchdog;
use embassy_time::{Duration, Timer};
use grafolean_firmware::Control;

/// The chip starts again when the watchdog was not fed for so long; it can count to 8.3 s.
const WATCHDOG_PERIOD: Duration = Duration::from_secs(8);
/// From one look to the next, in seconds.
const LOOK_S: u64 = 1;

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
