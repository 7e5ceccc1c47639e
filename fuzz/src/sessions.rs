//! Whole sessions: honest nodes whose applications do anything, and a node that says anything.

use std::time::Duration;

use bytes::Bytes;
use kwik_core::__test_exports::inside::Input;
use kwik_core::{DatagramMeta, Dir, GrantId, PathId, SessionEvent, SessionHandle, StreamHandle, StreamOffset};
use kwik_sim::byzantine::{Behaviour, Byzantine, PeerRole, When};
use kwik_sim::{Fleet, FleetBuilder, Link, NodeId, SERVER_NAME, WorldConfig};

/// What a session may hold, whatever is done to it: what it may receive, a quarter more as allocated, and what its
/// application may write.
const BUFFERED_MAX: usize = 40 << 20;
/// The number of the server that says anything.
const BYZANTINE: u8 = 2;

/// A client whose primary says anything.
pub(crate) fn client(input: &mut Input<'_>) {
    let when = [When::First, When::Welcomed, When::Placed, When::Partnered][usize::from(input.byte() % 4)];
    let mut fixture = Fixture::new();
    let partner = fixture.fleet.target(1);
    let script = input.take(400);
    let behaviour = Behaviour::scripted(PeerRole::Primary, when);
    let byzantine = Byzantine::server(&fixture.fleet, BYZANTINE, 1, behaviour).script(script);
    let byzantine = fixture.add(byzantine.partner(partner));
    fixture.dial(byzantine);
    fixture.perform(input);
}

/// A primary, and its secondary, whose client says anything.
pub(crate) fn server(input: &mut Input<'_>) {
    let choice = input.byte();
    let part = if choice.is_multiple_of(2) { PeerRole::Client } else { PeerRole::Joiner };
    let when = [When::First, When::Welcomed, When::Placed, When::Granted][usize::from(choice / 2 % 4)];
    let mut fixture = Fixture::new();
    let script = input.take(400);
    let byzantine = Byzantine::client(&fixture.fleet, 1, Behaviour::scripted(part, when)).script(script);
    fixture.add(byzantine);
    fixture.perform(input);
}

/// A client between honest servers and one that says anything: its grants and its raw packets.
pub(crate) fn relay(input: &mut Input<'_>) {
    let when = [When::First, When::Welcomed, When::Placed, When::Welcomed][usize::from(input.byte() % 4)];
    let mut fixture = Fixture::new();
    let script = input.take(400);
    let byzantine = Byzantine::server(&fixture.fleet, BYZANTINE, 1, Behaviour::scripted(PeerRole::Secondary, when));
    fixture.add(byzantine.script(script));
    fixture.dial(fixture.fleet.servers[0]);
    fixture.run(60);
    for number in [1, BYZANTINE] {
        let target = fixture.fleet.target(number.into());
        let now = fixture.fleet.world.now();
        for (at, session) in fixture.sessions.clone() {
            if let Some(mut session) = fixture.fleet.world.session_mut(at, session) {
                drop(session.add_path(now, target.clone()));
            }
        }
    }
    fixture.run(60);
    fixture.perform(input);
}

struct Fixture {
    fleet: Fleet,
    sessions: Vec<(NodeId, SessionHandle)>,
    streams: Vec<(NodeId, SessionHandle, StreamHandle)>,
}

impl Fixture {
    fn new() -> Self {
        let builder = FleetBuilder::new(WorldConfig::null_tls(1)).link(Link::with_delay(Duration::from_millis(5)));
        Self { fleet: builder.client(|_| ()).servers(2, |_, _| ()).build(), sessions: Vec::new(), streams: Vec::new() }
    }

    fn add(&mut self, byzantine: Byzantine) -> NodeId {
        self.fleet.add_raw_server(BYZANTINE.into(), Box::new(byzantine))
    }

    fn dial(&mut self, server: NodeId) {
        let Fleet { world, pki, client, .. } = &mut self.fleet;
        let dialled = world.dial(*client, server, pki.client(), SERVER_NAME);
        self.sessions.extend(dialled.ok().map(|session| (*client, session)));
    }

    /// Lets some milliseconds pass, and looks at what every session holds.
    fn run(&mut self, millis: u64) {
        self.fleet.world.run_for(Duration::from_millis(millis));
        for node in [self.fleet.client, self.fleet.servers[0], self.fleet.servers[1]] {
            while let Some((session, event)) = self.fleet.world.poll_event(node) {
                if event == SessionEvent::Incoming {
                    self.sessions.push((node, session));
                }
            }
        }
        for (node, session) in self.sessions.clone() {
            if let Some(session) = self.fleet.world.session(node, session) {
                session.assert_ledger();
                let buffered = session.stats().bytes_buffered;
                assert!(buffered <= BUFFERED_MAX, "a session holds {buffered} bytes");
            }
        }
    }

    /// Calls of the applications, as the input says, while the byzantine node says what it does.
    fn perform(&mut self, input: &mut Input<'_>) {
        self.run(40);
        for _ in 0..64 {
            if input.is_empty() {
                break;
            }
            let choice = usize::from(input.byte());
            if let Some((node, session)) = self.sessions.get(choice % self.sessions.len().max(1)).copied() {
                match choice / 64 {
                    0 => self.on_session(node, session, input),
                    1 => self.on_stream(input),
                    2 => self.on_server(node, session, input),
                    _ => self.on_endpoint(node, session, input),
                }
            }
            self.run(u64::from(input.byte() % 16));
        }
        self.run(400);
        self.fleet.world.run_for(Duration::from_secs(5));
    }

    fn on_session(&mut self, node: NodeId, handle: SessionHandle, input: &mut Input<'_>) {
        let now = self.fleet.world.now();
        let dir = if input.byte().is_multiple_of(2) { Dir::Bi } else { Dir::Uni };
        let Some(mut session) = self.fleet.world.session_mut(node, handle) else { return };
        let stream = match input.byte() % 8 {
            0..=2 => session.open_stream(dir).ok(),
            3..=5 => session.accept_stream(dir),
            6 if input.byte().is_multiple_of(8) => {
                session.close(now, u32::from(input.byte()), "over");
                None
            }
            _ => {
                let facts = (session.id(), session.role(), session.remote_address(), session.undelivered().len());
                assert!(session.close_reason().is_some() || facts.3 == 0);
                None
            }
        };
        self.streams.extend(stream.map(|stream| (node, handle, stream)));
    }

    fn on_stream(&mut self, input: &mut Input<'_>) {
        let count = self.streams.len().max(1);
        let Some((node, session, handle)) = self.streams.get(usize::from(input.byte()) % count).copied() else {
            return;
        };
        let Some(mut session) = self.fleet.world.session_mut(node, session) else { return };
        let mut stream = session.stream_mut(handle);
        let len = usize::try_from(input.below(40_000)).unwrap_or(0);
        let path = PathId(u32::from(input.byte() % 4));
        let offset = StreamOffset(input.number());
        match input.byte() % 18 {
            0 | 1 => drop(stream.read(len)),
            2 => drop(stream.read_unordered(len)),
            3 => drop(stream.write(&vec![7; len])),
            4 => drop(stream.write_chunk(vec![7; len].into())),
            5 => drop(stream.write_at(offset, vec![7; len].into())),
            6 => drop(stream.finish()),
            7 => drop(stream.reset(1)),
            8 => drop(stream.stop(2)),
            9 => drop(stream.set_priority(i32::from(input.byte()) - 128)),
            10 => drop(stream.delegate(path, input.number(), Bytes::from_static(b"?"))),
            11 => {
                let range = offset.0..offset.0.saturating_add(input.number());
                drop(stream.delegate_range(path, range.clone(), Bytes::new()));
                drop(stream.delegate_copy(path, range, Bytes::new()));
            }
            12 => stream.release_send(),
            13 => stream.release_recv(),
            14 => stream.cancel_write(),
            _ => {
                let id = stream.view().id();
                let stream = session.stream(handle);
                assert_eq!(id, stream.id());
                let facts = (stream.id(), stream.grant(), stream.is_send_done(), stream.stop_code());
                assert!(facts.0.is_some() || facts.1.is_none(), "a grant of no stream");
                assert!(stream.credit().is_some() || stream.bytes_buffered() == 0, "bytes of no stream");
            }
        }
    }

    fn on_server(&mut self, node: NodeId, handle: SessionHandle, input: &mut Input<'_>) {
        let now = self.fleet.world.now();
        let target = self.fleet.target(usize::from(input.byte() % 2));
        let Some(mut session) = self.fleet.world.session_mut(node, handle) else { return };
        let (path, grant) = (PathId(u32::from(input.byte() % 4)), GrantId(u64::from(input.byte() % 32)));
        match input.byte() % 8 {
            0 => drop(session.add_path(now, target)),
            1 => drop(session.remove_path(path)),
            2 | 3 => drop(session.send_raw(path, input.take(40).to_vec().into())),
            4 => drop(session.recv_raw()),
            5 => drop(session.revoke(grant)),
            6 => session.forget_delegation(grant),
            _ => {
                let known = (session.delegation(grant), session.path(path));
                drop(known);
                let all = session.all_paths().len();
                assert!(session.active_paths().len() + session.dead_paths().len() <= all);
            }
        }
    }

    fn on_endpoint(&mut self, node: NodeId, handle: SessionHandle, input: &mut Input<'_>) {
        let now = self.fleet.world.now();
        let byzantine = self.fleet.server_address(BYZANTINE.into());
        let server = if input.byte().is_multiple_of(2) { Some(self.fleet.pki.server(0)) } else { None };
        let (client, address) = (self.fleet.pki.client(), self.fleet.server_address(0));
        let endpoint = self.fleet.world.endpoint(node);
        match input.byte() % 16 {
            0 => drop(endpoint.listen(server)),
            1 => drop(endpoint.connect(now, client, address, SERVER_NAME)),
            2 => endpoint.handle_wall_clock(now, Duration::from_secs(input.number() >> 8)),
            3 => endpoint.release(now, handle),
            4 => endpoint.refuse(now, handle),
            5 => endpoint.close_all(now, 3, "all"),
            6 => endpoint.handle_unreachable(now, byzantine, "so it is said"),
            7..=9 => {
                let meta = DatagramMeta { remote: byzantine, local_ip: None, ecn: None };
                let first = input.take(64);
                match input.byte() % 4 {
                    0 => endpoint.handle_datagrams(now, [(meta, first), (meta, input.take(64))]),
                    _ => endpoint.handle_datagram(now, meta, first),
                }
            }
            10 => endpoint.handle_timeout(now),
            11 => endpoint.handle_rebind(now),
            _ => {
                let (stats, facts) = (endpoint.stats(), (endpoint.is_idle(), endpoint.poll_timeout()));
                assert!(stats.memory_bytes <= stats.memory_bytes_max, "{stats:?} {facts:?}");
            }
        }
    }
}
