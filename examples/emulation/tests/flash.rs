//! The firmware with its values kept in flash on an emulated board: killed at a random moment of an outage, it delivers after its restart
//! what waited.
//!
//! It needs QEMU and a compiler for the board, so it is ignored by a plain `cargo test`: `examples/emulation/run test`. Another seed is
//! given by the environment variable `SEED`.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grafolean_core::random::SplitMix64;
use grafolean_emulation::{Board, Builder, Firmware};
use grafolean_stand_in::{Config, StandIn, StandInThread};

const PATIENCE: Duration = Duration::from_secs(60);
const SENSOR_TOKEN: &str = "77777777-7777-4777-8777-777777777777";
const PATH: &str = "board.temperature";
const BACKEND: &str = r#"{
  "seed": 5,
  "accounts": [{"id": 1, "name": "Boards", "credentials": [], "sensors": [], "entities": []}],
  "bots": [{"id": 42, "name": "board", "short_name": "board", "protocol": null, "tied_to_account": 1,
    "token": "77777777-7777-4777-8777-777777777777"}]
}"#;
/// The emulator's time and the board's clock are right to about so much, in µs.
const SLACK_US: i64 = 3_000_000;

fn board<'a>(firmware: &'a Firmware, stand_in: &StandIn, file: &Path) -> Builder<'a> {
    Board::builder(firmware)
        .backend(stand_in)
        .setting("SENSOR_BOT_TOKEN", SENSOR_TOKEN)
        .setting("SENSOR_INTERVAL", "1")
        .setting("FLASH_FILE", file.to_str().unwrap())
        .setting("FLASH_STORE_AFTER_MS", "1000")
}

fn times(stand_in: &StandIn) -> Vec<i64> {
    let mut times: Vec<i64> = stand_in.values_of(1, PATH).into_iter().map(|(at, _)| at).collect();
    times.sort_unstable();
    times
}

fn unix_us() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// The file that serves as flash, gone when it is dropped.
struct Image(PathBuf);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
#[ignore = "needs QEMU"]
fn values_of_an_outage_outlive_a_board_that_is_killed_at_any_moment() {
    let firmware = Firmware::build_with_flash().unwrap();
    println!("flash {} bytes, ram {} bytes without call stack", firmware.flash_bytes, firmware.ram_bytes);
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("seed {seed}");
    let mut random = SplitMix64::new(seed);
    let image =
        Image(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("flash-{}.bin", std::process::id())));
    let stand_in: StandInThread =
        StandIn::builder().config(Config::from_json(BACKEND).unwrap()).spawn_thread().unwrap();
    let mut delivered_before = 0;
    for round in 1..=2 {
        // The first board of a round loses its backend, and its power then.
        let first = board(&firmware, &stand_in, &image.0).start().unwrap();
        if let Err(error) = stand_in.wait_for(PATIENCE, |s| times(s).len() >= delivered_before + 3) {
            panic!("round {round}: {error}\n{}", first.log());
        }
        stand_in.shutdown();
        let from_us = unix_us();
        std::thread::sleep(Duration::from_millis(u64::from(8_000 + random.below(5_000))));
        let killed_us = unix_us();
        drop(first);
        // The second one finds what waits.
        stand_in.restart().unwrap();
        let before = times(&stand_in).len();
        let mut second = board(&firmware, &stand_in, &image.0).start().unwrap();
        let line = second.wait_for_line(PATIENCE, "values wait", 1).unwrap();
        let found: usize = line.split("flash: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        println!("round {round}: {line}");
        assert!(line.ends_with("dropped: 0 without time, 0 unreadable"), "{line}");
        let of_outage =
            |s: &StandIn| times(s).iter().filter(|at| (from_us - SLACK_US..killed_us).contains(at)).count();
        if let Err(error) =
            stand_in.wait_for(PATIENCE, |s| of_outage(s) >= found && times(s).len() >= before + found + 2)
        {
            panic!("round {round}, {found} found: {error}\n{}", second.log());
        }
        // All but the youngest are there: one a second.
        let all = times(&stand_in);
        let old: Vec<i64> =
            all.iter().copied().filter(|at| (from_us..killed_us - 2 * SLACK_US).contains(at)).collect();
        assert!(!old.is_empty(), "{found} found, {from_us} {killed_us} {all:?}");
        let gaps = all.windows(2).filter(|two| two[1] > from_us && two[1] < killed_us - SLACK_US);
        for gap in gaps {
            assert!(
                gap[1] - gap[0] < 2_900_000,
                "seed {seed}: a value is missing between {} and {}",
                gap[0],
                gap[1]
            );
        }
        second.press('q').unwrap();
        assert_eq!(second.wait(PATIENCE).unwrap(), 0, "{}", second.log());
        let log = second.log();
        let report = log.lines().rfind(|line| line.starts_with("report sensor:")).unwrap();
        assert!(
            report.contains(&format!("recovered {found} =")) && report.contains("queued 0 + dropped 0"),
            "{report}"
        );
        println!("{}", log.lines().rfind(|line| line.starts_with("report flash:")).unwrap());
        delivered_before = times(&stand_in).len();
    }
}
