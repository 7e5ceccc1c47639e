//! What a dishonest peer sends, and what it costs whom.

use bytes::Bytes;

use super::{CLIENT, OTHER, PRIMARY, SECONDARY, Trio};
use crate::auth::{self, Identity, SealContext, Ticket, UnixTime};
use crate::error::{ErrorCode, TransportCode};
use crate::id::{Epoch, GrantId, PathId, StreamId, StreamOffset};
use crate::limits::Limits;
use crate::path::PathState;
use crate::session::DelegateError;
use crate::stream::{DelegationState, ReadError};
use crate::wire::{AddPath, CarrierItem, GrantEnd, GrantOpen, Raw, RawForward, RawStatus, Seal};

fn seal(sequence: u64) -> Seal {
    Seal { sequence, payload: Bytes::from_static(b"forged"), signature: [7; 64] }
}

/// The path died of `code`, the session did not, and the primary knows what is missing.
fn assert_path_died(trio: &mut Trio, grant: GrantId, code: TransportCode, missing: std::ops::Range<u64>) {
    trio.settle();
    let path = trio.path;
    let state = trio.client_path_state(path);
    assert!(matches!(&state, PathState::Dead(reason) if reason.code == code.into()), "{state:?}");
    assert!(trio.is_open(CLIENT) && trio.is_open(PRIMARY));
    let primary = trio.sessions[PRIMARY];
    let state = trio.nodes[PRIMARY].1.server_session(primary).unwrap().delegation(grant).unwrap();
    assert_eq!(state, DelegationState::Lost { code: code.into(), missing: vec![missing] });
    assert!(!trio.is_open(SECONDARY), "the secondary was not told");
}

// [P-8.12] [P-11.2]
#[test]
fn bytes_outside_the_grant_cost_the_path_and_none_of_them_is_taken() {
    for (offset, len) in [(99, 2), (100, 1), (5000, 1)] {
        let mut trio = Trio::new();
        let delegated = trio.delegated();
        trio.forge_data(CLIENT, trio.path, delegated.id, offset, &vec![1; len], false);
        assert_path_died(&mut trio, delegated.grant, TransportCode::GRANT_VIOLATION, 0..100);
    }
}

// [P-8.12]
#[test]
fn bytes_for_a_stream_without_a_grant_cost_the_path() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    let sibling = StreamId(delegated.id.0 + 4);
    trio.forge_data(CLIENT, trio.path, sibling, 0, b"x", false);
    assert_path_died(&mut trio, delegated.grant, TransportCode::GRANT_VIOLATION, 0..100);
}

// [P-8.12] [P-11.2]
#[test]
fn bytes_over_another_path_than_the_granted_one_cost_that_path() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    trio.forge_data(CLIENT, trio.other_path, delegated.id, 0, b"x", false);
    trio.settle();
    assert!(trio.client_path_state(trio.other_path).is_dead());
    assert!(trio.client_path_state(trio.path).is_usable());
    assert!(!trio.is_open(OTHER));
}

// [P-6.10] [P-6.12]
#[test]
fn secondary_may_not_end_a_stream() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    trio.forge_data(CLIENT, trio.path, delegated.id, 0, b"x", true);
    assert_path_died(&mut trio, delegated.grant, TransportCode::FINAL_SIZE, 0..100);
}

// [P-5.10]
#[test]
fn bytes_beyond_the_credit_cost_the_path() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    let primary = trio.sessions[PRIMARY];
    let far = 1 << 40;
    let mut session = trio.nodes[PRIMARY].1.session(primary).unwrap();
    session.stream(delegated.there).delegate_range(trio.path, far..far + 100, Bytes::new()).unwrap();
    trio.settle();
    trio.forge_data(CLIENT, trio.path, delegated.id, far, b"x", false);
    assert_path_died(&mut trio, delegated.grant, TransportCode::FLOW_CONTROL, 0..100);
}

// [P-6.14]
#[test]
fn different_bytes_of_two_servers_are_never_mixed() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    trio.forge_data(CLIENT, PathId::PRIMARY, delegated.id, 0, b"hello", false);
    trio.forge_data(CLIENT, trio.path, delegated.id, 0, b"help!", false);
    trio.settle();
    let client = trio.sessions[CLIENT];
    let read = trio.nodes[CLIENT].1.session(client).unwrap().stream(delegated.here).read(100);
    assert_eq!(read, Err(ReadError::Reset(TransportCode::RANGE_CONFLICT.into())));
    assert!(trio.is_open(CLIENT) && trio.is_open(PRIMARY) && trio.is_open(SECONDARY));
}

// [P-6.13]
#[test]
fn same_bytes_of_two_servers_count_once() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    trio.forge_data(CLIENT, PathId::PRIMARY, delegated.id, 0, b"hello", false);
    trio.forge_data(CLIENT, trio.path, delegated.id, 0, b"hello", false);
    let client = trio.sessions[CLIENT];
    let chunk = trio.nodes[CLIENT].1.session(client).unwrap().stream(delegated.here).read(100).unwrap();
    assert_eq!((&chunk.data[..], chunk.source), (&b"hello"[..], PathId::PRIMARY));
}

// [P-6.15]
#[test]
fn repeating_what_is_there_already_is_tolerated_up_to_a_limit() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    let rounds = Limits::default().duplicate_bytes_slack / 100 + 2;
    for _ in 0..rounds {
        trio.forge_data(CLIENT, trio.path, delegated.id, 0, &[1; 100], false);
    }
    trio.settle();
    let state = trio.client_path_state(trio.path);
    assert!(
        matches!(&state, PathState::Dead(reason) if reason.code == TransportCode::CONTROL_FLOOD.into()),
        "{state:?}"
    );
    assert!(trio.is_open(CLIENT));
}

// [P-8.14]
#[test]
fn end_of_a_grant_of_another_path_costs_the_path_that_said_it() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    let end = GrantEnd { grant: delegated.grant, end: StreamOffset(0), code: ErrorCode::Application(0) };
    trio.forge_control(CLIENT, trio.other_path, end);
    trio.settle();
    assert!(trio.client_path_state(trio.other_path).is_dead());
    assert!(trio.client_path_state(trio.path).is_usable());
}

// [P-8.10]
#[test]
fn grant_that_the_primary_did_not_seal_is_not_believed() {
    let mut trio = Trio::new();
    let grant = GrantOpen {
        grant: GrantId(99),
        epoch: Epoch(9),
        stream: StreamId(0),
        start: StreamOffset(0),
        len: 10,
        limit: StreamOffset(10),
        seal: seal(0),
    };
    trio.forge(SECONDARY, trio.path, super::PathInput::Data(CarrierItem::Grant(grant)));
    assert!(!trio.is_open(SECONDARY));
}

// [P-7.3]
#[test]
fn raw_packet_that_nobody_sealed_is_refused_and_costs_nothing_else() {
    let mut trio = Trio::new();
    for (node, from) in [(PRIMARY, PathId(1)), (SECONDARY, PathId(0)), (SECONDARY, PathId(2)), (PRIMARY, PathId(77))] {
        let raw = RawForward { from, endorsement: Bytes::new(), seal: seal(0) };
        let path = if node == PRIMARY { PathId::PRIMARY } else { trio.path };
        trio.forge(node, path, super::PathInput::Data(CarrierItem::Raw(raw)));
        let session = trio.sessions[node];
        assert_eq!(trio.nodes[node].1.server_session(session).unwrap().recv_raw(), None);
        assert!(trio.is_open(node));
    }
}

// [P-7.3]
#[test]
fn wrong_seals_of_one_sender_are_looked_at_so_often_and_cost_nobody_else() {
    let mut trio = Trio::new();
    let session = trio.machine(PRIMARY).id.expect("a session");
    let arrives = |trio: &mut Trio, node: usize, from: PathId, sequence: u64| {
        let identity = Identity::from_seed([u8::try_from(node).unwrap() + 1; 32]);
        let context = SealContext { session, from, to: PathId::PRIMARY, sequence };
        let (payload, signature) = (Bytes::new(), auth::seal_raw(&identity, context, b""));
        let raw = RawForward { from, endorsement: Bytes::new(), seal: Seal { sequence, payload, signature } };
        trio.forge(PRIMARY, PathId::PRIMARY, super::PathInput::Data(CarrierItem::Raw(raw)));
        let primary = trio.sessions[PRIMARY];
        trio.nodes[PRIMARY].1.server_session(primary).unwrap().recv_raw().is_some()
    };
    let (path, other) = (trio.path, trio.other_path);
    assert!(arrives(&mut trio, SECONDARY, path, 0));
    let most = u64::from(Limits::default().forged_seals_burst);
    (1..most).for_each(|sequence| assert!(!arrives(&mut trio, OTHER, path, sequence)));
    assert!(arrives(&mut trio, SECONDARY, path, 100));
    // What was used before is not looked at.
    (0..most).for_each(|_| assert!(!arrives(&mut trio, OTHER, path, 100)));
    assert!(arrives(&mut trio, SECONDARY, path, 101));
    assert!(!arrives(&mut trio, OTHER, path, 102));
    assert!(!arrives(&mut trio, SECONDARY, path, 103), "more were looked at than are bargained for");
    assert!(arrives(&mut trio, OTHER, other, 0), "another sender suffers for it");
    trio.now += std::time::Duration::from_secs(1);
    assert!(arrives(&mut trio, SECONDARY, path, 104));
    assert!(trio.is_open(PRIMARY));

    // From a sender that is not known and does not prove itself.
    let endorsed = |path| Ticket {
        session,
        path,
        epoch: Epoch(1),
        issuer: Identity::from_seed([2; 32]).public(),
        secondary: Identity::from_seed([4; 32]).public(),
        server_name: "kwik.test".to_owned(),
        client_key: Identity::from_seed([9; 32]).public(),
        issued_at: UnixTime::new(std::time::Duration::ZERO),
        expires_at: UnixTime::new(std::time::Duration::ZERO),
        lease: std::time::Duration::ZERO,
    };
    let endorsed_by = |trio: &mut Trio, issuer: u8, from: PathId| {
        let context = SealContext { session, from, to: trio.path, sequence: 0 };
        let signature = auth::seal_raw(&Identity::from_seed([4; 32]), context, b"");
        let endorsement = endorsed(from).sign(&Identity::from_seed([issuer; 32]));
        let raw = RawForward { from, endorsement, seal: Seal { sequence: 0, payload: Bytes::new(), signature } };
        trio.forge(SECONDARY, trio.path, super::PathInput::Data(CarrierItem::Raw(raw)));
        let secondary = trio.sessions[SECONDARY];
        trio.nodes[SECONDARY].1.server_session(secondary).unwrap().recv_raw().is_some()
    };
    assert!(endorsed_by(&mut trio, 2, PathId(5)));
    (10..10 + u32::try_from(most).unwrap()).for_each(|from| assert!(!endorsed_by(&mut trio, 7, PathId(from))));
    assert!(!endorsed_by(&mut trio, 2, PathId(6)), "more were looked at than are bargained for");
    trio.now += std::time::Duration::from_secs(1);
    assert!(endorsed_by(&mut trio, 2, PathId(6)));
    assert!(trio.is_open(SECONDARY));
}

// [P-5.15]
#[test]
fn answers_to_refused_raw_packets_do_not_pile_up() {
    let mut trio = Trio::new();
    let most = Limits::default().control_queue_frames_max;
    for sequence in 0..=most as u64 {
        let raw = Raw { to: PathId(50), seal: seal(sequence) };
        trio.forge_control(CLIENT, trio.path, raw);
    }
    let state = trio.client_path_state(trio.path);
    assert!(
        matches!(&state, PathState::Dead(reason) if reason.code == TransportCode::CONTROL_FLOOD.into()),
        "{state:?}"
    );
    assert!(trio.is_open(CLIENT));
}

// [P-7.5]
#[test]
fn receipt_for_a_packet_that_was_never_sent_costs_the_path() {
    let mut trio = Trio::new();
    let status = RawStatus { from: PathId(0), to: trio.path, sequence: 5, code: TransportCode::NO_ERROR.into() };
    trio.forge_control(CLIENT, trio.path, status);
    assert!(trio.client_path_state(trio.path).is_dead());
    assert!(trio.is_open(CLIENT));
}

// [P-5.15]
#[test]
fn paths_that_are_refused_do_not_pile_up() {
    let mut trio = Trio::new();
    let most = u32::try_from(Limits::default().control_queue_frames_max).unwrap();
    for number in 0..=most + 10 {
        let add = AddPath {
            path: PathId(10 + number),
            epoch: Epoch(10 + u64::from(number)),
            address: "224.0.0.1:4433".parse().unwrap(),
            server_name: "kwik.test".to_owned(),
            identity: *Identity::from_seed([9; 32]).public().as_bytes(),
            ticket: Bytes::new(),
        };
        trio.forge_control(CLIENT, PathId::PRIMARY, add);
    }
    assert!(!trio.is_open(CLIENT), "the fault is the primary's, so the session ends");
}

// [P-8.7] [P-8.8]
#[test]
fn delegating_to_oneself_or_too_much_is_refused() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    let primary = trio.sessions[PRIMARY];
    let path = trio.path;
    let mut session = trio.nodes[PRIMARY].1.session(primary).unwrap();
    let mut stream = session.stream(delegated.there);
    assert_eq!(stream.delegate(PathId::PRIMARY, 1, Bytes::new()), Err(DelegateError::OwnPath));
    assert_eq!(stream.delegate(path, 0, Bytes::new()), Err(DelegateError::EmptyRange));
    let len = crate::limits::REQUEST_BYTES_MAX + 1;
    let refused = stream.delegate(path, 1, Bytes::from(vec![0; len]));
    assert_eq!(refused, Err(DelegateError::RequestTooLong { len }));
    let refused = stream.delegate_range(path, 50..200, Bytes::new());
    assert_eq!(refused, Err(DelegateError::Overlap { start: 50, end: 100 }));
    let most = Limits::default().grants_path_max;
    let granted = (1..).take_while(|_| stream.delegate(path, 1, Bytes::new()).is_ok()).count();
    assert_eq!(granted, most - 1);
    assert_eq!(stream.delegate(path, 1, Bytes::new()), Err(DelegateError::TooMany));
}
