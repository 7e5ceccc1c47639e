//! Nodes, links and time.

mod amplification;
mod disturb;
mod observe;
mod run;

use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use kwik_core::{
    ClientConfig, ConfigError, ConnectError, Endpoint, EndpointStats, EventDetail, ProtocolEvent, ServerConfig,
    Session, SessionEvent, SessionHandle, SessionMut,
};

use self::amplification::Amplification;
use self::run::Due;
use crate::app::App;
use crate::clock::VirtualClock;
use crate::disturbance::Disturbance;
use crate::link::{Link, LinkStats};
use crate::net::Wire;
use crate::node::{Arrival, Interface, Node, NodeConfig, NodeId};
use crate::pki::Pki;
use crate::raw_node::RawNode;
use crate::rng::SimRng;
use crate::tls::TlsMode;
use crate::trace::{Trace, TraceKind};

/// What a world is built from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorldConfig {
    /// Everything random follows from it.
    pub seed: u64,
    /// How connections are protected. [`World::pki`] follows it.
    pub tls: TlsMode,
    /// What a paused node's socket holds, in bytes; more is dropped.
    pub socket_buffer_bytes: usize,
    /// Datagrams arrive at multiples of this only, as where a driver takes several from its socket at once: faster. Zero
    /// for every one at its own time.
    pub receive_every: Duration,
    /// How often the paths of every client go into the trace; `None` for never. If they do, so do changes of their
    /// states and the ranges they supply, as the protocol's events tell of them.
    pub sample_paths: Option<Duration>,
}

impl WorldConfig {
    /// Real TLS and a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            tls: TlsMode::Real,
            socket_buffer_bytes: 212_992,
            receive_every: Duration::ZERO,
            sample_paths: None,
        }
    }

    /// The same without TLS: faster.
    #[must_use]
    pub fn null_tls(seed: u64) -> Self {
        Self { tls: TlsMode::Null, ..Self::new(seed) }
    }
}

/// Any number of endpoints in virtual time.
pub struct World {
    config: WorldConfig,
    clock: VirtualClock,
    pub(crate) nodes: Vec<Node>,
    /// Whom an address leads to, as seen from outside, and which of its interfaces.
    by_address: BTreeMap<SocketAddr, (NodeId, usize)>,
    /// One for each direction between two addresses, by [`Interface::port`].
    wires: BTreeMap<(usize, usize), Wire>,
    /// The wire of another direction that carries a direction's datagrams too.
    shared: BTreeMap<(usize, usize), (usize, usize)>,
    /// The nodes of all interfaces.
    owners: Vec<NodeId>,
    /// In boxes, since a heap moves what it holds.
    arrivals: BinaryHeap<Due<Box<Arrival>>>,
    /// Memory of datagrams that arrived, for those to come.
    spare: Vec<Vec<u8>>,
    schedule: BTreeMap<(Instant, u64), Disturbance>,
    /// Counts what is put into `arrivals` and `schedule`: what is due at one moment happens in the order it was put there.
    queued: u64,
    next_sample: Option<Instant>,
    /// Draws for what is no link's own: NAT addresses, flipped bits.
    rng: SimRng,
    trace: Trace,
    /// Kept if somebody watches it.
    amplification: Option<Amplification>,
    buf: Vec<u8>,
}

/// What the generators of a world are for.
const FORTUNE: u64 = 1;
const ENDPOINT: u64 = 2;
const WIRE: u64 = 3;

impl World {
    /// An empty world with real TLS. Everything random in it follows from `seed`, if its configurations are of a
    /// [`Pki`] made for it.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_config(WorldConfig::new(seed))
    }

    /// An empty world.
    #[must_use]
    pub fn with_config(config: WorldConfig) -> Self {
        let clock = VirtualClock::new();
        Self {
            next_sample: config.sample_paths.map(|every| clock.now() + every),
            rng: SimRng::new(config.seed, &[FORTUNE]),
            clock,
            nodes: Vec::new(),
            by_address: BTreeMap::new(),
            wires: BTreeMap::new(),
            shared: BTreeMap::new(),
            owners: Vec::new(),
            arrivals: BinaryHeap::new(),
            spare: Vec::new(),
            schedule: BTreeMap::new(),
            queued: 0,
            trace: Trace::default(),
            amplification: None,
            buf: Vec::new(),
            config,
        }
    }

    // ---- building

    /// Certificates and TLS settings that follow from this world's seed and mode.
    ///
    /// # Panics
    /// If `name` cannot be in a certificate.
    #[must_use]
    pub fn pki(&self, name: &str) -> Pki {
        Pki::seeded(name, self.config.seed, self.config.tls)
    }

    /// A node that accepts sessions.
    ///
    /// # Errors
    /// If its configuration cannot work.
    pub fn add_server(&mut self, address: SocketAddr, config: ServerConfig) -> Result<NodeId, ConfigError> {
        self.add_node(NodeConfig::server(address, config))
    }

    /// A node that dials.
    ///
    /// # Errors
    /// If the default configuration cannot work.
    pub fn add_client(&mut self, address: SocketAddr) -> Result<NodeId, ConfigError> {
        self.add_node(NodeConfig::client(address))
    }

    /// A node with all that can be said about it.
    ///
    /// # Errors
    /// If its configuration cannot work.
    ///
    /// # Panics
    /// If one of its addresses is taken.
    pub fn add_node(&mut self, mut config: NodeConfig) -> Result<NodeId, ConfigError> {
        if self.config.sample_paths.is_some() {
            config.event_detail = EventDetail::Frames;
        }
        let id = NodeId(self.nodes.len());
        let endpoint = self.new_endpoint(id, &config, 0)?;
        let mut interfaces = Vec::new();
        for (index, address) in config.addresses.iter().enumerate() {
            let interface = Interface { port: self.owners.len(), local: *address, outward: *address };
            let taken = self.by_address.insert(*address, (id, index));
            assert!(taken.is_none(), "{address} is taken");
            self.owners.push(id);
            interfaces.push(interface);
        }
        let mut node = Node::new(config, interfaces, endpoint);
        node.unobserved = self.config.sample_paths.map(|_| Vec::new());
        self.nodes.push(node);
        Ok(id)
    }

    /// A node that is no KWIK endpoint. The endpoint that [`World::endpoint`] lends of it is idle.
    ///
    /// # Panics
    /// If its address is taken.
    pub fn add_raw_node(&mut self, address: SocketAddr, raw: Box<dyn RawNode>) -> NodeId {
        let id = self.add_client(address).expect("the default configuration works");
        let node = &mut self.nodes[id.0];
        node.raw = Some(raw);
        node.touched = true;
        id
    }

    /// Puts an application on a node. The node's events go to it from now on, and no more to [`World::poll_event`].
    pub fn set_app(&mut self, node: NodeId, app: Box<dyn App>) {
        let node = &mut self.nodes[node.0];
        node.app = Some(app);
        node.app_begins = true;
        node.touched = true;
    }

    /// Sets one direction between two nodes, between all their addresses. Unset ones delay by a millisecond.
    pub fn set_link(&mut self, from: NodeId, to: NodeId, link: Link) {
        self.each_wire(from, to, |wire| wire.rebuild(link.clone()));
    }

    /// Sets both directions between two nodes.
    pub fn set_link_both(&mut self, a: NodeId, b: NodeId, link: Link) {
        self.set_link(a, b, link.clone());
        self.set_link(b, a, link);
    }

    /// Sets one direction between two addresses, as the nodes were built with them. Addresses of no node change nothing.
    pub fn set_link_between(&mut self, from: SocketAddr, to: SocketAddr, link: Link) {
        if let (Some(from), Some(to)) = (self.port_of(from), self.port_of(to)) {
            self.wire(from, to).rebuild(link);
        }
    }

    /// Lets the datagrams of one direction pass through the link of another, between the first addresses of the nodes, so
    /// that they share its rate and its queue. [`World::link_stats`] counts them there.
    ///
    /// # Panics
    /// If a node was built without an address.
    pub fn share_link(&mut self, (from, to): (NodeId, NodeId), (from_other, to_other): (NodeId, NodeId)) {
        let port = |node: NodeId| self.nodes[node.0].interfaces[0].port;
        let (own, other) = ((port(from), port(to)), (port(from_other), port(to_other)));
        self.shared.insert(own, other);
    }

    /// Makes something happen at a moment, counted since the world began. What is past happens at once.
    pub fn at(&mut self, moment: Duration, disturbance: Disturbance) {
        let now = self.clock.now();
        let at = (self.clock.start() + moment).max(now);
        self.queued += 1;
        self.schedule.insert((at, self.queued), disturbance);
    }

    /// The node neither sends nor receives any more, without a word.
    pub fn crash(&mut self, node: NodeId) {
        self.inject(Disturbance::Crash { node });
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
        let address = self.address(server);
        let now = self.clock.now();
        let session = self.endpoint(client).connect(now, config, address, server_name)?;
        self.nodes[client.0].sessions.insert(session);
        Ok(session)
    }

    // ---- looking and acting

    /// The endpoint of a node.
    pub fn endpoint(&mut self, node: NodeId) -> &mut Endpoint {
        let node = &mut self.nodes[node.0];
        node.touched = true;
        &mut node.endpoint
    }

    /// A session at a node, to look at.
    #[must_use]
    pub fn session(&self, node: NodeId, session: SessionHandle) -> Option<&Session> {
        self.nodes[node.0].endpoint.session(session)
    }

    /// A session at a node, to do something with.
    pub fn session_mut(&mut self, node: NodeId, session: SessionHandle) -> Option<SessionMut<'_>> {
        self.endpoint(node).session_mut(session)
    }

    /// How much memory peers can make a node hold. Panics if that is not what its sessions hold together.
    pub fn stats(&self, node: NodeId) -> EndpointStats {
        let endpoint = &self.nodes[node.0].endpoint;
        endpoint.assert_memory();
        endpoint.stats()
    }

    /// The next event of a node without an application.
    pub fn poll_event(&mut self, node: NodeId) -> Option<(SessionHandle, SessionEvent)> {
        self.nodes[node.0].events.pop_front()
    }

    /// Whether a node ever had such an event.
    #[must_use]
    pub fn saw(&self, node: NodeId, wanted: impl Fn(&SessionEvent) -> bool) -> bool {
        self.nodes[node.0].history.iter().any(wanted)
    }

    /// What the endpoint of a node did since this was last asked, the last few thousand events of it.
    pub fn take_protocol_events(&mut self, node: NodeId) -> Vec<ProtocolEvent> {
        std::mem::take(&mut self.nodes[node.0].protocol_events).into()
    }

    /// What the endpoint of a node did that nothing can bring about but a defect of its own.
    #[must_use]
    pub fn defects(&self, node: NodeId) -> &[ProtocolEvent] {
        &self.nodes[node.0].defects
    }

    /// Whether a node crashed and has not restarted.
    #[must_use]
    pub fn is_crashed(&self, node: NodeId) -> bool {
        self.nodes[node.0].crashed
    }

    /// Whether the application of a node did all it wanted to; `true` for a node without one.
    #[must_use]
    pub fn is_app_done(&self, node: NodeId) -> bool {
        self.nodes[node.0].app.as_deref().is_none_or(App::is_done)
    }

    /// The first address of a node, as the others see it.
    ///
    /// # Panics
    /// If the node was built without an address.
    #[must_use]
    pub fn address(&self, node: NodeId) -> SocketAddr {
        self.nodes[node.0].interfaces[0].outward
    }

    /// Every node, in the order they were added.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
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

    /// What one direction between two nodes did so far, over all their addresses.
    #[must_use]
    pub fn link_stats(&self, from: NodeId, to: NodeId) -> LinkStats {
        let wires = self.wires.iter().filter(|((a, b), _)| self.owners[*a] == from && self.owners[*b] == to);
        wires.fold(LinkStats::default(), |sum, (_, wire)| sum + wire.stats)
    }

    /// What one direction between the first addresses of two nodes is like now.
    #[must_use]
    pub fn link(&self, from: NodeId, to: NodeId) -> Link {
        let port = |node: NodeId| self.nodes[node.0].interfaces.first().map_or(usize::MAX, |interface| interface.port);
        self.wires.get(&(port(from), port(to))).map(|wire| wire.link().clone()).unwrap_or_default()
    }

    /// What happened so far.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What happened so far, to be kept or added to.
    pub fn trace_mut(&mut self) -> &mut Trace {
        &mut self.trace
    }

    /// Adds a line to the trace, at this moment.
    pub fn record(&mut self, node: NodeId, kind: TraceKind) {
        self.trace.push(self.clock.elapsed(), node, kind);
    }

    /// The sessions of a node that had an event, of those it still has.
    #[must_use]
    pub fn sessions(&self, node: NodeId) -> Vec<SessionHandle> {
        self.nodes[node.0].sessions.iter().copied().collect()
    }

    /// Counts what servers send to addresses that proved nothing, from now on.
    pub(crate) fn watch_amplification(&mut self) {
        self.amplification = Some(Amplification::default());
    }

    /// Where that was too much.
    pub(crate) fn take_amplification(&mut self) -> Vec<String> {
        self.amplification.as_mut().map(Amplification::take_violations).unwrap_or_default()
    }

    // ---- inside

    fn new_endpoint(&self, id: NodeId, config: &NodeConfig, life: u64) -> Result<Endpoint, ConfigError> {
        let seed = SimRng::new(self.config.seed, &[ENDPOINT, id.0 as u64, life]).seed();
        let mut endpoint = Endpoint::new(config.endpoint(seed, self.clock.elapsed()), self.clock.now())?;
        if config.server.is_some() {
            endpoint.listen(config.server.clone())?;
        }
        Ok(endpoint)
    }

    fn port_of(&self, local: SocketAddr) -> Option<usize> {
        let mut interfaces = self.nodes.iter().flat_map(|node| &node.interfaces);
        interfaces.find(|interface| interface.local == local).map(|interface| interface.port)
    }

    fn wire(&mut self, from: usize, to: usize) -> &mut Wire {
        let seed = self.config.seed;
        let wire = || Wire::new(Link::default(), SimRng::new(seed, &[WIRE, from as u64, to as u64]));
        let key = self.shared.get(&(from, to)).copied().unwrap_or((from, to));
        self.wires.entry(key).or_insert_with(wire)
    }

    fn each_wire(&mut self, from: NodeId, to: NodeId, mut act: impl FnMut(&mut Wire)) {
        let ports = |node: NodeId| -> Vec<usize> {
            self.nodes[node.0].interfaces.iter().map(|interface| interface.port).collect()
        };
        let (from, to) = (ports(from), ports(to));
        for a in &from {
            for b in &to {
                act(self.wire(*a, *b));
            }
        }
    }
}
