//! Stellaris LM3S6965 evaluation board: 256 kB of flash, 64 kB of RAM, ethernet within the chip.
//!
//! Registers: LM3S6965 data sheet (Texas Instruments SPMS108).
#![allow(unsafe_code)] // Where the peripherals lie.

use core::task::Context;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};

use super::{MTU, Watchdog, capabilities, wait_for_frame, wake_receiver};
use crate::regs::{Frame, Regs};

/// The board.
pub(crate) const NAME: &str = "lm3s6965evb";
/// The processor's clock after a reset.
pub(crate) const CLOCK_HZ: u32 = 12_500_000;
/// The ethernet controller's interrupt is the 42nd. This is compiled for a Cortex-M0, as for most boards, which has 32 at most.
pub(crate) const ETHERNET_IRQ: Option<u16> = None;

// SAFETY: data sheet, section 2.4, memory map: these peripherals lie there and touch no memory.
const MAC: Regs = unsafe { Regs::new(0x4004_8000) };
const SYSTEM: Regs = unsafe { Regs::new(0x400f_e000) };
const UART: Regs = unsafe { Regs::new(0x4000_c000) };
pub(crate) const WATCHDOG: Watchdog = Watchdog(unsafe { Regs::new(0x4000_0000) });

/// Run mode clock gating, controls 0 to 2.
const RCGC0: u16 = 0x100;
const RCGC1: u16 = 0x104;
const RCGC2: u16 = 0x108;
const RIS: u16 = 0x00;
const IM: u16 = 0x04;
const RCTL: u16 = 0x08;
const TCTL: u16 = 0x0c;
const DATA: u16 = 0x10;
const IA0: u16 = 0x14;
const IA1: u16 = 0x18;
const THR: u16 = 0x1c;
const NP: u16 = 0x34;
const TR: u16 = 0x38;

/// The ethernet controller.
pub(crate) struct Ethernet {
    mac: [u8; 6],
    rx: Frame,
    tx: Frame,
}

impl Ethernet {
    pub(crate) const fn new(mac: [u8; 6]) -> Self {
        Ethernet { mac, rx: Frame::EMPTY, tx: Frame::EMPTY }
    }

    /// Switches it on; `false` if there is none.
    pub(crate) fn start(&mut self) -> bool {
        // Clocks of the controller and of its physical layer.
        SYSTEM.write(RCGC2, SYSTEM.read(RCGC2) | 1 << 30 | 1 << 28);
        MAC.write(IM, 0);
        MAC.write(RIS, 0x7f);
        let [a, b, c, d, e, f] = self.mac;
        MAC.write(IA0, u32::from_le_bytes([a, b, c, d]));
        MAC.write(IA1, u32::from_le_bytes([e, f, 0, 0]));
        // No frame is sent before it is written whole.
        MAC.write(THR, 0x3f);
        // Empties the receiver; then bad checksums are rejected, and it is on.
        MAC.write(RCTL, 0x10);
        MAC.write(RCTL, 0x08 | 1);
        // Both ways at once, checksums, padding, on.
        MAC.write(TCTL, 0x10 | 4 | 2 | 1);
        true
    }

    /// It has no interrupt here.
    pub(crate) fn interrupt() {}

    /// Called every millisecond: looks whether a frame has arrived.
    pub(crate) fn tick() {
        if MAC.read(NP) & 0x3f != 0 {
            wake_receiver();
        }
    }
}

pub(crate) struct Received<'a>(&'a mut [u8]);
pub(crate) struct ToSend<'a>(&'a mut Frame);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let len = len.min(MTU);
        // Before the frame stands the length of what follows its head of 14 bytes.
        let bytes = self.0.bytes();
        let [low, high] = (len as u16).saturating_sub(14).to_le_bytes();
        if let [first, second, ..] = bytes {
            (*first, *second) = (low, high);
        }
        let result = f(bytes.get_mut(2..2 + len).unwrap_or_default());
        while MAC.read(TR) & 1 != 0 {}
        for word in self.0.words().iter().take((len + 2).div_ceil(4)) {
            MAC.write(DATA, *word);
        }
        MAC.write(TR, 1);
        result
    }
}

impl Driver for Ethernet {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, cx: &mut Context<'_>) -> Option<(Received<'_>, ToSend<'_>)> {
        loop {
            if MAC.read(NP) & 0x3f == 0 {
                wait_for_frame(cx.waker());
                return None;
            }
            let first = MAC.read(DATA);
            // With these two bytes and a checksum of four.
            let len = (first & 0xffff) as usize;
            let mut words = self.rx.words().iter_mut();
            if let Some(word) = words.next() {
                *word = first;
            }
            for _ in 1..len.div_ceil(4) {
                let data = MAC.read(DATA);
                if let Some(word) = words.next() {
                    *word = data;
                }
            }
            if (20..=MTU + 6).contains(&len) {
                let bytes = self.rx.bytes().get_mut(2..len - 4).unwrap_or_default();
                return Some((Received(bytes), ToSend(&mut self.tx)));
            }
        }
    }

    fn transmit(&mut self, _: &mut Context<'_>) -> Option<ToSend<'_>> {
        Some(ToSend(&mut self.tx))
    }

    fn link_state(&mut self, _: &mut Context<'_>) -> LinkState {
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.mac)
    }
}

/// The first serial line (a PL011): what a person types.
pub(crate) struct Serial;

impl Serial {
    const DATA: u16 = 0x000;
    const FLAGS: u16 = 0x018;
    const LINE_CONTROL: u16 = 0x02c;
    const CONTROL: u16 = 0x030;

    pub(crate) fn start(&self) {
        // Clocks of the watchdog and of the line.
        SYSTEM.write(RCGC0, SYSTEM.read(RCGC0) | 1 << 3);
        SYSTEM.write(RCGC1, SYSTEM.read(RCGC1) | 1);
        // Eight bits, with queues; receiver on.
        UART.write(Self::LINE_CONTROL, 0x70);
        UART.write(Self::CONTROL, 1 << 9 | 1);
    }

    /// The next character, if there is one.
    pub(crate) fn read(&self) -> Option<u8> {
        (UART.read(Self::FLAGS) & 1 << 4 == 0).then(|| UART.read(Self::DATA) as u8)
    }
}
