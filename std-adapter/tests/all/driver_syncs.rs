//! Syncs of the outbox while a bot runs, and at its end, on a disk that is slow or fails. With the feature `test-disk`:
//! on if the whole workspace is tested.
#![cfg(feature = "test-disk")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use crate::driver_support::*;
use crate::http_support::*;
use grafolean_std::core::bot::{Anything, Bot, Context, JobSink, NewJob};
use grafolean_std::core::interval::{Interval, Intervals};
use grafolean_std::core::jobs::Due;
use grafolean_std::driver::{Config, Runner, StoreConfig};
use grafolean_std::outbox::faulty::{Faults, FaultyDisk};
use grafolean_std::outbox::{Disk, Entry, Settings, Store, Sync, Syncing, WritePolicy};

/// Hands over five values a second until it is to be quiet.
#[derive(Clone, Default)]
struct Steady {
    handed_over: Arc<AtomicU64>,
    quiet: Arc<AtomicBool>,
}

impl Steady {
    fn handed_over(&self) -> u64 {
        self.handed_over.load(Ordering::SeqCst)
    }
}

impl Bot for Steady {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = ();
    type Error = String;

    fn protocol(&self) -> Option<&str> {
        None
    }

    fn own_jobs(&self, _account: u64, jobs: &mut dyn JobSink<()>) {
        jobs.add(NewJob::new(Interval::new(1).map(Intervals::one).unwrap(), ()));
    }

    async fn perform<C: Context<Bot = Self>>(&self, (): &(), _: &Due, cx: &mut C) -> Result<(), String> {
        for _ in 0..5 {
            if !self.quiet.load(Ordering::SeqCst) {
                let n = self.handed_over.load(Ordering::SeqCst);
                cx.value(format_args!("test.n{n}"), n).map_err(|e| e.to_string())?;
                self.handed_over.store(n + 1, Ordering::SeqCst);
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Seen {
    /// What was written and not synced since, and the number of its last writing.
    unsynced: BTreeMap<String, u64>,
    writings: u64,
    begun: u64,
    well: u64,
    failed: u64,
    threads: BTreeSet<(Option<String>, String)>,
    thread_ids: Vec<ThreadId>,
}

/// A disk that notes its syncs.
struct Noting {
    disk: FaultyDisk,
    seen: Arc<Mutex<Seen>>,
}

impl Noting {
    fn new(disk: &FaultyDisk) -> (Self, Arc<Mutex<Seen>>) {
        let seen = Arc::<Mutex<Seen>>::default();
        (Noting { disk: disk.handle(), seen: seen.clone() }, seen)
    }

    fn noted(&self, name: &str, sync: Syncing) -> Syncing {
        let (seen, name) = (self.seen.clone(), name.to_owned());
        let covered = seen.lock().unwrap().unsynced.get(&name).copied();
        Box::new(move || {
            {
                let mut seen = seen.lock().unwrap();
                let thread = std::thread::current();
                seen.begun += 1;
                seen.threads.insert((thread.name().map(str::to_owned), format!("{:?}", thread.id())));
                seen.thread_ids.push(thread.id());
            }
            let result = sync();
            let mut seen = seen.lock().unwrap();
            match result {
                Ok(()) => {
                    seen.well += 1;
                    if seen.unsynced.get(&name).copied() == covered {
                        seen.unsynced.remove(&name);
                    }
                }
                Err(_) => seen.failed += 1,
            }
            result
        })
    }
}

impl Disk for Noting {
    fn lock(&mut self, file: &str) -> io::Result<()> {
        self.disk.lock(file)
    }
    fn list(&mut self, dir: &str) -> io::Result<Vec<Entry>> {
        self.disk.list(dir)
    }
    fn read(&mut self, file: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.disk.read(file, offset, buf)
    }
    fn len(&mut self, file: &str) -> io::Result<u64> {
        self.disk.len(file)
    }
    fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        {
            let mut seen = self.seen.lock().unwrap();
            seen.writings += 1;
            let writing = seen.writings;
            seen.unsynced.insert(file.to_owned(), writing);
        }
        self.disk.write(file, offset, bytes)
    }
    fn truncate(&mut self, file: &str, len: u64) -> io::Result<()> {
        self.disk.truncate(file, len)
    }
    fn syncing(&mut self, file: &str) -> io::Result<Syncing> {
        let sync = self.disk.syncing(file)?;
        Ok(self.noted(file, sync))
    }
    fn create_dir(&mut self, dir: &str) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn syncing_dir(&mut self, dir: &str) -> io::Result<Syncing> {
        let sync = self.disk.syncing_dir(dir)?;
        Ok(self.noted(dir, sync))
    }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&mut self, file: &str) -> io::Result<()> {
        self.seen.lock().unwrap().unsynced.remove(file);
        self.disk.remove(file)
    }
}

/// A bot on such a disk, with a backend that takes no values.
struct Rig {
    bot: Steady,
    disk: FaultyDisk,
    seen: Arc<Mutex<Seen>>,
    runner: Runner<Steady>,
    _server: Server,
}

impl Rig {
    async fn new(settings: Settings, set: impl FnOnce(&mut Config)) -> Self {
        let server = scripted(|request| (kind(request) == "values").then(|| json(503, ""))).await;
        let (bot, disk) = (Steady::default(), FaultyDisk::new(1));
        let (noting, seen) = Noting::new(&disk);
        let mut config = config(&server);
        config.collector.account = Some(1);
        (config.stop_runs, config.stop_flush) = (Duration::ZERO, Duration::ZERO);
        config.store = Some(StoreConfig { dir: "of a test".into(), settings });
        set(&mut config);
        let runner = Runner::tested(bot.clone(), config, (), noting).unwrap();
        Rig { bot, disk, seen, runner, _server: server }
    }

    fn see<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap())
    }

    fn all_written(&self) -> bool {
        self.runner.report().written == self.bot.handed_over()
    }

    /// What was written until now.
    fn all_synced(&self) -> bool {
        self.see(|s| s.unsynced.is_empty() && s.well > 0)
    }

    /// What the next life finds after the process was killed and power was cut.
    fn after_power_cut(self) -> u64 {
        drop(self.runner);
        self.disk.power_cut_losing_all();
        Store::open(self.disk.handle(), Settings::DEFAULT).unwrap().1.values
    }
}

/// Runs the bot while `script` does, then drops it, as if the process was killed.
async fn killed_after(rig: &Rig, script: impl Future<Output = ()>) {
    tokio::select! {
        report = rig.runner.run(core::future::pending()) => panic!("{report}"),
        () = script => {}
    }
}

#[tokio::test]
async fn by_default_values_are_synced_while_the_bot_runs_by_a_thread_that_does_nothing_else() {
    let rig = Rig::new(Settings::DEFAULT, |_| {}).await;
    killed_after(&rig, async {
        until("values", || rig.bot.handed_over() >= 10).await;
        rig.bot.quiet.store(true, Ordering::SeqCst);
        until("their syncs", || rig.all_written() && rig.all_synced()).await;
    })
    .await;
    let threads = rig.see(|s| s.threads.clone());
    assert_eq!(threads.len(), 1, "{threads:?}");
    assert_eq!(threads.first().unwrap().0.as_deref(), Some("outbox-sync"));
    assert!(rig.see(|s| s.thread_ids.iter().all(|id| *id != std::thread::current().id())));
    let handed_over = rig.bot.handed_over();
    assert_eq!(rig.after_power_cut(), handed_over);
}

#[tokio::test]
async fn what_a_failed_sync_lost_is_written_and_synced_again_while_the_bot_runs() {
    let rig = Rig::new(Settings::DEFAULT, |_| {}).await;
    rig.disk.set_faults(Faults { sync_error: 10_000, ..Faults::default() });
    killed_after(&rig, async {
        until("values", || rig.bot.handed_over() >= 10).await;
        let failed = rig.see(|s| s.failed);
        until("failures", || rig.see(|s| s.failed) > failed + 1).await;
        rig.bot.quiet.store(true, Ordering::SeqCst);
        rig.disk.set_faults(Faults::default());
        until("their syncs", || rig.all_written() && rig.all_synced()).await;
    })
    .await;
    let handed_over = rig.bot.handed_over();
    assert_eq!(rig.after_power_cut(), handed_over);
}

#[tokio::test]
async fn the_bot_goes_on_while_a_sync_takes_long_and_a_stop_waits_for_it_and_for_the_last_one() {
    let rig = Rig::new(Settings::DEFAULT, |c| c.sync_wait = Duration::from_secs(3600)).await;
    rig.disk.hold_syncs(true);
    let stops = AtomicBool::new(false);
    let mut run = Box::pin(rig.runner.run(async {
        until("a sync", || rig.see(|s| s.begun) > 0).await;
        let before = rig.bot.handed_over();
        until("values during a sync", || rig.bot.handed_over() > before + 5).await;
        stops.store(true, Ordering::SeqCst);
    }));
    let early = async {
        until("the stop", || stops.load(Ordering::SeqCst)).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    tokio::select! {
        report = &mut run => panic!("it ended before all was synced: {report}"),
        () = early => {}
    }
    assert_eq!(rig.see(|s| s.well), 0);
    rig.disk.hold_syncs(false);
    let report = soon("the end", run).await;
    assert_eq!((report.written, report.ledger.queued), (rig.bot.handed_over(), rig.bot.handed_over()));
    assert_eq!(rig.after_power_cut(), report.written);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever_for_a_disk_that_hangs_and_says_so() {
    let logs = Captured::here();
    let rig = Rig::new(Settings::DEFAULT, |c| {
        assert_eq!(c.sync_wait, Duration::from_secs(10), "by default");
        c.sync_wait = Duration::from_millis(200);
    })
    .await;
    rig.disk.hold_syncs(true);
    let stop = until("a sync", || rig.see(|s| s.begun) > 0 && rig.bot.handed_over() >= 5);
    let report = soon("the end", rig.runner.run(stop)).await;
    assert_eq!(
        logs.lines(&["WARN", "disk has not answered for 0.2 s", "loss of power"]),
        1,
        "{}",
        logs.text()
    );
    assert!(report.ledger.balanced() && report.ledger.queued >= 5, "{report}");
    // The directory is free for the next program, which finds what was written, if power was not cut.
    let Rig { runner, disk, .. } = rig;
    drop(runner);
    let (store, found) = Store::open(disk.handle(), Settings::DEFAULT).unwrap();
    assert_eq!(found.values, report.written);
    drop(store);
    disk.hold_syncs(false);
}

#[tokio::test]
async fn where_each_hand_over_waits_for_its_sync_a_disk_that_hangs_holds_up_neither_the_bot_nor_its_stop_for_ever()
 {
    let logs = Captured::here();
    let always = Settings { write: WritePolicy::First, sync: Sync::Always, ..Settings::DEFAULT };
    let rig = Rig::new(always, |c| c.sync_wait = Duration::from_millis(200)).await;
    rig.disk.hold_syncs(true);
    let stop = until("values", || rig.bot.handed_over() >= 10);
    let report = soon("the end", rig.runner.run(stop)).await;
    assert_eq!(logs.lines(&["WARN", "handed over before they are synced"]), 1, "{}", logs.text());
    assert_eq!(report.ledger.queued, rig.bot.handed_over());
    rig.disk.hold_syncs(false);
}
