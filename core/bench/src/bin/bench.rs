//! `bench [GROUP...] [--quick]` prints what the collector costs next to its peers: see `core/bench/run`.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what fails here is the end of it

use std::process::ExitCode;

use grafolean_bench::groups::{self, Bounds, Effort};

type Group = (&'static str, fn(Effort, &mut Bounds));

const GROUPS: [Group; 6] = [
    ("timer", groups::timer::run),
    ("json", groups::json::run),
    ("values", |effort, _| groups::values::run(effort)),
    ("refresh", |effort, _| groups::refresh::run(effort)),
    ("wire", groups::wire::run),
    ("system", groups::system::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [child, rest @ ..] = &arguments[..]
        && child == "--child"
    {
        groups::bots::child(rest);
        return ExitCode::SUCCESS;
    }
    let mut effort = Effort::Full;
    let mut wanted = Vec::new();
    for arg in arguments {
        match GROUPS.iter().find(|g| g.0 == arg) {
            Some(group) => wanted.push(group),
            None if arg == "--quick" => effort = Effort::Quick,
            None => {
                let names = GROUPS.map(|g| g.0).join(", ");
                eprintln!("bench: `{arg}` is none of the groups {names}, nor --quick");
                return ExitCode::FAILURE;
            }
        }
    }
    if wanted.is_empty() {
        wanted.extend(&GROUPS);
    }
    let mut bounds = Bounds::default();
    for (_, run) in wanted {
        run(effort, &mut bounds);
    }
    bounds.print();
    ExitCode::SUCCESS
}
