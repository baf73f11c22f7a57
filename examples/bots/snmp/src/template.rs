//! A sensor's output path with its placeholders: checked when it is parsed, written once for each row.
//!
//! ```
//! use grafolean_bot_snmp::template::{Piece, Template};
//!
//! let template = Template::parse("if.{$1}.{$index}", 1)?;
//! let path = template.path(&[Piece::Text(b"Core 6")], [10u32, 7].iter().copied());
//! assert_eq!(path.to_string(), "if.Core-6.7");
//!
//! let error = Template::parse("if.{index}", 1).unwrap_err();
//! assert_eq!(error.to_string(), "column 4: braces take `{$1}` (up to the number of OIDs), `{$index}` and `{$indexes}`");
//! # Ok::<(), grafolean_bot_snmp::template::TemplateError>(())
//! ```
//!
//! # Placeholders
//! | | becomes |
//! | --- | --- |
//! | `{$1}` to `{$N}` | what was read for this OID (and row), as text: an OCTET STRING its bytes, a number its digits, an address or object identifier its usual text. Of a **counter its reading**, not its rate, as the Python bot has it; a path that holds one is another series at each run, so it is of use only where a device misuses that type |
//! | `{$index}` | the last number of the row's suffix: what the OID has behind the one that was walked. Existing series depend on it; where a table has several numbers per row, several rows can get the same path |
//! | `{$indexes}` | all numbers of the suffix, joined by `-` |
//!
//! Each run of characters other than `0-9 a-z A-Z _ -` in the text becomes one `-`, case is kept; a byte outside of ASCII counts
//! as such a character. A segment of the path that would be empty, because the device gives an empty text (as many do for
//! ifAlias), is `-`: the backend takes no empty ones.
//!
//! Without a walk there is no row: `{$index}` and `{$indexes}` are then empty texts as well.
//!
//! # Cost
//! A parsed template borrows its text and holds nothing else; writing a path goes over it once.

use core::fmt;
use core::fmt::Write as _;

use grafolean_core::values::MAX_PATH_BYTES;

/// The shortest that stands before an output path: `entity.1.snmp.`.
const PREFIX_BYTES: usize = 14;

/// A checked output path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Template<'a> {
    text: &'a str,
}

/// What was read for an OID.
#[derive(Clone, Copy)]
pub enum Piece<'a> {
    /// An OCTET STRING.
    Text(&'a [u8]),
    /// An integer, gauge, counter or time.
    Number(i128),
    /// Anything else, as it is usually written.
    Shown(&'a dyn fmt::Display),
}

impl fmt::Debug for Piece<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Piece::Text(text) => write!(f, "Text(\"{}\")", text.escape_ascii()),
            Piece::Number(number) => write!(f, "Number({number})"),
            Piece::Shown(shown) => write!(f, "Shown({shown})"),
        }
    }
}

/// Why a text is no output path, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TemplateError {
    /// Where, in bytes from the start.
    pub offset: usize,
    /// Where, in characters, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub kind: TemplateErrorKind,
}

/// Why a text is no output path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TemplateErrorKind {
    /// It holds nothing.
    Empty,
    /// A `{` without its `}`.
    Unclosed,
    /// A `}` without its `{`.
    Unopened,
    /// Braces around something else than a placeholder.
    Placeholder,
    /// A `{$n}` beyond the sensor's OIDs.
    UnknownOperand {
        /// How many OIDs there are.
        operands: usize,
    },
    /// Two dots in a row, or a dot at an end.
    EmptySegment,
    /// A character that no path has.
    Character,
    /// No path of it can be short enough.
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
}

impl TemplateErrorKind {
    /// What is wrong, without its numbers.
    #[must_use]
    pub const fn text(self) -> &'static str {
        use TemplateErrorKind as K;
        match self {
            K::Empty => "empty",
            K::Unclosed => "this `{` is not closed",
            K::Unopened => "this `}` closes nothing",
            K::Placeholder => "braces take `{$1}` (up to the number of OIDs), `{$index}` and `{$indexes}`",
            K::UnknownOperand { .. } => "`{$n}` with a number that no OID of this sensor has",
            K::EmptySegment => "an empty segment: a dot too many",
            K::Character => "a character that no path has: A-Z a-z 0-9 _ - %2e %3a and dots are allowed",
            K::TooLong { .. } => "too long for a path",
        }
    }

    /// The limit that it is beyond.
    #[must_use]
    pub const fn limit(self) -> Option<usize> {
        match self {
            TemplateErrorKind::TooLong { limit } => Some(limit),
            _ => None,
        }
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.kind.text())?;
        match self.kind.limit() {
            Some(limit) => write!(f, " (limit {limit})"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for TemplateError {}

#[derive(Clone, Copy)]
enum Part<'a> {
    Literal(&'a str),
    /// `{$n}`, counted from 0.
    Operand(usize),
    Index,
    Indexes,
}

/// The first part of `text`, which is not empty, and its length. The offset of an error is from the start of `text`.
fn part(text: &str) -> Result<(Part<'_>, usize), (usize, TemplateErrorKind)> {
    use TemplateErrorKind as K;
    let Some(inside) = text.strip_prefix('{') else {
        let len = text.find(['{', '}']).unwrap_or(text.len());
        return match text.get(..len) {
            Some(literal) if len > 0 => Ok((Part::Literal(literal), len)),
            _ => Err((0, K::Unopened)),
        };
    };
    let end = inside.find(['{', '}']).filter(|end| inside.as_bytes().get(*end) == Some(&b'}'));
    let end = end.ok_or((0, K::Unclosed))?;
    let name = inside.get(..end).unwrap_or_default();
    let part = match name {
        "$index" => Part::Index,
        "$indexes" => Part::Indexes,
        _ => {
            let digits = name.strip_prefix('$').unwrap_or_default();
            if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
                return Err((0, K::Placeholder));
            }
            // One that is too long for an integer is beyond the operands as well.
            let number = digits.parse().unwrap_or(usize::MAX);
            Part::Operand(number.checked_sub(1).ok_or((0, K::Placeholder))?)
        }
    };
    Ok((part, end + 2))
}

impl<'a> Template<'a> {
    /// Checks `text`, whose placeholders may be `{$1}` to `{$operands}`.
    ///
    /// # Errors
    /// [`TemplateError`], for the first fault from the left; [`TemplateErrorKind::TooLong`] where what is outside of braces
    /// leaves no room for anything within [`MAX_PATH_BYTES`].
    pub fn parse(text: &'a str, operands: usize) -> Result<Self, TemplateError> {
        match Self::check(text, operands) {
            Ok(()) => Ok(Template { text }),
            Err((offset, kind)) => {
                let before = text.get(..offset).unwrap_or(text);
                Err(TemplateError { offset, column: before.chars().count() + 1, kind })
            }
        }
    }

    fn check(text: &str, operands: usize) -> Result<(), (usize, TemplateErrorKind)> {
        use TemplateErrorKind as K;
        if text.is_empty() {
            return Err((0, K::Empty));
        }
        let mut at = 0;
        // Whether something stands in the segment, and how long the path is at least.
        let (mut filled, mut len) = (false, PREFIX_BYTES);
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let (part, taken) = part(rest).map_err(|(offset, kind)| (at + offset, kind))?;
            match part {
                Part::Operand(index) if index >= operands => {
                    return Err((at, K::UnknownOperand { operands }));
                }
                Part::Operand(_) | Part::Index | Part::Indexes => {
                    // What may be empty is `-` where it is a segment of its own.
                    len += usize::from(!filled);
                    filled = true;
                }
                Part::Literal(literal) => {
                    let bytes = literal.as_bytes();
                    len += bytes.len();
                    let mut i = 0;
                    while let Some(byte) = bytes.get(i) {
                        match byte {
                            b'.' if !filled => return Err((at + i, K::EmptySegment)),
                            b'.' => filled = false,
                            b'%' if matches!(bytes.get(i + 1..i + 3), Some(b"2e" | b"3a")) => {
                                i += 2;
                                filled = true;
                            }
                            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => filled = true,
                            _ => return Err((at + i, K::Character)),
                        }
                        i += 1;
                    }
                }
            }
            at += taken;
        }
        if !filled {
            return Err((at, K::EmptySegment));
        }
        if len > MAX_PATH_BYTES {
            return Err((0, K::TooLong { limit: MAX_PATH_BYTES }));
        }
        Ok(())
    }

    /// The path of a row, to be written: `pieces[0]` is `{$1}`, `suffix` what its OID has behind the walked one. What is not in
    /// `pieces` is an empty text.
    pub fn path<'p, I: Iterator<Item = u32> + Clone>(self, pieces: &'p [Piece<'p>], suffix: I) -> Path<'p, I>
    where
        'a: 'p,
    {
        Path { template: self, pieces, suffix }
    }

    /// Whether it holds `{$n}`, counted from 1.
    #[must_use]
    pub fn uses(self, n: usize) -> bool {
        self.parts().any(|part| matches!(part, Part::Operand(index) if index + 1 == n))
    }

    /// Whether rows of a walk can have paths of their own: it holds a placeholder.
    #[must_use]
    pub fn is_fixed(self) -> bool {
        self.parts().all(|part| matches!(part, Part::Literal(_)))
    }

    fn parts(self) -> impl Iterator<Item = Part<'a>> {
        let mut rest = self.text;
        core::iter::from_fn(move || {
            let (next, taken) = part(rest).ok().filter(|_| !rest.is_empty())?;
            rest = rest.get(taken..).unwrap_or_default();
            Some(next)
        })
    }
}

/// A row's path, written by `Display`.
#[derive(Clone, Debug)]
pub struct Path<'p, I> {
    template: Template<'p>,
    pieces: &'p [Piece<'p>],
    suffix: I,
}

impl<I: Iterator<Item = u32> + Clone> fmt::Display for Path<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Slug { out: f, dash: false, filled: false };
        for part in self.template.parts() {
            out.dash = false;
            match part {
                Part::Literal(literal) => out.literal(literal)?,
                Part::Operand(index) => match self.pieces.get(index) {
                    Some(Piece::Text(text)) => out.bytes(text)?,
                    Some(Piece::Number(number)) => write!(out, "{number}")?,
                    Some(Piece::Shown(shown)) => write!(out, "{shown}")?,
                    None => {}
                },
                Part::Index => {
                    if let Some(last) = self.suffix.clone().last() {
                        write!(out, "{last}")?;
                    }
                }
                Part::Indexes => {
                    for (i, number) in self.suffix.clone().enumerate() {
                        write!(out, "{}{number}", if i == 0 { "" } else { "-" })?;
                    }
                }
            }
        }
        out.end_segment()
    }
}

/// Writes text as parts of a path.
struct Slug<'f, 'o> {
    out: &'o mut fmt::Formatter<'f>,
    /// The last character stands for a run of others.
    dash: bool,
    /// Something stands in the segment.
    filled: bool,
}

impl Slug<'_, '_> {
    fn literal(&mut self, literal: &str) -> fmt::Result {
        let mut segments = literal.split('.');
        let Some(mut segment) = segments.next() else { return Ok(()) };
        loop {
            self.filled |= !segment.is_empty();
            self.out.write_str(segment)?;
            let Some(next) = segments.next() else { return Ok(()) };
            self.end_segment()?;
            self.out.write_char('.')?;
            self.filled = false;
            segment = next;
        }
    }

    fn end_segment(&mut self) -> fmt::Result {
        if self.filled { Ok(()) } else { self.out.write_char('-') }
    }

    fn bytes(&mut self, text: &[u8]) -> fmt::Result {
        for &byte in text {
            let is_legal = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            if is_legal {
                self.out.write_char(char::from(byte))?;
            } else if !self.dash {
                self.out.write_char('-')?;
            }
            self.dash = !is_legal;
            self.filled = true;
        }
        Ok(())
    }
}

impl fmt::Write for Slug<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes())
    }
}
