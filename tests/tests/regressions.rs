//! Bugs that were met, each with the fewest operations that showed it.

use std::time::Duration;

use bytes::Bytes;
use kwik_core::{
    Dir, ErrorCode, PathEvent, PathId, PathState, ReadError, SessionError, SessionEvent, TransportCode, WriteError,
};
use kwik_sim::{Disturbance, Link};
use kwik_tests::{Ends, Fleet, LONG, SERVER_NAME, pattern};

/// A reader that was dropped, not stopped, left the secondary writing for nobody.
#[test]
fn regression_dropped_reader_leaves_no_writer_behind() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let (primary, node) = (fleet.servers[0], fleet.servers[1]);
    let mut session = fleet.world.session_mut(primary, ends.primary).unwrap();
    session.stream_mut(there).delegate(path, 1000, Bytes::from_static(b"please")).unwrap();
    let part = fleet.accept(1, secondary, Dir::Bi);

    fleet.world.session_mut(fleet.client, ends.client).unwrap().stream_mut(here).release_recv();
    let notified = fleet.world.run_until(LONG, |world| {
        let code = world.session(node, secondary).unwrap().stream(part).stop_code();
        code == Some(ErrorCode::Application(0))
    });
    assert!(notified);
}

/// Credit for a stream went out on a path that was still connecting, ahead of JOIN.
#[test]
fn regression_credit_does_not_overtake_join() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (here, there) = fleet.open(ends, Dir::Bi);
    let (primary, client) = (fleet.servers[0], fleet.client);
    fleet.world.set_link_both(client, fleet.servers[1], Link::with_delay(Duration::from_millis(300)));
    let path = fleet.add_path(ends, fleet.target(1));
    let len = 4 << 20;
    let mut session = fleet.world.session_mut(primary, ends.primary).unwrap();
    session.stream_mut(there).delegate_range(path, len..len + 1000, Bytes::new()).unwrap();

    let data = pattern(0..len);
    let (mut written, mut read) = (0, 0);
    let consumed = fleet.world.run_until(LONG, |world| {
        let mut server = world.session_mut(primary, ends.primary).unwrap();
        written += server.stream_mut(there).write_chunk(data.slice(written..)).unwrap_or(0);
        let mut session = world.session_mut(client, ends.client).unwrap();
        loop {
            match session.stream_mut(here).read(usize::MAX) {
                Ok(chunk) => read += chunk.data.len(),
                Err(ReadError::Blocked) => return read as u64 == len,
                Err(error) => panic!("read failed after {read} bytes: {error}"),
            }
        }
    });
    assert!(consumed);
    let joined = SessionEvent::Path(PathEvent::Joined(path));
    fleet.await_event(primary, |event| *event == joined);
}

/// A path whose client had acknowledged everything and fell silent was called suspect: acknowledgements counted as bytes
/// that want an answer.
#[test]
fn regression_idle_path_is_not_suspect() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (_here, there) = fleet.open(ends, Dir::Bi);
    let primary = fleet.servers[0];
    let mut session = fleet.world.session_mut(primary, ends.primary).unwrap();
    session.stream_mut(there).delegate(path, 1000, Bytes::new()).unwrap();
    // The last datagram of the client acknowledges that its secondary heard of the delegation, and the secondary is slow.
    fleet.accept(1, secondary, Dir::Bi);
    fleet.world.run_for(Duration::from_millis(1500));
    assert!(!fleet.world.saw(primary, |event| matches!(event, SessionEvent::Path(PathEvent::Suspect(_)))));
}

/// A path died of an outage of two seconds: QUIC's probes had become so rare that none was sent after the outage and
/// before the path's three seconds were over.
// [P-9.2]
#[test]
fn regression_path_outlives_two_seconds_of_silence() {
    for after in 0..20 {
        let mut fleet = Fleet::new(2);
        let ends = fleet.connect();
        let (path, secondary) = fleet.join(ends, 1);
        let (_here, there) = fleet.open(ends, Dir::Bi);
        let (primary, client, node) = (fleet.servers[0], fleet.client, fleet.servers[1]);
        let mut session = fleet.world.session_mut(primary, ends.primary).unwrap();
        session.stream_mut(there).delegate(path, 1 << 20, Bytes::new()).unwrap();
        let part = fleet.accept(1, secondary, Dir::Bi);
        let data = pattern(0..1 << 20);
        fleet.world.session_mut(node, secondary).unwrap().stream_mut(part).write_chunk(data).unwrap();
        fleet.world.run_for(Duration::from_millis(after));
        fleet.world.inject(Disturbance::Partition { left: vec![client], right: vec![node] });
        fleet.world.run_for(Duration::from_secs(2));
        fleet.world.inject(Disturbance::Heal { a: client, b: node });
        fleet.world.run_for(Duration::from_secs(2));
        let session = fleet.world.session_mut(primary, ends.primary).unwrap();
        assert_eq!(session.path(path).unwrap().state, PathState::Active, "cut {after} ms after the grant");
    }
}

/// The receipt for a raw packet met the end of its sender's path on the way, and cost the session. (Swarm seed 3.)
#[test]
fn regression_receipt_crosses_the_end_of_a_path() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (primary, node) = (fleet.servers[0], fleet.servers[1]);
    let mut session = fleet.world.session_mut(node, secondary).unwrap();
    session.send_raw(PathId::PRIMARY, Bytes::from_static(b"on its way")).unwrap();
    fleet.world.run_for(Duration::from_millis(15));
    fleet.world.session_mut(primary, ends.primary).unwrap().remove_path(path).unwrap();
    fleet.await_death(ends, path);
    fleet.world.run_for(Duration::from_secs(1));
    assert!(fleet.world.saw(primary, |event| *event == SessionEvent::RawReadable));
    assert_eq!(fleet.world.session(fleet.client, ends.client).unwrap().close_reason(), None);
}

/// A client that was gone could not read its control plane, and its session ended as if it had flooded the server.
/// (Swarm seed 860.)
#[test]
fn regression_silent_client_is_timed_out_and_floods_nobody() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let (primary, client) = (fleet.servers[0], fleet.client);
    fill_quic(&mut fleet, ends);
    fleet.world.crash(client);
    for _ in 0..20 {
        fleet.world.run_for(Duration::from_millis(100));
        let _ = fleet.world.session_mut(primary, ends.primary).unwrap().open_stream(Dir::Uni);
    }
    let ended = fleet.world.run_until(LONG, |world| {
        world.session(primary, ends.primary).is_none_or(|session| session.close_reason().is_some())
    });
    assert!(ended);
    let session = fleet.world.session_mut(primary, ends.primary).unwrap();
    assert_eq!(session.close_reason(), Some(&SessionError::TimedOut));
}

/// The far end heard its peer but could not be heard, so nothing it said was read; it ended the session as if the peer
/// had flooded it. (A sweep over one-way black holes.)
#[test]
fn regression_one_way_black_hole_floods_nobody() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let (primary, client) = (fleet.servers[0], fleet.client);
    fill_quic(&mut fleet, ends);
    fleet.world.inject(Disturbance::Blackhole { from: primary, to: client });
    for _ in 0..120 {
        fleet.world.run_for(Duration::from_millis(100));
        let _ = fleet.world.session_mut(primary, ends.primary).unwrap().open_stream(Dir::Uni);
    }
    fleet.world.inject(Disturbance::HealAll);
    fleet.world.run_for(Duration::from_secs(20));
    for (node, session) in [(client, ends.client), (primary, ends.primary)] {
        assert_eq!(fleet.world.session(node, session).unwrap().close_reason(), None, "{node}");
    }
}

/// A client that slept found the handshake done and the connection closed in one go, and took it for a defect of its own.
/// (A sweep over suspended nodes.)
#[test]
fn regression_connection_closed_while_asleep_is_no_defect() {
    let mut fleet = Fleet::new(1);
    let (server, client) = (fleet.servers[0], fleet.client);
    fleet.world.set_link(server, client, Link::with_delay(Duration::from_secs(3)));
    let session = fleet.world.dial(client, server, fleet.pki.client(), SERVER_NAME).unwrap();
    // The client says hello more than once, so that the server may say more; then it sleeps until the server gave up.
    fleet.world.run_for(Duration::from_millis(2900));
    fleet.world.inject(Disturbance::Pause { node: client, span: Duration::from_secs(8) });
    let ended = fleet
        .world
        .run_until(LONG, |world| world.session(client, session).is_none_or(|session| session.close_reason().is_some()));
    assert!(ended);
    let reason = fleet.world.session(client, session).unwrap().close_reason().cloned();
    let Some(SessionError::Transport { code, .. }) = reason else { panic!("{reason:?}") };
    assert_eq!(code, TransportCode::AUTH_FAILED);
}

/// The primary has more to send than QUIC takes, and once the congestion window collapses what follows on the control
/// plane has no room.
fn fill_quic(fleet: &mut Fleet, ends: Ends) {
    let (primary, client) = (fleet.servers[0], fleet.client);
    let data = Bytes::from(vec![0; 1 << 20]);
    let mut session = fleet.world.session_mut(primary, ends.primary).expect("a session");
    let streams: Vec<_> = (0..5).map(|_| session.open_stream(Dir::Uni).expect("opened")).collect();
    let readers: Vec<_> = streams.iter().map(|_| fleet.accept_at(client, ends.client, Dir::Uni)).collect();
    let mut read = 0;
    let wide = fleet.world.run_until(LONG, |world| {
        let mut session = world.session_mut(primary, ends.primary).expect("a session");
        for stream in &streams {
            while session.stream_mut(*stream).write_chunk(data.clone()) != Err(WriteError::Blocked) {}
        }
        let mut session = world.session_mut(client, ends.client).expect("a session");
        for reader in &readers {
            while let Ok(chunk) = session.stream_mut(*reader).read(usize::MAX) {
                read += chunk.data.len();
            }
        }
        read >= 10 << 20
    });
    assert!(wide);
}
