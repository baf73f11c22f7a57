//! What the outbox keeps per account: its lists of values, its back-off, how its values are delivered.

use super::backoff::BackOff;
use super::cells::{List, NONE, Place, mixed, place};
use crate::time::Millis;

/// How the values of an account leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// PUT with times.
    Put,
    /// PUT was answered by 403: fresh values try POST; nothing is given up yet.
    Trial,
    /// POST works where PUT does not.
    Post,
}

/// What is wrong with an account, as told by the last event about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    None,
    Denied,
    SetupFault,
    BackingOff,
}

/// The batch of an account that was refused, while the bad values in it are looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspects {
    pub(super) list: List,
    /// So many of the first (counting those in flight) hold a bad value; 0: nothing known, all are tried.
    pub(super) bad: u32,
    /// Those `bad` ones were refused together (else it only follows from their first half having passed).
    pub(super) sure: bool,
    /// The last refusal names a bad value for certain (400), so that a half that passed proves the other bad.
    pub(super) exact: bool,
    /// A whole try is limited to so many values (learned from 413); 0: no limit.
    pub(super) chunk: u32,
    /// Bad values found so far.
    pub(super) found: u8,
    /// 500s in a row on the same values, and how many other requests had succeeded at the first of them.
    pub(super) tries: u8,
    pub(super) successes: u32,
    pub(super) wait: BackOff,
}

impl Suspects {
    const EMPTY: Suspects = Suspects {
        list: List::EMPTY,
        bad: 0,
        sure: false,
        exact: false,
        chunk: 0,
        found: 0,
        tries: 0,
        successes: 0,
        wait: BackOff::NONE,
    };

    /// Starts the search over: whatever is known belonged to an earlier batch.
    pub(super) fn start(&mut self) {
        *self = Suspects { list: self.list, ..Suspects::EMPTY };
    }

    /// Values that the next probe sends.
    pub(super) fn probe_len(&self) -> u32 {
        match (self.bad, self.sure) {
            (0, _) if self.chunk > 0 => self.chunk.min(self.list.len),
            (0, _) => self.list.len,
            (bad, false) => bad,
            (bad, true) => bad.div_ceil(2),
        }
    }
}

/// One account's place in the outbox: about 150 bytes.
#[derive(Clone, Copy, Debug)]
pub struct AccountQueue {
    pub(super) id: u64,
    /// Head of the chain of accounts whose ids hash to this slot, as slot plus one.
    bucket: u32,
    chain: u32,
    pub(super) live: List,
    pub(super) backlog: List,
    pub(super) suspects: Suspects,
    /// Text bytes of the live values.
    pub(super) live_bytes: u32,
    /// Values of this account, those in flight too.
    pub(super) queued: u32,
    pub(super) cells: u32,
    pub(super) wait: BackOff,
    /// The wait for the next PUT while PUT is denied and nothing can try POST.
    pub(super) put_wait: BackOff,
    pub(super) mode: Mode,
    /// The refresh after which `mode` holds; after a later one PUT is tried again.
    pub(super) mode_since: u32,
    /// The switch to POST has been told.
    pub(super) post_told: bool,
    pub(super) trouble: Trouble,
}

impl AccountQueue {
    /// An unused place.
    pub const EMPTY: AccountQueue = AccountQueue {
        id: 0,
        bucket: 0,
        chain: 0,
        live: List::EMPTY,
        backlog: List::EMPTY,
        suspects: Suspects::EMPTY,
        live_bytes: 0,
        queued: 0,
        cells: 0,
        wait: BackOff::NONE,
        put_wait: BackOff::NONE,
        mode: Mode::Put,
        mode_since: 0,
        post_told: false,
        trouble: Trouble::None,
    };

    pub(super) fn list(&self, place: Place) -> List {
        match place {
            Place::Live => self.live,
            Place::Backlog => self.backlog,
            Place::Suspect => self.suspects.list,
            Place::Flight => List::EMPTY,
        }
    }

    pub(super) fn list_mut(&mut self, place: Place) -> Option<&mut List> {
        match place {
            Place::Live => Some(&mut self.live),
            Place::Backlog => Some(&mut self.backlog),
            Place::Suspect => Some(&mut self.suspects.list),
            Place::Flight => None,
        }
    }

    /// Whether something waits that could be dropped (not in flight).
    pub(super) fn waits(&self) -> bool {
        !(self.live.is_empty() && self.backlog.is_empty() && self.suspects.list.is_empty())
    }

    /// Nothing is lost if this place is given to another account.
    fn forgettable(&self, now: Millis, refreshes: u32) -> bool {
        let post = self.post_told || self.mode != Mode::Put && self.mode_since == refreshes;
        self.queued == 0 && !post && self.wait.until <= now
    }
}

impl Default for AccountQueue {
    fn default() -> Self {
        AccountQueue::EMPTY
    }
}

/// The account table: slots are hashed by id, their chains run through the slots themselves.
pub(super) struct Table<'m> {
    pub(super) slots: &'m mut [AccountQueue],
}

impl Table<'_> {
    pub(super) fn capacity(&self) -> usize {
        self.slots.len().min(usize::from(u16::MAX))
    }

    fn bucket(&self, id: u64) -> usize {
        place(mixed(0, id), self.capacity())
    }

    pub(super) fn find(&self, id: u64) -> Option<u16> {
        let mut at = self.slots.get(self.bucket(id))?.bucket;
        while at != NONE {
            let slot = self.slots.get(at as usize - 1)?;
            if slot.id == id {
                return Some((at - 1) as u16);
            }
            at = slot.chain;
        }
        None
    }

    /// The slot of `id`, made if need be: unused ones first (`fresh` counts those ever used), then one that holds
    /// nothing, at last one whose only content is a back-off or a fallback to POST.
    pub(super) fn find_or_make(
        &mut self,
        id: u64,
        fresh: &mut u16,
        now: Millis,
        refreshes: u32,
    ) -> Option<u16> {
        if let Some(found) = self.find(id) {
            return Some(found);
        }
        let slot = if usize::from(*fresh) < self.capacity() {
            *fresh += 1;
            *fresh - 1
        } else {
            let slot = self
                .slots
                .iter()
                .position(|s| s.forgettable(now, refreshes))
                .or_else(|| self.slots.iter().position(|s| s.queued == 0))?;
            self.unchain(slot);
            u16::try_from(slot).ok()?
        };
        let kept = self.slots.get(usize::from(slot))?.bucket;
        *self.slots.get_mut(usize::from(slot))? = AccountQueue { id, bucket: kept, ..AccountQueue::EMPTY };
        self.chain(usize::from(slot));
        Some(slot)
    }

    fn chain(&mut self, slot: usize) {
        let Some(id) = self.slots.get(slot).map(|s| s.id) else { return };
        let bucket = self.bucket(id);
        let link = slot as u32 + 1;
        let Some(before) = self.slots.get_mut(bucket).map(|b| core::mem::replace(&mut b.bucket, link)) else {
            return;
        };
        if let Some(s) = self.slots.get_mut(slot) {
            s.chain = before;
        }
    }

    fn unchain(&mut self, slot: usize) {
        let Some((id, after)) = self.slots.get(slot).map(|s| (s.id, s.chain)) else { return };
        let bucket = self.bucket(id);
        let link = slot as u32 + 1;
        let mut at = match self.slots.get_mut(bucket) {
            Some(b) if b.bucket == link => {
                b.bucket = after;
                return;
            }
            Some(b) => b.bucket,
            None => return,
        };
        while let Some(s) = self.slots.get_mut((at as usize).wrapping_sub(1)) {
            if s.chain == link {
                s.chain = after;
                return;
            }
            at = s.chain;
        }
    }

    /// Hashes the first `fresh` slots anew, after the table has grown.
    pub(super) fn rehash(&mut self, fresh: u16) {
        for s in self.slots.iter_mut() {
            s.bucket = NONE;
            s.chain = NONE;
        }
        for slot in 0..usize::from(fresh) {
            self.chain(slot);
        }
    }
}
