//! `counts CASE` runs one load for callgrind, which counts the instructions of what is done within [`collect_here`];
//! `counts` runs all of them so and prints a table; `counts --check FILE` compares with a baseline, `counts --write FILE`
//! makes one; `counts --count CASE` says one count.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what fails here is the end of it

use std::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};

use grafolean_bench::counted::{CASES, Load, PEERS};

/// A count may differ from the baseline by this, in either direction: what has become better is written down too.
const TOLERANCE_PERCENT: f64 = 3.0;

/// Callgrind counts while this runs. It has no type parameters, so that its name is in the program once.
#[inline(never)]
fn collect_here(load: &mut dyn Load) {
    load.run();
    // Not a call in tail position, which would leave this too early.
    std::hint::black_box(());
}

/// Instructions for each unit of a case.
fn count(name: &str) -> Result<f64, String> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*collect_here*"])
        .arg(me)
        .arg(name)
        .output()
        .map_err(|e| format!("valgrind: {e} (Debian: apt install valgrind)"))?;
    let said = String::from_utf8_lossy(&out.stderr);
    let failed = || format!("{name}: valgrind said no count:\n{said}");
    let collected = said.lines().find_map(|l| l.split("Collected :").nth(1)).ok_or_else(failed)?;
    let instructions: f64 = collected.trim().parse().map_err(|_| failed())?;
    let units: f64 = String::from_utf8_lossy(&out.stdout).trim().parse().map_err(|_| failed())?;
    if instructions < units { Err(failed()) } else { Ok(instructions / units) }
}

/// All cases, on as many threads as there are processors.
fn count_all() -> Result<Vec<f64>, String> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mine = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        mine.take_while(|i| *i < CASES.len()).map(|i| (i, count(CASES[i].name))).collect::<Vec<_>>()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all: Vec<_> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        started.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    all.sort_by_key(|(i, _)| *i);
    all.into_iter().map(|(_, count)| count).collect()
}

/// What `rustc --version` says, without the date.
fn rustc() -> String {
    let out = Command::new("rustc").arg("--version").output();
    let text = out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().nth(1).unwrap_or("unknown").to_owned()
}

/// A baseline's compiler and counts: lines of a name, a tab and a count.
fn read(file: &str) -> Result<(String, Vec<(String, f64)>), String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
    let mut compiler = String::new();
    let mut counts = Vec::new();
    for (n, line) in (1..).zip(text.lines()).filter(|(_, l)| !l.starts_with('#')) {
        let bad = || format!("{file}:{n}: expected a name, a tab and a count");
        let (name, count) = line.split_once('\t').ok_or_else(bad)?;
        if name == "rustc" {
            compiler = count.to_owned();
        } else {
            counts.push((name.to_owned(), count.parse().map_err(|_| bad())?));
        }
    }
    Ok((compiler, counts))
}

fn write(file: &str, counts: &[f64]) -> Result<(), String> {
    let mut text =
        "# Instructions, counted by callgrind: core/bench/run --write makes this file anew.\n".to_owned();
    let _ = writeln!(text, "rustc\t{}", rustc());
    for (case, count) in CASES.iter().zip(counts) {
        let _ = writeln!(text, "{}\t{count:.3}", case.name);
    }
    std::fs::write(file, text).map_err(|e| format!("{file}: {e}"))
}

fn show(counts: &[f64], baseline: &[(String, f64)]) -> Vec<String> {
    let mut off = Vec::new();
    println!("| {:<36} | {:>12} | {:>12} | {:>7} | unit", "instructions", "now", "baseline", "");
    println!("| {} | {}: | {}: | {}: | ---", "-".repeat(36), "-".repeat(11), "-".repeat(11), "-".repeat(6));
    for (case, count) in CASES.iter().zip(counts) {
        let of_it = baseline.iter().find(|b| b.0 == case.name);
        let (was, change) = match of_it {
            Some((_, was)) => {
                let percent = (count / was - 1.0) * 100.0;
                if percent.abs() > TOLERANCE_PERCENT {
                    off.push(format!("{}: {count:.3}, {percent:+.1} % from {was:.3}", case.name));
                }
                (format!("{was:.3}"), format!("{percent:+.1} %"))
            }
            None => {
                off.push(format!("{}: is not in the baseline", case.name));
                ("-".to_owned(), "-".to_owned())
            }
        };
        println!("| {:<36} | {count:>12.3} | {was:>12} | {change:>7} | {}", case.name, case.unit);
    }
    off.extend(
        baseline
            .iter()
            .filter(|b| CASES.iter().all(|c| c.name != b.0))
            .map(|b| format!("{}: is in the baseline only", b.0)),
    );
    off
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        [] => count_all().map(|counts| {
            show(&counts, &[]);
        }),
        ["--write", file] => count_all().and_then(|counts| {
            show(&counts, &read(file).unwrap_or_default().1);
            write(file, &counts)
        }),
        ["--check", file] => count_all().and_then(|counts| {
            let (compiler, baseline) = read(file)?;
            let off = show(&counts, &baseline);
            if compiler != rustc() {
                println!("\nnot compared: the baseline is of rustc {compiler}, this is {}", rustc());
                return Ok(());
            }
            if off.is_empty() {
                return Ok(());
            }
            let list = off.join("\n  ");
            Err(format!("more than {TOLERANCE_PERCENT} % from {file}:\n  {list}\nif that is meant: core/bench/run --write"))
        }),
        ["--count", name] => count(name).map(|count| println!("{count:.3}")),
        [name] => match CASES.iter().chain(PEERS).find(|c| c.name == name) {
            Some(case) => {
                let mut load = (case.make)();
                collect_here(&mut *load);
                println!("{}", load.units());
                Ok(())
            }
            None => Err(format!("no case is called `{name}`")),
        },
        _ => Err("usage: counts [CASE | --count CASE | --check FILE | --write FILE]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("counts: {why}");
            ExitCode::FAILURE
        }
    }
}
