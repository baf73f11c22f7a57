//! A bot that keeps entities equal to what it finds, shown on the interfaces of devices: it creates, changes and deletes,
//! and needs room for one entity only, however many there are.

use std::cell::RefCell;
use std::fmt::Write as _;

use grafolean_core::bot::{Anything, BackendError, Bot, Context, EntityDraft, EntityView, JobSink, NewJob};
use grafolean_core::heapless;
use grafolean_core::interval::{Interval, Intervals};
use grafolean_core::jobs::Due;
use grafolean_core::json::from_slice;
use grafolean_core::model::ListedEntity;
use grafolean_test::backend::{self, Entity, EntityProtocol, Permission};
use grafolean_test::{Device, Lab, Outcome};

/// An interface as a device tells of it.
#[derive(Clone, PartialEq, Debug)]
struct Found {
    index: u32,
    name: &'static str,
    speed_bps: u64,
}

/// What is kept in an interface's details; the web page wants both as strings.
#[derive(serde::Deserialize)]
struct InterfaceDetails {
    snmp_index: u32,
    speed_bps: u64,
}

#[derive(Default)]
struct Upkeep {
    found: RefCell<Vec<Found>>,
}

/// So many changes at most in one run: the rest has to wait.
const CHANGES: usize = 8;

enum Next {
    Nothing,
    Changed,
}

impl Upkeep {
    /// Finds the first difference between the backend's list and what was found, and removes it. The list ends with it:
    /// a bot has one request of its own at a time.
    async fn first_difference<C: Context>(&self, device: u64, cx: &mut C) -> Result<Next, BackendError> {
        let mut missing = self.found.borrow().clone();
        let mut element = [0; 512];
        cx.list_entities().await?;
        while let Some(len) = cx.next_entity(&mut element).await? {
            let Ok(entity) = ListedEntity::parse(&element[..len]) else { continue };
            if entity.parent != Some(device) || !(entity.entity_type == *"interface") {
                continue;
            }
            let details = from_slice::<InterfaceDetails>(entity.details.as_bytes(), &mut [0; 64]).ok();
            let at =
                details.as_ref().and_then(|d| missing.iter().position(|found| found.index == d.snmp_index));
            let (Some(at), Some(details)) = (at, details) else {
                cx.delete_entity(entity.id).await?;
                return Ok(Next::Changed);
            };
            let found = missing.remove(at);
            if !(entity.name == *found.name) || details.speed_bps != found.speed_bps {
                // Without its protocols sent back, it would lose them.
                let text = details_of(&found);
                let draft = draft(&found, device, &text);
                cx.update_entity(entity.id, &EntityDraft { protocols: Some(entity.protocols), ..draft })
                    .await?;
                return Ok(Next::Changed);
            }
        }
        match missing.first() {
            Some(found) => {
                let text = details_of(found);
                cx.create_entity(&draft(found, device, &text)).await?;
                Ok(Next::Changed)
            }
            None => Ok(Next::Nothing),
        }
    }
}

fn details_of(found: &Found) -> heapless::String<96> {
    let mut text = heapless::String::new();
    let _ = write!(text, "{{\"snmp_index\":\"{}\",\"speed_bps\":\"{}\"}}", found.index, found.speed_bps);
    text
}

fn draft<'a>(found: &'a Found, device: u64, details: &'a str) -> EntityDraft<'a> {
    EntityDraft { name: found.name, entity_type: "interface", parent: Some(device), details, protocols: None }
}

impl Bot for Upkeep {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = ();
    type Error = BackendError;

    fn protocol(&self) -> Option<&str> {
        Some("snmp")
    }

    fn entity_jobs(&self, _: &EntityView<'_, Self>, jobs: &mut dyn JobSink<()>) {
        if let Ok(interval) = Interval::new(300) {
            jobs.add(NewJob::new(Intervals::one(interval), ()).named("interfaces"));
        }
    }

    async fn perform<C: Context<Bot = Self>>(
        &self,
        _: &(),
        due: &Due,
        cx: &mut C,
    ) -> Result<(), BackendError> {
        for _ in 0..CHANGES {
            if let Next::Nothing = self.first_difference(due.key.entity, cx).await? {
                break;
            }
        }
        Ok(())
    }
}

grafolean_core::inline_storage! {
    struct Memory for Upkeep {
        accounts: 1, entities: 2, links: 2, credentials: 1, sensors: 1, jobs: 2, spare: 1,
        intervals: 4, distinct_intervals: 2, runs: 1, cells: 16, element: 2048, scratch: 64,
        listing: 1024, states: 0, faults: 8, events: 32,
    }
}

const DEVICE: u64 = 5;

/// An interface that is pinged, too.
fn interface(id: i32, parent: u64, name: &str, index: &str, speed_bps: &str) -> Entity {
    let mut interface = Entity::device(id, name).detail("snmp_index", index).detail("speed_bps", speed_bps);
    interface.entity_type = "interface".to_string();
    interface.parent = i32::try_from(parent).ok();
    interface.protocol("ping", PING_CREDENTIAL, PING_BOT, [])
}

const PING_CREDENTIAL: i32 = 11;
const PING_BOT: i32 = 12;

fn lab(found: Vec<Found>, interfaces: Vec<Entity>) -> Lab<Upkeep, Memory> {
    let mut lab = Lab::with_storage(Memory::new(), Upkeep { found: RefCell::new(found) });
    lab.add(Device::new(DEVICE).every(60));
    let backend = lab.backend();
    backend.set_bot(backend::Bot::systemwide(PING_BOT, "Ping", "ping")).unwrap();
    backend.set_credential(1, backend::Credential::new(PING_CREDENTIAL, "Ping", "ping")).unwrap();
    backend.set_entity(1, Entity::device(6, "another device")).unwrap();
    for interface in interfaces {
        backend.set_entity(1, interface).unwrap();
    }
    lab
}

/// Performs the next run: how it ended, and what it changed.
fn run(lab: &mut Lab<Upkeep, Memory>) -> (Outcome, Vec<String>) {
    let before = lab.requests().len();
    let outcome = lab.next_run().outcome;
    let own = lab.requests().iter().skip(before).filter(|sent| sent.method != "GET");
    (
        outcome,
        own.map(|sent| format!("{} {}", sent.method, sent.path.replace("/accounts/1/entities/", "")))
            .collect(),
    )
}

#[test]
fn interfaces_are_created_changed_and_deleted_until_they_equal_the_devices() {
    let found = vec![
        Found { index: 1, name: "lo", speed_bps: 0 },
        Found { index: 2, name: "eth0", speed_bps: 1_000_000_000 },
        Found { index: 4, name: "wlan0", speed_bps: 0 },
    ];
    let there = vec![
        interface(21, DEVICE, "lo", "1", "0"),
        interface(22, DEVICE, "eth0", "2", "100000000"),
        interface(23, DEVICE, "eth1", "3", "0"),
        interface(24, 6, "another device's", "3", "0"),
    ];
    let mut lab = lab(found, there);
    let changes = ["PUT 22", "DELETE 23", "POST "].map(String::from).to_vec();
    assert_eq!(run(&mut lab), (Outcome::Done, changes));
    let eth0 = lab.entity(22);
    assert_eq!(eth0.details.to_compact().unwrap(), r#"{"snmp_index":"2","speed_bps":"1000000000"}"#);
    let kept = EntityProtocol { credential: PING_CREDENTIAL, sensors: Vec::new(), bot: Some(PING_BOT) };
    assert_eq!((eth0.protocols, eth0.parent), (vec![("ping".to_string(), kept)], Some(5)));
    assert_eq!(lab.entity(24).name, "another device's");
    let wlan0 = lab.entities().into_iter().find(|entity| entity.name == "wlan0").unwrap();
    assert_eq!(wlan0.details.to_compact().unwrap(), r#"{"snmp_index":"4","speed_bps":"0"}"#);
    assert_eq!((wlan0.entity_type.as_str(), wlan0.parent), ("interface", Some(5)));
    assert_eq!(run(&mut lab), (Outcome::Done, Vec::new()), "nothing is left to do");
}

#[test]
fn a_run_makes_a_bounded_number_of_changes_and_the_next_one_goes_on() {
    let there = (0..11).map(|i| interface(30 + i, DEVICE, "gone", "9", "0")).collect();
    let mut lab = lab(Vec::new(), there);
    let (outcome, changes) = run(&mut lab);
    assert_eq!((outcome, changes.len()), (Outcome::Done, CHANGES));
    let changes = ["DELETE 38", "DELETE 39", "DELETE 40"].map(String::from).to_vec();
    assert_eq!(run(&mut lab), (Outcome::Done, changes));
}

#[test]
fn a_backend_that_denies_it_ends_the_run_with_its_status() {
    let mut lab = lab(Vec::new(), vec![interface(30, DEVICE, "gone", "9", "0")]);
    lab.permissions([Permission::new("accounts", Some(&["GET"]))]);
    let why = "the backend answered 403: the bot has no permission for this".to_string();
    assert_eq!(run(&mut lab).0, Outcome::Failed(why));
}
