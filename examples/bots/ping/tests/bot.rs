//! The ping bot on simulated time, from the backend's answers to the values that it hands over.
#![allow(clippy::unwrap_used)]

mod rig;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::IpAddr;

use grafolean_bot_ping::{Host, PingBot, PingEntity, PingFault, Pinger};
use grafolean_core::interval::Affecting;
use grafolean_core::json::from_slice;
use proptest::prelude::*;
use rig::{ACCOUNT, Clock, Rig};
use serde_json::{Value, json};

/// What becomes of one echo request.
#[derive(Clone, Copy, Debug)]
enum Reply {
    After(u32),
    Silence,
    Fault(PingFault),
}
use Reply::{After, Fault, Silence};

/// Replies in order, then always after 1 ms; counts what is asked of it.
#[derive(Default)]
struct Scripted {
    clock: Clock,
    replies: RefCell<VecDeque<Reply>>,
    /// Fault of the name server.
    unresolved: RefCell<Option<PingFault>>,
    /// Texts of hosts, and for each request its target, start and time-out.
    resolved: RefCell<Vec<String>>,
    sent: RefCell<Vec<(IpAddr, u64, u32)>>,
}

const NAMED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 80));

impl Pinger for Scripted {
    type Target = IpAddr;

    async fn resolve(&self, host: Host<'_>) -> Result<IpAddr, PingFault> {
        let (text, ip) = match host {
            Host::Ip(ip) => (ip.to_string(), ip),
            Host::Name(name) => (name.to_string(), NAMED),
        };
        self.resolved.borrow_mut().push(text);
        self.unresolved.borrow().map_or(Ok(ip), Err)
    }

    async fn ping(&self, target: IpAddr, timeout_ms: u32) -> Result<Option<u32>, PingFault> {
        self.sent.borrow_mut().push((target, self.clock.now_ms(), timeout_ms));
        match self.replies.borrow_mut().pop_front().unwrap_or(After(1000)) {
            After(us) => {
                self.clock.pass_ms(u64::from(us / 1000));
                Ok(Some(us))
            }
            Silence => {
                self.clock.pass_ms(timeout_ms.into());
                Ok(None)
            }
            Fault(fault) => Err(fault),
        }
    }
}

type Ping = PingBot<Scripted>;

grafolean_core::inline_storage! {
    struct Memory for Ping {
        accounts: 2, entities: 16, links: 12, credentials: 8, sensors: 16, jobs: 16, spare: 2,
        intervals: 64, distinct_intervals: 32, runs: 4, cells: 16, element: 2048, scratch: 256,
        listing: 64, states: 2, faults: 32, events: 64,
    }
}

const ENTITY: u64 = 17;

fn entity(id: u64, details: Value) -> Value {
    json!({
        "id": id, "name": "A", "entity_type": "device", "parent": null, "details": details,
        "protocols": {"ping": {"credential": 2, "bot": null, "sensors": [{"sensor": 3, "interval": null}]}},
    })
}

/// A bot that has one entity with these details, a credential, and a sensor of 60 s; refreshed.
fn rig(details: Value, credential: Value) -> Rig<Ping, Memory> {
    let clock = Clock::default();
    let pinger = Scripted { clock: clock.clone(), ..Scripted::default() };
    let mut rig = Rig::new(PingBot::new(pinger), Memory::new(), clock);
    {
        let mut world = rig.world.borrow_mut();
        world.entities.push(entity(ENTITY, details));
        world.credentials.push(json!({"id": 2, "name": "c", "protocol": "ping", "details": credential}));
        world
            .sensors
            .push(json!({"id": 3, "name": "s", "protocol": "ping", "details": {}, "default_interval": 60}));
    }
    rig.refresh();
    rig
}

fn usual() -> Rig<Ping, Memory> {
    rig(json!({"ipv4": "192.0.2.1"}), json!({}))
}

fn script(rig: &Rig<Ping, Memory>, replies: &[Reply]) {
    rig.bot.pinger().replies.borrow_mut().extend(replies);
}

/// One run from its begin to its end: how it ended, and how long it took.
fn run(rig: &mut Rig<Ping, Memory>) -> (Result<(), String>, u64) {
    let due = rig.next_due(120_000);
    let begin = rig.clock.now_ms();
    let result = rig.perform(&due);
    let took = rig.clock.now_ms() - begin;
    assert!(begin + took <= due.deadline.0, "within its deadline");
    rig.collector.handle_completed(due.run);
    (result, took)
}

#[test]
fn each_packet_gives_ok_and_rtt_and_the_run_its_success() {
    let mut rig = usual();
    script(&rig, &[After(1500), Silence, After(20_250)]);
    let (result, took) = run(&mut rig);
    assert_eq!(result, Ok(()));
    assert_eq!(
        rig.take_values(),
        [
            "entity.17.ping.p0.ok=1",
            "entity.17.ping.p0.rtt=0.0015",
            "entity.17.ping.p1.ok=0",
            "entity.17.ping.p2.ok=1",
            "entity.17.ping.p2.rtt=0.02025",
            "entity.17.ping.success=0.6666666666666666667",
        ]
    );
    // 1 ms, 1 s pause, 2 s time-out, 1 s pause, 20 ms, and no pause after the last.
    assert_eq!(took, 1 + 1000 + 2000 + 1000 + 20);
}

#[test]
fn values_are_handed_over_as_soon_as_they_are_known() {
    let mut rig = usual();
    script(&rig, &[After(0), Silence, After(0)]);
    run(&mut rig).0.unwrap();
    let world = rig.world.borrow();
    let first = world.values[0].at_ms;
    let times: Vec<_> = world.values.iter().map(|v| v.at_ms - first).collect();
    assert_eq!(times, [0, 0, 3000, 4000, 4000, 4000]);
    assert!(world.values.iter().all(|v| v.unix_ms.is_none()));
}

#[test]
fn an_unanswered_packet_is_repeated_as_often_as_retry_says() {
    let mut rig = rig(json!({"ipv4": "192.0.2.1"}), json!({"retry": 2, "n_packets": 2, "timeout": 0.5}));
    script(&rig, &[Silence, Silence, After(7000), Silence, Silence, Silence, After(1)]);
    let (result, took) = run(&mut rig);
    assert_eq!(result, Ok(()));
    assert_eq!(
        rig.take_values(),
        [
            "entity.17.ping.p0.ok=1",
            "entity.17.ping.p0.rtt=0.007",
            "entity.17.ping.p1.ok=0",
            "entity.17.ping.success=0.5",
        ]
    );
    assert_eq!(took, 500 + 500 + 7 + 1000 + 3 * 500);
    assert_eq!(rig.bot.pinger().sent.borrow().len(), 6);
}

#[test]
fn settings_may_be_numeric_strings_and_missing_ones_have_defaults() {
    let cases = [
        (json!({}), (2000, 3, 1000)),
        (json!({"timeout": null, "n_packets": null}), (2000, 3, 1000)),
        (json!({"timeout": "0.25", "n_packets": "2", "sleep_packets": "0.5", "retry": "0"}), (250, 2, 500)),
        (json!({"timeout": 1, "n_packets": 4.0, "sleep_packets": " 2 "}), (1000, 4, 2000)),
        (json!({"n_packets": 1, "sleep_packets": 0, "note": ["x"]}), (2000, 1, 0)),
    ];
    for (credential, (timeout, packets, sleep)) in cases {
        let mut rig = rig(json!({"ipv4": "192.0.2.1"}), credential.clone());
        script(&rig, &[After(0); 10]);
        let (result, took) = run(&mut rig);
        assert_eq!(result, Ok(()), "{credential}");
        let sent = rig.bot.pinger().sent.borrow().clone();
        assert_eq!(sent.len() as u64, packets, "{credential}");
        assert!(sent.iter().all(|s| s.2 == timeout), "{credential}");
        assert_eq!(took, (packets - 1) * sleep, "{credential}");
    }
}

#[test]
fn settings_out_of_bounds_refuse_the_entity_and_name_the_key_and_the_bounds() {
    let cases = [
        (json!({"n_packets": 0}), "`n_packets` is not within 1 to 100"),
        (json!({"n_packets": "101"}), "`n_packets` is not within 1 to 100"),
        (json!({"n_packets": -1}), "`n_packets` is not within 1 to 100"),
        (json!({"retry": 11}), "`retry` is not within 0 to 10"),
        (json!({"timeout": 0}), "`timeout` is not within 0.001 to 60 s"),
        (json!({"timeout": "60.001"}), "`timeout` is not within 0.001 to 60 s"),
        (json!({"sleep_packets": 61}), "`sleep_packets` is not within 0 to 60 s"),
        // Those are no such settings at all.
        (json!({"timeout": -2}), "`timeout`"),
        (json!({"timeout": 1e300}), "`timeout`"),
        (json!({"sleep_packets": [1]}), "`sleep_packets`"),
        (json!({"n_packets": 2.5}), "`n_packets`"),
        (json!({"retry": "often"}), "`retry`"),
        (json!("text"), "credential"),
    ];
    for (credential, what) in cases {
        let mut rig = rig(json!({"ipv4": "192.0.2.1"}), credential.clone());
        assert!(rig.jobs().is_empty(), "{credential}");
        assert!(rig.events.iter().any(|e| e.contains(what) && e.contains("credential")), "{:?}", rig.events);
    }
    for credential in [
        json!({"n_packets": 100, "retry": 10, "timeout": 60, "sleep_packets": 60}),
        json!({"timeout": 0.001}),
    ] {
        let mut rig = rig(json!({"ipv4": "192.0.2.1"}), credential);
        assert_eq!(rig.jobs().len(), 1, "{:?}", rig.events);
    }
}

#[test]
fn the_deadline_is_what_the_packets_can_take_and_five_seconds() {
    let cases = [
        (json!({}), 3 * (2000 + 1000) + 5000),
        (
            json!({"n_packets": 20, "timeout": "3", "retry": 2, "sleep_packets": 0.5}),
            20 * (3 * 3000 + 500) + 5000,
        ),
        (json!({"n_packets": 100, "timeout": 60, "retry": 10, "sleep_packets": 60}), 72_005_000),
    ];
    for (credential, deadline) in cases {
        let mut rig = rig(json!({"ipv4": "192.0.2.1"}), credential);
        let due = rig.next_due(120_000);
        assert_eq!(due.deadline.0 - rig.clock.now_ms(), deadline);
    }
}

#[test]
fn a_host_is_where_the_first_key_that_is_set_says() {
    let cases = [
        (json!({"ipv4": "192.0.2.1"}), "192.0.2.1"),
        (json!({"ipv4": " 192.0.2.1\r\n", "ipv6": "2001:db8::1", "host": "a"}), "192.0.2.1"),
        (json!({"host": "a", "hostname": "b", "ipv6": "2001:db8::1"}), "2001:db8::1"),
        (json!({"ipv4": " ", "ipv6": null, "host": "a", "hostname": "b.example."}), "b.example."),
        (json!({"ipv4": "", "host": "A_1-x"}), "A_1-x"),
        (json!({"ipv4": "router.example.com"}), "router.example.com"),
        (json!({"ipv4": "2001:DB8:0::2"}), "2001:db8::2"),
        (json!({"ipv6": "::ffff:192.0.2.9"}), "192.0.2.9"),
        (json!({"ipv6": "fe80::1%eth0"}), "fe80::1%eth0"),
        (json!({"ipv4": "192.0.2.1", "deep": {"ipv4": [1, 1e300, "\u{0}"]}, "": 1}), "192.0.2.1"),
        (json!({"hostname": "1.2.3.4.example"}), "1.2.3.4.example"),
        (json!({"hostname": "xn--bcher-kva.example"}), "xn--bcher-kva.example"),
    ];
    for (details, expected) in cases {
        let mut rig = rig(details.clone(), json!({"n_packets": 2}));
        assert_eq!(run(&mut rig).0, Ok(()), "{details}");
        assert_eq!(*rig.bot.pinger().resolved.borrow(), [expected], "once per run: {details}");
        let target = expected.parse().unwrap_or(NAMED);
        assert!(rig.bot.pinger().sent.borrow().iter().all(|s| s.0 == target), "{details}");
    }
}

#[test]
fn a_bad_host_refuses_the_entity_and_says_why() {
    let long = "a.".repeat(127);
    let cases = [
        (json!({}), "none of `ipv4`, `ipv6`, `hostname` and `host` is set"),
        (json!({"ipv4": " \t"}), "none of `ipv4`"),
        (json!({"ipv4": "192.0.2.300", "ipv6": "2001:db8::1"}), "not an IPv4 address"),
        (json!({"ipv4": "192.0.2"}), "not an IPv4 address"),
        (json!({"ipv4": "192.0.2.001"}), "not an IPv4 address"),
        (json!({"ipv4": "17"}), "not an IPv4 address"),
        (json!({"ipv4": "192.0.2.1:80"}), "not an IPv6 address"),
        (json!({"ipv6": "[2001:db8::1]"}), "not an IPv6 address"),
        (json!({"ipv6": "2001:db8::1%eth0"}), "only a link-local address"),
        (json!({"ipv6": "fe80::1%"}), "only a link-local address"),
        (json!({"ipv6": "fe80::1%a b"}), "only a link-local address"),
        (json!({"ipv4": "0.0.0.0"}), "unspecified, multicast or broadcast"),
        (json!({"ipv4": "255.255.255.255"}), "unspecified, multicast or broadcast"),
        (json!({"ipv4": "224.0.0.1"}), "unspecified, multicast or broadcast"),
        (json!({"ipv6": "::"}), "unspecified, multicast or broadcast"),
        (json!({"ipv6": "ff02::1"}), "unspecified, multicast or broadcast"),
        (json!({"ipv6": "::ffff:0.0.0.0"}), "unspecified, multicast or broadcast"),
        (json!({"host": "a b"}), "not of ASCII letters"),
        (json!({"host": "bücher.example"}), "not of ASCII letters"),
        (json!({"host": "http//x"}), "not of ASCII letters"),
        (json!({"host": "a..b"}), "label that is empty"),
        (json!({"host": "."}), "label that is empty"),
        (json!({"host": "a".repeat(64)}), "longer than 63 bytes"),
        (json!({"host": long.clone() + "a"}), "longer than 253 bytes"),
        (json!({"host": long.get(..66)}), "longer than this bot can keep"),
        (json!({"ipv4": 5}), "`ipv4`"),
        (json!({"ipv4": "192.0.2.1", "host": {}}), "`host`"),
        (json!(null), "entity"),
        (json!(["192.0.2.1"]), "entity"),
    ];
    for (details, why) in cases {
        let mut rig = rig(details.clone(), json!({}));
        assert!(rig.jobs().is_empty(), "{details}");
        let told = rig.events.iter().any(|e| e.contains(why) && e.contains("entity 17"));
        assert!(told, "{details}: {:?}", rig.events);
    }
}

#[test]
fn the_longest_names_fit_a_bot_that_has_room_for_them() {
    let name = "a.".repeat(126) + "a";
    let details = format!("{{\"ipv4\":\"{name}.\"}}");
    let entity: PingEntity<254> = from_slice(details.as_bytes(), &mut []).unwrap();
    assert_eq!(entity.host(), Ok(Host::Name(&(name + "."))));
}

#[test]
fn an_entity_has_one_job_at_the_distinct_intervals_of_its_sensors() {
    let mut rig = usual();
    {
        let mut world = rig.world.borrow_mut();
        for (id, interval) in [(4, 300), (5, 60), (6, 3600)] {
            world.sensors.push(json!({"id": id, "details": {"any": 1}, "default_interval": interval}));
        }
        world.entities[0]["protocols"]["ping"]["sensors"] = json!([
            {"sensor": 6, "interval": null}, {"sensor": 4, "interval": "10"}, {"sensor": 3, "interval": null},
            {"sensor": 5, "interval": null},
        ]);
    }
    rig.refresh();
    let jobs: Vec<_> = rig.jobs().into_iter().collect();
    assert_eq!(jobs.len(), 1);
    assert_eq!(
        (jobs[0].0.account, jobs[0].0.entity, jobs[0].1.as_slice()),
        (ACCOUNT, ENTITY, &[10, 60, 3600][..])
    );
}

#[test]
fn a_run_that_concerns_none_of_the_sensors_does_nothing() {
    let mut rig = usual();
    let mut due = rig.next_due(120_000);
    due.affecting = Affecting::NONE;
    assert_eq!(rig.perform(&due), Ok(()));
    assert!(rig.take_values().is_empty());
    assert!(rig.bot.pinger().resolved.borrow().is_empty());
    due.affecting = Affecting(1);
    assert_eq!(rig.perform(&due), Ok(()));
    assert_eq!(rig.take_values().len(), 7);
}

#[test]
fn an_entity_that_becomes_unusable_during_its_run_is_not_pinged() {
    let mut rig = usual();
    let due = rig.next_due(120_000);
    rig.world.borrow_mut().entities[0]["details"] = json!({"ipv4": "0.0.0.0"});
    rig.refresh();
    assert_eq!(rig.perform_job(&(), &due), Ok(()));
    rig.world.borrow_mut().entities.clear();
    rig.refresh();
    assert_eq!(rig.perform_job(&(), &due), Ok(()));
    assert!(rig.take_values().is_empty());
    assert!(rig.bot.pinger().resolved.borrow().is_empty());
}

#[test]
fn a_host_without_a_route_is_down_and_the_run_says_why() {
    let mut rig = usual();
    script(&rig, &[Fault(PingFault::NoRoute), After(2000), Fault(PingFault::NotTaken("a firewall"))]);
    let (result, _) = run(&mut rig);
    assert_eq!(result, Err("2 of 3 packets were not sent: no route to the host".to_string()));
    assert_eq!(
        rig.take_values(),
        [
            "entity.17.ping.p0.ok=0",
            "entity.17.ping.p1.ok=1",
            "entity.17.ping.p1.rtt=0.002",
            "entity.17.ping.p2.ok=0",
            "entity.17.ping.success=0.3333333333333333333",
        ]
    );
}

#[test]
fn a_host_whose_name_is_not_found_is_down_at_once() {
    let mut rig = rig(json!({"host": "gone.example"}), json!({}));
    *rig.bot.pinger().unresolved.borrow_mut() = Some(PingFault::NameNotFound);
    let (result, took) = run(&mut rig);
    assert!(result.unwrap_err().starts_with("3 of 3 packets were not sent: the host name has no address"));
    let expected: Vec<_> = (0..3).map(|i| format!("entity.17.ping.p{i}.ok=0")).collect();
    assert_eq!(rig.take_values(), [&expected[..], &["entity.17.ping.success=0".to_string()]].concat());
    assert_eq!((took, rig.bot.pinger().sent.borrow().len()), (0, 0));
}

#[test]
fn a_machine_that_cannot_ping_says_nothing_about_the_host() {
    let mut rig = usual();
    script(&rig, &[After(1000), Fault(PingFault::Unavailable("no ICMP socket"))]);
    let (result, _) = run(&mut rig);
    assert_eq!(result, Err("cannot ping from here: no ICMP socket".to_string()));
    assert_eq!(rig.take_values(), ["entity.17.ping.p0.ok=1", "entity.17.ping.p0.rtt=0.001"]);
    assert_eq!(rig.bot.pinger().sent.borrow().len(), 2);
    *rig.bot.pinger().unresolved.borrow_mut() = Some(PingFault::Unavailable("no ICMP socket"));
    assert!(run(&mut rig).0.is_err());
    assert!(rig.take_values().is_empty());
}

#[test]
fn a_value_that_finds_no_room_does_not_cost_the_others() {
    let mut rig = usual();
    rig.world.borrow_mut().no_room_for = Some("entity.17.ping.p1");
    let (result, _) = run(&mut rig);
    assert!(result.is_err());
    assert_eq!(rig.take_values().len(), 5);
}

#[test]
fn every_run_of_the_schedule_pings_anew() {
    let mut rig = usual();
    let ended = rig.run_until(600_000);
    // Within ten minutes at 60 s: nine or ten on the grid, and perhaps one extra first run.
    assert!((9..=11).contains(&ended.len()), "{}", ended.len());
    assert!(ended.iter().all(|(due, result)| result.is_ok() && due.late_ms == 0));
    assert_eq!(rig.take_values().len(), ended.len() * 7);
}

proptest! {
    #[test]
    fn any_text_is_a_host_or_refused(text: String, key in 0usize..4) {
        let key = ["ipv4", "ipv6", "hostname", "host"][key];
        let details = json!({ key: text }).to_string();
        let entity: PingEntity<64> = from_slice(details.as_bytes(), &mut [0; 8192]).unwrap();
        if let Ok(Host::Name(name)) = entity.host() {
            prop_assert_eq!(name, text.trim_ascii());
            prop_assert!(name.len() <= 64 && name.bytes().all(|c| c.is_ascii_graphic()));
        }
    }

    #[test]
    fn the_order_of_keys_does_not_matter(order in Just(vec!["ipv4", "ipv6", "hostname", "host"]).prop_shuffle()) {
        let pairs: Vec<_> = order.iter().map(|key| format!("\"{key}\":\"x-{key}\"")).collect();
        let details = format!("{{{}}}", pairs.join(","));
        let entity: PingEntity<64> = from_slice(details.as_bytes(), &mut []).unwrap();
        prop_assert_eq!(entity.host(), Ok(Host::Name("x-ipv4")));
    }
}
