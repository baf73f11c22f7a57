//! Assertions that say what was there instead.

use core::fmt::Write as _;
use std::collections::HashMap;

use grafolean_core::bot::Bot;
use grafolean_core::storage::Storage;

use crate::lab::{ACCOUNT, Lab};
use crate::record::{Outcome, Run};

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
            Some(value) => panic!("{path} is {value}, not {number}; all of it: {:?}", self.series(path)),
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
            panic!("{path} has {series:?} (ms, number), not the numbers {numbers:?}")
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

    /// The collector has told nothing that it would warn of: no faults, no failed refreshes, no cancelled runs.
    ///
    /// # Panics
    /// If it has; shows it.
    #[track_caller]
    pub fn assert_no_warnings(&self) {
        let warnings: Vec<_> = self.events().iter().filter(|told| told.event.is_warning()).collect();
        if !warnings.is_empty() {
            panic!("there were {} warnings:{}", warnings.len(), lines(warnings.iter()))
        }
    }

    /// Every value that was handed over is in the backend (one of its path and number), none waits or was dropped.
    ///
    /// # Panics
    /// If not; names the first that is missing.
    #[track_caller]
    pub fn assert_delivered(&self) {
        let ledger = self.ledger();
        let mut stored: HashMap<(u64, String), Vec<f64>> = HashMap::new();
        for value in self.values() {
            stored.entry((value.account, value.path)).or_default().push(value.number);
        }
        stored.values_mut().for_each(|numbers| numbers.sort_by(f64::total_cmp));
        for handed in self.handed_over() {
            let there = |numbers: &Vec<f64>| {
                // The backend has no negative zero.
                let number = handed.number.parse::<f64>().ok().map(|number| number + 0.0);
                number.is_some_and(|n| numbers.binary_search_by(|other| other.total_cmp(&n)).is_ok())
            };
            if !stored.get(&(handed.key.account, handed.path.clone())).is_some_and(there) {
                panic!("{handed} of {} ms is not in the backend; {ledger:?}", handed.at_ms)
            }
        }
        if ledger.delivered != ledger.collected + ledger.recovered {
            panic!("not all values are delivered: {ledger:?}")
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
                ", nor of any other path of account {ACCOUNT}; {} values were handed over, {} wait to be sent",
                ledger.collected, ledger.queued
            );
        }
        for (distance, other) in &mut paths {
            *distance = edits(path, other);
        }
        paths.sort();
        let all = paths.len();
        let near: Vec<&str> = paths.iter().take(5).map(|(_, path)| path.as_str()).collect();
        format!("; the nearest of {all} paths: {}", near.join(", "))
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
