//! Host names to addresses, with a bounded cache that keeps the last good address.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::packet::Family;
use crate::{IcmpConfig, Target, lock};

/// Look-ups at once: each holds a thread of tokio's blocking pool.
const PARALLEL: usize = 32;
/// The longest host name (RFC 1035 §2.3.4, as text).
const MAX_NAME: usize = 253;

/// Which of a name's addresses is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressChoice {
    /// The first in the system's order (RFC 6724, /etc/gai.conf) whose family has a socket.
    #[default]
    System,
    /// An IPv4 address if there is one.
    PreferV4,
    /// An IPv6 address if there is one.
    PreferV6,
    /// IPv4 only.
    OnlyV4,
    /// IPv6 only.
    OnlyV6,
}

/// Why a name gave no address.
#[derive(Debug)]
#[non_exhaustive]
pub enum ResolveError {
    /// It cannot be a host name: empty, over 253 bytes, or with a blank or control character.
    Invalid {
        /// Its first 253 bytes, escaped.
        name: String,
    },
    /// The system's resolver failed, or was not done in time ([`io::ErrorKind::TimedOut`]).
    Lookup {
        /// The name.
        name: String,
        /// The resolver's answer.
        source: io::Error,
    },
    /// It has addresses, but none of the asked family.
    NoAddress {
        /// The name.
        name: String,
        /// What was asked for.
        choice: AddressChoice,
    },
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { name } => {
                write!(f, "\"{name}\" is no host name: 1 to 253 characters, no blanks, no control characters")
            }
            Self::Lookup { name, source } => write!(f, "cannot resolve \"{name}\": {source}"),
            Self::NoAddress { name, choice } => {
                let family = match choice {
                    AddressChoice::OnlyV4 => "no IPv4 address",
                    AddressChoice::OnlyV6 => "no IPv6 address",
                    _ => "no address",
                };
                write!(f, "\"{name}\" has {family}")
            }
        }
    }
}

impl core::error::Error for ResolveError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Lookup { source, .. } => Some(source),
            _ => None,
        }
    }
}

pub(crate) struct Names {
    cache: Mutex<Cache>,
    lookups: Semaphore,
    choice: AddressChoice,
    timeout: Duration,
    usable: [bool; 2],
}

impl Names {
    pub(crate) fn new(config: &IcmpConfig, usable: [bool; 2]) -> Self {
        Self {
            cache: Mutex::new(Cache::new(config.name_ttl, config.name_cache_entries)),
            lookups: Semaphore::new(PARALLEL),
            choice: config.addresses,
            timeout: config.name_timeout,
            usable,
        }
    }

    pub(crate) async fn resolve(&self, name: &str) -> Result<Target, ResolveError> {
        let name = name.trim();
        if let Ok(ip) = name.parse::<IpAddr>() {
            return Ok(Target::from(ip));
        }
        let illegal = |c: char| c.is_control() || c.is_whitespace();
        if name.is_empty() || name.len() > MAX_NAME || name.contains(illegal) {
            let shown: String = name.chars().take(MAX_NAME).flat_map(char::escape_default).collect();
            return Err(ResolveError::Invalid { name: shown });
        }
        let key = name.to_ascii_lowercase();
        if let Some(target) = lock(&self.cache).fresh(&key, Instant::now()) {
            return Ok(target);
        }
        let looked_up = async {
            let _permit = self.lookups.acquire().await.ok();
            // Another call may have asked for it while this one waited.
            if let Some(target) = lock(&self.cache).fresh(&key, Instant::now()) {
                return Ok(Some(target));
            }
            let addresses = tokio::net::lookup_host((name, 0)).await?;
            Ok(self.choose(addresses.map(Target::from)))
        };
        let result = match tokio::time::timeout(self.timeout, looked_up).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", self.timeout.as_secs_f64()),
            )),
        };
        let mut cache = lock(&self.cache);
        let error = match result {
            Ok(Some(target)) => {
                cache.put(key, target, Instant::now());
                return Ok(target);
            }
            Ok(None) => ResolveError::NoAddress { name: name.to_string(), choice: self.choice },
            Err(source) => ResolveError::Lookup { name: name.to_string(), source },
        };
        cache.keep_stale(&key, Instant::now()).ok_or(error)
    }

    /// Families without a socket come last: pinging them says why there is none.
    fn choose(&self, addresses: impl Iterator<Item = Target>) -> Option<Target> {
        let rank = |target: &Target| {
            let family = target.family();
            let preferred = match self.choice {
                AddressChoice::System => true,
                AddressChoice::PreferV4 | AddressChoice::OnlyV4 => family == Family::V4,
                AddressChoice::PreferV6 | AddressChoice::OnlyV6 => family == Family::V6,
            };
            (!self.usable[family.index()], !preferred)
        };
        addresses
            .filter(|target| match self.choice {
                AddressChoice::OnlyV4 => target.family() == Family::V4,
                AddressChoice::OnlyV6 => target.family() == Family::V6,
                _ => true,
            })
            // The first of equals.
            .min_by_key(rank)
    }
}

struct Entry {
    target: Target,
    asked: Instant,
}

/// Addresses by lower-case name; a full one drops the entry asked for longest ago.
struct Cache {
    entries: HashMap<String, Entry>,
    ttl: Duration,
    limit: usize,
}

impl Cache {
    fn new(ttl: Duration, limit: usize) -> Self {
        Self { entries: HashMap::new(), ttl, limit }
    }

    fn fresh(&self, key: &str, now: Instant) -> Option<Target> {
        let entry = self.entries.get(key)?;
        (now.saturating_duration_since(entry.asked) < self.ttl).then_some(entry.target)
    }

    fn put(&mut self, key: String, target: Target, now: Instant) {
        if self.limit == 0 {
            return;
        }
        if self.entries.len() >= self.limit && !self.entries.contains_key(&key) {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.asked);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.entries.remove(&oldest);
            }
        }
        self.entries.insert(key, Entry { target, asked: now });
    }

    /// After a failed look-up: the last good address, taken as fresh again so that each use does not wait.
    fn keep_stale(&mut self, key: &str, now: Instant) -> Option<Target> {
        let entry = self.entries.get_mut(key)?;
        entry.asked = now;
        Some(entry.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const TTL: Duration = Duration::from_secs(60);

    fn v4(last: u8) -> Target {
        Target::from(Ipv4Addr::new(192, 0, 2, last))
    }

    fn v6() -> Target {
        Target::from(Ipv6Addr::LOCALHOST)
    }

    #[test]
    fn an_address_is_fresh_for_its_time_to_live_only() {
        let (mut cache, start) = (Cache::new(TTL, 10), Instant::now());
        cache.put("a".to_string(), v4(1), start);
        assert_eq!(cache.fresh("a", start + TTL - Duration::from_nanos(1)), Some(v4(1)));
        assert_eq!(cache.fresh("a", start + TTL), None);
    }

    #[test]
    fn the_last_good_address_outlives_failures() {
        let (mut cache, start) = (Cache::new(TTL, 10), Instant::now());
        assert_eq!(cache.keep_stale("a", start), None);
        cache.put("a".to_string(), v4(1), start);
        assert_eq!(cache.keep_stale("a", start + 10 * TTL), Some(v4(1)));
        assert_eq!(cache.fresh("a", start + 10 * TTL), Some(v4(1)), "not asked again at once");
        assert_eq!(cache.fresh("a", start + 11 * TTL), None, "but later");
    }

    #[test]
    fn a_full_cache_drops_the_oldest() {
        let (mut cache, start) = (Cache::new(TTL, 2), Instant::now());
        for (i, key) in ["a", "b", "a", "c"].into_iter().enumerate() {
            cache.put(key.to_string(), v4(i as u8), start + Duration::from_secs(i as u64));
        }
        let now = start + Duration::from_secs(4);
        let found = ["a", "b", "c"].map(|key| cache.fresh(key, now));
        assert_eq!(found, [Some(v4(2)), None, Some(v4(3))]);
    }

    #[test]
    fn the_choice_of_address_follows_the_setting_and_the_open_sockets() {
        use AddressChoice::*;
        let cases = [
            (System, [true, true], Some(v6())),
            (System, [true, false], Some(v4(1))),
            (PreferV4, [true, true], Some(v4(1))),
            (PreferV4, [false, true], Some(v6())),
            (PreferV6, [true, true], Some(v6())),
            (OnlyV4, [false, true], Some(v4(1))),
            (OnlyV6, [true, true], Some(v6())),
        ];
        for (addresses, usable, expected) in cases {
            let config = IcmpConfig { addresses, ..IcmpConfig::default() };
            let names = Names::new(&config, usable);
            assert_eq!(names.choose([v6(), v4(1), v4(2)].into_iter()), expected, "{addresses:?} {usable:?}");
        }
        let config = IcmpConfig { addresses: OnlyV6, ..IcmpConfig::default() };
        assert_eq!(Names::new(&config, [true, true]).choose([v4(1)].into_iter()), None);
    }
}
