//! A few seeds of whole deployments; many more by the program.

use grafolean_simulator::{Plan, simulate};

/// Simulated here; `--seeds 2000` by the program.
const SEEDS: u64 = 64;

#[test]
fn no_invariant_is_violated_by_the_first_seeds() {
    for seed in 0..SEEDS {
        let report = simulate(&Plan::of(seed), false);
        if let Some(violation) = report.violation {
            panic!("seed {seed}: {violation}\n(cargo run --release -p grafolean-simulator -- --seed {seed})");
        }
    }
}

#[test]
fn a_seed_replays_exactly_with_and_without_a_trace() {
    for seed in [3, 7] {
        let (first, second) = (simulate(&Plan::of(seed), false), simulate(&Plan::of(seed), true));
        assert_eq!(first.stats, second.stats, "seed {seed}");
        assert!(!second.trace.is_empty() && first.trace.is_empty());
    }
}
