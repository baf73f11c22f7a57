//! Where every value went: the conservation law `collected + recovered = delivered + queued + dropped{why}`.

use core::fmt;

/// Why a value was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum DropReason {
    /// A later value with the same path and millisecond took its place.
    Superseded,
    /// The backend refused it alone.
    Refused,
    /// The outbox was full.
    Full,
    /// It waited longer than the maximum age.
    TooOld,
    /// Its time is not known, or would have been stamped falsely by a POST.
    NoTime,
    /// It was in a POST whose answer was lost: stored or not, nobody knows.
    Unknown,
    /// Its stored form could not be read back.
    Corrupt,
    /// The store kept others of its path in its place, to bridge a longer outage.
    Thinned,
}

impl DropReason {
    /// All reasons, in the order of [`Ledger::dropped`].
    pub const ALL: [DropReason; 8] = [
        DropReason::Superseded,
        DropReason::Refused,
        DropReason::Full,
        DropReason::TooOld,
        DropReason::NoTime,
        DropReason::Unknown,
        DropReason::Corrupt,
        DropReason::Thinned,
    ];

    /// The reason as a word for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            DropReason::Superseded => "superseded",
            DropReason::Refused => "refused",
            DropReason::Full => "full",
            DropReason::TooOld => "too_old",
            DropReason::NoTime => "no_time",
            DropReason::Unknown => "unknown",
            DropReason::Corrupt => "corrupt",
            DropReason::Thinned => "thinned",
        }
    }
}

/// Counts of values since the start. 96 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Ledger {
    /// Handed over and accepted.
    pub collected: u64,
    /// Read back from a durable outbox.
    pub recovered: u64,
    /// Stored by the backend.
    pub delivered: u64,
    /// Waiting, in memory or parked in a store, or on their way at this moment.
    pub queued: u64,
    /// Dropped, by reason in the order of [`DropReason::ALL`].
    pub dropped: [u64; 8],
}

impl Ledger {
    /// A ledger of nothing.
    pub const EMPTY: Ledger = Ledger { collected: 0, recovered: 0, delivered: 0, queued: 0, dropped: [0; 8] };

    /// Whether every value is in exactly one place.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.collected + self.recovered == self.delivered + self.queued + self.dropped_total()
    }

    /// Values dropped for `reason`.
    #[must_use]
    pub fn dropped_by(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason as usize).copied().unwrap_or(0)
    }

    /// Values dropped for any reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    pub(crate) fn count_dropped(&mut self, reason: DropReason, values: u64) {
        if let Some(n) = self.dropped.get_mut(reason as usize) {
            *n += values;
        }
    }
}

impl fmt::Display for Ledger {
    /// One line; reasons that never occurred are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "collected {} + recovered {} = delivered {} + queued {} + dropped {}",
            self.collected,
            self.recovered,
            self.delivered,
            self.queued,
            self.dropped_total()
        )?;
        let mut open = false;
        for reason in DropReason::ALL {
            let n = self.dropped_by(reason);
            if n > 0 {
                write!(f, "{}{} {}", if open { ", " } else { " (" }, reason.name(), n)?;
                open = true;
            }
        }
        f.write_str(if open { ")" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_ledger_is_balanced_exactly_when_the_sums_agree() {
        let mut ledger = Ledger { collected: 7, recovered: 2, delivered: 4, queued: 3, ..Ledger::EMPTY };
        assert!(!ledger.balanced());
        ledger.count_dropped(DropReason::Refused, 1);
        ledger.count_dropped(DropReason::Corrupt, 1);
        assert!(ledger.balanced());
        assert_eq!(
            ledger.to_string(),
            "collected 7 + recovered 2 = delivered 4 + queued 3 + dropped 2 (refused 1, corrupt 1)"
        );
    }

    #[test]
    fn each_reason_has_its_own_place() {
        for (at, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
    }
}
