//! Who does not answer: addresses that nobody is at, and clients that leave commands and packets without an answer.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::{CLIENT, OTHER, PRIMARY, SECONDARY, Trio};
use crate::auth::Identity;
use crate::error::{DeadReason, SessionError, TransportCode};
use crate::id::PathId;
use crate::session::{PathEvent, PathTarget, RawError, SessionEvent};
use crate::status::{GrantStatus, PathState};

const NOWHERE: &str = "10.9.9.9:4433";

impl Trio {
    fn add_path(&mut self, address: SocketAddr) -> PathId {
        let identity = Identity::from_seed([9; 32]).public();
        let target = PathTarget { address, server_name: "kwik.test".to_owned(), identity };
        let (now, primary) = (self.now, self.sessions[PRIMARY]);
        self.nodes[PRIMARY].1.session_mut(primary).unwrap().add_path(now, target).unwrap()
    }

    fn path_at_primary(&mut self, path: PathId) -> PathState {
        let primary = self.sessions[PRIMARY];
        self.nodes[PRIMARY].1.session(primary).unwrap().path(path).expect("it was added").state
    }

    /// Time passes, and nothing that a node sends arrives.
    fn pass_in_silence(&mut self, time: Duration) {
        let end = self.now + time;
        let mut buf = Vec::new();
        while self.now < end {
            self.now += Duration::from_millis(100);
            for (node, (_, endpoint)) in self.nodes.iter_mut().enumerate() {
                endpoint.handle_timeout(self.now);
                while endpoint.poll_transmit(self.now, 1, &mut buf).is_some() {
                    buf.clear();
                }
                while let Some((_, event)) = endpoint.poll_event() {
                    self.events.entry(node).or_default().push(event);
                }
            }
        }
    }

    /// How many datagrams a node sends to an address, if it is given its turn now.
    fn sends_to(&mut self, node: usize, address: SocketAddr) -> usize {
        let (mut buf, mut sent) = (Vec::new(), 0);
        while let Some(transmit) = self.nodes[node].1.poll_transmit(self.now, 1, &mut buf) {
            sent += usize::from(transmit.destination == address);
            buf.clear();
        }
        sent
    }
}

fn is_dead(state: &PathState, code: TransportCode) -> bool {
    matches!(state, PathState::Dead(reason) if reason.code == code.into())
}

// [P-8.4]
#[test]
fn dial_ends_when_nothing_reaches_its_address_and_is_told_no_more() {
    let mut trio = Trio::new();
    let nowhere = NOWHERE.parse().unwrap();
    let path = trio.add_path(nowhere);
    // Spelled as a dual-stack socket does.
    let (now, mapped) = (trio.now, "[::ffff:10.9.9.9]:4433".parse().unwrap());
    trio.nodes[CLIENT].1.handle_unreachable(now, mapped, "too early");
    trio.settle();
    assert_eq!(trio.client_path_state(path), PathState::Connecting, "the dial had not begun");
    let now = trio.now;
    trio.nodes[CLIENT].1.handle_unreachable(now, mapped, "nobody listens on the port");
    assert_eq!(trio.sends_to(CLIENT, nowhere), 0);
    assert_eq!(trio.nodes[CLIENT].1.dialling(), 0);
    let reason = DeadReason::new(TransportCode::UNREACHABLE, "nobody listens on the port");
    assert_eq!(trio.client_path_state(path), PathState::Dead(reason));
    trio.settle();
    assert!(is_dead(&trio.path_at_primary(path), TransportCode::UNREACHABLE));
    assert!(trio.is_open(CLIENT) && trio.is_open(PRIMARY));

    let (now, config) = (trio.now, trio.config.clone());
    trio.sessions[CLIENT] = trio.nodes[CLIENT].1.connect(now, config, mapped, "kwik.test").unwrap();
    assert_eq!(trio.sends_to(CLIENT, nowhere), 1, "the spelling does not matter");
    trio.nodes[CLIENT].1.handle_unreachable(now, nowhere, "no route");
    let error = SessionError::Transport { code: TransportCode::UNREACHABLE, detail: "no route".to_owned() };
    assert_eq!(trio.close_reason(CLIENT), Some(error));
}

/// Anybody may say so who guesses the port of the client.
// [P-8.4]
#[test]
fn word_that_an_address_is_unreachable_harms_no_path_that_was_heard() {
    let mut trio = Trio::new();
    let addresses: Vec<_> = trio.nodes.iter().map(|(address, _)| *address).collect();
    let path = trio.add_path(addresses[OTHER]);
    while trio.state(CLIENT, path).is_none_or(|state| state == PathState::Connecting) {
        assert!(trio.exchange(), "the handshake stands still");
    }
    let now = trio.now;
    for address in addresses {
        trio.nodes[CLIENT].1.handle_unreachable(now, address, "a lie");
        trio.nodes[PRIMARY].1.handle_unreachable(now, address, "a lie");
        assert_eq!(trio.nodes[CLIENT].1.dialling(), 0, "a session without a dial is looked at");
    }
    assert!(trio.is_open(CLIENT) && trio.is_open(PRIMARY));
    for path in [trio.path, trio.other_path, path] {
        assert!(trio.state(CLIENT, path).is_some_and(|state| !state.is_dead()), "{path}");
    }
}

// [P-8.20]
#[test]
fn path_that_the_client_says_nothing_of_is_given_up_and_its_ranges_are_free_again() {
    let mut trio = Trio::with(|limits| {
        limits.dial_timeout = Duration::from_secs(600);
        (limits.answer_timeout, limits.idle_timeout) = (limits.dial_timeout, limits.dial_timeout);
    });
    let path = trio.add_path(NOWHERE.parse().unwrap());
    let delegated = trio.delegated();
    let primary = trio.sessions[PRIMARY];
    let mut session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
    let grant = session.stream_mut(delegated.there).delegate(path, 100, Bytes::new()).unwrap();
    for _ in 0..112 {
        trio.settle();
    }
    assert_eq!(trio.path_at_primary(path), PathState::Connecting, "57 s are not too long");
    for _ in 0..10 {
        trio.settle();
    }
    assert!(is_dead(&trio.path_at_primary(path), TransportCode::UNANSWERED));
    let told =
        |event: &SessionEvent| matches!(event, SessionEvent::Path(PathEvent::Dead { path: dead, .. }) if *dead == path);
    assert_eq!(trio.events[&PRIMARY].iter().filter(|event| told(event)).count(), 1);
    assert!(trio.client_path_state(path).is_dead(), "the client was told to leave it");
    let mut session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
    let lost = session.delegation(grant.grant);
    let expected = GrantStatus::Lost {
        code: TransportCode::UNANSWERED.into(),
        missing: std::iter::once(grant.range.clone()).collect(),
    };
    assert_eq!(lost, Some(expected));
    let written = session
        .stream_mut(delegated.there)
        .write_at(crate::id::StreamOffset(grant.range.start), Bytes::from_static(b"x"));
    assert_eq!(written, Ok(1));
    assert!(trio.is_open(CLIENT) && trio.is_open(PRIMARY));
}

// [P-8.20]
#[test]
fn removal_and_raw_packets_without_an_answer_are_waited_for_so_long_and_no_longer() {
    let mut trio = Trio::with_both(
        |_| (),
        |limits| {
            limits.answer_timeout = Duration::from_secs(6);
            limits.raw_packets_max = 2;
        },
    );
    let [_, primary, secondary, _] = trio.sessions;
    let (path, other) = (trio.path, trio.other_path);
    trio.nodes[PRIMARY].1.session_mut(primary).unwrap().remove_path(path).unwrap();
    let send = |trio: &mut Trio, node: usize, session, to| {
        trio.nodes[node].1.session_mut(session).unwrap().send_raw(to, Bytes::from_static(b"?"))
    };
    assert_eq!(send(&mut trio, PRIMARY, primary, other), Ok(0));
    assert_eq!(send(&mut trio, SECONDARY, secondary, PathId::PRIMARY), Ok(0));
    trio.pass_in_silence(Duration::from_secs(5));
    assert_eq!(trio.path_at_primary(path), PathState::Closing);
    assert_eq!(send(&mut trio, PRIMARY, primary, other), Ok(1));
    assert_eq!(send(&mut trio, PRIMARY, primary, other), Err(RawError::Blocked));
    trio.pass_in_silence(Duration::from_secs(2));
    assert!(is_dead(&trio.path_at_primary(path), TransportCode::UNANSWERED));
    let unanswered =
        |to, sequence| SessionEvent::RawStatus { to, sequence, result: Err(TransportCode::UNANSWERED.into()) };
    assert!(trio.saw(PRIMARY, &unanswered(other, 0)) && !trio.saw(PRIMARY, &unanswered(other, 1)));
    assert!(trio.saw(SECONDARY, &unanswered(PathId::PRIMARY, 0)));
    assert_eq!(send(&mut trio, PRIMARY, primary, other), Ok(2), "there is room again");
    // What comes late is no fault.
    for _ in 0..20 {
        trio.settle();
    }
    assert!(trio.is_open(CLIENT) && trio.is_open(PRIMARY));
    assert!(trio.client_path_state(path).is_dead());
}
