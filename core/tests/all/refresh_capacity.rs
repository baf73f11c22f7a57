//! What happens where memory ends: what does not fit is named with the capacity, the others go on; what can grow does.

use crate::support::*;
use grafolean_core::bot::{HandOverError, StateError};
use grafolean_core::jobs::JobKey;
use grafolean_core::journal::{Event, FaultKind, Kind};
use grafolean_core::outbox::PushError;
use grafolean_core::storage::Storage;
use grafolean_core::time::Millis;
use grafolean_core::values::Number;

/// Memory of which one kind is scarce.
macro_rules! memory {
    ($name:ident: $accounts:expr, $entities:expr, $links:expr, $credentials:expr, $sensors:expr, $jobs:expr, $spare:expr, $intervals:expr, $distinct:expr) => {
        grafolean_core::inline_storage! {
            /// Scarce in one kind.
            pub struct $name for TestBot {
                accounts: $accounts, entities: $entities, links: $links, credentials: $credentials, sensors: $sensors,
                jobs: $jobs, spare: $spare, intervals: $intervals, distinct_intervals: $distinct, runs: 2, cells: 32,
                element: 1024, scratch: 128, listing: 256, states: 2, faults: 64, events: 64,
            }
        }
    };
}

memory!(Ample: 4, 16, 8, 16, 32, 16, 16, 64, 16);
memory!(FewAccounts: 2, 16, 8, 16, 32, 16, 16, 64, 16);
memory!(FewEntities: 4, 3, 8, 16, 32, 16, 4, 64, 16);
memory!(FewLinks: 4, 16, 2, 16, 32, 16, 16, 64, 16);
memory!(FewCredentials: 4, 16, 8, 3, 32, 16, 16, 64, 16);
memory!(FewSensors: 4, 16, 8, 16, 3, 16, 16, 64, 16);
memory!(FewJobs: 4, 16, 8, 16, 32, 3, 16, 64, 16);
memory!(FewIntervals: 4, 16, 8, 16, 32, 16, 16, 5, 16);
memory!(FewDistinct: 4, 16, 8, 16, 32, 16, 16, 64, 3);
memory!(OneSpare: 2, 6, 4, 6, 12, 6, 1, 24, 8);
memory!(OneSpareManySensors: 2, 2, 8, 2, 16, 2, 1, 16, 8);

/// Device n has credential n and sensors n and n + 100; all at 60 s.
fn six() -> World {
    let mut world = World::new();
    let lists = world.lists(ACCOUNT);
    lists.entities = (1..=6).map(|n| device(n, n, &[(n, "null"), (n + 100, "null")])).collect();
    lists.credentials = (1..=6).map(credential).collect();
    lists.sensors = (1..=6).chain(101..=106).map(|n| sensor(n, "60")).collect();
    world
}

fn sim<S: Storage<TestBot>>(storage: S, world: World) -> Sim<S> {
    Sim::new(TestBot::CONTROLLED, world, storage, settings())
}

fn capacity(of: Kind, capacity: usize) -> FaultKind {
    FaultKind::Capacity { of, capacity }
}

#[test]
fn with_room_for_all_there_is_no_fault() {
    let mut sim = sim(Ample::new(), six());
    assert_eq!((sim.refresh().unwrap().jobs, sim.kinds()), (6, vec![]));
}

#[test]
fn accounts_beyond_the_capacity_are_named_and_those_held_keep_their_places() {
    let mut sim = sim(FewAccounts::new(), World::new());
    for (n, account) in [50, 60].into_iter().enumerate() {
        sim.world.accounts.insert(
            account,
            Lists { entities: vec![device(n as u64 + 1, 1, &[(1, "60")])], ..Lists::default() },
        );
    }
    let items = |world: &mut World| {
        for lists in world.accounts.values_mut() {
            (lists.credentials, lists.sensors) = (vec![credential(1)], vec![sensor(1, "60")]);
        }
    };
    items(&mut sim.world);
    assert_eq!(sim.refresh().unwrap().jobs, 2);
    // One that is listed before them does not push them out.
    sim.world.accounts.insert(40, Lists { entities: vec![device(9, 1, &[(1, "60")])], ..Lists::default() });
    items(&mut sim.world);
    sim.asked.clear();
    assert_eq!(sim.refresh().unwrap().requests, 7);
    assert_eq!(sim.keys().iter().map(|k| k.account).collect::<Vec<_>>(), [50, 60]);
    let (came, _) = sim.faults();
    assert_eq!((came.len(), came[0].account, came[0].kind), (1, 40, capacity(Kind::Account, 2)));
    assert_eq!(came[0].to_string(), "account 40: not taken: there is room for 2 accounts");
    // It gets the place of one that goes.
    sim.world.accounts.remove(&50);
    sim.refresh().unwrap();
    assert_eq!(sim.keys().iter().map(|k| k.account).collect::<Vec<_>>(), [40, 60]);
    assert_eq!(sim.faults().1, came);
}

#[test]
fn entities_beyond_the_capacity_are_named_and_the_others_go_on() {
    let mut sim = sim(FewEntities::new(), six());
    assert_eq!(sim.refresh().unwrap().jobs, 3);
    assert_eq!(sim.entities(), [1, 2, 3]);
    let faults = sim.kinds();
    assert_eq!(faults.len(), 3);
    for (i, fault) in faults.iter().enumerate() {
        assert_eq!(*fault, (i as u64 + 4, (Kind::Entity, 0), capacity(Kind::Entity, 3)));
    }
    assert!(!sim.refresh().unwrap().committed.changed_anything());
    assert_eq!(sim.kinds(), []);
}

#[test]
fn an_entity_that_comes_before_those_held_does_not_push_them_out_and_has_no_job() {
    let mut sim = sim(FewEntities::new(), six());
    sim.world.lists(ACCOUNT).entities = (4..=6).map(|n| device(n, n, &[(n, "null")])).collect();
    sim.refresh().unwrap();
    sim.world.lists(ACCOUNT).entities.insert(0, device(1, 1, &[(1, "null")]));
    for told in [true, false] {
        // Its job has room, but there would be nothing to tell it what to do.
        assert_eq!(sim.refresh().unwrap().jobs, 3);
        assert_eq!(sim.entities(), [4, 5, 6]);
        assert_eq!(sim.kinds().len(), usize::from(told));
    }
    sim.world.lists(ACCOUNT).entities.pop();
    sim.refresh().unwrap();
    assert_eq!(sim.entities(), [1, 4, 5]);
    assert_eq!(sim.faults().1.len(), 1);
}

#[test]
fn sensors_of_an_entity_beyond_its_links_are_left_out_by_ascending_id() {
    let mut world = six();
    world.lists(ACCOUNT).entities[0] =
        device(1, 1, &[(5, "null"), (2, "null"), (6, "null"), (1, "null"), (3, "null")]);
    let mut sim = sim(FewLinks::new(), world);
    sim.refresh().unwrap();
    let key = JobKey::new(ACCOUNT, 1);
    assert_eq!(sim.collector.entity_of(&key, |e| e.sensors().map(|s| s.id).collect()), Some(vec![1, 2]));
    let mut left_out: Vec<u64> = sim
        .kinds()
        .iter()
        .map(|(entity, (of, id), kind)| {
            assert_eq!((*entity, *of, *kind), (1, Kind::Sensor, FaultKind::TooManySensors { limit: 2 }));
            *id
        })
        .collect();
    left_out.sort_unstable();
    assert_eq!(left_out, [3, 5, 6]);
}

#[test]
fn a_credential_without_room_costs_its_entity_and_is_named() {
    let mut sim = sim(FewCredentials::new(), six());
    sim.world.lists(ACCOUNT).entities.push(device(7, 1, &[(1, "null")]));
    assert_eq!(sim.refresh().unwrap().jobs, 4);
    assert_eq!(sim.entities(), [1, 2, 3, 7]);
    let named: Vec<_> = (4..=6).map(|n| (n, (Kind::Credential, n), capacity(Kind::Credential, 3))).collect();
    assert_eq!(sim.kinds(), named);
    // One that changes to such a credential stays as it was.
    let before = sim.plan();
    sim.world.lists(ACCOUNT).entities[6] = device(7, 6, &[(1, "null")]);
    sim.refresh().unwrap();
    assert_eq!(sim.plan(), before);
    assert_eq!(sim.kinds(), [(7, (Kind::Credential, 6), capacity(Kind::Credential, 3))]);
    // With a free place all is well.
    sim.world.lists(ACCOUNT).entities.drain(2..5);
    sim.refresh().unwrap();
    assert_eq!(sim.entities(), [1, 2, 6, 7]);
}

#[test]
fn a_credential_refused_at_the_end_never_lends_its_place_to_another() {
    // Entities 4 to 6 hold all three places; 1 comes before them in the list.
    let mut sim = sim(FewCredentials::new(), six());
    sim.world.lists(ACCOUNT).entities = (4..=6).map(|n| device(n, n, &[(n, "null")])).collect();
    sim.refresh().unwrap();
    sim.world.lists(ACCOUNT).entities.insert(0, device(1, 1, &[(1, "null")]));
    for told in [true, false] {
        sim.refresh().unwrap();
        assert_eq!(sim.entities(), [4, 5, 6]);
        let expected = vec![(0, (Kind::Credential, 1), capacity(Kind::Credential, 3))];
        assert_eq!(sim.kinds(), if told { expected } else { vec![] });
    }
    // 6 goes, 2 comes: the free place is taken by one of them, with its own credential.
    sim.world.lists(ACCOUNT).entities.pop();
    for _ in 0..3 {
        sim.refresh().unwrap();
        for key in sim.keys() {
            let name = sim.collector.entity_of(&key, |e| e.credential().username.to_string()).unwrap();
            assert_eq!(name, format!("u{}", key.entity));
        }
    }
    assert_eq!(sim.entities(), [1, 4, 5]);
}

#[test]
fn a_sensor_without_room_is_left_out_and_comes_when_there_is_room() {
    let mut sim = sim(FewSensors::new(), six());
    sim.refresh().unwrap();
    let sensors = |sim: &mut Sim<FewSensors>, entity| {
        sim.collector
            .entity_of(&JobKey::new(ACCOUNT, entity), |e| e.sensors().map(|s| s.id).collect::<Vec<_>>())
    };
    assert_eq!((sensors(&mut sim, 1), sensors(&mut sim, 2)), (Some(vec![1, 101]), Some(vec![2])));
    let faults = sim.kinds();
    assert!(faults.contains(&(2, (Kind::Sensor, 102), capacity(Kind::Sensor, 3))), "{faults:?}");
    assert!(faults.contains(&(3, (Kind::Job, 0), FaultKind::NoIntervals)));
    assert_eq!(sim.entities(), [1, 2]);
    sim.world.lists(ACCOUNT).entities.remove(0);
    sim.refresh().unwrap();
    sim.refresh_now().unwrap();
    assert_eq!((sensors(&mut sim, 2), sensors(&mut sim, 3)), (Some(vec![2, 102]), Some(vec![3])));
}

#[test]
fn a_sensor_refused_at_the_end_comes_when_there_is_room() {
    let mut sim = sim(FewSensors::new(), six());
    sim.world.lists(ACCOUNT).entities = vec![device(5, 5, &[(1, "null"), (2, "null"), (3, "null")])];
    sim.refresh().unwrap();
    // It comes before those that hold the places, of which one goes two refreshes later.
    sim.world.lists(ACCOUNT).entities.insert(0, device(1, 1, &[(4, "30"), (1, "null")]));
    for told in [true, false] {
        sim.refresh().unwrap();
        let sensors =
            sim.collector.entity_of(&JobKey::new(ACCOUNT, 1), |e| e.sensors().map(|s| s.id).collect());
        assert_eq!(sensors, Some(vec![1]));
        assert_eq!(sim.kinds().len(), usize::from(told));
    }
    sim.world.lists(ACCOUNT).entities[1] = device(5, 5, &[(1, "null"), (2, "null")]);
    sim.refresh().unwrap();
    let sensors = sim.collector.entity_of(&JobKey::new(ACCOUNT, 1), |e| e.sensors().map(|s| s.id).collect());
    assert_eq!(sensors, Some(vec![1, 4]));
    assert_eq!(sim.faults().1.len(), 1);
}

#[test]
fn jobs_beyond_the_capacity_are_named_and_the_others_go_on() {
    let mut sim = sim(FewJobs::new(), six());
    assert_eq!(sim.refresh().unwrap().jobs, 3);
    let named: Vec<_> = (4..=6).map(|n| (n, (Kind::Job, 0), capacity(Kind::Job, 3))).collect();
    assert_eq!(sim.kinds(), named);
    assert!(!sim.refresh().unwrap().committed.changed_anything());
    assert_eq!(sim.kinds(), []);
    sim.world.lists(ACCOUNT).entities.drain(..3);
    sim.refresh().unwrap();
    assert_eq!((sim.entities(), sim.faults().1.len()), (vec![4, 5, 6], 3));
}

#[test]
fn intervals_of_all_jobs_together_have_a_capacity_of_their_own() {
    let mut world = six();
    world.lists(ACCOUNT).entities = (1..=6).map(|n| device(n, n, &[(n, "60"), (n + 100, "30")])).collect();
    let mut sim = sim(FewIntervals::new(), world);
    assert_eq!(sim.refresh().unwrap().jobs, 2);
    let named: Vec<_> = (3..=6).map(|n| (n, (Kind::Job, 0), capacity(Kind::IntervalEntry, 5))).collect();
    assert_eq!(sim.kinds(), named);
    // One that wants one more stays as it was.
    sim.world.lists(ACCOUNT).entities[0] = device(1, 1, &[(1, "60"), (2, "30"), (3, "20"), (4, "10")]);
    let before = sim.collector.jobs(|t| t.grid(&JobKey::new(ACCOUNT, 1)));
    sim.refresh().unwrap();
    assert_eq!(sim.collector.jobs(|t| t.grid(&JobKey::new(ACCOUNT, 1))), before);
    assert_eq!(sim.kinds(), [(1, (Kind::Job, 0), capacity(Kind::IntervalEntry, 5))]);
}

#[test]
fn distinct_intervals_have_a_capacity_of_their_own() {
    let mut world = six();
    world.lists(ACCOUNT).entities =
        ["10", "20", "30", "40", "10", "50"].iter().zip(1..).map(|(i, n)| device(n, n, &[(n, i)])).collect();
    let mut sim = sim(FewDistinct::new(), world);
    sim.refresh().unwrap();
    assert_eq!(sim.entities(), [1, 2, 3, 5]);
    let full = capacity(Kind::DistinctInterval, 3);
    assert_eq!(sim.kinds(), [(4, (Kind::Job, 0), full), (6, (Kind::Job, 0), full)]);
}

#[test]
fn memory_that_can_grow_takes_all_and_memory_at_its_limit_names_it() {
    let mut world = World::new();
    let n = 200u64;
    let lists = world.lists(ACCOUNT);
    let own: Vec<String> = (0..=n).map(|i| (i + 5).to_string()).collect();
    lists.entities =
        (1..=n).map(|i| device(i, i, &[(i, own[i as usize].as_str()), (i % 7 + 500, "null")])).collect();
    lists.credentials = (1..=n).map(credential).collect();
    lists.sensors = (1..=n).chain(500..507).map(|i| sensor(i, "60")).collect();
    for account in 100..120 {
        world.accounts.insert(account, Lists::default());
    }
    let mut sim = sim(VecStorage::new(), world);
    let summary = sim.refresh().unwrap();
    assert_eq!((summary.jobs, summary.faults, summary.accounts), (n as u32, 0, 21));
    assert_eq!((summary.committed.added, summary.committed.deferred), (n as u32, 0));
    // Nothing more follows: the next refresh comes in its time.
    assert!(sim.collector.poll_timeout().unwrap() > Millis(0));
    let again = sim.refresh().unwrap();
    assert!(!again.committed.changed_anything() && sim.now == Millis(120_000));
    // All that is there may change at once, in memory that has to grow for it.
    let lists = sim.world.lists(ACCOUNT);
    for list in [&mut lists.credentials, &mut lists.sensors] {
        list.iter_mut().for_each(|e| *e = e.replace("\"name\":\"", "\"name\":\"new "));
    }
    lists.entities.iter_mut().for_each(|e| *e = e.replace("192.0.2", "192.0.3"));
    let summary = sim.refresh().unwrap();
    assert_eq!((summary.committed.changed, summary.faults, summary.committed.deferred), (n as u32, 0, 0));
    assert_eq!(sim.kinds(), []);
    // At the limit.
    let world = sim.world;
    let mut sim = Sim::new(TestBot::CONTROLLED, world, VecStorage::with_limit(64), settings());
    let summary = sim.refresh().unwrap();
    assert!(summary.jobs >= 32 && summary.accounts == 21);
    let entries: usize = sim.keys().iter().map(|k| sim.collector.jobs(|t| t.grid(k)).unwrap().0.len()).sum();
    assert_eq!(entries, 64);
    let kinds = sim.kinds();
    for kind in [Kind::Entity, Kind::Sensor, Kind::IntervalEntry] {
        assert!(kinds.iter().any(|(_, _, k)| *k == capacity(kind, 64)), "{kind}");
    }
}

#[test]
fn memory_grows_for_what_comes_before_all_that_is_known() {
    let mut world = six();
    let all = core::mem::take(&mut world.lists(ACCOUNT).entities);
    let mut sim = sim(VecStorage::new(), world);
    for n in (1..=6).rev() {
        // Memory has room for one, two or four, then for one more beside those known.
        sim.world.lists(ACCOUNT).entities.insert(0, all[n - 1].clone());
        let summary = sim.refresh().unwrap();
        assert_eq!((summary.jobs, summary.faults), (7 - n as u32, 0), "{:?}", sim.kinds());
    }
    for account in (100..106).rev() {
        sim.world.accounts.insert(account, Lists::default());
        assert_eq!(sim.refresh().unwrap().faults, 0, "{:?}", sim.kinds());
    }
}

#[test]
fn a_custom_bots_jobs_stay_when_memory_has_grown_for_them() {
    let mut world = World::small(1);
    world.tied = Some(ACCOUNT);
    let mut sim = Sim::new(TestBot::custom(20), world, VecStorage::new(), settings());
    assert_eq!(sim.refresh().unwrap().jobs, 20);
    for _ in 0..3 {
        let summary = sim.refresh().unwrap();
        assert_eq!((summary.jobs, summary.committed.changed_anything()), (20, false));
    }
}

#[test]
fn the_only_account_is_the_only_one_even_if_memory_had_to_grow_for_it() {
    struct NoAccount(VecStorage, bool);
    impl Storage<TestBot> for NoAccount {
        type Links = VecLinks;
        type Entry = grafolean_core::schedule::Entry;
        fn parts(&mut self) -> grafolean_core::storage::Parts<'_, TestBot, VecLinks> {
            let mut parts = self.0.parts();
            if !self.1 {
                let accounts = &mut parts.config.accounts;
                accounts.slots = &mut core::mem::take(&mut accounts.slots)[..1];
            }
            parts
        }
        fn grow(&mut self, kind: Kind) -> bool {
            if kind == Kind::Account && !self.1 {
                self.1 = true;
                return true;
            }
            self.0.grow(kind)
        }
    }
    let mut sim =
        Sim::new(TestBot::custom(1), World::small(1), NoAccount(VecStorage::new(), false), settings());
    assert_eq!(sim.refresh().unwrap().jobs, 1);
}

// ---- spare room ----

#[test]
fn where_spare_room_is_short_further_refreshes_follow_at_once_until_all_is_done() {
    let mut sim = sim(OneSpare::new(), six());
    sim.refresh().unwrap();
    assert_eq!(sim.entities(), [1, 2, 3, 4, 5, 6]);
    // All six change, with room for one at a time.
    for entity in &mut sim.world.lists(ACCOUNT).entities {
        *entity = entity.replace("192.0.2", "192.0.3");
    }
    sim.now = Millis(120_000);
    sim.settle();
    let refreshes: Vec<_> =
        sim.events.iter().filter_map(|e| if let Event::Refreshed(s) = e { Some(s) } else { None }).collect();
    assert_eq!(refreshes.len(), 7, "the first one, and six for the change");
    assert_eq!(refreshes[1].committed.deferred, 5);
    assert_eq!(sim.now, Millis(120_000), "they followed at once");
    assert_eq!(sim.kinds(), []);
    let changed = sim.plan();
    assert!(changed.iter().all(|p| p.contains("192.0.3")), "{changed:?}");
    sim.refresh().unwrap();
    assert_eq!(sim.now, Millis(240_000), "the period goes on");
}

#[test]
fn a_whole_configuration_is_exchanged_with_one_spare_place() {
    let mut sim = sim(OneSpare::new(), six());
    sim.refresh().unwrap();
    let lists = sim.world.lists(ACCOUNT);
    lists.entities = (11..=16).map(|n| device(n, n, &[(n, "null"), (n + 100, "null")])).collect();
    lists.credentials = (11..=16).map(credential).collect();
    lists.sensors = (11..=16).chain(111..=116).map(|n| sensor(n, "60")).collect();
    sim.now = Millis(120_000);
    sim.settle();
    sim.until(Millis(600_000));
    assert_eq!(sim.entities(), [11, 12, 13, 14, 15, 16]);
    assert!(sim.events.iter().all(|e| !matches!(e, Event::Fault(f) if f.kind != FaultKind::Deferred)));
    let plan = sim.plan();
    assert!((11..=16).all(|n| plan[n as usize - 11].contains(&format!("u{n}"))));
}

#[test]
fn an_entity_gets_all_its_sensors_even_if_they_find_room_one_by_one() {
    let mut world = World::new();
    let lists = world.lists(ACCOUNT);
    lists.credentials = vec![credential(1)];
    lists.sensors = (1..=32).map(|n| sensor(n, "60")).collect();
    let links = |from: u64| -> Vec<(u64, &str)> { (from..from + 8).map(|n| (n, "null")).collect() };
    lists.entities = vec![device(1, 1, &links(1)), device(2, 1, &links(9))];
    let mut sim = sim(OneSpareManySensors::new(), world);
    sim.refresh().unwrap();
    assert_eq!(sim.entities(), [1, 2]);
    sim.world.lists(ACCOUNT).entities = vec![device(1, 1, &links(17)), device(2, 1, &links(9))];
    sim.until(Millis(600_000));
    let sensors =
        sim.collector.entity_of(&JobKey::new(ACCOUNT, 1), |e| e.sensors().map(|s| s.id).collect::<Vec<_>>());
    assert_eq!(sensors, Some((17..25).collect()));
    assert_eq!(sim.kinds(), []);
}

#[test]
fn at_most_eight_refreshes_follow_at_once_and_what_is_left_is_told_once() {
    grafolean_core::inline_storage! {
        struct Twenty for TestBot {
            accounts: 1, entities: 20, links: 2, credentials: 2, sensors: 2, jobs: 20, spare: 1, intervals: 40,
            distinct_intervals: 4, runs: 1, cells: 8, element: 1024, scratch: 64, listing: 0, states: 0, faults: 8,
            events: 64,
        }
    }
    let mut sim = sim(Twenty::new(), World::small(20));
    sim.refresh().unwrap();
    sim.world.lists(ACCOUNT).entities.iter_mut().for_each(|e| *e = e.replace("192.0.2", "192.0.3"));
    sim.events.clear();
    sim.now = Millis(120_000);
    sim.settle();
    let count = |sim: &Sim<Twenty>| sim.events.iter().filter(|e| matches!(e, Event::Refreshed(_))).count();
    assert_eq!(count(&sim), 9);
    assert_eq!(sim.plan().iter().filter(|p| p.contains("192.0.3")).count(), 9);
    let deferred: Vec<_> =
        sim.events.iter().filter(|e| matches!(e, Event::Fault(f) if f.kind == FaultKind::Deferred)).collect();
    assert_eq!(deferred.len(), 1);
    sim.events.clear();
    sim.until(Millis(240_000));
    assert_eq!((count(&sim), sim.plan().iter().filter(|p| p.contains("192.0.3")).count()), (9, 18));
    assert_eq!(sim.faults(), (vec![], vec![]), "it is still so: told no more");
    sim.until(Millis(480_000));
    assert_eq!(sim.plan().iter().filter(|p| p.contains("192.0.3")).count(), 20);
    let (came, gone) = sim.faults();
    assert_eq!((came.len(), gone.len(), gone[0].kind), (0, 1, FaultKind::Deferred));
}

#[test]
fn an_item_that_is_refused_again_and_again_makes_no_refresh_follow() {
    let mut world = six();
    world.lists(ACCOUNT).sensors[0] = sensor(1, "60").replace("\"m1\"", "{}");
    world.lists(ACCOUNT).sensors[1] = sensor(2, "60").replace("\"m2\"", "{}");
    let mut sim = sim(OneSpare::new(), world);
    sim.refresh().unwrap();
    sim.refresh().unwrap();
    sim.refresh().unwrap();
    assert_eq!(sim.asked.len(), 5 + 4 + 4);
}

// ---- values and states ----

#[test]
fn accounts_with_waiting_values_have_a_capacity_and_queues_grow_if_they_can() {
    let number = 1u32.number_text().unwrap();
    let mut fixed = sim(FewAccounts::new(), World::new());
    for account in 0..3 {
        fixed.collector.handle_value(account, None, "a.b", &number).ok();
    }
    // Room for the two accounts and the spare ones.
    let mut results = Vec::new();
    for account in 0..40 {
        results.push(fixed.collector.handle_value(account, None, "a.b", &number));
    }
    let full = HandOverError::Outbox(PushError::TooManyAccounts { capacity: 18 });
    assert_eq!(results[17], Ok(()));
    assert!(results[18..].iter().all(|r| *r == Err(full)));
    assert_eq!(full.to_string(), "outbox has room for 18 accounts and values of all of them wait");
    assert!(fixed.collector.ledger().balanced());
    let mut growing = sim(VecStorage::new(), World::new());
    for account in 0..40 {
        growing.collector.handle_value(account, None, "a.b", &number).unwrap();
    }
    growing.until(Millis(60_000));
    assert_eq!((growing.collector.ledger().delivered, growing.world.arrived.len()), (40, 40));
}

#[test]
fn states_have_a_capacity_and_go_with_their_job() {
    let mut sim = sim(Ample::new(), six());
    sim.refresh().unwrap();
    let (a, b) = (JobKey::new(ACCOUNT, 1), JobKey::new(ACCOUNT, 2));
    sim.collector.set_state(&a, "counter", &[1, 2, 3]).unwrap();
    sim.collector.set_state(&b, "counter", &[4]).unwrap();
    assert_eq!(sim.collector.set_state(&b, "more", &[5]), Err(StateError::Full { capacity: 2 }));
    assert_eq!(sim.collector.set_state(&b, "counter", &[0; 33]), Err(StateError::TooLong { limit: 32 }));
    let mut buf = [0; 32];
    // Through refreshes it stays, also when its job changes.
    sim.world.lists(ACCOUNT).entities[0] = device(1, 1, &[(1, "10")]);
    sim.refresh().unwrap();
    assert_eq!(sim.collector.get_state(&a, "counter", &mut buf), Some(3));
    sim.world.lists(ACCOUNT).entities.remove(0);
    sim.refresh().unwrap();
    assert_eq!(sim.collector.get_state(&a, "counter", &mut buf), None);
    assert_eq!(sim.collector.get_state(&b, "counter", &mut buf), Some(1));
    sim.collector.set_state(&b, "more", &[5]).unwrap();
}

#[test]
fn events_beyond_a_queue_that_can_not_grow_are_counted_as_lost() {
    grafolean_core::inline_storage! {
        struct FewEvents for TestBot {
            accounts: 1, entities: 20, links: 2, credentials: 2, sensors: 2, jobs: 20, spare: 1, intervals: 40,
            distinct_intervals: 4, runs: 1, cells: 8, element: 1024, scratch: 64, listing: 0, states: 0, faults: 32,
            events: 4,
        }
    }
    let mut world = World::small(0);
    world.lists(ACCOUNT).entities = (1..=20).map(|n| device(n, 1, &[(1, "0"), (2, "60")])).collect();
    world.lists(ACCOUNT).sensors.push(sensor(2, "60"));
    let mut sim = sim(FewEvents::new(), world);
    assert_eq!(sim.refresh_lossy().jobs, 20);
    let lost: u32 = sim.events.iter().map(|e| if let Event::Lost(n) = e { *n } else { 0 }).sum();
    // The profile, twenty faults and the end of the refresh.
    assert_eq!(sim.events.len() as u32 - 1 + lost, 22);
    assert!(lost > 0);
    // Faults that were lost are told at the next refreshes.
    for _ in 0..10 {
        sim.collector.refresh_soon();
        sim.refresh_lossy();
    }
    let mut told: Vec<u64> = sim
        .events
        .iter()
        .filter_map(|e| if let Event::Fault(f) = e { Some(f.entity) } else { None })
        .collect();
    told.sort_unstable();
    assert_eq!(told, (1..=20).collect::<Vec<u64>>());
}

#[test]
fn a_queue_of_events_that_grows_loses_none_and_keeps_their_order() {
    let mut world = World::small(0);
    world.lists(ACCOUNT).entities = (1..=300).map(|n| device(n, 1, &[(1, "0"), (2, "60")])).collect();
    world.lists(ACCOUNT).sensors.push(sensor(2, "60"));
    for chunk in [100, usize::MAX] {
        let mut sim = sim(VecStorage::new(), World::new());
        sim.world.accounts = world.accounts.clone();
        sim.chunk = chunk;
        // Its beginning is somewhere in the middle of its memory.
        sim.world.rule = Some(Box::new(|_, _| Some(status(500))));
        sim.refresh().unwrap_err();
        sim.world.rule = None;
        sim.refresh().unwrap();
        let ids: Vec<u64> = sim.kinds().iter().map(|(entity, ..)| *entity).collect();
        assert_eq!(ids, (1..=300).collect::<Vec<u64>>());
    }
}
