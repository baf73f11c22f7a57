//! Reads the texts of Linux's `/proc` (proc_loadavg(5), proc_meminfo(5), proc_uptime(5)). No allocation, no float code.

use grafolean_core::json::Decimal;

/// Main memory and swap space, in bytes; `None`: the text does not say it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meminfo {
    /// `MemTotal`.
    pub memory_total: Option<u64>,
    /// `MemAvailable`: not before Linux 3.14.
    pub memory_available: Option<u64>,
    /// `SwapTotal`.
    pub swap_total: Option<u64>,
    /// `SwapFree`.
    pub swap_free: Option<u64>,
}

/// The three load averages in `/proc/loadavg`, in hundredths; `None` if there are not three.
#[must_use]
pub fn loadavg(text: &str) -> Option<[u64; 3]> {
    let mut words = text.split_ascii_whitespace().map(|word| Decimal::parse(word).ok()?.to_scaled(2).ok());
    Some([words.next()??, words.next()??, words.next()??])
}

/// What `/proc/meminfo` says; lines that are not understood are passed over.
#[must_use]
pub fn meminfo(text: &str) -> Meminfo {
    let mut found = Meminfo::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let slot = match key {
            "MemTotal" => &mut found.memory_total,
            "MemAvailable" => &mut found.memory_available,
            "SwapTotal" => &mut found.swap_total,
            "SwapFree" => &mut found.swap_free,
            _ => continue,
        };
        // "kB" has always meant 1024 bytes here.
        let kib = value.trim_ascii().strip_suffix("kB").and_then(|n| n.trim_ascii().parse::<u64>().ok());
        *slot = kib.and_then(|n| n.checked_mul(1024));
    }
    found
}

/// The whole seconds in `/proc/uptime`.
#[must_use]
pub fn uptime_s(text: &str) -> Option<u64> {
    let hundredths = Decimal::parse(text.split_ascii_whitespace().next()?).ok()?.to_scaled(2).ok()?;
    Some(hundredths / 100)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::string::String;

    const MEMINFO: &str = "MemTotal:       16303428 kB\nMemFree:          512340 kB\nMemAvailable:    9001000 kB\n\
        Buffers:          1 kB\nSwapTotal:       2097148 kB\nSwapFree:              0 kB\nHugePages_Total:       0\n";

    #[test]
    fn load_averages_are_read_in_hundredths() {
        assert_eq!(loadavg("0.42 1.07 12.00 3/1234 56789\n"), Some([42, 107, 1200]));
        assert_eq!(loadavg("0 1.5 2"), Some([0, 150, 200]));
        for bad in ["", "0.42 1.07", "0.42 x 1.07", "-1 0 0", "nan 0 0"] {
            assert_eq!(loadavg(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let found = meminfo(MEMINFO);
        assert_eq!(found.memory_total, Some(16_303_428 * 1024));
        assert_eq!(found.memory_available, Some(9_001_000 * 1024));
        assert_eq!((found.swap_total, found.swap_free), (Some(2_097_148 * 1024), Some(0)));
    }

    #[test]
    fn what_is_not_there_or_not_understood_is_none() {
        let found =
            meminfo("MemTotal: many kB\nSwapTotal: 5\nSwapFree: 18446744073709551615 kB\nMemAvailable\n");
        assert_eq!(found, Meminfo::default());
        assert_eq!(uptime_s("350735.47 234388.90\n"), Some(350_735));
        assert_eq!((uptime_s(""), uptime_s("-1 0"), uptime_s("soon")), (None, None, None));
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text: String, n: u64, sign in "[-+. eE:]{0,3}") {
            let _ = (loadavg(&text), meminfo(&text), uptime_s(&text));
            let number = std::format!("{sign}{n}{sign}");
            let _ = loadavg(&std::format!("{number} {number} {number}"));
            let kib = meminfo(&std::format!("MemTotal: {n} kB")).memory_total;
            prop_assert_eq!(kib, n.checked_mul(1024));
        }
    }
}
