//! Counts what the collector costs a small processor, in instructions: a tick at which nothing is due, and a run, for 16, 64 and 256 jobs;
//! a value from its text to the backend's answer; JSON of the backend.
//!
//! No bot and no network, only the collector (`grafolean-core`) in tables of fixed size, compiled as all firmware here is, and called as the
//! boards' driver calls it. It needs a QEMU whose clock counts instructions; `examples/firmware/costs` builds it, starts QEMU so, and prints
//! the table. The counts are the same each time.
//!
//! | exit code | |
//! | --- | --- |
//! | 0 | counted |
//! | 1 | the collector did not do what is to be counted, or QEMU's clock does not count instructions; the last line says which |
#![no_std]
#![no_main]

use core::fmt::{Arguments, Write};

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hio};
use grafolean_firmware::embassy::Lent;
use grafolean_firmware::embassy::core::api::{Resource, Token};
use grafolean_firmware::embassy::core::bot::{Anything, Bot, Context, JobSink, NewJob};
use grafolean_firmware::embassy::core::collector::{Action, BodyStatus, Collector, ResponseHead, Settings};
use grafolean_firmware::embassy::core::heapless;
use grafolean_firmware::embassy::core::interval::{Interval, Intervals};
use grafolean_firmware::embassy::core::jobs::Due;
use grafolean_firmware::embassy::core::json::{Frame, Framer};
use grafolean_firmware::embassy::core::model::{EntityHead, read_sensors};
use grafolean_firmware::embassy::core::storage::Storage;
use grafolean_firmware::embassy::core::time::Millis;
use grafolean_firmware::embassy::core::values::{Decimal, Number};
use static_cell::ConstStaticCell;

/// SysTick goes at 25 MHz, and an instruction takes one nanosecond of QEMU's time (`-icount shift=0`).
const INSTRUCTIONS_PER_CLOCK: u64 = 40;
/// SysTick counts down from here.
const CLOCK_MASK: u32 = 0xff_ffff;
/// What jobs run at, in seconds: the n-th at the one with the number n mod 8. The collector spreads them.
const INTERVALS_S: [i64; 8] = [60, 120, 300, 300, 600, 900, 1800, 3600];
/// Runs at once, as the ping bot of these boards has them.
const RUNS: usize = 2;
/// First the jobs of the first refresh begin, one a second.
const WARM_UP_S: u64 = 600;
/// Two turns of the longest interval.
const COUNTED_S: u64 = 7200;
/// Values in a request.
const VALUES: u64 = 10;
/// A device, as the backend gives it.
const ENTITY: &[u8] = br#"{"id":1042,"name":"Switch in the cellar","entity_type":"device","parent":null,"details":{"ipv4":"192.168.100.42"},"protocols":{"ping":{"credential":12,"sensors":[{"sensor":21,"interval":null},{"sensor":22,"interval":300}],"bot":7},"snmp":{"credential":14,"sensors":[{"sensor":31,"interval":60}],"bot":8}}}"#;
/// So many of them in a list.
const ENTITIES: usize = 8;
/// What comes at once from the network.
const CHUNK: usize = 256;

/// A bot whose jobs do nothing.
struct Idle {
    jobs: u64,
}

impl Bot for Idle {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = ();
    type Error = &'static str;

    fn protocol(&self) -> Option<&str> {
        None
    }

    fn own_jobs(&self, _account: u64, jobs: &mut dyn JobSink<()>) {
        let intervals = INTERVALS_S.iter().cycle().filter_map(|s| Interval::new(*s).ok());
        for (n, interval) in (0..self.jobs).zip(intervals) {
            jobs.add(NewJob::new(Intervals::one(interval), ()).item(n));
        }
    }

    async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, _: &mut C) -> Result<(), &'static str> {
        Ok(())
    }
}

/// Memory for so many jobs, besides that as small as it can be.
macro_rules! memory {
    ($name:ident, $jobs:expr) => {
        grafolean_firmware::embassy::core::inline_storage! {
            struct $name for Idle {
                accounts: 1, entities: 0, links: 0, credentials: 0, sensors: 0, jobs: $jobs, spare: 1,
                intervals: $jobs, distinct_intervals: 8, runs: RUNS, cells: 64, element: 512, scratch: 64, listing: 0,
                states: 0, faults: 4, events: 4,
            }
        }
    };
}
memory!(Jobs16, 16);
memory!(Jobs64, 64);
memory!(Jobs256, 256);

#[entry]
fn main() -> ! {
    static JOBS_16: ConstStaticCell<Jobs16> = ConstStaticCell::new(Jobs16::new());
    static JOBS_64: ConstStaticCell<Jobs64> = ConstStaticCell::new(Jobs64::new());
    static JOBS_256: ConstStaticCell<Jobs256> = ConstStaticCell::new(Jobs256::new());
    static NO_JOBS: ConstStaticCell<Jobs16> = ConstStaticCell::new(Jobs16::new());
    let Some(mut cortex) = cortex_m::Peripherals::take() else { fail("started twice") };
    cortex.SYST.set_clock_source(SystClkSource::Core);
    cortex.SYST.set_reload(CLOCK_MASK);
    cortex.SYST.clear_current();
    cortex.SYST.enable_counter();
    // A loop of two instructions.
    let looped = counted(|| cortex_m::asm::delay(500_000)).1;
    if !(1_000_000..1_000_200).contains(&looped) {
        say(format_args!("{looped} instructions for a million"));
        fail("QEMU's clock does not count instructions: -icount shift=0");
    }
    let nothing: u64 = (0..1_000).map(|_| counted(|| ()).1).sum();
    let done = count(16, JOBS_16.take(), nothing)
        .and_then(|()| count(64, JOBS_64.take(), nothing))
        .and_then(|()| count(256, JOBS_256.take(), nothing))
        .and_then(|()| values(NO_JOBS.take()))
        .and_then(|()| json());
    match done {
        Ok(()) => debug::exit(debug::EXIT_SUCCESS),
        Err(why) => fail(why),
    }
    loop {
        cortex_m::asm::wfi();
    }
}

/// A collector that has been refreshed.
fn refreshed<S: Storage<Idle>>(
    bot: &Idle,
    memory: &'static mut S,
) -> Result<Collector<Idle, Lent<'static, S>>, &'static str> {
    let token = Token::parse("00000000-0000-4000-8000-00000000000a").map_err(|_| "the token is refused")?;
    let mut settings = Settings::board(token, "/api");
    (settings.account, settings.refresh_interval_s) = (Some(1), 1_000_000);
    let mut collector = Collector::new(settings, Lent(memory));
    refresh(&mut collector, bot)?;
    Ok(collector)
}

/// Prints a line for so many jobs. `nothing`: what it takes to count a thousand times.
fn count<S: Storage<Idle>>(jobs: u64, memory: &'static mut S, nothing: u64) -> Result<(), &'static str> {
    let bot = Idle { jobs };
    let mut collector = refreshed(&bot, memory)?;
    for second in 1..WARM_UP_S {
        tick(&mut collector, &bot, second);
    }
    let (mut idle, mut busy, mut runs) = (Sum::default(), Sum::default(), 0);
    for second in WARM_UP_S..WARM_UP_S + COUNTED_S {
        let (begun, instructions) = counted(|| tick(&mut collector, &bot, second));
        if begun == 0 { &mut idle } else { &mut busy }.add(instructions);
        runs += begun;
    }
    let due: i64 = (0..jobs as usize).map(|n| COUNTED_S as i64 / INTERVALS_S[n % 8]).sum();
    if i64::try_from(runs) != Ok(due) || collector.jobs(|table| table.len()) as u64 != jobs {
        say(format_args!("{runs} runs of {due}"));
        return Err("jobs are missing, or did not run as often as they should");
    }
    let per_idle = idle.instructions.saturating_sub(nothing * idle.ticks / 1_000) / idle.ticks.max(1);
    let of_runs = busy.instructions.saturating_sub(busy.ticks * (per_idle + nothing / 1_000));
    let per_run = of_runs / runs.max(1);
    say(format_args!("costs {jobs} jobs: idle tick {per_idle}, run {per_run} instructions"));
    Ok(())
}

/// Prints what values cost that share a request.
fn values<S: Storage<Idle>>(memory: &'static mut S) -> Result<(), &'static str> {
    let bot = Idle { jobs: 0 };
    let mut collector = refreshed(&bot, memory)?;
    collector.handle_time(Millis(10_000));
    let (taken, handed_over) = counted(|| {
        (0..VALUES).try_for_each(|n| {
            let mut path = heapless::String::<40>::new();
            write!(path, "entity.1042.ping.p{n}.rtt").map_err(|_| "a path is too long")?;
            let seconds = Decimal { mantissa: 12_345 + n as i64, exponent: -6 };
            let number = seconds.number_text().map_err(|_| "a number is refused")?;
            collector.handle_value(1, None, &path, &number).map_err(|_| "a value is refused")
        })
    });
    taken?;
    let delivered = counted(|| {
        collector.handle_time(Millis(12_000));
        while let Some(action) = collector.poll(&bot) {
            let Action::Send(id) = action else { continue };
            let (mut body, mut offset) = ([0; CHUNK], 0);
            core::hint::black_box(collector.request_head(id));
            while let n @ 1.. = collector.request_body(id, offset, core::hint::black_box(&mut body)) {
                offset += n;
            }
            let head = ResponseHead { status: 204, date_unix_s: Some(1_700_000_012), retry_after_ms: None };
            collector.handle_response_head(id, head);
            collector.handle_response_end(&bot, id);
        }
    })
    .1;
    if collector.ledger().delivered != VALUES {
        return Err("values are missing");
    }
    say(format_args!("costs a value made text and handed over: {} instructions", handed_over / VALUES));
    say(format_args!("costs a value delivered, with nine others: {} instructions", delivered / VALUES));
    Ok(())
}

/// Prints what the backend's JSON costs.
fn json() -> Result<(), &'static str> {
    let mut body = heapless::Vec::<u8, { 16 + ENTITIES * (ENTITY.len() + 1) }>::new();
    let mut put = |bytes: &[u8]| body.extend_from_slice(bytes).map_err(|_| "the list is too long");
    put(br#"{"list":["#)?;
    for n in 0..ENTITIES {
        put(if n == 0 { b"" } else { b"," })?;
        put(ENTITY)?;
    }
    put(b"]}")?;
    let mut element = [0; 512];
    let (framed, instructions) = counted(|| {
        let (mut framer, mut framed) = (Framer::list("list"), 0);
        for mut chunk in body.chunks(CHUNK) {
            while !chunk.is_empty() {
                let (read, frame) = framer.push(chunk, &mut element).map_err(|_| "the list is refused")?;
                framed += usize::from(matches!(frame, Some(Frame::Element { .. })));
                chunk = chunk.get(read..).unwrap_or_default();
            }
        }
        Ok::<_, &'static str>(framed)
    });
    if framed? != ENTITIES {
        return Err("entities are missing");
    }
    let per_100_bytes = |instructions: u64, bytes: usize| 100 * instructions / bytes as u64;
    let framing = per_100_bytes(instructions, body.len());
    say(format_args!("costs 100 bytes of a list framed and checked: {framing} instructions"));
    let (read, instructions) = counted(|| {
        let mut sensors = 0;
        for _ in 0..ENTITIES {
            let (head, protocol) = EntityHead::read_framed(core::hint::black_box(ENTITY), "ping")
                .map_err(|_| "the entity is refused")?;
            core::hint::black_box(head);
            let links =
                protocol.ok().flatten().and_then(|ping| ping.sensors).ok_or("there are no sensors")?;
            read_sensors(ENTITY, links, |_, _| sensors += 1).map_err(|_| "the sensors are refused")?;
        }
        Ok::<_, &'static str>(sensors)
    });
    if read? != 2 * ENTITIES {
        return Err("sensors are missing");
    }
    let taking = per_100_bytes(instructions, ENTITIES * ENTITY.len());
    say(format_args!("costs 100 bytes of an entity taken apart: {taking} instructions"));
    Ok(())
}

#[derive(Default)]
struct Sum {
    ticks: u64,
    instructions: u64,
}

impl Sum {
    fn add(&mut self, instructions: u64) {
        self.ticks += 1;
        self.instructions += instructions;
    }
}

/// What `does` gives, and its instructions, to 40.
#[inline(always)]
fn counted<R>(does: impl FnOnce() -> R) -> (R, u64) {
    let before = SYST::get_current();
    let result = does();
    let after = SYST::get_current();
    (result, u64::from(before.wrapping_sub(after) & CLOCK_MASK) * INSTRUCTIONS_PER_CLOCK)
}

/// What the driver does each second, and again after each run: how many runs began, each of which has ended.
#[inline(never)]
fn tick<S: Storage<Idle>>(collector: &mut Collector<Idle, S>, bot: &Idle, second: u64) -> u64 {
    let now = Millis(second * 1_000);
    let mut runs = 0;
    loop {
        collector.handle_time(now);
        let mut begun = [None; RUNS];
        while let Some(action) = collector.poll(bot) {
            if let (Action::Run(due), Some(free)) = (action, begun.iter_mut().find(|run| run.is_none())) {
                *free = Some(due.run);
            }
        }
        while collector.poll_event().is_some() {}
        core::hint::black_box(collector.poll_timeout());
        if begun == [None; RUNS] {
            return runs;
        }
        for run in begun.into_iter().flatten() {
            collector.handle_time(now);
            runs += u64::from(collector.job(run).is_some());
            collector.handle_time(now);
            collector.handle_completed(run);
        }
    }
}

/// The first refresh, answered by the shortest of backends.
fn refresh<S: Storage<Idle>>(collector: &mut Collector<Idle, S>, bot: &Idle) -> Result<(), &'static str> {
    collector.handle_time(Millis(0));
    while let Some(action) = collector.poll(bot) {
        let Action::Send(id) = action else { continue };
        let mut body: &[u8] = match collector.request_head(id).map(|head| head.resource) {
            Some(Resource::Status) => br#"{"db_migration_needed":false,"user_exists":true}"#,
            Some(Resource::Profile) => {
                br#"{"user_id":4,"user_type":"bot","record":{"protocol":null,"tied_to_account":1}}"#
            }
            _ => return Err("a request that a bot without entities does not need"),
        };
        let head = ResponseHead { status: 200, date_unix_s: Some(1_700_000_000), retry_after_ms: None };
        collector.handle_response_head(id, head);
        while !body.is_empty() {
            match collector.handle_response_body(bot, id, body) {
                BodyStatus::Taken(n) if n > 0 => body = body.get(n..).unwrap_or_default(),
                _ => return Err("the answer is refused"),
            }
        }
        collector.handle_response_end(bot, id);
    }
    Ok(())
}

fn say(line: Arguments<'_>) {
    if let Ok(mut out) = hio::hstdout() {
        let _ = out.write_fmt(line);
        let _ = out.write_str("\n");
    }
}

fn fail(why: &str) -> ! {
    say(format_args!("error: {why}"));
    loop {
        debug::exit(debug::EXIT_FAILURE);
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say(format_args!("{info}"));
    fail("panic")
}
