//! What a running job is given on a host.

use core::fmt::{self, Write};
use core::time::Duration;

use grafolean_core::bot::{BackendError, Bot, Context, EntityDraft, HandOverError, Sensor, StateError};
use grafolean_core::collector::{OwnId, OwnProgress, OwnRequest};
use grafolean_core::heapless;
use grafolean_core::jobs::Due;
use grafolean_core::time::{Millis, UnixMillis};
use grafolean_core::values::{MAX_PATH_BYTES, Number, PathError, ValueError};

use super::Shared;
use crate::clock::system_unix_ms;

/// The [`Context`] of one run.
pub(super) struct RunContext<'a, B: Bot> {
    pub(super) shared: &'a Shared<B>,
    pub(super) due: Due,
    pub(super) list: Option<OwnId>,
    pub(super) values: u32,
}

impl<B: Bot> RunContext<'_, B> {
    fn hand_over(
        &mut self,
        time: UnixMillis,
        path: &dyn fmt::Display,
        number: impl Number,
    ) -> Result<(), HandOverError> {
        let number = number.number_text().map_err(|e| HandOverError::Value(ValueError::Number(e)))?;
        let mut text = PathText { text: heapless::String::new(), len: 0 };
        write!(text, "{path}").map_err(|_| HandOverError::Format)?;
        if text.len > text.text.len() {
            let error = PathError::TooLong { len: text.len, limit: MAX_PATH_BYTES };
            return Err(HandOverError::Value(ValueError::Path(error)));
        }
        let account = self.due.key.account;
        self.shared.with(|c| c.handle_value(account, Some(time), &text.text, &number))?;
        self.values += 1;
        self.shared.observer.value(&self.due, &text.text, number.as_str());
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Starts a request of the bot's own when no other run's is under way.
    async fn start(
        &mut self,
        request: OwnRequest,
        draft: Option<&EntityDraft<'_>>,
    ) -> Result<OwnId, BackendError> {
        self.list = None;
        loop {
            let mut changed = core::pin::pin!(self.shared.own_progress.notified());
            changed.as_mut().enable();
            let started = self.shared.with(|c| c.start_own(&self.due, request, draft))?;
            if let Some(id) = started {
                self.shared.changed.notify_one();
                return Ok(id);
            }
            changed.await;
        }
    }

    async fn progress(&mut self, id: OwnId, buf: &mut [u8]) -> Result<OwnProgress, BackendError> {
        loop {
            let mut changed = core::pin::pin!(self.shared.own_progress.notified());
            changed.as_mut().enable();
            let progress = self.shared.with(|c| c.poll_own(id, buf));
            if progress == Ok(OwnProgress::Pending) {
                changed.await;
                continue;
            }
            // Room for the next entity, or for another run's request.
            self.shared.own_room.notify_waiters();
            self.shared.own_progress.notify_waiters();
            return progress;
        }
    }

    async fn request(
        &mut self,
        request: OwnRequest,
        draft: Option<&EntityDraft<'_>>,
    ) -> Result<Option<u64>, BackendError> {
        let id = self.start(request, draft).await?;
        match self.progress(id, &mut []).await? {
            OwnProgress::Done(new) => Ok(new),
            OwnProgress::Pending | OwnProgress::Entity(_) => Ok(None),
        }
    }
}

/// A path being written: its length even where it does not fit.
struct PathText {
    text: heapless::String<MAX_PATH_BYTES>,
    len: usize,
}

impl Write for PathText {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.len += s.len();
        if self.len <= MAX_PATH_BYTES {
            let _ = self.text.push_str(s);
        }
        Ok(())
    }
}

impl<B: Bot> Context for RunContext<'_, B> {
    type Bot = B;

    fn now(&self) -> Millis {
        self.shared.now()
    }

    async fn sleep_ms(&mut self, ms: u32) {
        tokio::time::sleep(Duration::from_millis(ms.into())).await;
    }

    fn entity(&mut self) -> Option<B::Entity> {
        self.shared.with(|c| c.entity(self.due.run, |e| e.details().clone()))
    }

    fn entity_name(&mut self) -> Option<B::Name> {
        self.shared.with(|c| c.entity(self.due.run, |e| e.name().clone()))
    }

    fn credential(&mut self) -> Option<B::Credential> {
        self.shared.with(|c| c.entity(self.due.run, |e| e.credential().clone()))
    }

    fn sensor(&mut self, n: usize) -> Option<Sensor<B::Sensor>> {
        self.shared.with(|c| c.sensor(self.due.run, n))
    }

    fn value(&mut self, path: impl fmt::Display, number: impl Number) -> Result<(), HandOverError> {
        self.hand_over(UnixMillis(system_unix_ms()), &path, number)
    }

    fn value_at(
        &mut self,
        time: UnixMillis,
        path: impl fmt::Display,
        number: impl Number,
    ) -> Result<(), HandOverError> {
        self.hand_over(time, &path, number)
    }

    fn get_state(&mut self, name: &str, buf: &mut [u8]) -> Option<usize> {
        self.shared.with(|c| c.get_state(&self.due.key, name, buf))
    }

    fn set_state(&mut self, name: &str, value: &[u8]) -> Result<(), StateError> {
        self.shared.with(|c| c.set_state(&self.due.key, name, value))
    }

    async fn list_entities(&mut self) -> Result<(), BackendError> {
        let id = self.start(OwnRequest::List, None).await?;
        self.list = Some(id);
        Ok(())
    }

    async fn next_entity(&mut self, buf: &mut [u8]) -> Result<Option<usize>, BackendError> {
        let Some(id) = self.list else { return Ok(None) };
        match self.progress(id, buf).await {
            Ok(OwnProgress::Entity(len)) => Ok(Some(len)),
            Ok(OwnProgress::Done(_) | OwnProgress::Pending) => {
                self.list = None;
                Ok(None)
            }
            Err(too_long @ BackendError::TooLong { .. }) => Err(too_long),
            Err(error) => {
                self.list = None;
                Err(error)
            }
        }
    }

    async fn create_entity(&mut self, entity: &EntityDraft<'_>) -> Result<u64, BackendError> {
        let id = self.request(OwnRequest::Create, Some(entity)).await?;
        id.ok_or(BackendError::Answer { offset: 0 })
    }

    async fn update_entity(&mut self, id: u64, entity: &EntityDraft<'_>) -> Result<(), BackendError> {
        self.request(OwnRequest::Update(id), Some(entity)).await.map(|_| ())
    }

    async fn delete_entity(&mut self, id: u64) -> Result<(), BackendError> {
        self.request(OwnRequest::Delete(id), None).await.map(|_| ())
    }
}
