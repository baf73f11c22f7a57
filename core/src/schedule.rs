//! When each slot is due.

/// Room for one interval of one slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    phase: u32,
    packed: u32,
}
impl Entry {
    /// Room for an entry.
    pub const EMPTY: Self = Entry { phase: 0, packed: 0 };
}
/// Room for one distinct interval.
#[derive(Clone, Copy, Debug)]
pub struct Class {}
impl Class {
    /// Room for a class.
    pub const EMPTY: Self = Class {};
}
/// Room for an extra run.
#[derive(Clone, Copy, Debug)]
pub struct Extra {}
impl Extra {
    /// Room for an extra run.
    pub const EMPTY: Self = Extra {};
}
