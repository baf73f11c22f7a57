//! An HTTP/1.1 client for one backend: few kept-alive connections, every wait bounded, the token never shown.
//!
//! ```no_run
//! use grafolean_std::http::{Endpoint, HttpClient, HttpConfig, Method, Request, Target};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let endpoint = Endpoint { https: true, host: "grafolean.example".to_owned(), port: 443 };
//! let client = HttpClient::new(endpoint, HttpConfig::default())?;
//! let target = Target::new("/api/accounts/?b=12345678-1234-1234-1234-123456789abc")?;
//! let mut response = client.send(Request::new(Method::Get, target)).await?;
//! while let Some(chunk) = response.chunk().await? {
//!     println!("{} bytes", chunk.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Cost
//! A request on a kept-alive connection costs one round trip; a new connection costs name resolution, one
//! round trip for TCP and one (TLS 1.3) or two (1.2) for TLS. A body goes out without being copied over plain
//! connections. At most about 64 kB of an answer are buffered, the rest stays with the server.
//!
//! # Errors
//! [`HttpError`] says what was waited for, which limit passed, and whether the server may have acted on the
//! request ([`HttpError::maybe_processed`]). Statuses are no errors.
//!
//! # Connections
//! - A kept-alive connection is used again, the one used last first. If a GET, PUT or DELETE finds it closed
//!   before any byte of the answer, it is repeated once on a new one. A POST only takes one used within the
//!   last 3 s, or a new one, and is never repeated.
//! - After a 500 the connection is closed: the application server closes it silently. So it is after
//!   `Connection: close`, after any error, after an answer that wasn't read to its end, and after one that came
//!   before the whole request was sent.
//! - A host with several addresses is tried at all of them, beginning with the last good one, which also
//!   stands in while the resolver fails.
//!
//! The client works in any tokio runtime with I/O and time enabled. Connections are driven by tasks of the
//! runtime in which they were opened; when it ends, they are closed, and a client used elsewhere opens new
//! ones.

mod config;
mod connect;
mod error;
mod meter;
mod pool;
mod response;
mod target;
mod tls;

use core::time::Duration;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

pub use grafolean_core::api::Method;

pub use self::config::{Endpoint, HttpConfig};
pub use self::error::{HttpError, HttpErrorKind, Part, Phase, SetupError, TlsFault};
pub use self::response::Response;
pub use self::target::{TARGET_LIMIT, Target, TargetError};

use self::connect::{Conn, HEAD_LIMIT};
use self::pool::{Inner, Lease, Pool};
use crate::clock::BootClock;

/// Body limit of requests that don't name one, in bytes: 64 kB.
pub const DEFAULT_BODY_LIMIT: u64 = 64 * 1024;

/// What to ask the backend. `Debug` shows neither the token nor the body.
#[derive(Clone)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Path and query, token included.
    pub target: Target,
    /// A JSON body; sent with `Content-Type: application/json` and its length.
    pub body: Option<Bytes>,
    /// Longest body of the answer in bytes.
    pub body_limit: u64,
}

impl Request {
    /// A request without body, whose answer may have [`DEFAULT_BODY_LIMIT`] bytes.
    pub fn new(method: Method, target: Target) -> Self {
        Self { method, target, body: None, body_limit: DEFAULT_BODY_LIMIT }
    }

    /// The same with a JSON body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// The same with another limit for the answer's body, in bytes.
    #[must_use]
    pub fn with_body_limit(mut self, limit: u64) -> Self {
        self.body_limit = limit;
        self
    }
}

impl core::fmt::Debug for Request {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("target", &self.target)
            .field("body_bytes", &self.body.as_ref().map(Bytes::len))
            .field("body_limit", &self.body_limit)
            .finish()
    }
}

const fn as_http(method: Method) -> hyper::Method {
    match method {
        Method::Get => hyper::Method::GET,
        Method::Post => hyper::Method::POST,
        Method::Put => hyper::Method::PUT,
        Method::Delete => hyper::Method::DELETE,
    }
}

/// A client for one backend. Clones share the connections.
#[derive(Clone)]
pub struct HttpClient {
    inner: Arc<Inner>,
}

impl core::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HttpClient").field("peer", &self.inner.peer).finish_non_exhaustive()
    }
}

/// A request that failed, and whether a stale connection explains it.
struct Failure {
    kind: HttpErrorKind,
    maybe_processed: bool,
    unanswered: bool,
}

impl HttpClient {
    /// Makes a client; opens no connection yet. With https, reads the system's certificates (some ms of file
    /// access).
    ///
    /// # Errors
    /// The endpoint or a limit is unusable, the CA file can't be read, or no authority at all is trusted.
    pub fn new(endpoint: Endpoint, config: HttpConfig) -> Result<Self, SetupError> {
        endpoint.check()?;
        config.check()?;
        let authority = HeaderValue::try_from(endpoint.authority())
            .map_err(|_| SetupError::Host { why: "it holds a character that is not allowed" })?;
        let tls = match endpoint.https {
            true => Some(tls::build(&endpoint, config.ca_file.as_deref())?),
            false => None,
        };
        let inner = Inner {
            peer: Arc::from(endpoint.to_string()),
            authority,
            tls,
            active: Arc::new(Semaphore::new(config.max_connections)),
            open: Arc::new(Semaphore::new(config.max_connections)),
            last_good: Mutex::new(None),
            clock: BootClock::new(),
            pool: Mutex::new(Pool::default()),
            endpoint,
            config,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The backend as `https://host:port`.
    pub fn peer(&self) -> &str {
        &self.inner.peer
    }

    /// How many connections are open and wait for a request.
    pub fn idle_connections(&self) -> usize {
        self.inner.count_idle()
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// Waits, each bounded by [`HttpConfig`]: for a free connection, for a new one, for the server to take
    /// the request, for the head. Dropping the future closes the connection.
    ///
    /// # Errors
    /// See [`HttpErrorKind`]. Any status of the server is an `Ok`.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time.
    pub async fn send(&self, request: Request) -> Result<Response, HttpError> {
        self.attempt(&request).await.map_err(|failure| {
            let error = HttpError {
                peer: Arc::clone(&self.inner.peer),
                kind: failure.kind,
                maybe_processed: failure.maybe_processed,
            };
            tracing::debug!(method = ?request.method, %error, "request failed");
            error
        })
    }

    async fn attempt(&self, request: &Request) -> Result<Response, Failure> {
        let inner = &self.inner;
        let limit = inner.config.slot_limit;
        let no_slot = HttpErrorKind::Timeout { phase: Phase::Slot, limit };
        let permit = match timeout(limit, Arc::clone(&inner.active).acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => {
                return Err(Failure { kind: no_slot, maybe_processed: false, unanswered: false });
            }
        };
        let youngest = match request.method.is_idempotent() {
            true => Duration::MAX,
            false => inner.config.post_reuse_limit,
        };
        // Whether an attempt on a stale connection may have been processed all the same.
        let mut earlier = false;
        if let Some(mut conn) = inner.take_idle(youngest).await {
            match self.exchange(&mut conn, request).await {
                Ok(answer) => return Ok(self.response(answer, conn, permit, request)),
                Err(failure) if failure.unanswered && request.method.is_idempotent() => {
                    tracing::debug!(peer = %inner.peer, "kept-alive connection was stale, repeating on a new one");
                    earlier = failure.maybe_processed;
                }
                Err(failure) => return Err(failure),
            }
        }
        inner.make_room();
        let mut conn = inner.connect().await.map_err(|kind| Failure {
            kind,
            maybe_processed: earlier,
            unanswered: false,
        })?;
        match self.exchange(&mut conn, request).await {
            Ok(answer) => Ok(self.response(answer, conn, permit, request)),
            Err(failure) => Err(Failure { maybe_processed: failure.maybe_processed || earlier, ..failure }),
        }
    }

    fn response(
        &self,
        answer: hyper::Response<Incoming>,
        conn: Conn,
        permit: tokio::sync::OwnedSemaphorePermit,
        request: &Request,
    ) -> Response {
        let lease = Lease { conn, inner: Arc::clone(&self.inner), permit };
        Response::new(answer, lease, request.body_limit)
    }

    /// One request and the head of its answer on one connection.
    async fn exchange(
        &self,
        conn: &mut Conn,
        request: &Request,
    ) -> Result<hyper::Response<Incoming>, Failure> {
        let config = &self.inner.config;
        let message = self.message(request)?;
        // The head comes on top of it, so that "sent" is said a little early rather than late: a request
        // counts as possibly processed as soon as it could be.
        let length = request.body.as_ref().map_or(1, |body| body.len().max(1)) as u64;

        let meter = conn.meter.clone();
        meter.begin(length);
        let mut stretch_start = Instant::now();
        let mut stretch_written = 0;
        let mut answer = core::pin::pin!(conn.sender.try_send_request(message));
        let kind = loop {
            let progress = meter.progress();
            let sent = progress.is_sent();
            let (phase, limit) = match sent {
                true => (Phase::Head, config.head_limit),
                false => (Phase::Request, config.silence_limit),
            };
            let deadline = progress.last_write + limit;
            let wake = match sent {
                true => deadline,
                false => deadline.min(stretch_start + config.rate_window),
            };
            let now = Instant::now();
            if deadline <= now {
                break HttpErrorKind::Timeout { phase, limit };
            }
            if !sent && wake <= now {
                let written = progress.written - stretch_written;
                if let Err(kind) = response::too_slow(written, now - stretch_start, config.min_rate) {
                    break kind;
                }
                (stretch_start, stretch_written) = (now, progress.written);
                continue;
            }
            let result = tokio::select! {
                biased;
                result = &mut answer => result,
                // From here on it is the head that is waited for.
                () = meter.sent(), if !sent => continue,
                () = sleep_until(wake) => continue,
            };
            match result {
                Ok(response) => return Ok(response),
                Err(mut error) => {
                    let never_sent = error.take_message().is_some();
                    let progress = meter.progress();
                    let tls_server = self.inner.tls.is_none() && progress.looks_like_tls();
                    let kind = HttpErrorKind::from_hyper(
                        error.error(),
                        progress.read,
                        HEAD_LIMIT as u64,
                        tls_server,
                    );
                    return Err(Failure {
                        kind,
                        maybe_processed: !never_sent && progress.is_sent(),
                        unanswered: progress.read == 0,
                    });
                }
            }
        };
        // From here on the connection sends nothing more, so what it has counted is final.
        let maybe_processed = meter.cut().is_sent();
        Err(Failure { kind, maybe_processed, unanswered: false })
    }

    fn message(&self, request: &Request) -> Result<hyper::Request<Full<Bytes>>, Failure> {
        let mut builder = hyper::Request::builder()
            .method(as_http(request.method))
            .uri(request.target.expose())
            .header(HOST, self.inner.authority.clone())
            .header(USER_AGENT, concat!("grafolean-std/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json");
        if let Some(body) = &request.body {
            builder = builder.header(CONTENT_TYPE, "application/json").header(CONTENT_LENGTH, body.len());
        }
        builder.body(Full::new(request.body.clone().unwrap_or_default())).map_err(|error| Failure {
            kind: HttpErrorKind::Request { why: error.to_string() },
            maybe_processed: false,
            unanswered: false,
        })
    }
}
