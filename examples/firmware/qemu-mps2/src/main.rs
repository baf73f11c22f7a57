//! Grafolean's ping bot, a sensor's bot and, with the feature `snmp`, the SNMP bot on an emulated Cortex-M board: see `examples/firmware/README.md`.
//!
//! It runs until `q` is typed on the serial line (or until a fault), and ends QEMU with an exit code:
//!
//! | code | |
//! | --- | --- |
//! | 0 | all values that were collected have been delivered, or dropped for a counted reason |
//! | 1 | some still waited at the end |
//! | 2 | a setting can't be used, or a bot could not be started |
//! | 3 | there is no ethernet |
//! | 101, 102, 103 | panic, hard fault, unexpected interrupt |
//! | 104 | the watchdog was not fed; a board on a table would be reset in 15 s more |
//!
//! With the feature `flash` it takes two more settings at start: `FLASH_FILE`, the file that serves as flash, and `FLASH_STORE_AFTER_MS`.
//!
//! `s` prints how it goes, `r` prints each run from then on, `h` makes it hang.
#![no_std]
#![no_main]

mod board;
mod host;
#[cfg(feature = "flash")]
mod nor;
mod regs;
mod time;

use core::cell::Cell;
use core::fmt::{Display, Write};

use cortex_m::peripheral::{NVIC, SYST};
use cortex_m_rt::{ExceptionFrame, entry, exception};
use critical_section::Mutex;
use embassy_executor::raw::Executor;
use embassy_executor::{SpawnError, SpawnToken};
use embassy_net::{Config, Runner, Stack, StackResources};
use embassy_time::{Instant, Timer};
#[cfg(not(feature = "flash"))]
use grafolean_firmware::SENSOR_BUDGET;
use grafolean_firmware::embassy::core::jobs::{Due, JobKey};
use grafolean_firmware::embassy::core::outbox::Ledger;
use grafolean_firmware::embassy::core::values::Decimal;
use grafolean_firmware::embassy::net::EchoMemory;
use grafolean_firmware::{
    BotReport, Control, Ends, Gauge, PING_BUDGET, PINGS, SOCKETS, Settings, StartError,
};
use static_cell::{ConstStaticCell, StaticCell};

use board::{Ethernet, Serial};
use host::{exit, say};

/// The settings that the firmware was built with.
const BUILT: Settings<'static> = include!(concat!(env!("OUT_DIR"), "/settings.rs"));
/// An address that is locally administered, as those are that nobody has bought.
const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
/// The longest list of settings that are given at start, in bytes.
const ARGUMENTS: usize = 512;
/// How often the serial line is looked at, in milliseconds.
const LOOK_MS: u64 = 50;

/// Instead of a thermometer, which the emulated chips lack: a reading that a counter within the chip gives, 20.0 to 29.9.
struct Counter;

impl Gauge for Counter {
    fn read(&self) -> Result<Decimal, &'static str> {
        let tenths = 200 + i64::from(SYST::get_current() % 100);
        Ok(Decimal { mantissa: tenths, exponent: -1 })
    }
}

#[entry]
fn main() -> ! {
    let Some(mut cortex) = cortex_m::Peripherals::take() else { exit(101) };
    host::start_log();
    time::start(&mut cortex.SYST);
    say(format_args!("grafolean {} on {}", env!("CARGO_PKG_VERSION"), board::NAME));
    say(format_args!("ram ping bot: {PING_BUDGET}"));
    #[cfg(not(feature = "flash"))]
    say(format_args!("ram sensor bot: {SENSOR_BUDGET}"));
    #[cfg(feature = "flash")]
    say(format_args!("ram sensor bot: {}", grafolean_firmware::sensor_budget_with_flash::<nor::FileNor>()));
    #[cfg(feature = "snmp")]
    say(format_args!("ram snmp bot: {}", grafolean_firmware::SNMP_BUDGET));
    let settings = settings();
    #[cfg(feature = "tls")]
    say(format_args!(
        "warning: emulator only: random numbers for TLS are the host's, this chip has no generator of them"
    ));

    static ETHERNET: StaticCell<Ethernet> = StaticCell::new();
    let ethernet = ETHERNET.init_with(|| Ethernet::new(MAC));
    if !ethernet.start() {
        say(format_args!("error: no ethernet"));
        exit(3);
    }
    Serial.start();
    if let Some(irq) = board::ETHERNET_IRQ {
        // SAFETY: the interrupt's handler is there, and no critical section is under way.
        #[allow(unsafe_code)]
        unsafe {
            NVIC::unmask(Interrupt(irq))
        };
    }

    static EXECUTOR: StaticCell<Executor> = StaticCell::new();
    let executor: &'static Executor = EXECUTOR.init_with(|| Executor::new(core::ptr::null_mut()));
    // Boards have a generator of random numbers for this.
    let seed =
        (u64::from(host::time_s()) << 32 | Instant::now().as_ticks()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    static RESOURCES: ConstStaticCell<StackResources<SOCKETS>> = ConstStaticCell::new(StackResources::new());
    let resources = RESOURCES.take();
    let (stack, runner) = embassy_net::new(ethernet, Config::dhcpv4(Default::default()), resources, seed);
    static CONTROL: StaticCell<Control> = StaticCell::new();
    let control = CONTROL.init(Control::new());
    spawn(executor, network(runner));
    spawn(executor, attend(stack, control));
    spawn(executor, bots(stack, settings, seed.rotate_left(8), control));
    loop {
        // SAFETY: polled here only, and never from within a poll.
        #[allow(unsafe_code)]
        unsafe {
            executor.poll()
        };
        // Not WFE, which QEMU takes for a yield and burns the host's processor. Interrupts wake it even while they are
        // held back, so that none is missed between looking and sleeping.
        critical_section::with(|cs| {
            if !WOKEN.borrow(cs).replace(false) {
                cortex_m::asm::wfi();
            }
        });
    }
}

/// A task was woken since the executor began to look for such.
static WOKEN: Mutex<Cell<bool>> = Mutex::new(Cell::new(false));

/// What the executor calls when a task is woken.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "Rust" fn __pender(_: *mut ()) {
    critical_section::with(|cs| WOKEN.borrow(cs).set(true));
}

/// The settings that the firmware was built with, and those that it is given at start, which win.
fn settings() -> Settings<'static> {
    static ARGUMENT_BYTES: StaticCell<[u8; ARGUMENTS]> = StaticCell::new();
    let mut settings = BUILT;
    for argument in host::arguments(ARGUMENT_BYTES.init([0; ARGUMENTS])).split(' ') {
        // Others are not for us: QEMU begins with the name of the program.
        let Some((key, value)) = argument.split_once('=') else { continue };
        #[cfg(feature = "flash")]
        if let Some(known) = nor::set(key, value) {
            if !known {
                say(format_args!("error: {key}: can't be used"));
                exit(2);
            }
            continue;
        }
        if let Err(error) = settings.set(key, value) {
            say(format_args!("error: {key}: {error}"));
            exit(2);
        }
    }
    settings
}

fn spawn<S>(executor: &'static Executor, task: Result<SpawnToken<S>, SpawnError>) {
    match task {
        Ok(task) => executor.spawner().spawn(task),
        // Each task is spawned once.
        Err(error) => {
            say(format_args!("error: {error:?}"));
            exit(2)
        }
    }
}

/// The network stack's own loop.
#[embassy_executor::task]
async fn network(mut runner: Runner<'static, &'static mut Ethernet>) {
    runner.run().await;
}

/// The bots, to their end, which is the firmware's.
#[embassy_executor::task]
async fn bots(stack: Stack<'static>, settings: Settings<'static>, seed: u64, control: &'static Control) {
    static PING_BUFFERS: ConstStaticCell<EchoMemory<PINGS>> = ConstStaticCell::new(EchoMemory::new());
    static COUNTER: Counter = Counter;
    let pings = PING_BUFFERS.take();
    #[cfg(feature = "flash")]
    let flash = match nor::flash() {
        Ok(flash) => flash,
        Err(error) => {
            say(format_args!("error: {error}"));
            exit(2)
        }
    };
    let ends = grafolean_firmware::run(
        stack,
        &settings,
        pings,
        &COUNTER,
        seed,
        control,
        #[cfg(feature = "tls")]
        grafolean_firmware::Random(host::random),
        #[cfg(feature = "flash")]
        &flash,
    )
    .await;
    #[cfg(feature = "flash")]
    say(format_args!("report flash: {:?}", flash.wear()));
    report(control);
    exit(code(&ends));
}

/// Looks at the serial line and at the network, and feeds the watchdog as long as the bots' loops come round.
#[embassy_executor::task]
async fn attend(stack: Stack<'static>, control: &'static Control) {
    let mut network = false;
    board::WATCHDOG.start();
    loop {
        if control.is_alive() {
            board::WATCHDOG.feed();
        }
        if stack.is_config_up() != network {
            network = !network;
            match stack.config_v4() {
                Some(config) => say(format_args!("network {}", config.address)),
                None => say(format_args!("no network")),
            }
        }
        match Serial.read() {
            Some(b'q') => control.stop(),
            Some(b's') => report(control),
            Some(b'r') => control.on_run(print_run),
            Some(b'h') => hang(),
            _ => Timer::after_millis(LOOK_MS).await,
        }
    }
}

/// Prints a run that begins: its job, the second for which it is due, and the intervals that made it due.
fn print_run(due: &Due) {
    let JobKey { account, entity, item, name } = due.key;
    let affecting = due.affecting_seconds().fold(heapless::String::<64>::new(), |mut text, seconds| {
        let _ = write!(text, " {seconds}");
        text
    });
    say(format_args!("run {account}.{entity}.{item}.{name} at {} for{affecting}", due.scheduled.0));
}

/// Does nothing any more, nor lets others: to see the watchdog at work.
fn hang() -> ! {
    say(format_args!("hanging"));
    loop {
        cortex_m::asm::nop();
    }
}

fn code(ends: &Ends) -> u8 {
    let start_error = |name: &str, end: Option<Result<Ledger, StartError>>| {
        end.and_then(Result::err).map(|error: StartError| say_error(name, &error))
    };
    let (ping, sensor) = (start_error("ping bot", ends.ping), start_error("sensor bot", ends.sensor));
    let snmp = start_error("snmp bot", ends.snmp);
    match (ping.or(sensor).or(snmp), ends.is_well()) {
        (Some(()), _) => 2,
        (None, well) => u8::from(!well),
    }
}

fn say_error(name: &str, error: &dyn Display) {
    say(format_args!("error: {name}: {error}"));
}

/// Prints how it goes: one line for each bot, and one for the call stack.
fn report(control: &Control) {
    let line = |name: &str, bot: BotReport| {
        let BotReport { ledger, failed_runs, failed_requests, .. } = bot;
        say(format_args!(
            "report {name}: {ledger}; failed runs {failed_runs}, failed requests {failed_requests}"
        ));
    };
    line("ping", control.ping());
    line("sensor", control.sensor());
    #[cfg(feature = "snmp")]
    line("snmp", control.snmp());
    let (used, size) = stack_bytes();
    say(format_args!(
        "report stack: {used} of {size} bytes used at most, after {} ms",
        Instant::now().as_millis()
    ));
}

/// How much of the call stack was ever used, and its size: what was painted at start and is no longer.
#[allow(unsafe_code)]
fn stack_bytes() -> (usize, usize) {
    unsafe extern "C" {
        static _stack_start: u32;
        static _stack_end: u32;
    }
    let (start, end) = (&raw const _stack_start, &raw const _stack_end);
    let mut at = end;
    // SAFETY: the memory between these two is the stack's, and readable.
    while at < start && unsafe { at.read_volatile() } == cortex_m_rt::STACK_PAINT_VALUE {
        at = at.wrapping_add(1);
    }
    (start as usize - at as usize, start as usize - end as usize)
}

/// An interrupt, by its number.
#[derive(Clone, Copy)]
struct Interrupt(u16);

// SAFETY: the chip has this interrupt.
#[allow(unsafe_code)]
unsafe impl cortex_m::interrupt::InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self.0
    }
}

#[exception]
fn SysTick() {
    time::interrupt();
    Ethernet::tick();
}

// SAFETY: a handler that touches nothing but the peripheral whose interrupt it is.
#[allow(unsafe_code)]
#[exception]
unsafe fn DefaultHandler(irq: i16) {
    if board::ETHERNET_IRQ.is_some_and(|ethernet| i32::from(ethernet) == i32::from(irq)) {
        Ethernet::interrupt();
    } else {
        say(format_args!("error: unexpected interrupt {irq}"));
        exit(103);
    }
}

// SAFETY: it never returns.
#[allow(unsafe_code)]
#[exception]
unsafe fn NonMaskableInt() -> ! {
    say(format_args!("error: the watchdog was not fed"));
    exit(104)
}

// SAFETY: it never returns.
#[allow(unsafe_code)]
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    say(format_args!("error: hard fault at {:#x}", frame.pc()));
    exit(102)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    // Where and why a panic came takes 20 kB of flash: the texts, each place in the source, and what writes them.
    #[cfg(feature = "panic-text")]
    say(format_args!("error: {info}"));
    #[cfg(not(feature = "panic-text"))]
    {
        let _ = info;
        say(format_args!("error: panic; a build with the feature panic-text says where and why"));
    }
    exit(101)
}
