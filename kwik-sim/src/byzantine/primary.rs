//! What a primary may do to a client that dialled it, and to the servers it names.

use bytes::Bytes;
use kwik_core::__test_exports::{AddPath, Grant, Lease, Raw, RemovePath, Revoke, SignedPayload, sign_grant};
use kwik_core::{Dir, Epoch, ErrorCode, GrantId, Identity, PathId, StreamId, StreamOffset, TransportCode};

use super::behaviour::{BehaviourRow, Cost, FLOOD, VIOLATION, When};
use super::peer::PeerContext;

const CODE: ErrorCode = ErrorCode::Transport(TransportCode::PATH_REMOVED);
const IMPOSTOR: Cost = Cost::Code(TransportCode::IDENTITY_MISMATCH);
const NAME: &str = "server.test";

pub(super) const BEHAVIOURS: &[BehaviourRow] = &[
    ("an old epoch", When::Placed, VIOLATION, |peer| {
        add_path(peer, 10, 10, "10.9.9.9:4433");
        add_path(peer, 11, 10, "10.9.9.9:4433");
        false
    }),
    ("a path id used twice", When::Placed, VIOLATION, |peer| {
        add_path(peer, 10, 10, "10.9.9.9:4433");
        add_path(peer, 10, 11, "10.9.9.9:4433");
        false
    }),
    ("a lease of a path that was never added", When::Placed, VIOLATION, |peer| {
        peer.say(Lease { path: PathId(90), issued_at_ms: 1, signature: [1; 64] });
        false
    }),
    ("a lease of its own path", When::Placed, VIOLATION, |peer| {
        peer.say(Lease { path: PathId::PRIMARY, issued_at_ms: 1, signature: [1; 64] });
        false
    }),
    ("leases without end", When::Partnered, FLOOD, |peer| {
        (0..100).for_each(|_| peer.say(Lease { path: PathId(1), issued_at_ms: 1, signature: [1; 64] }));
        peer.tick < 100
    }),
    ("itself added as a path", When::Placed, VIOLATION, |peer| {
        add_path(peer, 0, 10, "10.9.9.9:4433");
        false
    }),
    ("the last path id there is", When::Placed, Cost::Nothing, |peer| {
        add_path(peer, u32::MAX, 10, "224.0.0.1:4433");
        false
    }),
    ("paths that the client's policy forbids", When::Placed, FLOOD, |peer| {
        for number in 0..50 {
            let number = 10 + peer.tick * 50 + number;
            add_path(peer, number, u64::from(number), "127.0.0.1:22");
        }
        peer.tick < 100
    }),
    ("paths to nowhere", When::Placed, FLOOD, |peer| {
        for number in 0..50 {
            let number = 10 + peer.tick * 50 + number;
            add_path(peer, number, u64::from(number), "10.8.8.8:4433");
        }
        peer.tick < 100
    }),
    ("a path of a weak identity", When::Placed, VIOLATION, |peer| {
        let (path, epoch, address) = (PathId(10), Epoch(10), ([10, 9, 9, 9], 4433).into());
        let (server_name, ticket) = (NAME.to_owned(), Bytes::new());
        peer.say(AddPath { path, epoch, address, server_name, identity: [0; 32], ticket });
        false
    }),
    ("a path removed that was never added", When::Placed, VIOLATION, |peer| {
        peer.say(RemovePath { path: PathId(90), epoch: Epoch(90), code: CODE });
        false
    }),
    ("its own path removed", When::Placed, VIOLATION, |peer| {
        peer.say(RemovePath { path: PathId::PRIMARY, epoch: Epoch(90), code: CODE });
        false
    }),
    ("a grant for a path that was never added", When::Placed, VIOLATION, |peer| grant(peer, 0, 90, 0, 10)),
    ("a grant for itself", When::Placed, VIOLATION, |peer| grant(peer, 0, 0, 0, 10)),
    ("a grant of a stream that was never opened", When::Partnered, VIOLATION, |peer| {
        let stream = peer.peer_stream(Dir::Bi, 90);
        grant_of(peer, stream, 0, 1, 0, 10)
    }),
    ("a grant of a stream that only the client writes", When::Partnered, VIOLATION, |peer| {
        let stream = peer.peer_stream(Dir::Uni, 0);
        grant_of(peer, stream, 0, 1, 0, 10)
    }),
    ("a grant id used twice", When::Partnered, VIOLATION, |peer| {
        grant(peer, 0, 1, 1000, 10);
        grant(peer, 0, 1, 2000, 10)
    }),
    ("grants without end", When::Partnered, FLOOD, |peer| {
        for number in 0..100 {
            let number = u64::from(peer.tick) * 100 + number;
            grant(peer, number, 1, number * 10, 10);
        }
        peer.tick < 30
    }),
    ("one range granted again and again", When::Partnered, FLOOD, |peer| {
        (0..40).for_each(|number| {
            grant(peer, number, 1, 500, 1000);
        });
        false
    }),
    ("grants at the last offset", When::Partnered, Cost::Nothing, |peer| grant(peer, 0, 1, (1 << 62) - 2, 1)),
    ("a grant that nobody signed", When::Partnered, Cost::Nothing, |peer| {
        let signed = SignedPayload { sequence: 9, payload: Bytes::new(), signature: [1; 64] };
        let Some((stream, start)) = peer.place() else { return false };
        let (grant, epoch, path) = (GrantId(0), Epoch(50), PathId(1));
        peer.say(Grant { grant, epoch, path, stream, start: StreamOffset(start), len: 10, signed });
        false
    }),
    ("revocations of nothing", When::Placed, FLOOD, |peer| {
        (0..100).for_each(|number| peer.say(Revoke { grant: GrantId(number), epoch: Epoch(1000) }));
        peer.tick < 100
    }),
    ("grants revoked at once", When::Partnered, Cost::Anything, |peer| {
        for number in 0..50 {
            let number = u64::from(peer.tick) * 50 + number;
            grant(peer, number, 1, 5000, 100);
            peer.say(Revoke { grant: GrantId(number), epoch: Epoch(1 << 40) });
        }
        peer.tick < 400
    }),
    ("raw packets to nowhere", When::Placed, FLOOD, |peer| {
        for number in 0..100 {
            let sequence = u64::from(peer.tick) * 100 + number;
            let signed = SignedPayload { sequence, payload: Bytes::new(), signature: [0; 64] };
            peer.say(Raw { to: PathId(77), signed });
        }
        peer.tick < 100
    }),
    ("raw packets that nobody signed", When::Partnered, Cost::Nothing, |peer| {
        let signed = SignedPayload { sequence: 1, payload: Bytes::from(vec![0; 12 * 1024]), signature: [0; 64] };
        peer.say(Raw { to: PathId(1), signed });
        peer.tick < 100
    }),
    ("WELCOME signed by nobody", When::First, IMPOSTOR, |peer| {
        let identity = *peer.key.public().as_bytes();
        let (session, path, params) = (peer.session(), PathId::PRIMARY, super::peer::params());
        peer.say(kwik_core::__test_exports::Welcome { session, path, params, identity, signature: [1; 64] });
        false
    }),
    ("another frame instead of WELCOME", When::First, VIOLATION, |peer| {
        peer.say(RemovePath { path: PathId(1), epoch: Epoch(1), code: CODE });
        false
    }),
    ("no WELCOME", When::First, Cost::Code(TransportCode::AUTH_TIMEOUT), |_| false),
];

fn add_path(peer: &mut PeerContext<'_>, path: u32, epoch: u64, address: &str) {
    let secondary = Identity::from_seed([0xdd; 32]).public();
    let path = PathId(path);
    let (Ok(address), Some(ticket)) = (address.parse(), peer.ticket(path, secondary, NAME)) else { return };
    let (server_name, identity) = (NAME.to_owned(), *secondary.as_bytes());
    peer.say(AddPath { path, epoch: Epoch(epoch), address, server_name, identity, ticket });
}

pub(super) fn grant(peer: &mut PeerContext<'_>, number: u64, path: u32, start: u64, len: u64) -> bool {
    let Some((stream, _)) = peer.place() else { return false };
    grant_of(peer, stream, number, path, start, len)
}

fn grant_of(peer: &mut PeerContext<'_>, stream: StreamId, number: u64, path: u32, start: u64, len: u64) -> bool {
    let (grant, path) = (GrantId(number), PathId(path));
    let range = start..start.saturating_add(len);
    let signed = sign_grant(peer.key, (peer.session(), path, number), (grant, stream, range), Bytes::new());
    let (epoch, start) = (Epoch(50 + number), StreamOffset(start));
    peer.say(Grant { grant, epoch, path, stream, start, len, signed });
    false
}
