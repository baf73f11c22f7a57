//! Reads the bodies of values' requests, byte by byte as the collector writes them, without its code.

/// A value in a body.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) path: &'a str,
    /// The value's identity, which its number tells.
    pub(crate) number: u64,
    /// Unix milliseconds; none in a POST.
    pub(crate) time_ms: Option<u64>,
    /// Where it ends in the body.
    pub(crate) end: usize,
}

/// The values of a body, `None` if it is anything else than a list of `{"p","v"}` or `{"p","v","t"}` with whole numbers and
/// times of three decimals.
pub(crate) fn elements(body: &[u8]) -> Option<Vec<Element<'_>>> {
    let text = core::str::from_utf8(body).ok()?;
    let mut rest = text.strip_prefix('[')?;
    let mut all = Vec::new();
    loop {
        rest = rest.strip_prefix(r#"{"p":""#)?;
        let (path, after) = rest.split_once('"')?;
        rest = after.strip_prefix(r#","v":"#)?;
        let number;
        (number, rest) = digits(rest)?;
        let mut time_ms = None;
        if let Some(after) = rest.strip_prefix(r#","t":"#) {
            let (seconds, after) = digits(after)?;
            let after = after.strip_prefix('.')?;
            let (fraction, rest_now) = digits(after)?;
            if after.len() - rest_now.len() != 3 {
                return None;
            }
            time_ms = Some(seconds.checked_mul(1000)?.checked_add(fraction)?);
            rest = rest_now;
        }
        rest = rest.strip_prefix('}')?;
        all.push(Element { path, number: identity(number), time_ms, end: text.len() - rest.len() });
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (rest == "]").then_some(all),
        }
    }
}

/// Odd ones go down from here.
const TOP: u64 = 10_000_000;

/// The number that a value with this identity has: even ones go up and odd ones down, so that the lowest, the highest and the last one
/// of several values are three of them.
pub(crate) const fn number(identity: u64) -> u64 {
    if identity.is_multiple_of(2) { identity } else { TOP - identity }
}

/// The identity of the value with this number.
pub(crate) const fn identity(number: u64) -> u64 {
    if number > TOP / 2 { TOP - number } else { number }
}

fn digits(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_both_methods_are_read_and_other_bodies_are_not() {
        let body = br#"[{"p":"a.b","v":7,"t":1700000000.012},{"p":"c","v":8,"t":1.000}]"#;
        let read = elements(body).unwrap();
        assert_eq!((read[0].path, read[0].number, read[0].time_ms), ("a.b", 7, Some(1_700_000_000_012)));
        assert_eq!((read[1].path, read[1].number, read[1].time_ms), ("c", 8, Some(1000)));
        assert_eq!(&body[read[0].end..=read[0].end], b",");
        assert_eq!(elements(br#"[{"p":"a","v":7}]"#).unwrap()[0].time_ms, None);
        for bad in [
            "[]",
            r#"[{"p":"a","v":7},]"#,
            r#"[{"p":"a","v":7}"#,
            r#"[{"p":"a","v":7.5}]"#,
            r#"[{"p":"a","v":7,"t":1.5}]"#,
            r#"[{"p":"a","v":7}]x"#,
        ] {
            assert_eq!(elements(bad.as_bytes()), None, "{bad}");
        }
    }
}
