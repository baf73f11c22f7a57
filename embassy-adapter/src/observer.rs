//! What a firmware may want to see of a running collector, besides the log.

use core::fmt::Display;

use grafolean_core::api::Resource;
use grafolean_core::jobs::{Due, JobKey};
use grafolean_core::journal::Event;
use grafolean_core::time::Millis;

/// Is told what happens while [`run`](crate::run) runs; `()` ignores it all.
///
/// Methods are called between the collector's steps, so they may use [`Shared`](crate::Shared). They hold everything
/// up: they should take no more than some milliseconds.
pub trait Observer {
    /// An event. `refused_path` is the path if it says that a value was refused, else empty.
    fn event(&self, event: &Event, refused_path: &str) {
        let _ = (event, refused_path);
    }

    /// A run begins. In the order in which the collector began them, as soon as it has.
    fn run_began(&self, due: &Due) {
        let _ = due;
    }

    /// A run ended with an error of the bot.
    fn run_failed(&self, job: &JobKey, why: &dyn Display) {
        let _ = (job, why);
    }

    /// A request is answered, whatever the answer is: the backend can be reached. What comes after the answer's head may still be lost, then
    /// [`request_failed`](Observer::request_failed) comes too.
    fn request_answered(&self, what: Resource) {
        let _ = what;
    }

    /// A request got no answer, or not all of it.
    fn request_failed(&self, what: Resource, why: &dyn Display) {
        let _ = (what, why);
    }

    /// Something happened to the flash in which values are kept.
    #[cfg(feature = "flash")]
    fn flash(&self, event: &crate::flash::FlashEvent) {
        let _ = event;
    }

    /// The loop has come round, at least every
    /// [`longest_wait_ms`](crate::DriverSettings::longest_wait_ms): the place to feed a watchdog.
    fn turn(&self, now: Millis) {
        let _ = now;
    }
}

impl Observer for () {}
