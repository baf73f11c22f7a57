//! The durable outbox of a host: values that wait are kept in files and survive the end of the process.

mod disk;
#[cfg(any(test, feature = "test-disk"))]
pub mod faulty;

pub use disk::{Disk, Entry, RealDisk};
