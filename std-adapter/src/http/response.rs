//! An answer: status and time at once, the body in pieces as they come.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, DATE, HeaderMap, HeaderName, RETRY_AFTER};
use tokio::time::{Instant, timeout_at};

use super::connect::HEAD_LIMIT;
use super::error::{HttpError, HttpErrorKind, Part, Phase};
use super::pool::Lease;

/// The answer to a request.
///
/// Read it to its end (until [`chunk`](Self::chunk) gives `None`) and its connection serves the next request;
/// drop it earlier and the connection is closed. While it isn't read, the server is held back (the client
/// buffers at most 64 kB), and it occupies one of the client's connections.
pub struct Response {
    status: u16,
    date: Option<u64>,
    retry_after: Option<Duration>,
    length: Option<u64>,
    peer: Arc<str>,
    body_limit: u64,
    received: u64,
    state: State,
    /// Since when the caller has been waiting for the next chunk, over any number of dropped futures.
    waiting_since: Option<Instant>,
    /// Time spent waiting and bytes received in the present stretch of the rate measurement.
    waited: Duration,
    stretch: u64,
}

enum State {
    Reading {
        body: Incoming,
        lease: Box<Lease>,
        /// Whether the connection may be used again after this answer.
        keep: bool,
    },
    Ended,
    Failed(HttpErrorKind),
}

impl Response {
    pub(super) fn new(response: hyper::Response<Incoming>, lease: Lease, body_limit: u64) -> Self {
        let (head, body) = response.into_parts();
        let status = head.status.as_u16();
        // The application server closes silently after a 500, without announcing it.
        let keep = status != 500 && !says_close(&head.headers);
        let date = text(&head.headers, &DATE).and_then(unix_seconds);
        let retry_after = text(&head.headers, &RETRY_AFTER).and_then(|t| retry_after(t, date));
        let length = body.size_hint().exact();
        let peer = Arc::clone(&lease.inner.peer);
        let mut this = Self {
            status,
            date,
            retry_after,
            length,
            peer,
            body_limit,
            received: 0,
            state: State::Reading { body, lease: Box::new(lease), keep },
            waiting_since: None,
            waited: Duration::ZERO,
            stretch: 0,
        };
        this.release_if_ended();
        this
    }

    /// Status code, 100 to 999. Redirects are not followed.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The server's time (`Date`) in Unix seconds, if it was given and can be read.
    pub fn date(&self) -> Option<u64> {
        self.date
    }

    /// How long the server asks to wait (`Retry-After`, RFC 9110, section 10.2.3). A point in time is taken
    /// relative to the answer's `Date`, or to the system's clock without one.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Length of the body in bytes, if the server announced it.
    pub fn content_length(&self) -> Option<u64> {
        self.length
    }

    /// The next piece of the body, at most 64 kB, or `None` at its end.
    ///
    /// The future may be dropped and asked for anew; nothing is lost and the time-out goes on.
    ///
    /// # Errors
    /// The connection broke, the body went silent, is too slow or longer than the request's limit. The
    /// connection is closed then, and the same error is given from then on: an incomplete body never looks
    /// like a complete one.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        match self.read().await {
            Ok(chunk) => Ok(chunk),
            Err(kind) => {
                self.state = State::Failed(kind.clone());
                // The server has answered, so it did something with the request.
                Err(HttpError { peer: Arc::clone(&self.peer), kind, maybe_processed: true })
            }
        }
    }

    /// The whole rest of the body. Holds up to the request's `body_limit` in memory.
    ///
    /// # Errors
    /// As [`chunk`](Self::chunk).
    pub async fn bytes(&mut self) -> Result<Vec<u8>, HttpError> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }

    async fn read(&mut self) -> Result<Option<Bytes>, HttpErrorKind> {
        let too_long = HttpErrorKind::TooLong { part: Part::Body, limit: self.body_limit };
        loop {
            let (body, lease) = match &mut self.state {
                State::Reading { body, lease, .. } => (body, lease),
                State::Ended => return Ok(None),
                State::Failed(kind) => return Err(kind.clone()),
            };
            if self.length.is_some_and(|length| length > self.body_limit) {
                return Err(too_long);
            }
            let config = &lease.inner.config;
            let since = *self.waiting_since.get_or_insert_with(Instant::now);
            let limit = config.silence_limit;
            let frame = timeout_at(since + limit, body.frame())
                .await
                .map_err(|_| HttpErrorKind::Timeout { phase: Phase::Body, limit })?;
            self.waited += since.elapsed();
            self.waiting_since = None;
            let Some(frame) = frame else {
                self.end();
                return Ok(None);
            };
            let frame = frame.map_err(|error| {
                let progress = lease.conn.meter.progress();
                let tls_server = lease.inner.tls.is_none() && progress.looks_like_tls();
                HttpErrorKind::from_hyper(&error, progress.read, HEAD_LIMIT as u64, tls_server)
            })?;
            // Trailer fields mean nothing here.
            let Ok(data) = frame.into_data() else { continue };
            let length = data.len() as u64;
            self.received = self.received.saturating_add(length);
            self.stretch = self.stretch.saturating_add(length);
            if self.received > self.body_limit {
                return Err(too_long);
            }
            if self.waited >= config.rate_window {
                too_slow(self.stretch, self.waited, config.min_rate)?;
                self.waited = Duration::ZERO;
                self.stretch = 0;
            }
            self.release_if_ended();
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }

    /// Frees the connection as soon as it is known that nothing follows.
    fn release_if_ended(&mut self) {
        if let State::Reading { body, .. } = &self.state
            && body.is_end_stream()
        {
            self.end();
        }
    }

    fn end(&mut self) {
        if let State::Reading { lease, keep, .. } = core::mem::replace(&mut self.state, State::Ended)
            && keep
            // Else the rest of the request is in the way: the server answered before it had it all.
            && lease.conn.meter.progress().is_sent()
        {
            lease.release();
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("peer", &self.peer)
            .field("status", &self.status)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

/// Errs if `bytes` in `time` are less than `limit` bytes a second (0: no limit).
pub(super) fn too_slow(bytes: u64, time: Duration, limit: u64) -> Result<(), HttpErrorKind> {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = bytes.saturating_mul(1000) / millis;
    if rate < limit { Err(HttpErrorKind::TooSlow { rate, limit }) } else { Ok(()) }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn says_close(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|option| option.trim().eq_ignore_ascii_case("close"))
}

/// Reads any of the three forms of HTTP's dates (RFC 9110, section 5.6.7).
fn unix_seconds(text: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(text).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn retry_after(text: &str, date: Option<u64>) -> Option<Duration> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // Beyond u64 it is "never" all the same.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let at = unix_seconds(text)?;
    let now = match date {
        Some(date) => date,
        None => SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs(),
    };
    Some(Duration::from_secs(at.saturating_sub(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let date = unix_seconds("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date, Some(784_111_777));
        assert_eq!(retry_after("120", date), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:37 GMT", date), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:40:37 GMT", date), Some(Duration::ZERO));
        assert_eq!(retry_after("99999999999999999999999", date), Some(Duration::from_secs(u64::MAX)));
        for bad in ["", "-1", "1.5", "soon"] {
            assert_eq!(retry_after(bad, date), None, "{bad:?}");
        }
    }

    #[test]
    fn a_date_without_a_clock_is_relative_to_the_systems() {
        let at = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3600));
        let wait = retry_after(&at, None).unwrap().as_secs();
        assert!((3000..=3600).contains(&wait), "{wait}");
    }

    #[test]
    fn a_bad_date_is_none() {
        for bad in ["", "yesterday", "Sun, 06 Nov 1894 08:49:37 GMT", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(unix_seconds(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn close_is_found_among_the_options_of_a_connection() {
        let mut headers = HeaderMap::new();
        assert!(!says_close(&headers));
        headers.append(CONNECTION, "keep-alive".parse().unwrap());
        assert!(!says_close(&headers));
        headers.append(CONNECTION, "x, Close".parse().unwrap());
        assert!(says_close(&headers));
    }

    #[test]
    fn the_rate_limit_is_exact_and_zero_switches_it_off() {
        assert_eq!(too_slow(640, Duration::from_secs(10), 64), Ok(()));
        assert_eq!(
            too_slow(639, Duration::from_secs(10), 64),
            Err(HttpErrorKind::TooSlow { rate: 63, limit: 64 })
        );
        assert_eq!(too_slow(0, Duration::from_secs(10), 0), Ok(()));
        assert_eq!(too_slow(1, Duration::ZERO, 64), Ok(()));
    }
}
