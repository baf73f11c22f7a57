//! Misbehaviour of the backend, and of the way to it.

use core::ops::Range;

use crate::record::Sent;

/// What becomes of a request instead of the backend's own answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The backend does nothing and answers this.
    Status {
        /// The status.
        status: u16,
        /// The body.
        body: Vec<u8>,
        /// `Retry-After`, in milliseconds.
        retry_after_ms: Option<u32>,
    },
    /// No connection: the backend has surely not got it.
    NotSent,
    /// The backend does what it is asked, but its answer is lost.
    Lost,
    /// The connection breaks before the backend has got it; the bot cannot tell this from [`Answer::Lost`].
    Dropped,
    /// The backend does what it is asked; the connection breaks after so many bytes of its answer's body.
    Cut {
        /// Bytes of the body that arrive.
        bytes: usize,
    },
    /// The backend does nothing and says nothing. After [`SILENCE_LIMIT_MS`] the connection is given up, as adapters do.
    Silence,
}

/// How long a connection may be silent before it is given up, in milliseconds.
pub const SILENCE_LIMIT_MS: u64 = 30_000;

impl Answer {
    /// A status with a short text as body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Answer::Status { status, body: b"as scripted".to_vec(), retry_after_ms: None }
    }

    /// A status that tells when to come back.
    #[must_use]
    pub fn retry_after_s(status: u16, seconds: u32) -> Self {
        let retry_after_ms = Some(seconds.saturating_mul(1000));
        Answer::Status { status, body: b"as scripted".to_vec(), retry_after_ms }
    }

    /// A status with this body.
    #[must_use]
    pub fn body(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Answer::Status { status, body: body.into(), retry_after_ms: None }
    }
}

/// Which requests: `"PUT values"`, `"GET /accounts/1/entities/"`, `"POST"`, `"sensors"`, `""` for any.
///
/// A first word in capitals is the method; what follows is a part of the path.
pub(crate) struct Matcher {
    method: Option<String>,
    part: String,
}

impl Matcher {
    pub(crate) fn new(text: &str) -> Self {
        let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
        let is_method = !first.is_empty() && first.bytes().all(|b| b.is_ascii_uppercase());
        if is_method {
            Matcher { method: Some(first.to_owned()), part: rest.trim().to_owned() }
        } else {
            Matcher { method: None, part: text.trim().to_owned() }
        }
    }

    pub(crate) fn matches(&self, sent: &Sent) -> bool {
        self.method.as_ref().is_none_or(|method| *method == sent.method) && sent.path.contains(&self.part)
    }
}

struct Rule {
    which: Matcher,
    answer: Answer,
    /// For one request only.
    once: bool,
}

/// What was scripted and has not happened yet.
#[derive(Default)]
pub(crate) struct Misbehaviour {
    rules: Vec<Rule>,
    outages_ms: Vec<Range<u64>>,
}

impl Misbehaviour {
    pub(crate) fn add(&mut self, which: &str, answer: Answer, once: bool) {
        self.rules.push(Rule { which: Matcher::new(which), answer, once });
    }

    pub(crate) fn add_outage(&mut self, ms: Range<u64>) {
        self.outages_ms.push(ms);
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What becomes of this request; none: what the backend says.
    pub(crate) fn of(&mut self, now_ms: u64, sent: &Sent) -> Option<Answer> {
        if self.outages_ms.iter().any(|ms| ms.contains(&now_ms)) {
            return Some(Answer::NotSent);
        }
        let at = self.rules.iter().position(|rule| rule.which.matches(sent))?;
        if self.rules.get(at)?.once {
            return Some(self.rules.remove(at).answer);
        }
        self.rules.get(at).map(|rule| rule.answer.clone())
    }
}
