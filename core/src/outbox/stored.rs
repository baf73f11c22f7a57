//! What the outbox has to do with a store: records of values, parking, and the way back.
//!
//! Every record that comes in (with [`Outbox::push_stored`], [`Outbox::set_record`] or [`Outbox::recover`]) leaves exactly
//! once by [`Outbox::poll_left`]; a parked one may come in again after that.
//!
//! # Order
//! Of two values with the same account, path and time the later one must win. In memory it takes the place of the earlier
//! one; but if that is parked, it can't be seen. So a stored value that could be the successor of a parked one (its time
//! is not after all parked ones, or is in the future) is parked at once and comes back after it: a store gives records
//! back in the order of their numbers, and numbers them in the order of hand-over. Live values, being measured now, are
//! not held up by this. Few cases remain in which the earlier value may be written last, all only for a path handed over
//! twice with the same millisecond: the later value has no record (a store that gives records late, or the wall clock
//! was not known when it came), the earlier one lost its record ([`Outbox::forget_records`]) while the later one was
//! parked, a value was parked with a time in the future and its successor comes when that time is present, or the
//! earlier one is of an earlier life and the clock was set back meanwhile: a clock that was ahead by a year must not
//! hold up today's values.

use super::account::Table;
use super::cells::{Cells, Link, NONE, Place, Pool};
use super::{DropReason, Entry, Outbox, OutboxMem, PushError, ValueTime};
use crate::time::{Millis, UnixMillis};
use crate::values::{NumberText, ValuePath};

/// The largest number of a record.
pub const RECORD_MAX: u64 = u64::MAX >> 1;
/// Marks a record in [`OutboxMem::left`] as parked.
const PARKED: u64 = 1 << 63;
/// So many parked values of an account may come back however short memory is, within what is assured to the account.
const FEW: u32 = 16;
/// Cells that a value is taken to need where it is not known: a path of up to 50 bytes.
const USUAL_CELLS: u32 = 2;

/// A record has left the outbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Left {
    /// Its number.
    pub record: u64,
    /// `false`: the value was delivered or dropped, the store may forget the record. `true`: memory was needed, the
    /// record is the only copy now and is to be given back by [`Outbox::recover`]; if the store has lost it meanwhile,
    /// [`Outbox::drop_parked`].
    pub parked: bool,
}

/// A value that has no record yet. Its text is read by [`Outbox::unstored_text`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Unstored {
    /// Whose value.
    pub account: u64,
    /// Its time; monotonic if the wall clock was not known so far.
    pub time: ValueTime,
    /// From when its age counts.
    pub handed_over: Millis,
    /// Length of its path in bytes.
    pub path_len: u16,
    /// Length of its number in bytes.
    pub number_len: u8,
}

/// How far [`Outbox::next_unstored`] has come: all accounts, of each all lists, of each list all values.
#[derive(Clone, Copy, Debug)]
struct Walk {
    /// The value to look at next; none: that list is at its end, or the first one is yet to begin.
    at: Link,
    /// The account's slot.
    slot: u16,
    /// The list that comes after this one, in [`Walk::LISTS`].
    next_list: u8,
    /// A value without a record was met since the first account.
    met: bool,
}

impl Walk {
    const START: Walk = Walk { at: NONE, slot: 0, next_list: 0, met: false };
    /// Roughly in the order of hand-over.
    const LISTS: [Place; 4] = [Place::Backlog, Place::Suspect, Place::Flight, Place::Live];
}

/// What the outbox knows about a store. 56 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub(super) parked: u64,
    /// No parked value is of a later Unix ms, except for those of the future.
    parked_until: u64,
    /// Values in memory with a record.
    in_memory: u32,
    /// What waits in `left` is at these places.
    left_from: u32,
    left_to: u32,
    /// The value that `oldest_unstored` or `next_unstored` gave last, if it is still there and as it was.
    storing: Link,
    walk: Walk,
    /// Values that were looked at for one without a record.
    #[cfg(test)]
    looks: u64,
}

impl Stored {
    pub(super) const NONE: Stored = Stored {
        parked: 0,
        parked_until: 0,
        in_memory: 0,
        left_from: 0,
        left_to: 0,
        storing: NONE,
        walk: Walk::START,
        #[cfg(test)]
        looks: 0,
    };

    /// Before a waiting value is taken out of its list.
    pub(super) fn walk_past(&mut self, cells: &Cells<'_>, link: Link) {
        if self.walk.at == link {
            self.walk.at = cells.next(link);
        }
    }

    fn look(&mut self) {
        #[cfg(test)]
        {
            self.looks += 1;
        }
    }

    pub(super) const fn forget_storing(&mut self, link: Link) {
        if self.storing == link {
            self.storing = NONE;
        }
    }

    const fn waiting(&self) -> u32 {
        self.left_to - self.left_from
    }

    /// Room for its records was made sure of when they came in.
    fn leave(&mut self, left: &mut [u64], record: u64, parked: bool) {
        if self.left_to as usize >= left.len() {
            left.copy_within(self.left_from as usize..self.left_to as usize, 0);
            (self.left_from, self.left_to) = (0, self.waiting());
        }
        debug_assert!((self.left_to as usize) < left.len(), "a record has a place to leave to");
        if let Some(place) = left.get_mut(self.left_to as usize) {
            *place = record | if parked { PARKED } else { 0 };
            self.left_to += 1;
        }
    }
}

/// The record of a value, 0 if it has none.
fn record_of(records: &[u64], link: Link) -> u64 {
    records.get((link as usize).wrapping_sub(1)).copied().unwrap_or(0)
}

/// Whether the waiting value `link` was handed over after the one with this record. One without a record was never
/// parked, so it came when the other one was.
pub(super) fn is_later(mem: &OutboxMem<'_>, link: Link, record: u64) -> bool {
    let other = record_of(mem.records, link);
    other == 0 || other > record
}

impl Outbox {
    /// Like [`push`](Outbox::push), for a value that a store has under `record`, between 1 and [`RECORD_MAX`]; later
    /// hand-overs have larger numbers. It never drops this value for want of room: it is parked.
    ///
    /// # Errors
    /// [`PushError`]; nothing is changed then, the value does not count as collected, and the record did not come in.
    #[expect(clippy::too_many_arguments, reason = "a value and its record")]
    pub fn push_stored(
        &mut self,
        mem: &mut OutboxMem<'_>,
        now: Millis,
        account: u64,
        time: ValueTime,
        path: ValuePath<'_>,
        number: &NumberText,
        record: u64,
    ) -> Result<(), PushError> {
        self.check_record(mem, record)?;
        self.enter(mem, now, account, time, path, number, Entry::New { record })
    }

    /// At the start: the store has found so many values of earlier lives. They count as recovered, and are parked.
    /// Tell the wall clock first, if it is known.
    pub fn handle_stored(&mut self, now: Millis, values: u64) {
        let now = self.step(now);
        self.ledger.recovered += values;
        self.ledger.queued += values;
        self.stored.parked += values;
        if values > 0 {
            self.stored.parked_until = self.stored.parked_until.max(self.unix(now).unwrap_or(0));
        }
    }

    /// Takes a parked value back into memory; it goes out after the live ones, in the order of hand-over, and never by a
    /// POST, which would stamp it falsely. Its age counts from `handed_over` (at the earliest from monotonic 0; from now,
    /// if that is Unix time and the wall clock is not known). If it is too old, or a later value with its path and time
    /// waits, it is dropped. Give them in the order of their records.
    ///
    /// One more than are parked counts as recovered.
    ///
    /// Cost: O(length of the path), plus O(values of the backlog that were handed over later); O(accounts) when memory is short.
    ///
    /// # Errors
    /// [`PushError`]: it stays parked, its record did not come in. [`PushError::NoRoom`] if nothing but dropping values or
    /// taking from accounts what is assured to them (half of an equal share) would make room: try again when values have
    /// left.
    #[expect(clippy::too_many_arguments, reason = "a value and its record")]
    pub fn recover(
        &mut self,
        mem: &mut OutboxMem<'_>,
        now: Millis,
        account: u64,
        time: ValueTime,
        handed_over: ValueTime,
        path: ValuePath<'_>,
        number: &NumberText,
        record: u64,
    ) -> Result<(), PushError> {
        self.check_record(mem, record)?;
        self.enter(mem, now, account, time, path, number, Entry::Parked { handed_over, record })
    }

    /// The next record that has left, oldest first. To be called until it gives none, after every call that takes, sends
    /// or drops values.
    pub fn poll_left(&mut self, mem: &mut OutboxMem<'_>) -> Option<Left> {
        let s = &mut self.stored;
        let left = if s.waiting() > 0 { mem.left.get(s.left_from as usize).copied() } else { None };
        let Some(left) = left else {
            (s.left_from, s.left_to) = (0, 0);
            return None;
        };
        s.left_from += 1;
        Some(Left { record: left & RECORD_MAX, parked: left & PARKED != 0 })
    }

    /// Values that only the store has.
    #[must_use]
    pub const fn parked(&self) -> u64 {
        self.stored.parked
    }

    /// The store has given up so many parked values: for its bound in bytes ([`DropReason::Full`]), their age
    /// ([`DropReason::TooOld`]), unreadable records ([`DropReason::Corrupt`]), to keep others in their place
    /// ([`DropReason::Thinned`]), or as a POST may have carried them ([`DropReason::Unknown`]). More than are parked count
    /// as all that are; how many were counted.
    pub fn drop_parked(&mut self, reason: DropReason, values: u64) -> u64 {
        let values = values.min(self.stored.parked);
        self.take_parked(values);
        self.ledger.queued -= values;
        self.ledger.count_dropped(reason, values);
        values
    }

    /// How many parked values of `account` to give to [`recover`](Outbox::recover) now: so many that about two requests of
    /// backlog are in memory, and a quarter of it is left for live values; if memory is short, a few, of which others that
    /// fill it give way for up to half of an equal share. A hint: `recover` may find no room.
    #[must_use]
    pub fn room_for_backlog(&self, mem: &mut OutboxMem<'_>, account: u64) -> u32 {
        let slot = Table { slots: &mut *mem.accounts }.find(account);
        let queue = slot.and_then(|slot| mem.accounts.get(usize::from(slot)));
        let post = queue.is_some_and(|q| self.posts(q));
        let batch = if post { self.settings.post_max_values } else { self.settings.max_values };
        let flight = self.flight.as_ref().filter(|f| Some(f.slot) == slot && f.origin != Place::Live);
        let have = queue.map_or(0, |q| q.backlog.len.saturating_add(q.suspects.list.len))
            + flight.map_or(0, |f| f.list.len);
        let free = self.pool.free_cells(mem.cells);
        let spare = free.saturating_sub(Pool::capacity(mem.cells) / 4);
        // Where nothing is free, others give way up to the assured part, and no further: a hint of more would be kept by
        // no one.
        let assured = self.assured_cells(mem, slot.is_none()).saturating_sub(queue.map_or(0, |q| q.cells));
        let few = FEW.saturating_sub(have).min(free.max(assured).div_ceil(USUAL_CELLS));
        let room = (spare / USUAL_CELLS).max(few);
        let records = u32::try_from(mem.left.len()).unwrap_or(u32::MAX);
        let records = records.saturating_sub(self.stored.in_memory).saturating_sub(self.stored.waiting());
        let parked = u32::try_from(self.stored.parked).unwrap_or(u32::MAX);
        (2 * u32::from(batch)).saturating_sub(have).min(room).min(records).min(parked)
    }

    /// For stores that keep only what has waited for a while: the value without a record that was handed over first, if
    /// that was before `before`, in flight or not. When it is stored, [`set_record`](Outbox::set_record). One at a time: asking again
    /// gives up the one before. O(values).
    pub fn oldest_unstored(&mut self, mem: &mut OutboxMem<'_>, before: Millis) -> Option<Unstored> {
        let cells = Cells(&mut *mem.cells);
        let (mut oldest, mut since_ms) = (NONE, before.0);
        for (slot, q) in mem.accounts.iter().take(usize::from(self.accounts)).enumerate() {
            for place in [Place::Backlog, Place::Suspect, Place::Live, Place::Flight] {
                let mut at = self.head(slot, q, place);
                while at != NONE {
                    if record_of(mem.records, at) == 0 && cells.since_ms(at) < since_ms {
                        (oldest, since_ms) = (at, cells.since_ms(at));
                    }
                    at = cells.next(at);
                }
            }
        }
        self.stored.storing = oldest;
        (oldest != NONE).then(|| self.unstored(mem, oldest))
    }

    /// For stores that catch up after a failure: the next value without a record, account by account, and of each about
    /// in the order of hand-over; in flight or not. When it is stored, [`set_record`](Outbox::set_record). One at a time:
    /// asking again gives up the one before, which comes again when all others have been looked at. `None`: all have a
    /// record.
    ///
    /// Going through n values takes O(n) for all calls together, however many there are and whatever leaves or comes
    /// between them; a single call O(values), a last one that gives none always.
    pub fn next_unstored(&mut self, mem: &mut OutboxMem<'_>) -> Option<Unstored> {
        self.stored.storing = NONE;
        loop {
            let at = self.stored.walk.at;
            if at != NONE {
                self.stored.look();
                self.stored.walk.at = Cells(&mut *mem.cells).next(at);
                if record_of(mem.records, at) == 0 {
                    self.stored.walk.met = true;
                    self.stored.storing = at;
                    return Some(self.unstored(mem, at));
                }
                continue;
            }
            let walk = &mut self.stored.walk;
            let Some(place) = Walk::LISTS.get(usize::from(walk.next_list)) else {
                (walk.slot, walk.next_list) = (walk.slot.saturating_add(1), 0);
                continue;
            };
            walk.next_list += 1;
            let slot = usize::from(walk.slot);
            if walk.slot >= self.accounts {
                let all_stored = !walk.met;
                *walk = Walk::START;
                if all_stored {
                    return None;
                }
            } else if let Some(q) = mem.accounts.get(slot) {
                self.stored.walk.at = self.head(slot, q, *place);
            }
        }
    }

    /// The store can't take the value that [`next_unstored`](Outbox::next_unstored) gave, nor others of its account: the
    /// next one will be of another account, if there is one.
    pub fn pass_account(&mut self) {
        let walk = &mut self.stored.walk;
        self.stored.storing = NONE;
        (walk.at, walk.next_list) = (NONE, Walk::LISTS.len() as u8);
    }

    fn unstored(&self, mem: &mut OutboxMem<'_>, link: Link) -> Unstored {
        let cells = Cells(&mut *mem.cells);
        let ms = cells.time_ms(link);
        Unstored {
            account: mem.accounts.get(usize::from(cells.account(link))).map_or(0, |q| q.id),
            time: if cells.timed(link) {
                ValueTime::Unix(UnixMillis(ms))
            } else {
                ValueTime::Monotonic(Millis(ms))
            },
            handed_over: Millis(cells.since_ms(link)),
            path_len: cells.path_len(link) as u16,
            number_len: cells.number_len(link) as u8,
        }
    }

    /// Copies path and number (one after the other) of the value that [`oldest_unstored`](Outbox::oldest_unstored) or
    /// [`next_unstored`](Outbox::next_unstored) gave: how many bytes; 0 if it has left meanwhile.
    pub fn unstored_text(&self, mem: &mut OutboxMem<'_>, buf: &mut [u8]) -> usize {
        let cells = Cells(&mut *mem.cells);
        let link = self.stored.storing;
        if link == NONE {
            return 0;
        }
        let text = cells.text(link, 0, cells.path_len(link) + cells.number_len(link)).flatten();
        buf.iter_mut().zip(text).map(|(to, byte)| *to = *byte).count()
    }

    /// The value that [`oldest_unstored`](Outbox::oldest_unstored) or [`next_unstored`](Outbox::next_unstored) gave is
    /// stored under `record`. `false` if it has left
    /// or got its time meanwhile, or no record can come in: the record is of no use, the store may forget it.
    pub fn set_record(&mut self, mem: &mut OutboxMem<'_>, record: u64) -> bool {
        let link = core::mem::replace(&mut self.stored.storing, NONE);
        let fits = link != NONE && self.check_record(mem, record).is_ok();
        if fits {
            self.note_record(mem, link, record);
        }
        fits
    }

    /// The store has lost records of values in memory: those of which `lost` says so have none any more, as if they had
    /// never been stored, and can be stored again. How many. Poll what has left before. O(cells).
    pub fn forget_records(&mut self, mem: &mut OutboxMem<'_>, mut lost: impl FnMut(u64) -> bool) -> u32 {
        let mut forgotten = 0;
        for record in mem.records.iter_mut().filter(|r| **r != 0) {
            if lost(*record) {
                *record = 0;
                forgotten += 1;
            }
        }
        self.stored.in_memory -= forgotten;
        forgotten
    }

    /// The same for one record: whether a value in memory had it.
    pub fn forget_record(&mut self, mem: &mut OutboxMem<'_>, record: u64) -> bool {
        self.forget_records(mem, |r| r == record) > 0
    }

    /// The records of the request under way, for a store that marks those which a POST may have carried.
    pub fn records_in_flight(&self, mem: &mut OutboxMem<'_>, mut each: impl FnMut(u64)) {
        let cells = Cells(&mut *mem.cells);
        let mut at = self.flight.as_ref().map_or(NONE, |f| f.list.head);
        while at != NONE {
            let record = record_of(mem.records, at);
            if record != 0 {
                each(record);
            }
            at = cells.next(at);
        }
    }

    fn head(&self, slot: usize, q: &super::AccountQueue, place: Place) -> Link {
        match &self.flight {
            Some(f) if place == Place::Flight && usize::from(f.slot) == slot => f.list.head,
            _ => q.list(place).head,
        }
    }

    /// Whether a record can come in, and will find room when it leaves.
    pub(super) fn check_record(&self, mem: &OutboxMem<'_>, record: u64) -> Result<(), PushError> {
        if mem.records.len() < mem.cells.len() || mem.left.len() <= mem.cells.len() {
            Err(PushError::NotStoring)
        } else if record == 0 || record > RECORD_MAX {
            Err(PushError::BadRecord { record })
        } else if (self.stored.in_memory + self.stored.waiting()) as usize >= mem.left.len() {
            Err(PushError::LeftNotPolled)
        } else {
            Ok(())
        }
    }

    /// A value that has just come into memory, or was there, has a record.
    pub(super) fn note_record(&mut self, mem: &mut OutboxMem<'_>, link: Link, record: u64) {
        if let Some(place) = mem.records.get_mut((link as usize).wrapping_sub(1)) {
            *place = record;
            self.stored.in_memory += 1;
        }
    }

    /// A value is leaving memory: so does its record.
    pub(super) fn record_leaves(&mut self, mem: &mut OutboxMem<'_>, link: Link, parked: bool) {
        self.stored.forget_storing(link);
        if self.stored.walk.at == link {
            // In flight until now, and those after it may have left too: the rest is looked at the next time.
            (self.stored.walk.at, self.stored.walk.met) = (NONE, true);
        }
        if let Some(place) = mem.records.get_mut((link as usize).wrapping_sub(1))
            && *place != 0
        {
            let record = core::mem::replace(place, 0);
            self.stored.in_memory -= 1;
            self.stored.leave(mem.left, record, parked);
        }
    }

    /// A queued value that is not in memory is parked.
    pub(super) fn park_record(&mut self, mem: &mut OutboxMem<'_>, record: u64, timed: bool, time_ms: u64) {
        self.note_parked(timed, time_ms);
        self.stored.leave(mem.left, record, true);
    }

    /// A queued value that is not in memory is dropped.
    pub(super) fn drop_record(&mut self, mem: &mut OutboxMem<'_>, record: u64, reason: DropReason) {
        self.ledger.queued -= 1;
        self.ledger.count_dropped(reason, 1);
        self.stored.leave(mem.left, record, false);
    }

    fn note_parked(&mut self, timed: bool, time_ms: u64) {
        self.stored.parked += 1;
        if timed {
            // Times of the future would hold up all live values until then.
            let time_ms = time_ms.min(self.unix(self.now).unwrap_or(u64::MAX));
            self.stored.parked_until = self.stored.parked_until.max(time_ms);
        }
    }

    /// Parks a waiting value; `false` if it has no record.
    pub(super) fn park(&mut self, mem: &mut OutboxMem<'_>, link: Link) -> bool {
        if record_of(mem.records, link) == 0 {
            return false;
        }
        let cells = Cells(&mut *mem.cells);
        self.note_parked(cells.timed(link), cells.time_ms(link));
        self.take_out(mem, link);
        self.release(mem, link, true);
        true
    }

    /// A parked value is on its way into memory; one that nobody knew of is found now.
    pub(super) fn unpark(&mut self) {
        if self.stored.parked == 0 {
            self.ledger.recovered += 1;
            self.ledger.queued += 1;
        } else {
            self.take_parked(1);
        }
    }

    fn take_parked(&mut self, values: u64) {
        self.stored.parked -= values;
        if self.stored.parked == 0 {
            self.stored.parked_until = 0;
        }
    }

    /// Whether a parked value may have the path and time of one that is handed over now.
    pub(super) fn follows_parked(&self, now: Millis, timed: bool, time_ms: u64) -> bool {
        let future = || {
            let unix = self.unix(now).unwrap_or(u64::MAX);
            time_ms > unix.saturating_add(u64::from(self.settings.post_max_age_ms))
        };
        self.stored.parked > 0 && timed && (time_ms <= self.stored.parked_until || future())
    }

    /// How long ago a value was handed over, ms.
    pub(super) fn age_ms(&self, now: Millis, handed_over: ValueTime) -> u64 {
        match handed_over {
            ValueTime::Unix(UnixMillis(ms)) => self.unix(now).map_or(0, |unix| unix.saturating_sub(ms)),
            ValueTime::Monotonic(at) => now.since(at),
        }
    }

    /// Cells that an account is sure to get for parked values although others fill memory: half of an equal share, so that
    /// one of the others always has more than that and its next value. At least one.
    fn assured_cells(&self, mem: &OutboxMem<'_>, one_more: bool) -> u32 {
        let accounts = u32::from(self.accounts) + u32::from(one_more);
        (Pool::capacity(mem.cells) / (2 * accounts.max(1))).max(1)
    }

    /// Makes room for a parked value of the account at `slot`: if that has less than its assured cells, by parking others of
    /// the account that uses the most memory, which keeps its own assured cells. If that is not enough, none is parked.
    ///
    /// So what is assured to all accounts and used by them only grows until values leave or come new: however large the
    /// values are, accounts never drive out each other's in turns.
    pub(super) fn make_room_fairly(&mut self, mem: &mut OutboxMem<'_>, slot: u16, needed: usize) -> bool {
        let missing = (needed as u64).saturating_sub(u64::from(self.pool.free_cells(mem.cells)));
        if missing == 0 {
            return true;
        }
        let assured = self.assured_cells(mem, false);
        if mem.accounts.get(usize::from(slot)).is_none_or(|q| q.cells >= assured) {
            return false;
        }
        let Some((most, _)) = self.oldest_of_most(mem) else { return false };
        let Some(from) = mem.accounts.get(usize::from(most)) else { return false };
        // First look whether its oldest ones suffice, then park them.
        let cells = Cells(&mut *mem.cells);
        let mut heads = [from.backlog.head, from.suspects.list.head, from.live.head];
        let (mut made, mut values) = (0, 0);
        while made < missing {
            let oldest =
                heads.iter_mut().filter(|head| **head != NONE).min_by_key(|head| cells.since_ms(**head));
            let Some(oldest) = oldest else { return false };
            if record_of(mem.records, *oldest) == 0 {
                return false;
            }
            made += u64::from(cells.cells_of(*oldest));
            values += 1;
            *oldest = cells.next(*oldest);
        }
        if u64::from(from.cells) < made + u64::from(assured) {
            return false;
        }
        for _ in 0..values {
            let Some(oldest) = self.oldest_of(mem, most) else { return false };
            if !self.park(mem, oldest) {
                return false;
            }
        }
        true
    }

    /// Puts a value that has come back into the backlog, where its hand-over belongs: the oldest are dropped or
    /// parked first.
    pub(super) fn list_in_order(&mut self, mem: &mut OutboxMem<'_>, link: Link, slot: u16) {
        let mut cells = Cells(&mut *mem.cells);
        if let Some(q) = mem.accounts.get_mut(usize::from(slot)) {
            let mut after = q.backlog.tail;
            while after != NONE && cells.since_ms(after) > cells.since_ms(link) {
                after = cells.prev(after);
            }
            self.kept += 1;
            cells.set_place(link, Place::Backlog);
            q.backlog.insert_after(&mut cells, after, link);
        }
    }

    /// Counts records again: for tests.
    pub(super) fn audit_records(&self, mem: &mut OutboxMem<'_>) -> Result<(), &'static str> {
        let cells = Cells(&mut *mem.cells);
        let mut of_values = 0;
        for (slot, q) in mem.accounts.iter().enumerate() {
            for place in [Place::Backlog, Place::Suspect, Place::Live, Place::Flight] {
                let mut at = self.head(slot, q, place);
                while at != NONE {
                    of_values += u32::from(record_of(mem.records, at) != 0);
                    at = cells.next(at);
                }
            }
        }
        let all = mem.records.iter().filter(|r| **r != 0).count();
        if of_values != self.stored.in_memory || all != of_values as usize {
            return Err("a record belongs to no value in memory, or their count is wrong");
        }
        if mem.records.iter().any(|r| *r > RECORD_MAX) {
            return Err("a record's number is too large");
        }
        if self.stored.left_from > self.stored.left_to
            || self.stored.left_to as usize > mem.left.len()
            || of_values as usize + self.stored.waiting() as usize > mem.left.len()
        {
            return Err("records have no room to leave");
        }
        let walk = self.stored.walk.at;
        if walk != NONE {
            let place = cells.place(walk);
            let slot = usize::from(cells.account(walk));
            let mut at = mem.accounts.get(slot).map_or(NONE, |q| self.head(slot, q, place));
            while at != NONE && at != walk {
                at = cells.next(at);
            }
            if at == NONE {
                return Err("the walk over values without a record has come to a value that has left");
            }
        }
        if self.stored.parked > self.ledger.queued {
            return Err("more values are parked than queued");
        }
        if self.stored.parked == 0 && self.stored.parked_until != 0 {
            return Err("nothing is parked, but values are held up");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::super::{AccountQueue, Cell, Settings};
    use super::*;
    use crate::values::Number;

    struct Memory {
        cells: Vec<Cell>,
        index: Vec<u32>,
        accounts: Vec<AccountQueue>,
        records: Vec<u64>,
        left: Vec<u64>,
    }

    impl Memory {
        fn new(values: usize) -> Self {
            Memory {
                cells: vec![Cell::EMPTY; 2 * values],
                index: vec![0; values],
                accounts: vec![AccountQueue::EMPTY; 8],
                records: vec![0; 2 * values],
                left: vec![0; 2 * values + 1],
            }
        }

        fn lent(&mut self) -> OutboxMem<'_> {
            OutboxMem {
                cells: &mut self.cells,
                index: &mut self.index,
                accounts: &mut self.accounts,
                records: &mut self.records,
                left: &mut self.left,
            }
        }
    }

    /// An outbox of so many values without records, of four accounts.
    fn filled(values: usize) -> (Outbox, Memory) {
        let (mut outbox, mut memory) = (Outbox::new(Settings::DEFAULT), Memory::new(values));
        for n in 0..values {
            let number = (n as u64).number_text().unwrap();
            let path = std::format!("p{n}");
            let (path, time) = (ValuePath::new(&path, 50).unwrap(), ValueTime::Monotonic(Millis(n as u64)));
            outbox.push(&mut memory.lent(), Millis(n as u64), (n % 4) as u64, time, path, &number).unwrap();
        }
        (outbox, memory)
    }

    #[test]
    fn storing_all_values_late_looks_at_each_of_them_twice_however_many_there_are() {
        for values in [100, 1_000, 10_000] {
            let (mut outbox, mut memory) = filled(values);
            let mut stored = 0;
            while outbox.next_unstored(&mut memory.lent()).is_some() {
                stored += 1;
                assert!(outbox.set_record(&mut memory.lent(), stored));
            }
            assert_eq!((stored, outbox.stored.looks), (values as u64, 2 * values as u64));
            outbox.audit(&mut memory.lent()).unwrap();
        }
    }

    #[test]
    fn a_disk_that_fails_again_and_again_is_asked_for_each_value_anew_without_going_through_those_before() {
        let (mut outbox, mut memory) = filled(1_000);
        let mut stored = 0;
        while let Some(unstored) = outbox.next_unstored(&mut memory.lent()) {
            // Each other time it takes none of this account.
            if stored % 2 == 0 && outbox.stored.looks % 2 == 0 && unstored.account != 3 {
                outbox.pass_account();
                continue;
            }
            stored += 1;
            assert!(outbox.set_record(&mut memory.lent(), stored));
            assert!(outbox.stored.looks < 20_000, "it gets on");
        }
        assert_eq!(stored, 1_000);
    }

    #[test]
    fn records_that_were_lost_are_forgotten_in_one_go_and_their_values_are_stored_again() {
        let (mut outbox, mut memory) = filled(100);
        for record in 1..=100 {
            outbox.next_unstored(&mut memory.lent()).unwrap();
            assert!(outbox.set_record(&mut memory.lent(), record));
        }
        assert_eq!(outbox.next_unstored(&mut memory.lent()), None);
        assert_eq!(outbox.forget_records(&mut memory.lent(), |r| r % 10 == 0 || r > 500), 10);
        assert!(!outbox.forget_record(&mut memory.lent(), 10), "it is forgotten already");
        assert!(outbox.forget_record(&mut memory.lent(), 11));
        outbox.audit(&mut memory.lent()).unwrap();
        let mut again = 0;
        while outbox.next_unstored(&mut memory.lent()).is_some() {
            again += 1;
            assert!(outbox.set_record(&mut memory.lent(), 1_000 + again));
        }
        assert_eq!(again, 11);
        assert!(outbox.poll_left(&mut memory.lent()).is_none(), "a record that was lost does not leave");
    }
}
