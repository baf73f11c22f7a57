//! Simulates many seeds on all cores, and shows the smallest failure that it finds.
//!
//! ```sh
//! cargo run --release -p grafolean-simulator -- --seeds 2000 --from 0
//! cargo run --release -p grafolean-simulator -- --seed 356 --trace
//! ```
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use grafolean_simulator::{Cut, Plan, Stats, Violation, shrink, simulate};

const USAGE: &str = "usage: grafolean-simulator [--seeds N] [--from N] [--threads N] [--keep-going] [--quick]
       grafolean-simulator --seed N [--cut WHAT]... [--trace] [--no-shrink]
  --seeds N     simulate so many seeds (default 2000)
  --from N      the first of them (default 0)
  --threads N   on so many threads (default: one for each core)
  --keep-going  simulate all of them even if one fails
  --quick       say only which seed fails first, and how
  --seed N      simulate this one
  --cut WHAT    without this: what a shrunken failure names
  --trace       show the last things that happened
  --no-shrink   do not look for a smaller failure
Ends with 1 if an invariant is violated, with 2 if it was not called so.";

struct Args {
    seeds: u64,
    from: u64,
    threads: usize,
    keep_going: bool,
    quick: bool,
    seed: Option<u64>,
    cuts: Vec<Cut>,
    trace: bool,
    shrink: bool,
}

fn args() -> Result<Args, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut args = Args {
        seeds: 2000,
        from: 0,
        threads: cores,
        keep_going: false,
        quick: false,
        seed: None,
        cuts: Vec::new(),
        trace: false,
        shrink: true,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text:?} is no number"));
        match word.as_str() {
            "--seeds" => args.seeds = number(value()?)?,
            "--from" => args.from = number(value()?)?,
            "--threads" => args.threads = usize::try_from(number(value()?)?).unwrap_or(1).max(1),
            "--keep-going" => args.keep_going = true,
            "--quick" => args.quick = true,
            "--seed" => args.seed = Some(number(value()?)?),
            "--cut" => {
                args.cuts.push(value()?.parse().map_err(|e: grafolean_simulator::BadCut| e.to_string())?)
            }
            "--trace" => args.trace = true,
            "--no-shrink" => args.shrink = false,
            _ => return Err(format!("{word:?} is not known")),
        }
    }
    Ok(args)
}

fn main() -> ExitCode {
    let args = match args() {
        Ok(args) => args,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Some(seed) = args.seed {
        return one(&args, seed);
    }
    let began = Instant::now();
    let (stats, failures) = all(&args);
    let days = stats.simulated_ms / 86_400_000;
    println!(
        "{} seeds, {days} simulated days, {} values, {} runs, {} requests, {} faults, {} lives of processes, {} values recovered, {} thinned in {:.1} s; digest {:016x}",
        args.seeds,
        stats.values,
        stats.runs,
        stats.requests,
        stats.faults,
        stats.lives,
        stats.recovered,
        stats.thinned,
        began.elapsed().as_secs_f64(),
        stats.digest,
    );
    for (seed, violation) in failures.iter().take(20) {
        println!("seed {seed}: {violation}");
    }
    let Some((seed, violation)) = failures.first_key_value() else { return ExitCode::SUCCESS };
    if !args.quick {
        smaller(&Plan::of(*seed), &[], violation);
    }
    ExitCode::FAILURE
}

/// Simulates all seeds; what they went through together, and which failed.
fn all(args: &Args) -> (Stats, BTreeMap<u64, Violation>) {
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let found = Mutex::new((Stats::default(), BTreeMap::new()));
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= args.seeds || (!args.keep_going && n > failed.load(Ordering::Relaxed)) {
                return;
            }
            let seed = args.from.wrapping_add(n);
            let report = simulate(&Plan::of(seed), false);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            let (all, one) = (&mut found.0, report.stats);
            all.simulated_ms += one.simulated_ms;
            all.values += one.values;
            all.runs += one.runs;
            all.requests += one.requests;
            all.faults += one.faults;
            all.lives += one.lives;
            all.recovered += one.recovered;
            all.thinned += one.thinned;
            // In whatever order they end.
            all.digest = all.digest.wrapping_add(one.digest);
            if let Some(violation) = report.violation {
                eprintln!("seed {seed}: {violation}");
                failed.fetch_min(n, Ordering::Relaxed);
                found.1.insert(seed, violation);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(work);
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Simulates one seed.
fn one(args: &Args, seed: u64) -> ExitCode {
    let plan = Plan::of(seed).cut(&args.cuts);
    println!("{plan:#?}");
    let report = simulate(&plan, args.trace);
    for line in &report.trace {
        println!("{line}");
    }
    println!("{:?}", report.stats);
    let Some(violation) = report.violation else { return ExitCode::SUCCESS };
    println!("seed {seed}: {violation}");
    if args.shrink && !args.trace {
        smaller(&Plan::of(seed), &args.cuts, &violation);
    }
    ExitCode::FAILURE
}

/// Looks for a smaller failure, and shows it.
fn smaller(plan: &Plan, known: &[Cut], violation: &Violation) {
    println!("shrinking seed {} ...", plan.seed);
    let (cuts, violation) = shrink(&plan.cut(known), violation);
    // Acts are counted in the plan that was shrunk.
    let report = simulate(&plan.cut(known).cut(&cuts), true);
    for line in &report.trace {
        println!("{line}");
    }
    println!("{violation}");
    let cuts: String = known.iter().chain(&cuts).map(|cut| format!(" --cut {cut}")).collect();
    println!("replay: cargo run --release -p grafolean-simulator -- --seed {}{cuts} --trace", plan.seed);
}
