//! Whole bots in a program of their own, against the fastest backend there can be.

use super::Effort;
use super::bots::{Figures, Scenario};
use crate::table::{Table, figure};

const NO_OP: Scenario =
    Scenario { jobs: 0, interval_s: 1, values: 0, spin: 0, batch: 1000, threads: 0, seconds: 5, then: 0 };

fn row(name: String, f: &Figures) -> Vec<String> {
    let share = |n: f64| format!("{:.2} %", 100.0 * n / (f["runs"] + f["missed"]));
    vec![
        name,
        figure(f["runs"] / f["seconds"]),
        share(f["missed"]),
        figure(f["cpu_s"] * 1e6 / f["runs"]),
        format!("{:.2}", f["cpu_s"] / f["seconds"]),
        format!("{} / {}", f["late_p50_ms"], f["late_p99_ms"]),
        format!("{} to {}", f["runs_min"], f["runs_max"]),
    ]
}

const HEADINGS: [&str; 7] =
    ["jobs of 1 s", "runs/s", "missed", "µs of CPU/run", "CPUs", "late p50 / p99 ms", "runs of one job"];

/// Prints it.
pub fn run(effort: Effort) {
    let quick = effort == Effort::Quick;
    println!(
        "## Whole bots\n\neach in a program of its own; the backend answers at once, on the same processors\n"
    );
    let mut table = Table::new(&HEADINGS);
    // What one run costs where there is no hurry says how many there can be.
    let calm = Scenario { jobs: 20_000, ..NO_OP }.measure();
    table.row(row("no-op: 20,000".into(), &calm));
    for (jobs, threads) in [(100_000, 0), (200_000, 0), (200_000, 2)] {
        let name = if threads == 0 { "one task".to_owned() } else { format!("{threads} threads") };
        let f = Scenario { jobs, threads, ..NO_OP }.measure();
        table.row(row(format!("no-op: {jobs}, {name}"), &f));
    }
    let python = |jobs: &str, runs: &str, cpu: &str| {
        vec![
            jobs.to_owned(),
            runs.to_owned(),
            "-".into(),
            cpu.to_owned(),
            "-".into(),
            "174 / 431".into(),
            "-".into(),
        ]
    };
    table.row(python("no-op: Python library, at most", "2500", "225-400"));
    for (jobs, threads) in [(10_000, 0), (20_000, 0), (20_000, 1)] {
        let name = if threads == 0 { "one task".to_owned() } else { "1 thread beside the loop".to_owned() };
        let f = Scenario { jobs, values: 10, threads, ..NO_OP }.measure();
        let lost =
            if f["dropped"] > 0.0 { format!(", {} values dropped", f["dropped"]) } else { String::new() };
        let per_second = figure(f["delivered"] / f["seconds"]);
        table.row(row(format!("10 values: {jobs}, {name} ({per_second} values/s delivered{lost})"), &f));
    }
    table.row(python("10 values: Python library, at most", "600", "1360"));
    table.print();

    const BUSY: Scenario = Scenario { spin: 20_000, ..NO_OP };
    // What one run costs where there is no hurry says how many there can be.
    let calm = Scenario { jobs: 5_000, ..BUSY }.measure();
    let capacity = (calm["runs"] / calm["cpu_s"] / 1_000.0).round() as u32 * 1_000;
    println!(
        "overload: runs of 20,000 turns of an empty loop; one task has the time of one processor for {capacity} of them\n"
    );
    let mut table = Table::new(&HEADINGS);
    table.row(row("5000".into(), &calm));
    let f = Scenario { jobs: 2 * capacity, seconds: 10, then: capacity / 8, ..BUSY }.measure();
    table.row(row(format!("{}: twice as many", 2 * capacity), &f));
    let then: Figures =
        f.iter().filter_map(|(k, v)| Some((k.strip_prefix("then_")?.to_owned(), *v))).collect();
    table.row(row(format!("then {}", capacity / 8), &then));
    table.print();

    println!("memory\n");
    let mut table = Table::new(&["bot", "PSS, kB", "bytes/job", "CPUs"]);
    let jobs = if quick { 100_000 } else { 1_000_000 };
    let f = Scenario { jobs, interval_s: 60, seconds: 10, ..NO_OP }.measure();
    let bytes = (f["pss_kb"] - f["pss_before_kb"]) * 1024.0 / f64::from(jobs);
    let cpus = format!("{:.2}", f["cpu_s"] / f["seconds"]);
    table.row(vec![format!("{jobs} idle jobs of 60 s"), figure(f["pss_kb"]), figure(bytes), cpus]);
    let seconds = if quick { 10 } else { 90 };
    let f = Scenario { seconds, ..NO_OP }.measure();
    assert!(quick || f["runs"] >= 1_000.0, "{f:?}");
    let cpus = format!("{:.3}", f["cpu_s"] / f64::from(seconds));
    table.row(vec![
        format!("ping bot, 1,000 devices, 60 s ({} runs)", f["runs"]),
        figure(f["pss_kb"]),
        "-".into(),
        cpus,
    ]);
    table.row(vec!["Python library, 11 processes".into(), "82,000-103,000".into(), "-".into(), "-".into()]);
    table.print();
}
