//! The values and their paths: in memory, or in a SQLite file (feature `server`).
//!
//! A value is kept as a double at a time in microseconds: the backend keeps decimals but reads them back as doubles, so
//! reading gives the same number. In a file NaN, which SQLite has not, is kept as NULL.
//!
//! In memory a value costs about 20 bytes beside its path's first one, and nothing fails. In a file each call that writes is one
//! transaction, with statements that are prepared once for it; known paths are looked up in memory.

use core::fmt;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// A value as the store gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredValue {
    /// The account it belongs to.
    pub account: i32,
    /// Its path.
    pub path: String,
    /// Its Unix time in microseconds.
    pub time_us: i64,
    /// The number; NaN and infinities are possible and make reading through the API fail.
    pub value: f64,
}

/// A failure of the store under the stand-in (not one that the backend would show for the same request). Never in memory.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// This build keeps values in memory only: it has not the feature `server`.
    NoFiles {
        /// Name of the file.
        file: String,
    },
    /// The file cannot be opened as the stand-in's database.
    #[cfg(feature = "server")]
    Open {
        /// Name of the file.
        file: String,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Reading or writing failed.
    #[cfg(feature = "server")]
    Access(rusqlite::Error),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFiles { file } => {
                write!(
                    f,
                    "cannot open {file}: built without the feature `server`, values are kept in memory only"
                )
            }
            #[cfg(feature = "server")]
            Self::Open { file, source } => write!(f, "cannot open {file} as a database of values: {source}"),
            #[cfg(feature = "server")]
            Self::Access(source) => write!(f, "the database of values failed: {source}"),
        }
    }
}

impl core::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::NoFiles { .. } => None,
            #[cfg(feature = "server")]
            Self::Open { source, .. } | Self::Access(source) => Some(source),
        }
    }
}

#[cfg(feature = "server")]
impl From<rusqlite::Error> for StoreError {
    fn from(source: rusqlite::Error) -> Self {
        Self::Access(source)
    }
}

/// Identifies a path row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PathId(i64);

pub(crate) struct Store {
    paths: HashMap<i32, HashMap<String, PathId>>,
    count: u64,
    place: Place,
}

/// Where the values are.
enum Place {
    /// By path and time; the next path's id.
    Memory(BTreeMap<PathId, BTreeMap<i64, f64>>, i64),
    #[cfg(feature = "server")]
    File(file::Database),
}

impl Store {
    /// # Errors
    /// None; the type is that of [`Store::file`].
    pub(crate) fn in_memory() -> Result<Self, StoreError> {
        Ok(Self { paths: HashMap::new(), count: 0, place: Place::Memory(BTreeMap::new(), 1) })
    }

    #[cfg(feature = "server")]
    pub(crate) fn file(file: &Path) -> Result<Self, StoreError> {
        let open = || {
            let database = file::Database::open(file)?;
            let (paths, count) = (database.paths()?, database.count()?);
            Ok(Self { paths, count, place: Place::File(database) })
        };
        open().map_err(|source| StoreError::Open { file: file.display().to_string(), source })
    }

    #[cfg(not(feature = "server"))]
    pub(crate) fn file(file: &Path) -> Result<Self, StoreError> {
        Err(StoreError::NoFiles { file: file.display().to_string() })
    }

    /// How many values are stored, of all accounts; free.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn path(&self, account: i32, path: &str) -> Option<PathId> {
        self.paths.get(&account)?.get(path).copied()
    }

    pub(crate) fn paths(&self, account: i32) -> Vec<String> {
        let mut paths: Vec<String> =
            self.paths.get(&account).into_iter().flat_map(|p| p.keys().cloned()).collect();
        paths.sort();
        paths
    }

    /// How many paths an account has.
    #[cfg(feature = "server")]
    pub(crate) fn path_count(&self, account: i32) -> usize {
        self.paths.get(&account).map_or(0, HashMap::len)
    }

    /// The ids of paths, which are made if there are none.
    pub(crate) fn ensure_paths(&mut self, account: i32, paths: &[&str]) -> Result<Vec<PathId>, StoreError> {
        let known = self.paths.entry(account).or_default();
        match &mut self.place {
            Place::Memory(_, next) => {
                for path in paths {
                    if !known.contains_key(*path) {
                        known.insert((*path).to_owned(), PathId(*next));
                        *next += 1;
                    }
                }
            }
            #[cfg(feature = "server")]
            Place::File(database) => {
                let unknown: Vec<&str> = paths.iter().copied().filter(|p| !known.contains_key(*p)).collect();
                if !unknown.is_empty() {
                    known.extend(database.add_paths(account, &unknown)?);
                }
            }
        }
        Ok(paths.iter().filter_map(|path| known.get(*path).copied()).collect())
    }

    /// Stores one page, overwriting what stands at the same path and time.
    pub(crate) fn upsert(&mut self, page: &[(PathId, i64, f64)]) -> Result<(), StoreError> {
        let new = match &mut self.place {
            Place::Memory(values, _) => {
                let added = |(path, time_us, value): &(PathId, i64, f64)| {
                    values.entry(*path).or_default().insert(*time_us, *value).is_none()
                };
                page.iter().map(added).filter(|new| *new).count() as u64
            }
            #[cfg(feature = "server")]
            Place::File(database) => database.upsert(page)?,
        };
        self.count += new;
        Ok(())
    }

    /// The values of a path in order of time, between two times in microseconds, both included.
    pub(crate) fn read(&self, path: PathId, from_us: i64, to_us: i64) -> Result<Vec<(i64, f64)>, StoreError> {
        match &self.place {
            Place::Memory(..) if from_us > to_us => Ok(Vec::new()),
            Place::Memory(values, _) => {
                let range = values.get(&path).into_iter().flat_map(|series| series.range(from_us..=to_us));
                Ok(range.map(|(time_us, value)| (*time_us, *value)).collect())
            }
            #[cfg(feature = "server")]
            Place::File(database) => Ok(database.read(path, from_us, to_us)?),
        }
    }

    /// The newest value of a path.
    pub(crate) fn newest(&self, path: PathId) -> Result<Option<(i64, f64)>, StoreError> {
        match &self.place {
            Place::Memory(values, _) => {
                let last = values.get(&path).and_then(BTreeMap::last_key_value);
                Ok(last.map(|(time_us, value)| (*time_us, *value)))
            }
            #[cfg(feature = "server")]
            Place::File(database) => Ok(database.newest(path)?),
        }
    }

    /// The newest values of a path in order of time, at most so many.
    #[cfg(feature = "server")]
    pub(crate) fn latest(&self, path: PathId, limit: usize) -> Result<Vec<(i64, f64)>, StoreError> {
        let mut latest: Vec<(i64, f64)> = match &self.place {
            Place::Memory(values, _) => {
                let newest = values.get(&path).into_iter().flat_map(|series| series.iter().rev().take(limit));
                newest.map(|(time_us, value)| (*time_us, *value)).collect()
            }
            Place::File(database) => database.latest(path, limit)?,
        };
        latest.reverse();
        Ok(latest)
    }

    /// All values of an account in order of path and time.
    pub(crate) fn all(&self, account: i32) -> Result<Vec<StoredValue>, StoreError> {
        let Some(known) = self.paths.get(&account) else { return Ok(Vec::new()) };
        let mut known: Vec<(&String, &PathId)> = known.iter().collect();
        known.sort_unstable();
        let mut all = Vec::new();
        for (path, id) in known {
            let series = self.read(*id, i64::MIN, i64::MAX)?;
            let stored = |(time_us, value)| StoredValue { account, path: path.clone(), time_us, value };
            all.extend(series.into_iter().map(stored));
        }
        Ok(all)
    }

    /// Forgets all paths and values of an account.
    pub(crate) fn forget(&mut self, account: i32) -> Result<(), StoreError> {
        let gone = match &mut self.place {
            Place::Memory(values, _) => {
                let ids = self.paths.get(&account).into_iter().flat_map(HashMap::values);
                ids.filter_map(|id| values.remove(id)).map(|series| series.len() as u64).sum()
            }
            #[cfg(feature = "server")]
            Place::File(database) => database.forget(account)?,
        };
        self.paths.remove(&account);
        self.count = self.count.saturating_sub(gone);
        Ok(())
    }
}

/// The same in a file.
#[cfg(feature = "server")]
mod file {
    use std::collections::HashMap;
    use std::path::Path;

    use rusqlite::{Connection, Error, OptionalExtension, params};

    use super::PathId;

    const SCHEMA: &str = "
        CREATE TABLE IF NOT EXISTS paths (
            id INTEGER PRIMARY KEY,
            account INTEGER NOT NULL,
            path TEXT NOT NULL,
            UNIQUE (account, path)
        );
        CREATE TABLE IF NOT EXISTS measurements (
            path INTEGER NOT NULL,
            time_us INTEGER NOT NULL,
            value REAL,
            PRIMARY KEY (path, time_us)
        ) WITHOUT ROWID;";

    pub(super) struct Database(Connection);

    impl Database {
        pub(super) fn open(file: &Path) -> Result<Self, Error> {
            let db = Connection::open(file)?;
            db.pragma_update(None, "journal_mode", "WAL")?;
            db.pragma_update(None, "synchronous", "NORMAL")?;
            db.execute_batch(SCHEMA)?;
            Ok(Self(db))
        }

        pub(super) fn paths(&self) -> Result<HashMap<i32, HashMap<String, PathId>>, Error> {
            let mut paths: HashMap<i32, HashMap<String, PathId>> = HashMap::new();
            let mut rows = self.0.prepare("SELECT account, path, id FROM paths")?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                paths.entry(row.get(0)?).or_default().insert(row.get(1)?, PathId(row.get(2)?));
            }
            Ok(paths)
        }

        pub(super) fn count(&self) -> Result<u64, Error> {
            let count =
                self.0.query_row("SELECT count(*) FROM measurements", [], |row| row.get::<_, i64>(0))?;
            Ok(u64::try_from(count).unwrap_or(0))
        }

        /// Adds paths that are not there.
        pub(super) fn add_paths(
            &self,
            account: i32,
            paths: &[&str],
        ) -> Result<HashMap<String, PathId>, Error> {
            let transaction = self.0.unchecked_transaction()?;
            let mut new = HashMap::with_capacity(paths.len());
            {
                let mut insert = transaction.prepare("INSERT INTO paths (account, path) VALUES (?1, ?2)")?;
                for path in paths {
                    if !new.contains_key(*path) {
                        new.insert((*path).to_owned(), PathId(insert.insert(params![account, path])?));
                    }
                }
            }
            transaction.commit()?;
            Ok(new)
        }

        /// How many of them are new.
        pub(super) fn upsert(&self, page: &[(PathId, i64, f64)]) -> Result<u64, Error> {
            let transaction = self.0.unchecked_transaction()?;
            let mut new = 0;
            {
                let mut insert = transaction.prepare(
                    "INSERT INTO measurements (path, time_us, value) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                )?;
                // Only a repeated PUT needs it.
                let mut update = None;
                for (path, time_us, value) in page {
                    let row = params![path.0, time_us, value];
                    if insert.execute(row)? == 1 {
                        new += 1;
                        continue;
                    }
                    let update = match &mut update {
                        Some(update) => update,
                        none => none.insert(transaction.prepare(
                            "UPDATE measurements SET value = ?3 WHERE path = ?1 AND time_us = ?2",
                        )?),
                    };
                    update.execute(row)?;
                }
            }
            transaction.commit()?;
            Ok(new)
        }

        pub(super) fn read(&self, path: PathId, from_us: i64, to_us: i64) -> Result<Vec<(i64, f64)>, Error> {
            let mut rows = self.0.prepare(
                "SELECT time_us, value FROM measurements WHERE path = ?1 AND time_us BETWEEN ?2 AND ?3 ORDER BY time_us",
            )?;
            let rows = rows.query_map(params![path.0, from_us, to_us], |row| {
                Ok((row.get(0)?, row.get::<_, Option<f64>>(1)?.unwrap_or(f64::NAN)))
            })?;
            rows.collect()
        }

        pub(super) fn newest(&self, path: PathId) -> Result<Option<(i64, f64)>, Error> {
            let mut row = self.0.prepare(
                "SELECT time_us, value FROM measurements WHERE path = ?1 ORDER BY time_us DESC LIMIT 1",
            )?;
            row.query_row(params![path.0], |row| {
                Ok((row.get(0)?, row.get::<_, Option<f64>>(1)?.unwrap_or(f64::NAN)))
            })
            .optional()
        }

        /// The newest first.
        pub(super) fn latest(&self, path: PathId, limit: usize) -> Result<Vec<(i64, f64)>, Error> {
            let mut rows = self.0.prepare(
                "SELECT time_us, value FROM measurements WHERE path = ?1 ORDER BY time_us DESC LIMIT ?2",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = rows.query_map(params![path.0, limit], |row| {
                Ok((row.get(0)?, row.get::<_, Option<f64>>(1)?.unwrap_or(f64::NAN)))
            })?;
            rows.collect()
        }

        /// How many values have gone.
        pub(super) fn forget(&self, account: i32) -> Result<u64, Error> {
            let transaction = self.0.unchecked_transaction()?;
            let gone = transaction.execute(
                "DELETE FROM measurements WHERE path IN (SELECT id FROM paths WHERE account = ?1)",
                params![account],
            )?;
            transaction.execute("DELETE FROM paths WHERE account = ?1", params![account])?;
            transaction.commit()?;
            Ok(gone as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Removes the file and what SQLite keeps beside it, before and after.
    #[cfg(feature = "server")]
    struct TempFile(std::path::PathBuf);

    #[cfg(feature = "server")]
    impl TempFile {
        fn new(name: &str) -> Self {
            let file = format!("stand-in-store-{name}-{}.sqlite", std::process::id());
            let file = Self(std::env::temp_dir().join(file));
            file.clean();
            file
        }

        fn clean(&self) {
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{suffix}", self.0.display()));
            }
        }
    }

    #[cfg(feature = "server")]
    impl Drop for TempFile {
        fn drop(&mut self) {
            self.clean();
        }
    }

    /// The same on both stores.
    fn on_both(name: &str, test: impl Fn(Store)) {
        test(Store::in_memory().unwrap());
        #[cfg(feature = "server")]
        {
            let file = TempFile::new(name);
            test(Store::file(&file.0).unwrap());
        }
        let _ = name;
    }

    #[test]
    fn a_value_at_the_same_path_and_time_is_overwritten_and_counted_once() {
        on_both("overwritten", |mut store| {
            let ids = store.ensure_paths(1, &["a", "b", "a"]).unwrap();
            assert_eq!(ids[0], ids[2]);
            store.upsert(&[(ids[0], 5, 1.0), (ids[1], 5, 2.0)]).unwrap();
            store.upsert(&[(ids[0], 5, 3.0)]).unwrap();
            assert_eq!(store.read(ids[0], i64::MIN, i64::MAX).unwrap(), [(5, 3.0)]);
            assert_eq!(store.count(), 2);
            assert_eq!(store.newest(ids[1]).unwrap(), Some((5, 2.0)));
        });
    }

    #[test]
    fn an_account_that_is_forgotten_takes_its_own_paths_and_values_with_it_only() {
        on_both("forgotten", |mut store| {
            let (first, second) =
                (store.ensure_paths(1, &["a", "b"]).unwrap(), store.ensure_paths(2, &["a"]).unwrap());
            store.upsert(&[(first[0], 1, 1.0), (first[1], 1, 2.0), (second[0], 1, 3.0)]).unwrap();
            store.forget(1).unwrap();
            assert_eq!((store.count(), store.paths(1), store.paths(2)), (1, vec![], vec!["a".to_owned()]));
            assert!(store.all(1).unwrap().is_empty());
            assert_eq!(store.all(2).unwrap()[0].value, 3.0);
            // The path is a new one.
            let again = store.ensure_paths(1, &["a"]).unwrap();
            assert_eq!(store.read(again[0], i64::MIN, i64::MAX).unwrap(), []);
        });
    }

    #[test]
    fn values_are_read_between_two_times_in_order_of_path_and_time() {
        on_both("ranges", |mut store| {
            let ids = store.ensure_paths(1, &["b", "a"]).unwrap();
            store.upsert(&[(ids[0], 3, 3.0), (ids[0], -1, 1.0), (ids[0], 2, 2.0), (ids[1], 9, 9.0)]).unwrap();
            assert_eq!(store.read(ids[0], -1, 2).unwrap(), [(-1, 1.0), (2, 2.0)]);
            assert_eq!(store.read(ids[0], 4, 3).unwrap(), []);
            #[cfg(feature = "server")]
            assert_eq!(store.latest(ids[0], 2).unwrap(), [(2, 2.0), (3, 3.0)]);
            let all: Vec<_> = store.all(1).unwrap().into_iter().map(|v| (v.path, v.time_us)).collect();
            assert_eq!(all, [("a".into(), 9), ("b".into(), -1), ("b".into(), 2), ("b".into(), 3)]);
        });
    }

    #[test]
    fn numbers_that_json_has_not_are_kept() {
        on_both("numbers", |mut store| {
            let ids = store.ensure_paths(1, &["a"]).unwrap();
            store.upsert(&[(ids[0], 1, f64::NAN), (ids[0], 2, f64::INFINITY), (ids[0], 3, 5e-324)]).unwrap();
            let read = store.read(ids[0], 0, 9).unwrap();
            assert!(read[0].1.is_nan());
            assert_eq!(&read[1..], [(2, f64::INFINITY), (3, 5e-324)]);
        });
    }

    #[cfg(feature = "server")]
    #[test]
    fn a_file_keeps_paths_and_values() {
        let file = TempFile::new("kept");
        let mut store = Store::file(&file.0).unwrap();
        let ids = store.ensure_paths(1, &["a"]).unwrap();
        store.upsert(&[(ids[0], 1, 2.5)]).unwrap();
        drop(store);
        let store = Store::file(&file.0).unwrap();
        assert_eq!(store.count(), 1);
        assert_eq!(store.read(store.path(1, "a").unwrap(), 0, 9).unwrap(), [(1, 2.5)]);
        let directory = std::env::temp_dir();
        let error = Store::file(&directory).err().unwrap().to_string();
        assert!(error.contains(&directory.display().to_string()), "{error}");
    }

    #[cfg(not(feature = "server"))]
    #[test]
    fn a_build_without_files_says_so() {
        let error = Store::file(Path::new("values.sqlite")).err().unwrap().to_string();
        assert!(error.contains("values.sqlite") && error.contains("feature `server`"), "{error}");
    }
}
