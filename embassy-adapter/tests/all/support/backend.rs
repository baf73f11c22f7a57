//! A backend in memory that is scripted by a function, behind a transport without HTTP. Does not allocate.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::cell::{Cell, RefCell};

use embassy_time::Timer;
use grafolean_embassy::core::api::{Method, Resource};
use grafolean_embassy::core::collector::{RequestError, RequestHead, ResponseHead};
use grafolean_embassy::{Requests, Transport};

pub const TOKEN: &str = "3bfae491-8c49-42ca-8332-0ae431d59014";
/// 2026-01-01T00:00:00Z.
pub const DATE: u64 = 1_767_225_600;

/// A request that has arrived.
pub struct Seen {
    pub method: Method,
    pub resource: Resource,
    pub body: heapless::String<2048>,
    pub at_ms: u64,
}

pub enum Answer {
    /// Status and body.
    Is(u16, &'static str),
    /// No connection.
    NoConnection,
    /// The connection breaks after the request.
    Breaks,
    /// Never.
    Hangs,
}

pub struct Backend {
    pub answer: fn(Method, Resource) -> Answer,
    pub seen: RefCell<heapless::Vec<Seen, 64>>,
    /// Bytes of the body of an answer that go at once.
    pub piece: usize,
    /// Bytes of the present answer that have been taken.
    pub given: Cell<usize>,
    /// Requests of which the collector had enough before their end.
    pub given_up: Cell<u32>,
    pub closed: Cell<bool>,
}

impl Backend {
    pub const fn new(answer: fn(Method, Resource) -> Answer) -> Self {
        Backend {
            answer,
            seen: RefCell::new(heapless::Vec::new()),
            piece: 7,
            given: Cell::new(0),
            given_up: Cell::new(0),
            closed: Cell::new(false),
        }
    }

    pub fn count(&self, method: Method, resource: Resource) -> usize {
        self.seen.borrow().iter().filter(|s| s.method == method && s.resource == resource).count()
    }

    /// How many bodies hold `text`.
    pub fn holding(&self, text: &str) -> usize {
        self.seen.borrow().iter().filter(|s| s.body.contains(text)).count()
    }

    async fn exchange<R: Requests>(&self, requests: &R, head: RequestHead) {
        let mut target = heapless::String::<256>::new();
        requests.write_target(&mut target).unwrap();
        assert_eq!(target.contains(TOKEN), head.resource != Resource::Status, "{target}");
        let mut body = [0; 2048];
        let mut len = 0;
        loop {
            let end = (len + 13).min(body.len());
            match requests.body(len, &mut body[len..end]) {
                0 => break,
                n => len += n,
            }
        }
        assert_eq!(len, head.body_len.unwrap_or(0));
        let body = core::str::from_utf8(&body[..len]).unwrap().try_into().unwrap();
        let seen =
            Seen { method: head.method, resource: head.resource, body, at_ms: super::support::now_ms() };
        let kept = self.seen.borrow_mut().push(seen);
        assert!(kept.is_ok(), "more requests than a test expects");
        self.given.set(0);
        match (self.answer)(head.method, head.resource) {
            Answer::NoConnection => requests.failed(RequestError::NotSent, &"no connection"),
            Answer::Breaks => requests.failed(RequestError::Lost, &"connection broke"),
            Answer::Hangs => core::future::pending().await,
            Answer::Is(status, body) => {
                Timer::after_millis(20).await;
                let now_s = super::support::now_ms() / 1000;
                let date_unix_s = Some(DATE + now_s);
                requests.answer_head(ResponseHead { status, date_unix_s, retry_after_ms: None });
                for piece in body.as_bytes().chunks(self.piece) {
                    if requests.answer_body(piece).await.is_err() {
                        self.given_up.set(self.given_up.get() + 1);
                        return;
                    }
                    self.given.set(self.given.get() + piece.len());
                }
                requests.answer_end();
            }
        }
    }
}

impl Transport for &Backend {
    async fn serve<R: Requests>(&mut self, requests: &R) {
        use embassy_futures::select::{Either, select};
        while let Some(head) = requests.next().await {
            if let Either::Second(()) = select(self.exchange(requests, head), requests.over()).await {
                self.given_up.set(self.given_up.get() + 1);
            }
        }
        self.closed.set(true);
    }
}
