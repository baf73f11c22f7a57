//! The SNMP bot on simulated time, from the backend's configuration to the values and interface entities that it stores.

use crate::agent::{Agent, Owned};
use grafolean_bot_snmp::SnmpBot;
use grafolean_bot_snmp::memory::BoardMemory;
use grafolean_snmp_codec::PduKind;
use grafolean_test::backend::{Entity, EntityProtocol, Permission};
use grafolean_test::{ACCOUNT, Device, Lab, Outcome, Run, Setup};
use serde_json::{Value, json};

type Bot = SnmpBot<Agent, BoardMemory<2048, 256>, 64, 96, 256, 4, 24, 1472>;

grafolean_core::inline_storage! {
    struct Memory for Bot {
        accounts: 2, entities: 8, links: 8, credentials: 8, sensors: 16, jobs: 16, spare: 2,
        intervals: 32, distinct_intervals: 8, runs: 4, cells: 2048, element: 2048, scratch: 256,
        listing: 2048, states: 64, faults: 32, events: 64,
    }
}

type SnmpLab = Lab<Bot, Memory>;

const DEVICE: u64 = 5;

fn sensor(oids: &[(&str, &str)], expression: &str, output_path: &str) -> Value {
    let oids: Vec<Value> =
        oids.iter().map(|(oid, method)| json!({"oid": oid, "fetch_method": method})).collect();
    json!({"oids": oids, "expression": expression, "output_path": output_path})
}

fn device(id: u64, version: &str) -> Device {
    let credential = json!({"version": version, "snmpv12_community": "public"});
    Device::new(id).details(json!({"ipv4": "192.0.2.1"})).credential(credential)
}

/// One device with these sensors, each at 60 s.
fn lab_of(version: &str, interfaces: bool, sensors: &[Value]) -> SnmpLab {
    let make = |clock: &grafolean_test::Clock| {
        SnmpBot::new(Agent::new(Some(clock)), BoardMemory::new()).with_interfaces(interfaces)
    };
    let mut lab = Setup::host().lab_with(Memory::new(), make);
    let device = sensors.iter().fold(device(DEVICE, version), |device, sensor| device.sensor(sensor, 60));
    lab.add(device);
    lab.refresh();
    lab
}

fn lab(sensors: &[Value]) -> SnmpLab {
    lab_of("snmpv2c", false, sensors)
}

fn set(lab: &SnmpLab, objects: &[(&str, Owned)]) {
    objects.iter().for_each(|(name, value)| lab.bot().network().set(name, value.clone()));
}

fn texts(base: &str, rows: &[(u32, &'static str)]) -> Vec<(String, Owned)> {
    rows.iter().map(|(n, text)| (format!("{base}.{n}"), Owned::Text(text))).collect()
}

fn set_all(lab: &SnmpLab, objects: Vec<(String, Owned)>) {
    objects.into_iter().for_each(|(name, value)| lab.bot().network().set(&name, value));
}

/// What a run hands over, without the device's prefix.
fn run(lab: &mut SnmpLab) -> (Outcome, Vec<String>) {
    let _ = lab.take_handed_over();
    let run = lab.next_run_of("");
    let values = lab.take_handed_over();
    (run.outcome, values.into_iter().map(|v| v.replace("entity.5.snmp.", "")).collect())
}

fn failed(why: &str) -> Outcome {
    Outcome::Failed(why.to_string())
}

#[test]
fn all_oids_of_all_sensors_are_read_once_by_one_request() {
    let mut lab = lab(&[
        sensor(&[("1.3.6.1.1.1.0", "get")], "$1", "one"),
        sensor(&[("1.3.6.1.1.1.0", "get"), ("1.3.6.1.1.2.0", "get")], "$1 + $2", "two"),
        sensor(&[("1.3.6.1.1.3.0", "get")], "$1", "text"),
        sensor(&[("1.3.6.1.1.2.0", "get"), ("1.3.6.1.1.4.0", "get")], "$1", "snmp.{$2}.aaa{$2}bbb.asdf"),
    ]);
    set(
        &lab,
        &[
            ("1.3.6.1.1.1.0", Owned::Gauge(68_000)),
            ("1.3.6.1.1.2.0", Owned::Integer(200)),
            ("1.3.6.1.1.3.0", Owned::Text("0.25")),
            ("1.3.6.1.1.4.0", Owned::Text("asdf.QWER")),
        ],
    );
    let (outcome, values) = run(&mut lab);
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(values, ["one=68000", "two=68200", "text=0.25", "snmp.asdf-QWER.aaaasdf-QWERbbb.asdf=200"]);
    let asked = lab.bot().network().asked(PduKind::Get);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].len(), 5, "four and sysUpTime: {asked:?}");
}

#[test]
fn more_oids_than_memory_has_room_for_are_read_in_several_turns() {
    // 4 OIDs each, of which 81 have room.
    let oid = |n: usize, k: usize| format!("1.3.6.1.1.{n}.{k}.123456.0");
    let sensors: Vec<Value> = (0..8)
        .map(|n| {
            let oids: Vec<String> = (0..4).map(|k| oid(n, k)).collect();
            let oids: Vec<(&str, &str)> = oids.iter().map(|oid| (oid.as_str(), "get")).collect();
            sensor(&oids, "$1 + $2 + $3 + $4", &format!("sum{n}"))
        })
        .collect();
    let make = |clock: &grafolean_test::Clock| {
        Small::new(Agent::new(Some(clock)), BoardMemory::new()).with_interfaces(false)
    };
    let mut lab = Lab::of(make);
    lab.add(sensors.iter().fold(device(DEVICE, "snmpv2c"), |device, sensor| device.sensor(sensor, 60)));
    for n in 0..8 {
        (0..4).for_each(|k| lab.bot().network().set(&oid(n, k), Owned::Integer((10 * n + k) as i32)));
    }
    lab.refresh();
    assert_eq!(lab.next_run_of("").outcome, Outcome::Done);
    let expected: Vec<String> = (0..8).map(|n| format!("entity.5.snmp.sum{n}={}", 40 * n + 6)).collect();
    assert_eq!(lab.take_handed_over(), expected);
    let requests = lab.bot().network().asked(PduKind::Get).len();
    assert!((3..=8).contains(&requests), "{requests}");
}

type Small = SnmpBot<Agent, BoardMemory<256, 4>, 64, 96, 256, 4, 24, 484>;

#[test]
fn rows_are_joined_by_their_whole_suffix_whatever_the_order_and_lacking_ones_have_no_value() {
    for version in ["snmpv1", "snmpv2c"] {
        let mut lab = lab_of(
            version,
            false,
            &[
                sensor(
                    &[("1.3.6.1.1.1", "walk"), ("1.3.6.1.1.2", "walk"), ("1.3.6.1.1.9.0", "get")],
                    "$1 / $2 + $3",
                    "{$index}",
                ),
                sensor(&[("1.3.6.1.1.3", "walk"), ("1.3.6.1.1.1", "walk")], "$2", "{$1}.{$index}"),
            ],
        );
        set(
            &lab,
            &[
                ("1.3.6.1.1.1.1", Owned::Integer(60_000)),
                ("1.3.6.1.1.1.2", Owned::Integer(61_000)),
                ("1.3.6.1.1.1.3", Owned::Integer(62_000)),
                ("1.3.6.1.1.2.1", Owned::Integer(10)),
                ("1.3.6.1.1.2.2", Owned::Integer(10)),
                ("1.3.6.1.1.9.0", Owned::Integer(0)),
            ],
        );
        set_all(&lab, texts("1.3.6.1.1.3", &[(1, "Core 6"), (2, "b"), (3, "c")]));
        // 3, 1, 2, and on.
        for (at, next) in [
            ("1.3.6.1.1.1", "1.3.6.1.1.1.3"),
            ("1.3.6.1.1.1.3", "1.3.6.1.1.1.1"),
            ("1.3.6.1.1.1.2", "1.3.6.1.1.2.1"),
        ] {
            lab.bot().network().state().next.insert(at.to_string(), next.to_string());
        }
        let (outcome, values) = run(&mut lab);
        assert_eq!(outcome, Outcome::Done, "{version}");
        assert_eq!(values, ["1=6000", "2=6100", "Core-6.1=60000", "b.2=61000", "c.3=62000"], "{version}");
    }
}

#[test]
fn the_second_of_two_rows_with_one_path_is_an_error_that_says_what_helps() {
    let walk = [("1.3.6.1.1.1", "walk")];
    let rows = [
        ("1.3.6.1.1.1.7.1", Owned::Integer(1)),
        ("1.3.6.1.1.1.7.2", Owned::Integer(2)),
        ("1.3.6.1.1.1.8.1", Owned::Integer(3)),
    ];
    let mut by_index = lab(&[sensor(&walk, "$1", "x.{$index}")]);
    set(&by_index, &rows);
    let (outcome, values) = run(&mut by_index);
    assert_eq!(values, ["x.1=1", "x.2=2"]);
    let Outcome::Failed(why) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("same output path") && why.contains("{$indexes}"), "{why}");

    let mut by_all = lab(&[sensor(&walk, "$1", "x.{$indexes}")]);
    set(&by_all, &rows);
    assert_eq!(
        run(&mut by_all),
        (Outcome::Done, ["x.7-1=1", "x.7-2=2", "x.8-1=3"].map(String::from).to_vec())
    );
}

#[test]
fn counters_give_rates_by_the_devices_clock_also_in_each_row_of_a_walk() {
    let mut lab = lab(&[
        sensor(&[("1.3.6.1.1.1.0", "get")], "$1", "get"),
        sensor(&[("1.3.6.1.1.2", "walk"), ("1.3.6.1.1.1.0", "get")], "$1 * 8", "row.{$index}"),
        sensor(&[("1.3.6.1.1.3", "walk"), ("1.3.6.1.1.1.0", "get")], "$1 + $2", "all.{$index}"),
    ]);
    let read = |lab: &mut SnmpLab, count: u32| {
        set(
            lab,
            &[
                ("1.3.6.1.1.1.0", Owned::Counter32(count)),
                ("1.3.6.1.1.2.1", Owned::Counter64(u64::from(count) << 32)),
                ("1.3.6.1.1.2.2", Owned::Counter32(5)),
                ("1.3.6.1.1.3.1", Owned::Integer(1)),
                ("1.3.6.1.1.3.2", Owned::Integer(2)),
            ],
        );
        run(lab)
    };
    assert_eq!(read(&mut lab, 1000), (Outcome::Done, vec![]), "first readings");
    lab.run_for_s(60);
    let before = lab.now_ms();
    let (outcome, values) = read(&mut lab, 61_000);
    assert_eq!(outcome, Outcome::Done);
    let number = |values: &[String], path: &str| -> f64 {
        let found = values.iter().find_map(|v| v.strip_prefix(&format!("{path}="))).unwrap();
        found.parse().unwrap()
    };
    assert_eq!(values.len(), 5, "{values:?}");
    let rate = number(&values, "get");
    // Between the runs of a minute's grid, and by the same factor everywhere.
    assert!(before > 0 && rate > 0.0);
    let near = |a: f64, b: f64| (a / b - 1.0).abs() < 0.01;
    assert!(near(number(&values, "row.1"), rate * 8.0 * 4_294_967_296.0), "{values:?}");
    assert_eq!(number(&values, "row.2"), 0.0);
    assert!(
        near(number(&values, "all.1") - 1.0, rate) && near(number(&values, "all.2") - 2.0, rate),
        "{values:?}"
    );
}

#[test]
fn readings_of_rows_that_are_gone_do_not_fill_the_memory_of_states() {
    let mut lab = lab(&[sensor(&[("1.3.6.1.1.2", "walk")], "$1", "row.{$indexes}")]);
    // Ten new rows every run, of which 64 states have room for six runs.
    for run_number in 0..30u32 {
        for n in 0..10 {
            lab.bot().network().remove(&format!("1.3.6.1.1.2.{}", (run_number.max(1) - 1) * 10 + n));
            lab.bot().network().set(&format!("1.3.6.1.1.2.{}", run_number * 10 + n), Owned::Counter32(7));
        }
        assert_eq!(run(&mut lab), (Outcome::Done, vec![]), "{run_number}");
    }
    let (outcome, values) = run(&mut lab);
    assert_eq!((outcome, values.len()), (Outcome::Done, 10));
}

#[test]
fn what_goes_wrong_is_told_by_sensor_and_oid_and_the_rest_is_handed_over() {
    let mut lab = lab(&[
        sensor(&[("1.3.6.1.1.1.0", "get")], "$1", "good"),
        sensor(&[("1.3.6.1.1.2.0", "get")], "$1", "absent"),
        sensor(&[("1.3.6.1.1.1.0", "get")], "1 / ($1 - 7)", "zero"),
        sensor(&[("1.3.6.1.1.4", "walk")], "$1", "empty.{$index}"),
        sensor(&[("1.3.6.1.1.5.0", "get"), ("1.3.6.1.1.6.0", "get")], "$1 + $2", "two"),
        sensor(&[("1.3.6.1.1.7.0", "get")], "$1", "fifth"),
    ]);
    set(&lab, &[("1.3.6.1.1.1.0", Owned::Integer(7))]);
    let (outcome, values) = run(&mut lab);
    assert_eq!(values, ["good=7"]);
    assert_eq!(
        outcome,
        failed(
            "sensor 1003: 1.3.6.1.1.2.0: the agent has no such object or instance; \
             sensor 1004: 1.3.6.1.1.1.0: division by zero; \
             sensor 1006: 1.3.6.1.1.5.0: the agent has no such object or instance; \
             sensor 1007: 1.3.6.1.1.7.0: the agent has no such object or instance (and 1 more)"
        )
    );
    lab.bot().network().state().lost = u32::MAX;
    let (outcome, values) = run(&mut lab);
    assert!(values.is_empty());
    assert!(matches!(outcome, Outcome::Failed(why) if why.starts_with("no answer to 3 requests")));
    // 1, 2 and 3 seconds.
    let log: Vec<u32> = lab.bot().network().state().log.iter().rev().take(3).map(|(.., ms)| *ms).collect();
    assert_eq!(log, [3000, 2000, 1000]);
}

#[test]
fn a_walk_that_is_not_answered_costs_neither_what_was_read_nor_the_other_sensors() {
    let mut lab = lab(&[
        sensor(&[("1.3.6.1.1.1", "walk")], "$1", "silent.{$index}"),
        sensor(&[("1.3.6.1.1.9.0", "get")], "$1", "got"),
        sensor(&[("1.3.6.1.1.2", "walk")], "$1", "row.{$index}"),
        sensor(&[("1.3.6.1.1.3", "walk"), ("1.3.6.1.1.1", "walk")], "$1 + $2", "also silent.{$index}"),
        sensor(&[("1.3.6.1.1.4", "walk")], "$1", "last.{$index}"),
    ]);
    for name in ["1.3.6.1.1.1.1", "1.3.6.1.1.2.1", "1.3.6.1.1.3.1", "1.3.6.1.1.4.1", "1.3.6.1.1.9.0"] {
        set(&lab, &[(name, Owned::Integer(7))]);
    }
    lab.bot().network().state().silent_below = vec!["1.3.6.1.1.1"];
    let (outcome, values) = run(&mut lab);
    assert_eq!(values, ["got=7", "row.1=7", "last.1=7"]);
    let Outcome::Failed(why) = outcome else { panic!("{outcome:?}") };
    assert!(why.starts_with("sensor 1002: 1.3.6.1.1.1: no answer to 4 requests"), "{why}");
}

#[test]
fn a_second_time_out_in_a_row_ends_the_run() {
    let walk = |n: usize| sensor(&[(&format!("1.3.6.1.1.{n}"), "walk")], "$1", &format!("row{n}.{{$index}}"));
    let mut lab = lab(&[walk(1), walk(2), walk(3), sensor(&[("1.3.6.1.1.9.0", "get")], "$1", "got")]);
    set(&lab, &[("1.3.6.1.1.9.0", Owned::Integer(7)), ("1.3.6.1.1.3.1", Owned::Integer(7))]);
    lab.bot().network().state().silent_below = vec!["1.3.6.1.1.1", "1.3.6.1.1.2"];
    let (outcome, values) = run(&mut lab);
    assert_eq!(values, ["got=7"]);
    assert!(matches!(&outcome, Outcome::Failed(why) if why.contains("no answer")), "{outcome:?}");
    assert_eq!(lab.bot().network().asked(PduKind::GetBulk).len(), 6);
    // A device that says nothing at all is asked for one thing only.
    lab.bot().network().state().lost = u32::MAX;
    let before = lab.bot().network().state().log.len();
    assert!(matches!(run(&mut lab), (Outcome::Failed(_), values) if values.is_empty()));
    assert_eq!(lab.bot().network().state().log.len() - before, 3);
}

#[test]
fn a_silent_device_is_told_as_such_and_its_run_is_not_cancelled_also_at_short_intervals() {
    let make = |clock: &grafolean_test::Clock| {
        SnmpBot::new(Agent::new(Some(clock)), BoardMemory::new()).with_interfaces(false)
    };
    for (walks, tries) in [(1, 4), (2, 4)] {
        let mut lab: SnmpLab = Setup::host().lab_with(Memory::new(), make);
        let mut device = device(DEVICE, "snmpv2c");
        for n in 0..walks {
            device = device.sensor(sensor(&[(&format!("1.3.6.1.1.{n}"), "walk")], "$1", "{$index}"), 5);
        }
        lab.add(device);
        lab.refresh();
        lab.bot().network().state().lost = u32::MAX;
        let (outcome, _) = run(&mut lab);
        let told = format!("no answer to {tries} requests");
        assert!(matches!(&outcome, Outcome::Failed(why) if why.contains(&told)), "{outcome:?}");
    }
}

#[test]
fn a_slow_device_is_read_until_the_time_of_its_run_is_up() {
    let mut lab = lab_of("snmpv1", false, &[sensor(&[("1.3.6.1.1.1", "walk")], "$1", "{$index}")]);
    set_all(&lab, (0..200).map(|n| (format!("1.3.6.1.1.1.{n}"), Owned::Integer(1))).collect());
    lab.bot().network().state().delay_ms = 900;
    let (outcome, values) = run(&mut lab);
    assert!((50..200).contains(&values.len()), "{}", values.len());
    assert!(matches!(&outcome, Outcome::Failed(why) if why.contains("the run's time is up")), "{outcome:?}");
}

#[test]
fn what_a_first_datagram_gave_is_handed_over_where_the_second_is_not_answered() {
    let sensors: Vec<Value> = (1..=12)
        .map(|n| {
            let oids: Vec<String> = (1..=4).map(|k| format!("1.3.6.1.1.{n}.{k}.0")).collect();
            let oids: Vec<(&str, &str)> = oids.iter().map(|oid| (oid.as_str(), "get")).collect();
            sensor(&oids, "$1", &format!("v{n}.{{$4}}"))
        })
        .collect();
    let make = |clock: &grafolean_test::Clock| {
        ShortDatagrams::new(Agent::new(Some(clock)), BoardMemory::new()).with_interfaces(false)
    };
    let mut lab = Lab::of(make);
    lab.add(sensors.iter().fold(device(DEVICE, "snmpv2c"), |device, sensor| device.sensor(sensor, 60)));
    for n in 1..=12 {
        (1..=4).for_each(|k| lab.bot().network().set(&format!("1.3.6.1.1.{n}.{k}.0"), Owned::Integer(k)));
    }
    lab.bot().network().state().silent_below = vec!["1.3.6.1.1.12"];
    lab.refresh();
    let run = lab.next_run_of("");
    assert!(matches!(&run.outcome, Outcome::Failed(why) if why.starts_with("no answer")), "{run}");
    let values = lab.take_handed_over();
    assert!((1..12).contains(&values.len()), "{values:?}");
    for (nth, value) in values.iter().enumerate() {
        assert_eq!(*value, format!("entity.5.snmp.v{}.4=1", nth + 1));
    }
}

type ShortDatagrams = SnmpBot<Agent, BoardMemory<2048, 4>, 64, 96, 256, 4, 24, 484>;

#[test]
fn a_reading_of_another_object_or_another_device_gives_no_rate() {
    let sensor_of = |oid: &str| sensor(&[(oid, "get")], "$1", "rate");
    let mut lab = lab(&[sensor_of("1.3.6.1.1.1.0")]);
    set(
        &lab,
        &[("1.3.6.1.1.1.0", Owned::Counter32(1_000)), ("1.3.6.1.1.2.0", Owned::Counter32(4_000_000_000))],
    );
    assert_eq!(run(&mut lab), (Outcome::Done, vec![]), "a first reading");
    assert_eq!(run(&mut lab).1, ["rate=0"]);
    let mut changed = grafolean_test::backend::Sensor::new(1002, "Other", "snmp", Some(60));
    changed.details =
        grafolean_test::backend::Json::from_bytes(sensor_of("1.3.6.1.1.2.0").to_string().as_bytes()).unwrap();
    lab.backend().set_sensor(ACCOUNT as i32, changed).unwrap();
    lab.refresh();
    assert_eq!(run(&mut lab), (Outcome::Done, vec![]), "a first reading of the other object");
    assert_eq!(run(&mut lab).1, ["rate=0"]);
    for details in [json!({"ipv4": "192.0.2.2"}), json!({"ipv4": "192.0.2.2", "port": "1161"})] {
        lab.set_details(DEVICE, details);
        lab.refresh();
        assert_eq!(run(&mut lab), (Outcome::Done, vec![]), "a first reading of the other device");
        assert_eq!(run(&mut lab).1, ["rate=0"]);
    }
}

#[test]
fn readings_of_rows_that_are_gone_are_forgotten_also_where_a_sensor_fails_for_ever() {
    let mut lab = lab(&[
        sensor(&[("1.3.6.1.1.9.0", "get")], "$1", "absent"),
        sensor(&[("1.3.6.1.1.3.0", "get")], "1 / ($1 - 7)", "zero"),
        sensor(&[("1.3.6.1.1.2", "walk")], "$1", "row.{$indexes}"),
    ]);
    set(&lab, &[("1.3.6.1.1.3.0", Owned::Integer(7))]);
    for run_number in 0..30u32 {
        for n in 0..10 {
            lab.bot().network().remove(&format!("1.3.6.1.1.2.{}", (run_number.max(1) - 1) * 10 + n));
            lab.bot().network().set(&format!("1.3.6.1.1.2.{}", run_number * 10 + n), Owned::Counter32(7));
        }
        let (outcome, values) = run(&mut lab);
        assert!(values.is_empty());
        assert!(matches!(&outcome, Outcome::Failed(why) if !why.contains("not remembered")), "{outcome:?}");
    }
    assert_eq!(run(&mut lab).1.len(), 10);
}

#[test]
fn readings_are_kept_while_a_walk_is_not_answered() {
    let mut lab = lab(&[
        sensor(&[("1.3.6.1.1.1", "walk")], "$1", "row.{$index}"),
        sensor(&[("1.3.6.1.1.2", "walk")], "$1", "other.{$index}"),
    ]);
    set(&lab, &[("1.3.6.1.1.1.1", Owned::Counter32(7)), ("1.3.6.1.1.2.1", Owned::Counter32(7))]);
    (0..3).for_each(|_| drop(run(&mut lab)));
    lab.bot().network().state().silent_below = vec!["1.3.6.1.1.2"];
    for _ in 0..4 {
        assert_eq!(run(&mut lab).1, ["row.1=0"]);
    }
    lab.bot().network().state().silent_below.clear();
    assert_eq!(run(&mut lab), (Outcome::Done, vec!["row.1=0".to_string(), "other.1=0".to_string()]));
}

#[test]
fn a_sensor_that_cannot_be_used_is_refused_at_the_refresh_and_the_others_go_on() {
    let mut lab = lab(&[
        sensor(&[("1.3.6.1.1.1.0", "get")], "$1 +", "bad"),
        sensor(&[("1.3.6.1.1.1.0", "get")], "$1", "good"),
    ]);
    lab.assert_told("`expression`, column 5");
    set(&lab, &[("1.3.6.1.1.1.0", Owned::Integer(7))]);
    assert_eq!(run(&mut lab), (Outcome::Done, vec!["good=7".to_string()]));
}

/// Paths and numbers of requests as a recording of Grafolean's own bot has them for the same configuration.
#[test]
fn usual_sensors_give_the_paths_of_grafoleans_own_bot_by_no_more_requests() {
    let in_octets = [("1.3.6.1.2.1.2.2.1.2", "walk"), ("1.3.6.1.2.1.2.2.1.10", "walk")];
    let mut lab = lab(&[
        sensor(&in_octets, "$2", "if.in-octets.{$index}.{$1}"),
        sensor(&[("1.3.6.1.2.1.1.3.0", "get")], "$1 / 100", "uptime"),
    ]);
    let names = ["lo", "ifb0", "ifb1", "eth0", "taps0"];
    for (n, name) in (1..).zip(names) {
        set_all(&lab, texts("1.3.6.1.2.1.2.2.1.2", &[(n, name)]));
        lab.bot().network().set(&format!("1.3.6.1.2.1.2.2.1.10.{n}"), Owned::Counter32(7));
    }
    let before = lab.requests().len();
    lab.refresh();
    // Accounts, entities, the device, its credential, two sensors; its own bot asks for each entity besides.
    let asked = lab.requests().len() - before;
    assert!((1..=6).contains(&asked), "{asked}");
    let (outcome, values) = run(&mut lab);
    assert_eq!((outcome, values.len()), (Outcome::Done, 1), "{values:?}: no rates yet");
    let (outcome, values) = run(&mut lab);
    assert_eq!(outcome, Outcome::Done);
    let paths: Vec<&str> = values.iter().map(|value| value.split('=').next().unwrap()).collect();
    let expected = [
        "uptime",
        "if.in-octets.1.lo",
        "if.in-octets.2.ifb0",
        "if.in-octets.3.ifb1",
        "if.in-octets.4.eth0",
        "if.in-octets.5.taps0",
    ];
    assert_eq!(paths, expected);
    lab.run_for_s(600);
    let values = lab.requests().iter().filter(|sent| sent.path.contains("/values"));
    let (sent, runs) = (values.count(), lab.runs_of("").len());
    assert!(runs >= 10 && (runs - 1..=runs).contains(&sent), "one request a run: {sent} of {runs}");
}

// ---- interfaces ----

const DESCR: &str = "1.3.6.1.2.1.2.2.1.2";
const SPEED: &str = "1.3.6.1.2.1.2.2.1.5";
const HIGH: &str = "1.3.6.1.2.1.31.1.1.1.15";

fn interface_lab(version: &str) -> SnmpLab {
    let lab = lab_of(version, true, &[sensor(&[("1.3.6.1.1.1.0", "get")], "$1", "one")]);
    set(
        &lab,
        &[
            (&format!("{DESCR}.1"), Owned::Text("lo")),
            (&format!("{DESCR}.2"), Owned::Text("ifb0")),
            (&format!("{DESCR}.3"), Owned::Text("ifb1")),
            (&format!("{SPEED}.1"), Owned::Gauge(10_000_000)),
            (&format!("{SPEED}.2"), Owned::Gauge(0)),
            (&format!("{SPEED}.3"), Owned::Gauge(u32::MAX)),
            (&format!("{HIGH}.3"), Owned::Gauge(10_000)),
        ],
    );
    lab
}

fn interface(id: i32, name: &str, index: &str, speed_bps: &str) -> Entity {
    let mut interface = Entity::device(id, name).detail("snmp_index", index).detail("speed_bps", speed_bps);
    interface.entity_type = "interface".to_string();
    interface.parent = Some(DEVICE as i32);
    interface
}

/// The next run of the interfaces' job: what it asked of the backend, with bodies.
fn upkeep(lab: &mut SnmpLab) -> (Run, Vec<String>) {
    let before = lab.requests().len();
    let run = lab.next_run_of("interfaces");
    let path = format!("/accounts/{ACCOUNT}/entities/");
    // A refresh lists the entities too: right after the accounts.
    let requests: Vec<_> = lab.requests().iter().collect();
    let is_refresh =
        |at: usize| at > 0 && requests[at].method == "GET" && requests[at - 1].path == "/accounts/";
    let own = (before..requests.len()).filter(|at| requests[*at].path.starts_with(&path) && !is_refresh(*at));
    let sent = own.map(|at| requests[at]);
    let shown = sent.map(|sent| {
        let body = &sent.body;
        format!("{} {} {body}", sent.method, sent.path.replace(&path, "")).trim_end().to_string()
    });
    let shown = shown.collect();
    (run, shown)
}

#[test]
fn interfaces_are_created_changed_and_deleted_by_one_request_each_and_then_left_alone_for_an_hour() {
    for version in ["snmpv1", "snmpv2c"] {
        let mut lab = interface_lab(version);
        let backend = lab.backend();
        backend.set_entity(1, interface(21, "lo", "1", "1")).unwrap();
        backend.set_entity(1, interface(22, "ifb0", "2", "0")).unwrap();
        backend.set_entity(1, interface(23, "gone0", "99", "1")).unwrap();
        backend.set_entity(1, interface(24, "double", "2", "0")).unwrap();
        let (run, asked) = upkeep(&mut lab);
        assert_eq!(run.outcome, Outcome::Done, "{version}");
        assert_eq!(
            asked,
            [
                "GET",
                r#"PUT 21 {"name":"lo","entity_type":"interface","details":{"snmp_index":"1","speed_bps":"10000000"}}"#,
                r#"POST  {"name":"ifb1","entity_type":"interface","parent":5,"details":{"snmp_index":"3","speed_bps":"10000000000"}}"#,
            ]
        );
        // What is gone, and the second one of an interface, when they were so in three reads.
        assert_eq!(upkeep(&mut lab).1, ["GET"]);
        assert_eq!(upkeep(&mut lab).1, ["GET", "DELETE 23", "DELETE 24"]);
        // Every five minutes the device is asked, the backend is not.
        for _ in 0..10 {
            assert_eq!(upkeep(&mut lab).1, Vec::<String>::new());
        }
        lab.run_for_s(3600);
        lab.remove(22);
        let mut asked = vec![];
        for _ in 0..13 {
            asked.extend(upkeep(&mut lab).1);
        }
        let post = r#"POST  {"name":"ifb0","entity_type":"interface","parent":5,"details":{"snmp_index":"2","speed_bps":"0"}}"#;
        assert!(asked.contains(&post.to_string()), "{asked:?}");
        assert!(asked.iter().filter(|asked| *asked == "GET").count() <= 2, "{asked:?}");
    }
}

#[test]
fn a_changed_interface_keeps_its_protocols() {
    let mut lab = interface_lab("snmpv2c");
    let mut changed = interface(21, "old name", "1", "10000000");
    let kept =
        EntityProtocol { credential: 1001, sensors: Vec::new(), bot: Some(grafolean_test::BOT as i32) };
    changed.protocols = vec![("snmp".to_string(), kept)];
    let protocols = changed.protocols.clone();
    lab.backend().set_entity(1, changed).unwrap();
    assert_eq!(upkeep(&mut lab).0.outcome, Outcome::Done);
    let lo = lab.entity(21);
    assert_eq!((lo.name.as_str(), lo.protocols), ("lo", protocols));
}

#[test]
fn an_entity_that_the_backend_does_not_take_holds_up_no_others_and_is_tried_again_in_an_hour() {
    let mut lab = interface_lab("snmpv2c");
    let mut changed = interface(21, "old name", "1", "10000000");
    // Its bot was deleted: the backend has null there, and does not take it back.
    let of_nobody = EntityProtocol { credential: 1001, sensors: Vec::new(), bot: None };
    changed.protocols = vec![("snmp".to_string(), of_nobody)];
    lab.backend().set_entity(1, changed).unwrap();
    let (run, asked) = upkeep(&mut lab);
    assert_eq!(run.outcome, failed("the backend answered 400"));
    assert_eq!(asked.iter().filter(|asked| asked.starts_with("POST")).count(), 2, "{asked:?}");
    for _ in 0..10 {
        assert_eq!(upkeep(&mut lab).1, Vec::<String>::new());
    }
    let mut asked = vec![];
    (0..3).for_each(|_| asked.extend(upkeep(&mut lab).1));
    assert_eq!(asked.len(), 2, "{asked:?}");
}

#[test]
fn nothing_is_deleted_where_the_walk_failed_or_found_nothing() {
    for fault in 0..3 {
        let mut lab = interface_lab("snmpv2c");
        lab.backend().set_entity(1, interface(23, "gone0", "99", "1")).unwrap();
        let network = lab.bot().network().clone();
        match fault {
            0 => network.state().lost = u32::MAX,
            1 => drop(network.state().next.insert(format!("{DESCR}.3"), format!("{DESCR}.1"))),
            _ => (1..=3).for_each(|n| network.remove(&format!("{DESCR}.{n}"))),
        }
        let (run, asked) = upkeep(&mut lab);
        assert_eq!(run.outcome == Outcome::Done, fault == 2, "{run}");
        assert_eq!(asked, Vec::<String>::new());
    }
}

#[test]
fn without_permission_one_device_of_the_account_says_so_and_the_others_do_not_even_try() {
    let mut lab = interface_lab("snmpv2c");
    for id in [6, 7] {
        let sensor = sensor(&[("1.3.6.1.1.1.0", "get")], "$1", "one");
        lab.add(device(id, "snmpv2c").sensor(&sensor, 60));
    }
    lab.permissions([
        Permission::new("accounts", Some(&["GET"])),
        Permission::new("accounts/1/values", None),
    ]);
    lab.refresh();
    let before = lab.requests().len();
    lab.run_for_s(1500);
    let runs: Vec<Run> = lab.runs_of("interfaces");
    let complaining: Vec<u64> = runs.iter().filter(|run| !run.is_done()).map(Run::entity).collect();
    assert!(runs.len() >= 12 && !complaining.is_empty());
    assert!(complaining.iter().all(|entity| *entity == complaining[0]), "{complaining:?}");
    let tried = |lab: &SnmpLab, from: usize| {
        lab.requests()
            .iter()
            .skip(from)
            .filter(|sent| sent.method == "POST" && sent.path.contains("/entities/"))
            .count()
    };
    assert_eq!(tried(&lab, before), 1);
    // An hour later one of them tries again, and is allowed.
    lab.permissions([Permission::new("accounts", None)]);
    lab.run_for_s(3900);
    assert_eq!(lab.entities().iter().filter(|e| e.entity_type == "interface").count(), 9);
    lab.run_for_s(900);
    let last: Vec<bool> = lab.runs_of("interfaces").iter().rev().take(3).map(Run::is_done).collect();
    assert_eq!(last, [true; 3]);
}

#[test]
fn more_interfaces_than_the_board_has_room_for_are_told_and_nothing_is_changed() {
    let mut lab = interface_lab("snmpv2c");
    for n in 1..200 {
        lab.bot().network().set(&format!("{DESCR}.{n}"), Owned::Text("some interface"));
    }
    let (run, asked) = upkeep(&mut lab);
    assert_eq!(run.outcome, failed("more than there is room for (2048 bytes)"));
    assert_eq!(asked, Vec::<String>::new());
}
