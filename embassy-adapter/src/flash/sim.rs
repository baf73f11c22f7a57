//! A NOR flash in memory that behaves as badly as a real one may: for tests and simulations.

use core::fmt;

use embedded_storage_async::nor_flash::{
    ErrorType, MultiwriteNorFlash, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};
use grafolean_core::random::SplitMix64;

/// Into how many pieces an erasure can be cut.
const ERASE_STEPS: u32 = 4;

/// A NOR flash in the memory `M`, with one counter of erasures per page in `E`; both may be owned or borrowed.
///
/// It is written in words of `WORD` bytes and erased in pages of `PAGE` bytes. Writing changes bits from 1 to 0 only: anything else
/// is an error, as is what is not aligned or out of bounds.
///
/// ```
/// use embedded_storage_async::nor_flash::{NorFlash, ReadNorFlash};
/// use grafolean_embassy::flash::sim::SimNor;
///
/// let (mut bytes, mut erasures) = ([0xff; 8192], [0; 2]);
/// let mut nor: SimNor<_, _, 4, 4096> = SimNor::new(&mut bytes, &mut erasures, 1);
/// # embassy_futures::block_on(async {
/// nor.write(8, &[1, 2, 3, 4]).await.unwrap();
/// assert!(nor.write(8, &[0xff, 2, 3, 4]).await.is_err(), "no bit is set by writing");
/// nor.cut_after(0);
/// assert!(nor.erase(0, 4096).await.is_err(), "the power is gone");
/// nor.power_on();
/// nor.erase(0, 4096).await.unwrap();
/// # });
/// assert_eq!(nor.erasures(), [2, 0], "the one that was cut wears too");
/// ```
///
/// # Power cuts
/// Each word written is a step, and each quarter of a page erased. After [`cut_after`](SimNor::cut_after) so many steps succeed; the next one
/// is done in part: some of the bits that it would change, by the seed, are changed. Everything fails from then on until
/// [`power_on`](SimNor::power_on). The quarters of a page are erased in an order that the seed gives, so that a page whose erasure was cut
/// may look erased at both ends and not be so in the middle.
///
/// # Errors
/// [`SimNorError`].
pub struct SimNor<M, E, const WORD: usize, const PAGE: usize> {
    bytes: M,
    erasures: E,
    random: SplitMix64,
    /// Steps until the power is cut.
    left: Option<u64>,
    /// Erasures until one is cut, and its quarters until then.
    cut_erasure: Option<(u32, u32)>,
    off: bool,
    failing: bool,
    steps: u64,
}

/// Why a simulated flash refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SimNorError {
    /// The range is not aligned to words or pages.
    NotAligned {
        /// Where it begins, in bytes.
        at: u32,
    },
    /// The range is not within the flash.
    OutOfBounds {
        /// Where it ends, in bytes.
        end: u64,
        /// The size of the flash in bytes.
        size: usize,
    },
    /// A bit that is 0 was to become 1 by writing.
    BitSet {
        /// The byte.
        at: u32,
    },
    /// The power is off.
    PowerCut,
    /// The flash was told to fail.
    Failing,
}

impl fmt::Display for SimNorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SimNorError::NotAligned { at } => write!(f, "flash access at {at} is not aligned"),
            SimNorError::OutOfBounds { end, size } => {
                write!(f, "flash access up to {end} is over the size of {size} bytes")
            }
            SimNorError::BitSet { at } => write!(f, "writing would set a bit of byte {at}: erase first"),
            SimNorError::PowerCut => f.write_str("power was cut"),
            SimNorError::Failing => f.write_str("flash fails"),
        }
    }
}

impl core::error::Error for SimNorError {}

impl NorFlashError for SimNorError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            SimNorError::NotAligned { .. } => NorFlashErrorKind::NotAligned,
            SimNorError::OutOfBounds { .. } => NorFlashErrorKind::OutOfBounds,
            _ => NorFlashErrorKind::Other,
        }
    }
}

impl<M, E, const WORD: usize, const PAGE: usize> SimNor<M, E, WORD, PAGE>
where
    M: AsRef<[u8]> + AsMut<[u8]>,
    E: AsRef<[u32]> + AsMut<[u32]>,
{
    /// A flash with this content: 0xff is erased. What `erasures` has no place for is not counted. Partial steps follow from `seed`.
    #[must_use]
    pub fn new(bytes: M, erasures: E, seed: u64) -> Self {
        let random = SplitMix64::new(seed);
        SimNor {
            bytes,
            erasures,
            random,
            left: None,
            cut_erasure: None,
            off: false,
            failing: false,
            steps: 0,
        }
    }

    /// The power is cut within the step after so many more; see the type's description.
    pub fn cut_after(&mut self, steps: u64) {
        self.left = Some(steps);
    }

    /// The power is cut while a page is erased: after so many pages more, and so many quarters of that one.
    pub fn cut_erasure_after(&mut self, pages: u32, quarters: u32) {
        self.cut_erasure = Some((pages, quarters));
    }

    /// The power comes back; the content is what the cut left.
    pub fn power_on(&mut self) {
        (self.left, self.cut_erasure, self.off) = (None, None, false);
    }

    /// Whether the power was cut.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.off
    }

    /// From now on writing and erasing fail without effect, or do not.
    pub fn fail(&mut self, failing: bool) {
        self.failing = failing;
    }

    /// Inverts a bit: `bit` counts from the lowest bit of byte 0. Nothing happens beyond the end.
    pub fn flip(&mut self, bit: u64) {
        let at = usize::try_from(bit / 8).unwrap_or(usize::MAX);
        if let Some(byte) = self.bytes.as_mut().get_mut(at) {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// Steps done so far: words written and quarters of pages erased.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// How often each page was erased, completely or in part.
    #[must_use]
    pub fn erasures(&self) -> &[u32] {
        self.erasures.as_ref()
    }

    /// The content.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// Gives the memory back.
    pub fn into_parts(self) -> (M, E) {
        (self.bytes, self.erasures)
    }

    fn check(&self, from: u32, end: u64, align: usize) -> Result<(), SimNorError> {
        if self.off {
            return Err(SimNorError::PowerCut);
        }
        let size = self.bytes.as_ref().len();
        if end > size as u64 || u64::from(from) > end {
            return Err(SimNorError::OutOfBounds { end, size });
        }
        if !(from as usize).is_multiple_of(align) || !end.is_multiple_of(align as u64) {
            return Err(SimNorError::NotAligned { at: from });
        }
        Ok(())
    }

    /// Whether the next step is done completely; afterwards the power may be off.
    fn step(&mut self) -> bool {
        match &mut self.left {
            Some(0) => self.off = true,
            Some(left) => *left -= 1,
            None => {}
        }
        self.steps += u64::from(!self.off);
        !self.off
    }
}

impl<M, E, const WORD: usize, const PAGE: usize> ErrorType for SimNor<M, E, WORD, PAGE> {
    type Error = SimNorError;
}

impl<M, E, const WORD: usize, const PAGE: usize> ReadNorFlash for SimNor<M, E, WORD, PAGE>
where
    M: AsRef<[u8]> + AsMut<[u8]>,
    E: AsRef<[u32]> + AsMut<[u32]>,
{
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SimNorError> {
        let end = u64::from(offset) + bytes.len() as u64;
        self.check(offset, end, 1)?;
        let from = offset as usize;
        if let Some(content) = self.bytes.as_ref().get(from..from + bytes.len()) {
            bytes.copy_from_slice(content);
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.as_ref().len()
    }
}

impl<M, E, const WORD: usize, const PAGE: usize> NorFlash for SimNor<M, E, WORD, PAGE>
where
    M: AsRef<[u8]> + AsMut<[u8]>,
    E: AsRef<[u32]> + AsMut<[u32]>,
{
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), SimNorError> {
        self.check(from, u64::from(to), PAGE)?;
        if self.failing {
            return Err(SimNorError::Failing);
        }
        for page in (from as usize / PAGE)..(to as usize / PAGE) {
            if let Some(n) = self.erasures.as_mut().get_mut(page) {
                *n = n.saturating_add(1);
            }
            match &mut self.cut_erasure {
                Some((0, quarters)) => self.left = Some(u64::from(*quarters % ERASE_STEPS)),
                Some((pages, _)) => *pages -= 1,
                None => {}
            }
            let first = self.random.next_u64() as u32;
            for step in 0..ERASE_STEPS {
                let piece = PAGE / ERASE_STEPS as usize;
                let start = page * PAGE + (first.wrapping_add(step) % ERASE_STEPS) as usize * piece;
                let whole = self.step();
                for at in start..start + piece {
                    let set = if whole { 0xff } else { self.random.next_u64() as u8 };
                    if let Some(byte) = self.bytes.as_mut().get_mut(at) {
                        *byte |= set;
                    }
                }
                if !whole {
                    return Err(SimNorError::PowerCut);
                }
            }
        }
        Ok(())
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SimNorError> {
        let end = u64::from(offset) + bytes.len() as u64;
        self.check(offset, end, WORD)?;
        if self.failing {
            return Err(SimNorError::Failing);
        }
        let old = self.bytes.as_ref().iter().skip(offset as usize);
        if let Some(at) = old.zip(bytes).position(|(old, new)| new & !old != 0) {
            return Err(SimNorError::BitSet { at: offset + at as u32 });
        }
        for (word, new) in bytes.chunks(WORD).enumerate() {
            let whole = self.step();
            let start = offset as usize + word * WORD;
            for (at, new) in (start..).zip(new) {
                let kept = if whole { 0 } else { self.random.next_u64() as u8 };
                if let Some(byte) = self.bytes.as_mut().get_mut(at) {
                    *byte &= new | kept;
                }
            }
            if !whole {
                return Err(SimNorError::PowerCut);
            }
        }
        Ok(())
    }
}

impl<M, E, const WORD: usize, const PAGE: usize> MultiwriteNorFlash for SimNor<M, E, WORD, PAGE>
where
    M: AsRef<[u8]> + AsMut<[u8]>,
    E: AsRef<[u32]> + AsMut<[u32]>,
{
}
