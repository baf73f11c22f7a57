//! The live page: what the stand-in receives, for a person with a browser, and the two addresses that feed it.
//!
//! | address | answer |
//! |---|---|
//! | `GET /` | the page; its script, style and icon are `/stand-in/page.js`, `page.css` and `icon.svg` |
//! | `GET /stand-in/state` | what there is, as JSON: totals, bots, accounts with entities, the newest values of each path, requests |
//! | `GET /stand-in/events` | what comes from then on, as server-sent events |
//!
//! The events are `hello` (ask for the state now), `batch` (values and requests), `totals` (each second, also as a sign of life)
//! and `resync` (events were lost, or accounts, entities or bots have changed: ask for the state again).
//!
//! A state holds at most [`SERIES`] paths, [`VALUES`] values and [`REQUESTS`] requests, a few MB at the most, and is
//! written without holding the backend up for longer than [`CHUNK`] paths take. A reader of events costs a task and what it is
//! behind: at most a few batches, then it loses the oldest. No token and no details of credentials are in any of it: tokens
//! are masked before a request is logged, and bots and entities are written field by field.

use core::fmt::Write;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc};
use tokio::time::MissedTickBehavior;

use crate::body::Payload;
use crate::exchange::OwnRequest;
use crate::json::write_json_str;
use crate::log::{Event, Heard, RequestRecord};
use crate::server::Core;
use crate::store::StoredValue;

const HTML: &str = include_str!("page/page.html");
const CSS: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
const ICON: &str = include_str!("page/icon.svg");

/// Most paths in a state.
const SERIES: usize = 5_000;
/// Most values in a state, unless there are so many paths that [`LEAST_PER_SERIES`] of each are more.
const VALUES: usize = 120_000;
/// Most values of one path in a state.
const PER_SERIES: usize = 720;
const LEAST_PER_SERIES: usize = 24;
/// Most requests in a state.
const REQUESTS: usize = 200;
/// Most entities in a state.
const ENTITIES: usize = 20_000;
/// How many paths are read before others get at the backend again.
const CHUNK: usize = 64;
/// Most events in one batch.
const BATCH: usize = 1_000;
/// Batches that wait for a slow reader.
const WAITING: usize = 2;
/// How often totals are sent.
const TOTALS: Duration = Duration::from_secs(1);

/// Nothing but the page's own files and its two addresses, wherever the text on it comes from.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The answer to a request for `/` or something below `/stand-in/`; none if there is nothing.
///
/// An answer without a foreseeable end is a [`Payload::Stream`].
pub(crate) fn answer(request: &OwnRequest<'_>) -> Option<Response<Payload>> {
    if request.method != Method::GET {
        return None;
    }
    let file = |content_type, text: &'static str| {
        Some(reply(content_type, Payload::from(Bytes::from_static(text.as_bytes()))))
    };
    match request.path {
        "/" => file("text/html; charset=utf-8", HTML),
        "/stand-in/page.css" => file("text/css; charset=utf-8", CSS),
        "/stand-in/page.js" => file("text/javascript; charset=utf-8", SCRIPT),
        "/stand-in/icon.svg" => file("image/svg+xml", ICON),
        "/stand-in/state" => Some(reply("application/json", Payload::from(Bytes::from(state(request.core))))),
        "/stand-in/events" => {
            let (pieces, body) = mpsc::channel(WAITING);
            let (core, events) = (Arc::clone(request.core), request.core.events.subscribe());
            tokio::spawn(async move {
                let closed = pieces.clone();
                tokio::select! {
                    () = closed.closed() => {}
                    () = stream(&core, events, pieces) => {}
                }
            });
            Some(reply("text/event-stream", Payload::Stream(body)))
        }
        _ => None,
    }
}

fn reply(content_type: &'static str, body: Payload) -> Response<Payload> {
    let mut response = OwnRequest::reply(StatusCode::OK, content_type, body);
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Sends events until the reader is gone.
async fn stream(core: &Core, mut events: broadcast::Receiver<Event>, pieces: mpsc::Sender<Bytes>) {
    let mut directory = directory_hash(core);
    let mut changed = core.changed.subscribe();
    let hello = format!("{{\"instance\":\"{:016x}\"}}", core.instance);
    if pieces.send(message("hello", &hello)).await.is_err() {
        return;
    }
    let mut ticks = tokio::time::interval(TOTALS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let piece = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => batch(event, &mut events),
                Err(RecvError::Lagged(lost)) => message("resync", &format!("{{\"lost\":{lost}}}")),
                Err(RecvError::Closed) => return,
            },
            _ = ticks.tick() => {
                if changed.has_changed().unwrap_or(false) {
                    changed.borrow_and_update();
                    let now = directory_hash(core);
                    if core::mem::replace(&mut directory, now) != now
                        && pieces.send(message("resync", "{\"lost\":0}")).await.is_err()
                    {
                        return;
                    }
                }
                let mut data = String::from("{");
                write_totals(core, &mut data);
                data.push('}');
                message("totals", &data)
            }
        };
        if pieces.send(piece).await.is_err() {
            return;
        }
    }
}

/// An event as it is sent; the data is JSON and so has no line break in it.
fn message(event: &str, data: &str) -> Bytes {
    Bytes::from(format!("event: {event}\ndata: {data}\n\n"))
}

/// One event and those that wait behind it.
fn batch(first: Event, events: &mut broadcast::Receiver<Event>) -> Bytes {
    let (mut values, mut requests) = (Vec::new(), Vec::new());
    let mut lost = 0;
    let mut next = Some(first);
    while let Some(event) = next {
        match event {
            Event::Value(value) => values.push(value),
            Event::Request(request) => requests.push(request),
        }
        next = if values.len() + requests.len() < BATCH {
            match events.try_recv() {
                Ok(event) => Some(event),
                Err(TryRecvError::Lagged(n)) => {
                    lost = n;
                    None
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => None,
            }
        } else {
            None
        };
    }
    let mut data = String::from("{\"values\":[");
    write_list(&values, &mut data, |value, out| {
        let StoredValue { account, path, time_us, value } = value;
        put(out, format_args!("[{account},"));
        write_json_str(path, out);
        put(out, format_args!(",{time_us},"));
        write_number(*value, out);
        out.push(']');
    });
    data.push_str("],\"requests\":[");
    write_list(&requests, &mut data, write_request);
    data.push_str("]}");
    let mut piece = message("batch", &data);
    if lost > 0 {
        let resync = message("resync", &format!("{{\"lost\":{lost}}}"));
        piece = [piece, resync].concat().into();
    }
    piece
}

/// Everything that a page shows when it is opened.
fn state(core: &Core) -> String {
    let mut out = format!("{{\"instance\":\"{:016x}\",", core.instance);
    write_totals(core, &mut out);
    out.push(',');
    write_directory(core, &mut out);
    out.push_str(",\"series\":[");
    let mut paths: Vec<(i32, String)> = {
        let backend = core.backend();
        let ids = backend.accounts.keys();
        ids.flat_map(|id| backend.store.paths(*id).into_iter().map(|path| (*id, path))).collect()
    };
    let left_out = paths.len().saturating_sub(SERIES);
    paths.truncate(SERIES);
    let limit = (VALUES / paths.len().max(1)).clamp(LEAST_PER_SERIES, PER_SERIES);
    let mut first = true;
    for chunk in paths.chunks(CHUNK) {
        let backend = core.backend();
        for (account, path) in chunk {
            let values = backend.store.path(*account, path).map(|id| backend.store.latest(id, limit));
            let values = match values {
                // The backend makes the paths of a page before it looks whether its values are fit.
                Some(Ok(values)) if values.is_empty() => continue,
                Some(Ok(values)) => values,
                Some(Err(error)) => {
                    tracing::error!(%error, "the stand-in itself failed");
                    continue;
                }
                // Its account was removed in between.
                None => continue,
            };
            if !core::mem::take(&mut first) {
                out.push(',');
            }
            put(&mut out, format_args!("{{\"account\":{account},\"path\":"));
            write_json_str(path, &mut out);
            out.push_str(",\"values\":[");
            write_list(&values, &mut out, |(time_us, value), out| {
                put(out, format_args!("[{time_us},"));
                write_number(*value, out);
                out.push(']');
            });
            out.push_str("]}");
        }
    }
    put(&mut out, format_args!("],\"series_left_out\":{left_out},\"requests\":["));
    let requests: Vec<RequestRecord> = {
        let log = core.log();
        log.requests.iter().rev().take(REQUESTS).cloned().collect()
    };
    write_list(requests.iter().rev(), &mut out, write_request);
    out.push_str("]}");
    out
}

/// `"now_us": ..., "totals": {...}, "bots": [...]`
fn write_totals(core: &Core, out: &mut String) {
    let (counters, heard) = {
        let log = core.log();
        (log.counters.clone(), log.heard.clone())
    };
    let answered: u64 = counters.by_status.values().sum();
    let unanswered = counters.requests.saturating_sub(answered);
    let refused: u64 = counters.by_status.range(400..).map(|(_, n)| n).sum();
    put(
        out,
        format_args!(
            "\"now_us\":{},\"totals\":{{\"requests\":{},\"failed\":{},\"unanswered\":{unanswered},\"values\":{},\"body_bytes\":{},\
             \"connections\":{},\"open_connections\":{},\"by_status\":{{",
            (core.clock)(),
            counters.requests,
            refused + unanswered,
            counters.values,
            counters.body_bytes,
            counters.connections,
            counters.open_connections
        ),
    );
    write_list(&counters.by_status, out, |(status, n), out| put(out, format_args!("\"{status}\":{n}")));
    out.push_str("},");
    let backend = core.backend();
    let rules = core.rules.list().len();
    let paths: usize = backend.accounts.keys().map(|id| backend.store.path_count(*id)).sum();
    put(
        out,
        format_args!("\"stored\":{},\"paths\":{paths},\"rules\":{rules}}},\"bots\":[", backend.store.count()),
    );
    let strangers: BTreeMap<&str, &Heard> = heard
        .iter()
        .filter_map(|(name, heard)| Some((name.as_deref()?, heard)))
        .filter(|(name, _)| backend.bots().iter().all(|bot| bot.short_name != *name))
        .collect();
    write_list(backend.bots(), out, |bot, out| {
        put(out, format_args!("{{\"id\":{},\"name\":", bot.id));
        write_json_str(&bot.name, out);
        out.push_str(",\"short_name\":");
        write_json_str(&bot.short_name, out);
        out.push_str(",\"protocol\":");
        match &bot.protocol {
            Some(protocol) => write_json_str(protocol, out),
            None => out.push_str("null"),
        }
        out.push_str(",\"account\":");
        write_option(bot.tied_to_account, out);
        write_heard(heard.get(&Some(bot.short_name.clone())), out);
    });
    for (i, (name, heard)) in strangers.into_iter().enumerate() {
        if i > 0 || !backend.bots().is_empty() {
            out.push(',');
        }
        out.push_str("{\"id\":null,\"name\":");
        write_json_str(name, out);
        out.push_str(",\"short_name\":");
        write_json_str(name, out);
        out.push_str(",\"protocol\":null,\"account\":null");
        write_heard(Some(heard), out);
    }
    out.push(']');
}

fn write_heard(heard: Option<&Heard>, out: &mut String) {
    let Heard { requests, failed, values, .. } = heard.copied().unwrap_or_default();
    out.push_str(",\"last_heard_us\":");
    write_option(heard.map(|heard| heard.last_us), out);
    put(out, format_args!(",\"requests\":{requests},\"failed\":{failed},\"values\":{values}}}"));
}

/// `"accounts": [...], "entities_left_out": n`: names, and what is to be done, of what values are grouped by.
fn write_directory(core: &Core, out: &mut String) {
    let backend = core.backend();
    let mut room = ENTITIES;
    let mut left_out = 0;
    out.push_str("\"accounts\":[");
    write_list(&backend.accounts, out, |(id, account), out| {
        put(out, format_args!("{{\"id\":{id},\"name\":"));
        write_json_str(&account.name, out);
        out.push_str(",\"entities\":[");
        let shown = account.entities.len().min(room);
        room -= shown;
        left_out += account.entities.len() - shown;
        write_list(account.entities.values().take(shown), out, |entity, out| {
            put(out, format_args!("{{\"id\":{},\"name\":", entity.id));
            write_json_str(&entity.name, out);
            out.push_str(",\"type\":");
            write_json_str(&entity.entity_type, out);
            out.push_str(",\"parent\":");
            write_option(entity.parent, out);
            out.push_str(",\"protocols\":[");
            let with_work = entity.protocols.iter().filter(|(_, protocol)| !protocol.sensors.is_empty());
            write_list(with_work, out, |(name, _), out| write_json_str(name, out));
            out.push_str("]}");
        });
        out.push_str("]}");
    });
    put(out, format_args!("],\"entities_left_out\":{left_out}"));
}

fn directory_hash(core: &Core) -> u64 {
    let mut text = String::new();
    write_directory(core, &mut text);
    BuildHasherDefault::<DefaultHasher>::default().hash_one(text)
}

fn write_request(request: &RequestRecord, out: &mut String) {
    let RequestRecord { time_us, connection, nth_on_connection: nth, .. } = request;
    put(out, format_args!("{{\"time_us\":{time_us},\"connection\":{connection},\"nth\":{nth},\"method\":"));
    write_json_str(&request.method, out);
    out.push_str(",\"path\":");
    write_json_str(&request.path, out);
    out.push_str(",\"status\":");
    write_option(request.status, out);
    out.push_str(",\"bot\":");
    match &request.bot {
        Some(bot) => write_json_str(bot, out),
        None => out.push_str("null"),
    }
    let (values, bytes, took) = (request.values_stored, request.body_len, request.took.as_micros());
    put(out, format_args!(",\"values\":{values},\"bytes\":{bytes},\"took_us\":{took},\"rule\":"));
    write_option(request.misbehaved, out);
    out.push('}');
}

/// Numbers that JSON has not become the texts that JavaScript has for them.
fn write_number(x: f64, out: &mut String) {
    if x.is_nan() {
        out.push_str("\"NaN\"");
    } else if x.is_infinite() {
        out.push_str(if x > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" });
    } else if x != 0.0 && !(1e-5..1e16).contains(&x.abs()) {
        put(out, format_args!("{x:e}"));
    } else {
        put(out, format_args!("{x}"));
    }
}

fn write_option(n: Option<impl core::fmt::Display>, out: &mut String) {
    match n {
        Some(n) => put(out, format_args!("{n}")),
        None => out.push_str("null"),
    }
}

fn write_list<T>(
    items: impl IntoIterator<Item = T>,
    out: &mut String,
    mut write: impl FnMut(T, &mut String),
) {
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write(item, out);
    }
}

fn put(out: &mut String, text: core::fmt::Arguments<'_>) {
    // A String takes everything.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_loses_the_oldest_events_and_is_told_to_ask_for_the_state_again() {
        let stand_in = crate::StandIn::builder().start().await.unwrap();
        let core = Arc::clone(&stand_in.shared.core);
        let (send, events) = broadcast::channel(16);
        let value =
            |time_us| Event::Value(StoredValue { account: 1, path: "a".to_owned(), time_us, value: 0.5 });
        for time_us in 0..100 {
            send.send(value(time_us)).unwrap();
        }
        let (pieces, mut received) = mpsc::channel(WAITING);
        let task = tokio::spawn(async move { stream(&core, events, pieces).await });
        let mut told = String::new();
        while !told.contains("event: batch") {
            told += core::str::from_utf8(&received.recv().await.unwrap()).unwrap();
        }
        assert!(told.starts_with("event: hello\ndata: {\"instance\":\""), "{told}");
        let resync = told.find("event: resync\ndata: {\"lost\":84}\n").unwrap();
        assert!(resync < told.find("event: batch").unwrap(), "{told}");
        assert!(told.contains("{\"values\":[[1,\"a\",84,0.5],[1,\"a\",85,0.5],"), "{told}");
        assert!(told.contains("[1,\"a\",99,0.5]],\"requests\":[]}"), "{told}");
        // Nobody reads any more: what waits does not grow, and the task ends with its reader.
        for time_us in 0..5000 {
            send.send(value(time_us)).unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(received.len(), WAITING);
        drop(received);
        task.await.unwrap();
    }

    #[test]
    fn every_number_is_json_and_reads_back_as_itself() {
        for x in [0.0, -0.0, 1.0, -2.5, 1e-5, 9.9e-6, 5e-324, 1e15, 1e16, f64::MAX, f64::MIN, 0.1 + 0.2] {
            let mut out = String::new();
            write_number(x, &mut out);
            assert_eq!(out.parse::<f64>().unwrap().to_bits(), x.to_bits(), "{out}");
            assert!(out.len() <= 24, "{out}");
            crate::Json::from_bytes(out.as_bytes()).unwrap();
        }
        for (x, text) in [(f64::NAN, "NaN"), (f64::INFINITY, "Infinity"), (f64::NEG_INFINITY, "-Infinity")] {
            let mut out = String::new();
            write_number(x, &mut out);
            assert_eq!(out, format!("\"{text}\""));
        }
    }
}
