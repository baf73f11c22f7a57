//! The stand-in against recorded traffic of a real Grafolean backend: every request is sent again, every answer compared.
//!
//! Compared are status, all headers but `date` and `server`, and the body byte for byte. The ids, tokens and times that the real
//! backend chose at random or by its clock are given to the stand-in before it answers; nothing is told of what to answer.
//!
//! `cargo test -p grafolean-stand-in --test conformance -- --nocapture` shows each line that is skipped or excused, and the sums.
// Helpers of tests may fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bots;
mod over;
mod recorded;
mod transcript;

use std::collections::BTreeMap;

/// What became of the lines of one resource.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    lines: usize,
    equal: usize,
    excused: usize,
    different: usize,
    skipped: usize,
}

impl Sums {
    const fn replayed(&self) -> usize {
        self.equal + self.excused + self.different
    }

    fn add(&mut self, outcome: &Outcome) {
        self.lines += 1;
        match outcome {
            Outcome::Equal => self.equal += 1,
            Outcome::Excused(_) => self.excused += 1,
            Outcome::Different(_) => self.different += 1,
            Outcome::Skipped(_) => self.skipped += 1,
        }
    }
}

impl core::iter::Sum for Sums {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            lines: a.lines + b.lines,
            equal: a.equal + b.equal,
            excused: a.excused + b.excused,
            different: a.different + b.different,
            skipped: a.skipped + b.skipped,
        })
    }
}

impl core::fmt::Display for Sums {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{} lines, {} replayed, {} equal, {} excused, {} different, {} skipped",
            self.lines,
            self.replayed(),
            self.equal,
            self.excused,
            self.different,
            self.skipped
        )
    }
}

/// What became of a line.
#[derive(Debug, Clone)]
enum Outcome {
    Equal,
    /// It differs as it is known to, and why that stays so.
    Excused(&'static str),
    Different(Vec<String>),
    /// Why it was not sent.
    Skipped(&'static str),
}

fn print_table(title: &str, sums: &BTreeMap<String, Sums>) {
    println!("\n{title:<28}   lines replayed  equal excused different skipped");
    let total = sums.values().copied().sum::<Sums>();
    for (name, sums) in sums.iter().map(|(name, sums)| (name.as_str(), sums)).chain([("all", &total)]) {
        println!(
            "  {name:<26} {:>7} {:>8} {:>6} {:>7} {:>9} {:>7}",
            sums.lines,
            sums.replayed(),
            sums.equal,
            sums.excused,
            sums.different,
            sums.skipped
        );
    }
}

/// The resources that bots use; the other lines are replayed where they make what these need, or where it is cheap.
const OF_BOTS: [&str; 7] = ["status", "profile", "accounts", "entities", "credentials", "sensors", "values"];

/// Fewer replayed lines of these resources fail the test.
const AT_LEAST: usize = 330;

#[test]
fn the_recorded_transcript_is_answered_alike() {
    let alone = transcript::replay(&mut over::Alone(grafolean_stand_in::Backend::in_memory(1).unwrap()));
    let mut ways = vec![("backend", alone)];
    #[cfg(feature = "server")]
    ways.push(("socket", transcript::replay(&mut over::Socket::start())));

    let mut failed = Vec::new();
    let mut summary = Vec::new();
    for (way, lines) in &ways {
        let mut by_resource: BTreeMap<String, Sums> = BTreeMap::new();
        for line in lines {
            by_resource.entry(line.resource.clone()).or_default().add(&line.outcome);
            match &line.outcome {
                Outcome::Equal => {}
                Outcome::Excused(why) => println!("{way}: {} excused: {why}", line.name),
                Outcome::Skipped(why) => println!("{way}: {} skipped: {why}", line.name),
                Outcome::Different(how) => {
                    for how in how {
                        println!("{way}: {} DIFFERS: {how}", line.name);
                    }
                    failed.push(format!("{way}: {}", line.name));
                }
            }
        }
        print_table(&format!("transcript, {way}"), &by_resource);
        let all: Sums = by_resource.values().copied().sum();
        summary.push(format!("transcript, {way}: {all}"));
    }

    // A line counts once, however often it was replayed.
    let mut once: BTreeMap<bool, Sums> = BTreeMap::new();
    for i in 0..ways[0].1.len() {
        let of_bots = OF_BOTS.contains(&ways[0].1[i].resource.as_str());
        let outcomes = || ways.iter().map(|(_, lines)| &lines[i].outcome);
        let worst = outcomes()
            .find(|o| matches!(o, Outcome::Different(_)))
            .or_else(|| outcomes().find(|o| matches!(o, Outcome::Equal)))
            .or_else(|| outcomes().find(|o| matches!(o, Outcome::Excused(_))))
            .unwrap_or(&ways[0].1[i].outcome);
        once.entry(of_bots).or_default().add(worst);
    }
    println!();
    for line in summary {
        println!("{line}");
    }
    println!("transcript, of the resources of bots ({}): {}", OF_BOTS.join(", "), once[&true]);
    println!("transcript: {}", once.values().copied().sum::<Sums>());
    assert!(failed.is_empty(), "answered in another way than by the real backend: {failed:#?}");
    let replayed = once[&true].replayed();
    assert!(replayed >= AT_LEAST, "{replayed} lines of the resources of bots were replayed, not {AT_LEAST}");
}

#[test]
fn everything_that_the_python_bots_sent_is_answered_alike() {
    let mut sums: BTreeMap<String, Sums> = BTreeMap::new();
    let mut failed = Vec::new();
    for file in bots::FILES {
        for (way, outcomes) in bots::replay(file) {
            let sums = sums.entry(format!("{file}, {way}")).or_default();
            for (name, outcome) in outcomes {
                sums.add(&outcome);
                if let Outcome::Different(how) = outcome {
                    for how in how {
                        println!("{file}, {way}: {name} DIFFERS: {how}");
                    }
                    failed.push(format!("{file}, {way}: {name}"));
                }
            }
        }
    }
    print_table("python bots", &sums);
    for (name, sums) in &sums {
        println!("{name}: {sums}");
    }
    assert!(failed.is_empty(), "answered in another way than by the real backend: {failed:#?}");
    assert!(sums.values().all(|s| s.lines > 0 && s.replayed() == s.lines), "everything is replayed");
}
