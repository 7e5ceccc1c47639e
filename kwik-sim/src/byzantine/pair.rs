//! Two dishonest servers of one session, each of which knows what the other was granted and received.

use std::fmt;

use bytes::Bytes;
use kwik_core::__test_exports::{AddPath, GrantEnd, GrantOpen, Raw, RawStatus, RemovePath, Revoke, sign_raw};
use kwik_core::{Epoch, ErrorCode, GrantId, PathId, PublicIdentity, TransportCode};

use super::behaviour::{Behaviour, Cost, PeerRole, VIOLATION, When};
use super::peer::{PeerContext, stream_frame};
use super::primary::grant;

/// A way in which two servers spoil a session together.
#[derive(Clone, Copy)]
pub struct Pair {
    /// What each of them does, under one name.
    pub members: [Behaviour; 2],
}

/// When and how a member acts.
type PairMember = (When, fn(&mut PeerContext<'_>) -> bool);

/// A name, what it costs at least one of them, and the two.
type PairRow = (&'static str, Cost, [PairMember; 2]);

/// What two secondaries of one primary do.
const SECONDARIES: &[PairRow] = &[
    (
        "raw packets for each other, no receipts",
        Cost::Nothing,
        [(When::Welcomed, send_raw), (When::Welcomed, send_raw)],
    ),
    ("raw packets for one that reads nothing", Cost::Nothing, [(When::Welcomed, send_raw), (When::Welcomed, go_deaf)]),
    (
        "raw packets for each other, all received",
        Cost::Nothing,
        [(When::Welcomed, send_and_receive), (When::Welcomed, send_and_receive)],
    ),
    ("hoarded receipts", VIOLATION, [(When::Welcomed, send_raw), (When::Welcomed, hoard_receipts)]),
    (
        "bytes of each other's grants",
        Cost::Code(TransportCode::GRANT_VIOLATION),
        [(When::Placed, write_others), (When::Placed, write_others)],
    ),
    ("ends of each other's grants", VIOLATION, [(When::Placed, end_others), (When::Placed, end_others)]),
    (
        "bytes held back until another has the grant",
        Cost::Nothing,
        [(When::Placed, write_late), (When::Placed, write_at_once)],
    ),
    (
        "all but the first byte of every grant",
        Cost::Nothing,
        [(When::Placed, leave_a_hole), (When::Placed, leave_a_hole)],
    ),
];

/// What a primary and its secondary do.
const WITH_PRIMARY: &[PairRow] = &[
    (
        "one range from both, with other bytes",
        Cost::Stream(TransportCode::RANGE_CONFLICT),
        [(When::Partnered, grant_and_write), (When::Placed, contradict)],
    ),
    ("grants that end at once", Cost::Nothing, [(When::Partnered, grant_on_and_on), (When::Placed, end_own)]),
    (
        "grants revoked while they are written",
        Cost::Nothing,
        [(When::Partnered, grant_and_revoke), (When::Placed, write_at_once)],
    ),
    (
        "all the grants there may be, none of them served",
        Cost::Nothing,
        [(When::Partnered, grant_much), (When::Placed, |_| false)],
    ),
    (
        "one path added and removed on and on",
        Cost::Nothing,
        [(When::Partnered, add_and_remove), (When::Welcomed, |_| false)],
    ),
    ("raw packets both ways, no receipts", Cost::Nothing, [(When::Partnered, send_raw), (When::Welcomed, send_raw)]),
    (
        "raw packets both ways, hoarded receipts",
        VIOLATION,
        [(When::Partnered, hoard_receipts), (When::Welcomed, send_raw)],
    ),
];

impl Pair {
    /// Every pair.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let pairs = |rows: &[PairRow], roles: [PeerRole; 2]| -> Vec<Self> {
            let member = |name, cost, role, (when, act): PairMember| Behaviour { name, role, when, cost, act };
            let pair = |(name, cost, [first, second]): &PairRow| Self {
                members: [member(*name, *cost, roles[0], *first), member(*name, *cost, roles[1], *second)],
            };
            rows.iter().map(pair).collect()
        };
        let with_primary = pairs(WITH_PRIMARY, [PeerRole::Primary, PeerRole::Secondary]);
        [pairs(SECONDARIES, [PeerRole::Secondary; 2]), with_primary].concat()
    }

    /// What they do, in a few words; unique among all pairs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.members[0].name
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} and {:?}: {}", self.members[0].role, self.members[1].role, self.name())
    }
}

// ---- raw packets

/// Packets of one act. Each is signed, and verified by who receives it.
const PACKETS: u64 = 12;
const SENDING_TICKS: u32 = 40;

fn send_raw(peer: &mut PeerContext<'_>) -> bool {
    for (to, _) in peer.others() {
        for number in 0..PACKETS {
            let sequence = u64::from(peer.tick) * PACKETS + number;
            let context = (peer.session(), peer.state.path, to, sequence);
            let payload = Bytes::from(vec![0; if number == 0 { 4096 } else { 100 }]);
            let signed = sign_raw(peer.key, context, payload);
            peer.say(Raw { to, signed });
        }
    }
    peer.tick < SENDING_TICKS
}

fn go_deaf(peer: &mut PeerContext<'_>) -> bool {
    peer.connection.deaf = true;
    false
}

/// Answers every packet that came since the last time.
fn receive(peer: &mut PeerContext<'_>) {
    let code = TransportCode::NO_ERROR.into();
    for (from, sequence) in std::mem::take(&mut peer.state.raw) {
        peer.say(RawStatus { from, to: peer.state.path, sequence, code });
    }
}

fn send_and_receive(peer: &mut PeerContext<'_>) -> bool {
    receive(peer);
    send_raw(peer) || peer.tick < 2 * SENDING_TICKS
}

/// Answers after a long time, and everything twice.
fn hoard_receipts(peer: &mut PeerContext<'_>) -> bool {
    const UNTIL: u32 = 400;
    if peer.tick < UNTIL {
        return true;
    }
    let hoard = peer.state.raw.clone();
    receive(peer);
    peer.state.raw = hoard;
    receive(peer);
    false
}

// ---- bytes

fn write_others(peer: &mut PeerContext<'_>) -> bool {
    for (_, grants) in peer.others() {
        for grant in grants {
            peer.data(grant.stream, grant.start.0, grant.len.min(1000), false);
        }
    }
    peer.tick < 20
}

fn end_others(peer: &mut PeerContext<'_>) -> bool {
    for (_, grants) in peer.others() {
        grants.iter().for_each(|grant| end(peer, grant));
    }
    peer.tick < 20
}

fn end(peer: &mut PeerContext<'_>, grant: &GrantOpen) {
    peer.say(GrantEnd { grant: grant.grant, end: grant.start, code: ErrorCode::Application(0) });
}

/// Ends every grant of its own without a byte.
fn end_own(peer: &mut PeerContext<'_>) -> bool {
    let grants = std::mem::take(&mut peer.state.grants);
    grants.iter().for_each(|grant| end(peer, grant));
    peer.tick < 400
}

fn write_at_once(peer: &mut PeerContext<'_>) -> bool {
    let grants = std::mem::take(&mut peer.state.grants);
    grants.iter().for_each(|grant| write(peer, grant, 0));
    peer.tick < 1000
}

/// The primary takes a grant from who brings nothing for some seconds, and gives it to another.
fn write_late(peer: &mut PeerContext<'_>) -> bool {
    const AFTER: u32 = 660;
    if peer.tick >= AFTER {
        write_at_once(peer);
    }
    peer.tick < 2 * AFTER
}

fn leave_a_hole(peer: &mut PeerContext<'_>) -> bool {
    let grants = std::mem::take(&mut peer.state.grants);
    grants.iter().for_each(|grant| write(peer, grant, 1));
    peer.tick < 600
}

/// All bytes of a grant but the first ones, as far as the credit goes.
fn write(peer: &mut PeerContext<'_>, grant: &GrantOpen, without: u64) {
    const PIECE: u64 = 8 * 1024;
    let last = (grant.start.0 + grant.len).min(grant.limit.0);
    let mut at = grant.start.0 + without;
    while at < last {
        let len = PIECE.min(last - at);
        peer.data(grant.stream, at, len, false);
        at += len;
    }
}

/// Grants a range and writes it itself.
fn grant_and_write(peer: &mut PeerContext<'_>) -> bool {
    const WRITTEN_AT: u32 = 60;
    let Some((stream, _)) = peer.place() else { return false };
    match peer.tick {
        // Beyond a gap, so that what comes first waits for what comes then.
        0 => grant(peer, 0, 1, 1, 4000),
        // A grant of what is there already goes to nobody.
        WRITTEN_AT => {
            peer.data(stream, 1, 4000, false);
            false
        }
        _ => false,
    };
    peer.tick < WRITTEN_AT
}

/// The opposite of what the others write.
fn contradict(peer: &mut PeerContext<'_>) -> bool {
    let Some(grant) = peer.state.grants.first().cloned() else { return false };
    let content = peer.content;
    let wrong: Vec<u8> = (grant.start.0..grant.start.0 + grant.len).map(|at| !content(at)).collect();
    peer.packet(&stream_frame(grant.stream, grant.start.0, &wrong, false));
    false
}

// ---- what a primary says of its secondary

fn grant_on_and_on(peer: &mut PeerContext<'_>) -> bool {
    const ROUNDS: u32 = 300;
    (0..2).for_each(|number| {
        let number = u64::from(peer.tick) * 2 + number;
        grant(peer, number, 1, number * 10, 10);
    });
    peer.tick < ROUNDS
}

fn grant_and_revoke(peer: &mut PeerContext<'_>) -> bool {
    let number = u64::from(peer.tick);
    grant(peer, number, 1, 1000 * number, 1000);
    if let Some(before) = number.checked_sub(8) {
        peer.say(Revoke { grant: GrantId(before), epoch: Epoch(1_000_000 + before) });
    }
    peer.tick < 200
}

fn grant_much(peer: &mut PeerContext<'_>) -> bool {
    const GRANTS: u64 = 60;
    (0..GRANTS).for_each(|number| {
        grant(peer, number, 1, number << 30, 1 << 30);
    });
    false
}

fn add_and_remove(peer: &mut PeerContext<'_>) -> bool {
    const EVERY: u32 = 20;
    if !peer.tick.is_multiple_of(EVERY) {
        return peer.tick < 10 * EVERY;
    }
    let Some(added) = peer.state.partner.clone() else { return false };
    let AddPath { path, epoch, address, server_name, identity, .. } = added;
    let code = ErrorCode::Transport(TransportCode::PATH_REMOVED);
    peer.say(RemovePath { path, epoch: Epoch(epoch.0 + 1), code });
    let (path, epoch) = (PathId(path.0 + 1), Epoch(epoch.0 + 2));
    let secondary = PublicIdentity::from_bytes(&identity).ok();
    let ticket = secondary.and_then(|secondary| peer.ticket_of_epoch(path, epoch, secondary, &server_name));
    let Some(ticket) = ticket else { return false };
    let added = AddPath { path, epoch, address, server_name, identity, ticket };
    peer.say(added.clone());
    peer.state.partner = Some(added);
    true
}
