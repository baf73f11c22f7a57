//! The whole driver of a collector: W workers, one transport, and the loop that tells it the time, in one future.

use core::cell::Cell;
use core::fmt;
use core::pin::pin;

use embassy_futures::join::join;
use embassy_futures::select::{Either, select, select_array};
use embassy_futures::yield_now;
use embassy_time::{Duration, Timer};
use grafolean_core::bot::Bot;
use grafolean_core::collector::Action;
use grafolean_core::context::RunContext;
use grafolean_core::journal::Event;
use grafolean_core::outbox::{Ledger, OutboxEvent};
use grafolean_core::storage::Storage;
use grafolean_core::time::Millis;
use grafolean_core::values::MAX_PATH_BYTES;

use crate::apart::apart;
use crate::observer::Observer;
use crate::requests::CollectorRequests;
use crate::shared::{Place, Shared, now};
use crate::sink;
use crate::transport::{Requests, Transport};

/// How [`run`] waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DriverSettings {
    /// The loop comes round at least this often, in milliseconds: less than the limit of a watchdog that
    /// [`Observer::turn`] feeds.
    pub longest_wait_ms: u32,
    /// How long the transport may take to close its connection at the end, in milliseconds.
    pub close_limit_ms: u32,
}

impl Default for DriverSettings {
    /// Ten seconds, since not every timer counts the time that a chip sleeps deeply; and two seconds.
    fn default() -> Self {
        DriverSettings { longest_wait_ms: 10_000, close_limit_ms: 2_000 }
    }
}

/// Why a collector can't be run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SetupError {
    /// The memory lets more runs be under way than there are workers.
    Workers {
        /// The `runs` of the memory.
        runs: usize,
        /// The workers: W of [`Shared`].
        workers: usize,
    },
    /// It was run before. A collector can't be taken up again in the middle of its runs and requests.
    RunBefore,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetupError::Workers { runs, workers } => {
                write!(f, "memory for {runs} runs at once, but {workers} workers: W must be at least `runs`")
            }
            SetupError::RunBefore => f.write_str("this collector was run before"),
        }
    }
}

impl core::error::Error for SetupError {}

/// Runs a collector until [`Shared::stop`] was called and all is done or the limit has passed: its ledger then.
///
/// Does not allocate. The future holds, for each worker, a job's parameters and the future of [`Bot::perform`], and the
/// transport's future. If it is dropped, the runs and the request under way are lost; what was queued is still
/// in the ledger of [`Shared::ledger`].
///
/// # Errors
/// [`SetupError`], at once.
pub async fn run<B, S, T, O, const W: usize>(
    bot: &B,
    shared: &Shared<B, S, W>,
    transport: &mut T,
    observer: &O,
    settings: &DriverSettings,
) -> Result<Ledger, SetupError>
where
    B: Bot,
    S: Storage<B>,
    T: Transport,
    O: Observer,
{
    check(shared)?;
    let workers = pin!(workers(bot, shared, observer));
    let requests = CollectorRequests::new(bot, shared, observer);
    let ends =
        pin!(join(drive(bot, shared, observer, settings), talk(shared, transport, &requests, settings)));
    select(ends, workers).await;
    Ok(end(shared))
}

/// Whether it can be run; from now on not again.
pub(crate) fn check<B: Bot, S: Storage<B>, const W: usize>(
    shared: &Shared<B, S, W>,
) -> Result<(), SetupError> {
    if shared.runs > W {
        return Err(SetupError::Workers { runs: shared.runs, workers: W });
    }
    if shared.started.replace(true) {
        return Err(SetupError::RunBefore);
    }
    Ok(())
}

/// What [`run`] does, beside something that ends by itself when `shared.closing` is set.
#[cfg(feature = "flash")]
pub(crate) async fn run_beside<B, S, T, O, const W: usize>(
    bot: &B,
    shared: &Shared<B, S, W>,
    transport: &mut T,
    observer: &O,
    settings: &DriverSettings,
    beside: impl Future<Output = ()>,
) -> Ledger
where
    B: Bot,
    S: Storage<B>,
    T: Transport,
    O: Observer,
{
    let workers = pin!(workers(bot, shared, observer));
    let requests = CollectorRequests::new(bot, shared, observer);
    let ends = join(drive(bot, shared, observer, settings), talk(shared, transport, &requests, settings));
    let ends = pin!(join(ends, beside));
    select(ends, workers).await;
    end(shared)
}

/// The ledger at the end, which the log gets too: a firmware may have nobody else to tell.
fn end<B: Bot, S: Storage<B>, const W: usize>(shared: &Shared<B, S, W>) -> Ledger {
    let ledger = shared.ledger();
    sink::info(&format_args!("stopped: {ledger}"));
    ledger
}

/// All workers, none of which ever ends. Out of line: what it takes of the call stack, where all their futures are put together, is not
/// there any more while they are polled.
#[inline(never)]
fn workers<B: Bot, S: Storage<B>, O: Observer, const W: usize>(
    bot: &B,
    shared: &Shared<B, S, W>,
    observer: &O,
) -> impl Future {
    // Not joined, which would move them once more.
    select_array(shared.places.each_ref().map(|place| work(bot, shared, observer, place)))
}

/// Performs the runs of one place, one after the other.
fn work<B: Bot, S: Storage<B>, O: Observer, const W: usize>(
    bot: &B,
    shared: &Shared<B, S, W>,
    observer: &O,
    place: &Place,
) -> impl Future<Output = ()> {
    async move {
        loop {
            shared.changes.wait_for(|| place.begin.take().then_some(())).await;
            apart(pin!(perform(bot, shared, observer, place))).await;
            let due = place.due.take();
            if let Some(due) = due {
                shared.with(|c| c.handle_completed(due.run));
            }
        }
    }
}

/// Performs the run of a place.
#[allow(
    clippy::await_holding_refcell_ref,
    reason = "a place's run stands where it is while it is performed; nobody writes there meanwhile"
)]
fn perform<B: Bot, S: Storage<B>, O: Observer, const W: usize>(
    bot: &B,
    shared: &Shared<B, S, W>,
    observer: &O,
    place: &Place,
) -> impl Future<Output = ()> {
    async move {
        let due = place.due.borrow();
        let Some(due) = due.as_ref() else { return };
        let Some(job) = shared.at_present().job(due.run) else { return };
        let mut context = RunContext::new(shared, due);
        let cancelled = shared.changes.wait_for(|| place.cancelled.get().then_some(()));
        if let Either::First(Err(why)) = select(bot.perform(&job, due, &mut context), cancelled).await {
            sink::warn(&format_args!("{}: {why}", due.key));
            observer.run_failed(&due.key, &why);
        }
    }
}

/// Lets the transport perform requests until nothing more is wanted of it.
fn talk<B: Bot, S: Storage<B>, T: Transport, R: Requests, const W: usize>(
    shared: &Shared<B, S, W>,
    transport: &mut T,
    requests: &R,
    settings: &DriverSettings,
) -> impl Future<Output = ()> {
    async move {
        let serve = async {
            while !shared.closing.get() {
                apart(pin!(transport.serve(requests))).await;
                // So that a transport that returns at once does not stop everything else.
                yield_now().await;
            }
        };
        let too_late = async {
            shared.changes.wait_for(|| shared.closing.get().then_some(())).await;
            Timer::after_millis(u64::from(settings.close_limit_ms)).await;
        };
        select(serve, too_late).await;
    }
}

/// Tells the collector the time and does what it says, until it is to end.
fn drive<B: Bot, S: Storage<B>, O: Observer, const W: usize>(
    bot: &B,
    shared: &Shared<B, S, W>,
    observer: &O,
    settings: &DriverSettings,
) -> impl Future<Output = ()> {
    async move {
        loop {
            let now = now();
            observer.turn(now);
            act(bot, shared, observer);
            tell_events(shared, observer);
            let next = shared.at_present().poll_timeout();
            let stop_at = shared.stop_at.get();
            if let Some(until) = stop_at
                && (now >= until || shared.at_present().is_finished())
            {
                break;
            }
            // Whoever waits looks again: a run may have begun, a list's time may be over. This own message is not waited for.
            shared.changes.tell();
            let seen = shared.changes.count();
            let longest = now.saturating_add(u64::from(settings.longest_wait_ms.max(1)));
            let until = [next, stop_at].into_iter().flatten().fold(longest, Millis::min);
            // A tick more, as both the present time and the duration are rounded down: or it wakes up just before.
            let wait = Duration::from_millis(until.since(now).max(1)) + Duration::from_ticks(1);
            select(Timer::after(wait), shared.changes.wait_since(seen)).await;
        }
        shared.closing.set(true);
        shared.changes.tell();
    }
}

/// Does all that the collector wants done now.
#[inline(never)]
fn act<B: Bot, S: Storage<B>, O: Observer, const W: usize>(bot: &B, shared: &Shared<B, S, W>, observer: &O) {
    drop(shared.at_present());
    loop {
        // On a line of its own: in the head of a match the borrow would last to its end.
        let action = shared.collector.borrow_mut().poll(bot);
        match action {
            None => return,
            Some(Action::Send(id)) => shared.queue(id),
            Some(Action::Run(due)) => match shared.places.get(due.run.place as usize) {
                Some(place) => {
                    observer.run_began(&due);
                    place.cancelled.set(false);
                    place.due.replace(Some(due));
                    place.begin.set(true);
                }
                // There are as many workers as places, `run` has checked that.
                None => shared.collector.borrow_mut().handle_completed(due.run),
            },
            Some(Action::Cancel(run)) => {
                let is_here = |p: &&Place| p.due.borrow().as_ref().is_some_and(|due| due.run == run);
                if let Some(place) = shared.places.iter().find(is_here) {
                    place.cancelled.set(true);
                }
            }
            Some(_) => {}
        }
    }
}

/// Tells the log and the observer what has happened.
#[inline(never)]
fn tell_events<B: Bot, S: Storage<B>, O: Observer, const W: usize>(shared: &Shared<B, S, W>, observer: &O) {
    loop {
        let mut path = heapless::String::<MAX_PATH_BYTES>::new();
        let event = {
            let mut collector = shared.collector.borrow_mut();
            let Some(event) = collector.poll_event() else { return };
            if matches!(event, Event::Outbox(OutboxEvent::ValueRefused { .. })) {
                let _ = path.push_str(collector.refused_path());
            }
            event
        };
        let level = if event.is_warning() { sink::warn } else { sink::info };
        if path.is_empty() {
            level(&event)
        } else {
            level(&format_args!("{event}: {path}"))
        }
        observer.event(&event, &path);
    }
}

/// Keeps the size of what a worker is told in view.
const _: () = assert!(size_of::<Place>() <= 200 && size_of::<Cell<bool>>() == 1);
