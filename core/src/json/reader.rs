//! Walks one JSON text by hand, without types to decode into: [`Reader`].

use core::fmt;

use super::number::{Decimal, DecimalParser, NumberError};
use super::scanner::{MAX_DEPTH, Scanner, digit_run, flat_run, leading_digits, plain_run, text_run};
use super::syntax::{Syntax, is_blank};

/// A pull reader over one JSON text that lies in memory, such as an element that the framer handed on.
///
/// It is safe on any bytes; what is read is checked as it is read. Values are read in the order of the text. The caller
/// knows where it is: after [`begin_object`](Self::begin_object) come [`next_key`](Self::next_key) and the value of that
/// key, in turn, until there is no key; after [`begin_array`](Self::begin_array) comes [`next_item`](Self::next_item) before
/// each value, until there is none. A caller that errs in this gets a syntax error.
///
/// ```
/// use grafolean_core::json::{Kind, Reader, Span};
///
/// let text = br#"{"id":7,"name":"R\u00f6uter","parent":null,"details":{"ipv4":"192.0.2.1"},"interval":"60.0"}"#;
/// let mut reader = Reader::new(text);
/// let (mut id, mut interval, mut details) = (0, 0, Span::default());
/// reader.begin_object()?;
/// while let Some(key) = reader.next_key()? {
///     if key == "id" {
///         id = reader.u64()?;
///     } else if key == "interval" {
///         interval = reader.u64()?; // a number, or a string that holds one
///     } else if key == "details" {
///         details = reader.skip_value()?; // to be decoded later
///     } else {
///         reader.skip_value()?;
///     }
/// }
/// reader.end()?;
/// assert_eq!((id, interval), (7, 60));
/// assert_eq!(details.of(text), br#"{"ipv4":"192.0.2.1"}"#);
/// # Ok::<(), grafolean_core::json::ReadError>(())
/// ```
///
/// Cost: one pass, strings a second one; nothing is copied until an escape has to be resolved. Errors carry the offset.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// An array or object has just been entered, so that no comma comes before its first item.
    entered: bool,
    /// The text has been checked by the framer.
    framed: bool,
}

/// The kind of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        })
    }
}

/// Why a value could not be read, and where.
///
/// It never holds a part of the text, since that may be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ReadError {
    /// Offset in the text, in bytes: of the fault where it is in the syntax, else of the value.
    pub offset: usize,
    /// What is wrong there.
    pub kind: ReadErrorKind,
}

/// Why a value could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ReadErrorKind {
    /// The text is not JSON.
    Syntax(Syntax),
    /// The value is of another kind.
    WrongKind {
        /// What was asked for.
        wanted: Kind,
        /// What is there.
        found: Kind,
    },
    /// The value, a number or a string with one, is not such a number as was asked for.
    Number(NumberError),
    /// A string holds the escape of one half of a surrogate pair, which is no character.
    LoneSurrogate,
    /// A string does not fit into the memory that was lent for it.
    TextTooLong {
        /// The size of that memory in bytes.
        limit: usize,
    },
    /// A value is nested deeper than [`MAX_DEPTH`] levels.
    TooDeep,
}

impl fmt::Display for ReadErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(syntax) => write!(f, "{syntax}"),
            Self::WrongKind { wanted, found } => write!(f, "expected {wanted}, found {found}"),
            Self::Number(error) => write!(f, "{error}"),
            Self::LoneSurrogate => f.write_str("escape of half a surrogate pair"),
            Self::TextTooLong { limit } => write!(f, "string longer than {limit} bytes"),
            Self::TooDeep => write!(f, "nested deeper than {MAX_DEPTH} levels"),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (byte {})", self.kind, self.offset)
    }
}

impl core::error::Error for ReadError {}

/// Where a value lies in the text it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Span {
    /// Offset of its first byte.
    pub start: usize,
    /// Offset of the byte after its last.
    pub end: usize,
}

impl Span {
    /// The value's bytes in `text`, which must be the text that it was read from; empty if `text` is too short for it.
    #[must_use]
    pub fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }
}

impl<'a> Reader<'a> {
    /// Begins before the first byte of `text`.
    #[must_use]
    pub const fn new(text: &'a [u8]) -> Self {
        Self { bytes: text, at: 0, entered: false, framed: false }
    }

    /// Begins before the first byte of `element`, a [`Frame::Element`](super::Frame::Element) or a value in one.
    ///
    /// The framer has checked it, so that this does not do so again where it would cost: values that are skipped, characters of
    /// strings, are only looked at for their end. What is read is the same. It is safe on any bytes, but what is wrong with
    /// those that the framer did not hand on may go unnoticed.
    #[must_use]
    pub const fn framed(element: &'a [u8]) -> Self {
        Self { framed: true, ..Self::new(element) }
    }

    /// The same text, from `offset` on.
    pub(crate) const fn at(&self, offset: usize) -> Self {
        Self { at: offset, ..*self }
    }

    /// How many bytes of the text have been read.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.at
    }

    /// The kind of the next value, which is not read by this.
    ///
    /// # Errors
    ///
    /// No value begins here.
    pub fn peek(&mut self) -> Result<Kind, ReadError> {
        self.skip_blanks();
        match self.byte() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(0xef) if self.at == 0 => Err(self.syntax(Syntax::ByteOrderMark)),
            Some(_) => Err(self.syntax(Syntax::ExpectedValue)),
            None => Err(self.syntax(Syntax::UnexpectedEnd)),
        }
    }

    /// Enters an object: [`next_key`](Self::next_key) comes next.
    ///
    /// # Errors
    ///
    /// The next value is not an object.
    pub fn begin_object(&mut self) -> Result<(), ReadError> {
        self.begin(Kind::Object)
    }

    /// Enters an array: [`next_item`](Self::next_item) comes next.
    ///
    /// # Errors
    ///
    /// The next value is not an array.
    pub fn begin_array(&mut self) -> Result<(), ReadError> {
        self.begin(Kind::Array)
    }

    /// The next key of the object, or `None` at its end, which leaves the object.
    ///
    /// # Errors
    ///
    /// Neither follows.
    pub fn next_key(&mut self) -> Result<Option<Text<'a>>, ReadError> {
        if !self.before_key()? {
            return Ok(None);
        }
        let key = self.text()?;
        self.after_key()?;
        Ok(Some(key))
    }

    /// Reads up to the next key; `false` at the end of the object, which leaves the object.
    #[inline]
    pub(super) fn before_key(&mut self) -> Result<bool, ReadError> {
        // The usual cases first.
        match self.bytes.get(self.at..) {
            Some([b',', b'"', ..]) if !self.entered => {
                self.at += 1;
                Ok(true)
            }
            Some([b'"', ..]) if self.entered => {
                self.entered = false;
                Ok(true)
            }
            _ => self.before_any_key(),
        }
    }

    fn before_any_key(&mut self) -> Result<bool, ReadError> {
        let comma = !core::mem::take(&mut self.entered);
        self.skip_blanks();
        match self.byte() {
            Some(b'}') => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if comma => {
                self.at += 1;
                self.skip_blanks();
            }
            Some(_) if comma => return Err(self.syntax(Syntax::ExpectedCommaOrEnd)),
            _ => {}
        }
        match self.byte() {
            Some(b'"') => Ok(true),
            None => Err(self.syntax(Syntax::UnexpectedEnd)),
            Some(_) => Err(self.syntax(Syntax::ExpectedKey)),
        }
    }

    /// Reads the next key and says which one of `names` it is, or `names.len()` if it is another one; `None` at the end of the object,
    /// which leaves the object. `guess` is what is expected, 0 at first.
    pub(crate) fn next_name(
        &mut self,
        names: &[&str],
        guess: &mut usize,
    ) -> Result<Option<usize>, ReadError> {
        if !self.before_key()? {
            return Ok(None);
        }
        let name = match self.plain_name(names, *guess) {
            Some(name) => {
                *guess = name + 1;
                self.skip_key(names.get(name).copied().unwrap_or_default());
                name
            }
            None => {
                let key = self.text()?;
                names.iter().position(|name| key == **name).unwrap_or(names.len())
            }
        };
        self.after_key()?;
        Ok(Some(name))
    }

    /// Which one of `names` the key is that comes next, if it is written plainly. `guess` is the one that is expected.
    pub(super) fn plain_name(&self, names: &[&str], guess: usize) -> Option<usize> {
        let rest = self.bytes.get(self.at + 1..)?;
        let (key, behind) = rest.split_at_checked(plain_run(rest))?;
        if behind.first() != Some(&b'"') {
            return None;
        }
        match names.get(guess) {
            Some(name) if name.as_bytes() == key => Some(guess),
            _ => names.iter().position(|name| name.as_bytes() == key),
        }
    }

    /// Reads a key that is known to be `name`, written plainly.
    pub(super) const fn skip_key(&mut self, name: &str) {
        self.at += name.len() + 2;
    }

    /// Reads the colon after a key.
    #[inline]
    pub(super) fn after_key(&mut self) -> Result<(), ReadError> {
        // The usual case first.
        if self.byte() == Some(b':') {
            self.at += 1;
            return Ok(());
        }
        self.after_any_key()
    }

    fn after_any_key(&mut self) -> Result<(), ReadError> {
        self.skip_blanks();
        match self.byte() {
            Some(b':') => {
                self.at += 1;
                Ok(())
            }
            None => Err(self.syntax(Syntax::UnexpectedEnd)),
            Some(_) => Err(self.syntax(Syntax::ExpectedColon)),
        }
    }

    /// Whether the array has a further item, which then comes next; `false` at its end, which leaves the array.
    ///
    /// # Errors
    ///
    /// Neither follows.
    #[inline]
    pub fn next_item(&mut self) -> Result<bool, ReadError> {
        // The usual case first.
        if !self.entered && self.byte() == Some(b',') {
            self.at += 1;
            return Ok(true);
        }
        self.next_any_item()
    }

    fn next_any_item(&mut self) -> Result<bool, ReadError> {
        let comma = !core::mem::take(&mut self.entered);
        self.skip_blanks();
        match self.byte() {
            None => Err(self.syntax(Syntax::UnexpectedEnd)),
            Some(b']') => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if comma => {
                self.at += 1;
                Ok(true)
            }
            Some(_) if comma => Err(self.syntax(Syntax::ExpectedCommaOrEnd)),
            Some(_) => Ok(true),
        }
    }

    /// Reads a string, as it is written.
    ///
    /// # Errors
    ///
    /// The next value is not a string.
    pub fn text(&mut self) -> Result<Text<'a>, ReadError> {
        self.expect(Kind::String)?;
        let offset = self.at;
        let rest = self.bytes.get(offset + 1..).unwrap_or_default();
        if let Some((raw, [b'"', ..])) = rest.split_at_checked(plain_run(rest)) {
            // The usual case, without the scanner.
            self.at += raw.len() + 2;
            self.entered = false;
            return Ok(Text { raw, escaped: false, offset });
        }
        let (span, escaped) = self.scan()?;
        let raw = self.bytes.get(span.start + 1..span.end.wrapping_sub(1)).unwrap_or_default();
        Ok(Text { raw, escaped, offset })
    }

    /// Reads a string: it is borrowed from the text if it has no escapes, else resolved into `scratch`.
    ///
    /// # Errors
    ///
    /// The next value is not a string, it does not fit into `scratch`, or holds half a surrogate pair.
    pub fn str<'s>(&mut self, scratch: &'s mut [u8]) -> Result<&'s str, ReadError>
    where
        'a: 's,
    {
        self.text()?.to_str(scratch)
    }

    /// Reads a number, or a string that holds one, exactly. See [`Decimal::parse`] for what may be in the string.
    ///
    /// # Errors
    ///
    /// The next value is neither, or it has too many digits for a [`Decimal`].
    pub fn decimal(&mut self) -> Result<Decimal, ReadError> {
        let found = self.peek()?;
        let offset = self.at;
        let mut parser = DecimalParser::new();
        match found {
            Kind::Number => {
                self.number()?.iter().for_each(|&byte| parser.push(byte));
            }
            Kind::String => {
                let text = self.text()?;
                for char in text.chars() {
                    // No byte of a longer character is part of a number, nor is the zero that stands for it here.
                    parser.push(u8::try_from(char?).unwrap_or(0));
                }
            }
            found => return Err(self.wrong_kind(Kind::Number, found)),
        }
        parser.finish().map_err(|error| ReadError { offset, kind: ReadErrorKind::Number(error) })
    }

    /// Reads a number as it is written.
    pub(super) fn number(&mut self) -> Result<&'a [u8], ReadError> {
        self.expect(Kind::Number)?;
        Ok(self.scan()?.0.of(self.bytes))
    }

    /// Reads a whole number, written in any way that [`decimal`](Self::decimal) takes: `60`, `60.0`, `6e1`, `"60"`.
    ///
    /// # Errors
    ///
    /// The next value is not such a number, has a fraction, or is out of the range of `T`.
    pub fn int<T: TryFrom<u64> + TryFrom<i64>>(&mut self) -> Result<T, ReadError> {
        self.skip_blanks();
        let offset = self.at;
        if let Some(number) = self.plain_int() {
            return T::try_from(number)
                .map_err(|_| ReadError { offset, kind: ReadErrorKind::Number(NumberError::OutOfRange) });
        }
        let number = self.decimal()?;
        number.to_int().map_err(|error| ReadError { offset, kind: ReadErrorKind::Number(error) })
    }

    /// Reads a whole number, see [`int`](Self::int).
    ///
    /// # Errors
    ///
    /// As [`int`](Self::int).
    pub fn u64(&mut self) -> Result<u64, ReadError> {
        self.int()
    }

    /// Reads a whole number, see [`int`](Self::int).
    ///
    /// # Errors
    ///
    /// As [`int`](Self::int).
    pub fn i64(&mut self) -> Result<i64, ReadError> {
        self.int()
    }

    /// Reads a boolean.
    ///
    /// # Errors
    ///
    /// The next value is not a boolean.
    pub fn bool(&mut self) -> Result<bool, ReadError> {
        self.expect(Kind::Bool)?;
        Ok(self.scan()?.0.of(self.bytes) == b"true")
    }

    /// Reads `null` if it comes next, and says whether it did.
    ///
    /// # Errors
    ///
    /// No value begins here.
    #[inline]
    pub fn null(&mut self) -> Result<bool, ReadError> {
        self.skip_blanks();
        match self.bytes.get(self.at..) {
            Some([b'n', b'u', b'l', b'l', ..]) => {
                self.at += 4;
                self.entered = false;
                Ok(true)
            }
            Some([b'"' | b'{' | b'[' | b'0'..=b'9', ..]) => Ok(false),
            _ => self.any_null(),
        }
    }

    fn any_null(&mut self) -> Result<bool, ReadError> {
        match self.peek()? {
            Kind::Null => self.scan().map(|_| true),
            _ => Ok(false),
        }
    }

    /// Reads over a value of any kind, checks its syntax, and says where it lies.
    ///
    /// # Errors
    ///
    /// The value is not JSON, or nested deeper than [`MAX_DEPTH`].
    pub fn skip_value(&mut self) -> Result<Span, ReadError> {
        self.peek()?;
        Ok(self.scan()?.0)
    }

    /// Checks that only blanks follow.
    ///
    /// # Errors
    ///
    /// [`Syntax::TrailingBytes`].
    pub fn end(&mut self) -> Result<(), ReadError> {
        self.skip_blanks();
        if self.at < self.bytes.len() { Err(self.syntax(Syntax::TrailingBytes)) } else { Ok(()) }
    }

    /// Reads a number if it is the usual case: up to 18 digits and nothing else.
    pub(crate) fn plain_int(&mut self) -> Option<u64> {
        let rest = self.bytes.get(self.at..)?;
        let (number, digits) = leading_digits(rest);
        match (rest.get(digits), digits) {
            (Some(b'.' | b'e' | b'E'), _) => None,
            (_, 1..=18) if digits == 1 || rest.first() != Some(&b'0') => {
                self.at += digits;
                self.entered = false;
                Some(number)
            }
            _ => None,
        }
    }

    fn begin(&mut self, kind: Kind) -> Result<(), ReadError> {
        self.expect(kind)?;
        self.enter();
        Ok(())
    }

    /// Enters the array or object that [`peek`](Self::peek) saw.
    pub(super) const fn enter(&mut self) {
        self.at += 1;
        self.entered = true;
    }

    fn expect(&mut self, wanted: Kind) -> Result<(), ReadError> {
        // The usual case first.
        if let (Kind::String, Some(b'"')) | (Kind::Object, Some(b'{')) | (Kind::Array, Some(b'[')) =
            (wanted, self.byte())
        {
            return Ok(());
        }
        let found = self.peek()?;
        if found == wanted { Ok(()) } else { Err(self.wrong_kind(wanted, found)) }
    }

    /// Reads over the value that begins here; says whether a string in it has an escape.
    fn scan(&mut self) -> Result<(Span, bool), ReadError> {
        let start = self.at;
        if let Some(length) = self.bytes.get(start..).and_then(usual) {
            self.at += length;
            self.entered = false;
            return Ok((Span { start, end: self.at }, false));
        }
        if self.framed {
            return self.scan_framed();
        }
        let mut scanner = Scanner::new();
        let rest = self.bytes.get(start..).unwrap_or_default();
        let length = match scanner.scan(rest) {
            Ok(Some(length)) => length,
            Ok(None) if scanner.is_complete() => rest.len(),
            Ok(None) => {
                let kind = ReadErrorKind::Syntax(Syntax::UnexpectedEnd);
                return Err(ReadError { offset: self.bytes.len(), kind });
            }
            Err(fault) => {
                return Err(ReadError { offset: start + fault.at, kind: ReadErrorKind::Syntax(fault.fault) });
            }
        };
        if scanner.too_deep() {
            return Err(ReadError { offset: start, kind: ReadErrorKind::TooDeep });
        }
        self.at = start + length;
        self.entered = false;
        Ok((Span { start, end: self.at }, scanner.escaped()))
    }

    /// Reads over the value that begins here, which the framer has checked: strings and brackets show where it ends.
    fn scan_framed(&mut self) -> Result<(Span, bool), ReadError> {
        let start = self.at;
        let (mut at, mut depth, mut escaped) = (start, 0usize, false);
        let rest = |at: usize| self.bytes.get(at..).unwrap_or_default();
        loop {
            match rest(at).first() {
                Some(b'"') => {
                    at += 1;
                    at += text_run(rest(at));
                    while let Some([b'\\', _, behind @ ..]) = rest(at).get(..) {
                        escaped = true;
                        at += 2 + text_run(behind);
                    }
                    at += 1;
                }
                Some(b'{' | b'[') => {
                    at += 1;
                    depth += 1;
                }
                Some(b'}' | b']') => {
                    at += 1;
                    depth = depth.saturating_sub(1);
                }
                // A literal, or a number of any form, which stands alone.
                Some(_) if depth == 0 => {
                    let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']') || is_blank(*byte);
                    at += rest(at).iter().position(ends).unwrap_or(rest(at).len());
                }
                Some(_) => {
                    at += 1;
                    at += flat_run(rest(at));
                    continue;
                }
                None => {}
            }
            if at > self.bytes.len() || at == start || (at == self.bytes.len() && depth > 0) {
                let kind = ReadErrorKind::Syntax(Syntax::UnexpectedEnd);
                return Err(ReadError { offset: self.bytes.len(), kind });
            }
            if depth == 0 {
                self.at = at;
                self.entered = false;
                return Ok((Span { start, end: at }, escaped));
            }
        }
    }

    #[inline]
    pub(super) fn skip_blanks(&mut self) {
        if self.byte().is_some_and(|byte| byte <= b' ') {
            self.skip_any_blanks();
        }
    }

    fn skip_any_blanks(&mut self) {
        while self.byte().is_some_and(is_blank) {
            self.at += 1;
        }
    }

    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    const fn syntax(&self, fault: Syntax) -> ReadError {
        ReadError { offset: self.at, kind: ReadErrorKind::Syntax(fault) }
    }

    const fn wrong_kind(&self, wanted: Kind, found: Kind) -> ReadError {
        ReadError { offset: self.at, kind: ReadErrorKind::WrongKind { wanted, found } }
    }
}

/// The length of the value that `text` begins with, in the usual cases that need no scanner: a string of ASCII without escapes, a
/// whole number, a literal.
fn usual(text: &[u8]) -> Option<usize> {
    let (first, rest) = text.split_first()?;
    let literal = |word: &[u8]| text.starts_with(word).then_some(word.len());
    match first {
        b'"' => {
            let run = plain_run(rest);
            (rest.get(run) == Some(&b'"')).then_some(run + 2)
        }
        b'1'..=b'9' => {
            let run = digit_run(rest);
            (!matches!(rest.get(run), Some(b'.' | b'e' | b'E'))).then_some(run + 1)
        }
        b'n' => literal(b"null"),
        b't' => literal(b"true"),
        b'f' => literal(b"false"),
        _ => None,
    }
}

/// A string as it is written in the text: its escapes are not resolved yet.
///
/// It equals a `str` whose characters are the same once they are: `key == "id"`. It has no `Debug` output of its content.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    /// UTF-8: it has been checked. It becomes a `str` where one is asked for, since that checks it again.
    raw: &'a [u8],
    escaped: bool,
    /// Offset of the opening quote.
    offset: usize,
}

impl<'a> Text<'a> {
    /// The string, if it is written without escapes.
    #[must_use]
    pub const fn plain(&self) -> Option<&'a str> {
        if self.escaped { None } else { Some(self.raw()) }
    }

    const fn raw(&self) -> &'a str {
        match core::str::from_utf8(self.raw) {
            Ok(raw) => raw,
            // Does not happen.
            Err(_) => "",
        }
    }

    /// Where in the text its opening quote stands, in bytes.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// Its characters, escapes resolved. An error ends them.
    ///
    /// # Errors
    ///
    /// [`ReadErrorKind::LoneSurrogate`].
    #[must_use]
    pub const fn chars(&self) -> TextChars<'a> {
        TextChars { rest: self.raw(), offset: self.offset + 1 }
    }

    /// The string: borrowed from the text if it has no escapes, else resolved into `scratch`.
    ///
    /// # Errors
    ///
    /// It has escapes and does not fit into `scratch`, or holds half a surrogate pair.
    pub fn to_str<'s>(&self, scratch: &'s mut [u8]) -> Result<&'s str, ReadError>
    where
        'a: 's,
    {
        if let Some(plain) = self.plain() {
            return Ok(plain);
        }
        let limit = scratch.len();
        let mut length = 0;
        for char in self.chars() {
            let char = char?;
            let end = length + char.len_utf8();
            let Some(room) = scratch.get_mut(length..end) else {
                return Err(self.too_long(limit));
            };
            char.encode_utf8(room);
            length = end;
        }
        // Made of characters, so this can't fail.
        core::str::from_utf8(scratch.get(..length).unwrap_or_default())
            .map_err(|_| ReadError { offset: self.offset, kind: ReadErrorKind::Syntax(Syntax::BadUtf8) })
    }

    /// The string in memory of its own.
    ///
    /// # Errors
    ///
    /// It is longer than `N` bytes, or holds half a surrogate pair.
    pub fn to_string<const N: usize>(&self) -> Result<heapless::String<N>, ReadError> {
        let mut string = heapless::String::new();
        if let Some(plain) = self.plain() {
            return string.push_str(plain).map(|()| string).map_err(|_| self.too_long(N));
        }
        for char in self.chars() {
            string.push(char?).map_err(|_| self.too_long(N))?;
        }
        Ok(string)
    }

    const fn too_long(&self, limit: usize) -> ReadError {
        ReadError { offset: self.offset, kind: ReadErrorKind::TextTooLong { limit } }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes at {})", self.raw.len(), self.offset)
    }
}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        if !self.escaped {
            return self.raw == other.as_bytes();
        }
        let mut others = other.chars();
        self.chars().all(|char| char.is_ok() && char.ok() == others.next()) && others.next().is_none()
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

/// The characters of a [`Text`], escapes resolved.
#[derive(Clone)]
pub struct TextChars<'a> {
    rest: &'a str,
    offset: usize,
}

impl fmt::Debug for TextChars<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TextChars({} bytes at {})", self.rest.len(), self.offset)
    }
}

impl Iterator for TextChars<'_> {
    type Item = Result<char, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut chars = self.rest.chars();
        let first = chars.next()?;
        let (char, length) = if first != '\\' {
            (Ok(first), first.len_utf8())
        } else {
            match chars.next() {
                Some('b') => (Ok('\u{8}'), 2),
                Some('f') => (Ok('\u{c}'), 2),
                Some('n') => (Ok('\n'), 2),
                Some('r') => (Ok('\r'), 2),
                Some('t') => (Ok('\t'), 2),
                Some('u') => unicode_escape(self.rest.as_bytes()),
                Some(char @ ('"' | '\\' | '/')) => (Ok(char), 2),
                _ => (Err(ReadErrorKind::Syntax(Syntax::BadEscape)), self.rest.len()),
            }
        };
        let offset = self.offset;
        self.offset += length;
        if char.is_ok() {
            self.rest = self.rest.get(length..).unwrap_or_default();
        } else {
            self.rest = "";
        }
        Some(char.map_err(|kind| ReadError { offset, kind }))
    }
}

/// The character that `\uXXXX` at the start of `text` stands for, if need be with a second one (RFC 8259, section 7), and
/// the length of the escape.
fn unicode_escape(text: &[u8]) -> (Result<char, ReadErrorKind>, usize) {
    let Some(unit) = hex4(text.get(2..6)) else {
        return (Err(ReadErrorKind::Syntax(Syntax::BadEscape)), text.len());
    };
    if let Some(char) = char::from_u32(unit) {
        return (Ok(char), 6);
    }
    let low = text.get(6..8).filter(|next| *next == b"\\u").and_then(|_| hex4(text.get(8..12)));
    match low {
        Some(low @ 0xdc00..=0xdfff) if unit < 0xdc00 => {
            let char = char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
            (char.ok_or(ReadErrorKind::LoneSurrogate), 12)
        }
        _ => (Err(ReadErrorKind::LoneSurrogate), 6),
    }
}

fn hex4(digits: Option<&[u8]>) -> Option<u32> {
    digits?.iter().try_fold(0, |number, &digit| Some(number << 4 | char::from(digit).to_digit(16)?))
}
