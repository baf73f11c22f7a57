//! ICMP echo for tokio on Linux: one shared socket per address family, thousands of targets in flight.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn core::error::Error>> {
//! use std::time::Duration;
//! use grafolean_icmp::{Icmp, IcmpConfig};
//!
//! let icmp = Icmp::open(IcmpConfig::default())?;
//! let target = icmp.resolve("localhost").await?;
//! match icmp.ping(target, Duration::from_secs(2)).await? {
//!     Some(rtt) => println!("{target} answered after {} µs", rtt.as_micros()),
//!     None => println!("{target} did not answer"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Privileges
//!
//! Datagram ICMP sockets are used where `net.ipv4.ping_group_range` allows them to one of the process's groups (for
//! IPv6 too), raw sockets with `CAP_NET_RAW` else. [`OpenError`] says which of them is missing, and how to grant it.
//!
//! # One thread, no runtime
//!
//! An [`Icmp`] has a thread of its own, which sends, receives, matches and times out. [`Icmp::ping`] so works from
//! any number of runtimes at once, needs none of their drivers, outlives the one it was opened in, and measures right
//! when they are busy. The thread ends when the last clone is dropped. An idle one costs no wake-ups. Only
//! [`Icmp::resolve`] needs tokio, with its time driver.
//!
//! # What is measured
//!
//! From just before the request is given to the kernel until the kernel has received the reply: its own time stamps
//! tell how long a reply lay in the socket's buffer. The base is the monotonic clock; resolution and error are
//! microseconds, unless the wall clock is stepped just while a reply lies in the buffer.
//!
//! # What counts as an answer
//!
//! An echo reply which carries the request's 64-bit number and keyed cookie, so that sequence numbers may wrap with
//! more than 65,536 in flight, and which comes from the address asked (and the interface, for link-local targets). A
//! host that answers from another of its addresses has not answered; [`Stats::other_source`] counts that. ICMP errors
//! (destination unreachable) are not waited for: such a ping times out.
//!
//! # Limits of the system
//!
//! Replies are lost when the receive buffer is full: see [`Icmp::sockets`] for what the kernel granted, and
//! `net.core.rmem_max`. Requests to silent hosts on the same link lie in the send buffer until their address
//! resolution fails (3 s), and take a neighbour entry each: for more than about 1,000 such hosts raise
//! `net.ipv4.neigh.default.gc_thresh3`, or sends wait and then fail for want of buffers.

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod engine;
mod names;
mod open;
mod packet;
mod table;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::oneshot;

use engine::{Engine, Shared};
use names::Names;
use open::IcmpSocket;

pub use names::{AddressChoice, ResolveError};
pub use open::{FamilyError, OpenError, SocketChoice, SocketInfo};
pub use packet::{Family, SocketKind};
pub use table::Stats;

/// The longest time-out of one ping.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// Settings of an [`Icmp`]. The defaults suit tens of thousands of targets a minute.
#[derive(Clone, Debug)]
pub struct IcmpConfig {
    /// Which kinds of socket may be used.
    pub sockets: SocketChoice,
    /// Requests per second over both families, from 1 to 1,000,000; default 10,000.
    pub packets_per_second: u32,
    /// Requests which may leave back to back after a pause, from 1 to 10,000; default 32.
    pub burst_packets: u32,
    /// Wanted receive buffer per socket in bytes; default 4 MiB. The kernel doubles it for its own accounting, and
    /// without `CAP_NET_ADMIN` cuts it to `net.core.rmem_max`.
    pub receive_buffer_bytes: usize,
    /// Wanted send buffer per socket in bytes; default 4 MiB, cut to `net.core.wmem_max` likewise.
    pub send_buffer_bytes: usize,
    /// Payload of a request in bytes, from 16 to 1,452; default 56, as ping(8) sends.
    pub payload_bytes: usize,
    /// Pings queued and in flight at once; default 1,000,000 (about 200 bytes each).
    pub max_waiting: usize,
    /// Which of a name's addresses is taken.
    pub addresses: AddressChoice,
    /// How long an address found is used before the resolver is asked again; default 60 s.
    pub name_ttl: Duration,
    /// How long the resolver may take; default 5 s.
    pub name_timeout: Duration,
    /// Names remembered; default 16,384.
    pub name_cache_entries: usize,
}

impl Default for IcmpConfig {
    fn default() -> Self {
        Self {
            sockets: SocketChoice::default(),
            packets_per_second: 10_000,
            burst_packets: 32,
            receive_buffer_bytes: 4 << 20,
            send_buffer_bytes: 4 << 20,
            payload_bytes: 56,
            max_waiting: 1_000_000,
            addresses: AddressChoice::default(),
            name_ttl: Duration::from_secs(60),
            name_timeout: Duration::from_secs(5),
            name_cache_entries: 16_384,
        }
    }
}

impl IcmpConfig {
    fn check(&self) -> Result<(), OpenError> {
        // The kernel keeps buffer sizes, doubled, in an `int`.
        let buffer_max = 1 << 30;
        let limits = [
            ("packets_per_second", self.packets_per_second as usize, 1, 1_000_000),
            ("burst_packets", self.burst_packets as usize, 1, 10_000),
            ("receive_buffer_bytes", self.receive_buffer_bytes, 1, buffer_max),
            ("send_buffer_bytes", self.send_buffer_bytes, 1, buffer_max),
            ("payload_bytes", self.payload_bytes, packet::MIN_PAYLOAD, packet::MAX_PAYLOAD),
            ("max_waiting", self.max_waiting, 1, usize::MAX),
        ];
        match limits.into_iter().find(|(_, value, min, max)| !(*min..=*max).contains(value)) {
            Some((name, value, min, max)) => Err(OpenError::Setting { name, value, min, max }),
            None => Ok(()),
        }
    }
}

/// A host to ping: an IP address, with the interface for link-local IPv6 ones. IPv4-mapped addresses are IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    ip: IpAddr,
    scope_id: u32,
}

impl Target {
    /// The address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The index of the interface a link-local address belongs to, 0 for none.
    pub fn scope_id(&self) -> u32 {
        self.scope_id
    }

    /// The family of the address.
    pub fn family(&self) -> Family {
        match self.ip {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    pub(crate) fn socket_addr(&self) -> SocketAddr {
        match self.ip {
            IpAddr::V4(ip) => SocketAddr::from((ip, 0)),
            IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, 0, 0, self.scope_id)),
        }
    }

    pub(crate) fn is_answered_by(&self, source: Target) -> bool {
        self.ip == source.ip && (self.scope_id == 0 || self.scope_id == source.scope_id)
    }

    fn is_unicast(&self) -> bool {
        !self.ip.is_unspecified() && !self.ip.is_multicast() && self.ip != IpAddr::V4(Ipv4Addr::BROADCAST)
    }
}

impl From<IpAddr> for Target {
    fn from(ip: IpAddr) -> Self {
        Self { ip: ip.to_canonical(), scope_id: 0 }
    }
}

impl From<Ipv4Addr> for Target {
    fn from(ip: Ipv4Addr) -> Self {
        Self::from(IpAddr::V4(ip))
    }
}

impl From<Ipv6Addr> for Target {
    fn from(ip: Ipv6Addr) -> Self {
        Self::from(IpAddr::V6(ip))
    }
}

/// Takes the address and the scope; the port has no meaning.
impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        let scope_id = match address {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        Self { scope_id, ..Self::from(address.ip()) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope_id {
            0 => write!(f, "{}", self.ip),
            scope => write!(f, "{}%{scope}", self.ip),
        }
    }
}

/// Why a ping could not be made. No answer is not an error.
#[derive(Debug)]
#[non_exhaustive]
pub enum PingError {
    /// There is no socket of the target's family.
    Unavailable(Arc<FamilyError>),
    /// The target is unspecified, multicast or broadcast: no single host could answer.
    NotUnicast {
        /// The target.
        target: Target,
    },
    /// The time-out is over [`MAX_TIMEOUT`].
    TimeoutTooLong {
        /// The time-out asked for.
        asked: Duration,
    },
    /// [`IcmpConfig::max_waiting`] pings are queued or in flight.
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The kernel refused to send (no route, no buffers for the whole time-out, a firewall).
    Send {
        /// The target.
        target: Target,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no way to the target because IPv6 is switched off (`net.ipv6.conf.all.disable_ipv6`).
    Ipv6Off {
        /// The target.
        target: Target,
    },
    /// The thread has ended, by a panic: a defect of this crate.
    Closed,
}

impl fmt::Display for PingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) => write!(f, "no ICMP socket for {why}"),
            Self::NotUnicast { target } => {
                write!(f, "cannot ping {target}: it is unspecified, multicast or broadcast")
            }
            Self::TimeoutTooLong { asked } => {
                write!(
                    f,
                    "a time-out of {} s is over the limit of {} s",
                    asked.as_secs(),
                    MAX_TIMEOUT.as_secs()
                )
            }
            Self::TooMany { limit } => write!(f, "already {limit} pings (max_waiting) are under way"),
            Self::Send { target, source } => write!(f, "cannot send to {target}: {source}"),
            Self::Ipv6Off { target } => write!(
                f,
                "cannot send to {target}: IPv6 is switched off (net.ipv6.conf.all.disable_ipv6 is 1)"
            ),
            Self::Closed => f.write_str("the ICMP thread has ended"),
        }
    }
}

impl core::error::Error for PingError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Unavailable(why) => Some(why.as_ref()),
            Self::Send { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Pings over one socket per family. Clones share them; see the [crate]'s description.
#[derive(Clone)]
pub struct Icmp {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    families: [Result<SocketInfo, Arc<FamilyError>>; 2],
    names: Names,
    max_waiting: usize,
}

impl Drop for Handle {
    fn drop(&mut self) {
        lock(&self.shared.table).closed = true;
        self.shared.wake();
    }
}

impl fmt::Debug for Icmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Icmp").field("families", &self.handle.families).field("stats", &self.stats()).finish()
    }
}

impl Icmp {
    /// Opens a socket per family and starts the thread. Costs a few system calls, and needs no runtime.
    ///
    /// One family is enough: what the other lacks is told by [`Icmp::unavailable`], and by a ping that needs it.
    ///
    /// # Errors
    /// [`OpenError`]: no family can be opened, or a setting is outside its limits.
    pub fn open(config: IcmpConfig) -> Result<Icmp, OpenError> {
        config.check()?;
        let (v4, v6) = match (open::open(Family::V4, &config), open::open(Family::V6, &config)) {
            (Err(v4), Err(v6)) => return Err(OpenError::NoSocket { v4: Arc::new(v4), v6: Arc::new(v6) }),
            some => some,
        };
        let shared = Arc::new(Shared::new().map_err(OpenError::Thread)?);
        let split = |opened: Result<IcmpSocket, FamilyError>| match opened {
            Ok(socket) => (Ok(socket.info), Some(socket)),
            Err(why) => (Err(Arc::new(why)), None),
        };
        let ((v4, v4_socket), (v6, v6_socket)) = (split(v4), split(v6));
        let (families, sockets) = ([v4, v6], [v4_socket, v6_socket]);
        let names = Names::new(&config, [families[0].is_ok(), families[1].is_ok()]);
        Engine::start(shared.clone(), sockets, &config).map_err(OpenError::Thread)?;
        let handle = Handle { shared, families, names, max_waiting: config.max_waiting };
        Ok(Icmp { handle: Arc::new(handle) })
    }

    /// Sends one echo request and waits for its reply: the round-trip time, or `None` if `timeout` has passed since
    /// the request was sent. Waiting for its turn ([`IcmpConfig::packets_per_second`]) does not count.
    ///
    /// Costs one system call to send, about two to receive, and one wake-up. Dropping the future takes the ping back:
    /// a queued one is not sent, and a sent one's reply counts as late.
    ///
    /// # Errors
    /// [`PingError`]: nothing was sent.
    pub async fn ping(
        &self,
        target: impl Into<Target>,
        timeout: Duration,
    ) -> Result<Option<Duration>, PingError> {
        let target = target.into();
        if let Err(why) = &self.handle.families[target.family().index()] {
            return Err(PingError::Unavailable(why.clone()));
        }
        if !target.is_unicast() {
            return Err(PingError::NotUnicast { target });
        }
        if timeout > MAX_TIMEOUT {
            return Err(PingError::TimeoutTooLong { asked: timeout });
        }
        let shared = &self.handle.shared;
        let (caller, outcome) = oneshot::channel();
        let (id, wake) = {
            let mut table = lock(&shared.table);
            if table.closed {
                return Err(PingError::Closed);
            }
            if table.len() >= self.handle.max_waiting {
                return Err(PingError::TooMany { limit: self.handle.max_waiting });
            }
            table.enqueue(target, timeout, caller)
        };
        let mut waiting = Waiting { shared, id: Some(id) };
        if wake {
            shared.wake();
        }
        let outcome = outcome.await;
        waiting.id = None;
        match outcome {
            Ok(Ok(rtt)) => Ok(rtt),
            Ok(Err(source)) => Err(send_error(target, source)),
            Err(_) => Err(PingError::Closed),
        }
    }

    /// The address of a host name, or of an address written as text (`192.0.2.1`, `2001:db8::1`, `fe80::1%eth0`).
    ///
    /// Asks the system's resolver on tokio's blocking pool, at most 32 times at once, and remembers the answer for
    /// [`IcmpConfig::name_ttl`]. When a later look-up fails, the last good address is used on.
    ///
    /// # Errors
    /// [`ResolveError`], which names the name.
    ///
    /// # Panics
    /// Outside a tokio runtime with a time driver, as all of tokio's timers.
    pub async fn resolve(&self, name: &str) -> Result<Target, ResolveError> {
        self.handle.names.resolve(name).await
    }

    /// The open sockets.
    pub fn sockets(&self) -> impl Iterator<Item = SocketInfo> + '_ {
        self.handle.families.iter().filter_map(|family| family.as_ref().ok().copied())
    }

    /// Why a family has no socket; `None` if it has one.
    pub fn unavailable(&self, family: Family) -> Option<&FamilyError> {
        self.handle.families[family.index()].as_ref().err().map(Arc::as_ref)
    }

    /// Counts since the opening.
    pub fn stats(&self) -> Stats {
        lock(&self.handle.shared.table).stats()
    }
}

/// Takes a ping back when its future is dropped.
struct Waiting<'a> {
    shared: &'a Shared,
    id: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            lock(&self.shared.table).cancel(id);
        }
    }
}

fn send_error(target: Target, source: io::Error) -> PingError {
    let no_way = matches!(
        source.raw_os_error().map(Errno::from_raw),
        Some(Errno::ENETUNREACH | Errno::EADDRNOTAVAIL | Errno::EHOSTUNREACH)
    );
    let off =
        || std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_ok_and(|v| v.trim() == "1");
    if target.family() == Family::V6 && no_way && off() {
        return PingError::Ipv6Off { target };
    }
    PingError::Send { target, source }
}

/// Host names to addresses as [`Icmp::resolve`] does it, for those who need no ICMP. Clones share what was found.
#[derive(Clone)]
pub struct Resolver(Arc<Names>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    /// By the settings of names in `config`. `usable` says for which families (IPv4, IPv6) there is a socket: addresses of
    /// the other come last.
    #[must_use]
    pub fn new(config: &IcmpConfig, usable: [bool; 2]) -> Self {
        Resolver(Arc::new(Names::new(config, usable)))
    }

    /// See [`Icmp::resolve`].
    ///
    /// # Errors
    /// [`ResolveError`], which names the name.
    ///
    /// # Panics
    /// Outside a tokio runtime with a time driver, as all of tokio's timers.
    pub async fn resolve(&self, name: &str) -> Result<Target, ResolveError> {
        self.0.resolve(name).await
    }
}

/// Every change under these locks is complete at each panic that could happen, so a poisoned one is used on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_and_its_sockets_go_with_the_last_clone() {
        let icmp = match Icmp::open(IcmpConfig::default()) {
            Ok(icmp) => icmp,
            Err(error) => {
                use std::io::Write;
                let _ = io::stderr().write_all(format!("NOT ALLOWED HERE: {error}\n").as_bytes());
                assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
                return;
            }
        };
        // Besides the handle only the thread holds this.
        let shared = Arc::downgrade(&icmp.handle.shared);
        drop(icmp.clone());
        assert_eq!(shared.strong_count(), 2);
        drop(icmp);
        let start = std::time::Instant::now();
        while shared.strong_count() > 0 {
            assert!(start.elapsed() < Duration::from_secs(30), "the thread lives on");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_link_local_target_is_answered_on_its_interface_only() {
        let at =
            |scope| Target::from(SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 0, 0, scope)));
        assert!(at(2).is_answered_by(at(2)) && at(0).is_answered_by(at(2)));
        assert!(!at(2).is_answered_by(at(3)));
    }
}
