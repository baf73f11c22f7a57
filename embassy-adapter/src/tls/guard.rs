//! What stands between the TLS stack and the server: each record is looked at before the stack decrypts it and after, so that no bytes
//! of a server can do what the stack does not expect.

use core::cell::Cell;
use core::fmt;

use aes_gcm::aead::consts::{U0, U12, U16, U54};
use aes_gcm::aead::{self, AeadCore, AeadInPlace, Buffer, KeyInit, KeySizeUser};
use aes_gcm::{Aes128Gcm, Key, Nonce, Tag};
use embedded_io_async::{Error as _, ErrorKind, ErrorType, Read, Write};
use embedded_tls::TlsCipherSuite;
use sha2::Sha256;

use super::TlsFault;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

const NEW_SESSION_TICKET: u8 = 4;

/// The largest plaintext of a record (RFC 8446, section 5.1), in bytes.
const LONGEST: usize = 1 << 14;
/// What encryption adds at most (section 5.2), in bytes.
const EXPANSION: usize = 256;
/// The least length of an encrypted record: a tag and the byte of the type.
const SHORTEST_ENCRYPTED: usize = 16 + 1;

/// A record with an alert: its header, the alert, its type and tag.
const GOODBYE: usize = 5 + 2 + 1 + 16;

/// In a record's header of an open connection this replaces the version's second byte, which is always 3. So the cipher,
/// which sees nothing else, knows that the handshake is over.
const OPEN: u8 = 0xff;

/// How far the connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The server has said nothing.
    Hello,
    /// The server's first message was there, the rest of the handshake is encrypted.
    Keyed,
    /// The handshake is over.
    Open,
    /// The server is refused: nothing more is sent.
    Refused,
    /// It is closed in order: what is still written is kept, for [`Guard::say_goodbye`].
    Closing,
}

/// What the owner of a connection and its parts tell each other.
pub(super) struct Link {
    pub(super) phase: Cell<Phase>,
    /// What is wrong, if it was found here or by the verifier.
    pub(super) fault: Cell<Option<TlsFault>>,
    /// A flush of an open connection is meant for the stream under it too. (The stack flushes after each record; on some
    /// network stacks that waits for the acknowledgement.)
    pub(super) flush: Cell<bool>,
}

impl Default for Link {
    fn default() -> Self {
        Link { phase: Cell::new(Phase::Hello), fault: Cell::new(None), flush: Cell::new(false) }
    }
}

impl Link {
    /// A new connection begins.
    pub(super) fn begin(&self) {
        self.phase.set(Phase::Hello);
        self.fault.set(None);
        self.flush.set(false);
    }
}

/// A stream that lets pass only records that have their place.
pub(super) struct Guard<'a, S> {
    pub(super) stream: S,
    link: &'a Link,
    /// The longest record, in bytes.
    limit: usize,
    header: [u8; 5],
    /// How many bytes of the header have arrived.
    arrived: usize,
    /// How many of them have been handed on, once all are there.
    given: usize,
    /// How many bytes of the record are still to come.
    left: usize,
    /// The record with `close_notify`.
    goodbye: [u8; GOODBYE],
    goodbye_len: usize,
}

/// The connection has a fault; [`Link::fault`] says which.
#[derive(Clone, Copy, Debug)]
pub(super) struct GuardError(ErrorKind);

impl fmt::Display for GuardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl core::error::Error for GuardError {}

impl embedded_io_async::Error for GuardError {
    fn kind(&self) -> ErrorKind {
        self.0
    }
}

impl<'a, S: Read + Write> Guard<'a, S> {
    pub(super) const fn new(stream: S, link: &'a Link, limit: usize) -> Self {
        Guard {
            stream,
            link,
            limit,
            header: [0; 5],
            arrived: 0,
            given: 0,
            left: 0,
            goodbye: [0; GOODBYE],
            goodbye_len: 0,
        }
    }

    /// Sends what was written while closing.
    pub(super) async fn say_goodbye(&mut self) -> Result<(), S::Error> {
        let goodbye = self.goodbye.get(..self.goodbye_len).unwrap_or_default();
        self.stream.write_all(goodbye).await
    }

    fn fail(&self, fault: TlsFault) -> GuardError {
        self.link.fault.set(Some(fault));
        GuardError(if let TlsFault::Stream(kind) = fault { kind } else { ErrorKind::InvalidData })
    }

    /// Bytes of the stream, at least one.
    async fn some(&mut self, buf: &mut [u8]) -> Result<usize, GuardError> {
        match self.stream.read(buf).await {
            Ok(0) => Err(self.fail(TlsFault::Closed)),
            Ok(n) => Ok(n.min(buf.len())),
            Err(error) => Err(self.fail(TlsFault::Stream(error.kind()))),
        }
    }

    /// A header has arrived.
    async fn check(&mut self) -> Result<(), GuardError> {
        let [kind, major, minor, high, low] = self.header;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let phase = self.link.phase.get();
        if major != 3 || !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&kind) {
            return Err(self.fail(if phase == Phase::Hello { TlsFault::NotTls } else { TlsFault::Record }));
        }
        match (kind, phase) {
            (ALERT, Phase::Hello | Phase::Keyed) if len == 2 => {
                let mut alert = [0; 2];
                let mut arrived = 0;
                while let Some(rest @ [_, ..]) = alert.get_mut(arrived..) {
                    arrived += self.some(rest).await?;
                }
                return Err(self.fail(TlsFault::Alert(alert[1])));
            }
            (HANDSHAKE, Phase::Hello) if (1..=LONGEST).contains(&len) => self.link.phase.set(Phase::Keyed),
            // Sent for the sake of old middleboxes (section 5).
            (CHANGE_CIPHER_SPEC, Phase::Keyed) if len == 1 => {}
            (APPLICATION_DATA, Phase::Keyed | Phase::Open)
                if minor == 3 && (SHORTEST_ENCRYPTED..=LONGEST + EXPANSION).contains(&len) => {}
            _ => return Err(self.fail(TlsFault::Record)),
        }
        if len > self.limit {
            return Err(self.fail(TlsFault::RecordTooLong));
        }
        if phase == Phase::Open {
            self.header[2] = OPEN;
        }
        self.left = len;
        Ok(())
    }
}

impl<S: Read + Write> ErrorType for Guard<'_, S> {
    type Error = GuardError;
}

impl<S: Read + Write> Read for Guard<'_, S> {
    async fn read(&mut self, buf: &mut [u8]) -> Result<usize, GuardError> {
        if buf.is_empty() {
            return Ok(0);
        }
        if self.arrived == self.header.len() && self.given == self.header.len() {
            if self.left > 0 {
                let most = self.left.min(buf.len());
                let n = self.some(buf.get_mut(..most).unwrap_or_default()).await?;
                self.left -= n;
                return Ok(n);
            }
            (self.arrived, self.given) = (0, 0);
        }
        while self.arrived < self.header.len() {
            let mut part = [0; 5];
            let missing = self.header.len() - self.arrived;
            let n = self.some(part.get_mut(..missing).unwrap_or_default()).await?;
            for (to, from) in self.header.iter_mut().skip(self.arrived).zip(part).take(n) {
                *to = from;
            }
            self.arrived += n;
            if self.arrived == self.header.len() {
                self.check().await?;
            }
        }
        let rest = self.header.get(self.given..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        for (to, from) in buf.iter_mut().zip(rest) {
            *to = *from;
        }
        self.given += n;
        Ok(n)
    }
}

impl<S: Read + Write> Write for Guard<'_, S> {
    async fn write(&mut self, buf: &[u8]) -> Result<usize, GuardError> {
        match self.link.phase.get() {
            Phase::Refused => return Ok(buf.len()),
            Phase::Closing => {
                let room = self.goodbye.get_mut(self.goodbye_len..self.goodbye_len + buf.len());
                let Some(room) = room else { return Err(self.fail(TlsFault::Record)) };
                room.copy_from_slice(buf);
                self.goodbye_len += buf.len();
                return Ok(buf.len());
            }
            _ => {}
        }
        match self.stream.write(buf).await {
            // Never for a non-empty buffer, says the trait; the stack would try for ever.
            Ok(0) if !buf.is_empty() => Err(self.fail(TlsFault::Stream(ErrorKind::WriteZero))),
            Ok(n) => Ok(n),
            Err(error) => Err(self.fail(TlsFault::Stream(error.kind()))),
        }
    }

    async fn flush(&mut self) -> Result<(), GuardError> {
        match self.link.phase.get() {
            Phase::Refused | Phase::Closing => return Ok(()),
            Phase::Open if !self.link.flush.get() => return Ok(()),
            _ => {}
        }
        match self.stream.flush().await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fail(TlsFault::Stream(error.kind()))),
        }
    }
}

/// TLS_AES_128_GCM_SHA256, the one that each server of TLS 1.3 has, with a look at what comes out of a record.
pub(super) struct Suite;

impl TlsCipherSuite for Suite {
    const CODE_POINT: u16 = 0x1301;
    type Cipher = Checked;
    type KeyLen = U16;
    type IvLen = U12;
    type Hash = Sha256;
    type LabelBufferSize = U54;
}

/// AES-128-GCM that gives the stack only plaintexts it can handle.
pub(super) struct Checked(Aes128Gcm);

impl KeySizeUser for Checked {
    type KeySize = U16;
}

impl KeyInit for Checked {
    fn new(key: &Key<Aes128Gcm>) -> Self {
        Checked(Aes128Gcm::new(key))
    }
}

impl AeadCore for Checked {
    type NonceSize = U12;
    type TagSize = U16;
    type CiphertextOverhead = U0;
}

impl AeadInPlace for Checked {
    fn encrypt_in_place_detached(
        &self,
        nonce: &Nonce<U12>,
        associated_data: &[u8],
        buffer: &mut [u8],
    ) -> aead::Result<Tag> {
        self.0.encrypt_in_place_detached(nonce, associated_data, buffer)
    }

    fn decrypt_in_place_detached(
        &self,
        nonce: &Nonce<U12>,
        associated_data: &[u8],
        buffer: &mut [u8],
        tag: &Tag,
    ) -> aead::Result<()> {
        self.0.decrypt_in_place_detached(nonce, associated_data, buffer, tag)
    }

    fn decrypt_in_place(
        &self,
        nonce: &Nonce<U12>,
        associated_data: &[u8],
        buffer: &mut dyn Buffer,
    ) -> aead::Result<()> {
        let Ok([kind, major, minor, high, low]) = <[u8; 5]>::try_from(associated_data) else {
            return Err(aead::Error);
        };
        self.0.decrypt_in_place(nonce, &[kind, major, 3, high, low], buffer)?;
        match inspect(buffer.as_ref(), minor == OPEN) {
            Some(Inner::Pass) => Ok(()),
            Some(Inner::Swallow) => {
                // A record of application data with nothing in it.
                if let Some(first) = buffer.as_mut().first_mut() {
                    *first = APPLICATION_DATA;
                }
                buffer.truncate(1);
                Ok(())
            }
            None => Err(aead::Error),
        }
    }
}

/// What is done with a record's inner plaintext.
#[derive(PartialEq, Eq, Debug)]
enum Inner {
    Pass,
    /// It has nothing for us.
    Swallow,
}

/// Looks at the inner plaintext of a record (RFC 8446, section 5.2); `None`: it must not be there.
fn inspect(plaintext: &[u8], open: bool) -> Option<Inner> {
    let end = plaintext.iter().rposition(|byte| *byte != 0)?;
    let (content, kind) = (plaintext.get(..end)?, *plaintext.get(end)?);
    if !open || kind != HANDSHAKE {
        return Some(Inner::Pass);
    }
    // Tickets are of no use, as no session is resumed. Anything else would change keys or ask for a certificate.
    let mut rest = content;
    while let [kind, a, b, c, after @ ..] = rest {
        let len = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).ok()?;
        if *kind != NEW_SESSION_TICKET {
            return None;
        }
        rest = after.get(len..)?;
    }
    (rest.is_empty() && !content.is_empty()).then_some(Inner::Swallow)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_plaintext_without_a_type_is_refused_in_every_phase() {
        for open in [false, true] {
            assert_eq!(inspect(&[], open), None);
            assert_eq!(inspect(&[0; 40], open), None);
            assert_eq!(inspect(&[23], open), Some(Inner::Pass));
            assert_eq!(inspect(&[1, 2, 21, 0, 0], open), Some(Inner::Pass));
        }
    }

    #[test]
    fn after_the_handshake_tickets_are_swallowed_and_every_other_handshake_message_is_refused() {
        let message = |kind: u8, len: u8| -> Vec<u8> {
            let mut message = Vec::from([kind, 0, 0, len]);
            message.resize(4 + usize::from(len), 7);
            message
        };
        let record = |parts: &[Vec<u8>]| -> Vec<u8> {
            let mut record = parts.concat();
            record.extend([HANDSHAKE, 0, 0]);
            record
        };
        let ticket = || message(NEW_SESSION_TICKET, 30);
        assert_eq!(inspect(&record(&[ticket()]), true), Some(Inner::Swallow));
        assert_eq!(inspect(&record(&[ticket(), ticket()]), true), Some(Inner::Swallow));
        assert_eq!(inspect(&record(&[]), true), None);
        for kind in (0..=255).filter(|kind| *kind != NEW_SESSION_TICKET) {
            assert_eq!(inspect(&record(&[message(kind, 5)]), true), None, "{kind}");
            assert_eq!(inspect(&record(&[ticket(), message(kind, 5)]), true), None, "{kind}");
            assert_eq!(inspect(&record(&[message(kind, 5)]), false), Some(Inner::Pass), "{kind}");
        }
        for cut in 1..ticket().len() {
            assert_eq!(inspect(&record(&[ticket()[..cut].to_vec()]), true), None, "{cut}");
        }
    }

    #[test]
    fn the_cipher_reads_the_phase_in_the_header_and_decrypts_with_the_true_one() {
        let cipher = Checked::new(&[7; 16].into());
        let nonce = [9; 12].into();
        for (plaintext, open, expected) in [
            (&b"hello\x17"[..], false, Ok(&b"hello\x17"[..])),
            (b"hello\x17", true, Ok(b"hello\x17")),
            (b"\x08\0\0\x02\0\0\x16", false, Ok(b"\x08\0\0\x02\0\0\x16")),
            (b"\x08\0\0\x02\0\0\x16", true, Err(aead::Error)),
            (b"\x04\0\0\x02\0\0\x16", true, Ok(b"\x17")),
            (b"", true, Err(aead::Error)),
            (b"\0\0\0\0", false, Err(aead::Error)),
        ] {
            let len = (plaintext.len() + 16) as u8;
            let mut buffer = Growing(plaintext.to_vec());
            cipher.encrypt_in_place(&nonce, &[23, 3, 3, 0, len], &mut buffer).unwrap();
            let mark = if open { OPEN } else { 3 };
            let decrypted = cipher.decrypt_in_place(&nonce, &[23, 3, mark, 0, len], &mut buffer);
            assert_eq!(decrypted.map(|()| &buffer.0[..]), expected, "{plaintext:?} {open}");
        }
    }

    struct Growing(Vec<u8>);

    impl AsRef<[u8]> for Growing {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl AsMut<[u8]> for Growing {
        fn as_mut(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }

    impl Buffer for Growing {
        fn extend_from_slice(&mut self, other: &[u8]) -> aead::Result<()> {
            self.0.extend_from_slice(other);
            Ok(())
        }
        fn truncate(&mut self, len: usize) {
            self.0.truncate(len);
        }
    }
}
