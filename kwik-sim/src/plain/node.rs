//! A `quinn_proto::Endpoint` and its connections in a world, and what a program does with them.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::crypto;
use quinn_proto::{ClientConfig, Connection, DatagramEvent, Endpoint, Event, ServerConfig, TransportConfig};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::byzantine::quic::{SeededIds, endpoint_config};
use crate::fleet::SERVER_NAME;
use crate::raw_node::RawNode;

/// The connections of a node, by the numbers of their handles.
pub(super) type Connections = BTreeMap<usize, Connection>;

/// What a node does with its connections.
pub(super) trait Program {
    /// A connection had an event.
    fn on_event(&mut self, number: usize, quic: &mut Connection, event: &Event);

    /// Reads, writes and opens what it can, after datagrams, timeouts and their events.
    fn act(&mut self, now: Instant, connections: &mut Connections);

    /// When to act at the latest. It must be later than the moment at which the program acted last.
    fn wake_at(&self) -> Option<Instant> {
        None
    }
}

/// An endpoint that runs a program.
pub(super) struct QuicNode<P> {
    endpoint: Endpoint,
    ids: SeededIds,
    connections: Connections,
    program: P,
    /// Answers of the endpoint itself.
    out: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Something happened since the program acted.
    has_news: bool,
    deadline: Option<Instant>,
}

impl<P: Program> QuicNode<P> {
    /// A server with `server`, or a client without. Everything random follows from `seed`.
    pub(super) fn new(seed: u64, server: Option<ServerConfig>, program: P) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed);
        let ids = SeededIds::new(rng);
        let config = Arc::new(endpoint_config(rng, &ids));
        let endpoint = Endpoint::new(config, server.map(Arc::new), true, None);
        Self {
            endpoint,
            ids,
            connections: Connections::new(),
            program,
            out: VecDeque::new(),
            has_news: true,
            deadline: None,
        }
    }

    /// Dials a server; gives the number of the connection.
    pub(super) fn dial(
        &mut self,
        now: Instant,
        crypto: Arc<dyn crypto::ClientConfig>,
        transport: Arc<TransportConfig>,
        server: SocketAddr,
    ) -> usize {
        let mut config = ClientConfig::new(crypto);
        let first = self.ids.draw(16);
        config.transport_config(transport).initial_dst_cid_provider(Arc::new(move || first));
        let (handle, connection) =
            self.endpoint.connect(now, config, server, SERVER_NAME).expect("name and address are valid");
        self.connections.insert(handle.0, connection);
        handle.0
    }

    /// What it runs.
    pub(super) fn program_mut(&mut self) -> &mut P {
        &mut self.program
    }

    /// Brings events to the program and lets it act.
    fn settle(&mut self, now: Instant) {
        let Self { endpoint, connections, program, .. } = self;
        connections.retain(|number, connection| {
            let mut is_drained = false;
            while let Some(event) = connection.poll_endpoint_events() {
                is_drained |= event.is_drained();
                if let Some(answer) = endpoint.handle_event(quinn_proto::ConnectionHandle(*number), event) {
                    connection.handle_event(answer);
                }
            }
            while let Some(event) = connection.poll() {
                program.on_event(*number, connection, &event);
            }
            !is_drained
        });
        program.act(now, connections);
    }
}

impl<P: Program> RawNode for QuicNode<P> {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, data: &[u8]) {
        self.has_news = true;
        let mut answer = Vec::new();
        match self.endpoint.handle(now, from, None, None, BytesMut::from(data), &mut answer) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(connection) = self.connections.get_mut(&handle.0) {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                if let Ok((handle, connection)) = self.endpoint.accept(incoming, now, &mut answer, None) {
                    self.connections.insert(handle.0, connection);
                }
            }
            Some(DatagramEvent::Response(transmit)) => {
                answer.truncate(transmit.size);
                self.out.push_back((transmit.destination, answer));
            }
            None => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.has_news = true;
        for connection in self.connections.values_mut() {
            if connection.poll_timeout().is_some_and(|at| at <= now) {
                connection.handle_timeout(now);
            }
        }
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        if std::mem::take(&mut self.has_news) {
            self.settle(now);
        }
        if let Some(answer) = self.out.pop_front() {
            return Some(answer);
        }
        for connection in self.connections.values_mut() {
            let mut datagram = Vec::new();
            if let Some(transmit) = connection.poll_transmit(now, 1, &mut datagram) {
                datagram.truncate(transmit.size);
                return Some((transmit.destination, datagram));
            }
        }
        let timeouts = self.connections.values_mut().filter_map(Connection::poll_timeout);
        self.deadline = timeouts.chain(self.program.wake_at()).min();
        None
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }
}
