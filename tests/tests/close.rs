//! How sessions end.

use std::time::Duration;

use kwik_core::{
    Dir, EventDetail, Limits, OpenError, ProtocolEventKind, ReadError, SessionError, SessionEvent, TransportCode,
    WriteError,
};
use kwik_sim::{FleetBuilder, Link, NodeConfig, WorldConfig};
use kwik_tests::{Fleet, LONG, pattern};

// [P-12.1] [P-12.2] [P-12.3]
#[test]
fn close_delivers_what_was_finished_and_tells_code_and_reason() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let (client, server) = (fleet.client, fleet.servers[0]);
    let (here, there) = fleet.open(ends, Dir::Uni);
    let data = pattern(0..300_000);
    fleet.write_all(client, ends.client, here, &data);
    let now = fleet.world.now();
    let mut session = fleet.world.session_mut(client, ends.client).unwrap();
    session.stream_mut(here).finish().unwrap();
    session.close(now, 42, "enough");
    assert_eq!(session.open_stream(Dir::Bi), Err(OpenError::SessionClosed));

    let closed =
        SessionEvent::Closed(SessionError::ClosedByPeer { code: 42, reason: "enough".to_owned(), cut_short: false });
    fleet.await_event(server, |event| *event == closed);
    // The session is over, and what it delivered can still be read.
    assert!(fleet.read_to_end(server, ends.primary, there) == data);
    assert!(fleet.world.saw(client, |event| *event == SessionEvent::Closed(SessionError::LocallyClosed)));
}

// [P-12.2]
#[test]
fn close_reaches_the_secondaries_too() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    fleet.join(ends, 1);
    let now = fleet.world.now();
    fleet.world.session_mut(fleet.client, ends.client).unwrap().close(now, 5, "");
    let secondary = fleet.servers[1];
    let closed = SessionEvent::Closed(SessionError::ClosedByPeer { code: 5, reason: String::new(), cut_short: false });
    fleet.await_event(secondary, |event| *event == closed);
}

// [P-12.1]
#[test]
fn close_of_the_primary_waits_for_its_delegations() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let (primary, node) = (fleet.servers[0], fleet.servers[1]);
    let now = fleet.world.now();
    let mut session = fleet.world.session_mut(primary, ends.primary).unwrap();
    session.stream_mut(there).delegate(path, 1000, bytes::Bytes::new()).unwrap();
    session.stream_mut(there).finish().unwrap();
    session.close(now, 0, "");
    let part = fleet.accept(1, secondary, Dir::Bi);
    fleet.world.run_for(Duration::from_secs(1));
    fleet.write_all(node, secondary, part, &pattern(0..1000));
    assert_eq!(fleet.read_to_end(fleet.client, ends.client, here), pattern(0..1000));
}

// [P-12.1]
#[test]
fn close_does_not_wait_for_ever() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let (client, server) = (fleet.client, fleet.servers[0]);
    let (here, _) = fleet.open(ends, Dir::Uni);
    fleet.world.crash(server);
    let now = fleet.world.now();
    let mut session = fleet.world.session_mut(client, ends.client).unwrap();
    session.stream_mut(here).write(b"into the void").unwrap();
    session.stream_mut(here).finish().unwrap();
    session.close(now, 0, "");
    session.close(now, 1, "again");
    let before = fleet.world.elapsed();
    let closed = SessionEvent::Closed(SessionError::LocallyClosed);
    fleet.await_event(client, |event| *event == closed);
    assert!(fleet.world.elapsed() - before <= Limits::default().drain_timeout + Duration::from_millis(100));
}

// [P-9.4]
#[test]
fn silent_primary_ends_the_session_with_an_error() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let (client, server) = (fleet.client, fleet.servers[0]);
    let (here, _) = fleet.open(ends, Dir::Bi);
    fleet.world.crash(server);
    let timed_out = SessionEvent::Closed(SessionError::TimedOut);
    fleet.await_event(client, |event| *event == timed_out);
    let mut session = fleet.world.session_mut(client, ends.client).unwrap();
    assert_eq!(session.stream_mut(here).read(1), Err(ReadError::SessionClosed));
    assert_eq!(session.stream_mut(here).write(b"x"), Err(WriteError::SessionClosed));
}

// [P-4.4]
#[test]
fn refused_credential_is_an_authentication_failure() {
    let guard = |credential: &[u8], _: std::net::SocketAddr| credential == b"open sesame";
    let mut fleet = Fleet::with(1, |config| config.authorizer(std::sync::Arc::new(guard)));
    let config = fleet.pki.client().credential(&b"please"[..]);
    fleet.world.dial(fleet.client, fleet.servers[0], config, kwik_tests::SERVER_NAME).unwrap();
    let client = fleet.client;
    let refused = |event: &SessionEvent| {
        matches!(event, SessionEvent::Closed(SessionError::Transport { code: TransportCode::AUTH_FAILED, .. }))
    };
    fleet.await_event(client, refused);
    let config = fleet.pki.client().credential(&b"open sesame"[..]);
    fleet.connect_with(config);
}

// [P-3.4] [P-4.11]
#[test]
fn pinned_primary_gets_nothing_before_it_proved_itself() {
    let mut fleet = Fleet::new(1);
    let (client, server) = (fleet.client, fleet.servers[0]);
    let config = fleet.pki.client().primary_identity(fleet.pki.public_identity(3));
    let session = fleet.world.dial(client, server, config, kwik_tests::SERVER_NAME).unwrap();
    let mut view = fleet.world.session_mut(client, session).unwrap();
    let stream = view.open_stream(Dir::Bi).unwrap();
    view.stream_mut(stream).write(b"secret").unwrap();
    let mismatch = |event: &SessionEvent| {
        matches!(event, SessionEvent::Closed(SessionError::Transport { code: TransportCode::IDENTITY_MISMATCH, .. }))
    };
    fleet.await_event(client, mismatch);
    let at_server = fleet.await_incoming(0);
    fleet.world.run_for(Duration::from_millis(100));
    let accepted = fleet.world.session_mut(server, at_server).unwrap().accept_stream(Dir::Bi);
    assert_eq!(accepted, None, "the wrong primary was told of a stream");

    let config = fleet.pki.client().primary_identity(fleet.pki.public_identity(0));
    fleet.connect_with(config);
}

// [P-3.4]
#[test]
fn regression_close_went_to_a_pinned_primary_before_its_welcome() {
    let frames = |node: &mut NodeConfig| node.event_detail = EventDetail::Frames;
    let builder = FleetBuilder::new(WorldConfig::null_tls(1)).client(frames).servers(1, |_, _| ());
    let Fleet { mut world, pki, client, servers, .. } = builder.build();
    let config = pki.client().primary_identity(pki.public_identity(0));
    let session = world.dial(client, servers[0], config, kwik_tests::SERVER_NAME).unwrap();
    let now = world.now();
    let mut view = world.session_mut(client, session).unwrap();
    let stream = view.open_stream(Dir::Bi).unwrap();
    view.stream_mut(stream).write(b"last words").unwrap();
    view.stream_mut(stream).finish().unwrap();
    view.close(now, 7, "over");
    world.run_for(Duration::from_secs(2));
    let events = world.take_protocol_events(client);
    let welcome = ProtocolEventKind::FrameReceived { frame: "WELCOME" };
    let kinds = || events.iter().map(|event| &event.kind);
    assert!(kinds().any(|kind| *kind == welcome));
    let early = kinds().take_while(|kind| **kind != welcome);
    let sent: Vec<_> = early.filter(|kind| matches!(kind, ProtocolEventKind::FrameSent { .. })).collect();
    assert_eq!(sent, [&ProtocolEventKind::FrameSent { frame: "HELLO" }]);
    let closed = |event: &SessionEvent| {
        matches!(event, SessionEvent::Closed(SessionError::ClosedByPeer { code: 7, cut_short: false, .. }))
    };
    assert!(world.saw(servers[0], closed), "what was finished is delivered, then the session closed");
}

#[test]
fn released_session_leaves_nothing_behind() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    fleet.join(ends, 1);
    let now = fleet.world.now();
    let (client, servers) = (fleet.client, fleet.servers.clone());
    fleet.world.endpoint(client).release(now, ends.client);
    let idle = fleet.world.run_until(LONG, |world| {
        world.endpoint(client).is_idle() && servers.iter().all(|server| world.endpoint(*server).is_idle())
    });
    assert!(idle);
    assert!(fleet.world.session(client, ends.client).is_none());
    assert_eq!(fleet.world.endpoint(client).poll_timeout(), None);
}

#[test]
fn handshake_with_nobody_ends_with_unreachable() {
    let mut fleet = Fleet::new(1);
    let (client, server) = (fleet.client, fleet.servers[0]);
    let down = Link { up: false, ..Link::default() };
    fleet.world.set_link_both(client, server, down);
    fleet.world.dial(client, server, fleet.pki.client(), kwik_tests::SERVER_NAME).unwrap();
    let unreachable = |event: &SessionEvent| {
        matches!(event, SessionEvent::Closed(SessionError::Transport { code: TransportCode::UNREACHABLE, .. }))
    };
    fleet.await_event(client, unreachable);
}

// [P-9.4]
#[test]
fn servers_forget_a_client_that_fell_silent() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    fleet.join(ends, 1);
    let before = fleet.world.elapsed();
    fleet.world.crash(fleet.client);
    for server in fleet.servers.clone() {
        let timed_out = SessionEvent::Closed(SessionError::TimedOut);
        fleet.await_event(server, |event| *event == timed_out);
        let took = fleet.world.elapsed() - before;
        assert!((Duration::from_secs(28)..Duration::from_secs(32)).contains(&took), "{took:?}");
    }
}

// [P-9.4] [P-12.5]
#[test]
fn secondaries_hear_that_the_primary_is_gone() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    fleet.join(ends, 1);
    let secondary = fleet.servers[1];
    let before = fleet.world.elapsed();
    fleet.world.crash(fleet.servers[0]);
    let lost = |event: &SessionEvent| {
        matches!(event, SessionEvent::Closed(SessionError::Transport { code: TransportCode::SOURCE_LOST, .. }))
    };
    fleet.await_event(secondary, lost);
    let took = fleet.world.elapsed() - before;
    assert!((Duration::from_secs(28)..Duration::from_secs(32)).contains(&took), "{took:?}");
}

// [P-12.2] [P-12.3]
#[test]
fn close_that_runs_out_of_time_is_told_at_both_ends_and_ends_no_stream_as_if_it_were_whole() {
    let mut fleet = Fleet::new(2);
    let mut limits = Limits::default();
    limits.drain_timeout = Duration::from_secs(1);
    let config = fleet.pki.client().limits(limits);
    let ends = fleet.connect_with(config);
    let (_, secondary) = fleet.join(ends, 1);
    let (client, server) = (fleet.client, fleet.servers[0]);
    let (whole, whole_there) = fleet.open(ends, Dir::Uni);
    fleet.write_all(client, ends.client, whole, &pattern(0..1000));
    fleet.finish(client, ends.client, whole);
    // Nobody reads this one, and the window is a megabyte.
    let (cut, cut_there) = fleet.open(ends, Dir::Uni);
    fleet.write_all(client, ends.client, cut, &pattern(0..1_500_000));
    fleet.finish(client, ends.client, cut);
    let now = fleet.world.now();
    let mut session = fleet.world.session_mut(client, ends.client).unwrap();
    let id = session.stream(cut).id().unwrap();
    session.close(now, 42, "enough");

    let closed = |cut_short| SessionError::ClosedByPeer { code: 42, reason: "enough".to_owned(), cut_short };
    let notified = SessionEvent::Closed(closed(true));
    fleet.await_event(server, |event| *event == notified);
    assert_eq!(fleet.world.session(client, ends.client).unwrap().undelivered(), [id]);
    assert_eq!(fleet.read_to_end(server, ends.primary, whole_there).len(), 1000);
    assert!(fleet.read_available(server, ends.primary, cut_there).len() < 1_500_000);
    let mut session = fleet.world.session_mut(server, ends.primary).unwrap();
    assert_eq!(session.stream_mut(cut_there).read(1), Err(ReadError::SessionClosed));
    // The secondary lost nothing.
    let notified = SessionEvent::Closed(closed(false));
    let node = fleet.servers[1];
    assert!(fleet.world.run_until(LONG, |world| world.saw(node, |event| *event == notified)), "{secondary:?}");
}

// [P-12.6]
#[test]
fn end_that_closes_tells_first_what_it_received() {
    for delay in 1..=20 {
        let mut fleet = Fleet::new(1);
        let ends = fleet.connect();
        let (client, server) = (fleet.client, fleet.servers[0]);
        fleet.world.set_link_both(client, server, Link::with_delay(Duration::from_millis(delay)));
        let (here, there) = fleet.open(ends, Dir::Bi);
        fleet.write_all(server, ends.primary, there, &pattern(0..10_000));
        fleet.finish(server, ends.primary, there);
        fleet.read_to_end(client, ends.client, here);
        let now = fleet.world.now();
        fleet.world.session_mut(client, ends.client).unwrap().close(now, 0, "");
        let is_closed = |event: &SessionEvent| matches!(event, SessionEvent::Closed(_));
        fleet.await_event(server, is_closed);
        let session = fleet.world.session(server, ends.primary).unwrap();
        assert_eq!(session.undelivered(), [], "{delay} ms away");
        assert!(session.stream(there).is_send_done(), "{delay} ms away");
    }
}

// [P-12.6]
#[test]
fn ends_that_close_at_once_let_each_other_deliver() {
    for (ours, theirs) in [(10, 400_000), (400_000, 10), (300_000, 300_000)] {
        let mut fleet = Fleet::new(1);
        let ends = fleet.connect();
        let (client, server) = (fleet.client, fleet.servers[0]);
        fleet.world.set_link_both(client, server, Link::with_rate(10_000_000, Duration::from_millis(20)));
        let (here, there) = fleet.open(ends, Dir::Bi);
        fleet.write_all(client, ends.client, here, &pattern(0..ours));
        fleet.write_all(server, ends.primary, there, &pattern(0..theirs));
        fleet.finish(client, ends.client, here);
        fleet.finish(server, ends.primary, there);
        let now = fleet.world.now();
        fleet.world.session_mut(client, ends.client).unwrap().close(now, 1, "");
        fleet.world.session_mut(server, ends.primary).unwrap().close(now, 2, "");
        assert_eq!(fleet.read_to_end(client, ends.client, here).len() as u64, theirs);
        assert_eq!(fleet.read_to_end(server, ends.primary, there).len() as u64, ours);
        let before = fleet.world.elapsed();
        for (node, session) in [(client, ends.client), (server, ends.primary)] {
            let is_closed = |event: &SessionEvent| *event == SessionEvent::Closed(SessionError::LocallyClosed);
            fleet.await_event(node, is_closed);
            assert_eq!(fleet.world.session(node, session).unwrap().undelivered(), []);
        }
        assert!(fleet.world.elapsed() - before < Duration::from_secs(1), "they wait for each other");
    }
}
