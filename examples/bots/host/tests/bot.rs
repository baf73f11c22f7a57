//! The host bot on simulated time, from its readings to what the backend stores.
#![allow(clippy::unwrap_used)]

use grafolean_bot_host::{HostBot, HostError, HostReadings, NameError, Readings};
use grafolean_core::interval::Interval;
use grafolean_core::storage::Storage;
use grafolean_test::{ACCOUNT, Lab, Outcome, Script, Setup};

type Given = Script<(), Result<Readings, &'static str>>;

struct Machine(Given);

impl HostReadings for Machine {
    type Error = &'static str;
    fn read(&self) -> Result<Readings, &'static str> {
        self.0.ask_now(())
    }
}

type Host = HostBot<Machine>;

grafolean_core::inline_storage! {
    struct Memory for Host {
        accounts: 1, entities: 1, links: 1, credentials: 1, sensors: 1, jobs: 1, spare: 1,
        intervals: 2, distinct_intervals: 2, runs: 1, cells: 64, element: 512, scratch: 64,
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

fn bot(readings: &Given, name: &str) -> Host {
    HostBot::new(Machine(readings.clone()), name).unwrap()
}

fn lab(readings: Result<Readings, &'static str>, name: &str) -> Lab<Host, Memory> {
    Lab::with_storage(Memory::new(), bot(&Script::always(0, readings), name))
}

fn posts_all<S: Storage<Host> + 'static>(mut lab: Lab<Host, S>) {
    assert!(lab.next_run().is_done());
    assert_eq!(
        lab.take_handed_over(),
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
    lab.run_for_s(1);
    lab.assert_delivered();
    lab.assert_value("host.web-1%2eexample%2ecom.memory.available", 9_001_000_960.0);
}

#[test]
fn a_run_posts_all_that_the_machine_says_under_its_name() {
    let bot = || bot(&Script::always(0, Ok(ALL)), " web-1.example.com\n");
    posts_all(Lab::with_storage(Memory::new(), bot()));
    posts_all(Setup::board().lab_with(Memory::new(), |_| bot()));
    posts_all(Lab::new(bot()));
}

#[test]
fn it_runs_every_minute_or_as_often_as_it_is_told() {
    let mut lab60 = lab(Ok(ALL), "a");
    lab60.refresh();
    let jobs = lab60.jobs();
    assert_eq!(jobs.len(), 1);
    let key = jobs[0].key;
    assert_eq!(
        (key.account, key.entity, key.name, jobs[0].intervals_s.as_slice()),
        (ACCOUNT, 0, "host", &[60][..])
    );
    let every_5 = bot(&Script::always(0, Ok(ALL)), "a").every(Interval::new(5).unwrap());
    let mut lab5 = Lab::with_storage(Memory::new(), every_5);
    lab5.run_for_s(100);
    assert!((19..=21).contains(&lab5.runs().len()), "{}", lab5.runs().len());
    lab5.assert_all_done();
    lab5.assert_no_warnings();
}

#[test]
fn what_a_machine_does_not_have_is_not_posted() {
    let few = Readings { uptime_s: Some(1), memory_total: Some(u64::MAX), ..Readings::default() };
    let mut lab = lab(Ok(few), "a");
    assert!(lab.next_run().is_done());
    assert_eq!(lab.take_handed_over(), ["host.a.uptime=1"]);
}

#[test]
fn readings_that_fail_end_the_run_and_the_next_one_tries_again() {
    let readings = Script::new();
    readings.then(0, Err("no /proc")).then(0, Ok(ALL));
    let mut lab = Lab::with_storage(Memory::new(), bot(&readings, "a").every(Interval::new(10).unwrap()));
    let failed = lab.next_run();
    assert_eq!((failed.outcome, failed.values), (Outcome::Failed("no /proc".into()), 0));
    let done = lab.next_run();
    assert_eq!((done.outcome, done.values), (Outcome::Done, 8));
}

#[test]
fn a_value_that_is_not_taken_does_not_cost_the_others() {
    // One path is longer than the collector is told to take.
    let longest = "host.a.memory.available".len();
    let setup = Setup::host().settings(|s| s.max_path_bytes = longest - 1);
    let mut lab = setup.lab_with(Memory::new(), |_| bot(&Script::always(0, Ok(ALL)), "a"));
    let run = lab.next_run();
    assert_eq!(run.values, 7);
    lab.assert_last_run_failed("23");
    lab.run_for_s(1);
    lab.assert_delivered();
    lab.assert_value("host.a.uptime", 350_735.0);
    lab.assert_no_value("host.a.memory.available");
}

#[test]
fn a_host_name_has_one_to_64_bytes_and_always_makes_a_legal_path() {
    let new = |name: &str| HostBot::new(Machine(Script::always(0, Ok(ALL))), name).map(|_| ());
    assert_eq!(new(" \n"), Err(NameError::Empty));
    assert_eq!(new(&"x".repeat(65)), Err(NameError::TooLong { len: 65, limit: 64 }));
    assert_eq!(new(&"x".repeat(64)), Ok(()));
    let mut lab = lab(Ok(ALL), "bücher / ::1");
    assert!(lab.next_run().is_done());
    assert_eq!(lab.take_handed_over()[0], "host.b-cher---%3a%3a1.load1=0.42");
    lab.run_for_s(1);
    lab.assert_value("host.b-cher---%3a%3a1.load1", 0.42);
    assert_eq!(HostError::Read("x").to_string(), "x");
}
