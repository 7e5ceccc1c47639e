//! What a client may do to a secondary.

use bytes::Bytes;
use kwik_core::__test_exports::{GrantOpen, Join, Lease, MaxStreamData, RawForward, RawStatus, Revoke, SignedPayload};
use kwik_core::{Dir, Epoch, ErrorCode, GrantId, PathId, StreamOffset, TransportCode};
use rand::Rng;

use super::behaviour::{Cost, FLOOD, Row, VIOLATION, When};
use super::stage::Stage;

const REFUSED: Cost = Cost::Code(TransportCode::AUTH_FAILED);
const CODE: ErrorCode = ErrorCode::Transport(TransportCode::NO_ERROR);

pub(super) const ROWS: &[Row] = &[
    ("JOIN with a bit of the ticket flipped", When::First, REFUSED, |stage| {
        let Some(mut join) = stage.join() else { return false };
        let mut ticket = join.ticket.to_vec();
        // Not of its times, which are judged before its signature.
        let times = ticket.len() - 64 - 3 * 8;
        let at = stage.rng.random_range(0..ticket.len() - 16);
        let at = if at < times { at } else { at + 16 };
        ticket[at] ^= 1 << stage.rng.random_range(0..8);
        join.ticket = ticket.into();
        say(stage, join)
    }),
    ("JOIN with a bit of the proof flipped", When::First, REFUSED, |stage| {
        let Some(mut join) = stage.join() else { return false };
        join.proof[stage.rng.random_range(0..64)] ^= 1 << stage.rng.random_range(0..8);
        say(stage, join)
    }),
    ("JOIN with no ticket", When::First, REFUSED, |stage| {
        let Some(join) = stage.join() else { return false };
        say(stage, Join { ticket: Bytes::new(), ..join })
    }),
    ("JOIN with a ticket cut short", When::First, REFUSED, |stage| {
        let Some(mut join) = stage.join() else { return false };
        join.ticket.truncate(100);
        say(stage, join)
    }),
    ("JOIN with an expired ticket", When::Late, Cost::Code(TransportCode::AUTH_TIME), |stage| {
        let Some(join) = stage.join() else { return false };
        say(stage, join)
    }),
    ("JOIN with a ticket that was used", When::Again, Cost::Code(TransportCode::SUPERSEDED), |stage| {
        let Some(join) = stage.join() else { return false };
        say(stage, join)
    }),
    ("JOIN of another version", When::First, Cost::Code(TransportCode::VERSION), |stage| {
        let Some(join) = stage.join() else { return false };
        say(stage, Join { version: 99, ..join })
    }),
    ("no JOIN", When::First, Cost::Code(TransportCode::AUTH_TIMEOUT), |_| false),
    ("a grant instead of JOIN", When::First, Cost::Code(TransportCode::AUTH_TIMEOUT), |stage| {
        grant(stage, |_| ());
        false
    }),
    ("JOIN twice", When::Welcomed, VIOLATION, |stage| {
        let Some(join) = stage.join() else { return false };
        say(stage, join)
    }),
    ("a grant that nobody signed", When::Granted, REFUSED, |stage| {
        grant(stage, |grant| grant.signed.signature = [1; 64])
    }),
    ("a grant of another range than signed", When::Granted, REFUSED, |stage| grant(stage, |grant| grant.len += 1)),
    ("a grant of another stream than signed", When::Granted, REFUSED, |stage| {
        grant(stage, |grant| grant.stream.0 += 4)
    }),
    ("a grant of another id than signed", When::Granted, REFUSED, |stage| grant(stage, |grant| grant.grant.0 += 1)),
    ("a grant with another request than signed", When::Granted, REFUSED, |stage| {
        grant(stage, |grant| grant.signed.payload = Bytes::from_static(b"everything"))
    }),
    ("a grant twice", When::Granted, REFUSED, |stage| {
        grant(stage, |_| ());
        grant(stage, |_| ())
    }),
    ("a grant with all the credit there is", When::Granted, Cost::Nothing, |stage| {
        grant(stage, |grant| grant.limit = StreamOffset((1 << 62) - 1))
    }),
    ("a grant without credit", When::Granted, Cost::Nothing, |stage| {
        grant(stage, |grant| grant.limit = StreamOffset(0))
    }),
    ("stream data", When::Welcomed, VIOLATION, |stage| {
        let stream = stage.own_stream(Dir::Bi, 0);
        stage.data(stream, 0, 10, false);
        false
    }),
    ("credit for nothing again and again", When::Welcomed, FLOOD, |stage| {
        let stream = stage.own_stream(Dir::Bi, 0);
        (0..100).for_each(|_| stage.say(MaxStreamData { stream, limit: StreamOffset(7) }));
        stage.tick < 100
    }),
    ("a lease that nobody signed", When::Welcomed, REFUSED, |stage| {
        let (path, issued_at_ms) = (stage.scene.path, now_ms(stage));
        stage.say(Lease { path, issued_at_ms, signature: [1; 64] });
        false
    }),
    ("leases of another time, again and again", When::Welcomed, FLOOD, |stage| {
        let path = stage.scene.path;
        let times = [0, 1, now_ms(stage) - 31_000, now_ms(stage) + 31_000, (1 << 62) - 1];
        (0..100).for_each(|number| stage.say(Lease { path, issued_at_ms: times[number % 5], signature: [1; 64] }));
        stage.tick < 100
    }),
    ("a lease of another path", When::Welcomed, VIOLATION, |stage| {
        let (path, issued_at_ms) = (PathId(stage.scene.path.0 + 1), now_ms(stage));
        stage.say(Lease { path, issued_at_ms, signature: [1; 64] });
        false
    }),
    ("revocations of nothing", When::Welcomed, FLOOD, |stage| {
        (0..100).for_each(|_| stage.say(Revoke { grant: GrantId(7), epoch: Epoch(7) }));
        stage.tick < 100
    }),
    ("receipts for packets nobody sent", When::Welcomed, FLOOD, |stage| {
        (0..100).for_each(|sequence| {
            stage.say(RawStatus { from: stage.scene.path, to: PathId(0), sequence, code: CODE });
        });
        stage.tick < 100
    }),
    ("a raw packet with a forged forwarded ticket", When::Welcomed, Cost::Nothing, |stage| {
        let signed = SignedPayload { sequence: 0, payload: Bytes::from_static(b"obey"), signature: [0; 64] };
        let forwarded_ticket = Bytes::from_static(&[1; 300]);
        let bytes = RawForward { from: PathId(5), forwarded_ticket, signed }.encode();
        stage.packet(&bytes);
        false
    }),
];

fn now_ms(stage: &Stage<'_>) -> u64 {
    u64::try_from(stage.wall.since_epoch().as_millis()).unwrap_or(u64::MAX)
}

fn say(stage: &mut Stage<'_>, join: Join) -> bool {
    stage.say(join);
    false
}

/// The primary's grant as it must be forwarded, with something changed.
pub(super) fn grant(stage: &mut Stage<'_>, change: impl FnOnce(&mut GrantOpen)) -> bool {
    let path = stage.scene.path;
    let Some(grant) = stage.shared.granted.iter().find(|grant| grant.path == path).cloned() else { return false };
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
    stage.packet(&open.encode());
    false
}
