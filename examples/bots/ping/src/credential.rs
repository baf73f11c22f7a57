//! How is pinged: a credential's details.

use grafolean_core::json::{DurationMs, LenientInt};
use serde::Deserialize;

/// The most packets of one run.
pub const MAX_PACKETS: u8 = 100;
/// The most repetitions of an unanswered packet.
pub const MAX_RETRY: u8 = 10;
/// The longest time-out of a packet, in milliseconds.
pub const MAX_TIMEOUT_MS: u32 = 60_000;
/// The longest pause between packets, in milliseconds.
pub const MAX_SLEEP_MS: u32 = 60_000;
/// What a run may take besides its packets (finding the address), in milliseconds.
const SLACK_MS: u32 = 5_000;

/// A credential's details. Each may be a number or a string with one; what is missing or null has its default.
///
/// | key | default | bounds |
/// | --- | --- | --- |
/// | `timeout`: how long an answer is waited for, in seconds | 2.0 | 0.001 to 60 |
/// | `retry`: how often an unanswered packet is repeated | 0 | 0 to 10 |
/// | `n_packets` | 3 | 1 to 100 |
/// | `sleep_packets`: pause between two packets, in seconds | 1.0 | 0 to 60 |
///
/// A number out of bounds refuses the entities that have this credential, by a message that names the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PingCredential(Result<PingSettings, &'static str>);

/// A credential's checked settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PingSettings {
    /// How long an answer is waited for, in milliseconds: 1 to [`MAX_TIMEOUT_MS`].
    pub timeout_ms: u32,
    /// Pause between two packets, in milliseconds: 0 to [`MAX_SLEEP_MS`].
    pub sleep_ms: u32,
    /// How often an unanswered packet is repeated: 0 to [`MAX_RETRY`].
    pub retry: u8,
    /// Packets of a run: 1 to [`MAX_PACKETS`].
    pub packets: u8,
}

impl PingCredential {
    /// The settings.
    ///
    /// # Errors
    /// The message for the log that says which key is out of which bounds.
    pub const fn settings(&self) -> Result<PingSettings, &'static str> {
        self.0
    }
}

impl PingSettings {
    /// How long a run may take, in milliseconds: packets · (time-out · (retry + 1) + pause) + 5 s.
    #[must_use]
    pub const fn deadline_ms(&self) -> u32 {
        let packet = self.timeout_ms.saturating_mul(self.retry as u32 + 1).saturating_add(self.sleep_ms);
        packet.saturating_mul(self.packets as u32).saturating_add(SLACK_MS)
    }
}

#[derive(Deserialize)]
struct Raw {
    timeout: Option<DurationMs>,
    retry: Option<LenientInt<i64>>,
    n_packets: Option<LenientInt<i64>>,
    sleep_packets: Option<DurationMs>,
}

impl Raw {
    fn check(&self) -> Result<PingSettings, &'static str> {
        let timeout_ms = self.timeout.map_or(2_000, DurationMs::as_millis);
        let sleep_ms = self.sleep_packets.map_or(1_000, DurationMs::as_millis);
        let whole = |given: Option<LenientInt<i64>>, default: u8, min: u8, max: u8| {
            let number = given.map_or(i64::from(default), |n| *n);
            u8::try_from(number).ok().filter(|n| (min..=max).contains(n))
        };
        if !(1..=MAX_TIMEOUT_MS).contains(&timeout_ms) {
            return Err("credential: `timeout` is not within 0.001 to 60 s");
        }
        if sleep_ms > MAX_SLEEP_MS {
            return Err("credential: `sleep_packets` is not within 0 to 60 s");
        }
        let retry = whole(self.retry, 0, 0, MAX_RETRY).ok_or("credential: `retry` is not within 0 to 10")?;
        let packets = whole(self.n_packets, 3, 1, MAX_PACKETS)
            .ok_or("credential: `n_packets` is not within 1 to 100")?;
        Ok(PingSettings { timeout_ms, sleep_ms, retry, packets })
    }
}

impl<'de> Deserialize<'de> for PingCredential {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(PingCredential(Raw::deserialize(deserializer)?.check()))
    }
}
