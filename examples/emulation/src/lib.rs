//! Firmware in an emulator, for tests and for trying it without a board: [`Firmware`] builds it, [`Board`] runs it in QEMU,
//! [`Link`] is a network cable that loses frames by a seed.
//!
//! ```no_run
//! use std::time::Duration;
//! use grafolean_emulation::{Board, Firmware, Machine};
//! use grafolean_stand_in::{Config, StandIn};
//!
//! let stand_in = StandIn::builder().config(Config::demo()?).spawn_thread()?;
//! let firmware = Firmware::build(Machine::Mps2)?;
//! let mut board = Board::builder(&firmware)
//!     .backend(&stand_in)
//!     .setting("PING_BOT_TOKEN", "11111111-1111-4111-8111-111111111111")
//!     .start()?;
//! stand_in.wait_for(Duration::from_secs(20), |s| s.value_count() >= 10)?;
//! board.press('q')?;
//! assert_eq!(board.wait(Duration::from_secs(20))?, 0, "{}", board.log());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is needed
//! `qemu-system-arm` and Rust's target `thumbv6m-none-eabi`. What is missing is said by the error ([`EmulationError`]), with the
//! command that installs it. No root, no TAP device: the board has QEMU's user-mode network, in which this machine is
//! 10.0.2.2.
//!
//! # Cost
//! A board takes about a tenth of a core while it has little to do. It runs in real time.
#![forbid(unsafe_code)]

mod board;
mod error;
mod firmware;
mod link;

pub use board::{Board, Builder, HOST};
pub use error::EmulationError;
pub use firmware::{Firmware, Machine};
pub use link::{Faults, Link, LinkCounters};

/// Looks whether QEMU is there.
///
/// # Errors
/// [`EmulationError::Missing`] says how to install it.
pub fn check() -> Result<(), EmulationError> {
    let mut qemu = std::process::Command::new(board::QEMU);
    let output = qemu.arg("--version").output().map_err(board::qemu_error)?;
    if output.status.success() {
        return Ok(());
    }
    let source = std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned());
    Err(EmulationError::Program { program: board::QEMU, source })
}
