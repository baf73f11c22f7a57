//! A disk in memory that fails as asked: torn writes, flipped bits, power cuts that lose what was not synced, a full
//! disk, errors of reading, writing and syncing. For tests and simulations (feature `test-disk`).
//!
//! [`FaultyDisk`] is what a store gets; [`FaultyDisk::handle`] gives further ones over the same bytes: for the test's
//! own hands, and for the next life of the process. All chance comes from one seed.
//!
//! ```
//! use grafolean_std::outbox::faulty::FaultyDisk;
//! use grafolean_std::outbox::Disk;
//!
//! let hands = FaultyDisk::new(7);
//! let mut disk = hands.handle();
//! disk.write("a", 0, b"kept").unwrap();
//! disk.sync("a").unwrap();
//! disk.sync_dir("").unwrap();
//! disk.write("b", 0, b"not synced: its name is lost").unwrap();
//! hands.power_cut_losing_all();
//! assert_eq!(hands.files(), ["a"]);
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use grafolean_core::random::SplitMix64;

use super::disk::{Disk, Entry, Syncing};

/// How likely an operation fails, in ten thousandths, and how much the disk holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Writes that fail with an I/O error after a random part of their bytes.
    pub write_error: u32,
    /// Reads that fail with an I/O error.
    pub read_error: u32,
    /// Syncs that fail with an I/O error.
    pub sync_error: u32,
    /// Creations, renames and removals that fail with an I/O error.
    pub name_error: u32,
    /// Bytes that the disk holds; `None` for no bound. A write that needs more fails after what fits.
    pub capacity: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    /// What a process reads.
    data: Vec<u8>,
    /// What a power cut leaves for certain.
    durable: Vec<u8>,
    /// Changes since the last sync: `None` cuts off at the offset.
    unsynced: Vec<(usize, Option<Vec<u8>>)>,
}

fn apply(data: &mut Vec<u8>, at: usize, bytes: Option<&[u8]>) {
    match bytes {
        None => data.truncate(at),
        Some(bytes) => {
            if data.len() < at + bytes.len() {
                data.resize(at + bytes.len(), 0);
            }
            if let Some(place) = data.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum NameOp {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

impl NameOp {
    fn dir(&self) -> &str {
        let (NameOp::Link(name, _) | NameOp::Unlink(name) | NameOp::Rename(name, _)) = self;
        name.rsplit_once('/').map_or("", |(dir, _)| dir)
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameOp::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            NameOp::Unlink(name) => {
                names.remove(name);
            }
            NameOp::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

#[derive(Debug)]
struct State {
    rng: SplitMix64,
    faults: Faults,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    name_ops: Vec<NameOp>,
    dirs: BTreeSet<String>,
    locked: bool,
    /// Operations that change something, so far.
    changes: u64,
    bytes_read: u64,
    /// The process dies in this one.
    die_at: Option<u64>,
    dead: bool,
    /// Files whose names begin so may not be read.
    denied: Option<String>,
    /// Bad spots: inode, first byte, first byte behind.
    bad_spots: Vec<(usize, u64, u64)>,
    /// No file can be read.
    unreadable: bool,
    /// Renaming to this name fails.
    refused_name: Option<String>,
}

impl State {
    fn fails(&mut self, which: fn(&Faults) -> u32) -> bool {
        let of_ten_thousand = which(&self.faults);
        of_ten_thousand > 0 && self.rng.below(10_000) < of_ten_thousand
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("the process was killed")) } else { Ok(()) }
    }

    /// Counts an operation that changes something: whether it is the one in which the process dies.
    fn change(&mut self) -> io::Result<bool> {
        self.alive()?;
        self.changes += 1;
        self.dead = self.die_at.is_some_and(|at| self.changes >= at);
        Ok(self.dead)
    }

    fn name_change(&mut self) -> io::Result<()> {
        if self.change()? {
            return self.alive();
        }
        if self.fails(|f| f.name_error) { Err(io_error()) } else { Ok(()) }
    }

    fn inode(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn name_op(&mut self, op: NameOp) {
        op.apply(&mut self.names);
        self.name_ops.push(op);
    }

    fn sync_inode(&mut self, at: usize) -> io::Result<()> {
        if self.change()? {
            return self.alive();
        }
        let fails = self.fails(|f| f.sync_error);
        if let Some(inode) = self.inodes.get_mut(at) {
            let unsynced = std::mem::take(&mut inode.unsynced);
            if fails {
                // As Linux: what could not be written counts as written from now on, and no later sync tries it again.
                // Some file systems let it be read until memory is needed, others do not.
                if self.rng.below(2) == 0 {
                    inode.data.clone_from(&inode.durable);
                }
                return Err(io_error());
            }
            for (at, bytes) in unsynced {
                apply(&mut inode.durable, at, bytes.as_deref());
            }
        }
        Ok(())
    }

    fn sync_names(&mut self, dir: &str) -> io::Result<()> {
        if self.change()? {
            return self.alive();
        }
        if self.fails(|f| f.sync_error) {
            return Err(io_error());
        }
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.name_ops).into_iter().partition(|op| op.dir() == dir);
        for op in now {
            op.apply(&mut self.durable_names);
        }
        self.name_ops = later;
        Ok(())
    }

    fn used(&self) -> u64 {
        let mut inodes: Vec<usize> = self.names.values().copied().collect();
        inodes.dedup();
        inodes.iter().filter_map(|&i| self.inodes.get(i)).map(|i| i.data.len() as u64).sum()
    }

    fn power_cut(&mut self, keep_some: bool) {
        // Journals keep the order of changes to one directory.
        let mut kept: BTreeMap<String, bool> = BTreeMap::new();
        for op in std::mem::take(&mut self.name_ops) {
            let goes_on = kept.get(op.dir()).copied().unwrap_or(true);
            let keep = keep_some && goes_on && self.rng.below(4) != 0;
            kept.insert(op.dir().to_owned(), keep);
            if keep {
                op.apply(&mut self.durable_names);
            }
        }
        self.names = self.durable_names.clone();
        let mut rng = self.rng.clone();
        for inode in &mut self.inodes {
            for (at, bytes) in std::mem::take(&mut inode.unsynced) {
                if !keep_some || rng.below(2) == 0 {
                    continue;
                }
                let part = bytes.as_deref().map(|b| {
                    let whole = rng.below(2) == 0;
                    b.get(..if whole { b.len() } else { rng.below(b.len() as u32 + 1) as usize }).unwrap_or(b)
                });
                apply(&mut inode.durable, at, part);
            }
            inode.data.clone_from(&inode.durable);
        }
        self.rng = rng;
        self.dead = false;
        self.die_at = None;
        self.locked = false;
    }
}

fn io_error() -> io::Error {
    // EIO, as the kernel gives it for a bad sector or a lost device.
    io::Error::from_raw_os_error(5)
}

/// The disk. See the [module](self).
#[derive(Debug)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
    /// Whether syncs wait.
    gate: Arc<(Mutex<bool>, Condvar)>,
    holds_lock: bool,
}

impl FaultyDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            rng: SplitMix64::new(seed),
            faults: Faults::default(),
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_ops: Vec::new(),
            dirs: BTreeSet::new(),
            locked: false,
            changes: 0,
            bytes_read: 0,
            die_at: None,
            dead: false,
            denied: None,
            bad_spots: Vec::new(),
            unreadable: false,
            refused_name: None,
        };
        FaultyDisk { state: Arc::new(Mutex::new(state)), gate: Arc::default(), holds_lock: false }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another handle on the same disk, without its lock.
    #[must_use]
    pub fn handle(&self) -> Self {
        FaultyDisk { state: Arc::clone(&self.state), gate: Arc::clone(&self.gate), holds_lock: false }
    }

    /// From now on syncs wait (block their threads), until this is called with `false`: a slow disk.
    pub fn hold_syncs(&self, hold: bool) {
        *self.gate.0.lock().unwrap_or_else(PoisonError::into_inner) = hold;
        self.gate.1.notify_all();
    }

    fn wait_at_gate(&self) {
        let mut held = self.gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *held {
            held = self.gate.1.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// From now on no file may be read, for want of rights, until this is called with `false`.
    pub fn deny_reading(&self, deny: bool) {
        self.deny_reading_of(deny.then_some(""));
    }

    /// From now on files whose names begin so may not be read, for want of rights; `None`: all may.
    pub fn deny_reading_of(&self, begin: Option<&str>) {
        self.state().denied = begin.map(str::to_owned);
    }

    /// From now on no file can be read, with an I/O error, until this is called with `false`. Takes nothing of the chance
    /// that the other faults come from.
    pub fn fail_reading(&self, fail: bool) {
        self.state().unreadable = fail;
    }

    /// From now on reading any of these bytes of a file fails with an I/O error, whatever the file is named later.
    pub fn spoil(&self, file: &str, bytes: std::ops::Range<u64>) {
        let mut s = self.state();
        if let Ok(inode) = s.inode(file) {
            s.bad_spots.push((inode, bytes.start, bytes.end));
        }
    }

    /// All spots are good again.
    pub fn heal(&self) {
        self.state().bad_spots.clear();
    }

    /// From now on renaming a file to this name fails with an I/O error; `None`: to none.
    pub fn refuse_name(&self, name: Option<&str>) {
        self.state().refused_name = name.map(str::to_owned);
    }

    /// Somebody else removes a file, durably, whatever the faults.
    pub fn take_away(&self, file: &str) {
        let mut s = self.state();
        s.names.remove(file);
        s.durable_names.remove(file);
    }

    /// Makes a directory, whatever the faults.
    pub fn put_dir(&self, dir: &str) {
        self.state().dirs.insert(dir.to_owned());
    }

    /// From now on this may fail.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// The process dies in the n-th operation from now that changes something (1: the next); a write is torn at a
    /// random byte. All operations fail from then on, until [`restart`](Self::restart) or a power cut.
    pub fn die_in(&self, changes: u64) {
        let mut s = self.state();
        s.die_at = Some(s.changes + changes.max(1));
    }

    /// Whether [`die_in`](Self::die_in) has come true.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Operations that changed something, so far.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Bytes that were read, so far.
    pub fn bytes_read(&self) -> u64 {
        self.state().bytes_read
    }

    /// The process was killed and may start again: all that was written is there.
    pub fn restart(&self) {
        let mut s = self.state();
        (s.dead, s.die_at, s.locked) = (false, None, false);
    }

    /// Power is cut and comes back: of what was not synced a random part is there, writes in any order and
    /// torn anywhere, names of one directory in their order.
    pub fn power_cut(&self) {
        self.state().power_cut(true);
    }

    /// Power is cut and comes back: nothing is there that was not synced.
    pub fn power_cut_losing_all(&self) {
        self.state().power_cut(false);
    }

    /// All files, sorted.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// Bytes in all files.
    #[must_use]
    pub fn bytes_used(&self) -> u64 {
        self.state().used()
    }

    /// What a file holds; `None` if there is no such file.
    #[must_use]
    pub fn contents(&self, file: &str) -> Option<Vec<u8>> {
        let s = self.state();
        let inode = s.inode(file).ok()?;
        s.inodes.get(inode).map(|i| i.data.clone())
    }

    /// Replaces what a file holds, durably, whatever the faults.
    pub fn set_contents(&self, file: &str, bytes: &[u8]) {
        let mut s = self.state();
        let Ok(at) = s.inode(file) else { return };
        if let Some(inode) = s.inodes.get_mut(at) {
            *inode = Inode { data: bytes.to_vec(), durable: bytes.to_vec(), unsynced: Vec::new() };
        }
    }

    /// Flips one bit of a file, durably. Nothing beyond its end.
    pub fn flip_bit(&self, file: &str, byte: usize, bit: u8) {
        let mut s = self.state();
        let Ok(at) = s.inode(file) else { return };
        if let Some(inode) = s.inodes.get_mut(at) {
            for data in [&mut inode.data, &mut inode.durable] {
                if let Some(b) = data.get_mut(byte) {
                    *b ^= 1 << (bit & 7);
                }
            }
        }
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        if self.holds_lock {
            self.state().locked = false;
        }
    }
}

impl Disk for FaultyDisk {
    fn lock(&mut self, _file: &str) -> io::Result<()> {
        let mut s = self.state();
        s.alive()?;
        if s.locked {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        s.locked = true;
        drop(s);
        self.holds_lock = true;
        Ok(())
    }

    fn list(&mut self, dir: &str) -> io::Result<Vec<Entry>> {
        let mut s = self.state();
        s.alive()?;
        if s.fails(|f| f.read_error) {
            return Err(io_error());
        }
        let inside = |name: &str| match name.rsplit_once('/') {
            Some((d, n)) => (d == dir).then(|| n.to_owned()),
            None => dir.is_empty().then(|| name.to_owned()),
        };
        let len = |i: &usize| s.inodes.get(*i).map_or(0, |i| i.data.len() as u64);
        let files = s
            .names
            .iter()
            .filter_map(|(name, i)| Some(Entry { name: inside(name)?, dir: false, len: len(i) }));
        let dirs = s.dirs.iter().filter_map(|name| Some(Entry { name: inside(name)?, dir: true, len: 0 }));
        Ok(files.chain(dirs).collect())
    }

    fn read(&mut self, file: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut s = self.state();
        s.alive()?;
        if s.dirs.contains(file) {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        let inode = s.inode(file)?;
        if s.denied.as_ref().is_some_and(|begin| file.starts_with(begin.as_str())) {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        if s.fails(|f| f.read_error) {
            return Err(io_error());
        }
        let end = offset + buf.len() as u64;
        if s.unreadable
            || s.bad_spots.iter().any(|&(bad, from, to)| bad == inode && offset < to && from < end)
        {
            return Err(io_error());
        }
        let data = s.inodes.get(inode).map_or(&[][..], |i| &i.data);
        let from = data.get(offset.min(data.len() as u64) as usize..).unwrap_or(&[]);
        let n = from.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), from.get(..n)) {
            to.copy_from_slice(from);
        }
        s.bytes_read += n as u64;
        Ok(n)
    }

    fn len(&mut self, file: &str) -> io::Result<u64> {
        let s = self.state();
        s.alive()?;
        let inode = s.inode(file)?;
        Ok(s.inodes.get(inode).map_or(0, |i| i.data.len() as u64))
    }

    fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut s = self.state();
        let dies = s.change()?;
        let inode = match s.inode(file) {
            Ok(inode) => inode,
            Err(_) => {
                let inode = s.inodes.len();
                s.inodes.push(Inode::default());
                s.name_op(NameOp::Link(file.to_owned(), inode));
                inode
            }
        };
        let old_len = s.inodes.get(inode).map_or(0, |i| i.data.len() as u64);
        let room = s.faults.capacity.map_or(u64::MAX, |c| c.saturating_sub(s.used() - old_len));
        let fits = room.saturating_sub(offset).min(bytes.len() as u64) as usize;
        let fails = s.fails(|f| f.write_error);
        let torn = if dies || fails { s.rng.below(bytes.len() as u32 + 1) as usize } else { bytes.len() };
        let part = bytes.get(..torn.min(fits)).unwrap_or(bytes).to_vec();
        if let Some(inode) = s.inodes.get_mut(inode).filter(|_| !part.is_empty()) {
            apply(&mut inode.data, offset as usize, Some(&part));
            inode.unsynced.push((offset as usize, Some(part)));
        }
        s.alive()?;
        if fails {
            return Err(io_error());
        }
        if fits < bytes.len() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn truncate(&mut self, file: &str, len: u64) -> io::Result<()> {
        let mut s = self.state();
        s.name_change()?;
        let inode = s.inode(file)?;
        if let Some(inode) = s.inodes.get_mut(inode) {
            apply(&mut inode.data, len as usize, None);
            inode.unsynced.push((len as usize, None));
        }
        Ok(())
    }

    fn syncing(&mut self, file: &str) -> io::Result<Syncing> {
        let s = self.state();
        s.alive()?;
        let inode = s.inode(file)?;
        drop(s);
        let disk = self.handle();
        Ok(Box::new(move || {
            disk.wait_at_gate();
            disk.state().sync_inode(inode)
        }))
    }

    fn create_dir(&mut self, dir: &str) -> io::Result<()> {
        let mut s = self.state();
        s.name_change()?;
        s.dirs.insert(dir.to_owned());
        Ok(())
    }

    fn syncing_dir(&mut self, dir: &str) -> io::Result<Syncing> {
        self.state().alive()?;
        let (disk, dir) = (self.handle(), dir.to_owned());
        Ok(Box::new(move || {
            disk.wait_at_gate();
            disk.state().sync_names(&dir)
        }))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut s = self.state();
        s.name_change()?;
        s.inode(from)?;
        if s.refused_name.as_deref() == Some(to) {
            return Err(io_error());
        }
        s.name_op(NameOp::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&mut self, file: &str) -> io::Result<()> {
        let mut s = self.state();
        s.name_change()?;
        s.inode(file)?;
        s.name_op(NameOp::Unlink(file.to_owned()));
        Ok(())
    }
}
