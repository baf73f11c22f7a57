//! The bots as processes: signals, settings, secrets, outages, and many devices, against a stand-in backend.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use grafolean_stand_in::{Config, StandIn, StandInThread};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::*;

/// An account with so many devices on loopback addresses, pinged at this interval (seconds), a ping bot and a custom bot.
fn backend(devices: u32, interval: u32, credential: Value) -> StandInThread {
    let entities: Vec<Value> = (0..devices)
        .map(|n| {
            json!({"id": 1000 + n, "name": format!("d{n}"), "entity_type": "device",
                   "details": {"ipv4": format!("127.1.{}.{}", n / 250, 1 + n % 250)},
                   "protocols": {"ping": {"credential": 11, "bot": 41, "sensors": [{"sensor": 21, "interval": interval}]}}})
        })
        .collect();
    let config = json!({
        "seed": 7,
        "accounts": [{"id": 1, "name": "One", "entities": entities,
            "credentials": [{"id": 11, "name": "c", "protocol": "ping", "details": credential}],
            "sensors": [{"id": 21, "name": "s", "protocol": "ping", "default_interval": null, "details": {}}]}],
        "bots": [
            {"id": 41, "name": "ping", "short_name": "ping", "protocol": "ping", "token": TOKEN},
            {"id": 42, "name": "host", "short_name": "host", "protocol": "custom", "tied_to_account": 1, "token": HOST_TOKEN}],
    });
    StandIn::builder().config(Config::from_json(&config.to_string()).unwrap()).spawn_thread().unwrap()
}

/// Does the same to several things at once: mostly they wait.
fn at_once<T: Send>(things: impl IntoIterator<Item = T>, deed: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for thing in things {
            let deed = &deed;
            scope.spawn(move || deed(thing));
        }
    });
}

/// The numbers of the last line: runs, and where the values are.
#[derive(Debug, PartialEq, Eq)]
struct Ledger {
    runs: u64,
    failed: u64,
    cancelled: u64,
    collected: u64,
    delivered: u64,
    queued: u64,
    dropped: u64,
}

impl Ledger {
    fn of(ended: &Ended) -> Self {
        let line =
            ended.said.lines().find(|l| l.contains("collected")).unwrap_or_else(|| panic!("{}", ended.said));
        let ledger = Ledger {
            runs: number_before(line, " begun"),
            failed: number_before(line, " failed"),
            cancelled: number_before(line, " cancelled"),
            collected: number_behind(line, "collected "),
            delivered: number_behind(line, "delivered "),
            queued: number_behind(line, "queued "),
            dropped: number_behind(line, "dropped "),
        };
        assert_eq!(ledger.collected, ledger.delivered + ledger.queued + ledger.dropped, "{line}");
        ledger
    }

    /// All that was collected is delivered, and so many values arrived.
    fn with_nothing_lost(ended: &Ended, stand_in: &StandIn) -> Self {
        let ledger = Ledger::of(ended);
        assert_eq!(ended.status.code(), Some(0), "{}", ended.said);
        assert!(ledger.collected > 0);
        assert_eq!(
            (ledger.delivered, ledger.queued, ledger.dropped),
            (ledger.collected, 0, 0),
            "{}",
            ended.said
        );
        assert_eq!(ledger.delivered, stand_in.value_count());
        ledger
    }
}

/// What stands before a backend and can keep it away.
struct Front {
    address: SocketAddr,
    mode: Arc<AtomicU8>,
    /// Bodies of values that came while nothing got an answer.
    swallowed: Arc<AtomicUsize>,
}

/// Everything goes through.
const OPEN: u8 = 0;
/// Nothing gets an answer.
const HUNG: u8 = 1;
/// The status page says that the backend's database wants a migration.
const MIGRATING: u8 = 2;

impl Front {
    fn of(stand_in: &StandIn, mode: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let behind = stand_in.address();
        let front = Front { address, mode: Arc::new(AtomicU8::new(mode)), swallowed: Arc::default() };
        let (mode, swallowed) = (front.mode.clone(), front.swallowed.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mode, swallowed, stream) = (mode.clone(), swallowed.clone(), stream.unwrap());
                std::thread::spawn(move || pass(stream, behind, &mode, &swallowed));
            }
        });
        front
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }

    /// Gives no answers from now on; returns when values have come that will not get one.
    fn hang(&self) {
        self.set(HUNG);
        wait_until("values are on their way", || self.swallowed.load(Ordering::SeqCst) > 0);
    }

    fn base_url(&self) -> String {
        format!("http://{}/api", self.address)
    }
}

fn pass(mut client: TcpStream, behind: SocketAddr, mode: &AtomicU8, swallowed: &AtomicUsize) -> Option<()> {
    let mut backend = TcpStream::connect(behind).ok()?;
    let (mut from, mut to) = (backend.try_clone().ok()?, client.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    let mut buf = [0; 64 << 10];
    loop {
        let n = client.read(&mut buf).ok().filter(|n| *n > 0)?;
        let request = buf.get(..n)?;
        match mode.load(Ordering::SeqCst) {
            HUNG => {
                let values = request.starts_with(b"PUT /api/accounts/1/values/");
                swallowed.fetch_add(usize::from(values), Ordering::SeqCst);
            }
            MIGRATING if request.starts_with(b"GET /api/status/info") => {
                let body = r#"{"alive": true, "db_migration_needed": true, "user_exists": true}"#;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                client.write_all((head + body).as_bytes()).ok()?;
            }
            _ => backend.write_all(request).ok()?,
        }
    }
}

fn ping_settings(url: &str) -> Vec<(&str, &str)> {
    vec![("BACKEND_URL", url), ("BOT_TOKEN", TOKEN)]
}

fn host_settings(url: &str) -> Vec<(&str, &str)> {
    vec![("BACKEND_URL", url), ("BOT_TOKEN", HOST_TOKEN), ("HOST_INTERVAL", "1"), ("HOST_NAME", "here")]
}

#[test]
fn at_sigterm_and_sigint_the_host_bot_ends_well_and_loses_nothing() {
    at_once([Signal::SIGTERM, Signal::SIGINT], |signal| {
        let stand_in = backend(0, 5, json!({}));
        let bot = Process::start(HOST, &host_settings(&stand_in.base_url()));
        stand_in.wait_for(LIMIT, |s| s.values_of(1, "host.here.load1").len() >= 2).unwrap();
        bot.signal(signal);
        let ended = bot.end();
        let ledger = Ledger::with_nothing_lost(&ended, &stand_in);
        assert_eq!(ledger.failed, 0);
        assert!(ended.said.contains("stopping"));
    });
}

#[test]
fn at_sigterm_and_sigint_the_ping_bots_runs_end_and_their_values_arrive() {
    if !pings_are_allowed() {
        return;
    }
    at_once([(Signal::SIGTERM, None), (Signal::SIGINT, Some("2"))], |(signal, threads)| {
        // A run goes on for two seconds after its first packet.
        let details = json!({"n_packets": "2", "sleep_packets": "2", "timeout": "2", "retry": "0"});
        let stand_in = backend(10, 5, details);
        let url = stand_in.base_url();
        let mut settings = ping_settings(&url);
        settings.extend(threads.map(|n| ("GRAFOLEAN_THREADS", n)));
        let bot = Process::start(PING, &settings);
        stand_in.wait_for(LIMIT, |s| s.value_count() > 0).unwrap();
        bot.signal(signal);
        let ended = bot.end();
        let ledger = Ledger::with_nothing_lost(&ended, &stand_in);
        assert_eq!((ledger.failed, ledger.cancelled), (0, 0), "{}", ended.said);
        // Every run that had begun went on to its end: two packets with two values each, and their share.
        assert_eq!(ledger.collected, ledger.runs * 5, "{}", ended.said);
    });
}

#[test]
fn a_stop_with_a_hung_backend_ends_in_time_and_says_what_is_lost() {
    let stand_in = backend(0, 5, json!({}));
    let front = Front::of(&stand_in, OPEN);
    let url = front.base_url();
    let mut settings = host_settings(&url);
    settings.push(("GRAFOLEAN_STOP_SECONDS", "1"));
    let bot = Process::start(HOST, &settings);
    stand_in.wait_for(LIMIT, |s| s.value_count() > 0).unwrap();
    front.hang();
    let ended = bot.stop();
    let ledger = Ledger::of(&ended);
    assert_eq!(ended.status.code(), Some(3), "{}", ended.said);
    assert!(ledger.queued > 0, "{ledger:?}");
    assert!(ended.said.contains("values waited for the backend"), "{}", ended.said);
    assert_eq!(stand_in.value_count(), ledger.delivered);
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    at_once([(Signal::SIGTERM, Signal::SIGTERM), (Signal::SIGINT, Signal::SIGTERM)], |(first, second)| {
        let stand_in = backend(0, 5, json!({}));
        let front = Front::of(&stand_in, OPEN);
        let url = front.base_url();
        let mut settings = host_settings(&url);
        // The first alone would take longer than the test waits.
        settings.push(("GRAFOLEAN_STOP_SECONDS", "3600"));
        let bot = Process::start(HOST, &settings);
        stand_in.wait_for(LIMIT, |s| s.value_count() > 0).unwrap();
        front.hang();
        bot.signal(first);
        bot.wait_for("stopping");
        bot.signal(second);
        let ended = bot.end();
        assert_eq!(ended.status.code(), Some(130), "{}", ended.said);
    });
}

fn every_device_has_values(threads: Option<&str>) {
    if !pings_are_allowed() {
        return;
    }
    const DEVICES: u32 = 500;
    let stand_in = backend(DEVICES, 3, json!({"n_packets": 1, "sleep_packets": 0, "timeout": 4, "retry": 0}));
    let url = stand_in.base_url();
    let mut settings = ping_settings(&url);
    settings.extend(threads.map(|n| ("GRAFOLEAN_THREADS", n)));
    let bot = Process::start(PING, &settings);
    let path = |n: u32| format!("entity.{}.ping.success", 1000 + n);
    let mut next = 0;
    let all = stand_in.wait_for(LIMIT, |s| {
        // In order, so that not all are looked at after each request.
        while next < DEVICES && s.values_of(1, &path(next)).len() >= 2 {
            next += 1;
        }
        next == DEVICES
    });
    assert!(all.is_ok(), "device {next} has no values");
    let ended = bot.stop();
    let ledger = Ledger::with_nothing_lost(&ended, &stand_in);
    assert_eq!((ledger.failed, ledger.cancelled), (0, 0), "{}", ended.said);
    assert_eq!(ledger.collected, ledger.runs * 3, "{}", ended.said);
    for n in 0..DEVICES {
        let times: Vec<i64> = stand_in.values_of(1, &path(n)).iter().map(|(t, _)| *t).collect();
        assert!(stand_in.values_of(1, &path(n)).iter().all(|(_, v)| *v == 1.0), "device {n}");
        assert!(times.len() >= 2 && times.is_sorted(), "device {n}: {times:?}");
    }
}

#[test]
fn every_one_of_500_devices_is_pinged_on_one_task() {
    every_device_has_values(None);
}

#[test]
fn every_one_of_500_devices_is_pinged_on_two_threads() {
    every_device_has_values(Some("2"));
}

#[test]
fn no_more_than_two_runs_are_under_way_where_two_are_allowed_and_every_device_has_its_turn() {
    if !pings_are_allowed() {
        return;
    }
    // Of twelve devices at five seconds, at least three begin in the same second.
    const DEVICES: u32 = 12;
    let stand_in = backend(DEVICES, 5, json!({"n_packets": 2, "sleep_packets": 0.6, "timeout": 4}));
    let url = stand_in.base_url();
    let mut settings = ping_settings(&url);
    settings.push(("GRAFOLEAN_MAX_RUNS", "2"));
    let bot = Process::start(PING, &settings);
    let values = |n: u32, what: &str| stand_in.values_of(1, &format!("entity.{}.ping.{what}", 1000 + n));
    stand_in.wait_for(LIMIT, |_| (0..DEVICES).all(|n| !values(n, "success").is_empty())).unwrap();
    let ended = bot.stop();
    let ledger = Ledger::with_nothing_lost(&ended, &stand_in);
    assert_eq!(ledger.collected, ledger.runs * 5, "{}", ended.said);
    // From the first packet's value to the last value of the same run.
    let mut changes: Vec<(i64, i32)> = Vec::new();
    for n in 0..DEVICES {
        let (began, ended) = (values(n, "p0.ok"), values(n, "success"));
        assert_eq!(began.len(), ended.len());
        changes.extend(began.iter().map(|(t, _)| (*t, 1)));
        changes.extend(ended.iter().map(|(t, _)| (*t, -1)));
    }
    // At the same millisecond, ends come first.
    changes.sort_unstable();
    let mut at_once = 0;
    for (_, change) in changes {
        at_once += change;
        assert!(at_once <= 2);
    }
}

#[test]
fn a_bot_waits_for_a_backend_that_is_not_ready_and_begins_when_it_is() {
    if !pings_are_allowed() {
        return;
    }
    let stand_in = backend(3, 2, json!({"n_packets": 1, "sleep_packets": 0}));
    let front = Front::of(&stand_in, MIGRATING);
    let url = front.base_url();
    let bot = Process::start(PING, &ping_settings(&url));
    bot.wait_for("the backend is not ready");
    assert_eq!(stand_in.requests().len(), 0, "it asked for more than the status");
    front.set(OPEN);
    stand_in.wait_for(LIMIT, |s| s.value_count() > 0).unwrap();
    Ledger::with_nothing_lost(&bot.stop(), &stand_in);
}

#[test]
fn a_backend_that_is_down_at_the_start_is_found_when_it_comes() {
    if !pings_are_allowed() {
        return;
    }
    let stand_in = backend(3, 2, json!({"n_packets": 1, "sleep_packets": 0}));
    stand_in.shutdown();
    let url = stand_in.base_url();
    let bot = Process::start(PING, &ping_settings(&url));
    bot.wait_for("no connection to the backend");
    stand_in.restart().unwrap();
    stand_in.wait_for(LIMIT, |s| s.value_count() > 0).unwrap();
    Ledger::with_nothing_lost(&bot.stop(), &stand_in);
}

#[test]
fn values_of_an_outage_arrive_when_the_backend_is_back() {
    let stand_in = backend(0, 5, json!({}));
    let bot = Process::start(HOST, &host_settings(&stand_in.base_url()));
    stand_in.wait_for(LIMIT, |s| s.value_count() > 0).unwrap();
    stand_in.shutdown();
    bot.wait_for("backend can't be reached");
    let before = stand_in.values_of(1, "host.here.load1").len();
    std::thread::sleep(Duration::from_millis(1500));
    stand_in.restart().unwrap();
    // The runs of the outage, and one after it.
    stand_in.wait_for(LIMIT, |s| s.values_of(1, "host.here.load1").len() >= before + 3).unwrap();
    bot.wait_for("backend answers again");
    Ledger::with_nothing_lost(&bot.stop(), &stand_in);
    let times: Vec<i64> =
        stand_in.values_of(1, "host.here.load1").iter().map(|(t, _)| t / 1_000_000).collect();
    let seconds: HashMap<i64, usize> = times.iter().fold(HashMap::new(), |mut all, t| {
        *all.entry(*t).or_default() += 1;
        all
    });
    assert!(seconds.len() >= before + 2, "the values have the times at which they were measured: {times:?}");
}

#[test]
fn the_token_may_come_from_a_file_with_a_line_feed_and_settings_from_a_dot_env_file() {
    let stand_in = backend(0, 5, json!({}));
    let folder = Folder::new();
    let token = folder.file("token", &format!("{HOST_TOKEN}\n"));
    let url = stand_in.base_url();
    let from_file = [
        ("BACKEND_URL", url.as_str()),
        ("BOT_TOKEN_FROM_FILE", token.to_str().unwrap()),
        ("HOST_INTERVAL", "1"),
    ];
    let bot = Process::start(HOST, &from_file);
    stand_in.wait_for(LIMIT, |s| s.value_count() > 0).unwrap();
    Ledger::with_nothing_lost(&bot.stop(), &stand_in);

    let stand_in = backend(0, 5, json!({}));
    let lines = format!(
        "# settings\nexport BACKEND_URL='{}/'\nBOT_TOKEN=\"{HOST_TOKEN}\"\nHOST_INTERVAL=1\nHOST_NAME=from-file\n",
        stand_in.base_url()
    );
    folder.file(".env", &lines);
    // What the process is given wins.
    let bot = Process::start_in(folder, Command::new(HOST), &[("HOST_NAME", "given")]);
    stand_in.wait_for(LIMIT, |s| !s.values_of(1, "host.given.load1").is_empty()).unwrap();
    Ledger::with_nothing_lost(&bot.stop(), &stand_in);
}

#[test]
fn bad_settings_end_with_code_2_and_the_variables_name_but_not_its_value() {
    let secret = "0c8f3a52-97a1-4a7f-9d3c-5a1be0a5c111";
    let odd_url = format!("http://user:{secret}@127.0.0.1/api");
    for (name, value) in [
        ("BOT_TOKEN", ""),
        ("BOT_TOKEN", "0c8f3a52-97a1-4a7f-9d3c-5a1be0a5c11"),
        ("BOT_TOKEN", "no uuid 0c8f3a52-97a1-4a7f-9d3c-5a1be0a5c111"),
        ("BACKEND_URL", ""),
        ("BACKEND_URL", "ftp://127.0.0.1/api"),
        ("BACKEND_URL", odd_url.as_str()),
        ("JOBS_REFRESH_INTERVAL", secret),
        ("ACCOUNT_ID", secret),
        ("GRAFOLEAN_THREADS", secret),
        ("GRAFOLEAN_MAX_RUNS", "0"),
        ("GRAFOLEAN_MAX_JOBS", "-1"),
        ("GRAFOLEAN_OUTBOX_BYTES", "1k"),
        ("GRAFOLEAN_VALUES_METHOD", secret),
        ("GRAFOLEAN_STOP_SECONDS", "0"),
        ("RUST_LOG", "info=warn=error"),
        ("HOST_INTERVAL", secret),
        ("HOST_INTERVAL", "0"),
        ("HOST_NAME", "0123456789012345678901234567890123456789012345678901234567890123456789"),
    ] {
        let mut settings = vec![("BACKEND_URL", "http://127.0.0.1:9/api"), ("BOT_TOKEN", secret)];
        settings.retain(|(n, _)| *n != name);
        settings.push((name, value));
        let ended = Process::start(HOST, &settings).end();
        assert_eq!(ended.status.code(), Some(2), "{name}={value}: {}", ended.said);
        assert!(ended.said.contains(name), "{name}={value}: {}", ended.said);
        assert!(!ended.said.contains("5a1be0a5c11"), "{name}: {}", ended.said);
    }
    for args in [&["--nope"][..], &["--plan", "more"]] {
        let mut command = Command::new(HOST);
        command.args(args);
        let ended = Process::start_in(Folder::new(), command, &[]).end();
        assert_eq!(ended.status.code(), Some(2));
        assert!(ended.said.contains(args.last().unwrap()), "{}", ended.said);
    }
}

#[test]
fn the_token_is_in_no_output_at_any_level_and_not_in_the_command_line() {
    let stand_in = backend(2, 2, json!({"n_packets": 1, "sleep_packets": 0}));
    let url = stand_in.base_url();
    let programs = [(HOST, HOST_TOKEN, 42), (PING, TOKEN, 41)];
    for (program, token, id) in programs.into_iter().take(if pings_are_allowed() { 2 } else { 1 }) {
        let settings = [
            ("BACKEND_URL", url.as_str()),
            ("BOT_TOKEN", token),
            ("HOST_INTERVAL", "1"),
            ("JOBS_REFRESH_INTERVAL", "1"),
            ("GRAFOLEAN_STOP_SECONDS", "1"),
            ("RUST_LOG", "trace"),
        ];
        let bot = Process::start(program, &settings);
        let values = stand_in.value_count();
        stand_in.wait_for(LIMIT, |s| s.value_count() > values).unwrap();
        stand_in.drop_connections();
        stand_in.change(|b| b.remove_bot(id)).unwrap();
        bot.wait_for("401");
        let command_line = std::fs::read_to_string(format!("/proc/{}/cmdline", bot.id())).unwrap();
        assert!(command_line.contains("grafolean-") && !command_line.contains(token));
        stand_in.shutdown();
        let ended = bot.stop();
        assert!(ended.said.contains("TRACE") && ended.said.contains("DEBUG"), "{}", ended.said);
        for part in [token, token.get(..13).unwrap()] {
            assert!(!ended.said.contains(part), "the token is in the output");
        }
        stand_in.restart().unwrap();
    }
}

/// `program`, after the shell commands of `script`, in namespaces of its own; `None` where that is not allowed.
fn in_namespaces(flags: &str, script: &str, program: &str) -> Option<Command> {
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    let flags = if root { format!("-{flags}") } else { format!("-r{flags}") };
    let make = |program: &str| {
        let mut command = Command::new("unshare");
        command.args([&flags, "sh", "-ec", script, program]);
        command
    };
    match make("true").stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Some(make(program)),
        failed => {
            let text = format!("NOT ALLOWED HERE: namespaces: {failed:?}\n");
            let _ = std::io::stderr().write_all(text.as_bytes());
            None
        }
    }
}

#[test]
fn a_resolver_that_does_not_answer_holds_up_no_stop() {
    const INSIDE: &str = "PROCESSES_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_none() {
        // Again, in namespaces where this test is the resolver.
        let folder = Folder::new();
        let conf = folder.file("resolv.conf", "nameserver 127.0.0.1\noptions timeout:30 attempts:4\n");
        let script = format!(
            "ip link set lo up; mount --bind {} /etc/resolv.conf
             exec \"$0\" --exact a_resolver_that_does_not_answer_holds_up_no_stop --nocapture",
            conf.display()
        );
        let program = std::env::current_exe().unwrap();
        let Some(mut command) = in_namespaces("nm", &script, program.to_str().unwrap()) else { return };
        let output = command.env(INSIDE, "1").output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    // Two minutes of silence.
    let resolver = std::net::UdpSocket::bind("127.0.0.1:53").unwrap();
    let bot = Process::start(HOST, &host_settings("http://backend.example/api"));
    resolver.set_read_timeout(Some(LIMIT)).unwrap();
    resolver.recv(&mut [0; 512]).expect("the resolver is asked");
    let ended = bot.stop();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.said);
    assert_eq!(Ledger::of(&ended).queued, 0);
}

#[test]
fn without_leave_to_ping_the_ping_bot_says_which_settings_would_give_it() {
    let folder = Folder::new();
    // In a new network namespace nobody may open ICMP datagram sockets.
    let script = "exec setpriv --bounding-set=-net_raw --inh-caps=-net_raw \"$0\"";
    let Some(command) = in_namespaces("n", script, PING) else { return };
    let path = std::env::var("PATH").unwrap();
    let mut settings = ping_settings("http://127.0.0.1:9/api");
    settings.push(("PATH", &path));
    let ended = Process::start_in(folder, command, &settings).end();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
    for name in ["net.ipv4.ping_group_range", "CAP_NET_RAW"] {
        assert!(ended.said.contains(name), "{}", ended.said);
    }
}
