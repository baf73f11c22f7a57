//! One request of the collector over the HTTP client.

use bytes::{Buf, Bytes};
use grafolean_core::bot::Bot;
use grafolean_core::collector::{BodyStatus, RequestError, RequestId, ResponseHead};
use grafolean_core::context::Lender;
use zeroize::Zeroizing;

use super::Shared;
use crate::http::{HttpClient, HttpError, Request, Target};

/// Sends a request and gives its answer back to the collector, piece by piece.
pub(super) async fn exchange<B: Bot>(shared: &Shared<B>, client: &HttpClient, id: RequestId) {
    let made = shared.with(|c| {
        let head = c.request_head(id)?;
        let mut target = Zeroizing::new(String::with_capacity(128));
        c.write_target(id, &mut *target).ok()?;
        let target = Target::new(target.as_str()).ok()?;
        let mut request = Request::new(head.method, target).with_body_limit(head.answer_limit);
        if let Some(len) = head.body_len {
            let mut body = vec![0; len];
            let mut at = 0;
            while at < len {
                let n = c.request_body(id, at, body.get_mut(at..)?);
                if n == 0 {
                    break;
                }
                at += n;
            }
            body.truncate(at);
            request = request.with_body(body);
        }
        Some((head.resource, request))
    });
    let Some((resource, request)) = made else {
        // Over meanwhile, or one that can't be written down: it must not keep others waiting.
        shared.with(|c| c.handle_request_error(&shared.bot, id, RequestError::NotSent));
        shared.own_changed();
        return;
    };
    let method = request.method.as_str();
    tracing::trace!("{method} {resource}");
    let failed = |error: &HttpError| {
        shared.report_http_error(resource, error);
        let lost = error.maybe_processed();
        let error = if lost { RequestError::Lost } else { RequestError::NotSent };
        shared.with(|c| c.handle_request_error(&shared.bot, id, error));
        shared.own_changed();
    };
    let mut response = match client.send(request).await {
        Ok(response) => response,
        Err(error) => return failed(&error),
    };
    let head = ResponseHead {
        status: response.status(),
        date_unix_s: response.date(),
        retry_after_ms: response.retry_after().map(|d| u32::try_from(d.as_millis()).unwrap_or(u32::MAX)),
    };
    tracing::debug!("{method} {resource}: {}", head.status);
    shared.with(|c| c.handle_response_head(id, head));
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                if !offer(shared, id, chunk).await {
                    return;
                }
            }
            Ok(None) => break,
            Err(error) => return failed(&error),
        }
    }
    shared.http_works(resource);
    shared.with(|c| c.handle_response_end(&shared.bot, id));
    shared.own_changed();
}

/// Gives bytes of an answer to the collector, which may take its time; false if it wants no more.
async fn offer<B: Bot>(shared: &Shared<B>, id: RequestId, mut bytes: Bytes) -> bool {
    while !bytes.is_empty() {
        let seen = shared.changes();
        match shared.with(|c| c.handle_response_body(&shared.bot, id, &bytes)) {
            BodyStatus::Unwanted => {
                shared.own_changed();
                return false;
            }
            BodyStatus::Taken(0) => {
                // Looked at again at the latest when the collector's own limit for this has passed.
                let _ = tokio::time::timeout(core::time::Duration::from_secs(5), shared.changed_since(seen))
                    .await;
            }
            BodyStatus::Taken(n) => {
                bytes.advance(n.min(bytes.len()));
                shared.own_changed();
            }
        }
    }
    true
}
