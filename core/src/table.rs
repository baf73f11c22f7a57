//! A keyed table of fixed capacity with a refresh transaction: what a refresh names stays or is added, what it
//! does not name goes, and until [`Table::commit`] nothing has happened.
//!
//! Entities, credentials, sensors and jobs live in such tables. The memory is lent by the owner; one
//! implementation serves 16 slots in a static and a million on a host.
//!
//! A table of capacity N has N + SPARE slots. New and changed entries are staged in free slots until commit, so
//! SPARE ≥ 1 slots are kept for that and are invisible otherwise: capacity is checked against what there is after
//! commit. Where no slot is free, an entry keeps its old state and is *deferred* ([`StageError::NoSpare`]); the
//! owner lets a further refresh follow.
//!
//! Cost: find, stage and get are O(1) on average (chained hashing, order of insertion and key only); commit and
//! abort look at each slot once. Indices of live entries never change.

use core::fmt;

/// The end of a chain, and "no slot".
pub const NONE: u32 = u32::MAX;

/// What identifies an entry.
pub trait TableKey: Copy + Eq {
    /// A hash that is the same on every target.
    fn hash(&self) -> u64;
    /// The account whose failure keeps this entry as it was.
    fn account(&self) -> u64;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    Live,
    /// Staged, not live before commit.
    New,
    /// Staged: replaces the live slot `link` at commit.
    Shadow,
}

/// Room for one entry.
#[derive(Clone, Debug)]
pub struct Slot<K, V> {
    /// Next slot of the chain (live, new) or of the free list.
    next: u32,
    generation: u32,
    held: Held<K, V>,
}

/// What a slot holds. Not an `Option`: its tag is 0 if it is empty, whatever it holds otherwise, and stands beside the small fields.
#[derive(Clone, Debug)]
#[repr(u8)]
enum Held<K, V> {
    Nothing = 0,
    Entry {
        state: State,
        marked: bool,
        /// Live: its shadow. Shadow: its live slot. New: its place in the order of staging.
        link: u32,
        key: K,
        value: V,
    },
}

impl<K, V> Slot<K, V> {
    /// A slot without an entry, all bytes zero: a static of them takes no room in flash.
    pub const EMPTY: Self = Slot { next: 0, generation: 0, held: Held::Nothing };

    const fn state(&self) -> State {
        match self.held {
            Held::Nothing => State::Free,
            Held::Entry { state, .. } => state,
        }
    }

    const fn link(&self) -> u32 {
        match self.held {
            Held::Nothing => NONE,
            Held::Entry { link, .. } => link,
        }
    }

    const fn set_link(&mut self, to: u32) {
        if let Held::Entry { link, .. } = &mut self.held {
            *link = to;
        }
    }

    const fn is_marked(&self) -> bool {
        matches!(self.held, Held::Entry { marked: true, .. })
    }

    const fn set_marked(&mut self, to: bool) {
        if let Held::Entry { marked, .. } = &mut self.held {
            *marked = to;
        }
    }

    const fn key(&self) -> Option<&K> {
        match &self.held {
            Held::Nothing => None,
            Held::Entry { key, .. } => Some(key),
        }
    }

    const fn value(&self) -> Option<&V> {
        match &self.held {
            Held::Nothing => None,
            Held::Entry { value, .. } => Some(value),
        }
    }

    const fn value_mut(&mut self) -> Option<&mut V> {
        match &mut self.held {
            Held::Nothing => None,
            Held::Entry { value, .. } => Some(value),
        }
    }
}

/// What a table remembers besides its slots.
#[derive(Clone, Debug)]
pub struct TableState {
    free: u32,
    /// Slots from here on have never been used.
    fresh: u32,
    live: u32,
    staged_new: u32,
    marked: u32,
    deferred: u32,
    order: u32,
    buckets: u32,
}

impl Default for TableState {
    fn default() -> Self {
        Self::new()
    }
}

impl TableState {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        TableState {
            free: NONE,
            fresh: 0,
            live: 0,
            staged_new: 0,
            marked: 0,
            deferred: 0,
            order: 0,
            buckets: 0,
        }
    }

    /// Live entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.live as usize
    }

    /// Whether no entry is live.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }
}

/// The memory of a table: `slots` for N + `spare` entries, `heads` of any length ≥ 1 (about one per slot keeps
/// chains short), filled with [`NONE`].
#[derive(Debug)]
pub struct TableMem<'a, K, V> {
    /// One per entry, spare ones included.
    pub slots: &'a mut [Slot<K, V>],
    /// Heads of the hash chains.
    pub heads: &'a mut [u32],
    /// How many of the slots are for staging only; at least 1.
    pub spare: usize,
}

/// Why an entry was not staged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum StageError {
    /// The key was named before in this transaction; the first one counts.
    Duplicate,
    /// The table is full with what has been named already.
    Capacity {
        /// How many entries it holds.
        capacity: usize,
    },
    /// No slot is free until commit: the entry keeps its old state and needs a further refresh.
    NoSpare,
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StageError::Duplicate => f.write_str("named twice, the first one counts"),
            StageError::Capacity { capacity } => write!(f, "table is full: it holds {capacity}"),
            StageError::NoSpare => f.write_str("no spare room before commit, kept as it was"),
        }
    }
}

impl core::error::Error for StageError {}

/// What staging did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Staged {
    /// Equal to what is live.
    Same(u32),
    /// A new entry at this index.
    New(u32),
    /// The live entry at this index will change.
    Changed(u32),
}

impl Staged {
    /// The entry's index, now and after commit.
    #[must_use]
    pub const fn index(self) -> u32 {
        match self {
            Staged::Same(i) | Staged::New(i) | Staged::Changed(i) => i,
        }
    }
}

/// What commit does to one entry.
#[derive(Debug)]
pub enum Change<'a, V> {
    /// It is live from now on.
    Added(&'a mut V),
    /// It has a new value; the old one goes.
    Changed {
        /// What it was.
        old: &'a V,
        /// What it is.
        new: &'a mut V,
    },
    /// It was not named and goes.
    Removed(&'a V),
    /// It was staged, but the table holds no more after commit.
    Refused(&'a V),
}

/// What commit did, in entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Committed {
    /// New ones.
    pub added: u32,
    /// Those with a new value.
    pub changed: u32,
    /// Those that went.
    pub removed: u32,
    /// New ones beyond the capacity.
    pub refused: u32,
    /// Those that kept their old state, or are missing, for lack of spare room.
    pub deferred: u32,
}

impl Committed {
    /// Whether anything is different now.
    #[must_use]
    pub const fn changed_anything(&self) -> bool {
        self.added + self.changed + self.removed > 0
    }
}

/// A table to look at: indices that [`Table`] gave out, and what they hold.
#[derive(Debug)]
pub struct TableRef<'a, K, V> {
    slots: &'a [Slot<K, V>],
}

impl<K, V> Clone for TableRef<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for TableRef<'_, K, V> {}

impl<'a, K, V> TableRef<'a, K, V> {
    /// Looks at `slots`.
    #[must_use]
    pub const fn new(slots: &'a [Slot<K, V>]) -> Self {
        TableRef { slots }
    }

    fn slot(self, i: u32) -> Option<&'a Slot<K, V>> {
        self.slots.get(i as usize)
    }

    /// The live value at `index`.
    #[must_use]
    pub fn get(self, index: u32) -> Option<&'a V> {
        self.slot(index).filter(|s| s.state() == State::Live)?.value()
    }

    /// What the value at `index` will be after commit.
    #[must_use]
    pub fn staged(self, index: u32) -> Option<&'a V> {
        let s = self.slot(index)?;
        match s.state() {
            State::Live if s.link() != NONE => self.slot(s.link())?.value(),
            State::Live | State::New => s.value(),
            State::Free | State::Shadow => None,
        }
    }

    /// Whether the transaction under way has named the entry at `index`.
    #[must_use]
    pub fn is_named(self, index: u32) -> bool {
        self.slot(index)
            .is_some_and(|s| s.state() == State::New || (s.state() == State::Live && s.is_marked()))
    }

    /// The key of the entry at `index`, live or staged.
    #[must_use]
    pub fn key(self, index: u32) -> Option<&'a K> {
        self.slot(index).filter(|s| matches!(s.state(), State::Live | State::New))?.key()
    }
}

/// A table for the time of a call: its state and its memory.
#[derive(Debug)]
pub struct Table<'a, K, V> {
    state: &'a mut TableState,
    slots: &'a mut [Slot<K, V>],
    heads: &'a mut [u32],
    capacity: u32,
}

impl<'a, K: TableKey, V> Table<'a, K, V> {
    /// The table of `state` in `mem`. O(1), unless the owner has lent other `heads` than last time: then all
    /// chains are made anew. Slots may have been added at the end, never taken away.
    #[must_use]
    pub fn new(state: &'a mut TableState, mem: TableMem<'a, K, V>) -> Self {
        let TableMem { slots, heads, spare } = mem;
        let usable = slots.len().min(NONE as usize - 1);
        let capacity = u32::try_from(usable.saturating_sub(spare)).unwrap_or(NONE);
        let mut table = Table { state, slots, heads, capacity };
        if table.state.buckets as usize != table.heads.len() {
            table.rehash();
        }
        table
    }

    fn rehash(&mut self) {
        self.heads.fill(NONE);
        self.state.buckets = u32::try_from(self.heads.len()).unwrap_or(NONE);
        for i in (0..self.state.fresh).rev() {
            if matches!(self.state_of(i), State::Live | State::New) {
                self.chain_in(i);
            }
        }
    }

    fn slot(&self, i: u32) -> Option<&Slot<K, V>> {
        self.slots.get(i as usize)
    }

    fn slot_mut(&mut self, i: u32) -> Option<&mut Slot<K, V>> {
        self.slots.get_mut(i as usize)
    }

    fn state_of(&self, i: u32) -> State {
        self.slot(i).map_or(State::Free, Slot::state)
    }

    fn bucket(&self, key: &K) -> usize {
        let h = key.hash();
        // The high half of a 32 x 32 bit product: even without a division, which a Cortex-M0 lacks.
        let folded = (h ^ (h >> 32)) & 0xffff_ffff;
        ((folded * u64::from(self.state.buckets)) >> 32) as usize
    }

    fn chain_in(&mut self, i: u32) {
        let Some(&key) = self.slot(i).and_then(Slot::key) else { return };
        let b = self.bucket(&key);
        let Some(head) = self.heads.get_mut(b) else { return };
        let next = core::mem::replace(head, i);
        if let Some(s) = self.slot_mut(i) {
            s.next = next;
        }
    }

    fn chain_out(&mut self, i: u32) {
        let Some((key, after)) = self.slot(i).and_then(|s| Some((*s.key()?, s.next))) else { return };
        let b = self.bucket(&key);
        let Some(head) = self.heads.get_mut(b) else { return };
        if *head == i {
            *head = after;
            return;
        }
        let mut at = *head;
        while at != NONE {
            let Some(s) = self.slots.get_mut(at as usize) else { return };
            if s.next == i {
                s.next = after;
                return;
            }
            at = s.next;
        }
    }

    fn allocate(&mut self) -> Option<u32> {
        if self.state.free != NONE {
            let i = self.state.free;
            self.state.free = self.slot(i)?.next;
            return Some(i);
        }
        let i = self.state.fresh;
        self.slot(i)?;
        self.state.fresh += 1;
        Some(i)
    }

    fn release(&mut self, i: u32) {
        let free = self.state.free;
        if let Some(s) = self.slot_mut(i) {
            *s = Slot { generation: s.generation.wrapping_add(1), next: free, held: Held::Nothing };
            self.state.free = i;
        }
    }

    /// How many entries it holds.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Live entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.len()
    }

    /// Whether no entry is live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state.is_empty()
    }

    /// Indices from here on have never been used.
    #[must_use]
    pub fn upper_index(&self) -> u32 {
        self.state.fresh
    }

    /// The index of the entry with this key, live or staged.
    #[must_use]
    pub fn find(&self, key: &K) -> Option<u32> {
        let mut at = *self.heads.get(self.bucket(key))?;
        while at != NONE {
            let s = self.slot(at)?;
            if s.key() == Some(key) {
                return Some(at);
            }
            at = s.next;
        }
        None
    }

    /// The live value at `index`.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&V> {
        self.reader().get(index)
    }

    /// The live value at `index`, to be changed outside of any transaction.
    #[must_use]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut V> {
        self.slot_mut(index).filter(|s| s.state() == State::Live)?.value_mut()
    }

    /// What the value at `index` will be after commit.
    #[must_use]
    pub fn staged(&self, index: u32) -> Option<&V> {
        self.reader().staged(index)
    }

    /// This table, to look at.
    #[must_use]
    pub fn reader(&self) -> TableRef<'_, K, V> {
        TableRef::new(self.slots)
    }

    /// What the value at `index` will be after commit, to be changed: only if it is staged and not live yet.
    #[must_use]
    pub fn staged_mut(&mut self, index: u32) -> Option<&mut V> {
        let s = self.slot(index)?;
        match s.state() {
            State::New => self.slot_mut(index)?.value_mut(),
            State::Live if s.link() != NONE => {
                let shadow = s.link();
                self.slot_mut(shadow)?.value_mut()
            }
            _ => None,
        }
    }

    /// Whether the entry at `index` is live.
    #[must_use]
    pub fn is_live(&self, index: u32) -> bool {
        self.state_of(index) == State::Live
    }

    /// Whether this transaction has named the entry at `index`.
    #[must_use]
    pub fn is_named(&self, index: u32) -> bool {
        self.reader().is_named(index)
    }

    /// The key of the entry at `index`, live or staged.
    #[must_use]
    pub fn key(&self, index: u32) -> Option<&K> {
        self.reader().key(index)
    }

    /// A number that differs for each entry that this slot has held.
    #[must_use]
    pub fn generation(&self, index: u32) -> u32 {
        self.slot(index).map_or(0, |s| s.generation)
    }

    /// Begins a transaction; one that was under way is aborted.
    pub fn begin(&mut self) {
        self.abort();
    }

    /// Names a live entry that stays as it is. Without effect on others.
    pub fn keep(&mut self, index: u32) {
        if let Some(s) = self.slots.get_mut(index as usize)
            && s.state() == State::Live
            && !s.is_marked()
        {
            s.set_marked(true);
            self.state.marked += 1;
        }
    }

    /// Names an entry: stays if `same` says that it is equal, changes or is new otherwise.
    ///
    /// # Errors
    /// [`StageError`]; nothing else is touched.
    pub fn stage(
        &mut self,
        key: K,
        value: V,
        same: impl FnOnce(&V, &V) -> bool,
    ) -> Result<Staged, StageError> {
        match self.find(&key) {
            None => self.stage_new(key, value).map(Staged::New),
            Some(i) if self.is_named(i) => Err(StageError::Duplicate),
            Some(i) => {
                self.keep(i);
                if self.get(i).is_some_and(|live| same(live, &value)) {
                    return Ok(Staged::Same(i));
                }
                self.stage_change(i, value).map(|()| Staged::Changed(i))
            }
        }
    }

    /// Stages an entry whose key is not in the table.
    ///
    /// # Errors
    /// [`StageError::Capacity`] and [`StageError::NoSpare`].
    pub fn stage_new(&mut self, key: K, value: V) -> Result<u32, StageError> {
        if self.state.marked + self.state.staged_new >= self.capacity {
            return Err(StageError::Capacity { capacity: self.capacity() });
        }
        let Some(i) = self.allocate() else {
            self.state.deferred += 1;
            return Err(StageError::NoSpare);
        };
        let order = self.state.order;
        self.state.order = order.wrapping_add(1);
        self.state.staged_new += 1;
        if let Some(s) = self.slot_mut(i) {
            s.held = Held::Entry { state: State::New, marked: false, link: order, key, value };
        }
        self.chain_in(i);
        Ok(i)
    }

    /// As [`Self::stage_new`], for a table that can grow: refused already if there would be no room in case all live entries
    /// stay, which may be named later than this one.
    ///
    /// # Errors
    /// As there.
    pub fn stage_beside(&mut self, key: K, value: V) -> Result<u32, StageError> {
        if self.state.live + self.state.staged_new >= self.capacity {
            return Err(StageError::Capacity { capacity: self.capacity() });
        }
        self.stage_new(key, value)
    }

    /// Stages another value for the live entry at `index`, and names it.
    ///
    /// # Errors
    /// [`StageError::NoSpare`]: it keeps its value; [`StageError::Duplicate`] if it is changed already or not live.
    pub fn stage_change(&mut self, index: u32, value: V) -> Result<(), StageError> {
        let live = self.slot(index).filter(|s| s.state() == State::Live && s.link() == NONE);
        let Some(&key) = live.and_then(Slot::key) else { return Err(StageError::Duplicate) };
        self.keep(index);
        let Some(shadow) = self.allocate() else {
            self.state.deferred += 1;
            return Err(StageError::NoSpare);
        };
        if let Some(s) = self.slot_mut(shadow) {
            s.held = Held::Entry { state: State::Shadow, marked: false, link: index, key, value };
        }
        if let Some(s) = self.slot_mut(index) {
            s.set_link(shadow);
        }
        Ok(())
    }

    /// Takes back what was staged at `index`: a new entry goes, a changed one keeps its live value.
    pub fn discard(&mut self, index: u32) {
        let Some(s) = self.slot(index) else { return };
        match s.state() {
            State::New => {
                self.chain_out(index);
                self.release(index);
                self.state.staged_new -= 1;
            }
            State::Live if s.link() != NONE => {
                let shadow = s.link();
                self.release(shadow);
                if let Some(s) = self.slot_mut(index) {
                    s.set_link(NONE);
                }
            }
            _ => {}
        }
    }

    /// Where the new entry at `index` stands in the order of staging.
    #[must_use]
    pub fn order(&self, index: u32) -> Option<u32> {
        self.slot(index).filter(|s| s.state() == State::New).map(Slot::link)
    }

    /// Ends the transaction: nothing has happened.
    pub fn abort(&mut self) {
        for i in 0..self.state.fresh {
            if matches!(self.state_of(i), State::New | State::Live) {
                self.discard(i);
            }
            if let Some(s) = self.slot_mut(i) {
                s.set_marked(false);
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        debug_assert_eq!(self.state.staged_new, 0);
        self.state.marked = 0;
        self.state.deferred = 0;
        self.state.order = 0;
    }

    /// Ends the transaction: what was not named goes, unless its account has `failed`; then it is as it was.
    /// Each difference is told to `on` with the entry's index and key, by ascending index.
    pub fn commit(
        &mut self,
        failed: impl Fn(u64) -> bool,
        mut on: impl FnMut(u32, &K, Change<'_, V>),
    ) -> Committed {
        let keeps = |s: &Slot<K, V>| s.key().is_some_and(|k| failed(k.account()));
        // How many new entries fit beside those that stay; the first ones staged win.
        let mut stays = 0u32;
        let mut new = 0u32;
        for s in self.slots.iter().take(self.state.fresh as usize) {
            match s.state() {
                State::Live if s.is_marked() || keeps(s) => stays += 1,
                State::New if !keeps(s) => new += 1,
                _ => {}
            }
        }
        let fit = self.capacity.saturating_sub(stays).min(new);
        let mut first_refused = self.state.order;
        if fit < new {
            // The place in the order of staging behind which nothing fits, by bisection.
            let (mut low, mut high) = (0u32, self.state.order);
            while low < high {
                let mid = low + (high - low) / 2;
                let before = self.slots.iter().take(self.state.fresh as usize);
                let count =
                    before.filter(|s| s.state() == State::New && s.link() <= mid && !keeps(s)).count();
                if count > fit as usize { high = mid } else { low = mid + 1 }
            }
            first_refused = low;
        }
        let mut done = Committed { deferred: self.state.deferred, ..Committed::default() };
        for i in 0..self.state.fresh {
            let Some(s) = self.slots.get(i as usize) else { break };
            let Some(&key) = s.key() else { continue };
            let (failed, marked, link) = (failed(key.account()), s.is_marked(), s.link());
            match s.state() {
                State::Live if failed => self.discard(i),
                State::Live if !marked => {
                    if let Some(v) = s.value() {
                        on(i, &key, Change::Removed(v));
                    }
                    self.discard(i);
                    self.chain_out(i);
                    self.release(i);
                    self.state.live -= 1;
                    done.removed += 1;
                }
                State::Live if link != NONE => {
                    if let Ok([live, shadow]) = self.slots.get_disjoint_mut([i as usize, link as usize])
                        && let (Some(old), Some(new)) = (live.value_mut(), shadow.value_mut())
                    {
                        core::mem::swap(old, new);
                        // The shadow has the old one now, and goes with it.
                        on(i, &key, Change::Changed { old: new, new: old });
                    }
                    self.discard(i);
                    done.changed += 1;
                }
                State::New if failed => self.discard(i),
                State::New if link >= first_refused => {
                    if let Some(v) = s.value() {
                        on(i, &key, Change::Refused(v));
                    }
                    self.discard(i);
                    done.refused += 1;
                }
                State::New => {
                    if let Some(Slot { held: Held::Entry { state, link, value, .. }, .. }) = self.slot_mut(i)
                    {
                        (*state, *link) = (State::Live, NONE);
                        on(i, &key, Change::Added(value));
                    }
                    self.state.staged_new -= 1;
                    self.state.live += 1;
                    done.added += 1;
                }
                State::Live | State::Free | State::Shadow => {}
            }
            if let Some(s) = self.slot_mut(i) {
                s.set_marked(false);
            }
        }
        self.settle();
        done
    }

    /// Live entries by ascending index.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &K, &V)> {
        let used = self.slots.iter().take(self.state.fresh as usize);
        used.zip(0u32..)
            .filter(|(s, _)| s.state() == State::Live)
            .filter_map(|(s, i)| Some((i, s.key()?, s.value()?)))
    }

    /// What will be there after commit and has been named or is new, by ascending index.
    pub fn iter_named(&self) -> impl Iterator<Item = (u32, &K, &V)> {
        (0..self.state.fresh)
            .filter(|&i| self.is_named(i))
            .filter_map(|i| Some((i, self.key(i)?, self.staged(i)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::{vec, vec::Vec};

    #[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
    struct Key(u64, u64);
    impl TableKey for Key {
        fn hash(&self) -> u64 {
            // A poor hash on purpose: chains must work.
            self.1 << 30
        }
        fn account(&self) -> u64 {
            self.0
        }
    }

    struct Owner {
        state: TableState,
        slots: Vec<Slot<Key, u32>>,
        heads: Vec<u32>,
        spare: usize,
    }
    impl Owner {
        fn new(capacity: usize, spare: usize) -> Self {
            Owner {
                state: TableState::new(),
                slots: vec![Slot::EMPTY; capacity + spare],
                heads: vec![NONE; capacity],
                spare,
            }
        }
        fn table(&mut self) -> Table<'_, Key, u32> {
            let mem = TableMem { slots: &mut self.slots, heads: &mut self.heads, spare: self.spare };
            Table::new(&mut self.state, mem)
        }
        fn refresh(&mut self, named: &[(u64, u64, u32)]) -> Committed {
            let mut t = self.table();
            t.begin();
            for &(a, k, v) in named {
                let _ = t.stage(Key(a, k), v, |a, b| a == b);
            }
            t.commit(|_| false, |_, _, _| {})
        }
        fn content(&mut self) -> BTreeMap<Key, u32> {
            self.table().iter().map(|(_, k, v)| (*k, *v)).collect()
        }
    }

    #[test]
    fn nothing_is_live_before_commit_and_nothing_is_left_after_abort() {
        let mut o = Owner::new(2, 1);
        o.refresh(&[(1, 1, 10)]);
        let mut t = o.table();
        t.begin();
        t.stage(Key(1, 1), 11, |a, b| a == b).unwrap();
        let i = t.stage(Key(1, 2), 20, |a, b| a == b).unwrap().index();
        assert_eq!((t.get(0), t.staged(0), t.get(i), t.staged(i)), (Some(&10), Some(&11), None, Some(&20)));
        t.abort();
        assert_eq!(o.content(), BTreeMap::from([(Key(1, 1), 10)]));
        assert_eq!(o.refresh(&[(1, 1, 10), (1, 2, 2)]), Committed { added: 1, ..Committed::default() });
    }

    #[test]
    fn a_full_table_refuses_the_next_entry_and_names_its_capacity() {
        let mut o = Owner::new(2, 1);
        o.refresh(&[(1, 1, 1), (1, 2, 2)]);
        let mut t = o.table();
        t.begin();
        t.stage(Key(1, 1), 1, |a, b| a == b).unwrap();
        t.stage(Key(1, 2), 2, |a, b| a == b).unwrap();
        let error = t.stage(Key(1, 3), 3, |a, b| a == b).unwrap_err();
        assert_eq!(error, StageError::Capacity { capacity: 2 });
        assert_eq!(std::format!("{error}"), "table is full: it holds 2");
        t.commit(|_| false, |_, _, _| {});
        assert_eq!(o.content().len(), 2);
    }

    #[test]
    fn an_entry_staged_before_the_others_were_named_is_refused_at_commit_if_they_fill_the_table() {
        let mut o = Owner::new(2, 1);
        o.refresh(&[(1, 1, 1), (1, 2, 2)]);
        let done = o.refresh(&[(1, 3, 3), (1, 1, 1), (1, 2, 2)]);
        assert_eq!((done.refused, done.added, o.content().len()), (1, 0, 2));
        assert!(!o.content().contains_key(&Key(1, 3)));
    }

    #[test]
    fn a_whole_table_is_exchanged_in_a_few_refreshes_with_one_spare_slot() {
        let mut o = Owner::new(4, 1);
        o.refresh(&[(1, 1, 0), (1, 2, 0), (1, 3, 0), (1, 4, 0)]);
        let wanted = [(1, 5, 0), (1, 6, 0), (1, 7, 0), (1, 8, 0)];
        let first = o.refresh(&wanted);
        assert_eq!((first.added, first.removed, first.deferred), (1, 4, 3));
        let second = o.refresh(&wanted);
        assert_eq!((second.added, second.removed, second.deferred), (3, 0, 0));
    }

    #[test]
    fn a_changed_entry_without_spare_room_keeps_its_value() {
        let mut o = Owner::new(2, 1);
        o.refresh(&[(1, 1, 1), (1, 2, 2)]);
        let done = o.refresh(&[(1, 1, 11), (1, 2, 22)]);
        assert_eq!((done.changed, done.deferred), (1, 1));
        assert_eq!(o.content(), BTreeMap::from([(Key(1, 1), 11), (Key(1, 2), 2)]));
        assert_eq!(o.refresh(&[(1, 1, 11), (1, 2, 22)]).changed, 1);
    }

    #[test]
    fn the_same_key_twice_counts_once() {
        let mut o = Owner::new(2, 1);
        let mut t = o.table();
        t.begin();
        t.stage(Key(1, 1), 1, |a, b| a == b).unwrap();
        assert_eq!(t.stage(Key(1, 1), 2, |a, b| a == b), Err(StageError::Duplicate));
        t.commit(|_| false, |_, _, _| {});
        t.begin();
        t.stage(Key(1, 1), 1, |a, b| a == b).unwrap();
        assert_eq!(t.stage(Key(1, 1), 2, |a, b| a == b), Err(StageError::Duplicate));
        t.commit(|_| false, |_, _, _| {});
        assert_eq!(o.content(), BTreeMap::from([(Key(1, 1), 1)]));
    }

    #[test]
    fn an_index_and_its_generation_survive_a_change_but_not_a_removal() {
        let mut o = Owner::new(2, 1);
        o.refresh(&[(1, 1, 1)]);
        let i = o.table().find(&Key(1, 1)).unwrap();
        let generation = o.table().generation(i);
        o.refresh(&[(1, 1, 2)]);
        assert_eq!((o.table().find(&Key(1, 1)), o.table().generation(i)), (Some(i), generation));
        o.refresh(&[]);
        assert_ne!(o.table().generation(i), generation);
    }

    #[test]
    fn memory_may_grow_between_calls() {
        let mut o = Owner::new(2, 1);
        o.refresh(&[(1, 1, 1), (1, 2, 2)]);
        o.slots.resize(6, Slot::EMPTY);
        o.heads.resize(5, NONE);
        let done = o.refresh(&[(1, 1, 1), (1, 2, 2), (1, 3, 3), (1, 4, 4), (1, 5, 5)]);
        assert_eq!((done.added, o.content().len()), (3, 5));
        for k in 1..=5 {
            assert!(o.table().find(&Key(1, k)).is_some());
        }
    }

    proptest! {
        #[test]
        fn a_table_equals_a_map_through_commits_aborts_and_failed_accounts(
            refreshes in prop::collection::vec(
                (prop::collection::vec((0u64..3, 0u64..12, 0u32..3), 0..14), 0u8..8, prop::bool::weighted(0.2)), 1..30),
        ) {
            // Spare room for all, so that nothing is deferred and a map is an exact model.
            let mut o = Owner::new(10, 40);
            let mut model: BTreeMap<Key, u32> = BTreeMap::new();
            for (named, failed_mask, abort) in refreshes {
                let failed = |a: u64| failed_mask & (1 << a) != 0;
                let mut t = o.table();
                t.begin();
                let mut order: Vec<(Key, u32)> = Vec::new();
                let mut stays: BTreeMap<Key, u32> = BTreeMap::new();
                for (a, k, v) in named {
                    let key = Key(a, k);
                    let new = !model.contains_key(&key);
                    let repeated = stays.contains_key(&key) || order.iter().any(|(o, _)| *o == key);
                    let full = stays.len() + order.len() >= 10;
                    match t.stage(key, v, |a, b| a == b) {
                        Err(StageError::Duplicate) => prop_assert!(repeated),
                        Err(StageError::Capacity { .. }) => prop_assert!(new && full),
                        Err(StageError::NoSpare) => prop_assert!(false, "room for all"),
                        Ok(_) if new => order.push((key, v)),
                        Ok(_) => { stays.insert(key, v); }
                    }
                }
                if abort {
                    t.abort();
                } else {
                    let mut next: BTreeMap<Key, u32> = model.iter().filter(|(k, _)| failed(k.0)).map(|(k, v)| (*k, *v)).collect();
                    next.extend(stays.into_iter().filter(|(k, _)| !failed(k.0)));
                    for (k, v) in order {
                        if !failed(k.0) && next.len() < 10 {
                            next.insert(k, v);
                        }
                    }
                    t.commit(failed, |_, _, _| {});
                    model = next;
                }
                prop_assert_eq!(o.content(), model.clone());
                prop_assert_eq!(o.state.len(), model.len());
                for k in model.keys() {
                    let i = o.table().find(k);
                    prop_assert!(i.is_some());
                }
            }
        }
    }
}
