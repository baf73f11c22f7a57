//! The host's outbox on real files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use grafolean_std::core::time::{Millis, UnixMillis};
use grafolean_std::outbox::{
    Found, OpenError, RealDisk, Settings, Store, StoreEvent, Sync, Value, WritePolicy,
};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const SETTINGS: Settings = Settings { max_bytes: 1 << 20, sync: Sync::Never, ..Settings::DEFAULT };

/// A directory that goes away with this.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("grafolean-outbox-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Dir(path)
    }

    fn open(&self) -> (Store<RealDisk>, Found) {
        // A process that another test starts holds copies of all files for a moment.
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            match Store::open(RealDisk::new(&self.0).unwrap(), SETTINGS) {
                Err(OpenError::InUse) if Instant::now() < end => std::thread::yield_now(),
                other => return other.unwrap(),
            }
        }
    }

    /// The segments of account 7, sorted.
    fn segments(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> =
            fs::read_dir(self.0.join("7")).unwrap().map(|e| e.unwrap().path()).collect();
        all.sort();
        all
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn take(store: &mut Store<RealDisk>, account: u64, numbers: std::ops::Range<u64>) -> Vec<u64> {
    let mut records = Vec::new();
    for n in numbers {
        let (path, number) = (format!("a.b{}", n % 5), n.to_string());
        let value = Value { time: NOW, handed_over: NOW, path: &path, number: &number };
        records.push(store.take(Millis(0), account, &value).unwrap());
    }
    records
}

fn feed(store: &mut Store<RealDisk>, account: u64) -> Vec<u64> {
    let mut back = Vec::new();
    store.feed(Millis(0), NOW, account, u64::MAX, |_, v| {
        back.push(v.number.parse().unwrap());
        true
    });
    back
}

#[test]
fn a_restart_goes_on_where_the_last_one_ended() {
    let dir = Dir::new("restart");
    for life in 0..4u64 {
        let (mut store, found) = dir.open();
        assert_eq!(found, Found { values: life * 100, corrupt: 0 });
        take(&mut store, 7, life * 100..(life + 1) * 100);
        store.close(Millis(0), NOW);
    }
    assert_eq!(dir.segments().len(), 1, "a short file is gone on with");
    let (mut store, _) = dir.open();
    assert_eq!(feed(&mut store, 7), (0..400).collect::<Vec<_>>());
    assert_eq!(store.totals().lives, 5);
}

#[test]
fn what_was_delivered_does_not_come_back_after_a_restart() {
    let dir = Dir::new("delivered");
    let (mut store, _) = dir.open();
    let records = take(&mut store, 7, 0..100);
    store.flush(Millis(0), NOW);
    records.iter().step_by(2).for_each(|&r| store.left(Millis(0), r, false));
    store.close(Millis(0), NOW);
    let (mut store, _) = dir.open();
    assert_eq!(feed(&mut store, 7), (1..100).step_by(2).collect::<Vec<_>>());
}

#[test]
fn a_torn_tail_is_cut_and_written_over() {
    let dir = Dir::new("tail");
    let (mut store, _) = dir.open();
    take(&mut store, 7, 0..100);
    store.close(Millis(0), NOW);
    let file = dir.segments().remove(0);
    let whole = fs::metadata(&file).unwrap().len();
    for cut in 1..40 {
        // The last frame in part, or rubbish behind it.
        if cut % 2 == 0 {
            OpenOptions::new().write(true).open(&file).unwrap().set_len(whole - cut).unwrap();
        } else {
            OpenOptions::new()
                .append(true)
                .open(&file)
                .unwrap()
                .write_all(&vec![0xc3; cut as usize])
                .unwrap();
        }
        let before = fs::read(&file).unwrap();
        let (mut store, found) = dir.open();
        assert_eq!(found.corrupt, 0);
        let back = feed(&mut store, 7);
        assert_eq!(back, (0..back.len() as u64).collect::<Vec<_>>());
        assert_eq!(back.len() as u64, found.values);
        take(&mut store, 7, found.values..100);
        store.close(Millis(0), NOW);
        assert!(fs::read(&file).unwrap().len() <= before.len().max(whole as usize + 200));
    }
    let (mut store, _) = dir.open();
    assert_eq!(feed(&mut store, 7), (0..100).collect::<Vec<_>>());
}

#[test]
fn damaged_segments_are_skipped_and_counted_and_the_others_come_back() {
    let dir = Dir::new("damage");
    let (mut store, _) = dir.open();
    take(&mut store, 7, 0..30_000);
    store.close(Millis(0), NOW);
    let segments = dir.segments();
    assert!(segments.len() > 4, "{segments:?}");
    // One is all zeros, one is gone, one has a hole.
    fs::write(&segments[1], vec![0; fs::metadata(&segments[1]).unwrap().len() as usize]).unwrap();
    fs::remove_file(&segments[2]).unwrap();
    let mut bytes = fs::read(&segments[3]).unwrap();
    bytes[10_000..14_096].fill(0xa6);
    fs::write(&segments[3], bytes).unwrap();
    let (mut store, found) = dir.open();
    assert_eq!(found.values + found.corrupt, 30_000);
    assert!((5_000..20_000).contains(&found.corrupt), "{found:?}");
    let Some(StoreEvent::Damaged { account: 7, values, bytes }) = store.poll_event() else {
        panic!("not told")
    };
    assert!(values == found.corrupt && bytes >= 4096, "{values} {bytes}");
    let back = feed(&mut store, 7);
    assert_eq!(back.len() as u64, found.values);
    assert!(back.windows(2).all(|w| w[0] < w[1]));
    assert_eq!((back[0], *back.last().unwrap()), (0, 29_999));
}

#[test]
fn files_of_others_are_left_alone() {
    let dir = Dir::new("others");
    fs::create_dir_all(dir.0.join("7")).unwrap();
    fs::create_dir_all(dir.0.join("007")).unwrap();
    for file in ["7/notes.txt", "007/0000000000000001.seg", "README"] {
        fs::write(dir.0.join(file), "mine").unwrap();
    }
    let (mut store, found) = dir.open();
    assert_eq!(found, Found::default());
    take(&mut store, 7, 0..10);
    store.close(Millis(0), NOW);
    for file in ["7/notes.txt", "007/0000000000000001.seg", "README"] {
        assert_eq!(fs::read_to_string(dir.0.join(file)).unwrap(), "mine", "{file}");
    }
}

#[test]
fn many_accounts_need_few_open_files() {
    let dir = Dir::new("accounts");
    let (mut store, _) = dir.open();
    for account in 0..300 {
        take(&mut store, account, 0..3);
    }
    store.flush(Millis(0), NOW);
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let ours = open.filter_map(|e| fs::read_link(e.ok()?.path()).ok()).filter(|p| p.starts_with(&dir.0));
        assert!(ours.count() <= RealDisk::OPEN_FILES + 1);
    }
    drop(store);
    assert_eq!(dir.open().1.values, 900);
}

#[test]
fn a_directory_that_cannot_be_used_is_an_error() {
    let dir = Dir::new("file");
    fs::write(&dir.0, "a file").unwrap();
    assert!(RealDisk::new(&dir.0).is_err());
    fs::remove_file(&dir.0).unwrap();
}

/// Not a test of its own: the process that the next one starts and kills.
#[test]
fn another_process_for_the_test_of_kills() {
    let Ok(dir) = std::env::var("OUTBOX_TEST_DIR") else { return };
    let settings = Settings { write: WritePolicy::First, ..SETTINGS };
    let (mut store, found) = Store::open(RealDisk::new(Path::new(&dir)).unwrap(), settings).unwrap();
    let mut n = found.values;
    loop {
        take(&mut store, 7, n..n + 1);
        n += 1;
        // The line is read by the other one: this value may not be lost any more.
        println!("\ntaken {n}");
    }
}

#[test]
fn a_killed_process_loses_nothing_that_it_had_taken_and_holds_the_directory_until_then() {
    let dir = Dir::new("kill");
    let mut safe = 0;
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "outbox_files::another_process_for_the_test_of_kills", "--nocapture"])
            .env("OUTBOX_TEST_DIR", &dir.0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = safe + 200;
        while safe < enough {
            let line = lines.next().expect("the process goes on").unwrap();
            safe = line.strip_prefix("taken ").map_or(safe, |n| n.parse().unwrap());
        }
        let second = Store::open(RealDisk::new(&dir.0).unwrap(), SETTINGS);
        let Err(error @ OpenError::InUse) = second else { panic!("opened twice") };
        assert!(error.to_string().contains("another process"), "{error}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (mut store, found) = dir.open();
    assert!(found.values >= safe && found.corrupt == 0, "{found:?}, {safe} were safe");
    assert_eq!(feed(&mut store, 7), (0..found.values).collect::<Vec<_>>());
}
