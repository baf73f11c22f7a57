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
use core::pin::Pin;
use core::task::{Context, Poll};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::backend::{Backend, Reply, ReplyBody, Request};
use crate::config::{Config, ConfigError};
use crate::connection::{Connection, Phase};
use crate::log::{Counters, Event, Log, RequestRecord};
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

type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

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
}

/// Why a stand-in does not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration contradicts itself.
    Config(ConfigError),
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

    /// Starts on the tokio runtime that this is called on.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(self) -> Result<StandIn, StartError> {
        let stand_in = self.prepare()?;
        stand_in.listen().await?;
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
        thread.runtime.block_on(thread.stand_in.listen())?;
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
        });
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

struct Job {
    request: Request,
    time_us: i64,
    reply: oneshot::Sender<Answer>,
}

struct Answer {
    reply: Reply,
    path: String,
    bot: Option<String>,
}

/// What outlives the sockets.
struct Core {
    backend: Mutex<Backend>,
    log: Mutex<Log>,
    events: broadcast::Sender<Event>,
    changed: watch::Sender<u64>,
}

impl Core {
    fn backend(&self) -> MutexGuard<'_, Backend> {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request, time_us: i64) -> Answer {
        let mut backend = self.backend();
        let (path, bot) = backend.mask(&request.target);
        let reply = backend.answer(request, time_us);
        Answer { reply, path, bot }
    }

    fn note(&self, record: RequestRecord, values: Vec<StoredValue>) {
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

    fn changed(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}

struct Shared {
    core: Arc<Core>,
    jobs: mpsc::Sender<Job>,
    connections: AtomicU64,
    keep_alive: Option<Duration>,
    body_limit: Option<usize>,
    keep_bodies: bool,
    tls: Option<Arc<rustls::ServerConfig>>,
    clock: Clock,
}

struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// A stand-in on a tokio runtime. It stops when it is dropped; [`StandIn::shutdown`] also waits for it.
pub struct StandIn {
    shared: Arc<Shared>,
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
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        format!("{scheme}://{host}:{}/api", self.address().port())
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
        self.listen().await
    }

    async fn listen(&self) -> Result<(), StartError> {
        let address = self.address();
        let failed = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) =
            listener.local_addr().map_err(failed)?;
        let stop = watch::Sender::new(false);
        let task =
            tokio::spawn(accept(Arc::clone(&self.shared), listener, stop.subscribe(), self.cut.subscribe()));
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Running { stop, task });
        Ok(())
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

async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
    cut: watch::Receiver<u64>,
) {
    let mut tasks = JoinSet::new();
    loop {
        let socket = tokio::select! {
            socket = listener.accept() => socket,
            () = stopped(&mut stop) => break,
        };
        let socket = match socket {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Too many open files, mostly; it gets better when connections close.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = socket.set_nodelay(true);
        let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let open = OpenConnection::new(Arc::clone(&shared.core));
        let (shared, stop, mut cut) = (Arc::clone(&shared), stop.clone(), cut.clone());
        cut.borrow_and_update();
        tasks.spawn(async move {
            let _open = open;
            let serve = async {
                match &shared.tls {
                    None => serve(&shared, socket, number, stop).await,
                    Some(tls) => match TlsAcceptor::from(Arc::clone(tls)).accept(socket).await {
                        Ok(socket) => serve(&shared, socket, number, stop).await,
                        Err(error) => tracing::debug!(number, %error, "no TLS connection"),
                    },
                }
            };
            tokio::select! {
                () = serve => {}
                _ = cut.changed() => {}
            }
        });
        while tasks.try_join_next().is_some() {}
    }
    drop(listener);
    let _ = tokio::time::timeout(SHUTDOWN_LIMIT, async { while tasks.join_next().await.is_some() {} }).await;
}

/// Returns once the stand-in is to stop, or is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Counts a connection as open while it lives.
struct OpenConnection(Arc<Core>);

impl OpenConnection {
    fn new(core: Arc<Core>) -> Self {
        {
            let mut log = core.log();
            log.counters.connections += 1;
            log.counters.open_connections += 1;
        }
        core.changed();
        Self(core)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.log().counters.open_connections -= 1;
        self.0.changed();
    }
}

async fn serve<S>(shared: &Arc<Shared>, socket: S, number: u64, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let phase = Arc::new(Phase::default());
    let io = TokioIo::new(Connection::new(socket, Arc::clone(&phase), shared.keep_alive));
    let nth = AtomicU64::new(0);
    let service = service_fn(|request| {
        phase.request_began();
        let nth = nth.fetch_add(1, Ordering::Relaxed) + 1;
        let phase = &phase;
        async move {
            let exchange = exchange(shared, request, number, nth).await;
            match exchange {
                Ok((response, end)) => {
                    match end {
                        End::KeepAlive => phase.answered(),
                        End::HangUp => phase.answered_then_hang_up(),
                        End::Linger => phase.answered_then_linger(),
                    }
                    Ok(response)
                }
                Err(no_answer) => Err(no_answer),
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
            if phase.is_quiet() {
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

/// Ends a connection without an answer.
#[derive(Debug)]
struct NoAnswer;

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed without an answer")
    }
}

impl core::error::Error for NoAnswer {}

/// What becomes of the connection after an answer, besides what the answer says.
enum End {
    KeepAlive,
    HangUp,
    Linger,
}

async fn exchange(
    shared: &Shared,
    request: hyper::Request<Incoming>,
    connection: u64,
    nth_on_connection: u64,
) -> Result<(Response<Answered>, End), NoAnswer> {
    let begun = Instant::now();
    let (head, body) = request.into_parts();
    let text =
        |name: HeaderName| head.headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let old_client = head.version == Version::HTTP_10;
    let host = text(header::HOST);
    let refused = host.is_none() && !old_client;

    let limit = shared.body_limit.unwrap_or(usize::MAX);
    let announced = body.size_hint().lower();
    let body = if refused || announced > limit as u64 {
        Err(announced > limit as u64)
    } else {
        match Limited::new(body, limit).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(error.is::<LengthLimitError>()),
        }
    };
    let time_us = (shared.clock)();
    let mut record = RequestRecord {
        time_us,
        connection,
        nth_on_connection,
        method: head.method.as_str().to_owned(),
        path: String::new(),
        bot: None,
        user_agent: text(header::USER_AGENT),
        body_len: body.as_ref().map_or(0, Bytes::len),
        body: body.as_ref().ok().filter(|_| shared.keep_bodies).cloned(),
        status: None,
        values_stored: 0,
        took: Duration::ZERO,
    };
    let target = head.uri.path_and_query().map_or_else(|| head.uri.path().to_owned(), ToString::to_string);
    let (mut reply, end) = match body {
        Ok(body) if !refused => {
            let request = Request {
                method: record.method.clone(),
                target,
                absolute_form: head.uri.scheme().is_some() || !head.uri.path().starts_with('/'),
                host,
                authorization: head.headers.get(header::AUTHORIZATION).map(|v| v.as_bytes().to_vec()),
                content_type: text(header::CONTENT_TYPE),
                origin: text(header::ORIGIN),
                access_control_request_method: text(header::ACCESS_CONTROL_REQUEST_METHOD),
                body,
            };
            let (answer, answered) = oneshot::channel();
            shared.jobs.send(Job { request, time_us, reply: answer }).map_err(|_| NoAnswer)?;
            let answer = answered.await.map_err(|_| NoAnswer)?;
            record.path = answer.path;
            record.bot = answer.bot;
            let end = if answer.reply.hang_up { End::HangUp } else { End::KeepAlive };
            (answer.reply, end)
        }
        too_large => {
            (record.path, record.bot) = shared.core.backend().mask(&target);
            if too_large != Err(true) {
                // No host, or the body ended in the middle.
                record.took = begun.elapsed();
                shared.core.note(record, Vec::new());
                return Err(NoAnswer);
            }
            (too_large_reply(), End::Linger)
        }
    };
    record.status = Some(reply.status);
    record.values_stored = reply.stored.len();
    record.took = begun.elapsed();
    shared.core.note(record, core::mem::take(&mut reply.stored));
    Ok((response(reply, time_us, old_client), end))
}

/// The product's front refuses a body by its length before it looks at anything else.
fn too_large_reply() -> Reply {
    Reply {
        status: 413,
        headers: vec![
            ("server", "nginx/1.22.1".to_owned()),
            ("content-type", "text/html".to_owned()),
            ("connection", "close".to_owned()),
        ],
        body: ReplyBody::Bytes(Bytes::from_static(
            b"<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n\
              <center><h1>413 Request Entity Too Large</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n\
              </body>\r\n</html>\r\n",
        )),
        hang_up: false,
        stored: Vec::new(),
    }
}

/// Headers in the order of uvicorn: date, server, length, then the application's.
fn response(reply: Reply, now_us: i64, old_client: bool) -> Response<Answered> {
    let length = match &reply.body {
        ReplyBody::Bytes(bytes) => Some(bytes.len()),
        ReplyBody::None | ReplyBody::EmptyChunked => None,
    };
    let mut response = Response::new(Answered(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Ok(date) = HeaderValue::from_str(&http_date(now_us.div_euclid(1_000_000))) {
        headers.insert(header::DATE, date);
    }
    headers.insert(header::SERVER, HeaderValue::from_static("uvicorn"));
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    for (name, value) in reply.headers {
        match HeaderValue::from_str(&value) {
            Ok(value) => {
                headers.insert(HeaderName::from_static(name), value);
            }
            Err(_) => tracing::warn!(name, "a header that cannot be sent was left out"),
        }
    }
    if old_client {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The body of a response, in one piece.
struct Answered(ReplyBody);

impl Body for Answered {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match core::mem::replace(&mut self.0, ReplyBody::None) {
            ReplyBody::Bytes(bytes) if !bytes.is_empty() => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            _ => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            ReplyBody::None => true,
            ReplyBody::Bytes(bytes) => bytes.is_empty(),
            // Were it at its end at once, it would be sent with a length.
            ReplyBody::EmptyChunked => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            ReplyBody::None => SizeHint::with_exact(0),
            ReplyBody::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ReplyBody::EmptyChunked => SizeHint::new(),
        }
    }
}

/// A date as HTTP writes it (RFC 9110, section 5.6.7).
fn http_date(unix_s: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let name = |names: &[&'static str], i: i64| {
        usize::try_from(i).ok().and_then(|i| names.get(i)).copied().unwrap_or("")
    };
    let (day, second) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    // Years begin in March here, so that the leap day is the last one; an era of 400 years has 146097 days.
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + i64::from(month >= 10);
    format!(
        "{}, {of_month:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        name(&DAYS, day.rem_euclid(7)),
        name(&MONTHS, month),
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_http_wants_them() {
        for (unix_s, date) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_795_370_372, "Sun, 22 Nov 2026 17:59:32 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
        ] {
            assert_eq!(http_date(unix_s), date);
        }
    }
}
