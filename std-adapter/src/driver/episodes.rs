//! What happens to the outboxes of many accounts at once, in few lines of log: the first account is told at once, the
//! others are counted and told together when [`EPISODE_MS`] have passed, and again each time that these have passed, as
//! long as it goes on.
//!
//! Costs a few numbers per kind of event, and 8 bytes per account that is counted.

use core::fmt;
use std::collections::BTreeSet;

use grafolean_core::time::Millis;

use crate::outbox::StoreEvent;

/// Events of one kind are told together for so long, ms.
pub(super) const EPISODE_MS: u64 = 60_000;

/// Kinds of events that come per account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Damaged,
    Unusable,
    Thinned,
    Full,
}

const KINDS: [Kind; 4] = [Kind::Damaged, Kind::Unusable, Kind::Thinned, Kind::Full];

#[derive(Debug)]
struct Episode {
    until: Millis,
    /// Since the last line.
    accounts: BTreeSet<u64>,
    values: u64,
}

/// What was told, and what is yet to be told.
#[derive(Debug)]
pub(super) struct Episodes([Option<Episode>; KINDS.len()]);

/// What happened since the last line of this kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    kind: Kind,
    accounts: usize,
    values: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { kind, accounts, values } = self;
        match kind {
            Kind::Damaged => {
                write!(f, "outboxes of {accounts} more accounts are damaged: {values} values are lost")
            }
            Kind::Unusable => {
                write!(f, "outboxes of {accounts} more accounts can't be read, their values stay in memory")
            }
            Kind::Thinned => write!(
                f,
                "outbox is still full: {values} more values of {accounts} accounts were thinned out"
            ),
            Kind::Full => write!(
                f,
                "outbox is still full: the {values} oldest values of {accounts} accounts were dropped"
            ),
        }
    }
}

impl Episodes {
    pub(super) const NONE: Episodes = Episodes([const { None }; KINDS.len()]);

    /// Whether an event is to be told now; otherwise it is counted.
    pub(super) fn note(&mut self, now: Millis, event: &StoreEvent) -> bool {
        let (kind, account, values) = match *event {
            StoreEvent::Damaged { account, values, .. } => (Kind::Damaged, account, values),
            StoreEvent::Unusable { account, .. } => (Kind::Unusable, account, 0),
            StoreEvent::Thinned { account, values } => (Kind::Thinned, account, values),
            StoreEvent::Full { account, values } => (Kind::Full, account, values),
            _ => return true,
        };
        let Some(episode) = self.0.get_mut(kind as usize) else { return true };
        match episode {
            Some(episode) => {
                episode.accounts.insert(account);
                episode.values += values;
                false
            }
            None => {
                let until = now.saturating_add(EPISODE_MS);
                *episode = Some(Episode { until, accounts: BTreeSet::new(), values: 0 });
                true
            }
        }
    }

    /// What there is to tell now; `all`: whether it is time or not.
    pub(super) fn poll(&mut self, now: Millis, all: bool) -> Option<Summary> {
        for (kind, place) in KINDS.into_iter().zip(&mut self.0) {
            let Some(episode) = place.as_mut().filter(|e| all || e.until <= now) else { continue };
            let accounts = core::mem::take(&mut episode.accounts).len();
            let values = core::mem::take(&mut episode.values);
            if accounts > 0 {
                episode.until = now.saturating_add(EPISODE_MS);
                return Some(Summary { kind, accounts, values });
            }
            if episode.until <= now {
                *place = None;
            }
        }
        None
    }

    /// When there is something to tell.
    pub(super) fn poll_timeout(&self) -> Option<Millis> {
        self.0.iter().flatten().map(|e| e.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_account_is_told_at_once_and_the_others_together_once_a_minute() {
        let mut episodes = Episodes::NONE;
        let full = |account| StoreEvent::Full { account, values: 10 };
        assert!(episodes.note(Millis(5), &full(1)));
        for n in 0..1_000 {
            assert!(!episodes.note(Millis(5 + n), &full(2 + n % 50)));
        }
        assert!(
            episodes.note(Millis(6), &StoreEvent::Damaged { account: 1, values: 3, bytes: 7 }),
            "another kind"
        );
        assert_eq!(episodes.poll(Millis(60_004), false), None);
        assert_eq!(episodes.poll_timeout(), Some(Millis(60_005)));
        let summary = episodes.poll(Millis(60_005), false);
        assert_eq!(summary, Some(Summary { kind: Kind::Full, accounts: 50, values: 10_000 }));
        assert_eq!(episodes.poll(Millis(60_006), false), None);
        // Still the same episode.
        assert!(!episodes.note(Millis(61_000), &full(9)));
        let summary = episodes.poll(Millis(120_005), false).map(|s| s.to_string());
        assert_eq!(
            summary.as_deref(),
            Some("outbox is still full: the 10 oldest values of 1 accounts were dropped")
        );
        // It has ended when a minute was quiet.
        assert_eq!(episodes.poll(Millis(180_005), false), None);
        assert_eq!(episodes.poll_timeout(), None);
        assert!(episodes.note(Millis(190_000), &full(9)));
    }

    #[test]
    fn what_was_counted_is_told_at_the_end_and_events_that_come_once_always() {
        let mut episodes = Episodes::NONE;
        for account in 0..3 {
            episodes.note(Millis(0), &StoreEvent::Unusable { account, error: "no right".to_owned() });
        }
        let summary = episodes.poll(Millis(1), true).map(|s| s.to_string());
        assert_eq!(
            summary.as_deref(),
            Some("outboxes of 2 more accounts can't be read, their values stay in memory")
        );
        assert_eq!(episodes.poll(Millis(1), true), None);
        for _ in 0..2 {
            assert!(episodes.note(Millis(2), &StoreEvent::Working { after_ms: 1 }));
        }
    }
}
