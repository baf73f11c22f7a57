//! Requests for a transport, and what became of them.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::cell::{Cell, RefCell};
use std::fmt::{Display, Write};

use embassy_time::Timer;
use grafolean_embassy::core::api::{Method, Resource, Target, Token};
use grafolean_embassy::core::collector::{RequestError, RequestHead, ResponseHead};
use grafolean_embassy::{Requests, Unwanted};

pub const TOKEN: &str = "3bfae491-8c49-42ca-8332-0ae431d59014";

#[derive(Clone)]
pub struct Request {
    pub method: Method,
    pub resource: Resource,
    pub body: Vec<u8>,
    /// The pause before it.
    pub after_ms: u64,
    /// It is given up after this time.
    pub over_after_ms: Option<u64>,
    /// The answer's body is unwanted after so many bytes.
    pub enough: usize,
}

pub fn request(method: Method, body: &[u8]) -> Request {
    let resource = if body.is_empty() { Resource::Accounts } else { Resource::Values(1) };
    Request { method, resource, body: body.to_vec(), after_ms: 0, over_after_ms: None, enough: usize::MAX }
}

pub fn get() -> Request {
    request(Method::Get, b"")
}

#[derive(Debug, PartialEq, Clone)]
pub enum End {
    Answered,
    Failed(RequestError, String),
    /// The transport was told that it is over.
    GivenUp,
}

#[derive(Debug, Clone)]
pub struct Outcome {
    pub head: Option<ResponseHead>,
    pub body: Vec<u8>,
    pub end: End,
}

impl Outcome {
    pub fn status(&self) -> u16 {
        self.head.unwrap().status
    }
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
    #[track_caller]
    pub fn answer(&self) -> (u16, &str) {
        assert_eq!(self.end, End::Answered);
        (self.status(), self.text())
    }
    #[track_caller]
    pub fn failure(&self) -> (RequestError, &str) {
        let End::Failed(error, why) = &self.end else { panic!("{:?}", self.end) };
        (*error, why)
    }
}

/// Gives a list of requests, then none.
pub struct List {
    requests: Vec<Request>,
    next: Cell<usize>,
    pub outcomes: RefCell<Vec<Outcome>>,
    begun_ms: Cell<u64>,
}

impl List {
    pub fn new(requests: &[Request]) -> Self {
        List {
            requests: requests.to_vec(),
            next: Cell::new(0),
            outcomes: RefCell::default(),
            begun_ms: Cell::new(0),
        }
    }

    fn present(&self) -> &Request {
        &self.requests[self.next.get() - 1]
    }

    fn outcome<R>(&self, change: impl FnOnce(&mut Outcome) -> R) -> R {
        change(self.outcomes.borrow_mut().last_mut().unwrap())
    }
}

impl Requests for List {
    async fn next(&self) -> Option<RequestHead> {
        let request = self.requests.get(self.next.get())?;
        Timer::after_millis(request.after_ms).await;
        self.next.set(self.next.get() + 1);
        self.begun_ms.set(embassy_time::Instant::now().as_millis());
        self.outcomes.borrow_mut().push(Outcome { head: None, body: Vec::new(), end: End::GivenUp });
        let body_len = (!request.body.is_empty()).then_some(request.body.len());
        let (method, resource) = (request.method, request.resource);
        Some(RequestHead { method, resource, body_len, answer_limit: 1 << 20 })
    }

    async fn over(&self) {
        match self.present().over_after_ms {
            Some(ms) => Timer::at(embassy_time::Instant::from_millis(self.begun_ms.get() + ms)).await,
            None => core::future::pending().await,
        }
    }

    fn write_target(&self, out: &mut dyn Write) -> std::fmt::Result {
        let token = Token::parse(TOKEN).unwrap();
        Target { prefix: "/api", resource: self.present().resource, token: &token }.write(out)
    }

    fn body(&self, offset: usize, buf: &mut [u8]) -> usize {
        let rest = &self.present().body[offset..];
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        n
    }

    fn answer_head(&self, head: ResponseHead) {
        self.outcome(|o| {
            assert_eq!((o.head, &o.end), (None, &End::GivenUp), "a second head");
            o.head = Some(head);
        });
    }

    async fn answer_body(&self, bytes: &[u8]) -> Result<(), Unwanted> {
        assert!(!bytes.is_empty());
        let enough = self.present().enough;
        self.outcome(|o| {
            o.body.extend_from_slice(bytes);
            if o.body.len() >= enough { Err(Unwanted) } else { Ok(()) }
        })
    }

    fn answer_end(&self) {
        self.outcome(|o| {
            assert!(o.head.is_some() && o.end == End::GivenUp, "an end without a head, or a second one");
            o.end = End::Answered;
        });
    }

    fn failed(&self, error: RequestError, why: &dyn Display) {
        let why = why.to_string();
        assert!(!why.contains(&TOKEN[..8]) && !why.contains("?b="), "the token is in {why:?}");
        self.outcome(|o| {
            assert_eq!(o.end, End::GivenUp, "a second end");
            o.end = End::Failed(error, why);
        });
    }
}
