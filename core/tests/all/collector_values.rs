//! Values through the collector: hand-over, delivery, time, stop.

use crate::support::*;
use grafolean_core::api::{Method, Resource};
use grafolean_core::bot::HandOverError;
use grafolean_core::collector::{RequestError, Settings};
use grafolean_core::journal::Event;
use grafolean_core::outbox::{DropReason, OutboxEvent};
use grafolean_core::time::{DateNotice, Millis, UnixMillis};
use grafolean_core::values::Number;

fn hand_over<S: grafolean_core::storage::Storage<TestBot>>(
    sim: &mut Sim<S>,
    path: &str,
    number: impl Number,
) {
    let text = number.number_text().unwrap();
    sim.collector.handle_time(sim.now);
    sim.collector.handle_value(ACCOUNT, None, path, &text).unwrap();
}

fn board() -> Sim<VecStorage> {
    let mut settings = Settings::board(settings().token, "/api");
    settings.wait_until_ready = false;
    let mut sim = Sim::new(TestBot::CONTROLLED, World::small(1), VecStorage::new(), settings);
    sim.unix_at_0 = None;
    sim
}

#[test]
fn values_of_an_account_leave_together_with_their_times_and_the_ledger_is_balanced() {
    let mut sim = host(World::small(1));
    sim.refresh().unwrap();
    sim.asked.clear();
    sim.now = Millis(1_234);
    sim.settle();
    hand_over(&mut sim, "a.b", 1.5);
    sim.now = Millis(1_400);
    hand_over_at(&mut sim);
    sim.until(Millis(3_000));
    let puts: Vec<&Asked> = sim.asked.iter().filter(|a| a.resource == Resource::Values(ACCOUNT)).collect();
    assert_eq!(puts.len(), 1);
    assert_eq!(puts[0].method, Method::Put);
    assert_eq!(
        puts[0].body,
        "[{\"p\":\"a.b\",\"v\":1.5,\"t\":1700000001.234},{\"p\":\"a.c\",\"v\":-7,\"t\":1699999999.000}]"
    );
    let ledger = *sim.collector.ledger();
    assert_eq!((ledger.collected, ledger.delivered, ledger.queued), (2, 2, 0));
    assert!(ledger.balanced());
}

fn hand_over_at(sim: &mut Sim<VecStorage>) {
    let time = Some(UnixMillis(1_699_999_999_000));
    let number = (-7).number_text().unwrap();
    sim.collector.handle_value(ACCOUNT, time, "a.c", &number).unwrap();
}

#[test]
fn a_bad_value_is_refused_at_hand_over_and_was_never_collected() {
    let mut settings = settings();
    settings.max_path_bytes = 10;
    let mut sim = Sim::new(TestBot::CONTROLLED, World::small(1), VecStorage::new(), settings);
    sim.settle();
    let number = 1.number_text().unwrap();
    for path in ["", "a..b", ".a", "a b", "system.x", "a%20b", "\u{fc}", "eleven.char"] {
        let result = sim.collector.handle_value(ACCOUNT, None, path, &number);
        assert!(matches!(result, Err(HandOverError::Value(_))), "{path}");
    }
    assert!(f64::NAN.number_text().is_err());
    assert_eq!(sim.collector.ledger().collected, 0);
    hand_over(&mut sim, "ten.charsx", 1);
    assert_eq!(sim.collector.ledger().collected, 1);
}

#[test]
fn where_put_is_denied_values_go_by_post_and_put_is_tried_again_after_a_refresh() {
    let mut sim = host(World::small(1));
    sim.world.rule = Some(Box::new(|_, a| (a.method == Method::Put).then(|| status(403))));
    sim.refresh().unwrap();
    hand_over(&mut sim, "a.b", 1);
    sim.until(Millis(5_000));
    let methods = |sim: &Sim<VecStorage>| -> Vec<Method> {
        sim.asked.iter().filter(|a| matches!(a.resource, Resource::Values(_))).map(|a| a.method).collect()
    };
    assert_eq!(methods(&sim), [Method::Put, Method::Post]);
    assert_eq!(
        sim.world.arrived,
        [Arrived { account: ACCOUNT, path: "a.b".into(), number: "1".into(), time: None }]
    );
    assert!(sim.events.contains(&Event::Outbox(OutboxEvent::SwitchedToPost { account: ACCOUNT })));
    sim.until(Millis(10_000));
    hand_over(&mut sim, "a.b", 2);
    sim.until(Millis(15_000));
    assert_eq!(methods(&sim), [Method::Put, Method::Post, Method::Post]);
    // Permitted by now.
    sim.world.rule = None;
    sim.until(Millis(130_000));
    hand_over(&mut sim, "a.b", 3);
    sim.until(Millis(140_000));
    assert_eq!(methods(&sim)[3..], [Method::Put]);
    assert!(sim.events.contains(&Event::Outbox(OutboxEvent::BackToPut { account: ACCOUNT })));
    assert_eq!((sim.collector.ledger().delivered, sim.collector.ledger().queued), (3, 0));
}

#[test]
fn a_value_with_a_time_of_its_own_is_not_stamped_falsely_by_a_post() {
    let mut sim = host(World::small(1));
    sim.world.rule = Some(Box::new(|_, a| (a.method == Method::Put).then(|| status(403))));
    sim.refresh().unwrap();
    hand_over(&mut sim, "now", 1);
    let hour_ago = UnixMillis(1_700_000_000_000 - 3_600_000);
    sim.collector.handle_value(ACCOUNT, Some(hour_ago), "then", &2.number_text().unwrap()).unwrap();
    sim.until(Millis(60_000));
    assert_eq!(sim.world.arrived.iter().map(|a| a.path.as_str()).collect::<Vec<_>>(), ["now"]);
    assert_eq!(sim.collector.ledger().dropped_by(DropReason::NoTime), 1);
    assert!(sim.collector.ledger().balanced());
}

#[test]
fn values_survive_an_outage_with_their_times() {
    let mut sim = host(World::small(1));
    sim.refresh().unwrap();
    sim.world.rule = Some(Box::new(|_, _| Some(Reply::NotSent)));
    for i in 0..50u64 {
        sim.until(Millis(1_000 + i * 10_000));
        hand_over(&mut sim, "a.b", i);
    }
    sim.until(Millis(600_000));
    assert_eq!(sim.world.arrived, []);
    assert!(sim.collector.ledger().balanced());
    sim.world.rule = None;
    sim.until(Millis(1_500_000));
    let mut times: Vec<String> = sim.world.arrived.iter().map(|a| a.time.clone().unwrap()).collect();
    times.sort();
    let expected: Vec<String> = (0..50).map(|i| format!("{}.0", 1_700_000_001 + i * 10)).collect();
    assert_eq!(times, expected);
    assert_eq!(sim.collector.ledger().delivered, 50);
}

#[test]
fn a_value_that_the_backend_refuses_is_found_and_named_and_the_others_arrive() {
    let mut sim = host(World::small(1));
    sim.chunk = 3;
    sim.world.rule = Some(Box::new(|_, a| {
        let bad = a.resource == Resource::Values(ACCOUNT) && a.body.contains("\"bad\"");
        let body = b"Input validation failed: bad path".to_vec();
        bad.then_some(Reply::Answer { status: 400, body, retry_after_ms: None })
    }));
    sim.refresh().unwrap();
    for i in 0..20 {
        hand_over(&mut sim, &if i == 13 { "bad".to_owned() } else { format!("good.{i}") }, i);
    }
    sim.until(Millis(60_000));
    let ledger = *sim.collector.ledger();
    assert_eq!((ledger.delivered, ledger.dropped_by(DropReason::Refused), ledger.queued), (19, 1, 0));
    assert!(
        sim.events.iter().any(|e| matches!(e, Event::Outbox(OutboxEvent::ValueRefused { status: 400, .. })))
    );
    assert_eq!(sim.collector.refused_path(), "bad");
}

#[test]
fn a_400_that_is_not_about_values_drops_none() {
    for body in ["Please use HTTPS!", "Input validation succeeded", "Input validation faile", ""] {
        let mut sim = host(World::small(1));
        sim.chunk = 1;
        sim.world.rule = Some(Box::new(move |_, a| {
            let body = body.as_bytes().to_vec();
            (a.method == Method::Put).then_some(Reply::Answer { status: 400, body, retry_after_ms: None })
        }));
        sim.refresh().unwrap();
        hand_over(&mut sim, "a.b", 1);
        sim.until(Millis(60_000));
        assert_eq!(
            (sim.collector.ledger().queued, sim.collector.ledger().dropped_total()),
            (1, 0),
            "{body:?}"
        );
        assert!(sim.events.iter().any(|e| matches!(e, Event::Outbox(OutboxEvent::SetupFault { .. }))));
    }
}

#[test]
fn retry_after_is_honoured() {
    let mut sim = host(World::small(1));
    sim.refresh().unwrap();
    sim.world.rule = Some(Box::new(|_, a| {
        (a.method == Method::Put).then_some(Reply::Answer {
            status: 503,
            body: Vec::new(),
            retry_after_ms: Some(77_000),
        })
    }));
    hand_over(&mut sim, "a.b", 1);
    sim.until(Millis(5_000));
    let puts = |sim: &Sim<VecStorage>| sim.asked.iter().filter(|a| a.method == Method::Put).count();
    assert_eq!(puts(&sim), 1);
    sim.world.rule = None;
    sim.until(Millis(76_000));
    assert_eq!(puts(&sim), 1);
    sim.until(Millis(80_000));
    assert_eq!((puts(&sim), sim.collector.ledger().delivered), (2, 1));
}

// ---- stop ----

#[test]
fn stop_begins_nothing_new_flushes_values_at_once_and_ends_when_runs_and_values_are_done() {
    let mut sim = host(World::small(2));
    sim.quick = false;
    sim.until(Millis(62_000));
    let running = sim.running.clone();
    assert!(!running.is_empty());
    hand_over(&mut sim, "a.b", 1);
    sim.asked.clear();
    sim.collector.stop();
    sim.settle();
    assert_eq!(
        sim.asked.iter().map(|a| a.method).collect::<Vec<_>>(),
        [Method::Put],
        "it waits for no company"
    );
    assert!(!sim.collector.is_finished(), "runs are under way");
    hand_over(&mut sim, "a.b", 2);
    for due in running {
        sim.collector.handle_completed(due.run);
    }
    assert!(!sim.collector.is_finished(), "a value waits");
    sim.settle();
    assert!(sim.collector.is_finished());
    assert_eq!(sim.collector.ledger().delivered, 2);
    let asked = sim.asked.len();
    let runs = sim.running.len();
    sim.now = Millis(1_000_000);
    sim.settle();
    assert_eq!((sim.asked.len(), sim.running.len()), (asked, runs));
}

#[test]
fn stop_in_the_middle_of_a_refresh_sends_no_further_request_of_it() {
    let mut sim = host(World::small(2));
    sim.world.rule = Some(Box::new(|_, a| (a.resource == Resource::Accounts).then_some(Reply::Open)));
    sim.settle();
    let id = sim.open.pop().unwrap();
    sim.collector.stop();
    sim.head(id, 200, None);
    assert!(sim.feed(id, b"{\"list\":[{\"id\":7}]}"));
    sim.collector.handle_response_end(&sim.bot, id);
    sim.settle();
    assert_eq!(sim.resources(), [Resource::Profile, Resource::Accounts]);
    assert!(sim.collector.is_finished());
}

// ---- time ----

#[test]
fn a_board_learns_the_time_from_an_answer_and_values_wait_for_it_and_get_the_times_they_were_taken_at() {
    let mut sim = board();
    let deny = |_: usize, _: &Asked| Some(Reply::NotSent);
    sim.world.rule = Some(Box::new(deny));
    sim.settle();
    for i in 0..3u64 {
        sim.until(Millis(10_000 + i * 1_000));
        hand_over(&mut sim, "t", i);
    }
    assert_eq!(sim.collector.wall(), None);
    // The first answer, whatever its status.
    sim.world.date_unix_s = Some(1_700_000_000);
    sim.world.rule = Some(Box::new(|_, a| (a.resource == Resource::Profile).then(|| status(500))));
    sim.until(Millis(100_000));
    sim.world.rule = None;
    sim.until(Millis(400_000));
    assert!(sim.events.contains(&Event::Clock(DateNotice::Learned)));
    let times: Vec<f64> =
        sim.world.arrived.iter().map(|a| a.time.as_ref().unwrap().parse().unwrap()).collect();
    assert_eq!(times.len(), 3);
    for (i, time) in times.iter().enumerate() {
        let exact = 1_700_000_010.0 + i as f64;
        assert!((time - exact).abs() <= 1.0, "{time} for {exact}");
        assert!((time - times[0] - i as f64).abs() < 1e-6, "distances are kept");
    }
    assert!(sim.collector.ledger().balanced());
}

#[test]
fn a_clock_that_a_slow_answer_set_late_is_put_right_by_the_first_prompt_one() {
    let mut sim = board();
    sim.world.rule = Some(Box::new(|n, _| (n == 0).then_some(Reply::Open)));
    sim.settle();
    sim.until(Millis(1_900));
    // Its head was written at once, and arrives now; the header is cut off to whole seconds of `now`.
    sim.world.date_unix_s = Some(1_700_000_000 - 1);
    let id = sim.open.remove(0);
    sim.head(id, 500, None);
    sim.collector.handle_response_end(&sim.bot, id);
    sim.settle();
    assert!(sim.events.contains(&Event::Clock(DateNotice::Learned)));
    assert_eq!(sim.collector.wall(), Some(UnixMillis(1_700_000_000_500)));
    // Not off by more than the 2 s that a clock is left alone with otherwise.
    sim.world.date_unix_s = Some(1_700_000_000);
    sim.until(Millis(400_000));
    assert!(
        sim.events.iter().any(|e| matches!(e, Event::Clock(DateNotice::Moved(1..2_000)))),
        "{:?}",
        sim.events
    );
    let late_ms = 1_700_000_400_000 - sim.collector.wall().unwrap().0 as i64;
    assert!(late_ms.abs() <= 1_000, "late by {late_ms} ms");
}

#[test]
fn an_answer_that_was_long_under_way_does_not_move_a_boards_clock() {
    let mut sim = board();
    sim.world.date_unix_s = Some(1_700_000_000);
    sim.settle();
    sim.world.rule = Some(Box::new(|_, _| Some(Reply::Open)));
    while sim.open.is_empty() {
        sim.until(sim.now.saturating_add(1_000));
    }
    let sent = sim.now;
    sim.until(sent.saturating_add(40_000));
    // Written when it was asked for.
    sim.world.date_unix_s = Some(1_700_000_000 - 40);
    let id = sim.open.remove(0);
    sim.head(id, 200, None);
    sim.settle();
    assert_eq!(sim.events.iter().filter(|e| matches!(e, Event::Clock(DateNotice::Moved(_)))).count(), 0);
    assert_eq!(sim.collector.wall(), Some(UnixMillis(1_700_000_000_500 + sim.now.0)));
}

#[test]
fn a_correction_of_a_boards_clock_changes_no_time_already_given() {
    let mut sim = board();
    sim.world.date_unix_s = Some(1_700_000_000);
    sim.settle();
    sim.world.rule = Some(Box::new(|_, a| (a.method == Method::Put).then_some(Reply::NotSent)));
    hand_over(&mut sim, "t", 1);
    sim.until(Millis(100_000));
    // The backend's clock turns out to be ahead by a minute.
    sim.world.date_unix_s = Some(1_700_000_060);
    sim.world.rule = None;
    sim.until(Millis(400_000));
    assert!(sim.events.contains(&Event::Clock(DateNotice::Moved(60_000))));
    hand_over(&mut sim, "t", 2);
    sim.until(Millis(410_000));
    let times: Vec<&str> = sim.world.arrived.iter().map(|a| a.time.as_deref().unwrap()).collect();
    assert_eq!(times, ["1700000000.5", "1700000460.5"]);
}

#[test]
fn a_host_uses_its_own_clock_and_says_once_that_it_is_off() {
    let mut sim = host(World::small(1));
    sim.world.date_unix_s = Some(1_700_000_100);
    sim.settle();
    hand_over(&mut sim, "t", 1);
    sim.until(Millis(300_000));
    assert_eq!(sim.world.arrived[0].time.as_deref(), Some("1700000000.0"));
    let told = sim.events.iter().filter(|e| matches!(e, Event::Clock(DateNotice::Skewed(_)))).count();
    assert_eq!(told, 1);
}

#[test]
fn a_hosts_clock_that_is_set_back_changes_no_time_already_given() {
    let mut sim = host(World::small(1));
    sim.world.rule = Some(Box::new(|_, a| (a.method == Method::Put).then_some(Reply::NotSent)));
    sim.settle();
    hand_over(&mut sim, "t", 1);
    sim.unix_at_0 = Some(1_700_000_000_000 - 3_600_000);
    sim.until(Millis(5_000));
    hand_over(&mut sim, "t", 2);
    sim.world.rule = None;
    sim.until(Millis(400_000));
    let mut times: Vec<&str> = sim.world.arrived.iter().map(|a| a.time.as_deref().unwrap()).collect();
    times.sort_unstable();
    assert_eq!(times, ["1699996405.0", "1700000000.0"]);
}

#[test]
fn time_that_goes_back_counts_as_the_last_one() {
    let mut sim = host(World::small(1));
    sim.until(Millis(50_000));
    sim.collector.handle_time(Millis(10));
    assert_eq!(sim.collector.now(), Millis(50_000));
}

#[test]
fn one_request_at_a_time_on_a_board_and_values_have_their_turn_in_a_long_refresh() {
    let mut sim = board();
    sim.world.date_unix_s = Some(1_700_000_000);
    for account in 100..110 {
        sim.world.accounts.insert(account, Lists::default());
    }
    sim.settle();
    sim.asked.clear();
    sim.now = Millis(119_500);
    sim.settle();
    hand_over(&mut sim, "t", 1);
    sim.world.rule = Some(Box::new(|_, a| (a.method == Method::Get).then_some(Reply::Open)));
    sim.now = Millis(120_000);
    let mut turns = 0;
    for _ in 0..100 {
        sim.settle();
        assert!(sim.open.len() <= 1);
        let Some(id) = sim.open.pop() else { break };
        turns += 1;
        sim.head(id, 200, None);
        assert!(sim.feed(id, b"{\"list\":[{\"id\":100},{\"id\":101}]}"));
        sim.collector.handle_response_end(&sim.bot, id);
    }
    assert!(turns > 5);
    let place = sim.asked.iter().position(|a| a.method == Method::Put).unwrap();
    assert!(place <= 2, "{place}");
}

#[test]
fn late_words_about_a_request_that_is_over_are_harmless() {
    let mut sim = host(World::small(1));
    sim.world.rule = Some(Box::new(|_, a| (a.resource == Resource::Profile).then_some(Reply::Open)));
    sim.settle();
    let id = sim.open.pop().unwrap();
    sim.collector.handle_request_error(&sim.bot, id, RequestError::Lost);
    sim.world.rule = None;
    sim.until(Millis(5_000));
    let before = sim.plan();
    sim.head(id, 200, None);
    assert!(!sim.feed(id, b"{\"user_id\":1}"));
    sim.collector.handle_response_end(&sim.bot, id);
    sim.collector.handle_request_error(&sim.bot, id, RequestError::NotSent);
    assert_eq!((sim.collector.request_head(id), sim.collector.request_body(id, 0, &mut [0; 9])), (None, 0));
    assert!(sim.collector.write_target(id, &mut String::new()).is_err());
    sim.settle();
    assert_eq!(sim.plan(), before);
}
