//! Time and an executor for tests: simulated time that jumps to the next timer, or real time for sockets.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use embassy_time_queue_utils::Queue;

struct Driver;

thread_local! {
    /// Simulated microseconds; each test has a thread, and so a time, of its own.
    static NOW: Cell<u64> = const { Cell::new(0) };
    /// What a poll takes, in simulated microseconds.
    static POLL_US: Cell<u64> = const { Cell::new(0) };
    static REAL: Cell<Option<Instant>> = const { Cell::new(None) };
    static QUEUE: RefCell<Queue> = const { RefCell::new(Queue::new()) };
}

impl embassy_time_driver::Driver for Driver {
    fn now(&self) -> u64 {
        match REAL.get() {
            Some(start) => start.elapsed().as_micros() as u64,
            None => NOW.get(),
        }
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        QUEUE.with_borrow_mut(|q| q.schedule_wake(at, waker));
    }
}

embassy_time_driver::time_driver_impl!(static DRIVER: Driver = Driver);

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Milliseconds of simulated time.
pub fn now_ms() -> u64 {
    NOW.get() / 1000
}

/// Simulated time begins again at 0, and nothing waits for it any more.
pub fn reboot() {
    NOW.set(0);
    QUEUE.set(Queue::new());
}

/// From now on each poll takes a microsecond: a network stack waits for the time after the one that it names.
pub fn polls_take_time() {
    POLL_US.set(1);
}

/// Awaits `future` on simulated time. Fails if nothing can ever happen any more, or after `limit_s` simulated seconds.
pub fn simulate<F: Future>(limit_s: u64, future: F) -> F::Output {
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    simulate_with(limit_s, &flag.0, &waker, future)
}

fn simulate_with<F: Future>(limit_s: u64, woken: &AtomicBool, waker: &Waker, future: F) -> F::Output {
    let mut future = pin!(future);
    let start = NOW.get();
    let mut spins = 0;
    loop {
        woken.store(false, Ordering::Relaxed);
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(waker)) {
            return output;
        }
        if woken.load(Ordering::Relaxed) {
            spins += 1;
            assert!(spins < 100_000, "busy loop at {} ms", now_ms());
            NOW.set(NOW.get() + POLL_US.get());
            continue;
        }
        spins = 0;
        let next = QUEUE.with_borrow_mut(|q| q.next_expiration(NOW.get()));
        if woken.load(Ordering::Relaxed) {
            continue;
        }
        assert!(next != u64::MAX, "everything waits for ever at {} ms", now_ms());
        assert!(
            next.saturating_sub(start) / 1_000_000 <= limit_s,
            "not done after {limit_s} simulated seconds"
        );
        NOW.set(next);
        QUEUE.with_borrow_mut(|q| q.next_expiration(next));
    }
}

/// Awaits `future` on real time, for sockets. Fails after `limit`.
pub fn real<F: Future>(limit: Duration, future: F) -> F::Output {
    let start = Instant::now();
    REAL.set(Some(start));
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut future = pin!(future);
    loop {
        flag.0.store(false, Ordering::Relaxed);
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        assert!(start.elapsed() < limit, "not done after {limit:?}");
        let now = start.elapsed().as_micros() as u64;
        QUEUE.with_borrow_mut(|q| q.next_expiration(now));
        if !flag.0.load(Ordering::Relaxed) {
            // Sockets don't wake: they are asked again.
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}
