//! The ping bot on simulated time, from the backend's configuration to the values that it stores.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use grafolean_bot_ping::{Host, PingBot, PingEntity, PingFault, Pinger};
use grafolean_core::json::from_slice;
use grafolean_core::storage::Storage;
use grafolean_test::backend::{EntitySensor, ListKind};
use grafolean_test::{ACCOUNT, Clock, Device, Lab, Outcome, Run, Script, Setup};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What becomes of one echo request.
#[derive(Clone, Copy, Debug)]
enum Reply {
    After(u32),
    Silence,
    Fault(PingFault),
}
use Reply::{After, Fault, Silence};

/// A network under script: what becomes of echo requests, and of names.
struct Network {
    clock: Clock,
    /// Asked with target and time-out.
    echo: Script<(IpAddr, u32), Reply>,
    /// Asked with the text of the host.
    names: Script<String, Result<(), PingFault>>,
}

const NAMED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 80));

impl Network {
    /// All names are found at once, all echo requests are answered after 1 ms.
    fn new(clock: &Clock) -> Self {
        Network {
            clock: clock.clone(),
            echo: Script::always(0, After(1000)),
            names: Script::always(0, Ok(())),
        }
    }
}

impl Pinger for Network {
    type Target = IpAddr;

    async fn resolve(&self, host: Host<'_>) -> Result<IpAddr, PingFault> {
        let (text, ip) = match host {
            Host::Ip(ip) => (ip.to_string(), ip),
            Host::Name(name) => (name.to_string(), NAMED),
        };
        self.names.ask(text).await.map(|()| ip)
    }

    async fn ping(&self, target: IpAddr, timeout_ms: u32) -> Result<Option<u32>, PingFault> {
        match self.echo.ask((target, timeout_ms)).await {
            After(us) => {
                self.clock.sleep_ms(us / 1000).await;
                Ok(Some(us))
            }
            Silence => {
                self.clock.sleep_ms(timeout_ms).await;
                Ok(None)
            }
            Fault(fault) => Err(fault),
        }
    }
}

type Ping = PingBot<Network>;

grafolean_core::inline_storage! {
    struct Memory for Ping {
        accounts: 2, entities: 16, links: 12, credentials: 8, sensors: 16, jobs: 16, spare: 2,
        intervals: 64, distinct_intervals: 32, runs: 4, cells: 64, element: 2048, scratch: 256,
        listing: 64, states: 2, faults: 32, events: 64,
    }
}

const ENTITY: u64 = 17;

/// One entity with these details, a credential, and a sensor of 60 s; refreshed.
fn configure<S: Storage<Ping> + 'static>(
    mut lab: Lab<Ping, S>,
    details: &Value,
    credential: &Value,
) -> Lab<Ping, S> {
    let object = |value: &Value| if value.is_object() { value.clone() } else { json!({}) };
    lab.add(Device::new(ENTITY).details(object(details)).credential(object(credential)).every(60));
    // The backend itself would not take what is no object.
    let list = |item: Value| Some(json!({ "list": [item] }).to_string());
    if !details.is_object() {
        let protocol =
            json!({"credential": 1001, "sensors": [{"sensor": 1002, "interval": null}], "bot": null});
        let entity = json!({
            "id": ENTITY, "name": "A", "entity_type": "device", "parent": null, "details": details,
            "protocols": {"ping": protocol},
        });
        lab.backend().set_raw_list(1, ListKind::Entities, list(entity)).unwrap();
    }
    if !credential.is_object() {
        let item = json!({"id": 1001, "name": "c", "protocol": "ping", "details": credential});
        lab.backend().set_raw_list(1, ListKind::Credentials, list(item)).unwrap();
    }
    lab.refresh();
    lab
}

fn lab(details: Value, credential: Value) -> Lab<Ping, Memory> {
    let lab = Setup::host().lab_with(Memory::new(), |clock| PingBot::new(Network::new(clock)));
    configure(lab, &details, &credential)
}

fn usual() -> Lab<Ping, Memory> {
    lab(json!({"ipv4": "192.0.2.1"}), json!({}))
}

fn script<S: Storage<Ping>>(lab: &Lab<Ping, S>, replies: &[Reply]) {
    for reply in replies {
        lab.bot().pinger().echo.then(0, *reply);
    }
}

fn failed(why: &str) -> Outcome {
    Outcome::Failed(why.to_string())
}

fn told<S: Storage<Ping>>(lab: &Lab<Ping, S>, texts: [&str; 2]) -> bool {
    lab.events().iter().any(|told| texts.iter().all(|text| told.text.contains(text)))
}

/// The usual three packets, of which the second is lost.
fn pings<S: Storage<Ping> + 'static>(lab: Lab<Ping, S>) -> (Lab<Ping, S>, Run) {
    let mut lab = configure(lab, &json!({"ipv4": "192.0.2.1"}), &json!({}));
    script(&lab, &[After(1500), Silence, After(20_250)]);
    let run = lab.next_run();
    lab.run_for_s(1);
    (lab, run)
}

#[test]
fn each_packet_gives_ok_and_rtt_and_the_run_its_success() {
    let bot = |clock: &Clock| PingBot::new(Network::new(clock));
    let (mut lab, run) = pings(Setup::host().lab_with(Memory::new(), bot));
    assert_eq!(run.outcome, Outcome::Done);
    let expected = [
        "entity.17.ping.p0.ok=1",
        "entity.17.ping.p0.rtt=0.0015",
        "entity.17.ping.p1.ok=0",
        "entity.17.ping.p2.ok=1",
        "entity.17.ping.p2.rtt=0.02025",
        "entity.17.ping.success=0.6666666666666666667",
    ];
    assert_eq!(lab.take_handed_over(), expected);
    // 1 ms, 1 s pause, 2 s time-out, 1 s pause, 20 ms, and no pause after the last.
    assert_eq!(run.took_ms, Some(1 + 1000 + 2000 + 1000 + 20));
    lab.assert_delivered();
    lab.assert_series("entity.17.ping.p2.rtt", &[0.02025]);
    lab.assert_series("entity.17.ping.success", &[2.0 / 3.0]);
    lab.assert_no_value("entity.17.ping.p1.rtt");
    // The same with a host's memory and on a board.
    for (mut lab, run) in [pings(Setup::host().lab(bot)), pings(Setup::board().lab(bot))] {
        assert_eq!((run.outcome, run.took_ms), (Outcome::Done, Some(4021)));
        assert_eq!(lab.take_handed_over(), expected);
        lab.assert_delivered();
    }
}

#[test]
fn values_are_handed_over_as_soon_as_they_are_known() {
    let mut lab = usual();
    script(&lab, &[After(0), Silence, After(0)]);
    let run = lab.next_run();
    assert_eq!(run.outcome, Outcome::Done);
    let times: Vec<_> = lab.handed_over().iter().map(|v| v.at_ms - run.began_ms).collect();
    assert_eq!(times, [0, 0, 3000, 4000, 4000, 4000]);
    // Those are their times in the backend.
    lab.run_for_s(1);
    for value in lab.handed_over() {
        let stored = lab.series(&value.path);
        assert_eq!((stored.len(), stored[0].0), (1, i64::try_from(value.at_ms).unwrap()), "{value}");
    }
}

#[test]
fn a_network_that_hangs_is_given_up_at_the_deadline_and_pinged_again() {
    let mut lab = usual();
    lab.bot().pinger().echo.then(0, After(1000)).then_hang();
    let run = lab.next_run();
    assert_eq!((run.outcome.clone(), run.took_ms), (Outcome::Cancelled, Some(3 * (2000 + 1000) + 5000)));
    assert_eq!(lab.take_handed_over(), ["entity.17.ping.p0.ok=1", "entity.17.ping.p0.rtt=0.001"]);
    lab.assert_told("cancelled");
    assert!(lab.next_run().is_done());
    assert_eq!(lab.take_handed_over().len(), 7);
}

#[test]
fn an_unanswered_packet_is_repeated_as_often_as_retry_says() {
    let mut lab = lab(json!({"ipv4": "192.0.2.1"}), json!({"retry": 2, "n_packets": 2, "timeout": 0.5}));
    script(&lab, &[Silence, Silence, After(7000), Silence, Silence, Silence, After(1)]);
    let run = lab.next_run();
    assert_eq!(run.outcome, Outcome::Done);
    assert_eq!(
        lab.take_handed_over(),
        [
            "entity.17.ping.p0.ok=1",
            "entity.17.ping.p0.rtt=0.007",
            "entity.17.ping.p1.ok=0",
            "entity.17.ping.success=0.5",
        ]
    );
    assert_eq!(run.took_ms, Some(500 + 500 + 7 + 1000 + 3 * 500));
    assert_eq!(lab.bot().pinger().echo.times_asked(), 6);
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
        let mut lab = lab(json!({"ipv4": "192.0.2.1"}), credential.clone());
        script(&lab, &[After(0); 10]);
        let run = lab.next_run();
        assert_eq!(run.outcome, Outcome::Done, "{credential}");
        let sent = lab.bot().pinger().echo.asked();
        assert_eq!(sent.len() as u64, packets, "{credential}");
        assert!(sent.iter().all(|(_, (_, timeout_ms))| *timeout_ms == timeout), "{credential}");
        assert_eq!(run.took_ms, Some((packets - 1) * sleep), "{credential}");
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
        let lab = lab(json!({"ipv4": "192.0.2.1"}), credential.clone());
        assert!(lab.jobs().is_empty(), "{credential}");
        assert!(told(&lab, [what, "credential"]), "{credential}: {}", lab.report());
    }
    for credential in [
        json!({"n_packets": 100, "retry": 10, "timeout": 60, "sleep_packets": 60}),
        json!({"timeout": 0.001}),
    ] {
        let lab = lab(json!({"ipv4": "192.0.2.1"}), credential);
        assert_eq!(lab.jobs().len(), 1, "{}", lab.report());
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
        let mut lab = lab(json!({"ipv4": "192.0.2.1"}), credential);
        assert_eq!(lab.jobs()[0].deadline_ms, deadline);
        lab.hold_runs();
        lab.run_until(120, |lab| !lab.held().is_empty());
        let began = lab.collector(|c| c.now());
        assert_eq!(lab.held()[0].deadline.since(began), deadline);
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
        let mut lab = lab(details.clone(), json!({"n_packets": 2}));
        assert!(lab.next_run().is_done(), "{details}");
        let resolved: Vec<_> = lab.bot().pinger().names.asked().into_iter().map(|(_, name)| name).collect();
        assert_eq!(resolved, [expected], "once per run: {details}");
        let target = expected.parse().unwrap_or(NAMED);
        assert!(lab.bot().pinger().echo.asked().iter().all(|(_, (ip, _))| *ip == target), "{details}");
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
        let lab = lab(details.clone(), json!({}));
        assert!(lab.jobs().is_empty(), "{details}");
        assert!(told(&lab, [why, "entity 17"]), "{details}: {}", lab.report());
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
    let mut lab = usual();
    let sensors = [300, 60, 3600, 60].map(|interval_s| lab.sensor(r#"{"any": 1}"#, interval_s));
    let intervals = [Some(10), None, None, None];
    let device = Device::new(ENTITY).details(json!({"ipv4": "192.0.2.1"}));
    let with = |device: Device, (id, interval_s)| device.sensor_id(id, interval_s);
    lab.add(sensors.into_iter().zip(intervals).rev().fold(device, with));
    lab.refresh();
    let jobs = lab.jobs();
    assert_eq!(jobs.len(), 1);
    assert_eq!(
        (jobs[0].key.account, jobs[0].key.entity, jobs[0].intervals_s.as_slice()),
        (ACCOUNT, ENTITY, &[10, 60, 3600][..])
    );
}

#[test]
fn a_run_that_concerns_none_of_the_sensors_does_nothing() {
    let mut lab = usual();
    lab.hold_runs();
    lab.run_until(120, |lab| !lab.held().is_empty());
    // It is due for 60 s, which is no sensor's interval any more.
    lab.change(ENTITY, |entity| entity.protocols[0].1.sensors[0].interval = Some(300));
    lab.refresh();
    lab.release();
    let run = lab.next_run();
    assert_eq!((run.affecting_s(), run.values, run.outcome), (vec![60], 0, Outcome::Done));
    assert_eq!(lab.bot().pinger().names.times_asked(), 0);
    // One that concerns one of two does its work.
    let second = lab.sensor("{}", 3600);
    lab.change(ENTITY, |entity| {
        entity.protocols[0]
            .1
            .sensors
            .push(EntitySensor { sensor: i32::try_from(second).unwrap(), interval: None });
    });
    lab.refresh();
    lab.run_for_s(1800);
    let of_one = lab.runs().into_iter().filter(|run| run.affecting_s() == [300]);
    let ended: Vec<_> = of_one.filter(|run| run.outcome != Outcome::Running).collect();
    assert!(ended.len() >= 4, "{}", lab.report());
    assert!(ended.iter().all(|run| run.is_done() && run.values == 7), "{ended:?}");
}

#[test]
fn an_entity_that_becomes_unusable_during_its_run_is_not_pinged() {
    for gone in [false, true] {
        let mut lab = usual();
        lab.hold_runs();
        lab.run_until(120, |lab| !lab.held().is_empty());
        if gone {
            lab.remove(ENTITY);
        } else {
            lab.set_details(ENTITY, json!({"ipv4": "0.0.0.0"}));
        }
        lab.refresh();
        lab.release();
        let run = lab.next_run();
        assert_eq!((run.outcome, run.values), (Outcome::Done, 0));
        assert_eq!(lab.bot().pinger().names.times_asked(), 0);
    }
}

#[test]
fn a_host_without_a_route_is_down_and_the_run_says_why() {
    let mut lab = usual();
    script(&lab, &[Fault(PingFault::NoRoute), After(2000), Fault(PingFault::NotTaken("a firewall"))]);
    assert_eq!(lab.next_run().outcome, failed("2 of 3 packets were not sent: no route to the host"));
    assert_eq!(
        lab.take_handed_over(),
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
    let mut lab = lab(json!({"host": "gone.example"}), json!({}));
    lab.bot().pinger().names.then(0, Err(PingFault::NameNotFound));
    let run = lab.next_run();
    lab.assert_last_run_failed("3 of 3 packets were not sent: the host name has no address");
    let expected: Vec<_> = (0..3).map(|i| format!("entity.17.ping.p{i}.ok=0")).collect();
    assert_eq!(lab.take_handed_over(), [&expected[..], &["entity.17.ping.success=0".to_string()]].concat());
    assert_eq!((run.took_ms, lab.bot().pinger().echo.times_asked()), (Some(0), 0));
}

#[test]
fn a_machine_that_cannot_ping_says_nothing_about_the_host() {
    let mut lab = usual();
    script(&lab, &[After(1000), Fault(PingFault::Unavailable("no ICMP socket"))]);
    assert_eq!(lab.next_run().outcome, failed("cannot ping from here: no ICMP socket"));
    assert_eq!(lab.take_handed_over(), ["entity.17.ping.p0.ok=1", "entity.17.ping.p0.rtt=0.001"]);
    assert_eq!(lab.bot().pinger().echo.times_asked(), 2);
    lab.bot().pinger().names.then(0, Err(PingFault::Unavailable("no ICMP socket")));
    assert_eq!(lab.next_run().outcome, failed("cannot ping from here: no ICMP socket"));
    assert!(lab.take_handed_over().is_empty());
}

#[test]
fn a_value_that_is_not_taken_does_not_cost_the_others() {
    // The collector takes no path that is longer than that of `ok`.
    let setup = Setup::host().settings(|s| s.max_path_bytes = "entity.17.ping.p0.ok".len());
    let lab = setup.lab_with(Memory::new(), |clock| PingBot::new(Network::new(clock)));
    let mut lab = configure(lab, &json!({"ipv4": "192.0.2.1"}), &json!({}));
    lab.next_run();
    lab.assert_last_run_failed("21");
    let expected: Vec<_> = (0..3).map(|i| format!("entity.17.ping.p{i}.ok=1")).collect();
    assert_eq!(lab.take_handed_over(), expected);
}

#[test]
fn every_run_of_the_schedule_pings_anew() {
    let mut lab = usual();
    lab.run_for_s(600);
    let runs = lab.runs();
    // Within ten minutes at 60 s: nine or ten on the grid, and perhaps one extra first run.
    assert!((9..=11).contains(&runs.len()), "{}", runs.len());
    assert!(runs.iter().all(|run| run.is_done() && run.due.late_ms == 0));
    assert_eq!(lab.take_handed_over().len(), runs.len() * 7);
    lab.assert_no_warnings();
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
