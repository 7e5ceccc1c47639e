//! What a server sends to a peer before the peer proved its address (RFC 9000 §8.1).

use std::collections::BTreeMap;

use crate::node::NodeId;

/// Bytes each node sent to and got from each peer that spoke to it first.
#[derive(Debug, Default)]
pub(crate) struct Amplification {
    proofs: BTreeMap<(NodeId, NodeId), AddressProof>,
    violations: Vec<String>,
}

#[derive(Debug)]
enum AddressProof {
    /// Nothing proves that the peer is where it says.
    Unproven { received: u64, sent: u64 },
    /// The node spoke first, or the peer proved an address.
    Proven,
}

impl Amplification {
    /// How many times what it received a server may send.
    const FACTOR: u64 = 3;
    /// One datagram may begin within that and end beyond: `quinn-proto` lets a datagram go while a byte of it is allowed.
    const DATAGRAM: u64 = 1472;

    pub(crate) fn on_received(&mut self, node: NodeId, from: NodeId, data: &[u8]) {
        let proof = self.proofs.entry((node, from)).or_insert(AddressProof::Unproven { received: 0, sent: 0 });
        if let AddressProof::Unproven { received, .. } = proof {
            *received += data.len() as u64;
            if has_proof(data) {
                *proof = AddressProof::Proven;
            }
        }
    }

    pub(crate) fn on_sent(&mut self, node: NodeId, to: NodeId, bytes: usize) {
        let AddressProof::Unproven { received, sent } = self.proofs.entry((node, to)).or_insert(AddressProof::Proven)
        else {
            return;
        };
        *sent += bytes as u64;
        if *sent > Self::FACTOR * *received + Self::DATAGRAM {
            self.violations.push(format!("{node} sent {sent} bytes to {to}, which sent {received} and proved nothing"));
        }
    }

    pub(crate) fn take_violations(&mut self) -> Vec<String> {
        std::mem::take(&mut self.violations)
    }
}

/// Whether a datagram holds a packet that only the owner of the address can have sent: one of a handshake that went
/// on, or later. In case of doubt it does; so where a client appears at another address is not judged.
fn has_proof(data: &[u8]) -> bool {
    /// Long header; two bits of type.
    const LONG: u8 = 0x80;
    const TYPE: u8 = 0x30;
    const INITIAL: u8 = 0x00;
    const ZERO_RTT: u8 = 0x10;
    let mut rest = data;
    while let Some(first) = rest.first().copied() {
        let kind = first & TYPE;
        // What is nothing but zeros after a packet is padding.
        if first == 0 && rest.len() < data.len() {
            return false;
        }
        if first & LONG == 0 || (kind != INITIAL && kind != ZERO_RTT) {
            return true;
        }
        let Some(next) = skip_packet(rest, kind == INITIAL) else { return false };
        rest = next;
    }
    false
}

/// What follows an Initial or 0-RTT packet in its datagram.
fn skip_packet(data: &[u8], has_token: bool) -> Option<&[u8]> {
    let rest = skip_short(data.get(5..)?)?;
    let rest = skip_short(rest)?;
    let rest = if has_token { skip_long(rest)? } else { rest };
    skip_long(rest)
}

/// Skips a byte with a length, and so many bytes.
fn skip_short(data: &[u8]) -> Option<&[u8]> {
    let (len, rest) = data.split_first()?;
    rest.get(usize::from(*len)..)
}

/// Skips a varint with a length, and so many bytes.
fn skip_long(data: &[u8]) -> Option<&[u8]> {
    let first = *data.first()?;
    let size = 1_usize << (first >> 6);
    let bytes = data.get(..size)?;
    let len = bytes.iter().skip(1).fold(u64::from(first & 0x3f), |len, byte| len << 8 | u64::from(*byte));
    data.get(size..)?.get(usize::try_from(len).ok()?..)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Initial with an empty token and 4 bytes of payload.
    const INITIAL: &[u8] = &[0xc0, 0, 0, 0, 1, 2, 9, 9, 1, 8, 0, 4, 1, 2, 3, 4];

    #[test]
    fn only_packets_after_the_initial_prove_an_address() {
        assert!(!has_proof(INITIAL));
        assert!(!has_proof(&[INITIAL, &[0; 100]].concat()));
        assert!(!has_proof(&[INITIAL, INITIAL].concat()));
        assert!(has_proof(&[INITIAL, &[0xe0, 0, 0, 0, 1]].concat()));
        assert!(has_proof(&[INITIAL, &[0x40, 1, 2]].concat()));
        assert!(has_proof(&[0x40, 1, 2]));
        assert!(has_proof(&[0x00, 1, 2]));
        assert!(!has_proof(&INITIAL[..9]));
    }

    #[test]
    fn the_fourth_part_is_too_much() {
        let (node, peer) = (NodeId(0), NodeId(7));
        let mut counts = Amplification::default();
        counts.on_received(node, peer, INITIAL);
        counts.on_sent(node, peer, 3 * INITIAL.len() + 1472);
        assert!(counts.take_violations().is_empty());
        counts.on_sent(node, peer, 1);
        assert_eq!(counts.take_violations().len(), 1);
        counts.on_received(node, peer, &[0x40]);
        counts.on_sent(node, peer, 10_000);
        counts.on_sent(NodeId(1), peer, 10_000);
        assert!(counts.take_violations().is_empty());
    }
}
