//! What the HTTP client makes of servers that are away, slow, silent, rude or wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::time::Duration;

use crate::http_support::*;
use bytes::Bytes;
use grafolean_std::http::{
    Endpoint, HttpClient, HttpConfig, HttpErrorKind, Method, Part, Phase, Request, SetupError,
};

/// Short enough not to be waited for in vain, where its passing is what the test expects.
const SHORT: Duration = Duration::from_millis(100);

/// A server that sends `text` to each request and then keeps the connection open and silent.
async fn sends(text: impl Into<Vec<u8>>) -> Server {
    let text: Vec<u8> = text.into();
    Server::start(move |mut peer| {
        let text = text.clone();
        async move {
            if peer.request().await.is_some() {
                peer.send(&text).await;
                peer.until_closed().await;
            }
        }
    })
    .await
}

/// The same, but it closes the connection behind the text.
async fn sends_and_closes(text: &'static str) -> Server {
    Server::start(move |mut peer| async move {
        if peer.request().await.is_some() {
            peer.send(text).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_refused_connection_is_told_with_host_and_port() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let endpoint = Endpoint { https: false, host: "127.0.0.1".to_owned(), port };
    let client = HttpClient::new(endpoint, generous()).unwrap();
    for request in [get(), post()] {
        let error = fetch(&client, request).await.unwrap_err();
        assert!(matches!(error.kind(), HttpErrorKind::Connect { addresses: 1, .. }), "{error:?}");
        assert!(!error.maybe_processed());
        assert!(error.to_string().starts_with(&format!("http://127.0.0.1:{port}: ")), "{error}");
    }
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_told() {
    let endpoint = Endpoint { https: false, host: "nowhere.invalid".to_owned(), port: 80 };
    let config = HttpConfig { connect_limit: Duration::from_secs(5), ..generous() };
    let client = HttpClient::new(endpoint, config).unwrap();
    let error = fetch(&client, post()).await.unwrap_err();
    // A resolver that nobody answers may keep silent for longer than the limit.
    assert!(
        matches!(
            error.kind(),
            HttpErrorKind::Resolve { .. } | HttpErrorKind::Timeout { phase: Phase::Resolve, .. }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("nowhere.invalid:80"), "{error}");
    assert!(!error.maybe_processed());
}

#[tokio::test]
async fn a_host_name_is_tried_at_all_its_addresses() {
    // The server listens on IPv4 only; where localhost has an IPv6 address too, that one is refused.
    let server = Server::start(|mut peer| async move { peer.serve("x").await }).await;
    let endpoint = Endpoint { host: "localhost".to_owned(), ..server.endpoint() };
    let client = HttpClient::new(endpoint, generous()).unwrap();
    assert_eq!(fetch(&client, get()).await.unwrap().0, 200);
    let host = format!("localhost:{}", server.address.port());
    assert_eq!(server.seen.received()[0].field("host"), [host]);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_after_the_head_limit() {
    let server = sends("").await;
    let client = server.client(HttpConfig { head_limit: SHORT, ..generous() });
    for request in [get(), post()] {
        let error = fetch(&client, request).await.unwrap_err();
        assert_eq!(error.kind(), &HttpErrorKind::Timeout { phase: Phase::Head, limit: SHORT });
        assert!(error.maybe_processed());
        assert!(error.to_string().contains("100ms"), "{error}");
    }
    // A time-out is no stale connection: nothing was repeated.
    assert_eq!(server.seen.connections(), [1, 2]);
    until("the connections are closed", || server.seen.open() == 0).await;
}

#[tokio::test]
async fn a_head_that_drips_for_ever_is_given_up_after_the_head_limit() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\n").await;
        while peer.send("x").await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let client = server.client(HttpConfig { head_limit: SHORT, ..generous() });
    let error = fetch(&client, get()).await.unwrap_err();
    assert_eq!(error.kind(), &HttpErrorKind::Timeout { phase: Phase::Head, limit: SHORT });
}

#[tokio::test]
async fn interim_answers_for_ever_are_given_up_after_the_head_limit() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        while peer.send("HTTP/1.1 100 Continue\r\n\r\n").await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let client = server.client(HttpConfig { head_limit: SHORT, ..generous() });
    let error = fetch(&client, get()).await.unwrap_err();
    assert_eq!(error.kind(), &HttpErrorKind::Timeout { phase: Phase::Head, limit: SHORT });
}

#[tokio::test]
async fn interim_answers_are_skipped() {
    let server = sends(format!(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{}",
        answer(201, "made")
    ))
    .await;
    let client = server.client(generous());
    assert_eq!(fetch(&client, post()).await.unwrap(), (201, b"made".to_vec()));
}

#[tokio::test]
async fn a_body_that_goes_silent_is_given_up_and_never_looks_complete() {
    let server = sends("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n12345").await;
    let client = server.client(HttpConfig { silence_limit: SHORT, ..generous() });
    let mut response = send(&client, get()).await.unwrap();
    assert_eq!(response.content_length(), Some(100));
    assert_eq!(soon("a chunk", response.chunk()).await.unwrap(), Some(Bytes::from("12345")));
    let error = soon("an error", response.chunk()).await.unwrap_err();
    assert_eq!(error.kind(), &HttpErrorKind::Timeout { phase: Phase::Body, limit: SHORT });
    assert!(error.maybe_processed());
    assert_eq!(soon("the same error", response.chunk()).await.unwrap_err(), error);
    until("the connection is closed", || server.seen.open() == 0).await;
}

#[tokio::test]
async fn the_silence_limit_counts_on_when_the_waiting_is_dropped_and_taken_up_again() {
    let server = sends("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n").await;
    let client = server.client(HttpConfig { silence_limit: SHORT * 3, ..generous() });
    let mut response = send(&client, get()).await.unwrap();
    let error = soon("an error in spite of the interruptions", async {
        loop {
            if let Ok(result) = tokio::time::timeout(SHORT / 5, response.chunk()).await {
                break result.unwrap_err();
            }
        }
    })
    .await;
    assert_eq!(error.kind(), &HttpErrorKind::Timeout { phase: Phase::Body, limit: SHORT * 3 });
}

#[tokio::test]
async fn a_dropped_wait_for_a_chunk_loses_nothing() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n").await;
        for i in 0..100 {
            peer.send(format!("{i:05}")).await;
            tokio::task::yield_now().await;
        }
        peer.until_closed().await;
    })
    .await;
    let client = server.client(generous());
    let mut response = send(&client, get()).await.unwrap();
    let mut all = Vec::new();
    soon("the end", async {
        loop {
            // The timer has passed already, so that the wait is dropped whenever no data is there.
            match tokio::time::timeout(Duration::ZERO, response.chunk()).await {
                Ok(chunk) => match chunk.unwrap() {
                    Some(chunk) => all.extend_from_slice(&chunk),
                    None => break,
                },
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    let expected: String = (0..100).map(|i| format!("{i:05}")).collect();
    assert_eq!(String::from_utf8(all).unwrap(), expected);
}

#[tokio::test]
async fn a_body_that_drips_is_too_slow() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
        while peer.send("x").await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let config = HttpConfig { rate_window: SHORT, min_rate: 100_000, ..generous() };
    let client = server.client(config);
    let mut response = send(&client, get().with_body_limit(1 << 20)).await.unwrap();
    let error = soon("an error", response.bytes()).await.unwrap_err();
    match error.kind() {
        HttpErrorKind::TooSlow { rate, limit: 100_000 } => assert!(*rate < 100_000),
        other => panic!("{other:?}"),
    }
    assert!(error.to_string().contains("100000 bytes/s"), "{error}");
}

#[tokio::test]
async fn a_slow_reader_of_a_fast_answer_is_not_taken_for_a_slow_server() {
    let server = sends(answer(200, &"x".repeat(60_000))).await;
    // Any waiting at all would be too slow.
    let config = HttpConfig { rate_window: PATIENCE, min_rate: 1 << 40, silence_limit: SHORT, ..generous() };
    let client = server.client(config);
    let mut response = send(&client, get()).await.unwrap();
    let mut length = 0;
    while let Some(chunk) = soon("a chunk", response.chunk()).await.unwrap() {
        length += chunk.len();
        // Longer than the silence that the server is allowed.
        tokio::time::pause();
        tokio::time::advance(SHORT * 2).await;
        tokio::time::resume();
    }
    assert_eq!(length, 60_000);
}

#[tokio::test]
async fn a_cut_body_is_an_error_whatever_its_framing() {
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\n12345",
    ] {
        let server = sends_and_closes(text).await;
        let client = server.client(generous());
        let error = fetch(&client, get()).await.unwrap_err();
        assert_eq!(error.kind(), &HttpErrorKind::Closed { bytes: text.len() as u64 }, "{text}");
        assert!(error.maybe_processed());
        assert_eq!(client.idle_connections(), 0);
    }
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_read_and_the_connection_not_kept() {
    let server = sends_and_closes("HTTP/1.0 200 OK\r\n\r\nhello").await;
    let client = server.client(generous());
    for _ in 0..2 {
        assert_eq!(fetch(&client, post()).await.unwrap(), (200, b"hello".to_vec()));
    }
    assert_eq!(server.seen.connections(), [1, 2]);
}

#[tokio::test]
async fn chunked_bodies_with_trailers_are_read() {
    let server = sends(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nx-t: 1\r\n\r\n",
    )
    .await;
    let client = server.client(generous());
    assert_eq!(fetch(&client, get()).await.unwrap(), (200, b"abcde".to_vec()));
}

#[tokio::test]
async fn a_bad_chunk_length_is_a_protocol_error() {
    let server = sends("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n").await;
    let client = server.client(generous());
    let error = fetch(&client, get()).await.unwrap_err();
    assert!(matches!(error.kind(), HttpErrorKind::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn a_connection_closed_right_after_the_request_leaves_it_open_whether_it_was_processed() {
    let server = sends_and_closes("").await;
    let client = server.client(generous());
    for request in [post(), put(), get()] {
        let error = fetch(&client, request).await.unwrap_err();
        assert_eq!(error.kind(), &HttpErrorKind::Closed { bytes: 0 });
        assert!(error.maybe_processed());
        assert!(error.to_string().contains("may have been carried out"), "{error}");
    }
    assert_eq!(server.seen.accepted(), 3);
}

#[tokio::test]
async fn garbage_is_a_protocol_error_that_does_not_repeat_what_came() {
    for text in ["\0\x01\x02 garbage\r\n\r\n", "HTTP/9.9 200 OK\r\n\r\n", "<html>hello</html>\r\n\r\n"] {
        let server = sends(text).await;
        let client = server.client(generous());
        let error = fetch(&client, get()).await.unwrap_err();
        assert!(matches!(error.kind(), HttpErrorKind::Protocol { tls_server: false, .. }), "{error:?}");
        assert!(!error.to_string().contains("garbage") && !error.to_string().contains("hello"));
        assert_eq!(server.seen.accepted(), 1);
    }
}

#[tokio::test]
async fn a_head_too_long_or_with_too_many_fields_is_refused() {
    let head = |bytes: usize| {
        let rest = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: \r\n\r\n".len();
        format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: {}\r\n\r\n", "y".repeat(bytes - rest))
    };
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(101));
    let server = sends(head(32_768)).await;
    assert_eq!(fetch(&server.client(generous()), get()).await.unwrap().0, 200);
    for text in [head(32_769), head(1_000_000), many] {
        let server = sends(text).await;
        let client = server.client(generous());
        let error = fetch(&client, get()).await.unwrap_err();
        assert_eq!(error.kind(), &HttpErrorKind::TooLong { part: Part::Head, limit: 32_768 });
        assert!(error.to_string().contains("32768"), "{error}");
    }
}

#[tokio::test]
async fn a_body_too_long_is_refused_but_its_status_is_known() {
    let announced = answer(503, &"x".repeat(101));
    let chunked = "HTTP/1.1 503 X\r\ntransfer-encoding: chunked\r\n\r\n32\r\n".to_owned()
        + &"x".repeat(50)
        + "\r\n33\r\n"
        + &"x".repeat(51)
        + "\r\n0\r\n\r\n";
    for text in [announced, chunked] {
        let server = sends(text).await;
        let client = server.client(generous());
        let mut response = send(&client, get().with_body_limit(100)).await.unwrap();
        assert_eq!(response.status(), 503);
        let error = soon("an error", response.bytes()).await.unwrap_err();
        assert_eq!(error.kind(), &HttpErrorKind::TooLong { part: Part::Body, limit: 100 });
        assert!(error.to_string().contains("100 bytes"), "{error}");
        until("the connection is closed", || server.seen.open() == 0).await;
    }
    let server = sends(answer(200, &"x".repeat(100))).await;
    let client = server.client(generous());
    assert_eq!(fetch(&client, get().with_body_limit(100)).await.unwrap().1.len(), 100);
}

/// More than the buffers of both sockets take on loopback.
fn large_put() -> Request {
    Request::new(Method::Put, target()).with_body(vec![b' '; 64 << 20])
}

#[tokio::test]
async fn a_server_that_does_not_read_the_request_is_given_up_and_cannot_have_processed_it() {
    let server = Server::start(|peer| async move {
        // Keeps the connection, reads nothing.
        let _peer = peer;
        std::future::pending::<()>().await;
    })
    .await;
    let client = server.client(HttpConfig { silence_limit: SHORT, ..generous() });
    let error = send(&client, large_put()).await.unwrap_err();
    assert_eq!(error.kind(), &HttpErrorKind::Timeout { phase: Phase::Request, limit: SHORT });
    assert!(!error.maybe_processed());
}

#[tokio::test]
async fn a_server_that_reads_the_request_too_slowly_is_given_up() {
    use tokio::io::AsyncReadExt;
    let server = Server::start(|mut peer| async move {
        let mut some = [0; 1000];
        while peer.stream.read(&mut some).await.is_ok_and(|n| n > 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let config = HttpConfig { rate_window: SHORT, min_rate: 1 << 40, ..generous() };
    let client = server.client(config);
    let error = send(&client, large_put()).await.unwrap_err();
    assert!(matches!(error.kind(), HttpErrorKind::TooSlow { limit, .. } if *limit == 1 << 40), "{error:?}");
    assert!(!error.maybe_processed());
}

#[tokio::test]
async fn an_answer_before_the_whole_request_was_read_is_taken_and_the_connection_closed() {
    let server = Server::start(|mut peer| async move {
        if peer.number == 1 {
            use tokio::io::AsyncReadExt;
            let mut some = [0; 1000];
            let _ = peer.stream.read(&mut some).await;
            peer.answer(413, "too large").await;
            // Never reads the rest.
            std::future::pending::<()>().await;
        } else {
            peer.serve("x").await;
        }
    })
    .await;
    let client = server.client(generous());
    assert_eq!(fetch(&client, large_put()).await.unwrap(), (413, b"too large".to_vec()));
    // The rest of the request is still in the way of another one.
    assert_eq!(client.idle_connections(), 0);
    assert_eq!(fetch(&client, get()).await.unwrap().0, 200);
    assert_eq!(server.seen.connections(), [2]);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = sends(format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: /api/accounts?b={TOKEN}\r\ncontent-length: 0\r\n\r\n"
    ))
    .await;
    let client = server.client(generous());
    let response = send(&client, get()).await.unwrap();
    assert_eq!(response.status(), 307);
    assert!(!format!("{response:?}").contains(TOKEN));
    assert_eq!(server.seen.received().len(), 1);
}

#[tokio::test]
async fn date_and_retry_after_are_read() {
    let server = sends(
        "HTTP/1.1 503 X\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: 17\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let response = send(&server.client(generous()), get()).await.unwrap();
    assert_eq!(response.date(), Some(784_111_777));
    assert_eq!(response.retry_after(), Some(Duration::from_secs(17)));

    let server =
        sends("HTTP/1.1 503 X\r\ndate: never\r\nretry-after: soon\r\ncontent-length: 0\r\n\r\n").await;
    let response = send(&server.client(generous()), get()).await.unwrap();
    assert_eq!((response.date(), response.retry_after()), (None, None));
}

#[tokio::test]
async fn the_client_holds_a_fast_server_back_while_nobody_reads() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    const LENGTH: usize = 64 << 20;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let server = Server::start(move |mut peer| {
        let counter = Arc::clone(&counter);
        async move {
            peer.request().await;
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
            let piece = vec![b'x'; 1 << 16];
            while counter.load(Ordering::SeqCst) < LENGTH && peer.send(&piece).await {
                counter.fetch_add(piece.len(), Ordering::SeqCst);
            }
            peer.until_closed().await;
        }
    })
    .await;
    let client = server.client(generous());
    let mut response = send(&client, get().with_body_limit(LENGTH as u64)).await.unwrap();
    // Wait until the server doesn't get on.
    let mut last = usize::MAX;
    until("the server is held back", || {
        let now = sent.load(Ordering::SeqCst);
        std::mem::replace(&mut last, now) == now && now > 0
    })
    .await;
    assert!(sent.load(Ordering::SeqCst) < LENGTH, "the client took all without being read");
    let mut length = 0;
    let mut longest = 0;
    while let Some(chunk) = soon("a chunk", response.chunk()).await.unwrap() {
        longest = longest.max(chunk.len());
        length += chunk.len();
    }
    assert_eq!(length, LENGTH);
    assert!(longest <= 64 * 1024, "{longest}");
}

#[test]
fn a_useless_endpoint_or_limit_is_refused_at_once() {
    let endpoint = |host: &str, port| Endpoint { https: false, host: host.to_owned(), port };
    let new = |endpoint, config| HttpClient::new(endpoint, config).map(|_| ());
    assert!(matches!(new(endpoint("a b", 80), HttpConfig::default()), Err(SetupError::Host { .. })));
    assert_eq!(new(endpoint("a", 0), HttpConfig::default()), Err(SetupError::Port));
    let config = HttpConfig { max_connections: 2000, ..HttpConfig::default() };
    assert!(matches!(new(endpoint("a", 80), config), Err(SetupError::Limit { name: "max_connections", .. })));
}
