//! The firmware with TLS on an emulated board: it posts over HTTPS to a backend whose certificate is right, and refuses one whose is not.
//!
//! It needs QEMU and a compiler for the board, so it is ignored by a plain `cargo test`: `examples/emulation/run test`.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use grafolean_emulation::{Board, Firmware, HOST};
use grafolean_stand_in::{Config, Misbehaviour, Rule, StandIn, StandInThread};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A handshake of the emulated board takes about a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);
const PING_TOKEN: &str = "66666666-6666-4666-8666-666666666666";
const SENSOR_TOKEN: &str = "77777777-7777-4777-8777-777777777777";
const BACKEND: &str = r#"{
  "seed": 5,
  "accounts": [{"id": 1, "name": "Boards",
    "credentials": [{"id": 11, "name": "c", "protocol": "ping",
      "details": {"n_packets": "2", "sleep_packets": "0.1", "timeout": 0.5, "retry": 0}}],
    "sensors": [{"id": 21, "name": "s", "protocol": "ping", "default_interval": 1, "details": {}}],
    "entities": [
      {"id": 31, "name": "host", "entity_type": "device", "details": {"ipv4": "10.0.2.2"},
       "protocols": {"ping": {"credential": 11, "bot": 41, "sensors": [{"sensor": 21, "interval": null}]}}}]}],
  "bots": [
    {"id": 41, "name": "ping", "short_name": "ping", "protocol": "ping", "token": "66666666-6666-4666-8666-666666666666"},
    {"id": 42, "name": "board", "short_name": "board", "protocol": null, "tied_to_account": 1,
     "token": "77777777-7777-4777-8777-777777777777"}]
}"#;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// What a certificate says for this name or address.
fn server(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

/// A backend with such a certificate of this authority.
fn backend(authority: &Authority, params: &CertificateParams) -> StandInThread {
    let key = KeyPair::generate().unwrap();
    let chain = vec![params.signed_by(&key, authority).unwrap().der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Config::from_json(BACKEND).unwrap();
    StandIn::builder().config(config).tls(Arc::new(tls)).spawn_thread().unwrap()
}

/// The authority that the firmware trusts, and the firmware: built once for all tests here.
fn built() -> &'static (Authority, Firmware) {
    static BUILT: OnceLock<(Authority, Firmware)> = OnceLock::new();
    BUILT.get_or_init(|| {
        let trusted = authority("trusted");
        let ca = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ca.pem");
        std::fs::write(&ca, trusted.pem()).unwrap();
        let began = Instant::now();
        let firmware = Firmware::build_with_tls(&ca).unwrap();
        println!(
            "built in {:?}: flash {} bytes, ram {} bytes without call stack",
            began.elapsed(),
            firmware.flash_bytes,
            firmware.ram_bytes
        );
        (trusted, firmware)
    })
}

/// A board with both bots: a value a second, a refresh every second.
fn start(firmware: &Firmware, stand_in: &StandIn) -> Board {
    let board = Board::builder(firmware)
        .backend(stand_in)
        .setting("PING_BOT_TOKEN", PING_TOKEN)
        .setting("SENSOR_BOT_TOKEN", SENSOR_TOKEN)
        .setting("SENSOR_INTERVAL", "1")
        .setting("JOBS_REFRESH_INTERVAL", "1");
    board.start().unwrap()
}

fn shows_no_token(log: &str) {
    assert!(!log.contains(&PING_TOKEN[..8]) && !log.contains(&SENSOR_TOKEN[..8]), "{log}");
}

#[test]
#[ignore = "needs QEMU"]
fn a_board_posts_its_values_over_https_to_a_backend_with_a_certificate_of_its_authority() {
    let (trusted, firmware) = built();
    let stand_in = backend(trusted, &server(HOST));
    assert!(stand_in.base_url_at(HOST).starts_with("https://"));
    let began = Instant::now();
    let mut board = start(firmware, &stand_in);
    let values = |s: &StandIn, path: &str| s.values_of(1, path);
    let first = stand_in.wait_for(PATIENCE, |s| s.value_count() > 0);
    first.unwrap_or_else(|error| panic!("{error}\n{}", board.log()));
    println!("the first value after {:?}", began.elapsed());
    let all = stand_in.wait_for(PATIENCE, |s| {
        values(s, "entity.31.ping.success").len() >= 5 && values(s, "board.temperature").len() >= 5
    });
    all.unwrap_or_else(|error| panic!("{error}\n{}", board.log()));
    board.press('q').unwrap();
    let code = board.wait(PATIENCE).unwrap();
    let log = board.log();
    if let Some(stack) = log.lines().rfind(|line| line.starts_with("report stack")) {
        println!("{stack}");
    }
    assert_eq!(code, 0, "{log}");
    assert!(values(&stand_in, "entity.31.ping.success").iter().all(|(_, v)| *v == 1.0), "{log}");
    assert!(values(&stand_in, "board.temperature").iter().all(|(_, v)| (20.0..30.0).contains(v)), "{log}");
    shows_no_token(&log);
    // Each bot's requests share its connection, so there was one handshake for each.
    let requests = stand_in.requests();
    assert_eq!(requests.iter().filter(|r| r.nth_on_connection == 1).count(), 2, "{requests:?}");
    assert!(log.contains("random numbers for TLS are the host's"), "{log}");
}

#[test]
#[ignore = "needs QEMU"]
fn a_board_sends_nothing_to_a_backend_with_a_wrong_certificate_and_says_what_is_wrong_with_it() {
    let (trusted, firmware) = built();
    let other = authority("other");
    for (authority, name, why) in [
        (&other, HOST, "the server's certificate is of an unknown issuer"),
        (trusted, "10.0.2.3", "the server's certificate is for another name"),
    ] {
        let stand_in = backend(authority, &server(name));
        let mut board = start(firmware, &stand_in);
        // Each bot says so once, and tries again.
        board.wait_for_line(PATIENCE, why, 2).unwrap();
        board.wait_for_line(PATIENCE, "no connection to the backend; next try", 6).unwrap();
        board.press('q').unwrap();
        // Without a configuration nothing was collected, so nothing waits.
        assert_eq!(board.wait(PATIENCE).unwrap(), 0, "{}", board.log());
        assert!(stand_in.requests().is_empty(), "{:?}", stand_in.requests());
        assert_eq!(stand_in.value_count(), 0);
        shows_no_token(&board.log());
    }
}

#[test]
#[ignore = "needs QEMU"]
fn a_board_that_knows_the_time_refuses_a_certificate_that_has_expired() {
    let (trusted, firmware) = built();
    let mut expired = server(HOST);
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let stand_in = backend(trusted, &expired);
    stand_in.misbehave(Rule::new(Misbehaviour::IdleClose(Duration::ZERO))).unwrap();
    let mut board = start(firmware, &stand_in);
    // The first answer tells the time, which counts from the second connection on.
    board.wait_for_line(PATIENCE, "the clock is known", 2).unwrap();
    board.wait_for_line(PATIENCE, "the server's certificate has expired", 2).unwrap();
    board.press('q').unwrap();
    assert_eq!(board.wait(PATIENCE).unwrap(), 0, "{}", board.log());
    // The first answer of each bot, and nothing after it.
    let requests = stand_in.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert_eq!(stand_in.value_count(), 0);
}

#[test]
#[ignore = "needs QEMU"]
fn a_firmware_with_tls_refuses_an_address_without_it() {
    let (_, firmware) = built();
    let board = Board::builder(firmware).setting("BACKEND_URL", "http://10.0.2.2/api");
    let mut board = board.setting("PING_BOT_TOKEN", PING_TOKEN).start().unwrap();
    assert_eq!(board.wait(PATIENCE).unwrap(), 2, "{}", board.log());
    assert!(board.log().contains("the backend's URL is http, but the connector has TLS"), "{}", board.log());
}
