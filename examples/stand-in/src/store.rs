//! The values and their paths in SQLite, in memory or in a file.
//!
//! A value is kept as a double at a time in microseconds: the backend keeps decimals but reads them back as doubles, so
//! reading gives the same number. NaN, which SQLite has not, is kept as NULL.
//!
//! Each call that writes is one transaction, with statements that are prepared once for it; known paths are looked up in memory.

use core::fmt;
use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

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

/// A failure of the store under the stand-in (not one that the backend would show for the same request).
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// The file cannot be opened as the stand-in's database.
    Open {
        /// Name of the file.
        file: String,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Reading or writing failed.
    Access(rusqlite::Error),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { file, source } => write!(f, "cannot open {file} as a database of values: {source}"),
            Self::Access(source) => write!(f, "the database of values failed: {source}"),
        }
    }
}

impl core::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Open { source, .. } | Self::Access(source) => Some(source),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(source: rusqlite::Error) -> Self {
        Self::Access(source)
    }
}

/// Identifies a path row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PathId(i64);

pub(crate) struct Store {
    db: Connection,
    paths: HashMap<i32, HashMap<String, PathId>>,
    count: u64,
}

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

impl Store {
    pub(crate) fn in_memory() -> Result<Self, StoreError> {
        Self::prepare(Connection::open_in_memory()?).map_err(StoreError::Access)
    }

    pub(crate) fn file(file: &Path) -> Result<Self, StoreError> {
        let open = || {
            let db = Connection::open(file)?;
            db.pragma_update(None, "journal_mode", "WAL")?;
            db.pragma_update(None, "synchronous", "NORMAL")?;
            Self::prepare(db)
        };
        open().map_err(|source| StoreError::Open { file: file.display().to_string(), source })
    }

    fn prepare(db: Connection) -> Result<Self, rusqlite::Error> {
        db.execute_batch(SCHEMA)?;
        let mut paths: HashMap<i32, HashMap<String, PathId>> = HashMap::new();
        let count;
        {
            let mut rows = db.prepare("SELECT account, path, id FROM paths")?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                paths.entry(row.get(0)?).or_default().insert(row.get(1)?, PathId(row.get(2)?));
            }
            count = db.query_row("SELECT count(*) FROM measurements", [], |row| row.get::<_, i64>(0))?;
        }
        Ok(Self { db, paths, count: u64::try_from(count).unwrap_or(0) })
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

    /// The ids of paths, which are made if there are none.
    pub(crate) fn ensure_paths(&mut self, account: i32, paths: &[&str]) -> Result<Vec<PathId>, StoreError> {
        let known = self.paths.entry(account).or_default();
        let unknown: Vec<&str> = paths.iter().copied().filter(|p| !known.contains_key(*p)).collect();
        if !unknown.is_empty() {
            let transaction = self.db.unchecked_transaction()?;
            let mut new = HashMap::with_capacity(unknown.len());
            {
                let mut insert = transaction.prepare("INSERT INTO paths (account, path) VALUES (?1, ?2)")?;
                for path in unknown {
                    if !new.contains_key(path) {
                        new.insert(path.to_owned(), PathId(insert.insert(params![account, path])?));
                    }
                }
            }
            transaction.commit()?;
            known.extend(new);
        }
        Ok(paths.iter().filter_map(|path| known.get(*path).copied()).collect())
    }

    /// Stores one page, overwriting what stands at the same path and time.
    pub(crate) fn upsert(&mut self, page: &[(PathId, i64, f64)]) -> Result<(), StoreError> {
        let transaction = self.db.unchecked_transaction()?;
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
                    none => none
                        .insert(transaction.prepare(
                            "UPDATE measurements SET value = ?3 WHERE path = ?1 AND time_us = ?2",
                        )?),
                };
                update.execute(row)?;
            }
        }
        transaction.commit()?;
        self.count += new;
        Ok(())
    }

    /// The values of a path in order of time, between two times in microseconds, both included.
    pub(crate) fn read(&self, path: PathId, from_us: i64, to_us: i64) -> Result<Vec<(i64, f64)>, StoreError> {
        let mut rows = self.db.prepare(
            "SELECT time_us, value FROM measurements WHERE path = ?1 AND time_us BETWEEN ?2 AND ?3 ORDER BY time_us",
        )?;
        let rows = rows.query_map(params![path.0, from_us, to_us], |row| {
            Ok((row.get(0)?, row.get::<_, Option<f64>>(1)?.unwrap_or(f64::NAN)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The newest value of a path.
    pub(crate) fn newest(&self, path: PathId) -> Result<Option<(i64, f64)>, StoreError> {
        let mut row = self.db.prepare(
            "SELECT time_us, value FROM measurements WHERE path = ?1 ORDER BY time_us DESC LIMIT 1",
        )?;
        Ok(row
            .query_row(params![path.0], |row| {
                Ok((row.get(0)?, row.get::<_, Option<f64>>(1)?.unwrap_or(f64::NAN)))
            })
            .optional()?)
    }

    /// All values of an account in order of path and time.
    pub(crate) fn all(&self, account: i32) -> Result<Vec<StoredValue>, StoreError> {
        let mut rows = self.db.prepare(
            "SELECT p.path, m.time_us, m.value FROM measurements m JOIN paths p ON p.id = m.path
             WHERE p.account = ?1 ORDER BY p.path, m.time_us",
        )?;
        let rows = rows.query_map(params![account], |row| {
            Ok(StoredValue {
                account,
                path: row.get(0)?,
                time_us: row.get(1)?,
                value: row.get::<_, Option<f64>>(2)?.unwrap_or(f64::NAN),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Forgets all paths and values of an account.
    pub(crate) fn forget(&mut self, account: i32) -> Result<(), StoreError> {
        let transaction = self.db.unchecked_transaction()?;
        let gone = transaction.execute(
            "DELETE FROM measurements WHERE path IN (SELECT id FROM paths WHERE account = ?1)",
            params![account],
        )?;
        transaction.execute("DELETE FROM paths WHERE account = ?1", params![account])?;
        transaction.commit()?;
        self.paths.remove(&account);
        self.count = self.count.saturating_sub(gone as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_at_the_same_path_and_time_is_overwritten_and_counted_once() {
        let mut store = Store::in_memory().unwrap();
        let ids = store.ensure_paths(1, &["a", "b", "a"]).unwrap();
        assert_eq!(ids[0], ids[2]);
        store.upsert(&[(ids[0], 5, 1.0), (ids[1], 5, 2.0)]).unwrap();
        store.upsert(&[(ids[0], 5, 3.0)]).unwrap();
        assert_eq!(store.read(ids[0], i64::MIN, i64::MAX).unwrap(), [(5, 3.0)]);
        assert_eq!(store.count(), 2);
        assert_eq!(store.newest(ids[1]).unwrap(), Some((5, 2.0)));
        store.forget(1).unwrap();
        assert_eq!(store.count(), 0);
        assert!(store.all(1).unwrap().is_empty());
    }

    #[test]
    fn numbers_that_json_has_not_are_kept() {
        let mut store = Store::in_memory().unwrap();
        let ids = store.ensure_paths(1, &["a"]).unwrap();
        store.upsert(&[(ids[0], 1, f64::NAN), (ids[0], 2, f64::INFINITY), (ids[0], 3, 5e-324)]).unwrap();
        let read = store.read(ids[0], 0, 9).unwrap();
        assert!(read[0].1.is_nan());
        assert_eq!(&read[1..], [(2, f64::INFINITY), (3, 5e-324)]);
    }

    #[test]
    fn a_file_keeps_paths_and_values() {
        let file = std::env::temp_dir().join(format!("stand-in-store-{}.sqlite", std::process::id()));
        let clean = || {
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
            }
        };
        clean();
        let mut store = Store::file(&file).unwrap();
        let ids = store.ensure_paths(1, &["a"]).unwrap();
        store.upsert(&[(ids[0], 1, 2.5)]).unwrap();
        drop(store);
        let store = Store::file(&file).unwrap();
        assert_eq!(store.count(), 1);
        assert_eq!(store.read(store.path(1, "a").unwrap(), 0, 9).unwrap(), [(1, 2.5)]);
        drop(store);
        clean();
        let directory = std::env::temp_dir();
        let error = Store::file(&directory).err().unwrap().to_string();
        assert!(error.contains(&directory.display().to_string()), "{error}");
    }
}
