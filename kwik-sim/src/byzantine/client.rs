//! What a client may do to its primary.

use std::time::Duration;

use bytes::Bytes;
use kwik_core::__test_exports::{
    Frame, GrantStatus, GrantStatusFrame, Hello, PathStatus, RawForward, RawStatus, SignedPayload, WirePathState,
    hello_proof,
};
use kwik_core::{ErrorCode, GrantId, PathId, TransportCode};

use super::behaviour::{Cost, FLOOD, Row, VIOLATION, When};
use super::stage::{Stage, frame, params, varint};

const REFUSED: Cost = Cost::Code(TransportCode::AUTH_FAILED);
const LATE: Cost = Cost::Code(TransportCode::AUTH_TIMEOUT);
const CODE: ErrorCode = ErrorCode::Transport(TransportCode::NO_ERROR);

pub(super) const ROWS: &[Row] = &[
    ("HELLO with a weak key", When::First, REFUSED, |stage| hello(stage, |hello| hello.client_key = [0; 32])),
    ("HELLO with a key that is none", When::First, REFUSED, |stage| {
        hello(stage, |hello| hello.client_key = [0xff; 32])
    }),
    ("HELLO with a key of somebody else", When::First, REFUSED, |stage| {
        let other = *kwik_core::Identity::from_seed([0x7e; 32]).public().as_bytes();
        let Frame::Hello(hello) = plain_hello(stage) else { return false };
        stage.say(Hello { client_key: other, ..hello });
        false
    }),
    ("HELLO of another version", When::First, Cost::Code(TransportCode::VERSION), |stage| {
        hello(stage, |hello| hello.version = 2)
    }),
    ("HELLO with parameters below the floor", When::First, VIOLATION, |stage| {
        hello(stage, |hello| hello.params.streams_bidi = 0)
    }),
    ("HELLO with a credential that is too long", When::First, VIOLATION, |stage| {
        let Frame::Hello(hello) = plain_hello(stage) else { return false };
        let bytes = Frame::from(Hello { credential: Bytes::from(vec![0; 4096]), ..hello }).encode();
        // The length of the credential is the two bytes before it, the body's are the second to third.
        let mut bytes = [&bytes[..], &[0]].concat();
        let (body, credential) = (bytes.len() - 4 - 1, bytes.len() - 4097 - 2);
        bytes[credential..credential + 2].copy_from_slice(&varint(4097));
        bytes[1..3].copy_from_slice(&varint(body as u64 + 2)[..2]);
        stage.control(&bytes);
        false
    }),
    ("another frame instead of HELLO", When::First, VIOLATION, |stage| status(stage, PathId(1), WirePathState::Active)),
    ("no HELLO", When::First, LATE, |_| false),
    ("HELLO one byte at a time", When::First, LATE, |stage| {
        let bytes = plain_hello(stage).encode();
        if let Some(byte) = bytes.get(stage.tick as usize / 20).filter(|_| stage.tick.is_multiple_of(20)) {
            stage.control(&[*byte]);
        }
        stage.tick < 2000
    }),
    ("data instead of HELLO", When::First, LATE, |stage| {
        let filler = frame(0x1f2a, &[0; 4000]);
        (0..50).for_each(|_| stage.packet(&filler));
        stage.tick < 200
    }),
    ("a giant frame instead of HELLO", When::First, Cost::Code(TransportCode::FRAME_TOO_LARGE), |stage| {
        stage.control(&[varint(1), varint((1 << 62) - 1)].concat());
        false
    }),
    ("HELLO twice", When::Welcomed, VIOLATION, |stage| hello(stage, |_| ())),
    ("more delivered than granted", When::Granted, VIOLATION, |stage| {
        let Some(grant) = stage.shared.granted.first() else { return false };
        let delivered = grant.len + 1;
        told(stage, GrantStatus::Progress { delivered })
    }),
    ("less delivered than before", When::Granted, VIOLATION, |stage| {
        told(stage, GrantStatus::Progress { delivered: 5 });
        told(stage, GrantStatus::Progress { delivered: 4 })
    }),
    ("the same progress again and again", When::Granted, FLOOD, |stage| {
        (0..100).for_each(|_| {
            told(stage, GrantStatus::Progress { delivered: 5 });
        });
        stage.tick < 100
    }),
    ("delivered twice", When::Granted, VIOLATION, |stage| {
        told(stage, GrantStatus::Delivered);
        told(stage, GrantStatus::Delivered)
    }),
    ("delivered, which is a lie", When::Granted, Cost::Nothing, |stage| told(stage, GrantStatus::Delivered)),
    ("missing what was never granted", When::Granted, VIOLATION, |stage| {
        let missing = std::iter::once((1 << 61)..(1 << 61) + 5).collect();
        told(stage, GrantStatus::Lost { code: CODE, missing })
    }),
    ("a status of a grant that nobody gave", When::Welcomed, VIOLATION, |stage| {
        stage.say(GrantStatusFrame { grant: GrantId(777), status: GrantStatus::Delivered });
        false
    }),
    ("a status of a path that nobody added", When::Welcomed, VIOLATION, |stage| {
        status(stage, PathId(99), WirePathState::Active)
    }),
    ("a path that flaps", When::Granted, FLOOD, |stage| {
        for _ in 0..50 {
            status(stage, PathId(1), WirePathState::Suspect);
            status(stage, PathId(1), WirePathState::Active);
        }
        stage.tick < 100
    }),
    ("the same status again and again", When::Welcomed, FLOOD, |stage| {
        (0..100).for_each(|_| {
            status(stage, PathId::PRIMARY, WirePathState::Active);
        });
        stage.tick < 100
    }),
    ("a path dead and alive again", When::Granted, Cost::Nothing, |stage| {
        status(stage, PathId(1), WirePathState::Dead);
        status(stage, PathId(1), WirePathState::Active)
    }),
    ("figures beyond belief", When::Granted, Cost::Nothing, |stage| {
        let (path, state, code) = (PathId(1), WirePathState::Active, CODE);
        let (rtt, rate, bytes) = (Duration::from_secs(1 << 40), (1 << 62) - 1, (1 << 62) - 1);
        stage.say(PathStatus { path, state, code, rtt, rate, bytes });
        false
    }),
    ("receipts for packets nobody sent", When::Welcomed, FLOOD, |stage| {
        (0..100).for_each(|sequence| {
            stage.say(RawStatus { from: PathId::PRIMARY, to: PathId(1), sequence, code: CODE });
        });
        stage.tick < 100
    }),
    ("a raw packet that nobody signed", When::Granted, Cost::Nothing, |stage| {
        let signed = SignedPayload { sequence: 0, payload: Bytes::from_static(b"obey"), signature: [0; 64] };
        let bytes = RawForward { from: PathId(1), forwarded_ticket: Bytes::new(), signed }.encode();
        stage.packet(&bytes);
        false
    }),
    ("raw packets that nobody signed, the answers unread", When::Granted, FLOOD, |stage| {
        stage.link.deaf = true;
        for sequence in 0..100 {
            let signed = SignedPayload { sequence, payload: Bytes::new(), signature: [0; 64] };
            let bytes = RawForward { from: PathId(1), forwarded_ticket: Bytes::new(), signed }.encode();
            stage.packet(&bytes);
        }
        stage.tick < 200
    }),
];

/// HELLO as an honest client sends it.
pub(super) fn plain_hello(stage: &Stage<'_>) -> Frame {
    let client_key = *stage.key.public().as_bytes();
    let proof = hello_proof(stage.key, &stage.scene.exporter);
    Hello { version: 1, params: params(), client_key, proof, credential: Bytes::new() }.into()
}

fn hello(stage: &mut Stage<'_>, change: fn(&mut Hello)) -> bool {
    if let Frame::Hello(mut hello) = plain_hello(stage) {
        change(&mut hello);
        stage.say(hello);
    }
    false
}

fn told(stage: &mut Stage<'_>, status: GrantStatus) -> bool {
    let Some(grant) = stage.shared.granted.first().map(|grant| grant.grant) else { return false };
    stage.say(GrantStatusFrame { grant, status });
    false
}

fn status(stage: &mut Stage<'_>, path: PathId, state: WirePathState) -> bool {
    stage.say(PathStatus { path, state, code: CODE, rtt: Duration::from_millis(1), rate: 1, bytes: 1 });
    false
}
