//! A network cable that loses, doubles and reorders frames by a seed, and can be pulled: without root and without TAP devices.
//!
//! The board's QEMU sends its frames to this process by UDP, which passes them on to a second QEMU that has no machine, only the user-mode
//! network. Each direction has random numbers of its own: the same frames in the same order meet the same fate.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use grafolean_core::random::SplitMix64;

use crate::board::{QEMU, qemu_error};
use crate::error::EmulationError;

/// How often a thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// The longest frame, in bytes.
const FRAME: usize = 2048;

/// What happens to frames: of each 1000, in each direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// So many are lost.
    pub lost: u16,
    /// So many come twice.
    pub doubled: u16,
    /// So many come after the next one.
    pub late: u16,
}

/// Frames since the start, both directions together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkCounters {
    /// Sent by one of the sides.
    pub sent: u64,
    /// Lost by chance, or while the cable was out.
    pub lost: u64,
}

#[derive(Default)]
struct State {
    faults: Faults,
    is_out: bool,
    counters: LinkCounters,
}

/// A cable. It ends when it is dropped.
pub struct Link {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    network: Child,
    /// Where the board's frames go, and where they come from.
    board: (SocketAddr, SocketAddr),
    seed: u64,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Link {
    /// A cable to a user-mode network, for one board.
    ///
    /// # Errors
    /// [`EmulationError::Link`] if there are no sockets, [`EmulationError::Missing`] if there is no QEMU.
    pub fn start(seed: u64, faults: Faults) -> Result<Self, EmulationError> {
        let bind = || UdpSocket::bind("127.0.0.1:0").map_err(EmulationError::Link);
        let (to_board, to_network) = (bind()?, bind()?);
        // QEMU's own sides: free now, and taken by QEMU in a moment.
        let (board_side, network_side) = (bind()?, bind()?);
        let address = |socket: &UdpSocket| socket.local_addr().map_err(EmulationError::Link);
        let (board_at, network_at) = (address(&board_side)?, address(&network_side)?);
        drop((board_side, network_side));
        let (near, far) = (address(&to_board)?, address(&to_network)?);
        let network = Command::new(QEMU)
            .args(["-M", "none", "-nodefaults", "-display", "none", "-monitor", "none", "-serial", "none"])
            .args(["-netdev", "user,id=user", "-netdev", "hubport,hubid=0,id=port0,netdev=user"])
            .args(["-netdev", &format!("socket,id=cable,udp={far},localaddr={network_at}")])
            .args(["-netdev", "hubport,hubid=0,id=port1,netdev=cable"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(qemu_error)?;
        let state = Arc::new(Mutex::new(State { faults, ..State::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        let mut link = Link { state, stop, threads: Vec::new(), network, board: (near, board_at), seed };
        let clone = |socket: &UdpSocket| socket.try_clone().map_err(EmulationError::Link);
        for (from, by, to, seed) in [
            (clone(&to_board)?, clone(&to_network)?, network_at, seed),
            (to_network, to_board, board_at, seed.rotate_left(32) ^ 1),
        ] {
            from.set_read_timeout(Some(LOOK)).map_err(EmulationError::Link)?;
            let (state, stop) = (Arc::clone(&link.state), Arc::clone(&link.stop));
            link.threads.push(std::thread::spawn(move || carry(&from, &by, to, seed, &state, &stop)));
        }
        Ok(link)
    }

    /// What the board's QEMU is told.
    pub(crate) fn nic(&self) -> String {
        let (near, board_at) = self.board;
        format!("socket,udp={near},localaddr={board_at}")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it has these faults.
    pub fn faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Pulls the cable out. Neither side is told.
    pub fn pull_out(&self) {
        self.state().is_out = true;
    }

    /// Plugs the cable in again.
    pub fn plug_in(&self) {
        self.state().is_out = false;
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> LinkCounters {
        self.state().counters
    }

    /// What its faults follow from.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.network.kill();
        let _ = self.network.wait();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Carries frames in one direction until it is told to stop.
fn carry(
    from: &UdpSocket,
    by: &UdpSocket,
    to: SocketAddr,
    seed: u64,
    state: &Mutex<State>,
    stop: &AtomicBool,
) {
    let mut fate = Fate(SplitMix64::new(seed));
    let mut frame = [0; FRAME];
    let mut late: Option<Vec<u8>> = None;
    while !stop.load(Ordering::Relaxed) {
        // Also if the other side is not there yet, or any more.
        let Ok(len) = from.recv(&mut frame) else { continue };
        let frame = frame.get(..len).unwrap_or_default();
        let (is_out, fate) = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let fate = fate.next(&state.faults);
            state.counters.sent += 1;
            state.counters.lost += u64::from(state.is_out || fate.lost);
            (state.is_out, fate)
        };
        if is_out || fate.lost {
            continue;
        }
        let held = late.take();
        if fate.late && held.is_none() {
            late = Some(frame.to_vec());
            continue;
        }
        let _ = by.send_to(frame, to);
        if fate.doubled {
            let _ = by.send_to(frame, to);
        }
        if let Some(held) = held {
            let _ = by.send_to(&held, to);
        }
    }
}

/// Decides what becomes of frames.
struct Fate(SplitMix64);

struct FateOf {
    lost: bool,
    doubled: bool,
    late: bool,
}

impl Fate {
    /// The same number of random numbers for each frame, whatever the faults.
    fn next(&mut self, faults: &Faults) -> FateOf {
        let mut of = |thousandths: u16| self.0.next_u64() % 1000 < u64::from(thousandths);
        FateOf { lost: of(faults.lost), doubled: of(faults.doubled), late: of(faults.late) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_frames_the_same_fate_and_about_the_share_that_was_asked_for() {
        let faults = Faults { lost: 100, doubled: 20, late: 0 };
        let fates = |seed| {
            let mut fate = Fate(SplitMix64::new(seed));
            (0..10_000).map(|_| fate.next(&faults)).map(|f| (f.lost, f.doubled, f.late)).collect::<Vec<_>>()
        };
        let first = fates(7);
        assert_eq!(first, fates(7));
        assert_ne!(first, fates(8));
        let count = |pick: fn(&(bool, bool, bool)) -> bool| first.iter().filter(|f| pick(f)).count();
        assert!((900..1100).contains(&count(|f| f.0)) && (140..260).contains(&count(|f| f.1)));
        assert_eq!(count(|f| f.2), 0);
    }
}
