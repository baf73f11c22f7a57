//! What can go wrong with a request, said so that an operator knows where to look and never with the token.

use core::fmt;
use core::time::Duration;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::CertificateError;

/// Why no client could be made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetupError {
    /// The host of the backend is no host name or address. It isn't repeated, as it may hold a password.
    Host {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The port is 0.
    Port,
    /// A field of `HttpConfig` is out of range.
    Limit {
        /// The field.
        name: &'static str,
        /// Its range.
        range: &'static str,
    },
    /// The extra file of certificate authorities can't be used.
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Neither the system nor the extra file has a trusted certificate, so no server could be trusted.
    NoRoots {
        /// What the system's store said.
        why: String,
    },
    /// The TLS library refused its configuration.
    Tls {
        /// What it said.
        why: String,
    },
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { why } => write!(f, "host of the backend can't be used: {why}"),
            Self::Port => f.write_str("port of the backend is 0, allowed are 1 to 65535"),
            Self::Limit { name, range } => write!(f, "{name} is out of range: allowed is {range}"),
            Self::CaFile { path, why } => {
                write!(f, "file of certificate authorities {}: {why}", path.display())
            }
            Self::NoRoots { why } => write!(
                f,
                "no trusted certificate authority found ({why}): install the system's ca-certificates, \
                 or name a PEM file in SSL_CERT_FILE or GRAFOLEAN_CA_FILE"
            ),
            Self::Tls { why } => write!(f, "TLS can't be set up: {why}"),
        }
    }
}

impl core::error::Error for SetupError {}

/// What a request was waiting for when a time limit passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// One of the allowed connections.
    Slot,
    /// The address of the host.
    Resolve,
    /// The TCP connection.
    Connect,
    /// The TLS handshake.
    Tls,
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
            Self::Slot => "no free connection",
            Self::Resolve => "the host name was not resolved",
            Self::Connect => "no TCP connection",
            Self::Tls => "the TLS handshake did not end",
            Self::Request => "the server took nothing of the request",
            Self::Head => "no answer",
            Self::Body => "the answer went silent",
        })
    }
}

/// What is wrong with the server's TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsFault {
    /// The certificate comes from an authority that isn't trusted here.
    UnknownIssuer,
    /// The certificate is for other names.
    WrongName {
        /// The names in it, at most 8.
        presented: Vec<String>,
    },
    /// The certificate has expired (or the clock here is ahead).
    Expired,
    /// The certificate is not valid yet (or the clock here is behind).
    NotYetValid,
    /// Something else is wrong with the certificate.
    Certificate {
        /// What the TLS library said.
        why: String,
    },
    /// The server answered something that isn't TLS.
    NotTls,
    /// The server ended the handshake with an alert, for example because it has no common version.
    Alert {
        /// The alert's name.
        alert: String,
    },
    /// The server closed the connection in the handshake.
    Closed,
    /// Anything else.
    Other {
        /// What the TLS library said.
        why: String,
    },
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownIssuer => f.write_str(
                "the server's certificate comes from an authority that is not trusted here (unknown issuer); \
                 name its PEM file in GRAFOLEAN_CA_FILE if it is your own",
            ),
            Self::WrongName { presented } => {
                write!(f, "the server's certificate is for other names ({})", presented.join(", "))
            }
            Self::Expired => f.write_str("the server's certificate has expired, or the clock here is wrong"),
            Self::NotYetValid => {
                f.write_str("the server's certificate is not valid yet, or the clock here is wrong")
            }
            Self::Certificate { why } => write!(f, "the server's certificate is refused: {why}"),
            Self::NotTls => f.write_str(
                "the server does not speak TLS on this port: it may want http:// instead of https://",
            ),
            Self::Alert { alert } => write!(f, "the server refused the TLS handshake with alert {alert}"),
            Self::Closed => f.write_str("the server closed the connection in the TLS handshake"),
            Self::Other { why } => write!(f, "TLS failed: {why}"),
        }
    }
}

impl From<&rustls::Error> for TlsFault {
    fn from(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(certificate) => match certificate {
                CertificateError::UnknownIssuer => Self::UnknownIssuer,
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Self::NotYetValid
                }
                CertificateError::NotValidForName => Self::WrongName { presented: Vec::new() },
                CertificateError::NotValidForNameContext { presented, .. } => {
                    Self::WrongName { presented: presented.iter().take(8).cloned().collect() }
                }
                other => Self::Certificate { why: other.to_string() },
            },
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            rustls::Error::AlertReceived(alert) => Self::Alert { alert: format!("{alert:?}") },
            other => Self::Other { why: other.to_string() },
        }
    }
}

/// Part of an answer that was too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// Status line and header fields.
    Head,
    /// The body.
    Body,
}

/// What went wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// The host name could not be resolved, and no address that once worked is known.
    Resolve {
        /// What the resolver said.
        why: String,
    },
    /// None of the addresses took a TCP connection.
    Connect {
        /// How many addresses were tried.
        addresses: usize,
        /// What the system said about the last one.
        why: String,
    },
    /// The TLS handshake failed, or TLS broke later.
    Tls {
        /// Why.
        fault: TlsFault,
    },
    /// A time limit passed.
    Timeout {
        /// What was waited for.
        phase: Phase,
        /// The limit.
        limit: Duration,
    },
    /// The connection ended before the answer did.
    Closed {
        /// How much of the answer, head included, had come until then, in bytes.
        bytes: u64,
    },
    /// The answer is no HTTP/1.
    Protocol {
        /// What the HTTP library said.
        why: String,
        /// On a plain connection: whether it looks like the answer of a TLS server.
        tls_server: bool,
    },
    /// A body came or went slower than allowed.
    TooSlow {
        /// Measured bytes a second.
        rate: u64,
        /// Least bytes a second.
        limit: u64,
    },
    /// The answer is longer than allowed.
    TooLong {
        /// Which part.
        part: Part,
        /// Greatest length in bytes.
        limit: u64,
    },
    /// The request could not be put into HTTP; an error of this program.
    Request {
        /// What the HTTP library said.
        why: String,
    },
}

/// A request that failed: with whom, why, and whether the server may have acted on it.
///
/// `Display` begins with scheme, host and port and names the limit that was passed. Neither it nor `Debug`
/// ever shows the target of the request or anything that the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpError {
    pub(super) peer: Arc<str>,
    pub(super) kind: HttpErrorKind,
    pub(super) maybe_processed: bool,
}

impl HttpError {
    /// What went wrong.
    pub fn kind(&self) -> &HttpErrorKind {
        &self.kind
    }

    /// The backend as `https://host:port`.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Whether the server may have got the whole request and acted on it.
    ///
    /// False is certain: at least a part of the request was never handed to the network. After a true, a
    /// POST must not be repeated, as its values may be stored; PUT, GET and DELETE may.
    pub fn maybe_processed(&self) -> bool {
        self.maybe_processed
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.peer)?;
        match &self.kind {
            HttpErrorKind::Resolve { why } => write!(f, "the host name can't be resolved: {why}"),
            HttpErrorKind::Connect { addresses: 1, why } => write!(f, "no connection: {why}"),
            HttpErrorKind::Connect { addresses, why } => {
                write!(f, "no connection to any of {addresses} addresses, at last: {why}")
            }
            HttpErrorKind::Tls { fault } => write!(f, "{fault}"),
            HttpErrorKind::Timeout { phase, limit } => write!(f, "{phase} within {limit:?}"),
            HttpErrorKind::Closed { bytes: 0 } => f.write_str("the connection was closed without an answer"),
            HttpErrorKind::Closed { bytes } => {
                write!(f, "the connection was closed within the answer, after {bytes} bytes")
            }
            HttpErrorKind::Protocol { why, tls_server: false } => {
                write!(f, "the answer is not HTTP/1: {why}")
            }
            HttpErrorKind::Protocol { tls_server: true, .. } => f.write_str(
                "the server speaks TLS on this port and was spoken to without: it wants https:// instead of http://",
            ),
            HttpErrorKind::TooSlow { rate, limit } => {
                write!(f, "{rate} bytes/s are under the limit of {limit} bytes/s")
            }
            HttpErrorKind::TooLong { part: Part::Head, limit } => {
                write!(f, "the answer's head is over the limit of {limit} bytes or 100 fields")
            }
            HttpErrorKind::TooLong { part: Part::Body, limit } => {
                write!(f, "the answer's body is over the limit of {limit} bytes")
            }
            HttpErrorKind::Request { why } => write!(f, "the request can't be sent: {why}"),
        }?;
        if self.maybe_processed { f.write_str(" (the request may have been carried out)") } else { Ok(()) }
    }
}

impl core::error::Error for HttpError {}

/// Whether an input or output error says that the connection is gone.
fn is_gone(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof, WriteZero,
    };
    matches!(
        kind,
        BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof | WriteZero
    )
}

impl HttpErrorKind {
    /// Sorts an error of the TCP or TLS handshake.
    pub(super) fn from_handshake(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
        let fault = match inner {
            Some(tls) => TlsFault::from(tls),
            None if is_gone(error.kind()) => TlsFault::Closed,
            None => TlsFault::Other { why: error.to_string() },
        };
        Self::Tls { fault }
    }

    /// Sorts an error of the HTTP library: `bytes` of the answer had come, `head_limit` is its own limit, and
    /// `tls_server` says that the first bytes look like a TLS alert.
    pub(super) fn from_hyper(error: &hyper::Error, bytes: u64, head_limit: u64, tls_server: bool) -> Self {
        // The library has a predicate for it, but only with its server; a test of ours watches the text.
        if error.is_parse() && error.to_string() == "message head is too large" {
            return Self::TooLong { part: Part::Head, limit: head_limit };
        }
        let mut source = core::error::Error::source(error);
        while let Some(inner) = source {
            if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
                return Self::Tls { fault: TlsFault::from(tls) };
            }
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                if let Some(tls) = io.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
                    return Self::Tls { fault: TlsFault::from(tls) };
                }
                if is_gone(io.kind()) {
                    return Self::Closed { bytes };
                }
            }
            source = inner.source();
        }
        if error.is_canceled() || error.is_closed() || error.is_incomplete_message() || error.is_shutdown() {
            return Self::Closed { bytes };
        }
        // The library's own description; it holds neither the target nor what the server sent.
        Self::Protocol { why: error.to_string(), tls_server }
    }
}
