//! Bots as processes with a durable outbox: a stand-in that can be kept away, what the files hold, and the last line.

#![allow(dead_code, unreachable_pub)] // each test file uses a part

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use grafolean_stand_in::{Config, Misbehaviour, Rule, StandIn, StandInThread, Status};
use grafolean_std::core::time::{Millis, UnixMillis};
use grafolean_std::outbox::{RealDisk, Settings, Store, WritePolicy};
use serde_json::{Value, json};

use crate::support::*;

/// A value as it can be told from all others: path, and time in Unix ms.
pub type Id = (String, u64);

/// An account with so many devices on loopback addresses, each pinged every second, and a custom bot.
pub fn backend(devices: u32) -> StandInThread {
    let entities: Vec<Value> = (0..devices)
        .map(|n| {
            json!({"id": 1000 + n, "name": format!("d{n}"), "entity_type": "device",
                   "details": {"ipv4": format!("127.1.0.{}", 1 + n)},
                   "protocols": {"ping": {"credential": 11, "bot": 41, "sensors": [
                       {"sensor": 21, "interval": 1}, {"sensor": 22, "interval": 2}]}}})
        })
        .collect();
    let sensor = |id: u32| json!({"id": id, "name": format!("s{id}"), "protocol": "ping", "default_interval": null, "details": {}});
    let details = json!({"n_packets": 4, "sleep_packets": 0.15, "timeout": 1, "retry": 0});
    let config = json!({
        "seed": 7,
        "accounts": [{"id": 1, "name": "One", "entities": entities,
            "credentials": [{"id": 11, "name": "c", "protocol": "ping", "details": details}],
            "sensors": [sensor(21), sensor(22)]}],
        "bots": [
            {"id": 41, "name": "ping", "short_name": "ping", "protocol": "ping", "token": TOKEN},
            {"id": 42, "name": "host", "short_name": "host", "protocol": "custom", "tied_to_account": 1, "token": HOST_TOKEN}],
    });
    StandIn::builder().config(Config::from_json(&config.to_string()).unwrap()).spawn_thread().unwrap()
}

/// From now on values are refused as by an overloaded front; all else is answered.
pub fn no_values(stand_in: &StandIn) {
    misbehave_at_values(stand_in, Misbehaviour::Status(Status::new(503)));
}

pub fn misbehave_at_values(stand_in: &StandIn, misbehaviour: Misbehaviour) {
    stand_in.misbehave(Rule::new(misbehaviour).method("PUT").path("/accounts/*/values")).unwrap();
}

/// The values that a stand-in has. One that came again with the same path and time replaced itself there.
pub fn arrived(stand_in: &StandIn) -> BTreeSet<Id> {
    stand_in.values(1).into_iter().map(|v| (v.path, (v.time_us as u64 + 500) / 1000)).collect()
}

/// What a life that begins now would find in the files of an outbox whose process has ended. Looks at a copy.
pub fn in_files(outbox: &Path) -> BTreeSet<Id> {
    let values = values_in_files(outbox);
    let (count, ids): (usize, BTreeSet<Id>) = (values.len(), values.into_iter().map(|(id, _)| id).collect());
    assert_eq!(ids.len(), count, "a value is there twice");
    ids
}

/// The same, with the values' numbers.
pub fn values_in_files(outbox: &Path) -> Vec<(Id, String)> {
    let copy = Folder::new();
    copy_all(outbox, &copy.0);
    let (mut store, found) = Store::open(RealDisk::new(&copy.0).unwrap(), Settings::DEFAULT).unwrap();
    let accounts: Vec<u64> = store.parked().map(|(account, _)| account).collect();
    let mut values = Vec::new();
    for account in accounts {
        store.feed(Millis(0), UnixMillis(unix_ms()), account, u64::MAX, |_, v| {
            values.push(((v.path.to_owned(), v.time.0), v.number.to_owned()));
            true
        });
    }
    assert_eq!(values.len() as u64, found.values, "found and given back");
    values
}

fn copy_all(from: &Path, to: &Path) {
    let Ok(entries) = std::fs::read_dir(from) else { return };
    std::fs::create_dir_all(to).unwrap();
    for entry in entries {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            // A bot that runs may have removed it meanwhile.
            let copied = std::fs::copy(entry.path(), target);
            assert!(copied.as_ref().map_or_else(|e| e.kind() == ErrorKind::NotFound, |_| true), "{copied:?}");
        }
    }
}

/// The segments of account 1, oldest first.
pub fn segments(outbox: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(outbox.join("1")) else { return Vec::new() };
    let mut all: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

/// Bytes in the segments of account 1.
pub fn bytes_in(outbox: &Path) -> u64 {
    segments(outbox).iter().map(|file| std::fs::metadata(file).map_or(0, |m| m.len())).sum()
}

pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Numbers that follow from a seed (SplitMix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// `OUTBOX_SEED`, or another one each time; it is printed.
pub fn seed() -> u64 {
    let given = std::env::var("OUTBOX_SEED").ok().map(|text| text.parse().expect("OUTBOX_SEED is a number"));
    let seed = given.unwrap_or_else(|| Rng(unix_ms()).next() >> 32);
    say(&format!("again with the same moments: OUTBOX_SEED={seed}"));
    seed
}

/// In `folder`, with the outbox there.
pub fn start(command: Command, folder: &Folder, url: &str, more: &[(&str, &str)]) -> Process {
    let outbox = folder.outbox();
    let mut settings = vec![
        ("BACKEND_URL", url),
        ("GRAFOLEAN_OUTBOX_DIR", outbox.to_str().unwrap()),
        // What is written need not be sent before the end.
        ("GRAFOLEAN_STOP_SECONDS", "1"),
    ];
    settings.extend_from_slice(more);
    Process::start_at(&folder.0, command, &settings)
}

pub fn start_host(folder: &Folder, url: &str, more: &[(&str, &str)]) -> Process {
    let all = [&[("BOT_TOKEN", HOST_TOKEN), ("HOST_INTERVAL", "1"), ("HOST_NAME", "here")], more].concat();
    start(Command::new(HOST), folder, url, &all)
}

pub fn start_ping(folder: &Folder, url: &str, more: &[(&str, &str)]) -> Process {
    start(Command::new(PING), folder, url, &[&[("BOT_TOKEN", TOKEN)], more].concat())
}

/// The last line of a bot that was stopped: values of this start, and of all starts with the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    pub collected: u64,
    pub recovered: u64,
    pub delivered: u64,
    pub queued: u64,
    pub dropped: u64,
    pub written: u64,
    pub all: Totals,
}

/// Of all starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    pub collected: u64,
    pub delivered: u64,
    pub queued: u64,
    pub dropped: u64,
    pub corrupt: u64,
    pub lost: u64,
    pub starts: u64,
}

impl Ledger {
    /// Both lines balance.
    pub fn of(ended: &Ended) -> Self {
        let line = ended.said.lines().find(|l| l.contains("of all starts"));
        let line = line.unwrap_or_else(|| panic!("{}", ended.said));
        let (this, all) = line.split_once("of all starts: ").unwrap();
        let (_, this) = this.split_once("values: ").unwrap();
        let of_all = Totals {
            collected: number_behind(all, "collected "),
            delivered: number_behind(all, "delivered "),
            queued: number_behind(all, "queued "),
            dropped: number_behind(all, "dropped "),
            corrupt: number_behind(all, "corrupt "),
            lost: number_behind(all, "lost "),
            starts: number_before(all, " starts"),
        };
        let ledger = Ledger {
            collected: number_behind(this, "collected "),
            recovered: number_behind(this, "recovered "),
            delivered: number_behind(this, "delivered "),
            queued: number_behind(this, "queued "),
            dropped: number_behind(this, "dropped "),
            written: number_before(this, " of them written"),
            all: of_all,
        };
        let l = &ledger;
        assert_eq!(l.collected + l.recovered, l.delivered + l.queued + l.dropped, "{line}");
        let t = &l.all;
        assert_eq!(t.collected, t.delivered + t.queued + t.dropped + t.lost, "{line}");
        assert_eq!(t.queued, l.queued, "{line}");
        ledger
    }
}

pub const fn policy_name(policy: WritePolicy) -> &'static str {
    match policy {
        WritePolicy::Behind => "behind",
        WritePolicy::First => "first",
    }
}
