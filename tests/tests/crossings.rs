//! Honest programs whose frames cross each other, or that are short of credit and memory: none of them loses its session.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kwik_core::{
    Dir, GrantId, GrantStatus, Limits, OpenError, PathEvent, SessionEvent, SessionHandle, StreamEvent, StreamHandle,
};
use kwik_sim::apps::requests::{RequestPlan, Requests};
use kwik_sim::{FleetBuilder, Link, World, WorldConfig};
use kwik_tests::{Ends, Fleet, SERVER_NAME, pattern};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What waited on carriers took all the credit that came, and the peer was blamed for a control plane that was not read.
// [P-5.1]
#[test]
fn regression_streams_left_the_control_plane_no_credit() {
    let mut limits = Limits::default();
    limits.quic_receive_window_bytes = 64 * 1024;
    // It stays as small, however much comes.
    limits.bandwidth_delay_bytes_max = 32 * 1024;
    let mut fleet = Fleet::with(1, |config| config.limits(limits.clone()));
    let ends = fleet.connect();
    let (client, server) = (fleet.client, fleet.servers[0]);
    fleet.world.set_link_both(client, server, Link::with_delay(30 * MILLISECOND));
    let mut session = fleet.world.session_mut(client, ends.client).unwrap();
    let written: Vec<_> = (0..100).map(|_| session.open_stream(Dir::Bi).unwrap()).collect();
    let (mut accepted, mut read) = (Vec::new(), 0);
    let block = Bytes::from(vec![7; 16 * 1024]);
    for _ in 0..1200 {
        fleet.world.run_for(10 * MILLISECOND);
        let mut session = fleet.world.session_mut(client, ends.client).unwrap();
        assert_eq!(session.close_reason(), None);
        for stream in &written {
            while session.stream_mut(*stream).write_chunk(block.clone()).is_ok() {}
            while session.stream_mut(*stream).read(usize::MAX).is_ok() {}
        }
        let mut session = fleet.world.session_mut(server, ends.primary).unwrap();
        accepted.extend(std::iter::from_fn(|| session.accept_stream(Dir::Bi)));
        for stream in &accepted {
            while let Ok(chunk) = session.stream_mut(*stream).read(usize::MAX) {
                read += chunk.data.len();
            }
            // A full buffer is as good.
            let _ = session.stream_mut(*stream).write(&[7; 1000]);
        }
    }
    assert!(read > 8 << 20, "{read} bytes in 12 s");
}

/// The window of a connection that had nothing to send was small in QUIC until something else happened there, so that the
/// first flight after every pause was 64 KiB.
#[test]
fn regression_first_flight_after_a_pause_was_small() {
    let mut fleet = Fleet::new(1);
    let (client, server) = (fleet.client, fleet.servers[0]);
    // From the begin: a round trip that becomes many times as long is a matter of its own.
    fleet.world.set_link_both(client, server, Link::with_delay(50 * MILLISECOND));
    let ends = fleet.connect();
    let (here, there) = fleet.open(ends, Dir::Bi);
    let block = Bytes::from(vec![7; 64 * 1024]);
    let pump = |fleet: &mut Fleet, writes: bool, milliseconds: u32| {
        let mut read = 0;
        for _ in 0..milliseconds {
            let mut session = fleet.world.session_mut(client, ends.client).unwrap();
            while writes && session.stream_mut(here).write_chunk(block.clone()).is_ok() {}
            fleet.world.run_for(MILLISECOND);
            let mut session = fleet.world.session_mut(server, ends.primary).unwrap();
            while let Ok(chunk) = session.stream_mut(there).read(usize::MAX) {
                read += chunk.data.len();
            }
        }
        read
    };
    pump(&mut fleet, true, 3000);
    pump(&mut fleet, false, 3000);
    let first = pump(&mut fleet, true, 60);
    assert!(first > 512 * 1024, "{first} bytes in the first flight");
}

/// A primary that has one stream of a client written by its secondaries, who answer at once and in full.
struct JointStream {
    fleet: Fleet,
    ends: Ends,
    /// By server: the path, and the session at the server.
    secondaries: Vec<(usize, kwik_core::PathId, SessionHandle)>,
    here: StreamHandle,
    there: StreamHandle,
    grants: BTreeMap<GrantId, Duration>,
    issued: usize,
}

impl JointStream {
    fn new(secondaries: usize, delay: Duration) -> Self {
        let mut fleet = Fleet::new(secondaries + 1);
        for server in fleet.servers.clone() {
            fleet.world.set_link_both(fleet.client, server, Link::with_delay(delay));
        }
        let ends = fleet.connect();
        let joined = (1..=secondaries).map(|server| (server, fleet.join(ends, server)));
        let secondaries = joined.map(|(server, (path, session))| (server, path, session)).collect();
        let (here, there) = fleet.open(ends, Dir::Bi);
        Self { fleet, ends, secondaries, here, there, grants: BTreeMap::new(), issued: 0 }
    }

    /// Delegates parts of `bytes` in turns, up to `open` at once.
    fn delegate(&mut self, open: usize, bytes: u64) {
        let now = self.fleet.world.elapsed();
        let mut session = self.fleet.world.session_mut(self.fleet.servers[0], self.ends.primary).expect("a session");
        self.grants.retain(|grant, _| {
            let is_active = matches!(session.delegation(*grant), Some(GrantStatus::Progress { .. }));
            if !is_active {
                session.forget_delegation(*grant);
            }
            is_active
        });
        while self.grants.len() < open {
            let (_, path, _) = self.secondaries[self.issued % self.secondaries.len()];
            let Ok(info) = session.stream_mut(self.there).delegate(path, bytes, Bytes::new()) else { return };
            self.grants.insert(info.grant, now);
            self.issued += 1;
        }
    }

    /// Revokes what is older than `age`. Returns how much that was.
    fn revoke(&mut self, age: Duration) -> usize {
        let now = self.fleet.world.elapsed();
        let mut session = self.fleet.world.session_mut(self.fleet.servers[0], self.ends.primary).expect("a session");
        let old: Vec<_> = self.grants.iter().filter(|(_, at)| now - **at >= age).map(|(grant, _)| *grant).collect();
        old.iter().filter(|grant| self.grants.remove(*grant).is_some() && session.revoke(**grant).is_ok()).count()
    }

    fn answer(&mut self) {
        for (server, _, session) in &self.secondaries {
            let Some(mut session) = self.fleet.world.session_mut(self.fleet.servers[*server], *session) else {
                continue;
            };
            while let Some(part) = session.accept_stream(Dir::Bi) {
                let mut part = session.stream_mut(part);
                let range = part.view().grant().expect("a part").range;
                // It may have been revoked.
                let _ = part.write(&pattern(range));
                part.release_send();
                part.release_recv();
            }
        }
    }

    /// Returns how many bytes were read.
    fn read(&mut self, ordered: bool) -> usize {
        let mut session = self.fleet.world.session_mut(self.fleet.client, self.ends.client).expect("a session");
        assert_eq!(session.close_reason(), None);
        let mut stream = session.stream_mut(self.here);
        let mut next = || if ordered { stream.read(usize::MAX) } else { stream.read_unordered(usize::MAX) };
        std::iter::from_fn(|| next().ok()).map(|chunk| chunk.data.len()).sum()
    }
}

/// A primary with a deadline gives up what takes longer, which was mostly delivered by then. It lost its session to its own
/// REVOKEs, which achieved nothing.
// [P-5.16]
#[test]
fn regression_revokes_that_crossed_the_last_status_were_a_flood() {
    let mut joint = JointStream::new(1, 10 * MILLISECOND);
    let mut revoked = 0;
    while joint.fleet.world.elapsed() < SECOND {
        joint.fleet.world.run_for(MILLISECOND);
        joint.answer();
        joint.read(true);
        revoked += joint.revoke(35 * MILLISECOND);
        joint.delegate(100, 100);
    }
    assert!(revoked > 1500, "{revoked}");
}

/// What was granted was remembered for ever, since nothing was read in order.
// [P-8.8]
#[test]
fn regression_reader_out_of_order_was_granted_too_many_ranges() {
    let mut joint = JointStream::new(2, MILLISECOND);
    let mut read = 0;
    while read < 17_000 * 64 {
        joint.fleet.world.run_for(2 * MILLISECOND);
        joint.answer();
        read += joint.read(false);
        joint.delegate(200, 64);
    }
}

/// The client reads nothing, so the ranges it remembers run out: further ones are refused, and go well later.
// [P-8.8]
#[test]
fn ranges_that_a_reader_who_pauses_cannot_remember_are_refused() {
    let mut joint = JointStream::new(2, MILLISECOND);
    let mut is_refused = false;
    while !is_refused {
        joint.fleet.world.run_for(2 * MILLISECOND);
        joint.answer();
        let session = joint.fleet.world.session_mut(joint.fleet.servers[0], joint.ends.primary).unwrap();
        is_refused =
            joint.grants.keys().any(|grant| matches!(session.delegation(*grant), Some(GrantStatus::Lost { .. })));
        joint.delegate(200, 16);
        assert!(joint.issued < 20_000, "nothing was refused");
    }
    assert!(joint.issued > 16_000, "{} ranges", joint.issued);
    let read = joint.read(true);
    assert!(read > 16_000 * 16, "{read} bytes in a row");
}

/// A program that adds a server again as soon as its path is dead. Its dials were spent, so that each one was refused at
/// once, and the session was lost.
// [P-5.16]
#[test]
fn regression_servers_added_again_at_once_were_a_flood() {
    let mut fleet = Fleet::new(4);
    let primary = fleet.servers[0];
    for server in fleet.servers.clone() {
        fleet.world.set_link_both(fleet.client, server, Link::with_delay(5 * MILLISECOND));
    }
    let ends = fleet.connect();
    let mut paths = BTreeMap::new();
    for server in 1..4 {
        fleet.world.crash(fleet.servers[server]);
        let target = fleet.target(server);
        paths.insert(fleet.add_path(ends, target), server);
    }
    let mut added = 0;
    let targets: Vec<_> = (0..4).map(|server| fleet.target(server)).collect();
    fleet.world.run_until(60 * SECOND, |world| {
        while let Some((session, event)) = world.poll_event(primary) {
            assert!(!matches!(event, SessionEvent::Closed(_)), "{event:?} after {added}");
            let SessionEvent::Path(PathEvent::Dead { path, .. }) = event else { continue };
            let (now, server) = (world.now(), paths.remove(&path).unwrap());
            let mut session = world.session_mut(primary, session).unwrap();
            let path = session.add_path(now, targets[server].clone()).unwrap();
            paths.insert(path, server);
            // It has something for each of them.
            let _ = session.send_raw(path, Bytes::from_static(b"hi"));
            added += 1;
        }
        false
    });
    assert!(added > 500, "{added}: it is slowed down, and no more than that");
}

/// A server with little memory, and as many sessions as begin one after the other.
fn small_server(sessions: u8, limits: &Limits) -> (Fleet, Vec<SessionHandle>) {
    let builder = FleetBuilder::new(WorldConfig::null_tls(1)).client(|_| ());
    let mut fleet = builder.servers(1, |_, node| node.limits.endpoint_memory_max = 64 << 20).build();
    for host in 0..sessions {
        let client = fleet.add_client(&format!("10.3.{host}.1:5000"), &Link::with_delay(10 * MILLISECOND));
        let config = fleet.pki.client().limits(limits.clone());
        fleet.world.dial(client, fleet.servers[0], config, SERVER_NAME).expect("a valid configuration");
        fleet.world.run_for(200 * MILLISECOND);
        assert!(fleet.world.saw(client, |event| *event == SessionEvent::Welcomed), "{host}");
    }
    let server = fleet.servers[0];
    let events = std::iter::from_fn(|| fleet.world.poll_event(server));
    let incoming = events.filter(|(_, event)| *event == SessionEvent::Incoming).map(|(session, _)| session).collect();
    (fleet, incoming)
}

/// Four sessions were told of memory that came back, and the others only when a datagram came for them.
#[test]
fn regression_sessions_behind_the_first_four_were_not_told_of_memory() {
    let mut limits = Limits::default();
    limits.keep_alive = 10 * SECOND;
    let (fleet, sessions) = small_server(39, &limits);
    let (mut world, server) = (fleet.world, fleet.servers[0]);
    let mut waiting = Vec::new();
    for session in &sessions[1..] {
        let mut view = world.session_mut(server, *session).unwrap();
        let error = std::iter::repeat_with(|| view.open_stream(Dir::Bi)).find_map(Result::err);
        if error == Some(OpenError::BudgetTaken) {
            waiting.push(*session);
        }
        world.run_for(MILLISECOND);
    }
    let mut notified = |world: &mut World| {
        while let Some((session, event)) = world.poll_event(server) {
            if matches!(event, SessionEvent::Stream(StreamEvent::Available { .. })) {
                waiting.retain(|waits| *waits != session);
            }
        }
        waiting.len()
    };
    world.run_for(SECOND);
    assert!(notified(&mut world) > 8, "too few wait");
    let now = world.now();
    world.endpoint(server).refuse(now, sessions[0]);
    world.run_for(SECOND);
    assert_eq!(notified(&mut world), 0);
}

/// What a session held that another one had taken the place of was counted although it was gone.
#[test]
fn regression_memory_of_a_session_that_was_refused_from_aside_was_kept() {
    let (fleet, sessions) = small_server(3, &Limits::default());
    let (mut world, server) = (fleet.world, fleet.servers[0]);
    let before = world.endpoint(server).stats().memory_bytes;
    let now = world.now();
    assert!(world.session(server, sessions[2]).is_some());
    world.endpoint(server).refuse(now, sessions[0]);
    world.run_for(MILLISECOND);
    world.endpoint(server).assert_memory();
    let after = world.endpoint(server).stats().memory_bytes;
    assert!(after <= before - (4 << 20), "{before} before, {after} after");
}

/// Unauthenticated connections of one network took the last eighth of a small server's memory, and nobody else could come.
// [P-4.13]
#[test]
fn regression_unauthenticated_connections_took_what_is_kept_for_newcomers() {
    use kwik_sim::byzantine::{Dialer, Flood};
    let (fleet, _) = small_server(30, &Limits::default());
    let flood = Flood::new(&fleet, 0, Dialer::Silent, (5000, MILLISECOND));
    let Fleet { mut world, pki, client, servers, .. } = fleet;
    let server = servers[0];
    let node = world.add_raw_node("10.1.0.1:7000".parse().unwrap(), Box::new(flood));
    world.set_link_both(node, server, Link::with_delay(10 * MILLISECOND));
    world.run_for(2 * SECOND);
    assert!(world.endpoint(server).stats().unauthenticated > 16, "the flood is there");
    world.dial(client, server, pki.client(), SERVER_NAME).unwrap();
    let welcomed = |world: &mut World| world.saw(client, |event| *event == SessionEvent::Welcomed);
    assert!(world.run_until(SECOND, welcomed));
}

/// A client that had all its streams open sent nothing, so that no acknowledgement went along, and every round of requests
/// waited 20 ms for one.
// [P-6.6]
#[test]
fn regression_requests_at_the_limit_of_streams_waited_for_acknowledgements() {
    let plan = RequestPlan { count: 1_000, at_once: 1_000, bytes: 64, streams: 16 };
    let mut requests = Requests::new(WorldConfig::null_tls(1), plan, Link::with_delay(MILLISECOND / 2));
    assert!(requests.run(700 * MILLISECOND), "63 rounds of 1 ms take longer");
}

/// An acknowledgement does not wait for 20 ms where something else leaves before.
// [P-6.6]
#[test]
fn acknowledgements_go_along_with_answers() {
    let builder = FleetBuilder::new(WorldConfig::null_tls(1)).link(Link::with_delay(MILLISECOND / 2));
    let mut fleet = builder.client(|_| ()).servers(1, |_, _| ()).build();
    let ends = fleet.connect();
    let (client, server) = (fleet.client, fleet.servers[0]);
    fleet.world.run_for(SECOND);
    let began = fleet.world.now();
    let mut asked = Vec::new();
    for _ in 0..8 {
        let (here, there) = fleet.open(ends, Dir::Bi);
        for (node, session, stream) in [(client, ends.client, here), (server, ends.primary, there)] {
            fleet.write_all(node, session, stream, b"a word");
            fleet.finish(node, session, stream);
        }
        fleet.read_to_end(client, ends.client, here);
        asked.push(here);
    }
    assert!(fleet.world.now() - began < 15 * MILLISECOND, "nothing waited so long that it was due in any case");
    let session = fleet.world.session(client, ends.client).expect("it is there");
    assert!(asked[..3].iter().all(|stream| session.stream(*stream).is_send_done()), "the first were acknowledged");
}

/// Many short streams need few packets.
#[test]
fn short_streams_share_packets() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    fleet.world.run_for(SECOND);
    let mut session = fleet.world.session_mut(fleet.client, ends.client).expect("it is there");
    for _ in 0..12 {
        let stream = session.open_stream(Dir::Uni).expect("there is room");
        let mut stream = session.stream_mut(stream);
        stream.write(b"a word").expect("there is room");
        stream.finish().expect("it is open");
    }
    fleet.world.run_for(SECOND);
    let session = fleet.world.session(fleet.client, ends.client).expect("it is there");
    assert_eq!(session.stats().paths[0].packets_sent, 3, "four streams in each");
}

/// They also go along with what a reader gives back.
// [P-6.6]
#[test]
fn acknowledgements_go_along_with_credit() {
    let builder = FleetBuilder::new(WorldConfig::null_tls(1)).link(Link::with_delay(MILLISECOND / 2));
    let mut fleet = builder.client(|_| ()).servers(1, |_, _| ()).build();
    let ends = fleet.connect();
    let (client, server) = (fleet.client, fleet.servers[0]);
    fleet.world.run_for(SECOND);
    let mut sent = Vec::new();
    for _ in 0..6 {
        let (here, there) = fleet.open(ends, Dir::Uni);
        fleet.write_all(client, ends.client, here, b"a word");
        fleet.finish(client, ends.client, here);
        fleet.read_to_end(server, ends.primary, there);
        fleet.world.session_mut(server, ends.primary).expect("it is there").stream_mut(there).release_recv();
        sent.push(here);
    }
    fleet.world.run_for(2 * MILLISECOND);
    let session = fleet.world.session(client, ends.client).expect("it is there");
    assert!(sent[..3].iter().all(|stream| session.stream(*stream).is_send_done()), "the first were acknowledged");
}
