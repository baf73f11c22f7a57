//! One request and its answer: from the socket to the backend and back, with the manners of uvicorn.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode, Uri, Version};
use tokio::sync::{oneshot, watch};

use crate::backend::{Reply, ReplyBody, Request};
use crate::body::Payload;
use crate::canned;
use crate::connection::Wire;
use crate::control;
use crate::first_line::FirstLine;
use crate::json::Json;
use crate::log::RequestRecord;
use crate::misbehave::{Asked, Misbehaviour, RuleId, Status, random_bytes};
use crate::page;
use crate::server::{Answer, Core, Job, OpenConnection, Shared, stopped};
use crate::store::StoredValue;
use crate::values::PAGE;

/// Longest body of a request for something of the stand-in's own, bytes.
const OWN_BODY_LIMIT: usize = 64 * 1024;

/// A request for something of the stand-in's own: `/` without a query, and what is below `/stand-in/`. It is in no log and no counter.
pub(crate) struct OwnRequest<'a> {
    /// What the stand-in knows.
    pub(crate) core: &'a Arc<Core>,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
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

/// Why a request for something of the stand-in's own may be the doing of a web page of somewhere else; none if it is not.
///
/// A page of `http://evil.example` whose name is made to point here (DNS rebinding) sends that name as `Host`; a page of elsewhere
/// that sends to an address of this host has another `Origin`. Neither header can be chosen by a page.
fn stranger(headers: &HeaderMap, names: &[String]) -> Option<String> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) {
        (Some(host), None) => host,
        _ => return Some("the stand-in's own pages need one `Host` header".to_owned()),
    };
    let name = host_name(host);
    let is_address = name
        .strip_prefix('[')
        .and_then(|n| n.strip_suffix(']'))
        .map_or_else(|| name.parse::<Ipv4Addr>().is_ok(), |inner| inner.parse::<Ipv6Addr>().is_ok());
    let is_known =
        name.eq_ignore_ascii_case("localhost") || names.iter().any(|n| n.eq_ignore_ascii_case(name));
    if !is_address && !is_known {
        return Some(format!(
            "the stand-in's own pages are not served as `{name}`, as a web page of somewhere else could give itself any name: \
             ask for them by an IP address, as localhost, or by a name that was given at the start (--host-name)"
        ));
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let foreign = origins.find(|origin| {
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        !authority.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
    });
    foreign.map(|origin| {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        format!("a web page of `{origin}` may not use the stand-in's own pages at `{host}`")
    })
}

/// A `Host` without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

async fn own(
    shared: &Shared,
    head: &hyper::http::request::Parts,
    body: Incoming,
) -> Result<(Response<Payload>, End), NoAnswer> {
    if let Some(why) = stranger(&head.headers, &shared.host_names) {
        let text = "text/plain; charset=utf-8";
        let mut response = OwnRequest::reply(StatusCode::FORBIDDEN, text, Bytes::from(why));
        // The body, if there is one, is not read.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return Ok((response, End::Linger));
    }
    let body = match Limited::new(body, OWN_BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = Bytes::from(format!("the body is longer than {OWN_BODY_LIMIT} bytes"));
            let mut response =
                OwnRequest::reply(StatusCode::PAYLOAD_TOO_LARGE, "text/plain; charset=utf-8", text);
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return Ok((response, End::Linger));
        }
        Err(_) => return Err(NoAnswer::Close),
    };
    let request = OwnRequest {
        core: &shared.core,
        method: &head.method,
        path: head.uri.path(),
        headers: &head.headers,
        body,
    };
    let mut response = control::answer(&request).or_else(|| page::answer(&request)).unwrap_or_else(|| {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Closed without a word.
    Close,
    /// Reset.
    Reset,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Close => "closed without an answer",
            Self::Reset => "reset without an answer",
        })
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
    /// The bytes are not written as they are, and whether the connection is closed after them.
    Wire(Wire, bool),
}

pub(crate) async fn exchange(
    shared: &Shared,
    request: hyper::Request<Incoming>,
    first_line: FirstLine,
    open: &OpenConnection,
    connection: u64,
    nth_on_connection: u64,
    stop: watch::Receiver<bool>,
) -> Result<(Response<Payload>, End), NoAnswer> {
    let begun = Instant::now();
    let (head, body) = request.into_parts();
    if is_own(&head.uri) {
        open.is_own(nth_on_connection == 1);
        return own(shared, &head, body).await;
    }
    let text =
        |name: HeaderName| head.headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let old_client = head.version == Version::HTTP_10 || first_line.version.as_deref() == Some("HTTP/1.0");
    let host = text(header::HOST);
    let refused = host.is_none() && !old_client && first_line.version.is_none();

    let target = first_line.target.unwrap_or_else(|| {
        head.uri.path_and_query().map_or_else(|| head.uri.path().to_owned(), ToString::to_string)
    });
    let treated = shared.core.rules.of_request(&Asked {
        method: head.method.as_str(),
        path: target.split('?').next().unwrap_or(""),
        body_bytes: body.size_hint().exact(),
        bot: || shared.core.backend().mask(&target).1,
    });
    if treated.is_some() {
        shared.core.changed();
    }

    let limit = match treated {
        Some((_, Misbehaviour::BodyLimit(limit))) => limit,
        _ => shared.body_limit.unwrap_or(usize::MAX),
    };
    let announced = body.size_hint().lower();
    let body = if refused || announced > limit as u64 {
        Err(announced > limit as u64)
    } else {
        match Limited::new(body, limit).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(error.is::<LengthLimitError>()),
        }
    };
    let treated = treated.filter(|(id, misbehaviour)| {
        let treats = misbehaviour.is_about_body(body.as_deref().unwrap_or_default());
        if !treats {
            shared.core.rules.let_pass(*id);
        }
        treats
    });
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
        misbehaved: treated.as_ref().map(|(id, _)| *id),
        values_stored: 0,
        took: Duration::ZERO,
    };
    let mut work = Work { shared, time_us, old_client, stop, masked: None, stored: Vec::new() };
    let result = match body {
        Ok(body) if !refused => {
            let target = target.clone();
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
            match treated {
                Some((id, misbehaviour)) => work.misbehave(request, id, misbehaviour).await,
                None => work.do_it(request).await,
            }
        }
        // The product's front refuses a body by its length before it looks at anything else.
        Err(true) => Ok(canned::answer(&Status::new(413), &work.date(), old_client)),
        // No host, or the body ended in the middle.
        _ => Err(NoAnswer::Close),
    };
    record.status = match &result {
        Ok((_, End::Wire(Wire::Replaced(_), _))) | Err(_) => None,
        Ok((response, _)) => Some(response.status().as_u16()),
    };
    (record.path, record.bot) = work.masked.unwrap_or_else(|| shared.core.backend().mask(&target));
    record.values_stored = work.stored.len();
    record.took = begun.elapsed();
    shared.core.note(record, work.stored);
    result
}

/// One request to the backend.
struct Work<'a> {
    shared: &'a Shared,
    time_us: i64,
    old_client: bool,
    stop: watch::Receiver<bool>,
    /// Path and bot for the log, once the backend was asked.
    masked: Option<(String, Option<String>)>,
    /// What it has stored so far, even if nobody is told.
    stored: Vec<StoredValue>,
}

type Answered = Result<(Response<Payload>, End), NoAnswer>;

impl Work<'_> {
    fn date(&self) -> String {
        http_date(self.time_us.div_euclid(1_000_000))
    }

    async fn ask(&mut self, request: Request) -> Result<Reply, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        let job = Job { request, time_us: self.time_us, reply: answer };
        self.shared.jobs.send(job).map_err(|_| NoAnswer::Close)?;
        let Answer { mut reply, masked } = answered.await.map_err(|_| NoAnswer::Close)?;
        self.masked = Some(masked);
        self.stored = core::mem::take(&mut reply.stored);
        Ok(reply)
    }

    fn answer(&self, reply: Reply) -> (Response<Payload>, End) {
        let end = if reply.hang_up { End::HangUp } else { End::KeepAlive };
        (response(reply, self.time_us, self.old_client), end)
    }

    async fn do_it(&mut self, request: Request) -> Answered {
        let reply = self.ask(request).await?;
        Ok(self.answer(reply))
    }

    /// Waits, but not longer than the stand-in lives.
    async fn wait(&mut self, until: impl Future<Output = ()>) -> Result<(), NoAnswer> {
        tokio::select! {
            () = until => Ok(()),
            () = stopped(&mut self.stop) => Err(NoAnswer::Close),
        }
    }

    async fn misbehave(&mut self, request: Request, id: RuleId, misbehaviour: Misbehaviour) -> Answered {
        use Misbehaviour as M;
        let rules = &self.shared.core.rules;
        match misbehaviour {
            // These are about connections, and their rules about no request.
            M::Refuse | M::ResetOnConnect => self.do_it(request).await,
            // The limit was looked at before the body was read.
            M::BodyLimit(_) => self.do_it(request).await,

            M::Close => Err(NoAnswer::Close),
            M::Reset => Err(NoAnswer::Reset),
            M::Hang => {
                self.wait(rules.gone(id)).await?;
                self.do_it(request).await
            }
            M::Delay(time) => {
                self.wait(tokio::time::sleep(time)).await?;
                self.do_it(request).await
            }
            M::Status(status) => Ok(canned::answer(&status, &self.date(), self.old_client)),
            M::RefuseBody { answer, .. } => Ok(canned::answer(&answer, &self.date(), self.old_client)),
            M::PlainHttp if request.host.as_deref() == Some("grafolean") => self.do_it(request).await,
            M::PlainHttp => Ok(canned::answer(&canned::please_use_https(), &self.date(), self.old_client)),
            M::Redirect { status, to } => {
                let location = to.unwrap_or_else(|| {
                    let scheme = if self.shared.speaks_tls() { "https" } else { "http" };
                    let host = request.host.as_deref().unwrap_or("");
                    format!("{scheme}://{host}{}", canned::other_slash(&request.target))
                });
                Ok((canned::redirection(status, &location, &self.date(), self.old_client), End::KeepAlive))
            }
            M::Garbage { seed, bytes } => {
                let (response, _) = canned::answer(&Status::new(200), &self.date(), self.old_client);
                Ok((response, End::Wire(Wire::Replaced(random_bytes(seed, bytes)), true)))
            }

            M::CloseAfterDoing => {
                self.ask(request).await?;
                Err(NoAnswer::Close)
            }
            M::HangAfterDoing => {
                let reply = self.ask(request).await?;
                self.wait(rules.gone(id)).await?;
                Ok(self.answer(reply))
            }
            M::StatusAfterDoing(status) => {
                self.ask(request).await?;
                Ok(canned::answer(&status, &self.date(), self.old_client))
            }
            M::Pages(pages) => {
                let Some(body) = first_pages(&request.body, pages) else {
                    return self.do_it(request).await;
                };
                if pages > 0 {
                    let reply = self.ask(Request { body, ..request }).await?;
                    if reply.status != 204 {
                        return Ok(self.answer(reply));
                    }
                }
                Ok(self.answer(Reply::internal_error()))
            }
            M::Date(date) => {
                let (mut response, end) = self.do_it(request).await?;
                canned::redate(&mut response, &date, self.time_us);
                Ok((response, end))
            }
            M::IdleClose(limit) => self.do_on_wire(request, Wire::IdleClose(limit)).await,
            M::CutHead { after_bytes } => self.do_on_wire(request, Wire::CutHead(after_bytes)).await,
            M::CutBody { after_bytes } => self.do_on_wire(request, Wire::CutBody(after_bytes)).await,
            M::Drip { bytes, pause } => self.do_on_wire(request, Wire::DripBody(bytes, pause)).await,
            M::DripHead { bytes, pause } => self.do_on_wire(request, Wire::DripHead(bytes, pause)).await,
            M::WrongBody(wrong) => {
                let (mut response, end) = self.do_it(request).await?;
                match canned::spoil(&mut response, &wrong) {
                    0 => Ok((response, end)),
                    by => Ok((response, End::Wire(Wire::Announced(by), matches!(end, End::HangUp)))),
                }
            }
        }
    }

    async fn do_on_wire(&mut self, request: Request, wire: Wire) -> Answered {
        let (response, end) = self.do_it(request).await?;
        Ok((response, End::Wire(wire, matches!(end, End::HangUp))))
    }
}

/// The values of the first pages of a body; none if it is no list of values.
fn first_pages(body: &[u8], pages: usize) -> Option<Bytes> {
    let Ok(Json::List(mut values)) = Json::from_bytes(body) else { return None };
    values.truncate(pages.saturating_mul(PAGE));
    Json::List(values).to_compact().ok().map(Bytes::from)
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
pub(crate) fn http_date(unix_s: i64) -> String {
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
