//! A collector's memory on the heap, for tests: it grows as far as it is told.

use core::fmt;

use grafolean_core::bot::Bot;
use grafolean_core::config::{AccountKey, AccountRecord, ConfigMem, Made};
use grafolean_core::jobs::{JobSlot, JobsMem, Progress, Running};
use grafolean_core::journal::{Event, FaultSlot, Kind};
use grafolean_core::model::{DetailRecord, EntityRecord, ItemKey, Link, LinkList, LinksFull};
use grafolean_core::outbox::{AccountQueue, Cell, OutboxMem};
use grafolean_core::schedule::{Class, Entry, Extra};
use grafolean_core::state::StateSlot;
use grafolean_core::storage::{Parts, Storage};
use grafolean_core::table::{NONE, Slot, TableMem};

/// The sensors of one entity, on the heap.
#[derive(Clone, Default, Debug)]
pub struct Links(Vec<Link>);

impl LinkList for Links {
    fn new() -> Self {
        Links(Vec::new())
    }
    fn insert(&mut self, at: usize, link: Link) -> Result<(), LinksFull> {
        if at > self.0.len() {
            return Err(LinksFull { capacity: usize::MAX });
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

struct Room<K, V>(Vec<Slot<K, V>>, Vec<u32>);

impl<K, V> Room<K, V> {
    fn new() -> Self {
        Room(vec![Slot::EMPTY, Slot::EMPTY], vec![NONE])
    }
    fn mem(&mut self) -> TableMem<'_, K, V> {
        TableMem { slots: &mut self.0, heads: &mut self.1, spare: 1 }
    }
    fn capacity(&self) -> usize {
        self.0.len() - 1
    }
    fn grow(&mut self, limit: usize) -> bool {
        let more = (self.capacity() * 2).min(limit);
        let grows = more > self.capacity();
        if grows {
            self.0.resize_with(more + 1, || Slot::EMPTY);
            self.1.resize(more, NONE);
        }
        grows
    }
}

/// Memory that begins with room for one of each kind and one spare, and doubles up to a limit: so growing is part of every
/// test. [`Memory::host`] has the bounds of a host, [`Memory::new`] narrower ones, for tests of the collector itself.
///
/// Memory of a fixed size, as on a board, is made by [`grafolean_core::inline_storage!`].
pub struct Memory<B: Bot> {
    /// Room for so many of each kind at most.
    pub limit: usize,
    /// How often something has grown.
    pub grown: usize,
    /// Cells of 48 bytes of the outbox at most.
    pub cell_limit: usize,
    accounts: Room<AccountKey, AccountRecord>,
    entities: Room<ItemKey, EntityRecord<B::Name, B::Entity, Links>>,
    credentials: Room<ItemKey, DetailRecord<B::Credential>>,
    sensors: Room<ItemKey, DetailRecord<B::Sensor>>,
    jobs: Vec<JobSlot<Made<B::Job>>>,
    job_heads: Vec<u32>,
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

impl<B: Bot> Memory<B> {
    /// Elements of 2 KiB, entities listed or written of 512 bytes, 64 runs at once, 65 states, an outbox of 4096 cells.
    #[must_use]
    pub fn new() -> Self {
        Memory {
            limit: 1 << 20,
            grown: 0,
            cell_limit: 4096,
            accounts: Room::new(),
            entities: Room::new(),
            credentials: Room::new(),
            sensors: Room::new(),
            jobs: vec![Slot::EMPTY, Slot::EMPTY],
            job_heads: vec![NONE],
            progress: vec![Progress::EMPTY; 2],
            ready: vec![0; 2],
            extras: vec![Extra::EMPTY; 2],
            entries: vec![Entry::EMPTY; 1],
            classes: vec![Class::EMPTY; 1],
            running: vec![Running::EMPTY; 64],
            element: vec![0; 2048],
            scratch: vec![0; 256],
            cells: vec![Cell::EMPTY; 4096],
            index: vec![0; 4096],
            queues: vec![AccountQueue::EMPTY; 1],
            stored: false,
            records: Vec::new(),
            left: Vec::new(),
            faults: vec![FaultSlot::EMPTY; 1024],
            events: vec![None; 2],
            states: vec![StateSlot::EMPTY; 65],
            listing: vec![0; 512],
        }
    }

    /// The same with this limit.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Memory { limit, ..Self::new() }
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

    /// The bounds that a host has by default: elements, and entities listed or written, of 256 KiB, 1000 runs at once, 4096
    /// states, an outbox of 16 MiB.
    #[must_use]
    pub fn host() -> Self {
        Memory {
            cell_limit: (16 << 20) / Cell::BYTES,
            running: vec![Running::EMPTY; 1000],
            element: vec![0; 256 << 10],
            scratch: vec![0; 64 << 10],
            states: vec![StateSlot::EMPTY; 4096],
            listing: vec![0; 256 << 10],
            ..Self::new()
        }
    }
}

impl<B: Bot> Default for Memory<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: Bot> fmt::Debug for Memory<B> {
    /// Without what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("limit", &self.limit)
            .field("grown", &self.grown)
            .finish_non_exhaustive()
    }
}

fn double<T: Clone>(vec: &mut Vec<T>, empty: T, limit: usize) -> bool {
    let more = (vec.len() * 2).min(limit);
    let grows = more > vec.len();
    if grows {
        vec.resize(more, empty);
    }
    grows
}

impl<B: Bot> Storage<B> for Memory<B> {
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
                    spare: 1,
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
        let limit = self.limit;
        let grows = match kind {
            Kind::Account => self.accounts.grow(limit),
            Kind::Entity => self.entities.grow(limit),
            Kind::Credential => self.credentials.grow(limit),
            Kind::Sensor => self.sensors.grow(limit),
            Kind::Job => {
                let capacity = self.jobs.len() - 1;
                let more = (capacity * 2).min(limit);
                let grows = more > capacity;
                if grows {
                    self.jobs.resize_with(more + 1, || Slot::EMPTY);
                    self.job_heads.resize(more, NONE);
                    self.progress.resize(more + 1, Progress::EMPTY);
                    self.ready.resize(more + 1, 0);
                    self.extras.resize(more + 1, Extra::EMPTY);
                }
                grows
            }
            Kind::IntervalEntry => double(&mut self.entries, Entry::EMPTY, limit),
            Kind::DistinctInterval => double(&mut self.classes, Class::EMPTY, limit),
        };
        self.grown += usize::from(grows);
        grows
    }

    fn grow_queues(&mut self) -> bool {
        double(&mut self.queues, AccountQueue::EMPTY, self.limit)
    }

    fn grow_outbox(&mut self) -> bool {
        let grows = double(&mut self.cells, Cell::EMPTY, self.cell_limit);
        self.index.resize(self.cells.len(), 0);
        self.resize_records();
        grows
    }

    fn grow_events(&mut self) -> bool {
        double(&mut self.events, None, 4096)
    }
}
