//! Whole bots in a program of their own, against the fastest backend there can be.

use super::bots::{CALM_DOWN, Figures, Scenario, THEN};
use super::{Bounds, Effort};
use crate::table::{Table, figure};

const NO_OP: Scenario = Scenario {
    jobs: 0,
    interval_s: 1,
    values: 0,
    spin: 0,
    batch: 1000,
    threads: 0,
    seconds: 5,
    then: [0; 2],
    ages: false,
};

fn row(name: String, f: &Figures) -> Vec<String> {
    vec![
        name,
        figure(f["runs"] / f["seconds"]),
        format!("{:.2} %", 100.0 * f["of_due"]),
        format!("{}", f["missed"]),
        figure(f["cpu_s"] * 1e6 / f["runs"]),
        format!("{:.2}", f["cpu_s"] / f["seconds"]),
        format!("{} / {}", f["late_p50_ms"], f["late_p99_ms"]),
        format!("{} to {}", f["runs_min"], f["runs_max"]),
    ]
}

const HEADINGS: [&str; 8] = [
    "jobs of 1 s",
    "runs/s",
    "runs / (jobs x ticks)",
    "missed",
    "µs of CPU/run",
    "CPUs",
    "late p50 / p99 ms",
    "runs of one job",
];

/// Each job ran for each tick; more than once where runs of the tick before the window were that late.
fn is_clean(f: &Figures) -> bool {
    f["of_due"] >= 1.0 && f["missed"] == 0.0
}

/// Of several ways to run the same, the cleanest.
fn best(of_each: &[Figures]) -> (String, bool) {
    let off = |f: &Figures| f["missed"] + (f["of_due"] - 1.0).abs();
    let best = of_each.iter().min_by(|a, b| off(a).total_cmp(&off(b))).unwrap();
    let text = format!(
        "{} runs/s, {:.2} % of those due, {} missed",
        figure(best["runs"] / best["seconds"]),
        100.0 * best["of_due"],
        best["missed"]
    );
    (text, is_clean(best))
}

/// Prints it.
pub fn run(effort: Effort, bounds: &mut Bounds) {
    let quick = effort == Effort::Quick;
    println!(
        "## Whole bots\n\neach in a program of its own; the backend answers at once, on the same processors; CPU of the whole process\n"
    );
    let mut table = Table::new(&HEADINGS);
    // What one run costs where there is no hurry says how many there can be.
    let calm = Scenario { jobs: 20_000, ..NO_OP }.measure();
    table.row(row("no-op: 20,000".into(), &calm));
    let mut clean = Vec::new();
    for (jobs, threads) in [(100_000, 0), (200_000, 0), (200_000, 2)] {
        let name = if threads == 0 { "one task".to_owned() } else { format!("{threads} threads") };
        let f = Scenario { jobs, threads, ..NO_OP }.measure();
        table.row(row(format!("no-op: {jobs}, {name}"), &f));
        clean.push(f);
    }
    let (measured, met) = best(&clean[1..]);
    bounds.add("system: 200,000 no-op jobs/s, clean", measured, met);
    let python = |jobs: &str, runs: &str, cpu: &str| {
        vec![
            jobs.to_owned(),
            runs.to_owned(),
            "-".into(),
            "-".into(),
            cpu.to_owned(),
            "-".into(),
            "174 / 431".into(),
            "-".into(),
        ]
    };
    table.row(python("no-op: Python library, at most", "2500", "225-400"));
    let (mut posting, mut ages) = (Vec::new(), Vec::new());
    for (jobs, threads) in [(10_000, 0), (20_000, 0), (20_000, 1)] {
        let name = if threads == 0 { "one task".to_owned() } else { "1 thread beside the loop".to_owned() };
        let f = Scenario { jobs, values: 10, threads, ages: true, ..NO_OP }.measure();
        table.row(row(format!("10 values: {jobs}, {name}"), &f));
        ages.push(vec![
            format!("{jobs}, {name}"),
            figure(f["delivered"] / f["seconds"]),
            format!("{}", f["queued"]),
            format!("{:.0} / {:.0}", f["age_p50_ms"], f["age_p99_ms"]),
        ]);
        posting.push(f);
    }
    let (measured, met) = best(&posting[1..]);
    bounds.add("system: 20,000 jobs/s that post 10 values, nothing dropped", measured, met);
    table.row(python("10 values: Python library, at most", "600", "1360"));
    table.print();
    println!(
        "their values: none dropped, delivered + waiting = produced (or this ends); age: from hand-over to the answer, looked at every 10 ms as far as the loop has time for it\n"
    );
    let mut table = Table::new(&["jobs", "values/s delivered", "waiting at the end", "age p50 / p99 ms"]);
    ages.into_iter().for_each(|row| table.row(row));
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
    let then = [capacity / 5 * 4, capacity / 8];
    let f = Scenario { jobs: 2 * capacity, seconds: 10, then, ..BUSY }.measure();
    table.row(row(format!("{}: twice as many", 2 * capacity), &f));
    bounds.add(
        "system: twice what there is time for: no job starves",
        format!("{} to {} runs of a job in 10 s", f["runs_min"], f["runs_max"]),
        f["runs_min"] > 0.0,
    );
    for ((jobs, prefix), share) in then.into_iter().zip(THEN).zip(["80 %", "an eighth"]) {
        let of_it = f.iter().filter_map(|(k, v)| Some((k.strip_prefix(prefix)?.to_owned(), *v)));
        let of_it: Figures = of_it.collect();
        table.row(row(format!("then {jobs}: {share}"), &of_it));
        bounds.add(
            &format!("system: recovered {} s after load fell to {share}", CALM_DOWN.as_secs()),
            best(std::slice::from_ref(&of_it)).0,
            // A run that is later than half a second is another window's.
            of_it["missed"] == 0.0,
        );
    }
    table.print();

    println!("memory\n");
    let mut table = Table::new(&["bot", "PSS, kB", "RSS, kB", "PSS/job, bytes", "CPUs"]);
    let jobs = if quick { 100_000 } else { 1_000_000 };
    let f = Scenario { jobs, interval_s: 60, seconds: 10, ..NO_OP }.measure();
    let bytes = (f["pss_kb"] - f["pss_before_kb"]) * 1024.0 / f64::from(jobs);
    let cpus = format!("{:.2}", f["cpu_s"] / f["seconds"]);
    let (pss, rss) = (figure(f["pss_kb"]), figure(f["rss_kb"]));
    table.row(vec![format!("{jobs} idle jobs of 60 s"), pss, rss, figure(bytes), cpus]);
    let measured = format!("{jobs}: {} bytes each, {} missed", figure(bytes), f["missed"]);
    if jobs == 1_000_000 {
        bounds.add("system: 1,000,000 jobs of 60 s in one process", measured, f["missed"] == 0.0);
    }
    let seconds = if quick { 10 } else { 90 };
    let f = Scenario { seconds, ..NO_OP }.measure();
    assert!(quick || f["runs"] >= 1_000.0, "{f:?}");
    let cpus = format!("{:.3}", f["cpu_s"] / f64::from(seconds));
    table.row(vec![
        format!("ping bot, 1,000 devices, 60 s ({} runs); pings simulated (1.5 ms, no sockets)", f["runs"]),
        figure(f["pss_kb"]),
        figure(f["rss_kb"]),
        "-".into(),
        cpus,
    ]);
    let measured = format!("{:.2} MB", f["pss_kb"] * 1024.0 / 1e6);
    let met = f["pss_kb"] * 1024.0 < 8e6;
    bounds.add("system: PSS of a ping bot with 1,000 devices under 8 MB", measured, met);
    let python = ["Python library, 11 processes", "82,000-103,000", "-", "-", "-"];
    table.row(python.map(str::to_owned).into());
    table.print();
}
