//! The chip's own thermometer (RP2040 datasheet, section 4.9.5).

use core::cell::RefCell;

use embassy_rp::Peri;
use embassy_rp::adc::{Adc, Blocking, Channel, Config};
use embassy_rp::peripherals::{ADC, ADC_TEMP_SENSOR};
use grafolean_firmware::Gauge;
use grafolean_firmware::embassy::core::values::Decimal;

/// The reference voltage of the converter, in microvolts.
const REFERENCE_UV: i64 = 3_300_000;
/// The converter's steps: 12 bits.
const STEPS: i64 = 4096;
/// The sensor's voltage at 27 °C, in microvolts.
const AT_27_UV: i64 = 706_000;
/// How much it falls with each degree, in microvolts.
const PER_DEGREE_UV: i64 = 1_721;

/// The thermometer on the chip, in degrees Celsius. It is rough: one step of the converter is half a degree, chips differ
/// by some degrees, and it shows the chip, which is warmer than its room.
pub struct ChipThermometer {
    parts: RefCell<(Adc<'static, Blocking>, Channel<'static>)>,
}

impl ChipThermometer {
    /// Takes the converter.
    #[must_use]
    pub fn new(adc: Peri<'static, ADC>, sensor: Peri<'static, ADC_TEMP_SENSOR>) -> Self {
        let adc = Adc::new_blocking(adc, Config::default());
        ChipThermometer { parts: RefCell::new((adc, Channel::new_temp_sensor(sensor))) }
    }
}

impl Gauge for ChipThermometer {
    fn read(&self) -> Result<Decimal, &'static str> {
        let (adc, channel) = &mut *self.parts.borrow_mut();
        // It takes 2 µs, so there is nothing to wait for.
        let steps = adc.blocking_read(channel).map_err(|_| "the converter failed")?;
        let sensor_uv = i64::from(steps) * REFERENCE_UV / STEPS;
        let thousandths = 27_000 - (sensor_uv - AT_27_UV) * 1_000 / PER_DEGREE_UV;
        Ok(Decimal { mantissa: thousandths / 100, exponent: -1 })
    }
}
