//! The flow bot on simulated time: jobs per account, state between runs, suggested entities.
#![allow(clippy::unwrap_used)]

#[path = "../../ping/tests/rig/mod.rs"]
mod rig;

use std::cell::RefCell;
use std::net::Ipv4Addr;

use grafolean_bot_flows::{Direction, FlowBot, FlowSource, KEEP_MS};
use grafolean_core::jobs::Due;
use grafolean_core::time::Millis;
use rig::{ACCOUNT, Clock, Rig};
use serde_json::{Value, json};

/// Each exporter tells of 1 byte in and 10 out in each millisecond.
#[derive(Default)]
struct Steady {
    exporters: RefCell<Vec<Ipv4Addr>>,
    asked: RefCell<Vec<(u64, u64)>>,
    forgotten: RefCell<Vec<u64>>,
}

impl FlowSource for Steady {
    fn bytes_between(&self, exporter: Ipv4Addr, direction: Direction, from: Millis, to: Millis) -> u64 {
        if direction == Direction::Ingress {
            self.asked.borrow_mut().push((from.0, to.0));
        }
        let factor = if direction == Direction::Ingress { 1 } else { 10 };
        (to.0 - from.0) * factor * u64::from(exporter.octets()[3])
    }
    fn exporters(&self, each: &mut dyn FnMut(Ipv4Addr)) {
        self.exporters.borrow().iter().copied().for_each(each);
    }
    fn forget_before(&self, time: Millis) {
        self.forgotten.borrow_mut().push(time.0);
    }
}

type Flows = FlowBot<Steady, 3, 256>;

grafolean_core::inline_storage! {
    struct Memory for Flows {
        accounts: 2, entities: 8, links: 2, credentials: 2, sensors: 2, jobs: 8, spare: 8,
        intervals: 16, distinct_intervals: 8, runs: 4, cells: 16, element: 2048, scratch: 64,
        listing: 64, states: 17, faults: 16, events: 64,
    }
}

/// 2026-11-22T00:00:00Z, a multiple of all intervals, in Unix seconds.
const DAY: u64 = 1_795_305_600;

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, last)
}

fn device(id: u64, details: Value) -> Value {
    json!({
        "id": id, "name": "d", "entity_type": "device", "parent": null, "details": details,
        "protocols": {"netflow": {"credential": 1, "bot": null, "sensors": [{"sensor": 1, "interval": null}]}},
    })
}

/// Devices 5 and 6 with the addresses 192.0.2.1 and 192.0.2.2, refreshed one second after midnight.
fn rig() -> Rig<Flows, Memory> {
    rig_at(1)
}

fn rig_at(second: u64) -> Rig<Flows, Memory> {
    let clock = Clock::default();
    clock.pass_ms((DAY + second) * 1000);
    let mut rig = Rig::new(FlowBot::new(Steady::default()), Memory::new(), clock);
    {
        let mut world = rig.world.borrow_mut();
        world.entities.push(device(6, json!({"ipv4": "192.0.2.2"})));
        world.entities.push(device(5, json!({"ipv4": " 192.0.2.1 "})));
        world.credentials.push(json!({"id": 1, "details": {}}));
        world.sensors.push(json!({"id": 1, "details": {}, "default_interval": null}));
    }
    rig.refresh();
    rig
}

fn of<'a>(ended: &'a [(Due, Result<(), String>)], name: &str) -> Vec<&'a (Due, Result<(), String>)> {
    ended.iter().filter(|(due, _)| due.key.name == name).collect()
}

#[test]
fn an_account_has_its_aggregations_and_its_maintenance_at_their_instants() {
    let mut rig = rig();
    let jobs: Vec<_> = rig.jobs().into_iter().collect();
    assert!(jobs.iter().all(|(key, _)| (key.account, key.entity, key.item) == (ACCOUNT, 0, 0)));
    let ended = rig.run_until((DAY + 86_400 + 5_355) * 1000);
    let expected = [
        ("aggr/1min", 60, 0),
        ("aggr/15min", 900, 15),
        ("aggr/1h", 3_600, 255),
        ("aggr/4h", 14_400, 1_755),
        ("aggr/24h", 86_400, 5_355),
        ("maint/remove_old_data", 3_600, 50),
        ("maint/suggest_entities", 120, 10),
    ];
    assert_eq!(jobs.len(), expected.len());
    for (name, interval_s, at) in expected {
        let runs = of(&ended, name);
        // From just after midnight on: at k · interval + at, and never else.
        let instants: Vec<_> = runs.iter().map(|(due, _)| due.scheduled.0 - DAY).collect();
        let grid: Vec<_> =
            (1..=86_400 + 5_355).filter(|s| *s > 1 && s % interval_s == at % interval_s).collect();
        assert_eq!(instants, grid, "{name}");
        assert!(runs.iter().all(|(_, result)| result.is_ok()), "{name}");
    }
}

#[test]
fn an_aggregation_covers_the_time_since_its_last_run_whenever_that_was() {
    let mut rig = rig_at(20);
    let at = |second: u64| (DAY + second) * 1000;
    rig.run_until(at(60));
    assert_eq!(
        rig.take_values(),
        [
            "netflow.1min.ingress.entity.5=60000",
            "netflow.1min.ingress.entity.6=120000",
            "netflow.1min.ingress=180000",
            "netflow.1min.egress.entity.5=600000",
            "netflow.1min.egress.entity.6=1200000",
            "netflow.1min.egress=1800000",
        ]
    );
    let asked = |rig: &Rig<Flows, Memory>| std::mem::take(&mut *rig.bot.flows().asked.borrow_mut());
    // One after the other for the two devices: without a state, one interval back.
    assert_eq!(asked(&rig), [(at(0), at(60)), (at(0), at(60))]);
    // The machine was suspended: one run for all that was missed.
    rig.clock.pass_ms(200_500);
    let ended = rig.run_until(at(261));
    let minute = of(&ended, "aggr/1min");
    assert_eq!((minute.len(), minute[0].0.missed), (1, 2));
    assert!(asked(&rig).starts_with(&[(at(60), at(260) + 500); 2]));
    rig.run_until(at(300));
    assert_eq!(asked(&rig).last(), Some(&(at(260) + 500, at(300))));
}

#[test]
fn a_state_outlives_a_refresh_but_not_its_job() {
    let mut rig = rig_at(20);
    let at = |second: u64| (DAY + second) * 1000;
    rig.run_until(at(60));
    rig.clock.pass_ms(10_000);
    // Other parameters, the same job.
    rig.world.borrow_mut().entities.pop();
    rig.refresh();
    rig.bot.flows().asked.borrow_mut().clear();
    rig.run_until(at(120));
    assert_eq!(*rig.bot.flows().asked.borrow(), [(at(60), at(120))]);
    // No device: no job, and no state.
    rig.clock.pass_ms(5_000);
    let kept = std::mem::take(&mut rig.world.borrow_mut().entities);
    rig.refresh();
    assert_eq!(rig.jobs().len(), 2, "maintenance only");
    rig.clock.pass_ms(65_000);
    rig.run_until(at(190));
    rig.world.borrow_mut().entities = kept;
    rig.refresh();
    rig.bot.flows().asked.borrow_mut().clear();
    rig.run_until(at(240));
    assert_eq!(*rig.bot.flows().asked.borrow(), [(at(180), at(240))]);
}

#[test]
fn an_exporter_that_the_account_does_not_know_is_suggested_once() {
    let mut rig = rig();
    rig.bot.flows().exporters.borrow_mut().extend([ip(1), ip(9)]);
    let ended = rig.run_until((DAY + 500) * 1000);
    assert_eq!(of(&ended, "maint/suggest_entities").len(), 5);
    assert!(ended.iter().all(|(_, result)| result.is_ok()));
    let world = rig.world.borrow();
    let created: Vec<_> = world.requests.iter().filter(|r| *r != "GET").collect();
    assert_eq!(created, ["POST 192.0.2.9 (NetFlow exporter)"]);
    let new = world.entities.last().unwrap();
    assert_eq!(new["entity_type"], "device");
    assert_eq!((&new["details"], &new["parent"]), (&json!({"ipv4": "192.0.2.9"}), &Value::Null));
}

#[test]
fn nothing_is_asked_while_there_are_no_exporters() {
    let mut rig = rig();
    rig.run_until((DAY + 500) * 1000);
    assert!(rig.world.borrow().requests.is_empty());
}

#[test]
fn a_denied_creation_is_said_once_and_tried_again_until_it_is_allowed() {
    let mut rig = rig();
    rig.bot.flows().exporters.borrow_mut().extend([ip(8), ip(9)]);
    rig.world.borrow_mut().status = Some(403);
    let results = |ended: &[(Due, Result<(), String>)]| -> Vec<bool> {
        of(ended, "maint/suggest_entities").iter().map(|(_, result)| result.is_ok()).collect()
    };
    let ended = rig.run_until((DAY + 400) * 1000);
    assert_eq!(results(&ended), [false, true, true, true]);
    assert!(
        ended.iter().any(|(_, r)| r.as_ref().is_err_and(|e| e.contains("no permission to create entities")))
    );
    assert_eq!(rig.world.borrow().requests.iter().filter(|r| *r != "GET").count(), 4, "each run tries one");
    assert!(!of(&ended, "aggr/1min").is_empty(), "the other jobs go on");

    rig.world.borrow_mut().status = None;
    let ended = rig.run_until((DAY + 500) * 1000);
    assert_eq!(results(&ended), [true]);
    assert_eq!(rig.world.borrow().entities.len(), 4);
    // Denied anew: said anew.
    rig.world.borrow_mut().status = Some(403);
    rig.bot.flows().exporters.borrow_mut().push(ip(7));
    let ended = rig.run_until((DAY + 750) * 1000);
    assert_eq!(results(&ended), [false, true]);
}

#[test]
fn another_fault_of_the_backend_is_said_each_time() {
    let mut rig = rig();
    rig.bot.flows().exporters.borrow_mut().push(ip(9));
    rig.world.borrow_mut().status = Some(500);
    let ended = rig.run_until((DAY + 260) * 1000);
    let said: Vec<_> =
        of(&ended, "maint/suggest_entities").iter().map(|(_, r)| r.clone().unwrap_err()).collect();
    assert_eq!(said, vec!["the backend answered 500"; 3]);
}

#[test]
fn where_an_entity_cannot_be_read_none_is_created_since_it_may_be_the_exporters() {
    let mut rig = rig();
    rig.bot.flows().exporters.borrow_mut().push(ip(9));
    rig.world.borrow_mut().entities.push(device(7, json!({"ipv4": "192.0.2.9", "note": "x".repeat(300)})));
    let ended = rig.run_until((DAY + 20) * 1000);
    let said = of(&ended, "maint/suggest_entities")[0].1.clone().unwrap_err();
    assert_eq!(said, "longer than the buffer of 256 bytes");
    assert_eq!(rig.world.borrow().requests, ["GET"]);
}

#[test]
fn entities_of_other_kinds_do_not_disturb_the_suggestions() {
    let mut rig = rig();
    rig.bot.flows().exporters.borrow_mut().push(ip(9));
    for details in [
        json!(null),
        json!([1]),
        json!({}),
        json!({"ipv4": 5}),
        json!({"ipv4": "router"}),
        json!({"x": "\u{1}"}),
    ] {
        rig.world.borrow_mut().entities.push(json!({
            "id": 70, "name": "e\"th", "entity_type": "interface", "parent": 5, "details": details, "protocols": {},
        }));
    }
    rig.run_until((DAY + 20) * 1000);
    assert_eq!(rig.world.borrow().requests.last().unwrap(), "POST 192.0.2.9 (NetFlow exporter)");
}

#[test]
fn more_devices_or_exporters_than_there_is_room_for_are_said() {
    let mut rig = rig();
    for id in 10..13 {
        rig.world.borrow_mut().entities.push(device(id, json!({"ipv4": format!("192.0.2.{id}")})));
    }
    rig.world.borrow_mut().entities.push(device(20, json!({"ipv4": "router"})));
    rig.refresh();
    let said = |rig: &Rig<Flows, Memory>, what: &str| rig.events.iter().any(|e| e.contains(what));
    assert!(said(&rig, "account 1: more devices than this bot can sum up"), "{:?}", rig.events);
    assert!(said(&rig, "entity 20: details: `ipv4` is not an IPv4 address"), "{:?}", rig.events);
    rig.run_until((DAY + 60) * 1000);
    let minute = rig.take_values().into_iter().filter(|v| v.starts_with("netflow.1min."));
    assert_eq!(minute.count(), 2 * (3 + 1));
    rig.bot.flows().exporters.borrow_mut().extend([ip(30), ip(31), ip(32), ip(33)]);
    let ended = rig.run_until((DAY + 140) * 1000);
    let suggested = of(&ended, "maint/suggest_entities");
    assert_eq!(suggested[0].1, Err("more than 3 exporters, the others must wait".to_string()));
    assert_eq!(rig.world.borrow().requests.iter().filter(|r| *r != "GET").count(), 3);
}

#[test]
fn flows_that_no_sum_needs_are_forgotten_each_hour() {
    let mut rig = rig();
    rig.run_until((DAY + 7_300) * 1000);
    let expected = [50, 3_650, 7_250].map(|s| (DAY + s) * 1000 - KEEP_MS);
    assert_eq!(*rig.bot.flows().forgotten.borrow(), expected);
}

#[test]
fn the_order_in_which_the_backend_lists_devices_changes_nothing() {
    let mut rig = rig();
    rig.world.borrow_mut().entities.reverse();
    rig.clock.pass_ms(1000);
    rig.refresh();
    let committed = rig.collector.refresh_summary().committed;
    assert_eq!((committed.added, committed.changed, committed.removed), (0, 0, 0));
}
