//! Simulated time, which passes only while everything waits.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use grafolean_core::jobs::JobKey;

/// So often a run may ask its context, its clock or a script before it lets others go on: more counts as a run that never waits.
const CALLS_AT_ONCE: u32 = 1_000_000;

/// The time of a lab. Clones show the same time, and can be kept in a bot's driver.
///
/// ```
/// # use grafolean_test::Clock;
/// async fn read_slowly(clock: &Clock) -> u32 {
///     clock.sleep_ms(250).await;
///     215
/// }
/// ```
#[derive(Clone)]
pub struct Clock(Arc<Mutex<Time>>);

struct Time {
    now_ms: u64,
    /// Monotonic and Unix time at the lab's start.
    boot_ms: u64,
    unix_ms: u64,
    timers: BTreeMap<(u64, u64), Waker>,
    next_timer: u64,
}

impl Clock {
    pub(crate) fn new(boot_ms: u64, unix_ms: u64) -> Self {
        let time = Time { now_ms: 0, boot_ms, unix_ms, timers: BTreeMap::new(), next_timer: 0 };
        Clock(Arc::new(Mutex::new(time)))
    }

    fn time(&self) -> MutexGuard<'_, Time> {
        // Whoever panics here leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the lab's start.
    ///
    /// # Panics
    /// In a run that asks a million times without waiting in between, as all that a run is given: time never passes for it.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        count_call();
        self.time().now_ms
    }

    /// The wall clock's time, in Unix milliseconds.
    ///
    /// # Panics
    /// As [`Clock::now_ms`].
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        count_call();
        let time = self.time();
        time.unix_ms + time.now_ms
    }

    /// Waits this many milliseconds of simulated time, counted from now. Dropping the future ends the wait. After 0 ms no time has
    /// passed, but all others have had their turn.
    ///
    /// # Panics
    /// As [`Clock::now_ms`].
    #[must_use = "futures do nothing unless polled"]
    pub fn sleep_ms(&self, ms: u32) -> Sleep {
        Sleep {
            at_ms: self.now_ms().saturating_add(ms.into()),
            clock: self.clone(),
            timer: None,
            gave_way: false,
        }
    }

    /// What the bot's `Context::now` shows.
    pub(crate) fn monotonic_ms(&self) -> u64 {
        count_call();
        let time = self.time();
        time.boot_ms + time.now_ms
    }

    /// A monotonic time as milliseconds since the lab's start; 0 if it was before.
    pub(crate) fn since_start_ms(&self, monotonic_ms: u64) -> u64 {
        monotonic_ms.saturating_sub(self.time().boot_ms)
    }

    pub(crate) fn start_unix_ms(&self) -> u64 {
        self.time().unix_ms
    }

    /// When the next of those that wait wants to go on.
    pub(crate) fn next_timer_ms(&self) -> Option<u64> {
        self.time().timers.keys().next().map(|(at_ms, _)| *at_ms)
    }

    pub(crate) fn advance_to(&self, ms: u64) {
        let due = {
            let mut time = self.time();
            let now_ms = time.now_ms.max(ms);
            time.now_ms = now_ms;
            let later = time.timers.split_off(&(now_ms.saturating_add(1), 0));
            std::mem::replace(&mut time.timers, later)
        };
        due.into_values().for_each(Waker::wake);
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("now_ms", &self.now_ms()).finish_non_exhaustive()
    }
}

/// A wait: see [`Clock::sleep_ms`].
#[derive(Debug)]
pub struct Sleep {
    clock: Clock,
    at_ms: u64,
    timer: Option<u64>,
    /// Others have had their turn.
    gave_way: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut time = this.clock.time();
        // Once even if there is nothing to wait for: who loops on waits of 0 ms must not keep the lab from noticing it.
        let gave_way = core::mem::replace(&mut this.gave_way, true);
        if time.now_ms >= this.at_ms {
            if gave_way {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let id = *this.timer.get_or_insert_with(|| {
            time.next_timer += 1;
            time.next_timer
        });
        time.timers.insert((this.at_ms, id), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.timer {
            self.clock.time().timers.remove(&(self.at_ms, id));
        }
    }
}

/// The run that is being polled.
struct Current {
    clock: Clock,
    key: JobKey,
    calls: u32,
}

thread_local! {
    /// The run that is being polled on this thread.
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// The clock of the lab whose run asks; none outside of runs.
pub(crate) fn current() -> Option<Clock> {
    CURRENT.with_borrow(|current| current.as_ref().map(|current| current.clock.clone()))
}

/// Counts what the run that is being polled asks for; a run that asks again and again without waiting would hang the test.
pub(crate) fn count_call() {
    let endless = CURRENT.with_borrow_mut(|current| {
        let current = current.as_mut()?;
        current.calls += 1;
        (current.calls > CALLS_AT_ONCE).then_some((current.key, current.clock.time().now_ms))
    });
    if let Some((key, now_ms)) = endless {
        panic!(
            "the {key} goes on without waiting: {CALLS_AT_ONCE} calls at once at {now_ms} ms, and time never passes"
        )
    }
}

/// Calls `call` as part of this job's run in a lab with this clock. Labs may run within labs.
pub(crate) fn within<R>(clock: &Clock, key: JobKey, call: impl FnOnce() -> R) -> R {
    struct Restore(Option<Current>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let before = self.0.take();
            CURRENT.with_borrow_mut(|current| *current = before);
        }
    }
    let _restore = Restore(CURRENT.replace(Some(Current { clock: clock.clone(), key, calls: 0 })));
    call()
}
