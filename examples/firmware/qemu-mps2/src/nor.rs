//! A NOR flash of 64 kB that is simulated in a file of the machine that QEMU runs on, so that it outlives QEMU.
//!
//! FOR THE EMULATOR ONLY: a board has a driver of its flash, `embassy_rp::flash` for example, in the place of [`FileNor`]. As in a real
//! one, writing only clears bits; what would set one is an error. If QEMU is killed, what was written so far stays.

use core::cell::RefCell;

use critical_section::Mutex;
use embedded_storage_async::nor_flash::{
    ErrorType, MultiwriteNorFlash, NorFlash, NorFlashErrorKind, ReadNorFlash,
};
use grafolean_firmware::embassy::flash::{Flash, FlashError, FlashSettings};

use crate::host::File;

const PAGE: usize = 4096;
const WORD: usize = 4;
/// 16 pages.
const SIZE: u32 = 64 * 1024;
/// Bytes that go to or come from the host at once.
const PIECE: usize = 256;

/// `FLASH_FILE` and `FLASH_STORE_AFTER_MS`.
static SETTINGS: Mutex<RefCell<(&str, FlashSettings)>> =
    Mutex::new(RefCell::new(("flash.bin", FlashSettings::DEFAULT)));

/// Takes a setting if it is one of the flash: whether it can be used.
pub(crate) fn set(key: &str, value: &'static str) -> Option<bool> {
    critical_section::with(|cs| {
        let (file, settings) = &mut *SETTINGS.borrow_ref_mut(cs);
        match key {
            "FLASH_FILE" => *file = value,
            "FLASH_STORE_AFTER_MS" => match value.parse() {
                Ok(ms) => settings.store_after_ms = ms,
                Err(_) => return Some(false),
            },
            _ => return None,
        }
        Some(!value.is_empty())
    })
}

/// The flash with these settings.
pub(crate) fn flash() -> Result<Flash<FileNor>, FlashError> {
    let (name, settings) = critical_section::with(|cs| *SETTINGS.borrow_ref(cs));
    Flash::new(FileNor { file: File::open(name, SIZE) }, 0..SIZE, settings)
}

/// The file as flash. Without a file everything fails.
pub(crate) struct FileNor {
    file: Option<File>,
}

impl FileNor {
    fn file(&self, from: u32, to: u32, align: usize) -> Result<&File, NorFlashErrorKind> {
        if from > to || to > SIZE {
            return Err(NorFlashErrorKind::OutOfBounds);
        }
        if !(from as usize).is_multiple_of(align) || !(to as usize).is_multiple_of(align) {
            return Err(NorFlashErrorKind::NotAligned);
        }
        self.file.as_ref().ok_or(NorFlashErrorKind::Other)
    }
}

impl ErrorType for FileNor {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for FileNor {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        let file = self.file(offset, offset.saturating_add(bytes.len() as u32), 1)?;
        if file.read(offset, bytes) { Ok(()) } else { Err(NorFlashErrorKind::Other) }
    }

    fn capacity(&self) -> usize {
        SIZE as usize
    }
}

impl NorFlash for FileNor {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        let file = self.file(from, to, PAGE)?;
        let erased = (from..to).step_by(PIECE).all(|at| file.write(at, &[0xff; PIECE]));
        if erased { Ok(()) } else { Err(NorFlashErrorKind::Other) }
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        let file = self.file(offset, offset.saturating_add(bytes.len() as u32), WORD)?;
        for (at, new) in (offset..).step_by(PIECE).zip(bytes.chunks(PIECE)) {
            let mut old = [0; PIECE];
            let old = old.get_mut(..new.len()).unwrap_or_default();
            let clears = file.read(at, old) && old.iter().zip(new).all(|(old, new)| new & !old == 0);
            if !clears || !file.write(at, new) {
                return Err(NorFlashErrorKind::Other);
            }
        }
        Ok(())
    }
}

impl MultiwriteNorFlash for FileNor {}
