//! JSON on a board: framing of bodies of any length into bounded elements, reading and decoding of one element, writing.
//!
//! | item | takes | gives |
//! | --- | --- | --- |
//! | [`Framer`] | a body in chunks | its elements, one after the other, in a buffer of the caller |
//! | [`Reader`] | one element | its parts, read by hand |
//! | [`from_slice`] | one element, or a part of it | a type of serde, such as a bot's settings |
//! | [`Decimal`], [`DurationMs`], [`LenientInt`] | numbers, also those in strings | exact values without floating point |
//! | [`Writer`] | calls | a body, or a piece of it, in a buffer of the caller |
//!
//! Nothing here allocates, recurses without bound or panics, whatever the bytes; no error holds a part of the text.

mod de;
mod framer;
mod lenient;
mod number;
mod reader;
mod scanner;
mod syntax;
mod writer;

pub use de::{DECODE_DEPTH, DecodeError, DecodeErrorKind, Expectation, from_element, from_slice};
pub(crate) use de::{Failure, from_reader};
pub use framer::{Frame, FrameError, FrameErrorKind, Framer};
pub use lenient::{DurationMs, LenientInt};
pub use number::{Decimal, NumberError};
pub use reader::{Kind, ReadError, ReadErrorKind, Reader, Span, Text, TextChars};
pub use scanner::MAX_DEPTH;
pub use syntax::Syntax;
pub use writer::{WriteError, Writer};
