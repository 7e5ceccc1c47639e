//! What peers could make a session keep: those that take nothing, that answer what they never read, that collude.

use bytes::Bytes;

use super::{CLIENT, Delegated, PRIMARY, SECONDARY, Trio};
use crate::error::{ErrorCode, TransportCode};
use crate::id::{Epoch, GrantId, PathId, StreamOffset};
use crate::limits::{Limits, PATHS_REMEMBERED_MAX, RAW_BYTES_MAX, REQUEST_BYTES_MAX};
use crate::session::client::{Held, Relay};
use crate::session::primary::PrimaryRole;
use crate::session::{DelegateError, PathEvent, PathTarget, RawError, RoleState, SessionEvent};
use crate::status::{GrantStatus, PathState};
use crate::wire::{
    ControlFrame, Grant, GrantStatusFrame, PathStatus, Raw, RawStatus, Revoke, SignedPayload, WirePathState,
};

impl Trio {
    fn held(&mut self) -> Held {
        let RoleState::Client(client) = &self.machine(CLIENT).role else { panic!("no client") };
        client.relay.held()
    }

    fn primary(&mut self) -> &mut PrimaryRole {
        match &mut self.machine(PRIMARY).role {
            RoleState::Primary(primary) => primary,
            _ => panic!("no primary"),
        }
    }

    /// The primary's control plane takes nothing more: the client reads nothing, and QUIC's window is full.
    fn clog(&mut self) {
        let signed = SignedPayload { sequence: 0, payload: Bytes::from(vec![0; RAW_BYTES_MAX]), signature: [0; 64] };
        let filler = ControlFrame::from(Raw { to: PathId(1 << 20), signed });
        let ready = |trio: &mut Self| {
            trio.turn(PRIMARY);
            trio.machine(PRIMARY).path_mut(PathId::PRIMARY).filter(|path| path.is_control_ready()).is_some()
        };
        while ready(self) {
            self.machine(PRIMARY).path_mut(PathId::PRIMARY).expect("a path").queue_control(&filler);
        }
    }

    fn delegate(&mut self, delegated: &Delegated, request: usize) -> Result<GrantId, DelegateError> {
        let (primary, path) = (self.sessions[PRIMARY], self.path);
        let mut session = self.nodes[PRIMARY].1.session_mut(primary).unwrap();
        let granted = session.stream_mut(delegated.there).delegate(path, 10, Bytes::from(vec![0; request]));
        granted.map(|info| info.grant)
    }

    fn another_path(&mut self) -> PathId {
        let target = PathTarget {
            address: "10.0.0.9:4433".parse().unwrap(),
            server_name: "kwik.test".to_owned(),
            identity: crate::auth::Identity::from_seed([9; 32]).public(),
        };
        let (now, primary) = (self.now, self.sessions[PRIMARY]);
        self.nodes[PRIMARY].1.session_mut(primary).unwrap().add_path(now, target).unwrap()
    }
}

fn raw(to: PathId, sequence: u64) -> Raw {
    Raw { to, signed: SignedPayload { sequence, payload: Bytes::new(), signature: [0; 64] } }
}

fn receipt(from: PathId, to: PathId, sequence: u64) -> RawStatus {
    RawStatus { from, to, sequence, code: TransportCode::NO_ERROR.into() }
}

// [P-7.5]
#[test]
fn receipt_for_a_packet_that_was_not_carried_yet_costs_the_path() {
    let mut trio = Trio::new();
    let (path, other) = (trio.path, trio.other_path);
    trio.forge_control(CLIENT, path, raw(other, 0));
    trio.turn(CLIENT);
    trio.forge_control(CLIENT, other, receipt(path, other, 0));
    assert!(trio.client_path_state(other).is_usable(), "carried");
    trio.forge_control(CLIENT, path, raw(other, 1));
    trio.forge_control(CLIENT, other, receipt(path, other, 1));
    trio.assert_path_died(other, TransportCode::PROTOCOL_VIOLATION);
    assert!(trio.client_path_state(path).is_usable());
}

/// Two servers filled a client: one sent without reading, the other gave the receipts.
// [P-7.2] [P-5.15]
#[test]
fn colluding_servers_make_the_client_keep_no_more_than_its_caps() {
    let mut trio = Trio::new();
    let (path, other) = (trio.path, trio.other_path);
    let limits = Limits::default();
    let (mut answers, mut packets) = (0, 0);
    for sequence in 0..300_000 {
        trio.forge_control(CLIENT, path, raw(other, sequence));
        trio.turn(CLIENT);
        if trio.held().waiting == 0 {
            trio.forge_control(CLIENT, other, receipt(path, other, sequence));
        }
        let held = trio.held();
        (answers, packets) = (held.answers.max(answers), held.packets.max(packets));
        if trio.client_path_state(path).is_dead() {
            break;
        }
    }
    trio.assert_path_died(path, TransportCode::CONTROL_FLOOD);
    let most = limits.control_queue_frames_max + limits.raw_packets_max;
    assert!((limits.raw_packets_max..=most).contains(&answers), "{answers} answers");
    assert!(packets <= limits.raw_packets_max, "{packets} packets");
}

// [P-7.2]
#[test]
fn packets_of_senders_that_left_do_not_pile_up_before_a_server_that_takes_nothing() {
    let limits = Limits::default();
    let mut relay = Relay::new(&limits);
    for number in 2..1000 {
        let from = PathId(number);
        for sequence in 0..100 {
            let signed = SignedPayload { sequence, payload: Bytes::from(vec![0; 4096]), signature: [0; 64] };
            relay.push_raw(from, PathId(1), Bytes::from(vec![0; 300]), signed).unwrap();
        }
        relay.on_path_lost(from);
    }
    let held = relay.held();
    assert_eq!((held.answers, held.packets), (0, 0));
    assert!(held.waiting <= limits.raw_packets_max * limits.paths_max, "{} wait", held.waiting);
    assert!(held.bytes <= limits.raw_queue_bytes_max * limits.paths_max + held.waiting * 400, "{}", held.bytes);
}

#[test]
fn what_waits_at_the_relay_holds_its_own_bytes_only() {
    let mut relay = Relay::new(&Limits::default());
    let received = Bytes::from(vec![0; 64 * 1024]);
    let signed = SignedPayload { sequence: 0, payload: received.slice(100..101), signature: [0; 64] };
    relay.push_raw(PathId(1), PathId(2), Bytes::new(), signed).unwrap();
    assert!(received.is_unique(), "a byte keeps all that came with it");
    assert!(relay.held().bytes < 100);
}

/// A primary that granted and revoked in turns filled the client's memory while the secondary took nothing.
// [P-8.9]
#[test]
fn grants_that_are_over_before_they_are_carried_go_away() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    for number in 0..10_000 {
        let (grant, epoch) = (GrantId(1000 + number), Epoch(1000 + number));
        let signed =
            SignedPayload { sequence: number, payload: Bytes::from(vec![0; REQUEST_BYTES_MAX]), signature: [0; 64] };
        let (stream, start) = (delegated.id, StreamOffset(1000));
        let frame = Grant { grant, epoch, path: trio.path, stream, start, len: 10, signed };
        trio.forge_control(CLIENT, PathId::PRIMARY, frame);
        trio.forge_control(CLIENT, PathId::PRIMARY, Revoke { grant, epoch });
        assert_eq!(trio.held(), Held::default());
        trio.turn(CLIENT);
        assert!(trio.is_open(CLIENT));
    }
}

// [P-8.7] [P-8.6]
#[test]
fn client_cannot_answer_what_it_was_not_sent() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    trio.clog();
    let grant = trio.delegate(&delegated, 10).unwrap();
    let status = GrantStatus::Delivered;
    trio.forge_control(PRIMARY, PathId::PRIMARY, GrantStatusFrame { grant, status });
    trio.assert_session_failed(PRIMARY, TransportCode::PROTOCOL_VIOLATION);

    let mut trio = Trio::new();
    trio.clog();
    let path = trio.another_path();
    let (state, code) = (WirePathState::Dead, TransportCode::TIMED_OUT.into());
    let rtt = std::time::Duration::ZERO;
    trio.forge_control(
        PRIMARY,
        PathId::PRIMARY,
        PathStatus { path, state, code, rtt, rtt_min: rtt, rate: 0, bytes: 0 },
    );
    trio.assert_session_failed(PRIMARY, TransportCode::PROTOCOL_VIOLATION);

    let mut trio = Trio::new();
    trio.clog();
    let (primary, path) = (trio.sessions[PRIMARY], trio.path);
    let send = |trio: &mut Trio| {
        trio.nodes[PRIMARY].1.session_mut(primary).unwrap().send_raw(path, Bytes::from(vec![0; 1000]))
    };
    for sequence in 0..64 {
        assert_eq!(send(&mut trio), Ok(sequence));
        trio.forge_control(PRIMARY, PathId::PRIMARY, receipt(PathId::PRIMARY, path, sequence));
    }
    assert_eq!(send(&mut trio), Err(RawError::Blocked), "a receipt made room before the packet was sent");
}

/// A client that read nothing and named every grant delivered had its primary keep 19,958 commands, 157 MiB of them.
// [P-8.8]
#[test]
fn commands_for_a_client_that_reads_nothing_are_few_and_the_application_hears_of_room() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    trio.clog();
    let mut granted = Vec::new();
    let refused = loop {
        match trio.delegate(&delegated, REQUEST_BYTES_MAX) {
            Ok(grant) => granted.push(grant),
            Err(error) => break error,
        }
        trio.turn(PRIMARY);
    };
    assert_eq!(refused, DelegateError::TooMany);
    let most = Limits::default().command_bytes_max;
    assert!(trio.primary().commands.bytes() <= most && granted.len() < most / REQUEST_BYTES_MAX);
    assert!(granted.len() > 100, "{} grants", granted.len());
    let room = SessionEvent::DelegationRoom(trio.path);
    assert!(!trio.saw(PRIMARY, &room));
    trio.settle();
    assert!(trio.saw(PRIMARY, &room));
    assert!(trio.delegate(&delegated, REQUEST_BYTES_MAX).is_ok());
}

// [P-8.8]
#[test]
fn commands_that_undo_what_was_not_sent_take_it_away() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    trio.clog();
    let (primary, path) = (trio.sessions[PRIMARY], trio.path);
    for _ in 0..1_500 {
        let grant = trio.delegate(&delegated, REQUEST_BYTES_MAX).unwrap();
        let mut session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
        assert_eq!(session.revoke(grant), Ok(()));
        let lost = session.delegation(grant);
        let code = TransportCode::REVOKED.into();
        assert!(matches!(&lost, Some(GrantStatus::Lost { code: found, .. }) if *found == code), "{lost:?}");
        session.forget_delegation(grant);

        let added = trio.another_path();
        let mut session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
        let late = session.stream_mut(delegated.there).delegate(added, 10, Bytes::new()).unwrap().grant;
        let mut session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
        let sequence = session.send_raw(added, Bytes::new()).unwrap();
        assert_eq!(session.remove_path(added), Ok(()));
        let reason = crate::error::DeadReason::new(TransportCode::PATH_REMOVED, "");
        assert_eq!(session.path(added).unwrap().state, PathState::Dead(reason.clone()));
        assert!(matches!(session.delegation(late), Some(GrantStatus::Lost { .. })));
        session.forget_delegation(late);
        assert!(trio.machine(PRIMARY).common.events.len() <= 2, "told at once");
        let dead = SessionEvent::Path(PathEvent::Dead { path: added, reason });
        assert_eq!(trio.machine(PRIMARY).poll_event(), Some(dead));
        let result = Err(ErrorCode::from(TransportCode::PATH_UNKNOWN));
        let told = SessionEvent::RawStatus { to: added, sequence, result };
        assert_eq!(trio.machine(PRIMARY).poll_event(), Some(told));
        while trio.machine(PRIMARY).poll_event().is_some() {}
    }
    assert_eq!(trio.primary().commands.bytes(), 0);
    assert!(trio.primary().paths().count() <= PATHS_REMEMBERED_MAX);
    // Nothing of all this reached the client, and what comes next does.
    let grant = trio.delegate(&delegated, 10).unwrap();
    trio.settle();
    let session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
    assert_eq!(session.delegation(grant), Some(GrantStatus::Progress { delivered: 0 }));
    assert!(trio.is_open(CLIENT) && trio.is_open(PRIMARY) && trio.is_open(SECONDARY));
    assert!(trio.client_path_state(path).is_usable());
}

// [P-8.5]
#[test]
fn removal_takes_grants_away_that_were_not_sent_and_ends_with_the_path() {
    let mut trio = Trio::new();
    let delegated = trio.delegated();
    trio.clog();
    let unsent = trio.delegate(&delegated, 10).unwrap();
    let (primary, path) = (trio.sessions[PRIMARY], trio.path);
    let mut session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
    session.revoke(delegated.grant).unwrap();
    session.remove_path(path).unwrap();
    trio.settle();
    let session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
    for grant in [delegated.grant, unsent] {
        assert!(matches!(session.delegation(grant), Some(GrantStatus::Lost { .. })), "{grant:?}");
    }
    assert!(session.path(path).unwrap().state.is_dead());
    assert_eq!(trio.primary().commands.bytes(), 0);
    assert!(trio.is_open(CLIENT) && trio.is_open(PRIMARY));
}

/// Found in review: since the redesign the fault of `Notices::overfull` came after the reports had been handed over, and
/// nothing gave the session another turn.
#[test]
fn primary_hears_at_once_of_a_server_that_hears_of_no_end() {
    let mut trio = Trio::new();
    let path = trio.path;
    let filler = ControlFrame::from(Revoke { grant: GrantId(1 << 40), epoch: Epoch(1) });
    trio.turn(CLIENT);
    while trio.machine(CLIENT).path_mut(path).is_some_and(|path| path.is_control_ready()) {
        trio.machine(CLIENT).path_mut(path).expect("a path").queue_control(&filler);
    }
    for grant in 0..2000 {
        let RoleState::Client(client) = &mut trio.machine(CLIENT).role else { panic!("no client") };
        client.pretend_revoked(path, grant);
    }
    // One full drain of the client, and of nobody else.
    let (now, mut buf, mut to_primary) = (trio.now, Vec::new(), Vec::new());
    let primary = trio.nodes[PRIMARY].0;
    while let Some(transmit) = trio.nodes[CLIENT].1.poll_transmit(now, 1, &mut buf) {
        if transmit.destination == primary {
            to_primary.push(buf[..transmit.size].to_vec());
        }
        buf.clear();
    }
    while trio.nodes[CLIENT].1.poll_event().is_some() {}
    let wait = trio.nodes[CLIENT].1.poll_timeout().map(|at| at.saturating_duration_since(now));
    trio.assert_path_died(path, TransportCode::CONTROL_FLOOD);
    let remote = trio.nodes[CLIENT].0;
    for datagram in to_primary {
        let meta = crate::endpoint::DatagramMeta { remote, local_ip: None, ecn: None };
        trio.nodes[PRIMARY].1.handle_datagram(now, meta, &datagram);
    }
    while trio.nodes[PRIMARY].1.poll_transmit(now, 1, &mut buf).is_some() {
        buf.clear();
    }
    let died =
        |event: &SessionEvent| matches!(event, SessionEvent::Path(PathEvent::Dead { path: dead, .. }) if *dead == path);
    let mut events = Vec::new();
    while let Some((_, event)) = trio.nodes[PRIMARY].1.poll_event() {
        events.push(event);
    }
    assert!(events.iter().any(died), "{events:?}, and the client comes back in {wait:?}");
}
