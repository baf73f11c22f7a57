//! The live page: what feeds it over plain sockets, and what it shows in a real browser.
//!
//! The tests with a browser are ignored unless asked for; they need `chromium` and `chromedriver` in the path:
//! `cargo test -p grafolean-stand-in --test page -- --ignored`. With `STAND_IN_SCREENSHOT=FILE` one of them also writes the
//! picture of the documentation.
// Helpers of tests may fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use grafolean_stand_in::{
    Builder, Config, Credential, Entity, Misbehaviour, Rule, StandIn, StandInThread, Status,
};
use serde_json::{Value, json};

const PING: &str = "11111111-1111-4111-8111-111111111111";
const CUSTOM: &str = "22222222-2222-4222-8222-222222222222";

/// Nothing here takes long; whoever waits for this has failed.
const LIMIT: Duration = Duration::from_secs(30);

fn demo() -> Builder {
    StandIn::builder().config(Config::demo().unwrap())
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// One request on a connection of its own.
fn http(address: SocketAddr, method: &str, target: &str, body: &str) -> Answer {
    let mut socket = connect(address);
    let length = body.len();
    write!(
        socket,
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut reader = BufReader::new(socket);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "no answer to {method} {target}");
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let field = fields
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map(|(_, n)| n.trim().to_owned());
    let mut body = vec![0; field.map_or(0, |n| n.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    Answer { status, head, body }
}

/// Stores values through the API: path, value, and how many seconds ago.
fn put(stand_in: &StandIn, values: &[(&str, f64, f64)]) {
    let now = now_s();
    for page in values.chunks(100) {
        let body: Vec<String> = page
            .iter()
            .map(|(path, v, ago)| format!("{{\"p\":{},\"v\":{v},\"t\":{:.6}}}", json!(path), now - ago))
            .collect();
        let target = format!("/api/accounts/1/values/?b={PING}");
        let answer = http(stand_in.address(), "PUT", &target, &format!("[{}]", body.join(",")));
        assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));
    }
}

fn state(stand_in: &StandIn) -> Value {
    let answer = http(stand_in.address(), "GET", "/stand-in/state", "");
    assert_eq!(answer.status, 200);
    answer.json()
}

/// The stream of events.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(stand_in: &StandIn) -> Self {
        let mut socket = connect(stand_in.address());
        socket.write_all(b"GET /stand-in/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut events = Self(BufReader::new(socket));
        assert!(events.line().starts_with("HTTP/1.1 200 "));
        events
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the stream of events has ended");
        line.trim_end().to_owned()
    }

    /// The data of the next event of this name; others are passed over.
    fn next(&mut self, name: &str) -> Value {
        let begun = Instant::now();
        while self.line() != format!("event: {name}") {
            assert!(begun.elapsed() < LIMIT, "no event `{name}` came");
        }
        serde_json::from_str(self.line().strip_prefix("data: ").unwrap()).unwrap()
    }
}

// Without a browser

#[test]
fn the_state_holds_totals_bots_entities_values_and_requests() {
    let stand_in = demo().clock(|| 1_795_370_372_000_000).spawn_thread().unwrap();
    assert_eq!(stand_in.page_url(), format!("http://{}/", stand_in.address()));
    let values = r#"[{"p":"entity.31.a","v":1.5,"t":1795370370.25},{"p":"entity.31.a","v":NaN,"t":1795370371},{"p":"b","v":-Infinity,"t":1795370371}]"#;
    let target = format!("/api/accounts/1/values/?b={PING}");
    // The same path twice in one request is a mistake; so it takes two.
    let (first, rest) = values[1..].split_once(",{").unwrap();
    assert_eq!(http(stand_in.address(), "PUT", &target, &format!("[{first}]")).status, 204);
    assert_eq!(http(stand_in.address(), "PUT", &target, &format!("[{{{rest}")).status, 204);
    assert_eq!(http(stand_in.address(), "GET", &format!("/api/nothing?b={CUSTOM}"), "").status, 403);
    let state = state(&stand_in);
    assert_eq!(state["now_us"], 1_795_370_372_000_000_i64);
    let totals = &state["totals"];
    assert_eq!(
        [&totals["values"], &totals["stored"], &totals["paths"], &totals["requests"], &totals["failed"]],
        [3, 3, 2, 3, 1]
    );
    assert_eq!(totals["by_status"], json!({"204": 2, "403": 1}));
    let bots = &state["bots"];
    assert_eq!(
        (&bots[0]["short_name"], &bots[0]["values"], &bots[0]["failed"]),
        (&json!("ping"), &json!(3), &json!(0))
    );
    assert_eq!(
        (&bots[1]["last_heard_us"], &bots[1]["failed"]),
        (&json!(1_795_370_372_000_000_i64), &json!(1))
    );
    assert_eq!(
        state["accounts"][0]["entities"][1],
        json!({"id": 32, "name": "This host over IPv6", "type": "device", "parent": null, "protocols": ["ping"]})
    );
    assert_eq!(
        state["series"],
        json!([
            {"account": 1, "path": "b", "values": [[1_795_370_371_000_000_i64, "-Infinity"]]},
            {"account": 1, "path": "entity.31.a",
             "values": [[1_795_370_370_250_000_i64, 1.5], [1_795_370_371_000_000_i64, "NaN"]]},
        ])
    );
    let request = &state["requests"][2];
    assert_eq!(
        (&request["method"], &request["path"], &request["status"], &request["bot"]),
        (&json!("GET"), &json!("/api/nothing?b=<custom>"), &json!(403), &json!("custom"))
    );
    assert!(request["took_us"].is_u64() && request["rule"].is_null());
}

#[test]
fn the_state_and_the_events_hold_no_token_and_no_credential() {
    let stand_in = demo().spawn_thread().unwrap();
    stand_in
        .change(|backend| {
            backend
                .set_credential(1, Credential::new(0, "SNMP", "snmp").detail("community", "s3cret-community"))
        })
        .unwrap();
    let mut events = Events::open(&stand_in);
    events.next("hello");
    for target in [
        format!("/api/accounts/1/credentials/?b={PING}"),
        format!("/api/{PING}/x?b={CUSTOM}&again={PING}"),
        "/api/profile/?b=44444444-4444-4444-8444-444444444444".to_owned(),
    ] {
        http(stand_in.address(), "GET", &target, "");
    }
    let mut told = String::from_utf8(http(stand_in.address(), "GET", "/stand-in/state", "").body).unwrap();
    while told.matches("/api/profile/?b=<unknown>").count() < 2 {
        told += &events.line();
    }
    told += &events.next("totals").to_string();
    for secret in [PING, CUSTOM, "44444444", "s3cret-community", "n_packets"] {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
}

#[test]
fn the_state_is_bounded_to_the_newest_values_and_requests() {
    let stand_in = demo().spawn_thread().unwrap();
    let many: Vec<(&str, f64, f64)> =
        (0..1000).map(|i| ("a.b", f64::from(i), 1000.0 - f64::from(i))).collect();
    for one in many.chunks(1) {
        put(&stand_in, one);
    }
    let state = state(&stand_in);
    let values = state["series"][0]["values"].as_array().unwrap();
    assert_eq!(values.len(), 720);
    assert_eq!((&values[0][1], &values[719][1]), (&json!(280), &json!(999)));
    let requests = state["requests"].as_array().unwrap();
    assert_eq!((requests.len(), state["totals"]["requests"].as_u64()), (200, Some(1000)));
    let names: Vec<String> = (0..6000).map(|i| format!("many.p{i:04}.x")).collect();
    put(&stand_in, &names.iter().map(|name| (name.as_str(), 1.0, 1.0)).collect::<Vec<_>>());
    let answer = http(stand_in.address(), "GET", "/stand-in/state", "");
    assert!(answer.body.len() < 1_000_000, "{} bytes", answer.body.len());
    let state = answer.json();
    assert_eq!((state["series"].as_array().unwrap().len(), &state["series_left_out"]), (5000, &json!(1001)));
    // So many paths leave 24 values to each.
    assert_eq!(state["series"][0]["values"].as_array().unwrap().len(), 24);
}

#[test]
fn events_tell_values_requests_totals_and_changes_of_names() {
    let stand_in = demo().spawn_thread().unwrap();
    let mut events = Events::open(&stand_in);
    let hello = events.next("hello");
    assert_eq!(hello["instance"], state(&stand_in)["instance"]);
    put(&stand_in, &[("a.b", 2.5, 0.0)]);
    let mut batch = events.next("batch");
    assert_eq!((&batch["values"][0][1], &batch["values"][0][3]), (&json!("a.b"), &json!(2.5)));
    if batch["requests"] == json!([]) {
        batch = events.next("batch");
    }
    assert_eq!((&batch["requests"][0]["status"], &batch["requests"][0]["values"]), (&json!(204), &json!(1)));
    while events.next("totals")["totals"]["values"] != 1 {}
    stand_in.change(|backend| backend.set_entity(1, Entity::device(31, "Renamed"))).unwrap();
    events.next("resync");
    assert_eq!(state(&stand_in)["accounts"][0]["entities"][0]["name"], "Renamed");
    stand_in.shutdown();
    let mut rest = Vec::new();
    events.0.read_to_end(&mut rest).unwrap();
}

#[test]
fn the_page_may_load_nothing_but_its_own_files_and_all_of_them_are_there() {
    let stand_in = demo().spawn_thread().unwrap();
    let page = http(stand_in.address(), "GET", "/", "");
    assert!(page.head.contains("content-type: text/html; charset=utf-8\r\n"), "{}", page.head);
    for part in ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"] {
        assert!(page.head.contains(part), "{part}: {}", page.head);
    }
    assert!(!page.head.contains("unsafe"));
    let text = String::from_utf8(page.body).unwrap();
    let mut files = 0;
    for link in text.split(['"', '\'']).filter(|word| word.starts_with('/')) {
        assert_eq!(http(stand_in.address(), "GET", link, "").status, 200, "{link}");
        files += 1;
    }
    assert_eq!(files, 3);
    assert!(!text.contains("://"), "{text}");
    assert_eq!(http(stand_in.address(), "POST", "/stand-in/state", "{}").status, 404);
}

#[test]
fn a_reader_who_does_not_read_holds_nobody_up() {
    let stand_in = demo().spawn_thread().unwrap();
    let mut events = Events::open(&stand_in);
    events.next("hello");
    let path = format!("a.{}", "long".repeat(100));
    let times: Vec<f64> = (0..300).map(|i| 300.0 - f64::from(i)).collect();
    for ago in &times {
        put(&stand_in, &[(&path, 1.0, *ago)]);
    }
    assert_eq!(stand_in.value_count(), 300);
    // What waited is there.
    let mut values = 0;
    while values < 300 {
        values += events.next("batch")["values"].as_array().unwrap().len();
    }
    assert_eq!(values, 300);
}

// With a browser

/// A headless Chromium with an empty profile, spoken to through WebDriver (W3C, level 2).
struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    profile: PathBuf,
}

impl Browser {
    fn open() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is needed");
        let mut said = BufReader::new(driver.stdout.take().unwrap());
        let port = loop {
            let mut line = String::new();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "chromedriver did not start");
            if let Some((_, port)) = line.trim_end().trim_end_matches('.').split_once("successfully on port ")
            {
                break port.parse().unwrap();
            }
        };
        // It must never find its output closed.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let profile = std::env::temp_dir().join(format!("stand-in-page-{}-{port}", std::process::id()));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut browser = Self { driver, address, session: String::new(), profile };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
        ];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", browser.profile.display()));
        let session = browser.ask(
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": {
                "browserName": "chrome",
                "goog:loggingPrefs": {"browser": "ALL"},
                "goog:chromeOptions": {"args": arguments},
            }}}),
        );
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser.devtools(
            "Page.addScriptToEvaluateOnNewDocument",
            &json!({"source": "window.problems = [];
                addEventListener('error', e => problems.push('error: ' + e.message));
                addEventListener('unhandledrejection', e => problems.push('rejected: ' + e.reason));
                addEventListener('securitypolicyviolation', e => problems.push('policy: ' + e.blockedURI));"}),
        );
        browser.size(1400, 1000);
        browser
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let answer = http(self.address, method, path, &body);
        let mut value = answer.json()["value"].take();
        assert_eq!(answer.status, 200, "{path}: {}", value["message"].take());
        value
    }

    fn devtools(&self, command: &str, parameters: &Value) {
        let body = json!({"cmd": command, "params": parameters});
        self.ask("POST", &format!("{}/goog/cdp/execute", self.session), &body);
    }

    fn go(&self, url: &str) {
        self.ask("POST", &format!("{}/url", self.session), &json!({"url": url}));
    }

    /// What a function body returns.
    fn run(&self, script: &str) -> Value {
        self.ask("POST", &format!("{}/execute/sync", self.session), &json!({"script": script, "args": []}))
    }

    fn of(&self, expression: &str) -> Value {
        self.run(&format!("return {expression};"))
    }

    fn text(&self, selector: &str) -> String {
        let text = self.of(&format!("document.querySelector({})?.innerText ?? ''", json!(selector)));
        text.as_str().unwrap().to_owned()
    }

    /// Waits until an expression is true.
    fn wait(&self, expression: &str) {
        let begun = Instant::now();
        while self.of(&format!("!!({expression})")) != true {
            assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {expression}\n{}", self.text("body"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn size(&self, width: u32, height: u32) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    fn scheme(&self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// Everything that a console shows, and what the page was not allowed to do.
    fn problems(&self) -> Vec<String> {
        let log = self.ask("POST", &format!("{}/se/log", self.session), &json!({"type": "browser"}));
        let logged = log.as_array().unwrap().iter().map(|entry| entry["message"].to_string());
        let seen = self.of("window.problems");
        logged.chain(seen.as_array().unwrap().iter().map(ToString::to_string)).collect()
    }

    fn picture(&self) -> Vec<u8> {
        let picture = self.ask("GET", &format!("{}/screenshot", self.session), &Value::Null);
        base64(picture.as_str().unwrap())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends its browsers too, also one whose session it could not tell.
        if let Ok(mut socket) = TcpStream::connect(self.address) {
            let _ = socket.write_all(b"GET /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let _ = socket.set_read_timeout(Some(LIMIT));
            let _ = socket.read(&mut [0]);
        }
        let begun = Instant::now();
        while matches!(self.driver.try_wait(), Ok(None)) && begun.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> =
        text.bytes().filter(|c| !c.is_ascii_whitespace() && *c != b'=').map(digit).collect();
    let group = |four: &[u8]| {
        let bits = four.iter().fold(0_u32, |bits, d| bits << 6 | u32::from(*d)) << (6 * (4 - four.len()));
        bits.to_be_bytes()[1..four.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}

/// Opens the page and waits until it is live.
fn open(stand_in: &StandIn) -> Browser {
    let browser = Browser::open();
    browser.go(&stand_in.page_url());
    browser.wait("document.querySelector('#link').dataset.state === 'live'");
    browser
}

/// A card by its path.
fn card(path: &str) -> String {
    format!("document.querySelector('.card button[title={}]')?.closest('.card')", json!(path))
}

/// Every text on the page that is smaller than 12 px or has less contrast than 4.5 (WCAG 2.2, 1.4.3), with what it is.
const FAINT_OR_SMALL: &str = r"
    const numbers = text => text.match(/[\d.]+/g).map(Number);
    const over = ([r, g, b, a = 1], under) => [r, g, b].map((x, i) => x * a + under[i] * (1 - a));
    const light = c => c.map(x => x / 255).map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
        .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
    const back = e => {
        if (!e) return [255, 255, 255];
        const own = numbers(getComputedStyle(e).backgroundColor);
        return own.length === 3 || own[3] === 1 ? own.slice(0, 3) : over(own, back(e.parentElement));
    };
    const found = [];
    let seen = 0;
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; node = walk.nextNode();) {
        const e = node.parentElement;
        if (!node.data.trim() || !e.checkVisibility() || e.closest('.hidden, noscript, option') || e.tagName === 'SCRIPT') continue;
        seen++;
        const style = getComputedStyle(e);
        const ink = over(numbers(e.closest('svg') ? style.fill : style.color), back(e));
        const [a, b] = [light(ink), light(back(e))].sort((x, y) => y - x);
        const contrast = (a + 0.05) / (b + 0.05);
        const size = parseFloat(style.fontSize);
        if (!(contrast >= 4.5) || !(size >= 12)) found.push(`${node.data.trim()}: contrast ${contrast.toFixed(2)}, ${size} px`);
    }
    return [seen, found];";

fn assert_legible(browser: &Browser) {
    let result = browser.run(FAINT_OR_SMALL);
    assert!(result[0].as_u64().unwrap() > 30, "hardly any text was looked at: {result}");
    assert_eq!(result[1], json!([]));
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_value_appears_as_last_value_and_in_its_chart_without_reload() {
    let stand_in = demo().spawn_thread().unwrap();
    let browser = open(&stand_in);
    browser.run("window.sameDocument = true;");
    browser.wait("document.querySelector('#values-note').innerText.includes('No values yet')");
    browser.wait("document.querySelector('#silent-note').innerText.includes('This host over IPv4')");
    put(&stand_in, &[("entity.31.ping.rtt", 0.02, 20.0)]);
    put(&stand_in, &[("entity.31.ping.rtt", 0.03, 10.0)]);
    let card = card("entity.31.ping.rtt");
    browser.wait(&format!("{card}?.querySelector('.last').textContent === '0.03'"));
    let line = format!("{card}.querySelector('.value-line').getAttribute('d')");
    browser.wait(&format!("{line}.split('L').length === 2"));
    let before = browser.of(&line);
    put(&stand_in, &[("entity.31.ping.rtt", 0.0125, 0.0)]);
    browser.wait(&format!("{card}.querySelector('.last').textContent === '0.0125'"));
    browser.wait(&format!("{line}.split('L').length === 3"));
    // It also moves by itself.
    let after = browser.of(&line);
    assert_ne!(before, after);
    browser.wait(&format!("{line} !== {after}"));
    let text = browser.of(&format!("{card}.innerText"));
    let text = text.as_str().unwrap();
    assert!(text.contains("min 0.0125  max 0.03") && text.contains("ping.rtt"), "{text}");
    let labels = browser.of(&format!("[...{card}.querySelectorAll('svg text')].map(t => t.textContent)"));
    assert!(labels.as_array().unwrap().contains(&json!("−4 min")), "{labels}");
    assert!(labels.as_array().unwrap().contains(&json!("0.02")), "{labels}");
    assert!(browser.text(".group h3").starts_with("This host over IPv4"));
    assert!(browser.text("#bots li").contains("heard"));
    assert_eq!(browser.of("window.sameDocument"), true);
    // The other span of time, and a single chart over the whole width by the keyboard.
    browser.run(
        "const s = document.querySelector('#window'); s.value = '60'; s.dispatchEvent(new Event('change'));",
    );
    browser.wait(&format!("[...{card}.querySelectorAll('svg text')].some(t => t.textContent === '−30 s')"));
    let narrow = browser.of(&format!("{card}.offsetWidth")).as_u64().unwrap();
    browser.run(&format!("{card}.querySelector('button').focus();"));
    let key = |key: &str| {
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" && key == "Enter" { "\r" } else { "" };
            browser.devtools(
                "Input.dispatchKeyEvent",
                &json!({"type": kind, "key": key, "code": key, "text": text}),
            );
        }
    };
    key("ArrowLeft");
    key("ArrowLeft");
    browser.wait("document.querySelector('#readout').textContent.endsWith(': 0.03')");
    browser.wait(&format!("{card}.querySelector('.facts').textContent.endsWith('0.03')"));
    key("Enter");
    browser
        .wait(&format!("{card}.offsetWidth > 2 * {narrow} && {card}.querySelector('[aria-expanded=true]')"));
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn requests_appear_and_failed_ones_stand_out() {
    let stand_in = demo().spawn_thread().unwrap();
    let browser = open(&stand_in);
    let address = stand_in.address();
    assert_eq!(http(address, "GET", &format!("/api/profile/?b={CUSTOM}"), "").status, 200);
    let bad = http(address, "POST", &format!("/api/accounts/1/values/?b={PING}"), "{}");
    assert_eq!(bad.status, 400);
    stand_in.misbehave(Rule::new(Misbehaviour::Status(Status::new(503)))).unwrap();
    assert_eq!(http(address, "GET", &format!("/api/accounts/?b={PING}"), "").status, 503);
    browser.wait("document.querySelectorAll('#requests li').length === 3");
    let rows = browser.of("[...document.querySelectorAll('#requests li')].map(li => li.innerText)");
    let row = |i: usize| rows[i].as_str().unwrap().to_owned();
    assert!(
        row(2).contains("GET /api/profile/") && row(2).contains("200") && row(2).contains("custom"),
        "{rows}"
    );
    assert!(row(1).contains("400") && row(1).contains("failed") && row(1).contains("POST"), "{rows}");
    assert!(row(0).contains("503") && row(0).contains("misbehaved by rule 1"), "{rows}");
    assert!(row(0).contains(" ms"), "{rows}");
    assert!(!rows.to_string().contains("b="), "the bot's name stands beside it: {rows}");
    let back = |i: u8| {
        browser
            .of(&format!("getComputedStyle(document.querySelectorAll('#requests li')[{i}]).backgroundColor"))
    };
    assert_eq!(back(0), back(1));
    assert_ne!(back(1), back(2));
    browser.wait("document.querySelector('#totals [data-name=\"Failed requests\"]').innerText.includes('400: 1, 503: 1')");
    browser.wait("document.querySelector('#rules').innerText.includes('1 rule stands')");
    browser.wait("document.querySelector('#bots').innerText.includes('2 failed')");
    browser.run("document.querySelector('#only-failed').click();");
    browser.wait("document.querySelectorAll('#requests li').length === 2");
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn names_with_markup_are_text_and_nothing_is_asked_of_another_host() {
    let stand_in = demo().spawn_thread().unwrap();
    let name = "<script>window.stranger = 1</script><img src=x onerror='window.stranger = 2'>";
    stand_in.change(|backend| backend.set_entity(1, Entity::device(31, name))).unwrap();
    put(&stand_in, &[("entity.31.a", 1.0, 1.0)]);
    http(stand_in.address(), "GET", &format!("/api/x?x=&lt;b&gt;&b={PING}"), "");
    let browser = open(&stand_in);
    browser.wait("document.querySelector('.group h3')?.innerText.includes('<script>window.stranger')");
    browser.wait("document.querySelector('#requests').innerText.includes('&lt;b&gt;')");
    assert_eq!(
        browser.of("document.querySelectorAll('main script, main img, aside img, aside b').length"),
        0
    );
    assert_eq!(browser.of("typeof window.stranger"), "undefined");
    let loaded = browser.of(
        "performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(location.origin + '/stand-in/'))",
    );
    assert_eq!(loaded, json!([]));
    assert!(browser.of("performance.getEntriesByType('resource').length").as_u64().unwrap() >= 3);
    assert_eq!(browser.problems(), Vec::<String>::new());
    // The browser was told to refuse what comes from elsewhere, and scripts within the page.
    browser.run(
        "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}));
         document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.stranger = 3'}));",
    );
    browser.wait("window.problems.length === 2");
    assert_eq!(browser.of("typeof window.stranger"), "undefined");
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn it_is_legible_on_a_phone_and_on_a_desk_in_light_and_dark() {
    let stand_in = demo().spawn_thread().unwrap();
    let long =
        "entity.31.a-very-long-segment-that-goes-on-and-on-without-any-place-to-break.and%2eanother.rtt";
    put(&stand_in, &[(long, 0.000_042, 2.0), ("host.load", f64::from(1 << 30), 40.0), ("host.up", 1.0, 1.0)]);
    for ago in [600.0, 595.0, 590.0] {
        put(&stand_in, &[("host.silent", 7.0, ago)]);
    }
    http(stand_in.address(), "GET", &format!("/api/{}?b={PING}", "x".repeat(300)), "");
    let browser = open(&stand_in);
    browser.wait("document.querySelectorAll('.card.silent').length === 1");
    let mut colours = Vec::new();
    for scheme in ["light", "dark"] {
        browser.scheme(scheme);
        for (width, height) in [(360, 740), (1400, 1000)] {
            browser.size(width, height);
            browser
                .wait(&format!("innerWidth === {width} && document.documentElement.scrollWidth <= {width}"));
            browser.wait("document.querySelectorAll('.card .value-line').length === 4");
            let wide = format!(
                "[...document.querySelectorAll('body *')].filter(e => !e.closest('.hidden, svg svg') && e.getBoundingClientRect().right > {width} + 1).map(e => e.outerHTML.slice(0, 90))"
            );
            assert_eq!(browser.of(&wide), json!([]), "{scheme}, {width}");
            assert_legible(&browser);
        }
        colours.push(
            browser.of(
                "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]",
            ),
        );
    }
    assert_ne!(colours[0][0], colours[1][0]);
    assert_ne!(colours[0][1], colours[1][1]);
    // Cards are as wide as they are drawn, so the letters in charts have their size.
    browser.wait("[...document.querySelectorAll('.card > svg')].every(s => !s.viewBox.baseVal || Math.abs(s.viewBox.baseVal.width - s.clientWidth) <= 1)");
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_phone_shows_charts_first_and_everything_is_large_enough_to_touch() {
    let stand_in = demo().spawn_thread().unwrap();
    for ago in [30.0, 20.0, 10.0] {
        put(&stand_in, &[("entity.31.ping.rtt", ago, ago), ("host.load", ago, ago)]);
    }
    for i in 0..8 {
        http(stand_in.address(), "GET", &format!("/api/x{i}?b={PING}"), "");
    }
    let browser = open(&stand_in);
    browser.size(390, 844);
    browser.go(&stand_in.page_url());
    browser.wait("innerWidth === 390 && document.querySelectorAll('.card .value-line').length === 2");
    browser.wait("document.querySelectorAll('#requests li').length === 5");
    let top = |selector: &str| {
        browser
            .of(&format!("document.querySelector({}).getBoundingClientRect().top", json!(selector)))
            .as_f64()
            .unwrap()
    };
    browser.wait("document.querySelector('.card > svg').getBoundingClientRect().height > 50");
    let chart = browser.of("document.querySelector('.card > svg').getBoundingClientRect().bottom");
    assert!(chart.as_f64().unwrap() < 844.0, "the first chart ends at {chart} px");
    assert!(top("#values") < top("#bots") && top("#bots") < top("#requests"));
    // WCAG 2.2, 2.5.8.
    let targets = "[...document.querySelectorAll('a, button, input, select, label.check')].filter(e => e.checkVisibility())";
    assert!(browser.of(&format!("{targets}.length")).as_u64().unwrap() >= 9);
    let small = format!(
        "{targets}.map(e => [e.outerHTML.slice(0, 60), e.getBoundingClientRect()]).filter(([, r]) => r.width < 24 || r.height < 24).map(([e, r]) => `${{e}}: ${{r.width}} x ${{r.height}}`)"
    );
    assert_eq!(browser.of(&small), json!([]));
    // The parts that are further down are a touch away.
    browser.run("document.querySelector('nav a[href=\"#requests-title\"]').click();");
    browser.wait("scrollY > 100");
    let at = top("#requests-title");
    assert!((0.0..844.0).contains(&at), "the requests are at {at} px");
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn what_is_not_known_yet_is_not_said_to_be_nothing() {
    let stand_in = demo().spawn_thread().unwrap();
    let browser = Browser::open();
    browser.devtools("Network.enable", &json!({}));
    browser.devtools("Network.setBlockedURLs", &json!({"urls": ["*/stand-in/state"]}));
    browser.go(&stand_in.page_url());
    // Several frames have been drawn by then, without a state.
    browser.wait("document.querySelector('#link').dataset.state === 'lost'");
    for note in ["#requests-note", "#values-note", "#bots-note", "#silent-note"] {
        let shown = browser.of(&format!("document.querySelector({}).checkVisibility()", json!(note)));
        assert_eq!(shown, false, "{note}: {}", browser.text(note));
    }
    browser.devtools("Network.setBlockedURLs", &json!({"urls": []}));
    browser.wait("document.querySelector('#link').dataset.state === 'live'");
    browser.wait("document.querySelector('#requests-note').innerText === 'No requests yet.'");
    browser.wait("document.querySelector('#values-note').innerText.startsWith('No values yet.')");
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn large_numbers_have_a_letter_or_a_power_of_ten() {
    let stand_in = demo().spawn_thread().unwrap();
    let numbers = [
        (1e6, "1M"),
        (-2.5e6, "−2.5M"),
        (123_456_789.0, "123.5M"),
        (999_960_000.0, "1G"),
        (999.9e12, "999.9T"),
        (999.99e12, "1.00e15"),
        (3.3e16, "3.30e16"),
        (-1e300, "−1.00e300"),
    ];
    let names: Vec<String> = (0..numbers.len()).map(|i| format!("host.n{i}")).collect();
    put(
        &stand_in,
        &names.iter().zip(numbers).map(|(name, (v, _))| (name.as_str(), v, 1.0)).collect::<Vec<_>>(),
    );
    let browser = open(&stand_in);
    for (name, (v, shown)) in names.iter().zip(numbers) {
        browser.wait(&format!("{}?.querySelector('.last').textContent", card(name)));
        let last = browser.of(&format!("{}.querySelector('.last').textContent", card(name)));
        assert_eq!(last, json!(shown), "{v}");
    }
    let texts =
        browser.of("[...document.querySelectorAll('.card span, .card text')].map(e => e.textContent)");
    for text in texts.as_array().unwrap() {
        let text = text.as_str().unwrap();
        assert!(!text.split(' ').any(|t| t.contains('e') && t.ends_with(['k', 'M', 'G', 'T'])), "{text}");
    }
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_lost_connection_is_told_and_the_page_recovers_by_itself() {
    let stand_in = demo().spawn_thread().unwrap();
    put(&stand_in, &[("a.b", 1.0, 1.0)]);
    let browser = open(&stand_in);
    browser.wait("document.querySelectorAll('.card').length === 1");
    browser.run("window.sameDocument = true;");
    stand_in.shutdown();
    browser.wait("document.querySelector('#link').innerText.includes('lost')");
    browser
        .wait("document.querySelector('#alert').textContent.includes('No connection to the stand-in since')");
    assert_eq!(browser.of("document.title"), "(lost) Stand-in");
    assert_eq!(browser.of("document.querySelectorAll('.card').length"), 1);
    stand_in.restart().unwrap();
    browser.wait("document.querySelector('#link').dataset.state === 'live'");
    browser.wait("document.querySelector('#alert').textContent.includes('Connection is back')");
    put(&stand_in, &[("a.b", 2.0, 0.0)]);
    browser.wait("document.querySelector('.card .last').textContent === '2'");
    // Another one on the same port knows nothing of the values of this one.
    let address = stand_in.address();
    drop(stand_in);
    browser.wait("document.querySelector('#link').dataset.state === 'lost'");
    let other = another(address);
    browser.wait("document.querySelector('#link').dataset.state === 'live'");
    browser.wait("document.querySelector('#alert').textContent.includes('started anew')");
    browser.wait("document.querySelectorAll('.card').length === 0");
    put(&other, &[("c.d", 3.0, 0.0)]);
    browser.wait("document.querySelector('.card .last')?.textContent === '3'");
    assert_eq!(browser.of("window.sameDocument"), true);
}

/// The port may be taken for a moment by connections that are ending.
fn another(address: SocketAddr) -> StandInThread {
    let begun = Instant::now();
    loop {
        match demo().listen(address).spawn_thread() {
            Ok(stand_in) => return stand_in,
            Err(error) => assert!(begun.elapsed() < LIMIT, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn gaps_and_values_that_are_no_numbers_are_shown_as_such() {
    let stand_in = demo().spawn_thread().unwrap();
    for i in 0..40 {
        let ago = 220.0 - f64::from(i) * 5.0;
        if !(60.0..=120.0).contains(&ago) {
            put(&stand_in, &[("host.gap", f64::from(i), ago), ("host.even", f64::from(i), ago)]);
        } else {
            put(&stand_in, &[("host.even", f64::from(i), ago)]);
        }
    }
    let target = format!("/api/accounts/1/values/?b={PING}");
    for (v, ago) in [("1e308", 30.0), ("-1e308", 20.0), ("Infinity", 10.0), ("NaN", 0.0)] {
        let body = format!("[{{\"p\":\"host.odd\",\"v\":{v},\"t\":{:.6}}}]", now_s() - ago);
        assert_eq!(http(stand_in.address(), "PUT", &target, &body).status, 204);
    }
    let browser = open(&stand_in);
    let moves = |path: &str| {
        format!(
            "({}?.querySelector('.value-line').getAttribute('d') ?? '').split('M').length - 1",
            card(path)
        )
    };
    browser.wait(&format!("{} === 2", moves("host.gap")));
    browser.wait(&format!("{} === 1", moves("host.even")));
    browser.wait(&format!("{}.querySelector('.gaps').getAttribute('d').length > 10", card("host.gap")));
    browser.wait(&format!("{}.querySelector('.last').textContent === 'NaN'", card("host.odd")));
    browser.wait(&format!(
        "{}.querySelector('path.odd').getAttribute('d').split('M').length === 3",
        card("host.odd")
    ));
    browser.wait(&format!("{} === 1", moves("host.odd")));
    let drawn =
        browser.of("[...document.querySelectorAll('.card path')].map(p => p.getAttribute('d')).join(' ')");
    assert!(!drawn.to_string().contains("NaN") && !drawn.to_string().contains("Infinity"), "{drawn}");
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn two_thousand_paths_can_be_used() {
    let stand_in = demo().spawn_thread().unwrap();
    stand_in
        .change(|backend| {
            (100..300).try_for_each(|id| {
                backend.set_entity(1, Entity::device(id, &format!("router-{id}"))).map(drop)
            })
        })
        .unwrap();
    let names: Vec<String> = (0..2000).map(|i| format!("entity.{}.if.p{}", 100 + i / 10, i % 10)).collect();
    for ago in [30.0, 20.0, 10.0] {
        put(&stand_in, &names.iter().map(|name| (name.as_str(), ago, ago)).collect::<Vec<_>>());
    }
    let browser = open(&stand_in);
    browser.wait("/^90 of 2.000 charts/.test(document.querySelector('#values-note').innerText)");
    let drawn = "[...document.querySelectorAll('.card .value-line')].filter(p => p.getAttribute('d')).length";
    browser.wait(&format!("{drawn} > 3"));
    // Only what is on the screen is drawn.
    assert!(browser.of(drawn).as_u64().unwrap() < 60, "{}", browser.of(drawn));
    browser.run("const f = document.querySelector('#filter'); f.value = 'router-288 p7'; f.dispatchEvent(new Event('input'));");
    browser.wait("document.querySelectorAll('.card').length === 1 && document.querySelector('.group h3').innerText.startsWith('router-288')");
    put(&stand_in, &names.iter().map(|name| (name.as_str(), 77.0, 0.0)).collect::<Vec<_>>());
    browser.wait("document.querySelector('.card .last').textContent === '77'");
    assert!(browser.of("location.hash").as_str().unwrap().contains("router-288"));
    browser.run(
        "const f = document.querySelector('#filter'); f.value = ''; f.dispatchEvent(new Event('input'));",
    );
    browser.wait("document.querySelectorAll('.card').length === 90");
    browser.run("document.querySelector('#values-more').click();");
    browser.wait("document.querySelectorAll('.card').length === 180");
    assert_eq!(browser.problems(), Vec::<String>::new());
}

/// The values of two hosts that are pinged and of one that tells its load, for five minutes up to now; the second host was away.
fn five_minutes(stand_in: &StandIn) {
    // A generator of pseudorandom numbers from 0 to 1, so that the picture is the same each time.
    let mut random = {
        let mut x = 88_172_645_463_325_252_u64;
        move || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            f64::from(u32::try_from(x >> 32).unwrap()) / f64::from(u32::MAX)
        }
    };
    for i in 0..62 {
        let ago = 306.0 - f64::from(i) * 5.0;
        let mut values = Vec::new();
        for (entity, base) in [(31, 0.000_06), (32, 0.0121)] {
            if entity == 32 && (95.0..170.0).contains(&ago) {
                continue;
            }
            let mut answered = 0.0;
            for packet in 0..3 {
                let lost = entity == 32 && random() < 0.04;
                values.push((format!("entity.{entity}.ping.p{packet}.ok"), if lost { 0.0 } else { 1.0 }));
                if !lost {
                    answered += 1.0;
                    let spike = if random() < 0.05 { 2.2 } else { 1.0 };
                    let rtt = base * (0.9 + 0.3 * random()) * spike;
                    values.push((format!("entity.{entity}.ping.p{packet}.rtt"), (rtt * 1e6).round() / 1e6));
                }
            }
            values.push((format!("entity.{entity}.ping.success"), answered / 3.0));
        }
        values.push((
            "host.vm.load1".to_owned(),
            (2.0 + (f64::from(i) / 9.0).sin() + 0.3 * random()).round_to(2),
        ));
        values
            .push(("host.vm.memory.available".to_owned(), 24_397_746_176.0 - f64::from(i) * 3e7 * random()));
        put(stand_in, &values.iter().map(|(path, v)| (path.as_str(), *v, ago)).collect::<Vec<_>>());
    }
}

trait RoundTo {
    fn round_to(self, digits: i32) -> f64;
}

impl RoundTo for f64 {
    fn round_to(self, digits: i32) -> f64 {
        (self * 10_f64.powi(digits)).round() / 10_f64.powi(digits)
    }
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_picture_of_the_page_shows_charts_in_colour() {
    let stand_in = demo().spawn_thread().unwrap();
    five_minutes(&stand_in);
    for (method, target) in [
        ("GET", format!("/api/profile/?b={CUSTOM}")),
        ("POST", format!("/api/accounts/1/values/?b={PING}")),
        ("GET", format!("/api/accounts/1/entities/?b={PING}")),
        ("GET", format!("/api/accounts/?b={PING}")),
    ] {
        http(stand_in.address(), method, &target, "");
    }
    let browser = open(&stand_in);
    browser.size(1200, 820);
    browser.scheme("light");
    browser.wait("document.querySelectorAll('.card').length >= 16");
    browser.wait("[...document.querySelectorAll('.card')].slice(0, 9).every(c => c.querySelector('.value-line').getAttribute('d')?.length > 100)");
    browser.wait("document.querySelectorAll('#totals > div').length === 6");
    let picture = browser.picture();
    assert!(picture.starts_with(b"\x89PNG"));
    assert!(picture.len() > 20_000, "hardly anything is on it: {} bytes", picture.len());
    if let Some(file) = std::env::var_os("STAND_IN_SCREENSHOT") {
        assert!(picture.len() < 200_000, "too large for the documentation: {} bytes", picture.len());
        std::fs::write(file, picture).unwrap();
    }
}
