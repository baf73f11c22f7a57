//! The flash of a board, with its durable outbox.

use core::cell::{Cell, RefCell};
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use std::rc::Rc;

use embedded_storage_async::nor_flash::{ErrorType, MultiwriteNorFlash, NorFlash, ReadNorFlash};
use grafolean_core::context::Lender;
use grafolean_core::time::Millis;
use grafolean_embassy::Observer;
use grafolean_embassy::flash::sim::{SimNor, SimNorError};
use grafolean_embassy::flash::{Flash, FlashError, FlashEvent, Wake};

use crate::plan::FlashPlan;

/// Bytes of a page and of a word.
pub(crate) const PAGE: usize = 1024;
const WORD: usize = 4;

type Memory = SimNor<Vec<u8>, Vec<u32>, WORD, PAGE>;

/// The flash itself, which outlives the board's boots.
#[derive(Clone)]
pub(crate) struct Nor(Rc<RefCell<Memory>>);

impl Nor {
    pub(crate) fn new(pages: u32, seed: u64) -> Self {
        let pages = pages as usize;
        Nor(Rc::new(RefCell::new(SimNor::new(vec![0xff; pages * PAGE], vec![0; pages], seed))))
    }

    pub(crate) fn with<R>(&self, use_it: impl FnOnce(&mut Memory) -> R) -> R {
        use_it(&mut self.0.borrow_mut())
    }
}

impl ErrorType for Nor {
    type Error = SimNorError;
}

#[allow(clippy::await_holding_refcell_ref, reason = "it never waits")]
impl ReadNorFlash for Nor {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SimNorError> {
        self.0.borrow_mut().read(offset, bytes).await
    }

    fn capacity(&self) -> usize {
        self.0.borrow().capacity()
    }
}

#[allow(clippy::await_holding_refcell_ref, reason = "it never waits")]
impl NorFlash for Nor {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), SimNorError> {
        self.0.borrow_mut().erase(from, to).await
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SimNorError> {
        self.0.borrow_mut().write(offset, bytes).await
    }
}

impl MultiwriteNorFlash for Nor {}

/// What the outbox told of.
#[derive(Default)]
struct Told {
    full: Cell<bool>,
    failed: Cell<Option<FlashError>>,
}

impl Observer for Told {
    fn flash(&self, event: &FlashEvent) {
        match event {
            FlashEvent::Full => self.full.set(true),
            FlashEvent::Failed(error) => self.failed.set(Some(*error)),
            _ => {}
        }
    }
}

/// The outbox of one boot.
pub(crate) struct BoardFlash {
    flash: Flash<Nor>,
    told: Told,
    wake: Option<Wake>,
    seen: u32,
}

impl BoardFlash {
    pub(crate) fn new(nor: Nor, plan: &FlashPlan) -> Result<Self, FlashError> {
        let flash = Flash::new(nor, 0..plan.pages * PAGE as u32, plan.settings)?;
        Ok(BoardFlash { flash, told: Told::default(), wake: None, seen: 0 })
    }

    /// Does what is to be done, if it is time: the time of the next call.
    pub(crate) fn keep<L: Lender>(&mut self, lender: &L) -> Millis {
        let due = self.wake.is_none_or(|wake| {
            let at = if lender.changes() == self.seen { wake.latest } else { wake.soonest };
            lender.now() >= at
        });
        if due {
            self.step(lender, false);
        }
        match self.wake {
            // What it has changed itself is looked at again as well, as the board's loop does.
            Some(wake) if lender.changes() != self.seen => wake.soonest,
            Some(wake) => wake.latest,
            None => lender.now(),
        }
    }

    /// Does what is to be done.
    pub(crate) fn step<L: Lender>(&mut self, lender: &L, last: bool) {
        self.seen = lender.changes();
        let mut step = pin!(self.flash.step(lender, &self.told, last));
        // It gives way to others now and then, but waits for nothing.
        self.wake = loop {
            if let Poll::Ready(wake) = step.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                break Some(wake);
            }
        };
    }

    /// Whether values had to give way.
    pub(crate) fn was_full(&self) -> bool {
        self.told.full.get()
    }

    /// Why it failed last.
    pub(crate) fn failed(&self) -> Option<FlashError> {
        self.told.failed.get()
    }
}
