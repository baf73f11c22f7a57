//! Time as it comes in with every call: monotonic milliseconds, the tick that drives the schedule,
//! and the wall clock that gives values their time.
//!
//! The core reads no clock. [`Millis`] is monotonic and counts suspended time (`CLOCK_BOOTTIME` on Linux,
//! embassy-time on a board); what 0 means is the caller's choice: hosts anchor it once to Unix time, so that a
//! job's instants are the same after a restart, boards count from boot.

use core::fmt;

/// Monotonic time in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Millis(pub u64);

impl Millis {
    /// The whole second that this time lies in.
    #[must_use]
    pub const fn tick(self) -> Tick {
        Tick(self.0 / 1000)
    }

    /// This time and `ms` milliseconds; saturates at the end of time.
    #[must_use]
    pub const fn saturating_add(self, ms: u64) -> Self {
        Millis(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`, 0 if that is later.
    #[must_use]
    pub const fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Whole seconds of [`Millis`]: the unit of the schedule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Tick(pub u64);

impl Tick {
    /// The first millisecond of this tick; saturates.
    #[must_use]
    pub const fn start(self) -> Millis {
        Millis(self.0.saturating_mul(1000))
    }

    /// Seconds since `earlier`, 0 if that is later.
    #[must_use]
    pub const fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Wall-clock time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct UnixMillis(pub u64);

impl fmt::Display for UnixMillis {
    /// Seconds with three decimals, as the backend takes a value's time (`PUT /accounts/N/values`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// A correction larger than this (milliseconds) moves a wall clock learned from `Date` headers; smaller ones
/// are within what the header's whole seconds and the delay of a prompt answer explain.
pub const DATE_TOLERANCE_MS: u64 = 2_000;
/// A request that took no longer than this (milliseconds) tells the time to within a second, as a `Date` should.
pub const PROMPT_MS: u64 = 500;
/// A wall clock goes back over a time already used only if it is off by more than this (milliseconds).
pub const BACKWARD_LIMIT_MS: u64 = 3_600_000;
/// Answers that confirm such a step back are at least this far apart (milliseconds).
pub const BACKWARD_SPACING_MS: u64 = 60_000;
/// A host's clock that is off from `Date` by more than this (milliseconds) is worth a message.
pub const SKEW_LIMIT_MS: u64 = 5_000;

/// Where the wall clock comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum WallSource {
    /// The driver gives the system's clock with [`WallClock::handle_system`]; `Date` headers are only compared.
    System,
    /// Learned from the `Date` header of any answer with [`WallClock::handle_answer`]: ±1 s, if the answer was prompt.
    DateHeader,
}

/// What a `Date` header told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DateNotice {
    /// Nothing to say: within the tolerance, or waiting for confirmation.
    Fine,
    /// The clock became known.
    Learned,
    /// The clock was moved by this many milliseconds.
    Moved(i64),
    /// The host's own clock is off from the backend's by this many milliseconds (positive: the host is ahead).
    Skewed(i64),
}

/// The wall clock: an offset to monotonic time that is learned from outside.
///
/// # What a `Date` tells
/// It was written at some time between the request and its answer, in whole seconds: when the answer arrives, the time is
/// at least that of the header, and at most that, a second, and the time that the request took. (So it is with NTP, which
/// halves the doubt by taking the middle. Here the header's own time is taken, as if it was written last: mostly it
/// is, by a server that computed long; and a clock that may only be late can be set right by going forward, while one that
/// is early can't be moved back over times that values have got.)
/// - The first answer sets the clock, however slow it was: a late clock is better than none. How much later than this the
///   time may be is remembered.
/// - An answer contradicts the clock if that is off by more than [`DATE_TOLERANCE_MS`] from all times that the answer allows:
///   one that was under way for a minute says nothing against a clock that is ahead of it by a minute.
/// - A clock that may be late by more than [`PROMPT_MS`], as the answers so far were slow, moves forward as soon as one
///   shows that it is late: a prompt one by whatever it is, which makes the clock good to a second, a slow one if it is
///   late by more than a second.
///
/// Costs 72 bytes and no allocation; every method is O(1).
#[derive(Clone, Debug)]
pub struct WallClock {
    source: WallSource,
    /// Unix ms at monotonic 0, once known.
    offset_ms: Option<i64>,
    /// How much later than this (and the header's resolution) the time may be, as the answers were slow.
    late_ms: u64,
    /// The latest time given to a value: the clock does not go back over it lightly.
    used: Option<UnixMillis>,
    backward: Option<Backward>,
    skewed: bool,
}

/// A step back that waits for confirmation.
#[derive(Clone, Copy, Debug)]
struct Backward {
    /// Where it would go.
    offset_ms: Option<i64>,
    /// How long the request took that said so.
    took_ms: u64,
    confirmations: u8,
    last_seen: Millis,
}

impl WallClock {
    /// A clock that knows nothing yet.
    #[must_use]
    pub const fn new(source: WallSource) -> Self {
        WallClock { source, offset_ms: None, late_ms: 0, used: None, backward: None, skewed: false }
    }

    /// Where this clock comes from.
    #[must_use]
    pub const fn source(&self) -> WallSource {
        self.source
    }

    /// The wall-clock time at `now`, if known.
    #[must_use]
    pub fn at(&self, now: Millis) -> Option<UnixMillis> {
        let unix = i64::try_from(now.0).ok()?.checked_add(self.offset_ms?)?;
        u64::try_from(unix).ok().map(UnixMillis)
    }

    /// The wall-clock time at `now`, marked as used: it has been given to a value.
    pub fn use_at(&mut self, now: Millis) -> Option<UnixMillis> {
        let unix = self.at(now)?;
        self.mark_used(unix);
        Some(unix)
    }

    /// Remembers that `unix` has been given to a value.
    pub fn mark_used(&mut self, unix: UnixMillis) {
        self.used = Some(self.used.map_or(unix, |u| u.max(unix)));
    }

    /// The system's clock showed `unix` at `now`. Only for [`WallSource::System`]; ignored otherwise.
    pub fn handle_system(&mut self, now: Millis, unix: UnixMillis) {
        if self.source == WallSource::System {
            self.offset_ms = offset(now, unix);
        }
    }

    /// An answer that arrived at `now`, and was written then, had the header `Date: unix_s`.
    pub fn handle_date(&mut self, now: Millis, unix_s: u64) -> DateNotice {
        self.handle_answer(now, now, unix_s)
    }

    /// The answer to a request sent at `sent` arrived at `now` (its head, which has the `Date`, not its body) with the
    /// header `Date: unix_s`.
    pub fn handle_answer(&mut self, sent: Millis, now: Millis, unix_s: u64) -> DateNotice {
        let took_ms = now.since(sent);
        // The header has whole seconds, cut off: half a second more is the best guess.
        let seen = UnixMillis(unix_s.saturating_mul(1000).saturating_add(500));
        let Some(have) = self.at(now) else {
            if self.source == WallSource::System {
                return DateNotice::Fine;
            }
            (self.offset_ms, self.late_ms) = (offset(now, seen), took_ms);
            return if self.offset_ms.is_some() { DateNotice::Learned } else { DateNotice::Fine };
        };
        let ahead_ms = diff(have, seen);
        // By how much it is off whenever the header was written.
        let ahead_at_least_ms =
            if ahead_ms > 0 { ahead_ms.unsigned_abs().saturating_sub(took_ms) } else { 0 };
        let behind_ms = if ahead_ms < 0 { ahead_ms.unsigned_abs() } else { 0 };
        if self.source == WallSource::System {
            let was = self.skewed;
            self.skewed = ahead_at_least_ms.max(behind_ms) > SKEW_LIMIT_MS
                // It may be well again, or not.
                || (was && ahead_ms.unsigned_abs() > SKEW_LIMIT_MS);
            return if self.skewed && !was { DateNotice::Skewed(ahead_ms) } else { DateNotice::Fine };
        }
        // What is known of how late it is, if it has not been moved itself.
        let still_late_ms = took_ms.min(self.late_ms.saturating_sub(behind_ms));
        if ahead_at_least_ms.max(behind_ms) <= DATE_TOLERANCE_MS {
            self.backward = None;
            // A slow one may be later by little each time: that is not worth a move.
            let worth_ms = if took_ms <= PROMPT_MS { 0 } else { 2 * PROMPT_MS };
            if self.late_ms > PROMPT_MS && behind_ms > worth_ms {
                return self.move_to(now, seen, ahead_ms, still_late_ms);
            }
            self.late_ms = self.late_ms.min(took_ms.saturating_add_signed(ahead_ms.saturating_neg()));
            return DateNotice::Fine;
        }
        let backward = ahead_ms > 0 && self.used.is_some_and(|used| seen < used);
        if !backward {
            let expected = behind_ms > 0 && behind_ms <= self.late_ms.saturating_add(DATE_TOLERANCE_MS);
            let late_ms = if expected { still_late_ms } else { took_ms };
            return self.move_to(now, seen, ahead_ms, late_ms);
        }
        if ahead_at_least_ms <= BACKWARD_LIMIT_MS {
            // The values' times stay monotonic: the clock is left alone until it is off by more.
            self.backward = None;
            return DateNotice::Fine;
        }
        let to = offset(now, seen);
        match self.backward {
            Some(b) if agree(b.offset_ms, to, b.took_ms.max(took_ms)) => {
                if now.since(b.last_seen) >= BACKWARD_SPACING_MS {
                    if b.confirmations + 1 >= 2 {
                        self.used = None;
                        return self.move_to(now, seen, ahead_ms, took_ms);
                    }
                    self.backward =
                        Some(Backward { confirmations: b.confirmations + 1, last_seen: now, ..b });
                }
            }
            // The first to say so, or another than the one before: it is to be confirmed itself.
            _ => {
                self.backward = Some(Backward { offset_ms: to, took_ms, confirmations: 0, last_seen: now });
            }
        }
        DateNotice::Fine
    }

    fn move_to(&mut self, now: Millis, seen: UnixMillis, ahead_ms: i64, late_ms: u64) -> DateNotice {
        self.backward = None;
        (self.offset_ms, self.late_ms) = (offset(now, seen), late_ms);
        DateNotice::Moved(ahead_ms.saturating_neg())
    }
}

fn offset(now: Millis, unix: UnixMillis) -> Option<i64> {
    i64::try_from(unix.0).ok()?.checked_sub(i64::try_from(now.0).ok()?)
}

/// Whether two offsets differ by no more than `Date` headers of answers that took so long explain.
fn agree(a: Option<i64>, b: Option<i64>, took_ms: u64) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a.abs_diff(b) <= DATE_TOLERANCE_MS.saturating_add(took_ms))
}

fn diff(a: UnixMillis, b: UnixMillis) -> i64 {
    if a >= b {
        i64::try_from(a.0 - b.0).unwrap_or(i64::MAX)
    } else {
        i64::try_from(b.0 - a.0).map_or(i64::MIN, |d| -d)
    }
}

/// Days from 0000-03-01 to the first of March of `year` of the Gregorian calendar.
const fn days_to_march(year: u64) -> u64 {
    365 * year + year / 4 - year / 100 + year / 400
}

/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: u64 = 719_468;

/// An HTTP date (RFC 9110, section 5.6.7: IMF-fixdate), `Sun, 06 Nov 1994 08:49:37 GMT`, in Unix seconds; `None` if it is another text, or a date before 1970. The obsolete
/// forms, which senders must not use, are not read.
#[must_use]
pub fn parse_http_date(text: &str) -> Option<u64> {
    let bytes: &[u8; 29] = text.as_bytes().try_into().ok()?;
    let number = |from: usize, to: usize| {
        bytes
            .get(from..to)?
            .iter()
            .try_fold(0u64, |n, c| c.is_ascii_digit().then(|| n * 10 + u64::from(c - b'0')))
    };
    let separators =
        [(3, b", ".as_slice()), (7, b" "), (11, b" "), (16, b" "), (19, b":"), (22, b":"), (25, b" GMT")];
    if !separators.iter().all(|(at, s)| bytes.get(*at..*at + s.len()) == Some(*s)) {
        return None;
    }
    // Months from March on, so that a leap day is the last of its year.
    let names = ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let month = names.iter().position(|name| bytes.get(8..11) == Some(name.as_bytes()))? as u64;
    let (day, year) = (number(5, 7)?, number(12, 16)?);
    let (hour, minute, second) = (number(17, 19)?, number(20, 22)?, number(23, 25)?);
    // 60: a leap second.
    if !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 || year < 1970 {
        return None;
    }
    let march_year = if month >= 10 { year - 1 } else { year };
    let days = (days_to_march(march_year) + (153 * month + 2) / 5 + day).checked_sub(EPOCH + 1)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_known_unix_times_are_read() {
        for (text, unix) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Tue, 29 Feb 2000 23:59:59 GMT", 951_868_799),
            ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800),
            ("Thu, 01 Jan 2026 00:00:00 GMT", 1_767_225_600),
            ("Thu, 29 Feb 2024 12:00:00 GMT", 1_709_208_000),
            ("Mon, 01 Mar 2100 00:00:00 GMT", 4_107_542_400),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
        ] {
            assert_eq!(parse_http_date(text), Some(unix), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_dates() {
        for text in [
            "",
            "yesterday",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1894 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:+7 GMT",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
        ] {
            assert_eq!(parse_http_date(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_board_learns_its_clock_from_the_first_date_and_ignores_jitter() {
        let mut clock = WallClock::new(WallSource::DateHeader);
        assert_eq!(clock.at(Millis(10)), None);
        assert_eq!(clock.handle_date(Millis(10_000), 1_000_000), DateNotice::Learned);
        assert_eq!(clock.at(Millis(11_000)), Some(UnixMillis(1_000_001_500)));
        assert_eq!(clock.handle_date(Millis(20_000), 1_000_011), DateNotice::Fine);
        assert_eq!(clock.at(Millis(20_000)), Some(UnixMillis(1_000_010_500)));
        assert_eq!(clock.handle_date(Millis(30_000), 1_000_030), DateNotice::Moved(10_000));
    }

    #[test]
    fn a_clock_goes_back_over_a_used_time_only_by_an_hour_and_when_confirmed_twice() {
        let mut clock = WallClock::new(WallSource::DateHeader);
        clock.handle_date(Millis(0), 1_000_000);
        clock.use_at(Millis(1_000));
        // Ten minutes back: not while values have later times, however often it is said.
        for i in 1..=5 {
            let at = Millis(i * 100_000);
            assert_eq!(clock.handle_date(at, 1_000_000 + i * 100 - 600), DateNotice::Fine);
        }
        // Eleven minutes later the values' times are passed.
        assert_eq!(clock.handle_date(Millis(660_000), 1_000_000 + 60), DateNotice::Moved(-600_000));
        let mut clock = WallClock::new(WallSource::DateHeader);
        clock.handle_date(Millis(0), 1_000_000);
        clock.use_at(Millis(1_000));
        let seen = |ms: u64| 1_000_000 - 7_200 + ms / 1000;
        assert_eq!(clock.handle_date(Millis(2_000), seen(2_000)), DateNotice::Fine);
        assert_eq!(clock.handle_date(Millis(3_000), seen(3_000)), DateNotice::Fine);
        assert_eq!(clock.handle_date(Millis(62_000), seen(62_000)), DateNotice::Fine);
        assert_eq!(clock.handle_date(Millis(100_000), seen(100_000)), DateNotice::Fine);
        assert_eq!(clock.handle_date(Millis(122_000), seen(122_000)), DateNotice::Moved(-7_200_000));
    }

    #[test]
    fn a_slow_first_answer_sets_the_clock_and_the_first_prompt_one_makes_it_good_to_a_second() {
        let mut clock = WallClock::new(WallSource::DateHeader);
        // Written when it was asked for, and 9.4 s under way: it is 1,000,009.9 now.
        assert_eq!(clock.handle_answer(Millis(600), Millis(10_000), 1_000_000), DateNotice::Learned);
        assert_eq!(clock.use_at(Millis(10_000)), Some(UnixMillis(1_000_000_500)));
        // Another slow one that says no more than that.
        assert_eq!(clock.handle_answer(Millis(10_000), Millis(19_000), 1_000_010), DateNotice::Fine);
        assert_eq!(clock.at(Millis(19_000)), Some(UnixMillis(1_000_009_500)));
        assert_eq!(clock.handle_answer(Millis(20_000), Millis(20_500), 1_000_020), DateNotice::Moved(9_500));
        assert_eq!(clock.at(Millis(20_500)), Some(UnixMillis(1_000_020_500)));
        // From now on it is left alone within the tolerance.
        assert_eq!(clock.handle_answer(Millis(30_000), Millis(30_000), 1_000_031), DateNotice::Fine);
        assert_eq!(clock.handle_answer(Millis(30_000), Millis(30_000), 1_000_032), DateNotice::Moved(2_500));
    }

    #[test]
    fn a_clock_that_only_knows_slow_answers_moves_forward_by_what_they_show_but_not_by_trifles() {
        let mut clock = WallClock::new(WallSource::DateHeader);
        clock.handle_answer(Millis(0), Millis(8_000), 1_000_000);
        assert_eq!(clock.handle_answer(Millis(8_000), Millis(16_000), 1_000_009), DateNotice::Fine);
        assert_eq!(clock.handle_answer(Millis(16_000), Millis(24_001), 1_000_018), DateNotice::Moved(1_999));
        // One that took just too long to be prompt, and one that is.
        assert_eq!(clock.handle_answer(Millis(24_501), Millis(25_002), 1_000_020), DateNotice::Fine);
        assert_eq!(clock.handle_answer(Millis(24_502), Millis(25_002), 1_000_020), DateNotice::Moved(999));
    }

    #[test]
    fn an_answer_that_was_long_under_way_does_not_move_the_clock_back() {
        let mut clock = WallClock::new(WallSource::DateHeader);
        clock.handle_answer(Millis(0), Millis(0), 1_000_000);
        // No value has a time yet: it could go back. Written when it was asked for, a minute ago.
        assert_eq!(clock.handle_answer(Millis(1_000), Millis(61_000), 1_000_001), DateNotice::Fine);
        assert_eq!(clock.at(Millis(61_000)), Some(UnixMillis(1_000_061_500)));
        // Ahead of whatever this one allows: 2 s are within the tolerance, a millisecond more is not.
        assert_eq!(clock.handle_answer(Millis(3_000), Millis(62_000), 1_000_001), DateNotice::Fine);
        assert_eq!(clock.handle_answer(Millis(3_001), Millis(62_000), 1_000_001), DateNotice::Moved(-61_000));
    }

    #[test]
    fn whatever_answers_come_a_prompt_one_is_enough_for_a_second_and_no_clock_is_ahead_by_more_than_half_of_one()
     {
        for seed in 0..500 {
            std::println!("seed {seed}");
            let mut rng = crate::random::SplitMix64::new(seed);
            let mut clock = WallClock::new(WallSource::DateHeader);
            let boot_unix_ms = 1_700_000_000_000 + u64::from(rng.below(1_000_000));
            let (mut now, mut prompt) = (u64::from(rng.below(5_000)), false);
            for _ in 0..30 {
                now += u64::from(rng.below(60_000));
                let sent = now;
                let took_ms = u64::from(if rng.below(8) == 0 { rng.below(501) } else { rng.below(30_000) });
                prompt |= took_ms <= PROMPT_MS;
                now += took_ms;
                let written = sent + u64::from(rng.below(took_ms as u32 + 1));
                let notice = clock.handle_answer(Millis(sent), Millis(now), (boot_unix_ms + written) / 1000);
                assert!(
                    !matches!(notice, DateNotice::Moved(ms) if ms <= 0),
                    "{notice:?}: a time already used"
                );
                let UnixMillis(have) = clock.use_at(Millis(now)).unwrap();
                let late_ms = (boot_unix_ms + now) as i64 - have as i64;
                let most = if prompt { 1_000 } else { 500 + clock.late_ms as i64 };
                assert!((-500..=most).contains(&late_ms), "late by {late_ms} ms");
            }
            assert!(clock.late_ms <= if prompt { PROMPT_MS } else { 30_000 });
        }
    }

    #[test]
    fn a_host_is_not_told_that_its_clock_is_off_by_what_a_slow_answer_explains() {
        let mut clock = WallClock::new(WallSource::System);
        clock.handle_system(Millis(70_000), UnixMillis(1_000_060_000));
        assert_eq!(clock.handle_answer(Millis(10_000), Millis(70_000), 1_000_000), DateNotice::Fine);
        assert_eq!(clock.handle_answer(Millis(70_000), Millis(70_000), 1_000_054), DateNotice::Skewed(5_500));
        assert_eq!(clock.handle_answer(Millis(10_000), Millis(70_000), 1_000_000), DateNotice::Fine);
        assert_eq!(clock.handle_answer(Millis(70_000), Millis(70_000), 1_000_054), DateNotice::Fine, "told");
    }

    #[test]
    fn an_answer_that_contradicts_a_step_back_ends_it() {
        let mut clock = WallClock::new(WallSource::DateHeader);
        clock.handle_date(Millis(0), 1_000_000);
        clock.use_at(Millis(1_000));
        clock.handle_date(Millis(2_000), 990_000);
        clock.handle_date(Millis(63_000), 990_061);
        clock.handle_date(Millis(64_000), 1_000_064);
        assert_eq!(clock.handle_date(Millis(130_000), 990_130), DateNotice::Fine);
    }

    #[test]
    fn answers_that_contradict_each_other_confirm_nothing() {
        let mut clock = WallClock::new(WallSource::DateHeader);
        clock.handle_date(Millis(0), 1_000_000);
        clock.use_at(Millis(1_000));
        for (at_ms, unix_s) in [(2_000, 900_000), (70_000, 500_000), (140_000, 10), (210_000, 400_000)] {
            assert_eq!(clock.handle_date(Millis(at_ms), unix_s), DateNotice::Fine);
        }
        assert_eq!(clock.handle_date(Millis(280_000), 400_070), DateNotice::Fine);
        assert!(matches!(clock.handle_date(Millis(350_000), 400_140), DateNotice::Moved(_)));
    }

    #[test]
    fn a_host_keeps_its_own_clock_and_says_once_that_it_is_off() {
        let mut clock = WallClock::new(WallSource::System);
        assert_eq!(clock.handle_date(Millis(0), 5), DateNotice::Fine);
        clock.handle_system(Millis(0), UnixMillis(1_000_000_000));
        assert_eq!(clock.handle_date(Millis(0), 1_000_004), DateNotice::Fine);
        assert_eq!(clock.handle_date(Millis(0), 1_000_006), DateNotice::Skewed(-6_500));
        assert_eq!(clock.handle_date(Millis(0), 1_000_006), DateNotice::Fine);
        assert_eq!(clock.at(Millis(1)), Some(UnixMillis(1_000_000_001)));
    }

    #[test]
    fn a_values_time_is_written_in_seconds_with_milliseconds() {
        assert_eq!(std::format!("{}", UnixMillis(1_700_000_000_007)), "1700000000.007");
    }
}
