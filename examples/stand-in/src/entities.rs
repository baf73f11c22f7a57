//! Entities that bots make and change: the checks, and what a failed request leaves behind.
//!
//! The backend writes an entity row by row. A request that the database refuses in the middle is answered by 500 and leaves the
//! entity with what was written so far.

use crate::backend::{Backend, Failure, Reply, Request, internal, not_found};
use crate::json::Json;
use crate::model::{Entity, EntityProtocol, EntitySensor};
use crate::schema::{Type, check_required, check_type, unexpected};

/// What a checked body asks for; ids may still be of no database.
struct Wanted {
    name: Json,
    entity_type: Json,
    details: Json,
    parent: Json,
    protocols: Vec<(String, Json)>,
}

impl Backend {
    pub(crate) fn post_entity(&mut self, account: i32, request: &Request) -> Result<Reply, Failure> {
        let wanted = self.check(account, request)?;
        let parent = match &wanted.parent {
            Json::Null => None,
            id => Some(id_of(id).filter(|id| self.has_entity(*id)).ok_or_else(internal)?),
        };
        if !self.accounts.contains_key(&account) {
            return Err(internal());
        }
        let id = self.new_id();
        self.write_entity(account, id, parent, &wanted)?;
        Ok(Reply::json(201, format!("{{\"id\":{id}}}")))
    }

    pub(crate) fn put_entity(&mut self, account: i32, id: i32, request: &Request) -> Result<Reply, Failure> {
        let wanted = self.check(account, request)?;
        let Some(old) = self.entity(account, id) else {
            return Err(not_found("No such entity"));
        };
        // A parent in the body is not looked at.
        let parent = old.parent;
        self.write_entity(account, id, parent, &wanted)?;
        Ok(Reply::no_content())
    }

    fn check(&self, account: i32, request: &Request) -> Result<Wanted, Failure> {
        let body = Json::from_bytes(&request.body).map_err(|_| internal())?;
        let invalid = |why: String| Failure::Refused(Reply::invalid(request, &why));
        check_schema(&body).map_err(invalid)?;
        let part = |key| body.get(key).cloned().unwrap_or(Json::Null);
        let protocols = match part("protocols") {
            Json::Object(protocols) => protocols,
            _ => Vec::new(),
        };
        for (name, protocol) in &protocols {
            let part = |key| protocol.get(key).unwrap_or(&Json::Null);
            let credential = id_of(part("credential")).ok_or_else(internal)?;
            let state = self.accounts.get(&account);
            if state.and_then(|a| a.credentials.get(&credential)).is_none_or(|c| c.protocol != *name) {
                return Err(invalid(format!(
                    "Invalid credential for this account/protocol combination: {}",
                    part("credential").python_str()
                )));
            }
            let bot = id_of(part("bot")).ok_or_else(internal)?;
            let fits = self.bot(bot).is_some_and(|b| {
                b.protocol.as_deref() == Some(name.as_str()) && b.tied_to_account.is_none_or(|a| a == account)
            });
            if !fits {
                return Err(invalid(format!("Invalid bot for this protocol: {}", part("bot").python_str())));
            }
            for entry in list(part("sensors")) {
                let shown = entry.get("sensor").unwrap_or(&Json::Null);
                let sensor = id_of(shown).ok_or_else(internal)?;
                if state.and_then(|a| a.sensors.get(&sensor)).is_none_or(|s| s.protocol != *name) {
                    return Err(invalid(format!(
                        "Invalid sensor for this account/protocol combination: {}",
                        shown.python_str()
                    )));
                }
            }
        }
        Ok(Wanted {
            name: part("name"),
            entity_type: part("entity_type"),
            details: part("details"),
            parent: part("parent"),
            protocols,
        })
    }

    /// Writes the rows one after the other, up to the first that the database refuses.
    fn write_entity(
        &mut self,
        account: i32,
        id: i32,
        parent: Option<i32>,
        wanted: &Wanted,
    ) -> Result<(), Failure> {
        let (Json::Str(name), Json::Str(entity_type)) = (&wanted.name, &wanted.entity_type) else {
            return Err(internal());
        };
        if has_no_number(&wanted.details) || name.contains('\0') || entity_type.contains('\0') {
            return Err(internal());
        }
        let mut entity = Entity {
            id,
            name: name.clone(),
            entity_type: entity_type.clone(),
            parent,
            details: wanted.details.clone(),
            protocols: Vec::new(),
        };
        let mut refused = false;
        'rows: for (name, protocol) in &wanted.protocols {
            let part = |key| protocol.get(key).and_then(id_of);
            let Some(credential) = part("credential") else { break };
            let mut sensors: Vec<EntitySensor> = Vec::new();
            for entry in list(protocol.get("sensors").unwrap_or(&Json::Null)) {
                let sensor = entry.get("sensor").and_then(id_of);
                let interval = entry.get("interval").and_then(interval);
                match (sensor, interval) {
                    (Some(sensor), Some(interval)) if sensors.iter().all(|s| s.sensor != sensor) => {
                        sensors.push(EntitySensor { sensor, interval });
                    }
                    _ => {
                        refused = true;
                        let written = EntityProtocol { credential, sensors, bot: part("bot") };
                        entity.protocols.push((name.clone(), written));
                        break 'rows;
                    }
                }
            }
            entity.protocols.push((name.clone(), EntityProtocol { credential, sensors, bot: part("bot") }));
        }
        if let Some(account) = self.accounts.get_mut(&account) {
            account.entities.insert(id, entity);
        }
        if refused { Err(internal()) } else { Ok(()) }
    }
}

fn list(value: &Json) -> &[Json] {
    match value {
        Json::List(items) => items,
        _ => &[],
    }
}

/// An id as number or text.
fn id_of(value: &Json) -> Option<i32> {
    match value {
        Json::Int(digits) => digits.parse().ok(),
        Json::Str(text) => text.trim().parse().ok(),
        Json::Float(x) => rounded_int4(*x),
        _ => None,
    }
}

/// Seconds or null; none if the database refuses it.
pub(crate) fn interval(value: &Json) -> Option<Option<i32>> {
    match value {
        Json::Null => Some(None),
        Json::Int(digits) => digits.parse().ok().map(Some),
        Json::Float(x) => rounded_int4(*x).map(Some),
        _ => None,
    }
}

/// Halves are rounded away from zero.
#[allow(clippy::cast_possible_truncation)]
fn rounded_int4(x: f64) -> Option<i32> {
    let rounded = x.round();
    (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&rounded).then_some(rounded as i32)
}

/// The database takes no NaN and no infinity in details.
pub(crate) fn has_no_number(value: &Json) -> bool {
    match value {
        Json::Float(x) => !x.is_finite(),
        Json::List(items) => items.iter().any(has_no_number),
        Json::Object(entries) => entries.iter().any(|(_, v)| has_no_number(v)),
        _ => false,
    }
}

fn check_schema(body: &Json) -> Result<(), String> {
    check_type(body, &[Type::Object])?;
    let Json::Object(entries) = body else { return Ok(()) };
    for (key, value) in entries {
        match key.as_str() {
            "name" | "entity_type" => check_type(value, &[Type::String])?,
            "details" => check_type(value, &[Type::Object])?,
            "parent" => check_type(value, &[Type::String, Type::Number, Type::Null])?,
            "protocols" => {
                check_type(value, &[Type::Object])?;
                let Json::Object(protocols) = value else { continue };
                for (_, protocol) in protocols {
                    check_protocol(protocol)?;
                }
            }
            _ => return Err(unexpected(key)),
        }
    }
    check_required(body, &["name", "entity_type", "details"])
}

fn check_protocol(protocol: &Json) -> Result<(), String> {
    check_type(protocol, &[Type::Object])?;
    for key in ["credential", "bot"] {
        if let Some(id) = protocol.get(key) {
            check_type(id, &[Type::String, Type::Number])?;
        }
    }
    if let Some(sensors) = protocol.get("sensors") {
        check_type(sensors, &[Type::List])?;
        for entry in list(sensors) {
            check_type(entry, &[Type::Object])?;
            check_required(entry, &["sensor"])?;
            if let Some(id) = entry.get("sensor") {
                check_type(id, &[Type::String, Type::Number])?;
            }
            if let Some(interval) = entry.get("interval") {
                check_type(interval, &[Type::Number, Type::Null])?;
            }
        }
    }
    check_required(protocol, &["credential", "bot", "sensors"])
}
