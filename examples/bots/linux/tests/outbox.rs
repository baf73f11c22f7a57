//! The bots' durable outbox as a user meets it: restarts, its ledger, a full disk, damaged files, a directory in use.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

mod outbox_support;
mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use grafolean_stand_in::StandInThread;
use outbox_support::*;
use support::*;

/// A host bot whose values find no way for some seconds: written to files, then stopped.
fn leave_values(folder: &Folder, url: &str, runs: usize) -> Ledger {
    let bot = start_host(folder, url, &[]);
    wait_until("values are in files", || bytes_in(&folder.outbox()) > 0);
    // Each run adds to the file: at most one frame for each.
    let mut seen = BTreeSet::new();
    wait_until("more values are in files", || {
        seen.insert(bytes_in(&folder.outbox()));
        seen.len() >= runs
    });
    let ended = bot.stop();
    assert_eq!(ended.status.code(), Some(0), "what is written is not lost: {}", ended.said);
    let ledger = Ledger::of(&ended);
    assert_eq!((ledger.queued, ledger.dropped), (ledger.written, 0), "{}", ended.said);
    ledger
}

#[test]
fn the_ledger_goes_on_over_stops_and_kills_and_all_values_arrive() {
    let (stand_in, folder) = (backend(0), Folder::new());
    let url = stand_in.base_url();
    no_values(&stand_in);
    let first = leave_values(&folder, &url, 2);
    assert_eq!((first.all.collected, first.all.starts), (first.collected, 1), "{first:?}");
    let waiting = in_files(&folder.outbox());
    assert_eq!(waiting.len() as u64, first.queued);

    // The second life adds to them and is killed.
    let bot = start_host(&folder, &url, &[]);
    wait_until("a value of this life is in the files", || in_files(&folder.outbox()).len() > waiting.len());
    bot.kill();
    let waiting = in_files(&folder.outbox());
    assert!(waiting.len() as u64 > first.queued);

    stand_in.behave_all();
    let bot = start_host(&folder, &url, &[]);
    stand_in.wait_for(LIMIT, |s| arrived(s).is_superset(&waiting)).unwrap();
    let third = Ledger::of(&bot.stop());
    assert_eq!(third.recovered, waiting.len() as u64, "{third:?}");
    assert_eq!((third.queued, third.dropped, third.all.dropped), (0, 0, 0), "{third:?}");
    assert_eq!(third.all.starts, 3, "{third:?}");
    assert_eq!(third.all.collected - third.all.lost, arrived(&stand_in).len() as u64, "{third:?}");
    assert_eq!(third.all.delivered, third.delivered, "all came from this life: {third:?}");
    assert!(third.all.collected >= first.collected + third.collected, "{first:?} {third:?}");
}

#[test]
fn a_second_bot_with_the_same_directory_ends_with_code_1_and_names_it_and_the_first_goes_on() {
    let (stand_in, folder) = (backend(0), Folder::new());
    let url = stand_in.base_url();
    let first = start_host(&folder, &url, &[]);
    stand_in.wait_for(LIMIT, |s| s.value_count() > 0).unwrap();
    let second = start_host(&folder, &url, &[]).end();
    assert_eq!(second.status.code(), Some(1), "{}", second.said);
    assert!(second.said.contains(folder.outbox().to_str().unwrap()), "{}", second.said);
    assert!(second.said.contains("another process uses it"), "{}", second.said);
    let values = stand_in.value_count();
    stand_in.wait_for(LIMIT, |s| s.value_count() > values).unwrap();
    assert_eq!(Ledger::of(&first.stop()).all.starts, 1, "the second one counts for nothing");
    // Free again, whatever way the holder ended.
    let third = start_host(&folder, &url, &[]);
    let values = stand_in.value_count();
    stand_in.wait_for(LIMIT, |s| s.value_count() > values).unwrap();
    third.kill();
    let last = start_host(&folder, &url, &[]);
    let values = stand_in.value_count();
    stand_in.wait_for(LIMIT, |s| s.value_count() > values).unwrap();
    assert_eq!(last.stop().status.code(), Some(0));
}

#[test]
fn a_directory_that_cannot_be_made_ends_the_bot_with_code_1_and_is_named() {
    let folder = Folder::new();
    std::fs::write(folder.outbox(), "a file").unwrap();
    let ended = start_host(&folder, "http://127.0.0.1:9/api", &[]).end();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
    assert!(ended.said.contains(folder.outbox().to_str().unwrap()), "{}", ended.said);
    assert_eq!(std::fs::read_to_string(folder.outbox()).unwrap(), "a file");
}

/// The permissions of a file or directory.
#[cfg(unix)]
fn mode(path: &std::path::Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions()) & 0o777
}

#[cfg(unix)]
#[test]
fn a_start_says_where_the_outbox_is_its_bounds_and_what_waits_and_keeps_other_users_out() {
    let (stand_in, folder) = (backend(0), Folder::new());
    let url = stand_in.base_url();
    no_values(&stand_in);
    let tuned = [("GRAFOLEAN_OUTBOX_DISK_BYTES", "1048576"), ("GRAFOLEAN_OUTBOX_MAX_AGE", "7200")];
    let bot = start_host(&folder, &url, &tuned);
    let outbox = folder.outbox();
    let line = format!(
        "outbox in {}: at most 1 MiB and 2 h, written within 0.9 s, synced 1 s later; 0 values wait in it",
        outbox.display()
    );
    bot.wait_for(&line);
    wait_until("values are in files", || bytes_in(&outbox) > 0);
    let ended = bot.stop();
    assert!(!ended.said.contains("open to all users"), "{}", ended.said);
    assert!(!ended.said.contains("has no effect"), "{}", ended.said);
    assert_eq!((mode(&outbox), mode(&outbox.join("1"))), (0o700, 0o700));
    for file in segments(&outbox).into_iter().chain([outbox.join("ledger"), outbox.join("lock")]) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }

    // One that others may read stays as it is.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&outbox, open).unwrap();
    let bot = start_host(&folder, &url, &[]);
    bot.wait_for(&format!("{} values wait in it", Ledger::of(&ended).written));
    bot.wait_for("is open to all users");
    assert_eq!(bot.stop().status.code(), Some(0));
    assert_eq!(mode(&outbox), 0o755);
}

#[test]
fn settings_of_an_outbox_without_a_directory_are_warned_of() {
    let (stand_in, folder) = (backend(0), Folder::new());
    let none = [
        ("GRAFOLEAN_OUTBOX_DIR", ""),
        ("GRAFOLEAN_OUTBOX_DISK_BYTES", "1048576"),
        ("GRAFOLEAN_OUTBOX_WRITE", "first"),
    ];
    let bot = start_host(&folder, &stand_in.base_url(), &none);
    stand_in.wait_for(LIMIT, |s| s.value_count() > 0).unwrap();
    let ended = bot.stop();
    for name in ["GRAFOLEAN_OUTBOX_DISK_BYTES", "GRAFOLEAN_OUTBOX_WRITE"] {
        let warning = format!("{name} has no effect without GRAFOLEAN_OUTBOX_DIR");
        assert_eq!(ended.said.matches(&warning).count(), 1, "{}", ended.said);
    }
    assert_eq!(ended.said.matches("has no effect").count(), 2, "{}", ended.said);
    assert!(!ended.said.contains("outbox in"), "{}", ended.said);
}

#[test]
fn a_ledger_that_may_not_be_used_ends_the_bot_with_code_1_and_a_damaged_one_is_told() {
    let (stand_in, folder) = (backend(0), Folder::new());
    let url = stand_in.base_url();
    no_values(&stand_in);
    leave_values(&folder, &url, 2);
    let ledger = folder.outbox().join("ledger");
    let bytes = std::fs::read(&ledger).unwrap();
    std::fs::remove_file(&ledger).unwrap();
    std::fs::create_dir(&ledger).unwrap();
    let ended = start_host(&folder, &url, &[]).end();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
    assert!(ended.said.contains(folder.outbox().to_str().unwrap()), "{}", ended.said);
    assert!(ended.said.contains("can't use its file ledger: "), "{}", ended.said);

    std::fs::remove_dir(&ledger).unwrap();
    std::fs::write(&ledger, vec![0x55; bytes.len()]).unwrap();
    let bot = start_host(&folder, &url, &[]);
    bot.wait_for("outbox's file ledger: ");
    bot.wait_for("totals begin anew");
    let last = Ledger::of(&bot.stop());
    assert_eq!((last.all.starts, last.all.collected), (1, last.recovered + last.collected), "{last:?}");
}

#[test]
fn flipped_bytes_in_the_files_cost_only_values_near_them_which_are_told_and_counted() {
    let mut rng = Rng(seed());
    let (stand_in, folder) = (backend(0), Folder::new());
    let url = stand_in.base_url();
    no_values(&stand_in);
    let first = leave_values(&folder, &url, 5);
    let before = in_files(&folder.outbox());

    // In the first half, so that whole values follow.
    let file = segments(&folder.outbox()).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    for _ in 0..2 {
        let at = rng.below(bytes.len() as u64 / 2) as usize;
        *bytes.get_mut(at).unwrap() ^= 1 << rng.below(8);
    }
    std::fs::write(&file, bytes).unwrap();
    let good = in_files(&folder.outbox());
    assert!(!good.is_empty() && good.is_subset(&before));
    let damaged = (before.len() - good.len()) as u64;

    stand_in.behave_all();
    let bot = start_host(&folder, &url, &[]);
    stand_in.wait_for(LIMIT, |s| arrived(s).is_superset(&good)).unwrap();
    let values = stand_in.value_count();
    stand_in.wait_for(LIMIT, |s| s.value_count() > values).unwrap();
    let ended = bot.stop();
    let told = format!("outbox of account 1 is damaged: {damaged} values are lost");
    assert_eq!(
        ended.said.matches(&told).count(),
        1,
        "{damaged} of {} were lost: {}",
        before.len(),
        ended.said
    );
    let ledger = Ledger::of(&ended);
    assert_eq!((ledger.all.corrupt, ledger.all.lost, ledger.queued), (damaged, 0, 0), "{}", ended.said);
    assert_eq!(ledger.all.collected, first.collected + ledger.collected, "{}", ended.said);
    let missing: Vec<Id> = before.difference(&arrived(&stand_in)).cloned().collect();
    assert_eq!(missing.len() as u64, damaged, "{missing:?}");

    // Told and counted once.
    let bot = start_host(&folder, &url, &[]);
    let values = stand_in.value_count();
    stand_in.wait_for(LIMIT, |s| s.value_count() > values).unwrap();
    let next = bot.stop();
    assert!(!next.said.contains("values are lost"), "{}", next.said);
    assert_eq!(Ledger::of(&next).all.corrupt, damaged, "{}", next.said);
}

/// A file system of 256 kB; unmounted with this. `None` where mounting is not permitted, which is said.
struct SmallDisk(Folder);

impl SmallDisk {
    fn new() -> Option<Self> {
        let folder = Folder::new();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "grafolean-test"])
            .arg(&folder.0)
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) if output.status.success() => Some(SmallDisk(folder)),
            failed => {
                say(&format!("NOT ALLOWED HERE: mount: {failed:?}"));
                None
            }
        }
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut file = File::create(self.ballast()).unwrap();
        while file.write_all(&[0; 1024]).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0.0).status();
    }
}

const FAILS: &str = "outbox can't write";
const WORKS: &str = "outbox works again";

/// A bot on a disk that is full, and then is not: the backend is away, comes for a while, and is away again.
fn endure_a_full_disk(disk: &SmallDisk, bot: Process, stand_in: &StandInThread) {
    let outbox = disk.0.outbox();
    bot.wait_for(FAILS);
    // Live values, and those that waited in memory.
    stand_in.behave_all();
    let mut values = 0;
    for _ in 0..3 {
        stand_in.wait_for(LIMIT, |s| s.value_count() > values).unwrap();
        values = stand_in.value_count();
    }
    no_values(stand_in);
    let before = bytes_in(&outbox);
    disk.make_room();
    bot.wait_for(WORKS);
    wait_until("values are in files", || bytes_in(&outbox) > before && !in_files(&outbox).is_empty());
    assert_eq!((bot.times("outbox can't"), bot.times(WORKS)), (1, 1), "{}", bot.said());
    let ended = bot.stop();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.said);
    let ledger = Ledger::of(&ended);
    assert_eq!((ledger.dropped, ledger.all.lost), (0, 0), "{}", ended.said);
    assert_eq!(ledger.written, ledger.queued, "{}", ended.said);

    // Another life delivers all that waits, and nothing is lost over both.
    let waiting = in_files(&outbox);
    assert_eq!(waiting.len() as u64, ledger.queued);
    stand_in.behave_all();
    let bot = start_host(&disk.0, &stand_in.base_url(), &[]);
    stand_in.wait_for(LIMIT, |s| arrived(s).is_superset(&waiting)).unwrap();
    let last = Ledger::of(&bot.stop());
    assert_eq!((last.all.dropped, last.all.lost, last.queued), (0, 0, 0), "{last:?}");
    assert_eq!(last.all.delivered, arrived(stand_in).len() as u64, "{last:?}");
    assert_eq!(last.all.collected, ledger.all.collected + last.collected, "{last:?}");
}

#[test]
fn a_bot_that_starts_on_a_full_disk_delivers_says_so_once_and_stores_when_there_is_room() {
    let Some(disk) = SmallDisk::new() else { return };
    disk.fill();
    let stand_in = backend(0);
    no_values(&stand_in);
    let bot = start_host(&disk.0, &stand_in.base_url(), &[]);
    endure_a_full_disk(&disk, bot, &stand_in);
}

#[test]
fn a_disk_that_fills_up_while_the_bot_runs_costs_no_value_and_is_told_once() {
    if !pings_are_allowed() {
        return;
    }
    let Some(disk) = SmallDisk::new() else { return };
    // As many as fill a page of the file in some seconds.
    let stand_in = backend(20);
    no_values(&stand_in);
    let bot = start_ping(&disk.0, &stand_in.base_url(), &[]);
    wait_until("values are in files", || bytes_in(&disk.0.outbox()) > 0);
    disk.fill();
    endure_a_full_disk(&disk, bot, &stand_in);
}
