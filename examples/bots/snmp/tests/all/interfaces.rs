//! The upkeep of interface entities on simulated time: what is put right, what is left alone, and what is deleted when.

use crate::agent::{Agent, Owned};
use grafolean_bot_snmp::SnmpBot;
use grafolean_bot_snmp::memory::{BoardMemory, Memory};
use grafolean_test::backend::{Entity, EntityProtocol};
use grafolean_test::{ACCOUNT, Device, Lab, Outcome, Setup};
use serde_json::{Value, json};

type Bot<M> = SnmpBot<Agent, M, 64, 96, 256, 4, 24, 1472>;
type InterfacesLab<M> = Lab<Bot<M>>;

const DEVICE: u64 = 5;
const DESCR: &str = "1.3.6.1.2.1.2.2.1.2";
const SPEED: &str = "1.3.6.1.2.1.2.2.1.5";

fn device(id: u64) -> Device {
    let credential = json!({"version": "snmpv2c", "snmpv12_community": "public"});
    let sensor = json!({"oids": [{"oid": "1.3.6.1.1.1.0", "fetch_method": "get"}], "expression": "$1", "output_path": "one"});
    Device::new(id).details(json!({"ipv4": "192.0.2.1"})).credential(credential).sensor(sensor, 60)
}

/// Devices with these ids, which are one agent with the interfaces `lo` (1), `eth0` (2) and `eth1` (3).
fn lab_of<M: Memory + 'static>(memory: M, ids: impl IntoIterator<Item = u64>) -> InterfacesLab<M> {
    let mut lab = Setup::host().lab(|clock| SnmpBot::new(Agent::new(Some(clock)), memory));
    for id in ids {
        lab.add(device(id));
    }
    for (index, name) in [(1, "lo"), (2, "eth0"), (3, "eth1")] {
        plug(&lab, index, name);
    }
    lab.refresh();
    lab
}

fn lab() -> InterfacesLab<BoardMemory<2048, 256>> {
    lab_of(BoardMemory::new(), [DEVICE])
}

fn plug<M: Memory + 'static>(lab: &InterfacesLab<M>, index: u32, name: &'static str) {
    let network = lab.bot().network();
    network.set(&format!("{DESCR}.{index}"), Owned::Text(name));
    network.set(&format!("{SPEED}.{index}"), Owned::Gauge(1000));
}

fn unplug<M: Memory + 'static>(lab: &InterfacesLab<M>, index: u32) {
    let network = lab.bot().network();
    network.remove(&format!("{DESCR}.{index}"));
    network.remove(&format!("{SPEED}.{index}"));
}

/// An entity of an interface with these details, and a credential.
fn interface(id: i32, name: &str, details: &[(&str, Value)]) -> (Entity, Value) {
    let mut interface = Entity::device(id, name);
    interface.entity_type = "interface".to_string();
    interface.parent = Some(DEVICE as i32);
    let protocol =
        EntityProtocol { credential: 1001, sensors: Vec::new(), bot: Some(grafolean_test::BOT as i32) };
    interface.protocols = vec![("snmp".to_string(), protocol)];
    (interface, details.iter().cloned().collect())
}

fn known(id: i32, name: &str, index: u32) -> (Entity, Value) {
    interface(id, name, &[("snmp_index", json!(index.to_string())), ("speed_bps", json!("1000"))])
}

fn put<M: Memory + 'static>(lab: &mut InterfacesLab<M>, (entity, details): (Entity, Value)) {
    let id = entity.id as u64;
    lab.backend().set_entity(1, entity).unwrap();
    lab.set_details(id, details);
}

/// The ids of the interfaces' entities, in order.
fn ids<M: Memory + 'static>(lab: &InterfacesLab<M>) -> Vec<i32> {
    let mut ids: Vec<i32> =
        lab.entities().iter().filter(|e| e.entity_type == "interface").map(|e| e.id).collect();
    ids.sort_unstable();
    ids
}

/// The next upkeep: what was changed at the backend, by method and id.
fn changes<M: Memory + 'static>(lab: &mut InterfacesLab<M>) -> Vec<String> {
    let before = lab.requests().len();
    let run = lab.next_run_of("interfaces");
    assert_eq!(run.outcome, Outcome::Done);
    let path = format!("/accounts/{ACCOUNT}/entities/");
    let sent = lab.requests().iter().skip(before);
    sent.filter(|sent| sent.method != "GET" && sent.path.starts_with(&path))
        .map(|sent| format!("{} {}", sent.method, sent.path.replace(&path, "")).trim_end().to_string())
        .collect()
}

#[test]
fn an_entity_with_its_index_keeps_its_id_and_credential_whatever_its_speed_says() {
    let odd = [json!(null), json!("fast"), json!(1.5), json!(-1), json!({"a": [1]}), json!("")];
    for speed in odd.into_iter().map(Some).chain([None]) {
        for index in [json!("2"), json!(2), json!("2.0")] {
            let mut lab = lab();
            let mut details = vec![("snmp_index", index.clone())];
            details.extend(speed.clone().map(|speed| ("speed_bps", speed)));
            put(&mut lab, interface(21, "old", &details));
            assert_eq!(changes(&mut lab), ["PUT 21", "POST", "POST"], "{details:?}");
            let kept = lab.entity(21);
            assert_eq!((kept.name.as_str(), kept.protocols.len()), ("eth0", 1), "{details:?}");
            for _ in 0..15 {
                assert_eq!(changes(&mut lab), Vec::<String>::new(), "{details:?}");
            }
        }
    }
}

#[test]
fn a_hand_made_entity_without_an_index_is_left_alone_or_becomes_the_interfaces_of_its_name() {
    let mut lab = lab();
    plug(&lab, 4, "twin");
    plug(&lab, 5, "twin");
    put(&mut lab, interface(21, "my own", &[]));
    put(&mut lab, interface(22, "eth0", &[("snmp_index", json!(null)), ("note", json!("x"))]));
    // The second of a name stays; twins are nobody's; so is what has an entity by its index already, also one listed later.
    put(&mut lab, interface(23, "eth0", &[]));
    put(&mut lab, interface(24, "twin", &[("snmp_index", json!("none"))]));
    put(&mut lab, interface(25, "eth1", &[]));
    put(&mut lab, known(26, "eth1", 3));
    assert_eq!(changes(&mut lab), ["PUT 22", "POST", "POST", "POST"]);
    assert_eq!((lab.entity(22).name, lab.entity(22).protocols.len()), ("eth0".to_string(), 1));
    for _ in 0..40 {
        assert_eq!(changes(&mut lab), Vec::<String>::new());
    }
    assert_eq!(ids(&lab)[..6], [21, 22, 23, 24, 25, 26]);
}

#[test]
fn an_entity_is_deleted_only_when_three_complete_reads_in_a_row_have_not_told_of_its_interface() {
    let mut lab = lab();
    [(21, "lo", 1), (22, "eth0", 2), (23, "eth1", 3)]
        .into_iter()
        .for_each(|(id, name, n)| put(&mut lab, known(id, name, n)));
    put(&mut lab, known(24, "gone", 99));
    let all = [21, 22, 23, 24];
    let _ = changes(&mut lab);
    assert_eq!(ids(&lab), all, "first absence");
    assert_eq!(changes(&mut lab), Vec::<String>::new(), "second absence");
    assert_eq!(changes(&mut lab), ["DELETE 24"], "third absence");
    // It comes back in between, and the count begins anew; a read that fails, or finds nothing, counts for nothing.
    unplug(&lab, 3);
    (0..2).for_each(|n| assert_eq!(changes(&mut lab), Vec::<String>::new(), "{n}"));
    plug(&lab, 3, "eth1");
    assert_eq!(changes(&mut lab), Vec::<String>::new());
    unplug(&lab, 3);
    (0..2).for_each(|n| assert_eq!(changes(&mut lab), Vec::<String>::new(), "again, {n}"));
    lab.bot().network().state().lost = u32::MAX;
    assert!(!lab.next_run_of("interfaces").is_done());
    lab.bot().network().state().lost = 0;
    unplug(&lab, 1);
    unplug(&lab, 2);
    assert_eq!(changes(&mut lab), Vec::<String>::new(), "an empty table");
    assert_eq!(ids(&lab), [21, 22, 23]);
    plug(&lab, 1, "lo");
    plug(&lab, 2, "eth0");
    assert_eq!(changes(&mut lab), ["DELETE 23"]);
    for _ in 0..15 {
        assert_eq!(changes(&mut lab), Vec::<String>::new());
    }
}

#[test]
fn more_entities_than_are_counted_at_once_go_one_lot_after_the_other() {
    let mut lab = lab();
    (0..14).for_each(|n| put(&mut lab, known(100 + n, "gone", 500 + n as u32)));
    let deleted: Vec<usize> = (0..12)
        .map(|_| changes(&mut lab).iter().filter(|change| change.starts_with("DELETE")).count())
        .collect();
    assert_eq!(deleted.iter().sum::<usize>(), 14, "{deleted:?}");
    assert!(deleted.iter().all(|count| *count <= 6), "{deleted:?}");
    assert_eq!(deleted[..2], [0, 0]);
}

#[test]
fn nothing_is_deleted_while_the_device_has_been_up_for_less_than_ten_minutes() {
    let mut lab = lab();
    let _ = changes(&mut lab);
    put(&mut lab, known(26, "line card", 97));
    plug(&lab, 4, "new");
    lab.bot().network().state().restarts_every_ms = 590_000;
    for _ in 0..30 {
        let changes = changes(&mut lab);
        assert!(!changes.iter().any(|change| change.starts_with("DELETE")), "{changes:?}");
    }
    lab.bot().network().state().restarts_every_ms = 0;
    let all: Vec<String> = (0..4).flat_map(|_| changes(&mut lab)).collect();
    assert_eq!(all, ["DELETE 26"]);
}

// ---- hosts ----

#[cfg(feature = "std")]
mod host {
    use super::*;
    use grafolean_bot_snmp::memory::{
        Bytes, Denials, Full, GrowingBytes, HostHashes, HostMemory, HostPlaces,
    };
    use grafolean_test::Answer;
    use std::cell::Cell;

    thread_local!(static LOOKS: Cell<u64> = const { Cell::new(0) });

    /// Counts how often it is looked at.
    #[derive(Default)]
    struct CountingBytes(GrowingBytes);

    impl Bytes for CountingBytes {
        const LIMIT: usize = GrowingBytes::LIMIT;
        fn as_slice(&self) -> &[u8] {
            LOOKS.set(LOOKS.get() + 1);
            self.0.as_slice()
        }
        fn as_mut_slice(&mut self) -> &mut [u8] {
            LOOKS.set(LOOKS.get() + 1);
            self.0.as_mut_slice()
        }
        fn append(&mut self, bytes: &[u8]) -> Result<(), Full> {
            self.0.append(bytes)
        }
        fn truncate(&mut self, len: usize) {
            self.0.truncate(len);
        }
    }

    #[derive(Default)]
    struct CountingMemory(HostMemory);

    impl Memory for CountingMemory {
        type Bytes = CountingBytes;
        type Few = <HostMemory as Memory>::Few;
        type Places = HostPlaces;
        type Hashes = HostHashes;
        fn denials(&self, look: &mut dyn FnMut(&mut dyn Denials)) {
            self.0.denials(look);
        }
    }

    #[test]
    fn the_work_of_ten_times_as_many_interfaces_is_ten_times_as_much() {
        let looks = |count: u32| {
            let mut lab = lab_of(CountingMemory::default(), [DEVICE]);
            for n in 1..=count {
                plug(&lab, 100 + n, "some interface");
                put(&mut lab, known(1000 + n as i32, "some interface", 100 + n));
            }
            LOOKS.set(0);
            assert_eq!(changes(&mut lab), ["POST", "POST", "POST"]);
            LOOKS.get()
        };
        let (few, many) = (looks(200), looks(2000));
        assert!(few > 400 && many < 12 * few, "{few} and {many}");
    }

    /// Devices of one account whose refreshes ask nothing of the backend for a day.
    fn host_lab(memory: HostMemory, devices: u64) -> InterfacesLab<HostMemory> {
        let setup = Setup::host().settings(|settings| settings.refresh_interval_s = 86_400);
        let mut lab = setup.lab(|clock| SnmpBot::new(Agent::new(Some(clock)), memory));
        for id in 0..devices {
            lab.add(device(10 + id));
        }
        for (index, name) in [(1, "lo"), (2, "eth0"), (3, "eth1")] {
            plug(&lab, index, name);
        }
        lab.refresh();
        lab
    }

    /// Lists of the account's entities that the bot asked for, from this request on.
    fn lists(lab: &InterfacesLab<HostMemory>, from: usize) -> usize {
        let path = format!("/accounts/{ACCOUNT}/entities/");
        lab.requests().iter().skip(from).filter(|sent| sent.method == "GET" && sent.path == path).count()
    }

    /// Each device has an entity for each of these, and no other.
    fn assert_entities(lab: &InterfacesLab<HostMemory>, devices: u64, names: &[&str]) {
        let mut expected: Vec<(i32, String)> = (0..devices as i32)
            .flat_map(|id| names.iter().map(move |name| (10 + id, name.to_string())))
            .collect();
        expected.sort();
        let interfaces = lab.entities().into_iter().filter(|entity| entity.entity_type == "interface");
        let mut there: Vec<(i32, String)> =
            interfaces.map(|entity| (entity.parent.unwrap(), entity.name)).collect();
        there.sort();
        let odd: Vec<_> = there.chunk_by(PartialEq::eq).filter(|equal| equal.len() > 1).collect();
        assert!(odd.is_empty(), "several of one: {odd:?}");
        let lacking: Vec<_> = expected.iter().filter(|one| !there.contains(one)).collect();
        assert!(
            lacking.is_empty() && there.len() == expected.len(),
            "lacking: {lacking:?}, there: {there:?}"
        );
    }

    #[test]
    fn devices_of_an_account_share_one_list_to_which_their_own_changes_are_made() {
        const DEVICES: u64 = 60;
        let mut lab = host_lab(HostMemory::new(), DEVICES);
        lab.latency_ms(20);
        let from = lab.requests().len();
        lab.run_for_s(900);
        assert_entities(&lab, DEVICES, &["lo", "eth0", "eth1"]);
        assert!((1..=4).contains(&lists(&lab, from)), "{}", lists(&lab, from));
        // What the first of them listed is what the others go by, with their own changes: all kinds within the five minutes.
        let from = lab.requests().len();
        plug(&lab, 4, "new");
        lab.run_for_s(310);
        plug(&lab, 4, "newer");
        lab.run_for_s(310);
        unplug(&lab, 4);
        unplug(&lab, 3);
        lab.run_for_s(1000);
        assert_entities(&lab, DEVICES, &["lo", "eth0"]);
        assert!(lists(&lab, from) <= 8, "{}", lists(&lab, from));
        assert_eq!(lab.requests_of("POST entities").len() as u64, 4 * DEVICES);
        assert!(lab.runs_of("interfaces").iter().all(|run| run.is_done()));
    }

    #[test]
    fn a_request_whose_answer_is_lost_makes_the_list_doubtful_and_no_interface_gets_two_entities() {
        for answer in
            [Answer::Lost, Answer::Dropped, Answer::Silence, Answer::status(500), Answer::Cut { bytes: 3 }]
        {
            let mut lab = host_lab(HostMemory::new(), 5);
            for n in 0..4 {
                lab.run_for_s(20 + n);
                lab.answer_next("POST entities", answer.clone());
                lab.answer_next("GET entities", answer.clone());
            }
            lab.run_for_s(1500);
            lab.answer_as_usual();
            plug(&lab, 4, "new");
            lab.answer_next("POST entities", answer.clone());
            lab.run_for_s(1500);
            assert_entities(&lab, 5, &["lo", "eth0", "eth1", "new"]);
        }
    }

    #[test]
    fn without_room_for_a_shared_list_each_device_lists_for_itself() {
        let mut lab = host_lab(HostMemory::new().shared_bytes(1000), 10);
        let from = lab.requests().len();
        lab.run_for_s(900);
        assert_entities(&lab, 10, &["lo", "eth0", "eth1"]);
        // While there are few entities, there is room.
        assert!(lists(&lab, from) >= 6, "{}", lists(&lab, from));
        plug(&lab, 3, "renamed");
        let from = lab.requests().len();
        lab.run_for_s(600);
        assert!(lists(&lab, from) >= 10, "{}", lists(&lab, from));
        assert_entities(&lab, 10, &["lo", "eth0", "renamed"]);
    }

    #[test]
    fn a_run_that_is_cancelled_while_it_lists_or_creates_leaves_nothing_to_wait_for() {
        let mut lab = host_lab(HostMemory::new(), 20);
        // A run has its interval for its end, here 300 s.
        lab.latency_ms(100_000);
        lab.run_for_s(3000);
        assert!(lab.runs_of("interfaces").iter().any(|run| !run.is_done()), "some were cancelled");
        lab.latency_ms(10);
        lab.run_for_s(2000);
        assert_entities(&lab, 20, &["lo", "eth0", "eth1"]);
        let last: Vec<bool> =
            lab.runs_of("interfaces").iter().rev().take(20).map(|run| run.is_done()).collect();
        assert_eq!(last, [true; 20]);
    }

    #[test]
    fn sixteen_devices_at_most_wait_at_once_and_those_turned_away_come_before_others() {
        let memory = HostMemory::new();
        let turn = |device| memory.begin_turn(1, device);
        assert_eq!((0..20).filter(|device| turn(*device)).count(), 8, "new ones");
        assert_eq!((8..20).filter(|device| turn(*device)).count(), 4, "turned away once");
        assert!(!turn(100));
        assert_eq!((12..20).filter(|device| turn(*device)).count(), 4, "turned away twice");
        assert_eq!((16..20).filter(|device| turn(*device)).count(), 0, "that is all");
        // The first to end makes room for those that were here before.
        memory.end_turn();
        assert!(!turn(200) && turn(16) && !turn(17));
        (0..9).for_each(|_| memory.end_turn());
        assert!(turn(200));
    }

    #[test]
    fn every_device_gets_its_turn_although_the_backend_is_slow() {
        let mut lab = host_lab(HostMemory::new(), 120);
        // 360 creations, one after the other: half an hour.
        lab.latency_ms(5000);
        lab.run_for_s(4000);
        assert_entities(&lab, 120, &["lo", "eth0", "eth1"]);
        let values = lab.runs_of("");
        assert!(values.len() > 120 * 60, "{} runs for values", values.len());
    }
}
