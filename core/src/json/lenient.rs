//! Types for settings that come as numbers or as strings with numbers in them: [`LenientInt`], [`DurationMs`], and serde
//! for [`Decimal`].

use core::fmt::{self, Write};
use core::marker::PhantomData;
use core::ops::Deref;
use core::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use super::number::{Decimal, DecimalParser, NumberError};

/// The name under which a [`Decimal`] asks [`from_slice`](super::from_slice) for the text of a number. Other formats
/// don't know it and give a number of their own.
pub(super) const DECIMAL: &str = "$grafolean_core::json::Decimal";

/// From a number, or a string that holds one, in any format of serde that describes itself; exact and without floating
/// point under [`from_slice`](super::from_slice).
impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(DECIMAL, DecimalVisitor)
    }
}

struct DecimalVisitor;

impl<'de> Visitor<'de> for DecimalVisitor {
    type Value = Decimal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or a string with one")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Decimal, E> {
        Decimal::parse(text).map_err(|_| E::invalid_value(Unexpected::Other("string"), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Decimal, E> {
        Ok(Decimal::from(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Decimal, E> {
        Ok(Decimal::from(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Decimal, E> {
        // The shortest decimal that stands for this float.
        struct Digits(DecimalParser);
        impl Write for Digits {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                text.bytes().for_each(|byte| self.0.push(byte));
                Ok(())
            }
        }
        let mut digits = Digits(DecimalParser::new());
        let written = write!(digits, "{number}").map_err(|_| NumberError::NotANumber);
        written
            .and_then(|()| digits.0.finish())
            .map_err(|_| E::invalid_value(Unexpected::Float(number), &self))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Decimal, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A whole number that may be written `3`, `3.0`, `"3"` or `"1.0"`, as the web page's forms do.
///
/// Under [`from_slice`](super::from_slice) plain integers take all of these already; this type does so in any format.
///
/// ```
/// use grafolean_core::json::LenientInt;
///
/// let retries: Vec<LenientInt<u8>> = serde_json::from_str(r#"[3, 3.0, "3", " 3.0 "]"#)?;
/// assert!(retries.iter().all(|retry| **retry == 3));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LenientInt<T>(pub T);

impl<T> Deref for LenientInt<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: TryFrom<u64> + TryFrom<i64>> Deserialize<'de> for LenientInt<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = Decimal::deserialize(deserializer)?.to_int();
        number
            .map(Self)
            .map_err(|_| D::Error::invalid_value(Unexpected::Other("number"), &IntOf::<T>(PhantomData)))
    }
}

struct IntOf<T>(PhantomData<T>);

impl<T> serde::de::Expected for IntOf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number ({})", core::any::type_name::<T>())
    }
}

/// A span of time, kept in milliseconds, that is written as seconds: `2`, `2.0`, `0.25`, `"2"`, `"2.5"`.
///
/// Finer than a millisecond is rounded to the nearest. Negative ones and those over 4294967.295 s are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DurationMs(pub u32);

impl DurationMs {
    /// Its length in milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u32 {
        self.0
    }
}

impl From<DurationMs> for Duration {
    fn from(duration: DurationMs) -> Self {
        Self::from_millis(duration.0.into())
    }
}

impl TryFrom<Decimal> for DurationMs {
    type Error = NumberError;

    /// From seconds.
    fn try_from(seconds: Decimal) -> Result<Self, NumberError> {
        let millis = seconds.to_scaled(3)?;
        u32::try_from(millis).map(Self).map_err(|_| NumberError::OutOfRange)
    }
}

impl<'de> Deserialize<'de> for DurationMs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(Decimal::deserialize(deserializer)?)
            .map_err(|_| D::Error::invalid_value(Unexpected::Other("number"), &"0 to 4294967.295 seconds"))
    }
}
