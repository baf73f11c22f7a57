//! Decodes one JSON text into a type with serde's `Deserialize`, without allocation: [`from_slice`].

use core::fmt::{self, Write};
use core::marker::PhantomData;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, Expected, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};

use super::lenient::DECIMAL;
use super::number::{DecimalParser, NumberError};
use super::reader::{Kind, ReadError, ReadErrorKind, Reader, Text};

/// How many arrays, objects and enums with content may lie in each other where a text is decoded: 32.
///
/// Decoding calls itself for each level, so this bounds the stack. What a type ignores may be nested as deep as
/// [`MAX_DEPTH`](super::MAX_DEPTH).
pub const DECODE_DEPTH: u8 = 32;

/// Decodes `text`, one JSON value, into a `T`.
///
/// - Strings without escapes can be borrowed from `text` (`&str`). Those with escapes are resolved in `scratch`, one at a
///   time, and must fit into it; their type must own its characters (`heapless::String`).
/// - Where the type asks for an integer or a float, `60`, `60.0`, `6e1` and strings that hold a number (`"60"`, `" 60.0 "`)
///   are all taken, since Grafolean's web page stores any of them. For fractions without float code on a board
///   there are [`Decimal`](super::Decimal) and [`DurationMs`](super::DurationMs).
/// - Enums are tagged externally: `"Unit"` or `{"Variant": content}`.
/// - Unknown fields are ignored, unless the type refuses them.
///
/// Integers of 128 bits, and what in serde needs an allocator (`flatten`, untagged and internally tagged enums), don't
/// work. Nothing parses floats unless `T` asks for one (or for a value of any kind), which costs kilobytes of flash.
///
/// ```
/// use grafolean_core::json::{DurationMs, from_slice};
///
/// #[derive(serde::Deserialize)]
/// struct Details {
///     ipv4: heapless::String<15>,
///     timeout: DurationMs,
///     #[serde(default)]
///     retry: u8,
/// }
///
/// let text = br#"{"ipv4":"192.0.2.1","timeout":"1.5","retry":2.0,"note":["ignored"]}"#;
/// let details: Details = from_slice(text, &mut [0; 64])?;
/// assert_eq!((details.ipv4.as_str(), details.timeout.as_millis(), details.retry), ("192.0.2.1", 1500, 2));
///
/// let error = from_slice::<Details>(br#"{"ipv4":"192.0.2.1","timeout":-1}"#, &mut []).err();
/// assert_eq!(
///     error.map(|error| error.to_string()).as_deref(),
///     Some("unfit value, expected 0 to 4294967.295 seconds (field `timeout`, byte 30)")
/// );
/// # Ok::<(), grafolean_core::json::DecodeError>(())
/// ```
///
/// # Errors
///
/// `text` is not JSON, or does not fit `T`; the error says where and why, and holds nothing of the text.
pub fn from_slice<'de, T: Deserialize<'de>>(text: &'de [u8], scratch: &mut [u8]) -> Result<T, DecodeError> {
    from_reader(Reader::new(text), scratch)
}

/// [`from_slice`] for an element that the framer handed on, or a value in one: what has been checked there is not checked again, see
/// [`Reader::framed`].
///
/// # Errors
///
/// It does not fit `T`.
pub fn from_element<'de, T: Deserialize<'de>>(
    element: &'de [u8],
    scratch: &mut [u8],
) -> Result<T, DecodeError> {
    from_reader(Reader::framed(element), scratch)
}

/// Decodes the value of a reader that has not read anything, with any error: what an error knows, and how large it is, is in all code
/// that decodes.
pub(crate) fn from_reader<'de, T: Deserialize<'de>, E: Failure>(
    reader: Reader<'de>,
    scratch: &mut [u8],
) -> Result<T, E> {
    let mut decoder: Decoder<'_, '_, E> =
        Decoder { reader, scratch, depth: 0, name: None, error: PhantomData };
    let value = decoder.located(|decoder| T::deserialize(decoder))?;
    decoder.reader.end()?;
    Ok(value)
}

/// What the decoder asks of its errors.
pub(crate) trait Failure: Error + From<ReadError> {
    /// A value is of another kind than its type.
    fn wrong_kind(found: &'static str, expected: &dyn Expected) -> Self;
    /// An array has more items than its type, or an enum's object more than its one key.
    fn too_many_items() -> Self;
    /// Nested deeper than [`DECODE_DEPTH`] levels.
    fn too_deep() -> Self;
    /// It happened at this offset, unless it knows better.
    fn locate(&mut self, offset: usize);
    /// The innermost field that is known.
    fn field(&self) -> Option<&'static str>;
    /// That field.
    fn set_field(&mut self, field: Option<&'static str>);
}

/// Why a text could not be decoded, and where.
///
/// It holds nothing of the text, since that may be secret: names of fields and variants come from the type.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DecodeError {
    /// `UNKNOWN` until the place where the error passes knows it.
    offset: usize,
    field: Option<&'static str>,
    kind: DecodeErrorKind,
}

const UNKNOWN: usize = usize::MAX;

/// What a type says it expects, cut after 40 bytes.
pub type Expectation = heapless::String<40, u8>;

/// Why a text could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// It could not be read.
    Read(ReadErrorKind),
    /// A value is of another kind than its type.
    WrongKind {
        /// What is there.
        found: &'static str,
        /// What the type expects.
        expected: Expectation,
    },
    /// A value is of the right kind, but not one that its type takes: out of range, for instance.
    UnfitValue {
        /// What the type expects.
        expected: Expectation,
    },
    /// A string, array or object is too long or too short for its type.
    WrongLength {
        /// Its length, as far as it was counted.
        length: usize,
        /// What the type expects.
        expected: Expectation,
    },
    /// An array has more items than its type, or an enum's object more than its one key.
    TooManyItems,
    /// A field is missing.
    MissingField(&'static str),
    /// A field comes twice.
    DuplicateField(&'static str),
    /// A key is not one of these fields, and the type refuses others.
    UnknownField(&'static [&'static str]),
    /// A string or key is not one of these variants.
    UnknownVariant(&'static [&'static str]),
    /// Nested deeper than [`DECODE_DEPTH`] levels.
    TooDeep,
    /// The type refused the value for a reason of its own. Its words are not kept: they might quote the value. A type
    /// that wants to be heard uses [`serde::de::Error::invalid_value`], whose second argument is kept.
    Refused,
}

impl DecodeError {
    /// Offset in the text, in bytes: of the fault where it is in the syntax, else of the value (for a missing field, of the
    /// object).
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> &DecodeErrorKind {
        &self.kind
    }

    /// The innermost field of a struct whose value is at fault or holds the fault, if there is one.
    #[must_use]
    pub const fn field(&self) -> Option<&'static str> {
        self.field
    }

    const fn new(kind: DecodeErrorKind) -> Self {
        Self { offset: UNKNOWN, field: None, kind }
    }
}

impl From<ReadError> for DecodeError {
    fn from(error: ReadError) -> Self {
        Self { offset: error.offset, field: None, kind: DecodeErrorKind::Read(error.kind) }
    }
}

impl fmt::Display for DecodeErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(kind) => write!(f, "{kind}"),
            Self::WrongKind { found, expected } => write!(f, "expected {expected}, found {found}"),
            Self::UnfitValue { expected } => write!(f, "unfit value, expected {expected}"),
            Self::WrongLength { length, expected } => write!(f, "unfit length {length}, expected {expected}"),
            Self::TooManyItems => f.write_str("more items than expected"),
            Self::MissingField(field) => write!(f, "missing field `{field}`"),
            Self::DuplicateField(field) => write!(f, "field `{field}` comes twice"),
            Self::UnknownField(fields) => one_of(f, "unknown field", fields),
            Self::UnknownVariant(variants) => one_of(f, "unknown variant", variants),
            Self::TooDeep => write!(f, "nested deeper than {DECODE_DEPTH} levels"),
            Self::Refused => f.write_str("refused by its type"),
        }
    }
}

fn one_of(f: &mut fmt::Formatter<'_>, what: &str, names: &[&str]) -> fmt::Result {
    f.write_str(what)?;
    let mut before = ", expected ";
    for name in names {
        write!(f, "{before}`{name}`")?;
        before = " or ";
    }
    Ok(())
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.kind)?;
        if let Some(field) = self.field {
            write!(f, "field `{field}`, ")?;
        }
        write!(f, "byte {})", self.offset)
    }
}

impl core::error::Error for DecodeError {}

impl Error for DecodeError {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::new(DecodeErrorKind::Refused)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(DecodeErrorKind::WrongKind { found: kind_of(&found), expected: expectation(expected) })
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(DecodeErrorKind::UnfitValue { expected: expectation(expected) })
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(DecodeErrorKind::WrongLength { length, expected: expectation(expected) })
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(DecodeErrorKind::UnknownVariant(expected))
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(DecodeErrorKind::UnknownField(expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(DecodeErrorKind::MissingField(field))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(DecodeErrorKind::DuplicateField(field))
    }
}

impl Failure for DecodeError {
    fn wrong_kind(found: &'static str, expected: &dyn Expected) -> Self {
        Self::new(DecodeErrorKind::WrongKind { found, expected: expectation(expected) })
    }

    fn too_many_items() -> Self {
        Self::new(DecodeErrorKind::TooManyItems)
    }

    fn too_deep() -> Self {
        Self::new(DecodeErrorKind::TooDeep)
    }

    fn locate(&mut self, offset: usize) {
        if self.offset == UNKNOWN {
            self.offset = offset;
        }
    }

    fn field(&self) -> Option<&'static str> {
        self.field
    }

    fn set_field(&mut self, field: Option<&'static str>) {
        self.field = field;
    }
}

/// The kind alone; serde's own words would quote the value.
const fn kind_of(found: &Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a number",
        Unexpected::Char(_) | Unexpected::Str(_) | Unexpected::Bytes(_) => "a string",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "an array",
        Unexpected::Map => "an object",
        Unexpected::UnitVariant => "a variant without content",
        Unexpected::NewtypeVariant | Unexpected::TupleVariant | Unexpected::StructVariant => {
            "a variant with content"
        }
        _ => "something else",
    }
}

fn expectation(expected: &dyn Expected) -> Expectation {
    /// Takes as many characters as fit.
    struct Cut(Expectation);
    impl Write for Cut {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            text.chars().try_for_each(|char| self.0.push(char)).map_err(|_| fmt::Error)
        }
    }
    let mut cut = Cut(Expectation::new());
    // An error means that the rest was cut.
    let _ = write!(cut, "{expected}");
    cut.0
}

/// A serde deserializer over a reader.
struct Decoder<'de, 's, E> {
    reader: Reader<'de>,
    scratch: &'s mut [u8],
    depth: u8,
    /// The key that comes next, if it is known as the field of a struct.
    name: Option<&'static str>,
    error: PhantomData<fn() -> E>,
}

impl<'de, E: Failure> Decoder<'de, '_, E> {
    /// Decodes the value that comes next; an error that does not know where it happened learns it.
    fn located<T>(&mut self, decode: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        self.reader.skip_blanks();
        let offset = self.reader.offset();
        decode(self).map_err(|mut error| {
            error.locate(offset);
            error
        })
    }

    /// Decodes something nested.
    fn nested<T>(&mut self, decode: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        if self.depth == DECODE_DEPTH {
            return Err(E::too_deep());
        }
        self.depth += 1;
        let value = decode(self);
        self.depth -= 1;
        value
    }

    /// The value that comes next is not of the kind that the type asks for.
    #[cold]
    fn mismatch(&mut self, expected: &dyn Expected) -> E {
        let found = match self.reader.peek() {
            Err(error) => return error.into(),
            Ok(Kind::Null) => "null",
            Ok(Kind::Bool) => "a boolean",
            Ok(Kind::Number) => "a number",
            Ok(Kind::String) => "a string",
            Ok(Kind::Array) => "an array",
            Ok(Kind::Object) => "an object",
        };
        E::wrong_kind(found, expected)
    }

    fn visit_text<V: Visitor<'de>>(&mut self, text: Text<'de>, visitor: V) -> Result<V::Value, E> {
        match text.plain() {
            Some(plain) => visitor.visit_borrowed_str(plain),
            None => visitor.visit_str(text.to_str(self.scratch)?),
        }
    }

    fn visit_integer<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, E> {
        // The usual case first.
        if let Some(number) = self.reader.plain_int() {
            return visitor.visit_u64(number);
        }
        let (Kind::Number | Kind::String) = self.reader.peek()? else { return Err(self.mismatch(&visitor)) };
        let offset = self.reader.offset();
        let number = self.reader.decimal()?;
        let unfit = |error| E::from(ReadError { offset, kind: ReadErrorKind::Number(error) });
        if number.is_negative() {
            visitor.visit_i64(number.to_i64().map_err(unfit)?)
        } else {
            visitor.visit_u64(number.to_u64().map_err(unfit)?)
        }
    }

    /// The text of a number, or of the number in a string, in a form that `core` parses.
    fn number_text(&mut self, expected: &dyn Expected) -> Result<&str, E> {
        match self.reader.peek()? {
            Kind::Number => Ok(core::str::from_utf8(self.reader.number()?).unwrap_or_default()),
            Kind::String => {
                let text = self.reader.text()?;
                let offset = text.offset();
                let text = text.to_str(self.scratch)?;
                // `core` would take infinities too.
                let mut parser = DecimalParser::new();
                text.bytes().for_each(|byte| parser.push(byte));
                if parser.finish() == Err(NumberError::NotANumber) {
                    let kind = ReadErrorKind::Number(NumberError::NotANumber);
                    return Err(ReadError { offset, kind }.into());
                }
                Ok(text.trim_matches([' ', '\t', '\n', '\r']))
            }
            _ => Err(self.mismatch(expected)),
        }
    }

    fn visit_array<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, E> {
        self.reader.enter();
        self.nested(|decoder| {
            let mut items = Items { decoder, ended: false };
            let value = visitor.visit_seq(&mut items)?;
            if !items.ended && items.decoder.reader.next_item()? {
                return Err(E::too_many_items());
            }
            Ok(value)
        })
    }

    fn visit_object<V: Visitor<'de>>(
        &mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, E> {
        self.reader.enter();
        self.nested(|decoder| {
            let mut members = Members { decoder, fields, guess: 0, key: 0, ended: false };
            let value = visitor.visit_map(&mut members)?;
            if !members.ended && members.decoder.reader.before_key()? {
                return Err(E::too_many_items());
            }
            Ok(value)
        })
    }
}

/// A float out of the range of its type.
fn out_of_range<E: Failure>() -> E {
    ReadError { offset: UNKNOWN, kind: ReadErrorKind::Number(NumberError::OutOfRange) }.into()
}

macro_rules! integers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
            self.visit_integer(visitor)
        })*
    };
}

macro_rules! only {
    ($($method:ident: $kind:ident => $visit:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
            match self.reader.peek()? {
                Kind::$kind => self.$visit(visitor),
                _ => Err(self.mismatch(&visitor)),
            }
        })*
    };
}

impl<'de, E: Failure> Decoder<'de, '_, E> {
    fn visit_string<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, E> {
        let text = self.reader.text()?;
        self.visit_text(text, visitor)
    }

    /// A field of a struct is known by its name, which need not be checked to be UTF-8.
    fn visit_name<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, E> {
        if let Some(name) = self.name.take() {
            self.reader.skip_key(name);
            return visitor.visit_borrowed_str(name);
        }
        match self.reader.peek()? {
            Kind::String => self.visit_string(visitor),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn visit_bool<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_bool(self.reader.bool()?)
    }

    fn visit_null<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, E> {
        self.reader.skip_value()?;
        visitor.visit_unit()
    }

    fn visit_members<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, E> {
        self.visit_object(&[], visitor)
    }
}

impl<'de, E: Failure> Deserializer<'de> for &mut Decoder<'de, '_, E> {
    type Error = E;

    /// Integers that fit into 64 bits come as such, all other numbers as f64, as in serde_json.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.reader.peek()? {
            Kind::Null => self.visit_null(visitor),
            Kind::Bool => self.visit_bool(visitor),
            Kind::String => self.visit_string(visitor),
            Kind::Array => self.visit_array(visitor),
            Kind::Object => self.visit_members(visitor),
            Kind::Number => {
                let text = self.number_text(&visitor)?;
                // `core` refuses points and exponents here. -0 stays a float, or it would lose its sign.
                if text != "-0" {
                    if let Ok(number) = text.parse() {
                        return visitor.visit_u64(number);
                    }
                    if let Ok(number) = text.parse() {
                        return visitor.visit_i64(number);
                    }
                }
                match text.parse::<f64>() {
                    Ok(number) if number.is_finite() => visitor.visit_f64(number),
                    _ => Err(out_of_range()),
                }
            }
        }
    }

    integers!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64);
    integers!(deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64);

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.number_text(&visitor)?.parse::<f32>() {
            Ok(number) if number.is_finite() => visitor.visit_f32(number),
            _ => Err(out_of_range()),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.number_text(&visitor)?.parse::<f64>() {
            Ok(number) if number.is_finite() => visitor.visit_f64(number),
            _ => Err(out_of_range()),
        }
    }

    only! {
        deserialize_bool: Bool => visit_bool
        deserialize_char: String => visit_string
        deserialize_str: String => visit_string
        deserialize_string: String => visit_string
        deserialize_unit: Null => visit_null
        deserialize_seq: Array => visit_array
        deserialize_map: Object => visit_members
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        self.visit_name(visitor)
    }

    /// The bytes of a string, or an array of integers.
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.reader.peek()? {
            Kind::String => {
                let text = self.reader.text()?;
                match text.plain() {
                    Some(plain) => visitor.visit_borrowed_bytes(plain.as_bytes()),
                    None => visitor.visit_bytes(text.to_str(self.scratch)?.as_bytes()),
                }
            }
            Kind::Array => self.visit_array(visitor),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        if self.reader.null()? { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, E> {
        self.deserialize_unit(visitor)
    }

    // Inlined, so that a type of fixed name keeps one of the two ways only: that of `Decimal` without float code.
    #[inline(always)]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, E> {
        if name == DECIMAL {
            // For the error that says more than the visitor's would.
            self.reader.clone().decimal()?;
            visitor.visit_str(self.number_text(&"a number")?)
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, E> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, E> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, E> {
        match self.reader.peek()? {
            Kind::Object => self.visit_object(fields, visitor),
            Kind::Array => self.visit_array(visitor),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, E> {
        match self.reader.peek()? {
            Kind::String => visitor.visit_enum(UnitVariant(self)),
            Kind::Object => {
                self.reader.begin_object()?;
                self.nested(|decoder| {
                    if !decoder.reader.before_key()? {
                        return Err(Error::invalid_length(0, &"an object with one key, the variant"));
                    }
                    let value = visitor.visit_enum(ContentVariant(decoder))?;
                    if decoder.reader.before_key()? {
                        return Err(E::too_many_items());
                    }
                    Ok(value)
                })
            }
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        self.reader.skip_value()?;
        visitor.visit_unit()
    }
}

/// The items of an array.
struct Items<'d, 'de, 's, E> {
    decoder: &'d mut Decoder<'de, 's, E>,
    ended: bool,
}

impl<'de, E: Failure> SeqAccess<'de> for Items<'_, 'de, '_, E> {
    type Error = E;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, E> {
        self.ended = self.ended || !self.decoder.reader.next_item()?;
        if self.ended {
            return Ok(None);
        }
        self.decoder.located(|decoder| seed.deserialize(decoder)).map(Some)
    }
}

/// The members of an object.
struct Members<'d, 'de, 's, E> {
    decoder: &'d mut Decoder<'de, 's, E>,
    fields: &'static [&'static str],
    /// Which field is expected next.
    guess: usize,
    /// Offset of the key read last: should its value be at fault, the field is found by it.
    key: usize,
    ended: bool,
}

impl<'de, E: Failure> MapAccess<'de> for Members<'_, 'de, '_, E> {
    type Error = E;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, E> {
        self.ended = self.ended || !self.decoder.reader.before_key()?;
        if self.ended {
            return Ok(None);
        }
        let reader = &self.decoder.reader;
        self.key = reader.offset();
        if let Some(name) = reader.plain_name(self.fields, self.guess) {
            self.guess = name + 1;
            self.decoder.name = self.fields.get(name).copied();
        }
        let key = self.decoder.located(|decoder| seed.deserialize(decoder));
        self.decoder.name = None;
        key.map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, E> {
        self.decoder.reader.after_key()?;
        self.decoder.located(|decoder| seed.deserialize(decoder)).map_err(|mut error| {
            if let (None, Ok(key)) = (error.field(), self.decoder.reader.at(self.key).text()) {
                error.set_field(self.fields.iter().find(|field| key == **field).copied());
            }
            error
        })
    }
}

/// An enum written as a string: a variant without content.
struct UnitVariant<'d, 'de, 's, E>(&'d mut Decoder<'de, 's, E>);

impl<'de, E: Failure> EnumAccess<'de> for UnitVariant<'_, 'de, '_, E> {
    type Error = E;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), E> {
        let variant = seed.deserialize(&mut *self.0)?;
        Ok((variant, self))
    }
}

impl<'de, E: Failure> VariantAccess<'de> for UnitVariant<'_, 'de, '_, E> {
    type Error = E;

    fn unit_variant(self) -> Result<(), E> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, E> {
        Err(Error::invalid_type(Unexpected::UnitVariant, &"a variant with content"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, E> {
        Err(Error::invalid_type(Unexpected::UnitVariant, &"a variant with content"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, E> {
        Err(Error::invalid_type(Unexpected::UnitVariant, &"a variant with content"))
    }
}

/// An enum written as an object: one key, the variant, and its content.
struct ContentVariant<'d, 'de, 's, E>(&'d mut Decoder<'de, 's, E>);

impl<'de, E: Failure> EnumAccess<'de> for ContentVariant<'_, 'de, '_, E> {
    type Error = E;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), E> {
        let variant = self.0.located(|decoder| seed.deserialize(decoder))?;
        self.0.reader.after_key()?;
        Ok((variant, self))
    }
}

impl<'de, E: Failure> VariantAccess<'de> for ContentVariant<'_, 'de, '_, E> {
    type Error = E;

    fn unit_variant(self) -> Result<(), E> {
        self.0.located(|decoder| Deserialize::deserialize(decoder))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, E> {
        self.0.located(|decoder| seed.deserialize(decoder))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, E> {
        self.0.located(|decoder| decoder.deserialize_seq(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, E> {
        self.0.located(|decoder| decoder.deserialize_struct("", fields, visitor))
    }
}
