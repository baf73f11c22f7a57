//! Each rule of the outbox by itself.

use super::rig::{Batch, Rig, UNIX0};
use grafolean_core::outbox::{
    Cell, DeliveryMethod, DropReason, Method, OutboxEvent, Outcome, PushError, Settings, ValueTime,
};
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::{MAX_PATH_BYTES, Number, ValuePath};

fn rig() -> Rig {
    Rig::new(Settings::DEFAULT, 4096, 4)
}

/// Answers 400 if one of `bad` is in the batch, else 204; whether it was refused.
fn judge(rig: &mut Rig, batch: &Batch, bad: &[&str]) -> bool {
    let refused = batch.values.iter().any(|v| bad.contains(&v.path.as_str()));
    if refused {
        rig.refuse()
    } else {
        rig.answer(204)
    }
    refused
}

// ---- leaving (V3)

#[test]
fn values_of_an_account_share_a_request_after_the_linger_in_the_order_of_hand_over() {
    let mut rig = rig();
    rig.push(7, "a", 1);
    rig.now = 200;
    rig.push(7, "b.c", -2);
    assert_eq!(rig.outbox.poll_timeout(), Some(Millis(500)));
    rig.now = 499;
    assert_eq!(rig.poll(), None);
    rig.now = 500;
    let batch = rig.poll().unwrap();
    assert_eq!(batch.body, r#"[{"p":"a","v":1,"t":1700000000.000},{"p":"b.c","v":-2,"t":1700000000.200}]"#);
    assert_eq!((batch.account, batch.method), (7, Method::Put));
    assert_eq!(rig.outbox.poll_timeout(), None, "one request at a time");
    assert_eq!(rig.poll(), None);
    rig.answer(204);
    assert_eq!(rig.ledger().delivered, 2);
    assert!(rig.outbox.is_idle());
    assert_eq!(rig.outbox.poll(&mut no_mem(), Millis(9_000)), None);
}

fn no_mem() -> grafolean_core::outbox::OutboxMem<'static> {
    grafolean_core::outbox::OutboxMem {
        cells: &mut [],
        index: &mut [],
        accounts: &mut [],
        records: &mut [],
        left: &mut [],
    }
}

#[test]
fn a_batch_leaves_at_once_when_it_is_full_by_count() {
    let mut rig = Rig::new(Settings { max_values: 3, ..Settings::DEFAULT }, 64, 1);
    for k in 0..4 {
        rig.push(1, &format!("p{k}"), k);
    }
    assert_eq!(rig.outbox.poll_timeout(), Some(Millis(0)));
    assert_eq!(rig.poll().unwrap().paths(), ["p0", "p1", "p2"]);
    rig.answer(204);
    assert_eq!(rig.poll(), None, "the rest lingers");
    rig.now = 500;
    assert_eq!(rig.poll().unwrap().paths(), ["p3"]);
}

#[test]
fn a_batch_leaves_at_once_when_it_is_full_by_bytes_and_its_body_keeps_the_limit() {
    let mut rig = Rig::new(Settings { max_body_bytes: 100, ..Settings::DEFAULT }, 64, 1);
    for k in 0..3 {
        rig.push(1, &format!("p{k}"), k);
    }
    let batch = rig.poll().unwrap();
    assert_eq!(batch.values.len(), 2);
    assert!(batch.body.len() <= 100);
}

#[test]
fn the_linger_is_at_most_a_second() {
    let mut rig = Rig::new(Settings { linger_ms: 60_000, ..Settings::DEFAULT }, 64, 1);
    rig.push(1, "a", 1);
    assert_eq!(rig.outbox.poll_timeout(), Some(Millis(1000)));
}

#[test]
fn accounts_take_turns() {
    let mut rig = Rig::new(Settings { max_values: 2, ..Settings::DEFAULT }, 256, 3);
    for k in 0..6 {
        for account in [10, 20, 30] {
            rig.push(account, &format!("p{k}"), k);
        }
    }
    rig.now = 500;
    let mut order = Vec::new();
    while let Some(batch) = rig.poll() {
        order.push(batch.account);
        rig.answer(204);
    }
    assert_eq!(order, [10, 20, 30, 10, 20, 30, 10, 20, 30]);
}

#[test]
fn a_body_can_be_read_from_any_offset_in_any_pieces() {
    let mut rig = rig();
    for k in 0..20 {
        rig.push(1, &format!("entity.{k}.{}", "x".repeat(k as usize * 9 + 1)), k * 1_000_003);
    }
    rig.now = 500;
    let body = rig.poll().unwrap().body.into_bytes();
    for piece in [1, 2, 7, 44, 1000, 10_000] {
        assert_eq!(rig.read(0, piece), body);
    }
    for offset in (0..=body.len()).rev() {
        assert_eq!(rig.read(offset, 61), &body[offset..], "from {offset}");
    }
    assert_eq!(rig.read(body.len() + 5, 8), b"");
}

// ---- the same path twice (V2)

#[test]
fn the_later_of_two_values_with_the_same_path_and_millisecond_wins() {
    let mut rig = rig();
    rig.push(1, "a", 1);
    rig.push(1, "b", 2);
    rig.push(2, "a", 3);
    rig.push(1, "a", 4);
    assert_eq!(rig.dropped(DropReason::Superseded), 1);
    rig.now = 500;
    let batch = rig.poll().unwrap();
    assert_eq!(batch.values.iter().map(|v| v.number).collect::<Vec<_>>(), [2, 4]);
}

#[test]
fn a_value_in_flight_is_followed_by_its_successor() {
    let mut rig = rig();
    let time = ValueTime::Unix(UnixMillis(UNIX0));
    rig.push_at(1, time, "a", 1).unwrap();
    rig.now = 500;
    assert_eq!(rig.poll().unwrap().values[0].number, 1);
    rig.push_at(1, time, "a", 2).unwrap();
    rig.answer(204);
    assert_eq!(rig.next().unwrap().values[0].number, 2);
    rig.answer(204);
    assert_eq!((rig.ledger().delivered, rig.dropped(DropReason::Superseded)), (2, 0));
}

#[test]
fn a_value_that_failed_in_flight_gives_way_to_its_successor() {
    let mut rig = rig();
    let time = ValueTime::Unix(UnixMillis(UNIX0));
    rig.push_at(1, time, "a", 1).unwrap();
    rig.push_at(1, time, "b", 3).unwrap();
    rig.now = 500;
    rig.poll().unwrap();
    rig.push_at(1, time, "a", 2).unwrap();
    rig.answer(503);
    assert_eq!(rig.dropped(DropReason::Superseded), 1);
    let mut numbers = Vec::new();
    while let Some(batch) = rig.next() {
        numbers.extend(batch.values.iter().map(|v| v.number));
        rig.answer(204);
    }
    assert_eq!(numbers, [2, 3]);
}

// ---- failures that keep (V6)

#[test]
fn failing_answers_keep_the_values_and_back_off_that_account_only() {
    for code in [301, 401, 404, 408, 418, 429, 500, 502, 503, 504] {
        let mut rig = rig();
        rig.push(1, "a", 1);
        rig.push(2, "b", 2);
        rig.now = 500;
        assert_eq!(rig.poll().unwrap().account, 1);
        rig.answer(code);
        assert_eq!(rig.ledger().queued, 2, "{code}");
        assert_eq!(rig.poll().unwrap().account, 2, "{code}: the other account goes on");
        rig.answer(204);
        assert_eq!(rig.poll(), None);
        let next = rig.next().unwrap();
        assert!((1500..=2500).contains(&rig.now), "{code}: next try at {} ms", rig.now);
        assert_eq!(next.values[0].unix_ms, Some(UNIX0), "{code}: with its time");
        rig.answer(204);
        assert_eq!(rig.ledger().delivered, 2, "{code}");
        let events = rig.events();
        assert_eq!(events.len(), 2, "{code}: {events:?}");
        assert_eq!(events[1], OutboxEvent::Recovered { account: 1 });
    }
}

#[test]
fn waits_grow_up_to_five_minutes_and_a_fault_is_told_once() {
    let mut rig = rig();
    rig.push(1, "a", 1);
    let mut longest = 0;
    for _ in 0..40 {
        let before = rig.now;
        rig.next().unwrap();
        longest = longest.max(rig.now - before);
        rig.answer(503);
    }
    assert!((150_000..=300_000).contains(&longest), "{longest} ms");
    assert_eq!(rig.events().len(), 1);
}

#[test]
fn retry_after_is_honoured() {
    let mut rig = rig();
    rig.push(1, "a", 1);
    rig.next().unwrap();
    rig.outcome(Outcome::Status { code: 429, validation_failed: false, retry_after_ms: Some(90_000) });
    rig.next().unwrap();
    assert!(rig.now >= 90_500, "{}", rig.now);
}

#[test]
fn a_broken_connection_backs_off_all_accounts_and_one_request_probes() {
    for outcome in [Outcome::NotSent, Outcome::Lost] {
        let mut rig = rig();
        rig.push(1, "a", 1);
        rig.push(2, "b", 2);
        rig.next().unwrap();
        rig.outcome(outcome);
        assert_eq!(rig.poll(), None, "{outcome:?}");
        assert!(rig.outbox.poll_timeout().unwrap() >= Millis(1500));
        assert_eq!(rig.next().unwrap().account, 2, "live ones first");
        assert_eq!(rig.poll(), None);
        rig.answer(204);
        assert_eq!(rig.poll().unwrap().account, 1, "then the others, without a wait");
        rig.answer(204);
        assert_eq!(rig.ledger().delivered, 2);
        let events = rig.events();
        assert!(matches!(events[..], [OutboxEvent::LinkDown { .. }, OutboxEvent::LinkUp]), "{events:?}");
    }
}

#[test]
fn another_request_that_succeeds_ends_the_wait_for_the_connection() {
    let mut rig = rig();
    rig.push(1, "a", 1);
    rig.next().unwrap();
    for _ in 0..8 {
        rig.outcome(Outcome::NotSent);
        rig.next().unwrap();
    }
    rig.outcome(Outcome::NotSent);
    let waits_until =
        rig.outbox.poll_timeout().map(|_| rig.poll()).and_then(|_| rig.outbox.poll_timeout()).unwrap();
    assert!(waits_until >= Millis(rig.now + 1000));
    let before = rig.now;
    rig.outbox.note_other_success();
    rig.next().unwrap();
    assert_eq!(rig.now, before + 100, "only the pause of kept values is left");
}

#[test]
fn after_an_outage_live_values_go_first_and_old_ones_with_pauses_after_them() {
    let mut rig = Rig::new(Settings { max_values: 2, ..Settings::DEFAULT }, 256, 1);
    for k in 0..4 {
        rig.push(1, &format!("old{k}"), k);
    }
    for _ in 0..2 {
        rig.next().unwrap();
        rig.answer(503);
    }
    rig.now += 300_000;
    rig.push(1, "new", 9);
    rig.now += 500;
    assert_eq!(rig.poll().unwrap().paths(), ["new"]);
    rig.answer(204);
    assert_eq!(rig.poll().unwrap().paths(), ["old0", "old1"]);
    rig.answer(204);
    let before = rig.now;
    assert_eq!(rig.next().unwrap().paths(), ["old2", "old3"]);
    assert_eq!(rig.now, before + 100);
}

#[test]
fn old_values_get_a_turn_after_eight_requests_of_live_ones_that_never_cease() {
    let mut rig = rig();
    rig.push(1, "old", 0);
    rig.next().unwrap();
    rig.answer(503);
    rig.now += 300_000;
    let mut seen = Vec::new();
    for k in 1..=12 {
        // On a slow link there is another one whenever a request has ended.
        rig.push(2, &format!("live{k}"), k);
        rig.now += 500;
        seen.push(rig.poll().unwrap().paths().join(" "));
        rig.answer(204);
    }
    // Its own first try was a live one, too.
    assert_eq!(seen.iter().position(|paths| paths == "old"), Some(7), "{seen:?}");
    // What waited meanwhile goes with the next.
    assert_eq!(seen.get(8).map(String::as_str), Some("live8 live9"));
}

#[test]
fn a_400_that_names_no_value_is_a_fault_of_set_up() {
    let mut rig = rig();
    rig.push(1, "a", 1);
    rig.push(1, "b", 1);
    for _ in 0..3 {
        assert_eq!(rig.next().unwrap().values.len(), 2, "nothing is halved");
        rig.answer(400);
    }
    assert_eq!(rig.events(), [OutboxEvent::SetupFault { account: 1, status: 400 }]);
    assert_eq!(rig.ledger().queued, 2);
}

#[test]
fn a_spurious_outcome_does_nothing() {
    let mut rig = rig();
    rig.push(1, "a", 1);
    rig.answer(204);
    rig.outcome(Outcome::Lost);
    assert_eq!((rig.ledger().queued, rig.events().len()), (1, 0));
}

// ---- halving (V6)

/// Sends `n` values of which those at `bad` are bad, until all is settled; requests that it took.
fn search(n: usize, bad: &[usize], code: u16) -> u32 {
    let mut rig = Rig::new(Settings::DEFAULT, n * 2 + 8, 1);
    rig.audited = n <= 10;
    for k in 0..n {
        rig.push(1, &format!("p{k}"), k as i64);
    }
    let bad: Vec<String> = bad.iter().map(|k| format!("p{k}")).collect();
    let (mut requests, mut delivered) = (0, Vec::new());
    while let Some(batch) = rig.next() {
        requests += 1;
        rig.outbox.note_other_success();
        if batch.values.iter().any(|v| bad.contains(&v.path)) {
            let validation_failed = code == 400;
            rig.outcome(Outcome::Status { code, validation_failed, retry_after_ms: None });
        } else {
            delivered.extend(batch.values.iter().map(|v| v.path.clone()));
            rig.answer(204);
        }
        let mut told = rig.events();
        told.retain(|e| matches!(e, OutboxEvent::ValueRefused { .. }));
        for event in told {
            let OutboxEvent::ValueRefused { account, status, time } = event else { continue };
            assert_eq!((account, status, time), (1, code, Some(UnixMillis(UNIX0))));
            assert!(
                bad.contains(&rig.outbox.event_path().to_owned()),
                "{} was good",
                rig.outbox.event_path()
            );
        }
    }
    assert_eq!(delivered.len(), n - bad.len(), "each good value arrived once");
    assert_eq!(rig.dropped(DropReason::Refused), bad.len() as u64);
    assert_eq!(rig.outbox.bytes_used(), 0);
    requests
}

fn bound(n: usize) -> f64 {
    2.0 * (n as f64).log2() + 2.0
}

#[test]
fn a_bad_value_at_any_place_is_found_within_the_bound_and_the_others_arrive() {
    for n in (1..=17).chain([31, 32, 33]) {
        for at in 0..n {
            for code in [400, 413] {
                let requests = search(n, &[at], code);
                assert!(f64::from(requests) <= bound(n), "{at} of {n} under {code}: {requests} requests");
            }
            let requests = search(n, &[at], 500);
            assert!(f64::from(requests) <= 3.0 * bound(n), "{at} of {n} under 500: {requests} requests");
        }
    }
}

#[test]
fn a_bad_value_among_a_thousand_is_found_within_the_bound() {
    for at in [0, 499, 500, 512, 999] {
        for (code, times) in [(400, 1.0), (413, 1.0), (500, 3.0)] {
            let requests = search(1000, &[at], code);
            assert!(f64::from(requests) <= times * bound(1000), "{at} under {code}: {requests} requests");
        }
    }
}

#[test]
fn several_bad_values_cost_the_bound_each() {
    let cases: [(usize, &[usize]); 5] = [
        (2, &[0, 1]),
        (7, &[0, 3, 6]),
        (300, &[0, 299]),
        (300, &[10, 11, 12, 13]),
        (1000, &[0, 100, 200, 300, 400, 500, 600, 700, 800, 900]),
    ];
    for (n, bad) in cases {
        for (code, times) in [(400, 1.0), (413, 1.0), (500, 3.0)] {
            let requests = search(n, bad, code);
            let bound = times * bound(n) * bad.len() as f64;
            assert!(f64::from(requests) <= bound, "{bad:?} of {n} under {code}: {requests} requests");
        }
    }
}

#[test]
fn more_than_ten_bad_values_end_the_halving_until_later() {
    let mut rig = Rig::new(Settings::DEFAULT, 512, 1);
    let bad: Vec<String> = (0..12).map(|k| format!("bad{k}")).collect();
    let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
    for (k, path) in bad.iter().enumerate() {
        rig.push(1, path, k as i64);
    }
    for k in 0..50 {
        rig.push(1, &format!("p{k}"), k);
    }
    let mut ended = None;
    while let Some(batch) = rig.next() {
        judge(&mut rig, &batch, &bad);
        let events = rig.events();
        if events.contains(&OutboxEvent::HalvingEnded { account: 1, refused: 10 }) {
            assert_eq!(rig.dropped(DropReason::Refused), 10);
            assert_eq!(rig.poll(), None, "it backs off");
            assert_eq!(ended.replace(rig.now), None, "once");
        }
    }
    assert!(ended.is_some());
    assert!(rig.now >= ended.unwrap() + 1000);
    assert_eq!((rig.dropped(DropReason::Refused), rig.ledger().delivered), (12, 50));
}

#[test]
fn live_values_of_that_and_other_accounts_go_on_between_the_halves() {
    let mut rig = rig();
    for k in 0..64 {
        rig.push(1, &format!("p{k}"), k);
    }
    let (mut since_live, mut tries) = (0, 0);
    while let Some(batch) = rig.poll().or_else(|| rig.next()) {
        let live = batch.values.iter().any(|v| v.path.starts_with("live"));
        since_live = if live { 0 } else { since_live + 1 };
        assert!(since_live <= 3, "live values starve");
        judge(&mut rig, &batch, &["p63"]);
        tries += 1;
        if tries < 12 {
            for account in [1, 2] {
                rig.push(account, &format!("live{tries}"), tries);
            }
            rig.now += 500;
        }
    }
    assert_eq!((rig.dropped(DropReason::Refused), rig.ledger().delivered), (1, 63 + 22));
}

#[test]
fn live_values_of_each_account_have_their_turn_while_the_last_one_searches_for_bad_values() {
    let mut rig = Rig::new(Settings::DEFAULT, 4096, 3);
    for account in [1, 2, 3] {
        rig.push(account, "first", 0);
    }
    rig.now += 500;
    while rig.poll().is_some() {
        rig.answer(204);
    }
    for k in 0..64 {
        rig.push(3, &format!("p{k}"), k);
    }
    rig.now += 500;
    let bad = ["p21", "p63"];
    let batch = rig.poll().unwrap();
    judge(&mut rig, &batch, &bad);
    let mut without = [0; 3];
    for k in 1..60 {
        // On a slow link each account has a live value whenever a request has ended.
        for account in [1, 2, 3] {
            rig.push(account, &format!("live{k}"), k);
        }
        rig.now += 500;
        let batch = rig.poll().unwrap();
        for (account, without) in [1, 2, 3].into_iter().zip(&mut without) {
            let live = batch.account == account && batch.values.iter().all(|v| v.path.starts_with("live"));
            *without = if live { 0 } else { *without + 1 };
        }
        // Two rounds: one of live values, the requests of the search between them.
        assert!(without.iter().all(|&n| n <= 6), "{without:?} requests without live values at request {k}");
        judge(&mut rig, &batch, &bad);
    }
    assert_eq!(rig.dropped(DropReason::Refused), 2);
}

#[test]
fn kept_values_of_each_account_have_their_turn_while_another_one_sends_live_values() {
    let mut rig = Rig::new(Settings { max_values: 1, ..Settings::DEFAULT }, 256, 3);
    for k in 0..10 {
        let (path, number) = (ValuePath::new("old", MAX_PATH_BYTES).unwrap(), k.number_text().unwrap());
        let time = ValueTime::Unix(UnixMillis(UNIX0 - 86_400_000 + k));
        for account in [1, 2] {
            rig.with(|o, mem, now| o.recover(mem, now, account, time, time, path, &number, 1)).unwrap();
        }
    }
    let mut left = [10, 10];
    for k in 0..400 {
        rig.push(3, &format!("live{k}"), k);
        rig.now += 500;
        let batch = rig.poll().unwrap();
        rig.answer(204);
        if let Some(left) = (batch.account as usize).checked_sub(1).and_then(|at| left.get_mut(at)) {
            *left -= 1;
        }
        assert!(i32::abs_diff(left[0], left[1]) <= 1, "{left:?} are left at request {k}");
    }
    assert_eq!(left, [0, 0]);
}

#[test]
fn a_500_is_not_halved_while_nothing_else_succeeds() {
    let mut rig = rig();
    rig.push(1, "a", 1);
    rig.push(1, "b", 2);
    for _ in 0..20 {
        assert_eq!(rig.next().unwrap().paths(), ["a", "b"]);
        rig.answer(500);
    }
    rig.next().unwrap();
    rig.answer(204);
    assert_eq!(rig.ledger().delivered, 2);
}

#[test]
fn a_500_is_halved_after_three_tries_while_others_succeed() {
    let mut rig = rig();
    rig.push(1, "a", 1);
    rig.push(1, "b", 2);
    rig.outbox.note_other_success();
    for _ in 0..3 {
        assert_eq!(rig.next().unwrap().paths(), ["a", "b"]);
        rig.answer(500);
    }
    assert_eq!(rig.next().unwrap().paths(), ["a", "b"], "a success before the first 500 says nothing");
    rig.answer(503);
    assert_eq!(rig.next().unwrap().paths(), ["a", "b"]);
    rig.outbox.note_other_success();
    rig.answer(500);
    assert_eq!(rig.next().unwrap().paths(), ["a"]);
}

#[test]
fn live_values_go_on_while_a_500_is_in_doubt() {
    let mut rig = rig();
    rig.push(1, "x", 1);
    rig.next().unwrap();
    rig.answer(500);
    rig.now += 3000;
    rig.push(1, "y", 1);
    rig.now += 500;
    assert_eq!(rig.poll().unwrap().paths(), ["x"]);
    rig.answer(500);
    assert_eq!(rig.poll().unwrap().paths(), ["y"], "without a wait");
    rig.answer(204);
    assert_eq!(rig.next().unwrap().paths(), ["x"]);
}

#[test]
fn bodies_that_are_too_large_are_cut_and_later_ones_are_smaller() {
    let mut rig = Rig::new(Settings::DEFAULT, 4096, 1);
    rig.audited = false;
    let limit = 20_000;
    for round in 0..2 {
        for k in 0..1000 {
            rig.push(1, &format!("path.to.{round}.{k}"), k);
        }
        let mut refused = 0;
        while let Some(batch) = rig.next() {
            let over = batch.body.len() > limit;
            refused += u32::from(over);
            rig.answer(if over { 413 } else { 204 });
        }
        assert!(refused <= if round == 0 { 4 } else { 1 }, "{refused} in round {round}");
    }
    assert_eq!(rig.ledger().delivered, 2000);
    for _ in 0..10 {
        rig.outbox.note_refresh();
    }
    for k in 0..1000 {
        rig.push(1, &format!("path.to.{k}"), k);
    }
    assert!(rig.next().unwrap().body.len() > limit, "refreshes try larger ones again");
}

#[test]
fn suspects_can_be_superseded_while_they_are_searched() {
    for at in 0..8 {
        for steps in 0..6 {
            let mut rig = rig();
            let time = ValueTime::Unix(UnixMillis(UNIX0));
            for k in 0..8 {
                rig.push_at(1, time, &format!("p{k}"), k).unwrap();
            }
            for _ in 0..steps {
                let Some(batch) = rig.next() else { break };
                judge(&mut rig, &batch, &["p5"]);
            }
            let in_flight = rig.next();
            rig.push_at(1, time, &format!("p{at}"), 100).unwrap();
            if let Some(batch) = in_flight {
                judge(&mut rig, &batch, &["p5"]);
            }
            while let Some(batch) = rig.next() {
                judge(&mut rig, &batch, &["p5"]);
            }
            let ledger = rig.ledger();
            assert_eq!((ledger.queued, ledger.collected), (0, 9));
            let refused = ledger.dropped_by(DropReason::Refused);
            assert!(refused == 1 || at == 5 && refused == 2, "{ledger}");
        }
    }
}

// ---- POST (V4)

#[test]
fn where_put_is_denied_post_is_tried_at_once_and_remembered_until_a_refresh() {
    let mut rig = rig();
    rig.push(1, "a", 1);
    rig.next().unwrap();
    rig.answer(403);
    let batch = rig.poll().unwrap();
    assert_eq!(batch.method, Method::Post);
    assert_eq!(batch.body, r#"[{"p":"a","v":1}]"#);
    rig.answer(204);
    assert_eq!(rig.events(), [OutboxEvent::SwitchedToPost { account: 1 }]);
    rig.push(1, "a", 2);
    assert_eq!(rig.next().unwrap().method, Method::Post);
    rig.answer(204);

    rig.outbox.note_refresh();
    rig.push(1, "a", 3);
    assert_eq!(rig.next().unwrap().method, Method::Put);
    rig.answer(403);
    assert_eq!(rig.poll().unwrap().method, Method::Post);
    rig.answer(204);
    assert_eq!(rig.events(), [], "nothing new");

    rig.outbox.note_refresh();
    rig.push(1, "a", 4);
    assert_eq!(rig.next().unwrap().method, Method::Put);
    rig.answer(204);
    assert_eq!(rig.events(), [OutboxEvent::BackToPut { account: 1 }]);
    assert_eq!(rig.ledger().delivered, 4);
}

#[test]
fn one_account_falls_back_to_post_by_itself() {
    let mut rig = rig();
    rig.push(1, "a", 1);
    rig.push(2, "a", 1);
    rig.next().unwrap();
    rig.answer(403);
    let mut methods: Vec<_> = std::iter::from_fn(|| {
        let batch = rig.poll()?;
        rig.answer(204);
        Some((batch.account, batch.method))
    })
    .collect();
    methods.sort_by_key(|m| m.0);
    assert_eq!(methods, [(1, Method::Post), (2, Method::Put)]);
}

#[test]
fn values_that_a_post_would_stamp_falsely_are_dropped_once_post_is_known_to_work() {
    let mut rig = rig();
    rig.push(1, "old", 1);
    rig.next().unwrap();
    rig.answer(503);
    rig.now = 5_501;
    rig.push(1, "new", 2);
    rig.push_at(1, ValueTime::Unix(UnixMillis(UNIX0 - 60_000)), "its-own-time", 3).unwrap();
    rig.push_at(1, ValueTime::Unix(UnixMillis(UNIX0 + 60_000)), "the-future", 3).unwrap();
    let unix = rig.unix();
    rig.with(|o, mem, now| o.handle_wall(mem, now, unix));
    rig.push_at(1, ValueTime::Unix(UnixMillis(UNIX0 - 60_000)), "its-own-time2", 3).unwrap();
    rig.now += 500;
    assert_eq!(rig.poll().unwrap().method, Method::Put);
    rig.answer(403);
    assert_eq!(rig.dropped(DropReason::NoTime), 0);
    let batch = rig.poll().unwrap();
    assert_eq!(batch.method, Method::Post);
    assert!(batch.paths().contains(&"new") && !batch.paths().contains(&"its-own-time2"), "{batch:?}");
    rig.answer(204);
    while let Some(batch) = rig.next() {
        assert!(!batch.paths().contains(&"old"));
        rig.answer(204);
    }
    assert_eq!(rig.dropped(DropReason::NoTime), 2);
    assert_eq!(rig.ledger().queued, 0);
}

#[test]
fn a_value_five_seconds_old_still_goes_by_post_a_millisecond_later_it_does_not() {
    for (age, delivered) in [(5_000, 1), (5_001, 0)] {
        let mut rig = Rig::new(Settings { delivery: DeliveryMethod::PostOnly, ..Settings::DEFAULT }, 64, 1);
        rig.push(1, "a", 1);
        rig.now = age;
        if rig.poll().is_some() {
            rig.answer(204);
        }
        assert_eq!((rig.ledger().delivered, rig.dropped(DropReason::NoTime)), (delivered, 1 - delivered));
    }
}

#[test]
fn where_put_and_post_are_denied_everything_is_kept_with_its_time() {
    let mut rig = rig();
    rig.push(1, "a", 1);
    let mut puts = 0;
    for round in 0..6 {
        let batch = rig.next().unwrap();
        puts += u32::from(batch.method == Method::Put);
        rig.answer(403);
        if round == 1 {
            rig.push(1, "b", 2);
        }
    }
    assert!(puts >= 3);
    assert_eq!(rig.events(), [OutboxEvent::Denied { account: 1, status: 403 }]);
    rig.now += 3_600_000;
    assert_eq!(rig.ledger().queued, 2);
    let mut sent = Vec::new();
    while let Some(batch) = rig.next() {
        assert_eq!(batch.method, Method::Put);
        sent.extend(batch.values.iter().map(|v| (v.path.clone(), v.unix_ms)));
        rig.answer(204);
    }
    assert_eq!(sent[0], ("a".to_owned(), Some(UNIX0)));
    assert_eq!(sent.len(), 2);
    assert_eq!(rig.events(), [OutboxEvent::Recovered { account: 1 }]);
}

#[test]
fn a_post_that_fails_where_put_is_denied_waits_like_any_other() {
    let mut rig = rig();
    rig.push(1, "a", 1);
    rig.next().unwrap();
    rig.answer(403);
    let mut posts = 0;
    while rig.now < 120_000 {
        let batch = rig.next().unwrap();
        posts += u32::from(batch.method == Method::Post);
        rig.answer(if batch.method == Method::Put { 403 } else { 503 });
        assert_eq!(rig.poll().filter(|b| b.method == batch.method), None);
    }
    assert!((1..=3).contains(&posts), "{posts} tries in 5 s");
    rig.push(1, "b", 2);
    assert_eq!(rig.ledger().dropped_total(), 0);
}

#[test]
fn fresh_values_try_post_at_once_while_put_waits() {
    let mut rig = rig();
    rig.push(1, "a", 1);
    rig.now = 60_000;
    for _ in 0..8 {
        assert_eq!(rig.next().unwrap().method, Method::Put, "nothing fresh");
        rig.answer(403);
    }
    assert_eq!(rig.events(), [OutboxEvent::Denied { account: 1, status: 403 }]);
    assert!(rig.outbox.poll_timeout().map(|_| rig.poll()).is_some());
    assert!(rig.outbox.poll_timeout().unwrap() > Millis(rig.now + 1000));
    rig.push(1, "b", 2);
    rig.now += 500;
    let batch = rig.poll().unwrap();
    assert_eq!((batch.method, batch.paths()), (Method::Post, vec!["b"]));
    rig.answer(204);
    assert_eq!(rig.next(), None);
    assert_eq!((rig.ledger().delivered, rig.dropped(DropReason::NoTime)), (1, 1));
}

#[test]
fn a_working_post_that_is_denied_later_loses_nothing_more() {
    let mut rig = rig();
    rig.push(1, "a", 1);
    rig.next().unwrap();
    rig.answer(403);
    rig.next().unwrap();
    rig.answer(204);
    rig.push(1, "b", 2);
    assert_eq!(rig.next().unwrap().method, Method::Post);
    rig.answer(403);
    rig.now += 600_000;
    assert_eq!(rig.next().unwrap().method, Method::Put);
    rig.answer(204);
    assert_eq!((rig.ledger().delivered, rig.ledger().dropped_total()), (2, 0));
}

#[test]
fn a_post_has_each_path_once_and_a_hundred_values_at_most() {
    let mut rig = Rig::new(Settings { delivery: DeliveryMethod::PostOnly, ..Settings::DEFAULT }, 1024, 1);
    for (k, path) in ["a", "b", "a", "c"].into_iter().enumerate() {
        rig.push(1, path, k as i64);
        rig.now += 1;
    }
    assert_eq!(rig.next().unwrap().paths(), ["a", "b"]);
    rig.answer(204);
    assert_eq!(rig.next().unwrap().paths(), ["a", "c"]);
    rig.answer(204);
    for k in 0..150 {
        rig.push(1, &format!("p{k}"), k);
    }
    assert_eq!(rig.next().unwrap().values.len(), 100);
}

#[test]
fn a_post_whose_answer_was_lost_is_not_repeated() {
    for outcome in [Outcome::Lost, Outcome::status(500), Outcome::status(504)] {
        let mut rig = Rig::new(Settings { delivery: DeliveryMethod::PostOnly, ..Settings::DEFAULT }, 64, 1);
        rig.push(1, "a", 1);
        rig.next().unwrap();
        rig.outcome(outcome);
        assert_eq!(rig.dropped(DropReason::Unknown), 1, "{outcome:?}");
        assert_eq!(rig.next(), None);
    }
}

#[test]
fn a_post_that_was_surely_not_processed_is_repeated_while_its_values_are_fresh() {
    for outcome in [Outcome::NotSent, Outcome::status(429), Outcome::status(503), Outcome::status(502)] {
        let mut rig = Rig::new(Settings { delivery: DeliveryMethod::PostOnly, ..Settings::DEFAULT }, 64, 1);
        rig.push(1, "a", 1);
        rig.next().unwrap();
        rig.outcome(outcome);
        assert_eq!(rig.next().unwrap().paths(), ["a"], "{outcome:?}");
        rig.answer(204);
        assert_eq!(rig.ledger().delivered, 1);
    }
}

#[test]
fn a_bad_value_in_a_post_is_found() {
    let mut rig = Rig::new(Settings { delivery: DeliveryMethod::PostOnly, ..Settings::DEFAULT }, 256, 1);
    for k in 0..20 {
        rig.push(1, &format!("p{k}"), k);
    }
    while let Some(batch) = rig.next() {
        judge(&mut rig, &batch, &["p13"]);
    }
    assert_eq!((rig.ledger().delivered, rig.dropped(DropReason::Refused)), (19, 1));
}

// ---- times (T3)

#[test]
fn values_without_a_wall_clock_wait_for_it_and_keep_the_time_they_get() {
    let mut rig = rig();
    rig.now = 1_000;
    rig.push_at(1, ValueTime::Monotonic(Millis(1_000)), "a", 1).unwrap();
    rig.now = 3_000;
    rig.push_at(1, ValueTime::Monotonic(Millis(2_500)), "b", 2).unwrap();
    rig.now = 60_000;
    assert_eq!(rig.poll(), None);
    rig.with(|o, mem, now| o.handle_wall(mem, now, UnixMillis(UNIX0 + 60_000)));
    rig.with(|o, mem, now| o.handle_wall(mem, now, UnixMillis(UNIX0 + 90_000)));
    rig.push_at(1, ValueTime::Monotonic(Millis(60_000)), "c", 3).unwrap();
    let times: Vec<_> = rig.next().unwrap().values.iter().map(|v| v.unix_ms).collect();
    assert_eq!(times, [Some(UNIX0 + 1_000), Some(UNIX0 + 2_500), Some(UNIX0 + 90_000)]);
}

#[test]
fn values_that_get_the_same_time_from_the_clock_are_one() {
    let mut rig = rig();
    rig.now = 1_000;
    for path in ["a", "b", "c"] {
        rig.push_at(1, ValueTime::Monotonic(Millis(1_000)), path, 1).unwrap();
        rig.push_at(1, ValueTime::Unix(UnixMillis(UNIX0 + 1_000)), path, 2).unwrap();
    }
    rig.with(|o, mem, now| o.handle_wall(mem, now, UnixMillis(UNIX0 + 1_000)));
    assert_eq!((rig.dropped(DropReason::Superseded), rig.next().unwrap().values.len()), (3, 3));
}

#[test]
fn values_without_a_wall_clock_can_go_by_post_while_fresh_and_get_their_time_when_they_come_back() {
    let mut rig = Rig::new(Settings { delivery: DeliveryMethod::PostOnly, ..Settings::DEFAULT }, 64, 1);
    rig.push_at(1, ValueTime::Monotonic(Millis(0)), "a", 1).unwrap();
    rig.now = 500;
    assert_eq!(rig.poll().unwrap().body, r#"[{"p":"a","v":1}]"#);
    rig.with(|o, mem, now| o.handle_wall(mem, now, UnixMillis(UNIX0 + 500)));
    rig.outcome(Outcome::NotSent);
    rig.next().unwrap();
    rig.answer(204);
    assert_eq!(rig.ledger().delivered, 1);
}

// ---- bounds (V5)

#[test]
fn when_full_the_oldest_values_of_the_account_that_uses_most_go_first() {
    let mut rig = Rig::new(Settings::DEFAULT, 100, 3);
    for k in 0..100 {
        rig.push(1, &format!("a{k}"), k);
        rig.now += 1;
    }
    assert_eq!(rig.events(), []);
    for k in 0..60 {
        rig.push(2, &format!("b{k}"), k);
    }
    for k in 0..10 {
        rig.push(3, &format!("c{k}"), k);
    }
    assert_eq!(rig.dropped(DropReason::Full), 70);
    let queued = |rig: &mut Rig, id| rig.with(|o, mem, _| o.account(mem, id)).unwrap().queued;
    assert_eq!([queued(&mut rig, 1), queued(&mut rig, 2), queued(&mut rig, 3)], [45, 45, 10]);
    assert_eq!(rig.events(), [OutboxEvent::Full { account: 1 }]);
    let batch = rig.next().unwrap();
    assert_eq!((batch.account, batch.paths()[0]), (1, "a55"), "the newest are left");
    rig.answer(204);
    assert_eq!(rig.events(), [OutboxEvent::RoomAgain { dropped: 70 }]);
}

#[test]
fn what_is_in_flight_is_not_dropped_for_room() {
    let mut rig = Rig::new(Settings::DEFAULT, 4, 1);
    for k in 0..4 {
        rig.push(1, &format!("a{k}"), k);
    }
    rig.next().unwrap();
    rig.push(1, "late", 9);
    assert_eq!((rig.ledger().collected, rig.dropped(DropReason::Full)), (5, 1));
    assert_eq!(rig.read(0, 1000).len(), rig.read(0, 3).len());
    rig.answer(204);
    assert_eq!(rig.ledger().delivered, 4);
}

#[test]
fn a_value_larger_than_the_whole_outbox_is_refused() {
    let mut rig = Rig::new(Settings::DEFAULT, 2, 1);
    let time = ValueTime::Unix(UnixMillis(UNIX0));
    rig.push_at(1, time, &"x".repeat(57), 1).unwrap();
    let limit = 2 * Cell::BYTES;
    assert_eq!(
        rig.push_at(1, time, &"x".repeat(58), 1),
        Err(PushError::TooLarge { bytes: 3 * Cell::BYTES, limit })
    );
    assert_eq!((rig.ledger().collected, rig.ledger().queued), (1, 1));
}

#[test]
fn accounts_beyond_the_table_are_refused_and_places_are_used_again() {
    let mut rig = Rig::new(Settings::DEFAULT, 64, 2);
    let time = ValueTime::Unix(UnixMillis(UNIX0));
    rig.push(1, "a", 1);
    rig.push(2, "a", 1);
    assert_eq!(rig.push_at(3, time, "a", 1), Err(PushError::TooManyAccounts { capacity: 2 }));
    assert_eq!(rig.next().unwrap().account, 1);
    rig.answer(403);
    rig.poll().unwrap();
    rig.answer(204);
    rig.next().unwrap();
    rig.answer(204);
    rig.push(3, "a", 1);
    let methods = |rig: &mut Rig| [1, 2, 3].map(|id| rig.with(|o, m, _| o.account(m, id)).map(|a| a.method));
    assert_eq!(
        methods(&mut rig),
        [Some(Method::Post), None, Some(Method::Put)],
        "what is known of 1 is kept"
    );
    rig.push(4, "a", 1);
    assert_eq!(methods(&mut rig), [None, None, Some(Method::Put)], "unless it is in the way of values");
    rig.next().unwrap();
    rig.answer(204);
    rig.next().unwrap();
    rig.answer(204);
    for id in 5..200 {
        rig.push(id, "a", 1);
        assert_eq!(rig.next().unwrap().account, id);
        rig.answer(204);
    }
}

#[test]
fn values_that_waited_too_long_are_dropped() {
    let mut rig = Rig::new(Settings { max_age_ms: 10_000, ..Settings::DEFAULT }, 64, 1);
    rig.push_at(1, ValueTime::Monotonic(Millis(0)), "a", 1).unwrap();
    assert_eq!(rig.next(), None, "its time never comes, but its end");
    assert_eq!((rig.now, rig.dropped(DropReason::TooOld)), (10_001, 1));
    assert_eq!(rig.outbox.bytes_used(), 0);
}

#[test]
fn a_time_that_memory_cannot_hold_is_refused() {
    let mut rig = rig();
    let time = ValueTime::Unix(UnixMillis(1 << 48));
    assert_eq!(rig.push_at(1, time, "a", 1), Err(PushError::TimeTooLate { time }));
}

#[test]
fn an_outbox_without_memory_refuses_without_panic() {
    let mut outbox = grafolean_core::outbox::Outbox::new(Settings::DEFAULT);
    let path = ValuePath::new("a", MAX_PATH_BYTES).unwrap();
    let number = 1.number_text().unwrap();
    let mut mem = no_mem();
    let pushed = outbox.push(&mut mem, Millis(0), 1, ValueTime::Unix(UnixMillis(0)), path, &number);
    assert_eq!(pushed, Err(PushError::TooLarge { bytes: 48, limit: 0 }));
    assert_eq!(outbox.poll(&mut mem, Millis(0)), None);
}

// ---- the rest

#[test]
fn flush_makes_everything_due_at_once() {
    let mut rig = Rig::new(Settings { max_values: 2, ..Settings::DEFAULT }, 64, 2);
    for path in ["x", "y", "z"] {
        rig.push(1, path, 1);
    }
    for _ in 0..2 {
        rig.next().unwrap();
        rig.answer(503);
    }
    rig.push(2, "b", 1);
    rig.push(1, "c", 1);
    rig.with(|o, mem, now| o.flush(mem, now));
    let now = rig.now;
    while let Some(_batch) = rig.poll() {
        rig.answer(204);
    }
    assert!(rig.outbox.is_idle() && rig.now == now);
    rig.poll();
    rig.now += 10_000;
    rig.push(1, "d", 1);
    rig.with(|o, _, _| {
        assert_eq!(o.poll_timeout(), Some(Millis(now + 10_500)), "afterwards values linger again")
    });
}

#[test]
fn recovered_values_count_and_go_after_the_live_ones() {
    let mut rig = rig();
    let (path, number) = (ValuePath::new("kept", MAX_PATH_BYTES).unwrap(), 5.number_text().unwrap());
    let time = ValueTime::Unix(UnixMillis(UNIX0 - 86_400_000));
    rig.with(|o, mem, now| o.recover(mem, now, 1, time, time, path, &number, 1)).unwrap();
    rig.with(|o, _, _| o.count_unrecoverable(DropReason::Corrupt, 2));
    rig.with(|o, _, _| o.count_unrecoverable(DropReason::NoTime, 1));
    rig.push(1, "live", 1);
    rig.now = 500;
    assert_eq!(rig.poll().unwrap().paths(), ["live"]);
    rig.answer(204);
    assert_eq!(rig.next().unwrap().values[0].unix_ms, Some(UNIX0 - 86_400_000));
    rig.answer(204);
    assert_eq!(
        rig.ledger().to_string(),
        "collected 1 + recovered 4 = delivered 2 + queued 0 + dropped 3 (no_time 1, corrupt 2)"
    );
}

#[test]
fn memory_can_grow_under_waiting_values() {
    let mut rig = Rig::new(Settings::DEFAULT, 10, 2);
    for k in 0..5 {
        rig.push(1, &format!("a{k}"), k);
        rig.push(2, &format!("b{k}"), k);
    }
    rig.grow(100, 30);
    for k in 0..30 {
        rig.push(k, "more", 1);
    }
    rig.push(1, "a3", 9);
    assert_eq!((rig.dropped(DropReason::Superseded), rig.dropped(DropReason::Full)), (1, 0));
    while rig.next().is_some() {
        rig.answer(204);
    }
    assert_eq!(rig.ledger().delivered, 40);
}

#[test]
fn time_that_goes_back_counts_as_the_last_one() {
    let mut rig = rig();
    rig.now = 10_000;
    rig.push(1, "a", 1);
    rig.now = 2_000;
    assert_eq!(rig.poll(), None);
    rig.now = 10_500;
    assert!(rig.poll().is_some());
}
