//! What is pinged: an entity's details.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::Host;

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
pub struct PingEntity<const NAME: usize>(Place<NAME>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Place<const NAME: usize> {
    Ip(IpAddr),
    Name(heapless::String<NAME, u8>),
    Bad(&'static str),
}

const NOT_SET: &str = "details: none of `ipv4`, `ipv6`, `hostname` and `host` is set";

impl<const NAME: usize> PingEntity<NAME> {
    /// What is to be pinged.
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
        let bad = Place::Bad("details: not an IPv6 address (and a port can't be pinged)");
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

/// In the order in which they count.
#[derive(Deserialize, Clone, Copy)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Ipv4,
    Ipv6,
    Hostname,
    Host,
    #[serde(other)]
    Other,
}

impl<'de, const NAME: usize> Deserialize<'de> for PingEntity<NAME> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntityVisitor<const NAME: usize>;
        impl<'de, const NAME: usize> Visitor<'de> for EntityVisitor<NAME> {
            type Value = PingEntity<NAME>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an entity's details")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PingEntity<NAME>, A::Error> {
                let mut found = (Key::Other, Place::Bad(NOT_SET));
                while let Some(key) = map.next_key::<Key>()? {
                    if matches!(key, Key::Other) {
                        map.next_value::<IgnoredAny>()?;
                    } else if let Some(Spot(Some(place))) = map.next_value::<Option<Spot<NAME>>>()?
                        && (key as u8) < found.0 as u8
                    {
                        found = (key, place);
                    }
                }
                Ok(PingEntity(found.1))
            }
        }
        let keys = &["ipv4", "ipv6", "hostname", "host"];
        deserializer.deserialize_struct("PingEntity", keys, EntityVisitor)
    }
}
