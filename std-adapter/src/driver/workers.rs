//! Where runs are performed: in the loop's own task, or on threads with a runtime each.

use core::future::Future;
use core::time::Duration;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::{AbortHandle, AbortRegistration, Abortable};
use futures_util::stream::{FuturesUnordered, StreamExt};
use grafolean_core::bot::Bot;
use grafolean_core::collector::Collector;
use grafolean_core::context::RunContext;
use grafolean_core::jobs::{Due, RunId};
use tokio::sync::mpsc;

use super::storage::Heap;
use super::{RunEnd, Shared};

/// How long the threads may take to end; one that computes or waits for the system all that time is left behind.
const THREADS_END: Duration = Duration::from_secs(1);

/// Runs whose ends are noted before the loop looks at other things.
const ENDS_AT_ONCE: usize = 32;

/// Performs runs where they are sent to.
pub(super) trait Workers {
    fn begin(&mut self, due: Due);
    fn cancel(&mut self, run: RunId);
    fn cancel_all(&mut self);
    /// Resolves when something has ended here; may never.
    async fn next(&mut self);
}

/// Lets the runtime look at sockets, timers and signals every few milliseconds, however much else is ready: a task that
/// never waits would keep it from them.
pub(super) struct Breather {
    last: Instant,
}

impl Breather {
    const EVERY: Duration = Duration::from_millis(5);

    pub(super) fn new() -> Self {
        Breather { last: Instant::now() }
    }

    pub(super) async fn breathe(&mut self) {
        if self.last.elapsed() >= Self::EVERY {
            tokio::task::yield_now().await;
            self.last = Instant::now();
        }
    }
}

/// Performs one run to its end.
async fn perform<B: Bot>(shared: &Shared<B>, due: Due, abort: AbortRegistration) -> RunId {
    let began = Instant::now();
    let mut cx = RunContext::new(shared, &due);
    let run = async {
        let Some(job) = shared.with(|c| c.job(due.run)) else { return RunEnd::Gone };
        shared.observer.run_began(&due);
        match Abortable::new(shared.bot.perform(&job, &due, &mut cx), abort).await {
            Ok(Ok(())) => RunEnd::Done,
            Ok(Err(error)) => RunEnd::Failed(error.to_string()),
            Err(_aborted) => RunEnd::Cancelled,
        }
    };
    // Also where it panics when it is dropped.
    let end = AssertUnwindSafe(run).catch_unwind().await.unwrap_or(RunEnd::Panicked);
    shared.run_ended(&due, &end, began.elapsed(), cx.values());
    due.run
}

/// Something for each run under way, found by its place in the running set. A place is free for the next run when its run has ended,
/// which is noticed here later: the next one's takes the place of it.
struct ByPlace<T>(Vec<Option<(RunId, T)>>);

impl<T> ByPlace<T> {
    const EMPTY: Self = ByPlace(Vec::new());

    fn insert(&mut self, run: RunId, of_it: T) {
        let place = run.place as usize;
        if self.0.len() <= place {
            self.0.resize_with(place + 1, || None);
        }
        if let Some(entry) = self.0.get_mut(place) {
            *entry = Some((run, of_it));
        }
    }

    fn get(&self, run: RunId) -> Option<&T> {
        let (of, of_it) = self.0.get(run.place as usize)?.as_ref()?;
        (*of == run).then_some(of_it)
    }

    fn remove(&mut self, run: RunId) {
        if self.get(run).is_some()
            && let Some(entry) = self.0.get_mut(run.place as usize)
        {
            *entry = None;
        }
    }

    fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten().map(|(_, of_it)| of_it)
    }
}

/// Runs as futures of the task that polls this.
struct OneTask<'a, B: Bot, F, M: Fn(&'a Shared<B>, Due, AbortRegistration) -> F> {
    shared: &'a Shared<B>,
    runs: FuturesUnordered<F>,
    aborts: ByPlace<AbortHandle>,
    /// [`perform`], whose future has no name.
    make: M,
}

/// Performs runs in the calling task.
pub(super) fn one_task<B: Bot>(shared: &Shared<B>) -> impl Workers {
    OneTask { shared, runs: FuturesUnordered::new(), aborts: ByPlace::EMPTY, make: perform }
}

impl<'a, B, F, M> OneTask<'a, B, F, M>
where
    B: Bot,
    F: Future<Output = RunId>,
    M: Fn(&'a Shared<B>, Due, AbortRegistration) -> F,
{
    /// The next run that ends; never if there is none.
    async fn ended(&mut self) -> RunId {
        let Some(run) = self.runs.next().await else { return core::future::pending().await };
        self.aborts.remove(run);
        run
    }
}

impl<'a, B, F, M> Workers for OneTask<'a, B, F, M>
where
    B: Bot,
    F: Future<Output = RunId>,
    M: Fn(&'a Shared<B>, Due, AbortRegistration) -> F,
{
    fn begin(&mut self, due: Due) {
        let (abort, registration) = AbortHandle::new_pair();
        self.aborts.insert(due.run, abort);
        self.runs.push((self.make)(self.shared, due, registration));
    }

    fn cancel(&mut self, run: RunId) {
        // One that has just ended is no longer there.
        if let Some(abort) = self.aborts.get(run) {
            abort.abort();
        }
    }

    fn cancel_all(&mut self) {
        self.aborts.all().for_each(AbortHandle::abort);
    }

    async fn next(&mut self) {
        self.ended().await;
        for _ in 1..ENDS_AT_ONCE {
            // Not to be woken by this is harmless: it is asked again before anything is waited for.
            let Some(Some(run)) = self.runs.next().now_or_never() else { return };
            self.aborts.remove(run);
        }
    }
}

enum Order {
    Begin(Due),
    Cancel(RunId),
    CancelAll,
}

/// Runs on N threads, each with a runtime of its own.
pub(super) struct Threads {
    orders: Vec<(mpsc::UnboundedSender<Order>, Arc<AtomicUsize>)>,
    /// On which thread.
    placed: ByPlace<usize>,
    ended: mpsc::UnboundedReceiver<RunId>,
    handles: Vec<std::thread::JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start<B>(shared: &Arc<Shared<B>>, threads: usize) -> io::Result<Self>
    where
        B: Bot + Send + Sync + 'static,
        Collector<B, Heap<B>>: Send,
    {
        let (tell, ended) = mpsc::unbounded_channel();
        let mut this = Threads { orders: Vec::new(), placed: ByPlace::EMPTY, ended, handles: Vec::new() };
        for n in 0..threads.max(1) {
            let (sender, orders) = mpsc::unbounded_channel();
            let busy = Arc::new(AtomicUsize::new(0));
            this.orders.push((sender, busy.clone()));
            let (shared, tell) = (shared.clone(), tell.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let body = move || {
                runtime.block_on(worker(&shared, orders, &tell, &busy));
                // Not to wait for a resolver that blocks a thread of the runtime.
                runtime.shutdown_background();
            };
            this.handles.push(std::thread::Builder::new().name(format!("runs-{n}")).spawn(body)?);
        }
        Ok(this)
    }

    /// Ends the threads; one whose run never waits for anything can't be ended and is left behind.
    pub(super) async fn stop(mut self) {
        self.orders.clear();
        let ended = async { while self.ended.recv().await.is_some() {} };
        let in_time = tokio::time::timeout(THREADS_END, ended).await.is_ok();
        for handle in self.handles {
            if !in_time && !handle.is_finished() {
                tracing::warn!("a thread that performs runs is still busy and is left behind");
            } else if handle.join().is_err() {
                tracing::error!("a thread that performs runs has panicked");
            }
        }
    }
}

async fn worker<B: Bot>(
    shared: &Shared<B>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    tell: &mpsc::UnboundedSender<RunId>,
    busy: &AtomicUsize,
) {
    let mut here = OneTask { shared, runs: FuturesUnordered::new(), aborts: ByPlace::EMPTY, make: perform };
    let mut breather = Breather::new();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Begin(due)) => here.begin(due),
                Some(Order::Cancel(run)) => here.cancel(run),
                Some(Order::CancelAll) => here.cancel_all(),
                None => return,
            },
            run = here.ended() => {
                busy.fetch_sub(1, Ordering::Relaxed);
                let _ = tell.send(run);
            }
        }
        breather.breathe().await;
    }
}

impl Workers for Threads {
    fn begin(&mut self, due: Due) {
        let loads = self.orders.iter().map(|(_, busy)| busy.load(Ordering::Relaxed)).enumerate();
        let Some((n, _)) = loads.min_by_key(|(_, load)| *load) else { return };
        if let Some((orders, busy)) = self.orders.get(n) {
            busy.fetch_add(1, Ordering::Relaxed);
            self.placed.insert(due.run, n);
            if orders.send(Order::Begin(due)).is_err() {
                tracing::error!("{}: not performed, the thread has ended", due.key);
            }
        }
    }

    fn cancel(&mut self, run: RunId) {
        if let Some((orders, _)) = self.placed.get(run).and_then(|n| self.orders.get(*n)) {
            let _ = orders.send(Order::Cancel(run));
        }
    }

    fn cancel_all(&mut self) {
        for (orders, _) in &self.orders {
            let _ = orders.send(Order::CancelAll);
        }
    }

    async fn next(&mut self) {
        let Some(run) = self.ended.recv().await else { return core::future::pending().await };
        self.placed.remove(run);
        while let Ok(run) = self.ended.try_recv() {
            self.placed.remove(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_run_that_is_noticed_late_takes_nothing_from_the_next_one_in_its_place() {
        let run = |run, place| RunId { slot: 1, generation: 1, run, place };
        let mut names = ByPlace::EMPTY;
        names.insert(run(1, 2), "first");
        names.insert(run(2, 0), "other");
        assert_eq!((names.get(run(1, 2)), names.get(run(9, 7))), (Some(&"first"), None));
        names.insert(run(3, 2), "next");
        names.remove(run(1, 2));
        names.remove(run(9, 7));
        assert_eq!((names.get(run(1, 2)), names.get(run(3, 2))), (None, Some(&"next")));
        names.remove(run(2, 0));
        assert_eq!(names.all().collect::<Vec<_>>(), [&"next"]);
    }
}
