//! What a primary may do to a client that dialled it, and to the servers it names.

use bytes::Bytes;
use kwik_core::__test_exports::{AddPath, Grant, Lease, Raw, RemovePath, Revoke, SignedPayload, sign_grant};
use kwik_core::{Dir, Epoch, ErrorCode, GrantId, Identity, PathId, StreamId, StreamOffset, TransportCode};

use super::behaviour::{Cost, FLOOD, Row, VIOLATION, When};
use super::stage::Stage;

const CODE: ErrorCode = ErrorCode::Transport(TransportCode::PATH_REMOVED);
const IMPOSTOR: Cost = Cost::Code(TransportCode::IDENTITY_MISMATCH);
const NAME: &str = "server.test";

pub(super) const ROWS: &[Row] = &[
    ("an old epoch", When::Placed, VIOLATION, |stage| {
        add_path(stage, 10, 10, "10.9.9.9:4433");
        add_path(stage, 11, 10, "10.9.9.9:4433");
        false
    }),
    ("a path id used twice", When::Placed, VIOLATION, |stage| {
        add_path(stage, 10, 10, "10.9.9.9:4433");
        add_path(stage, 10, 11, "10.9.9.9:4433");
        false
    }),
    ("a lease of a path that was never added", When::Placed, VIOLATION, |stage| {
        stage.say(Lease { path: PathId(90), issued_at_ms: 1, signature: [1; 64] });
        false
    }),
    ("a lease of its own path", When::Placed, VIOLATION, |stage| {
        stage.say(Lease { path: PathId::PRIMARY, issued_at_ms: 1, signature: [1; 64] });
        false
    }),
    ("leases without end", When::Partnered, FLOOD, |stage| {
        (0..100).for_each(|_| stage.say(Lease { path: PathId(1), issued_at_ms: 1, signature: [1; 64] }));
        stage.tick < 100
    }),
    ("itself added as a path", When::Placed, VIOLATION, |stage| {
        add_path(stage, 0, 10, "10.9.9.9:4433");
        false
    }),
    ("the last path id there is", When::Placed, Cost::Nothing, |stage| {
        add_path(stage, u32::MAX, 10, "224.0.0.1:4433");
        false
    }),
    ("paths that the client's policy forbids", When::Placed, FLOOD, |stage| {
        for number in 0..50 {
            let number = 10 + stage.tick * 50 + number;
            add_path(stage, number, u64::from(number), "127.0.0.1:22");
        }
        stage.tick < 100
    }),
    ("paths to nowhere", When::Placed, FLOOD, |stage| {
        for number in 0..50 {
            let number = 10 + stage.tick * 50 + number;
            add_path(stage, number, u64::from(number), "10.8.8.8:4433");
        }
        stage.tick < 100
    }),
    ("a path of a weak identity", When::Placed, VIOLATION, |stage| {
        let (path, epoch, address) = (PathId(10), Epoch(10), ([10, 9, 9, 9], 4433).into());
        let (server_name, ticket) = (NAME.to_owned(), Bytes::new());
        stage.say(AddPath { path, epoch, address, server_name, identity: [0; 32], ticket });
        false
    }),
    ("a path removed that was never added", When::Placed, VIOLATION, |stage| {
        stage.say(RemovePath { path: PathId(90), epoch: Epoch(90), code: CODE });
        false
    }),
    ("its own path removed", When::Placed, VIOLATION, |stage| {
        stage.say(RemovePath { path: PathId::PRIMARY, epoch: Epoch(90), code: CODE });
        false
    }),
    ("a grant for a path that was never added", When::Placed, VIOLATION, |stage| grant(stage, 0, 90, 0, 10)),
    ("a grant for itself", When::Placed, VIOLATION, |stage| grant(stage, 0, 0, 0, 10)),
    ("a grant of a stream that was never opened", When::Partnered, VIOLATION, |stage| {
        let stream = stage.peer_stream(Dir::Bi, 90);
        grant_of(stage, stream, 0, 1, 0, 10)
    }),
    ("a grant of a stream that only the client writes", When::Partnered, VIOLATION, |stage| {
        let stream = stage.peer_stream(Dir::Uni, 0);
        grant_of(stage, stream, 0, 1, 0, 10)
    }),
    ("a grant id used twice", When::Partnered, VIOLATION, |stage| {
        grant(stage, 0, 1, 1000, 10);
        grant(stage, 0, 1, 2000, 10)
    }),
    ("grants without end", When::Partnered, FLOOD, |stage| {
        for number in 0..100 {
            let number = u64::from(stage.tick) * 100 + number;
            grant(stage, number, 1, number * 10, 10);
        }
        stage.tick < 30
    }),
    ("one range granted again and again", When::Partnered, FLOOD, |stage| {
        (0..40).for_each(|number| {
            grant(stage, number, 1, 500, 1000);
        });
        false
    }),
    ("grants at the last offset", When::Partnered, Cost::Nothing, |stage| grant(stage, 0, 1, (1 << 62) - 2, 1)),
    ("a grant that nobody signed", When::Partnered, Cost::Nothing, |stage| {
        let signed = SignedPayload { sequence: 9, payload: Bytes::new(), signature: [1; 64] };
        let Some((stream, start)) = stage.place() else { return false };
        let (grant, epoch, path) = (GrantId(0), Epoch(50), PathId(1));
        stage.say(Grant { grant, epoch, path, stream, start: StreamOffset(start), len: 10, signed });
        false
    }),
    ("revocations of nothing", When::Placed, FLOOD, |stage| {
        (0..100).for_each(|number| stage.say(Revoke { grant: GrantId(number), epoch: Epoch(1000) }));
        stage.tick < 100
    }),
    ("grants revoked at once", When::Partnered, Cost::Anything, |stage| {
        for number in 0..50 {
            let number = u64::from(stage.tick) * 50 + number;
            grant(stage, number, 1, 5000, 100);
            stage.say(Revoke { grant: GrantId(number), epoch: Epoch(1 << 40) });
        }
        stage.tick < 400
    }),
    ("raw packets to nowhere", When::Placed, FLOOD, |stage| {
        for number in 0..100 {
            let sequence = u64::from(stage.tick) * 100 + number;
            let signed = SignedPayload { sequence, payload: Bytes::new(), signature: [0; 64] };
            stage.say(Raw { to: PathId(77), signed });
        }
        stage.tick < 100
    }),
    ("raw packets that nobody signed", When::Partnered, Cost::Nothing, |stage| {
        let signed = SignedPayload { sequence: 1, payload: Bytes::from(vec![0; 12 * 1024]), signature: [0; 64] };
        stage.say(Raw { to: PathId(1), signed });
        stage.tick < 100
    }),
    ("WELCOME signed by nobody", When::First, IMPOSTOR, |stage| {
        let identity = *stage.key.public().as_bytes();
        let (session, path, params) = (stage.session(), PathId::PRIMARY, super::stage::params());
        stage.say(kwik_core::__test_exports::Welcome { session, path, params, identity, signature: [1; 64] });
        false
    }),
    ("another frame instead of WELCOME", When::First, VIOLATION, |stage| {
        stage.say(RemovePath { path: PathId(1), epoch: Epoch(1), code: CODE });
        false
    }),
    ("no WELCOME", When::First, Cost::Code(TransportCode::AUTH_TIMEOUT), |_| false),
];

fn add_path(stage: &mut Stage<'_>, path: u32, epoch: u64, address: &str) {
    let secondary = Identity::from_seed([0xdd; 32]).public();
    let path = PathId(path);
    let (Ok(address), Some(ticket)) = (address.parse(), stage.ticket(path, secondary, NAME)) else { return };
    let (server_name, identity) = (NAME.to_owned(), *secondary.as_bytes());
    stage.say(AddPath { path, epoch: Epoch(epoch), address, server_name, identity, ticket });
}

pub(super) fn grant(stage: &mut Stage<'_>, number: u64, path: u32, start: u64, len: u64) -> bool {
    let Some((stream, _)) = stage.place() else { return false };
    grant_of(stage, stream, number, path, start, len)
}

fn grant_of(stage: &mut Stage<'_>, stream: StreamId, number: u64, path: u32, start: u64, len: u64) -> bool {
    let (grant, path) = (GrantId(number), PathId(path));
    let range = start..start.saturating_add(len);
    let signed = sign_grant(stage.key, (stage.session(), path, number), (grant, stream, range), Bytes::new());
    let (epoch, start) = (Epoch(50 + number), StreamOffset(start));
    stage.say(Grant { grant, epoch, path, stream, start, len, signed });
    false
}
