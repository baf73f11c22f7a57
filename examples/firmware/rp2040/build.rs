//! Settings, link arguments, and for the Pico W the files of its radio.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

/// What the Wi-Fi chip is loaded with: the name of each file, and of the constant for it.
const RADIO_FILES: [(&str, &str); 3] =
    [("43439A0.bin", "FIRMWARE"), ("43439A0_clm.bin", "CLM"), ("nvram_rp2040.bin", "NVRAM")];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("cargo::error={why}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    grafolean_firmware_settings::build::generate().map_err(|error| error.to_string())?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::copy("memory.x", out.join("memory.x")).map_err(|error| format!("memory.x: {error}"))?;
    println!("cargo::rerun-if-changed=memory.x");
    println!("cargo::rustc-link-search={}", out.display());
    // Here, as RUSTFLAGS in the environment would replace those of .cargo/config.toml.
    for argument in ["--nmagic", "-Tlink.x", "-Tlink-rp.x", "-Tdefmt.x"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    if env::var_os("CARGO_FEATURE_PICO_W").is_some() { radio(&out) } else { Ok(()) }
}

/// Writes `radio.rs` with a constant for each of the radio's files.
fn radio(out: &Path) -> Result<(), String> {
    const FOLDER: &str = "CYW43_FIRMWARE_DIR";
    println!("cargo::rerun-if-env-changed={FOLDER}");
    let crate_has = |file| file != "nvram_rp2040.bin" && env::var_os("CARGO_FEATURE_CYW43_BLOBS").is_some();
    let folder = match env::var(FOLDER) {
        // Relative to this folder, wherever cargo was called.
        Ok(folder) if folder != "none" => Some(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)),
        Ok(_) => {
            println!(
                "cargo::warning={FOLDER} is none: this pico-w shows that it builds, its radio can't work"
            );
            None
        }
        Err(_) => {
            return Err(format!(
                "pico-w needs the files of its radio: set {FOLDER} to the folder that has them (README.md says \
                 where they come from and what their licence is), or to none to see only that it builds"
            ));
        }
    };
    let mut source = String::new();
    for (file, name) in RADIO_FILES {
        let bytes = match &folder {
            Some(folder) if folder.join(file).exists() || !crate_has(file) => {
                let path = folder.join(file);
                if !path.exists() {
                    return Err(format!("{FOLDER}: {} is missing there (README.md)", path.display()));
                }
                println!("cargo::rerun-if-changed={}", path.display());
                format!("*include_bytes!({:?})", path.display().to_string())
            }
            _ if crate_has(file) => match name {
                "CLM" => "*cyw43_firmware::CYW43_43439A0_CLM".into(),
                _ => "*cyw43_firmware::CYW43_43439A0".into(),
            },
            // Of a length that the driver takes.
            _ => "[0; 4]".into(),
        };
        source += &format!(
            "/// {file}\npub static {name}: &cyw43::Aligned<cyw43::A4, [u8]> = &cyw43::Aligned({bytes});\n"
        );
    }
    fs::write(out.join("radio.rs"), source).map_err(|error| format!("radio.rs: {error}"))
}
