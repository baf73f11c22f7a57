//! The backend without sockets: its state, and the answer it gives to a request.
//!
//! ```
//! use grafolean_stand_in::{Backend, Bot, Account, Request, Token};
//! let mut backend = Backend::in_memory(1)?;
//! backend.set_account(Account { id: 1, name: "Home".into() })?;
//! let token = Token::new("3bfae491-8c49-42ca-8332-0ae431d59014").ok_or("no UUID")?;
//! backend.set_bot(Bot::systemwide(2, "Ping", "ping").token(token.clone()))?;
//! let reply = backend.answer(&Request::get(&format!("/api/accounts/?b={}", token.reveal())), 0);
//! assert_eq!(reply.status, 200);
//! assert_eq!(reply.text(), r#"{"list":[{"id":1,"name":"Home"}]}"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An answer costs what it writes; nothing is cached. It never panics on what a client sends: whatever the stand-in does not
//! speak although the real backend does is answered by status 501.

use core::fmt;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use bytes::Bytes;

use crate::json::{Json, write_json_str};
use crate::model::{Account, Bot, Credential, Entity, EntityProtocol, Sensor, Token};
use crate::persons::House;
use crate::store::{Store, StoreError, StoredValue};

/// One of the lists of an account that a bot reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListKind {
    /// `accounts/N/entities`
    Entities,
    /// `accounts/N/credentials`
    Credentials,
    /// `accounts/N/sensors`
    Sensors,
}

/// A request as far as the backend looks at it.
#[derive(Clone, Default)]
pub struct Request {
    /// The method in the client's letters.
    pub method: String,
    /// Path and query as they were sent.
    pub target: String,
    /// Whether the target named scheme and host too.
    pub absolute_form: bool,
    /// The `Host` header.
    pub host: Option<String>,
    /// The `Authorization` header.
    pub authorization: Option<Vec<u8>>,
    /// The `Content-Type` header.
    pub content_type: Option<String>,
    /// The `Origin` header.
    pub origin: Option<String>,
    /// The `Access-Control-Request-Method` header.
    pub access_control_request_method: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl Request {
    /// A GET request.
    pub fn get(target: &str) -> Self {
        Self { method: "GET".to_owned(), target: target.to_owned(), ..Self::default() }
    }

    /// A request with a body of type `application/json`.
    pub fn json(method: &str, target: &str, body: impl Into<Bytes>) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            content_type: Some("application/json".to_owned()),
            body: body.into(),
            ..Self::default()
        }
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    pub(crate) fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }
}

/// The body of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyBody {
    /// No body and no length (204).
    None,
    /// Bytes with their length.
    Bytes(Bytes),
    /// An empty body in chunked encoding (307).
    EmptyChunked,
}

/// An answer; `date`, `server` and `content-length` are the server's to add.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers besides the server's, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: ReplyBody,
    /// Whether the server closes the connection after this answer without having said so.
    pub hang_up: bool,
    /// What the request stored, in order, even if the answer is a failure.
    pub stored: Vec<StoredValue>,
}

impl Reply {
    /// The body as text; empty if there is none.
    pub fn text(&self) -> String {
        match &self.body {
            ReplyBody::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            ReplyBody::None | ReplyBody::EmptyChunked => String::new(),
        }
    }

    fn new(status: u16, content_type: Option<&str>, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: content_type.map(|t| ("content-type", t.to_owned())).into_iter().collect(),
            body: ReplyBody::Bytes(body.into()),
            hang_up: false,
            stored: Vec::new(),
        }
    }

    /// JSON with its type.
    pub(crate) fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self::new(status, Some("application/json"), body)
    }

    /// Text without a type, as the backend's own refusals are.
    pub(crate) fn bare_text(status: u16, text: impl Into<Bytes>) -> Self {
        Self::new(status, None, text)
    }

    pub(crate) fn detail(status: u16, detail: &str) -> Self {
        let mut body = String::from("{\"detail\":");
        write_json_str(detail, &mut body);
        body.push('}');
        Self::json(status, body)
    }

    pub(crate) const fn no_content() -> Self {
        Self { status: 204, headers: Vec::new(), body: ReplyBody::None, hang_up: false, stored: Vec::new() }
    }

    /// An unexpected error in the application; uvicorn then closes without saying so.
    pub(crate) fn internal_error() -> Self {
        let mut reply = Self::new(500, Some("text/plain; charset=utf-8"), "Internal Server Error");
        reply.hang_up = true;
        reply
    }

    /// A refusal by the backend's checks; the hint appears for anything but the bare media type.
    pub(crate) fn invalid(request: &Request, why: &str) -> Self {
        let hint = if request.content_type.as_deref() == Some("application/json") {
            ""
        } else {
            " - maybe Content-Type header was not set to application/json?"
        };
        Self::bare_text(400, format!("Input validation failed: {why}{hint}"))
    }
}

/// Why a change of the configuration is impossible.
#[derive(Debug)]
#[non_exhaustive]
pub enum ChangeError {
    /// There is no account of this id.
    NoAccount(i32),
    /// There is nothing of this kind and id where it is looked for.
    Missing {
        /// `credential`, `sensor`, `entity`, `bot` or `parent`.
        kind: &'static str,
        /// The id.
        id: i32,
    },
    /// A credential, sensor or bot is of another protocol than the one it is to serve.
    WrongProtocol {
        /// `credential`, `sensor` or `bot`.
        kind: &'static str,
        /// The id.
        id: i32,
        /// The protocol that it is to serve.
        wanted: String,
    },
    /// A bot that is tied to another account.
    WrongAccount {
        /// The bot's id.
        bot: i32,
    },
    /// The id belongs to one in another account, or is not positive.
    BadId {
        /// `credential`, `sensor` or `entity`.
        kind: &'static str,
        /// The id.
        id: i32,
    },
    /// Names of credentials and sensors are unique in an account.
    NameTaken(String),
    /// Another bot has this token.
    TokenTaken,
    /// A sensor stands twice in one protocol of an entity.
    SensorTwice(i32),
    /// `details` must be an object.
    DetailsNoObject,
    /// The values could not be removed.
    Store(StoreError),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAccount(id) => write!(f, "there is no account {id}"),
            Self::Missing { kind, id } => write!(f, "there is no {kind} {id}"),
            Self::WrongProtocol { kind, id, wanted } => {
                write!(f, "{kind} {id} is not of protocol `{wanted}`")
            }
            Self::WrongAccount { bot } => write!(f, "bot {bot} is tied to another account"),
            Self::BadId { kind, id } => write!(f, "id {id} is not free for this {kind}, or not positive"),
            Self::NameTaken(name) => write!(f, "the name `{name}` is taken in this account"),
            Self::TokenTaken => f.write_str("the token belongs to another bot"),
            Self::SensorTwice(id) => write!(f, "sensor {id} stands twice in one protocol"),
            Self::DetailsNoObject => f.write_str("`details` must be an object"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ChangeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

pub(crate) struct AccountState {
    pub(crate) name: String,
    pub(crate) credentials: BTreeMap<i32, Credential>,
    pub(crate) sensors: BTreeMap<i32, Sensor>,
    pub(crate) entities: BTreeMap<i32, Entity>,
    pub(crate) raw_lists: Vec<(ListKind, Bytes)>,
}

/// Everything the stand-in knows.
pub struct Backend {
    pub(crate) accounts: BTreeMap<i32, AccountState>,
    pub(crate) bots: Vec<Bot>,
    pub(crate) store: Store,
    pub(crate) house: House,
    ids: u64,
    planned_ids: VecDeque<i32>,
    planned_tokens: VecDeque<Token>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("accounts", &self.accounts.len())
            .field("bots", &self.bots)
            .field("values", &self.store.count())
            .finish_non_exhaustive()
    }
}

impl Backend {
    /// An empty backend whose values lie in memory; ids it chooses follow from the seed.
    ///
    /// # Errors
    /// [`StoreError::Access`] if SQLite has no memory.
    pub fn in_memory(seed: u64) -> Result<Self, StoreError> {
        Ok(Self::with_store(seed, Store::in_memory()?))
    }

    /// An empty backend whose values lie in a file, which is made if there is none. Only values and their paths are kept there.
    ///
    /// # Errors
    /// [`StoreError::Open`] if the file cannot be used.
    pub fn with_file(seed: u64, file: &Path) -> Result<Self, StoreError> {
        Ok(Self::with_store(seed, Store::file(file)?))
    }

    fn with_store(seed: u64, store: Store) -> Self {
        Self {
            accounts: BTreeMap::new(),
            bots: Vec::new(),
            store,
            house: House::default(),
            ids: seed,
            planned_ids: VecDeque::new(),
            planned_tokens: VecDeque::new(),
        }
    }

    /// The ids and tokens that it chooses next, in place of random ones; those that are taken or not positive are passed over.
    /// Replaces what was planned before. For those who replay what a real backend once chose.
    pub fn plan(&mut self, ids: impl IntoIterator<Item = i32>, tokens: impl IntoIterator<Item = Token>) {
        self.planned_ids = ids.into_iter().collect();
        self.planned_tokens = tokens.into_iter().collect();
    }

    /// Next 64 random bits (SplitMix64 of Steele, Lea and Flood, 2014).
    pub(crate) fn random(&mut self) -> u64 {
        self.ids = self.ids.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.ids;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A positive int4 that nothing has yet.
    pub(crate) fn new_id(&mut self) -> i32 {
        loop {
            let id = match self.planned_ids.pop_front() {
                Some(id) => id,
                None => i32::try_from(self.random() >> 33).unwrap_or(0),
            };
            let taken = self.accounts.contains_key(&id)
                || self.bots.iter().any(|b| b.id == id)
                || self.house.admin.as_ref().is_some_and(|a| a.id == id)
                || self.accounts.values().any(|a| {
                    a.credentials.contains_key(&id)
                        || a.sensors.contains_key(&id)
                        || a.entities.contains_key(&id)
                });
            if id > 0 && !taken {
                return id;
            }
        }
    }

    pub(crate) fn new_token(&mut self) -> Token {
        while let Some(token) = self.planned_tokens.pop_front() {
            if self.bot_of(&token).is_none() {
                return token;
            }
        }
        loop {
            let (high, low) = (self.random(), self.random());
            let uuid = format!(
                "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
                high >> 32,
                (high >> 16) & 0xffff,
                high & 0xfff,
                0x8000 | (low >> 48) & 0x3fff,
                low & 0xffff_ffff_ffff
            );
            if let Some(token) = Token::new(&uuid)
                && self.bot_of(&token).is_none()
            {
                return token;
            }
        }
    }

    fn account(&mut self, id: i32) -> Result<&mut AccountState, ChangeError> {
        self.accounts.get_mut(&id).ok_or(ChangeError::NoAccount(id))
    }

    fn bot_of(&self, token: &Token) -> Option<&Bot> {
        self.bots.iter().find(|b| b.token.as_ref() == Some(token))
    }

    // Changes

    /// Adds an account, or renames the one with this id. Returns the id.
    ///
    /// # Errors
    /// [`ChangeError::BadId`] for a negative id.
    pub fn set_account(&mut self, account: Account) -> Result<i32, ChangeError> {
        let id = self.id_for("account", account.id, false)?;
        let name = account.name;
        match self.accounts.get_mut(&id) {
            Some(state) => state.name = name,
            None => {
                let state = AccountState {
                    name,
                    credentials: BTreeMap::new(),
                    sensors: BTreeMap::new(),
                    entities: BTreeMap::new(),
                    raw_lists: Vec::new(),
                };
                self.accounts.insert(id, state);
            }
        }
        Ok(id)
    }

    /// Removes an account with its values and the bots that are tied to it.
    ///
    /// # Errors
    /// [`ChangeError::NoAccount`]; [`ChangeError::Store`].
    pub fn remove_account(&mut self, id: i32) -> Result<(), ChangeError> {
        self.accounts.remove(&id).ok_or(ChangeError::NoAccount(id))?;
        let tied: Vec<i32> =
            self.bots.iter().filter(|b| b.tied_to_account == Some(id)).map(|b| b.id).collect();
        for bot in tied {
            self.remove_bot(bot)?;
        }
        self.store.forget(id).map_err(ChangeError::Store)
    }

    fn id_for(&mut self, kind: &'static str, id: i32, taken_elsewhere: bool) -> Result<i32, ChangeError> {
        match id {
            0 => Ok(self.new_id()),
            id if id < 0 || taken_elsewhere => Err(ChangeError::BadId { kind, id }),
            id => Ok(id),
        }
    }

    /// Adds a credential, or replaces the one with this id. Returns the id.
    ///
    /// # Errors
    /// [`ChangeError`]: no such account, an id of another account, a name that is taken, details that are no object.
    pub fn set_credential(&mut self, account: i32, mut credential: Credential) -> Result<i32, ChangeError> {
        let elsewhere =
            self.accounts.iter().any(|(n, a)| *n != account && a.credentials.contains_key(&credential.id));
        credential.id = self.id_for("credential", credential.id, elsewhere)?;
        let state = self.account(account)?;
        if state.credentials.values().any(|c| c.name == credential.name && c.id != credential.id) {
            return Err(ChangeError::NameTaken(credential.name));
        }
        if !matches!(credential.details, Json::Object(_)) {
            return Err(ChangeError::DetailsNoObject);
        }
        let id = credential.id;
        state.credentials.insert(id, credential);
        Ok(id)
    }

    /// Removes a credential, and with it every protocol entry of an entity that uses it.
    ///
    /// # Errors
    /// [`ChangeError::NoAccount`], [`ChangeError::Missing`].
    pub fn remove_credential(&mut self, account: i32, id: i32) -> Result<(), ChangeError> {
        let state = self.account(account)?;
        state.credentials.remove(&id).ok_or(ChangeError::Missing { kind: "credential", id })?;
        for entity in state.entities.values_mut() {
            entity.protocols.retain(|(_, p)| p.credential != id);
        }
        Ok(())
    }

    /// Adds a sensor, or replaces the one with this id. Returns the id.
    ///
    /// # Errors
    /// [`ChangeError`]: no such account, an id of another account, a name that is taken, details that are no object.
    pub fn set_sensor(&mut self, account: i32, mut sensor: Sensor) -> Result<i32, ChangeError> {
        let elsewhere =
            self.accounts.iter().any(|(n, a)| *n != account && a.sensors.contains_key(&sensor.id));
        sensor.id = self.id_for("sensor", sensor.id, elsewhere)?;
        let state = self.account(account)?;
        if state.sensors.values().any(|s| s.name == sensor.name && s.id != sensor.id) {
            return Err(ChangeError::NameTaken(sensor.name));
        }
        if !matches!(sensor.details, Json::Object(_)) {
            return Err(ChangeError::DetailsNoObject);
        }
        let id = sensor.id;
        state.sensors.insert(id, sensor);
        Ok(id)
    }

    /// Removes a sensor, also from the lists of the entities.
    ///
    /// # Errors
    /// [`ChangeError::NoAccount`], [`ChangeError::Missing`].
    pub fn remove_sensor(&mut self, account: i32, id: i32) -> Result<(), ChangeError> {
        let state = self.account(account)?;
        state.sensors.remove(&id).ok_or(ChangeError::Missing { kind: "sensor", id })?;
        for entity in state.entities.values_mut() {
            for (_, protocol) in &mut entity.protocols {
                protocol.sensors.retain(|s| s.sensor != id);
            }
        }
        Ok(())
    }

    /// Adds an entity, or replaces the one with this id. Returns the id.
    ///
    /// # Errors
    /// [`ChangeError`]: no such account, an id of another account, or something it refers to is not there or is of another
    /// protocol.
    pub fn set_entity(&mut self, account: i32, mut entity: Entity) -> Result<i32, ChangeError> {
        let elsewhere =
            self.accounts.iter().any(|(n, a)| *n != account && a.entities.contains_key(&entity.id));
        entity.id = self.id_for("entity", entity.id, elsewhere)?;
        if !matches!(entity.details, Json::Object(_)) {
            return Err(ChangeError::DetailsNoObject);
        }
        if let Some(parent) = entity.parent
            && !self.has_entity(parent)
        {
            return Err(ChangeError::Missing { kind: "parent", id: parent });
        }
        for (name, protocol) in &entity.protocols {
            self.check_protocol(account, name, protocol)?;
        }
        let id = entity.id;
        self.account(account)?.entities.insert(id, entity);
        Ok(id)
    }

    fn check_protocol(
        &mut self,
        account: i32,
        name: &str,
        protocol: &EntityProtocol,
    ) -> Result<(), ChangeError> {
        let wrong = |kind, id| ChangeError::WrongProtocol { kind, id, wanted: name.to_owned() };
        let state = self.account(account)?;
        match state.credentials.get(&protocol.credential) {
            None => return Err(ChangeError::Missing { kind: "credential", id: protocol.credential }),
            Some(c) if c.protocol != name => return Err(wrong("credential", c.id)),
            Some(_) => {}
        }
        for (i, EntitySensorId(sensor)) in sensor_ids(protocol).enumerate() {
            match state.sensors.get(&sensor) {
                None => return Err(ChangeError::Missing { kind: "sensor", id: sensor }),
                Some(s) if s.protocol != name => return Err(wrong("sensor", sensor)),
                Some(_) => {}
            }
            if sensor_ids(protocol).take(i).any(|s| s.0 == sensor) {
                return Err(ChangeError::SensorTwice(sensor));
            }
        }
        if let Some(id) = protocol.bot {
            let bot =
                self.bots.iter().find(|b| b.id == id).ok_or(ChangeError::Missing { kind: "bot", id })?;
            if bot.protocol.as_deref() != Some(name) {
                return Err(wrong("bot", id));
            }
            if bot.tied_to_account.is_some_and(|a| a != account) {
                return Err(ChangeError::WrongAccount { bot: id });
            }
        }
        Ok(())
    }

    /// Removes an entity and its children.
    ///
    /// # Errors
    /// [`ChangeError::NoAccount`], [`ChangeError::Missing`].
    pub fn remove_entity(&mut self, account: i32, id: i32) -> Result<(), ChangeError> {
        self.account(account)?.entities.remove(&id).ok_or(ChangeError::Missing { kind: "entity", id })?;
        let children: Vec<(i32, i32)> = self
            .accounts
            .iter()
            .flat_map(|(n, a)| a.entities.values().filter(|e| e.parent == Some(id)).map(|e| (*n, e.id)))
            .collect();
        for (account, child) in children {
            // A cycle of parents may have removed it already.
            match self.remove_entity(account, child) {
                Ok(()) | Err(ChangeError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Adds a bot, or replaces the one with this id. Returns the id. A token and ids of permissions are chosen if missing.
    ///
    /// # Errors
    /// [`ChangeError`]: a negative id, an account that is not there, a token that another bot has.
    pub fn set_bot(&mut self, mut bot: Bot) -> Result<i32, ChangeError> {
        bot.id = self.id_for("bot", bot.id, false)?;
        if let Some(account) = bot.tied_to_account {
            self.account(account)?;
        }
        let old = self.bots.iter().position(|b| b.id == bot.id);
        if bot.token.is_none() {
            bot.token = match old.and_then(|i| self.bots.get(i)).and_then(|b| b.token.clone()) {
                Some(token) => Some(token),
                None => Some(self.new_token()),
            };
        }
        if bot.token.as_ref().and_then(|t| self.bot_of(t)).is_some_and(|b| b.id != bot.id) {
            return Err(ChangeError::TokenTaken);
        }
        let mut permissions =
            bot.permissions.take().unwrap_or_else(|| Bot::usual_permissions(bot.tied_to_account));
        for permission in &mut permissions {
            if permission.id == 0 {
                permission.id = self.new_id();
            }
        }
        bot.permissions = Some(permissions);
        let id = bot.id;
        match old.and_then(|i| self.bots.get_mut(i)) {
            Some(old) => *old = bot,
            None => self.bots.push(bot),
        }
        Ok(id)
    }

    /// Removes a bot; entities that name it then have none.
    ///
    /// # Errors
    /// [`ChangeError::Missing`].
    pub fn remove_bot(&mut self, id: i32) -> Result<(), ChangeError> {
        let at = self.bots.iter().position(|b| b.id == id).ok_or(ChangeError::Missing { kind: "bot", id })?;
        self.bots.remove(at);
        let protocols = self
            .accounts
            .values_mut()
            .flat_map(|a| a.entities.values_mut())
            .flat_map(|e| e.protocols.iter_mut().map(|(_, p)| p));
        for protocol in protocols {
            if protocol.bot == Some(id) {
                protocol.bot = None;
            }
        }
        Ok(())
    }

    /// Serves these bytes for a list, whatever the account holds; none: the account's own again. Single items stay the
    /// account's.
    ///
    /// # Errors
    /// [`ChangeError::NoAccount`].
    pub fn set_raw_list(
        &mut self,
        account: i32,
        list: ListKind,
        body: Option<impl Into<Bytes>>,
    ) -> Result<(), ChangeError> {
        let state = self.account(account)?;
        state.raw_lists.retain(|(kind, _)| *kind != list);
        state.raw_lists.extend(body.map(|b| (list, b.into())));
        Ok(())
    }

    // Looking

    /// The accounts by ascending id.
    pub fn accounts(&self) -> Vec<Account> {
        self.accounts.iter().map(|(id, a)| Account { id: *id, name: a.name.clone() }).collect()
    }

    /// The bots in the order in which they came.
    pub fn bots(&self) -> &[Bot] {
        &self.bots
    }

    /// A bot by its id.
    pub fn bot(&self, id: i32) -> Option<&Bot> {
        self.bots.iter().find(|b| b.id == id)
    }

    /// An entity by its account and id.
    pub fn entity(&self, account: i32, id: i32) -> Option<&Entity> {
        self.accounts.get(&account)?.entities.get(&id)
    }

    /// The entities of an account by ascending id.
    pub fn entities(&self, account: i32) -> Vec<Entity> {
        self.accounts.get(&account).map(|a| a.entities.values().cloned().collect()).unwrap_or_default()
    }

    /// The credentials of an account by ascending id.
    pub fn credentials(&self, account: i32) -> Vec<Credential> {
        self.accounts.get(&account).map(|a| a.credentials.values().cloned().collect()).unwrap_or_default()
    }

    /// The sensors of an account by ascending id.
    pub fn sensors(&self, account: i32) -> Vec<Sensor> {
        self.accounts.get(&account).map(|a| a.sensors.values().cloned().collect()).unwrap_or_default()
    }

    /// All values of an account by path and time.
    ///
    /// # Errors
    /// [`StoreError::Access`].
    pub fn values(&self, account: i32) -> Result<Vec<StoredValue>, StoreError> {
        self.store.all(account)
    }

    /// The values of one path by time: (microseconds, number).
    ///
    /// # Errors
    /// [`StoreError::Access`].
    pub fn values_of(&self, account: i32, path: &str) -> Result<Vec<(i64, f64)>, StoreError> {
        self.store.path(account, path).map_or(Ok(Vec::new()), |id| self.store.read(id, i64::MIN, i64::MAX))
    }

    /// The newest value of a path: (microseconds, number).
    ///
    /// # Errors
    /// [`StoreError::Access`].
    pub fn newest(&self, account: i32, path: &str) -> Result<Option<(i64, f64)>, StoreError> {
        self.store.path(account, path).map_or(Ok(None), |id| self.store.newest(id))
    }

    /// The paths of an account in order, also those that were made by a refused request.
    pub fn paths(&self, account: i32) -> Vec<String> {
        self.store.paths(account)
    }

    /// How many values are stored, of all accounts; free.
    pub const fn value_count(&self) -> u64 {
        self.store.count()
    }

    pub(crate) fn has_entity(&self, id: i32) -> bool {
        self.accounts.values().any(|a| a.entities.contains_key(&id))
    }

    /// A target without secrets: the value of `b` is replaced by the bot's short name in angle brackets (`unknown` if no bot
    /// has it), and so is any token elsewhere in it. The second part is that name.
    pub fn mask(&self, target: &str) -> (String, Option<String>) {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let mut who = None;
        let mut out = path.to_owned();
        if let Some(query) = query {
            out.push('?');
            for (i, part) in query.split('&').enumerate() {
                if i > 0 {
                    out.push('&');
                }
                match part.split_once('=') {
                    Some((key, value)) if percent_decode(key, true) == "b" => {
                        let token = percent_decode(value, true);
                        let bot = Token::new(token.trim()).and_then(|t| self.bot_of(&t));
                        let name = bot.map_or("unknown", |b| &b.short_name);
                        out.push_str(&format!("{key}=<{name}>"));
                        who = Some(name.to_owned());
                    }
                    _ => out.push_str(part),
                }
            }
        }
        if out.len() >= 36 {
            for bot in &self.bots {
                let Some(token) = &bot.token else { continue };
                let name = format!("<{}>", bot.short_name);
                let mut from = 0;
                while let Some(at) = out.get(from..).and_then(|o| o.to_ascii_lowercase().find(token.reveal()))
                {
                    out.replace_range(from + at..from + at + 36, &name);
                    from += at + name.len();
                }
            }
        }
        (out, who)
    }
}

struct EntitySensorId(i32);

fn sensor_ids(protocol: &EntityProtocol) -> impl Iterator<Item = EntitySensorId> + '_ {
    protocol.sensors.iter().map(|s| EntitySensorId(s.sensor))
}

/// Why there is no ordinary answer.
pub(crate) enum Failure {
    Refused(Reply),
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

pub(crate) fn not_found(detail: &str) -> Failure {
    Failure::Refused(Reply::detail(404, detail))
}

/// The 500 of a database that refuses, or of something that was not foreseen.
pub(crate) fn internal() -> Failure {
    Failure::Refused(Reply::internal_error())
}

/// Unix microseconds to whole seconds, as records show times.
pub(crate) const fn whole_s(now_us: i64) -> i64 {
    now_us.div_euclid(1_000_000)
}

/// The last value of a key in a query; none if the key is not there.
pub(crate) fn query_value(query: &str, key: &str) -> Option<String> {
    query
        .split('&')
        .filter_map(|part| part.split_once('='))
        .rfind(|(k, _)| percent_decode(k, true) == key)
        .map(|(_, v)| percent_decode(v, true))
}

pub(crate) fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        let hex = bytes.get(i + 1..i + 3).and_then(|h| core::str::from_utf8(h).ok());
        match (byte, hex.filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()))) {
            (b'%', Some(hex)) => {
                out.push(u8::from_str_radix(hex, 16).unwrap_or(b'%'));
                i += 3;
            }
            (b'+', _) if plus_is_space => {
                out.push(b' ');
                i += 1;
            }
            _ => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
