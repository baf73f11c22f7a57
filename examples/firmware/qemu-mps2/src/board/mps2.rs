//! MPS2 with a Cortex-M3 (AN385): ethernet by a LAN9118, serial line and watchdog of ARM's design kit (CMSDK).
//!
//! Registers: LAN9118 data sheet (Microchip DS00002266), ARM application note 385, Cortex-M System Design Kit (ARM DDI 0479).
#![allow(unsafe_code)] // Where the peripherals lie.

use core::task::Context;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};

use super::{MTU, Watchdog, capabilities, wait_for_frame, wake_receiver};
use crate::regs::{Frame, Regs};

/// The board.
pub(crate) const NAME: &str = "mps2-an385";
/// The processor's clock.
pub(crate) const CLOCK_HZ: u32 = 25_000_000;
/// The LAN9118's interrupt.
pub(crate) const ETHERNET_IRQ: Option<u16> = Some(13);

// SAFETY: AN385, table 3-1 and following: these peripherals lie there and touch no memory.
const LAN: Regs = unsafe { Regs::new(0x4020_0000) };
const UART: Regs = unsafe { Regs::new(0x4000_4000) };
pub(crate) const WATCHDOG: Watchdog = Watchdog(unsafe { Regs::new(0x4000_8000) });

const RX_DATA: u16 = 0x00;
const TX_DATA: u16 = 0x20;
const RX_STATUS: u16 = 0x40;
const TX_STATUS: u16 = 0x48;
const IRQ_CFG: u16 = 0x54;
const INT_STS: u16 = 0x58;
const INT_EN: u16 = 0x5c;
const BYTE_TEST: u16 = 0x64;
const FIFO_INT: u16 = 0x68;
const TX_CFG: u16 = 0x70;
const HW_CFG: u16 = 0x74;
const RX_FIFO_INF: u16 = 0x7c;
const TX_FIFO_INF: u16 = 0x80;
const MAC_CSR_CMD: u16 = 0xa4;
const MAC_CSR_DATA: u16 = 0xa8;
/// A frame has arrived.
const RSFL: u32 = 1 << 3;
/// Registers of the MAC.
const MAC_CR: u32 = 1;
const ADDRH: u32 = 2;
const ADDRL: u32 = 3;

fn mac_write(register: u32, value: u32) {
    const BUSY: u32 = 1 << 31;
    LAN.write(MAC_CSR_DATA, value);
    LAN.write(MAC_CSR_CMD, BUSY | register);
    while LAN.read(MAC_CSR_CMD) & BUSY != 0 {}
}

/// The LAN9118.
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
        if LAN.read(BYTE_TEST) != 0x8765_4321 {
            return false;
        }
        LAN.write(INT_EN, 0);
        LAN.write(INT_STS, u32::MAX);
        // 5 kB of its memory for what is sent.
        LAN.write(HW_CFG, 0x0005_0000);
        let [a, b, c, d, e, f] = self.mac;
        mac_write(ADDRH, u32::from_le_bytes([e, f, 0, 0]));
        mac_write(ADDRL, u32::from_le_bytes([a, b, c, d]));
        // Transmitter and receiver.
        mac_write(MAC_CR, 0x0c);
        LAN.write(TX_CFG, 2);
        LAN.write(FIFO_INT, 0);
        // Interrupts: on, active high, push-pull.
        LAN.write(IRQ_CFG, 0x111);
        LAN.write(INT_EN, RSFL);
        true
    }

    /// Its interrupt: one is enough until the frames have been read.
    pub(crate) fn interrupt() {
        LAN.write(INT_EN, 0);
        wake_receiver();
    }

    /// Called every millisecond.
    pub(crate) fn tick() {}
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
        let result = f(self.0.bytes().get_mut(..len).unwrap_or_default());
        // First and last segment of a frame, and their length.
        LAN.write(TX_DATA, 1 << 13 | 1 << 12 | len as u32);
        LAN.write(TX_DATA, len as u32);
        for word in self.0.words().iter().take(len.div_ceil(4)) {
            LAN.write(TX_DATA, *word);
        }
        while (LAN.read(TX_FIFO_INF) >> 16) & 0xff != 0 {
            LAN.read(TX_STATUS);
        }
        result
    }
}

impl Driver for Ethernet {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, cx: &mut Context<'_>) -> Option<(Received<'_>, ToSend<'_>)> {
        loop {
            if (LAN.read(RX_FIFO_INF) >> 16) & 0xff == 0 {
                wait_for_frame(cx.waker());
                LAN.write(INT_STS, RSFL);
                LAN.write(INT_EN, RSFL);
                return None;
            }
            let status = LAN.read(RX_STATUS);
            // With its checksum of four bytes.
            let len = ((status >> 16) & 0x3fff) as usize;
            let mut words = self.rx.words().iter_mut();
            for _ in 0..len.div_ceil(4) {
                let data = LAN.read(RX_DATA);
                if let Some(word) = words.next() {
                    *word = data;
                }
            }
            let is_broken = status & 1 << 15 != 0;
            if !is_broken && (18..=MTU + 4).contains(&len) {
                let bytes = self.rx.bytes().get_mut(..len - 4).unwrap_or_default();
                return Some((Received(bytes), ToSend(&mut self.tx)));
            }
        }
    }

    fn transmit(&mut self, _: &mut Context<'_>) -> Option<ToSend<'_>> {
        Some(ToSend(&mut self.tx))
    }

    fn link_state(&mut self, _: &mut Context<'_>) -> LinkState {
        // Its model has no interrupt for a change of the link.
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.mac)
    }
}

/// The first serial line: what a person types.
pub(crate) struct Serial;

impl Serial {
    const DATA: u16 = 0x00;
    const STATE: u16 = 0x04;
    const CONTROL: u16 = 0x08;
    const DIVIDER: u16 = 0x10;

    pub(crate) fn start(&self) {
        UART.write(Self::DIVIDER, CLOCK_HZ / 115_200);
        // The receiver.
        UART.write(Self::CONTROL, 1 << 1);
    }

    /// The next character, if there is one.
    pub(crate) fn read(&self) -> Option<u8> {
        (UART.read(Self::STATE) & 1 << 1 != 0).then(|| UART.read(Self::DATA) as u8)
    }
}
