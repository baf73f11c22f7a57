//! Values: what the backend takes, what it stores of a request that it refuses, and what reading gives.
//!
//! Paths come first, all of them; then values are written in pages of [`PAGE`]. So a refused request may have stored earlier
//! pages, and has made path rows up to the refused path.

use std::collections::{HashMap, HashSet};

use crate::backend::{Backend, Failure, Reply, Request, internal, query_value};
use crate::json::{Json, python_float, write_json_str};
use crate::store::{PathId, StoredValue};

/// Values that are stored together.
pub const PAGE: usize = 100;

/// Longest path that an index row holds if nothing of it can be compressed, in bytes.
const INDEX_ROW: usize = 2688;

/// First and last second of the years 1 to 9999, beyond which the backend's clock type overflows.
const SECONDS: core::ops::RangeInclusive<f64> = -62_135_596_800.0..=253_402_300_799.0;

struct Item<'a> {
    path: &'a str,
    value: Option<&'a Json>,
    /// None: the server's time.
    time: Option<Option<&'a Json>>,
}

impl Backend {
    pub(crate) fn post_values(
        &mut self,
        account: i32,
        request: &Request,
        query: &str,
        now_us: i64,
    ) -> Result<Reply, Failure> {
        let mut body = Json::from_bytes(&request.body).map_err(|_| internal())?;
        if !body.is_truthy() {
            let in_query = |key| query_value(query, key).map(|v| Json::Str(v.clone()));
            let (Some(p), Some(v)) = (in_query("p"), in_query("v")) else {
                return Ok(Reply::detail(400, "Missing data"));
            };
            let mut entries = vec![("p".to_owned(), p), ("v".to_owned(), v)];
            entries.extend(in_query("t").map(|t| ("t".to_owned(), t)));
            body = Json::List(vec![Json::Object(entries)]);
        }
        let objects = objects(&body)?;
        if objects.iter().any(|o| o.get("t").is_some_and(Json::is_truthy)) {
            return Ok(Reply::detail(400, "Parameter 't' shouldn't be specified with POST"));
        }
        self.store_values(account, request, &objects, Some(now_us))
    }

    pub(crate) fn put_values(&mut self, account: i32, request: &Request) -> Result<Reply, Failure> {
        let body = Json::from_bytes(&request.body).map_err(|_| internal())?;
        let objects = objects(&body)?;
        self.store_values(account, request, &objects, None)
    }

    fn store_values(
        &mut self,
        account: i32,
        request: &Request,
        objects: &[&Json],
        now_us: Option<i64>,
    ) -> Result<Reply, Failure> {
        let mut items = Vec::with_capacity(objects.len());
        for object in objects {
            let Some(Json::Str(path)) = object.get("p") else {
                // The rows of the paths before it are made all the same.
                self.make_paths(account, &items)?;
                return Err(internal());
            };
            let (path, valid) = check_path(path);
            let time = if now_us.is_some() { None } else { Some(object.get("t")) };
            items.push(Item { path, value: object.get("v"), time });
            if let Err(why) = valid {
                self.make_paths(account, &items)?;
                return Ok(Reply::invalid(request, &why));
            }
        }
        let paths = self.make_paths(account, &items)?;

        let mut stored = Vec::with_capacity(items.len());
        for (items, paths) in items.chunks(PAGE).zip(paths.chunks(PAGE)) {
            match page(items, paths, request, now_us) {
                Ok(rows) => {
                    self.store.upsert(&rows)?;
                    stored.extend(items.iter().zip(&rows).map(|(item, (_, time_us, value))| StoredValue {
                        account,
                        path: item.path.to_owned(),
                        time_us: *time_us,
                        value: *value,
                    }));
                }
                Err(mut reply) => {
                    reply.stored = stored;
                    return Ok(reply);
                }
            }
        }
        let mut reply = Reply::no_content();
        reply.stored = stored;
        Ok(reply)
    }

    fn make_paths(&mut self, account: i32, items: &[Item<'_>]) -> Result<Vec<PathId>, Failure> {
        if !items.is_empty() && !self.accounts.contains_key(&account) {
            return Err(Failure::Refused(Reply::detail(400, "Invalid input format")));
        }
        let mut paths = Vec::with_capacity(items.len());
        for item in items {
            if item.path.contains('\0') || !fits_index_row(item.path) {
                self.store.ensure_paths(account, &paths)?;
                return Err(internal());
            }
            paths.push(item.path);
        }
        Ok(self.store.ensure_paths(account, &paths)?)
    }

    pub(crate) fn get_values(&self, account: i32, path: &str, query: &str) -> Result<Reply, Failure> {
        let limit = |key| query_value(query, key).map(|text| query_limit(&text)).transpose();
        self.read_values(account, &[path], limit("t0")?, limit("t1")?)
    }

    /// The values of some paths between two times in microseconds, both included.
    pub(crate) fn read_values(
        &self,
        account: i32,
        paths: &[&str],
        from_us: Option<i64>,
        to_us: Option<i64>,
    ) -> Result<Reply, Failure> {
        let mut body = String::from("{\"paths\":{");
        for (i, path) in paths.iter().enumerate() {
            if paths.iter().take(i).any(|before| before == path) {
                continue;
            }
            if i > 0 {
                body.push(',');
            }
            write_json_str(path, &mut body);
            body.push_str(":{\"next_data_point\":null,\"data\":[");
            let id = self.store.path(account, path).ok_or_else(internal)?;
            let values = self.store.read(id, from_us.unwrap_or(i64::MIN), to_us.unwrap_or(i64::MAX))?;
            for (i, (time_us, value)) in values.into_iter().enumerate() {
                if !value.is_finite() {
                    return Err(internal());
                }
                if i > 0 {
                    body.push(',');
                }
                // Exact to the microsecond for more than 200 years around 1970.
                #[allow(clippy::cast_precision_loss)]
                let time_s = time_us as f64 / 1e6;
                body.push_str(&format!("{{\"t\":{},\"v\":{}}}", python_float(time_s), python_float(value)));
            }
            body.push_str("]}");
        }
        body.push_str("}}");
        Ok(Reply::json(200, body))
    }
}

/// A limit of a reading, Unix seconds as text, in microseconds.
pub(crate) fn query_limit(text: &str) -> Result<i64, Failure> {
    text.parse::<f64>().map(to_us).map_err(|_| internal())
}

fn objects(body: &Json) -> Result<Vec<&Json>, Failure> {
    match body {
        Json::List(items) if items.iter().all(|i| matches!(i, Json::Object(_))) => Ok(items.iter().collect()),
        // An object without keys has no parts that could be wrong.
        Json::Object(entries) if entries.is_empty() => Ok(Vec::new()),
        _ => Err(internal()),
    }
}

/// The path without the one line feed that may stand at its end, and whether it is allowed.
fn check_path(path: &str) -> (&str, Result<(), String>) {
    let cut = path.strip_suffix('\n').unwrap_or(path);
    let label = |label: &str| {
        let mut rest = label.as_bytes();
        !rest.is_empty()
            && loop {
                rest = match rest {
                    [] => break true,
                    [b'%', b'2', b'e', rest @ ..] | [b'%', b'3', b'a', rest @ ..] => rest,
                    [b, rest @ ..] if b.is_ascii_alphanumeric() || *b == b'_' || *b == b'-' => rest,
                    _ => break false,
                };
            }
    };
    if !cut.split('.').all(label) {
        (path, Err(format!("Invalid PathInputValue format: {path}")))
    } else if cut.starts_with("system.") {
        (cut, Err("Invalid path - should not start with 'system.'!".to_owned()))
    } else {
        (cut, Ok(()))
    }
}

/// PostgreSQL compresses a long text before it measures it. What is left is close to the number of different runs of
/// four characters: all of them for a random text, few for repetitions.
fn fits_index_row(path: &str) -> bool {
    path.len() <= INDEX_ROW || path.as_bytes().windows(4).collect::<HashSet<_>>().len() <= INDEX_ROW
}

/// The rows of one page, or the answer that ends the request.
fn page(
    items: &[Item<'_>],
    paths: &[PathId],
    request: &Request,
    now_us: Option<i64>,
) -> Result<Vec<(PathId, i64, f64)>, Reply> {
    let mut rows = Vec::with_capacity(items.len());
    let mut database_refuses = false;
    for (item, path) in items.iter().zip(paths) {
        let value = item.value.ok_or_else(Reply::internal_error)?;
        let number = number(value).ok_or_else(|| {
            Reply::invalid(request, &format!("Invalid MeasuredValue format: {}", value.python_str()))
        })?;
        database_refuses |= number.is_none();
        let time_us = match item.time {
            None => now_us.unwrap_or(0),
            Some(time) => time_us(time.ok_or_else(Reply::internal_error)?, request)?,
        };
        // The decimals of the backend have no negative zero.
        rows.push((*path, time_us, number.unwrap_or(0.0) + 0.0));
    }
    let mut seen = HashMap::with_capacity(rows.len());
    if database_refuses || rows.iter().any(|(path, time_us, _)| seen.insert((*path, *time_us), ()).is_some())
    {
        return Err(Reply::internal_error());
    }
    Ok(rows)
}

/// None: no number. Some(None): the application takes it for one, but the database refuses it.
fn number(value: &Json) -> Option<Option<f64>> {
    match value {
        Json::Int(digits) => digits.parse().ok().filter(|x: &f64| x.is_finite()).map(Some),
        Json::Float(x) => Some(Some(*x)),
        Json::Bool(_) => Some(None),
        Json::Str(text) => {
            let trimmed = text.trim();
            let plain = without_underscores(trimmed)?;
            let number: f64 = plain.parse().ok()?;
            let spaces = |c: char| " \t\n\r\u{b}\u{c}".contains(c);
            let known = plain == trimmed
                && text.trim_matches(spaces) == trimmed
                && !(number.is_nan() && trimmed.starts_with(['+', '-']));
            Some(known.then_some(number))
        }
        Json::Null | Json::LoneSurrogate(_) | Json::List(_) | Json::Object(_) => None,
    }
}

/// Python lets single underscores stand between digits.
fn without_underscores(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    for (i, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'_') {
        let digit = |at: Option<usize>| at.and_then(|i| bytes.get(i)).is_some_and(u8::is_ascii_digit);
        if !digit(i.checked_sub(1)) || !digit(Some(i + 1)) {
            return None;
        }
    }
    Some(text.replace('_', ""))
}

/// Unix seconds to microseconds, rounded; saturates.
#[allow(clippy::cast_possible_truncation)]
fn to_us(seconds: f64) -> i64 {
    let whole = seconds.floor();
    // Taken apart first: the product of a whole time and a million would lose digits.
    (whole as i64)
        .saturating_mul(1_000_000)
        .saturating_add(((seconds - whole) * 1e6).round_ties_even() as i64)
}

/// A time of a PUT in microseconds.
fn time_us(time: &Json, request: &Request) -> Result<i64, Reply> {
    let invalid = || Reply::invalid(request, &format!("Invalid Timestamp format: {}", time.python_str()));
    let seconds = match time {
        Json::Bool(b) => f64::from(u8::from(*b)),
        Json::Int(digits) => digits.parse().map_err(|_| invalid())?,
        Json::Float(x) => *x,
        Json::Str(text) => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
            let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
            let sign = if whole.starts_with('-') { -1 } else { 1 };
            let whole = whole.strip_prefix('-').unwrap_or(whole);
            if !digits(whole) || !digits(fraction) || fraction.len() > 6 {
                return Err(invalid());
            }
            let whole_s: f64 = whole.parse().map_err(|_| invalid())?;
            if !SECONDS.contains(&whole_s) {
                return Err(Reply::internal_error());
            }
            let fraction_us: i64 = format!("{fraction:0<6}").parse().map_err(|_| invalid())?;
            return Ok(sign * (to_us(whole_s) + fraction_us));
        }
        Json::Null | Json::LoneSurrogate(_) | Json::List(_) | Json::Object(_) => return Err(invalid()),
    };
    if SECONDS.contains(&seconds) { Ok(to_us(seconds)) } else { Err(Reply::internal_error()) }
}
