//! embassy-time on SysTick, which every Cortex-M has: microseconds, with an alarm that is a millisecond late at most.

use core::cell::{Cell, RefCell};
use core::task::Waker;

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{SCB, SYST};
use critical_section::{CriticalSection, Mutex};
use embassy_time_driver::Driver;
use embassy_time_queue_utils::Queue;

use crate::board::CLOCK_HZ;

const CLOCKS_PER_MS: u32 = CLOCK_HZ / 1_000;

struct SysTick {
    /// Milliseconds that the interrupt has counted.
    ms: Mutex<Cell<u64>>,
    /// When the first of those who wait is to be woken, in microseconds.
    alarm: Mutex<Cell<u64>>,
    queue: Mutex<RefCell<Queue>>,
}

embassy_time_driver::time_driver_impl!(static DRIVER: SysTick = SysTick {
    ms: Mutex::new(Cell::new(0)),
    alarm: Mutex::new(Cell::new(u64::MAX)),
    queue: Mutex::new(RefCell::new(Queue::new())),
});

impl SysTick {
    fn now_us(&self, cs: CriticalSection<'_>) -> u64 {
        let ms = self.ms.borrow(cs).get();
        let mut left = SYST::get_current();
        // It may have begun anew without the interrupt having been taken; then it is to be read again.
        let uncounted = SCB::is_pendst_pending();
        if uncounted {
            left = SYST::get_current();
        }
        let past = CLOCKS_PER_MS.saturating_sub(1 + left.min(CLOCKS_PER_MS - 1));
        (ms + u64::from(uncounted)) * 1_000 + u64::from(past * 1_000 / CLOCKS_PER_MS)
    }
}

impl Driver for SysTick {
    fn now(&self) -> u64 {
        critical_section::with(|cs| self.now_us(cs))
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|cs| {
            let mut queue = self.queue.borrow_ref_mut(cs);
            if queue.schedule_wake(at, waker) {
                self.alarm.borrow(cs).set(queue.next_expiration(self.now_us(cs)));
            }
        });
    }
}

/// Starts the clock: from 0.
pub(crate) fn start(systick: &mut SYST) {
    systick.set_clock_source(SystClkSource::Core);
    systick.set_reload(CLOCKS_PER_MS - 1);
    systick.clear_current();
    systick.enable_interrupt();
    systick.enable_counter();
}

/// SysTick's interrupt.
pub(crate) fn interrupt() {
    critical_section::with(|cs| {
        let ms = DRIVER.ms.borrow(cs).get() + 1;
        DRIVER.ms.borrow(cs).set(ms);
        let now = ms * 1_000;
        if now >= DRIVER.alarm.borrow(cs).get() {
            let next = DRIVER.queue.borrow_ref_mut(cs).next_expiration(now);
            DRIVER.alarm.borrow(cs).set(next);
        }
    });
}
