//! What an operator can learn of a session: why a client was refused, what became of a grant, what was said.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kwik_core::{
    BlockedBy, Dir, ErrorCode, EventDetail, Identity, PathId, PathState, ProtocolEvent, ProtocolEventKind,
    ServerConfig, TransportCode,
};
use kwik_sim::{Disturbance, FleetBuilder, NodeConfig, NodeId, Pki, World, WorldConfig};
use kwik_tests::{Fleet, LONG, SERVER_NAME, pattern};

fn kinds(events: Vec<ProtocolEvent>) -> Vec<ProtocolEventKind> {
    events.into_iter().map(|event| event.kind).collect()
}

/// Why a server refused somebody, and what that peer heard.
fn refusals(world: &mut World, node: NodeId) -> Vec<(TransportCode, String)> {
    kinds(world.take_protocol_events(node))
        .into_iter()
        .filter_map(|kind| match kind {
            ProtocolEventKind::Refused { code, cause, .. } => Some((code, cause)),
            _ => None,
        })
        .collect()
}

/// A client that the primary sends to a server which does not believe it: what the server says of that.
fn refused_join(
    server: impl FnOnce(&Pki) -> ServerConfig,
    disturb: impl FnOnce(&mut Fleet),
) -> (TransportCode, String) {
    let mut fleet = Fleet::new(1);
    fleet.add_server(server(&fleet.pki));
    let ends = fleet.connect();
    disturb(&mut fleet);
    let target = fleet.target(1);
    let path = fleet.add_path(ends, target);
    let (primary, secondary) = (fleet.servers[0], fleet.servers[1]);
    let mut notified = None;
    let is_dead = fleet.world.run_until(LONG, |world| {
        let session = world.session_mut(primary, ends.primary).expect("a session");
        notified = session.path(path).and_then(|info| match info.state {
            PathState::Dead(reason) => Some(reason.code),
            _ => None,
        });
        notified.is_some()
    });
    assert!(is_dead);
    let refusals = refusals(&mut fleet.world, secondary);
    let [(code, cause)] = &refusals[..] else { panic!("{refusals:?}") };
    assert_eq!(notified, Some((*code).into()), "the primary hears the code");
    (*code, cause.clone())
}

#[test]
fn server_tells_its_operator_why_a_client_of_another_primary_was_refused() {
    let other = Identity::from_seed([77; 32]).public();
    let (code, cause) = refused_join(|pki| pki.server_trusting_nobody(1).trust_primary(other), |_| {});
    assert_eq!((code, cause.as_str()), (TransportCode::AUTH_FAILED, "the issuer of the ticket is not trusted"));
}

#[test]
fn server_tells_its_operator_that_a_ticket_came_outside_its_time() {
    let late =
        |fleet: &mut Fleet| fleet.world.inject(Disturbance::ClockOffset { node: fleet.servers[1], millis: 3_600_000 });
    let (code, cause) = refused_join(|pki| pki.server(1), late);
    assert_eq!((code, cause.as_str()), (TransportCode::AUTH_TIME, "the ticket is used outside its time"));
}

#[test]
fn server_tells_its_operator_that_a_credential_was_refused() {
    let knows = |credential: &[u8], _: SocketAddr| credential == b"open sesame";
    let mut fleet = Fleet::with(1, |config| config.authorizer(Arc::new(knows)));
    let (client, server) = (fleet.client, fleet.servers[0]);
    fleet.world.dial(client, server, fleet.pki.client(), SERVER_NAME).expect("dialled");
    fleet.world.run_for(Duration::from_secs(1));
    let cause = "the authorizer refuses the credential".to_owned();
    assert_eq!(refusals(&mut fleet.world, server), [(TransportCode::AUTH_FAILED, cause)]);
}

#[test]
fn life_of_a_grant_is_told_at_all_three_ends() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let nodes = [fleet.servers[0], fleet.client, fleet.servers[1]];
    for node in nodes {
        fleet.world.take_protocol_events(node);
    }
    let mut session = fleet.world.session_mut(nodes[0], ends.primary).unwrap();
    let info = session.stream_mut(there).delegate(path, 1000, Bytes::from_static(b"please")).unwrap();
    let part = fleet.accept(1, secondary, Dir::Bi);
    let mut session = fleet.world.session_mut(nodes[2], secondary).unwrap();
    assert_eq!(session.stream_mut(part).write(&pattern(info.range.clone())), Ok(1000));
    let mut read = 0;
    fleet.world.run_until(LONG, |world| {
        let mut session = world.session_mut(nodes[1], ends.client).unwrap();
        read += session.stream_mut(here).read(usize::MAX).map_or(0, |chunk| chunk.data.len());
        read == 1000
    });
    fleet.world.run_for(Duration::from_secs(1));
    let [primary, client, secondary] = nodes.map(|node| kinds(fleet.world.take_protocol_events(node)));
    let (grant, range) = (info.grant, info.range);
    let stream = fleet.world.session(nodes[1], ends.client).unwrap().stream(here).id().unwrap();
    let delivered = ProtocolEventKind::GrantDelivered { grant };
    let issued = ProtocolEventKind::GrantIssued { grant, stream, range: range.clone() };
    let recorded = ProtocolEventKind::GrantRecorded { grant, stream, range: range.clone() };
    assert_eq!(primary, [issued, delivered.clone()]);
    assert_eq!(client, [recorded, delivered]);
    assert_eq!(secondary, [ProtocolEventKind::GrantAccepted { grant, stream, range }]);
}

#[test]
fn life_of_a_stream_is_told_at_both_ends() {
    let adjust = |node: &mut NodeConfig| node.event_detail = EventDetail::Frames;
    let builder = FleetBuilder::new(WorldConfig::null_tls(1)).client(adjust).servers(1, |_, node| adjust(node));
    let Fleet { mut world, pki, client, servers, .. } = builder.build();
    let server = servers[0];
    let session = world.dial(client, server, pki.client(), SERVER_NAME).unwrap();
    world.run_for(Duration::from_secs(1));
    let mut view = world.session_mut(client, session).unwrap();
    let open = |view: &mut kwik_core::SessionMut<'_>| {
        let handle = view.open_stream(Dir::Bi).unwrap();
        (handle, view.stream(handle).id().unwrap())
    };
    let [finished, reset, stopped, full] = [(); 4].map(|()| open(&mut view));
    view.stream_mut(finished.0).write(b"all").unwrap();
    view.stream_mut(finished.0).finish().unwrap();
    view.stream_mut(reset.0).write(b"half").unwrap();
    view.stream_mut(reset.0).reset(7).unwrap();
    view.stream_mut(stopped.0).stop(8).unwrap();
    // More than anybody gives credit for, as long as nobody reads.
    while view.stream_mut(full.0).write(&[0; 65_536]).is_ok() {}
    world.run_for(Duration::from_secs(1));
    let [here, there] = [client, server].map(|node| world.take_protocol_events(node));
    let by = |path: Option<PathId>, kind| move |event: &ProtocolEvent| event.path == path && event.kind == kind;
    let (code, of_stop) = (ErrorCode::Application(7), ErrorCode::Application(8));
    for (stream, kind) in [
        (finished.1, ProtocolEventKind::StreamFinished { stream: finished.1 }),
        (reset.1, ProtocolEventKind::StreamReset { stream: reset.1, code }),
        (stopped.1, ProtocolEventKind::StreamStopped { stream: stopped.1, code: of_stop }),
    ] {
        let opened = ProtocolEventKind::StreamOpened { stream };
        for kind in [opened, kind] {
            assert!(here.iter().any(by(None, kind.clone())), "{kind:?} of the application");
            assert!(there.iter().any(by(Some(PathId::PRIMARY), kind.clone())), "{kind:?} of the peer");
        }
    }
    let blocked = ProtocolEventKind::StreamBlocked { stream: full.1, by: BlockedBy::Credit };
    assert!(here.iter().any(by(Some(PathId::PRIMARY), blocked)));
    let carriers = |event: &&ProtocolEvent| matches!(event.kind, ProtocolEventKind::CarriersChanged { open: 1.. });
    assert!(here.iter().any(|event| carriers(&event)));
}

#[test]
fn dials_are_told_with_what_policy_said() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (joined, _) = fleet.join(ends, 1);
    let refused = fleet.add_path(ends, kwik_core::PathTarget { server_name: "unknown".to_owned(), ..fleet.target(1) });
    let loopback = "127.0.0.1:4433".parse().expect("an address");
    let outside = fleet.add_path(ends, kwik_core::PathTarget { address: loopback, ..fleet.target(1) });
    fleet.world.run_for(Duration::from_secs(3));
    let events = fleet.world.take_protocol_events(fleet.client);
    let of = |path| events.iter().filter(move |event| event.path == Some(path)).map(|event| &event.kind);
    let was_dialled = |path| of(path).any(|kind| matches!(kind, ProtocolEventKind::PathDialled { .. }));
    let states = |path| of(path).filter(|kind| matches!(kind, ProtocolEventKind::PathChanged { .. })).count();
    assert!(was_dialled(joined) && was_dialled(refused) && !was_dialled(outside));
    assert_eq!(states(joined), 2, "authenticating, then active");
    let why = of(outside).find_map(|kind| match kind {
        ProtocolEventKind::PathRefused { reason, .. } => Some((reason.code, reason.detail.is_empty())),
        _ => None,
    });
    assert_eq!(why, Some((TransportCode::PATH_POLICY.into(), false)), "the operator reads what policy said");
}

#[test]
fn frames_are_told_on_demand_and_nothing_is_told_otherwise() {
    for detail in [EventDetail::Off, EventDetail::Changes, EventDetail::Streams, EventDetail::Frames] {
        let adjust = |node: &mut NodeConfig| node.event_detail = detail;
        let builder = FleetBuilder::new(WorldConfig::null_tls(1)).client(adjust).servers(1, |_, node| adjust(node));
        let Fleet { mut world, pki, client, servers, .. } = builder.build();
        let server = servers[0];
        let session = world.dial(client, server, pki.client(), SERVER_NAME).unwrap();
        world.run_for(Duration::from_secs(1));
        let stream = world.session_mut(client, session).unwrap().open_stream(Dir::Uni).unwrap();
        assert_eq!(world.session_mut(client, session).unwrap().stream_mut(stream).write(b"hello"), Ok(5));
        world.run_for(Duration::from_secs(1));
        let [server, client] = [server, client].map(|node| kinds(world.take_protocol_events(node)));
        let established = |kind: &ProtocolEventKind| matches!(kind, ProtocolEventKind::SessionEstablished { .. });
        let is_notified = detail > EventDetail::Off;
        assert_eq!(
            (server.iter().any(established), client.iter().any(established)),
            (is_notified, is_notified),
            "{detail:?}"
        );
        let sent = |frame| ProtocolEventKind::FrameSent { frame };
        let received = |frame| ProtocolEventKind::FrameReceived { frame };
        let has_frames = detail == EventDetail::Frames;
        let of_stream = |kind: &ProtocolEventKind| matches!(kind, ProtocolEventKind::StreamOpened { .. });
        assert_eq!(client.iter().any(of_stream), detail >= EventDetail::Streams, "{detail:?}");
        for (events, kind) in [
            (&client, received("WELCOME")),
            (&client, received("PACKET_ACK")),
            (&server, received("HELLO")),
            (&server, sent("WELCOME")),
            (&client, sent("HELLO")),
            (&client, sent("OPEN_STREAM")),
            (&client, sent("PACKET")),
            (&server, received("OPEN_STREAM")),
            (&server, received("STREAM")),
            (&server, sent("PACKET_ACK")),
        ] {
            assert_eq!(events.contains(&kind), has_frames, "{detail:?}: {kind:?} in {events:?}");
        }
    }
}
