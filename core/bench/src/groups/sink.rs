//! The fastest backend there can be: it answers each request at once with what was prepared, and looks at nothing.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A backend on loopback, until the program ends.
#[derive(Debug)]
pub struct Sink {
    /// Where it is.
    pub address: SocketAddr,
    /// Whom its clients must trust, if it speaks TLS: PEM.
    pub certificate: Option<String>,
    requests: Arc<AtomicU64>,
}

impl Sink {
    /// Listens on a port of the system's choice. `lists`: what a GET of a path below `/api` (without slash at its end) brings;
    /// all else is answered by 204.
    #[must_use]
    pub fn start(lists: &[(&str, &str)]) -> Self {
        Self::listen(lists, None, None)
    }

    /// With TLS, and no lists.
    #[must_use]
    pub fn start_tls() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        Self::listen(&[], Some(Arc::new(config)), Some(made.cert.pem()))
    }

    fn listen(lists: &[(&str, &str)], tls: Option<Arc<ServerConfig>>, certificate: Option<String>) -> Self {
        let answer = |(path, body): &(&str, &str)| {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            ((*path).to_owned(), (head + body).into_bytes())
        };
        let answers: Arc<HashMap<String, Vec<u8>>> = Arc::new(lists.iter().map(answer).collect());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answers, counter, tls) = (Arc::clone(&answers), Arc::clone(&counter), tls.clone());
                stream.set_nodelay(true).unwrap();
                // The client may end as it likes.
                std::thread::spawn(move || match tls {
                    None => serve(stream, &answers, &counter),
                    Some(config) => {
                        let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
                        serve(StreamOwned::new(connection, stream), &answers, &counter)
                    }
                });
            }
        });
        Sink { address, certificate, requests }
    }

    /// PUTs and POSTs so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

const EMPTY: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

fn serve(
    mut stream: impl Read + Write,
    answers: &HashMap<String, Vec<u8>>,
    counter: &AtomicU64,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 512 << 10];
    let mut have = 0;
    loop {
        let head_end = loop {
            if let Some(end) = buffer[..have].windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            let n = stream.read(&mut buffer[have..])?;
            if n == 0 {
                return Ok(());
            }
            have += n;
        };
        let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
        let mut body = head
            .lines()
            .find_map(|l| l.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")))
            .map_or(0, |(_, length)| length.trim().parse::<usize>().unwrap_or(0));
        let of_it = body.min(have - head_end);
        body -= of_it;
        buffer.copy_within(head_end + of_it..have, 0);
        have -= head_end + of_it;
        while body > 0 {
            let limit = body.min(buffer.len());
            let n = stream.read(&mut buffer[..limit])?;
            if n == 0 {
                return Ok(());
            }
            body -= n;
        }
        let target = head.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default().trim_end_matches('/');
        let path = path.strip_prefix("/api").unwrap_or(path);
        match answers.get(path).filter(|_| head.starts_with("GET")) {
            Some(answer) => stream.write_all(answer)?,
            None => {
                let writes = head.starts_with("PUT ") || head.starts_with("POST ");
                counter.fetch_add(writes.into(), Ordering::Relaxed);
                stream.write_all(EMPTY)?;
            }
        }
    }
}
