//! A collector in a test: a bot, growable memory, a scripted backend and a driver on simulated time.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use grafolean_core::api::{Method, Resource, Token};
use grafolean_core::bot::{AccountView, Bot, Context, EntityView, JobSink, NewJob, SensorRefusal};
use grafolean_core::collector::{
    Action, BodyStatus, Collector, RequestError, RequestId, ResponseHead, Settings,
};
use grafolean_core::heapless;
use grafolean_core::interval::{Interval, Intervals};
use grafolean_core::jobs::{Due, JobKey};
use grafolean_core::journal::{Event, Fault, FaultKind, Kind, RefreshError, RefreshSummary};
use grafolean_core::random::SplitMix64;
use grafolean_core::storage::Storage;
use grafolean_core::time::{Millis, UnixMillis};

pub const TOKEN: &str = "3bfae491-8c49-42ca-8332-0ae431d59014";
/// The bot's own user id.
pub const ME: u64 = 1_408_704_727;
pub const ACCOUNT: u64 = 7;
pub const PROTOCOL: &str = "myprotocol";

// ---- the bot ----

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Device {
    #[serde(default)]
    pub ipv4: heapless::String<40>,
    #[serde(default)]
    pub retries: u8,
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Login {
    #[serde(default)]
    pub username: heapless::String<32>,
    #[serde(default)]
    pub timeout: u16,
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Metric {
    #[serde(default)]
    pub metric: heapless::String<32>,
}

/// Which jobs the bot makes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Makes {
    /// One for each entity.
    PerEntity,
    /// One for each sensor of each entity.
    PerSensor,
    /// One for each account, with the number of its entities.
    PerAccount,
    /// A custom bot's: so many, each minute.
    Own(u64),
    /// None; an entity is refused.
    Refuses,
    /// One for each entity, of those of its sensors whose metric holds no 2.
    Checked,
    /// Two named ones for each account, that have no interval.
    Never,
}

/// Parameters of a job: what must not differ for it to be left alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    pub ipv4: heapless::String<40>,
    pub username: heapless::String<32>,
    pub entities: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct TestBot {
    pub protocol: Option<&'static str>,
    pub makes: Makes,
}

impl TestBot {
    pub const CONTROLLED: TestBot = TestBot { protocol: Some(PROTOCOL), makes: Makes::PerEntity };
    pub const fn custom(jobs: u64) -> TestBot {
        TestBot { protocol: None, makes: Makes::Own(jobs) }
    }
}

fn none() -> Params {
    Params { ipv4: heapless::String::new(), username: heapless::String::new(), entities: 0 }
}

impl Bot for TestBot {
    type Name = heapless::String<16>;
    type Entity = Device;
    type Credential = Login;
    type Sensor = Metric;
    type Job = Params;
    type Error = &'static str;

    fn protocol(&self) -> Option<&str> {
        self.protocol
    }

    fn entity_jobs(&self, entity: &EntityView<'_, Self>, jobs: &mut dyn JobSink<Params>) {
        let (ipv4, username) = (entity.details().ipv4.clone(), entity.credential().username.clone());
        let params = Params { ipv4, username, entities: 1 };
        match self.makes {
            Makes::PerEntity => {
                let intervals = entity.intervals(jobs);
                jobs.add(NewJob::new(intervals, params));
            }
            Makes::PerSensor => {
                for sensor in entity.sensors() {
                    if let Some(interval) = sensor.interval {
                        jobs.add(NewJob::new(Intervals::one(interval), params.clone()).item(sensor.id));
                    }
                }
            }
            Makes::Refuses => jobs.refuse("this bot wants no entity"),
            Makes::Checked => {
                let intervals =
                    entity.usable_intervals(jobs, |sensor: &Metric| match sensor.metric.find('2') {
                        Some(at) => Err(SensorRefusal::new(&"metric", "a 2").at_column(at as u16 + 1)),
                        None => Ok(()),
                    });
                jobs.add(NewJob::new(intervals, params));
            }
            Makes::PerAccount | Makes::Own(_) | Makes::Never => {}
        }
    }

    fn account_jobs(&self, account: &AccountView<'_, Self>, jobs: &mut dyn JobSink<Params>) {
        if self.makes == Makes::PerAccount {
            let entities = account.entities().count() as u32;
            jobs.add(NewJob::new(minute(), Params { entities, ..none() }).named("all"));
        }
        if self.makes == Makes::Never {
            for name in ["first", "second"] {
                jobs.add(NewJob::new(Intervals::EMPTY, none()).named(name));
            }
        }
    }

    fn own_jobs(&self, _: u64, jobs: &mut dyn JobSink<Params>) {
        if let Makes::Own(n) = self.makes {
            (0..n).for_each(|i| jobs.add(NewJob::new(minute(), none()).item(i)));
        }
    }

    async fn perform<C: Context<Bot = Self>>(
        &self,
        _: &Params,
        _: &Due,
        _: &mut C,
    ) -> Result<(), &'static str> {
        Ok(())
    }
}

pub fn minute() -> Intervals {
    Intervals::one(Interval::new(60).unwrap())
}

/// Growable memory, with few of each kind at first.
pub type VecStorage<B = TestBot> = grafolean_test::Memory<B>;
pub type VecLinks = grafolean_test::Links;

// ---- the backend ----

/// What the driver sends.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub method: Method,
    pub resource: Resource,
    pub body: String,
}

/// What comes back.
#[derive(Clone, Debug)]
pub enum Reply {
    Answer {
        status: u16,
        body: Vec<u8>,
        retry_after_ms: Option<u32>,
    },
    /// The connection breaks after these bytes of a 200's body.
    Breaks(Vec<u8>),
    NotSent,
    Lost,
    /// The request stays open: the test goes on with it.
    Open,
}

pub fn ok(body: impl Into<Vec<u8>>) -> Reply {
    Reply::Answer { status: 200, body: body.into(), retry_after_ms: None }
}

pub fn status(status: u16) -> Reply {
    Reply::Answer { status, body: b"no".to_vec(), retry_after_ms: None }
}

/// An account's lists, element by element.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    pub entities: Vec<String>,
    pub credentials: Vec<String>,
    pub sensors: Vec<String>,
}

pub fn list(elements: &[String]) -> String {
    format!("{{\"list\":[{}]}}", elements.join(","))
}

/// A device of the bot's protocol; sensors with intervals as JSON.
pub fn device(id: u64, credential: u64, sensors: &[(u64, &str)]) -> String {
    let sensors: Vec<String> =
        sensors.iter().map(|(id, i)| format!("{{\"sensor\":{id},\"interval\":{i}}}")).collect();
    format!(
        "{{\"id\":{id},\"name\":\"Device {id}\",\"entity_type\":\"device\",\"parent\":null,\
         \"details\":{{\"ipv4\":\"192.0.2.{}\"}},\"protocols\":{{\"{PROTOCOL}\":{{\"credential\":{credential},\
         \"sensors\":[{}],\"bot\":{ME}}}}}}}",
        id % 250,
        sensors.join(",")
    )
}

pub fn credential(id: u64) -> String {
    format!(
        "{{\"id\":{id},\"name\":\"c\",\"protocol\":\"{PROTOCOL}\",\"details\":{{\"username\":\"u{id}\",\"timeout\":\"3\"}}}}"
    )
}

pub fn sensor(id: u64, default_interval: &str) -> String {
    format!(
        "{{\"id\":{id},\"name\":\"s\",\"protocol\":\"{PROTOCOL}\",\"default_interval\":{default_interval},\
         \"details\":{{\"metric\":\"m{id}\"}}}}"
    )
}

/// A value that has arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrived {
    pub account: u64,
    pub path: String,
    pub number: String,
    pub time: Option<String>,
}

/// Decides about a request before the world answers it; the number counts requests from 0.
pub type Rule = Box<dyn FnMut(usize, &Asked) -> Option<Reply>>;

/// The backend as it stands.
pub struct World {
    pub user_id: u64,
    pub tied: Option<u64>,
    pub accounts: BTreeMap<u64, Lists>,
    pub arrived: Vec<Arrived>,
    pub rule: Option<Rule>,
    pub date_unix_s: Option<u64>,
    next_id: u64,
}

impl World {
    pub fn new() -> Self {
        World {
            user_id: ME,
            tied: None,
            accounts: BTreeMap::new(),
            arrived: Vec::new(),
            rule: None,
            date_unix_s: None,
            next_id: 900,
        }
    }

    /// One account, its devices from 1 on, each with credential 1 and sensor 1 at 60 s.
    pub fn small(devices: u64) -> Self {
        let mut world = World::new();
        let lists = world.accounts.entry(ACCOUNT).or_default();
        lists.entities = (1..=devices).map(|id| device(id, 1, &[(1, "null")])).collect();
        lists.credentials = vec![credential(1)];
        lists.sensors = vec![sensor(1, "60")];
        world
    }

    pub fn lists(&mut self, account: u64) -> &mut Lists {
        self.accounts.entry(account).or_default()
    }

    fn answer(&mut self, n: usize, asked: &Asked) -> Reply {
        if let Some(reply) = self.rule.as_mut().and_then(|rule| rule(n, asked)) {
            return reply;
        }
        let get = asked.method == Method::Get;
        match asked.resource {
            Resource::Status => ok("{\"db_migration_needed\":false,\"user_exists\":true}"),
            Resource::Profile => {
                let tied = self.tied.map_or("null".into(), |t| t.to_string());
                ok(format!(
                    "{{\"user_id\":{},\"user_type\":\"bot\",\"record\":{{\"protocol\":\"{PROTOCOL}\",\"tied_to_account\":{tied}}}}}",
                    self.user_id
                ))
            }
            Resource::Accounts => {
                let all: Vec<String> =
                    self.accounts.keys().map(|id| format!("{{\"id\":{id},\"name\":\"a\"}}")).collect();
                ok(list(&all))
            }
            Resource::Entities(a) if get => ok(list(&self.lists(a).entities)),
            Resource::Credentials(a) => ok(list(&self.lists(a).credentials)),
            Resource::Sensors(a) => ok(list(&self.lists(a).sensors)),
            Resource::Entities(_) => {
                self.next_id += 1;
                let body = format!("{{\"id\":{}}}", self.next_id).into_bytes();
                Reply::Answer { status: 201, body, retry_after_ms: None }
            }
            Resource::Entity(a, e) if get => {
                let found =
                    self.lists(a).entities.iter().find(|el| el.starts_with(&format!("{{\"id\":{e},")));
                // A single answer of an old backend has what its list lacks.
                found.map_or_else(|| status(404), |el| ok(el.replace("\"later\":", "\"protocols\":")))
            }
            Resource::Entity(..) => Reply::Answer { status: 204, body: Vec::new(), retry_after_ms: None },
            Resource::Values(account) => {
                let values: Vec<serde_json::Value> = serde_json::from_str(&asked.body).unwrap();
                self.arrived.extend(values.iter().map(|v| Arrived {
                    account,
                    path: v["p"].as_str().unwrap().to_owned(),
                    number: v["v"].to_string(),
                    time: v.get("t").map(ToString::to_string),
                }));
                Reply::Answer { status: 204, body: Vec::new(), retry_after_ms: None }
            }
        }
    }
}

// ---- the driver ----

pub fn settings() -> Settings {
    let mut settings = Settings::host(Token::parse(TOKEN).unwrap(), "/api");
    settings.wait_until_ready = false;
    settings
}

/// A collector with a backend, on simulated time.
pub struct Sim<S: Storage<TestBot>> {
    pub collector: Collector<TestBot, S>,
    pub bot: TestBot,
    pub world: World,
    /// Bodies arrive in pieces of this many bytes.
    pub chunk: usize,
    pub now: Millis,
    /// The host's clock at time 0; `None`: a board.
    pub unix_at_0: Option<u64>,
    /// All requests so far.
    pub asked: Vec<Asked>,
    /// All actions so far, as text, with their time.
    pub log: Vec<String>,
    pub events: Vec<Event>,
    /// Runs under way.
    pub running: Vec<Due>,
    /// Requests under way that were answered with [`Reply::Open`].
    pub open: Vec<RequestId>,
    /// Every run ends at once.
    pub quick: bool,
}

impl<S: Storage<TestBot>> Sim<S> {
    pub fn new(bot: TestBot, world: World, storage: S, settings: Settings) -> Self {
        Sim {
            collector: Collector::new(settings, storage),
            bot,
            world,
            chunk: usize::MAX,
            now: Millis(0),
            unix_at_0: Some(1_700_000_000_000),
            asked: Vec::new(),
            log: Vec::new(),
            events: Vec::new(),
            running: Vec::new(),
            open: Vec::new(),
            quick: true,
        }
    }

    fn told(&mut self) {
        while let Some(event) = self.collector.poll_event() {
            self.log.push(format!("{} {event}", self.now.0));
            self.events.push(event);
        }
    }

    /// Does what there is to do now.
    pub fn settle(&mut self) {
        self.collector.handle_time(self.now);
        if let Some(unix) = self.unix_at_0 {
            self.collector.handle_system_clock(UnixMillis(unix + self.now.0));
        }
        let mut steps = 0;
        while let Some(action) = self.collector.poll(&self.bot) {
            steps += 1;
            assert!(steps < 1_000_000, "it never comes to rest");
            self.log.push(format!("{} {action:?}", self.now.0));
            match action {
                Action::Send(id) => self.exchange(id),
                Action::Run(due) if self.quick => self.collector.handle_completed(due.run),
                Action::Run(due) => self.running.push(due),
                Action::Cancel(run) => {
                    self.running.retain(|due| due.run != run);
                    self.collector.handle_completed(run);
                }
                _ => {}
            }
        }
        self.told();
        if let Some(next) = self.collector.poll_timeout() {
            assert!(next > self.now, "it asks to be called again at once, and then does nothing");
        }
    }

    fn exchange(&mut self, id: RequestId) {
        let head = self.collector.request_head(id).unwrap();
        let mut target = String::new();
        self.collector.write_target(id, &mut target).unwrap();
        let path = format!("/api{}", head.resource);
        let token = if head.resource == Resource::Status { String::new() } else { format!("?b={TOKEN}") };
        assert_eq!(target, path + &token);
        let mut body = vec![0; head.body_len.unwrap_or(0)];
        let mut at = 0;
        while at < body.len() {
            let end = body.len().min(at.saturating_add(self.chunk));
            let n = self.collector.request_body(id, at, &mut body[at..end]);
            assert!(n > 0, "the body is shorter than its length");
            at += n;
        }
        let asked =
            Asked { method: head.method, resource: head.resource, body: String::from_utf8(body).unwrap() };
        let mut line = String::new();
        write!(line, "{} {} {}", asked.method.as_str(), asked.resource, asked.body).unwrap();
        self.log.push(line);
        let reply = self.world.answer(self.asked.len(), &asked);
        self.asked.push(asked);
        match reply {
            Reply::Answer { status, body, retry_after_ms } => {
                self.head(id, status, retry_after_ms);
                if self.feed(id, &body) {
                    self.collector.handle_response_end(&self.bot, id);
                }
            }
            Reply::Breaks(body) => {
                self.head(id, 200, None);
                if self.feed(id, &body) {
                    self.collector.handle_request_error(&self.bot, id, RequestError::Lost);
                }
            }
            Reply::NotSent => self.collector.handle_request_error(&self.bot, id, RequestError::NotSent),
            Reply::Lost => self.collector.handle_request_error(&self.bot, id, RequestError::Lost),
            Reply::Open => self.open.push(id),
        }
    }

    pub fn head(&mut self, id: RequestId, status: u16, retry_after_ms: Option<u32>) {
        let date_unix_s = self.world.date_unix_s.map(|s| s + self.now.0 / 1000);
        self.collector.handle_response_head(id, ResponseHead { status, date_unix_s, retry_after_ms });
    }

    /// Gives a body in pieces; false if the collector wants no more.
    pub fn feed(&mut self, id: RequestId, body: &[u8]) -> bool {
        for piece in body.chunks(self.chunk.min(body.len().max(1))) {
            let mut rest = piece;
            while !rest.is_empty() {
                match self.collector.handle_response_body(&self.bot, id, rest) {
                    BodyStatus::Unwanted => return false,
                    BodyStatus::Taken(0) => panic!("no progress in a body that nobody reads"),
                    BodyStatus::Taken(n) => rest = &rest[n..],
                }
            }
        }
        true
    }

    /// Goes on to `to`, stopping at each instant that the collector asks for.
    pub fn until(&mut self, to: Millis) {
        self.settle();
        while let Some(next) = self.collector.poll_timeout().filter(|t| *t <= to) {
            self.now = next;
            self.settle();
        }
        self.now = self.now.max(to);
        self.settle();
    }

    /// Goes on until the next refresh has ended, well or not: its last word.
    pub fn refresh(&mut self) -> Result<RefreshSummary, RefreshError> {
        let seen = self.events.len();
        for _ in 0..100_000 {
            self.settle();
            let ended = self.events[seen..].iter().rev().find_map(|e| match e {
                Event::Refreshed(s) => Some(Ok(*s)),
                Event::RefreshFailed { error, .. } => Some(Err(*error)),
                _ => None,
            });
            if let Some(ended) = ended {
                return ended;
            }
            self.now = self.collector.poll_timeout().unwrap();
        }
        panic!("no refresh");
    }

    /// Has a refresh begin now.
    pub fn refresh_now(&mut self) -> Result<RefreshSummary, RefreshError> {
        self.collector.refresh_soon();
        self.refresh()
    }

    /// A refresh whose end may be among lost events.
    pub fn refresh_lossy(&mut self) -> RefreshSummary {
        self.settle();
        *self.collector.refresh_summary()
    }

    pub fn keys(&mut self) -> Vec<JobKey> {
        let mut keys: Vec<JobKey> = self.collector.jobs(|t| t.iter().map(|(_, k, _)| *k).collect());
        keys.sort();
        keys
    }

    /// Ids of the entities that have jobs.
    pub fn entities(&mut self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.keys().iter().map(|k| k.entity).collect();
        ids.dedup();
        ids
    }

    /// All jobs: key, intervals, where the grid stands, and the sensors of the entity as they are now.
    pub fn plan(&mut self) -> Vec<String> {
        self.keys()
            .into_iter()
            .map(|key| {
                let grid = self.collector.jobs(|t| t.grid(&key));
                let sensors = self.collector.entity_of(&key, |e| {
                    let sensors: Vec<_> = e
                        .sensors()
                        .map(|s| (s.id, s.interval.map(Interval::seconds), s.details.clone()))
                        .collect();
                    (e.name().to_string(), e.details().clone(), e.credential().clone(), sensors)
                });
                format!("{key} {grid:?} {sensors:?}")
            })
            .collect()
    }

    /// Faults told since the last call, and those told to have gone.
    pub fn faults(&mut self) -> (Vec<Fault>, Vec<Fault>) {
        let (mut came, mut gone) = (Vec::new(), Vec::new());
        for event in self.events.drain(..) {
            match event {
                Event::Fault(fault) => came.push(fault),
                Event::FaultGone(fault) => gone.push(fault),
                Event::Lost(n) => panic!("{n} events were lost"),
                _ => {}
            }
        }
        (came, gone)
    }

    /// As [`Sim::faults`], in short.
    pub fn kinds(&mut self) -> Vec<(u64, (Kind, u64), FaultKind)> {
        self.faults().0.into_iter().map(|f| (f.entity, f.item, f.kind)).collect()
    }

    pub fn resources(&self) -> Vec<Resource> {
        self.asked.iter().map(|a| a.resource).collect()
    }
}

pub fn host(world: World) -> Sim<VecStorage> {
    Sim::new(TestBot::CONTROLLED, world, VecStorage::new(), settings())
}

/// Like the large account: 300 devices with 5 sensors each, 1383 of which have an interval. Odd: names with any
/// characters, escapes, details of no interest, sensors in any order, items of other protocols.
pub fn large() -> World {
    let mut random = SplitMix64::new(20);
    let mut world = World::new();
    let lists = world.accounts.entry(ACCOUNT).or_default();
    let units = ["B/s", "\u{b0}C", "%"];
    // As in the account that was captured: 18 sensors at 60 s, 9 at 300 s, 5 at 3600 s, 2 at 30 s, 6 without.
    let defaults: Vec<&str> = [("60", 18), ("300", 9), ("3600", 5), ("30", 2), ("null", 6)]
        .iter()
        .flat_map(|(i, n)| std::iter::repeat_n(*i, *n))
        .collect();
    let sensor_id = |i: usize| 70_000_000 + i as u64 * 51_234_567;
    let credential_id = |i: u64| 81_077_901 + i * 212_345_678;
    for (i, default) in defaults.iter().enumerate() {
        lists.sensors.push(format!(
            "{{\"id\":{},\"name\":\"Sensor {i:02}\",\"protocol\":\"{PROTOCOL}\",\"default_interval\":{default},\"details\":{{\"metric\":\"metric.{i:02}\",\"expression\":\"$1 / $2 * 100\",\"unit\":\"{}\"}}}}",
            sensor_id(i), units[i % 3]
        ));
    }
    lists.sensors.insert(7, "{\"id\":182726235,\"name\":\"Default NetFlow sensor\",\"protocol\":\"netflow\",\"default_interval\":null,\"details\":{}}".into());
    for i in 0..8 {
        lists.credentials.push(format!(
            "{{\"id\":{},\"name\":\"Credential {i:02}\",\"protocol\":\"{PROTOCOL}\",\"details\":{{\"username\":\"collector{i:02}\",\"password\":\"pa\\\"ss\\\\{i:02}\",\"timeout\":{}}}}}",
            credential_id(i), i + 2
        ));
    }
    lists.credentials.push("{\"id\":707888262,\"name\":\"Default ICMP ping credential (3 packets)\",\"protocol\":\"ping\",\"details\":{\"n_packets\":\"3\",\"sleep_packets\":\"1.0\"}}".into());
    let mut without = 117;
    for i in 0..300u64 {
        let name = if i % 7 == 0 { "\u{10c}rnu\u{10d}e" } else { "rack" };
        // Every fifth sensor that could be without interval is.
        let mut picked: Vec<usize> = Vec::new();
        if without > 0 && random.below(2) == 0 {
            picked.push(34 + random.below(6) as usize);
            without -= 1;
        }
        while picked.len() < 5 {
            let next = random.below(34) as usize;
            if !picked.contains(&next) {
                picked.push(next);
            }
        }
        let turn = random.below(5) as usize;
        picked.rotate_left(turn);
        let links: Vec<String> = picked
            .iter()
            .map(|&s| {
                let own =
                    if s >= 34 { "null" } else { ["null", "15", "120", "null"][random.below(4) as usize] };
                format!("{{\"sensor\":{},\"interval\":{own}}}", sensor_id(s))
            })
            .collect();
        let bot = if i % 11 == 0 { "null".to_owned() } else { ME.to_string() };
        lists.entities.push(format!(
            "{{\"id\":{},\"name\":\"Router {i:03} ({name})\",\"entity_type\":\"device\",\"parent\":null,\"details\":{{\"ipv4\":\"127.0.0.{}\",\"location\":{{\"rack\":\"R{:02}\",\"row\":{}}}}},\"protocols\":{{\"{PROTOCOL}\":{{\"credential\":{},\"sensors\":[{}],\"bot\":{bot}}}}}}}",
            6_719_205 + i * 7_000_003, i % 250 + 1, i % 20, i % 7, credential_id(i % 8), links.join(",")
        ));
    }
    assert_eq!(without, 0, "the generator's seed gives all of them");
    world
}

/// A seed for randomised tests: from the environment variable, or the one given; printed.
pub fn seed(name: &str, default: u64) -> u64 {
    let seed = std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default);
    println!("{name}={seed}");
    seed
}
