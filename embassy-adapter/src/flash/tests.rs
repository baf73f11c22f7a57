//! The flash itself, with its power cut at every single step.

use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use embassy_futures::block_on;
use grafolean_core::random::SplitMix64;

use super::record::Record;
use super::sim::SimNor;
use super::store::{FlashError, Key, Kind, Store, Visit};

const PAGE: usize = 1024;
const PAGES: u32 = 6;
const SIZE: u32 = PAGE as u32 * PAGES;

type Nor<const WORD: usize> = SimNor<Vec<u8>, Vec<u32>, WORD, PAGE>;

fn nor<const WORD: usize>(seed: u64) -> Nor<WORD> {
    SimNor::new(vec![0xff; SIZE as usize], vec![0; PAGES as usize], seed)
}

fn store<F: embedded_storage_async::nor_flash::MultiwriteNorFlash>(flash: F) -> Store<F> {
    Store::new(flash, 0..SIZE).unwrap()
}

fn record(number: u32, value: u32, path: &str) -> Record<'_> {
    let digits = ["0", "11", "22.5", "-3e9"][value as usize % 4];
    let time_ms = 1_700_000_000_000 + u64::from(value);
    Record { number, boot: 1, account: 1, timed: true, time_ms, handed_over_ms: time_ms, path, digits }
}

fn path(value: u32) -> String {
    format!("v{value}.{}", "x".repeat(value as usize * 7 % 60))
}

/// Which value a record is of; it must be whole.
fn value_of(found: &Record<'_>) -> u32 {
    let value = (found.time_ms - 1_700_000_000_000) as u32;
    assert_eq!(*found, record(found.number, value, &path(value)), "a record is as it was written");
    value
}

/// What a script knows of values: reported as stored; may be in flash; states.
#[derive(Default, Clone)]
struct Model {
    stored: BTreeMap<u32, u32>,
    maybe: BTreeSet<u32>,
    state: Option<u32>,
    maybe_state: Option<u32>,
    next_value: u32,
}

/// Does something with the flash until it fails.
async fn script<const WORD: usize>(
    store: &mut Store<&mut Nor<WORD>>,
    model: &mut Model,
    random: &mut SplitMix64,
    length: u32,
) -> Result<(), FlashError> {
    for _ in 0..length {
        match random.below(10) {
            0..6 => {
                let value = model.next_value;
                model.next_value += 1;
                model.maybe.insert(value);
                let (path, mut gone) = (path(value), Vec::new());
                let pushed = store
                    .push(&mut |number, buf| record(number, value, &path).write(buf), &mut |number| {
                        gone.push(number);
                        true
                    })
                    .await;
                for number in gone {
                    let value = model.stored.remove(&number).expect("what gives way was there");
                    assert!(model.stored.keys().all(|other| *other > number), "the oldest gives way");
                    // Forgetting it may have been cut.
                    model.maybe.insert(value);
                }
                model.stored.insert(pushed?.unwrap(), value);
                model.maybe.remove(&value);
            }
            6..9 => {
                // Out of order, as batches of several accounts are.
                let numbers: Vec<u32> = model.stored.keys().copied().collect();
                let mut done: BTreeSet<u32> =
                    numbers.into_iter().take(12).filter(|_| random.below(3) > 0).collect();
                for number in &done {
                    let value = model.stored.remove(number).unwrap();
                    model.maybe.insert(value);
                }
                let forgotten: Vec<u32> = done.iter().copied().collect();
                store
                    .each(&mut |record| {
                        if done.remove(&record.number) { Visit::Forget } else { Visit::Keep }
                    })
                    .await?;
                assert!(done.is_empty(), "{done:?} of {forgotten:?} were not found");
                model.maybe.clear();
            }
            _ => {
                let state = random.below(1000);
                model.maybe_state = Some(state);
                assert!(store.set_state(&[7; 16], &state.to_le_bytes()).await?);
                (model.state, model.maybe_state) = (Some(state), None);
            }
        }
    }
    Ok(())
}

/// Starts again, and checks that all that was reported as stored is there once, and nothing else but what may be.
async fn restart<const WORD: usize>(
    store: &mut Store<&mut Nor<WORD>>,
    model: &mut Model,
    what: &str,
) -> Result<(), FlashError> {
    let mut found = BTreeMap::new();
    let mut last = 0;
    store
        .begin(
            &mut |record| {
                let value = value_of(record);
                assert!(record.number > last, "{what}: in the order in which they were written");
                last = record.number;
                assert!(found.insert(record.number, value).is_none());
                Visit::Keep
            },
            &mut |_, _| {},
        )
        .await?;
    let values: BTreeSet<u32> = found.values().copied().collect();
    assert_eq!(values.len(), found.len(), "{what}: each value once");
    for (number, value) in &model.stored {
        assert_eq!(found.get(number), Some(value), "{what}: record {number} was reported as stored");
    }
    for (number, value) in &found {
        assert!(
            model.stored.contains_key(number) || model.maybe.contains(value),
            "{what}: record {number} of value {value} was forgotten"
        );
    }
    let mut state = [0; 4];
    let len = store.state(&[7; 16], &mut state).await?;
    let state = len.map(|_| u32::from_le_bytes(state));
    assert!(
        state == model.state || (state.is_some() && state == model.maybe_state),
        "{what}: state {state:?}, not {:?} or {:?}",
        model.state,
        model.maybe_state
    );
    (model.state, model.maybe_state) = (state, None);
    model.stored = found;
    model.maybe.clear();
    Ok(())
}

/// When the power is cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// After so many steps.
    Step(u64),
    /// In an erasure, after so many pages and quarters.
    Erasure(u32, u32),
}

/// Runs a script with the power cut, then a shorter one, and so on. `false` if the power was not cut.
fn cut_and_go_on<const WORD: usize>(seed: u64, cut: Cut) -> bool {
    let what = format!("seed {seed}, words of {WORD}, {cut:?}");
    let (mut nor, mut model) = (nor::<WORD>(seed ^ 0x5eed), Model::default());
    let mut random = SplitMix64::new(seed);
    let mut was_cut = false;
    for life in 0..4 {
        nor.power_on();
        match (life, cut) {
            (0, Cut::Step(steps)) => nor.cut_after(steps),
            (0, Cut::Erasure(pages, quarters)) => nor.cut_erasure_after(pages, quarters),
            (1, Cut::Step(steps)) => nor.cut_after(steps % 97),
            (1, Cut::Erasure(_, quarters)) => nor.cut_erasure_after(0, quarters),
            (2, Cut::Step(steps)) => nor.cut_after(steps % 13),
            _ => {}
        }
        let result = block_on(async {
            let mut store = store(&mut nor);
            restart(&mut store, &mut model, &what).await?;
            let length = if life == 0 { 120 } else { 30 };
            script(&mut store, &mut model, &mut random, length).await
        });
        was_cut |= life == 0 && nor.is_off();
        assert_eq!(result.is_err(), nor.is_off(), "{what}: {result:?}");
    }
    nor.power_on();
    block_on(restart(&mut store(&mut nor), &mut model, &what)).unwrap();
    was_cut
}

fn cut_everywhere<const WORD: usize>(seed: u64, every: u64) {
    let mut cut = 0;
    while cut_and_go_on::<WORD>(seed, Cut::Step(cut)) {
        cut += every;
    }
    assert!(cut > 1000, "seed {seed}: the script wrote only {cut} words");
}

#[test]
fn what_was_reported_as_stored_is_there_once_wherever_the_power_is_cut() {
    cut_everywhere::<4>(1, 1);
    for seed in 2..8 {
        cut_everywhere::<4>(seed, 41);
    }
}

#[test]
fn a_page_whose_erasure_was_cut_anywhere_does_no_harm() {
    let mut cuts = 0;
    for seed in 100..120 {
        for quarters in 0..4 {
            for pages in 0..4 {
                cuts += u32::from(cut_and_go_on::<4>(seed, Cut::Erasure(pages, quarters)));
            }
        }
    }
    assert!(cuts > 100, "only {cuts} erasures");
}

#[test]
fn a_flash_of_single_bytes_and_one_of_long_words_survive_power_cuts_too() {
    for cut in (0..4000).step_by(37) {
        cut_and_go_on::<1>(5, Cut::Step(cut));
        cut_and_go_on::<32>(6, Cut::Step(cut / 8));
    }
}

#[test]
fn bits_that_rot_lose_no_other_record() {
    for seed in 0..60 {
        let (mut nor, mut model) = (nor::<4>(seed), Model::default());
        let mut random = SplitMix64::new(seed);
        block_on(async {
            let mut store = store(&mut nor);
            restart(&mut store, &mut model, "start").await.unwrap();
            script(&mut store, &mut model, &mut random, 40).await.unwrap();
        });
        // Within the pages of values: those of states are less worth.
        let bit = 8 * (2 * PAGE as u64 + u64::from(random.below(SIZE - 2 * PAGE as u32)))
            + u64::from(random.below(8));
        nor.flip(bit);
        let mut found = BTreeSet::new();
        let mut seen = |record: &Record<'_>| {
            value_of(record);
            found.insert(record.number);
            Visit::Keep
        };
        block_on(async {
            let mut store = store(&mut nor);
            store.begin(&mut seen, &mut |_, _| {}).await.unwrap();
            script(&mut store, &mut Model { next_value: 1000, ..Model::default() }, &mut random, 0)
                .await
                .unwrap();
        });
        let lost = model.stored.keys().filter(|number| !found.contains(number)).count();
        assert!(lost <= 1, "seed {seed}, bit {bit}: {lost} of {} records lost", model.stored.len());
    }
}

#[test]
fn pages_wear_evenly_and_what_they_took_is_remembered() {
    let mut nor = nor::<4>(9);
    let mut all = 0;
    for boot in 1..=5 {
        let mut store = store(&mut nor);
        let wear = block_on(async {
            store.begin(&mut |_| Visit::Forget, &mut |_, _| {}).await.unwrap();
            for value in 0..300 {
                let path = path(value);
                store
                    .push(&mut |number, buf| record(number, value, &path).write(buf), &mut |_| true)
                    .await
                    .unwrap();
            }
            store.wear()
        });
        assert_eq!((wear.boots, wear.pages), (boot, PAGES));
        assert!(wear.written_bytes > 300 * 40, "{wear:?}");
        all = wear.erasures;
    }
    let erasures = nor.erasures();
    let sum: u32 = erasures.iter().sum();
    assert!(sum > 50 && all <= sum && all + 5 * PAGES >= sum, "{all} remembered of {erasures:?}");
    let of_queue = &erasures[2..];
    assert!(of_queue.iter().max().unwrap() - of_queue.iter().min().unwrap() <= 2, "{erasures:?}");
}

#[test]
fn a_flash_that_fails_says_so_and_goes_on_where_it_was() {
    let mut nor = nor::<4>(3);
    let push = async |store: &mut Store<&mut Nor<4>>, value: u32| {
        let path = path(value);
        store.push(&mut |number, buf| record(number, value, &path).write(buf), &mut |_| true).await
    };
    block_on(async {
        let mut store = store(&mut nor);
        store.begin(&mut |_| Visit::Keep, &mut |_, _| {}).await.unwrap();
        push(&mut store, 1).await.unwrap();
        store.flash().fail(true);
        assert_eq!(push(&mut store, 2).await, Err(FlashError::Device(Kind::Other)));
        assert_eq!(store.set_state(&[1; 16], &[1]).await, Err(FlashError::Device(Kind::Other)));
        store.flash().fail(false);
        push(&mut store, 3).await.unwrap();
        let mut values = Vec::new();
        store
            .each(&mut |record| {
                values.push(value_of(record));
                Visit::Keep
            })
            .await
            .unwrap();
        assert_eq!(values, [1, 3]);
    });
}

#[test]
fn ranges_that_do_not_fit_are_refused_with_the_numbers() {
    let refused = |range| Store::new(nor::<4>(0), range).err().map(|e| format!("{e}"));
    assert_eq!(refused(0..4096).unwrap(), "flash of 4 pages: at least 5 are needed");
    assert_eq!(
        refused(100..6144).unwrap(),
        "flash from 100 to 6144: not a multiple of its pages of 1024 bytes"
    );
    assert_eq!(refused(2048..8192).unwrap(), "flash up to 8192: it ends at 6144");
    let small: SimNor<_, _, 4, 256> = SimNor::new(vec![0xff; 4096], vec![0; 16], 0);
    let error = Store::new(small, 0..4096).err().unwrap();
    assert_eq!(format!("{error}"), "flash with pages of 256 bytes and words of 4 bytes can't be used");
    assert_eq!(refused(1024..6144), None);
}

/// Whose states are forgotten again and again, and whose never.
const GONE: u8 = 1;
const STAYS: u8 = 2;

/// What is known of the states of the job that stays: the value that was written last, and one that may have been.
#[derive(Default)]
struct States {
    written: BTreeMap<Key, u32>,
    maybe: Option<(Key, u32)>,
    /// None of the other job's has been written since they were forgotten.
    forgotten: bool,
    next_value: u32,
}

fn state_key(job: u8, name: u32) -> Key {
    let mut key = [job; 16];
    key[12..].copy_from_slice(&name.to_le_bytes());
    key
}

/// Begins, checks that all states of the job that stays are there, and forgets states of the other one until power is cut.
async fn forget_states<const WORD: usize>(
    store: &mut Store<&mut Nor<WORD>>,
    known: &mut States,
    rounds: u32,
    what: &str,
) -> Result<(), FlashError> {
    let mut found = BTreeMap::new();
    let mut state = |key: &Key, bytes: &[u8]| {
        found.insert(*key, u32::from_le_bytes(bytes.try_into().unwrap()));
    };
    store.begin(&mut |_| Visit::Keep, &mut state).await?;
    if let Some((key, value)) = known.maybe.take()
        && found.get(&key) == Some(&value)
    {
        known.written.insert(key, value);
    }
    let gone = found.keys().filter(|key| key[0] == GONE).count();
    assert!(!known.forgotten || gone == 0, "{what}: {gone} forgotten states are back");
    found.retain(|key, _| key[0] == STAYS);
    assert_eq!(found, known.written, "{what}: states of a job that nobody forgot");
    for round in 0..rounds {
        for name in 0..5 {
            if round == 0 || (name + round).is_multiple_of(3) {
                let (key, value) = (state_key(STAYS, name), known.next_value);
                known.next_value += 1;
                known.maybe = Some((key, value));
                assert!(store.set_state(&key, &value.to_le_bytes()).await?);
                known.written.extend(known.maybe.take());
            }
        }
        known.forgotten = false;
        for name in 0..3 {
            assert!(store.set_state(&state_key(GONE, 3 * round + name), &[0; 4]).await?);
        }
        store.retain_states(&mut |key| key[0] != GONE).await?;
        known.forgotten = true;
    }
    Ok(())
}

/// Cuts the power after so many steps, and again while that is put right and gone on with. `false` if there are less.
fn cut_while_states_are_forgotten<const WORD: usize>(seed: u64, steps: u64) -> bool {
    let what = format!("seed {seed}, words of {WORD}, cut after {steps}");
    let (mut nor, mut known) = (nor::<WORD>(seed), States::default());
    let mut was_cut = false;
    for (life, cut) in
        [Some(steps), Some(steps * 7 % 293), Some(steps * 13 % 17), None].into_iter().enumerate()
    {
        nor.power_on();
        if let Some(cut) = cut {
            nor.cut_after(cut);
        }
        let what = format!("{what}, life {life}");
        let rounds = if life == 0 { 10 } else { 3 };
        let result = block_on(forget_states(&mut store(&mut nor), &mut known, rounds, &what));
        assert_eq!(result.is_err(), nor.is_off(), "{what}: {result:?}");
        was_cut |= life == 0 && nor.is_off();
    }
    was_cut
}

#[test]
fn wherever_the_power_is_cut_while_states_of_a_job_are_forgotten_all_others_are_there() {
    let mut cut = 0;
    while cut_while_states_are_forgotten::<4>(1, cut) {
        cut += 1;
    }
    assert!(cut > 500, "only {cut} words were written");
    for cut in 0..80 {
        cut_while_states_are_forgotten::<1>(3, cut * 37);
        cut_while_states_are_forgotten::<4>(2, cut * 7);
        cut_while_states_are_forgotten::<32>(4, cut);
    }
}

#[test]
fn forgetting_a_state_erases_nothing() {
    let mut nor = nor::<4>(1);
    block_on(async {
        let mut store = store(&mut nor);
        store.begin(&mut |_| Visit::Keep, &mut |_, _| {}).await.unwrap();
        for name in 0..20 {
            assert!(store.set_state(&state_key(GONE, name), &[7; 4]).await.unwrap());
        }
        store.retain_states(&mut |key| *key == state_key(GONE, 11)).await.unwrap();
        let mut left = Vec::new();
        store.begin(&mut |_| Visit::Keep, &mut |key, bytes| left.push((*key, bytes.to_vec()))).await.unwrap();
        assert_eq!(left, [(state_key(GONE, 11), vec![7; 4])]);
    });
    assert_eq!(nor.erasures().iter().sum::<u32>(), 0);
}

#[test]
fn states_beyond_the_room_for_them_are_refused_and_cost_no_other_one() {
    let mut nor = nor::<4>(2);
    let fits = block_on(async {
        let mut store = store(&mut nor);
        store.begin(&mut |_| Visit::Keep, &mut |_, _| {}).await.unwrap();
        let mut fits = 0;
        while store.set_state(&state_key(STAYS, fits), &[5; 32]).await.unwrap() {
            fits += 1;
        }
        // Those that are there can be forgotten, and there is room again.
        store.retain_states(&mut |key| *key != state_key(STAYS, 3)).await.unwrap();
        assert!(store.set_state(&state_key(STAYS, fits), &[5; 32]).await.unwrap());
        fits
    });
    assert!((14..=18).contains(&fits), "{fits} of 56 bytes in a page of {PAGE}");
    let mut found = BTreeSet::new();
    block_on(async {
        let mut store = store(&mut nor);
        store.begin(&mut |_| Visit::Keep, &mut |key, _| _ = found.insert(*key)).await.unwrap();
        assert_eq!(store.wear().boots, 2, "the boot is counted even so");
        let mut left = 0;
        store
            .retain_states(&mut |_| {
                left += 1;
                true
            })
            .await
            .unwrap();
        let gave_way = usize::from(store.take_states_full());
        assert!(left + gave_way >= fits as usize, "{left} of {fits}");
    });
    assert_eq!(found, (0..=fits).filter(|name| *name != 3).map(|name| state_key(STAYS, name)).collect());
}

#[test]
fn what_states_wear_is_remembered_without_any_value() {
    let mut nor = nor::<4>(3);
    block_on(async {
        let mut store = store(&mut nor);
        store.begin(&mut |_| Visit::Keep, &mut |_, _| {}).await.unwrap();
        for value in 0..2000_u32 {
            assert!(store.set_state(&state_key(STAYS, 0), &value.to_le_bytes()).await.unwrap());
        }
    });
    let sum: u32 = nor.erasures().iter().sum();
    let remembered = block_on(async {
        let mut store = store(&mut nor);
        store.begin(&mut |_| Visit::Keep, &mut |_, _| {}).await.unwrap();
        store.wear().erasures
    });
    assert!(sum > 50 && remembered <= sum && remembered + PAGES >= sum, "{remembered} of {sum}");
}
