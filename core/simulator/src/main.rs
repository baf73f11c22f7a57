//! Simulates many seeds.
fn main() {
    let n: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(10);
    let from: u64 = std::env::args().nth(2).and_then(|a| a.parse().ok()).unwrap_or(0);
    let t0 = std::time::Instant::now();
    for seed in from..from + n {
        let plan = grafolean_simulator::Plan::of(seed);
        let t = std::time::Instant::now();
        let report = grafolean_simulator::simulate(&plan, n == 1);
        for l in &report.trace { println!("{l}"); }
        if let Some(v) = &report.violation { println!("seed {seed} {:?} {}", plan.target, v); }
        if t.elapsed().as_millis() > 400 || n == 1 { println!("seed {seed}: {:?} {:?}", t.elapsed(), report.stats); }
    }
    println!("{:?}", t0.elapsed());
}
