//! A bot that keeps entities equal to what it finds, shown on the interfaces of devices: it creates, changes and deletes,
//! and needs room for one entity only, however many there are.
#![allow(clippy::unwrap_used)]

#[path = "../../ping/tests/rig/mod.rs"]
mod rig;

use std::cell::RefCell;
use std::fmt::Write as _;

use grafolean_core::bot::{Anything, BackendError, Bot, Context, EntityDraft, EntityView, JobSink, NewJob};
use grafolean_core::heapless;
use grafolean_core::interval::{Interval, Intervals};
use grafolean_core::jobs::Due;
use grafolean_core::json::from_slice;
use grafolean_core::model::ListedEntity;
use rig::{Clock, Rig};
use serde_json::{Value, json};

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
        listing: 64, states: 0, faults: 8, events: 32,
    }
}

const DEVICE: u64 = 5;

fn interface(id: u64, parent: u64, name: &str, index: &str, speed: &str) -> Value {
    json!({
        "id": id, "name": name, "entity_type": "interface", "parent": parent,
        "details": {"snmp_index": index, "speed_bps": speed}, "protocols": {"snmp": {"credential": id}},
    })
}

fn rig(found: Vec<Found>, interfaces: Vec<Value>) -> Rig<Upkeep, Memory> {
    let mut rig = Rig::new(Upkeep { found: RefCell::new(found) }, Memory::new(), Clock::default());
    {
        let mut world = rig.world.borrow_mut();
        world.entities.push(json!({
            "id": DEVICE, "name": "d", "entity_type": "device", "parent": null, "details": {},
            "protocols": {"snmp": {"credential": 1, "bot": null, "sensors": [{"sensor": 1, "interval": 60}]}},
        }));
        world.entities.extend(interfaces);
        world.credentials.push(json!({"id": 1, "details": {}}));
        world.sensors.push(json!({"id": 1, "details": {}, "default_interval": null}));
    }
    rig.refresh();
    rig
}

fn run(rig: &mut Rig<Upkeep, Memory>) -> Result<(), String> {
    let due = rig.next_due(700_000);
    let result = rig.perform(&due);
    rig.collector.handle_completed(due.run);
    result
}

fn changes(rig: &Rig<Upkeep, Memory>) -> Vec<String> {
    let requests = std::mem::take(&mut rig.world.borrow_mut().requests);
    requests.into_iter().filter(|request| request != "GET").collect()
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
    let mut rig = rig(found, there);
    assert_eq!(run(&mut rig), Ok(()));
    assert_eq!(changes(&rig), ["PUT 22 eth0", "DELETE 23", "POST wlan0"]);
    {
        let world = rig.world.borrow();
        let eth0 = world.entities.iter().find(|e| e["id"] == 22).unwrap();
        assert_eq!(eth0["details"], json!({"snmp_index": "2", "speed_bps": "1000000000"}));
        assert_eq!(
            (&eth0["protocols"], &eth0["parent"]),
            (&json!({"snmp": {"credential": 22}}), &json!(DEVICE))
        );
        assert!(world.entities.iter().any(|e| e["id"] == 24));
        let wlan0 = world.entities.last().unwrap();
        assert_eq!(wlan0["details"], json!({"snmp_index": "4", "speed_bps": "0"}));
    }
    assert_eq!(run(&mut rig), Ok(()));
    assert!(changes(&rig).is_empty(), "nothing is left to do");
}

#[test]
fn a_run_makes_a_bounded_number_of_changes_and_the_next_one_goes_on() {
    let there = (0..11).map(|i| interface(30 + i, DEVICE, "gone", "9", "0")).collect();
    let mut rig = rig(Vec::new(), there);
    run(&mut rig).unwrap();
    assert_eq!(changes(&rig).len(), CHANGES);
    run(&mut rig).unwrap();
    assert_eq!(changes(&rig), ["DELETE 38", "DELETE 39", "DELETE 40"]);
}

#[test]
fn a_backend_that_denies_it_ends_the_run_with_its_status() {
    let mut rig = rig(Vec::new(), vec![interface(30, DEVICE, "gone", "9", "0")]);
    rig.world.borrow_mut().status = Some(403);
    assert_eq!(
        run(&mut rig),
        Err("the backend answered 403: the bot has no permission for this".to_string())
    );
}
