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
//! Cost: a check is one pass over the path; a [`NumberText`] has 26 bytes. A float between 10^-5 and 2^53 becomes its
//! shortest text by two multiplications of integers; others go by way of `core`. That code (15 kB on a Cortex-M0+) is
//! linked only where a float is handed over.
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
    let mut at = usual_words(bytes);
    // Where this segment begins, or some byte of it that is passed.
    let mut segment = if at > 0 && bytes.get(at - 1) == Some(&b'.') { at } else { 0 };
    while let Some(rest) = bytes.get(at..) {
        at += rest.iter().position(|&b| !is_plain(b)).unwrap_or(rest.len());
        match bytes.get(at) {
            None => break,
            Some(b'.') if at == segment => return Err(PathError::EmptySegment { at }),
            Some(b'.') => {
                at += 1;
                segment = at;
            }
            Some(b'%') if matches!(bytes.get(at + 1..at + 3), Some(b"2e" | b"3a")) => at += 3,
            Some(&byte) => return Err(PathError::IllegalByte { at, byte }),
        }
    }
    if at == segment { Err(PathError::EmptySegment { at }) } else { Ok(()) }
}

/// How many bytes at the beginning hold nothing but legal segments without `%`, looked at eight at a time.
fn usual_words(path: &[u8]) -> usize {
    if cfg!(not(target_pointer_width = "64")) {
        return 0;
    }
    /// This byte eight times.
    const fn all(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    const HIGH: u64 = all(0x80);
    // The highest bit of each byte says what is so of it; none of the sums carries, as all bytes are ASCII.
    let at_least = |word: u64, byte: u8| word + all(0x80 - byte);
    let unlike = |word: u64, byte: u8| (word ^ all(byte)).wrapping_add(all(0x7f));
    // A path does not begin with a dot.
    let mut dot_before = 0x80;
    let words = path.as_chunks::<8>().0;
    let odd = words.iter().position(|word| {
        let word = u64::from_le_bytes(*word);
        if word & HIGH != 0 {
            return true;
        }
        let lower = word | all(0x20);
        let letter = at_least(lower, b'a') & !at_least(lower, b'z' + 1);
        // '-', '.', '/', digits.
        let other = at_least(word, b'-') & !at_least(word, b'9' + 1) & unlike(word, b'/');
        let legal = letter | other | !unlike(word, b'_');
        let dots = !unlike(word, b'.') & HIGH;
        let two_dots = dots & (dots << 8 | dot_before);
        dot_before = dots >> 56;
        !legal & HIGH | two_dots != 0
    });
    8 * odd.unwrap_or(words.len())
}

/// Whether a segment can have this byte as it is.
fn is_plain(byte: u8) -> bool {
    /// A bit for each byte.
    const PLAIN: [u32; 8] = {
        let mut bits = [0; 8];
        let mut byte = 0u8;
        while byte < 128 {
            if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
                bits[byte as usize / 32] |= 1 << (byte % 32);
            }
            byte += 1;
        }
        bits
    };
    PLAIN[usize::from(byte >> 5)] & 1 << (byte & 31) != 0
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
        let mut rest = self.0;
        loop {
            let plain = rest.bytes().position(|b| !is_plain(b)).unwrap_or(rest.len());
            let (run, other) = rest.split_at_checked(plain).unwrap_or((rest, ""));
            f.write_str(run)?;
            let mut chars = other.chars();
            match chars.next() {
                None => break,
                Some('.') => f.write_str("%2e")?,
                Some(':') => f.write_str("%3a")?,
                Some(_) => f.write_str("-")?,
            }
            rest = chars.as_str();
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
#[derive(Clone, Copy)]
pub struct NumberText {
    /// Where the text begins; it ends with the bytes.
    from: u8,
    bytes: [u8; MAX_NUMBER_BYTES],
}

impl NumberText {
    /// `text`, if it is a JSON number of at most [`MAX_NUMBER_BYTES`] bytes: for stored values, and for
    /// implementing [`Number`].
    ///
    /// # Errors
    /// [`NumberError::TooLong`], [`NumberError::NotJson`], and [`NumberError::NotFinite`] where the number lies
    /// outside of a double.
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
        let mut out = Backwards::NONE;
        out.put_all(text.as_bytes());
        Ok(out.text())
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
        self.bytes.get(usize::from(self.from)..).unwrap_or(b"0")
    }
}

impl PartialEq for NumberText {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for NumberText {}

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

/// A number's text while it is written, from its end to its beginning, as its digits come.
struct Backwards {
    /// With room for digits that come eight at a time.
    bytes: [u8; SPARE + MAX_NUMBER_BYTES],
    from: usize,
}

const SPARE: usize = 8;

impl Backwards {
    const NONE: Backwards =
        Backwards { bytes: [0; SPARE + MAX_NUMBER_BYTES], from: SPARE + MAX_NUMBER_BYTES };

    fn put(&mut self, byte: u8) {
        debug_assert!(self.from > SPARE, "a number's text is at most {MAX_NUMBER_BYTES} bytes");
        self.from = self.from.wrapping_sub(1);
        if let Some(to) = self.bytes.get_mut(self.from) {
            *to = byte;
        }
    }

    fn put_all(&mut self, part: &[u8]) {
        part.iter().rev().for_each(|byte| self.put(*byte));
    }

    /// The last `count` digits of `n`, at most eight.
    fn put_digits(&mut self, n: u32, count: u32) {
        let from = self.from.saturating_sub(count as usize);
        if AT_ONCE {
            let to = self.bytes.get_mut(..self.from).and_then(|b| b.last_chunk_mut());
            if let Some(to) = to {
                *to = eight_digits(n);
            }
        } else if let Some(to) = self.bytes.get_mut(from..self.from) {
            put_digits(n, to);
        }
        self.from = from;
    }

    fn put_integer(&mut self, mut n: u64) {
        const EIGHT: u64 = 100_000_000;
        while n >= EIGHT {
            self.put_digits((n % EIGHT) as u32, 8);
            n /= EIGHT;
        }
        let n = n as u32;
        if n < 10 {
            self.put(b'0' + n as u8);
        } else {
            self.put_digits(n, n.ilog10() + 1);
        }
    }

    /// `n · 10^-places`; `false`, with nothing written, if more than `max_zeros` zeros would stand between point and digits.
    fn put_places(&mut self, mut n: u64, places: u32, max_zeros: u32) -> bool {
        if places > max_zeros + 1 && ten_to(places - max_zeros - 1).is_none_or(|least| n < least) {
            return false;
        }
        let mut left = places;
        while left > 0 {
            let count = left.min(8);
            let power = ten_to(count).unwrap_or(1);
            self.put_digits((n % power) as u32, count);
            n /= power;
            left -= count;
        }
        if places > 0 {
            self.put(b'.');
        }
        self.put_integer(n);
        true
    }

    /// `e` and the exponent.
    fn put_exponent(&mut self, exponent: i32) {
        self.put_integer(u64::from(exponent.unsigned_abs()));
        self.put_sign(exponent < 0);
        self.put(b'e');
    }

    fn put_sign(&mut self, negative: bool) {
        if negative {
            self.put(b'-');
        }
    }

    fn text(self) -> NumberText {
        let bytes = self.bytes.last_chunk().copied().unwrap_or([b'0'; MAX_NUMBER_BYTES]);
        NumberText { from: self.from.saturating_sub(SPARE) as u8, bytes }
    }
}

/// Whether numbers of 64 bits are as cheap as others: then digits are made eight at a time.
const AT_ONCE: bool = cfg!(target_pointer_width = "64");

/// The last digits of `n`, as many as there is room for.
fn put_digits(mut n: u32, to: &mut [u8]) {
    for digit in to.iter_mut().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
}

/// The last eight digits of `n`.
pub(crate) fn eight_digits(n: u32) -> [u8; 8] {
    if !AT_ONCE {
        let mut digits = [0; 8];
        put_digits(n, &mut digits);
        return digits;
    }
    // First four and four, then two and two, then one and one.
    let n = u64::from(n % 100_000_000);
    let fours = (n / 10_000) | ((n % 10_000) << 32);
    // Divided by 100 and by 10: exact for numbers below 10,000 and 100.
    let hundreds = ((fours * 10_486) >> 20) & 0x7f_0000_007f;
    let twos = hundreds | (fours - 100 * hundreds) << 16;
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    let ones = tens | (twos - 10 * tens) << 8;
    (ones | 0x3030_3030_3030_3030).to_le_bytes()
}

/// Powers of five: as many as the shortest text of a float needs, and 10^k is 5^k · 2^k.
const FIVES: [u64; 22] = {
    let mut powers = [1; 22];
    let mut k = 1;
    while k < powers.len() {
        powers[k] = 5 * powers[k - 1];
        k += 1;
    }
    powers
};

/// 10^`k`, if it has at most 64 bits.
fn ten_to(k: u32) -> Option<u64> {
    if k < 20 { FIVES.get(k as usize).map(|five| five << k) } else { None }
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
        let (magnitude, negative) = (self.mantissa.unsigned_abs(), self.mantissa < 0);
        let places = u32::from(self.exponent.unsigned_abs());
        let mut out = Backwards::NONE;
        let plain = if self.exponent <= 0 {
            out.put_places(magnitude, places, 3)
        } else {
            // At most 19 digits with the zeros.
            let limit = 19u32.checked_sub(places).and_then(ten_to).unwrap_or(0);
            let fits = magnitude < limit;
            if fits && magnitude > 0 {
                (0..places).for_each(|_| out.put(b'0'));
            }
            if fits || magnitude == 0 {
                out.put_integer(magnitude);
            }
            fits || magnitude == 0
        };
        if !plain {
            out.put_exponent(self.exponent.into());
            out.put_integer(magnitude);
        }
        out.put_sign(negative);
        Ok(out.text())
    }
}

macro_rules! integers {
    ($($signed:ty),*; $($unsigned:ty),*) => {
        $(impl Number for $signed {
            fn number_text(&self) -> Result<NumberText, NumberError> {
                let mut out = Backwards::NONE;
                out.put_integer(u64::from(self.unsigned_abs()));
                out.put_sign(*self < 0);
                Ok(out.text())
            }
        })*
        $(impl Number for $unsigned {
            fn number_text(&self) -> Result<NumberText, NumberError> {
                let mut out = Backwards::NONE;
                out.put_integer(u64::from(*self));
                Ok(out.text())
            }
        })*
    };
}
integers!(i8, i16, i32, i64; u8, u16, u32, u64);

impl Number for f64 {
    /// The shortest text that parses back to exactly this number, of those the nearest to it.
    fn number_text(&self) -> Result<NumberText, NumberError> {
        if !self.is_finite() {
            return Err(NumberError::NotFinite);
        }
        let bits = self.to_bits();
        let binary = Binary::new(bits, f64::MANTISSA_DIGITS, 1075);
        Ok(binary.text(self.is_sign_negative()).unwrap_or_else(|| Exponential::of(format_args!("{self:e}"))))
    }
}

impl Number for f32 {
    /// The shortest text that parses back to exactly this `f32` (0.1 stays 0.1), of those the nearest to it.
    fn number_text(&self) -> Result<NumberText, NumberError> {
        if !self.is_finite() {
            return Err(NumberError::NotFinite);
        }
        let bits = u64::from(self.to_bits());
        let binary = Binary::new(bits, f32::MANTISSA_DIGITS, 150);
        Ok(binary.text(self.is_sign_negative()).unwrap_or_else(|| Exponential::of(format_args!("{self:e}"))))
    }
}

/// Zeros that a float's text may have between point and digits.
const MAX_FLOAT_ZEROS: u32 = 4;

/// A float without its sign: `mantissa · 2^exponent`, with the mantissa's highest bit set unless it is 0 or subnormal.
struct Binary {
    mantissa: u64,
    exponent: i32,
    /// All other bits of the mantissa are 0, so that the float below is only half as far away as the one above.
    is_power: bool,
}

impl Binary {
    /// From the bits of a float of so many digits (one of them not written), whose exponents are larger by `bias`.
    fn new(bits: u64, digits: u32, bias: i32) -> Self {
        let hidden = 1 << (digits - 1);
        let fraction = bits & (hidden - 1);
        // The sign is above the bits of the exponent, of which there are 11 or 8.
        let biased =
            (bits >> (digits - 1)) as i32 & if digits == f64::MANTISSA_DIGITS { 0x7ff } else { 0xff };
        if biased == 0 {
            return Binary { mantissa: fraction, exponent: 1 - bias, is_power: false };
        }
        Binary { mantissa: fraction | hidden, exponent: biased - bias, is_power: fraction == 0 }
    }

    /// The shortest text, by integers alone; `None` for what is 2^53 (2^24) or larger, or below 10^-5.
    fn text(&self, negative: bool) -> Option<NumberText> {
        let mut out = Backwards::NONE;
        if self.mantissa == 0 {
            // "-0" would be read as the integer 0.
            out.put_all(if negative { b"0.0" } else { b"0" });
        } else {
            let (n, places) = self.shortest()?;
            if !out.put_places(n, places, MAX_FLOAT_ZEROS) {
                return None;
            }
        }
        out.put_sign(negative);
        Some(out.text())
    }

    /// (n, places): of the decimals that are nearer to this float than to any other the one with the fewest places, and of
    /// those the nearest. Exact: the float times a power of ten has up to 102 bits.
    fn shortest(&self) -> Option<(u64, u32)> {
        let below = u32::try_from(self.exponent.checked_neg()?).ok()?;
        if self.mantissa.trailing_zeros() >= below {
            // A whole number, and there is none between it and the next float.
            return Some((self.mantissa >> below, 0));
        }
        // So many places that a unit of the last one is at most the distance of two floats, and ten of them are more.
        let places = ((below * 1233) >> 12) + 1;
        let five = *FIVES.get(places as usize)?;
        // In quarters of that distance, and with so many bits behind the units of the last place.
        let scaled = u128::from(self.mantissa << 2) * u128::from(five);
        let bits = below + 2 - places;
        let units = (scaled >> bits) as u64;
        let (tens, rest) = (units / 10, units % 10);
        // The tens below and above, if they are near enough: at most one of both is.
        let down = scaled - (u128::from(units - rest) << bits);
        let up = (10 << bits) - down;
        let reach = u128::from(five << 1);
        let reach_down = if self.is_power { u128::from(five) } else { reach };
        let inclusive = u128::from(self.mantissa.is_multiple_of(2));
        let tens = if down < reach_down + inclusive {
            tens
        } else if up < reach + inclusive {
            tens + 1
        } else {
            let fraction = scaled - (u128::from(units) << bits);
            return Some((units + u64::from(fraction >= 1 << (bits - 1)), places));
        };
        Some(without_zeros(tens, places - 1))
    }
}

/// The same number with as few places as there can be.
fn without_zeros(mut n: u64, mut places: u32) -> (u64, u32) {
    for (power, zeros) in [(100_000_000, 8), (10_000, 4), (100, 2), (10, 1)] {
        // Not 0, and not whole: there are digits, and places for all of its zeros.
        if u64::is_multiple_of(n, power) {
            n /= power;
            places = places.saturating_sub(zeros);
        }
    }
    (n, places)
}

/// What `{:e}` writes: `[-]d[.ddd]e[-]x`, the shortest digits that round-trip.
#[derive(Default)]
struct Exponential {
    negative: bool,
    /// The digits without the point.
    digits: [u8; 24],
    n: usize,
    in_exponent: bool,
    exponent_negative: bool,
    exponent: i32,
}

impl fmt::Write for Exponential {
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

impl Exponential {
    /// The text of a float that is 2^24 or more, or below 10^-5: a whole number, or one with an exponent.
    fn of(written: fmt::Arguments<'_>) -> NumberText {
        let mut this = Exponential::default();
        // Never fails: at most 24 bytes are written into 32.
        let _ = this.write_fmt(written);
        let digits = this.digits.get(..this.n).unwrap_or_default();
        let mut out = Backwards::NONE;
        let exponent = if this.exponent_negative { -this.exponent } else { this.exponent };
        match (exponent, digits) {
            (0..=16, _) => {
                (digits.len()..=exponent as usize).for_each(|_| out.put(b'0'));
                out.put_all(digits);
            }
            (_, [first, rest @ ..]) => {
                out.put_exponent(exponent);
                if !rest.is_empty() {
                    out.put_all(rest);
                    out.put(b'.');
                }
                out.put(*first);
            }
            _ => {}
        }
        out.put_sign(this.negative);
        out.text()
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
    fn each_byte_is_legal_or_not_wherever_it_stands_and_the_first_fault_is_told() {
        for at in 0..30 {
            for byte in 0..128u8 {
                let mut path = "a.b-c_d.Zz09.".repeat(3).into_bytes();
                path[at] = byte;
                path[29] = if at == 29 { byte } else { b'x' };
                path.truncate(30);
                let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
                let fault = (0..30).find_map(|i| match path[i] {
                    b'.' if i == 0 || path[i - 1] == b'.' => Some(PathError::EmptySegment { at: i }),
                    b if !legal(b) => Some(PathError::IllegalByte { at: i, byte: b }),
                    b'.' if i == 29 => Some(PathError::EmptySegment { at: 30 }),
                    _ => None,
                });
                let path = String::from_utf8(path).unwrap();
                assert_eq!(check_path(&path, 200).err(), fault, "{path}");
            }
        }
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
    fn eight_digits_are_those_of_the_number() {
        let four = (0..10_000).flat_map(|n| [n, 10_000 * n, 10_001 * n]);
        for n in four.chain((0..99_999_999).step_by(997)) {
            assert_eq!(str::from_utf8(&eight_digits(n)).unwrap(), format!("{n:08}"));
        }
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

    /// The same text by way of `{:e}`, whose digits are the shortest, and of those the nearest.
    fn by_exponential(written: &str) -> String {
        let (digits, exponent) = written.split_once('e').unwrap();
        let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
        let digits = digits.replace('.', "");
        let exponent: i32 = exponent.parse().unwrap();
        let whole = (exponent + 1).max(0) as usize;
        let text = match exponent {
            _ if digits == "0" => if sign.is_empty() { "0" } else { "0.0" }.to_string(),
            -5..=-1 => format!("0.{}{digits}", "0".repeat((-exponent - 1) as usize)),
            0..=16 if digits.len() <= whole => format!("{digits}{}", "0".repeat(whole - digits.len())),
            0..=16 => format!("{}.{}", &digits[..whole], &digits[whole..]),
            _ if digits.len() == 1 => format!("{digits}e{exponent}"),
            _ => format!("{}.{}e{exponent}", &digits[..1], &digits[1..]),
        };
        format!("{sign}{text}")
    }

    fn same_as_by_exponential(x: f64) {
        assert_eq!(text(x), by_exponential(&format!("{x:e}")), "{:#x}", x.to_bits());
    }

    #[test]
    fn powers_of_two_and_ten_and_their_neighbours_are_as_short_as_possible() {
        let powers_of_two = (0..2047).map(|biased| biased << 52);
        let powers_of_ten = (-320..=308).map(|k| format!("1e{k}").parse::<f64>().unwrap().to_bits());
        for bits in powers_of_two.chain(powers_of_ten) {
            for bits in bits.saturating_sub(40)..=bits + 40 {
                same_as_by_exponential(f64::from_bits(bits));
                same_as_by_exponential(-f64::from_bits(bits));
            }
        }
        for bits in
            (0..255u32).flat_map(|biased| (0..80).map(move |n| ((biased << 23) + n).saturating_sub(40)))
        {
            let x = f32::from_bits(bits);
            assert_eq!(text(x), by_exponential(&format!("{x:e}")), "{bits:#x}");
        }
    }

    #[test]
    fn between_two_texts_that_are_equally_near_the_choice_is_that_of_the_standard_library() {
        // Quarters and eighths that have digits for one place only.
        for n in 0..1_000 {
            same_as_by_exponential((1u64 << 50) as f64 + f64::from(n) / 4.0);
            same_as_by_exponential((1u64 << 49) as f64 + f64::from(n) / 8.0);
            same_as_by_exponential((1u64 << 46) as f64 + f64::from(n) / 64.0);
        }
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
        fn doubles_of_any_size_are_written_as_short_as_possible(
            fraction in 0..1u64 << 52, shift in 0..53u32, near in 1_023 - 40..1_023 + 60u64, any in 0..2_047u64,
        ) {
            for exponent in [near, any] {
                // As it is, and with few bits.
                for fraction in [fraction, fraction >> shift << shift] {
                    same_as_by_exponential(f64::from_bits(exponent << 52 | fraction));
                }
            }
        }

        #[test]
        fn doubles_of_few_digits_and_their_neighbours_are_written_as_short_as_possible(
            digits in 0..1u64 << 54, shift in 0..50u32, exponent in -25..20i32,
        ) {
            let x = format!("{}e{exponent}", digits >> shift).parse::<f64>().unwrap();
            for x in [x, -x, x.next_up(), x.next_down()] {
                same_as_by_exponential(x);
            }
        }

        #[test]
        fn floats_are_written_as_short_as_possible(bits: u32, digits in 0..1u32 << 25, shift in 0..20u32, exponent in -20..20i32) {
            let short = format!("{}e{exponent}", digits >> shift).parse::<f32>().unwrap();
            for x in [f32::from_bits(bits), short, short.next_up(), short.next_down()] {
                if x.is_finite() {
                    prop_assert_eq!(text(x), by_exponential(&format!("{x:e}")));
                }
            }
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
        fn a_path_passes_exactly_when_its_segments_do(
            path in "[a.%2e3:_S-]{0,12}|([a-zA-Z0-9_-]{1,9}[.]){0,4}[a-z.%]{0,12}|[a-z]{0,20}([!-~]|[.]{2}|\\PC)[a-z.]{0,20}",
        ) {
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
