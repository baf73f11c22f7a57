//! The firmware on emulated boards: against the stand-in, with all that can happen to a board's network and backend.
//!
//! They need QEMU and a compiler for the board, so they are ignored by a plain `cargo test`: `examples/emulation/run test`.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use grafolean_emulation::{Board, Builder, Faults, Firmware, Link, Machine};
use grafolean_stand_in::{Config, Entity, Misbehaviour, RequestRecord, Rule, StandIn, StandInThread};

/// For what takes a second or two on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PING_TOKEN: &str = "66666666-6666-4666-8666-666666666666";
const SENSOR_TOKEN: &str = "77777777-7777-4777-8777-777777777777";
const PING: i32 = 41;
/// Entity 31 is the machine that QEMU runs on; nobody has the address of entity 32.
const BACKEND: &str = r#"{
  "seed": 5,
  "accounts": [{"id": 1, "name": "Boards",
    "credentials": [{"id": 11, "name": "c", "protocol": "ping",
      "details": {"n_packets": "2", "sleep_packets": "0.1", "timeout": 0.5, "retry": 0}}],
    "sensors": [{"id": 21, "name": "s", "protocol": "ping", "default_interval": 1, "details": {}}],
    "entities": [
      {"id": 31, "name": "host", "entity_type": "device", "details": {"ipv4": "10.0.2.2"},
       "protocols": {"ping": {"credential": 11, "bot": 41, "sensors": [{"sensor": 21, "interval": null}]}}},
      {"id": 32, "name": "nobody", "entity_type": "device", "details": {"ipv4": "10.0.2.77"},
       "protocols": {"ping": {"credential": 11, "bot": 41, "sensors": [{"sensor": 21, "interval": 2}]}}}]}],
  "bots": [
    {"id": 41, "name": "ping", "short_name": "ping", "protocol": "ping", "token": "66666666-6666-4666-8666-666666666666"},
    {"id": 42, "name": "board", "short_name": "board", "protocol": null, "tied_to_account": 1,
     "token": "77777777-7777-4777-8777-777777777777"}]
}"#;

fn backend() -> StandInThread {
    StandIn::builder().config(Config::from_json(BACKEND).unwrap()).spawn_thread().unwrap()
}

/// A board with both bots: a value a second, a refresh every second.
fn both<'a>(firmware: &'a Firmware, stand_in: &StandIn) -> Builder<'a> {
    Board::builder(firmware)
        .backend(stand_in)
        .setting("PING_BOT_TOKEN", PING_TOKEN)
        .setting("SENSOR_BOT_TOKEN", SENSOR_TOKEN)
        .setting("SENSOR_INTERVAL", "1")
        .setting("JOBS_REFRESH_INTERVAL", "1")
}

fn wait(stand_in: &StandInThread, board: &Board, what: &str, condition: impl FnMut(&StandIn) -> bool) {
    if let Err(error) = stand_in.wait_for(PATIENCE, condition) {
        panic!("{what}: {error}\n{}", board.log());
    }
}

fn count(stand_in: &StandIn, path: &str) -> usize {
    stand_in.values_of(1, path).len()
}

fn successes(stand_in: &StandIn, entity: i32) -> Vec<f64> {
    stand_in
        .values_of(1, &format!("entity.{entity}.ping.success"))
        .into_iter()
        .map(|(_, value)| value)
        .collect()
}

/// What a bot's ledger says in the board's last report.
#[derive(Debug, Default)]
struct Reported {
    collected: u64,
    delivered: u64,
    queued: u64,
    dropped: u64,
    failed_requests: u64,
}

fn reported(board: &Board, bot: &str) -> Reported {
    let log = board.log();
    let line = log.lines().rfind(|line| line.starts_with(&format!("report {bot}:"))).unwrap();
    let words: Vec<&str> = line.split([' ', ';', ',', '(']).collect();
    let after = |word: &str| {
        let at = words.iter().position(|w| *w == word).unwrap_or_else(|| panic!("no {word} in {line}"));
        words[at + 1].parse().unwrap_or_else(|_| panic!("{word} in {line}"))
    };
    Reported {
        collected: after("collected"),
        delivered: after("delivered"),
        queued: after("queued"),
        dropped: after("dropped"),
        failed_requests: after("requests"),
    }
}

/// The call stack's high-water mark in the `nth` report, in bytes.
fn stack_bytes(board: &Board, nth: usize) -> u64 {
    let line = board.wait_for_line(PATIENCE, "report stack:", nth).unwrap();
    line.split(' ').nth(2).unwrap().parse().unwrap()
}

/// Stops the board, and checks that it ends well, that its ledgers balance, that the backend has all that they say, and that it has
/// shown no secret.
fn ends_well(board: &mut Board, stand_in: &StandIn) -> [Reported; 2] {
    board.press('q').unwrap();
    let code = board.wait(PATIENCE).unwrap();
    let log = board.log();
    assert_eq!(code, 0, "{log}");
    let reports = [reported(board, "ping"), reported(board, "sensor")];
    let (mut delivered, mut dropped) = (0, 0);
    for report in &reports {
        assert_eq!(report.collected, report.delivered + report.queued + report.dropped, "{log}");
        assert_eq!(report.queued, 0, "{log}");
        delivered += report.delivered;
        dropped += report.dropped;
    }
    // One whose answer was lost is stored and was sent again: stored once. Or it had to go before it could be sent again.
    let stored = stand_in.value_count();
    assert!((delivered..=delivered + dropped).contains(&stored), "{stored} stored\n{log}");
    assert!(!log.contains(&PING_TOKEN[..8]) && !log.contains(&SENSOR_TOKEN[..8]), "{log}");
    reports
}

fn answered(request: &RequestRecord) -> bool {
    request.status.is_some_and(|status| status < 300)
}

/// From boot to exit code of one firmware; whether it has the sensor's bot too.
fn boots_collects_follows_and_ends(firmware: &Firmware, has_sensor: bool) {
    let stand_in = backend();
    let mut board = both(firmware, &stand_in).start().unwrap();
    board.wait_for_line(PATIENCE, "network 10.0.2.15/24", 1).unwrap();
    wait(&stand_in, &board, "pings", |s| successes(s, 31).len() >= 3 && successes(s, 32).len() >= 2);
    assert!(successes(&stand_in, 31).contains(&1.0), "{}", board.log());
    assert!(successes(&stand_in, 32).iter().all(|s| *s == 0.0), "{:?}", successes(&stand_in, 32));
    let rtt = stand_in.values_of(1, "entity.31.ping.p0.rtt");
    assert!(rtt.iter().all(|(_, s)| *s > 0.0 && *s < 0.5), "{rtt:?}");
    if has_sensor {
        wait(&stand_in, &board, "sensor", |s| count(s, "board.temperature") >= 3);
        let values = stand_in.values_of(1, "board.temperature");
        assert!(values.iter().all(|(_, v)| (20.0..30.0).contains(v)), "{values:?}");
    }
    // Another device comes, one goes.
    let device =
        Entity::device(33, "new").detail("ipv4", "10.0.2.2").protocol("ping", 11, PING, [(21, Some(1))]);
    stand_in.change(|b| b.set_entity(1, device).and_then(|_| b.remove_entity(1, 32))).unwrap();
    board.wait_for_line(PATIENCE, "(1 new, 0 changed, 1 removed)", 1).unwrap();
    wait(&stand_in, &board, "new device", |s| successes(s, 33).contains(&1.0));
    let gone = successes(&stand_in, 32).len();
    let before = successes(&stand_in, 33).len();
    wait(&stand_in, &board, "more of it", |s| successes(s, 33).len() >= before + 3);
    // A run that was under way may have ended since.
    assert!(successes(&stand_in, 32).len() <= gone + 1, "{}", board.log());
    let [ping, sensor] = ends_well(&mut board, &stand_in);
    if let Some(stack) = board.log().lines().rfind(|line| line.starts_with("report stack")) {
        println!("{}, sensor {has_sensor}: {stack}", firmware.machine().name());
    }
    assert_eq!((ping.failed_requests, sensor.failed_requests), (0, 0), "{}", board.log());
    assert_eq!(sensor.collected > 0, has_sensor);
    // Each bot's requests share its connection.
    let requests = stand_in.requests();
    assert!(requests.iter().all(answered), "{requests:?}");
    let bots = if has_sensor { 2 } else { 1 };
    assert_eq!(requests.iter().filter(|r| r.nth_on_connection == 1).count(), bots, "{requests:?}");
}

#[test]
#[ignore = "needs QEMU"]
fn a_board_boots_pings_posts_follows_the_configuration_and_ends_with_code_0() {
    boots_collects_follows_and_ends(&Firmware::build(Machine::Mps2).unwrap(), true);
}

#[test]
#[ignore = "needs QEMU"]
fn a_board_with_64_kb_of_ram_does_the_same() {
    boots_collects_follows_and_ends(&Firmware::build(Machine::Lm3s6965).unwrap(), false);
}

#[test]
#[ignore = "needs QEMU"]
fn a_firmware_without_the_sensors_bot_does_the_same_in_less_flash_and_ram() {
    let (both, ping) = (Firmware::build(Machine::Mps2).unwrap(), Firmware::build_ping_only().unwrap());
    assert!(ping.flash_bytes < both.flash_bytes && ping.ram_bytes < both.ram_bytes, "{ping:?} {both:?}");
    boots_collects_follows_and_ends(&ping, false);
}

#[test]
#[ignore = "needs QEMU"]
fn a_setting_that_cannot_be_used_ends_with_code_2_and_is_named_without_its_value() {
    let firmware = Firmware::build(Machine::Mps2).unwrap();
    for (key, value, why) in [
        ("BACKEND_URL", "https://10.0.2.2/api", "the connector has no TLS"),
        ("PING_BOT_TOKEN", "no-token-but-secret", "PING_BOT_TOKEN: the bot's token has 19 bytes"),
        ("PING_TOKEN", "secret", "PING_TOKEN: there is no such setting"),
    ] {
        let board = Board::builder(&firmware).setting("PING_BOT_TOKEN", PING_TOKEN).setting(key, value);
        let mut board = board.start().unwrap();
        assert_eq!(board.wait(PATIENCE).unwrap(), 2, "{}", board.log());
        let log = board.log();
        assert!(log.contains(why) && !log.contains("secret"), "{log}");
    }
}

#[test]
#[ignore = "needs QEMU"]
fn a_board_whose_backend_comes_later_begins_when_it_is_there() {
    let firmware = Firmware::build(Machine::Mps2).unwrap();
    let stand_in = backend();
    stand_in.shutdown();
    let mut board = both(&firmware, &stand_in).start().unwrap();
    board.wait_for_line(PATIENCE, "no connection: ConnectionRefused", 2).unwrap();
    stand_in.restart().unwrap();
    wait(&stand_in, &board, "values", |s| {
        successes(s, 31).contains(&1.0) && count(s, "board.temperature") >= 3
    });
    let [ping, sensor] = ends_well(&mut board, &stand_in);
    assert!(ping.failed_requests > 0 && sensor.failed_requests > 0);
    assert_eq!(ping.dropped + sensor.dropped, 0);
}

#[test]
#[ignore = "needs QEMU"]
fn values_of_the_time_in_which_the_backend_was_restarted_arrive_later_with_their_times() {
    let firmware = Firmware::build(Machine::Mps2).unwrap();
    let stand_in = backend();
    let mut board = both(&firmware, &stand_in).start().unwrap();
    wait(&stand_in, &board, "values", |s| count(s, "board.temperature") >= 3);
    stand_in.shutdown();
    let from_us = unix_us();
    board.wait_for_line(PATIENCE, "no connection: ConnectionRefused", 2).unwrap();
    std::thread::sleep(Duration::from_secs(8));
    let to_us = unix_us();
    let before = count(&stand_in, "board.temperature");
    stand_in.restart().unwrap();
    wait(&stand_in, &board, "what was missed, and more", |s| count(s, "board.temperature") >= before + 10);
    let [_, sensor] = ends_well(&mut board, &stand_in);
    assert!(sensor.failed_requests > 0);
    assert_eq!(sensor.dropped, 0);
    // The board's clock is right to two seconds or three, and goes slow where the emulator has too little of the processor.
    let slack_us = 3_000_000;
    let values = stand_in.values_of(1, "board.temperature");
    let missed = values.iter().filter(|(at, _)| (from_us + slack_us..to_us - slack_us).contains(at)).count();
    assert!(missed >= 1, "{from_us} {to_us} {values:?}");
}

fn unix_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}

#[test]
#[ignore = "needs QEMU"]
fn a_board_gets_on_with_a_tenth_of_the_frames_lost_and_recovers_from_half_a_minute_without_a_link() {
    let firmware = Firmware::build(Machine::Mps2).unwrap();
    let stand_in = backend();
    let link = Link::start(0x5eed_0001, Faults { lost: 100, doubled: 20, late: 20 }).unwrap();
    println!("seed {:#x}", link.seed());
    // The sensor's outbox has room for 48 values.
    let mut board = both(&firmware, &stand_in).setting("SENSOR_INTERVAL", "2").link(&link).start().unwrap();
    wait(&stand_in, &board, "values over a bad link", |s| {
        successes(s, 31).len() >= 8 && count(s, "board.temperature") >= 5
    });
    assert!(link.counters().lost > 10, "{:?}", link.counters());
    board.press('s').unwrap();
    let used = stack_bytes(&board, 1);
    link.pull_out();
    std::thread::sleep(Duration::from_secs(30));
    let before = count(&stand_in, "board.temperature");
    link.plug_in();
    wait(&stand_in, &board, "what was missed, and more", |s| count(s, "board.temperature") >= before + 12);
    link.faults(Faults::default());
    let [ping, sensor] = ends_well(&mut board, &stand_in);
    println!("{:?}\nping {ping:?}\nsensor {sensor:?}", link.counters());
    // The outbox for pings is small: its oldest values may have had to go, which was counted. The sensor's holds half a minute.
    assert_eq!(sensor.dropped, 0, "{}", board.log());
    assert!(stack_bytes(&board, 2) <= used + 1024, "{}", board.log());
}

#[test]
#[ignore = "needs QEMU"]
fn a_hundred_connections_that_the_backend_closes_cost_neither_sockets_nor_memory() {
    let firmware = Firmware::build(Machine::Mps2).unwrap();
    let stand_in = backend();
    stand_in.misbehave(Rule::new(Misbehaviour::IdleClose(Duration::ZERO))).unwrap();
    let mut board = both(&firmware, &stand_in).start().unwrap();
    wait(&stand_in, &board, "20 connections", |s| s.counters().connections >= 20);
    board.press('s').unwrap();
    let used = stack_bytes(&board, 1);
    wait(&stand_in, &board, "120 connections", |s| s.counters().connections >= 120);
    // Each bot has one at most.
    let open = stand_in.counters().open_connections;
    assert!(open <= 2, "{open} connections are open");
    let before = count(&stand_in, "board.temperature");
    wait(&stand_in, &board, "more values", |s| count(s, "board.temperature") >= before + 3);
    let [ping, sensor] = ends_well(&mut board, &stand_in);
    assert_eq!(ping.dropped + sensor.dropped, 0, "{}", board.log());
    assert!(stack_bytes(&board, 2) <= used + 256, "{}", board.log());
    wait(&stand_in, &board, "the last connections close", |s| s.counters().open_connections == 0);
}

#[test]
#[ignore = "needs QEMU"]
fn a_board_that_hangs_is_noticed_by_its_watchdog_and_one_that_does_not_is_left_alone() {
    let firmware = Firmware::build(Machine::Mps2).unwrap();
    let stand_in = backend();
    let mut board = both(&firmware, &stand_in).start().unwrap();
    // Longer than the watchdog's 15 s.
    wait(&stand_in, &board, "values", |s| count(s, "board.temperature") >= 18);
    board.press('h').unwrap();
    board.wait_for_line(PATIENCE, "hanging", 1).unwrap();
    assert_eq!(board.wait(PATIENCE).unwrap(), 104, "{}", board.log());
}
