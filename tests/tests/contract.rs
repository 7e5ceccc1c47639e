//! The rules of the loop around an endpoint, as its crate documentation states them.

use std::time::Duration;

use kwik_core::{DatagramMeta, Dir, Endpoint, EndpointConfig, ReadError, SessionEvent, StreamEvent, StreamHandle};
use kwik_sim::{FleetBuilder, Link, WorldConfig};
use kwik_tests::{Ends, Fleet, LONG, SERVER_NAME, pattern};

fn drain(endpoint: &mut Endpoint, now: std::time::Instant) -> usize {
    let mut sent = 0;
    let mut buf = Vec::new();
    while endpoint.poll_transmit(now, 10, &mut buf).is_some() {
        sent += 1;
        buf.clear();
    }
    while endpoint.poll_event().is_some() {}
    sent
}

#[test]
fn whatever_is_queued_is_due_at_once() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    fleet.world.run_for(Duration::from_millis(100));
    let (client, now) = (fleet.client, fleet.world.now());
    let endpoint = fleet.world.endpoint(client);
    assert!(endpoint.poll_timeout().is_none_or(|at| at > now), "idle, and yet due");
    let stream = endpoint.session_mut(ends.client).unwrap().open_stream(Dir::Bi).unwrap();
    assert!(endpoint.poll_timeout().is_some_and(|at| at <= now));
    drain(endpoint, now);
    assert!(endpoint.poll_timeout().is_none_or(|at| at > now));
    endpoint.session_mut(ends.client).unwrap().stream_mut(stream).write(b"x").unwrap();
    assert!(endpoint.poll_timeout().is_some_and(|at| at <= now));
    assert!(drain(endpoint, now) > 0);
}

#[test]
fn looking_at_a_session_and_reading_nothing_cost_no_turn() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    fleet.join(ends, 1);
    let (here, there) = fleet.open(ends, Dir::Bi);
    fleet.world.run_for(Duration::from_secs(1));
    let (client, primary, now) = (fleet.client, fleet.servers[0], fleet.world.now());
    let idle = |endpoint: &Endpoint| endpoint.poll_timeout().is_none_or(|at| at > now);
    let endpoint = fleet.world.endpoint(client);
    let mut session = endpoint.session_mut(ends.client).unwrap();
    assert_eq!((session.stats().paths.len(), session.close_reason()), (2, None));
    assert_eq!(session.stream_mut(here).read(100), Err(ReadError::Blocked));
    assert!(session.id().is_some() && session.remote_address().is_some() && session.stream(here).id().is_some());
    assert!(idle(endpoint));
    let endpoint = fleet.world.endpoint(primary);
    let session = endpoint.session(ends.primary).unwrap();
    assert_eq!((session.all_paths().len(), session.stream(there).is_send_done()), (2, false));
    assert!(idle(endpoint));
    // What is done before another look counts.
    endpoint.session_mut(ends.primary).unwrap().stream_mut(there).write(b"x").unwrap();
    assert_eq!(endpoint.session(ends.primary).unwrap().close_reason(), None);
    assert!(!idle(endpoint));
    assert!(drain(endpoint, now) > 0);
}

/// A client that wrote `data` to a stream, which the primary knows by the handle returned, and the datagrams for it, each alone.
fn written(data: &[u8]) -> (Fleet, Ends, StreamHandle, DatagramMeta, Vec<Vec<u8>>) {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let (here, there) = fleet.open(ends, Dir::Bi);
    fleet.world.run_for(Duration::from_secs(1));
    let (client, now) = (fleet.client, fleet.world.now());
    let meta = DatagramMeta { remote: fleet.world.address(client), local_ip: None, ecn: None };
    let endpoint = fleet.world.endpoint(client);
    let mut session = endpoint.session_mut(ends.client).expect("it is there");
    session.stream_mut(here).write(data).expect("there is room");
    let (mut datagrams, mut buf) = (Vec::new(), Vec::new());
    while let Some(transmit) = endpoint.poll_transmit(now, 1, &mut buf) {
        datagrams.push(buf[..transmit.size].to_vec());
        buf.clear();
    }
    (fleet, ends, there, meta, datagrams)
}

#[test]
fn what_arrives_can_be_read_before_anything_is_sent() {
    let (mut fleet, ends, there, meta, datagrams) = written(b"at once");
    let (primary, now) = (fleet.servers[0], fleet.world.now());
    let endpoint = fleet.world.endpoint(primary);
    endpoint.handle_datagram(now, meta, &datagrams[0]);
    let event = endpoint.poll_event();
    assert_eq!(event, Some((ends.primary, SessionEvent::Stream(StreamEvent::Readable(there)))));
    let chunk = endpoint.session_mut(ends.primary).unwrap().stream_mut(there).read(100).unwrap();
    assert_eq!(chunk.data, b"at once"[..]);
}

#[test]
fn datagrams_that_arrive_together_cost_one_turn() {
    let (mut fleet, ends, there, meta, datagrams) = written(&[7; 5_000]);
    assert!(datagrams.len() > 2, "{} datagrams", datagrams.len());
    let (primary, now) = (fleet.servers[0], fleet.world.now());
    let endpoint = fleet.world.endpoint(primary);
    let before = endpoint.stats().turns;
    endpoint.handle_datagrams(now, datagrams.iter().map(|data| (meta, &data[..])));
    assert_eq!(endpoint.stats().turns, before + 1);
    let chunk = endpoint.session_mut(ends.primary).unwrap().stream_mut(there).read(1).unwrap();
    assert_eq!(chunk.data, [7][..]);
}

#[test]
fn polling_an_idle_endpoint_gives_nobody_a_turn() {
    let mut fleet = Fleet::new(3);
    let mut ends = Vec::new();
    for _ in 0..20 {
        let session = fleet.connect();
        for server in [1, 2] {
            fleet.join(session, server);
        }
        for _ in 0..10 {
            fleet.open(session, Dir::Bi);
        }
        ends.push(session);
    }
    fleet.world.run_for(Duration::from_secs(2));
    let (client, now) = (fleet.client, fleet.world.now());
    let endpoint = fleet.world.endpoint(client);
    let before = endpoint.stats().turns;
    for _ in 0..100 {
        assert_eq!(drain(endpoint, now), 0);
        assert!(endpoint.poll_timeout().is_some_and(|at| at > now));
    }
    assert_eq!(endpoint.stats().turns, before, "an idle poll costs as much as there are sessions");
    // A command costs turns of its own session, however many others there are.
    endpoint.session_mut(ends[7].client).unwrap().open_stream(Dir::Bi).unwrap();
    drain(endpoint, now);
    let turns = endpoint.stats().turns - before;
    assert!((1..=3).contains(&turns), "{turns} turns for one command");
}

#[test]
fn next_deadline_is_later_after_a_timeout_and_a_drain() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    fleet.join(ends, 1);
    let (here, _) = fleet.open(ends, Dir::Bi);
    fleet.write_all(fleet.client, ends.client, here, &pattern(0..10_000));
    // From now on nobody answers: every timer of the client runs to its end.
    let client = fleet.client;
    let endpoint = fleet.world.endpoint(client);
    let mut closed = false;
    for _ in 0..10_000 {
        let Some(at) = endpoint.poll_timeout() else {
            assert!(closed, "no deadline while the session is open");
            return;
        };
        endpoint.handle_timeout(at);
        let mut buf = Vec::new();
        while endpoint.poll_transmit(at, 10, &mut buf).is_some() {
            buf.clear();
        }
        while let Some((_, event)) = endpoint.poll_event() {
            closed |= matches!(event, SessionEvent::Closed(_));
        }
        assert!(endpoint.poll_timeout().is_none_or(|next| next > at), "the same moment again");
    }
    panic!("the timers never end");
}

/// Everything of one run that can be compared with another.
fn run(seed: u64) -> Vec<String> {
    let link = Link { loss: 0.02, ..Link::with_delay(Duration::from_millis(7)) };
    let builder = FleetBuilder::new(WorldConfig::new(seed)).link(link).client(|_| ()).servers(1, |_, _| ());
    let Fleet { mut world, pki, client, servers, .. } = builder.build();
    let server = servers[0];
    let session = world.dial(client, server, pki.client(), SERVER_NAME).expect("dialled");
    let mut view = world.session_mut(client, session).expect("a session");
    let stream = view.open_stream(Dir::Uni).expect("opened");
    view.stream_mut(stream).write(&pattern(0..200_000)).expect("taken");
    view.stream_mut(stream).finish().expect("finished");
    let mut trace = Vec::new();
    world.run_until(LONG, |world| {
        for node in [client, server] {
            while let Some((session, event)) = world.poll_event(node) {
                if event == SessionEvent::Incoming {
                    let id = world.session(node, session).expect("a session").id();
                    trace.push(format!("{id:?}"));
                }
                trace.push(format!("{:?} {node:?} {event:?}", world.elapsed()));
            }
        }
        trace.push(format!("{:?} {:?}", world.elapsed(), world.link_stats(client, server)));
        world.elapsed() > Duration::from_secs(5)
    });
    trace
}

#[test]
fn same_seed_gives_the_same_run() {
    let first = run(3);
    assert!(first.len() > 50, "{} lines", first.len());
    assert_eq!(first, run(3));
    assert_ne!(first, run(4));
}

#[test]
fn arbitrary_datagrams_neither_panic_nor_stay() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let server = fleet.servers[0];
    let client_address = fleet.world.address(fleet.client);
    let mut state = 1_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).to_le_bytes()[0]
    };
    let now = fleet.world.now();
    for length in (0..1500).step_by(7) {
        let mut data: Vec<u8> = (0..length).map(|_| next()).collect();
        for first in [0xc0, 0x40, 0x00, 0xe0] {
            if let Some(byte) = data.first_mut() {
                *byte = first;
            }
            let meta = DatagramMeta { remote: client_address, local_ip: None, ecn: None };
            fleet.world.endpoint(server).handle_datagram(now, meta, &data);
        }
    }
    drain(fleet.world.endpoint(server), now);
    still_works(&mut fleet, ends);
}

fn still_works(fleet: &mut Fleet, ends: Ends) {
    let (here, there) = fleet.open(ends, Dir::Bi);
    fleet.write_all(fleet.client, ends.client, here, b"still here");
    fleet.finish(fleet.client, ends.client, here);
    assert_eq!(fleet.read_to_end(fleet.servers[0], ends.primary, there), b"still here");
}

#[test]
fn contradictory_limits_are_refused() {
    let mut config = EndpointConfig::new([0; 32], Duration::ZERO);
    config.limits.streams_bidi_max = u64::MAX;
    let now = Fleet::new(1).world.now();
    assert!(Endpoint::new(config, now).is_err());
}

// [P-4.9]
#[test]
fn silent_unauthenticated_connection_is_closed_in_time() {
    let mut fleet = Fleet::new(1);
    let (client, server) = (fleet.client, fleet.servers[0]);
    fleet.world.dial(client, server, fleet.pki.client(), SERVER_NAME).unwrap();
    // The client's HELLO never arrives: its direction dies once the handshake has begun.
    fleet.world.run_for(Duration::from_millis(15));
    fleet.world.set_link(client, server, Link { up: false, ..Link::default() });
    let idle = fleet.world.run_until(Duration::from_secs(15), |world| world.endpoint(server).is_idle());
    assert!(idle, "a connection that never authenticated is still there");
}
