//! The host's clocks: a monotonic one that counts suspended time, and the system's wall clock.

use core::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

/// Unix time of the system clock in milliseconds; 0 where it stands before 1970.
///
/// It can be set and so can jump; values are stamped with it, the schedule never sees it.
pub fn system_unix_ms() -> u64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(_) => 0,
    }
}

/// A monotonic clock in milliseconds that goes on while the host is suspended.
///
/// Its zero is fixed at creation so that it then shows Unix time; later corrections of the system clock
/// don't move it. A collector that starts again thus sees about the same instants as before. On Linux and
/// Android this is `CLOCK_BOOTTIME` (`clock_gettime(2)`), elsewhere [`std::time::Instant`], which may stand
/// still during suspension.
///
/// ```
/// use grafolean_std::clock::BootClock;
/// let clock = BootClock::new();
/// let start = clock.now();
/// assert!(clock.now() >= start);
/// ```
///
/// Costs one `clock_gettime` without a system call on usual platforms. Copies agree with each other.
#[derive(Debug, Clone, Copy)]
pub struct BootClock {
    origin_unix_ms: u64,
    origin: Origin,
}

impl BootClock {
    /// Anchors the clock to the system's Unix time.
    pub fn new() -> Self {
        Self::anchored_at(system_unix_ms())
    }

    /// A clock that shows `unix_ms` now.
    pub fn anchored_at(unix_ms: u64) -> Self {
        Self { origin_unix_ms: unix_ms, origin: Origin::now() }
    }

    /// Milliseconds: the Unix time of creation plus what has passed since, suspension included.
    pub fn now(&self) -> u64 {
        self.origin_unix_ms.saturating_add(millis(self.elapsed()))
    }

    /// Time since creation, suspension included.
    pub fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }
}

impl Default for BootClock {
    fn default() -> Self {
        Self::new()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[derive(Debug, Clone, Copy)]
struct Origin(Duration);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Origin {
    fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Self(Duration::new(seconds, nanos))
    }

    fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[derive(Debug, Clone, Copy)]
struct Origin(std::time::Instant);

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Origin {
    fn now() -> Self {
        Self(std::time::Instant::now())
    }

    fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_starts_at_its_anchor_and_never_goes_back() {
        let clock = BootClock::anchored_at(1_000_000);
        let mut last = clock.now();
        assert!(last >= 1_000_000);
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn a_copy_shows_the_same_time() {
        let clock = BootClock::anchored_at(5);
        let copy = clock;
        let (a, b, c) = (clock.now(), copy.now(), clock.now());
        assert!(a <= b && b <= c);
    }

    #[test]
    fn a_new_clock_is_anchored_to_unix_time() {
        let before = system_unix_ms();
        let clock = BootClock::new();
        let after = system_unix_ms();
        assert!((before..=after).contains(&clock.origin_unix_ms));
    }

    #[test]
    fn an_anchor_at_the_end_of_time_does_not_overflow() {
        assert_eq!(BootClock::anchored_at(u64::MAX).now(), u64::MAX);
    }
}
