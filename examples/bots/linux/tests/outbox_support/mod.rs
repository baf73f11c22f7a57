//! Bots as processes with a durable outbox: a stand-in that can be kept away, what the files hold, and the last line.

#![allow(dead_code, unreachable_pub)] // each test file uses a part

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use grafolean_stand_in::{Config, Misbehaviour, Rule, StandIn, StandInThread, Status};
use grafolean_std::core::time::{Millis, UnixMillis};
use grafolean_std::outbox::{RealDisk, Settings, Store, WritePolicy};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

pub const PING: &str = env!("CARGO_BIN_EXE_grafolean-ping-bot");
pub const HOST: &str = env!("CARGO_BIN_EXE_grafolean-host-bot");
pub const PING_TOKEN: &str = "55555555-5555-4555-8555-555555555555";
pub const HOST_TOKEN: &str = "66666666-6666-4666-8666-666666666666";
pub const LIMIT: Duration = Duration::from_secs(60);

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
            {"id": 41, "name": "ping", "short_name": "ping", "protocol": "ping", "token": PING_TOKEN},
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

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LIMIT, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Past the test runner's capture.
pub fn say(text: &str) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Whether the ping bot may open ICMP sockets here; if not, it is said.
pub fn pings_are_allowed() -> bool {
    match grafolean_icmp::Icmp::open(grafolean_icmp::IcmpConfig::default()) {
        Ok(_) => true,
        Err(error) => {
            say(&format!("NOT ALLOWED HERE: {error}"));
            false
        }
    }
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

/// A folder that goes away with this. It holds no `.env`.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!("grafolean-bots-outbox-{}-{count}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// The directory of an outbox in it, which may not be there yet.
    pub fn outbox(&self) -> PathBuf {
        self.0.join("outbox")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A bot's process. It is killed with this.
pub struct Process {
    child: Child,
    said: [Arc<Mutex<Vec<u8>>>; 2],
    readers: Vec<JoinHandle<()>>,
}

/// What is left of a process.
pub struct Ended {
    pub status: ExitStatus,
    pub said: String,
}

impl Process {
    /// In `folder`, with the outbox there.
    pub fn start(mut command: Command, folder: &Folder, url: &str, more: &[(&str, &str)]) -> Self {
        let mut child = command
            .env_clear()
            .env("BACKEND_URL", url)
            .env("GRAFOLEAN_OUTBOX_DIR", folder.outbox())
            // What is written need not be sent before the end.
            .env("GRAFOLEAN_STOP_SECONDS", "1")
            .envs(more.iter().copied())
            .current_dir(&folder.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = [Arc::default(), Arc::default()];
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        let readers =
            streams.into_iter().zip(&said).map(|(stream, said)| collect(stream, Arc::clone(said))).collect();
        Process { child, said, readers }
    }

    pub fn host(folder: &Folder, url: &str, more: &[(&str, &str)]) -> Self {
        let all =
            [&[("BOT_TOKEN", HOST_TOKEN), ("HOST_INTERVAL", "1"), ("HOST_NAME", "here")], more].concat();
        Process::start(Command::new(HOST), folder, url, &all)
    }

    pub fn ping(folder: &Folder, url: &str, more: &[(&str, &str)]) -> Self {
        Process::start(Command::new(PING), folder, url, &[&[("BOT_TOKEN", PING_TOKEN)], more].concat())
    }

    pub fn said(&self) -> String {
        let [out, err] =
            self.said.each_ref().map(|s| String::from_utf8_lossy(&s.lock().unwrap()).into_owned());
        out + &err
    }

    pub fn wait_for(&self, text: &str) {
        wait_until(text, || self.said().contains(text));
    }

    /// How often it has said this.
    pub fn times(&self, text: &str) -> usize {
        self.said().matches(text).count()
    }

    pub fn end(mut self) -> Ended {
        let mut status = None;
        wait_until("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        Ended { status: status.unwrap(), said: self.said() }
    }

    /// By SIGTERM.
    pub fn stop(self) -> Ended {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        self.end()
    }

    /// By SIGKILL. It must not have ended before by itself.
    pub fn kill(mut self) -> Ended {
        assert!(self.child.try_wait().unwrap().is_none(), "it has ended by itself: {}", self.said());
        self.child.kill().unwrap();
        self.end()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the process said:\n{}", self.said());
        }
    }
}

fn collect(mut stream: Box<dyn Read + Send>, into: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buf = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut buf) {
            into.lock().unwrap().extend_from_slice(&buf[..n]);
        }
    })
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

impl Ended {
    /// Both lines balance.
    pub fn ledger(&self) -> Ledger {
        let line = self
            .said
            .lines()
            .find(|l| l.contains("of all starts"))
            .unwrap_or_else(|| panic!("{}", self.said));
        let (this, all) = line.split_once("of all starts: ").unwrap();
        let (_, this) = this.split_once("values: ").unwrap();
        let number = |part: &str, word: &str| -> u64 {
            part.split_once(word).map_or(0, |(_, text)| {
                text.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
            })
        };
        let before = |part: &str, word: &str| -> u64 {
            part.split_once(word).unwrap().0.rsplit(' ').next().unwrap().parse().unwrap()
        };
        let of_all = Totals {
            collected: number(all, "collected "),
            delivered: number(all, "delivered "),
            queued: number(all, "queued "),
            dropped: number(all, "dropped "),
            corrupt: number(all, "corrupt "),
            lost: number(all, "lost "),
            starts: before(all, " starts"),
        };
        let ledger = Ledger {
            collected: number(this, "collected "),
            recovered: number(this, "recovered "),
            delivered: number(this, "delivered "),
            queued: number(this, "queued "),
            dropped: number(this, "dropped "),
            written: before(this, " of them written"),
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
