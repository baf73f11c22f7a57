//! What can go wrong with TLS, said so that an operator knows which check failed.

use core::fmt;

use embedded_io_async::ErrorKind;
use embedded_tls::TlsError;

use crate::http::ConnectError;

/// Why there is no TLS connection, or not any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TlsFault {
    /// The board's random generator failed or repeats itself.
    Random,
    /// The host's name can't be in a certificate.
    HostName,
    /// The stream under it failed.
    Stream(ErrorKind),
    /// The server closed the connection without saying so in TLS.
    Closed,
    /// The handshake took too long.
    Timeout,
    /// What the server says is not TLS.
    NotTls,
    /// The server gave up with this alert (RFC 8446, section 6).
    Alert(u8),
    /// A record does not fit into the read buffer.
    RecordTooLong,
    /// A record can't be decrypted, or is one that has no place here.
    Record,
    /// A message of the handshake is malformed or out of place.
    Handshake,
    /// The end of the handshake is not the server's (`Finished`).
    Finished,
    /// The server has shown no certificate, or not that it has its key.
    NoCertificate,
    /// The certificate can't be read.
    Malformed,
    /// No trusted authority has signed the certificate.
    UnknownIssuer,
    /// The certificate is for another name.
    WrongName,
    /// The certificate is out of date.
    Expired,
    /// The certificate is not valid yet, or the board's clock is wrong.
    NotYetValid,
    /// The time is not known, and [`Dates::Required`](super::Dates::Required) was set.
    NoTime,
    /// A certificate in the chain must not be used so: its signer is no authority, its name or depth is not allowed to it, or it is not for servers.
    NotAllowed,
    /// A key or signature of an algorithm that is not known here.
    Algorithm,
    /// A signature in the chain is wrong.
    Signature,
    /// The server does not have the key of its certificate.
    Proof,
    /// The server's key is none of the trusted ones.
    WrongKey,
}

impl TlsFault {
    /// What is wrong, in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            TlsFault::Random => "the board's random generator failed or repeats itself",
            TlsFault::HostName => "the host's name can't be in a certificate",
            TlsFault::Stream(_) => "the connection broke during the handshake",
            TlsFault::Closed => "the server closed the connection without a word of TLS",
            TlsFault::Timeout => "the handshake took too long",
            TlsFault::NotTls => {
                "the server does not speak TLS (is it http:// instead of https://, or another port?)"
            }
            // The usual answers of a server that has only TLS 1.2.
            TlsFault::Alert(40) => {
                "the server refused (handshake_failure): it needs TLS 1.3 with AES-128-GCM, P-256 and an ECDSA certificate"
            }
            TlsFault::Alert(70) => {
                "the server refused (protocol_version): it has no TLS 1.3; use a newer server or a proxy"
            }
            TlsFault::Alert(112) => "the server refused (unrecognized_name): it does not serve this host",
            TlsFault::Alert(116) => {
                "the server refused (certificate_required): it wants a client certificate"
            }
            TlsFault::Alert(_) => "the server refused with an alert",
            TlsFault::RecordTooLong => "a record of the server does not fit into the read buffer",
            TlsFault::Record => "a record of the server is damaged or out of place",
            TlsFault::Handshake => {
                "the server's handshake is malformed, or wants what is not spoken here (TLS 1.3, P-256)"
            }
            TlsFault::Finished => "the end of the handshake is not the server's",
            TlsFault::NoCertificate => {
                "the server has not shown a certificate together with the proof of its key"
            }
            TlsFault::Malformed => "the server's certificate can't be read",
            TlsFault::UnknownIssuer => "the server's certificate is of an unknown issuer",
            TlsFault::WrongName => "the server's certificate is for another name",
            TlsFault::Expired => "the server's certificate has expired",
            TlsFault::NotYetValid => {
                "the server's certificate is not valid yet, or the board's clock is wrong"
            }
            TlsFault::NoTime => "the time is not known, so the certificate's dates can't be checked",
            TlsFault::NotAllowed => {
                "a certificate in the server's chain is used for what it does not allow (signing, names, depth, purpose)"
            }
            TlsFault::Algorithm => {
                "the server's certificate has a key or signature of an algorithm that is not known here"
            }
            TlsFault::Signature => "a signature in the server's chain of certificates is wrong",
            TlsFault::Proof => "the server does not have the key of its certificate",
            TlsFault::WrongKey => "the server's key is none of the trusted ones",
        }
    }

    /// The stack's own error, where nothing here has said it better.
    pub(super) const fn from_stack(error: &TlsError) -> Self {
        match error {
            TlsError::Io(kind) => TlsFault::Stream(*kind),
            TlsError::IoError | TlsError::ConnectionClosed => TlsFault::Closed,
            TlsError::CryptoError | TlsError::InvalidRecord => TlsFault::Record,
            TlsError::InsufficientSpace => TlsFault::RecordTooLong,
            // Those of certificates are told by the verifier.
            TlsError::InvalidSignature => TlsFault::Finished,
            TlsError::HandshakeAborted(_, alert) => TlsFault::Alert(*alert as u8),
            _ => TlsFault::Handshake,
        }
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match self {
            TlsFault::Stream(kind) => write!(f, ": {kind:?}"),
            TlsFault::Alert(alert) => write!(f, " (alert {alert})"),
            _ => Ok(()),
        }
    }
}

impl core::error::Error for TlsFault {}

impl From<TlsFault> for ConnectError {
    fn from(fault: TlsFault) -> Self {
        ConnectError::Tls(fault.as_str())
    }
}

/// Why there is no TLS connector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum TlsSetupError {
    /// The read buffer is too small.
    ReadBuffer {
        /// Its size in bytes.
        bytes: usize,
        /// The least size in bytes.
        least: usize,
    },
    /// The write buffer is too small.
    WriteBuffer {
        /// Its size in bytes.
        bytes: usize,
        /// The least size in bytes.
        least: usize,
    },
    /// There is neither an authority nor a key that is trusted.
    NobodyTrusted,
    /// The certificate of an authority can't be read. (It must be DER, not PEM.)
    Authority {
        /// Its place in the list, from 0.
        index: usize,
    },
}

impl fmt::Display for TlsSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsSetupError::ReadBuffer { bytes, least } => {
                write!(f, "read buffer of {bytes} bytes for TLS, it must have at least {least}")
            }
            TlsSetupError::WriteBuffer { bytes, least } => {
                write!(f, "write buffer of {bytes} bytes for TLS, it must have at least {least}")
            }
            TlsSetupError::NobodyTrusted => f.write_str("TLS without an authority or key to trust"),
            TlsSetupError::Authority { index } => {
                write!(
                    f,
                    "certificate {index} of the trusted authorities can't be read; it must be DER, not PEM"
                )
            }
        }
    }
}

impl core::error::Error for TlsSetupError {}
