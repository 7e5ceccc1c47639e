//! What a secondary may do to a client that trusts its grants.

use bytes::Bytes;
use kwik_core::__test_exports::{Close, GrantEnd, GrantOpen, Raw, RawStatus, Welcome, sign_raw, welcome_proof};
use kwik_core::{Dir, ErrorCode, GrantId, Identity, PathId, SessionId, StreamOffset, TransportCode};

use super::behaviour::{Cost, FLOOD, Row, VIOLATION, When};
use super::stage::{Stage, params, stream_frame};

const OUTSIDE: Cost = Cost::Code(TransportCode::GRANT_VIOLATION);
const IMPOSTOR: Cost = Cost::Code(TransportCode::IDENTITY_MISMATCH);

pub(super) const ROWS: &[Row] = &[
    ("a byte past the grant", When::Placed, OUTSIDE, |stage| write(stage, |grant| (end(grant), 1))),
    // Before a grant from the beginning on there is nothing; that byte is an honest one.
    ("a byte before the grant", When::Placed, OUTSIDE, |stage| {
        write(stage, |grant| (grant.start.0.saturating_sub(1), 1))
    }),
    ("all that the credit allows past the grant", When::Placed, OUTSIDE, |stage| {
        write(stage, |grant| (end(grant), grant.limit.0.saturating_sub(end(grant)).clamp(1, 48 * 1024)))
    }),
    ("bytes across the end of the grant", When::Placed, OUTSIDE, |stage| write(stage, |grant| (end(grant) - 1, 2))),
    ("a byte at offset 0", When::Placed, OUTSIDE, |stage| write(stage, |_| (0, 1))),
    ("a byte at the last offset", When::Placed, OUTSIDE, |stage| write(stage, |_| ((1 << 62) - 2, 1))),
    ("an empty frame outside the grant", When::Placed, FLOOD, |stage| {
        let Some(grant) = stage.scene.grants.first().cloned() else { return false };
        (0..100).for_each(|_| stage.data(grant.stream, end(&grant) + 5, 0, false));
        stage.tick < 100
    }),
    ("bytes of a stream that was never opened", When::Placed, OUTSIDE, |stage| {
        let stream = stage.peer_stream(Dir::Bi, 100);
        stage.data(stream, 0, 1, false);
        false
    }),
    ("bytes of a stream that nobody can have opened", When::Placed, OUTSIDE, |stage| {
        let stream = stage.peer_stream(Dir::Bi, (1 << 60) - 1);
        stage.data(stream, 0, 1, false);
        false
    }),
    ("bytes of a stream that only the client writes", When::Placed, OUTSIDE, |stage| {
        let stream = stage.peer_stream(Dir::Uni, 0);
        stage.data(stream, 0, 1, false);
        false
    }),
    ("bytes of a stream of the primary's", When::Placed, OUTSIDE, |stage| {
        let stream = stage.own_stream(Dir::Bi, 3);
        stage.data(stream, 0, 1, false);
        false
    }),
    ("the end of the stream", When::Placed, Cost::Code(TransportCode::FINAL_SIZE), |stage| {
        let Some((stream, offset)) = stage.place() else { return false };
        stage.data(stream, offset, 1, true);
        false
    }),
    ("the end of the stream without a byte", When::Placed, Cost::Code(TransportCode::FINAL_SIZE), |stage| {
        let Some((stream, offset)) = stage.place() else { return false };
        stage.data(stream, offset, 0, true);
        false
    }),
    ("other bytes than its own", When::Placed, Cost::Code(TransportCode::RANGE_CONFLICT), |stage| {
        let Some(grant) = stage.scene.grants.first().cloned() else { return false };
        let content = stage.content;
        // Beyond a gap, so that they wait.
        let start = grant.start.0 + 1;
        stage.data(grant.stream, start, 1000, false);
        let wrong: Vec<u8> = (start..start + 1000).map(|at| !content(at)).collect();
        stage.packet(&stream_frame(grant.stream, start, &wrong, false));
        false
    }),
    ("the same bytes for ever", When::Placed, FLOOD, |stage| {
        let Some((stream, offset)) = stage.place() else { return false };
        (0..16).for_each(|_| stage.data(stream, offset, 16 * 1024, false));
        stage.tick < 100
    }),
    ("every other byte", When::Placed, Cost::Code(TransportCode::REASSEMBLY_LIMIT), |stage| {
        let Some((stream, offset)) = stage.place() else { return false };
        let first = offset + 1 + u64::from(stage.tick) * 400;
        (first..first + 400).step_by(2).for_each(|at| stage.data(stream, at, 1, false));
        stage.tick < 20
    }),
    ("its part ended beyond the grant", When::Placed, VIOLATION, |stage| {
        let Some(grant) = stage.scene.grants.first().cloned() else { return false };
        part_end(stage, grant.grant, end(&grant) + 1)
    }),
    ("its part ended before the grant", When::Placed, VIOLATION, |stage| {
        let Some(grant) = stage.scene.grants.first().cloned() else { return false };
        let Some(before) = grant.start.0.checked_sub(1) else { return false };
        part_end(stage, grant.grant, before)
    }),
    ("its part ended twice", When::Placed, Cost::Nothing, |stage| {
        let Some(grant) = stage.scene.grants.first().cloned() else { return false };
        part_end(stage, grant.grant, end(&grant) - 1);
        part_end(stage, grant.grant, end(&grant) - 2)
    }),
    ("ends of parts that nobody granted", When::Placed, FLOOD, |stage| {
        (0..100).for_each(|number| {
            part_end(stage, GrantId(1000 + number), 0);
        });
        stage.tick < 100
    }),
    ("raw packets to nowhere", When::Welcomed, FLOOD, |stage| raw_flood(stage, PathId(77))),
    ("raw packets to itself", When::Welcomed, FLOOD, |stage| raw_flood(stage, stage.scene.path)),
    ("raw packets to nowhere, the answers unread", When::Welcomed, FLOOD, |stage| {
        stage.link.deaf = true;
        raw_flood(stage, PathId(77))
    }),
    ("a raw packet with a forged signature", When::Welcomed, Cost::Nothing, |stage| {
        let impostor = Identity::from_seed([0xee; 32]);
        let context = (stage.session(), stage.scene.path, PathId::PRIMARY, 0);
        let signed = sign_raw(&impostor, context, Bytes::from_static(b"believe me"));
        stage.say(Raw { to: PathId::PRIMARY, signed });
        false
    }),
    ("a raw packet twice", When::Welcomed, Cost::Nothing, |stage| {
        let context = (stage.session(), stage.scene.path, PathId::PRIMARY, 5);
        let signed = sign_raw(stage.key, context, Bytes::from_static(b"once"));
        stage.say(Raw { to: PathId::PRIMARY, signed });
        stage.tick.is_multiple_of(20) && stage.tick < 60
    }),
    ("a receipt for a packet that never came", When::Welcomed, VIOLATION, |stage| {
        let code = TransportCode::NO_ERROR.into();
        stage.say(RawStatus { from: PathId::PRIMARY, to: stage.scene.path, sequence: 0, code });
        false
    }),
    ("a receipt in another's name", When::Welcomed, VIOLATION, |stage| {
        let code = TransportCode::NO_ERROR.into();
        stage.say(RawStatus { from: stage.scene.path, to: PathId::PRIMARY, sequence: 0, code });
        false
    }),
    ("a close, and then nothing", When::Placed, Cost::Code(TransportCode::GOING_AWAY), |stage| {
        stage.say(Close { code: ErrorCode::Application(1), reason: "soon".to_owned() });
        false
    }),
    ("WELCOME for another session", When::First, IMPOSTOR, |stage| {
        welcome(stage, |welcome| welcome.session = SessionId([3; 16]))
    }),
    ("WELCOME for another path", When::First, IMPOSTOR, |stage| {
        welcome(stage, |welcome| welcome.path = PathId(welcome.path.0 + 1))
    }),
    ("WELCOME signed by nobody", When::First, IMPOSTOR, |stage| welcome(stage, |welcome| welcome.signature = [5; 64])),
    ("WELCOME of another identity", When::First, IMPOSTOR, |stage| {
        let impostor = Identity::from_seed([0xee; 32]);
        let Some(client) = stage.scene.client_key else { return false };
        let (session, path, exporter) = (stage.session(), stage.scene.path, stage.scene.exporter);
        let signature = welcome_proof(&impostor, &exporter, session, path, &client);
        welcome(stage, |welcome| {
            welcome.identity = *impostor.public().as_bytes();
            welcome.signature = signature;
        })
    }),
    ("WELCOME of a weak key", When::First, IMPOSTOR, |stage| welcome(stage, |welcome| welcome.identity = [0; 32])),
    ("another frame instead of WELCOME", When::First, VIOLATION, |stage| part_end(stage, GrantId(0), 0)),
    ("no WELCOME", When::First, Cost::Code(TransportCode::AUTH_TIMEOUT), |_| false),
];

fn end(grant: &GrantOpen) -> u64 {
    grant.start.0 + grant.len
}

/// Bytes at a place that follows from the grant.
fn write(stage: &mut Stage<'_>, place: fn(&GrantOpen) -> (u64, u64)) -> bool {
    let Some(grant) = stage.scene.grants.first() else { return false };
    let (stream, (offset, len)) = (grant.stream, place(grant));
    stage.data(stream, offset, len, false);
    false
}

fn part_end(stage: &mut Stage<'_>, grant: GrantId, end: u64) -> bool {
    stage.say(GrantEnd { grant, end: StreamOffset(end), code: ErrorCode::Application(0) });
    false
}

fn raw_flood(stage: &mut Stage<'_>, to: PathId) -> bool {
    for number in 0..100 {
        let sequence = u64::from(stage.tick) * 100 + number;
        let signed = kwik_core::__test_exports::SignedPayload { sequence, payload: Bytes::new(), signature: [0; 64] };
        stage.say(Raw { to, signed });
    }
    stage.tick < 100
}

/// The honest WELCOME with something changed.
fn welcome(stage: &mut Stage<'_>, change: impl FnOnce(&mut Welcome)) -> bool {
    let Some(client) = stage.scene.client_key else { return false };
    let (session, path) = (stage.session(), stage.scene.path);
    let signature = welcome_proof(stage.key, &stage.scene.exporter, session, path, &client);
    let identity = *stage.key.public().as_bytes();
    let mut welcome = Welcome { session, path, params: params(), identity, signature };
    change(&mut welcome);
    stage.say(welcome);
    false
}
