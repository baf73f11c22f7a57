//! Certificates and TLS servers of this machine, made for the test.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// The name that the server's certificates have.
pub const NAME: &str = "grafolean.lan";

/// Signs certificates.
pub struct Authority(pub CertifiedIssuer<'static, KeyPair>);

pub fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// For the server's name and address.
pub fn server_params() -> CertificateParams {
    CertificateParams::new(vec![NAME.to_owned(), "127.0.0.1".to_owned()]).unwrap()
}

impl Authority {
    pub fn new() -> Self {
        Self::with(&rcgen::PKCS_ECDSA_P256_SHA256, |_| {})
    }

    pub fn with(algorithm: &'static SignatureAlgorithm, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority_params("authority");
        change(&mut params);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate_for(algorithm).unwrap()).unwrap())
    }

    /// An authority below this one.
    pub fn below(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority_params("intermediate");
        change(&mut params);
        Authority(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    pub fn der(&self) -> &[u8] {
        self.0.der()
    }

    /// A server's certificate with its key.
    pub fn sign(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        self.sign_for(KeyPair::generate().unwrap(), change)
    }

    pub fn sign_for(&self, key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = server_params();
        change(&mut params);
        Identity { chain: vec![params.signed_by(&key, &self.0).unwrap().der().clone()], key }
    }
}

/// What a server shows, and its key.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: KeyPair,
}

impl Identity {
    pub fn self_signed() -> Self {
        let key = KeyPair::generate().unwrap();
        Identity { chain: vec![server_params().self_signed(&key).unwrap().der().clone()], key }
    }

    /// With the certificates of these authorities after the server's.
    pub fn with(mut self, authorities: &[&Authority]) -> Self {
        self.chain.extend(authorities.iter().map(|a| a.0.der().clone()));
        self
    }

    pub fn config(self) -> ServerConfig {
        self.config_for(&[&rustls::version::TLS13])
    }

    pub fn config_for(self, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain, key)
            .unwrap()
    }
}

pub type Stream = rustls::StreamOwned<ServerConnection, TcpStream>;

/// What became of a connection at the server.
#[derive(Debug)]
pub struct Seen {
    /// The client's first record.
    pub hello: Vec<u8>,
    /// What the server's function gave, or why there was no handshake.
    pub heard: Result<Vec<String>, String>,
}

/// A TLS server: a function serves each connection, one after the other.
pub struct Server {
    pub port: u16,
    seen: mpsc::Receiver<Seen>,
}

impl Server {
    pub fn start(
        config: ServerConfig,
        serve: impl Fn(usize, &mut Stream) -> Vec<String> + Send + 'static,
    ) -> Self {
        let config = Arc::new(config);
        Self::raw(move |number, tcp| {
            let hello = peek(&tcp);
            let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tcp = tcp;
            while connection.is_handshaking() {
                if let Err(error) = connection.complete_io(&mut tcp) {
                    return Seen { hello, heard: Err(error.to_string()) };
                }
            }
            let mut stream = rustls::StreamOwned::new(connection, tcp);
            let heard = Ok(serve(number, &mut stream));
            // So that the client reads what is written before the end.
            let _ = stream.sock.shutdown(std::net::Shutdown::Write);
            let _ = io::copy(&mut stream.sock, &mut io::sink());
            Seen { hello, heard }
        })
    }

    /// Without TLS.
    pub fn raw(serve: impl Fn(usize, TcpStream) -> Seen + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, seen) = mpsc::channel();
        thread::spawn(move || {
            for number in 0.. {
                let Ok((tcp, _)) = listener.accept() else { return };
                tcp.set_read_timeout(Some(PATIENCE)).unwrap();
                tcp.set_nodelay(true).unwrap();
                if tell.send(serve(number, tcp)).is_err() {
                    return;
                }
            }
        });
        Server { port, seen }
    }

    /// The next connection that has ended.
    pub fn seen(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).unwrap()
    }

    pub fn url(&self, host: &str) -> String {
        format!("https://{host}:{}/api", self.port)
    }
}

/// The client's first record, left where it is.
fn peek(tcp: &TcpStream) -> Vec<u8> {
    let mut buf = vec![0; 2048];
    loop {
        let n = tcp.peek(&mut buf).unwrap_or(0);
        let len = 5 + usize::from(u16::from_be_bytes([buf[3], buf[4]]));
        if n >= len {
            buf.truncate(len);
            return buf;
        }
        if n == 0 {
            return Vec::new();
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Reads a request: its line and body; `None`: the client closed in order.
pub fn request(stream: &mut Stream) -> io::Result<Option<String>> {
    let mut input = Vec::new();
    while !input.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        // Without the client's close_notify this is an error.
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        input.push(byte[0]);
    }
    let head = String::from_utf8(input).unwrap();
    let len = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).map_or(0, |l| l.parse().unwrap());
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    let line = head.lines().next().unwrap().split("?b=").next().unwrap().to_owned();
    Ok(Some(format!("{line} {}", String::from_utf8(body).unwrap()).trim_end().to_owned()))
}

pub fn hello(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())
}

pub fn write(stream: &mut Stream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
    stream.flush().unwrap();
}

/// Answers each request with "hello", until the client closes: what was asked, and how it ended.
pub fn greet(stream: &mut Stream) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        match request(stream) {
            Ok(Some(line)) => heard.push(line),
            Ok(None) => {
                heard.push("closed in order".to_owned());
                return heard;
            }
            Err(error) => {
                heard.push(error.to_string());
                return heard;
            }
        }
        write(stream, &hello("hello"));
    }
}

/// Bytes of all connections, shared with a server's thread.
pub type Bytes = Arc<Mutex<Vec<u8>>>;
