//! The flow bot on simulated time: jobs per account, state between runs, suggested entities.

use std::cell::RefCell;
use std::net::Ipv4Addr;

use grafolean_bot_flows::{Direction, FlowBot, FlowSource, KEEP_MS};
use grafolean_core::time::Millis;
use grafolean_test::backend::{ListKind, Permission};
use grafolean_test::{ACCOUNT, Answer, Device, Lab, Outcome, Run, Setup};
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
        intervals: 16, distinct_intervals: 8, runs: 4, cells: 512, element: 2048, scratch: 64,
        listing: 1024, states: 17, faults: 16, events: 64,
    }
}

/// 2026-11-22T00:00:00Z, a multiple of all intervals, in Unix seconds.
const DAY: u64 = 1_795_305_600;

/// Credential and sensor of all devices, as the lab numbers them.
const CREDENTIAL: u64 = 1001;
const SENSOR: u64 = 1002;

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, last)
}

fn device(id: u64, details: Value) -> Device {
    Device::new(id).details(details).credential_id(CREDENTIAL).sensor_id(SENSOR, None)
}

/// The same as the backend lists it.
fn listed(id: u64, details: Value) -> Value {
    let sensors = json!([{"sensor": SENSOR, "interval": null}]);
    json!({
        "id": id, "name": "d", "entity_type": "device", "parent": null, "details": details,
        "protocols": {"netflow": {"credential": CREDENTIAL, "sensors": sensors, "bot": null}},
    })
}

/// Devices 5 and 6 with the addresses 192.0.2.1 and 192.0.2.2, refreshed one second after midnight, and later only when told.
fn lab() -> Lab<Flows, Memory> {
    lab_at(1)
}

fn lab_at(second: u64) -> Lab<Flows, Memory> {
    let setup = Setup::host().start_unix_s(DAY + second).settings(|s| s.refresh_interval_s = 1_000_000);
    let mut lab = setup.lab_with(Memory::new(), |_| FlowBot::new(Steady::default()));
    assert_eq!((lab.credential("{}"), lab.sensor("{}", None)), (CREDENTIAL, SENSOR));
    lab.add(device(6, json!({"ipv4": "192.0.2.2"})));
    lab.add(device(5, json!({"ipv4": " 192.0.2.1 "})));
    lab.refresh();
    lab
}

/// Goes on until so many seconds after midnight: the runs since the last call of this.
fn run_until(lab: &mut Lab<Flows, Memory>, second: u64) -> Vec<Run> {
    let before = lab.runs().len();
    let now_s = lab.clock().unix_ms() / 1000 - DAY;
    lab.run_for_ms((second.saturating_sub(now_s) * 1000).saturating_sub(lab.clock().unix_ms() % 1000));
    lab.runs().split_off(before)
}

fn of<'a>(runs: &'a [Run], name: &str) -> Vec<&'a Run> {
    runs.iter().filter(|run| run.key().name == name).collect()
}

/// Values of one aggregation, in the order of their handing over.
fn take_values(lab: &mut Lab<Flows, Memory>, label: &str) -> Vec<String> {
    let label = format!("netflow.{label}.");
    lab.take_handed_over().into_iter().filter(|value| value.starts_with(&label)).collect()
}

fn asked(lab: &Lab<Flows, Memory>) -> Vec<(u64, u64)> {
    std::mem::take(&mut *lab.bot().flows().asked.borrow_mut())
}

fn posts(lab: &Lab<Flows, Memory>) -> usize {
    lab.requests_of("POST entities").len()
}

fn failed(why: &str) -> Outcome {
    Outcome::Failed(why.to_string())
}

const fn at(second: u64) -> u64 {
    (DAY + second) * 1000
}

#[test]
fn an_account_has_its_aggregations_and_its_maintenance_at_their_instants() {
    let mut lab = lab();
    let jobs = lab.jobs();
    assert!(jobs.iter().all(|job| (job.key.account, job.key.entity, job.key.item) == (ACCOUNT, 0, 0)));
    let ended = run_until(&mut lab, 86_400 + 5_355);
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
        let instants: Vec<_> = runs.iter().map(|run| run.due.scheduled.0 - DAY).collect();
        let grid: Vec<_> =
            (1..=86_400 + 5_355).filter(|s| *s > 1 && s % interval_s == at % interval_s).collect();
        assert_eq!(instants, grid, "{name}");
    }
    lab.assert_all_done();
    lab.assert_no_warnings();
    lab.run_for_s(1);
    lab.assert_delivered();
    lab.assert_series("netflow.24h.ingress.entity.6", &[2.0 * 86_400_000.0; 2]);
}

#[test]
fn an_aggregation_covers_the_time_since_its_last_run_whenever_that_was() {
    let mut lab = lab_at(20);
    run_until(&mut lab, 60);
    assert_eq!(
        lab.take_handed_over(),
        [
            "netflow.1min.ingress.entity.5=60000",
            "netflow.1min.ingress.entity.6=120000",
            "netflow.1min.ingress=180000",
            "netflow.1min.egress.entity.5=600000",
            "netflow.1min.egress.entity.6=1200000",
            "netflow.1min.egress=1800000",
        ]
    );
    // One after the other for the two devices: without a state, one interval back.
    assert_eq!(asked(&lab), [(at(0), at(60)), (at(0), at(60))]);
    // One run for all that was missed.
    lab.suspend_ms(200_500);
    let ended = run_until(&mut lab, 261);
    let minute = of(&ended, "aggr/1min");
    assert_eq!((minute.len(), minute[0].due.missed), (1, 2));
    assert!(asked(&lab).starts_with(&[(at(60), at(260) + 500); 2]));
    run_until(&mut lab, 300);
    assert_eq!(asked(&lab).last(), Some(&(at(260) + 500, at(300))));
}

#[test]
fn a_state_outlives_a_refresh_but_not_its_job() {
    let mut lab = lab_at(20);
    run_until(&mut lab, 70);
    // Other parameters, the same job.
    lab.remove(6);
    lab.refresh();
    asked(&lab);
    run_until(&mut lab, 120);
    assert_eq!(asked(&lab), [(at(60), at(120))]);
    // No device: no job, and no state.
    run_until(&mut lab, 125);
    lab.remove(5);
    lab.refresh();
    assert_eq!(lab.jobs().len(), 2, "maintenance only");
    run_until(&mut lab, 190);
    lab.add(device(5, json!({"ipv4": "192.0.2.1"})));
    lab.refresh();
    asked(&lab);
    run_until(&mut lab, 240);
    assert_eq!(asked(&lab), [(at(180), at(240))]);
}

#[test]
fn an_exporter_that_the_account_does_not_know_is_suggested_once() {
    let mut lab = lab();
    lab.bot().flows().exporters.borrow_mut().extend([ip(1), ip(9)]);
    let ended = run_until(&mut lab, 500);
    assert_eq!(of(&ended, "maint/suggest_entities").len(), 5);
    lab.assert_all_done();
    assert_eq!(posts(&lab), 1);
    let new: Vec<_> = lab.entities().into_iter().filter(|entity| ![5, 6].contains(&entity.id)).collect();
    assert_eq!(new.len(), 1);
    assert_eq!(
        (new[0].name.as_str(), new[0].entity_type.as_str()),
        ("192.0.2.9 (NetFlow exporter)", "device")
    );
    assert_eq!(new[0].details.to_compact().unwrap(), r#"{"ipv4":"192.0.2.9"}"#);
    assert_eq!(new[0].parent, None);
}

#[test]
fn an_entity_whose_creation_was_not_answered_is_not_created_again() {
    let mut lab = lab();
    lab.bot().flows().exporters.borrow_mut().push(ip(9));
    lab.answer_next("POST entities", Answer::Lost);
    let ended = run_until(&mut lab, 500);
    let outcomes: Vec<_> = of(&ended, "maint/suggest_entities").iter().map(|run| run.is_done()).collect();
    assert_eq!(outcomes, [false, true, true, true, true]);
    assert_eq!((posts(&lab), lab.entities().len()), (1, 3));
}

#[test]
fn nothing_is_asked_while_there_are_no_exporters() {
    let mut lab = lab();
    let before = lab.requests().len();
    run_until(&mut lab, 500);
    let asked = lab.requests().iter().skip(before);
    assert!(asked.into_iter().all(|sent| sent.path.ends_with("/values/")));
    assert_eq!(lab.requests_of("entities").len(), 1, "the refresh's");
}

#[test]
fn a_denied_creation_is_said_once_and_tried_again_until_it_is_allowed() {
    let deny = |lab: &mut Lab<Flows, Memory>| {
        lab.permissions([
            Permission::new("accounts", Some(&["GET"])),
            Permission::new("accounts/1/values", None),
        ]);
    };
    let results = |runs: &[Run]| -> Vec<bool> {
        of(runs, "maint/suggest_entities").iter().map(|run| run.is_done()).collect()
    };
    let mut lab = lab();
    lab.bot().flows().exporters.borrow_mut().extend([ip(8), ip(9)]);
    deny(&mut lab);
    let ended = run_until(&mut lab, 400);
    assert_eq!(results(&ended), [false, true, true, true]);
    let why = |run: &Run| matches!(&run.outcome, Outcome::Failed(why) if why.contains("no permission to create entities"));
    assert!(ended.iter().any(why));
    assert_eq!(posts(&lab), 4, "each run tries one");
    assert!(!of(&ended, "aggr/1min").is_empty(), "the other jobs go on");

    lab.permissions([Permission::new("accounts", None)]);
    let ended = run_until(&mut lab, 500);
    assert_eq!(results(&ended), [true]);
    assert_eq!(lab.entities().len(), 4);
    // Denied anew: said anew.
    deny(&mut lab);
    lab.bot().flows().exporters.borrow_mut().push(ip(7));
    let ended = run_until(&mut lab, 750);
    assert_eq!(results(&ended), [false, true]);
    lab.assert_delivered();
}

#[test]
fn another_fault_of_the_backend_is_said_each_time() {
    let mut lab = lab();
    lab.bot().flows().exporters.borrow_mut().push(ip(9));
    lab.answer_always("POST entities", Answer::status(500));
    let ended = run_until(&mut lab, 260);
    let said: Vec<_> = of(&ended, "maint/suggest_entities").iter().map(|run| run.outcome.clone()).collect();
    assert_eq!(said, vec![failed("the backend answered 500"); 3]);
}

#[test]
fn where_an_entity_cannot_be_read_none_is_created_since_it_may_be_the_exporters() {
    let mut lab = lab();
    lab.bot().flows().exporters.borrow_mut().push(ip(9));
    lab.add(device(7, json!({"ipv4": "192.0.2.9", "note": "x".repeat(300)})));
    let ended = run_until(&mut lab, 20);
    assert_eq!(
        of(&ended, "maint/suggest_entities")[0].outcome,
        failed("longer than the buffer of 256 bytes")
    );
    assert_eq!((lab.requests_of("GET entities").len(), posts(&lab)), (2, 0), "the refresh's, and the bot's");
}

#[test]
fn entities_of_other_kinds_do_not_disturb_the_suggestions() {
    let mut lab = lab();
    lab.bot().flows().exporters.borrow_mut().push(ip(9));
    let mut list = vec![listed(5, json!({"ipv4": "192.0.2.1"}))];
    for details in [
        json!(null),
        json!([1]),
        json!({}),
        json!({"ipv4": 5}),
        json!({"ipv4": "router"}),
        json!({"x": "\u{1}"}),
    ] {
        list.push(json!({
            "id": 70, "name": "e\"th", "entity_type": "interface", "parent": 5, "details": details, "protocols": {},
        }));
    }
    let body = json!({ "list": list }).to_string();
    lab.backend().set_raw_list(1, ListKind::Entities, Some(body)).unwrap();
    run_until(&mut lab, 20);
    lab.assert_all_done();
    assert_eq!(posts(&lab), 1);
    assert!(lab.requests_of("POST entities")[0].body.contains("192.0.2.9 (NetFlow exporter)"));
}

#[test]
fn more_devices_or_exporters_than_there_is_room_for_are_said() {
    let mut lab = lab();
    for id in 10..13 {
        lab.add(device(id, json!({"ipv4": format!("192.0.2.{id}")})));
    }
    lab.add(device(20, json!({"ipv4": "router"})));
    lab.refresh();
    lab.assert_told("account 1: more devices than this bot can sum up");
    lab.assert_told("entity 20: details: `ipv4` is not an IPv4 address");
    run_until(&mut lab, 60);
    assert_eq!(take_values(&mut lab, "1min").len(), 2 * (3 + 1));
    lab.bot().flows().exporters.borrow_mut().extend([ip(30), ip(31), ip(32), ip(33)]);
    let ended = run_until(&mut lab, 140);
    let suggested = of(&ended, "maint/suggest_entities");
    assert_eq!(suggested[0].outcome, failed("more than 3 exporters, the others must wait"));
    assert_eq!(posts(&lab), 3);
}

#[test]
fn flows_that_no_sum_needs_are_forgotten_each_hour() {
    let mut lab = lab();
    run_until(&mut lab, 7_300);
    let expected = [50, 3_650, 7_250].map(|s| at(s) - KEEP_MS);
    assert_eq!(*lab.bot().flows().forgotten.borrow(), expected);
}

#[test]
fn the_order_in_which_the_backend_lists_devices_changes_nothing() {
    let mut lab = lab();
    let mut list = vec![listed(5, json!({"ipv4": "192.0.2.1"})), listed(6, json!({"ipv4": "192.0.2.2"}))];
    for _ in 0..2 {
        let body = json!({ "list": list }).to_string();
        lab.backend().set_raw_list(1, ListKind::Entities, Some(body)).unwrap();
        lab.run_for_s(1);
        let committed = lab.refresh().committed;
        assert_eq!((committed.added, committed.changed, committed.removed), (0, 0, 0));
        list.reverse();
    }
}
