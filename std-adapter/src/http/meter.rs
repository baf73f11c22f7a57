//! Counts what a connection carries, so that silence, slowness and a lost answer can be told apart.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

/// What one request has moved over its connection so far, in bytes of HTTP (within TLS).
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    pub(super) written: u64,
    pub(super) read: u64,
    pub(super) last_write: Instant,
    /// The first two bytes of the answer, as far as they came.
    first: [u8; 2],
    /// How many bytes the request has at least.
    expected: u64,
    /// Nothing more may be written.
    cut: bool,
}

impl Progress {
    /// Whether the server may have got the whole request.
    pub(super) fn is_sent(&self) -> bool {
        self.written >= self.expected
    }

    /// Whether the answer begins like a TLS alert (content type 21, major version 3; RFC 8446, 5.1).
    pub(super) fn looks_like_tls(&self) -> bool {
        self.first == [21, 3]
    }
}

/// Shared between a connection's stream and the request on it.
#[derive(Debug, Clone)]
pub(super) struct Meter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    progress: Mutex<Progress>,
    sent: Notify,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared { progress: Mutex::new(Self::zero(0)), sent: Notify::new() }))
    }

    fn zero(expected: u64) -> Progress {
        let last_write = Instant::now();
        Progress { written: 0, read: 0, last_write, first: [0; 2], expected, cut: false }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts counting for the next request, which has at least `expected` bytes.
    pub(super) fn begin(&self, expected: u64) {
        *self.lock() = Self::zero(expected);
    }

    /// Waits until the request is sent. May also end early, for one sent before.
    pub(super) async fn sent(&self) {
        self.0.sent.notified().await;
    }

    pub(super) fn progress(&self) -> Progress {
        *self.lock()
    }

    /// Stops all writing; what was written until then is final.
    pub(super) fn cut(&self) -> Progress {
        let mut progress = self.lock();
        progress.cut = true;
        *progress
    }

    /// Writes and counts in one step under the lock, so that [`cut`](Self::cut) is exact.
    fn write(&self, write: impl FnOnce() -> Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let mut progress = self.lock();
        if progress.cut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let result = write();
        if let Poll::Ready(Ok(bytes)) = &result {
            let before = progress.is_sent();
            progress.written += *bytes as u64;
            if !before && progress.is_sent() {
                self.0.sent.notify_one();
            }
            progress.last_write = Instant::now();
        }
        result
    }

    fn have_read(&self, bytes: &[u8]) {
        let mut progress = self.lock();
        for (i, byte) in bytes.iter().enumerate().take(2) {
            let at = progress.read as usize + i;
            if let Some(first) = progress.first.get_mut(at) {
                *first = *byte;
            }
        }
        progress.read += bytes.len() as u64;
    }
}

/// A plain or an encrypted connection.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection whose traffic is counted.
pub(super) struct Metered {
    pub(super) wire: Wire,
    pub(super) meter: Meter,
}

impl AsyncRead for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if let Some(new) = buf.filled().get(before..)
            && !new.is_empty()
        {
            this.meter.have_read(new);
        }
        result
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wire = &mut this.wire;
        this.meter.write(|| match wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wire = &mut this.wire;
        this.meter.write(|| match wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Wire::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        })
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
