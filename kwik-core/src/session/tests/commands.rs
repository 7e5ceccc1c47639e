//! What is said about paths, grants, raw packets and the end: which of it is believed.

use std::time::Duration;

use bytes::Bytes;

use super::{CLIENT, OTHER, PRIMARY, PathInput, SECONDARY, Trio};
use crate::auth::{self, Identity, SignatureContext};
use crate::error::{ErrorCode, SessionError, TransportCode};
use crate::id::{Dir, Epoch, GrantId, PathId, SessionId, StreamId, StreamOffset};
use crate::limits::{Limits, RAW_BYTES_MAX, REQUEST_BYTES_MAX, VARINT_MAX};
use crate::session::client::Relay;
use crate::session::{PathTarget, RoleState};
use crate::status::{GrantStatus, PathState};
use crate::stream::ReadError;
use crate::wire::{
    AddPath, CarrierItem, Close, ControlFrame, Grant, GrantOpen, MaxStreamData, PathStatus, Raw, RawForward, RawStatus,
    RemovePath, SignedPayload, Welcome, WirePathState,
};

fn identity(node: usize) -> Identity {
    Identity::from_seed([u8::try_from(node).unwrap() + 1; 32])
}

impl Trio {
    fn session_id(&mut self) -> SessionId {
        self.machine(PRIMARY).id().expect("a primary knows its session")
    }

    fn relay(&mut self) -> &mut Relay {
        match &mut self.machine(CLIENT).role {
            RoleState::Client(client) => &mut client.relay,
            _ => panic!("no client"),
        }
    }

    /// A WELCOME that is right in all but what the arguments make wrong.
    fn welcome(&mut self, on: PathId, node: usize, session: SessionId, path: PathId) -> Welcome {
        let machine = self.machine(CLIENT);
        let exporter = machine.path_mut(on).expect("a path").exporter().expect("a connection");
        let RoleState::Client(client) = &machine.role else { panic!("no client") };
        let signature = auth::welcome_proof(&identity(node), &exporter, session, path, &client.key.public());
        let params = crate::session::common::params(&Limits::default());
        Welcome { session, path, params, identity: *identity(node).public().as_bytes(), signature }
    }

    /// One more path of the session, to `OTHER`, that has not been answered.
    fn joining(&mut self) -> PathId {
        let address = self.nodes[OTHER].0;
        let target = PathTarget { address, server_name: "kwik.test".to_owned(), identity: identity(OTHER).public() };
        let (now, primary) = (self.now, self.sessions[PRIMARY]);
        let path = self.nodes[PRIMARY].1.session_mut(primary).unwrap().add_path(now, target).unwrap();
        self.await_authenticating(path);
        path
    }

    /// One more session of the client, which has not been answered.
    fn unanswered(&mut self) {
        let (now, config, address) = (self.now, self.config.clone(), self.nodes[PRIMARY].0);
        self.sessions[CLIENT] = self.nodes[CLIENT].1.connect(now, config, address, "kwik.test").unwrap();
        self.await_authenticating(PathId::PRIMARY);
    }
}

// [P-4.11]
#[test]
fn welcome_must_prove_what_was_expected() {
    let mut trio = Trio::new();
    let session = trio.session_id();
    let path = trio.joining();
    let welcome = trio.welcome(path, OTHER, session, path);
    trio.forge_control(CLIENT, path, welcome);
    assert_eq!(trio.state(CLIENT, path), Some(PathState::Active), "the honest one");

    type Lie = fn(&mut Trio, PathId, SessionId) -> Welcome;
    let lies: [(&str, Lie); 5] = [
        ("another identity", |trio, path, session| trio.welcome(path, SECONDARY, session, path)),
        ("another session", |trio, path, _| trio.welcome(path, OTHER, SessionId([0; 16]), path)),
        ("another path", |trio, path, session| trio.welcome(path, OTHER, session, PathId(1))),
        ("another key", |trio, path, session| Welcome {
            identity: [0; 32],
            ..trio.welcome(path, OTHER, session, path)
        }),
        ("no signature", |trio, path, session| Welcome {
            signature: [0; 64],
            ..trio.welcome(path, OTHER, session, path)
        }),
    ];
    for (what, lie) in lies {
        let mut trio = Trio::new();
        let session = trio.session_id();
        let path = trio.joining();
        let welcome = lie(&mut trio, path, session);
        trio.forge_control(CLIENT, path, welcome);
        let state = trio.state(CLIENT, path);
        let code = TransportCode::IDENTITY_MISMATCH;
        assert!(matches!(&state, Some(PathState::Dead(reason)) if reason.code == code.into()), "{what}: {state:?}");
        assert!(trio.is_open(CLIENT));
    }
    let mut trio = Trio::new();
    let session = trio.session_id();
    trio.unanswered();
    let welcome = trio.welcome(PathId::PRIMARY, PRIMARY, session, PathId(1));
    trio.forge_control(CLIENT, PathId::PRIMARY, welcome);
    trio.assert_session_failed(CLIENT, TransportCode::IDENTITY_MISMATCH);
}

// [P-3.2]
#[test]
fn server_says_nothing_before_welcome() {
    let close = || Close { code: ErrorCode::Application(0), reason: String::new() };
    let mut trio = Trio::new();
    trio.unanswered();
    trio.forge_control(CLIENT, PathId::PRIMARY, close());
    trio.assert_session_failed(CLIENT, TransportCode::PROTOCOL_VIOLATION);
    let mut trio = Trio::new();
    let path = trio.joining();
    trio.forge_control(CLIENT, path, close());
    assert!(trio.state(CLIENT, path).is_some_and(|state| state.is_dead()));
}

fn add_path(path: u32, epoch: u64) -> AddPath {
    AddPath {
        path: PathId(path),
        epoch: Epoch(epoch),
        // Refused by every policy, so that nothing is dialled.
        address: "224.0.0.1:4433".parse().unwrap(),
        server_name: "kwik.test".to_owned(),
        identity: *identity(OTHER).public().as_bytes(),
        ticket: Bytes::new(),
    }
}

fn remove_path(path: u32, epoch: u64) -> RemovePath {
    RemovePath { path: PathId(path), epoch: Epoch(epoch), code: ErrorCode::Application(5) }
}

// [P-8.1] [P-8.5]
#[test]
fn path_commands_are_new_and_about_paths_that_were_added() {
    // The primary added paths 1 and 2 with epochs 1 and 2.
    let (last, last_epoch) = (u32::MAX, VARINT_MAX);
    let cases: [(&str, Vec<ControlFrame>, bool); 12] = [
        ("new", vec![add_path(3, 3).into(), add_path(7, 9).into()], true),
        ("an old epoch", vec![add_path(3, 2).into()], false),
        ("a path again", vec![add_path(2, 3).into()], false),
        ("a path below", vec![add_path(7, 3).into(), add_path(6, 4).into()], false),
        ("removal with an old epoch", vec![remove_path(1, 2).into()], false),
        ("removal of the primary", vec![remove_path(0, 3).into()], false),
        ("removal of what was never added", vec![remove_path(3, 3).into()], false),
        ("removal of a dead path", vec![remove_path(1, 3).into(), remove_path(1, 4).into()], true),
        ("the last id there is", vec![add_path(last, 3).into(), remove_path(last, 4).into()], true),
        ("the last id again", vec![add_path(last, 3).into(), add_path(last, 4).into()], false),
        ("the last epoch there is", vec![add_path(3, last_epoch).into()], true),
        ("the last epoch again", vec![add_path(3, last_epoch).into(), add_path(4, last_epoch).into()], false),
    ];
    for (what, frames, legal) in cases {
        let mut trio = Trio::new();
        for frame in frames {
            trio.forge_control(CLIENT, PathId::PRIMARY, frame);
        }
        assert_eq!(trio.is_open(CLIENT), legal, "{what}");
        if !legal {
            trio.assert_session_failed(CLIENT, TransportCode::PROTOCOL_VIOLATION);
        }
    }
    let mut trio = Trio::new();
    trio.forge_control(CLIENT, PathId::PRIMARY, remove_path(1, 3));
    trio.settle();
    let closed = SessionError::ClosedByPeer { code: 5, reason: "removed by the primary".to_owned(), cut_short: false };
    assert_eq!(trio.close_reason(SECONDARY), Some(closed), "with the code of REMOVE_PATH");
}

/// Each took the place of the one before, whose connection nobody owned any more.
// [P-8.1]
#[test]
fn regression_last_path_id_is_dialled_once_and_leaves_no_connection_behind() {
    let mut trio = Trio::new();
    let address = trio.nodes[OTHER].0;
    for epoch in 3..8 {
        trio.forge_control(CLIENT, PathId::PRIMARY, AddPath { address, ..add_path(u32::MAX, epoch) });
        trio.exchange();
    }
    let (now, client) = (trio.now, trio.sessions[CLIENT]);
    trio.nodes[CLIENT].1.release(now, client);
    for _ in 0..100 {
        trio.settle();
    }
    assert!(trio.nodes[CLIENT].1.is_idle(), "a connection stayed");
}

// [P-8.1] [P-8.7]
#[test]
fn last_path_id_is_granted_to_and_gone_like_any_other() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    trio.forge_control(CLIENT, PathId::PRIMARY, add_path(u32::MAX, 9));
    let frame = Grant { stream: delegated.id, ..grant(77, u32::MAX, 0) };
    trio.forge_control(CLIENT, PathId::PRIMARY, frame);
    assert!(trio.is_open(CLIENT), "a grant for the last path id");
    let late = RawStatus { from: PathId(u32::MAX), to: PathId(1), sequence: 0, code: TransportCode::NO_ERROR.into() };
    trio.forge_control(CLIENT, PathId(1), late);
    assert!(!trio.state(CLIENT, PathId(1)).is_some_and(|state| state.is_dead()), "a receipt for a path that is gone");
}

// [P-8.6]
#[test]
fn path_status_is_about_paths_that_were_added() {
    let status = |path| PathStatus {
        path: PathId(path),
        state: WirePathState::Dead,
        code: TransportCode::TIMED_OUT.into(),
        rtt: Duration::ZERO,
        rtt_min: Duration::ZERO,
        rate: 0,
        bytes: 0,
    };
    let mut trio = Trio::new();
    trio.forge_control(PRIMARY, PathId::PRIMARY, status(0));
    assert!(trio.is_open(PRIMARY), "about itself");
    trio.forge_control(PRIMARY, PathId::PRIMARY, status(1));
    let alive = PathStatus { state: WirePathState::Active, ..status(1) };
    trio.forge_control(PRIMARY, PathId::PRIMARY, alive);
    let primary = trio.sessions[PRIMARY];
    let info = trio.nodes[PRIMARY].1.session(primary).unwrap().path(PathId(1)).unwrap();
    assert!(info.state.is_dead(), "dead is the last of it");
    trio.forge_control(PRIMARY, PathId::PRIMARY, status(3));
    trio.assert_session_failed(PRIMARY, TransportCode::PROTOCOL_VIOLATION);
}

fn grant(id: u64, path: u32, request: usize) -> Grant {
    let signed = SignedPayload { sequence: id, payload: Bytes::from(vec![0; request]), signature: [0; 64] };
    let (grant, epoch, path) = (GrantId(id), Epoch(9), PathId(path));
    Grant { grant, epoch, path, stream: StreamId(0), start: StreamOffset(1000), len: 10, signed }
}

// [P-8.7]
#[test]
fn grants_are_new_and_for_paths_that_were_added() {
    let violation = Some(TransportCode::PROTOCOL_VIOLATION);
    let cases = [
        (grant(50, 1, REQUEST_BYTES_MAX), None),
        (grant(50, 1, REQUEST_BYTES_MAX + 1), Some(TransportCode::FRAME_TOO_LARGE)),
        (grant(50, 0, 0), violation),
        (grant(50, 3, 0), violation),
    ];
    for (frame, fault) in cases {
        let mut trio = Trio::new();
        trio.delegated();
        trio.forge_control(CLIENT, PathId::PRIMARY, frame);
        match fault {
            Some(code) => trio.assert_session_failed(CLIENT, code),
            None => assert!(trio.is_open(CLIENT)),
        }
    }
    let mut trio = Trio::new();
    let known = trio.delegated().grant;
    trio.forge_control(CLIENT, PathId::PRIMARY, grant(known.0, 1, 0));
    trio.assert_session_failed(CLIENT, TransportCode::PROTOCOL_VIOLATION);
}

// [P-8.16]
#[test]
fn grant_for_a_path_that_is_gone_is_lost_at_once() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    let (primary, path) = (trio.sessions[PRIMARY], trio.path);
    // The primary delegates before it hears of the death.
    let mut session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
    let late = session.stream_mut(delegated.there).delegate(path, 10, Bytes::new()).unwrap().grant;
    trio.forge(CLIENT, path, PathInput::Lost(crate::error::DeadReason::new(TransportCode::TIMED_OUT, "")));
    trio.settle();
    let session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
    let lost = |code: TransportCode, missing| GrantStatus::Lost { code: code.into(), missing: vec![missing] };
    assert_eq!(session.delegation(delegated.grant), Some(lost(TransportCode::TIMED_OUT, 0..100)));
    assert_eq!(session.delegation(late), Some(lost(TransportCode::PATH_UNKNOWN, 100..110)));
}

/// A grant as the client would forward it, signed by the primary.
fn signed(session: SessionId, id: u64, sequence: u64) -> GrantOpen {
    let (grant, stream, request) = (GrantId(id), StreamId(0), Bytes::from_static(b"go"));
    let context = SignatureContext { session, from: PathId::PRIMARY, to: PathId(1), sequence };
    let signature = auth::sign_grant(&identity(PRIMARY), context, grant, stream, 0..10, &request);
    GrantOpen {
        grant,
        epoch: Epoch(0),
        stream,
        start: StreamOffset(0),
        len: 10,
        limit: StreamOffset(100),
        signed: SignedPayload { sequence, payload: request, signature },
    }
}

// [P-8.10]
#[test]
fn secondary_believes_what_the_primary_signed_and_that_once() {
    let mut trio = Trio::new();
    let (session, path) = (trio.session_id(), trio.path);
    for (id, sequence) in [(70, 3), (71, 8)] {
        trio.forge(SECONDARY, path, PathInput::Data(CarrierItem::Grant(signed(session, id, sequence))));
        assert!(trio.is_open(SECONDARY), "gaps are legal");
    }
    let other_limit = GrantOpen { epoch: Epoch(8), limit: StreamOffset(5), ..signed(session, 72, 9) };
    trio.forge(SECONDARY, path, PathInput::Data(CarrierItem::Grant(other_limit)));
    assert!(trio.is_open(SECONDARY), "epoch and limit are the client's word");
    let honest = signed(session, 73, 10);
    let lies = [
        ("a sequence again", signed(session, 73, 9)),
        ("a longer range", GrantOpen { len: 11, ..honest.clone() }),
        ("another start", GrantOpen { start: StreamOffset(1), ..honest.clone() }),
        ("another stream", GrantOpen { stream: StreamId(4), ..honest.clone() }),
        ("another grant", GrantOpen { grant: GrantId(74), ..honest.clone() }),
        ("another session", signed(SessionId([0; 16]), 73, 10)),
        (
            "another request",
            GrantOpen { signed: SignedPayload { payload: Bytes::new(), ..honest.signed.clone() }, ..honest },
        ),
    ];
    for (what, lie) in lies {
        let mut trio = Trio::new();
        trio.forge(SECONDARY, path, PathInput::Data(CarrierItem::Grant(signed(session, 72, 9))));
        assert!(trio.is_open(SECONDARY));
        trio.forge(SECONDARY, path, PathInput::Data(CarrierItem::Grant(lie)));
        assert!(!trio.is_open(SECONDARY), "{what}");
        trio.assert_session_failed(SECONDARY, TransportCode::AUTH_FAILED);
    }
}

fn raw(to: PathId, sequence: u64, len: usize) -> Raw {
    Raw { to, signed: SignedPayload { sequence, payload: Bytes::from(vec![0; len]), signature: [0; 64] } }
}

// [P-7.2]
#[test]
fn client_carries_so_many_raw_packets_from_one_server_to_another() {
    let limited = |to, sequence| RawStatus { from: PathId(1), to, sequence, code: TransportCode::RAW_LIMIT.into() };
    let mut trio = Trio::new();
    let (path, other) = (trio.path, trio.other_path);
    for sequence in 0..64 {
        trio.forge_control(CLIENT, path, raw(other, sequence, 10));
    }
    assert_eq!(trio.relay().pop_status(path), None);
    trio.forge_control(CLIENT, path, raw(other, 64, 10));
    assert_eq!(trio.relay().pop_status(path), Some(limited(other, 64)), "one more");
    trio.forge_control(CLIENT, path, raw(PathId::PRIMARY, 0, 10));
    assert_eq!(trio.relay().pop_status(path), None, "another target has its own count");
    trio.forge_control(CLIENT, path, raw(PathId::PRIMARY, 0, 10));
    assert_eq!(trio.relay().pop_status(path), Some(limited(PathId::PRIMARY, 0)), "a number that waits");

    let mut trio = Trio::new();
    let fit = 256 * 1024 / RAW_BYTES_MAX as u64;
    for sequence in 0..fit {
        trio.forge_control(CLIENT, path, raw(other, sequence, RAW_BYTES_MAX));
    }
    assert_eq!(trio.relay().pop_status(path), None);
    trio.forge_control(CLIENT, path, raw(other, fit, RAW_BYTES_MAX));
    assert_eq!(trio.relay().pop_status(path), Some(limited(other, fit)), "too many bytes");

    let answered = |to, sequence, code: TransportCode| RawStatus { from: path, to, sequence, code: code.into() };
    for to in [path, PathId(9)] {
        trio.forge_control(CLIENT, path, raw(to, 0, 1));
        assert_eq!(trio.relay().pop_status(path), Some(answered(to, 0, TransportCode::PATH_UNKNOWN)));
    }
    trio.forge(CLIENT, other, PathInput::Lost(crate::error::DeadReason::new(TransportCode::TIMED_OUT, "")));
    for sequence in 0..fit {
        let told = trio.relay().pop_status(path);
        assert_eq!(told, Some(answered(other, sequence, TransportCode::SOURCE_LOST)), "the target died");
    }
}

// [P-7.5]
#[test]
fn receipts_come_from_the_receiver_of_the_packet() {
    let mut trio = Trio::new();
    let (path, other) = (trio.path, trio.other_path);
    let receipt = RawStatus { from: PathId::PRIMARY, to: other, sequence: 0, code: TransportCode::NO_ERROR.into() };
    trio.forge_control(CLIENT, PathId::PRIMARY, raw(other, 0, 10));
    trio.turn(CLIENT);
    trio.forge_control(CLIENT, other, receipt.clone());
    assert!(trio.client_path_state(other).is_usable());
    trio.forge_control(CLIENT, PathId::PRIMARY, raw(other, 1, 10));
    trio.turn(CLIENT);
    trio.forge_control(CLIENT, path, RawStatus { sequence: 1, ..receipt.clone() });
    trio.assert_path_died(path, TransportCode::PROTOCOL_VIOLATION);
    trio.forge_control(CLIENT, other, receipt);
    trio.assert_path_died(other, TransportCode::PROTOCOL_VIOLATION);
}

// [P-7.1] [P-7.3] [P-7.4]
#[test]
fn every_raw_packet_is_answered_once_and_taken_in_order() {
    let mut trio = Trio::new();
    let (session, path) = (trio.session_id(), trio.path);
    let signed = |from: PathId, node: usize, sequence| {
        let context = SignatureContext { session, from, to: PathId(1), sequence };
        let payload = Bytes::from_static(b"data");
        let signature = auth::sign_raw(&identity(node), context, &payload);
        RawForward { from, forwarded_ticket: Bytes::new(), signed: SignedPayload { sequence, payload, signature } }
    };
    let packets = [
        (signed(PathId::PRIMARY, PRIMARY, 4), TransportCode::NO_ERROR),
        (signed(PathId::PRIMARY, PRIMARY, 4), TransportCode::AUTH_FAILED),
        (signed(PathId::PRIMARY, PRIMARY, 3), TransportCode::AUTH_FAILED),
        (signed(PathId::PRIMARY, OTHER, 5), TransportCode::AUTH_FAILED),
        (signed(PathId::PRIMARY, PRIMARY, 6), TransportCode::NO_ERROR),
        // Without a forwarded ticket nobody knows who is behind path 2.
        (signed(PathId(2), OTHER, 0), TransportCode::AUTH_FAILED),
        (signed(PathId(1), SECONDARY, 0), TransportCode::PATH_UNKNOWN),
    ];
    for (packet, code) in packets {
        let (from, sequence) = (packet.from, packet.signed.sequence);
        trio.forge(SECONDARY, path, PathInput::Data(CarrierItem::Raw(packet)));
        let now = trio.now;
        let RoleState::Secondary(secondary) = &mut trio.machine(SECONDARY).role else { panic!("no secondary") };
        let answer = RawStatus { from, to: path, sequence, code: code.into() };
        assert_eq!(secondary.raw.poll_control(now), Some(answer.into()));
        assert_eq!(secondary.raw.poll_control(now), None);
    }
    let mut view = trio.nodes[SECONDARY].1.session_mut(trio.sessions[SECONDARY]).unwrap();
    assert_eq!(std::iter::from_fn(|| view.recv_raw()).count(), 2);
    assert!(trio.is_open(SECONDARY));
}

fn close() -> Close {
    Close { code: ErrorCode::Application(3), reason: "enough".to_owned() }
}

// [P-5.16]
#[test]
fn frames_that_achieve_nothing_are_counted() {
    let mut trio = Trio::new();
    trio.delegated();
    let mut taken = 0;
    while trio.is_open(PRIMARY) && taken < 2000 {
        trio.forge_control(PRIMARY, PathId::PRIMARY, MaxStreamData { stream: StreamId(0), limit: StreamOffset(0) });
        taken += usize::from(trio.is_open(PRIMARY));
    }
    assert_eq!(taken, 1000 + 4, "four of one stream may have crossed its end");
    trio.assert_session_failed(PRIMARY, TransportCode::CONTROL_FLOOD);
}

impl Trio {
    /// The client opens and resets as many streams as it may, and the primary's application lets go of each. Returns how
    /// many streams that were.
    fn give_up_streams(&mut self) -> usize {
        let (client, primary) = (self.sessions[CLIENT], self.sessions[PRIMARY]);
        let mut session = self.nodes[CLIENT].1.session_mut(client).unwrap();
        let mut given_up = 0;
        while let Ok(stream) = session.open_stream(Dir::Uni) {
            given_up += 1;
            session.stream_mut(stream).reset(0).unwrap();
            session.stream_mut(stream).release_send();
        }
        while self.exchange() {
            let mut session = self.nodes[PRIMARY].1.session_mut(primary).unwrap();
            while let Some(stream) = session.accept_stream(Dir::Uni) {
                session.stream_mut(stream).release_recv();
            }
        }
        given_up
    }
}

// [P-5.9]
#[test]
fn slots_of_streams_given_up_come_back_at_a_bounded_rate() {
    let mut trio = Trio::new();
    let streams = 128;
    assert_eq!([trio.give_up_streams(), trio.give_up_streams(), trio.give_up_streams()], [streams, streams, 0]);
    for _ in 0..10 {
        let due = trio.nodes[PRIMARY].1.poll_timeout().expect("credit is to come");
        assert!(due > trio.now, "it was due already");
        trio.settle();
        // Within half a second.
        let given_up = trio.give_up_streams();
        assert!((streams / 2 - 8..=streams / 2 + 8).contains(&given_up), "{given_up}");
    }
    assert!(trio.is_open(PRIMARY) && trio.is_open(CLIENT));
}

// [P-12.3]
#[test]
fn after_close_nothing_is_opened_and_what_arrives_is_taken() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    trio.forge_control(CLIENT, PathId::PRIMARY, close());
    let client = trio.sessions[CLIENT];
    assert!(trio.nodes[CLIENT].1.session_mut(client).unwrap().open_stream(Dir::Bi).is_err());
    trio.forge_data(CLIENT, PathId::PRIMARY, delegated.id, 0, b"late", false);
    let mut session = trio.nodes[CLIENT].1.session_mut(client).unwrap();
    assert_eq!(session.stream_mut(delegated.here).read(10).unwrap().data, "late"[..]);
    let reason = crate::error::DeadReason::new(TransportCode::NO_ERROR, "");
    trio.forge(CLIENT, PathId::PRIMARY, PathInput::Lost(reason));
    let told = SessionError::ClosedByPeer { code: 3, reason: "enough".to_owned(), cut_short: false };
    assert_eq!(trio.close_reason(CLIENT), Some(told));
}

// [P-12.4]
#[test]
fn secondary_that_announced_its_end_must_leave_in_time() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    let path = trio.path;
    trio.forge_control(CLIENT, path, close());
    trio.forge_data(CLIENT, path, delegated.id, 0, b"late", false);
    let client = trio.sessions[CLIENT];
    let mut session = trio.nodes[CLIENT].1.session_mut(client).unwrap();
    assert_eq!(session.stream_mut(delegated.here).read(10).unwrap().data, "late"[..]);
    let before = trio.machine(CLIENT).path_mut(path).unwrap().packets_sent();
    trio.forge_control(CLIENT, PathId::PRIMARY, raw(path, 0, 10));
    while trio.now < crate::test_support::instant() + Duration::from_millis(9500) {
        trio.settle();
    }
    assert_eq!(trio.machine(CLIENT).path_mut(path).unwrap().packets_sent(), before, "something was forwarded");
    assert_eq!(trio.client_path_state(path), PathState::Closing);
    (0..4).for_each(|_| trio.settle());
    trio.assert_path_died(path, TransportCode::GOING_AWAY);
}

// [P-11.2] [P-12.5]
#[test]
fn fault_on_path_0_closes_every_path_with_its_code() {
    let mut trio = Trio::new();
    trio.forge_control(CLIENT, PathId::PRIMARY, add_path(2, 3));
    trio.settle();
    for node in [CLIENT, PRIMARY, SECONDARY, OTHER] {
        trio.assert_session_failed(node, TransportCode::PROTOCOL_VIOLATION);
    }
    let mut trio = Trio::new();
    let reason = crate::error::DeadReason::new(TransportCode::TIMED_OUT, "");
    trio.forge(CLIENT, PathId::PRIMARY, PathInput::Lost(reason));
    trio.settle();
    assert_eq!(trio.close_reason(CLIENT), Some(SessionError::TimedOut));
    for node in [SECONDARY, OTHER] {
        trio.assert_session_failed(node, TransportCode::SOURCE_LOST);
    }
}

// [P-8.12]
#[test]
fn secondary_writes_neither_what_was_never_opened_nor_what_only_the_client_writes() {
    for never_opened in [true, false] {
        let mut trio = Trio::new();
        trio.delegated();
        let client = trio.sessions[CLIENT];
        let mut session = trio.nodes[CLIENT].1.session_mut(client).unwrap();
        let stream = session.open_stream(Dir::Uni).unwrap();
        let own = session.stream(stream).id().unwrap();
        let id = if never_opened { StreamId(own.0 + 4001) } else { own };
        trio.forge_data(CLIENT, trio.path, id, 0, b"x", false);
        trio.assert_path_died(trio.path, TransportCode::GRANT_VIOLATION);
    }
}

// [P-8.17]
#[test]
fn grant_of_a_stream_that_is_over_is_lost_at_once() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    let (client, primary, path) = (trio.sessions[CLIENT], trio.sessions[PRIMARY], trio.path);
    let mut session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
    // The primary delegates before it hears that the stream was stopped.
    let late = session.stream_mut(delegated.there).delegate(path, 10, Bytes::new()).unwrap().grant;
    trio.nodes[CLIENT].1.session_mut(client).unwrap().stream_mut(delegated.here).stop(7).unwrap();
    trio.settle();
    let session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
    for grant in [delegated.grant, late] {
        let state = session.delegation(grant);
        let code = TransportCode::STREAM_GONE.into();
        assert!(matches!(&state, Some(GrantStatus::Lost { code: found, .. }) if *found == code), "{state:?}");
    }
    let read = trio.nodes[CLIENT].1.session_mut(client).unwrap().stream_mut(delegated.here).read(1);
    assert!(matches!(read, Err(ReadError::ClosedStream)), "{read:?}");
}
