//! Settings and link arguments.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Else the compiler shows hundreds of errors, none of which says so.
    let chips = ["CARGO_FEATURE_ESP32C3", "CARGO_FEATURE_ESP32C6"];
    if chips.iter().filter(|chip| env::var_os(chip).is_some()).count() != 1 {
        println!("cargo::error=one chip: esp32c3 (default), or --no-default-features --features esp32c6");
        return ExitCode::FAILURE;
    }
    // Here, as RUSTFLAGS in the environment would replace those of .cargo/config.toml. It includes all other scripts.
    println!("cargo::rustc-link-arg-bins=-Tlinkall.x");
    match grafolean_firmware_settings::build::generate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("cargo::error={why}");
            ExitCode::FAILURE
        }
    }
}
