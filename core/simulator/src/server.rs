//! The backend of a simulation: the stand-in's answers, values that it does not take, and a configuration that changes.

use std::collections::BTreeMap;

use grafolean_core::jobs::JobKey;
use grafolean_stand_in::{
    Account, Backend, Bot, Credential, Entity, EntityProtocol, EntitySensor, Permission, Reply, ReplyBody,
    Request, Sensor, Token,
};

use crate::plan::Plan;
use crate::random::{Purpose, Random};
use crate::values::Values;
use crate::wire::{self, Element};

/// The bot's token.
pub(crate) const TOKEN: &str = "3bfae491-8c49-42ca-8332-0ae431d59014";
/// The bot's protocol.
pub(crate) const PROTOCOL: &str = "sim";
const BOT: i32 = 71;
/// Values whose path begins so are refused by 400.
pub(crate) const INVALID: &str = "invalid.";
/// Values whose path begins so are answered by 500.
pub(crate) const ODD: &str = "odd.";
/// The backend stores values in pages of so many.
const PAGE: usize = 100;

struct Device {
    sensors: Vec<(i32, Option<i32>)>,
    renamed: u32,
}

#[derive(Default)]
struct Tenant {
    sensors: BTreeMap<i32, Option<i32>>,
    devices: BTreeMap<i32, Device>,
    /// When its configuration changed last.
    changed_ms: u64,
}

pub(crate) struct Server {
    backend: Backend,
    tenants: BTreeMap<i32, Tenant>,
    /// Accounts that are not there at present.
    away: BTreeMap<i32, Tenant>,
    intervals_s: Vec<i32>,
    next_id: i32,
    custom: bool,
    job_per_sensor: bool,
    /// How many devices and sensors an account has at most.
    most: usize,
    pub(crate) front_limit: usize,
}

/// A request with values is answered: what the oracle is to know.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// The body says that the values are at fault.
    pub(crate) validation: bool,
}

fn account_id(id: i32) -> u64 {
    u64::try_from(id).unwrap_or(0)
}

impl Server {
    pub(crate) fn new(plan: &Plan) -> Result<Self, String> {
        let backend = Backend::in_memory(plan.seed).map_err(|e| e.to_string())?;
        let mut server = Server {
            backend,
            tenants: BTreeMap::new(),
            away: BTreeMap::new(),
            intervals_s: plan.intervals_s.clone(),
            next_id: 1000,
            custom: plan.custom,
            job_per_sensor: plan.job_per_sensor,
            most: if plan.cells == crate::plan::BOARD_CELLS { 3 } else { 12 },
            front_limit: plan.front_limit,
        };
        let mut r = Random::of(plan.seed, Purpose::Config, u64::MAX);
        for id in 1..=i32::try_from(plan.accounts).unwrap_or(1) {
            server.make_account(id)?;
            server.tenants.insert(id, Tenant::default());
        }
        server.set_permissions(true)?;
        for id in 1..=i32::try_from(plan.accounts).unwrap_or(1) {
            if plan.custom {
                continue;
            }
            server.next_id += 1;
            for _ in 0..r.between(1, 4) {
                server.add_sensor(id, &mut r, false)?;
            }
            for _ in 0..plan.devices {
                server.add_device(id, &mut r)?;
            }
        }
        Ok(server)
    }

    /// Lets the bot PUT, or not.
    pub(crate) fn set_permissions(&mut self, put: bool) -> Result<(), String> {
        let token = Token::new(TOKEN).ok_or("the token is no UUID")?;
        let bot = if self.custom {
            Bot::of_account(BOT, "Simulated", 1, None)
        } else {
            Bot::systemwide(BOT, "Simulated", PROTOCOL)
        };
        let methods: &[&str] =
            if put { &["GET", "POST", "PUT", "DELETE"] } else { &["GET", "POST", "DELETE"] };
        let permissions = [Permission::new("accounts", Some(methods))];
        self.backend.set_bot(bot.token(token).permissions(permissions)).map_err(|e| e.to_string())?;
        Ok(())
    }

    fn add_sensor(&mut self, account: i32, r: &mut Random, odd: bool) -> Result<(), String> {
        self.next_id += 1;
        let id = self.next_id;
        let interval =
            if odd { r.pick(&[None, Some(0), Some(-60)]) } else { Some(r.pick(&self.intervals_s)) };
        self.put_sensor(account, id, interval)
    }

    fn put_sensor(&mut self, account: i32, id: i32, interval: Option<i32>) -> Result<(), String> {
        let sensor = Sensor::new(id, &format!("Sensor {id}"), PROTOCOL, interval);
        self.backend.set_sensor(account, sensor).map_err(|e| e.to_string())?;
        if let Some(tenant) = self.tenants.get_mut(&account) {
            tenant.sensors.insert(id, interval);
        }
        Ok(())
    }

    fn add_device(&mut self, account: i32, r: &mut Random) -> Result<(), String> {
        self.next_id += 1;
        let id = self.next_id;
        let Some(tenant) = self.tenants.get_mut(&account) else { return Ok(()) };
        let all: Vec<i32> = tenant.sensors.keys().copied().collect();
        let mut sensors: Vec<(i32, Option<i32>)> = Vec::new();
        for _ in 0..r.between(1, 3) {
            let id = r.pick(&all);
            if id != 0 && !sensors.iter().any(|(known, _)| *known == id) {
                let own = r.chance(300).then(|| r.pick(&self.intervals_s));
                sensors.push((id, own));
            }
        }
        tenant.devices.insert(id, Device { sensors, renamed: 0 });
        self.put_device(account, id)
    }

    fn put_device(&mut self, account: i32, id: i32) -> Result<(), String> {
        let Some(device) = self.tenants.get(&account).and_then(|t| t.devices.get(&id)) else { return Ok(()) };
        let mut entity = Entity::device(id, &format!("Device {id}"));
        entity = entity.detail("host", &format!("192.0.2.{}", device.renamed % 250));
        let sensors = device
            .sensors
            .iter()
            .map(|(sensor, interval)| EntitySensor { sensor: *sensor, interval: *interval });
        let protocol =
            EntityProtocol { credential: account * 10 + 1, sensors: sensors.collect(), bot: Some(BOT) };
        entity.protocols.push((PROTOCOL.to_owned(), protocol));
        self.backend.set_entity(account, entity).map_err(|e| e.to_string())?;
        Ok(())
    }

    /// Changes something, as this number has it: what it was.
    pub(crate) fn change(&mut self, choice: u64, now_ms: u64) -> Result<String, String> {
        let mut r = Random::of(choice, Purpose::Config, 0);
        let accounts: Vec<i32> = self.tenants.keys().copied().collect();
        let account = r.pick(&accounts);
        let intervals_s = self.intervals_s.clone();
        let most = self.most;
        let Some(tenant) = self.tenants.get_mut(&account).filter(|_| !self.custom) else {
            return Ok("nothing".to_owned());
        };
        tenant.changed_ms = now_ms;
        let devices: Vec<i32> = tenant.devices.keys().copied().collect();
        let sensors: Vec<i32> = tenant.sensors.keys().copied().collect();
        let (device, sensor) = (r.pick(&devices), r.pick(&sensors));
        match r.between(0, 8) {
            0 if devices.len() < most => {
                self.add_device(account, &mut r)?;
                Ok(format!("another device in account {account}"))
            }
            1 if devices.len() > 1 => {
                tenant.devices.remove(&device);
                self.backend.remove_entity(account, device).map_err(|e| e.to_string())?;
                Ok(format!("no device {device} in account {account}"))
            }
            2 if sensors.len() < most => {
                self.add_sensor(account, &mut r, true)?;
                Ok(format!("a sensor without a good interval in account {account}"))
            }
            3 if sensors.len() < most => {
                self.add_sensor(account, &mut r, false)?;
                Ok(format!("another sensor in account {account}"))
            }
            4 if sensors.len() > 1 => {
                tenant.sensors.remove(&sensor);
                for device in tenant.devices.values_mut() {
                    device.sensors.retain(|(id, _)| *id != sensor);
                }
                self.backend.remove_sensor(account, sensor).map_err(|e| e.to_string())?;
                Ok(format!("no sensor {sensor} in account {account}"))
            }
            5 if sensor != 0 => {
                let interval = Some(r.pick(&intervals_s));
                self.put_sensor(account, sensor, interval)?;
                Ok(format!("sensor {sensor} of account {account} at {interval:?} s"))
            }
            _ => {
                let Some(known) = tenant.devices.get_mut(&device) else { return Ok("nothing".to_owned()) };
                let what = match r.between(0, 3) {
                    0 => {
                        known.renamed += 1;
                        "details"
                    }
                    1 => {
                        known.sensors.reverse();
                        "the order of sensors"
                    }
                    2 if sensor != 0
                        && !known.sensors.iter().any(|(id, _)| *id == sensor)
                        && known.sensors.len() < 4 =>
                    {
                        known.sensors.push((sensor, None));
                        "one sensor more"
                    }
                    _ => {
                        if let Some((_, interval)) = known.sensors.first_mut() {
                            *interval = Some(if r.chance(100) { -5 } else { r.pick(&intervals_s) });
                        }
                        "an interval"
                    }
                };
                self.put_device(account, device)?;
                Ok(format!("{what} of device {device} in account {account}"))
            }
        }
    }

    /// Removes an account with all that is in it, as this number chooses: which one, unless it is the only one.
    pub(crate) fn account_goes(&mut self, choice: u64, now_ms: u64) -> Result<Option<i32>, String> {
        if self.tenants.len() < 2 || self.custom {
            return Ok(None);
        }
        let id = self.tenants.keys().nth(choice as usize % self.tenants.len()).copied();
        let Some((id, mut tenant)) = id.and_then(|id| self.tenants.remove_entry(&id)) else {
            return Ok(None);
        };
        tenant.changed_ms = now_ms;
        self.away.insert(id, tenant);
        self.backend.remove_account(id).map_err(|e| e.to_string())?;
        Ok(Some(id))
    }

    /// Makes an account again that has gone.
    pub(crate) fn account_comes(&mut self, id: i32, now_ms: u64) -> Result<(), String> {
        let Some(mut tenant) = self.away.remove(&id) else { return Ok(()) };
        tenant.changed_ms = now_ms;
        self.make_account(id)?;
        let (sensors, devices) = (tenant.sensors.clone(), tenant.devices.keys().copied().collect::<Vec<_>>());
        self.tenants.insert(id, tenant);
        for (sensor, interval) in sensors {
            self.put_sensor(id, sensor, interval)?;
        }
        devices.into_iter().try_for_each(|device| self.put_device(id, device))
    }

    /// The accounts that are not there.
    pub(crate) fn away(&self) -> Vec<i32> {
        self.away.keys().copied().collect()
    }

    fn make_account(&mut self, id: i32) -> Result<(), String> {
        let account = Account { id, name: format!("Account {id}") };
        self.backend.set_account(account).map_err(|e| e.to_string())?;
        if !self.custom {
            let credential = Credential::new(id * 10 + 1, "Credential", PROTOCOL);
            self.backend.set_credential(id, credential).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Whether an account's configuration has changed since then.
    pub(crate) fn changed_since(&self, account: u64, ms: u64) -> bool {
        self.tenants
            .iter()
            .chain(&self.away)
            .any(|(id, tenant)| account_id(*id) == account && tenant.changed_ms >= ms)
    }

    /// The jobs that the bot must have of its configuration as it is now: none for a custom bot.
    pub(crate) fn jobs(&self) -> BTreeMap<JobKey, Vec<u32>> {
        let mut jobs = BTreeMap::new();
        for (account, tenant) in &self.tenants {
            for (id, device) in &tenant.devices {
                let mut all = Vec::new();
                for (sensor, own) in &device.sensors {
                    let interval = own.or(tenant.sensors.get(sensor).copied().flatten());
                    let Some(seconds) = interval.and_then(|i| u32::try_from(i).ok()).filter(|i| *i > 0)
                    else {
                        continue;
                    };
                    let (account, entity) = (account_id(*account), account_id(*id));
                    if self.job_per_sensor {
                        let key = JobKey { account, entity, item: account_id(*sensor), name: "" };
                        jobs.insert(key, vec![seconds]);
                    } else {
                        all.push(seconds);
                    }
                }
                all.sort_unstable();
                all.dedup();
                if !all.is_empty() {
                    jobs.insert(JobKey::new(account_id(*account), account_id(*id)), all);
                }
            }
        }
        jobs
    }

    /// Does what a request asks; what it stores is told to the oracle.
    pub(crate) fn answer(
        &mut self,
        request: &Request,
        unix_ms: u64,
        ghost: bool,
        values: &mut Values,
    ) -> Answered {
        let now_us = i64::try_from(unix_ms).unwrap_or(i64::MAX).saturating_mul(1000);
        if request.body.len() > self.front_limit {
            let body = b"<html>413 Request Entity Too Large</html>".to_vec();
            return Answered { status: 413, body, validation: false };
        }
        let post = request.method == "POST";
        let (reply, refusal) = match wire::elements(&request.body) {
            Some(elements) if elements.iter().any(is_tainted) && !self.is_away(&request.target) => {
                let good = elements.iter().take_while(|e| !is_tainted(e)).count() / PAGE * PAGE;
                let odd = elements.iter().find(|e| is_tainted(e)).is_some_and(|e| e.path.starts_with(ODD));
                let end = good.checked_sub(1).and_then(|last| elements.get(last)).map(|e| e.end);
                let reply = end.map(|end| {
                    let mut body = request.body.get(..end).unwrap_or_default().to_vec();
                    body.push(b']');
                    self.backend.answer(&Request { body: body.into(), ..request.clone() }, now_us)
                });
                let refusal = if odd {
                    (500, b"Internal Server Error".to_vec())
                } else {
                    (400, b"Input validation failed: Invalid MeasuredValue format: simulated".to_vec())
                };
                (reply, Some(refusal))
            }
            _ => (Some(self.backend.answer(request, now_us)), None),
        };
        let mut stopped = None;
        if let Some(reply) = reply {
            for stored in &reply.stored {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let number = wire::identity(stored.value as u64);
                values.stored(account_id(stored.account), &stored.path, number, stored.time_us, post, ghost);
            }
            if refusal.is_none() || !(200..300).contains(&reply.status) {
                stopped = Some((reply.status, bytes(reply)));
            }
        }
        let (status, body) = stopped.or(refusal).unwrap_or_default();
        let validation = status == 400 && body.starts_with(b"Input validation failed");
        Answered { status, body, validation }
    }

    /// Whether a request's account is not there.
    fn is_away(&self, target: &str) -> bool {
        let id = target.split_once("/accounts/").and_then(|(_, rest)| rest.split('/').next()?.parse().ok());
        id.is_some_and(|id: i32| self.away.contains_key(&id))
    }

    /// All rows: account, path, Unix microseconds, number.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (u64, String, i64, f64)> {
        let all = self.tenants.keys().map(|id| self.backend.values(*id).unwrap_or_default());
        all.flatten().map(|row| (account_id(row.account), row.path, row.time_us, row.value))
    }
}

fn is_tainted(element: &Element<'_>) -> bool {
    is_bad(element.path)
}

/// Whether a value with this path is refused.
pub(crate) fn is_bad(path: &str) -> bool {
    path.starts_with(INVALID) || path.starts_with(ODD)
}

fn bytes(reply: Reply) -> Vec<u8> {
    match reply.body {
        ReplyBody::Bytes(bytes) => bytes.to_vec(),
        _ => Vec::new(),
    }
}
