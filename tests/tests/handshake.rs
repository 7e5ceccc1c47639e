//! How a session begins, and how many round trips it takes.

use std::time::Duration;

use kwik_core::{Dir, Limits, PathState, Role, SessionError, SessionEvent, TransportCode};
use kwik_sim::Link;
use kwik_tests::{Fleet, LONG, SERVER_NAME};

// [P-3.3]
#[test]
fn session_id_is_drawn_by_the_primary_and_known_to_both() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let client = fleet.world.session_mut(fleet.client, ends.client).unwrap();
    assert_eq!(client.role(), Role::Client);
    let id = client.id();
    let server = fleet.world.session_mut(fleet.servers[0], ends.primary).unwrap();
    assert_eq!(server.role(), Role::Primary);
    assert!(id.is_some());
    assert_eq!(server.id(), id);
}

// [P-3.4]
#[test]
fn first_bytes_arrive_after_one_and_a_half_round_trips() {
    let mut fleet = Fleet::new(1);
    let (client, server) = (fleet.client, fleet.servers[0]);
    let session = fleet.world.dial(client, server, fleet.pki.client(), SERVER_NAME).unwrap();
    let stream = fleet.world.session_mut(client, session).unwrap().open_stream(Dir::Bi).unwrap();
    fleet.world.session_mut(client, session).unwrap().stream_mut(stream).write(b"ping").unwrap();

    let at_server = fleet.await_incoming(0);
    let accepted = fleet.accept(0, at_server, Dir::Bi);
    let data = fleet.read_available(server, at_server, accepted);
    assert_eq!(data, b"ping");
    // 10 ms one way: handshake there and back, then the first flight.
    assert_eq!(fleet.world.elapsed(), Duration::from_millis(30));

    fleet.world.session_mut(server, at_server).unwrap().stream_mut(accepted).write(b"pong").unwrap();
    let answered = fleet
        .world
        .run_until(LONG, |world| world.session_mut(client, session).unwrap().stream_mut(stream).read(10).is_ok());
    assert!(answered);
    assert_eq!(fleet.world.elapsed(), Duration::from_millis(40));
}

// [P-4.12]
#[test]
fn wrong_server_name_is_a_tls_failure() {
    let mut fleet = Fleet::new(1);
    let (client, server) = (fleet.client, fleet.servers[0]);
    fleet.world.dial(client, server, fleet.pki.client(), "other.test").unwrap();
    let is_failure = |event: &SessionEvent| {
        matches!(event, SessionEvent::Closed(SessionError::Transport { code: TransportCode::TLS_FAILED, .. }))
    };
    fleet.await_event(client, is_failure);
    assert!(!fleet.world.saw(server, |event| *event == SessionEvent::Incoming));
}

// [P-4.12]
#[test]
fn secondary_writes_as_soon_as_join_and_grant_arrive_together() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (here, there) = fleet.open(ends, Dir::Bi);
    let target = fleet.target(1);
    let start = fleet.world.elapsed();
    let path = fleet.add_path(ends, target);
    let mut session = fleet.world.session_mut(fleet.servers[0], ends.primary).unwrap();
    session.stream_mut(there).delegate(path, 5, bytes::Bytes::new()).unwrap();

    let secondary = fleet.await_incoming(1);
    let part = fleet.accept(1, secondary, Dir::Bi);
    // The command to the client, the handshake there and back, then JOIN and GRANT together: 10 ms each.
    assert_eq!(fleet.world.elapsed() - start, Duration::from_millis(40));
    fleet.write_all(fleet.servers[1], secondary, part, b"ready");
    let client = fleet.client;
    let read = fleet
        .world
        .run_until(LONG, |world| world.session_mut(client, ends.client).unwrap().stream_mut(here).read(10).is_ok());
    assert!(read);
    assert_eq!(fleet.world.elapsed() - start, Duration::from_millis(50));
}

// [P-3.3]
#[test]
fn every_session_has_an_id_of_its_own() {
    let mut fleet = Fleet::new(1);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let ends = fleet.connect();
        ids.push(fleet.world.session(fleet.servers[0], ends.primary).unwrap().id());
    }
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
}

// [P-3.7]
#[test]
fn primary_that_does_not_answer_hello_ends_the_session() {
    let mut fleet = Fleet::new(1);
    let (client, server) = (fleet.client, fleet.servers[0]);
    let session = fleet.world.dial(client, server, fleet.pki.client(), SERVER_NAME).unwrap();
    let handshake_done = |world: &mut kwik_sim::World| {
        let stats = world.session(client, session).unwrap().stats();
        stats.paths[0].state == PathState::Authenticating
    };
    assert!(fleet.world.run_until(LONG, handshake_done));
    // WELCOME never comes.
    let before = fleet.world.elapsed();
    fleet.world.set_link(server, client, Link { up: false, ..Link::default() });
    let is_timeout = |event: &SessionEvent| {
        matches!(event, SessionEvent::Closed(SessionError::Transport { code: TransportCode::AUTH_TIMEOUT, .. }))
    };
    fleet.await_event(client, is_timeout);
    assert_eq!(fleet.world.elapsed() - before, Limits::default().auth_timeout);
}
