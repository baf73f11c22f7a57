//! Runs [Grafolean](https://grafolean.com) bots on microcontrollers with embassy, without alloc and without unsafe.
//!
//! A firmware owns the memory of its collector ([`Shared`] with a type of [`core::inline_storage!`]), a
//! [`Transport`], and one task that awaits [`run`]:
//!
//! ```
//! use grafolean_embassy::core::api::{BaseUrl, Token};
//! use grafolean_embassy::core::bot::{Anything, Bot, Context, JobSink, NewJob};
//! use grafolean_embassy::core::collector::Settings;
//! use grafolean_embassy::core::interval::{Interval, Intervals};
//! use grafolean_embassy::core::jobs::Due;
//! use grafolean_embassy::{DriverSettings, Shared, Transport, run};
//!
//! /// Posts the board's temperature every minute.
//! struct Thermometer;
//!
//! impl Bot for Thermometer {
//!     type Name = ();
//!     type Entity = Anything;
//!     type Credential = Anything;
//!     type Sensor = Anything;
//!     type Job = ();
//!     type Error = &'static str;
//!     fn protocol(&self) -> Option<&str> {
//!         None
//!     }
//!     fn own_jobs(&self, _account: u64, jobs: &mut dyn JobSink<()>) {
//!         if let Ok(minute) = Interval::new(60) {
//!             jobs.add(NewJob::new(Intervals::one(minute), ()));
//!         }
//!     }
//!     async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, cx: &mut C) -> Result<(), &'static str> {
//!         cx.value("board.temperature", 21).map_err(|_| "not taken")
//!     }
//! }
//!
//! grafolean_embassy::core::inline_storage! {
//!     struct Memory for Thermometer {
//!         accounts: 1, entities: 0, links: 0, credentials: 0, sensors: 0, jobs: 1, spare: 1, intervals: 2,
//!         distinct_intervals: 1, runs: 1, cells: 64, element: 512, scratch: 128, listing: 0, states: 0,
//!         faults: 8, events: 8,
//!     }
//! }
//!
//! /// The whole collector. One run at once: one worker.
//! async fn collect(transport: &mut impl Transport, token: Token, url: &BaseUrl<'_>) {
//!     // In a firmware this lies in a `static_cell::StaticCell`, not on the stack.
//!     let shared: Shared<Thermometer, Memory, 1> = Shared::new(Settings::board(token, url.prefix), Memory::new());
//!     // It ends when another task has called `shared.stop(limit_ms)`.
//!     let _ledger = run(&Thermometer, &shared, transport, &(), &DriverSettings::default()).await;
//! }
//! ```
//!
//! # What waits where
//! One future holds all: W workers that perform runs, one transport that performs requests one after the other, and
//! the loop that tells the collector the time. It needs no executor of its own, no `Send`, no critical section and
//! no atomics. The collector stays in [`Shared`], is borrowed for the time of a call, never over an await.
//!
//! # Transports
//! [`http::Http`] speaks HTTP/1.1 over any stream of a [`http::Connector`]: with the feature `net`, `net::NetConnector` over a socket of
//! embassy-net; with `nal`, `nal::NalConnector` through any `embedded-nal-async` stack; with `tls`, `tls::Tls` over either.
//!
//! # Memory
//! [`Budget`] says when it is compiled what a configuration takes; [`Lent`] keeps a memory out of the call stack.
//!
//! # Watchdog
//! [`Observer::turn`] is called each time that the driver's loop comes round, at least every [`DriverSettings::longest_wait_ms`]: feed the
//! watchdog there, or note the time and feed it where it is seen.
//!
//! # Time
//! Time is embassy-time's: milliseconds since boot. The wall clock is learned from the answers' `Date`, or given by
//! [`Shared::with`] and [`handle_system_clock`](core::collector::Collector::handle_system_clock) where a board has
//! a clock of its own.
//!
//! # Features
//! None is on by default. `defmt` and `log` choose where messages go; `net` adds connections and pings over
//! embassy-net (whose network stack needs Rust 1.91), `nal` the `embedded-nal-async` connector; `tls` adds HTTPS over any connector, `tls-p384` certificates with P-384 keys;
//! `flash` keeps values that wait in flash (`flash::run_with_flash`), `sim-flash` is a flash for tests.
#![no_std]
#![forbid(unsafe_code)]
#![allow(async_fn_in_trait)]
// An `async fn` holds its arguments twice, as they were given and as its body has them: RAM that a board does not have.
#![allow(clippy::manual_async_fn)]

#[cfg(test)]
extern crate std;

mod apart;
mod budget;
mod changes;
mod driver;
#[cfg(feature = "flash")]
pub mod flash;
pub mod http;
#[cfg(feature = "nal")]
pub mod nal;
#[cfg(feature = "net")]
pub mod net;
mod observer;
mod requests;
mod shared;
mod sink;
#[cfg(feature = "tls")]
pub mod tls;
mod transport;

pub use budget::Budget;
pub use driver::{DriverSettings, SetupError, run};
pub use grafolean_core as core;
pub use observer::Observer;
pub use shared::{Lent, Shared};
pub use transport::{Requests, Transport, Unwanted};
