//! The stand-in's own pages: what a browser sees at its address.

use bytes::Bytes;
use hyper::{Method, Response, StatusCode};

use crate::body::Payload;
use crate::exchange::OwnRequest;

/// The answer to a request for `/` or something below `/stand-in/`; none if there is nothing.
///
/// An answer without a foreseeable end is a [`Payload::Stream`].
pub(crate) fn answer(request: &OwnRequest<'_>) -> Option<Response<Payload>> {
    if request.path != "/" || request.method != Method::GET {
        return None;
    }
    let (accounts, values) = {
        let backend = request.core.backend();
        (backend.accounts().len(), backend.value_count())
    };
    let requests = request.core.log().counters.requests;
    let text = format!(
        "A stand-in for the Grafolean backend.\n{accounts} accounts, {values} values, {requests} requests\n"
    );
    Some(OwnRequest::reply(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from(text)))
}
