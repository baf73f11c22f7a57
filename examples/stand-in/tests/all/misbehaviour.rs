//! Misbehaviour on demand, over real sockets, down to the bytes where they matter.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use grafolean_stand_in::{
    Builder, Config, DateHeader, Misbehaviour, PAGE, Rule, RuleId, StandIn, Status, WrongBody,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const PING: &str = "11111111-1111-4111-8111-111111111111";

/// Nothing here takes long; whoever waits for this has failed.
const LIMIT: Duration = Duration::from_secs(20);

/// Longer than any test: who waits for its end has failed.
const LONG: Duration = Duration::from_secs(3600);

const NOW_US: i64 = 1_795_370_372_000_000;

fn demo() -> Builder {
    StandIn::builder().config(Config::demo().unwrap()).clock(|| NOW_US)
}

async fn start() -> StandIn {
    demo().start().await.unwrap()
}

async fn limited<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.expect("it did not happen in time")
}

async fn connect(stand_in: &StandIn) -> TcpStream {
    limited(TcpStream::connect(stand_in.address())).await.unwrap()
}

fn get(path: &str) -> String {
    format!("GET /api{path}?b={PING} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn with_body(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn put(body: &str) -> String {
    with_body("PUT", &format!("/api/accounts/1/values/?b={PING}"), body)
}

const ONE: &str = "[{\"p\":\"a\",\"v\":1,\"t\":1}]";

async fn send(socket: &mut (impl AsyncWrite + Unpin), request: &str) {
    limited(socket.write_all(request.as_bytes())).await.unwrap();
    limited(socket.flush()).await.unwrap();
}

/// One answer: the status line, the headers in order, the body.
#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).filter_map(|l| l.split_once(": ")).find(|(n, _)| *n == name).map(|(_, v)| v)
    }
}

async fn read_head(socket: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(limited(socket.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn read(socket: &mut (impl AsyncRead + Unpin)) -> Answer {
    let head = read_head(socket).await;
    let mut answer = Answer { head, body: String::new() };
    let length = answer.header("content-length").map_or(0, |l| l.parse().unwrap());
    let mut body = vec![0; length];
    limited(socket.read_exact(&mut body)).await.unwrap();
    answer.body = String::from_utf8(body).unwrap();
    answer
}

async fn ask(socket: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> Answer {
    send(socket, request).await;
    read(socket).await
}

/// Everything up to the end of the connection, which must not be a reset.
async fn rest(socket: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut rest = Vec::new();
    match limited(socket.read_to_end(&mut rest)).await {
        Ok(_) => {}
        // TLS without its own end.
        Err(error) => assert_eq!(error.kind(), ErrorKind::UnexpectedEof),
    }
    rest
}

/// Whether the connection still serves.
async fn serves(socket: &mut TcpStream) {
    assert_eq!(ask(socket, &get("/profile/")).await.status(), 200);
}

/// Reads until the connection is reset.
async fn is_reset(socket: &mut TcpStream) {
    let mut nothing = Vec::new();
    let error = limited(socket.read_to_end(&mut nothing)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(nothing.is_empty());
}

#[tokio::test]
async fn a_refusing_stand_in_refuses_connections_until_it_behaves_and_keeps_its_port() {
    let stand_in = start().await;
    let address = stand_in.address();
    let mut open = connect(&stand_in).await;
    serves(&mut open).await;
    for _ in 0..3 {
        let rule = stand_in.misbehave(Rule::new(Misbehaviour::Refuse)).unwrap();
        assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(rest(&mut open).await, b"", "open connections are closed, too");
        // Nobody who asks for a free port gets this one.
        assert_ne!(std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap(), address);
        assert_eq!(stand_in.misbehaved(rule), 1);
        assert!(stand_in.behave(rule));
        open = connect(&stand_in).await;
        serves(&mut open).await;
    }
    assert_eq!(stand_in.address(), address);
}

#[tokio::test]
async fn a_refusal_can_end_by_itself_and_outlives_a_restart() {
    let stand_in = start().await;
    let rule = stand_in.misbehave(Rule::new(Misbehaviour::Refuse).lasts(Duration::from_millis(50))).unwrap();
    limited(async {
        while TcpStream::connect(stand_in.address()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!stand_in.behave(rule), "it is over");
    stand_in.misbehave(Rule::new(Misbehaviour::Refuse)).unwrap();
    limited(stand_in.shutdown()).await;
    stand_in.restart().await.unwrap();
    assert!(TcpStream::connect(stand_in.address()).await.is_err());
    stand_in.behave_all();
    serves(&mut connect(&stand_in).await).await;
}

#[tokio::test]
async fn the_stand_ins_own_connections_live_through_a_refusal() {
    let stand_in = start().await;
    let mut own = connect(&stand_in).await;
    let page = "GET /stand-in/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(ask(&mut own, page).await.status(), 404);
    stand_in.misbehave(Rule::new(Misbehaviour::Refuse)).unwrap();
    assert_eq!(ask(&mut own, page).await.status(), 404);
    assert_eq!(stand_in.counters().requests, 0);
}

#[tokio::test]
async fn a_connection_can_be_reset_before_anything_is_said() {
    let stand_in = start().await;
    let rule = stand_in.misbehave(Rule::new(Misbehaviour::ResetOnConnect).skip(1).times(2)).unwrap();
    serves(&mut connect(&stand_in).await).await;
    for _ in 0..2 {
        is_reset(&mut connect(&stand_in).await).await;
    }
    serves(&mut connect(&stand_in).await).await;
    assert_eq!(stand_in.misbehaved(rule), 2);
    assert_eq!(stand_in.counters().connections, 4);
}

#[tokio::test]
async fn requests_can_end_in_a_reset_or_a_silent_close_with_nothing_done() {
    let stand_in = start().await;
    stand_in.misbehave(Rule::new(Misbehaviour::Reset).times(1)).unwrap();
    let close = stand_in.misbehave(Rule::new(Misbehaviour::Close).times(1)).unwrap();
    let mut socket = connect(&stand_in).await;
    send(&mut socket, &put(ONE)).await;
    is_reset(&mut socket).await;
    let mut socket = connect(&stand_in).await;
    send(&mut socket, &put(ONE)).await;
    assert_eq!(rest(&mut socket).await, b"");
    assert_eq!(stand_in.value_count(), 0);
    let last = stand_in.requests().pop().unwrap();
    assert_eq!((last.status, last.misbehaved, last.bot.as_deref()), (None, Some(close), Some("ping")));
}

#[tokio::test]
async fn an_answer_can_be_lost_after_the_values_are_stored() {
    let stand_in = start().await;
    stand_in.misbehave(Rule::new(Misbehaviour::CloseAfterDoing).times(1)).unwrap();
    let mut socket = connect(&stand_in).await;
    send(&mut socket, &put(ONE)).await;
    assert_eq!(rest(&mut socket).await, b"");
    assert_eq!(stand_in.values_of(1, "a"), [(1_000_000, 1.0)]);
    let last = stand_in.requests().pop().unwrap();
    assert_eq!((last.status, last.values_stored), (None, 1));
    assert_eq!(stand_in.counters().values, 1);
}

#[tokio::test]
async fn a_hanging_request_is_done_and_answered_when_the_rule_goes() {
    let stand_in = start().await;
    let rule = stand_in.misbehave(Rule::new(Misbehaviour::Hang).method("PUT")).unwrap();
    let mut socket = connect(&stand_in).await;
    send(&mut socket, &put(ONE)).await;
    limited(stand_in.wait_for(LIMIT, |s| s.misbehaved(rule) == 1)).await.unwrap();
    // Others are served meanwhile.
    serves(&mut connect(&stand_in).await).await;
    assert_eq!(stand_in.value_count(), 0);
    stand_in.behave(rule);
    assert_eq!(read(&mut socket).await.status(), 204);
    assert_eq!(stand_in.value_count(), 1);
}

#[tokio::test]
async fn an_answer_can_be_held_back_after_the_values_are_stored() {
    let stand_in = start().await;
    let rule = stand_in.misbehave(Rule::new(Misbehaviour::HangAfterDoing).lasts(LONG)).unwrap();
    let mut socket = connect(&stand_in).await;
    send(&mut socket, &put(ONE)).await;
    limited(stand_in.wait_for(LIMIT, |s| s.misbehaved(rule) == 1)).await.unwrap();
    limited(async {
        while stand_in.value_count() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut byte = [0];
    assert_eq!(socket.try_read(&mut byte).unwrap_err().kind(), ErrorKind::WouldBlock);
    stand_in.behave(rule);
    assert_eq!(read(&mut socket).await.status(), 204);
}

#[tokio::test]
async fn a_rule_that_ends_by_itself_lets_go_what_hangs_by_it() {
    let stand_in = start().await;
    stand_in.misbehave(Rule::new(Misbehaviour::Hang).lasts(Duration::from_millis(30))).unwrap();
    let mut socket = connect(&stand_in).await;
    serves(&mut socket).await;
    serves(&mut socket).await;
}

#[tokio::test]
async fn a_shutdown_waits_for_nothing_that_hangs_waits_or_drips() {
    for misbehaviour in [
        Misbehaviour::Hang,
        Misbehaviour::HangAfterDoing,
        Misbehaviour::Delay(LONG),
        Misbehaviour::Drip { bytes: 1, pause: LONG },
        Misbehaviour::DripHead { bytes: 1, pause: LONG },
    ] {
        let stand_in = start().await;
        let rule = stand_in.misbehave(Rule::new(misbehaviour.clone())).unwrap();
        let mut socket = connect(&stand_in).await;
        send(&mut socket, &get("/profile/")).await;
        limited(stand_in.wait_for(LIMIT, |s| s.misbehaved(rule) == 1)).await.unwrap();
        // Answers that are about to come are waited for, three seconds at most.
        let ends = tokio::time::timeout(Duration::from_secs(2), stand_in.shutdown()).await;
        assert!(ends.is_ok(), "{misbehaviour:?}");
        let came = rest(&mut socket).await;
        assert!(!came.ends_with(b"}"), "{misbehaviour:?}");
    }
}

#[tokio::test]
async fn a_delayed_request_is_done_after_the_delay() {
    let stand_in = start().await;
    let delay = Duration::from_millis(40);
    stand_in.misbehave(Rule::new(Misbehaviour::Delay(delay))).unwrap();
    let mut socket = connect(&stand_in).await;
    let begun = Instant::now();
    serves(&mut socket).await;
    assert!(begun.elapsed() >= delay);
    assert!(stand_in.requests()[0].took >= delay);
}

#[tokio::test]
async fn a_status_comes_with_the_words_of_those_who_say_it_and_nothing_is_done() {
    let stand_in = start().await;
    let nginx = "nginx/1.22.1";
    for (status, reason, server, content_type, body) in [
        (400, "Bad Request", "uvicorn", Some("application/json"), "{\"detail\":\"Invalid input format\"}"),
        (401, "Unauthorized", "uvicorn", None, "Access denied"),
        (403, "Forbidden", "uvicorn", None, "Access to resource denied, insufficient permissions"),
        (404, "Not Found", "uvicorn", Some("application/json"), "{\"detail\":\"Not Found\"}"),
        (
            405,
            "Method Not Allowed",
            "uvicorn",
            Some("application/json"),
            "{\"detail\":\"Method Not Allowed\"}",
        ),
        (
            502,
            "Bad Gateway",
            nginx,
            Some("text/html"),
            "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n",
        ),
        (
            504,
            "Gateway Time-out",
            nginx,
            Some("text/html"),
            "<html>\r\n<head><title>504 Gateway Time-out</title></head>\r\n<body>\r\n<center><h1>504 Gateway Time-out</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n",
        ),
    ] {
        let rule = stand_in.misbehave(Rule::new(Misbehaviour::Status(Status::new(status)))).unwrap();
        let mut socket = connect(&stand_in).await;
        let answer = ask(&mut socket, &put(ONE)).await;
        assert!(answer.head.starts_with(&format!("HTTP/1.1 {status} {reason}\r\n")), "{}", answer.head);
        assert_eq!((answer.header("server"), answer.header("content-type")), (Some(server), content_type));
        assert_eq!(answer.body, body);
        assert_eq!(answer.header("connection"), (server == nginx).then_some("keep-alive"));
        stand_in.behave(rule);
        serves(&mut socket).await;
    }
    assert_eq!(stand_in.value_count(), 0);
}

#[tokio::test]
async fn every_status_from_200_to_599_can_be_asked_for() {
    let stand_in = start().await;
    let mut socket = connect(&stand_in).await;
    for status in 200..=599 {
        let misbehaviour = Misbehaviour::Status(Status::new(status).closing(false));
        let rule = stand_in.misbehave(Rule::new(misbehaviour)).unwrap();
        assert_eq!(ask(&mut socket, &get("/profile/")).await.status(), status);
        stand_in.behave(rule);
    }
    serves(&mut socket).await;
}

#[tokio::test]
async fn a_500_closes_without_a_word_and_a_413_says_that_it_closes() {
    let stand_in = start().await;
    stand_in.misbehave(Rule::new(Misbehaviour::Status(Status::new(500))).times(1)).unwrap();
    stand_in.misbehave(Rule::new(Misbehaviour::Status(Status::new(413))).times(1)).unwrap();
    let open = Status::new(500).text("Could not validate access").closing(false);
    stand_in.misbehave(Rule::new(Misbehaviour::Status(open)).times(1)).unwrap();
    let mut socket = connect(&stand_in).await;
    let answer = ask(&mut socket, &put(ONE)).await;
    assert_eq!((answer.status(), answer.body.as_str()), (500, "Internal Server Error"));
    assert_eq!(answer.header("connection"), None);
    assert_eq!(rest(&mut socket).await, b"");
    let mut socket = connect(&stand_in).await;
    let answer = ask(&mut socket, &put(ONE)).await;
    assert!(answer.head.starts_with("HTTP/1.1 413 Request Entity Too Large\r\n"));
    assert_eq!((answer.header("connection"), answer.body.len()), (Some("close"), 183));
    socket.shutdown().await.unwrap();
    assert_eq!(rest(&mut socket).await, b"");
    let mut socket = connect(&stand_in).await;
    let answer = ask(&mut socket, &put(ONE)).await;
    assert_eq!((answer.body.as_str(), answer.header("content-type")), ("Could not validate access", None));
    serves(&mut socket).await;
}

#[tokio::test]
async fn a_status_carries_the_headers_and_the_text_that_are_asked_for() {
    let stand_in = start().await;
    let status = Status::new(429)
        .text("{}")
        .header("content-type", "application/json")
        .retry_after(30)
        .header("x-a", "b");
    stand_in.misbehave(Rule::new(Misbehaviour::Status(status))).unwrap();
    let answer = ask(&mut connect(&stand_in).await, &get("/profile/")).await;
    assert_eq!((answer.status(), answer.body.as_str()), (429, "{}"));
    assert_eq!((answer.header("retry-after"), answer.header("x-a")), (Some("30"), Some("b")));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn values_can_be_stored_and_answered_by_a_failure() {
    let stand_in = start().await;
    let rule = Rule::new(Misbehaviour::StatusAfterDoing(Status::new(500)));
    let rule = stand_in
        .misbehave(rule.method("PUT").path("/accounts/*/values").bot("ping").skip(1).times(1))
        .unwrap();
    let mut socket = connect(&stand_in).await;
    assert_eq!(ask(&mut socket, &put(ONE)).await.status(), 204);
    assert_eq!(ask(&mut socket, &get("/profile/")).await.status(), 200);
    assert_eq!(ask(&mut socket, &put("[{\"p\":\"b\",\"v\":2,\"t\":2}]")).await.status(), 500);
    assert_eq!(rest(&mut socket).await, b"", "the application's 500 closes");
    assert_eq!(stand_in.values_of(1, "b"), [(2_000_000, 2.0)]);
    assert_eq!(ask(&mut connect(&stand_in).await, &put(ONE)).await.status(), 204);
    assert_eq!(stand_in.misbehaved(rule), 1);
    let statuses: Vec<_> = stand_in.requests().iter().map(|r| (r.status.unwrap(), r.misbehaved)).collect();
    assert_eq!(statuses, [(204, None), (200, None), (500, Some(rule)), (204, None)]);
}

#[tokio::test]
async fn a_request_can_fail_after_some_of_its_pages_are_stored() {
    let stand_in = start().await;
    let values: Vec<String> = (0..350).map(|i| format!("{{\"p\":\"n{i}\",\"v\":{i},\"t\":1}}")).collect();
    let body = format!("[{}]", values.join(","));
    for (pages, stored) in [(0, 0), (1, PAGE), (3, 3 * PAGE), (9, 350)] {
        stand_in.misbehave(Rule::new(Misbehaviour::Pages(pages)).times(1)).unwrap();
        let mut socket = connect(&stand_in).await;
        assert_eq!(ask(&mut socket, &get("/profile/")).await.status(), 200, "it is only about values");
        assert_eq!(ask(&mut socket, &put(&body)).await.status(), 500);
        assert_eq!(rest(&mut socket).await, b"");
        assert_eq!(stand_in.values(1).len(), stored);
    }
    stand_in.misbehave(Rule::new(Misbehaviour::Pages(1)).times(2)).unwrap();
    let mut socket = connect(&stand_in).await;
    let bad = ask(&mut socket, &put("[{\"p\":\"a b\",\"v\":1,\"t\":1}]")).await;
    assert_eq!(bad.status(), 400, "what is refused anyway is refused as usual");
    assert_eq!(ask(&mut socket, &put("{}")).await.status(), 204);
}

#[tokio::test]
async fn a_smaller_limit_of_bodies_is_refused_as_by_the_front() {
    let stand_in = start().await;
    let limit = ONE.len();
    let rule = stand_in.misbehave(Rule::new(Misbehaviour::BodyLimit(limit)).method("PUT")).unwrap();
    let mut socket = connect(&stand_in).await;
    assert_eq!(ask(&mut socket, &put(ONE)).await.status(), 204);
    assert_eq!(stand_in.misbehaved(rule), 0);
    let answer = ask(&mut socket, &put(&format!("{ONE} "))).await;
    assert_eq!((answer.status(), answer.header("connection")), (413, Some("close")));
    socket.shutdown().await.unwrap();
    assert_eq!(rest(&mut socket).await, b"");
    assert_eq!((stand_in.misbehaved(rule), stand_in.value_count()), (1, 1));
    // The refusal does not wait for the body.
    let mut socket = connect(&stand_in).await;
    send(&mut socket, put(&" ".repeat(limit + 1)).trim_end_matches(' ')).await;
    assert_eq!(read(&mut socket).await.status(), 413);
}

#[tokio::test]
async fn what_holds_a_text_is_refused_and_everything_else_passes_and_counts_as_passed() {
    let stand_in = start().await;
    let containing = "\"b\"".to_owned();
    let answer = Status::new(400).text("Input validation failed: b");
    let rule = Rule::new(Misbehaviour::RefuseBody { containing, answer }).method("PUT").times(2);
    let rule = stand_in.misbehave(rule).unwrap();
    let mut socket = connect(&stand_in).await;
    let both = "[{\"p\":\"a\",\"v\":1,\"t\":1},{\"p\":\"b\",\"v\":1,\"t\":1}]";
    for (body, status) in [(ONE, 204), (both, 400), (ONE, 204), (both, 400), (both, 204)] {
        assert_eq!(ask(&mut socket, &put(body)).await.status(), status, "{body}");
    }
    assert_eq!((stand_in.misbehaved(rule), stand_in.value_count()), (2, 2));
    let treated: Vec<_> = stand_in.requests().iter().map(|r| r.misbehaved).collect();
    assert_eq!(treated, [None, Some(rule), None, Some(rule), None]);
    let empty = Misbehaviour::RefuseBody { containing: String::new(), answer: Status::new(400) };
    let error = stand_in.misbehave(Rule::new(empty)).unwrap_err();
    assert_eq!(error.to_string(), "`containing` must be a text of 1 to 16777216 bytes");
}

#[tokio::test]
async fn plain_http_is_refused_as_by_a_front_with_certificates_unless_the_host_is_grafolean() {
    let stand_in = start().await;
    stand_in.misbehave(Rule::new(Misbehaviour::PlainHttp)).unwrap();
    let mut socket = connect(&stand_in).await;
    let answer = ask(&mut socket, &put(ONE)).await;
    assert_eq!((answer.status(), answer.body.as_str()), (400, "Please use HTTPS!"));
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(
        (answer.header("server"), answer.header("connection")),
        (Some("nginx/1.22.1"), Some("keep-alive"))
    );
    assert_eq!(stand_in.value_count(), 0);
    let exempt = get("/profile/").replace("Host: x", "Host: grafolean");
    assert_eq!(ask(&mut socket, &exempt).await.status(), 200);
}

#[tokio::test]
async fn a_redirection_is_empty_chunked_and_points_to_the_other_slash_or_where_it_is_told() {
    let stand_in = start().await;
    stand_in.misbehave(Rule::new(Misbehaviour::Redirect { status: 307, to: None }).times(1)).unwrap();
    let to = Some("http://127.0.0.1:1/elsewhere".to_owned());
    stand_in.misbehave(Rule::new(Misbehaviour::Redirect { status: 301, to })).unwrap();
    let mut socket = connect(&stand_in).await;
    for (status, location) in
        [(307, format!("http://x/api/profile?b={PING}")), (301, "http://127.0.0.1:1/elsewhere".to_owned())]
    {
        let answer = ask(&mut socket, &get("/profile/")).await;
        assert_eq!((answer.status(), answer.header("location")), (status, Some(location.as_str())));
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        let mut end = [0; 5];
        limited(socket.read_exact(&mut end)).await.unwrap();
        assert_eq!(&end, b"0\r\n\r\n");
    }
    assert!(!format!("{:?}", stand_in.requests()).contains(PING));
}

#[tokio::test]
async fn dates_can_be_wrong_missing_or_nonsense_on_good_answers() {
    let stand_in = start().await;
    for (date, header) in [
        (DateHeader::OffsetS(-3600), Some("Sun, 22 Nov 2026 16:59:32 GMT")),
        (DateHeader::OffsetS(30_000_000_000), Some("Mon, 21 Jul 2977 23:19:32 GMT")),
        (DateHeader::Missing, None),
        (DateHeader::Text("tomorrow".to_owned()), Some("tomorrow")),
    ] {
        let rule = stand_in.misbehave(Rule::new(Misbehaviour::Date(date.clone()))).unwrap();
        let mut socket = connect(&stand_in).await;
        let answer = ask(&mut socket, &put(ONE)).await;
        assert_eq!((answer.status(), answer.header("date")), (204, header), "{date:?}");
        stand_in.behave(rule);
        assert_eq!(ask(&mut socket, &put(ONE)).await.header("date"), Some("Sun, 22 Nov 2026 17:59:32 GMT"));
    }
}

#[tokio::test]
async fn a_connection_can_be_closed_early_when_it_is_idle() {
    let stand_in = demo().keep_alive(None).start().await.unwrap();
    stand_in.misbehave(Rule::new(Misbehaviour::IdleClose(Duration::from_millis(30))).skip(1)).unwrap();
    let mut socket = connect(&stand_in).await;
    serves(&mut socket).await;
    let answer = ask(&mut socket, &get("/profile/")).await;
    assert_eq!((answer.status(), answer.header("connection")), (200, None));
    assert_eq!(rest(&mut socket).await, b"");
    // A request in time goes on.
    stand_in.behave_all();
    stand_in.misbehave(Rule::new(Misbehaviour::IdleClose(LONG)).times(1)).unwrap();
    let mut socket = connect(&stand_in).await;
    serves(&mut socket).await;
    serves(&mut socket).await;
}

/// The whole good answer to a GET of the profile, head and body.
async fn whole(stand_in: &StandIn) -> (String, String) {
    let answer = ask(&mut connect(stand_in).await, &get("/profile/")).await;
    (answer.head, answer.body)
}

#[tokio::test]
async fn an_answer_can_be_cut_anywhere() {
    let stand_in = start().await;
    let (head, body) = whole(&stand_in).await;
    for after_bytes in [0, 1, 17, head.len() - 1] {
        let rule = stand_in.misbehave(Rule::new(Misbehaviour::CutHead { after_bytes })).unwrap();
        let mut socket = connect(&stand_in).await;
        send(&mut socket, &get("/profile/")).await;
        assert_eq!(rest(&mut socket).await, head.as_bytes()[..after_bytes]);
        stand_in.behave(rule);
    }
    for after_bytes in [0, 1, body.len() - 1, body.len(), body.len() + 1] {
        let rule = stand_in.misbehave(Rule::new(Misbehaviour::CutBody { after_bytes })).unwrap();
        let mut socket = connect(&stand_in).await;
        send(&mut socket, &get("/profile/")).await;
        let all = [head.as_bytes(), body.as_bytes()].concat();
        assert_eq!(rest(&mut socket).await, all[..(head.len() + after_bytes).min(all.len())]);
        stand_in.behave(rule);
    }
}

#[tokio::test]
async fn a_cut_answer_to_values_hides_that_they_are_stored() {
    let stand_in = start().await;
    stand_in.misbehave(Rule::new(Misbehaviour::CutHead { after_bytes: 5 })).unwrap();
    let mut socket = connect(&stand_in).await;
    send(&mut socket, &put(ONE)).await;
    assert_eq!(rest(&mut socket).await, b"HTTP/");
    assert_eq!(stand_in.value_count(), 1);
}

/// The pieces in which an answer of this length comes, as far as reads tell.
async fn pieces(socket: &mut TcpStream, length: usize) -> (Vec<u8>, Vec<usize>) {
    let (mut all, mut sizes) = (Vec::new(), Vec::new());
    while all.len() < length {
        let mut buffer = [0; 4096];
        let count = limited(socket.read(&mut buffer)).await.unwrap();
        assert!(count > 0, "it ended after {} bytes", all.len());
        all.extend_from_slice(&buffer[..count]);
        sizes.push(count);
    }
    (all, sizes)
}

#[tokio::test]
async fn heads_and_bodies_can_drip() {
    let stand_in = start().await;
    let (head, body) = whole(&stand_in).await;
    let all = format!("{head}{body}");
    let pause = Duration::from_millis(1);

    let rule = stand_in.misbehave(Rule::new(Misbehaviour::Drip { bytes: 10, pause })).unwrap();
    let mut socket = connect(&stand_in).await;
    for _ in 0..2 {
        let begun = Instant::now();
        send(&mut socket, &get("/profile/")).await;
        let (came, _) = pieces(&mut socket, all.len()).await;
        assert_eq!(String::from_utf8(came).unwrap(), all);
        assert!(begun.elapsed() >= pause * u32::try_from(body.len() / 10).unwrap());
    }
    stand_in.behave(rule);

    // A pause that does not end shows where it stands.
    for (misbehaviour, before) in [
        (Misbehaviour::Drip { bytes: 7, pause: LONG }, head.len()),
        (Misbehaviour::DripHead { bytes: 7, pause: LONG }, 0),
    ] {
        let rule = stand_in.misbehave(Rule::new(misbehaviour)).unwrap();
        let mut socket = connect(&stand_in).await;
        send(&mut socket, &get("/profile/")).await;
        limited(
            stand_in.wait_for(LIMIT, |s| s.requests().last().is_some_and(|r| r.misbehaved == Some(rule))),
        )
        .await
        .unwrap();
        let (came, _) = pieces(&mut socket, before).await;
        assert_eq!(came, all.as_bytes()[..before]);
        stand_in.drop_connections();
        assert_eq!(rest(&mut socket).await, b"");
        stand_in.behave(rule);
    }

    stand_in.misbehave(Rule::new(Misbehaviour::DripHead { bytes: 20, pause })).unwrap();
    let mut socket = connect(&stand_in).await;
    let begun = Instant::now();
    send(&mut socket, &get("/profile/")).await;
    let (came, _) = pieces(&mut socket, all.len()).await;
    assert_eq!(String::from_utf8(came).unwrap(), all);
    assert!(begun.elapsed() >= pause * u32::try_from(head.len() / 20).unwrap());
    serves(&mut socket).await;
}

#[tokio::test]
async fn pipelined_requests_wait_for_an_answer_that_drips() {
    let stand_in = start().await;
    let (head, body) = whole(&stand_in).await;
    let drip = Misbehaviour::Drip { bytes: 20, pause: Duration::from_millis(2) };
    stand_in.misbehave(Rule::new(drip).times(1)).unwrap();
    let mut socket = connect(&stand_in).await;
    send(&mut socket, &(get("/profile/") + &get("/profile/") + &get("/nothing"))).await;
    let (came, _) = pieces(&mut socket, 2 * (head.len() + body.len())).await;
    assert!(String::from_utf8(came).unwrap().starts_with(&format!("{head}{body}{head}{body}")));
}

#[tokio::test]
async fn garbage_is_no_http_and_the_same_for_the_same_seed() {
    let stand_in = start().await;
    stand_in.misbehave(Rule::new(Misbehaviour::Garbage { seed: 7, bytes: 1000 })).unwrap();
    let mut all = Vec::new();
    for _ in 0..2 {
        let mut socket = connect(&stand_in).await;
        send(&mut socket, &put(ONE)).await;
        all.push(rest(&mut socket).await);
    }
    assert_eq!(all[0].len(), 1000);
    assert_eq!(all[0], all[1]);
    assert!(!all[0][0].is_ascii());
    assert_eq!(stand_in.value_count(), 0);
    assert_eq!(stand_in.requests()[0].status, None);
}

#[tokio::test]
async fn bodies_can_be_wrong_in_every_way() {
    let stand_in = start().await;
    let (head, body) = whole(&stand_in).await;
    let with = |wrong| stand_in.misbehave(Rule::new(Misbehaviour::WrongBody(wrong)).times(1)).unwrap();
    let mut socket = connect(&stand_in).await;

    with(WrongBody::Text("<html>".to_owned()));
    let answer = ask(&mut socket, &put(ONE)).await;
    assert_eq!((answer.status(), answer.body.as_str()), (200, "<html>"));
    assert_eq!(stand_in.value_count(), 1, "it is done");

    with(WrongBody::Half);
    let answer = ask(&mut socket, &get("/profile/")).await;
    assert_eq!((answer.status(), answer.body.as_str()), (200, &body[..body.len() / 2]));

    with(WrongBody::Random { seed: 1, bytes: 33 });
    send(&mut socket, &get("/profile/")).await;
    assert!(read_head(&mut socket).await.contains("content-length: 33\r\n"));
    let mut bytes = [0; 33];
    limited(socket.read_exact(&mut bytes)).await.unwrap();
    assert!(!bytes[0].is_ascii());

    with(WrongBody::AnnouncedShorter(3));
    let answer = ask(&mut socket, &get("/profile/")).await;
    assert_eq!(answer.body, body[..body.len() - 3]);
    send(&mut socket, &get("/profile/")).await;
    let mut left_over = [0; 7];
    limited(socket.read_exact(&mut left_over)).await.unwrap();
    assert_eq!(left_over, [&body.as_bytes()[body.len() - 3..], b"HTTP"].concat()[..]);

    with(WrongBody::AnnouncedLonger(5));
    let mut socket = connect(&stand_in).await;
    send(&mut socket, &get("/profile/")).await;
    let came = read_head(&mut socket).await;
    let length = |by| format!("content-length: {}\r\n", body.len() + by);
    assert_eq!(came, head.replace(&length(0), &length(5)));
    assert_ne!(came, head);
    let mut all = vec![0; body.len()];
    limited(socket.read_exact(&mut all)).await.unwrap();
    assert_eq!(all, body.as_bytes());
    let mut more = [0];
    assert_eq!(socket.try_read(&mut more).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_rule_finds_its_requests_by_method_path_and_bot() {
    let stand_in = start().await;
    let teapot = |status| Rule::new(Misbehaviour::Status(Status::new(status)));
    stand_in.misbehave(teapot(411).method("DELETE")).unwrap();
    stand_in.misbehave(teapot(412).path("/accounts/*/entities/*").bot("ping")).unwrap();
    stand_in.misbehave(teapot(414).path("/accounts/1/**").bot("custom")).unwrap();
    stand_in.misbehave(teapot(415).bot("unknown")).unwrap();
    let custom = stand_in.token("custom").unwrap();
    let mut socket = connect(&stand_in).await;
    for (request, status) in [
        (get("/accounts/1/entities/31/"), 412),
        (get("/accounts/1/entities/31").replace("GET", "DELETE"), 411),
        (get("/accounts/1/entities"), 200),
        (get("/accounts/1/entities/31").replace(PING, &custom), 414),
        (get("/profile").replace(PING, &custom), 200),
        (get("/profile").replace(PING, "22222222-2222-4222-8222-2222222222ff"), 415),
        ("GET /api/status/info HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 200),
    ] {
        assert_eq!(ask(&mut socket, &request).await.status(), status, "{request}");
    }
}

#[tokio::test]
async fn chances_are_the_same_for_the_same_seed() {
    let fate = |seed| async move {
        let stand_in = start().await;
        let status = Status::new(503);
        stand_in.misbehave(Rule::new(Misbehaviour::Status(status)).chance(0.5, seed)).unwrap();
        let mut socket = connect(&stand_in).await;
        let mut fate = Vec::new();
        for _ in 0..64 {
            fate.push(ask(&mut socket, &get("/profile/")).await.status());
        }
        fate
    };
    let (first, again, other) = (fate(7).await, fate(7).await, fate(8).await);
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert!(first.contains(&200) && first.contains(&503));
}

#[tokio::test]
async fn a_rule_that_cannot_be_is_refused_and_changes_nothing() {
    let stand_in = start().await;
    let error = stand_in.misbehave(Rule::new(Misbehaviour::Close).path("values")).unwrap_err();
    assert!(error.to_string().starts_with("`path` must be "), "{error}");
    assert!(stand_in.misbehave(Rule::new(Misbehaviour::Refuse).bot("ping")).is_err());
    serves(&mut connect(&stand_in).await).await;
}

#[tokio::test]
async fn it_misbehaves_over_tls_too() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let stand_in = demo().tls(Arc::new(server)).start().await.unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let connect = || async {
        let socket = limited(TcpStream::connect(stand_in.address())).await.unwrap();
        limited(connector.connect(name.clone(), socket)).await
    };
    let once = |misbehaviour| stand_in.misbehave(Rule::new(misbehaviour).times(1)).unwrap();

    let answer = ask(&mut connect().await.unwrap(), &get("/profile/")).await;
    let all = format!("{}{}", answer.head, answer.body);

    once(Misbehaviour::ResetOnConnect);
    assert!(connect().await.is_err());
    once(Misbehaviour::Reset);
    let mut socket = connect().await.unwrap();
    send(&mut socket, &get("/profile/")).await;
    let mut nothing = Vec::new();
    assert_eq!(
        limited(socket.read_to_end(&mut nothing)).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    for (misbehaviour, came) in [
        (Misbehaviour::Close, 0),
        (Misbehaviour::CloseAfterDoing, 0),
        (Misbehaviour::CutHead { after_bytes: 10 }, 10),
        (Misbehaviour::CutBody { after_bytes: 10 }, answer.head.len() + 10),
        (Misbehaviour::IdleClose(Duration::from_millis(5)), all.len()),
    ] {
        once(misbehaviour);
        let mut socket = connect().await.unwrap();
        send(&mut socket, &get("/profile/")).await;
        assert_eq!(rest(&mut socket).await, all.as_bytes()[..came]);
    }
    let pause = Duration::from_millis(1);
    for misbehaviour in [Misbehaviour::Drip { bytes: 9, pause }, Misbehaviour::DripHead { bytes: 9, pause }] {
        once(misbehaviour);
        let mut socket = connect().await.unwrap();
        let answer = ask(&mut socket, &get("/profile/")).await;
        assert_eq!(format!("{}{}", answer.head, answer.body), all);
    }
    once(Misbehaviour::Garbage { seed: 1, bytes: 100 });
    let mut socket = connect().await.unwrap();
    send(&mut socket, &get("/profile/")).await;
    assert_eq!(rest(&mut socket).await.len(), 100);
    once(Misbehaviour::StatusAfterDoing(Status::new(500)));
    let mut socket = connect().await.unwrap();
    assert_eq!(ask(&mut socket, &put(ONE)).await.status(), 500);
    assert_eq!(rest(&mut socket).await, b"");
    once(Misbehaviour::Redirect { status: 307, to: None });
    let answer = ask(&mut connect().await.unwrap(), &get("/profile/")).await;
    assert_eq!(answer.header("location"), Some(&*format!("https://x/api/profile?b={PING}")));
    let rule: RuleId = stand_in.misbehave(Rule::new(Misbehaviour::Refuse)).unwrap();
    assert!(TcpStream::connect(stand_in.address()).await.is_err());
    stand_in.behave(rule);
    assert_eq!(ask(&mut connect().await.unwrap(), &get("/profile/")).await.status(), 200);
}

#[test]
fn a_thread_of_its_own_misbehaves_as_well() {
    let stand_in = demo().spawn_thread().unwrap();
    let rule = stand_in.misbehave(Rule::new(Misbehaviour::Refuse)).unwrap();
    let refused = std::net::TcpStream::connect(stand_in.address()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    stand_in.behave(rule);
    let socket = std::net::TcpStream::connect(stand_in.address()).unwrap();
    drop(socket);
    stand_in.wait_for(LIMIT, |s| s.counters().connections == 1).unwrap();
    stand_in.misbehave(Rule::new(Misbehaviour::Refuse)).unwrap();
    drop(stand_in);
}
