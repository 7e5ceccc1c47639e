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

use super::behaviour::{Cost, Part, Row, VIOLATION, When};
use super::stage::{Stage, any_state, frame, params, stream_frame, varint};

pub(super) const ROWS: &[Row] = &[
    ("a frame that this part may not send", When::Welcomed, VIOLATION, |stage| {
        let part = stage.scene.part;
        let mut frames = samples(stage);
        frames.retain(|frame| !is_legal(part, frame));
        if let Some(frame) = frames.choose(stage.rng).cloned() {
            stage.say(frame);
        }
        false
    }),
    ("frames from the grammar", When::Welcomed, Cost::Anything, |stage| {
        for _ in 0..20 {
            let frames = samples(stage);
            if let Some(frame) = frames.choose(stage.rng).cloned() {
                stage.say(frame);
            }
            let frames = data_sample(stage);
            stage.packet(&frames);
        }
        stage.tick < 50
    }),
    ("frames from the grammar that this part may send", When::Welcomed, Cost::Anything, |stage| {
        let part = stage.scene.part;
        for _ in 0..20 {
            let mut frames = samples(stage);
            frames.retain(|frame| is_legal(part, frame));
            if let Some(frame) = frames.choose(stage.rng).cloned() {
                stage.say(frame);
            }
        }
        stage.tick < 50
    }),
    ("frames with flipped bits", When::Welcomed, Cost::Anything, |stage| {
        let part = stage.scene.part;
        let mut frames = samples(stage);
        frames.retain(|frame| is_legal(part, frame));
        if let Some(frame) = frames.choose(stage.rng).cloned() {
            let bytes = flipped(stage, frame.encode().to_vec());
            stage.control(&bytes);
        }
        let frames = data_sample(stage);
        let frames = flipped(stage, frames);
        stage.packet(&frames);
        stage.tick < 50
    }),
    ("frames cut short", When::Welcomed, Cost::Anything, |stage| {
        let frames = samples(stage);
        if let Some(frame) = frames.choose(stage.rng).cloned() {
            let bytes = frame.encode();
            let len = stage.rng.random_range(0..bytes.len());
            stage.control(&bytes[..len]);
        }
        stage.tick < 20
    }),
    ("random bytes", When::Welcomed, Cost::Anything, |stage| {
        let mut bytes = vec![0; 200];
        stage.rng.fill(&mut bytes[..]);
        stage.control(&bytes);
        stage.carry(&bytes);
        stage.tick < 10
    }),
];

/// One frame of each type, with numbers from the edges.
pub(super) fn samples(stage: &mut Stage<'_>) -> Vec<Frame> {
    let stream = any_stream(stage);
    let path = PathId(stage.rng.random_range(0..4));
    let (grant, epoch) = (GrantId(stage.edge()), Epoch(stage.edge()));
    let (code, offset, number) = (any_code(stage), StreamOffset(stage.edge()), stage.edge());
    let signed = SignedPayload { sequence: number, payload: Bytes::from_static(b"?"), signature: stage.rng.random() };
    let len = (stage.edge() / 4).max(1);
    let start = StreamOffset(offset.0.min((1 << 62) - 1 - len));
    let state = any_state(stage.rng);
    let dir = if stage.rng.random() { Dir::Bi } else { Dir::Uni };
    let status = match stage.rng.random_range(0..3) {
        0 => GrantStatus::Progress { delivered: number },
        1 => GrantStatus::Delivered,
        _ => GrantStatus::Lost { code, missing: std::iter::once(start.0..start.0 + len).collect() },
    };
    vec![
        Hello {
            version: number,
            params: params(),
            client_key: stage.rng.random(),
            proof: stage.rng.random(),
            credential: Bytes::new(),
        }
        .into(),
        Join { version: 1, params: params(), ticket: Bytes::from_static(&[1; 300]), proof: [1; 64] }.into(),
        Welcome {
            session: stage.session(),
            path,
            params: params(),
            identity: *stage.key.public().as_bytes(),
            signature: [1; 64],
        }
        .into(),
        AddPath {
            path,
            epoch,
            address: ([10, 9, 9, 9], stage.rng.random()).into(),
            server_name: "server.test".to_owned(),
            identity: *stage.key.public().as_bytes(),
            ticket: Bytes::new(),
        }
        .into(),
        RemovePath { path, epoch, code }.into(),
        PathStatus {
            path,
            state,
            code,
            rtt: std::time::Duration::from_secs(number >> 20),
            rate: number,
            bytes: number,
        }
        .into(),
        OpenStream { stream, priority: stage.rng.random(), limit: offset }.into(),
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
        RawStatus { from: path, to: PathId(stage.rng.random_range(0..4)), sequence: number, code }.into(),
        Close { code, reason: "for no reason".to_owned() }.into(),
        Lease { path, issued_at_ms: number, signature: stage.rng.random() }.into(),
    ]
}

/// Whether a part may send such a frame at some time after the first.
fn is_legal(part: Part, frame: &Frame) -> bool {
    let of_streams = matches!(
        frame,
        Frame::OpenStream(_)
            | Frame::ResetStream(_)
            | Frame::StopSending(_)
            | Frame::MaxStreamData(_)
            | Frame::MaxStreams(_)
    );
    match (part, frame) {
        (_, Frame::PacketAck(_) | Frame::Close(_) | Frame::RawStatus(_)) => true,
        (Part::Primary, Frame::AddPath(_) | Frame::RemovePath(_) | Frame::Grant(_)) => true,
        (Part::Primary | Part::Joiner, Frame::Revoke(_) | Frame::Lease(_)) => true,
        (Part::Primary | Part::Secondary, Frame::Raw(_)) => true,
        (Part::Secondary, Frame::GrantEnd(_)) => true,
        (Part::Client, Frame::PathStatus(_) | Frame::GrantStatus(_)) => true,
        (Part::Joiner, Frame::StopSending(_) | Frame::MaxStreamData(_)) => true,
        (Part::Primary | Part::Client, _) => of_streams,
        (Part::Secondary | Part::Joiner, _) => false,
    }
}

/// A data frame of any type.
fn data_sample(stage: &mut Stage<'_>) -> Vec<u8> {
    let (stream, offset) = (any_stream(stage), stage.edge());
    let signed = SignedPayload { sequence: stage.edge(), payload: Bytes::from_static(b"?"), signature: [9; 64] };
    match stage.rng.random_range(0..5) {
        0 => {
            let (grant, epoch, start, limit) = (GrantId(1), Epoch(1), StreamOffset(0), StreamOffset(offset));
            GrantOpen { grant, epoch, stream, start, len: 10, limit, signed }.encode().to_vec()
        }
        1 => RawForward { from: PathId(stage.rng.random_range(0..4)), forwarded_ticket: Bytes::new(), signed }
            .encode()
            .to_vec(),
        2 => frame(stage.rng.random_range(5..1000), b"unknown"),
        _ => stream_frame(stream, offset, &[7; 30][..stage.rng.random_range(0..30)], stage.rng.random_ratio(1, 8)),
    }
}

fn any_stream(stage: &mut Stage<'_>) -> StreamId {
    if let Some((stream, _)) = stage.place().filter(|_| stage.rng.random_ratio(1, 3)) {
        return stream;
    }
    if stage.rng.random_ratio(1, 8) { StreamId(stage.edge()) } else { StreamId(stage.rng.random_range(0..16)) }
}

fn any_code(stage: &mut Stage<'_>) -> ErrorCode {
    let codes = TransportCode::ALL;
    if stage.rng.random() {
        return codes.choose(stage.rng).copied().unwrap_or(TransportCode::NO_ERROR).into();
    }
    ErrorCode::Application(stage.rng.random())
}

/// A few bits changed; often a length.
fn flipped(stage: &mut Stage<'_>, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..stage.rng.random_range(1..4) {
        let at = stage.rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << stage.rng.random_range(0..8);
    }
    if stage.rng.random_ratio(1, 4) {
        bytes.extend(varint(stage.edge()));
    }
    bytes
}
