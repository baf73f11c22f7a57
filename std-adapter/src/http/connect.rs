//! Opens one connection: name, address, TCP, TLS and the HTTP library's handshake, all within one limit.

use core::time::Duration;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::error::{HttpErrorKind, Phase};
use super::meter::{Meter, Metered, Wire};
use super::pool::Inner;

/// Longest head of an answer in bytes; also bounds what the HTTP library buffers.
pub(super) const HEAD_LIMIT: usize = 32 * 1024;

/// How long an address may stay silent until the next one is tried besides it (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// More addresses of one name than this are not tried.
const MOST_ADDRESSES: usize = 16;

/// How long an orderly end of a connection may take before it is cut.
const CLOSING_LIMIT: Duration = Duration::from_secs(1);

/// An open connection. Dropping it closes it.
pub(super) struct Conn {
    pub(super) sender: http1::SendRequest<Full<Bytes>>,
    pub(super) meter: Meter,
    /// Its end tells the connection's task that nobody will use it again.
    _in_use: oneshot::Sender<()>,
}

impl Inner {
    /// Opens a connection. The number of open ones is bounded by `open`, whose permit the connection's task
    /// holds until the socket is closed.
    pub(super) async fn connect(&self) -> Result<Conn, HttpErrorKind> {
        let limit = self.config.connect_limit;
        let deadline = Instant::now() + limit;
        let late = |phase| move |_| HttpErrorKind::Timeout { phase, limit };

        let permit = timeout_at(deadline, Arc::clone(&self.open).acquire_owned())
            .await
            .map_err(late(Phase::Slot))?
            // The semaphore is never closed.
            .map_err(|_| HttpErrorKind::Timeout { phase: Phase::Slot, limit })?;

        let addresses = self.resolve(deadline).await?;
        let (stream, address) =
            timeout_at(deadline, race(&addresses)).await.map_err(late(Phase::Connect))?.map_err(|error| {
                HttpErrorKind::Connect { addresses: addresses.len(), why: error.to_string() }
            })?;
        *self.last_good.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);

        let wire = match &self.tls {
            None => Wire::Plain(stream),
            Some(tls) => {
                let name: ServerName<'static> = tls.name.clone();
                let stream = timeout_at(deadline, tls.connector.connect(name, stream))
                    .await
                    .map_err(late(Phase::Tls))?
                    .map_err(|error| HttpErrorKind::from_handshake(&error))?;
                Wire::Tls(Box::new(stream))
            }
        };

        let meter = Meter::new();
        let io = TokioIo::new(Metered { wire, meter: meter.clone() });
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_LIMIT).max_header_size(HEAD_LIMIT);
        let (sender, connection) =
            builder.handshake(io).await.map_err(|error| HttpErrorKind::Request { why: error.to_string() })?;

        let (in_use, unused) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let _permit = permit;
            let mut connection = core::pin::pin!(connection);
            tokio::select! {
                // Its errors go to the request that is under way; an idle connection just ends.
                _ = &mut connection => {}
                _ = unused => {
                    // The sender is gone too, so the HTTP library now closes the connection in order.
                    let _ = timeout(CLOSING_LIMIT, connection).await;
                }
            }
        });
        tracing::debug!(peer = %self.peer, %address, "connected");
        Ok(Conn { sender, meter, _in_use: in_use })
    }

    /// The addresses of the host in the order in which to try them; the last good one stands in for a
    /// resolver that fails or, for half of the time that is left, says nothing.
    async fn resolve(&self, deadline: Instant) -> Result<Vec<SocketAddr>, HttpErrorKind> {
        let (host, port) = (self.endpoint.bare_host(), self.endpoint.port);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let known = *self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        let until = match known {
            Some(_) => Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2,
            None => deadline,
        };
        let fault = match timeout_at(until, tokio::net::lookup_host((host, port))).await {
            Ok(Ok(found)) => {
                let addresses = in_order(found.collect(), known);
                if !addresses.is_empty() {
                    return Ok(addresses);
                }
                HttpErrorKind::Resolve { why: "it has no address".to_owned() }
            }
            Ok(Err(error)) => HttpErrorKind::Resolve { why: error.to_string() },
            Err(_) => HttpErrorKind::Timeout { phase: Phase::Resolve, limit: self.config.connect_limit },
        };
        match known {
            Some(address) => {
                tracing::warn!(peer = %self.peer, %address, "name not resolved, trying the last good address");
                Ok(vec![address])
            }
            None => Err(fault),
        }
    }
}

/// Alternates the address families, beginning with the resolver's first (RFC 8305, section 4); an address
/// that worked last comes before all.
fn in_order(found: Vec<SocketAddr>, known: Option<SocketAddr>) -> Vec<SocketAddr> {
    let mut unique: Vec<SocketAddr> = Vec::with_capacity(found.len());
    for address in found {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    let first_is_v4 = unique.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) = unique.into_iter().partition(|a| a.is_ipv4() == first_is_v4);
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let (a, b) = (first.next(), second.next());
        if a.is_none() && b.is_none() {
            break;
        }
        ordered.extend(a);
        ordered.extend(b);
    }
    if let Some(at) = known.and_then(|known| ordered.iter().position(|a| *a == known)) {
        ordered[..=at].rotate_right(1);
    }
    ordered.truncate(MOST_ADDRESSES);
    ordered
}

/// The first address that takes a connection wins; a further one is tried when one fails or stays silent.
async fn race(addresses: &[SocketAddr]) -> io::Result<(TcpStream, SocketAddr)> {
    let mut attempts = JoinSet::new();
    let mut waiting = addresses.iter().copied();
    let mut last_error = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address");
    let mut more = true;
    loop {
        if more {
            match waiting.next() {
                Some(address) => {
                    attempts.spawn(async move {
                        let stream = TcpStream::connect(address).await?;
                        stream.set_nodelay(true)?;
                        Ok::<_, io::Error>((stream, address))
                    });
                }
                None if attempts.is_empty() => return Err(last_error),
                None => {}
            }
        }
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok(Ok(won))) => return Ok(won),
                Some(Ok(Err(error))) => {
                    last_error = error;
                    more = true;
                }
                Some(Err(error)) => {
                    last_error = io::Error::other(error);
                    more = true;
                }
                None => return Err(last_error),
            },
            () = sleep(ATTEMPT_DELAY), if waiting.len() > 0 => more = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn families_alternate_beginning_with_the_resolvers_first() {
        let found = addresses(&["[::1]:1", "[::2]:1", "[::2]:1", "1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1"]);
        let expected = addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "1.1.1.3:1"]);
        assert_eq!(in_order(found, None), expected);
    }

    #[test]
    fn the_address_that_worked_last_comes_first_if_it_is_still_named() {
        let found = addresses(&["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1"]);
        let known = Some("1.1.1.3:1".parse().unwrap());
        assert_eq!(in_order(found.clone(), known), addresses(&["1.1.1.3:1", "1.1.1.1:1", "1.1.1.2:1"]));
        let gone = Some("9.9.9.9:1".parse().unwrap());
        assert_eq!(in_order(found.clone(), gone), found);
    }

    #[test]
    fn not_more_than_sixteen_addresses_are_tried() {
        let found = (0..40).map(|i| SocketAddr::new(IpAddr::from([10, 0, 0, i]), 1)).collect();
        assert_eq!(in_order(found, None).len(), MOST_ADDRESSES);
        assert!(in_order(Vec::new(), None).is_empty());
    }
}
