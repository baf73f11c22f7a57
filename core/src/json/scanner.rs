//! One JSON value as an automaton over bytes, fed in any pieces: the grammar that framer, reader and decoder share.
//!
//! Cost: constant memory (32 bytes), one pass, no copy; what is as usual is read in straight lines of code, runs inside strings and
//! numbers eight bytes at a time on 64-bit processors.

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
    /// One bit for each of the first `MAX_DEPTH` levels, the innermost one the lowest: set for an object.
    objects: u128,
}

impl Scanner {
    pub(super) const fn new() -> Self {
        Self { state: State::Value, in_key: false, escaped: false, too_deep: false, depth: 0, objects: 0 }
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
        loop {
            if let State::Value | State::Next = state {
                (i, state) = self.scan_usual(input, i, state);
            }
            if state == State::Done {
                self.state = state;
                return Ok(Some(i));
            }
            let Some(&byte) = input.get(i) else {
                self.state = state;
                return Ok(None);
            };
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
                // Other numbers, strings and brackets have been read above.
                State::Value => match byte {
                    b'0' => State::Zero,
                    b'-' => State::Minus,
                    b't' => State::Literal { word: 0, seen: 1 },
                    b'f' => State::Literal { word: 1, seen: 1 },
                    b'n' => State::Literal { word: 2, seen: 1 },
                    // They would have been read if there were room for more levels.
                    b'{' | b'[' => {
                        self.depth += 1;
                        self.too_deep = true;
                        State::Deep
                    }
                    _ if is_blank(byte) => state,
                    _ => return fault(Syntax::ExpectedValue),
                },
                State::FirstItem if byte == b']' => self.close(),
                State::FirstItem if is_blank(byte) => state,
                State::FirstItem => {
                    state = State::Value;
                    continue;
                }
                State::FirstKey if byte == b'}' => self.close(),
                State::FirstKey | State::Key => match byte {
                    b'"' => {
                        self.in_key = true;
                        State::Text
                    }
                    _ if is_blank(byte) => state,
                    _ => return fault(Syntax::ExpectedKey),
                },
                State::Colon => match byte {
                    b':' => State::Value,
                    _ if is_blank(byte) => state,
                    _ => return fault(Syntax::ExpectedColon),
                },
                // Commas and fitting brackets have been read above.
                State::Next if is_blank(byte) => state,
                State::Next => return fault(Syntax::ExpectedCommaOrEnd),
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
                    b'{' | b'[' => {
                        // Not below 1: it is deep.
                        self.depth = match self.depth.checked_add(1) {
                            Some(depth) => depth,
                            None => return fault(Syntax::TooManyBrackets),
                        };
                        state
                    }
                    b'}' | b']' => self.close(),
                    b',' | b':' | b'+' | b'-' | b'.' => state,
                    _ if byte.is_ascii_alphanumeric() || is_blank(byte) => state,
                    _ => return fault(Syntax::ExpectedValue),
                },
                State::Done => state,
            };
            i += 1;
        }
    }

    /// From `Value` or `Next` on as far as all is usual: keys and values that lie in `input` as a whole, strings of ASCII without
    /// escapes, whole numbers, few blanks. Nearly all of a body is so, and is read here without going from state to state.
    /// Returns where it stopped, and the state that goes on there.
    fn scan_usual(&mut self, input: &[u8], start: usize, state: State) -> (usize, State) {
        let byte = |i: usize| input.get(i).copied().unwrap_or(0);
        let behind = |i: usize| input.get(i + 1..).unwrap_or_default();
        let (mut depth, mut objects) = (self.depth, self.objects);
        let mut i = start;
        let mut value_follows = state == State::Value;
        let state = 'usual: loop {
            let mut key_follows = false;
            if value_follows {
                match byte(i) {
                    b'"' => {
                        i += 1 + plain_run(behind(i));
                        if byte(i) != b'"' {
                            self.in_key = false;
                            break State::Text;
                        }
                        i += 1;
                    }
                    b'1'..=b'9' => {
                        i += 1 + digit_run(behind(i));
                        if !matches!(byte(i), b',' | b'}' | b']') {
                            break State::Integer;
                        }
                    }
                    b'{' if depth < MAX_DEPTH => {
                        i += 1;
                        depth += 1;
                        objects = objects << 1 | 1;
                        if byte(i) != b'"' {
                            break State::FirstKey;
                        }
                        key_follows = true;
                    }
                    b'[' if depth < MAX_DEPTH => {
                        i += 1;
                        depth += 1;
                        objects <<= 1;
                        if !matches!(byte(i), b'{' | b'"') {
                            break State::FirstItem;
                        }
                        continue;
                    }
                    b'n' if behind(i).starts_with(b"ull") => i += 4,
                    b't' if behind(i).starts_with(b"rue") => i += 4,
                    b'f' if behind(i).starts_with(b"alse") => i += 5,
                    b' ' => {
                        i += 1;
                        continue;
                    }
                    _ => break State::Value,
                }
            }
            if !key_follows {
                // After a value.
                loop {
                    if depth == 0 {
                        break 'usual State::Done;
                    }
                    let in_object = objects & 1 != 0;
                    match byte(i) {
                        b',' => {
                            i += 1;
                            if !in_object {
                                value_follows = true;
                                continue 'usual;
                            }
                            break;
                        }
                        b'}' if in_object => {}
                        b']' if !in_object => {}
                        _ => break 'usual State::Next,
                    }
                    i += 1;
                    depth -= 1;
                    objects >>= 1;
                }
                if byte(i) != b'"' {
                    i += usize::from(byte(i) == b' ');
                    if byte(i) != b'"' {
                        break State::Key;
                    }
                }
            }
            i += 1 + plain_run(behind(i));
            if byte(i) != b'"' {
                self.in_key = true;
                break State::Text;
            }
            i += 1;
            if byte(i) != b':' {
                break State::Colon;
            }
            i += 1;
            value_follows = true;
        };
        (self.depth, self.objects) = (depth, objects);
        (i, state)
    }

    fn close(&mut self) -> State {
        if self.depth <= MAX_DEPTH {
            self.objects >>= 1;
        }
        self.depth = self.depth.saturating_sub(1);
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

/// How many bytes from the start are characters of a string that need no further look: ASCII without quotes, backslashes and control
/// characters.
pub(super) fn plain_run(bytes: &[u8]) -> usize {
    run(
        bytes,
        |word| {
            // Each difference has its byte's high bit set if that byte is one of those looked for, or is not ASCII. One that borrows
            // is such a byte itself, and those behind it do not count. The quote, 0x22, joins the control characters as 0x20; what it
            // changes places with stays above.
            let quote_or_control = (word ^ all(0x02)).wrapping_sub(all(0x21));
            let backslash = (word ^ all(b'\\')).wrapping_sub(all(0x01));
            (quote_or_control | backslash | word) & all(0x80)
        },
        |byte| (0x20..0x80).contains(&byte) && byte != b'"' && byte != b'\\',
    )
}

/// How many bytes from the start are neither a quote nor a backslash: within a string that has been checked.
pub(super) fn text_run(bytes: &[u8]) -> usize {
    run(
        bytes,
        |word| {
            let quote = (word ^ all(b'"')).wrapping_sub(all(0x01));
            let backslash = (word ^ all(b'\\')).wrapping_sub(all(0x01));
            (quote | backslash) & !word & all(0x80)
        },
        |byte| byte != b'"' && byte != b'\\',
    )
}

/// How many bytes from the start neither begin a string nor are brackets: outside the strings of what has been checked.
pub(super) fn flat_run(bytes: &[u8]) -> usize {
    run(
        bytes,
        |word| {
            // The bits that all brackets have in common; letters that have them too occur in strings only.
            let bracket = ((word & all(0xd9)) ^ all(0x59)).wrapping_sub(all(0x01));
            let quote = (word ^ all(b'"')).wrapping_sub(all(0x01));
            (quote | bracket) & !word & all(0x80)
        },
        |byte| byte != b'"' && byte & 0xd9 != 0x59,
    )
}

/// The number that `text` begins with, as far as there are digits, and how many there are; of no use beyond 19.
pub(super) fn leading_digits(text: &[u8]) -> (u64, usize) {
    let (mut number, mut count) = (0u64, 0);
    #[cfg(target_pointer_width = "64")]
    if let Some(eight) = text.first_chunk() {
        let digits = u64::from_le_bytes(*eight) ^ all(b'0');
        if (digits.wrapping_add(all(0x80 - 10)) | digits) & all(0x80) == 0 {
            // Neighbours are joined: to numbers below 100, then 10,000, then 100,000,000.
            let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
            let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
            number = (fours * 10_000 + (fours >> 32)) & 0xffff_ffff;
            count = 8;
        }
    }
    while let Some(digit) = text.get(count).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        number = number.wrapping_mul(10).wrapping_add(digit.into());
        count += 1;
    }
    (number, count)
}

/// How many bytes from the start are digits.
pub(super) fn digit_run(bytes: &[u8]) -> usize {
    run(
        bytes,
        |word| {
            // Likewise with sums: what carries is no digit.
            let digits = word ^ all(b'0');
            (digits.wrapping_add(all(0x80 - 10)) | digits) & all(0x80)
        },
        |byte| byte.is_ascii_digit(),
    )
}

/// How many bytes from the start are `within`; `beyond` has the lowest set bit in the first byte of eight that is not, the first
/// byte being the lowest.
#[inline]
fn run(bytes: &[u8], beyond: impl Fn(u64) -> u64, within: impl Fn(u8) -> bool) -> usize {
    let mut count = 0;
    // Eight at a time where a word has as many (Mycroft 1987).
    #[cfg(target_pointer_width = "64")]
    let (words, rest) = bytes.as_chunks::<8>();
    #[cfg(not(target_pointer_width = "64"))]
    let (words, rest): (&[[u8; 8]], _) = (&[], bytes);
    for eight in words {
        let stop = beyond(u64::from_le_bytes(*eight));
        if stop != 0 {
            return count + (stop.trailing_zeros() / 8) as usize;
        }
        count += 8;
    }
    for &byte in rest {
        if !within(byte) {
            break;
        }
        count += 1;
    }
    count
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
            let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
            prop_assert_eq!(digit_run(&digits), count);
            let text = |b: &u8| *b != b'"' && *b != b'\\';
            prop_assert_eq!(text_run(&bytes), bytes.iter().take_while(|b| text(b)).count());
        }

        #[test]
        fn digits_are_the_number_that_std_parses(number in any::<u64>(), cut in 0u32..64, behind in prop::collection::vec(any::<u8>(), 0..12)) {
            let text = [std::format!("{}", number >> cut).into_bytes(), behind].concat();
            let count = text.iter().take_while(|b| b.is_ascii_digit()).count();
            let (number, digits) = leading_digits(&text);
            prop_assert_eq!(digits, count);
            if let Ok(wanted) = core::str::from_utf8(&text[..count]).unwrap().parse::<u64>() {
                prop_assert_eq!(number, wanted);
            }
        }

        #[test]
        fn outside_strings_only_brackets_and_quotes_end_a_run(bytes in prop::collection::vec(prop::sample::select(
            b"0123456789+-.eEtrufalsn,: \t\r\n0123456789,:[]{}\"".to_vec()), 0..30)) {
            let ends = |b: &u8| b"[]{}\"".contains(b);
            prop_assert_eq!(flat_run(&bytes), bytes.iter().take_while(|b| !ends(b)).count());
        }
    }
}
