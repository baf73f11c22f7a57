//! Echo requests and replies as bytes (RFC 792, RFC 4443 §4).

use std::hash::{BuildHasher, RandomState};

/// Bytes of the ICMP echo header.
const HEADER: usize = 8;
/// Bytes the payload must have for the ping's number and its cookie.
pub(crate) const MIN_PAYLOAD: usize = 16;
/// With the IPv6 and the ICMP header this fills an Ethernet frame; more would be fragmented.
pub(crate) const MAX_PAYLOAD: usize = 1452;
/// Enough for the largest packet sent here behind the longest IPv4 header.
pub(crate) const RECEIVE_BUFFER: usize = 2048;

/// The address family of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// ICMP over IPv4.
    V4,
    /// ICMPv6.
    V6,
}

impl Family {
    pub(crate) const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    fn types(self) -> (u8, u8) {
        match self {
            Family::V4 => (8, 0),
            Family::V6 => (128, 129),
        }
    }
}

impl core::fmt::Display for Family {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// How the kernel hands packets to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// `SOCK_DGRAM`: no privilege, the kernel sets the identifier and delivers only this socket's replies.
    Datagram,
    /// `SOCK_RAW`: needs `CAP_NET_RAW`, sees all of the machine's ICMP, filtered here.
    Raw,
}

/// Numbers pings, and tells its own replies from all others: the payload carries the ping's 64-bit number and a
/// keyed hash of it, which nobody can guess who has not seen the request.
pub(crate) struct Codec {
    key: RandomState,
    identifier: u16,
    payload: usize,
}

/// What a received packet turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// A reply to the ping of this number.
    Reply(u64),
    /// An echo reply to somebody else, or a forged or damaged one.
    Foreign,
    /// Anything that is not an echo reply: raw sockets see errors, neighbour discovery and their own requests.
    Other,
}

impl Codec {
    /// `payload` bytes follow the ICMP header, at least [`MIN_PAYLOAD`].
    pub(crate) fn new(payload: usize) -> Self {
        let key = RandomState::new();
        let identifier = key.hash_one("identifier") as u16;
        Self { key, identifier, payload: payload.clamp(MIN_PAYLOAD, MAX_PAYLOAD) }
    }

    fn cookie(&self, id: u64) -> u64 {
        self.key.hash_one(id)
    }

    /// Writes the echo request number `id` into `out`.
    pub(crate) fn request(&self, family: Family, id: u64, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&[family.types().0, 0, 0, 0]);
        out.extend_from_slice(&self.identifier.to_be_bytes());
        out.extend_from_slice(&(id as u16).to_be_bytes());
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&self.cookie(id).to_be_bytes());
        out.extend((MIN_PAYLOAD..self.payload).map(|i| i as u8));
        // The kernel computes ICMPv6 checksums: they cover the source address, which it chooses.
        if family == Family::V4 {
            let sum = checksum(out);
            if let Some(field) = out.get_mut(2..4) {
                field.copy_from_slice(&sum.to_be_bytes());
            }
        }
    }

    /// Reads one packet as `kind` of socket delivers it.
    pub(crate) fn parse(&self, family: Family, kind: SocketKind, packet: &[u8]) -> Parsed {
        let icmp = match (family, kind) {
            // Raw IPv4 sockets deliver the IP header too; its length is in the low half of the first byte.
            (Family::V4, SocketKind::Raw) => {
                let words = packet.first().map_or(0, |byte| usize::from(byte & 0x0f));
                match packet.get(words * 4..) {
                    Some(icmp) if words >= 5 => icmp,
                    _ => return Parsed::Other,
                }
            }
            _ => packet,
        };
        match icmp.first() {
            Some(first) if *first == family.types().1 => {}
            _ => return Parsed::Other,
        }
        // Raw sockets get packets before the kernel has checked ICMPv4's checksum.
        let intact = kind == SocketKind::Datagram || family == Family::V6 || checksum(icmp) == 0;
        let identifier = u16::from_be_bytes(array(icmp, 4).unwrap_or_default());
        // Datagram sockets have an identifier of the kernel's, checked there.
        let ours = kind == SocketKind::Datagram || identifier == self.identifier;
        match (array(icmp, HEADER).map(u64::from_be_bytes), array(icmp, HEADER + 8).map(u64::from_be_bytes)) {
            (Some(id), Some(cookie)) if intact && ours && cookie == self.cookie(id) => Parsed::Reply(id),
            _ => Parsed::Foreign,
        }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The Internet checksum (RFC 1071); 0 over a packet that contains its own.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reply_to(codec: &Codec, family: Family, kind: SocketKind, id: u64) -> Vec<u8> {
        let mut icmp = Vec::new();
        codec.request(family, id, &mut icmp);
        icmp[0] = family.types().1;
        icmp[2..4].fill(0);
        let sum = checksum(&icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        if family == Family::V4 && kind == SocketKind::Raw {
            // A header with one option word: 24 bytes.
            let mut packet = vec![0x46; 24];
            packet.append(&mut icmp);
            return packet;
        }
        icmp
    }

    #[test]
    fn the_checksum_of_the_rfc_1071_example_is_its_complement_sum() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00, "an odd last byte is padded with zero");
    }

    #[test]
    fn a_request_is_an_echo_request_with_a_valid_checksum_and_the_asked_size() {
        let codec = Codec::new(56);
        let mut out = Vec::new();
        codec.request(Family::V4, 0x1_0007, &mut out);
        assert_eq!((out.len(), out[0], out[1], checksum(&out)), (64, 8, 0, 0));
        assert_eq!(out[6..8], [0, 7], "the sequence is the number's low half");
        codec.request(Family::V6, 1, &mut out);
        assert_eq!((out[0], &out[2..4]), (128, &[0, 0][..]), "the kernel fills in ICMPv6's checksum");
    }

    #[test]
    fn numbers_that_share_a_sequence_are_told_apart() {
        let codec = Codec::new(56);
        for id in [5, 5 + 65_536, u64::MAX] {
            let packet = reply_to(&codec, Family::V4, SocketKind::Datagram, id);
            assert_eq!(codec.parse(Family::V4, SocketKind::Datagram, &packet), Parsed::Reply(id));
        }
    }

    #[test]
    fn own_requests_seen_by_a_raw_socket_are_no_replies() {
        let codec = Codec::new(56);
        let mut out = Vec::new();
        codec.request(Family::V6, 1, &mut out);
        assert_eq!(codec.parse(Family::V6, SocketKind::Raw, &out), Parsed::Other);
        codec.request(Family::V4, 1, &mut out);
        let packet = [vec![0x45; 20], out].concat();
        assert_eq!(codec.parse(Family::V4, SocketKind::Raw, &packet), Parsed::Other);
    }

    #[test]
    fn replies_to_another_process_are_foreign() {
        let (ours, theirs) = (Codec::new(56), Codec::new(56));
        for kind in [SocketKind::Raw, SocketKind::Datagram] {
            for family in Family::BOTH {
                let packet = reply_to(&theirs, family, kind, 1);
                assert_eq!(ours.parse(family, kind, &packet), Parsed::Foreign);
            }
        }
    }

    #[test]
    fn a_damaged_reply_on_a_raw_socket_is_foreign_even_where_the_cookie_is_whole() {
        let codec = Codec::new(56);
        let mut packet = reply_to(&codec, Family::V4, SocketKind::Raw, 1);
        let last = packet.len() - 1;
        packet[last] ^= 1;
        assert_eq!(codec.parse(Family::V4, SocketKind::Raw, &packet), Parsed::Foreign);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic_and_never_as_ours(
            bytes in proptest::collection::vec(any::<u8>(), 0..80), raw: bool, v6: bool
        ) {
            let kind = if raw { SocketKind::Raw } else { SocketKind::Datagram };
            let family = if v6 { Family::V6 } else { Family::V4 };
            prop_assert!(!matches!(Codec::new(56).parse(family, kind, &bytes), Parsed::Reply(_)));
        }

        #[test]
        fn every_reply_parses_as_its_number_and_a_changed_payload_does_not(
            id: u64, raw: bool, v6: bool, payload in 0usize..200, byte in 0usize..16, change in 1u8..
        ) {
            let kind = if raw { SocketKind::Raw } else { SocketKind::Datagram };
            let family = if v6 { Family::V6 } else { Family::V4 };
            let codec = Codec::new(payload);
            let mut packet = reply_to(&codec, family, kind, id);
            prop_assert_eq!(codec.parse(family, kind, &packet), Parsed::Reply(id));
            let start = if !v6 && raw { 24 } else { 0 };
            packet[start + HEADER + byte] ^= change;
            prop_assert_eq!(codec.parse(family, kind, &packet), Parsed::Foreign);
        }
    }
}
