//! A custom bot that posts a sensor's value at an interval.

use core::fmt;

use grafolean_embassy::core::bot::{Anything, Bot, Context, HandOverError, JobSink, NewJob};
use grafolean_embassy::core::interval::{Interval, Intervals};
use grafolean_embassy::core::jobs::Due;
use grafolean_embassy::core::values::Decimal;

/// A sensor of the board.
pub trait Gauge {
    /// Its present value, within a millisecond: a slow sensor is read by a task of its own that leaves the last value here.
    ///
    /// # Errors
    /// What is wrong, for the log.
    fn read(&self) -> Result<Decimal, &'static str>;
}

/// Posts the value of a [`Gauge`] to one path.
#[derive(Clone, Copy)]
pub struct SensorBot {
    gauge: &'static dyn Gauge,
    path: &'static str,
    interval: Interval,
}

impl SensorBot {
    /// Posts to `path` every `interval_s` seconds; `None` if that is no interval.
    #[must_use]
    pub fn new(gauge: &'static dyn Gauge, path: &'static str, interval_s: u32) -> Option<Self> {
        Interval::new(i64::from(interval_s)).ok().map(|interval| SensorBot { gauge, path, interval })
    }
}

impl fmt::Debug for SensorBot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SensorBot")
            .field("path", &self.path)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// Why there is no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SensorError {
    /// The sensor; what it says.
    Gauge(&'static str),
    /// The collector.
    HandOver(HandOverError),
}

impl fmt::Display for SensorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SensorError::Gauge(why) => write!(f, "the sensor can't be read: {why}"),
            SensorError::HandOver(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for SensorError {}

impl Bot for SensorBot {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = ();
    type Error = SensorError;

    fn protocol(&self) -> Option<&str> {
        None
    }

    fn own_jobs(&self, _account: u64, jobs: &mut dyn JobSink<()>) {
        jobs.add(NewJob::new(Intervals::one(self.interval), ()).named("sensor"));
    }

    async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, cx: &mut C) -> Result<(), SensorError> {
        let value = self.gauge.read().map_err(SensorError::Gauge)?;
        cx.value(self.path, value).map_err(SensorError::HandOver)
    }
}
