//! The details of entities, credentials and sensors, as the web page's forms store them.
//!
//! ```
//! use grafolean_bot_snmp::details::{FetchMethod, SnmpSensor};
//! use grafolean_core::json::from_slice;
//!
//! let details = br#"{"oids":[{"oid":"1.3.6.1.2.1.1.3.0","fetch_method":"get"}],"expression":"$1 / 100","output_path":"uptime"}"#;
//! let sensor: SnmpSensor<192> = from_slice(details, &mut [0; 64])?;
//! let plan = sensor.plan::<32>()?;
//! let (oid, method) = plan.oids().next().unwrap();
//! assert_eq!((oid.to_string().as_str(), method), ("1.3.6.1.2.1.1.3.0", FetchMethod::Get));
//!
//! let typo = br#"{"oids":[{"oid":"1.3.6.1.2.1.1.3.0","fetch_method":"get"}],"expression":"$1 / * 100","output_path":"uptime"}"#;
//! let sensor: SnmpSensor<192> = from_slice(typo, &mut [0; 64])?;
//! assert_eq!(
//!     sensor.plan::<32>().unwrap_err().to_string(),
//!     "`expression`, column 6: a number, `$n`, function, `(` or sign is expected"
//! );
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! What is wrong with a credential or an entity is kept, and told when it is used: the message then names the entity that can't
//! be polled. `Debug` of a credential shows no secret.
//!
//! # Cost
//! Each keeps its texts in one buffer: an entity `NAME` bytes, a credential and a sensor `B` bytes, and a few more.
//! Planning a sensor parses it anew, in time linear in its length.

use core::fmt;
use core::ops::Range;

use grafolean_core::bot::SensorRefusal;
use grafolean_core::device::{AddressField, AddressFields, DeviceAddress, Host};
use grafolean_core::json::LenientInt;
use grafolean_snmp_codec::{Oid, OidError};
use heapless::Vec;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::expression::{Expression, ExpressionError, MAX_OPERANDS};
use crate::template::{Template, TemplateError};

/// The port of SNMP agents, where an entity names none.
pub const DEFAULT_PORT: u16 = 161;
/// The most OIDs of a sensor.
pub const MAX_OIDS: usize = MAX_OPERANDS;
/// The shortest key or password of SNMPv3, in bytes (RFC 3414, section 11.2).
pub const MIN_KEY_BYTES: usize = 8;
/// The longest user name of SNMPv3, in bytes (RFC 3414, section 5: usmUserName).
pub const MAX_USER_BYTES: usize = 32;

// ---- entities ----

/// An entity's details: where its agent is. As [`DeviceAddress`], and an optional `port` (161), a number or a string with one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnmpEntity<const NAME: usize> {
    address: DeviceAddress<NAME>,
    /// 0 if what was given is no port.
    port: u16,
}

impl<const NAME: usize> SnmpEntity<NAME> {
    /// Host and UDP port of the agent.
    ///
    /// # Errors
    /// The message for the log that says what is wrong.
    pub fn agent(&self) -> Result<(Host<'_>, u16), &'static str> {
        let host = self.address.host()?;
        match self.port {
            0 => Err("details: `port` is not within 1 to 65535"),
            port => Ok((host, port)),
        }
    }
}

/// The key of an entity's field.
enum EntityKey {
    Address(AddressField),
    Port,
    Other,
}

/// Names of fields, read without a copy.
struct Name<T>(T);

impl<'de> Deserialize<'de> for Name<EntityKey> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Name<EntityKey>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name(match AddressField::named(name) {
                    Some(field) => EntityKey::Address(field),
                    None if name == "port" => EntityKey::Port,
                    None => EntityKey::Other,
                }))
            }
        }
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

impl<'de, const NAME: usize> Deserialize<'de> for SnmpEntity<NAME> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntityVisitor<const NAME: usize>;
        impl<'de, const NAME: usize> Visitor<'de> for EntityVisitor<NAME> {
            type Value = SnmpEntity<NAME>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an entity's details")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut fields, mut port) = (AddressFields::default(), DEFAULT_PORT);
                while let Some(Name(key)) = map.next_key()? {
                    match key {
                        EntityKey::Address(field) => fields.read(field, &mut map)?,
                        EntityKey::Port => {
                            if let Some(given) = map.next_value::<Option<LenientInt<i64>>>()? {
                                port = u16::try_from(*given).unwrap_or(0);
                            }
                        }
                        EntityKey::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(SnmpEntity { address: fields.end(), port })
            }
        }
        let fields = &["ipv4", "ipv6", "hostname", "host", "port"];
        deserializer.deserialize_struct("SnmpEntity", fields, EntityVisitor)
    }
}

// ---- texts in one buffer ----

/// Where a text is in a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Place {
    start: u16,
    len: u16,
}

impl Place {
    const fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

/// Texts, one after the other.
#[derive(Clone, PartialEq, Eq)]
struct Texts<const B: usize> {
    bytes: Vec<u8, B>,
    /// One did not fit.
    overflowed: bool,
}

impl<const B: usize> Texts<B> {
    const EMPTY: Self = Texts { bytes: Vec::new(), overflowed: false };

    fn keep(&mut self, text: &str) -> Place {
        let start = self.bytes.len();
        let (Ok(at), Ok(len)) = (u16::try_from(start), u16::try_from(text.len())) else {
            self.overflowed = true;
            return Place::default();
        };
        if self.bytes.extend_from_slice(text.as_bytes()).is_err() {
            self.overflowed = true;
            return Place::default();
        }
        Place { start: at, len }
    }

    fn get(&self, place: Place) -> &str {
        core::str::from_utf8(self.bytes.get(place.range()).unwrap_or_default()).unwrap_or_default()
    }
}

/// Reads a text, or null, and hands it on without blanks around it, which are easily pasted along.
struct Taken<F>(F);

impl<'de, R, F: FnOnce(Option<&str>) -> R> DeserializeSeed<'de> for Taken<F> {
    type Value = R;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<R, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, R, F: FnOnce(Option<&str>) -> R> Visitor<'de> for Taken<F> {
    type Value = R;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }
    fn visit_none<E: Error>(self) -> Result<R, E> {
        Ok((self.0)(None))
    }
    fn visit_unit<E: Error>(self) -> Result<R, E> {
        Ok((self.0)(None))
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<R, D::Error> {
        deserializer.deserialize_str(self)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<R, E> {
        Ok((self.0)(Some(text.trim_ascii())))
    }
}

// ---- credentials ----

/// A credential's details: how an agent is spoken to. Its texts take up to `B` bytes together.
///
/// | key | |
/// | --- | --- |
/// | `version` | `snmpv1`, `snmpv2c` or `snmpv3` |
/// | `snmpv12_community` | for the first two |
/// | `snmpv3_securityName` | 1 to 32 bytes |
/// | `snmpv3_securityLevel` | `noAuthNoPriv`, `authNoPriv` or `authPriv` |
/// | `snmpv3_authProtocol` | `MD5`, `SHA` (which is `SHA1`), `SHA224`, `SHA256`, `SHA384`, `SHA512` |
/// | `snmpv3_authKey` | the password, of 8 bytes at least |
/// | `snmpv3_privProtocol` | `DES`, `AES` (which is `AES128`), `AES192`, `AES256` |
/// | `snmpv3_privKey` | the password, of 8 bytes at least |
///
/// Names of protocols are read in any case, with or without `-`. What the version or the level does not use is not looked at.
#[derive(Clone, PartialEq, Eq)]
pub struct SnmpCredential<const B: usize> {
    texts: Texts<B>,
    version: Given<Version>,
    level: Given<Level>,
    auth: Given<AuthProtocol>,
    privacy: Given<PrivProtocol>,
    community: Place,
    user: Place,
    auth_key: Place,
    priv_key: Place,
}

impl<const B: usize> fmt::Debug for SnmpCredential<B> {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnmpCredential")
            .field("version", &self.version)
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

/// What a field with a choice holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Given<T> {
    #[default]
    Nothing,
    Unknown,
    Known(T),
}

impl<T: Copy> Given<T> {
    fn of(text: Option<&str>, choose: impl FnOnce(&str) -> Option<T>) -> Self {
        match text {
            None | Some("") => Given::Nothing,
            Some(text) => choose(text).map_or(Given::Unknown, Given::Known),
        }
    }

    const fn get(self, missing: &'static str, unknown: &'static str) -> Result<T, &'static str> {
        match self {
            Given::Nothing => Err(missing),
            Given::Unknown => Err(unknown),
            Given::Known(value) => Ok(value),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    V1,
    V2c,
    V3,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Level {
    Open,
    Signed,
    Encrypted,
}

/// How messages of SNMPv3 are signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthProtocol {
    /// HMAC-MD5-96.
    Md5,
    /// HMAC-SHA-96.
    Sha1,
    /// HMAC-128-SHA-224.
    Sha224,
    /// HMAC-192-SHA-256.
    Sha256,
    /// HMAC-256-SHA-384.
    Sha384,
    /// HMAC-384-SHA-512.
    Sha512,
}

/// How messages of SNMPv3 are encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrivProtocol {
    /// CBC-DES.
    Des,
    /// CFB-AES-128.
    Aes128,
    /// AES with keys of 192 bits, as several vendors have it.
    Aes192,
    /// AES with keys of 256 bits, as several vendors have it.
    Aes256,
}

/// A credential's checked settings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Settings<'a> {
    /// SNMPv1.
    V1 {
        /// The community. Secret.
        community: &'a str,
    },
    /// SNMPv2c.
    V2c {
        /// The community. Secret.
        community: &'a str,
    },
    /// SNMPv3 with the user-based security model.
    V3 {
        /// The user's name.
        user: &'a str,
        /// How messages are signed, and the password; `None`: they are not. Secret.
        auth: Option<(AuthProtocol, &'a str)>,
        /// How messages are encrypted, and the password; only if they are signed. Secret.
        privacy: Option<(PrivProtocol, &'a str)>,
    },
}

impl fmt::Debug for Settings<'_> {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Settings::V1 { .. } => f.write_str("V1 { .. }"),
            Settings::V2c { .. } => f.write_str("V2c { .. }"),
            Settings::V3 { auth, privacy, .. } => {
                let (auth, privacy) =
                    (auth.map(|(protocol, _)| protocol), privacy.map(|(protocol, _)| protocol));
                write!(f, "V3 {{ auth: {auth:?}, privacy: {privacy:?}, .. }}")
            }
        }
    }
}

impl<const B: usize> SnmpCredential<B> {
    /// The settings.
    ///
    /// # Errors
    /// The message for the log that says which key is wrong, without what it holds.
    pub fn settings(&self) -> Result<Settings<'_>, &'static str> {
        if self.texts.overflowed {
            return Err("credential: its texts together are longer than this bot can keep");
        }
        let version = self.version.get(
            "credential: `version` is not set",
            "credential: `version` is none of `snmpv1`, `snmpv2c`, `snmpv3`",
        )?;
        let community = match self.texts.get(self.community) {
            "" if version != Version::V3 => return Err("credential: `snmpv12_community` is not set"),
            community => community,
        };
        match version {
            Version::V1 => Ok(Settings::V1 { community }),
            Version::V2c => Ok(Settings::V2c { community }),
            Version::V3 => self.v3(),
        }
    }

    fn v3(&self) -> Result<Settings<'_>, &'static str> {
        let user = match self.texts.get(self.user) {
            "" => return Err("credential: `snmpv3_securityName` is not set"),
            user if user.len() > MAX_USER_BYTES => {
                return Err("credential: `snmpv3_securityName` is longer than 32 bytes");
            }
            user => user,
        };
        let level = self.level.get(
            "credential: `snmpv3_securityLevel` is not set",
            "credential: `snmpv3_securityLevel` is none of `noAuthNoPriv`, `authNoPriv`, `authPriv`",
        )?;
        let auth = match level {
            Level::Open => None,
            Level::Signed | Level::Encrypted => {
                let protocol = self.auth.get(
                    "credential: `snmpv3_authProtocol` is not set",
                    "credential: `snmpv3_authProtocol` is none of `MD5`, `SHA`, `SHA224`, `SHA256`, `SHA384`, `SHA512`",
                )?;
                let key = self.texts.get(self.auth_key);
                if key.len() < MIN_KEY_BYTES {
                    return Err("credential: `snmpv3_authKey` has less than 8 bytes");
                }
                Some((protocol, key))
            }
        };
        let privacy = match level {
            Level::Open | Level::Signed => None,
            Level::Encrypted => {
                let protocol = self.privacy.get(
                    "credential: `snmpv3_privProtocol` is not set",
                    "credential: `snmpv3_privProtocol` is none of `DES`, `AES`, `AES128`, `AES192`, `AES256`",
                )?;
                let key = self.texts.get(self.priv_key);
                if key.len() < MIN_KEY_BYTES {
                    return Err("credential: `snmpv3_privKey` has less than 8 bytes");
                }
                Some((protocol, key))
            }
        };
        Ok(Settings::V3 { user, auth, privacy })
    }
}

/// The one of `choices` whose name this is, in any case and with or without `-`.
fn chosen<T: Copy>(text: &str, choices: &[(&str, T)]) -> Option<T> {
    let plain = || text.bytes().filter(|c| *c != b'-').map(|c| c.to_ascii_lowercase());
    choices.iter().find(|(name, _)| plain().eq(name.bytes())).map(|(_, choice)| *choice)
}

const VERSIONS: &[(&str, Version)] =
    &[("snmpv1", Version::V1), ("snmpv2c", Version::V2c), ("snmpv3", Version::V3)];
const LEVELS: &[(&str, Level)] =
    &[("noauthnopriv", Level::Open), ("authnopriv", Level::Signed), ("authpriv", Level::Encrypted)];
const AUTH_PROTOCOLS: &[(&str, AuthProtocol)] = &[
    ("md5", AuthProtocol::Md5),
    ("sha", AuthProtocol::Sha1),
    ("sha1", AuthProtocol::Sha1),
    ("sha224", AuthProtocol::Sha224),
    ("sha256", AuthProtocol::Sha256),
    ("sha384", AuthProtocol::Sha384),
    ("sha512", AuthProtocol::Sha512),
];
const PRIV_PROTOCOLS: &[(&str, PrivProtocol)] = &[
    ("des", PrivProtocol::Des),
    ("aes", PrivProtocol::Aes128),
    ("aes128", PrivProtocol::Aes128),
    ("aes192", PrivProtocol::Aes192),
    ("aes256", PrivProtocol::Aes256),
];

#[derive(Clone, Copy, serde::Deserialize)]
#[serde(field_identifier)]
enum CredentialKey {
    #[serde(rename = "version")]
    Version,
    #[serde(rename = "snmpv12_community")]
    Community,
    #[serde(rename = "snmpv3_securityName")]
    User,
    #[serde(rename = "snmpv3_securityLevel")]
    Level,
    #[serde(rename = "snmpv3_authProtocol")]
    AuthProtocol,
    #[serde(rename = "snmpv3_authKey")]
    AuthKey,
    #[serde(rename = "snmpv3_privProtocol")]
    PrivProtocol,
    #[serde(rename = "snmpv3_privKey")]
    PrivKey,
    #[serde(other)]
    Other,
}

const CREDENTIAL_KEYS: &[&str] = &[
    "version",
    "snmpv12_community",
    "snmpv3_securityName",
    "snmpv3_securityLevel",
    "snmpv3_authProtocol",
    "snmpv3_authKey",
    "snmpv3_privProtocol",
    "snmpv3_privKey",
];

impl<'de, const B: usize> Deserialize<'de> for SnmpCredential<B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CredentialVisitor<const B: usize>;
        impl<'de, const B: usize> Visitor<'de> for CredentialVisitor<B> {
            type Value = SnmpCredential<B>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a credential's details")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut read = SnmpCredential {
                    texts: Texts::EMPTY,
                    version: Given::Nothing,
                    level: Given::Nothing,
                    auth: Given::Nothing,
                    privacy: Given::Nothing,
                    community: Place::default(),
                    user: Place::default(),
                    auth_key: Place::default(),
                    priv_key: Place::default(),
                };
                while let Some(key) = map.next_key()? {
                    let text = match key {
                        CredentialKey::Version => {
                            read.version = map.next_value_seed(Taken(|t: Option<&str>| {
                                Given::of(t, |t| chosen(t, VERSIONS))
                            }))?;
                            continue;
                        }
                        CredentialKey::Level => {
                            read.level = map.next_value_seed(Taken(|t: Option<&str>| {
                                Given::of(t, |t| chosen(t, LEVELS))
                            }))?;
                            continue;
                        }
                        CredentialKey::AuthProtocol => {
                            read.auth = map.next_value_seed(Taken(|t: Option<&str>| {
                                Given::of(t, |t| chosen(t, AUTH_PROTOCOLS))
                            }))?;
                            continue;
                        }
                        CredentialKey::PrivProtocol => {
                            read.privacy = map.next_value_seed(Taken(|t: Option<&str>| {
                                Given::of(t, |t| chosen(t, PRIV_PROTOCOLS))
                            }))?;
                            continue;
                        }
                        CredentialKey::Other => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                        CredentialKey::Community => &mut read.community,
                        CredentialKey::User => &mut read.user,
                        CredentialKey::AuthKey => &mut read.auth_key,
                        CredentialKey::PrivKey => &mut read.priv_key,
                    };
                    let texts = &mut read.texts;
                    *text = map.next_value_seed(Secret(texts))?;
                }
                Ok(read)
            }
        }
        deserializer.deserialize_struct("SnmpCredential", CREDENTIAL_KEYS, CredentialVisitor)
    }
}

/// Keeps a text as it is, blanks included, which a password may have.
struct Secret<'t, const B: usize>(&'t mut Texts<B>);

impl<'de, const B: usize> DeserializeSeed<'de> for Secret<'_, B> {
    type Value = Place;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Place, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, const B: usize> Visitor<'de> for Secret<'_, B> {
    type Value = Place;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }
    fn visit_none<E: Error>(self) -> Result<Place, E> {
        Ok(Place::default())
    }
    fn visit_unit<E: Error>(self) -> Result<Place, E> {
        Ok(Place::default())
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Place, D::Error> {
        deserializer.deserialize_str(self)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Place, E> {
        Ok(self.0.keep(text))
    }
}

// ---- sensors ----

/// How an OID is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FetchMethod {
    /// It is one object.
    Get,
    /// All objects below it.
    Walk,
}

/// A sensor's details: what is read, computed and posted. Its texts, and two bytes for each OID, take up to `B` bytes.
///
/// | key | |
/// | --- | --- |
/// | `oids` | a list of `{"oid": "1.3.6.1...", "fetch_method": "get"}`, or `"walk"`: `$1` is the first |
/// | `expression` | see [`crate::expression`] |
/// | `output_path` | see [`crate::template`] |
///
/// All are texts, and none has a default.
#[derive(Clone, PartialEq, Eq)]
pub struct SnmpSensor<const B: usize> {
    texts: Texts<B>,
    /// For each OID its method, the length of its text, and its text.
    oids: Place,
    count: u8,
    expression: Place,
    output_path: Place,
    /// What was wrong when it was read.
    fault: Option<SensorRefusal>,
}

impl<const B: usize> fmt::Debug for SnmpSensor<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnmpSensor")
            .field("oids", &self.count)
            .field("expression", &self.texts.get(self.expression))
            .field("output_path", &self.texts.get(self.output_path))
            .finish_non_exhaustive()
    }
}

/// A sensor's checked details.
#[derive(Clone, Debug)]
pub struct SensorPlan<'a, const OPS: usize> {
    packed_oids: &'a [u8],
    /// What is computed.
    pub expression: Expression<OPS>,
    /// Where the value goes, below `entity.{id}.snmp.`.
    pub output_path: Template<'a>,
}

impl<'a, const OPS: usize> SensorPlan<'a, OPS> {
    /// What is read, `$1` first, and how.
    pub fn oids(&self) -> impl Iterator<Item = (Oid, FetchMethod)> + use<'a, OPS> {
        PackedOids(self.packed_oids).filter_map(|(text, method)| Some((text.parse().ok()?, method)))
    }

    /// How many OIDs there are: unlike [`SensorPlan::oids`] this parses none.
    #[must_use]
    pub fn count(&self) -> usize {
        self.methods().count()
    }

    /// How each OID is fetched, in order: unlike [`SensorPlan::oids`] this parses none.
    pub fn methods(&self) -> impl Iterator<Item = FetchMethod> + use<'a, OPS> {
        PackedOids(self.packed_oids).map(|(_, method)| method)
    }

    /// Whether there is a value for each row of a table.
    #[must_use]
    pub fn has_walk(&self) -> bool {
        self.methods().any(|method| method == FetchMethod::Walk)
    }
}

/// The texts of OIDs and how they are read.
struct PackedOids<'a>(&'a [u8]);

const GET: u8 = 0;
const WALK: u8 = 1;

impl<'a> Iterator for PackedOids<'a> {
    type Item = (&'a str, FetchMethod);

    fn next(&mut self) -> Option<Self::Item> {
        let [method, len, rest @ ..] = self.0 else { return None };
        let (text, rest) = rest.split_at_checked(usize::from(*len))?;
        self.0 = rest;
        let method = if *method == WALK { FetchMethod::Walk } else { FetchMethod::Get };
        Some((core::str::from_utf8(text).ok()?, method))
    }
}

/// Names of fields, as references, which [`SensorRefusal`] wants.
const OIDS: &&str = &"oids";
const EXPRESSION: &&str = &"expression";
const OUTPUT_PATH: &&str = &"output_path";
const DETAILS: &&str = &"details";

impl<const B: usize> SnmpSensor<B> {
    /// Parses it, to a program of up to `OPS` steps.
    ///
    /// # Errors
    /// What is wrong, in which field and where, for [`grafolean_core::bot::JobSink::refuse_sensor`].
    pub fn plan<const OPS: usize>(&self) -> Result<SensorPlan<'_, OPS>, SensorRefusal> {
        if self.texts.overflowed {
            let why = "its texts together are longer than this bot can keep";
            return Err(SensorRefusal::new(DETAILS, why).with_limit(B.try_into().unwrap_or(u16::MAX)));
        }
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.count == 0 {
            return Err(SensorRefusal::new(OIDS, "there is none"));
        }
        let packed_oids = self.texts.bytes.get(self.oids.range()).unwrap_or_default();
        for (n, (text, _)) in PackedOids(packed_oids).enumerate() {
            if let Err(why) = text.parse::<Oid>() {
                return Err(SensorRefusal::new(OIDS, oid_fault(why)).at_column(n as u16 + 1));
            }
        }
        let operands = usize::from(self.count);
        let expression = Expression::parse(self.texts.get(self.expression), operands)?;
        let output_path = Template::parse(self.texts.get(self.output_path), operands)?;
        Ok(SensorPlan { packed_oids, expression, output_path })
    }
}

const fn oid_fault(error: OidError) -> &'static str {
    match error {
        OidError::Text { .. } => {
            "the OID is not of decimal numbers joined by dots (names are not known here)"
        }
        OidError::TooFewArcs => "the OID has less than two numbers",
        OidError::Root => "the OID begins with numbers that none begins with",
        OidError::ArcRange => "the OID has a number above 4294967295",
        _ => "the OID is too long",
    }
}

impl From<ExpressionError> for SensorRefusal {
    fn from(error: ExpressionError) -> Self {
        refusal(EXPRESSION, error.kind.text(), error.column, error.kind.limit())
    }
}

impl From<TemplateError> for SensorRefusal {
    fn from(error: TemplateError) -> Self {
        refusal(OUTPUT_PATH, error.kind.text(), error.column, error.kind.limit())
    }
}

fn refusal(
    field: &'static &'static str,
    why: &'static str,
    column: usize,
    limit: Option<usize>,
) -> SensorRefusal {
    let short = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
    SensorRefusal::new(field, why).at_column(short(column)).with_limit(limit.map_or(0, short))
}

#[derive(Clone, Copy, serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum SensorKey {
    Oids,
    Expression,
    OutputPath,
    #[serde(other)]
    Other,
}

#[derive(Clone, Copy, serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum OidKey {
    Oid,
    FetchMethod,
    #[serde(other)]
    Other,
}

impl<'de, const B: usize> Deserialize<'de> for SnmpSensor<B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SensorVisitor<const B: usize>;
        impl<'de, const B: usize> Visitor<'de> for SensorVisitor<B> {
            type Value = SnmpSensor<B>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sensor's details")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut read = SnmpSensor {
                    texts: Texts::EMPTY,
                    oids: Place::default(),
                    count: 0,
                    expression: Place::default(),
                    output_path: Place::default(),
                    fault: None,
                };
                while let Some(key) = map.next_key()? {
                    let texts = &mut read.texts;
                    let keep = Taken(|text: Option<&str>| texts.keep(text.unwrap_or_default()));
                    match key {
                        SensorKey::Expression => read.expression = map.next_value_seed(keep)?,
                        SensorKey::OutputPath => read.output_path = map.next_value_seed(keep)?,
                        SensorKey::Oids => map.next_value_seed(OidList(&mut read))?,
                        SensorKey::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(read)
            }
        }
        let fields = &["oids", "expression", "output_path"];
        deserializer.deserialize_struct("SnmpSensor", fields, SensorVisitor)
    }
}

/// Reads `oids`, which may be null.
struct OidList<'s, const B: usize>(&'s mut SnmpSensor<B>);

impl<'de, const B: usize> DeserializeSeed<'de> for OidList<'_, B> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, const B: usize> Visitor<'de> for OidList<'_, B> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of OIDs")
    }
    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let sensor = self.0;
        let start = sensor.texts.keep("").start;
        sensor.count = 0;
        while list.next_element_seed(OidItem(sensor))?.is_some() {}
        let end = sensor.texts.keep("").start;
        sensor.oids = Place { start, len: end.saturating_sub(start) };
        Ok(())
    }
}

/// Reads an item of `oids`.
struct OidItem<'s, const B: usize>(&'s mut SnmpSensor<B>);

impl<'de, const B: usize> DeserializeSeed<'de> for OidItem<'_, B> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_struct("Oid", &["oid", "fetch_method"], self)
    }
}

impl<'de, const B: usize> Visitor<'de> for OidItem<'_, B> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an OID with its method")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let sensor = self.0;
        let texts = &mut sensor.texts;
        let mut method = Given::Nothing;
        let mut len = Given::Nothing;
        // Its method and length go in front when they are known.
        let header = texts.keep("\0\0");
        while let Some(key) = map.next_key()? {
            match key {
                OidKey::Oid => {
                    texts.bytes.truncate(header.range().end);
                    len = map.next_value_seed(Taken(|text: Option<&str>| {
                        Given::of(text, |text| u8::try_from(texts.keep(text).len).ok())
                    }))?;
                }
                OidKey::FetchMethod => {
                    method = map.next_value_seed(Taken(|text: Option<&str>| {
                        Given::of(text, |text| chosen(text, &[("get", GET), ("walk", WALK)]))
                    }))?;
                }
                OidKey::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let number = u16::from(sensor.count) + 1;
        let checked = len.get("`oid` is not set", "the OID is too long").and_then(|len| {
            let method =
                method.get("`fetch_method` is not set", "`fetch_method` is neither `get` nor `walk`")?;
            if usize::from(number) > MAX_OIDS {
                return Err("more OIDs than an expression can name");
            }
            Ok((method, len))
        });
        match checked {
            Ok((method, len)) => {
                if let Some([to_method, to_len]) = sensor.texts.bytes.get_mut(header.range()) {
                    (*to_method, *to_len) = (method, len);
                }
                sensor.count += 1;
            }
            Err(why) => {
                sensor.fault.get_or_insert(SensorRefusal::new(OIDS, why).at_column(number));
            }
        }
        Ok(())
    }
}
