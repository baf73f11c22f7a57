//! A scripted TCP server on loopback and small helpers: what a test needs to see a client misbehave or not.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grafolean_std::http::{Endpoint, HttpClient, HttpConfig, HttpError, Method, Request, Response, Target};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A token that no output may ever show.
pub const TOKEN: &str = "5a1be0a5-97a1-4a7f-9d3c-0c8f3a52c111";

/// Nothing in a test may take longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Fails the test if `future` is not ready in time.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// A request as it came over the wire.
#[derive(Debug, Clone)]
pub struct Received {
    /// Number of the connection, from 1.
    pub connection: usize,
    pub head: String,
    pub body: Vec<u8>,
}

impl Received {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    /// All values of a header field.
    pub fn field(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
            .collect()
    }
}

#[derive(Default)]
pub struct Seen {
    pub received: Mutex<Vec<Received>>,
    pub accepted: AtomicUsize,
    pub open: AtomicUsize,
    pub most_open: AtomicUsize,
}

impl Seen {
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub fn most_open(&self) -> usize {
        self.most_open.load(Ordering::SeqCst)
    }

    /// The connection numbers of all requests, in order.
    pub fn connections(&self) -> Vec<usize> {
        self.received().iter().map(|r| r.connection).collect()
    }
}

/// The server's end of one connection.
pub struct Peer<S> {
    pub stream: S,
    pub number: usize,
    pub seen: Arc<Seen>,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub fn new(stream: S, number: usize, seen: Arc<Seen>) -> Self {
        Self { stream, number, seen, buffer: Vec::new() }
    }

    /// The next request, recorded; none at the end of the connection.
    pub async fn request(&mut self) -> Option<Received> {
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8(self.buffer.drain(..head_end).collect()).unwrap();
        let mut received = Received { connection: self.number, head, body: Vec::new() };
        let length: usize = received.field("content-length").first().map_or(0, |v| v.parse().unwrap());
        while self.buffer.len() < length {
            self.more().await?;
        }
        received.body = self.buffer.drain(..length).collect();
        self.seen.received.lock().unwrap().push(received.clone());
        Some(received)
    }

    async fn more(&mut self) -> Option<()> {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk).await {
            Ok(0) | Err(_) => None,
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                Some(())
            }
        }
    }

    /// Sends bytes; whether the client still takes them.
    pub async fn send(&mut self, text: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(text.as_ref()).await.is_ok() && self.stream.flush().await.is_ok()
    }

    pub async fn answer(&mut self, status: u16, body: &str) -> bool {
        self.send(answer(status, body)).await
    }

    /// Stays until the client closes the connection, reading nothing of worth.
    pub async fn until_closed(&mut self) {
        while self.more().await.is_some() {}
    }

    /// Answers every request with 200 and `body`.
    pub async fn serve(&mut self, body: &str) {
        while self.request().await.is_some() {
            self.answer(200, body).await;
        }
    }
}

pub fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A listening server; it ends with this value.
pub struct Server {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Runs `script` for each connection.
    pub async fn start<F, R>(script: F) -> Self
    where
        F: Fn(Peer<TcpStream>) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = shared.accepted.fetch_add(1, Ordering::SeqCst) + 1;
                let open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
                shared.most_open.fetch_max(open, Ordering::SeqCst);
                let run = script(Peer::new(stream, number, Arc::clone(&shared)));
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    run.await;
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, seen, task }
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint { https: false, host: self.address.ip().to_string(), port: self.address.port() }
    }

    pub fn client(&self, config: HttpConfig) -> HttpClient {
        HttpClient::new(self.endpoint(), config).unwrap()
    }
}

/// Limits that no correct exchange on loopback comes near, so that a loaded machine fails no test.
pub fn generous() -> HttpConfig {
    HttpConfig {
        slot_limit: PATIENCE * 2,
        connect_limit: PATIENCE * 2,
        head_limit: PATIENCE * 2,
        silence_limit: PATIENCE * 2,
        post_reuse_limit: PATIENCE * 2,
        rate_window: PATIENCE * 2,
        idle_limit: PATIENCE * 4,
        ..HttpConfig::default()
    }
}

pub fn target() -> Target {
    Target::new(format!("/api/accounts/?b={TOKEN}")).unwrap()
}

pub fn get() -> Request {
    Request::new(Method::Get, target())
}

pub fn post() -> Request {
    Request::new(Method::Post, target()).with_body("[{\"p\":\"a\",\"v\":1}]")
}

pub fn put() -> Request {
    Request::new(Method::Put, target()).with_body("[{\"p\":\"a\",\"v\":1,\"t\":5}]")
}

pub async fn send(client: &HttpClient, request: Request) -> Result<Response, HttpError> {
    soon("an answer or an error", client.send(request)).await
}

/// Status and whole body.
pub async fn fetch(client: &HttpClient, request: Request) -> Result<(u16, Vec<u8>), HttpError> {
    let mut response = send(client, request).await?;
    let body = soon("the end of the body", response.bytes()).await?;
    Ok((response.status(), body))
}
