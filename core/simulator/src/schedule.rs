//! The oracle of jobs: when each must run, worked out from its key and intervals alone, and which jobs there must be.

use std::collections::BTreeMap;

use grafolean_core::jobs::{Due, JobKey};

use crate::violation::Invariant;

/// One job as it should be.
#[derive(Clone, Debug)]
struct Model {
    intervals_s: Vec<u32>,
    /// All instants up to this tick are covered by runs that have begun.
    covered: u64,
    /// Its first run has not begun.
    first: bool,
    /// Until this tick a run may be off its grid: its intervals have changed.
    loose_until: u64,
    running: bool,
}

/// All jobs of one life of the process.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    models: BTreeMap<JobKey, Model>,
    /// Keys of runs under way, removed jobs' included.
    under_way: BTreeMap<JobKey, ()>,
    pub(crate) most_late_ms: u64,
}

type Found = (Invariant, String);

/// The tick that a job's grid goes through.
fn start(key: &JobKey, intervals_s: &[u32]) -> u64 {
    key.fnv1a64() % u64::from(intervals_s.iter().copied().max().unwrap_or(1).max(1))
}

/// The first instant of a grid after this tick.
fn next_of(start: u64, interval_s: u32, after: u64) -> u64 {
    let (start, after, interval) = (i128::from(start), i128::from(after), i128::from(interval_s.max(1)));
    let next = after + 1 + (start - after - 1).rem_euclid(interval);
    u64::try_from(next).unwrap_or(u64::MAX)
}

fn next(key: &JobKey, intervals_s: &[u32], after: u64) -> u64 {
    let start = start(key, intervals_s);
    intervals_s.iter().map(|i| next_of(start, *i, after)).min().unwrap_or(u64::MAX)
}

impl Jobs {
    /// The jobs after a refresh, or a part of it, has changed them at tick `now`.
    pub(crate) fn configured(&mut self, now: u64, table: &BTreeMap<JobKey, Vec<u32>>) {
        self.models.retain(|key, _| table.contains_key(key));
        for (key, intervals_s) in table {
            let running = self.under_way.contains_key(key);
            match self.models.get_mut(key) {
                Some(model) if model.intervals_s == *intervals_s => {}
                Some(model) => {
                    let shortest = intervals_s.iter().copied().min().unwrap_or(0);
                    model.intervals_s.clone_from(intervals_s);
                    model.loose_until = now + u64::from(shortest) + 1;
                    model.covered = now;
                }
                None => {
                    let model = Model {
                        intervals_s: intervals_s.clone(),
                        covered: now,
                        first: true,
                        loose_until: 0,
                        running,
                    };
                    self.models.insert(*key, model);
                }
            }
        }
    }

    /// The intervals that jobs have, by key.
    pub(crate) fn table(&self) -> BTreeMap<JobKey, Vec<u32>> {
        self.models.iter().map(|(key, model)| (*key, model.intervals_s.clone())).collect()
    }

    /// The intervals of a job.
    pub(crate) fn intervals_of(&self, key: &JobKey) -> Option<&[u32]> {
        self.models.get(key).map(|model| model.intervals_s.as_slice())
    }

    /// A run begins at tick `now`.
    pub(crate) fn begins(&mut self, now: u64, due: &Due) -> Result<(), Found> {
        self.most_late_ms = self.most_late_ms.max(due.late_ms);
        if self.under_way.insert(due.key, ()).is_some() {
            return Err((Invariant::TwiceAtOnce, format!("the {} runs twice at once", due.key)));
        }
        let Some(model) = self.models.get_mut(&due.key) else {
            return Err((Invariant::Schedule, format!("the {} runs and is no job", due.key)));
        };
        model.running = true;
        let (covered, scheduled) = (model.covered, due.scheduled.0);
        let grid = next(&due.key, &model.intervals_s, covered);
        let affecting: Vec<u32> = due.affecting_seconds().collect();
        let wrong = |what: String| {
            let all = &model.intervals_s;
            Err((
                Invariant::Schedule,
                format!("the {} of {all:?} s, covered up to tick {covered}: {what}", due.key),
            ))
        };
        if due.intervals.as_slice() != model.intervals_s {
            return wrong(format!("it runs with intervals {:?}", due.intervals.as_slice()));
        }
        let late_ms = now.saturating_sub(scheduled) * 1000;
        if scheduled > now || due.late_ms / 1000 != late_ms / 1000 {
            return wrong(format!("scheduled at tick {scheduled}, late {} ms at tick {now}", due.late_ms));
        }
        if covered <= model.loose_until && !model.first {
            // Changed intervals: what was pending remains, an extra run may come.
            if affecting.is_empty() || scheduled > grid {
                return wrong(format!(
                    "after a change it runs at {scheduled} for {affecting:?}, its grid at {grid}"
                ));
            }
        } else if model.first {
            if affecting != model.intervals_s || scheduled > grid {
                return wrong(format!("its first run at {scheduled} for {affecting:?}, its grid at {grid}"));
            }
        } else {
            let start = start(&due.key, &model.intervals_s);
            let fallen_due: Vec<u32> =
                model.intervals_s.iter().copied().filter(|i| next_of(start, *i, covered) <= now).collect();
            if scheduled != grid || affecting != fallen_due {
                return wrong(format!(
                    "it runs at {scheduled} for {affecting:?} s at tick {now}; its grid is at {grid} for {fallen_due:?} s"
                ));
            }
            let shortest = model.intervals_s.iter().copied().min().unwrap_or(1);
            let first = next_of(start, shortest, covered);
            let instants = if first > now { 0 } else { 1 + (now - first) / u64::from(shortest.max(1)) };
            if u64::from(due.missed) != instants.saturating_sub(1) {
                return wrong(format!("it says that {} instants were missed of {instants}", due.missed));
            }
        }
        model.first = false;
        model.covered = now;
        Ok(())
    }

    /// A run has ended, or was ended.
    pub(crate) fn ends(&mut self, key: &JobKey) {
        self.under_way.remove(key);
        if let Some(model) = self.models.get_mut(key) {
            model.running = false;
        }
    }

    /// At tick `now` nothing is left to do and runs could begin: none may be due.
    pub(crate) fn at_rest(&self, now: u64) -> Result<(), Found> {
        for (key, model) in &self.models {
            let due = next(key, &model.intervals_s, model.covered);
            if !model.running && due <= now {
                let text = format!(
                    "the {key} of {:?} s is due since tick {due} and does not run at {now}",
                    model.intervals_s
                );
                return Err((Invariant::Schedule, text));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_instant_is_after_the_tick_and_on_the_grid_on_both_sides_of_its_start() {
        assert_eq!(next_of(7, 10, 6), 7);
        assert_eq!(next_of(7, 10, 7), 17);
        assert_eq!(next_of(7, 10, 0), 7);
        assert_eq!(next_of(27, 10, 3), 7);
        for after in 0..50 {
            let next = next_of(23, 7, after);
            assert!(next > after && next <= after + 7 && next % 7 == 23 % 7);
        }
    }
}
