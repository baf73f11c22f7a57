//! Bodies of answers: the backend's in one piece, the stand-in's own also as a stream.

use core::convert::Infallible;
use core::pin::Pin;
use core::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::backend::ReplyBody;

/// The body of an answer.
pub(crate) enum Payload {
    /// In one piece.
    Whole(ReplyBody),
    /// Piece by piece, until the sender is dropped; what was sent before it waits in the channel.
    Stream(mpsc::Receiver<Bytes>),
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(ReplyBody::Bytes(bytes))
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(body) => match core::mem::replace(body, ReplyBody::None) {
                ReplyBody::Bytes(bytes) if !bytes.is_empty() => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                _ => Poll::Ready(None),
            },
            Self::Stream(pieces) => {
                pieces.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(ReplyBody::None) => true,
            Self::Whole(ReplyBody::Bytes(bytes)) => bytes.is_empty(),
            // Were it at its end at once, it would be sent with a length.
            Self::Whole(ReplyBody::EmptyChunked) | Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(ReplyBody::None) => SizeHint::with_exact(0),
            Self::Whole(ReplyBody::Bytes(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Self::Whole(ReplyBody::EmptyChunked) | Self::Stream(_) => SizeHint::new(),
        }
    }
}
