//! Answers that are not the backend's work: those of the product's front, and those that a rule asks for.

use bytes::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::backend::ReplyBody;
use crate::body::Payload;
use crate::exchange::End;
use crate::misbehave::{DateHeader, Status, WrongBody, random_bytes};

/// The server that the product's front says it is.
const FRONT: &str = "nginx/1.22.1";

/// Who answers with a status, in which words, and whether the connection lives on.
struct Usual {
    server: &'static str,
    content_type: Option<&'static str>,
    body: Bytes,
    /// Other than the one that the HTTP library knows.
    reason: Option<&'static str>,
    /// Closes without having said so.
    hangs_up: bool,
}

/// As the real ones answer with a status (recorded for 400 to 405, 413, 422, 500, 502 and 504; others after their manner).
fn usual(status: u16) -> Usual {
    let application = |content_type, body: &'static str| Usual {
        server: "uvicorn",
        content_type,
        body: Bytes::from_static(body.as_bytes()),
        reason: None,
        hangs_up: false,
    };
    let json = Some("application/json");
    match status {
        200..=399 => application(None, ""),
        400 => application(json, r#"{"detail":"Invalid input format"}"#),
        401 => application(None, "Access denied"),
        403 => application(None, "Access to resource denied, insufficient permissions"),
        404 => application(json, r#"{"detail":"Not Found"}"#),
        405 => application(json, r#"{"detail":"Method Not Allowed"}"#),
        422 => application(
            json,
            r#"{"detail":[{"loc":["path","account_id"],"msg":"value is not a valid integer","type":"type_error.integer"}]}"#,
        ),
        500 => Usual {
            hangs_up: true,
            ..application(Some("text/plain; charset=utf-8"), "Internal Server Error")
        },
        _ => {
            let reason = match status {
                413 => Some("Request Entity Too Large"),
                503 => Some("Service Temporarily Unavailable"),
                504 => Some("Gateway Time-out"),
                _ => None,
            };
            let known = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
            let title = format!("{status} {}", reason.or(known).unwrap_or("Unknown"));
            let body = format!(
                "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n\
                 <hr><center>{FRONT}</center>\r\n</body>\r\n</html>\r\n"
            );
            Usual {
                server: FRONT,
                content_type: Some("text/html"),
                body: body.into(),
                reason,
                hangs_up: false,
            }
        }
    }
}

/// The answer that a rule asks for.
pub(crate) fn answer(wanted: &Status, date: &str, old_client: bool) -> (Response<Payload>, End) {
    let usual = usual(wanted.status);
    let bodiless = matches!(wanted.status, 204 | 304);
    let body = match &wanted.body {
        _ if bodiless => ReplyBody::None,
        Some(text) => ReplyBody::Bytes(text.clone().into_bytes().into()),
        None => ReplyBody::Bytes(usual.body),
    };
    let length = if let ReplyBody::Bytes(bytes) = &body { Some(bytes.len()) } else { None };
    let mut response = Response::new(Payload::Whole(body));
    *response.status_mut() = StatusCode::from_u16(wanted.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(reason) = usual.reason {
        response.extensions_mut().insert(hyper::ext::ReasonPhrase::from_static(reason.as_bytes()));
    }
    let headers = response.headers_mut();
    if let Ok(date) = HeaderValue::from_str(date) {
        headers.insert(header::DATE, date);
    }
    headers.insert(header::SERVER, HeaderValue::from_static(usual.server));
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(content_type) = usual.content_type.filter(|_| wanted.body.is_none()) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    for (name, value) in &wanted.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            if matches!(name, header::CONTENT_TYPE | header::SERVER) {
                headers.insert(name, value);
            } else {
                headers.append(name, value);
            }
        }
    }
    let front_closes = wanted.status == 413;
    let end = match wanted.closes {
        Some(true) => End::HangUp,
        None if front_closes => End::Linger,
        None if usual.hangs_up => End::HangUp,
        Some(false) | None => End::KeepAlive,
    };
    if old_client || matches!(end, End::Linger) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    } else if headers.get(header::SERVER).is_some_and(|s| s == FRONT) && !matches!(end, End::HangUp) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
    }
    (response, end)
}

/// What a front that has certificates says to plain HTTP.
pub(crate) fn please_use_https() -> Status {
    Status::new(400)
        .text("Please use HTTPS!")
        .header("server", FRONT)
        .header("content-type", "application/octet-stream")
}

/// A redirection as the backend writes it: empty and chunked.
pub(crate) fn redirection(status: u16, location: &str, date: &str, old_client: bool) -> Response<Payload> {
    let (mut response, _) = answer(&Status::new(status).header("location", location), date, old_client);
    *response.body_mut() = Payload::Whole(ReplyBody::EmptyChunked);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response
}

/// The same target with its final slash the other way round.
pub(crate) fn other_slash(target: &str) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let path = path.strip_suffix('/').map_or_else(|| format!("{path}/"), str::to_owned);
    query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"))
}

/// Another date.
pub(crate) fn redate(response: &mut Response<Payload>, wanted: &DateHeader, now_us: i64) {
    let date = match wanted {
        DateHeader::OffsetS(offset) => {
            Some(crate::exchange::http_date(now_us.div_euclid(1_000_000).saturating_add(*offset)))
        }
        DateHeader::Missing => None,
        DateHeader::Text(text) => Some(text.clone()),
    };
    match date.and_then(|date| HeaderValue::from_str(&date).ok()) {
        Some(date) => response.headers_mut().insert(header::DATE, date),
        None => response.headers_mut().remove(header::DATE),
    };
}

/// Another body in an answer, with its length; returns by how much the announced length is to be wrong.
pub(crate) fn spoil(response: &mut Response<Payload>, wanted: &WrongBody) -> i64 {
    let right = match response.body() {
        Payload::Whole(ReplyBody::Bytes(bytes)) => bytes.clone(),
        Payload::Whole(ReplyBody::None | ReplyBody::EmptyChunked) | Payload::Stream(_) => Bytes::new(),
    };
    let length = |bytes: &usize| i64::try_from(*bytes).unwrap_or(i64::MAX);
    let (body, announced_by) = match wanted {
        WrongBody::Text(text) => (Bytes::from(text.clone()), 0),
        WrongBody::Half => (right.slice(..right.len() / 2), 0),
        WrongBody::Random { seed, bytes } => (random_bytes(*seed, *bytes).into(), 0),
        WrongBody::AnnouncedLonger(by) => (right, length(by)),
        WrongBody::AnnouncedShorter(by) => (right, -length(by)),
    };
    if response.status() == StatusCode::NO_CONTENT {
        *response.status_mut() = StatusCode::OK;
    }
    response.headers_mut().remove(header::TRANSFER_ENCODING);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = Payload::from(body);
    announced_by
}
