//! Firmware of the W5500-EVB-Pico: an RP2040 with an ethernet socket.
//!
//! Pins: SPI0 on 16 (MISO), 18 (SCK), 19 (MOSI); chip select 17, reset 20, interrupt 21.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use cortex_m::peripheral::SCB;
use defmt_rtt as _;
use embassy_executor::Spawner;
use embassy_net::{Config, DhcpConfig, StackResources};
use embassy_net_wiznet::chip::W5500;
use embassy_net_wiznet::{Device, Runner, State};
use embassy_rp::clocks::RoscRng;
use embassy_rp::flash::Flash;
use embassy_rp::gpio::{Input, Level, Output, Pull};
use embassy_rp::peripherals::{DMA_CH0, DMA_CH1, FLASH, SPI0};
use embassy_rp::spi::{self, Spi};
use embassy_rp::watchdog::Watchdog;
use embassy_rp::{Peri, bind_interrupts, dma, rom_data};
use embassy_time::{Delay, Timer};
use embedded_hal_bus::spi::ExclusiveDevice;
use grafolean_firmware::embassy::net::EchoMemory;
use grafolean_firmware::{Control, PINGS, SOCKETS, run};
use grafolean_rp2040::{ChipThermometer, SETTINGS, feed, say_why, start};
use panic_probe as _;
use portable_atomic as _;
use static_cell::{ConstStaticCell, StaticCell};

bind_interrupts!(struct Irqs {
    DMA_IRQ_0 => dma::InterruptHandler<DMA_CH0>, dma::InterruptHandler<DMA_CH1>;
});

const FLASH_BYTES: usize = 2 * 1024 * 1024;
/// The chip can do 80 MHz; the RP2040 makes 62.5 or 31.25 MHz of its 125 MHz.
const SPI_HZ: u32 = 50_000_000;

type Ethernet = ExclusiveDevice<Spi<'static, SPI0, spi::Async>, Output<'static>, Delay>;

#[embassy_executor::task]
async fn drive_ethernet(runner: Runner<'static, W5500, Ethernet, Input<'static>, Output<'static>>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn drive_stack(mut runner: embassy_net::Runner<'static, Device<'static>>) -> ! {
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

    let mac = mac_address(p.FLASH);
    let mut spi_config = spi::Config::default();
    spi_config.frequency = SPI_HZ;
    let spi = Spi::new(p.SPI0, p.PIN_18, p.PIN_19, p.PIN_16, p.DMA_CH0, p.DMA_CH1, Irqs, spi_config);
    let select = Output::new(p.PIN_17, Level::High);
    let interrupt = Input::new(p.PIN_21, Pull::Up);
    let reset = Output::new(p.PIN_20, Level::High);
    static STATE: ConstStaticCell<State<4, 4>> = ConstStaticCell::new(State::new());
    let Ok(bus) = ExclusiveDevice::new(spi, select, Delay);
    let ethernet = embassy_net_wiznet::new(mac, STATE.take(), bus, interrupt, reset).await;
    let (device, runner) = match ethernet {
        Ok(parts) => parts,
        Err(why) => {
            defmt::error!("no W5500, trying again in 10 s: {}", defmt::Debug2Format(&why));
            Timer::after_secs(10).await;
            SCB::sys_reset();
        }
    };
    start(&spawner, drive_ethernet(runner));

    let mut random = RoscRng;
    static RESOURCES: ConstStaticCell<StackResources<SOCKETS>> = ConstStaticCell::new(StackResources::new());
    let resources = RESOURCES.take();
    let dhcp = Config::dhcpv4(DhcpConfig::default());
    let (stack, runner) = embassy_net::new(device, dhcp, resources, random.next_u64());
    start(&spawner, drive_stack(runner));

    static THERMOMETER: StaticCell<ChipThermometer> = StaticCell::new();
    let thermometer = THERMOMETER.init(ChipThermometer::new(p.ADC, p.ADC_TEMP_SENSOR));
    static PINGS_MEMORY: ConstStaticCell<EchoMemory<PINGS>> = ConstStaticCell::new(EchoMemory::new());
    defmt::info!("started, MAC address {=[u8]:02x}", mac);
    let ends = run(
        stack,
        &SETTINGS,
        PINGS_MEMORY.take(),
        thermometer,
        random.next_u64(),
        control,
        #[cfg(feature = "tls")]
        grafolean_firmware::Random(grafolean_rp2040::random),
    )
    .await;
    say_why(&ends);
}

/// A locally administered address made of the flash chip's serial number, as the board has none of its own.
fn mac_address(flash: Peri<'static, FLASH>) -> [u8; 6] {
    let mut id = [0; 8];
    // The serial number is read by the boot ROM's functions. Emulators have none, and one board each.
    if rom_data::rom_version_number() != 0 {
        let mut flash = Flash::<_, _, FLASH_BYTES>::new_blocking(flash);
        if flash.blocking_unique_id(&mut id).is_err() {
            defmt::warn!("the flash has no serial number: this MAC address is that of all such boards");
        }
    }
    // FNV-1a: serial numbers of a batch differ in few bits, not always in the last ones.
    let hash = id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let [a, b, c, d, e, ..] = hash.to_le_bytes();
    [0x02, a, b, c, d, e]
}
