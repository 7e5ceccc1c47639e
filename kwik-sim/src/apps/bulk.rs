//! One large download that several servers share, for measurements: a client reads one stream, the primary hands out its
//! ranges.

mod open;
mod shares;
mod source;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use kwik_core::{
    ClientConfig, Dir, Limits, PathTarget, ReadError, Role, SessionEvent, SessionHandle, SessionMut, StreamEvent,
    StreamHandle, WriteError,
};

use self::shares::Shares;
use crate::app::{App, Context};
use crate::link::Link;
use crate::node::{NodeConfig, NodeId};
use crate::world::{World, WorldConfig};

/// A world with one client that downloads once, and a server for each link.
pub struct Bulk {
    /// The world.
    pub world: World,
    /// The client's node.
    pub client: NodeId,
    /// The servers' nodes, the primary first.
    pub servers: Vec<NodeId>,
    read: Rc<Cell<u64>>,
}

/// The name in every certificate.
const NAME: &str = "server.test";

/// What a server buffers of what it writes: so much that a path never waits for its application, and so little that a
/// slow primary does not hold what others would bring sooner.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

impl Bulk {
    /// `bytes` bytes over `links`, the primary's first, each the same in both directions.
    ///
    /// # Panics
    /// If there is no link, or more links than a session has paths.
    #[must_use]
    pub fn new(config: WorldConfig, bytes: u64, links: &[Link]) -> Self {
        let mut world = World::with_config(config);
        let pki = world.pki(NAME);
        let addresses = (1..=links.len()).map(|number| format!("10.0.1.{number}:4433").parse().expect("an address"));
        let addresses: Vec<SocketAddr> = addresses.collect();
        let targets: Vec<PathTarget> = (1..)
            .zip(&addresses[1..])
            .map(|(number, address)| PathTarget {
                address: *address,
                server_name: NAME.to_owned(),
                identity: pki.public_identity(number),
            })
            .collect();
        let client = world.add_client("10.0.0.1:5000".parse().expect("an address")).expect("the defaults work");
        let mut limits = Limits::default();
        limits.send_buffer_stream_bytes = SEND_BUFFER_BYTES;
        let mut servers = Vec::new();
        for ((number, address), link) in (0..).zip(&addresses).zip(links) {
            let config = NodeConfig::server(*address, pki.server(number).limits(limits.clone()));
            let server = world.add_node(config).expect("the limits work");
            world.set_link_both(client, server, link.clone());
            world.set_app(server, Box::new(BulkServer::new(bytes, targets.clone())));
            servers.push(server);
        }
        let read = Rc::new(Cell::new(0));
        world.set_app(client, Box::new(BulkClient::new(pki.client(), addresses[0], read.clone())));
        Self { world, client, servers, read }
    }

    /// Runs until the client read the stream to its end, for at most `limit` of virtual time. Returns whether it did.
    pub fn run(&mut self, limit: Duration) -> bool {
        let client = self.client;
        self.world.run_until(limit, |world| world.is_app_done(client))
    }

    /// What the client has read.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read.get()
    }
}

/// The bytes of the stream: a block that repeats. Its length is prime, so that no misplaced chunk looks right.
#[derive(Clone)]
struct Content(Bytes);

impl Content {
    const PERIOD: usize = 65_521;

    fn new() -> Self {
        let block = (0..Self::PERIOD as u64).map(|at| at.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[0]);
        let block: Vec<u8> = block.collect();
        Self(Bytes::from([block.as_slice(), block.as_slice()].concat()))
    }

    /// Bytes from `offset`, at most `max` and at most a block.
    fn at(&self, offset: u64, max: u64) -> Bytes {
        let begin = usize::try_from(offset % Self::PERIOD as u64).unwrap_or(0);
        let len = usize::try_from(max).unwrap_or(usize::MAX).min(Self::PERIOD);
        self.0.slice(begin..begin + len)
    }

    fn is(&self, mut offset: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let expected = self.at(offset, bytes.len() as u64);
            let (piece, rest) = bytes.split_at(expected.len());
            if piece != expected {
                return false;
            }
            offset += piece.len() as u64;
            bytes = rest;
        }
        true
    }
}

/// Reads one stream to its end.
struct BulkClient {
    config: ClientConfig,
    server: SocketAddr,
    content: Content,
    stream: Option<StreamHandle>,
    read: Rc<Cell<u64>>,
    is_done: bool,
}

impl BulkClient {
    fn new(config: ClientConfig, server: SocketAddr, read: Rc<Cell<u64>>) -> Self {
        Self { config, server, content: Content::new(), stream: None, read, is_done: false }
    }
}

impl App for BulkClient {
    fn on_start(&mut self, cx: &mut Context<'_>) {
        let Ok(session) = cx.dial(self.config.clone(), self.server, NAME) else { return };
        self.stream = cx.session_mut(session).and_then(|mut session| session.open_stream(Dir::Bi).ok());
    }

    fn on_event(&mut self, cx: &mut Context<'_>, session: SessionHandle, event: SessionEvent) {
        let (SessionEvent::Stream(StreamEvent::Readable(_)), Some(stream)) = (event, self.stream) else { return };
        let Some(mut session) = cx.session_mut(session) else { return };
        loop {
            match session.stream_mut(stream).read(usize::MAX) {
                Ok(chunk) => {
                    assert!(self.content.is(chunk.offset.0, &chunk.data), "wrong bytes at {}", chunk.offset.0);
                    self.read.set(self.read.get() + chunk.data.len() as u64);
                }
                Err(ReadError::Finished) => {
                    self.is_done = true;
                    return;
                }
                Err(_) => return,
            }
        }
    }

    fn is_done(&self) -> bool {
        self.is_done
    }
}

/// Shares a stream among the servers of the session, or writes what it was granted.
struct BulkServer {
    bytes: u64,
    targets: Vec<PathTarget>,
    content: Content,
    shares: Option<Shares>,
    parts: Vec<Part>,
}

/// A granted range that is not written whole.
struct Part {
    stream: StreamHandle,
    next: u64,
    end: u64,
}

impl BulkServer {
    fn new(bytes: u64, targets: Vec<PathTarget>) -> Self {
        Self { bytes, targets, content: Content::new(), shares: None, parts: Vec::new() }
    }

    /// The primary has the client's session: it adds the others to it.
    fn begin(&self, cx: &mut Context<'_>, session: SessionHandle) -> Option<Shares> {
        let now = cx.now();
        let mut session = cx.session_mut(session).filter(|session| session.role() == Role::Primary)?;
        let paths = self.targets.iter().filter_map(|target| session.add_path(now, target.clone()).ok());
        Some(Shares::new(self.bytes, self.content.clone(), paths))
    }

    fn write_parts(&mut self, session: &mut SessionMut<'_>) {
        while let Some(stream) = session.accept_stream(Dir::Bi) {
            let range = session.stream(stream).grant().map_or(0..0, |grant| grant.range);
            self.parts.push(Part { stream, next: range.start, end: range.end });
        }
        self.parts.retain_mut(|part| !part.write(session, &self.content));
    }
}

impl Part {
    /// Returns whether nothing is left to write.
    fn write(&mut self, session: &mut SessionMut<'_>, content: &Content) -> bool {
        let mut stream = session.stream_mut(self.stream);
        while self.next < self.end {
            match stream.write_chunk(content.at(self.next, self.end - self.next)) {
                Ok(taken) => self.next += taken as u64,
                Err(WriteError::Blocked) => return false,
                Err(_) => break,
            }
        }
        stream.release_recv();
        stream.release_send();
        true
    }
}

impl App for BulkServer {
    fn on_start(&mut self, _: &mut Context<'_>) {}

    fn on_event(&mut self, cx: &mut Context<'_>, session: SessionHandle, event: SessionEvent) {
        if event == SessionEvent::Incoming {
            self.shares = self.begin(cx, session);
        }
        let now = cx.now();
        let Some(mut session) = cx.session_mut(session) else { return };
        match &mut self.shares {
            Some(shares) => shares.act(now, &mut session),
            None => self.write_parts(&mut session),
        }
    }
}
