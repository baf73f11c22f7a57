//! TLS of the HTTP client against servers on loopback with certificates made for the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::http_support::*;
use grafolean_std::http::{Endpoint, HttpClient, HttpConfig, HttpErrorKind, Phase, SetupError, TlsFault};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;

/// An authority and the file with its certificate, which goes away with this.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file =
            std::env::temp_dir().join(format!("grafolean-std-tls-{}-{number}.pem", std::process::id()));
        std::fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file }
    }

    fn acceptor(
        &self,
        change: impl FnOnce(&mut CertificateParams),
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsAcceptor {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    fn trusted(&self) -> HttpConfig {
        HttpConfig { ca_file: Some(self.file.clone()), ..generous() }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Serves "hello" over TLS on each connection whose handshake succeeds.
async fn start(acceptor: TlsAcceptor) -> Server {
    Server::start(move |peer| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(peer.stream).await {
                Peer::new(stream, peer.number, peer.seen).serve("hello").await;
            }
        }
    })
    .await
}

fn https(server: &Server, config: HttpConfig) -> HttpClient {
    HttpClient::new(Endpoint { https: true, ..server.endpoint() }, config).unwrap()
}

async fn fault(client: &HttpClient) -> (TlsFault, String) {
    let error = fetch(client, post()).await.unwrap_err();
    assert!(!error.maybe_processed());
    assert!(error.to_string().starts_with("https://127.0.0.1:"), "{error}");
    match error.kind() {
        HttpErrorKind::Tls { fault } => (fault.clone(), error.to_string()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_is_accepted_over_tls_1_2_and_1_3() {
    let authority = Authority::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let server = start(authority.acceptor(|_| {}, &[version])).await;
        for host in ["127.0.0.1", "localhost"] {
            let endpoint = Endpoint { https: true, host: host.to_owned(), port: server.address.port() };
            let client = HttpClient::new(endpoint, authority.trusted()).unwrap();
            for request in [get(), put(), post()] {
                assert_eq!(fetch(&client, request).await.unwrap(), (200, b"hello".to_vec()));
            }
        }
        assert_eq!(server.seen.connections(), [1, 1, 1, 2, 2, 2]);
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = start(authority.acceptor(|_| {}, rustls::ALL_VERSIONS)).await;
    let (fault, text) = fault(&https(&server, other.trusted())).await;
    assert_eq!(fault, TlsFault::UnknownIssuer);
    assert!(text.contains("unknown issuer") && text.contains("GRAFOLEAN_CA_FILE"), "{text}");
    assert!(server.seen.received().is_empty(), "nothing may have been sent");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_with_its_names() {
    let authority = Authority::new();
    let other_name = |params: &mut CertificateParams| {
        *params = CertificateParams::new(vec!["other.example".to_owned()]).unwrap();
    };
    let server = start(authority.acceptor(other_name, rustls::ALL_VERSIONS)).await;
    let (fault, text) = fault(&https(&server, authority.trusted())).await;
    assert!(matches!(fault, TlsFault::WrongName { .. }), "{fault:?}");
    assert!(text.contains("other.example"), "{text}");
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_refused() {
    let authority = Authority::new();
    let past = |params: &mut CertificateParams| params.not_after = date_time_ymd(2001, 1, 1);
    let server = start(authority.acceptor(past, rustls::ALL_VERSIONS)).await;
    assert_eq!(fault(&https(&server, authority.trusted())).await.0, TlsFault::Expired);
    let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(4000, 1, 1);
    let server = start(authority.acceptor(future, rustls::ALL_VERSIONS)).await;
    assert_eq!(fault(&https(&server, authority.trusted())).await.0, TlsFault::NotYetValid);
}

#[tokio::test]
async fn a_plain_server_spoken_to_by_tls_is_told() {
    let authority = Authority::new();
    let server = Server::start(|mut peer| async move {
        peer.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        peer.until_closed().await;
    })
    .await;
    let (fault, text) = fault(&https(&server, authority.trusted())).await;
    assert_eq!(fault, TlsFault::NotTls);
    assert!(text.contains("http:// instead of https://"), "{text}");
}

#[tokio::test]
async fn a_tls_server_spoken_to_without_is_told() {
    let authority = Authority::new();
    let server = start(authority.acceptor(|_| {}, rustls::ALL_VERSIONS)).await;
    let error = fetch(&server.client(generous()), get()).await.unwrap_err();
    assert!(matches!(error.kind(), HttpErrorKind::Protocol { tls_server: true, .. }), "{error:?}");
    assert!(error.to_string().contains("https:// instead of http://"), "{error}");
}

#[tokio::test]
async fn a_handshake_that_is_closed_refused_or_silent_is_told() {
    let authority = Authority::new();
    let server = Server::start(|mut peer| async move {
        use tokio::io::AsyncReadExt;
        let _ = peer.stream.read(&mut [0; 16 * 1024]).await;
    })
    .await;
    assert_eq!(fault(&https(&server, authority.trusted())).await.0, TlsFault::Closed);

    let server = Server::start(|mut peer| async move {
        // A fatal alert: protocol_version.
        peer.send([21, 3, 3, 0, 2, 2, 70]).await;
        peer.until_closed().await;
    })
    .await;
    let (fault, _) = fault(&https(&server, authority.trusted())).await;
    assert_eq!(fault, TlsFault::Alert { alert: "ProtocolVersion".to_owned() });

    let server = Server::start(|mut peer| async move { peer.until_closed().await }).await;
    let limit = Duration::from_millis(100);
    let client = https(&server, HttpConfig { connect_limit: limit, ..authority.trusted() });
    let error = fetch(&client, get()).await.unwrap_err();
    assert_eq!(error.kind(), &HttpErrorKind::Timeout { phase: Phase::Tls, limit });
    assert!(error.to_string().contains("TLS handshake"), "{error}");
    until("the connection is closed", || server.seen.open() == 0).await;
}

#[tokio::test]
async fn a_get_on_a_tls_connection_closed_in_order_or_not_is_repeated() {
    for in_order in [true, false] {
        let authority = Authority::new();
        let acceptor = authority.acceptor(|_| {}, rustls::ALL_VERSIONS);
        let server = Server::start(move |peer| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(stream) = acceptor.accept(peer.stream).await else { return };
                let mut peer = Peer::new(stream, peer.number, peer.seen);
                if peer.number > 1 {
                    return peer.serve("y").await;
                }
                peer.request().await;
                peer.answer(200, "x").await;
                peer.request().await;
                if in_order {
                    // Sends close_notify, which is not a byte of an answer.
                    let _ = tokio::io::AsyncWriteExt::shutdown(&mut peer.stream).await;
                }
            }
        })
        .await;
        let client = https(&server, authority.trusted());
        fetch(&client, get()).await.unwrap();
        assert_eq!(fetch(&client, get()).await.unwrap(), (200, b"y".to_vec()));
        assert_eq!(server.seen.connections(), [1, 1, 2]);
    }
}

#[tokio::test]
async fn a_body_cut_within_tls_is_an_error() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(|_| {}, rustls::ALL_VERSIONS);
    let server = Server::start(move |peer| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(peer.stream).await else { return };
            let mut peer = Peer::new(stream, peer.number, peer.seen);
            peer.request().await;
            // Without a length, the body ends with the connection: a cut must not pass for an end.
            peer.send("HTTP/1.1 200 OK\r\n\r\nhalf").await;
        }
    })
    .await;
    let error = fetch(&https(&server, authority.trusted()), get()).await.unwrap_err();
    assert!(matches!(error.kind(), HttpErrorKind::Closed { .. }), "{error:?}");
}

#[test]
fn an_unusable_file_of_authorities_is_named() {
    let authority = Authority::new();
    let new = |path: PathBuf| {
        let endpoint = Endpoint { https: true, host: "localhost".to_owned(), port: 443 };
        HttpClient::new(endpoint, HttpConfig { ca_file: Some(path), ..HttpConfig::default() }).map(|_| ())
    };
    assert_eq!(new(authority.file.clone()), Ok(()));
    std::fs::write(&authority.file, "no certificate").unwrap();
    for path in [PathBuf::from("/nowhere/ca.pem"), authority.file.clone()] {
        let error = new(path.clone()).unwrap_err();
        assert!(matches!(&error, SetupError::CaFile { path: p, .. } if *p == path), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    std::fs::write(&authority.file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    assert!(matches!(new(authority.file.clone()), Err(SetupError::CaFile { .. })));
}

/// The system's store is named by the environment, so the test runs itself again with another one.
#[test]
fn without_any_trusted_authority_no_client_is_made_and_the_extra_file_alone_is_enough() {
    const MARK: &str = "GRAFOLEAN_STD_TEST_WITHOUT_ROOTS";
    const NAME: &str =
        "http_tls::without_any_trusted_authority_no_client_is_made_and_the_extra_file_alone_is_enough";
    if std::env::var_os(MARK).is_none() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME])
            .env("SSL_CERT_FILE", "/nowhere/ca.pem")
            .env_remove("SSL_CERT_DIR")
            .env(MARK, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let endpoint = || Endpoint { https: true, host: "localhost".to_owned(), port: 443 };
    let error = HttpClient::new(endpoint(), HttpConfig::default()).map(|_| ()).unwrap_err();
    assert!(matches!(error, SetupError::NoRoots { .. }), "{error:?}");
    assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
    assert!(error.to_string().contains("GRAFOLEAN_CA_FILE"), "{error}");
    let authority = Authority::new();
    assert!(HttpClient::new(endpoint(), authority.trusted()).is_ok());
    // Without TLS no authority is needed.
    assert!(HttpClient::new(Endpoint { https: false, ..endpoint() }, HttpConfig::default()).is_ok());
}
