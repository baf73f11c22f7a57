//! A few seeds of whole deployments; many more by the program.

use grafolean_simulator::{Plan, simulate};

/// Simulated here; `--seeds 2000` by the program.
const SEEDS: u64 = 64;

/// Seeds that have found something, as plans were then: tables that did not grow for what was listed before all that was known; a
/// backlog that starved on a slow link; delivered values of a board that came back when its flash failed to forget them.
const FOUND: [u64; 4] = [356, 571, 1_558, 12_181];

#[test]
fn no_invariant_is_violated_by_the_first_seeds_and_those_that_once_found_something() {
    for seed in (0..SEEDS).chain(FOUND) {
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
