//! The SNMP bot's network: UDP through the board's stack.

use core::cell::{Cell, RefCell, RefMut};
use core::fmt;
use core::future::poll_fn;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::task::{Context, Poll};

use embassy_net::dns::DnsQueryType;
use embassy_net::udp::{PacketMetadata, SendError, UdpSocket};
use embassy_net::{IpAddress, IpEndpoint, Stack};
use embassy_time::{Duration, Instant, Timer, with_deadline, with_timeout};
use grafolean_bot_snmp::SnmpBot;
use grafolean_bot_snmp::memory::BoardMemory;
use grafolean_bot_snmp::network::{Network, NetworkFault};
use grafolean_embassy::core::device::Host;
use grafolean_embassy::core::random::SplitMix64;
use grafolean_embassy::core::time::Millis;
use grafolean_snmp_codec::{RequestTag, request_tag};

/// SNMP runs at once, each with a socket of its own.
pub const SNMP_RUNS: usize = 2;

/// The SNMP bot of a board: SNMPv1 and v2c. It keeps no host name that is longer than 32 bytes, sensors of up to 192 bytes of text with up to
/// 4 OIDs, and of a run what fits into 1 kB: the names of about 40 interfaces.
pub type Snmp = SnmpBot<NetAgents<SNMP_RUNS>, BoardMemory<1024, 64>, 32, 64, 192, 4, 24, REQUEST_BYTES>;

/// The longest request, in bytes: what every agent must take (RFC 3417, 3.2). Agents are asked for answers that are no longer.
const REQUEST_BYTES: usize = 484;
/// The longest answer, in bytes: what an ethernet frame takes, as the stack puts no fragments together.
const ANSWER_BYTES: usize = 1_472;
/// Answers that a run holds at once: of a walk's rows, and of a GET for other columns of them.
const ANSWERS: usize = 2;
/// How long the name server is waited for, in milliseconds: embassy-net asks after 0, 1 and 3 s.
const DNS_LIMIT_MS: u64 = 4_500;
/// How long the link-layer address of an agent is waited for at once, and from one question for one to the next, in milliseconds. The stack
/// asks for one a second in all; an agent that is gone, and is asked for without a pause, would keep others from being found.
const ADDRESS_WAIT_MS: u64 = 950;
const ADDRESS_PAUSE_MS: u64 = 1_010;
/// So many agents are remembered that had no link-layer address when they were asked last.
const GONE: usize = 8;
/// How often those who wait for their turn look, in milliseconds.
const LOOK_MS: u64 = 10;
/// The first of the ports that are nobody's (RFC 6335), and how many there are.
const FIRST_PORT: u16 = 49_152;
const PORTS: u16 = 16_384;

/// The memory of [`NetAgents`], 5 kB for each run. Empty, all its bytes are zero, so that a static of it takes no room in flash.
pub struct AgentsMemory<const N: usize> {
    ports: [PortMemory; N],
    answers: [[Place; ANSWERS]; N],
}

struct PortMemory {
    rx: [u8; ANSWER_BYTES],
    tx: [u8; REQUEST_BYTES],
}

/// What [`NetAgents`] keeps of the datagrams in its memory, 100 bytes for each run.
pub struct AgentsHeads<const N: usize>([([PacketMetadata; 2], [PacketMetadata; 1]); N]);

impl<const N: usize> AgentsHeads<N> {
    /// Of no datagram.
    #[must_use]
    pub const fn new() -> Self {
        AgentsHeads([const { ([PacketMetadata::EMPTY; 2], [PacketMetadata::EMPTY; 1]) }; N])
    }
}

impl<const N: usize> Default for AgentsHeads<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for AgentsHeads<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentsHeads").field("runs", &N).finish()
    }
}

/// Room for an answer: how long it is, and its bytes.
type Place = RefCell<(usize, [u8; ANSWER_BYTES])>;

impl<const N: usize> AgentsMemory<N> {
    /// Empty buffers.
    #[must_use]
    pub const fn new() -> Self {
        AgentsMemory {
            ports: [const { PortMemory { rx: [0; ANSWER_BYTES], tx: [0; REQUEST_BYTES] } }; N],
            answers: [const { [const { RefCell::new((0, [0; ANSWER_BYTES])) }; ANSWERS] }; N],
        }
    }
}

impl<const N: usize> Default for AgentsMemory<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for AgentsMemory<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the bytes: they hold the community.
        f.debug_struct("AgentsMemory").field("runs", &N).finish()
    }
}

/// A [`Network`] of `N` runs at once over embassy-net's UDP sockets. IPv4 only.
///
/// Each run has a socket of its own: a request to an agent whose link-layer address nobody knows would hold up all that wait in the same
/// socket. The stack asks for one such address a second; so agents for which this was in vain are asked one after the other, and whoever had
/// the last turn lets another go first. Thus an agent on the board's own network that is gone delays others whose address is not known by up
/// to two seconds, and those whose address is known not at all.
///
/// A repeated request goes out by the same socket, so that a late answer to the first one is taken.
pub struct NetAgents<const N: usize> {
    stack: Stack<'static>,
    ports: [RefCell<Port>; N],
    answers: &'static [[Place; ANSWERS]; N],
    turns: Turns,
    gone: Gone,
    random: RefCell<SplitMix64>,
    life: u32,
}

/// A socket, for one exchange at a time.
struct Port {
    socket: UdpSocket<'static>,
    local: u16,
    /// Nothing is in its transmit buffer.
    is_empty: bool,
    /// The last exchange.
    last: Option<(IpEndpoint, RequestTag)>,
}

impl Port {
    /// Drops what is queued: a request whose receiver's link-layer address is not known.
    fn clear(&mut self) -> Result<(), NetworkFault> {
        self.socket.close();
        // It was closed a moment ago, and the port is not 0.
        let bound = self.socket.bind(self.local);
        bound.map_err(|_| NetworkFault::NotTaken("the network stack gives no port"))?;
        self.is_empty = true;
        Ok(())
    }
}

impl<const N: usize> NetAgents<N> {
    /// Asks agents through `stack`, which must have `N` sockets left. `seed` is another one on each board and at each boot.
    ///
    /// # Panics
    /// Inside of embassy-net, if all sockets of the stack are taken.
    #[must_use]
    pub fn new(
        stack: Stack<'static>,
        memory: &'static mut AgentsMemory<N>,
        heads: &'static mut AgentsHeads<N>,
        seed: u64,
    ) -> Self {
        let mut random = SplitMix64::new(seed);
        let mut local = random.below(PORTS.into()) as u16;
        let mut memories = memory.ports.iter_mut();
        let ports = heads.0.each_mut().map(|(rx_meta, tx_meta)| {
            local = (local + 1) % PORTS;
            // As many as heads.
            let (rx, tx): (&mut [u8], &mut [u8]) = match memories.next() {
                Some(PortMemory { rx, tx }) => (rx, tx),
                None => (&mut [], &mut []),
            };
            let socket = UdpSocket::new(stack, rx_meta, rx, tx_meta, tx);
            // Bound by the first exchange.
            RefCell::new(Port { socket, local: FIRST_PORT + local, is_empty: false, last: None })
        });
        let life = random.next_u64() as u32;
        let random = RefCell::new(random);
        let (turns, gone) = (Turns::new(), Gone::new());
        NetAgents { stack, ports, answers: &memory.answers, turns, gone, random, life }
    }

    /// A port that is free: the one of the request that is repeated, if there is one.
    fn port(&self, exchange: (IpEndpoint, RequestTag)) -> Option<(usize, RefMut<'_, Port>)> {
        let free =
            || self.ports.iter().enumerate().filter_map(|(n, port)| Some((n, port.try_borrow_mut().ok()?)));
        let again = free().find(|(_, port)| port.last == Some(exchange));
        again.or_else(|| free().next())
    }

    /// A place that no answer has.
    fn place(&self) -> Option<Answer> {
        self.answers.iter().flatten().find_map(|place| place.try_borrow_mut().ok()).map(Answer)
    }
}

impl<const N: usize> fmt::Debug for NetAgents<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetAgents").field("runs", &N).finish_non_exhaustive()
    }
}

impl<const N: usize> Network for NetAgents<N> {
    type Target = (Ipv4Addr, u16);
    type Datagram = Answer;

    async fn resolve(&self, host: Host<'_>, port: u16) -> Result<(Ipv4Addr, u16), NetworkFault> {
        let name = match host {
            Host::Ip(IpAddr::V4(ip)) => return Ok((ip, port)),
            Host::Ip(IpAddr::V6(_)) => {
                return Err(NetworkFault::Unavailable("this board speaks IPv4 only"));
            }
            Host::Name(name) => name,
        };
        if !self.stack.is_config_up() {
            return Err(NO_NETWORK);
        }
        let query = self.stack.dns_query(name, DnsQueryType::A);
        let addresses = with_timeout(Duration::from_millis(DNS_LIMIT_MS), query).await;
        let addresses = addresses.ok().and_then(Result::ok).unwrap_or_default();
        let ip = addresses.into_iter().find_map(|address| match address {
            IpAddress::Ipv4(ip) => Some(ip),
            // Where a firmware has IPv6 switched on in embassy-net.
            #[allow(unreachable_patterns)]
            _ => None,
        });
        Ok((ip.ok_or(NetworkFault::NameNotFound)?, port))
    }

    /// `timeout_ms` begins when the request has left, or when it has its turn.
    #[allow(
        clippy::await_holding_refcell_ref,
        reason = "to hold a port while it waits for its answer is its purpose; others take the next"
    )]
    async fn exchange(
        &self,
        (ip, port): (Ipv4Addr, u16),
        request: &[u8],
        tag: RequestTag,
        timeout_ms: u32,
    ) -> Result<Option<Answer>, NetworkFault> {
        if !self.stack.is_config_up() {
            return Err(NO_NETWORK);
        }
        let target = IpEndpoint::new(IpAddress::Ipv4(ip), port);
        // There are as many as runs, and twice as many places.
        let (nth, mut port) = self.port((target, tag)).ok_or(TOO_MANY)?;
        let mut answer = self.place().ok_or(TOO_MANY)?;
        let mut until = None;
        loop {
            let turn = if self.gone.has(ip) { Some(self.turns.next(nth).await) } else { None };
            let given = Instant::now();
            let timeout = Duration::from_millis(timeout_ms.into());
            let end = *until.get_or_insert(given + timeout);
            if end <= given {
                return Ok(None);
            }
            if !port.is_empty {
                port.clear()?;
            }
            (port.is_empty, port.last) = (false, Some((target, tag)));
            poll_fn(|cx| port.socket.poll_send_to(request, target, cx)).await.map_err(fault)?;
            let wait = end.min(given + Duration::from_millis(ADDRESS_WAIT_MS));
            if with_deadline(wait, port.socket.flush()).await.is_err() {
                // Nobody has this address, or the question or its answer was lost.
                self.turns.pause(given + Duration::from_millis(ADDRESS_PAUSE_MS));
                self.gone.set(ip, true);
                drop(turn);
                port.clear()?;
                if Instant::now() >= end {
                    return Ok(None);
                }
                continue;
            }
            port.is_empty = true;
            self.gone.set(ip, false);
            drop(turn);
            let mut elsewhere = None;
            let received = poll_fn(|cx| receive(&port.socket, target, tag, &mut answer, &mut elsewhere, cx));
            if with_timeout(timeout, received).await.is_ok() {
                return Ok(Some(answer));
            }
            return elsewhere.map_or(Ok(None), |source| Err(NetworkFault::AnsweredFrom(source)));
        }
    }

    /// By the seed and by when it is asked for, in ticks of embassy-time: no stranger who sees none of this board's requests can guess it.
    fn random(&self) -> u32 {
        let number = self.random.try_borrow_mut().map_or(0, |mut random| {
            let next = random.next_u64();
            *random = SplitMix64::new(next ^ Instant::now().as_ticks());
            random.next_u64()
        });
        (number >> 32) as u32
    }

    fn life(&self) -> u32 {
        self.life
    }

    fn now(&self) -> Millis {
        Millis(Instant::now().as_millis())
    }
}

/// A board without network knows nothing of the agent.
const NO_NETWORK: NetworkFault = NetworkFault::Unavailable("the board has no network");
const TOO_MANY: NetworkFault = NetworkFault::Unavailable("more requests at once than there is room for");

fn fault(error: SendError) -> NetworkFault {
    match error {
        SendError::NoRoute => NetworkFault::NoRoute,
        SendError::PacketTooLarge => NetworkFault::NotTaken("the request is longer than the buffer"),
        SendError::SocketNotBound => NetworkFault::NotTaken("the network stack gives no port"),
    }
}

/// Receives the datagram with this tag from this agent; others are dropped, those with the tag not without leaving their source.
fn receive(
    socket: &UdpSocket<'_>,
    target: IpEndpoint,
    tag: RequestTag,
    answer: &mut Answer,
    elsewhere: &mut Option<SocketAddr>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let (len, bytes) = &mut *answer.0;
    loop {
        match socket.poll_recv_from(bytes, cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok((received, from))) => {
                *len = received;
                if request_tag(bytes.get(..received).unwrap_or_default()) == Some(tag) {
                    if from.endpoint == target {
                        return Poll::Ready(());
                    }
                    *elsewhere = Some(SocketAddr::new(from.endpoint.addr.into(), from.endpoint.port));
                }
            }
            // Longer than there is room for in a frame.
            Poll::Ready(Err(_)) => {}
        }
    }
}

/// An agent's answer, in one of the places of [`AgentsMemory`].
pub struct Answer(RefMut<'static, (usize, [u8; ANSWER_BYTES])>);

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        self.0.1.get(..self.0.0).unwrap_or_default()
    }
}

impl AsMut<[u8]> for Answer {
    fn as_mut(&mut self) -> &mut [u8] {
        let (len, bytes) = &mut *self.0;
        bytes.get_mut(..*len).unwrap_or_default()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the bytes: they hold the community.
        f.debug_struct("Answer").field("bytes", &self.0.0).finish()
    }
}

/// Agents whose link-layer address was not to be found when they were asked last.
struct Gone([Cell<Option<Ipv4Addr>>; GONE]);

impl Gone {
    const fn new() -> Self {
        Gone([const { Cell::new(None) }; GONE])
    }

    fn has(&self, ip: Ipv4Addr) -> bool {
        self.0.iter().any(|gone| gone.get() == Some(ip))
    }

    /// Where there is no room, the one that came first is forgotten.
    fn set(&self, ip: Ipv4Addr, is_gone: bool) {
        if self.has(ip) == is_gone {
            return;
        }
        if !is_gone {
            return self.0.iter().filter(|gone| gone.get() == Some(ip)).for_each(|gone| gone.set(None));
        }
        // Each moves on by one place, up to a place that is free.
        let mut next = Some(ip);
        for gone in &self.0 {
            next = gone.replace(next);
            if next.is_none() {
                break;
            }
        }
    }
}

/// Who may ask for a link-layer address that was not to be found: one at a time.
struct Turns {
    sending: Cell<bool>,
    /// So many wait.
    waiting: Cell<usize>,
    /// Who was the last.
    last: Cell<Option<usize>>,
    /// The stack may ask for a link-layer address again.
    from: Cell<Instant>,
}

impl Turns {
    const fn new() -> Self {
        let (sending, waiting, last) = (Cell::new(false), Cell::new(0), Cell::new(None));
        Turns { sending, waiting, last, from: Cell::new(Instant::MIN) }
    }

    /// Waits until no other request is on its way out, the stack may ask for a link-layer address, and others that wait have had a turn since.
    async fn next(&self, port: usize) -> Turn<'_> {
        let waits = Waits::new(&self.waiting);
        while self.sending.get()
            || Instant::now() < self.from.get()
            || self.last.get() == Some(port) && self.waiting.get() > 1
        {
            Timer::after_millis(LOOK_MS).await;
        }
        drop(waits);
        self.sending.set(true);
        self.last.set(Some(port));
        Turn(&self.sending)
    }

    /// Nobody has a turn until then.
    fn pause(&self, until: Instant) {
        self.from.set(until);
    }
}

/// One that waits.
struct Waits<'a>(&'a Cell<usize>);

impl<'a> Waits<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Waits(count)
    }
}

impl Drop for Waits<'_> {
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

#[cfg(test)]
mod tests {
    use super::*;

    use core::pin::{Pin, pin};
    use core::task::Waker;

    fn ip(n: usize) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, n as u8)
    }

    #[test]
    fn an_agent_that_is_gone_is_remembered_until_it_is_found_or_room_is_needed_for_later_ones() {
        let gone = Gone::new();
        for n in 0..GONE {
            gone.set(ip(n), true);
            gone.set(ip(n), true);
        }
        assert!((0..GONE).all(|n| gone.has(ip(n))));
        gone.set(ip(3), false);
        gone.set(ip(77), false);
        assert!((0..GONE).all(|n| gone.has(ip(n)) == (n != 3)));
        gone.set(ip(100), true);
        assert!(gone.has(ip(0)) && gone.has(ip(100)));
        gone.set(ip(101), true);
        assert!(!gone.has(ip(0)) && gone.has(ip(1)) && gone.has(ip(100)) && gone.has(ip(101)));
    }

    /// Polls until it has its turn, `limit` times at most. The clock of this crate's tests goes on by a second with each look.
    fn turn<'t>(mut next: Pin<&mut impl Future<Output = Turn<'t>>>, limit: u32) -> Option<Turn<'t>> {
        for _ in 0..limit {
            if let Poll::Ready(turn) = next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return Some(turn);
            }
        }
        None
    }

    #[test]
    fn one_asks_at_a_time_and_who_had_the_last_turn_lets_another_go_first() {
        let turns = Turns::new();
        let first = turn(pin!(turns.next(0)), 10).unwrap();
        let (mut again, mut other) = (pin!(turns.next(0)), pin!(turns.next(1)));
        assert!(turn(again.as_mut(), 10).is_none() && turn(other.as_mut(), 10).is_none());
        drop(first);
        assert!(turn(again.as_mut(), 10).is_none());
        let second = turn(other.as_mut(), 10).unwrap();
        assert!(turn(again.as_mut(), 10).is_none());
        drop(second);
        assert!(turn(again.as_mut(), 10).is_some());
        // Alone, it need not wait, nor does one that has given up count as waiting.
        drop(turn(pin!(turns.next(2)), 10).unwrap());
        assert!(turn(pin!(turns.next(2)), 10).is_some());
        {
            let held = turn(pin!(turns.next(3)), 10).unwrap();
            assert!(turn(pin!(turns.next(4)), 10).is_none());
            drop(held);
        }
        assert!(turn(pin!(turns.next(3)), 10).is_some());
    }
}
