//! Rates of counters: what wraps, what was reset, which clock counts, and what a restart leaves.

use grafolean_bot_snmp::rates::{Counter, CounterState, Outcome, Reading, STATE_BYTES, UNIX_FROM};
use grafolean_core::time::Millis;
use proptest::prelude::*;

const DAY_CS: u32 = 8_640_000;
/// A day up, and not in whole seconds.
const UP: u32 = DAY_CS + 37;

fn bits32(value: u32, uptime_cs: impl Into<Option<u32>>, now_ms: u64) -> Reading {
    Reading { counter: Counter::Bits32(value), uptime_cs: uptime_cs.into(), now: Millis(now_ms), life: 1 }
}

fn bits64(value: u64, uptime_cs: impl Into<Option<u32>>, now_ms: u64) -> Reading {
    Reading { counter: Counter::Bits64(value), ..bits32(0, uptime_cs, now_ms) }
}

/// The outcome of the last one, with each state packed and unpacked in between.
fn run(readings: &[Reading]) -> Outcome {
    let mut state = None;
    let mut outcome = Outcome::First;
    for reading in readings {
        let (came, next) = CounterState::advance(state, *reading);
        outcome = came;
        state = CounterState::unpack(&next.pack());
        assert_eq!(state, Some(next));
    }
    outcome
}

#[test]
fn the_first_reading_gives_no_value_and_later_ones_their_rate() {
    let readings = [bits32(1000, UP, 5_000), bits32(2000, UP + 100, 6_000), bits32(2300, UP + 400, 9_000)];
    let rates: Vec<_> = (1..=3).map(|n| run(&readings[..n]).rate()).collect();
    assert_eq!(rates, [None, Some(1000.0), Some(100.0)]);
    let wide = [bits64(1000, None, 5_000), bits64(2000, None, 6_000), bits64(2300, None, 9_000)];
    let rates: Vec<_> = (1..=3).map(|n| run(&wide[..n]).rate()).collect();
    assert_eq!(rates, [None, Some(1000.0), Some(100.0)]);
}

#[test]
fn the_devices_own_time_counts_where_it_moved_as_much_as_the_collectors() {
    // The second answer came 0.8 s late; the device read its counter after 10.00 s all the same.
    assert_eq!(run(&[bits32(0, UP, 0), bits32(1000, UP + 1000, 10_800)]), Outcome::Rate(100.0));
    // Whole seconds only: too coarse.
    assert_eq!(run(&[bits32(0, 500_000, 0), bits32(1000, 500_300, 2_500)]), Outcome::Rate(400.0));
    // It stands still.
    assert_eq!(run(&[bits32(0, UP, 0), bits32(1000, UP, 2_500)]), Outcome::Rate(400.0));
    assert_eq!(run(&[bits32(0, UP, 0), bits32(1000, UP, 100_000)]), Outcome::Rate(10.0));
    // It jumped (another machine of a pair answers).
    assert_eq!(run(&[bits32(0, UP, 0), bits32(1000, UP + DAY_CS, 10_000)]), Outcome::Rate(100.0));
    // Not given this time, or the last time.
    assert_eq!(run(&[bits32(0, UP, 0), bits32(1000, None, 10_000)]), Outcome::Rate(100.0));
    assert_eq!(run(&[bits32(0, None, 0), bits32(1000, UP, 10_000)]), Outcome::Rate(100.0));
}

#[test]
fn a_counter32_that_went_down_has_wrapped_if_the_device_was_up_all_the_time() {
    let top = u32::MAX - 499;
    assert_eq!(run(&[bits32(top, UP, 0), bits32(500, UP + 1000, 10_000)]), Outcome::Wrapped(100.0));
    // Not for certain: the device gives no sysUpTime, or it jumped or stands still.
    assert_eq!(run(&[bits32(top, None, 0), bits32(500, None, 10_000)]), Outcome::WentDown);
    assert_eq!(run(&[bits32(top, UP, 0), bits32(500, UP + DAY_CS, 10_000)]), Outcome::WentDown);
    assert_eq!(run(&[bits32(top, UP, 0), bits32(500, UP, 100_000)]), Outcome::WentDown);
    // The device was up for 2 s only at the earlier reading: it may have been rebooted just behind it.
    assert_eq!(run(&[bits32(top, 203, 0), bits32(500, 1_203, 10_000)]), Outcome::WentDown);
}

#[test]
fn a_counter64_that_went_down_was_reset() {
    assert_eq!(run(&[bits64(u64::MAX, UP, 0), bits64(500, UP + 1000, 10_000)]), Outcome::WentDown);
    // The next one has a rate again.
    let readings = [bits64(9_000, UP, 0), bits64(500, UP + 1000, 10_000), bits64(1500, UP + 2000, 20_000)];
    assert_eq!(run(&readings), Outcome::Rate(100.0));
    // More than a double can tell apart.
    let high = u64::MAX - 1_000;
    assert_eq!(run(&[bits64(high, UP, 0), bits64(high + 1_000, UP + 1000, 10_000)]), Outcome::Rate(100.0));
}

#[test]
fn a_reboot_gives_no_value_whatever_the_counter_did() {
    for after in [0, 500, 5_000_000] {
        assert_eq!(run(&[bits32(1000, UP, 0), bits32(after, 2_017, 60_000)]), Outcome::Rebooted, "{after}");
        // So long ago that it is up for longer again than it was at the last reading.
        assert_eq!(
            run(&[bits32(1000, 1_017, 0), bits32(after, 20_017, 600_000)]),
            Outcome::Rebooted,
            "{after}"
        );
    }
    let readings = [bits32(1000, UP, 0), bits32(0, 2_017, 60_000), bits32(600, 8_017, 120_000)];
    assert_eq!(run(&readings), Outcome::Rate(10.0));
}

#[test]
fn the_wrap_of_sys_up_time_after_497_days_is_no_reboot() {
    let last = u32::MAX - 2_000;
    let next = last.wrapping_add(6_000);
    assert!(next < last);
    assert_eq!(run(&[bits32(1000, last, 0), bits32(7000, next, 60_000)]), Outcome::Rate(100.0));
    assert_eq!(run(&[bits32(u32::MAX, last, 0), bits32(5999, next, 60_000)]), Outcome::Wrapped(100.0));
    // But then a reboot is one.
    assert_eq!(run(&[bits32(1000, last, 0), bits32(7000, 217, 60_000)]), Outcome::Rebooted);
}

#[test]
fn readings_of_the_same_instant_give_no_rate_and_the_earlier_one_stays() {
    let first = bits32(1000, UP, 0);
    let (_, state) = CounterState::advance(None, first);
    assert_eq!(CounterState::advance(Some(state), bits32(1001, UP, 0)), (Outcome::NoTime, state));
    // The collector's clock never goes back within a life; if it did, nothing could be known.
    assert_eq!(run(&[bits32(1000, UP, 10_000), bits32(2000, UP + 100, 9_000)]), Outcome::NoTime);
}

#[test]
fn a_counter_of_another_type_begins_anew() {
    assert_eq!(run(&[bits32(1000, UP, 0), bits64(2000, UP + 100, 1_000)]), Outcome::First);
    assert_eq!(run(&[bits64(1000, UP, 0), bits32(2000, UP + 100, 1_000)]), Outcome::First);
}

#[test]
fn a_time_of_an_earlier_life_is_not_mistaken_for_one_of_this() {
    let restarted = |reading: Reading| Reading { life: 2, ..reading };
    // A board: its time begins anew, once before and once beyond the old one. sysUpTime tells how long it took.
    for now_ms in [3_000, 500_000] {
        let new = restarted(bits32(7_000, UP + 6_000, now_ms));
        assert_eq!(run(&[bits32(1_000, UP, 400_000), new]), Outcome::Rate(100.0));
        let new = restarted(bits32(7_000, 317, now_ms));
        assert_eq!(run(&[bits32(1_000, UP, 400_000), new]), Outcome::Rebooted);
        // No wrap is assumed.
        let new = restarted(bits32(10, UP + 6_000, now_ms));
        assert_eq!(run(&[bits32(1_000, UP, 400_000), new]), Outcome::WentDown);
        // Without sysUpTime nothing is known.
        let new = restarted(bits32(7_000, None, now_ms));
        assert_eq!(run(&[bits32(1_000, None, 400_000), new]), Outcome::NoTime);
        let next = restarted(bits32(7_100, None, now_ms + 1_000));
        assert_eq!(run(&[bits32(1_000, None, 400_000), new, next]), Outcome::Rate(100.0));
    }
    // A host: its time is Unix time in every life.
    let unix = UNIX_FROM.0 + 1_000;
    let new = restarted(bits32(7_000, None, unix + 60_000));
    assert_eq!(run(&[bits32(1_000, None, unix), new]), Outcome::Rate(100.0));
    let new = restarted(bits32(7_000, None, unix - 60_000));
    assert_eq!(run(&[bits32(1_000, None, unix), new]), Outcome::NoTime);
    // One that counts from boot now.
    let new = restarted(bits32(7_000, None, 60_000));
    assert_eq!(run(&[bits32(1_000, None, unix), new]), Outcome::NoTime);
}

#[test]
fn a_device_that_was_rebooted_while_a_hosts_collector_was_down_gives_no_rate() {
    let unix = UNIX_FROM.0 + 1_000;
    let restarted = |reading: Reading| Reading { life: 2, ..reading };
    // Down for a day; the device was up for an hour, and has been up for two since a reboot.
    let (hour_cs, day_ms) = (360_037, 86_400_000);
    let old = bits32(1_000, hour_cs, unix);
    assert_eq!(run(&[old, restarted(bits32(7_000, 2 * hour_cs, unix + day_ms))]), Outcome::Rebooted);
    // It was up all the time: the rate over the whole day, and a wrap is one.
    let up = hour_cs + DAY_CS;
    assert_eq!(run(&[old, restarted(bits32(1_000 + 86_400, up, unix + day_ms))]), Outcome::Rate(1.0));
    let top = bits32(u32::MAX - 86_399, hour_cs, unix);
    assert_eq!(run(&[top, restarted(bits32(0, up, unix + day_ms))]), Outcome::Wrapped(1.0));
    // The machine's clock was set meanwhile: what the device says counts.
    for set in [unix + day_ms / 24, unix - day_ms] {
        assert_eq!(run(&[old, restarted(bits32(1_000 + 86_400, up, set))]), Outcome::Rate(1.0), "{set}");
    }
}

#[test]
fn states_of_another_version_or_length_count_as_none() {
    let (_, state) = CounterState::advance(None, bits64(u64::MAX - 3, 7, 9));
    let packed = state.pack();
    assert_eq!(packed.len(), STATE_BYTES);
    assert_eq!(CounterState::unpack(&packed), Some(state));
    assert_eq!(CounterState::unpack(&packed[1..]), None);
    assert_eq!(CounterState::unpack(&[]), None);
    let mut other = packed;
    other[0] = 2;
    assert_eq!(CounterState::unpack(&other), None);
    other = packed;
    other[1] = 4;
    assert_eq!(CounterState::unpack(&other), None);
    // A Counter32 beyond its bits.
    other = packed;
    other[1] = 2;
    assert_eq!(CounterState::unpack(&other), None);
}

fn reading() -> impl Strategy<Value = Reading> {
    let counter = prop_oneof![
        any::<u32>().prop_map(Counter::Bits32),
        any::<u64>().prop_map(Counter::Bits64),
        (0u32..5).prop_map(Counter::Bits32)
    ];
    let uptime = prop_oneof![Just(None), any::<u32>().prop_map(Some), (0u32..500).prop_map(Some)];
    let now = prop_oneof![0u64..100_000, any::<u64>()];
    (counter, uptime, now, 0u32..3).prop_map(|(counter, uptime_cs, now, life)| Reading {
        counter,
        uptime_cs,
        now: Millis(now),
        life,
    })
}

proptest! {
    #[test]
    fn any_two_readings_give_a_finite_rate_of_zero_or_more_or_none(old in reading(), new in reading()) {
        let (_, state) = CounterState::advance(None, old);
        prop_assert_eq!(CounterState::unpack(&state.pack()), Some(state));
        let (outcome, next) = CounterState::advance(Some(state), new);
        if let Some(rate) = outcome.rate() {
            prop_assert!(rate.is_finite() && rate >= 0.0, "{}", rate);
        }
        prop_assert!(next == state || next == CounterState::advance(None, new).1);
    }

    #[test]
    fn a_steady_counter32_has_its_rate_through_wraps_of_it_and_of_sys_up_time(
        start: u32, up in 10_000u32.., rate in 1u32..60_000_000, interval_cs in 97u32..7_000,
    ) {
        let mut state = None;
        // Less than a whole turn between two readings.
        prop_assume!(u64::from(rate) * u64::from(interval_cs) / 100 < 1 << 32);
        for n in 0..40u64 {
            let cs = n * u64::from(interval_cs);
            let counted = u64::from(rate) * cs / 100;
            let value = start.wrapping_add(counted as u32);
            let reading = bits32(value, up.wrapping_add(cs as u32), cs * 10);
            let (outcome, next) = CounterState::advance(state, reading);
            if n > 0 {
                let expected = f64::from(rate);
                let found = outcome.rate().unwrap_or(f64::NAN);
                prop_assert!((found - expected).abs() <= 2.0, "reading {}: {:?}, expected {}", n, outcome, expected);
            }
            state = Some(next);
        }
    }

    #[test]
    fn bytes_of_any_kind_are_a_state_or_none(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Some(state) = CounterState::unpack(&bytes) {
            prop_assert_eq!(CounterState::unpack(&state.pack()), Some(state));
        }
    }
}
