//! For build scripts: reads `settings.toml` and the environment, and writes the settings as a constant.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;

use grafolean_core::api::BaseUrl;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::{BACKEND_CA, BACKEND_KEY, SettingError, Settings};

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
    /// A line of the file is not `KEY = "value"`, `KEY = 'value'` or `KEY = number`.
    Line(PathBuf, usize),
    /// A setting stands twice in the file.
    Twice(PathBuf, usize, String),
    /// A setting can't be used; where it stands.
    Setting(String, String, SettingError),
    /// The file `BACKEND_CA` can't be read.
    Ca(PathBuf, io::Error),
    /// `BACKEND_CA` is no certificate in PEM or DER.
    NoCertificate(PathBuf),
    /// `BACKEND_URL` begins with `https://`, but the firmware has no TLS.
    NeedsTls,
    /// `BACKEND_URL` begins with `http://`, but the firmware has TLS and nothing else.
    NeedsPlain,
    /// `BACKEND_URL` begins with `https://`, but nobody is trusted.
    NeedsTrust,
    /// `BACKEND_CA` and `BACKEND_KEY` are both given.
    CaAndKey,
    /// `OUT_DIR` or `CARGO_MANIFEST_DIR` is not set: this is for build scripts.
    NotABuildScript,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::File(file, error) => write!(f, "{}: {error}", file.display()),
            BuildError::Line(file, line) => {
                write!(
                    f,
                    "{}, line {line}: must be KEY = \"value\" or KEY = number; a value with \" or \\ stands in single quotes",
                    file.display()
                )
            }
            BuildError::Twice(file, line, key) => {
                write!(f, "{}, line {line}: {key} stands there twice", file.display())
            }
            BuildError::Setting(place, key, error) => write!(f, "{place}: {key}: {error}"),
            BuildError::Ca(file, error) => write!(f, "{BACKEND_CA}: {}: {error}", file.display()),
            BuildError::NoCertificate(file) => {
                write!(f, "{BACKEND_CA}: {}: holds no certificate in PEM or DER", file.display())
            }
            BuildError::NeedsTls => f.write_str(
                "BACKEND_URL begins with https://: build with --features tls, or where the board has no such feature use http://",
            ),
            BuildError::NeedsPlain => f.write_str(
                "BACKEND_URL begins with http://, but the firmware is built with its feature tls: use https://, or build without it",
            ),
            BuildError::NeedsTrust => write!(
                f,
                "BACKEND_URL begins with https://, so {BACKEND_CA} must be a file with the certificate of the authority that signed the backend's, \
                 or {BACKEND_KEY} the SHA-256 of the backend's public key"
            ),
            BuildError::CaAndKey => write!(
                f,
                "{BACKEND_CA} and {BACKEND_KEY} are both given: trust an authority or the backend's key (an empty environment variable takes one back)"
            ),
            BuildError::NotABuildScript => {
                f.write_str("OUT_DIR or CARGO_MANIFEST_DIR is missing: not a build script")
            }
        }
    }
}

impl std::error::Error for BuildError {}

/// Reads `settings.toml` beside the firmware's `Cargo.toml` (or `settings.example.toml` where it is missing), then the
/// environment, which wins, and writes `settings.rs` into `OUT_DIR`: an expression of type [`Settings`]. A firmware that can speak
/// TLS has a feature `tls` for it.
///
/// # Errors
/// [`BuildError`], to be printed by the build script, which then fails.
pub fn generate() -> Result<(), BuildError> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).ok_or(BuildError::NotABuildScript);
    let (here, out) = (folder("CARGO_MANIFEST_DIR")?, folder("OUT_DIR")?);
    let mut file = here.join(FILE);
    // One that is missing counts as changed each time, so that it is noticed when it is made.
    say(&format!("rerun-if-changed={}", file.display()));
    let is_example = !file.exists();
    if is_example {
        say(&format!("warning=no {FILE}: built with the settings of {EXAMPLE}, which reach no backend"));
        file = here.join(EXAMPLE);
        say(&format!("rerun-if-changed={}", file.display()));
    }
    let text = std::fs::read_to_string(&file).map_err(|e| BuildError::File(file.clone(), e))?;
    let given: Vec<_> = keys().filter_map(|key| Some((key, std::env::var(key).ok()?))).collect();
    for key in keys() {
        say(&format!("rerun-if-env-changed={key}"));
    }
    let Given { mut settings, ca, keys } = settings(&file, &text, &given)?;
    settings.backend_keys = &keys;
    let bytes;
    let ca = match ca.map(|ca| here.join(ca)) {
        Some(ca) => {
            say(&format!("rerun-if-changed={}", ca.display()));
            bytes = std::fs::read(&ca).map_err(|e| BuildError::Ca(ca.clone(), e))?;
            certificates(&bytes).ok_or(BuildError::NoCertificate(ca))?
        }
        None => Vec::new(),
    };
    let ca: Vec<&[u8]> = ca.iter().map(|der| &**der).collect();
    settings.backend_ca = &ca;
    check_trust(&settings)?;
    // The example's address is nobody's: it is given at start.
    if !is_example || given.iter().any(|(key, _)| *key == "BACKEND_URL") {
        check_scheme(&settings, std::env::var_os("CARGO_FEATURE_TLS").is_some())?;
    }
    let source = source(&settings);
    let to = out.join("settings.rs");
    std::fs::write(&to, source).map_err(|e| BuildError::File(to, e))
}

fn keys() -> impl Iterator<Item = &'static str> {
    Settings::KEYS.into_iter().chain([BACKEND_CA, BACKEND_KEY])
}

/// The hashes of public keys in `text`.
fn public_keys(text: &str) -> Option<Vec<[u8; 32]>> {
    let words = text.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|word| !word.is_empty());
    words.map(sha256).collect()
}

/// 64 hexadecimal digits.
fn sha256(text: &str) -> Option<[u8; 32]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16)?).ok();
    let bytes: Vec<u8> =
        pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

/// The certificates in a file, in DER; `None`: there are none, or it is something else.
fn certificates(file: &[u8]) -> Option<Vec<CertificateDer<'_>>> {
    if is_der(file) {
        return Some([CertificateDer::from(file)].into());
    }
    let all: Vec<_> = CertificateDer::pem_slice_iter(file).collect::<Result<_, _>>().ok()?;
    (!all.is_empty() && all.iter().all(|der| is_der(der))).then_some(all)
}

/// Whether this is one SEQUENCE of DER with a length of two bytes, as each certificate is. What is in it is checked at start.
fn is_der(bytes: &[u8]) -> bool {
    match bytes {
        [0x30, 0x82, high, low, rest @ ..] => rest.len() == usize::from(u16::from_be_bytes([*high, *low])),
        _ => false,
    }
}

/// Whether not both an authority and a key are to be trusted: one would make the other's check pointless.
fn check_trust(settings: &Settings<'_>) -> Result<(), BuildError> {
    let is_both = !settings.backend_ca.is_empty() && !settings.backend_keys.is_empty();
    if is_both { Err(BuildError::CaAndKey) } else { Ok(()) }
}

/// Whether the URL is one for a firmware with or without TLS, and with TLS, whether there is somebody to trust.
fn check_scheme(settings: &Settings<'_>, has_tls: bool) -> Result<(), BuildError> {
    let is_https = BaseUrl::parse(settings.backend_url).is_ok_and(|url| url.https);
    match (is_https, has_tls) {
        (true, false) => Err(BuildError::NeedsTls),
        (false, true) => Err(BuildError::NeedsPlain),
        (true, true) if settings.backend_ca.is_empty() && settings.backend_keys.is_empty() => {
            Err(BuildError::NeedsTrust)
        }
        _ => Ok(()),
    }
}

fn say(what: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "cargo::{what}");
}

/// What was given.
struct Given<'a> {
    /// Without what is trusted.
    settings: Settings<'a>,
    /// The file of certificates.
    ca: Option<&'a str>,
    /// The hashes of public keys.
    keys: Vec<[u8; 32]>,
}

/// The settings of a file with this text and of the environment.
fn settings<'a>(
    file: &Path,
    text: &'a str,
    environment: &'a [(&'static str, String)],
) -> Result<Given<'a>, BuildError> {
    let mut settings: Settings<'a> = Settings::DEFAULT;
    let (mut ca, mut keys) = ("", Vec::new());
    let mut set = |settings: &mut Settings<'a>, key: &str, value: &'a str| match key {
        BACKEND_CA => {
            ca = value;
            Ok(())
        }
        BACKEND_KEY => {
            keys = public_keys(value).ok_or(SettingError::Key)?;
            Ok(())
        }
        _ => settings.set(key, value),
    };
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
        set(&mut settings, key, value).map_err(|e| BuildError::Setting(place, key.to_owned(), e))?;
    }
    for (key, value) in environment {
        let place = String::from("environment");
        set(&mut settings, key, value).map_err(|e| BuildError::Setting(place, (*key).to_owned(), e))?;
    }
    if settings.backend_url.is_empty() {
        let (place, key) = (file.display().to_string(), String::from("BACKEND_URL"));
        let missing = settings.set("BACKEND_URL", "").err().unwrap_or(SettingError::Unknown);
        return Err(BuildError::Setting(place, key, missing));
    }
    Ok(Given { settings, ca: (!ca.is_empty()).then_some(ca), keys })
}

/// The settings as an expression of Rust.
fn source(settings: &Settings<'_>) -> String {
    let Settings {
        backend_url,
        backend_ca,
        backend_keys,
        ping_bot_token,
        ping_grid_only,
        snmp_bot_token,
        sensor_bot_token,
        sensor_path,
        sensor_interval_s,
        account,
        refresh_interval_s,
        wifi_ssid,
        wifi_password,
    } = settings;
    let backend_ca: Vec<_> = backend_ca.iter().map(|der| format!("&{der:?}")).collect();
    let backend_ca = backend_ca.join(", ");
    format!(
        "Settings {{ backend_url: {backend_url:?}, backend_ca: &[{backend_ca}], backend_keys: &{backend_keys:?}, ping_bot_token: {ping_bot_token:?}, ping_grid_only: {ping_grid_only}, \
         snmp_bot_token: {snmp_bot_token:?}, sensor_bot_token: {sensor_bot_token:?}, sensor_path: {sensor_path:?}, \
         sensor_interval_s: {sensor_interval_s}, account: {account:?}, refresh_interval_s: {refresh_interval_s}, \
         wifi_ssid: {wifi_ssid:?}, wifi_password: {wifi_password:?} }}\n"
    )
}

/// A text in double quotes without escapes, one in single quotes as it stands, or a number; a comment may follow. As TOML has it.
fn value_of(text: &str) -> Option<&str> {
    let (value, rest, is_plain) = if let Some(quoted) = text.strip_prefix('"') {
        let (value, rest) = quoted.split_once('"')?;
        (value, rest, !value.contains('\\'))
    } else if let Some(quoted) = text.strip_prefix('\'') {
        let (value, rest) = quoted.split_once('\'')?;
        (value, rest, true)
    } else {
        let (value, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        (value, rest, !value.is_empty())
    };
    let rest = rest.trim_start();
    (is_plain && (rest.is_empty() || rest.starts_with('#'))).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(text: &str, environment: &[(&'static str, &str)]) -> Result<String, String> {
        let environment: Vec<_> = environment.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        let settings = settings(Path::new("settings.toml"), text, &environment).map_err(|e| e.to_string());
        settings.map(|given| source(&Settings { backend_keys: &given.keys, ..given.settings }))
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
    fn a_value_in_single_quotes_is_taken_as_it_stands() {
        let source = built(&format!("{URL}WIFI_PASSWORD = 'a \"b\" \\ c' # of the hall\n"), &[]).unwrap();
        assert!(source.contains(r#"wifi_password: "a \"b\" \\ c""#), "{source}");
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

    /// A SEQUENCE of 256 bytes.
    fn der(filling: u8) -> Vec<u8> {
        [&[0x30, 0x82, 1, 0][..], &[filling; 256]].concat()
    }

    #[test]
    fn a_file_of_certificates_is_pem_with_one_or_more_or_der_and_nothing_else() {
        // 260 bytes of zeros but for the head.
        let pem = format!(
            "a comment\n-----BEGIN CERTIFICATE-----\nMIIBAAAA{}AAA=\n-----END CERTIFICATE-----\n",
            "A".repeat(336)
        );
        let got =
            |bytes: &[u8]| certificates(bytes).map(|all| all.iter().map(|c| c.to_vec()).collect::<Vec<_>>());
        assert_eq!(got(&der(7)), Some([der(7)].into()));
        assert_eq!(got(pem.as_bytes()), Some([der(0)].into()));
        assert_eq!(got(pem.repeat(2).as_bytes()), Some([der(0), der(0)].into()));
        let key = pem.replace("CERTIFICATE", "PRIVATE KEY");
        let cut = pem.replace("MIIBAAAA", "MIIBAAAAAAAA");
        let (short, long) = (&der(7)[..259], [der(7), der(7)].concat());
        for bad in [&b""[..], b"text", key.as_bytes(), cut.as_bytes(), short, &long] {
            assert_eq!(got(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_file_of_certificates_is_named_in_the_file_or_environment_and_its_certificates_are_written() {
        let text = format!("{URL}BACKEND_CA = \"ca.pem\"\n");
        let environment = [("BACKEND_CA", "other.pem".to_owned())];
        let ca = |environment: &[_]| {
            settings(Path::new("settings.toml"), &text, environment).unwrap().ca.map(str::to_owned)
        };
        assert_eq!(ca(&[]).unwrap(), "ca.pem");
        assert_eq!(ca(&environment).unwrap(), "other.pem");
        let source = source(&Settings { backend_ca: &[&[1, 2], &[3]], ..Settings::DEFAULT });
        assert!(source.contains("backend_ca: &[&[1, 2], &[3]]"), "{source}");
    }

    #[test]
    fn trusted_keys_are_hexadecimal_hashes_in_the_file_or_the_environment() {
        let (one, two) = (format!("{:064x}", 0xab), format!("{}FF", "0".repeat(62)));
        let line = format!("{URL}BACKEND_KEY = \"{one} {two}\"\n");
        let keys = |text: &str, environment: &[(&'static str, String)]| {
            settings(Path::new("settings.toml"), text, environment).unwrap().keys
        };
        let hash = |last| {
            let mut hash = [0; 32];
            hash[31] = last;
            hash
        };
        assert_eq!(keys(&line, &[]), [hash(0xab), hash(0xff)]);
        assert_eq!(keys(&line, &[("BACKEND_KEY", format!(" {two},{one}, "))]), [hash(0xff), hash(0xab)]);
        assert_eq!(keys(&line, &[("BACKEND_KEY", String::new())]), [[0; 32]; 0]);
        assert_eq!(keys(URL, &[]), [[0; 32]; 0]);
        let source = built(&line, &[]).unwrap();
        assert!(source.contains(", 171], [0, ") && source.contains(", 255]], ping"), "{source}");
        for bad in [&one[1..], &format!("{one}0"), &format!("{one}{two}"), &one.replace('b', "g"), "sha256"] {
            let error = built(&format!("{URL}BACKEND_KEY = \"{one} {bad}\""), &[]).unwrap_err();
            assert!(error.contains("line 2: BACKEND_KEY: must be the SHA-256"), "{error}");
        }
    }

    #[test]
    fn https_without_tls_or_anybody_to_trust_and_http_with_tls_are_errors_of_the_build() {
        let check = |backend_url, backend_ca, backend_keys, has_tls| {
            let settings = Settings { backend_url, backend_ca, backend_keys, ..Settings::DEFAULT };
            check_trust(&settings)?;
            check_scheme(&settings, has_tls)
        };
        let (http, https) = ("http://192.0.2.1/api", "https://192.0.2.1/api");
        let (ca, key): (&[&[u8]], _) = (&[&[1]], &[[7; 32]][..]);
        assert!(check(http, &[], &[], false).is_ok());
        assert!(check(https, ca, &[], true).is_ok());
        assert!(check(https, &[], key, true).is_ok());
        for (url, ca, key, has_tls, why) in [
            (https, ca, &[][..], false, "build with --features tls"),
            (http, ca, &[], true, "http://, but the firmware is built with its feature tls"),
            (https, &[], &[], true, "BACKEND_CA must be a file"),
            (https, &[], &[], true, "or BACKEND_KEY the SHA-256"),
            (https, ca, key, true, "BACKEND_CA and BACKEND_KEY are both given"),
            (http, ca, key, false, "BACKEND_CA and BACKEND_KEY are both given"),
        ] {
            let error = check(url, ca, key, has_tls).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
