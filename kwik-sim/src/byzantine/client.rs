//! What a client may do to its primary.

use std::time::Duration;

use bytes::Bytes;
use kwik_core::__test_exports::{
    Frame, GrantStatus, GrantStatusFrame, Hello, PathStatus, RawForward, RawStatus, SignedPayload, WirePathState,
    hello_proof,
};
use kwik_core::{ErrorCode, GrantId, PathId, TransportCode};

use super::behaviour::{BehaviourRow, Cost, FLOOD, VIOLATION, When};
use super::peer::{PeerContext, frame, params, varint};

const REFUSED: Cost = Cost::Code(TransportCode::AUTH_FAILED);
const LATE: Cost = Cost::Code(TransportCode::AUTH_TIMEOUT);
const CODE: ErrorCode = ErrorCode::Transport(TransportCode::NO_ERROR);

pub(super) const BEHAVIOURS: &[BehaviourRow] = &[
    ("HELLO with a weak key", When::First, REFUSED, |peer| hello(peer, |hello| hello.client_key = [0; 32])),
    ("HELLO with a key that is none", When::First, REFUSED, |peer| hello(peer, |hello| hello.client_key = [0xff; 32])),
    ("HELLO with a key of somebody else", When::First, REFUSED, |peer| {
        let other = *kwik_core::Identity::from_seed([0x7e; 32]).public().as_bytes();
        let Frame::Hello(hello) = plain_hello(peer) else { return false };
        peer.say(Hello { client_key: other, ..hello });
        false
    }),
    ("HELLO of another version", When::First, Cost::Code(TransportCode::VERSION), |peer| {
        hello(peer, |hello| hello.version = 2)
    }),
    ("HELLO with parameters below the floor", When::First, VIOLATION, |peer| {
        hello(peer, |hello| hello.params.streams_bidi = 0)
    }),
    ("HELLO with a credential that is too long", When::First, VIOLATION, |peer| {
        let Frame::Hello(hello) = plain_hello(peer) else { return false };
        let bytes = Frame::from(Hello { credential: Bytes::from(vec![0; 4096]), ..hello }).encode();
        // The length of the credential is the two bytes before it, the body's are the second to third.
        let mut bytes = [&bytes[..], &[0]].concat();
        let (body, credential) = (bytes.len() - 4 - 1, bytes.len() - 4097 - 2);
        bytes[credential..credential + 2].copy_from_slice(&varint(4097));
        bytes[1..3].copy_from_slice(&varint(body as u64 + 2)[..2]);
        peer.control(&bytes);
        false
    }),
    ("another frame instead of HELLO", When::First, VIOLATION, |peer| status(peer, PathId(1), WirePathState::Active)),
    ("no HELLO", When::First, LATE, |_| false),
    ("HELLO one byte at a time", When::First, LATE, |peer| {
        let bytes = plain_hello(peer).encode();
        if let Some(byte) = bytes.get(peer.tick as usize / 20).filter(|_| peer.tick.is_multiple_of(20)) {
            peer.control(&[*byte]);
        }
        peer.tick < 2000
    }),
    ("data instead of HELLO", When::First, LATE, |peer| {
        let filler = frame(0x1f2a, &[0; 4000]);
        (0..50).for_each(|_| peer.packet(&filler));
        peer.tick < 200
    }),
    ("a giant frame instead of HELLO", When::First, Cost::Code(TransportCode::FRAME_TOO_LARGE), |peer| {
        peer.control(&[varint(1), varint((1 << 62) - 1)].concat());
        false
    }),
    ("HELLO twice", When::Welcomed, VIOLATION, |peer| hello(peer, |_| ())),
    ("more delivered than granted", When::Granted, VIOLATION, |peer| {
        let Some(grant) = peer.knowledge.granted.first() else { return false };
        let delivered = grant.len + 1;
        grant_status(peer, GrantStatus::Progress { delivered })
    }),
    ("less delivered than before", When::Granted, VIOLATION, |peer| {
        grant_status(peer, GrantStatus::Progress { delivered: 5 });
        grant_status(peer, GrantStatus::Progress { delivered: 4 })
    }),
    ("the same progress again and again", When::Granted, FLOOD, |peer| {
        (0..100).for_each(|_| {
            grant_status(peer, GrantStatus::Progress { delivered: 5 });
        });
        peer.tick < 100
    }),
    ("delivered twice", When::Granted, VIOLATION, |peer| {
        grant_status(peer, GrantStatus::Delivered);
        grant_status(peer, GrantStatus::Delivered)
    }),
    ("delivered, which is a lie", When::Granted, Cost::Nothing, |peer| grant_status(peer, GrantStatus::Delivered)),
    ("missing what was never granted", When::Granted, VIOLATION, |peer| {
        let missing = std::iter::once((1 << 61)..(1 << 61) + 5).collect();
        grant_status(peer, GrantStatus::Lost { code: CODE, missing })
    }),
    ("a status of a grant that nobody gave", When::Welcomed, VIOLATION, |peer| {
        peer.say(GrantStatusFrame { grant: GrantId(777), status: GrantStatus::Delivered });
        false
    }),
    ("a status of a path that nobody added", When::Welcomed, VIOLATION, |peer| {
        status(peer, PathId(99), WirePathState::Active)
    }),
    ("a path that flaps", When::Granted, FLOOD, |peer| {
        for _ in 0..50 {
            status(peer, PathId(1), WirePathState::Suspect);
            status(peer, PathId(1), WirePathState::Active);
        }
        peer.tick < 100
    }),
    ("the same status again and again", When::Welcomed, FLOOD, |peer| {
        (0..100).for_each(|_| {
            status(peer, PathId::PRIMARY, WirePathState::Active);
        });
        peer.tick < 100
    }),
    ("a path dead and alive again", When::Granted, Cost::Nothing, |peer| {
        status(peer, PathId(1), WirePathState::Dead);
        status(peer, PathId(1), WirePathState::Active)
    }),
    ("figures beyond belief", When::Granted, Cost::Nothing, |peer| {
        let (path, state, code) = (PathId(1), WirePathState::Active, CODE);
        let (rtt, rate, bytes) = (Duration::from_secs(1 << 40), (1 << 62) - 1, (1 << 62) - 1);
        peer.say(PathStatus { path, state, code, rtt, rtt_min: rtt, rate, bytes });
        false
    }),
    ("receipts for packets nobody sent", When::Welcomed, FLOOD, |peer| {
        (0..100).for_each(|sequence| {
            peer.say(RawStatus { from: PathId::PRIMARY, to: PathId(1), sequence, code: CODE });
        });
        peer.tick < 100
    }),
    ("a raw packet that nobody signed", When::Granted, Cost::Nothing, |peer| {
        let signed = SignedPayload { sequence: 0, payload: Bytes::from_static(b"obey"), signature: [0; 64] };
        let bytes = RawForward { from: PathId(1), forwarded_ticket: Bytes::new(), signed }.encode();
        peer.packet(&bytes);
        false
    }),
    ("raw packets that nobody signed, the answers unread", When::Granted, FLOOD, |peer| {
        peer.connection.deaf = true;
        for sequence in 0..100 {
            let signed = SignedPayload { sequence, payload: Bytes::new(), signature: [0; 64] };
            let bytes = RawForward { from: PathId(1), forwarded_ticket: Bytes::new(), signed }.encode();
            peer.packet(&bytes);
        }
        peer.tick < 200
    }),
];

/// HELLO as an honest client sends it.
pub(super) fn plain_hello(peer: &PeerContext<'_>) -> Frame {
    let client_key = *peer.key.public().as_bytes();
    let proof = hello_proof(peer.key, &peer.state.exporter);
    Hello { version: 1, params: params(), client_key, proof, credential: Bytes::new() }.into()
}

fn hello(peer: &mut PeerContext<'_>, change: fn(&mut Hello)) -> bool {
    if let Frame::Hello(mut hello) = plain_hello(peer) {
        change(&mut hello);
        peer.say(hello);
    }
    false
}

fn grant_status(peer: &mut PeerContext<'_>, status: GrantStatus) -> bool {
    let Some(grant) = peer.knowledge.granted.first().map(|grant| grant.grant) else { return false };
    peer.say(GrantStatusFrame { grant, status });
    false
}

fn status(peer: &mut PeerContext<'_>, path: PathId, state: WirePathState) -> bool {
    let rtt = Duration::from_millis(1);
    peer.say(PathStatus { path, state, code: CODE, rtt, rtt_min: rtt, rate: 1, bytes: 1 });
    false
}
