//! What the firmware examples share: the bots, how much memory each has, and what they report. A firmware adds its board.
//!
//! [`run`] is the whole application on a network stack: the ping bot, the sensor's bot and the SNMP bot, each with a connection of its own,
//! until [`Control::stop`]. A firmware that needs something else takes it as a pattern: it is nothing but calls of `grafolean-embassy`.
//!
//! # Features
//! `ping` and `sensor`, both on by default: a firmware that leaves one out is smaller by it. `snmp` adds the SNMP bot. With `tls` the backend is reached by HTTPS
//! only, and [`run`] also takes the board's random numbers (`Random`). With `flash` it takes a part of the board's flash, where the values of
//! the sensor's bot are kept that wait for longer than a while: module `flash` of grafolean-embassy.
//!
//! # Cost
//! [`PING_BUDGET`], [`SENSOR_BUDGET`] and `SNMP_BUDGET`, which are asserted when this is compiled.
#![no_std]
#![forbid(unsafe_code)]
#![allow(async_fn_in_trait)]

mod control;
mod keep;
mod pinger;
mod sensor;
#[cfg(feature = "snmp")]
mod snmp;
#[cfg(feature = "tls")]
mod tls;

use core::fmt;
use core::pin::pin;

use embassy_futures::join::{join, join3};
use embassy_net::Stack;
use embassy_time::Timer;
use grafolean_bot_ping::PingBot;
#[cfg(feature = "snmp")]
use grafolean_bot_snmp::memory::BoardMemory;
use grafolean_embassy::core::api::{BaseUrl, Token, TokenError, UrlError};
use grafolean_embassy::core::bot::Bot;
use grafolean_embassy::core::collector::Settings as CollectorSettings;
use grafolean_embassy::core::outbox::Ledger;
use grafolean_embassy::core::storage::Storage;
#[cfg(feature = "flash")]
use grafolean_embassy::flash::{Flash, MultiwriteNorFlash};
use grafolean_embassy::http::{Http, HttpSetupError, Limits};
#[cfg(feature = "ping")]
use grafolean_embassy::net::Echo;
use grafolean_embassy::net::{self, EchoMemory, NetConnector, NetMemory};
use grafolean_embassy::{Budget, DriverSettings, Lent, SetupError, Shared};
use static_cell::{ConstStaticCell, StaticCell};

pub use control::{BotReport, Control};
pub use grafolean_embassy as embassy;
pub use grafolean_firmware_settings::{SettingError, Settings};
pub use pinger::NetPinger;
pub use sensor::{Gauge, SensorBot};
#[cfg(feature = "snmp")]
pub use snmp::{AgentsHeads, AgentsMemory, NetAgents, SNMP_RUNS, Snmp};
#[cfg(feature = "tls")]
pub use tls::Random;

use control::Watch;
use keep::Keep;

/// Limits of HTTP. A handshake of TLS takes seconds of a small chip's time, the other bot's too, and a name server that is away 4.5 s.
#[cfg(feature = "tls")]
const LIMITS: Limits = Limits { connect_ms: 30_000, ..Limits::DEFAULT };
#[cfg(not(feature = "tls"))]
const LIMITS: Limits = Limits::DEFAULT;

/// Pings at once: the W of the ping bot.
pub const PINGS: usize = 2;

/// The sockets that a stack must have: those of DHCP and DNS, of a connection for each bot, of the pings and of the SNMP runs.
pub const SOCKETS: usize = net::STACK_SOCKETS + CONNECTIONS * net::CONNECTOR_SOCKETS + PINGS + AGENTS;
const _: () = net::assert_sockets(SOCKETS, CONNECTIONS, PINGS + AGENTS);
#[cfg(not(feature = "snmp"))]
const CONNECTIONS: usize = 2;
#[cfg(feature = "snmp")]
const CONNECTIONS: usize = 3;
#[cfg(not(feature = "snmp"))]
const AGENTS: usize = 0;
#[cfg(feature = "snmp")]
const AGENTS: usize = SNMP_RUNS;

/// The buffer of HTTP, and of a connection in each direction, in bytes.
const BUFFER: usize = 1024;
/// The three of them, and those of TLS.
const BUFFERS: usize = 3 * BUFFER + TLS_BUFFERS;
#[cfg(feature = "tls")]
const TLS_BUFFERS: usize = size_of::<tls::Records>();
#[cfg(not(feature = "tls"))]
const TLS_BUFFERS: usize = 0;

/// The ping bot of a board. It keeps no host name that is longer than 32 bytes.
pub type Ping = PingBot<NetPinger<PINGS>, 32>;

grafolean_embassy::core::inline_storage! {
    /// Sixteen devices of two accounts, and the values of about 32 packets.
    pub struct PingMemory for Ping {
        accounts: 2, entities: 16, links: 2, credentials: 4, sensors: 4, jobs: 16, spare: 1, intervals: 32,
        distinct_intervals: 8, runs: PINGS, cells: 64, element: 1024, scratch: 128, listing: 0, states: 0,
        faults: 4, events: 4,
    }
}

grafolean_embassy::core::inline_storage! {
    /// One job, and 48 values that wait: at one a minute, those of three quarters of an hour.
    pub struct SensorMemory for SensorBot {
        accounts: 1, entities: 0, links: 0, credentials: 0, sensors: 0, jobs: 1, spare: 1, intervals: 2,
        distinct_intervals: 1, runs: 1, cells: 96, element: 512, scratch: 64, listing: 0, states: 0,
        faults: 2, events: 4, stored: STORED,
    }
}

#[cfg(feature = "snmp")]
grafolean_embassy::core::inline_storage! {
    /// Eight devices of an account with eight sensors, 24 counters, and 48 values that wait.
    pub struct SnmpMemory for Snmp {
        accounts: 1, entities: 8, links: 4, credentials: 2, sensors: 8, jobs: 16, spare: 1, intervals: 24,
        distinct_intervals: 8, runs: SNMP_RUNS, cells: 96, element: 1024, scratch: 256, listing: 512, states: 32,
        faults: 4, events: 4,
    }
}

/// With flash, values have records in it.
const STORED: usize = if cfg!(feature = "flash") { 1 } else { 0 };

#[cfg(feature = "tls")]
type Transport = Http<'static, tls::Connector<'static>>;
#[cfg(not(feature = "tls"))]
type Transport = Http<'static, NetConnector<'static>>;

/// The RAM of the ping bot. The stack's own ([`SOCKETS`] of them) is not in it.
pub const PING_BUDGET: Budget =
    Budget::of::<Ping, Lent<'static, PingMemory>, Transport, Watch<'static>, PINGS>()
        .and_memory(size_of::<PingMemory>())
        .and_buffers(BUFFERS + size_of::<EchoMemory<PINGS>>());
/// The RAM of the sensor's bot. The stack's own is not in it.
pub const SENSOR_BUDGET: Budget =
    Budget::of::<SensorBot, Lent<'static, SensorMemory>, Transport, Watch<'static>, 1>()
        .and_memory(size_of::<SensorMemory>())
        .and_buffers(BUFFERS);

/// The RAM of the SNMP bot. The stack's own is not in it.
#[cfg(feature = "snmp")]
pub const SNMP_BUDGET: Budget =
    Budget::of::<Snmp, Lent<'static, SnmpMemory>, Transport, Watch<'static>, SNMP_RUNS>()
        .and_memory(size_of::<SnmpMemory>())
        .and_buffers(BUFFERS + size_of::<AgentsMemory<SNMP_RUNS>>() + size_of::<AgentsHeads<SNMP_RUNS>>());

/// The RAM of the sensor's bot with its values in the flash `F`.
#[cfg(feature = "flash")]
#[must_use]
pub const fn sensor_budget_with_flash<F: MultiwriteNorFlash>() -> Budget {
    Budget::of_flash::<SensorBot, Lent<'static, SensorMemory>, Transport, Watch<'static>, F, 1>()
        .and_memory(size_of::<SensorMemory>())
        .and_buffers(BUFFERS)
}

#[cfg(target_pointer_width = "32")]
const _: () =
    assert!(PING_BUDGET.total() <= 24 * 1024 + TLS_RAM && SENSOR_BUDGET.total() <= 16 * 1024 + TLS_RAM);
#[cfg(all(target_pointer_width = "32", feature = "snmp"))]
const _: () = assert!(SNMP_BUDGET.total() <= 48 * 1024 + TLS_RAM);
/// What TLS may take of each: its buffers, and what its handshake keeps while it waits.
#[cfg(target_pointer_width = "32")]
const TLS_RAM: usize = if TLS_BUFFERS == 0 { 0 } else { TLS_BUFFERS + 5 * 1024 };

/// Why a bot can't be run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StartError {
    /// `BACKEND_URL`
    Url(UrlError),
    /// `PING_BOT_TOKEN`, `SENSOR_BOT_TOKEN` or `SNMP_BOT_TOKEN`
    Token(TokenError),
    /// `SENSOR_INTERVAL`
    Interval,
    /// The transport.
    Http(HttpSetupError),
    /// TLS: `BACKEND_CA` or `BACKEND_KEY`.
    #[cfg(feature = "tls")]
    Tls(grafolean_embassy::tls::TlsSetupError),
    /// The collector.
    Collector(SetupError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Url(error) => write!(f, "{error}"),
            StartError::Token(error) => write!(f, "{error}"),
            StartError::Interval => f.write_str("SENSOR_INTERVAL is no interval"),
            StartError::Http(error) => write!(f, "{error}"),
            #[cfg(feature = "tls")]
            StartError::Tls(error) => write!(f, "BACKEND_CA or BACKEND_KEY: {error}"),
            StartError::Collector(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for StartError {}

impl From<UrlError> for StartError {
    fn from(error: UrlError) -> Self {
        StartError::Url(error)
    }
}
impl From<TokenError> for StartError {
    fn from(error: TokenError) -> Self {
        StartError::Token(error)
    }
}
impl From<HttpSetupError> for StartError {
    fn from(error: HttpSetupError) -> Self {
        StartError::Http(error)
    }
}
#[cfg(feature = "tls")]
impl From<grafolean_embassy::tls::TlsSetupError> for StartError {
    fn from(error: grafolean_embassy::tls::TlsSetupError) -> Self {
        StartError::Tls(error)
    }
}
impl From<SetupError> for StartError {
    fn from(error: SetupError) -> Self {
        StartError::Collector(error)
    }
}

/// How the bots ended: `None` for one that has no token.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The ping bot.
    pub ping: Option<Result<Ledger, StartError>>,
    /// The sensor's bot.
    pub sensor: Option<Result<Ledger, StartError>>,
    /// The SNMP bot.
    pub snmp: Option<Result<Ledger, StartError>>,
}

impl Ends {
    /// Whether each bot that was to run has delivered all it has collected.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let well = |end: Option<Result<Ledger, StartError>>| match end {
            None => true,
            Some(Ok(ledger)) => ledger.balanced() && ledger.queued == 0,
            Some(Err(_)) => false,
        };
        well(self.ping) && well(self.sensor) && well(self.snmp)
    }
}

/// A collector and its buffers. Its memory is a static of its own, all zeros at start, of which there is nothing in flash. If it
/// were made by a call, it would pass through the call stack.
struct Place<B: Bot, S: Storage<B> + 'static, const W: usize> {
    shared: StaticCell<Shared<B, Lent<'static, S>, W>>,
    buffers: ConstStaticCell<Buffers>,
}

/// The buffers of one connection: to send and receive, and of HTTP.
struct Buffers {
    net: NetMemory<BUFFER, BUFFER>,
    http: [u8; BUFFER],
    #[cfg(feature = "tls")]
    records: tls::Records,
}

impl<B: Bot, S: Storage<B>, const W: usize> Place<B, S, W> {
    const fn new() -> Self {
        let buffers = Buffers {
            net: NetMemory::new(),
            http: [0; BUFFER],
            #[cfg(feature = "tls")]
            records: tls::Records::new(),
        };
        Place { shared: StaticCell::new(), buffers: ConstStaticCell::new(buffers) }
    }
}

/// Runs the bots that have a token, until [`Control::stop`]. `seed` is another one on each board and at each boot, so that boards that
/// lost their backend together do not come back together.
///
/// The stack's own loop (`Runner::run`) belongs into another task: in the same one it and a socket that waits would wake each other
/// without end.
///
/// The collectors and their buffers lie in statics, so it can be called once; a second call gives [`SetupError::RunBefore`].
#[allow(clippy::too_many_arguments)] // With both features; each has its name in the call.
pub async fn run(
    stack: Stack<'static>,
    settings: &Settings<'static>,
    pings: &'static EchoMemory<PINGS>,
    gauge: &'static dyn Gauge,
    seed: u64,
    control: &Control,
    #[cfg(feature = "tls")] random: Random,
    #[cfg(feature = "flash")] flash: &Flash<impl MultiwriteNorFlash>,
) -> Ends {
    #[cfg(not(feature = "flash"))]
    let flash = ();
    let _ = (flash, stack, settings, pings, gauge, seed);
    control.begin();
    #[cfg(feature = "tls")]
    let busy = core::cell::Cell::new(false);
    #[cfg(feature = "tls")]
    let random = (random, &busy);
    #[cfg(not(feature = "tls"))]
    let random = ();
    // By attributes: code after `if !cfg!(...) { return }` stays in an async block.
    #[cfg(not(feature = "ping"))]
    let ping = core::future::ready(None);
    #[cfg(feature = "ping")]
    let ping = async {
        static MEMORY: ConstStaticCell<PingMemory> = ConstStaticCell::new(PingMemory::new());
        static PING: Place<Ping, PingMemory, PINGS> = Place::new();
        let token = settings.ping_bot_token?;
        let bot = Ping::new(NetPinger::new(Echo::new(stack, pings))).grid_only(settings.ping_grid_only);
        let watch = control.watch(control::PING);
        Some(collect(stack, settings, token, &bot, &PING, &MEMORY, seed, watch, (), random).await)
    };
    #[cfg(not(feature = "sensor"))]
    let sensor = core::future::ready(None);
    #[cfg(feature = "sensor")]
    let sensor = async {
        static MEMORY: ConstStaticCell<SensorMemory> = ConstStaticCell::new(SensorMemory::new());
        static SENSOR: Place<SensorBot, SensorMemory, 1> = Place::new();
        let token = settings.sensor_bot_token?;
        let bot = SensorBot::new(gauge, settings.sensor_path, settings.sensor_interval_s);
        let Some(bot) = bot else { return Some(Err(StartError::Interval)) };
        let (seed, watch) = (seed.rotate_left(32), control.watch(control::SENSOR));
        Some(collect(stack, settings, token, &bot, &SENSOR, &MEMORY, seed, watch, flash, random).await)
    };
    #[cfg(not(feature = "snmp"))]
    let snmp = core::future::ready(None);
    #[cfg(feature = "snmp")]
    let snmp = async {
        static MEMORY: ConstStaticCell<SnmpMemory> = ConstStaticCell::new(SnmpMemory::new());
        static AGENTS: ConstStaticCell<AgentsMemory<SNMP_RUNS>> = ConstStaticCell::new(AgentsMemory::new());
        static HEADS: StaticCell<AgentsHeads<SNMP_RUNS>> = StaticCell::new();
        static SNMP: Place<Snmp, SnmpMemory, SNMP_RUNS> = Place::new();
        let token = settings.snmp_bot_token?;
        let (Some(agents), Some(heads)) = (AGENTS.try_take(), HEADS.try_init_with(AgentsHeads::new)) else {
            return Some(Err(SetupError::RunBefore.into()));
        };
        let (seed, watch) = (seed.rotate_left(48), control.watch(control::SNMP));
        let bot = Snmp::new(NetAgents::new(stack, agents, heads, seed.rotate_left(8)), BoardMemory::new());
        Some(collect(stack, settings, token, &bot, &SNMP, &MEMORY, seed, watch, (), random).await)
    };
    let (ping, sensor, snmp) = join3(pin!(ping), pin!(sensor), pin!(snmp)).await;
    Ends { ping, sensor, snmp }
}

/// Runs one bot over a connection of its own.
#[allow(clippy::too_many_arguments)] // All that a bot needs, in one place.
async fn collect<B: Bot, S: Storage<B>, const W: usize>(
    stack: Stack<'static>,
    settings: &Settings<'static>,
    token: &str,
    bot: &B,
    place: &'static Place<B, S, W>,
    memory: &'static ConstStaticCell<S>,
    seed: u64,
    watch: Watch<'_>,
    keep: impl Keep,
    // Whether a handshake is under way.
    #[cfg(feature = "tls")] (random, busy): (Random, &core::cell::Cell<bool>),
    #[cfg(not(feature = "tls"))] (): (),
) -> Result<Ledger, StartError> {
    let url = BaseUrl::parse(settings.backend_url)?;
    let token = Token::parse(token)?;
    let buffers = place.buffers.try_take().ok_or(SetupError::RunBefore)?;
    let connector = NetConnector::new(stack, &mut buffers.net);
    let memory = memory.try_take().ok_or(SetupError::RunBefore)?;
    let shared: &Shared<B, Lent<'static, S>, W> = place
        .shared
        .try_init_with(|| {
            let mut collector = CollectorSettings::board(token, url.prefix);
            collector.refresh_interval_s = settings.refresh_interval_s;
            collector.account = settings.account;
            (collector.seed, collector.outbox.seed) = (seed, seed.rotate_left(16));
            Shared::new(collector, Lent(memory))
        })
        .ok_or(SetupError::RunBefore)?;
    #[cfg(feature = "tls")]
    let clock = || shared.with(|collector| collector.wall()).map(|unix| unix.0 / 1000);
    #[cfg(feature = "tls")]
    let connector = {
        // Before the lack of somebody to trust, which http:// would not need.
        if !url.https {
            return Err(HttpSetupError::NeedsPlain.into());
        }
        tls::connector(connector, random, &clock, tls::trust(settings), &mut buffers.records, busy)?
    };
    let mut http = Http::new(connector, url, &mut buffers.http, LIMITS)?;
    let driver = DriverSettings { longest_wait_ms: control::LONGEST_WAIT_MS, ..DriverSettings::default() };
    let control = async {
        while !watch.report(shared) {
            Timer::after_millis(control::LOOK_MS).await;
        }
    };
    // Pinned where they are made: a future that is moved passes through the call stack.
    let run = pin!(keep.run(bot, shared, &mut http, &watch, &driver));
    let (ledger, ()) = join(run, control).await;
    watch.ended(shared);
    Ok(ledger?)
}
