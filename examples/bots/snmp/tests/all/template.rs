//! Output paths: what placeholders become, and what is told of a path that is none.

use grafolean_bot_snmp::template::{Piece, Template, TemplateErrorKind as Kind};
use grafolean_core::values::{MAX_PATH_BYTES, check_path};
use proptest::prelude::*;

fn path(text: &str, pieces: &[Piece<'_>], suffix: &[u32]) -> String {
    let template = Template::parse(text, pieces.len()).unwrap_or_else(|e| panic!("`{text}`: {e}"));
    template.path(pieces, suffix.iter().copied()).to_string()
}

fn fault(text: &str, operands: usize) -> (usize, usize, Kind) {
    let error = Template::parse(text, operands).expect_err(text);
    (error.offset, error.column, error.kind)
}

#[test]
fn texts_become_segments_as_the_python_bot_makes_them() {
    let pieces = [Piece::Number(1), Piece::Text(b"asdf.QWER")];
    assert_eq!(path("snmp.{$2}.aaa{$2}bbb.asdf", &pieces, &[]), "snmp.asdf-QWER.aaaasdf-QWERbbb.asdf");
    let one = |text: &str| path("{$1}", &[Piece::Text(text.as_bytes())], &[]);
    assert_eq!(one("Core 6"), "Core-6");
    assert_eq!(one("Core  (6): x"), "Core-6-x");
    assert_eq!(one("a -b"), "a--b");
    assert_eq!(one("a--b__C"), "a--b__C");
    assert_eq!(one("/var/log"), "-var-log");
    assert_eq!(one("\u{fc}ber\u{df}\u{df}."), "-ber-");
    assert_eq!(one("%2e"), "-2e");
    assert_eq!(path("{$1}", &[Piece::Text(&[0, 0xff, b'x', 0xc3])], &[]), "-x-");
}

#[test]
fn what_was_read_is_written_as_it_usually_is() {
    assert_eq!(path("a.{$1}", &[Piece::Number(-5)], &[]), "a.-5");
    assert_eq!(path("a.{$1}", &[Piece::Number(u64::MAX.into())], &[]), "a.18446744073709551615");
    let ip: std::net::Ipv4Addr = "192.0.2.1".parse().unwrap();
    assert_eq!(path("a.{$1}", &[Piece::Shown(&ip)], &[]), "a.192-0-2-1");
    assert_eq!(path("a.{$1}", &[Piece::Shown(&1.5)], &[]), "a.1-5");
    assert_eq!(path("{$1}{$2}{$1}", &[Piece::Number(1), Piece::Text(b"!")], &[]), "1-1");
    assert_eq!(path("{$10}", &[Piece::Number(7); 10], &[]), "7");
}

#[test]
fn index_is_the_last_number_and_indexes_are_all_of_them() {
    assert_eq!(path("if.in-octets.{$index}.{$1}", &[Piece::Text(b"eth0")], &[3]), "if.in-octets.3.eth0");
    assert_eq!(path("t.{$index}", &[], &[10, 20, 30]), "t.30");
    assert_eq!(path("t.{$indexes}.x{$indexes}", &[], &[10, 20, 30]), "t.10-20-30.x10-20-30");
    assert_eq!(path("t.{$indexes}", &[], &[u32::MAX]), "t.4294967295");
}

#[test]
fn a_segment_that_would_be_empty_is_a_dash() {
    let empty = [Piece::Text(b"")];
    assert_eq!(path("if.{$1}", &empty, &[]), "if.-");
    assert_eq!(path("{$1}.{$1}", &empty, &[]), "-.-");
    assert_eq!(path("{$1}{$1}.x", &empty, &[]), "-.x");
    // One that is not empty stays as the Python bot writes it.
    assert_eq!(path("x{$1}y.{$1}z", &empty, &[]), "xy.z");
    assert_eq!(path("uptime.{$index}.{$indexes}", &[], &[]), "uptime.-.-");
}

#[test]
fn errors_say_where() {
    for (text, offset, column, kind) in [
        ("", 0, 1, Kind::Empty),
        ("a.{$1", 2, 3, Kind::Unclosed),
        ("a.{", 2, 3, Kind::Unclosed),
        ("a.{$1.{$2}", 2, 3, Kind::Unclosed),
        ("a.$1}", 2, 3, Kind::Character),
        ("a.1}", 3, 4, Kind::Unopened),
        ("a.{}", 2, 3, Kind::Placeholder),
        ("a.{1}", 2, 3, Kind::Placeholder),
        ("a.{index}", 2, 3, Kind::Placeholder),
        ("a.{$Index}", 2, 3, Kind::Placeholder),
        ("a.{ $1 }", 2, 3, Kind::Placeholder),
        ("a.{$}", 2, 3, Kind::Placeholder),
        ("a.{$0}", 2, 3, Kind::Placeholder),
        ("a.{$1x}", 2, 3, Kind::Placeholder),
        ("a.{$1+1}", 2, 3, Kind::Placeholder),
        ("a.{$3}", 2, 3, Kind::UnknownOperand { operands: 2 }),
        ("a.{$99999999999999999999999}", 2, 3, Kind::UnknownOperand { operands: 2 }),
        (".a", 0, 1, Kind::EmptySegment),
        ("a..b", 2, 3, Kind::EmptySegment),
        ("a.", 2, 3, Kind::EmptySegment),
        ("a.{$1}..b", 7, 8, Kind::EmptySegment),
        ("a b", 1, 2, Kind::Character),
        ("a/b", 1, 2, Kind::Character),
        ("a.%2E", 2, 3, Kind::Character),
        ("a.%2", 2, 3, Kind::Character),
        ("%2{$1}", 0, 1, Kind::Character),
        ("{$1}.\u{fc}", 5, 6, Kind::Character),
        ("{$1}.\u{fc}{", 5, 6, Kind::Character),
    ] {
        assert_eq!(fault(text, 2), (offset, column, kind), "{text:?}");
    }
    let longest = MAX_PATH_BYTES - "entity.1.snmp.".len();
    assert!(Template::parse(&"x".repeat(longest), 0).is_ok());
    let error = Template::parse(&"x".repeat(longest + 1), 0).unwrap_err();
    assert_eq!(error.to_string(), "column 1: too long for a path (limit 200)");
    assert!(Template::parse(&format!("{}.{{$1}}", "x".repeat(longest - 2)), 1).is_ok());
    assert!(Template::parse(&format!("{}.{{$1}}", "x".repeat(longest - 1)), 1).is_err());
}

#[test]
fn it_is_known_what_a_template_holds() {
    let template = Template::parse("a.{$2}.{$index}", 3).unwrap();
    assert_eq!([1, 2, 3].map(|n| template.uses(n)), [false, true, false]);
    assert!(!template.is_fixed());
    assert!(Template::parse("a.b", 3).unwrap().is_fixed());
}

proptest! {
    #[test]
    fn whatever_is_put_into_a_template_that_passes_the_path_is_legal(
        text in "([a-zA%2e3._-]|\\{\\$1\\}|\\{\\$2\\}|\\{\\$index\\}|\\{\\$indexes\\}){1,12}",
        first: Vec<u8>, second: i64, suffix in prop::collection::vec(any::<u32>(), 0..4),
    ) {
        if let Ok(template) = Template::parse(&text, 2) {
            let pieces = [Piece::Text(&first), Piece::Number(second.into())];
            let path = template.path(&pieces, suffix.iter().copied()).to_string();
            prop_assert_eq!(check_path(&format!("entity.1.snmp.{path}"), usize::MAX), Ok(()), "{}: {}", text, path);
        }
    }

    #[test]
    fn a_literal_passes_exactly_when_it_is_a_legal_path(text in "[a%2e3._-]{1,8}") {
        prop_assert_eq!(Template::parse(&text, 0).is_ok(), check_path(&text, usize::MAX).is_ok(), "{}", text);
    }

    #[test]
    fn any_text_gives_a_template_or_an_error_within_it(text in "\\PC{0,30}|[{}$a1index.]{0,30}") {
        if let Err(error) = Template::parse(&text, 2) {
            prop_assert!(error.offset <= text.len() && text.is_char_boundary(error.offset));
            prop_assert_eq!(error.column, text[..error.offset].chars().count() + 1);
        }
    }
}
