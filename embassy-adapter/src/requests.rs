//! The collector's requests as a transport sees them.

use core::cell::Cell;
use core::fmt;

use grafolean_core::bot::Bot;
use grafolean_core::collector::{BodyStatus, RequestError, RequestHead, RequestId, ResponseHead};
use grafolean_core::hash::Fnv1a64;
use grafolean_core::storage::Storage;

use crate::observer::Observer;
use crate::shared::Shared;
use crate::sink;
use crate::transport::{Requests, Unwanted};

/// The [`Requests`] of a collector.
pub(crate) struct CollectorRequests<'a, B: Bot, S: Storage<B>, O, const W: usize> {
    bot: &'a B,
    shared: &'a Shared<B, S, W>,
    observer: &'a O,
    present: Cell<Option<(RequestId, RequestHead)>>,
    /// Bytes of its answer's body.
    received: Cell<u64>,
    /// The failure said last, as a hash: the same one again is not worth a warning.
    said: Cell<Option<u64>>,
}

/// An answer that is longer than it may be.
struct TooLong(u64);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "answer longer than {} bytes", self.0)
    }
}

impl<'a, B: Bot, S: Storage<B>, O: Observer, const W: usize> CollectorRequests<'a, B, S, O, W> {
    pub(crate) const fn new(bot: &'a B, shared: &'a Shared<B, S, W>, observer: &'a O) -> Self {
        let (present, received, said) = (Cell::new(None), Cell::new(0), Cell::new(None));
        CollectorRequests { bot, shared, observer, present, received, said }
    }

    /// The present request, if the collector still wants it.
    fn wanted(&self) -> Option<(RequestId, RequestHead)> {
        let (id, head) = self.present.get()?;
        self.shared.collector.borrow().request_head(id)?;
        Some((id, head))
    }

    fn take(&self) -> Option<RequestHead> {
        let id = self.shared.unqueue()?;
        let head = self.shared.collector.borrow().request_head(id)?;
        self.received.set(0);
        self.present.set(Some((id, head)));
        Some(head)
    }

    fn say(&self, head: RequestHead, why: &dyn fmt::Display) {
        let mut hash = HashText(Fnv1a64::new());
        let _ = fmt::Write::write_fmt(&mut hash, format_args!("{why}"));
        let hash = Some(hash.0.finish());
        let level = if self.said.replace(hash) == hash { sink::debug } else { sink::warn };
        level(&format_args!("{} {}: {why}", head.method.as_str(), head.resource));
        self.observer.request_failed(head.resource, why);
    }
}

struct HashText(Fnv1a64);

impl fmt::Write for HashText {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0 = self.0.bytes(s.as_bytes());
        Ok(())
    }
}

impl<B: Bot, S: Storage<B>, O: Observer, const W: usize> Requests for CollectorRequests<'_, B, S, O, W> {
    async fn next(&self) -> Option<RequestHead> {
        if self.wanted().is_some() && !self.shared.closing.get() {
            self.failed(RequestError::Lost, &"the transport gave no end to the answer");
        }
        self.present.set(None);
        let next = || {
            if self.shared.closing.get() {
                return Some(None);
            }
            // Those that are over were given up while they waited.
            while !self.shared.waiting.borrow().is_empty() {
                if let Some(head) = self.take() {
                    return Some(Some(head));
                }
            }
            None
        };
        self.shared.changes.wait_for(next).await
    }

    async fn over(&self) {
        let over = || (self.shared.closing.get() || self.wanted().is_none()).then_some(());
        self.shared.changes.wait_for(over).await;
    }

    fn write_target(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let (id, _) = self.present.get().ok_or(fmt::Error)?;
        self.shared.collector.borrow().write_target(id, out)
    }

    fn body(&self, offset: usize, buf: &mut [u8]) -> usize {
        let Some((id, _)) = self.present.get() else { return 0 };
        self.shared.now(|c| c.request_body(id, offset, buf))
    }

    fn answer_head(&self, head: ResponseHead) {
        if let Some((id, _)) = self.present.get() {
            self.said.set(None);
            self.shared.with(|c| c.handle_response_head(id, head));
        }
    }

    async fn answer_body(&self, bytes: &[u8]) -> Result<(), Unwanted> {
        let Some((id, head)) = self.present.get() else { return Err(Unwanted) };
        let received = self.received.get().saturating_add(bytes.len() as u64);
        self.received.set(received);
        if received > head.answer_limit {
            self.failed(RequestError::Lost, &TooLong(head.answer_limit));
            return Err(Unwanted);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let seen = self.shared.changes.count();
            match self.shared.now(|c| c.handle_response_body(self.bot, id, rest)) {
                BodyStatus::Taken(0) => self.shared.changes.wait_since(seen).await,
                BodyStatus::Taken(n) => {
                    rest = rest.get(n..).unwrap_or_default();
                    self.shared.changes.tell();
                }
                BodyStatus::Unwanted => {
                    self.present.set(None);
                    self.shared.changes.tell();
                    return Err(Unwanted);
                }
            }
        }
        Ok(())
    }

    fn answer_end(&self) {
        if let Some((id, _)) = self.present.take() {
            self.shared.with(|c| c.handle_response_end(self.bot, id));
        }
    }

    fn failed(&self, error: RequestError, why: &dyn fmt::Display) {
        if let Some((id, head)) = self.present.take() {
            self.say(head, why);
            self.shared.with(|c| c.handle_request_error(self.bot, id, error));
        }
    }
}
