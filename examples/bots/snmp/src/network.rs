//! What the SNMP bot needs of a network: addresses of agents, and one datagram exchanged for another.
//!
//! ```
//! use core::net::IpAddr;
//! use grafolean_bot_snmp::network::{Network, NetworkFault};
//! use grafolean_core::device::Host;
//! use grafolean_core::time::Millis;
//! use grafolean_snmp_codec::RequestTag;
//!
//! /// Nobody answers.
//! struct Silence;
//!
//! impl Network for Silence {
//!     type Target = (IpAddr, u16);
//!     type Datagram = heapless::Vec<u8, 1472>;
//!     async fn resolve(&self, host: Host<'_>, port: u16) -> Result<Self::Target, NetworkFault> {
//!         match host {
//!             Host::Ip(ip) => Ok((ip, port)),
//!             Host::Name(_) => Err(NetworkFault::NameNotFound),
//!         }
//!     }
//!     async fn exchange(
//!         &self, _: Self::Target, _request: &[u8], _: RequestTag, _timeout_ms: u32,
//!     ) -> Result<Option<Self::Datagram>, NetworkFault> {
//!         Ok(None)
//!     }
//!     fn random(&self) -> u32 {
//!         4 // better: of a generator that was seeded by chance
//!     }
//!     fn life(&self) -> u32 {
//!         7 // better: another number after each restart
//!     }
//!     fn now(&self) -> Millis {
//!         Millis(0) // better: of the clock that the collector is driven by
//!     }
//! }
//! # let _ = Silence.random();
//! ```
//!
//! Repetitions, their number and their time-outs are not the network's business: [`crate::poll`] does them.

use core::fmt;
use core::future::Future;
use core::net::SocketAddr;

use grafolean_core::device::Host;
use grafolean_core::time::Millis;
use grafolean_snmp_codec::RequestTag;

/// Exchanges datagrams with agents. Many runs share one.
pub trait Network {
    /// An agent's address and port, as the network stack wants them.
    type Target: Copy;
    /// A datagram that was received. It can be changed, because one of SNMPv3 is decrypted where it lies.
    ///
    /// A run has two of them at most, but its future has room for several: on a board this should be a handle to a buffer
    /// elsewhere. With one a run of a small board's sizes takes 4.6 kB, with an array of 1,472 bytes 8 kB.
    type Datagram: AsRef<[u8]> + AsMut<[u8]>;

    /// Where the agent is. Asked once per run; it should give up after at most 5 s.
    ///
    /// # Errors
    /// [`NetworkFault::NameNotFound`], or [`NetworkFault::NoRoute`] where there is nothing for its address family.
    fn resolve(&self, host: Host<'_>, port: u16) -> impl Future<Output = Result<Self::Target, NetworkFault>>;

    /// Sends one datagram and waits for the one with this tag that comes from the target's address and port: `None` if there was
    /// none within `timeout_ms` milliseconds. What has another tag or source is not given. Dropping the future gives it up.
    ///
    /// A run exchanges one at a time, and repeats one with the same tag, so that a late answer to the first try is taken for
    /// that to the second.
    ///
    /// # Errors
    /// [`NetworkFault`]: it was not sent, or was answered from elsewhere only.
    fn exchange(
        &self,
        target: Self::Target,
        request: &[u8],
        tag: RequestTag,
        timeout_ms: u32,
    ) -> impl Future<Output = Result<Option<Self::Datagram>, NetworkFault>>;

    /// A number that a stranger can't guess: request ids are made of it, so that nobody can answer without having seen the
    /// request.
    fn random(&self) -> u32;

    /// The life of this process (on a board: since boot): a number that the next life has not, so that times of an earlier life
    /// are not mistaken for those of this one.
    fn life(&self) -> u32;

    /// Monotonic time, by which readings of counters are compared.
    fn now(&self) -> Millis;
}

impl<N: Network + ?Sized> Network for &N {
    type Target = N::Target;
    type Datagram = N::Datagram;

    fn resolve(&self, host: Host<'_>, port: u16) -> impl Future<Output = Result<Self::Target, NetworkFault>> {
        (**self).resolve(host, port)
    }

    fn exchange(
        &self,
        target: Self::Target,
        request: &[u8],
        tag: RequestTag,
        timeout_ms: u32,
    ) -> impl Future<Output = Result<Option<Self::Datagram>, NetworkFault>> {
        (**self).exchange(target, request, tag, timeout_ms)
    }

    fn random(&self) -> u32 {
        (**self).random()
    }

    fn life(&self) -> u32 {
        (**self).life()
    }

    fn now(&self) -> Millis {
        (**self).now()
    }
}

/// Why a datagram was not sent, or its answer can't be taken. No answer is no fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NetworkFault {
    /// The host name has no address, or the name server does not answer.
    NameNotFound,
    /// There is no way to the agent from here.
    NoRoute,
    /// The network stack did not take the datagram, for the reason given: a firewall, no buffers.
    NotTaken(&'static str),
    /// This machine cannot send any, whatever the target; the text says what it lacks.
    Unavailable(&'static str),
    /// The right answer came from another address or port than was asked, as routers with several addresses do it. It is not
    /// taken (RFC 3417 leaves the source open, but so could anyone on the way answer): the agent is to be asked there.
    AnsweredFrom(SocketAddr),
}

impl fmt::Display for NetworkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NetworkFault::NameNotFound => "the host name has no address, or the name server does not answer",
            NetworkFault::NoRoute => "no route to the agent",
            NetworkFault::NotTaken(why) | NetworkFault::Unavailable(why) => why,
            NetworkFault::AnsweredFrom(source) => {
                return write!(f, "the agent answers from {source}, not from where it was asked: give the entity that address");
            }
        })
    }
}

impl core::error::Error for NetworkFault {}
