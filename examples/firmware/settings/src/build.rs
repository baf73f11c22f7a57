//! For build scripts: reads `settings.toml` and the environment, and writes the settings as a constant.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::string::String;

use crate::{SettingError, Settings};

/// The file that a user makes; it is not committed.
pub const FILE: &str = "settings.toml";
/// The file that shows how, used where there is no other, so that everything can be built.
pub const EXAMPLE: &str = "settings.example.toml";

/// Why there are no settings.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// A file can't be read or written.
    File(PathBuf, io::Error),
    /// A line of the file is not `KEY = "value"` or `KEY = number`.
    Line(PathBuf, usize),
    /// A setting stands twice in the file.
    Twice(PathBuf, usize, String),
    /// A setting can't be used; where it stands.
    Setting(String, String, SettingError),
    /// `OUT_DIR` or `CARGO_MANIFEST_DIR` is not set: this is for build scripts.
    NotABuildScript,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::File(file, error) => write!(f, "{}: {error}", file.display()),
            BuildError::Line(file, line) => {
                write!(f, "{}, line {line}: must be KEY = \"value\" or KEY = number", file.display())
            }
            BuildError::Twice(file, line, key) => {
                write!(f, "{}, line {line}: {key} stands there twice", file.display())
            }
            BuildError::Setting(place, key, error) => write!(f, "{place}: {key}: {error}"),
            BuildError::NotABuildScript => {
                f.write_str("OUT_DIR or CARGO_MANIFEST_DIR is missing: not a build script")
            }
        }
    }
}

impl std::error::Error for BuildError {}

/// Reads `settings.toml` beside the firmware's `Cargo.toml` (or `settings.example.toml` where it is missing), then the
/// environment, which wins, and writes `settings.rs` into `OUT_DIR`: an expression of type [`Settings`].
///
/// # Errors
/// [`BuildError`], to be printed by the build script, which then fails.
pub fn generate() -> Result<(), BuildError> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).ok_or(BuildError::NotABuildScript);
    let (here, out) = (folder("CARGO_MANIFEST_DIR")?, folder("OUT_DIR")?);
    // Cargo would not look at a file that does not exist: the folder's own change shows that it was made.
    say(&format!("rerun-if-changed={}", here.display()));
    let mut file = here.join(FILE);
    if !file.exists() {
        say(&format!("warning=no {FILE}: built with the settings of {EXAMPLE}, which reach no backend"));
        file = here.join(EXAMPLE);
    }
    let text = std::fs::read_to_string(&file).map_err(|e| BuildError::File(file.clone(), e))?;
    let given: Vec<_> =
        Settings::KEYS.iter().filter_map(|key| Some((*key, std::env::var(key).ok()?))).collect();
    for key in Settings::KEYS {
        say(&format!("rerun-if-env-changed={key}"));
    }
    let source = source(&file, &text, &given)?;
    let to = out.join("settings.rs");
    std::fs::write(&to, source).map_err(|e| BuildError::File(to, e))
}

fn say(what: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "cargo::{what}");
}

/// The settings of a file with this text and of the environment, as an expression of Rust.
fn source(file: &Path, text: &str, environment: &[(&'static str, String)]) -> Result<String, BuildError> {
    let mut settings = Settings::DEFAULT;
    let mut seen: Vec<&str> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let bad = || BuildError::Line(file.to_owned(), n + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(bad)?;
        let (key, value) = (key.trim(), value_of(value.trim()).ok_or_else(bad)?);
        if seen.contains(&key) {
            return Err(BuildError::Twice(file.to_owned(), n + 1, key.to_owned()));
        }
        seen.push(key);
        let place = format!("{}, line {}", file.display(), n + 1);
        settings.set(key, value).map_err(|e| BuildError::Setting(place, key.to_owned(), e))?;
    }
    for (key, value) in environment {
        let place = String::from("environment");
        settings.set(key, value).map_err(|e| BuildError::Setting(place, (*key).to_owned(), e))?;
    }
    if settings.backend_url.is_empty() {
        let (place, key) = (file.display().to_string(), String::from("BACKEND_URL"));
        let missing = settings.set("BACKEND_URL", "").err().unwrap_or(SettingError::Unknown);
        return Err(BuildError::Setting(place, key, missing));
    }
    let Settings {
        backend_url,
        ping_bot_token,
        sensor_bot_token,
        sensor_path,
        sensor_interval_s,
        account,
        refresh_interval_s,
        wifi_ssid,
        wifi_password,
    } = settings;
    Ok(format!(
        "Settings {{ backend_url: {backend_url:?}, ping_bot_token: {ping_bot_token:?}, \
         sensor_bot_token: {sensor_bot_token:?}, sensor_path: {sensor_path:?}, \
         sensor_interval_s: {sensor_interval_s}, account: {account:?}, refresh_interval_s: {refresh_interval_s}, \
         wifi_ssid: {wifi_ssid:?}, wifi_password: {wifi_password:?} }}\n"
    ))
}

/// A text in quotes without escapes, or a number; a comment may follow.
fn value_of(text: &str) -> Option<&str> {
    let (value, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())),
    };
    let rest = rest.trim_start();
    let is_plain = !value.contains('\\') && (text.starts_with('"') || !value.is_empty());
    (is_plain && (rest.is_empty() || rest.starts_with('#'))).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(text: &str, environment: &[(&'static str, &str)]) -> Result<String, String> {
        let environment: Vec<_> = environment.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        source(Path::new("settings.toml"), text, &environment).map_err(|e| e.to_string())
    }

    const URL: &str = "BACKEND_URL = \"http://192.0.2.1/api\"\n";

    #[test]
    fn the_environment_wins_over_the_file() {
        let text = format!("# a board\n\n{URL}SENSOR_INTERVAL = 5 # seconds\nWIFI_SSID = \"a # b\"\n");
        let source = built(&text, &[("SENSOR_INTERVAL", "7")]).unwrap();
        for part in ["\"http://192.0.2.1/api\"", "sensor_interval_s: 7", "\"a # b\"", "ping_bot_token: None"]
        {
            assert!(source.contains(part), "{part}: {source}");
        }
    }

    #[test]
    fn mistakes_are_named_by_line_and_setting_without_their_value() {
        let cases = [
            (format!("{URL}what"), "settings.toml, line 2: must be KEY"),
            (format!("{URL}SENSOR_PATH = a.b"), "settings.toml, line 2: must be KEY"),
            (format!("{URL}WIFI_PASSWORD = \"secret"), "settings.toml, line 2: must be KEY"),
            (format!("{URL}WIFI_PASSWORD = \"secret\\\\\""), "settings.toml, line 2: must be KEY"),
            (
                format!("{URL}PING_BOT_TOKEN = \"secret\""),
                "line 2: PING_BOT_TOKEN: the bot's token has 6 bytes",
            ),
            (format!("{URL}{URL}"), "line 2: BACKEND_URL stands there twice"),
            (String::new(), "settings.toml: BACKEND_URL: the backend's URL must begin with"),
        ];
        for (text, why) in cases {
            let error = built(&text, &[]).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
        let error = built(URL, &[("ACCOUNT_ID", "secret")]).unwrap_err();
        assert_eq!(error, "environment: ACCOUNT_ID: must be a whole number");
    }
}
