//! What the bots and their board tell each other: stop, how it goes, and whether everything still moves.

use core::cell::Cell;

use embassy_time::{Instant, Timer};
use grafolean_embassy::core::api::Resource;
use grafolean_embassy::core::bot::Bot;
use grafolean_embassy::core::jobs::{Due, JobKey};
use grafolean_embassy::core::outbox::Ledger;
use grafolean_embassy::core::storage::Storage;
use grafolean_embassy::core::time::Millis;
use grafolean_embassy::{Observer, Shared};

/// How often a bot looks at what it is told, in milliseconds.
pub(crate) const LOOK_MS: u64 = 100;
/// Each driver's loop comes round at least this often, in milliseconds.
pub(crate) const LONGEST_WAIT_MS: u32 = 5_000;
/// A driver that has not come round for so long hangs, in milliseconds.
const HANG_MS: u64 = 3 * LONGEST_WAIT_MS as u64;
/// A board whose bots have not begun so long after it was started hangs, in milliseconds: its network chip does not answer.
const START_LIMIT_MS: u64 = 60_000;
/// After a stop: how long values may take to be delivered, in milliseconds.
const STOP_LIMIT_MS: u32 = 10_000;

pub(crate) const PING: usize = 0;
pub(crate) const SENSOR: usize = 1;
#[cfg(feature = "snmp")]
pub(crate) const SNMP: usize = 2;
const BOTS: usize = if cfg!(feature = "snmp") { 3 } else { 2 };

/// How one bot does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BotReport {
    /// Where its values are.
    pub ledger: Ledger,
    /// Runs that have ended with an error of the bot.
    pub failed_runs: u32,
    /// Requests without an answer.
    pub failed_requests: u32,
    /// When its loop came round last, while it runs.
    turned: Option<Millis>,
}

impl BotReport {
    const EMPTY: BotReport =
        BotReport { ledger: Ledger::EMPTY, failed_runs: 0, failed_requests: 0, turned: None };
}

/// Shared by the bots and the board's own code, all in one task.
#[derive(Debug)]
pub struct Control {
    /// The bots have begun.
    begun: Cell<bool>,
    stop: Cell<bool>,
    on_run: Cell<Option<fn(&Due)>>,
    /// Requests of the bots that have failed since one was answered.
    unanswered: Cell<u32>,
    bots: [Cell<BotReport>; BOTS],
}

impl Control {
    /// All is to run.
    #[must_use]
    pub const fn new() -> Self {
        Control {
            begun: Cell::new(false),
            stop: Cell::new(false),
            on_run: Cell::new(None),
            unanswered: Cell::new(0),
            bots: [const { Cell::new(BotReport::EMPTY) }; BOTS],
        }
    }

    /// Ends the bots: what is collected is delivered, for at most 10 s.
    pub fn stop(&self) {
        self.stop.set(true);
    }

    /// From now on this is told each run that begins.
    pub fn on_run(&self, tell: fn(&Due)) {
        self.on_run.set(Some(tell));
    }

    /// How the ping bot does.
    #[must_use]
    pub fn ping(&self) -> BotReport {
        self.bots[PING].get()
    }

    /// How the sensor's bot does.
    #[must_use]
    pub fn sensor(&self) -> BotReport {
        self.bots[SENSOR].get()
    }

    /// How the SNMP bot does.
    #[cfg(feature = "snmp")]
    #[must_use]
    pub fn snmp(&self) -> BotReport {
        self.bots[SNMP].get()
    }

    /// Whether the loops of all bots that run have come round in the last 15 s: while they have, the board feeds its watchdog. Until
    /// [`run`](crate::run) is called, for at most a minute after the start: what comes before it may wait for a chip for ever.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let now = Millis(Instant::now().as_millis());
        if !self.begun.get() && now.0 >= START_LIMIT_MS {
            return false;
        }
        self.bots.iter().all(|bot| bot.get().turned.is_none_or(|turned| now.since(turned) < HANG_MS))
    }

    /// Returns when from now on `limit` requests of the bots have failed one after the other, without an answer to any in between. A radio
    /// may go on showing a link that is not there any more: then the network is to be joined again.
    pub async fn many_failed_requests(&self, limit: u32) {
        self.unanswered.set(0);
        while self.unanswered.get() < limit {
            Timer::after_millis(LOOK_MS).await;
        }
    }

    pub(crate) fn begin(&self) {
        self.begun.set(true);
    }

    pub(crate) fn watch(&self, bot: usize) -> Watch<'_> {
        Watch {
            stop: &self.stop,
            on_run: &self.on_run,
            unanswered: &self.unanswered,
            report: &self.bots[bot % BOTS],
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

/// One bot's side of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch<'a> {
    stop: &'a Cell<bool>,
    on_run: &'a Cell<Option<fn(&Due)>>,
    unanswered: &'a Cell<u32>,
    report: &'a Cell<BotReport>,
}

impl Watch<'_> {
    fn change(&self, change: impl FnOnce(&mut BotReport)) {
        let mut report = self.report.get();
        change(&mut report);
        self.report.set(report);
    }

    /// Reports where the values are. Whether the bot is told to stop, in which case it has been stopped.
    pub(crate) fn report<B: Bot, S: Storage<B>, const W: usize>(&self, shared: &Shared<B, S, W>) -> bool {
        self.change(|report| report.ledger = shared.ledger());
        let stop = self.stop.get();
        if stop {
            shared.stop(STOP_LIMIT_MS);
        }
        stop
    }

    pub(crate) fn ended<B: Bot, S: Storage<B>, const W: usize>(&self, shared: &Shared<B, S, W>) {
        self.change(|report| (report.ledger, report.turned) = (shared.ledger(), None));
    }
}

impl Observer for Watch<'_> {
    fn run_began(&self, due: &Due) {
        if let Some(tell) = self.on_run.get() {
            tell(due);
        }
    }

    fn run_failed(&self, _: &JobKey, _: &dyn core::fmt::Display) {
        self.change(|report| report.failed_runs = report.failed_runs.saturating_add(1));
    }

    fn request_answered(&self, _: Resource) {
        self.unanswered.set(0);
    }

    fn request_failed(&self, _: Resource, _: &dyn core::fmt::Display) {
        self.unanswered.set(self.unanswered.get().saturating_add(1));
        self.change(|report| report.failed_requests = report.failed_requests.saturating_add(1));
    }

    fn turn(&self, now: Millis) {
        self.change(|report| report.turned = Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use core::pin::pin;
    use core::sync::atomic::{AtomicU64, Ordering};
    use core::task::{Context, Waker};

    /// Each look at the time is a second after the last one.
    struct Clock(AtomicU64);

    impl embassy_time_driver::Driver for Clock {
        fn now(&self) -> u64 {
            self.0.fetch_add(embassy_time_driver::TICK_HZ, Ordering::Relaxed)
        }
        fn schedule_wake(&self, _: u64, _: &Waker) {}
    }

    embassy_time_driver::time_driver_impl!(static CLOCK: Clock = Clock(AtomicU64::new(0)));

    #[test]
    fn failed_requests_are_counted_anew_from_any_answer_of_either_bot() {
        let control = Control::new();
        let (ping, sensor) = (control.watch(PING), control.watch(SENSOR));
        let fail = |bot: &Watch<'_>, times| {
            for _ in 0..times {
                bot.request_failed(Resource::Accounts, &"connection broke");
            }
        };
        // Those from before the network was joined don't count.
        fail(&ping, 8);
        let mut many = pin!(control.many_failed_requests(8));
        let mut are_many = || many.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!are_many());
        // A ping bot without devices delivers nothing: it looks at its configuration, now and then in vain.
        for _ in 0..20 {
            fail(&ping, 7);
            assert!(!are_many());
            ping.request_answered(Resource::Profile);
        }
        fail(&ping, 4);
        fail(&sensor, 3);
        assert!(!are_many());
        sensor.request_answered(Resource::Values(1));
        fail(&ping, 4);
        fail(&sensor, 3);
        assert!(!are_many());
        fail(&sensor, 1);
        assert!(are_many());
        assert_eq!((control.ping().failed_requests, control.sensor().failed_requests), (156, 7));
    }
}
