//! Keys of the user-based security model: from passwords (RFC 3414, A.2), for one engine, and what is done with them.

use core::fmt;
use core::str::FromStr;

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, consts::U8};
use des::Des;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::digest::Digest;
use sha2::{Sha224, Sha256, Sha384, Sha512};
use zeroize::{Zeroize, Zeroizing};

use crate::usm::EngineId;

/// How many bytes of the repeated password are hashed.
const EXPANDED_BYTES: usize = 1 << 20;
/// The longest digest, SHA-512's; the longest key too.
const MAX_KEY: usize = 64;
/// The longest authentication code in a message, SHA-512's.
pub(crate) const MAX_MAC: usize = 48;

/// How messages are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthProtocol {
    /// HMAC-MD5-96 (RFC 3414). Weak; some devices have nothing else.
    Md5,
    /// HMAC-SHA-96 (RFC 3414).
    Sha1,
    /// HMAC-SHA-224 with 128 bits (RFC 7860).
    Sha224,
    /// HMAC-SHA-256 with 192 bits (RFC 7860).
    Sha256,
    /// HMAC-SHA-384 with 256 bits (RFC 7860).
    Sha384,
    /// HMAC-SHA-512 with 384 bits (RFC 7860).
    Sha512,
}

/// Calls a generic function with the digest of a protocol.
macro_rules! with_digest {
    ($protocol:expr, $function:ident($($argument:expr),*)) => {
        match $protocol {
            AuthProtocol::Md5 => $function::<Md5>($($argument),*),
            AuthProtocol::Sha1 => $function::<Sha1>($($argument),*),
            AuthProtocol::Sha224 => $function::<Sha224>($($argument),*),
            AuthProtocol::Sha256 => $function::<Sha256>($($argument),*),
            AuthProtocol::Sha384 => $function::<Sha384>($($argument),*),
            AuthProtocol::Sha512 => $function::<Sha512>($($argument),*),
        }
    };
}

/// Calls a generic function with the HMAC of a protocol.
macro_rules! with_hmac {
    ($protocol:expr, $function:ident($($argument:expr),*)) => {
        match $protocol {
            AuthProtocol::Md5 => $function::<Hmac<Md5>>($($argument),*),
            AuthProtocol::Sha1 => $function::<Hmac<Sha1>>($($argument),*),
            AuthProtocol::Sha224 => $function::<Hmac<Sha224>>($($argument),*),
            AuthProtocol::Sha256 => $function::<Hmac<Sha256>>($($argument),*),
            AuthProtocol::Sha384 => $function::<Hmac<Sha384>>($($argument),*),
            AuthProtocol::Sha512 => $function::<Hmac<Sha512>>($($argument),*),
        }
    };
}

impl AuthProtocol {
    /// The bytes of its key, which are those of its digest.
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The bytes of a message's authentication code.
    pub const fn mac_bytes(self) -> usize {
        match self {
            Self::Md5 | Self::Sha1 => 12,
            Self::Sha224 => 16,
            Self::Sha256 => 24,
            Self::Sha384 => 32,
            Self::Sha512 => 48,
        }
    }
}

/// How messages are encrypted.
///
/// Keys for AES with 192 and 256 bits are longer than some digests. There are two drafts for making more of them:
/// Blumenthal's (draft-blumenthal-aes-usm-04, net-snmp's `AES-192` and `AES-256`), and Reeder's (draft-reeder-snmpv3-
/// usm-3desede-00, which Cisco and others use; net-snmp's `AES-192-C` and `AES-256-C`). They agree where the digest
/// is long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrivProtocol {
    /// DES in CBC mode (RFC 3414). Weak; some devices have nothing else.
    Des,
    /// AES with 128 bits in CFB mode (RFC 3826).
    Aes128,
    /// AES with 192 bits, key made longer after Blumenthal.
    Aes192Blumenthal,
    /// AES with 256 bits, key made longer after Blumenthal.
    Aes256Blumenthal,
    /// AES with 192 bits, key made longer after Reeder.
    Aes192Reeder,
    /// AES with 256 bits, key made longer after Reeder.
    Aes256Reeder,
}

impl PrivProtocol {
    /// The bytes of its key; DES' with what its initialization vectors are made of.
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::Des | Self::Aes128 => 16,
            Self::Aes192Blumenthal | Self::Aes192Reeder => 24,
            Self::Aes256Blumenthal | Self::Aes256Reeder => 32,
        }
    }

    const fn is_reeder(self) -> bool {
        matches!(self, Self::Aes192Reeder | Self::Aes256Reeder)
    }
}

/// A text that names no protocol which this crate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownProtocol;

impl fmt::Display for UnknownProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "unknown protocol: authentication has MD5, SHA, SHA-224, SHA-256, SHA-384 and SHA-512; \
             privacy has DES, AES, AES-192, AES-256, AES-192-C and AES-256-C",
        )
    }
}

impl core::error::Error for UnknownProtocol {}

impl FromStr for AuthProtocol {
    type Err = UnknownProtocol;

    /// Reads net-snmp's names in any case, with or without their hyphens.
    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        find(
            text,
            &[
                ("MD5", Self::Md5),
                ("SHA", Self::Sha1),
                ("SHA1", Self::Sha1),
                ("SHA224", Self::Sha224),
                ("SHA256", Self::Sha256),
                ("SHA384", Self::Sha384),
                ("SHA512", Self::Sha512),
            ],
        )
    }
}

impl FromStr for PrivProtocol {
    type Err = UnknownProtocol;

    /// Reads net-snmp's names in any case, with or without their hyphens.
    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        find(
            text,
            &[
                ("DES", Self::Des),
                ("AES", Self::Aes128),
                ("AES128", Self::Aes128),
                ("AES192", Self::Aes192Blumenthal),
                ("AES256", Self::Aes256Blumenthal),
                ("AES192C", Self::Aes192Reeder),
                ("AES256C", Self::Aes256Reeder),
            ],
        )
    }
}

fn find<T: Copy>(text: &str, names: &[(&str, T)]) -> Result<T, UnknownProtocol> {
    let plain = || text.bytes().filter(|byte| *byte != b'-').map(|byte| byte.to_ascii_uppercase());
    names.iter().find(|(name, _)| plain().eq(name.bytes())).map(|(_, value)| *value).ok_or(UnknownProtocol)
}

/// What messages are protected by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecurityLevel {
    /// Nothing.
    NoAuthNoPriv,
    /// Signatures.
    AuthNoPriv,
    /// Signatures and encryption.
    AuthPriv,
}

impl fmt::Display for SecurityLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAuthNoPriv => "noAuthNoPriv",
            Self::AuthNoPriv => "authNoPriv",
            Self::AuthPriv => "authPriv",
        })
    }
}

/// Why a key was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// A password without characters.
    EmptyPassword,
    /// A ready key of another length than its protocol has.
    KeyLength {
        /// What the protocol has.
        expected_bytes: usize,
        /// What was given.
        found_bytes: usize,
    },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyPassword => write!(f, "the password is empty"),
            Self::KeyLength { expected_bytes, found_bytes } => {
                write!(f, "the key has {found_bytes} bytes, its protocol wants {expected_bytes}")
            }
        }
    }
}

impl core::error::Error for KeyError {}

/// A key that is wiped when it is dropped.
#[derive(Clone)]
struct Secret {
    bytes: Zeroizing<[u8; MAX_KEY]>,
    len: u8,
}

impl Secret {
    fn new() -> Self {
        Self { bytes: Zeroizing::new([0; MAX_KEY]), len: 0 }
    }

    fn copy_of(bytes: &[u8]) -> Self {
        let mut secret = Self::new();
        secret.append(bytes, MAX_KEY);
        secret
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Adds what fits of `bytes` up to a length of `max`.
    fn append(&mut self, bytes: &[u8], max: usize) {
        let mut len = usize::from(self.len);
        for (place, byte) in self.bytes.iter_mut().take(max).skip(len).zip(bytes) {
            *place = *byte;
            len += 1;
        }
        self.len = len as u8;
    }
}

fn digest<D: Digest>(parts: &[&[u8]]) -> Secret {
    let mut digest = D::new();
    parts.iter().for_each(|part| digest.update(part));
    let mut output = digest.finalize();
    let secret = Secret::copy_of(&output);
    output.as_mut_slice().zeroize();
    secret
}

/// Hashes a megabyte of the password, repeated. A password must not be empty.
fn expand<D: Digest>(password: &[u8]) -> Secret {
    // Whole repetitions, so that the next piece goes on where the last one ended.
    let mut repeated = Zeroizing::new([0; 512]);
    let used = repeated.len() / password.len() * password.len();
    for (place, byte) in repeated.iter_mut().zip(password.iter().cycle()) {
        *place = *byte;
    }
    let piece = if used == 0 { password } else { repeated.get(..used).unwrap_or(password) };
    let mut digest = D::new();
    let mut left = EXPANDED_BYTES;
    while left > 0 {
        let piece = piece.get(..left).unwrap_or(piece);
        digest.update(piece);
        left -= piece.len();
    }
    let mut output = digest.finalize();
    let secret = Secret::copy_of(&output);
    output.as_mut_slice().zeroize();
    secret
}

fn localize(protocol: AuthProtocol, key: &Secret, engine: &EngineId) -> Secret {
    with_digest!(protocol, digest(&[key.as_bytes(), engine.as_bytes(), key.as_bytes()]))
}

/// A user's keys for every engine, made of passwords (Ku in RFC 3414).
///
/// Making them hashes one megabyte for each password: some milliseconds on a host, seconds on a small board. Keep
/// them for all devices with the same passwords; [`MasterKeys::localize`] is short then, except with Reeder's keys.
#[derive(Clone)]
pub struct MasterKeys {
    auth: Option<(AuthProtocol, Secret)>,
    privacy: Option<(PrivProtocol, Secret)>,
}

impl MasterKeys {
    /// For messages without protection.
    pub const fn none() -> Self {
        Self { auth: None, privacy: None }
    }

    /// For signed messages. Passwords of fewer than 8 bytes are accepted, as some devices do; RFC 3414 and net-snmp
    /// don't.
    ///
    /// # Errors
    ///
    /// [`KeyError::EmptyPassword`].
    pub fn auth(protocol: AuthProtocol, password: &[u8]) -> Result<Self, KeyError> {
        Ok(Self { auth: Some((protocol, expand_with(protocol, password)?)), privacy: None })
    }

    /// For signed and encrypted messages.
    ///
    /// # Errors
    ///
    /// [`KeyError::EmptyPassword`].
    pub fn auth_priv(
        auth: AuthProtocol,
        auth_password: &[u8],
        privacy: PrivProtocol,
        priv_password: &[u8],
    ) -> Result<Self, KeyError> {
        // The key for encryption is made with the digest of authentication too.
        let priv_key = expand_with(auth, priv_password)?;
        Ok(Self { privacy: Some((privacy, priv_key)), ..Self::auth(auth, auth_password)? })
    }

    /// What messages are protected by.
    pub const fn level(&self) -> SecurityLevel {
        level(&self.auth, &self.privacy)
    }

    /// The keys for one engine (Kul in RFC 3414). Hashes about 100 bytes for each key; another megabyte for
    /// [`PrivProtocol::Aes192Reeder`] and [`PrivProtocol::Aes256Reeder`] where the digest is shorter than the key.
    pub fn localize(&self, engine: &EngineId) -> LocalizedKeys {
        let auth = self.auth.as_ref().map(|(protocol, key)| (*protocol, localize(*protocol, key, engine)));
        let privacy = self.auth.as_ref().zip(self.privacy.as_ref()).map(|((auth, _), (privacy, key))| {
            let max = privacy.key_bytes();
            let mut last = localize(*auth, key, engine);
            let mut key = Secret::new();
            key.append(last.as_bytes(), max);
            while usize::from(key.len) < max {
                last = if privacy.is_reeder() {
                    let expanded = with_digest!(*auth, expand(last.as_bytes()));
                    localize(*auth, &expanded, engine)
                } else {
                    with_digest!(*auth, digest(&[key.as_bytes()]))
                };
                key.append(last.as_bytes(), max);
            }
            (*privacy, key)
        });
        LocalizedKeys { engine: *engine, auth, privacy }
    }
}

fn expand_with(protocol: AuthProtocol, password: &[u8]) -> Result<Secret, KeyError> {
    if password.is_empty() {
        return Err(KeyError::EmptyPassword);
    }
    Ok(with_digest!(protocol, expand(password)))
}

const fn level(
    auth: &Option<(AuthProtocol, Secret)>,
    privacy: &Option<(PrivProtocol, Secret)>,
) -> SecurityLevel {
    match (auth, privacy) {
        (None, _) => SecurityLevel::NoAuthNoPriv,
        (Some(_), None) => SecurityLevel::AuthNoPriv,
        (Some(_), Some(_)) => SecurityLevel::AuthPriv,
    }
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "MasterKeys", &self.auth, &self.privacy)
    }
}

fn debug(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    auth: &Option<(AuthProtocol, Secret)>,
    privacy: &Option<(PrivProtocol, Secret)>,
) -> fmt::Result {
    f.debug_struct(name)
        .field("auth", &auth.as_ref().map(|(protocol, _)| protocol))
        .field("privacy", &privacy.as_ref().map(|(protocol, _)| protocol))
        .finish_non_exhaustive()
}

/// A user's keys for one engine: to be kept as long as the device is polled, as making them is slow. About 200 bytes.
///
/// They are wiped from memory when dropped, and not displayed.
#[derive(Clone)]
pub struct LocalizedKeys {
    engine: EngineId,
    auth: Option<(AuthProtocol, Secret)>,
    privacy: Option<(PrivProtocol, Secret)>,
}

impl LocalizedKeys {
    /// Takes ready keys, for a device which has been given them rather than passwords: without both protocols for no
    /// protection, without the second for signatures only. A protocol for privacy without one for authentication is
    /// left out, as SNMP has no such level.
    ///
    /// # Errors
    ///
    /// [`KeyError::KeyLength`].
    pub fn from_keys(
        engine: EngineId,
        auth: Option<(AuthProtocol, &[u8])>,
        privacy: Option<(PrivProtocol, &[u8])>,
    ) -> Result<Self, KeyError> {
        let check = |expected_bytes, key: &[u8]| match key.len() {
            found_bytes if found_bytes == expected_bytes => Ok(Secret::copy_of(key)),
            found_bytes => Err(KeyError::KeyLength { expected_bytes, found_bytes }),
        };
        let auth = match auth {
            Some((protocol, key)) => Some((protocol, check(protocol.key_bytes(), key)?)),
            None => None,
        };
        let privacy = match privacy {
            Some((protocol, key)) if auth.is_some() => Some((protocol, check(protocol.key_bytes(), key)?)),
            _ => None,
        };
        Ok(Self { engine, auth, privacy })
    }

    /// The engine they are for.
    pub const fn engine_id(&self) -> &EngineId {
        &self.engine
    }

    /// What messages are protected by.
    pub const fn level(&self) -> SecurityLevel {
        level(&self.auth, &self.privacy)
    }

    /// The key for signatures: a secret.
    pub fn auth_key(&self) -> Option<&[u8]> {
        self.auth.as_ref().map(|(_, key)| key.as_bytes())
    }

    /// The key for encryption: a secret.
    pub fn priv_key(&self) -> Option<&[u8]> {
        self.privacy.as_ref().map(|(_, key)| key.as_bytes())
    }

    pub(crate) fn auth_protocol(&self) -> Option<AuthProtocol> {
        self.auth.as_ref().map(|(protocol, _)| *protocol)
    }

    pub(crate) fn priv_protocol(&self) -> Option<PrivProtocol> {
        self.privacy.as_ref().map(|(protocol, _)| *protocol)
    }

    /// Writes the authentication code of `message`, which has zeros at `at`, to there.
    pub(crate) fn sign(&self, message: &mut [u8], at: usize) -> Option<()> {
        let (protocol, key) = self.auth.as_ref()?;
        let mut code = [0; MAX_MAC];
        let code = code.get_mut(..protocol.mac_bytes())?;
        with_hmac!(*protocol, mac(key.as_bytes(), &[message], code));
        message.get_mut(at..)?.get_mut(..code.len())?.copy_from_slice(code);
        Some(())
    }

    /// Compares the code at `at`, in a time that does not depend on where they differ.
    pub(crate) fn verify(&self, message: &[u8], at: usize) -> bool {
        let Some((protocol, key)) = self.auth.as_ref() else { return false };
        let zeros = [0; MAX_MAC];
        let parts = (|| {
            let (before, from) = message.split_at_checked(at)?;
            let (code, after) = from.split_at_checked(protocol.mac_bytes())?;
            Some((before, code, after))
        })();
        let Some((before, code, after)) = parts else { return false };
        let zeros = zeros.get(..code.len()).unwrap_or_default();
        with_hmac!(*protocol, is_mac(key.as_bytes(), &[before, zeros, after], code))
    }

    /// `text` must have a whole number of blocks with DES.
    pub(crate) fn encrypt(&self, text: &mut [u8], boots: u32, time: u32, salt: [u8; 8]) -> Option<()> {
        let (protocol, key) = self.privacy.as_ref()?;
        let iv = aes_iv(boots, time, salt);
        match protocol {
            PrivProtocol::Des => {
                let (key, iv) = des_key_and_iv(key, salt)?;
                let mut cipher = cbc::Encryptor::<Des>::new_from_slices(&key[..], &iv).ok()?;
                for block in text.chunks_mut(8) {
                    cipher.encrypt_block(<&mut Array<u8, U8>>::try_from(block).ok()?);
                }
            }
            PrivProtocol::Aes128 => {
                cfb_mode::Encryptor::<Aes128>::new_from_slices(key.as_bytes(), &iv).ok()?.encrypt(text);
            }
            PrivProtocol::Aes192Blumenthal | PrivProtocol::Aes192Reeder => {
                cfb_mode::Encryptor::<Aes192>::new_from_slices(key.as_bytes(), &iv).ok()?.encrypt(text);
            }
            PrivProtocol::Aes256Blumenthal | PrivProtocol::Aes256Reeder => {
                cfb_mode::Encryptor::<Aes256>::new_from_slices(key.as_bytes(), &iv).ok()?.encrypt(text);
            }
        }
        Some(())
    }

    /// None without a key, or if `text` is no whole number of blocks with DES.
    pub(crate) fn decrypt(&self, text: &mut [u8], boots: u32, time: u32, salt: [u8; 8]) -> Option<()> {
        let (protocol, key) = self.privacy.as_ref()?;
        let iv = aes_iv(boots, time, salt);
        match protocol {
            PrivProtocol::Des => {
                let (key, iv) = des_key_and_iv(key, salt)?;
                let mut cipher = cbc::Decryptor::<Des>::new_from_slices(&key[..], &iv).ok()?;
                for block in text.chunks_mut(8) {
                    cipher.decrypt_block(<&mut Array<u8, U8>>::try_from(block).ok()?);
                }
            }
            PrivProtocol::Aes128 => {
                cfb_mode::Decryptor::<Aes128>::new_from_slices(key.as_bytes(), &iv).ok()?.decrypt(text);
            }
            PrivProtocol::Aes192Blumenthal | PrivProtocol::Aes192Reeder => {
                cfb_mode::Decryptor::<Aes192>::new_from_slices(key.as_bytes(), &iv).ok()?.decrypt(text);
            }
            PrivProtocol::Aes256Blumenthal | PrivProtocol::Aes256Reeder => {
                cfb_mode::Decryptor::<Aes256>::new_from_slices(key.as_bytes(), &iv).ok()?.decrypt(text);
            }
        }
        Some(())
    }
}

impl fmt::Debug for LocalizedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "LocalizedKeys", &self.auth, &self.privacy)
    }
}

/// RFC 3826, section 3.1.2.1.
fn aes_iv(boots: u32, time: u32, salt: [u8; 8]) -> [u8; 16] {
    let mut iv = [0; 16];
    let fields = boots.to_be_bytes().into_iter().chain(time.to_be_bytes()).chain(salt);
    iv.iter_mut().zip(fields).for_each(|(place, byte)| *place = byte);
    iv
}

/// RFC 3414, section 8.1.1.1.
fn des_key_and_iv(key: &Secret, salt: [u8; 8]) -> Option<(Zeroizing<[u8; 8]>, [u8; 8])> {
    let (des_key, pre_iv) = key.as_bytes().split_first_chunk::<8>()?;
    let mut iv = salt;
    iv.iter_mut().zip(pre_iv).for_each(|(byte, pre)| *byte ^= pre);
    Some((Zeroizing::new(*des_key), iv))
}

fn start<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Option<M> {
    // HMAC takes keys of any length.
    let mut mac = <M as KeyInit>::new_from_slice(key).ok()?;
    parts.iter().for_each(|part| mac.update(part));
    Some(mac)
}

fn mac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]], code: &mut [u8]) {
    if let Some(mac) = start::<M>(key, parts) {
        let whole = mac.finalize().into_bytes();
        code.iter_mut().zip(whole).for_each(|(place, byte)| *place = byte);
    }
}

fn is_mac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]], code: &[u8]) -> bool {
    // Compares in constant time.
    start::<M>(key, parts).is_some_and(|mac| mac.verify_truncated_left(code).is_ok())
}
