//! What the driver needs of a network: something that performs requests one after the other.

use core::fmt;

use grafolean_core::collector::{RequestError, RequestHead, ResponseHead};

/// Performs requests, for instance [`Http`](crate::http::Http).
///
/// A transport keeps its connection inside of [`serve`](Transport::serve), so that it can be made of parts that
/// borrow each other (a TLS session, its socket, its buffers) without unsafe code.
pub trait Transport {
    /// Performs requests until [`Requests::next`] gives `None`, then closes its connection and returns. If it returns
    /// earlier, it is called again. Dropped if closing takes too long.
    async fn serve<R: Requests>(&mut self, requests: &R);
}

impl<T: Transport> Transport for &mut T {
    async fn serve<R: Requests>(&mut self, requests: &R) {
        T::serve(self, requests).await;
    }
}

/// The requests that a transport is to perform, and where their answers go.
///
/// For each request: its head by [`next`](Requests::next), its target, its body; then
/// [`answer_head`](Requests::answer_head), any number of [`answer_body`](Requests::answer_body) and
/// [`answer_end`](Requests::answer_end), or at any place [`failed`](Requests::failed). A transport waits for
/// [`over`](Requests::over) at the same time; then the request is not wanted any more, its connection is closed and
/// nothing is given back.
pub trait Requests {
    /// Waits for the next request; `None`: no more will come. The future may be dropped and asked for again; no request
    /// is lost. A request that was left without an end before has failed.
    async fn next(&self) -> Option<RequestHead>;

    /// Waits until the present request is not wanted any more.
    async fn over(&self);

    /// Writes the request's target (path and query). It holds the token: it goes into the request line and nowhere else.
    ///
    /// # Errors
    /// Those of `out`; also if the request is over.
    fn write_target(&self, out: &mut dyn fmt::Write) -> fmt::Result;

    /// Copies bytes of the request's body from `offset` on: how many. Cheap if asked in order; a request that is
    /// repeated on another connection asks from 0 again.
    fn body(&self, offset: usize, buf: &mut [u8]) -> usize;

    /// The head of the answer has arrived.
    fn answer_head(&self, head: ResponseHead);

    /// Bytes of the answer's body, decoded. Waits until they have been taken, so that the server is held back while
    /// nobody wants them.
    ///
    /// # Errors
    /// [`Unwanted`]: close the connection, give nothing more of this answer.
    async fn answer_body(&self, bytes: &[u8]) -> Result<(), Unwanted>;

    /// The answer has ended.
    fn answer_end(&self);

    /// There is no answer, or not all of it. `why` goes to the log: it must not show the target.
    fn failed(&self, error: RequestError, why: &dyn fmt::Display);
}

/// The rest of an answer is not wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unwanted;
