//! What a lab does: time, runs, values, refreshes, misbehaviour.

use std::cell::Cell;
use std::rc::Rc;

use crate::support;
use crate::support::{Bus, Meter, Wire, lab};
use grafolean_core::bot::{Anything, Bot, Context, EntityDraft, JobSink, NewJob};
use grafolean_core::interval::{Interval, Intervals};
use grafolean_core::jobs::{Due, Phase};
use grafolean_core::model::ListedEntity;
use grafolean_core::storage::Storage;
use grafolean_core::time::Tick;
use grafolean_test::backend::Permission;
use grafolean_test::{ACCOUNT, Answer, Clock, Device, Lab, Outcome, SEED_VARIABLE, Setup};

grafolean_core::inline_storage! {
    struct Small for Meter<Wire> {
        accounts: 1, entities: 2, links: 2, credentials: 2, sensors: 2, jobs: 2, spare: 1,
        intervals: 4, distinct_intervals: 2, runs: 2, cells: 64, element: 1024, scratch: 64,
        listing: 0, states: 0, faults: 8, events: 16,
    }
}

#[test]
fn values_are_stored_with_the_time_at_which_they_were_handed_over() {
    let (mut lab, _) = lab();
    lab.add(Device::new(17).every(60));
    let run = lab.next_run();
    assert_eq!((run.entity(), run.is_done(), run.took_ms, run.values), (17, true, Some(20), 1));
    assert_eq!(run.affecting_s(), [60]);
    let handed_over = lab.handed_over();
    assert_eq!((handed_over.len(), handed_over[0].at_ms), (1, run.began_ms + 20));
    assert_eq!(lab.series("entity.17.r0"), [], "values wait for company first");
    lab.run_for_s(1);
    assert_eq!(lab.series("entity.17.r0"), [(i64::try_from(run.began_ms).unwrap() + 20, 7.0)]);
    lab.assert_value("entity.17.r0", 7.0);
    lab.assert_delivered();
}

#[test]
fn an_hour_passes_without_waiting_and_every_instant_of_the_grid_has_its_run() {
    let (mut lab, wire) = lab();
    lab.add(Device::new(17).every(60));
    lab.run_for_s(3600);
    assert_eq!(lab.now_ms(), 3_600_000);
    let grid: Vec<_> = lab.runs().into_iter().map(|run| run.scheduled_ms / 1000).collect();
    // One extra first run, if the first instant is not soon.
    let steps: Vec<_> = grid.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(steps.iter().skip(1).all(|step| *step == 60), "{grid:?}");
    assert!((59..=61).contains(&grid.len()), "{}", grid.len());
    assert_eq!(wire.times_asked(), grid.len());
    lab.assert_all_done();
    lab.assert_no_warnings();
    lab.assert_delivered();
}

#[test]
fn runs_of_different_jobs_wait_at_the_same_time() {
    let wire = Wire::always(30_000, Ok(1));
    let mut lab = Lab::new(Meter(wire.clone()));
    for id in 1..=20 {
        lab.add(Device::new(id).every(60));
    }
    lab.run_for_s(180);
    let runs = lab.runs();
    let most = runs.iter().map(|run| {
        let at = run.began_ms;
        runs.iter()
            .filter(|r| r.began_ms <= at && r.took_ms.is_none_or(|took| r.began_ms + took > at))
            .count()
    });
    assert!(most.max().unwrap() > 5);
    assert!(runs.iter().all(|run| run.outcome == Outcome::Running || run.took_ms == Some(30_000)));
}

#[test]
fn a_device_that_hangs_is_cancelled_at_the_deadline_and_asked_again_by_the_next_run() {
    let wire = Wire::new();
    wire.then(20, Ok(1)).then_hang().then(20, Ok(3));
    let mut lab = Lab::new(Meter(wire));
    lab.add(Device::new(17).every(60));
    let deadline_ms = {
        lab.refresh();
        lab.jobs()[0].deadline_ms
    };
    let runs = [lab.next_run(), lab.next_run(), lab.next_run()];
    assert_eq!(runs.clone().map(|run| run.outcome), [Outcome::Done, Outcome::Cancelled, Outcome::Done]);
    assert_eq!(runs[1].took_ms, Some(deadline_ms));
    lab.run_for_s(1);
    lab.assert_series("entity.17.r0", &[1.0, 3.0]);
    lab.assert_told("account 1, entity 17");
}

#[test]
fn values_of_an_outage_arrive_after_it_with_their_own_times() {
    let (mut lab, _) = lab();
    lab.add(Device::new(17).every(10));
    lab.run_for_s(100);
    lab.outage_s(100..700);
    lab.run_until_s(699);
    assert!(lab.ledger().queued >= 58, "{:?}", lab.ledger());
    lab.run_until_s(1300);
    lab.assert_delivered();
    lab.assert_all_done();
    let times: Vec<_> = lab.series("entity.17.r0").into_iter().map(|(at_ms, _)| at_ms).collect();
    let handed_over: Vec<_> =
        lab.handed_over().into_iter().map(|v| i64::try_from(v.at_ms).unwrap()).collect();
    assert_eq!(times, handed_over);
    assert!(lab.requests_of("values").iter().any(|sent| sent.status.is_none()));
}

#[test]
fn an_answer_that_is_lost_does_not_store_a_value_twice() {
    for answer in [Answer::Lost, Answer::Dropped, Answer::Silence, Answer::status(503), Answer::NotSent] {
        let (mut lab, _) = lab();
        lab.add(Device::new(17).every(60));
        lab.answer_next("PUT values", answer.clone());
        lab.next_run();
        lab.run_until(300, |lab| lab.ledger().delivered > 0);
        let first = lab.handed_over()[0].at_ms;
        let stored: Vec<_> = lab.series("entity.17.r0").into_iter().map(|(at_ms, _)| at_ms).collect();
        assert_eq!(stored[0], i64::try_from(first).unwrap(), "{answer:?}");
        assert!(lab.requests_of("PUT values").len() >= 2, "{answer:?}");
        assert_eq!(stored.len() as u64, lab.ledger().delivered, "{answer:?}");
    }
}

#[test]
fn a_list_that_breaks_off_fails_the_refresh_and_the_jobs_stay() {
    let (mut lab, _) = lab();
    lab.add(Device::new(17).every(60));
    assert_eq!(lab.refresh().jobs, 1);
    lab.remove(17);
    lab.answer_next("GET entities", Answer::Cut { bytes: 5 });
    lab.refresh();
    lab.assert_told("stay as they were");
    assert_eq!(lab.jobs().len(), 1);
    assert_eq!(lab.refresh().jobs, 0);
    assert!(lab.jobs().is_empty());
}

#[test]
fn a_refresh_may_fail_and_says_why() {
    let (mut lab, _) = lab();
    lab.answer_always("GET /accounts/", Answer::status(502));
    assert_eq!(lab.try_refresh().unwrap_err().to_string(), "the backend answered 502");
    lab.answer_as_usual();
    assert!(lab.try_refresh().is_ok());
}

#[test]
fn requests_take_as_long_as_the_latency_says() {
    let (mut lab, _) = lab();
    lab.add(Device::new(17).every(60));
    lab.latency_ms(101);
    let summary = lab.refresh();
    assert_eq!(summary.took_ms, 101 * u64::from(summary.requests));
    assert_eq!(lab.requests()[1].at_ms, 101);
    // What the backend stores by its own time is half-way.
    lab.permissions([
        Permission::new("accounts/1/values", Some(&["POST"])),
        Permission::new("accounts/1", Some(&["GET"])),
    ]);
    lab.next_run();
    lab.run_for_s(5);
    let post = lab.requests_of("POST values")[0].at_ms;
    assert_eq!(lab.series("entity.17.r0"), [(i64::try_from(post).unwrap() + 50, 7.0)]);
}

fn record(seed: u64) -> Vec<String> {
    let wire = Wire::new();
    let mut n = 0;
    wire.otherwise(move |_| {
        n += 1;
        (n * 37 % 900, if n % 11 == 0 { Err("noise") } else { Ok(i64::from(n)) })
    });
    let mut lab = Setup::host().seed(seed).lab(|_| Meter(wire));
    for _ in 0..5 {
        lab.add(Device::new(0).every(10).every(60));
    }
    lab.latency_ms(5..=200);
    lab.outage_s(100..200);
    lab.answer_always("POST", Answer::status(500));
    lab.run_for_s(600);
    let mut record: Vec<_> = lab.runs().iter().map(ToString::to_string).collect();
    record.extend(lab.requests().iter().map(|sent| format!("{sent:?}")));
    record.extend(lab.values().iter().map(|value| format!("{value:?}")));
    record.extend(lab.events().iter().map(ToString::to_string));
    assert!(record.len() > 500);
    record
}

#[test]
fn the_same_calls_give_the_same_record_and_another_seed_another_one() {
    let first = record(5);
    assert!(first == record(5));
    assert!(first != record(6));
}

#[test]
fn the_seed_is_printed_and_taken_from_the_environment() {
    let seeded = |seed: &str| {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lab::requests_take_as_long_as_the_latency_says", "--nocapture"])
            .env(SEED_VARIABLE, seed)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (ok, text) = seeded("12345");
    assert!(ok && text.contains("GRAFOLEAN_TEST_SEED=12345"), "{text}");
    assert!(!seeded("many").0);
}

/// The same on a host and on a board.
fn reads_two_registers<S: Storage<Meter<Wire>> + 'static>(mut lab: Lab<Meter<Wire>, S>) {
    lab.add(Device::new(17).sensor(r#"{"register": 4}"#, 60).sensor(r#"{"register": "5"}"#, 120));
    lab.run_for_s(600);
    lab.assert_all_done();
    lab.assert_no_warnings();
    lab.assert_delivered();
    let (four, five) = (lab.series("entity.17.r4"), lab.series("entity.17.r5"));
    assert!((9..=11).contains(&four.len()), "{four:?}");
    assert!((4..=6).contains(&five.len()), "{five:?}");
    // A board has learned the time from the backend, whose clock it knows to the second.
    let handed_over = lab.handed_over().into_iter().filter(|v| v.path == "entity.17.r4");
    for ((at_ms, _), handed) in four.iter().zip(handed_over) {
        assert!((at_ms - i64::try_from(handed.at_ms).unwrap()).abs() <= 1000, "{four:?}");
    }
}

#[test]
fn the_same_test_runs_on_a_host_and_on_a_board_with_small_memory() {
    let bot = || Meter(Wire::always(20, Ok(7)));
    reads_two_registers(Lab::new(bot()));
    reads_two_registers(Lab::with_storage(Small::new(), bot()));
    reads_two_registers(Setup::board().lab(|_| bot()));
    reads_two_registers(Setup::board().lab_with(Small::new(), |_| bot()));
}

#[test]
fn small_memory_takes_what_fits_and_names_the_rest() {
    let mut lab = Lab::with_storage(Small::new(), Meter(Wire::always(20, Ok(7))));
    for id in 1..=3 {
        lab.add(Device::new(id).every(60));
    }
    assert_eq!(lab.refresh().jobs, 2);
    lab.assert_told("not taken: there is room for 2");
}

#[test]
fn configuration_changes_reach_the_bot_with_its_next_refresh() {
    let (mut lab, _) = lab();
    let credential = lab.credential(r#"{"user": "x"}"#);
    let sensor = lab.sensor("{}", 300);
    let id = lab.add(Device::new(0).credential_id(credential).sensor_id(sensor, None).named("Boiler"));
    lab.add(Device::new(5).credential_id(credential).sensor_id(sensor, 30));
    lab.add(Device::new(6).every(60).protocol("snmp"));
    lab.add(Device::new(7).every(60).unassigned());
    lab.refresh();
    let jobs = |lab: &Lab<_>| -> Vec<(u64, Vec<u32>)> {
        lab.jobs().into_iter().map(|job| (job.key.entity, job.intervals_s)).collect()
    };
    let mut expected = vec![(5, vec![30]), (7, vec![60]), (id, vec![300])];
    expected.sort();
    assert_eq!(jobs(&lab), expected);
    assert_eq!(lab.entity(id).name, "Boiler");
    lab.set_details(5, r#"{"broken": true}"#);
    lab.remove(7);
    // By itself, two minutes after the last one.
    lab.run_for_s(121);
    assert_eq!(jobs(&lab), [(id, vec![300])]);
    lab.assert_told("entity 5: it is broken");
    assert_eq!(lab.entities().len(), 3);
}

#[test]
fn held_runs_have_begun_and_see_what_is_changed_before_they_are_released() {
    let (mut lab, wire) = lab();
    lab.add(Device::new(17).every(60));
    lab.refresh();
    lab.hold_runs();
    lab.run_until(120, |lab| !lab.held().is_empty());
    assert_eq!(lab.runs().last().unwrap().outcome, Outcome::Running);
    lab.remove(17);
    lab.refresh();
    lab.release();
    let run = lab.next_run();
    assert_eq!((run.outcome, run.values, wire.times_asked()), (Outcome::Done, 0, 0));
}

#[test]
fn a_held_run_ends_at_its_deadline() {
    let (mut lab, _) = lab();
    lab.add(Device::new(17).every(60));
    lab.hold_runs();
    let run = lab.next_run();
    assert_eq!(run.outcome, Outcome::Cancelled);
    // The job's next one begins at that instant.
    assert!(lab.held().iter().all(|due| due.run != run.due.run));
}

#[test]
fn nothing_happens_while_the_machine_is_suspended() {
    let (mut lab, _) = lab();
    lab.add(Device::new(17).every(60));
    lab.run_for_s(200);
    let before = lab.runs().len();
    lab.suspend_ms(605_000);
    lab.run_for_ms(0);
    let runs = lab.runs();
    assert_eq!(runs.len(), before + 1);
    assert!(runs.last().unwrap().due.missed >= 8);
}

#[test]
fn a_stop_lets_runs_end_and_delivers_what_waits() {
    let wire = Wire::always(5_000, Ok(7));
    let mut lab = Lab::new(Meter(wire));
    lab.add(Device::new(17).every(60));
    lab.run_until(120, |lab| lab.runs().len() == 1);
    assert!(lab.stop(20));
    lab.assert_all_done();
    lab.assert_delivered();
    let (mut down, _) = support::lab();
    down.add(Device::new(17).every(60));
    down.next_run();
    down.outage_s(0..10_000);
    assert!(!down.stop(20), "its values cannot be delivered");
}

/// By hand, on a clock.
struct Slow(Clock, Rc<Cell<u32>>);

impl Bus for Slow {
    async fn read(&self, _: u64, _: u16) -> Result<i64, &'static str> {
        /// Counts when it is dropped before its end.
        struct Guard(Rc<Cell<u32>>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let guard = Guard(self.1.clone());
        self.0.sleep_ms(1_500).await;
        self.0.sleep_ms(600_000).await;
        std::mem::forget(guard);
        Ok(1)
    }
}

#[test]
fn a_driver_by_hand_waits_on_the_labs_clock_and_is_dropped_when_its_run_is_cancelled() {
    let dropped = Rc::new(Cell::new(0));
    let mut lab = Lab::of(|clock| Meter(Slow(clock.clone(), dropped.clone())));
    lab.add(Device::new(17).every(60));
    assert_eq!(lab.next_run().outcome, Outcome::Cancelled);
    assert_eq!(dropped.get(), 1);
}

/// A custom bot: counts its runs in its state, and keeps one entity.
struct Custom;

impl Bot for Custom {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = ();
    type Error = String;

    fn protocol(&self) -> Option<&str> {
        None
    }

    fn own_jobs(&self, _: u64, jobs: &mut dyn JobSink<()>) {
        let minute = Intervals::one(Interval::new(60).unwrap());
        jobs.add(NewJob::new(minute, ()).named("count").phase(Phase::Aligned(Tick(7))));
        jobs.add(NewJob::new(minute, ()).named("keep").phase(Phase::Aligned(Tick(7))));
    }

    async fn perform<C: Context<Bot = Self>>(&self, _: &(), due: &Due, cx: &mut C) -> Result<(), String> {
        if due.key.name == "count" {
            let mut count = [0];
            cx.get_state("count", &mut count);
            count[0] += 1;
            cx.set_state("count", &count).map_err(|e| e.to_string())?;
            return cx.value("own.count", u64::from(count[0])).map_err(|e| e.to_string());
        }
        let mut buf = [0; 512];
        let mut here = None;
        cx.list_entities().await.map_err(|e| e.to_string())?;
        let mut seen = 0u64;
        while let Some(len) = cx.next_entity(&mut buf).await.map_err(|e| e.to_string())? {
            let entity = ListedEntity::parse(&buf[..len]).map_err(|e| e.to_string())?;
            seen += 1;
            if entity.name == *"mine" {
                here = Some(entity.id);
            }
        }
        cx.value("own.seen", seen).map_err(|e| e.to_string())?;
        let draft = EntityDraft {
            name: "mine",
            entity_type: "device",
            parent: None,
            details: "{\"a\":1}",
            protocols: None,
        };
        let done = match here {
            None => cx.create_entity(&draft).await.map(|_| ()),
            Some(id) if seen < 3 => cx.delete_entity(id).await,
            Some(id) => cx.update_entity(id, &EntityDraft { details: "{\"a\":2}", ..draft }).await,
        };
        done.map_err(|e| e.to_string())
    }
}

#[test]
fn a_custom_bot_has_jobs_state_and_entities_as_its_permissions_allow() {
    let mut lab = Lab::new(Custom);
    for n in 0..40 {
        lab.add(Device::new(100 + n).details(format!("{{\"note\": \"{}\"}}", "x".repeat(300))));
    }
    lab.run_until_s(8);
    lab.assert_last_run_failed("403");
    lab.permissions([Permission::new("accounts/1", None)]);
    lab.run_until_s(190);
    lab.assert_series("own.count", &[1.0, 2.0, 3.0, 4.0]);
    lab.assert_series("own.seen", &[40.0, 40.0, 41.0, 41.0]);
    let times: Vec<_> = lab.series("own.count").iter().map(|(at_ms, _)| *at_ms).collect();
    assert_eq!(times, [7_000, 67_000, 127_000, 187_000]);
    let mine = lab.entities().into_iter().find(|e| e.name == "mine").unwrap();
    assert_eq!(mine.details.to_compact().unwrap(), "{\"a\":2}");
    for n in 0..40 {
        lab.remove(100 + n);
    }
    lab.run_until_s(250);
    assert_eq!(
        (lab.runs_of("count").len(), lab.runs_of("keep").len(), lab.runs_of("other").len()),
        (5, 5, 0)
    );
    assert!(lab.entities().is_empty());
    assert_eq!(lab.requests_of("POST entities").len(), 2);
    assert_eq!(lab.requests_of("DELETE").len(), 1);
}

#[test]
fn the_next_run_is_that_of_a_job_that_is_named_or_chosen() {
    let mut lab = Lab::new(Custom);
    assert!(matches!(lab.next_run_of("keep").outcome, Outcome::Failed(why) if why.contains("403")));
    assert_eq!(lab.now_ms(), 7_000);
    let count = lab.next_run_of("count");
    assert_eq!((count.key().name, count.began_ms, count.is_done()), ("count", 67_000, true));
    let third = lab.next_run_where(|run| run.began_ms > 150_000 && !run.is_done());
    assert_eq!((third.key().name, third.began_ms), ("keep", 187_000));
    // Its runs have other names.
    let (mut lab, _) = support::lab();
    lab.add(Device::new(17).every(3600));
    let missing = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lab.next_run_of("kept")));
    let message = missing.unwrap_err().downcast::<String>().unwrap();
    assert!(message.starts_with("no run of a job \"kept\" has ended within two days\nAfter "), "{message}");
}

#[test]
fn values_belong_to_the_account_of_their_job() {
    let (mut lab, _) = lab();
    lab.add_account(2);
    lab.add(Device::new(17).every(60));
    lab.add(Device::new(18).every(60).account(2));
    lab.run_for_s(100);
    lab.assert_delivered();
    lab.assert_value("entity.17.r0", 7.0);
    lab.assert_no_value("entity.18.r0");
    assert!(!lab.series_of(2, "entity.18.r0").is_empty());
    assert!(lab.values().iter().any(|value| value.account == 2) && ACCOUNT == 1);
}

#[test]
fn a_value_that_the_backend_refuses_is_named() {
    let (mut lab, _) = lab();
    lab.add(Device::new(17).every(60));
    lab.answer_always("PUT values", Answer::body(400, "Input validation failed: as scripted"));
    lab.next_run();
    lab.run_for_s(30);
    lab.assert_told("entity.17.r0");
    assert!(lab.values().is_empty());
}
