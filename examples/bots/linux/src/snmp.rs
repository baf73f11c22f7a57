//! SNMP over UDP for thousands of agents: one shared socket per address family, for the SNMP bot.
//!
//! Answers are matched by the agent's address and port and by the number of the request, which can't be guessed. What matches
//! nothing is counted and ignored ([`Stats`]): answers that come late or twice, and strangers. An agent that answers from
//! another of its addresses than the one it was asked at (several of a router's, say) is not taken either, but named:
//! [`NetworkFault::AnsweredFrom`].
//!
//! # One thread, no runtime
//! A thread receives; requests are sent by whoever asks. So it works from any number of runtimes at once. The thread ends
//! when the last clone is dropped. An idle one costs no wake-ups.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grafolean_bot_snmp::network::{Network, NetworkFault};
use grafolean_icmp::{IcmpConfig, Resolver};
use grafolean_snmp_codec::{RequestTag, request_tag};
use grafolean_std::clock::BootClock;
use grafolean_std::core::device::Host;
use grafolean_std::core::time::Millis;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::sync::oneshot;

/// Wanted receive buffer per socket, in bytes: of some thousands of agents that answer at once. The kernel cuts it to
/// `net.core.rmem_max`.
pub const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// The longest datagram over UDP.
const MAX_DATAGRAM: usize = 65_535;
/// Datagrams received before the thread looks whether it is to end.
const RECEIVE_TURN: usize = 1_024;
/// Waits until the kernel has buffers again, in milliseconds.
const NO_BUFFERS_WAIT_MS: u64 = 2;
/// So many waits until that counts as a fault.
const NO_BUFFERS_TRIES: u32 = 100;

/// Where an agent is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Agent {
    ip: IpAddr,
    port: u16,
    /// Of link-local addresses: the interface's index.
    scope_id: u32,
}

impl Agent {
    fn socket_addr(self) -> SocketAddr {
        match self.ip {
            IpAddr::V4(ip) => SocketAddr::from((ip, self.port)),
            IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, self.port, 0, self.scope_id)),
        }
    }
}

/// What came besides answers, since the opening.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Requests sent, with repetitions.
    pub sent: u64,
    /// Answers that somebody waited for.
    pub answers: u64,
    /// SNMP messages that nobody waited for: they came late or twice, or from another address than was asked.
    pub unexpected: u64,
    /// Datagrams that are no SNMP.
    pub foreign: u64,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    answers: AtomicU64,
    unexpected: AtomicU64,
    foreign: AtomicU64,
}

/// Who waits for an answer of whom.
struct Waiting {
    agent: Agent,
    caller: oneshot::Sender<Vec<u8>>,
    /// What had the right number came from here.
    elsewhere: Option<SocketAddr>,
}

impl Waiting {
    /// Whether a datagram from there is the agent's.
    fn is_of(&self, source: SocketAddr) -> bool {
        let scope_id = if let SocketAddr::V6(v6) = source { v6.scope_id() } else { 0 };
        let is_in_scope = self.agent.scope_id == 0 || self.agent.scope_id == scope_id;
        self.agent.ip == source.ip() && self.agent.port == source.port() && is_in_scope
    }
}

struct Shared {
    sockets: [Option<UdpSocket>; 2],
    /// By the number of the request: more than one of a number only by chance.
    waiting: Mutex<HashMap<RequestTag, Vec<Waiting>>>,
    counts: Counts,
    ended: AtomicBool,
    wake: EventFd,
}

/// Every change under this lock is complete at each panic that could happen, so a poisoned one is used on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Handle {
    shared: Arc<Shared>,
    names: Resolver,
    clock: BootClock,
    keys: RandomState,
    numbers: AtomicU64,
    life: u32,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Fails only when the counter is full: then the thread is awake anyway.
        let _ = self.shared.wake.write(1);
    }
}

/// A [`Network`] over this machine's UDP sockets. Clones share them.
#[derive(Clone)]
pub struct UdpNetwork(Option<Arc<Handle>>);

impl fmt::Debug for UdpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpNetwork").field("stats", &self.stats()).finish()
    }
}

impl UdpNetwork {
    /// Opens a socket per family and starts the thread. One family is enough.
    ///
    /// # Errors
    /// Neither family has a socket, or the thread does not start.
    pub fn open() -> io::Result<Self> {
        let sockets = match (socket(Domain::IPV4), socket(Domain::IPV6)) {
            (Err(error), Err(_)) => return Err(error),
            (v4, v6) => [v4.ok(), v6.ok()],
        };
        let usable = sockets.each_ref().map(Option::is_some);
        let shared = Arc::new(Shared {
            sockets,
            waiting: Mutex::default(),
            counts: Counts::default(),
            ended: AtomicBool::new(false),
            wake: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
        });
        let keys = RandomState::new();
        let handle = Handle {
            names: Resolver::new(&IcmpConfig::default(), usable),
            clock: BootClock::new(),
            life: keys.hash_one(u64::MAX) as u32,
            keys,
            numbers: AtomicU64::new(0),
            shared: Arc::clone(&shared),
        };
        std::thread::Builder::new().name("snmp".to_owned()).spawn(move || receive_all(&shared))?;
        Ok(UdpNetwork(Some(Arc::new(handle))))
    }

    /// Asks nobody: for a dry run.
    #[must_use]
    pub const fn none() -> Self {
        UdpNetwork(None)
    }

    /// Counts since the opening.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let Some(handle) = &self.0 else { return Stats::default() };
        let counts = &handle.shared.counts;
        let [sent, answers, unexpected, foreign] =
            [&counts.sent, &counts.answers, &counts.unexpected, &counts.foreign]
                .map(|count| count.load(Ordering::Relaxed));
        Stats { sent, answers, unexpected, foreign }
    }

    /// The receive buffers that the kernel granted, in bytes, of IPv4 and IPv6; `None`: there is no such socket.
    #[must_use]
    pub fn receive_buffer_bytes(&self) -> [Option<usize>; 2] {
        let Some(handle) = &self.0 else { return [None; 2] };
        let size = |socket: &UdpSocket| socket2::SockRef::from(socket).recv_buffer_size().ok();
        handle.shared.sockets.each_ref().map(|socket| socket.as_ref().and_then(size))
    }

    fn handle(&self) -> Result<&Arc<Handle>, NetworkFault> {
        self.0.as_ref().ok_or(NetworkFault::Unavailable("this is a dry run"))
    }
}

fn socket(domain: Domain) -> io::Result<UdpSocket> {
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    let address: SocketAddr = if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
        (Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    };
    socket.bind(&SockAddr::from(address))?;
    // What the kernel does not grant costs answers at peaks only.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(RECEIVE_BUFFER_BYTES / 4);
    Ok(socket.into())
}

fn receive_all(shared: &Shared) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    while !shared.ended.load(Ordering::SeqCst) {
        let mut fds = vec![PollFd::new(shared.wake.as_fd(), PollFlags::POLLIN)];
        fds.extend(shared.sockets.iter().flatten().map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN)));
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            // Interrupted, or out of memory: not to spin in the latter case.
            std::thread::sleep(Duration::from_millis(NO_BUFFERS_WAIT_MS));
        }
        for socket in shared.sockets.iter().flatten() {
            for _ in 0..RECEIVE_TURN {
                match socket.recv_from(&mut buffer) {
                    Ok((len, source)) => shared.received(buffer.get(..len).unwrap_or_default(), source),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An error left on the socket by an earlier datagram; reading has cleared it.
                    Err(_) => {}
                }
            }
        }
    }
}

impl Shared {
    fn received(&self, datagram: &[u8], source: SocketAddr) {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        let Some(tag) = request_tag(datagram) else {
            count(&self.counts.foreign);
            return;
        };
        let waiting = {
            let mut waiting = lock(&self.waiting);
            let of_number = waiting.get_mut(&tag);
            of_number.and_then(|all| match all.iter().position(|one| one.is_of(source)) {
                Some(at) => Some(all.swap_remove(at)),
                None => {
                    all.iter_mut().for_each(|one| one.elsewhere = Some(source));
                    None
                }
            })
        };
        let is_taken = waiting.is_some_and(|waiting| waiting.caller.send(datagram.to_vec()).is_ok());
        count(if is_taken { &self.counts.answers } else { &self.counts.unexpected });
    }

    fn socket(&self, ip: IpAddr) -> Result<&UdpSocket, NetworkFault> {
        let at = usize::from(ip.is_ipv6());
        self.sockets.get(at).and_then(Option::as_ref).ok_or(NetworkFault::NoRoute)
    }
}

/// Waits no more when its future is dropped.
struct Ticket<'a> {
    shared: &'a Shared,
    agent: Agent,
    tag: RequestTag,
}

impl Ticket<'_> {
    /// From where something came with the right number.
    fn elsewhere(&self) -> Option<SocketAddr> {
        let waiting = lock(&self.shared.waiting);
        waiting.get(&self.tag)?.iter().find(|one| one.agent == self.agent)?.elsewhere
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.shared.waiting);
        if let Entry::Occupied(mut of_number) = waiting.entry(self.tag) {
            of_number.get_mut().retain(|one| one.agent != self.agent);
            if of_number.get().is_empty() {
                of_number.remove();
            }
        }
    }
}

impl Network for UdpNetwork {
    type Target = Agent;
    type Datagram = Vec<u8>;

    async fn resolve(&self, host: Host<'_>, port: u16) -> Result<Agent, NetworkFault> {
        let (ip, scope_id) = match host {
            Host::Ip(ip) => (ip, 0),
            Host::Name(name) => {
                let found =
                    self.handle()?.names.resolve(name).await.map_err(|_| NetworkFault::NameNotFound)?;
                (found.ip(), found.scope_id())
            }
        };
        Ok(Agent { ip, port, scope_id })
    }

    async fn exchange(
        &self,
        agent: Agent,
        request: &[u8],
        tag: RequestTag,
        timeout_ms: u32,
    ) -> Result<Option<Vec<u8>>, NetworkFault> {
        let shared = &*self.handle()?.shared;
        let socket = shared.socket(agent.ip)?;
        let (caller, answer) = oneshot::channel();
        lock(&shared.waiting).entry(tag).or_default().push(Waiting { agent, caller, elsewhere: None });
        let ticket = Ticket { shared, agent, tag };
        let mut tries = 0;
        loop {
            match socket.send_to(request, agent.socket_addr()) {
                Ok(_) => break,
                Err(error) if is_short_of_buffers(&error) && tries < NO_BUFFERS_TRIES => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(NO_BUFFERS_WAIT_MS)).await;
                }
                Err(error) => return Err(fault(&error)),
            }
        }
        shared.counts.sent.fetch_add(1, Ordering::Relaxed);
        let timeout = Duration::from_millis(timeout_ms.into());
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(datagram)) => Ok(Some(datagram)),
            _ => ticket.elsewhere().map_or(Ok(None), |source| Err(NetworkFault::AnsweredFrom(source))),
        }
    }

    fn random(&self) -> u32 {
        let Some(handle) = &self.0 else { return 0 };
        // SipHash of a counter, by keys from the system.
        handle.keys.hash_one(handle.numbers.fetch_add(1, Ordering::Relaxed)) as u32
    }

    fn life(&self) -> u32 {
        self.0.as_ref().map_or(0, |handle| handle.life)
    }

    fn now(&self) -> Millis {
        Millis(self.0.as_ref().map_or(0, |handle| handle.clock.now()))
    }
}

fn is_short_of_buffers(error: &io::Error) -> bool {
    let no_buffers = error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32);
    no_buffers || matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn fault(error: &io::Error) -> NetworkFault {
    match error.kind() {
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::NetworkDown => NetworkFault::NoRoute,
        io::ErrorKind::PermissionDenied => NetworkFault::NotTaken(
            "the kernel forbids it: a firewall, or the address is a network's broadcast address",
        ),
        _ => NetworkFault::NotTaken(
            "the kernel did not send it: no buffers, or a fault of the network interface",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grafolean_snmp_codec::{ErrorStatus, MessageWriter, Oid, PduHeader, Value, Version};

    const LIMIT_MS: u32 = 30_000;

    fn message(header: PduHeader) -> Vec<u8> {
        let mut buffer = [0; 484];
        let uptime: Oid = "1.3.6.1.2.1.1.3.0".parse().unwrap();
        let mut writer = MessageWriter::new(&mut buffer, Version::V2c, b"public", header).unwrap();
        writer.push(&uptime, Value::TimeTicks(7)).unwrap();
        writer.finish().unwrap().to_vec()
    }

    fn answer(id: i32) -> Vec<u8> {
        message(PduHeader::response(id, ErrorStatus::NoError, 0))
    }

    /// An agent that sends back what `answers` makes of each request's number, from the socket that was asked.
    fn agent(answers: impl Fn(i32, &UdpSocket, SocketAddr) + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                if let Some(RequestTag::RequestId(id)) = request_tag(&buffer[..len]) {
                    answers(id, &socket, from);
                }
            }
        });
        address
    }

    async fn try_to_ask(
        network: &UdpNetwork,
        to: SocketAddr,
        id: i32,
        timeout_ms: u32,
    ) -> Result<Option<Vec<u8>>, NetworkFault> {
        let target = network.resolve(Host::Ip(to.ip()), to.port()).await.unwrap();
        let request = message(PduHeader::get(id));
        network.exchange(target, &request, RequestTag::RequestId(id), timeout_ms).await
    }

    async fn ask(network: &UdpNetwork, to: SocketAddr, id: i32, timeout_ms: u32) -> Option<Vec<u8>> {
        try_to_ask(network, to, id, timeout_ms).await.unwrap()
    }

    #[tokio::test]
    async fn an_answer_is_matched_by_its_number_and_what_nobody_waits_for_is_counted() {
        let network = UdpNetwork::open().unwrap();
        let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = agent(move |id, socket, from| {
            // No SNMP, a wrong number, the right one from another port, then the answer, twice.
            socket.send_to(b"hello", from).unwrap();
            socket.send_to(&answer(id + 1), from).unwrap();
            elsewhere.send_to(&answer(id), from).unwrap();
            socket.send_to(&answer(id), from).unwrap();
            socket.send_to(&answer(id), from).unwrap();
        });
        let got = ask(&network, to, 5, LIMIT_MS).await.unwrap();
        assert_eq!(request_tag(&got), Some(RequestTag::RequestId(5)));
        let start = std::time::Instant::now();
        let expected = Stats { sent: 1, answers: 1, unexpected: 3, foreign: 1 };
        while network.stats() != expected {
            assert!(start.elapsed().as_secs() < 30, "{:?}", network.stats());
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn an_agent_that_answers_from_another_port_is_not_taken_and_the_port_is_named() {
        let network = UdpNetwork::open().unwrap();
        let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
        let source = elsewhere.local_addr().unwrap();
        let to = agent(move |id, _, from| {
            elsewhere.send_to(&answer(id), from).unwrap();
        });
        // Long enough for it to come on any machine, asked again if it did not.
        let start = std::time::Instant::now();
        let fault = loop {
            match try_to_ask(&network, to, 5, 200).await {
                Ok(None) => assert!(start.elapsed().as_secs() < 30, "nothing came"),
                Ok(Some(_)) => panic!("it was taken"),
                Err(fault) => break fault,
            }
        };
        assert_eq!(fault, NetworkFault::AnsweredFrom(source));
        let text = format!("{fault}");
        assert!(text.contains(&source.to_string()), "{text}");
        assert!(lock(&network.0.as_ref().unwrap().shared.waiting).is_empty());
    }

    #[tokio::test]
    async fn a_thousand_agents_are_asked_at_once_and_each_gets_its_own_answer() {
        let network = UdpNetwork::open().unwrap();
        let to = agent(|id, socket, from| {
            socket.send_to(&answer(id), from).unwrap();
        });
        let mut tasks = tokio::task::JoinSet::new();
        for id in 1..=1000 {
            let network = network.clone();
            tasks.spawn(async move {
                // Loopback loses what the agent's own buffer has no room for.
                loop {
                    if let Some(got) = ask(&network, to, id, 2_000).await {
                        return request_tag(&got) == Some(RequestTag::RequestId(id));
                    }
                }
            });
        }
        assert!(tasks.join_all().await.into_iter().all(|right| right));
    }

    #[tokio::test]
    async fn silence_gives_none_and_leaves_nothing_behind() {
        let network = UdpNetwork::open().unwrap();
        let to = agent(|_, _, _| {});
        assert_eq!(ask(&network, to, 5, 1).await, None);
        let handle = network.0.as_ref().unwrap();
        assert!(lock(&handle.shared.waiting).is_empty());
        drop(tokio::time::timeout(Duration::from_millis(1), ask(&network, to, 6, LIMIT_MS)).await);
        assert!(lock(&handle.shared.waiting).is_empty(), "given up");
    }

    #[test]
    fn the_thread_and_its_sockets_go_with_the_last_clone() {
        let network = UdpNetwork::open().unwrap();
        let shared = Arc::downgrade(&network.0.as_ref().unwrap().shared);
        drop(network.clone());
        assert_eq!(shared.strong_count(), 2);
        drop(network);
        let start = std::time::Instant::now();
        while shared.strong_count() > 0 {
            assert!(start.elapsed().as_secs() < 30, "the thread lives on");
            std::thread::yield_now();
        }
    }

    #[test]
    fn numbers_differ_from_each_other_and_from_another_lifes() {
        let (one, other) = (UdpNetwork::open().unwrap(), UdpNetwork::open().unwrap());
        let first: Vec<u32> = (0..100).map(|_| one.random()).collect();
        let second: Vec<u32> = (0..100).map(|_| other.random()).collect();
        assert_ne!(first, second);
        let distinct: std::collections::HashSet<u32> = first.into_iter().collect();
        assert!(distinct.len() >= 99);
    }
}
