//! Between the collector and the files of its outbox: what the driver's loop does for values that outlive the process.
//!
//! The loop calls [`Keeper::step`] at each turn and [`Keeper::close`] at the end; each value that is handed over goes
//! through [`Keeper::hand_over`]. These calls are made while the collector is locked, so that both agree at every moment.
//! Files are written during them, as far as the system's cache takes it at once; what waits for the disk itself does not:
//! a [`Kept`] has syncs done on tokio's threads for that, one job at a time.
//!
//! Under [`WritePolicy::First`](crate::outbox::WritePolicy::First) with [`Sync::Always`](crate::outbox::Sync::Always) the
//! hand-over of a value waits for its sync ([`Kept::wait_for`]), without the collector: the other runs go on if they have
//! threads of their own ([`Runner::run_on_threads`](super::Runner::run_on_threads)). Where all share one task, nothing can go on
//! beside a call that is not async. What several runs hand over during one sync goes with the next one together.

use core::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use grafolean_core::bot::{Bot, HandOverError};
use grafolean_core::collector::Collector;
use grafolean_core::outbox::{DropReason, PushError, ValueTime};
use grafolean_core::state::StateSlot;
use grafolean_core::storage::Storage;
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::NumberText;

use crate::outbox::{
    Disk, Gone, OpenError, Settings, Store, StoreEvent, StoredState, Sync, SyncJob, Synced, Totals, Value,
    WritePolicy,
};

/// Changed states are looked for so often, ms.
const STATES_MS: u64 = 1_000;
/// Values without a record that are stored in one go at most: finding one takes a look at all.
const LATE_VALUES: usize = 1_000;
/// Longest text of a value, bytes.
const TEXT_BYTES: usize = 512;

/// The files of an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The directory; made if it is not there. One collector only may use it.
    pub dir: PathBuf,
    /// How values are kept.
    pub settings: Settings,
}

/// The store of a collector.
pub struct Keeper<D> {
    store: Store<D>,
    states_at: Millis,
    states_forgotten: u32,
    /// Some values may have no record, as the disk failed when they were handed over.
    late: bool,
    /// The value that was handed over last waits for its sync.
    unsynced: Option<u64>,
}

impl<D> fmt::Debug for Keeper<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

/// A keeper whose syncs are done beside the loop.
#[derive(Debug)]
pub(super) struct Kept<D> {
    keeper: Mutex<Keeper<D>>,
    /// A job has ended.
    synced: Condvar,
}

impl<D: Disk> Kept<D> {
    pub(super) fn new(mut keeper: Keeper<D>) -> Arc<Self> {
        keeper.sync_elsewhere();
        Arc::new(Kept { keeper: Mutex::new(keeper), synced: Condvar::new() })
    }

    /// To be called while the collector is locked, or by who does not lock it meanwhile.
    pub(super) fn lock(&self) -> MutexGuard<'_, Keeper<D>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a job, and notes what came of it: blocks.
    pub(super) fn run(&self, job: SyncJob, now: impl Fn() -> Millis) {
        let synced = job.run();
        self.lock().handle_synced(now(), synced);
        self.synced.notify_all();
    }

    /// Blocks until a record needs to be waited for no more. The collector must not be locked.
    pub(super) fn wait_for(&self, record: u64, now: impl Fn() -> Millis) {
        let mut keeper = self.lock();
        while !keeper.store.is_settled(record) {
            if let Some(job) = keeper.poll_sync(now()) {
                drop(keeper);
                self.run(job, &now);
                keeper = self.lock();
            } else if keeper.store.is_syncing() {
                keeper = self.synced.wait(keeper).unwrap_or_else(PoisonError::into_inner);
            } else {
                return;
            }
        }
    }

    /// Blocks while a job is under way.
    pub(super) fn wait_for_job(&self) {
        let mut keeper = self.lock();
        while keeper.store.is_syncing() {
            keeper = self.synced.wait(keeper).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn reason(gone: Gone) -> DropReason {
    match gone {
        Gone::Full => DropReason::Full,
        Gone::TooOld => DropReason::TooOld,
        Gone::Corrupt => DropReason::Corrupt,
        Gone::Thinned => DropReason::Thinned,
    }
}

fn tell(event: &StoreEvent) {
    match event {
        StoreEvent::Working { .. } => tracing::info!("{event}"),
        event => tracing::warn!("{event}"),
    }
}

impl<D: Disk> Keeper<D> {
    /// Opens the store, and tells the collector (which knows the time) what it holds.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn open<B: Bot, S: Storage<B>>(
        disk: D,
        settings: Settings,
        c: &mut Collector<B, S>,
    ) -> Result<Self, OpenError> {
        let (mut store, found) = Store::open(disk, settings)?;
        c.handle_stored(found.values);
        c.count_unrecoverable(DropReason::Corrupt, found.corrupt);
        for state in store.states() {
            if let Some(slot) = StateSlot::new(state.job, state.name, &state.bytes)
                && let Err(e) = c.restore_state(slot)
            {
                tracing::warn!("a job's state is not taken back: {e}");
                break;
            }
        }
        while let Some(event) = store.poll_event() {
            tell(&event);
        }
        if found.values > 0 {
            tracing::info!("{} values of earlier runs of this program wait in the outbox", found.values);
        }
        Ok(Keeper {
            store,
            states_at: Millis(0),
            states_forgotten: c.states_forgotten(),
            late: false,
            unsynced: None,
        })
    }

    /// A value is handed over.
    ///
    /// # Errors
    /// Those of the collector: it was not taken.
    #[expect(clippy::too_many_arguments, reason = "a value, and where it goes")]
    pub fn hand_over<B: Bot, S: Storage<B>>(
        &mut self,
        c: &mut Collector<B, S>,
        now: Millis,
        unix: UnixMillis,
        account: u64,
        time: Option<UnixMillis>,
        path: &str,
        number: &NumberText,
    ) -> Result<(), HandOverError> {
        let ValueTime::Unix(time) = c.value_time(time) else {
            return c.handle_value(account, time, path, number);
        };
        let value = Value { time, handed_over: unix, path, number: number.as_str() };
        self.unsynced = None;
        let Some(record) = self.store.take(now, account, &value) else {
            self.late = true;
            let result = c.handle_value(account, Some(time), path, number);
            self.drain(c, now);
            return result;
        };
        let result = c.handle_stored_value(account, ValueTime::Unix(time), path, number, record);
        if result.is_err() {
            self.store.left(now, record, false);
        } else if !self.store.is_settled(record) {
            let settings = self.store.settings();
            let waits = settings.write == WritePolicy::First && settings.sync == Sync::Always;
            self.unsynced = Some(record).filter(|_| waits);
        }
        self.drain(c, now);
        result
    }

    /// The record of the value that was just handed over, if its hand-over is not to return before it is synced.
    pub fn take_unsynced(&mut self) -> Option<u64> {
        self.unsynced.take()
    }

    /// From now on the caller does what [`poll_sync`](Self::poll_sync) gives, after each step and hand-over.
    pub fn sync_elsewhere(&mut self) {
        self.store.sync_elsewhere();
    }

    /// The next syncs that are due: [`Store::poll_sync`].
    pub fn poll_sync(&mut self, now: Millis) -> Option<SyncJob> {
        self.store.poll_sync(now)
    }

    /// They have ended: [`Store::handle_synced`]. What follows from it is done by the next [`step`](Self::step).
    pub fn handle_synced(&mut self, now: Millis, synced: Synced) {
        self.store.handle_synced(now, synced);
    }

    /// What has left the collector's memory, and what the store has given up.
    fn drain<B: Bot, S: Storage<B>>(&mut self, c: &mut Collector<B, S>, now: Millis) {
        while let Some(left) = c.poll_left() {
            self.store.left(now, left.record, left.parked);
        }
        while let Some((gone, values)) = self.store.poll_gone() {
            c.drop_parked(reason(gone), values);
        }
    }

    /// Does what is due: the time of the next call.
    pub fn step<B: Bot, S: Storage<B>>(
        &mut self,
        c: &mut Collector<B, S>,
        now: Millis,
        unix: UnixMillis,
        feeding: bool,
    ) -> Millis {
        self.drain(c, now);
        if feeding {
            self.feed(c, now, unix);
        }
        if self.states_at <= now {
            self.states_at = Millis(now.0 + STATES_MS);
            self.keep_states(c, now);
            if self.late {
                self.store_late(c, now, unix);
            }
        }
        self.store.set_ledger(now, c.ledger());
        self.store.handle_time(now, unix);
        self.drain(c, now);
        while let Some(event) = self.store.poll_event() {
            tell(&event);
        }
        self.store.poll_timeout().map_or(self.states_at, |at| at.min(self.states_at))
    }

    fn keep_states<B: Bot, S: Storage<B>>(&mut self, c: &mut Collector<B, S>, now: Millis) {
        let forgotten = c.states_forgotten();
        if self.states_forgotten == forgotten {
            c.changed_states(|s| {
                self.store.set_state(now, s.job(), s.name(), s.value());
            });
            return;
        }
        self.states_forgotten = forgotten;
        let mut all = Vec::new();
        c.all_states(|s| all.push(StoredState { job: s.job(), name: s.name(), bytes: s.value().to_vec() }));
        self.store.replace_states(now, all.into_iter());
    }

    /// Parked values come back, as many as the collector wants.
    fn feed<B: Bot, S: Storage<B>>(&mut self, c: &mut Collector<B, S>, now: Millis, unix: UnixMillis) {
        let parked: Vec<(u64, u64)> = self.store.parked().collect();
        for (account, values) in parked {
            let room = u64::from(c.room_for_backlog(account)).min(values);
            if room == 0 {
                continue;
            }
            // Whole, but not as values are now: of another version, say.
            let mut unfit = Vec::new();
            self.store.feed(now, unix, account, room, |record, v| {
                let Ok(number) = NumberText::from_json(v.number) else {
                    unfit.push(record);
                    return true;
                };
                let (time, handed_over) = (ValueTime::Unix(v.time), ValueTime::Unix(v.handed_over));
                match c.recover_value(account, time, handed_over, v.path, &number, record) {
                    Ok(()) => true,
                    Err(HandOverError::Outbox(
                        PushError::NoRoom | PushError::LeftNotPolled | PushError::TooManyAccounts { .. },
                    )) => false,
                    Err(_) => {
                        unfit.push(record);
                        true
                    }
                }
            });
            c.drop_parked(DropReason::Corrupt, unfit.len() as u64);
            unfit.into_iter().for_each(|record| self.store.left(now, record, false));
            self.drain(c, now);
        }
    }

    /// Values that were handed over while the disk failed get their records.
    fn store_late<B: Bot, S: Storage<B>>(&mut self, c: &mut Collector<B, S>, now: Millis, unix: UnixMillis) {
        let mut text = [0; TEXT_BYTES];
        for _ in 0..LATE_VALUES {
            // One that was just handed over may be longer than its age, as its clock is another.
            let Some(u) = c.oldest_unstored(Millis(u64::MAX), &mut text) else {
                self.late = false;
                return;
            };
            let (path_len, len) =
                (usize::from(u.path_len), usize::from(u.path_len) + usize::from(u.number_len));
            let texts = text.get(..len).and_then(|t| t.split_at_checked(path_len));
            let texts = texts.and_then(|(p, n)| Some((str::from_utf8(p).ok()?, str::from_utf8(n).ok()?)));
            let (Some((path, number)), ValueTime::Unix(time)) = (texts, u.time) else { return };
            let handed_over = UnixMillis(unix.0.saturating_sub(now.0.saturating_sub(u.handed_over.0)));
            let value = Value { time, handed_over, path, number };
            let Some(record) = self.store.take(now, u.account, &value) else { return };
            if !c.set_record(record) {
                self.store.left(now, record, false);
                return;
            }
        }
    }

    /// Writes all that waits: for the end.
    pub fn close<B: Bot, S: Storage<B>>(&mut self, c: &mut Collector<B, S>, now: Millis, unix: UnixMillis) {
        self.drain(c, now);
        self.keep_states(c, now);
        // A disk that failed gets a last chance before values without records are given to it.
        self.store.flush(now, unix);
        let mut stored = None;
        // As long as it gets on: what has no record ends with the process.
        while self.late && stored != Some(self.store.written()) {
            stored = Some(self.store.written());
            self.store_late(c, now, unix);
            self.drain(c, now);
            self.store.flush(now, unix);
        }
        self.drain(c, now);
        self.store.set_ledger(now, c.ledger());
        self.store.flush(now, unix);
        self.drain(c, now);
        while let Some(event) = self.store.poll_event() {
            tell(&event);
        }
    }

    /// Counts over all lives of the directory, with the collector's at present.
    pub fn totals<B: Bot, S: Storage<B>>(&mut self, c: &Collector<B, S>, now: Millis) -> Totals {
        self.store.set_ledger(now, c.ledger());
        self.store.totals()
    }

    /// Waiting values that the next life will find.
    pub fn written(&self) -> u64 {
        self.store.written()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::outbox::faulty::FaultyDisk;

    #[test]
    fn a_hand_over_that_waits_for_its_sync_stops_no_other_call_and_all_that_waited_go_with_the_next_sync() {
        const UNIX: UnixMillis = UnixMillis(1_700_000_000_000);
        let disk = FaultyDisk::new(1);
        let settings = Settings { write: WritePolicy::First, sync: Sync::Always, ..Settings::DEFAULT };
        let (store, _) = Store::open(disk.handle(), settings).unwrap();
        let keeper = Keeper { store, states_at: Millis(0), states_forgotten: 0, late: false, unsynced: None };
        let kept = Kept::new(keeper);
        let take = || {
            let value = Value { time: UNIX, handed_over: UNIX, path: "a.b", number: "1" };
            kept.lock().store.take(Millis(0), 7, &value).unwrap()
        };
        disk.hold_syncs(true);
        let (told, ends) = mpsc::channel();
        std::thread::scope(|threads| {
            for n in 0..3 {
                let (told, kept, record) = (told.clone(), &kept, take());
                threads.spawn(move || {
                    kept.wait_for(record, || Millis(0));
                    told.send(n).unwrap();
                });
            }
            // One thread syncs, the disk does not answer: the store can be used nevertheless.
            while !kept.lock().store.is_syncing() {
                std::thread::yield_now();
            }
            let last = take();
            kept.lock().store.handle_time(Millis(1), UNIX);
            assert!(!kept.lock().store.is_settled(last));
            assert!(ends.try_recv().is_err(), "a hand-over returned before its value was synced");
            disk.hold_syncs(false);
            kept.wait_for(last, || Millis(2));
            assert!(kept.lock().store.is_settled(last));
        });
        assert_eq!(ends.try_iter().count(), 3);
        drop(kept);
        disk.power_cut_losing_all();
        assert_eq!(Store::open(disk.handle(), settings).unwrap().1.values, 4);
    }
}
