//! Opens the sockets, and says which setting or capability is missing where it cannot.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::IcmpConfig;
use crate::packet::{Family, SocketKind};

/// Which kinds of socket may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketChoice {
    /// Unprivileged datagram sockets where allowed, raw ones else.
    #[default]
    DatagramElseRaw,
    /// Datagram sockets only.
    DatagramOnly,
    /// Raw sockets only.
    RawOnly,
}

/// What an open socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketInfo {
    /// Its address family.
    pub family: Family,
    /// Its kind.
    pub kind: SocketKind,
    /// The receive buffer the kernel granted, in bytes of its own accounting (about 768 for each small packet).
    pub receive_buffer_bytes: usize,
}

pub(crate) struct IcmpSocket {
    pub(crate) socket: Socket,
    pub(crate) info: SocketInfo,
}

impl IcmpSocket {
    pub(crate) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Why [`Icmp::open`](crate::Icmp::open) failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// No family's socket can be opened.
    NoSocket {
        /// What IPv4 lacks.
        v4: Arc<FamilyError>,
        /// What IPv6 lacks.
        v6: Arc<FamilyError>,
    },
    /// A setting is outside its limits.
    Setting {
        /// The field of [`IcmpConfig`].
        name: &'static str,
        /// What it was set to.
        value: usize,
        /// The least allowed.
        min: usize,
        /// The most allowed.
        max: usize,
    },
    /// The thread or its wake-up descriptor could not be made.
    Thread(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSocket { v4, v6 } => match (v4.reason(), v6.reason()) {
                (v4, v6) if v4 == v6 => write!(f, "no ICMP socket can be opened, IPv4 and IPv6: {v4}"),
                (v4, v6) => write!(f, "no ICMP socket can be opened, IPv4: {v4}; IPv6: {v6}"),
            },
            Self::Setting { name, value, min, max } => {
                write!(f, "{name} is {value}, but must be from {min} to {max}")
            }
            Self::Thread(source) => write!(f, "cannot start the ICMP thread: {source}"),
        }
    }
}

impl core::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Thread(source) => Some(source),
            _ => None,
        }
    }
}

/// Why a family has no socket: what was tried, and what would allow it.
#[derive(Debug)]
pub struct FamilyError {
    family: Family,
    /// Kinds tried, in order, with the kernel's answer.
    tried: Vec<(SocketKind, io::Error)>,
    process: Process,
}

impl FamilyError {
    /// The family without a socket.
    pub fn family(&self) -> Family {
        self.family
    }

    fn reason(&self) -> String {
        let unknown_family = |(_, error): &(SocketKind, io::Error)| {
            matches!(errno(error), Some(Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT))
        };
        if !self.tried.is_empty() && self.tried.iter().all(unknown_family) {
            return format!(
                "this kernel has no {} (not built, or switched off at boot, as by ipv6.disable=1)",
                self.family
            );
        }
        let reasons = self.tried.iter().map(|(kind, error)| match (kind, errno(error)) {
            (SocketKind::Datagram, Some(Errno::EACCES | Errno::EPERM)) => self.process.datagram_refused(),
            (SocketKind::Raw, Some(Errno::EACCES | Errno::EPERM)) => self.process.raw_refused(),
            (SocketKind::Datagram, _) => format!("datagram ICMP sockets fail: {error}"),
            (SocketKind::Raw, _) => format!("raw sockets fail: {error}"),
        });
        reasons.collect::<Vec<_>>().join(", and ")
    }
}

impl core::error::Error for FamilyError {}

impl fmt::Display for FamilyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.family, self.reason())
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

/// What of this process decides which sockets it may open (icmp(7), capabilities(7)).
#[derive(Debug, Default, PartialEq, Eq)]
struct Process {
    /// `net.ipv4.ping_group_range`: it rules datagram sockets of both families.
    ping_group_range: Option<(u32, u32)>,
    /// The effective group, then the supplementary ones.
    groups: Vec<u32>,
    cap_net_raw: Option<bool>,
}

impl Process {
    fn current() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self::from_texts(&read("/proc/sys/net/ipv4/ping_group_range"), &read("/proc/thread-self/status"))
    }

    fn from_texts(range: &str, status: &str) -> Self {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().split_ascii_whitespace()
        };
        let mut range = range.split_ascii_whitespace().map(str::parse);
        // "Gid:" lists the real, the effective, the saved and the file system group.
        let groups = field("Gid:").skip(1).take(1).chain(field("Groups:"));
        let capabilities = field("CapEff:").next().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        Self {
            ping_group_range: match (range.next(), range.next()) {
                (Some(Ok(low)), Some(Ok(high))) => Some((low, high)),
                _ => None,
            },
            groups: groups.filter_map(|group| group.parse().ok()).collect(),
            // CAP_NET_RAW is bit 13.
            cap_net_raw: capabilities.map(|bits| bits & (1 << 13) != 0),
        }
    }

    fn datagram_refused(&self) -> String {
        let (range, inside) = match self.ping_group_range {
            Some((low, high)) => {
                (format!("\"{low} {high}\""), self.groups.iter().any(|group| (low..=high).contains(group)))
            }
            None => ("not readable".to_string(), false),
        };
        if inside {
            return format!(
                "datagram ICMP sockets are refused although net.ipv4.ping_group_range ({range}) has one of \
                 this process's groups: a security module or a seccomp filter forbids them"
            );
        }
        let groups: Vec<String> = self.groups.iter().take(8).map(u32::to_string).collect();
        let dots = if self.groups.len() > 8 { ", ..." } else { "" };
        format!(
            "datagram ICMP sockets are not allowed for group {}{dots}: net.ipv4.ping_group_range is {range} \
             (to allow all groups: sysctl -w net.ipv4.ping_group_range='0 2147483647')",
            groups.join(", ")
        )
    }

    fn raw_refused(&self) -> String {
        if self.cap_net_raw == Some(true) {
            return "raw sockets are refused although this process has CAP_NET_RAW: a security module, a \
                    seccomp filter or a user namespace that does not own the network forbids them"
                .to_string();
        }
        "raw sockets need the capability CAP_NET_RAW, which this process lacks (setcap cap_net_raw+ep <binary>, \
         or AmbientCapabilities=CAP_NET_RAW in a systemd unit, or --cap-add NET_RAW for a container)"
            .to_string()
    }
}

/// Opens the first allowed kind of socket of `family`, non-blocking, with large buffers and kernel time stamps.
pub(crate) fn open(family: Family, config: &IcmpConfig) -> Result<IcmpSocket, FamilyError> {
    let kinds: &[SocketKind] = match config.sockets {
        SocketChoice::DatagramElseRaw => &[SocketKind::Datagram, SocketKind::Raw],
        SocketChoice::DatagramOnly => &[SocketKind::Datagram],
        SocketChoice::RawOnly => &[SocketKind::Raw],
    };
    let mut tried = Vec::new();
    for kind in kinds {
        match open_kind(family, *kind, config) {
            Ok(socket) => return Ok(socket),
            Err(error) => tried.push((*kind, error)),
        }
    }
    Err(FamilyError { family, tried, process: Process::current() })
}

fn open_kind(family: Family, kind: SocketKind, config: &IcmpConfig) -> io::Result<IcmpSocket> {
    let (domain, protocol) = match family {
        Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
        Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
    };
    let r#type = match kind {
        SocketKind::Datagram => Type::DGRAM,
        SocketKind::Raw => Type::RAW,
    };
    let socket = Socket::new(domain, r#type, Some(protocol))?;
    socket.set_nonblocking(true)?;
    // The forced variants need CAP_NET_ADMIN; the plain ones are cut to net.core.rmem_max and wmem_max silently.
    if setsockopt(&socket, sockopt::RcvBufForce, &config.receive_buffer_bytes).is_err() {
        socket.set_recv_buffer_size(config.receive_buffer_bytes)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &config.send_buffer_bytes).is_err() {
        socket.set_send_buffer_size(config.send_buffer_bytes)?;
    }
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    let receive_buffer_bytes = socket.recv_buffer_size()?;
    Ok(IcmpSocket { socket, info: SocketInfo { family, kind, receive_buffer_bytes } })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx\nGid:\t7\t5\t7\t7\nGroups:\t20 30 \nCapEff:\t0000000000002000\n";

    fn error(range: &str, status: &str, codes: &[(SocketKind, Errno)]) -> String {
        let tried = codes.iter().map(|(kind, code)| (*kind, io::Error::from(*code))).collect();
        FamilyError { family: Family::V6, tried, process: Process::from_texts(range, status) }.to_string()
    }

    #[test]
    fn the_effective_and_supplementary_groups_and_the_capability_are_read() {
        let process = Process::from_texts("1\t0\n", STATUS);
        assert_eq!(process.groups, [5, 20, 30]);
        assert_eq!((process.ping_group_range, process.cap_net_raw), (Some((1, 0)), Some(true)));
        assert_eq!(Process::from_texts("", "junk"), Process::default());
    }

    #[test]
    fn a_refusal_names_the_setting_the_groups_and_the_capability() {
        let lacking = STATUS.replace("2000", "0000");
        let both = [(SocketKind::Datagram, Errno::EACCES), (SocketKind::Raw, Errno::EPERM)];
        let text = error("100 200", &lacking, &both);
        assert!(
            text.starts_with("IPv6: datagram ICMP sockets are not allowed for group 5, 20, 30: "),
            "{text}"
        );
        for part in [
            "net.ipv4.ping_group_range is \"100 200\"",
            "sysctl -w net.ipv4.ping_group_range='0 2147483647'",
            "CAP_NET_RAW, which this process lacks",
            "setcap cap_net_raw+ep",
            "AmbientCapabilities=CAP_NET_RAW",
            "--cap-add NET_RAW",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }

    #[test]
    fn a_refusal_despite_the_right_group_and_capability_does_not_blame_them() {
        let both = [(SocketKind::Datagram, Errno::EACCES), (SocketKind::Raw, Errno::EPERM)];
        let text = error("20 20", STATUS, &both);
        assert!(text.contains("although net.ipv4.ping_group_range (\"20 20\") has one"), "{text}");
        assert!(text.contains("although this process has CAP_NET_RAW"), "{text}");
    }

    #[test]
    fn a_kernel_without_the_family_is_named_as_such() {
        let both = [(SocketKind::Datagram, Errno::EAFNOSUPPORT), (SocketKind::Raw, Errno::EAFNOSUPPORT)];
        assert!(error("1 0", STATUS, &both).starts_with("IPv6: this kernel has no IPv6"));
    }

    #[test]
    fn other_errors_are_passed_on() {
        let text = error("1 0", STATUS, &[(SocketKind::Raw, Errno::EMFILE)]);
        assert!(text.starts_with("IPv6: raw sockets fail: "), "{text}");
    }
}
