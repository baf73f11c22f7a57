//! ICMP echo (RFC 792) through embassy-net, for bots that ping.

use core::cell::{Cell, RefCell, RefMut};
use core::fmt;
use core::future::poll_fn;
use core::net::Ipv4Addr;
use core::task::{Context, Poll};

use embassy_net::icmp::{IcmpEndpoint, IcmpSocket, PacketMetadata, SendError};
use embassy_net::{IpAddress, Stack};
use embassy_time::{Duration, Instant, Timer, with_deadline};

/// Bytes of an echo request and of its reply: 8 of head, 32 of data.
const PACKET_BYTES: usize = 40;
/// RFC 792: echo message.
const ECHO: u8 = 8;
/// RFC 792: echo reply message.
const ECHO_REPLY: u8 = 0;
/// How long the link-layer address of a host is waited for at once. The stack asks for one address a second in all, and would ask again
/// then; those of other hosts would never have their turn.
const ADDRESS_WAIT_MS: u64 = 950;
/// From one question for a link-layer address to the next. The stack's own pause is a second.
const ADDRESS_PAUSE_MS: u64 = 1_010;
/// How often those who wait for their turn look, in milliseconds.
const LOOK_MS: u64 = 10;
/// A packet that leaves later than this after it was given to the stack has waited for the link-layer address of its receiver (ARP), which
/// is no part of the round trip.
const ORDINARY_DELAY_MS: u64 = 5;

/// The memory of an [`Echo`]: `N` pings at once, 160 bytes each on a chip of 32 bits.
///
/// In a firmware: `static MEMORY: StaticCell<EchoMemory<2>> = StaticCell::new();`
pub struct EchoMemory<const N: usize> {
    places: [RefCell<Place>; N],
}

/// The buffers of one ping: room for two packets that come in, and for the one that goes out.
struct Place {
    rx_meta: [PacketMetadata; 2],
    rx: [u8; 2 * PACKET_BYTES],
    tx_meta: [PacketMetadata; 1],
    tx: [u8; PACKET_BYTES],
}

impl Place {
    const EMPTY: Place = Place {
        rx_meta: [PacketMetadata::EMPTY; 2],
        rx: [0; 2 * PACKET_BYTES],
        tx_meta: [PacketMetadata::EMPTY; 1],
        tx: [0; PACKET_BYTES],
    };
}

impl<const N: usize> EchoMemory<N> {
    /// Empty buffers.
    #[must_use]
    pub const fn new() -> Self {
        EchoMemory { places: [const { RefCell::new(Place::EMPTY) }; N] }
    }

    /// A place that no ping has.
    fn free(&self) -> Option<RefMut<'_, Place>> {
        self.places.iter().find_map(|place| place.try_borrow_mut().ok())
    }
}

impl<const N: usize> Default for EchoMemory<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for EchoMemory<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EchoMemory").field("pings", &N).finish()
    }
}

/// Why a ping was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum EchoError {
    /// The board has no network: the link is down, or DHCP has given no address yet. It says nothing about the host.
    NoNetwork,
    /// All places are taken.
    TooMany {
        /// How many there are.
        limit: usize,
    },
    /// There is no way to the host from here.
    NoRoute,
    /// The host name has no IPv4 address, or the name server does not answer.
    NameNotFound,
}

impl fmt::Display for EchoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EchoError::NoNetwork => f.write_str("the board has no network"),
            EchoError::TooMany { limit } => write!(f, "more than {limit} pings at once"),
            EchoError::NoRoute => f.write_str("no route to the host"),
            EchoError::NameNotFound => {
                f.write_str("the host name has no IPv4 address, or the name server does not answer")
            }
        }
    }
}

impl core::error::Error for EchoError {}

/// Sends ICMP echo requests, `N` at once.
///
/// Each ping has a socket of its own: a host whose link-layer address nobody knows would hold up all that wait in the same socket. The stack asks
/// for one such address a second, so requests leave one after the other, and one that waits for its address lets others go first. Thus a
/// host on the board's own network that is gone delays the pings of others by up to a second, but makes none of them fail.
pub struct Echo<'d, const N: usize> {
    stack: Stack<'d>,
    memory: &'d EchoMemory<N>,
    /// A request is on its way out.
    sending: Cell<bool>,
    /// So many wait for their first turn.
    fresh: Cell<usize>,
    /// The stack may ask for a link-layer address again.
    ask_again: Cell<Instant>,
    /// Identifier and sequence number of the next request, so that a late reply is not taken for another one's.
    next: Cell<u32>,
}

impl<'d, const N: usize> Echo<'d, N> {
    /// Pings through `stack`. It must have `N` sockets left: [`assert_sockets`](super::assert_sockets).
    #[must_use]
    pub fn new(stack: Stack<'d>, memory: &'d EchoMemory<N>) -> Self {
        // Not the same after each boot.
        let seed = Instant::now().as_ticks().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (sending, fresh, ask_again) = (Cell::new(false), Cell::new(0), Cell::new(Instant::MIN));
        Echo { stack, memory, sending, fresh, ask_again, next: Cell::new((seed >> 32) as u32) }
    }

    /// The first IPv4 address of a host name.
    ///
    /// # Errors
    /// [`EchoError::NameNotFound`] after 4.5 s at the latest, [`EchoError::NoNetwork`].
    pub fn resolve(&self, name: &str) -> impl Future<Output = Result<Ipv4Addr, EchoError>> {
        async move {
            if !self.stack.is_config_up() {
                return Err(EchoError::NoNetwork);
            }
            super::resolve(self.stack, name).await.ok_or(EchoError::NameNotFound)
        }
    }

    /// Sends one request and waits for its reply: the round-trip time in microseconds, `None` if there was none within
    /// `timeout_ms` milliseconds, which begin when it has its turn. The time is as fine as embassy-time's ticks, at
    /// least 1, and includes what the executor takes to come round. What the request waited for a link-layer address does not count; on a
    /// board that is busy at that moment it can then come out too short.
    ///
    /// # Errors
    /// [`EchoError`]: it was not sent.
    #[allow(
        clippy::await_holding_refcell_ref,
        reason = "to hold a place while it pings is its purpose; others take the next"
    )]
    pub fn ping(
        &self,
        target: Ipv4Addr,
        timeout_ms: u32,
    ) -> impl Future<Output = Result<Option<u32>, EchoError>> {
        async move {
            if !self.stack.is_config_up() {
                return Err(EchoError::NoNetwork);
            }
            let mut place = self.memory.free().ok_or(EchoError::TooMany { limit: N })?;
            let mut until = None;
            loop {
                let turn = self.turn(until.is_some()).await;
                let given = Instant::now();
                let end = *until.get_or_insert(given + Duration::from_millis(timeout_ms.into()));
                if end <= given {
                    return Ok(None);
                }
                let label = self.label();
                // Dropped with this future, and with it what is still queued.
                let mut socket = self.socket(&mut place, label)?;
                poll_fn(|cx| send(&socket, target, label, cx)).await?;
                let wait = end.min(given + Duration::from_millis(ADDRESS_WAIT_MS));
                if with_deadline(wait, socket.flush()).await.is_err() {
                    // Nobody has this address, or the question or its answer was lost.
                    self.ask_again.set(given + Duration::from_millis(ADDRESS_PAUSE_MS));
                    drop((socket, turn));
                    if Instant::now() >= end {
                        return Ok(None);
                    }
                    continue;
                }
                drop(turn);
                let left = Instant::now();
                let late = left - given > Duration::from_millis(ORDINARY_DELAY_MS);
                let sent = if late { left } else { given };
                let reply = with_deadline(end, poll_fn(|cx| receive(&socket, target, label, cx))).await;
                // Not 0, if the reply was there before this task came round to see that the request had left.
                return Ok(reply
                    .ok()
                    .map(|()| u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX).max(1)));
            }
        }
    }

    /// A socket for requests with this label.
    fn socket<'a>(&self, place: &'a mut Place, label: [u8; 4]) -> Result<IcmpSocket<'a>, EchoError>
    where
        'd: 'a,
    {
        let Place { rx_meta, rx, tx_meta, tx } = place;
        let mut socket = IcmpSocket::new(self.stack, rx_meta, rx, tx_meta, tx);
        let ident = u16::from_be_bytes([label[0], label[1]]);
        socket.bind(IcmpEndpoint::Ident(ident)).map_err(|_| EchoError::NoRoute)?;
        Ok(socket)
    }

    /// Waits until no other request is on its way out, and the stack may ask for a link-layer address. Whoever comes `again` lets those go first
    /// that come for the first time.
    fn turn(&self, again: bool) -> impl Future<Output = Turn<'_>> {
        async move {
            let fresh = (!again).then(|| Fresh::new(&self.fresh));
            while self.sending.get() || again && self.fresh.get() > 0 || Instant::now() < self.ask_again.get()
            {
                Timer::after_millis(LOOK_MS).await;
            }
            drop(fresh);
            self.sending.set(true);
            Turn(&self.sending)
        }
    }

    /// Identifier and sequence number, as they are sent. The identifier is never that of another ping under way, unless 65,536 are.
    fn label(&self) -> [u8; 4] {
        let next = self.next.get().wrapping_add(0x0001_0001);
        self.next.set(next);
        next.to_be_bytes()
    }
}

/// Sends the request with this label. It is made within a poll, as replies are read, so that no future holds a packet.
fn send(
    socket: &IcmpSocket<'_>,
    target: Ipv4Addr,
    label: [u8; 4],
    cx: &mut Context<'_>,
) -> Poll<Result<(), EchoError>> {
    // The stack computes the checksum.
    let mut request = [0; PACKET_BYTES];
    request[0] = ECHO;
    request[4..8].copy_from_slice(&label);
    socket.poll_send_to(&request, IpAddress::Ipv4(target), cx).map_err(
        |(SendError::NoRoute | SendError::SocketNotBound | SendError::PacketTooLarge)| EchoError::NoRoute,
    )
}

/// Receives the reply to the request with this label.
fn receive(socket: &IcmpSocket<'_>, target: Ipv4Addr, label: [u8; 4], cx: &mut Context<'_>) -> Poll<()> {
    let mut reply = [0; PACKET_BYTES];
    loop {
        match socket.poll_recv_from(&mut reply, cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok((PACKET_BYTES, from))) => {
                let is_reply = reply[0] == ECHO_REPLY && reply[4..8] == label;
                if is_reply && from == IpAddress::Ipv4(target) {
                    return Poll::Ready(());
                }
            }
            // Another packet with this identifier may be longer; it is not the reply.
            Poll::Ready(_) => {}
        }
    }
}

/// One that waits for its first turn.
struct Fresh<'a>(&'a Cell<usize>);

impl<'a> Fresh<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Fresh(count)
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// The right to send. It ends when this is dropped.
struct Turn<'a>(&'a Cell<bool>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl<const N: usize> fmt::Debug for Echo<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Echo").field("pings", &N).finish_non_exhaustive()
    }
}
