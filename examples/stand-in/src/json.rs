//! JSON as Python's `json` module reads and writes it, because that is what the backend does to every body.
//!
//! It differs from RFC 8259 readers in what bots can meet: `NaN` and `Infinity` pass, integers have no limit, keys keep
//! their order (a repeated key keeps its first place and its last value), UTF-16 and a byte order mark are
//! understood, a lone surrogate is read but cannot be written again.
//!
//! ```
//! use grafolean_stand_in::Json;
//! let value: Json = r#"{"b": 2.50, "a": 18446744073709551616}"#.parse()?;
//! assert_eq!(value.to_compact()?, r#"{"b":2.5,"a":18446744073709551616}"#);
//! # Ok::<(), grafolean_stand_in::JsonError>(())
//! ```
//!
//! Reading costs one pass and an allocation per string, number and container. Nesting deeper than [`MAX_DEPTH`] is refused,
//! as Python's recursion limit does somewhat later.

use core::fmt;

/// Deepest nesting of lists and objects that is read.
pub const MAX_DEPTH: usize = 500;

/// A JSON value with the order of its keys and the digits of its integers.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer of any size: an optional minus and digits, without leading zeros.
    Int(String),
    /// A number with a fraction or an exponent, or one of the literals `NaN`, `Infinity`, `-Infinity`.
    Float(f64),
    /// A text.
    Str(String),
    /// A text that holds a lone surrogate (shown here as U+FFFD); it can be stored but not written.
    LoneSurrogate(String),
    /// A list.
    List(Vec<Json>),
    /// An object, in the order of its first mentions of the keys.
    Object(Vec<(String, Json)>),
}

/// Why a text is not JSON, or why a value cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum JsonError {
    /// The bytes are in none of the encodings UTF-8, UTF-16, UTF-32.
    Encoding,
    /// Something else was expected at this place.
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Character in the line, from 1.
        column: usize,
        /// What was expected.
        expected: &'static str,
    },
    /// Lists and objects are nested deeper than [`MAX_DEPTH`].
    Depth,
    /// The value holds NaN, an infinity or a lone surrogate, which JSON cannot carry.
    NotWritable,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding => f.write_str("the text is neither UTF-8 nor UTF-16 nor UTF-32"),
            Self::Syntax { line, column, expected } => {
                write!(f, "line {line}, column {column}: expected {expected}")
            }
            Self::Depth => write!(f, "lists and objects are nested deeper than {MAX_DEPTH}"),
            Self::NotWritable => {
                f.write_str("NaN, an infinity or a lone surrogate cannot be written as JSON")
            }
        }
    }
}

impl core::error::Error for JsonError {}

impl Json {
    /// Reads a body: finds out its encoding, then parses it.
    ///
    /// # Errors
    /// [`JsonError`], whenever Python's `json.loads` would raise.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, JsonError> {
        decode(bytes)?.parse()
    }

    /// The same, and the first key that stands twice in an object, of which only the last is kept.
    #[cfg(feature = "server")]
    pub(crate) fn with_key_twice(bytes: &[u8]) -> Result<(Self, Option<String>), JsonError> {
        let text = decode(bytes)?;
        let mut reader = Reader { text: &text, at: 0, twice: None };
        let value = reader.whole()?;
        Ok((value, reader.twice))
    }

    /// An empty object.
    pub const fn object() -> Self {
        Self::Object(Vec::new())
    }

    /// An integer.
    pub fn int(value: impl Into<i64>) -> Self {
        Self::Int(value.into().to_string())
    }

    /// The value of a key, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Self::Object(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// Whether Python takes the value for true in an `if`.
    pub fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(b) => *b,
            Self::Int(digits) => digits != "0",
            Self::Float(x) => *x != 0.0,
            Self::Str(s) => !s.is_empty(),
            Self::LoneSurrogate(_) => true,
            Self::List(items) => !items.is_empty(),
            Self::Object(entries) => !entries.is_empty(),
        }
    }

    /// Writes compact JSON: no spaces, UTF-8, only `"`, `\` and control characters below U+0020 escaped.
    ///
    /// # Errors
    /// [`JsonError::NotWritable`] for NaN, infinities and lone surrogates.
    pub fn to_compact(&self) -> Result<String, JsonError> {
        let mut out = String::new();
        self.write_compact(&mut out)?;
        Ok(out)
    }

    /// Appends what [`to_compact`](Self::to_compact) gives.
    ///
    /// # Errors
    /// As there; `out` then holds the part before.
    pub fn write_compact(&self, out: &mut String) -> Result<(), JsonError> {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Self::Int(digits) => out.push_str(digits),
            Self::Float(x) if x.is_finite() => out.push_str(&python_float(*x)),
            Self::Float(_) | Self::LoneSurrogate(_) => return Err(JsonError::NotWritable),
            Self::Str(s) => write_json_str(s, out),
            Self::List(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write_compact(out)?;
                }
                out.push(']');
            }
            Self::Object(entries) => {
                out.push('{');
                for (i, (key, value)) in entries.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_json_str(key, out);
                    out.push(':');
                    value.write_compact(out)?;
                }
                out.push('}');
            }
        }
        Ok(())
    }

    /// What Python's `str()` gives; it stands in the texts of refusals.
    pub fn python_str(&self) -> String {
        match self {
            Self::Str(s) | Self::LoneSurrogate(s) => s.clone(),
            other => other.python_repr(),
        }
    }

    /// What Python's `repr()` gives.
    pub fn python_repr(&self) -> String {
        match self {
            Self::Null => "None".to_owned(),
            Self::Bool(b) => if *b { "True" } else { "False" }.to_owned(),
            Self::Int(digits) => digits.clone(),
            Self::Float(x) => python_float(*x),
            Self::Str(s) | Self::LoneSurrogate(s) => repr_str(s),
            Self::List(items) => {
                let inner: Vec<String> = items.iter().map(Self::python_repr).collect();
                format!("[{}]", inner.join(", "))
            }
            Self::Object(entries) => {
                let inner: Vec<String> =
                    entries.iter().map(|(k, v)| format!("{}: {}", repr_str(k), v.python_repr())).collect();
                format!("{{{}}}", inner.join(", "))
            }
        }
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

impl core::str::FromStr for Json {
    type Err = JsonError;

    fn from_str(text: &str) -> Result<Self, JsonError> {
        Reader { text, at: 0, twice: None }.whole()
    }
}

/// What Python's `repr()` gives for a double: shortest digits, an exponent below 1e-4 and from 1e16.
pub fn python_float(x: f64) -> String {
    if x.is_nan() {
        return "nan".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{x:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{x}");
        if plain.contains('.') { plain } else { plain + ".0" }
    } else {
        format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    }
}

/// Appends a text as a JSON string in the backend's manner.
pub(crate) fn write_json_str(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn repr_str(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if u32::from(c) < 0x20 || (0x7f..0xa0).contains(&u32::from(c)) => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// The encoding of a body is told by its byte order mark or by where its first NULs are (RFC 4627, section 3).
fn decode(bytes: &[u8]) -> Result<String, JsonError> {
    fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, JsonError> {
        if !bytes.len().is_multiple_of(2) {
            return Err(JsonError::Encoding);
        }
        let units: Vec<u16> = bytes.chunks_exact(2).map(|c| unit([c[0], c[1]])).collect();
        String::from_utf16(&units).map_err(|_| JsonError::Encoding)
    }
    fn utf32(bytes: &[u8], unit: fn([u8; 4]) -> u32) -> Result<String, JsonError> {
        if !bytes.len().is_multiple_of(4) {
            return Err(JsonError::Encoding);
        }
        bytes
            .chunks_exact(4)
            .map(|c| char::from_u32(unit([c[0], c[1], c[2], c[3]])).ok_or(JsonError::Encoding))
            .collect()
    }
    match bytes {
        [0xff, 0xfe, 0, 0, rest @ ..] => utf32(rest, u32::from_le_bytes),
        [0, 0, 0xfe, 0xff, rest @ ..] => utf32(rest, u32::from_be_bytes),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest),
        [0, 0, _, _, ..] => utf32(bytes, u32::from_be_bytes),
        [0, _, _, _, ..] | [0, _] => utf16(bytes, u16::from_be_bytes),
        [_, 0, 0, 0, ..] => utf32(bytes, u32::from_le_bytes),
        [_, 0, _, _, ..] | [_, 0] => utf16(bytes, u16::from_le_bytes),
        _ => utf8(bytes),
    }
}

fn utf8(bytes: &[u8]) -> Result<String, JsonError> {
    core::str::from_utf8(bytes).map(str::to_owned).map_err(|_| JsonError::Encoding)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// The first key that stood twice in an object.
    twice: Option<String>,
}

impl Reader<'_> {
    fn whole(&mut self) -> Result<Json, JsonError> {
        self.skip_space();
        let value = self.value(0)?;
        self.skip_space();
        if self.at == self.text.len() { Ok(value) } else { Err(self.expected("the end of the text")) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expected(&self, expected: &'static str) -> JsonError {
        let before = self.text.get(..self.at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        JsonError::Syntax {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).map_or(0, |l| l.chars().count()) + 1,
            expected,
        }
    }

    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        if depth > MAX_DEPTH {
            return Err(JsonError::Depth);
        }
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                let (text, lone) = self.string()?;
                Ok(if lone { Json::LoneSurrogate(text) } else { Json::Str(text) })
            }
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'-' | b'0'..=b'9') if !self.rest().starts_with("-Infinity") => self.number(),
            _ => self.literal(),
        }
    }

    fn literal(&mut self) -> Result<Json, JsonError> {
        for (literal, value) in [
            ("null", Json::Null),
            ("true", Json::Bool(true)),
            ("false", Json::Bool(false)),
            ("NaN", Json::Float(f64::NAN)),
            ("Infinity", Json::Float(f64::INFINITY)),
            ("-Infinity", Json::Float(f64::NEG_INFINITY)),
        ] {
            if self.rest().starts_with(literal) {
                self.at += literal.len();
                return Ok(value);
            }
        }
        Err(self.expected("a value"))
    }

    fn list(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::List(items));
        }
        loop {
            self.skip_space();
            items.push(self.value(depth + 1)?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Json::List(items));
                }
                _ => return Err(self.expected("`,` or `]`")),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.at += 1;
        let mut entries: Vec<(String, Json)> = Vec::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(entries));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.expected("a key in double quotes"));
            }
            self.at += 1;
            let (key, lone) = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.expected("`:`"));
            }
            self.at += 1;
            self.skip_space();
            let mut value = self.value(depth + 1)?;
            if lone {
                // A key cannot be marked; its value is, with the same effect: the object cannot be written.
                value = Json::LoneSurrogate(value.python_str());
            }
            match entries.iter_mut().find(|(k, _)| *k == key) {
                Some((_, old)) => {
                    *old = value;
                    self.twice.get_or_insert(key);
                }
                None => entries.push((key, value)),
            }
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Json::Object(entries));
                }
                _ => return Err(self.expected("`,` or `}`")),
            }
        }
    }

    fn digits(&mut self) -> usize {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - from
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let from = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else if self.digits() == 0 {
            return Err(self.expected("a digit"));
        }
        let mut end = self.at;
        let mut float = false;
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() > 0 {
                end = self.at;
                float = true;
            }
        }
        self.at = end;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() > 0 {
                end = self.at;
                float = true;
            }
        }
        self.at = end;
        let text = self.text.get(from..end).unwrap_or("");
        if float {
            text.parse().map(Json::Float).map_err(|_| self.expected("a number"))
        } else {
            Ok(Json::Int(if text == "-0" { "0".to_owned() } else { text.to_owned() }))
        }
    }

    /// Reads up to and with the closing quote; tells whether there was a lone surrogate.
    fn string(&mut self) -> Result<(String, bool), JsonError> {
        let mut out = String::new();
        let mut lone = false;
        loop {
            let rest = self.rest();
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ').unwrap_or(rest.len());
            out.push_str(rest.get(..plain).unwrap_or(""));
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok((out, lone));
                }
                Some(b'\\') => {
                    self.at += 1;
                    let escape = self.peek();
                    self.at += 1;
                    out.push(match escape {
                        Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
                        Some(b'b') => '\u{8}',
                        Some(b'f') => '\u{c}',
                        Some(b'n') => '\n',
                        Some(b'r') => '\r',
                        Some(b't') => '\t',
                        Some(b'u') => {
                            let first = self.four_hex()?;
                            match char::from_u32(first) {
                                Some(c) => c,
                                None => self.low_surrogate(first)?.unwrap_or_else(|| {
                                    lone = true;
                                    char::REPLACEMENT_CHARACTER
                                }),
                            }
                        }
                        _ => {
                            self.at = (self.at - 1).min(self.text.len());
                            return Err(self.expected("an escape"));
                        }
                    });
                }
                _ => return Err(self.expected("the end of the string, or an escape for a control character")),
            }
        }
    }

    fn low_surrogate(&mut self, first: u32) -> Result<Option<char>, JsonError> {
        if !(0xd800..0xdc00).contains(&first) || !self.rest().starts_with("\\u") {
            return Ok(None);
        }
        let before = self.at;
        self.at += 2;
        let second = self.four_hex()?;
        if (0xdc00..0xe000).contains(&second) {
            Ok(char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)))
        } else {
            self.at = before;
            Ok(None)
        }
    }

    fn four_hex(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let value = digits.and_then(|d| u32::from_str_radix(d, 16).ok());
        match value {
            Some(value) => {
                self.at += 4;
                Ok(value)
            }
            None => Err(self.expected("four hexadecimal digits")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compact(text: &str) -> String {
        text.parse::<Json>().unwrap().to_compact().unwrap()
    }

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        assert_eq!(
            compact(
                "[2.50, 1.0, 1e300, -0.0, -3e-7, 123456789012345678901234567890, -0, 1e16, 123456789012345.5, 0.0001]"
            ),
            "[2.5,1.0,1e+300,-0.0,-3e-07,123456789012345678901234567890,0,1e+16,123456789012345.5,0.0001]"
        );
        assert_eq!(python_float(5e-324), "5e-324");
        assert_eq!(python_float(1e15), "1000000000000000.0");
        assert_eq!(python_float(1.2345678901234568e29), "1.2345678901234568e+29");
    }

    #[test]
    fn only_quotes_backslashes_and_controls_are_escaped() {
        let text =
            "\"\\u0000\\u0001\\u001f\u{7f}\u{80}\u{2028} \\\" \\\\ \\/ \\b\\f\\n\\r\\t \\ud83d\\ude00\"";
        assert_eq!(
            compact(text),
            "\"\\u0000\\u0001\\u001f\u{7f}\u{80}\u{2028} \\\" \\\\ / \\b\\f\\n\\r\\t 😀\""
        );
    }

    #[test]
    fn repeated_keys_keep_the_first_place_and_the_last_value() {
        assert_eq!(compact(r#"{"a":1,"b":2,"a":3}"#), r#"{"a":3,"b":2}"#);
    }

    #[test]
    fn lone_surrogates_and_non_finite_numbers_are_read_but_not_written() {
        for text in ["\"\\ud800\"", "{\"\\udc00\":1}", "NaN", "-Infinity", "[1e309]"] {
            assert_eq!(text.parse::<Json>().unwrap().to_compact(), Err(JsonError::NotWritable), "{text}");
        }
    }

    #[test]
    fn other_encodings_are_understood() {
        let utf16: Vec<u8> =
            [0xff, 0xfe].into_iter().chain("[1]".encode_utf16().flat_map(u16::to_le_bytes)).collect();
        assert_eq!(Json::from_bytes(&utf16).unwrap(), Json::List(vec![Json::int(1)]));
        assert_eq!(Json::from_bytes(b"\xef\xbb\xbf[1]").unwrap(), Json::List(vec![Json::int(1)]));
        assert_eq!(Json::from_bytes(b"[\0]\0").unwrap(), Json::List(vec![]));
        assert_eq!(Json::from_bytes(b"\xff\xff\xff"), Err(JsonError::Encoding));
    }

    #[test]
    fn broken_texts_are_refused_with_their_place() {
        assert_eq!(
            "{\n  \"a\" 1}".parse::<Json>(),
            Err(JsonError::Syntax { line: 2, column: 7, expected: "`:`" })
        );
        for text in [
            "",
            "[1,]",
            "01",
            "1.",
            ".5",
            "-",
            "\"\u{1}\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"",
            "{\"a\":1,}",
            "nul",
            "[1] 2",
            "\"\\",
            "\"\\u",
        ] {
            assert!(text.parse::<Json>().is_err(), "{text}");
        }
        assert_eq!("[".repeat(MAX_DEPTH + 2).parse::<Json>(), Err(JsonError::Depth));
    }

    #[test]
    fn refusals_show_values_as_python_does() {
        for (json, shown) in [
            ("null", "None"),
            ("[1, \"a\", true]", "[1, 'a', True]"),
            ("{}", "{}"),
            ("{\"a\": 1.0}", "{'a': 1.0}"),
            ("\"it's\"", "it's"),
            ("[\"it's\"]", "[\"it's\"]"),
        ] {
            assert_eq!(json.parse::<Json>().unwrap().python_str(), shown);
        }
    }
}
