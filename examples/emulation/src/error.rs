//! What can be missing, and how to get it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no emulation.
#[derive(Debug)]
#[non_exhaustive]
pub enum EmulationError {
    /// A program is not there.
    Missing {
        /// Its name.
        program: &'static str,
        /// How to install it.
        install: &'static str,
    },
    /// A program could not be started or talked to.
    Program {
        /// Its name.
        program: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The firmware could not be built.
    Build {
        /// The last lines that cargo said.
        said: String,
    },
    /// The compiler lacks the board's target.
    Target {
        /// The target.
        target: &'static str,
    },
    /// A file can't be read or written.
    File {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The firmware is no program for the board: linked without its linker script, for instance.
    NotAFirmware {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The link's sockets can't be made or used.
    Link(io::Error),
    /// It did not happen in time; the board's last lines.
    TimedOut {
        /// The limit.
        limit: Duration,
        /// The board's last lines.
        log: String,
    },
}

impl fmt::Display for EmulationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { program, install } => write!(f, "{program} is missing. Install it: {install}"),
            Self::Program { program, source } => write!(f, "{program}: {source}"),
            Self::Build { said } => write!(f, "the firmware could not be built:\n{said}"),
            Self::Target { target } => {
                write!(f, "the compiler lacks {target}. Install it: rustup target add {target}")
            }
            Self::File { file, source } => write!(f, "{}: {source}", file.display()),
            Self::NotAFirmware { file, why } => write!(f, "{} is no firmware: {why}", file.display()),
            Self::Link(source) => write!(f, "the emulated link: {source}"),
            Self::TimedOut { limit, log } => {
                write!(f, "it did not happen within {limit:?}; the board said:\n{log}")
            }
        }
    }
}

impl std::error::Error for EmulationError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Program { source, .. } | Self::File { source, .. } | Self::Link(source) => Some(source),
            _ => None,
        }
    }
}
