//! The one way in which worlds are built that have clients, a primary and secondaries; and what tests ask of a session.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use kwik_core::{
    ClientConfig, DeadReason, Dir, GrantId, GrantStatus, PathEvent, PathId, PathState, PathTarget, ReadError,
    ServerConfig, SessionEvent, SessionHandle, StreamHandle, WriteError,
};

use crate::link::Link;
use crate::node::{NodeConfig, NodeId};
use crate::pki::Pki;
use crate::raw_node::RawNode;
use crate::world::{World, WorldConfig};

/// The name in every certificate of a [`Fleet`].
pub const SERVER_NAME: &str = "server.test";

/// Longer than any exchange that the methods of a [`Fleet`] wait for.
pub const LONG: Duration = Duration::from_secs(60);

/// The networks of clients and servers.
const CLIENTS: u8 = 2;
const SERVERS: u8 = 1;

/// Builds a [`Fleet`]. Nodes are added in the order of the calls, which is a part of what a seed stands for.
///
/// # Panics
/// Its methods panic if a configuration cannot work, or there is no client.
pub struct FleetBuilder {
    fleet: Fleet,
    clients: Vec<NodeId>,
}

/// A world with clients, a primary (server 0) and secondaries (1, 2, …). Server `n` has the identity of number `n`.
///
/// # Panics
/// Its methods panic if what they are to do fails, or what they wait for does not come.
pub struct Fleet {
    /// The world.
    pub world: World,
    /// Certificates and identities.
    pub pki: Pki,
    /// The node of the first client.
    pub client: NodeId,
    /// The servers' nodes; the first is the primary.
    pub servers: Vec<NodeId>,
    link: Link,
    is_ipv6: bool,
}

/// A session of a [`Fleet`]: the client's end and the primary's.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// At the client.
    pub client: SessionHandle,
    /// At the primary.
    pub primary: SessionHandle,
}

impl FleetBuilder {
    /// An empty world, in which nodes will be 10 ms from each other.
    #[must_use]
    pub fn new(config: WorldConfig) -> Self {
        let world = World::with_config(config);
        let (pki, link) = (world.pki(SERVER_NAME), Link::with_delay(Duration::from_millis(10)));
        let fleet = Fleet { world, pki, client: NodeId(0), servers: Vec::new(), link, is_ipv6: false };
        Self { fleet, clients: Vec::new() }
    }

    /// What every link is like, both ways.
    #[must_use]
    pub fn link(mut self, link: Link) -> Self {
        self.fleet.link = link;
        self
    }

    /// Whether the nodes added from now on have addresses of IPv6.
    #[must_use]
    pub fn ipv6(mut self, is_ipv6: bool) -> Self {
        self.fleet.is_ipv6 = is_ipv6;
        self
    }

    /// Adds a client, with its configuration adjusted.
    #[must_use]
    pub fn client(mut self, adjust: impl FnOnce(&mut NodeConfig)) -> Self {
        let mut config = NodeConfig::client(self.fleet.address(CLIENTS, self.clients.len(), 5000));
        adjust(&mut config);
        self.clients.push(self.fleet.world.add_node(config).expect("the client's configuration works"));
        self
    }

    /// Adds servers, with the configuration of each adjusted.
    #[must_use]
    pub fn servers(mut self, count: usize, adjust: impl Fn(usize, &mut NodeConfig)) -> Self {
        for _ in 0..count {
            let number = self.fleet.servers.len();
            let server = self.fleet.pki.server(small(number));
            let mut config = NodeConfig::server(self.fleet.server_address(number), server);
            adjust(number, &mut config);
            self.fleet.servers.push(self.fleet.world.add_node(config).expect("the server's configuration works"));
        }
        self
    }

    /// Lays the links.
    #[must_use]
    pub fn build(mut self) -> Fleet {
        self.fleet.client = *self.clients.first().expect("a fleet has a client");
        for client in self.clients {
            self.fleet.connect_to_servers(client, &self.fleet.link.clone());
        }
        self.fleet
    }
}

impl Fleet {
    /// One client and `servers` servers, each 10 ms away, with real TLS.
    #[must_use]
    pub fn new(servers: usize) -> Self {
        Self::with(servers, |config| config)
    }

    /// As [`Fleet::new`], with the servers' configuration adjusted.
    #[must_use]
    pub fn with(servers: usize, adjust: impl Fn(ServerConfig) -> ServerConfig) -> Self {
        let builder = FleetBuilder::new(WorldConfig::new(1)).client(|_| ());
        builder.servers(servers, |_, node| node.adjust_server(&adjust)).build()
    }

    /// As [`Fleet::new`], without TLS.
    #[must_use]
    pub fn null_tls(servers: usize, seed: u64) -> Self {
        FleetBuilder::new(WorldConfig::null_tls(seed)).client(|_| ()).servers(servers, |_, _| ()).build()
    }

    // ---- more nodes

    /// Adds a client at an address, and a link to each server. Returns its node.
    pub fn add_client(&mut self, address: &str, link: &Link) -> NodeId {
        let client = self.world.add_client(address.parse().expect("an address")).expect("the defaults work");
        self.connect_to_servers(client, link);
        client
    }

    /// Adds a server, linked to the first client. Returns its number.
    pub fn add_server(&mut self, config: ServerConfig) -> usize {
        let number = self.servers.len();
        let node = self.world.add_server(self.server_address(number), config).expect("the configuration works");
        self.world.set_link_both(self.client, node, self.link.clone());
        self.servers.push(node);
        number
    }

    /// Puts a node that is no KWIK endpoint at the address of the server of a number, linked to every other node.
    pub fn add_raw_server(&mut self, number: usize, raw: Box<dyn RawNode>) -> NodeId {
        let others = self.world.nodes();
        let node = self.world.add_raw_node(self.server_address(number), raw);
        for other in others {
            self.world.set_link_both(other, node, self.link.clone());
        }
        node
    }

    fn connect_to_servers(&mut self, client: NodeId, link: &Link) {
        for server in &self.servers {
            self.world.set_link_both(client, *server, link.clone());
        }
    }

    // ---- who is who

    /// Where the server of a number is, or would be.
    #[must_use]
    pub fn server_address(&self, number: usize) -> SocketAddr {
        self.address(SERVERS, number, 4433)
    }

    /// What names the server of a number in `add_path`, whether it is there or not.
    #[must_use]
    pub fn target(&self, number: usize) -> PathTarget {
        PathTarget {
            address: self.server_address(number),
            server_name: SERVER_NAME.to_owned(),
            identity: self.pki.public_identity(small(number)),
        }
    }

    fn address(&self, network: u8, number: usize, port: u16) -> SocketAddr {
        let host = small(number) + 1;
        if self.is_ipv6 {
            ([0xfd00, 0, 0, 0, 0, 0, network.into(), host.into()], port).into()
        } else {
            ([10, 0, network, host], port).into()
        }
    }

    // ---- sessions and paths

    /// Dials the primary and waits until both ends have the session.
    pub fn connect(&mut self) -> Ends {
        self.connect_with(self.pki.client())
    }

    /// As [`Fleet::connect`], with the client's configuration given.
    pub fn connect_with(&mut self, config: ClientConfig) -> Ends {
        let client = self.world.dial(self.client, self.servers[0], config, SERVER_NAME).expect("dialled");
        let primary = self.await_incoming(0);
        self.await_event(self.client, |event| *event == SessionEvent::Welcomed);
        Ends { client, primary }
    }

    /// Waits for the next session at a server.
    pub fn await_incoming(&mut self, server: usize) -> SessionHandle {
        let node = self.servers[server];
        let (session, _) = self.await_some("session", |world| {
            std::iter::from_fn(|| world.poll_event(node)).find(|(_, event)| *event == SessionEvent::Incoming)
        });
        session
    }

    /// Adds a server to the session and waits until it joined; returns the path and the session at the secondary.
    pub fn join(&mut self, ends: Ends, server: usize) -> (PathId, SessionHandle) {
        let path = self.add_path(ends, self.target(server));
        let session = self.await_incoming(server);
        self.await_event(self.servers[0], |event| *event == SessionEvent::Path(PathEvent::Joined(path)));
        (path, session)
    }

    /// Adds a path without waiting.
    pub fn add_path(&mut self, ends: Ends, target: PathTarget) -> PathId {
        let now = self.world.now();
        let primary = self.servers[0];
        let mut session = self.world.session_mut(primary, ends.primary).expect("a session");
        session.add_path(now, target).expect("added")
    }

    /// Waits until the primary hears of a path's death, and returns why it died.
    pub fn await_death(&mut self, ends: Ends, path: PathId) -> DeadReason {
        let is_dead = |event: &SessionEvent| matches!(event, SessionEvent::Path(PathEvent::Dead { path: dead, .. }) if *dead == path);
        let primary = self.servers[0];
        self.await_event(primary, is_dead);
        let session = self.world.session(primary, ends.primary).expect("a session");
        let dead = session.dead_paths().into_iter().find(|info| info.id == path).expect("listed as dead");
        match dead.state {
            PathState::Dead(reason) => reason,
            state => panic!("{path} is {state:?}"),
        }
    }

    /// Opens a stream at the client and accepts it at the primary.
    pub fn open(&mut self, ends: Ends, dir: Dir) -> (StreamHandle, StreamHandle) {
        let node = self.client;
        let here = self.world.session_mut(node, ends.client).expect("a session").open_stream(dir).expect("opened");
        let there = self.accept(0, ends.primary, dir);
        (here, there)
    }

    /// Waits for the next stream at a server.
    pub fn accept(&mut self, server: usize, session: SessionHandle, dir: Dir) -> StreamHandle {
        self.accept_at(self.servers[server], session, dir)
    }

    /// Waits for the next stream at a node.
    pub fn accept_at(&mut self, node: NodeId, session: SessionHandle, dir: Dir) -> StreamHandle {
        self.await_some("stream", |world| world.session_mut(node, session)?.accept_stream(dir))
    }

    /// Writes all of `data`, running the world while the stream is blocked.
    pub fn write_all(&mut self, node: NodeId, session: SessionHandle, stream: StreamHandle, data: &[u8]) {
        let mut rest = Bytes::copy_from_slice(data);
        let wrote = self.world.run_until(LONG, |world| {
            while !rest.is_empty() {
                let mut session = world.session_mut(node, session).expect("a session");
                match session.stream_mut(stream).write_chunk(rest.clone()) {
                    Ok(taken) => rest = rest.slice(taken..),
                    Err(WriteError::Blocked) => return false,
                    Err(error) => panic!("write failed: {error}"),
                }
            }
            true
        });
        assert!(wrote, "{} bytes stayed unwritten", rest.len());
    }

    /// Finishes a stream.
    pub fn finish(&mut self, node: NodeId, session: SessionHandle, stream: StreamHandle) {
        self.world.session_mut(node, session).expect("a session").stream_mut(stream).finish().expect("finished");
    }

    /// Reads a stream to its end.
    pub fn read_to_end(&mut self, node: NodeId, session: SessionHandle, stream: StreamHandle) -> Vec<u8> {
        let mut data = Vec::new();
        let ended = self.world.run_until(LONG, |world| {
            let mut session = world.session_mut(node, session).expect("a session");
            loop {
                match session.stream_mut(stream).read(usize::MAX) {
                    Ok(chunk) => data.extend_from_slice(&chunk.data),
                    Err(ReadError::Blocked) => return false,
                    Err(ReadError::Finished) => return true,
                    Err(error) => panic!("read failed after {} bytes: {error}", data.len()),
                }
            }
        });
        assert!(ended, "no end after {} bytes", data.len());
        data
    }

    /// Reads all there is now.
    pub fn read_available(&mut self, node: NodeId, session: SessionHandle, stream: StreamHandle) -> Vec<u8> {
        let mut data = Vec::new();
        let mut session = self.world.session_mut(node, session).expect("a session");
        while let Ok(chunk) = session.stream_mut(stream).read(usize::MAX) {
            data.extend_from_slice(&chunk.data);
        }
        data
    }

    /// Waits until a delegation is over.
    pub fn await_delegation(&mut self, ends: Ends, grant: GrantId) -> GrantStatus {
        let primary = self.servers[0];
        self.await_some("end of a delegation", |world| {
            let state = world.session(primary, ends.primary)?.delegation(grant);
            state.filter(|state| !matches!(state, GrantStatus::Progress { .. }))
        })
    }

    // ---- waiting

    /// Waits until a node has had such an event.
    pub fn await_event(&mut self, node: NodeId, wanted: impl Fn(&SessionEvent) -> bool) {
        assert!(self.world.run_until(LONG, |world| world.saw(node, &wanted)), "{node} never had the event");
    }

    fn await_some<T>(&mut self, what: &str, mut find: impl FnMut(&mut World) -> Option<T>) -> T {
        let mut found = None;
        self.world.run_until(LONG, |world| {
            found = find(world);
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("no {what} came"))
    }
}

fn small(number: usize) -> u8 {
    u8::try_from(number).expect("few servers")
}
