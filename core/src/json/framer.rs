//! Cuts a JSON body that arrives in arbitrary chunks into bounded elements, in constant memory.

use core::fmt;

use super::scanner::{MAX_DEPTH, Scanner};
use super::syntax::{Syntax, is_blank};

/// A push automaton that takes a body in any chunks, from single bytes to all at once, and hands on one element after
/// the other.
///
/// Either the body is an object, and the elements are those of the array that is its member `list`
/// ([`list`](Self::list); all other members are checked and skipped), or the body is one value, and that is the one
/// element ([`document`](Self::document)).
///
/// The element's bytes are collected in a buffer that the caller lends at every call. The framer holds none, so it is
/// small (about 130 bytes), and the body may be of any length. Bytes of an element are handed on as they came, blanks
/// inside it too, blanks around it not.
///
/// ```
/// use grafolean_core::json::{Frame, Framer};
///
/// let mut framer = Framer::list("list");
/// let mut buffer = [0; 32];
/// let mut names = Vec::new();
/// for chunk in [&br#"{"list":[{"id":1},{"#[..], &br#""id":2}]}"#[..]] {
///     let mut rest = chunk;
///     while !rest.is_empty() {
///         let (consumed, frame) = framer.push(rest, &mut buffer)?;
///         rest = &rest[consumed..];
///         if let Some(Frame::Element { len }) = frame {
///             names.push(String::from_utf8_lossy(&buffer[..len]).into_owned());
///         }
///     }
/// }
/// framer.finish()?;
/// assert_eq!(names, [r#"{"id":1}"#, r#"{"id":2}"#]);
/// # Ok::<(), grafolean_core::json::FrameError>(())
/// ```
///
/// # Strictness
///
/// The whole body is checked against RFC 8259, also what is skipped, and its strings are UTF-8. What is valid but odd
/// passes: numbers of any size, `-0.0`, escaped NUL, empty keys, the same key twice, escapes that are half of a surrogate
/// pair (they are only refused where a string is decoded). Bytes deeper than [`MAX_DEPTH`] levels in an element are
/// checked less (see there), and the element is told to be too deep.
///
/// The name of the list must be written without escapes: `"l\u0069st"` counts as another member.
#[derive(Debug, Clone)]
pub struct Framer {
    stage: Stage,
    scanner: Scanner,
    name: &'static str,
    list_seen: bool,
    /// How many bytes of the key at hand agree with `"name"`, or `NO_MATCH`.
    matched: usize,
    /// How many bytes of the element at hand are in the buffer.
    kept: usize,
    element_start: u64,
    elements: u32,
    bytes: u64,
    max_bytes: u64,
    failed: Option<FrameError>,
}

const NO_MATCH: usize = usize::MAX;

/// Where in the body, outside the values that the scanner reads, the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before the one value of `document`.
    BeforeDocument,
    /// In the one value of `document`.
    InDocument,
    /// Before the object that holds the list.
    BeforeObject,
    /// After `{`: a key or `}`.
    FirstKey,
    /// After a comma: a key.
    Key,
    InKey,
    Colon,
    /// Before the value of a member; `true` for the list.
    Member(bool),
    /// In a member that is not the list.
    InSkipped,
    /// After a member: a comma or `}`.
    NextMember,
    /// After `[` of the list: an element or `]`.
    FirstElement,
    /// After a comma of the list: an element.
    Element,
    InElement,
    /// After an element: a comma or `]`.
    NextElement,
    /// After the whole body.
    End,
}

/// What [`Framer::push`] found at the end of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Frame {
    /// The element is `buffer[..len]`, one valid JSON value.
    Element {
        /// Its length in bytes.
        len: usize,
    },
    /// The element is longer than the buffer.
    TooLong {
        /// Its first `kept` bytes are in the buffer: enough to read its first key, `id`.
        kept: usize,
        /// Its whole length in bytes.
        total_bytes: u64,
    },
    /// The element is nested deeper than [`MAX_DEPTH`]. Told also where it is too long as well.
    TooDeep {
        /// Its first `kept` bytes are in the buffer.
        kept: usize,
        /// Its whole length in bytes.
        total_bytes: u64,
    },
}

/// Why a body could not be framed, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FrameError {
    /// Offset in the body, in bytes, counted from 0 over all chunks.
    pub offset: u64,
    /// What is wrong there.
    pub kind: FrameErrorKind,
}

/// Why a body could not be framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FrameErrorKind {
    /// It is not JSON, or it ends too early.
    Syntax(Syntax),
    /// The body is not an object, so that it has no member of this name.
    NotAnObject(&'static str),
    /// The body, an object, has no member of this name.
    NoList(&'static str),
    /// The member of this name is not an array.
    NotAnArray(&'static str),
    /// There are two members of this name.
    RepeatedList(&'static str),
    /// The body is longer than this limit, in bytes.
    TooManyBytes(u64),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FrameErrorKind::Syntax(syntax) => write!(f, "{syntax}")?,
            FrameErrorKind::NotAnObject(name) => write!(f, "expected an object with the member `{name}`")?,
            FrameErrorKind::NoList(name) => write!(f, "the object has no member `{name}`")?,
            FrameErrorKind::NotAnArray(name) => write!(f, "the member `{name}` is not an array")?,
            FrameErrorKind::RepeatedList(name) => write!(f, "the member `{name}` comes twice")?,
            FrameErrorKind::TooManyBytes(limit) => write!(f, "the body is longer than {limit} bytes")?,
        }
        write!(f, " (byte {})", self.offset)
    }
}

impl core::error::Error for FrameError {}

/// Offset into the input of one call, and what is wrong there.
type Fault = (usize, FrameErrorKind);

impl Framer {
    /// For a body that is an object with an array as its member `name`: the array's elements.
    ///
    /// The object must have the member exactly once.
    #[must_use]
    pub const fn list(name: &'static str) -> Self {
        Self::new(Stage::BeforeObject, name)
    }

    /// For a body that is one value of any kind: that value.
    ///
    /// If it is a bare number, only [`finish`](Self::finish) can tell that it has ended.
    #[must_use]
    pub const fn document() -> Self {
        Self::new(Stage::BeforeDocument, "")
    }

    const fn new(stage: Stage, name: &'static str) -> Self {
        Self {
            stage,
            scanner: Scanner::new(),
            name,
            list_seen: false,
            matched: 0,
            kept: 0,
            element_start: 0,
            elements: 0,
            bytes: 0,
            max_bytes: u64::MAX,
            failed: None,
        }
    }

    /// Refuses bodies of more than `max_bytes` bytes. Without it they may be of any length.
    #[must_use]
    pub const fn with_max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Reads on, to the end of `input` or of an element, whichever comes first.
    ///
    /// Returns how many bytes of `input` it took, and the element that ended there, if one did. Call again with the rest,
    /// which may be the first bytes of the next element. `None` means that all of `input` was taken.
    ///
    /// `buffer` is the caller's; it must be the same, untouched, from call to call until an element has been handed on,
    /// and may then be used for anything. (If it is not, elements come out wrong, nothing else happens.)
    ///
    /// Cost: one pass over `input`, one copy of the element.
    ///
    /// # Errors
    ///
    /// The first fault of the body ends it: every later call returns the same error.
    pub fn push(&mut self, input: &[u8], buffer: &mut [u8]) -> Result<(usize, Option<Frame>), FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let left = self.max_bytes.saturating_sub(self.bytes);
        let allowed = usize::try_from(left).map_or(input, |left| input.get(..left).unwrap_or(input));
        match self.advance(allowed, buffer) {
            Ok((consumed, None)) if allowed.len() < input.len() => {
                Err(self.fail(consumed, FrameErrorKind::TooManyBytes(self.max_bytes)))
            }
            Ok((consumed, frame)) => {
                self.bytes += consumed as u64;
                Ok((consumed, frame))
            }
            Err((at, kind)) => Err(self.fail(at, kind)),
        }
    }

    /// Says that the body has ended.
    ///
    /// Returns the element where the body is one bare number, which nothing but its end could end.
    ///
    /// # Errors
    ///
    /// The body is incomplete, or an earlier call failed.
    pub fn finish(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match self.stage {
            Stage::End => Ok(None),
            Stage::InDocument if self.scanner.is_complete() => {
                self.stage = Stage::End;
                Ok(Some(self.frame(self.bytes)))
            }
            _ => Err(self.fail(0, FrameErrorKind::Syntax(Syntax::UnexpectedEnd))),
        }
    }

    /// How many bytes of the body were taken so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many elements were handed on so far, those too long or too deep included; it stops at `u32::MAX`.
    #[must_use]
    pub const fn elements(&self) -> u32 {
        self.elements
    }

    /// Where in the body, in bytes, the element began that was handed on last, or that is being read.
    #[must_use]
    pub const fn element_start(&self) -> u64 {
        self.element_start
    }

    /// Whether the whole body has been read; only blanks may follow.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        matches!(self.stage, Stage::End)
    }

    fn fail(&mut self, at: usize, kind: FrameErrorKind) -> FrameError {
        let error = FrameError { offset: self.bytes + at as u64, kind };
        self.failed = Some(error);
        error
    }

    fn advance(&mut self, input: &[u8], buffer: &mut [u8]) -> Result<(usize, Option<Frame>), Fault> {
        let mut i = 0;
        while let Some(&byte) = input.get(i) {
            // Inside values the scanner reads.
            if let Stage::InElement | Stage::InDocument | Stage::InSkipped | Stage::InKey = self.stage {
                let rest = input.get(i..).unwrap_or_default();
                let end = self
                    .scanner
                    .scan(rest)
                    .map_err(|fault| (i + fault.at, FrameErrorKind::Syntax(fault.fault)))?;
                let piece = end.and_then(|end| rest.get(..end)).unwrap_or(rest);
                i += piece.len();
                match self.stage {
                    Stage::InElement | Stage::InDocument => self.keep(piece, buffer),
                    Stage::InKey => self.compare(piece),
                    _ => {}
                }
                if end.is_none() {
                    break;
                }
                self.stage = match self.stage {
                    Stage::InKey => {
                        if self.is_list() && self.list_seen {
                            return Err((i, FrameErrorKind::RepeatedList(self.name)));
                        }
                        Stage::Colon
                    }
                    Stage::InSkipped => Stage::NextMember,
                    stage => {
                        self.stage = if stage == Stage::InElement { Stage::NextElement } else { Stage::End };
                        return Ok((i, Some(self.frame(self.bytes + i as u64))));
                    }
                };
                continue;
            }
            // Between them, each byte is blank or decides.
            if is_blank(byte) {
                i += 1;
                continue;
            }
            let syntax = |fault| Err((i, FrameErrorKind::Syntax(fault)));
            // The stages that begin a value leave its first byte to the scanner.
            let (next, taken) = match (self.stage, byte) {
                (Stage::BeforeDocument | Stage::BeforeObject, 0xef) if self.bytes == 0 && i == 0 => {
                    return syntax(Syntax::ByteOrderMark);
                }
                (Stage::BeforeDocument, _) => (Stage::InDocument, 0),
                (Stage::BeforeObject, b'{') => (Stage::FirstKey, 1),
                (Stage::BeforeObject, _) => return Err((i, FrameErrorKind::NotAnObject(self.name))),
                (Stage::FirstKey | Stage::Key, b'"') => (Stage::InKey, 0),
                (Stage::FirstKey | Stage::NextMember, b'}') if self.list_seen => (Stage::End, 1),
                (Stage::FirstKey | Stage::NextMember, b'}') => {
                    return Err((i, FrameErrorKind::NoList(self.name)));
                }
                (Stage::FirstKey | Stage::Key, _) => return syntax(Syntax::ExpectedKey),
                (Stage::Colon, b':') => (Stage::Member(self.is_list()), 1),
                (Stage::Colon, _) => return syntax(Syntax::ExpectedColon),
                (Stage::Member(true), b'[') => {
                    self.list_seen = true;
                    (Stage::FirstElement, 1)
                }
                (Stage::Member(true), _) => return Err((i, FrameErrorKind::NotAnArray(self.name))),
                (Stage::Member(false), _) => (Stage::InSkipped, 0),
                (Stage::NextMember, b',') => (Stage::Key, 1),
                (Stage::FirstElement | Stage::NextElement, b']') => (Stage::NextMember, 1),
                (Stage::FirstElement | Stage::Element, _) => (Stage::InElement, 0),
                (Stage::NextElement, b',') => (Stage::Element, 1),
                (Stage::NextMember | Stage::NextElement, _) => return syntax(Syntax::ExpectedCommaOrEnd),
                (Stage::End, _) => return syntax(Syntax::TrailingBytes),
                // Handled above.
                (Stage::InElement | Stage::InDocument | Stage::InSkipped | Stage::InKey, _) => {
                    (self.stage, 0)
                }
            };
            if taken == 0 {
                self.scanner = Scanner::new();
                self.matched = 0;
                self.kept = 0;
                if let Stage::InElement | Stage::InDocument = next {
                    self.element_start = self.bytes + i as u64;
                }
            }
            self.stage = next;
            i += taken;
        }
        Ok((i, None))
    }

    /// Copies as much of an element's piece as the buffer has room for.
    fn keep(&mut self, piece: &[u8], buffer: &mut [u8]) {
        self.kept = self.kept.min(buffer.len());
        let room = buffer.get_mut(self.kept..).unwrap_or_default();
        let fits = room.len().min(piece.len());
        if let (Some(to), Some(from)) = (room.get_mut(..fits), piece.get(..fits)) {
            to.copy_from_slice(from);
        }
        self.kept += fits;
    }

    /// Compares a piece of a key, quotes included, with the list's name.
    fn compare(&mut self, piece: &[u8]) {
        for &byte in piece {
            if self.matched == NO_MATCH {
                return;
            }
            let end = self.name.len() + 1;
            let wanted = match self.matched {
                0 => b'"',
                at if at == end => b'"',
                at => self.name.as_bytes().get(at - 1).copied().unwrap_or_default(),
            };
            self.matched = if byte == wanted { self.matched + 1 } else { NO_MATCH };
        }
    }

    /// Whether the key read last is the list's name.
    const fn is_list(&self) -> bool {
        self.matched == self.name.len() + 2
    }

    /// The element that ended at `end`, an offset in the body.
    fn frame(&mut self, end: u64) -> Frame {
        self.elements = self.elements.saturating_add(1);
        let total_bytes = end - self.element_start;
        let kept = self.kept;
        if self.scanner.too_deep() {
            Frame::TooDeep { kept, total_bytes }
        } else if kept as u64 == total_bytes {
            Frame::Element { len: kept }
        } else {
            Frame::TooLong { kept, total_bytes }
        }
    }
}

const _: () = assert!(MAX_DEPTH == u128::BITS, "the scanner has a bit for each level");
const _: () = assert!(size_of::<Framer>() <= 160, "a framer is small");
