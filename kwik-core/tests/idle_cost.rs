//! What sessions cost that do nothing, and what is left of them when they are over: measured with a counting allocator.

use std::alloc::System;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cap::Cap;
use kwik_core::{
    ClientConfig, DatagramMeta, Dir, Endpoint, EndpointConfig, Identity, Limits, PathTarget, ServerConfig,
    SessionEvent, SessionHandle, StreamEvent,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// One test at a time, since they share the allocator.
static TURN: Mutex<()> = Mutex::new(());

const NAME: &str = "kwik.test";

/// An endpoint, and what it cost.
struct Node {
    address: SocketAddr,
    endpoint: Endpoint,
    /// What it allocated and did not free.
    bytes: isize,
    /// How often its time came.
    timeouts: usize,
    /// How often a datagram came.
    datagrams: usize,
}

impl Node {
    fn new(host: u8, now: Instant) -> Self {
        let config = EndpointConfig::new([host; 32], Duration::from_secs(1_800_000_000));
        let endpoint = Endpoint::new(config, now).unwrap();
        let address = SocketAddr::from(([10, 0, 0, host], 4433));
        Self { address, endpoint, bytes: 0, timeouts: 0, datagrams: 0 }
    }

    fn charge<T>(&mut self, call: impl FnOnce(&mut Endpoint) -> T) -> T {
        let before = ALLOCATOR.allocated();
        let result = call(&mut self.endpoint);
        self.bytes += ALLOCATOR.allocated().cast_signed() - before.cast_signed();
        result
    }
}

/// A client, a primary and a secondary, without a network between them: what one sends the others have at once.
struct Trio {
    now: Instant,
    nodes: [Node; 3],
    config: ClientConfig,
    identities: [Identity; 3],
    /// The primary adds the secondary to every session.
    adds_secondary: bool,
}

const CLIENT: usize = 0;
const PRIMARY: usize = 1;
const SECONDARY: usize = 2;

impl Trio {
    #[expect(clippy::disallowed_methods, reason = "an instant to begin with; no time passes by itself")]
    fn new(adds_secondary: bool) -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let now = Instant::now();
        let mut nodes = [1, 2, 3].map(|host| Node::new(host, now));
        let identities = [1, 2, 3].map(|host| Identity::from_seed([host; 32]));
        for node in [PRIMARY, SECONDARY] {
            let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
            let config = ServerConfig::new(identities[node].clone(), vec![cert.der().clone()], key).unwrap();
            nodes[node].endpoint.listen(Some(config.trust_primary(identities[PRIMARY].public()))).unwrap();
        }
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let config = ClientConfig::with_roots(roots).unwrap();
        Self { now, nodes, config, identities, adds_secondary }
    }

    fn dial(&mut self) -> SessionHandle {
        let (now, config, server) = (self.now, self.config.clone(), self.nodes[PRIMARY].address);
        self.nodes[CLIENT].charge(|client| client.connect(now, config, server, NAME)).unwrap()
    }

    /// Carries what there is to and fro until nothing moves; applications answer at once.
    fn settle(&mut self) {
        let mut buf = Vec::with_capacity(2000);
        loop {
            let mut moved = Vec::new();
            for node in &mut self.nodes {
                let now = self.now;
                while let Some(transmit) = node.charge(|endpoint| endpoint.poll_transmit(now, 1, &mut buf)) {
                    moved.push((node.address, transmit.destination, buf.clone()));
                    buf.clear();
                }
            }
            for node in 0..self.nodes.len() {
                while let Some((session, event)) = self.nodes[node].charge(Endpoint::poll_event) {
                    self.on_event(node, session, &event);
                }
            }
            if moved.is_empty() && self.nodes.iter().all(|node| !is_due(node, self.now)) {
                return;
            }
            for (remote, to, data) in moved {
                let now = self.now;
                let meta = DatagramMeta { remote, local_ip: None, ecn: None };
                let Some(node) = self.nodes.iter_mut().find(|node| node.address == to) else { continue };
                node.datagrams += 1;
                node.charge(|endpoint| endpoint.handle_datagram(now, meta, data.as_slice().into()));
            }
        }
    }

    /// A server sends back what it reads; everybody lets go of a session that is over.
    fn on_event(&mut self, node: usize, session: SessionHandle, event: &SessionEvent) {
        let now = self.now;
        let target = PathTarget {
            address: self.nodes[SECONDARY].address,
            server_name: NAME.to_owned(),
            identity: self.identities[SECONDARY].public(),
        };
        let adds = self.adds_secondary && node == PRIMARY;
        self.nodes[node].charge(|endpoint| match event {
            SessionEvent::Incoming if adds => {
                endpoint.server_session(session).unwrap().add_path(now, target).unwrap();
            }
            SessionEvent::Stream(StreamEvent::Opened { dir }) => {
                let mut session = endpoint.session(session).unwrap();
                while let Some(stream) = session.accept_stream(*dir) {
                    let mut stream = session.stream(stream);
                    while let Ok(chunk) = stream.read(usize::MAX) {
                        stream.write_chunk(chunk.data).unwrap();
                    }
                    stream.finish().unwrap();
                    stream.release_recv();
                    stream.release_send();
                }
            }
            SessionEvent::Closed(_) => endpoint.release(now, session),
            _ => {}
        });
    }

    /// A few bytes go to the server and come back.
    fn echo(&mut self, session: SessionHandle) {
        let bytes = [7; 1000];
        let stream = self.nodes[CLIENT].charge(|client| {
            let mut session = client.session(session).unwrap();
            let stream = session.open_stream(Dir::Bi).unwrap();
            session.stream(stream).write(&bytes).unwrap();
            session.stream(stream).finish().unwrap();
            stream
        });
        self.settle();
        self.nodes[CLIENT].charge(|client| {
            let mut session = client.session(session).unwrap();
            assert_eq!(session.stream(stream).read(usize::MAX).unwrap().data.as_ref(), bytes);
            session.stream(stream).release_recv();
            session.stream(stream).release_send();
        });
        self.settle();
    }

    /// Lets time pass, from one deadline to the next.
    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while let Some(next) = self.nodes.iter().filter_map(|node| node.endpoint.poll_timeout()).min() {
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            let now = self.now;
            for node in self.nodes.iter_mut().filter(|node| is_due(node, now)) {
                node.timeouts += 1;
                node.charge(|endpoint| endpoint.handle_timeout(now));
            }
            self.settle();
        }
        self.now = end;
    }

    fn close(&mut self, session: SessionHandle) {
        let now = self.now;
        self.nodes[CLIENT].charge(|client| client.session(session).unwrap().close(now, 0, "done"));
    }

    fn forget_counts(&mut self) {
        for node in &mut self.nodes {
            (node.timeouts, node.datagrams) = (0, 0);
        }
    }
}

fn is_due(node: &Node, now: Instant) -> bool {
    node.endpoint.poll_timeout().is_some_and(|at| at <= now)
}

fn kib(bytes: isize, sessions: usize) -> isize {
    bytes / 1024 / sessions.cast_signed()
}

#[test]
fn sessions_that_are_over_leave_nothing_behind() {
    const SESSIONS: usize = 150;
    const ROUNDS: usize = 16;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut trio = Trio::new(true);
    let mut left = Vec::new();
    for round in 0..ROUNDS {
        let sessions: Vec<_> = (0..SESSIONS).map(|_| trio.dial()).collect();
        trio.settle();
        for session in &sessions {
            trio.echo(*session);
        }
        // Some end as the application wants, some by a primary that is gone.
        for session in sessions {
            trio.close(session);
        }
        trio.run_for(Duration::from_secs(60));
        // A dial that nobody answers.
        let (now, config) = (trio.now, trio.config.clone());
        let nowhere = SocketAddr::from(([10, 9, 9, 9], 4433));
        for _ in 0..SESSIONS {
            trio.nodes[CLIENT].charge(|client| client.connect(now, config.clone(), nowhere, NAME)).unwrap();
        }
        trio.run_for(Duration::from_secs(120));
        let idle: BTreeMap<_, _> = trio.nodes.iter().map(|node| (node.address, node.endpoint.is_idle())).collect();
        assert!(idle.values().all(|idle| *idle), "round {round}: {idle:?}");
        left.push(ALLOCATOR.allocated());
        eprintln!("round {round}: {:?} bytes are left", left.last());
    }
    let (first, last) = (left[0], left[ROUNDS - 1]);
    assert!(last <= first + 1024, "grew from {first} to {last} bytes");
}

#[test]
fn idle_session_costs_little_memory_and_wakes_for_its_keep_alive_only() {
    const SESSIONS: usize = 50;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut trio = Trio::new(false);
    let first = trio.dial();
    trio.run_for(Duration::from_secs(30));
    let before = trio.nodes.each_ref().map(|node| node.bytes);
    let sessions: Vec<_> = (0..SESSIONS).map(|_| trio.dial()).collect();
    trio.run_for(Duration::from_secs(30));
    let fresh = trio.nodes.each_ref().map(|node| node.bytes);
    for session in &sessions {
        trio.echo(*session);
    }
    trio.run_for(Duration::from_secs(30));
    let used = trio.nodes.each_ref().map(|node| node.bytes);
    for node in [CLIENT, PRIMARY] {
        eprintln!(
            "node {node}: {} KiB a session, {} KiB after an echo",
            kib(fresh[node] - before[node], SESSIONS),
            kib(used[node] - before[node], SESSIONS)
        );
    }
    for session in sessions {
        trio.close(session);
    }
    trio.run_for(Duration::from_secs(60));
    trio.forget_counts();
    trio.run_for(Duration::from_secs(60));
    for node in [CLIENT, PRIMARY] {
        let Node { timeouts, datagrams, .. } = trio.nodes[node];
        eprintln!("node {node}: {timeouts} timeouts and {datagrams} datagrams in a minute");
    }
    let keep_alives = usize::try_from(60 / Limits::default().keep_alive.as_secs()).unwrap();
    for node in [CLIENT, PRIMARY] {
        let Node { timeouts, datagrams, .. } = trio.nodes[node];
        assert!(timeouts <= keep_alives + 2, "node {node}: {timeouts} timeouts");
        assert!(datagrams <= keep_alives + 2, "node {node}: {datagrams} datagrams");
    }
    assert!(trio.nodes[CLIENT].endpoint.session(first).is_some());
}
