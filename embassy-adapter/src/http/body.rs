//! Takes the framing off an answer's body (RFC 9112, sections 6 and 7).

use super::error::HttpError;
use super::head::Head;

/// The most bytes of framing in a row (chunk extensions, trailers) that are read.
const MAX_FRAMING: u32 = 4096;

/// How the end of a body is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Body {
    /// So many bytes are to come.
    Length(u64),
    /// It comes in chunks.
    Chunked {
        state: Chunk,
        /// Bytes of framing since the last data.
        framing: u32,
    },
    /// It ends with the connection.
    UntilClose,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Chunk {
    /// In the size, of which some digits have come.
    Size { value: u64, digits: u8 },
    /// Behind the size, in what has no meaning here.
    Extension { value: u64 },
    /// So many bytes of the chunk are to come.
    Data(u64),
    /// The line's end behind the data.
    DataEnd,
    /// In a line of the trailer: its length.
    Trailer(u32),
    /// All has come.
    Done,
}

/// What some bytes are: first framing, then data; what follows is not looked at yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) framing: usize,
    pub(super) data: usize,
}

impl Body {
    pub(super) const fn new(head: &Head) -> Self {
        if head.is_without_body() {
            return Body::Length(0);
        }
        match (head.chunked, head.content_length) {
            (true, _) => Body::Chunked { state: Chunk::Size { value: 0, digits: 0 }, framing: 0 },
            (false, Some(length)) => Body::Length(length),
            (false, None) => Body::UntilClose,
        }
    }

    /// Whether all of it has come.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self, Body::Length(0) | Body::Chunked { state: Chunk::Done, .. })
    }

    /// Whether the end of the connection is the end of the body too.
    pub(super) const fn ends_with_connection(&self) -> bool {
        matches!(self, Body::UntilClose)
    }

    /// What the first of `bytes` are. Call again with the rest; nothing more is taken once it is done.
    ///
    /// # Errors
    /// The framing is broken, or too long.
    #[inline(never)]
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<Piece, HttpError> {
        let within = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        match self {
            Body::UntilClose => Ok(Piece { framing: 0, data: bytes.len() }),
            Body::Length(left) => {
                let data = within(*left);
                *left -= data as u64;
                Ok(Piece { framing: 0, data })
            }
            Body::Chunked { state, framing } => {
                let mut at = 0;
                while let Some(&byte) = bytes.get(at) {
                    match *state {
                        Chunk::Done => break,
                        Chunk::Data(left) => {
                            let data = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                            let left = left - data as u64;
                            *state = if left == 0 { Chunk::DataEnd } else { Chunk::Data(left) };
                            *framing = 0;
                            return Ok(Piece { framing: at, data });
                        }
                        framed => {
                            *framing += 1;
                            if *framing > MAX_FRAMING {
                                return Err(HttpError::HeadTooLong { limit: MAX_FRAMING });
                            }
                            *state = framed.step(byte)?;
                            at += 1;
                        }
                    }
                }
                Ok(Piece { framing: at, data: 0 })
            }
        }
    }
}

impl Chunk {
    /// The state after one more byte of framing.
    #[inline(never)]
    fn step(self, byte: u8) -> Result<Chunk, HttpError> {
        let bad = HttpError::Malformed("chunk");
        let begin = |value| if value == 0 { Chunk::Trailer(0) } else { Chunk::Data(value) };
        Ok(match (self, byte) {
            (Chunk::Size { digits: 0, .. }, b'\n' | b';' | b' ' | b'\t' | b'\r') => return Err(bad),
            (Chunk::Size { value, .. } | Chunk::Extension { value }, b'\n') => begin(value),
            (Chunk::Size { value, .. }, b';' | b' ' | b'\t' | b'\r') => Chunk::Extension { value },
            (Chunk::Size { value, digits }, c) => {
                let digit = (c as char).to_digit(16).ok_or(bad)?;
                // 16 digits fill u64; a longer size could wrap around.
                if digits == 16 {
                    return Err(bad);
                }
                Chunk::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (same @ Chunk::Extension { .. }, _) => same,
            (Chunk::DataEnd, b'\r') => Chunk::DataEnd,
            (Chunk::DataEnd, b'\n') => Chunk::Size { value: 0, digits: 0 },
            (Chunk::DataEnd, _) => return Err(bad),
            (Chunk::Trailer(0), b'\n') => Chunk::Done,
            (Chunk::Trailer(_), b'\n') => Chunk::Trailer(0),
            (Chunk::Trailer(0), b'\r') => Chunk::Trailer(0),
            (Chunk::Trailer(n), _) => Chunk::Trailer(n.saturating_add(1)),
            (done @ (Chunk::Data(_) | Chunk::Done), _) => done,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    /// Decodes `text` in pieces of `size`: the data, whether it is done, and what is left over.
    fn decode(mut body: Body, text: &[u8], size: usize) -> Result<(Vec<u8>, bool, usize), HttpError> {
        let (mut data, mut used) = (Vec::new(), 0);
        for piece in text.chunks(size) {
            let mut rest = piece;
            while !rest.is_empty() && !body.is_done() {
                let Piece { framing, data: n } = body.next(rest)?;
                assert!(framing + n > 0, "no progress in {rest:?}");
                data.extend_from_slice(&rest[framing..framing + n]);
                used += framing + n;
                rest = &rest[framing + n..];
            }
        }
        Ok((data, body.is_done(), text.len() - used))
    }

    const CHUNKED: Body = Body::Chunked { state: Chunk::Size { value: 0, digits: 0 }, framing: 0 };

    #[test]
    fn a_body_of_known_length_ends_there() {
        for size in 1..10 {
            let decoded = decode(Body::Length(5), b"helloHTTP", size).unwrap();
            assert_eq!(decoded, (b"hello".to_vec(), true, 4));
        }
        assert_eq!(decode(Body::Length(9), b"hello", 2).unwrap(), (b"hello".to_vec(), false, 0));
    }

    #[test]
    fn chunks_are_put_together_however_they_are_cut() {
        let text = b"5;a=b\r\nhello\r\n1 \r\n \r\n00a\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nHTTP";
        for size in 1..text.len() {
            let decoded = decode(CHUNKED, text, size).unwrap();
            assert_eq!(decoded, (b"hello 0123456789".to_vec(), true, 4), "in pieces of {size}");
        }
    }

    #[test]
    fn a_cut_off_body_is_not_done_at_any_place() {
        let text = b"5\r\nhello\r\n0\r\n\r\n";
        for end in 0..text.len() {
            assert!(!decode(CHUNKED, &text[..end], 3).unwrap().1, "{end}");
        }
        assert!(decode(CHUNKED, text, 3).unwrap().1);
    }

    #[test]
    fn broken_chunks_are_refused() {
        for text in ["\r\n", ";", "g\r\n", "-5\r\n", "0x5\r\n", "5\r\nhello5\r\n", "11111111111111111\r\n"] {
            assert_eq!(
                decode(CHUNKED, text.as_bytes(), 1).unwrap_err(),
                HttpError::Malformed("chunk"),
                "{text:?}"
            );
        }
        let endless = String::from("5;") + &"x".repeat(5000);
        assert_eq!(
            decode(CHUNKED, endless.as_bytes(), 100).unwrap_err(),
            HttpError::HeadTooLong { limit: MAX_FRAMING }
        );
        let trailers = String::from("0\r\n") + &"a: b\r\n".repeat(1000);
        assert_eq!(
            decode(CHUNKED, trailers.as_bytes(), 100).unwrap_err(),
            HttpError::HeadTooLong { limit: MAX_FRAMING }
        );
    }

    #[test]
    fn the_largest_chunk_does_not_wrap_around() {
        let decoded = decode(CHUNKED, b"ffffffffffffffff\r\nabc", 4).unwrap();
        assert_eq!(decoded, (b"abc".to_vec(), false, 0));
    }
}
