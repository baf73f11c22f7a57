//! Bots as processes: started in a folder of their own, what they say, how they end.

#![allow(dead_code, unreachable_pub)] // each test file uses a part

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub const PING: &str = env!("CARGO_BIN_EXE_grafolean-ping-bot");
pub const HOST: &str = env!("CARGO_BIN_EXE_grafolean-host-bot");
pub const SNMP: &str = env!("CARGO_BIN_EXE_grafolean-snmp-bot");
pub const TOKEN: &str = "55555555-5555-4555-8555-555555555555";
pub const HOST_TOKEN: &str = "66666666-6666-4666-8666-666666666666";
/// Longer than the minute within which a job of 300 s has its first run.
pub const LIMIT: Duration = Duration::from_secs(180);

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

/// A folder that goes away with this. It holds no `.env`.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!("grafolean-bots-{}-{count}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
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
    folder: Option<Folder>,
}

/// What is left of a process.
pub struct Ended {
    pub status: ExitStatus,
    pub said: String,
}

impl Process {
    /// In a folder of its own.
    pub fn start(program: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_in(Folder::new(), Command::new(program), settings)
    }

    /// In a folder that goes away with it.
    pub fn start_in(folder: Folder, command: Command, settings: &[(&str, &str)]) -> Self {
        let mut process = Self::start_at(&folder.0, command, settings);
        process.folder = Some(folder);
        process
    }

    /// In a folder that stays.
    pub fn start_at(folder: &Path, mut command: Command, settings: &[(&str, &str)]) -> Self {
        let mut child = command
            .env_clear()
            .envs(settings.iter().copied())
            .current_dir(folder)
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
        Process { child, said, readers, folder: None }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
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

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
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
        self.signal(Signal::SIGTERM);
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

/// The number that stands right before `word`.
pub fn number_before(text: &str, word: &str) -> u64 {
    text.split_once(word).unwrap().0.rsplit(' ').next().unwrap().parse().unwrap()
}

/// The number that stands right behind `word`; 0 if `word` is not there.
pub fn number_behind(text: &str, word: &str) -> u64 {
    text.split_once(word)
        .map_or(0, |(_, text)| text.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap())
}
