//! The logic of Grafolean's ICMP ping bot: pings each entity and posts whether, and how fast, it answered.
//!
//! [`PingBot`] is a [`Bot`] over a [`Pinger`], which is all that it needs of a network: the same logic runs over a
//! host's ICMP sockets and over a board's network stack.
//!
//! ```
//! use grafolean_bot_ping::{Host, PingBot, PingFault, Pinger};
//! use core::net::IpAddr;
//!
//! /// Every address answers after 1.5 ms.
//! struct Lab;
//!
//! impl Pinger for Lab {
//!     type Target = IpAddr;
//!     async fn resolve(&self, host: Host<'_>) -> Result<IpAddr, PingFault> {
//!         match host {
//!             Host::Ip(ip) => Ok(ip),
//!             Host::Name(_) => Err(PingFault::NameNotFound),
//!         }
//!     }
//!     async fn ping(&self, _: IpAddr, _timeout_ms: u32) -> Result<Option<u32>, PingFault> {
//!         Ok(Some(1500))
//!     }
//! }
//!
//! // Host names of up to 64 bytes.
//! let bot: PingBot<Lab> = PingBot::new(Lab);
//! // Host names of up to 253 bytes, the longest that there are.
//! let bot: PingBot<Lab, 253> = PingBot::new(Lab);
//! # let _ = bot;
//! ```
//!
//! # Settings
//! What is pinged: [`PingEntity`]. How: [`PingCredential`]. The sensors only say how often.
//!
//! # Values
//! | path | value |
//! | --- | --- |
//! | `entity.{id}.ping.p{i}.ok` | 1 if packet `i` (from 0) was answered, else 0 |
//! | `entity.{id}.ping.p{i}.rtt` | how long the answer took, in seconds; only if there was one |
//! | `entity.{id}.ping.success` | packets answered / packets, at the end |
//!
//! Each is handed over, with its own time, as soon as it is known. A host whose name is not found, or to which there
//! is no route, is down as far as this bot can tell: all its packets count as unanswered, so that the series show it, and
//! the run ends with [`PingError::NotSent`], which says why. Where this machine cannot ping at all
//! ([`PingFault::Unavailable`]), nothing is known of the host: no value is handed over from then on.
//!
//! # Cost
//! No allocation and no float code. A run keeps its settings and the resolved target, not the host name.
#![no_std]
#![forbid(unsafe_code)]

mod credential;

use core::fmt;
use core::future::Future;

use grafolean_core::bot::{Anything, Bot, Context, EntityView, HandOverError, JobSink, NewJob};
use grafolean_core::jobs::Due;
use grafolean_core::values::Decimal;

pub use credential::{MAX_PACKETS, MAX_RETRY, MAX_SLEEP_MS, MAX_TIMEOUT_MS, PingCredential, PingSettings};
pub use grafolean_core::device::{DeviceAddress as PingEntity, Host};

/// Sends echo requests. Many runs share one.
pub trait Pinger {
    /// An address as the network stack wants it.
    type Target: Copy;

    /// The address of `host`. Asked once per run, outside of the packets' time-outs: it should give up after at most
    /// 5 s, by which a run's deadline is longer than its packets can take.
    ///
    /// # Errors
    /// [`PingFault::NameNotFound`], or [`PingFault::NoRoute`] where there is nothing for its address family.
    fn resolve(&self, host: Host<'_>) -> impl Future<Output = Result<Self::Target, PingFault>>;

    /// Sends one echo request and waits for the reply: the round-trip time in microseconds, `None` if there was none
    /// within `timeout_ms` milliseconds. Dropping the future gives it up.
    ///
    /// # Errors
    /// [`PingFault`]: it was not sent.
    fn ping(
        &self,
        target: Self::Target,
        timeout_ms: u32,
    ) -> impl Future<Output = Result<Option<u32>, PingFault>>;
}

impl<P: Pinger + ?Sized> Pinger for &P {
    type Target = P::Target;

    fn resolve(&self, host: Host<'_>) -> impl Future<Output = Result<Self::Target, PingFault>> {
        (**self).resolve(host)
    }

    fn ping(
        &self,
        target: Self::Target,
        timeout_ms: u32,
    ) -> impl Future<Output = Result<Option<u32>, PingFault>> {
        (**self).ping(target, timeout_ms)
    }
}

/// Why an echo request was not sent. No answer is no fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PingFault {
    /// The host name has no address, or the name server does not answer.
    NameNotFound,
    /// There is no way to the host from here.
    NoRoute,
    /// The network stack did not take the packet, for the reason given: a firewall, no buffers.
    NotTaken(&'static str),
    /// This machine cannot ping, whatever the host; the text says what it lacks.
    Unavailable(&'static str),
}

impl fmt::Display for PingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PingFault::NameNotFound => "the host name has no address, or the name server does not answer",
            PingFault::NoRoute => "no route to the host",
            PingFault::NotTaken(why) | PingFault::Unavailable(why) => why,
        })
    }
}

impl core::error::Error for PingFault {}

/// Why a run failed, or what was wrong with it although its values were handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PingError {
    /// Packets could not be sent; they count as unanswered and all values were handed over.
    NotSent {
        /// How many.
        failed: u8,
        /// Of how many.
        packets: u8,
        /// Why, for the first of them.
        fault: PingFault,
    },
    /// This machine cannot ping: values are missing.
    Unavailable(&'static str),
    /// A value was not taken; the others were.
    HandOver(HandOverError),
}

impl fmt::Display for PingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PingError::NotSent { failed, packets, fault } => {
                write!(f, "{failed} of {packets} packets were not sent: {fault}")
            }
            PingError::Unavailable(why) => write!(f, "cannot ping from here: {why}"),
            PingError::HandOver(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for PingError {}

/// The ping bot, for host names of up to `NAME` bytes: see the [crate's description](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct PingBot<P, const NAME: usize = 64> {
    pinger: P,
    grid_only: bool,
}

impl<P, const NAME: usize> PingBot<P, NAME> {
    /// A bot that pings by `pinger`.
    pub const fn new(pinger: P) -> Self {
        PingBot { pinger, grid_only: false }
    }

    /// The same bot, but a new device is pinged at its intervals only: without an extra first run soon after it was made.
    #[must_use]
    pub fn grid_only(self, grid_only: bool) -> Self {
        PingBot { grid_only, ..self }
    }

    /// What it pings by.
    pub const fn pinger(&self) -> &P {
        &self.pinger
    }
}

impl<P: Pinger, const NAME: usize> Bot for PingBot<P, NAME> {
    type Name = ();
    type Entity = PingEntity<NAME>;
    type Credential = PingCredential;
    type Sensor = Anything;
    type Job = ();
    type Error = PingError;

    fn protocol(&self) -> Option<&str> {
        Some("ping")
    }

    /// One job, at the distinct intervals of its sensors. Its deadline is what its packets can take and 5 s.
    fn entity_jobs(&self, entity: &EntityView<'_, Self>, jobs: &mut dyn JobSink<()>) {
        match (entity.details().host(), entity.credential().settings()) {
            (Err(why), _) | (_, Err(why)) => jobs.refuse(why),
            (Ok(_), Ok(settings)) => {
                let intervals = entity.intervals(jobs);
                let job = NewJob::new(intervals, ()).deadline_ms(settings.deadline_ms());
                jobs.add(if self.grid_only { job.grid_only() } else { job });
            }
        }
    }

    async fn perform<C: Context<Bot = Self>>(&self, _: &(), due: &Due, cx: &mut C) -> Result<(), PingError> {
        if !is_affected(due, cx) {
            return Ok(());
        }
        // What is gone or was made unusable meanwhile loses its job at the end of the refresh that is under way.
        let Some(Ok(settings)) = cx.credential().map(|credential| credential.settings()) else {
            return Ok(());
        };
        let target = {
            let Some(entity) = cx.entity() else { return Ok(()) };
            let Ok(host) = entity.host() else { return Ok(()) };
            self.pinger.resolve(host).await
        };
        let (id, packets) = (due.key.entity, settings.packets);
        let mut answered = 0u8;
        let mut failed = (0u8, None);
        let mut refused = None;
        let mut handed = |result: Result<(), HandOverError>| {
            if let Err(error) = result {
                refused.get_or_insert(error);
            }
        };
        for i in 0..packets {
            let reply = match target {
                Ok(target) => {
                    if i > 0 {
                        cx.sleep_ms(settings.sleep_ms).await;
                    }
                    self.packet(target, settings).await
                }
                Err(fault) => Err(fault),
            };
            let rtt_us = match reply {
                Ok(rtt_us) => rtt_us,
                Err(PingFault::Unavailable(why)) => return Err(PingError::Unavailable(why)),
                Err(fault) => {
                    failed.0 += 1;
                    failed.1.get_or_insert(fault);
                    None
                }
            };
            answered += u8::from(rtt_us.is_some());
            handed(cx.value(format_args!("entity.{id}.ping.p{i}.ok"), u8::from(rtt_us.is_some())));
            if let Some(rtt_us) = rtt_us {
                handed(cx.value(format_args!("entity.{id}.ping.p{i}.rtt"), shortened(u64::from(rtt_us), -6)));
            }
        }
        handed(cx.value(format_args!("entity.{id}.ping.success"), share(answered, packets)));
        match (refused, failed) {
            (Some(error), _) => Err(PingError::HandOver(error)),
            (None, (failed, Some(fault))) => Err(PingError::NotSent { failed, packets, fault }),
            (None, (_, None)) => Ok(()),
        }
    }
}

impl<P: Pinger, const NAME: usize> PingBot<P, NAME> {
    /// One packet with its repetitions: the round-trip time of the first that is answered, in microseconds. The fault is
    /// that of the last repetition.
    #[allow(clippy::manual_async_fn, reason = "an `async fn` holds its arguments twice, which a board feels")]
    fn packet(
        &self,
        target: P::Target,
        settings: PingSettings,
    ) -> impl Future<Output = Result<Option<u32>, PingFault>> {
        async move {
            let mut tries_left = settings.retry;
            loop {
                let reply = self.pinger.ping(target, settings.timeout_ms).await;
                if tries_left == 0 || matches!(reply, Ok(Some(_)) | Err(PingFault::Unavailable(_))) {
                    return reply;
                }
                tries_left -= 1;
            }
        }
    }
}

/// Whether an interval of one of the entity's sensors made this run due.
fn is_affected<C: Context>(due: &Due, cx: &mut C) -> bool {
    let mut n = 0;
    while let Some(sensor) = cx.sensor(n) {
        if sensor.interval.is_some_and(|interval| due.affects(interval)) {
            return true;
        }
        n += 1;
    }
    false
}

/// `part / whole` by long division: exact where it is finite; else 18 or 19 digits, as many as fit, which are read as
/// the same double as the quotient.
fn share(part: u8, whole: u8) -> Decimal {
    if part >= whole {
        return Decimal { mantissa: 1, exponent: 0 };
    }
    let (mut rest, whole) = (u32::from(part), u32::from(whole));
    let (mut mantissa, mut exponent) = (0i64, 0i8);
    while rest != 0 && mantissa < i64::MAX / 10 {
        rest *= 10;
        mantissa = mantissa * 10 + i64::from(rest / whole);
        rest %= whole;
        exponent -= 1;
    }
    Decimal { mantissa: mantissa + i64::from(rest * 2 >= whole), exponent }
}

/// Without zeros at its end, which the outbox would keep.
fn shortened(mut mantissa: u64, mut exponent: i8) -> Decimal {
    while exponent < 0 && mantissa.is_multiple_of(10) {
        mantissa /= 10;
        exponent += 1;
    }
    Decimal { mantissa: mantissa as i64, exponent }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use grafolean_core::values::Number;
    use std::string::ToString;

    #[test]
    fn success_is_read_as_the_quotient_for_all_numbers_of_packets() {
        for packets in 1..=MAX_PACKETS {
            for answered in 0..=packets {
                let text = share(answered, packets).number_text().unwrap().to_string();
                let quotient = f64::from(answered) / f64::from(packets);
                assert_eq!(text.parse::<f64>().unwrap(), quotient, "{answered}/{packets}: {text}");
            }
        }
        let text = |a, b| share(a, b).number_text().unwrap().to_string();
        assert_eq!([text(0, 3), text(1, 4), text(3, 3)], ["0", "0.25", "1"]);
    }

    #[test]
    fn a_round_trip_time_is_exact_to_the_microsecond() {
        let text = |us| shortened(us, -6).number_text().unwrap().to_string();
        let cases =
            [(0, "0"), (1, "0.000001"), (1500, "0.0015"), (2_000_000, "2"), (4_294_967_295, "4294.967295")];
        for (us, expected) in cases {
            assert_eq!(text(us).parse::<f64>().unwrap(), expected.parse::<f64>().unwrap(), "{us}");
        }
        assert_eq!(text(1500), "0.0015");
    }
}
