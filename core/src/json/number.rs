//! Numbers as they are written, exactly and without floating point: [`Decimal`].

use core::fmt;
use core::num::NonZeroU64;

/// A decimal number, exact: 19 significant digits or a little more, and a power of ten.
///
/// It is for boards, where floating point costs kilobytes of flash, and for settings such as `2`, `2.0` or `"2.5"`, which
/// all mean a number. It is kept in its shortest form, so equal numbers compare equal, however they were written; `-0` is 0.
///
/// ```
/// use grafolean_core::json::{Decimal, NumberError};
///
/// let interval = Decimal::parse(" 60.0 ")?;
/// assert_eq!(interval.to_u64()?, 60);
/// assert_eq!(Decimal::parse("2.5")?.to_scaled(3)?, 2500); // seconds to milliseconds
/// assert_eq!(Decimal::parse("2.5")?.to_u64(), Err(NumberError::NotAnInteger));
/// # Ok::<(), NumberError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Decimal {
    negative: bool,
    /// Not divisible by 10, unless 0.
    magnitude: u64,
    exponent: i32,
}

/// Why a number can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum NumberError {
    /// The text is not a number.
    NotANumber,
    /// It has a fraction where a whole number is asked for.
    NotAnInteger,
    /// It is too large, too small, or negative where that can't be.
    OutOfRange,
    /// It has more significant digits than fit into 64 bits.
    TooManyDigits,
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotANumber => "not a number",
            Self::NotAnInteger => "not a whole number",
            Self::OutOfRange => "number out of range",
            Self::TooManyDigits => "number with too many digits",
        })
    }
}

impl core::error::Error for NumberError {}

impl Decimal {
    /// Reads a number: JSON's, or what web forms and Python's `float()` add to them (blanks around it, a plus sign, leading
    /// zeros, no digit before or after the point). No infinity, no NaN, no underscores.
    ///
    /// # Errors
    ///
    /// [`NumberError::NotANumber`]; [`NumberError::TooManyDigits`] where it would have to be rounded;
    /// [`NumberError::OutOfRange`] where the power of ten does not fit into 32 bits.
    pub fn parse(text: &str) -> Result<Self, NumberError> {
        let mut parser = DecimalParser::new();
        text.bytes().for_each(|byte| parser.push(byte));
        parser.finish()
    }

    /// Whether it is below 0.
    #[must_use]
    pub const fn is_negative(&self) -> bool {
        self.negative
    }

    /// Its digits as a whole number, not divisible by 10 (0 for 0): the number is ± magnitude · 10^exponent.
    #[must_use]
    pub const fn magnitude(&self) -> u64 {
        self.magnitude
    }

    /// Its power of ten (0 for 0).
    #[must_use]
    pub const fn exponent(&self) -> i32 {
        self.exponent
    }

    /// Its value as u64.
    ///
    /// # Errors
    ///
    /// [`NumberError::NotAnInteger`] with a fraction other than 0, [`NumberError::OutOfRange`].
    pub fn to_u64(&self) -> Result<u64, NumberError> {
        let whole = self.whole()?;
        if self.negative { Err(NumberError::OutOfRange) } else { Ok(whole) }
    }

    /// Its value as i64.
    ///
    /// # Errors
    ///
    /// [`NumberError::NotAnInteger`] with a fraction other than 0, [`NumberError::OutOfRange`].
    pub fn to_i64(&self) -> Result<i64, NumberError> {
        let whole = self.whole()?;
        if self.negative { 0i64.checked_sub_unsigned(whole) } else { 0i64.checked_add_unsigned(whole) }
            .ok_or(NumberError::OutOfRange)
    }

    /// Its value as any integer type.
    ///
    /// # Errors
    ///
    /// [`NumberError::NotAnInteger`] with a fraction other than 0, [`NumberError::OutOfRange`].
    pub fn to_int<T: TryFrom<u64> + TryFrom<i64>>(&self) -> Result<T, NumberError> {
        if self.negative { T::try_from(self.to_i64()?).ok() } else { T::try_from(self.to_u64()?).ok() }
            .ok_or(NumberError::OutOfRange)
    }

    /// Its value times 10^`places`, rounded to the nearest whole number (half away from 0): milliseconds from seconds
    /// with 3 places, microseconds with 6.
    ///
    /// # Errors
    ///
    /// [`NumberError::OutOfRange`], also if it is negative.
    pub fn to_scaled(&self, places: u8) -> Result<u64, NumberError> {
        if self.negative {
            return Err(NumberError::OutOfRange);
        }
        let exponent = self.exponent.saturating_add(i32::from(places));
        if exponent >= 0 {
            return times_power_of_ten(self.magnitude, exponent.unsigned_abs());
        }
        // 10^20 is more than twice any magnitude.
        let divisor = times_power_of_ten(1, exponent.unsigned_abs()).ok().and_then(NonZeroU64::new);
        let Some(divisor) = divisor else { return Ok(0) };
        let rest = self.magnitude % divisor;
        Ok(self.magnitude / divisor + u64::from(rest >= divisor.get() - rest))
    }

    fn whole(&self) -> Result<u64, NumberError> {
        let exponent = u32::try_from(self.exponent).map_err(|_| NumberError::NotAnInteger)?;
        times_power_of_ten(self.magnitude, exponent)
    }
}

/// `number` · 10^`exponent`, in at most 20 multiplications.
fn times_power_of_ten(mut number: u64, exponent: u32) -> Result<u64, NumberError> {
    if number != 0 {
        for _ in 0..exponent {
            number = number.checked_mul(10).ok_or(NumberError::OutOfRange)?;
        }
    }
    Ok(number)
}

impl From<u64> for Decimal {
    fn from(mut magnitude: u64) -> Self {
        let mut exponent = 0;
        while magnitude != 0 && magnitude.is_multiple_of(10) {
            magnitude /= 10;
            exponent += 1;
        }
        Self { negative: false, magnitude, exponent }
    }
}

impl From<i64> for Decimal {
    fn from(number: i64) -> Self {
        Self { negative: number < 0, ..Self::from(number.unsigned_abs()) }
    }
}

impl From<u32> for Decimal {
    fn from(number: u32) -> Self {
        Self::from(u64::from(number))
    }
}

impl core::str::FromStr for Decimal {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        Self::parse(text)
    }
}

/// As a number of JSON, exactly: `60`, `-2.5`, and with an exponent where it would need many zeros: `1e-40`.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The most zeros that are written out.
        const ZEROS: i32 = 20;
        if self.negative {
            f.write_str("-")?;
        }
        match self.exponent {
            0 => write!(f, "{}", self.magnitude),
            zeros @ 1..=ZEROS => {
                write!(f, "{}", self.magnitude)?;
                (0..zeros).try_for_each(|_| f.write_str("0"))
            }
            places if (-ZEROS..0).contains(&places) => {
                let divisor = (0..places.unsigned_abs()).try_fold(1u64, |power, _| power.checked_mul(10));
                let (before, after) = match divisor {
                    Some(divisor) => (self.magnitude / divisor, self.magnitude % divisor),
                    None => (0, self.magnitude),
                };
                write!(f, "{before}.{after:0width$}", width = places.unsigned_abs() as usize)
            }
            exponent => write!(f, "{}e{exponent}", self.magnitude),
        }
    }
}

/// Reads a [`Decimal`] byte by byte, so that its text need not lie in one piece.
#[derive(Debug)]
pub(super) struct DecimalParser {
    state: State,
    negative: bool,
    digit_seen: bool,
    magnitude: u64,
    /// Zeros since the last other digit: they count only if another one follows.
    zeros: i32,
    /// Minus the number of digits after the point.
    scale: i32,
    exponent_negative: bool,
    exponent: i32,
    too_many_digits: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    /// After the sign or in the digits before the point.
    Integer,
    Fraction,
    /// After `e`.
    Exponent,
    /// After the exponent's sign.
    ExponentSign,
    ExponentDigits,
    /// In the blanks at the end.
    End,
    Bad,
}

impl DecimalParser {
    pub(super) const fn new() -> Self {
        Self {
            state: State::Start,
            negative: false,
            digit_seen: false,
            magnitude: 0,
            zeros: 0,
            scale: 0,
            exponent_negative: false,
            exponent: 0,
            too_many_digits: false,
        }
    }

    pub(super) fn push(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            (State::Start, b'0'..=b'9') => {
                self.digit(byte - b'0');
                State::Integer
            }
            (State::Start, b'-' | b'+') => {
                self.negative = byte == b'-';
                State::Integer
            }
            (State::Integer | State::Fraction, b'0'..=b'9') => {
                if self.state == State::Fraction {
                    self.scale = self.scale.saturating_sub(1);
                }
                self.digit(byte - b'0');
                self.state
            }
            (State::Start | State::Integer, b'.') => State::Fraction,
            (State::Integer | State::Fraction, b'e' | b'E') if self.digit_seen => State::Exponent,
            (State::Exponent, b'-' | b'+') => {
                self.exponent_negative = byte == b'-';
                State::ExponentSign
            }
            (State::Exponent | State::ExponentSign | State::ExponentDigits, b'0'..=b'9') => {
                self.exponent = self.exponent.saturating_mul(10).saturating_add(i32::from(byte - b'0'));
                State::ExponentDigits
            }
            (State::Start | State::End, b' ' | b'\t' | b'\n' | b'\r') => self.state,
            (State::Integer | State::Fraction, b' ' | b'\t' | b'\n' | b'\r') if self.digit_seen => State::End,
            (State::ExponentDigits, b' ' | b'\t' | b'\n' | b'\r') => State::End,
            _ => State::Bad,
        };
    }

    fn digit(&mut self, digit: u8) {
        self.digit_seen = true;
        if digit == 0 {
            self.zeros = self.zeros.saturating_add(1);
            return;
        }
        let shifted = times_power_of_ten(self.magnitude, self.zeros.unsigned_abs() + 1).ok();
        match shifted.and_then(|shifted| shifted.checked_add(u64::from(digit))) {
            Some(magnitude) => self.magnitude = magnitude,
            None => self.too_many_digits = true,
        }
        self.zeros = 0;
    }

    pub(super) fn finish(self) -> Result<Decimal, NumberError> {
        let complete = match self.state {
            State::Integer | State::Fraction => self.digit_seen,
            State::ExponentDigits | State::End => true,
            _ => false,
        };
        if !complete {
            return Err(NumberError::NotANumber);
        }
        if self.too_many_digits {
            return Err(NumberError::TooManyDigits);
        }
        if self.magnitude == 0 {
            return Ok(Decimal::default());
        }
        let exponent = if self.exponent_negative { -self.exponent } else { self.exponent };
        let exponent = exponent
            .checked_add(self.scale)
            .and_then(|exponent| exponent.checked_add(self.zeros))
            .filter(|_| self.exponent < i32::MAX)
            .ok_or(NumberError::OutOfRange)?;
        Ok(Decimal { negative: self.negative, magnitude: self.magnitude, exponent })
    }
}
