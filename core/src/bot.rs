//! What a bot author writes: the [`Bot`] trait, and the [`Context`] that a running job is given.
//!
//! The same bot type runs on a board without alloc, on one tokio task and on N threads: its futures need not be
//! `Send`, because a run's future is made and stays where it runs.

use core::fmt;
use core::future::Future;

use serde::de::DeserializeOwned;

use crate::interval::{Interval, Intervals, TooManyIntervals};
use crate::jobs::{Due, Phase};
use crate::model::{CredentialRecord, EntityRecord, ItemKey, Link, LinkList, SensorRecord};
use crate::outbox::PushError;
use crate::table::TableRef;
use crate::time::{Millis, UnixMillis};
use crate::values::{Number, ValueError};

/// Details that are not looked at: accepts any JSON, stores nothing.
pub use serde::de::IgnoredAny as Anything;

/// A bot: which details it reads, which jobs it makes of them, and how it performs one.
///
/// A controlled bot that reads registers of thermometers, one job per device:
///
/// ```
/// use grafolean_core::bot::{Bot, Context, EntityView, HandOverError, JobSink, NewJob};
/// use grafolean_core::jobs::Due;
/// use grafolean_core::values::Decimal;
/// use serde::Deserialize;
///
/// #[derive(Clone, Deserialize)]
/// pub struct Device { address: heapless::String<45> }
/// #[derive(Clone, Deserialize)]
/// pub struct Access { #[serde(default)] unit: u8 } // numbers may arrive as strings: "1"
/// #[derive(Clone, Deserialize)]
/// pub struct Register { register: u16 }
///
/// pub struct Thermo;
///
/// impl Bot for Thermo {
///     type Name = ();
///     type Entity = Device;
///     type Credential = Access;
///     type Sensor = Register;
///     type Job = ();
///     type Error = HandOverError;
///
///     fn protocol(&self) -> Option<&str> {
///         Some("thermo")
///     }
///
///     fn entity_jobs(&self, entity: &EntityView<'_, Self>, jobs: &mut dyn JobSink<()>) {
///         if entity.details().address.is_empty() {
///             return jobs.refuse("the address is empty");
///         }
///         let intervals = entity.intervals(jobs); // those of its sensors
///         jobs.add(NewJob::new(intervals, ()));
///     }
///
///     async fn perform<C: Context<Bot = Self>>(&self, _: &(), due: &Due, cx: &mut C) -> Result<(), HandOverError> {
///         let (Some(device), Some(access)) = (cx.entity(), cx.credential()) else { return Ok(()) };
///         let mut n = 0;
///         while let Some(sensor) = cx.sensor(n) {
///             n += 1;
///             if sensor.interval.is_some_and(|interval| due.affects(interval)) {
///                 let tenths = read(&device.address, access.unit, sensor.details.register).await;
///                 let path = format_args!("entity.{}.thermo.r{}", due.key.entity, sensor.details.register);
///                 cx.value(path, Decimal { mantissa: tenths, exponent: -1 })?;
///             }
///         }
///         Ok(())
///     }
/// }
/// # async fn read(_: &str, _: u8, _: u16) -> i64 { 215 }
/// ```
///
/// A bot that needs no details of a kind names [`Anything`] as their type, one that needs no names names `()`.
pub trait Bot {
    /// What is kept of an entity's name: `()` or a `heapless::String<N>` (cut at N bytes).
    type Name: EntityName;
    /// An entity's `details`. Unknown fields are ignored; a missing one costs the entity its jobs unless it has a default
    /// (`#[serde(default)]`). Numbers may be strings (`"3"`, `"1.0"`), as the web page's forms store them; for seconds with
    /// a fraction there is [`crate::json::DurationMs`]. The same holds for credentials and sensors.
    type Entity: DeserializeOwned + Clone;
    /// A credential's `details`. Holds secrets: its `Debug` should not show them.
    type Credential: DeserializeOwned + Clone;
    /// A sensor's `details`.
    type Sensor: DeserializeOwned + Clone;
    /// A job's own parameters, besides what [`Context::entity`], [`Context::credential`] and [`Context::sensor`]
    /// give: often `()`. A job whose parameters are equal is left alone by a refresh.
    type Job: Clone + PartialEq;
    /// Why a run failed: [`RunError`], or the bot's own. Logged; must not show secrets.
    type Error: fmt::Display;

    /// The protocol whose entities this bot polls; `None` for a custom bot, which knows its own jobs.
    fn protocol(&self) -> Option<&str>;

    /// Makes the jobs of an entity. Called at each refresh for each entity that concerns this bot; it must give
    /// the same jobs for the same entity.
    fn entity_jobs(&self, entity: &EntityView<'_, Self>, jobs: &mut dyn JobSink<Self::Job>) {
        let _ = (entity, jobs);
    }

    /// Makes the jobs of an account, seeing all its entities that concern this bot: after their own jobs.
    fn account_jobs(&self, account: &AccountView<'_, Self>, jobs: &mut dyn JobSink<Self::Job>) {
        let _ = (account, jobs);
    }

    /// Makes the jobs without an entity of a custom bot, for the account that it posts to.
    fn own_jobs(&self, account: u64, jobs: &mut dyn JobSink<Self::Job>) {
        let _ = (account, jobs);
    }

    /// Performs one run of a job. Dropped at [`Due::deadline`]; values handed over before count.
    fn perform<C: Context<Bot = Self>>(
        &self,
        job: &Self::Job,
        due: &Due,
        cx: &mut C,
    ) -> impl Future<Output = Result<(), Self::Error>>;
}

/// What is kept of an entity's name.
pub trait EntityName: Clone {
    /// Keeps what fits of the name with these characters. What is no character (half a surrogate pair, which JSON can
    /// escape) comes as U+FFFD, and the name ends there.
    fn keep(name: impl Iterator<Item = char>) -> Self;
}

impl EntityName for () {
    fn keep(_: impl Iterator<Item = char>) {}
}

impl<const N: usize> EntityName for heapless::String<N> {
    fn keep(name: impl Iterator<Item = char>) -> Self {
        let mut kept = heapless::String::new();
        for c in name {
            if kept.push(c).is_err() {
                break;
            }
        }
        kept
    }
}

/// A job that a bot makes. Account and entity of its key are those of the call that it is made in.
#[derive(Clone)]
pub struct NewJob<J> {
    /// Third part of the key: a sensor's id where a bot makes a job per sensor, else 0.
    pub item: u64,
    /// Fourth part of the key, often empty.
    pub name: &'static str,
    /// When it runs.
    pub intervals: Intervals,
    /// Where its grid stands.
    pub phase: Phase,
    /// Whether a spread job may have an extra first run soon after it was made.
    pub first_run: bool,
    /// How long a run may take, if not by the rule (its shortest interval, 10 s to 5 min).
    pub deadline_ms: Option<u32>,
    /// What [`Bot::perform`] is given.
    pub params: J,
}

impl<J> fmt::Debug for NewJob<J> {
    /// Without the parameters, which can hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewJob")
            .field("item", &self.item)
            .field("name", &self.name)
            .field("intervals", &self.intervals)
            .field("phase", &self.phase)
            .field("first_run", &self.first_run)
            .field("deadline_ms", &self.deadline_ms)
            .finish_non_exhaustive()
    }
}

impl<J> NewJob<J> {
    /// A spread job with an extra first run.
    #[must_use]
    pub const fn new(intervals: Intervals, params: J) -> Self {
        NewJob {
            item: 0,
            name: "",
            intervals,
            phase: Phase::Spread,
            first_run: true,
            deadline_ms: None,
            params,
        }
    }

    /// Told apart from other jobs of its entity (or account) by `name`.
    #[must_use]
    pub fn named(self, name: &'static str) -> Self {
        NewJob { name, ..self }
    }

    /// Told apart from other jobs of its entity (or account) by `item`.
    #[must_use]
    pub fn item(self, item: u64) -> Self {
        NewJob { item, ..self }
    }

    /// With another phase.
    #[must_use]
    pub fn phase(self, phase: Phase) -> Self {
        NewJob { phase, ..self }
    }

    /// Runs on its grid only, without an extra first run.
    #[must_use]
    pub fn grid_only(self) -> Self {
        NewJob { first_run: false, ..self }
    }

    /// A run may take this long (milliseconds).
    #[must_use]
    pub fn deadline_ms(self, ms: u32) -> Self {
        NewJob { deadline_ms: Some(ms), ..self }
    }
}

/// Takes the jobs that a bot makes.
pub trait JobSink<J> {
    /// One more job. What does not fit or has no interval is skipped and named in the log.
    fn add(&mut self, job: NewJob<J>);
    /// Says why no job (or no further job) is made of this entity: what is wrong with its settings. Jobs added stay.
    fn refuse(&mut self, why: &'static str);
    /// This sensor is left out of a job.
    fn leave_out(&mut self, sensor: u64, why: TooManyIntervals);
    /// This sensor is left out because its details can't be used. Others, and jobs added, stay.
    fn refuse_sensor(&mut self, sensor: u64, why: SensorRefusal);
}

/// Why a bot can't use a sensor's details: which field, where in it, and what is wrong. It reaches the log, the dry run
/// and the count of faults as all that a refresh skips does, so its texts must not show secrets.
///
/// ```
/// use grafolean_core::bot::SensorRefusal;
///
/// let refusal = SensorRefusal::new(&"expression", "unknown name").at_column(6);
/// assert_eq!(refusal.to_string(), "`expression`, column 6: unknown name");
/// let refusal = SensorRefusal::new(&"oids", "more than there is room for").with_limit(4);
/// assert_eq!(refusal.to_string(), "`oids`: more than there is room for (limit 4)");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SensorRefusal {
    /// The field of the details; a reference to its name, which keeps remembered faults short.
    pub field: &'static &'static str,
    /// What is wrong.
    pub why: &'static str,
    /// Where in the field's text: the character, counted from 1; in a list: the item; 0 if it is about all of it.
    pub column: u16,
    /// The limit that it is beyond, 0 if it is about none.
    pub limit: u16,
}

impl SensorRefusal {
    /// This is wrong with that field, as a whole.
    #[must_use]
    pub const fn new(field: &'static &'static str, why: &'static str) -> Self {
        SensorRefusal { field, why, column: 0, limit: 0 }
    }

    /// It is wrong at this character of the field's text (or at this item of a list), counted from 1.
    #[must_use]
    pub const fn at_column(self, column: u16) -> Self {
        SensorRefusal { column, ..self }
    }

    /// This is the limit that it is beyond.
    #[must_use]
    pub const fn with_limit(self, limit: u16) -> Self {
        SensorRefusal { limit, ..self }
    }
}

impl fmt::Display for SensorRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.field)?;
        if self.column != 0 {
            write!(f, ", column {}", self.column)?;
        }
        write!(f, ": {}", self.why)?;
        if self.limit != 0 {
            write!(f, " (limit {})", self.limit)?;
        }
        Ok(())
    }
}

impl core::error::Error for SensorRefusal {}

/// An entity that concerns a bot, with its credential and sensors.
pub struct EntityView<'a, B: Bot + ?Sized> {
    pub(crate) key: ItemKey,
    pub(crate) name: &'a B::Name,
    pub(crate) parent: u64,
    pub(crate) details: &'a B::Entity,
    pub(crate) credential_id: u64,
    pub(crate) credential: &'a B::Credential,
    pub(crate) links: &'a [Link],
    pub(crate) sensors: TableRef<'a, ItemKey, SensorRecord<B::Sensor>>,
}

impl<B: Bot + ?Sized> Clone for EntityView<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<B: Bot + ?Sized> Copy for EntityView<'_, B> {}

impl<'a, B: Bot + ?Sized> EntityView<'a, B> {
    /// The entity's account.
    #[must_use]
    pub const fn account(&self) -> u64 {
        self.key.account
    }
    /// The entity's id.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.key.id
    }
    /// The entity's name, as far as it is kept.
    #[must_use]
    pub const fn name(&self) -> &'a B::Name {
        self.name
    }
    /// The entity's parent.
    #[must_use]
    pub const fn parent(&self) -> Option<u64> {
        if self.parent == 0 { None } else { Some(self.parent) }
    }
    /// The entity's details.
    #[must_use]
    pub const fn details(&self) -> &'a B::Entity {
        self.details
    }
    /// The id of its credential.
    #[must_use]
    pub const fn credential_id(&self) -> u64 {
        self.credential_id
    }
    /// The details of its credential.
    #[must_use]
    pub const fn credential(&self) -> &'a B::Credential {
        self.credential
    }

    /// Its sensors by ascending id.
    pub fn sensors(&self) -> impl Iterator<Item = SensorView<'a, B::Sensor>> + use<'a, B> {
        let (sensors, account) = (self.sensors, self.key.account);
        self.links.iter().filter_map(move |link| {
            // A slot that holds another sensor by now is none of this entity's.
            sensors.key(link.sensor).filter(|key| **key == ItemKey { account, id: link.id })?;
            let record = sensors.get(link.sensor)?;
            // One that is no interval leaves the sensor out; the refresh has named it.
            let interval =
                if link.interval.is_some() { link.interval } else { record.default_interval.ok()? };
            Some(SensorView { id: link.id, interval, details: record.details.as_ref()? })
        })
    }

    /// The distinct intervals of its sensors; those of sensors that would add a ninth (by ascending id) are left
    /// out and told to `jobs`.
    pub fn intervals<J>(&self, jobs: &mut dyn JobSink<J>) -> Intervals {
        self.usable_intervals(jobs, |_| Ok(()))
    }

    /// The distinct intervals of those of its sensors whose details `check` takes: those that it refuses are left out and
    /// told to `jobs`, so that a sensor that can't be used makes no run due.
    pub fn usable_intervals<J>(
        &self,
        jobs: &mut dyn JobSink<J>,
        mut check: impl FnMut(&B::Sensor) -> Result<(), SensorRefusal>,
    ) -> Intervals {
        let mut set = Intervals::EMPTY;
        for sensor in self.sensors() {
            if let Err(why) = check(sensor.details) {
                jobs.refuse_sensor(sensor.id, why);
                continue;
            }
            if let Some(interval) = sensor.interval
                && let Err(why) = set.insert(interval)
            {
                jobs.leave_out(sensor.id, why);
            }
        }
        set
    }
}

/// A sensor of an entity.
pub struct SensorView<'a, D> {
    /// The sensor's id.
    pub id: u64,
    /// The entity's interval for it, else its default; `None`: it has none, and [`EntityView::intervals`] leaves it out: a bot
    /// that wants to run it all the same gives its job an interval of its own.
    pub interval: Option<Interval>,
    /// The sensor's details.
    pub details: &'a D,
}

impl<D> fmt::Debug for SensorView<'_, D> {
    /// Without the details, which can hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SensorView")
            .field("id", &self.id)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// A sensor of an entity, copied out.
#[derive(Clone)]
pub struct Sensor<D> {
    /// The sensor's id.
    pub id: u64,
    /// The entity's interval for it, else its default; `None`: it has none, and [`EntityView::intervals`] leaves it out: a bot
    /// that wants to run it all the same gives its job an interval of its own.
    pub interval: Option<Interval>,
    /// The sensor's details.
    pub details: D,
}

impl<D> fmt::Debug for Sensor<D> {
    /// Without the details, which can hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sensor")
            .field("id", &self.id)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// An account with its entities that concern a bot.
pub struct AccountView<'a, B: Bot + ?Sized> {
    pub(crate) account: u64,
    pub(crate) entities: &'a dyn EntityList<B>,
}

/// The entities of an account, by position.
pub(crate) trait EntityList<B: Bot + ?Sized> {
    /// The next entity at `index` or later, and its index.
    fn next(&self, index: u32) -> Option<(u32, EntityView<'_, B>)>;
}

impl<'a, B: Bot + ?Sized> AccountView<'a, B> {
    /// The account's id.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.account
    }

    /// Its entities that concern this bot.
    pub fn entities(&self) -> impl Iterator<Item = EntityView<'a, B>> + use<'a, B> {
        let entities = self.entities;
        let mut index = 0u32;
        core::iter::from_fn(move || {
            let (at, entity) = entities.next(index)?;
            index = at.saturating_add(1);
            Some(entity)
        })
    }
}

/// Why an operation on the backend's entities failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum BackendError {
    /// The backend answered with this status; 403: the bot has no permission.
    Status(u16),
    /// No connection: the backend has not got the request, so it can be sent again.
    NotSent,
    /// The connection broke, or was silent for too long: the backend may have done it or not.
    Connection,
    /// The answer could not be read at this byte.
    Answer {
        /// Where, in bytes from its start.
        offset: u64,
    },
    /// An entity, or the body to send, is longer than the buffer.
    TooLong {
        /// The buffer's size in bytes.
        limit: usize,
    },
    /// The next entity was not asked for in time.
    TimedOut {
        /// The limit in milliseconds.
        limit_ms: u32,
    },
    /// The run has ended, or the bot is stopping.
    Stopped,
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendError::Status(403) => {
                f.write_str("the backend answered 403: the bot has no permission for this")
            }
            BackendError::Status(s) => write!(f, "the backend answered {s}"),
            BackendError::NotSent => f.write_str("no connection to the backend"),
            BackendError::Connection => {
                f.write_str("no answer from the backend, which may have done it or not")
            }
            BackendError::Answer { offset } => {
                write!(f, "the backend's answer is not readable at byte {offset}")
            }
            BackendError::TooLong { limit } => write!(f, "longer than the buffer of {limit} bytes"),
            BackendError::TimedOut { limit_ms } => {
                write!(f, "the next entity was not asked for within {limit_ms} ms")
            }
            BackendError::Stopped => f.write_str("the run has ended"),
        }
    }
}

impl core::error::Error for BackendError {}

/// Why keyed state was not stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum StateError {
    /// The value is too long.
    TooLong {
        /// The most bytes that a value can have.
        limit: usize,
    },
    /// There is no room for another key.
    Full {
        /// How many keys there can be.
        capacity: usize,
    },
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::TooLong { limit } => write!(f, "state of more than {limit} bytes"),
            StateError::Full { capacity } => write!(f, "no room for another state: there are {capacity}"),
        }
    }
}

impl core::error::Error for StateError {}

/// Why a value was not taken. It was never collected; nothing else is touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum HandOverError {
    /// Its path or its number is bad.
    Value(ValueError),
    /// There is no room for it.
    Outbox(PushError),
    /// The path's text failed to be written.
    Format,
}

impl fmt::Display for HandOverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandOverError::Value(e) => write!(f, "{e}"),
            HandOverError::Outbox(e) => write!(f, "{e}"),
            HandOverError::Format => f.write_str("the path's text failed to be written"),
        }
    }
}

impl core::error::Error for HandOverError {}

/// Why a run failed, for bots that need no error of their own: takes all that a [`Context`] refuses by `?`, and a
/// reason of the bot's own as text.
///
/// ```
/// use grafolean_core::bot::{Context, RunError};
///
/// async fn report<C: Context>(cx: &mut C, celsius: Option<i32>) -> Result<(), RunError> {
///     cx.value("room.celsius", celsius.ok_or("the thermometer does not answer")?)?;
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RunError {
    /// The bot's own reason.
    Failed(&'static str),
    /// A value was not taken; those before it were.
    HandOver(HandOverError),
    /// State was not stored.
    State(StateError),
    /// An operation on the backend's entities failed.
    Backend(BackendError),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Failed(why) => f.write_str(why),
            RunError::HandOver(e) => e.fmt(f),
            RunError::State(e) => e.fmt(f),
            RunError::Backend(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for RunError {}

impl From<&'static str> for RunError {
    fn from(why: &'static str) -> Self {
        RunError::Failed(why)
    }
}

impl From<HandOverError> for RunError {
    fn from(e: HandOverError) -> Self {
        RunError::HandOver(e)
    }
}

impl From<StateError> for RunError {
    fn from(e: StateError) -> Self {
        RunError::State(e)
    }
}

impl From<BackendError> for RunError {
    fn from(e: BackendError) -> Self {
        RunError::Backend(e)
    }
}

/// What an adapter lends to a running job. Nothing in it is borrowed across an await.
///
/// Parts of the configuration are copied out one at a time, so that a bot on a board needs room for one only; they
/// show what is configured *now*: a refresh may have changed it since the run began, `None` means it is gone.
pub trait Context {
    /// The bot that runs.
    type Bot: Bot + ?Sized;

    /// Monotonic time.
    fn now(&self) -> Millis;

    /// Waits this many milliseconds.
    fn sleep_ms(&mut self, ms: u32) -> impl Future<Output = ()>;

    /// The details of the job's entity; its id and account are in [`Due::key`].
    fn entity(&mut self) -> Option<<Self::Bot as Bot>::Entity>;

    /// The name of the job's entity, as far as it is kept.
    fn entity_name(&mut self) -> Option<<Self::Bot as Bot>::Name>;

    /// The details of the credential of the job's entity.
    fn credential(&mut self) -> Option<<Self::Bot as Bot>::Credential>;

    /// The `n`-th sensor of the job's entity, by ascending id, counted from 0.
    fn sensor(&mut self, n: usize) -> Option<Sensor<<Self::Bot as Bot>::Sensor>>;

    /// Hands over a value with the present time.
    ///
    /// # Errors
    /// [`HandOverError`] if path or number are bad, or it can't be kept: this value is refused, nothing else.
    fn value(&mut self, path: impl fmt::Display, number: impl Number) -> Result<(), HandOverError>;

    /// Hands over a value with a time of its own.
    ///
    /// # Errors
    /// As [`Context::value`].
    fn value_at(
        &mut self,
        time: UnixMillis,
        path: impl fmt::Display,
        number: impl Number,
    ) -> Result<(), HandOverError>;

    /// Reads the job's state `name` into `buf`: its length, or `None` if there is none or it is longer than `buf`.
    fn get_state(&mut self, name: &str, buf: &mut [u8]) -> Option<usize>;

    /// Stores the job's state `name` for its later runs. It goes when the job goes.
    ///
    /// # Errors
    /// [`StateError`]; the old state remains.
    fn set_state(&mut self, name: &str, value: &[u8]) -> Result<(), StateError>;

    /// Forgets those states of the job that it has neither read nor set since the last call, or since the process began: of
    /// a table's rows that are gone, say. A store writes all states anew after it, and it looks at all states of all jobs: not
    /// for each run.
    fn forget_untouched_states(&mut self) {}

    /// Begins to list the account's entities of all protocols and types (`GET /accounts/A/entities`). A list that is open
    /// ends, as it does when something is created, changed or deleted.
    ///
    /// # Errors
    /// [`BackendError`].
    fn list_entities(&mut self) -> impl Future<Output = Result<(), BackendError>>;

    /// Copies the next entity of the list into `buf` as JSON (see [`crate::model::ListedEntity`]): its length,
    /// `None` at the end. The next one is read from the connection when it is asked for.
    ///
    /// # Errors
    /// [`BackendError`]; after [`BackendError::TooLong`] the list goes on with the next entity.
    fn next_entity(&mut self, buf: &mut [u8]) -> impl Future<Output = Result<Option<usize>, BackendError>>;

    /// Creates an entity in the job's account (`POST /accounts/A/entities`): its id. As each request that changes
    /// something, it ends the run's open list.
    ///
    /// # Errors
    /// [`BackendError`]. After [`BackendError::Connection`] the entity may have been created: list the entities before it
    /// is created again. After [`BackendError::NotSent`] it was not.
    fn create_entity(&mut self, entity: &EntityDraft<'_>) -> impl Future<Output = Result<u64, BackendError>>;

    /// Changes an entity of the job's account (`PUT /accounts/A/entities/E`). The backend ignores the parent here,
    /// and removes all protocols unless they are sent back. Ends the run's open list.
    ///
    /// # Errors
    /// [`BackendError`].
    fn update_entity(
        &mut self,
        id: u64,
        entity: &EntityDraft<'_>,
    ) -> impl Future<Output = Result<(), BackendError>>;

    /// Deletes an entity of the job's account (`DELETE /accounts/A/entities/E`). Ends the run's open list.
    ///
    /// # Errors
    /// [`BackendError`].
    fn delete_entity(&mut self, id: u64) -> impl Future<Output = Result<(), BackendError>>;
}

/// An entity to be created or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityDraft<'a> {
    /// Its name.
    pub name: &'a str,
    /// `device` or `interface`.
    pub entity_type: &'a str,
    /// The entity that it belongs to.
    pub parent: Option<u64>,
    /// Its details: a JSON object, sent as it is.
    pub details: &'a str,
    /// Its protocols: a JSON object, sent as it is; `None` on an update removes them all.
    pub protocols: Option<&'a str>,
}

/// Where an entity record of a job is, for the collector.
pub(crate) fn view<'a, B: Bot + ?Sized, L: LinkList>(
    key: ItemKey,
    record: &'a EntityRecord<B::Name, B::Entity, L>,
    credentials: TableRef<'a, ItemKey, CredentialRecord<B::Credential>>,
    sensors: TableRef<'a, ItemKey, SensorRecord<B::Sensor>>,
) -> Option<EntityView<'a, B>> {
    let at = record.credential;
    let credential = credentials.get(at)?;
    Some(EntityView {
        key,
        name: &record.name,
        parent: record.parent,
        details: &record.details,
        credential_id: credentials.key(at)?.id,
        credential: credential.details.as_ref()?,
        links: record.links.as_slice(),
        sensors,
    })
}
