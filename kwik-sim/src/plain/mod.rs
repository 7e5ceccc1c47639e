//! Downloads over `quinn-proto` without KWIK, for measurements beside [`Bulk`](crate::apps::bulk::Bulk): one connection
//! ([`Plain`]), and what people build by hand for several servers ([`Chunks`]). World and links are the same, and windows
//! are wide enough for any of them.

mod chunks;
mod fetch;
mod node;
mod object;
mod serve;
mod source;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::congestion::{BbrConfig, CubicConfig};
use quinn_proto::{Connection, Dir, Event, ServerConfig, StreamEvent, StreamId, TransportConfig, VarInt};

pub use self::chunks::{Chunks, Strategy};
use self::node::{Connections, Program, QuicNode};
use crate::fleet::SERVER_NAME;
use crate::link::Link;
use crate::world::{World, WorldConfig};

/// A congestion controller of `quinn-proto`.
///
/// Runs repeat with each of them. BBR draws without a seed where it begins a cycle of its pacing rate, but `quinn-proto`
/// hands that rate to nobody, and no window follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainCongestion {
    /// CUBIC.
    Cubic,
    /// The experimental BBR.
    Bbr,
}

/// A world with a client that downloads without end, and a server. The congestion controller is cubic.
pub struct Plain {
    world: World,
    read: Rc<Cell<u64>>,
}

impl Plain {
    /// A download over `link`, the same in both directions.
    #[must_use]
    pub fn new(config: WorldConfig, link: Link) -> Self {
        let mut world = World::with_config(config);
        let (pki, now) = (world.pki(SERVER_NAME), world.now());
        let address = |last: u8| SocketAddr::from(([10, 0, 9, last], 4433));
        let mut server_config = ServerConfig::with_crypto(pki.quic_server(1));
        server_config.transport_config(transport(PlainCongestion::Cubic));
        let server = QuicNode::new(1, Some(server_config), EndlessServer::default());
        let read = Rc::<Cell<u64>>::default();
        let mut client = QuicNode::new(2, None, EndlessClient { stream: None, read: read.clone() });
        client.dial(now, pki.quic_client(), transport(PlainCongestion::Cubic), address(1));
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

/// Opens one stream and reads it.
struct EndlessClient {
    stream: Option<(usize, StreamId)>,
    read: Rc<Cell<u64>>,
}

impl Program for EndlessClient {
    fn on_event(&mut self, number: usize, quic: &mut Connection, event: &Event) {
        if let Event::Connected = event {
            self.stream = quic.streams().open(Dir::Bi).map(|stream| (number, stream));
            // The request.
            self.stream.into_iter().for_each(|(_, stream)| drop(quic.send_stream(stream).write(b"all of it")));
        }
    }

    fn act(&mut self, _: Instant, connections: &mut Connections) {
        let Some((number, stream)) = self.stream else { return };
        let Some(quic) = connections.get_mut(&number) else { return };
        let mut recv = quic.recv_stream(stream);
        let Ok(mut chunks) = recv.read(true) else { return };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            self.read.set(self.read.get() + chunk.bytes.len() as u64);
        }
        let _ = chunks.finalize();
    }
}

/// Writes on the stream that was opened last.
#[derive(Default)]
struct EndlessServer {
    stream: Option<(usize, StreamId)>,
}

/// What the server writes at once.
static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

impl Program for EndlessServer {
    fn on_event(&mut self, number: usize, quic: &mut Connection, event: &Event) {
        if let Event::Stream(StreamEvent::Opened { .. }) = event {
            self.stream = quic.streams().accept(Dir::Bi).map(|stream| (number, stream));
        }
    }

    fn act(&mut self, _: Instant, connections: &mut Connections) {
        let Some((number, stream)) = self.stream else { return };
        let Some(quic) = connections.get_mut(&number) else { return };
        let mut send = quic.send_stream(stream);
        while send.write_chunks(&mut [Bytes::from_static(&ZEROES)]).is_ok() {}
    }
}

/// Windows wide enough for any link, and what else `quinn-proto` does unless told otherwise.
fn transport(congestion: PlainCongestion) -> Arc<TransportConfig> {
    const WINDOW: u32 = 128 << 20;
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(WINDOW.into());
    match congestion {
        PlainCongestion::Cubic => transport.congestion_controller_factory(Arc::new(CubicConfig::default())),
        PlainCongestion::Bbr => transport.congestion_controller_factory(Arc::new(BbrConfig::default())),
    };
    Arc::new(transport)
}
