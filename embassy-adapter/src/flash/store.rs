//! The flash itself: which pages there are, what is in them, how they are put right after a power cut.

use core::fmt;
use core::ops::Range;

use embassy_futures::yield_now;
use embedded_storage_async::nor_flash::{
    ErrorType, MultiwriteNorFlash, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};
use sequential_storage::Error;
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::map::{MapConfig, MapStorage};
use sequential_storage::queue::{QueueConfig, QueueStorage};

use super::record::{RECORD_BYTES, Record};

/// Pages of the map, of which one is always free for moving: what is put right after a power cut goes by there being two.
const MAP_PAGES: u32 = 2;
/// States that are forgotten after one look at the map.
const FORGET_STATES: usize = 8;
/// Pages of the queue at least: with three it can be told which one's erasure was cut.
const QUEUE_PAGES: u32 = 3;
/// The largest word of a flash that is supported, in bytes.
const MAX_WORD_BYTES: usize = 32;
/// Records that give way at once.
const GIVE_WAY_RECORDS: u32 = 4;
/// After so many records others have their turn.
const YIELD_RECORDS: u32 = 16;
/// Bytes of a page that are looked at at once.
const LOOK_BYTES: usize = 64;

/// The key of an item of the map: of a state, the hashes of its job and name.
pub(super) type Key = [u8; 16];
/// Where boot number, record number and erasures are kept.
const META: Key = *b"grafolean board\0";

/// Why flash can't be used, or could not be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FlashError {
    /// The range does not begin and end at pages of the flash.
    NotAligned {
        /// Where it begins, in bytes.
        start: u32,
        /// Where it ends, in bytes.
        end: u32,
        /// The size of a page in bytes.
        page: usize,
    },
    /// The range has too few pages.
    TooFewPages {
        /// What it has.
        pages: u32,
        /// What is needed.
        needed: u32,
    },
    /// The range goes beyond the end of the flash.
    OutOfBounds {
        /// Where it ends, in bytes.
        end: u32,
        /// The size of the flash in bytes.
        size: usize,
    },
    /// A page has no room for the longest record, or words are too long.
    Geometry {
        /// The size of a page in bytes.
        page: usize,
        /// The size of a word in bytes.
        word: usize,
    },
    /// The flash's driver told of an error.
    Device(
        /// Its kind.
        Kind,
    ),
    /// What is in flash makes no sense, even after repair.
    Corrupt,
}

/// The kind of an error of the flash's driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Kind {
    /// It was asked for what is not aligned.
    NotAligned,
    /// It was asked for what it has not.
    OutOfBounds,
    /// Anything else.
    Other,
}

impl fmt::Display for FlashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlashError::NotAligned { start, end, page } => {
                write!(f, "flash from {start} to {end}: not a multiple of its pages of {page} bytes")
            }
            FlashError::TooFewPages { pages, needed } => {
                write!(f, "flash of {pages} pages: at least {needed} are needed")
            }
            FlashError::OutOfBounds { end, size } => {
                write!(f, "flash up to {end}: it ends at {size}")
            }
            FlashError::Geometry { page, word } => {
                write!(f, "flash with pages of {page} bytes and words of {word} bytes can't be used")
            }
            FlashError::Device(Kind::NotAligned) => f.write_str("flash driver: not aligned"),
            FlashError::Device(Kind::OutOfBounds) => f.write_str("flash driver: out of bounds"),
            FlashError::Device(Kind::Other) => f.write_str("flash does not read, write or erase"),
            FlashError::Corrupt => f.write_str("flash holds what could not be repaired"),
        }
    }
}

impl core::error::Error for FlashError {}

/// What flash has gone through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Wear {
    /// Times that a page was erased, those of states included, of all boots. It is written down at each start and once for each round
    /// of pages: a power cut makes it miss as many as there are pages, at most. Pages of values are used in turn, and so are the
    /// two of states.
    pub erasures: u32,
    /// Bytes written since this start.
    pub written_bytes: u64,
    /// Starts so far.
    pub boots: u32,
    /// Pages in use.
    pub pages: u32,
}

/// What is to become of a record that was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Visit {
    Keep,
    Forget,
    /// Look no further; this one is kept.
    Stop,
}

/// A buffer that flash drivers can take words from.
#[repr(align(4))]
struct Aligned<const N: usize>([u8; N]);

/// Counts what is written and erased, and makes sure that what is left of a page of the map can't be taken for the whole of it.
struct Counted<F> {
    flash: F,
    written: u64,
    erased: u32,
    /// Pages that are made unreadable before they are erased: a power cut may leave some items of a page, and its marks or not.
    map: Range<u32>,
    /// A page that reads as erased, for a look at another one alone.
    hidden: Option<u32>,
}

impl<F: NorFlash> Counted<F> {
    /// Writes zeros over the items of a page; its marks stay.
    async fn blank(&mut self, page: u32) -> Result<(), F::Error> {
        let word = if F::WRITE_SIZE > F::READ_SIZE { F::WRITE_SIZE } else { F::READ_SIZE } as u32;
        let (mut at, end) = (page + word, page + F::ERASE_SIZE as u32 - word);
        while at < end {
            let zeros = Aligned([0; LOOK_BYTES]);
            let zeros = zeros.0.get(..(end - at) as usize).unwrap_or(&zeros.0);
            self.written += zeros.len() as u64;
            self.flash.write(at, zeros).await?;
            at += zeros.len() as u32;
        }
        Ok(())
    }
}

impl<F: ErrorType> ErrorType for Counted<F> {
    type Error = F::Error;
}

impl<F: NorFlash> ReadNorFlash for Counted<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), F::Error> {
        self.flash.read(offset, bytes).await?;
        if self.hidden.is_some_and(|page| (page..page + F::ERASE_SIZE as u32).contains(&offset)) {
            bytes.fill(0xff);
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.flash.capacity()
    }
}

impl<F: NorFlash> NorFlash for Counted<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), F::Error> {
        let mut page = from;
        while page < to && self.map.contains(&page) {
            self.blank(page).await?;
            page += F::ERASE_SIZE as u32;
        }
        self.erased = self.erased.saturating_add((to - from) / F::ERASE_SIZE as u32);
        self.flash.erase(from, to).await
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), F::Error> {
        self.written += bytes.len() as u64;
        self.flash.write(offset, bytes).await
    }
}

impl<F: MultiwriteNorFlash> MultiwriteNorFlash for Counted<F> {}

type Queue<F> = QueueStorage<Counted<F>, Cache<Uncached, Uncached, Uncached>>;

/// Records and states in flash.
pub(super) struct Store<F: MultiwriteNorFlash> {
    queue: Queue<F>,
    map: Range<u32>,
    buffer: Aligned<RECORD_BYTES>,
    boot: u32,
    next: u32,
    /// Erasures of earlier boots, and how many of this one are written down.
    erasures: u32,
    noted: u32,
    /// Records whose bytes could be read but not understood, and were forgotten.
    unreadable: u32,
    /// Pages were looked at since the last error.
    sound: bool,
    /// The map could not be repaired and was begun anew: its states are to be written again.
    states_lost: bool,
    /// A state had to make room for the numbers of this boot.
    states_full: bool,
}

impl<F: MultiwriteNorFlash> Store<F> {
    const WORD: usize = if F::WRITE_SIZE > F::READ_SIZE { F::WRITE_SIZE } else { F::READ_SIZE };

    /// Nothing is read yet.
    pub(super) fn new(flash: F, range: Range<u32>) -> Result<Self, FlashError> {
        let (start, end, page) = (range.start, range.end, F::ERASE_SIZE);
        let needed = MAP_PAGES + QUEUE_PAGES;
        // Two words of marks, a record with its header, and as much again for the items of the map.
        if Self::WORD > MAX_WORD_BYTES || page < 2 * (RECORD_BYTES + 3 * MAX_WORD_BYTES) {
            return Err(FlashError::Geometry { page, word: Self::WORD });
        }
        let page = page as u32;
        if !start.is_multiple_of(page) || !end.is_multiple_of(page) {
            return Err(FlashError::NotAligned { start, end, page: F::ERASE_SIZE });
        }
        let pages = end.saturating_sub(start) / page;
        if pages < needed {
            return Err(FlashError::TooFewPages { pages, needed });
        }
        if end as usize > flash.capacity() {
            return Err(FlashError::OutOfBounds { end, size: flash.capacity() });
        }
        let map_end = start + MAP_PAGES * page;
        let config = QueueConfig::try_new(map_end..end)
            .map_err(|_| FlashError::Geometry { page: F::ERASE_SIZE, word: Self::WORD })?;
        let counted = Counted { flash, written: 0, erased: 0, map: start..map_end, hidden: None };
        Ok(Store {
            queue: QueueStorage::new(counted, config, Cache::new_uncached()),
            map: start..map_end,
            buffer: Aligned([0; RECORD_BYTES]),
            boot: 0,
            next: 1,
            erasures: 0,
            noted: 0,
            unreadable: 0,
            sound: false,
            states_lost: false,
            states_full: false,
        })
    }

    pub(super) fn wear(&mut self) -> Wear {
        let pages = self.queue.flash_range().len() / F::ERASE_SIZE;
        let counted = self.queue.flash();
        Wear {
            erasures: self.erasures.saturating_add(counted.erased),
            written_bytes: counted.written,
            boots: self.boot,
            pages: pages as u32 + MAP_PAGES,
        }
    }

    pub(super) fn flash(&mut self) -> &mut F {
        &mut self.queue.flash().flash
    }

    pub(super) fn into_flash(self) -> F {
        self.queue.destroy().0.flash
    }

    pub(super) const fn boot(&self) -> u32 {
        self.boot
    }

    /// Records that were forgotten because they could not be understood, since the last call.
    pub(super) fn take_unreadable(&mut self) -> u32 {
        core::mem::take(&mut self.unreadable)
    }

    /// Whether all states are to be written again, as the flash could not be repaired, since the last call.
    pub(super) fn take_states_lost(&mut self) -> bool {
        core::mem::take(&mut self.states_lost)
    }

    /// Whether a state had to be given up for want of room, since the last call.
    pub(super) fn take_states_full(&mut self) -> bool {
        core::mem::take(&mut self.states_full)
    }

    /// Puts right what a power cut left, shows all records that are there and all states (each in its latest form, and maybe
    /// earlier ones before), and counts the boot.
    pub(super) async fn begin(
        &mut self,
        found: &mut dyn FnMut(&Record<'_>) -> Visit,
        state: &mut dyn FnMut(&Key, &[u8]),
    ) -> Result<(), FlashError> {
        self.look_at_pages().await?;
        let [boot, next, erasures] = self.read_meta().await?;
        self.boot = boot.wrapping_add(1).max(1);
        self.next = next.max(1);
        self.erasures = erasures;
        let mut highest = 0;
        self.each(&mut |record| {
            highest = highest.max(record.number);
            found(record)
        })
        .await?;
        self.next = self.next.max(highest.wrapping_add(1)).max(1);
        // Before anything is written to the map.
        self.states(state).await?;
        self.note_meta().await
    }

    async fn read_meta(&mut self) -> Result<[u32; 3], FlashError> {
        let mut meta = [0; 12];
        let len = self.state(&META, &mut meta).await?;
        let mut numbers = [0; 3];
        if len == Some(meta.len()) {
            for (number, bytes) in numbers.iter_mut().zip(meta.chunks_exact(4)) {
                *number = bytes.try_into().map_or(0, u32::from_le_bytes);
            }
        }
        Ok(numbers)
    }

    async fn note_meta(&mut self) -> Result<(), FlashError> {
        let erased = self.queue.flash().erased;
        let numbers = [self.boot, self.next, self.erasures.saturating_add(erased)];
        let mut meta = [0; 12];
        for (bytes, number) in meta.chunks_exact_mut(4).zip(numbers) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        // As a rule the first one fits. Where states fill the map, one is worth less than these.
        while !self.put(&META, &meta).await? {
            let mut other = None;
            self.states(&mut |key, _| other = other.or(Some(*key))).await?;
            let Some(key) = other else { return Err(FlashError::Corrupt) };
            self.remove(&key).await?;
            self.states_full = true;
        }
        self.noted = erased;
        Ok(())
    }

    /// Writes down how many pages were erased, once for each round of pages.
    async fn note_erasures(&mut self) -> Result<(), FlashError> {
        let pages = self.queue.flash_range().len() / F::ERASE_SIZE;
        if self.queue.flash().erased.wrapping_sub(self.noted) < pages as u32 {
            return Ok(());
        }
        self.note_meta().await
    }

    /// Writes a record: its number, or `None` if `write` gave none. `write` gets the number and the buffer, and gives the length; it is
    /// asked again if room had to be made. The oldest records make room; `gone` is told of each, and may refuse for now: `None` then.
    pub(super) async fn push(
        &mut self,
        write: &mut dyn FnMut(u32, &mut [u8]) -> Option<usize>,
        gone: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Option<u32>, FlashError> {
        self.make_sound().await?;
        // Each time some of the oldest page's records give way: never more often than it has room for records.
        for _ in 0..F::ERASE_SIZE / 32 {
            let Some(len) = write(self.next, &mut self.buffer.0) else { return Ok(None) };
            let Some(bytes) = self.buffer.0.get(..len) else { return Ok(None) };
            match self.queue.push(bytes, false).await {
                Ok(()) => {
                    let number = self.next;
                    self.next = self.next.wrapping_add(1).max(1);
                    self.note_erasures().await?;
                    return Ok(Some(number));
                }
                Err(Error::FullStorage) => {
                    if !self.make_room(len, gone).await? {
                        return Ok(None);
                    }
                }
                Err(error) => {
                    // Nobody knows what was written: the number is not used again.
                    self.next = self.next.wrapping_add(1).max(1);
                    return Err(self.fault(&error));
                }
            }
        }
        self.sound = false;
        Err(FlashError::Corrupt)
    }

    /// Forgets the oldest records until one of this length fits, unless `gone` refuses.
    async fn make_room(&mut self, len: usize, gone: &mut dyn FnMut(u32) -> bool) -> Result<bool, FlashError> {
        for _ in 0..F::ERASE_SIZE / 32 {
            if !self.give_way(gone).await? {
                return Ok(false);
            }
            let fits = match self.queue.find_max_fit().await {
                Ok(fits) => fits,
                Err(error) => return Err(self.fault(&error)),
            };
            if fits.is_some_and(|fits| fits as usize >= len) {
                break;
            }
        }
        Ok(true)
    }

    /// Forgets some of the oldest records, unless `gone` refuses. A page of which nothing is left is erased when it is needed.
    async fn give_way(&mut self, gone: &mut dyn FnMut(u32) -> bool) -> Result<bool, FlashError> {
        let (mut left, mut refused) = (GIVE_WAY_RECORDS, false);
        self.each(&mut |record| {
            refused = left > 0 && !gone(record.number);
            if left == 0 || refused {
                return Visit::Stop;
            }
            left -= 1;
            Visit::Forget
        })
        .await?;
        Ok(!refused)
    }

    /// Looks at all records, oldest first.
    pub(super) async fn each(
        &mut self,
        visit: &mut dyn FnMut(&Record<'_>) -> Visit,
    ) -> Result<(), FlashError> {
        self.make_sound().await?;
        let done = Self::walk(&mut self.queue, &mut self.buffer.0, &mut self.unreadable, visit).await;
        done.map_err(|error| self.fault(&error))
    }

    async fn walk(
        queue: &mut Queue<F>,
        buffer: &mut [u8],
        unreadable: &mut u32,
        visit: &mut dyn FnMut(&Record<'_>) -> Visit,
    ) -> Result<(), Error<F::Error>> {
        let mut records = queue.iter().await?;
        let mut looked_at = 0_u32;
        while let Some(entry) = records.next(buffer).await? {
            looked_at = looked_at.wrapping_add(1);
            if looked_at.is_multiple_of(YIELD_RECORDS) {
                // Drivers of flash seldom wait, and others have something to do.
                yield_now().await;
            }
            let what = match Record::read(&entry) {
                Some(record) => visit(&record),
                None => {
                    *unreadable += 1;
                    Visit::Forget
                }
            };
            match what {
                Visit::Keep => {}
                Visit::Forget => {
                    entry.pop().await?;
                }
                Visit::Stop => return Ok(()),
            }
        }
        Ok(())
    }

    /// Reads a state into `buf`: its length.
    pub(super) async fn state(&mut self, key: &Key, buf: &mut [u8]) -> Result<Option<usize>, FlashError> {
        let config = Self::map_config(&self.map)?;
        let mut map = MapStorage::<Key, _, _>::new(self.queue.flash(), config, Cache::new_uncached());
        let found = map.fetch_item::<&[u8]>(&mut self.buffer.0, key).await;
        match found {
            Ok(Some(bytes)) => Ok(buf.get_mut(..bytes.len()).map(|to| {
                to.copy_from_slice(bytes);
                bytes.len()
            })),
            Ok(None) => Ok(None),
            Err(error) => Err(Self::map_fault(&error)),
        }
    }

    /// Whether the map has an item of this key.
    async fn has(&mut self, key: &Key) -> Result<bool, FlashError> {
        let config = Self::map_config(&self.map)?;
        let mut map = MapStorage::<Key, _, _>::new(self.queue.flash(), config, Cache::new_uncached());
        let found = map.fetch_item::<&[u8]>(&mut self.buffer.0, key).await;
        found.map(|found| found.is_some()).map_err(|error| Self::map_fault(&error))
    }

    /// Writes a state. `false` if there is no room for it: what was there before remains.
    pub(super) async fn set_state(&mut self, key: &Key, bytes: &[u8]) -> Result<bool, FlashError> {
        let written = self.put(key, bytes).await?;
        self.note_erasures().await?;
        Ok(written)
    }

    /// Writes an item of the map. `false` if there is no room for it.
    async fn put(&mut self, key: &Key, bytes: &[u8]) -> Result<bool, FlashError> {
        self.make_sound().await?;
        for again in [true, false] {
            let config = Self::map_config(&self.map)?;
            let mut map = MapStorage::<Key, _, _>::new(self.queue.flash(), config, Cache::new_uncached());
            match map.store_item(&mut self.buffer.0, key, &bytes).await {
                Ok(()) => return Ok(true),
                Err(Error::FullStorage) => return Ok(false),
                // What can't be repaired is given up: the collector has all states, they are written again.
                Err(Error::Corrupted { .. }) if again => {
                    let erased = map.erase_all().await;
                    erased.map_err(|error| self.fault(&error))?;
                    self.states_lost = true;
                }
                Err(error) => return Err(self.fault(&error)),
            }
        }
        Err(FlashError::Corrupt)
    }

    /// Forgets the states that `keep` does not want: one word of each is written again, nothing is erased.
    pub(super) async fn retain_states(
        &mut self,
        keep: &mut dyn FnMut(&Key) -> bool,
    ) -> Result<(), FlashError> {
        self.make_sound().await?;
        // Each time some are forgotten: never more often than there is room for states.
        for _ in 0..F::ERASE_SIZE / 16 {
            let mut gone = heapless::Vec::<Key, FORGET_STATES>::new();
            self.states(&mut |key, _| {
                if !gone.is_full() && !gone.contains(key) && !keep(key) {
                    let _ = gone.push(*key);
                }
            })
            .await?;
            if gone.is_empty() {
                return Ok(());
            }
            for key in &gone {
                self.remove(key).await?;
            }
        }
        self.sound = false;
        Err(FlashError::Corrupt)
    }

    /// Forgets an item of the map, older forms first: a power cut brings none of them back.
    async fn remove(&mut self, key: &Key) -> Result<(), FlashError> {
        let config = Self::map_config(&self.map)?;
        let mut map = MapStorage::<Key, _, _>::new(self.queue.flash(), config, Cache::new_uncached());
        let removed = map.remove_item(&mut self.buffer.0, key).await;
        removed.map_err(|error| self.fault(&error))
    }

    /// All states, each in its latest form, and maybe earlier ones before.
    async fn states(&mut self, visit: &mut dyn FnMut(&Key, &[u8])) -> Result<(), FlashError> {
        self.items(&mut |key, bytes| {
            if *key != META {
                visit(key, bytes);
            }
        })
        .await
    }

    /// All items of the map.
    async fn items(&mut self, visit: &mut dyn FnMut(&Key, &[u8])) -> Result<(), FlashError> {
        let config = Self::map_config(&self.map)?;
        let mut map = MapStorage::<Key, _, _>::new(self.queue.flash(), config, Cache::new_uncached());
        let mut items = map.fetch_all_items(&mut self.buffer.0).await.map_err(|e| Self::map_fault(&e))?;
        while let Some((key, bytes)) =
            items.next::<&[u8]>(&mut self.buffer.0).await.map_err(|e| Self::map_fault(&e))?
        {
            visit(&key, bytes);
        }
        Ok(())
    }

    fn map_config<'f>(range: &Range<u32>) -> Result<MapConfig<&'f mut Counted<F>>, FlashError>
    where
        F: 'f,
    {
        MapConfig::try_new(range.clone()).map_err(|_| FlashError::Corrupt)
    }

    /// Looks at all pages again after an error.
    async fn make_sound(&mut self) -> Result<(), FlashError> {
        if self.sound { Ok(()) } else { self.look_at_pages().await }
    }

    fn fault(&mut self, error: &Error<F::Error>) -> FlashError {
        self.sound = false;
        Self::map_fault(error)
    }

    fn map_fault(error: &Error<F::Error>) -> FlashError {
        match error {
            Error::Storage { value, .. } => Self::device(value),
            _ => FlashError::Corrupt,
        }
    }

    fn device(error: &F::Error) -> FlashError {
        FlashError::Device(match error.kind() {
            NorFlashErrorKind::NotAligned => Kind::NotAligned,
            NorFlashErrorKind::OutOfBounds => Kind::OutOfBounds,
            _ => Kind::Other,
        })
    }

    /// Erases again what was being erased when the power was cut. A page is marked by its first word when it is begun and by its last one
    /// when it is full, and the queue goes by these marks alone; an erasure that was cut may leave any of them.
    async fn look_at_pages(&mut self) -> Result<(), FlashError> {
        let (map, queue) = (self.map.clone(), self.queue.flash_range());
        for range in [map, queue.clone()] {
            let mut at = range.start;
            while at < range.end {
                let (begun, full) = self.marks(at).await?;
                if !begun && (full || !self.is_erased(at).await?) {
                    self.erase(at).await?;
                }
                at += F::ERASE_SIZE as u32;
            }
        }
        self.finish_move().await?;
        self.erase_second_begun(queue).await?;
        self.sound = true;
        Ok(())
    }

    /// Both pages of the map are begun: items were being moved from the one that is full to the other, or the former was being erased after
    /// that. It is erased if the other one has all that can be read of it: so nothing is moved from what is left of a page whose erasure
    /// was cut. If the other one lacks something, the move was cut; the map itself repeats it.
    async fn finish_move(&mut self) -> Result<(), FlashError> {
        let (one, other) = (self.map.start, self.map.start + F::ERASE_SIZE as u32);
        let ((one_begun, one_full), (other_begun, other_full)) =
            (self.marks(one).await?, self.marks(other).await?);
        if !one_begun || !other_begun {
            return Ok(());
        }
        for (from, to, is_source) in
            [(one, other, one_full && !other_full), (other, one, other_full && !one_full)]
        {
            // Where the marks don't say which one it is, its erasure was cut: it was made unreadable before.
            let needless = if is_source {
                self.has_all_of(to, from).await?
            } else {
                self.item_of(from, to, 0).await?.is_none()
            };
            if needless {
                return self.erase(from).await;
            }
        }
        Ok(())
    }

    /// Whether the page `to` of the map has each key that is in its page `from`.
    async fn has_all_of(&mut self, to: u32, from: u32) -> Result<bool, FlashError> {
        let mut at = 0;
        while let Some(key) = self.item_of(from, to, at).await? {
            self.queue.flash().hidden = Some(from);
            let found = self.has(&key).await;
            self.queue.flash().hidden = None;
            if !found? {
                return Ok(false);
            }
            at += 1;
        }
        Ok(true)
    }

    /// The key of the item at this place among those in the page `from` of the map, while the page `other` is not looked at.
    async fn item_of(&mut self, from: u32, other: u32, place: usize) -> Result<Option<Key>, FlashError> {
        debug_assert!(from != other);
        self.queue.flash().hidden = Some(other);
        let (mut at, mut found) = (0, None);
        let looked = self
            .items(&mut |key, _| {
                if at == place {
                    found = Some(*key);
                }
                at += 1;
            })
            .await;
        self.queue.flash().hidden = None;
        looked.map(|()| found)
    }

    /// Two pages that are begun and not full: one is, the other was being erased. That is the oldest, from which on pages are full up to the
    /// other one.
    async fn erase_second_begun(&mut self, range: Range<u32>) -> Result<(), FlashError> {
        let page = F::ERASE_SIZE as u32;
        let (mut first, mut at) = (None, range.start);
        while at < range.end {
            let (begun, full) = self.marks(at).await?;
            if begun && !full {
                let Some(first) = first else {
                    first = Some(at);
                    at += page;
                    continue;
                };
                // Neighbours: what follows the second one decides.
                let between = if at - first > page { first + page } else { at + page };
                let between = if between == range.end { range.start } else { between };
                let (full, _) = self.marks(between).await?;
                let first_is_oldest = full == (at - first > page);
                return self.erase(if first_is_oldest { first } else { at }).await;
            }
            at += page;
        }
        Ok(())
    }

    /// Whether a page is marked as begun, and as full: as the queue sees it.
    async fn marks(&mut self, page: u32) -> Result<(bool, bool), FlashError> {
        let mut marked = [false; 2];
        for (marked, at) in marked.iter_mut().zip([page, page + (F::ERASE_SIZE - F::READ_SIZE) as u32]) {
            let mut word = Aligned([0; MAX_WORD_BYTES]);
            let word = word.0.get_mut(..F::READ_SIZE).unwrap_or_default();
            self.queue.flash().read(at, word).await.map_err(|e| Self::device(&e))?;
            *marked = word.iter().map(|byte| byte.count_zeros()).sum::<u32>() >= 4;
        }
        Ok(marked.into())
    }

    async fn is_erased(&mut self, page: u32) -> Result<bool, FlashError> {
        let mut at = page;
        while at < page + F::ERASE_SIZE as u32 {
            let mut bytes = Aligned([0; LOOK_BYTES]);
            self.queue.flash().read(at, &mut bytes.0).await.map_err(|e| Self::device(&e))?;
            if bytes.0.iter().any(|&byte| byte != 0xff) {
                return Ok(false);
            }
            at += LOOK_BYTES as u32;
        }
        Ok(true)
    }

    async fn erase(&mut self, page: u32) -> Result<(), FlashError> {
        let end = page + F::ERASE_SIZE as u32;
        self.queue.flash().erase(page, end).await.map_err(|e| Self::device(&e))
    }
}
