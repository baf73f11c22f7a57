//! Pings over this machine's ICMP sockets, for the ping bot.

use std::io;
use std::time::Duration;

use grafolean_bot_ping::{Host, PingFault, Pinger};
use grafolean_icmp::{Icmp, PingError, Target};

/// A [`Pinger`] over [`Icmp`]. Clones share its sockets.
///
/// A name is asked of the system's resolver at most once in [`grafolean_icmp::IcmpConfig::name_ttl`], and its last good
/// address outlives failures of the resolver.
#[derive(Clone, Debug)]
pub struct IcmpPinger(Option<Icmp>);

impl IcmpPinger {
    /// Pings by `icmp`.
    #[must_use]
    pub const fn new(icmp: Icmp) -> Self {
        IcmpPinger(Some(icmp))
    }

    /// Pings nothing: for a dry run, which needs no permission.
    #[must_use]
    pub const fn none() -> Self {
        IcmpPinger(None)
    }

    fn icmp(&self) -> Result<&Icmp, PingFault> {
        self.0.as_ref().ok_or(PingFault::Unavailable("this is a dry run"))
    }
}

impl Pinger for IcmpPinger {
    type Target = Target;

    async fn resolve(&self, host: Host<'_>) -> Result<Target, PingFault> {
        match host {
            Host::Ip(ip) => Ok(ip.into()),
            Host::Name(name) => self.icmp()?.resolve(name).await.map_err(|_| PingFault::NameNotFound),
        }
    }

    async fn ping(&self, target: Target, timeout_ms: u32) -> Result<Option<u32>, PingFault> {
        let rtt = self
            .icmp()?
            .ping(target, Duration::from_millis(timeout_ms.into()))
            .await
            .map_err(|error| fault(&error))?;
        Ok(rtt.map(|rtt| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX)))
    }
}

fn fault(error: &PingError) -> PingFault {
    match error {
        PingError::Unavailable(_) => PingFault::Unavailable(
            "no ICMP socket of the host's address family, what is missing was said at start",
        ),
        PingError::Ipv6Off { .. } => {
            PingFault::Unavailable("IPv6 is switched off (net.ipv6.conf.all.disable_ipv6 is 1)")
        }
        PingError::TooMany { .. } => {
            PingFault::Unavailable("too many pings are under way (IcmpConfig::max_waiting)")
        }
        PingError::Closed => PingFault::Unavailable("the ICMP thread has ended"),
        PingError::NotUnicast { .. } => {
            PingFault::NotTaken("the address is unspecified, multicast or broadcast")
        }
        PingError::Send { source, .. } => match source.kind() {
            io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::NetworkDown => PingFault::NoRoute,
            io::ErrorKind::PermissionDenied => PingFault::NotTaken(
                "the kernel forbids it: a firewall, or the address is a network's broadcast address",
            ),
            _ => PingFault::NotTaken(
                "the kernel did not send it: no buffers, or a fault of the network interface",
            ),
        },
        _ => PingFault::NotTaken("it was not sent"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grafolean_icmp::IcmpConfig;
    use std::net::{IpAddr, Ipv4Addr};

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn what_the_kernel_says_decides_whether_the_host_or_this_machine_is_at_fault() {
        let send = |kind: io::ErrorKind| fault(&PingError::Send { target: HERE.into(), source: kind.into() });
        assert_eq!(send(io::ErrorKind::NetworkUnreachable), PingFault::NoRoute);
        assert_eq!(send(io::ErrorKind::HostUnreachable), PingFault::NoRoute);
        assert!(
            matches!(send(io::ErrorKind::PermissionDenied), PingFault::NotTaken(why) if why.contains("firewall"))
        );
        assert!(matches!(send(io::ErrorKind::Other), PingFault::NotTaken(_)));
        assert!(matches!(fault(&PingError::TooMany { limit: 1 }), PingFault::Unavailable(_)));
        assert!(matches!(fault(&PingError::Ipv6Off { target: HERE.into() }), PingFault::Unavailable(_)));
    }

    #[tokio::test]
    async fn this_machine_answers_its_own_pings_by_address_and_by_name() {
        let icmp = match Icmp::open(IcmpConfig::default()) {
            Ok(icmp) => icmp,
            Err(error) => {
                use std::io::Write;
                let _ = io::stderr().write_all(format!("NOT ALLOWED HERE: {error}\n").as_bytes());
                return;
            }
        };
        let pinger = IcmpPinger::new(icmp);
        for host in [Host::Ip(HERE), Host::Name("localhost")] {
            let target = pinger.resolve(host).await.unwrap();
            let rtt_us = pinger.ping(target, 10_000).await.unwrap();
            assert!(rtt_us.is_some_and(|us| us < 10_000_000), "{host:?}: {rtt_us:?}");
        }
        let gone = pinger.resolve(Host::Name("no-such-name.invalid")).await;
        assert_eq!(gone, Err(PingFault::NameNotFound));
    }
}
