//! What a running job is given: the core's [`Context`] over embassy-time and [`Shared`].

use core::fmt;

use embassy_time::Timer;
use grafolean_core::bot::{BackendError, Bot, Context, EntityDraft, HandOverError, Sensor, StateError};
use grafolean_core::collector::{OwnId, OwnProgress, OwnRequest};
use grafolean_core::jobs::Due;
use grafolean_core::storage::Storage;
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::{MAX_PATH_BYTES, Number, PathError};

use crate::shared::{Shared, now};

/// The context of one run.
pub(crate) struct RunContext<'a, B: Bot, S: Storage<B>, const W: usize> {
    shared: &'a Shared<B, S, W>,
    due: &'a Due,
    /// The list that the run has begun and not read to its end.
    list: Option<OwnId>,
}

impl<'a, B: Bot, S: Storage<B>, const W: usize> RunContext<'a, B, S, W> {
    pub(crate) const fn new(shared: &'a Shared<B, S, W>, due: &'a Due) -> Self {
        RunContext { shared, due, list: None }
    }

    /// Queues a request of the bot's own as soon as no other run has one under way.
    async fn begin(
        &self,
        request: OwnRequest,
        draft: Option<&EntityDraft<'_>>,
    ) -> Result<OwnId, BackendError> {
        loop {
            let seen = self.shared.changes.count();
            if let Some(id) = self.shared.now(|c| c.start_own(self.due, request, draft))? {
                self.shared.changes.tell();
                return Ok(id);
            }
            self.shared.changes.wait_since(seen).await;
        }
    }

    /// Waits for the next thing that a request of the bot's own brings.
    async fn progress(&self, id: OwnId, buf: &mut [u8]) -> Result<OwnProgress, BackendError> {
        loop {
            let seen = self.shared.changes.count();
            match self.shared.now(|c| c.poll_own(id, buf)) {
                Ok(OwnProgress::Pending) => self.shared.changes.wait_since(seen).await,
                result => {
                    // There is room for more of the answer, or for another run's request.
                    self.shared.changes.tell();
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
        &self,
        time: Option<UnixMillis>,
        path: &dyn fmt::Display,
        number: &dyn Fn() -> Result<grafolean_core::values::NumberText, HandOverError>,
    ) -> Result<(), HandOverError> {
        let path = PathText::of(path)?;
        let number = number()?;
        let (account, path) = (self.due.key.account, path.as_str()?);
        self.shared.with(|c| c.handle_value(account, time, path, &number))
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

impl<B: Bot, S: Storage<B>, const W: usize> Context for RunContext<'_, B, S, W> {
    type Bot = B;

    fn now(&self) -> Millis {
        now()
    }

    async fn sleep_ms(&mut self, ms: u32) {
        Timer::after_millis(u64::from(ms)).await;
    }

    fn entity(&mut self) -> Option<B::Entity> {
        self.shared.now(|c| c.entity(self.due.run, |e| e.details().clone()))
    }

    fn entity_name(&mut self) -> Option<B::Name> {
        self.shared.now(|c| c.entity(self.due.run, |e| e.name().clone()))
    }

    fn credential(&mut self) -> Option<B::Credential> {
        self.shared.now(|c| c.entity(self.due.run, |e| e.credential().clone()))
    }

    fn sensor(&mut self, n: usize) -> Option<Sensor<B::Sensor>> {
        self.shared.now(|c| c.sensor(self.due.run, n))
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
        self.shared.now(|c| c.get_state(&self.due.key, name, buf))
    }

    fn set_state(&mut self, name: &str, value: &[u8]) -> Result<(), StateError> {
        self.shared.now(|c| c.set_state(&self.due.key, name, value))
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
