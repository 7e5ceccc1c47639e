//! One large download over one connection of `quinn-proto` without KWIK, for measurements beside [`Bulk`](crate::apps::bulk::Bulk):
//! the same world, link and congestion controller (cubic), and windows wide enough for any of them.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, ServerConfig, StreamEvent,
    StreamId, TransportConfig, VarInt,
};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::byzantine::quic::{SeededIds, endpoint_config};
use crate::fleet::SERVER_NAME;
use crate::link::Link;
use crate::raw_node::RawNode;
use crate::world::{World, WorldConfig};

/// A world with a client that downloads without end, and a server.
pub struct Plain {
    world: World,
    read: Rc<Cell<u64>>,
}

impl Plain {
    /// A download over `link`, the same in both directions.
    ///
    /// # Panics
    /// If the default configuration of an endpoint does not work.
    #[must_use]
    pub fn new(config: WorldConfig, link: Link) -> Self {
        let mut world = World::with_config(config);
        let (pki, now) = (world.pki(SERVER_NAME), world.now());
        let address = |last: u8| SocketAddr::from(([10, 0, 9, last], 4433));
        let mut server_config = ServerConfig::with_crypto(pki.quic_server(1));
        server_config.transport_config(Arc::new(transport()));
        let server = PlainNode::new(1, Some(server_config), Rc::default());
        let read = Rc::<Cell<u64>>::default();
        let mut client = PlainNode::new(2, None, read.clone());
        let mut client_config = ClientConfig::new(pki.quic_client());
        let first = client.ids.draw(16);
        client_config.transport_config(Arc::new(transport())).initial_dst_cid_provider(Arc::new(move || first));
        client.connection = client.endpoint.connect(now, client_config, address(1), SERVER_NAME).ok();
        let server = world.add_raw_node(address(1), Box::new(server));
        let client = world.add_raw_node(address(2), Box::new(client));
        world.set_link_both(client, server, link);
        Self { world, read }
    }

    /// Runs for so much virtual time, and gives how many bytes the client has read in all.
    pub fn run(&mut self, time: Duration) -> u64 {
        self.world.run_until(time, |_| false);
        self.read.get()
    }
}

/// One end of the connection.
struct PlainNode {
    endpoint: Endpoint,
    ids: SeededIds,
    connection: Option<(ConnectionHandle, Connection)>,
    stream: Option<StreamId>,
    is_server: bool,
    read: Rc<Cell<u64>>,
    out: Vec<(SocketAddr, Vec<u8>)>,
    deadline: Option<Instant>,
}

/// What the server writes at once.
static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

impl PlainNode {
    fn new(seed: u64, server: Option<ServerConfig>, read: Rc<Cell<u64>>) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed);
        let ids = SeededIds::new(rng);
        let config = Arc::new(endpoint_config(rng, &ids));
        let is_server = server.is_some();
        let endpoint = Endpoint::new(config, server.map(Arc::new), true, None);
        Self { endpoint, ids, connection: None, stream: None, is_server, read, out: Vec::new(), deadline: None }
    }

    /// Reads and writes what there is.
    fn act(&mut self) {
        let Some((handle, connection)) = &mut self.connection else { return };
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(answer) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(answer);
            }
        }
        while let Some(event) = connection.poll() {
            match event {
                Event::Connected if !self.is_server => {
                    self.stream = connection.streams().open(Dir::Bi);
                    // The request.
                    self.stream.into_iter().for_each(|stream| drop(connection.send_stream(stream).write(b"all of it")));
                }
                Event::Stream(StreamEvent::Opened { .. }) => self.stream = connection.streams().accept(Dir::Bi),
                _ => {}
            }
        }
        let Some(stream) = self.stream else { return };
        if self.is_server {
            let mut stream = connection.send_stream(stream);
            while stream.write_chunks(&mut [Bytes::from_static(&ZEROES)]).is_ok() {}
            return;
        }
        let mut recv = connection.recv_stream(stream);
        let Ok(mut chunks) = recv.read(true) else { return };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            self.read.set(self.read.get() + chunk.bytes.len() as u64);
        }
        let _ = chunks.finalize();
    }
}

impl RawNode for PlainNode {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, data: &[u8]) {
        let mut answer = Vec::new();
        match self.endpoint.handle(now, from, None, None, BytesMut::from(data), &mut answer) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.connection = self.endpoint.accept(incoming, now, &mut answer, None).ok();
            }
            Some(DatagramEvent::Response(transmit)) => {
                answer.truncate(transmit.size);
                self.out.push((transmit.destination, answer));
            }
            None => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.connection.iter_mut().for_each(|(_, connection)| connection.handle_timeout(now));
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        self.act();
        if let Some(answer) = self.out.pop() {
            return Some(answer);
        }
        let (_, connection) = self.connection.as_mut()?;
        let mut datagram = Vec::new();
        let transmit = connection.poll_transmit(now, 1, &mut datagram);
        self.deadline = connection.poll_timeout();
        datagram.truncate(transmit.as_ref()?.size);
        Some((transmit?.destination, datagram))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }
}

fn transport() -> TransportConfig {
    const WINDOW: u32 = 128 << 20;
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(WINDOW.into());
    transport
}
