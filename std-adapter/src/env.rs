//! The settings of a bot, read from the environment and a `.env` file as the Python bots do.
//!
//! | variable | meaning | default, range |
//! | --- | --- | --- |
//! | `BACKEND_URL` | base URL of the backend, ends in `/api` | required |
//! | `BOT_TOKEN` | the bot's token | this or the next is required; this wins |
//! | `BOT_TOKEN_FROM_FILE` | path of a file that holds the token | |
//! | `JOBS_REFRESH_INTERVAL` | seconds from one refresh of the jobs to the next | 120; 1 to 31536000 |
//! | `ACCOUNT_ID` | only this account is polled; a custom bot that sees several needs it | all, or the only one; 1 to 2^63 - 1 |
//! | `GRAFOLEAN_CA_FILE` | PEM file of further trusted certificate authorities | none |
//! | `GRAFOLEAN_THREADS` | threads that run jobs | one task in the caller's; 1 to 1024 |
//! | `GRAFOLEAN_MAX_RUNS` | most runs of jobs under way at once | the bot's; 1 to 1000000 |
//! | `GRAFOLEAN_OUTBOX_BYTES` | most bytes of values kept in memory while the backend is away | the adapter's; 65536 to 2^50 |
//! | `GRAFOLEAN_OUTBOX_DIR` | directory in which waiting values outlive the process, of this bot alone | memory only |
//! | `GRAFOLEAN_OUTBOX_DISK_BYTES` | most bytes of values in that directory | 268435456; 65536 to 2^50 |
//! | `GRAFOLEAN_OUTBOX_MAX_AGE` | seconds after which a value there is given up | 604800; 60 to 31536000 |
//! | `GRAFOLEAN_OUTBOX_WRITE` | `behind` (written within a second) or `first` (before anything else) | `behind` |
//! | `GRAFOLEAN_OUTBOX_FSYNC` | `never`, `always`, or seconds until what was written survives a power cut | 1; 1 to 3600 |
//! | `GRAFOLEAN_OUTBOX_THIN` | 1: when that directory is full, values are thinned before any are dropped | 0; 0 or 1 |
//! | `GRAFOLEAN_VALUES_METHOD` | `put` (values with their times) or `post` (at the server's time) | `put` |
//! | `GRAFOLEAN_MAX_JOBS` | most jobs held | the adapter's; 1 to 100000000 |
//! | `GRAFOLEAN_STOP_SECONDS` | most seconds from a stop to the end | 9, below the 10 of `docker stop`; 1 to 86400 |
//! | `RUST_LOG` | log filter in the manner of `tracing-subscriber` | the program's |
//!
//! White space around a value is dropped; an empty value counts as none. A variable of the process wins over
//! the same one in the file. The file's lines are `NAME=value`, with `export` before and `#` comments allowed;
//! values may stand in single or double quotes (with `\\`, `\'`, `\"`, `\n`, `\r`, `\t`) and then span lines.
//! `${NAME}` is not expanded. Nothing is written to the process's environment.
//!
//! ```
//! use grafolean_std::env::{DotEnv, Settings};
//! let file = DotEnv::parse("BACKEND_URL=https://grafolean.example/api\nBOT_TOKEN='0c8f3a52'\n")?;
//! let settings = Settings::from_sources(|_| None, &file)?;
//! assert_eq!(settings.jobs_refresh_interval.as_secs(), 120);
//! assert!(!format!("{settings:?}").contains("0c8f3a52"));
//! # Ok::<(), grafolean_std::env::SettingsError>(())
//! ```

use core::fmt;
use core::num::NonZeroUsize;
use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::driver::StoreConfig;

/// Longest `.env` file in bytes.
pub const DOTENV_LIMIT: usize = 256 * 1024;

/// Longest token file in bytes.
pub const TOKEN_FILE_LIMIT: usize = 4 * 1024;

/// What goes with `GRAFOLEAN_OUTBOX_DIR` only.
const OUTBOX_TUNING: [&str; 5] = [
    "GRAFOLEAN_OUTBOX_DISK_BYTES",
    "GRAFOLEAN_OUTBOX_MAX_AGE",
    "GRAFOLEAN_OUTBOX_WRITE",
    "GRAFOLEAN_OUTBOX_FSYNC",
    "GRAFOLEAN_OUTBOX_THIN",
];

/// From a stop to the end, at most, if nothing else is set: container engines kill after 10 s.
pub const DEFAULT_STOP: Duration = Duration::from_secs(9);

/// A text that is never shown and whose memory is cleared on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself: only for where it has to go.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// How values are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ValuesMethod {
    /// With their own times; may be repeated without harm.
    #[default]
    Put,
    /// At the time of the server.
    Post,
}

/// What a bot is told from outside. See the table of the [module](self).
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// `BACKEND_URL`, as it was given.
    pub backend_url: String,
    /// `BOT_TOKEN`, or the content of the file named by `BOT_TOKEN_FROM_FILE`; trimmed, not empty.
    pub token: Secret,
    /// `JOBS_REFRESH_INTERVAL`.
    pub jobs_refresh_interval: Duration,
    /// `ACCOUNT_ID`.
    pub account_id: Option<u64>,
    /// `GRAFOLEAN_CA_FILE`.
    pub ca_file: Option<PathBuf>,
    /// `GRAFOLEAN_THREADS`; none means one task in the caller's thread.
    pub threads: Option<NonZeroUsize>,
    /// `GRAFOLEAN_MAX_RUNS`.
    pub max_runs: Option<NonZeroUsize>,
    /// `GRAFOLEAN_OUTBOX_BYTES`.
    pub outbox_bytes: Option<u64>,
    /// `GRAFOLEAN_OUTBOX_DIR` and the five that go with it.
    pub store: Option<StoreConfig>,
    /// Variables that are set and have no effect: those that go with `GRAFOLEAN_OUTBOX_DIR`, without it.
    pub without_effect: Vec<&'static str>,
    /// `GRAFOLEAN_VALUES_METHOD`.
    pub values_method: ValuesMethod,
    /// `GRAFOLEAN_MAX_JOBS`.
    pub max_jobs: Option<NonZeroUsize>,
    /// `GRAFOLEAN_STOP_SECONDS`.
    pub stop: Duration,
    /// `RUST_LOG`.
    pub log_filter: Option<String>,
    file: DotEnv,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL with `user:password@` is refused later, but may be shown until then.
        let url = if self.backend_url.contains(['@', '?']) { "<hidden>" } else { self.backend_url.as_str() };
        f.debug_struct("Settings")
            .field("backend_url", &url)
            .field("token", &self.token)
            .field("jobs_refresh_interval", &self.jobs_refresh_interval)
            .field("account_id", &self.account_id)
            .field("ca_file", &self.ca_file)
            .field("threads", &self.threads)
            .field("max_runs", &self.max_runs)
            .field("outbox_bytes", &self.outbox_bytes)
            .field("store", &self.store)
            .field("without_effect", &self.without_effect)
            .field("values_method", &self.values_method)
            .field("max_jobs", &self.max_jobs)
            .field("stop", &self.stop)
            .field("log_filter", &self.log_filter)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Reads the process's environment and, if there is one, the file `.env` of the working directory.
    ///
    /// # Errors
    /// A required variable is missing, one can't be read or is out of range, or a file can't be read.
    pub fn load() -> Result<Self, SettingsError> {
        let file = DotEnv::read_if_there(Path::new(".env"))?;
        Self::from_sources(|name| std::env::var_os(name), &file)
    }

    /// Reads what `variable` knows, else what the file says. Opens the token's file if one is named.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_sources(
        variable: impl Fn(&str) -> Option<OsString>,
        file: &DotEnv,
    ) -> Result<Self, SettingsError> {
        let sources = Sources { variable, file };
        let token = match sources.text("BOT_TOKEN")? {
            Some(token) => Secret(token),
            None => match sources.path("BOT_TOKEN_FROM_FILE")? {
                Some(path) => token_from_file(&path)?,
                None => {
                    return Err(SettingsError::Missing {
                        name: "BOT_TOKEN",
                        or: Some("BOT_TOKEN_FROM_FILE"),
                    });
                }
            },
        };
        let refresh = sources.number("JOBS_REFRESH_INTERVAL", 1..=31_536_000)?;
        let values_method = match sources.plain("GRAFOLEAN_VALUES_METHOD")? {
            None => ValuesMethod::default(),
            Some(text) if text.eq_ignore_ascii_case("put") => ValuesMethod::Put,
            Some(text) if text.eq_ignore_ascii_case("post") => ValuesMethod::Post,
            Some(_) => {
                return Err(SettingsError::Choice { name: "GRAFOLEAN_VALUES_METHOD", allowed: "put, post" });
            }
        };
        Ok(Self {
            backend_url: sources
                .plain("BACKEND_URL")?
                .ok_or(SettingsError::Missing { name: "BACKEND_URL", or: None })?,
            token,
            jobs_refresh_interval: Duration::from_secs(refresh.unwrap_or(120)),
            account_id: sources.number("ACCOUNT_ID", 1..=i64::MAX as u64)?,
            ca_file: sources.path("GRAFOLEAN_CA_FILE")?,
            threads: sources.count("GRAFOLEAN_THREADS", 1024)?,
            max_runs: sources.count("GRAFOLEAN_MAX_RUNS", 1_000_000)?,
            outbox_bytes: sources.number("GRAFOLEAN_OUTBOX_BYTES", 65_536..=1 << 50)?,
            without_effect: sources.without_effect()?,
            store: sources.store()?,
            values_method,
            max_jobs: sources.count("GRAFOLEAN_MAX_JOBS", 100_000_000)?,
            stop: match sources.number("GRAFOLEAN_STOP_SECONDS", 1..=86_400)? {
                Some(seconds) => Duration::from_secs(seconds),
                None => DEFAULT_STOP,
            },
            log_filter: sources.plain("RUST_LOG")?,
            file: file.clone(),
        })
    }

    /// A variable of the bot's own, trimmed: that of the process, else that of the `.env` file; `None` if it is missing
    /// or empty.
    ///
    /// # Errors
    /// [`SettingsError::NotUtf8`].
    pub fn own(&self, name: &'static str) -> Result<Option<String>, SettingsError> {
        Sources { variable: |name: &str| std::env::var_os(name), file: &self.file }.plain(name)
    }
}

struct Sources<'a, V> {
    variable: V,
    file: &'a DotEnv,
}

impl<V: Fn(&str) -> Option<OsString>> Sources<'_, V> {
    /// The trimmed value, if there is one that isn't empty.
    fn text(&self, name: &'static str) -> Result<Option<Zeroizing<String>>, SettingsError> {
        let text = match (self.variable)(name) {
            Some(value) => Zeroizing::new(value.into_string().map_err(|_| SettingsError::NotUtf8 { name })?),
            None => match self.file.get(name) {
                Some(value) => Zeroizing::new(value.to_owned()),
                None => return Ok(None),
            },
        };
        let trimmed = text.trim();
        Ok(if trimmed.is_empty() { None } else { Some(Zeroizing::new(trimmed.to_owned())) })
    }

    fn plain(&self, name: &'static str) -> Result<Option<String>, SettingsError> {
        Ok(self.text(name)?.map(|text| text.as_str().to_owned()))
    }

    fn path(&self, name: &'static str) -> Result<Option<PathBuf>, SettingsError> {
        // Unlike texts, paths need not be UTF-8.
        match (self.variable)(name) {
            Some(value) if value.to_str().is_none() => Ok(Some(PathBuf::from(value))),
            _ => Ok(self.plain(name)?.map(PathBuf::from)),
        }
    }

    fn number(&self, name: &'static str, range: RangeInclusive<u64>) -> Result<Option<u64>, SettingsError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(SettingsError::Number { name, least: *range.start(), most: *range.end() }),
        }
    }

    fn without_effect(&self) -> Result<Vec<&'static str>, SettingsError> {
        let mut names = Vec::new();
        if self.path("GRAFOLEAN_OUTBOX_DIR")?.is_none() {
            for name in OUTBOX_TUNING {
                if self.text(name)?.is_some() {
                    names.push(name);
                }
            }
        }
        Ok(names)
    }

    fn store(&self) -> Result<Option<StoreConfig>, SettingsError> {
        use crate::outbox::{Settings, Sync, WritePolicy};
        const FSYNC: &str = "GRAFOLEAN_OUTBOX_FSYNC";
        let mut settings = Settings::DEFAULT;
        if let Some(bytes) = self.number("GRAFOLEAN_OUTBOX_DISK_BYTES", 65_536..=1 << 50)? {
            settings.max_bytes = bytes;
        }
        if let Some(seconds) = self.number("GRAFOLEAN_OUTBOX_MAX_AGE", 60..=31_536_000)? {
            settings.max_age_ms = seconds * 1000;
        }
        settings.thin = self.number("GRAFOLEAN_OUTBOX_THIN", 0..=1)? == Some(1);
        if let Some(text) = self.plain("GRAFOLEAN_OUTBOX_WRITE")? {
            settings.write = match text.to_ascii_lowercase().as_str() {
                "behind" => WritePolicy::Behind,
                "first" => WritePolicy::First,
                _ => {
                    let name = "GRAFOLEAN_OUTBOX_WRITE";
                    return Err(SettingsError::Choice { name, allowed: "behind, first" });
                }
            };
        }
        if let Some(text) = self.plain(FSYNC)? {
            settings.sync = match (text.to_ascii_lowercase().as_str(), text.parse::<u64>()) {
                ("never", _) => Sync::Never,
                ("always", _) => Sync::Always,
                (_, Ok(seconds @ 1..=3600)) => Sync::Every { ms: seconds * 1000 },
                _ => {
                    let allowed = "never, always, or seconds from 1 to 3600";
                    return Err(SettingsError::Choice { name: FSYNC, allowed });
                }
            };
        }
        Ok(self.path("GRAFOLEAN_OUTBOX_DIR")?.map(|dir| StoreConfig { dir, settings }))
    }

    fn count(&self, name: &'static str, most: u64) -> Result<Option<NonZeroUsize>, SettingsError> {
        let Some(number) = self.number(name, 1..=most)? else { return Ok(None) };
        match usize::try_from(number).ok().and_then(NonZeroUsize::new) {
            Some(count) => Ok(Some(count)),
            None => Err(SettingsError::Number { name, least: 1, most }),
        }
    }
}

/// Reads at most `limit` bytes of UTF-8 text.
fn read_text(path: &Path, limit: usize) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)?.take(limit as u64 + 1).read_to_string(&mut text)?;
    if text.len() > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is over the limit of {limit} bytes"),
        ));
    }
    Ok(text)
}

fn token_from_file(path: &Path) -> Result<Secret, SettingsError> {
    const NAME: &str = "BOT_TOKEN_FROM_FILE";
    let fault = |why: String| {
        let path = match path.to_str() {
            // A token by mistake where a path should be isn't shown.
            Some(text) if looks_like_token(text) => None,
            _ => Some(path.to_owned()),
        };
        SettingsError::TokenFile { name: NAME, path, why }
    };
    let text = read_text(path, TOKEN_FILE_LIMIT).map_err(|error| fault(error.to_string()))?;
    match text.trim() {
        "" => Err(fault("it is empty".to_owned())),
        token => Ok(Secret::new(token)),
    }
}

fn looks_like_token(text: &str) -> bool {
    text.len() >= 32 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// The variables of a `.env` file. `Debug` shows their names only.
#[derive(Clone, Default)]
pub struct DotEnv {
    variables: BTreeMap<String, Zeroizing<String>>,
}

impl fmt::Debug for DotEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl DotEnv {
    /// No variables.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads a file; one that does not exist is as good as an empty one.
    ///
    /// # Errors
    /// The file can't be read, is over [`DOTENV_LIMIT`], is no UTF-8, or a line can't be understood.
    pub fn read_if_there(path: &Path) -> Result<Self, SettingsError> {
        match read_text(path, DOTENV_LIMIT) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::empty()),
            Err(error) => Err(SettingsError::DotEnvFile { path: path.to_owned(), why: error.to_string() }),
        }
    }

    /// Reads the text of a `.env` file; of two lines with one name the later counts.
    ///
    /// # Errors
    /// A line can't be understood; its number is told, its text isn't.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut variables = BTreeMap::new();
        let mut rest = text;
        let mut line = 1;
        while !rest.is_empty() {
            let start = line;
            let fault = |why| SettingsError::DotEnvLine { line: start, why };
            let (first, behind) = rest.split_once('\n').unwrap_or((rest, ""));
            line += 1;
            let content = first.trim();
            if content.is_empty() || content.starts_with('#') {
                rest = behind;
                continue;
            }
            let content = match content.strip_prefix("export") {
                Some(named) if named.starts_with([' ', '\t']) => named.trim_start(),
                _ => content,
            };
            let (name, value) = content.split_once('=').ok_or(fault("it has no '='"))?;
            let name = name.trim_end();
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
            if name.is_empty() || !name.bytes().all(allowed) {
                return Err(fault("the name before '=' holds other than letters, digits, '_', '.', '-'"));
            }
            let value = value.trim_start();
            let parsed = match value.chars().next() {
                Some(quote @ ('\'' | '"')) => {
                    // From here on a value may go on over the line's end.
                    let offset = first.len() - first.trim_end().len();
                    let from = first.len() - offset - value.len() + 1;
                    let quoted = rest.get(from..).unwrap_or_default();
                    let (parsed, after) =
                        unquote(quoted, quote).ok_or(fault("the quoted value has no end"))?;
                    let (tail, behind_tail) = after.split_once('\n').unwrap_or((after, ""));
                    let tail = tail.trim();
                    if !(tail.is_empty() || tail.starts_with('#')) {
                        return Err(fault("something follows the quoted value"));
                    }
                    let used = quoted.len() - after.len();
                    line += quoted.bytes().take(used).filter(|b| *b == b'\n').count();
                    rest = behind_tail;
                    parsed
                }
                _ => {
                    rest = behind;
                    Zeroizing::new(without_comment(value).to_owned())
                }
            };
            variables.insert(name.to_owned(), parsed);
        }
        Ok(Self { variables })
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.as_str())
    }
}

/// Cuts a comment off an unquoted value: a `#` at its start or behind white space.
fn without_comment(value: &str) -> &str {
    let mut before = ' ';
    for (at, c) in value.char_indices() {
        if c == '#' && before.is_whitespace() {
            return value.get(..at).unwrap_or_default().trim_end();
        }
        before = c;
    }
    value
}

/// Reads up to the closing quote; gives the value and what is behind the quote.
fn unquote(text: &str, quote: char) -> Option<(Zeroizing<String>, &str)> {
    // Escapes only make it shorter, so that it never grows and leaves copies of secrets behind.
    let mut value = Zeroizing::new(String::with_capacity(text.len()));
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some((value, text.get(at + quote.len_utf8()..)?));
        }
        if c != '\\' {
            value.push(c);
            continue;
        }
        let (_, escaped) = chars.next()?;
        match (escaped, quote) {
            ('\\', _) | ('\'', _) => value.push(escaped),
            ('"', '"') => value.push('"'),
            ('n', '"') => value.push('\n'),
            ('r', '"') => value.push('\r'),
            ('t', '"') => value.push('\t'),
            _ => value.extend(['\\', escaped]),
        }
    }
    None
}

/// What is wrong with the settings. Never holds a variable's value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingsError {
    /// A required variable is missing or empty.
    Missing {
        /// Its name.
        name: &'static str,
        /// Another one that would do.
        or: Option<&'static str>,
    },
    /// A variable isn't UTF-8.
    NotUtf8 {
        /// Its name.
        name: &'static str,
    },
    /// A variable is no whole number or out of range.
    Number {
        /// Its name.
        name: &'static str,
        /// Least value.
        least: u64,
        /// Greatest value.
        most: u64,
    },
    /// A variable is none of the allowed words.
    Choice {
        /// Its name.
        name: &'static str,
        /// The words.
        allowed: &'static str,
    },
    /// A variable can't be used.
    Unfit {
        /// Its name.
        name: &'static str,
        /// Why; without its value.
        why: String,
    },
    /// The token's file can't be used.
    TokenFile {
        /// The variable that names the file.
        name: &'static str,
        /// The file; none if the variable seems to hold the token itself.
        path: Option<PathBuf>,
        /// Why.
        why: String,
    },
    /// The `.env` file can't be read.
    DotEnvFile {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A line of the `.env` file can't be understood.
    DotEnvLine {
        /// Its number, from 1.
        line: usize,
        /// Why.
        why: &'static str,
    },
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, or: None } => write!(f, "{name} is not set"),
            Self::Missing { name, or: Some(or) } => write!(f, "neither {name} nor {or} is set"),
            Self::NotUtf8 { name } => write!(f, "{name} is not UTF-8 text"),
            Self::Number { name, least, most } => {
                write!(f, "{name} is not a whole number from {least} to {most}")
            }
            Self::Choice { name, allowed } => write!(f, "{name} is not one of: {allowed}"),
            Self::Unfit { name, why } => write!(f, "{name}: {why}"),
            Self::TokenFile { name, path: Some(path), why } => {
                write!(f, "{name}: file {} can't be used: {why}", path.display())
            }
            Self::TokenFile { name, path: None, why } => {
                write!(f, "{name} must name a file, but seems to hold the token itself ({why})")
            }
            Self::DotEnvFile { path, why } => write!(f, "{} can't be read: {why}", path.display()),
            Self::DotEnvLine { line, why } => write!(f, ".env, line {line}: {why}"),
        }
    }
}

impl core::error::Error for SettingsError {}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0c8f3a52-97a1-4a7f-9d3c-5a1be0a5c111";

    fn settings(variables: &[(&str, &str)], file: &str) -> Result<Settings, SettingsError> {
        let file = DotEnv::parse(file)?;
        Settings::from_sources(
            |name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)),
            &file,
        )
    }

    fn with(name: &str, value: &str) -> Result<Settings, SettingsError> {
        settings(&[("BACKEND_URL", "http://b/api"), ("BOT_TOKEN", TOKEN), (name, value)], "")
    }

    /// A file below the system's temporary directory that goes away with this.
    struct TempFile(PathBuf);

    impl TempFile {
        fn new(name: &str, content: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("grafolean-std-env-{}-{name}", std::process::id()));
            std::fs::write(&path, content).unwrap();
            Self(path)
        }
    }

    impl Drop for TempFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn the_two_required_ones_suffice_and_the_rest_has_defaults() {
        let s = settings(&[("BACKEND_URL", " http://b/api "), ("BOT_TOKEN", TOKEN)], "").unwrap();
        assert_eq!(s.backend_url, "http://b/api");
        assert_eq!(s.token.expose(), TOKEN);
        assert_eq!(s.jobs_refresh_interval, Duration::from_secs(120));
        assert_eq!(s.values_method, ValuesMethod::Put);
        assert_eq!(s.stop, DEFAULT_STOP);
        assert_eq!((s.account_id, s.ca_file, s.threads, s.max_runs), (None, None, None, None));
        assert_eq!((s.outbox_bytes, s.max_jobs, s.log_filter), (None, None, None));
    }

    #[test]
    fn all_are_read() {
        let s = settings(
            &[
                ("BACKEND_URL", "http://b/api"),
                ("BOT_TOKEN", TOKEN),
                ("JOBS_REFRESH_INTERVAL", "60"),
                ("ACCOUNT_ID", "1234"),
                ("GRAFOLEAN_CA_FILE", "/ca.pem"),
                ("GRAFOLEAN_THREADS", "4"),
                ("GRAFOLEAN_MAX_RUNS", "5000"),
                ("GRAFOLEAN_OUTBOX_BYTES", "1000000"),
                ("GRAFOLEAN_VALUES_METHOD", "Post"),
                ("GRAFOLEAN_MAX_JOBS", "77"),
                ("GRAFOLEAN_STOP_SECONDS", "25"),
                ("RUST_LOG", "info"),
            ],
            "",
        )
        .unwrap();
        assert_eq!(s.jobs_refresh_interval, Duration::from_secs(60));
        assert_eq!(s.account_id, Some(1234));
        assert_eq!(s.ca_file.as_deref(), Some(Path::new("/ca.pem")));
        assert_eq!(s.threads.map(NonZeroUsize::get), Some(4));
        assert_eq!(s.max_runs.map(NonZeroUsize::get), Some(5000));
        assert_eq!(s.outbox_bytes, Some(1_000_000));
        assert_eq!(s.values_method, ValuesMethod::Post);
        assert_eq!(s.max_jobs.map(NonZeroUsize::get), Some(77));
        assert_eq!(s.stop, Duration::from_secs(25));
        assert_eq!(s.log_filter.as_deref(), Some("info"));
    }

    #[test]
    fn the_outbox_is_in_files_only_with_a_directory_and_its_settings_are_read() {
        use crate::outbox::{Settings as Store, Sync, WritePolicy};
        assert_eq!(with("GRAFOLEAN_OUTBOX_FSYNC", "always").unwrap().store, None);
        let all = with("GRAFOLEAN_OUTBOX_DIR", "/var/lib/bot").unwrap().store;
        assert_eq!(all, Some(StoreConfig { dir: "/var/lib/bot".into(), settings: Store::DEFAULT }));
        let file = "GRAFOLEAN_OUTBOX_DIR=/x\nGRAFOLEAN_OUTBOX_DISK_BYTES=65536\nGRAFOLEAN_OUTBOX_MAX_AGE=60\n\
                    GRAFOLEAN_OUTBOX_WRITE=First\nGRAFOLEAN_OUTBOX_FSYNC=5\nGRAFOLEAN_OUTBOX_THIN=1\n";
        let required = [("BACKEND_URL", "http://b/api"), ("BOT_TOKEN", TOKEN)];
        let store = settings(&required, file).unwrap().store.unwrap().settings;
        let (write, sync) = (WritePolicy::First, Sync::Every { ms: 5_000 });
        assert_eq!(store, Store { max_bytes: 65_536, max_age_ms: 60_000, write, sync, thin: true });
        for (name, value) in [
            ("GRAFOLEAN_OUTBOX_WRITE", "later"),
            ("GRAFOLEAN_OUTBOX_FSYNC", "0"),
            ("GRAFOLEAN_OUTBOX_FSYNC", "3601"),
            ("GRAFOLEAN_OUTBOX_FSYNC", "sometimes"),
        ] {
            let error = with(name, value).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn what_goes_with_the_outbox_directory_only_is_named_without_it() {
        for name in OUTBOX_TUNING {
            let value = if name.ends_with("WRITE") { "first" } else { "65536" };
            let value = if name.ends_with("FSYNC") || name.ends_with("THIN") { "1" } else { value };
            assert_eq!(with(name, value).unwrap().without_effect, [name]);
            assert_eq!(with(name, " ").unwrap().without_effect, [""; 0], "an empty one counts as none");
            let file = format!("{name}={value}");
            let required = [("BACKEND_URL", "http://b/api"), ("BOT_TOKEN", TOKEN)];
            assert_eq!(settings(&required, &file).unwrap().without_effect, [name]);
            let file = format!("{name}={value}\nGRAFOLEAN_OUTBOX_DIR=/x");
            assert_eq!(settings(&required, &file).unwrap().without_effect, [""; 0]);
        }
        // That of memory has its effect.
        assert_eq!(with("GRAFOLEAN_OUTBOX_BYTES", "65536").unwrap().without_effect, [""; 0]);
    }

    #[test]
    fn the_process_wins_over_the_file_and_an_empty_variable_counts_as_none() {
        let file = format!("BACKEND_URL=http://file/api\nBOT_TOKEN={TOKEN}\nACCOUNT_ID=5\n");
        let s = settings(&[("BACKEND_URL", "http://process/api"), ("ACCOUNT_ID", " ")], &file).unwrap();
        assert_eq!(s.backend_url, "http://process/api");
        assert_eq!(s.token.expose(), TOKEN);
        assert_eq!(s.account_id, None);
    }

    #[test]
    fn the_token_wins_over_its_file_and_the_files_content_is_trimmed() {
        let file = TempFile::new("token", format!("\n {TOKEN}\r\n").as_bytes());
        let path = file.0.to_str().unwrap();
        let s = settings(&[("BACKEND_URL", "x"), ("BOT_TOKEN_FROM_FILE", path)], "").unwrap();
        assert_eq!(s.token.expose(), TOKEN);
        let both = [("BACKEND_URL", "x"), ("BOT_TOKEN", "direct"), ("BOT_TOKEN_FROM_FILE", "/nowhere")];
        assert_eq!(settings(&both, "").unwrap().token.expose(), "direct");
        let in_file = settings(&[("BACKEND_URL", "x"), ("BOT_TOKEN_FROM_FILE", path)], "BOT_TOKEN=dotenv");
        assert_eq!(in_file.unwrap().token.expose(), "dotenv");
    }

    #[test]
    fn a_token_file_that_is_missing_empty_too_long_or_no_text_is_named() {
        let empty = TempFile::new("empty", b" \n");
        let long = TempFile::new("long", &[b'a'; TOKEN_FILE_LIMIT + 1]);
        let bytes = TempFile::new("bytes", &[0xff, 0xfe]);
        let missing = PathBuf::from("/nowhere/token");
        for path in [&empty.0, &long.0, &bytes.0, &missing] {
            let text = path.to_str().unwrap();
            let error = settings(&[("BACKEND_URL", "x"), ("BOT_TOKEN_FROM_FILE", text)], "").unwrap_err();
            assert!(error.to_string().contains("BOT_TOKEN_FROM_FILE"), "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
        let longest = TempFile::new("longest", &[b'a'; TOKEN_FILE_LIMIT]);
        assert!(token_from_file(&longest.0).is_ok());
    }

    #[test]
    fn a_token_given_as_a_path_is_not_shown() {
        let error = settings(&[("BACKEND_URL", "x"), ("BOT_TOKEN_FROM_FILE", TOKEN)], "").unwrap_err();
        assert!(!format!("{error} {error:?}").contains(TOKEN), "{error}");
        assert!(error.to_string().contains("BOT_TOKEN_FROM_FILE"), "{error}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |name, or| Some(SettingsError::Missing { name, or });
        assert_eq!(
            settings(&[("BACKEND_URL", "x")], "").err(),
            missing("BOT_TOKEN", Some("BOT_TOKEN_FROM_FILE"))
        );
        assert_eq!(settings(&[("BOT_TOKEN", "x")], "").err(), missing("BACKEND_URL", None));
    }

    #[test]
    fn numbers_out_of_range_are_refused_with_name_and_range_and_without_the_value() {
        for (name, value) in [
            ("JOBS_REFRESH_INTERVAL", "0"),
            ("JOBS_REFRESH_INTERVAL", "-1"),
            ("JOBS_REFRESH_INTERVAL", "1.5"),
            ("JOBS_REFRESH_INTERVAL", "31536001"),
            ("JOBS_REFRESH_INTERVAL", TOKEN),
            ("ACCOUNT_ID", "0"),
            ("ACCOUNT_ID", "9223372036854775808"),
            ("GRAFOLEAN_THREADS", "0"),
            ("GRAFOLEAN_THREADS", "1025"),
            ("GRAFOLEAN_MAX_RUNS", "1000001"),
            ("GRAFOLEAN_OUTBOX_BYTES", "65535"),
            ("GRAFOLEAN_OUTBOX_DISK_BYTES", "65535"),
            ("GRAFOLEAN_OUTBOX_MAX_AGE", "59"),
            ("GRAFOLEAN_OUTBOX_THIN", "2"),
            ("GRAFOLEAN_MAX_JOBS", "many"),
            ("GRAFOLEAN_STOP_SECONDS", "0"),
        ] {
            let error = with(name, value).unwrap_err();
            assert!(matches!(&error, SettingsError::Number { name: n, .. } if *n == name), "{name} {value}");
            assert!(error.to_string().contains(name));
            assert!(!format!("{error} {error:?}").contains(TOKEN));
        }
        for (name, value) in [
            ("JOBS_REFRESH_INTERVAL", "1"),
            ("JOBS_REFRESH_INTERVAL", " 31536000 "),
            ("ACCOUNT_ID", "9223372036854775807"),
            ("GRAFOLEAN_THREADS", "1024"),
            ("GRAFOLEAN_OUTBOX_BYTES", "65536"),
        ] {
            assert!(with(name, value).is_ok(), "{name} {value}");
        }
    }

    #[test]
    fn another_method_than_put_and_post_is_refused() {
        let error = with("GRAFOLEAN_VALUES_METHOD", "patch").unwrap_err();
        assert_eq!(error.to_string(), "GRAFOLEAN_VALUES_METHOD is not one of: put, post");
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_no_text_is_named_and_a_path_need_not_be_text() {
        use std::os::unix::ffi::OsStringExt;
        let odd = || OsString::from_vec(vec![b'/', 0xff]);
        let read = |odd_name: &'static str| {
            Settings::from_sources(
                |name| match name {
                    _ if name == odd_name => Some(odd()),
                    "BACKEND_URL" | "BOT_TOKEN" => Some(OsString::from("x")),
                    _ => None,
                },
                &DotEnv::empty(),
            )
        };
        assert_eq!(read("RUST_LOG").err(), Some(SettingsError::NotUtf8 { name: "RUST_LOG" }));
        assert_eq!(read("GRAFOLEAN_CA_FILE").unwrap().ca_file, Some(PathBuf::from(odd())));
    }

    #[test]
    fn debug_shows_neither_token_nor_a_password_in_the_url() {
        let s = settings(&[("BACKEND_URL", "http://me:geheim@b/api"), ("BOT_TOKEN", TOKEN)], "").unwrap();
        let text = format!("{s:?}");
        assert!(!text.contains(TOKEN) && !text.contains("geheim"), "{text}");
        let file = DotEnv::parse(&format!("BOT_TOKEN={TOKEN}")).unwrap();
        assert_eq!(format!("{file:?}"), "{\"BOT_TOKEN\"}");
    }

    #[test]
    fn the_files_lines_are_read_in_all_their_forms() {
        let file = DotEnv::parse(concat!(
            "\u{feff}# a comment\r\n",
            "\n",
            "PLAIN=a b  # comment\r\n",
            "HASH=a#b\n",
            "EMPTY=\n",
            "ONLY_COMMENT= # nothing\n",
            "  export  SPACED  =  x=y  \n",
            "exported=1\n",
            "SINGLE='a # b \\' \\\\ \\n' # comment\n",
            "DOUBLE = \"a\\tb\\n\\\"c\\\" \\d\"  \n",
            "MULTI=\"one\ntwo\"\n",
            "TWICE=1\n",
            "TWICE=2\n",
            "EXPAND=${PLAIN}\n",
            "LAST=end",
        ))
        .unwrap();
        for (name, value) in [
            ("PLAIN", "a b"),
            ("HASH", "a#b"),
            ("EMPTY", ""),
            ("ONLY_COMMENT", ""),
            ("SPACED", "x=y"),
            ("exported", "1"),
            ("SINGLE", "a # b ' \\ \\n"),
            ("DOUBLE", "a\tb\n\"c\" \\d"),
            ("MULTI", "one\ntwo"),
            ("TWICE", "2"),
            ("EXPAND", "${PLAIN}"),
            ("LAST", "end"),
        ] {
            assert_eq!(file.get(name), Some(value), "{name}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_understood_is_told_by_number_only() {
        for (text, line) in [
            ("A=1\nsecret\n", 2),
            ("A=\"1\n2\n3\"\nsecret", 4),
            ("\n\nA='secret", 3),
            ("A='x' secret\n", 1),
            ("A B=secret\n", 1),
            ("=secret", 1),
        ] {
            let error = DotEnv::parse(text).unwrap_err();
            assert!(matches!(error, SettingsError::DotEnvLine { line: l, .. } if l == line), "{error}");
            assert!(!format!("{error} {error:?}").contains("secret"));
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_empty_and_one_too_long_is_refused() {
        let none = DotEnv::read_if_there(Path::new("/nowhere/.env")).unwrap();
        assert_eq!(none.get("BOT_TOKEN"), None);
        let long = TempFile::new("dotenv", &[b'#'; DOTENV_LIMIT + 1]);
        let error = DotEnv::read_if_there(&long.0).unwrap_err();
        assert!(error.to_string().contains("262144"), "{error}");
        assert!(DotEnv::read_if_there(&std::env::temp_dir()).is_err());
    }
}
