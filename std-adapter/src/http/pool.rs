//! The small pool of kept-alive connections and the rules by which one may be used again.

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hyper::header::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use super::config::{Endpoint, HttpConfig};
use super::connect::Conn;
use super::tls::Tls;
use crate::clock::BootClock;

/// A connection whose last answer has ended becomes ready at once; if not, it is not worth waiting for.
const READY_LIMIT: Duration = Duration::from_secs(1);

/// What all copies of a client share.
pub(super) struct Inner {
    pub(super) endpoint: Endpoint,
    pub(super) peer: Arc<str>,
    pub(super) authority: HeaderValue,
    pub(super) config: HttpConfig,
    pub(super) tls: Option<Tls>,
    /// One permit for each request under way.
    pub(super) active: Arc<Semaphore>,
    /// One permit for each open socket; as many as `active`, so that a request that has evicted an idle
    /// connection only waits for sockets that are being closed.
    pub(super) open: Arc<Semaphore>,
    pub(super) last_good: Mutex<Option<SocketAddr>>,
    pub(super) clock: BootClock,
    pub(super) pool: Mutex<Pool>,
}

#[derive(Default)]
pub(super) struct Pool {
    /// The last used one is at the end.
    idle: Vec<Idle>,
    reaper_runs: bool,
}

struct Idle {
    conn: Conn,
    last_use: Instant,
    /// The same in milliseconds of a clock that counts suspension: after it, all connections are old.
    last_use_ms: u64,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn age(&self, idle: &Idle) -> Duration {
        let suspended = Duration::from_millis(self.clock.now().saturating_sub(idle.last_use_ms));
        idle.last_use.elapsed().max(suspended)
    }

    pub(super) fn count_idle(&self) -> usize {
        self.lock().idle.iter().filter(|idle| !idle.conn.sender.is_closed()).count()
    }

    /// The connection used last, if it is younger than `youngest` and still open.
    pub(super) async fn take_idle(&self, youngest: Duration) -> Option<Conn> {
        loop {
            let mut conn = {
                let mut pool = self.lock();
                pool.idle.retain(|idle| !idle.conn.sender.is_closed());
                if self.age(pool.idle.last()?) >= youngest {
                    return None;
                }
                pool.idle.pop()?.conn
            };
            if let Ok(Ok(())) = timeout(READY_LIMIT, conn.sender.ready()).await {
                return Some(conn);
            }
        }
    }

    /// Closes the idle connection unused for longest if all sockets are taken, to make room for a new one.
    pub(super) fn make_room(&self) {
        let mut pool = self.lock();
        if self.open.available_permits() == 0 && !pool.idle.is_empty() {
            pool.idle.remove(0);
        }
    }

    fn give_back(self: &Arc<Self>, conn: Conn) {
        let reaper_runs = {
            let mut pool = self.lock();
            pool.idle.push(Idle { conn, last_use: Instant::now(), last_use_ms: self.clock.now() });
            core::mem::replace(&mut pool.reaper_runs, true)
        };
        if !reaper_runs {
            // Not under the lock: a runtime that is ending drops the task at once, which takes the lock.
            tokio::spawn(reap(ReaperRuns(Arc::downgrade(self)), Instant::now() + self.config.idle_limit));
        }
    }

    /// Closes what is idle for too long; when to look again, or nothing if no connection is idle.
    fn close_old(&self) -> Option<Instant> {
        let limit = self.config.idle_limit;
        let mut pool = self.lock();
        pool.idle.retain(|idle| !idle.conn.sender.is_closed() && self.age(idle) < limit);
        let next = pool.idle.iter().map(|idle| idle.last_use + limit).min();
        pool.reaper_runs = next.is_some();
        next
    }
}

/// Says that the reaper has ended, also if that was because its runtime ended.
struct ReaperRuns(Weak<Inner>);

impl Drop for ReaperRuns {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            inner.lock().reaper_runs = false;
        }
    }
}

async fn reap(mut running: ReaperRuns, mut next: Instant) {
    loop {
        sleep_until(next).await;
        let Some(inner) = running.0.upgrade() else { return };
        match inner.close_old() {
            Some(at) => next = at,
            None => {
                // `close_old` has already said so, under its lock; a new reaper may run by now.
                running.0 = Weak::new();
                return;
            }
        }
    }
}

/// A connection in use by one request. Dropping it closes the connection.
pub(super) struct Lease {
    pub(super) conn: Conn,
    pub(super) inner: Arc<Inner>,
    pub(super) permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Puts the connection back for another request.
    pub(super) fn release(self) {
        let Self { conn, inner, permit } = self;
        if !conn.sender.is_closed() {
            inner.give_back(conn);
        }
        drop(permit);
    }
}
