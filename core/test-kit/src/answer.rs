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
    method: Option<&'static str>,
    part: String,
}

/// The methods of a collector's requests.
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];

impl Matcher {
    /// Panics at what matches nothing ever, whatever the bot does.
    #[track_caller]
    pub(crate) fn new(text: &str) -> Self {
        let text = text.trim();
        let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
        let meant = METHODS.iter().find(|method| method.eq_ignore_ascii_case(first));
        let in_capitals = !first.is_empty() && first.bytes().all(|b| b.is_ascii_uppercase());
        let (method, part) = match meant {
            Some(method) if *method != first => {
                panic!("{text:?} matches no request: methods are in capitals, {method}")
            }
            Some(method) => (Some(*method), rest.trim()),
            None if in_capitals => {
                panic!("{text:?} matches no request: a collector uses {} only", METHODS.join(", "))
            }
            None => (None, text),
        };
        if part.contains(char::is_whitespace) {
            panic!("{text:?} matches no request: there are no spaces in a path")
        }
        Matcher { method, part: part.to_owned() }
    }

    pub(crate) fn matches(&self, sent: &Sent) -> bool {
        self.method.is_none_or(|method| method == sent.method) && sent.path.contains(&self.part)
    }
}

struct Rule {
    /// As the test has it.
    text: String,
    which: Matcher,
    answer: Answer,
    /// For one request only.
    once: bool,
    happened: bool,
}

impl Rule {
    fn call(&self) -> String {
        let name = if self.once { "answer_next" } else { "answer_always" };
        format!("{name}({:?}, ..)", self.text)
    }
}

struct Outage {
    ms: Range<u64>,
    happened: bool,
}

impl Outage {
    fn call(&self) -> String {
        format!("outage_s({}..{})", self.ms.start / 1000, self.ms.end / 1000)
    }
}

/// What was scripted: what holds, and what was taken back without having happened.
#[derive(Default)]
pub(crate) struct Misbehaviour {
    rules: Vec<Rule>,
    outages: Vec<Outage>,
    in_vain: Vec<String>,
}

impl Misbehaviour {
    #[track_caller]
    pub(crate) fn add(&mut self, which: &str, answer: Answer, once: bool) {
        let rule = Rule { text: which.to_owned(), which: Matcher::new(which), answer, once, happened: false };
        self.rules.push(rule);
    }

    pub(crate) fn add_outage(&mut self, ms: Range<u64>) {
        self.outages.push(Outage { ms, happened: false });
    }

    pub(crate) fn clear(&mut self) {
        self.in_vain = self.not_happened();
        self.rules.clear();
        self.outages.clear();
    }

    /// The calls that have scripted what did not happen.
    pub(crate) fn not_happened(&self) -> Vec<String> {
        let mut calls = self.in_vain.clone();
        calls.extend(self.rules.iter().filter(|rule| !rule.happened).map(Rule::call));
        calls.extend(self.outages.iter().filter(|outage| !outage.happened).map(Outage::call));
        calls
    }

    /// What becomes of this request; none: what the backend says.
    pub(crate) fn of(&mut self, now_ms: u64, sent: &Sent) -> Option<Answer> {
        let mut out = false;
        for outage in self.outages.iter_mut().filter(|outage| outage.ms.contains(&now_ms)) {
            outage.happened = true;
            out = true;
        }
        if out {
            return Some(Answer::NotSent);
        }
        let at = self.rules.iter().position(|rule| rule.which.matches(sent))?;
        if self.rules.get(at)?.once {
            return Some(self.rules.remove(at).answer);
        }
        let rule = self.rules.get_mut(at)?;
        rule.happened = true;
        Some(rule.answer.clone())
    }
}
