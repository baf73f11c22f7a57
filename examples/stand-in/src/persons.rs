//! The side of persons: the first start, the login of an administrator, and what that one makes and changes.
//!
//! ```
//! use grafolean_stand_in::{Admin, Backend, Request};
//! let mut backend = Backend::in_memory(1)?;
//! backend.set_admin(Admin::new("some secret"));
//! let mut request = Request::json("POST", "/api/admin/accounts", r#"{"name":"Home"}"#);
//! request.authorization = Some(b"Bearer 1:some secret".to_vec());
//! assert_eq!(backend.answer(&request, 0).status, 201);
//! # Ok::<(), grafolean_stand_in::StoreError>(())
//! ```
//!
//! There is one person, who may do everything. Bots may do of it what their permissions allow, as on the real backend, except
//! giving permissions.

use core::fmt;

use crate::backend::{Backend, ChangeError, Failure, Reply, Request, internal, not_found, whole_s};
use crate::entities::{has_no_number, interval};
use crate::json::{Json, JsonError, write_json_str};
use crate::model::{Account, Bot, Credential, Permission, Sensor, short_name};
use crate::routes::{
    bot_record, could_not_validate, ids, item, not_spoken, permission_list, write_permission,
};
use crate::schema::{Type, check_object, check_type};
use crate::values::query_limit;

/// Seconds for which a login is said to be valid. The stand-in's never end.
const LOGIN_S: i64 = 600;

/// The person who may do everything, with `Authorization: Bearer <any number>:<token>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Admin {
    /// The user id; 0: choose one.
    pub id: i32,
    /// The name.
    pub name: String,
    /// The address for mail.
    pub email: String,
    /// What the person logs in with at `auth/login`, together with the password.
    pub username: String,
    /// The password; nobody can log in with an empty one.
    pub password: String,
    /// What stands after the key id in the `Authorization` header; empty: choose one. `Debug` leaves it and the password out.
    pub token: String,
    /// Id of the permission for everything; 0: choose one.
    pub permission_id: i32,
}

impl Admin {
    /// An administrator with this token and no password.
    pub fn new(token: &str) -> Self {
        Self {
            id: 0,
            name: "Admin".to_owned(),
            email: "admin@example.com".to_owned(),
            username: "admin".to_owned(),
            password: String::new(),
            token: token.to_owned(),
            permission_id: 0,
        }
    }

    fn permission(&self) -> Permission {
        Permission { id: self.permission_id, resource_prefix: None, methods: None }
    }

    fn profile(&self) -> String {
        let mut body = format!(
            "{{\"user_id\":{id},\"user_type\":\"person\",\"record\":{{\"user_id\":{id}",
            id = self.id
        );
        for (key, value) in [("name", &self.name), ("email", &self.email), ("username", &self.username)] {
            body.push_str(&format!(",\"{key}\":"));
            write_json_str(value, &mut body);
        }
        body.push_str(",\"timezone\":\"UTC\",\"email_confirmed\":true}}");
        body
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// How far a backend has got; bots wait for [`Readiness::Ready`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Readiness {
    /// The database has no tables yet; `POST admin/migratedb` makes them. Nobody can log in.
    MigrationNeeded,
    /// There is no person yet; `POST admin/first` makes one.
    NoPerson,
    /// In use.
    #[default]
    Ready,
}

/// What every new account holds from the start.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NewAccount {
    /// Credentials; their ids are not looked at.
    pub credentials: Vec<Credential>,
    /// Sensors; their ids are not looked at.
    pub sensors: Vec<Sensor>,
}

/// What a backend knows besides accounts, bots and values.
#[derive(Default)]
pub(crate) struct House {
    pub(crate) admin: Option<Admin>,
    readiness: Readiness,
    database_stopped: bool,
    new_account: NewAccount,
    mqtt: Option<(String, String)>,
}

/// Who asks.
pub(crate) enum Caller {
    Bot(Bot),
    Admin(Admin, [Permission; 1]),
}

impl Caller {
    pub(crate) fn permissions(&self) -> &[Permission] {
        match self {
            Self::Bot(bot) => bot.permissions.as_deref().unwrap_or_default(),
            Self::Admin(_, permissions) => permissions,
        }
    }

    pub(crate) fn profile(&self) -> Result<String, Failure> {
        match self {
            Self::Bot(bot) => {
                let mut body = format!("{{\"user_id\":{},\"user_type\":\"bot\",\"record\":", bot.id);
                bot_record(bot, &mut body).map_err(|_| internal())?;
                body.push('}');
                Ok(body)
            }
            Self::Admin(admin, _) => Ok(admin.profile()),
        }
    }
}

impl Backend {
    /// The person who may do everything; replaces the one before. Without it, nobody can log in with an `Authorization` header.
    pub fn set_admin(&mut self, mut admin: Admin) {
        if admin.id <= 0 {
            admin.id = self.new_id();
        }
        if admin.permission_id <= 0 {
            admin.permission_id = self.new_id();
        }
        if admin.token.is_empty() {
            admin.token = self.new_token().reveal().to_owned();
        }
        self.house.admin = Some(admin);
    }

    /// The person who may do everything, if there is one.
    pub const fn admin(&self) -> Option<&Admin> {
        self.house.admin.as_ref()
    }

    /// How far the backend has got. It begins with [`Readiness::Ready`].
    pub const fn set_readiness(&mut self, readiness: Readiness) {
        self.house.readiness = readiness;
    }

    /// Answers as the real one does while its database is down; nothing is lost meanwhile.
    pub const fn stop_database(&mut self, stopped: bool) {
        self.house.database_stopped = stopped;
    }

    /// What accounts hold from the start that are made by `POST admin/accounts`; nothing unless it is set.
    pub fn set_new_account(&mut self, content: NewAccount) {
        self.house.new_account = content;
    }

    /// What the status page says of the websocket of the MQTT broker. The stand-in has none.
    pub fn announce_mqtt(&mut self, hostname: &str, port: &str) {
        self.house.mqtt = Some((hostname.to_owned(), port.to_owned()));
    }

    /// Whether logins can be looked up.
    pub(crate) fn has_tables(&self) -> bool {
        !self.house.database_stopped && self.house.readiness != Readiness::MigrationNeeded
    }

    /// The pages that are open to everybody.
    pub(crate) fn without_login(
        &mut self,
        path: &str,
        request: &Request,
        now_us: i64,
    ) -> Option<Result<Reply, Failure>> {
        match (path, request.method.as_str()) {
            ("/api/status/info", "GET") => Some(self.status_info()),
            ("/api/status/info", _) => Some(Ok(Reply::detail(405, "Method Not Allowed"))),
            ("/api/admin/migratedb" | "/api/admin/first" | "/api/auth/login", "POST")
                if self.house.database_stopped =>
            {
                Some(Err(internal()))
            }
            ("/api/admin/migratedb", "POST") => {
                if self.house.readiness == Readiness::MigrationNeeded {
                    self.house.readiness = Readiness::NoPerson;
                }
                Some(Ok(Reply::no_content()))
            }
            ("/api/admin/first", "POST") => Some(self.first_admin(request)),
            ("/api/auth/login", "POST") => Some(self.post_login(request)),
            ("/api/auth/refresh", "POST") => Some(self.refresh_login(request, now_us)),
            _ => None,
        }
    }

    fn status_info(&self) -> Result<Reply, Failure> {
        if self.house.database_stopped {
            return Err(internal());
        }
        let (needed, version, user) = match self.house.readiness {
            Readiness::MigrationNeeded => (true, 0, "null"),
            Readiness::NoPerson => (false, 30, "false"),
            Readiness::Ready => (false, 30, "true"),
        };
        let (hostname, port) = match &self.house.mqtt {
            Some((hostname, port)) => (hostname.as_str(), port.as_str()),
            None => ("127.0.0.1", ""),
        };
        let mut body = format!(
            "{{\"alive\":true,\"db_migration_needed\":{needed},\"db_version\":{version},\"user_exists\":{user},\
             \"cors_domains\":[],\"mqtt_ws_hostname\":"
        );
        write_json_str(hostname, &mut body);
        body.push_str(",\"mqtt_ws_port\":");
        write_json_str(port, &mut body);
        body.push_str(",\"enable_signup\":false}");
        let mut reply = Reply::json(200, body);
        reply.headers.push(("access-control-allow-origin", "*".to_owned()));
        Ok(reply)
    }

    fn first_admin(&mut self, request: &Request) -> Result<Reply, Failure> {
        match self.house.readiness {
            Readiness::MigrationNeeded => return Err(internal()),
            Readiness::Ready => return Ok(Reply::detail(401, "System already initialized")),
            Readiness::NoPerson => {}
        }
        let body = read(request)?;
        let text: &[Type] = &[Type::String];
        let known = [("username", text), ("password", text), ("name", text), ("email", text)];
        check_object(&body, &known, &["username", "password", "name", "email"])
            .map_err(|why| invalid(request, &why))?;
        let text = |key| text_of(&body, key);
        let admin = Admin {
            id: 0,
            name: text("name")?,
            email: text("email")?,
            username: text("username")?,
            password: text("password")?,
            // Who configured a token goes on with it.
            token: self.house.admin.as_ref().map(|a| a.token.clone()).unwrap_or_default(),
            permission_id: 0,
        };
        self.set_admin(admin);
        self.house.readiness = Readiness::Ready;
        Ok(created(self.house.admin.as_ref().map_or(0, |a| a.id)))
    }

    fn post_login(&mut self, request: &Request) -> Result<Reply, Failure> {
        let body = read(request)?;
        let text: &[Type] = &[Type::String];
        check_object(&body, &[("username", text), ("password", text)], &["username", "password"])
            .map_err(|why| invalid(request, &why))?;
        let (username, password) = (text_of(&body, "username")?, text_of(&body, "password")?);
        let known = self.house.admin.as_ref().filter(|a| {
            self.has_tables() && !password.is_empty() && a.username == username && a.password == password
        });
        match known.cloned() {
            Some(admin) => Ok(self.logged_in(&admin, None)),
            None => Ok(Reply::detail(401, "Invalid credentials")),
        }
    }

    fn refresh_login(&mut self, request: &Request, now_us: i64) -> Result<Reply, Failure> {
        let denied = || Failure::Refused(Reply::bare_text(401, "Access denied"));
        match self.log_in_person(request.authorization.as_deref().ok_or_else(denied)?)? {
            Caller::Admin(admin, _) => {
                Ok(self.logged_in(&admin, Some(whole_s(now_us).saturating_add(LOGIN_S))))
            }
            Caller::Bot(_) => Err(denied()),
        }
    }

    fn logged_in(&mut self, admin: &Admin, expires_s: Option<i64>) -> Reply {
        let mut body = format!("{{\"user_id\":{},\"session_id\":\"", admin.id);
        for _ in 0..4 {
            body.push_str(&format!("{:016x}", self.random()));
        }
        // The list is an object of its own elsewhere; here its items come without the wrapping.
        body.push_str(&format!("\",\"permissions\":[{{\"id\":{},", admin.permission_id));
        write_permission(&admin.permission(), &mut body);
        body.push_str("}]");
        if let Some(expires_s) = expires_s {
            body.push_str(&format!(",\"exp\":{expires_s}"));
        }
        body.push('}');
        let mut reply = Reply::json(200, body);
        reply.headers.push(("x-jwt-token", format!("Bearer 1:{}", admin.token)));
        reply
    }

    /// Logs in by the header of persons.
    pub(crate) fn log_in_person(&self, authorization: &[u8]) -> Result<Caller, Failure> {
        let denied = || Failure::Refused(Reply::bare_text(401, "Access denied"));
        let bearer = authorization.strip_prefix(b"Bearer ").unwrap_or_default();
        let mut parts = bearer.splitn(2, |b| *b == b':');
        let key = parts.next().unwrap_or_default();
        let token = parts.next().ok_or_else(denied)?;
        if key.is_empty() || !key.iter().all(u8::is_ascii_digit) || !self.has_tables() {
            return Err(could_not_validate());
        }
        let admin = self.house.admin.as_ref().filter(|a| !a.token.is_empty() && a.token.as_bytes() == token);
        admin.map(|a| Caller::Admin(a.clone(), [a.permission()])).ok_or_else(denied)
    }

    // Accounts

    pub(crate) fn post_account(&mut self, request: &Request) -> Result<Reply, Failure> {
        let name = name_only(request)?;
        let id = self.set_account(Account { id: 0, name: name.clone() }).map_err(change)?;
        let content = self.house.new_account.clone();
        for credential in content.credentials {
            self.set_credential(id, Credential { id: 0, ..credential }).map_err(change)?;
        }
        for sensor in content.sensors {
            self.set_sensor(id, Sensor { id: 0, ..sensor }).map_err(change)?;
        }
        let mut body = String::from("{\"name\":");
        write_json_str(&name, &mut body);
        body.push_str(&format!(",\"id\":{id}}}"));
        Ok(Reply::json(201, body))
    }

    pub(crate) fn put_account(&mut self, id: i32, request: &Request) -> Result<Reply, Failure> {
        let name = name_only(request)?;
        if !self.accounts.contains_key(&id) {
            return Err(not_found("No such account"));
        }
        self.set_account(Account { id, name }).map_err(change)?;
        Ok(Reply::no_content())
    }

    // Credentials and sensors

    pub(crate) fn post_credential(&mut self, account: i32, request: &Request) -> Result<Reply, Failure> {
        let credential = credential(request)?;
        self.set_credential(account, credential).map(created).map_err(change)
    }

    pub(crate) fn put_credential(
        &mut self,
        account: i32,
        id: i32,
        request: &Request,
    ) -> Result<Reply, Failure> {
        let credential = credential(request)?;
        if !self.accounts.get(&account).is_some_and(|a| a.credentials.contains_key(&id)) {
            return Err(not_found("No such credential"));
        }
        self.set_credential(account, Credential { id, ..credential }).map_err(change)?;
        Ok(Reply::no_content())
    }

    pub(crate) fn post_sensor(&mut self, account: i32, request: &Request) -> Result<Reply, Failure> {
        let sensor = sensor(request)?;
        self.set_sensor(account, sensor).map(created).map_err(change)
    }

    pub(crate) fn put_sensor(&mut self, account: i32, id: i32, request: &Request) -> Result<Reply, Failure> {
        let sensor = sensor(request)?;
        if !self.accounts.get(&account).is_some_and(|a| a.sensors.contains_key(&id)) {
            return Err(not_found("No such sensor"));
        }
        self.set_sensor(account, Sensor { id, ..sensor }).map_err(change)?;
        Ok(Reply::no_content())
    }

    // Bots and their permissions

    /// What stands below `bots` or `accounts/N/bots`.
    pub(crate) fn bots_resource(
        &mut self,
        account: Option<i32>,
        rest: &[&str],
        request: &Request,
        caller: &Caller,
        now_us: i64,
    ) -> Result<Reply, Failure> {
        let method = request.method.as_str();
        let Some((bot, rest)) = rest.split_first() else {
            return self.post_bot(account, request, now_us);
        };
        let [id] = ids([("bot_id", bot)])?;
        let no_bot = || not_found("No such bot");
        let bot =
            self.bots.iter_mut().find(|b| b.id == id && b.tied_to_account == account).ok_or_else(no_bot)?;
        match (rest, method) {
            ([], "PUT") => {
                let wanted = bot_data(request)?;
                (bot.name, bot.protocol, bot.config) = (wanted.name, wanted.protocol, wanted.config);
                Ok(Reply::no_content())
            }
            ([], "DELETE") => self.remove_bot(id).map(|()| Reply::no_content()).map_err(|_| no_bot()),
            (["token"], "GET") => {
                let token = bot.token.as_ref().ok_or_else(no_bot)?;
                Ok(Reply::json(200, format!("{{\"token\":\"{}\"}}", token.reveal())))
            }
            (["permissions"], "GET") => {
                Ok(Reply::json(200, permission_list(bot.permissions.as_deref().unwrap_or_default())))
            }
            (["permissions"], "POST") if matches!(caller, Caller::Admin(..)) => {
                let mut permission = permission(request)?;
                permission.id = self.new_id();
                let mut body = format!("{{\"user_id\":{id},");
                write_permission(&permission, &mut body);
                body.push_str(&format!(",\"id\":{}}}", permission.id));
                if let Some(bot) = self.bots.iter_mut().find(|b| b.id == id) {
                    bot.permissions.get_or_insert_default().push(permission);
                }
                Ok(Reply::json(201, body))
            }
            (["permissions", permission], "DELETE") => {
                let [permission] = ids([("permission_id", permission)])?;
                let known = bot.permissions.get_or_insert_default();
                let before = known.len();
                known.retain(|p| p.id != permission);
                if known.len() < before {
                    Ok(Reply::no_content())
                } else {
                    Err(not_found("No such permission"))
                }
            }
            _ => Ok(not_spoken(request)),
        }
    }

    fn post_bot(&mut self, account: Option<i32>, request: &Request, now_us: i64) -> Result<Reply, Failure> {
        let wanted = bot_data(request)?;
        let bot = Bot {
            id: 0,
            short_name: short_name(&wanted.name),
            name: wanted.name,
            token: None,
            protocol: wanted.protocol,
            tied_to_account: account,
            config: wanted.config,
            permissions: Some(Vec::new()),
            insert_time_s: whole_s(now_us),
            last_login_s: None,
        };
        let id = self.set_bot(bot).map_err(change)?;
        let bot = self.bot(id).ok_or_else(internal)?;
        let reply = item(|out| bot_record(bot, out))?;
        Ok(Reply { status: 201, ..reply })
    }

    // Values

    pub(crate) fn post_getvalues(&self, account: i32, request: &Request) -> Result<Reply, Failure> {
        let body = read(request)?;
        let Json::Object(entries) = &body else { return Err(internal()) };
        if entries.iter().any(|(key, _)| !["p", "t0", "t1"].contains(&key.as_str())) {
            return Ok(not_spoken(request));
        }
        let Some(Json::Str(paths)) = body.get("p") else { return Err(internal()) };
        let limit = |key| match body.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(value) => query_limit(&value.python_str()).map(Some),
        };
        let paths: Vec<&str> = paths.split(',').collect();
        self.read_values(account, &paths, limit("t0")?, limit("t1")?)
    }
}

fn created(id: i32) -> Reply {
    Reply::json(201, format!("{{\"id\":{id}}}"))
}

/// What the database refuses is a 500, whatever it is.
fn change(_: ChangeError) -> Failure {
    internal()
}

fn invalid(request: &Request, why: &str) -> Failure {
    Failure::Refused(Reply::invalid(request, why))
}

fn read(request: &Request) -> Result<Json, Failure> {
    Json::from_bytes(&request.body).map_err(|_| internal())
}

/// A text that the database can keep.
fn text_of(body: &Json, key: &str) -> Result<String, Failure> {
    match body.get(key) {
        Some(Json::Str(text)) if !text.contains('\0') => Ok(text.clone()),
        _ => Err(internal()),
    }
}

fn details_of(body: &Json) -> Result<Json, Failure> {
    body.get("details").filter(|d| !has_no_number(d)).cloned().ok_or_else(internal)
}

fn name_only(request: &Request) -> Result<String, Failure> {
    let body = read(request)?;
    check_object(&body, &[("name", &[Type::String])], &["name"]).map_err(|why| invalid(request, &why))?;
    text_of(&body, "name")
}

fn credential(request: &Request) -> Result<Credential, Failure> {
    let body = read(request)?;
    let known: [(&str, &[Type]); 3] =
        [("name", &[Type::String]), ("protocol", &[Type::String]), ("details", &[Type::Object])];
    check_object(&body, &known, &["name", "protocol", "details"]).map_err(|why| invalid(request, &why))?;
    let (name, protocol) = (text_of(&body, "name")?, text_of(&body, "protocol")?);
    Ok(Credential { id: 0, name, protocol, details: details_of(&body)? })
}

fn sensor(request: &Request) -> Result<Sensor, Failure> {
    let body = read(request)?;
    let known: [(&str, &[Type]); 4] = [
        ("name", &[Type::String]),
        ("protocol", &[Type::String]),
        ("default_interval", &[Type::Number, Type::Null]),
        ("details", &[Type::Object]),
    ];
    check_object(&body, &known, &["name", "protocol", "default_interval", "details"])
        .map_err(|why| invalid(request, &why))?;
    Ok(Sensor {
        id: 0,
        name: text_of(&body, "name")?,
        protocol: text_of(&body, "protocol")?,
        default_interval: body.get("default_interval").and_then(interval).ok_or_else(internal)?,
        details: details_of(&body)?,
    })
}

struct BotData {
    name: String,
    protocol: Option<String>,
    config: Json,
}

/// The configuration travels as a text that holds JSON.
fn bot_data(request: &Request) -> Result<BotData, Failure> {
    let body = read(request)?;
    let optional: &[Type] = &[Type::String, Type::Null];
    let known = [("name", &[Type::String][..]), ("protocol", optional), ("config", optional)];
    check_object(&body, &known, &["name"]).map_err(|why| invalid(request, &why))?;
    let protocol = match body.get("protocol") {
        None | Some(Json::Null) => None,
        Some(_) => Some(text_of(&body, "protocol")?),
    };
    let config = match body.get("config") {
        None | Some(Json::Null) => Json::Null,
        Some(_) => text_of(&body, "config")?.parse().map_err(|_: JsonError| internal())?,
    };
    if has_no_number(&config) {
        return Err(internal());
    }
    Ok(BotData { name: text_of(&body, "name")?, protocol, config })
}

fn permission(request: &Request) -> Result<Permission, Failure> {
    let body = read(request)?;
    let known: [(&str, &[Type]); 2] =
        [("resource_prefix", &[Type::String, Type::Null]), ("methods", &[Type::List, Type::Null])];
    check_object(&body, &known, &["resource_prefix", "methods"]).map_err(|why| invalid(request, &why))?;
    let resource_prefix = match body.get("resource_prefix") {
        Some(Json::Str(_)) => Some(text_of(&body, "resource_prefix")?),
        _ => None,
    };
    let methods = match body.get("methods") {
        Some(Json::List(methods)) => {
            let mut names = Vec::with_capacity(methods.len());
            for method in methods {
                check_type(method, &[Type::String]).map_err(|why| invalid(request, &why))?;
                match method {
                    Json::Str(name) if ["GET", "POST", "PUT", "DELETE"].contains(&name.as_str()) => {
                        names.push(name.clone());
                    }
                    _ => return Err(internal()),
                }
            }
            Some(names)
        }
        _ => None,
    };
    Ok(Permission { id: 0, resource_prefix, methods })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Token;

    const ADMIN: &str = "of-the-administrator";
    const PING: &str = "3bfae491-8c49-42ca-8332-0ae431d59014";

    fn backend() -> Backend {
        let mut backend = Backend::in_memory(1).unwrap();
        backend.set_admin(Admin::new(ADMIN));
        backend.set_account(Account { id: 1, name: "Home".to_owned() }).unwrap();
        backend.set_bot(Bot::systemwide(2, "Ping", "ping").token(Token::new(PING).unwrap())).unwrap();
        backend
    }

    fn as_admin(backend: &mut Backend, method: &str, target: &str, body: &str) -> Reply {
        let mut request = Request::json(method, target, body.to_owned());
        request.authorization = Some(format!("Bearer 1:{ADMIN}").into_bytes());
        backend.answer(&request, 1_000_000)
    }

    fn as_bot(backend: &mut Backend, method: &str, target: &str, body: &str) -> Reply {
        backend.answer(&Request::json(method, &format!("{target}?b={PING}"), body.to_owned()), 1_000_000)
    }

    #[test]
    fn an_authorization_header_without_an_administrator_lets_nobody_in() {
        let mut backend = Backend::in_memory(1).unwrap();
        for value in ["Bearer 1:", "Bearer 1:x", "Bearer 1", "Basic dTpw", ""] {
            let mut request = Request::get("/api/profile");
            request.authorization = Some(value.as_bytes().to_vec());
            assert_eq!(backend.answer(&request, 0).status, 401, "{value}");
        }
    }

    #[test]
    fn a_wrong_token_and_one_without_key_id_let_nobody_in() {
        let mut backend = backend();
        for (value, status) in [
            (format!("Bearer 1:{ADMIN}x"), 401),
            (format!("Bearer {ADMIN}"), 401),
            (format!("Token 1:{ADMIN}"), 401),
            (format!("Bearer :{ADMIN}"), 500),
            (format!("Bearer x:{ADMIN}"), 500),
            (format!("Bearer 99:{ADMIN}"), 200),
        ] {
            let mut request = Request::get("/api/profile");
            request.authorization = Some(value.into_bytes());
            assert_eq!(backend.answer(&request, 0).status, status);
        }
    }

    #[test]
    fn nobody_can_log_in_with_an_empty_password() {
        let login = r#"{"username":"admin","password":""}"#;
        let reply = backend().answer(&Request::json("POST", "/api/auth/login", login), 0);
        assert_eq!((reply.status, reply.text().as_str()), (401, "{\"detail\":\"Invalid credentials\"}"));
    }

    #[test]
    fn debug_shows_no_secrets_of_the_administrator() {
        let admin = Admin { password: "hidden-too".to_owned(), ..Admin::new(ADMIN) };
        let shown = format!("{admin:?}");
        assert!(!shown.contains(ADMIN) && !shown.contains("hidden-too"), "{shown}");
    }

    #[test]
    fn a_systemwide_bot_makes_sensors_but_gives_no_permissions() {
        let mut backend = backend();
        let sensor = r#"{"name":"s","protocol":"ping","default_interval":2.5,"details":{}}"#;
        assert_eq!(as_bot(&mut backend, "POST", "/api/accounts/1/sensors", sensor).status, 201);
        assert_eq!(backend.sensors(1)[0].default_interval, Some(3));
        let bot = as_bot(&mut backend, "POST", "/api/accounts/1/bots", r#"{"name":"n","protocol":null}"#);
        assert_eq!(bot.status, 201);
        let id = backend.bots().last().unwrap().id;
        let permission = r#"{"resource_prefix":null,"methods":null}"#;
        let target = format!("/api/accounts/1/bots/{id}/permissions");
        assert_eq!(as_bot(&mut backend, "POST", &target, permission).status, 501);
        assert_eq!(as_admin(&mut backend, "POST", &target, permission).status, 201);
        assert_eq!(backend.bot(id).unwrap().permissions.as_ref().map(Vec::len), Some(1));
    }

    #[test]
    fn what_is_made_can_be_changed_and_deleted_once() {
        let mut backend = backend();
        for (kind, body) in [
            ("accounts/1/credentials", r#"{"name":"a","protocol":"ping","details":{}}"#),
            ("accounts/1/sensors", r#"{"name":"a","protocol":"ping","default_interval":null,"details":{}}"#),
            ("accounts/1/bots", r#"{"name":"a","protocol":"ping"}"#),
            ("bots", r#"{"name":"a","protocol":"ping"}"#),
        ] {
            let target = format!("/api/{kind}");
            let made = as_admin(&mut backend, "POST", &target, body);
            assert_eq!(made.status, 201, "{kind}: {}", made.text());
            let Some(Json::Int(id)) = made.text().parse::<Json>().unwrap().get("id").cloned() else {
                panic!("{kind}: no id in {}", made.text());
            };
            let one = format!("{target}/{id}");
            let renamed = body.replace("\"a\"", "\"b\"");
            assert_eq!(as_admin(&mut backend, "PUT", &one, &renamed).status, 204, "{kind}");
            let list = as_admin(&mut backend, "GET", &target, "");
            assert!(list.text().contains("\"name\":\"b\""), "{kind}: {}", list.text());
            assert_eq!(as_admin(&mut backend, "DELETE", &one, "").status, 204, "{kind}");
            for method in ["PUT", "DELETE"] {
                assert_eq!(as_admin(&mut backend, method, &one, body).status, 404, "{kind}");
            }
        }
    }

    #[test]
    fn a_permission_can_be_taken_back() {
        let mut backend = backend();
        let permission = backend.bot(2).unwrap().permissions.as_ref().unwrap()[0].id;
        let one = format!("/api/bots/2/permissions/{permission}");
        assert_eq!(as_bot(&mut backend, "GET", "/api/accounts/1", "").status, 200);
        assert_eq!(as_admin(&mut backend, "DELETE", &one, "").status, 204);
        assert_eq!(as_bot(&mut backend, "GET", "/api/accounts/1", "").status, 403);
        assert_eq!(as_admin(&mut backend, "DELETE", &one, "").status, 404);
    }

    #[test]
    fn a_bot_belongs_to_its_account_only() {
        let mut backend = backend();
        assert_eq!(as_admin(&mut backend, "GET", "/api/accounts/1/bots/2/token", "").status, 404);
        assert_eq!(
            as_admin(&mut backend, "GET", "/api/bots/2/token", "").text(),
            format!("{{\"token\":\"{PING}\"}}")
        );
    }

    #[test]
    fn nothing_but_the_status_page_works_before_the_migration() {
        let mut backend = backend();
        backend.set_readiness(Readiness::MigrationNeeded);
        assert_eq!(as_bot(&mut backend, "GET", "/api/accounts/1/entities", "").status, 500);
        assert_eq!(as_admin(&mut backend, "GET", "/api/profile", "").status, 500);
        let first = r#"{"username":"a","password":"p","name":"n","email":"e"}"#;
        assert_eq!(backend.answer(&Request::json("POST", "/api/admin/first", first), 0).status, 500);
        assert!(backend.answer(&Request::get("/api/status/info"), 0).text().contains("\"user_exists\":null"));
    }

    #[test]
    fn planned_ids_that_are_taken_are_passed_over() {
        let mut backend = backend();
        backend.plan([1, 2, -3, 0, 77], [Token::new(PING).unwrap()]);
        let made = as_admin(&mut backend, "POST", "/api/bots", r#"{"name":"a","protocol":null}"#);
        assert!(made.text().starts_with("{\"id\":77,"), "{}", made.text());
        let token = as_admin(&mut backend, "GET", "/api/bots/77/token", "").text();
        assert!(!token.contains(PING), "{token}");
    }
}
