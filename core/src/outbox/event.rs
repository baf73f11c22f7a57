//! What the outbox has to say to a log: each event when something changes, not at every try.

use core::fmt;

use crate::time::{Millis, UnixMillis};

/// Something worth a line in the log. `Display` gives the line; of a refused value the path is read by
/// [`Outbox::event_path`](super::Outbox::event_path).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum OutboxEvent {
    /// The backend refused this one value; the others of its batch go on.
    ValueRefused {
        /// Whose value.
        account: u64,
        /// The answer to it alone.
        status: u16,
        /// Its time, if it has one.
        time: Option<UnixMillis>,
    },
    /// More bad values in one batch than are looked for at once: the rest went back to the queue, after a wait
    /// they are tried again.
    HalvingEnded {
        /// Whose batch.
        account: u64,
        /// Bad values found and dropped.
        refused: u8,
    },
    /// The outbox is full, the oldest values are being dropped.
    Full {
        /// The account whose value went first.
        account: u64,
    },
    /// The outbox has room again.
    RoomAgain {
        /// Values dropped meanwhile.
        dropped: u64,
    },
    /// A 400 that names no value: wrong scheme, unknown account. Values are kept.
    SetupFault {
        /// Whose request.
        account: u64,
        /// The answer.
        status: u16,
    },
    /// 401 or 403: the token or its permissions. Values are kept.
    Denied {
        /// Whose request.
        account: u64,
        /// The answer.
        status: u16,
    },
    /// PUT is not permitted, POST is: the backend stamps the values, older ones can't be delivered.
    SwitchedToPost {
        /// Whose values.
        account: u64,
    },
    /// PUT is permitted again.
    BackToPut {
        /// Whose values.
        account: u64,
    },
    /// Another failing answer: values are kept.
    BackingOff {
        /// Whose request.
        account: u64,
        /// The answer.
        status: u16,
        /// The next try.
        until: Millis,
    },
    /// Values of an account are delivered again after one of the faults above.
    Recovered {
        /// Whose values.
        account: u64,
    },
    /// The backend can't be reached: values are kept.
    LinkDown {
        /// The next try.
        until: Millis,
    },
    /// The backend answers again.
    LinkUp,
}

impl fmt::Display for OutboxEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            OutboxEvent::ValueRefused { account, status, time } => {
                write!(f, "account {account}: value refused with status {status}")?;
                if let Some(time) = time { write!(f, ", its time was {time}") } else { Ok(()) }
            }
            OutboxEvent::HalvingEnded { account, refused } => {
                write!(
                    f,
                    "account {account}: {refused} values of one batch refused and more are bad: trying the rest later"
                )
            }
            OutboxEvent::Full { account } => {
                write!(f, "outbox is full, dropping the oldest values, first of account {account}")
            }
            OutboxEvent::RoomAgain { dropped } => {
                write!(f, "outbox has room again, {dropped} values were dropped")
            }
            OutboxEvent::SetupFault { account, status } => write!(
                f,
                "account {account}: status {status} on values: check the base URL (https?) and that the account exists"
            ),
            OutboxEvent::Denied { account, status } => write!(
                f,
                "account {account}: status {status} on values: check the bot's token and its permissions on accounts/{account}/values"
            ),
            OutboxEvent::SwitchedToPost { account } => write!(
                f,
                "account {account}: PUT of values is not permitted, using POST: values that can't go at once are lost; permit PUT on accounts/{account}/values"
            ),
            OutboxEvent::BackToPut { account } => {
                write!(f, "account {account}: PUT of values is permitted again")
            }
            OutboxEvent::BackingOff { account, status, .. } => {
                write!(f, "account {account}: status {status} on values, keeping them")
            }
            OutboxEvent::Recovered { account } => write!(f, "account {account}: values are delivered again"),
            OutboxEvent::LinkDown { .. } => f.write_str("backend can't be reached, keeping values"),
            OutboxEvent::LinkUp => f.write_str("backend answers again"),
        }
    }
}
