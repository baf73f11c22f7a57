//! Values that wait, and the state of jobs, in flash: over any
//! [`NorFlash`](embedded_storage_async::nor_flash::NorFlash) whose words may be written twice.
//!
//! ```
//! use grafolean_embassy::core::collector::Collector;
//! use grafolean_embassy::flash::{Flash, FlashError, FlashSettings, run_with_flash};
//! use grafolean_embassy::flash::sim::SimNor;
//! # use grafolean_embassy::core::bot::*; use grafolean_embassy::core::jobs::Due;
//! # use grafolean_embassy::{DriverSettings, Shared, Transport};
//! # struct MyBot; impl Bot for MyBot { type Name = (); type Entity = Anything; type Credential = Anything;
//! # type Sensor = Anything; type Job = (); type Error = &'static str; fn protocol(&self) -> Option<&str> { None }
//! # async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, _: &mut C) -> Result<(), &'static str> { Ok(()) } }
//!
//! grafolean_embassy::core::inline_storage! {
//!     struct Memory for MyBot {
//!         accounts: 1, entities: 0, links: 0, credentials: 0, sensors: 0, jobs: 1, spare: 1, intervals: 2,
//!         distinct_intervals: 1, runs: 1, cells: 64, element: 512, scratch: 128, listing: 0, states: 0,
//!         faults: 8, events: 8, stored: 1,
//!     }
//! }
//!
//! async fn collect(shared: &Shared<MyBot, Memory, 1>, transport: &mut impl Transport) -> Result<(), FlashError> {
//!     // On a board: its driver of flash, and the part of it that holds neither program nor anything else.
//!     let nor: SimNor<_, _, 4, 4096> = SimNor::new([0xff; 64 * 1024], [0; 16], 0);
//!     let flash = Flash::new(nor, 0..64 * 1024, FlashSettings::default())?;
//!     let _ledger = run_with_flash(&MyBot, shared, transport, &(), &DriverSettings::default(), &flash).await;
//!     Ok(())
//! }
//! ```
//!
//! # What is written when
//! A value is written when it has waited [`FlashSettings::store_after_ms`] (30 s), or when less than a quarter of the outbox is free; so as
//! long as the backend answers, nothing is. It stays in RAM too, until that is needed for another one. When values leave, those in
//! flash come back, oldest first, behind the live ones. At a graceful end all that wait are written. States that
//! have changed are written every [`FlashSettings::states_every_ms`] (10 min), and at a graceful end. The memory must have `stored: 1`.
//!
//! A loss of power loses values younger than `store_after_ms` and what states have become since they were written last, but nothing that
//! was written, wherever a word or an erasure is cut: a state is forgotten by writing one word of it again, and a page is erased only
//! when all that is needed of it is in another one. A value delivered in the second before may come back and be sent again: a PUT of
//! the same value changes nothing. A state that was being forgotten may come back too. One exception: pages of states that can't be repaired since bits have
//! rotten are erased and written anew from RAM, a loss of power within that moment loses what was in them.
//!
//! # Full, worn, broken
//! When the flash is full, the oldest values give way: dropped{full}. When it fails, values stay in RAM, and it is tried again after 1 s, 2 s,
//! up to 60 s; this is told once. Values that were written before the wall clock was known can have no time after a restart:
//! dropped{no_time}. Those whose bytes can't be read any more are dropped{corrupt}; but one that has become unreadable
//! while the board was off is not found, so nobody counts it.
//!
//! States have one page (the other one is for moving them): at least 70 fit into 4 kB. When there are more, it is told once, and changes
//! are kept in RAM only until some are forgotten or the board starts again.
//!
//! # Wear
//! A record takes 23 bytes, path and number, rounded up to words: about 48 for `board.temperature`, so that a page of 4 kB holds 85. To
//! forget it, one word is written again. Pages are used in turn: with p pages of the queue, a page is erased once for 85·p values that had to wait. Per
//! hour of outage, 16 jobs with a value a minute each erase 11 pages; on 16 pages (64 kB) that endure 100,000 erasures, 120,000 hours of
//! outage. Each start writes one item of 36 bytes to the map, each state written one of at most 56: two pages of the map endure
//! 14 million of them, 16 states that change all the time 17 years. A state that is
//! forgotten takes one word of each of its forms in the map, and no erasure. Before a page of the map is erased it is written over with
//! zeros, which is 11 ms more where 256 bytes take 0.7 ms. [`Flash::wear`] counts all erasures, those of the map too.
//!
//! # Costs
//! Code: 35 kB on a Cortex-M0+, 12 kB of which are the queue's and map's of `sequential-storage`. RAM: [`Flash`] takes about 600 bytes besides the driver of the flash, the memory 16 bytes more per cell, `run_with_flash` more than
//! [`run`](crate::run) what the driver of the flash awaits. [`Budget::of_flash`](crate::Budget::of_flash) knows. Nothing is cached:
//! to write one value, two words per page and the headers of one page are read, to feed some, all records before them. Where a driver
//! of flash does not wait but block, so does everything: 45 ms as a rule, 400 ms at most for a page erased in the flash of a
//! Raspberry Pi Pico (W25Q16JV).
//!
//! # Errors
//! [`FlashError`], from [`Flash::new`] or told to [`Observer::flash`].

mod keeper;
mod record;
#[cfg(feature = "sim-flash")]
pub mod sim;
mod store;
#[cfg(all(test, feature = "sim-flash"))]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;

use core::cell::Cell;
use core::fmt;
use core::ops::Range;
use core::pin::pin;

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex;
use grafolean_core::bot::Bot;
use grafolean_core::context::Lender;
use grafolean_core::outbox::Ledger;
use grafolean_core::storage::Storage;
use grafolean_core::time::Millis;

use crate::apart::apart;
use crate::driver::{self, DriverSettings, SetupError};
use crate::observer::Observer;
use crate::shared::Shared;
use crate::transport::Transport;
use keeper::Keeper;
use store::Store;

pub use embedded_storage_async::nor_flash::MultiwriteNorFlash;
pub use store::{FlashError, Kind, Wear};

/// What is written to flash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FlashSettings {
    /// A value that has waited so long is written, in milliseconds. The shorter, the less a loss of power loses; the longer, the less a
    /// slow backend wears the flash.
    pub store_after_ms: u32,
    /// States that have changed are written so often, in milliseconds. A loss of power loses what they were since then.
    pub states_every_ms: u32,
}

impl FlashSettings {
    /// 30 s, and 10 min.
    pub const DEFAULT: FlashSettings = FlashSettings { store_after_ms: 30_000, states_every_ms: 600_000 };
}

impl Default for FlashSettings {
    fn default() -> Self {
        FlashSettings::DEFAULT
    }
}

/// When [`Flash::step`] wants to be called again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wake {
    /// Then, if the collector has changed; not before.
    pub soonest: Millis,
    /// Then in any case.
    pub latest: Millis,
}

/// What happened to the flash: for the log and [`Observer::flash`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FlashEvent {
    /// Values of earlier boots were there at start.
    Found {
        /// Those that will be sent.
        values: u64,
        /// Those whose time can't be known: dropped.
        no_time: u64,
        /// Those that can't be understood: dropped.
        unreadable: u64,
    },
    /// It is full: the oldest values give way. Told again only when it has been empty.
    Full,
    /// There are more states than one page holds: from now on all are kept in RAM only, until some are forgotten.
    StatesFull,
    /// It fails: values are kept in RAM only.
    Failed(FlashError),
    /// It works again.
    Works,
}

impl FlashEvent {
    /// Whether it asks for somebody's attention.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        matches!(self, FlashEvent::Full | FlashEvent::StatesFull | FlashEvent::Failed(_))
    }
}

impl fmt::Display for FlashEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlashEvent::Found { values, no_time, unreadable } => {
                write!(
                    f,
                    "flash: {values} values wait; dropped: {no_time} without time, {unreadable} unreadable"
                )
            }
            FlashEvent::Full => f.write_str("flash is full: the oldest values give way"),
            FlashEvent::StatesFull => {
                f.write_str("flash has no room for more states of jobs: changes are kept in RAM only")
            }
            FlashEvent::Failed(error) => write!(f, "{error}: values are kept in RAM only"),
            FlashEvent::Works => f.write_str("flash works again"),
        }
    }
}

/// A range of a flash in which values and states are kept. Two pages of it are for states, the others, at least three, for values.
pub struct Flash<F: MultiwriteNorFlash> {
    inner: Mutex<NoopRawMutex, (Keeper, Store<F>)>,
    settings: FlashSettings,
    wear: Cell<Wear>,
}

impl<F: MultiwriteNorFlash> fmt::Debug for Flash<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flash")
            .field("settings", &self.settings)
            .field("wear", &self.wear)
            .finish_non_exhaustive()
    }
}

impl<F: MultiwriteNorFlash> Flash<F> {
    /// Of this range of `flash`, in bytes, which nothing else may use. What is in it must be erased, or of this crate.
    ///
    /// # Errors
    /// [`FlashError`] if the range or the flash does not fit. Nothing is read or written.
    pub fn new(flash: F, range: Range<u32>, settings: FlashSettings) -> Result<Self, FlashError> {
        let mut store = Store::new(flash, range)?;
        let wear = Cell::new(store.wear());
        Ok(Flash { inner: Mutex::new((Keeper::new(), store)), settings, wear })
    }

    /// What the flash has gone through, as of the last look at it.
    #[must_use]
    pub fn wear(&self) -> Wear {
        self.wear.get()
    }

    /// Does all that is to be done now: for drivers of one's own and simulations, since [`run_with_flash`] calls it again and again. It waits for the
    /// flash only; time is what `lender` says. `last`: it is the last time, all that wait are written.
    pub async fn step<L: Lender, O: Observer>(&mut self, lender: &L, observer: &O, last: bool) -> Wake {
        let (keeper, store) = self.inner.get_mut();
        let wake = keeper.step(lender, observer, &self.settings, store, last).await;
        self.wear.set(store.wear());
        wake
    }

    /// The flash.
    pub fn get_mut(&mut self) -> &mut F {
        self.inner.get_mut().1.flash()
    }

    /// Gives the flash back.
    pub fn into_inner(self) -> F {
        self.inner.into_inner().1.into_flash()
    }
}

/// [`run`](crate::run), with values and states kept in flash. A [`Flash`] is run once.
///
/// What earlier boots have left is read first.
///
/// # Errors
/// [`SetupError`], at once.
pub async fn run_with_flash<B, S, T, O, F, const W: usize>(
    bot: &B,
    shared: &Shared<B, S, W>,
    transport: &mut T,
    observer: &O,
    settings: &DriverSettings,
    flash: &Flash<F>,
) -> Result<Ledger, SetupError>
where
    B: Bot,
    S: Storage<B>,
    T: Transport,
    O: Observer,
    F: MultiwriteNorFlash,
{
    driver::check(shared)?;
    let mut inner = flash.inner.lock().await;
    let (keeper, store) = &mut *inner;
    // Not given away: what is moved into a future is in it twice.
    let keep = pin!(keeper::keep(keeper, shared, observer, flash, store));
    Ok(driver::run_beside(bot, shared, transport, observer, settings, apart(keep)).await)
}
