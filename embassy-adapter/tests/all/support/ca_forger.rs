//! The server's side of TLS 1.3 taken apart, for servers that do what no honest one does.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes128Gcm, Key};
use grafolean_embassy::tls::rand_core;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use p256::ecdh::EphemeralSecret;
use p256::{EncodedPoint, PublicKey};
use rcgen::SigningKey;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use crate::ca::Identity;

pub const HANDSHAKE: u8 = 22;
pub const APPLICATION_DATA: u8 = 23;

pub const ENCRYPTED_EXTENSIONS: u8 = 8;
pub const CERTIFICATE: u8 = 11;
pub const CERTIFICATE_REQUEST: u8 = 13;
pub const CERTIFICATE_VERIFY: u8 = 15;
pub const FINISHED: u8 = 20;

/// Keys of one direction.
struct Keys {
    cipher: Aes128Gcm,
    iv: [u8; 12],
    sequence: u64,
}

pub struct Forger {
    pub tcp: TcpStream,
    transcript: Sha256,
    handshake: [u8; 32],
    server: [u8; 32],
    keys: Keys,
}

fn expand(secret: &[u8; 32], label: &str, context: &[u8], out: &mut [u8]) {
    let mut info = (out.len() as u16).to_be_bytes().to_vec();
    info.push(6 + label.len() as u8);
    info.extend(b"tls13 ");
    info.extend(label.as_bytes());
    info.push(context.len() as u8);
    info.extend(context);
    Hkdf::<Sha256>::from_prk(secret).unwrap().expand(&info, out).unwrap();
}

fn derive(secret: &[u8; 32], label: &str, transcript: &Sha256) -> [u8; 32] {
    let mut out = [0; 32];
    expand(secret, label, &transcript.clone().finalize(), &mut out);
    out
}

fn extract(salt: &[u8; 32], secret: &[u8]) -> [u8; 32] {
    Hkdf::<Sha256>::extract(Some(salt), secret).0.into()
}

impl Keys {
    fn new(secret: &[u8; 32]) -> Self {
        let (mut key, mut iv) = ([0; 16], [0; 12]);
        expand(secret, "key", &[], &mut key);
        expand(secret, "iv", &[], &mut iv);
        Keys { cipher: Aes128Gcm::new(&Key::<Aes128Gcm>::from(key)), iv, sequence: 0 }
    }
}

/// A handshake message.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend(body);
    message
}

fn with_u16_len(body: &[u8]) -> Vec<u8> {
    let mut out = (body.len() as u16).to_be_bytes().to_vec();
    out.extend(body);
    out
}

pub fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 3, 3];
    record.extend(with_u16_len(body));
    record
}

impl Forger {
    /// Answers the client's hello.
    pub fn accept(mut tcp: TcpStream, rng: &mut impl rand_core::CryptoRngCore) -> Self {
        let mut header = [0; 5];
        tcp.read_exact(&mut header).unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        tcp.read_exact(&mut hello).unwrap();
        let mut transcript = Sha256::new_with_prefix(&hello);
        let share = hello.windows(4).position(|w| w == [0, 0x17, 0, 65]).unwrap() + 4;
        let client = PublicKey::from_sec1_bytes(&hello[share..share + 65]).unwrap();
        let secret = EphemeralSecret::random(rng);

        let mut body = vec![3, 3];
        body.extend([9; 32]);
        body.extend([0, 0x13, 0x01, 0]);
        let mut extensions = vec![0, 0x2b, 0, 2, 3, 4, 0, 0x33, 0, 69, 0, 0x17, 0, 65];
        extensions.extend(EncodedPoint::from(secret.public_key()).as_bytes());
        body.extend(with_u16_len(&extensions));
        let hello = message(2, &body);
        transcript.update(&hello);
        tcp.write_all(&record(HANDSHAKE, &hello)).unwrap();

        let early = extract(&[0; 32], &[0; 32]);
        let derived = derive(&early, "derived", &Sha256::new());
        let handshake = extract(&derived, secret.diffie_hellman(&client).raw_secret_bytes());
        let server = derive(&handshake, "s hs traffic", &transcript);
        Forger { tcp, transcript, handshake, server, keys: Keys::new(&server) }
    }

    /// Takes a message into the transcript.
    pub fn told(&mut self, message: Vec<u8>) -> Vec<u8> {
        self.transcript.update(&message);
        message
    }

    pub fn extensions(&mut self) -> Vec<u8> {
        self.told(message(ENCRYPTED_EXTENSIONS, &[0, 0]))
    }

    pub fn certificate(&mut self, chain: &[CertificateDer<'_>]) -> Vec<u8> {
        let mut list = Vec::new();
        for der in chain {
            let der = der.as_ref();
            list.extend(&(der.len() as u32).to_be_bytes()[1..]);
            list.extend(der);
            list.extend([0, 0]);
        }
        let mut body = vec![0];
        body.extend(&(list.len() as u32).to_be_bytes()[1..]);
        body.extend(list);
        self.told(message(CERTIFICATE, &body))
    }

    /// The proof that the server has this key.
    pub fn verify(&mut self, key: &impl SigningKey) -> Vec<u8> {
        let mut text = vec![b' '; 64];
        text.extend(b"TLS 1.3, server CertificateVerify\0");
        text.extend(self.transcript.clone().finalize());
        let mut body = vec![4, 3];
        body.extend(with_u16_len(&key.sign(&text).unwrap()));
        self.told(message(CERTIFICATE_VERIFY, &body))
    }

    pub fn finished(&mut self) -> Vec<u8> {
        let mut key = [0; 32];
        expand(&self.server, "finished", &[], &mut key);
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&key).unwrap();
        Mac::update(&mut mac, &self.transcript.clone().finalize());
        self.told(message(FINISHED, &mac.finalize().into_bytes()))
    }

    /// Sends a record with this inner plaintext, its type at the end.
    pub fn send(&mut self, inner: &[u8]) {
        let mut nonce = self.keys.iv;
        for (byte, n) in nonce[4..].iter_mut().zip(self.keys.sequence.to_be_bytes()) {
            *byte ^= n;
        }
        self.keys.sequence += 1;
        let mut body = inner.to_vec();
        let header = [APPLICATION_DATA, 3, 3];
        let len = ((body.len() + 16) as u16).to_be_bytes();
        let data = [header[0], header[1], header[2], len[0], len[1]];
        let tag = self.keys.cipher.encrypt_in_place_detached(&nonce.into(), &data, &mut body).unwrap();
        body.extend(tag);
        let _ = self.tcp.write_all(&record(APPLICATION_DATA, &body));
    }

    /// Sends handshake messages in one record.
    pub fn say(&mut self, messages: &[Vec<u8>]) {
        let mut inner = messages.concat();
        inner.push(HANDSHAKE);
        self.send(&inner);
    }

    /// The whole handshake of an honest server.
    pub fn honest(&mut self, identity: &Identity) -> Vec<Vec<u8>> {
        let (a, b) = (self.extensions(), self.certificate(&identity.chain));
        let (c, d) = (self.verify(&identity.key), self.finished());
        vec![a, b, c, d]
    }

    /// From here on the keys of an open connection.
    pub fn open(&mut self) {
        let derived = derive(&self.handshake, "derived", &Sha256::new());
        let master = extract(&derived, &[0; 32]);
        self.keys = Keys::new(&derive(&master, "s ap traffic", &self.transcript));
    }

    /// Application data in one record.
    pub fn tell(&mut self, text: &str) {
        let mut inner = text.as_bytes().to_vec();
        inner.push(APPLICATION_DATA);
        self.send(&inner);
    }

    /// Waits for so many records of the client.
    pub fn hear(&mut self, records: usize) {
        for _ in 0..records {
            let mut header = [0; 5];
            let _ = self.tcp.read_exact(&mut header);
            let mut body = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
            let _ = self.tcp.read_exact(&mut body);
        }
    }

    /// Waits until the client has closed; how many bytes it has sent.
    pub fn until_closed(mut self) -> usize {
        let mut rest = Vec::new();
        let _ = self.tcp.read_to_end(&mut rest);
        rest.len()
    }
}
