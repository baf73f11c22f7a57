//! What differs between the boards: ethernet, the serial line, the watchdog.

#[cfg(feature = "lm3s6965evb")]
mod lm3s6965evb;
#[cfg(not(feature = "lm3s6965evb"))]
mod mps2;

use core::cell::RefCell;
use core::task::Waker;

use critical_section::Mutex;
use embassy_net_driver::Capabilities;

#[cfg(feature = "lm3s6965evb")]
pub(crate) use lm3s6965evb::{CLOCK_HZ, ETHERNET_IRQ, Ethernet, NAME, Serial, WATCHDOG};
#[cfg(not(feature = "lm3s6965evb"))]
pub(crate) use mps2::{CLOCK_HZ, ETHERNET_IRQ, Ethernet, NAME, Serial, WATCHDOG};

use crate::regs::Regs;

/// A frame without its checksum, in bytes.
const MTU: usize = 1514;

/// Who waits for a frame.
static RECEIVER: Mutex<RefCell<Option<Waker>>> = Mutex::new(RefCell::new(None));

fn wait_for_frame(waker: &Waker) {
    critical_section::with(|cs| RECEIVER.borrow_ref_mut(cs).replace(waker.clone()));
}

fn wake_receiver() {
    if let Some(waker) = critical_section::with(|cs| RECEIVER.borrow_ref_mut(cs).take()) {
        waker.wake();
    }
}

fn capabilities() -> Capabilities {
    let mut capabilities = Capabilities::default();
    capabilities.max_transmission_unit = MTU;
    capabilities.max_burst_size = Some(1);
    capabilities
}

/// ARM's watchdog (SP805 and alike), which both boards have: it interrupts when its time has passed, and resets the board
/// when that has passed once more.
pub(crate) struct Watchdog(Regs);

impl Watchdog {
    const LOAD: u16 = 0x000;
    const CONTROL: u16 = 0x008;
    const INTERRUPT_CLEAR: u16 = 0x00c;
    const LOCK: u16 = 0xc00;
    const KEY: u32 = 0x1acc_e551;
    /// Half of the time after which the board is reset, in seconds.
    const HALF_S: u32 = 15;

    /// Starts it. From then on it must be fed.
    pub(crate) fn start(&self) {
        self.0.write(Self::LOCK, Self::KEY);
        self.0.write(Self::LOAD, CLOCK_HZ * Self::HALF_S);
        // Interrupt, which starts it, and reset.
        self.0.write(Self::CONTROL, 0b11);
    }

    /// All is well: it begins to count anew.
    pub(crate) fn feed(&self) {
        self.0.write(Self::INTERRUPT_CLEAR, 1);
        self.0.write(Self::LOAD, CLOCK_HZ * Self::HALF_S);
    }
}
