//! The bot of a simulation: small runs that measure, wait, hang, fail, burst, list, and remember.

use std::cell::Cell;
use std::rc::Rc;

use grafolean_core::bot::{Anything, Bot, Context, EntityView, JobSink, NewJob, RunError};
use grafolean_core::interval::{Interval, Intervals};
use grafolean_core::jobs::{Due, JobKey};
use grafolean_core::time::UnixMillis;

use crate::machine::{Clock, Kept, Shared};
use crate::plan::{Fault, Plan};
use crate::random::{Purpose, Random};
use crate::server::{INVALID, ODD, PROTOCOL};
use crate::violation::Invariant;
use crate::wire;

/// How many values an evil backend answers by 500 in one simulation: to find each takes minutes.
const MOST_ODD: u32 = 2;

/// What a job's runs measure: so many series.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Measure {
    series: u64,
}

pub(crate) struct SimBot {
    plan: Plan,
    clock: Rc<Clock>,
    shared: Rc<Shared>,
    odd: Cell<u32>,
}

impl SimBot {
    pub(crate) fn new(plan: Plan, clock: Rc<Clock>, shared: Rc<Shared>) -> Self {
        SimBot { plan, clock, shared, odd: Cell::new(0) }
    }

    /// The own jobs of a custom bot.
    pub(crate) fn own(plan: &Plan) -> Vec<(u64, Vec<u32>)> {
        let mut r = Random::of(plan.seed, Purpose::Config, 1);
        let mut jobs = Vec::new();
        for item in 1..=u64::from(plan.devices) {
            let mut intervals_s: Vec<u32> =
                (0..r.between(1, 2)).map(|_| r.pick(&plan.intervals_s).unsigned_abs()).collect();
            intervals_s.sort_unstable();
            intervals_s.dedup();
            jobs.push((item, intervals_s));
        }
        jobs
    }

    /// Whether this fault may happen now.
    fn may(&self, fault: Fault) -> bool {
        self.plan.faults.has(fault) && !self.clock.calm()
    }

    fn value<C: Context<Bot = Self>>(&self, cx: &mut C, path: &str) -> Result<(), RunError> {
        let number = wire::number(self.shared.values.borrow().next_number());
        Ok(cx.value(path, number)?)
    }
}

fn intervals(seconds: impl IntoIterator<Item = u32>) -> Intervals {
    let mut set = Intervals::EMPTY;
    for interval in seconds.into_iter().filter_map(|s| Interval::new(s.into()).ok()) {
        let _ = set.insert(interval);
    }
    set
}

impl Bot for SimBot {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = Measure;
    type Error = RunError;

    fn protocol(&self) -> Option<&str> {
        (!self.plan.custom).then_some(PROTOCOL)
    }

    fn entity_jobs(&self, entity: &EntityView<'_, Self>, jobs: &mut dyn JobSink<Measure>) {
        if self.plan.job_per_sensor {
            for sensor in entity.sensors() {
                if let Some(interval) = sensor.interval {
                    jobs.add(NewJob::new(Intervals::one(interval), Measure { series: 1 }).item(sensor.id));
                }
            }
            return;
        }
        let set = entity.intervals(jobs);
        if !set.is_empty() {
            jobs.add(NewJob::new(set, Measure { series: set.len() as u64 }));
        }
    }

    fn own_jobs(&self, _account: u64, jobs: &mut dyn JobSink<Measure>) {
        for (item, seconds) in Self::own(&self.plan) {
            jobs.add(NewJob::new(intervals(seconds), Measure { series: 2 }).item(item));
        }
    }

    async fn perform<C: Context<Bot = Self>>(
        &self,
        job: &Measure,
        due: &Due,
        cx: &mut C,
    ) -> Result<(), RunError> {
        let JobKey { account, entity, item, .. } = due.key;
        let mut r = Random::of(self.plan.seed ^ due.key.fnv1a64(), Purpose::Run, self.clock.now_ms());
        if r.chance(400) {
            cx.sleep_ms(r.between(0, 2500) as u32).await;
        }
        if self.may(Fault::BadRuns) && r.chance(60) {
            match r.between(0, 2) {
                0 => cx.sleep_ms(7_200_000).await,
                1 => return Err("as planned".into()),
                _ => cx.sleep_ms(r.between(1_000, 60_000) as u32).await,
            }
        }
        // What was stored last must be what is read.
        let mut buf = [0; 8];
        let read = cx.get_state("count", &mut buf).map(|_| u64::from_le_bytes(buf));
        let known = self.shared.states.borrow().get(&due.key).map(|known| known.last);
        if let Some(read) = read
            && known.is_some_and(|known| known != read)
        {
            let text = format!("the state of the {} is {read}, stored was {known:?}", due.key);
            self.shared.values.borrow_mut().violate(Invariant::State, text);
        }
        let kept = self.shared.kept_states.borrow_mut().remove(&due.key);
        if let (None, Some(Kept { stored, safe, most })) = (known, kept) {
            let survived = read.unwrap_or(0);
            if !(safe..=most).contains(&survived) {
                let text = format!(
                    "the state of the {} is {read:?} in a new life, stored was {}, {safe} of it safe, {most} at most",
                    due.key, stored.last
                );
                self.shared.values.borrow_mut().violate(Invariant::State, text);
            }
            self.shared.states.borrow_mut().insert(due.key, stored.survived(survived));
        }
        let count = read.map_or(1, |n| n.wrapping_add(1));
        if cx.set_state("count", &count.to_le_bytes()).is_ok() {
            let now_ms = self.clock.now_ms();
            self.shared.states.borrow_mut().entry(due.key).or_default().store(count, now_ms);
            let mut most_stored = self.shared.most_stored.borrow_mut();
            let most = most_stored.entry(due.key).or_default();
            *most = (*most).max(count);
        }
        let path = |n: u64| format!("d{entity}.s{item}.v{n}");
        for n in 0..job.series {
            self.value(cx, &path(n))?;
        }
        if self.may(Fault::SamePath) && r.chance(100) {
            self.value(cx, &path(0))?;
            self.value(cx, &path(0))?;
        }
        let bursts = if self.plan.thins() { 150 } else { 20 };
        if self.may(Fault::Bursts) && r.chance(bursts) {
            for n in 0..r.scaled(5, if self.plan.cells < 1000 { 60 } else { 500 }) {
                self.value(
                    cx,
                    &format!(
                        "burst.d{entity}.of-account-{account}.{}.v{n}",
                        "x".repeat((n % 90) as usize + 1)
                    ),
                )?;
            }
        }
        if self.may(Fault::Invalid) && r.chance(15) {
            for _ in 0..r.scaled(1, 14) {
                let n = r.next() % 1000;
                self.value(cx, &format!("{INVALID}d{entity}.s{item}.v{n}"))?;
            }
        }
        if self.may(Fault::Odd) && r.chance(15) && self.odd.get() < MOST_ODD {
            self.odd.set(self.odd.get() + 1);
            self.value(cx, &format!("{ODD}d{entity}.s{item}"))?;
        }
        if self.may(Fault::OwnTimes) && r.chance(50) {
            let hours_ms = r.between(0, 7_200_000);
            let time = UnixMillis((self.clock.true_unix_ms() + hours_ms).saturating_sub(3_600_000));
            let number = wire::number(self.shared.values.borrow().next_number());
            cx.value_at(time, format!("own.d{entity}.s{item}"), number)?;
        }
        if self.may(Fault::OwnRequests) && r.chance(30) {
            let mut entity = [0; 1024];
            cx.list_entities().await?;
            while cx.next_entity(&mut entity).await?.is_some() {
                if r.chance(200) {
                    cx.sleep_ms(r.between(0, 500) as u32).await;
                }
            }
        }
        if r.chance(300) {
            cx.sleep_ms(r.between(0, 1500) as u32).await;
            self.value(cx, &path(9))?;
        }
        Ok(())
    }
}
