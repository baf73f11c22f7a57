//! Takes away from a plan that fails what its failure does not need.

use core::fmt;
use core::str::FromStr;

use crate::plan::{Fault, Plan};
use crate::violation::Violation;
use crate::world::simulate;

/// Simulations that a shrinking takes at most.
const MOST_TRIES: u32 = 400;

/// Something taken away from the plan of a seed. Its text is what `--cut` takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Cut {
    /// Without this fault.
    Without(Fault),
    /// Without this act, counted from 0.
    Act(usize),
    /// Faults end after so many milliseconds.
    ChaosMs(u64),
    /// So many accounts.
    Accounts(u32),
    /// So many devices of each account at first.
    Devices(u32),
    /// So many of 1000 requests have a fault.
    PerMille(u32),
    /// A request or answer takes so many milliseconds at most.
    LatencyMs(u64),
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cut::Without(fault) => write!(f, "without={fault:?}"),
            Cut::Act(at) => write!(f, "act={at}"),
            Cut::ChaosMs(ms) => write!(f, "chaos-ms={ms}"),
            Cut::Accounts(n) => write!(f, "accounts={n}"),
            Cut::Devices(n) => write!(f, "devices={n}"),
            Cut::PerMille(n) => write!(f, "per-mille={n}"),
            Cut::LatencyMs(ms) => write!(f, "latency-ms={ms}"),
        }
    }
}

/// A text that is no [`Cut`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadCut(String);

impl fmt::Display for BadCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} cuts nothing: it is without=FAULT, act=N, chaos-ms=N, accounts=N, devices=N, per-mille=N or latency-ms=N",
            self.0
        )
    }
}

impl core::error::Error for BadCut {}

impl FromStr for Cut {
    type Err = BadCut;

    fn from_str(text: &str) -> Result<Self, BadCut> {
        let bad = || BadCut(text.to_owned());
        let (what, value) = text.split_once('=').ok_or_else(bad)?;
        let number = || value.parse::<u64>().map_err(|_| bad());
        let small = || value.parse::<u32>().map_err(|_| bad());
        Ok(match what {
            "without" => Cut::Without(Fault::named(value).ok_or_else(bad)?),
            "act" => Cut::Act(value.parse().map_err(|_| bad())?),
            "chaos-ms" => Cut::ChaosMs(number()?),
            "accounts" => Cut::Accounts(small()?.max(1)),
            "devices" => Cut::Devices(small()?.max(1)),
            "per-mille" => Cut::PerMille(small()?),
            "latency-ms" => Cut::LatencyMs(number()?),
            _ => return Err(bad()),
        })
    }
}

impl Plan {
    /// This plan without these.
    #[must_use]
    pub fn cut(&self, cuts: &[Cut]) -> Plan {
        let mut plan = self.clone();
        for cut in cuts {
            match *cut {
                Cut::Without(fault) => plan.faults = plan.faults.without(fault),
                Cut::Act(_) => {}
                Cut::ChaosMs(ms) => plan.chaos_ms = plan.chaos_ms.min(ms),
                Cut::Accounts(n) => plan.accounts = plan.accounts.min(n),
                Cut::Devices(n) => plan.devices = plan.devices.min(n),
                Cut::PerMille(n) => plan.faulty_per_mille = plan.faulty_per_mille.min(n),
                Cut::LatencyMs(ms) => {
                    plan.latency_ms = (plan.latency_ms.0.min(ms), plan.latency_ms.1.min(ms));
                }
            }
        }
        let kept = plan.acts.iter().enumerate().filter(|(at, _)| !cuts.contains(&Cut::Act(*at)));
        plan.acts = kept.map(|(_, act)| *act).collect();
        if !plan.faults.has(Fault::Busy) {
            plan.busy_ms = 0;
        }
        if !plan.faults.has(Fault::SmallFront) {
            plan.front_limit = 1 << 20;
        }
        plan
    }
}

/// What can be taken away from a plan that fails so that it still fails alike: the cuts, and how it fails then.
#[must_use]
pub fn shrink(plan: &Plan, violation: &Violation) -> (Vec<Cut>, Violation) {
    let mut cuts: Vec<Cut> = Vec::new();
    let mut found = violation.clone();
    let mut tries = 0;
    loop {
        let now = plan.cut(&cuts);
        let mut candidates = Vec::new();
        let chaos_ms = now.chaos_ms;
        // Shorter first: all that follows is faster then.
        candidates.extend([chaos_ms / 8, chaos_ms / 2, chaos_ms / 8 * 7, found.at_ms + 1].map(Cut::ChaosMs));
        candidates.extend(now.faults.iter().map(Cut::Without));
        candidates.extend((0..plan.acts.len()).map(Cut::Act).filter(|cut| !cuts.contains(cut)));
        candidates.extend([Cut::Accounts(1), Cut::Devices(1), Cut::Devices(now.devices / 2).max_one()]);
        candidates.extend([Cut::LatencyMs(1), Cut::LatencyMs(now.latency_ms.1 / 2)]);
        candidates.push(Cut::PerMille(now.faulty_per_mille / 2));
        let mut shorter = false;
        for cut in candidates {
            let mut more = cuts.clone();
            more.push(cut);
            let smaller = plan.cut(&more);
            if same(&smaller, &now) || tries == MOST_TRIES {
                continue;
            }
            tries += 1;
            if let Some(violation) = simulate(&smaller, false).violation
                && violation.invariant == found.invariant
            {
                (cuts, found, shorter) = (more, violation, true);
                break;
            }
        }
        if !shorter {
            // Later ones of the same kind make earlier ones needless.
            let needless = |at: usize| {
                let mut fewer = cuts.clone();
                fewer.remove(at);
                same(&plan.cut(&fewer), &plan.cut(&cuts))
            };
            match (0..cuts.len()).find(|at| needless(*at)) {
                Some(at) => {
                    cuts.remove(at);
                }
                None => return (cuts, found),
            }
        }
    }
}

impl Cut {
    fn max_one(self) -> Cut {
        match self {
            Cut::Devices(n) => Cut::Devices(n.max(1)),
            other => other,
        }
    }
}

fn same(a: &Plan, b: &Plan) -> bool {
    a.faults == b.faults
        && a.acts == b.acts
        && (a.chaos_ms, a.accounts, a.devices) == (b.chaos_ms, b.accounts, b.devices)
        && (a.faulty_per_mille, a.latency_ms) == (b.faulty_per_mille, b.latency_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_read_as_it_is_written() {
        for cut in [
            Cut::Without(Fault::DoneBut5xx),
            Cut::Act(3),
            Cut::ChaosMs(60_000),
            Cut::Accounts(1),
            Cut::Devices(2),
            Cut::PerMille(50),
            Cut::LatencyMs(7),
        ] {
            assert_eq!(cut.to_string().parse(), Ok(cut));
        }
        assert!("without=Nothing".parse::<Cut>().unwrap_err().to_string().contains("without=Nothing"));
    }

    #[test]
    fn acts_are_counted_as_in_the_whole_plan() {
        let plan = Plan::of(0);
        assert!(plan.acts.len() > 3);
        let cut = plan.cut(&[Cut::Act(2), Cut::Act(0)]);
        let mut kept = plan.acts.clone();
        kept.remove(2);
        kept.remove(0);
        assert_eq!(cut.acts, kept);
    }
}
