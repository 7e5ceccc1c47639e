//! One endpoint of the world, at one or several addresses.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use kwik_core::{
    DatagramMeta, EcnCodepoint, Endpoint, EndpointConfig, EventDetail, Limits, ProtocolEvent, ServerConfig,
    SessionEvent, SessionHandle, Transmit, TransportConfig,
};

use crate::app::App;
use crate::clock::VirtualClock;
use crate::raw_node::RawNode;

/// Names a node of a [`World`](crate::World).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) usize);

impl NodeId {
    /// How many nodes were added before this one.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// What a node is built from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeConfig {
    /// Its addresses. It sends from the one the endpoint names, or else from the first of the destination's family.
    pub addresses: Vec<SocketAddr>,
    /// Makes it accept sessions.
    pub server: Option<ServerConfig>,
    /// Milliseconds its wall clock is ahead of the world's.
    pub clock_offset_ms: i64,
    /// How QUIC runs on its paths.
    pub transport: TransportConfig,
    /// Limits of its endpoint.
    pub limits: Limits,
    /// How much of what its endpoint does [`World::take_protocol_events`](crate::World::take_protocol_events) tells.
    pub event_detail: EventDetail,
}

impl NodeConfig {
    /// The largest UDP payload that a node probes for and receives unless told otherwise, in bytes.
    const MTU_MAX: u16 = 1452;

    /// A node that dials.
    #[must_use]
    pub fn client(address: SocketAddr) -> Self {
        let mut transport = TransportConfig::default();
        transport.mtu_max = Some(Self::MTU_MAX);
        Self {
            addresses: vec![address],
            server: None,
            clock_offset_ms: 0,
            transport,
            limits: Limits::default(),
            event_detail: EventDetail::Changes,
        }
    }

    /// A node that accepts sessions, and may dial too.
    #[must_use]
    pub fn server(address: SocketAddr, config: ServerConfig) -> Self {
        Self { server: Some(config), ..Self::client(address) }
    }

    /// Changes how it accepts sessions, if it does.
    pub fn adjust_server(&mut self, adjust: impl FnOnce(ServerConfig) -> ServerConfig) {
        self.server = self.server.take().map(adjust);
    }

    /// Sets the limits of its endpoint and of the sessions it accepts.
    pub fn set_limits(&mut self, limits: &Limits) {
        self.limits = limits.clone();
        self.adjust_server(|server| server.limits(limits.clone()));
    }

    /// The endpoint's configuration, `elapsed` after the world began.
    pub(crate) fn endpoint(&self, seed: [u8; 32], elapsed: Duration) -> EndpointConfig {
        let mut config = EndpointConfig::new(seed, self.wall_clock(elapsed));
        config.transport = self.transport;
        config.limits = self.limits.clone();
        config.event_detail = self.event_detail;
        config
    }

    /// What the node's clock shows, `elapsed` after the world began, since the Unix epoch.
    pub(crate) fn wall_clock(&self, elapsed: Duration) -> Duration {
        let wall = VirtualClock::UNIX_AT_START + elapsed;
        let offset = Duration::from_millis(self.clock_offset_ms.unsigned_abs());
        if self.clock_offset_ms < 0 { wall.saturating_sub(offset) } else { wall + offset }
    }
}

/// One address of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interface {
    /// Counts the addresses of the world.
    pub(crate) port: usize,
    /// As the node knows it.
    pub(crate) local: SocketAddr,
    /// As the others see it.
    pub(crate) outward: SocketAddr,
}

/// A datagram that will arrive.
pub(crate) struct Arrival {
    pub(crate) from: NodeId,
    pub(crate) from_address: SocketAddr,
    pub(crate) to: NodeId,
    /// Of the interfaces at `to`.
    pub(crate) interface: usize,
    /// As the sender saw it.
    pub(crate) to_address: SocketAddr,
    pub(crate) ecn: Option<EcnCodepoint>,
    pub(crate) data: Vec<u8>,
}

pub(crate) struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) interfaces: Vec<Interface>,
    /// The interface it sends from, if the endpoint names none and the family is right.
    pub(crate) preferred: usize,
    /// Idle, if there is a raw node.
    pub(crate) endpoint: Endpoint,
    pub(crate) raw: Option<Box<dyn RawNode>>,
    /// How often it began without its memory.
    pub(crate) lives: u64,
    /// A crashed node neither sends nor receives.
    pub(crate) crashed: bool,
    pub(crate) paused_until: Option<Instant>,
    pub(crate) send_errors_until: Option<Instant>,
    /// What arrived during a pause.
    pub(crate) socket: VecDeque<Arrival>,
    pub(crate) socket_bytes: usize,
    pub(crate) app: Option<Box<dyn App>>,
    pub(crate) app_begins: bool,
    pub(crate) wake_at: Option<Instant>,
    /// For `poll_event`, if there is no application.
    pub(crate) events: VecDeque<(SessionHandle, SessionEvent)>,
    pub(crate) history: Vec<SessionEvent>,
    /// What its endpoint did of late.
    pub(crate) protocol_events: VecDeque<ProtocolEvent>,
    /// What an endpoint never does but for a defect of its own.
    pub(crate) defects: Vec<ProtocolEvent>,
    pub(crate) sessions: BTreeSet<SessionHandle>,
    /// What its endpoint did and nobody put into the trace yet; `None` in a world that is not watched.
    pub(crate) unobserved: Option<Vec<ProtocolEvent>>,
    /// Something called into the endpoint since it was last drained.
    pub(crate) touched: bool,
    /// When the endpoint or the application wants to run next, as of the last drain.
    pub(crate) deadline: Option<Instant>,
}

impl Node {
    const PROTOCOL_EVENTS_MAX: usize = 4096;

    /// Takes what the endpoint did, and keeps the last of it.
    pub(crate) fn take_protocol_events(&mut self) {
        while let Some(event) = self.endpoint.poll_protocol_event() {
            self.note(event);
        }
    }

    /// The endpoint did something.
    pub(crate) fn note(&mut self, event: ProtocolEvent) {
        if event.kind.is_defect() {
            self.defects.push(event.clone());
        }
        if let Some(unobserved) = &mut self.unobserved {
            unobserved.push(event.clone());
        }
        if self.protocol_events.len() >= Self::PROTOCOL_EVENTS_MAX {
            self.protocol_events.pop_front();
        }
        self.protocol_events.push_back(event);
    }

    pub(crate) fn new(config: NodeConfig, interfaces: Vec<Interface>, endpoint: Endpoint) -> Self {
        Self {
            config,
            interfaces,
            preferred: 0,
            endpoint,
            raw: None,
            lives: 0,
            crashed: false,
            paused_until: None,
            send_errors_until: None,
            socket: VecDeque::new(),
            socket_bytes: 0,
            app: None,
            app_begins: false,
            wake_at: None,
            events: VecDeque::new(),
            history: Vec::new(),
            protocol_events: VecDeque::new(),
            defects: Vec::new(),
            sessions: BTreeSet::new(),
            unobserved: None,
            touched: false,
            deadline: None,
        }
    }

    /// It stops; what waited in its socket is gone.
    pub(crate) fn crash(&mut self) {
        self.crashed = true;
        self.paused_until = None;
        self.socket.clear();
        self.socket_bytes = 0;
    }

    /// A new endpoint takes the place of the old one.
    pub(crate) fn begin_anew(&mut self, endpoint: Endpoint) {
        self.endpoint = endpoint;
        self.lives += 1;
        self.app_begins = self.app.is_some();
        self.wake_at = None;
        self.events.clear();
        self.sessions.clear();
        self.unobserved.iter_mut().for_each(Vec::clear);
        self.touched = true;
    }

    /// Whether it can do anything at this moment.
    pub(crate) fn runs(&self, now: Instant) -> bool {
        !self.crashed && self.paused_until.is_none_or(|until| until <= now)
    }

    /// When it wants to run next.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        if self.crashed {
            return None;
        }
        match self.paused_until {
            Some(until) => Some(until),
            None => self.deadline,
        }
    }

    /// Hands a datagram to the endpoint.
    pub(crate) fn receive(&mut self, now: Instant, arrival: &Arrival) {
        self.touched = true;
        if let Some(raw) = &mut self.raw {
            raw.handle_datagram(now, arrival.from_address, &arrival.data);
            return;
        }
        let local_ip = self.interfaces.get(arrival.interface).map(|interface| interface.local.ip());
        let meta = DatagramMeta { remote: arrival.from_address, local_ip, ecn: arrival.ecn };
        self.endpoint.handle_datagram(now, meta, &arrival.data);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match &mut self.raw {
            Some(raw) => raw.handle_timeout(now),
            None => self.endpoint.handle_timeout(now),
        }
    }

    /// When the endpoint, or the raw node, wants to run next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match &self.raw {
            Some(raw) => raw.poll_timeout(),
            None => self.endpoint.poll_timeout(),
        }
    }

    /// What a node sends next.
    pub(crate) fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        /// As a driver with segmentation offload would ask for.
        const DATAGRAMS_AT_ONCE: usize = 10;
        let Some(raw) = &mut self.raw else { return self.endpoint.poll_transmit(now, DATAGRAMS_AT_ONCE, buf) };
        let (destination, data) = raw.poll_transmit(now)?;
        buf.extend_from_slice(&data);
        Some(Transmit { destination, ecn: None, size: data.len(), segment_size: None, src_ip: None })
    }

    /// Remembers an event for [`World::saw`](crate::World::saw); what repeats at once is remembered once.
    pub(crate) fn remember(&mut self, event: &SessionEvent) {
        let recent = self.history.len().saturating_sub(8);
        if !matches!(event, SessionEvent::Stream(_) | SessionEvent::Delegation(_))
            || !self.history[recent..].contains(event)
        {
            self.history.push(event.clone());
        }
    }
}
