//! Checks the settings, and tells the linker what memory the board has.

use std::error::Error;
use std::process::ExitCode;
use std::{env, fs, path::PathBuf};

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("cargo::error={why}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    grafolean_firmware_settings::build::generate()?;
    // Of MPS2's 4 MB each only as much as a larger microcontroller has.
    let (flash, ram) =
        if env::var_os("CARGO_FEATURE_LM3S6965EVB").is_some() { (256, 64) } else { (1024, 256) };
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let memory = format!(
        "MEMORY {{\n  FLASH : ORIGIN = 0x00000000, LENGTH = {flash}K\n  RAM : ORIGIN = 0x20000000, LENGTH = {ram}K\n}}\n"
    );
    fs::write(out.join("memory.x"), memory)?;
    println!("cargo::rustc-link-search={}", out.display());
    for argument in ["-Tlink.x", "--nmagic"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    Ok(())
}
