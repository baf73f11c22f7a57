//! The program: what it prints, what it serves, how it ends.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PING: &str = "11111111-1111-4111-8111-111111111111";
const LIMIT: Duration = Duration::from_secs(20);

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(arguments: &[&str]) -> Program {
    let child = Command::new(env!("CARGO_BIN_EXE_grafolean-stand-in"))
        .args(["--listen", "127.0.0.1:0"])
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Program(child)
}

fn lines(program: &mut Program) -> impl Iterator<Item = String> + use<> {
    BufReader::new(program.0.stdout.take().unwrap()).lines().map(Result::unwrap)
}

/// The address in the first line.
fn address(line: &str) -> String {
    line.strip_prefix("backend http://").unwrap().strip_suffix("/api").unwrap().to_owned()
}

fn post_value(address: &str) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let body = "[{\"p\":\"a.b\",\"v\":1.5}]";
    write!(
        socket,
        "POST /api/accounts/1/values/?b={PING} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

/// Asks the program to stop, and gives whether it ended well.
fn terminate(mut program: Program) -> bool {
    let id = program.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let begun = Instant::now();
    loop {
        if let Some(status) = program.0.try_wait().unwrap() {
            return status.success();
        }
        assert!(begun.elapsed() < LIMIT, "it did not stop");
        std::thread::yield_now();
    }
}

#[test]
fn it_serves_the_demo_prints_what_it_gets_and_stops_when_told() {
    let mut program = start(&["--print-values", "--print-requests"]);
    let mut lines = lines(&mut program);
    let address = address(&lines.next().unwrap());
    assert_eq!(lines.next().unwrap(), format!("live page: http://{address}/"));
    assert_eq!(lines.next().unwrap(), "bot ping (Systemwide ping bot, ping, systemwide, user id 41)");
    assert_eq!(lines.next().unwrap(), "bot custom (Custom bot, custom, account 1, user id 42)");
    post_value(&address);
    let value = lines.next().unwrap();
    assert!(value.starts_with("value ") && value.ends_with(" 1 a.b 1.5"), "{value}");
    let request = lines.next().unwrap();
    assert!(request.ends_with(" 1 1 POST /api/accounts/1/values/?b=<ping> 204"), "{request}");
    assert!(terminate(program));
}

#[test]
fn tokens_are_printed_only_on_demand() {
    let mut program = start(&["--print-tokens"]);
    let third = lines(&mut program).nth(2).unwrap();
    assert!(third.ends_with(&format!(" token {PING}")), "{third}");
}

#[test]
fn a_database_file_keeps_values_over_a_restart() {
    let directory = std::env::temp_dir().join(format!("stand-in-program-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("values.sqlite");
    for round in 0..2 {
        let mut program = start(&["--db", file.to_str().unwrap()]);
        let address = address(&lines(&mut program).next().unwrap());
        post_value(&address);
        let mut socket = TcpStream::connect(&address).unwrap();
        write!(
            socket,
            "GET /api/accounts/1/values/a.b?b={PING} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.matches("\"v\":1.5").count(), round + 1, "{answer}");
        assert!(terminate(program));
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn rules_from_a_file_hold_from_the_first_request() {
    let file = std::env::temp_dir().join(format!("stand-in-rules-{}.json", std::process::id()));
    std::fs::write(&file, r#"[{"kind":"status_after_doing","status":500,"times":1}]"#).unwrap();
    let mut program = start(&["--print-requests", "--misbehave", file.to_str().unwrap()]);
    let mut lines = lines(&mut program);
    let address = address(&lines.next().unwrap());
    let mut socket = TcpStream::connect(&address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    write!(socket, "GET /api/profile/?b={PING} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    let request = lines.find(|l| l.starts_with("request ")).unwrap();
    assert!(request.ends_with(" GET /api/profile/?b=<ping> 500 by rule 1"), "{request}");
    post_value(&address);
    assert!(terminate(program));

    std::fs::write(&file, r#"[{"kind":"close"},{"kind":"drip","bytes":1}]"#).unwrap();
    let program = Command::new(env!("CARGO_BIN_EXE_grafolean-stand-in"))
        .args(["--misbehave", file.to_str().unwrap()])
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(!program.status.success());
    let text = String::from_utf8_lossy(&program.stderr).into_owned();
    let expected = format!("rules, {}: rule [1]: `pause_ms` is missing", file.display());
    assert!(text.contains(&expected), "{text}");
}

#[test]
fn a_bad_configuration_is_refused_with_file_and_place() {
    let file = std::env::temp_dir().join(format!("stand-in-bad-{}.json", std::process::id()));
    std::fs::write(&file, r#"{"accounts":[{"id":1}]}"#).unwrap();
    let program = Command::new(env!("CARGO_BIN_EXE_grafolean-stand-in"))
        .args(["--config", file.to_str().unwrap()])
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(!program.status.success());
    let text = String::from_utf8_lossy(&program.stderr).into_owned();
    let expected = format!("configuration, {}, accounts[0]: `name` is missing", file.display());
    assert!(text.contains(&expected), "{text}");
}
