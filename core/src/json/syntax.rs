//! What can be wrong with a text that should be JSON, the same words in every room of [`json`](super).

use core::fmt;

/// A fault in the grammar of JSON (RFC 8259) or in its UTF-8.
///
/// It never holds bytes of the text, since those may be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Syntax {
    /// The text ends before the value does.
    UnexpectedEnd,
    /// A value must stand here.
    ExpectedValue,
    /// The key of an object, a string, must stand here.
    ExpectedKey,
    /// A colon must stand here.
    ExpectedColon,
    /// A comma or the bracket that closes this array or object must stand here.
    ExpectedCommaOrEnd,
    /// Not a number of JSON: a leading zero, no digit after the point, no exponent.
    BadNumber,
    /// Not `true`, `false` or `null`.
    BadLiteral,
    /// An escape in a string that JSON does not have.
    BadEscape,
    /// A control character (below U+0020) in a string that is not escaped.
    ControlCharacter,
    /// Not UTF-8.
    BadUtf8,
    /// The text begins with a byte order mark.
    ByteOrderMark,
    /// Something follows after the value.
    TrailingBytes,
    /// More than `u32::MAX` brackets are open.
    TooManyBrackets,
}

impl fmt::Display for Syntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnexpectedEnd => "the text ends too early",
            Self::ExpectedValue => "expected a value",
            Self::ExpectedKey => "expected a key in quotes",
            Self::ExpectedColon => "expected a colon",
            Self::ExpectedCommaOrEnd => "expected a comma or a closing bracket",
            Self::BadNumber => "malformed number",
            Self::BadLiteral => "expected true, false or null",
            Self::BadEscape => "unknown escape in a string",
            Self::ControlCharacter => "bare control character in a string",
            Self::BadUtf8 => "invalid UTF-8",
            Self::ByteOrderMark => "the text begins with a byte order mark",
            Self::TrailingBytes => "something follows after the value",
            Self::TooManyBrackets => "more open brackets than can be counted",
        })
    }
}

impl core::error::Error for Syntax {}

/// Where and why a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    /// Offset into the piece that was scanned.
    pub(super) at: usize,
    pub(super) fault: Syntax,
}

/// The blanks of JSON.
pub(super) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
