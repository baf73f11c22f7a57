//! A bot whose jobs are made per account, shaped like the NetFlow bot: aggregation at several intervals, and upkeep of the
//! account's entities.
//!
//! It shows what a bot needs beyond one job per entity: the hook per account ([`Bot::account_jobs`]), jobs at given
//! instants ([`Phase::Aligned`]), state that a job's later runs find again ([`Context::get_state`]), and the backend
//! handle ([`Context::list_entities`], [`Context::create_entity`]). Flows come from a [`FlowSource`]; receiving
//! NetFlow packets is not its business.
//!
//! # Jobs of each account
//! | job | every | at Unix seconds | does |
//! | --- | --- | --- | --- |
//! | `aggr/1min`, `/15min`, `/1h`, `/4h`, `/24h` | 60, 900, 3600, 14,400, 86,400 s | k · interval + 0, 15, 255, 1755, 5355 s | sums bytes; only if the account has devices |
//! | `maint/remove_old_data` | 3600 s | k · 3600 + 50 s | lets the source forget what no sum needs |
//! | `maint/suggest_entities` | 120 s | k · 120 + 10 s | creates a device for an exporter that the account has none for |
//!
//! That holds on hosts, whose monotonic clock is anchored to Unix time.
//!
//! # Values
//! In bytes, over the time since the same job's last run: `netflow.{label}.{direction}` for the account,
//! `netflow.{label}.{direction}.entity.{id}` for each device; `{direction}` is `ingress` or `egress`.
#![no_std]
#![forbid(unsafe_code)]

mod details;

use core::fmt;
use core::fmt::Write as _;
use core::net::Ipv4Addr;

use grafolean_core::bot::{
    AccountView, Anything, BackendError, Bot, Context, EntityDraft, EntityView, HandOverError, JobSink,
    NewJob, StateError,
};
use grafolean_core::interval::{Interval, Intervals};
use grafolean_core::jobs::{Due, Phase};
use grafolean_core::json::ReadError;
use grafolean_core::model::ListedEntity;
use grafolean_core::time::{Millis, Tick};

pub use details::DeviceDetails;

/// Flows are kept this long, in milliseconds: the longest aggregation, and an hour for a late run of it.
pub const KEEP_MS: u64 = 25 * 3_600_000;

/// The aggregations: name of the job, label in paths, interval in seconds, and an instant of its grid.
const AGGREGATIONS: [(&str, &str, u32, Tick); 5] = [
    ("aggr/1min", "1min", 60, Tick(0)),
    ("aggr/15min", "15min", 900, Tick(15)),
    ("aggr/1h", "1h", 3_600, Tick(255)),
    ("aggr/4h", "4h", 14_400, Tick(1_755)),
    ("aggr/24h", "24h", 86_400, Tick(5_355)),
];

/// The state of an aggregation: the end of the time that it has covered, in milliseconds.
const COVERED: &str = "covered";
/// The state of the suggestions: there if the backend denied the last one.
const DENIED: &str = "denied";

/// Which way a flow went through its interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// In.
    Ingress,
    /// Out.
    Egress,
}

impl Direction {
    const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    /// As it stands in paths.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

/// Flows that were received. All of a bot's accounts share one.
pub trait FlowSource {
    /// The bytes of the flows that `exporter` told of from `from` until just before `to`, by time of receipt.
    fn bytes_between(&self, exporter: Ipv4Addr, direction: Direction, from: Millis, to: Millis) -> u64;

    /// Hands each exporter to `each`, once.
    fn exporters(&self, each: &mut dyn FnMut(Ipv4Addr));

    /// Forgets what was received before `time`.
    fn forget_before(&self, time: Millis);
}

/// A device that tells of flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Device {
    /// The entity's id.
    pub id: u64,
    /// Its address.
    pub ipv4: Ipv4Addr,
}

/// What a job of an account is to do.
#[derive(Clone, PartialEq, Debug)]
pub struct FlowJob<const DEVICES: usize> {
    task: Task,
    /// The account's devices by ascending id, whatever order the backend lists them in; a run has no other way to them.
    devices: heapless::Vec<Device, DEVICES>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Task {
    Aggregate { label: &'static str, interval_s: u32 },
    RemoveOldData,
    SuggestEntities,
}

/// Why a run failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FlowError {
    /// A value was not taken; the others were.
    HandOver(HandOverError),
    /// What was covered could not be stored: the next run sums over one interval.
    State(StateError),
    /// The bot may not create entities. Said once, until a later try succeeds or fails otherwise.
    MayNotCreate,
    /// The backend could not be asked, or did not do what it was asked for.
    Backend(BackendError),
    /// An entity of the account was not readable, so none is created: it may be the exporter's.
    Entity(ReadError),
    /// There are more exporters than this bot looks at; the others are left for later.
    TooManyExporters {
        /// How many it looks at.
        limit: usize,
    },
}

impl fmt::Display for FlowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlowError::HandOver(error) => write!(f, "{error}"),
            FlowError::State(error) => write!(f, "the end of the sums is not remembered: {error}"),
            FlowError::MayNotCreate => {
                f.write_str("the bot has no permission to create entities (POST accounts/N/entities), so exporters are not suggested")
            }
            FlowError::Backend(error) => write!(f, "{error}"),
            FlowError::Entity(error) => write!(f, "an entity is not readable, so none is suggested: {error}"),
            FlowError::TooManyExporters { limit } => write!(f, "more than {limit} exporters, the others must wait"),
        }
    }
}

impl core::error::Error for FlowError {}

/// The bot, for accounts of up to `DEVICES` devices, as many exporters, and entities of up to `ENTITY` bytes of JSON.
#[derive(Clone, Debug)]
pub struct FlowBot<F, const DEVICES: usize = 16, const ENTITY: usize = 1024> {
    flows: F,
}

impl<F, const DEVICES: usize, const ENTITY: usize> FlowBot<F, DEVICES, ENTITY> {
    /// A bot that sums up `flows`.
    pub const fn new(flows: F) -> Self {
        FlowBot { flows }
    }

    /// The flows.
    pub const fn flows(&self) -> &F {
        &self.flows
    }
}

impl<F: FlowSource, const DEVICES: usize, const ENTITY: usize> Bot for FlowBot<F, DEVICES, ENTITY> {
    type Name = ();
    type Entity = DeviceDetails;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = FlowJob<DEVICES>;
    type Error = FlowError;

    fn protocol(&self) -> Option<&str> {
        Some("netflow")
    }

    /// Makes none, but says of which entity no flows can be told.
    fn entity_jobs(&self, entity: &EntityView<'_, Self>, jobs: &mut dyn JobSink<Self::Job>) {
        if entity.details().ipv4.is_none() {
            jobs.refuse("details: `ipv4` is not an IPv4 address");
        }
    }

    fn account_jobs(&self, account: &AccountView<'_, Self>, jobs: &mut dyn JobSink<Self::Job>) {
        let mut devices = heapless::Vec::new();
        for entity in account.entities() {
            let Some(ipv4) = entity.details().ipv4 else { continue };
            if devices.push(Device { id: entity.id(), ipv4 }).is_err() {
                jobs.refuse("more devices than this bot can sum up: some are left out");
                break;
            }
        }
        devices.sort_unstable_by_key(|device| device.id);
        let mut add = |name, interval_s: u32, at, job| {
            if let Ok(interval) = Interval::new(interval_s.into()) {
                jobs.add(NewJob::new(Intervals::one(interval), job).named(name).phase(Phase::Aligned(at)));
            }
        };
        let maintenance = |task| FlowJob { task, devices: heapless::Vec::new() };
        add("maint/remove_old_data", 3_600, Tick(50), maintenance(Task::RemoveOldData));
        add("maint/suggest_entities", 120, Tick(10), maintenance(Task::SuggestEntities));
        if devices.is_empty() {
            return;
        }
        for (name, label, interval_s, at) in AGGREGATIONS {
            let task = Task::Aggregate { label, interval_s };
            add(name, interval_s, at, FlowJob { task, devices: devices.clone() });
        }
    }

    async fn perform<C: Context<Bot = Self>>(
        &self,
        job: &Self::Job,
        _: &Due,
        cx: &mut C,
    ) -> Result<(), FlowError> {
        match job.task {
            Task::Aggregate { label, interval_s } => self.aggregate(label, interval_s, &job.devices, cx),
            Task::RemoveOldData => {
                self.flows.forget_before(Millis(cx.now().0.saturating_sub(KEEP_MS)));
                Ok(())
            }
            Task::SuggestEntities => self.suggest(cx).await,
        }
    }
}

impl<F: FlowSource, const DEVICES: usize, const ENTITY: usize> FlowBot<F, DEVICES, ENTITY> {
    /// Sums up what was received since the last run, or in one interval if there was none.
    fn aggregate<C: Context>(
        &self,
        label: &str,
        interval_s: u32,
        devices: &[Device],
        cx: &mut C,
    ) -> Result<(), FlowError> {
        let to = cx.now();
        let mut bytes = [0; 8];
        let covered = match cx.get_state(COVERED, &mut bytes) {
            Some(8) => Some(Millis(u64::from_le_bytes(bytes))),
            _ => None,
        };
        // A state from a time to come is of another boot's clock.
        let from = covered.filter(|from| *from <= to);
        let from = from.unwrap_or(Millis(to.0.saturating_sub(u64::from(interval_s) * 1000)));
        let mut refused = None;
        for direction in Direction::BOTH {
            let mut sum = 0u64;
            let name = direction.as_str();
            for &Device { id, ipv4 } in devices {
                let bytes = self.flows.bytes_between(ipv4, direction, from, to);
                sum = sum.saturating_add(bytes);
                if let Err(error) = cx.value(format_args!("netflow.{label}.{name}.entity.{id}"), bytes) {
                    refused.get_or_insert(error);
                }
            }
            if let Err(error) = cx.value(format_args!("netflow.{label}.{name}"), sum) {
                refused.get_or_insert(error);
            }
        }
        // Nothing awaits between the values and this: a run that is cancelled has done both or neither.
        cx.set_state(COVERED, &to.0.to_le_bytes()).map_err(FlowError::State)?;
        refused.map_or(Ok(()), |error| Err(FlowError::HandOver(error)))
    }

    /// Creates a device for each exporter that none of the account's entities has the address of.
    async fn suggest<C: Context>(&self, cx: &mut C) -> Result<(), FlowError> {
        let mut unknown = heapless::Vec::<Ipv4Addr, DEVICES>::new();
        let mut fitted = true;
        self.flows.exporters(&mut |exporter| fitted &= unknown.push(exporter).is_ok());
        if !unknown.is_empty() {
            let mut element = [0; ENTITY];
            cx.list_entities().await.map_err(FlowError::Backend)?;
            while let Some(len) = cx.next_entity(&mut element).await.map_err(FlowError::Backend)? {
                let entity =
                    ListedEntity::parse(element.get(..len).unwrap_or_default()).map_err(FlowError::Entity)?;
                if let Some(ipv4) = DeviceDetails::of(entity.details).ipv4 {
                    unknown.retain(|exporter| *exporter != ipv4);
                }
            }
        }
        for exporter in &unknown {
            let (mut name, mut details) = (heapless::String::<40>::new(), heapless::String::<40>::new());
            // Neither is longer than 34 bytes.
            let _ = write!(name, "{exporter} (NetFlow exporter)");
            let _ = write!(details, "{{\"ipv4\":\"{exporter}\"}}");
            let draft = EntityDraft {
                name: &name,
                entity_type: "device",
                parent: None,
                details: &details,
                protocols: None,
            };
            let denied = match cx.create_entity(&draft).await {
                Ok(_) => false,
                Err(BackendError::Status(403)) => true,
                Err(error) => return Err(FlowError::Backend(error)),
            };
            let said = cx.get_state(DENIED, &mut [0; 1]).is_some_and(|len| len > 0);
            if denied != said {
                // An empty state is as good as none. If it has no room, it will be said again.
                let _ = cx.set_state(DENIED, if denied { &[1] } else { &[] });
            }
            match (denied, said) {
                (true, false) => return Err(FlowError::MayNotCreate),
                // The others would be denied as well; a later run tries again.
                (true, true) => return Ok(()),
                (false, _) => {}
            }
        }
        if fitted { Ok(()) } else { Err(FlowError::TooManyExporters { limit: DEVICES }) }
    }
}
