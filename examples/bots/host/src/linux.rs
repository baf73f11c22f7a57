//! Readings from Linux's `/proc`.

use core::fmt;
use std::io::{self, Read};
use std::path::PathBuf;
use std::string::String;

use crate::{HostReadings, Readings, proc};

/// No file that is read here comes near to this many bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Reads `/proc/loadavg`, `/proc/meminfo` and `/proc/uptime`. Costs three small reads that never wait for a disk.
#[derive(Clone, Debug)]
pub struct ProcReadings {
    root: PathBuf,
}

/// Why a file of `/proc` gives nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProcError {
    /// It could not be read.
    Read {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its text is not what Linux writes.
    Text {
        /// Which file.
        file: PathBuf,
    },
}

impl fmt::Display for ProcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProcError::Read { file, source } => write!(f, "cannot read {}: {source}", file.display()),
            ProcError::Text { file } => write!(f, "{} is not what Linux writes", file.display()),
        }
    }
}

impl core::error::Error for ProcError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            ProcError::Read { source, .. } => Some(source),
            ProcError::Text { .. } => None,
        }
    }
}

impl Default for ProcReadings {
    fn default() -> Self {
        Self::new("/proc")
    }
}

impl ProcReadings {
    /// Reads below `root`: `/proc`, or where a container finds its host's.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        ProcReadings { root: root.into() }
    }

    /// The machine's name.
    ///
    /// # Errors
    /// [`ProcError`] if it can't be read.
    pub fn host_name(&self) -> Result<String, ProcError> {
        self.read_file("sys/kernel/hostname", |text| {
            Some(text.trim().into()).filter(|name: &String| !name.is_empty())
        })
    }

    fn read_file<T>(&self, file: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, ProcError> {
        let file = self.root.join(file);
        let mut text = String::new();
        let read = std::fs::File::open(&file).and_then(|f| f.take(MAX_FILE_BYTES).read_to_string(&mut text));
        match read {
            Ok(_) => parse(&text).ok_or(ProcError::Text { file }),
            Err(source) => Err(ProcError::Read { file, source }),
        }
    }
}

impl HostReadings for ProcReadings {
    type Error = ProcError;

    fn read(&self) -> Result<Readings, ProcError> {
        let memory =
            self.read_file("meminfo", |text| Some(proc::meminfo(text)).filter(|m| m.memory_total.is_some()))?;
        Ok(Readings {
            load_hundredths: Some(self.read_file("loadavg", proc::loadavg)?),
            memory_total: memory.memory_total,
            memory_available: memory.memory_available,
            swap_total: memory.swap_total,
            swap_free: memory.swap_free,
            uptime_s: Some(self.read_file("uptime", proc::uptime_s)?),
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn this_machine_has_memory_load_and_a_name() {
        let here = ProcReadings::default();
        let now = here.read().unwrap();
        let (total, available) = (now.memory_total.unwrap(), now.memory_available.unwrap());
        assert!(total > 0 && available <= total);
        assert!(now.load_hundredths.is_some() && now.uptime_s.is_some());
        assert!(!here.host_name().unwrap().is_empty());
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let error = ProcReadings::new("/nowhere").read().unwrap_err();
        assert!(error.to_string().starts_with("cannot read /nowhere/meminfo: "), "{error}");
    }
}
