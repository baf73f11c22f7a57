//! The backend on sockets: HTTP/1.1 with the manners of uvicorn, and the handle that tests hold.
//!
//! ```
//! use grafolean_stand_in::{Config, StandIn};
//! let stand_in = StandIn::builder().config(Config::demo()?).spawn_thread()?;
//! println!("{}", stand_in.base_url());
//! stand_in.change(|backend| backend.remove_account(1))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! One thread answers all requests in the order in which they were read, so a request that stores 10000 values holds the
//! others up for some tens of milliseconds, but never the sockets.

use core::convert::Infallible;
use core::fmt;
use core::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::backend::{Backend, Reply, Request};
use crate::config::{Config, ConfigError};
use crate::connection::{Connection, Phase, Tcp};
use crate::door::Door;
use crate::exchange::{End, NoAnswer, exchange};
use crate::first_line::{FirstLines, PutAside};
use crate::log::{Counters, Event, Log, RequestRecord};
use crate::misbehave::{Rule, RuleError, RuleId, Rules};
use crate::store::{StoreError, StoredValue};

/// Body size that the product's front lets through, bytes.
pub const FRONT_BODY_LIMIT: usize = 1_048_576;

/// After how long without a request uvicorn closes a connection.
pub const UVICORN_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How many events a slow listener may be behind before it loses the oldest.
pub const EVENT_CAPACITY: usize = 65_536;

/// How long a shutdown waits for answers that are under way.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(3);

/// Longest head of a request, bytes.
const HEAD_LIMIT: usize = 512 * 1024;

/// Stack of the thread that answers, bytes: deeply nested bodies are read by recursion.
const BACKEND_STACK: usize = 8 * 1024 * 1024;

pub(crate) type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// How a stand-in is to be; see [`StandIn::builder`].
#[derive(Clone)]
#[must_use]
pub struct Builder {
    config: Config,
    listen: SocketAddr,
    db: Option<PathBuf>,
    keep_alive: Option<Duration>,
    body_limit: Option<usize>,
    keep_bodies: bool,
    tls: Option<Arc<rustls::ServerConfig>>,
    clock: Clock,
    rules: Vec<Rule>,
    host_names: Vec<String>,
}

/// Why a stand-in does not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration contradicts itself.
    Config(ConfigError),
    /// A rule of misbehaviour cannot be.
    Rule(RuleError),
    /// The database of values cannot be used.
    Store(StoreError),
    /// The address cannot be listened on.
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The thread or its runtime could not be made.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Rule(error) => write!(f, "misbehaviour: {error}"),
            Self::Store(error) => error.fmt(f),
            Self::Listen { address, source } => write!(f, "cannot listen on {address}: {source}"),
            Self::Thread(source) => write!(f, "cannot start a thread: {source}"),
        }
    }
}

impl core::error::Error for StartError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Rule(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::Listen { source, .. } | Self::Thread(source) => Some(source),
        }
    }
}

/// What was waited for did not happen in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOut(
    /// How long was waited.
    pub Duration,
);

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it did not happen within {:?}", self.0)
    }
}

impl core::error::Error for TimedOut {}

impl Builder {
    /// Accounts, bots and the seed; nothing at all if not given.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// The address; if not given, a free port of 127.0.0.1.
    pub const fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// A file that keeps the values; memory if not given.
    pub fn db(mut self, file: impl Into<PathBuf>) -> Self {
        self.db = Some(file.into());
        self
    }

    /// After how long without a request a connection is closed; none: never. [`UVICORN_KEEP_ALIVE`] if not given.
    pub const fn keep_alive(mut self, limit: Option<Duration>) -> Self {
        self.keep_alive = limit;
        self
    }

    /// Longest body in bytes, above which the answer is the 413 of the product's front; none: as uvicorn alone, no limit.
    /// [`FRONT_BODY_LIMIT`] if not given.
    pub const fn body_limit(mut self, bytes: Option<usize>) -> Self {
        self.body_limit = bytes;
        self
    }

    /// Whether the request log keeps the bodies; not if not given.
    pub const fn keep_bodies(mut self, keep: bool) -> Self {
        self.keep_bodies = keep;
        self
    }

    /// Speaks HTTPS with this certificate.
    pub fn tls(mut self, config: Arc<rustls::ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Unix time in microseconds for values, dates and logs; the system's clock if not given.
    pub fn clock(mut self, now_us: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(now_us);
        self
    }

    /// Misbehaves by this rule from the first request on, after those given before; see [`StandIn::misbehave`]. Their ids count
    /// from 1.
    pub fn misbehave(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// One more name of this host by which the stand-in's own pages may be asked for, without a port, besides its IP addresses and
    /// `localhost`. Other names are refused there, as a web page of somewhere else could have its name point here.
    pub fn host_name(mut self, name: &str) -> Self {
        self.host_names.push(name.to_owned());
        self
    }

    /// Starts on the tokio runtime that this is called on.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(self) -> Result<StandIn, StartError> {
        let stand_in = self.prepare()?;
        stand_in.listen()?;
        Ok(stand_in)
    }

    /// Starts on a thread of its own, for callers without tokio. Must not be called on a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn spawn_thread(self) -> Result<StandInThread, StartError> {
        let stand_in = self.prepare()?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let thread = std::thread::Builder::new()
            .name("stand-in".to_owned())
            .spawn(move || {
                // Ends when the other end is dropped.
                let _ = runtime.block_on(stopped);
            })
            .map_err(StartError::Thread)?;
        let thread = StandInThread { stand_in, runtime: handle, stop: Some(stop), thread: Some(thread) };
        {
            let _runtime = thread.runtime.enter();
            thread.stand_in.listen()?;
        }
        Ok(thread)
    }

    fn prepare(self) -> Result<StandIn, StartError> {
        let seed = self.config.seed;
        let now_us = (self.clock)();
        let mut backend = match &self.db {
            Some(file) => Backend::with_file(seed, file),
            None => Backend::in_memory(seed),
        }
        .map_err(StartError::Store)?;
        self.config.apply(&mut backend, now_us).map_err(StartError::Config)?;
        let core = Arc::new(Core {
            backend: Mutex::new(backend),
            log: Mutex::default(),
            events: broadcast::channel(EVENT_CAPACITY).0,
            changed: watch::Sender::new(0),
            instance: RandomState::new().hash_one(now_us),
            clock: Arc::clone(&self.clock),
            rules: Rules::default(),
            door: Door::default(),
            refused: watch::Sender::new(0),
        });
        for rule in self.rules {
            core.rules.add(rule).map_err(StartError::Rule)?;
        }
        let (jobs, queue) = mpsc::channel::<Job>();
        let worker = Arc::clone(&core);
        std::thread::Builder::new()
            .name("stand-in-backend".to_owned())
            .stack_size(BACKEND_STACK)
            .spawn(move || {
                while let Ok(job) = queue.recv() {
                    let answer = worker.answer(&job.request, job.time_us);
                    // The client may have gone meanwhile; what it asked for is done all the same.
                    let _ = job.reply.send(answer);
                }
            })
            .map_err(StartError::Thread)?;
        let shared = Arc::new(Shared {
            core,
            jobs,
            connections: AtomicU64::new(0),
            keep_alive: self.keep_alive,
            body_limit: self.body_limit,
            keep_bodies: self.keep_bodies,
            tls: self.tls,
            clock: self.clock,
            host_names: self.host_names,
        });
        Ok(StandIn {
            shared,
            seed,
            address: Mutex::new(self.listen),
            running: Mutex::new(None),
            cut: watch::Sender::new(0),
        })
    }
}

pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) time_us: i64,
    pub(crate) reply: oneshot::Sender<Answer>,
}

pub(crate) struct Answer {
    pub(crate) reply: Reply,
    /// The target as logs may show it, and the bot.
    pub(crate) masked: (String, Option<String>),
}

/// What outlives the sockets.
pub(crate) struct Core {
    backend: Mutex<Backend>,
    log: Mutex<Log>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) changed: watch::Sender<u64>,
    /// Tells this stand-in from one that was started before it on the same port.
    pub(crate) instance: u64,
    pub(crate) clock: Clock,
    pub(crate) rules: Rules,
    door: Door,
    /// Counts how often the connections of the backend were closed because nobody is to be let in.
    refused: watch::Sender<u64>,
}

impl Core {
    /// Must not be held over an await, nor for long: all requests wait for it.
    pub(crate) fn backend(&self) -> MutexGuard<'_, Backend> {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Self::backend`].
    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request, time_us: i64) -> Answer {
        let mut backend = self.backend();
        let masked = backend.mask(&request.target);
        Answer { reply: backend.answer(request, time_us), masked }
    }

    pub(crate) fn note(&self, record: RequestRecord, values: Vec<StoredValue>) {
        tracing::debug!(
            connection = record.connection,
            nth = record.nth_on_connection,
            status = record.status,
            values = record.values_stored,
            "{} {}",
            record.method,
            record.path
        );
        if self.events.receiver_count() > 0 {
            for value in values {
                let _ = self.events.send(Event::Value(value));
            }
            let _ = self.events.send(Event::Request(record.clone()));
        }
        self.log().add(record);
        self.changed();
    }

    pub(crate) fn misbehave(&self, rule: Rule) -> Result<RuleId, RuleError> {
        let id = self.rules.add(rule)?;
        self.keep_door();
        self.changed();
        Ok(id)
    }

    pub(crate) fn behave(&self, rule: RuleId) -> bool {
        let stood = self.rules.remove(rule);
        self.keep_door();
        self.changed();
        stood
    }

    pub(crate) fn behave_all(&self) {
        self.rules.remove_all();
        self.keep_door();
        self.changed();
    }

    /// Shuts or opens the door as the rules want it.
    fn keep_door(&self) {
        if self.rules.refuses() {
            if self.door.shut() {
                self.refused.send_modify(|n| *n += 1);
            }
        } else if let Err(error) = self.door.reopen() {
            tracing::error!(%error, "cannot listen again");
        }
    }

    pub(crate) fn changed(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}

pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) jobs: mpsc::Sender<Job>,
    connections: AtomicU64,
    keep_alive: Option<Duration>,
    pub(crate) body_limit: Option<usize>,
    pub(crate) keep_bodies: bool,
    tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) clock: Clock,
    /// Of this host, besides its addresses and `localhost`.
    pub(crate) host_names: Vec<String>,
}

impl Shared {
    pub(crate) const fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }
}

struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// A stand-in on a tokio runtime. It stops when it is dropped; [`StandIn::shutdown`] also waits for it.
pub struct StandIn {
    pub(crate) shared: Arc<Shared>,
    seed: u64,
    address: Mutex<SocketAddr>,
    running: Mutex<Option<Running>>,
    cut: watch::Sender<u64>,
}

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandIn").field("base_url", &self.base_url()).finish_non_exhaustive()
    }
}

impl StandIn {
    /// Settings to start from: a free port of 127.0.0.1, values in memory, no accounts, and the limits of the product.
    pub fn builder() -> Builder {
        Builder {
            config: Config::default(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            db: None,
            keep_alive: Some(UVICORN_KEEP_ALIVE),
            body_limit: Some(FRONT_BODY_LIMIT),
            keep_bodies: false,
            tls: None,
            clock: Arc::new(|| {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
            }),
            rules: Vec::new(),
            host_names: Vec::new(),
        }
    }

    /// The address it listens on, or listened on before it was shut down.
    pub fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What bots take for the backend's address, as `http://127.0.0.1:12345/api`.
    pub fn base_url(&self) -> String {
        self.base_url_at(&self.address().ip().to_string())
    }

    /// The same with another name of this host, such as one that stands in a certificate.
    pub fn base_url_at(&self, host: &str) -> String {
        let scheme = if self.shared.speaks_tls() { "https" } else { "http" };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        format!("{scheme}://{host}:{}/api", self.address().port())
    }

    /// Where a browser sees what happens here.
    pub fn page_url(&self) -> String {
        let base = self.base_url();
        format!("{}/", base.strip_suffix("/api").unwrap_or(&base))
    }

    /// The seed that the ids and tokens it chooses follow from.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The token of a bot, by its short name or name.
    pub fn token(&self, bot: &str) -> Option<String> {
        self.read(|b| {
            let bot = b.bots().iter().find(|b| b.short_name == bot || b.name == bot)?;
            bot.token.as_ref().map(|t| t.reveal().to_owned())
        })
    }

    /// Looks at the backend's state, between two requests.
    pub fn read<T>(&self, look: impl FnOnce(&Backend) -> T) -> T {
        look(&self.shared.core.backend())
    }

    /// Changes the backend's state, between two requests.
    pub fn change<T>(&self, change: impl FnOnce(&mut Backend) -> T) -> T {
        let result = change(&mut self.shared.core.backend());
        self.shared.core.changed();
        result
    }

    /// All values of an account by path and time; none if the database fails.
    pub fn values(&self, account: i32) -> Vec<StoredValue> {
        self.read(|b| b.values(account)).unwrap_or_else(|error| {
            tracing::error!(%error, "the stand-in itself failed");
            Vec::new()
        })
    }

    /// The values of one path by time: (Unix microseconds, number); none if the database fails.
    pub fn values_of(&self, account: i32, path: &str) -> Vec<(i64, f64)> {
        self.read(|b| b.values_of(account, path)).unwrap_or_else(|error| {
            tracing::error!(%error, "the stand-in itself failed");
            Vec::new()
        })
    }

    /// How many values are stored, of all accounts; free.
    pub fn value_count(&self) -> u64 {
        self.read(Backend::value_count)
    }

    /// The requests so far, the last [`LOG_CAPACITY`](crate::LOG_CAPACITY) of them.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.shared.core.log().requests.iter().cloned().collect()
    }

    /// Empties the request log; the counters stay.
    pub fn clear_requests(&self) {
        self.shared.core.log().requests.clear();
    }

    /// Sums since the start.
    pub fn counters(&self) -> Counters {
        self.shared.core.log().counters.clone()
    }

    /// Every value and request from now on. A listener that is [`EVENT_CAPACITY`] events behind loses the oldest
    /// and is told so. Without tokio: `blocking_recv`.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.shared.core.events.subscribe()
    }

    /// Waits until a condition holds; it is looked at after each request and change.
    ///
    /// # Errors
    /// [`TimedOut`] when the limit has passed.
    pub async fn wait_for(
        &self,
        limit: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<(), TimedOut> {
        let mut changes = self.shared.core.changed.subscribe();
        let wait = async {
            loop {
                changes.borrow_and_update();
                if condition(self) {
                    return;
                }
                // The sender lives as long as this.
                let _ = changes.changed().await;
            }
        };
        tokio::time::timeout(limit, wait).await.map_err(|_| TimedOut(limit))
    }

    /// Treats requests by a rule from now on; see [`Misbehaviour`](crate::Misbehaviour). It has taken effect when this returns.
    ///
    /// # Errors
    /// [`RuleError`] if the rule cannot be, or [`MAX_RULES`](crate::MAX_RULES) stand already.
    pub fn misbehave(&self, rule: Rule) -> Result<RuleId, RuleError> {
        self.shared.core.misbehave(rule)
    }

    /// How often a rule was applied, even if it has gone since (the last 10000 of those are remembered). To be waited for by
    /// [`wait_for`](Self::wait_for): a request that hangs is applied to and stands in no log yet.
    pub fn misbehaved(&self, rule: RuleId) -> u64 {
        self.shared.core.rules.applied(rule)
    }

    /// Takes a rule away, and what hangs by it goes on. Returns whether it stood.
    pub fn behave(&self, rule: RuleId) -> bool {
        self.shared.core.behave(rule)
    }

    /// Takes all rules away.
    pub fn behave_all(&self) {
        self.shared.core.behave_all();
    }

    /// Closes all open connections at once, whatever is under way on them. It goes on listening.
    pub fn drop_connections(&self) {
        self.cut.send_modify(|n| *n += 1);
    }

    /// Stops listening, lets answers that are under way be finished, and closes all connections. What it knows stays.
    pub async fn shutdown(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            running.stop.send_replace(true);
            let _ = running.task.await;
        }
    }

    /// Listens again after [`shutdown`](Self::shutdown), on the same port and with everything it knew. Does nothing if it listens.
    ///
    /// # Errors
    /// [`StartError::Listen`].
    pub async fn restart(&self) -> Result<(), StartError> {
        if self.running.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        self.listen()
    }

    /// On the runtime that this is called on.
    fn listen(&self) -> Result<(), StartError> {
        let core = &self.shared.core;
        let mut address = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        *address = core
            .door
            .bind(*address, core.rules.refuses())
            .map_err(|source| StartError::Listen { address: *address, source })?;
        drop(address);
        let stop = watch::Sender::new(false);
        let task = tokio::spawn(accept(Arc::clone(&self.shared), stop.subscribe(), self.cut.subscribe()));
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Running { stop, task });
        Ok(())
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.core.door.close();
    }
}

/// A stand-in on a thread of its own. Its waiting calls block, and must not be made on a tokio runtime. It stops when it is dropped.
#[derive(Debug)]
pub struct StandInThread {
    stand_in: StandIn,
    runtime: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl core::ops::Deref for StandInThread {
    type Target = StandIn;

    fn deref(&self) -> &StandIn {
        &self.stand_in
    }
}

impl StandInThread {
    /// As [`StandIn::wait_for`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn wait_for(&self, limit: Duration, condition: impl FnMut(&StandIn) -> bool) -> Result<(), TimedOut> {
        self.runtime.block_on(self.stand_in.wait_for(limit, condition))
    }

    /// As [`StandIn::shutdown`], blocking.
    pub fn shutdown(&self) {
        self.runtime.block_on(self.stand_in.shutdown());
    }

    /// As [`StandIn::restart`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn restart(&self) -> Result<(), StartError> {
        self.runtime.block_on(self.stand_in.restart())
    }
}

impl Drop for StandInThread {
    fn drop(&mut self) {
        // The runtime ends with its thread, and the sockets with the runtime.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(shared: Arc<Shared>, mut stop: watch::Receiver<bool>, cut: watch::Receiver<u64>) {
    let core = &shared.core;
    let mut tasks = JoinSet::new();
    let mut rules = core.rules.changes();
    loop {
        let socket = tokio::select! {
            socket = poll_fn(|cx| core.door.poll_accept(cx)) => socket,
            () = core.rules.change(&mut rules) => {
                // One may be over; and a listener that is new has to be asked anew.
                core.keep_door();
                continue;
            }
            () = stopped(&mut stop) => break,
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                // Too many open files, mostly; it gets better when connections close.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = socket.set_nodelay(true);
        let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let open = OpenConnection::new(Arc::clone(core));
        if core.rules.resets_connection() {
            let _ = socket.set_zero_linger();
            drop(socket);
            core.changed();
            continue;
        }
        let resets = Arc::new(AtomicBool::new(false));
        let socket = Tcp::new(socket, Arc::clone(&resets));
        let (mut cut, mut refused) = (cut.clone(), core.refused.subscribe());
        cut.borrow_and_update();
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tasks.spawn(async move {
            let serve = async {
                match &shared.tls {
                    None => serve(&shared, &open, socket, resets, number, stop).await,
                    Some(tls) => match TlsAcceptor::from(Arc::clone(tls)).accept(socket).await {
                        Ok(socket) => serve(&shared, &open, socket, resets, number, stop).await,
                        Err(error) => tracing::debug!(number, %error, "no TLS connection"),
                    },
                }
            };
            let refused = async { while refused.changed().await.is_ok() && open.is_spared() {} };
            tokio::select! {
                () = serve => {}
                _ = cut.changed() => {}
                () = refused => {}
            }
        });
        while tasks.try_join_next().is_some() {}
    }
    core.door.close();
    let _ = tokio::time::timeout(SHUTDOWN_LIMIT, async { while tasks.join_next().await.is_some() {} }).await;
}

/// Returns once the stand-in is to stop, or is gone.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Counts a connection as open while it lives, unless it is for the stand-in's own pages.
pub(crate) struct OpenConnection {
    core: Arc<Core>,
    counts: AtomicBool,
    /// Whether it is left alone when the connections of the backend are closed.
    spared: AtomicBool,
}

impl OpenConnection {
    fn new(core: Arc<Core>) -> Self {
        {
            let mut log = core.log();
            log.counters.connections += 1;
            log.counters.open_connections += 1;
        }
        core.changed();
        Self { core, counts: AtomicBool::new(true), spared: AtomicBool::new(false) }
    }

    fn is_spared(&self) -> bool {
        self.spared.load(Ordering::Relaxed)
    }

    /// Something of the stand-in's own is asked for; if at first, no client of the backend is at the other end.
    pub(crate) fn is_own(&self, at_first: bool) {
        self.spared.store(true, Ordering::Relaxed);
        if at_first && self.counts.swap(false, Ordering::Relaxed) {
            let mut log = self.core.log();
            log.counters.connections -= 1;
            log.counters.open_connections -= 1;
            drop(log);
            self.core.changed();
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        if *self.counts.get_mut() {
            self.core.log().counters.open_connections -= 1;
            self.core.changed();
        }
    }
}

async fn serve<S>(
    shared: &Arc<Shared>,
    open: &OpenConnection,
    socket: S,
    resets: Arc<AtomicBool>,
    number: u64,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let phase = Arc::new(Phase::default());
    let aside = Arc::new(PutAside::default());
    let socket = FirstLines::new(socket, Arc::clone(&phase), Arc::clone(&aside));
    let io = TokioIo::new(Connection::new(socket, Arc::clone(&phase), shared.keep_alive));
    let nth = AtomicU64::new(0);
    let stop_of_requests = stop.clone();
    let service = service_fn(|request| {
        phase.request_began();
        let nth = nth.fetch_add(1, Ordering::Relaxed) + 1;
        let phase = &phase;
        let first_line = aside.take();
        let (resets, stop, stop_now) = (&resets, stop_of_requests.clone(), stop_of_requests.clone());
        async move {
            let exchange = exchange(shared, request, first_line, open, number, nth, stop).await;
            match exchange {
                // What may take long is not begun at the end.
                Ok((_, End::Stream | End::Wire(..))) if *stop_now.borrow() => Err(NoAnswer::Close),
                Ok((response, end)) => {
                    match end {
                        End::KeepAlive => phase.answered(),
                        End::HangUp => phase.answered_then_hang_up(),
                        End::Linger => phase.answered_then_linger(),
                        End::Stream => phase.streams(),
                        End::Wire(wire, then_hang_up) => phase.answered_on_wire(wire, then_hang_up),
                    }
                    Ok(response)
                }
                Err(no_answer) => {
                    resets.store(no_answer == NoAnswer::Reset, Ordering::Release);
                    Err(no_answer)
                }
            }
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .auto_date_header(false)
        .half_close(true)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(io, service);
    let mut connection = core::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(&mut stop) => {
            if phase.is_quiet() || phase.is_slow() {
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::trace!(number, %error, "connection ended");
    }
}
