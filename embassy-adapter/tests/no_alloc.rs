//! A whole collector on a board's terms: nothing is allocated once everything is set up.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "all/support/allocations.rs"]
mod allocations;
#[path = "all/support/backend.rs"]
mod backend;
#[path = "all/support/mod.rs"]
mod support;

use std::net::IpAddr;

use embassy_futures::join::join;
use embassy_time::Timer;
use grafolean_bot_ping::{Host, PingBot, PingFault, Pinger};
use grafolean_embassy::core::api::{Method, Resource, Token};
use grafolean_embassy::core::bot::{Anything, Bot, Context, HandOverError, JobSink, NewJob};
use grafolean_embassy::core::collector::Settings;
use grafolean_embassy::core::interval::{Interval, Intervals};
use grafolean_embassy::core::jobs::Due;
use grafolean_embassy::core::outbox::Ledger;
use grafolean_embassy::core::storage::Storage;
use grafolean_embassy::core::values::Decimal;
use grafolean_embassy::{DriverSettings, Shared, run};

use allocations::allocations;
use backend::{Answer, Backend, TOKEN};

/// Reads a thermometer, which takes its time.
struct Thermometer;

impl Bot for Thermometer {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = u8;
    type Error = HandOverError;

    fn protocol(&self) -> Option<&str> {
        None
    }

    fn own_jobs(&self, _: u64, jobs: &mut dyn JobSink<u8>) {
        for (n, name) in ["first", "second", "third"].into_iter().enumerate() {
            let interval = Intervals::one(Interval::new(10 + n as i64).unwrap());
            jobs.add(NewJob::new(interval, n as u8).named(name));
        }
    }

    async fn perform<C: Context<Bot = Self>>(
        &self,
        job: &u8,
        due: &Due,
        cx: &mut C,
    ) -> Result<(), HandOverError> {
        cx.sleep_ms(750).await;
        cx.value(
            format_args!("board.{}", due.key.name),
            Decimal { mantissa: 215 + i64::from(*job), exponent: -1 },
        )
    }
}

grafolean_embassy::core::inline_storage! {
    struct Memory for Thermometer {
        accounts: 1, entities: 0, links: 0, credentials: 0, sensors: 0, jobs: 4, spare: 1, intervals: 8,
        distinct_intervals: 4, runs: 2, cells: 32, element: 512, scratch: 128, listing: 0, states: 0,
        faults: 4, events: 4,
    }
}

fn answer(method: Method, resource: Resource) -> Answer {
    match (method, resource) {
        (Method::Get, Resource::Profile) => Answer::Is(
            200,
            r#"{"user_id":5,"user_type":"bot","record":{"protocol":null,"tied_to_account":1}}"#,
        ),
        (Method::Put, Resource::Values(1)) => Answer::Is(204, ""),
        other => panic!("{other:?}"),
    }
}

/// Collects for a minute of simulated time, and checks that nothing is allocated meanwhile.
fn collect<B: Bot, S: Storage<B>>(bot: &B, memory: S, backend: &Backend) -> Ledger {
    let token = Token::parse(TOKEN).unwrap();
    let settings = Settings { wait_until_ready: false, ..Settings::board(token, "/api") };
    let shared: Shared<B, S, 2> = Shared::new(settings, memory);
    let mut transport = backend;
    // The first use of a thread's timers, of its waker and of the wake-up may allocate.
    support::simulate(1, Timer::after_millis(1));
    support::simulate(200, async {
        let before = allocations();
        let driver_settings = DriverSettings::default();
        let stop = async {
            Timer::after_secs(60).await;
            shared.stop(5_000);
        };
        let ledger = join(run(bot, &shared, &mut transport, &(), &driver_settings), stop).await.0.unwrap();
        assert_eq!(allocations(), before);
        assert!(ledger.balanced() && ledger.queued == 0, "{ledger}");
        ledger
    })
}

#[test]
fn a_collector_does_not_allocate_from_its_first_request_to_its_end() {
    let backend = Backend::new(answer);
    let ledger = collect(&Thermometer, Memory::new(), &backend);
    assert!(ledger.delivered >= 15, "{ledger}");
    assert!(backend.holding(r#"{"p":"board.third","v":21.7,"t":"#) >= 4);
    // The counter does count.
    let before = allocations();
    let boxed = std::hint::black_box(Box::new(1));
    assert_eq!(allocations(), before + *boxed);
}

/// Every address answers after 1.5 ms.
struct Lab;

impl Pinger for Lab {
    type Target = IpAddr;
    async fn resolve(&self, host: Host<'_>) -> Result<IpAddr, PingFault> {
        match host {
            Host::Ip(ip) => Ok(ip),
            Host::Name(_) => Err(PingFault::NameNotFound),
        }
    }
    async fn ping(&self, _: IpAddr, _: u32) -> Result<Option<u32>, PingFault> {
        Ok(Some(1500))
    }
}

type Ping = PingBot<Lab>;

grafolean_embassy::core::inline_storage! {
    struct PingMemory for Ping {
        accounts: 1, entities: 4, links: 2, credentials: 2, sensors: 2, jobs: 4, spare: 1, intervals: 8,
        distinct_intervals: 4, runs: 2, cells: 128, element: 1024, scratch: 128, listing: 0, states: 0,
        faults: 4, events: 8,
    }
}

fn devices(method: Method, resource: Resource) -> Answer {
    let body = match (method, resource) {
        (Method::Get, Resource::Profile) => {
            r#"{"user_id":5,"record":{"protocol":"ping","tied_to_account":null}}"#
        }
        (Method::Get, Resource::Accounts) => r#"{"list":[{"id":1,"name":"One"}]}"#,
        (Method::Get, Resource::Entities(1)) => {
            r#"{"list":[{"id":11,"name":"a","entity_type":"device","parent":null,"details":{"ipv4":"192.0.2.1"},
            "protocols":{"ping":{"credential":3,"sensors":[{"sensor":4,"interval":null}],"bot":5}}},
            {"id":12,"name":"b","entity_type":"device","parent":null,"details":{"ipv6":"2001:db8::1"},
            "protocols":{"ping":{"credential":3,"sensors":[{"sensor":4,"interval":10}],"bot":null}}}]}"#
        }
        (Method::Get, Resource::Credentials(1)) => {
            r#"{"list":[{"id":3,"name":"c","protocol":"ping","details":{"n_packets":"2"}}]}"#
        }
        (Method::Get, Resource::Sensors(1)) => {
            r#"{"list":[{"id":4,"name":"s","protocol":"ping","default_interval":5,"details":{}}]}"#
        }
        (Method::Put, Resource::Values(1)) => return Answer::Is(204, ""),
        other => panic!("{other:?}"),
    };
    Answer::Is(200, body)
}

#[test]
fn the_ping_bot_does_not_allocate_from_its_first_request_to_its_end() {
    let backend = Backend::new(devices);
    let ledger = collect(&Ping::new(Lab), PingMemory::new(), &backend);
    assert!(ledger.delivered >= 60, "{ledger}");
    assert!(backend.holding(r#"{"p":"entity.12.ping.success","v":1,"t":"#) >= 4);
}
