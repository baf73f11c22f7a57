//! Sockets of this machine for `embedded-nal-async`.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::future::poll_fn;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::task::Poll;

use embedded_io_async::{ErrorKind, ErrorType, Read, Write};
use embedded_nal_async::TcpConnect;

#[derive(Debug)]
pub struct IoError(io::ErrorKind);

impl std::fmt::Display for IoError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for IoError {}

impl embedded_io_async::Error for IoError {
    fn kind(&self) -> ErrorKind {
        match self.0 {
            io::ErrorKind::ConnectionRefused => ErrorKind::ConnectionRefused,
            io::ErrorKind::ConnectionReset => ErrorKind::ConnectionReset,
            io::ErrorKind::BrokenPipe => ErrorKind::BrokenPipe,
            _ => ErrorKind::Other,
        }
    }
}

/// A socket that does not wait: it is asked again each time the executor comes round.
pub struct Socket(TcpStream);

async fn asked<R>(mut ask: impl FnMut() -> io::Result<R>) -> Result<R, IoError> {
    poll_fn(|_| match ask() {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result.map_err(|e| IoError(e.kind()))),
    })
    .await
}

impl ErrorType for Socket {
    type Error = IoError;
}

impl Read for Socket {
    async fn read(&mut self, buf: &mut [u8]) -> Result<usize, IoError> {
        asked(|| self.0.read(buf)).await
    }
}

impl Write for Socket {
    async fn write(&mut self, buf: &[u8]) -> Result<usize, IoError> {
        asked(|| self.0.write(buf)).await
    }
    async fn flush(&mut self) -> Result<(), IoError> {
        asked(|| self.0.flush()).await
    }
}

/// This machine's TCP.
pub struct Host;

impl TcpConnect for Host {
    type Error = IoError;
    type Connection<'a> = Socket;
    async fn connect(&self, remote: SocketAddr) -> Result<Socket, IoError> {
        let stream = TcpStream::connect(remote).map_err(|e| IoError(e.kind()))?;
        stream.set_nonblocking(true).map_err(|e| IoError(e.kind()))?;
        Ok(Socket(stream))
    }
}
