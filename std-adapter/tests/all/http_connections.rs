//! How the HTTP client uses its connections again, repeats, evicts and closes, seen from a server on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::http_support::*;
use grafolean_std::http::{HttpConfig, HttpErrorKind, Method, Phase, Request, Target};
use tokio::sync::Semaphore;

#[tokio::test]
async fn requests_one_after_another_share_a_connection() {
    let server = Server::start(|mut peer| async move { peer.serve("hello").await }).await;
    let client = server.client(generous());
    for request in [get(), put(), post(), Request::new(Method::Delete, target()), post(), get()] {
        assert_eq!(fetch(&client, request).await.unwrap(), (200, b"hello".to_vec()));
    }
    assert_eq!(server.seen.connections(), [1; 6]);
    assert_eq!(client.idle_connections(), 1);
}

#[tokio::test]
async fn the_request_has_exactly_the_fields_that_the_backend_needs() {
    let server = Server::start(|mut peer| async move { peer.serve("").await }).await;
    let client = server.client(generous());
    fetch(&client, get()).await.unwrap();
    fetch(&client, put()).await.unwrap();
    let received = server.seen.received();

    let names = |i: usize| {
        let mut names: Vec<String> = received[i]
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .map(|(name, _)| name.to_lowercase())
            .collect();
        names.sort();
        names
    };
    assert_eq!(received[0].line(), format!("GET /api/accounts/?b={TOKEN} HTTP/1.1"));
    assert_eq!(names(0), ["accept", "host", "user-agent"]);
    assert_eq!(received[0].field("host"), [server.address.to_string()]);
    assert_eq!(received[0].field("accept"), ["application/json"]);
    assert_eq!(received[0].field("user-agent"), [concat!("grafolean-std/", env!("CARGO_PKG_VERSION"))]);

    assert_eq!(received[1].line(), format!("PUT /api/accounts/?b={TOKEN} HTTP/1.1"));
    assert_eq!(names(1), ["accept", "content-length", "content-type", "host", "user-agent"]);
    assert_eq!(received[1].field("content-type"), ["application/json"]);
    assert_eq!(received[1].body, b"[{\"p\":\"a\",\"v\":1,\"t\":5}]");
}

#[tokio::test]
async fn an_empty_and_an_absent_body_are_told_apart() {
    let server = Server::start(|mut peer| async move { peer.serve("").await }).await;
    let client = server.client(generous());
    fetch(&client, Request::new(Method::Put, target()).with_body("")).await.unwrap();
    fetch(&client, Request::new(Method::Delete, target())).await.unwrap();
    let received = server.seen.received();
    assert_eq!(received[0].field("content-length"), ["0"]);
    assert_eq!(received[0].field("content-type"), ["application/json"]);
    assert!(received[1].field("content-type").is_empty());
}

#[tokio::test]
async fn an_answer_without_a_body_frees_its_connection_at_once() {
    let server = Server::start(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    let client = server.client(HttpConfig { max_connections: 1, ..generous() });
    let first = send(&client, put()).await.unwrap();
    // The first answer is still held, unread.
    let second = send(&client, post()).await.unwrap();
    assert_eq!((first.status(), second.status()), (204, 204));
    assert_eq!(server.seen.connections(), [1, 1]);
}

#[tokio::test]
async fn a_post_takes_a_connection_only_within_three_seconds_of_its_last_use() {
    let server = Server::start(|mut peer| async move { peer.serve("").await }).await;
    let client =
        server.client(HttpConfig { post_reuse_limit: HttpConfig::default().post_reuse_limit, ..generous() });
    let pass = async |time: Duration| {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    };
    fetch(&client, get()).await.unwrap();
    fetch(&client, post()).await.unwrap();
    assert_eq!(server.seen.connections(), [1, 1], "a fresh one is used by a POST");
    pass(Duration::from_secs(3)).await;
    fetch(&client, post()).await.unwrap();
    assert_eq!(server.seen.connections(), [1, 1, 2], "an old one isn't");
    pass(Duration::from_secs(3)).await;
    fetch(&client, put()).await.unwrap();
    assert_eq!(server.seen.connections(), [1, 1, 2, 2], "a PUT takes an old one");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_the_idle_limit() {
    let server = Server::start(|mut peer| async move { peer.serve("").await }).await;
    let client = server.client(HttpConfig { idle_limit: HttpConfig::default().idle_limit, ..generous() });
    fetch(&client, get()).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    until("the server sees the end", || server.seen.open() == 0).await;
    assert_eq!(client.idle_connections(), 0);
    fetch(&client, get()).await.unwrap();
    assert_eq!(server.seen.connections(), [1, 2]);
    assert_eq!(client.idle_connections(), 1);
}

#[tokio::test]
async fn connections_are_closed_when_the_last_client_goes() {
    let server = Server::start(|mut peer| async move { peer.serve("").await }).await;
    let client = server.client(generous());
    let copy = client.clone();
    fetch(&client, get()).await.unwrap();
    drop(client);
    fetch(&copy, get()).await.unwrap();
    assert_eq!(server.seen.connections(), [1, 1]);
    drop(copy);
    until("the server sees the end", || server.seen.open() == 0).await;
}

#[tokio::test]
async fn a_get_on_a_connection_closed_silently_is_repeated_once_on_a_new_one() {
    for request in [get(), put(), Request::new(Method::Delete, target())] {
        let server = Server::start(|mut peer| async move {
            peer.request().await;
            peer.answer(200, "x").await;
            if peer.number == 1 {
                // Takes the next request and closes without a word.
                peer.request().await;
            } else {
                peer.serve("y").await;
            }
        })
        .await;
        let client = server.client(generous());
        fetch(&client, get()).await.unwrap();
        assert_eq!(fetch(&client, request).await.unwrap(), (200, b"x".to_vec()));
        assert_eq!(server.seen.connections(), [1, 1, 2]);
    }
}

#[tokio::test]
async fn a_get_is_not_repeated_twice() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        if peer.number == 1 {
            peer.answer(200, "x").await;
            peer.request().await;
        }
    })
    .await;
    let client = server.client(generous());
    fetch(&client, get()).await.unwrap();
    let error = fetch(&client, get()).await.unwrap_err();
    assert_eq!(error.kind(), &HttpErrorKind::Closed { bytes: 0 });
    assert!(error.maybe_processed());
    assert_eq!(server.seen.connections(), [1, 1, 2]);
}

#[tokio::test]
async fn a_post_whose_answer_is_lost_is_not_repeated_and_counts_as_possibly_processed() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.answer(200, "x").await;
        peer.request().await;
    })
    .await;
    let client = server.client(generous());
    fetch(&client, get()).await.unwrap();
    let error = fetch(&client, post()).await.unwrap_err();
    assert_eq!(error.kind(), &HttpErrorKind::Closed { bytes: 0 });
    assert!(error.maybe_processed());
    assert_eq!(server.seen.connections(), [1, 1]);
}

#[tokio::test]
async fn a_get_cut_within_its_answer_is_not_repeated() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.answer(200, "x").await;
        peer.request().await;
        peer.send("HTTP/1.1 200").await;
    })
    .await;
    let client = server.client(generous());
    fetch(&client, get()).await.unwrap();
    let error = fetch(&client, get()).await.unwrap_err();
    assert_eq!(error.kind(), &HttpErrorKind::Closed { bytes: 12 });
    assert_eq!(server.seen.connections(), [1, 1]);
}

#[tokio::test]
async fn a_get_on_a_new_connection_that_is_closed_is_not_repeated() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
    })
    .await;
    let client = server.client(generous());
    let error = fetch(&client, get()).await.unwrap_err();
    assert_eq!(error.kind(), &HttpErrorKind::Closed { bytes: 0 });
    assert_eq!(server.seen.connections(), [1]);
}

#[tokio::test]
async fn a_connection_closed_by_the_server_while_idle_is_noticed() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.answer(200, "x").await;
    })
    .await;
    let client = server.client(generous());
    fetch(&client, get()).await.unwrap();
    until("the client notices", || client.idle_connections() == 0).await;
    // A POST isn't repeated, so it only succeeds if it takes a new connection right away.
    fetch(&client, post()).await.unwrap();
    assert_eq!(server.seen.connections(), [1, 2]);
}

#[tokio::test]
async fn after_a_500_the_client_closes_the_connection() {
    let server = Server::start(|mut peer| async move {
        while peer.request().await.is_some() {
            // Keeps the connection open and silent as far as it is concerned.
            peer.answer(if peer.number == 1 { 500 } else { 200 }, "body").await;
        }
    })
    .await;
    let client = server.client(generous());
    assert_eq!(fetch(&client, get()).await.unwrap().0, 500);
    until("the server sees the end", || server.seen.open() == 0).await;
    assert_eq!(fetch(&client, post()).await.unwrap().0, 200);
    assert_eq!(server.seen.connections(), [1, 2]);
}

#[tokio::test]
async fn after_connection_close_the_client_closes_the_connection() {
    let server = Server::start(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx").await;
        }
    })
    .await;
    let client = server.client(generous());
    for _ in 0..3 {
        assert_eq!(fetch(&client, post()).await.unwrap(), (200, b"x".to_vec()));
        assert_eq!(client.idle_connections(), 0);
    }
    until("the server sees the end", || server.seen.open() == 0).await;
    assert_eq!(server.seen.connections(), [1, 2, 3]);
}

#[tokio::test]
async fn other_refusals_keep_the_connection() {
    let server = Server::start(|mut peer| async move {
        let mut statuses = [400, 401, 403, 404, 405, 422, 429, 503].into_iter();
        while peer.request().await.is_some() {
            peer.answer(statuses.next().unwrap_or(200), "no").await;
        }
    })
    .await;
    let client = server.client(generous());
    for status in [400, 401, 403, 404, 405, 422, 429, 503, 200] {
        assert_eq!(fetch(&client, post()).await.unwrap().0, status);
    }
    assert_eq!(server.seen.accepted(), 1);
}

#[tokio::test]
async fn an_answer_dropped_before_its_end_closes_the_connection() {
    let server = Server::start(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await;
            peer.send(vec![b'x'; 1000]).await;
            peer.until_closed().await;
        }
    })
    .await;
    let client = server.client(HttpConfig { max_connections: 1, ..generous() });
    let request = || get().with_body_limit(1 << 20);
    let mut response = send(&client, request()).await.unwrap();
    assert!(soon("a chunk", response.chunk()).await.unwrap().is_some());
    drop(response);
    until("the server sees the end", || server.seen.open() == 0).await;
    // Its place is free again.
    drop(send(&client, request()).await.unwrap());
    assert_eq!(server.seen.connections(), [1, 2]);
}

#[tokio::test]
async fn a_request_dropped_before_its_answer_closes_the_connection() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.until_closed().await;
    })
    .await;
    let client = server.client(HttpConfig { max_connections: 1, ..generous() });
    for n in 1..=3 {
        tokio::select! {
            result = client.send(get()) => panic!("answered: {result:?}"),
            () = until("the server has the request", || server.seen.received().len() == n) => {}
        }
        until("the server sees the end", || server.seen.open() == 0).await;
    }
}

#[tokio::test]
async fn no_more_connections_are_open_than_allowed() {
    let server = Server::start(|mut peer| async move { peer.serve("hello").await }).await;
    let client = server.client(HttpConfig { max_connections: 3, ..generous() });
    let tasks: Vec<_> = (0..60)
        .map(|i| {
            let client = client.clone();
            tokio::spawn(async move { fetch(&client, if i % 2 == 0 { get() } else { post() }).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().0, 200);
    }
    assert_eq!(server.seen.received().len(), 60);
    assert_eq!(server.seen.accepted(), 3);
    assert!(server.seen.most_open() <= 3);
}

#[tokio::test]
async fn with_all_connections_taken_a_request_waits_for_its_turn_and_no_longer_than_allowed() {
    static GATE: Semaphore = Semaphore::const_new(0);
    let server = Server::start(|mut peer| async move {
        while peer.request().await.is_some() {
            let _pass = GATE.acquire().await;
            peer.answer(200, "x").await;
        }
    })
    .await;
    let limit = Duration::from_millis(50);
    let client = server.client(HttpConfig { max_connections: 1, slot_limit: limit, ..generous() });
    let first = tokio::spawn({
        let client = client.clone();
        async move { fetch(&client, get()).await }
    });
    until("the first is under way", || server.seen.received().len() == 1).await;
    let error = fetch(&client, get()).await.unwrap_err();
    assert_eq!(error.kind(), &HttpErrorKind::Timeout { phase: Phase::Slot, limit });
    assert!(!error.maybe_processed());
    assert!(error.to_string().contains("50ms"), "{error}");
    GATE.add_permits(1);
    first.await.unwrap().unwrap();
    fetch(&client, get()).await.unwrap();
    assert_eq!(server.seen.connections(), [1, 1]);
}

#[tokio::test]
async fn a_post_that_may_not_take_the_only_idle_connection_evicts_it() {
    let server = Server::start(|mut peer| async move { peer.serve("x").await }).await;
    let config = HttpConfig { max_connections: 1, post_reuse_limit: Duration::ZERO, ..generous() };
    let client = server.client(config);
    fetch(&client, get()).await.unwrap();
    for _ in 0..5 {
        fetch(&client, post()).await.unwrap();
    }
    fetch(&client, get()).await.unwrap();
    assert_eq!(server.seen.connections(), [1, 2, 3, 4, 5, 6, 6]);
    until("only one is left", || server.seen.open() == 1).await;
}

#[tokio::test]
async fn a_client_outlives_the_runtime_that_opened_its_connections() {
    let server = Server::start(|mut peer| async move { peer.serve("x").await }).await;
    let client = server.client(generous());
    for n in 1..=2 {
        let client = client.clone();
        let done = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(fetch(&client, get())).unwrap().0
        });
        assert_eq!(done.await.unwrap(), 200);
        until("its connection is closed", || server.seen.open() == 0).await;
        assert_eq!(server.seen.accepted(), n);
    }
    fetch(&client, get()).await.unwrap();
    fetch(&client, post()).await.unwrap();
    assert_eq!(server.seen.connections(), [1, 2, 3, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_requests_at_once_get_their_own_answers_on_several_threads() {
    let server = Server::start(|mut peer| async move {
        while let Some(received) = peer.request().await {
            let path = received.line().split(' ').nth(1).unwrap().to_owned();
            peer.answer(200, &path.repeat(2000)).await;
        }
    })
    .await;
    let client = server.client(generous());
    let right = std::sync::Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let (client, right) = (client.clone(), right.clone());
            tokio::spawn(async move {
                let path = format!("/{i}");
                let request = Request::new(Method::Get, Target::new(path.clone()).unwrap());
                let (status, body) = fetch(&client, request).await.unwrap();
                assert_eq!((status, body), (200, path.repeat(2000).into_bytes()));
                right.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(right.load(Ordering::SeqCst), 200);
    assert!(server.seen.most_open() <= 4);
}
