//! The bytes below hyper: the ends of connections that an HTTP library does not let its user choose.
//!
//! uvicorn closes an idle connection after some seconds, closes without a word after a 500 of the application and on
//! requests it cannot read. hyper would announce the first and answer the last, so this sits between it and the socket.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a closing connection still takes bytes that the client had under way, so that the answer is not lost.
const LINGER: Duration = Duration::from_secs(2);

/// What happens on a connection, shared between its service and its bytes.
#[derive(Debug, Default)]
pub(crate) struct Phase(AtomicU8);

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

impl Phase {
    /// Whether nothing is being answered.
    pub(crate) fn is_quiet(&self) -> bool {
        self.0.load(Ordering::Acquire) == QUIET
    }

    /// Whether the answer under way has no foreseeable end.
    pub(crate) fn is_streaming(&self) -> bool {
        self.0.load(Ordering::Acquire) == STREAMING
    }

    pub(crate) fn request_began(&self) {
        self.0.store(WORKING, Ordering::Release);
    }

    pub(crate) fn answered(&self) {
        self.0.store(ANSWERED, Ordering::Release);
    }

    /// The answer comes in pieces, and its end is the connection's.
    pub(crate) fn streams(&self) {
        self.0.store(STREAMING, Ordering::Release);
    }

    /// The connection closes once the answer is written.
    pub(crate) fn answered_then_hang_up(&self) {
        self.0.store(ANSWERED_THEN_HANG_UP, Ordering::Release);
    }

    /// The answer says that the connection closes, but a body is still coming.
    pub(crate) fn answered_then_linger(&self) {
        self.0.store(ANSWERED_THEN_LINGER, Ordering::Release);
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
}

impl<S> Connection<S> {
    pub(crate) fn new(socket: S, phase: Arc<Phase>, idle_limit: Option<Duration>) -> Self {
        Self { socket, phase, idle_limit, idle: None, linger: None }
    }

    fn phase(&self) -> u8 {
        self.phase.0.load(Ordering::Acquire)
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
        match self.phase() {
            QUIET | CLOSED => Poll::Ready(Ok(buf.len())),
            _ => Pin::new(&mut self.socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.phase() {
            QUIET | CLOSED => Poll::Ready(Ok(bufs.iter().map(|b| b.len()).sum())),
            _ => Pin::new(&mut self.socket).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        match self.phase() {
            ANSWERED => {
                self.phase.0.store(QUIET, Ordering::Release);
                self.idle = self.idle_limit.map(|limit| Box::pin(tokio::time::sleep(limit)));
                if let Some(idle) = &mut self.idle {
                    // Nobody polls for reading before something happens, and this may be the only thing that does.
                    let _ = idle.as_mut().poll(cx);
                }
                Poll::Ready(Ok(()))
            }
            ANSWERED_THEN_HANG_UP => {
                ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
                self.phase.0.store(CLOSED, Ordering::Release);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "closed after an error")))
            }
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
