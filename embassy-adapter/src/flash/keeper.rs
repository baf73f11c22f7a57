//! Between the collector and the flash: what is written when, what comes back, what is forgotten.

use core::pin::pin;

use embassy_futures::select::select;
use embassy_time::{Duration, Timer};
use embedded_storage_async::nor_flash::MultiwriteNorFlash;
use grafolean_core::bot::{Bot, HandOverError};
use grafolean_core::collector::Collector;
use grafolean_core::context::Lender;
use grafolean_core::hash::Fnv1a64;
use grafolean_core::outbox::{DropReason, Unstored, ValueTime};
use grafolean_core::state::StateSlot;
use grafolean_core::storage::Storage;
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::{MAX_NUMBER_BYTES, MAX_PATH_BYTES, NumberText};

use super::record::Record;
use super::store::{FlashError, Key, Store, Visit};
use super::{Flash, FlashEvent, FlashSettings, Wake};
use crate::apart::apart;
use crate::observer::Observer;
use crate::shared::{Shared, now};
use crate::sink;

/// Records at most that are known to be done with and still in flash.
const DONE: usize = 32;
/// Records that are done with are forgotten together: as soon as there are so many, or so long after the first one, ms.
const FORGET_RECORDS: usize = 8;
const FORGET_AFTER_MS: u64 = 1_000;
/// Between two looks at the records in flash for some to feed, ms.
const FEED_GAP_MS: u64 = 250;
/// More of that where several accounts share an outbox that is nearly full, ms.
const FEED_SHORT_MS: u64 = 5_000;
/// The waits after the first failure and at most, ms.
const RETRY_MS: (u64, u64) = (1_000, 60_000);

/// What is known of the records in flash: little, they are looked at again and again.
pub(super) struct Keeper {
    /// Values in memory need these no more.
    done: heapless::Vec<u32, DONE>,
    /// Since when there are some.
    done_since: Option<Millis>,
    /// Records below have given way.
    floor: u32,
    /// A value was parked since the last look at all records began.
    parked_meanwhile: bool,
    /// The account whose records there are, or that there may be several.
    account: Accounts,
    feed_after: Millis,
    /// The wait after the last failure, and its end.
    retry_ms: u64,
    retry_at: Millis,
    failing: bool,
    full_told: bool,
    /// No value is to be written before, unless memory is short.
    store_at: Millis,
    states_forgotten: u32,
    states_after: Millis,
    /// There are more states than fit: no more are written until some are forgotten.
    states_full: bool,
    begun: bool,
    /// Values of earlier boots that were found without time, and are not yet counted.
    no_time: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Accounts {
    None,
    One(u64),
    Several,
}

impl Accounts {
    fn add(&mut self, account: u64) {
        *self = match *self {
            Accounts::None => Accounts::One(account),
            Accounts::One(one) if one == account => *self,
            _ => Accounts::Several,
        };
    }
}

impl Keeper {
    pub(super) const fn new() -> Self {
        Keeper {
            done: heapless::Vec::new(),
            done_since: None,
            floor: 0,
            parked_meanwhile: false,
            account: Accounts::None,
            feed_after: Millis(0),
            retry_ms: 0,
            retry_at: Millis(0),
            failing: false,
            full_told: false,
            store_at: Millis(0),
            states_forgotten: 0,
            states_after: Millis(0),
            states_full: false,
            begun: false,
            no_time: 0,
        }
    }

    /// Does all that is to be done now: when it wants to be called again. `last`: no more.
    pub(super) async fn step<L: Lender, O: Observer, F: MultiwriteNorFlash>(
        &mut self,
        lender: &L,
        observer: &O,
        settings: &FlashSettings,
        store: &mut Store<F>,
        last: bool,
    ) -> Wake {
        if lender.now() >= self.retry_at || last {
            let mut result = Ok(());
            if !self.begun {
                result = apart(pin!(self.begin(lender, observer, store))).await;
            }
            if result.is_ok() {
                result = apart(pin!(self.turn(lender, observer, settings, store, last))).await;
            }
            self.tell(lender, observer, result);
        }
        let now = lender.now();
        if self.failing {
            return Wake { soonest: self.retry_at, latest: self.retry_at };
        }
        // Values leave in batches and come one by one: what has changed meanwhile is looked at together.
        let soonest = now.saturating_add(FEED_GAP_MS);
        Wake { soonest, latest: self.latest(lender, soonest) }
    }

    /// When there is something to do even if nothing changes.
    fn latest<L: Lender>(&self, lender: &L, soonest: Millis) -> Millis {
        if !self.done.is_empty() || self.wants_feeding(lender, soonest) {
            return soonest;
        }
        let latest = lender.lend(|c| {
            let mut latest = self.states_after;
            if c.parked() > 0 {
                latest = latest.min(soonest.saturating_add(FEED_SHORT_MS));
            }
            // Some are in memory.
            if c.ledger().queued > c.parked() { latest.min(self.store_at) } else { latest }
        });
        latest.max(soonest)
    }

    /// Takes over which records have left memory. `false` if there are more than can be noted now.
    fn drain<B: Bot, S: Storage<B>>(&mut self, collector: &mut Collector<B, S>) -> bool {
        while !self.done.is_full() {
            let Some(left) = collector.poll_left() else { return true };
            let number = left.record as u32;
            if left.parked {
                self.parked_meanwhile = true;
            }
            if number < self.floor {
                // It gave way while its value was in memory. Only now that matters.
                if left.parked {
                    collector.drop_parked(DropReason::Full, 1);
                }
            } else if !left.parked {
                let _ = self.done.push(number);
            }
        }
        false
    }

    /// Reads what earlier boots have left.
    async fn begin<L: Lender, O: Observer, F: MultiwriteNorFlash>(
        &mut self,
        lender: &L,
        observer: &O,
        store: &mut Store<F>,
    ) -> Result<(), FlashError> {
        let (mut found, no_time, accounts) = (0, &mut self.no_time, &mut self.account);
        store
            .begin(
                &mut |record| {
                    if record.timed {
                        found += 1;
                        accounts.add(record.account);
                        Visit::Keep
                    } else {
                        *no_time += 1;
                        Visit::Forget
                    }
                },
                &mut |key, bytes| {
                    if let Some(state) = state_of(key, bytes) {
                        // What has no room is a state of a larger configuration.
                        let _ = lender.lend(|c| c.restore_state(state));
                    }
                },
            )
            .await?;
        let unreadable = u64::from(store.take_unreadable());
        let no_time = core::mem::take(&mut self.no_time);
        lender.lend(|c| {
            c.handle_stored(found);
            c.count_unrecoverable(DropReason::NoTime, no_time);
            c.count_unrecoverable(DropReason::Corrupt, unreadable);
            self.states_forgotten = c.states_forgotten();
        });
        lender.tell();
        self.begun = true;
        if found + no_time + unreadable > 0 {
            tell(observer, &FlashEvent::Found { values: found, no_time, unreadable });
        }
        self.look_at_states(lender, observer, store);
        Ok(())
    }

    /// Takes over what became of the states in flash.
    fn look_at_states<L: Lender, O: Observer, F: MultiwriteNorFlash>(
        &mut self,
        lender: &L,
        observer: &O,
        store: &mut Store<F>,
    ) {
        if store.take_states_lost() {
            lender.lend(|c| c.states_to_store());
        }
        if store.take_states_full() {
            self.tell_states_full(observer);
        }
    }

    fn tell_states_full<O: Observer>(&mut self, observer: &O) {
        if !core::mem::replace(&mut self.states_full, true) {
            tell(observer, &FlashEvent::StatesFull);
        }
    }

    /// Does what is to be done now.
    async fn turn<L: Lender, O: Observer, F: MultiwriteNorFlash>(
        &mut self,
        lender: &L,
        observer: &O,
        settings: &FlashSettings,
        store: &mut Store<F>,
        last: bool,
    ) -> Result<(), FlashError> {
        loop {
            let drained = lender.lend(|c| self.drain(c));
            let time = lender.now();
            let since = *self.done_since.get_or_insert(time);
            if self.done.is_empty() {
                self.done_since = None;
            }
            let forget =
                last || !drained || self.done.len() >= FORGET_RECORDS || time.since(since) >= FORGET_AFTER_MS;
            if !self.done.is_empty() && forget {
                apart(pin!(self.look(lender, store, false))).await?;
                self.done_since = None;
                continue;
            }
            if !apart(pin!(self.write_one(lender, observer, settings, store, last))).await? {
                break;
            }
        }
        if !last && self.wants_feeding(lender, lender.now()) {
            apart(pin!(self.look(lender, store, true))).await?;
            self.feed_after = lender.now().saturating_add(FEED_GAP_MS);
        }
        if lender.now() >= self.states_after || last {
            let done = apart(pin!(self.write_states(lender, observer, store))).await;
            if done.is_err() {
                // Which of them are in flash is not known any more.
                lender.lend(|c| c.states_to_store());
            }
            done?;
            self.states_after = lender.now().saturating_add(u64::from(settings.states_every_ms));
        }
        Ok(())
    }

    /// Writes a value that has waited long enough. `false` if none is to be written.
    async fn write_one<L: Lender, O: Observer, F: MultiwriteNorFlash>(
        &mut self,
        lender: &L,
        observer: &O,
        settings: &FlashSettings,
        store: &mut Store<F>,
        last: bool,
    ) -> Result<bool, FlashError> {
        let boot = store.boot();
        let (mut account, mut gave_way) = (None, 0_u64);
        let (mut store_at, mut asked) = (self.store_at, false);
        let written = store
            .push(
                &mut |number, buf| {
                    lender.lend(|c| {
                        let (used, all) = c.outbox_bytes();
                        let (now, after_ms) = (lender.now(), u64::from(settings.store_after_ms));
                        let short = last || all - used <= all / 4;
                        if !short && now < store_at {
                            return None;
                        }
                        let before = Millis(if short { u64::MAX } else { now.0.saturating_sub(after_ms) });
                        let mut text = [0; MAX_PATH_BYTES + MAX_NUMBER_BYTES];
                        // Asked again, as room had to be made: the same once more, if it is still there.
                        let unstored = if core::mem::replace(&mut asked, true) {
                            c.oldest_unstored(before, &mut text)?
                        } else {
                            match next_due(c, before, &mut text) {
                                Ok(unstored) => unstored,
                                Err(oldest) => {
                                    store_at = oldest.unwrap_or(now).saturating_add(after_ms + 1);
                                    return None;
                                }
                            }
                        };
                        account = Some(unstored.account);
                        write_record(number, boot, &unstored, c.now(), c.wall(), &text, buf)
                    })
                },
                &mut |gone| {
                    lender.lend(|c| {
                        if !self.drain(c) {
                            return false;
                        }
                        self.floor = self.floor.max(gone.saturating_add(1));
                        if let Some(at) = self.done.iter().position(|n| *n == gone) {
                            self.done.swap_remove(at);
                        } else if !c.has_record(u64::from(gone)) {
                            gave_way += c.drop_parked(DropReason::Full, 1);
                        }
                        true
                    })
                },
            )
            .await;
        self.store_at = store_at;
        if gave_way > 0 && !core::mem::replace(&mut self.full_told, true) {
            tell(observer, &FlashEvent::Full);
        }
        let Some(number) = written? else { return Ok(false) };
        if let Some(account) = account {
            self.account.add(account);
        }
        if !lender.lend(|c| c.set_record(u64::from(number))) {
            // It left while it was being written.
            if self.done.push(number).is_err() {
                apart(pin!(self.look(lender, store, false))).await?;
                let _ = self.done.push(number);
            }
        }
        Ok(true)
    }

    /// Whether records are to be fed, if nothing changes until then.
    fn wants_feeding<L: Lender>(&self, lender: &L, at: Millis) -> bool {
        if at < self.feed_after {
            return false;
        }
        lender.lend(|c| match (c.parked(), self.account) {
            (0, _) | (_, Accounts::None) => false,
            // Not for each single place that becomes free.
            (parked, Accounts::One(account)) => u64::from(c.room_for_backlog(account)) >= parked.min(8),
            // Which of them have room is found by looking.
            (_, Accounts::Several) => {
                let (used, all) = c.outbox_bytes();
                all - used > all / 4 || at >= self.feed_after.saturating_add(FEED_SHORT_MS)
            }
        })
    }

    /// Looks at the records, oldest first: forgets those that are done with, feeds others if `feed`.
    async fn look<L: Lender, F: MultiwriteNorFlash>(
        &mut self,
        lender: &L,
        store: &mut Store<F>,
        feed: bool,
    ) -> Result<(), FlashError> {
        // Those that are noted now are gone if they are not found. Later ones may be of records already passed.
        let mut noted = self.done.len();
        let mut stopped = false;
        let mut left_there = 0;
        // The last one to be forgotten: known to be only when the flash has done so.
        let mut forgetting = None;
        self.parked_meanwhile = false;
        let boot = store.boot();
        let done = store
            .each(&mut |record| {
                lender.lend(|c| {
                    let drained = self.drain(c);
                    forgetting = None;
                    if let Some(at) = self.done.iter().position(|n| *n == record.number) {
                        self.done.remove(at);
                        noted -= usize::from(at < noted);
                        forgetting = Some(record.number);
                        return Visit::Forget;
                    }
                    if record.number < self.floor {
                        // It gave way, and the flash failed.
                        forgetting = Some(record.number);
                        return Visit::Forget;
                    }
                    if !feed && self.done.is_empty() {
                        stopped = true;
                        return Visit::Stop;
                    }
                    if c.has_record(u64::from(record.number)) {
                        return Visit::Keep;
                    }
                    left_there += 1;
                    if !feed || !drained {
                        return Visit::Keep;
                    }
                    if c.room_for_backlog(record.account) == 0 {
                        if self.account == Accounts::Several {
                            return Visit::Keep;
                        }
                        stopped = true;
                        return Visit::Stop;
                    }
                    match take_back(c, record, boot) {
                        TakenBack::Yes => {
                            left_there -= 1;
                            Visit::Keep
                        }
                        TakenBack::NotNow => Visit::Keep,
                        TakenBack::Never(why) => {
                            left_there -= 1;
                            c.drop_parked(why, 1);
                            forgetting = Some(record.number);
                            Visit::Forget
                        }
                    }
                })
            })
            .await;
        if let (Err(_), Some(number)) = (&done, forgetting) {
            let _ = self.done.push(number);
        }
        let unreadable = u64::from(store.take_unreadable());
        lender.lend(|c| {
            c.drop_parked(DropReason::Corrupt, unreadable);
            if done.is_ok() && !stopped {
                // What was not found is gone: it gave way, or its bits have rotten.
                for _ in 0..noted {
                    self.done.remove(0);
                }
                let drained = self.drain(c);
                if drained && !self.parked_meanwhile && c.parked() > left_there {
                    c.drop_parked(DropReason::Corrupt, c.parked() - left_there);
                }
            }
            if c.parked() == 0 {
                self.full_told = false;
                self.account = Accounts::None;
            }
        });
        lender.tell();
        done
    }

    /// Writes states that have changed, and forgets those whose job is gone.
    async fn write_states<L: Lender, O: Observer, F: MultiwriteNorFlash>(
        &mut self,
        lender: &L,
        observer: &O,
        store: &mut Store<F>,
    ) -> Result<(), FlashError> {
        let forgotten = lender.lend(|c| c.states_forgotten());
        let mut to_forget = forgotten != self.states_forgotten;
        if to_forget && core::mem::take(&mut self.states_full) {
            // Which of them did not fit is not known.
            lender.lend(|c| c.states_to_store());
        }
        while !self.states_full
            && let Some(state) = lender.lend(|c| c.next_changed_state())
        {
            let mut written = store.set_state(&key_of(&state), state.value()).await?;
            if !written {
                // Maybe there are some that nobody knows any more.
                store.retain_states(&mut |key| lender.lend(|c| has_state(c, key))).await?;
                to_forget = false;
                written = store.set_state(&key_of(&state), state.value()).await?;
            }
            if !written {
                self.tell_states_full(observer);
            }
            self.look_at_states(lender, observer, store);
        }
        if to_forget {
            store.retain_states(&mut |key| lender.lend(|c| has_state(c, key))).await?;
        }
        self.states_forgotten = forgotten;
        Ok(())
    }

    /// Tells once that it fails, and once that it works again.
    fn tell<L: Lender, O: Observer>(&mut self, lender: &L, observer: &O, result: Result<(), FlashError>) {
        match result {
            Ok(()) => {
                self.retry_ms = 0;
                if core::mem::take(&mut self.failing) {
                    tell(observer, &FlashEvent::Works);
                }
            }
            Err(error) => {
                self.retry_ms = (self.retry_ms * 2).clamp(RETRY_MS.0, RETRY_MS.1);
                self.retry_at = lender.now().saturating_add(self.retry_ms);
                if !core::mem::replace(&mut self.failing, true) {
                    tell(observer, &FlashEvent::Failed(error));
                }
            }
        }
    }
}

/// Keeps values of a collector in flash until the driver ends.
pub(super) async fn keep<B: Bot, S: Storage<B>, O: Observer, F: MultiwriteNorFlash, const W: usize>(
    keeper: &mut Keeper,
    shared: &Shared<B, S, W>,
    observer: &O,
    flash: &Flash<F>,
    store: &mut Store<F>,
) {
    loop {
        let seen = shared.changes.count();
        let closing = shared.closing.get();
        let wake = apart(pin!(keeper.step(shared, observer, &flash.settings, store, closing))).await;
        flash.wear.set(store.wear());
        if closing {
            return;
        }
        let stop = shared.changes.wait_for(|| shared.closing.get().then_some(()));
        select(Timer::after(until(wake.soonest)), stop).await;
        select(Timer::after(until(wake.latest)), shared.changes.wait_since(seen)).await;
    }
}

/// The time until then, at least a millisecond.
fn until(at: Millis) -> Duration {
    Duration::from_millis(at.since(now()).max(1))
}

/// The next value without a record that was handed over before `before`, and its text; `Err` if there is none: when the
/// oldest one was handed over. O(values), for all that are given in turn and the end together.
fn next_due<B: Bot, S: Storage<B>>(
    c: &mut Collector<B, S>,
    before: Millis,
    text: &mut [u8],
) -> Result<Unstored, Option<Millis>> {
    // Nothing changes meanwhile: when the first one comes again, all others were there.
    let (mut first, mut oldest) = (None, None::<Millis>);
    while let Some(unstored) = c.next_unstored(text) {
        if unstored.handed_over < before {
            return Ok(unstored);
        }
        let path = text.get(..usize::from(unstored.path_len)).unwrap_or_default();
        let this = (unstored.account, unstored.time, unstored.handed_over, Fnv1a64::of(path));
        if first == Some(this) {
            break;
        }
        first.get_or_insert(this);
        oldest = Some(oldest.map_or(unstored.handed_over, |at| at.min(unstored.handed_over)));
    }
    Err(oldest)
}

/// Whether the collector has a state. O(states).
fn has_state<B: Bot, S: Storage<B>>(c: &mut Collector<B, S>, key: &Key) -> bool {
    // Looking at all marks them as written. As a rule they are.
    let mut changed = false;
    c.changed_states(|_| changed = true);
    let mut there = false;
    c.all_states(|state| there |= key_of(state) == *key);
    if changed {
        c.states_to_store();
    }
    there
}

enum TakenBack {
    Yes,
    NotNow,
    Never(DropReason),
}

/// Feeds a record.
fn take_back<B: Bot, S: Storage<B>>(c: &mut Collector<B, S>, record: &Record<'_>, boot: u32) -> TakenBack {
    if !record.timed && record.boot != boot {
        return TakenBack::Never(DropReason::NoTime);
    }
    let of =
        |ms| if record.timed { ValueTime::Unix(UnixMillis(ms)) } else { ValueTime::Monotonic(Millis(ms)) };
    let Ok(number) = NumberText::from_stored(record.digits) else {
        return TakenBack::Never(DropReason::Corrupt);
    };
    let (time, handed_over) = (of(record.time_ms), of(record.handed_over_ms));
    let number_of_record = u64::from(record.number);
    match c.recover_value(record.account, time, handed_over, record.path, &number, number_of_record) {
        Ok(()) => TakenBack::Yes,
        Err(HandOverError::Value(_)) => TakenBack::Never(DropReason::Corrupt),
        Err(_) => TakenBack::NotNow,
    }
}

/// Writes a value as a record.
fn write_record(
    number: u32,
    boot: u32,
    unstored: &Unstored,
    now: Millis,
    now_unix: Option<UnixMillis>,
    text: &[u8],
    buf: &mut [u8],
) -> Option<usize> {
    let (path, rest) = text.split_at_checked(usize::from(unstored.path_len))?;
    let digits = rest.get(..usize::from(unstored.number_len))?;
    let age_ms = now.since(unstored.handed_over);
    let (timed, time_ms, handed_over_ms) = match unstored.time {
        ValueTime::Unix(UnixMillis(ms)) => {
            (true, ms, now_unix.map_or(ms, |UnixMillis(now)| now.saturating_sub(age_ms)))
        }
        ValueTime::Monotonic(Millis(ms)) => (false, ms, unstored.handed_over.0),
    };
    let record = Record {
        number,
        boot,
        account: unstored.account,
        timed,
        time_ms,
        handed_over_ms,
        path: core::str::from_utf8(path).ok()?,
        digits: core::str::from_utf8(digits).ok()?,
    };
    record.write(buf)
}

fn key_of(state: &StateSlot) -> Key {
    let mut key = [0; 16];
    for (bytes, hash) in key.chunks_exact_mut(8).zip([state.job(), state.name()]) {
        bytes.copy_from_slice(&hash.to_le_bytes());
    }
    key
}

fn state_of(key: &Key, bytes: &[u8]) -> Option<StateSlot> {
    let (job, name) = key.split_first_chunk::<8>()?;
    StateSlot::new(u64::from_le_bytes(*job), u64::from_le_bytes(*name.first_chunk()?), bytes)
}

fn tell<O: Observer>(observer: &O, event: &FlashEvent) {
    let level = if event.is_warning() { sink::warn } else { sink::info };
    level(event);
    observer.flash(event);
}
