//! The bot's token is in no output, whatever goes wrong: errors, Debug of all public types, logs at TRACE.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

#[path = "all/http_support/mod.rs"]
mod http_support;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grafolean_std::http::{Endpoint, HttpClient, HttpConfig, Method, Request, Target};
use http_support::*;
use tracing_subscriber::fmt::MakeWriter;

/// Keeps all that is logged.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Capture {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// What a server does with each connection.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Hang,
    CloseAtOnce,
    CloseAfterRequest,
    Send(&'static str),
    SendAndClose(&'static str),
    /// Answers with the request it got, as error pages do, and a redirect to it.
    Echo,
    NeverRead,
}

async fn start(deed: Deed) -> Server {
    Server::start(move |mut peer| async move {
        match deed {
            Deed::CloseAtOnce => {}
            Deed::NeverRead => std::future::pending().await,
            _ => {
                while let Some(received) = peer.request().await {
                    let line = received.line().to_owned();
                    match deed {
                        Deed::Send(text) => drop(peer.send(text).await),
                        Deed::SendAndClose(text) => {
                            peer.send(text).await;
                            return;
                        }
                        Deed::Echo => {
                            peer.send(format!(
                                "HTTP/1.1 307 {TOKEN}\r\nlocation: {line}\r\nx: {TOKEN}\r\ncontent-length: {}\r\n\r\n{line}",
                                line.len()
                            ))
                            .await;
                        }
                        Deed::Hang => {}
                        _ => return,
                    }
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn the_token_is_in_no_error_no_debug_output_and_no_log() {
    let capture = Capture::default();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(capture.clone())
        .with_ansi(false)
        .init();

    let short = Duration::from_millis(50);
    let config = HttpConfig {
        connect_limit: Duration::from_secs(5),
        head_limit: short,
        silence_limit: short,
        rate_window: short,
        ..generous()
    };
    let mut shown = String::new();
    let mut faults = 0;
    let mut show = |what: &dyn std::fmt::Debug| shown.push_str(&format!("{what:?}\n{what:#?}\n"));

    let mut clients = Vec::new();
    let mut servers = Vec::new();
    for deed in [
        Deed::Hang,
        Deed::CloseAtOnce,
        Deed::CloseAfterRequest,
        Deed::NeverRead,
        Deed::Echo,
        Deed::Send("garbage\r\n\r\n"),
        Deed::Send("HTTP/1.1 500 X\r\ncontent-length: 10\r\n\r\n12345"),
        Deed::Send("HTTP/1.1 200 X\r\ncontent-length: 100000\r\n\r\n12345"),
        Deed::Send("HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
        Deed::Send("HTTP/1.1 204 X\r\n\r\nunexpected"),
        Deed::SendAndClose("HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\n12345"),
        Deed::SendAndClose("HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\n12345"),
    ] {
        let server = start(deed).await;
        clients.push(server.client(config.clone()));
        // The same over TLS, which none of them speaks.
        let endpoint = Endpoint { https: true, ..server.endpoint() };
        match HttpClient::new(endpoint, HttpConfig { connect_limit: short, ..config.clone() }) {
            Ok(client) => clients.push(client),
            // No system certificates where the test runs.
            Err(error) => show(&error),
        }
        servers.push(server);
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for (host, port) in [("127.0.0.1", port), ("nowhere.invalid", 80)] {
        let endpoint = Endpoint { https: false, host: host.to_owned(), port };
        clients.push(HttpClient::new(endpoint, config.clone()).unwrap());
    }

    for client in &clients {
        show(client);
        let large = Request::new(Method::Put, target()).with_body(vec![b' '; 16 << 20]);
        for request in [get(), get(), post(), put(), large] {
            show(&request);
            match send(client, request).await {
                Ok(mut response) => {
                    show(&response);
                    if let Err(error) = soon("the end of the body", response.bytes()).await {
                        faults += 1;
                        show(&error);
                        show(&error.to_string());
                    }
                    show(&response);
                }
                Err(error) => {
                    faults += 1;
                    show(&error);
                    show(&error.to_string());
                }
            }
        }
    }
    let bad = format!("/api?b={TOKEN}\n");
    show(&Target::new(bad).map(|_| ()).unwrap_err().to_string());
    let with_password = Endpoint { https: true, host: format!("user:{TOKEN}@host"), port: 443 };
    show(&HttpClient::new(with_password, config).map(|_| ()).unwrap_err());

    assert!(faults > 30, "only {faults} faults: this test proves little");
    assert!(shown.contains("b=<token>"), "the requests were not shown");
    assert!(!shown.contains(TOKEN), "{shown}");

    let log = String::from_utf8_lossy(&capture.0.lock().unwrap()).into_owned();
    assert!(log.contains("request failed"), "nothing was captured: {log}");
    assert!(log.contains("TRACE"), "nothing was captured at TRACE");
    assert!(!log.contains(TOKEN), "the token is in the log");
    let received: usize = servers.iter().map(|server| server.seen.received().len()).sum();
    assert!(received > 10, "the token did not travel");
}
