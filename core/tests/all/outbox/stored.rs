//! What a store can rely on, case by case.

use std::collections::BTreeMap;

use super::rig::{Rig, Rng, UNIX0};
use grafolean_core::outbox::{
    AccountQueue, Cell, DropReason, Left, Method, Outbox, OutboxMem, PushError, RECORD_MAX, Settings,
    ValueTime,
};
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::{MAX_PATH_BYTES, Number, ValuePath};

/// An outbox whose wall clock is known.
fn rig(cells: usize) -> Rig {
    let mut rig = Rig::new(Settings { max_values: 4, ..Settings::DEFAULT }, cells, 3);
    let unix = rig.unix();
    rig.with(|o, mem, now| o.handle_wall(mem, now, unix));
    rig
}

fn push_stored(rig: &mut Rig, account: u64, ms: u64, path: &str, number: i64, record: u64) {
    let (path, text) = (ValuePath::new(path, MAX_PATH_BYTES).unwrap(), number.number_text().unwrap());
    let time = ValueTime::Unix(UnixMillis(UNIX0 + ms));
    rig.with(|o, m, n| o.push_stored(m, n, account, time, path, &text, record)).unwrap();
}

fn recover(
    rig: &mut Rig,
    account: u64,
    ms: u64,
    path: &str,
    number: i64,
    record: u64,
) -> Result<(), PushError> {
    let (path, text) = (ValuePath::new(path, MAX_PATH_BYTES).unwrap(), number.number_text().unwrap());
    let time = ValueTime::Unix(UnixMillis(UNIX0 + ms));
    rig.with(|o, m, n| o.recover(m, n, account, time, time, path, &text, record))
}

fn left(rig: &mut Rig) -> Vec<(u64, bool)> {
    std::mem::take(&mut rig.departed).into_iter().map(|l| (l.record, l.parked)).collect()
}

#[test]
fn a_full_outbox_parks_its_oldest_stored_values_and_drops_none() {
    let mut rig = rig(4);
    for n in 1..=6 {
        rig.now = n;
        push_stored(&mut rig, 1, n, "a", n as i64, n);
    }
    assert_eq!(left(&mut rig), [(1, true), (2, true)]);
    assert_eq!((rig.outbox.parked(), rig.outbox.queued(), rig.ledger().dropped_total()), (2, 6, 0));
    assert!(rig.events().is_empty(), "nothing is lost, so nothing is told");
}

#[test]
fn a_full_outbox_drops_its_oldest_value_if_that_has_no_record() {
    let mut rig = rig(2);
    rig.push(1, "a", 1);
    rig.now = 1;
    push_stored(&mut rig, 1, 1, "b", 2, 1);
    rig.now = 2;
    push_stored(&mut rig, 1, 2, "c", 3, 2);
    rig.now = 3;
    push_stored(&mut rig, 1, 3, "d", 4, 3);
    assert_eq!((rig.dropped(DropReason::Full), left(&mut rig)), (1, vec![(1, true)]));
}

#[test]
fn a_stored_value_that_finds_all_others_in_flight_is_parked_itself() {
    let mut rig = rig(1);
    push_stored(&mut rig, 1, 0, "a", 1, 1);
    assert_eq!(rig.next().unwrap().paths(), ["a"]);
    push_stored(&mut rig, 1, 600, "b", 2, 2);
    assert_eq!((left(&mut rig), rig.outbox.parked()), (vec![(2, true)], 1));
    rig.answer(204);
    assert_eq!(left(&mut rig), [(1, false)]);
    assert!(rig.outbox.is_idle() && rig.outbox.queued() == 1);
    recover(&mut rig, 1, 600, "b", 2, 2).unwrap();
    assert_eq!(rig.next().unwrap().values[0].unix_ms, Some(UNIX0 + 600));
    rig.answer(204);
    assert_eq!((left(&mut rig), rig.ledger().delivered), (vec![(2, false)], 2));
}

#[test]
fn a_value_that_is_refused_or_superseded_or_too_old_is_done_with_its_record() {
    let mut rig = rig(64);
    push_stored(&mut rig, 1, 0, "a", 1, 1);
    push_stored(&mut rig, 1, 0, "a", 2, 2);
    assert_eq!(left(&mut rig), [(1, false)], "superseded");
    rig.next().unwrap();
    rig.refuse();
    assert_eq!((left(&mut rig), rig.dropped(DropReason::Refused)), (vec![(2, false)], 1));
    push_stored(&mut rig, 1, 500, "b", 1, 3);
    rig.now += 8 * 24 * 3_600_000;
    assert_eq!(rig.poll(), None);
    assert_eq!((left(&mut rig), rig.dropped(DropReason::TooOld)), (vec![(3, false)], 1));
}

#[test]
fn parked_values_come_back_behind_live_ones_in_the_order_of_hand_over() {
    let mut rig = rig(64);
    rig.now = 100_000;
    rig.with(|o, _, n| o.handle_stored(n, 3));
    for (record, ms) in [(2, 2_000), (1, 1_000), (3, 3_000)] {
        recover(&mut rig, 1, ms, "kept", record as i64, record).unwrap();
    }
    rig.push(1, "live", 9);
    rig.now += 500;
    assert_eq!(rig.poll().unwrap().paths(), ["live"]);
    rig.answer(204);
    let kept: Vec<_> = rig.next().unwrap().values.iter().map(|v| v.number).collect();
    assert_eq!(kept, [1, 2, 3]);
    rig.answer(204);
    assert_eq!(rig.ledger().to_string(), "collected 1 + recovered 3 = delivered 4 + queued 0 + dropped 0");
}

#[test]
fn the_age_of_a_parked_value_counts_from_its_hand_over() {
    let mut rig = rig(64);
    let day = 24 * 3_600_000;
    rig.now = 8 * day;
    rig.with(|o, _, n| o.handle_stored(n, 2));
    recover(&mut rig, 1, day - 1, "a", 1, 1).unwrap();
    assert_eq!((left(&mut rig), rig.dropped(DropReason::TooOld)), (vec![(1, false)], 1));
    recover(&mut rig, 1, day, "a", 2, 2).unwrap();
    assert_eq!((left(&mut rig), rig.outbox.parked(), rig.outbox.queued()), (vec![], 0, 1));
    rig.now += 1;
    rig.poll();
    assert_eq!(rig.dropped(DropReason::TooOld), 2);
}

#[test]
fn a_successor_of_a_parked_value_waits_behind_it_and_live_values_do_not() {
    let mut rig = rig(2);
    rig.now = 60_000;
    push_stored(&mut rig, 1, 1_000, "a", 1, 1);
    push_stored(&mut rig, 1, 60_000, "b", 2, 2);
    push_stored(&mut rig, 1, 60_000, "c", 3, 3);
    assert_eq!(left(&mut rig), [(1, true)]);
    // The same path and time again: it must not be written before the parked one.
    push_stored(&mut rig, 1, 1_000, "a", 4, 4);
    assert_eq!(left(&mut rig), [(4, true)]);
    rig.now = 60_001;
    push_stored(&mut rig, 1, 60_001, "d", 5, 5);
    assert_eq!(left(&mut rig), [(2, true)], "a live value has gone in");
    while rig.next().is_some() {
        rig.answer(204);
    }
    recover(&mut rig, 1, 1_000, "a", 1, 1).unwrap();
    recover(&mut rig, 1, 1_000, "a", 4, 4).unwrap();
    assert_eq!(rig.next().unwrap().values[0].number, 4, "the later one has taken its place");
    assert_eq!(rig.dropped(DropReason::Superseded), 1);
}

#[test]
fn a_parked_value_gives_way_to_a_waiting_later_one() {
    let mut rig = rig(64);
    rig.with(|o, _, n| o.handle_stored(n, 2));
    recover(&mut rig, 1, 0, "a", 2, 2).unwrap();
    recover(&mut rig, 1, 0, "a", 1, 1).unwrap();
    assert_eq!(left(&mut rig), [(1, false)]);
    assert_eq!(rig.next().unwrap().values[0].number, 2);
}

#[test]
fn a_parked_value_parks_others_only_up_to_what_is_assured_to_its_account() {
    let mut rig = rig(8);
    for n in 1..=8 {
        push_stored(&mut rig, 1, n, "a", 1, n);
    }
    rig.with(|o, _, n| o.handle_stored(n, 8));
    // Half of an equal share.
    for n in 11..=12 {
        recover(&mut rig, 2, n, "b", 1, n).unwrap();
    }
    assert_eq!(left(&mut rig), [(1, true), (2, true)]);
    let before = rig.ledger();
    assert_eq!(recover(&mut rig, 2, 13, "b", 1, 13), Err(PushError::NoRoom));
    assert_eq!(recover(&mut rig, 1, 1, "a", 1, 1), Err(PushError::NoRoom), "nor in turns");
    assert_eq!((rig.ledger(), left(&mut rig)), (before, vec![]));
}

#[test]
fn a_parked_value_that_can_not_have_all_the_room_it_needs_parks_no_others() {
    let long = "l".repeat(50);
    // The other account would keep too little; the third of its values has no record.
    for (cells, without_record) in [(5, None), (12, Some(1))] {
        let mut rig = rig(cells);
        for n in 0..cells as u64 {
            match without_record {
                Some(at) if at == n => rig.push(1, "a", 1),
                _ => push_stored(&mut rig, 1, n, "a", 1, n + 1),
            }
            rig.now += 1;
        }
        rig.with(|o, _, n| o.handle_stored(n, 2));
        if without_record.is_none() {
            recover(&mut rig, 2, 50, "b", 1, 50).unwrap();
            assert_eq!(left(&mut rig), [(1, true)]);
        }
        let before = rig.ledger();
        assert_eq!(recover(&mut rig, 2, 51, &long, 1, 51), Err(PushError::NoRoom));
        assert_eq!((rig.ledger(), left(&mut rig)), (before, vec![]), "{cells} cells");
    }
}

/// Accounts' parked values beside memory that is too small for them, as a store keeps them: fed at one instant until nothing
/// changes. How many rounds that took.
fn feed_until_at_rest(rig: &mut Rig, parked: &mut [BTreeMap<u64, String>], limit: usize) -> Option<usize> {
    for round in 0..limit {
        let mut moved = false;
        for account in 0..parked.len() {
            let room = rig.with(|o, m, _| o.room_for_backlog(m, account as u64)) as usize;
            let fed: Vec<_> = parked[account].clone().into_iter().take(room).collect();
            for (record, path) in fed {
                match recover(rig, account as u64, record, &path, 1, record) {
                    Ok(()) => parked[account].remove(&record),
                    Err(PushError::NoRoom) => break,
                    Err(other) => panic!("{other}"),
                };
                moved = true;
            }
            for (record, is_parked) in left(rig) {
                assert!(is_parked, "nothing is dropped");
                let of = record as usize % parked.len();
                parked[of].insert(record, path_of(record));
            }
        }
        if !moved {
            return Some(round);
        }
    }
    None
}

/// Of one to five cells.
fn path_of(record: u64) -> String {
    let len = record.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
    "p".repeat(1 + (len as usize * 3) / 4)
}

#[test]
fn accounts_whose_backlog_does_not_fit_into_memory_come_to_rest_and_each_of_them_has_values_there() {
    for seed in 1..=200 {
        let mut random = Rng::new(seed);
        let accounts = 2 + random.below(9);
        let cells = 64 + random.below(400) as usize;
        let mut rig = Rig::new(Settings::DEFAULT, cells, accounts as usize);
        rig.audited = false;
        rig.now = 100_000;
        let unix = rig.unix();
        rig.with(|o, m, n| o.handle_wall(m, n, unix));
        // One that waits alone has all of memory before the others come.
        let mut parked = vec![BTreeMap::new(); accounts as usize];
        let first = random.below(accounts);
        for n in 1..=400 {
            let record = n * accounts + first;
            parked[first as usize].insert(record, path_of(record));
        }
        rig.with(|o, _, n| o.handle_stored(n, 400));
        assert!(feed_until_at_rest(&mut rig, &mut parked, 1_000).is_some(), "seed {seed}: alone");
        for account in (0..accounts).filter(|account| *account != first) {
            let values = 1 + random.below(60);
            for n in 1..=values {
                let record = n * accounts + account;
                parked[account as usize].insert(record, path_of(record));
            }
            rig.with(|o, _, n| o.handle_stored(n, values));
        }
        let rounds = feed_until_at_rest(&mut rig, &mut parked, 1_000);
        assert!(rounds.is_some(), "seed {seed}: {accounts} accounts in {cells} cells never come to rest");
        rig.with(|o, m, _| assert_eq!(o.audit(m), Ok(())));
        // The largest value takes five cells.
        for account in (0..accounts).filter(|_| cells as u64 / (2 * accounts) >= 5) {
            let waiting = rig.with(|o, m, _| o.account(m, account)).map_or(0, |status| status.queued);
            assert!(waiting > 0, "seed {seed}: account {account} of {accounts} has nothing in {cells} cells");
        }
    }
}

#[test]
fn a_parked_value_never_drops_one_without_a_record() {
    let mut rig = rig(4);
    for n in 0..4 {
        rig.now = n;
        rig.push(1, "a", n as i64);
    }
    rig.with(|o, _, n| o.handle_stored(n, 1));
    assert_eq!(recover(&mut rig, 2, 0, "b", 1, 1), Err(PushError::NoRoom));
    assert_eq!((rig.outbox.parked(), rig.ledger().dropped_total()), (1, 0));
}

#[test]
fn room_for_backlog_is_two_requests_and_leaves_a_quarter_for_live_values() {
    let mut rig = rig(1000);
    assert_eq!(rig.with(|o, m, _| o.room_for_backlog(m, 1)), 0, "nothing is parked");
    rig.with(|o, _, n| o.handle_stored(n, 100));
    assert_eq!(rig.with(|o, m, _| o.room_for_backlog(m, 1)), 8, "max_values is 4");
    for record in 1..=3 {
        recover(&mut rig, 1, record, "a", 1, record).unwrap();
    }
    assert_eq!(rig.with(|o, m, _| o.room_for_backlog(m, 1)), 5);
    rig.next().unwrap();
    assert_eq!(rig.with(|o, m, _| o.room_for_backlog(m, 1)), 5, "what is in flight counts");
    let mut small = Rig::new(Settings::DEFAULT, 80, 3);
    small.with(|o, _, n| o.handle_stored(n, 100));
    assert_eq!(small.with(|o, m, _| o.room_for_backlog(m, 1)), 30, "60 cells, two for each");
    for n in 0..80 {
        small.push(2, "a", n);
        small.now += 1;
    }
    assert_eq!(
        small.with(|o, m, _| o.room_for_backlog(m, 1)),
        10,
        "an account without any may ask for half of its share: 20 cells"
    );
}

#[test]
fn a_parked_value_is_never_stamped_by_a_post() {
    let mut rig = rig(64);
    rig.push(1, "live", 1);
    rig.next().unwrap();
    rig.answer(403);
    assert_eq!(rig.next().unwrap().method, Method::Post);
    rig.answer(204);
    rig.with(|o, _, n| o.handle_stored(n, 1));
    let ms = rig.now;
    recover(&mut rig, 1, ms, "kept", 1, 1).unwrap();
    assert_eq!(rig.poll(), None);
    assert_eq!((left(&mut rig), rig.dropped(DropReason::NoTime)), (vec![(1, false)], 1));
}

#[test]
fn what_a_store_gives_up_is_dropped_for_its_reason_and_no_more_than_is_parked() {
    let mut rig = rig(64);
    rig.with(|o, _, n| o.handle_stored(n, 10));
    for (reason, n) in
        [(DropReason::Full, 1), (DropReason::TooOld, 2), (DropReason::Corrupt, 3), (DropReason::Thinned, 2)]
    {
        assert_eq!(rig.with(|o, _, _| o.drop_parked(reason, n)), n);
    }
    assert_eq!(rig.with(|o, _, _| o.drop_parked(DropReason::Unknown, 9)), 2);
    assert_eq!(
        rig.ledger().to_string(),
        "collected 0 + recovered 10 = delivered 0 + queued 0 + dropped 10 (full 1, too_old 2, unknown 2, corrupt 3, thinned 2)"
    );
}

#[test]
fn a_value_can_get_its_record_after_it_has_waited() {
    let mut rig = rig(64);
    rig.push(1, "first", 1);
    rig.now = 10;
    rig.push(2, "second", 22);
    assert_eq!(rig.with(|o, m, _| o.oldest_unstored(m, Millis(0))), None);
    let unstored = rig.with(|o, m, _| o.oldest_unstored(m, Millis(100))).unwrap();
    assert_eq!((unstored.account, unstored.handed_over), (1, Millis(0)));
    assert_eq!(unstored.time, ValueTime::Unix(UnixMillis(UNIX0)));
    let mut text = [0; 16];
    let n = rig.with(|o, m, _| o.unstored_text(m, &mut text));
    assert_eq!((&text[..n], unstored.path_len, unstored.number_len), (&b"first1"[..], 5, 1));
    assert!(rig.with(|o, m, _| o.set_record(m, 7)));
    assert!(!rig.with(|o, m, _| o.set_record(m, 8)), "it was given once");
    assert_eq!(rig.with(|o, m, _| o.oldest_unstored(m, Millis(100))).unwrap().account, 2);
    rig.next().unwrap();
    let mut flying = vec![];
    rig.with(|o, m, _| o.records_in_flight(m, |r| flying.push(r)));
    assert_eq!(flying, [7]);
    rig.answer(204);
    assert_eq!(left(&mut rig), [(7, false)]);
}

#[test]
fn a_value_that_leaves_or_gets_its_time_while_it_is_being_stored_takes_no_record() {
    let mut rig = rig(64);
    rig.push(1, "a", 1);
    rig.with(|o, m, _| o.oldest_unstored(m, Millis(1))).unwrap();
    rig.push(1, "a", 2);
    assert_eq!(rig.with(|o, m, _| o.unstored_text(m, &mut [0; 8])), 0);
    assert!(!rig.with(|o, m, _| o.set_record(m, 1)), "its successor is another value in the same cell");
    let mut rig = Rig::new(Settings::DEFAULT, 64, 2);
    rig.push_at(1, ValueTime::Monotonic(Millis(0)), "a", 1).unwrap();
    rig.with(|o, m, _| o.oldest_unstored(m, Millis(1))).unwrap();
    let unix = rig.unix();
    rig.with(|o, m, n| o.handle_wall(m, n, unix));
    assert!(!rig.with(|o, m, _| o.set_record(m, 1)), "it would be stored without the time it has got");
}

#[test]
fn records_that_cannot_come_in_are_refused_with_the_reason_and_change_nothing() {
    let mut rig = rig(64);
    for record in [0, RECORD_MAX + 1, u64::MAX] {
        assert_eq!(recover(&mut rig, 1, 0, "a", 1, record), Err(PushError::BadRecord { record }));
    }
    push_stored(&mut rig, 1, 0, "a", 1, RECORD_MAX);
    assert_eq!(rig.ledger().to_string(), "collected 1 + recovered 0 = delivered 0 + queued 1 + dropped 0");

    let (mut cells, mut index, mut accounts) = ([Cell::EMPTY; 2], [0; 2], [AccountQueue::EMPTY; 1]);
    let (mut records, mut places) = ([0; 2], [0; 3]);
    let mut outbox = Outbox::new(Settings::DEFAULT);
    let (path, text) = (ValuePath::new("a", MAX_PATH_BYTES).unwrap(), 1.number_text().unwrap());
    let mut push = |outbox: &mut Outbox, records: &mut [u64], places: &mut [u64], n: u64| {
        let mut mem = OutboxMem {
            cells: &mut cells,
            index: &mut index,
            accounts: &mut accounts,
            records,
            left: places,
        };
        let time = ValueTime::Unix(UnixMillis(UNIX0 + n));
        let pushed = outbox.push_stored(&mut mem, Millis(n), 1, time, path, &text, n);
        assert_eq!(outbox.audit(&mut mem), Ok(()));
        pushed
    };
    assert_eq!(push(&mut outbox, &mut [], &mut [], 1), Err(PushError::NotStoring));
    assert_eq!(push(&mut outbox, &mut records, &mut [0; 2], 1), Err(PushError::NotStoring));
    for n in 1..=3 {
        push(&mut outbox, &mut records, &mut places, n).unwrap();
    }
    assert_eq!(push(&mut outbox, &mut records, &mut places, 4), Err(PushError::LeftNotPolled));
    assert_eq!(outbox.ledger().collected, 3);
    let mut mem = OutboxMem {
        cells: &mut cells,
        index: &mut index,
        accounts: &mut accounts,
        records: &mut records,
        left: &mut places,
    };
    assert_eq!(outbox.poll_left(&mut mem), Some(Left { record: 1, parked: true }));
    assert_eq!(outbox.poll_left(&mut mem), None);
    let time = ValueTime::Unix(UnixMillis(UNIX0 + 4));
    outbox.push_stored(&mut mem, Millis(4), 1, time, path, &text, 4).unwrap();
}

#[test]
fn memory_can_grow_under_records_that_wait_to_be_polled() {
    let (mut cells, mut index, mut accounts) =
        (vec![Cell::EMPTY; 3], vec![0; 3], vec![AccountQueue::EMPTY; 1]);
    let (mut records, mut places) = (vec![0; 3], vec![0; 4]);
    let mut outbox = Outbox::new(Settings::DEFAULT);
    let (path, text) = (ValuePath::new("a", MAX_PATH_BYTES).unwrap(), 1.number_text().unwrap());
    let mut seen = vec![];
    for n in 1..=30 {
        if n == 12 {
            cells.resize(5, Cell::EMPTY);
            records.resize(5, 0);
            places.resize(6, 0);
        }
        let mut mem = OutboxMem {
            cells: &mut cells,
            index: &mut index,
            accounts: &mut accounts,
            records: &mut records,
            left: &mut places,
        };
        if n == 12 {
            outbox.handle_grown(&mut mem);
        }
        let time = ValueTime::Unix(UnixMillis(UNIX0 + n));
        outbox.push_stored(&mut mem, Millis(n), 1, time, path, &text, n).unwrap();
        assert_eq!(outbox.audit(&mut mem), Ok(()));
        // Polled by one only, so that the queue wanders through its memory.
        seen.extend(outbox.poll_left(&mut mem).map(|l| l.record));
    }
    assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>(), "oldest first, none lost");
    assert_eq!(seen.len(), 25);
}
