//! Debug output holds nothing of what a bot reads or makes: it can be a community or a password.

use std::cell::RefCell;
use std::rc::Rc;

use crate::support::*;
use grafolean_core::bot::{NewJob, Sensor, SensorView};
use grafolean_core::heapless;
use grafolean_core::interval::Interval;
use grafolean_core::jobs::{JobKey, JobSpec};
use grafolean_core::journal::Kind;
use grafolean_core::storage::{Parts, Storage};

const SECRET: &str = "hunter2";

fn text<const N: usize>() -> heapless::String<N> {
    heapless::String::try_from(SECRET).unwrap()
}

fn shows(what: &impl core::fmt::Debug, field: &str) {
    let text = format!("{what:?}");
    assert!(!text.contains(SECRET), "{text}");
    assert!(text.contains(field), "it still says what is no secret: {text}");
}

#[test]
fn what_a_bot_makes_of_secrets_is_not_in_debug_output() {
    let params = Params { ipv4: text(), username: text(), entities: 1 };
    assert!(format!("{params:?}").contains(SECRET), "the bot's own type shows it");
    shows(&NewJob::new(minute(), params.clone()).named("a"), "[60]");
    shows(&JobSpec::spread(JobKey::new(1, 2), minute(), params), "[60]");
    let details = Metric { metric: text() };
    let interval = Some(Interval::new(77).unwrap());
    shows(&SensorView { id: 5, interval, details: &details }, "77");
    shows(&Sensor { id: 5, interval, details }, "77");
}

#[test]
fn what_a_refresh_keeps_of_secrets_is_not_in_debug_output() {
    let mut world = World::small(1);
    let lists = world.lists(ACCOUNT);
    lists.entities[0] = lists.entities[0].replace("192.0.2.1", SECRET);
    lists.credentials[0] = lists.credentials[0].replace("\"u1\"", &format!("\"{SECRET}\""));
    lists.sensors[0] = lists.sensors[0].replace("\"m1\"", &format!("\"{SECRET}\""));
    let seen = Rc::new(RefCell::new(String::new()));
    let mut sim = Sim::new(TestBot::CONTROLLED, world, Watched(VecStorage::new(), seen.clone()), settings());
    sim.refresh().unwrap();
    let key = sim.keys()[0];
    let kept = sim.collector.entity_of(&key, |e| (e.details().ipv4.clone(), e.credential().username.clone()));
    assert_eq!(kept, Some((text(), text())), "it is kept");
    let seen = seen.borrow();
    assert!(!seen.contains(SECRET), "{seen}");
    assert!(seen.contains("EntityRecord") && seen.contains("Job {"), "{seen}");
}

/// Writes its tables whenever it lends them.
struct Watched(VecStorage, Rc<RefCell<String>>);

impl Storage<TestBot> for Watched {
    type Links = VecLinks;
    type Entry = grafolean_core::schedule::Entry;
    fn parts(&mut self) -> Parts<'_, TestBot, VecLinks> {
        let parts = self.0.parts();
        let config = &parts.config;
        *self.1.borrow_mut() = format!("{:?} {:?}", config.entities.slots, config.jobs.slots);
        parts
    }
    fn grow(&mut self, kind: Kind) -> bool {
        self.0.grow(kind)
    }
    fn grow_events(&mut self) -> bool {
        Storage::<TestBot>::grow_events(&mut self.0)
    }
}
