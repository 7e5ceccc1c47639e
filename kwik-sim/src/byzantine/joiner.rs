//! What a client may do to a secondary.

use bytes::Bytes;
use kwik_core::__test_exports::{GrantOpen, Join, Lease, MaxStreamData, RawForward, RawStatus, Revoke, SignedPayload};
use kwik_core::{Dir, Epoch, ErrorCode, GrantId, PathId, StreamOffset, TransportCode};
use rand::Rng;

use super::behaviour::{BehaviourRow, Cost, FLOOD, VIOLATION, When};
use super::peer::PeerContext;

const REFUSED: Cost = Cost::Code(TransportCode::AUTH_FAILED);
const CODE: ErrorCode = ErrorCode::Transport(TransportCode::NO_ERROR);

pub(super) const BEHAVIOURS: &[BehaviourRow] = &[
    ("JOIN with a bit of the ticket flipped", When::First, REFUSED, |peer| {
        let Some(mut join) = peer.join() else { return false };
        let mut ticket = join.ticket.to_vec();
        // Not of its times, which are judged before its signature.
        let times = ticket.len() - 64 - 3 * 8;
        let at = peer.rng.random_range(0..ticket.len() - 16);
        let at = if at < times { at } else { at + 16 };
        ticket[at] ^= 1 << peer.rng.random_range(0..8);
        join.ticket = ticket.into();
        say(peer, join)
    }),
    ("JOIN with a bit of the proof flipped", When::First, REFUSED, |peer| {
        let Some(mut join) = peer.join() else { return false };
        join.proof[peer.rng.random_range(0..64)] ^= 1 << peer.rng.random_range(0..8);
        say(peer, join)
    }),
    ("JOIN with no ticket", When::First, REFUSED, |peer| {
        let Some(join) = peer.join() else { return false };
        say(peer, Join { ticket: Bytes::new(), ..join })
    }),
    ("JOIN with a ticket cut short", When::First, REFUSED, |peer| {
        let Some(mut join) = peer.join() else { return false };
        join.ticket.truncate(100);
        say(peer, join)
    }),
    ("JOIN with an expired ticket", When::Late, Cost::Code(TransportCode::AUTH_TIME), |peer| {
        let Some(join) = peer.join() else { return false };
        say(peer, join)
    }),
    ("JOIN with a ticket that was used", When::Again, Cost::Code(TransportCode::SUPERSEDED), |peer| {
        let Some(join) = peer.join() else { return false };
        say(peer, join)
    }),
    ("JOIN of another version", When::First, Cost::Code(TransportCode::VERSION), |peer| {
        let Some(join) = peer.join() else { return false };
        say(peer, Join { version: 99, ..join })
    }),
    ("no JOIN", When::First, Cost::Code(TransportCode::AUTH_TIMEOUT), |_| false),
    ("a grant instead of JOIN", When::First, Cost::Code(TransportCode::AUTH_TIMEOUT), |peer| {
        grant(peer, |_| ());
        false
    }),
    ("JOIN twice", When::Welcomed, VIOLATION, |peer| {
        let Some(join) = peer.join() else { return false };
        say(peer, join)
    }),
    ("a grant that nobody signed", When::Granted, REFUSED, |peer| {
        grant(peer, |grant| grant.signed.signature = [1; 64])
    }),
    ("a grant of another range than signed", When::Granted, REFUSED, |peer| grant(peer, |grant| grant.len += 1)),
    ("a grant of another stream than signed", When::Granted, REFUSED, |peer| grant(peer, |grant| grant.stream.0 += 4)),
    ("a grant of another id than signed", When::Granted, REFUSED, |peer| grant(peer, |grant| grant.grant.0 += 1)),
    ("a grant with another request than signed", When::Granted, REFUSED, |peer| {
        grant(peer, |grant| grant.signed.payload = Bytes::from_static(b"everything"))
    }),
    ("a grant twice", When::Granted, REFUSED, |peer| {
        grant(peer, |_| ());
        grant(peer, |_| ())
    }),
    ("a grant with all the credit there is", When::Granted, Cost::Nothing, |peer| {
        grant(peer, |grant| grant.limit = StreamOffset((1 << 62) - 1))
    }),
    ("a grant without credit", When::Granted, Cost::Nothing, |peer| grant(peer, |grant| grant.limit = StreamOffset(0))),
    ("stream data", When::Welcomed, VIOLATION, |peer| {
        let stream = peer.own_stream(Dir::Bi, 0);
        peer.data(stream, 0, 10, false);
        false
    }),
    ("credit for nothing again and again", When::Welcomed, FLOOD, |peer| {
        let stream = peer.own_stream(Dir::Bi, 0);
        (0..100).for_each(|_| peer.say(MaxStreamData { stream, limit: StreamOffset(7) }));
        peer.tick < 100
    }),
    ("a lease that nobody signed", When::Welcomed, REFUSED, |peer| {
        let (path, issued_at_ms) = (peer.state.path, now_ms(peer));
        peer.say(Lease { path, issued_at_ms, signature: [1; 64] });
        false
    }),
    ("leases of another time, again and again", When::Welcomed, FLOOD, |peer| {
        let path = peer.state.path;
        let times = [0, 1, now_ms(peer) - 31_000, now_ms(peer) + 31_000, (1 << 62) - 1];
        (0..100).for_each(|number| peer.say(Lease { path, issued_at_ms: times[number % 5], signature: [1; 64] }));
        peer.tick < 100
    }),
    ("a lease of another path", When::Welcomed, VIOLATION, |peer| {
        let (path, issued_at_ms) = (PathId(peer.state.path.0 + 1), now_ms(peer));
        peer.say(Lease { path, issued_at_ms, signature: [1; 64] });
        false
    }),
    ("revocations of nothing", When::Welcomed, FLOOD, |peer| {
        (0..100).for_each(|_| peer.say(Revoke { grant: GrantId(7), epoch: Epoch(7) }));
        peer.tick < 100
    }),
    ("receipts for packets nobody sent", When::Welcomed, FLOOD, |peer| {
        (0..100).for_each(|sequence| {
            peer.say(RawStatus { from: peer.state.path, to: PathId(0), sequence, code: CODE });
        });
        peer.tick < 100
    }),
    ("a raw packet with a forged forwarded ticket", When::Welcomed, Cost::Nothing, |peer| {
        let signed = SignedPayload { sequence: 0, payload: Bytes::from_static(b"obey"), signature: [0; 64] };
        let forwarded_ticket = Bytes::from_static(&[1; 300]);
        let bytes = RawForward { from: PathId(5), forwarded_ticket, signed }.encode();
        peer.packet(&bytes);
        false
    }),
];

fn now_ms(peer: &PeerContext<'_>) -> u64 {
    u64::try_from(peer.wall.since_epoch().as_millis()).unwrap_or(u64::MAX)
}

fn say(peer: &mut PeerContext<'_>, join: Join) -> bool {
    peer.say(join);
    false
}

/// The primary's grant as it must be forwarded, with something changed.
pub(super) fn grant(peer: &mut PeerContext<'_>, change: impl FnOnce(&mut GrantOpen)) -> bool {
    let path = peer.state.path;
    let Some(grant) = peer.knowledge.granted.iter().find(|grant| grant.path == path).cloned() else { return false };
    let mut open = GrantOpen {
        grant: grant.grant,
        epoch: grant.epoch,
        stream: grant.stream,
        start: grant.start,
        len: grant.len,
        limit: StreamOffset(grant.start.0 + grant.len),
        signed: grant.signed,
    };
    change(&mut open);
    peer.packet(&open.encode());
    false
}
