//! The host bot on simulated time.
#![allow(clippy::unwrap_used)]

#[path = "../../ping/tests/rig/mod.rs"]
mod rig;

use std::cell::Cell;

use grafolean_bot_host::{HostBot, HostError, HostReadings, NameError, Readings};
use grafolean_core::interval::Interval;
use rig::{ACCOUNT, Clock, Rig};

struct Given(Cell<Result<Readings, &'static str>>);

impl HostReadings for Given {
    type Error = &'static str;
    fn read(&self) -> Result<Readings, &'static str> {
        self.0.get()
    }
}

type Host = HostBot<Given>;

grafolean_core::inline_storage! {
    struct Memory for Host {
        accounts: 1, entities: 1, links: 1, credentials: 1, sensors: 1, jobs: 1, spare: 1,
        intervals: 2, distinct_intervals: 2, runs: 1, cells: 16, element: 512, scratch: 64,
        listing: 0, states: 0, faults: 8, events: 16,
    }
}

const ALL: Readings = Readings {
    load_hundredths: Some([42, 107, 1200]),
    memory_total: Some(16 << 30),
    memory_available: Some(9_001_000_960),
    swap_total: Some(0),
    swap_free: Some(0),
    uptime_s: Some(350_735),
};

fn rig(readings: Result<Readings, &'static str>, name: &str, interval_s: Option<i64>) -> Rig<Host, Memory> {
    let mut bot = HostBot::new(Given(Cell::new(readings)), name).unwrap();
    if let Some(interval_s) = interval_s {
        bot = bot.every(Interval::new(interval_s).unwrap());
    }
    let mut rig = Rig::new(bot, Memory::new(), Clock::default());
    rig.refresh();
    rig
}

#[test]
fn a_run_posts_all_that_the_machine_says_under_its_name() {
    let mut rig = rig(Ok(ALL), " web-1.example.com\n", None);
    let due = rig.next_due(120_000);
    assert_eq!(rig.perform(&due), Ok(()));
    assert_eq!(
        rig.take_values(),
        [
            "host.web-1%2eexample%2ecom.load1=0.42",
            "host.web-1%2eexample%2ecom.load5=1.07",
            "host.web-1%2eexample%2ecom.load15=12.00",
            "host.web-1%2eexample%2ecom.memory.total=17179869184",
            "host.web-1%2eexample%2ecom.memory.available=9001000960",
            "host.web-1%2eexample%2ecom.swap.total=0",
            "host.web-1%2eexample%2ecom.swap.free=0",
            "host.web-1%2eexample%2ecom.uptime=350735",
        ]
    );
}

#[test]
fn it_runs_every_minute_or_as_often_as_it_is_told() {
    let mut rig60 = rig(Ok(ALL), "a", None);
    let jobs: Vec<_> = rig60.jobs().into_iter().collect();
    assert_eq!(
        (jobs[0].0.account, jobs[0].0.entity, jobs[0].0.name, jobs[0].1.as_slice()),
        (ACCOUNT, 0, "host", &[60][..])
    );
    let mut rig5 = rig(Ok(ALL), "a", Some(5));
    let ended = rig5.run_until(100_000);
    assert!((19..=21).contains(&ended.len()), "{}", ended.len());
    assert!(ended.iter().all(|(_, result)| result.is_ok()));
}

#[test]
fn what_a_machine_does_not_have_is_not_posted() {
    let mut rig = rig(
        Ok(Readings { uptime_s: Some(1), memory_total: Some(u64::MAX), ..Readings::default() }),
        "a",
        None,
    );
    let due = rig.next_due(120_000);
    assert_eq!(rig.perform(&due), Ok(()));
    assert_eq!(rig.take_values(), ["host.a.uptime=1"]);
}

#[test]
fn readings_that_fail_end_the_run_and_the_next_one_tries_again() {
    let mut rig = rig(Err("no /proc"), "a", Some(10));
    let due = rig.next_due(120_000);
    assert_eq!(rig.perform(&due), Err("no /proc".to_string()));
    assert!(rig.take_values().is_empty());
    rig.collector.handle_completed(due.run);
    rig.bot = HostBot::new(Given(Cell::new(Ok(ALL))), "a").unwrap();
    let due = rig.next_due(120_000);
    assert_eq!(rig.perform(&due), Ok(()));
    assert_eq!(rig.take_values().len(), 8);
}

#[test]
fn a_value_that_finds_no_room_does_not_cost_the_others() {
    let mut rig = rig(Ok(ALL), "a", None);
    rig.world.borrow_mut().no_room_for = Some("host.a.load5");
    let due = rig.next_due(120_000);
    assert!(rig.perform(&due).is_err());
    assert_eq!(rig.take_values().len(), 7);
}

#[test]
fn a_host_name_has_one_to_64_bytes_and_always_makes_a_legal_path() {
    let new = |name: &str| HostBot::new(Given(Cell::new(Ok(ALL))), name).map(|_| ());
    assert_eq!(new(" \n"), Err(NameError::Empty));
    assert_eq!(new(&"x".repeat(65)), Err(NameError::TooLong { len: 65, limit: 64 }));
    assert_eq!(new(&"x".repeat(64)), Ok(()));
    let mut rig = rig(Ok(ALL), "bücher / ::1", None);
    let due = rig.next_due(120_000);
    assert_eq!(rig.perform(&due), Ok(()));
    assert_eq!(rig.take_values()[0], "host.b-cher---%3a%3a1.load1=0.42");
    assert_eq!(HostError::Read("x").to_string(), "x");
}
