//! Grafolean's REST API as a bot sees it: the base URL, the token, and the targets of requests. Knows nothing of sockets.

use core::fmt;

/// The longest path prefix of a base URL, in bytes.
pub const MAX_PREFIX: usize = 64;

/// A bot's token: a UUID.
///
/// The backend takes it only as the query parameter `b`, so it is written into a request's target
/// ([`Target`]) and nowhere else; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 36]);

/// Why a text is no token. Carries nothing of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum TokenError {
    /// Nothing but blanks.
    Empty,
    /// Not the 36 characters of a UUID.
    Length {
        /// How many bytes it has without surrounding blanks.
        bytes: usize,
    },
    /// A character that a UUID does not have there.
    Character {
        /// Its place, counted from 0, without surrounding blanks.
        offset: usize,
    },
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::Empty => f.write_str("the bot's token is empty"),
            TokenError::Length { bytes } => write!(f, "the bot's token has {bytes} bytes, a UUID has 36"),
            TokenError::Character { offset } => {
                write!(f, "the bot's token is no UUID: unexpected character at offset {offset}")
            }
        }
    }
}

impl core::error::Error for TokenError {}

impl Token {
    /// The token in `text`, without surrounding blanks (a line feed would make the backend answer 500).
    ///
    /// # Errors
    /// [`TokenError`] if it is no UUID in its usual form.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let bytes = text.trim().as_bytes();
        if bytes.is_empty() {
            return Err(TokenError::Empty);
        }
        let Ok(uuid) = <[u8; 36]>::try_from(bytes) else {
            return Err(TokenError::Length { bytes: bytes.len() });
        };
        let bad = |(i, c): (usize, &u8)| {
            if matches!(i, 8 | 13 | 18 | 23) { *c != b'-' } else { !c.is_ascii_hexdigit() }
        };
        match uuid.iter().enumerate().position(bad) {
            Some(offset) => Err(TokenError::Character { offset }),
            None => Ok(Token(uuid)),
        }
    }

    fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or("")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Token {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Token(hidden)");
    }
}

/// The backend's base URL (`https://grafolean.example.com/api`), taken apart.
///
/// ```
/// use grafolean_core::api::BaseUrl;
/// let url = BaseUrl::parse("https://grafolean.example.com/api/")?;
/// assert_eq!((url.https, url.host, url.port, url.prefix), (true, "grafolean.example.com", 443, "/api"));
/// # Ok::<(), grafolean_core::api::UrlError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BaseUrl<'a> {
    /// `https` rather than `http`.
    pub https: bool,
    /// Host name or address; an IPv6 address without its brackets.
    pub host: &'a str,
    /// Port: the one given, else 80 or 443.
    pub port: u16,
    /// Path before all requests' paths, without a slash at its end.
    pub prefix: &'a str,
}

/// Why a text is no base URL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum UrlError {
    /// Neither `http://` nor `https://`.
    Scheme,
    /// It has `user:password@`. An `Authorization` header would hide the bot's token from the backend (401).
    UserInfo,
    /// No host, or a character that hosts do not have.
    Host,
    /// The port is no number within 1..=65535.
    Port,
    /// It has a query or a fragment.
    Query,
    /// A character in the path that must be escaped, or an empty segment.
    Path {
        /// Its place in the path.
        offset: usize,
    },
    /// The path is too long.
    TooLong {
        /// The most bytes that it can have.
        limit: usize,
    },
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the backend's URL ")?;
        match self {
            UrlError::Scheme => f.write_str("must begin with http:// or https://"),
            UrlError::UserInfo => f.write_str(
                "must not hold user:password@ (the backend refuses a bot's request that has an Authorization header)",
            ),
            UrlError::Host => f.write_str("has no valid host"),
            UrlError::Port => f.write_str("has a port that is not within 1..=65535"),
            UrlError::Query => f.write_str("must not have a query or a fragment"),
            UrlError::Path { offset } => write!(f, "has a bad character or empty segment at offset {offset} of its path"),
            UrlError::TooLong { limit } => write!(f, "has a path of more than {limit} bytes"),
        }
    }
}

impl core::error::Error for UrlError {}

impl<'a> BaseUrl<'a> {
    /// Takes `text` apart; blanks around it and slashes at its end are cut off.
    ///
    /// # Errors
    /// [`UrlError`] says which part is wrong.
    pub fn parse(text: &'a str) -> Result<Self, UrlError> {
        let text = text.trim();
        let (https, rest) = match strip_scheme(text, "https://") {
            Some(rest) => (true, rest),
            None => (false, strip_scheme(text, "http://").ok_or(UrlError::Scheme)?),
        };
        // By bytes: searching for patterns in text costs a kB of flash.
        let end = rest.bytes().position(|c| matches!(c, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
        if authority.bytes().any(|c| c == b'@') {
            return Err(UrlError::UserInfo);
        }
        if path.bytes().any(|c| matches!(c, b'?' | b'#')) {
            return Err(UrlError::Query);
        }
        let (host, port) = if let Some(v6) = authority.strip_prefix('[') {
            let (host, rest) = cut(v6, b']').ok_or(UrlError::Host)?;
            if host.parse::<core::net::Ipv6Addr>().is_err() {
                return Err(UrlError::Host);
            }
            (host, rest.strip_prefix(':').or(if rest.is_empty() { None } else { Some("x") }))
        } else {
            match cut(authority, b':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            }
        };
        let is_v6 = authority.starts_with('[');
        let host_char = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
        if host.is_empty() || host.len() > 253 || !(is_v6 || host.bytes().all(host_char)) {
            return Err(UrlError::Host);
        }
        let port = match port {
            None => {
                if https {
                    443
                } else {
                    80
                }
            }
            Some(p) if p.bytes().all(|c| c.is_ascii_digit()) => {
                p.parse::<u16>().ok().filter(|p| *p != 0).ok_or(UrlError::Port)?
            }
            Some(_) => return Err(UrlError::Port),
        };
        let end = path.bytes().rposition(|c| c != b'/').map_or(0, |last| last + 1);
        let prefix = path.get(..end).unwrap_or_default();
        if prefix.len() > MAX_PREFIX {
            return Err(UrlError::TooLong { limit: MAX_PREFIX });
        }
        let ok = |c: u8| c.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&c);
        if let Some(offset) = prefix
            .bytes()
            .position(|c| !ok(c))
            .or_else(|| prefix.as_bytes().windows(2).position(|two| two == b"//"))
        {
            return Err(UrlError::Path { offset });
        }
        Ok(BaseUrl { https, host, port, prefix })
    }

    /// Whether the host is this machine, judged by its name only.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let local_ip = |ip: core::net::IpAddr| ip.is_loopback();
        self.host.eq_ignore_ascii_case("localhost") || self.host.parse().is_ok_and(local_ip)
    }

    /// What to warn of, once, if the token would travel in clear to another machine.
    #[must_use]
    pub fn clear_text(&self) -> Option<ClearText<'a>> {
        (!self.https && !self.is_local()).then_some(ClearText { host: self.host })
    }

    /// The value of the `Host` header: the port is left out where it is the scheme's own.
    pub fn write_host(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        if self.host.contains(':') {
            write!(out, "[{}]", self.host)?
        } else {
            out.write_str(self.host)?
        }
        if self.port == if self.https { 443 } else { 80 } { Ok(()) } else { write!(out, ":{}", self.port) }
    }
}

/// A warning: plain http to another machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClearText<'a> {
    /// The other machine.
    pub host: &'a str,
}

impl fmt::Display for ClearText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the bot's token travels in clear to {}: use https, or a network that nobody else listens to",
            self.host
        )
    }
}

/// The text before and after the first `at`.
fn cut(text: &str, at: u8) -> Option<(&str, &str)> {
    let place = text.bytes().position(|c| c == at)?;
    Some((text.get(..place)?, text.get(place + 1..)?))
}

fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// The method of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Method {
    /// Reads.
    Get,
    /// Creates; never repeated.
    Post,
    /// Replaces; may be repeated.
    Put,
    /// Deletes; may be repeated.
    Delete,
}

impl Method {
    /// As it stands in the request line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
        }
    }

    /// Whether a request that found its connection stale may be repeated once (RFC 9110, section 9.2.2).
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        !matches!(self, Method::Post)
    }
}

/// What a request is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Resource {
    /// `status/info`: is the backend ready? Needs no token.
    Status,
    /// `profile`: who is this bot?
    Profile,
    /// `accounts`: which accounts does it see?
    Accounts,
    /// `accounts/A/entities`
    Entities(u64),
    /// `accounts/A/entities/E`
    Entity(u64, u64),
    /// `accounts/A/credentials`
    Credentials(u64),
    /// `accounts/A/sensors`
    Sensors(u64),
    /// `accounts/A/values`
    Values(u64),
}

impl fmt::Display for Resource {
    /// The path below the base URL, as the backend wants it: the slash at the end of lists included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Status => f.write_str("/status/info"),
            Resource::Profile => f.write_str("/profile/"),
            Resource::Accounts => f.write_str("/accounts/"),
            Resource::Entities(a) => write!(f, "/accounts/{a}/entities/"),
            Resource::Entity(a, e) => write!(f, "/accounts/{a}/entities/{e}"),
            Resource::Credentials(a) => write!(f, "/accounts/{a}/credentials/"),
            Resource::Sensors(a) => write!(f, "/accounts/{a}/sensors/"),
            Resource::Values(a) => write!(f, "/accounts/{a}/values/"),
        }
    }
}

/// The target of a request. It holds the token: `Debug` hides it, and only [`Target::write`] shows it.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// The base URL's path.
    pub prefix: &'a str,
    /// What is asked for.
    pub resource: Resource,
    /// Who asks.
    pub token: &'a Token,
}

impl Target<'_> {
    /// Writes the target as it goes into the request line. The result is secret.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "{}{}", self.prefix, self.resource)?;
        if self.resource == Resource::Status { Ok(()) } else { write!(out, "?b={}", self.token.as_str()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, string::String};

    const T: &str = "3bfae491-8c49-42ca-8332-0ae431d59014";

    #[test]
    fn a_token_is_trimmed_and_must_be_a_uuid() {
        assert!(Token::parse(&format!(" {T}\r\n")).is_ok());
        assert!(Token::parse(&T.to_uppercase()).is_ok());
        assert_eq!(Token::parse(" \n"), Err(TokenError::Empty));
        assert_eq!(Token::parse(&T[..35]), Err(TokenError::Length { bytes: 35 }));
        assert_eq!(Token::parse(&T.replace('-', "_")), Err(TokenError::Character { offset: 8 }));
        assert_eq!(Token::parse(&T.replace("3b", "3g")), Err(TokenError::Character { offset: 1 }));
        assert!(Token::parse(&T.replace('b', "ü")).is_err());
    }

    #[test]
    fn a_token_is_shown_only_in_the_target() {
        let token = Token::parse(T).unwrap();
        let target = Target { prefix: "/api", resource: Resource::Values(7), token: &token };
        assert_eq!(format!("{token:?} {target:?}").matches("3bfae491").count(), 0);
        let error = Token::parse(&T.replace("59014", "5901z")).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("3bfae"));
        let mut written = String::new();
        target.write(&mut written).unwrap();
        assert_eq!(written, format!("/api/accounts/7/values/?b={T}"));
    }

    #[test]
    fn the_status_page_is_asked_for_without_token_and_final_slash() {
        let mut out = String::new();
        let token = Token::parse(T).unwrap();
        Target { prefix: "/api", resource: Resource::Status, token: &token }.write(&mut out).unwrap();
        assert_eq!(out, "/api/status/info");
    }

    #[test]
    fn a_base_url_is_taken_apart() {
        let u = BaseUrl::parse(" http://127.0.0.1:8080/api/ ").unwrap();
        assert_eq!(u, BaseUrl { https: false, host: "127.0.0.1", port: 8080, prefix: "/api" });
        assert!(u.is_local() && u.clear_text().is_none());
        let u = BaseUrl::parse("HTTPS://[2001:db8::1]/x/api").unwrap();
        assert_eq!(u, BaseUrl { https: true, host: "2001:db8::1", port: 443, prefix: "/x/api" });
        assert_eq!(BaseUrl::parse("http://grafolean").unwrap().prefix, "");
        assert_eq!(
            BaseUrl::parse("http://grafolean/api").unwrap().clear_text(),
            Some(ClearText { host: "grafolean" })
        );
        let mut host = String::new();
        BaseUrl::parse("http://[::1]:81/api").unwrap().write_host(&mut host).unwrap();
        assert_eq!(host, "[::1]:81");
    }

    #[test]
    fn a_bad_base_url_is_refused_and_the_error_says_which_part() {
        let cases = [
            ("grafolean.example.com/api", UrlError::Scheme),
            ("ftp://grafolean/api", UrlError::Scheme),
            ("", UrlError::Scheme),
            ("http://bot:secret@grafolean/api", UrlError::UserInfo),
            ("http:///api", UrlError::Host),
            ("http://a b/api", UrlError::Host),
            ("http://[::1/api", UrlError::Host),
            ("http://host:0/api", UrlError::Port),
            ("http://host:65536/api", UrlError::Port),
            ("http://host:+80/api", UrlError::Port),
            ("http://[::1]80/api", UrlError::Port),
            ("http://host:/api", UrlError::Port),
            ("http://host/api?b=1", UrlError::Query),
            ("http://host?x", UrlError::Query),
            ("http://host/a pi", UrlError::Path { offset: 2 }),
            ("http://host/a//pi", UrlError::Path { offset: 2 }),
            ("http://host/a\r\nX: y", UrlError::Path { offset: 2 }),
        ];
        for (text, error) in cases {
            assert_eq!(BaseUrl::parse(text), Err(error), "{text:?}");
        }
        let long = format!("http://host/{}", "a".repeat(64));
        assert_eq!(BaseUrl::parse(&long), Err(UrlError::TooLong { limit: 64 }));
        assert!(!format!("{}", BaseUrl::parse("http://u:hunter2@h/").unwrap_err()).contains("hunter2"));
    }
}
