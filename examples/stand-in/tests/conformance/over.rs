//! The two ways to ask the stand-in: the backend alone, and a real socket.

use grafolean_stand_in::{Backend, ReplyBody, Request};

use crate::recorded::{Answer, Sent};
use crate::transcript::Front;

/// Something that answers as the stand-in does.
pub(crate) trait Over {
    /// How it is called in the report.
    const NAME: &'static str;

    fn change(&mut self, change: &mut dyn FnMut(&mut Backend));

    /// Treats what is asked next as the product's front would.
    fn front(&mut self, front: Option<Front>);

    /// None: closed without an answer. The second part are the interim statuses.
    fn ask(&mut self, request: &Sent, at_us: i64, same_connection: bool) -> (Option<Answer>, Vec<u16>);
}

/// [`Backend::answer`].
pub(crate) struct Alone(pub(crate) Backend);

impl Over for Alone {
    const NAME: &'static str = "backend";

    fn change(&mut self, change: &mut dyn FnMut(&mut Backend)) {
        change(&mut self.0);
    }

    fn front(&mut self, front: Option<Front>) {
        assert_eq!(front, None, "there is no front without a socket");
    }

    fn ask(&mut self, sent: &Sent, at_us: i64, _: bool) -> (Option<Answer>, Vec<u16>) {
        let (target, absolute_form) = match sent.target.strip_prefix("http://") {
            Some(rest) => (rest.find('/').map_or("/", |at| &rest[at..]), true),
            None => (sent.target.as_str(), false),
        };
        let header = |name| sent.header(name).map(str::to_owned);
        let request = Request {
            method: sent.method.clone(),
            target: target.to_owned(),
            absolute_form,
            host: sent.host.clone(),
            authorization: header("authorization").map(String::into_bytes),
            content_type: header("content-type"),
            origin: header("origin"),
            access_control_request_method: header("access-control-request-method"),
            body: sent.body.clone().unwrap_or_default().into(),
        };
        let reply = self.0.answer(&request, at_us);
        // What the server adds.
        let mut headers: Vec<(String, String)> =
            reply.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let body = match &reply.body {
            ReplyBody::Bytes(bytes) => {
                headers.push(("content-length".to_owned(), bytes.len().to_string()));
                if sent.method == "HEAD" { Vec::new() } else { bytes.to_vec() }
            }
            ReplyBody::EmptyChunked => {
                headers.push(("transfer-encoding".to_owned(), "chunked".to_owned()));
                Vec::new()
            }
            _ => Vec::new(),
        };
        (Some(Answer::new("HTTP/1.1", reply.status, headers, body)), Vec::new())
    }
}

#[cfg(feature = "server")]
pub(crate) use socket::Socket;

#[cfg(feature = "server")]
mod socket {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use grafolean_stand_in::{Backend, Misbehaviour, Rule, StandIn, StandInThread, Status};

    use super::Over;
    use crate::recorded::{Answer, Sent};
    use crate::transcript::Front;

    /// An answer that takes longer fails the test.
    const LIMIT: Duration = Duration::from_secs(30);

    /// A stand-in that listens, and the connection that the last request went over.
    pub(crate) struct Socket {
        stand_in: StandInThread,
        now_us: Arc<AtomicI64>,
        connection: Option<TcpStream>,
    }

    impl Socket {
        pub(crate) fn start() -> Self {
            let now_us = Arc::new(AtomicI64::new(0));
            let clock = Arc::clone(&now_us);
            let stand_in =
                StandIn::builder().clock(move || clock.load(Ordering::SeqCst)).spawn_thread().unwrap();
            Self { stand_in, now_us, connection: None }
        }
    }

    impl Over for Socket {
        const NAME: &'static str = "socket";

        fn change(&mut self, change: &mut dyn FnMut(&mut Backend)) {
            self.stand_in.change(|backend| change(backend));
        }

        fn front(&mut self, front: Option<Front>) {
            self.stand_in.behave_all();
            let misbehaviour = match front {
                Some(Front::InPlace(status)) => Misbehaviour::Status(Status::new(status)),
                Some(Front::PlainHttp) => Misbehaviour::PlainHttp,
                Some(Front::BodyLimit | Front::DatabaseFrozen) | None => return,
            };
            self.stand_in.misbehave(Rule::new(misbehaviour)).unwrap();
        }

        fn ask(&mut self, sent: &Sent, at_us: i64, same_connection: bool) -> (Option<Answer>, Vec<u16>) {
            self.now_us.store(at_us, Ordering::SeqCst);
            let mut stream = match self.connection.take() {
                Some(stream) if same_connection => stream,
                _ => TcpStream::connect(self.stand_in.address()).unwrap(),
            };
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream.set_write_timeout(Some(LIMIT)).unwrap();
            let mut interim = Vec::new();
            let answer = exchange(&mut stream, sent, &mut interim);
            self.connection = Some(stream);
            (answer, interim)
        }
    }

    fn exchange(stream: &mut TcpStream, sent: &Sent, interim: &mut Vec<u16>) -> Option<Answer> {
        let mut head = format!("{} {} {}\r\n", sent.method, sent.target, sent.version);
        if let Some(host) = &sent.host {
            head.push_str(&format!("Host: {host}\r\n"));
        }
        for (name, value) in &sent.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = match (&sent.body, sent.chunk_size) {
            (Some(body), Some(size)) => {
                let mut chunked = Vec::new();
                for chunk in body.chunks(size) {
                    chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    chunked.extend_from_slice(chunk);
                    chunked.extend_from_slice(b"\r\n");
                }
                chunked.extend_from_slice(b"0\r\n\r\n");
                chunked
            }
            (Some(body), None) => {
                head.push_str(&format!("Content-Length: {}\r\n", body.len()));
                body.clone()
            }
            (None, _) => Vec::new(),
        };
        head.push_str("\r\n");
        let mut received = Vec::new();
        // A connection that was closed before may refuse what is written: that is no answer.
        stream.write_all(head.as_bytes()).ok()?;
        if sent.header("expect").is_some() {
            let (status, _, _) = read_head(stream, &mut received)?;
            assert!((100..200).contains(&status), "{status} before the body was sent");
            interim.push(status);
        }
        // A refusal may come before all of a long body is taken; it is read all the same.
        let _ = stream.write_all(&body);
        let (status, version, headers) = read_head(stream, &mut received)?;
        let header = |name: &str| {
            headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
        };
        let mut body = Vec::new();
        if sent.method != "HEAD" && status != 204 {
            if header("transfer-encoding") == Some("chunked") {
                loop {
                    let line = take_line(stream, &mut received)?;
                    let length = usize::from_str_radix(&line, 16).expect("the length of a chunk");
                    let chunk = take(stream, &mut received, length + 2)?;
                    body.extend_from_slice(&chunk[..length]);
                    if length == 0 {
                        break;
                    }
                }
            } else if let Some(length) = header("content-length") {
                body = take(stream, &mut received, length.parse().expect("a length"))?;
            }
        }
        if header("connection").is_some_and(|c| c.eq_ignore_ascii_case("close")) {
            assert!(
                !more(stream, &mut received),
                "the connection is open although the answer says otherwise"
            );
        }
        assert!(received.is_empty(), "there is more than one answer: {}", String::from_utf8_lossy(&received));
        Some(Answer::new(&version, status, headers, body))
    }

    /// Whether more came before the connection ended.
    fn more(stream: &mut TcpStream, received: &mut Vec<u8>) -> bool {
        let mut buffer = [0; 65_536];
        match stream.read(&mut buffer) {
            Ok(length) => {
                received.extend_from_slice(&buffer[..length]);
                length > 0
            }
            Err(error) => {
                assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "no answer within {LIMIT:?}");
                false
            }
        }
    }

    fn take(stream: &mut TcpStream, received: &mut Vec<u8>, length: usize) -> Option<Vec<u8>> {
        while received.len() < length {
            if !more(stream, received) {
                return None;
            }
        }
        Some(received.drain(..length).collect())
    }

    fn take_line(stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<String> {
        loop {
            if let Some(end) = received.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = received.drain(..end + 2).take(end).collect();
                return Some(String::from_utf8(line).expect("a line of text"));
            }
            if !more(stream, received) {
                return None;
            }
        }
    }

    type Head = (u16, String, Vec<(String, String)>);

    fn read_head(stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<Head> {
        let line = take_line(stream, received)?;
        let (version, rest) = line.split_once(' ').expect("a status line");
        let status = rest.get(..3).and_then(|s| s.parse().ok()).expect("a status");
        let mut headers = Vec::new();
        loop {
            let line = take_line(stream, received)?;
            if line.is_empty() {
                return Some((status, version.to_owned(), headers));
            }
            let (name, value) = line.split_once(':').expect("a header");
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
}
