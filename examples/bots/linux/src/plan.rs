//! A bot that makes jobs of any protocol's entities and performs none: for the dry run.

use grafolean_std::core::bot::{Anything, Bot, Context, EntityView, JobSink, NewJob};
use grafolean_std::core::jobs::Due;

/// One job per entity of `protocol`, whose details may be anything.
#[derive(Clone, Debug)]
pub struct AnyProtocol {
    /// The protocol.
    pub protocol: String,
}

impl Bot for AnyProtocol {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = ();
    type Error = &'static str;

    fn protocol(&self) -> Option<&str> {
        Some(&self.protocol)
    }

    fn entity_jobs(&self, entity: &EntityView<'_, Self>, jobs: &mut dyn JobSink<()>) {
        let intervals = entity.intervals(jobs);
        jobs.add(NewJob::new(intervals, ()));
    }

    async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, _: &mut C) -> Result<(), &'static str> {
        Err("this bot only plans")
    }
}
