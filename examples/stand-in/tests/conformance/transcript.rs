//! The transcript of 498 exchanges, in the order in which they happened.

use grafolean_stand_in::{Admin, Bot, Credential, Json, NewAccount, Permission, Readiness, Sensor, Token};

use crate::Outcome;
use crate::over::Over;
use crate::recorded::{Answer, Exchange, Sent, differences, integer, lines, list, string};

/// The token of the administrator; the recording has `JWT-001` and so on in its place.
const ADMIN: &str = "token-of-the-administrator";

pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) resource: String,
    /// What the product's front had to do with it, if it went through that.
    pub(crate) front: Option<&'static str>,
    pub(crate) outcome: Outcome,
}

/// How the product's front treated a request, as far as the stand-in can be made to do the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only a socket has a front"))]
pub(crate) enum Front {
    /// It looked at the length of the body only. The stand-in has the same limit.
    BodyLimit,
    /// It answered in place of an application that is down or frozen. The stand-in is told the status only.
    InPlace(u16),
    /// It has certificates and was asked over plain HTTP.
    PlainHttp,
    /// The application answered that its database does not.
    DatabaseFrozen,
}

impl Front {
    fn of(exchange: &Exchange) -> Option<Self> {
        let status = exchange.response.as_ref().map(|r| r.status);
        let name = exchange.name.as_str();
        if name.starts_with("front-body-of-") || name == "front-chunked-over-limit" {
            Some(Self::BodyLimit)
        } else if name.starts_with("front-app-down-") || name.starts_with("front-app-frozen-") {
            status.map(Self::InPlace)
        } else if name.starts_with("front-db-frozen-") {
            Some(Self::DatabaseFrozen)
        } else if matches!(
            name,
            "front-https-plain-http-get"
                | "front-https-plain-http-post"
                | "front-https-plain-http-host-grafolean"
        ) {
            Some(Self::PlainHttp)
        } else {
            None
        }
    }

    const fn group(self) -> &'static str {
        match self {
            Self::BodyLimit => "the limit of bodies",
            Self::InPlace(_) => "in place of an application that is down",
            Self::PlainHttp => "plain HTTP although it has certificates",
            Self::DatabaseFrozen => "database frozen",
        }
    }
}

/// Lines of which a part is compared by its shape only, and why.
const EXCUSES: [(&str, &str); 2] = [
    ("login", "the session id and the person's token are random on both sides: compared by their shape"),
    (
        "jwt-refresh",
        "the session id and the person's token are random on both sides: compared by their shape",
    ),
];

/// What a line is counted under.
fn resource(request: &Sent) -> &str {
    match request.resource() {
        known @ ("admin" | "auth" | "bots" | "getvalues" | "paths") => known,
        known if crate::OF_BOTS.contains(&known) => known,
        _ => "other",
    }
}

/// Why a line is not sent.
fn skip(exchange: &Exchange, over: &str) -> Option<&'static str> {
    let request = &exchange.request;
    if exchange.via.is_some() {
        return match (Front::of(exchange), over) {
            (Some(_), "socket") => None,
            (Some(_), _) => Some("what the front does is the server's, over a socket"),
            (None, _) => Some("nginx in front of the backend, which the stand-in is not"),
        };
    }
    if request.path().starts_with("/api/admin/mqtt-auth-plug/") {
        return Some("the stand-in has no MQTT");
    }
    if request.resource() == "paths" {
        return Some("only the web interface lists paths; the stand-in answers 501");
    }
    if over == "backend" {
        if exchange.response.is_none() {
            return Some("a connection that closes without an answer is the server's, over a socket");
        }
        if request.version == "HTTP/1.0" || request.header("connection").is_some() {
            return Some("what becomes of the connection is the server's, over a socket");
        }
    }
    None
}

pub(crate) fn replay<O: Over>(over: &mut O) -> Vec<Line> {
    let recorded = lines("transcript.jsonl");
    let (setup, recorded) = recorded.split_first().expect("a first line");
    let setup = setup.get("setup").expect("the set-up in the first line");
    let logins: Vec<String> = list(setup, "logins").iter().map(Json::python_str).collect();
    over.change(&mut |backend| {
        backend.set_readiness(Readiness::MigrationNeeded);
        backend.set_admin(Admin::new(ADMIN));
        backend.set_new_account(NewAccount {
            credentials: setup
                .get("new_account")
                .map_or(&[][..], |a| list(a, "credentials"))
                .iter()
                .map(credential)
                .collect(),
            sensors: setup
                .get("new_account")
                .map_or(&[][..], |a| list(a, "sensors"))
                .iter()
                .map(sensor)
                .collect(),
        });
        if let [Json::Str(hostname), Json::Str(port)] = list(setup, "mqtt") {
            backend.announce_mqtt(hostname, port);
        }
        // Lists begin with the newest.
        for record in list(setup, "bots").iter().rev() {
            let mut made = bot(record);
            made.permissions = Some(list(record, "permissions").iter().map(permission).collect());
            backend.set_bot(made).unwrap();
        }
    });

    let mut result = Vec::new();
    for line in recorded {
        let mut exchange = Exchange::read(line);
        log_in(&mut exchange.request, &logins);
        let front = exchange.via.as_ref().and_then(|_| Front::of(&exchange));
        let outcome = match skip(&exchange, O::NAME) {
            Some(why) => Outcome::Skipped(why),
            None => {
                over.change(&mut |backend| {
                    backend.plan(
                        exchange.ids.iter().copied(),
                        exchange.tokens.iter().filter_map(|t| Token::new(t)),
                    );
                    backend.stop_database(
                        exchange.note == "database stopped" || front == Some(Front::DatabaseFrozen),
                    );
                });
                over.front(front);
                let same =
                    exchange.note.ends_with(" on one connection") && !exchange.note.starts_with("request 1 ");
                let (answer, interim) = over.ask(&exchange.request, exchange.at_us[0], same);
                let interim_differs = O::NAME == "socket" && interim != exchange.interim_statuses;
                let interim = interim_differs
                    .then(|| format!("recorded {:?}, came {interim:?}", exchange.interim_statuses));
                // The front also writes into answers of the application that it keeps the connection; the stand-in only into the front's own.
                if let (Some(front), Some(recorded)) = (front, &mut exchange.response)
                    && (front == Front::DatabaseFrozen || recorded.status < 300)
                {
                    recorded.headers.retain(|(name, value)| {
                        (name.as_str(), value.as_str()) != ("connection", "keep-alive")
                    });
                }
                judge(&exchange.name, exchange.response.as_ref(), answer.as_ref(), interim)
            }
        };
        result.push(Line {
            resource: resource(&exchange.request).to_owned(),
            front: exchange.via.as_ref().map(|_| front.map_or("anything else", Front::group)),
            name: exchange.name,
            outcome,
        });
    }
    result
}

/// An excuse that is not needed any more fails the test.
fn judge(name: &str, recorded: Option<&Answer>, came: Option<&Answer>, interim: Option<String>) -> Outcome {
    let mut different = differences(recorded, came);
    let excuse = EXCUSES.iter().find(|(line, _)| *line == name).map(|(_, why)| *why);
    if excuse.is_some() {
        if different.is_empty() {
            different.push(("excuse", "nothing differs any more".to_owned()));
        } else {
            let shape = |answer: Option<&Answer>| answer.map(Answer::without_random);
            different = differences(shape(recorded).as_ref(), shape(came).as_ref());
        }
    }
    different.extend(interim.map(|how| ("interim", how)));
    match (different.is_empty(), excuse) {
        (true, None) => Outcome::Equal,
        (true, Some(why)) => Outcome::Excused(why),
        (false, _) => Outcome::different(different),
    }
}

/// Tokens of persons are names in the recording; those that the real backend took become the administrator's.
fn log_in(request: &mut Sent, logins: &[String]) {
    for (name, value) in &mut request.headers {
        if name.eq_ignore_ascii_case("authorization")
            && let Some((before, login)) = value.split_once(":JWT-")
            && logins.contains(&format!("JWT-{login}"))
        {
            *value = format!("{before}:{ADMIN}");
        }
    }
}

// What the API shows, read back

pub(crate) fn credential(record: &Json) -> Credential {
    Credential {
        id: integer(record, "id").unwrap(),
        name: string(record, "name").unwrap(),
        protocol: string(record, "protocol").unwrap(),
        details: record.get("details").unwrap().clone(),
    }
}

pub(crate) fn sensor(record: &Json) -> Sensor {
    Sensor {
        id: integer(record, "id").unwrap(),
        name: string(record, "name").unwrap(),
        protocol: string(record, "protocol").unwrap(),
        default_interval: integer(record, "default_interval"),
        details: record.get("details").unwrap().clone(),
    }
}

pub(crate) fn bot(record: &Json) -> Bot {
    let mut bot = Bot::systemwide(integer(record, "id").unwrap(), &string(record, "name").unwrap(), "");
    bot.protocol = string(record, "protocol");
    bot.tied_to_account = integer(record, "tied_to_account");
    bot.insert_time_s = integer(record, "insert_time").unwrap();
    bot.config = record.get("config").cloned().unwrap_or(Json::Null);
    bot.token = string(record, "token").map(|t| Token::new(&t).unwrap());
    bot
}

fn permission(record: &Json) -> Permission {
    let methods = match record.get("methods") {
        Some(Json::List(methods)) => Some(methods.iter().map(Json::python_str).collect()),
        _ => None,
    };
    Permission {
        id: integer(record, "id").unwrap(),
        resource_prefix: string(record, "resource_prefix"),
        methods,
    }
}
