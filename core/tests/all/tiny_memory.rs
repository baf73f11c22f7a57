//! The smallest memories that can be declared: nothing of anything, and one of everything.

use crate::support::*;
use grafolean_core::api::Resource;
use grafolean_core::storage::Storage;
use grafolean_core::time::Millis;
use grafolean_core::values::Number;

grafolean_core::inline_storage! {
    /// Nothing but the place that staging needs.
    struct Nothing for TestBot {
        accounts: 0, entities: 0, links: 0, credentials: 0, sensors: 0, jobs: 0, spare: 1, intervals: 0,
        distinct_intervals: 0, runs: 0, cells: 0, element: 0, scratch: 0, listing: 0, states: 0, faults: 0, events: 0,
    }
}

grafolean_core::inline_storage! {
    /// One of everything, also of bytes.
    struct One for TestBot {
        accounts: 1, entities: 1, links: 1, credentials: 1, sensors: 1, jobs: 1, spare: 1, intervals: 1,
        distinct_intervals: 1, runs: 1, cells: 1, element: 1, scratch: 1, listing: 1, states: 1, faults: 1, events: 1,
    }
}

grafolean_core::inline_storage! {
    /// One of everything, and room to read an element.
    struct OneReadable for TestBot {
        accounts: 1, entities: 1, links: 1, credentials: 1, sensors: 1, jobs: 1, spare: 1, intervals: 1,
        distinct_intervals: 1, runs: 1, cells: 1, element: 512, scratch: 64, listing: 64, states: 1, faults: 1, events: 1,
    }
}

fn two_accounts() -> World {
    let mut world = World::small(3);
    let lists = world.accounts[&ACCOUNT].clone();
    world.accounts.insert(8, lists);
    world
}

/// Twenty minutes; how many refreshes began with a request, and how many jobs there are then.
fn twenty_minutes<S: Storage<TestBot>>(
    bot: TestBot,
    account: Option<u64>,
    world: World,
    storage: S,
) -> (usize, usize) {
    let mut with = settings();
    with.account = account;
    let mut sim = Sim::new(bot, world, storage, with);
    // Each instant comes to rest, and the next one is later: that is asserted there.
    sim.until(Millis(600_000));
    let _ = sim.collector.handle_value(ACCOUNT, None, "a.b", &7.number_text().unwrap());
    if let Some(key) = sim.keys().first() {
        let _ = sim.collector.set_state(key, "s", &[1]);
    }
    sim.world.lists(ACCOUNT).entities.reverse();
    sim.until(Millis(1_200_000));
    assert!(sim.asked.len() < 2_000, "{} requests", sim.asked.len());
    let last = sim.log.iter().rev().find_map(|l| l.split_once(" Send")?.0.parse::<u64>().ok());
    assert!(last.is_some_and(|ms| ms >= 600_000), "it goes on trying");
    let resources = sim.resources();
    let first = if bot.protocol.is_some() { Resource::Accounts } else { Resource::Profile };
    (resources.iter().filter(|r| **r == first).count(), sim.keys().len())
}

#[test]
fn memory_for_nothing_or_for_one_of_each_neither_panics_nor_loops_through_twenty_minutes_of_refreshes() {
    for bot in [TestBot::CONTROLLED, TestBot::custom(0), TestBot::custom(3)] {
        for account in [None, Some(ACCOUNT)] {
            for world in [World::new, || World::small(3), two_accounts] {
                let nothing = twenty_minutes(bot, account, world(), Nothing::new());
                let one = twenty_minutes(bot, account, world(), One::new());
                let readable = twenty_minutes(bot, account, world(), OneReadable::new());
                assert_eq!((nothing.1, one.1 <= 1, readable.1 <= 1), (0, true, true));
            }
        }
    }
}

#[test]
fn memory_for_one_of_each_has_one_job_and_refreshes_every_two_minutes() {
    let small = || twenty_minutes(TestBot::CONTROLLED, None, World::small(3), OneReadable::new());
    assert_eq!(small(), (11, 1));
    let custom = twenty_minutes(TestBot::custom(3), Some(ACCOUNT), World::new(), OneReadable::new());
    assert_eq!(custom, (11, 1));
}
