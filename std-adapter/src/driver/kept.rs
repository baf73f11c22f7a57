//! The keeper as the driver shares it: a thread of its own does the syncs, so that neither the loop nor other runs wait
//! for the disk.
//!
//! [`Kept::sync_due`] gives the thread what is due, [`Kept::ended`] resolves when it has done something. Of all calls only
//! [`Kept::wait_for`] blocks, and that for the limit given to [`Kept::new`] at most: a disk that does not answer can't
//! hold up a run for ever, nor the end of the program (tokio's own threads would: a runtime waits for them when it is
//! dropped). While a sync hangs, the thread holds neither the keeper nor the directory's lock.
//!
//! Cost: one thread, and two switches of threads per sync.

use core::time::Duration;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use grafolean_core::time::Millis;
use tokio::sync::Notify;

use super::store::Keeper;
use crate::outbox::{Disk, Entry, SyncJob, Syncing};

/// A keeper whose syncs are done beside the loop.
#[derive(Debug)]
pub(super) struct Kept<D> {
    keeper: Mutex<Keeper<D>>,
    jobs: mpsc::Sender<SyncJob>,
    /// A job has ended: for those that block, and for the loop.
    synced: Condvar,
    ended: Notify,
    /// How long to wait for the disk at most.
    limit: Duration,
    /// It was waited for that long, and the job has not ended since.
    hangs: AtomicBool,
}

impl<D: Disk + Send + 'static> Kept<D> {
    /// # Errors
    /// There is no further thread.
    pub(super) fn new(
        mut keeper: Keeper<D>,
        limit: Duration,
        now: impl Fn() -> Millis + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        keeper.sync_elsewhere();
        let (jobs, to_do) = mpsc::channel::<SyncJob>();
        let kept = Arc::new(Kept {
            keeper: Mutex::new(keeper),
            jobs,
            synced: Condvar::new(),
            ended: Notify::new(),
            limit,
            hangs: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&kept);
        let work = move || {
            for job in to_do {
                let synced = job.run();
                let Some(kept) = weak.upgrade() else { return };
                kept.lock().handle_synced(now(), synced);
                if kept.hangs.swap(false, Ordering::Relaxed) {
                    tracing::info!("the outbox's disk answers again");
                }
                kept.synced.notify_all();
                kept.ended.notify_one();
            }
        };
        std::thread::Builder::new().name("outbox-sync".to_owned()).spawn(work)?;
        Ok(kept)
    }

    /// To be called while the collector is locked, or by who does not lock it meanwhile.
    pub(super) fn lock(&self) -> MutexGuard<'_, Keeper<D>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the next job that is due, if none is under way.
    pub(super) fn sync_due(&self, now: Millis) {
        self.begin_due(&mut self.lock(), now);
    }

    fn begin_due(&self, keeper: &mut Keeper<D>, now: Millis) {
        if let Some(job) = keeper.poll_sync(now)
            && let Err(mpsc::SendError(job)) = self.jobs.send(job)
        {
            // The thread is gone, which it does not go by itself: better slowly than never.
            keeper.handle_synced(now, job.run());
        }
    }

    /// Resolves when a job has ended since the last call, for one caller at a time.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Resolves when nothing is due and no job is under way: `true`; or when one job has taken longer than the limit:
    /// `false`. However many jobs there are, as long as they end the disk works.
    pub(super) async fn idle(&self, now: impl Fn() -> Millis) -> bool {
        loop {
            self.sync_due(now());
            if !self.lock().is_syncing() {
                return true;
            }
            if tokio::time::timeout(self.limit, self.ended()).await.is_err() {
                return false;
            }
        }
    }

    /// Blocks until a record needs to be waited for no more, or the limit has passed: then those after it are not waited
    /// for, until the disk answers. The collector must not be locked.
    pub(super) fn wait_for(&self, record: u64, now: impl Fn() -> Millis) {
        let began = Instant::now();
        let mut keeper = self.lock();
        while !keeper.is_settled(record) {
            self.begin_due(&mut keeper, now());
            if !keeper.is_syncing() || self.hangs.load(Ordering::Relaxed) {
                return;
            }
            let Some(left) = self.limit.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) else {
                if !self.hangs.swap(true, Ordering::Relaxed) {
                    let s = self.limit.as_secs_f32();
                    tracing::warn!(
                        "the outbox's disk has not answered for {s} s: until it does, values are handed over before they are synced"
                    );
                }
                return;
            };
            let waited = self.synced.wait_timeout(keeper, left);
            keeper = waited.map_or_else(|e| e.into_inner().0, |(keeper, _)| keeper);
        }
    }
}

/// A disk that is chosen at run time.
impl Disk for Box<dyn Disk + Send> {
    fn lock(&mut self, file: &str) -> io::Result<()> {
        (**self).lock(file)
    }

    fn list(&mut self, dir: &str) -> io::Result<Vec<Entry>> {
        (**self).list(dir)
    }

    fn len(&mut self, file: &str) -> io::Result<u64> {
        (**self).len(file)
    }

    fn read(&mut self, file: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read(file, offset, buf)
    }

    fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (**self).write(file, offset, bytes)
    }

    fn truncate(&mut self, file: &str, len: u64) -> io::Result<()> {
        (**self).truncate(file, len)
    }

    fn syncing(&mut self, file: &str) -> io::Result<Syncing> {
        (**self).syncing(file)
    }

    fn create_dir(&mut self, dir: &str) -> io::Result<()> {
        (**self).create_dir(dir)
    }

    fn syncing_dir(&mut self, dir: &str) -> io::Result<Syncing> {
        (**self).syncing_dir(dir)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        (**self).rename(from, to)
    }

    fn remove(&mut self, file: &str) -> io::Result<()> {
        (**self).remove(file)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use grafolean_core::time::UnixMillis;

    use super::*;
    use crate::outbox::faulty::FaultyDisk;
    use crate::outbox::{Settings, Store, Sync, Value, WritePolicy};

    const UNIX: UnixMillis = UnixMillis(1_700_000_000_000);
    const SETTINGS: Settings =
        Settings { write: WritePolicy::First, sync: Sync::Always, ..Settings::DEFAULT };

    fn kept(disk: &FaultyDisk, limit: Duration) -> Arc<Kept<FaultyDisk>> {
        let (store, _) = Store::open(disk.handle(), SETTINGS).unwrap();
        Kept::new(Keeper::of(store), limit, || Millis(0)).unwrap()
    }

    fn take(kept: &Kept<FaultyDisk>) -> u64 {
        let value = Value { time: UNIX, handed_over: UNIX, path: "a.b", number: "1" };
        kept.lock().store().take(Millis(0), 7, &value).unwrap()
    }

    #[test]
    fn a_hand_over_that_waits_for_its_sync_stops_no_other_call_and_all_that_waited_go_with_the_next_sync() {
        let disk = FaultyDisk::new(1);
        let kept = kept(&disk, Duration::from_secs(3600));
        disk.hold_syncs(true);
        let (told, ends) = mpsc::channel();
        std::thread::scope(|threads| {
            for n in 0..3 {
                let (told, kept, record) = (told.clone(), &kept, take(&kept));
                threads.spawn(move || {
                    kept.wait_for(record, || Millis(0));
                    told.send(n).unwrap();
                });
            }
            // One sync is begun, the disk does not answer: the store can be used nevertheless.
            while !kept.lock().is_syncing() {
                std::thread::yield_now();
            }
            let last = take(&kept);
            kept.lock().store().handle_time(Millis(1), UNIX);
            assert!(!kept.lock().is_settled(last));
            assert!(ends.try_recv().is_err(), "a hand-over returned before its value was synced");
            disk.hold_syncs(false);
            kept.wait_for(last, || Millis(2));
            assert!(kept.lock().is_settled(last));
        });
        assert_eq!(ends.try_iter().count(), 3);
        drop(kept);
        disk.power_cut_losing_all();
        assert_eq!(Store::open(disk.handle(), SETTINGS).unwrap().1.values, 4);
    }

    #[test]
    fn a_hand_over_does_not_wait_for_a_disk_that_hangs_longer_than_the_limit_and_waits_again_when_it_answers()
    {
        let disk = FaultyDisk::new(1);
        let kept = kept(&disk, Duration::from_millis(20));
        disk.hold_syncs(true);
        let record = take(&kept);
        kept.wait_for(record, || Millis(0));
        assert!(!kept.lock().is_settled(record) && kept.lock().is_syncing());
        assert!(kept.hangs.load(Ordering::Relaxed));
        // Not each hand-over waits anew.
        kept.wait_for(take(&kept), || Millis(0));
        disk.hold_syncs(false);
        while kept.hangs.load(Ordering::Relaxed) || kept.lock().is_syncing() {
            std::thread::yield_now();
        }
        assert!(kept.lock().is_settled(record));
        let kept = super::tests::kept(&FaultyDisk::new(2), Duration::from_secs(3600));
        let record = take(&kept);
        kept.wait_for(record, || Millis(0));
        assert!(kept.lock().is_settled(record));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_the_limit_for_each_job_and_not_for_all_together() {
        let limit = Duration::from_secs(10);
        let disk = FaultyDisk::new(1);
        let kept = kept(&disk, limit);
        disk.hold_syncs(true);
        // As long as this task is there, time goes on only by advance().
        let (stop, stopped) = mpsc::channel::<()>();
        let time_stands = tokio::task::spawn_blocking(move || stopped.recv());
        let mut idle = core::pin::pin!(kept.idle(|| Millis(0)));
        for _ in 0..5 {
            take(&kept);
            assert!(futures_util::poll!(&mut idle).is_pending());
            tokio::time::advance(limit.mul_f32(0.9)).await;
            assert!(futures_util::poll!(&mut idle).is_pending(), "the limit is that of one job");
            // It ends, as another one does that follows: its time begins anew.
            kept.ended.notify_one();
        }
        assert!(futures_util::poll!(&mut idle).is_pending());
        tokio::time::advance(limit.mul_f32(1.1)).await;
        assert!(!idle.await, "a disk that does not answer is not waited for");
        disk.hold_syncs(false);
        assert!(kept.idle(|| Millis(0)).await, "it answers again");
        drop(stop);
        let _ = time_stands.await;
    }

    #[test]
    fn a_directory_is_free_for_the_next_one_although_a_sync_of_the_one_before_hangs() {
        let disk = FaultyDisk::new(1);
        let kept = kept(&disk, Duration::from_millis(1));
        disk.hold_syncs(true);
        kept.wait_for(take(&kept), || Millis(0));
        drop(kept);
        let (_, found) = Store::open(disk.handle(), SETTINGS).unwrap();
        assert_eq!(found.values, 1);
        disk.hold_syncs(false);
    }
}
