//! HTTPS on boards: TLS 1.3 with a check of the server's certificate, without alloc: [`Tls`].
//!
//! ```
//! use grafolean_embassy::core::api::BaseUrl;
//! use grafolean_embassy::http::{Connector, Http, HttpSetupError, Limits};
//! use grafolean_embassy::tls::{LEAST_WRITE, READ, Tls, TlsSettings, TlsSetupError, Trust, rand_core};
//!
//! /// `authority` is the certificate of whoever signed the server's, in DER: `include_bytes!("ca.der")`.
//! fn client(tcp: impl Connector, trng: impl rand_core::CryptoRngCore, authority: &[u8]) -> Result<(), TlsSetupError> {
//!     let (mut read, mut write) = ([0; READ], [0; LEAST_WRITE]); // in a firmware: in a `StaticCell`
//!     let authorities = [authority];
//!     let settings = TlsSettings::new(Trust::Authorities(&authorities));
//!     // The clock: `|| shared.with(|c| c.wall()).map(|unix| unix.0 / 1000)`
//!     let connector = Tls::new(tcp, trng, || None, settings, &mut read, &mut write)?;
//!     let mut buf = [0; 2048];
//!     if let Ok(url) = BaseUrl::parse("https://grafolean.example.com/api") {
//!         let _transport: Result<_, HttpSetupError> = Http::new(connector, url, &mut buf, Limits::DEFAULT);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # What is checked
//! With [`Trust::Authorities`]: the chain up to one of these certificates, each signature in it, that only authorities
//! have signed, what is allowed to them (names, depth), the purpose (server), the host's name or address among the
//! certificate's names, and the dates if the time is known (RFC 5280, RFC 6125; the work is that of `rustls-webpki`).
//! With [`Trust::Keys`]: that the server's public key is one of these; then names and dates don't matter. In both cases
//! that the server holds the key (`CertificateVerify`), and `Finished`. A server that leaves one of them out is refused.
//! There is no revocation (CRL, OCSP).
//!
//! A board often has no time before its first answer. Until then dates are not checked ([`Dates::WhenKnown`]); from the
//! first answer on they are, at each connection. That time comes from the server itself: who holds an old key of the
//! server can also say what time it is. A board with a clock of its own takes [`Dates::Required`].
//!
//! # What is spoken
//! TLS 1.3 (RFC 8446) with AES-128-GCM, a key exchange over P-256, and certificates with ECDSA keys: P-256, with the
//! feature `tls-p384` P-384 too. RSA certificates are refused: the known code for them allocates. No session is resumed,
//! no client certificate is sent. If the server renews its keys within a connection (`KeyUpdate`), that connection ends
//! and the next one is made. A handshake message must lie within one record. A server that is refused sees the
//! connection closed, without an alert.
//!
//! **Backends:** the web server that Grafolean ships today offers TLS 1.2 at most. Put a newer nginx or another proxy that
//! has TLS 1.3 before it, or use `http` in a network of your own, or plug in a stack with TLS 1.2: any [`Connector`] with
//! [`Connector::TLS`] set takes this one's place. `https` without such a connector, and `http` with one, are refused by
//! [`Http::new`](crate::http::Http::new).
//!
//! # Cost
//! Measured with `opt-level = "s"`:
//!
//! | | P-256 | and P-384 |
//! | --- | --- | --- |
//! | flash, thumbv6m | 86 kB | 251 kB |
//! | flash, riscv32imc | 107 kB | 274 kB |
//! | record buffers ([`READ`], [`LEAST_WRITE`]) | 17.4 kB | 17.4 kB |
//! | more in the transport's future | 4 kB | 4 kB |
//! | stack while it computes, thumbv6m | 17 kB | 20 kB |
//! | instructions of a handshake, thumbv6m | 141 million | 334 million |
//!
//! The firmware examples for thumbv6m, with two bots and `opt-level = "z"`, take 103 kB more flash with P-256 than without TLS.
//!
//! With an nginx as server a read buffer of [`LEAST_READ`] saves 12 kB. The handshake computes without a pause: two
//! multiplications on the curve for the keys, and one signature check for each certificate and one for the proof. On a
//! Cortex-M0+ at 133 MHz that is one to two seconds (P-384: three to four) in which nothing else of the executor runs; put
//! what can't wait into one of a higher priority, and see that [`Limits::connect_ms`](crate::http::Limits::connect_ms)
//! leaves enough.
//!
//! # Randomness
//! Each connection takes 64 bytes from the board's generator, which are hashed together with what came before; a generator
//! that repeats itself is refused. It must be a true one: the RNG of an ESP32 with its radio on, the TRNG of an RP2350, at
//! the least the ring oscillator of an RP2040.
//!
//! # Why this stack
//! Of what needs neither alloc nor C, `embedded-tls` is kept best (0.19 or newer: older ones don't show the certificates
//! to a verifier of our own). Its own verifiers are not used: one needs *ring*, the other knows neither what is allowed to
//! authorities nor addresses. What else it leaves open is closed here: it accepts a handshake without any certificate, and
//! some records would make it panic (one with nothing in it, a handshake message after the handshake); so each record is
//! looked at before it is decrypted and after, and the certificate and its proof must have been there. rustls needs alloc;
//! mbedTLS is C, with a heap of its own.
//!
//! Keys are not wiped from memory after use.
//!
//! # Errors
//! [`TlsSetupError`] at start-up; [`TlsFault`], which becomes [`ConnectError::Tls`], for a connection.

mod fault;
mod guard;
mod random;
mod verify;

use core::fmt;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use embassy_time::{Duration, with_timeout};
use embedded_io_async::{ErrorKind, ErrorType, Read, Write};
use embedded_tls::{MaxFragmentLength, TlsConfig, TlsConnection, TlsContext, TlsError};
pub use rand_core;
use rand_core::CryptoRngCore;
pub use rustls_pki_types as pki_types;
use rustls_pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm};

use crate::http::{ConnectError, Connector};
pub use fault::{TlsFault, TlsSetupError};
use guard::{Guard, Link, Phase, Suite};
use random::Random;
pub use verify::P256;
#[cfg(feature = "tls-p384")]
pub use verify::P256_P384;
use verify::{Provider, Verifier};

/// The size of a read buffer that takes every record of TLS 1.3, in bytes.
pub const READ: usize = 16_640;

/// The least size of the read buffer, in bytes. With one that is smaller than [`READ`] the server is asked to send
/// records of at most 4,096 bytes (RFC 6066, Maximum Fragment Length). OpenSSL, and so nginx, does that; many others don't, and their
/// larger records are refused.
pub const LEAST_READ: usize = 4_096 + 256;

/// The least size of the write buffer, in bytes. A larger one makes larger records.
pub const LEAST_WRITE: usize = 768;

/// How long the connection to a server that was refused may take to be closed in order.
const REFUSED_CLOSE: Duration = Duration::from_secs(1);

/// Which servers are trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Trust<'b> {
    /// Those with a certificate of one of these authorities, given by their own certificates in DER.
    Authorities(&'b [&'b [u8]]),
    /// Those with one of these public keys, given by the SHA-256 of their SubjectPublicKeyInfo in DER (as in RFC 7469). The
    /// certificate may be self-signed. Give a second key, kept in a safe, to be able to change the first.
    Keys(&'b [[u8; 32]]),
}

/// What is done about a certificate's dates while the time is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Dates {
    /// They are not checked, except that all certificates must be valid at one time.
    #[default]
    WhenKnown,
    /// The connection is refused.
    Required,
}

/// Settings of [`Tls`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TlsSettings<'b> {
    /// Which servers are trusted.
    pub trust: Trust<'b>,
    /// What is done while the time is not known. Only for [`Trust::Authorities`].
    pub dates: Dates,
    /// How long the handshake may take after the TCP connection is there, in milliseconds (20,000). It also ends with
    /// [`Limits::connect_ms`](crate::http::Limits::connect_ms), which counts from the beginning.
    pub handshake_ms: u32,
    /// The signatures that can be checked ([`P256`]; with the feature `tls-p384` P-384 too).
    pub algorithms: &'b [&'b dyn SignatureVerificationAlgorithm],
}

impl<'b> TlsSettings<'b> {
    /// The default for all but the trust.
    #[must_use]
    pub const fn new(trust: Trust<'b>) -> Self {
        #[cfg(feature = "tls-p384")]
        let algorithms = P256_P384;
        #[cfg(not(feature = "tls-p384"))]
        let algorithms = P256;
        TlsSettings { trust, dates: Dates::WhenKnown, handshake_ms: 20_000, algorithms }
    }
}

/// A [`Connector`] that speaks TLS 1.3 over the connections of another one; see [the module](self).
///
/// `R` is the board's random generator, `K` its clock: seconds since 1970, if known.
pub struct Tls<'b, C, R, K> {
    inner: C,
    random: Random<R>,
    clock: K,
    settings: TlsSettings<'b>,
    read: &'b mut [u8],
    write: &'b mut [u8],
    link: Link,
}

impl<'b, C: Connector, R: CryptoRngCore, K: Fn() -> Option<u64>> Tls<'b, C, R, K> {
    /// Speaks TLS over `inner`. `read` and `write` hold a record each way, [`READ`] and [`LEAST_WRITE`] bytes or more.
    ///
    /// # Errors
    /// [`TlsSetupError`] if a buffer is too small, if nobody is trusted, or if an authority's certificate can't be read.
    pub fn new(
        inner: C,
        random: R,
        clock: K,
        settings: TlsSettings<'b>,
        read: &'b mut [u8],
        write: &'b mut [u8],
    ) -> Result<Self, TlsSetupError> {
        const { assert!(!C::TLS, "the connections under TLS must be plain ones") };
        if read.len() < LEAST_READ {
            return Err(TlsSetupError::ReadBuffer { bytes: read.len(), least: LEAST_READ });
        }
        if write.len() < LEAST_WRITE {
            return Err(TlsSetupError::WriteBuffer { bytes: write.len(), least: LEAST_WRITE });
        }
        match settings.trust {
            Trust::Authorities([]) | Trust::Keys([]) => return Err(TlsSetupError::NobodyTrusted),
            Trust::Authorities(all) => {
                for (index, der) in all.iter().enumerate() {
                    if webpki::anchor_from_trusted_cert(&CertificateDer::from(*der)).is_err() {
                        return Err(TlsSetupError::Authority { index });
                    }
                }
            }
            Trust::Keys(_) => {}
        }
        Ok(Tls { inner, random: Random::new(random), clock, settings, read, write, link: Link::default() })
    }
}

impl<C, R, K> fmt::Debug for Tls<'_, C, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the buffers nor the generator.
        f.debug_struct("Tls").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<C: Connector, R: CryptoRngCore, K: Fn() -> Option<u64>> Connector for Tls<'_, C, R, K> {
    type Stream<'a>
        = TlsStream<'a, C::Stream<'a>>
    where
        Self: 'a;

    const TLS: bool = true;

    async fn connect(&mut self, host: &str, port: u16) -> Result<Self::Stream<'_>, ConnectError> {
        let Tls { inner, random, clock, settings, read, write, link } = self;
        // The dot that ends an absolute name is not part of it here (RFC 6066, section 3).
        let bare = host.strip_suffix('.').unwrap_or(host);
        let name = ServerName::try_from(bare).map_err(|_| TlsFault::HostName)?;
        let mut config = TlsConfig::new();
        if let ServerName::DnsName(_) = name {
            config = config.with_server_name(bare);
        }
        if read.len() < READ {
            config = config.with_max_fragment_length(MaxFragmentLength::Bits12);
        }
        let rng = random.seed()?;
        let stream = inner.connect(host, port).await?;

        link.begin();
        let link: &Link = link;
        let guard = Guard::new(stream, link, read.len());
        let verifier = Verifier::new(settings, name, clock(), link);
        let mut provider = Provider { rng, verifier };
        let mut connection = TlsConnection::new(guard, read, write);
        let limit = Duration::from_millis(settings.handshake_ms.into());
        let open = connection.open(TlsContext::new(&config, &mut provider));
        let fault = match with_timeout(limit, open).await {
            Ok(Ok(())) if provider.verifier.is_proven() => {
                link.phase.set(Phase::Open);
                return Ok(TlsStream { connection, link, ended: false });
            }
            // Finished without a certificate, or without the proof that the server has its key.
            Ok(Ok(())) => TlsFault::NoCertificate,
            Ok(Err(error)) => link.fault.get().unwrap_or(TlsFault::from_stack(&error)),
            Err(_) => TlsFault::Timeout,
        };
        link.phase.set(Phase::Refused);
        if let Some(guard) = end(connection) {
            // A server that does not confirm the end must not make a time-out of the connection out of the fault.
            let _ = with_timeout(REFUSED_CLOSE, C::close(guard.stream)).await;
        }
        Err(fault.into())
    }

    // An `async fn` would hold its argument twice.
    #[allow(clippy::manual_async_fn)]
    fn close<'a>(mut stream: Self::Stream<'a>) -> impl Future<Output = ()>
    where
        Self: 'a,
    {
        async move {
            let sent = stream.flush().await;
            stream.link.phase.set(Phase::Closing);
            if let Some(mut guard) = end(stream.connection) {
                if sent.is_ok() && guard.say_goodbye().await.is_ok() {
                    let _ = guard.stream.flush().await;
                }
                C::close(guard.stream).await;
            }
        }
    }
}

/// Ends a connection within TLS, and gives the guard of its stream back. By then the guard does no input or output any more, so that
/// this does not wait: it needs no place in a future, where the stack's own would take two times its connection.
fn end<'a, S: Read + Write>(connection: TlsConnection<'a, Guard<'a, S>, Suite>) -> Option<Guard<'a, S>> {
    match pin!(connection.close()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(guard) | Err((guard, _))) => Some(guard),
        Poll::Pending => None,
    }
}

/// A connection of [`Tls`].
///
/// It ends in order (`Ok(0)`) only with the server's `close_notify`: a connection that was cut is an error.
pub struct TlsStream<'a, S: Read + Write + 'a> {
    connection: TlsConnection<'a, Guard<'a, S>, Suite>,
    link: &'a Link,
    ended: bool,
}

impl<S: Read + Write> fmt::Debug for TlsStream<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").finish_non_exhaustive()
    }
}

impl<S: Read + Write> TlsStream<'_, S> {
    fn error(&self, error: &TlsError) -> TlsStreamError {
        TlsStreamError(self.link.fault.get().unwrap_or(TlsFault::from_stack(error)))
    }
}

/// Why a connection over TLS ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlsStreamError(
    /// What is wrong.
    pub TlsFault,
);

impl fmt::Display for TlsStreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl core::error::Error for TlsStreamError {}

impl embedded_io_async::Error for TlsStreamError {
    fn kind(&self) -> ErrorKind {
        match self.0 {
            TlsFault::Stream(kind) => kind,
            TlsFault::Closed => ErrorKind::ConnectionAborted,
            TlsFault::Alert(_) => ErrorKind::ConnectionReset,
            _ => ErrorKind::InvalidData,
        }
    }
}

impl<S: Read + Write> ErrorType for TlsStream<'_, S> {
    type Error = TlsStreamError;
}

impl<S: Read + Write> Read for TlsStream<'_, S> {
    async fn read(&mut self, buf: &mut [u8]) -> Result<usize, TlsStreamError> {
        if self.ended {
            return Ok(0);
        }
        match self.connection.read(buf).await {
            Ok(n) => Ok(n),
            Err(TlsError::ConnectionClosed) => {
                self.ended = true;
                Ok(0)
            }
            Err(error) => Err(self.error(&error)),
        }
    }
}

impl<S: Read + Write> Write for TlsStream<'_, S> {
    async fn write(&mut self, buf: &[u8]) -> Result<usize, TlsStreamError> {
        self.connection.write(buf).await.map_err(|error| self.error(&error))
    }

    async fn flush(&mut self) -> Result<(), TlsStreamError> {
        self.link.flush.set(true);
        let flushed = self.connection.flush().await;
        self.link.flush.set(false);
        flushed.map_err(|error| self.error(&error))
    }
}
