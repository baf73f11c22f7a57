//! HTTP/1.1 over any stream: [`Http`] performs a collector's requests over the connections of a [`Connector`].
//!
//! A request that finds its kept connection closed is repeated once on a fresh one, unless it is a POST; a POST
//! takes a connection only if it was used a moment ago, or a fresh one. Redirects are not followed. The token is in
//! the request line and nowhere else, and there is no `Authorization`.
//!
//! # Cost
//! One buffer, lent by the owner, serves requests and answers in turn; besides it about 150 bytes while a head is read.
//! Bodies are handed on in place, nothing is copied.
//!
//! # Why not reqwless
//! It is the HTTP client that embassy's users know, and 0.14 was looked at in its parts. As a client it has no time limits, drops a
//! connection without FIN, leaves the port out of `Host`, takes an `https` URL without TLS settings as plain, and seeds each
//! connection's TLS from the same number. Its `Request` and `Response`, which could be used without it, want a buffer that holds
//! all fields of a head, parse them as 64 at once on the call stack (1 to 2 kB) each time that bytes arrive, and look at
//! `Keep-Alive` but not at `Connection: close`. Here a head is read line by line, in 128 bytes.
//!
//! # Errors
//! [`HttpError`], told to the log and to [`Observer::request_failed`](crate::Observer::request_failed).

mod body;
mod error;
mod head;

use core::fmt::{self, Write as _};

use embassy_futures::select::{Either, select};
use embassy_time::{Duration, Instant, TimeoutError, with_timeout};
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
        let mut next = first(requests.next().await);
        while let Some(wanted) = next {
            next = match self.connect_and_talk(requests, wanted).await {
                Then::Connect(next) => next,
                Then::Wait => first(requests.next().await),
            };
        }
    }
}

impl<C: Connector> Http<'_, C> {
    /// Performs requests over one connection: what comes then.
    fn connect_and_talk<R: Requests>(&mut self, requests: &R, wanted: Wanted) -> impl Future<Output = Then> {
        async move {
            let mut connection = {
                let limit_ms = self.limits.connect_ms;
                let connect =
                    with_timeout(ms(limit_ms), self.connector.connect(self.url.host, self.url.port));
                let error = match select(connect, requests.over()).await {
                    Either::First(Ok(Ok(stream))) => Ok(stream),
                    Either::First(Ok(Err(error))) => Err(Some(HttpError::Connect(error))),
                    Either::First(Err(_)) => {
                        Err(Some(HttpError::Timeout { phase: Phase::Connect, limit_ms }))
                    }
                    Either::Second(()) => Err(None),
                };
                match error {
                    Ok(stream) => {
                        Connection { stream, url: &self.url, buf: self.buf, limits: &self.limits, used: None }
                    }
                    Err(None) => return Then::Wait,
                    Err(Some(error)) => {
                        // The first try of one that is repeated may have reached the server.
                        let kind = if wanted.repeated { RequestError::Lost } else { RequestError::NotSent };
                        requests.failed(kind, &error);
                        return Then::Wait;
                    }
                }
            };
            let (then, orderly) = connection.talk(requests, wanted).await;
            if orderly {
                let _ = with_timeout(ms(self.limits.close_ms), C::close(connection.stream)).await;
            }
            then
        }
    }
}

/// A request that is to be performed: what must be known of it.
#[derive(Clone, Copy)]
struct Wanted {
    method: Method,
    /// Its first try found the connection closed.
    repeated: bool,
    body_len: Option<usize>,
}

fn first(head: Option<RequestHead>) -> Option<Wanted> {
    head.map(|head| Wanted { method: head.method, repeated: false, body_len: head.body_len })
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
    fn talk<R: Requests>(&mut self, requests: &R, mut wanted: Wanted) -> impl Future<Output = (Then, bool)> {
        async move {
            loop {
                match select(self.exchange(requests, wanted), requests.over()).await {
                    Either::First(Ok(true)) => {}
                    Either::First(Ok(false)) => return (Then::Wait, true),
                    Either::First(Err(failure)) => {
                        // Once only: the fresh connection has not been used.
                        let kept = self.used.is_some();
                        let repeat = kept && failure.is_stale() && wanted.method.is_idempotent();
                        if repeat {
                            return (Then::Connect(Some(Wanted { repeated: true, ..wanted })), false);
                        }
                        let kind = if wanted.repeated { RequestError::Lost } else { failure.kind() };
                        requests.failed(kind, &failure.error);
                        return (Then::Wait, false);
                    }
                    Either::Second(()) => return (Then::Wait, false),
                }
                self.used = Some(Instant::now());
                let Ok(next) = with_timeout(ms(self.limits.idle_ms), requests.next()).await else {
                    return (Then::Wait, true);
                };
                let Some(next) = first(next) else { return (Then::Connect(None), true) };
                let fresh = |used: Instant| used.elapsed() < ms(self.limits.post_reuse_ms);
                if next.method == Method::Post && !self.used.is_some_and(fresh) {
                    return (Then::Connect(Some(next)), true);
                }
                wanted = next;
            }
        }
    }

    /// Performs a request: whether the connection serves another one.
    fn exchange<R: Requests>(
        &mut self,
        requests: &R,
        wanted: Wanted,
    ) -> impl Future<Output = Result<bool, Failure>> {
        async move {
            let mut progress = Progress::Unsent;
            let sent = self.send(requests, wanted, &mut progress).await;
            match sent {
                Ok(()) => {}
                // A server that refuses a body says so and closes; its answer may be there all the same.
                Err(HttpError::Stream(_) | HttpError::Closed) if progress == Progress::Sent => {}
                Err(error) => return Err(Failure { error, progress }),
            }
            match self.receive(requests, &mut progress).await {
                Ok(keep) => Ok(keep && sent.is_ok()),
                Err(error) => {
                    let error =
                        if progress == Progress::Answered { error } else { sent.err().unwrap_or(error) };
                    Err(Failure { error, progress })
                }
            }
        }
    }

    fn send<R: Requests>(
        &mut self,
        requests: &R,
        wanted: Wanted,
        progress: &mut Progress,
    ) -> impl Future<Output = Result<(), HttpError>> {
        async move {
            // Of the head, what is still to be sent.
            let mut head_left = write_head(self.buf, self.url, requests, wanted)?;
            let (mut filled, mut offset) = (head_left, 0);
            let promised = wanted.body_len.unwrap_or(0);
            loop {
                let room = self.buf.get_mut(filled..).unwrap_or_default();
                let most = room.len().min(promised - offset);
                let n = requests.body(offset, room.get_mut(..most).unwrap_or_default()).min(most);
                if n == 0 && most > 0 {
                    return Err(HttpError::Body { promised, bytes: offset });
                }
                (filled, offset) = (filled + n, offset + n);
                let mut from = 0;
                while from < filled {
                    let rest = self.buf.get(from..filled).unwrap_or_default();
                    let written = with_timeout(ms(self.limits.silence_ms), self.stream.write(rest)).await;
                    let n = done(written, Phase::Request, self.limits.silence_ms)?;
                    if n == 0 {
                        return Err(HttpError::Stream(ErrorKind::WriteZero));
                    }
                    from += n;
                    head_left = head_left.saturating_sub(n);
                    if head_left == 0 {
                        *progress = Progress::Sent;
                    }
                }
                filled = 0;
                if offset >= promised {
                    break;
                }
            }
            let flushed = with_timeout(ms(self.limits.silence_ms), self.stream.flush()).await;
            done(flushed, Phase::Request, self.limits.silence_ms)
        }
    }

    /// Reads an answer: whether the connection serves another request.
    fn receive<R: Requests>(
        &mut self,
        requests: &R,
        progress: &mut Progress,
    ) -> impl Future<Output = Result<bool, HttpError>> {
        async move {
            let (keep, mut body, mut start, mut end) = {
                let limit_ms = self.limits.head_ms;
                let (head, start, end) = with_timeout(ms(limit_ms), self.read_head(progress))
                    .await
                    .map_err(|_| HttpError::Timeout { phase: Phase::Head, limit_ms })??;
                requests.answer_head(ResponseHead {
                    status: head.status,
                    date_unix_s: head.date_unix_s,
                    retry_after_ms: head.retry_after_ms(),
                });
                // The application server closes silently after a 500.
                (head.keeps_connection() && head.status != 500, Body::new(&head), start, end)
            };
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
                let since = Instant::now();
                let n = with_timeout(ms(self.limits.silence_ms), self.stream.read(self.buf)).await;
                (start, end) = (0, done(n, Phase::Body, self.limits.silence_ms)?);
                if end == 0 {
                    if body.ends_with_connection() {
                        break;
                    }
                    return Err(HttpError::Closed);
                }
                rate.count(since.elapsed(), end, self.limits)?;
            }
            requests.answer_end();
            Ok(keep && !body.ends_with_connection() && start == end)
        }
    }

    /// Reads the head: it, and where in the buffer what was read beyond it lies.
    fn read_head(
        &mut self,
        progress: &mut Progress,
    ) -> impl Future<Output = Result<(Head, usize, usize), HttpError>> {
        async move {
            let mut reader = HeadReader::new(self.limits.head_bytes);
            loop {
                // The end of the buffer, which is longer, keeps a line that has not come whole.
                let Some((buf, line)) = self.buf.split_last_chunk_mut() else {
                    return Err(HttpError::Closed);
                };
                let n = self.stream.read(buf).await.map_err(|e| HttpError::Stream(e.kind()))?;
                if n == 0 {
                    return Err(HttpError::Closed);
                }
                *progress = Progress::Answered;
                if let (used, Some(head)) = reader.push(buf.get(..n).unwrap_or_default(), line)? {
                    return Ok((head, used, n));
                }
            }
        }
    }
}

/// What came of input or output that had a time limit.
fn done<T, E: embedded_io_async::Error>(
    result: Result<Result<T, E>, TimeoutError>,
    phase: Phase,
    limit_ms: u32,
) -> Result<T, HttpError> {
    match result {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(HttpError::Stream(error.kind())),
        Err(_) => Err(HttpError::Timeout { phase, limit_ms }),
    }
}

/// Writes a request's head into `buf`: its length.
#[inline(never)]
fn write_head(
    buf: &mut [u8],
    url: &BaseUrl<'_>,
    requests: &impl Requests,
    wanted: Wanted,
) -> Result<usize, HttpError> {
    let limit = buf.len();
    let mut out = Buffer { buf, len: 0 };
    let mut write = || -> fmt::Result {
        out.write_str(wanted.method.as_str())?;
        out.write_str(" ")?;
        requests.write_target(&mut out)?;
        out.write_str(" HTTP/1.1\r\nHost: ")?;
        url.write_host(&mut out)?;
        out.write_str(concat!("\r\nUser-Agent: grafolean-embassy/", env!("CARGO_PKG_VERSION"), "\r\n"))?;
        if let Some(len) = wanted.body_len {
            write!(out, "Content-Type: application/json\r\nContent-Length: {len}\r\n")?;
        }
        out.write_str("\r\n")
    };
    write().map_err(|_| HttpError::RequestTooLong { limit })?;
    Ok(out.len)
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
    #[inline(never)]
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
        let wanted = Wanted { method: Method::Delete, repeated: false, body_len: Some(u32::MAX as usize) };
        let mut buf = [0; LEAST_BUFFER];
        let len = write_head(&mut buf, &url, &One(target), wanted).unwrap();
        let text = core::str::from_utf8(&buf[..len]).unwrap();
        assert!(text.ends_with("Content-Length: 4294967295\r\n\r\n"), "{text}");
        assert!(!text.contains("Authorization"));
        assert_eq!(text.matches("3bfae491").count(), 1);
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
