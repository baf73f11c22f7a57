//! The things a backend keeps: accounts, credentials, sensors, entities, bots and their permissions.
//!
//! Each writes itself as the backend does, key for key. An id of 0 asks the stand-in to choose one, a random
//! positive int4 as the backend's are.
//!
//! ```
//! use grafolean_stand_in::Entity;
//! let entity = Entity::device(7, "router").detail("ipv4", "192.0.2.1").protocol("ping", 3, 5, [(9, Some(60))]);
//! assert_eq!(entity.protocols.len(), 1);
//! ```

use core::fmt;

use crate::json::{Json, JsonError, write_json_str};

/// An account: what its credentials, sensors, entities and values belong to.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// Its id; 0: choose one.
    pub id: i32,
    /// Its name.
    pub name: String,
}

/// Login data with which a bot asks a device.
#[derive(Clone, PartialEq)]
pub struct Credential {
    /// Its id; 0: choose one.
    pub id: i32,
    /// Its name, unique in the account.
    pub name: String,
    /// The protocol it is for.
    pub protocol: String,
    /// A JSON object; what is in it is the protocol's business. It may hold secrets, `Debug` leaves it out.
    pub details: Json,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// What to fetch, and how often unless the entity says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensor {
    /// Its id; 0: choose one.
    pub id: i32,
    /// Its name, unique in the account.
    pub name: String,
    /// The protocol it is for.
    pub protocol: String,
    /// Seconds between two runs; the backend stores zero and negative ones too.
    pub default_interval: Option<i32>,
    /// A JSON object; what is in it is the protocol's business.
    pub details: Json,
}

/// A device, or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    /// Its id; 0: choose one.
    pub id: i32,
    /// Its name, need not be unique.
    pub name: String,
    /// Free text; bots use `device` and `interface`.
    pub entity_type: String,
    /// The entity it belongs to, of any account.
    pub parent: Option<i32>,
    /// A JSON object; `ipv4` by custom.
    pub details: Json,
    /// Protocol names with what is to be done over them, in order.
    pub protocols: Vec<(String, EntityProtocol)>,
}

/// What is to be done with an entity over one protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityProtocol {
    /// Id of the credential.
    pub credential: i32,
    /// The sensors, in order.
    pub sensors: Vec<EntitySensor>,
    /// The bot that does it; none after that bot was deleted.
    pub bot: Option<i32>,
}

/// One sensor of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntitySensor {
    /// Id of the sensor.
    pub sensor: i32,
    /// Seconds between two runs; none: the sensor's default.
    pub interval: Option<i32>,
}

/// A bot's secret, a UUID; neither `Debug` nor `Display` shows it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token(String);

impl Token {
    /// Takes a UUID in the usual form with four dashes, in either case; none for anything else.
    pub fn new(uuid: &str) -> Option<Self> {
        is_uuid(uuid).then(|| Self(uuid.to_ascii_lowercase()))
    }

    /// The UUID, in lower case.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

pub(crate) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// A bot: a user that logs in with a token.
#[derive(Debug, Clone, PartialEq)]
pub struct Bot {
    /// Its user id; 0: choose one.
    pub id: i32,
    /// Its name.
    pub name: String,
    /// How logs and the request log name it in place of its token.
    pub short_name: String,
    /// Its token; none: choose one.
    pub token: Option<Token>,
    /// The protocol it speaks; none for custom bots.
    pub protocol: Option<String>,
    /// Its only account; none: a systemwide bot.
    pub tied_to_account: Option<i32>,
    /// A JSON value that a person gave the bot, or null.
    pub config: Json,
    /// What it may do; none: what the product gives to a bot of that kind, see [`Bot::usual_permissions`].
    pub permissions: Option<Vec<Permission>>,
    /// Unix time, seconds, when it was made; 0: when the stand-in gets it.
    pub insert_time_s: i64,
    /// Unix time, seconds, of its last login as far as the backend notes it.
    pub last_login_s: Option<i64>,
}

impl Bot {
    /// A systemwide bot of a protocol with the usual permissions.
    pub fn systemwide(id: i32, name: &str, protocol: &str) -> Self {
        Self {
            id,
            name: name.to_owned(),
            short_name: short_name(name),
            token: None,
            protocol: Some(protocol.to_owned()),
            tied_to_account: None,
            config: Json::Null,
            permissions: None,
            insert_time_s: 0,
            last_login_s: None,
        }
    }

    /// A bot of one account with the usual permissions; a custom one if it has no protocol.
    pub fn of_account(id: i32, name: &str, account: i32, protocol: Option<&str>) -> Self {
        Self {
            protocol: protocol.map(str::to_owned),
            tied_to_account: Some(account),
            ..Self::systemwide(id, name, "")
        }
    }

    /// The same bot with this token.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// The same bot with exactly these permissions.
    #[must_use]
    pub fn permissions(mut self, permissions: impl IntoIterator<Item = Permission>) -> Self {
        self.permissions = Some(permissions.into_iter().collect());
        self
    }

    /// What the product gives: the four of the web interface to a bot of an account, `accounts` with all
    /// methods to a systemwide one.
    pub fn usual_permissions(tied_to_account: Option<i32>) -> Vec<Permission> {
        match tied_to_account {
            None => vec![Permission::new("accounts", None)],
            Some(account) => {
                let resource = |kind: &str, methods: &[&str]| {
                    Permission::new(&format!("accounts/{account}/{kind}"), Some(methods))
                };
                vec![
                    resource("values", &["POST", "PUT"]),
                    resource("entities", &["GET"]),
                    resource("credentials", &["GET"]),
                    resource("sensors", &["GET"]),
                ]
            }
        }
    }
}

/// Letters and digits of a name in lower case, everything else as single dashes.
pub(crate) fn short_name(name: &str) -> String {
    let words: Vec<String> =
        name.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase).collect();
    if words.is_empty() { "bot".to_owned() } else { words.join("-") }
}

/// A right: methods on everything at or below a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// Its id; 0: choose one.
    pub id: i32,
    /// The path below `/api/`, cut at slashes; none: everything.
    pub resource_prefix: Option<String>,
    /// Upper-case method names; none: all.
    pub methods: Option<Vec<String>>,
}

impl Permission {
    /// A permission for a resource and what is below it.
    pub fn new(resource_prefix: &str, methods: Option<&[&str]>) -> Self {
        Self {
            id: 0,
            resource_prefix: Some(resource_prefix.to_owned()),
            methods: methods.map(|m| m.iter().map(|m| (*m).to_owned()).collect()),
        }
    }

    /// Whether it allows the method on the resource.
    pub fn allows(&self, method: &str, resource: &str) -> bool {
        self.covers(resource) && self.methods.as_ref().is_none_or(|m| m.iter().any(|m| m == method))
    }

    fn covers(&self, resource: &str) -> bool {
        match &self.resource_prefix {
            None => true,
            Some(prefix) => resource
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }

    /// Whether it names the account in any way, which is enough to see it in the list of accounts.
    pub(crate) fn names_account(&self, account: i32) -> bool {
        match self.resource_prefix.as_deref() {
            None | Some("accounts") => true,
            Some(prefix) => {
                let mut labels = prefix.split('/');
                labels.next() == Some("accounts")
                    && labels.next().and_then(|n| n.parse().ok()) == Some(account)
            }
        }
    }
}

impl Credential {
    /// A credential without details.
    pub fn new(id: i32, name: &str, protocol: &str) -> Self {
        Self { id, name: name.to_owned(), protocol: protocol.to_owned(), details: Json::object() }
    }

    /// The same credential with one more text in its details.
    #[must_use]
    pub fn detail(mut self, key: &str, value: &str) -> Self {
        set(&mut self.details, key, value);
        self
    }

    pub(crate) fn write(&self, out: &mut String) -> Result<(), JsonError> {
        out.push_str(&format!("{{\"id\":{},\"name\":", self.id));
        write_json_str(&self.name, out);
        out.push_str(",\"protocol\":");
        write_json_str(&self.protocol, out);
        out.push_str(",\"details\":");
        self.details.write_compact(out)?;
        out.push('}');
        Ok(())
    }
}

impl Sensor {
    /// A sensor without details; the interval is in seconds.
    pub fn new(id: i32, name: &str, protocol: &str, default_interval: Option<i32>) -> Self {
        Self {
            id,
            name: name.to_owned(),
            protocol: protocol.to_owned(),
            default_interval,
            details: Json::object(),
        }
    }

    /// The same sensor with one more text in its details.
    #[must_use]
    pub fn detail(mut self, key: &str, value: &str) -> Self {
        set(&mut self.details, key, value);
        self
    }

    pub(crate) fn write(&self, out: &mut String) -> Result<(), JsonError> {
        out.push_str(&format!("{{\"id\":{},\"name\":", self.id));
        write_json_str(&self.name, out);
        out.push_str(",\"protocol\":");
        write_json_str(&self.protocol, out);
        out.push_str(",\"default_interval\":");
        write_optional(self.default_interval, out);
        out.push_str(",\"details\":");
        self.details.write_compact(out)?;
        out.push('}');
        Ok(())
    }
}

impl Entity {
    /// A device without details and protocols.
    pub fn device(id: i32, name: &str) -> Self {
        Self {
            id,
            name: name.to_owned(),
            entity_type: "device".to_owned(),
            parent: None,
            details: Json::object(),
            protocols: Vec::new(),
        }
    }

    /// The same entity with one more text in its details.
    #[must_use]
    pub fn detail(mut self, key: &str, value: &str) -> Self {
        set(&mut self.details, key, value);
        self
    }

    /// The same entity with one more protocol: a credential, a bot, and sensors with their intervals in seconds.
    #[must_use]
    pub fn protocol(
        mut self,
        name: &str,
        credential: i32,
        bot: i32,
        sensors: impl IntoIterator<Item = (i32, Option<i32>)>,
    ) -> Self {
        let sensors =
            sensors.into_iter().map(|(sensor, interval)| EntitySensor { sensor, interval }).collect();
        self.protocols.push((name.to_owned(), EntityProtocol { credential, sensors, bot: Some(bot) }));
        self
    }

    pub(crate) fn write(&self, out: &mut String) -> Result<(), JsonError> {
        out.push_str(&format!("{{\"id\":{},\"name\":", self.id));
        write_json_str(&self.name, out);
        out.push_str(",\"entity_type\":");
        write_json_str(&self.entity_type, out);
        out.push_str(",\"parent\":");
        write_optional(self.parent, out);
        out.push_str(",\"details\":");
        self.details.write_compact(out)?;
        out.push_str(",\"protocols\":{");
        for (i, (name, protocol)) in self.protocols.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            write_json_str(name, out);
            out.push_str(&format!(":{{\"credential\":{},\"sensors\":[", protocol.credential));
            for (i, sensor) in protocol.sensors.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&format!("{{\"sensor\":{},\"interval\":", sensor.sensor));
                write_optional(sensor.interval, out);
                out.push('}');
            }
            out.push_str("],\"bot\":");
            write_optional(protocol.bot, out);
            out.push('}');
        }
        out.push_str("}}");
        Ok(())
    }
}

fn set(details: &mut Json, key: &str, value: &str) {
    if let Json::Object(entries) = details {
        match entries.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value.into(),
            None => entries.push((key.to_owned(), value.into())),
        }
    }
}

pub(crate) fn write_optional<T: fmt::Display>(value: Option<T>, out: &mut String) {
    match value {
        Some(value) => out.push_str(&value.to_string()),
        None => out.push_str("null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_is_written_in_the_order_of_the_wire() {
        let entity = Entity::device(7, "ro\"uter").detail("ipv4", "192.0.2.1").protocol(
            "ping",
            3,
            5,
            [(9, Some(60)), (10, None)],
        );
        let mut out = String::new();
        entity.write(&mut out).unwrap();
        assert_eq!(
            out,
            "{\"id\":7,\"name\":\"ro\\\"uter\",\"entity_type\":\"device\",\"parent\":null,\"details\":{\"ipv4\":\"192.0.2.1\"},\
             \"protocols\":{\"ping\":{\"credential\":3,\"sensors\":[{\"sensor\":9,\"interval\":60},{\"sensor\":10,\"interval\":null}],\"bot\":5}}}"
        );
    }

    #[test]
    fn permissions_are_cut_at_slashes() {
        let permission = Permission::new("accounts/12/values", Some(&["POST"]));
        assert!(permission.allows("POST", "accounts/12/values"));
        assert!(permission.allows("POST", "accounts/12/values/a"));
        assert!(!permission.allows("PUT", "accounts/12/values"));
        assert!(!permission.allows("POST", "accounts/12/valuesx"));
        assert!(!permission.allows("POST", "accounts/12"));
        assert!(permission.names_account(12));
        assert!(!permission.names_account(1));
        assert!(!Permission::new("bots", None).names_account(12));
    }

    #[test]
    fn debug_output_shows_neither_tokens_nor_credentials() {
        let token = Token::new("3BFAE491-8c49-42ca-8332-0ae431d59014").unwrap();
        let bot = Bot::systemwide(1, "Ping", "ping").token(token);
        let credential = Credential::new(1, "SNMP", "snmp").detail("community", "hush");
        let shown = format!("{bot:?} {credential:?}");
        assert!(!shown.contains("3bfae491") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn short_names_hold_letters_digits_and_dashes() {
        assert_eq!(short_name("Systemwide ICMP Ping bot"), "systemwide-icmp-ping-bot");
        assert_eq!(short_name("--"), "bot");
    }
}
