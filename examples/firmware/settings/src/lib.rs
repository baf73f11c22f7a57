//! The settings of a firmware: one file, `settings.toml`, checked when the firmware is built.
//!
//! A firmware's `build.rs` calls `build::generate` (feature `build`), which reads the file and the environment and
//! writes a constant; the firmware includes it:
//!
//! ```ignore
//! const SETTINGS: Settings<'static> = include!(concat!(env!("OUT_DIR"), "/settings.rs"));
//! ```
//!
//! # Settings
//! | key | what | default |
//! | --- | --- | --- |
//! | `BACKEND_URL` | the backend's address, as `http://192.0.2.10:8080/api`; `https` where the firmware has a feature `tls` | none, required |
//! | `BACKEND_CA` | with `https`: a file with the certificates of the authorities that are trusted, PEM or DER, relative to the firmware's folder. It is read when the firmware is built | none; `https` needs this or `BACKEND_KEY` |
//! | `BACKEND_KEY` | with `https`, instead of `BACKEND_CA`: the public key that the backend has, whoever signed its certificate, as the SHA-256 of its SubjectPublicKeyInfo in 64 hexadecimal digits; several are separated by spaces or commas. It is taken when the firmware is built | none |
//! | `PING_BOT_TOKEN` | the token of the ping bot | the board does not ping |
//! | `SNMP_BOT_TOKEN` | the token of the SNMP bot, for firmware that has a feature `snmp` | the board asks no agents |
//! | `SENSOR_BOT_TOKEN` | the token of the custom bot that posts the sensor's values | the board posts none |
//! | `SENSOR_PATH` | where its values go | `board.temperature` |
//! | `SENSOR_INTERVAL` | seconds from one value to the next, 1 to 86400 | 60 |
//! | `ACCOUNT_ID` | the account, where a token can see more than one | the only one |
//! | `PING_GRID_ONLY` | 1: a new device is pinged at its intervals only, without an extra first time soon after it was made; 0 | 0 |
//! | `JOBS_REFRESH_INTERVAL` | seconds from one look at the configuration to the next, 1 to 86400 | 120 |
//! | `WIFI_SSID` | the Wi-Fi network, for boards that have one | none |
//! | `WIFI_PASSWORD` | its password, 8 to 63 bytes | empty: an open network |
//!
//! The names are those of the programs for Linux where these have the same setting.
//!
//! # Errors
//! [`SettingError`] names the setting and what it must be. It never shows a value: it may be a secret.
#![cfg_attr(not(feature = "build"), no_std)]
#![forbid(unsafe_code)]

#[cfg(feature = "build")]
pub mod build;

use core::fmt;

use grafolean_core::api::{BaseUrl, Token, TokenError, UrlError};
use grafolean_core::values::{MAX_PATH_BYTES, ValuePath};

/// The longest interval, in seconds: a day.
pub const MAX_INTERVAL_S: u32 = 86_400;
/// The longest name of a Wi-Fi network, in bytes (IEEE 802.11).
pub const MAX_SSID_BYTES: usize = 32;
/// The shortest password of a Wi-Fi network, in bytes (WPA2).
pub const MIN_WIFI_PASSWORD_BYTES: usize = 8;
/// The longest password of a Wi-Fi network, in bytes (WPA2).
pub const MAX_WIFI_PASSWORD_BYTES: usize = 63;

/// The setting that is a file.
pub const BACKEND_CA: &str = "BACKEND_CA";
/// The setting that is a list of public keys.
pub const BACKEND_KEY: &str = "BACKEND_KEY";

/// What a firmware needs to know: see [the crate](self).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Settings<'a> {
    /// `BACKEND_URL`
    pub backend_url: &'a str,
    /// The certificates in the file `BACKEND_CA`, in DER; empty without TLS.
    pub backend_ca: &'a [&'a [u8]],
    /// `BACKEND_KEY`: the SHA-256 of each SubjectPublicKeyInfo in DER; empty without TLS, or if there are authorities.
    pub backend_keys: &'a [[u8; 32]],
    /// `PING_BOT_TOKEN`
    pub ping_bot_token: Option<&'a str>,
    /// `PING_GRID_ONLY`
    pub ping_grid_only: bool,
    /// `SNMP_BOT_TOKEN`
    pub snmp_bot_token: Option<&'a str>,
    /// `SENSOR_BOT_TOKEN`
    pub sensor_bot_token: Option<&'a str>,
    /// `SENSOR_PATH`
    pub sensor_path: &'a str,
    /// `SENSOR_INTERVAL`, in seconds
    pub sensor_interval_s: u32,
    /// `ACCOUNT_ID`
    pub account: Option<u64>,
    /// `JOBS_REFRESH_INTERVAL`, in seconds
    pub refresh_interval_s: u32,
    /// `WIFI_SSID`
    pub wifi_ssid: &'a str,
    /// `WIFI_PASSWORD`
    pub wifi_password: &'a str,
}

/// Why a setting can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SettingError {
    /// There is no such setting.
    Unknown,
    /// It is taken when the firmware is built.
    BuildOnly,
    /// `BACKEND_KEY`
    Key,
    /// `BACKEND_URL`
    Url(UrlError),
    /// A token.
    Token(TokenError),
    /// `SENSOR_PATH`
    Path,
    /// Not a whole number of seconds from 1 to [`MAX_INTERVAL_S`].
    Interval,
    /// Not a whole number.
    Number,
    /// Neither 0 nor 1.
    Flag,
    /// Shorter than it may be.
    TooShort {
        /// The limit in bytes.
        limit: usize,
    },
    /// Longer than it may be.
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingError::Unknown => f.write_str("there is no such setting"),
            SettingError::BuildOnly => {
                f.write_str("is taken when the firmware is built, it can't be given at start")
            }
            SettingError::Key => f.write_str(
                "must be the SHA-256 of the backend's public key, in 64 hexadecimal digits; several are separated by spaces or commas",
            ),
            SettingError::Url(error) => write!(f, "{error}"),
            SettingError::Token(error) => write!(f, "{error}"),
            SettingError::Path => write!(
                f,
                "must be of segments of A-Z, a-z, 0-9, _ and -, joined by dots, at most {MAX_PATH_BYTES} bytes"
            ),
            SettingError::Interval => {
                write!(f, "must be a whole number of seconds from 1 to {MAX_INTERVAL_S}")
            }
            SettingError::Number => f.write_str("must be a whole number"),
            SettingError::Flag => f.write_str("must be 0 or 1"),
            SettingError::TooShort { limit } => write!(f, "must have at least {limit} bytes"),
            SettingError::TooLong { limit } => write!(f, "must have at most {limit} bytes"),
        }
    }
}

impl core::error::Error for SettingError {}

impl<'a> Settings<'a> {
    /// All settings that [`Settings::set`] takes: those that can be given at start too.
    pub const KEYS: [&'static str; 11] = [
        "BACKEND_URL",
        "PING_BOT_TOKEN",
        "PING_GRID_ONLY",
        "SNMP_BOT_TOKEN",
        "SENSOR_BOT_TOKEN",
        "SENSOR_PATH",
        "SENSOR_INTERVAL",
        "ACCOUNT_ID",
        "JOBS_REFRESH_INTERVAL",
        "WIFI_SSID",
        "WIFI_PASSWORD",
    ];

    /// The defaults. `BACKEND_URL` is empty.
    pub const DEFAULT: Settings<'static> = Settings {
        backend_url: "",
        backend_ca: &[],
        backend_keys: &[],
        ping_bot_token: None,
        ping_grid_only: false,
        snmp_bot_token: None,
        sensor_bot_token: None,
        sensor_path: "board.temperature",
        sensor_interval_s: 60,
        account: None,
        refresh_interval_s: 120,
        wifi_ssid: "",
        wifi_password: "",
    };

    /// Gives a setting its value. An empty one is as if it were not given.
    ///
    /// # Errors
    /// [`SettingError`]; the setting stays as it was.
    pub fn set(&mut self, key: &str, value: &'a str) -> Result<(), SettingError> {
        let default = Settings::DEFAULT;
        let empty = value.is_empty();
        match key {
            "BACKEND_URL" => {
                BaseUrl::parse(value).map_err(SettingError::Url)?;
                self.backend_url = value;
            }
            "PING_BOT_TOKEN" => self.ping_bot_token = token(value)?,
            "PING_GRID_ONLY" => self.ping_grid_only = flag(value, default.ping_grid_only)?,
            "SNMP_BOT_TOKEN" => self.snmp_bot_token = token(value)?,
            "SENSOR_BOT_TOKEN" => self.sensor_bot_token = token(value)?,
            "SENSOR_PATH" if empty => self.sensor_path = default.sensor_path,
            "SENSOR_PATH" => {
                ValuePath::new(value, MAX_PATH_BYTES).map_err(|_| SettingError::Path)?;
                self.sensor_path = value;
            }
            "SENSOR_INTERVAL" => self.sensor_interval_s = interval(value, default.sensor_interval_s)?,
            "ACCOUNT_ID" if empty => self.account = None,
            "ACCOUNT_ID" => self.account = Some(value.parse().map_err(|_| SettingError::Number)?),
            "JOBS_REFRESH_INTERVAL" => self.refresh_interval_s = interval(value, default.refresh_interval_s)?,
            "WIFI_SSID" => self.wifi_ssid = bounded(value, MAX_SSID_BYTES)?,
            "WIFI_PASSWORD" if (1..MIN_WIFI_PASSWORD_BYTES).contains(&value.len()) => {
                return Err(SettingError::TooShort { limit: MIN_WIFI_PASSWORD_BYTES });
            }
            "WIFI_PASSWORD" => self.wifi_password = bounded(value, MAX_WIFI_PASSWORD_BYTES)?,
            BACKEND_CA | BACKEND_KEY => return Err(SettingError::BuildOnly),
            _ => return Err(SettingError::Unknown),
        }
        Ok(())
    }
}

fn token(value: &str) -> Result<Option<&str>, SettingError> {
    if value.is_empty() {
        return Ok(None);
    }
    Token::parse(value).map_err(SettingError::Token)?;
    Ok(Some(value))
}

fn flag(value: &str, default: bool) -> Result<bool, SettingError> {
    match value {
        "" => Ok(default),
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(SettingError::Flag),
    }
}

fn interval(value: &str, default: u32) -> Result<u32, SettingError> {
    if value.is_empty() {
        return Ok(default);
    }
    let seconds = value.parse().ok().filter(|s| (1..=MAX_INTERVAL_S).contains(s));
    seconds.ok_or(SettingError::Interval)
}

fn bounded(value: &str, limit: usize) -> Result<&str, SettingError> {
    if value.len() > limit { Err(SettingError::TooLong { limit }) } else { Ok(value) }
}

impl fmt::Debug for Settings<'_> {
    /// Without tokens and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("backend_url", &self.backend_url)
            .field("backend_ca", &self.backend_ca.len())
            .field("backend_keys", &self.backend_keys.len())
            .field("ping_bot", &self.ping_bot_token.is_some())
            .field("ping_grid_only", &self.ping_grid_only)
            .field("snmp_bot", &self.snmp_bot_token.is_some())
            .field("sensor_bot", &self.sensor_bot_token.is_some())
            .field("sensor_path", &self.sensor_path)
            .field("sensor_interval_s", &self.sensor_interval_s)
            .field("account", &self.account)
            .field("refresh_interval_s", &self.refresh_interval_s)
            .field("wifi_ssid", &self.wifi_ssid)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::format;
    use std::string::ToString;

    const TOKEN: &str = "3bfae491-8c49-42ca-8332-0ae431d59014";

    #[test]
    fn each_setting_is_taken_and_an_empty_one_is_the_default() {
        let given = [
            "http://192.0.2.10:8080/api",
            TOKEN,
            "1",
            TOKEN,
            TOKEN,
            "hall.temperature",
            "5",
            "7",
            "30",
            "net",
            "secret password",
        ];
        let mut settings = Settings::DEFAULT;
        for (key, value) in Settings::KEYS.into_iter().zip(given) {
            settings.set(key, value).unwrap();
        }
        let expected = Settings {
            backend_url: given[0],
            backend_ca: &[],
            backend_keys: &[],
            ping_bot_token: Some(TOKEN),
            ping_grid_only: true,
            snmp_bot_token: Some(TOKEN),
            sensor_bot_token: Some(TOKEN),
            sensor_path: "hall.temperature",
            sensor_interval_s: 5,
            account: Some(7),
            refresh_interval_s: 30,
            wifi_ssid: "net",
            wifi_password: "secret password",
        };
        assert_eq!(settings, expected);
        for key in &Settings::KEYS[1..] {
            settings.set(key, "").unwrap();
        }
        assert_eq!(settings, Settings { backend_url: given[0], ..Settings::DEFAULT });
    }

    #[test]
    fn a_bad_value_is_refused_by_what_it_must_be_and_never_shown() {
        let cases = [
            ("BACKEND_URL", "ftp://secret", "must begin with http:// or https://"),
            ("BACKEND_URL", "", "must begin with http:// or https://"),
            ("PING_BOT_TOKEN", "secret", "has 6 bytes, a UUID has 36"),
            ("SENSOR_PATH", "a..secret", "segments of"),
            ("SENSOR_INTERVAL", "0", "from 1 to 86400"),
            ("JOBS_REFRESH_INTERVAL", "86401", "from 1 to 86400"),
            ("SENSOR_INTERVAL", "1.5", "whole number"),
            ("PING_GRID_ONLY", "secret", "0 or 1"),
            ("ACCOUNT_ID", "secret", "whole number"),
            ("WIFI_SSID", "a secret that has more than 32 bytes", "at most 32 bytes"),
            ("WIFI_PASSWORD", "secret!", "at least 8 bytes"),
            ("TOKEN", TOKEN, "no such setting"),
            ("BACKEND_CA", "secret", "when the firmware is built"),
            ("BACKEND_KEY", "secret", "when the firmware is built"),
        ];
        for (key, value, why) in cases {
            let mut settings = Settings::DEFAULT;
            let text = settings.set(key, value).unwrap_err().to_string();
            assert!(text.contains(why) && !text.contains("secret"), "{key}: {text}");
            assert_eq!(settings, Settings::DEFAULT);
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let settings = Settings {
            ping_bot_token: Some(TOKEN),
            snmp_bot_token: Some(TOKEN),
            sensor_bot_token: Some(TOKEN),
            wifi_password: "hush",
            ..Settings::DEFAULT
        };
        let text = format!("{settings:?}");
        assert!(!text.contains(TOKEN) && !text.contains("hush"), "{text}");
    }
}
