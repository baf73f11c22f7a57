//! Firmware of the Pico W: an RP2040 with Wi-Fi.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use cyw43::{JoinOptions, NetDriver, PowerManagementMode, SpiBus, State};
use cyw43_pio::{DEFAULT_CLOCK_DIVIDER, PioSpi};
use defmt_rtt as _;
use embassy_executor::Spawner;
use embassy_futures::select::{Either, select};
use embassy_net::{Config, DhcpConfig, StackResources};
use embassy_rp::clocks::RoscRng;
use embassy_rp::gpio::{Level, Output};
use embassy_rp::peripherals::{DMA_CH0, PIO0};
use embassy_rp::pio::{self, Pio};
use embassy_rp::watchdog::Watchdog;
use embassy_rp::{bind_interrupts, dma};
use embassy_time::{Duration, Timer, with_timeout};
use grafolean_firmware::embassy::net::EchoMemory;
use grafolean_firmware::{Control, PINGS, SOCKETS, run};
use grafolean_rp2040::{ChipThermometer, SETTINGS, feed, radio, say_why, start};
use panic_probe as _;
use portable_atomic as _;
use static_cell::{ConstStaticCell, StaticCell};

bind_interrupts!(struct Irqs {
    PIO0_IRQ_0 => pio::InterruptHandler<PIO0>;
    DMA_IRQ_0 => dma::InterruptHandler<DMA_CH0>;
});

/// The driver waits for what the radio says of a join, however long that takes.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// From a join that failed to the next, in seconds.
const JOIN_PAUSE_S: u64 = 5;
/// After so many failed requests without a value delivered the network is joined again. Requests are repeated after waits that grow to
/// minutes, so this takes some minutes: less would cut off a board that only has a backend that is down.
const FAILED_REQUESTS_LIMIT: u32 = 8;

type Bus = SpiBus<Output<'static>, PioSpi<'static, PIO0, 0>>;

#[embassy_executor::task]
async fn drive_radio(runner: cyw43::Runner<'static, Bus>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn drive_stack(mut runner: embassy_net::Runner<'static, NetDriver<'static>>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn feed_watchdog(watchdog: Watchdog, control: &'static Control) {
    feed(watchdog, control).await;
}

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    static CONTROL: StaticCell<Control> = StaticCell::new();
    let p = embassy_rp::init(embassy_rp::config::Config::default());
    // The first task: whatever hangs afterwards, the board starts again.
    let control: &Control = CONTROL.init(Control::new());
    start(&spawner, feed_watchdog(Watchdog::new(p.WATCHDOG), control));

    let power = Output::new(p.PIN_23, Level::Low);
    let chip_select = Output::new(p.PIN_25, Level::High);
    let mut pio = Pio::new(p.PIO0, Irqs);
    let (clock, data, dma) = (p.PIN_29, p.PIN_24, dma::Channel::new(p.DMA_CH0, Irqs));
    let divider = DEFAULT_CLOCK_DIVIDER;
    let bus = PioSpi::new(&mut pio.common, pio.sm0, divider, pio.irq0, chip_select, data, clock, dma);
    // It is not all zeros: as a constant it would be in flash, with all its packets.
    static STATE: StaticCell<State> = StaticCell::new();
    let state = STATE.init_with(State::new);
    let (device, mut radio_control, runner) =
        cyw43::new(state, power, bus, radio::FIRMWARE, radio::NVRAM).await;
    start(&spawner, drive_radio(runner));
    radio_control.init(radio::CLM).await;
    // A radio that sleeps between beacons would add its sleep to each ping's round trip.
    radio_control.set_power_management(PowerManagementMode::None).await;

    let mut random = RoscRng;
    static RESOURCES: ConstStaticCell<StackResources<SOCKETS>> = ConstStaticCell::new(StackResources::new());
    let resources = RESOURCES.take();
    let dhcp = Config::dhcpv4(DhcpConfig::default());
    let (stack, runner) = embassy_net::new(device, dhcp, resources, random.next_u64());
    start(&spawner, drive_stack(runner));

    static THERMOMETER: StaticCell<ChipThermometer> = StaticCell::new();
    let thermometer = THERMOMETER.init(ChipThermometer::new(p.ADC, p.ADC_TEMP_SENSOR));
    static PINGS_MEMORY: ConstStaticCell<EchoMemory<PINGS>> = ConstStaticCell::new(EchoMemory::new());
    let bots = run(
        stack,
        &SETTINGS,
        PINGS_MEMORY.take(),
        thermometer,
        random.next_u64(),
        control,
        #[cfg(feature = "tls")]
        grafolean_firmware::Random(grafolean_rp2040::random),
    );
    if let Either::First(ends) = select(bots, stay_joined(&mut radio_control, control)).await {
        say_why(&ends);
    }
}

/// Joins the network, and again when it is lost: the radio may go on showing a link that is not there any more.
async fn stay_joined(radio: &mut cyw43::Control<'_>, control: &Control) {
    if SETTINGS.wifi_ssid.is_empty() {
        defmt::error!("WIFI_SSID is not set: there is no network to join");
        core::future::pending::<()>().await;
    }
    loop {
        let options = match SETTINGS.wifi_password {
            "" => JoinOptions::new_open(),
            password => JoinOptions::new(password.as_bytes()),
        };
        if !matches!(with_timeout(JOIN_LIMIT, radio.join(SETTINGS.wifi_ssid, options)).await, Ok(Ok(()))) {
            defmt::warn!("could not join the network: is it in reach, and is the password right?");
            Timer::after_secs(JOIN_PAUSE_S).await;
            continue;
        }
        defmt::info!("joined the network");
        control.many_failed_requests(FAILED_REQUESTS_LIMIT).await;
        defmt::warn!("{=u32} requests failed: joining the network again", FAILED_REQUESTS_LIMIT);
        radio.leave().await;
    }
}
