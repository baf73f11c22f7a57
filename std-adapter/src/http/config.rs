//! Where the backend is and within which limits it is talked to.

use core::fmt;
use core::time::Duration;
use std::path::PathBuf;

use super::error::SetupError;

/// Scheme, host and port of the backend.
///
/// Shown as `https://host:port`, which is what every error of the client begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether to speak TLS.
    pub https: bool,
    /// A host name, an IPv4 address, or an IPv6 address with or without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Endpoint {
    /// The host without the brackets of an IPv6 address.
    pub(super) fn bare_host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(&self.host)
    }

    /// The value of the `Host` field: the port only where it is not the scheme's own (RFC 9110, 7.2).
    pub(super) fn authority(&self) -> String {
        let host = self.bare_host();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let default = if self.https { 443 } else { 80 };
        if self.port == default { host } else { format!("{host}:{}", self.port) }
    }

    pub(super) fn check(&self) -> Result<(), SetupError> {
        let host = self.bare_host();
        let fault = if host.is_empty() {
            Some("it is empty")
        } else if host.len() > 253 {
            Some("it is longer than 253 bytes")
        } else if !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':')) {
            Some("it holds a character that is not allowed")
        } else {
            None
        };
        match fault {
            // The text itself may hold `user:password@`, so it isn't repeated.
            Some(why) => Err(SetupError::Host { why }),
            None if self.port == 0 => Err(SetupError::Port),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        let host = self.bare_host();
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{}", self.port)
        } else {
            write!(f, "{scheme}://{host}:{}", self.port)
        }
    }
}

/// Limits of the client. `HttpConfig::default()` suits the backend as shipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Most connections open at a time, 1 to 1024 (4). Further requests wait, first come first served.
    pub max_connections: usize,
    /// How long a request may wait for one of the connections (60 s).
    pub slot_limit: Duration,
    /// An idle connection is closed after this time (60 s).
    pub idle_limit: Duration,
    /// A POST only takes a connection whose last use is younger than this (3 s): the application server
    /// closes idle ones after 5 s, and a POST that finds its connection closed can't be repeated.
    pub post_reuse_limit: Duration,
    /// Name resolution, TCP and TLS handshake together (10 s).
    pub connect_limit: Duration,
    /// From the last byte of the request to the end of the answer's head (30 s).
    pub head_limit: Duration,
    /// Longest silence within a body, in both directions (30 s).
    pub silence_limit: Duration,
    /// Slowest body, bytes a second, in both directions (64); 0 switches the check off.
    pub min_rate: u64,
    /// The rate is measured over stretches of at least this much waiting (30 s). Time in which the reader
    /// of an answer does something else doesn't count.
    pub rate_window: Duration,
    /// PEM file with certificates of authorities that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            max_connections: 4,
            slot_limit: Duration::from_secs(60),
            idle_limit: Duration::from_secs(60),
            post_reuse_limit: Duration::from_secs(3),
            connect_limit: Duration::from_secs(10),
            head_limit: Duration::from_secs(30),
            silence_limit: Duration::from_secs(30),
            min_rate: 64,
            rate_window: Duration::from_secs(30),
            ca_file: None,
        }
    }
}

/// Longest settable time: beyond a day a limit is none, and instants stay far from overflow.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

impl HttpConfig {
    pub(super) fn check(&self) -> Result<(), SetupError> {
        if !(1..=1024).contains(&self.max_connections) {
            return Err(SetupError::Limit { name: "max_connections", range: "1 to 1024" });
        }
        for (name, value) in [
            ("slot_limit", self.slot_limit),
            ("idle_limit", self.idle_limit),
            ("connect_limit", self.connect_limit),
            ("head_limit", self.head_limit),
            ("silence_limit", self.silence_limit),
            ("rate_window", self.rate_window),
        ] {
            if value.is_zero() || value > LONGEST {
                return Err(SetupError::Limit { name, range: "over 0, at most 24 h" });
            }
        }
        if self.post_reuse_limit > LONGEST {
            return Err(SetupError::Limit { name: "post_reuse_limit", range: "at most 24 h" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(https: bool, host: &str, port: u16) -> Endpoint {
        Endpoint { https, host: host.to_owned(), port }
    }

    #[test]
    fn the_host_field_names_the_port_only_where_it_is_not_the_default() {
        assert_eq!(endpoint(false, "a.example", 80).authority(), "a.example");
        assert_eq!(endpoint(true, "a.example", 443).authority(), "a.example");
        assert_eq!(endpoint(true, "a.example", 80).authority(), "a.example:80");
        assert_eq!(endpoint(false, "::1", 8080).authority(), "[::1]:8080");
        assert_eq!(endpoint(false, "[::1]", 80).authority(), "[::1]");
    }

    #[test]
    fn a_host_with_a_password_is_refused_without_showing_it() {
        let error = endpoint(true, "user:geheim@host", 443).check().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("geheim"));
        assert!(endpoint(true, "", 443).check().is_err());
        assert!(endpoint(true, "host", 0).check().is_err());
        assert!(endpoint(true, "[::1]", 443).check().is_ok());
    }

    #[test]
    fn a_limit_out_of_range_is_refused_with_its_name() {
        assert_eq!(HttpConfig::default().check(), Ok(()));
        for (config, name) in [
            (HttpConfig { max_connections: 0, ..HttpConfig::default() }, "max_connections"),
            (HttpConfig { head_limit: Duration::ZERO, ..HttpConfig::default() }, "head_limit"),
            (HttpConfig { idle_limit: Duration::MAX, ..HttpConfig::default() }, "idle_limit"),
        ] {
            assert!(config.check().unwrap_err().to_string().contains(name));
        }
    }
}
