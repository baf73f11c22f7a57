//! The same bot crate with memory inline and no executor but a loop, on one tokio task, and on threads: each time with
//! a real HTTP backend.
#![cfg(feature = "nal")]

use std::net::IpAddr;
use std::time::Duration;

use crate::support;
use crate::tcp;
use embassy_futures::join::join;
use embassy_time::Timer;
use embedded_nal_async::{AddrType, Dns};
use grafolean_bot_ping::{Host as Pinged, PingBot, PingFault, Pinger};
use grafolean_embassy::core::api::{BaseUrl, Token};
use grafolean_embassy::core::collector::Settings;
use grafolean_embassy::core::outbox::Ledger;
use grafolean_embassy::http::{Http, Limits};
use grafolean_embassy::nal::NalConnector;
use grafolean_embassy::{DriverSettings, Shared, run};
use grafolean_stand_in::{Config as Backend, StandIn, StandInThread};
use grafolean_std::driver::{Config, Runner};

const PATIENCE: Duration = Duration::from_secs(30);
const BACKEND: &str = r#"{
  "seed": 5,
  "accounts": [{"id": 1, "name": "One",
    "credentials": [{"id": 11, "name": "c", "protocol": "ping",
      "details": {"n_packets": "2", "sleep_packets": "0.01", "timeout": 1.0, "retry": 0}}],
    "sensors": [{"id": 21, "name": "s", "protocol": "ping", "default_interval": 1, "details": {}}],
    "entities": [
      {"id": 31, "name": "a", "entity_type": "device", "details": {"ipv4": "192.0.2.1"},
       "protocols": {"ping": {"credential": 11, "bot": 41, "sensors": [{"sensor": 21, "interval": null}]}}},
      {"id": 32, "name": "b", "entity_type": "device", "details": {"ipv6": "2001:db8::1"},
       "protocols": {"ping": {"credential": 11, "bot": 41, "sensors": [{"sensor": 21, "interval": 2}]}}},
      {"id": 33, "name": "silent", "entity_type": "device", "details": {"host": "silent.example"},
       "protocols": {"ping": {"credential": 11, "bot": 41, "sensors": [{"sensor": 21, "interval": 1}]}}}]}],
  "bots": [{"id": 41, "name": "ping", "short_name": "ping", "protocol": "ping",
    "token": "66666666-6666-4666-8666-666666666666"}]
}"#;

/// Addresses answer after 1.5 ms; the only name there is does not answer.
struct Lab;

impl Pinger for Lab {
    type Target = Option<IpAddr>;
    async fn resolve(&self, host: Pinged<'_>) -> Result<Self::Target, PingFault> {
        match host {
            Pinged::Ip(ip) => Ok(Some(ip)),
            Pinged::Name("silent.example") => Ok(None),
            Pinged::Name(_) => Err(PingFault::NameNotFound),
        }
    }
    async fn ping(&self, target: Self::Target, _timeout_ms: u32) -> Result<Option<u32>, PingFault> {
        Ok(target.map(|_| 1500))
    }
}

type Bot = PingBot<Lab>;

grafolean_embassy::core::inline_storage! {
    struct Memory for Bot {
        accounts: 1, entities: 4, links: 2, credentials: 2, sensors: 2, jobs: 4, spare: 1, intervals: 8,
        distinct_intervals: 4, runs: 2, cells: 128, element: 1024, scratch: 128, listing: 0, states: 0,
        faults: 4, events: 8,
    }
}

struct NoNames;

impl Dns for NoNames {
    type Error = ();
    async fn get_host_by_name(&self, _: &str, _: AddrType) -> Result<IpAddr, ()> {
        Err(())
    }
    async fn get_host_by_address(&self, _: IpAddr, _: &mut [u8]) -> Result<usize, ()> {
        Err(())
    }
}

fn backend() -> StandInThread {
    StandIn::builder().config(Backend::from_json(BACKEND).unwrap()).spawn_thread().unwrap()
}

/// Each device has been pinged twice.
fn is_enough(stand_in: &StandIn) -> bool {
    [31, 32, 33].iter().all(|id| stand_in.values_of(1, &format!("entity.{id}.ping.success")).len() >= 2)
}

/// Every series that there must be, and nothing else, with the right numbers; the ledger knows them all.
fn assert_pinged(stand_in: &StandIn, ledger: &Ledger) {
    let mut expected = Vec::new();
    for id in [31, 32, 33] {
        let up = if id == 33 { 0.0 } else { 1.0 };
        expected.push((format!("entity.{id}.ping.success"), up));
        for packet in 0..2 {
            expected.push((format!("entity.{id}.ping.p{packet}.ok"), up));
            if id != 33 {
                expected.push((format!("entity.{id}.ping.p{packet}.rtt"), 0.0015));
            }
        }
    }
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    let mut paths = stand_in.read(|b| b.paths(1));
    paths.sort();
    assert_eq!(paths, expected.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>());
    for (path, value) in &expected {
        let values = stand_in.values_of(1, path);
        assert!(values.len() >= 2 && values.iter().all(|(_, v)| v == value), "{path}: {values:?}");
    }
    assert!(ledger.balanced(), "{ledger}");
    assert_eq!((ledger.collected, ledger.queued), (ledger.delivered, 0), "{ledger}");
    assert_eq!(ledger.delivered, stand_in.value_count(), "{ledger}");
}

#[test]
fn the_ping_bot_runs_in_inline_memory_on_a_single_threaded_loop() {
    let stand_in = backend();
    let url = stand_in.base_url();
    let url = BaseUrl::parse(&url).unwrap();
    let token = Token::parse(&stand_in.token("ping").unwrap()).unwrap();
    let settings = Settings { refresh_interval_s: 2, ..Settings::board(token, url.prefix) };
    let shared: Shared<Bot, Memory, 2> = Shared::new(settings, Memory::new());
    let mut buf = [0; 1024];
    let mut http =
        Http::new(NalConnector::new(tcp::Host, &NoNames), url, &mut buf, Limits::default()).unwrap();
    let (bot, driver) = (Bot::new(Lab), DriverSettings::default());
    let ends = async {
        while !is_enough(&stand_in) {
            Timer::after_millis(20).await;
        }
        shared.stop(5_000);
    };
    let (ledger, ()) = support::real(PATIENCE, join(run(&bot, &shared, &mut http, &(), &driver), ends));
    assert_pinged(&stand_in, &ledger.unwrap());
}

fn on_tokio(threads: Option<usize>) {
    let stand_in = backend();
    let mut config = Config::new(&stand_in.base_url(), &stand_in.token("ping").unwrap()).unwrap();
    config.collector.refresh_interval_s = 2;
    let runner = Runner::new(Bot::new(Lab), config).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(async {
        let enough = async {
            StandIn::wait_for(&stand_in, PATIENCE, is_enough).await.unwrap();
        };
        match threads {
            None => runner.run(enough).await,
            Some(n) => runner.run_on_threads(n, enough).await.unwrap(),
        }
    });
    assert_pinged(&stand_in, &report.ledger);
}

#[test]
fn the_ping_bot_runs_on_one_tokio_task() {
    on_tokio(None);
}

#[test]
fn the_ping_bot_runs_on_threads() {
    on_tokio(Some(3));
}
