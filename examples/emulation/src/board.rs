//! A board in QEMU.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use grafolean_stand_in::StandIn;

use crate::error::EmulationError;
use crate::firmware::{Firmware, stack_file};
use crate::link::Link;

pub(crate) const QEMU: &str = "qemu-system-arm";
const INSTALL: &str = "apt-get install qemu-system-arm (Debian, Ubuntu), dnf install qemu-system-arm (Fedora), \
                       brew install qemu (macOS)";

/// This machine, as the board sees it.
pub const HOST: &str = "10.0.2.2";

/// How often is looked whether the board has ended.
const LOOK: Duration = Duration::from_millis(10);
/// The lines of the log that an error shows.
const LAST_LINES: usize = 40;
/// How the line begins in which a board reports what of its call stack was ever used, in bytes.
const STACK_REPORT: &str = "report stack: ";

/// The lines that a board has printed.
#[derive(Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

/// A board that runs. It is killed when this is dropped.
pub struct Board {
    qemu: Child,
    keys: ChildStdin,
    lines: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("process", &self.qemu.id()).finish_non_exhaustive()
    }
}

/// How a board is to be started; see [`Board::builder`].
#[must_use]
pub struct Builder<'a> {
    firmware: &'a Firmware,
    settings: Vec<String>,
    link: Option<&'a Link>,
    show: bool,
}

impl std::fmt::Debug for Builder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the settings: there are tokens among them.
        f.debug_struct("Builder").field("firmware", &self.firmware).finish_non_exhaustive()
    }
}

impl<'a> Builder<'a> {
    /// Gives the firmware a setting, by the names of `settings.toml`. It must hold no blank and no comma.
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.push(format!("{key}={value}"));
        self
    }

    /// The backend is this one.
    pub fn backend(self, stand_in: &StandIn) -> Self {
        let url = stand_in.base_url_at(HOST);
        self.setting("BACKEND_URL", &url)
    }

    /// The board's cable. Without it the network is perfect.
    pub const fn link(mut self, link: &'a Link) -> Self {
        self.link = Some(link);
        self
    }

    /// Prints the board's lines as they come.
    pub const fn show(mut self) -> Self {
        self.show = true;
        self
    }

    /// Starts the board.
    ///
    /// # Errors
    /// [`EmulationError::Missing`] says how to install QEMU.
    pub fn start(self) -> Result<Board, EmulationError> {
        let mut semihosting = String::from("enable=on,target=native,arg=firmware");
        for setting in &self.settings {
            semihosting.push_str(",arg=");
            semihosting.push_str(setting);
        }
        let network = self.link.map_or_else(|| String::from("user"), Link::nic);
        let mut qemu = Command::new(QEMU);
        qemu.args([
            "-machine",
            self.firmware.machine.name(),
            "-display",
            "none",
            "-monitor",
            "none",
            "-serial",
            "stdio",
        ])
        .args(["-semihosting-config", &semihosting, "-nic", &network, "-kernel"])
        .arg(&self.firmware.elf)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
        let mut qemu = qemu.spawn().map_err(qemu_error)?;
        let lines = Arc::new(Lines::default());
        let no_pipe =
            || EmulationError::Program { program: QEMU, source: std::io::Error::other("no pipe to it") };
        let keys = qemu.stdin.take().ok_or_else(no_pipe)?;
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            qemu.stdout.take().map(|o| Box::new(o) as Box<dyn Read + Send>),
            qemu.stderr.take().map(|o| Box::new(o) as Box<dyn Read + Send>),
        ];
        let mut readers = Vec::new();
        for output in outputs.into_iter().flatten() {
            let (lines, show) = (Arc::clone(&lines), self.show);
            let stack_file = stack_file(&self.firmware.elf);
            readers.push(std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if show {
                        let _ = writeln!(std::io::stdout(), "board   {line}");
                    }
                    if let Some(report) = line.strip_prefix(STACK_REPORT) {
                        keep_stack(&stack_file, report);
                    }
                    lines.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                    lines.more.notify_all();
                }
            }));
        }
        Ok(Board { qemu, keys, lines, readers })
    }
}

/// Adds the number at the beginning of a report to a file. Where that can't be written, `examples/firmware/sizes` says what is missing.
fn keep_stack(file: &Path, report: &str) {
    let Some(bytes) = report.split(' ').next().and_then(|number| number.parse::<u32>().ok()) else { return };
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(file) {
        let _ = file.write_all(format!("{bytes}\n").as_bytes());
    }
}

pub(crate) fn qemu_error(source: std::io::Error) -> EmulationError {
    if source.kind() == std::io::ErrorKind::NotFound {
        EmulationError::Missing { program: QEMU, install: INSTALL }
    } else {
        EmulationError::Program { program: QEMU, source }
    }
}

impl Board {
    /// A board with this firmware.
    pub const fn builder(firmware: &Firmware) -> Builder<'_> {
        Builder { firmware, settings: Vec::new(), link: None, show: false }
    }

    /// All that it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.lines.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Types a key on its serial line.
    ///
    /// # Errors
    /// [`EmulationError::Program`] if it has ended.
    pub fn press(&mut self, key: char) -> Result<(), EmulationError> {
        let mut bytes = [0; 4];
        let typed =
            self.keys.write_all(key.encode_utf8(&mut bytes).as_bytes()).and_then(|()| self.keys.flush());
        typed.map_err(|source| EmulationError::Program { program: QEMU, source })
    }

    /// Waits for the `nth` line (from 1) that holds `text`, and gives it.
    ///
    /// # Errors
    /// [`EmulationError::TimedOut`].
    pub fn wait_for_line(&self, limit: Duration, text: &str, nth: usize) -> Result<String, EmulationError> {
        let until = Instant::now() + limit;
        let mut lines = self.lines.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = lines.iter().filter(|line| line.contains(text)).nth(nth.saturating_sub(1)) {
                return Ok(line.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let log = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n");
                return Err(EmulationError::TimedOut { limit, log });
            }
            lines = self.lines.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until it has ended by itself: its exit code. [`Board::log`] is complete then.
    ///
    /// # Errors
    /// [`EmulationError::TimedOut`].
    pub fn wait(&mut self, limit: Duration) -> Result<i32, EmulationError> {
        let until = Instant::now() + limit;
        loop {
            let status =
                self.qemu.try_wait().map_err(|source| EmulationError::Program { program: QEMU, source })?;
            if let Some(status) = status {
                // What it has printed last.
                for reader in self.readers.drain(..) {
                    let _ = reader.join();
                }
                return Ok(status.code().unwrap_or(-1));
            }
            if Instant::now() >= until {
                return Err(EmulationError::TimedOut { limit, log: self.log() });
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
