//! A collector's memory on the heap: it begins small and grows at refresh, up to limits that the user can set.

use grafolean_core::bot::Bot;
use grafolean_core::config::{AccountKey, AccountRecord, ConfigMem, Made};
use grafolean_core::jobs::{JobSlot, JobsMem, Progress, Running};
use grafolean_core::journal::{Event, FaultSlot, Kind};
use grafolean_core::model::{DetailRecord, EntityRecord, ItemKey, Link, LinkList, LinksFull};
use grafolean_core::outbox::{AccountQueue, Cell, OutboxMem};
use grafolean_core::schedule::{Class, Entry, Extra};
use grafolean_core::state::{StateSlot, States};
use grafolean_core::storage::{Parts, Storage};
use grafolean_core::table::{NONE, Slot, TableMem};

/// The most sensors of one entity.
pub const MAX_LINKS: usize = 4096;

/// How far a collector's memory may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Jobs, and entities.
    pub jobs: usize,
    /// Accounts.
    pub accounts: usize,
    /// Credentials.
    pub credentials: usize,
    /// Sensors.
    pub sensors: usize,
    /// Distinct intervals of all jobs together.
    pub distinct_intervals: usize,
    /// Runs at once.
    pub runs: usize,
    /// Bytes of values that wait.
    pub outbox_bytes: usize,
    /// Bytes of one entity, credential or sensor.
    pub element_bytes: usize,
    /// Keyed states of all jobs together: 56 bytes each, when they are there.
    pub states: usize,
    /// Remembered faults.
    pub faults: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            jobs: 1_000_000,
            accounts: 60_000,
            credentials: 100_000,
            sensors: 1_000_000,
            distinct_intervals: 100_000,
            runs: 1_000,
            outbox_bytes: 16 << 20,
            element_bytes: 256 << 10,
            states: 1_000_000,
            faults: 1_024,
        }
    }
}

/// The sensors of one entity, on the heap.
#[derive(Clone, Debug, Default)]
pub struct Links(Vec<Link>);

impl LinkList for Links {
    fn new() -> Self {
        Links::default()
    }
    fn insert(&mut self, at: usize, link: Link) -> Result<(), LinksFull> {
        if self.0.len() >= MAX_LINKS || at > self.0.len() {
            return Err(LinksFull { capacity: MAX_LINKS });
        }
        self.0.insert(at, link);
        Ok(())
    }
    fn pop(&mut self) -> Option<Link> {
        self.0.pop()
    }
    fn as_slice(&self) -> &[Link] {
        &self.0
    }
    fn as_mut_slice(&mut self) -> &mut [Link] {
        &mut self.0
    }
}

/// A keyed table's memory.
struct Room<K, V> {
    slots: Vec<Slot<K, V>>,
    heads: Vec<u32>,
    capacity: usize,
    limit: usize,
}

/// Room for staging beside `capacity` entries.
const fn spare(capacity: usize) -> usize {
    capacity / 8 + 1
}

impl<K, V> Room<K, V> {
    fn new(capacity: usize, limit: usize) -> Self {
        let mut room = Room { slots: Vec::new(), heads: Vec::new(), capacity: 0, limit: limit.max(1) };
        room.resize(capacity.min(room.limit));
        room
    }

    fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.slots.resize_with(capacity + spare(capacity), || Slot::EMPTY);
        self.heads.resize(capacity, NONE);
    }

    fn grow(&mut self) -> bool {
        let capacity = grown(self.capacity, self.limit);
        let more = capacity > self.capacity;
        if more {
            self.resize(capacity);
        }
        more
    }

    fn mem(&mut self) -> TableMem<'_, K, V> {
        TableMem { slots: &mut self.slots, heads: &mut self.heads, spare: spare(self.capacity) }
    }
}

/// Cells that an outbox begins with.
const INITIAL_CELLS: usize = 4096;

/// Keyed states that there is room for at the beginning.
const INITIAL_STATES: usize = 64;

const fn cells_of(bytes: usize) -> usize {
    let cells = bytes / Cell::BYTES;
    if cells < 64 { 64 } else { cells }
}

fn grown(now: usize, limit: usize) -> usize {
    now.saturating_mul(2).max(1).min(limit)
}

/// All memory of a collector on the heap.
pub struct Heap<B: Bot> {
    limits: Limits,
    accounts: Room<AccountKey, AccountRecord>,
    entities: Room<ItemKey, EntityRecord<B::Name, B::Entity, Links>>,
    credentials: Room<ItemKey, DetailRecord<B::Credential>>,
    sensors: Room<ItemKey, DetailRecord<B::Sensor>>,
    jobs: Vec<JobSlot<Made<B::Job>>>,
    job_heads: Vec<u32>,
    job_capacity: usize,
    progress: Vec<Progress>,
    ready: Vec<u32>,
    extras: Vec<Extra>,
    entries: Vec<Entry>,
    classes: Vec<Class>,
    running: Vec<Running>,
    element: Vec<u8>,
    scratch: Vec<u8>,
    cells: Vec<Cell>,
    index: Vec<u32>,
    queues: Vec<AccountQueue>,
    stored: bool,
    records: Vec<u64>,
    left: Vec<u64>,
    faults: Vec<FaultSlot>,
    events: Vec<Option<Event>>,
    states: Vec<StateSlot>,
    listing: Vec<u8>,
}

impl<B: Bot> Heap<B> {
    /// Memory that begins small and grows up to `limits`; what bounds runs has its size from the beginning.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let cells = cells_of(limits.outbox_bytes).min(INITIAL_CELLS);
        let mut heap = Heap {
            limits,
            accounts: Room::new(8, limits.accounts),
            entities: Room::new(64, limits.jobs),
            credentials: Room::new(16, limits.credentials),
            sensors: Room::new(64, limits.sensors),
            jobs: Vec::new(),
            job_heads: Vec::new(),
            job_capacity: 0,
            progress: Vec::new(),
            ready: Vec::new(),
            extras: Vec::new(),
            entries: Vec::new(),
            classes: vec![Class::EMPTY; limits.distinct_intervals.clamp(1, 64)],
            running: vec![Running::EMPTY; limits.runs.max(1)],
            element: vec![0; limits.element_bytes.max(1024)],
            scratch: vec![0; (limits.element_bytes / 4).max(1024)],
            cells: vec![Cell::EMPTY; cells],
            index: vec![0; cells / 2 + 1],
            queues: vec![AccountQueue::EMPTY; 8],
            stored: false,
            records: Vec::new(),
            left: Vec::new(),
            faults: vec![FaultSlot::EMPTY; limits.faults],
            events: vec![None; 64],
            states: vec![StateSlot::EMPTY; limits.states.min(INITIAL_STATES)],
            listing: vec![0; limits.element_bytes.max(1024)],
        };
        heap.resize_jobs(64.min(limits.jobs.max(1)));
        heap
    }

    /// With room for records of a store: 16 bytes more per cell of the outbox.
    #[must_use]
    pub fn stored(mut self) -> Self {
        self.stored = true;
        self.resize_records();
        self
    }

    fn resize_records(&mut self) {
        if self.stored {
            self.records.resize(self.cells.len(), 0);
            self.left.resize(self.cells.len() + 1, 0);
        }
    }

    fn resize_jobs(&mut self, capacity: usize) {
        let slots = capacity + spare(capacity);
        self.job_capacity = capacity;
        self.jobs.resize_with(slots, || Slot::EMPTY);
        self.job_heads.resize(capacity, NONE);
        self.progress.resize(slots, Progress::EMPTY);
        self.ready.resize(slots, 0);
        self.extras.resize(slots, Extra::EMPTY);
        let entries = self.entries.len().max(capacity * 4);
        self.entries.resize(entries, Entry::EMPTY);
    }
}

impl<B: Bot> Storage<B> for Heap<B> {
    type Links = Links;
    type Entry = Entry;

    fn parts(&mut self) -> Parts<'_, B, Links> {
        Parts {
            config: ConfigMem {
                accounts: self.accounts.mem(),
                entities: self.entities.mem(),
                credentials: self.credentials.mem(),
                sensors: self.sensors.mem(),
                jobs: JobsMem {
                    slots: &mut self.jobs,
                    heads: &mut self.job_heads,
                    spare: spare(self.job_capacity),
                    progress: &mut self.progress,
                    ready: &mut self.ready,
                    extras: &mut self.extras,
                    entries: &mut self.entries,
                    classes: &mut self.classes,
                    running: &mut self.running,
                },
                element: &mut self.element,
                scratch: &mut self.scratch,
            },
            outbox: OutboxMem {
                cells: &mut self.cells,
                index: &mut self.index,
                accounts: &mut self.queues,
                records: &mut self.records,
                left: &mut self.left,
            },
            faults: &mut self.faults,
            events: &mut self.events,
            states: &mut self.states,
            listing: &mut self.listing,
        }
    }

    fn grow(&mut self, kind: Kind) -> bool {
        match kind {
            Kind::Account => self.accounts.grow(),
            Kind::Entity => self.entities.grow(),
            Kind::Credential => self.credentials.grow(),
            Kind::Sensor => self.sensors.grow(),
            Kind::Job => {
                let capacity = grown(self.job_capacity, self.limits.jobs);
                let more = capacity > self.job_capacity;
                if more {
                    self.resize_jobs(capacity);
                }
                more
            }
            Kind::IntervalEntry => {
                grow_vec(&mut self.entries, Entry::EMPTY, self.limits.jobs.saturating_mul(8))
            }
            Kind::DistinctInterval => {
                grow_vec(&mut self.classes, Class::EMPTY, self.limits.distinct_intervals)
            }
        }
    }

    fn grow_queues(&mut self) -> bool {
        let limit = self.limits.accounts.min(usize::from(u16::MAX));
        grow_vec(&mut self.queues, AccountQueue::EMPTY, limit)
    }

    fn grow_outbox(&mut self) -> bool {
        let limit = cells_of(self.limits.outbox_bytes);
        let more = grow_vec(&mut self.cells, Cell::EMPTY, limit);
        self.index.resize(self.cells.len() / 2 + 1, 0);
        self.resize_records();
        more
    }

    fn grow_states(&mut self) -> bool {
        let len = grown(self.states.len(), self.limits.states);
        let more = len > self.states.len();
        if more {
            let few = core::mem::replace(&mut self.states, vec![StateSlot::EMPTY; len]);
            States::new(&mut self.states).take_over(&few);
        }
        more
    }

    fn grow_events(&mut self) -> bool {
        grow_vec(&mut self.events, None, self.limits.faults.saturating_mul(2).max(256))
    }
}

fn grow_vec<T: Clone>(vec: &mut Vec<T>, empty: T, limit: usize) -> bool {
    let len = grown(vec.len(), limit);
    let more = len > vec.len();
    if more {
        vec.resize(len, empty);
    }
    more
}

#[cfg(test)]
mod tests {
    use super::*;
    use grafolean_core::bot::{Anything, Context};
    use grafolean_core::jobs::{Due, JobKey};

    struct Nothing;

    impl Bot for Nothing {
        type Name = ();
        type Entity = Anything;
        type Credential = Anything;
        type Sensor = Anything;
        type Job = ();
        type Error = &'static str;
        fn protocol(&self) -> Option<&str> {
            None
        }
        async fn perform<C: Context<Bot = Self>>(
            &self,
            (): &(),
            _: &Due,
            _: &mut C,
        ) -> Result<(), &'static str> {
            Ok(())
        }
    }

    #[test]
    fn room_for_states_grows_up_to_its_limit_and_keeps_them() {
        let mut heap = Heap::<Nothing>::new(Limits { states: 200, ..Limits::default() });
        let key = JobKey::new(1, 2);
        for n in 0..200u8 {
            let name = n.to_string();
            if States::new(&mut heap.states).set(&key, &name, &[n]).is_err() {
                assert!(heap.grow_states(), "{n}");
                States::new(&mut heap.states).set(&key, &name, &[n]).unwrap();
            }
        }
        assert!(!heap.grow_states());
        for n in 0..200u8 {
            let mut kept = [0; 4];
            assert_eq!(States::new(&mut heap.states).get(&key, &n.to_string(), &mut kept), Some(1));
            assert_eq!(kept[0], n);
        }
    }
}
