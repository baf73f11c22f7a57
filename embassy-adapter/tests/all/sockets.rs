//! HTTP over sockets of this machine, through the connector for `embedded-nal-async`.
#![cfg(feature = "nal")]

use std::cell::Cell;
use std::future::pending;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use embedded_nal_async::{AddrType, Dns};
use grafolean_embassy::Transport;
use grafolean_embassy::core::api::{BaseUrl, Method};
use grafolean_embassy::core::collector::RequestError::{Lost, NotSent};
use grafolean_embassy::http::{ConnectError, Connector, Http, Limits};
use grafolean_embassy::nal::NalConnector;

use crate::requests::{List, Outcome, Request, get, request};
use crate::support;
use crate::tcp::Host;

const PATIENCE: Duration = Duration::from_secs(20);

/// Knows one name, for so many questions.
struct Names {
    left: Cell<u32>,
}

impl Dns for Names {
    type Error = ();
    async fn get_host_by_name(&self, host: &str, _: AddrType) -> Result<IpAddr, ()> {
        assert_eq!(host, "grafolean.lan");
        self.left.set(self.left.get().checked_sub(1).ok_or(())?);
        Ok([127, 0, 0, 1].into())
    }
    async fn get_host_by_address(&self, _: IpAddr, _: &mut [u8]) -> Result<usize, ()> {
        Err(())
    }
}

/// A server that gives each connection its list of answers, one for each request, and then closes it. Connections
/// beyond the list are not accepted. Gives the request lines of each connection at the end.
struct Server {
    port: u16,
    heard: mpsc::Receiver<Vec<String>>,
}

impl Server {
    fn start(connections: Vec<Vec<String>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, heard) = mpsc::channel();
        thread::spawn(move || {
            for answers in connections {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let heard = answers.iter().filter_map(|answer| serve(&mut stream, answer)).collect();
                let _ = tell.send(heard);
            }
        });
        Server { port, heard }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.recv_timeout(PATIENCE).unwrap()
    }
}

fn serve(stream: &mut TcpStream, answer: &str) -> Option<String> {
    let mut input = Vec::new();
    let end = loop {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        input.push(byte[0]);
        if input.ends_with(b"\r\n\r\n") {
            break input.len();
        }
    };
    let head = String::from_utf8(input[..end].to_vec()).unwrap();
    let len = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).map_or(0, |l| l.parse().unwrap());
    let mut body = vec![0; len];
    stream.read_exact(&mut body).ok()?;
    stream.write_all(answer.as_bytes()).ok()?;
    if answer.ends_with("...") {
        // Says nothing more until the other side goes.
        let _ = stream.read(&mut [0]);
    }
    let line = head.lines().next()?.split("?b=").next()?.to_string();
    Some(format!("{line} {}", String::from_utf8(body).unwrap()).trim_end().to_string())
}

fn perform(url: &str, names: u32, limits: Limits, requests: &[Request]) -> Vec<Outcome> {
    let mut buf = [0; 700];
    let names = Names { left: Cell::new(names) };
    let connector = NalConnector::new(Host, &names);
    let mut http = Http::new(connector, BaseUrl::parse(url).unwrap(), &mut buf, limits).unwrap();
    let list = List::new(requests);
    support::real(PATIENCE, http.serve(&list));
    list.outcomes.take()
}

fn at(port: u16) -> String {
    format!("http://127.0.0.1:{port}/api")
}

fn hello(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())
}

#[test]
fn requests_go_over_one_connection_and_all_kinds_of_bodies_are_read() {
    let server = Server::start(vec![vec![
        hello("first"),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nsec\r\n3\r\nond\r\n0\r\n\r\n".into(),
        "HTTP/1.1 204 No Content\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nlast".into(),
    ]]);
    let put = request(Method::Put, br#"[{"p":"a","v":1}]"#);
    let outcomes = perform(&at(server.port), 0, Limits::DEFAULT, &[get(), get(), put, get()]);
    let answers: Vec<_> = outcomes.iter().map(Outcome::answer).collect();
    assert_eq!(answers, [(200, "first"), (200, "second"), (204, ""), (200, "last")]);
    let heard = server.heard();
    assert_eq!(heard[2], r#"PUT /api/accounts/1/values/ [{"p":"a","v":1}]"#);
    assert_eq!(heard.len(), 4);
}

#[test]
fn a_kept_connection_that_the_server_has_closed_is_replaced_except_for_a_post() {
    for method in [Method::Get, Method::Put, Method::Post] {
        let server = Server::start(vec![vec![hello("first")], vec![hello("second")]]);
        let mut second = if method == Method::Get { get() } else { request(method, b"[1]") };
        second.after_ms = 30;
        let outcomes = perform(&at(server.port), 0, Limits::DEFAULT, &[get(), second]);
        assert_eq!(outcomes[0].answer(), (200, "first"));
        if method == Method::Post {
            assert_eq!(outcomes[1].failure().0, Lost);
        } else {
            assert_eq!(outcomes[1].answer(), (200, "second"));
        }
    }
}

#[test]
fn a_truncated_answer_is_lost() {
    let server = Server::start(vec![vec!["HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello".into()]]);
    let outcomes = perform(&at(server.port), 0, Limits::DEFAULT, &[get()]);
    assert_eq!(outcomes[0].failure(), (Lost, "connection closed before the end of the answer"));
}

#[test]
fn an_oversized_head_is_refused() {
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(2_000));
    let server = Server::start(vec![vec![head]]);
    let limits = Limits { head_bytes: 1_000, ..Limits::DEFAULT };
    let outcomes = perform(&at(server.port), 0, limits, &[get()]);
    assert_eq!(outcomes[0].failure(), (Lost, "head of the answer longer than 1000 bytes"));
}

#[test]
fn a_server_that_hangs_is_left() {
    let limits = Limits { head_ms: 50, silence_ms: 50, ..Limits::DEFAULT };
    for (answer, why) in [
        ("HTTP/1.1 200 OK\r\nx...", "no answer within 50 ms"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello...", "the answer went silent within 50 ms"),
    ] {
        let server = Server::start(vec![vec![answer.to_string()]]);
        let outcomes = perform(&at(server.port), 0, limits, &[get()]);
        assert_eq!(outcomes[0].failure(), (Lost, why));
        server.heard();
    }
}

#[test]
fn a_refused_connection_was_not_sent() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let outcomes = perform(&at(port), 0, Limits::DEFAULT, &[get()]);
    assert_eq!(outcomes[0].failure(), (NotSent, "no connection: ConnectionRefused"));
}

#[test]
fn while_the_name_server_is_away_the_last_good_address_is_used() {
    let server = Server::start(vec![vec![hello("first")], vec![hello("second")]]);
    let url = format!("http://grafolean.lan:{}/api", server.port);
    let outcomes = perform(&url, 1, Limits::DEFAULT, &[get(), get()]);
    assert_eq!(outcomes[1].answer(), (200, "second"));
    let outcomes = perform(&url, 0, Limits::DEFAULT, &[get()]);
    assert_eq!(outcomes[0].failure(), (NotSent, "host name not resolved"));
}

/// Answers the first question, and then nothing any more.
struct Silent(Cell<bool>);

impl Dns for Silent {
    type Error = ();
    async fn get_host_by_name(&self, _: &str, _: AddrType) -> Result<IpAddr, ()> {
        if self.0.replace(true) {
            pending().await
        }
        Ok([127, 0, 0, 1].into())
    }
    async fn get_host_by_address(&self, _: IpAddr, _: &mut [u8]) -> Result<usize, ()> {
        Err(())
    }
}

#[test]
fn a_name_server_that_says_nothing_leaves_time_for_the_last_good_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    support::simulate(60, async {
        let limit = embassy_time::Duration::from_millis(Limits::DEFAULT.connect_ms.into());
        let mut known = NalConnector::new(Host, Silent(Cell::new(false)));
        for _ in 0..2 {
            let connected = embassy_time::with_timeout(limit, known.connect("grafolean.lan", port)).await;
            assert!(connected.unwrap().is_ok());
        }
        let mut unknown = NalConnector::new(Host, Silent(Cell::new(true)));
        let connected = embassy_time::with_timeout(limit, unknown.connect("grafolean.lan", port)).await;
        assert_eq!(connected.unwrap().err(), Some(ConnectError::Resolve));
    });
}
