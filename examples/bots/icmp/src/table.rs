//! Which pings wait for their turn or for their reply, and how fast they may leave; pure, on the caller's clock.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::Target;
use crate::packet::Family;

/// How a ping ended: answered after a time, not answered, or not sent.
pub(crate) type Outcome = io::Result<Option<Duration>>;
/// A ping's end, told to its caller after the table's lock is released: waking may run foreign code.
pub(crate) type Finished = (oneshot::Sender<Outcome>, Outcome);

/// Counts since the sockets were opened, and how many pings are under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests handed to the kernel.
    pub sent: u64,
    /// Pings that got their reply in time.
    pub answered: u64,
    /// Pings whose time ran out.
    pub timed_out: u64,
    /// Pings whose future was dropped before the end.
    pub cancelled: u64,
    /// Own replies to pings no longer waiting: after the time-out, after a cancellation, or a second time.
    pub late: u64,
    /// Own replies from another address than the one asked; not counted as answers.
    pub other_source: u64,
    /// Echo replies to another process's requests (raw sockets see them), damaged or forged ones.
    pub foreign: u64,
    /// Pings the kernel refused to send.
    pub send_errors: u64,
    /// Attempts to send which the kernel put off for want of buffers, to be made again.
    pub put_off: u64,
    /// Pings waiting for their turn to be sent.
    pub queued: usize,
    /// Pings sent and waiting for their reply.
    pub in_flight: usize,
}

struct Waiter {
    target: Target,
    timeout: Duration,
    sent: Option<Instant>,
    deadline: Option<Instant>,
    /// Why the last attempt to send was put off.
    put_off: Option<io::Error>,
    caller: oneshot::Sender<Outcome>,
}

/// All pings of one [`Icmp`](crate::Icmp). Numbers are never used twice, so a number alone names a ping.
#[derive(Default)]
pub(crate) struct Table {
    next_id: u64,
    waiting: HashMap<u64, Waiter>,
    /// Per family, in the order of asking; may hold numbers of ended pings, skipped by [`Table::head`].
    queues: [VecDeque<u64>; 2],
    deadlines: BTreeSet<(Instant, u64)>,
    in_flight: usize,
    counts: Stats,
    /// Set when the handle or the thread is gone.
    pub(crate) closed: bool,
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats { in_flight: self.in_flight, queued: self.waiting.len() - self.in_flight, ..self.counts }
    }

    /// Puts a ping at the end of its family's queue; says its number, and whether that queue was empty.
    pub(crate) fn enqueue(
        &mut self,
        target: Target,
        timeout: Duration,
        caller: oneshot::Sender<Outcome>,
    ) -> (u64, bool) {
        let id = self.next_id;
        self.next_id += 1;
        let queue = &mut self.queues[target.family().index()];
        let was_empty = queue.is_empty();
        queue.push_back(id);
        let waiter = Waiter { target, timeout, sent: None, deadline: None, put_off: None, caller };
        self.waiting.insert(id, waiter);
        (id, was_empty)
    }

    /// The next ping to send of a family.
    pub(crate) fn head(&mut self, family: Family) -> Option<(u64, Target)> {
        let queue = &mut self.queues[family.index()];
        while let Some(id) = queue.front() {
            match self.waiting.get(id) {
                Some(waiter) => return Some((*id, waiter.target)),
                None => queue.pop_front(),
            };
        }
        None
    }

    /// The head `id` has been sent at `at`.
    pub(crate) fn sent(&mut self, id: u64, target: Target, at: Instant) {
        self.counts.sent += 1;
        self.pop(id, target);
        let Some(waiter) = self.waiting.get_mut(&id) else { return };
        if let Some(deadline) = waiter.deadline.take() {
            self.deadlines.remove(&(deadline, id));
        }
        let deadline = at + waiter.timeout;
        waiter.sent = Some(at);
        waiter.deadline = Some(deadline);
        self.deadlines.insert((deadline, id));
        self.in_flight += 1;
    }

    /// The head `id` could not be sent at `at` for want of buffers: it stays, for its time-out at most.
    pub(crate) fn put_off(&mut self, id: u64, at: Instant, why: io::Error) {
        self.counts.put_off += 1;
        let Some(waiter) = self.waiting.get_mut(&id) else { return };
        waiter.put_off = Some(why);
        if waiter.deadline.is_none() {
            let deadline = at + waiter.timeout;
            waiter.deadline = Some(deadline);
            self.deadlines.insert((deadline, id));
        }
    }

    /// The head `id` cannot be sent.
    pub(crate) fn refused(&mut self, id: u64, target: Target, why: io::Error) -> Option<Finished> {
        self.counts.send_errors += 1;
        self.pop(id, target);
        self.remove(id).map(|waiter| (waiter.caller, Err(why)))
    }

    /// A reply to `id` came from `source` at `at`.
    pub(crate) fn answer(&mut self, id: u64, source: Target, at: Instant) -> Option<Finished> {
        let Some(Waiter { target, timeout, sent: Some(sent), .. }) = self.waiting.get(&id) else {
            self.counts.late += 1;
            return None;
        };
        if !target.is_answered_by(source) {
            self.counts.other_source += 1;
            return None;
        }
        let rtt = at.saturating_duration_since(*sent);
        let in_time = rtt <= *timeout;
        let waiter = self.remove(id)?;
        if in_time {
            self.counts.answered += 1;
            Some((waiter.caller, Ok(Some(rtt))))
        } else {
            self.counts.late += 1;
            self.counts.timed_out += 1;
            Some((waiter.caller, Ok(None)))
        }
    }

    /// Replies that were none of ours.
    pub(crate) fn foreign(&mut self, count: u64) {
        self.counts.foreign += count;
    }

    /// The future of ping `id` was dropped.
    pub(crate) fn cancel(&mut self, id: u64) {
        if self.remove(id).is_some() {
            self.counts.cancelled += 1;
        }
    }

    /// Ends all pings whose time is up at `now`.
    pub(crate) fn expire(&mut self, now: Instant, finished: &mut Vec<Finished>) {
        while let Some((deadline, id)) = self.deadlines.first().copied() {
            if deadline > now {
                return;
            }
            self.deadlines.remove(&(deadline, id));
            let Some(waiter) = self.remove(id) else { continue };
            let outcome = match (waiter.sent, waiter.put_off) {
                (None, Some(why)) => {
                    self.counts.send_errors += 1;
                    Err(why)
                }
                _ => {
                    self.counts.timed_out += 1;
                    Ok(None)
                }
            };
            finished.push((waiter.caller, outcome));
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Forgets all pings, whose callers see that the other side is gone.
    pub(crate) fn close(&mut self) -> Vec<oneshot::Sender<Outcome>> {
        self.closed = true;
        self.deadlines.clear();
        self.in_flight = 0;
        self.waiting.drain().map(|(_, waiter)| waiter.caller).collect()
    }

    fn pop(&mut self, id: u64, target: Target) {
        let queue = &mut self.queues[target.family().index()];
        // A cancellation between `head` and now may have let another `head` call drop it already.
        if queue.front() == Some(&id) {
            queue.pop_front();
        }
    }

    fn remove(&mut self, id: u64) -> Option<Waiter> {
        let waiter = self.waiting.remove(&id)?;
        if let Some(deadline) = waiter.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        if waiter.sent.is_some() {
            self.in_flight -= 1;
        }
        Some(waiter)
    }
}

/// Spaces sends: `burst` at once, else one per `interval` (generic cell rate algorithm, ITU-T I.371).
pub(crate) struct Pacer {
    interval: Duration,
    tolerance: Duration,
    next: Option<Instant>,
}

impl Pacer {
    pub(crate) fn new(packets_per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / packets_per_second.max(1);
        Self { interval, tolerance: interval * burst.saturating_sub(1), next: None }
    }

    /// How long the next packet must wait at `now`.
    pub(crate) fn delay(&self, now: Instant) -> Duration {
        self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now + self.tolerance))
    }

    /// A packet left at `now`.
    pub(crate) fn take(&mut self, now: Instant) {
        self.next = Some(self.next.map_or(now, |next| next.max(now)) + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const SECOND: Duration = Duration::from_secs(1);

    fn target(last: u8) -> Target {
        Target::from(Ipv4Addr::new(192, 0, 2, last))
    }

    struct Rig {
        table: Table,
        start: Instant,
    }

    impl Rig {
        fn new() -> Self {
            Self { table: Table::default(), start: Instant::now() }
        }

        fn ping(&mut self, to: Target) -> (u64, oneshot::Receiver<Outcome>) {
            let (caller, outcome) = oneshot::channel();
            (self.table.enqueue(to, SECOND, caller).0, outcome)
        }

        fn send_all(&mut self, at: Duration) {
            while let Some((id, to)) = self.table.head(Family::V4) {
                self.table.sent(id, to, self.start + at);
            }
        }

        fn answer(&mut self, id: u64, from: Target, at: Duration) {
            if let Some((caller, outcome)) = self.table.answer(id, from, self.start + at) {
                let _ = caller.send(outcome);
            }
        }

        fn expire(&mut self, at: Duration) {
            let mut finished = Vec::new();
            self.table.expire(self.start + at, &mut finished);
            for (caller, outcome) in finished {
                let _ = caller.send(outcome);
            }
        }
    }

    #[test]
    fn a_hundred_thousand_in_flight_answered_backwards_each_get_their_own_time() {
        let mut rig = Rig::new();
        let mut pings: Vec<_> = (0..100_000).map(|_| rig.ping(target(1))).collect();
        rig.send_all(Duration::ZERO);
        assert_eq!(rig.table.stats().in_flight, 100_000);
        for (id, _) in pings.iter().rev() {
            rig.answer(*id, target(1), Duration::from_micros(*id));
        }
        for (id, outcome) in &mut pings {
            assert_eq!(outcome.try_recv().unwrap().unwrap(), Some(Duration::from_micros(*id)));
        }
        let stats = rig.table.stats();
        assert_eq!((stats.answered, stats.in_flight, rig.table.next_deadline()), (100_000, 0, None));
    }

    #[test]
    fn the_time_out_runs_from_the_send_and_not_from_the_asking() {
        let mut rig = Rig::new();
        let (_, mut outcome) = rig.ping(target(1));
        rig.expire(60 * SECOND);
        assert!(outcome.try_recv().is_err(), "still queued");
        rig.send_all(60 * SECOND);
        rig.expire(60 * SECOND + SECOND - Duration::from_nanos(1));
        assert!(outcome.try_recv().is_err(), "its second is not over");
        rig.expire(61 * SECOND);
        assert_eq!(outcome.try_recv().unwrap().unwrap(), None);
        assert_eq!(rig.table.stats().timed_out, 1);
    }

    #[test]
    fn replies_after_the_time_out_and_second_replies_are_only_counted() {
        let mut rig = Rig::new();
        let (late, mut late_outcome) = rig.ping(target(1));
        let (twice, mut twice_outcome) = rig.ping(target(1));
        rig.send_all(Duration::ZERO);
        rig.answer(twice, target(1), SECOND / 2);
        rig.answer(twice, target(1), SECOND / 2);
        // Read before the time-out was noticed, but received after it.
        rig.answer(late, target(1), SECOND + Duration::from_nanos(1));
        assert_eq!(twice_outcome.try_recv().unwrap().unwrap(), Some(SECOND / 2));
        assert_eq!(late_outcome.try_recv().unwrap().unwrap(), None);
        let stats = rig.table.stats();
        assert_eq!((stats.answered, stats.timed_out, stats.late), (1, 1, 2));
    }

    #[test]
    fn a_reply_from_another_address_leaves_the_ping_waiting() {
        let mut rig = Rig::new();
        let (id, mut outcome) = rig.ping(target(1));
        rig.send_all(Duration::ZERO);
        rig.answer(id, target(2), SECOND / 4);
        assert_eq!(rig.table.stats().other_source, 1);
        rig.answer(id, target(1), SECOND / 2);
        assert_eq!(outcome.try_recv().unwrap().unwrap(), Some(SECOND / 2));
    }

    #[test]
    fn cancelled_pings_leave_nothing_behind_and_are_not_sent() {
        let mut rig = Rig::new();
        let (flying, _outcome) = rig.ping(target(1));
        rig.send_all(Duration::ZERO);
        let (queued, _outcome) = rig.ping(target(2));
        let (next, _outcome) = rig.ping(target(3));
        rig.table.cancel(flying);
        rig.table.cancel(queued);
        assert_eq!(rig.table.head(Family::V4).unwrap().0, next);
        let stats = rig.table.stats();
        assert_eq!((stats.in_flight, stats.queued, stats.cancelled), (0, 1, 2));
        assert_eq!(rig.table.next_deadline(), None);
    }

    #[test]
    fn a_ping_put_off_too_long_ends_with_the_kernels_reason() {
        let mut rig = Rig::new();
        let (id, mut outcome) = rig.ping(target(1));
        let no_buffers = || io::Error::from_raw_os_error(nix::errno::Errno::ENOBUFS as i32);
        rig.table.put_off(id, rig.start, no_buffers());
        rig.table.put_off(id, rig.start + SECOND / 2, no_buffers());
        rig.expire(SECOND);
        let error = outcome.try_recv().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), no_buffers().raw_os_error());
        assert_eq!(rig.table.head(Family::V4), None);
    }

    #[test]
    fn a_ping_put_off_and_then_sent_has_its_whole_time_out_left() {
        let mut rig = Rig::new();
        let (id, mut outcome) = rig.ping(target(1));
        rig.table.put_off(id, rig.start, io::ErrorKind::WouldBlock.into());
        rig.send_all(SECOND / 2);
        rig.expire(SECOND);
        assert!(outcome.try_recv().is_err());
        rig.answer(id, target(1), SECOND);
        assert_eq!(outcome.try_recv().unwrap().unwrap(), Some(SECOND / 2));
        assert_eq!(rig.table.next_deadline(), None);
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_the_burst_and_its_share(
            rate in 1u32..100_000, burst in 1u32..50, gaps in proptest::collection::vec(0u64..3_000_000, 1..200)
        ) {
            let mut pacer = Pacer::new(rate, burst);
            let mut now = Instant::now();
            let mut left = Vec::new();
            for gap in gaps {
                now += Duration::from_nanos(gap);
                now += pacer.delay(now);
                prop_assert_eq!(pacer.delay(now), Duration::ZERO, "the delay it names is enough");
                pacer.take(now);
                left.push(now);
            }
            let interval = Duration::from_secs(1) / rate;
            for (first, from) in left.iter().enumerate() {
                for (last, to) in left.iter().enumerate().skip(first) {
                    let packets = (last - first + 1) as u128;
                    let share = (*to - *from).as_nanos() / interval.as_nanos();
                    prop_assert!(packets <= u128::from(burst) + share);
                }
            }
        }
    }
}
