//! What the Python bots sent to the real backend, against a stand-in that is configured from the answers they got.
//!
//! What an answer refers to and no bot ever asked for (a credential of another protocol, say) is there under another name.

use std::collections::{BTreeMap, BTreeSet};

use grafolean_stand_in::{
    Account, AccountConfig, Backend, Bot, Config, Credential, Entity, EntityProtocol, EntitySensor, Json,
    Permission, Sensor, Token,
};

use crate::Outcome;
use crate::over::{Alone, Over};
use crate::recorded::{Exchange, differences, integer, integers, lines, list, string};
use crate::transcript::{bot, credential, sensor};

pub(crate) const FILES: [&str; 5] = [
    "python-bot-my.jsonl",
    "python-bot-ping.jsonl",
    "python-bot-snmp.jsonl",
    "python-bot-snmp-account-bot.jsonl",
    "python-bot-snmp-interfaces-upkeep.jsonl",
];

type Outcomes = Vec<(String, Outcome)>;

/// What became of the requests, over each way to send them.
pub(crate) fn replay(file: &str) -> Vec<(&'static str, Outcomes)> {
    let (changes, exchanges): (Vec<Json>, Vec<Json>) =
        lines(file).into_iter().partition(|line| line.get("by_a_person").is_some());
    let changes: Vec<Change> = changes.iter().map(Change::read).collect();
    let exchanges: Vec<Exchange> = exchanges.iter().map(Exchange::read).collect();
    let mut order: Vec<(i64, &Exchange)> =
        exchanges.iter().flat_map(|e| e.at_us.iter().map(move |at_us| (*at_us, e))).collect();
    order.sort_by_key(|(at_us, _)| *at_us);
    let config = config(&order);
    vec![
        (Alone::NAME, send(&mut Alone(Backend::in_memory(1).unwrap()), &config, &order, &changes)),
        #[cfg(feature = "server")]
        (crate::over::Socket::NAME, send(&mut crate::over::Socket::start(), &config, &order, &changes)),
    ]
}

fn send<O: Over>(over: &mut O, config: &Config, order: &[(i64, &Exchange)], changes: &[Change]) -> Outcomes {
    over.change(&mut |backend| {
        config.apply(backend, 0).unwrap();
        backend.announce_mqtt("127.0.0.1", "18831");
    });
    let mut outcomes = Vec::new();
    let mut changes = changes.iter().peekable();
    for (i, (at_us, exchange)) in order.iter().enumerate() {
        while let Some(change) = changes.next_if(|c| c.at_us < *at_us) {
            over.change(&mut |backend| change.apply(backend));
        }
        over.change(&mut |backend| backend.plan(body_of(exchange).and_then(|b| created(exchange, &b)), []));
        let (answer, _) = over.ask(&exchange.request, *at_us, false);
        let different = differences(exchange.response.as_ref(), answer.as_ref());
        let outcome = if different.is_empty() { Outcome::Equal } else { Outcome::different(different) };
        outcomes
            .push((format!("request {i}, {} {}", exchange.request.method, exchange.request.path()), outcome));
    }
    outcomes
}

/// What a person changed between two requests of a bot; the recording has only the list that came after it.
struct Change {
    at_us: i64,
    account: i32,
    removed: Vec<i32>,
    set: Vec<Entity>,
}

impl Change {
    fn read(line: &Json) -> Self {
        let change = line.get("by_a_person").unwrap();
        Self {
            at_us: integers(list(line, "at_us"))[0],
            account: integer(change, "account").unwrap(),
            removed: integers(list(change, "removed")),
            set: list(change, "set").iter().map(entity).collect(),
        }
    }

    fn apply(&self, backend: &mut Backend) {
        for id in &self.removed {
            backend.remove_entity(self.account, *id).unwrap();
        }
        for entity in &self.set {
            backend.set_entity(self.account, entity.clone()).unwrap();
        }
    }
}

fn created(exchange: &Exchange, body: &Json) -> Option<i32> {
    exchange.response.as_ref().filter(|r| r.status == 201).and_then(|_| integer(body, "id"))
}

fn body_of(exchange: &Exchange) -> Option<Json> {
    Json::from_bytes(&exchange.response.as_ref()?.body).ok()
}

/// The configuration that the first answers show.
fn config(order: &[(i64, &Exchange)]) -> Config {
    let mut accounts: BTreeMap<i32, AccountConfig> = BTreeMap::new();
    let mut listed = BTreeSet::new();
    let mut bots: BTreeMap<i32, Bot> = BTreeMap::new();
    let mut token = None;
    let mut me = None;
    let account = |accounts: &mut BTreeMap<i32, AccountConfig>, id: i32| {
        accounts.entry(id).or_insert_with(|| AccountConfig {
            account: Account { id, name: format!("Account {id}") },
            credentials: Vec::new(),
            sensors: Vec::new(),
            entities: Vec::new(),
        });
    };
    for (_, exchange) in order {
        token = token.or(exchange.request.target.split("b=").nth(1).and_then(Token::new));
        let Some(body) = body_of(exchange).filter(|_| exchange.request.method == "GET") else { continue };
        let labels: Vec<&str> = exchange.request.path().split('/').filter(|l| !l.is_empty()).collect();
        match labels[..] {
            ["api", "profile"] => me = body.get("record").map(bot),
            ["api", "accounts"] => {
                for record in list(&body, "list") {
                    let id = integer(record, "id").unwrap();
                    account(&mut accounts, id);
                    accounts.get_mut(&id).unwrap().account.name = string(record, "name").unwrap();
                }
            }
            ["api", "accounts", id, kind, ref item @ ..] => {
                let id: i32 = id.parse().unwrap();
                account(&mut accounts, id);
                let known = accounts.get_mut(&id).unwrap();
                match (kind, item) {
                    ("entities", []) if listed.insert(id) => {
                        known.entities = list(&body, "list").iter().map(entity).collect();
                    }
                    ("credentials", [_]) => {
                        let new = credential(&body);
                        if known.credentials.iter().all(|c| c.id != new.id) {
                            known.credentials.push(new);
                        }
                    }
                    ("sensors", [_]) => {
                        let new = sensor(&body);
                        if known.sensors.iter().all(|s| s.id != new.id) {
                            known.sensors.push(new);
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    let visible: Vec<i32> = accounts.keys().copied().collect();
    fill(&mut accounts, &mut bots);

    let mut me = me.unwrap_or_else(|| Bot::systemwide(0, "The bot that was recorded", "snmp"));
    me.token = token;
    if me.tied_to_account.is_none() {
        // A systemwide bot was recorded that had been given the accounts it lists and no other.
        me.permissions =
            Some(visible.iter().map(|id| Permission::new(&format!("accounts/{id}"), None)).collect());
    }
    bots.remove(&me.id);
    let bots = bots.into_values().chain([me]).collect();
    Config { seed: 1, accounts: accounts.into_values().collect(), bots, ..Config::default() }
}

/// Makes what entities refer to and no answer showed.
fn fill(accounts: &mut BTreeMap<i32, AccountConfig>, bots: &mut BTreeMap<i32, Bot>) {
    let mut parents: BTreeSet<i32> = BTreeSet::new();
    for account in accounts.values_mut() {
        for entity in &account.entities {
            parents.extend(entity.parent);
            for (name, protocol) in &entity.protocols {
                if account.credentials.iter().all(|c| c.id != protocol.credential) {
                    let unseen = format!("Unseen credential {}", protocol.credential);
                    account.credentials.push(Credential::new(protocol.credential, &unseen, name));
                }
                for EntitySensor { sensor, .. } in &protocol.sensors {
                    if account.sensors.iter().all(|s| s.id != *sensor) {
                        account.sensors.push(Sensor::new(
                            *sensor,
                            &format!("Unseen sensor {sensor}"),
                            name,
                            None,
                        ));
                    }
                }
                if let Some(id) = protocol.bot {
                    bots.entry(id).or_insert_with(|| Bot::systemwide(id, &format!("Unseen bot {id}"), name));
                }
            }
        }
    }
    parents.retain(|id| accounts.values().all(|a| a.entities.iter().all(|e| e.id != *id)));
    if !parents.is_empty() {
        let elsewhere = AccountConfig {
            account: Account { id: i32::MAX, name: "Unseen account".to_owned() },
            credentials: Vec::new(),
            sensors: Vec::new(),
            entities: parents.iter().map(|id| Entity::device(*id, "Unseen parent")).collect(),
        };
        accounts.insert(i32::MAX, elsewhere);
    }
}

fn entity(record: &Json) -> Entity {
    let mut entity = Entity::device(integer(record, "id").unwrap(), &string(record, "name").unwrap());
    entity.entity_type = string(record, "entity_type").unwrap();
    entity.parent = integer(record, "parent");
    entity.details = record.get("details").unwrap().clone();
    if let Some(Json::Object(protocols)) = record.get("protocols") {
        for (name, protocol) in protocols {
            let sensors = list(protocol, "sensors").iter().map(|s| EntitySensor {
                sensor: integer(s, "sensor").unwrap(),
                interval: integer(s, "interval"),
            });
            let protocol = EntityProtocol {
                credential: integer(protocol, "credential").unwrap(),
                sensors: sensors.collect(),
                bot: integer(protocol, "bot"),
            };
            entity.protocols.push((name.clone(), protocol));
        }
    }
    entity
}
