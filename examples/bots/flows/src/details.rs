//! An entity's details as far as they tell its address.

use core::fmt;
use core::net::Ipv4Addr;

use grafolean_core::json::from_slice;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// The longest text of an address that is looked at if it has escapes in it, in bytes.
const SCRATCH: usize = 64;

/// An entity's details: its address in `ipv4`, if that is one; blanks around it are cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
pub struct DeviceDetails {
    /// The address from which it sends.
    #[serde(default, deserialize_with = "address")]
    pub ipv4: Option<Ipv4Addr>,
}

impl DeviceDetails {
    /// Those in `json`; without an address if it is anything else.
    #[must_use]
    pub fn of(json: &str) -> Self {
        from_slice(json.as_bytes(), &mut [0; SCRATCH]).unwrap_or_default()
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv4Addr>, D::Error> {
    struct Address(Option<Ipv4Addr>);
    impl<'de> Deserialize<'de> for Address {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct AddressVisitor;
            impl Visitor<'_> for AddressVisitor {
                type Value = Address;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an IPv4 address")
                }
                fn visit_str<E: Error>(self, text: &str) -> Result<Address, E> {
                    Ok(Address(text.trim_ascii().parse().ok()))
                }
            }
            deserializer.deserialize_str(AddressVisitor)
        }
    }
    Ok(Option::<Address>::deserialize(deserializer)?.and_then(|address| address.0))
}
