//! SNMP messages for `no_std` without alloc: requests into a caller's buffer, answers borrowed from a datagram.
//!
//! ```
//! use grafolean_snmp_codec::{Message, MessageWriter, Oid, PduHeader, Value, Version, request_tag};
//!
//! let uptime: Oid = "1.3.6.1.2.1.1.3.0".parse()?;
//! let mut buffer = [0; 484];
//! let mut writer = MessageWriter::new(&mut buffer, Version::V2c, b"public", PduHeader::get(17))?;
//! writer.push_oid(&uptime)?;
//! let datagram = writer.finish()?;
//! # let received = datagram;
//! // Send it, receive, and find the request that a datagram answers by its tag.
//! assert_eq!(request_tag(received), request_tag(datagram));
//! let message = Message::decode(received)?;
//! for var_bind in message.pdu.var_binds {
//!     let var_bind = var_bind?;
//!     println!("{} = {:?}", var_bind.oid, var_bind.value);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Sockets, clocks, retries and walks are the caller's.
//!
//! # Cost
//!
//! Time linear in the bytes, one pass, no recursion; no memory but the buffer and some hundred bytes of stack.
//!
//! # Errors
//!
//! Any bytes may be decoded: what is wrong comes as a [`DecodeError`] with its offset. Which sloppy encodings are
//! accepted is told at [`Value`].

#![no_std]
#![forbid(unsafe_code)]

mod ber;
#[cfg(feature = "v3")]
mod keys;
mod message;
mod oid;
mod pdu;
#[cfg(feature = "v3")]
mod usm;
mod value;
mod writer;

pub use ber::{DecodeError, DecodeErrorKind};
pub use message::{Community, Message, RequestTag, Version, request_tag};
pub use oid::{Arcs, MAX_ARCS, Oid, OidError, OidRef};
pub use pdu::{ErrorStatus, Pdu, PduHeader, PduKind, VarBind, VarBinds};
pub use value::{OpaqueNumber, Value};
pub use writer::{EncodeError, MessageWriter};

/// SNMPv3 with the user-based security model, of the feature `v3`.
///
/// [`v3::MasterKeys`] are made of passwords once, [`v3::LocalizedKeys`] of those for each device, whose
/// [`v3::Engine`] is discovered. [`v3::Security`] then writes requests and reads answers; an example is there.
#[cfg(feature = "v3")]
pub mod v3 {
    pub use crate::keys::{
        AuthProtocol, KeyError, LocalizedKeys, MasterKeys, PrivProtocol, SecurityLevel, UnknownProtocol,
    };
    pub use crate::usm::{
        Answer, AnswerError, Engine, EngineId, MIN_MESSAGE_BYTES, Report, ReportReason, RequestParams,
        ScopedPdu, Security, TIME_WINDOW_S, UserNameTooLong, discovery_request,
    };
}
