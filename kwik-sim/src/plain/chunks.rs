//! One object that a client fetches from several servers by hand, a range on each stream.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quinn_proto::{ServerConfig, TransportConfig};

use super::fetch::Fetcher;
use super::node::QuicNode;
use super::object::{Object, Progress};
use super::serve::RangeServer;
use super::{PlainCongestion, transport};
use crate::fleet::SERVER_NAME;
use crate::link::Link;
use crate::node::NodeId;
use crate::rng::SimRng;
use crate::world::{World, WorldConfig};

/// How the client shares the object among its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Chunks of 1 MiB, the lowest first, two under way at each server. A server that has chunks under way and brings
    /// nothing for a second loses them to the others, who begin them anew. It gets new ones when a datagram comes from it,
    /// or if it is the last. At the end, a server that has nothing under way fetches the chunk with most bytes missing a
    /// second time. Where round trips take a second and lose something, chunks may go to and fro without end.
    Chunks,
    /// Pieces of 4 MiB, the lowest first, eight under way in all. Each new one goes to the server that brought most in the
    /// last second, but first one to each server that was asked for nothing. So one server soon has nearly all of them: who
    /// has most to bring brings most. No piece is taken back from a server before its connection is lost, which takes 30
    /// seconds of silence.
    Pieces,
}

impl Strategy {
    fn piece_bytes(self) -> u64 {
        match self {
            Self::Chunks => 1 << 20,
            Self::Pieces => 4 << 20,
        }
    }
}

/// A world with one client that fetches an object, and a server for each link: what [`Bulk`](crate::apps::bulk::Bulk) does,
/// by hand over plain QUIC. Every server has the whole object, and the client dials all of them at once. A connection that
/// is lost is not dialled again.
pub struct Chunks {
    /// The world. Links and servers may be disturbed in it.
    pub world: World,
    /// The client's node.
    pub client: NodeId,
    /// The servers' nodes, in the order of the links.
    pub servers: Vec<NodeId>,
    bytes: u64,
    progress: Rc<Cell<Progress>>,
}

/// What the seeds of the endpoints follow from, beside the world's.
const ENDPOINTS: u64 = 0x706c_6169;

impl Chunks {
    /// `bytes` bytes over `links`, each the same in both directions.
    ///
    /// # Panics
    /// If there are more links than addresses.
    #[must_use]
    pub fn new(
        config: WorldConfig,
        bytes: u64,
        links: &[Link],
        strategy: Strategy,
        congestion: PlainCongestion,
    ) -> Self {
        Self::with_transport(config, bytes, links, strategy, &transport(congestion))
    }

    pub(super) fn with_transport(
        config: WorldConfig,
        bytes: u64,
        links: &[Link],
        strategy: Strategy,
        transport: &Arc<TransportConfig>,
    ) -> Self {
        let mut seeds = SimRng::new(config.seed, &[ENDPOINTS]);
        let mut world = World::with_config(config);
        let (pki, now) = (world.pki(SERVER_NAME), world.now());
        let numbers = (0..links.len()).map(|number| u8::try_from(number).expect("a link for each address"));
        let address = |number: u8| SocketAddr::from(([10, 0, 1, number + 1], 4433));
        let progress = Rc::new(Cell::new(Progress::new(now)));
        let object = Object::new(bytes, strategy.piece_bytes(), progress.clone());
        let mut client = QuicNode::new(seeds.draw(), None, Fetcher::new(strategy, object));
        for number in numbers.clone() {
            let connection = client.dial(now, pki.quic_client(), transport.clone(), address(number));
            client.program_mut().add_source(now, connection);
        }
        let client = world.add_raw_node(([10, 0, 2, 1], 5000).into(), Box::new(client));
        let mut servers = Vec::new();
        for (number, link) in numbers.zip(links) {
            let mut server = ServerConfig::with_crypto(pki.quic_server(number));
            server.transport_config(transport.clone());
            let server = QuicNode::new(seeds.draw(), Some(server), RangeServer::new());
            let server = world.add_raw_node(address(number), Box::new(server));
            world.set_link_both(client, server, link.clone());
            servers.push(server);
        }
        Self { world, client, servers, bytes, progress }
    }

    /// Runs until every byte is there, for at most `limit` of virtual time. Returns whether it is.
    pub fn run(&mut self, limit: Duration) -> bool {
        let (bytes, progress) = (self.bytes, &self.progress);
        self.world.run_until(limit, |_| progress.get().bytes == bytes)
    }

    /// What the client has, each byte counted once, in any order.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.progress.get().bytes
    }

    /// The longest time for which a reader in order had nothing new to read, from the dial on: in which the bytes from the
    /// object's beginning did not grow.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        let progress = self.progress.get();
        if progress.bytes == self.bytes { progress.gap_before_last_growth() } else { progress.gap(self.world.now()) }
    }

    /// What the client read although it had it: of chunks fetched twice, and of those given back. It counts what streams
    /// brought until they were stopped, and not what was on its way then.
    #[must_use]
    pub fn bytes_twice(&self) -> u64 {
        self.progress.get().bytes_twice
    }
}
