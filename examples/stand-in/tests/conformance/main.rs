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
    /// A part of it is compared by its shape only, and why.
    Excused(&'static str),
    Different(Vec<String>),
    /// Why it was not sent.
    Skipped(&'static str),
}

impl Outcome {
    fn different(how: Vec<(&'static str, String)>) -> Self {
        Self::Different(how.into_iter().map(|(part, how)| format!("{part}: {how}")).collect())
    }
}

/// Appends a line to a report, which is printed in one piece because tests run side by side.
macro_rules! report {
    ($report:expr, $($line:tt)*) => {{
        $report.push_str(&format!($($line)*));
        $report.push('\n');
    }};
}

fn table(report: &mut String, title: &str, sums: &BTreeMap<String, Sums>) {
    report!(report, "\n{title:<50} lines replayed  equal excused different skipped");
    let total = sums.values().copied().sum::<Sums>();
    for (name, sums) in sums.iter().map(|(name, sums)| (name.as_str(), sums)).chain([("all", &total)]) {
        report!(
            report,
            "  {name:<46} {:>7} {:>8} {:>6} {:>7} {:>9} {:>7}",
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
const AT_LEAST: usize = if cfg!(feature = "server") { 390 } else { 375 };

/// Other than so many replayed lines that went through the product's front fail the test. Only a socket has a front.
const OF_FRONT: usize = if cfg!(feature = "server") { 10 } else { 0 };

#[test]
fn the_recorded_transcript_is_answered_alike() {
    let ways = [
        ("backend", transcript::replay(&mut over::Alone(grafolean_stand_in::Backend::in_memory(1).unwrap()))),
        #[cfg(feature = "server")]
        ("socket", transcript::replay(&mut over::Socket::start())),
    ];

    let mut report = String::new();
    let mut failed = Vec::new();
    let mut summary = Vec::new();
    for (way, lines) in &ways {
        let mut by_resource: BTreeMap<String, Sums> = BTreeMap::new();
        let mut by_front: BTreeMap<String, Sums> = BTreeMap::new();
        for line in lines {
            if let Some(front) = line.front {
                by_front.entry(front.to_owned()).or_default().add(&line.outcome);
            }
            by_resource.entry(line.resource.clone()).or_default().add(&line.outcome);
            match &line.outcome {
                Outcome::Equal => {}
                Outcome::Excused(why) => report!(report, "{way}: {} excused: {why}", line.name),
                Outcome::Skipped(why) => report!(report, "{way}: {} skipped: {why}", line.name),
                Outcome::Different(how) => {
                    for how in how {
                        report!(report, "{way}: {} DIFFERS: {how}", line.name);
                    }
                    failed.push(format!("{way}: {}", line.name));
                }
            }
        }
        table(&mut report, &format!("transcript, {way}"), &by_resource);
        table(&mut report, &format!("of these through the front, {way}"), &by_front);
        let all: Sums = by_resource.values().copied().sum();
        summary.push(format!("transcript, {way}: {all}"));
    }

    // A line counts once, however often it was replayed.
    let mut once: BTreeMap<bool, Sums> = BTreeMap::new();
    let mut front = Sums::default();
    for i in 0..ways[0].1.len() {
        let of_bots = OF_BOTS.contains(&ways[0].1[i].resource.as_str());
        let outcomes = || ways.iter().map(|(_, lines)| &lines[i].outcome);
        let worst = outcomes()
            .find(|o| matches!(o, Outcome::Different(_)))
            .or_else(|| outcomes().find(|o| matches!(o, Outcome::Equal)))
            .or_else(|| outcomes().find(|o| matches!(o, Outcome::Excused(_))))
            .unwrap_or(&ways[0].1[i].outcome);
        once.entry(of_bots).or_default().add(worst);
        if ways[0].1[i].front.is_some() {
            front.add(worst);
        }
    }
    report!(report, "");
    for line in summary {
        report!(report, "{line}");
    }
    report!(report, "transcript, of the resources of bots ({}): {}", OF_BOTS.join(", "), once[&true]);
    report!(report, "transcript, through the product's front: {front}");
    report!(report, "transcript: {}", once.values().copied().sum::<Sums>());
    println!("{report}");
    assert!(failed.is_empty(), "answered in another way than by the real backend: {failed:#?}");
    let replayed = once[&true].replayed();
    assert!(replayed >= AT_LEAST, "{replayed} lines of the resources of bots were replayed, not {AT_LEAST}");
    assert_eq!(front.replayed(), OF_FRONT, "replayed lines that went through the product's front");
}

#[test]
fn everything_that_the_python_bots_sent_is_answered_alike() {
    let mut report = String::new();
    let mut sums: BTreeMap<String, Sums> = BTreeMap::new();
    let mut failed = Vec::new();
    for file in bots::FILES {
        for (way, outcomes) in bots::replay(file) {
            let sums = sums.entry(format!("{file}, {way}")).or_default();
            for (name, outcome) in outcomes {
                sums.add(&outcome);
                if let Outcome::Different(how) = outcome {
                    for how in how {
                        report!(report, "{file}, {way}: {name} DIFFERS: {how}");
                    }
                    failed.push(format!("{file}, {way}: {name}"));
                }
            }
        }
    }
    table(&mut report, "python bots", &sums);
    for (name, sums) in &sums {
        report!(report, "{name}: {sums}");
    }
    println!("{report}");
    assert!(failed.is_empty(), "answered in another way than by the real backend: {failed:#?}");
    assert!(sums.values().all(|s| s.lines > 0 && s.replayed() == s.lines), "everything is replayed");
}

#[test]
fn every_change_of_an_answer_is_a_difference() {
    let exchanges: Vec<recorded::Exchange> =
        recorded::lines("transcript.jsonl").iter().skip(1).map(recorded::Exchange::read).collect();
    assert_eq!(exchanges.len(), 498);
    for (i, exchange) in exchanges.iter().enumerate() {
        let recorded = exchange.response.as_ref();
        assert!(recorded::differences(recorded, recorded).is_empty(), "{}", exchange.name);
        let Some(recorded) = recorded else {
            let came = exchanges[0].response.as_ref();
            assert!(!recorded::differences(None, came).is_empty(), "{}", exchange.name);
            continue;
        };
        let changes: [&dyn Fn(&mut recorded::Answer); 7] = [
            &|answer| answer.status += 1,
            &|answer| answer.version = "HTTP/1.0".to_owned(),
            &|answer| answer.headers.push(("etag".to_owned(), "x".to_owned())),
            &|answer| answer.headers.truncate(recorded.headers.len().saturating_sub(1)),
            &|answer| answer.body.push(b' '),
            &|answer| answer.body.truncate(recorded.body.len().saturating_sub(1)),
            &|answer| {
                let at = i.min(answer.body.len().saturating_sub(1));
                if let Some(byte) = answer.body.get_mut(at) {
                    *byte ^= 1;
                }
            },
        ];
        for (n, change) in changes.iter().enumerate() {
            let mut came = recorded.clone();
            change(&mut came);
            let nothing_to_change =
                (n == 3 && recorded.headers.is_empty()) || (n >= 5 && recorded.body.is_empty());
            let noticed = !recorded::differences(Some(recorded), Some(&came)).is_empty();
            assert!(noticed || nothing_to_change, "{}: change {n}", exchange.name);
        }
    }
}
