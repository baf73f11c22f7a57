//! HTTPS of boards against servers on loopback with certificates made for the test.
#![cfg(all(feature = "nal", feature = "tls-p384"))]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "all/support/allocations.rs"]
mod allocations;
#[path = "all/support/ca.rs"]
mod ca;
#[path = "all/support/ca_forger.rs"]
mod ca_forger;
#[path = "all/support/requests.rs"]
mod requests;
#[path = "all/support/mod.rs"]
mod support;
#[path = "all/support/tcp.rs"]
mod tcp;

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use embassy_futures::join::join;
use embassy_time::Timer;
use embedded_nal_async::{AddrType, Dns};
use grafolean_embassy::core::api::{BaseUrl, Method, Token};
use grafolean_embassy::core::bot::{Anything, Bot, Context, HandOverError, JobSink, NewJob};
use grafolean_embassy::core::collector::RequestError::{Lost, NotSent};
use grafolean_embassy::core::collector::Settings;
use grafolean_embassy::core::interval::{Interval, Intervals};
use grafolean_embassy::core::jobs::Due;
use grafolean_embassy::http::{Connector, Http, HttpSetupError, Limits};
use grafolean_embassy::nal::NalConnector;
use grafolean_embassy::tls::{
    Dates, LEAST_READ, LEAST_WRITE, P256, READ, Tls, TlsFault, TlsSettings, TlsSetupError, Trust, rand_core,
};
use grafolean_embassy::{DriverSettings, Shared, Transport, run};
use grafolean_stand_in::{Config as Backend, StandIn};
use rcgen::{BasicConstraints, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd};

use allocations::allocations;
use ca::{Authority, Identity, NAME, PATIENCE, Seen, Server, greet, hello, request as next_request, write};
use ca_forger::{CERTIFICATE_REQUEST, ENCRYPTED_EXTENSIONS, Forger, HANDSHAKE, message, record};
use requests::{List, Outcome, Request, TOKEN, get, request};
use tcp::Host;

/// Knows the server's name.
struct Names;

impl Dns for Names {
    type Error = ();
    async fn get_host_by_name(&self, _: &str, _: AddrType) -> Result<IpAddr, ()> {
        Ok([127, 0, 0, 1].into())
    }
    async fn get_host_by_address(&self, _: IpAddr, _: &mut [u8]) -> Result<usize, ()> {
        Err(())
    }
}

/// A generator for tests (splitmix64).
struct Dice(u64);

impl rand_core::RngCore for Dice {
    fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        dest.fill_with(|| self.next_u64() as u8);
    }
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl rand_core::CryptoRng for Dice {}

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        (rand_core::RngCore::next_u64(self) % n as u64) as usize
    }
}

/// 2026-06-01.
const NOW: u64 = 1_780_272_000;

/// A client's settings.
#[derive(Clone, Copy)]
struct Client<'a> {
    settings: TlsSettings<'a>,
    unix_s: Option<u64>,
    read: usize,
    limits: Limits,
}

impl<'a> Client<'a> {
    fn new(trust: Trust<'a>) -> Self {
        // Unoptimised, the handshake takes its time.
        let limits = Limits { connect_ms: 20_000, ..Limits::DEFAULT };
        Client { settings: TlsSettings::new(trust), unix_s: None, read: READ, limits }
    }

    fn perform(&self, url: &str, requests: &[Request]) -> Vec<Outcome> {
        let (mut read, mut write, mut buf) = (vec![0; self.read], [0; LEAST_WRITE], [0; 700]);
        let names = Names;
        let tcp = NalConnector::new(Host, &names);
        let unix_s = self.unix_s;
        let tls = Tls::new(tcp, Dice(1), || unix_s, self.settings, &mut read, &mut write).unwrap();
        let mut http = Http::new(tls, BaseUrl::parse(url).unwrap(), &mut buf, self.limits).unwrap();
        let list = List::new(requests);
        support::real(PATIENCE * 3, http.serve(&list));
        list.outcomes.take()
    }

    /// The server is refused, and has not seen anything of a request.
    #[track_caller]
    fn refuses(&self, identity: Identity, host: &str, fault: TlsFault) {
        let server = Server::start(identity.config(), |_, stream| greet(stream));
        let outcomes = self.perform(&server.url(host), &[get()]);
        let expected = format!("no TLS connection: {}", fault.as_str());
        assert_eq!(outcomes[0].failure(), (NotSent, expected.as_str()));
        // rustls ends its handshake with the client's Finished, which must not have come.
        let heard = server.seen().heard;
        assert!(heard.is_err(), "{heard:?}");
    }

    #[track_caller]
    fn accepts(&self, identity: Identity, host: &str) {
        let server = Server::start(identity.config(), |_, stream| greet(stream));
        let outcomes = self.perform(&server.url(host), &[get()]);
        assert_eq!(outcomes[0].answer(), (200, "hello"));
        assert_eq!(server.seen().heard.unwrap(), ["GET /api/accounts/", "closed in order"]);
    }
}

#[test]
fn a_good_certificate_is_accepted_by_name_and_by_address_and_the_connection_is_kept_and_closed_in_order() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let client = Client::new(Trust::Authorities(&authorities));
    for host in [NAME, "127.0.0.1", "GRAFOLEAN.lan", "grafolean.lan."] {
        let server = Server::start(authority.sign(|_| {}).config(), |_, stream| greet(stream));
        let put = request(Method::Put, br#"[{"p":"a","v":1}]"#);
        let post = request(Method::Post, &[b'7'; 3_000]);
        let outcomes = client.perform(&server.url(host), &[get(), put, post, get()]);
        for outcome in &outcomes {
            assert_eq!(outcome.answer(), (200, "hello"));
        }
        let heard = server.seen().heard.unwrap();
        let long = format!("POST /api/accounts/1/values/ {}", "7".repeat(3_000));
        let put = r#"PUT /api/accounts/1/values/ [{"p":"a","v":1}]"#;
        assert_eq!(heard, ["GET /api/accounts/", put, &long, "GET /api/accounts/", "closed in order"]);
    }
}

#[test]
fn a_certificate_of_another_authority_or_of_the_server_itself_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let stranger = Authority::with(&rcgen::PKCS_ECDSA_P256_SHA256, |params| {
        params.distinguished_name.push(DnType::CommonName, "stranger");
    });
    let authorities = [authority.der()];
    let client = Client::new(Trust::Authorities(&authorities));
    // The same name, another key.
    client.refuses(other.sign(|_| {}), NAME, TlsFault::Signature);
    client.refuses(stranger.sign(|_| {}), NAME, TlsFault::UnknownIssuer);
    client.refuses(stranger.sign(|_| {}).with(&[&stranger]), NAME, TlsFault::UnknownIssuer);
    client.refuses(Identity::self_signed(), NAME, TlsFault::UnknownIssuer);
    // One of several is enough, in any order.
    let authorities = [stranger.der(), authority.der()];
    let client = Client::new(Trust::Authorities(&authorities));
    client.accepts(authority.sign(|_| {}), NAME);
    client.accepts(stranger.sign(|_| {}), NAME);
}

#[test]
fn a_certificate_for_another_name_or_address_is_refused() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let client = Client::new(Trust::Authorities(&authorities));
    let named = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        authority.sign(|params| *params = rcgen::CertificateParams::new(names).unwrap())
    };
    client.refuses(named(&["other.lan"]), NAME, TlsFault::WrongName);
    client.refuses(named(&["grafolean.lan.example.com", "lan"]), NAME, TlsFault::WrongName);
    client.refuses(named(&["127.0.0.2"]), "127.0.0.1", TlsFault::WrongName);
    client.refuses(named(&["127.0.0.1"]), NAME, TlsFault::WrongName);
    // The common name does not count.
    let common = authority.sign(|params| {
        *params = rcgen::CertificateParams::new(vec!["other.lan".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, NAME);
    });
    client.refuses(common, NAME, TlsFault::WrongName);
    client.refuses(named(&["*.home.lan"]), "a.b.home.lan", TlsFault::WrongName);
    client.accepts(named(&["*.home.lan"]), "grafolean.home.lan");
}

#[test]
fn dates_are_checked_as_soon_as_the_time_is_known() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let unknown = Client::new(Trust::Authorities(&authorities));
    let known = Client { unix_s: Some(NOW), ..unknown };
    let mut strict = unknown;
    strict.settings.dates = Dates::Required;
    let expired = || authority.sign(|params| params.not_after = date_time_ymd(2026, 5, 31));
    let future = || authority.sign(|params| params.not_before = date_time_ymd(2026, 6, 2));
    known.refuses(expired(), NAME, TlsFault::Expired);
    known.refuses(future(), NAME, TlsFault::NotYetValid);
    known.accepts(authority.sign(|_| {}), NAME);
    unknown.accepts(expired(), NAME);
    unknown.accepts(future(), NAME);
    strict.refuses(authority.sign(|_| {}), NAME, TlsFault::NoTime);
    Client { unix_s: Some(NOW), ..strict }.accepts(authority.sign(|_| {}), NAME);
}

#[test]
fn a_chain_is_followed_through_authorities_only() {
    let root = Authority::new();
    let authorities = [root.der()];
    let client = Client::new(Trust::Authorities(&authorities));
    let below = root.below(|params| params.not_before = date_time_ymd(2025, 1, 1));
    client.accepts(below.sign(|_| {}).with(&[&below]), NAME);
    // One that does not belong there does no harm.
    client.accepts(below.sign(|_| {}).with(&[&Authority::new(), &below, &root]), NAME);
    client.refuses(below.sign(|_| {}), NAME, TlsFault::UnknownIssuer);

    // A server's certificate signs another one.
    let server = root.below(|params| params.is_ca = IsCa::NoCa);
    client.refuses(server.sign(|_| {}).with(&[&server]), NAME, TlsFault::NotAllowed);
    // An authority that may only sign servers signs an authority.
    let last = root.below(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let too_deep = last.below(|params| params.distinguished_name.push(DnType::CommonName, "too deep"));
    client.refuses(too_deep.sign(|_| {}).with(&[&too_deep, &last]), NAME, TlsFault::NotAllowed);
    // Not for servers.
    let purpose = |params: &mut rcgen::CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    client.refuses(root.sign(purpose), NAME, TlsFault::NotAllowed);
    // An expired authority.
    let old = root.below(|params| params.not_after = date_time_ymd(2026, 5, 31));
    let known = Client { unix_s: Some(NOW), ..client };
    known.refuses(old.sign(|_| {}).with(&[&old]), NAME, TlsFault::Expired);
}

#[test]
fn a_trusted_key_is_enough_and_another_one_is_refused() {
    let hash = |identity: &Identity| -> [u8; 32] {
        use sha2::Digest as _;
        sha2::Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&identity.key)).into()
    };
    let (first, second) = (Identity::self_signed(), Identity::self_signed());
    let keys = [[7; 32], hash(&first)];
    let client = Client { unix_s: Some(NOW), ..Client::new(Trust::Keys(&keys)) };
    client.accepts(first, "127.0.0.1");
    client.refuses(second, NAME, TlsFault::WrongKey);
    // Who has signed it, with what, and when, is not looked at: only the server's own key must be of P-256.
    let p384 = Authority::with(&rcgen::PKCS_ECDSA_P384_SHA384, |_| {});
    let public = p384.sign(|params| params.not_after = date_time_ymd(2026, 5, 31)).with(&[&p384]);
    let keys = [hash(&public)];
    let mut client = Client { unix_s: Some(NOW), ..Client::new(Trust::Keys(&keys)) };
    client.settings.algorithms = P256;
    client.accepts(public, NAME);
    let p384_key = p384.sign_for(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(), |_| {});
    let keys = [hash(&p384_key)];
    let mut client = Client::new(Trust::Keys(&keys));
    client.settings.algorithms = P256;
    client.refuses(p384_key, NAME, TlsFault::Algorithm);
}

#[test]
fn algorithms_of_public_authorities_are_known_and_others_are_told() {
    let p384 = Authority::with(&rcgen::PKCS_ECDSA_P384_SHA384, |_| {});
    let authorities = [p384.der()];
    let client = Client::new(Trust::Authorities(&authorities));
    let mut p256_only = client;
    p256_only.settings.algorithms = P256;
    client.accepts(p384.sign(|_| {}), NAME);
    let own = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    client.accepts(p384.sign_for(own, |_| {}), NAME);
    p256_only.refuses(p384.sign(|_| {}), NAME, TlsFault::Algorithm);
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    client.refuses(p384.sign_for(ed25519, |_| {}), NAME, TlsFault::Algorithm);
}

#[test]
fn a_server_without_tls_1_3_is_told() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let client = Client::new(Trust::Authorities(&authorities));
    let config = authority.sign(|_| {}).config_for(&[&rustls::version::TLS12]);
    let server = Server::start(config, |_, stream| greet(stream));
    let outcomes = client.perform(&server.url(NAME), &[get()]);
    let expected = format!("no TLS connection: {}", TlsFault::Alert(70).as_str());
    assert!(expected.contains("TLS 1.3"));
    assert_eq!(outcomes[0].failure(), (NotSent, expected.as_str()));
}

/// Says `bytes` to each client, then waits for its end or goes.
fn talker(bytes: Vec<u8>, waits: bool) -> Server {
    Server::raw(move |_, mut tcp| {
        let mut hello = vec![0; 5];
        let _ = tcp.read_exact(&mut hello);
        let mut rest = vec![0; usize::from(u16::from_be_bytes([hello[3], hello[4]]))];
        let _ = tcp.read_exact(&mut rest);
        let _ = tcp.write_all(&bytes);
        if waits {
            let _ = tcp.read(&mut [0]);
        }
        Seen { hello, heard: Ok(Vec::new()) }
    })
}

#[test]
fn what_is_no_handshake_is_told() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let mut client = Client::new(Trust::Authorities(&authorities));
    let plain = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    for (bytes, waits, fault) in [
        (&plain[..], true, TlsFault::NotTls),
        (b"", false, TlsFault::Closed),
        (b"\x16\x03\x03\x00", false, TlsFault::Closed),
        (b"\x16\x03\x03\x00\x50\x02\x00", false, TlsFault::Closed),
        (b"", true, TlsFault::Timeout),
        (b"\x16\x03\x03\x00\x50\x02\x00", true, TlsFault::Timeout),
        (b"\x15\x03\x03\x00\x02\x02\x28", true, TlsFault::Alert(40)),
        (b"\x15\x03\x03\x00\x02\x02\x46", true, TlsFault::Alert(70)),
        (b"\x15\x03\x03\x00\x02\x02\xff", true, TlsFault::Alert(255)),
        (b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00", true, TlsFault::Handshake),
        (b"\x16\x03\x03\x00\x00", true, TlsFault::Record),
        (b"\x16\x03\x03\xff\xff", true, TlsFault::Record),
        (b"\x17\x03\x03\x00\x20", true, TlsFault::Record),
        (b"\x14\x03\x03\x00\x01\x01", true, TlsFault::Record),
    ] {
        client.settings.handshake_ms = if fault == TlsFault::Timeout { 200 } else { 20_000 };
        let server = talker(bytes.to_vec(), waits);
        let outcomes = client.perform(&server.url(NAME), &[get()]);
        let expected = format!("no TLS connection: {}", fault.as_str());
        assert_eq!(outcomes[0].failure(), (NotSent, expected.as_str()), "{bytes:x?}");
        server.seen();
    }
}

/// Its server never confirms that a connection has ended.
struct Unconfirmed<C>(C);

impl<C: Connector> Connector for Unconfirmed<C> {
    type Stream<'a>
        = C::Stream<'a>
    where
        Self: 'a;

    const TLS: bool = false;

    async fn connect(
        &mut self,
        host: &str,
        port: u16,
    ) -> Result<Self::Stream<'_>, grafolean_embassy::http::ConnectError> {
        self.0.connect(host, port).await
    }

    async fn close<'a>(_stream: Self::Stream<'a>)
    where
        Self: 'a,
    {
        std::future::pending().await
    }
}

#[test]
fn why_a_server_was_refused_is_told_even_if_the_connection_can_not_be_closed_in_order() {
    let (authority, other) = (Authority::new(), Authority::new());
    let authorities = [authority.der()];
    let settings = TlsSettings::new(Trust::Authorities(&authorities));
    let server = Server::start(other.sign(|_| {}).config(), |_, stream| greet(stream));
    let (mut read, mut write, mut buf) = (vec![0; READ], [0; LEAST_WRITE], [0; 700]);
    let names = Names;
    let tcp = Unconfirmed(NalConnector::new(Host, &names));
    let tls = Tls::new(tcp, Dice(7), || None, settings, &mut read, &mut write).unwrap();
    let (url, limits) = (server.url(NAME), Limits { connect_ms: 20_000, ..Limits::DEFAULT });
    let mut http = Http::new(tls, BaseUrl::parse(&url).unwrap(), &mut buf, limits).unwrap();
    let list = List::new(&[get()]);
    support::real(PATIENCE * 3, http.serve(&list));
    let expected = format!("no TLS connection: {}", TlsFault::Signature.as_str());
    assert_eq!(list.outcomes.take()[0].failure(), (NotSent, expected.as_str()));
}

#[test]
fn a_handshake_also_ends_with_the_limit_of_the_connection() {
    let authorities_of = Authority::new();
    let authorities = [authorities_of.der()];
    let mut client = Client::new(Trust::Authorities(&authorities));
    client.limits.connect_ms = 200;
    let server = talker(Vec::new(), true);
    let outcomes = client.perform(&server.url(NAME), &[get()]);
    assert_eq!(outcomes[0].failure(), (NotSent, "no connection within 200 ms"));
    server.seen();
}

#[test]
fn a_cut_connection_is_not_the_end_of_an_answer_but_close_notify_is() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let client = Client::new(Trust::Authorities(&authorities));
    for in_order in [false, true] {
        let server = Server::start(authority.sign(|_| {}).config(), move |_, stream| {
            next_request(stream).unwrap();
            // Without a length the body ends with the connection.
            write(stream, "HTTP/1.1 200 OK\r\n\r\nhalf");
            if in_order {
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
            Vec::new()
        });
        let outcomes = client.perform(&server.url(NAME), &[get()]);
        if in_order {
            assert_eq!(outcomes[0].answer(), (200, "half"));
        } else {
            assert_eq!(outcomes[0].failure(), (Lost, "connection broke: ConnectionAborted"));
        }
    }
}

#[test]
fn a_kept_connection_that_the_server_has_closed_is_replaced() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let client = Client::new(Trust::Authorities(&authorities));
    for in_order in [false, true] {
        let server = Server::start(authority.sign(|_| {}).config(), move |number, stream| {
            if number > 0 {
                return greet(stream);
            }
            next_request(stream).unwrap();
            write(stream, &hello("first"));
            if in_order {
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
            Vec::new()
        });
        let mut second = get();
        second.after_ms = 50;
        let outcomes = client.perform(&server.url(NAME), &[get(), second]);
        assert_eq!((outcomes[0].answer(), outcomes[1].answer()), ((200, "first"), (200, "hello")));
    }
}

#[test]
fn a_renewal_of_keys_ends_the_connection_and_the_next_one_serves() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let client = Client::new(Trust::Authorities(&authorities));
    let server = Server::start(authority.sign(|_| {}).config(), |number, stream| {
        if number == 0 {
            next_request(stream).unwrap();
            stream.conn.refresh_traffic_keys().unwrap();
            write(stream, &hello("hello"));
            return Vec::new();
        }
        greet(stream)
    });
    let outcomes = client.perform(&server.url(NAME), &[get(), get()]);
    assert_eq!(outcomes[0].failure(), (Lost, "connection broke: InvalidData"));
    assert_eq!(outcomes[1].answer(), (200, "hello"));
}

#[test]
fn a_small_read_buffer_takes_small_records_only() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let client = Client { read: LEAST_READ, ..Client::new(Trust::Authorities(&authorities)) };
    let text = "x".repeat(10_000);
    for (record, served) in [(Some(4_096), true), (None, false)] {
        let mut config = authority.sign(|_| {}).config();
        config.max_fragment_size = record;
        let answer = hello(&text);
        let server = Server::start(config, move |_, stream| {
            next_request(stream).unwrap();
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.flush();
            Vec::new()
        });
        let outcomes = client.perform(&server.url(NAME), &[get()]);
        if served {
            assert_eq!(outcomes[0].answer(), (200, text.as_str()));
        } else {
            assert_eq!(outcomes[0].failure(), (Lost, "connection broke: InvalidData"));
        }
        // The client asked for records of 4,096 bytes.
        let hello = server.seen().hello;
        assert!(hello.windows(5).any(|w| w == [0, 1, 0, 1, 4]));
    }
}

/// The client's random bytes and the public key of its key exchange.
fn secrets(hello: &[u8]) -> ([u8; 32], Vec<u8>) {
    assert_eq!((hello[0], hello[5]), (22, 1));
    let random = hello[11..43].try_into().unwrap();
    // key_share of one P-256 key: 65 bytes.
    let share = hello.windows(6).position(|w| w == [0, 0x17, 0, 65, 4, w[5]]).unwrap();
    (random, hello[share + 4..share + 69].to_vec())
}

#[test]
fn a_hundred_connections_have_a_hundred_secrets_and_take_no_memory() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let settings = TlsSettings::new(Trust::Authorities(&authorities));
    let server = Server::start(authority.sign(|_| {}).config(), |_, stream| greet(stream));
    let (mut read, mut write) = (vec![0; READ], [0; LEAST_WRITE]);
    let names = Names;
    let tcp = NalConnector::new(Host, &names);
    let mut tls = Tls::new(tcp, Dice(2), || Some(NOW), settings, &mut read, &mut write).unwrap();
    let mut exchange = async || {
        use embedded_io_async::{Read, Write};
        let before = allocations();
        let mut stream = tls.connect("127.0.0.1", server.port).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = [0; 100];
        let mut len = 0;
        while !answer[..len].ends_with(b"\r\n\r\nhello") {
            len += stream.read(&mut answer[len..]).await.unwrap();
        }
        Tls::<NalConnector<Host, &Names>, Dice, fn() -> Option<u64>>::close(stream).await;
        allocations() - before
    };
    // The first use of a thread's timers and sockets may allocate.
    support::real(PATIENCE, exchange());
    let mut all = HashSet::new();
    let mut seen = vec![server.seen()];
    for _ in 0..99 {
        assert_eq!(support::real(PATIENCE, exchange()), 0, "a connection allocates");
        seen.push(server.seen());
    }
    for seen in seen {
        assert_eq!(seen.heard.unwrap(), ["GET / HTTP/1.1", "closed in order"]);
        let (random, share) = secrets(&seen.hello);
        assert!(all.insert(random.to_vec()) && all.insert(share), "used twice");
    }
    // The counter does count.
    let before = allocations();
    let boxed = std::hint::black_box(Box::new(1));
    assert_eq!(allocations(), before + *boxed);
}

#[test]
fn a_random_generator_that_is_stuck_makes_no_connection() {
    struct Stuck;
    impl rand_core::RngCore for Stuck {
        fn next_u32(&mut self) -> u32 {
            0
        }
        fn next_u64(&mut self) -> u64 {
            0
        }
        fn fill_bytes(&mut self, dest: &mut [u8]) {
            dest.fill(0xa5);
        }
        fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
            self.fill_bytes(dest);
            Ok(())
        }
    }
    impl rand_core::CryptoRng for Stuck {}
    let authority = Authority::new();
    let authorities = [authority.der()];
    let settings = TlsSettings::new(Trust::Authorities(&authorities));
    let (mut read, mut write, mut buf) = (vec![0; READ], [0; LEAST_WRITE], [0; 700]);
    let names = Names;
    let tcp = NalConnector::new(Host, &names);
    let tls = Tls::new(tcp, Stuck, || None, settings, &mut read, &mut write).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://127.0.0.1:{}/api", listener.local_addr().unwrap().port());
    let mut http = Http::new(tls, BaseUrl::parse(&url).unwrap(), &mut buf, Limits::DEFAULT).unwrap();
    let list = List::new(&[get()]);
    support::real(PATIENCE, http.serve(&list));
    let expected = format!("no TLS connection: {}", TlsFault::Random.as_str());
    assert_eq!(list.outcomes.take()[0].failure(), (NotSent, expected.as_str()));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "a connection was made");
}

#[test]
fn https_needs_a_connector_with_tls_and_http_one_without() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let settings = TlsSettings::new(Trust::Authorities(&authorities));
    let (mut read, mut write, mut buf) = (vec![0; READ], [0; LEAST_WRITE], [0; 700]);
    let names = Names;
    let url = |text| BaseUrl::parse(text).unwrap();
    let plain = NalConnector::new(Host, &names);
    let refused = Http::new(plain, url("https://grafolean.lan/api"), &mut buf, Limits::DEFAULT);
    assert_eq!(refused.map(|_| ()), Err(HttpSetupError::NeedsTls));
    let plain = NalConnector::new(Host, &names);
    let tls = Tls::new(plain, Dice(3), || None, settings, &mut read, &mut write).unwrap();
    let refused = Http::new(tls, url("http://grafolean.lan/api"), &mut buf, Limits::DEFAULT);
    assert_eq!(refused.map(|_| ()), Err(HttpSetupError::NeedsPlain));
}

#[test]
fn wrong_settings_are_told_at_the_start() {
    let authority = Authority::new();
    let good = [authority.der()];
    let pem = [authority.der(), b"-----BEGIN CERTIFICATE-----".as_slice()];
    let set_up = |trust, read: usize, write: usize| {
        let (mut read, mut write) = (vec![0; read], vec![0; write]);
        let names = Names;
        let tcp = NalConnector::new(Host, &names);
        let settings = TlsSettings::new(trust);
        Tls::new(tcp, Dice(4), || None, settings, &mut read, &mut write).map(|_| ())
    };
    let trust = Trust::Authorities(&good);
    assert_eq!(set_up(trust, LEAST_READ, LEAST_WRITE), Ok(()));
    let bytes = LEAST_READ - 1;
    let error = TlsSetupError::ReadBuffer { bytes, least: LEAST_READ };
    assert_eq!(set_up(trust, bytes, LEAST_WRITE), Err(error));
    let bytes = LEAST_WRITE - 1;
    let error = TlsSetupError::WriteBuffer { bytes, least: LEAST_WRITE };
    assert_eq!(set_up(trust, READ, bytes), Err(error));
    for nobody in [Trust::Authorities(&[]), Trust::Keys(&[])] {
        assert_eq!(set_up(nobody, READ, LEAST_WRITE), Err(TlsSetupError::NobodyTrusted));
    }
    let error = TlsSetupError::Authority { index: 1 };
    assert_eq!(set_up(Trust::Authorities(&pem), READ, LEAST_WRITE), Err(error));
    assert!(error.to_string().contains("DER"));
}

#[test]
fn the_longest_name_fits_into_the_least_write_buffer() {
    let label = "a".repeat(61);
    let name = [label.as_str(), &label, &label, &label, "lan"].join(".");
    assert_eq!(name.len(), 251);
    let authority = Authority::new();
    let authorities = [authority.der()];
    let long =
        || authority.sign(|params| *params = rcgen::CertificateParams::new(vec![name.clone()]).unwrap());
    let client = Client::new(Trust::Authorities(&authorities));
    client.accepts(long(), &name);
    Client { read: LEAST_READ, ..client }.accepts(long(), &name);
}

#[test]
fn nothing_that_is_printed_shows_a_buffer() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let settings = TlsSettings::new(Trust::Authorities(&authorities));
    let server = Server::start(authority.sign(|_| {}).config(), |_, stream| greet(stream));
    let (mut read, mut write, mut buf) = (vec![0; READ], [0; LEAST_WRITE], [0; 700]);
    let names = Names;
    let tcp = NalConnector::new(Host, &names);
    read.fill(0xee);
    let tls = Tls::new(tcp, Dice(5), || None, settings, &mut read, &mut write).unwrap();
    let printed = format!("{tls:?}");
    assert!(printed.starts_with("Tls") && !printed.contains("238, 238"), "{printed}");
    let list = List::new(&[get()]);
    let url = server.url(NAME);
    let mut http = Http::new(tls, BaseUrl::parse(&url).unwrap(), &mut buf, Limits::DEFAULT).unwrap();
    support::real(PATIENCE, http.serve(&list));
    let printed = format!("{http:?}");
    assert!(!printed.contains(&TOKEN[..8]), "{printed}");
}

/// Passes bytes between a client and a server, and spoils those of the server by seed.
fn spoil(seed: u64, config: &Arc<rustls::ServerConfig>) -> (Server, &'static str) {
    let mut dice = Dice(seed);
    let kind = ["a byte is changed", "the rest is cut off", "bytes are left out", "bytes are repeated"]
        [dice.below(4)];
    let config = Arc::clone(config);
    let server = Server::raw(move |number, mut tcp| {
        let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut dice = Dice(seed ^ (number as u64) << 32);
        // Within the handshake or within the answer.
        let place = dice.below(1_500);
        let mut sent = 0;
        let mut input = Vec::new();
        tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        loop {
            let mut output = Vec::new();
            while connection.wants_write() {
                connection.write_tls(&mut output).unwrap();
            }
            let mut cut = false;
            if sent <= place && place < sent + output.len() {
                let at = place - sent;
                let some = 1 + dice.below(20);
                let end = (at + some).min(output.len());
                match kind {
                    "a byte is changed" => output[at] ^= 1 << dice.below(8),
                    "bytes are left out" => drop(output.drain(at..end)),
                    "bytes are repeated" => {
                        let part = output[at..end].to_vec();
                        output.splice(at..at, part);
                    }
                    _ => {
                        output.truncate(at);
                        cut = true;
                    }
                }
            }
            sent += output.len();
            if tcp.write_all(&output).is_err() || cut {
                break;
            }
            match connection.read_tls(&mut tcp) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            if connection.process_new_packets().is_err() {
                break;
            }
            let mut plain = [0; 4096];
            while let Ok(n @ 1..) = connection.reader().read(&mut plain) {
                input.extend_from_slice(&plain[..n]);
            }
            if input.ends_with(b"\r\n\r\n") {
                input.clear();
                connection.writer().write_all(hello(&"hello".repeat(50)).as_bytes()).unwrap();
            }
        }
        Seen { hello: Vec::new(), heard: Ok(Vec::new()) }
    });
    (server, kind)
}

#[test]
fn spoiled_bytes_of_a_server_make_no_panic_and_no_wrong_answer() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let mut client = Client::new(Trust::Authorities(&authorities));
    client.settings.handshake_ms = 600;
    client.limits = Limits { head_ms: 600, silence_ms: 600, ..client.limits };
    let config = Arc::new(authority.sign(|_| {}).config());
    let first = std::env::var("GRAFOLEAN_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = first.map_or(0..SEEDS, |seed| seed..seed + 1);
    let (mut answered, mut failed) = (0, 0);
    for seed in seeds {
        let (server, kind) = spoil(seed, &config);
        println!("GRAFOLEAN_TEST_SEED={seed}: {kind}");
        let outcomes = client.perform(&server.url(NAME), &[get()]);
        match &outcomes[0].end {
            requests::End::Answered => {
                assert_eq!(outcomes[0].answer(), (200, "hello".repeat(50).as_str()));
                answered += 1;
            }
            requests::End::Failed(..) => failed += 1,
            other => panic!("{other:?}"),
        }
    }
    if first.is_none() {
        // Places after the end of what is sent spoil nothing.
        assert!(answered > 0 && failed > 10, "{answered} answered, {failed} failed");
    }
}

const SEEDS: u64 = 80;

#[test]
fn garbage_by_seed_is_refused() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let client = Client::new(Trust::Authorities(&authorities));
    let seed = std::env::var("GRAFOLEAN_TEST_SEED").map_or(11, |seed| seed.parse().unwrap());
    println!("GRAFOLEAN_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    for _ in 0..60 {
        let mut bytes = Vec::new();
        for _ in 0..=dice.below(3) {
            let len = dice.below(200);
            // Often a header that may come.
            if dice.below(3) > 0 {
                bytes.extend([20 + dice.below(4) as u8, 3, 3, 0, len as u8]);
                if dice.below(2) > 0 {
                    // A server's hello up to the end of its fixed part.
                    bytes.extend([2, 0, 0, len as u8, 3, 3]);
                    bytes.extend([7; 32]);
                    bytes.extend([0, 0x13, 1, 0]);
                }
            }
            bytes.extend((0..len).map(|_| dice.below(256) as u8));
        }
        let server = talker(bytes.clone(), false);
        let outcomes = client.perform(&server.url(NAME), &[get()]);
        let (error, why) = outcomes[0].failure();
        assert!(error == NotSent && why.starts_with("no "), "{why} after {bytes:x?}");
    }
}

/// Serves each connection with what `act` makes of its beginning.
fn forge(act: impl Fn(&mut Forger) + Send + 'static) -> Server {
    Server::raw(move |number, tcp| {
        let mut forger = Forger::accept(tcp, &mut Dice(number as u64));
        act(&mut forger);
        let _ = forger.tcp.shutdown(std::net::Shutdown::Write);
        let rest = forger.until_closed();
        Seen { hello: Vec::new(), heard: Ok(vec![rest.to_string()]) }
    })
}

/// A good server's identity for a thread.
fn shared_identity(authority: &Authority) -> Arc<Identity> {
    Arc::new(authority.sign(|_| {}))
}

#[test]
fn a_server_that_leaves_out_or_forges_its_proof_is_refused() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let client = Client::new(Trust::Authorities(&authorities));
    let identity = shared_identity(&authority);
    let keys = [{
        use sha2::Digest as _;
        sha2::Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&identity.key)).into()
    }];
    let pinned = Client::new(Trust::Keys(&keys));
    type Act = fn(&mut Forger, &Identity) -> Vec<Vec<u8>>;
    let refused: [(&str, Act, TlsFault); 10] = [
        ("no certificate", |f, _| vec![f.extensions(), f.finished()], TlsFault::NoCertificate),
        ("nothing but Finished", |f, _| vec![f.finished()], TlsFault::NoCertificate),
        (
            "no proof",
            |f, id| vec![f.extensions(), f.certificate(&id.chain), f.finished()],
            TlsFault::NoCertificate,
        ),
        (
            "an empty list of certificates",
            |f, id| vec![f.extensions(), f.certificate(&[]), f.verify(&id.key), f.finished()],
            TlsFault::NoCertificate,
        ),
        (
            "a proof before the certificate",
            |f, id| vec![f.extensions(), f.verify(&id.key), f.certificate(&id.chain), f.finished()],
            TlsFault::Handshake,
        ),
        (
            "the proof of another key",
            |f, id| {
                let key = KeyPair::generate().unwrap();
                vec![f.extensions(), f.certificate(&id.chain), f.verify(&key), f.finished()]
            },
            TlsFault::Proof,
        ),
        (
            "the proof of another handshake",
            |f, id| {
                let mut messages = vec![f.extensions(), f.certificate(&id.chain)];
                f.told(vec![1]);
                messages.extend([f.verify(&id.key), f.finished()]);
                messages
            },
            TlsFault::Proof,
        ),
        (
            "another certificate after the proof",
            |f, id| {
                let mut messages = vec![f.extensions(), f.certificate(&id.chain), f.verify(&id.key)];
                messages.extend([f.certificate(&id.chain), f.finished()]);
                messages
            },
            TlsFault::Handshake,
        ),
        (
            "two proofs",
            |f, id| {
                let mut messages = vec![f.extensions(), f.certificate(&id.chain), f.verify(&id.key)];
                messages.extend([f.verify(&id.key), f.finished()]);
                messages
            },
            TlsFault::Handshake,
        ),
        (
            "a wrong end",
            |f, id| {
                let mut messages = f.honest(id);
                messages[3][10] ^= 1;
                messages
            },
            TlsFault::Finished,
        ),
    ];
    for (what, act, fault) in refused {
        for client in [client, pinned] {
            // In one record, and each message in its own.
            for together in [true, false] {
                let identity = Arc::clone(&identity);
                let server = forge(move |forger| {
                    let messages = act(forger, &identity);
                    let each: Vec<_> =
                        if together { vec![&messages[..]] } else { messages.chunks(1).collect() };
                    for messages in each {
                        forger.say(messages);
                    }
                    forger.open();
                    forger.tell(&hello("forged"));
                });
                let outcomes = client.perform(&server.url(NAME), &[get()]);
                let expected = format!("no TLS connection: {}", fault.as_str());
                assert_eq!(outcomes[0].failure(), (NotSent, expected.as_str()), "{what}");
                // At most its own Finished: nothing of the request.
                let heard: usize = server.seen().heard.unwrap()[0].parse().unwrap();
                assert!(heard <= 5 + 4 + 32 + 1 + 16, "{heard} bytes after {what}");
            }
        }
    }
}

#[test]
fn what_a_server_may_do_in_a_handshake_is_accepted() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let client = Client::new(Trust::Authorities(&authorities));
    let identity = shared_identity(&authority);
    for kind in 0..4 {
        let identity = Arc::clone(&identity);
        let server = forge(move |forger| {
            match kind {
                // All in one record, each message in its own with padding, and with the record for old middleboxes.
                0 => {
                    let messages = forger.honest(&identity);
                    forger.say(&messages);
                }
                1 => {
                    let _ = forger.tcp.write_all(&record(20, &[1]));
                    for mut inner in forger.honest(&identity) {
                        inner.push(HANDSHAKE);
                        inner.extend([0; 100]);
                        forger.send(&inner);
                    }
                }
                // It asks for a certificate, and gets an empty list.
                _ => {
                    let extensions = forger.extensions();
                    let body = [0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3];
                    let request = forger.told(message(CERTIFICATE_REQUEST, &body));
                    let certificate = forger.certificate(&identity.chain);
                    let verify = forger.verify(&identity.key);
                    let finished = forger.finished();
                    forger.say(&[extensions, request, certificate, verify, finished]);
                    forger.hear(1);
                }
            }
            forger.open();
            // Its Finished and the request.
            forger.hear(2);
            if kind == 3 {
                // Empty records, tickets.
                for _ in 0..50 {
                    forger.send(&[23, 0, 0]);
                    forger.say(&[message(4, &[1; 200]), message(4, &[])]);
                }
            }
            forger.tell("HTTP/1.1 200 OK\r\ncontent-");
            forger.tell("length: 5\r\n\r\nhe");
            forger.tell("llo");
        });
        let outcomes = client.perform(&server.url(NAME), &[get()]);
        assert_eq!(outcomes[0].answer(), (200, "hello"), "{kind}");
    }
}

#[test]
fn what_has_no_place_in_an_open_connection_ends_it() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let client = Client::new(Trust::Authorities(&authorities));
    let identity = shared_identity(&authority);
    let mut cases: Vec<(String, bool, Vec<u8>)> = Vec::new();
    // Within encryption: no type at all, types that there are not, every other handshake message.
    for inner in [&[][..], &[0; 50], &[1, 2, 0], &[1, 20], &[1, 2, 99], &[HANDSHAKE], &[1, 21], &[9, 9, 21]] {
        cases.push((format!("inner {inner:?}"), true, inner.to_vec()));
    }
    for kind in (0..=30).chain([67, 254, 255]).filter(|kind| *kind != 4) {
        let mut inner = message(kind, &[0, 0]);
        inner.push(HANDSHAKE);
        cases.push((format!("message {kind}"), true, inner));
    }
    let mut hidden = message(4, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    hidden.extend(message(ENCRYPTED_EXTENSIONS, &[0, 0]));
    hidden.push(HANDSHAKE);
    cases.push(("a message behind a ticket".into(), true, hidden));
    // In clear.
    for kind in [20, 21, HANDSHAKE, 24] {
        cases.push((format!("clear {kind}"), false, record(kind, &[1, 0])));
    }
    cases.push(("a short record".into(), false, record(23, &[7; 16])));
    cases.push(("a longest record".into(), false, record(23, &[7; 16_641])));
    cases.push(("an undecryptable record".into(), false, record(23, &[7; 100])));
    for (what, encrypted, bytes) in cases {
        let identity = Arc::clone(&identity);
        let server = forge(move |forger| {
            let messages = forger.honest(&identity);
            forger.say(&messages);
            forger.open();
            forger.hear(2);
            if encrypted {
                forger.send(&bytes);
            } else {
                let _ = forger.tcp.write_all(&bytes);
            }
            forger.tell(&hello("hello"));
        });
        let outcomes = client.perform(&server.url(NAME), &[get()]);
        let (error, why) = outcomes[0].failure();
        assert!(error == Lost && why.starts_with("connection "), "{why} after {what}");
    }
}

#[test]
fn a_handshake_of_any_bytes_makes_no_panic() {
    let authority = Authority::new();
    let authorities = [authority.der()];
    let client = Client::new(Trust::Authorities(&authorities));
    let identity = shared_identity(&authority);
    let first = std::env::var("GRAFOLEAN_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = first.map_or(0..400, |seed| seed..seed + 1);
    let mut reasons = HashSet::new();
    for seed in seeds {
        println!("GRAFOLEAN_TEST_SEED={seed}");
        let identity = Arc::clone(&identity);
        // What is encrypted is right in every way but in its contents.
        let server = forge(move |forger| {
            let mut dice = Dice(seed);
            let messages = forger.honest(&identity);
            for mut message in messages {
                for _ in 0..dice.below(3) {
                    let at = dice.below(message.len());
                    let end = (at + dice.below(8)).min(message.len());
                    match dice.below(5) {
                        0 => message[at] = dice.below(256) as u8,
                        1 => message[at] = [0, 1, 0x7f, 0x80, 0xff][dice.below(5)],
                        2 => drop(message.drain(at..end)),
                        3 => message.truncate(at.max(1)),
                        _ => {
                            let part = message[at..end].to_vec();
                            message.splice(at..at, part);
                        }
                    }
                    if message.is_empty() {
                        message.push(8);
                    }
                }
                if dice.below(20) == 0 {
                    message.clear();
                }
                message.push([HANDSHAKE, 21, 23][dice.below(20).saturating_sub(17)]);
                forger.send(&message);
            }
        });
        let outcomes = client.perform(&server.url(NAME), &[get()]);
        let (_, why) = outcomes[0].failure();
        reasons.insert(why.to_owned());
    }
    println!("{reasons:#?}");
    assert!(first.is_some() || reasons.len() >= 8, "{reasons:#?}");
}

/// Posts a number every second.
struct Counter(Cell<i64>);

impl Bot for Counter {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = ();
    type Error = HandOverError;

    fn protocol(&self) -> Option<&str> {
        None
    }

    fn own_jobs(&self, _: u64, jobs: &mut dyn JobSink<()>) {
        jobs.add(NewJob::new(Intervals::one(Interval::new(1).unwrap()), ()));
    }

    async fn perform<C: Context<Bot = Self>>(
        &self,
        _: &(),
        _: &Due,
        cx: &mut C,
    ) -> Result<(), HandOverError> {
        self.0.set(self.0.get() + 1);
        cx.value("board.count", self.0.get())
    }
}

grafolean_embassy::core::inline_storage! {
    struct Memory for Counter {
        accounts: 1, entities: 0, links: 0, credentials: 0, sensors: 0, jobs: 1, spare: 1, intervals: 2,
        distinct_intervals: 1, runs: 1, cells: 64, element: 512, scratch: 128, listing: 0, states: 0,
        faults: 4, events: 4,
    }
}

const BACKEND: &str = r#"{
  "seed": 5,
  "accounts": [{"id": 1, "name": "One"}],
  "bots": [{"id": 41, "name": "count", "short_name": "count", "tied_to_account": 1,
    "token": "66666666-6666-4666-8666-666666666666"}]
}"#;

/// Runs a collector against the stand-in over TLS until it has so many values or for a while; whether it has.
fn collect(authority: &Authority, trusted: &Authority, values: u64, seconds: u64) -> bool {
    let config = Arc::new(authority.sign(|_| {}).config());
    let stand_in =
        StandIn::builder().config(Backend::from_json(BACKEND).unwrap()).tls(config).spawn_thread().unwrap();
    let url = stand_in.base_url();
    let url = BaseUrl::parse(&url).unwrap();
    assert!(url.https);
    let token = Token::parse(&stand_in.token("count").unwrap()).unwrap();
    let shared: Shared<Counter, Memory, 1> = Shared::new(Settings::board(token, url.prefix), Memory::new());
    let authorities = [trusted.der()];
    let settings = TlsSettings::new(Trust::Authorities(&authorities));
    let (mut read, mut write, mut buf) = (vec![0; READ], [0; LEAST_WRITE], [0; 1024]);
    let names = Names;
    let tcp = NalConnector::new(Host, &names);
    let clock = || shared.with(|c| c.wall()).map(|unix| unix.0 / 1000);
    let tls = Tls::new(tcp, Dice(6), clock, settings, &mut read, &mut write).unwrap();
    let mut http = Http::new(tls, url, &mut buf, Limits { connect_ms: 20_000, ..Limits::DEFAULT }).unwrap();
    let (bot, driver) = (Counter(Cell::new(0)), DriverSettings::default());
    let ends = async {
        for _ in 0..seconds * 50 {
            if stand_in.value_count() >= values {
                break;
            }
            Timer::after_millis(20).await;
        }
        shared.stop(5_000);
    };
    let (ledger, ()) = support::real(PATIENCE * 3, join(run(&bot, &shared, &mut http, &(), &driver), ends));
    let ledger = ledger.unwrap();
    assert!(ledger.balanced(), "{ledger}");
    assert_eq!(ledger.delivered, stand_in.value_count());
    stand_in.value_count() >= values
}

#[test]
fn a_collector_delivers_over_tls_and_not_to_a_server_with_a_wrong_certificate() {
    let (authority, other) = (Authority::new(), Authority::new());
    assert!(collect(&authority, &authority, 3, 40));
    assert!(!collect(&authority, &other, 1, 3));
}
