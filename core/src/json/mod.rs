//! JSON on a board: framing of bodies of any length into bounded elements, reading and decoding of one element, writing.
//!
//! | type | takes | gives |
//! | --- | --- | --- |
//! | [`Framer`] | a body in chunks | its elements, one after the other, in a buffer of the caller |
//! | [`Reader`] | one element | its parts, read by hand |
//!
//! Nothing here allocates, recurses without bound or panics, whatever the bytes; no error holds a part of the text.

mod framer;
mod number;
mod reader;
mod scanner;
mod syntax;

pub use framer::{Frame, FrameError, FrameErrorKind, Framer};
pub use number::{Decimal, NumberError};
pub use reader::{Kind, ReadError, ReadErrorKind, Reader, Span, Text, TextChars};
pub use scanner::MAX_DEPTH;
pub use syntax::Syntax;
