//! Reads the head of an answer as it arrives, in lent memory for one line (RFC 9112).
//!
//! Of a head only six things matter here. Lines that hold none of them may have any length, so the buffer does not
//! depend on what proxies add; that is why this is no parser of whole heads.

use grafolean_core::time::parse_http_date;

use super::error::HttpError;

/// The longest line that matters, in bytes.
pub(super) const MAX_LINE: usize = 128;

/// What the head of an answer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Head {
    pub(super) status: u16,
    /// The version is 1.0.
    old: bool,
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
    close: bool,
    keep_alive: bool,
    pub(super) date_unix_s: Option<u64>,
    retry: Option<Retry>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Retry {
    AfterSeconds(u64),
    AtUnix(u64),
}

impl Head {
    /// Whether the connection may serve another request (RFC 9112, section 9.3).
    pub(super) const fn keeps_connection(&self) -> bool {
        // A length besides chunks is a sign of a confused peer: its connection is not to be trusted.
        let confused = self.chunked && self.content_length.is_some();
        !self.close && !confused && (!self.old || self.keep_alive)
    }

    /// Whether there is no body, whatever the fields say (RFC 9112, section 6.3).
    pub(super) const fn is_without_body(&self) -> bool {
        matches!(self.status, 204 | 304)
    }

    /// How long the server asks to wait; a point in time is relative to the answer's own `Date`.
    #[inline(never)]
    pub(super) fn retry_after_ms(&self) -> Option<u32> {
        let seconds = match self.retry? {
            Retry::AfterSeconds(s) => s,
            Retry::AtUnix(at) => at.saturating_sub(self.date_unix_s?),
        };
        Some(u32::try_from(seconds.saturating_mul(1000)).unwrap_or(u32::MAX))
    }
}

/// Reads one head.
#[derive(Debug)]
pub(super) struct HeadReader {
    head: Head,
    /// The present line's length, with what did not fit.
    len: usize,
    /// Bytes that the head may still have.
    left: u32,
    limit: u32,
    first: bool,
    /// The last field matters: a line that continues it would change it.
    mattered: bool,
}

impl HeadReader {
    /// Reads a head of at most `limit` bytes, interim answers included.
    pub(super) const fn new(limit: u32) -> Self {
        let head = Head {
            status: 0,
            old: false,
            content_length: None,
            chunked: false,
            close: false,
            keep_alive: false,
            date_unix_s: None,
            retry: None,
        };
        HeadReader { head, len: 0, left: limit, limit, first: true, mattered: false }
    }

    /// Reads on: how many bytes were used, and the head if that is its end. `line` keeps what it holds from call to call.
    ///
    /// # Errors
    /// It is no HTTP, or too long.
    #[inline(never)]
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        line: &mut [u8; MAX_LINE],
    ) -> Result<(usize, Option<Head>), HttpError> {
        for (at, &byte) in bytes.iter().enumerate() {
            self.left = self.left.checked_sub(1).ok_or(HttpError::HeadTooLong { limit: self.limit })?;
            if byte != b'\n' {
                if let Some(to) = line.get_mut(self.len) {
                    *to = byte;
                }
                self.len += 1;
                self.check_first(line)?;
                continue;
            }
            if self.end_line(line)? {
                let head = core::mem::replace(self, HeadReader::new(0)).head;
                return Ok((at + 1, Some(head)));
            }
        }
        Ok((bytes.len(), None))
    }

    /// Something that is not HTTP is told at once, rather than after a line that may never end.
    fn check_first(&self, line: &[u8]) -> Result<(), HttpError> {
        const BEGIN: &[u8] = b"HTTP/1.";
        if !self.first || self.len > BEGIN.len() || line.get(..self.len) == BEGIN.get(..self.len) {
            return Ok(());
        }
        Err(HttpError::Malformed("status line"))
    }

    /// A line has ended: whether it was the head's last.
    #[inline(never)]
    fn end_line(&mut self, line: &[u8; MAX_LINE]) -> Result<bool, HttpError> {
        let len = core::mem::take(&mut self.len);
        let fits = len <= MAX_LINE;
        let line = line.get(..len.min(MAX_LINE)).unwrap_or_default();
        let line = if fits { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
        if core::mem::take(&mut self.first) {
            return self.status_line(line).map(|()| false);
        }
        if line.is_empty() {
            // An interim answer: the real one follows (RFC 9110, section 15.2).
            if (100..200).contains(&self.head.status) {
                if self.head.status == 101 {
                    return Err(HttpError::Malformed("protocol switched"));
                }
                *self = HeadReader { limit: self.limit, ..HeadReader::new(self.left) };
                return Ok(false);
            }
            return Ok(true);
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return if self.mattered { Err(HttpError::Malformed("folded line")) } else { Ok(false) };
        }
        let colon = line.iter().position(|c| *c == b':');
        let Some((name, value)) = colon.and_then(|at| Some((line.get(..at)?, line.get(at + 1..)?))) else {
            // The name of a long line may be cut off; then it is none that matters.
            return if fits { Err(HttpError::Malformed("field without a colon")) } else { Ok(false) };
        };
        if name.is_empty() || name.last().is_some_and(u8::is_ascii_whitespace) {
            return Err(HttpError::Malformed("field name"));
        }
        self.mattered = self.field(name, value, fits)?;
        Ok(false)
    }

    fn status_line(&mut self, line: &[u8]) -> Result<(), HttpError> {
        let bad = HttpError::Malformed("status line");
        let (version, rest) = line.split_at_checked(9).ok_or(bad)?;
        self.head.old = match version {
            b"HTTP/1.1 " => false,
            b"HTTP/1.0 " => true,
            _ => return Err(bad),
        };
        let (digits, reason) = rest.split_at_checked(3).ok_or(bad)?;
        self.head.status =
            number(digits).and_then(|n| u16::try_from(n).ok()).filter(|n| *n >= 100).ok_or(bad)?;
        if reason.is_empty() || reason.starts_with(b" ") { Ok(()) } else { Err(bad) }
    }

    /// Whether it is a field that matters.
    #[inline(never)]
    fn field(&mut self, name: &[u8], value: &[u8], fits: bool) -> Result<bool, HttpError> {
        const NAMES: [&str; 5] = ["content-length", "transfer-encoding", "connection", "date", "retry-after"];
        let Some(which) = NAMES.iter().position(|n| name.eq_ignore_ascii_case(n.as_bytes())) else {
            return Ok(false);
        };
        if !fits {
            return Err(HttpError::LineTooLong { limit: MAX_LINE });
        }
        let value = value.trim_ascii();
        let text = core::str::from_utf8(value).unwrap_or("");
        match which {
            0 => {
                let length = number(value).ok_or(HttpError::Malformed("Content-Length"))?;
                if self.head.content_length.is_some_and(|l| l != length) {
                    return Err(HttpError::Malformed("two lengths"));
                }
                self.head.content_length = Some(length);
            }
            1 => {
                // No other coding was asked for; chunks within chunks are none either.
                if !value.eq_ignore_ascii_case(b"chunked") || self.head.chunked {
                    return Err(HttpError::Encoding);
                }
                self.head.chunked = true;
            }
            2 => {
                for option in text.split(',').map(str::trim) {
                    self.head.close |= option.eq_ignore_ascii_case("close");
                    self.head.keep_alive |= option.eq_ignore_ascii_case("keep-alive");
                }
            }
            3 => self.head.date_unix_s = parse_http_date(text),
            _ => {
                let all_digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                self.head.retry = if all_digits {
                    // Beyond u64 it is "never" all the same.
                    Some(Retry::AfterSeconds(number(value).unwrap_or(u64::MAX)))
                } else {
                    parse_http_date(text).map(Retry::AtUnix)
                };
            }
        }
        Ok(true)
    }
}

/// A decimal number: digits only, within u64.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |n, c| {
        let digit = c.is_ascii_digit().then(|| u64::from(c - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;

    /// Reads `text` whole and in pieces of every size: always the same.
    fn read(text: &str) -> Result<(Head, usize), HttpError> {
        let whole = in_pieces(text, text.len().max(1));
        for size in 1..text.len().min(40) {
            assert_eq!(in_pieces(text, size), whole, "in pieces of {size}");
        }
        whole
    }

    fn in_pieces(text: &str, size: usize) -> Result<(Head, usize), HttpError> {
        let (mut reader, mut line) = (HeadReader::new(1024), [0; MAX_LINE]);
        let mut used = 0;
        for piece in text.as_bytes().chunks(size) {
            let (n, head) = reader.push(piece, &mut line)?;
            used += n;
            if let Some(head) = head {
                return Ok((head, used));
            }
        }
        Err(HttpError::Closed)
    }

    #[test]
    fn what_matters_is_read_and_the_body_is_left() {
        let text = "HTTP/1.1 503 Service Unavailable\r\nserver: uvicorn\r\nDATE: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                    Retry-After:120\r\ncontent-length:\t 12 \r\nConnection: x, Close\r\n\r\nHTTP/1.1 body";
        let (head, used) = read(text).unwrap();
        assert_eq!(&text[used..], "HTTP/1.1 body");
        assert_eq!((head.status, head.content_length, head.chunked), (503, Some(12), false));
        assert_eq!((head.date_unix_s, head.retry_after_ms()), (Some(784_111_777), Some(120_000)));
        assert!(!head.keeps_connection());
    }

    #[test]
    fn a_connection_is_kept_by_default_and_not_by_old_servers() {
        let keeps = |text: &str| read(text).unwrap().0.keeps_connection();
        assert!(keeps("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(keeps("HTTP/1.1 200\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"));
        assert!(!keeps("HTTP/1.0 200 OK\r\n\r\n"));
        assert!(keeps("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"));
        assert!(keeps("HTTP/1.1 200 OK\nTransfer-Encoding: Chunked\n\n"));
    }

    #[test]
    fn interim_answers_are_passed_over() {
        let text = "HTTP/1.1 100 Continue\r\nContent-Length: 99\r\n\r\nHTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 204 No\r\n\r\n";
        let (head, used) = read(text).unwrap();
        assert_eq!((head.status, head.content_length, used), (204, None, text.len()));
        assert!(head.is_without_body());
    }

    #[test]
    fn lines_that_do_not_matter_may_have_any_length() {
        let long = "x".repeat(300);
        let (head, _) = read(&format!(
            "HTTP/1.1 200 OK\r\nset-cookie: {long}\r\n{long}\r\nDate\u{e9}: {long}\r\n more\r\n\r\n"
        ))
        .unwrap();
        assert_eq!(head.status, 200);
    }

    #[test]
    fn limits_are_named() {
        let long = format!("HTTP/1.1 200 OK\r\nDate: {}\r\n\r\n", "x".repeat(MAX_LINE));
        assert_eq!(read(&long).unwrap_err(), HttpError::LineTooLong { limit: MAX_LINE });
        let exact = format!("HTTP/1.1 200 OK\r\nDate: {}\r\n\r\n", "x".repeat(MAX_LINE - 7));
        assert!(read(&exact).is_ok());
        let many: String = (0..100).map(|n| format!("field-{n}: value\r\n")).collect();
        let error = read(&format!("HTTP/1.1 200 OK\r\n{many}\r\n")).unwrap_err();
        assert_eq!(error, HttpError::HeadTooLong { limit: 1024 });
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(50);
        assert_eq!(read(&interim).unwrap_err(), HttpError::HeadTooLong { limit: 1024 });
        assert_eq!(format!("{error}"), "head of the answer longer than 1024 bytes");
    }

    #[test]
    fn what_is_not_http_is_told_as_soon_as_it_shows() {
        let mut reader = HeadReader::new(1024);
        // An alert of a TLS server.
        assert_eq!(reader.push(&[0x15], &mut [0; MAX_LINE]), Err(HttpError::Malformed("status line")));
        for (text, error) in [
            ("HTTP/2 200 OK\r\n", HttpError::Malformed("status line")),
            ("HTTP/1.2 200 OK\r\n", HttpError::Malformed("status line")),
            ("HTTP/1.1 20 OK\r\n", HttpError::Malformed("status line")),
            ("HTTP/1.1 2000 OK\r\n", HttpError::Malformed("status line")),
            ("HTTP/1.1 099 OK\r\n", HttpError::Malformed("status line")),
            ("HTTP/1.1 101 Switching\r\n\r\n", HttpError::Malformed("protocol switched")),
            ("HTTP/1.1 200 OK\r\nno colon\r\n", HttpError::Malformed("field without a colon")),
            ("HTTP/1.1 200 OK\r\n: empty\r\n", HttpError::Malformed("field name")),
            ("HTTP/1.1 200 OK\r\nContent-Length : 5\r\n", HttpError::Malformed("field name")),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n 6\r\n", HttpError::Malformed("folded line")),
            ("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n", HttpError::Malformed("Content-Length")),
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n", HttpError::Malformed("Content-Length")),
            ("HTTP/1.1 200 OK\r\nContent-Length: \r\n", HttpError::Malformed("Content-Length")),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n",
                HttpError::Malformed("Content-Length"),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
                HttpError::Malformed("two lengths"),
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n", HttpError::Encoding),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                HttpError::Encoding,
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), error, "{text:?}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_relative_to_the_answers_own() {
        let after = |value: &str, date: &str| {
            read(&format!("HTTP/1.1 429 Wait\r\nRetry-After: {value}\r\n{date}\r\n"))
                .unwrap()
                .0
                .retry_after_ms()
        };
        let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        assert_eq!(after("7", ""), Some(7000));
        assert_eq!(after("99999999999999999999999", ""), Some(u32::MAX));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:37 GMT", date), Some(60_000));
        assert_eq!(after("Sun, 06 Nov 1994 08:40:37 GMT", date), Some(0));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:37 GMT", ""), None);
        for bad in ["", "-1", "1.5", "soon"] {
            assert_eq!(after(bad, date), None, "{bad:?}");
        }
    }
}
