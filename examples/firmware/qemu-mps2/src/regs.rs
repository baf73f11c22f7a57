//! The only place where registers of a peripheral are touched.
#![allow(unsafe_code)]

/// The registers of one peripheral, by their offset in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Regs(usize);

impl Regs {
    /// Of the peripheral at `base`.
    ///
    /// # Safety
    /// Its registers lie there, up to 4 kB, and reading and writing them does nothing to memory.
    pub(crate) const unsafe fn new(base: usize) -> Self {
        Regs(base)
    }

    pub(crate) fn read(self, offset: u16) -> u32 {
        debug_assert!(offset < 0x1000 && offset.is_multiple_of(4));
        // SAFETY: `new` was promised that a register lies there; it is aligned.
        unsafe { ((self.0 + offset as usize) as *const u32).read_volatile() }
    }

    pub(crate) fn write(self, offset: u16, value: u32) {
        debug_assert!(offset < 0x1000 && offset.is_multiple_of(4));
        // SAFETY: as above; that it does nothing to memory was promised, too.
        unsafe { ((self.0 + offset as usize) as *mut u32).write_volatile(value) }
    }
}

/// A buffer for one frame, in words as the hardware takes them.
pub(crate) struct Frame([u32; Frame::WORDS]);

impl Frame {
    const WORDS: usize = 384;
    pub(crate) const EMPTY: Frame = Frame([0; Frame::WORDS]);

    pub(crate) fn words(&mut self) -> &mut [u32] {
        &mut self.0
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let bytes = size_of_val(&self.0);
        // SAFETY: the same memory for the same time; bytes need no alignment and every value is one.
        unsafe { core::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), bytes) }
    }
}
