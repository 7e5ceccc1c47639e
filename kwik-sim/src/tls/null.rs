//! No cryptography: a handshake in the clear that carries the transport parameters, and packets with a checksum.
//!
//! The flights are those of TLS 1.3: hello, hello, the server's parameters, finished. Every packet has a tag as long as
//! that of AES-GCM, which covers key, packet number, header and payload: what TLS would not accept, this does not.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use quinn_proto::crypto::rustls::HandshakeData;
use quinn_proto::crypto::{
    self, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError, TransportErrorCode};

use crate::rng::{SimRng, finish};

/// A client without TLS.
pub(crate) struct NullClient {
    entropy: Mutex<SimRng>,
}

impl NullClient {
    pub(crate) fn new(entropy: SimRng) -> Self {
        Self { entropy: Mutex::new(entropy) }
    }
}

impl crypto::ClientConfig for NullClient {
    fn start_session(
        self: Arc<Self>,
        _version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        let step = HandshakeStep::SendClientHello;
        Ok(Box::new(NullSession::new(Side::Client, step, server_name, &self.entropy, params)))
    }
}

/// A server without TLS that calls itself by one name.
pub(crate) struct NullServer {
    name: String,
    entropy: Mutex<SimRng>,
}

impl NullServer {
    pub(crate) fn new(name: &str, entropy: SimRng) -> Self {
        Self { name: name.to_owned(), entropy: Mutex::new(entropy) }
    }
}

impl crypto::ServerConfig for NullServer {
    fn initial_keys(&self, _version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        Ok(initial_keys(dst_cid, Side::Server))
    }

    fn retry_tag(&self, _version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        retry_tag(orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, _version: u32, params: &TransportParameters) -> Box<dyn crypto::Session> {
        let step = HandshakeStep::AwaitClientHello;
        Box::new(NullSession::new(Side::Server, step, &self.name, &self.entropy, params))
    }
}

/// What a session does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HandshakeStep {
    SendClientHello,
    AwaitServerHello,
    TakeHandshakeKeys,
    AwaitServerParams,
    SendFinished,
    AwaitClientHello,
    SendServerHello,
    SendServerParams,
    AwaitFinished,
    Done,
}

struct NullSession {
    side: Side,
    step: HandshakeStep,
    /// The server's name: as wanted by the client, as given by the server.
    name: String,
    random: [u8; 32],
    params: Vec<u8>,
    peer_params: Option<TransportParameters>,
    /// Follows from both hellos.
    secret: u64,
    generation: u64,
    /// Handshake bytes that are no whole message yet.
    inbox: Vec<u8>,
}

impl NullSession {
    fn new(side: Side, step: HandshakeStep, name: &str, entropy: &Mutex<SimRng>, params: &TransportParameters) -> Self {
        let random = entropy.lock().unwrap_or_else(PoisonError::into_inner).seed();
        let mut encoded = Vec::new();
        params.write(&mut encoded);
        Self {
            side,
            step,
            name: name.to_owned(),
            random,
            params: encoded,
            peer_params: None,
            secret: 0,
            generation: 0,
            inbox: Vec::new(),
        }
    }

    /// Takes one message; returns whether the peer's parameters became known.
    fn on_message(&mut self, message: &[u8]) -> Result<bool, TransportError> {
        match self.step {
            HandshakeStep::AwaitClientHello => {
                let (random, rest) = split(message, 32)?;
                let (_, params) = split_prefixed(rest)?;
                self.read_params(params)?;
                self.secret = agree(random, &self.random);
                self.step = HandshakeStep::SendServerHello;
                Ok(true)
            }
            HandshakeStep::AwaitServerHello => {
                let (random, _) = split(message, 32)?;
                self.secret = agree(&self.random, random);
                self.step = HandshakeStep::TakeHandshakeKeys;
                Ok(false)
            }
            HandshakeStep::AwaitServerParams => {
                let (name, params) = split_prefixed(message)?;
                if name != self.name.as_bytes() {
                    return Err(error(
                        TransportErrorCode::crypto(ALERT_BAD_CERTIFICATE),
                        "the server has another name",
                    ));
                }
                self.read_params(params)?;
                self.step = HandshakeStep::SendFinished;
                Ok(true)
            }
            HandshakeStep::AwaitFinished if message == self.secret.to_le_bytes() => {
                self.step = HandshakeStep::Done;
                Ok(false)
            }
            _ => Err(violation("a handshake message nobody waits for")),
        }
    }

    fn read_params(&mut self, mut params: &[u8]) -> Result<(), TransportError> {
        self.peer_params = Some(TransportParameters::read(self.side, &mut params)?);
        Ok(())
    }

    fn keys(&self, level: u64) -> Keys {
        let key = |side: Side| NullKey(finish(self.secret ^ (level << 8) ^ u64::from(side.is_client())));
        keys(key(self.side), key(!self.side))
    }
}

const ALERT_BAD_CERTIFICATE: u8 = 42;

/// Key levels of a session, below its generations.
const HANDSHAKE: u64 = 1;
const ONE_RTT: u64 = 2;

impl crypto::Session for NullSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.peer_params.as_ref()?;
        let server_name = self.side.is_server().then(|| self.name.clone());
        Some(Box::new(HandshakeData { protocol: Some(kwik_core::ALPN.to_vec()), server_name }))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.side.is_client().then_some(false)
    }

    fn is_handshaking(&self) -> bool {
        self.step != HandshakeStep::Done
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.inbox.extend_from_slice(buf);
        let mut learned = false;
        while let Some(len) = self.inbox.first_chunk::<2>().map(|len| usize::from(u16::from_be_bytes(*len)) + 2) {
            if self.inbox.len() < len {
                break;
            }
            let rest = self.inbox.split_off(len);
            let message = std::mem::replace(&mut self.inbox, rest);
            learned |= self.on_message(&message[2..])?;
        }
        Ok(learned)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        Ok(self.peer_params)
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        match self.step {
            HandshakeStep::SendClientHello => {
                write_message(buf, &[&self.random, &prefixed(&self.name), &self.params]);
                self.step = HandshakeStep::AwaitServerHello;
                None
            }
            HandshakeStep::TakeHandshakeKeys => {
                self.step = HandshakeStep::AwaitServerParams;
                Some(self.keys(HANDSHAKE))
            }
            HandshakeStep::SendFinished => {
                write_message(buf, &[&self.secret.to_le_bytes()]);
                self.step = HandshakeStep::Done;
                Some(self.keys(ONE_RTT))
            }
            HandshakeStep::SendServerHello => {
                write_message(buf, &[&self.random]);
                self.step = HandshakeStep::SendServerParams;
                Some(self.keys(HANDSHAKE))
            }
            HandshakeStep::SendServerParams => {
                write_message(buf, &[&prefixed(&self.name), &self.params]);
                self.step = HandshakeStep::AwaitFinished;
                Some(self.keys(ONE_RTT))
            }
            HandshakeStep::AwaitServerHello
            | HandshakeStep::AwaitServerParams
            | HandshakeStep::AwaitClientHello
            | HandshakeStep::AwaitFinished
            | HandshakeStep::Done => None,
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.generation += 1;
        Some(self.keys(ONE_RTT + self.generation).packet)
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        let Some((body, tag)) = payload.split_last_chunk::<16>() else { return false };
        *tag == retry_tag(orig_dst_cid, &[header, body].concat())
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        SimRng::new(self.secret, &[sum(label), sum(context)]).fill(output);
        Ok(())
    }
}

fn write_message(buf: &mut Vec<u8>, parts: &[&[u8]]) {
    let body = parts.concat();
    let len = u16::try_from(body.len()).expect("names and transport parameters are short");
    buf.extend_from_slice(&len.to_be_bytes());
    buf.extend_from_slice(&body);
}

fn prefixed(name: &str) -> Vec<u8> {
    let len = u8::try_from(name.len()).expect("names have at most 255 bytes");
    [&[len], name.as_bytes()].concat()
}

fn split(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), TransportError> {
    bytes.split_at_checked(at).ok_or_else(|| violation("a short handshake message"))
}

fn split_prefixed(bytes: &[u8]) -> Result<(&[u8], &[u8]), TransportError> {
    let (len, rest) = split(bytes, 1)?;
    split(rest, usize::from(len[0]))
}

fn violation(reason: &str) -> TransportError {
    error(TransportErrorCode::PROTOCOL_VIOLATION, reason)
}

fn error(code: TransportErrorCode, reason: &str) -> TransportError {
    let mut error = TransportError::from(code);
    reason.clone_into(&mut error.reason);
    error
}

/// What both ends know after the hellos.
fn agree(client: &[u8], server: &[u8]) -> u64 {
    finish(sum(client) ^ sum(server).rotate_left(32))
}

fn initial_keys(dst_cid: &ConnectionId, side: Side) -> Keys {
    let key = |side: Side| NullKey(finish(sum(dst_cid) ^ u64::from(side.is_client())));
    keys(key(side), key(!side))
}

fn keys(local: NullKey, remote: NullKey) -> Keys {
    Keys {
        header: KeyPair { local: Box::new(NoMask), remote: Box::new(NoMask) },
        packet: KeyPair { local: Box::new(local), remote: Box::new(remote) },
    }
}

fn retry_tag(orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
    NullKey(sum(orig_dst_cid)).tag(0, packet, &[])
}

/// Length of AES-GCM's tag in bytes.
const TAG_BYTES: usize = 16;

struct NullKey(u64);

impl NullKey {
    fn tag(&self, packet: u64, header: &[u8], payload: &[u8]) -> [u8; TAG_BYTES] {
        let first = finish(self.0 ^ finish(packet) ^ sum(header).rotate_left(17) ^ sum(payload));
        let mut tag = [0; TAG_BYTES];
        tag[..8].copy_from_slice(&first.to_le_bytes());
        tag[8..].copy_from_slice(&finish(first).to_le_bytes());
        tag
    }
}

impl PacketKey for NullKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        let (header, rest) = buf.split_at_mut(header_len);
        let (payload, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
        tag.copy_from_slice(&self.tag(packet, header, payload));
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        let (body, tag) = payload.split_last_chunk::<TAG_BYTES>().ok_or(CryptoError)?;
        if *tag != self.tag(packet, header, body) {
            return Err(CryptoError);
        }
        let len = body.len();
        payload.truncate(len);
        Ok(())
    }

    fn tag_len(&self) -> usize {
        TAG_BYTES
    }

    fn confidentiality_limit(&self) -> u64 {
        u64::MAX
    }

    fn integrity_limit(&self) -> u64 {
        u64::MAX
    }
}

/// Headers stay as they are; packets have the least length that TLS asks for all the same.
struct NoMask;

impl HeaderKey for NoMask {
    fn decrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}

    fn encrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}

    fn sample_size(&self) -> usize {
        16
    }
}

/// Fletcher's checksum on four lanes of eight bytes, which compilers make into vector instructions.
fn sum(bytes: &[u8]) -> u64 {
    let mut plain = [0_u64; 4];
    let mut weighted = [0_u64; 4];
    let mut add = |block: &[u8; 32]| {
        let (words, _) = block.as_chunks::<8>();
        for lane in 0..4 {
            plain[lane] = plain[lane].wrapping_add(u64::from_le_bytes(words[lane]));
            weighted[lane] = weighted[lane].wrapping_add(plain[lane]);
        }
    };
    let (blocks, rest) = bytes.as_chunks::<32>();
    blocks.iter().for_each(&mut add);
    let mut last = [0; 32];
    last[..rest.len()].copy_from_slice(rest);
    add(&last);
    let words = plain.into_iter().chain(weighted);
    words.fold(bytes.len() as u64, |hash, word| (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> Vec<u8> {
        let mut packet = vec![7; 100];
        NullKey(1).encrypt(5, &mut packet, 20);
        packet
    }

    fn opens(key: u64, number: u64, packet: &[u8]) -> bool {
        let mut payload = BytesMut::from(&packet[20..]);
        NullKey(key).decrypt(number, &packet[..20], &mut payload).is_ok()
    }

    #[test]
    fn only_the_packet_itself_opens() {
        let packet = signed();
        assert!(opens(1, 5, &packet));
        assert!(!opens(2, 5, &packet), "another key");
        assert!(!opens(1, 6, &packet), "another number");
        for bit in 0..packet.len() * 8 {
            let mut wrong = packet.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(1, 5, &wrong), "bit {bit}");
        }
        assert!(!opens(1, 5, &packet[..30]), "no room for a tag");
    }

    #[test]
    fn checksum_sees_order_and_length() {
        assert_ne!(sum(&[1, 2]), sum(&[2, 1]));
        assert_ne!(sum(&[0; 5]), sum(&[0; 6]));
        let mut long = [0; 64];
        long[0] = 1;
        let first = sum(&long);
        long.swap(0, 32);
        assert_ne!(first, sum(&long));
    }
}
