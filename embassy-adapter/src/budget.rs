//! What a configuration takes of a board's RAM, known when it is compiled: [`Budget`].

use core::fmt;

use grafolean_core::bot::Bot;
use grafolean_core::storage::Storage;

use crate::driver::{DriverSettings, run};
use crate::observer::Observer;
use crate::shared::Shared;
use crate::transport::Transport;

/// The RAM of a collector, in bytes. What the network stack, the executor and the call stack take is not in it.
///
/// ```
/// # use grafolean_embassy::core::bot::*; use grafolean_embassy::core::jobs::Due;
/// # struct MyBot; impl Bot for MyBot { type Name = (); type Entity = Anything; type Credential = Anything;
/// # type Sensor = Anything; type Job = (); type Error = &'static str; fn protocol(&self) -> Option<&str> { None }
/// # async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, _: &mut C) -> Result<(), &'static str> { Ok(()) } }
/// # struct MyTransport; impl grafolean_embassy::Transport for MyTransport {
/// # async fn serve<R: grafolean_embassy::Requests>(&mut self, _: &R) {} }
/// use grafolean_embassy::Budget;
///
/// grafolean_embassy::core::inline_storage! {
///     struct Memory for MyBot {
///         accounts: 1, entities: 0, links: 0, credentials: 0, sensors: 0, jobs: 1, spare: 1, intervals: 2,
///         distinct_intervals: 1, runs: 1, cells: 64, element: 512, scratch: 128, listing: 0, states: 0,
///         faults: 8, events: 8,
///     }
/// }
///
/// // A receive and a transmit buffer of 1 kB, and one of HTTP.
/// const BUDGET: Budget = Budget::of::<MyBot, Memory, MyTransport, (), 1>().and_buffers(3 * 1024);
/// const _: () = assert!(BUDGET.total() <= 16 * 1024, "more than this board can spare");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Budget {
    /// [`Shared`]: tables, outbox, room for one element.
    pub collector: usize,
    /// The future of [`run`]: W runs with what they await, one request, the loop.
    pub driver: usize,
    /// The transport, without buffers that are lent to it.
    pub transport: usize,
    /// Buffers that are lent to the transport, as told by [`Budget::and_buffers`].
    pub buffers: usize,
}

impl Budget {
    /// Of a collector of bot `B` in memory `S`, with transport `T`, observer `O` and `W` runs at once.
    #[must_use]
    pub const fn of<B: Bot, S: Storage<B>, T: Transport, O: Observer, const W: usize>() -> Self {
        Budget {
            collector: size_of::<Shared<B, S, W>>(),
            driver: future_of(&run::<B, S, T, O, W>),
            transport: size_of::<T>(),
            buffers: 0,
        }
    }

    /// As [`Budget::of`], with values and states kept in flash `F` by [`run_with_flash`](crate::flash::run_with_flash):
    /// [`Flash`](crate::flash::Flash) counts as the collector's.
    #[cfg(feature = "flash")]
    #[must_use]
    pub const fn of_flash<B, S, T, O, F, const W: usize>() -> Self
    where
        B: Bot,
        S: Storage<B>,
        T: Transport,
        O: Observer,
        F: embedded_storage_async::nor_flash::MultiwriteNorFlash,
    {
        Budget {
            collector: size_of::<Shared<B, S, W>>() + size_of::<crate::flash::Flash<F>>(),
            driver: future_with_flash_of(&crate::flash::run_with_flash::<B, S, T, O, F, W>),
            transport: size_of::<T>(),
            buffers: 0,
        }
    }

    /// With a memory of this many bytes that is [`Lent`](crate::Lent) to the collector.
    #[must_use]
    pub const fn and_memory(self, bytes: usize) -> Self {
        Budget { collector: self.collector + bytes, ..self }
    }

    /// With this many bytes more of buffers: those of HTTP, sockets and TLS.
    #[must_use]
    pub const fn and_buffers(self, bytes: usize) -> Self {
        Budget { buffers: self.buffers + bytes, ..self }
    }

    /// All together.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.collector + self.driver + self.transport + self.buffers
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Budget { collector, driver, transport, buffers } = self;
        write!(
            f,
            "collector {collector} + driver {driver} + transport {transport} + buffers {buffers} = {} bytes",
            self.total()
        )
    }
}

/// The size of what `run` returns when it is called.
const fn future_of<'a, B: 'a, H: 'a, T: 'a, O: 'a, F>(
    _: &impl FnOnce(&'a B, &'a H, &'a mut T, &'a O, &'a DriverSettings) -> F,
) -> usize {
    size_of::<F>()
}

/// The size of what `run_with_flash` returns when it is called.
#[cfg(feature = "flash")]
const fn future_with_flash_of<'a, B: 'a, H: 'a, T: 'a, O: 'a, F: 'a, R>(
    _: &impl FnOnce(&'a B, &'a H, &'a mut T, &'a O, &'a DriverSettings, &'a F) -> R,
) -> usize {
    size_of::<R>()
}
