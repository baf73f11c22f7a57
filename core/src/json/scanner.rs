//! One JSON value as an automaton over bytes, fed in any pieces: the grammar that framer, reader and decoder share.
//!
//! Cost: constant memory (28 bytes), one pass, no copy; runs inside strings and numbers are scanned in tight loops, eight bytes at
//! a time on 64-bit processors.

use super::syntax::{At, Syntax, is_blank};

/// How many arrays and objects of a value may lie in each other: 128.
///
/// Up to here every closing bracket is checked against its opening one (one bit a level). What lies deeper can only be
/// skipped: there brackets are counted without regard to their kind, strings are checked in full, and between them any
/// of the characters that JSON has outside strings passes.
pub const MAX_DEPTH: u32 = 128;

const WORDS: [&[u8]; 3] = [b"true", b"false", b"null"];

/// Where in the grammar the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A value must follow.
    Value,
    /// After `[`: a value or `]`.
    FirstItem,
    /// After `{`: a key or `}`.
    FirstKey,
    /// After a comma in an object: a key.
    Key,
    /// After a key.
    Colon,
    /// After a value in an array or object: a comma or the closing bracket.
    Next,
    /// In a string, between characters.
    Text,
    /// After a backslash.
    Escape,
    /// In `\u`, with so many hex digits to come.
    Hex(u8),
    /// In a character of several bytes: so many to come, the next one of them within these bounds.
    Utf8 { need: u8, low: u8, high: u8 },
    /// In one of `WORDS`, with so many bytes seen.
    Literal { word: u8, seen: u8 },
    /// After `-`.
    Minus,
    /// After a leading `0`.
    Zero,
    /// In the digits before the point.
    Integer,
    /// After the point.
    Point,
    /// In the digits after the point.
    Fraction,
    /// After `e`.
    Exponent,
    /// After the sign of an exponent.
    ExponentSign,
    /// In the digits of an exponent.
    ExponentDigits,
    /// Deeper than `MAX_DEPTH`, outside strings.
    Deep,
    /// The value has ended.
    Done,
}

/// Recognises one value; blanks before it belong to it.
#[derive(Debug, Clone)]
pub(super) struct Scanner {
    state: State,
    /// The string at hand is a key.
    in_key: bool,
    /// A string with an escape was seen.
    escaped: bool,
    /// More than `MAX_DEPTH` levels were seen.
    too_deep: bool,
    /// Open brackets.
    depth: u32,
    /// The innermost open bracket is that of an object; up to `MAX_DEPTH` levels.
    in_object: bool,
    /// One bit for each of the first `MAX_DEPTH` levels: set for an object.
    objects: [u32; (MAX_DEPTH / 32) as usize],
}

impl Scanner {
    pub(super) const fn new() -> Self {
        Self {
            state: State::Value,
            in_key: false,
            escaped: false,
            too_deep: false,
            depth: 0,
            in_object: false,
            objects: [0; 4],
        }
    }

    /// Whether the value was nested deeper than [`MAX_DEPTH`], so that not all of it was checked.
    pub(super) const fn too_deep(&self) -> bool {
        self.too_deep
    }

    /// Whether any string of the value held an escape.
    pub(super) const fn escaped(&self) -> bool {
        self.escaped
    }

    /// Whether the value is complete if nothing follows: only a bare number ends with the text.
    pub(super) const fn is_complete(&self) -> bool {
        match self.state {
            State::Done => true,
            State::Zero | State::Integer | State::Fraction | State::ExponentDigits => self.depth == 0,
            _ => false,
        }
    }

    /// Reads on. `Some(n)`: the value has ended before byte `n` of `input`. `None`: all of it belongs to the value so far.
    pub(super) fn scan(&mut self, input: &[u8]) -> Result<Option<usize>, At> {
        let mut state = self.state;
        let mut i = 0;
        while let Some(&byte) = input.get(i) {
            let fault = |fault| Err(At { at: i, fault });
            state = match state {
                State::Text => match byte {
                    b'"' if self.in_key => State::Colon,
                    b'"' => self.after_value(),
                    b'\\' => {
                        self.escaped = true;
                        State::Escape
                    }
                    0x20..=0x7f => {
                        i += plain_run(input.get(i..).unwrap_or_default());
                        continue;
                    }
                    0..=0x1f => return fault(Syntax::ControlCharacter),
                    // RFC 3629, section 4: which second bytes may follow which first ones.
                    0xc2..=0xdf => State::Utf8 { need: 1, low: 0x80, high: 0xbf },
                    0xe0 => State::Utf8 { need: 2, low: 0xa0, high: 0xbf },
                    0xed => State::Utf8 { need: 2, low: 0x80, high: 0x9f },
                    0xe1..=0xef => State::Utf8 { need: 2, low: 0x80, high: 0xbf },
                    0xf0 => State::Utf8 { need: 3, low: 0x90, high: 0xbf },
                    0xf1..=0xf3 => State::Utf8 { need: 3, low: 0x80, high: 0xbf },
                    0xf4 => State::Utf8 { need: 3, low: 0x80, high: 0x8f },
                    _ => return fault(Syntax::BadUtf8),
                },
                State::Utf8 { need, low, high } => {
                    if byte < low || byte > high {
                        return fault(Syntax::BadUtf8);
                    }
                    if need == 1 {
                        State::Text
                    } else {
                        State::Utf8 { need: need - 1, low: 0x80, high: 0xbf }
                    }
                }
                State::Escape => match byte {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::Text,
                    b'u' => State::Hex(4),
                    _ => return fault(Syntax::BadEscape),
                },
                State::Hex(left) => {
                    if !byte.is_ascii_hexdigit() {
                        return fault(Syntax::BadEscape);
                    }
                    if left == 1 { State::Text } else { State::Hex(left - 1) }
                }
                State::FirstItem if byte == b']' => self.close(),
                // What ends within this piece is read at once, else the states for it go on. `i` stands on the last byte read.
                State::Value | State::FirstItem => match byte {
                    b'"' => {
                        i += plain_run(input.get(i + 1..).unwrap_or_default());
                        if input.get(i + 1) == Some(&b'"') {
                            i += 1;
                            self.after_value()
                        } else {
                            self.in_key = false;
                            State::Text
                        }
                    }
                    b'{' | b'[' => match self.open(byte) {
                        Ok(next) => next,
                        Err(syntax) => return fault(syntax),
                    },
                    b'1'..=b'9' => {
                        i += digit_run(input.get(i + 1..).unwrap_or_default());
                        match input.get(i + 1) {
                            Some(b',' | b'}' | b']') => self.after_value(),
                            _ => State::Integer,
                        }
                    }
                    b'0' => State::Zero,
                    b'-' => State::Minus,
                    b't' | b'f' | b'n' => {
                        let word = match byte {
                            b't' => 0,
                            b'f' => 1,
                            _ => 2,
                        };
                        let bytes = WORDS[word];
                        if input.get(i..).is_some_and(|rest| rest.starts_with(bytes)) {
                            i += bytes.len() - 1;
                            self.after_value()
                        } else {
                            State::Literal { word: word as u8, seen: 1 }
                        }
                    }
                    _ if is_blank(byte) => state,
                    _ => return fault(Syntax::ExpectedValue),
                },
                State::FirstKey if byte == b'}' => self.close(),
                State::FirstKey | State::Key => match byte {
                    b'"' => {
                        i += plain_run(input.get(i + 1..).unwrap_or_default());
                        if input.get(i + 1) == Some(&b'"') {
                            i += 1;
                            if input.get(i + 1) == Some(&b':') {
                                i += 1;
                                State::Value
                            } else {
                                State::Colon
                            }
                        } else {
                            self.in_key = true;
                            State::Text
                        }
                    }
                    _ if is_blank(byte) => state,
                    _ => return fault(Syntax::ExpectedKey),
                },
                State::Colon => match byte {
                    b':' => State::Value,
                    _ if is_blank(byte) => state,
                    _ => return fault(Syntax::ExpectedColon),
                },
                State::Next => match (byte, self.in_object) {
                    (b',', true) => State::Key,
                    (b',', false) => State::Value,
                    (b'}', true) | (b']', false) => self.close(),
                    _ if is_blank(byte) => state,
                    _ => return fault(Syntax::ExpectedCommaOrEnd),
                },
                State::Literal { word, seen } => {
                    let word_bytes = WORDS.get(usize::from(word)).copied().unwrap_or_default();
                    if word_bytes.get(usize::from(seen)) != Some(&byte) {
                        return fault(Syntax::BadLiteral);
                    }
                    if usize::from(seen) + 1 == word_bytes.len() {
                        self.after_value()
                    } else {
                        State::Literal { word, seen: seen + 1 }
                    }
                }
                State::Minus => match byte {
                    b'0' => State::Zero,
                    b'1'..=b'9' => State::Integer,
                    _ => return fault(Syntax::BadNumber),
                },
                State::Integer | State::Fraction | State::ExponentDigits if byte.is_ascii_digit() => {
                    i += digit_run(input.get(i..).unwrap_or_default());
                    continue;
                }
                State::Zero | State::Integer if byte == b'.' => State::Point,
                State::Zero | State::Integer | State::Fraction if byte | 0x20 == b'e' => State::Exponent,
                State::Zero if byte.is_ascii_digit() => return fault(Syntax::BadNumber),
                State::Zero | State::Integer | State::Fraction | State::ExponentDigits => {
                    // Only the byte after a number shows that it has ended; that byte is not part of it.
                    state = self.after_value();
                    if state == State::Done {
                        self.state = state;
                        return Ok(Some(i));
                    }
                    continue;
                }
                State::Point if byte.is_ascii_digit() => State::Fraction,
                State::Exponent if matches!(byte, b'+' | b'-') => State::ExponentSign,
                State::Exponent | State::ExponentSign if byte.is_ascii_digit() => State::ExponentDigits,
                State::Point | State::Exponent | State::ExponentSign => return fault(Syntax::BadNumber),
                State::Deep => match byte {
                    b'"' => {
                        self.in_key = false;
                        State::Text
                    }
                    b'{' | b'[' => match self.open(byte) {
                        Ok(next) => next,
                        Err(syntax) => return fault(syntax),
                    },
                    b'}' | b']' => self.close(),
                    b',' | b':' | b'+' | b'-' | b'.' => state,
                    _ if byte.is_ascii_alphanumeric() || is_blank(byte) => state,
                    _ => return fault(Syntax::ExpectedValue),
                },
                State::Done => return Ok(Some(i)),
            };
            i += 1;
            if state == State::Done {
                self.state = state;
                return Ok(Some(i));
            }
        }
        self.state = state;
        Ok(None)
    }

    /// The level's bit: which word, which bit of it. `depth` is 1 or more.
    const fn bit(depth: u32) -> (usize, u32) {
        let level = depth.wrapping_sub(1) % MAX_DEPTH;
        ((level / 32) as usize, 1 << (level % 32))
    }

    fn open(&mut self, bracket: u8) -> Result<State, Syntax> {
        self.depth = self.depth.checked_add(1).ok_or(Syntax::TooManyBrackets)?;
        if self.depth > MAX_DEPTH {
            self.too_deep = true;
            return Ok(State::Deep);
        }
        let (word, bit) = Self::bit(self.depth);
        self.in_object = bracket == b'{';
        Ok(if self.in_object {
            self.objects[word] |= bit;
            State::FirstKey
        } else {
            self.objects[word] &= !bit;
            State::FirstItem
        })
    }

    fn close(&mut self) -> State {
        self.depth = self.depth.saturating_sub(1);
        let (word, bit) = Self::bit(self.depth);
        self.in_object = self.objects[word] & bit != 0;
        self.after_value()
    }

    const fn after_value(&self) -> State {
        match self.depth {
            0 => State::Done,
            1..=MAX_DEPTH => State::Next,
            _ => State::Deep,
        }
    }
}

/// Every byte of it is `byte`.
const fn all(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// How many bytes from the start are characters of a string that need no further look.
pub(super) fn plain_run(bytes: &[u8]) -> usize {
    run(
        bytes,
        |word| {
            // Each sum has its byte's high bit set if that byte is another one (or no control character). A byte that is not ASCII
            // carries into those behind it, which do not count then.
            let no_quote = (word ^ all(b'"')).wrapping_add(all(0x7f));
            let no_backslash = (word ^ all(b'\\')).wrapping_add(all(0x7f));
            let no_control = word.wrapping_add(all(0x80 - 0x20));
            (!(no_quote & no_backslash & no_control) | word) & all(0x80)
        },
        |byte| (0x20..0x80).contains(&byte) && byte != b'"' && byte != b'\\',
    )
}

/// How many bytes from the start are digits.
pub(super) fn digit_run(bytes: &[u8]) -> usize {
    run(
        bytes,
        |word| {
            let digits = word ^ all(b'0');
            ((digits & all(0x7f)).wrapping_add(all(0x7f - 9)) | digits) & all(0x80)
        },
        |byte| byte.is_ascii_digit(),
    )
}

/// How many bytes from the start are `within`; `beyond` has the lowest set bit in the first byte of eight that is not, the first
/// byte being the lowest.
fn run(bytes: &[u8], beyond: impl Fn(u64) -> u64, within: impl Fn(u8) -> bool) -> usize {
    let mut rest = bytes;
    // Eight at a time where a word has as many (Mycroft 1987).
    #[cfg(target_pointer_width = "64")]
    while let Some((eight, behind)) = rest.split_first_chunk::<8>() {
        let stop = beyond(u64::from_le_bytes(*eight));
        if stop != 0 {
            return bytes.len() - rest.len() + (stop.trailing_zeros() / 8) as usize;
        }
        rest = behind;
    }
    #[cfg(not(target_pointer_width = "64"))]
    let _ = beyond;
    let here = rest.iter().position(|&byte| !within(byte)).unwrap_or(rest.len());
    rest = rest.get(here..).unwrap_or_default();
    bytes.len() - rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_of_any_bytes_are_as_long_as_byte_by_byte(
            start in prop::collection::vec(prop_oneof![Just(b'7'), Just(b'a'), Just(b' ')], 0..20),
            rest in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b'\\'), Just(b'/'), Just(b':')], 0..20),
        ) {
            let bytes = [start, rest].concat();
            let plain = |b: &u8| (0x20..0x80).contains(b) && *b != b'"' && *b != b'\\';
            prop_assert_eq!(plain_run(&bytes), bytes.iter().take_while(|b| plain(b)).count());
            let digits = bytes.iter().map(|b| if *b == b'a' { b'1' } else { *b }).collect::<std::vec::Vec<_>>();
            prop_assert_eq!(digit_run(&digits), digits.iter().take_while(|b| b.is_ascii_digit()).count());
        }
    }
}
