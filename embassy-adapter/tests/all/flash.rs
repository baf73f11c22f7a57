//! A whole collector whose values are kept in flash, on simulated time: outages, restarts, power cuts, flash that is full or fails.
#![cfg(feature = "sim-flash")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use embassy_futures::join::join;
use embassy_futures::select::select;
use embassy_time::Timer;
use embedded_storage_async::nor_flash::{ErrorType, MultiwriteNorFlash, NorFlash, ReadNorFlash};
use grafolean_embassy::core::api::{Method, Resource, Token};
use grafolean_embassy::core::bot::{Anything, Bot, Context, HandOverError, JobSink, NewJob};
use grafolean_embassy::core::collector::{RequestError, ResponseHead, Settings};
use grafolean_embassy::core::interval::{Interval, Intervals};
use grafolean_embassy::core::jobs::Due;
use grafolean_embassy::core::outbox::{DropReason, Ledger};
use grafolean_embassy::core::time::{UnixMillis, WallSource};
use grafolean_embassy::flash::sim::{SimNor, SimNorError};
use grafolean_embassy::flash::{Flash, FlashEvent, FlashSettings, run_with_flash};
use grafolean_embassy::{Budget, DriverSettings, Observer, Requests, Shared, Transport};

use crate::support::{now_ms, reboot, simulate};

const TOKEN: &str = "3bfae491-8c49-42ca-8332-0ae431d59014";
/// 2026-01-01T00:00:00Z.
const START_S: u64 = 1_767_225_600;
const PAGE: usize = 1024;
const PROFILE: &str = r#"{"user_id":5,"user_type":"bot","record":{"protocol":null,"tied_to_account":1}}"#;

/// Hands over a value every two seconds, numbered through all boots, and counts runs in a state.
struct Counter<'a> {
    world: &'a World,
}

impl Bot for Counter<'_> {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = u64;
    type Error = HandOverError;

    fn protocol(&self) -> Option<&str> {
        None
    }

    fn own_jobs(&self, account: u64, jobs: &mut dyn JobSink<u64>) {
        jobs.add(NewJob::new(Intervals::one(Interval::new(2).unwrap()), account).named("count"));
    }

    async fn perform<C: Context<Bot = Self>>(
        &self,
        account: &u64,
        _: &Due,
        cx: &mut C,
    ) -> Result<(), HandOverError> {
        let number = self.world.numbers.get();
        cx.value(format_args!("a{account}.counted"), number as i64)?;
        self.world.numbers.set(number + 1);
        self.world.handed.borrow_mut().insert(number, self.world.unix_ms());
        if number.is_multiple_of(10) {
            let mut runs = [0; 8];
            let _ = cx.get_state("runs", &mut runs);
            let runs = u64::from_le_bytes(runs) + 1;
            self.world.state.set(runs);
            cx.set_state("runs", &runs.to_le_bytes()).unwrap();
        }
        Ok(())
    }
}

/// What is outside of the board: time, the backend, the power.
#[derive(Default)]
struct World {
    /// Unix seconds at the present boot's start, less those of the start of the world.
    booted_s: Cell<u64>,
    backend: Cell<bool>,
    /// It comes back at this time of a boot, in ms, if that is not 0.
    back_at_ms: Cell<u64>,
    /// How long the backend takes for an answer, beyond 30 ms.
    slow_ms: Cell<u64>,
    /// Answers have no date.
    no_date: Cell<bool>,
    /// The next value's number.
    numbers: Cell<u64>,
    state: Cell<u64>,
    /// When each value was handed over, in Unix ms.
    handed: RefCell<BTreeMap<u64, u64>>,
    /// Times with which each value arrived.
    arrived: RefCell<BTreeMap<u64, Vec<u64>>>,
    events: RefCell<Vec<FlashEvent>>,
}

impl World {
    fn unix_ms(&self) -> u64 {
        (START_S + self.booted_s.get()) * 1000 + now_ms()
    }

    fn is_up(&self) -> bool {
        let at = self.back_at_ms.get();
        self.backend.get() || (at > 0 && now_ms() >= at)
    }

    /// Takes the values of a PUT.
    fn take(&self, body: &str) {
        for value in body.trim_matches(['[', ']']).split("},{") {
            let field = |name: &str| {
                let from = value.find(name).unwrap() + name.len();
                value[from..].split([',', '}']).next().unwrap()
            };
            assert_eq!(field(r#""p":"#), r#""a1.counted""#);
            let number = field(r#""v":"#).parse().unwrap();
            let time_ms = (field(r#""t":"#).parse::<f64>().unwrap() * 1000.0).round() as u64;
            self.arrived.borrow_mut().entry(number).or_default().push(time_ms);
        }
    }

    /// Every value that arrived did so with one time, that of its hand-over.
    fn check_times(&self, tolerance_ms: u64) {
        for (number, times) in self.arrived.borrow().iter() {
            assert!(times.iter().all(|t| *t == times[0]), "value {number} has the times {times:?}");
            let handed = self.handed.borrow()[number];
            assert!(
                times[0].abs_diff(handed) <= tolerance_ms,
                "value {number} of {handed} has time {}",
                times[0]
            );
        }
    }
}

impl Observer for &World {
    fn flash(&self, event: &FlashEvent) {
        self.events.borrow_mut().push(*event);
    }
}

impl Transport for &World {
    async fn serve<R: Requests>(&mut self, requests: &R) {
        while let Some(head) = requests.next().await {
            let exchange = async {
                let (mut body, mut len) = ([0; 8192], 0);
                loop {
                    match requests.body(len, &mut body[len..]) {
                        0 => break,
                        n => len += n,
                    }
                }
                Timer::after_millis(30 + self.slow_ms.get()).await;
                let date_unix_s = (!self.no_date.get()).then(|| self.unix_ms() / 1000);
                match (head.method, head.resource) {
                    // Jobs are known even in an outage, which is one of values.
                    (Method::Get, Resource::Profile) => {
                        requests.answer_head(ResponseHead { status: 200, date_unix_s, retry_after_ms: None });
                        let _ = requests.answer_body(PROFILE.as_bytes()).await;
                    }
                    (Method::Put, Resource::Values(1)) if self.is_up() => {
                        self.take(std::str::from_utf8(&body[..len]).unwrap());
                        requests.answer_head(ResponseHead { status: 204, date_unix_s, retry_after_ms: None });
                    }
                    (Method::Put, _) => {
                        requests.failed(RequestError::NotSent, &"no backend");
                        return;
                    }
                    other => panic!("{other:?}"),
                }
                requests.answer_end();
            };
            select(exchange, requests.over()).await;
        }
    }
}

/// A flash whose owner can still reach it.
#[derive(Clone)]
struct Nor(Rc<RefCell<SimNor<Vec<u8>, Vec<u32>, 4, PAGE>>>);

impl Nor {
    fn new(pages: usize, seed: u64) -> Self {
        Nor(Rc::new(RefCell::new(SimNor::new(vec![0xff; pages * PAGE], vec![0; pages], seed))))
    }
}

impl ErrorType for Nor {
    type Error = SimNorError;
}

#[allow(clippy::await_holding_refcell_ref, reason = "it never waits")]
impl ReadNorFlash for Nor {
    const READ_SIZE: usize = 1;
    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SimNorError> {
        self.0.borrow_mut().read(offset, bytes).await
    }
    fn capacity(&self) -> usize {
        self.0.borrow().capacity()
    }
}

#[allow(clippy::await_holding_refcell_ref, reason = "it never waits")]
impl NorFlash for Nor {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = PAGE;
    async fn erase(&mut self, from: u32, to: u32) -> Result<(), SimNorError> {
        self.0.borrow_mut().erase(from, to).await
    }
    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SimNorError> {
        self.0.borrow_mut().write(offset, bytes).await
    }
}

impl MultiwriteNorFlash for Nor {}

grafolean_embassy::core::inline_storage! {
    struct Memory for Counter<'static> {
        accounts: 1, entities: 0, links: 0, credentials: 0, sensors: 0, jobs: 2, spare: 1, intervals: 2,
        distinct_intervals: 1, runs: 1, cells: 32, element: 512, scratch: 128, listing: 0, states: 2,
        faults: 4, events: 8, stored: 1,
    }
}

grafolean_embassy::core::inline_storage! {
    struct LargeMemory for Counter<'static> {
        accounts: 1, entities: 0, links: 0, credentials: 0, sensors: 0, jobs: 2, spare: 1, intervals: 2,
        distinct_intervals: 1, runs: 1, cells: 128, element: 512, scratch: 128, listing: 0, states: 2,
        faults: 4, events: 8, stored: 1,
    }
}

fn settings_of(store_after_ms: u32) -> FlashSettings {
    FlashSettings { store_after_ms, states_every_ms: 100_000 }
}

/// How a boot ends.
enum End {
    /// After so many ms, gracefully.
    Stop(u64),
    /// After so many ms, like a reset.
    Reset(u64),
    /// When the flash's power is cut, or after so many ms.
    Cut(u64),
}

/// One boot: its ledger at the end.
fn boot(world: &'static World, nor: &Nor, store_after_ms: u32, end: &End) -> Ledger {
    world.booted_s.set(world.booted_s.get() + now_ms() / 1000 + 60);
    reboot();
    let token = Token::parse(TOKEN).unwrap();
    let settings = Settings { wait_until_ready: false, account: Some(1), ..Settings::board(token, "/api") };
    let bot: &'static Counter<'static> = Box::leak(Box::new(Counter { world }));
    let shared: Shared<_, Memory, 1> = Shared::new(settings, Memory::new());
    let size = nor.capacity() as u32;
    let flash = Flash::new(nor.clone(), 0..size, settings_of(store_after_ms)).unwrap();
    let (mut transport, observer, settings) = (world, world, DriverSettings::default());
    let until = async {
        match *end {
            End::Stop(ms) => {
                Timer::after_millis(ms).await;
                shared.stop(2_000);
                std::future::pending().await
            }
            End::Reset(ms) => Timer::after_millis(ms).await,
            End::Cut(ms) => {
                let cut = async {
                    while !nor.0.borrow().is_off() {
                        Timer::after_millis(50).await;
                        assert!(shared.ledger().balanced(), "{}", shared.ledger());
                    }
                };
                select(cut, Timer::after_millis(ms)).await;
            }
        }
    };
    simulate(
        100_000,
        select(run_with_flash(bot, &shared, &mut transport, &observer, &settings, &flash), until),
    );
    let ledger = shared.ledger();
    assert!(ledger.balanced(), "{ledger}");
    ledger
}

fn world() -> &'static World {
    Box::leak(Box::default())
}

#[test]
fn nothing_is_written_but_the_start_as_long_as_the_backend_answers() {
    let (world, nor) = (world(), Nor::new(8, 1));
    world.backend.set(true);
    world.numbers.set(1);
    let ledger = boot(world, &nor, 30_000, &End::Stop(15_000));
    assert!(ledger.delivered >= 6 && ledger.queued == 0, "{ledger}");
    let steps = nor.0.borrow().steps();
    assert!((1..=20).contains(&steps), "{steps} words were written");
    assert!(world.events.borrow().is_empty());
}

#[test]
fn more_values_than_ram_holds_survive_an_outage_and_all_arrive_with_their_times() {
    let (world, nor) = (world(), Nor::new(16, 2));
    world.backend.set(true);
    let back = async {
        Timer::after_secs(20).await;
        world.backend.set(false);
        Timer::after_secs(200).await;
        world.backend.set(true);
    };
    // The outage is within one boot: RAM holds 16 values of 32 bytes, 100 come.
    reboot();
    let token = Token::parse(TOKEN).unwrap();
    let settings = Settings { wait_until_ready: false, account: Some(1), ..Settings::board(token, "/api") };
    let shared: Shared<_, Memory, 1> = Shared::new(settings, Memory::new());
    let flash = Flash::new(nor.clone(), 0..16 * PAGE as u32, FlashSettings::default()).unwrap();
    let bot: &'static Counter<'static> = Box::leak(Box::new(Counter { world }));
    let stop = async {
        Timer::after_secs(400).await;
        shared.stop(30_000);
    };
    let (mut transport, settings) = (world, DriverSettings::default());
    let run = run_with_flash(bot, &shared, &mut transport, &world, &settings, &flash);
    let ledger = simulate(1000, join(run, join(back, stop))).0.unwrap();
    assert_eq!(
        (ledger.queued, ledger.dropped_total(), ledger.delivered),
        (0, 0, ledger.collected),
        "{ledger}"
    );
    assert!(ledger.collected > 190, "{ledger}");
    assert_eq!(world.arrived.borrow().len() as u64, world.numbers.get());
    world.check_times(1_000);
    assert!(world.events.borrow().is_empty(), "{:?}", world.events.borrow());
}

#[test]
fn a_slow_backend_gets_each_value_once_while_others_are_fed() {
    let (world, nor) = (world(), Nor::new(24, 12));
    reboot();
    let back = async {
        Timer::after_secs(600).await;
        world.slow_ms.set(5_000);
        world.backend.set(true);
    };
    let token = Token::parse(TOKEN).unwrap();
    let board = Settings::board(token, "/api");
    let settings = Settings { wait_until_ready: false, account: Some(1), ..board };
    let shared: Shared<_, LargeMemory, 1> = Shared::new(settings, LargeMemory::new());
    let flash = Flash::new(nor.clone(), 0..24 * PAGE as u32, FlashSettings::default()).unwrap();
    let bot: &'static Counter<'static> = Box::leak(Box::new(Counter { world }));
    let stop = async {
        Timer::after_secs(1_200).await;
        shared.stop(60_000);
    };
    let (mut transport, settings) = (world, DriverSettings::default());
    let run = run_with_flash(bot, &shared, &mut transport, &world, &settings, &flash);
    let ledger = simulate(2_000, join(run, join(back, stop))).0.unwrap();
    assert_eq!((ledger.delivered, ledger.dropped_total()), (ledger.collected, 0), "{ledger}");
    assert!(ledger.collected > 550, "{ledger}");
    let arrived = world.arrived.borrow();
    assert_eq!(arrived.len() as u64, world.numbers.get());
    assert!(arrived.values().all(|times| times.len() == 1), "{arrived:?}");
}

#[test]
fn values_of_an_outage_arrive_after_a_reset() {
    let (world, nor) = (world(), Nor::new(16, 3));
    let ledger = boot(world, &nor, 10_000, &End::Reset(120_000));
    assert_eq!((ledger.delivered, ledger.dropped_total()), (0, 0), "{ledger}");
    let before = world.numbers.get();
    world.backend.set(true);
    let ledger = boot(world, &nor, 10_000, &End::Stop(60_000));
    let Some(FlashEvent::Found { values, no_time: 0, unreadable: 0 }) =
        world.events.borrow().first().copied()
    else {
        panic!("{:?}", world.events.borrow())
    };
    // Where RAM is short they don't wait for ten seconds. One may have waited for the next look.
    assert!((before - 1..=before).contains(&values), "{values} of {before}");
    assert_eq!((ledger.recovered, ledger.queued, ledger.dropped_total()), (values, 0, 0), "{ledger}");
    let arrived = world.arrived.borrow();
    assert!((0..values).all(|number| arrived.contains_key(&number)), "the oldest are there");
    drop(arrived);
    world.check_times(1_000);
}

#[test]
fn a_graceful_stop_keeps_everything_that_waits() {
    let (world, nor) = (world(), Nor::new(16, 4));
    let ledger = boot(world, &nor, 30_000, &End::Stop(20_000));
    assert!(ledger.queued >= 9 && ledger.queued == ledger.collected, "{ledger}");
    world.backend.set(true);
    let next = boot(world, &nor, 30_000, &End::Stop(20_000));
    assert_eq!((next.recovered, next.queued), (ledger.queued, 0), "{next}");
    assert_eq!(world.arrived.borrow().len() as u64, world.numbers.get());
    world.check_times(1_000);
}

#[test]
fn states_of_jobs_survive_restarts() {
    let (world, nor) = (world(), Nor::new(8, 5));
    world.backend.set(true);
    for _ in 0..4 {
        boot(world, &nor, 30_000, &End::Stop(60_000));
    }
    assert!(world.state.get() >= 10, "{} times ten runs", world.state.get());
}

#[test]
fn states_that_change_all_the_time_are_written_every_100_s_only_and_survive_a_reset() {
    let (world, nor) = (world(), Nor::new(8, 11));
    world.backend.set(true);
    // A change every 20 s.
    boot(world, &nor, 30_000, &End::Reset(395_000));
    let before = world.state.get();
    assert!(before >= 19, "{before}");
    // Boot: 11 words at most. A state: 8.
    let steps = nor.0.borrow().steps();
    assert!((11 + 2 * 8..=11 + 4 * 8).contains(&steps), "{steps} words were written");
    boot(world, &nor, 30_000, &End::Stop(30_000));
    let lost = before + 2 - world.state.get();
    assert!(lost <= 5, "{lost} of {before} changes lost");
}

#[test]
fn values_without_time_are_dropped_after_a_restart_and_counted() {
    let (world, nor) = (world(), Nor::new(16, 6));
    // The board never learns the time.
    world.no_date.set(true);
    let ledger = boot(world, &nor, 10_000, &End::Reset(60_000));
    assert_eq!((ledger.delivered, ledger.dropped_total()), (0, 0), "{ledger}");
    let before = world.numbers.get();
    world.backend.set(true);
    world.no_date.set(false);
    let ledger = boot(world, &nor, 10_000, &End::Stop(60_000));
    assert!(ledger.recovered > before - 8, "{ledger}");
    assert_eq!(ledger.dropped_by(DropReason::NoTime), ledger.recovered, "{ledger}");
    assert_eq!((ledger.dropped_total(), ledger.queued), (ledger.recovered, 0), "{ledger}");
}

#[test]
fn values_without_time_that_left_ram_get_it_when_the_clock_becomes_known() {
    let (world, nor) = (world(), Nor::new(16, 7));
    world.no_date.set(true);
    reboot();
    let up = async {
        Timer::after_secs(120).await;
        world.backend.set(true);
    };
    let token = Token::parse(TOKEN).unwrap();
    let board = Settings::board(token, "/api");
    let settings = Settings { wait_until_ready: false, account: Some(1), wall: WallSource::System, ..board };
    let shared: Shared<_, Memory, 1> = Shared::new(settings, Memory::new());
    let flash = Flash::new(nor.clone(), 0..16 * PAGE as u32, FlashSettings::default()).unwrap();
    let bot: &'static Counter<'static> = Box::leak(Box::new(Counter { world }));
    let clock = async {
        Timer::after_secs(110).await;
        shared.with(|c| c.handle_system_clock(UnixMillis(world.unix_ms())));
        Timer::after_secs(200).await;
        shared.stop(30_000);
    };
    let (mut transport, settings) = (world, DriverSettings::default());
    let run = run_with_flash(bot, &shared, &mut transport, &world, &settings, &flash);
    let ledger = simulate(1000, join(run, join(up, clock))).0.unwrap();
    assert_eq!((ledger.delivered, ledger.dropped_total()), (ledger.collected, 0), "{ledger}");
    assert_eq!(world.arrived.borrow().len() as u64, world.numbers.get());
    world.check_times(1_000);
}

#[test]
fn when_flash_is_full_the_oldest_give_way_and_are_counted() {
    let (world, nor) = (world(), Nor::new(5, 8));
    let ledger = boot(world, &nor, 5_000, &End::Reset(600_000));
    let full = ledger.dropped_by(DropReason::Full);
    assert!(full > 100 && full == ledger.dropped_total(), "{ledger}");
    assert_eq!(*world.events.borrow(), [FlashEvent::Full], "told once");
    let before = world.numbers.get();
    world.backend.set(true);
    let ledger = boot(world, &nor, 5_000, &End::Stop(120_000));
    assert!(ledger.recovered > 30 && ledger.queued == 0 && ledger.dropped_total() == 0, "{ledger}");
    // What is left are the newest, without a gap.
    let arrived: Vec<u64> = world.arrived.borrow().keys().copied().take_while(|n| *n < before).collect();
    assert!(arrived.windows(2).all(|two| two[1] == two[0] + 1), "{arrived:?}");
    assert!(before - arrived.last().unwrap() <= 5, "{:?} of {before}", arrived.last());
}

#[test]
fn records_that_give_way_while_their_values_are_in_ram_are_counted_once() {
    let (world, nor) = (world(), Nor::new(5, 13));
    boot(world, &nor, 5_000, &End::Reset(400_000));
    // The second boot takes the oldest into RAM, can't send them, and fills the flash with newer ones.
    world.back_at_ms.set(300_000);
    let ledger = boot(world, &nor, 5_000, &End::Stop(500_000));
    assert_eq!(ledger.queued, 0, "{ledger}");
    assert!(ledger.recovered > 30 && ledger.dropped_total() > 30, "{ledger}");
    assert_eq!(ledger.dropped_total(), ledger.dropped_by(DropReason::Full), "{ledger}");
    assert!(world.arrived.borrow().values().all(|times| times.len() == 1));
}

#[test]
fn while_flash_fails_values_stay_in_ram_and_it_is_told_once() {
    let (world, nor) = (world(), Nor::new(16, 9));
    let failing = nor.clone();
    reboot();
    let fail = async {
        Timer::after_secs(2).await;
        failing.0.borrow_mut().fail(true);
        Timer::after_secs(28).await;
        world.backend.set(true);
        Timer::after_secs(30).await;
        world.backend.set(false);
        failing.0.borrow_mut().fail(false);
        Timer::after_secs(100).await;
    };
    let token = Token::parse(TOKEN).unwrap();
    let settings = Settings { wait_until_ready: false, account: Some(1), ..Settings::board(token, "/api") };
    let shared: Shared<_, Memory, 1> = Shared::new(settings, Memory::new());
    let flash = Flash::new(nor.clone(), 0..16 * PAGE as u32, settings_of(5_000)).unwrap();
    let bot: &'static Counter<'static> = Box::leak(Box::new(Counter { world }));
    let (mut transport, settings) = (world, DriverSettings::default());
    let run = run_with_flash(bot, &shared, &mut transport, &world, &settings, &flash);
    simulate(1000, select(run, fail));
    let ledger = shared.ledger();
    assert!(ledger.balanced() && ledger.dropped_total() == 0 && ledger.delivered >= 15, "{ledger}");
    let events = world.events.borrow();
    assert!(matches!(events[..], [FlashEvent::Failed(_), FlashEvent::Works]), "{events:?}");
    drop(events);
    drop(flash);
    world.backend.set(true);
    let next = boot(world, &nor, 5_000, &End::Stop(60_000));
    assert!(next.recovered >= 40, "{next}");
}

/// Boots again and again; the power is cut at a step of the flash that the seed gives, while the backend comes and goes.
fn power_cuts(seed: u64) {
    println!("seed {seed}");
    let mut random = grafolean_embassy::core::random::SplitMix64::new(seed);
    let (world, nor) = (world(), Nor::new(8, seed));
    let store_after_ms = 4_000;
    // Each value must be delivered, or have been young when a power cut came.
    let mut cuts: Vec<u64> = Vec::new();
    let (mut full, mut found) = (0, 0);
    for _ in 0..6 {
        world.backend.set(random.below(3) == 0);
        nor.0.borrow_mut().power_on();
        nor.0.borrow_mut().cut_after(u64::from(random.below(900)));
        let ledger = boot(world, &nor, store_after_ms, &End::Cut(u64::from(random.below(90_000))));
        cuts.push(world.unix_ms());
        full += ledger.dropped_by(DropReason::Full);
        found += ledger.recovered;
        assert_eq!(ledger.dropped_total(), ledger.dropped_by(DropReason::Full), "seed {seed}: {ledger}");
    }
    nor.0.borrow_mut().power_on();
    world.backend.set(true);
    let ledger = boot(world, &nor, store_after_ms, &End::Stop(120_000));
    assert_eq!((ledger.queued, ledger.dropped_total()), (0, 0), "seed {seed}: {ledger}");
    world.check_times(1_000);
    let arrived = world.arrived.borrow();
    let mut missing = 0;
    for (number, handed) in world.handed.borrow().iter().filter(|(number, _)| !arrived.contains_key(number)) {
        let cut = *cuts.iter().find(|cut| *cut >= handed).unwrap();
        // A look each second, and a retry if the first one met an answer to a value that left.
        if cut - handed > u64::from(store_after_ms) + 2_500 {
            missing += 1;
            assert!(
                missing <= full,
                "seed {seed}: value {number} of {handed}, cut at {cut}; {full} gave way"
            );
        }
    }
    assert!(found + ledger.recovered > 0 || cuts.is_empty(), "seed {seed}: nothing was ever found");
}

#[test]
fn whenever_the_power_is_cut_only_young_values_are_lost_and_every_boot_s_ledger_balances() {
    for seed in 1..=60 {
        power_cuts(seed);
    }
}

#[test]
fn the_budget_says_what_flash_takes() {
    type Part = Nor;
    type Of = Counter<'static>;
    const WITHOUT: Budget = Budget::of::<Of, Memory, &World, &World, 1>();
    const WITH: Budget = Budget::of_flash::<Of, Memory, &World, &World, Part, 1>();
    assert_eq!(WITH.transport, WITHOUT.transport);
    let flash = size_of::<Flash<Part>>();
    assert_eq!(WITH.collector, WITHOUT.collector + flash);
    assert!(flash < 800, "{flash}");
    // On a board, with pointers of four bytes, it is about half.
    assert!((100..2_500).contains(&(WITH.driver - WITHOUT.driver)), "{WITH}, not {WITHOUT}");
}
