//! Builds a firmware as its users do, and measures it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::error::EmulationError;

const TARGET: &str = "thumbv6m-none-eabi";

/// A board that can be emulated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[non_exhaustive]
pub enum Machine {
    /// ARM's MPS2 with a Cortex-M3; 1 MB and 256 kB of its memory are used. Both bots.
    Mps2,
    /// Stellaris LM3S6965: 256 kB of flash, 64 kB of RAM. The ping bot only.
    Lm3s6965,
}

impl Machine {
    /// All of them.
    pub const ALL: [Machine; 2] = [Machine::Mps2, Machine::Lm3s6965];

    /// Its name for QEMU.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Machine::Mps2 => "mps2-an385",
            Machine::Lm3s6965 => "lm3s6965evb",
        }
    }

    /// What it is built as where nothing else is asked for.
    const fn variant(self) -> Variant<'static> {
        match self {
            Machine::Mps2 => Variant::Mps2,
            Machine::Lm3s6965 => Variant::Lm3s6965,
        }
    }
}

/// One of the ways to build the firmware.
#[derive(Clone, Copy)]
enum Variant<'a> {
    Mps2,
    Mps2Ping,
    Mps2Flash,
    Mps2Snmp,
    /// Trusts the authority in this file.
    Mps2Tls(&'a Path),
    Lm3s6965,
}

impl Variant<'_> {
    const fn features(self) -> &'static [&'static str] {
        match self {
            Variant::Mps2 => &[],
            Variant::Mps2Ping => &["--no-default-features", "--features", "ping"],
            Variant::Mps2Flash => &["--features", "flash"],
            Variant::Mps2Snmp => &["--features", "snmp"],
            Variant::Mps2Tls(_) => &["--features", "tls"],
            Variant::Lm3s6965 => &["--no-default-features", "--features", "lm3s6965evb,ping"],
        }
    }

    /// The name of its file, as in the table of sizes.
    const fn name(self) -> &'static str {
        match self {
            Variant::Mps2 => "mps2-an385",
            Variant::Mps2Ping => "mps2-an385-ping",
            Variant::Mps2Flash => "mps2-an385-flash",
            Variant::Mps2Snmp => "mps2-an385-snmp",
            Variant::Mps2Tls(_) => "mps2-an385-tls",
            Variant::Lm3s6965 => "lm3s6965evb",
        }
    }
}

/// One build at a time: they share a folder.
static BUILT: Mutex<BTreeMap<Machine, Firmware>> = Mutex::new(BTreeMap::new());

/// A firmware that has been built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Firmware {
    pub(crate) machine: Machine,
    pub(crate) elf: PathBuf,
    /// Bytes of flash: code, constants, and what is copied to RAM at start.
    pub flash_bytes: u64,
    /// Bytes of RAM without the call stack.
    pub ram_bytes: u64,
}

impl Firmware {
    /// Builds the firmware in `examples/firmware/qemu-mps2` for this machine: once in a process, further calls give the same.
    ///
    /// Where the environment has `EMULATION_FIRMWARE`, it is the folder of firmware that was built before: `mps2-an385.elf`,
    /// `lm3s6965evb.elf`.
    ///
    /// # Errors
    /// [`EmulationError`].
    pub fn build(machine: Machine) -> Result<Self, EmulationError> {
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(firmware) = built.get(&machine) {
            return Ok(firmware.clone());
        }
        let elf = match std::env::var_os("EMULATION_FIRMWARE") {
            Some(folder) => Path::new(&folder).join(machine.name()).with_extension("elf"),
            None => compile(machine.variant())?,
        };
        let firmware = Self::measure(machine, elf)?;
        built.insert(machine, firmware.clone());
        Ok(firmware)
    }

    /// Builds the firmware for [`Machine::Mps2`] with TLS: it trusts the certificates of the authority in the file `ca`, PEM or DER.
    ///
    /// The authority is part of the firmware, so `EMULATION_FIRMWARE` doesn't count here.
    ///
    /// # Errors
    /// [`EmulationError`].
    pub fn build_with_tls(ca: &Path) -> Result<Self, EmulationError> {
        let _one_at_a_time = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        Self::measure(Machine::Mps2, compile(Variant::Mps2Tls(ca))?)
    }

    /// Builds the firmware for [`Machine::Mps2`] without the sensor's bot. `EMULATION_FIRMWARE` doesn't count here.
    ///
    /// # Errors
    /// [`EmulationError`].
    pub fn build_ping_only() -> Result<Self, EmulationError> {
        let _one_at_a_time = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        Self::measure(Machine::Mps2, compile(Variant::Mps2Ping)?)
    }

    /// Builds the firmware for [`Machine::Mps2`] with its values kept in flash, which is a file: its settings at start are `FLASH_FILE` and
    /// `FLASH_STORE_AFTER_MS`. `EMULATION_FIRMWARE` doesn't count here.
    ///
    /// # Errors
    /// [`EmulationError`].
    pub fn build_with_flash() -> Result<Self, EmulationError> {
        let _one_at_a_time = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        Self::measure(Machine::Mps2, compile(Variant::Mps2Flash)?)
    }

    /// Builds the firmware for [`Machine::Mps2`] with the SNMP bot too. `EMULATION_FIRMWARE` doesn't count here.
    ///
    /// # Errors
    /// [`EmulationError`].
    pub fn build_with_snmp() -> Result<Self, EmulationError> {
        let _one_at_a_time = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        Self::measure(Machine::Mps2, compile(Variant::Mps2Snmp)?)
    }

    fn measure(machine: Machine, elf: PathBuf) -> Result<Self, EmulationError> {
        let bytes =
            std::fs::read(&elf).map_err(|source| EmulationError::File { file: elf.clone(), source })?;
        let (flash_bytes, ram_bytes) = sizes(&bytes)
            .ok_or(EmulationError::NotAFirmware { file: elf.clone(), why: "no ELF of 32 bits" })?;
        if flash_bytes < 1024 {
            return Err(EmulationError::NotAFirmware {
                file: elf,
                why: "it is empty: linked without its script",
            });
        }
        Ok(Firmware { machine, elf, flash_bytes, ram_bytes })
    }

    /// The board that it is for.
    #[must_use]
    pub const fn machine(&self) -> Machine {
        self.machine
    }
}

fn compile(variant: Variant<'_>) -> Result<PathBuf, EmulationError> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = here.join("../firmware/qemu-mps2");
    let target_dir =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| here.join("../../target"), PathBuf::from);
    // Cargo is called in another folder.
    let target_dir = std::path::absolute(&target_dir)
        .map_err(|source| EmulationError::File { file: target_dir, source })?
        .join("firmware");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&folder).args(["build", "--release", "--locked", "--quiet"]).args(variant.features());
    cargo.env("CARGO_TARGET_DIR", &target_dir).stdin(Stdio::null());
    // Each of these would replace what the firmware's folder says.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.ends_with("RUSTFLAGS") || text.starts_with("CARGO_PROFILE_") || text == "CARGO_BUILD_TARGET" {
            cargo.env_remove(&name);
        }
    }
    // The harness gives them at start. An empty one is the default, whatever a settings.toml there says.
    for key in [
        "BACKEND_CA",
        "BACKEND_KEY",
        "PING_BOT_TOKEN",
        "PING_GRID_ONLY",
        "SNMP_BOT_TOKEN",
        "SENSOR_BOT_TOKEN",
        "SENSOR_PATH",
        "SENSOR_INTERVAL",
        "ACCOUNT_ID",
        "JOBS_REFRESH_INTERVAL",
        "WIFI_SSID",
        "WIFI_PASSWORD",
    ] {
        cargo.env(key, "");
    }
    cargo.env("BACKEND_URL", "http://10.0.2.2:8480/api");
    if let Variant::Mps2Tls(ca) = variant {
        let ca =
            std::path::absolute(ca).map_err(|source| EmulationError::File { file: ca.into(), source })?;
        cargo.env("BACKEND_URL", "https://10.0.2.2/api").env("BACKEND_CA", ca);
    }
    let output = cargo.output().map_err(|source| EmulationError::Program { program: "cargo", source })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("can't find crate for `core`") {
            return Err(EmulationError::Target { target: TARGET });
        }
        let lines: Vec<&str> = said.lines().collect();
        let last = lines.get(lines.len().saturating_sub(30)..).unwrap_or_default();
        return Err(EmulationError::Build { said: last.join("\n") });
    }
    let built = target_dir.join(TARGET).join("release/grafolean-qemu");
    // The next machine's is built to the same place.
    let elf = target_dir.join(variant.name()).with_extension("elf");
    leave(&built, &elf).map_err(|source| EmulationError::File { file: built, source })?;
    Ok(elf)
}

/// Copies what was built. Where it is another one than before, what runs of that one took of the call stack is no longer true.
fn leave(built: &Path, elf: &Path) -> io::Result<()> {
    let new = std::fs::read(built)?;
    if std::fs::read(elf).is_ok_and(|old| old == new) {
        return Ok(());
    }
    match std::fs::remove_file(stack_file(elf)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => std::fs::write(elf, new),
    }
}

/// The file beside a firmware to which each run adds a line: the bytes of the call stack that it took at most.
/// `examples/firmware/sizes` reads it.
pub(crate) fn stack_file(elf: &Path) -> PathBuf {
    elf.with_extension("stack")
}

/// Bytes of flash and of RAM that an ELF file's segments take.
fn sizes(elf: &[u8]) -> Option<(u64, u64)> {
    const LOAD: u32 = 1;
    const RAM: u32 = 0x2000_0000;
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    if elf.get(..5)? != b"\x7fELF\x01" {
        return None;
    }
    let (start, size, count) = (word(28)? as usize, usize::from(half(42)?), usize::from(half(44)?));
    let (mut flash, mut ram) = (0, 0);
    for n in 0..count {
        let at = start.checked_add(n.checked_mul(size)?)?;
        if word(at)? != LOAD {
            continue;
        }
        let (address, file_bytes, memory_bytes) = (word(at + 8)?, word(at + 16)?, word(at + 20)?);
        flash += u64::from(file_bytes);
        if address >= RAM {
            ram += u64::from(memory_bytes);
        }
    }
    Some((flash, ram))
}
