//! How a session begins, and how many round trips it takes.

use std::time::Duration;

use kwik_core::{Dir, Role, SessionError, SessionEvent, TransportCode};
use kwik_tests::{Fleet, LONG, NAME};

#[test]
fn session_id_is_drawn_by_the_primary_and_known_to_both() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let client = fleet.world.session(fleet.client, ends.client).unwrap();
    assert_eq!(client.role(), Role::Client);
    let id = client.id();
    let server = fleet.world.session(fleet.servers[0], ends.primary).unwrap();
    assert_eq!(server.role(), Role::Primary);
    assert!(id.is_some());
    assert_eq!(server.id(), id);
}

#[test]
fn first_bytes_arrive_after_one_and_a_half_round_trips() {
    let mut fleet = Fleet::new(1);
    let (client, server) = (fleet.client, fleet.servers[0]);
    let session = fleet.world.dial(client, server, fleet.pki.client(), NAME).unwrap();
    let stream = fleet.world.session(client, session).unwrap().open_stream(Dir::Bi).unwrap();
    fleet.world.session(client, session).unwrap().stream(stream).write(b"ping").unwrap();

    let at_server = fleet.await_incoming(0);
    let accepted = fleet.accept(0, at_server, Dir::Bi);
    let data = fleet.read_available(server, at_server, accepted);
    assert_eq!(data, b"ping");
    // 10 ms one way: handshake there and back, then the first flight.
    assert_eq!(fleet.world.elapsed(), Duration::from_millis(30));

    fleet.world.server_session(server, at_server).unwrap().stream(accepted).write(b"pong").unwrap();
    let answered = fleet
        .world
        .run_until(LONG, |world| world.session(client, session).unwrap().stream(stream).read(10).is_ok());
    assert!(answered);
    assert_eq!(fleet.world.elapsed(), Duration::from_millis(40));
}

#[test]
fn wrong_server_name_is_a_tls_failure() {
    let mut fleet = Fleet::new(1);
    let (client, server) = (fleet.client, fleet.servers[0]);
    fleet.world.dial(client, server, fleet.pki.client(), "other.test").unwrap();
    let is_failure = |event: &SessionEvent| {
        matches!(event, SessionEvent::Closed(SessionError::Transport { code: TransportCode::TLS_FAILED, .. }))
    };
    assert!(fleet.world.run_until(LONG, |world| world.saw(client, is_failure)));
    assert!(!fleet.world.saw(server, |event| *event == SessionEvent::Incoming));
}
