//! Runs a bot on tokio: one task, or N threads.
//!
//! The collector sits behind a mutex that is held for single calls, never across an await. One loop tells it the time,
//! does what it says and waits; runs are futures of that loop's task, or of N threads with a runtime each. A bot's futures
//! need not be `Send`: they are made and stay where they run.

mod episodes;
mod exchange;
mod kept;
mod run_faults;
mod storage;
#[cfg_attr(not(feature = "test-disk"), expect(unreachable_pub, reason = "public for simulations only"))]
mod store;
mod workers;

use core::fmt;
use core::future::Future;
use core::time::Duration;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use grafolean_core::api::{BaseUrl, Resource, Token, TokenError, UrlError};
use grafolean_core::bot::{Bot, HandOverError};
use grafolean_core::collector::{self, Action, Collector};
use grafolean_core::context::Lender;
use grafolean_core::jobs::{Due, JobCounters, JobKey};
use grafolean_core::journal::{Event, Fault, FaultKind, RefreshError};
use grafolean_core::outbox::{self, Ledger};
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::NumberText;
use tokio::sync::{Notify, watch};

pub use self::storage::{Heap, Limits, Links, MAX_LINKS};
#[cfg(feature = "test-disk")]
#[doc(hidden)]
pub use self::store::Keeper;
pub use self::store::StoreConfig;

use self::exchange::exchange;
use self::kept::Kept;
use self::run_faults::{Review, RunFaults};
#[cfg(not(feature = "test-disk"))]
use self::store::Keeper;
use self::workers::{Breather, Threads, Workers, one_task};
use crate::clock::{BootClock, system_unix_ms};
use crate::env;
use crate::http::{Endpoint, HttpClient, HttpConfig, HttpError, SetupError};
use crate::outbox::{Disk, OpenError, RealDisk, Totals};

/// The longest wait: tokio's timers do not count suspended time, so the clock is looked at this often.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long a disk that does not answer is waited for, if [`Config`] does not say otherwise.
pub const DEFAULT_SYNC_WAIT: Duration = Duration::from_secs(10);

/// A directory, or what a test takes for one.
type AnyDisk = Box<dyn Disk + Send>;

/// How a bot is run.
#[derive(Clone, Debug)]
pub struct Config {
    /// How the collector works.
    pub collector: collector::Settings,
    /// Where the backend is.
    pub endpoint: Endpoint,
    /// Limits of the HTTP client.
    pub http: HttpConfig,
    /// How far memory may grow.
    pub limits: Limits,
    /// Files in which values that wait outlive the process; `None`: memory only.
    pub store: Option<StoreConfig>,
    /// Threads that perform runs; `None`: the task that calls.
    pub threads: Option<usize>,
    /// After a stop: how long runs that are under way may go on before they are cut.
    pub stop_runs: Duration,
    /// After a stop: how much longer than [`Config::stop_runs`] it may take until all values are delivered.
    pub stop_flush: Duration,
    /// How long a disk is waited for that does not answer: at the end, for the last syncs, after which the program ends
    /// without them; and by each hand-over under [`Sync::Always`](crate::outbox::Sync::Always), which then goes on. Both
    /// are told.
    pub sync_wait: Duration,
}

/// Why settings can't be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// `BACKEND_URL`
    Url(UrlError),
    /// `BOT_TOKEN`
    Token(TokenError),
    /// A limit of the HTTP client, or the certificates.
    Http(SetupError),
    /// Threads or runtime can't be made.
    Runtime(io::Error),
    /// The outbox's directory.
    Store {
        /// The directory.
        dir: std::path::PathBuf,
        /// Why it can't be used.
        error: OpenError,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Url(e) => write!(f, "BACKEND_URL: {e}"),
            ConfigError::Token(e) => write!(f, "BOT_TOKEN: {e}"),
            ConfigError::Http(e) => write!(f, "{e}"),
            ConfigError::Runtime(e) => write!(f, "threads can't be started: {e}"),
            ConfigError::Store { dir, error } => write!(f, "outbox in {}: {error}", dir.display()),
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<UrlError> for ConfigError {
    fn from(error: UrlError) -> Self {
        ConfigError::Url(error)
    }
}
impl From<TokenError> for ConfigError {
    fn from(error: TokenError) -> Self {
        ConfigError::Token(error)
    }
}
impl From<SetupError> for ConfigError {
    fn from(error: SetupError) -> Self {
        ConfigError::Http(error)
    }
}

impl Config {
    /// Of the backend's base URL and a bot's token, the rest by default.
    ///
    /// # Errors
    /// [`ConfigError::Url`] and [`ConfigError::Token`].
    pub fn new(backend_url: &str, token: &str) -> Result<Self, ConfigError> {
        let url = BaseUrl::parse(backend_url)?;
        if let Some(warning) = url.clear_text() {
            tracing::warn!("{warning}");
        }
        let mut collector = collector::Settings::host(Token::parse(token)?, url.prefix);
        // Bots of one kind that start together must not come back together after an outage.
        collector.seed = system_unix_ms() ^ (u64::from(std::process::id()) << 40);
        collector.outbox.seed = collector.seed.rotate_left(32);
        Ok(Config {
            collector,
            endpoint: Endpoint { https: url.https, host: url.host.to_owned(), port: url.port },
            http: HttpConfig::default(),
            limits: Limits::default(),
            store: None,
            threads: None,
            stop_runs: env::DEFAULT_STOP * 2 / 3,
            stop_flush: env::DEFAULT_STOP / 3,
            sync_wait: DEFAULT_SYNC_WAIT,
        })
    }

    /// Of the settings in the environment.
    ///
    /// # Errors
    /// [`ConfigError::Url`] and [`ConfigError::Token`].
    pub fn from_env(settings: &env::Settings) -> Result<Self, ConfigError> {
        let mut config = Self::new(&settings.backend_url, settings.token.expose())?;
        let interval_s = settings.jobs_refresh_interval.as_secs().max(1);
        config.collector.refresh_interval_s = u32::try_from(interval_s).unwrap_or(u32::MAX);
        config.collector.account = settings.account_id;
        config.http.ca_file = settings.ca_file.clone();
        config.threads = settings.threads.map(Into::into);
        if let Some(runs) = settings.max_runs {
            config.limits.runs = runs.into();
        }
        if let Some(bytes) = settings.outbox_bytes {
            config.limits.outbox_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        if let Some(jobs) = settings.max_jobs {
            config.limits.jobs = jobs.into();
        }
        config.store.clone_from(&settings.store);
        if let Some(store) = &settings.store {
            config.collector.outbox.max_age_ms = store.settings.max_age_ms;
        }
        // Runs first: what they do not need of it is for the values.
        config.stop_runs = settings.stop * 2 / 3;
        config.stop_flush = settings.stop.saturating_sub(config.stop_runs);
        if settings.values_method == env::ValuesMethod::Post {
            config.collector.outbox.delivery = outbox::DeliveryMethod::PostOnly;
        }
        Ok(config)
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// Well.
    Done,
    /// The bot said why not.
    Failed(String),
    /// At its deadline, or because the bot was stopped.
    Cancelled,
    /// The bot panicked; the run is lost, nothing else is.
    Panicked,
    /// Its job had been removed before it began.
    Gone,
}

/// Looks at what happens. Called between steps: it must not wait. With [`Runner::run_on_threads`] several threads call at
/// once.
pub trait Observer: Send + Sync {
    /// An event of the collector; of a refused value, `path` is its path.
    fn event(&self, event: &Event, path: &str) {
        let _ = (event, path);
    }
    /// A request got no answer, or not all of it: which backend, and why. What follows of it comes as an event
    /// ([`Event::RefreshFailed`], `OutboxEvent::LinkDown`), which does not say that.
    fn request_failed(&self, error: &HttpError) {
        let _ = error;
    }
    /// A run begins.
    fn run_began(&self, due: &Due) {
        let _ = due;
    }
    /// A value was handed over and taken. `number.as_str()` is its text as it is sent, made for those who ask for it.
    fn value(&self, due: &Due, path: &str, number: &NumberText) {
        let _ = (due, path, number);
    }
    /// A run has ended after this time, having handed over this many values.
    fn run_ended(&self, due: &Due, end: &RunEnd, took: Duration, values: u32) {
        let _ = (due, end, took, values);
    }
}

/// Looks at nothing.
impl Observer for () {}

/// For an observer that is chosen at run time.
impl<O: Observer + ?Sized> Observer for Box<O> {
    fn event(&self, event: &Event, path: &str) {
        (**self).event(event, path);
    }
    fn request_failed(&self, error: &HttpError) {
        (**self).request_failed(error);
    }
    fn run_began(&self, due: &Due) {
        (**self).run_began(due);
    }
    fn value(&self, due: &Due, path: &str, number: &NumberText) {
        (**self).value(due, path, number);
    }
    fn run_ended(&self, due: &Due, end: &RunEnd, took: Duration, values: u32) {
        (**self).run_ended(due, end, took, values);
    }
}

/// Where values are and what happened to runs: at the end, or so far.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where every value is.
    pub ledger: Ledger,
    /// What happened to runs.
    pub runs: JobCounters,
    /// Runs that failed.
    pub failed_runs: u64,
    /// Turns of the loop: how often there was something to do, or to look whether there is.
    pub turns: u64,
    /// With files: values that wait and are written, which the next start finds.
    pub written: u64,
    /// With files: how many bytes they have.
    pub file_bytes: u64,
    /// With files: how long ago the oldest value that waits was handed over, in seconds.
    pub oldest_s: Option<u64>,
    /// With files: counts over all starts with this directory.
    pub totals: Option<Totals>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = &self.runs;
        write!(
            f,
            "runs: {} begun, {} failed, {} cancelled, {} coalesced ({} instants missed); values: {}",
            r.runs, self.failed_runs, r.cancelled, r.coalesced, r.missed, self.ledger
        )?;
        match &self.totals {
            Some(totals) => {
                write!(f, "; {} of them written, files of {} bytes", self.written, self.file_bytes)?;
                if let Some(seconds) = self.oldest_s {
                    write!(f, ", the oldest waits for {seconds} s")?;
                }
                write!(f, "; of all starts: {totals}")
            }
            None => Ok(()),
        }
    }
}

/// Why requests failed.
#[derive(Default)]
struct HttpFaults {
    /// What was said last; empty if requests have worked since.
    said: String,
    /// Of the last request for values; empty if it worked.
    values: String,
    /// Of the last other request.
    other: String,
}

impl HttpFaults {
    fn of(&mut self, resource: Resource) -> &mut String {
        if matches!(resource, Resource::Values(_)) { &mut self.values } else { &mut self.other }
    }

    /// Why an event came that only says that there is no connection.
    fn cause(&self, event: &Event) -> &str {
        use RefreshError::{Lost, NotSent};
        match event {
            Event::RefreshFailed { error: NotSent | Lost, .. }
            | Event::Fault(Fault { kind: FaultKind::AccountFailed(NotSent | Lost), .. }) => &self.other,
            Event::Outbox(outbox::OutboxEvent::LinkDown { .. }) => &self.values,
            _ => "",
        }
    }
}

/// What the loop, its requests and its runs share.
struct Shared<B: Bot> {
    bot: B,
    collector: Mutex<Collector<B, Heap<B>>>,
    keeper: Option<Arc<Kept<AnyDisk>>>,
    clock: BootClock,
    observer: Box<dyn Observer>,
    /// There may be something to do for the loop.
    changed: Notify,
    /// Counts what has happened to bots' own requests.
    own: watch::Sender<u32>,
    http_faults: Mutex<HttpFaults>,
    failed_runs: AtomicU64,
    turns: AtomicU64,
    run_faults: Mutex<RunFaults>,
}

/// Both clocks are told together: within a millisecond that the collector knows of, its wall clock is right too.
fn tell_time<B: Bot>(collector: &mut Collector<B, Heap<B>>, now: Millis) {
    collector.handle_time(now);
    collector.handle_system_clock(UnixMillis(system_unix_ms()));
}

impl<B: Bot> Lender for Shared<B> {
    type Bot = B;
    type Storage = Heap<B>;

    fn lend<R>(&self, call: impl FnOnce(&mut Collector<B, Heap<B>>) -> R) -> R {
        self.with(call)
    }

    fn now(&self) -> Millis {
        Millis(self.clock.now())
    }

    async fn sleep_ms(&self, ms: u32) {
        tokio::time::sleep(Duration::from_millis(ms.into())).await;
    }

    fn changes(&self) -> u32 {
        *self.own.borrow()
    }

    async fn changed_since(&self, seen: u32) {
        let _ = self.own.subscribe().wait_for(|count| *count != seen).await;
    }

    fn tell(&self) {
        self.own_changed();
        self.changed.notify_one();
    }

    fn hand_over(
        &self,
        account: u64,
        time: Option<UnixMillis>,
        path: &str,
        number: &NumberText,
    ) -> Result<(), HandOverError> {
        let mut collector = self.present();
        let Some(kept) = &self.keeper else { return collector.handle_value(account, time, path, number) };
        let mut keeper = kept.lock();
        let result = keeper.hand_over(&mut collector, account, time, path, number);
        let unsynced = keeper.take_unsynced();
        drop((keeper, collector));
        if let Some(record) = unsynced {
            kept.wait_for(record, || self.now());
        }
        result
    }

    fn value_taken(&self, due: &Due, _: Option<UnixMillis>, path: &str, number: &NumberText) {
        self.observer.value(due, path, number);
        self.changed.notify_one();
    }
}

impl<B: Bot> Shared<B> {
    fn lock(&self) -> MutexGuard<'_, Collector<B, Heap<B>>> {
        // A panic between two calls of the collector leaves it whole.
        self.collector.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called while the collector is locked.
    fn keeper(&self) -> Option<MutexGuard<'_, Keeper<AnyDisk>>> {
        self.keeper.as_ref().map(|k| k.lock())
    }

    /// The collector at the present time. Runs and values come in bursts: within a millisecond of which it knows there is nothing to
    /// tell.
    fn present(&self) -> MutexGuard<'_, Collector<B, Heap<B>>> {
        let now = self.now();
        let mut collector = self.lock();
        if collector.now() < now {
            tell_time(&mut collector, now);
        }
        collector
    }

    /// Calls the collector at the present time.
    fn with<R>(&self, call: impl FnOnce(&mut Collector<B, Heap<B>>) -> R) -> R {
        call(&mut self.present())
    }

    /// A bot's own request has got on, or there is room for more of its answer.
    fn own_changed(&self) {
        self.own.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// A fault of the connection: said when it is another than the last one.
    fn report_http_error(&self, resource: Resource, error: &HttpError) {
        let text = error.to_string();
        {
            let mut faults = self.http_faults();
            faults.of(resource).clone_from(&text);
            if faults.said == text {
                tracing::debug!("{text}");
            } else {
                tracing::warn!("{text}");
                faults.said = text;
            }
        }
        self.observer.request_failed(error);
    }

    fn http_works(&self, resource: Resource) {
        let mut faults = self.http_faults();
        faults.said.clear();
        faults.of(resource).clear();
    }

    fn http_faults(&self) -> MutexGuard<'_, HttpFaults> {
        self.http_faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_events(&self) {
        loop {
            let (event, path) = {
                let mut collector = self.lock();
                let Some(event) = collector.poll_event() else { return };
                (event, collector.refused_path().to_owned())
            };
            let path = if matches!(event, Event::Outbox(outbox::OutboxEvent::ValueRefused { .. })) {
                &path
            } else {
                ""
            };
            let gap = if path.is_empty() { "" } else { ", path " };
            let cause = match self.http_faults().cause(&event) {
                "" => String::new(),
                why => format!(" ({why})"),
            };
            match event {
                Event::RunCancelled(job) => {
                    self.tell_failed_run(job, "the run was cancelled at its deadline")
                }
                event if event.is_warning() => tracing::warn!("{event}{cause}{gap}{path}"),
                event => tracing::info!("{event}{cause}{gap}{path}"),
            }
            if matches!(event, Event::Refreshed(_) | Event::RefreshFailed { .. }) {
                self.review_failed_runs();
            }
            self.observer.event(&event, path);
        }
    }

    fn run_faults(&self) -> MutexGuard<'_, RunFaults> {
        self.run_faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_failed_run(&self, job: JobKey, why: &str) {
        if self.run_faults().failed(job, why) {
            tracing::warn!("{job}: {why}");
        } else {
            tracing::debug!("{job}: {why}");
        }
    }

    fn review_failed_runs(&self) {
        let review = {
            let mut collector = self.lock();
            collector.jobs(|jobs| self.run_faults().review(|job| jobs.get(job).is_some()))
        };
        for job in &review.recovered {
            tracing::info!("{job}: runs well again");
        }
        if review.untold > 0 {
            let Review { untold, failing, .. } = review;
            tracing::warn!("since the refresh before, {untold} more runs failed; {failing} jobs are failing");
        }
    }

    fn run_ended(&self, due: &Due, end: &RunEnd, took: Duration, values: u32) {
        self.with(|c| c.handle_completed(due.run));
        match end {
            RunEnd::Done => self.run_faults().went_well(&due.key),
            RunEnd::Failed(why) => self.tell_failed_run(due.key, why),
            RunEnd::Panicked => self.tell_failed_run(due.key, "the bot panicked"),
            // The collector says so itself, or it is due to a stop.
            RunEnd::Cancelled | RunEnd::Gone => {}
        }
        if matches!(end, RunEnd::Failed(_) | RunEnd::Panicked) {
            self.failed_runs.fetch_add(1, Ordering::Relaxed);
        }
        self.observer.run_ended(due, end, took, values);
        self.tell();
    }
}

/// A bot with all that it needs to run.
pub struct Runner<B: Bot> {
    shared: Arc<Shared<B>>,
    client: HttpClient,
    config: Config,
}

impl<B: Bot> fmt::Debug for Runner<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("client", &self.client).finish_non_exhaustive()
    }
}

impl<B: Bot> Runner<B> {
    /// Prepares a bot; no connection is opened yet.
    ///
    /// # Errors
    /// [`ConfigError::Http`] and [`ConfigError::Store`].
    pub fn new(bot: B, config: Config) -> Result<Self, ConfigError> {
        Self::observed(bot, config, ())
    }

    /// The same, with somebody who looks at what happens.
    ///
    /// # Errors
    /// [`ConfigError::Http`] and [`ConfigError::Store`].
    pub fn observed(bot: B, config: Config, observer: impl Observer + 'static) -> Result<Self, ConfigError> {
        Self::on_disk(bot, config, observer, |store| Ok(Box::new(RealDisk::new(&store.dir)?)))
    }

    /// The same, on a disk of one's own instead of the directory of [`Config::store`].
    ///
    /// # Errors
    /// [`ConfigError::Http`] and [`ConfigError::Store`].
    #[cfg(feature = "test-disk")]
    #[doc(hidden)]
    pub fn tested(
        bot: B,
        config: Config,
        observer: impl Observer + 'static,
        disk: impl Disk + Send + 'static,
    ) -> Result<Self, ConfigError> {
        Self::on_disk(bot, config, observer, |_| Ok(Box::new(disk)))
    }

    fn on_disk(
        bot: B,
        config: Config,
        observer: impl Observer + 'static,
        disk: impl FnOnce(&StoreConfig) -> io::Result<AnyDisk>,
    ) -> Result<Self, ConfigError> {
        let client = HttpClient::new(config.endpoint.clone(), config.http.clone())?;
        let clock = BootClock::new();
        let heap = Heap::new(config.limits);
        let store = config.store.as_ref().filter(|_| !config.collector.plan_only);
        let heap = if store.is_some() { heap.stored() } else { heap };
        let mut collector = Collector::new(config.collector.clone(), heap);
        let keeper = match store {
            None => None,
            Some(store) => {
                tell_time(&mut collector, Millis(clock.now()));
                let keeper = disk(store)
                    .map_err(|error| OpenError::Disk { doing: "make the directory", error })
                    .and_then(|disk| Keeper::open(disk, store.settings, &mut collector))
                    .map_err(|error| ConfigError::Store { dir: store.dir.clone(), error })?;
                let kept = Kept::new(keeper, config.sync_wait, move || Millis(clock.now()));
                Some(kept.map_err(ConfigError::Runtime)?)
            }
        };
        let shared = Shared {
            bot,
            collector: Mutex::new(collector),
            keeper,
            clock,
            observer: Box::new(observer),
            changed: Notify::new(),
            own: watch::Sender::new(0),
            http_faults: Mutex::default(),
            failed_runs: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            run_faults: Mutex::default(),
        };
        Ok(Runner { shared: Arc::new(shared), client, config })
    }

    /// Looks at the collector between two steps: from any thread, while it runs, too.
    ///
    /// Steps of the bot wait until `look` returns, so it should only copy what it needs. What a display needs several times
    /// a second costs little: [`Collector::ledger`], [`Collector::counters`], [`Collector::load`] and
    /// [`Collector::refresh_progress`] are O(1), a job's next instant ([`grafolean_core::jobs::JobTable::next_instant`])
    /// takes a look-up. Going through all jobs is O(jobs): do that once after an [`Event::Refreshed`] that changed some.
    pub fn inspect<R>(&self, look: impl FnOnce(&mut Collector<B, Heap<B>>) -> R) -> R {
        self.shared.with(look)
    }

    /// Where values are and what happened to runs so far: from any thread, while it runs, too. O(1); with files
    /// O(accounts).
    #[must_use]
    pub fn report(&self) -> Report {
        let (failed_runs, turns) =
            (self.shared.failed_runs.load(Ordering::Relaxed), self.shared.turns.load(Ordering::Relaxed));
        let mut collector = self.shared.lock();
        let mut report = Report {
            ledger: *collector.ledger(),
            runs: collector.counters(),
            failed_runs,
            turns,
            written: 0,
            file_bytes: 0,
            oldest_s: None,
            totals: None,
        };
        if let Some(mut keeper) = self.shared.keeper() {
            report.written = keeper.written();
            report.file_bytes = keeper.file_bytes();
            report.oldest_s = keeper.oldest_s(UnixMillis(system_unix_ms()));
            report.totals = Some(keeper.totals(&collector, self.shared.now()));
        }
        report
    }

    /// A refresh is wanted now rather than at its time: something has told that the configuration has changed. While one is
    /// under way, another follows it.
    pub fn refresh_soon(&self) {
        self.shared.with(Collector::refresh_soon);
        self.shared.changed.notify_one();
    }

    /// Runs the bot in the calling task until `stop` resolves: then no run begins any more, runs under way end or are cut
    /// at [`Config::stop_runs`], values that wait are sent for [`Config::stop_flush`] at most.
    pub async fn run(&self, stop: impl Future<Output = ()>) -> Report {
        let shared = &*self.shared;
        self.drive(&mut one_task(shared), stop).await
    }

    /// The same, with the runs on N threads.
    ///
    /// # Errors
    /// [`ConfigError::Runtime`].
    pub async fn run_on_threads(
        &self,
        threads: usize,
        stop: impl Future<Output = ()>,
    ) -> Result<Report, ConfigError>
    where
        B: Send + Sync + 'static,
        Collector<B, Heap<B>>: Send,
    {
        let mut workers = Threads::start(&self.shared, threads).map_err(ConfigError::Runtime)?;
        let report = self.drive(&mut workers, stop).await;
        workers.stop().await;
        Ok(report)
    }

    async fn drive(&self, workers: &mut impl Workers, stop: impl Future<Output = ()>) -> Report {
        let shared = &*self.shared;
        let mut requests = FuturesUnordered::new();
        let mut stop = core::pin::pin!(stop.fuse());
        let mut stopped: Option<tokio::time::Instant> = None;
        let mut cut = false;
        let mut breather = Breather::new();
        loop {
            shared.turns.fetch_add(1, Ordering::Relaxed);
            breather.breathe().await;
            loop {
                let action = shared.with(|c| c.poll(&shared.bot));
                match action {
                    Some(Action::Send(id)) => requests.push(exchange(shared, &self.client, id)),
                    Some(Action::Run(due)) => workers.begin(due),
                    Some(Action::Cancel(run)) => workers.cancel(run),
                    _ => break,
                }
            }
            shared.tell_events();
            let keep_at = shared.with(|c| {
                let mut keeper = shared.keeper()?;
                Some(keeper.step(c, shared.now(), UnixMillis(system_unix_ms()), stopped.is_none()))
            });
            if let Some(kept) = &shared.keeper {
                kept.sync_due(shared.now());
            }
            let (finished, running, next) = {
                let mut c = shared.lock();
                let finished = if self.config.collector.plan_only { c.is_planned() } else { c.is_finished() };
                (finished, c.load().0, c.poll_timeout())
            };
            if finished {
                break;
            }
            let mut wait = next
                .into_iter()
                .chain(keep_at)
                .min()
                .map_or(LONGEST_WAIT, |at| Duration::from_millis(at.since(shared.now())))
                .min(LONGEST_WAIT);
            if let Some(at) = stopped {
                if !cut && running > 0 && at.elapsed() >= self.config.stop_runs {
                    tracing::warn!("{running} runs are cut");
                    workers.cancel_all();
                    cut = true;
                }
                if at.elapsed() >= self.config.stop_runs.saturating_add(self.config.stop_flush) {
                    break;
                }
                wait = wait.min(Duration::from_millis(100));
            }
            tokio::select! {
                () = workers.next() => {}
                Some(()) = requests.next() => {}
                () = shared.changed.notified() => {}
                () = sync_ended(shared.keeper.as_deref()) => {}
                () = tokio::time::sleep(wait) => {}
                () = &mut stop, if stopped.is_none() => {
                    shared.with(Collector::stop);
                    stopped = Some(tokio::time::Instant::now());
                }
            }
        }
        shared.tell_events();
        if let Some(kept) = &shared.keeper {
            self.close(kept).await;
        }
        self.report()
    }

    /// Writes and syncs what waits; waits for the disk, but not for ever.
    async fn close(&self, kept: &Kept<AnyDisk>) {
        let shared = &*self.shared;
        loop {
            if !kept.idle(|| shared.now()).await {
                break;
            }
            let unix = UnixMillis(system_unix_ms());
            let more = shared.with(|c| kept.lock().close_step(c, shared.now(), unix));
            if !more {
                return;
            }
        }
        let s = self.config.sync_wait.as_secs_f32();
        let values = shared.with(|c| kept.lock().unwritten(c));
        tracing::warn!(
            "the outbox's disk has not answered for {s} s, the end does not wait for it: {values} waiting values are not written, and what was written since the last sync would not survive a loss of power"
        );
    }
}

/// Resolves when a sync has ended; never if there is nothing to sync.
async fn sync_ended(kept: Option<&Kept<AnyDisk>>) {
    match kept {
        Some(kept) => kept.ended().await,
        None => core::future::pending().await,
    }
}

/// Resolves at SIGTERM or Ctrl-C. A second one ends the process at once, with exit code 130.
///
/// # Errors
/// The system refuses to tell of signals.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    #[cfg(unix)]
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    Ok(async move {
        #[cfg(unix)]
        {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
            tracing::info!("stopping; a second signal ends at once");
            tokio::spawn(async move {
                tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
                std::process::exit(130);
            });
        }
        #[cfg(not(unix))]
        {
            let _ = tokio::signal::ctrl_c().await;
            tracing::info!("stopping");
        }
    })
}
