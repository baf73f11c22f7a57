//! The demo as a program.

// Helpers outside of test functions count as product code for this lint.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::{Command, Output};

fn demo(args: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_grafolean-demo")).args(args).env_clear().output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

#[test]
fn it_ends_after_the_time_given_and_accounts_for_every_value() {
    let (output, said) = demo(&["--for", "5s"]);
    if said.contains("CAP_NET_RAW") && output.status.code() == Some(1) {
        let _ = std::io::stderr().write_all(format!("NOT ALLOWED HERE: {said}\n").as_bytes());
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in
        ["stand-in backend at http://127.0.0.1:", "stored", "ping bot: runs: ", "host bot: runs: ", "ICMP: "]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.ends_with("every value is accounted for\n"), "{said}");
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
