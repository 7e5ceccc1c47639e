//! Flows that share a bottleneck, for measurements: servers that write to one client without end, each over a connection of
//! its own.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use kwik_core::{ClientConfig, Dir, Limits, SessionEvent, SessionHandle, StreamEvent, StreamHandle, TransportConfig};

use crate::app::{App, Context};
use crate::content::RepeatedContent;
use crate::fleet::{Fleet, FleetBuilder, SERVER_NAME};
use crate::link::Link;
use crate::node::NodeConfig;
use crate::world::WorldConfig;

/// One flow.
#[derive(Debug, Clone)]
pub struct Flow {
    /// How QUIC runs at its server, which sends.
    pub transport: TransportConfig,
    /// When it begins.
    pub start: Duration,
    /// So many bits a second are written until so long after the flow's begin, then as many as it takes.
    pub limited: Option<(u64, Duration)>,
}

/// A world with one client, a server for each flow, and one bottleneck.
pub struct Flows {
    /// The nodes.
    pub fleet: Fleet,
    read: Vec<Rc<Cell<u64>>>,
}

const KEY: u64 = 0x666c_6f77;

impl Flows {
    /// All flows share `link`; what goes back shares another without losses.
    ///
    /// # Panics
    /// If there is no flow.
    #[must_use]
    pub fn new(config: WorldConfig, limits: &Limits, link: &Link, flows: &[Flow]) -> Self {
        let builder = FleetBuilder::new(config).client(|node| node.set_limits(limits));
        let adjust = |number: usize, node: &mut NodeConfig| {
            let mtu_max = node.transport.mtu_max;
            node.transport = flows[number].transport;
            node.transport.mtu_max = mtu_max;
            node.set_limits(limits);
        };
        let mut fleet = builder.servers(flows.len(), adjust).build();
        let (client, first) = (fleet.client, fleet.servers[0]);
        for server in fleet.servers[1..].iter().copied() {
            fleet.world.share_link((server, client), (first, client));
            fleet.world.share_link((client, server), (client, first));
        }
        fleet.world.set_link(first, client, link.clone());
        let back = Link { loss: 0.0, bursts: None, reordering: 0.0, policer: None, ..link.clone() };
        fleet.world.set_link(client, first, back);
        for (server, flow) in fleet.servers.iter().zip(flows) {
            fleet.world.set_app(*server, Box::new(FlowServer::new(flow.limited)));
        }
        let read: Vec<Rc<Cell<u64>>> = flows.iter().map(|_| Rc::default()).collect();
        let dials = flows.iter().enumerate().map(|(number, flow)| FlowEnd {
            server: fleet.server_address(number),
            start: flow.start,
            stream: None,
            read: read[number].clone(),
        });
        let client =
            FlowClient { config: fleet.pki.client().limits(limits.clone()), begin: None, ends: dials.collect() };
        fleet.world.set_app(fleet.client, Box::new(client));
        Self { fleet, read }
    }

    /// Bytes that the client read of a flow.
    #[must_use]
    pub fn bytes(&self, flow: usize) -> u64 {
        self.read[flow].get()
    }

    /// The round trip that the server of a flow measures; zero before it has a session.
    #[must_use]
    pub fn rtt(&self, flow: usize) -> Duration {
        let (world, server) = (&self.fleet.world, self.fleet.servers[flow]);
        let session = world.sessions(server).first().and_then(|session| world.session(server, *session));
        session.and_then(|session| session.stats().paths.first().map(|path| path.rtt)).unwrap_or_default()
    }
}

/// Dials every server at its time, and reads what comes.
struct FlowClient {
    config: ClientConfig,
    begin: Option<Instant>,
    ends: Vec<FlowEnd>,
}

struct FlowEnd {
    server: SocketAddr,
    start: Duration,
    stream: Option<(SessionHandle, StreamHandle)>,
    read: Rc<Cell<u64>>,
}

impl App for FlowClient {
    fn on_start(&mut self, cx: &mut Context<'_>) {
        self.begin = Some(cx.now());
        self.on_wake(cx);
    }

    fn on_event(&mut self, cx: &mut Context<'_>, session: SessionHandle, event: SessionEvent) {
        let SessionEvent::Stream(StreamEvent::Readable(stream)) = event else { return };
        let Some(end) = self.ends.iter().find(|end| end.stream == Some((session, stream))) else { return };
        let Some(mut session) = cx.session_mut(session) else { return };
        while let Ok(chunk) = session.stream_mut(stream).read(usize::MAX) {
            end.read.set(end.read.get() + chunk.data.len() as u64);
        }
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        let elapsed = self.begin.map_or(Duration::ZERO, |begin| cx.now() - begin);
        for end in self.ends.iter_mut().filter(|end| end.stream.is_none()) {
            if end.start > elapsed {
                cx.wake_in(end.start - elapsed);
                continue;
            }
            let Ok(session) = cx.dial(self.config.clone(), end.server, SERVER_NAME) else { continue };
            let stream = cx.session_mut(session).and_then(|mut session| session.open_stream(Dir::Bi).ok());
            end.stream = stream.map(|stream| (session, stream));
        }
    }
}

/// Writes to the first stream of its session.
struct FlowServer {
    content: RepeatedContent,
    limited: Option<(u64, Duration)>,
    stream: Option<(SessionHandle, StreamHandle)>,
    begin: Option<Instant>,
    written: u64,
}

impl FlowServer {
    /// How often a limited flow writes.
    const EVERY: Duration = Duration::from_millis(10);

    fn new(limited: Option<(u64, Duration)>) -> Self {
        Self { content: RepeatedContent::new(KEY), limited, stream: None, begin: None, written: 0 }
    }

    /// How much may be written until now, in bytes.
    fn limit(&self, now: Instant) -> u64 {
        let elapsed = self.begin.map_or(Duration::ZERO, |begin| now - begin);
        match self.limited {
            Some((rate, until)) if elapsed < until => {
                rate.saturating_mul(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)) / 8_000_000
            }
            _ => u64::MAX,
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) {
        let (Some((session, stream)), limit) = (self.stream, self.limit(cx.now())) else { return };
        if limit != u64::MAX {
            cx.wake_in(Self::EVERY);
        }
        let Some(mut session) = cx.session_mut(session) else { return };
        while self.written < limit {
            let data = self.content.at(self.written, limit - self.written);
            let Ok(taken) = session.stream_mut(stream).write_chunk(data) else { return };
            self.written += taken as u64;
        }
    }
}

impl App for FlowServer {
    fn on_start(&mut self, _: &mut Context<'_>) {}

    fn on_event(&mut self, cx: &mut Context<'_>, session: SessionHandle, _: SessionEvent) {
        if self.stream.is_none() {
            let stream = cx.session_mut(session).and_then(|mut session| session.accept_stream(Dir::Bi));
            self.stream = stream.map(|stream| (session, stream));
            self.begin = Some(cx.now());
        }
        self.write(cx);
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        self.write(cx);
    }
}
