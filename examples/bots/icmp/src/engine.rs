//! The thread that owns the sockets: it sends in turn, receives, matches, and times out.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use nix::sys::time::TimeSpec;
use socket2::SockAddr;

use crate::open::IcmpSocket;
use crate::packet::{Codec, Family, Parsed, RECEIVE_BUFFER};
use crate::table::{Finished, Pacer, Table};
use crate::{IcmpConfig, Target, lock};

/// Packets received before sends and time-outs get a turn.
const RECEIVE_TURN: usize = 1024;
/// Replies matched under one hold of the lock.
const BATCH: usize = 128;
/// Wait before the next attempt when the kernel has no buffers and cannot say when it will.
const NO_BUFFERS_WAIT: Duration = Duration::from_millis(1);
/// A packet that has been longer in the socket's buffer than this had its time stamp spoilt by a step of the clock.
const MAX_BUFFERED: Duration = Duration::from_secs(10);

/// What the handles and the thread share.
pub(crate) struct Shared {
    pub(crate) table: Mutex<Table>,
    wake: EventFd,
}

impl Shared {
    pub(crate) fn new() -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { table: Mutex::new(Table::default()), wake })
    }

    pub(crate) fn wake(&self) {
        // Fails only when the counter is full: then the thread is awake anyway.
        let _ = self.wake.write(1);
    }
}

/// Why a family's next ping is put off.
#[derive(Clone, Copy)]
enum Blocked {
    UntilWritable,
    Until(Instant),
}

pub(crate) struct Engine {
    shared: Arc<Shared>,
    sockets: [Option<IcmpSocket>; 2],
    blocked: [Option<Blocked>; 2],
    pacer: Pacer,
    burst: u32,
    codec: Codec,
    packet: Vec<u8>,
    control: Vec<u8>,
}

impl Engine {
    /// Starts the thread. It ends when [`Table::closed`] is set.
    pub(crate) fn start(
        shared: Arc<Shared>,
        sockets: [Option<IcmpSocket>; 2],
        config: &IcmpConfig,
    ) -> io::Result<()> {
        let engine = Engine {
            shared,
            sockets,
            blocked: [None; 2],
            pacer: Pacer::new(config.packets_per_second, config.burst_packets),
            burst: config.burst_packets,
            codec: Codec::new(config.payload_bytes),
            packet: Vec::new(),
            control: cmsg_space!(TimeSpec),
        };
        thread::Builder::new().name("icmp".to_string()).spawn(move || engine.run()).map(drop)
    }

    fn run(mut self) {
        let _closer = Closer(self.shared.clone());
        let mut finished = Vec::new();
        loop {
            for family in Family::BOTH {
                self.receive(family, &mut finished);
            }
            // After receiving: a reply that was in time but had to wait in the buffer still counts.
            {
                let mut table = lock(&self.shared.table);
                if table.closed {
                    return;
                }
                table.expire(Instant::now(), &mut finished);
            }
            self.send(&mut finished);
            for (caller, outcome) in finished.drain(..) {
                // A caller that has gone away meanwhile needs no answer.
                let _ = caller.send(outcome);
            }
            self.wait();
        }
    }

    fn receive(&mut self, family: Family, finished: &mut Vec<Finished>) {
        let Some(socket) = &self.sockets[family.index()] else { return };
        let mut buffer = [0; RECEIVE_BUFFER];
        let mut replies: Vec<(u64, Target, Instant)> = Vec::new();
        let mut foreign = 0;
        for _ in 0..RECEIVE_TURN {
            let (length, source, at) = match receive_one(socket, &mut buffer, &mut self.control) {
                Ok(received) => received,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => break,
                Err(_) => {
                    // An error left on the socket; reading has cleared it. The pause keeps a lasting one cheap.
                    thread::sleep(NO_BUFFERS_WAIT);
                    break;
                }
            };
            match self.codec.parse(family, socket.info.kind, buffer.get(..length).unwrap_or_default()) {
                Parsed::Reply(id) => replies.extend(source.map(|source| (id, source, at))),
                Parsed::Foreign => foreign += 1,
                Parsed::Other => {}
            }
            if replies.len() == BATCH {
                let mut table = lock(&self.shared.table);
                finished
                    .extend(replies.drain(..).filter_map(|(id, source, at)| table.answer(id, source, at)));
            }
        }
        if !replies.is_empty() || foreign > 0 {
            let mut table = lock(&self.shared.table);
            finished.extend(replies.drain(..).filter_map(|(id, source, at)| table.answer(id, source, at)));
            table.foreign(foreign);
        }
    }

    /// Sends what the pacer allows, one burst at most, oldest first over both families.
    fn send(&mut self, finished: &mut Vec<Finished>) {
        for _ in 0..self.burst {
            let now = Instant::now();
            for blocked in &mut self.blocked {
                if matches!(blocked, Some(Blocked::Until(until)) if *until <= now) {
                    *blocked = None;
                }
            }
            let Some((id, target)) = self.next() else { return };
            if !self.pacer.delay(now).is_zero() {
                return;
            }
            let family = target.family();
            let Some(socket) = &self.sockets[family.index()] else {
                let why = io::ErrorKind::Unsupported.into();
                finished.extend(lock(&self.shared.table).refused(id, target, why));
                continue;
            };
            self.codec.request(family, id, &mut self.packet);
            let address = SockAddr::from(target.socket_addr());
            let at = Instant::now();
            let result = socket.socket.send_to(&self.packet, &address);
            let mut table = lock(&self.shared.table);
            let error = match result {
                Ok(_) => {
                    table.sent(id, target, at);
                    self.pacer.take(at);
                    continue;
                }
                Err(error) => error,
            };
            let blocked = match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EINTR) => continue,
                Some(Errno::EAGAIN) => Blocked::UntilWritable,
                Some(Errno::ENOBUFS | Errno::ENOMEM) => Blocked::Until(at + NO_BUFFERS_WAIT),
                _ => {
                    finished.extend(table.refused(id, target, error));
                    continue;
                }
            };
            table.put_off(id, at, error);
            self.blocked[family.index()] = Some(blocked);
        }
    }

    /// The oldest ping of the families that are not blocked.
    fn next(&self) -> Option<(u64, Target)> {
        let mut table = lock(&self.shared.table);
        Family::BOTH
            .into_iter()
            .filter(|family| self.blocked[family.index()].is_none())
            .filter_map(|family| table.head(family))
            .min_by_key(|(id, _)| *id)
    }

    fn wait(&mut self) {
        let now = Instant::now();
        let send_at = self.next().map(|_| now + self.pacer.delay(now));
        let until = lock(&self.shared.table)
            .next_deadline()
            .into_iter()
            .chain(send_at)
            .chain(self.blocked.iter().filter_map(|blocked| match blocked {
                Some(Blocked::Until(until)) => Some(*until),
                _ => None,
            }))
            .min();
        let timeout = until.map(|until| TimeSpec::from_duration(until.saturating_duration_since(now)));
        let mut descriptors = vec![PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN)];
        let mut families = Vec::with_capacity(2);
        for (socket, blocked) in self.sockets.iter().zip(&self.blocked) {
            let Some(socket) = socket else { continue };
            let writable = matches!(blocked, Some(Blocked::UntilWritable));
            let out = if writable { PollFlags::POLLOUT } else { PollFlags::empty() };
            descriptors.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN | out));
            families.push(socket.info.family);
        }
        // Interrupted or not: the next turn looks at everything.
        let _ = ppoll(&mut descriptors, timeout, None);
        for (descriptor, family) in descriptors.iter().skip(1).zip(families) {
            let ready = descriptor.revents().unwrap_or(PollFlags::empty());
            let blocked = &mut self.blocked[family.index()];
            if ready.contains(PollFlags::POLLOUT) && matches!(blocked, Some(Blocked::UntilWritable)) {
                *blocked = None;
            }
        }
        let _ = self.shared.wake.read();
    }
}

/// Ends all pings when the thread ends, however it does.
struct Closer(Arc<Shared>);

impl Drop for Closer {
    fn drop(&mut self) {
        let callers = lock(&self.0.table).close();
        drop(callers);
    }
}

/// One packet: its length, its source, and when the kernel received it, on the monotonic clock.
fn receive_one(
    socket: &IcmpSocket,
    buffer: &mut [u8],
    control: &mut Vec<u8>,
) -> nix::Result<(usize, Option<Target>, Instant)> {
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.fd(),
        &mut slices,
        Some(control.as_mut_slice()),
        MsgFlags::empty(),
    )?;
    let (now, wall) = (Instant::now(), SystemTime::now());
    let stamp = message.cmsgs().ok().and_then(|mut messages| {
        messages.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
            _ => None,
        })
    });
    // The kernel stamps with the wall clock: only the time spent in the buffer is taken from it.
    let buffered = stamp
        .and_then(|stamp| wall.duration_since(SystemTime::UNIX_EPOCH).ok()?.checked_sub(stamp))
        .filter(|buffered| *buffered <= MAX_BUFFERED)
        .unwrap_or_default();
    let source = message.address.and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4(SocketAddrV4::from(*v4)));
        let v6 = address.as_sockaddr_in6().map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6)));
        v4.or(v6).map(Target::from)
    });
    Ok((message.bytes, source, now.checked_sub(buffered).unwrap_or(now)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_time_a_reply_lay_in_the_buffer_is_not_counted() {
        let socket = match crate::open::open(Family::V4, &IcmpConfig::default()) {
            Ok(socket) => socket,
            Err(error) => {
                use std::io::Write;
                let _ = io::stderr().write_all(format!("NOT ALLOWED HERE: {error}\n").as_bytes());
                assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
                return;
            }
        };
        let (mut packet, mut buffer, mut control) = (Vec::new(), [0; RECEIVE_BUFFER], cmsg_space!(TimeSpec));
        Codec::new(56).request(Family::V4, 1, &mut packet);
        let target = SockAddr::from(Target::from(Ipv4Addr::LOCALHOST).socket_addr());
        let start = Instant::now();
        // The kernel begins to stamp a while after it was asked to.
        loop {
            assert!(start.elapsed() < Duration::from_secs(30), "no packet has the kernel's time stamp");
            socket.socket.send_to(&packet, &target).unwrap();
            ppoll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], None, None).unwrap();
            // Stands for a thread that is slow to read.
            let readable = Instant::now();
            while readable.elapsed() < Duration::from_millis(2) {
                thread::yield_now();
            }
            let read = Instant::now();
            let (_, _, received) = receive_one(&socket, &mut buffer, &mut control).unwrap();
            if received < read {
                return;
            }
            while receive_one(&socket, &mut buffer, &mut control).is_ok() {}
        }
    }
}
