//! The one thing that everything waits for: that something has changed.
//!
//! All that waits here lives in one task and checks its own condition when it is polled, so one list of wakers
//! serves them all. It is for one thread: no critical section, no atomics.

use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Context, Poll};

use embassy_sync::waitqueue::MultiWakerRegistration;

/// Tasks that wait at once without waking each other needlessly. The driver is one; a bot whose futures bring wakers
/// of their own (a `FuturesUnordered`) may add some. With more of them, a wait wakes the others, and nothing is lost.
const WAKERS: usize = 4;

pub(crate) struct Changes {
    count: Cell<u32>,
    wakers: RefCell<MultiWakerRegistration<WAKERS>>,
}

impl Changes {
    pub(crate) const fn new() -> Self {
        Changes { count: Cell::new(0), wakers: RefCell::new(MultiWakerRegistration::new()) }
    }

    /// How often something has changed.
    pub(crate) fn count(&self) -> u32 {
        self.count.get()
    }

    /// Something has changed.
    #[inline(never)]
    pub(crate) fn tell(&self) {
        self.count.set(self.count.get().wrapping_add(1));
        // Taken out first, so that no borrow lives while a waker runs.
        self.wakers.replace(MultiWakerRegistration::new()).wake();
    }

    /// Waits until `check` gives something. It is asked at once and after each change.
    pub(crate) fn wait_for<R>(&self, mut check: impl FnMut() -> Option<R>) -> impl Future<Output = R> {
        poll_fn(move |cx| match check() {
            Some(found) => Poll::Ready(found),
            None => {
                self.register(cx);
                Poll::Pending
            }
        })
    }

    #[inline(never)]
    fn register(&self, cx: &Context<'_>) {
        self.wakers.borrow_mut().register(cx.waker());
    }

    /// Waits until something has changed since the count was `seen`.
    pub(crate) fn wait_since(&self, seen: u32) -> impl Future<Output = ()> {
        self.wait_for(move || (self.count() != seen).then_some(()))
    }
}
