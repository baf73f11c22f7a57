//! Random numbers for TLS, of the chip's ring oscillator.
//!
//! The RP2040 has no generator of random numbers that anybody has certified. It has a bit of its ring oscillator, of which the datasheet
//! (section 2.17.5) says that it is not good enough for security. What is done about it: reads lie apart, since bits that are read one
//! after another are of the same cycle of the oscillator; each bit given is the parity of many; a bit that does not change is an error;
//! and TLS hashes 64 bytes, with all that it took before, for the keys of each connection. That makes it hard to guess, not proven. Where
//! that is not enough take a board whose chip has a true generator (RP2350), or one of your own on a pin, and give its function to
//! `grafolean_firmware::Random`.

use embassy_rp::clocks::RoscRng;

/// The reads of eight bits that are folded into eight bits.
const FOLDED: u32 = 32;
/// Between two reads, in cycles of the processor: several periods of the oscillator, of about 6 MHz. An odd number, for other phases.
const APART_CYCLES: u32 = 97;
/// So many equal reads of eight bits: the oscillator does not run. By chance with a chance of 2^-56 even if of each eight bits one is random.
const STUCK: u32 = 56;

/// Fills `buf` by the ring oscillator, at about 0.1 ms a byte; `false`: it does not run, and nothing in `buf` may be used.
pub fn random(buf: &mut [u8]) -> bool {
    let (mut last, mut equal) = (RoscRng::next_u8(), 0);
    for byte in buf {
        let mut folded = 0u8;
        for _ in 0..FOLDED {
            cortex_m::asm::delay(APART_CYCLES);
            let read = RoscRng::next_u8();
            equal = if read == last { equal + 1 } else { 0 };
            if equal >= STUCK {
                return false;
            }
            last = read;
            // Turned, so that each of the eight reads of one bit counts for each bit given.
            folded = folded.rotate_left(1) ^ read;
        }
        *byte = folded;
    }
    true
}
