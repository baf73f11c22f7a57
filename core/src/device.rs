//! Where a device is: the part of an entity's `details` that bots of several protocols read.
//!
//! ```
//! use grafolean_core::device::{DeviceAddress, Host};
//! use grafolean_core::json::from_slice;
//!
//! let entity: DeviceAddress<64> = from_slice(br#"{"ipv4":"192.0.2.1"}"#, &mut [])?;
//! assert_eq!(entity.host(), Ok(Host::Ip([192, 0, 2, 1].into())));
//! # Ok::<(), grafolean_core::json::DecodeError>(())
//! ```
//!
//! A bot whose entities have further fields reads them in one pass by way of [`AddressFields`].

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// Where to reach something, as an entity's settings say it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Host<'a> {
    /// An address. IPv4-mapped ones are IPv4.
    Ip(IpAddr),
    /// A host name, or a link-local address with its zone (`fe80::1%eth0`).
    Name(&'a str),
}

/// The longest host name without a final dot, in bytes (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;
/// The longest label of a host name, in bytes.
const MAX_LABEL: usize = 63;

/// An entity's details: where it is.
///
/// The first of `ipv4`, `ipv6`, `hostname` and `host` that is there and not blank counts, and nothing else is tried if it
/// is bad. Each may hold an IPv4 address, an IPv6 address (with a zone if it is link-local: `fe80::1%eth0`) or a host name:
/// the web page's form has only `ipv4`, so people put names there. Blanks around it are cut off.
///
/// Bad ones refuse the entity, by a message that says why: unspecified, multicast and broadcast addresses; names that are
/// not of letters, digits, `-`, `_` and dots, whose last label is a number (`192.0.2.300`), or of more than
/// `NAME` bytes.
///
/// It keeps that one text or address only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceAddress<const NAME: usize>(Place<NAME>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Place<const NAME: usize> {
    Ip(IpAddr),
    Name(heapless::String<NAME, u8>),
    Bad(&'static str),
}

const NOT_SET: &str = "details: none of `ipv4`, `ipv6`, `hostname` and `host` is set";

impl<const NAME: usize> DeviceAddress<NAME> {
    /// Where it is.
    ///
    /// # Errors
    /// The message for the log that says what is wrong.
    pub fn host(&self) -> Result<Host<'_>, &'static str> {
        match &self.0 {
            Place::Ip(ip) => Ok(Host::Ip(*ip)),
            Place::Name(name) => Ok(Host::Name(name)),
            Place::Bad(why) => Err(why),
        }
    }
}

impl<const NAME: usize> Place<NAME> {
    /// `None` if the text is blank.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return None;
        }
        Some(match text.parse::<IpAddr>() {
            Ok(ip) => Self::address(ip.to_canonical()),
            Err(_) if text.contains(':') => Self::zoned(text),
            Err(_) => Self::name(text),
        })
    }

    fn address(ip: IpAddr) -> Self {
        if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Place::Bad(
                "details: the address is unspecified, multicast or broadcast, no single host has it",
            );
        }
        Place::Ip(ip)
    }

    fn zoned(text: &str) -> Self {
        let bad = Place::Bad("details: not an IPv6 address (and no port belongs here)");
        let Some((ip, zone)) = text.split_once('%') else { return bad };
        let Ok(IpAddr::V6(ip)) = ip.parse::<IpAddr>() else { return bad };
        let ok = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        if !ip.is_unicast_link_local() || zone.is_empty() || !zone.bytes().all(ok) {
            return Place::Bad(
                "details: only a link-local address can have a zone, of letters, digits, `-`, `_`, `.`",
            );
        }
        Self::keep(text)
    }

    fn name(text: &str) -> Self {
        let name = text.strip_suffix('.').unwrap_or(text);
        let ok = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        if name.len() > MAX_NAME {
            return Place::Bad("details: the host name is longer than 253 bytes");
        }
        if name.split('.').any(|label| label.is_empty() || label.len() > MAX_LABEL) {
            return Place::Bad("details: the host name has a label that is empty or longer than 63 bytes");
        }
        if !name.split('.').all(|label| label.bytes().all(ok)) {
            return Place::Bad("details: the host name is not of ASCII letters, digits, `-`, `_` and dots");
        }
        if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit())) {
            return Place::Bad("details: not an IPv4 address");
        }
        Self::keep(text)
    }

    fn keep(text: &str) -> Self {
        match text.try_into() {
            Ok(name) => Place::Name(name),
            Err(_) => Place::Bad("details: the host name is longer than this bot can keep"),
        }
    }
}

/// A text that says where.
struct Spot<const NAME: usize>(Option<Place<NAME>>);

impl<'de, const NAME: usize> Deserialize<'de> for Spot<NAME> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpotVisitor<const NAME: usize>;
        impl<const NAME: usize> Visitor<'_> for SpotVisitor<NAME> {
            type Value = Spot<NAME>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address or host name")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Spot<NAME>, E> {
                Ok(Spot(Place::parse(text)))
            }
        }
        deserializer.deserialize_str(SpotVisitor)
    }
}

/// A field that says where, in the order in which they count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AddressField {
    /// `ipv4`.
    Ipv4,
    /// `ipv6`.
    Ipv6,
    /// `hostname`.
    Hostname,
    /// `host`.
    Host,
}

impl AddressField {
    /// The names of all.
    pub const NAMES: &'static [&'static str] = &["ipv4", "ipv6", "hostname", "host"];

    /// The field of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "ipv4" => AddressField::Ipv4,
            "ipv6" => AddressField::Ipv6,
            "hostname" => AddressField::Hostname,
            "host" => AddressField::Host,
            _ => return None,
        })
    }
}

/// Reads where a device is, field by field, for bots whose entities have further fields.
pub struct AddressFields<const NAME: usize> {
    found: Option<AddressField>,
    place: Place<NAME>,
}

impl<const NAME: usize> Default for AddressFields<NAME> {
    fn default() -> Self {
        AddressFields { found: None, place: Place::Bad(NOT_SET) }
    }
}

impl<const NAME: usize> AddressFields<NAME> {
    /// Reads the value of a field, whose key was read just now.
    ///
    /// # Errors
    /// Those of `map`: it is no text.
    pub fn read<'de, A: MapAccess<'de>>(&mut self, field: AddressField, map: &mut A) -> Result<(), A::Error> {
        if let Some(Spot(Some(place))) = map.next_value::<Option<Spot<NAME>>>()?
            && self.found.is_none_or(|found| field < found)
        {
            (self.found, self.place) = (Some(field), place);
        }
        Ok(())
    }

    /// Where the device is, as far as fields were read.
    #[must_use]
    pub fn end(self) -> DeviceAddress<NAME> {
        DeviceAddress(self.place)
    }
}

impl<'de, const NAME: usize> Deserialize<'de> for DeviceAddress<NAME> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntityVisitor<const NAME: usize>;
        impl<'de, const NAME: usize> Visitor<'de> for EntityVisitor<NAME> {
            type Value = DeviceAddress<NAME>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an entity's details")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DeviceAddress<NAME>, A::Error> {
                let mut fields = AddressFields::default();
                while let Some(Key(field)) = map.next_key()? {
                    match field {
                        Some(field) => fields.read(field, &mut map)?,
                        None => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(fields.end())
            }
        }
        deserializer.deserialize_struct("DeviceAddress", AddressField::NAMES, EntityVisitor)
    }
}

/// The key of any field.
struct Key(Option<AddressField>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
                Ok(Key(AddressField::named(name)))
            }
        }
        deserializer.deserialize_identifier(KeyVisitor)
    }
}
