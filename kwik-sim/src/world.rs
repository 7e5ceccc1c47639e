//! Nodes, links and time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use kwik_core::{
    ClientConfig, ConfigError, ConnectError, DatagramMeta, Endpoint, EndpointConfig, ServerConfig, ServerSession, Session,
    SessionEvent, SessionHandle,
};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use crate::clock::VirtualClock;
use crate::net::{Link, LinkStats, Wire};
use crate::node::{Node, NodeId, Outgoing};

/// A datagram that will arrive.
struct Arrival {
    to: NodeId,
    from: SocketAddr,
    data: Vec<u8>,
}

/// Any number of endpoints in virtual time.
pub struct World {
    clock: VirtualClock,
    rng: StdRng,
    nodes: Vec<Node>,
    by_address: BTreeMap<SocketAddr, NodeId>,
    wires: BTreeMap<(NodeId, NodeId), Wire>,
    /// By time, then by the order in which they were sent.
    arrivals: BTreeMap<(Instant, u64), Arrival>,
    sent: u64,
}

impl World {
    /// An endpoint that wants this many turns at one moment breaks its contract.
    const TURNS_MAX: u32 = 100_000;

    /// An empty world. Everything random in it follows from `seed`, except the randomness of TLS.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            clock: VirtualClock::new(),
            rng: StdRng::seed_from_u64(seed),
            nodes: Vec::new(),
            by_address: BTreeMap::new(),
            wires: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            sent: 0,
        }
    }

    // ---- building

    /// A node that accepts sessions.
    ///
    /// # Errors
    /// If its configuration cannot work.
    pub fn add_server(&mut self, address: SocketAddr, config: ServerConfig) -> Result<NodeId, ConfigError> {
        let node = self.add_client(address)?;
        self.nodes[node.0].endpoint.listen(Some(config))?;
        Ok(node)
    }

    /// A node that dials.
    ///
    /// # Errors
    /// If the default configuration cannot work.
    pub fn add_client(&mut self, address: SocketAddr) -> Result<NodeId, ConfigError> {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let config = EndpointConfig::new(seed, VirtualClock::UNIX_AT_START + self.clock.elapsed());
        let endpoint = Endpoint::new(config, self.clock.now())?;
        let id = NodeId(self.nodes.len());
        self.nodes.push(Node::new(address, endpoint));
        self.by_address.insert(address, id);
        Ok(id)
    }

    /// Sets one direction between two nodes. Unset ones delay by a millisecond.
    pub fn set_link(&mut self, from: NodeId, to: NodeId, link: Link) {
        self.wires.entry((from, to)).or_default().link = link;
    }

    /// Sets both directions between two nodes.
    pub fn set_link_both(&mut self, a: NodeId, b: NodeId, link: Link) {
        self.set_link(a, b, link.clone());
        self.set_link(b, a, link);
    }

    /// The node neither sends nor receives any more, without a word.
    pub fn crash(&mut self, node: NodeId) {
        self.nodes[node.0].crashed = true;
    }

    /// Dials from one node to another.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub fn dial(
        &mut self,
        client: NodeId,
        server: NodeId,
        config: ClientConfig,
        server_name: &str,
    ) -> Result<SessionHandle, ConnectError> {
        let address = self.nodes[server.0].address;
        self.nodes[client.0].endpoint.connect(self.clock.now(), config, address, server_name)
    }

    // ---- looking and acting

    /// The endpoint of a node.
    pub fn endpoint(&mut self, node: NodeId) -> &mut Endpoint {
        &mut self.nodes[node.0].endpoint
    }

    /// A session at a node.
    pub fn session(&mut self, node: NodeId, session: SessionHandle) -> Option<Session<'_>> {
        self.nodes[node.0].endpoint.session(session)
    }

    /// A server's session at a node.
    pub fn server_session(&mut self, node: NodeId, session: SessionHandle) -> Option<ServerSession<'_>> {
        self.nodes[node.0].endpoint.server_session(session)
    }

    /// The next event of a node.
    pub fn poll_event(&mut self, node: NodeId) -> Option<(SessionHandle, SessionEvent)> {
        self.nodes[node.0].events.pop_front()
    }

    /// Whether a node ever had such an event.
    #[must_use]
    pub fn saw(&self, node: NodeId, wanted: impl Fn(&SessionEvent) -> bool) -> bool {
        self.nodes[node.0].history.iter().any(wanted)
    }

    /// The address of a node.
    #[must_use]
    pub fn address(&self, node: NodeId) -> SocketAddr {
        self.nodes[node.0].address
    }

    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Virtual time since the world began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// What one direction between two nodes did so far.
    #[must_use]
    pub fn link_stats(&self, from: NodeId, to: NodeId) -> LinkStats {
        self.wires.get(&(from, to)).map(|wire| wire.stats).unwrap_or_default()
    }

    // ---- running

    /// Runs until `done`, for at most `limit` of virtual time. Returns whether it is done.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.clock.now() + limit;
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            self.settle();
            match self.next_time() {
                Some(at) if at <= end => self.step(at),
                _ => {
                    self.clock.advance_to(end);
                    return false;
                }
            }
        }
    }

    /// Runs for a span of virtual time.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(span, |_| false);
    }

    /// When the next thing happens.
    fn next_time(&self) -> Option<Instant> {
        let arrival = self.arrivals.keys().next().map(|(at, _)| *at);
        self.nodes.iter().filter_map(Node::deadline).chain(arrival).min()
    }

    /// Lets happen all that is due at `at`.
    fn step(&mut self, at: Instant) {
        self.clock.advance_to(at);
        let now = self.clock.now();
        while let Some(entry) = self.arrivals.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let arrival = entry.remove();
            let node = &mut self.nodes[arrival.to.0];
            if !node.crashed {
                let meta = DatagramMeta { remote: arrival.from, local_ip: None, ecn: None };
                node.endpoint.handle_datagram(now, meta, BytesMut::from(&arrival.data[..]));
            }
        }
        for node in &mut self.nodes {
            if node.deadline().is_some_and(|deadline| deadline <= now) {
                node.endpoint.handle_timeout(now);
            }
        }
    }

    /// Drains every endpoint until nothing is queued at this moment.
    fn settle(&mut self) {
        let now = self.clock.now();
        for index in 0..self.nodes.len() {
            let mut out = Vec::new();
            let node = &mut self.nodes[index];
            if node.crashed {
                continue;
            }
            let mut turns = 0;
            loop {
                turns += 1;
                assert!(turns < Self::TURNS_MAX, "node {index} at {} never comes to rest", node.address);
                node.drain(now, &mut out);
                let rests = node.endpoint.poll_timeout().is_none_or(|at| at > now);
                assert!(rests || turns == 1, "node {index} wants to run again at the moment it just ran");
                if node.endpoint.poll_timeout().is_none_or(|at| at > now) {
                    break;
                }
                node.endpoint.handle_timeout(now);
            }
            let from = self.nodes[index].address;
            for outgoing in out {
                self.send(NodeId(index), from, outgoing);
            }
        }
    }

    fn send(&mut self, from: NodeId, from_address: SocketAddr, outgoing: Outgoing) {
        let Some(to) = self.by_address.get(&outgoing.destination).copied() else { return };
        let wire = self.wires.entry((from, to)).or_default();
        if let Some(at) = wire.send(self.clock.now(), outgoing.data.len(), &mut self.rng) {
            self.sent += 1;
            self.arrivals.insert((at, self.sent), Arrival { to, from: from_address, data: outgoing.data });
        }
    }
}
