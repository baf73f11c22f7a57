//! HTTP/1.1 over any stream: [`Http`] performs a collector's requests over the connections of a [`Connector`].
//!
//! A request that finds its kept connection closed is repeated once on a fresh one, unless it is a POST; a POST
//! takes a connection only if it was used a moment ago, or a fresh one. Redirects are not followed. The token is in
//! the request line and nowhere else, and there is no `Authorization`.
//!
//! # Cost
//! One buffer, lent by the owner, serves requests and answers in turn; besides it about 300 bytes while a head is read.
//! Bodies are handed on in place, nothing is copied.
//!
//! # Errors
//! [`HttpError`], told to the log and to [`Observer::request_failed`](crate::Observer::request_failed).

mod body;
mod error;
mod head;

use core::fmt::{self, Write as _};

use embassy_futures::select::{Either, select};
use embassy_time::{Duration, Instant, with_timeout};
use embedded_io_async::{Error as _, ErrorKind, Read, Write};
use grafolean_core::api::{BaseUrl, Method};
use grafolean_core::collector::{RequestError, RequestHead, ResponseHead};

use crate::sink;
use crate::transport::{Requests, Transport};
use body::{Body, Piece};
pub use error::{ConnectError, HttpError, HttpSetupError, Phase};
use error::{Failure, Progress};
use head::{Head, HeadReader};

/// The least size of the buffer of [`Http`], in bytes: the longest head of a request fits.
pub const LEAST_BUFFER: usize = 640;

/// Makes connections to the backend.
///
/// A stream may borrow the connector, so that sockets and buffers can be used again.
pub trait Connector {
    /// A connection.
    type Stream<'a>: Read + Write
    where
        Self: 'a;

    /// Whether what is written to a stream is encrypted.
    const TLS: bool;

    /// Connects to `port` of `host`, a name or an address (an IPv6 address without brackets); over TLS with the handshake. Dropped
    /// when [`Limits::connect_ms`] has passed.
    ///
    /// # Errors
    /// [`ConnectError`].
    async fn connect(&mut self, host: &str, port: u16) -> Result<Self::Stream<'_>, ConnectError>;

    /// Closes a connection in an orderly way, if the stream has one. Dropped when [`Limits::close_ms`] has passed.
    /// By default what is written is flushed and the stream dropped.
    async fn close<'a>(mut stream: Self::Stream<'a>)
    where
        Self: 'a,
    {
        let _ = stream.flush().await;
    }
}

/// Limits of [`Http`]. The default suits the backend as shipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Limits {
    /// Name resolution, TCP and TLS handshake together, in milliseconds (10,000).
    pub connect_ms: u32,
    /// From the end of the request to the end of the answer's head, in milliseconds (30,000).
    pub head_ms: u32,
    /// Longest silence within a body, in both directions, in milliseconds (30,000).
    pub silence_ms: u32,
    /// An idle connection is closed after this time, in milliseconds (60,000).
    pub idle_ms: u32,
    /// A POST takes only a connection whose last use is younger than this, in milliseconds (3,000): the application
    /// server closes idle ones after 5 s, and a POST that finds its connection closed can't be repeated.
    pub post_reuse_ms: u32,
    /// How long closing may take, in milliseconds (1,000).
    pub close_ms: u32,
    /// The slowest answer, in bytes a second (64); 0 switches the check off.
    pub least_bytes_per_s: u32,
    /// The rate is measured over at least this much waiting, in milliseconds (30,000). Time in which the collector holds
    /// the answer back does not count.
    pub rate_window_ms: u32,
    /// The longest head of an answer, in bytes (16,384). It is not stored.
    pub head_bytes: u32,
}

impl Limits {
    /// What suits the backend as shipped.
    pub const DEFAULT: Limits = Limits {
        connect_ms: 10_000,
        head_ms: 30_000,
        silence_ms: 30_000,
        idle_ms: 60_000,
        post_reuse_ms: 3_000,
        close_ms: 1_000,
        least_bytes_per_s: 64,
        rate_window_ms: 30_000,
        head_bytes: 16 * 1024,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A [`Transport`] over the connections of `C`, one at a time, kept between requests.
pub struct Http<'a, C> {
    connector: C,
    url: BaseUrl<'a>,
    buf: &'a mut [u8],
    limits: Limits,
}

impl<'a, C: Connector> Http<'a, C> {
    /// A client for the backend at `url`. A larger `buf` takes fewer reads and writes: 2 kB are plenty.
    ///
    /// # Errors
    /// [`HttpSetupError`] if the URL wants TLS and the connector has none, or the other way round, or if the buffer is
    /// too small.
    pub fn new(
        connector: C,
        url: BaseUrl<'a>,
        buf: &'a mut [u8],
        limits: Limits,
    ) -> Result<Self, HttpSetupError> {
        match (url.https, C::TLS) {
            (true, false) => return Err(HttpSetupError::NeedsTls),
            (false, true) => return Err(HttpSetupError::NeedsPlain),
            _ => {}
        }
        if buf.len() < LEAST_BUFFER {
            return Err(HttpSetupError::Buffer { bytes: buf.len(), least: LEAST_BUFFER });
        }
        if let Some(warning) = url.clear_text() {
            sink::warn(&warning);
        }
        Ok(Http { connector, url, buf, limits })
    }
}

impl<C> fmt::Debug for Http<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the buffer: it may hold the token.
        f.debug_struct("Http").field("url", &self.url).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<C: Connector> Transport for Http<'_, C> {
    async fn serve<R: Requests>(&mut self, requests: &R) {
        let Http { connector, url, buf, limits } = self;
        let mut next = first(requests.next().await);
        while let Some(wanted) = next {
            // In a block of its own: what is matched would be kept in the future as long as the connection.
            let (mut connection, failure) = {
                let connect = with_timeout(ms(limits.connect_ms), connector.connect(url.host, url.port));
                match select(connect, requests.over()).await {
                    Either::First(Ok(Ok(stream))) => {
                        (Some(Connection { stream, url: &*url, buf, limits: &*limits, used: None }), None)
                    }
                    Either::First(Ok(Err(error))) => (None, Some(HttpError::Connect(error))),
                    Either::First(Err(_)) => {
                        let limit_ms = limits.connect_ms;
                        (None, Some(HttpError::Timeout { phase: Phase::Connect, limit_ms }))
                    }
                    Either::Second(()) => (None, None),
                }
            };
            let mut then = Then::Wait;
            let mut orderly = false;
            if let Some(connection) = &mut connection {
                (then, orderly) = connection.talk(requests, wanted).await;
            } else if let Some(error) = failure {
                // The first try of one that is repeated may have reached the server.
                let kind = if wanted.repeated { RequestError::Lost } else { RequestError::NotSent };
                requests.failed(kind, &error);
            }
            if orderly && let Some(connection) = connection.take() {
                let _ = with_timeout(ms(limits.close_ms), C::close(connection.stream)).await;
            }
            drop(connection);
            next = match then {
                Then::Connect(next) => next,
                Then::Wait => first(requests.next().await),
            };
        }
    }
}

/// A request that is to be performed.
#[derive(Clone, Copy)]
struct Wanted {
    head: RequestHead,
    /// Its first try found the connection closed.
    repeated: bool,
}

fn first(head: Option<RequestHead>) -> Option<Wanted> {
    head.map(|head| Wanted { head, repeated: false })
}

/// What comes after a connection.
enum Then {
    /// Another one for this request, or the end.
    Connect(Option<Wanted>),
    /// Another one when there is a request.
    Wait,
}

/// An open connection.
struct Connection<'c, S> {
    stream: S,
    url: &'c BaseUrl<'c>,
    buf: &'c mut [u8],
    limits: &'c Limits,
    /// When it has served a request last.
    used: Option<Instant>,
}

impl<S: Read + Write> Connection<'_, S> {
    /// Performs requests as long as the connection serves: what comes then, and whether it is to be closed in an
    /// orderly way.
    async fn talk<R: Requests>(&mut self, requests: &R, mut wanted: Wanted) -> (Then, bool) {
        loop {
            match select(self.exchange(requests, wanted.head), requests.over()).await {
                Either::First(Ok(true)) => {}
                Either::First(Ok(false)) => return (Then::Wait, true),
                Either::First(Err(failure)) => {
                    // Once only: the fresh connection has not been used.
                    let kept = self.used.is_some();
                    let repeat = kept && failure.is_stale() && wanted.head.method.is_idempotent();
                    if repeat {
                        return (Then::Connect(Some(Wanted { repeated: true, ..wanted })), false);
                    }
                    let kind = if wanted.repeated { RequestError::Lost } else { failure.kind() };
                    requests.failed(kind, &failure.error);
                    return (Then::Wait, false);
                }
                Either::Second(()) => return (Then::Wait, false),
            }
            let idle_since = Instant::now();
            self.used = Some(idle_since);
            let Ok(next) = with_timeout(ms(self.limits.idle_ms), requests.next()).await else {
                return (Then::Wait, true);
            };
            let Some(next) = first(next) else { return (Then::Connect(None), true) };
            if next.head.method == Method::Post && idle_since.elapsed() >= ms(self.limits.post_reuse_ms) {
                return (Then::Connect(Some(next)), true);
            }
            wanted = next;
        }
    }

    /// Performs a request: whether the connection serves another one.
    async fn exchange<R: Requests>(&mut self, requests: &R, head: RequestHead) -> Result<bool, Failure> {
        let mut progress = Progress::Unsent;
        let sent = self.send(requests, head, &mut progress).await;
        match sent {
            Ok(()) => {}
            // A server that refuses a body says so and closes; its answer may be there all the same.
            Err(HttpError::Stream(_) | HttpError::Closed) if progress == Progress::Sent => {}
            Err(error) => return Err(Failure { error, progress }),
        }
        match self.receive(requests, &mut progress).await {
            Ok(keep) => Ok(keep && sent.is_ok()),
            Err(error) => {
                let error = if progress == Progress::Answered { error } else { sent.err().unwrap_or(error) };
                Err(Failure { error, progress })
            }
        }
    }

    async fn send<R: Requests>(
        &mut self,
        requests: &R,
        head: RequestHead,
        progress: &mut Progress,
    ) -> Result<(), HttpError> {
        let head_len = self.write_head(requests, head)?;
        let promised = head.body_len.unwrap_or(0);
        let (mut filled, mut offset, mut sent) = (head_len, 0, 0);
        loop {
            let room = self.buf.get_mut(filled..).unwrap_or_default();
            let most = room.len().min(promised - offset);
            let n = requests.body(offset, room.get_mut(..most).unwrap_or_default()).min(most);
            if n == 0 && most > 0 {
                return Err(HttpError::Body { promised, bytes: offset });
            }
            (filled, offset) = (filled + n, offset + n);
            let mut rest = self.buf.get(..filled).unwrap_or_default();
            while !rest.is_empty() {
                let limit_ms = self.limits.silence_ms;
                let timeout = HttpError::Timeout { phase: Phase::Request, limit_ms };
                let n = with_timeout(ms(limit_ms), self.stream.write(rest)).await.map_err(|_| timeout)?;
                let n = n.map_err(|e| HttpError::Stream(e.kind()))?;
                if n == 0 {
                    return Err(HttpError::Stream(ErrorKind::WriteZero));
                }
                sent += n;
                if sent >= head_len {
                    *progress = Progress::Sent;
                }
                rest = rest.get(n..).unwrap_or_default();
            }
            filled = 0;
            if offset >= promised {
                break;
            }
        }
        let limit_ms = self.limits.silence_ms;
        let timeout = HttpError::Timeout { phase: Phase::Request, limit_ms };
        let flushed = with_timeout(ms(limit_ms), self.stream.flush()).await.map_err(|_| timeout)?;
        flushed.map_err(|e| HttpError::Stream(e.kind()))
    }

    /// Writes a request's head into the buffer: its length.
    fn write_head<R: Requests>(&mut self, requests: &R, head: RequestHead) -> Result<usize, HttpError> {
        let limit = self.buf.len();
        let mut out = Buffer { buf: self.buf, len: 0 };
        let mut write = || -> fmt::Result {
            write!(out, "{} ", head.method.as_str())?;
            requests.write_target(&mut out)?;
            out.write_str(" HTTP/1.1\r\nHost: ")?;
            self.url.write_host(&mut out)?;
            out.write_str(concat!("\r\nUser-Agent: grafolean-embassy/", env!("CARGO_PKG_VERSION"), "\r\n"))?;
            if let Some(len) = head.body_len {
                write!(out, "Content-Type: application/json\r\nContent-Length: {len}\r\n")?;
            }
            out.write_str("\r\n")
        };
        write().map_err(|_| HttpError::RequestTooLong { limit })?;
        Ok(out.len)
    }

    /// Reads an answer: whether the connection serves another request.
    async fn receive<R: Requests>(
        &mut self,
        requests: &R,
        progress: &mut Progress,
    ) -> Result<bool, HttpError> {
        let limit_ms = self.limits.head_ms;
        let (head, mut start, mut end) = with_timeout(ms(limit_ms), self.read_head(progress))
            .await
            .map_err(|_| HttpError::Timeout { phase: Phase::Head, limit_ms })??;
        requests.answer_head(ResponseHead {
            status: head.status,
            date_unix_s: head.date_unix_s,
            retry_after_ms: head.retry_after_ms(),
        });
        let mut body = Body::new(&head);
        let mut rate = Rate::default();
        loop {
            while start < end && !body.is_done() {
                let Piece { framing, data } = body.next(self.buf.get(start..end).unwrap_or_default())?;
                let from = start + framing;
                start = from + data;
                let data = self.buf.get(from..start).unwrap_or_default();
                if !data.is_empty() && requests.answer_body(data).await.is_err() {
                    return Ok(false);
                }
            }
            if body.is_done() {
                break;
            }
            let limit_ms = self.limits.silence_ms;
            let timeout = HttpError::Timeout { phase: Phase::Body, limit_ms };
            let since = Instant::now();
            let n = with_timeout(ms(limit_ms), self.stream.read(self.buf)).await.map_err(|_| timeout)?;
            (start, end) = (0, n.map_err(|e| HttpError::Stream(e.kind()))?);
            if end == 0 {
                if body.ends_with_connection() {
                    break;
                }
                return Err(HttpError::Closed);
            }
            rate.count(since.elapsed(), end, self.limits)?;
        }
        requests.answer_end();
        // The application server closes silently after a 500.
        Ok(head.keeps_connection() && !body.ends_with_connection() && head.status != 500 && start == end)
    }

    /// Reads the head: it, and where in the buffer what was read beyond it lies.
    async fn read_head(&mut self, progress: &mut Progress) -> Result<(Head, usize, usize), HttpError> {
        let mut reader = HeadReader::new(self.limits.head_bytes);
        loop {
            let n = self.stream.read(self.buf).await.map_err(|e| HttpError::Stream(e.kind()))?;
            if n == 0 {
                return Err(HttpError::Closed);
            }
            *progress = Progress::Answered;
            if let (used, Some(head)) = reader.push(self.buf.get(..n).unwrap_or_default())? {
                return Ok((head, used, n));
            }
        }
    }
}

fn ms(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}

/// How fast an answer comes, counted while it is waited for.
#[derive(Default)]
struct Rate {
    waited_ms: u64,
    bytes: u64,
}

impl Rate {
    fn count(&mut self, waited: Duration, bytes: usize, limits: &Limits) -> Result<(), HttpError> {
        self.waited_ms = self.waited_ms.saturating_add(waited.as_millis());
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.waited_ms >= u64::from(limits.rate_window_ms.max(1)) {
            let bytes_per_s = self.bytes.saturating_mul(1000) / self.waited_ms;
            if bytes_per_s < u64::from(limits.least_bytes_per_s) {
                let bytes_per_s = u32::try_from(bytes_per_s).unwrap_or(u32::MAX);
                return Err(HttpError::TooSlow { bytes_per_s, limit: limits.least_bytes_per_s });
            }
            *self = Rate::default();
        }
        Ok(())
    }
}

/// Text that is written into a buffer.
struct Buffer<'b> {
    buf: &'b mut [u8],
    len: usize,
}

impl fmt::Write for Buffer<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let end = self.len.checked_add(s.len()).ok_or(fmt::Error)?;
        self.buf.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(s.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grafolean_core::api::{Resource, Target, Token};

    #[test]
    fn the_longest_head_of_a_request_fits_into_the_least_buffer() {
        let host = "h".repeat(253);
        let text = std::format!("http://{host}:65535/{}", "p".repeat(63));
        let url = BaseUrl::parse(&text).unwrap();
        let token = Token::parse("3bfae491-8c49-42ca-8332-0ae431d59014").unwrap();
        let resource = Resource::Entity(u64::MAX, u64::MAX);
        let target = Target { prefix: url.prefix, resource, token: &token };
        struct One<'a>(Target<'a>);
        impl Requests for One<'_> {
            async fn next(&self) -> Option<RequestHead> {
                None
            }
            async fn over(&self) {}
            fn write_target(&self, out: &mut dyn fmt::Write) -> fmt::Result {
                self.0.write(out)
            }
            fn body(&self, _: usize, _: &mut [u8]) -> usize {
                0
            }
            fn answer_head(&self, _: ResponseHead) {}
            async fn answer_body(&self, _: &[u8]) -> Result<(), crate::Unwanted> {
                Ok(())
            }
            fn answer_end(&self) {}
            fn failed(&self, _: RequestError, _: &dyn fmt::Display) {}
        }
        let head = RequestHead {
            method: Method::Delete,
            resource,
            body_len: Some(u32::MAX as usize),
            answer_limit: 0,
        };
        let mut buf = [0; LEAST_BUFFER];
        let stream: &[u8] = &[];
        let mut both = Both(stream);
        let mut connection =
            Connection { stream: &mut both, url: &url, buf: &mut buf, limits: &Limits::DEFAULT, used: None };
        let len = connection.write_head(&One(target), head).unwrap();
        let text = core::str::from_utf8(&buf[..len]).unwrap();
        assert!(text.ends_with("Content-Length: 4294967295\r\n\r\n"), "{text}");
        assert!(!text.contains("Authorization"));
        assert_eq!(text.matches("3bfae491").count(), 1);
    }

    struct Both<'a>(&'a [u8]);
    impl embedded_io_async::ErrorType for Both<'_> {
        type Error = core::convert::Infallible;
    }
    impl Read for Both<'_> {
        async fn read(&mut self, buf: &mut [u8]) -> Result<usize, Self::Error> {
            self.0.read(buf).await
        }
    }
    impl Write for Both<'_> {
        async fn write(&mut self, buf: &[u8]) -> Result<usize, Self::Error> {
            Ok(buf.len())
        }
        async fn flush(&mut self) -> Result<(), Self::Error> {
            Ok(())
        }
    }

    #[test]
    fn the_rate_counts_over_whole_windows_and_zero_switches_it_off() {
        let limits = Limits { least_bytes_per_s: 64, rate_window_ms: 10_000, ..Limits::DEFAULT };
        let mut rate = Rate::default();
        assert_eq!(rate.count(ms(9_999), 1, &limits), Ok(()));
        assert_eq!(rate.count(ms(1), 639, &limits), Ok(()));
        let slow = HttpError::TooSlow { bytes_per_s: 63, limit: 64 };
        assert_eq!(rate.count(ms(10_000), 639, &limits), Err(slow));
        let off = Limits { least_bytes_per_s: 0, ..limits };
        assert_eq!(Rate::default().count(ms(20_000), 0, &off), Ok(()));
    }
}
