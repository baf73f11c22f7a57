//! The recordings as `tests/recorded` has them, and the comparison of an answer with a recorded one.

use std::path::Path;

use grafolean_stand_in::Json;

/// One recorded exchange.
pub(crate) struct Exchange {
    /// Unique in the transcript; empty in the bots' files.
    pub(crate) name: String,
    /// When it happened, Unix microseconds; several times in the bots' files.
    pub(crate) at_us: Vec<i64>,
    /// What the real backend chose for it.
    pub(crate) ids: Vec<i32>,
    pub(crate) tokens: Vec<String>,
    /// Through which front it went, if any.
    pub(crate) via: Option<String>,
    pub(crate) note: String,
    pub(crate) interim_statuses: Vec<u16>,
    pub(crate) request: Sent,
    /// None: the connection was closed without an answer.
    pub(crate) response: Option<Answer>,
}

/// A request as it was sent.
pub(crate) struct Sent {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    /// None: there was no `Host` header.
    pub(crate) host: Option<String>,
    /// Besides `Host` and `Content-Length`.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Vec<u8>>,
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only what goes over a socket is cut"))]
    pub(crate) chunk_size: Option<usize>,
}

impl Sent {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split(['?', '#']).next().unwrap_or("")
    }

    /// What the path is about: what stands after `/api`, or after the account's id.
    pub(crate) fn resource(&self) -> &str {
        let path = self.path();
        let path = path.find("/api").map_or(path, |at| &path[at..]);
        let labels: Vec<&str> = path.split('/').filter(|l| !l.is_empty() && *l != "api").collect();
        match labels[..] {
            ["accounts", _, resource, ..] => resource,
            [resource, ..] => resource,
            [] => "/",
        }
    }
}

/// An answer as far as it is compared: all but the headers `date` and `server`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) version: String,
    pub(crate) status: u16,
    /// Names in lower case, sorted.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn new(version: &str, status: u16, mut headers: Vec<(String, String)>, body: Vec<u8>) -> Self {
        for (name, _) in &mut headers {
            name.make_ascii_lowercase();
        }
        headers.retain(|(name, _)| name != "date" && name != "server");
        headers.sort();
        Self { version: version.to_owned(), status, headers, body }
    }

    /// The two secrets that a login makes are random: each becomes its shape.
    pub(crate) fn without_random(&self) -> Self {
        let mut answer = self.clone();
        for (name, value) in &mut answer.headers {
            if name == "x-jwt-token"
                && let Some((key, token)) = value.strip_prefix("Bearer ").and_then(|v| v.split_once(':'))
                && !key.is_empty()
                && key.bytes().all(|b| b.is_ascii_digit())
                && !token.is_empty()
            {
                *value = "Bearer <number>:<token>".to_owned();
            }
        }
        let before = b"\"session_id\":\"";
        if let Some(at) = answer.body.windows(before.len()).position(|w| w == before) {
            let at = at + before.len();
            let hex = answer.body[at..].iter().take_while(|b| b"0123456789abcdef".contains(b)).count();
            if hex == 64 {
                answer.body.splice(at..at + hex, *b"<64 hexadecimal digits>");
            }
        }
        answer
    }
}

/// What differs between the recorded answer and the one that came; empty if nothing does.
pub(crate) fn differences(recorded: Option<&Answer>, came: Option<&Answer>) -> Vec<(&'static str, String)> {
    let (recorded, came) = match (recorded, came) {
        (None, None) => return Vec::new(),
        (Some(recorded), Some(came)) => (recorded, came),
        (recorded, came) => {
            let show = |a: Option<&Answer>| {
                a.map_or("no answer".to_owned(), |a| format!("{} {}", a.status, text(&a.body)))
            };
            return vec![("answer", format!("recorded {}, came {}", show(recorded), show(came)))];
        }
    };
    let mut different = Vec::new();
    if recorded.version != came.version {
        different.push(("version", format!("recorded {}, came {}", recorded.version, came.version)));
    }
    if recorded.status != came.status {
        different.push(("status", format!("recorded {}, came {}", recorded.status, came.status)));
    }
    if recorded.headers != came.headers {
        different.push(("headers", format!("recorded {:?}, came {:?}", recorded.headers, came.headers)));
    }
    // Byte for byte: order of keys, types and digits of JSON included.
    if recorded.body != came.body {
        let (a, b) = (&recorded.body, &came.body);
        let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
        let from = |body: &[u8]| text(&body[same.saturating_sub(60)..(same + 120).min(body.len())]);
        different.push(("body", format!("from byte {same} on: recorded {}, came {}", from(a), from(b))));
    }
    different
}

fn text(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    if text.len() > 300 {
        text = text.chars().take(300).collect::<String>() + "...";
    }
    format!("`{text}`")
}

// Reading

/// The lines of a file of `tests/recorded`.
pub(crate) fn lines(file: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .enumerate()
        .map(|(i, l)| l.parse().unwrap_or_else(|e| panic!("{file}:{}: {e}", i + 1)))
        .collect()
}

pub(crate) fn string(value: &Json, key: &str) -> Option<String> {
    match value.get(key) {
        Some(Json::Str(text)) => Some(text.clone()),
        None | Some(Json::Null) => None,
        other => panic!("{key} is {other:?}"),
    }
}

pub(crate) fn integer<T: core::str::FromStr>(value: &Json, key: &str) -> Option<T> {
    match value.get(key) {
        Some(Json::Int(digits)) => Some(digits.parse().ok().unwrap_or_else(|| panic!("{key} is {digits}"))),
        None | Some(Json::Null) => None,
        other => panic!("{key} is {other:?}"),
    }
}

pub(crate) fn list<'a>(value: &'a Json, key: &str) -> &'a [Json] {
    match value.get(key) {
        Some(Json::List(items)) => items,
        _ => &[],
    }
}

pub(crate) fn integers<T: core::str::FromStr>(items: &[Json]) -> Vec<T> {
    let read = |item: &Json| match item {
        Json::Int(digits) => digits.parse().ok(),
        _ => None,
    };
    items.iter().map(|item| read(item).unwrap_or_else(|| panic!("{item:?} is no number"))).collect()
}

fn pairs(value: &Json) -> Vec<(String, String)> {
    list(value, "headers")
        .iter()
        .map(|pair| match pair {
            Json::List(pair) => match &pair[..] {
                [Json::Str(name), Json::Str(value)] => (name.clone(), value.clone()),
                _ => panic!("{pair:?} is no header"),
            },
            _ => panic!("{pair:?} is no header"),
        })
        .collect()
}

/// Long runs of one character are written `«x` character `*` count `»`.
fn with_runs(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, run)) = rest.split_once("«x") {
        out.push_str(before);
        let (run, after) = run.split_once('»').expect("the end of a run");
        let (character, count) = run.split_once('*').expect("a count of a run");
        out.push_str(&character.repeat(count.parse().expect("a count of a run")));
        rest = after;
    }
    out + rest
}

impl Exchange {
    pub(crate) fn read(line: &Json) -> Self {
        let at_us = match line.get("at_us") {
            Some(Json::List(times)) => integers(times),
            Some(time) => integers(core::slice::from_ref(time)),
            None => panic!("a line without time"),
        };
        let texts = |key| list(line, key).iter().map(Json::python_str).collect();
        Self {
            name: string(line, "name").unwrap_or_default(),
            at_us,
            ids: integers(list(line, "ids")),
            tokens: texts("tokens"),
            via: string(line, "via"),
            note: string(line, "note").unwrap_or_default(),
            interim_statuses: integers(list(line, "interim_statuses")),
            request: sent(line.get("request").expect("a request")),
            response: line.get("response").filter(|r| **r != Json::Null).map(|response| {
                Answer::new(
                    "HTTP/1.1",
                    integer(response, "status").expect("a status"),
                    pairs(response),
                    with_runs(&string(response, "body").unwrap_or_default()).into_bytes(),
                )
            }),
        }
    }
}

fn sent(request: &Json) -> Sent {
    let no_host = request.get("no_host").is_some();
    let body = match (string(request, "body"), string(request, "body_omitted")) {
        (Some(body), _) if string(request, "body_encoding").as_deref() == Some("latin-1") => {
            Some(body.chars().map(|c| u8::try_from(u32::from(c)).expect("latin-1")).collect())
        }
        (Some(body), _) => Some(with_runs(&body).into_bytes()),
        (None, Some(what)) => {
            let bytes = integer(request, "body_bytes").expect("the length of a body");
            let body = omitted(&what, bytes);
            assert_eq!(body.len(), bytes, "the body that is described as: {what}");
            Some(body.into_bytes())
        }
        (None, None) => None,
    };
    Sent {
        method: string(request, "method").expect("a method"),
        target: with_runs(&string(request, "target").expect("a target")),
        version: string(request, "version").unwrap_or_else(|| "HTTP/1.1".to_owned()),
        host: (!no_host).then(|| string(request, "host").unwrap_or_else(|| "127.0.0.1:8300".to_owned())),
        headers: pairs(request),
        body,
        chunk_size: integer(request, "chunk_size"),
    }
}

/// Bodies that were recorded as a description.
fn omitted(what: &str, bytes: usize) -> String {
    let values = |path: &str, count: usize, value: &dyn Fn(usize) -> String| -> Vec<String> {
        (0..count).map(|i| format!("{{\"p\":\"{path}.n{i}\",\"v\":{}}}", value(i))).collect()
    };
    let items = match what {
        "150 values dup2.n0..n148 with v=i; the last repeats dup2.n3 with v=-1" => {
            let mut items = values("dup2", 149, &|i| i.to_string());
            items.push("{\"p\":\"dup2.n3\",\"v\":-1}".to_owned());
            items
        }
        "250 values part.n0..n249 with v=i, but v=\"bad\" at 240" => {
            values("part", 250, &|i| if i == 240 { "\"bad\"".to_owned() } else { i.to_string() })
        }
        "10000 values huge.n0..n9999 with v=i*0.5" | "the same again" => {
            values("huge", 10_000, &|i| format!("{}.{}", i / 2, i % 2 * 5))
        }
        "one value padded with spaces" | "one value padded with spaces, chunked" => {
            let mut body = "[{\"p\":\"front.large\",\"v\":1}".to_owned();
            body.push_str(&" ".repeat(bytes - body.len() - 1));
            return body + "]";
        }
        _ => panic!("nobody knows how to make: {what}"),
    };
    format!("[{}]", items.join(","))
}
