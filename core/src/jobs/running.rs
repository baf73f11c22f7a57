//! The running set: runs under way and their deadlines, a heap in lent memory.

use super::{JobKey, RunId};
use crate::table::NONE;
use crate::time::Millis;

/// Room for one run under way.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    run: Option<Run>,
    /// The place that stands here in the heap of deadlines.
    heap: u32,
    /// Where this place stands in the heap, or [`NONE`]; of a free place, the next free one.
    position: u32,
}

/// A run under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) key: JobKey,
    /// The slot that must not run meanwhile; another than the run began with if its job was removed and came again.
    pub(super) slot: u32,
    pub(super) generation: u32,
    deadline: Millis,
    /// 1 if it is cancelled. Not a `bool`, which would make the `None` of an `Option` other than zero.
    cancelled: u8,
}

impl Run {
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled != 0
    }
}

impl Running {
    /// No run, all bytes zero.
    pub const EMPTY: Self = Running { run: None, heap: 0, position: 0 };
}

/// What a running set remembers besides its memory.
#[derive(Clone, Debug)]
pub(super) struct RunningState {
    /// Places from here on have never been used.
    fresh: u32,
    free: u32,
    len: u32,
    heap_len: u32,
    last_run: u32,
}

impl RunningState {
    pub(super) const fn new() -> Self {
        RunningState { fresh: 0, free: NONE, len: 0, heap_len: 0, last_run: 0 }
    }
}

#[derive(Debug)]
pub(super) struct RunningSet<'a> {
    state: &'a mut RunningState,
    places: &'a mut [Running],
}

impl<'a> RunningSet<'a> {
    pub(super) fn new(state: &'a mut RunningState, places: &'a mut [Running]) -> Self {
        RunningSet { state, places }
    }

    pub(super) fn len(&self) -> usize {
        self.state.len as usize
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.places.len()
    }

    /// Begins a run; `None` if the set is full. O(log of the runs under way), like [`Self::end`] and [`Self::expire`].
    pub(super) fn begin(
        &mut self,
        key: JobKey,
        slot: u32,
        generation: u32,
        deadline: Millis,
    ) -> Option<RunId> {
        let place = if self.state.free == NONE { self.state.fresh } else { self.state.free };
        let p = self.places.get_mut(place as usize)?;
        if self.state.free == NONE {
            self.state.fresh += 1;
        } else {
            self.state.free = p.position;
        }
        self.state.last_run = self.state.last_run.wrapping_add(1);
        let id = RunId { slot, generation, run: self.state.last_run, place };
        p.run = Some(Run { id, key, slot, generation, deadline, cancelled: 0 });
        let end = self.state.heap_len;
        self.state.len += 1;
        self.state.heap_len += 1;
        self.put(end, place);
        self.up(end);
        Some(id)
    }

    pub(super) fn get(&self, id: RunId) -> Option<&Run> {
        self.places.get(id.place as usize)?.run.as_ref().filter(|r| r.id == id)
    }

    pub(super) fn end(&mut self, id: RunId) -> Option<Run> {
        let run = *self.get(id)?;
        self.out_of_heap(id.place);
        let p = self.places.get_mut(id.place as usize)?;
        p.run = None;
        p.position = self.state.free;
        self.state.free = id.place;
        self.state.len -= 1;
        Some(run)
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        if self.state.heap_len == 0 { None } else { Some(self.rank(0).0) }
    }

    /// The next run whose deadline has passed; told once.
    pub(super) fn expire(&mut self, now: Millis) -> Option<RunId> {
        if self.next_deadline()? > now {
            return None;
        }
        let place = self.at(0);
        self.out_of_heap(place);
        let run = self.places.get_mut(place as usize)?.run.as_mut()?;
        run.cancelled = 1;
        Some(run.id)
    }

    /// All runs under way, by place.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Run> {
        self.places.iter_mut().take(self.state.fresh as usize).filter_map(|p| p.run.as_mut())
    }

    fn at(&self, position: u32) -> u32 {
        self.places.get(position as usize).map_or(NONE, |p| p.heap)
    }

    fn put(&mut self, position: u32, place: u32) {
        if let Some(p) = self.places.get_mut(position as usize) {
            p.heap = place;
        }
        if let Some(p) = self.places.get_mut(place as usize) {
            p.position = position;
        }
    }

    fn rank(&self, position: u32) -> (Millis, u32) {
        let place = self.at(position);
        let run = self.places.get(place as usize).and_then(|p| p.run.as_ref());
        (run.map_or(Millis(u64::MAX), |r| r.deadline), place)
    }

    fn up(&mut self, mut position: u32) {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.rank(parent) <= self.rank(position) {
                return;
            }
            self.swap(parent, position);
            position = parent;
        }
    }

    fn down(&mut self, mut position: u32) {
        loop {
            let mut child = 2 * position + 1;
            if child >= self.state.heap_len {
                return;
            }
            if child + 1 < self.state.heap_len && self.rank(child + 1) < self.rank(child) {
                child += 1;
            }
            if self.rank(position) <= self.rank(child) {
                return;
            }
            self.swap(position, child);
            position = child;
        }
    }

    fn swap(&mut self, a: u32, b: u32) {
        let (x, y) = (self.at(a), self.at(b));
        self.put(a, y);
        self.put(b, x);
    }

    fn out_of_heap(&mut self, place: u32) {
        let Some(position) = self.places.get(place as usize).map(|p| p.position) else { return };
        if position == NONE {
            return;
        }
        self.state.heap_len -= 1;
        let last = self.at(self.state.heap_len);
        if last != place {
            self.put(position, last);
            self.up(position);
            self.down(position);
        }
        if let Some(p) = self.places.get_mut(place as usize) {
            p.position = NONE;
        }
    }
}
