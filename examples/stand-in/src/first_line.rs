//! The first line of a request, before the HTTP library reads it: what the library would refuse, cut or answer in its own way is
//! put aside for the backend, which takes it as uvicorn does.
//!
//! These are targets that are longer than the library's limit or have a `#`, which uvicorn hands to the application as they
//! are, and other versions than HTTP/1.1, all of which uvicorn answers in HTTP/1.1. A request that is sent before the answer to
//! the one before has come (pipelined) reaches the library unseen.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::Phase;

/// Longest target that the library takes, bytes.
const LIBRARY_TARGET: usize = 65_534;

/// Longest first line that is waited for, bytes; a longer one is left to the library, which refuses it.
const LINE_LIMIT: usize = 512 * 1024;

/// What a first line said that the library did not see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FirstLine {
    /// The target; none: the library has it.
    pub(crate) target: Option<String>,
    /// The version, if it was another one than HTTP/1.1.
    pub(crate) version: Option<String>,
}

impl FirstLine {
    /// The line for the library in place of this one, and what that hides; none if the line can stay.
    fn replace(line: &[u8]) -> Option<(String, Self)> {
        let line = core::str::from_utf8(line).ok()?;
        let line = line.strip_suffix('\r').unwrap_or(line);
        let mut parts = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let digits = version.strip_prefix("HTTP/")?.as_bytes();
        let known =
            matches!(digits, [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit());
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        // Only what is meant for the backend; `PRI *` is how HTTP/2 begins.
        let for_backend = target.starts_with("/api/") || (method, target) == ("PRI", "*");
        if !known || !plain(method) || method.contains(':') || !plain(target) || !for_backend {
            return None;
        }
        let hidden = Self {
            target: (target.contains('#') || target.len() > LIBRARY_TARGET).then(|| target.to_owned()),
            version: (version != "HTTP/1.1").then(|| version.to_owned()),
        };
        let shown = if hidden.target.is_some() { "/api/" } else { target };
        (hidden != Self::default()).then(|| (format!("{method} {shown} HTTP/1.1\r\n"), hidden))
    }
}

/// Where the reader of a connection leaves what it put aside for the request that comes next.
#[derive(Debug, Default)]
pub(crate) struct PutAside(Mutex<FirstLine>);

impl PutAside {
    /// What was put aside of the request that now begins.
    pub(crate) fn take(&self) -> FirstLine {
        core::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, line: FirstLine) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }
}

/// A socket whose first lines are looked at.
pub(crate) struct FirstLines<S> {
    socket: S,
    phase: Arc<Phase>,
    aside: Arc<PutAside>,
    /// Bytes that were read and not handed on.
    held: Vec<u8>,
    /// How many of them were handed on; none as long as the line is not whole.
    handed_on: Option<usize>,
}

impl<S> FirstLines<S> {
    pub(crate) const fn new(socket: S, phase: Arc<Phase>, aside: Arc<PutAside>) -> Self {
        Self { socket, phase, aside, held: Vec::new(), handed_on: None }
    }

    fn hand_on(&mut self, from: usize, buf: &mut ReadBuf<'_>) {
        let rest = self.held.get(from..).unwrap_or_default();
        let count = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..count).unwrap_or_default());
        if count == rest.len() {
            self.held = Vec::new();
            self.handed_on = None;
        } else {
            self.handed_on = Some(from + count);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstLines<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(from) = this.handed_on {
            this.hand_on(from, buf);
            return Poll::Ready(Ok(()));
        }
        if this.held.is_empty() && !this.phase.is_quiet() {
            return Pin::new(&mut this.socket).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        loop {
            ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
            let new = buf.filled().get(before..).unwrap_or_default();
            if new.is_empty() {
                // The end; what came before it is the library's.
                break;
            }
            let end = new.iter().position(|b| *b == b'\n');
            if this.held.is_empty()
                && let Some(end) = end
                && FirstLine::replace(new.get(..end).unwrap_or_default()).is_none()
            {
                return Poll::Ready(Ok(()));
            }
            let end = end.map(|end| this.held.len() + end);
            this.held.extend_from_slice(new);
            buf.set_filled(before);
            if let Some(end) = end {
                if let Some((line, hidden)) = FirstLine::replace(this.held.get(..end).unwrap_or_default()) {
                    this.held.splice(..=end, line.into_bytes());
                    this.aside.put(hidden);
                }
                break;
            }
            if this.held.len() > LINE_LIMIT {
                break;
            }
        }
        this.hand_on(0, buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstLines<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What the library reads of these pieces, and what is put aside.
    fn read(pieces: &[&[u8]], buffer: usize) -> (Vec<u8>, FirstLine) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            let aside = Arc::new(PutAside::default());
            let mut lines = FirstLines::new(server, Arc::new(Phase::default()), Arc::clone(&aside));
            let mut all = Vec::new();
            let mut chunk = vec![0; buffer];
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                let more = lines.read(&mut chunk);
                // A line that is not whole yet gives nothing to read.
                if let Ok(length) =
                    tokio::select! { biased; l = more => l, () = core::future::ready(()) => Ok(0) }
                {
                    all.extend_from_slice(&chunk[..length]);
                }
            }
            drop(client);
            loop {
                match lines.read(&mut chunk).await.unwrap() {
                    0 => return (all, aside.take()),
                    length => all.extend_from_slice(&chunk[..length]),
                }
            }
        })
    }

    #[test]
    fn ordinary_requests_pass_as_they_are() {
        for request in [
            "GET /api/profile?b=x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET /api/x HTTP/1.0 y\r\n\r\n",
            "GET /api/\u{107} HTTP/1.0\r\n\r\n",
            "X: /api/ HTTP/1.0\r\n",
            "\r\nGET /api/x HTTP/1.1\r\n\r\n",
            "no line",
            "",
        ] {
            for buffer in [1, 7, 4096] {
                let (read, aside) = read(&[request.as_bytes()], buffer);
                assert_eq!(
                    (String::from_utf8(read).unwrap().as_str(), aside),
                    (request, FirstLine::default())
                );
            }
        }
    }

    #[test]
    fn odd_targets_and_versions_are_put_aside_however_they_arrive() {
        let long = format!("/api/x?{}", "y".repeat(LIBRARY_TARGET));
        for (line, shown, target, version) in [
            ("GET /api/x?b=t#f HTTP/1.1", "GET /api/ HTTP/1.1", Some("/api/x?b=t#f"), None),
            ("GET /api/x HTTP/1.0", "GET /api/x HTTP/1.1", None, Some("HTTP/1.0")),
            ("PRI * HTTP/2.0", "PRI * HTTP/1.1", None, Some("HTTP/2.0")),
            (&format!("GET {long} HTTP/1.1"), "GET /api/ HTTP/1.1", Some(&long), None),
        ] {
            let sent = format!("{line}\r\nHost: a\r\n\r\nbody#");
            let hidden = FirstLine { target: target.map(str::to_owned), version: version.map(str::to_owned) };
            for split in [0, 1, line.len() / 2, line.len(), line.len() + 1, line.len() + 2] {
                for buffer in [3, 4096] {
                    let (first, second) = sent.as_bytes().split_at(split);
                    let (read, aside) = read(&[first, second], buffer);
                    let expected = format!("{shown}\r\nHost: a\r\n\r\nbody#");
                    assert_eq!(
                        String::from_utf8(read).unwrap(),
                        expected,
                        "split at {split}, {buffer} bytes at once"
                    );
                    assert_eq!(aside, hidden);
                }
            }
        }
    }

    #[test]
    fn a_line_without_end_is_left_to_the_library() {
        let sent = format!("GET /api/{}", "x".repeat(LINE_LIMIT));
        let (read, aside) = read(&[sent.as_bytes()], 4096);
        assert_eq!((read.len(), aside), (sent.len(), FirstLine::default()));
    }
}
