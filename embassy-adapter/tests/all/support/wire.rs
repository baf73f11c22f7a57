//! A server in memory: what it answers to a request is a function of it. Runs on simulated time.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::pending;

use embassy_time::Timer;
use embedded_io_async::{ErrorKind, ErrorType, Read, Write};
use grafolean_embassy::http::{ConnectError, Connector};

/// What the server does, in order.
#[derive(Clone, Debug)]
pub enum Act {
    Send(Vec<u8>),
    /// Nothing for so many milliseconds.
    Pause(u64),
    /// The connection ends.
    Close,
    /// The connection breaks.
    Break,
}

pub fn send(text: &str) -> Act {
    Act::Send(text.as_bytes().to_vec())
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub connection: usize,
    pub head: String,
    pub body: Vec<u8>,
}

pub type Answer<'a> = dyn Fn(&Arrived) -> Vec<Act> + 'a;

pub struct Wire<'a> {
    pub answer: &'a Answer<'a>,
    pub arrived: RefCell<Vec<Arrived>>,
    pub connections: Cell<usize>,
    /// Connections that were closed in an orderly way.
    pub closed: Cell<usize>,
    /// How many bytes a read gives and a write takes at most.
    pub piece: usize,
    /// Writes fail after so many bytes.
    pub write_breaks_after: Option<usize>,
    /// Of this connection and later ones.
    pub write_breaks_from: usize,
    /// Connecting takes so many milliseconds.
    pub connect_ms: u64,
    /// Connections after so many are refused.
    pub refused_after: usize,
}

impl<'a> Wire<'a> {
    pub fn new(answer: &'a Answer<'a>) -> Self {
        Wire {
            answer,
            arrived: RefCell::default(),
            connections: Cell::new(0),
            closed: Cell::new(0),
            piece: 50,
            write_breaks_after: None,
            write_breaks_from: 0,
            connect_ms: 30,
            refused_after: usize::MAX,
        }
    }

    pub fn heads(&self) -> Vec<String> {
        self.arrived.borrow().iter().map(|a| a.head.lines().next().unwrap().to_string()).collect()
    }
}

pub struct End<'a, 'w> {
    wire: &'a Wire<'w>,
    connection: usize,
    input: Vec<u8>,
    written: usize,
    acts: VecDeque<Act>,
}

#[derive(Debug)]
pub struct Broken;
impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken")
    }
}
impl std::error::Error for Broken {}
impl embedded_io_async::Error for Broken {
    fn kind(&self) -> ErrorKind {
        ErrorKind::ConnectionReset
    }
}

impl ErrorType for End<'_, '_> {
    type Error = Broken;
}

impl Read for End<'_, '_> {
    async fn read(&mut self, buf: &mut [u8]) -> Result<usize, Broken> {
        loop {
            match self.acts.front_mut() {
                None => pending().await,
                Some(Act::Close) => return Ok(0),
                Some(Act::Break) => return Err(Broken),
                Some(Act::Pause(ms)) => {
                    Timer::after_millis(*ms).await;
                    self.acts.pop_front();
                }
                Some(Act::Send(bytes)) if bytes.is_empty() => {
                    self.acts.pop_front();
                }
                Some(Act::Send(bytes)) => {
                    let n = bytes.len().min(buf.len()).min(self.wire.piece);
                    buf[..n].copy_from_slice(&bytes[..n]);
                    bytes.drain(..n);
                    return Ok(n);
                }
            }
        }
    }
}

impl Write for End<'_, '_> {
    async fn write(&mut self, buf: &[u8]) -> Result<usize, Broken> {
        let breaks = self.wire.write_breaks_after.filter(|_| self.connection >= self.wire.write_breaks_from);
        let room = breaks.map_or(usize::MAX, |n| n - self.written.min(n));
        if room == 0 {
            return Err(Broken);
        }
        let n = buf.len().min(self.wire.piece).min(room);
        self.written += n;
        self.input.extend_from_slice(&buf[..n]);
        let Some(end) = self.input.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(n) };
        let head = String::from_utf8(self.input[..end].to_vec()).unwrap();
        let len =
            head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).map_or(0, |l| l.parse().unwrap());
        let early = breaks.is_some();
        if early || self.input.len() >= end + 4 + len {
            let to = self.input.len().min(end + 4 + len);
            let body = self.input[end + 4..to].to_vec();
            if !early || self.acts.is_empty() {
                let arrived = Arrived { connection: self.connection, head, body };
                self.acts.extend((self.wire.answer)(&arrived));
                self.wire.arrived.borrow_mut().push(arrived);
            }
            if !early {
                self.input.drain(..to);
            }
        }
        Ok(n)
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        Ok(())
    }
}

impl<'w> Connector for &Wire<'w> {
    type Stream<'a>
        = End<'a, 'w>
    where
        Self: 'a;

    const TLS: bool = false;

    async fn connect(&mut self, host: &str, port: u16) -> Result<End<'_, 'w>, ConnectError> {
        assert_eq!((host, port), ("grafolean.lan", 8080));
        Timer::after_millis(self.connect_ms).await;
        let connection = self.connections.get();
        if connection >= self.refused_after {
            return Err(ConnectError::Connect(ErrorKind::ConnectionRefused));
        }
        self.connections.set(connection + 1);
        Ok(End { wire: self, connection, input: Vec::new(), written: 0, acts: VecDeque::new() })
    }

    async fn close<'a>(stream: End<'a, 'w>)
    where
        Self: 'a,
    {
        stream.wire.closed.set(stream.wire.closed.get() + 1);
    }
}
