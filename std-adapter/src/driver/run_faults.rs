//! Failing runs, in few lines of log: each job is told when it begins to fail and when it is well again, and one line
//! per refresh counts what was not told.
//!
//! A job whose fault becomes another one is told again, once per refresh at most; numbers within a text do not make it
//! another one. Jobs beyond [`MOST`] are only counted.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use grafolean_core::jobs::JobKey;

/// Failing jobs remembered.
pub(super) const MOST: usize = 1024;

/// The jobs that fail. A failing run costs one look-up, a good one too while there are failing jobs.
#[derive(Default)]
pub(super) struct RunFaults {
    jobs: HashMap<JobKey, Failing>,
    /// Since the last review.
    untold: u64,
}

struct Failing {
    fault: u64,
    /// Since the last review.
    told: bool,
    /// Its last run was a good one.
    well: bool,
}

/// What there is to say at the end of a refresh.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Review {
    /// Jobs that run well again.
    pub(super) recovered: Vec<JobKey>,
    /// Failed runs that were not told.
    pub(super) untold: u64,
    /// Jobs that fail and are remembered.
    pub(super) failing: usize,
}

impl RunFaults {
    /// A run of `job` has failed: whether this is to be told.
    pub(super) fn failed(&mut self, job: JobKey, why: &str) -> bool {
        let fault = without_numbers(why);
        let room = self.jobs.len() < MOST;
        let tell = match self.jobs.get_mut(&job) {
            Some(known) => {
                let tell = known.fault != fault && !known.told;
                (known.fault, known.well) = (fault, false);
                known.told |= tell;
                tell
            }
            None if room => {
                self.jobs.insert(job, Failing { fault, told: true, well: false });
                true
            }
            None => false,
        };
        self.untold += u64::from(!tell);
        tell
    }

    /// A run of `job` went well.
    pub(super) fn went_well(&mut self, job: &JobKey) {
        if !self.jobs.is_empty()
            && let Some(known) = self.jobs.get_mut(job)
        {
            known.well = true;
        }
    }

    /// A refresh has ended. Jobs that are not `there` any more are forgotten.
    pub(super) fn review(&mut self, mut there: impl FnMut(&JobKey) -> bool) -> Review {
        let mut recovered = Vec::new();
        self.jobs.retain(|job, known| {
            known.told = false;
            let stays = there(job);
            if stays && known.well {
                recovered.push(*job);
            }
            stays && !known.well
        });
        recovered.sort_unstable();
        Review { recovered, untold: core::mem::take(&mut self.untold), failing: self.jobs.len() }
    }
}

fn without_numbers(text: &str) -> u64 {
    let mut hash = DefaultHasher::new();
    text.bytes().filter(|b| !b.is_ascii_digit()).for_each(|b| b.hash(&mut hash));
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(entity: u64) -> JobKey {
        JobKey { account: 1, entity, item: 0, name: "" }
    }

    #[test]
    fn a_fault_is_told_when_it_appears_and_when_it_has_gone_and_counted_in_between() {
        let mut faults = RunFaults::default();
        assert!(faults.failed(job(1), "no route"));
        for _ in 0..10 {
            assert!(!faults.failed(job(1), "no route"));
        }
        assert_eq!(faults.review(|_| true), Review { recovered: vec![], untold: 10, failing: 1 });
        faults.went_well(&job(1));
        assert_eq!(faults.review(|_| true), Review { recovered: vec![job(1)], untold: 0, failing: 0 });
        assert_eq!(faults.review(|_| true), Review::default());
        assert!(faults.failed(job(1), "no route"));
    }

    #[test]
    fn a_job_that_fails_every_other_time_is_told_once_per_refresh_at_most() {
        let mut faults = RunFaults::default();
        let mut told = 0;
        for _ in 0..100 {
            told += u32::from(faults.failed(job(1), "no route"));
            faults.went_well(&job(1));
            told += u32::from(faults.failed(job(1), "no memory"));
        }
        assert_eq!(told, 1);
        assert_eq!(faults.review(|_| true).untold, 199);
        assert!(faults.failed(job(1), "no route"));
        assert!(!faults.failed(job(1), "no memory"));
    }

    #[test]
    fn numbers_do_not_make_it_another_fault() {
        let mut faults = RunFaults::default();
        assert!(faults.failed(job(1), "2 of 3 packets not sent"));
        faults.review(|_| true);
        assert!(!faults.failed(job(1), "1 of 3 packets not sent"));
        assert!(faults.failed(job(1), "1 of 3 packets not received"));
    }

    #[test]
    fn no_more_jobs_are_remembered_than_allowed_and_those_removed_are_forgotten() {
        let mut faults = RunFaults::default();
        let told = (0..2 * MOST as u64).filter(|n| faults.failed(job(*n), "no route")).count();
        assert_eq!((told, faults.jobs.len()), (MOST, MOST));
        let review = faults.review(|key| key.entity % 2 == 0);
        assert_eq!(review, Review { recovered: vec![], untold: MOST as u64, failing: MOST / 2 });
        assert!(faults.failed(job(u64::MAX), "no route"));
    }
}
