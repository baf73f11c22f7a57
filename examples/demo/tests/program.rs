//! The demo as a program: with a terminal and without.

// Helpers outside of test functions count as product code for this lint.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::process::{Command, Output};

use rustix::process::Signal;
use support::{Ended, Session};

const DEMO: &str = env!("CARGO_BIN_EXE_grafolean-demo");
const XTERM: (&str, &str) = ("TERM", "xterm-256color");

fn demo(args: &[&str]) -> (Output, String) {
    let output = Command::new(DEMO).args(args).env_clear().output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

/// Whether this machine allows no pings, which the program has said.
fn is_not_allowed(code: Option<i32>, said: &str) -> bool {
    let not_allowed = said.contains("CAP_NET_RAW") && code == Some(1);
    if not_allowed {
        let _ = std::io::stderr().write_all(format!("NOT ALLOWED HERE: {said}\n").as_bytes());
    }
    not_allowed
}

fn assert_summary(said: &str) {
    for part in ["ping bot: runs: ", "host bot: runs: ", "ICMP: "] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.trim_end().ends_with("every value is accounted for"), "{said}");
}

#[test]
fn without_a_terminal_it_prints_plain_lines_ends_after_the_time_given_and_accounts_for_every_value() {
    let (output, said) = demo(&["--for", "5s"]);
    if is_not_allowed(output.status.code(), &said) {
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in [
        "stand-in backend at http://127.0.0.1:",
        "its live page: http://127.0.0.1:",
        "stored",
        "  run    job of",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_summary(&said);
    assert!(!said.contains('\x1b'), "{said}");
}

#[test]
fn bad_arguments_are_named_and_end_it_with_code_2() {
    for args in [&["--for"][..], &["--for", "soon"], &["--nope"], &["--for", "3s", "more"]] {
        let (output, said) = demo(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains("Usage: grafolean-demo") && said.contains(args.last().unwrap()), "{said}");
    }
    let (output, said) = demo(&["--help"]);
    assert!(output.status.success() && said.starts_with("Usage: grafolean-demo"), "{said}");
}

#[test]
fn a_terminal_that_is_dumb_and_one_that_is_to_get_lines_get_lines_without_escape_sequences() {
    let cases = [
        (&["--for", "2s"][..], &[("TERM", "dumb")][..]),
        (&["--for", "2s"], &[]),
        (&["--for", "2s", "--plain"], &[XTERM]),
    ];
    let sessions: Vec<Session> =
        cases.iter().map(|(args, environment)| Session::start(DEMO, args, environment, 50, 200)).collect();
    for session in sessions {
        let ended = session.end();
        if is_not_allowed(ended.code, &ended.raw) {
            return;
        }
        assert!(ended.raw.contains("its live page: ") && ended.raw.contains("seconds  who"), "{}", ended.raw);
        assert!(ended.raw.contains("ping bot: runs: ") && !ended.raw.contains('\x1b'), "{}", ended.raw);
        assert!(ended.restored);
    }
}

/// A view in which values have been delivered; `None`: this machine allows no pings.
fn view(args: &[&str], environment: &[(&str, &str)], rows: u16, columns: u16) -> Option<Session> {
    let mut session = Session::start(DEMO, args, environment, rows, columns);
    if !session.wait_for("jobs appear", |screen| screen.contains("Jobs 1-5 of 5")) {
        let ended = session.end();
        assert!(is_not_allowed(ended.code, &ended.raw), "{}", ended.raw);
        return None;
    }
    Some(session)
}

/// Without colours, marks and words suffice.
fn is_delivered(screen: &str) -> bool {
    let total = |bot: &str| {
        let mut of_bot =
            screen.lines().skip_while(|l| !l.starts_with("total")).filter(|l| l.starts_with(bot));
        let numbers = of_bot.next().map(|l| l.split_whitespace().skip(1).take(2).collect::<Vec<_>>());
        numbers.and_then(|n| n.get(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    total("ping") > 0 && total("host") > 0
}

fn assert_left(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}", ended.raw);
    assert!(ended.restored, "{}", ended.screen);
    // What was there before the view is there again.
    assert!(ended.screen.contains("stand-in backend at"), "{}", ended.screen);
    assert_summary(&ended.screen);
    let summary = ended.raw.rfind("every value").unwrap_or(0);
    let left = ended.raw.rfind("\x1b[?1049l").unwrap();
    assert!(left < summary, "the summary is hidden");
}

#[test]
fn the_view_shows_refreshes_jobs_values_totals_events_and_the_page_and_q_ends_it() {
    let Some(mut session) = view(&[], &[XTERM], 30, 120) else { return };
    assert!(session.wait_for("values are delivered", is_delivered));
    for part in [
        "live page http://127.0.0.1:",
        "q ends",
        "next refresh in ",
        "requests, 5 entities, 1 credentials, 1 sensors read",
        "last: 4 jobs",
        "31 Loopback over IPv4",
        "ping.success=1",
        "host.",
        "interval -5 s is not within",
    ] {
        assert!(session.wait_for(part, |screen| screen.contains(part)), "{part}");
    }
    assert!(session.is_coloured());
    session.keys(b"q");
    assert_left(&session.end());
}

#[test]
fn every_way_to_end_it_gives_the_terminal_back_and_then_prints_the_summary() {
    let ways: [(&str, &[u8], Option<Signal>); 6] = [
        ("Esc", b"\x1b", None),
        ("Ctrl-C", b"\x03", None),
        ("SIGTERM", b"", Some(Signal::TERM)),
        ("SIGINT", b"", Some(Signal::INT)),
        ("SIGHUP", b"", Some(Signal::HUP)),
        ("--for", b"", None),
    ];
    std::thread::scope(|scope| {
        for (way, keys, signal) in ways {
            scope.spawn(move || {
                let args: &[&str] = if way == "--for" { &["--for", "8s"] } else { &[] };
                let Some(mut session) = view(args, &[XTERM], 24, 80) else { return };
                if way != "--for" {
                    assert!(session.wait_for("values are delivered", is_delivered), "{way}");
                }
                session.keys(keys);
                if let Some(signal) = signal {
                    session.signal(signal);
                }
                assert_left(&session.end());
            });
        }
    });
}

#[test]
fn a_second_key_or_signal_ends_it_at_once_and_gives_the_terminal_back() {
    let Some(mut session) = view(&[], &[XTERM], 24, 80) else { return };
    session.keys(b"qq");
    let ended = session.end();
    assert_eq!((ended.code, ended.restored), (Some(130), true), "{}", ended.raw);
}

#[test]
fn a_terminal_that_becomes_small_is_used_as_it_is_and_the_table_scrolls() {
    let Some(mut session) = view(&[], &[XTERM, ("NO_COLOR", "1")], 40, 200) else { return };
    assert!(session.wait_for("values are delivered", is_delivered));
    assert!(!session.is_coloured());
    session.resize(15, 60);
    let small = |screen: &str| {
        let lines: Vec<&str> = screen.lines().collect();
        screen.contains("Jobs 1-5 of 5") && lines.len() <= 15 && screen.contains("page http://127.0.0.1:")
    };
    assert!(session.wait_for("all jobs in 15 lines", |screen| small(screen) && is_delivered(screen)));
    session.resize(12, 60);
    assert!(session.wait_for("fewer jobs in 12 lines", |screen| screen.contains("Jobs 1-4 of 5")));
    session.keys(b"\x1b[B");
    assert!(session.wait_for("the last job", |screen| screen.contains("Jobs 2-5 of 5")));
    session.keys(b"\x1b[5~");
    assert!(session.wait_for("the first job again", |screen| screen.contains("Jobs 1-4 of 5")));
    session.resize(24, 80);
    assert!(session.wait_for("all jobs again", |screen| screen.contains("Jobs 1-5 of 5")));
    session.keys(b"q");
    let ended = session.end();
    assert_eq!((ended.code, ended.restored), (Some(0), true), "{}", ended.raw);
}
