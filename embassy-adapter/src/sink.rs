//! Where messages go: to `log`, to `defmt`, to both, or nowhere.

use core::fmt::Display;

/// Something that asks for somebody's attention.
pub(crate) fn warn(what: &dyn Display) {
    #[cfg(feature = "log")]
    log::warn!("{what}");
    #[cfg(feature = "defmt")]
    defmt::warn!("{}", defmt::Display2Format(what));
    let _ = what;
}

/// Something worth knowing.
pub(crate) fn info(what: &dyn Display) {
    #[cfg(feature = "log")]
    log::info!("{what}");
    #[cfg(feature = "defmt")]
    defmt::info!("{}", defmt::Display2Format(what));
    let _ = what;
}

/// Something that has been said before.
pub(crate) fn debug(what: &dyn Display) {
    #[cfg(feature = "log")]
    log::debug!("{what}");
    #[cfg(feature = "defmt")]
    defmt::debug!("{}", defmt::Display2Format(what));
    let _ = what;
}
