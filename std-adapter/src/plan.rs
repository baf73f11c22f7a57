//! The dry run: fetches once and says which jobs would run, what was skipped and why, and the load that they make.

use core::fmt;
use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use grafolean_core::bot::Bot;
use grafolean_core::jobs::JobKey;
use grafolean_core::journal::{Event, Fault, FaultKind, Kind, RefreshError, RefreshSummary};
use serde_json::{Value, json};

use crate::driver::{Config, ConfigError, Observer, Runner};

/// What a bot would do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Its jobs, by account, entity, item and name.
    pub jobs: Vec<PlannedJob>,
    /// What was skipped and why.
    pub skipped: Vec<Fault>,
    /// What the refresh found.
    pub summary: RefreshSummary,
}

/// A job that would run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedJob {
    /// Which one.
    pub key: JobKey,
    /// Its intervals in seconds, ascending.
    pub intervals: Vec<u32>,
    /// Its grid goes through this second, counted from 0 within its longest interval.
    pub phase: u64,
    /// How long a run may take, in milliseconds.
    pub deadline_ms: u64,
    /// The sensors of its entity with their intervals in seconds; without those whose interval is none of the job's.
    pub sensors: Vec<(u64, Option<u32>)>,
}

/// Why there is no plan.
#[derive(Debug)]
#[non_exhaustive]
pub enum PlanError {
    /// The settings can't be used.
    Config(ConfigError),
    /// The refresh failed.
    Refresh(RefreshError),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::Config(e) => write!(f, "{e}"),
            PlanError::Refresh(e) => write!(f, "{e}"),
        }
    }
}

impl std::error::Error for PlanError {}

#[derive(Default)]
struct Seen {
    skipped: Vec<Fault>,
    failed: Option<RefreshError>,
    summary: Option<RefreshSummary>,
}

struct Watch(Arc<Mutex<Seen>>);

impl Observer for Watch {
    fn event(&self, event: &Event, _path: &str) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Fault(fault) => seen.skipped.push(*fault),
            Event::FaultGone(fault) => seen.skipped.retain(|f| f != fault),
            Event::RefreshFailed { error, .. } => seen.failed = Some(*error),
            Event::Refreshed(summary) => seen.summary = Some(*summary),
            _ => {}
        }
    }
}

/// Fetches once and plans; runs nothing and delivers nothing. Memory and requests are those of a refresh.
///
/// # Errors
/// [`PlanError`].
pub async fn plan<B: Bot>(bot: B, mut config: Config) -> Result<Plan, PlanError> {
    config.collector.plan_only = true;
    config.collector.wait_until_ready = false;
    // All that was skipped is to be named.
    config.limits.faults = config.limits.faults.max(65_536);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let runner = Runner::observed(bot, config, Watch(seen.clone())).map_err(PlanError::Config)?;
    runner.run(core::future::pending()).await;
    let mut jobs = runner.inspect(|c| {
        let keys: Vec<JobKey> = c.jobs(|table| table.iter().map(|(_, key, _)| *key).collect());
        let planned = keys.into_iter().filter_map(|key| {
            let (intervals, start) = c.jobs(|table| table.grid(&key))?;
            let deadline_ms = c.jobs(|table| table.deadline_ms(&key))?;
            let sensors = c.entity_of(&key, |entity| {
                let all = entity.sensors().map(|s| (s.id, s.interval.map(|i| i.seconds())));
                run_with(intervals.as_slice(), all)
            });
            Some(PlannedJob {
                key,
                intervals: intervals.as_slice().to_vec(),
                phase: start.0 % u64::from(intervals.longest().max(1)),
                deadline_ms,
                sensors: sensors.unwrap_or_default(),
            })
        });
        planned.collect::<Vec<_>>()
    });
    jobs.sort_by_key(|job| job.key);
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    match (seen.failed, seen.summary) {
        (Some(error), _) => Err(PlanError::Refresh(error)),
        (None, summary) => {
            let skipped = core::mem::take(&mut seen.skipped);
            drop_refused(&mut jobs, &skipped);
            Ok(Plan { jobs, skipped, summary: summary.unwrap_or_default() })
        }
    }
}

/// The sensors that a job of these intervals runs with: one without interval may run with any, one that was left out has
/// an interval that is none of the job's.
fn run_with(intervals: &[u32], all: impl Iterator<Item = (u64, Option<u32>)>) -> Vec<(u64, Option<u32>)> {
    all.filter(|(_, interval)| interval.is_none_or(|i| intervals.contains(&i))).collect()
}

/// A sensor that the bot refuses may have an interval that its entity's job has all the same.
fn drop_refused(jobs: &mut [PlannedJob], skipped: &[Fault]) {
    let refused: HashSet<(u64, u64, u64)> = skipped
        .iter()
        .filter(|fault| matches!(fault.kind, FaultKind::SensorRefused(_)))
        .map(|fault| (fault.account, fault.entity, fault.item.1))
        .collect();
    for PlannedJob { key, sensors, .. } in jobs.iter_mut().filter(|_| !refused.is_empty()) {
        sensors.retain(|(sensor, _)| !refused.contains(&(key.account, key.entity, *sensor)));
    }
}

impl PlannedJob {
    /// Runs per second in the long run: instants that fall together count once.
    #[must_use]
    pub fn runs_per_second(&self) -> f64 {
        let intervals = &self.intervals;
        (1u32..1 << intervals.len().min(8)).fold(0.0, |sum, subset| {
            let picked = intervals.iter().enumerate().filter(|(bit, _)| subset & (1 << bit) != 0);
            let together = picked.map(|(_, s)| f64::from(*s)).fold(1.0, lcm);
            let sign = if subset.count_ones() % 2 == 1 { 1.0 } else { -1.0 };
            sum + sign / together
        })
    }

    /// Whether a run may take longer than the time to the next one.
    #[must_use]
    pub fn can_overrun(&self) -> bool {
        self.intervals.first().is_some_and(|shortest| self.deadline_ms > u64::from(*shortest).max(10) * 1000)
    }

    fn name(&self) -> String {
        key_text(&self.key)
    }

    fn json(&self) -> Value {
        let sensors: Vec<Value> = self
            .sensors
            .iter()
            .map(|(id, interval)| json!({"sensor_id": id, "interval": interval}))
            .collect();
        json!({
            "account_id": self.key.account,
            "entity_id": (self.key.entity != 0).then_some(self.key.entity),
            "key": self.name(),
            "intervals": self.intervals,
            "phase": self.phase,
            "sensors": sensors,
        })
    }
}

/// A job's key as the Python library writes it: the entity's id, then what tells its jobs apart.
fn key_text(key: &JobKey) -> String {
    let mut parts: Vec<String> = Vec::new();
    if key.entity != 0 {
        parts.push(key.entity.to_string());
    }
    if key.item != 0 {
        parts.push(key.item.to_string());
    }
    if !key.name.is_empty() {
        parts.push(key.name.to_owned());
    }
    if key.entity == 0 {
        parts.push(key.account.to_string());
        return parts.join("/");
    }
    parts.join("-")
}

/// The least common multiple of whole numbers; in floating point, as it may be beyond all integers.
fn lcm(a: f64, b: f64) -> f64 {
    let (mut x, mut y) = (a, b);
    while y > 0.0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

impl Plan {
    /// Runs per second of all jobs, in the long run.
    #[must_use]
    pub fn runs_per_second(&self) -> f64 {
        self.jobs.iter().fold(0.0, |sum, job| sum + job.runs_per_second())
    }

    /// Writes one JSON object a line: each job; each thing skipped, with `why`; each schedule that can't be kept if runs take
    /// as long as they may, with `cannot_keep`; at last the `load`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_json_lines(&self, out: &mut impl Write) -> io::Result<()> {
        for job in &self.jobs {
            writeln!(out, "{}", job.json())?;
        }
        for fault in &self.skipped {
            let (of, id) = fault.item;
            let mut line =
                json!({"skipped": of.to_string(), "account_id": fault.account, "why": fault.to_string()});
            if fault.entity != 0 {
                line["entity_id"] = json!(fault.entity);
            }
            if id != 0 {
                let name = match of {
                    Kind::Sensor => "sensor_id",
                    Kind::Credential => "credential_id",
                    _ => "item",
                };
                line[name] = json!(id);
            }
            if of == Kind::Job && fault.account != 0 {
                let (account, entity, name) = (fault.account, fault.entity, fault.job);
                line["job"] = json!(key_text(&JobKey { account, entity, item: id, name }));
            }
            writeln!(out, "{line}")?;
        }
        for job in self.jobs.iter().filter(|job| job.can_overrun()) {
            let needs_s = job.deadline_ms as f64 / 1000.0;
            let line = json!({
                "cannot_keep": job.name(),
                "account_id": job.key.account,
                "entity_id": (job.key.entity != 0).then_some(job.key.entity),
                "interval": job.intervals.first(),
                "takes_up_to_s": needs_s,
                "why": "with these settings a run can take longer than the time to the next one, which is then late",
            });
            writeln!(out, "{line}")?;
        }
        let s = &self.summary;
        let load = json!({"load": {
            "jobs": self.jobs.len(),
            "runs_per_second": (self.runs_per_second() * 1e6).round() / 1e6,
            "sensors_with_interval": self.count_sensors(true),
            "sensors_without_interval": self.count_sensors(false),
            "skipped": self.skipped.len(),
            "faults": s.faults,
            "requests": s.requests,
        }});
        writeln!(out, "{load}")
    }

    fn count_sensors(&self, with_interval: bool) -> usize {
        let all = self.jobs.iter().flat_map(|job| &job.sensors);
        all.filter(|(_, interval)| interval.is_some() == with_interval).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grafolean_core::bot::SensorRefusal;
    use grafolean_core::interval::Interval;

    fn job(intervals: &[u32], deadline_ms: u64) -> PlannedJob {
        let key = JobKey { account: 1, entity: 2, item: 0, name: "" };
        PlannedJob { key, intervals: intervals.to_vec(), phase: 0, deadline_ms, sensors: Vec::new() }
    }

    #[test]
    fn instants_that_fall_together_count_once() {
        assert!((job(&[10], 0).runs_per_second() - 0.1).abs() < 1e-12);
        assert!((job(&[10, 60], 0).runs_per_second() - 0.1).abs() < 1e-12);
        // Of six seconds, 2, 3, 4 and 6 have an instant.
        assert!((job(&[2, 3], 0).runs_per_second() - 4.0 / 6.0).abs() < 1e-12);
    }

    #[test]
    fn a_schedule_that_can_not_be_kept_is_named() {
        assert!(job(&[10, 60], 14_000).can_overrun());
        assert!(!job(&[60], 14_000).can_overrun());
        // The shortest deadline is 10 s whatever the interval.
        assert!(!job(&[1], 10_000).can_overrun());
        let mut out = Vec::new();
        let plan = Plan { jobs: vec![job(&[10], 14_000)], ..Plan::default() };
        plan.write_json_lines(&mut out).unwrap();
        let lines: Vec<Value> =
            String::from_utf8(out).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(
            lines[0],
            json!({"account_id": 1, "entity_id": 2, "key": "2", "intervals": [10], "phase": 0, "sensors": []})
        );
        assert_eq!(lines[1]["cannot_keep"], "2");
        assert_eq!(lines[2]["load"]["jobs"], 1);
    }

    #[test]
    fn a_sensor_that_was_left_out_as_the_ninth_distinct_interval_is_not_listed() {
        let all = [(1, Some(10)), (2, None), (3, Some(90)), (4, Some(80))];
        let intervals = [10, 20, 30, 40, 50, 60, 70, 80];
        assert_eq!(run_with(&intervals, all.into_iter()), [(1, Some(10)), (2, None), (4, Some(80))]);
    }

    #[test]
    fn a_sensor_that_the_bot_refuses_is_named_with_field_and_column_and_not_listed_with_its_job() {
        let mut planned = job(&[10], 14_000);
        planned.sensors = vec![(5, Some(10)), (6, Some(10))];
        let why = SensorRefusal::new(&"expression", "unknown name").at_column(6);
        let refused = |account, entity, sensor| {
            Fault::new(account, entity, (Kind::Sensor, sensor), FaultKind::SensorRefused(why))
        };
        // The same sensor of another entity or account, and another fault of this one, are something else.
        let interval = FaultKind::NinthInterval(Interval::new(10).unwrap());
        let others = [refused(1, 3, 5), refused(2, 2, 5), Fault::new(1, 2, (Kind::Sensor, 5), interval)];
        drop_refused(core::slice::from_mut(&mut planned), &others);
        assert_eq!(planned.sensors.len(), 2);
        let skipped = vec![refused(1, 2, 5)];
        drop_refused(core::slice::from_mut(&mut planned), &skipped);
        let mut out = Vec::new();
        Plan { jobs: vec![planned], skipped, ..Plan::default() }.write_json_lines(&mut out).unwrap();
        let lines: Vec<Value> =
            String::from_utf8(out).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines[0]["sensors"].as_array().unwrap().len(), 1);
        assert_eq!(
            lines[1],
            json!({"skipped": "sensor", "account_id": 1, "entity_id": 2, "sensor_id": 5,
                "why": "account 1, entity 2, sensor 5: `expression`, column 6: unknown name; the sensor is left out"})
        );
    }

    #[test]
    fn a_job_that_is_skipped_is_named_by_its_key() {
        let skipped = ["first", "second"]
            .map(|job| Fault { job, ..Fault::new(7, 0, (Kind::Job, 0), FaultKind::NoIntervals) });
        let plan = Plan { skipped: skipped.to_vec(), ..Plan::default() };
        let mut out = Vec::new();
        plan.write_json_lines(&mut out).unwrap();
        let lines: Vec<Value> =
            String::from_utf8(out).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(
            lines[0],
            json!({"skipped": "job", "account_id": 7, "job": "first/7",
                "why": "account 7, job `first`: no interval, so no job"})
        );
        assert_eq!(lines[1]["job"], "second/7");
    }

    #[test]
    fn a_key_is_written_as_the_python_bots_write_it() {
        let key = |entity, item, name| key_text(&JobKey { account: 7, entity, item, name });
        assert_eq!(key(5, 0, ""), "5");
        assert_eq!(key(5, 0, "interfaces"), "5-interfaces");
        assert_eq!(key(0, 0, "aggr/1min"), "aggr/1min/7");
    }
}
