//! What a dishonest peer sends, and what it costs whom.

use bytes::Bytes;

use super::{CLIENT, Delegated, OTHER, PRIMARY, SECONDARY, Trio};
use crate::auth::{self, Identity, SignatureContext, Ticket, UnixTime};
use crate::error::{ErrorCode, TransportCode};
use crate::grant::Grant;
use crate::id::{Dir, Epoch, GrantId, PathId, RangeConflict, StreamId, StreamOffset};
use crate::limits::{GRANTS_PATH_MAX, Limits};
use crate::session::{DelegateError, PathEvent, RoleState, SessionEvent};
use crate::status::{GrantStatus, PathState};
use crate::stream::ReadError;
use crate::wire::{AddPath, CarrierItem, GrantEnd, GrantOpen, Raw, RawForward, RawStatus, SignedPayload, StopSending};

fn signed(sequence: u64) -> SignedPayload {
    SignedPayload { sequence, payload: Bytes::from_static(b"forged"), signature: [7; 64] }
}

/// The path died of `code`, the session did not, and the primary knows what is missing.
fn assert_path_died(trio: &mut Trio, grant: GrantId, code: TransportCode, missing: std::ops::Range<u64>) {
    trio.settle();
    let path = trio.path;
    let state = trio.client_path_state(path);
    assert!(matches!(&state, PathState::Dead(reason) if reason.code == code.into()), "{state:?}");
    assert!(trio.is_open(CLIENT) && trio.is_open(PRIMARY));
    let primary = trio.sessions[PRIMARY];
    let state = trio.nodes[PRIMARY].1.session(primary).unwrap().delegation(grant).unwrap();
    assert_eq!(state, GrantStatus::Lost { code: code.into(), missing: vec![missing] });
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
    let mut session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
    session.stream_mut(delegated.there).delegate_range(trio.path, far..far + 100, Bytes::new()).unwrap();
    trio.settle();
    trio.forge_data(CLIENT, trio.path, delegated.id, far, b"x", false);
    assert_path_died(&mut trio, delegated.grant, TransportCode::FLOW_CONTROL, 0..100);
}

impl Trio {
    fn read(&mut self, delegated: &Delegated) -> Result<Vec<u8>, ReadError> {
        let client = self.sessions[CLIENT];
        let chunk = self.nodes[CLIENT].1.session_mut(client).unwrap().stream_mut(delegated.here).read(100)?;
        Ok(chunk.data.to_vec())
    }

    /// What the primary was told of writers that contradict each other.
    fn conflicts(&self) -> Vec<RangeConflict> {
        let conflict = |event: &SessionEvent| match event {
            SessionEvent::Path(PathEvent::Conflict { conflict, .. }) => Some(*conflict),
            _ => None,
        };
        self.events[&PRIMARY].iter().filter_map(conflict).collect()
    }
}

const CONFLICT: TransportCode = TransportCode::RANGE_CONFLICT;

// [P-6.14]
#[test]
fn secondary_that_contradicts_itself_costs_its_path_and_not_the_stream() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    trio.forge_data(CLIENT, trio.path, delegated.id, 0, b"hello", false);
    trio.forge_data(CLIENT, trio.path, delegated.id, 2, b"lying beyond the five", false);
    assert_eq!(trio.read(&delegated), Ok(b"hello".to_vec()));
    assert_path_died(&mut trio, delegated.grant, CONFLICT, 5..100);
    trio.forge_data(CLIENT, PathId::PRIMARY, delegated.id, 5, b" world", true);
    assert_eq!(trio.read(&delegated), Ok(b" world".to_vec()));
    assert_eq!(trio.read(&delegated), Err(ReadError::Finished), "what was not taken says nothing of the end");
    assert_eq!(trio.conflicts(), []);
}

// [P-6.14]
#[test]
fn secondary_that_contradicts_the_primary_costs_its_path_and_not_the_stream() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    trio.forge_data(CLIENT, PathId::PRIMARY, delegated.id, 0, b"hello", false);
    trio.forge_data(CLIENT, trio.path, delegated.id, 0, b"help!", false);
    assert_eq!(trio.read(&delegated), Ok(b"hello".to_vec()));
    assert_path_died(&mut trio, delegated.grant, CONFLICT, 5..100);
}

// [P-6.14]
#[test]
fn stream_whose_first_writer_the_primary_contradicts_ends_with_that_writers_path() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    trio.forge_data(CLIENT, trio.path, delegated.id, 0, b"help!", false);
    trio.forge_data(CLIENT, PathId::PRIMARY, delegated.id, 0, b"hello", false);
    assert_eq!(trio.read(&delegated), Err(ReadError::Reset(CONFLICT.into())));
    trio.settle();
    trio.assert_path_died(trio.path, CONFLICT);
    let conflict = RangeConflict { offset: StreamOffset(3), paths: [trio.path, PathId::PRIMARY] };
    assert_eq!(trio.conflicts(), [conflict]);
}

// [P-6.14]
#[test]
fn different_bytes_of_two_secondaries_end_the_stream_and_the_primary_is_told_whose() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    let (path, other) = (trio.path, trio.other_path);
    let (primary, secondary) = (trio.sessions[PRIMARY], trio.sessions[SECONDARY]);
    let part = trio.nodes[SECONDARY].1.session_mut(secondary).unwrap().accept_stream(Dir::Bi).unwrap();
    // No primary of this implementation grants a range twice, and none would understand its status.
    let grant = Grant { id: GrantId(99), epoch: Epoch(99), path: other, stream: delegated.id, range: 0..100 };
    let RoleState::Client(client) = &mut trio.machine(CLIENT).role else { panic!("no client") };
    client.grants.record(grant, std::slice::from_ref(&(0..100))).unwrap();
    trio.forge_data(CLIENT, path, delegated.id, 10, b"hello", false);
    trio.forge_data(CLIENT, other, delegated.id, 10, b"help!", false);
    let RoleState::Client(client) = &mut trio.machine(CLIENT).role else { panic!("no client") };
    assert_eq!(std::iter::from_fn(|| client.grants.poll_status()).count(), 2);
    trio.settle();
    assert_eq!(trio.read(&delegated), Err(ReadError::Reset(CONFLICT.into())));
    assert_eq!(trio.conflicts(), [RangeConflict { offset: StreamOffset(13), paths: [path, other] }]);
    let code = Some(CONFLICT.into());
    assert_eq!(trio.nodes[PRIMARY].1.session(primary).unwrap().stream(delegated.there).stop_code(), code);
    let session = trio.nodes[SECONDARY].1.session(secondary).unwrap();
    assert_eq!(session.stream(part).stop_code(), code, "every writer is stopped");
    for node in [CLIENT, PRIMARY, SECONDARY, OTHER] {
        assert!(trio.is_open(node));
    }
}

// [P-6.14]
#[test]
fn conflict_that_cannot_be_is_a_fault_of_the_client() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    let conflict = Some(RangeConflict { offset: StreamOffset(0), paths: [PathId(1), PathId(77)] });
    trio.forge_control(PRIMARY, PathId::PRIMARY, StopSending { stream: delegated.id, code: CONFLICT.into(), conflict });
    trio.assert_session_failed(PRIMARY, TransportCode::PROTOCOL_VIOLATION);

    let mut trio = Trio::new();
    let delegated = trio.delegated();
    trio.forge_control(CLIENT, PathId::PRIMARY, StopSending { stream: delegated.id, code: CONFLICT.into(), conflict });
    trio.assert_session_failed(CLIENT, TransportCode::PROTOCOL_VIOLATION);
}

// [P-6.13] [P-8.12]
#[test]
fn bytes_of_a_stream_that_is_over_are_for_those_that_had_its_grants_and_only_so_many() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    let client = trio.sessions[CLIENT];
    let (path, other) = (trio.path, trio.other_path);
    let received = |trio: &mut Trio| {
        let stats = trio.machine(CLIENT).stats();
        let stats = stats.paths.into_iter().find(|stats| stats.id == path).expect("a path");
        (stats.bytes_received, stats.rate_bytes_per_second)
    };
    let mut session = trio.nodes[CLIENT].1.session_mut(client).unwrap();
    let mut stream = session.stream_mut(delegated.here);
    stream.release_recv();
    stream.reset(0).unwrap();
    stream.release_send();
    for _ in 0..2 {
        // First the stream waits for the primary to end it, then it is gone.
        let before = received(&mut trio);
        trio.forge_data(CLIENT, path, delegated.id, 10, &[1; 40], false);
        assert_eq!(received(&mut trio), before, "late bytes are no merit");
        assert!(trio.client_path_state(path).is_usable(), "bytes under way when the stream ended");
        let primary = trio.sessions[PRIMARY];
        let mut session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
        session.stream_mut(delegated.there).release_send();
        session.stream_mut(delegated.there).release_recv();
        trio.settle();
    }
    assert_eq!(trio.machine(CLIENT).stats().streams_open, 0);
    trio.forge_data(CLIENT, other, delegated.id, 0, b"x", false);
    trio.assert_path_died(other, TransportCode::GRANT_VIOLATION);
    trio.forge_data(CLIENT, path, delegated.id, 10, &[1; 20], false);
    assert!(trio.client_path_state(path).is_usable(), "the last of the hundred that were granted");
    trio.forge_data(CLIENT, path, delegated.id, 10, &[1; 1], false);
    trio.assert_path_died(path, TransportCode::GRANT_VIOLATION);
}

// [P-5.10]
#[test]
fn bytes_for_streams_that_are_over_are_no_more_than_credit_allowed() {
    let mut trio = Trio::new();
    let client = trio.sessions[CLIENT];
    let here = trio.nodes[CLIENT].1.session_mut(client).unwrap().open_stream(Dir::Uni).unwrap();
    let mut stream = trio.nodes[CLIENT].1.session_mut(client).unwrap();
    let id = stream.stream(here).id().unwrap();
    stream.stream_mut(here).write(b"all").unwrap();
    stream.stream_mut(here).finish().unwrap();
    trio.settle();
    let primary = trio.sessions[PRIMARY];
    let mut session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
    let there = session.accept_stream(Dir::Uni).unwrap();
    assert_eq!(session.stream_mut(there).read(9).map(|chunk| chunk.data.len()), Ok(3));
    assert_eq!(session.stream_mut(there).read(9).map(|_| ()), Err(ReadError::Finished));
    let sent = (0..).find(|_| {
        trio.forge_data(PRIMARY, PathId::PRIMARY, id, 0, b"all", false);
        !trio.is_open(PRIMARY)
    });
    assert!(sent.unwrap() * 3 <= 2 << 20, "{sent:?} times");
    trio.assert_session_failed(PRIMARY, TransportCode::FLOW_CONTROL);
}

// [P-6.13]
#[test]
fn same_bytes_of_two_servers_count_once() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    trio.forge_data(CLIENT, PathId::PRIMARY, delegated.id, 0, b"hello", false);
    trio.forge_data(CLIENT, trio.path, delegated.id, 0, b"hello", false);
    let client = trio.sessions[CLIENT];
    let chunk = trio.nodes[CLIENT].1.session_mut(client).unwrap().stream_mut(delegated.here).read(100).unwrap();
    assert_eq!((&chunk.data[..], chunk.source), (&b"hello"[..], Some(PathId::PRIMARY)));
}

// [P-6.15]
#[test]
fn secondary_may_send_as_many_bytes_as_it_was_granted_whoever_was_faster() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    trio.forge_data(CLIENT, PathId::PRIMARY, delegated.id, 0, &[1; 50], false);
    for start in (0..100).step_by(20) {
        trio.forge_data(CLIENT, trio.path, delegated.id, start, &[1; 20], false);
        assert!(trio.client_path_state(trio.path).is_usable());
    }
    trio.forge_data(CLIENT, trio.path, delegated.id, 0, &[1; 1], false);
    trio.assert_path_died(trio.path, TransportCode::CONTROL_FLOOD);
    assert!(trio.is_open(CLIENT));
}

// [P-5.16]
#[test]
fn repeated_bytes_do_not_make_up_for_useless_frames() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    let frames = (0..20_000).find(|_| {
        trio.forge_data(PRIMARY, PathId::PRIMARY, delegated.id, 0, b"", false);
        trio.forge_data(PRIMARY, PathId::PRIMARY, delegated.id, 0, b"y", false);
        !trio.is_open(PRIMARY)
    });
    assert!(frames.is_some_and(|frames| frames <= 1_001), "{frames:?} useless frames were taken");
    trio.assert_session_failed(PRIMARY, TransportCode::CONTROL_FLOOD);
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
fn grant_that_the_primary_did_not_sign_is_not_believed() {
    let mut trio = Trio::new();
    let grant = GrantOpen {
        grant: GrantId(99),
        epoch: Epoch(9),
        stream: StreamId(0),
        start: StreamOffset(0),
        len: 10,
        limit: StreamOffset(10),
        signed: signed(0),
    };
    trio.forge(SECONDARY, trio.path, super::PathInput::Data(CarrierItem::Grant(grant)));
    assert!(!trio.is_open(SECONDARY));
}

// [P-7.3]
#[test]
fn raw_packet_that_nobody_signed_is_refused_and_costs_nothing_else() {
    let mut trio = Trio::new();
    for (node, from) in [(PRIMARY, PathId(1)), (SECONDARY, PathId(0)), (SECONDARY, PathId(2)), (PRIMARY, PathId(77))] {
        let raw = RawForward { from, forwarded_ticket: Bytes::new(), signed: signed(0) };
        let path = if node == PRIMARY { PathId::PRIMARY } else { trio.path };
        trio.forge(node, path, super::PathInput::Data(CarrierItem::Raw(raw)));
        let session = trio.sessions[node];
        assert_eq!(trio.nodes[node].1.session_mut(session).unwrap().recv_raw(), None);
        assert!(trio.is_open(node));
    }
}

// [P-7.3]
#[test]
fn wrong_signatures_of_one_sender_are_looked_at_so_often_and_cost_nobody_else() {
    let mut trio = Trio::new();
    let session = trio.machine(PRIMARY).id().expect("a session");
    let arrives = |trio: &mut Trio, node: usize, from: PathId, sequence: u64| {
        let identity = Identity::from_seed([u8::try_from(node).unwrap() + 1; 32]);
        let context = SignatureContext { session, from, to: PathId::PRIMARY, sequence };
        let (payload, signature) = (Bytes::new(), auth::sign_raw(&identity, context, b""));
        let raw =
            RawForward { from, forwarded_ticket: Bytes::new(), signed: SignedPayload { sequence, payload, signature } };
        trio.forge(PRIMARY, PathId::PRIMARY, super::PathInput::Data(CarrierItem::Raw(raw)));
        let primary = trio.sessions[PRIMARY];
        trio.nodes[PRIMARY].1.session_mut(primary).unwrap().recv_raw().is_some()
    };
    let (path, other) = (trio.path, trio.other_path);
    assert!(arrives(&mut trio, SECONDARY, path, 0));
    let most = u64::from(Limits::default().forged_signatures_burst);
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
    let ticket_for = |path| Ticket {
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
    let vouched_by = |trio: &mut Trio, issuer: u8, from: PathId| {
        let context = SignatureContext { session, from, to: trio.path, sequence: 0 };
        let signature = auth::sign_raw(&Identity::from_seed([4; 32]), context, b"");
        let forwarded_ticket = ticket_for(from).sign(&Identity::from_seed([issuer; 32]));
        let raw = RawForward {
            from,
            forwarded_ticket,
            signed: SignedPayload { sequence: 0, payload: Bytes::new(), signature },
        };
        trio.forge(SECONDARY, trio.path, super::PathInput::Data(CarrierItem::Raw(raw)));
        let secondary = trio.sessions[SECONDARY];
        trio.nodes[SECONDARY].1.session_mut(secondary).unwrap().recv_raw().is_some()
    };
    assert!(vouched_by(&mut trio, 2, PathId(5)));
    (10..10 + u32::try_from(most).unwrap()).for_each(|from| assert!(!vouched_by(&mut trio, 7, PathId(from))));
    assert!(!vouched_by(&mut trio, 2, PathId(6)), "more were looked at than are bargained for");
    trio.now += std::time::Duration::from_secs(1);
    assert!(vouched_by(&mut trio, 2, PathId(6)));
    assert!(trio.is_open(SECONDARY));
}

// [P-5.15]
#[test]
fn answers_to_refused_raw_packets_do_not_pile_up() {
    let mut trio = Trio::new();
    let most = Limits::default().control_queue_frames_max;
    for sequence in 0..=most as u64 {
        let raw = Raw { to: PathId(50), signed: signed(sequence) };
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
    let mut session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
    let mut stream = session.stream_mut(delegated.there);
    assert_eq!(stream.delegate(PathId::PRIMARY, 1, Bytes::new()), Err(DelegateError::OwnPath));
    assert_eq!(stream.delegate(path, 0, Bytes::new()), Err(DelegateError::EmptyRange));
    let len = crate::limits::REQUEST_BYTES_MAX + 1;
    let refused = stream.delegate(path, 1, Bytes::from(vec![0; len]));
    assert_eq!(refused, Err(DelegateError::RequestTooLong { len }));
    let refused = stream.delegate_range(path, 50..200, Bytes::new());
    assert_eq!(refused, Err(DelegateError::Overlap { start: 50, end: 100 }));
    let granted = (1..).take_while(|_| stream.delegate(path, 1, Bytes::new()).is_ok()).count();
    assert_eq!(granted, GRANTS_PATH_MAX - 1);
    assert_eq!(stream.delegate(path, 1, Bytes::new()), Err(DelegateError::TooMany));
}
