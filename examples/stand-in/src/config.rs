//! The configuration file: accounts with what is in them, and bots, as JSON in the backend's own words.
//!
//! An example is `demo.json` beside this package's manifest, described in its README.
//!
//! ```
//! use grafolean_stand_in::Config;
//! let config = Config::from_json(r#"{
//!     "accounts": [{"id": 1, "name": "Home"}],
//!     "bots": [{"name": "ping", "protocol": "ping", "token": "3bfae491-8c49-42ca-8332-0ae431d59014"}]
//! }"#)?;
//! assert_eq!(config.accounts.len(), 1);
//! # Ok::<(), grafolean_stand_in::ConfigError>(())
//! ```
//!
//! Errors name the place, as `accounts[0].entities[2].protocols.ping`.

use core::fmt;
use std::path::Path;

use crate::backend::{Backend, ChangeError, whole_s};
use crate::json::{Json, JsonError};
use crate::model::{
    Account, Bot, Credential, Entity, EntityProtocol, EntitySensor, Permission, Sensor, Token, short_name,
};
use crate::persons::{Admin, NewAccount};

/// What a stand-in knows when it starts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// Ids and tokens that are left to the stand-in follow from it.
    pub seed: u64,
    /// The accounts.
    pub accounts: Vec<AccountConfig>,
    /// The bots, of accounts and systemwide.
    pub bots: Vec<Bot>,
    /// The person who may do everything; none: nobody can log in with an `Authorization` header.
    pub admin: Option<Admin>,
    /// What accounts hold from the start that are made while it runs.
    pub new_account: NewAccount,
}

/// An account with what is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountConfig {
    /// Id and name.
    pub account: Account,
    /// Its credentials.
    pub credentials: Vec<Credential>,
    /// Its sensors.
    pub sensors: Vec<Sensor>,
    /// Its entities; a parent may come after its children.
    pub entities: Vec<Entity>,
}

/// Why a configuration cannot be used, and where.
#[derive(Debug)]
pub struct ConfigError {
    /// Where in the configuration, or the file's name; empty for the whole.
    pub place: String,
    /// What is wrong there.
    pub problem: ConfigProblem,
}

/// What is wrong with a configuration.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigProblem {
    /// The file cannot be read.
    Read(std::io::Error),
    /// The text is not JSON.
    Json(JsonError),
    /// A key is missing.
    MissingKey(&'static str),
    /// A key is not known here.
    UnknownKey {
        /// The key.
        key: String,
        /// The ones that are.
        known: &'static [&'static str],
    },
    /// The value is of another kind than it must be.
    Expected(&'static str),
    /// Something with the same id stands before.
    Repeated(i32),
    /// It contradicts what stands elsewhere in the configuration.
    Conflict(ChangeError),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("configuration")?;
        if !self.place.is_empty() {
            write!(f, ", {}", self.place)?;
        }
        match &self.problem {
            ConfigProblem::Read(error) => write!(f, ": cannot be read: {error}"),
            ConfigProblem::Json(error) => write!(f, ": {error}"),
            ConfigProblem::MissingKey(key) => write!(f, ": `{key}` is missing"),
            ConfigProblem::UnknownKey { key, known } => {
                write!(f, ": `{key}` is not known here; known are {}", known.join(", "))
            }
            ConfigProblem::Expected(expected) => write!(f, ": must be {expected}"),
            ConfigProblem::Repeated(id) => write!(f, ": the id {id} stands twice"),
            ConfigProblem::Conflict(error) => write!(f, ": {error}"),
        }
    }
}

impl core::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match &self.problem {
            ConfigProblem::Read(error) => Some(error),
            ConfigProblem::Json(error) => Some(error),
            ConfigProblem::Conflict(error) => Some(error),
            _ => None,
        }
    }
}

impl Config {
    /// The small configuration that is built in: one account with two ping devices, a systemwide ping bot and a custom bot of
    /// the account.
    ///
    /// # Errors
    /// None in a released version: it is what the tests read first.
    pub fn demo() -> Result<Self, ConfigError> {
        Self::from_json(include_str!("../demo.json"))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`] with the file's name in its place.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let name = file.display().to_string();
        let bytes = std::fs::read(file)
            .map_err(|error| ConfigError { place: name.clone(), problem: ConfigProblem::Read(error) })?;
        let json = Json::from_bytes(&bytes)
            .map_err(|error| ConfigError { place: name.clone(), problem: ConfigProblem::Json(error) })?;
        Self::from_value(&json).map_err(|error| ConfigError {
            place: if error.place.is_empty() { name } else { format!("{name}, {}", error.place) },
            ..error
        })
    }

    /// Reads a text.
    ///
    /// # Errors
    /// [`ConfigError`]. Whether ids fit together is only found out at the start.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let json = text
            .parse()
            .map_err(|error| ConfigError { place: String::new(), problem: ConfigProblem::Json(error) })?;
        Self::from_value(&json)
    }

    fn from_value(json: &Json) -> Result<Self, ConfigError> {
        let top = Place::top(json);
        let object = top.object(&["seed", "accounts", "bots", "admin", "new_account"])?;
        Ok(Self {
            seed: match object.get("seed") {
                Some(seed) => seed.whole_number("a whole number from 0 to 2^64 - 1")?,
                None => 0,
            },
            accounts: object.list("accounts", account)?,
            bots: object.list("bots", bot)?,
            admin: object.get("admin").map(|place| admin(&place)).transpose()?,
            new_account: match object.get("new_account") {
                Some(place) => {
                    let object = place.object(&["credentials", "sensors"])?;
                    NewAccount {
                        credentials: object.list("credentials", credential)?,
                        sensors: object.list("sensors", sensor)?,
                    }
                }
                None => NewAccount::default(),
            },
        })
    }

    /// Puts everything into a backend; makes bots at this time.
    ///
    /// # Errors
    /// [`ConfigProblem::Repeated`] and [`ConfigProblem::Conflict`].
    pub fn apply(&self, backend: &mut Backend, now_us: i64) -> Result<(), ConfigError> {
        let conflict =
            |place: String| move |error| ConfigError { place, problem: ConfigProblem::Conflict(error) };
        let repeated = |place: String, id| Err(ConfigError { place, problem: ConfigProblem::Repeated(id) });
        let mut accounts = Vec::with_capacity(self.accounts.len());
        for (i, account) in self.accounts.iter().enumerate() {
            let place = format!("accounts[{i}]");
            if backend.accounts().iter().any(|a| a.id == account.account.id) {
                return repeated(place, account.account.id);
            }
            let id = backend.set_account(account.account.clone()).map_err(conflict(place.clone()))?;
            accounts.push(id);
            for (k, credential) in account.credentials.iter().enumerate() {
                let place = format!("{place}.credentials[{k}]");
                if backend.credentials(id).iter().any(|c| c.id == credential.id) {
                    return repeated(place, credential.id);
                }
                backend.set_credential(id, credential.clone()).map_err(conflict(place))?;
            }
            for (k, sensor) in account.sensors.iter().enumerate() {
                let place = format!("{place}.sensors[{k}]");
                if backend.sensors(id).iter().any(|s| s.id == sensor.id) {
                    return repeated(place, sensor.id);
                }
                backend.set_sensor(id, sensor.clone()).map_err(conflict(place))?;
            }
        }
        for (i, bot) in self.bots.iter().enumerate() {
            let place = format!("bots[{i}]");
            if backend.bot(bot.id).is_some() {
                return repeated(place, bot.id);
            }
            let mut bot = bot.clone();
            if bot.insert_time_s == 0 {
                bot.insert_time_s = whole_s(now_us);
            }
            backend.set_bot(bot).map_err(conflict(place))?;
        }
        if let Some(admin) = &self.admin {
            backend.set_admin(admin.clone());
        }
        if self.new_account != NewAccount::default() {
            backend.set_new_account(self.new_account.clone());
        }
        // Parents may come after their children, so they are set when all are there.
        let mut parents = Vec::new();
        for (i, (account, id)) in self.accounts.iter().zip(&accounts).enumerate() {
            for (k, entity) in account.entities.iter().enumerate() {
                let place = format!("accounts[{i}].entities[{k}]");
                if backend.entity(*id, entity.id).is_some() {
                    return repeated(place, entity.id);
                }
                let orphan = Entity { parent: None, ..entity.clone() };
                let entity_id = backend.set_entity(*id, orphan).map_err(conflict(place.clone()))?;
                if entity.parent.is_some() {
                    parents.push((*id, Entity { id: entity_id, ..entity.clone() }, place));
                }
            }
        }
        for (account, entity, place) in parents {
            backend.set_entity(account, entity).map_err(conflict(place))?;
        }
        Ok(())
    }
}

fn account(place: &Place<'_>) -> Result<AccountConfig, ConfigError> {
    let object = place.object(&["id", "name", "credentials", "sensors", "entities"])?;
    Ok(AccountConfig {
        account: Account { id: object.id()?, name: object.text("name")? },
        credentials: object.list("credentials", credential)?,
        sensors: object.list("sensors", sensor)?,
        entities: object.list("entities", entity)?,
    })
}

fn credential(place: &Place<'_>) -> Result<Credential, ConfigError> {
    let object = place.object(&["id", "name", "protocol", "details"])?;
    Ok(Credential {
        id: object.id()?,
        name: object.text("name")?,
        protocol: object.text("protocol")?,
        details: object.details()?,
    })
}

fn sensor(place: &Place<'_>) -> Result<Sensor, ConfigError> {
    let object = place.object(&["id", "name", "protocol", "default_interval", "details"])?;
    Ok(Sensor {
        id: object.id()?,
        name: object.text("name")?,
        protocol: object.text("protocol")?,
        default_interval: object.int4("default_interval")?,
        details: object.details()?,
    })
}

fn admin(place: &Place<'_>) -> Result<Admin, ConfigError> {
    let object = place.object(&["id", "name", "email", "username", "password", "token"])?;
    let usual = Admin::new("");
    Ok(Admin {
        id: object.id()?,
        name: object.optional_text("name")?.unwrap_or(usual.name),
        email: object.optional_text("email")?.unwrap_or(usual.email),
        username: object.optional_text("username")?.unwrap_or(usual.username),
        password: object.optional_text("password")?.unwrap_or(usual.password),
        token: match object.optional_text("token")? {
            // It has to fit into a header.
            Some(token) if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) => {
                return Err(object
                    .child("token")
                    .expected("a text of visible ASCII characters without spaces"));
            }
            token => token.unwrap_or_default(),
        },
        permission_id: 0,
    })
}

fn entity(place: &Place<'_>) -> Result<Entity, ConfigError> {
    let object = place.object(&["id", "name", "entity_type", "parent", "details", "protocols"])?;
    let mut protocols = Vec::new();
    if let Some(place) = object.get("protocols") {
        let Json::Object(entries) = place.json else {
            return Err(place.expected("an object of protocols"));
        };
        for (name, json) in entries {
            let place = Place { at: format!("{}.{name}", place.at), json };
            let object = place.object(&["credential", "bot", "sensors"])?;
            let sensors = object.list("sensors", |place| {
                let object = place.object(&["sensor", "interval"])?;
                Ok(EntitySensor { sensor: object.reference("sensor")?, interval: object.int4("interval")? })
            })?;
            let protocol = EntityProtocol {
                credential: object.reference("credential")?,
                sensors,
                bot: object.int4("bot")?,
            };
            protocols.push((name.clone(), protocol));
        }
    }
    Ok(Entity {
        id: object.id()?,
        name: object.text("name")?,
        entity_type: object.optional_text("entity_type")?.unwrap_or_else(|| "device".to_owned()),
        parent: object.int4("parent")?,
        details: object.details()?,
        protocols,
    })
}

fn bot(place: &Place<'_>) -> Result<Bot, ConfigError> {
    let object = place.object(&[
        "id",
        "name",
        "short_name",
        "token",
        "protocol",
        "tied_to_account",
        "config",
        "permissions",
        "insert_time",
    ])?;
    let name = object.text("name")?;
    let token = match object.optional_text("token")? {
        None => None,
        Some(token) => Some(Token::new(&token).ok_or_else(|| {
            object.child("token").expected("a UUID such as 00000000-0000-4000-8000-000000000000")
        })?),
    };
    let permissions = match object.get("permissions") {
        None => None,
        Some(_) => Some(object.list("permissions", |place| {
            let object = place.object(&["id", "resource_prefix", "methods"])?;
            let methods = match object.get("methods") {
                None => None,
                Some(_) => Some(object.list("methods", |place| match place.json {
                    Json::Str(method) if ["GET", "POST", "PUT", "DELETE"].contains(&method.as_str()) => {
                        Ok(method.clone())
                    }
                    _ => Err(place.expected("one of \"GET\", \"POST\", \"PUT\", \"DELETE\"")),
                })?),
            };
            Ok(Permission {
                id: object.id()?,
                resource_prefix: object.optional_text("resource_prefix")?,
                methods,
            })
        })?),
    };
    Ok(Bot {
        id: object.id()?,
        short_name: object.optional_text("short_name")?.unwrap_or_else(|| short_name(&name)),
        name,
        token,
        protocol: object.optional_text("protocol")?,
        tied_to_account: object.int4("tied_to_account")?,
        config: object.get("config").map_or(Json::Null, |c| c.json.clone()),
        permissions,
        insert_time_s: match object.get("insert_time") {
            Some(time) => time.whole_number("Unix time in whole seconds")?,
            None => 0,
        },
        last_login_s: None,
    })
}

/// A value and where it stands.
struct Place<'a> {
    at: String,
    json: &'a Json,
}

/// An object whose keys are known.
struct Object<'a> {
    at: String,
    json: &'a Json,
}

impl<'a> Place<'a> {
    const fn top(json: &'a Json) -> Self {
        Self { at: String::new(), json }
    }

    fn expected(&self, what: &'static str) -> ConfigError {
        ConfigError { place: self.at.clone(), problem: ConfigProblem::Expected(what) }
    }

    fn object(&self, known: &'static [&'static str]) -> Result<Object<'a>, ConfigError> {
        let Json::Object(entries) = self.json else { return Err(self.expected("an object")) };
        match entries.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) => Err(ConfigError {
                place: self.at.clone(),
                problem: ConfigProblem::UnknownKey { key: key.clone(), known },
            }),
            None => Ok(Object { at: self.at.clone(), json: self.json }),
        }
    }

    fn whole_number<T: core::str::FromStr>(&self, what: &'static str) -> Result<T, ConfigError> {
        match self.json {
            Json::Int(digits) => digits.parse().map_err(|_| self.expected(what)),
            _ => Err(self.expected(what)),
        }
    }
}

impl<'a> Object<'a> {
    fn missing(&self, key: &'static str) -> ConfigError {
        ConfigError { place: self.at.clone(), problem: ConfigProblem::MissingKey(key) }
    }

    /// The value of a key, null if it is not there.
    fn child(&self, key: &str) -> Place<'a> {
        let dot = if self.at.is_empty() { "" } else { "." };
        Place { at: format!("{}{dot}{key}", self.at), json: self.json.get(key).unwrap_or(&Json::Null) }
    }

    /// The value of a key; none if it is null or not there.
    fn get(&self, key: &str) -> Option<Place<'a>> {
        Some(self.child(key)).filter(|place| *place.json != Json::Null)
    }

    fn list<T>(
        &self,
        key: &str,
        read: impl Fn(&Place<'a>) -> Result<T, ConfigError>,
    ) -> Result<Vec<T>, ConfigError> {
        let Some(place) = self.get(key) else { return Ok(Vec::new()) };
        let Json::List(items) = place.json else { return Err(place.expected("a list")) };
        let place = |i| format!("{}[{i}]", place.at);
        items.iter().enumerate().map(|(i, json)| read(&Place { at: place(i), json })).collect()
    }

    fn optional_text(&self, key: &str) -> Result<Option<String>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(Place { json: Json::Str(text), .. }) => Ok(Some(text.clone())),
            Some(place) => Err(place.expected("a text")),
        }
    }

    fn text(&self, key: &'static str) -> Result<String, ConfigError> {
        self.optional_text(key)?.ok_or_else(|| self.missing(key))
    }

    fn int4(&self, key: &str) -> Result<Option<i32>, ConfigError> {
        self.get(key).map(|p| p.whole_number("a whole number from -2147483648 to 2147483647")).transpose()
    }

    fn reference(&self, key: &'static str) -> Result<i32, ConfigError> {
        self.int4(key)?.ok_or_else(|| self.missing(key))
    }

    /// The id; 0, the stand-in's to choose, if it is not there.
    fn id(&self) -> Result<i32, ConfigError> {
        match self.int4("id")? {
            Some(id) if id > 0 => Ok(id),
            Some(_) => Err(self.child("id").expected("a whole number from 1 to 2147483647")),
            None => Ok(0),
        }
    }

    fn details(&self) -> Result<Json, ConfigError> {
        match self.get("details") {
            None => Ok(Json::object()),
            Some(Place { json: details @ Json::Object(_), .. }) => Ok(details.clone()),
            Some(place) => Err(place.expected("an object")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Request;

    fn problem(text: &str) -> String {
        let started = Config::from_json(text)
            .and_then(|config| config.apply(&mut Backend::in_memory(1).unwrap(), 0).map(|()| config));
        started.unwrap_err().to_string()
    }

    #[test]
    fn the_built_in_configuration_holds_together() {
        let mut backend = Backend::in_memory(1).unwrap();
        Config::demo().unwrap().apply(&mut backend, 5_000_000).unwrap();
        assert_eq!(backend.accounts().len(), 1);
        assert_eq!(backend.bots().len(), 2);
        let account = backend.accounts()[0].id;
        assert!(backend.entities(account).iter().all(|e| e.protocols.len() == 1));
        assert_eq!(backend.entities(account).len(), 2);
        assert_eq!(backend.bots()[0].insert_time_s, 5);
    }

    #[test]
    fn errors_name_what_and_where() {
        for (text, expected) in [
            ("{", "configuration: line 1, column 2: expected a key in double quotes"),
            ("[]", "configuration: must be an object"),
            (
                r#"{"bot":[]}"#,
                "configuration: `bot` is not known here; known are seed, accounts, bots, admin, new_account",
            ),
            (
                r#"{"admin":{"token":"two words"}}"#,
                "configuration, admin.token: must be a text of visible ASCII characters without spaces",
            ),
            (
                r#"{"new_account":{"sensors":[{"name":"a"}]}}"#,
                "configuration, new_account.sensors[0]: `protocol` is missing",
            ),
            (r#"{"accounts":[{"id":1}]}"#, "configuration, accounts[0]: `name` is missing"),
            (r#"{"accounts":[{"name":5}]}"#, "configuration, accounts[0].name: must be a text"),
            (
                r#"{"accounts":[{"id":0,"name":"a"}]}"#,
                "configuration, accounts[0].id: must be a whole number from 1 to 2147483647",
            ),
            (
                r#"{"accounts":[{"id":1,"name":"a"},{"id":1,"name":"b"}]}"#,
                "configuration, accounts[1]: the id 1 stands twice",
            ),
            (
                r#"{"bots":[{"name":"a","token":"x"}]}"#,
                "configuration, bots[0].token: must be a UUID such as 00000000-0000-4000-8000-000000000000",
            ),
            (
                r#"{"bots":[{"name":"a","tied_to_account":3}]}"#,
                "configuration, bots[0]: there is no account 3",
            ),
            (
                r#"{"accounts":[{"id":1,"name":"a","entities":[{"name":"d","protocols":{"ping":{"credential":4}}}]}]}"#,
                "configuration, accounts[0].entities[0]: there is no credential 4",
            ),
            (
                r#"{"accounts":[{"id":1,"name":"a","entities":[{"name":"d","protocols":{"ping":{"credential":"4"}}}]}]}"#,
                "configuration, accounts[0].entities[0].protocols.ping.credential: must be a whole number from -2147483648 to 2147483647",
            ),
            (
                r#"{"bots":[{"name":"a","permissions":[{"methods":["HEAD"]}]}]}"#,
                "configuration, bots[0].permissions[0].methods[0]: must be one of \"GET\", \"POST\", \"PUT\", \"DELETE\"",
            ),
        ] {
            assert_eq!(problem(text), expected);
        }
        let error = Config::read(Path::new("/nowhere/stand-in.json")).unwrap_err().to_string();
        assert!(error.starts_with("configuration, /nowhere/stand-in.json: cannot be read"), "{error}");
    }

    #[test]
    fn an_administrator_and_what_new_accounts_hold_can_be_configured() {
        let mut backend = Backend::in_memory(1).unwrap();
        let text = r#"{"admin":{"token":"secret","name":"Ana"},
            "new_account":{"credentials":[{"name":"c","protocol":"ping"}],"sensors":[{"name":"s","protocol":"ping"}]}}"#;
        Config::from_json(text).unwrap().apply(&mut backend, 0).unwrap();
        assert_eq!(backend.admin().map(|a| (a.name.as_str(), a.token.as_str())), Some(("Ana", "secret")));
        let mut request = Request::json("POST", "/api/admin/accounts", r#"{"name":"Home"}"#);
        request.authorization = Some(b"Bearer 7:secret".to_vec());
        assert_eq!(backend.answer(&request, 0).status, 201);
        let account = backend.accounts()[0].id;
        assert_eq!((backend.credentials(account).len(), backend.sensors(account).len()), (1, 1));
    }

    #[test]
    fn a_parent_may_come_after_its_child() {
        let mut backend = Backend::in_memory(1).unwrap();
        let text = r#"{"accounts":[{"id":1,"name":"a","entities":[
            {"id":5,"name":"eth0","entity_type":"interface","parent":6},{"id":6,"name":"router"}]}]}"#;
        Config::from_json(text).unwrap().apply(&mut backend, 0).unwrap();
        assert_eq!(backend.entity(1, 5).unwrap().parent, Some(6));
    }
}
