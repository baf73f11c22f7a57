//! The bytes below hyper: the ends of connections that an HTTP library does not let its user choose.
//!
//! uvicorn closes an idle connection after some seconds, closes without a word after a 500 of the application and on
//! requests it cannot read. hyper would announce the first and answer the last, so this sits between it and the socket.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// How long a closing connection still takes bytes that the client had under way, so that the answer is not lost.
const LINGER: Duration = Duration::from_secs(2);

/// What becomes of the bytes of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wire {
    /// They are written as they are; then the connection is closed when it was idle for this long.
    IdleClose(Duration),
    /// So many bytes of the head, then the end.
    CutHead(usize),
    /// The head and so many bytes of the body, then the end.
    CutBody(usize),
    /// The head so many bytes at a time, with a pause before each.
    DripHead(usize, Duration),
    /// The body so many bytes at a time, with a pause before each.
    DripBody(usize, Duration),
    /// These instead, then the end.
    Replaced(Vec<u8>),
    /// Another `content-length`, by so much.
    Announced(i64),
}

/// What happens on a connection, shared between its service and its bytes.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    state: AtomicU8,
    /// For the answer of [`ON_WIRE`], and whether the connection closes after it.
    wire: Mutex<Option<(Wire, bool)>>,
}

/// No request is being worked on: whatever hyper wants to say is its own refusal of garbage.
const QUIET: u8 = 0;
const WORKING: u8 = 1;
/// hyper has the answer, and writes all of it before it flushes.
const ANSWERED: u8 = 2;
const ANSWERED_THEN_HANG_UP: u8 = 3;
const ANSWERED_THEN_LINGER: u8 = 4;
const CLOSED: u8 = 5;
/// An answer without a foreseeable end is under way.
const STREAMING: u8 = 6;
/// hyper has the answer, whose bytes are held until it flushes.
const ON_WIRE: u8 = 7;

impl Phase {
    /// Whether nothing is being answered.
    pub(crate) fn is_quiet(&self) -> bool {
        self.state.load(Ordering::Acquire) == QUIET
    }

    /// Whether the answer under way has no foreseeable end, or is not meant to come soon.
    pub(crate) fn is_slow(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), STREAMING | ON_WIRE)
    }

    pub(crate) fn request_began(&self) {
        self.state.store(WORKING, Ordering::Release);
    }

    pub(crate) fn answered(&self) {
        self.state.store(ANSWERED, Ordering::Release);
    }

    /// The answer comes in pieces, and its end is the connection's.
    pub(crate) fn streams(&self) {
        self.state.store(STREAMING, Ordering::Release);
    }

    /// The answer is not written as it is.
    pub(crate) fn answered_on_wire(&self, wire: Wire, then_hang_up: bool) {
        *self.wire.lock().unwrap_or_else(PoisonError::into_inner) = Some((wire, then_hang_up));
        self.state.store(ON_WIRE, Ordering::Release);
    }

    fn take_wire(&self) -> Option<(Wire, bool)> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The connection closes once the answer is written.
    pub(crate) fn answered_then_hang_up(&self) {
        self.state.store(ANSWERED_THEN_HANG_UP, Ordering::Release);
    }

    /// The answer says that the connection closes, but a body is still coming.
    pub(crate) fn answered_then_linger(&self) {
        self.state.store(ANSWERED_THEN_LINGER, Ordering::Release);
    }
}

/// A socket under hyper's server.
pub(crate) struct Connection<S> {
    socket: S,
    phase: Arc<Phase>,
    idle_limit: Option<Duration>,
    /// Runs from an answer to the first byte of the next request.
    idle: Option<Pin<Box<Sleep>>>,
    linger: Option<Pin<Box<Sleep>>>,
    /// Of an answer on the wire, until all of it is here.
    held: Vec<u8>,
    script: Option<Script>,
}

impl<S> Connection<S> {
    pub(crate) fn new(socket: S, phase: Arc<Phase>, idle_limit: Option<Duration>) -> Self {
        Self { socket, phase, idle_limit, idle: None, linger: None, held: Vec::new(), script: None }
    }

    fn phase(&self) -> u8 {
        self.phase.state.load(Ordering::Acquire)
    }

    /// The answer is written, and the client may take its time.
    fn rest(&mut self, limit: Option<Duration>, cx: &mut Context<'_>) {
        self.phase.state.store(QUIET, Ordering::Release);
        self.idle = limit.map(|limit| Box::pin(tokio::time::sleep(limit)));
        if let Some(idle) = &mut self.idle {
            // Nobody polls for reading before something happens, and this may be the only thing that does.
            let _ = idle.as_mut().poll(cx);
        }
    }
}

impl<S: AsyncWrite + Unpin> Connection<S> {
    /// Writes what is held back, at its pace. An error ends the connection.
    fn poll_script(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(script) = &mut self.script else { return Poll::Ready(Ok(())) };
        ready!(script.poll(&mut self.socket, cx))?;
        if script.ends {
            return self.poll_hang_up(cx);
        }
        let limit = script.idle_limit.or(self.idle_limit);
        self.script = None;
        if self.phase() == ON_WIRE {
            self.rest(limit, cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
        self.phase.state.store(CLOSED, Ordering::Release);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "closed after an error")))
    }
}

/// The bytes of an answer, and how they are written.
#[derive(Debug)]
struct Script {
    bytes: Vec<u8>,
    head: usize,
    /// Bytes at a time in the head and in the body, with a pause before each.
    pace: [Option<(usize, Duration)>; 2],
    /// Whether the connection is closed after it.
    ends: bool,
    idle_limit: Option<Duration>,
    sent: usize,
    /// How far it may be written before the next pause.
    allowed: usize,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Script {
    fn new(mut bytes: Vec<u8>, wire: Wire, hang_up: bool) -> Self {
        let head_of =
            |bytes: &[u8]| bytes.windows(4).position(|w| w == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        let mut head = head_of(&bytes);
        let (mut pace, mut ends, mut idle_limit) = ([None, None], hang_up, None);
        match wire {
            Wire::IdleClose(limit) => idle_limit = Some(limit),
            Wire::CutHead(after) => {
                bytes.truncate(after.min(head));
                ends = true;
            }
            Wire::CutBody(after) => {
                bytes.truncate(head.saturating_add(after));
                ends = true;
            }
            Wire::DripHead(piece, pause) => pace = [Some((piece, pause)), None],
            Wire::DripBody(piece, pause) => pace = [None, Some((piece, pause))],
            Wire::Replaced(other) => {
                bytes = other;
                ends = true;
            }
            Wire::Announced(by) => {
                bytes = announced(&bytes, head, by);
                head = head_of(&bytes);
            }
        }
        Self { bytes, head, pace, ends, idle_limit, sent: 0, allowed: 0, pause: None }
    }

    fn poll<S: AsyncWrite + Unpin>(&mut self, socket: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while let Some(rest) = self.bytes.get(self.sent..self.allowed).filter(|rest| !rest.is_empty()) {
                match ready!(Pin::new(&mut *socket).poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    written => self.sent += written,
                }
            }
            ready!(Pin::new(&mut *socket).poll_flush(cx))?;
            if self.sent >= self.bytes.len() {
                return Poll::Ready(Ok(()));
            }
            let [in_head, in_body] = self.pace;
            let (pace, end) =
                if self.sent < self.head { (in_head, self.head) } else { (in_body, self.bytes.len()) };
            if let Some((_, pause)) = pace {
                let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let piece = pace.map_or(usize::MAX, |(piece, _)| piece);
            self.allowed = self.sent.saturating_add(piece).min(end).min(self.bytes.len());
        }
    }
}

/// The same answer with another `content-length`.
fn announced(answer: &[u8], head: usize, by: i64) -> Vec<u8> {
    const NAME: &[u8] = b"\r\ncontent-length: ";
    let (head, body) = answer.split_at(head.min(answer.len()));
    let Some(at) = head.windows(NAME.len()).position(|w| w == NAME) else { return answer.to_vec() };
    let (before, after) = head.split_at(at + NAME.len());
    let digits = after.iter().take_while(|b| b.is_ascii_digit()).count();
    let (digits, after) = after.split_at(digits);
    let length: i64 = core::str::from_utf8(digits).ok().and_then(|d| d.parse().ok()).unwrap_or(0);
    let length = length.saturating_add(by).max(0).to_string();
    [before, length.as_bytes(), after, body].concat()
}

/// A TCP connection that can end by a reset.
pub(crate) struct Tcp {
    stream: TcpStream,
    resets: Arc<AtomicBool>,
}

impl Tcp {
    /// The end is a reset if `resets` is true by then.
    pub(crate) const fn new(stream: TcpStream, resets: Arc<AtomicBool>) -> Self {
        Self { stream, resets }
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        if self.resets.load(Ordering::Acquire) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match Pin::new(&mut this.socket).poll_read(cx, buf) {
            Poll::Ready(result) => {
                this.idle = None;
                Poll::Ready(result)
            }
            Poll::Pending => match &mut this.idle {
                // An end of file lets hyper close a connection between requests without a word.
                Some(idle) => idle.as_mut().poll(cx).map(Ok),
                None => Poll::Pending,
            },
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_script(cx))?;
        match self.phase() {
            QUIET | CLOSED => Poll::Ready(Ok(buf.len())),
            ON_WIRE => {
                self.held.extend_from_slice(buf);
                Poll::Ready(Ok(buf.len()))
            }
            _ => Pin::new(&mut self.socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_script(cx))?;
        match self.phase() {
            QUIET | CLOSED => Poll::Ready(Ok(bufs.iter().map(|b| b.len()).sum())),
            ON_WIRE => {
                for buf in bufs {
                    self.held.extend_from_slice(buf);
                }
                Poll::Ready(Ok(bufs.iter().map(|b| b.len()).sum()))
            }
            _ => Pin::new(&mut self.socket).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.script.is_none()
            && this.phase() == ON_WIRE
            && !this.held.is_empty()
            && let Some((wire, hang_up)) = this.phase.take_wire()
        {
            this.script = Some(Script::new(core::mem::take(&mut this.held), wire, hang_up));
        }
        ready!(this.poll_script(cx))?;
        ready!(Pin::new(&mut this.socket).poll_flush(cx))?;
        match this.phase() {
            ANSWERED => {
                this.rest(this.idle_limit, cx);
                Poll::Ready(Ok(()))
            }
            ANSWERED_THEN_HANG_UP => this.poll_hang_up(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
        if this.phase() != ANSWERED_THEN_LINGER {
            return Poll::Ready(Ok(()));
        }
        // To close a socket with unread bytes resets the connection, and the client might not get to read the answer.
        let linger = this.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut sink = [0; 8192];
        loop {
            let mut buf = ReadBuf::new(&mut sink);
            match Pin::new(&mut this.socket).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return linger.as_mut().poll(cx).map(Ok),
            }
        }
    }
}
