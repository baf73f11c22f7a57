//! Which answer a request gets: the pages that need no login, then login, permissions and the resource, in this order.
//!
//! Everything is one `match` over method and path; what a resource does stands beside what it is about.

use crate::backend::{
    Backend, Failure, ListKind, Reply, ReplyBody, Request, internal, not_found, percent_decode, query_value,
    whole_s,
};
use crate::json::{JsonError, write_json_str};
use crate::model::{Bot, Permission, Token, is_uuid, write_optional};
use crate::persons::Caller;

impl Backend {
    /// Answers a request at a Unix time in microseconds.
    pub fn answer(&mut self, request: &Request, now_us: i64) -> Reply {
        let result = self.route(request, now_us);
        match result {
            Ok(reply) => reply,
            Err(Failure::Refused(reply)) => reply,
            Err(Failure::Store(error)) => {
                tracing::error!(%error, "the stand-in itself failed");
                Reply::internal_error()
            }
        }
    }

    fn route(&mut self, request: &Request, now_us: i64) -> Result<Reply, Failure> {
        if request.method == "OPTIONS"
            && request.origin.is_some()
            && request.access_control_request_method.is_some()
        {
            return Ok(preflight_refused());
        }
        let path = percent_decode(request.path(), false);
        if !request.absolute_form
            && let Some(reply) = self.without_login(&path, request, now_us)
        {
            return reply;
        }
        let caller = self.log_in(request, now_us)?;

        // Permissions come before routing: what a bot may not see is 403 whether or not it is there.
        let method = match request.method.to_ascii_uppercase().as_str() {
            "GET" | "HEAD" => "GET",
            "POST" => "POST",
            "PUT" => "PUT",
            "DELETE" => "DELETE",
            _ => return Err(could_not_validate()),
        };
        let resource = match path.strip_prefix("/api/") {
            Some(rest) if !request.absolute_form => rest.trim_end_matches('/'),
            _ => return Err(forbidden()),
        };
        let open =
            method == "GET" && matches!(resource, "profile" | "profile/permissions" | "accounts" | "bots");
        let permissions = caller.permissions();
        if !open && !permissions.iter().any(|p| p.allows(method, resource)) {
            return Err(forbidden());
        }
        if path.ends_with("//") {
            return Ok(redirect(request));
        }

        let labels: Vec<&str> = path.strip_prefix("/api/").unwrap_or("").split('/').collect();
        // One slash at the end is optional.
        let labels = match labels.split_last() {
            Some((&"", rest)) => rest,
            _ => &labels,
        };
        // HEAD and lower-case methods pass the permissions and fail here.
        let method = request.method.as_str();
        match (labels, method) {
            (["profile"], "GET") => Ok(Reply::json(200, caller.profile()?)),
            (["profile", "permissions"], "GET") => Ok(Reply::json(200, permission_list(permissions))),
            (["accounts"], "GET") => Ok(self.account_list(permissions)),
            (["bots"], "GET") => Ok(self.bot_list(None)),
            (["admin", "accounts"], "POST") => self.post_account(request),
            (["accounts", account], "GET") => {
                let [id] = ids([("account_id", account)])?;
                let account = self.accounts.get(&id).ok_or_else(|| not_found("No such account"))?;
                let mut body = format!("{{\"id\":{id},\"name\":");
                write_json_str(&account.name, &mut body);
                body.push('}');
                Ok(Reply::json(200, body))
            }
            (["accounts", account], "PUT") => {
                let [id] = ids([("account_id", account)])?;
                self.put_account(id, request)
            }
            (["accounts", account, "entities"], "GET") => {
                let [account] = ids([("account_id", account)])?;
                self.list(account, ListKind::Entities)
            }
            (["accounts", account, "credentials"], "GET") => {
                let [account] = ids([("account_id", account)])?;
                self.list(account, ListKind::Credentials)
            }
            (["accounts", account, "sensors"], "GET") => {
                let [account] = ids([("account_id", account)])?;
                self.list(account, ListKind::Sensors)
            }
            (["accounts", account, "entities"], "POST") => {
                let [account] = ids([("account_id", account)])?;
                self.post_entity(account, request)
            }
            (["accounts", account, "entities", entity], _) if ["GET", "PUT", "DELETE"].contains(&method) => {
                let [account, id] = ids([("account_id", account), ("entity_id", entity)])?;
                let known = self.accounts.get(&account).and_then(|a| a.entities.get(&id));
                match (known, method) {
                    (_, "PUT") => self.put_entity(account, id, request),
                    (None, _) => Err(not_found("No such entity")),
                    (Some(entity), "GET") => item(|out| entity.write(out)),
                    (Some(_), _) => {
                        self.remove_entity(account, id).map_err(|_| not_found("No such entity"))?;
                        Ok(Reply::no_content())
                    }
                }
            }
            (["accounts", account, "credentials"], "POST") => {
                let [account] = ids([("account_id", account)])?;
                self.post_credential(account, request)
            }
            (["accounts", account, "credentials", credential], _)
                if ["GET", "PUT", "DELETE"].contains(&method) =>
            {
                let [account, id] = ids([("account_id", account), ("credential_id", credential)])?;
                let known = self.accounts.get(&account).and_then(|a| a.credentials.get(&id));
                match (known, method) {
                    (_, "PUT") => self.put_credential(account, id, request),
                    (None, _) => Err(not_found("No such credential")),
                    (Some(credential), "GET") => item(|out| credential.write(out)),
                    (Some(_), _) => {
                        self.remove_credential(account, id).map_err(|_| not_found("No such credential"))?;
                        Ok(Reply::no_content())
                    }
                }
            }
            (["accounts", account, "sensors"], "POST") => {
                let [account] = ids([("account_id", account)])?;
                self.post_sensor(account, request)
            }
            (["accounts", account, "sensors", sensor], _) if ["GET", "PUT", "DELETE"].contains(&method) => {
                let [account, id] = ids([("account_id", account), ("sensor_id", sensor)])?;
                let known = self.accounts.get(&account).and_then(|a| a.sensors.get(&id));
                match (known, method) {
                    (_, "PUT") => self.put_sensor(account, id, request),
                    (None, _) => Err(not_found("No such sensor")),
                    (Some(sensor), "GET") => item(|out| sensor.write(out)),
                    (Some(_), _) => {
                        self.remove_sensor(account, id).map_err(|_| not_found("No such sensor"))?;
                        Ok(Reply::no_content())
                    }
                }
            }
            (["accounts", account, "bots"], "GET") => {
                let [account] = ids([("account_id", account)])?;
                Ok(self.bot_list(Some(account)))
            }
            (["bots", rest @ ..], _) if speaks_of_bots(rest, method) => {
                self.bots_resource(None, rest, request, &caller, now_us)
            }
            (["accounts", account, "bots", rest @ ..], _) if speaks_of_bots(rest, method) => {
                let [account] = ids([("account_id", account)])?;
                self.bots_resource(Some(account), rest, request, &caller, now_us)
            }
            (["accounts", account, "values"], "POST") => {
                let [account] = ids([("account_id", account)])?;
                self.post_values(account, request, request.query(), now_us)
            }
            (["accounts", account, "values"], "PUT") => {
                let [account] = ids([("account_id", account)])?;
                self.put_values(account, request)
            }
            (["accounts", account, "values", path], "GET") => {
                let [account] = ids([("account_id", account)])?;
                self.get_values(account, path, request.query())
            }
            (["accounts", account, "getvalues"], "POST") => {
                let [account] = ids([("account_id", account)])?;
                self.post_getvalues(account, request)
            }
            // The real backend does something here which is no business of bots.
            (["accounts", _, "bots" | "paths" | "getvalues" | "dashboards", ..], _)
            | (["accounts", _] | ["profile"], "PUT" | "POST" | "DELETE")
            | (["admin" | "auth" | "persons", ..], _)
            | (["bots", _, ..], _) => Ok(not_spoken(request)),
            (
                ["profile"]
                | ["profile", "permissions"]
                | ["accounts"]
                | ["bots"]
                | ["accounts", _]
                | ["accounts", _, "entities" | "credentials" | "sensors" | "values"]
                | ["accounts", _, "entities" | "credentials" | "sensors" | "values", _],
                _,
            ) => Ok(method_not_allowed()),
            _ => Err(not_found("Not Found")),
        }
    }

    /// Who asks; notes the time of a bot's login at most every ten seconds.
    fn log_in(&mut self, request: &Request, now_us: i64) -> Result<Caller, Failure> {
        let denied = || Failure::Refused(Reply::bare_text(401, "Access denied"));
        if let Some(authorization) = &request.authorization {
            // Whatever the header says, the query is then not looked at.
            return self.log_in_person(authorization);
        }
        let token = query_value(request.query(), "b").ok_or_else(denied)?;
        if let Some(token) = token.strip_suffix('\n')
            && is_uuid(token)
        {
            return Err(could_not_validate());
        }
        let token = Token::new(&token).ok_or_else(denied)?;
        if !self.has_tables() {
            return Err(could_not_validate());
        }
        let bot = self.bots.iter_mut().find(|b| b.token.as_ref() == Some(&token)).ok_or_else(denied)?;
        let now_s = whole_s(now_us);
        if bot.last_login_s.is_none_or(|last| now_s - last >= 10) {
            bot.last_login_s = Some(now_s);
        }
        Ok(Caller::Bot(bot.clone()))
    }

    fn account_list(&self, permissions: &[Permission]) -> Reply {
        let mut visible: Vec<(&str, i32)> = self
            .accounts
            .iter()
            .filter(|(id, _)| permissions.iter().any(|p| p.names_account(**id)))
            .map(|(id, a)| (a.name.as_str(), *id))
            .collect();
        visible.sort_unstable();
        let mut body = String::from("{\"list\":[");
        for (i, (name, id)) in visible.into_iter().enumerate() {
            if i > 0 {
                body.push(',');
            }
            body.push_str(&format!("{{\"id\":{id},\"name\":"));
            write_json_str(name, &mut body);
            body.push('}');
        }
        body.push_str("]}");
        Reply::json(200, body)
    }

    /// The newest bot comes first.
    fn bot_list(&self, account: Option<i32>) -> Reply {
        let mut body = String::from("{\"list\":[");
        for (i, bot) in self.bots.iter().rev().filter(|b| b.tied_to_account == account).enumerate() {
            if i > 0 {
                body.push(',');
            }
            write_bot(bot, &mut body);
            write_bot_times(bot, &mut body);
        }
        body.push_str("]}");
        Reply::json(200, body)
    }

    fn list(&self, account: i32, kind: ListKind) -> Result<Reply, Failure> {
        let Some(state) = self.accounts.get(&account) else {
            return Ok(Reply::json(200, "{\"list\":[]}"));
        };
        if let Some((_, raw)) = state.raw_lists.iter().find(|(k, _)| *k == kind) {
            return Ok(Reply::json(200, raw.clone()));
        }
        fn write_all<T>(
            items: impl Iterator<Item = T>,
            write: impl Fn(&T, &mut String) -> Result<(), JsonError>,
        ) -> Result<Reply, Failure> {
            item(|out| {
                out.push_str("{\"list\":[");
                for (i, one) in items.enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write(&one, out)?;
                }
                out.push_str("]}");
                Ok(())
            })
        }
        match kind {
            ListKind::Entities => write_all(state.entities.values(), |e, out| e.write(out)),
            ListKind::Credentials => write_all(state.credentials.values(), |c, out| c.write(out)),
            ListKind::Sensors => write_all(state.sensors.values(), |s, out| s.write(out)),
        }
    }
}

fn forbidden() -> Failure {
    Failure::Refused(Reply::bare_text(403, "Access to resource denied, insufficient permissions"))
}

/// This 500 comes from before the application; the connection stays open.
pub(crate) fn could_not_validate() -> Failure {
    Failure::Refused(Reply::bare_text(500, "Could not validate access"))
}

fn method_not_allowed() -> Reply {
    Reply::detail(405, "Method Not Allowed")
}

/// Something that the real backend has and the stand-in has not.
pub(crate) fn not_spoken(request: &Request) -> Reply {
    Reply::detail(501, &format!("The stand-in does not speak {} here", request.method))
}

/// What a browser is told that asks on behalf of another site: no site is allowed.
fn preflight_refused() -> Reply {
    let mut reply = Reply::bare_text(400, "Disallowed CORS origin");
    let header = |name, value: &str| (name, value.to_owned());
    reply.headers = vec![
        header("vary", "Origin"),
        header("access-control-allow-methods", "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
        header("access-control-max-age", "3600"),
        header(
            "access-control-allow-headers",
            "Accept, Accept-Language, Authorization, Content-Language, Content-Type, If-None-Match",
        ),
        header("access-control-allow-credentials", "true"),
        header("content-type", "text/plain; charset=utf-8"),
    ];
    reply
}

/// Two slashes at the end; the new address repeats the query and with it the token.
fn redirect(request: &Request) -> Reply {
    let host = request.host.as_deref().unwrap_or("127.0.0.1");
    let query = request.query();
    let mark = if query.is_empty() { "" } else { "?" };
    let location = format!("http://{host}{}{mark}{query}", request.path().trim_end_matches('/'));
    Reply {
        status: 307,
        headers: vec![("location", location)],
        body: ReplyBody::EmptyChunked,
        hang_up: false,
        stored: Vec::new(),
    }
}

pub(crate) fn item(write: impl FnOnce(&mut String) -> Result<(), JsonError>) -> Result<Reply, Failure> {
    let mut body = String::new();
    write(&mut body).map_err(|_| internal())?;
    Ok(Reply::json(200, body))
}

/// Numbers in the path; every one that is none is named. Those beyond int4 exist nowhere, as id 0 does not.
pub(crate) fn ids<const N: usize>(wanted: [(&str, &str); N]) -> Result<[i32; N], Failure> {
    let mut wrong = Vec::new();
    let ids = wanted.map(|(name, text)| {
        let digits = text.trim().trim_start_matches(['+', '-']);
        if digits.is_empty() || digits.len() + 1 < text.trim().len() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            wrong.push(format!(
                "{{\"loc\":[\"path\",\"{name}\"],\"msg\":\"value is not a valid integer\",\"type\":\"type_error.integer\"}}"
            ));
        }
        text.trim().parse().unwrap_or(0)
    });
    if wrong.is_empty() {
        Ok(ids)
    } else {
        Err(Failure::Refused(Reply::json(422, format!("{{\"detail\":[{}]}}", wrong.join(",")))))
    }
}

fn write_bot(bot: &Bot, out: &mut String) {
    out.push_str(&format!("{{\"id\":{},\"name\":", bot.id));
    write_json_str(&bot.name, out);
    out.push_str(",\"protocol\":");
    match &bot.protocol {
        Some(protocol) => write_json_str(protocol, out),
        None => out.push_str("null"),
    }
    out.push_str(",\"tied_to_account\":");
    write_optional(bot.tied_to_account, out);
}

fn write_bot_times(bot: &Bot, out: &mut String) {
    out.push_str(&format!(",\"insert_time\":{},\"last_login\":", bot.insert_time_s));
    write_optional(bot.last_login_s, out);
    out.push('}');
}

/// A bot with its configuration, as its profile and the answer to its creation show it.
pub(crate) fn bot_record(bot: &Bot, out: &mut String) -> Result<(), JsonError> {
    write_bot(bot, out);
    out.push_str(",\"config\":");
    bot.config.write_compact(out)?;
    write_bot_times(bot, out);
    Ok(())
}

pub(crate) fn permission_list(permissions: &[Permission]) -> String {
    let mut sorted: Vec<&Permission> = permissions.iter().collect();
    sorted.sort_by(|a, b| a.resource_prefix.cmp(&b.resource_prefix));
    let mut body = String::from("{\"list\":[");
    for (i, permission) in sorted.into_iter().enumerate() {
        if i > 0 {
            body.push(',');
        }
        body.push_str(&format!("{{\"id\":{},", permission.id));
        write_permission(permission, &mut body);
        body.push('}');
    }
    body.push_str("]}");
    body
}

/// What a permission allows, without its id.
pub(crate) fn write_permission(permission: &Permission, out: &mut String) {
    out.push_str("\"resource_prefix\":");
    match &permission.resource_prefix {
        Some(prefix) => write_json_str(prefix, out),
        None => out.push_str("null"),
    }
    out.push_str(",\"methods\":");
    match &permission.methods {
        Some(methods) => {
            out.push('[');
            for (i, method) in methods.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_json_str(method, out);
            }
            out.push(']');
        }
        None => out.push_str("null"),
    }
}

/// Whether this is one of the things that can be done to bots, apart from listing them.
fn speaks_of_bots(rest: &[&str], method: &str) -> bool {
    matches!(
        (rest, method),
        ([], "POST")
            | ([_], "PUT" | "DELETE")
            | ([_, "token"], "GET")
            | ([_, "permissions"], "GET" | "POST")
            | ([_, "permissions", _], "DELETE")
    )
}
