//! What the view knows: what the bots' observers have seen, without clock and terminal.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use grafolean_std::core::jobs::{Due, JobKey};
use grafolean_std::core::journal::{Event, RefreshSummary};
use grafolean_std::driver::RunEnd;

/// Events kept, the latest ones.
const MOST_EVENTS: usize = 100;
/// Values kept of each job, the latest ones.
const MOST_VALUES: usize = 6;

/// A job of one of the bots, by the bot's number.
pub(crate) type JobOf = (usize, JobKey);

/// What has been seen. Its memory is bounded by the number of jobs: what is gone is forgotten by [`Model::keep_only`].
#[derive(Debug)]
pub(crate) struct Model {
    bots: Vec<Bot>,
    records: HashMap<JobOf, Record>,
    events: VecDeque<Line>,
}

#[derive(Debug)]
struct Bot {
    name: &'static str,
    refresh: Option<LastRefresh>,
}

/// How the last refresh of a bot ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LastRefresh {
    /// Well.
    Done(RefreshSummary),
    /// Not, for this reason.
    Failed(String),
}

/// What was seen of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    /// Since when a run is under way.
    pub(crate) running_since: Option<Duration>,
    /// Of the last run that began: from its instant to its begin, in milliseconds.
    pub(crate) late_ms: u64,
    /// The last run that has ended.
    pub(crate) last: Option<LastRun>,
    /// Runs that failed, were cut or panicked.
    pub(crate) failed: u64,
    /// Values, the latest first: path and number.
    pub(crate) values: VecDeque<(String, String)>,
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LastRun {
    pub(crate) ended: Duration,
    pub(crate) took: Duration,
    /// Why it failed.
    pub(crate) fault: Option<String>,
}

/// A line of the events.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) at: Duration,
    pub(crate) bot: &'static str,
    pub(crate) warning: bool,
    pub(crate) text: String,
    /// How often it came, one after the other.
    pub(crate) times: u32,
}

impl Model {
    /// Nothing seen yet of bots of these names.
    pub(crate) fn new(bots: &[&'static str]) -> Self {
        let bots = bots.iter().map(|name| Bot { name, refresh: None }).collect();
        Model { bots, records: HashMap::new(), events: VecDeque::new() }
    }

    /// A run begins.
    pub(crate) fn run_began(&mut self, bot: usize, due: &Due, at: Duration) {
        let record = self.records.entry((bot, due.key)).or_default();
        record.running_since = Some(at);
        record.late_ms = due.late_ms;
    }

    /// A value was handed over.
    pub(crate) fn value(&mut self, bot: usize, due: &Due, path: &str, number: &str) {
        let record = self.records.entry((bot, due.key)).or_default();
        record.values.push_front((path.to_owned(), number.to_owned()));
        record.values.truncate(MOST_VALUES);
    }

    /// A run has ended.
    pub(crate) fn run_ended(&mut self, bot: usize, due: &Due, end: &RunEnd, took: Duration, at: Duration) {
        let fault = match end {
            RunEnd::Done => None,
            RunEnd::Failed(why) => Some(why.clone()),
            RunEnd::Cancelled => Some("cancelled".to_owned()),
            RunEnd::Panicked => Some("the bot panicked".to_owned()),
            RunEnd::Gone => return,
        };
        let record = self.records.entry((bot, due.key)).or_default();
        let known = record.last.take().and_then(|last| last.fault);
        record.running_since = None;
        record.failed += u64::from(fault.is_some());
        // A cut run is an event of the collector; a fault that stays is in the table.
        let tell = fault.clone().filter(|f| Some(f) != known.as_ref() && *end != RunEnd::Cancelled);
        record.last = Some(LastRun { ended: at, took, fault });
        if let Some(why) = tell {
            self.tell(bot, true, format!("{}: {why}", due.key), at);
        }
    }

    /// An event of a bot's collector; of a refused value, `path` is its path. Whether jobs may have come or gone.
    pub(crate) fn event(&mut self, bot: usize, event: &Event, path: &str, at: Duration) -> bool {
        let gap = if path.is_empty() { "" } else { ", path " };
        let last = match event {
            Event::Refreshed(summary) => Some(LastRefresh::Done(*summary)),
            Event::RefreshFailed { error, .. } => Some(LastRefresh::Failed(error.to_string())),
            _ => None,
        };
        let changed = matches!(event, Event::Refreshed(s) if s.committed.changed_anything());
        // A refresh that is as usual is seen above.
        if !matches!(event, Event::Refreshed(_)) || event.is_warning() || changed {
            self.tell(bot, event.is_warning(), format!("{event}{gap}{path}"), at);
        }
        if let (Some(seen), Some(_)) = (self.bots.get_mut(bot), &last) {
            seen.refresh = last;
        }
        changed
    }

    /// Something else that is worth a line.
    pub(crate) fn tell(&mut self, bot: usize, warning: bool, text: String, at: Duration) {
        let name = self.bot_name(bot);
        let same = self.events.iter_mut().rev().take(2).find(|l| l.bot == name && l.text == text);
        if let Some(line) = same {
            line.times = line.times.saturating_add(1);
            line.at = at;
            return;
        }
        self.events.push_back(Line { at, bot: name, warning, text, times: 1 });
        if self.events.len() > MOST_EVENTS {
            self.events.pop_front();
        }
    }

    /// Forgets all jobs but these, which are sorted.
    pub(crate) fn keep_only(&mut self, jobs: &[JobOf]) {
        self.records.retain(|job, record| record.running_since.is_some() || jobs.binary_search(job).is_ok());
    }

    /// A bot's name.
    pub(crate) fn bot_name(&self, bot: usize) -> &'static str {
        self.bots.get(bot).map_or("?", |b| b.name)
    }

    /// How a bot's last refresh ended.
    pub(crate) fn refresh(&self, bot: usize) -> Option<&LastRefresh> {
        self.bots.get(bot)?.refresh.as_ref()
    }

    /// What was seen of a job.
    pub(crate) fn record(&self, job: &JobOf) -> Option<&Record> {
        self.records.get(job)
    }

    /// The latest events, the oldest of them first.
    pub(crate) fn latest(&self, most: usize) -> impl Iterator<Item = &Line> {
        self.events.iter().skip(self.events.len().saturating_sub(most))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use grafolean_std::core::interval::{Interval, Intervals};
    use grafolean_std::core::jobs::RunId;
    use grafolean_std::core::time::{Millis, Tick};

    pub(crate) fn due(entity: u64, late_ms: u64) -> Due {
        let intervals = Intervals::one(Interval::new(5).unwrap());
        Due {
            run: RunId { slot: 0, generation: 0, run: 0, place: 0 },
            key: JobKey::new(1, entity),
            intervals,
            affecting: intervals.all(),
            scheduled: Tick(0),
            late_ms,
            missed: 0,
            deadline: Millis(0),
        }
    }

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_fault_that_stays_is_told_once_and_counted_and_one_that_returns_is_told_again() {
        let mut model = Model::new(&["ping"]);
        let ends = |model: &mut Model, end: RunEnd| model.run_ended(0, &due(31, 0), &end, S, S);
        let no_route = || RunEnd::Failed("no route".to_owned());
        for end in [no_route(), no_route(), RunEnd::Done, no_route(), RunEnd::Gone] {
            ends(&mut model, end);
        }
        let record = model.record(&(0, JobKey::new(1, 31))).unwrap();
        assert_eq!(record.failed, 3);
        assert_eq!(record.last.as_ref().unwrap().fault.as_deref(), Some("no route"));
        let told: Vec<_> = model.latest(9).map(|l| (l.text.as_str(), l.times, l.warning)).collect();
        assert_eq!(told, [("job of account 1, entity 31: no route", 2, true)]);
    }

    #[test]
    fn only_the_latest_values_and_events_are_kept() {
        let mut model = Model::new(&["ping"]);
        for n in 0..1000 {
            model.value(0, &due(31, 0), &format!("p{n}"), "1");
            model.tell(0, false, format!("event {n}"), S);
        }
        let record = model.record(&(0, JobKey::new(1, 31))).unwrap();
        assert_eq!((record.values.len(), record.values[0].0.as_str()), (MOST_VALUES, "p999"));
        assert_eq!(model.events.len(), MOST_EVENTS);
        assert_eq!(model.latest(2).map(|l| l.text.as_str()).collect::<Vec<_>>(), ["event 998", "event 999"]);
    }

    #[test]
    fn jobs_that_are_gone_are_forgotten_when_their_last_run_has_ended() {
        let mut model = Model::new(&["ping"]);
        for entity in 1..=3 {
            model.run_began(0, &due(entity, 7), S);
        }
        model.run_ended(0, &due(2, 7), &RunEnd::Done, S, S);
        let one = [(0, JobKey::new(1, 1))];
        model.keep_only(&one);
        assert!(model.record(&(0, JobKey::new(1, 2))).is_none());
        assert!(model.record(&(0, JobKey::new(1, 3))).is_some());
        model.run_ended(0, &due(3, 7), &RunEnd::Done, S, S);
        model.keep_only(&one);
        assert_eq!(model.records.keys().collect::<Vec<_>>(), [&one[0]]);
    }
}
