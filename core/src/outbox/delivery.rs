//! Which request goes next, its body, and what its outcome means for the values in it.
//!
//! One request is under way at a time. Live values go first, then values that were kept; accounts take turns. A batch
//! that the backend refuses is searched for its bad values in halves, between live values.

use super::account::{AccountQueue, Mode, Suspects, Trouble};
use super::backoff::BackOff;
use super::cells::{Cells, Link, List, NONE, Place};
use super::{DeliveryMethod, DropReason, NEVER, Outbox, OutboxEvent, OutboxMem};
use crate::time::{Millis, UnixMillis};
use crate::values::{decimal_digits, eight_digits};

/// Bad values that are looked for in one batch before the rest is left for later.
const MAX_BAD: u8 = 10;
/// Tries of the same batch under 500, while other requests succeed, before it is searched.
const MAX_DOUBTS: u8 = 3;

/// Requests of live values (and of suspects) in a row, before one of values that were kept gets its turn: on a slow link
/// there may always be a live value that waits.
const BEFORE_BACKLOG: u8 = 8;

/// What a 413 teaches about later bodies does not go below this: it may have been about one odd value.
const LEARNED_MIN_BYTES: u32 = 4096;

/// The HTTP method of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Method {
    /// `PUT /accounts/A/values`: values with times, may be repeated.
    Put,
    /// `POST /accounts/A/values`: the backend sets the time, must not be repeated unless it surely was not processed.
    Post,
}

/// A request to be sent: `PUT` or `POST` to `/accounts/{account}/values`, with a JSON body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct BatchHead {
    /// Whose values.
    pub account: u64,
    /// PUT or POST.
    pub method: Method,
    /// Exact length of the body in bytes.
    pub body_len: u32,
    /// Values in it.
    pub values: u32,
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Outcome {
    /// The backend answered.
    Status {
        /// The status code.
        code: u16,
        /// The body of a 400 begins with `Input validation failed`.
        validation_failed: bool,
        /// The answer's `Retry-After`, ms.
        retry_after_ms: Option<u32>,
    },
    /// The request was surely not processed: no connection, or it broke before all was sent.
    NotSent,
    /// No answer came: the request may have been processed or not.
    Lost,
}

impl Outcome {
    /// An answer with this status and nothing else to say.
    #[must_use]
    pub const fn status(code: u16) -> Self {
        Outcome::Status { code, validation_failed: false, retry_after_ms: None }
    }
}

/// What a probe of suspects sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Probe {
    /// All of them (or as many as are known to fit).
    Whole,
    /// The prefix that should hold a bad value, to make sure.
    Prefix,
    /// The first half of a prefix that holds one for certain.
    Half,
}

/// The request that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) slot: u16,
    pub(super) origin: Place,
    pub(super) list: List,
    probe: Probe,
    method: Method,
    trial: bool,
    body_len: u32,
    /// The value at which the body was last read, and where its text begins in the body.
    at: Link,
    at_offset: usize,
}

/// When the lists of an account may send something.
struct Ready {
    live: Millis,
    suspects: Millis,
    backlog: Millis,
    /// When something must be dropped.
    expiry: Millis,
}

impl Outbox {
    /// When [`poll`](Outbox::poll) has something to do; `None` while a request is under way or nothing waits.
    /// Calling it earlier is harmless.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        if self.flight.is_some() || self.wake == NEVER { None } else { Some(self.wake) }
    }

    /// The next request, if one is due: send it, then call [`handle_outcome`](Outbox::handle_outcome). `None` while
    /// one is under way.
    pub fn poll(&mut self, mem: &mut OutboxMem<'_>, now: Millis) -> Option<BatchHead> {
        let now = self.step(now);
        if self.flight.is_some() || now < self.wake {
            return None;
        }
        if now < self.link.until {
            self.wake = self.link.until;
            return None;
        }
        // Of each kind the account whose turn comes first: how far on in its round, and its slot.
        let (mut live, mut suspects, mut backlog) = (None, None, None);
        let [live_round, suspects_round, backlog_round] = self.rounds;
        // Where nothing was kept, the first account with live values will do.
        let prefer_suspects = self.prefer_suspects && self.kept > 0;
        let turn = self.in_a_row >= BEFORE_BACKLOG && self.kept > 0;
        let mut wake = NEVER;
        for k in 0..self.accounts {
            let slot = ((u32::from(live_round) + u32::from(k)) % u32::from(self.accounts)) as u16;
            self.expire(mem, slot, now);
            let cells = Cells(mem.cells);
            let Some(q) = mem.accounts.get(usize::from(slot)).filter(|q| q.waits()) else { continue };
            let ready = self.ready(&cells, q, now);
            for (at, round, first) in [
                (ready.live, live_round, &mut live),
                (ready.suspects, suspects_round, &mut suspects),
                (ready.backlog, backlog_round, &mut backlog),
            ] {
                if at > now {
                    wake = wake.min(at);
                    continue;
                }
                let ahead = if slot >= round { slot - round } else { self.accounts - round + slot };
                if first.is_none_or(|(least, _)| ahead < least) {
                    *first = Some((ahead, slot));
                }
            }
            wake = wake.min(ready.expiry);
            if live.is_some() && !prefer_suspects && !turn {
                break;
            }
        }
        self.flushing &= !self.is_idle();
        self.tell_room(mem);
        let live = live.map(|(_, slot)| (slot, Place::Live));
        let suspects = suspects.map(|(_, slot)| (slot, Place::Suspect));
        let backlog = backlog.map(|(_, slot)| (slot, Place::Backlog));
        let chosen = if prefer_suspects { suspects.or(live) } else { live.or(suspects) };
        let chosen = if turn { backlog.or(chosen) } else { chosen.or(backlog) };
        let Some((slot, place)) = chosen else {
            self.wake = wake;
            return None;
        };
        self.in_a_row = if place == Place::Backlog { 0 } else { self.in_a_row.saturating_add(1) };
        let head = self.board(mem, slot, place, now);
        debug_assert!(head.is_some(), "what is ready can be sent");
        if head.is_none() {
            self.wake = now.saturating_add(1000);
        }
        head
    }

    /// Copies the body of the request under way from byte `offset` on; how many bytes. Less than `buf` only at
    /// the body's end. Cheap when read in order; any offset is allowed, for a repeat on another connection.
    pub fn body(&mut self, mem: &mut OutboxMem<'_>, offset: usize, buf: &mut [u8]) -> usize {
        let cells = Cells(mem.cells);
        let Some(flight) = self.flight.as_mut().filter(|f| offset < f.body_len as usize) else { return 0 };
        if flight.at_offset > offset || flight.at == NONE {
            flight.at = flight.list.head;
            flight.at_offset = 1;
        }
        let (mut out, mut time) = (Window { buf, len: 0, skip: 0 }, TimeText::NONE);
        if offset == 0 {
            out.put(b"[");
        }
        while flight.at != NONE {
            let len = element_len(&cells, flight.at, flight.method) as usize + 1;
            if flight.at_offset + len > offset {
                out.skip = offset.saturating_sub(flight.at_offset);
                let time = (flight.method == Method::Put).then_some(&mut time);
                put_element(&mut out, &cells, flight.at, time);
                out.put(if cells.next(flight.at) == NONE { b"]" } else { b"," });
                if out.is_full() {
                    break;
                }
            }
            flight.at_offset += len;
            flight.at = cells.next(flight.at);
        }
        out.len
    }

    /// The request that [`poll`](Outbox::poll) gave has come to its end. Without one under way nothing happens.
    pub fn handle_outcome(&mut self, mem: &mut OutboxMem<'_>, now: Millis, outcome: Outcome) {
        let now = self.step(now);
        let Some(flight) = self.flight.take() else { return };
        self.wake = Millis(0);
        let [live, suspects, backlog] = &mut self.rounds;
        let round = match flight.origin {
            Place::Suspect => suspects,
            Place::Backlog => backlog,
            Place::Live | Place::Flight => live,
        };
        *round = flight.slot + 1;
        self.prefer_suspects = flight.origin == Place::Live;
        if flight.origin == Place::Backlog {
            self.backlog_after = now.saturating_add(u64::from(self.settings.backlog_gap_ms));
        }
        match outcome {
            Outcome::Status { code, validation_failed, retry_after_ms } => {
                let wait_ms = retry_after_ms.unwrap_or(0).min(self.settings.retry_after_max_ms);
                self.link_up();
                self.handle_status(mem, flight, now, code, validation_failed, wait_ms);
            }
            Outcome::Lost if flight.method == Method::Post => {
                self.give_up(mem, &flight, DropReason::Unknown);
                self.link_failed(now);
            }
            Outcome::Lost | Outcome::NotSent => {
                self.keep(mem, &flight);
                self.link_failed(now);
            }
        }
        self.tell_room(mem);
        debug_assert!(self.ledger.balanced(), "{}", self.ledger);
    }

    fn handle_status(
        &mut self,
        mem: &mut OutboxMem<'_>,
        flight: Flight,
        now: Millis,
        code: u16,
        validation_failed: bool,
        wait_ms: u32,
    ) {
        let post = flight.method == Method::Post;
        match code {
            200..=299 => self.delivered(mem, &flight),
            413 => self.refused(mem, flight, now, code),
            400 if validation_failed => {
                if flight.trial {
                    // The answer came from behind the check of permissions: POST is permitted.
                    self.confirm_post(mem, flight.slot);
                }
                self.refused(mem, flight, now, code);
            }
            // Stored or not: a repeat could stamp the values a second time. 504 is a gateway that lost the answer.
            500 | 504 if post => {
                self.give_up(mem, &flight, DropReason::Unknown);
                self.back_off(mem, flight.slot, now, code, wait_ms);
            }
            500 => self.doubted(mem, flight, now, wait_ms),
            403 if !post => self.put_denied(mem, &flight, now, wait_ms),
            403 => {
                // Neither is permitted: values keep, and PUT is the one to try when the wait is over.
                self.keep(mem, &flight);
                self.set_mode(mem, flight.slot, Mode::Put);
                self.back_off(mem, flight.slot, now, code, wait_ms);
            }
            _ => {
                self.keep(mem, &flight);
                self.back_off(mem, flight.slot, now, code, wait_ms);
            }
        }
    }

    fn delivered(&mut self, mem: &mut OutboxMem<'_>, flight: &Flight) {
        self.release_flight(mem, flight);
        self.ledger.delivered += u64::from(flight.list.len);
        self.successes = self.successes.wrapping_add(1);
        let n = flight.list.len;
        let mut events = [None; 2];
        if let Some(q) = mem.accounts.get_mut(usize::from(flight.slot)) {
            q.wait = BackOff::NONE;
            if flight.method == Method::Put {
                q.put_wait = BackOff::NONE;
            }
            if flight.origin == Place::Suspect {
                let s = &mut q.suspects;
                s.tries = 0;
                s.wait = BackOff::NONE;
                if flight.probe != Probe::Whole {
                    // What passed was not bad. Under 400 the rest of the prefix must be; else it is tried first.
                    s.sure = flight.probe == Probe::Half && s.exact;
                    s.chunk = if s.chunk == 0 || s.exact { 0 } else { n };
                    s.bad = s.bad.saturating_sub(n);
                }
            }
            if q.trouble != Trouble::None {
                q.trouble = Trouble::None;
                events[0] = Some(OutboxEvent::Recovered { account: q.id });
            }
            if flight.method == Method::Put && q.post_told {
                q.post_told = false;
                events[1] = Some(OutboxEvent::BackToPut { account: q.id });
            }
        }
        for event in events.into_iter().flatten() {
            self.tell(event);
        }
        if flight.trial {
            self.confirm_post(mem, flight.slot);
        }
    }

    /// A batch that holds something which the backend doesn't take: one value is dropped, more are searched.
    fn refused(&mut self, mem: &mut OutboxMem<'_>, mut flight: Flight, now: Millis, code: u16) {
        let n = flight.list.len;
        let searched = flight.origin == Place::Suspect;
        if n <= 1 {
            self.tell_refused(mem, &flight, code);
            self.give_up(mem, &flight, DropReason::Refused);
            if let Some(s) = self.suspects_mut(mem, flight.slot).filter(|_| searched) {
                let found = s.found.saturating_add(1);
                s.start();
                s.found = found;
            }
            return;
        }
        if code == 413 && !searched {
            let half = flight.body_len / 2;
            self.body_limit =
                self.body_limit.min(if flight.trial { half } else { half.max(LEARNED_MIN_BYTES) });
            if flight.trial {
                // It may come from a front that knows no permissions: smaller bodies tell.
                let origin = flight.origin;
                self.put_back(mem, &mut flight, origin, true);
                return;
            }
        }
        let found = self.suspects_mut(mem, flight.slot).map_or(0, |s| s.found);
        if searched && flight.probe == Probe::Whole && found >= MAX_BAD {
            self.end_search(mem, &mut flight);
            self.back_off(mem, flight.slot, now, code, 0);
            return;
        }
        if !searched && !self.start_search(mem, flight.slot) {
            self.keep(mem, &flight);
            return;
        }
        let superseded = self.put_back(mem, &mut flight, Place::Suspect, true);
        if let Some(s) = self.suspects_mut(mem, flight.slot) {
            s.bad = n - superseded;
            s.sure = true;
            s.exact = code == 400;
            s.chunk = if code == 413 { n } else { 0 };
            s.tries = 0;
            s.wait = BackOff::NONE;
        }
    }

    /// 500 on a PUT: a bad value, or a passing fault. The batch stays together until it is known.
    fn doubted(&mut self, mem: &mut OutboxMem<'_>, mut flight: Flight, now: Millis, wait_ms: u32) {
        let successes = self.successes;
        if flight.origin == Place::Suspect {
            let Some(s) = self.suspects_mut(mem, flight.slot) else { return };
            if s.tries == 0 {
                s.successes = successes;
            }
            s.tries = s.tries.saturating_add(1);
            if s.tries >= MAX_DOUBTS && s.successes != successes {
                self.refused(mem, flight, now, 500);
                return;
            }
            self.keep(mem, &flight);
        } else if self.start_search(mem, flight.slot) {
            self.put_back(mem, &mut flight, Place::Suspect, true);
            if let Some(s) = self.suspects_mut(mem, flight.slot) {
                s.tries = 1;
                s.successes = successes;
            }
            self.back_off(mem, flight.slot, now, 500, wait_ms);
        } else {
            self.keep(mem, &flight);
            self.back_off(mem, flight.slot, now, 500, wait_ms);
            return;
        }
        let (min_ms, max_ms) = (self.settings.backoff_min_ms, self.settings.backoff_max_ms);
        if let Some(q) = mem.accounts.get_mut(usize::from(flight.slot)) {
            q.suspects.wait.fail(now, &mut self.rng, min_ms, max_ms, wait_ms);
        }
    }

    /// 403 on a PUT: fresh values try POST at once, the others wait for what comes of it.
    fn put_denied(&mut self, mem: &mut OutboxMem<'_>, flight: &Flight, now: Millis, wait_ms: u32) {
        let mut flight = *flight;
        if flight.origin == Place::Suspect {
            self.put_back(mem, &mut flight, Place::Suspect, true);
        } else {
            let origin = flight.origin;
            self.put_back(mem, &mut flight, origin, true);
        }
        self.end_search(mem, &mut flight);
        self.set_mode(mem, flight.slot, Mode::Trial);
        let (min_ms, max_ms) = (self.settings.backoff_min_ms, self.settings.backoff_max_ms);
        let cells = Cells(mem.cells);
        let Some(q) = mem.accounts.get_mut(usize::from(flight.slot)) else { return };
        // A POST of fresh values does not wait for this.
        q.put_wait.fail(now, &mut self.rng, min_ms, max_ms, wait_ms);
        if self.trial(&cells, q, now).is_none() && q.trouble != Trouble::Denied {
            q.trouble = Trouble::Denied;
            let account = q.id;
            self.tell(OutboxEvent::Denied { account, status: 403 });
        }
    }

    fn confirm_post(&mut self, mem: &mut OutboxMem<'_>, slot: u16) {
        self.set_mode(mem, slot, Mode::Post);
        let Some(q) = mem.accounts.get_mut(usize::from(slot)) else { return };
        if !q.post_told {
            q.post_told = true;
            let account = q.id;
            self.tell(OutboxEvent::SwitchedToPost { account });
        }
    }

    fn set_mode(&self, mem: &mut OutboxMem<'_>, slot: u16, mode: Mode) {
        if let Some(q) = mem.accounts.get_mut(usize::from(slot)) {
            q.mode = mode;
            q.mode_since = self.refreshes;
        }
    }

    fn suspects_mut<'m>(&self, mem: &'m mut OutboxMem<'_>, slot: u16) -> Option<&'m mut Suspects> {
        mem.accounts.get_mut(usize::from(slot)).map(|q| &mut q.suspects)
    }

    /// Makes the suspects' place free for another batch; `false` while one is searched already.
    fn start_search(&mut self, mem: &mut OutboxMem<'_>, slot: u16) -> bool {
        let Some(s) = self.suspects_mut(mem, slot).filter(|s| s.list.is_empty()) else { return false };
        s.start();
        true
    }

    /// The suspects, and the flight (if it holds any), go to the head of the backlog, in their order.
    fn end_search(&mut self, mem: &mut OutboxMem<'_>, flight: &mut Flight) {
        let slot = flight.slot;
        let account = mem.accounts.get(usize::from(slot)).map_or(0, |q| q.id);
        let refused = self.suspects_mut(mem, slot).map_or(0, |s| s.found);
        if refused >= MAX_BAD {
            self.tell(OutboxEvent::HalvingEnded { account, refused });
        }
        loop {
            let last = self.suspects_mut(mem, slot).map_or(NONE, |s| s.list.tail);
            if last == NONE {
                break;
            }
            self.unwait(mem, last);
            self.wait_in(mem, last, slot, Place::Backlog, true);
        }
        self.put_back(mem, flight, Place::Backlog, true);
        if let Some(s) = self.suspects_mut(mem, slot) {
            s.start();
        }
    }

    /// The values of a flight that failed wait again: live ones at the end of the backlog, others where they were.
    fn keep(&mut self, mem: &mut OutboxMem<'_>, flight: &Flight) {
        let mut flight = *flight;
        match flight.origin {
            Place::Live | Place::Flight => {
                self.put_back(mem, &mut flight, Place::Backlog, false);
            }
            Place::Backlog => {
                self.put_back(mem, &mut flight, Place::Backlog, true);
            }
            Place::Suspect => {
                let superseded = self.put_back(mem, &mut flight, Place::Suspect, true);
                if let Some(s) = self.suspects_mut(mem, flight.slot).filter(|_| flight.probe != Probe::Whole)
                {
                    s.bad = s.bad.saturating_sub(superseded);
                }
            }
        }
    }

    /// Puts the flight's values into a list, at its front or back, and empties the flight. One whose path and time
    /// were handed over again meanwhile is dropped; how many.
    fn put_back(&mut self, mem: &mut OutboxMem<'_>, flight: &mut Flight, place: Place, front: bool) -> u32 {
        let mut superseded = 0;
        let mut at = if front { flight.list.tail } else { flight.list.head };
        while at != NONE {
            let mut cells = Cells(mem.cells);
            let following = if front { cells.prev(at) } else { cells.next(at) };
            if !cells.timed(at)
                && let Some(unix) = self.unix(Millis(cells.time_ms(at)))
            {
                cells.fix_time(at, unix);
                self.stored.forget_storing(at);
                self.untimed -= 1;
            }
            if self.index(mem.index).find_same(&cells, at) == NONE {
                self.wait_in(mem, at, flight.slot, place, front);
            } else {
                self.release(mem, at, false);
                self.ledger.count_dropped(DropReason::Superseded, 1);
                superseded += 1;
            }
            at = following;
        }
        flight.list = List::EMPTY;
        superseded
    }

    fn give_up(&mut self, mem: &mut OutboxMem<'_>, flight: &Flight, reason: DropReason) {
        self.release_flight(mem, flight);
        self.ledger.count_dropped(reason, u64::from(flight.list.len));
        if flight.origin == Place::Suspect
            && flight.probe != Probe::Whole
            && let Some(s) = self.suspects_mut(mem, flight.slot)
        {
            s.bad = s.bad.saturating_sub(flight.list.len);
        }
    }

    fn release_flight(&mut self, mem: &mut OutboxMem<'_>, flight: &Flight) {
        let mut at = flight.list.head;
        while at != NONE {
            let next = Cells(mem.cells).next(at);
            self.release(mem, at, false);
            at = next;
        }
    }

    fn back_off(&mut self, mem: &mut OutboxMem<'_>, slot: u16, now: Millis, code: u16, wait_ms: u32) {
        let (min_ms, max_ms) = (self.settings.backoff_min_ms, self.settings.backoff_max_ms);
        let Some(q) = mem.accounts.get_mut(usize::from(slot)) else { return };
        q.wait.fail(now, &mut self.rng, min_ms, max_ms, wait_ms);
        let (account, until) = (q.id, q.wait.until);
        let (trouble, event) = match code {
            400 => (Trouble::SetupFault, OutboxEvent::SetupFault { account, status: code }),
            401 | 403 => (Trouble::Denied, OutboxEvent::Denied { account, status: code }),
            _ => (Trouble::BackingOff, OutboxEvent::BackingOff { account, status: code, until }),
        };
        if q.trouble != trouble {
            q.trouble = trouble;
            self.tell(event);
        }
    }

    fn link_failed(&mut self, now: Millis) {
        let (min_ms, max_ms) = (self.settings.backoff_min_ms, self.settings.backoff_max_ms);
        self.link.fail(now, &mut self.rng, min_ms, max_ms, 0);
        if !self.link_told {
            self.link_told = true;
            self.tell(OutboxEvent::LinkDown { until: self.link.until });
        }
    }

    /// The backend has answered something.
    pub(super) fn link_up(&mut self) {
        if self.link.failing() {
            self.link = BackOff::NONE;
            self.wake = Millis(0);
        }
        if self.link_told {
            self.link_told = false;
            self.tell(OutboxEvent::LinkUp);
        }
    }

    fn tell_refused(&mut self, mem: &mut OutboxMem<'_>, flight: &Flight, status: u16) {
        let cells = Cells(mem.cells);
        let link = flight.list.head;
        if link == NONE {
            return;
        }
        let mut out = Window { buf: &mut self.refused_path, len: 0, skip: 0 };
        for piece in cells.path(link) {
            out.put(piece);
        }
        self.refused_path_len = out.len;
        let time = cells.timed(link).then(|| UnixMillis(cells.time_ms(link)));
        let account = mem.accounts.get(usize::from(flight.slot)).map_or(0, |q| q.id);
        self.tell(OutboxEvent::ValueRefused { account, status, time });
    }

    /// Room is told when an eighth is free: not with every value.
    fn tell_room(&mut self, mem: &OutboxMem<'_>) {
        if self.full_dropped > 0 && self.pool.free_cells(mem.cells) >= super::Pool::capacity(mem.cells) / 8 {
            let dropped = core::mem::take(&mut self.full_dropped);
            self.tell(OutboxEvent::RoomAgain { dropped });
        }
    }

    pub(super) fn linger_ms(&self) -> u64 {
        if self.flushing { 0 } else { u64::from(self.settings.linger_ms.min(1000)) }
    }

    pub(super) fn posts(&self, q: &AccountQueue) -> bool {
        self.mode(q) == Mode::Post
    }

    fn mode(&self, q: &AccountQueue) -> Mode {
        match self.settings.delivery {
            DeliveryMethod::PostOnly => Mode::Post,
            DeliveryMethod::PutElsePost if q.mode_since == self.refreshes => q.mode,
            DeliveryMethod::PutElsePost => Mode::Put,
        }
    }

    /// Which list has a fresh value that can try POST. Only the last few with a time of their own are passed over.
    fn trial(&self, cells: &Cells<'_>, q: &AccountQueue, now: Millis) -> Option<Place> {
        if self.mode(q) != Mode::Trial {
            return None;
        }
        [Place::Live, Place::Backlog].into_iter().find(|&place| {
            let mut at = q.list(place).tail;
            for _ in 0..32 {
                if at == NONE || !cells.own_time(at) {
                    break;
                }
                at = cells.prev(at);
            }
            at != NONE && self.is_fresh(cells, at, now)
        })
    }

    /// Whether a POST may stamp this value.
    fn is_fresh(&self, cells: &Cells<'_>, link: Link, now: Millis) -> bool {
        !cells.own_time(link)
            && now.0.saturating_sub(cells.since_ms(link)) <= u64::from(self.settings.post_max_age_ms)
    }

    /// Whether the live values fill a request.
    pub(super) fn is_full_batch(&self, q: &AccountQueue) -> bool {
        let (max, extra) = if self.posts(q) {
            (u32::from(self.settings.post_max_values), FRAME_BYTES)
        } else {
            (u32::from(self.settings.max_values), FRAME_BYTES + TIME_BYTES)
        };
        q.live.len >= max || q.live_bytes.saturating_add(q.live.len.saturating_mul(extra)) >= self.body_limit
    }

    pub(super) fn suspects_in_flight(&self, slot: u16) -> u32 {
        let flight = self.flight.as_ref().filter(|f| f.slot == slot && f.origin == Place::Suspect);
        flight.map_or(0, |f| f.list.len)
    }

    /// Drops what is too old, and, where only POST is permitted, what it would stamp falsely.
    fn expire(&mut self, mem: &mut OutboxMem<'_>, slot: u16, now: Millis) {
        for place in [Place::Backlog, Place::Suspect, Place::Live] {
            while let Some(q) = mem.accounts.get(usize::from(slot)) {
                let head = q.list(place).head;
                if head == NONE {
                    break;
                }
                let cells = Cells(mem.cells);
                let reason = if now.0.saturating_sub(cells.since_ms(head)) > self.settings.max_age_ms {
                    DropReason::TooOld
                } else if self.posts(q) && !self.is_fresh(&cells, head, now) {
                    DropReason::NoTime
                } else {
                    break;
                };
                self.drop_waiting(mem, head, reason);
            }
        }
    }

    fn ready(&self, cells: &Cells<'_>, q: &AccountQueue, now: Millis) -> Ready {
        let mut ready = Ready { live: NEVER, suspects: NEVER, backlog: NEVER, expiry: NEVER };
        for list in [q.backlog, q.suspects.list, q.live] {
            if !list.is_empty() {
                let age = if self.posts(q) {
                    self.settings.max_age_ms.min(u64::from(self.settings.post_max_age_ms))
                } else {
                    self.settings.max_age_ms
                };
                let since = Millis(cells.since_ms(list.head));
                ready.expiry = ready.expiry.min(since.saturating_add(age).saturating_add(1));
            }
        }
        match self.trial(cells, q, now) {
            Some(Place::Live) => {
                ready.live = q.wait.until;
                return ready;
            }
            Some(_) => {
                ready.backlog = q.wait.until;
                return ready;
            }
            None => {}
        }
        let wait =
            if self.mode(q) == Mode::Trial { q.wait.until.max(q.put_wait.until) } else { q.wait.until };
        // A PUT needs times.
        let sendable = |list: List| !list.is_empty() && (self.posts(q) || cells.timed(list.head));
        if sendable(q.live) {
            let due = if self.is_full_batch(q) {
                Millis(0)
            } else {
                Millis(cells.since_ms(q.live.head)).saturating_add(self.linger_ms())
            };
            ready.live = due.max(wait);
        }
        if sendable(q.suspects.list) {
            ready.suspects = q.suspects.wait.until.max(wait);
        }
        if q.suspects.list.is_empty() && sendable(q.backlog) {
            let after = if self.flushing { Millis(0) } else { self.backlog_after };
            ready.backlog = after.max(wait);
        }
        ready
    }

    /// Takes the next values of a list into flight.
    fn board(&mut self, mem: &mut OutboxMem<'_>, slot: u16, place: Place, now: Millis) -> Option<BatchHead> {
        let q = mem.accounts.get(usize::from(slot))?;
        let account = q.id;
        let trial = self.trial(&Cells(mem.cells), q, now).is_some();
        let post = trial || self.posts(q);
        let method = if post { Method::Post } else { Method::Put };
        let probe = match (q.suspects.bad, q.suspects.sure) {
            (0, _) => Probe::Whole,
            (_, false) => Probe::Prefix,
            (_, true) => Probe::Half,
        };
        let mut max =
            u32::from(if post { self.settings.post_max_values } else { self.settings.max_values }).max(1);
        let mut max_bytes = self.body_limit;
        if place == Place::Suspect {
            // What a 413 taught is for new batches: this one is being cut anyway.
            max = max.min(q.suspects.probe_len());
            max_bytes = self.settings.max_body_bytes;
        }
        let mut at = q.list(place).head;
        let mut list = List::EMPTY;
        let mut body_len = 2;
        while at != NONE && list.len < max {
            let cells = Cells(mem.cells);
            let next = cells.next(at);
            if post && !self.is_fresh(&cells, at, now) {
                if !trial {
                    self.drop_waiting(mem, at, DropReason::NoTime);
                }
                at = next;
                continue;
            }
            if !post && !cells.timed(at) {
                break;
            }
            let len = element_len(&cells, at, method) + u32::from(!list.is_empty());
            if !list.is_empty() && (body_len + len > max_bytes || post && holds_path(&cells, &list, at)) {
                break;
            }
            body_len += len;
            self.unwait(mem, at);
            list.push_back(&mut Cells(mem.cells), at);
            at = next;
        }
        if list.is_empty() {
            return None;
        }
        let flight =
            Flight { slot, origin: place, list, probe, method, trial, body_len, at: NONE, at_offset: 0 };
        self.flight = Some(flight);
        Some(BatchHead { account, method, body_len, values: list.len })
    }
}

/// Whether the list has a value with the path of `link`: a POST takes each path once.
fn holds_path(cells: &Cells<'_>, list: &List, link: Link) -> bool {
    let mut at = list.head;
    while at != NONE {
        if cells.same_path(at, link) {
            return true;
        }
        at = cells.next(at);
    }
    false
}

const OPEN: &[u8] = br#"{"p":""#;
const NUMBER: &[u8] = br#"","v":"#;
const TIME: &[u8] = br#","t":"#;
const CLOSE: &[u8] = b"}";
/// Bytes around path and number, with the comma.
const FRAME_BYTES: u32 = (OPEN.len() + NUMBER.len() + CLOSE.len() + 1) as u32;
/// Times between 2001 and 2286: their ms have 13 digits.
const USUAL_MS: core::ops::Range<u64> = 1_000_000_000_000..10_000_000_000_000;
/// Bytes of such a time.
const TIME_BYTES: u32 = (TIME.len() + 14) as u32;

fn element_len(cells: &Cells<'_>, link: Link, method: Method) -> u32 {
    let mut len = OPEN.len() + cells.path_len(link) + NUMBER.len() + cells.number_len(link) + CLOSE.len();
    if method == Method::Put {
        let ms = cells.time_ms(link);
        len += TIME.len() + 4;
        len += if USUAL_MS.contains(&ms) { 10 } else { decimal_digits(ms / 1000, &mut [0; 20]).len() };
    }
    len as u32
}

/// The end of an element with a time; values that were handed over together have the same.
struct TimeText {
    ms: u64,
    text: [u8; 32],
    len: usize,
}

impl TimeText {
    const NONE: TimeText = TimeText { ms: NEVER.0, text: [0; 32], len: 0 };

    fn of(&mut self, ms: u64) -> &[u8] {
        if self.ms != ms {
            let mut out = Window { buf: &mut self.text, len: 0, skip: 0 };
            out.put(TIME);
            let (upper, lower) = ((ms / 100_000_000) as u32, (ms % 100_000_000) as u32);
            let [s6, s7, s8, s9, s10, m1, m2, m3] = eight_digits(lower);
            if USUAL_MS.contains(&ms) {
                let [.., s1, s2, s3, s4, s5] = eight_digits(upper);
                out.put(&[s1, s2, s3, s4, s5, s6, s7, s8, s9, s10]);
            } else {
                out.put(decimal_digits(ms / 1000, &mut [0; 20]));
            }
            out.put(&[b'.', m1, m2, m3]);
            out.put(CLOSE);
            (self.ms, self.len) = (ms, out.len);
        }
        self.text.get(..self.len).unwrap_or_default()
    }
}

fn put_element(out: &mut Window<'_>, cells: &Cells<'_>, link: Link, time: Option<&mut TimeText>) {
    out.put(OPEN);
    for piece in cells.path(link) {
        out.put(piece);
    }
    out.put(NUMBER);
    for piece in cells.number(link) {
        out.put(piece);
    }
    match time {
        Some(time) => out.put(time.of(cells.time_ms(link))),
        None => out.put(CLOSE),
    }
}

/// A window on the body: skips so many bytes, then fills the buffer.
struct Window<'b> {
    buf: &'b mut [u8],
    len: usize,
    skip: usize,
}

impl Window<'_> {
    fn put(&mut self, bytes: &[u8]) {
        if self.skip == 0
            && let Some(to) = self.buf.get_mut(self.len..).and_then(|b| b.get_mut(..bytes.len()))
        {
            to.copy_from_slice(bytes);
            self.len += bytes.len();
        } else {
            self.put_part(bytes);
        }
    }

    /// Where the window begins or ends.
    #[cold]
    fn put_part(&mut self, bytes: &[u8]) {
        let Some(bytes) = bytes.get(self.skip..) else {
            self.skip -= bytes.len();
            return;
        };
        self.skip = 0;
        if let Some(room) = self.buf.get_mut(self.len..) {
            let n = room.len().min(bytes.len());
            if let (Some(to), Some(from)) = (room.get_mut(..n), bytes.get(..n)) {
                to.copy_from_slice(from);
                self.len += n;
            }
        }
    }

    fn is_full(&self) -> bool {
        self.len == self.buf.len()
    }
}
