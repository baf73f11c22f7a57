//! The ping bot's network: ICMP echo through the board's stack.

use core::net::{IpAddr, Ipv4Addr};

use grafolean_bot_ping::{Host, PingFault, Pinger};
use grafolean_embassy::net::{Echo, EchoError};

/// A [`Pinger`] over [`Echo`], `N` pings at once. IPv4 only.
#[derive(Debug)]
pub struct NetPinger<const N: usize>(Echo<'static, N>);

impl<const N: usize> NetPinger<N> {
    /// Pings by `echo`.
    #[must_use]
    pub const fn new(echo: Echo<'static, N>) -> Self {
        NetPinger(echo)
    }
}

impl<const N: usize> Pinger for NetPinger<N> {
    type Target = Ipv4Addr;

    async fn resolve(&self, host: Host<'_>) -> Result<Ipv4Addr, PingFault> {
        match host {
            Host::Ip(IpAddr::V4(ip)) => Ok(ip),
            Host::Ip(IpAddr::V6(_)) => Err(PingFault::Unavailable("this board speaks IPv4 only")),
            Host::Name(name) => self.0.resolve(name).await.map_err(fault),
        }
    }

    async fn ping(&self, target: Ipv4Addr, timeout_ms: u32) -> Result<Option<u32>, PingFault> {
        self.0.ping(target, timeout_ms).await.map_err(fault)
    }
}

/// A board without network knows nothing of the host, which must not be shown as down then.
fn fault(error: EchoError) -> PingFault {
    match error {
        EchoError::NameNotFound => PingFault::NameNotFound,
        EchoError::NoRoute => PingFault::NoRoute,
        EchoError::NoNetwork => PingFault::Unavailable("the board has no network"),
        EchoError::TooMany { .. } => PingFault::Unavailable("more pings at once than there is room for"),
        _ => PingFault::NotTaken("it was not sent"),
    }
}
