//! HTTP over a server in memory, on simulated time.

use grafolean_embassy::Transport;
use grafolean_embassy::core::api::{BaseUrl, Method};
use grafolean_embassy::core::collector::RequestError::{Lost, NotSent};
use grafolean_embassy::http::{Http, HttpSetupError, LEAST_BUFFER, Limits};

use crate::requests::{End, List, Outcome, Request, TOKEN, get, request};
use crate::support::{now_ms, simulate};
use crate::wire::{Act, Answer, Arrived, Wire, send};

const URL: &str = "http://grafolean.lan:8080/api";

fn perform_with(wire: &Wire<'_>, limits: Limits, requests: &[Request]) -> Vec<Outcome> {
    let mut buf = [0; LEAST_BUFFER];
    let mut http = Http::new(wire, BaseUrl::parse(URL).unwrap(), &mut buf, limits).unwrap();
    assert!(!format!("{http:?}").contains(&TOKEN[..8]));
    let list = List::new(requests);
    simulate(3600, http.serve(&list));
    list.outcomes.take()
}

fn perform(wire: &Wire<'_>, requests: &[Request]) -> Vec<Outcome> {
    perform_with(wire, Limits::DEFAULT, requests)
}

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[test]
fn a_request_has_what_the_backend_wants_and_no_more() {
    let answer = |_: &Arrived| vec![send("HTTP/1.1 204 No Content\r\n\r\n")];
    let wire = Wire::new(&answer);
    let body = br#"[{"p":"a","v":1}]"#;
    let outcomes = perform(&wire, &[request(Method::Put, body), get()]);
    assert_eq!(outcomes[0].answer(), (204, ""));
    let arrived = wire.arrived.borrow();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        arrived[0].head,
        format!(
            "PUT /api/accounts/1/values/?b={TOKEN} HTTP/1.1\r\nHost: grafolean.lan:8080\r\n\
             User-Agent: grafolean-embassy/{version}\r\nContent-Type: application/json\r\nContent-Length: 17"
        )
    );
    assert_eq!(arrived[0].body, body);
    assert_eq!(
        arrived[1].head,
        format!(
            "GET /api/accounts/?b={TOKEN} HTTP/1.1\r\nHost: grafolean.lan:8080\r\n\
             User-Agent: grafolean-embassy/{version}"
        )
    );
    assert_eq!((wire.connections.get(), wire.closed.get()), (1, 1));
}

#[test]
fn a_body_much_longer_than_the_buffer_goes_out_whole() {
    let answer = |_: &Arrived| vec![send("HTTP/1.1 204 No Content\r\n\r\n")];
    let wire = Wire::new(&answer);
    let body: Vec<u8> = (0..100_000u32).map(|n| b'a' + (n % 26) as u8).collect();
    let outcomes = perform(&wire, &[request(Method::Post, &body)]);
    assert_eq!(outcomes[0].answer(), (204, ""));
    assert_eq!(wire.arrived.borrow()[0].body, body);
}

#[test]
fn a_bodys_end_is_found_by_length_by_chunks_and_by_the_connections_end() {
    let answer = |a: &Arrived| match a.connection {
        0 if a.head.starts_with("GET") => vec![
            send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            send("4\r\nhell\r\n1\r\no\r\n0\r\n\r\n"),
        ],
        0 => vec![send(HELLO)],
        _ => vec![send("HTTP/1.1 200 OK\r\n\r\nhel"), Act::Pause(5_000), send("lo"), Act::Close],
    };
    for piece in [1, 2, 3, 7, 50, 1000] {
        let wire = Wire { piece, ..Wire::new(&answer) };
        let mut last = get();
        last.after_ms = 100_000;
        let outcomes = perform(&wire, &[get(), request(Method::Delete, b""), last]);
        assert!(outcomes.iter().all(|o| o.answer() == (200, "hello")), "{outcomes:?}");
        // The idle limit has passed before the last.
        assert_eq!((wire.connections.get(), wire.closed.get()), (2, 2));
    }
}

#[test]
fn head_fields_reach_the_collector() {
    let answer = |_: &Arrived| {
        vec![send(
            "HTTP/1.1 429 Slow\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: 7\r\ncontent-length: 0\r\n\r\n",
        )]
    };
    let head = perform(&Wire::new(&answer), &[get()])[0].head.unwrap();
    assert_eq!((head.status, head.date_unix_s, head.retry_after_ms), (429, Some(784_111_777), Some(7_000)));
}

/// The server closes each connection after one answer, without a word.
fn closes_after_one(a: &Arrived) -> Vec<Act> {
    let first = a.connection == 0;
    vec![send(if first { HELLO } else { "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond" }), Act::Close]
}

#[test]
fn a_request_that_finds_its_connection_closed_is_repeated_once_whole() {
    for method in [Method::Get, Method::Put, Method::Delete] {
        let wire = Wire::new(&closes_after_one);
        let body: &[u8] = if method == Method::Put { b"[1,2,3]" } else { b"" };
        let outcomes = perform(&wire, &[get(), request(method, body)]);
        assert_eq!(outcomes[1].answer(), (200, "second"), "{method:?}");
        let arrived = wire.arrived.borrow();
        assert_eq!(arrived.last().unwrap().body, body);
        assert_eq!(wire.connections.get(), 2);
    }
}

#[test]
fn a_post_that_finds_its_connection_closed_is_lost_and_not_repeated() {
    let wire = Wire::new(&closes_after_one);
    let outcomes = perform(&wire, &[get(), request(Method::Post, b"[1]")]);
    assert_eq!(outcomes[1].failure(), (Lost, "connection closed before the end of the answer"));
    assert_eq!(wire.connections.get(), 1);
}

#[test]
fn a_post_takes_a_fresh_connection_unless_the_old_one_was_used_a_moment_ago() {
    let answer = |_: &Arrived| vec![send(HELLO)];
    for (pause, connections) in [(2_900, 1), (3_000, 2)] {
        let wire = Wire::new(&answer);
        let mut post = request(Method::Post, b"[1]");
        post.after_ms = pause;
        let outcomes = perform(&wire, &[get(), post]);
        assert_eq!(outcomes[1].answer(), (200, "hello"));
        assert_eq!(wire.connections.get(), connections);
        assert_eq!(wire.closed.get(), connections);
    }
}

#[test]
fn a_request_whose_fresh_connection_closes_too_is_lost() {
    let answer =
        |a: &Arrived| if a.connection == 0 { vec![send(HELLO), Act::Close] } else { vec![Act::Break] };
    let wire = Wire::new(&answer);
    let outcomes = perform(&wire, &[get(), get(), get()]);
    assert_eq!(outcomes[1].failure(), (Lost, "connection broke: ConnectionReset"));
    assert_eq!(outcomes[2].failure(), (Lost, "connection broke: ConnectionReset"));
    // One for the first, one for the repeated second, one for the third, which is not repeated: its connection was new.
    assert_eq!(wire.connections.get(), 3);
}

#[test]
fn a_repeated_request_that_gets_no_connection_may_have_arrived() {
    let wire = Wire { refused_after: 1, ..Wire::new(&closes_after_one) };
    let outcomes = perform(&wire, &[get(), get(), get()]);
    assert_eq!(outcomes[1].failure(), (Lost, "no connection: ConnectionRefused"));
    assert_eq!(outcomes[2].failure(), (NotSent, "no connection: ConnectionRefused"));
    let wire = Wire { write_breaks_after: Some(60), write_breaks_from: 1, ..Wire::new(&closes_after_one) };
    let outcomes = perform(&wire, &[get(), get(), get()]);
    assert_eq!(outcomes[1].failure(), (Lost, "connection broke: ConnectionReset"));
    assert_eq!(outcomes[2].failure(), (NotSent, "connection broke: ConnectionReset"));
}

#[test]
fn a_request_cut_off_within_its_head_was_not_sent() {
    let answer = |_: &Arrived| vec![];
    let wire = Wire { write_breaks_after: Some(60), ..Wire::new(&answer) };
    let outcomes = perform(&wire, &[request(Method::Post, b"[1]")]);
    assert_eq!(outcomes[0].failure(), (NotSent, "connection broke: ConnectionReset"));
    let wire = Wire { write_breaks_after: Some(300), ..Wire::new(&answer) };
    let limits = Limits { head_ms: 100, ..Limits::DEFAULT };
    let outcomes = perform_with(&wire, limits, &[request(Method::Post, &[b'1'; 500])]);
    assert_eq!(outcomes[0].failure(), (Lost, "connection broke: ConnectionReset"));
}

#[test]
fn an_answer_that_came_before_the_requests_end_counts() {
    let answer = |_: &Arrived| vec![send("HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")];
    let wire = Wire { write_breaks_after: Some(1_000), ..Wire::new(&answer) };
    let outcomes = perform(&wire, &[request(Method::Put, &[b'1'; 5_000]), request(Method::Post, b"[1]")]);
    assert_eq!(outcomes[0].answer(), (413, "big"));
    // Its connection is not used again: the POST would be lost.
    assert_eq!(outcomes[1].answer(), (413, "big"));
    assert_eq!(wire.connections.get(), 2);
}

#[test]
fn an_incomplete_answer_never_looks_like_a_complete_one() {
    let whole = [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ];
    for text in whole {
        for end in 1..text.len() {
            let answer = |_: &Arrived| vec![send(&text[..end]), Act::Close];
            let wire = Wire::new(&answer);
            let outcomes = perform(&wire, &[get()]);
            assert_eq!(
                outcomes[0].failure(),
                (Lost, "connection closed before the end of the answer"),
                "{end}"
            );
        }
    }
}

#[test]
fn an_answer_that_is_cut_off_is_not_asked_for_again() {
    let answer = |a: &Arrived| {
        let first = a.head.starts_with("DELETE");
        vec![
            send(if first { HELLO } else { "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello" }),
            Act::Pause(1),
            if first { Act::Pause(1) } else { Act::Close },
        ]
    };
    let wire = Wire::new(&answer);
    let outcomes = perform(&wire, &[request(Method::Delete, b""), get()]);
    assert_eq!(outcomes[1].failure().0, Lost);
    assert_eq!((outcomes[1].text(), wire.connections.get()), ("hello", 1));
}

#[test]
fn every_step_has_a_limit_that_the_error_names() {
    let nothing = |_: &Arrived| vec![];
    let half_a_head =
        |_: &Arrived| vec![send("HTTP/1.1 200 OK\r\nx: "), Act::Pause(20_000), send("y"), Act::Pause(60_000)];
    let half_a_body = |_: &Arrived| vec![send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello")];
    let cases: [(&Answer<'_>, u64, &str, u64); 4] = [
        (&nothing, 20_000, "no connection within 10000 ms", 10_000),
        (&nothing, 0, "no answer within 30000 ms", 30_000),
        (&half_a_head, 0, "no answer within 30000 ms", 30_000),
        (&half_a_body, 0, "the answer went silent within 30000 ms", 30_000),
    ];
    for (answer, connect_ms, why, at_ms) in cases {
        let start = now_ms();
        let wire = Wire { connect_ms, ..Wire::new(answer) };
        let outcomes = perform(&wire, &[get()]);
        let error = if connect_ms > 0 { NotSent } else { Lost };
        assert_eq!(outcomes[0].failure(), (error, why));
        assert_eq!(now_ms() - start, at_ms, "{why}");
    }
}

#[test]
fn a_request_that_timed_out_is_not_repeated() {
    let answer = |a: &Arrived| if a.head.starts_with("DELETE") { vec![send(HELLO)] } else { vec![] };
    let wire = Wire { connect_ms: 0, ..Wire::new(&answer) };
    let outcomes = perform(&wire, &[request(Method::Delete, b""), get()]);
    assert_eq!(outcomes[1].failure(), (Lost, "no answer within 30000 ms"));
    assert_eq!(wire.connections.get(), 1);
}

#[test]
fn an_answer_that_drips_is_ended() {
    let answer = |_: &Arrived| {
        let mut acts = vec![send("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")];
        (0..1000).for_each(|_| acts.extend([Act::Pause(1_000), send("x")]));
        acts
    };
    let wire = Wire::new(&answer);
    let outcomes = perform(&wire, &[get()]);
    assert_eq!(outcomes[0].failure(), (Lost, "the answer comes at 1 bytes/s, slower than 64 bytes/s"));
}

#[test]
fn limits_of_heads_are_named() {
    let long =
        |_: &Arrived| vec![send("HTTP/1.1 200 OK\r\n"), Act::Send(b"x: y\r\n".repeat(5_000)), send("\r\n")];
    let line =
        |_: &Arrived| vec![send("HTTP/1.1 200 OK\r\ndate: "), Act::Send(vec![b'x'; 200]), send("\r\n\r\n")];
    let failure = perform(&Wire::new(&long), &[get()]);
    assert_eq!(failure[0].failure(), (Lost, "head of the answer longer than 16384 bytes"));
    let failure = perform(&Wire::new(&line), &[get()]);
    assert_eq!(failure[0].failure(), (Lost, "line in the head of the answer longer than 128 bytes"));
}

#[test]
fn a_server_that_speaks_tls_is_recognised_by_its_first_byte() {
    let alert = |_: &Arrived| vec![Act::Send(vec![0x15, 3, 1, 0, 2, 2, 70])];
    let failure = perform(&Wire::new(&alert), &[get()]);
    let why = "the answer is not HTTP: status line (is it http or https that the server speaks?)";
    assert_eq!(failure[0].failure(), (Lost, why));
}

#[test]
fn a_connection_is_not_used_again_after_a_500_nor_if_something_follows_the_answer() {
    let broken = |_: &Arrived| vec![send("HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno")];
    let wire = Wire::new(&broken);
    assert_eq!(perform(&wire, &[get(), get()])[1].answer(), (500, "no"));
    assert_eq!(wire.connections.get(), 2);
    let more = |_: &Arrived| vec![send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n")];
    let wire = Wire { piece: 200, ..Wire::new(&more) };
    assert_eq!(perform(&wire, &[get(), get()])[1].answer(), (200, "ok"));
    assert_eq!(wire.connections.get(), 2);
}

#[test]
fn a_request_that_is_over_gives_its_connection_up_at_any_step() {
    let nothing = |_: &Arrived| vec![];
    let slow =
        |_: &Arrived| vec![send("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhello"), Act::Pause(20_000)];
    let cases: [(&Answer<'_>, u64); 3] = [(&nothing, 5_000), (&nothing, 0), (&slow, 0)];
    for (answer, connect_ms) in cases {
        let start = now_ms();
        let wire = Wire { connect_ms, ..Wire::new(answer) };
        let mut request = get();
        request.over_after_ms = Some(2_000);
        let outcomes = perform(&wire, &[request.clone(), request]);
        assert!(outcomes.iter().all(|o| o.end == End::GivenUp), "{outcomes:?}");
        assert_eq!(now_ms() - start, 4_000);
    }
}

#[test]
fn an_answer_that_is_unwanted_closes_its_connection() {
    let answer = |_: &Arrived| vec![send(HELLO)];
    let wire = Wire { piece: 1, ..Wire::new(&answer) };
    let mut enough = get();
    enough.enough = 2;
    let outcomes = perform(&wire, &[enough, get()]);
    assert_eq!((outcomes[0].text(), &outcomes[0].end), ("he", &End::GivenUp));
    assert_eq!(outcomes[1].answer(), (200, "hello"));
    assert_eq!(wire.connections.get(), 2);
}

#[test]
fn https_never_goes_plain_and_a_small_buffer_is_refused() {
    let answer = |_: &Arrived| vec![];
    let wire = Wire::new(&answer);
    let (mut buf, limits) = ([0; LEAST_BUFFER], Limits::DEFAULT);
    let https = BaseUrl::parse("https://grafolean.lan/api").unwrap();
    let error = Http::new(&wire, https, &mut buf, limits).unwrap_err();
    assert_eq!(error, HttpSetupError::NeedsTls);
    let http = BaseUrl::parse(URL).unwrap();
    let error = Http::new(&wire, http, &mut buf[1..], limits).unwrap_err();
    assert_eq!(error.to_string(), "buffer of 639 bytes for HTTP, it must have at least 640");
}
