//! One large download that several servers share, for measurements: a client reads one stream, the primary hands out its
//! ranges.

mod open;
mod shares;
mod source;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use kwik_core::{
    ClientConfig, Dir, Limits, PathEvent, PathId, PathTarget, ReadError, Role, SessionEvent, SessionHandle, SessionMut,
    StreamEvent, StreamHandle, WriteError,
};

use self::shares::Shares;
use crate::app::{App, Context};
use crate::content::RepeatedContent;
use crate::fleet::{Fleet, FleetBuilder, SERVER_NAME};
use crate::link::Link;
use crate::node::NodeConfig;
use crate::world::WorldConfig;

/// A world with one client that downloads once, and a server for each link.
pub struct Bulk {
    /// The nodes.
    pub fleet: Fleet,
    read: Rc<Cell<u64>>,
}

/// The stream's content follows from it.
const KEY: u64 = 0x6275_6c6b;

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
        let mut limits = Limits::default();
        limits.send_buffer_stream_bytes = SEND_BUFFER_BYTES;
        let builder = FleetBuilder::new(config).client(|_| ());
        let limited = |_, node: &mut NodeConfig| node.adjust_server(|server| server.limits(limits.clone()));
        let mut fleet = builder.servers(links.len(), limited).build();
        let targets: Vec<PathTarget> = (1..links.len()).map(|number| fleet.target(number)).collect();
        for (server, link) in fleet.servers.iter().zip(links) {
            fleet.world.set_link_both(fleet.client, *server, link.clone());
            fleet.world.set_app(*server, Box::new(BulkServer::new(bytes, targets.clone())));
        }
        let read = Rc::new(Cell::new(0));
        let client = BulkClient::new(fleet.pki.client(), fleet.server_address(0), read.clone());
        fleet.world.set_app(fleet.client, Box::new(client));
        Self { fleet, read }
    }

    /// Runs until the client read the stream to its end, for at most `limit` of virtual time. Returns whether it did.
    pub fn run(&mut self, limit: Duration) -> bool {
        let client = self.fleet.client;
        self.fleet.world.run_until(limit, |world| world.is_app_done(client))
    }

    /// What the client has read.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read.get()
    }
}

/// Reads one stream to its end.
struct BulkClient {
    config: ClientConfig,
    server: SocketAddr,
    content: RepeatedContent,
    stream: Option<(SessionHandle, StreamHandle)>,
    read: Rc<Cell<u64>>,
    is_done: bool,
}

impl BulkClient {
    fn new(config: ClientConfig, server: SocketAddr, read: Rc<Cell<u64>>) -> Self {
        Self { config, server, content: RepeatedContent::new(KEY), stream: None, read, is_done: false }
    }
}

impl App for BulkClient {
    fn on_start(&mut self, cx: &mut Context<'_>) {
        let Ok(session) = cx.dial(self.config.clone(), self.server, SERVER_NAME) else { return };
        let stream = cx.session_mut(session).and_then(|mut session| session.open_stream(Dir::Bi).ok());
        self.stream = stream.map(|stream| (session, stream));
    }

    fn on_event(&mut self, cx: &mut Context<'_>, session: SessionHandle, event: SessionEvent) {
        let SessionEvent::Stream(StreamEvent::Readable(stream)) = event else { return };
        if self.stream != Some((session, stream)) {
            return;
        }
        let Some(mut session) = cx.session_mut(session) else { return };
        loop {
            match session.stream_mut(stream).read(usize::MAX) {
                Ok(chunk) => {
                    let wrong = self.content.first_difference(chunk.offset.0, &chunk.data);
                    assert_eq!((wrong, chunk.offset.0), (None, self.read.get()), "wrong bytes, or not the next");
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
    content: RepeatedContent,
    shares: Option<Shares>,
    /// Where the paths lead that it added.
    paths: BTreeMap<PathId, PathTarget>,
    granted: VecDeque<GrantedRange>,
}

/// A granted range that is not written whole.
struct GrantedRange {
    stream: StreamHandle,
    next: u64,
    end: u64,
}

impl BulkServer {
    fn new(bytes: u64, targets: Vec<PathTarget>) -> Self {
        Self {
            bytes,
            targets,
            content: RepeatedContent::new(KEY),
            shares: None,
            paths: BTreeMap::new(),
            granted: VecDeque::new(),
        }
    }

    /// The primary adds another server to the client's session, maybe again.
    fn add_path(&mut self, now: Instant, session: &mut SessionMut<'_>, target: PathTarget, is_known: bool) {
        if let (Some(shares), Ok(path)) = (&mut self.shares, session.add_path(now, target.clone())) {
            shares.add_path(path, is_known);
            self.paths.insert(path, target);
        }
    }

    fn write_granted(&mut self, session: &mut SessionMut<'_>) {
        while let Some(stream) = session.accept_stream(Dir::Bi) {
            let range = session.stream(stream).grant().map_or(0..0, |grant| grant.range);
            self.granted.push_back(GrantedRange { stream, next: range.start, end: range.end });
        }
        // One after the other: the first is what the reader waits for.
        while self.granted.front_mut().is_some_and(|granted| granted.write(session, &self.content)) {
            self.granted.pop_front();
        }
    }
}

impl GrantedRange {
    /// Returns whether nothing is left to write.
    fn write(&mut self, session: &mut SessionMut<'_>, content: &RepeatedContent) -> bool {
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
        let now = cx.now();
        let Some(mut session) = cx.session_mut(session) else { return };
        match event {
            SessionEvent::Incoming if session.role() == Role::Primary => {
                self.shares = Some(Shares::new(self.bytes, self.content.clone()));
                for target in self.targets.clone() {
                    self.add_path(now, &mut session, target, false);
                }
            }
            // Its server may come back.
            SessionEvent::Path(PathEvent::Dead { path, .. }) => {
                if let Some(target) = self.paths.remove(&path) {
                    self.add_path(now, &mut session, target, true);
                }
            }
            _ => {}
        }
        match &mut self.shares {
            Some(shares) => shares.act(now, &mut session),
            None => self.write_granted(&mut session),
        }
    }
}
