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

/// What holds the token must not be printable by defmt, whose derived output shows each field. (Where somebody gives it
/// [`defmt::Format`], the type below fits two traits, and this does not compile.) All else that is said goes through the functions above, as
/// text.
#[cfg(feature = "defmt")]
const _: fn() = || {
    struct Printable;
    trait Secret<Kind> {
        fn is_not_printable() {}
    }
    impl<T> Secret<()> for T {}
    impl<T: defmt::Format> Secret<Printable> for T {}

    let _ = <grafolean_core::collector::Settings as Secret<_>>::is_not_printable;
    let _ = <crate::Lent<'static, u8> as Secret<_>>::is_not_printable;
    #[cfg(feature = "tls")]
    let _ = <crate::tls::Tls<'static, u8, u8, u8> as Secret<_>>::is_not_printable;
};
