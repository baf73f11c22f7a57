//! Between the collector and the files of its outbox: what the driver's loop does for values that outlive the process.
//!
//! The loop calls [`Keeper::step`] at each turn and [`Keeper::close`] at the end; each value that is handed over goes
//! through [`Keeper::hand_over`]. All calls are made while the collector is locked, so that both agree at every moment;
//! files are written during them: the loop waits for the disk.

use core::fmt;
use std::path::PathBuf;

use grafolean_core::bot::{Bot, HandOverError};
use grafolean_core::collector::Collector;
use grafolean_core::outbox::{DropReason, PushError, ValueTime};
use grafolean_core::state::StateSlot;
use grafolean_core::storage::Storage;
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::NumberText;

use crate::outbox::{Disk, Gone, OpenError, Settings, Store, StoreEvent, StoredState, Totals, Value};

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
}

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
        Ok(Keeper { store, states_at: Millis(0), states_forgotten: c.states_forgotten(), late: false })
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
        let Some(record) = self.store.take(now, account, &value) else {
            self.late = true;
            let result = c.handle_value(account, Some(time), path, number);
            self.drain(c, now);
            return result;
        };
        let result = c.handle_stored_value(account, ValueTime::Unix(time), path, number, record);
        if result.is_err() {
            self.store.left(now, record, false);
        }
        self.drain(c, now);
        result
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
        if self.late {
            self.store_late(c, now, unix);
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
