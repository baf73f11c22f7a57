//! The collector's requests as a transport sees them.

use core::cell::Cell;
use core::fmt;

use grafolean_core::api::{Method, Resource};
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
    present: Cell<Option<Present>>,
    /// Bytes of its answer's body.
    received: Cell<u64>,
    /// The failure said last, as a hash: the same one again is not worth a warning. 0: none.
    said: Cell<u64>,
}

/// The request that is performed, as far as the collector may not know it any more when it fails.
#[derive(Clone, Copy)]
struct Present {
    id: RequestId,
    method: Method,
    resource: Resource,
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
        let (present, received, said) = (Cell::new(None), Cell::new(0), Cell::new(0));
        CollectorRequests { bot, shared, observer, present, received, said }
    }

    /// The present request, if the collector still wants it.
    #[inline(never)]
    fn wanted(&self) -> Option<RequestHead> {
        self.shared.collector.borrow().request_head(self.present.get()?.id)
    }

    #[inline(never)]
    fn take(&self) -> Option<RequestHead> {
        let id = self.shared.unqueue()?;
        let head = self.shared.collector.borrow().request_head(id)?;
        self.received.set(0);
        self.present.set(Some(Present { id, method: head.method, resource: head.resource }));
        Some(head)
    }

    /// Counts bytes of the answer.
    #[inline(never)]
    fn count(&self, bytes: usize) -> Result<(), Unwanted> {
        self.present.get().ok_or(Unwanted)?;
        let received = self.received.get().saturating_add(bytes as u64);
        self.received.set(received);
        // One that is over has no limit, and is not wanted.
        match self.wanted() {
            Some(head) if received > head.answer_limit => {
                self.failed(RequestError::Lost, &TooLong(head.answer_limit));
                Err(Unwanted)
            }
            _ => Ok(()),
        }
    }

    /// Gives bytes of the answer to the collector: how many it has taken.
    #[inline(never)]
    fn take_body(&self, bytes: &[u8]) -> Result<usize, Unwanted> {
        let id = self.present.get().ok_or(Unwanted)?.id;
        let status = self.shared.at_present().handle_response_body(self.bot, id, bytes);
        match status {
            BodyStatus::Taken(0) => return Ok(0),
            BodyStatus::Taken(_) => {}
            BodyStatus::Unwanted => self.present.set(None),
        }
        self.shared.changes.tell();
        match status {
            BodyStatus::Taken(n) => Ok(n),
            BodyStatus::Unwanted => Err(Unwanted),
        }
    }

    /// The next request, or that there will be none; `None`: not yet.
    #[inline(never)]
    fn poll_next(&self) -> Option<Option<RequestHead>> {
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
    }

    fn say(&self, method: Method, resource: Resource, why: &dyn fmt::Display) {
        let mut hash = HashText(Fnv1a64::new());
        let _ = fmt::Write::write_fmt(&mut hash, format_args!("{why}"));
        let hash = hash.0.finish() | 1;
        let level = if self.said.replace(hash) == hash { sink::debug } else { sink::warn };
        level(&format_args!("{} {resource}: {why}", method.as_str()));
        self.observer.request_failed(resource, why);
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
        self.shared.changes.wait_for(|| self.poll_next()).await
    }

    fn over(&self) -> impl Future<Output = ()> {
        let over = || (self.shared.closing.get() || self.wanted().is_none()).then_some(());
        self.shared.changes.wait_for(over)
    }

    fn write_target(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let id = self.present.get().ok_or(fmt::Error)?.id;
        self.shared.collector.borrow().write_target(id, out)
    }

    #[inline(never)]
    fn body(&self, offset: usize, buf: &mut [u8]) -> usize {
        let Some(Present { id, .. }) = self.present.get() else { return 0 };
        self.shared.at_present().request_body(id, offset, buf)
    }

    #[inline(never)]
    fn answer_head(&self, head: ResponseHead) {
        if let Some(Present { id, resource, .. }) = self.present.get() {
            self.said.set(0);
            self.shared.with(|c| c.handle_response_head(id, head));
            self.observer.request_answered(resource);
        }
    }

    fn answer_body(&self, mut bytes: &[u8]) -> impl Future<Output = Result<(), Unwanted>> {
        async move {
            self.count(bytes.len())?;
            while !bytes.is_empty() {
                let seen = self.shared.changes.count();
                match self.take_body(bytes)? {
                    0 => self.shared.changes.wait_since(seen).await,
                    n => bytes = bytes.get(n..).unwrap_or_default(),
                }
            }
            Ok(())
        }
    }

    fn answer_end(&self) {
        if let Some(Present { id, .. }) = self.present.take() {
            self.shared.with(|c| c.handle_response_end(self.bot, id));
        }
    }

    #[inline(never)]
    fn failed(&self, error: RequestError, why: &dyn fmt::Display) {
        if let Some(Present { id, method, resource }) = self.present.take() {
            self.say(method, resource, why);
            self.shared.with(|c| c.handle_request_error(self.bot, id, error));
        }
    }
}
