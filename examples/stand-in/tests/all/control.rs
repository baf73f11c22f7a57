//! The rules of misbehaviour over HTTP: each kind, the list, and what is refused.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use grafolean_stand_in::{Config, Json, MAX_RULES, Misbehaviour, Rule, StandIn, StandInThread};
use proptest::prelude::*;

const PING: &str = "11111111-1111-4111-8111-111111111111";

/// Nothing here takes long; whoever waits for this has failed.
const LIMIT: Duration = Duration::from_secs(20);

const RULES: &str = "/stand-in/misbehaviour";

fn start() -> StandInThread {
    StandIn::builder().config(Config::demo().unwrap()).clock(|| 1_795_370_372_000_000).spawn_thread().unwrap()
}

/// Sends a request, and reads until the connection ends.
fn raw(stand_in: &StandIn, request: &str) -> std::io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(stand_in.address())?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Status and body.
fn ask(stand_in: &StandIn, method: &str, path: &str, content_type: &str, body: &str) -> (u16, String) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = String::from_utf8(raw(stand_in, &request).unwrap()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn add(stand_in: &StandIn, rule: &str) -> (u16, String) {
    ask(stand_in, "POST", RULES, "application/json", rule)
}

fn profile(stand_in: &StandIn) -> std::io::Result<String> {
    let request = format!("GET /api/profile/?b={PING} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    raw(stand_in, &request).map(|answer| String::from_utf8_lossy(&answer).into_owned())
}

fn put(stand_in: &StandIn, values: usize) -> std::io::Result<String> {
    let values: Vec<String> = (0..values).map(|i| format!("{{\"p\":\"n{i}\",\"v\":1,\"t\":1}}")).collect();
    let body = format!("[{}]", values.join(","));
    let request = format!(
        "PUT /api/accounts/1/values/?b={PING} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    raw(stand_in, &request).map(|answer| String::from_utf8_lossy(&answer).into_owned())
}

fn begins(answer: std::io::Result<String>, with: &str) {
    let answer = answer.unwrap();
    assert!(answer.starts_with(with), "{answer:?} does not begin with {with:?}");
}

fn ends(answer: std::io::Result<String>, with: &str) {
    let answer = answer.unwrap();
    assert!(answer.ends_with(with), "{answer:?} does not end with {with:?}");
}

fn fails(answer: std::io::Result<String>, kind: ErrorKind) {
    assert_eq!(answer.unwrap_err().kind(), kind);
}

#[test]
fn each_kind_can_be_asked_for_and_does_what_it_says() {
    type Check = fn(&StandInThread);
    let whole = profile(&start()).unwrap();
    let (head, body) = whole.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && body.len() > 40, "{whole}");
    let kinds: &[(&str, Check)] = &[
        (r#"{"kind":"refuse","for_ms":3600000}"#, |s| fails(profile(s), ErrorKind::ConnectionRefused)),
        // The connection that brings the rule was accepted before.
        (r#"{"kind":"reset_on_connect","times":1}"#, |s| fails(profile(s), ErrorKind::ConnectionReset)),
        (r#"{"kind":"reset"}"#, |s| fails(put(s, 1), ErrorKind::ConnectionReset)),
        (r#"{"kind":"close"}"#, |s| {
            assert_eq!(put(s, 1).unwrap(), "");
            assert_eq!(s.value_count(), 0);
        }),
        (r#"{"kind":"close_after_doing"}"#, |s| {
            assert_eq!(put(s, 1).unwrap(), "");
            assert_eq!(s.value_count(), 1);
        }),
        (r#"{"kind":"hang","for_ms":30}"#, |s| {
            begins(put(s, 1), "HTTP/1.1 204");
            assert!(s.requests()[0].misbehaved.is_some());
        }),
        (r#"{"kind":"hang_after_doing","for_ms":30}"#, |s| {
            begins(put(s, 1), "HTTP/1.1 204");
            assert!(s.requests()[0].misbehaved.is_some());
        }),
        (r#"{"kind":"delay","ms":30}"#, |s| {
            begins(profile(s), "HTTP/1.1 200");
            assert!(s.requests()[0].took >= Duration::from_millis(30));
        }),
        (
            r#"{"kind":"status","status":429,"retry_after_s":7,"headers":{"x-a":"b"},"text":"slow down","close":true}"#,
            |s| {
                let answer = put(s, 1).unwrap();
                assert!(answer.starts_with("HTTP/1.1 429") && answer.ends_with("slow down"), "{answer}");
                assert!(
                    answer.contains("\r\nretry-after: 7\r\n") && answer.contains("\r\nx-a: b\r\n"),
                    "{answer}"
                );
                assert_eq!(s.value_count(), 0);
            },
        ),
        (r#"{"kind":"status_after_doing","status":500}"#, |s| {
            ends(put(s, 1), "Internal Server Error");
            assert_eq!(s.value_count(), 1);
        }),
        (r#"{"kind":"pages","pages":1}"#, |s| {
            begins(put(s, 150), "HTTP/1.1 500");
            assert_eq!(s.value_count(), 100);
        }),
        (r#"{"kind":"body_limit","bytes":100}"#, |s| {
            begins(put(s, 1), "HTTP/1.1 204");
            begins(put(s, 10), "HTTP/1.1 413 Request Entity Too Large");
        }),
        (
            r#"{"kind":"refuse_body","containing":"\"n1\"","status":400,"text":"Input validation failed"}"#,
            |s| {
                begins(put(s, 1), "HTTP/1.1 204");
                ends(put(s, 2), "Input validation failed");
                assert_eq!(s.value_count(), 1);
            },
        ),
        (r#"{"kind":"plain_http"}"#, |s| ends(profile(s), "Please use HTTPS!")),
        (r#"{"kind":"redirect","status":308,"to":"http://x/y"}"#, |s| {
            let answer = profile(s).unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 308") && answer.contains("location: http://x/y\r\n"),
                "{answer}"
            );
        }),
        (r#"{"kind":"redirect"}"#, |s| begins(profile(s), "HTTP/1.1 307")),
        (r#"{"kind":"date","offset_s":-86400}"#, |s| {
            assert!(profile(s).unwrap().contains("\r\ndate: Sat, 21 Nov 2026 17:59:32 GMT\r\n"));
        }),
        (r#"{"kind":"date","missing":true}"#, |s| assert!(!profile(s).unwrap().contains("date:"))),
        (r#"{"kind":"date","text":"noon"}"#, |s| assert!(profile(s).unwrap().contains("date: noon\r\n"))),
        (r#"{"kind":"idle_close","after_ms":10}"#, |s| {
            let request = format!("GET /api/profile/?b={PING} HTTP/1.1\r\nHost: x\r\n\r\n");
            let answer = raw(s, &request).unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"}"));
        }),
        (r#"{"kind":"cut_head","after_bytes":12}"#, |s| assert_eq!(profile(s).unwrap(), "HTTP/1.1 200")),
        (r#"{"kind":"cut_body","after_bytes":5}"#, |s| ends(profile(s), "\r\n\r\n{\"use")),
        (r#"{"kind":"drip","bytes":9,"pause_ms":1}"#, |s| {
            begins(profile(s), "HTTP/1.1 200");
            ends(profile(s), "}");
        }),
        (r#"{"kind":"drip_head","bytes":9,"pause_ms":1}"#, |s| {
            begins(profile(s), "HTTP/1.1 200");
            ends(profile(s), "}");
        }),
        (r#"{"kind":"garbage","seed":3,"bytes":50}"#, |s| {
            let request = format!("GET /api/profile/?b={PING} HTTP/1.1\r\nHost: x\r\n\r\n");
            let bytes = raw(s, &request).unwrap();
            assert!(bytes.len() == 50 && !bytes[0].is_ascii());
        }),
        (r#"{"kind":"wrong_body","body":"text","text":"<p>"}"#, |s| ends(profile(s), "\r\n\r\n<p>")),
        (r#"{"kind":"wrong_body","body":"half"}"#, |s| {
            let answer = profile(s).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && !answer.ends_with('}'), "{answer}");
        }),
        (r#"{"kind":"wrong_body","body":"random","seed":1,"bytes":8}"#, |s| {
            assert!(profile(s).unwrap().contains("content-length: 8\r\n"));
        }),
        (r#"{"kind":"wrong_body","body":"longer","by_bytes":1000}"#, |s| {
            let answer = profile(s).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}\r\n", body.len() + 1000)), "{answer}");
        }),
        (r#"{"kind":"wrong_body","body":"shorter","by_bytes":3}"#, |s| {
            let answer = profile(s).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}\r\n", body.len() - 3)), "{answer}");
        }),
    ];
    for (rule, check) in kinds {
        println!("{rule}");
        let stand_in = start();
        assert_eq!(add(&stand_in, rule), (201, "{\"id\":1}".to_owned()), "{rule}");
        check(&stand_in);
    }
    // All that can be read can be written, and is the same.
    for (text, _) in kinds {
        let rule = Rule::from_json(&text.parse().unwrap()).unwrap();
        assert_eq!(Rule::from_json(&rule.to_json()).unwrap(), rule, "{text}");
    }
}

#[test]
fn the_examples_in_the_readme_are_rules_of_every_kind() {
    let stand_in = start();
    let readme = include_str!("../../README.md");
    let examples = readme.split("curl --json '").skip(1).map(|rest| rest.split_once('\'').unwrap().0);
    let mut kinds = Vec::new();
    // Rules about connections are only read here: they would end this.
    for example in examples {
        let rule = Rule::from_json(&example.parse().unwrap()).unwrap_or_else(|e| panic!("{example}: {e}"));
        let kind = example.parse::<Json>().unwrap().get("kind").unwrap().python_str();
        assert!(readme.contains(&format!("| `{kind}` |")), "{kind}");
        if !matches!(kind.as_str(), "refuse" | "reset_on_connect") {
            assert_eq!(add(&stand_in, example).0, 201, "{example}");
            assert_eq!(stand_in.misbehaved(stand_in.misbehave(rule).unwrap()), 0);
        }
        kinds.push(kind);
    }
    let (_, refusal) = add(&stand_in, r#"{"kind":"?"}"#);
    let known = refusal.split_once("must be ").unwrap().1;
    for kind in known.trim_end_matches("\"}").replace(" or ", ", ").split(", ") {
        assert!(kinds.iter().any(|k| k == kind), "no example of {kind}");
    }
}

#[test]
fn rules_are_listed_with_their_counts_and_taken_away() {
    let stand_in = start();
    let rule = r#"{"kind":"status","status":503,"method":"GET","path":"/profile","bot":"ping","skip":1,"times":2,"chance":1,"chance_seed":9}"#;
    assert_eq!(add(&stand_in, rule).0, 201);
    assert_eq!(
        add(&stand_in, r#"{"kind":"hang","path":"/nothing","for_ms":3600000}"#),
        (201, "{\"id\":2}".to_owned())
    );
    for status in [200, 503, 503, 200] {
        begins(profile(&stand_in), &format!("HTTP/1.1 {status}"));
    }
    let get = |path: &str| ask(&stand_in, "GET", path, "x", "");
    let first = "{\"id\":1,\"kind\":\"status\",\"status\":503,\"method\":\"GET\",\"path\":\"/profile\",\"bot\":\"ping\",\"skip\":1,\"times\":2,\"chance\":1.0,\"chance_seed\":9,\"matched\":3,\"applied\":2}";
    assert_eq!(get(&format!("{RULES}/1")), (200, first.to_owned()));
    let (status, list) = get(RULES);
    assert_eq!(status, 200);
    assert!(list.starts_with(&format!("{{\"list\":[{first},{{\"id\":2,\"kind\":\"hang\"")), "{list}");
    let Some(Json::List(rules)) = list.parse::<Json>().unwrap().get("list").cloned() else {
        panic!("{list}")
    };
    let Some(Json::Int(left)) = rules[1].get("ends_in_ms") else { panic!("{list}") };
    assert!(left.parse::<u64>().unwrap() <= 3_600_000);

    let delete = |path: &str| ask(&stand_in, "DELETE", path, "x", "");
    let gone = (404, "{\"error\":\"no such rule stands\"}".to_owned());
    assert_eq!(delete(&format!("{RULES}/1")), (204, String::new()));
    assert_eq!(delete(&format!("{RULES}/1")), gone);
    assert_eq!(delete(&format!("{RULES}/x")), gone);
    assert_eq!(get(&format!("{RULES}/1")), gone);
    assert_eq!(delete(RULES), (204, String::new()));
    assert_eq!(get(RULES), (200, "{\"list\":[]}".to_owned()));
    assert_eq!(stand_in.counters().requests, 4, "own requests do not count");
}

#[test]
fn what_cannot_be_is_refused_with_field_and_limit() {
    let stand_in = start();
    for (rule, why) in [
        ("{", "line 1, column 2: expected "),
        ("[]", "`rule` must be an object"),
        ("{}", "`kind` is missing"),
        (r#"{"kind":"explode"}"#, "`kind` must be refuse, reset_on_connect, "),
        (r#"{"kind":"refuse"}"#, "`for_ms` is missing"),
        (r#"{"kind":"reset_on_connect"}"#, "`for_ms` is missing"),
        (r#"{"kind":"refuse","for_ms":1,"times":1}"#, "`times` does not go with refuse"),
        (
            r#"{"kind":"close","tims":1}"#,
            "`tims` is not known for close; known are kind, method, path, bot, skip, times, chance, chance_seed, for_ms",
        ),
        (r#"{"kind":"close","bytes":1}"#, "`bytes` is not known for close"),
        (r#"{"kind":"close","times":-1}"#, "`times` must be a whole number from 0 to 18446744073709551615"),
        (r#"{"kind":"close","times":1.5}"#, "`times` must be a whole number"),
        (r#"{"kind":"close","times":0}"#, "`times` must be at least 1"),
        (r#"{"kind":"close","for_ms":0}"#, "`for_ms` must be from 1 to 86400000 milliseconds"),
        (r#"{"kind":"close","times":1,"times":2}"#, "`times` stands there twice"),
        (r#"{"kind":"close","kind":"reset"}"#, "`kind` stands there twice"),
        (
            r#"{"kind":"close","path":"/api/accounts/*/values"}"#,
            "`path` must be without the /api at its beginning: patterns are below /api",
        ),
        (r#"{"kind":"close","path":"/api"}"#, "`path` must be without the /api"),
        (
            r#"{"kind":"close","bot":"pong"}"#,
            "`bot` must be the short name of a bot, or unknown; no bot is called `pong`, but ping, custom",
        ),
        (r#"{"kind":"close","path":7}"#, "`path` must be a text"),
        (r#"{"kind":"close","path":"x"}"#, "`path` must be a path below /api"),
        (r#"{"kind":"close","chance":2}"#, "`chance` must be a number from 0 to 1"),
        (r#"{"kind":"close","chance":NaN}"#, "`chance` must be a number from 0 to 1"),
        (r#"{"kind":"close","chance":"x"}"#, "`chance` must be a number from 0 to 1"),
        (r#"{"kind":"close","chance_seed":2}"#, "`chance` is missing"),
        (r#"{"kind":"status"}"#, "`status` is missing"),
        (r#"{"kind":"status","status":100}"#, "`status` must be from 200 to 599"),
        (r#"{"kind":"status","status":65736}"#, "`status` must be from 200 to 599"),
        (r#"{"kind":"status","status":500,"headers":{"a":1}}"#, "`headers` must be an object of texts"),
        (r#"{"kind":"status","status":500,"headers":{"a b":"1"}}"#, "`headers` must be names"),
        (r#"{"kind":"delay","ms":86400001}"#, "`ms` must be from 0 to 86400000 milliseconds"),
        (r#"{"kind":"drip","bytes":0,"pause_ms":1}"#, "`bytes` must be from 1 to 16777216 bytes"),
        (
            r#"{"kind":"cut_body","after_bytes":18446744073709551615}"#,
            "`after_bytes` must be from 0 to 16777216 bytes",
        ),
        (r#"{"kind":"date"}"#, "`offset_s` must be given, or `text`, or `missing`"),
        (
            r#"{"kind":"date","offset_s":1,"missing":true}"#,
            "`offset_s` must be given, or `text`, or `missing`",
        ),
        (r#"{"kind":"wrong_body","body":"odd"}"#, "`body` must be text, half, random, longer or shorter"),
        (r#"{"kind":"wrong_body","body":"text"}"#, "`text` is missing"),
    ] {
        let (status, body) = add(&stand_in, rule);
        let Some(Json::Str(error)) = body.parse::<Json>().unwrap().get("error").cloned() else {
            panic!("{rule}: {body}")
        };
        assert_eq!(status, 400, "{rule}");
        assert!(error.starts_with(why), "{rule}: {error}");
    }
    assert_eq!(add(&stand_in, r#"{"kind":"close","bot":"unknown","times":1,"for_ms":1}"#).0, 201);
    assert_eq!(add(&stand_in, r#"{"kind":"close","path":"/apis/**","bot":"custom"}"#).0, 201);
    stand_in.behave_all();
    for _ in 0..MAX_RULES {
        stand_in.misbehave(Rule::new(Misbehaviour::Close).path("/nothing")).unwrap();
    }
    let full = (400, "{\"error\":\"there are 1000 rules already\"}".to_owned());
    assert_eq!(add(&stand_in, r#"{"kind":"close"}"#), full);
}

#[test]
fn a_web_page_of_somewhere_else_can_change_nothing() {
    let stand_in = start();
    let close = r#"{"kind":"close"}"#;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
        assert_eq!(ask(&stand_in, "POST", RULES, content_type, close).0, 415, "{content_type}");
    }
    let preflight = format!(
        "OPTIONS {RULES} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nAccess-Control-Request-Method: DELETE\r\nConnection: close\r\n\r\n"
    );
    let answer = String::from_utf8(raw(&stand_in, &preflight).unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405") && !answer.contains("access-control-allow"), "{answer}");
    assert!(answer.contains("\r\nallow: GET, POST, DELETE\r\n"), "{answer}");
    assert_eq!(ask(&stand_in, "GET", RULES, "x", "").1, "{\"list\":[]}");
    assert_eq!(ask(&stand_in, "POST", RULES, "Application/JSON; charset=utf-8", close).0, 201);
    assert_eq!(ask(&stand_in, "GET", "/stand-in/misbehaviours", "x", "").0, 404);
    assert_eq!(ask(&stand_in, "GET", &format!("{RULES}/"), "x", "").0, 200);
}

#[test]
fn names_and_origins_of_somewhere_else_reach_neither_rules_nor_data_nor_page() {
    let stand_in =
        StandIn::builder().config(Config::demo().unwrap()).host_name("lab-pc").spawn_thread().unwrap();
    let port = stand_in.address().port();
    let rule = r#"{"kind":"close","path":"/nothing"}"#;
    let send = |method: &str, path: &str, headers: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{rule}",
            rule.len()
        );
        let answer = String::from_utf8(raw(&stand_in, &request).unwrap()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse::<u16>().unwrap(), body.to_owned())
    };
    let everything = [
        ("GET", "/"),
        ("GET", "/stand-in/state"),
        ("GET", "/stand-in/events"),
        ("GET", "/stand-in/page.js"),
        ("GET", "/stand-in/nothing"),
        ("GET", RULES),
        ("POST", RULES),
        ("DELETE", RULES),
    ];
    let own = format!("127.0.0.1:{port}");
    for (headers, why) in [
        // A page whose name was made to point here: its requests are of the same origin.
        ("Host: evil.example:8480\r\nOrigin: http://evil.example:8480\r\n", "not served as `evil.example`"),
        ("Host: localhost.evil.example\r\n", "not served as `localhost.evil.example`"),
        ("Host: 127.0.0.1.evil.example\r\n", "not served as `127.0.0.1.evil.example`"),
        ("Host: lab-pc.evil.example\r\n", "not served as `lab-pc.evil.example`"),
        ("Host: [evil]\r\n", "not served as `[evil]`"),
        ("Host: \r\n", "not served as ``"),
        ("Host: localhost\r\nHost: evil.example\r\n", "need one `Host`"),
        // A page of elsewhere that sends to an address of this host.
        (&format!("Host: {own}\r\nOrigin: http://evil.example\r\n"), "a web page of `http://evil.example`"),
        (&format!("Host: {own}\r\nOrigin: http://127.0.0.1:1\r\n"), "a web page of `http://127.0.0.1:1`"),
        (&format!("Host: {own}\r\nOrigin: http://localhost:{port}\r\n"), "a web page of `http://localhost:"),
        (&format!("Host: {own}\r\nOrigin: null\r\n"), "a web page of `null`"),
    ] {
        for (method, path) in everything {
            let (status, body) = send(method, path, headers);
            assert_eq!(status, 403, "{method} {path} {headers}");
            assert!(body.contains(why), "{method} {path} {headers}: {body}");
        }
    }
    assert_eq!(send("GET", RULES, "Host: localhost\r\n"), (200, "{\"list\":[]}".to_owned()));
    for host in [&own, "localhost", "LocalHost:80", "[::1]:8480", "10.1.2.3", "lab-pc:8480", "Lab-PC"] {
        for origin in
            [String::new(), format!("Origin: http://{host}\r\n"), format!("Origin: https://{host}\r\n")]
        {
            let headers = format!("Host: {host}\r\n{origin}");
            assert_eq!(send("POST", RULES, &headers).0, 201, "{headers}");
            for path in ["/", "/stand-in/state", RULES] {
                assert_eq!(send("GET", path, &headers).0, 200, "{path} {headers}");
            }
        }
    }
    // The backend itself does not mind, as the real one.
    begins(profile(&stand_in), "HTTP/1.1 200");
}

#[test]
fn a_refusal_lets_the_answer_to_its_own_request_through_and_ends() {
    let stand_in = start();
    // On a connection that served the backend before.
    let mut socket = TcpStream::connect(stand_in.address()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let rule = r#"{"kind":"refuse","for_ms":50}"#;
    write!(
        socket,
        "GET /api/profile/?b={PING} HTTP/1.1\r\nHost: x\r\n\r\nPOST {RULES} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{rule}",
        rule.len()
    )
    .unwrap();
    let mut answers = String::new();
    socket.read_to_string(&mut answers).unwrap();
    assert!(answers.ends_with("{\"id\":1}"), "{answers}");
    stand_in.wait_for(LIMIT, |s| s.counters().open_connections == 0).unwrap();
    let begun = std::time::Instant::now();
    while profile(&stand_in).is_err() {
        assert!(begun.elapsed() < LIMIT, "it does not listen again");
        std::thread::yield_now();
    }
}

#[test]
fn rules_can_stand_before_the_first_request() {
    let rules =
        Rule::list_from_json(r#"[{"kind":"close","times":1},{"kind":"refuse","for_ms":3600000}]"#).unwrap();
    let mut builder = StandIn::builder().config(Config::demo().unwrap());
    for rule in rules {
        builder = builder.misbehave(rule);
    }
    let stand_in = builder.spawn_thread().unwrap();
    fails(profile(&stand_in), ErrorKind::ConnectionRefused);
    stand_in.behave_all();
    begins(profile(&stand_in), "HTTP/1.1 200");
    let error =
        StandIn::builder().misbehave(Rule::new(Misbehaviour::Close).path("x")).spawn_thread().unwrap_err();
    assert!(error.to_string().starts_with("misbehaviour: `path` must be "), "{error}");
}

/// A kind with some fields, of which some fit it and some have values that they can have.
fn any_rule() -> impl Strategy<Value = String> {
    let kind = prop::sample::select(vec![
        "refuse",
        "reset_on_connect",
        "reset",
        "close",
        "close_after_doing",
        "hang",
        "hang_after_doing",
        "delay",
        "status",
        "status_after_doing",
        "pages",
        "body_limit",
        "plain_http",
        "redirect",
        "date",
        "idle_close",
        "cut_head",
        "cut_body",
        "drip",
        "drip_head",
        "garbage",
        "wrong_body",
    ]);
    let field = prop::sample::select(vec![
        "method",
        "path",
        "bot",
        "skip",
        "times",
        "chance",
        "chance_seed",
        "for_ms",
        "ms",
        "status",
        "text",
        "headers",
        "retry_after_s",
        "close",
        "pages",
        "bytes",
        "to",
        "offset_s",
        "missing",
        "after_ms",
        "after_bytes",
        "pause_ms",
        "seed",
        "body",
        "by_bytes",
    ]);
    let value = prop_oneof![
        4 => (0_u64..1000).prop_map(|n| n.to_string()),
        1 => any::<i64>().prop_map(|n| n.to_string()),
        1 => any::<u64>().prop_map(|n| n.to_string()),
        1 => any::<f64>().prop_filter("written as JSON", |x| x.is_finite()).prop_map(|x| x.to_string()),
        2 => prop::sample::select(vec![
            "true", "null", "[]", "{}", "NaN", "\"PUT\"", "\"/a/**\"", "\"half\"", "\"longer\"", "\"\\ud800\"", "{\"a\":\"b\"}",
        ])
        .prop_map(str::to_owned),
    ];
    (kind, prop::collection::vec((field, value), 0..5)).prop_map(|(kind, fields)| {
        let mut rule = format!("{{\"kind\":\"{kind}\"");
        for (field, value) in fields {
            rule.push_str(&format!(",\"{field}\":{value}"));
        }
        rule.push('}');
        rule
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_a_rule_that_reads_back_or_is_refused(rule in prop_oneof![9 => any_rule(), 1 => any::<String>()]) {
        if let Ok(json) = rule.parse::<Json>()
            && let Ok(read) = Rule::from_json(&json)
        {
            let written = read.to_json();
            prop_assert_eq!(Rule::from_json(&written.to_compact().unwrap().parse().unwrap()).unwrap(), read);
        }
    }
}
