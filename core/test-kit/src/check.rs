//! Assertions that say what was there instead.

use core::fmt::Write as _;
use core::ops::RangeInclusive;
use std::collections::HashMap;

use grafolean_core::bot::Bot;
use grafolean_core::outbox::DropReason;
use grafolean_core::storage::Storage;

use crate::lab::{ACCOUNT, Lab};
use crate::record::{HandedOver, Outcome, Run, Stored};

/// So far the times of a board's values may be from the true ones, in milliseconds: `Date`, which it learns the time from, has seconds.
pub const LEARNED_CLOCK_MS: i64 = 1000;
/// Lines of each kind that a report shows.
const SHOWN: usize = 10;
/// Paths that are compared in the search for near ones.
const COMPARED: usize = 10_000;

impl<B: Bot + 'static, S: Storage<B> + 'static> Lab<B, S> {
    /// The backend's newest value of this path of the first account is this number.
    ///
    /// # Panics
    /// If not; names the paths that are near if there is no such one.
    #[track_caller]
    pub fn assert_value(&self, path: &str, number: f64) {
        match self.value(path) {
            Some(value) if value == number => {}
            Some(value) => {
                panic!(
                    "{path} is {value}, not {number}; all of it: {:?}{}",
                    self.series(path),
                    self.waiting()
                )
            }
            None => panic!("there is no value of {path}{}", self.near(path)),
        }
    }

    /// The backend has these numbers of this path of the first account, in order of time.
    ///
    /// # Panics
    /// If not; names the paths that are near if there is no such one.
    #[track_caller]
    pub fn assert_series(&self, path: &str, numbers: &[f64]) {
        let series = self.series(path);
        if series.is_empty() && !numbers.is_empty() {
            panic!("there is no value of {path}{}", self.near(path))
        }
        if !series.iter().map(|(_, number)| number).eq(numbers) {
            panic!("{path} has {series:?} (ms, number), not the numbers {numbers:?}{}", self.waiting())
        }
    }

    /// The backend has no value of this path of the first account.
    ///
    /// # Panics
    /// If it has.
    #[track_caller]
    pub fn assert_no_value(&self, path: &str) {
        let series = self.series(path);
        if !series.is_empty() {
            panic!("{path} has values: {series:?} (ms, number)")
        }
    }

    /// There were runs that have ended, and all of them ended well.
    ///
    /// # Panics
    /// If not; shows those that did not.
    #[track_caller]
    pub fn assert_all_done(&self) {
        let runs = self.runs();
        let ended = runs.iter().filter(|run| run.outcome != Outcome::Running);
        let bad: Vec<&Run> = ended.clone().filter(|run| !run.is_done()).collect();
        if ended.count() == 0 {
            panic!("no run has ended\n{}", self.report())
        }
        if !bad.is_empty() {
            panic!("{} of {} runs did not end well:{}", bad.len(), runs.len(), lines(bad.iter()))
        }
    }

    /// The last run that has ended failed, and its error holds this text.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn assert_last_run_failed(&self, text: &str) {
        let runs = self.runs();
        let last = runs.iter().filter(|run| run.outcome != Outcome::Running).max_by_key(|run| {
            // Of several at the same instant, the one that began last.
            run.began_ms + run.took_ms.unwrap_or(0)
        });
        match last {
            Some(Run { outcome: Outcome::Failed(why), .. }) if why.contains(text) => {}
            Some(run) => panic!("the last run has not failed by {text:?}: {run}"),
            None => panic!("no run has ended, so none failed by {text:?}\n{}", self.report()),
        }
    }

    /// The collector has told something that holds this text.
    ///
    /// # Panics
    /// If not; shows what it has told.
    #[track_caller]
    pub fn assert_told(&self, text: &str) {
        if !self.events().iter().any(|told| told.text.contains(text)) {
            panic!("nobody has told {text:?}, only:{}", lines(self.events().iter().rev()))
        }
    }

    /// No run has failed, and the collector has told nothing that it would warn of: no faults, no failed refreshes, no cancelled runs.
    ///
    /// # Panics
    /// If it has; shows it.
    #[track_caller]
    pub fn assert_no_warnings(&self) {
        let warnings: Vec<_> = self.events().iter().filter(|told| told.event.is_warning()).collect();
        let runs = self.runs();
        let failed: Vec<_> = runs.iter().filter(|run| matches!(run.outcome, Outcome::Failed(_))).collect();
        if !warnings.is_empty() || !failed.is_empty() {
            panic!(
                "there were {} warnings:{}\nand {} failed runs:{}",
                warnings.len(),
                lines(warnings.iter()),
                failed.len(),
                lines(failed.iter())
            )
        }
    }

    /// All misbehaviour that was scripted has happened, at least once each: every [`Lab::answer_next`] and [`Lab::answer_always`] had a
    /// request that it was for, and one was made in every [`Lab::outage_s`].
    ///
    /// # Panics
    /// If not; shows what has not happened.
    #[track_caller]
    pub fn assert_all_answered(&self) {
        let calls = self.misbehaviour.not_happened();
        if !calls.is_empty() {
            panic!(
                "there was no request for:{}\nbut for:{}",
                lines(calls.iter()),
                lines(self.requests().iter().rev())
            )
        }
    }

    /// The bot has handed over values, and the backend has one stored value for each of them: of the same account, path, time in
    /// milliseconds and number; none waits, was refused or dropped. A value that was followed by another one of its path and
    /// millisecond is not looked for: the later one takes its place.
    ///
    /// Two kinds of times are known less exactly. A board learns the wall clock's time from the backend: its values may be off by
    /// a second, [`LEARNED_CLOCK_MS`]. Where the backend permits no PUT, values go by POST and get the backend's time: then a stored
    /// value of the same account, path and number counts if it came with a POST that arrived when or after the value was handed over.
    ///
    /// # Panics
    /// If not, or if no value was handed over at all (where that is meant: [`Lab::assert_nothing_handed_over`]); names the first
    /// that is missing, and what there is of its path.
    #[track_caller]
    pub fn assert_delivered(&self) {
        let (ledger, handed_over) = (self.ledger(), self.handed_over());
        if handed_over.is_empty() {
            panic!("no value was handed over\n{}", self.report())
        }
        let mut backend = Samples::new(self.values());
        let latest: HashMap<_, _> =
            handed_over.iter().enumerate().map(|(i, handed)| (place(handed), i)).collect();
        let mut missing: Vec<&HandedOver> = handed_over
            .iter()
            .enumerate()
            .filter(|(i, handed)| latest.get(&place(handed)) == Some(i))
            .map(|(_, handed)| handed)
            .collect();
        let wanted = missing.len();
        // What is known exactly is taken first.
        missing.retain(|handed| {
            let off_ms = if handed.time_ms.is_some() { 0 } else { LEARNED_CLOCK_MS };
            let expected_ms = handed.expected_ms();
            let range_ms = expected_ms.saturating_sub(off_ms)..=expected_ms.saturating_add(off_ms);
            !backend.take(handed, range_ms, |_| true)
        });
        missing.retain(|handed| {
            let range_ms = i64::try_from(handed.at_ms).unwrap_or(i64::MAX)..=i64::MAX;
            !backend.take(handed, range_ms, |at_ms| self.posted_ms.contains(&at_ms))
        });
        if let Some(first) = missing.first() {
            let there = backend.of(first);
            panic!(
                "{first} of {} ms is not in the backend, nor are {} more of {wanted} values; it has of this path, in ms:{}\n{ledger}",
                first.expected_ms(),
                missing.len() - 1,
                lines(there.iter().map(|sample| format!("{}={}", sample.at_ms, sample.number))),
            )
        }
        if ledger.delivered + ledger.dropped_by(DropReason::Superseded) != ledger.collected + ledger.recovered
        {
            panic!("not all values are delivered: {ledger}")
        }
    }

    /// The bot has handed over no value so far.
    ///
    /// # Panics
    /// If it has; shows them.
    #[track_caller]
    pub fn assert_nothing_handed_over(&self) {
        let handed_over = self.handed_over();
        if !handed_over.is_empty() {
            panic!("{} values were handed over:{}", handed_over.len(), lines(handed_over.iter()))
        }
    }

    /// What has happened so far, in short: for messages of one's own.
    #[must_use]
    pub fn report(&self) -> String {
        let runs = self.runs();
        let count = |which: fn(&Outcome) -> bool| runs.iter().filter(|run| which(&run.outcome)).count();
        let mut text = format!(
            "After {} ms: {} jobs; runs: {} done, {} failed, {} cancelled, {} under way; {} requests; {} values in the backend",
            self.now_ms(),
            self.jobs().len(),
            count(|o| *o == Outcome::Done),
            count(|o| matches!(o, Outcome::Failed(_))),
            count(|o| *o == Outcome::Cancelled),
            count(|o| *o == Outcome::Running),
            self.requests().len(),
            self.values().len(),
        );
        let calls = self.misbehaviour.not_happened();
        if !calls.is_empty() {
            let _ = write!(text, "\nScripted and not happened:{}", lines(calls.iter()));
        }
        if let Some(hint) = self.woken_elsewhere() {
            let _ = write!(text, "\n{hint}");
        }
        let _ = write!(text, "\nLast runs:{}", lines(runs.iter().rev()));
        let _ = write!(text, "\nLast told:{}", lines(self.events().iter().rev()));
        text
    }

    /// What paths there are that this one could have been meant for.
    fn near(&self, path: &str) -> String {
        let mut paths: Vec<(usize, String)> = self.values().into_iter().map(|v| (0, v.path)).collect();
        paths.dedup();
        paths.truncate(COMPARED);
        if paths.is_empty() {
            let ledger = self.ledger();
            return format!(
                ", nor of any other path of account {ACCOUNT}; {} values were handed over{}",
                ledger.collected,
                self.waiting()
            );
        }
        for (distance, other) in &mut paths {
            *distance = edits(path, other);
        }
        paths.sort();
        let all = paths.len();
        let near: Vec<&str> = paths.iter().take(5).map(|(_, path)| path.as_str()).collect();
        format!("; the nearest of {all} paths: {}{}", near.join(", "), self.waiting())
    }

    /// What to do about values that are still under way.
    fn waiting(&self) -> String {
        match self.ledger().queued {
            0 => String::new(),
            n => format!("; {n} wait to be sent: values travel together, go on for a second (run_for_s(1))"),
        }
    }
}

/// Where a value belongs: one of the same place follows it, and takes its place.
fn place(handed: &HandedOver) -> (u64, &str, i64) {
    (handed.key.account, &handed.path, handed.expected_ms())
}

/// The backend's values, each to be taken by one that was handed over.
struct Samples(HashMap<(u64, String), Vec<Sample>>);

struct Sample {
    at_ms: i64,
    number: f64,
    taken: bool,
}

impl Samples {
    /// Those of each path are in the order of their times.
    fn new(values: Vec<Stored>) -> Self {
        let mut all: HashMap<_, Vec<Sample>> = HashMap::new();
        for Stored { account, path, at_ms, number } in values {
            all.entry((account, path)).or_default().push(Sample { at_ms, number, taken: false });
        }
        Samples(all)
    }

    fn of(&self, handed: &HandedOver) -> &[Sample] {
        self.0.get(&(handed.key.account, handed.path.clone())).map_or(&[], Vec::as_slice)
    }

    /// Takes the first of these times that may be this value; whether there is one.
    fn take(
        &mut self,
        handed: &HandedOver,
        range_ms: RangeInclusive<i64>,
        may_be: impl Fn(i64) -> bool,
    ) -> bool {
        // The backend has no negative zero.
        let Ok(number) = handed.number.parse::<f64>().map(|number| number + 0.0) else { return false };
        let Some(samples) = self.0.get_mut(&(handed.key.account, handed.path.clone())) else { return false };
        let first = samples.partition_point(|sample| sample.at_ms < *range_ms.start());
        let in_time = samples.iter_mut().skip(first).take_while(|sample| sample.at_ms <= *range_ms.end());
        let fits = |sample: &&mut Sample| !sample.taken && sample.number == number && may_be(sample.at_ms);
        let found = in_time.into_iter().find(fits);
        found.map(|sample| sample.taken = true).is_some()
    }
}

/// Each on a line of its own, some of them.
fn lines<T: core::fmt::Display>(all: impl Iterator<Item = T>) -> String {
    let mut text = String::new();
    let mut n = 0;
    for one in all {
        n += 1;
        if n <= SHOWN {
            let _ = write!(text, "\n  {one}");
        }
    }
    match n {
        0 => text.push_str(" none"),
        n if n > SHOWN => {
            let _ = write!(text, "\n  and {} more", n - SHOWN);
        }
        _ => {}
    }
    text
}

/// The edit distance of two texts (Levenshtein), by bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (j, y) in b.bytes().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or(usize::MAX);
            let best = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            diagonal = above;
            if let Some(cell) = row.get_mut(j) {
                *cell = left;
            }
            left = best;
        }
        if let Some(cell) = row.last_mut() {
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::edits;

    #[test]
    fn edit_distances_count_changes_insertions_and_deletions() {
        for (a, b, n) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("ab", "ba", 2),
            ("a", "a", 0),
        ] {
            assert_eq!((edits(a, b), edits(b, a)), (n, n), "{a} {b}");
        }
    }
}
