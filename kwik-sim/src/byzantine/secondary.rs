//! What a secondary may do to a client that trusts its grants.

use bytes::Bytes;
use kwik_core::__test_exports::{Close, GrantEnd, GrantOpen, Raw, RawStatus, Welcome, sign_raw, welcome_proof};
use kwik_core::{Dir, ErrorCode, GrantId, Identity, PathId, SessionId, StreamOffset, TransportCode};

use super::behaviour::{BehaviourRow, Cost, FLOOD, VIOLATION, When};
use super::peer::{PeerContext, params, stream_frame};

const OUTSIDE: Cost = Cost::Code(TransportCode::GRANT_VIOLATION);
const IMPOSTOR: Cost = Cost::Code(TransportCode::IDENTITY_MISMATCH);

pub(super) const BEHAVIOURS: &[BehaviourRow] = &[
    ("a byte past the grant", When::Placed, OUTSIDE, |peer| write(peer, |grant| (end(grant), 1))),
    // Before a grant from the beginning on there is nothing; that byte is an honest one.
    ("a byte before the grant", When::Placed, OUTSIDE, |peer| {
        write(peer, |grant| (grant.start.0.saturating_sub(1), 1))
    }),
    ("all that the credit allows past the grant", When::Placed, OUTSIDE, |peer| {
        write(peer, |grant| (end(grant), grant.limit.0.saturating_sub(end(grant)).clamp(1, 48 * 1024)))
    }),
    ("bytes across the end of the grant", When::Placed, OUTSIDE, |peer| write(peer, |grant| (end(grant) - 1, 2))),
    ("a byte at offset 0", When::Placed, OUTSIDE, |peer| write(peer, |_| (0, 1))),
    ("a byte at the last offset", When::Placed, OUTSIDE, |peer| write(peer, |_| ((1 << 62) - 2, 1))),
    ("an empty frame outside the grant", When::Placed, FLOOD, |peer| {
        let Some(grant) = peer.state.grants.first().cloned() else { return false };
        (0..100).for_each(|_| peer.data(grant.stream, end(&grant) + 5, 0, false));
        peer.tick < 100
    }),
    ("bytes of a stream that was never opened", When::Placed, OUTSIDE, |peer| {
        let stream = peer.peer_stream(Dir::Bi, 100);
        peer.data(stream, 0, 1, false);
        false
    }),
    ("bytes of a stream that nobody can have opened", When::Placed, OUTSIDE, |peer| {
        let stream = peer.peer_stream(Dir::Bi, (1 << 60) - 1);
        peer.data(stream, 0, 1, false);
        false
    }),
    ("bytes of a stream that only the client writes", When::Placed, OUTSIDE, |peer| {
        let stream = peer.peer_stream(Dir::Uni, 0);
        peer.data(stream, 0, 1, false);
        false
    }),
    ("bytes of a stream of the primary's", When::Placed, OUTSIDE, |peer| {
        let stream = peer.own_stream(Dir::Bi, 3);
        peer.data(stream, 0, 1, false);
        false
    }),
    ("the end of the stream", When::Placed, Cost::Code(TransportCode::FINAL_SIZE), |peer| {
        let Some((stream, offset)) = peer.place() else { return false };
        peer.data(stream, offset, 1, true);
        false
    }),
    ("the end of the stream without a byte", When::Placed, Cost::Code(TransportCode::FINAL_SIZE), |peer| {
        let Some((stream, offset)) = peer.place() else { return false };
        peer.data(stream, offset, 0, true);
        false
    }),
    ("other bytes than its own", When::Placed, Cost::Code(TransportCode::RANGE_CONFLICT), |peer| {
        let Some(grant) = peer.state.grants.first().cloned() else { return false };
        let content = peer.content;
        // Beyond a gap, so that they wait.
        let start = grant.start.0 + 1;
        peer.data(grant.stream, start, 1000, false);
        let wrong: Vec<u8> = (start..start + 1000).map(|at| !content(at)).collect();
        peer.packet(&stream_frame(grant.stream, start, &wrong, false));
        false
    }),
    ("the same bytes for ever", When::Placed, FLOOD, |peer| {
        let Some((stream, offset)) = peer.place() else { return false };
        (0..16).for_each(|_| peer.data(stream, offset, 16 * 1024, false));
        peer.tick < 100
    }),
    ("every other byte", When::Placed, Cost::Code(TransportCode::REASSEMBLY_LIMIT), |peer| {
        let Some((stream, offset)) = peer.place() else { return false };
        let first = offset + 1 + u64::from(peer.tick) * 400;
        (first..first + 400).step_by(2).for_each(|at| peer.data(stream, at, 1, false));
        peer.tick < 20
    }),
    ("its grant ended beyond its range", When::Placed, VIOLATION, |peer| {
        let Some(grant) = peer.state.grants.first().cloned() else { return false };
        grant_end(peer, grant.grant, end(&grant) + 1)
    }),
    ("its grant ended before its range", When::Placed, VIOLATION, |peer| {
        let Some(grant) = peer.state.grants.first().cloned() else { return false };
        let Some(before) = grant.start.0.checked_sub(1) else { return false };
        grant_end(peer, grant.grant, before)
    }),
    ("its grant ended twice", When::Placed, Cost::Nothing, |peer| {
        let Some(grant) = peer.state.grants.first().cloned() else { return false };
        grant_end(peer, grant.grant, end(&grant) - 1);
        grant_end(peer, grant.grant, end(&grant) - 2)
    }),
    ("ends of grants that nobody gave", When::Placed, FLOOD, |peer| {
        (0..100).for_each(|number| {
            grant_end(peer, GrantId(1000 + number), 0);
        });
        peer.tick < 100
    }),
    ("raw packets to nowhere", When::Welcomed, FLOOD, |peer| raw_flood(peer, PathId(77))),
    ("raw packets to itself", When::Welcomed, FLOOD, |peer| raw_flood(peer, peer.state.path)),
    ("raw packets to nowhere, the answers unread", When::Welcomed, FLOOD, |peer| {
        peer.connection.deaf = true;
        raw_flood(peer, PathId(77))
    }),
    ("a raw packet with a forged signature", When::Welcomed, Cost::Nothing, |peer| {
        let impostor = Identity::from_seed([0xee; 32]);
        let context = (peer.session(), peer.state.path, PathId::PRIMARY, 0);
        let signed = sign_raw(&impostor, context, Bytes::from_static(b"believe me"));
        peer.say(Raw { to: PathId::PRIMARY, signed });
        false
    }),
    ("a raw packet twice", When::Welcomed, Cost::Nothing, |peer| {
        let context = (peer.session(), peer.state.path, PathId::PRIMARY, 5);
        let signed = sign_raw(peer.key, context, Bytes::from_static(b"once"));
        peer.say(Raw { to: PathId::PRIMARY, signed });
        peer.tick.is_multiple_of(20) && peer.tick < 60
    }),
    ("a receipt for a packet that never came", When::Welcomed, VIOLATION, |peer| {
        let code = TransportCode::NO_ERROR.into();
        peer.say(RawStatus { from: PathId::PRIMARY, to: peer.state.path, sequence: 0, code });
        false
    }),
    ("a receipt in another's name", When::Welcomed, VIOLATION, |peer| {
        let code = TransportCode::NO_ERROR.into();
        peer.say(RawStatus { from: peer.state.path, to: PathId::PRIMARY, sequence: 0, code });
        false
    }),
    ("a close, and then nothing", When::Placed, Cost::Code(TransportCode::GOING_AWAY), |peer| {
        peer.say(Close { code: ErrorCode::Application(1), reason: "soon".to_owned() });
        false
    }),
    ("WELCOME for another session", When::First, IMPOSTOR, |peer| {
        welcome(peer, |welcome| welcome.session = SessionId([3; 16]))
    }),
    ("WELCOME for another path", When::First, IMPOSTOR, |peer| {
        welcome(peer, |welcome| welcome.path = PathId(welcome.path.0 + 1))
    }),
    ("WELCOME signed by nobody", When::First, IMPOSTOR, |peer| welcome(peer, |welcome| welcome.signature = [5; 64])),
    ("WELCOME of another identity", When::First, IMPOSTOR, |peer| {
        let impostor = Identity::from_seed([0xee; 32]);
        let Some(client) = peer.state.client_key else { return false };
        let (session, path, exporter) = (peer.session(), peer.state.path, peer.state.exporter);
        let signature = welcome_proof(&impostor, &exporter, session, path, &client);
        welcome(peer, |welcome| {
            welcome.identity = *impostor.public().as_bytes();
            welcome.signature = signature;
        })
    }),
    ("WELCOME of a weak key", When::First, IMPOSTOR, |peer| welcome(peer, |welcome| welcome.identity = [0; 32])),
    ("another frame instead of WELCOME", When::First, VIOLATION, |peer| grant_end(peer, GrantId(0), 0)),
    ("no WELCOME", When::First, Cost::Code(TransportCode::AUTH_TIMEOUT), |_| false),
];

fn end(grant: &GrantOpen) -> u64 {
    grant.start.0 + grant.len
}

/// Bytes at a place that follows from the grant.
fn write(peer: &mut PeerContext<'_>, place: fn(&GrantOpen) -> (u64, u64)) -> bool {
    let Some(grant) = peer.state.grants.first() else { return false };
    let (stream, (offset, len)) = (grant.stream, place(grant));
    peer.data(stream, offset, len, false);
    false
}

fn grant_end(peer: &mut PeerContext<'_>, grant: GrantId, end: u64) -> bool {
    peer.say(GrantEnd { grant, end: StreamOffset(end), code: ErrorCode::Application(0) });
    false
}

fn raw_flood(peer: &mut PeerContext<'_>, to: PathId) -> bool {
    for number in 0..100 {
        let sequence = u64::from(peer.tick) * 100 + number;
        let signed = kwik_core::__test_exports::SignedPayload { sequence, payload: Bytes::new(), signature: [0; 64] };
        peer.say(Raw { to, signed });
    }
    peer.tick < 100
}

/// The honest WELCOME with something changed.
fn welcome(peer: &mut PeerContext<'_>, change: impl FnOnce(&mut Welcome)) -> bool {
    let Some(client) = peer.state.client_key else { return false };
    let (session, path) = (peer.session(), peer.state.path);
    let signature = welcome_proof(peer.key, &peer.state.exporter, session, path, &client);
    let identity = *peer.key.public().as_bytes();
    let mut welcome = Welcome { session, path, params: params(), identity, signature };
    change(&mut welcome);
    peer.say(welcome);
    false
}
