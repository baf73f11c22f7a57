//! HTTP's dates, in the one form that servers send (RFC 9110, section 5.6.7: IMF-fixdate).

/// Days from 0000-03-01 to the first of March of `year` of the Gregorian calendar.
const fn days_to_march(year: u64) -> u64 {
    365 * year + year / 4 - year / 100 + year / 400
}

/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: u64 = 719_468;

/// `Sun, 06 Nov 1994 08:49:37 GMT` in Unix seconds; `None` if it is another text, or a date before 1970. The obsolete
/// forms, which senders must not use, are not read.
pub(super) fn unix_seconds(text: &str) -> Option<u64> {
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
            assert_eq!(unix_seconds(text), Some(unix), "{text}");
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
            assert_eq!(unix_seconds(text), None, "{text:?}");
        }
    }
}
