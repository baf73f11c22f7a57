//! Connections and pings through embassy-net: [`NetConnector`] for [`Http`](crate::http::Http), [`Echo`] for bots that ping.
//!
//! ```
//! use embassy_net::{Stack, StackResources};
//! use grafolean_embassy::core::api::BaseUrl;
//! use grafolean_embassy::http::{Http, HttpSetupError, Limits};
//! use grafolean_embassy::net::{self, Echo, EchoMemory, NetConnector, NetMemory};
//!
//! /// One bot that sends, and two pings at once, besides the stack's own.
//! const SOCKETS: usize = 5;
//! const _: () = net::assert_sockets(SOCKETS, 1, 2);
//! // What embassy_net::new is lent, in a `StaticCell`:
//! type Resources = StackResources<SOCKETS>;
//!
//! fn client<'d>(stack: Stack<'d>, memory: &'d mut NetMemory<1024, 1024>, buf: &mut [u8]) -> Result<(), HttpSetupError> {
//!     if let Ok(url) = BaseUrl::parse("http://grafolean.lan/api") {
//!         let _transport = Http::new(NetConnector::new(stack, memory), url, buf, Limits::DEFAULT)?;
//!     }
//!     Ok(())
//! }
//!
//! fn pinger<'d>(stack: Stack<'d>, memory: &'d EchoMemory<2>) -> Echo<'d, 2> {
//!     Echo::new(stack, memory)
//! }
//! # let _ = size_of::<Resources>();
//! ```
//!
//! The only type of embassy-net in this interface is the [`Stack`] that you pass in, so that another version of it changes
//! nothing else of your firmware.
//!
//! # Tasks
//! The stack's own loop (`embassy_net::Runner::run`) must be a task of its own. Each time that a socket is asked, it is woken; in one task
//! with the sockets, both would be polled without end while an answer is waited for.
//!
//! # Sockets
//! A set of sockets that is full panics inside of embassy-net, when a socket is made. [`assert_sockets`] turns that into an error of the
//! compiler: [`STACK_SOCKETS`] for DHCP and DNS, [`CONNECTOR_SOCKETS`] for each connector, and one for each ping at once.
//!
//! # Cost
//! A connector takes its two buffers and about 100 bytes, and embassy-net about 400 bytes for each socket. A receive buffer of 1 kB and a
//! transmit buffer of 1 kB suffice; larger ones make long lists faster.
//!
//! # Bounds
//! IPv4 only. Of a name's addresses the first is used.

mod echo;

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};

use embassy_net::dns::DnsQueryType;
use embassy_net::tcp::{ConnectError as TcpConnectError, Error as TcpError, State, TcpSocket};
use embassy_net::{IpAddress, Stack};
use embassy_time::{Duration, Timer, with_timeout};
use embedded_io_async::{ErrorKind, ErrorType, Read, Write};

use crate::http::{ConnectError, Connector};
pub use echo::{Echo, EchoError, EchoMemory};

/// Sockets that the stack takes for itself: DHCP and DNS.
pub const STACK_SOCKETS: usize = 2;

/// Sockets of a [`NetConnector`].
pub const CONNECTOR_SOCKETS: usize = 1;

/// How long the name server is waited for, in milliseconds: embassy-net asks after 0, 1 and 3 s.
const DNS_LIMIT_MS: u64 = 4_500;

/// How often is looked whether there is an address by now, in milliseconds.
const CONFIG_POLL_MS: u64 = 100;

/// How long a connection that was left may take to tell so to the server, in milliseconds.
const RESET_LIMIT_MS: u64 = 100;

/// Checks that a stack with `sockets` places has enough for `connectors` and `pings` at once: call it in a constant.
///
/// ```compile_fail,E0080
/// // DHCP, DNS, two connectors and two pings are six.
/// const _: () = grafolean_embassy::net::assert_sockets(5, 2, 2);
/// ```
///
/// # Panics
/// If it has not, which in a constant is an error of the compiler.
pub const fn assert_sockets(sockets: usize, connectors: usize, pings: usize) {
    assert!(
        sockets >= STACK_SOCKETS + CONNECTOR_SOCKETS * connectors + pings,
        "StackResources has too few sockets: 2 for DHCP and DNS, 1 for each connector, 1 for each ping at once"
    );
}

/// The buffers of a [`NetConnector`], `RX` bytes to receive and `TX` bytes to send.
///
/// In a firmware: `static MEMORY: StaticCell<NetMemory<1024, 1024>> = StaticCell::new();`
pub struct NetMemory<const RX: usize, const TX: usize> {
    rx: [u8; RX],
    tx: [u8; TX],
}

impl<const RX: usize, const TX: usize> NetMemory<RX, TX> {
    /// Empty buffers.
    #[must_use]
    pub const fn new() -> Self {
        NetMemory { rx: [0; RX], tx: [0; TX] }
    }
}

impl<const RX: usize, const TX: usize> Default for NetMemory<RX, TX> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const RX: usize, const TX: usize> fmt::Debug for NetMemory<RX, TX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the bytes: they hold the token.
        f.debug_struct("NetMemory").field("rx", &RX).field("tx", &TX).finish()
    }
}

/// A [`Connector`] without TLS over one TCP socket of embassy-net, which it keeps for its whole life.
///
/// A connection is closed in order (FIN, until the server has confirmed it) or, where something went wrong, reset, so that the server
/// does not keep its side. Connecting waits until the stack has an address. The name is resolved for each connection; if
/// that fails, the last address that a connection was made to is tried: a board goes on working while only its name server is away.
pub struct NetConnector<'d> {
    stack: Stack<'d>,
    socket: TcpSocket<'d>,
    /// Where the last connection went, if the name was resolved.
    last: Option<Ipv4Addr>,
}

impl<'d> NetConnector<'d> {
    /// Connects through `stack`.
    ///
    /// # Panics
    /// If all sockets of the stack are taken: see [`assert_sockets`].
    #[must_use]
    pub fn new<const RX: usize, const TX: usize>(
        stack: Stack<'d>,
        memory: &'d mut NetMemory<RX, TX>,
    ) -> Self {
        let mut socket = TcpSocket::new(stack, &mut memory.rx, &mut memory.tx);
        // What is written is whole requests; to wait for the server between two segments of one only costs time.
        socket.set_nagle_enabled(false);
        NetConnector { stack, socket, last: None }
    }

    fn resolve(&self, host: &str) -> impl Future<Output = Result<Ipv4Addr, ConnectError>> {
        async move {
            match host.parse::<IpAddr>() {
                Ok(IpAddr::V4(address)) => return Ok(address),
                Ok(IpAddr::V6(_)) => return Err(ConnectError::Connect(ErrorKind::Unsupported)),
                Err(_) => {}
            }
            resolve(self.stack, host).await.or(self.last).ok_or(ConnectError::Resolve)
        }
    }
}

/// The first address of a name, if the name server knows one in time.
fn resolve(stack: Stack<'_>, name: &str) -> impl Future<Output = Option<Ipv4Addr>> {
    async move {
        let limit = Duration::from_millis(DNS_LIMIT_MS);
        let addresses = with_timeout(limit, stack.dns_query(name, DnsQueryType::A)).await.ok()?.ok()?;
        addresses.into_iter().find_map(|address| match address {
            IpAddress::Ipv4(address) => Some(address),
            // Where a firmware has IPv6 switched on in embassy-net.
            #[allow(unreachable_patterns)]
            _ => None,
        })
    }
}

impl fmt::Debug for NetConnector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetConnector").field("last", &self.last).finish_non_exhaustive()
    }
}

impl<'d> Connector for NetConnector<'d> {
    type Stream<'a>
        = NetStream<'a, 'd>
    where
        Self: 'a;

    const TLS: bool = false;

    async fn connect(&mut self, host: &str, port: u16) -> Result<NetStream<'_, 'd>, ConnectError> {
        // By looking, not by waiting: embassy-net wakes one waiting task only.
        while !self.stack.is_config_up() {
            Timer::after_millis(CONFIG_POLL_MS).await;
        }
        let address = self.resolve(host).await?;
        if self.socket.state() != State::Closed || self.socket.remote_endpoint().is_some() {
            // An attempt that was given up, or a connection that was closed a moment ago.
            self.socket.abort();
            let _ = with_timeout(Duration::from_millis(RESET_LIMIT_MS), self.socket.flush()).await;
        }
        let stream = NetStream { socket: &mut self.socket, closed: false };
        let connected = stream.socket.connect((address, port)).await;
        connected.map_err(|error| ConnectError::Connect(connect_kind(error)))?;
        self.last = Some(address);
        Ok(stream)
    }

    async fn close<'a>(mut stream: NetStream<'a, 'd>)
    where
        Self: 'a,
    {
        stream.socket.close();
        // Until the server has confirmed it. Dropped earlier, the connection is reset.
        stream.closed = stream.socket.flush().await.is_ok();
    }
}

const fn connect_kind(error: TcpConnectError) -> ErrorKind {
    match error {
        // Nobody listens there.
        TcpConnectError::ConnectionReset => ErrorKind::ConnectionRefused,
        TcpConnectError::TimedOut => ErrorKind::TimedOut,
        TcpConnectError::NoRoute => ErrorKind::NotConnected,
        TcpConnectError::InvalidState => ErrorKind::Other,
    }
}

/// A connection of a [`NetConnector`]. Dropped without [`Connector::close`], it is reset.
pub struct NetStream<'a, 'd> {
    socket: &'a mut TcpSocket<'d>,
    /// Both sides know that it has ended.
    closed: bool,
}

impl fmt::Debug for NetStream<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetStream").field("closed", &self.closed).finish_non_exhaustive()
    }
}

impl Drop for NetStream<'_, '_> {
    fn drop(&mut self) {
        if !self.closed {
            self.socket.abort();
        }
    }
}

/// Why a connection broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum NetError {
    /// The server reset it, or is gone.
    Reset,
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection reset")
    }
}

impl core::error::Error for NetError {}

impl embedded_io_async::Error for NetError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::ConnectionReset
    }
}

impl From<TcpError> for NetError {
    fn from(TcpError::ConnectionReset: TcpError) -> Self {
        NetError::Reset
    }
}

impl ErrorType for NetStream<'_, '_> {
    type Error = NetError;
}

impl Read for NetStream<'_, '_> {
    async fn read(&mut self, buf: &mut [u8]) -> Result<usize, NetError> {
        Ok(self.socket.read(buf).await?)
    }
}

impl Write for NetStream<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> impl Future<Output = Result<usize, NetError>> {
        async move { Ok(self.socket.write(buf).await?) }
    }

    /// Nothing is held back, so there is nothing to wait for: whether the server got it, its answer shows.
    async fn flush(&mut self) -> Result<(), NetError> {
        Ok(())
    }
}
