//! Firmware of ESP32-C3 and ESP32-C6 boards: the ping bot and the chip's temperature, over Wi-Fi.
//!
//! Messages go to the serial port (USB), at level `info`: see `ESP_LOG` in `.cargo/config.toml`.
#![no_std]
#![no_main]

use core::fmt::Debug;

use embassy_executor::Spawner;
use embassy_futures::select::{Either, select};
use embassy_net::{DhcpConfig, StackResources};
use embassy_time::{Timer, with_timeout};
use esp_backtrace as _;
use esp_hal::clock::CpuClock;
use esp_hal::peripherals::TIMG0;
use esp_hal::ram;
use esp_hal::rng::Rng;
use esp_hal::time::Duration;
use esp_hal::timer::timg::{MwdtStage, TimerGroup, Wdt};
use esp_hal::tsens::{Config as SensorConfig, TemperatureSensor};
use esp_radio::wifi::sta::StationConfig;
use esp_radio::wifi::{AuthenticationMethodConfig, Config, ControllerConfig, Interface, WifiController};
use grafolean_firmware::embassy::core::values::Decimal;
use grafolean_firmware::embassy::net::EchoMemory;
use grafolean_firmware::{Control, Ends, Gauge, PINGS, SOCKETS, Settings, run};
use static_cell::{ConstStaticCell, StaticCell};

esp_bootloader_esp_idf::esp_app_desc!();

/// The settings that this firmware was built with.
const SETTINGS: Settings<'static> = include!(concat!(env!("OUT_DIR"), "/settings.rs"));

/// The chip starts again when the watchdog was not fed for so long, in seconds.
const WATCHDOG_PERIOD_S: u64 = 8;
/// From one look at the bots to the next, in seconds.
const LOOK_S: u64 = 1;
/// The driver waits for what the radio says of a join, however long that takes.
const JOIN_LIMIT: embassy_time::Duration = embassy_time::Duration::from_secs(30);
/// From a join that failed to the next, in seconds.
const JOIN_PAUSE_S: u64 = 5;
/// After so many failed requests without a value delivered the network is joined again. Requests are repeated after waits that grow to
/// minutes, so this takes some minutes: less would cut off a board that only has a backend that is down.
const FAILED_REQUESTS_LIMIT: u32 = 8;

/// The thermometer on the chip, in degrees Celsius. It is not calibrated, and shows the chip, which is warmer than its room.
struct ChipThermometer(TemperatureSensor<'static>);

impl Gauge for ChipThermometer {
    fn read(&self) -> Result<Decimal, &'static str> {
        let reading = self.0.get_temperature();
        // What the driver computes as f32: 0.4386 · raw - 27.88 · offset - 20.52 (technical reference, "Temperature Sensor").
        let ten_thousandths =
            i64::from(reading.raw_value) * 4_386 - i64::from(reading.offset) * 278_800 - 205_200;
        Ok(Decimal { mantissa: ten_thousandths / 1_000, exponent: -1 })
    }
}

#[embassy_executor::task]
async fn drive_stack(mut runner: embassy_net::Runner<'static, Interface>) {
    runner.run().await;
}

/// Feeds the watchdog as long as the loops of all bots come round.
#[embassy_executor::task]
async fn feed_watchdog(mut watchdog: Wdt<TIMG0<'static>>, control: &'static Control) {
    watchdog.enable();
    watchdog.set_timeout(MwdtStage::Stage0, Duration::from_secs(WATCHDOG_PERIOD_S));
    loop {
        if control.is_alive() {
            watchdog.feed();
        }
        Timer::after_secs(LOOK_S).await;
    }
}

#[esp_rtos::main]
async fn main(spawner: Spawner) {
    esp_println::logger::init_logger_from_env();
    let p = esp_hal::init(esp_hal::Config::default().with_cpu_clock(CpuClock::max()));
    // The radio allocates; our code does not. The first piece is what the boot loader has used.
    esp_alloc::heap_allocator!(#[ram(reclaimed)] size: 64 * 1024);
    esp_alloc::heap_allocator!(size: 36 * 1024);
    let timers = TimerGroup::new(p.TIMG0);
    esp_rtos::start(timers.timer0, p.FROM_CPU_INTR0);

    static CONTROL: StaticCell<Control> = StaticCell::new();
    let control: &Control = CONTROL.init(Control::new());
    match feed_watchdog(timers.wdt, control) {
        Ok(task) => spawner.spawn(task),
        Err(why) => log::error!("no watchdog: {why:?}"),
    }

    static THERMOMETER: StaticCell<ChipThermometer> = StaticCell::new();
    let Some(sensor) = or_say("thermometer", TemperatureSensor::new(p.TSENS, SensorConfig::default())) else {
        return;
    };
    let thermometer = THERMOMETER.init(ChipThermometer(sensor));

    let Some(station) = station() else { return };
    let config = ControllerConfig::default().with_initial_config(Config::Station(station));
    let Some(radio) = or_say("Wi-Fi", WifiController::new(p.WIFI, config)) else { return };

    // True random numbers, as the radio is on.
    let random = Rng::new();
    let seed = || u64::from(random.random()) << 32 | u64::from(random.random());
    static RESOURCES: ConstStaticCell<StackResources<SOCKETS>> = ConstStaticCell::new(StackResources::new());
    let resources = RESOURCES.take();
    let dhcp = embassy_net::Config::dhcpv4(DhcpConfig::default());
    let (stack, runner) = embassy_net::new(Interface::station(), dhcp, resources, seed());
    match drive_stack(runner) {
        Ok(task) => spawner.spawn(task),
        Err(why) => log::error!("no network stack: {why:?}"),
    }

    static PINGS_MEMORY: ConstStaticCell<EchoMemory<PINGS>> = ConstStaticCell::new(EchoMemory::new());
    let bots = run(
        stack,
        &SETTINGS,
        PINGS_MEMORY.take(),
        thermometer,
        seed(),
        control,
        #[cfg(feature = "tls")]
        grafolean_firmware::Random(fill_with_random),
    );
    if let Either::First(ends) = select(bots, stay_joined(radio, control)).await {
        say_why(&ends);
    }
}

/// Fills `buf` by the chip's true random generator; `false`: the radio, whose noise it takes, is off.
///
/// What the generator gives is thermal noise, sampled and mixed by hardware (technical reference, "Random Number Generator"). Espressif
/// says that it passes Dieharder; it has no certificate. It runs on between two words, so each is mixed anew. TLS hashes 64 bytes of it
/// for each connection.
#[cfg(feature = "tls")]
fn fill_with_random(buf: &mut [u8]) -> bool {
    let Ok(generator) = esp_hal::rng::Trng::try_new() else { return false };
    generator.read(buf);
    true
}

/// The network to be joined. `None` if there is none.
fn station() -> Option<StationConfig> {
    if SETTINGS.wifi_ssid.is_empty() {
        log::error!("WIFI_SSID is not set: there is no network to join");
        return None;
    }
    let authentication = match SETTINGS.wifi_password {
        "" => AuthenticationMethodConfig::Open,
        password => {
            let Ok(password) = password.try_into() else {
                log::error!("WIFI_PASSWORD can't be used: the radio takes 8 to 63 characters");
                return None;
            };
            AuthenticationMethodConfig::Wpa2Personal(password)
        }
    };
    let Ok(ssid) = SETTINGS.wifi_ssid.try_into() else {
        log::error!("WIFI_SSID can't be used");
        return None;
    };
    Some(StationConfig::default().with_ssid(ssid).with_authentication(authentication))
}

/// Joins the network, and again when it is lost or seems to be.
async fn stay_joined(mut radio: WifiController<'static>, control: &Control) {
    loop {
        if !matches!(with_timeout(JOIN_LIMIT, radio.connect_async()).await, Ok(Ok(_))) {
            log::warn!("could not join the network: is it in reach, and is the password right?");
            Timer::after_secs(JOIN_PAUSE_S).await;
            continue;
        }
        log::info!("joined the network");
        let lost = radio.wait_for_disconnect_async();
        match select(lost, control.many_failed_requests(FAILED_REQUESTS_LIMIT)).await {
            Either::First(_) => log::warn!("the network is lost"),
            Either::Second(()) => {
                log::warn!("{FAILED_REQUESTS_LIMIT} requests failed: joining the network again");
                let _ = radio.disconnect_async().await;
            }
        }
    }
}

/// Bots end only if they can't be run.
fn say_why(ends: &Ends) {
    for (name, end) in [("ping bot", ends.ping), ("sensor bot", ends.sensor)] {
        if let Some(Err(why)) = end {
            log::error!("{name}: {why}");
        }
    }
    if ends.ping.is_none() && ends.sensor.is_none() {
        log::error!("neither PING_BOT_TOKEN nor SENSOR_BOT_TOKEN is set: there is nothing to do");
    }
}

fn or_say<T, E: Debug>(what: &str, result: Result<T, E>) -> Option<T> {
    result.inspect_err(|why| log::error!("{what}: {why:?}")).ok()
}
