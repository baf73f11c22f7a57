//! The oracle of values: every value has an identity, its number, by which it is followed from hand-over to the backend's rows
//! without asking the collector.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use grafolean_core::outbox::{Cell, DropReason, Ledger};

use crate::server;
use crate::violation::{Invariant, Violation};
use crate::wire::{self, Element};

#[derive(Clone, Debug)]
struct Value {
    account: u64,
    path: Box<str>,
    /// Unix milliseconds, as soon as it is known.
    time_ms: Option<u64>,
    handed_over_ms: u64,
    /// Far from the hand-over.
    own_time: bool,
    /// Its time comes from answers.
    learned: bool,
    /// The time was not known at the hand-over.
    untimed: bool,
    life: u32,
    cells: u32,
    acknowledged_ms: Option<u64>,
    /// In which life.
    acknowledged_in: u32,
    /// How often the backend has stored it.
    stored: u32,
    stored_by_post: bool,
    /// A later one with the same account, path and time was handed over.
    superseded: bool,
    /// In this life it was in a POST of which nobody knows what became.
    unknown: Option<u32>,
    /// It was refused when it was alone.
    refused_alone: bool,
    /// It waited when its life ended, and may not have been stored.
    unsafe_at_end: bool,
    /// Its account was removed after it was stored.
    removed: bool,
}

type Key = (u64, Box<str>, u64);

/// What one life of the process did.
#[derive(Clone, Copy, Default, Debug)]
struct Life {
    handed_over: u64,
    acknowledged: u64,
    handed_over_cells: u64,
    acknowledged_cells: u64,
    refused_alone: u64,
    unknown: u64,
    superseded: u64,
    /// Values may have been sent by POST.
    posts: bool,
    dropped: [u64; 16],
}

/// What became of a request with values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Status { code: u16, validation: bool },
    NotSent,
    Lost,
}

/// Follows all values.
#[derive(Debug, Default)]
pub(crate) struct Values {
    all: Vec<Value>,
    keys: HashMap<Key, Vec<u64>>,
    /// What the backend should have stored: the value's number, and whether a POST made the row.
    rows: BTreeMap<Key, (u64, bool)>,
    /// Where the network brought something late or twice.
    ghosts: BTreeSet<Key>,
    life: Life,
    lives: u32,
    /// Values that later ones took the place of, in all lives.
    superseded: u64,
    /// Values outlive the process.
    pub(crate) stored: bool,
    /// They do so in flash.
    pub(crate) flash: bool,
    /// In one that an outage fills.
    pub(crate) small_flash: bool,
    /// The flash was full, in any life.
    gave_way: bool,
    /// In this one.
    gives_way: bool,
    /// The disk does what it is told.
    pub(crate) healthy: bool,
    pub(crate) power_cuts: bool,
    /// Values are thinned where there are too many.
    pub(crate) thins: bool,
    /// How often a file was thinned at most.
    pub(crate) passes: u32,
    /// Values were dropped for other reasons than that others are there.
    others_dropped: bool,
    pub(crate) clock_jumps: bool,
    /// When the host's clock was set, and how far it is ahead of true time since then, in milliseconds.
    clock_sets: Vec<(u64, i64)>,
    /// A value that waited longer is dropped.
    pub(crate) max_age_ms: u64,
    /// So many values the next life would find if no file had to go.
    least: Option<u64>,
    /// At least so many values must be found by the next life, at most so many can be.
    expected: Option<(u64, u64)>,
    /// The first that may still be open.
    open: usize,
    pub(crate) violation: Option<Violation>,
    now_ms: u64,
    /// How far each `Date` was from true time when it was read, in milliseconds: a board's clock is off by one of these.
    told_ms: BTreeSet<i64>,
    pub(crate) start_unix_ms: u64,
    pub(crate) board: bool,
    pub(crate) longest_wait_ms: u64,
}

impl Values {
    pub(crate) fn set_now(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// The host's clock was set.
    pub(crate) fn clock_set(&mut self, ahead_ms: i64) {
        self.clock_sets.push((self.now_ms, ahead_ms));
    }

    /// How old a value that was handed over then has been at most, by the host's clock.
    fn age_ms(&self, handed_over_ms: u64) -> u64 {
        let ends = self.clock_sets.iter().map(|set| set.0).skip(1).chain([self.now_ms]);
        let ahead = |set: &&(u64, i64)| set.0 <= handed_over_ms;
        let ahead_ms = self.clock_sets.iter().rev().find(ahead).map_or(0, |set| set.1);
        let since = self.clock_sets.iter().zip(ends).filter(|(_, end)| *end > handed_over_ms);
        let ages = since.map(|(set, end)| (end - handed_over_ms).saturating_add_signed(set.1 - ahead_ms));
        ages.max().unwrap_or(0).max(self.now_ms - handed_over_ms)
    }

    pub(crate) fn violate(&mut self, invariant: Invariant, found: String) {
        let at_ms = self.now_ms;
        self.violation.get_or_insert(Violation { invariant, at_ms, found });
    }

    /// An answer's `Date` was read; it has whole seconds, cut off.
    pub(crate) fn date_told(&mut self, unix_s: u64) {
        if self.board {
            let told = i64::try_from(unix_s * 1000 + 500).unwrap_or(i64::MAX);
            self.told_ms.insert(told - i64::try_from(self.start_unix_ms + self.now_ms).unwrap_or(i64::MAX));
        }
    }

    fn get(&self, number: u64) -> Option<&Value> {
        self.all.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Value> {
        self.all.get_mut(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    /// The number of the next value that is handed over.
    pub(crate) fn next_number(&self) -> u64 {
        self.all.len() as u64 + 1
    }

    pub(crate) fn count(&self) -> u64 {
        self.all.len() as u64
    }

    /// Values that the backend has refused or will refuse, and has not stored.
    pub(crate) fn bad(&self) -> u64 {
        let bad = self.all.iter().filter(|value| server::is_bad(&value.path) && !value.superseded);
        bad.filter(|value| value.acknowledged_ms.is_none()).count() as u64
    }

    /// A value was taken; `learned`: its time is, or will be, what the collector has learned.
    pub(crate) fn handed_over(
        &mut self,
        account: u64,
        path: &str,
        number: u64,
        time_ms: Option<u64>,
        own_time: bool,
        learned: bool,
    ) {
        if number != self.next_number() {
            self.violate(
                Invariant::Values,
                format!("value {number} was taken in place of {}", self.next_number()),
            );
            return;
        }
        let digits = wire::number(number).to_string().len();
        let cells = u32::try_from(Cell::needed(path.len() + digits)).unwrap_or(u32::MAX);
        let (handed_over_ms, life) = (self.now_ms, self.lives);
        self.life.handed_over += 1;
        self.life.handed_over_cells += u64::from(cells);
        self.all.push(Value {
            account,
            path: path.into(),
            time_ms: None,
            handed_over_ms,
            own_time,
            learned,
            untimed: time_ms.is_none(),
            life,
            cells,
            acknowledged_ms: None,
            acknowledged_in: 0,
            stored: 0,
            stored_by_post: false,
            superseded: false,
            unknown: None,
            refused_alone: false,
            unsafe_at_end: false,
            removed: false,
        });
        if let Some(time_ms) = time_ms {
            self.fix_time(number, time_ms);
        }
    }

    fn fix_time(&mut self, number: u64, time_ms: u64) {
        let Some(value) = self.get_mut(number) else { return };
        value.time_ms = Some(time_ms);
        let (handed_over_ms, learned) = (value.handed_over_ms, value.learned);
        let key: Key = (value.account, value.path.clone(), time_ms);
        if learned {
            let true_ms = i64::try_from(self.start_unix_ms + handed_over_ms).unwrap_or(i64::MAX);
            let off_ms = i64::try_from(time_ms).unwrap_or(i64::MAX) - true_ms;
            if !self.told_ms.contains(&off_ms) {
                let near: Vec<i64> = self.told_ms.range(off_ms - 5000..off_ms + 5000).copied().collect();
                self.violate(
                    Invariant::Values,
                    format!("value {number} got a time that is off by {off_ms} ms; near it answers were off by {near:?} ms"),
                );
            }
        }
        let same = self.keys.entry(key).or_default();
        same.push(number);
        same.sort_unstable();
        let earlier: Vec<u64> = same.iter().copied().take(same.len() - 1).collect();
        for number in earlier {
            if let Some(value) = self.get_mut(number)
                && !value.superseded
            {
                value.superseded = true;
                self.life.superseded += 1;
                self.superseded += 1;
            }
        }
    }

    /// A request with values is sent: its values' numbers.
    pub(crate) fn sent(
        &mut self,
        account: u64,
        post: bool,
        elements: &[Element<'_>],
        post_max_age_ms: u64,
        made_ms: u64,
    ) -> Vec<u64> {
        let mut numbers = Vec::with_capacity(elements.len());
        if post {
            self.life.posts = true;
        }
        for element in elements {
            let (number, life) = (element.number, self.lives);
            let Some(value) = self.get(number) else {
                self.violate(
                    Invariant::Values,
                    format!("value {number} at {} was never handed over", element.path),
                );
                continue;
            };
            let value = value.clone();
            if value.account != account || *value.path != *element.path {
                self.violate(
                    Invariant::Values,
                    format!(
                        "value {number} of account {} at {} went out for account {account} at {}",
                        value.account, value.path, element.path
                    ),
                );
            }
            if post == element.time_ms.is_some() {
                self.violate(Invariant::Values, format!("value {number}: a PUT has times, a POST has none"));
            }
            match (element.time_ms, value.time_ms) {
                (Some(sent_ms), Some(time_ms)) if sent_ms != time_ms => self.violate(
                    Invariant::Values,
                    format!("value {number} has the time {time_ms} ms and went out with {sent_ms} ms"),
                ),
                (Some(sent_ms), None) => self.fix_time(number, sent_ms),
                _ => {}
            }
            if value.acknowledged_ms.is_some() && value.acknowledged_in == life {
                self.violate(
                    Invariant::Repeats,
                    format!("value {number} was acknowledged and went out again"),
                );
            }
            if value.unknown == Some(life) {
                self.violate(
                    Invariant::Repeats,
                    format!(
                        "value {number} was in a POST of which nobody knows what became, and went out again"
                    ),
                );
            }
            if !post && let Some((later, in_life)) = self.later_acknowledged(&value, number) {
                // A board's live value can't see that an earlier one of the same millisecond is in flash only. Nor can a
                // host's that one of an earlier life is in files only, if its clock was set back.
                let unseen = self.flash || value.life != life && self.clock_jumps;
                let excused = if in_life == life { unseen } else { !self.healthy || self.power_cuts };
                if !excused {
                    self.violate(
                        Invariant::Repeats,
                        format!(
                            "value {number} went out although {later}, with the same path and time, is stored"
                        ),
                    );
                } else if let Some(time_ms) = value.time_ms {
                    // What was done with it was lost with the file that said so.
                    self.ghosts.insert((account, element.path.into(), time_ms));
                }
            }
            if post && (value.own_time || made_ms.saturating_sub(value.handed_over_ms) > post_max_age_ms) {
                self.violate(
                    Invariant::Values,
                    format!("value {number}, handed over at {} ms, went out by POST", value.handed_over_ms),
                );
            }
            if post && numbers.iter().any(|n| self.get(*n).is_some_and(|v| v.path == value.path)) {
                self.violate(Invariant::Values, format!("a POST has {} twice", value.path));
            }
            numbers.push(number);
        }
        numbers
    }

    /// A later value with the same path and time that was acknowledged, and in which life.
    fn later_acknowledged(&self, value: &Value, number: u64) -> Option<(u64, u32)> {
        let key = (value.account, value.path.clone(), value.time_ms?);
        let later = self.keys.get(&key)?.iter().rev().filter(|n| **n > number);
        later.copied().find_map(|n| {
            let value = self.get(n).filter(|v| v.acknowledged_ms.is_some())?;
            Some((n, value.acknowledged_in))
        })
    }

    /// The backend has stored a value, at this time; `ghost`: of a request that is over for the bot.
    pub(crate) fn stored(
        &mut self,
        account: u64,
        path: &str,
        number: u64,
        time_us: i64,
        post: bool,
        ghost: bool,
    ) {
        let Some(value) = self.get_mut(number) else {
            self.violate(
                Invariant::Values,
                format!("the backend stored {number} at {path}, which was never handed over"),
            );
            return;
        };
        value.stored += 1;
        value.stored_by_post |= post;
        let time_ms = u64::try_from((time_us + 500).div_euclid(1000)).unwrap_or(0);
        let key: Key = (account, path.into(), time_ms);
        if ghost {
            self.ghosts.insert(key.clone());
        }
        self.rows.insert(key, (number, post));
    }

    /// A request with values has come to its end, as the collector is told.
    pub(crate) fn ended(&mut self, numbers: &[u64], post: bool, outcome: Outcome) {
        let (now_ms, life) = (self.now_ms, self.lives);
        let acknowledged = matches!(outcome, Outcome::Status { code: 200..=299, .. });
        let unknown = post && matches!(outcome, Outcome::Lost | Outcome::Status { code: 500 | 504, .. });
        let refused = numbers.len() == 1
            && match outcome {
                Outcome::Status { code: 413, .. } => true,
                Outcome::Status { code: 400, validation } => validation,
                Outcome::Status { code: 500, .. } => !post,
                _ => false,
            };
        for &number in numbers {
            let (mut wait_ms, mut cells, mut lost) = (0, 0, false);
            if let Some(value) = self.get_mut(number) {
                cells = value.cells;
                wait_ms = now_ms - value.handed_over_ms;
                if acknowledged {
                    value.acknowledged_ms = Some(now_ms);
                    value.acknowledged_in = life;
                    lost = value.stored == 0;
                }
                if unknown {
                    value.unknown = Some(life);
                }
                value.refused_alone |= refused;
            }
            if lost {
                self.violate(Invariant::Values, format!("value {number} was acknowledged and is not stored"));
            }
            if acknowledged {
                self.life.acknowledged += 1;
                self.life.acknowledged_cells += u64::from(cells);
                self.longest_wait_ms = self.longest_wait_ms.max(wait_ms);
            }
            self.life.unknown += u64::from(unknown);
            self.life.refused_alone += u64::from(refused);
        }
    }

    /// PUT was denied: POST may be tried.
    pub(crate) fn put_denied(&mut self) {
        self.life.posts = true;
    }

    /// Compares the ledger with what was seen, and asks of each drop which rule said so.
    pub(crate) fn check(&mut self, ledger: &Ledger, parked: u64, cells: usize, max_age_ms: u64) {
        if !ledger.balanced() {
            self.violate(Invariant::Ledger, format!("it does not balance: {ledger}"));
        }
        let life = self.life;
        for (what, counted, seen) in [
            ("collected", ledger.collected, life.handed_over),
            ("delivered", ledger.delivered, life.acknowledged),
            ("dropped{unknown}", ledger.dropped_by(DropReason::Unknown), life.unknown),
        ] {
            if counted != seen {
                self.violate(Invariant::Ledger, format!("{what} is {counted}, seen were {seen}: {ledger}"));
            }
        }
        let limit = cells as u64;
        if ledger.queued.saturating_sub(parked) > limit {
            self.violate(Invariant::Bounds, format!("{} values wait in {limit} cells", ledger.queued));
        }
        for reason in DropReason::ALL {
            let (dropped, at) = (ledger.dropped_by(reason), reason as usize);
            let before = life.dropped.get(at).copied().unwrap_or(0);
            if dropped == before {
                continue;
            }
            if let Some(count) = self.life.dropped.get_mut(at) {
                *count = dropped;
            }
            self.others_dropped |= !matches!(reason, DropReason::Thinned | DropReason::Superseded);
            let allowed = match reason {
                DropReason::Refused => dropped <= life.refused_alone,
                DropReason::Unknown => true,
                DropReason::Superseded if self.stored => dropped <= self.superseded,
                DropReason::Superseded => dropped <= life.superseded,
                DropReason::Thinned => self.thins,
                DropReason::Full if self.stored && !self.flash => !self.healthy,
                DropReason::Full if self.gave_way => true,
                DropReason::Corrupt => self.stored && !self.healthy,
                DropReason::Full => {
                    // What is gone has left at least one cell each.
                    let gone =
                        life.acknowledged_cells + ledger.dropped_total().saturating_sub(dropped - before);
                    (life.handed_over_cells + 6 * ledger.recovered).saturating_sub(gone) + 6 >= limit
                }
                // Their ages are by the process's wall clock; those that were done with just before its end may come back.
                DropReason::TooOld if self.stored => {
                    let first_ms = self.all.first().map_or(self.now_ms, |value| value.handed_over_ms);
                    self.clock_jumps || self.now_ms - first_ms > max_age_ms
                }
                DropReason::TooOld => self.oldest_wait_ms() > max_age_ms,
                DropReason::NoTime => life.posts || self.flash && !self.healthy,
                _ => false,
            };
            if !allowed {
                self.violate(
                    Invariant::Drops,
                    format!(
                        "{} more dropped{{{}}} and no rule said so: {ledger}",
                        dropped - before,
                        reason.name()
                    ),
                );
            }
        }
    }

    /// How long the oldest value waits that this life has not delivered.
    fn oldest_wait_ms(&mut self) -> u64 {
        let (life, stored) = (self.lives, self.stored);
        while self
            .all
            .get(self.open)
            .is_some_and(|v| v.acknowledged_ms.is_some() || v.life != life && !stored)
        {
            self.open += 1;
        }
        self.all.get(self.open).map_or(0, |value| self.now_ms - value.handed_over_ms)
    }

    /// Values in flash have given way to later ones.
    pub(crate) fn flash_is_full(&mut self) {
        (self.gave_way, self.gives_way) = (true, true);
    }

    /// The process has ended: of the values that waited, those must be found by the next life that were handed over more
    /// than so many milliseconds ago; none: nobody knows. `stored_before_ms`: those handed over before are stored for certain.
    /// One that had not `begun` has changed nothing of what there was.
    pub(crate) fn life_ended(
        &mut self,
        ledger: &Ledger,
        unsafe_ms: Option<u64>,
        stored_before_ms: Option<u64>,
        begun: bool,
    ) {
        // In a small flash also records of values in memory give way, of which no event tells.
        let gives_way = core::mem::take(&mut self.gives_way) || self.small_flash;
        let healthy = self.stored && self.healthy && !gives_way;
        if begun {
            let safe_ms = unsafe_ms.map_or(0, |ms| self.now_ms.saturating_sub(ms));
            for value in self.all.iter_mut().rev().take_while(|v| v.handed_over_ms >= safe_ms) {
                value.unsafe_at_end |= value.acknowledged_ms.is_none();
            }
            let expected = unsafe_ms.map(|ms| {
                let safe_ms = self.now_ms.saturating_sub(ms).max(stored_before_ms.unwrap_or(0));
                let open = |v: &&Value| v.acknowledged_ms.is_none();
                let fresh = self.all.iter().rev().take_while(|v| v.handed_over_ms >= safe_ms);
                let fresh = fresh.filter(open).count() as u64;
                // Boards find those too, but can't tell their times.
                let of_life = self.all.iter().rev().take_while(|v| v.life == self.lives);
                let untimed = of_life.filter(|v| self.flash && v.untimed).filter(open).count() as u64;
                // What was done with a moment ago may not be written as done.
                let done = ledger.delivered + ledger.dropped_total();
                // The store may know better than the collector, which was suspended or has not looked since; and it goes by
                // the host's clock, what is in memory does not.
                let old = self.all.iter().filter(open);
                let old =
                    old.filter(|v| self.age_ms(v.handed_over_ms) + 1_000 > self.max_age_ms).count() as u64;
                let least = ledger.queued.saturating_sub(fresh + untimed + old);
                (least, ledger.queued + done.min(self.all.len() as u64))
            });
            self.expected = expected.filter(|_| healthy);
            self.least = expected.map(|(least, _)| least);
        }
        self.life = Life::default();
        self.lives += 1;
    }

    /// A life begins: it has found this.
    pub(crate) fn life_begins(&mut self, ledger: &Ledger) {
        if let Some((least, most)) = self.expected.take()
            && !(least..=most).contains(&ledger.queued)
        {
            let text = format!("{} values were found, {least} to {most} were to be: {ledger}", ledger.queued);
            self.violate(Invariant::Storage, text);
        }
        // Files that gave way to the bound while memory still had their values: no count tells.
        self.others_dropped |= self.least.take().is_some_and(|least| ledger.queued < least);
        for reason in DropReason::ALL {
            if let Some(count) = self.life.dropped.get_mut(reason as usize) {
                *count = ledger.dropped_by(reason);
            }
        }
    }

    /// Values handed over since this time, and all before.
    pub(crate) fn handed_over_since(&self, since_ms: u64) -> u64 {
        self.all.iter().rev().take_while(|v| v.handed_over_ms >= since_ms).count() as u64
    }

    /// After the faults: all values handed over from the first time until the second were there this fast.
    pub(crate) fn check_live(&mut self, from_ms: u64, until_ms: u64, within_ms: u64) {
        // A POST drops what could not go at once.
        if self.life.posts {
            return;
        }
        let slow = self.all.iter().enumerate().rev().find(|(_, value)| {
            (from_ms..until_ms).contains(&value.handed_over_ms)
                && !value.superseded
                && value.acknowledged_ms.is_none_or(|ms| ms - value.handed_over_ms > within_ms)
        });
        if let Some((at, value)) = slow {
            let text = format!(
                "value {} was handed over at {} ms, after the faults, and acknowledged at {:?} ms: more than {within_ms} ms",
                at + 1,
                value.handed_over_ms,
                value.acknowledged_ms
            );
            self.violate(Invariant::Drain, text);
        }
    }

    /// An account was removed, and all that was stored in it.
    pub(crate) fn account_gone(&mut self, id: i32) {
        let account = u64::try_from(id).unwrap_or(0);
        self.rows.retain(|key, _| key.0 != account);
        for value in self.all.iter_mut().filter(|v| v.account == account && v.stored > 0) {
            value.removed = true;
        }
    }

    /// At the end: of each path and window the lowest, the highest and the last value have arrived, if thinning was all that values
    /// were dropped for.
    pub(crate) fn check_thinned(&mut self) {
        if self.passes == 0 || self.others_dropped {
            return;
        }
        // Narrower windows, of files that were thinned less, are parts of it.
        let window_ms = 60_000 << (2 * (self.passes - 1));
        let mut windows: BTreeMap<_, Vec<(u64, &Value)>> = BTreeMap::new();
        for (value, identity) in self.all.iter().zip(1..) {
            let Some(time_ms) = value.time_ms else { continue };
            let key: (u64, &str, u64) = (value.account, &value.path, time_ms / window_ms);
            windows.entry(key).or_default().push((identity, value));
        }
        let mut lost = None;
        for values in windows.values().filter(|values| !values.iter().any(|(_, v)| v.unsafe_at_end)) {
            let number = |(identity, _): &&(u64, &Value)| wire::number(*identity);
            let last = values.iter().max_by_key(|(identity, v)| (v.time_ms, *identity));
            let kept = [
                ("lowest", values.iter().min_by_key(number)),
                ("highest", values.iter().max_by_key(number)),
                ("last", last),
            ];
            for (what, value) in kept {
                if let Some((identity, value)) = value
                    && value.acknowledged_ms.is_none()
                    && !value.superseded
                {
                    lost = lost.or(Some((what, *identity, value.path.clone(), values.len())));
                }
            }
        }
        if let Some((what, identity, path, count)) = lost {
            let text = format!(
                "value {identity} was the {what} of {count} at {path} in its {window_ms} ms, and was thinned out"
            );
            self.violate(Invariant::Storage, text);
        }
    }

    /// Compares what was seen to be stored with the rows that the backend has now: each (path, time) once, with the right number.
    pub(crate) fn check_rows(&mut self, rows: impl Iterator<Item = (u64, String, i64, f64)>) {
        let mut seen = 0;
        for (account, path, time_us, number) in rows {
            let time_ms = u64::try_from((time_us + 500).div_euclid(1000)).unwrap_or(0);
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let number = wire::identity(number as u64) as f64;
            #[allow(clippy::cast_precision_loss)]
            let known = self
                .rows
                .get(&(account, path.as_str().into(), time_ms))
                .is_some_and(|(n, _)| *n as f64 == number);
            if !known || time_us.rem_euclid(1000) != 0 {
                self.violate(
                    Invariant::Values,
                    format!("there is a row {path} {time_us} us = {number} that nobody wrote"),
                );
            }
            seen += 1;
        }
        if seen != self.rows.len() {
            let wanted = self.rows.len();
            self.violate(Invariant::Values, format!("{seen} of {wanted} rows are there"));
        }
        let wrong = self.rows.iter().find_map(|(key, (number, post))| {
            let time_ms = self.get(*number)?.time_ms;
            (!post && time_ms != Some(key.2))
                .then(|| format!("value {number} is at {} ms, its time is {time_ms:?} ms", key.2))
        });
        if let Some(text) = wrong {
            self.violate(Invariant::Values, text);
        }
        // Of several with the same path and time the latest counts, unless the network brought an earlier one late.
        let lost = self.all.iter().zip(1u64..).find_map(|(value, number)| {
            if value.acknowledged_ms.is_none() || value.superseded || value.stored_by_post || value.removed {
                return None;
            }
            let key: Key = (value.account, value.path.clone(), value.time_ms?);
            // Nor one of a POST, which the backend stamps by its own clock, that may have been set back.
            let there = self.rows.get(&key);
            let explained =
                there.is_some_and(|(n, post)| *n == number || *post) || self.ghosts.contains(&key);
            (!explained).then(|| {
                format!("value {number} at {} {} ms was acknowledged; there is {there:?}", value.path, key.2)
            })
        });
        if let Some(text) = lost {
            self.violate(Invariant::Values, text);
        }
    }
}
