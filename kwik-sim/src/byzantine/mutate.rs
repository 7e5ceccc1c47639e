//! Frames drawn from the grammar, legal or not, and what becomes of their bytes by accident.

use bytes::Bytes;
use kwik_core::__test_exports::{
    AddPath, Close, Frame, Grant, GrantEnd, GrantOpen, GrantStatus, GrantStatusFrame, Hello, Join, Lease,
    MaxStreamData, MaxStreams, OpenStream, PacketAck, PathStatus, Raw, RawForward, RawStatus, RemovePath, ResetStream,
    Revoke, SignedPayload, StopSending, Welcome,
};
use kwik_core::{Dir, Epoch, ErrorCode, GrantId, PathId, StreamId, StreamOffset, TransportCode};
use rand::Rng;
use rand::seq::IndexedRandom;

use super::behaviour::{BehaviourRow, Cost, PeerRole, VIOLATION, When};
use super::peer::{PeerContext, any_state, frame, params, stream_frame, varint};

pub(super) const BEHAVIOURS: &[BehaviourRow] = &[
    ("a frame that this role may not send", When::Welcomed, VIOLATION, |peer| {
        let role = peer.state.role;
        let mut frames = samples(peer);
        frames.retain(|frame| !is_legal(role, frame));
        if let Some(frame) = frames.choose(peer.rng).cloned() {
            peer.say(frame);
        }
        false
    }),
    ("frames from the grammar", When::Welcomed, Cost::Anything, |peer| {
        for _ in 0..20 {
            let frames = samples(peer);
            if let Some(frame) = frames.choose(peer.rng).cloned() {
                peer.say(frame);
            }
            let frames = data_sample(peer);
            peer.packet(&frames);
        }
        peer.tick < 50
    }),
    ("frames from the grammar that this role may send", When::Welcomed, Cost::Anything, |peer| {
        let role = peer.state.role;
        for _ in 0..20 {
            let mut frames = samples(peer);
            frames.retain(|frame| is_legal(role, frame));
            if let Some(frame) = frames.choose(peer.rng).cloned() {
                peer.say(frame);
            }
        }
        peer.tick < 50
    }),
    ("frames with flipped bits", When::Welcomed, Cost::Anything, |peer| {
        let role = peer.state.role;
        let mut frames = samples(peer);
        frames.retain(|frame| is_legal(role, frame));
        if let Some(frame) = frames.choose(peer.rng).cloned() {
            let bytes = flipped(peer, frame.encode().to_vec());
            peer.control(&bytes);
        }
        let frames = data_sample(peer);
        let frames = flipped(peer, frames);
        peer.packet(&frames);
        peer.tick < 50
    }),
    ("frames cut short", When::Welcomed, Cost::Anything, |peer| {
        let frames = samples(peer);
        if let Some(frame) = frames.choose(peer.rng).cloned() {
            let bytes = frame.encode();
            let len = peer.rng.random_range(0..bytes.len());
            peer.control(&bytes[..len]);
        }
        peer.tick < 20
    }),
    ("random bytes", When::Welcomed, Cost::Anything, |peer| {
        let mut bytes = vec![0; 200];
        peer.rng.fill(&mut bytes[..]);
        peer.control(&bytes);
        peer.carry(&bytes);
        peer.tick < 10
    }),
];

/// One frame of each type, with numbers from the edges.
pub(super) fn samples(peer: &mut PeerContext<'_>) -> Vec<Frame> {
    let stream = any_stream(peer);
    let path = PathId(peer.rng.random_range(0..4));
    let (grant, epoch) = (GrantId(peer.edge()), Epoch(peer.edge()));
    let (code, offset, number) = (any_code(peer), StreamOffset(peer.edge()), peer.edge());
    let signed = SignedPayload { sequence: number, payload: Bytes::from_static(b"?"), signature: peer.rng.random() };
    let len = (peer.edge() / 4).max(1);
    let start = StreamOffset(offset.0.min((1 << 62) - 1 - len));
    let state = any_state(peer.rng);
    let dir = if peer.rng.random() { Dir::Bi } else { Dir::Uni };
    let status = match peer.rng.random_range(0..3) {
        0 => GrantStatus::Progress { delivered: number },
        1 => GrantStatus::Delivered,
        _ => GrantStatus::Lost { code, missing: std::iter::once(start.0..start.0 + len).collect() },
    };
    vec![
        Hello {
            version: number,
            params: params(),
            client_key: peer.rng.random(),
            proof: peer.rng.random(),
            credential: Bytes::new(),
        }
        .into(),
        Join { version: 1, params: params(), ticket: Bytes::from_static(&[1; 300]), proof: [1; 64] }.into(),
        Welcome {
            session: peer.session(),
            path,
            params: params(),
            identity: *peer.key.public().as_bytes(),
            signature: [1; 64],
        }
        .into(),
        AddPath {
            path,
            epoch,
            address: ([10, 9, 9, 9], peer.rng.random()).into(),
            server_name: "server.test".to_owned(),
            identity: *peer.key.public().as_bytes(),
            ticket: Bytes::new(),
        }
        .into(),
        RemovePath { path, epoch, code }.into(),
        PathStatus {
            path,
            state,
            code,
            rtt: std::time::Duration::from_secs(number >> 20),
            rtt_min: std::time::Duration::from_micros(number >> 20),
            rate: number,
            bytes: number,
        }
        .into(),
        OpenStream { stream, priority: peer.rng.random(), limit: offset }.into(),
        ResetStream { stream, code, final_size: offset }.into(),
        StopSending { stream, code, conflict: None }.into(),
        MaxStreamData { stream, limit: offset }.into(),
        MaxStreams { dir, max: number.min(1 << 60) }.into(),
        PacketAck { ranges: std::iter::once(start.0..start.0 + len).collect() }.into(),
        Grant { grant, epoch, path, stream, start, len, signed: signed.clone() }.into(),
        Revoke { grant, epoch }.into(),
        GrantStatusFrame { grant, status }.into(),
        GrantEnd { grant, end: offset, code }.into(),
        Raw { to: path, signed }.into(),
        RawStatus { from: path, to: PathId(peer.rng.random_range(0..4)), sequence: number, code }.into(),
        Close { code, reason: "for no reason".to_owned() }.into(),
        Lease { path, issued_at_ms: number, signature: peer.rng.random() }.into(),
    ]
}

/// Whether a role may send such a frame at some time after the first.
fn is_legal(role: PeerRole, frame: &Frame) -> bool {
    let of_streams = matches!(
        frame,
        Frame::OpenStream(_)
            | Frame::ResetStream(_)
            | Frame::StopSending(_)
            | Frame::MaxStreamData(_)
            | Frame::MaxStreams(_)
    );
    match (role, frame) {
        (_, Frame::PacketAck(_) | Frame::Close(_) | Frame::RawStatus(_)) => true,
        (PeerRole::Primary, Frame::AddPath(_) | Frame::RemovePath(_) | Frame::Grant(_)) => true,
        (PeerRole::Primary | PeerRole::Joiner, Frame::Revoke(_) | Frame::Lease(_)) => true,
        (PeerRole::Primary | PeerRole::Secondary, Frame::Raw(_)) => true,
        (PeerRole::Secondary, Frame::GrantEnd(_)) => true,
        (PeerRole::Client, Frame::PathStatus(_) | Frame::GrantStatus(_)) => true,
        (PeerRole::Joiner, Frame::StopSending(_) | Frame::MaxStreamData(_)) => true,
        (PeerRole::Primary | PeerRole::Client, _) => of_streams,
        (PeerRole::Secondary | PeerRole::Joiner, _) => false,
    }
}

/// A data frame of any type.
fn data_sample(peer: &mut PeerContext<'_>) -> Vec<u8> {
    let (stream, offset) = (any_stream(peer), peer.edge());
    let signed = SignedPayload { sequence: peer.edge(), payload: Bytes::from_static(b"?"), signature: [9; 64] };
    match peer.rng.random_range(0..5) {
        0 => {
            let (grant, epoch, start, limit) = (GrantId(1), Epoch(1), StreamOffset(0), StreamOffset(offset));
            GrantOpen { grant, epoch, stream, start, len: 10, limit, signed }.encode().to_vec()
        }
        1 => RawForward { from: PathId(peer.rng.random_range(0..4)), forwarded_ticket: Bytes::new(), signed }
            .encode()
            .to_vec(),
        2 => frame(peer.rng.random_range(5..1000), b"unknown"),
        _ => stream_frame(stream, offset, &[7; 30][..peer.rng.random_range(0..30)], peer.rng.random_ratio(1, 8)),
    }
}

fn any_stream(peer: &mut PeerContext<'_>) -> StreamId {
    if let Some((stream, _)) = peer.place().filter(|_| peer.rng.random_ratio(1, 3)) {
        return stream;
    }
    if peer.rng.random_ratio(1, 8) { StreamId(peer.edge()) } else { StreamId(peer.rng.random_range(0..16)) }
}

fn any_code(peer: &mut PeerContext<'_>) -> ErrorCode {
    let codes = TransportCode::ALL;
    if peer.rng.random() {
        return codes.choose(peer.rng).copied().unwrap_or(TransportCode::NO_ERROR).into();
    }
    ErrorCode::Application(peer.rng.random())
}

/// A few bits changed; often a length.
fn flipped(peer: &mut PeerContext<'_>, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..peer.rng.random_range(1..4) {
        let at = peer.rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << peer.rng.random_range(0..8);
    }
    if peer.rng.random_ratio(1, 4) {
        bytes.extend(varint(peer.edge()));
    }
    bytes
}
