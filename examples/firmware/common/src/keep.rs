//! Whether a bot's values are kept in flash: by the type of what [`collect`](crate::collect) is given.

use grafolean_embassy::core::bot::Bot;
use grafolean_embassy::core::outbox::Ledger;
use grafolean_embassy::core::storage::Storage;
use grafolean_embassy::{DriverSettings, Observer, SetupError, Shared, Transport};

pub(crate) trait Keep {
    async fn run<B: Bot, S: Storage<B>, T: Transport, O: Observer, const W: usize>(
        self,
        bot: &B,
        shared: &Shared<B, S, W>,
        transport: &mut T,
        observer: &O,
        settings: &DriverSettings,
    ) -> Result<Ledger, SetupError>;
}

/// In RAM only.
impl Keep for () {
    async fn run<B: Bot, S: Storage<B>, T: Transport, O: Observer, const W: usize>(
        self,
        bot: &B,
        shared: &Shared<B, S, W>,
        transport: &mut T,
        observer: &O,
        settings: &DriverSettings,
    ) -> Result<Ledger, SetupError> {
        grafolean_embassy::run(bot, shared, transport, observer, settings).await
    }
}

#[cfg(feature = "flash")]
impl<F: grafolean_embassy::flash::MultiwriteNorFlash> Keep for &grafolean_embassy::flash::Flash<F> {
    async fn run<B: Bot, S: Storage<B>, T: Transport, O: Observer, const W: usize>(
        self,
        bot: &B,
        shared: &Shared<B, S, W>,
        transport: &mut T,
        observer: &O,
        settings: &DriverSettings,
    ) -> Result<Ledger, SetupError> {
        grafolean_embassy::flash::run_with_flash(bot, shared, transport, observer, settings, self).await
    }
}
