//! The stand-in on sockets: keep-alive, silent ends, bodies of every kind, limits, TLS and restarts.

use std::sync::Arc;
use std::time::Duration;

use grafolean_stand_in::{Builder, Config, Event, FRONT_BODY_LIMIT, ListKind, StandIn};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const PING: &str = "11111111-1111-4111-8111-111111111111";

/// Nothing here takes long; whoever waits for this has failed.
const LIMIT: Duration = Duration::from_secs(20);

fn demo() -> Builder {
    StandIn::builder().config(Config::demo().unwrap())
}

async fn limited<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.expect("it did not happen in time")
}

async fn connect(stand_in: &StandIn) -> TcpStream {
    limited(TcpStream::connect(stand_in.address())).await.unwrap()
}

#[derive(Debug)]
struct Response {
    head: String,
    body: String,
}

impl Response {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).filter_map(|l| l.split_once(": ")).find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    fn header_names(&self) -> Vec<&str> {
        self.head.lines().skip(1).filter_map(|l| l.split_once(": ")).map(|(n, _)| n).collect()
    }
}

/// Reads one response with a length, or none if the connection ends without one.
async fn read(socket: &mut (impl AsyncRead + Unpin)) -> Option<Response> {
    limited(async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match socket.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) if head.is_empty() => return None,
                Err(error) => panic!("{error} within {:?}", String::from_utf8_lossy(&head)),
            }
        }
        let mut response = Response { head: String::from_utf8(head).unwrap(), body: String::new() };
        let length = response.header("content-length").map_or(0, |l| l.parse().unwrap());
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.unwrap();
        response.body = String::from_utf8(body).unwrap();
        Some(response)
    })
    .await
}

async fn exchange(socket: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> Option<Response> {
    // A connection that the other side has closed may refuse the bytes.
    if limited(socket.write_all(request.as_bytes())).await.is_err() {
        return None;
    }
    read(socket).await
}

fn get(path: &str) -> String {
    format!("GET {path}?b={PING} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn post(body: &str) -> String {
    format!(
        "POST /api/accounts/1/values/?b={PING} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn is_closed(socket: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    let end = limited(socket.read_to_end(&mut rest)).await;
    // A reset is an end, too.
    if end.is_ok() {
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

#[tokio::test]
async fn an_answer_has_the_headers_of_uvicorn_in_their_order() {
    let stand_in = demo().clock(|| 1_795_370_372_000_000).start().await.unwrap();
    let mut socket = connect(&stand_in).await;
    let response = exchange(&mut socket, &get("/api/accounts/")).await.unwrap();
    assert_eq!(response.header_names(), ["date", "server", "content-length", "content-type"]);
    assert_eq!(response.header("date"), Some("Sun, 22 Nov 2026 17:59:32 GMT"));
    assert_eq!(response.header("server"), Some("uvicorn"));
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.body, "{\"list\":[{\"id\":1,\"name\":\"Demo account\"}]}");
    let stored = exchange(&mut socket, &post("[{\"p\":\"a\",\"v\":1}]")).await.unwrap();
    assert_eq!(stored.status(), 204);
    assert_eq!(stored.header_names(), ["date", "server"]);
    assert_eq!(stand_in.values_of(1, "a"), [(1_795_370_372_000_000, 1.0)]);
}

#[tokio::test]
async fn a_connection_outlives_client_errors_but_not_an_internal_one() {
    let stand_in = demo().start().await.unwrap();
    let mut socket = connect(&stand_in).await;
    for (request, status) in [
        (get("/api/profile/"), 200),
        ("GET /api/profile/?b=bad HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 401),
        (get("/api/nothing"), 403),
        (get("/api/accounts/1/nothing"), 404),
        ("DELETE /api/accounts/1/values/?b=11111111-1111-4111-8111-111111111111 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 405),
        (post("[]"), 400),
        (format!("PATCH /api/accounts/1?b={PING} HTTP/1.1\r\nHost: x\r\n\r\n"), 500),
        (post("[{\"p\":\"a\",\"v\":1}]"), 204),
    ] {
        assert_eq!(exchange(&mut socket, &request).await.unwrap().status(), status, "{request}");
    }
    let broken = exchange(&mut socket, &post("{broken")).await.unwrap();
    assert_eq!((broken.status(), broken.body.as_str()), (500, "Internal Server Error"));
    assert_eq!(broken.header("connection"), None);
    is_closed(&mut socket).await;
    assert!(exchange(&mut socket, &get("/api/profile/")).await.is_none());
    let requests = stand_in.requests();
    assert!(requests.iter().all(|r| r.connection == 1));
    assert_eq!(requests.iter().map(|r| r.nth_on_connection).collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let stand_in = demo().keep_alive(Some(Duration::from_millis(30))).start().await.unwrap();
    let mut socket = connect(&stand_in).await;
    assert_eq!(exchange(&mut socket, &get("/api/profile/")).await.unwrap().status(), 200);
    is_closed(&mut socket).await;
    limited(stand_in.wait_for(LIMIT, |s| s.counters().open_connections == 0)).await.unwrap();
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let stand_in = demo().start().await.unwrap();
    let mut socket = connect(&stand_in).await;
    let both = get("/api/profile/") + &get("/api/nothing") + &get("/api/accounts/1/");
    socket.write_all(both.as_bytes()).await.unwrap();
    for status in [200, 403, 200] {
        assert_eq!(read(&mut socket).await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn chunked_bodies_and_expectations_are_understood() {
    let stand_in = demo().keep_bodies(true).start().await.unwrap();
    let mut socket = connect(&stand_in).await;
    let head = format!("POST /api/accounts/1/values/?b={PING} HTTP/1.1\r\nHost: x\r\n");
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n8\r\n[{{\"p\":\"a\r\nb\r\n.b\",\"v\":1}}]\r\n0\r\n\r\n"
    );
    assert_eq!(exchange(&mut socket, &chunked).await.unwrap().status(), 204);
    assert_eq!(stand_in.requests()[0].body.as_deref(), Some(&b"[{\"p\":\"a.b\",\"v\":1}]"[..]));

    let body = "[{\"p\":\"b\",\"v\":2}]";
    let expecting = format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len());
    assert_eq!(exchange(&mut socket, &expecting).await.unwrap().status(), 100);
    assert_eq!(exchange(&mut socket, body).await.unwrap().status(), 204);
    assert_eq!(stand_in.values(1).len(), 2);
}

#[tokio::test]
async fn a_body_of_the_limit_passes_and_one_byte_more_is_refused_as_by_the_front() {
    let stand_in = demo().start().await.unwrap();
    let padded = |len: usize| {
        let value = "[{\"p\":\"a\",\"v\":1}";
        format!("{value}{}]", " ".repeat(len - value.len() - 1))
    };
    let mut socket = connect(&stand_in).await;
    assert_eq!(exchange(&mut socket, &post(&padded(FRONT_BODY_LIMIT))).await.unwrap().status(), 204);
    let (mut reader, mut writer) = socket.into_split();
    let request = post(&padded(FRONT_BODY_LIMIT + 1));
    let (_, refused) = tokio::join!(writer.write_all(request.as_bytes()), read(&mut reader));
    let refused = refused.unwrap();
    assert_eq!(refused.status(), 413);
    assert_eq!(refused.header("connection"), Some("close"));
    assert_eq!(refused.header("server"), Some("nginx/1.22.1"));
    drop(writer);
    is_closed(&mut reader).await;

    // A chunked body is refused when it has become too long.
    let mut socket = connect(&stand_in).await;
    let head = format!(
        "POST /api/accounts/1/values/?b={PING} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let chunk = format!("{:x}\r\n{}\r\n", FRONT_BODY_LIMIT + 1, padded(FRONT_BODY_LIMIT + 1));
    assert_eq!(exchange(&mut socket, &(head + &chunk + "0\r\n\r\n")).await.unwrap().status(), 413);
    assert_eq!(stand_in.value_count(), 1);
}

#[tokio::test]
async fn a_list_that_fills_the_socket_arrives_whole_and_the_connection_lives() {
    let stand_in = demo().start().await.unwrap();
    let body = format!("{{\"list\":[]}}{}", " ".repeat(16 << 20));
    stand_in.change(|b| b.set_raw_list(1, ListKind::Entities, Some(body.clone()))).unwrap();
    let mut socket = connect(&stand_in).await;
    socket.write_all(get("/api/accounts/1/entities/").as_bytes()).await.unwrap();
    // Nothing is read until the answer stands in the log, so that it waits in the socket.
    stand_in.wait_for(LIMIT, |s| s.counters().requests == 1).await.unwrap();
    let response = read(&mut socket).await.unwrap();
    assert!(response.body == body, "{} bytes came", response.body.len());
    assert_eq!(exchange(&mut socket, &get("/api/profile/")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn without_a_limit_long_bodies_pass_as_at_uvicorn() {
    let stand_in = demo().body_limit(None).start().await.unwrap();
    let mut socket = connect(&stand_in).await;
    let body = format!("[{{\"p\":\"a\",\"v\":1}}{}]", " ".repeat(FRONT_BODY_LIMIT));
    assert_eq!(exchange(&mut socket, &post(&body)).await.unwrap().status(), 204);
}

#[tokio::test]
async fn a_body_that_is_refused_early_can_still_be_sent() {
    let stand_in = demo().start().await.unwrap();
    let mut socket = connect(&stand_in).await;
    let body = " ".repeat(300_000);
    let request = format!(
        "POST /api/profile/?b=bad HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(exchange(&mut socket, &request).await.unwrap().status(), 401);
    assert_eq!(exchange(&mut socket, &get("/api/profile/")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn requests_that_cannot_be_read_end_the_connection_without_an_answer() {
    let stand_in = demo().start().await.unwrap();
    for request in [
        "no HTTP at all\r\n\r\n".to_owned(),
        format!("GET /api/profile/?b={PING} HTTP/1.1\r\n\r\n"),
        format!("GET /api/profile/?b={PING} HTTP/1.1\r\nHost: x\r\nbad header line\r\n\r\n"),
    ] {
        let mut socket = connect(&stand_in).await;
        assert!(exchange(&mut socket, &request).await.is_none(), "{request}");
        // Also after a good request.
        let mut socket = connect(&stand_in).await;
        assert_eq!(exchange(&mut socket, &get("/api/profile/")).await.unwrap().status(), 200);
        assert!(exchange(&mut socket, &request).await.is_none(), "{request}");
    }
    let silent: Vec<_> = stand_in.requests().into_iter().filter(|r| r.status.is_none()).collect();
    assert_eq!(silent.len(), 2, "only those without a host had a readable head");
    assert!(silent.iter().all(|r| r.path == "/api/profile/?b=<ping>"));
}

#[tokio::test]
async fn a_body_that_ends_too_soon_gets_no_answer_and_stores_nothing() {
    let stand_in = demo().start().await.unwrap();
    let mut socket = connect(&stand_in).await;
    let request = post("[{\"p\":\"a\",\"v\":1}]").replace("Content-Length: 17", "Content-Length: 18");
    assert!(request.contains(": 18"));
    socket.write_all(request.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    assert!(read(&mut socket).await.is_none());
    assert_eq!(stand_in.value_count(), 0);
}

#[tokio::test]
async fn old_clients_get_their_connection_closed() {
    let stand_in = demo().start().await.unwrap();
    for more in ["", "Connection: keep-alive\r\n"] {
        let mut socket = connect(&stand_in).await;
        let request = format!("GET /api/profile/?b={PING} HTTP/1.0\r\n{more}\r\n");
        let response = exchange(&mut socket, &request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.header("connection").unwrap().contains("close"));
        is_closed(&mut socket).await;
    }
    let mut socket = connect(&stand_in).await;
    let request = get("/api/profile/").replace("Host: x", "Host: x\r\nConnection: close");
    assert_eq!(exchange(&mut socket, &request).await.unwrap().header("connection"), Some("close"));
    is_closed(&mut socket).await;
}

#[tokio::test]
async fn a_redirect_is_empty_and_chunked() {
    let stand_in = demo().start().await.unwrap();
    let mut socket = connect(&stand_in).await;
    let response = exchange(&mut socket, &get("/api/profile//")).await.unwrap();
    assert_eq!(response.status(), 307);
    assert_eq!(response.header("location"), Some(&*format!("http://x/api/profile?b={PING}")));
    assert_eq!(response.header("transfer-encoding"), Some("chunked"));
    let mut end = [0; 5];
    limited(socket.read_exact(&mut end)).await.unwrap();
    assert_eq!(&end, b"0\r\n\r\n");
}

#[tokio::test]
async fn an_answer_to_head_has_the_length_but_no_body() {
    let stand_in = demo().start().await.unwrap();
    let mut socket = connect(&stand_in).await;
    let both = get("/api/accounts/1/entities/31").replace("GET", "HEAD") + &get("/api/profile/");
    socket.write_all(both.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    limited(async {
        while !String::from_utf8_lossy(&seen).contains("\"user_id\"") {
            seen.push(socket.read_u8().await.unwrap());
        }
    })
    .await;
    let seen = String::from_utf8(seen).unwrap();
    let (head, next) = seen.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 405") && head.contains("content-length: 31"), "{head}");
    assert!(next.starts_with("HTTP/1.1 200"), "{next}");
}

#[tokio::test]
async fn the_log_names_bots_and_holds_no_token() {
    let stand_in = demo().start().await.unwrap();
    let mut socket = connect(&stand_in).await;
    let request = get("/api/profile/").replace("Host: x", "Host: x\r\nUser-Agent: test/1");
    exchange(&mut socket, &request).await.unwrap();
    exchange(&mut socket, &post("[{\"p\":\"a\",\"v\":1},{\"p\":\"b\",\"v\":2}]")).await.unwrap();
    let requests = stand_in.requests();
    assert_eq!(requests[0].path, "/api/profile/?b=<ping>");
    assert_eq!(requests[0].path_only(), "/api/profile/");
    assert_eq!(requests[0].user_agent.as_deref(), Some("test/1"));
    assert_eq!((requests[1].bot.as_deref(), requests[1].values_stored), (Some("ping"), 2));
    assert_eq!(requests[1].body, None);
    assert!(!format!("{requests:?} {stand_in:?}").contains(PING));
    let counters = stand_in.counters();
    assert_eq!((counters.requests, counters.values, counters.connections), (2, 2, 1));
    assert_eq!(counters.by_status.into_iter().collect::<Vec<_>>(), [(200, 1), (204, 1)]);
}

#[tokio::test]
async fn listeners_hear_of_values_before_their_request() {
    let stand_in = demo().start().await.unwrap();
    let mut events = stand_in.subscribe();
    let mut socket = connect(&stand_in).await;
    exchange(&mut socket, &post("[{\"p\":\"a\",\"v\":1},{\"p\":\"b\",\"v\":2}]")).await.unwrap();
    for path in ["a", "b"] {
        let event = limited(events.recv()).await.unwrap();
        assert!(matches!(&event, Event::Value(v) if v.path == path), "{event:?}");
    }
    let event = limited(events.recv()).await.unwrap();
    assert!(matches!(&event, Event::Request(r) if r.status == Some(204)), "{event:?}");
}

#[tokio::test]
async fn its_own_pages_are_in_no_log_and_no_counter() {
    let stand_in = demo().start().await.unwrap();
    assert_eq!(stand_in.page_url(), format!("http://{}/", stand_in.address()));
    let mut page = connect(&stand_in).await;
    let own = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(exchange(&mut page, own).await.unwrap().status(), 200);
    let nothing = own.replace(" / ", " /stand-in/nothing ");
    assert_eq!(exchange(&mut page, &nothing).await.unwrap().status(), 404);
    let mut socket = connect(&stand_in).await;
    assert_eq!(exchange(&mut socket, &get("/api/profile/")).await.unwrap().status(), 200);
    // What is outside of both is the backend's.
    for path in ["/", "/stand-in"] {
        assert_eq!(exchange(&mut socket, &get(path)).await.unwrap().status(), 403, "{path}");
    }
    let counters = stand_in.counters();
    assert_eq!((counters.requests, counters.connections, counters.open_connections), (3, 1, 1));
    assert_eq!(stand_in.requests().len(), 3);
    drop(page);
    let long = post(&" ".repeat(100_000))
        .replace("/api/accounts/1/values/", "/stand-in/x")
        .replace("Host: x", "Host: localhost");
    let mut socket = connect(&stand_in).await;
    assert_eq!(exchange(&mut socket, &long).await.unwrap().status(), 413);
}

#[tokio::test]
async fn a_restart_keeps_the_port_and_what_was_known() {
    let stand_in = demo().start().await.unwrap();
    let mut socket = connect(&stand_in).await;
    exchange(&mut socket, &post("[{\"p\":\"a\",\"v\":1}]")).await.unwrap();
    let address = stand_in.address();
    let _silent = connect(&stand_in).await;
    limited(stand_in.shutdown()).await;
    is_closed(&mut socket).await;
    assert!(TcpStream::connect(address).await.is_err());
    stand_in.restart().await.unwrap();
    assert_eq!(stand_in.address(), address);
    let mut socket = connect(&stand_in).await;
    exchange(&mut socket, &post("[{\"p\":\"a\",\"v\":2}]")).await.unwrap();
    assert_eq!(stand_in.values(1).len(), 2);
    assert_eq!(stand_in.counters().open_connections, 1);
}

#[tokio::test]
async fn dropped_connections_end_at_once_and_new_ones_are_taken() {
    let stand_in = demo().start().await.unwrap();
    let mut socket = connect(&stand_in).await;
    exchange(&mut socket, &get("/api/profile/")).await.unwrap();
    stand_in.drop_connections();
    is_closed(&mut socket).await;
    let mut socket = connect(&stand_in).await;
    assert_eq!(exchange(&mut socket, &get("/api/profile/")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_dropped_stand_in_closes_everything() {
    let stand_in = demo().start().await.unwrap();
    let address = stand_in.address();
    let mut socket = connect(&stand_in).await;
    exchange(&mut socket, &get("/api/profile/")).await.unwrap();
    drop(stand_in);
    is_closed(&mut socket).await;
    limited(async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn many_connections_store_everything() {
    let stand_in = demo().start().await.unwrap();
    let clients = (0..20).map(|client| {
        let mut request = String::new();
        for nth in 0..10 {
            let items: Vec<String> =
                (0..100).map(|i| format!("{{\"p\":\"c{client}.r{nth}.n{i}\",\"v\":{i}}}")).collect();
            request += &post(&format!("[{}]", items.join(",")));
        }
        let address = stand_in.address();
        tokio::spawn(async move {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(request.as_bytes()).await.unwrap();
            for _ in 0..10 {
                assert_eq!(read(&mut socket).await.unwrap().status(), 204);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        limited(client).await.unwrap();
    }
    assert_eq!(stand_in.value_count(), 20_000);
}

#[test]
fn a_thread_of_its_own_serves_callers_without_tokio() {
    use std::io::{Read, Write};
    let stand_in = demo().spawn_thread().unwrap();
    let mut socket = std::net::TcpStream::connect(stand_in.address()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.write_all(post("[{\"p\":\"a\",\"v\":1}]").as_bytes()).unwrap();
    stand_in.wait_for(LIMIT, |s| s.value_count() == 1).unwrap();
    assert!(stand_in.wait_for(Duration::from_millis(1), |s| s.value_count() == 2).is_err());
    let mut begin = [0; 12];
    socket.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"HTTP/1.1 204");
    stand_in.shutdown();
    assert!(std::net::TcpStream::connect(stand_in.address()).is_err());
    stand_in.restart().unwrap();
    let address = stand_in.address();
    assert!(std::net::TcpStream::connect(address).is_ok());
    drop(stand_in);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_port_that_is_taken_is_named() {
    let first = demo().spawn_thread().unwrap();
    let error = demo().listen(first.address()).spawn_thread().unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {}: ", first.address())), "{error}");
}

#[tokio::test]
async fn it_speaks_tls_with_a_given_certificate() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let stand_in = demo().tls(Arc::new(server)).start().await.unwrap();
    assert_eq!(
        stand_in.base_url_at("localhost"),
        format!("https://localhost:{}/api", stand_in.address().port())
    );

    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let socket = connect(&stand_in).await;
    let mut socket = limited(connector.connect(name, socket)).await.unwrap();
    assert_eq!(exchange(&mut socket, &get("/api/profile/")).await.unwrap().status(), 200);
    assert_eq!(exchange(&mut socket, &post("[{\"p\":\"a\",\"v\":1}]")).await.unwrap().status(), 204);
    assert_eq!(exchange(&mut socket, &post("{broken")).await.unwrap().status(), 500);
    is_closed(&mut socket).await;
    assert_eq!(stand_in.value_count(), 1);
}
