//! The check of the server's certificate and of its proof that it has the key.

use core::time::Duration;

use embedded_tls::{
    CertificateEntryRef, CertificateRef, CertificateVerifyRef, CryptoProvider, SignatureScheme, TlsError,
    TlsVerifier,
};
use p256::ecdsa::signature::Verifier as _;
use rand_core::CryptoRngCore;
use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, ServerName, SignatureVerificationAlgorithm,
    SubjectPublicKeyInfoDer, UnixTime, alg_id,
};
use sha2::{Digest, Sha256};
use webpki::{EndEntityCert, KeyUsage, RawPublicKeyEntity};

use super::guard::{Link, Suite};
use super::random::Seeded;
use super::{Dates, TlsFault, TlsSettings, Trust};

/// ECDSA with SHA-256 over P-256.
pub const P256: &[&dyn SignatureVerificationAlgorithm] = &[&EcdsaP256Sha256];

/// ECDSA over P-256 and P-384, each with SHA-256 or SHA-384: what public authorities sign with. Takes 165 kB of flash more
/// than [`P256`].
#[cfg(feature = "tls-p384")]
pub const P256_P384: &[&dyn SignatureVerificationAlgorithm] =
    &[&EcdsaP256Sha256, &p384_too::EcdsaP384Sha384, &p384_too::EcdsaP256Sha384, &p384_too::EcdsaP384Sha256];

#[derive(Debug)]
struct EcdsaP256Sha256;

impl SignatureVerificationAlgorithm for EcdsaP256Sha256 {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        use p256::ecdsa::{Signature, VerifyingKey};
        let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify(message, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }
}

#[cfg(feature = "tls-p384")]
mod p384_too {
    use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
    use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
    use sha2::{Digest, Sha256, Sha384};

    macro_rules! ecdsa {
        ($name:ident, $curve:ident, $hash:ident, $key_id:expr, $signature_id:expr) => {
            #[derive(Debug)]
            pub(super) struct $name;

            impl SignatureVerificationAlgorithm for $name {
                fn verify_signature(
                    &self,
                    key: &[u8],
                    message: &[u8],
                    signature: &[u8],
                ) -> Result<(), InvalidSignature> {
                    use $curve::ecdsa::{Signature, VerifyingKey};
                    let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
                    let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
                    key.verify_prehash(&$hash::digest(message), &signature).map_err(|_| InvalidSignature)
                }

                fn public_key_alg_id(&self) -> AlgorithmIdentifier {
                    $key_id
                }

                fn signature_alg_id(&self) -> AlgorithmIdentifier {
                    $signature_id
                }
            }
        };
    }

    ecdsa!(EcdsaP384Sha384, p384, Sha384, alg_id::ECDSA_P384, alg_id::ECDSA_SHA384);
    ecdsa!(EcdsaP384Sha256, p384, Sha256, alg_id::ECDSA_P384, alg_id::ECDSA_SHA256);
    ecdsa!(EcdsaP256Sha384, p256, Sha384, alg_id::ECDSA_P256, alg_id::ECDSA_SHA384);
}

/// What the TLS stack asks for in a handshake.
pub(super) struct Provider<'v> {
    pub(super) rng: Seeded,
    pub(super) verifier: Verifier<'v>,
}

impl CryptoProvider for Provider<'_> {
    type CipherSuite = Suite;
    /// There are no client certificates.
    type Signature = [u8; 0];

    fn rng(&mut self) -> impl CryptoRngCore {
        &mut self.rng
    }

    fn verifier(&mut self) -> Result<&mut impl TlsVerifier<Suite>, TlsError> {
        Ok(&mut self.verifier)
    }
}

/// The longest SubjectPublicKeyInfo that is kept, in bytes: one of P-521 fits.
const LONGEST_KEY: usize = 160;

/// How many certificates between the server's and the authority's are looked at.
const INTERMEDIATES: usize = 4;

/// How far the server's proof is.
enum Stage {
    Nothing,
    /// The certificate is good; this is the handshake up to it.
    Certificate(Sha256),
    Proven,
}

/// Checks one server.
pub(super) struct Verifier<'v> {
    settings: &'v TlsSettings<'v>,
    name: ServerName<'v>,
    unix_s: Option<u64>,
    link: &'v Link,
    stage: Stage,
    key: heapless::Vec<u8, LONGEST_KEY>,
}

impl<'v> Verifier<'v> {
    pub(super) const fn new(
        settings: &'v TlsSettings<'v>,
        name: ServerName<'v>,
        unix_s: Option<u64>,
        link: &'v Link,
    ) -> Self {
        Verifier { settings, name, unix_s, link, stage: Stage::Nothing, key: heapless::Vec::new() }
    }

    /// Whether the server has shown a good certificate and that it has its key.
    pub(super) const fn is_proven(&self) -> bool {
        matches!(self.stage, Stage::Proven)
    }

    fn told(&self, checked: Result<(), TlsFault>) -> Result<(), TlsError> {
        checked.map_err(|fault| {
            self.link.fault.set(Some(fault));
            TlsError::InvalidCertificate
        })
    }

    fn certificate(
        &mut self,
        transcript: &Sha256,
        certificates: &CertificateRef<'_>,
    ) -> Result<(), TlsFault> {
        if !matches!(self.stage, Stage::Nothing) {
            return Err(TlsFault::Handshake);
        }
        let Some(CertificateEntryRef::X509(server)) = certificates.entries.first() else {
            return Err(TlsFault::NoCertificate);
        };
        let key = public_key(server).ok_or(TlsFault::Malformed)?;
        self.key = heapless::Vec::from_slice(key).map_err(|_| TlsFault::Algorithm)?;
        match self.settings.trust {
            Trust::Keys(keys) => {
                let hash: [u8; 32] = Sha256::digest(key).into();
                if !keys.contains(&hash) {
                    return Err(TlsFault::WrongKey);
                }
            }
            Trust::Authorities(authorities) => {
                if self.unix_s.is_none() && self.settings.dates == Dates::Required {
                    return Err(TlsFault::NoTime);
                }
                let others: [CertificateDer<'_>; INTERMEDIATES] =
                    core::array::from_fn(|index| match certificates.entries.get(index + 1) {
                        Some(CertificateEntryRef::X509(der)) => CertificateDer::from(*der),
                        _ => CertificateDer::from(&[][..]),
                    });
                let count = certificates.entries.len().saturating_sub(1).min(INTERMEDIATES);
                self.chain(server, others.get(..count).unwrap_or_default(), authorities)?;
            }
        }
        self.stage = Stage::Certificate(transcript.clone());
        Ok(())
    }

    fn chain(
        &self,
        server: &[u8],
        others: &[CertificateDer<'_>],
        authorities: &[&[u8]],
    ) -> Result<(), TlsFault> {
        let server = CertificateDer::from(server);
        let server = EndEntityCert::try_from(&server).map_err(|error| fault(&error))?;
        let mut result = Err(TlsFault::UnknownIssuer);
        for authority in authorities {
            let authority = CertificateDer::from(*authority);
            let Ok(anchor) = webpki::anchor_from_trusted_cert(&authority) else { continue };
            match self.path(&server, others, &[anchor]) {
                Ok(()) => {
                    result = Ok(());
                    break;
                }
                Err(TlsFault::UnknownIssuer) => {}
                Err(fault) => result = Err(fault),
            }
        }
        result?;
        server.verify_is_valid_for_subject_name(&self.name).map_err(|error| fault(&error))
    }

    /// Looks for a path from the server to the authority. If the time is not known, at the earliest time at which all its
    /// certificates are valid.
    fn path(
        &self,
        server: &EndEntityCert<'_>,
        others: &[CertificateDer<'_>],
        anchor: &[rustls_pki_types::TrustAnchor<'_>],
    ) -> Result<(), TlsFault> {
        let mut unix_s = self.unix_s.unwrap_or(0);
        for _ in 0..INTERMEDIATES + 2 {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(unix_s));
            let usage = KeyUsage::server_auth();
            match server.verify_for_usage(self.settings.algorithms, anchor, others, time, usage, None, None) {
                Ok(_) => return Ok(()),
                Err(webpki::Error::CertNotValidYet { not_before, .. }) if self.unix_s.is_none() => {
                    unix_s = not_before.as_secs();
                }
                Err(error) => return Err(fault(&error)),
            }
        }
        Err(TlsFault::NotYetValid)
    }

    /// RFC 8446, section 4.4.3.
    fn proof(&mut self, verify: &CertificateVerifyRef<'_>) -> Result<(), TlsFault> {
        let stage = core::mem::replace(&mut self.stage, Stage::Nothing);
        let Stage::Certificate(transcript) = stage else { return Err(TlsFault::Handshake) };
        let (key_id, signature_id) = match verify.signature_scheme {
            SignatureScheme::EcdsaSecp256r1Sha256 => (alg_id::ECDSA_P256, alg_id::ECDSA_SHA256),
            SignatureScheme::EcdsaSecp384r1Sha384 => (alg_id::ECDSA_P384, alg_id::ECDSA_SHA384),
            SignatureScheme::Ed25519 => (alg_id::ED25519, alg_id::ED25519),
            _ => return Err(TlsFault::Algorithm),
        };
        let mut known = self.settings.algorithms.iter();
        let algorithm = known
            .find(|a| a.public_key_alg_id() == key_id && a.signature_alg_id() == signature_id)
            .ok_or(TlsFault::Algorithm)?;
        let mut message = heapless::Vec::<u8, 130>::new();
        for part in [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &transcript.finalize()] {
            message.extend_from_slice(part).map_err(|_| TlsFault::Handshake)?;
        }
        let key = SubjectPublicKeyInfoDer::from(self.key.as_slice());
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| TlsFault::Malformed)?;
        match key.verify_signature(*algorithm, &message, verify.signature) {
            Ok(()) => {
                self.stage = Stage::Proven;
                Ok(())
            }
            Err(webpki::Error::InvalidSignatureForPublicKey) => Err(TlsFault::Proof),
            Err(error) => Err(fault(&error)),
        }
    }
}

impl TlsVerifier<Suite> for Verifier<'_> {
    fn set_hostname_verification(&mut self, _: &str) -> Result<(), TlsError> {
        // It has the name already, and also if that is an address.
        Ok(())
    }

    fn verify_certificate(
        &mut self,
        transcript: &Sha256,
        certificates: CertificateRef<'_>,
    ) -> Result<(), TlsError> {
        let checked = self.certificate(transcript, &certificates);
        self.told(checked)
    }

    fn verify_signature(&mut self, verify: CertificateVerifyRef<'_>) -> Result<(), TlsError> {
        let checked = self.proof(&verify);
        self.told(checked)
    }
}

/// Which check failed.
fn fault(error: &webpki::Error) -> TlsFault {
    use webpki::Error;
    match error {
        Error::CertExpired { .. } | Error::InvalidCertValidity => TlsFault::Expired,
        Error::CertNotValidYet { .. } => TlsFault::NotYetValid,
        Error::CertNotValidForName(_) => TlsFault::WrongName,
        Error::UnknownIssuer => TlsFault::UnknownIssuer,
        Error::InvalidSignatureForPublicKey | Error::SignatureAlgorithmMismatch => TlsFault::Signature,
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => TlsFault::Algorithm,
        Error::CaUsedAsEndEntity
        | Error::EndEntityUsedAsCa
        | Error::CertDistrusted
        | Error::NameConstraintViolation
        | Error::PathLenConstraintViolated
        | Error::RequiredEkuNotFoundContext(_)
        | Error::EmptyEkuExtension
        | Error::MaximumPathBuildCallsExceeded
        | Error::MaximumPathDepthExceeded
        | Error::MaximumSignatureChecksExceeded
        | Error::MaximumNameConstraintComparisonsExceeded => TlsFault::NotAllowed,
        _ => TlsFault::Malformed,
    }
}

/// The SubjectPublicKeyInfo of a certificate, both in DER (RFC 5280, section 4.1).
fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut rest, _) = element(content(certificate)?).filter(|(tag, ..)| *tag == SEQUENCE)?;
    rest = content(rest)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    // Serial number, signature, issuer, validity, subject.
    for _ in 0..5 {
        rest = element(rest)?.2;
    }
    let (tag, key, _) = element(rest)?;
    (tag == SEQUENCE).then_some(key)
}

/// The first element of `der`: its tag, all of it, and what comes after it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (header, len) = header(der)?;
    let (whole, rest) = der.split_at_checked(header.checked_add(len)?)?;
    Some((*der.first()?, whole, rest))
}

/// What is inside of an element.
fn content(element: &[u8]) -> Option<&[u8]> {
    element.get(header(element)?.0..)
}

/// How long an element's header and its content are. Contents of 64 kB and more don't come.
fn header(der: &[u8]) -> Option<(usize, usize)> {
    match der {
        [_, len @ 0..=0x7f, ..] => Some((2, usize::from(*len))),
        [_, 0x81, len, ..] => Some((3, usize::from(*len))),
        [_, 0x82, high, low, ..] => Some((4, usize::from(u16::from_be_bytes([*high, *low])))),
        _ => None,
    }
}
