//! A program in a pseudo-terminal: what is on its screen, keys, sizes, and how it leaves the terminal.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

const LIMIT: Duration = Duration::from_secs(60);

/// A program in a pseudo-terminal. It is killed with this.
pub struct Session {
    child: Child,
    terminal: OwnedFd,
    keyboard: File,
    before: Termios,
    seen: Arc<Mutex<Seen>>,
    reader: Option<JoinHandle<()>>,
}

struct Seen {
    parser: vt100::Parser,
    raw: Vec<u8>,
}

/// What is left.
pub struct Ended {
    pub code: Option<i32>,
    /// All that was written.
    pub raw: String,
    /// The last screen.
    pub screen: String,
    /// Whether the terminal is as it was: its modes, the screen in use, the cursor.
    pub restored: bool,
}

fn modes(termios: &Termios) -> String {
    format!(
        "{:?} {:?} {:?} {:?}",
        termios.input_modes, termios.output_modes, termios.control_modes, termios.local_modes
    )
}

impl Session {
    /// Starts a program with this environment only in a terminal of this size. (A command holds the terminal open as long
    /// as it lives.)
    pub fn start(
        program: impl AsRef<OsStr>,
        args: &[&str],
        environment: &[(&str, &str)],
        rows: u16,
        columns: u16,
    ) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let terminal = ioctl_tiocgptpeer(&master, flags).unwrap();
        tcsetwinsize(&terminal, size(rows, columns)).unwrap();
        let before = tcgetattr(&terminal).unwrap();
        let seen = Seen { parser: vt100::Parser::new(not_zero(rows), not_zero(columns), 0), raw: Vec::new() };
        let seen = Arc::new(Mutex::new(seen));
        let mut output = File::from(master.try_clone().unwrap());
        let reader = std::thread::spawn({
            let seen = seen.clone();
            move || {
                let mut buf = [0; 4096];
                // At the end, when nobody has the terminal any more, it is an error.
                while let Ok(n @ 1..) = output.read(&mut buf) {
                    let mut seen = seen.lock().unwrap();
                    seen.parser.process(&buf[..n]);
                    seen.raw.extend_from_slice(&buf[..n]);
                }
            }
        });
        let end = || terminal.try_clone().unwrap();
        let child = Command::new(program)
            .args(args)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        Session { child, terminal, keyboard: File::from(master), before, seen, reader: Some(reader) }
    }

    /// What is on the screen, line by line.
    pub fn screen(&self) -> String {
        self.seen.lock().unwrap().parser.screen().contents()
    }

    /// Whether any character on the screen is coloured.
    pub fn is_coloured(&self) -> bool {
        let seen = self.seen.lock().unwrap();
        let screen = seen.parser.screen();
        let (rows, columns) = screen.size();
        (0..rows.get()).any(|row| {
            (0..columns.get()).any(|column| {
                screen.cell(row, column).is_some_and(|cell| cell.fgcolor() != vt100::Color::Default)
            })
        })
    }

    /// Waits until the screen is as wanted; false if the program has ended before.
    pub fn wait_for(&mut self, what: &str, condition: impl Fn(&str) -> bool) -> bool {
        let began = Instant::now();
        loop {
            let screen = self.screen();
            if condition(&screen) {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(began.elapsed() < LIMIT, "waited in vain: {what}\n{screen}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Types.
    pub fn keys(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Gives the terminal another size.
    pub fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.terminal, size(rows, columns)).unwrap();
        self.seen.lock().unwrap().parser.screen_mut().set_size(not_zero(rows), not_zero(columns));
    }

    /// Waits for the program's end.
    pub fn end(mut self) -> Ended {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < LIMIT, "it does not end\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(10));
        };
        let same = modes(&tcgetattr(&self.terminal).unwrap()) == modes(&self.before);
        // When the last of it is closed, the reader has read all and ends.
        let reader = self.reader.take().unwrap();
        let Session { ref seen, .. } = self;
        let seen = seen.clone();
        drop(self);
        reader.join().unwrap();
        let seen = seen.lock().unwrap();
        let screen = seen.parser.screen();
        Ended {
            code: status.code(),
            raw: String::from_utf8_lossy(&seen.raw).into_owned(),
            screen: screen.contents(),
            restored: same && !screen.alternate_screen() && !screen.hide_cursor(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn not_zero(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap()
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
