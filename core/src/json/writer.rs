//! Writes JSON into bounded memory: [`Writer`].

use core::fmt::{self, Write};

use super::scanner::Scanner;

/// Writes one JSON value, such as the body of a request, into memory that the caller lends.
///
/// Calls never fail by themselves: bytes that don't fit are counted, and [`finish`](Self::finish) tells how many would have
/// been needed, or that calls came in an order that makes no JSON. The output is compact, and escapes only what must be.
///
/// ```
/// use grafolean_core::json::Writer;
///
/// let mut buffer = [0; 64];
/// let mut json = Writer::new(&mut buffer);
/// json.begin_object().key("name").string("eth\"0\"").key("details").begin_object();
/// json.key("snmp_index").display(&1).end_object().key("parent").u64(42).end_object();
/// let len = json.finish()?;
/// assert_eq!(&buffer[..len], br#"{"name":"eth\"0\"","details":{"snmp_index":"1"},"parent":42}"#);
/// # Ok::<(), grafolean_core::json::WriteError>(())
/// ```
///
/// A body that is sent in pieces can be written without ever lying in memory as a whole: once into no memory, for its
/// length, and then once for each piece ([`window`](Self::window)).
///
/// Cost: one pass over what is written, no memory but the buffer, 32 levels.
#[derive(Debug)]
pub struct Writer<'b> {
    buffer: &'b mut [u8],
    /// Offset in the output of the buffer's first byte.
    offset: usize,
    /// The output may be longer than the buffer.
    is_window: bool,
    total: usize,
    place: Place,
    depth: u32,
    /// One bit for each level: set for an object.
    objects: u32,
    misused: bool,
}

/// Where in the output the next call writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before anything, or just inside a bracket.
    First,
    /// After a key.
    AfterKey,
    /// After a value.
    AfterValue,
}

/// Why a value could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum WriteError {
    /// It does not fit into the buffer.
    TooLong {
        /// Its length in bytes.
        needed: usize,
        /// The buffer's length in bytes.
        limit: usize,
    },
    /// The calls make no JSON: a key outside an object, a value without its key, brackets that don't match, more than 32
    /// levels, no value or two, or something else given to [`Writer::raw`].
    NotJson,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { needed, limit } => write!(f, "{needed} bytes of JSON do not fit into {limit}"),
            Self::NotJson => f.write_str("what was written is not JSON"),
        }
    }
}

impl core::error::Error for WriteError {}

impl<'b> Writer<'b> {
    /// Writes to the start of `buffer`, which must have room for all.
    pub const fn new(buffer: &'b mut [u8]) -> Self {
        Self {
            buffer,
            offset: 0,
            is_window: false,
            total: 0,
            place: Place::First,
            depth: 0,
            objects: 0,
            misused: false,
        }
    }

    /// Writes only those bytes of the output that lie at `offset` and after, as many as `buffer` has room for.
    pub const fn window(buffer: &'b mut [u8], offset: usize) -> Self {
        Self { offset, is_window: true, ..Self::new(buffer) }
    }

    /// How long the output is so far, in bytes, whether or not it fits.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.total
    }

    /// Ends the value, and tells how many bytes of the buffer hold output.
    ///
    /// # Errors
    ///
    /// It does not fit (never so for a [`window`](Self::window)), or is not JSON.
    pub fn finish(&self) -> Result<usize, WriteError> {
        if self.misused || self.depth > 0 || self.place != Place::AfterValue {
            return Err(WriteError::NotJson);
        }
        if !self.is_window && self.total > self.buffer.len() {
            return Err(WriteError::TooLong { needed: self.total, limit: self.buffer.len() });
        }
        Ok(self.total.saturating_sub(self.offset).min(self.buffer.len()))
    }

    /// Begins an object: keys and values follow in turn.
    pub fn begin_object(&mut self) -> &mut Self {
        self.begin(b"{", true)
    }

    /// Ends an object.
    pub fn end_object(&mut self) -> &mut Self {
        self.end(b"}", true)
    }

    /// Begins an array: values follow.
    pub fn begin_array(&mut self) -> &mut Self {
        self.begin(b"[", false)
    }

    /// Ends an array.
    pub fn end_array(&mut self) -> &mut Self {
        self.end(b"]", false)
    }

    /// Writes a key of an object; its value follows.
    pub fn key(&mut self, key: &str) -> &mut Self {
        match self.place {
            _ if !self.in_object() => self.misused = true,
            Place::First => {}
            Place::AfterValue => self.put(b","),
            Place::AfterKey => self.misused = true,
        }
        self.put(b"\"");
        self.put_escaped(key);
        self.put(b"\":");
        self.place = Place::AfterKey;
        self
    }

    /// Writes a string.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.before_value();
        self.put(b"\"");
        self.put_escaped(text);
        self.put(b"\"");
        self
    }

    /// Writes what `value` shows as a string, in quotes: numbers that the backend wants as strings, addresses.
    pub fn display(&mut self, value: &dyn fmt::Display) -> &mut Self {
        self.before_value();
        self.put(b"\"");
        if write!(Escaped(self), "{value}").is_err() {
            self.misused = true;
        }
        self.put(b"\"");
        self
    }

    /// Writes a whole number.
    pub fn u64(&mut self, number: u64) -> &mut Self {
        self.bare(format_args!("{number}"))
    }

    /// Writes a whole number.
    pub fn i64(&mut self, number: i64) -> &mut Self {
        self.bare(format_args!("{number}"))
    }

    /// Writes a decimal number.
    pub fn decimal(&mut self, number: super::Decimal) -> &mut Self {
        self.bare(format_args!("{number}"))
    }

    /// Writes `true` or `false`.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.before_value();
        self.put(if value { b"true" } else { b"false" });
        self
    }

    /// Writes `null`.
    pub fn null(&mut self) -> &mut Self {
        self.before_value();
        self.put(b"null");
        self
    }

    /// Writes a value that is JSON already, such as one that was read; it is checked.
    pub fn raw(&mut self, json: &[u8]) -> &mut Self {
        let mut scanner = Scanner::new();
        let ends = scanner.scan(json).is_ok_and(|end| end.is_none_or(|end| end == json.len()));
        if !ends || !scanner.is_complete() || scanner.too_deep() {
            self.misused = true;
        }
        self.before_value();
        self.put(json);
        self
    }

    const fn in_object(&self) -> bool {
        self.depth > 0 && self.objects & 1 != 0
    }

    fn begin(&mut self, bracket: &[u8], object: bool) -> &mut Self {
        self.before_value();
        self.put(bracket);
        if self.depth == u32::BITS {
            self.misused = true;
        } else {
            self.depth += 1;
            self.objects = self.objects << 1 | u32::from(object);
        }
        self.place = Place::First;
        self
    }

    fn end(&mut self, bracket: &[u8], object: bool) -> &mut Self {
        if self.depth == 0 || self.in_object() != object || self.place == Place::AfterKey {
            self.misused = true;
        }
        self.put(bracket);
        self.depth = self.depth.saturating_sub(1);
        self.objects >>= 1;
        self.place = Place::AfterValue;
        self
    }

    fn before_value(&mut self) {
        match self.place {
            Place::AfterKey => {}
            _ if self.in_object() => self.misused = true,
            Place::First => {}
            Place::AfterValue if self.depth == 0 => self.misused = true,
            Place::AfterValue => self.put(b","),
        }
        self.place = Place::AfterValue;
    }

    fn bare(&mut self, value: fmt::Arguments<'_>) -> &mut Self {
        self.before_value();
        if Bare(self).write_fmt(value).is_err() {
            self.misused = true;
        }
        self
    }

    /// RFC 8259, section 7: quotes, backslashes and control characters must be escaped.
    fn put_escaped(&mut self, text: &str) {
        let mut rest = text.as_bytes();
        while let Some(at) = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
            let (plain, special) = rest.split_at(at);
            self.put(plain);
            let Some((&byte, after)) = special.split_first() else { break };
            rest = after;
            match byte {
                b'"' => self.put(b"\\\""),
                b'\\' => self.put(b"\\\\"),
                0x8 => self.put(b"\\b"),
                0xc => self.put(b"\\f"),
                b'\n' => self.put(b"\\n"),
                b'\r' => self.put(b"\\r"),
                b'\t' => self.put(b"\\t"),
                _ => {
                    let digit = b"0123456789abcdef"[usize::from(byte & 0xf)];
                    self.put(&[b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), digit]);
                }
            }
        }
        self.put(rest);
    }

    /// Counts the bytes, and copies those of them that lie in the buffer's window.
    fn put(&mut self, bytes: &[u8]) {
        let before = self.offset.saturating_sub(self.total).min(bytes.len());
        let at = self.total.saturating_sub(self.offset).min(self.buffer.len());
        self.total += bytes.len();
        let (Some(room), Some(bytes)) = (self.buffer.get_mut(at..), bytes.get(before..)) else { return };
        let fits = room.len().min(bytes.len());
        if let (Some(to), Some(from)) = (room.get_mut(..fits), bytes.get(..fits)) {
            to.copy_from_slice(from);
        }
    }
}

/// Formatted text inside quotes.
struct Escaped<'w, 'b>(&'w mut Writer<'b>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.put_escaped(text);
        Ok(())
    }
}

/// Formatted numbers.
struct Bare<'w, 'b>(&'w mut Writer<'b>);

impl Write for Bare<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.put(text.as_bytes());
        Ok(())
    }
}
