//! What the store needs of a file system, so that tests and simulations can give it a bad one.
//!
//! [`Disk`] is the trait, [`RealDisk`] a directory of the operating system. All names are relative to the store's
//! directory, in ASCII, with `/` between folder and file, at most one folder deep: `lock`, `7/0000000000000001.seg`.
//!
//! # Cost
//! Each method is one or a few system calls, and blocks. [`RealDisk`] keeps at most [`RealDisk::OPEN_FILES`] files
//! open besides the lock, however many accounts there are.
//!
//! # Errors
//! [`io::Error`] as the system reports it. After a failed write a file may hold a part of the bytes; after a failed
//! [`sync`](Disk::sync) nobody knows which bytes will be there after a power cut.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name, without the directory.
    pub name: String,
    /// Whether it is a directory.
    pub dir: bool,
    /// Its length in bytes, if it is a file.
    pub len: u64,
}

/// Waits until something survives a power cut: to be called once, on any thread, while the disk is in use.
pub type Syncing = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// A file system below one directory, as a store uses it.
///
/// What survives a power cut: bytes of a file up to its last [`sync`](Disk::sync), and names as of the last
/// [`sync_dir`](Disk::sync_dir) of their directory. What comes later survives wholly, in part, or not. What survives
/// the end of the process: all that was written.
pub trait Disk {
    /// Takes the store's directory for this process alone, until the `Disk` is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another one has it.
    fn lock(&mut self, file: &str) -> io::Result<()>;

    /// What `dir` holds (`""` is the store's directory), in no certain order.
    ///
    /// # Errors
    /// As the file system; [`io::ErrorKind::NotFound`] if there is no such directory.
    fn list(&mut self, dir: &str) -> io::Result<Vec<Entry>>;

    /// Reads from `offset` until `buf` is full or the file ends: the number of bytes read.
    ///
    /// # Errors
    /// As the file system; [`io::ErrorKind::NotFound`] if there is no such file.
    fn read(&mut self, file: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// How many bytes the file of this name has now, whoever changed it: one that was removed or replaced by others is
    /// not gone on with.
    ///
    /// # Errors
    /// As the file system; [`io::ErrorKind::NotFound`] if there is no such file.
    fn len(&mut self, file: &str) -> io::Result<u64>;

    /// Writes all of `bytes` at `offset`; a file that isn't there is made.
    ///
    /// # Errors
    /// As the file system. A part of the bytes may have been written.
    fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts a file off at `len` bytes.
    ///
    /// # Errors
    /// As the file system.
    fn truncate(&mut self, file: &str, len: u64) -> io::Result<()>;

    /// What waits until the bytes that a file holds now survive a power cut. It has the file itself: that this is
    /// renamed or removed meanwhile does not matter. Two at a time for the same file share one error between them, so
    /// that the other one says that all is well.
    ///
    /// # Errors
    /// As the file system. If what is returned fails, bytes since the last one are lost, and the next one does not try
    /// them again.
    fn syncing(&mut self, file: &str) -> io::Result<Syncing>;

    /// Waits until the bytes of a file survive a power cut.
    ///
    /// # Errors
    /// Those of [`syncing`](Self::syncing).
    fn sync(&mut self, file: &str) -> io::Result<()> {
        self.syncing(file)?()
    }

    /// Makes a directory; one that is there is fine.
    ///
    /// # Errors
    /// As the file system.
    fn create_dir(&mut self, dir: &str) -> io::Result<()>;

    /// What waits until the names in a directory survive a power cut.
    ///
    /// # Errors
    /// As the file system.
    fn syncing_dir(&mut self, dir: &str) -> io::Result<Syncing>;

    /// Waits until the names in a directory survive a power cut.
    ///
    /// # Errors
    /// Those of [`syncing_dir`](Self::syncing_dir).
    fn sync_dir(&mut self, dir: &str) -> io::Result<()> {
        self.syncing_dir(dir)?()
    }

    /// Gives a file another name in the same directory, at once; one that had that name is gone.
    ///
    /// # Errors
    /// As the file system.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the file system; [`io::ErrorKind::NotFound`] if there is no such file.
    fn remove(&mut self, file: &str) -> io::Result<()>;
}

/// A directory of the operating system.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    lock: Option<File>,
    /// Files in use, the latest last.
    open: VecDeque<(String, File)>,
}

impl RealDisk {
    /// Files that are kept open at most, besides the lock.
    pub const OPEN_FILES: usize = 32;

    /// The directory `root`, which is made if it is not there. On Unix what is made in it, and itself, is for this
    /// user alone (0700, files 0600); directories above it are made as the umask says.
    ///
    /// # Errors
    /// As the file system.
    pub fn new(root: &Path) -> io::Result<Self> {
        if let Some(above) = root.parent() {
            fs::create_dir_all(above)?;
        }
        make_dir(root)?;
        Ok(RealDisk { root: root.to_owned(), lock: None, open: VecDeque::new() })
    }

    /// Whether users beside the owner and the group may list or enter a directory: values and paths in it are theirs,
    /// too. `false` where that can't be told (not on Unix).
    ///
    /// # Errors
    /// As the file system.
    pub fn is_open_to_others(root: &Path) -> io::Result<bool> {
        let meta = fs::metadata(root)?;
        #[cfg(unix)]
        let open = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o007 != 0;
        #[cfg(not(unix))]
        let open = meta.is_file();
        Ok(open)
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.root.clone() } else { self.root.join(name) }
    }

    fn forget(&mut self, name: &str) {
        self.open.retain(|(n, _)| n != name);
    }

    fn file(&mut self, name: &str, create: bool) -> io::Result<&mut File> {
        let file = match self.open.iter().position(|(n, _)| n == name).and_then(|at| self.open.remove(at)) {
            Some((_, file)) => file,
            None => options().create(create).open(self.path(name))?,
        };
        if self.open.len() >= Self::OPEN_FILES {
            self.open.pop_front();
        }
        self.open.push_back((name.to_owned(), file));
        self.open.back_mut().map(|(_, file)| file).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn make_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Whether an open file is the one that has the name.
#[cfg(unix)]
fn is_same(file: &File, named: &Metadata) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let meta = file.metadata()?;
    Ok((meta.dev(), meta.ino()) == (named.dev(), named.ino()))
}

/// Files that are open can't be removed there.
#[cfg(not(unix))]
fn is_same(_: &File, _: &Metadata) -> io::Result<bool> {
    Ok(true)
}

impl Disk for RealDisk {
    fn lock(&mut self, file: &str) -> io::Result<()> {
        let lock = options().create(true).open(self.path(file))?;
        lock.try_lock().map_err(|e| match e {
            fs::TryLockError::WouldBlock => io::Error::from(io::ErrorKind::WouldBlock),
            fs::TryLockError::Error(e) => e,
        })?;
        self.lock = Some(lock);
        Ok(())
    }

    fn list(&mut self, dir: &str) -> io::Result<Vec<Entry>> {
        let mut out = Vec::new();
        for entry in fs::read_dir(self.path(dir))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let meta = entry.metadata()?;
            out.push(Entry { name, dir: meta.is_dir(), len: meta.len() });
        }
        Ok(out)
    }

    fn read(&mut self, file: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let file = self.file(file, false)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut n = 0;
        while let Some(rest) = buf.get_mut(n..).filter(|r| !r.is_empty()) {
            match file.read(rest) {
                Ok(0) => break,
                Ok(more) => n += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(n)
    }

    fn len(&mut self, file: &str) -> io::Result<u64> {
        let meta = match fs::metadata(self.path(file)) {
            Ok(meta) if meta.is_dir() => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            other => other,
        };
        let open = self.open.iter().find(|(name, _)| name == file);
        let same = match (&meta, open) {
            (Ok(named), Some((_, open))) => is_same(open, named)?,
            (Ok(_), None) => true,
            (Err(_), _) => false,
        };
        if !same {
            self.forget(file);
        }
        Ok(meta?.len())
    }

    fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.file(file, true)?;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }

    fn truncate(&mut self, file: &str, len: u64) -> io::Result<()> {
        self.file(file, false)?.set_len(len)
    }

    fn syncing(&mut self, file: &str) -> io::Result<Syncing> {
        // The same open file: an error of writing since it was opened is told to it, and to no other.
        let file = self.file(file, false)?.try_clone()?;
        Ok(Box::new(move || file.sync_data()))
    }

    fn create_dir(&mut self, dir: &str) -> io::Result<()> {
        make_dir(&self.path(dir))
    }

    /// On Windows, where a directory can't be synced, nothing.
    fn syncing_dir(&mut self, dir: &str) -> io::Result<Syncing> {
        let path = self.path(dir);
        Ok(Box::new(move || if cfg!(windows) { Ok(()) } else { File::open(path)?.sync_all() }))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.forget(from);
        self.forget(to);
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&mut self, file: &str) -> io::Result<()> {
        self.forget(file);
        fs::remove_file(self.path(file))
    }
}
