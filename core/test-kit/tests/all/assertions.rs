//! Assertions fail when they should, and say what was there instead; so do misuses of the kit.

use std::task::Poll;

use crate::support;
use crate::support::{Bus, Meter, Wire, lab};
use grafolean_core::bot::{Anything, Bot, Context, JobSink, NewJob};
use grafolean_core::interval::{Interval, Intervals};
use grafolean_core::jobs::Due;
use grafolean_core::outbox::DropReason;
use grafolean_core::time::UnixMillis;
use grafolean_test::backend::Permission;
use grafolean_test::{Answer, Device, Lab, Outcome, Script, Setup};

/// What `call` panics with.
fn message_of(call: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).unwrap_err();
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => (*other.downcast::<&str>().unwrap()).to_string(),
    }
}

/// One device whose register gives 7, and two values of it in the backend.
fn two_values() -> Lab<Meter<Wire>> {
    let (mut lab, _) = lab();
    lab.add(Device::new(17).sensor(r#"{"register": 4}"#, 60).sensor(r#"{"register": 40}"#, 60));
    lab.next_run();
    lab.next_run();
    lab.run_for_s(1);
    lab
}

#[test]
#[should_panic(
    expected = "there is no value of entity.17.r5; the nearest of 2 paths: entity.17.r4, entity.17.r40"
)]
fn a_missing_value_names_the_paths_that_are_near() {
    two_values().assert_value("entity.17.r5", 7.0);
}

#[test]
fn an_assertion_before_values_have_arrived_says_that_they_wait_and_for_how_long() {
    let (mut lab, _) = lab();
    lab.add(Device::new(17).every(60));
    lab.next_run();
    let hint = "; 1 wait to be sent: values travel together, go on for a second (run_for_s(1))";
    let message = message_of(|| lab.assert_value("entity.17.r0", 7.0));
    assert!(message.contains(", nor of any other path of account 1; 1 values were handed over"), "{message}");
    assert!(message.ends_with(hint), "{message}");
    assert!(message_of(|| lab.assert_series("entity.17.r0", &[7.0])).ends_with(hint));
    lab.run_for_s(1);
    lab.assert_value("entity.17.r0", 7.0);
    assert!(!message_of(|| lab.assert_value("entity.17.r0", 8.0)).contains("wait to be sent"));
    lab.next_run();
    assert!(message_of(|| lab.assert_value("entity.17.r0", 8.0)).ends_with(hint));
    assert!(message_of(|| lab.assert_value("entity.17.r1", 8.0)).ends_with(hint));
    assert!(message_of(|| lab.assert_series("entity.17.r0", &[7.0, 7.0])).ends_with(hint));
}

#[test]
#[should_panic(expected = "entity.17.r4 is 7, not 8; all of it: [(")]
fn another_value_is_shown() {
    two_values().assert_value("entity.17.r4", 8.0);
}

#[test]
fn a_series_must_have_all_numbers_in_order_and_no_others() {
    let lab = two_values();
    lab.assert_series("entity.17.r4", &[7.0, 7.0]);
    lab.assert_series("entity.17.r99", &[]);
    for numbers in [&[7.0][..], &[7.0, 7.0, 7.0], &[7.0, 8.0], &[]] {
        let message = message_of(|| lab.assert_series("entity.17.r4", numbers));
        assert!(message.contains("entity.17.r4 has [(") && message.contains("7.0)]"), "{message}");
    }
    assert!(message_of(|| lab.assert_series("entity.17.r99", &[1.0])).contains("the nearest of 2 paths"));
}

#[test]
#[should_panic(expected = "entity.17.r4 has values: [(")]
fn a_value_that_should_not_be_there_is_shown() {
    two_values().assert_no_value("entity.17.r4");
}

#[test]
fn runs_that_did_not_end_well_are_shown_by_job_and_reason() {
    let wire = Wire::new();
    wire.then(20, Ok(1)).then(5, Err("checksum")).then_hang().then_hang();
    let mut lab = Lab::new(Meter(wire));
    lab.add(Device::new(17).every(60));
    assert!(message_of(|| lab.assert_all_done()).starts_with("no run has ended\nAfter 0 ms: 0 jobs"));
    assert!(message_of(|| lab.assert_last_run_failed("checksum")).starts_with("no run has ended"));
    lab.next_run();
    lab.assert_all_done();
    let message = message_of(|| lab.assert_last_run_failed("checksum"));
    assert!(
        message.starts_with("the last run has not failed by \"checksum\": ") && message.ends_with("done")
    );
    lab.next_run();
    lab.assert_last_run_failed("check");
    assert!(message_of(|| lab.assert_last_run_failed("timeout")).ends_with("failed: checksum"));
    lab.next_run();
    let message = message_of(|| lab.assert_all_done());
    assert!(message.starts_with("2 of "), "{message}");
    assert!(message.contains("account 1, entity 17, 0 values, 5 ms, failed: checksum"), "{message}");
    assert!(message.contains("60000 ms, cancelled at its deadline"), "{message}");
    assert!(message_of(|| lab.assert_no_warnings()).starts_with("there were 1 warnings:\n"));
}

#[test]
fn runs_that_failed_are_worth_a_warning() {
    let mut lab = Lab::new(Meter(Wire::always(5, Err("checksum"))));
    lab.add(Device::new(17).every(60));
    lab.run_for_s(300);
    assert!(!lab.runs().is_empty() && lab.runs().iter().all(|run| run.outcome != Outcome::Done));
    let message = message_of(|| lab.assert_no_warnings());
    assert!(message.starts_with("there were 0 warnings: none\nand "), "{message}");
    assert!(message.ends_with("5 ms, failed: checksum"), "{message}");
}

#[test]
fn what_was_told_is_shown_where_something_else_was_expected() {
    let (mut lab, _) = lab();
    lab.add(Device::new(17).details(r#"{"broken": true}"#).every(60));
    lab.refresh();
    lab.assert_told("it is broken");
    let message = message_of(|| lab.assert_told("it is stolen"));
    assert!(
        message.contains("nobody has told \"it is stolen\"") && message.contains("entity 17: it is broken")
    );
    let message = message_of(|| lab.assert_no_warnings());
    assert!(message.contains("0 ms: account 1, entity 17: it is broken"), "{message}");
}

#[test]
fn values_that_wait_or_were_refused_are_not_delivered() {
    let (mut lab, _) = lab();
    lab.add(Device::new(17).every(60));
    lab.next_run();
    let message = message_of(|| lab.assert_delivered());
    assert!(message.starts_with("entity.17.r0=7 of ") && message.contains("queued 1"), "{message}");
    lab.run_for_s(1);
    lab.assert_delivered();
    lab.outage_s(0..1000);
    lab.next_run();
    let message = message_of(|| lab.assert_delivered());
    assert!(
        message.contains("nor are 0 more of 2 values; it has of this path, in ms:\n")
            && message.contains("delivered 1 + queued 1"),
        "{message}"
    );
}

#[test]
fn values_that_the_backend_only_says_to_have_are_not_delivered() {
    for lost in [1, 2] {
        let (mut lab, _) = lab();
        lab.add(Device::new(17).every(60));
        for n in 1..=2 {
            // The same number both times: the other one must not stand for it.
            if n == lost {
                lab.answer_next("PUT values", Answer::body(204, ""));
            }
            lab.next_run();
            lab.run_for_s(1);
        }
        assert_eq!((lab.ledger().delivered, lab.values().len()), (2, 1));
        let message = message_of(|| lab.assert_delivered());
        let missing = lab.handed_over()[lost - 1].at_ms;
        let stored = lab.handed_over()[2 - lost].at_ms;
        assert!(message.starts_with(&format!("entity.17.r0=7 of {missing} ms is not in")), "{message}");
        assert!(
            message.contains(&format!("\n  {stored}=7\n")) && message.contains("delivered 2"),
            "{message}"
        );
    }
}

/// Stores what the bot sends next with times that are this many milliseconds later, or with this number instead.
fn store_otherwise(lab: &mut Lab<Meter<Wire>>, shift_ms: i64, number: i64) {
    lab.answer_next("PUT values", Answer::body(204, ""));
    lab.run_for_s(1);
    let handed = lab.handed_over().pop().unwrap();
    let unix_ms = 1_767_225_600_000 + i64::try_from(handed.at_ms).unwrap() + shift_ms;
    let time = format!("{}.{:03}", unix_ms / 1000, unix_ms % 1000);
    let body = format!("[{{\"p\": \"{}\", \"v\": {number}, \"t\": {time}}}]", handed.path);
    let target = "/api/accounts/1/values/?b=3bfae491-8c49-42ca-8332-0ae431d59014";
    let request = grafolean_test::backend::Request::json("PUT", target, body);
    assert_eq!(lab.backend().answer(&request, 0).status, 204);
}

#[test]
fn values_with_another_time_or_number_are_not_delivered() {
    for (shift_ms, number, delivered) in [(0, 7, true), (1, 7, false), (-3_600_000, 7, false), (0, 8, false)]
    {
        let (mut lab, _) = lab();
        lab.add(Device::new(17).every(60));
        lab.next_run();
        store_otherwise(&mut lab, shift_ms, number);
        assert_eq!((lab.values().len(), lab.values()[0].number), (1, number as f64));
        if delivered {
            lab.assert_delivered();
        } else {
            assert!(message_of(|| lab.assert_delivered()).contains("is not in the backend"));
        }
    }
}

#[test]
fn a_boards_values_may_be_off_by_a_second_and_no_more() {
    for (shift_ms, delivered) in [(0, true), (1000, true), (-1000, true), (1001, false), (-1001, false)] {
        let mut lab = Setup::board().lab(|_| Meter(Wire::always(20, Ok(7))));
        lab.add(Device::new(17).every(60));
        lab.next_run();
        store_otherwise(&mut lab, shift_ms, 7);
        assert_eq!(lab.handed_over()[0].time_ms, None);
        let message = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lab.assert_delivered()));
        assert_eq!(message.is_ok(), delivered, "{shift_ms}");
    }
}

#[test]
fn a_lab_without_values_has_delivered_nothing() {
    let (mut lab, _) = lab();
    lab.refresh();
    assert!(
        message_of(|| lab.assert_delivered()).starts_with("no value was handed over\nAfter 0 ms: 0 jobs")
    );
    lab.assert_nothing_handed_over();
    lab.add(Device::new(17).every(60));
    lab.refresh();
    lab.next_run();
    let message = message_of(|| lab.assert_nothing_handed_over());
    assert_eq!(message, "1 values were handed over:\n  entity.17.r0=7");
}

/// Hands over one path with several times, and one twice at the same instant.
struct Log;

impl Bot for Log {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = ();
    type Error = &'static str;

    fn protocol(&self) -> Option<&str> {
        None
    }

    fn own_jobs(&self, _: u64, jobs: &mut dyn JobSink<()>) {
        jobs.add(NewJob::new(Intervals::one(Interval::new(60).unwrap()), ()));
    }

    async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, cx: &mut C) -> Result<(), &'static str> {
        for n in 0..3u32 {
            let time = UnixMillis(1_767_225_600_000 - 5_000 + u64::from(n) * 10);
            cx.value_at(time, "log.line", 4u32).map_err(|_| "line")?;
            cx.value("log.lines", n).map_err(|_| "lines")?;
        }
        Ok(())
    }
}

#[test]
fn values_with_times_of_their_own_are_delivered_each_and_the_last_of_an_instant_stands_for_it() {
    let mut lab = Lab::new(Log);
    lab.next_run();
    lab.run_for_s(1);
    let times: Vec<_> = lab.handed_over().iter().map(|v| v.time_ms.unwrap()).collect();
    let now = i64::try_from(lab.handed_over()[0].at_ms).unwrap();
    assert_eq!(times, [-5_000, now, -4_990, now, -4_980, now]);
    assert_eq!(lab.values().len(), 4);
    assert_eq!(lab.ledger().dropped_by(DropReason::Superseded), 2);
    lab.assert_delivered();
}

#[test]
fn values_that_were_dropped_are_not_delivered_and_their_reason_is_named() {
    let mut lab =
        Setup::host().settings(|s| s.outbox.max_age_ms = 60_000).lab(|_| Meter(Wire::always(0, Ok(7))));
    lab.add(Device::new(17).every(60));
    lab.refresh();
    lab.outage_s(0..300);
    lab.run_until_s(600);
    assert_eq!(lab.ledger().queued, 0);
    let message = message_of(|| lab.assert_delivered());
    assert!(message.contains("(too_old "), "{message}");
}

#[test]
fn values_with_the_backends_time_are_delivered_if_each_came_with_a_post_after_it() {
    let posts = || {
        let (mut lab, _) = lab();
        lab.add(Device::new(17).every(60));
        lab.refresh();
        lab.permissions([
            Permission::new("accounts/1/values", Some(&["POST"])),
            Permission::new("accounts/1", Some(&["GET"])),
        ]);
        lab.latency_ms(100);
        lab
    };
    let mut lab = posts();
    lab.run_for_s(600);
    assert!(lab.values().len() > 8);
    lab.assert_delivered();
    let mut lab = posts();
    lab.next_run();
    lab.run_for_s(5);
    lab.answer_next("POST values", Answer::body(204, ""));
    lab.next_run();
    lab.run_for_s(5);
    assert_eq!((lab.values().len(), lab.ledger().delivered), (1, 2));
    assert!(message_of(|| lab.assert_delivered()).contains("is not in the backend, nor are 0 more of 2"));
}

#[test]
#[should_panic(expected = "what was waited for has not come within 100 s\nAfter 100000 ms: 1 jobs; runs: ")]
fn a_wait_for_what_does_not_come_ends_with_a_report() {
    let (mut lab, _) = lab();
    lab.add(Device::new(17).every(60));
    lab.run_until(100, |lab| lab.value("entity.17.r1").is_some());
}

#[test]
#[should_panic(expected = "no run has ended within two days\nAfter 172800000 ms: 0 jobs")]
fn a_run_of_a_bot_without_jobs_does_not_come() {
    lab().0.next_run();
}

#[test]
#[should_panic(expected = "the refresh failed: the backend answered 401")]
fn a_refresh_that_must_not_fail_says_why_it_did() {
    let (mut lab, _) = lab();
    lab.answer_always("profile", Answer::status(401));
    lab.refresh();
}

#[test]
fn a_script_that_has_no_answer_says_how_often_it_was_asked() {
    let wire = Wire::new();
    wire.then(0, Ok(1)).then(0, Ok(2));
    let mut lab = Lab::new(Meter(wire));
    lab.add(Device::new(17).every(10));
    let message = message_of(|| lab.run_for_s(100));
    assert!(message.starts_with("the device of core/test-kit/tests/all/assertions.rs:"), "{message}");
    assert!(message.ends_with(" was asked 3 times, its script has 2 answers"), "{message}");
}

#[test]
fn a_script_that_was_not_asked_for_all_of_it_says_what_is_left_and_where_it_was_made() {
    let (script, line): (Script<u32, u32>, u32) = (Script::new(), line!());
    script.assert_used_up();
    script.then(0, 1).then(0, 2).then_hang();
    script.ask_now(1);
    let message = message_of(|| script.assert_used_up());
    assert!(message.contains(&format!("tests/all/assertions.rs:{line}:")), "{message}");
    assert!(message.ends_with(" was asked 1 times, 2 answers of its script were not asked for"), "{message}");
    script.ask_now(2);
    message_of(|| _ = script.ask_now(3));
    script.assert_used_up();
}

#[test]
fn a_script_answers_in_order_then_by_its_rule_and_remembers_its_questions() {
    let script: Script<u32, u32> = Script::new();
    script.then(5, 100).otherwise(|question| (0, question + 1));
    assert_eq!([script.ask_now(1), script.ask_now(2), script.ask_now(3)], [100, 3, 4]);
    assert_eq!(script.asked(), [(0, 1), (0, 2), (0, 3)]);
    script.then_hang();
    assert!(message_of(|| _ = script.ask_now(4)).contains("a call that cannot wait"));
    let mut outside = Box::pin(script.ask(5));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let message = message_of(|| _ = outside.as_mut().poll(&mut cx));
    assert!(message.contains("outside of a lab's run"), "{message}");
}

#[test]
fn misbehaviour_that_can_match_no_request_is_refused() {
    let (mut lab, _) = lab();
    for (which, why) in [
        ("Put values", "\"Put values\" matches no request: methods are in capitals, PUT"),
        ("post", "\"post\" matches no request: methods are in capitals, POST"),
        ("PUTT values", "\"PUTT values\" matches no request: a collector uses GET, POST, PUT, DELETE only"),
        ("values PUT", "\"values PUT\" matches no request: there are no spaces in a path"),
    ] {
        assert_eq!(message_of(|| lab.answer_always(which, Answer::Lost)), why);
        assert_eq!(message_of(|| lab.answer_next(which, Answer::Lost)), why);
        assert_eq!(message_of(|| _ = lab.requests_of(which)), why);
    }
    lab.run_until_s(100);
    #[allow(clippy::reversed_empty_ranges, reason = "it is what a test may have by mistake")]
    for (seconds, why) in [
        (200..150, "an outage of 200..150 s ends before it begins"),
        (200..200, "an outage of 200..200 s ends before it begins"),
        (50..100, "an outage of 50..100 s since the start has passed: it is 100000 ms now"),
    ] {
        assert_eq!(message_of(|| lab.outage_s(seconds)), why);
    }
    lab.outage_s(50..101);
}

#[test]
fn misbehaviour_that_has_not_happened_is_told() {
    let (mut lab, _) = lab();
    lab.assert_all_answered();
    lab.add(Device::new(17).every(60));
    lab.answer_always("PUT valuse", Answer::Lost);
    lab.answer_next("PUT values", Answer::Lost);
    lab.outage_s(100_000..100_001);
    lab.refresh();
    let all = "\n  answer_always(\"PUT valuse\", ..)\n  answer_next(\"PUT values\", ..)\n  outage_s(100000..100001)\n";
    let message = message_of(|| lab.assert_all_answered());
    assert!(message.starts_with(&format!("there was no request for:{all}but for:\n  GET ")), "{message}");
    assert!(lab.report().contains(&format!("Scripted and not happened:{all}")));
    lab.next_run();
    lab.run_for_s(10);
    // What was taken back counts, too.
    lab.answer_as_usual();
    lab.answer_always("PUT values", Answer::Lost);
    let message = message_of(|| lab.assert_all_answered());
    assert!(message.contains("valuse") && message.contains("(\"PUT values\"") && message.contains("outage"));
    assert!(!message.contains("answer_next"), "{message}");

    let (mut lab, _) = support::lab();
    lab.add(Device::new(17).every(60));
    lab.answer_always("PUT values", Answer::status(500));
    lab.answer_next("GET profile", Answer::status(500));
    lab.outage_s(90..160);
    lab.run_for_s(200);
    lab.assert_all_answered();
    assert!(!lab.report().contains("Scripted"));
    lab.answer_as_usual();
    lab.assert_all_answered();
}

#[test]
fn a_device_of_a_bot_without_protocol_must_not_have_credential_or_sensors() {
    let mut lab = Lab::new(Log);
    let credential = Device::new(3).credential(r#"{"community": "x"}"#);
    for device in [credential, Device::new(3).credential_id(1), Device::new(3).every(60)] {
        let message = message_of(|| _ = lab.add(device));
        assert!(
            message.starts_with("device 3 has a credential or sensors, which are of a protocol: "),
            "{message}"
        );
    }
    lab.add(Device::new(3));
    lab.add(Device::new(4).credential("{}").every(60).protocol("snmp"));
    assert_eq!(lab.entities().len(), 2);
}

/// A custom bot with one job that never waits for something, each in its way.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Restless {
    Yields,
    SleepsZero,
    Retries,
    WatchesTheClock,
    AsksAtOnce,
}

impl Bot for Restless {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = ();
    type Error = &'static str;

    fn protocol(&self) -> Option<&str> {
        None
    }

    fn own_jobs(&self, _: u64, jobs: &mut dyn JobSink<()>) {
        jobs.add(NewJob::new(Intervals::one(Interval::new(60).unwrap()), ()).named("rush"));
    }

    async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, cx: &mut C) -> Result<(), &'static str> {
        let dead: Script<(), Result<(), ()>> = Script::always(0, Err(()));
        let began = cx.now();
        loop {
            match self {
                Restless::Yields => {
                    let mut gave_way = false;
                    std::future::poll_fn(|cx| {
                        cx.waker().wake_by_ref();
                        if std::mem::replace(&mut gave_way, true) { Poll::Ready(()) } else { Poll::Pending }
                    })
                    .await;
                }
                Restless::SleepsZero => cx.sleep_ms(0).await,
                Restless::Retries if dead.ask(()).await.is_ok() => return Ok(()),
                Restless::WatchesTheClock if cx.now() > began => return Ok(()),
                Restless::AsksAtOnce if dead.ask_now(()).is_ok() => return Ok(()),
                _ => {}
            }
        }
    }
}

#[test]
fn a_run_that_goes_on_without_waiting_is_noticed_and_named() {
    for (how, why) in [
        (Restless::Yields, "it never comes to rest: "),
        (Restless::SleepsZero, "it never comes to rest: "),
        (Restless::Retries, "it never comes to rest: "),
        (Restless::WatchesTheClock, "without waiting: 1000000 calls at once at "),
        (Restless::AsksAtOnce, "without waiting: 1000000 calls at once at "),
    ] {
        let message = message_of(|| _ = Lab::new(how).next_run());
        assert!(message.contains(why), "{how:?}: {message}");
        assert!(
            message.contains("The job of account 1, \"rush\" was polled 100000 times at ")
                || message.starts_with("the job of account 1, \"rush\" goes on"),
            "{how:?}: {message}"
        );
    }
}

#[test]
fn a_wait_of_no_time_takes_none_and_lets_others_go_on() {
    let wire = Wire::always(0, Ok(7));
    let mut lab = Lab::new(Meter(wire));
    lab.add(Device::new(17).every(60));
    assert_eq!(lab.next_run().took_ms, Some(0));
    let mut sleep = Box::pin(lab.clock().sleep_ms(0));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert_eq!(sleep.as_mut().poll(&mut cx), Poll::Pending);
    assert_eq!(sleep.as_mut().poll(&mut cx), Poll::Ready(()));
}

/// Its answers come from a thread.
struct Threaded;

impl Bus for Threaded {
    async fn read(&self, _: u64, _: u16) -> Result<i64, &'static str> {
        let mut answered = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut answered, true) {
                return Poll::Ready(Ok(7));
            }
            let waker = cx.waker().clone();
            std::thread::spawn(move || waker.wake()).join().unwrap();
            Poll::Pending
        })
        .await
    }
}

#[test]
fn a_run_that_another_thread_wakes_is_named_with_the_reason_why_that_cannot_work() {
    let mut lab = Lab::new(Meter(Threaded));
    lab.add(Device::new(17).every(60));
    let message = message_of(|| _ = lab.next_run());
    assert!(
        message.starts_with("the job of account 1, entity 17 was woken by another thread: "),
        "{message}"
    );
    assert!(lab.report().contains("woken by another thread"));
}

/// Waits for a thing that nobody ever wakes.
struct Deaf;

impl Bus for Deaf {
    async fn read(&self, _: u64, _: u16) -> Result<i64, &'static str> {
        std::future::pending().await
    }
}

#[test]
fn a_run_that_nobody_wakes_does_not_hold_up_the_lab() {
    let mut lab = Lab::new(Meter(Deaf));
    lab.add(Device::new(17).every(60));
    lab.run_for_s(3600);
    assert!(lab.runs().len() > 50);
    lab.assert_told("cancelled");
}

#[test]
fn configuration_that_no_backend_has_is_refused_with_the_reason() {
    let (mut lab, _) = lab();
    let cases: [(Device, &str); 5] = [
        (Device::new(1).details("{"), "details of a device are no JSON"),
        (Device::new(1).details("[1]"), "`details` must be an object"),
        (Device::new(1).credential("x"), "details of a credential are no JSON"),
        (Device::new(1).sensor_id(99, 60), "there is no sensor 99"),
        (Device::new(1 << 31), "id 2147483648 is over the backend's limit of 2147483647"),
    ];
    for (device, why) in cases {
        let message = message_of(|| _ = lab.add(device));
        assert!(message.contains(why), "{message}");
    }
    lab.add(Device::new(5));
    assert!(message_of(|| drop(lab.entity(6))).contains("the backend has no entity 6; it has [5]"));
    assert!(message_of(|| lab.remove(6)).contains("the backend has no entity 6"));
    assert!(message_of(|| lab.set_details(5, "{}}")).contains("no JSON"));
}

#[test]
fn debug_output_shows_no_credentials() {
    let (mut lab, _) = lab();
    let device = Device::new(17).credential(r#"{"community": "hush"}"#).every(60);
    let mut shown = format!("{device:?}");
    lab.add(device);
    lab.refresh();
    shown.push_str(&format!("{lab:?} {:?} {:?}", lab.requests(), lab.events()));
    shown.push_str(&lab.report());
    assert!(!shown.contains("hush") && !shown.contains("3bfae491"), "{shown}");
}
