//! Between the collector and the files of its outbox: what the driver's loop does for values that outlive the process.
//!
//! The loop calls [`Keeper::step`] at each turn and [`Keeper::close`] at the end; each value that is handed over goes
//! through [`Keeper::hand_over`]. These calls are made while the collector is locked, so that both agree at every moment.
//! Files are written during them, as far as the system's cache takes it at once; what waits for the disk itself does not:
//! a [`Kept`](super::kept::Kept) has syncs done on a thread for that, one job at a time.
//!
//! Under [`WritePolicy::First`](crate::outbox::WritePolicy::First) with [`Sync::Always`](crate::outbox::Sync::Always) the
//! hand-over of a value waits for its sync ([`Kept::wait_for`](super::kept::Kept::wait_for)), without the collector: the other runs go on if they have
//! threads of their own ([`Runner::run_on_threads`](super::Runner::run_on_threads)). Where all share one task, nothing can go on
//! beside a call that is not async. What several runs hand over during one sync goes with the next one together.

use core::fmt;
use std::path::PathBuf;

use grafolean_core::bot::{Bot, HandOverError};
use grafolean_core::collector::Collector;
use grafolean_core::outbox::{DropReason, PushError, ValueTime};
use grafolean_core::state::StateSlot;
use grafolean_core::storage::Storage;
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::NumberText;

use super::episodes::Episodes;
use crate::outbox::{
    Disk, Gone, OpenError, Settings, Store, StoreEvent, StoredState, Sync, SyncJob, Synced, Totals, Value,
    WritePolicy,
};

/// Changed states are looked for so often, ms.
const STATES_MS: u64 = 1_000;
/// All states are written anew to forget some so often at most, ms: until then they come back with the next start, where
/// they do no harm.
const FORGET_MS: u64 = 600_000;
/// Values without a record that are stored in one go at most, as the collector is locked meanwhile.
const LATE_VALUES: usize = 10_000;
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
    forget_at: Millis,
    /// Some values may have no record, as the disk failed when they were handed over.
    late: bool,
    /// The value that was handed over last waits for its sync.
    unsynced: Option<u64>,
    closing: Option<Closing>,
    episodes: Episodes,
}

/// How far a closing has come: a flush, then flushes of what could not be stored before as long as that gets on, then one
/// with the last counts.
#[derive(Default)]
struct Closing {
    /// Of this flush.
    rounds: u8,
    /// Values that were written at the last attempt.
    stored: Option<u64>,
    last: bool,
}

/// A flush takes so many rounds at most: files that are done with go when others were synced, and that is synced again.
const FLUSH_ROUNDS: u8 = 3;

impl<D> fmt::Debug for Keeper<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
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

impl<D: Disk> Keeper<D> {
    pub(super) const fn of(store: Store<D>) -> Self {
        Keeper {
            store,
            states_at: Millis(0),
            states_forgotten: 0,
            forget_at: Millis(0),
            late: false,
            unsynced: None,
            closing: None,
            episodes: Episodes::NONE,
        }
    }

    #[cfg(test)]
    pub(super) const fn store(&mut self) -> &mut Store<D> {
        &mut self.store
    }

    /// Opens the store, and tells the collector (which knows the time) what it holds.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn open<B: Bot, S: Storage<B>>(
        disk: D,
        settings: Settings,
        c: &mut Collector<B, S>,
    ) -> Result<Self, OpenError> {
        let (store, found) = Store::open(disk, settings)?;
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
        let mut keeper = Keeper { states_forgotten: c.states_forgotten(), ..Keeper::of(store) };
        keeper.tell_events(c.now(), true);
        Ok(keeper)
    }

    /// A value is handed over. The collector has been told the present time, and what the system's clock shows.
    ///
    /// # Errors
    /// Those of the collector: it was not taken.
    pub fn hand_over<B: Bot, S: Storage<B>>(
        &mut self,
        c: &mut Collector<B, S>,
        account: u64,
        time: Option<UnixMillis>,
        path: &str,
        number: &NumberText,
    ) -> Result<(), HandOverError> {
        let now = c.now();
        debug_assert!(c.wall().is_some(), "a host's clock is told with the time");
        let (Some(unix), ValueTime::Unix(time)) = (c.wall(), c.value_time(time)) else {
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

    /// Whether a job is under way.
    #[must_use]
    pub const fn is_syncing(&self) -> bool {
        self.store.is_syncing()
    }

    /// Whether there is nothing to wait for: [`Store::is_settled`].
    #[must_use]
    pub fn is_settled(&self, record: u64) -> bool {
        self.store.is_settled(record)
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
        self.forget_lost(c);
        if feeding {
            self.feed(c, now, unix);
        }
        if self.states_at <= now {
            self.states_at = Millis(now.0 + STATES_MS);
            self.keep_states(c, now, self.forget_at <= now);
            if self.late {
                self.store_late(c, now, unix);
            }
        }
        self.store.set_ledger(now, c.ledger());
        self.store.handle_time(now, unix);
        self.drain(c, now);
        self.tell_events(now, false);
        let next = [self.store.poll_timeout(), self.episodes.poll_timeout()].into_iter().flatten();
        next.fold(self.states_at, Millis::min)
    }

    /// `all`: also what is otherwise held back to be told together.
    fn tell_events(&mut self, now: Millis, all: bool) {
        while let Some(event) = self.store.poll_event() {
            if self.episodes.note(now, &event) {
                match event {
                    StoreEvent::Working { .. } | StoreEvent::WorkingInPart { .. } => {
                        tracing::info!("{event}")
                    }
                    event => tracing::warn!("{event}"),
                }
            }
        }
        while let Some(summary) = self.episodes.poll(now, all) {
            tracing::warn!("{summary}");
        }
    }

    /// Values whose records a failed sync lost are stored again, like those that never had one.
    fn forget_lost<B: Bot, S: Storage<B>>(&mut self, c: &mut Collector<B, S>) {
        if self.store.has_lost() {
            self.late |= c.forget_records(|record| self.store.is_lost(record)) > 0;
            self.store.forget_lost();
        }
    }

    /// `forgets`: also that some were forgotten, which writes all of them.
    fn keep_states<B: Bot, S: Storage<B>>(&mut self, c: &mut Collector<B, S>, now: Millis, forgets: bool) {
        let forgotten = c.states_forgotten();
        if self.states_forgotten == forgotten || !forgets {
            c.changed_states(|s| {
                self.store.set_state(now, s.job(), s.name(), s.value());
            });
            return;
        }
        self.states_forgotten = forgotten;
        self.forget_at = now.saturating_add(FORGET_MS);
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
        let mut failing = None;
        for _ in 0..LATE_VALUES {
            let Some(u) = c.next_unstored(&mut text) else {
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
            let Some(record) = self.store.take(now, u.account, &value) else {
                // The disk may fail for this account only.
                if failing == Some(u.account) {
                    return;
                }
                failing = failing.or(Some(u.account));
                c.pass_account();
                continue;
            };
            if !c.set_record(record) {
                self.store.left(now, record, false);
                return;
            }
        }
    }

    /// Does the next part of the end, in which all that waits is written: calls [`poll_sync`](Self::poll_sync) until it
    /// gives none, have these jobs done, and call this again, until it says `false`.
    pub fn close_step<B: Bot, S: Storage<B>>(
        &mut self,
        c: &mut Collector<B, S>,
        now: Millis,
        unix: UnixMillis,
    ) -> bool {
        self.drain(c, now);
        self.forget_lost(c);
        let mut closing = self.closing.take().unwrap_or_else(|| {
            self.keep_states(c, now, true);
            // A disk that failed gets a last chance before values without records are given to it.
            self.store.begin_flush(now);
            Closing::default()
        });
        loop {
            if closing.rounds == 0 || (closing.rounds < FLUSH_ROUNDS && !self.store.is_flushed()) {
                closing.rounds += 1;
                self.store.flush_step(now, unix);
                self.closing = Some(closing);
                return true;
            }
            if closing.last {
                break;
            }
            let written = Some(self.store.written());
            // As long as it gets on: what has no record ends with the process.
            if self.late && closing.stored != written {
                closing.stored = written;
                self.store_late(c, now, unix);
                self.drain(c, now);
            } else {
                closing.last = true;
                self.store.set_ledger(now, c.ledger());
            }
            closing.rounds = 0;
            self.store.begin_flush(now);
        }
        self.drain(c, now);
        self.tell_events(now, true);
        false
    }

    /// Writes all that waits: for the end. Waits for the disk. A job that is under way has to end before.
    #[cfg(any(test, feature = "test-disk"))]
    pub fn close<B: Bot, S: Storage<B>>(&mut self, c: &mut Collector<B, S>, now: Millis, unix: UnixMillis) {
        while self.close_step(c, now, unix) {
            while let Some(job) = self.store.poll_sync(now) {
                self.store.handle_synced(now, job.run());
            }
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

    /// Waiting values that no file holds: they end with the process. Call it with the collector's ledger at present.
    pub fn unwritten<B: Bot, S: Storage<B>>(&self, c: &Collector<B, S>) -> u64 {
        c.ledger().queued.saturating_sub(self.store.written())
    }

    /// Bytes of its files.
    pub fn file_bytes(&self) -> u64 {
        self.store.bytes()
    }

    /// How many seconds ago the oldest waiting value was handed over. O(accounts).
    pub fn oldest_s(&self, unix: UnixMillis) -> Option<u64> {
        Some(unix.0.saturating_sub(self.store.oldest()?.0) / 1000)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use grafolean_core::api::Token;
    use grafolean_core::bot::{Anything, Context};
    use grafolean_core::collector;
    use grafolean_core::jobs::Due;

    use super::super::storage::{Heap, Limits};
    use super::*;
    use crate::outbox::Found;
    use crate::outbox::faulty::{Faults, FaultyDisk};

    const UNIX: u64 = 1_700_000_000_000;

    struct Idle;

    impl Bot for Idle {
        type Name = ();
        type Entity = Anything;
        type Credential = Anything;
        type Sensor = Anything;
        type Job = ();
        type Error = String;

        fn protocol(&self) -> Option<&str> {
            None
        }

        async fn perform<C: Context<Bot = Self>>(&self, (): &(), _: &Due, _: &mut C) -> Result<(), String> {
            Ok(())
        }
    }

    /// A collector with its keeper, on a disk and a clock of their own.
    struct Rig {
        disk: FaultyDisk,
        c: Collector<Idle, Heap<Idle>>,
        keeper: Keeper<FaultyDisk>,
        now: Millis,
        handed_over: u64,
    }

    impl Rig {
        fn new(settings: Settings) -> Self {
            Self::on(FaultyDisk::new(1), settings)
        }

        fn on(disk: FaultyDisk, settings: Settings) -> Self {
            let token = Token::parse("00000000-0000-0000-0000-000000000000").unwrap();
            let mut c = Collector::new(
                collector::Settings::host(token, "/api"),
                Heap::new(Limits::default()).stored(),
            );
            c.handle_system_clock(UnixMillis(UNIX));
            let keeper = Keeper::open(disk.handle(), settings, &mut c).unwrap();
            Rig { disk, c, keeper, now: Millis(0), handed_over: 0 }
        }

        fn unix(&self) -> UnixMillis {
            UnixMillis(UNIX + self.now.0)
        }

        fn hand_over(&mut self, account: u64) {
            let text = grafolean_core::values::Number::number_text(&self.handed_over).unwrap();
            // Paths that have nothing in common.
            let path = format!("p{:016x}", (self.handed_over + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            self.handed_over += 1;
            let (now, unix) = (self.now, self.unix());
            self.c.handle_time(now);
            self.c.handle_system_clock(unix);
            self.keeper.hand_over(&mut self.c, account, None, &path, &text).unwrap();
        }

        fn step(&mut self) -> Millis {
            let (now, unix) = (self.now, self.unix());
            self.c.handle_time(now);
            self.keeper.step(&mut self.c, now, unix, true)
        }

        /// Goes on, with syncs done at once, until there is nothing more to be stored, or that time has come.
        fn run_until(&mut self, end: Millis) {
            while self.now < end {
                let next = self.step();
                while let Some(job) = self.keeper.poll_sync(self.now) {
                    self.keeper.handle_synced(self.now, job.run());
                }
                self.now = next.max(Millis(self.now.0 + 1)).min(end);
            }
        }

        fn close(&mut self) {
            let (now, unix) = (self.now, self.unix());
            self.keeper.close(&mut self.c, now, unix);
        }

        /// What the next life finds after a loss of power.
        fn after_power_cut(self) -> (Found, Totals) {
            drop(self.keeper);
            self.disk.power_cut_losing_all();
            let (store, found) = Store::open(self.disk.handle(), Settings::DEFAULT).unwrap();
            (found, store.totals())
        }
    }

    fn faults(capacity: Option<u64>, sync_error: u32) -> Faults {
        Faults { capacity, sync_error, ..Faults::default() }
    }

    #[test]
    fn by_default_a_sync_is_due_a_second_after_the_writing_and_what_came_later_is_not_counted_as_synced_by_it()
     {
        let mut rig = Rig::new(Settings::DEFAULT);
        rig.keeper.sync_elsewhere();
        rig.run_until(Millis(5_000));
        rig.hand_over(7);
        let mut job = None;
        while job.is_none() && rig.now < Millis(10_000) {
            rig.now = rig.step().max(Millis(rig.now.0 + 1));
            job = rig.keeper.poll_sync(rig.now);
        }
        assert!(rig.now <= Millis(5_000 + 900 + 1_000), "due at {:?}", rig.now);
        // The disk is done; before that is known, another value is written into the same file.
        let synced = job.unwrap().run();
        rig.hand_over(7);
        rig.now = Millis(rig.now.0 + 900);
        rig.step();
        assert!(rig.keeper.poll_sync(rig.now).is_none(), "one at a time");
        rig.keeper.handle_synced(rig.now, synced);
        // It has a sync of its own to come, within its time.
        let written = rig.now;
        let mut again = None;
        while again.is_none() && rig.now < Millis(20_000) {
            rig.now = rig.step().max(Millis(rig.now.0 + 1));
            again = rig.keeper.poll_sync(rig.now);
        }
        assert!(rig.now <= Millis(written.0 + 1_000), "due at {:?}", rig.now);
        drop(again);
        assert_eq!(rig.after_power_cut().0.values, 1);
    }

    #[test]
    fn a_stop_after_a_full_disk_stores_all_that_waits_in_memory_however_much_it_is() {
        let mut rig = Rig::new(Settings::DEFAULT);
        rig.disk.set_faults(faults(Some(0), 0));
        let values = 2 * LATE_VALUES as u64 + 500;
        for n in 0..values {
            rig.hand_over(n % 3);
            if n == 10 {
                // The disk turns out to be full.
                rig.run_until(Millis(3_000));
            }
        }
        assert_eq!(rig.c.ledger().queued, values);
        rig.disk.set_faults(faults(None, 0));
        rig.close();
        assert_eq!(rig.keeper.written(), values);
        let (found, totals) = rig.after_power_cut();
        assert_eq!((found.values, totals.collected, totals.lost), (values, values, 0), "{totals}");
    }

    #[test]
    fn a_stop_ends_although_the_disk_stays_full_and_what_was_stored_before_is_there() {
        let mut rig = Rig::new(Settings::DEFAULT);
        rig.hand_over(1);
        rig.run_until(Millis(3_000));
        rig.disk.set_faults(faults(Some(0), 0));
        rig.hand_over(1);
        rig.run_until(Millis(6_000));
        rig.hand_over(1);
        rig.close();
        assert_eq!(rig.after_power_cut().0.values, 1);
    }

    #[test]
    fn an_account_that_can_not_be_stored_keeps_no_others_from_being_stored_late() {
        let mut first = Rig::new(Settings::DEFAULT);
        first.hand_over(1);
        first.close();
        let disk = first.disk.handle();
        drop(first);
        disk.deny_reading_of(Some("1/"));
        let mut rig = Rig::on(disk, Settings::DEFAULT);
        rig.disk.set_faults(faults(Some(rig.disk.bytes_used()), 0));
        // In the other ones' way: it comes first.
        (1..=3).for_each(|account| rig.hand_over(account));
        // The disk turns out to be full.
        rig.run_until(Millis(3_000));
        for n in 0..1_500 {
            rig.hand_over(1 + n % 3);
        }
        rig.run_until(Millis(6_000));
        assert_eq!(rig.keeper.written(), 0);
        rig.disk.set_faults(faults(None, 0));
        // The longest back-off.
        rig.run_until(Millis(70_000));
        assert_eq!((rig.keeper.written(), rig.c.ledger().queued), (1_002, 1_503));
    }

    #[test]
    fn states_that_are_forgotten_one_after_another_do_not_have_all_written_each_time_and_are_gone_in_the_end()
    {
        let mut rig = Rig::new(Settings::DEFAULT);
        for name in 0..100 {
            rig.c.restore_state(StateSlot::new(1, name, &[7; 8]).unwrap()).unwrap();
        }
        // A job that is no more.
        rig.keeper.store.set_state(Millis(0), 2, 0, &[1]);
        rig.run_until(Millis(5_000));
        let before = rig.disk.changes();
        for second in 5..1_205 {
            // The collector has forgotten another one.
            rig.keeper.states_forgotten = rig.keeper.states_forgotten.wrapping_sub(1);
            rig.run_until(Millis(second * 1_000));
        }
        assert!(rig.disk.changes() - before < 40, "{} changes", rig.disk.changes() - before);
        rig.close();
        let disk = rig.disk.handle();
        drop(rig);
        disk.power_cut_losing_all();
        let (store, _) = Store::open(disk.handle(), Settings::DEFAULT).unwrap();
        assert_eq!(store.states().filter(|s| s.job == 1).count(), 100);
        assert_eq!(store.states().filter(|s| s.job == 2).count(), 0);
    }

    #[test]
    fn values_whose_records_a_failed_sync_lost_are_stored_again() {
        let mut rig = Rig::new(Settings::DEFAULT);
        rig.disk.set_faults(faults(None, 10_000));
        // More than is kept in memory to be written again.
        for _ in 0..60_000 {
            rig.hand_over(1);
        }
        rig.run_until(Millis(10_000));
        rig.disk.set_faults(faults(None, 0));
        rig.run_until(Millis(200_000));
        assert_eq!(rig.c.ledger().queued, rig.handed_over);
        let (handed_over, written) = (rig.handed_over, rig.keeper.written());
        assert_eq!(written, handed_over, "{}", rig.c.ledger());
        assert_eq!(rig.after_power_cut().0.values, handed_over);
    }
}
