//! Connections through any network stack that implements `embedded-nal-async`.

use core::net::{IpAddr, SocketAddr};

use embassy_time::{Duration, with_timeout};
use embedded_io_async::Error as _;
use embedded_nal_async::{AddrType, Dns, TcpConnect};

use crate::http::{ConnectError, Connector};

/// How long the name server is waited for, in milliseconds: so short that time is left for the last good address.
const DNS_LIMIT_MS: u64 = 4_500;

/// A [`Connector`] without TLS over `embedded-nal-async`'s [`TcpConnect`] and [`Dns`].
///
/// The name is resolved for each connection. If that fails, or takes longer than 4.5 s, the address of the last connection that was made is tried:
/// a board goes on working while only its name server is away.
///
/// These traits have no way to close a connection: what happens then is up to the stack. Some drop it without telling
/// the server, which then keeps its side until its own time-out.
#[derive(Debug)]
pub struct NalConnector<T, D> {
    tcp: T,
    dns: D,
    /// Where the last connection went, if the name was resolved.
    last: Option<IpAddr>,
}

impl<T: TcpConnect, D: Dns> NalConnector<T, D> {
    /// Connects through `tcp`, asks `dns`. Both may be references.
    #[must_use]
    pub const fn new(tcp: T, dns: D) -> Self {
        NalConnector { tcp, dns, last: None }
    }
}

impl<T: TcpConnect, D: Dns> Connector for NalConnector<T, D> {
    type Stream<'a>
        = T::Connection<'a>
    where
        Self: 'a;

    const TLS: bool = false;

    async fn connect(&mut self, host: &str, port: u16) -> Result<T::Connection<'_>, ConnectError> {
        let address = match host.parse::<IpAddr>() {
            Ok(address) => address,
            Err(_) => {
                let limit = Duration::from_millis(DNS_LIMIT_MS);
                match with_timeout(limit, self.dns.get_host_by_name(host, AddrType::Either)).await {
                    Ok(Ok(address)) => address,
                    _ => self.last.ok_or(ConnectError::Resolve)?,
                }
            }
        };
        let connected = self.tcp.connect(SocketAddr::new(address, port)).await;
        let stream = connected.map_err(|e| ConnectError::Connect(e.kind()))?;
        self.last = Some(address);
        Ok(stream)
    }
}
