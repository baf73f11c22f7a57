//! The [`Context`] of one run, over what an adapter lends: the rules of handing over values and of a bot's own requests in
//! one place, for all adapters.

use core::fmt;
use core::future::Future;

use crate::bot::{BackendError, Bot, Context, EntityDraft, HandOverError, Sensor, StateError};
use crate::collector::{Collector, OwnId, OwnProgress, OwnRequest};
use crate::jobs::Due;
use crate::storage::Storage;
use crate::time::{Millis, UnixMillis};
use crate::values::{MAX_PATH_BYTES, Number, NumberText, PathError};

/// What an adapter lends to its runs: the collector for single calls, time, and waiting.
pub trait Lender {
    /// The bot that runs.
    type Bot: Bot;
    /// The collector's memory.
    type Storage: Storage<Self::Bot>;

    /// Lends the collector, told the present time, for the time of a call. Never across an await.
    fn lend<R>(&self, call: impl FnOnce(&mut Collector<Self::Bot, Self::Storage>) -> R) -> R;

    /// Monotonic time.
    fn now(&self) -> Millis;

    /// Waits this many milliseconds.
    fn sleep_ms(&self, ms: u32) -> impl Future<Output = ()>;

    /// A number that differs after each [`Lender::tell`] and after each change of a bot's own request.
    fn changes(&self) -> u32;

    /// Waits until [`Lender::changes`] is no longer `seen`.
    fn changed_since(&self, seen: u32) -> impl Future<Output = ()>;

    /// Something has changed: the driver's loop, its requests and whoever waits look again.
    fn tell(&self);

    /// A value is handed over, with a `time` of its own or at the present one: a driver with a store gives it a record too.
    ///
    /// # Errors
    /// [`HandOverError`]: it was not taken.
    fn hand_over(
        &self,
        account: u64,
        time: Option<UnixMillis>,
        path: &str,
        number: &NumberText,
    ) -> Result<(), HandOverError> {
        self.lend(|c| c.handle_value(account, time, path, number))
    }

    /// A value was handed over and taken: there is something to send. `time` is the one that the bot gave it; `None`: it is
    /// of the present.
    fn value_taken(&self, due: &Due, time: Option<UnixMillis>, path: &str, number: &NumberText);
}

/// The context of one run.
#[derive(Debug)]
pub struct RunContext<'a, L: Lender> {
    lender: &'a L,
    due: &'a Due,
    /// The list that the run has begun and not read to its end.
    list: Option<OwnId>,
    values: u32,
}

impl<'a, L: Lender> RunContext<'a, L> {
    /// Of the run `due`.
    pub const fn new(lender: &'a L, due: &'a Due) -> Self {
        RunContext { lender, due, list: None, values: 0 }
    }

    /// Values handed over and taken so far.
    #[must_use]
    pub const fn values(&self) -> u32 {
        self.values
    }

    /// Queues a request of the bot's own as soon as no other run has one under way.
    async fn begin(
        &self,
        request: OwnRequest,
        draft: Option<&EntityDraft<'_>>,
    ) -> Result<OwnId, BackendError> {
        loop {
            let seen = self.lender.changes();
            if let Some(id) = self.lender.lend(|c| c.start_own(self.due, request, draft))? {
                self.lender.tell();
                return Ok(id);
            }
            self.lender.changed_since(seen).await;
        }
    }

    /// Waits for the next thing that a request of the bot's own brings.
    async fn progress(&self, id: OwnId, buf: &mut [u8]) -> Result<OwnProgress, BackendError> {
        loop {
            let seen = self.lender.changes();
            match self.lender.lend(|c| c.poll_own(id, buf)) {
                Ok(OwnProgress::Pending) => self.lender.changed_since(seen).await,
                result => {
                    // There is room for more of the answer, or for another run's request.
                    self.lender.tell();
                    return result;
                }
            }
        }
    }

    /// Performs a request of the bot's own that is not a list.
    async fn request(
        &self,
        request: OwnRequest,
        draft: Option<&EntityDraft<'_>>,
    ) -> Result<Option<u64>, BackendError> {
        let id = self.begin(request, draft).await?;
        loop {
            if let OwnProgress::Done(made) = self.progress(id, &mut []).await? {
                return Ok(made);
            }
        }
    }

    fn hand_over(
        &mut self,
        time: Option<UnixMillis>,
        path: &dyn fmt::Display,
        number: &dyn Fn() -> Result<NumberText, HandOverError>,
    ) -> Result<(), HandOverError> {
        let path = PathText::of(path)?;
        let number = number()?;
        let (account, path) = (self.due.key.account, path.as_str()?);
        self.lender.hand_over(account, time, path, &number)?;
        self.values = self.values.saturating_add(1);
        self.lender.value_taken(self.due, time, path, &number);
        Ok(())
    }
}

/// A path that is being written.
struct PathText {
    text: heapless::String<MAX_PATH_BYTES>,
    /// Its whole length in bytes, with what did not fit.
    len: usize,
}

impl PathText {
    fn of(path: &dyn fmt::Display) -> Result<Self, HandOverError> {
        let mut text = PathText { text: heapless::String::new(), len: 0 };
        fmt::Write::write_fmt(&mut text, format_args!("{path}")).map_err(|_| HandOverError::Format)?;
        Ok(text)
    }

    fn as_str(&self) -> Result<&str, HandOverError> {
        if self.len > self.text.len() {
            let error = PathError::TooLong { len: self.len, limit: MAX_PATH_BYTES };
            return Err(HandOverError::Value(error.into()));
        }
        Ok(&self.text)
    }
}

impl fmt::Write for PathText {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        // A part that does not fit makes the path too long, whatever follows.
        if self.len == self.text.len() {
            let _ = self.text.push_str(s);
        }
        self.len = self.len.saturating_add(s.len());
        Ok(())
    }
}

impl<L: Lender> Context for RunContext<'_, L> {
    type Bot = L::Bot;

    fn now(&self) -> Millis {
        self.lender.now()
    }

    async fn sleep_ms(&mut self, ms: u32) {
        self.lender.sleep_ms(ms).await;
    }

    fn entity(&mut self) -> Option<<L::Bot as Bot>::Entity> {
        self.lender.lend(|c| c.entity(self.due.run, |e| e.details().clone()))
    }

    fn entity_name(&mut self) -> Option<<L::Bot as Bot>::Name> {
        self.lender.lend(|c| c.entity(self.due.run, |e| e.name().clone()))
    }

    fn credential(&mut self) -> Option<<L::Bot as Bot>::Credential> {
        self.lender.lend(|c| c.entity(self.due.run, |e| e.credential().clone()))
    }

    fn sensor(&mut self, n: usize) -> Option<Sensor<<L::Bot as Bot>::Sensor>> {
        self.lender.lend(|c| c.sensor(self.due.run, n))
    }

    fn value(&mut self, path: impl fmt::Display, number: impl Number) -> Result<(), HandOverError> {
        self.hand_over(None, &path, &|| number.number_text().map_err(|e| HandOverError::Value(e.into())))
    }

    fn value_at(
        &mut self,
        time: UnixMillis,
        path: impl fmt::Display,
        number: impl Number,
    ) -> Result<(), HandOverError> {
        self.hand_over(Some(time), &path, &|| {
            number.number_text().map_err(|e| HandOverError::Value(e.into()))
        })
    }

    fn get_state(&mut self, name: &str, buf: &mut [u8]) -> Option<usize> {
        self.lender.lend(|c| c.get_state(&self.due.key, name, buf))
    }

    fn set_state(&mut self, name: &str, value: &[u8]) -> Result<(), StateError> {
        self.lender.lend(|c| c.set_state(&self.due.key, name, value))
    }

    fn forget_untouched_states(&mut self) {
        self.lender.lend(|c| c.forget_untouched_states(&self.due.key));
    }

    async fn list_entities(&mut self) -> Result<(), BackendError> {
        self.list = None;
        self.list = Some(self.begin(OwnRequest::List, None).await?);
        Ok(())
    }

    async fn next_entity(&mut self, buf: &mut [u8]) -> Result<Option<usize>, BackendError> {
        let Some(id) = self.list else { return Ok(None) };
        match self.progress(id, buf).await {
            Ok(OwnProgress::Entity(len)) => Ok(Some(len)),
            // One entity is too long, the list goes on.
            Err(error @ BackendError::TooLong { .. }) => Err(error),
            Ok(_) => {
                self.list = None;
                Ok(None)
            }
            // A list that failed is asked again and fails again: it must not look like one that has ended.
            Err(error) => Err(error),
        }
    }

    async fn create_entity(&mut self, entity: &EntityDraft<'_>) -> Result<u64, BackendError> {
        let made = self.request(OwnRequest::Create, Some(entity)).await?;
        made.ok_or(BackendError::Answer { offset: 0 })
    }

    async fn update_entity(&mut self, id: u64, entity: &EntityDraft<'_>) -> Result<(), BackendError> {
        self.request(OwnRequest::Update(id), Some(entity)).await.map(|_| ())
    }

    async fn delete_entity(&mut self, id: u64) -> Result<(), BackendError> {
        self.request(OwnRequest::Delete(id), None).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_longest_length_fits_and_one_byte_more_is_named_with_both_lengths() {
        let longest = "a".repeat(MAX_PATH_BYTES);
        assert_eq!(PathText::of(&longest).unwrap().as_str(), Ok(longest.as_str()));
        let text = PathText::of(&format_args!("{longest}{}", "b")).unwrap();
        let error = PathError::TooLong { len: MAX_PATH_BYTES + 1, limit: MAX_PATH_BYTES };
        assert_eq!(text.as_str(), Err(HandOverError::Value(error.into())));
    }

    #[test]
    fn a_part_that_fits_after_one_that_did_not_makes_no_other_path() {
        let text = PathText::of(&format_args!("{}{}{}", "a".repeat(150), "b".repeat(60), "c")).unwrap();
        let error = PathError::TooLong { len: 211, limit: MAX_PATH_BYTES };
        assert_eq!(text.as_str(), Err(HandOverError::Value(error.into())));
    }
}
