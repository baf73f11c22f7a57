//! The memory of a collector: who owns it decides how much there is.
//!
//! [`inline_storage!`](crate::inline_storage) makes a type with all of it inline, for a `static` on a board; on hosts an
//! adapter has it on the heap and lets it grow.

use crate::bot::Bot;
use crate::config::ConfigMem;
use crate::journal::{Event, FaultSlot, Kind};
use crate::model::LinkList;
use crate::outbox::OutboxMem;
use crate::schedule::{Entry, EntryFormat};
use crate::state::StateSlot;

/// The memory of a collector, lent for the time of a call.
pub struct Parts<'a, B: Bot, L, E: EntryFormat = Entry> {
    /// Accounts, entities, credentials, sensors, jobs, and room to read one element.
    pub config: ConfigMem<'a, B, L, E>,
    /// Values that wait.
    pub outbox: OutboxMem<'a>,
    /// Remembered faults: 8 on a board, 1024 on a host.
    pub faults: &'a mut [FaultSlot],
    /// Events that wait for the driver.
    pub events: &'a mut [Option<Event>],
    /// Keyed state of jobs, one in each.
    pub states: &'a mut [StateSlot],
    /// One entity of a bot's own list, or the body of its own request.
    pub listing: &'a mut [u8],
}

/// Owns a collector's memory.
pub trait Storage<B: Bot> {
    /// The sensors of one entity.
    type Links: LinkList;
    /// The intervals of jobs: [`Entry`], or [`SmallEntry`](crate::schedule::SmallEntry) where there are never more than
    /// 16,384 slots for jobs.
    type Entry: EntryFormat;

    /// Lends all of it.
    fn parts(&mut self) -> Parts<'_, B, Self::Links, Self::Entry>;

    /// Makes room for more of `kind`, keeping what is there at its index; `false` if it can't.
    fn grow(&mut self, kind: Kind) -> bool {
        let _ = kind;
        false
    }

    /// Makes room for more accounts with queued values; `false` if it can't.
    fn grow_queues(&mut self) -> bool {
        false
    }

    /// Makes room for more values that wait, keeping what is there; `false` if it can't.
    fn grow_outbox(&mut self) -> bool {
        false
    }

    /// Makes room for more keyed states, keeping what is there (by [`crate::state::States::take_over`]); `false` if it can't.
    fn grow_states(&mut self) -> bool {
        false
    }

    /// Makes room for more events; `false` if it can't.
    fn grow_events(&mut self) -> bool {
        false
    }
}

/// Makes a type that holds all memory of a collector inline, for one bot type.
///
/// | parameter | room for |
/// | --- | --- |
/// | `accounts` | accounts that are polled, and whose values wait |
/// | `entities`, `credentials`, `sensors` | those that concern the bot, of all accounts together; 0 for a custom bot |
/// | `links` | sensors of one entity |
/// | `jobs` | jobs |
/// | `spare` | staging during a refresh, in each table; at least 1, or it does not compile |
/// | `intervals` | intervals of all jobs together |
/// | `distinct_intervals` | different ones among them |
/// | `runs` | runs at once |
/// | `cells` | the outbox, in cells of 48 bytes: a value takes two if its path has up to 50 bytes |
/// | `element` | the longest element of the backend's lists, in bytes |
/// | `scratch` | the longest string with escapes, in bytes |
/// | `listing` | a bot's own requests, in bytes: the longest entity listed or written; 0 if it makes none |
/// | `states` | keyed states of all jobs; 0 if the bot keeps none |
/// | `faults` | faults that are remembered, so that each is told once |
/// | `events` | events that wait to be logged; further ones are counted |
/// | `stored` | may be left out; 1: values can have records in a store (16 bytes more per cell) |
///
/// What a configuration takes is the type's size: `size_of::<Memory>()`. With `jobs` and `spare` up to 16,384 together an interval
/// takes 6 bytes, with more it takes 8.
///
/// ```
/// # mod example { use grafolean_core::bot::*; use grafolean_core::jobs::Due;
/// # pub struct MyBot; impl Bot for MyBot { type Name = (); type Entity = Anything; type Credential = Anything;
/// # type Sensor = Anything; type Job = (); type Error = &'static str; fn protocol(&self) -> Option<&str> { None }
/// # async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, _: &mut C) -> Result<(), &'static str> { Ok(()) } }
/// # }
/// # use example::MyBot;
/// grafolean_core::inline_storage! {
///     /// Sixteen jobs.
///     pub struct Memory for MyBot {
///         accounts: 2, entities: 16, links: 4, credentials: 4, sensors: 8, jobs: 16, spare: 1,
///         intervals: 32, distinct_intervals: 8, runs: 2, cells: 64, element: 1024, scratch: 128,
///         listing: 0, states: 0, faults: 8, events: 8,
///     }
/// }
/// static MEMORY: std::sync::Mutex<Memory> = std::sync::Mutex::new(Memory::new());
/// ```
///
/// ```compile_fail,E0080
/// # mod example { use grafolean_core::bot::*; use grafolean_core::jobs::Due;
/// # pub struct MyBot; impl Bot for MyBot { type Name = (); type Entity = Anything; type Credential = Anything;
/// # type Sensor = Anything; type Job = (); type Error = &'static str; fn protocol(&self) -> Option<&str> { None }
/// # async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, _: &mut C) -> Result<(), &'static str> { Ok(()) } }
/// # }
/// # use example::MyBot;
/// grafolean_core::inline_storage! {
///     /// No room for staging.
///     pub struct Memory for MyBot {
///         accounts: 2, entities: 16, links: 4, credentials: 4, sensors: 8, jobs: 16, spare: 0,
///         intervals: 32, distinct_intervals: 8, runs: 2, cells: 64, element: 1024, scratch: 128,
///         listing: 0, states: 0, faults: 8, events: 8,
///     }
/// }
/// static MEMORY: std::sync::Mutex<Memory> = std::sync::Mutex::new(Memory::new());
/// ```
#[macro_export]
macro_rules! inline_storage {
    ($(#[$meta:meta])* $vis:vis struct $name:ident for $bot:ty {
        accounts: $accounts:expr, entities: $entities:expr, links: $links:expr, credentials: $credentials:expr,
        sensors: $sensors:expr, jobs: $jobs:expr, spare: $spare:expr, intervals: $intervals:expr,
        distinct_intervals: $distinct:expr, runs: $runs:expr, cells: $cells:expr, element: $element:expr,
        scratch: $scratch:expr, listing: $listing:expr, states: $states:expr, faults: $faults:expr,
        events: $events:expr $(, stored: $stored:expr)? $(,)?
    }) => {
        $(#[$meta])*
        $vis struct $name {
            accounts: [$crate::table::Slot<$crate::config::AccountKey, $crate::config::AccountRecord>; $accounts + $spare],
            account_heads: [u32; $accounts],
            entities: [$crate::table::Slot<$crate::model::ItemKey, $crate::model::EntityRecord<
                <$bot as $crate::bot::Bot>::Name, <$bot as $crate::bot::Bot>::Entity,
                $crate::heapless::Vec<$crate::model::Link, { $links }>>>; $entities + $spare],
            entity_heads: [u32; $entities],
            credentials: [$crate::table::Slot<$crate::model::ItemKey,
                $crate::model::DetailRecord<<$bot as $crate::bot::Bot>::Credential>>; $credentials + $spare],
            credential_heads: [u32; $credentials],
            sensors: [$crate::table::Slot<$crate::model::ItemKey,
                $crate::model::DetailRecord<<$bot as $crate::bot::Bot>::Sensor>>; $sensors + $spare],
            sensor_heads: [u32; $sensors],
            jobs: [$crate::jobs::JobSlot<$crate::config::Made<<$bot as $crate::bot::Bot>::Job>>; $jobs + $spare],
            job_heads: [u32; $jobs],
            progress: [$crate::jobs::Progress; $jobs + $spare],
            ready: [<$crate::schedule::EntryFor<{ $crate::schedule::fit_small_entries($jobs + $spare) }>
                as $crate::schedule::EntryFormat>::Number; $jobs + $spare],
            extras: [$crate::schedule::Extra; $jobs + $spare],
            entries: [$crate::schedule::EntryFor<{ $crate::schedule::fit_small_entries($jobs + $spare) }>; $intervals],
            classes: [$crate::schedule::Class; $distinct],
            running: [$crate::jobs::Running; $runs],
            element: [u8; $element],
            scratch: [u8; $scratch],
            cells: [$crate::outbox::Cell; $cells],
            index: [u32; $cells],
            queues: [$crate::outbox::AccountQueue; $accounts + $spare],
            records: [u64; ($cells) * (0 $(+ $stored)?)],
            left: [u64; ($cells + 1) * (0 $(+ $stored)?)],
            faults: [$crate::journal::FaultSlot; $faults],
            events: [Option<$crate::journal::Event>; $events],
            states: [$crate::state::StateSlot; $states],
            listing: [u8; $listing],
        }

        impl $name {
            /// Empty memory: all bytes zero, so that a static of it takes no room in flash.
            #[must_use]
            $vis const fn new() -> Self {
                use $crate::table::Slot;
                const { assert!($spare >= 1, "spare: a refresh needs at least one place of each table for staging") }
                $name {
                    accounts: [const { Slot::EMPTY }; $accounts + $spare],
                    account_heads: [0; $accounts],
                    entities: [const { Slot::EMPTY }; $entities + $spare],
                    entity_heads: [0; $entities],
                    credentials: [const { Slot::EMPTY }; $credentials + $spare],
                    credential_heads: [0; $credentials],
                    sensors: [const { Slot::EMPTY }; $sensors + $spare],
                    sensor_heads: [0; $sensors],
                    jobs: [const { Slot::EMPTY }; $jobs + $spare],
                    job_heads: [0; $jobs],
                    progress: [$crate::jobs::Progress::EMPTY; $jobs + $spare],
                    ready: [0; $jobs + $spare],
                    extras: [$crate::schedule::Extra::EMPTY; $jobs + $spare],
                    entries: [<$crate::schedule::EntryFor<{ $crate::schedule::fit_small_entries($jobs + $spare) }>
                        as $crate::schedule::EntryFormat>::EMPTY; $intervals],
                    classes: [$crate::schedule::Class::EMPTY; $distinct],
                    running: [$crate::jobs::Running::EMPTY; $runs],
                    element: [0; $element],
                    scratch: [0; $scratch],
                    cells: [$crate::outbox::Cell::EMPTY; $cells],
                    index: [0; $cells],
                    queues: [const { $crate::outbox::AccountQueue::EMPTY }; $accounts + $spare],
                    records: [0; ($cells) * (0 $(+ $stored)?)],
                    left: [0; ($cells + 1) * (0 $(+ $stored)?)],
                    faults: [$crate::journal::FaultSlot::EMPTY; $faults],
                    events: [None; $events],
                    states: [$crate::state::StateSlot::EMPTY; $states],
                    listing: [0; $listing],
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl $crate::storage::Storage<$bot> for $name {
            type Links = $crate::heapless::Vec<$crate::model::Link, { $links }>;

            type Entry = $crate::schedule::EntryFor<{ $crate::schedule::fit_small_entries($jobs + $spare) }>;

            fn parts(&mut self) -> $crate::storage::Parts<'_, $bot, Self::Links, Self::Entry> {
                use $crate::table::TableMem;
                $crate::storage::Parts {
                    config: $crate::config::ConfigMem {
                        accounts: TableMem { slots: &mut self.accounts, heads: &mut self.account_heads, spare: $spare },
                        entities: TableMem { slots: &mut self.entities, heads: &mut self.entity_heads, spare: $spare },
                        credentials: TableMem {
                            slots: &mut self.credentials, heads: &mut self.credential_heads, spare: $spare,
                        },
                        sensors: TableMem { slots: &mut self.sensors, heads: &mut self.sensor_heads, spare: $spare },
                        jobs: $crate::jobs::JobsMem {
                            slots: &mut self.jobs,
                            heads: &mut self.job_heads,
                            spare: $spare,
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
                    outbox: $crate::outbox::OutboxMem {
                        cells: &mut self.cells, index: &mut self.index, accounts: &mut self.queues,
                        records: &mut self.records, left: &mut self.left,
                    },
                    faults: &mut self.faults,
                    events: &mut self.events,
                    states: &mut self.states,
                    listing: &mut self.listing,
                }
            }
        }
    };
}
