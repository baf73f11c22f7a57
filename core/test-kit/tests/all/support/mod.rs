//! The bot of the kit's own tests: it reads the register of each sensor of a device.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use grafolean_core::bot::{Anything, Bot, Context, EntityView, JobSink, NewJob};
use grafolean_core::jobs::Due;
use grafolean_test::{Lab, Script};

/// What the bot needs of its devices.
pub trait Bus {
    async fn read(&self, entity: u64, register: u16) -> Result<i64, &'static str>;
}

pub type Wire = Script<(u64, u16), Result<i64, &'static str>>;

impl Bus for Wire {
    async fn read(&self, entity: u64, register: u16) -> Result<i64, &'static str> {
        self.ask((entity, register)).await
    }
}

#[derive(Clone, serde::Deserialize)]
pub struct Register {
    #[serde(default)]
    pub register: u16,
}

#[derive(Clone, serde::Deserialize)]
pub struct Place {
    #[serde(default)]
    pub broken: bool,
}

pub struct Meter<T>(pub T);

impl<T: Bus> Bot for Meter<T> {
    type Name = ();
    type Entity = Place;
    type Credential = Anything;
    type Sensor = Register;
    type Job = ();
    type Error = &'static str;

    fn protocol(&self) -> Option<&str> {
        Some("meter")
    }

    fn entity_jobs(&self, entity: &EntityView<'_, Self>, jobs: &mut dyn JobSink<()>) {
        if entity.details().broken {
            return jobs.refuse("it is broken");
        }
        let intervals = entity.intervals(jobs);
        jobs.add(NewJob::new(intervals, ()));
    }

    async fn perform<C: Context<Bot = Self>>(
        &self,
        _: &(),
        due: &Due,
        cx: &mut C,
    ) -> Result<(), &'static str> {
        let mut n = 0;
        while let Some(sensor) = cx.sensor(n) {
            n += 1;
            if sensor.interval.is_some_and(|interval| due.affects(interval)) {
                let (entity, register) = (due.key.entity, sensor.details.register);
                let number = self.0.read(entity, register).await?;
                let path = format_args!("entity.{entity}.r{register}");
                cx.value(path, number).map_err(|_| "the value was not taken")?;
            }
        }
        Ok(())
    }
}

/// A lab of devices that always answer 7 after 20 ms.
pub fn lab() -> (Lab<Meter<Wire>>, Wire) {
    let wire = Wire::always(20, Ok(7));
    (Lab::new(Meter(wire.clone())), wire)
}
