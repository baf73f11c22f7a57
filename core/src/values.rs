//! What a value is before anything is sent: a checked path and a number that is formatted once.
//!
//! ```
//! use grafolean_core::values::{Decimal, Number, Segment, ValuePath, MAX_PATH_BYTES};
//!
//! let path = ValuePath::new("board.7.temperature", MAX_PATH_BYTES).unwrap();
//! assert_eq!(path.as_str(), "board.7.temperature");
//! // A sensor that reads tenths of a degree needs no float formatting.
//! let number = Decimal { mantissa: 215, exponent: -1 }.number_text().unwrap();
//! assert_eq!(number.as_str(), "21.5");
//! // Text from outside becomes one segment of a path.
//! assert_eq!(format!("disk.{}", Segment("/var/log v1.2")), "disk.-var-log-v1%2e2");
//! ```
//!
//! Cost: a check is one pass over the path; a [`NumberText`] has 26 bytes. The code that formats floats (15 kB on a
//! Cortex-M0+) is linked only where a float is handed over.
//!
//! Errors: [`PathError`] and [`NumberError`], both in [`ValueError`]; each says what, where and the limit.

use core::fmt;
use core::fmt::Write as _;

/// The longest path by default, in bytes (the limit in Grafolean's API notes for `POST /accounts/N/values`).
pub const MAX_PATH_BYTES: usize = 200;
/// The longest text of a number, in bytes.
pub const MAX_NUMBER_BYTES: usize = 25;
/// Paths that begin so belong to the backend.
const RESERVED_PREFIX: &str = "system.";

/// Why a text is not a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum PathError {
    /// No byte at all.
    Empty,
    /// Longer than the limit.
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Two dots in a row, or a dot at an end.
    EmptySegment {
        /// Where the empty segment is, in bytes from the start.
        at: usize,
    },
    /// A byte outside `A-Z a-z 0-9 _ -`, or a `%` that begins neither `%2e` nor `%3a` (lower case).
    IllegalByte {
        /// Where, in bytes from the start.
        at: usize,
        /// Which.
        byte: u8,
    },
    /// It starts with `system.`, which the backend keeps for itself.
    Reserved,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            PathError::Empty => f.write_str("path is empty"),
            PathError::TooLong { len, limit } => {
                write!(f, "path of {len} bytes is over the limit of {limit} bytes")
            }
            PathError::EmptySegment { at } => write!(f, "path has an empty segment at byte {at}"),
            PathError::IllegalByte { at, byte } => write!(
                f,
                "path has '{}' at byte {at}: segments are of A-Z a-z 0-9 _ - %2e %3a",
                core::ascii::escape_default(byte)
            ),
            PathError::Reserved => {
                write!(f, "path starts with {RESERVED_PREFIX}, which the backend keeps for itself")
            }
        }
    }
}

impl core::error::Error for PathError {}

/// Checks that `path` is made of segments `([A-Za-z0-9_-]|%2e|%3a)+` joined by single dots, does not start with
/// `system.`, and has at most `max_len` bytes.
///
/// # Errors
/// The first fault, as a [`PathError`].
pub fn check_path(path: &str, max_len: usize) -> Result<(), PathError> {
    let bytes = path.as_bytes();
    if bytes.is_empty() {
        return Err(PathError::Empty);
    }
    if bytes.len() > max_len {
        return Err(PathError::TooLong { len: bytes.len(), limit: max_len });
    }
    if path.starts_with(RESERVED_PREFIX) {
        return Err(PathError::Reserved);
    }
    let mut at = 0;
    let mut segment = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => at += 1,
            b'%' if matches!(bytes.get(at + 1..at + 3), Some(b"2e" | b"3a")) => at += 3,
            b'.' if at == segment => return Err(PathError::EmptySegment { at }),
            b'.' => {
                at += 1;
                segment = at;
            }
            byte => return Err(PathError::IllegalByte { at, byte }),
        }
    }
    if at == segment { Err(PathError::EmptySegment { at }) } else { Ok(()) }
}

/// A checked path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ValuePath<'a>(&'a str);

impl<'a> ValuePath<'a> {
    /// `path`, checked by [`check_path`].
    ///
    /// # Errors
    /// The first fault, as a [`PathError`].
    pub fn new(path: &'a str, max_len: usize) -> Result<Self, PathError> {
        check_path(path, max_len).map(|()| ValuePath(path))
    }

    /// The path.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

impl fmt::Display for ValuePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Any text, shown as one legal segment of a path: `.` as `%2e`, `:` as `%3a`, every other character that a path
/// can't have as `-`, and an empty text as `-`. Different texts can give the same segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'a>(pub &'a str);

impl fmt::Display for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_char('-');
        }
        for c in self.0.chars() {
            match c {
                '.' => f.write_str("%2e")?,
                ':' => f.write_str("%3a")?,
                c if c.is_ascii_alphanumeric() || c == '_' || c == '-' => f.write_char(c)?,
                _ => f.write_char('-')?,
            }
        }
        Ok(())
    }
}

/// Why something is not a number that the backend can take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum NumberError {
    /// NaN or an infinity: the backend would store it and then fail on every reading of the series.
    NotFinite,
    /// A text longer than [`MAX_NUMBER_BYTES`].
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A text that is not a JSON number (RFC 8259, section 6).
    NotJson {
        /// Where it stops being one, in bytes from the start.
        at: usize,
    },
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            NumberError::NotFinite => f.write_str("number is not finite"),
            NumberError::TooLong { len } => {
                write!(f, "number of {len} bytes is over the limit of {MAX_NUMBER_BYTES} bytes")
            }
            NumberError::NotJson { at } => write!(f, "text is not a JSON number at byte {at}"),
        }
    }
}

impl core::error::Error for NumberError {}

/// Why a value is refused when it is handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ValueError {
    /// Its path.
    Path(PathError),
    /// Its number.
    Number(NumberError),
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueError::Path(e) => write!(f, "value refused: {e}"),
            ValueError::Number(e) => write!(f, "value refused: {e}"),
        }
    }
}

impl core::error::Error for ValueError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            ValueError::Path(e) => Some(e),
            ValueError::Number(e) => Some(e),
        }
    }
}

impl From<PathError> for ValueError {
    fn from(e: PathError) -> Self {
        ValueError::Path(e)
    }
}

impl From<NumberError> for ValueError {
    fn from(e: NumberError) -> Self {
        ValueError::Number(e)
    }
}

/// A number as JSON text, at most [`MAX_NUMBER_BYTES`] bytes, formatted once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NumberText {
    len: u8,
    bytes: [u8; MAX_NUMBER_BYTES],
}

impl NumberText {
    const NONE: NumberText = NumberText { len: 0, bytes: [0; MAX_NUMBER_BYTES] };

    /// `text`, if it is a JSON number of at most [`MAX_NUMBER_BYTES`] bytes: for stored values, and for
    /// implementing [`Number`].
    ///
    /// # Errors
    /// [`NumberError::TooLong`], [`NumberError::NotJson`], and [`NumberError::NotFinite`] where the exponent has
    /// more than two digits or is beyond 10^280, which may lie outside of a double.
    pub fn from_json(text: &str) -> Result<Self, NumberError> {
        Self::checked(text, |text| {
            let parsed = core::str::from_utf8(text).ok().and_then(|t| t.parse::<f64>().ok());
            parsed.is_some_and(f64::is_finite)
        })
    }

    /// A number from the text that another one had, as a store kept it: without the code that parses floats, which takes 17 kB of a
    /// board's flash.
    ///
    /// # Errors
    /// [`NumberError::TooLong`], [`NumberError::NotJson`], and [`NumberError::NotFinite`] where the exponent is over 308.
    pub fn from_stored(text: &str) -> Result<Self, NumberError> {
        Self::checked(text, |_| true)
    }

    fn checked(text: &str, is_finite: impl Fn(&[u8]) -> bool) -> Result<Self, NumberError> {
        if text.len() > MAX_NUMBER_BYTES {
            return Err(NumberError::TooLong { len: text.len() });
        }
        check_json_number(text.as_bytes(), is_finite)?;
        let mut out = Self::NONE;
        out.put(text.as_bytes());
        Ok(out)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII is ever put in, so the fallback is never seen.
        core::str::from_utf8(self.as_bytes()).unwrap_or("0")
    }

    /// The text's bytes, all ASCII.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(b"0")
    }

    fn put(&mut self, part: &[u8]) {
        let from = usize::from(self.len);
        if let Some(to) = self.bytes.get_mut(from..from + part.len()) {
            to.copy_from_slice(part);
            self.len += part.len() as u8;
        } else {
            debug_assert!(false, "a number's text is at most {MAX_NUMBER_BYTES} bytes");
        }
    }

    fn put_zeros(&mut self, n: usize) {
        for _ in 0..n {
            self.put(b"0");
        }
    }

    fn put_integer(&mut self, negative: bool, magnitude: u64) {
        if negative {
            self.put(b"-");
        }
        let mut buf = [0; 20];
        self.put(decimal_digits(magnitude, &mut buf));
    }
}

impl fmt::Debug for NumberText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for NumberText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for NumberText {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{=str}", self.as_str());
    }
}

/// `n` in decimal, at the end of `buf`.
pub(crate) fn decimal_digits(mut n: u64, buf: &mut [u8; 20]) -> &[u8] {
    let mut from = buf.len();
    for slot in buf.iter_mut().rev() {
        *slot = b'0' + (n % 10) as u8;
        n /= 10;
        from -= 1;
        if n == 0 {
            break;
        }
    }
    buf.get(from..).unwrap_or_default()
}

fn check_json_number(text: &[u8], is_finite: impl Fn(&[u8]) -> bool) -> Result<(), NumberError> {
    let digits = |mut at: usize| -> Result<usize, NumberError> {
        let from = at;
        while text.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        if at == from { Err(NumberError::NotJson { at }) } else { Ok(at) }
    };
    let start = usize::from(text.first() == Some(&b'-'));
    let mut at = digits(start)?;
    if at > start + 1 && text.get(start) == Some(&b'0') {
        return Err(NumberError::NotJson { at: start + 1 });
    }
    if text.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        at += 1;
        let negative = text.get(at) == Some(&b'-');
        at += usize::from(matches!(text.get(at), Some(b'+' | b'-')));
        let from = at;
        at = digits(from)?;
        let exponent = text
            .get(from..at)
            .unwrap_or_default()
            .iter()
            .fold(0u32, |n, &c| n.saturating_mul(10).saturating_add(u32::from(c - b'0')));
        // At most 25 digits stand before the exponent: 10^308 is not passed below this.
        if !negative && exponent > 308 {
            return Err(NumberError::NotFinite);
        }
        if !negative && exponent > 280 && !is_finite(text) {
            return Err(NumberError::NotFinite);
        }
    }
    if at == text.len() { Ok(()) } else { Err(NumberError::NotJson { at }) }
}

/// A number that can be handed over: floats, integers, [`Decimal`].
///
/// Implement it for your own fixed-point type by way of [`Decimal`] or [`NumberText::from_json`].
pub trait Number {
    /// This number as JSON text.
    ///
    /// # Errors
    /// [`NumberError::NotFinite`] for NaN and infinities.
    fn number_text(&self) -> Result<NumberText, NumberError>;
}

/// `mantissa · 10^exponent`: exact, and without float formatting, for boards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Decimal {
    /// All digits, with the sign.
    pub mantissa: i64,
    /// The power of ten: -1 for tenths.
    pub exponent: i8,
}

impl Number for Decimal {
    fn number_text(&self) -> Result<NumberText, NumberError> {
        let mut out = NumberText::NONE;
        let mut buf = [0; 20];
        let digits = decimal_digits(self.mantissa.unsigned_abs(), &mut buf);
        if self.mantissa < 0 {
            out.put(b"-");
        }
        let n = digits.len();
        let places = usize::from(self.exponent.unsigned_abs());
        if self.exponent >= 0 && (self.mantissa == 0 || n + places <= 19) {
            out.put(digits);
            out.put_zeros(if self.mantissa == 0 { 0 } else { places });
        } else if self.exponent < 0 && places < n {
            let (whole, fraction) = digits.split_at(n - places);
            out.put(whole);
            out.put(b".");
            out.put(fraction);
        } else if self.exponent < 0 && places - n <= 3 {
            out.put(b"0.");
            out.put_zeros(places - n);
            out.put(digits);
        } else {
            out.put(digits);
            put_exponent(&mut out, i32::from(self.exponent));
        }
        Ok(out)
    }
}

fn put_exponent(out: &mut NumberText, exponent: i32) {
    out.put(b"e");
    out.put_integer(exponent < 0, u64::from(exponent.unsigned_abs()));
}

macro_rules! integers {
    ($($signed:ty),*; $($unsigned:ty),*) => {
        $(impl Number for $signed {
            fn number_text(&self) -> Result<NumberText, NumberError> {
                let mut out = NumberText::NONE;
                out.put_integer(*self < 0, u64::from(self.unsigned_abs()));
                Ok(out)
            }
        })*
        $(impl Number for $unsigned {
            fn number_text(&self) -> Result<NumberText, NumberError> {
                let mut out = NumberText::NONE;
                out.put_integer(false, u64::from(*self));
                Ok(out)
            }
        })*
    };
}
integers!(i8, i16, i32, i64; u8, u16, u32, u64);

impl Number for f64 {
    /// The shortest text that parses back to exactly this number.
    fn number_text(&self) -> Result<NumberText, NumberError> {
        if !self.is_finite() {
            return Err(NumberError::NotFinite);
        }
        let mut shortest = Shortest::default();
        // Never fails: at most 24 bytes are written into 32.
        let _ = write!(shortest, "{self:e}");
        Ok(shortest.lay_out())
    }
}

impl Number for f32 {
    /// The shortest text that parses back to exactly this `f32` (0.1 stays 0.1).
    fn number_text(&self) -> Result<NumberText, NumberError> {
        if !self.is_finite() {
            return Err(NumberError::NotFinite);
        }
        let mut shortest = Shortest::default();
        let _ = write!(shortest, "{self:e}");
        Ok(shortest.lay_out())
    }
}

/// What `{:e}` writes: `[-]d[.ddd]e[-]x`, the shortest digits that round-trip.
#[derive(Default)]
struct Shortest {
    negative: bool,
    /// The digits without the point.
    digits: [u8; 24],
    n: usize,
    in_exponent: bool,
    exponent_negative: bool,
    exponent: i32,
}

impl fmt::Write for Shortest {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            match byte {
                b'-' if self.in_exponent => self.exponent_negative = true,
                b'-' => self.negative = true,
                b'e' => self.in_exponent = true,
                b'0'..=b'9' if self.in_exponent => {
                    self.exponent = self.exponent * 10 + i32::from(byte - b'0')
                }
                b'0'..=b'9' => {
                    *self.digits.get_mut(self.n).ok_or(fmt::Error)? = byte;
                    self.n += 1;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Shortest {
    fn lay_out(&self) -> NumberText {
        let mut out = NumberText::NONE;
        let digits = self.digits.get(..self.n).unwrap_or_default();
        if self.negative {
            out.put(b"-");
        }
        if digits == b"0" {
            // "-0" would be read as the integer 0.
            out.put(if self.negative { b"0.0" } else { b"0" });
            return out;
        }
        let exponent = if self.exponent_negative { -self.exponent } else { self.exponent };
        match exponent {
            -5..=-1 => {
                out.put(b"0.");
                out.put_zeros((-exponent - 1) as usize);
                out.put(digits);
            }
            0..=16 => {
                let whole = exponent as usize + 1;
                match digits.split_at_checked(whole) {
                    Some((digits, b"")) => out.put(digits),
                    Some((whole, fraction)) => {
                        out.put(whole);
                        out.put(b".");
                        out.put(fraction);
                    }
                    None => {
                        out.put(digits);
                        out.put_zeros(whole - digits.len());
                    }
                }
            }
            _ => {
                if let Some((first, rest)) = digits.split_first() {
                    out.put(&[*first]);
                    if !rest.is_empty() {
                        out.put(b".");
                        out.put(rest);
                    }
                }
                put_exponent(&mut out, exponent);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;
    use std::string::{String, ToString};

    fn text(n: impl Number) -> String {
        n.number_text().unwrap().to_string()
    }

    #[test]
    fn legal_paths_pass() {
        for path in [
            "a",
            "A-b_9.c",
            "entity.12.ping.192%2e0%2e2%2e1.rtt",
            "a%3ab",
            "system",
            "systems.x",
            "a.system.b",
        ] {
            assert_eq!(check_path(path, MAX_PATH_BYTES), Ok(()), "{path}");
        }
        assert_eq!(check_path(&"x".repeat(200), 200), Ok(()));
    }

    #[test]
    fn illegal_paths_are_refused_with_the_place_and_the_limit() {
        let cases = [
            ("", PathError::Empty),
            (".a", PathError::EmptySegment { at: 0 }),
            ("a..b", PathError::EmptySegment { at: 2 }),
            ("a.", PathError::EmptySegment { at: 2 }),
            ("a b", PathError::IllegalByte { at: 1, byte: b' ' }),
            ("a%2E", PathError::IllegalByte { at: 1, byte: b'%' }),
            ("a%2", PathError::IllegalByte { at: 1, byte: b'%' }),
            ("a\n", PathError::IllegalByte { at: 1, byte: b'\n' }),
            ("é", PathError::IllegalByte { at: 0, byte: 0xc3 }),
            ("a:b", PathError::IllegalByte { at: 1, byte: b':' }),
            ("system.x", PathError::Reserved),
        ];
        for (path, error) in cases {
            assert_eq!(check_path(path, MAX_PATH_BYTES), Err(error), "{path:?}");
        }
        let long = check_path(&"x".repeat(201), 200);
        assert_eq!(long, Err(PathError::TooLong { len: 201, limit: 200 }));
        assert_eq!(long.unwrap_err().to_string(), "path of 201 bytes is over the limit of 200 bytes");
    }

    #[test]
    fn any_text_becomes_a_legal_segment() {
        assert_eq!(Segment("192.0.2.1:80").to_string(), "192%2e0%2e2%2e1%3a80");
        assert_eq!(Segment("").to_string(), "-");
        assert_eq!(Segment("a b/ü%2e").to_string(), "a-b---2e");
    }

    #[test]
    fn integers_and_decimals_are_exact() {
        assert_eq!(text(0u8), "0");
        assert_eq!(text(i64::MIN), "-9223372036854775808");
        assert_eq!(text(u64::MAX), "18446744073709551615");
        assert_eq!(text(-1i8), "-1");
        let d = |mantissa, exponent| text(Decimal { mantissa, exponent });
        assert_eq!(d(215, -1), "21.5");
        assert_eq!(d(-5, -3), "-0.005");
        assert_eq!(d(5, -9), "5e-9");
        assert_eq!(d(0, 127), "0");
        assert_eq!(d(0, -128), "0e-128");
        assert_eq!(d(12, 2), "1200");
        assert_eq!(d(i64::MIN, -128), "-9223372036854775808e-128");
        assert_eq!(d(i64::MIN, 127).len(), 24);
    }

    #[test]
    fn floats_are_as_short_as_possible() {
        assert_eq!(text(0.1f64), "0.1");
        assert_eq!(text(0.1f32), "0.1");
        assert_eq!(text(1.0f64), "1");
        assert_eq!(text(-0.0f64), "-0.0");
        assert_eq!(text(100.0f64), "100");
        assert_eq!(text(1234.5678f64), "1234.5678");
        assert_eq!(text(1e16f64), "10000000000000000");
        assert_eq!(text(1e17f64), "1e17");
        assert_eq!(text(0.00001f64), "0.00001");
        assert_eq!(text(0.000001f64), "1e-6");
        assert_eq!(text(f64::MAX), "1.7976931348623157e308");
        assert_eq!(text(-2.2250738585072014e-308f64), "-2.2250738585072014e-308");
        assert_eq!(text(5e-324f64), "5e-324");
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(x.number_text(), Err(NumberError::NotFinite));
            assert_eq!((x as f32).number_text(), Err(NumberError::NotFinite));
        }
    }

    #[test]
    fn stored_numbers_are_checked() {
        for good in ["0", "-0.0", "12", "1.5", "1e3", "-1.25E-300", "1e308", "9223372036854775808e-128"] {
            assert_eq!(NumberText::from_json(good).unwrap().as_str(), good);
            assert_eq!(NumberText::from_stored(good).unwrap().as_str(), good);
        }
        for (bad, error) in [
            ("", NumberError::NotJson { at: 0 }),
            ("-", NumberError::NotJson { at: 1 }),
            ("01", NumberError::NotJson { at: 1 }),
            ("1.", NumberError::NotJson { at: 2 }),
            (".5", NumberError::NotJson { at: 0 }),
            ("1e", NumberError::NotJson { at: 2 }),
            ("1 ", NumberError::NotJson { at: 1 }),
            ("NaN", NumberError::NotJson { at: 0 }),
            ("1e309", NumberError::NotFinite),
            ("99e307", NumberError::NotFinite),
            ("12345678901234567890123456", NumberError::TooLong { len: 26 }),
        ] {
            assert_eq!(NumberText::from_json(bad), Err(error), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_finite_double_parses_back_to_itself(bits: u64) {
            let x = f64::from_bits(bits);
            prop_assume!(x.is_finite());
            let text = text(x);
            prop_assert!(text.len() <= MAX_NUMBER_BYTES);
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
            // serde_json may be off in the last bit: here only that it is JSON.
            prop_assert!(serde_json::from_str::<f64>(&text).is_ok());
            prop_assert!(NumberText::from_json(&text).is_ok() && NumberText::from_stored(&text).is_ok());
        }

        #[test]
        fn every_finite_float_parses_back_to_itself(bits: u32) {
            let x = f32::from_bits(bits);
            prop_assume!(x.is_finite());
            prop_assert_eq!(text(x).parse::<f32>().unwrap().to_bits(), bits);
        }

        #[test]
        fn decimals_are_json_numbers_of_the_same_value(mantissa: i64, exponent: i8) {
            let text = text(Decimal { mantissa, exponent });
            prop_assert!(text.len() <= MAX_NUMBER_BYTES);
            prop_assert!(NumberText::from_json(&text).is_ok() && NumberText::from_stored(&text).is_ok());
            prop_assert_eq!(text.parse::<f64>().unwrap(), format!("{mantissa}e{exponent}").parse::<f64>().unwrap());
        }

        #[test]
        fn a_path_passes_exactly_when_its_segments_do(path in "[a.%2e3:_S-]{0,12}") {
            let legal = |s: &str| {
                let s = s.replace("%2e", "x").replace("%3a", "x");
                !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
            };
            prop_assert_eq!(check_path(&path, 200).is_ok(), path.split('.').all(legal));
        }

        #[test]
        fn a_segment_of_any_text_is_legal(any: String) {
            prop_assert_eq!(check_path(&Segment(&any).to_string(), usize::MAX), Ok(()));
        }
    }
}
