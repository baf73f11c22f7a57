//! HTTPS: a bot's connection, the random numbers that it needs, its time.

use core::cell::Cell;
use core::fmt;
use core::num::NonZeroU32;

use embassy_time::Timer;
use grafolean_embassy::http::{self, ConnectError};
use grafolean_embassy::net::NetConnector;
use grafolean_embassy::tls::rand_core::{CryptoRng, Error, RngCore};
use grafolean_embassy::tls::{LEAST_WRITE, READ, Tls, TlsSettings, TlsSetupError, Trust};
use grafolean_firmware_settings::Settings;

/// The board's random numbers: a function that fills what it is given, and says whether it could.
///
/// It must be the board's true random generator (the RNG of an ESP32 while its radio is on, the TRNG of an RP2350, at the least the ring
/// oscillator of an RP2040), never a counter or a clock: whoever can guess it can read what is sent, the token too.
#[derive(Clone, Copy)]
pub struct Random(pub fn(&mut [u8]) -> bool);

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Random").finish_non_exhaustive()
    }
}

impl RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// All zeros if the board has none: TLS, which takes the next one, refuses them.
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        if self.try_fill_bytes(dest).is_err() {
            dest.fill(0);
        }
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        const NO_RANDOMNESS: NonZeroU32 = NonZeroU32::MIN.saturating_add(Error::CUSTOM_START);
        if (self.0)(dest) { Ok(()) } else { Err(NO_RANDOMNESS.into()) }
    }
}

impl CryptoRng for Random {}

/// A record in each direction.
pub(crate) struct Records {
    read: [u8; READ],
    write: [u8; LEAST_WRITE],
}

impl Records {
    pub(crate) const fn new() -> Self {
        Records { read: [0; READ], write: [0; LEAST_WRITE] }
    }
}

/// Seconds since 1970, if known.
type Clock<'a> = &'a dyn Fn() -> Option<u64>;

/// How often a bot looks whether the other one's handshake has ended, in milliseconds.
const LOOK_MS: u64 = 20;

/// A [`Tls`] whose handshakes take turns with the other bot's: each computes for seconds on a small chip, and two of them without a pause in
/// between would leave the watchdog hungry.
pub(crate) struct Connector<'a> {
    tls: Tls<'a, NetConnector<'static>, Random, Clock<'a>>,
    busy: &'a Cell<bool>,
}

/// The right to connect. It ends when this is dropped.
struct Turn<'a>(&'a Cell<bool>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl<'b> http::Connector for Connector<'b> {
    type Stream<'a>
        = <Tls<'b, NetConnector<'static>, Random, Clock<'b>> as http::Connector>::Stream<'a>
    where
        Self: 'a;

    const TLS: bool = true;

    async fn connect(&mut self, host: &str, port: u16) -> Result<Self::Stream<'_>, ConnectError> {
        while self.busy.get() {
            Timer::after_millis(LOOK_MS).await;
        }
        self.busy.set(true);
        let _turn = Turn(self.busy);
        self.tls.connect(host, port).await
    }

    fn close<'a>(stream: Self::Stream<'a>) -> impl Future<Output = ()>
    where
        Self: 'a,
    {
        <Tls<'b, NetConnector<'static>, Random, Clock<'b>> as http::Connector>::close(stream)
    }
}

/// The server's key if it was given, else the authorities.
pub(crate) fn trust(settings: &Settings<'static>) -> Trust<'static> {
    match settings.backend_keys {
        [] => Trust::Authorities(settings.backend_ca),
        keys => Trust::Keys(keys),
    }
}

/// Speaks TLS over `inner` with the servers that are trusted.
pub(crate) fn connector<'a>(
    inner: NetConnector<'static>,
    random: Random,
    clock: Clock<'a>,
    trust: Trust<'static>,
    records: &'a mut Records,
    busy: &'a Cell<bool>,
) -> Result<Connector<'a>, TlsSetupError> {
    let settings = TlsSettings::new(trust);
    let tls = Tls::new(inner, random, clock, settings, &mut records.read, &mut records.write)?;
    Ok(Connector { tls, busy })
}
