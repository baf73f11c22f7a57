//! A whole collector over HTTP, with a server in memory, on simulated time.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use embassy_futures::join::join;
use embassy_time::Timer;
use grafolean_embassy::core::api::{BaseUrl, Token};
use grafolean_embassy::core::bot::{Bot, Context, EntityView, HandOverError, JobSink, NewJob};
use grafolean_embassy::core::collector::Settings;
use grafolean_embassy::core::jobs::Due;
use grafolean_embassy::core::outbox::Ledger;
use grafolean_embassy::http::{Http, Limits};
use grafolean_embassy::{DriverSettings, Shared, run};
use serde::Deserialize;

use crate::support::simulate;
use crate::wire::{Act, Arrived, Wire, send};

const TOKEN: &str = "3bfae491-8c49-42ca-8332-0ae431d59014";
const URL: &str = "http://grafolean.lan:8080/api";

#[derive(Clone, Deserialize)]
struct Host {
    address: heapless::String<16>,
}

#[derive(Clone, Deserialize)]
struct Packets {
    packets: u8,
}

#[derive(Clone, Deserialize)]
struct Nothing {}

/// Asks each entity's host, which takes 400 ms, and posts a value.
struct Lab;

impl Bot for Lab {
    type Name = ();
    type Entity = Host;
    type Credential = Packets;
    type Sensor = Nothing;
    type Job = ();
    type Error = HandOverError;

    fn protocol(&self) -> Option<&str> {
        Some("lab")
    }

    fn entity_jobs(&self, entity: &EntityView<'_, Self>, jobs: &mut dyn JobSink<()>) {
        let intervals = entity.intervals(jobs);
        jobs.add(NewJob::new(intervals, ()));
    }

    async fn perform<C: Context<Bot = Self>>(
        &self,
        _: &(),
        due: &Due,
        cx: &mut C,
    ) -> Result<(), HandOverError> {
        let (Some(host), Some(credential)) = (cx.entity(), cx.credential()) else { return Ok(()) };
        cx.sleep_ms(400).await;
        let path = format_args!("e.{}.{}", due.key.entity, host.address);
        cx.value(path, credential.packets)
    }
}

grafolean_embassy::core::inline_storage! {
    struct Memory for Lab {
        accounts: 2, entities: 16, links: 4, credentials: 4, sensors: 8, jobs: 16, spare: 1, intervals: 32,
        distinct_intervals: 8, runs: 2, cells: 64, element: 1024, scratch: 128, listing: 0, states: 0,
        faults: 8, events: 8,
    }
}

fn ok(body: &str) -> Vec<Act> {
    // As the application server sends it, in chunks for a change.
    let date = "Thu, 01 Jan 2026 00:00:00 GMT";
    let (a, b) = body.split_at(body.len() / 2);
    let text = format!(
        "HTTP/1.1 200 OK\r\ndate: {date}\r\nserver: uvicorn\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\n\r\n",
        a.len(),
        b.len()
    );
    vec![Act::Pause(15), send(&text)]
}

/// A backend with 16 entities of 10 s.
fn backend(arrived: &Arrived) -> Vec<Act> {
    let request = arrived.head.lines().next().unwrap().replace(&format!("?b={TOKEN} HTTP/1.1"), "");
    match request.as_str() {
        "GET /api/profile/" => {
            ok(r#"{"user_id":5,"user_type":"bot","record":{"protocol":"lab","tied_to_account":null}}"#)
        }
        "GET /api/accounts/" => ok(r#"{"list":[{"id":1,"name":"a"}]}"#),
        "GET /api/accounts/1/entities/" => {
            let entities: Vec<String> = (101..117)
                .map(|id| {
                    format!(
                        r#"{{"id":{id},"name":"é \"{id}\"","entity_type":"device","parent":null,"details":{{"address":"h{id}"}},"protocols":{{"lab":{{"credential":1,"sensors":[{{"sensor":2,"interval":null}}],"bot":5}}}}}}"#
                    )
                })
                .collect();
            ok(&format!(r#"{{"list":[{}]}}"#, entities.join(",")))
        }
        "GET /api/accounts/1/credentials/" => {
            ok(r#"{"list":[{"id":1,"name":"c","protocol":"lab","details":{"packets":"3"}}]}"#)
        }
        "GET /api/accounts/1/sensors/" => {
            ok(r#"{"list":[{"id":2,"name":"s","protocol":"lab","details":{},"default_interval":10}]}"#)
        }
        "PUT /api/accounts/1/values/" => vec![Act::Pause(20), send("HTTP/1.1 204 No Content\r\n\r\n")],
        other => panic!("{other}"),
    }
}

/// Runs for `seconds` against `wire`: the ledger.
fn collect(wire: &Wire<'_>, seconds: u64) -> Ledger {
    let url = BaseUrl::parse(URL).unwrap();
    let settings =
        Settings { wait_until_ready: false, ..Settings::board(Token::parse(TOKEN).unwrap(), url.prefix) };
    let shared: Shared<Lab, Memory, 2> = Shared::new(settings, Memory::new());
    let mut buf = [0; 1024];
    let mut http = Http::new(wire, url, &mut buf, Limits::DEFAULT).unwrap();
    let driver_settings = DriverSettings::default();
    let future = run(&Lab, &shared, &mut http, &(), &driver_settings);
    println!(
        "16 jobs, W = 2, over HTTP: Shared {} bytes, future {} bytes",
        size_of_val(&shared),
        size_of_val(&future)
    );
    let stop = async {
        Timer::after_secs(seconds).await;
        shared.stop(10_000);
    };
    simulate(seconds + 20, join(future, stop)).0.unwrap()
}

#[test]
fn sixteen_jobs_are_read_run_and_delivered_over_http() {
    let wire = Wire::new(&backend);
    let ledger = collect(&wire, 120);
    assert!(ledger.delivered >= 150 && ledger.queued == 0 && ledger.dropped_total() == 0, "{ledger}");
    let all: Vec<u8> = wire.arrived.borrow().iter().flat_map(|a| a.body.clone()).collect();
    let all = String::from_utf8(all).unwrap();
    for id in 101..117 {
        let text = format!(r#"{{"p":"e.{id}.h{id}","v":3,"t":17672256"#);
        assert!(all.matches(&text).count() >= 9, "{text}");
    }
    // One connection serves it all and is closed at the end.
    assert_eq!((wire.connections.get(), wire.closed.get()), (1, 1));
}

#[test]
fn every_value_is_accounted_for_whatever_a_bad_network_does() {
    let seed = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut delivered, mut most) = (0, 0);
    for round in 0..40 {
        let state = Cell::new(seed + round);
        println!("replay: seed {:#x}", seed + round);
        let stored = RefCell::new(HashSet::new());
        let store = |arrived: &Arrived| {
            let text = String::from_utf8(arrived.body.clone()).unwrap();
            stored
                .borrow_mut()
                .extend(text.split('{').skip(1).map(|v| v[..v.find('}').unwrap()].to_string()));
        };
        let faulty = |arrived: &Arrived| {
            let random =
                state.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.set(random);
            let acts = backend(arrived);
            let text = |t: &str| vec![send(t)];
            match (random >> 33) % 16 {
                0 => vec![Act::Break],
                1 => vec![Act::Close],
                2 => vec![],
                3 => text("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 9\r\n\r\n<html>"),
                4 => text("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nretry-after: 2\r\n\r\n"),
                5 => {
                    store(arrived);
                    acts.into_iter().chain([Act::Close]).collect()
                }
                6 => text("HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno"),
                7 => {
                    let cut = acts.into_iter().map(|a| match a {
                        Act::Send(mut bytes) => {
                            bytes.truncate(bytes.len() / 2);
                            Act::Send(bytes)
                        }
                        other => other,
                    });
                    cut.chain([Act::Close]).collect()
                }
                _ => {
                    store(arrived);
                    acts
                }
            }
        };
        let wire = Wire { piece: 1 + (round as usize * 37) % 900, ..Wire::new(&faulty) };
        let ledger = collect(&wire, 600);
        assert!(ledger.balanced(), "{ledger}");
        // What counts as delivered is stored; more may be stored than the answers told.
        assert!(
            stored.borrow().len() as u64 >= ledger.delivered,
            "{ledger}, {} stored",
            stored.borrow().len()
        );
        delivered += ledger.delivered;
        most = most.max(ledger.dropped_total());
    }
    assert!(delivered > 1_000, "{delivered}");
    println!("{delivered} delivered, at most {most} dropped in a round");
}
