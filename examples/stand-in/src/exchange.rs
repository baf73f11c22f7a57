//! One request and its answer: from the socket to the backend and back, with the manners of uvicorn.

use core::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode, Uri, Version};
use tokio::sync::oneshot;

use crate::backend::{Reply, ReplyBody, Request};
use crate::body::Payload;
use crate::first_line::FirstLine;
use crate::log::RequestRecord;
use crate::page;
use crate::server::{Core, Job, OpenConnection, Shared};

/// Longest body of a request for something of the stand-in's own, bytes.
const OWN_BODY_LIMIT: usize = 64 * 1024;

/// A request for something of the stand-in's own: `/` without a query, and what is below `/stand-in/`. It is in no log and no counter.
pub(crate) struct OwnRequest<'a> {
    /// What the stand-in knows.
    pub(crate) core: &'a Arc<Core>,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: Bytes,
}

impl OwnRequest<'_> {
    /// An answer of this type, which nobody keeps.
    pub(crate) fn reply(
        status: StatusCode,
        content_type: &'static str,
        body: impl Into<Payload>,
    ) -> Response<Payload> {
        let mut response = Response::new(body.into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

/// Whether the stand-in itself is asked, not the backend, who answers a bot at `/`.
fn is_own(target: &Uri) -> bool {
    (target.path() == "/" && target.query().is_none()) || target.path().starts_with("/stand-in/")
}

async fn own(
    shared: &Shared,
    head: &hyper::http::request::Parts,
    body: Incoming,
) -> Result<(Response<Payload>, End), NoAnswer> {
    let body = match Limited::new(body, OWN_BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = Bytes::from(format!("the body is longer than {OWN_BODY_LIMIT} bytes"));
            let mut response =
                OwnRequest::reply(StatusCode::PAYLOAD_TOO_LARGE, "text/plain; charset=utf-8", text);
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return Ok((response, End::Linger));
        }
        Err(_) => return Err(NoAnswer),
    };
    let request = OwnRequest {
        core: &shared.core,
        method: &head.method,
        path: head.uri.path(),
        query: head.uri.query().unwrap_or(""),
        headers: &head.headers,
        body,
    };
    let mut response = page::answer(&request).unwrap_or_else(|| {
        let text = Bytes::from_static(b"there is nothing here");
        OwnRequest::reply(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", text)
    });
    if matches!(response.body(), Payload::Stream(_)) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return Ok((response, End::Stream));
    }
    Ok((response, End::KeepAlive))
}

/// Ends a connection without an answer.
#[derive(Debug)]
pub(crate) struct NoAnswer;

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed without an answer")
    }
}

impl core::error::Error for NoAnswer {}

/// What becomes of the connection after an answer, besides what the answer says.
pub(crate) enum End {
    KeepAlive,
    HangUp,
    Linger,
    /// Pieces follow as they come about; whoever waits for the end of the connection need not wait for these.
    Stream,
}

pub(crate) async fn exchange(
    shared: &Shared,
    request: hyper::Request<Incoming>,
    first_line: FirstLine,
    open: &OpenConnection,
    connection: u64,
    nth_on_connection: u64,
) -> Result<(Response<Payload>, End), NoAnswer> {
    let begun = Instant::now();
    let (head, body) = request.into_parts();
    if is_own(&head.uri) {
        if nth_on_connection == 1 {
            open.is_own();
        }
        return own(shared, &head, body).await;
    }
    let text =
        |name: HeaderName| head.headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let old_client = head.version == Version::HTTP_10 || first_line.version.as_deref() == Some("HTTP/1.0");
    let host = text(header::HOST);
    let refused = host.is_none() && !old_client && first_line.version.is_none();

    let limit = shared.body_limit.unwrap_or(usize::MAX);
    let announced = body.size_hint().lower();
    let body = if refused || announced > limit as u64 {
        Err(announced > limit as u64)
    } else {
        match Limited::new(body, limit).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(error.is::<LengthLimitError>()),
        }
    };
    let time_us = (shared.clock)();
    let mut record = RequestRecord {
        time_us,
        connection,
        nth_on_connection,
        method: head.method.as_str().to_owned(),
        path: String::new(),
        bot: None,
        user_agent: text(header::USER_AGENT),
        body_len: body.as_ref().map_or(0, Bytes::len),
        body: body.as_ref().ok().filter(|_| shared.keep_bodies).cloned(),
        status: None,
        values_stored: 0,
        took: Duration::ZERO,
    };
    let target = first_line.target.unwrap_or_else(|| {
        head.uri.path_and_query().map_or_else(|| head.uri.path().to_owned(), ToString::to_string)
    });
    let (mut reply, end) = match body {
        Ok(body) if !refused => {
            let request = Request {
                method: record.method.clone(),
                target,
                absolute_form: head.uri.scheme().is_some() || !head.uri.path().starts_with('/'),
                host,
                authorization: head.headers.get(header::AUTHORIZATION).map(|v| v.as_bytes().to_vec()),
                content_type: text(header::CONTENT_TYPE),
                origin: text(header::ORIGIN),
                access_control_request_method: text(header::ACCESS_CONTROL_REQUEST_METHOD),
                body,
            };
            let (answer, answered) = oneshot::channel();
            shared.jobs.send(Job { request, time_us, reply: answer }).map_err(|_| NoAnswer)?;
            let answer = answered.await.map_err(|_| NoAnswer)?;
            record.path = answer.path;
            record.bot = answer.bot;
            let end = if answer.reply.hang_up { End::HangUp } else { End::KeepAlive };
            (answer.reply, end)
        }
        too_large => {
            (record.path, record.bot) = shared.core.backend().mask(&target);
            if too_large != Err(true) {
                // No host, or the body ended in the middle.
                record.took = begun.elapsed();
                shared.core.note(record, Vec::new());
                return Err(NoAnswer);
            }
            (too_large_reply(), End::Linger)
        }
    };
    record.status = Some(reply.status);
    record.values_stored = reply.stored.len();
    record.took = begun.elapsed();
    shared.core.note(record, core::mem::take(&mut reply.stored));
    Ok((response(reply, time_us, old_client), end))
}

/// The product's front refuses a body by its length before it looks at anything else.
fn too_large_reply() -> Reply {
    Reply {
        status: 413,
        headers: vec![
            ("server", "nginx/1.22.1".to_owned()),
            ("content-type", "text/html".to_owned()),
            ("connection", "close".to_owned()),
        ],
        body: ReplyBody::Bytes(Bytes::from_static(
            b"<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n\
              <center><h1>413 Request Entity Too Large</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n\
              </body>\r\n</html>\r\n",
        )),
        hang_up: false,
        stored: Vec::new(),
    }
}

/// Headers in the order of uvicorn: date, server, length, then the application's.
fn response(reply: Reply, now_us: i64, old_client: bool) -> Response<Payload> {
    let length = match &reply.body {
        ReplyBody::Bytes(bytes) => Some(bytes.len()),
        ReplyBody::None | ReplyBody::EmptyChunked => None,
    };
    let mut response = Response::new(Payload::Whole(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Ok(date) = HeaderValue::from_str(&http_date(now_us.div_euclid(1_000_000))) {
        headers.insert(header::DATE, date);
    }
    headers.insert(header::SERVER, HeaderValue::from_static("uvicorn"));
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    for (name, value) in reply.headers {
        match HeaderValue::from_str(&value) {
            Ok(value) => {
                headers.insert(HeaderName::from_static(name), value);
            }
            Err(_) => tracing::warn!(name, "a header that cannot be sent was left out"),
        }
    }
    if old_client {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A date as HTTP writes it (RFC 9110, section 5.6.7).
fn http_date(unix_s: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let name = |names: &[&'static str], i: i64| {
        usize::try_from(i).ok().and_then(|i| names.get(i)).copied().unwrap_or("")
    };
    let (day, second) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    // Years begin in March here, so that the leap day is the last one; an era of 400 years has 146097 days.
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + i64::from(month >= 10);
    format!(
        "{}, {of_month:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        name(&DAYS, day.rem_euclid(7)),
        name(&MONTHS, month),
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_http_wants_them() {
        for (unix_s, date) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_795_370_372, "Sun, 22 Nov 2026 17:59:32 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
        ] {
            assert_eq!(http_date(unix_s), date);
        }
    }
}
