//! What can go wrong with a request, said so that an operator knows where to look, and never with the token.

use core::fmt;

use embedded_io_async::ErrorKind;
use grafolean_core::collector::RequestError;

/// What a request was waiting for when a time limit passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Phase {
    /// Address, connection and TLS handshake.
    Connect,
    /// The server to take more of the request.
    Request,
    /// The answer's head.
    Head,
    /// More of the answer's body.
    Body,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Connect => "no connection",
            Phase::Request => "the server took nothing of the request",
            Phase::Head => "no answer",
            Phase::Body => "the answer went silent",
        })
    }
}

/// Why there is no connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The host's name has no address, or nobody could be asked.
    Resolve,
    /// No connection to the address.
    Connect(ErrorKind),
    /// The TLS handshake failed; what is wrong with it.
    Tls(&'static str),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Resolve => f.write_str("host name not resolved"),
            ConnectError::Connect(kind) => write!(f, "no connection: {kind:?}"),
            ConnectError::Tls(why) => write!(f, "no TLS connection: {why}"),
        }
    }
}

impl core::error::Error for ConnectError {}

/// Why a request got no answer, or not all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HttpError {
    /// There is no connection.
    Connect(ConnectError),
    /// A time limit has passed.
    Timeout {
        /// What was waited for.
        phase: Phase,
        /// The limit in milliseconds.
        limit_ms: u32,
    },
    /// The stream failed.
    Stream(ErrorKind),
    /// The server closed the connection before the end of the answer.
    Closed,
    /// The answer's head is longer than it may be.
    HeadTooLong {
        /// The limit in bytes.
        limit: u32,
    },
    /// A line of the answer's head that is needed is longer than its buffer.
    LineTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The answer is not HTTP; which part of it. (A server that wants TLS often answers so.)
    Malformed(&'static str),
    /// The body comes in an encoding that was not asked for.
    Encoding,
    /// The body comes too slowly.
    TooSlow {
        /// How fast it comes, in bytes a second.
        bytes_per_s: u32,
        /// How fast it must come, in bytes a second.
        limit: u32,
    },
    /// The request's head does not fit into the buffer.
    RequestTooLong {
        /// The buffer's size in bytes.
        limit: usize,
    },
    /// The request's body is shorter than was promised.
    Body {
        /// What was promised, in bytes.
        promised: usize,
        /// What there was, in bytes.
        bytes: usize,
    },
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpError::Connect(e) => write!(f, "{e}"),
            HttpError::Timeout { phase, limit_ms } => write!(f, "{phase} within {limit_ms} ms"),
            HttpError::Stream(kind) => write!(f, "connection broke: {kind:?}"),
            HttpError::Closed => f.write_str("connection closed before the end of the answer"),
            HttpError::HeadTooLong { limit } => write!(f, "head of the answer longer than {limit} bytes"),
            HttpError::LineTooLong { limit } => {
                write!(f, "line in the head of the answer longer than {limit} bytes")
            }
            HttpError::Malformed(part) => {
                write!(f, "the answer is not HTTP: {part} (is it http or https that the server speaks?)")
            }
            HttpError::Encoding => f.write_str("the answer comes in an encoding that was not asked for"),
            HttpError::TooSlow { bytes_per_s, limit } => {
                write!(f, "the answer comes at {bytes_per_s} bytes/s, slower than {limit} bytes/s")
            }
            HttpError::RequestTooLong { limit } => {
                write!(f, "head of the request longer than the buffer of {limit} bytes")
            }
            HttpError::Body { promised, bytes } => {
                write!(f, "body of the request has {bytes} bytes instead of {promised}")
            }
        }
    }
}

impl core::error::Error for HttpError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            HttpError::Connect(e) => Some(e),
            _ => None,
        }
    }
}

/// An error, and how far the request had come.
pub(super) struct Failure {
    pub(super) error: HttpError,
    pub(super) progress: Progress,
}

/// How far a request has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Progress {
    /// Not all of its head has been given to the connection: the server can't have acted on it.
    Unsent,
    /// The server may have it.
    Sent,
    /// A part of the answer has arrived.
    Answered,
}

impl Failure {
    pub(super) fn kind(&self) -> RequestError {
        if self.progress == Progress::Unsent { RequestError::NotSent } else { RequestError::Lost }
    }

    /// Whether it looks as if the server had closed the connection while it was idle.
    pub(super) fn is_stale(&self) -> bool {
        self.progress < Progress::Answered && matches!(self.error, HttpError::Stream(_) | HttpError::Closed)
    }
}

/// Why no client can be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum HttpSetupError {
    /// The URL says `https`, but the connector has no TLS. The token would travel in clear.
    NeedsTls,
    /// The URL says `http`, but the connector has TLS.
    NeedsPlain,
    /// The buffer is too small.
    Buffer {
        /// Its size in bytes.
        bytes: usize,
        /// The least size in bytes.
        least: usize,
    },
}

impl fmt::Display for HttpSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpSetupError::NeedsTls => {
                f.write_str("the backend's URL is https, but the connector has no TLS")
            }
            HttpSetupError::NeedsPlain => f.write_str("the backend's URL is http, but the connector has TLS"),
            HttpSetupError::Buffer { bytes, least } => {
                write!(f, "buffer of {bytes} bytes for HTTP, it must have at least {least}")
            }
        }
    }
}

impl core::error::Error for HttpSetupError {}
