//! Keeps the code of a future apart from the code of who awaits it.
//!
//! A compiler that optimises for size puts a function that is called once into its caller: so all state machines of the driver
//! would become one function. On small processors, whose instructions reach few registers and little of the call stack at a time, such
//! a function is larger than its parts.

use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Context, Poll};

/// Awaits `future`, which is pinned in the future that awaits it.
pub(crate) fn apart<F: Future>(mut future: Pin<&mut F>) -> impl Future<Output = F::Output> {
    poll_fn(move |cx| poll(future.as_mut(), cx))
}

#[inline(never)]
fn poll<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    future.poll(cx)
}
