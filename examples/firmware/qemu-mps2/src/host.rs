//! What the emulator's host gives by semihosting: a place for logs, settings at start, the time as a seed, random numbers for TLS, an
//! exit code.
//!
//! Operations: ARM's semihosting specification (release 2024Q3).
#![allow(unsafe_code)]

use core::fmt::Write;

use cortex_m_semihosting::hio;
use log::{Level, LevelFilter, Log, Metadata, Record};

const SYS_TIME: usize = 0x11;
const SYS_GET_CMDLINE: usize = 0x15;
const SYS_EXIT_EXTENDED: usize = 0x20;
const APPLICATION_EXIT: usize = 0x2_0026;

/// Ends the emulation: QEMU's own exit code is `code`.
pub(crate) fn exit(code: u8) -> ! {
    let block = [APPLICATION_EXIT, usize::from(code)];
    // SAFETY: the operation reads this block.
    unsafe { cortex_m_semihosting::syscall1(SYS_EXIT_EXTENDED, block.as_ptr() as usize) };
    loop {
        cortex_m::asm::wfi();
    }
}

/// Seconds since 1970 by the host's clock.
pub(crate) fn time_s() -> u32 {
    // SAFETY: the operation takes no block.
    unsafe { cortex_m_semihosting::syscall1(SYS_TIME, 0) as u32 }
}

/// Fills `buf` with random numbers; whether it could.
///
/// FOR THE EMULATOR ONLY: MPS2 has no generator of random numbers, so they are read from the host's `/dev/urandom`. A board without
/// a debugger has no host. It takes its own true random generator: see [`grafolean_firmware::Random`].
#[cfg(feature = "tls")]
pub(crate) fn random(buf: &mut [u8]) -> bool {
    const SYS_OPEN: usize = 0x01;
    const SYS_CLOSE: usize = 0x02;
    const SYS_READ: usize = 0x06;
    const READ_BINARY: usize = 1;
    const FILE: &core::ffi::CStr = c"/dev/urandom";
    let open = [FILE.as_ptr() as usize, READ_BINARY, FILE.count_bytes()];
    // SAFETY: the operation reads this block and the name.
    let file = unsafe { cortex_m_semihosting::syscall1(SYS_OPEN, open.as_ptr() as usize) };
    if file == usize::MAX {
        return false;
    }
    let read = [file, buf.as_mut_ptr() as usize, buf.len()];
    // SAFETY: the operation reads this block, and writes at most as many bytes as it says into `buf`, which lives.
    let missing = unsafe { cortex_m_semihosting::syscall1(SYS_READ, read.as_ptr() as usize) };
    let close = [file];
    // SAFETY: the operation reads this block.
    unsafe { cortex_m_semihosting::syscall1(SYS_CLOSE, close.as_ptr() as usize) };
    missing == 0
}

/// What QEMU was given by `-semihosting-config arg=...`, joined by blanks; empty if it does not fit.
pub(crate) fn arguments(buf: &mut [u8]) -> &str {
    let block = [buf.as_mut_ptr() as usize, buf.len()];
    // SAFETY: the operation writes at most as many bytes as the block says into `buf`, which lives, and the length into the block.
    let result = unsafe { cortex_m_semihosting::syscall1(SYS_GET_CMDLINE, block.as_ptr() as usize) };
    // SAFETY: the block lives; the host has changed it behind the compiler's back.
    let len = unsafe { core::ptr::read_volatile(&block[1]) };
    if result != 0 {
        return "";
    }
    let bytes = buf.get(..len).unwrap_or_default();
    core::str::from_utf8(bytes).unwrap_or_default().trim_end_matches('\0')
}

/// Writes a line to the host's standard output.
pub(crate) fn say(line: core::fmt::Arguments<'_>) {
    if let Ok(mut out) = hio::hstdout() {
        let _ = out.write_fmt(line);
        let _ = out.write_str("\n");
    }
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let ms = embassy_time::Instant::now().as_millis();
            say(format_args!("{ms:8} {} {}", record.level(), record.args()));
        }
    }

    fn flush(&self) {}
}

/// Sends logs to the host. To be called before anything runs beside `main`.
pub(crate) fn start_log() {
    // SAFETY: no other thread and no interrupt logs by now.
    unsafe {
        let _ = log::set_logger_racy(&Logger);
        log::set_max_level_racy(LevelFilter::Info);
    }
}

/// A file of the host that is read and written at any place.
#[cfg(feature = "flash")]
pub(crate) struct File {
    handle: usize,
}

#[cfg(feature = "flash")]
impl File {
    /// Opens a file, or makes one of `size` bytes of 0xff.
    pub(crate) fn open(name: &str, size: u32) -> Option<Self> {
        const READ_WRITE: usize = 3;
        const MAKE: usize = 7;
        if let Some(file) = Self::open_as(name, READ_WRITE) {
            return Some(file);
        }
        let file = Self::open_as(name, MAKE)?;
        (0..size).step_by(256).all(|at| file.write(at, &[0xff; 256])).then_some(file)
    }

    fn open_as(name: &str, mode: usize) -> Option<Self> {
        const SYS_OPEN: usize = 0x01;
        // The host wants a zero at the end.
        let mut zeroed = heapless::String::<256>::new();
        zeroed.push_str(name).and_then(|()| zeroed.push('\0')).ok()?;
        let open = [zeroed.as_ptr() as usize, mode, name.len()];
        // SAFETY: the operation reads this block and the name.
        let handle = unsafe { cortex_m_semihosting::syscall1(SYS_OPEN, open.as_ptr() as usize) };
        (handle != usize::MAX).then_some(File { handle })
    }

    fn seek(&self, at: u32) -> bool {
        const SYS_SEEK: usize = 0x0a;
        let seek = [self.handle, at as usize];
        // SAFETY: the operation reads this block.
        unsafe { cortex_m_semihosting::syscall1(SYS_SEEK, seek.as_ptr() as usize) == 0 }
    }

    /// Fills `buf` from `at` on; whether it could.
    pub(crate) fn read(&self, at: u32, buf: &mut [u8]) -> bool {
        const SYS_READ: usize = 0x06;
        let read = [self.handle, buf.as_mut_ptr() as usize, buf.len()];
        // SAFETY: the operation reads this block, and writes at most as many bytes as it says into `buf`, which lives.
        self.seek(at) && unsafe { cortex_m_semihosting::syscall1(SYS_READ, read.as_ptr() as usize) == 0 }
    }

    /// Writes `bytes` from `at` on; whether it could.
    pub(crate) fn write(&self, at: u32, bytes: &[u8]) -> bool {
        const SYS_WRITE: usize = 0x05;
        let write = [self.handle, bytes.as_ptr() as usize, bytes.len()];
        // SAFETY: the operation reads this block and the bytes.
        self.seek(at) && unsafe { cortex_m_semihosting::syscall1(SYS_WRITE, write.as_ptr() as usize) == 0 }
    }
}
