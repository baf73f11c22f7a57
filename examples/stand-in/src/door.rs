//! The listening socket: it can be shut, so that connecting is refused, and opened again on the same port.
//!
//! While it is shut, the port stays bound by a socket that does not listen, so that no other program gets it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

#[derive(Default)]
pub(crate) struct Door(Mutex<State>);

#[derive(Default)]
enum State {
    /// Nothing is bound.
    #[default]
    Away,
    Open(TcpListener, SocketAddr, Handle),
    /// Bound, but not listening; the socket is missing if the port could not be kept.
    Shut(Option<TcpSocket>, SocketAddr, Handle),
}

impl Door {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Binds, and listens unless it is to be shut. Must be called on a runtime, whose the listener becomes.
    pub(crate) fn bind(&self, address: SocketAddr, shut: bool) -> io::Result<SocketAddr> {
        let socket = bound(address)?;
        let address = socket.local_addr()?;
        let handle = Handle::current();
        let state = if shut {
            State::Shut(Some(socket), address, handle)
        } else {
            State::Open(socket.listen(BACKLOG)?, address, handle)
        };
        *self.state() = state;
        Ok(address)
    }

    /// Gives the port up.
    pub(crate) fn close(&self) {
        *self.state() = State::Away;
    }

    /// Stops listening. Returns whether it did listen.
    pub(crate) fn shut(&self) -> bool {
        let mut state = self.state();
        let (address, handle) = match core::mem::take(&mut *state) {
            State::Open(listener, address, handle) => {
                // The listener has to go first: two sockets cannot have the port while one listens.
                drop(listener);
                (address, handle)
            }
            other => {
                *state = other;
                return false;
            }
        };
        let socket = bound(address);
        if let Err(error) = &socket {
            tracing::warn!(%address, %error, "the port is free for others while connections are refused");
        }
        *state = State::Shut(socket.ok(), address, handle);
        true
    }

    /// Listens again if it was shut.
    ///
    /// # Errors
    /// The port was lost; it stays shut.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        let mut state = self.state();
        let (socket, address, handle) = match core::mem::take(&mut *state) {
            State::Shut(socket, address, handle) => (socket, address, handle),
            other => {
                *state = other;
                return Ok(());
            }
        };
        let listener = {
            let _runtime = handle.enter();
            socket.map_or_else(|| bound(address), Ok).and_then(|socket| socket.listen(BACKLOG))
        };
        match listener {
            Ok(listener) => {
                *state = State::Open(listener, address, handle);
                Ok(())
            }
            Err(error) => {
                *state = State::Shut(None, address, handle);
                Err(error)
            }
        }
    }

    /// The next connection. While it is shut there is none, and nobody is woken when it opens.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        match &*self.state() {
            State::Open(listener, ..) => listener.poll_accept(cx).map_ok(|(socket, _)| socket),
            State::Away | State::Shut(..) => Poll::Pending,
        }
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Elsewhere this would let two programs listen on one port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
