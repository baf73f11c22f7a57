//! The request target: path and query of a request, with the bot's token in it, hidden from every output.

use core::fmt;

use zeroize::Zeroizing;

/// Longest request target in bytes: the web server in front of the backend refuses header lines over 8 kB.
pub const TARGET_LIMIT: usize = 8 * 1024 - 256;

/// Path and query of a request (origin form of RFC 9112, section 3.2.1), for example
/// `/api/accounts/?b=TOKEN`.
///
/// The backend takes a bot's token only as the query parameter `b`, so the target is a secret: there is no
/// `Display`, and `Debug` shows the query's names only. The memory is cleared on drop; the HTTP library's
/// own write buffer, which holds a copy while a request is under way, is not.
///
/// ```
/// use grafolean_std::http::Target;
/// let target = Target::new("/api/profile/?b=12345678-1234-1234-1234-123456789abc").unwrap();
/// assert_eq!(format!("{target:?}"), "/api/profile/?b=<token>");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Target(Zeroizing<String>);

impl Target {
    /// Checks and takes a target.
    ///
    /// # Errors
    /// It doesn't start with `/`, is longer than [`TARGET_LIMIT`], or holds something else than the visible
    /// ASCII characters that a target may have. The error tells the offset, never the text.
    pub fn new(target: impl Into<String>) -> Result<Self, TargetError> {
        let target = Zeroizing::new(target.into());
        if target.len() > TARGET_LIMIT {
            return Err(TargetError::TooLong { length: target.len(), limit: TARGET_LIMIT });
        }
        if !target.starts_with('/') {
            return Err(TargetError::NoSlash);
        }
        let allowed = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'#' | b'"' | b'<' | b'>');
        match target.bytes().position(|b| !allowed(&b)) {
            Some(offset) => Err(TargetError::Character { offset }),
            None => Ok(Self(target)),
        }
    }

    /// The whole target, token included: only for the wire.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, query) = match self.0.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.0.as_str(), None),
        };
        f.write_str(path)?;
        let Some(query) = query else { return Ok(()) };
        for (i, pair) in query.split('&').enumerate() {
            f.write_str(if i == 0 { "?" } else { "&" })?;
            match pair.split_once('=') {
                Some(("b", _)) => f.write_str("b=<token>")?,
                Some((name, _)) => write!(f, "{name}=<hidden>")?,
                None => f.write_str("<hidden>")?,
            }
        }
        Ok(())
    }
}

/// Why a text is no request target. Never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetError {
    /// It does not start with a slash.
    NoSlash,
    /// It is longer than the limit, both in bytes.
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The greatest length in bytes.
        limit: usize,
    },
    /// A character that a target can't have, at this offset in bytes.
    Character {
        /// Where, in bytes from the start.
        offset: usize,
    },
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlash => f.write_str("request target does not start with '/'"),
            Self::TooLong { length, limit } => {
                write!(f, "request target of {length} bytes is over the limit of {limit} bytes")
            }
            Self::Character { offset } => {
                write!(f, "request target has a character that is not allowed at byte {offset}")
            }
        }
    }
}

impl core::error::Error for TargetError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_path_and_no_value_of_the_query() {
        let target = Target::new("/api/x?a=secret1&b=secret2&secret3").unwrap();
        assert_eq!(format!("{target:?}"), "/api/x?a=<hidden>&b=<token>&<hidden>");
        assert_eq!(format!("{:?}", Target::new("/api").unwrap()), "/api");
    }

    #[test]
    fn what_is_no_target_is_refused_with_the_place() {
        assert_eq!(Target::new("api"), Err(TargetError::NoSlash));
        assert_eq!(Target::new("/a b"), Err(TargetError::Character { offset: 2 }));
        assert_eq!(Target::new("/a?b=1\n"), Err(TargetError::Character { offset: 6 }));
        assert_eq!(Target::new("/a#"), Err(TargetError::Character { offset: 2 }));
        let long = format!("/{}", "a".repeat(TARGET_LIMIT));
        assert_eq!(
            Target::new(long),
            Err(TargetError::TooLong { length: TARGET_LIMIT + 1, limit: TARGET_LIMIT })
        );
        assert!(Target::new(format!("/{}", "a".repeat(TARGET_LIMIT - 1))).is_ok());
    }
}
