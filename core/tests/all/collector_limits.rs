//! Pauses and bounds where the backend fails or its clock is wrong.

use crate::support::*;
use grafolean_core::api::Resource;
use grafolean_core::collector::{NOT_READY_RETRY_MS, Settings};
use grafolean_core::config::BODY_LIMIT;
use grafolean_core::journal::{Event, RefreshError};
use grafolean_core::time::{DateNotice, Millis};

#[test]
fn a_backend_that_is_just_starting_is_asked_at_least_every_ten_seconds_however_it_fails() {
    let replies: [fn() -> Reply; 3] = [|| Reply::NotSent, || status(502), || status(500)];
    for reply in replies {
        let mut world = World::small(1);
        world.rule = Some(Box::new(move |_, a| (a.resource == Resource::Status).then(reply)));
        let mut settings = settings();
        settings.wait_until_ready = true;
        settings.refresh_interval_s = 3_600;
        let mut sim = Sim::new(TestBot::CONTROLLED, world, VecStorage::new(), settings);
        for _ in 0..12 {
            let before = sim.now;
            sim.refresh().unwrap_err();
            assert!(sim.now.since(before) <= NOT_READY_RETRY_MS);
        }
        sim.world.rule = None;
        sim.refresh().unwrap();
    }
}

#[test]
fn a_refresh_waits_as_long_as_the_backend_asks_for() {
    let mut world = World::small(1);
    let busy = || Reply::Answer { status: 503, body: Vec::new(), retry_after_ms: Some(600_000) };
    world.rule = Some(Box::new(move |_, a| (a.resource == Resource::Accounts).then(busy)));
    let mut sim = Sim::new(TestBot::CONTROLLED, world, VecStorage::new(), settings());
    assert_eq!(sim.refresh(), Err(RefreshError::Status(503)));
    let first = sim.now;
    sim.refresh().unwrap_err();
    assert!(sim.now.since(first) >= 600_000);
}

#[test]
fn an_endless_answer_that_tells_a_failure_is_ended_at_the_limit_and_its_status_counts() {
    let mut world = World::small(1);
    let page =
        || Reply::Answer { status: 503, body: vec![b'x'; 4 * BODY_LIMIT as usize], retry_after_ms: None };
    world.rule = Some(Box::new(move |_, a| (a.resource == Resource::Accounts).then(page)));
    let mut sim = Sim::new(TestBot::CONTROLLED, world, VecStorage::new(), settings());
    assert_eq!(sim.refresh(), Err(RefreshError::Status(503)));
}

#[test]
fn a_board_that_learned_a_wrong_time_and_gave_it_to_no_value_is_put_right_at_once() {
    let mut settings = Settings::board(settings().token, "/api");
    settings.wait_until_ready = false;
    let mut sim = Sim::new(TestBot::CONTROLLED, World::small(1), VecStorage::new(), settings);
    sim.unix_at_0 = None;
    // A captive portal half an hour ahead.
    sim.world.date_unix_s = Some(1_700_001_800);
    sim.settle();
    assert!(sim.events.contains(&Event::Clock(DateNotice::Learned)));
    sim.world.date_unix_s = Some(1_700_000_000);
    sim.refresh_now().unwrap();
    assert!(sim.events.contains(&Event::Clock(DateNotice::Moved(-1_800_000))));
    assert!(sim.collector.wall().unwrap().0 < 1_700_000_000_000 + sim.now.since(Millis(0)) + 2_000);
}
