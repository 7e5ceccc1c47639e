//! The one public machine: QUIC's endpoint, the connections that have not authenticated, and the sessions.

mod coalesced;
mod gate;
mod incoming;
mod memory;
mod seeded;
mod timer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::{ConnectionHandle, DatagramEvent, EcnCodepoint, Transmit};

use self::gate::{Gate, Listener, Network};
use self::incoming::Incoming;
pub use self::memory::EndpointStats;
use self::memory::Memory;
use self::seeded::{Entropy, SeededIds};
use self::timer::Timers;
use crate::address::Address;
use crate::auth::Identity;
use crate::config::{self, ClientConfig, ConfigError, EndpointConfig, EventDetail, ServerConfig, WallClock};
use crate::error::{DeadReason, TransportCode};
use crate::id::{PathId, SessionHandle, Side};
use crate::limits::LimitError;
use crate::path::{IdlePolicy, LinkSettings, Path, PathSetup};
use crate::protocol_event::{EventLog, ProtocolEvent};
use crate::session::{Clock, Dial, Session, SessionEvent, SessionMut};

/// Where a datagram came from, and how. In a `Transmit` an IPv4 address never comes as an IPv6 one: a loop around a
/// dual-stack socket maps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramMeta {
    /// The sender. An IPv4 address may be given as itself or mapped into IPv6.
    pub remote: SocketAddr,
    /// The local address it was sent to, if the socket tells.
    pub local_ip: Option<IpAddr>,
    /// Its ECN mark, if the socket tells.
    pub ecn: Option<EcnCodepoint>,
}

/// Why a session was not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The name cannot be verified against a certificate.
    #[error("{0:?} is no server name that a certificate could carry")]
    InvalidServerName(String),
    /// The address names no host that could be dialled.
    #[error("{0} is no address to dial")]
    InvalidAddress(SocketAddr),
    /// The endpoint has as many sessions as it may.
    #[error("the endpoint has {limit} sessions, the most it may")]
    TooManySessions {
        /// The limit.
        limit: usize,
    },
    /// Sessions hold as much as they may together, or those to the same network.
    #[error("the endpoint's {limit} bytes of memory are taken by other sessions")]
    MemoryTaken {
        /// [`Limits::endpoint_memory_max`](crate::Limits::endpoint_memory_max), in bytes.
        limit: u64,
    },
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Any number of sessions, dialled and accepted, over one UDP socket. See the [crate documentation](crate) for the loop
/// around it.
pub struct Endpoint {
    config: EndpointConfig,
    clock: Clock,
    wall: WallClock,
    now: Instant,
    entropy: Entropy,
    ids: SeededIds,
    quic: quinn_proto::Endpoint,
    gate: Gate,
    /// Who each connection belongs to.
    owners: BTreeMap<usize, Owner>,
    /// Connections that have not authenticated.
    incoming: BTreeMap<usize, Box<Incoming>>,
    sessions: BTreeMap<SessionHandle, Box<Session>>,
    next_session: u64,
    memory: Memory,
    /// Parts with something to handle, to transmit, to tell; each at most once.
    work: Queue<Key>,
    sending: Queue<Key>,
    eventful: Queue<SessionHandle>,
    /// The session that the application had last, since the last drain.
    borrowed: Option<SessionHandle>,
    timers: Timers<Key>,
    /// Datagrams that belong to no connection.
    responses: VecDeque<(Transmit, Vec<u8>)>,
    log: EventLog,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Incoming,
    Session(SessionHandle, PathId),
}

/// A part of the endpoint that is driven on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Incoming(usize),
    Session(SessionHandle),
}

impl Endpoint {
    /// Stateless answers that may wait; more are dropped, as the network might have done.
    const RESPONSES_MAX: usize = 256;

    /// An endpoint that begins at `now`.
    ///
    /// # Errors
    /// If the limits, or `mtu_max`, cannot work.
    pub fn new(mut config: EndpointConfig, now: Instant) -> Result<Self, ConfigError> {
        config.limits.check()?;
        let limits = &mut config.limits;
        limits.unauthenticated_max = limits.unauthenticated_max.min(Memory::strangers_max(limits.endpoint_memory_max));
        let mut entropy = Entropy::new(&config.rng_seed.take());
        let ids = entropy.connection_ids();
        let mut quic = quinn_proto::EndpointConfig::new(entropy.reset_key());
        let generator = ids.clone();
        quic.rng_seed(Some(*entropy.seed())).cid_generator(move || Box::new(generator.clone()));
        quic.max_udp_payload_size(config.mtu_max)
            .map_err(|_| LimitError { limit: "mtu_max", rule: "must be 1200 to 65527".to_owned() })?;
        let quic = quinn_proto::Endpoint::new(Arc::new(quic), None, true, None);
        Ok(Self {
            clock: Clock::new(now, config.unix_now),
            wall: WallClock::new(config.unix_now),
            now,
            entropy,
            ids,
            quic,
            gate: Gate::new(now, &config.limits),
            owners: BTreeMap::new(),
            incoming: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_session: 0,
            memory: Memory::new(config.limits.endpoint_memory_max),
            work: Queue::new(),
            sending: Queue::new(),
            eventful: Queue::new(),
            borrowed: None,
            timers: Timers::new(),
            responses: VecDeque::new(),
            log: EventLog::new(config.event_detail),
            config,
        })
    }

    // ---- commands

    /// Begins to accept sessions with `config`, or stops with `None`. Sessions that exist go on.
    ///
    /// # Errors
    /// If the limits or the certificate cannot be used; what was there before stays in force.
    pub fn listen(&mut self, config: Option<ServerConfig>) -> Result<(), ConfigError> {
        let listener = match config {
            Some(server) => {
                server.limits.check()?;
                let quic = self.quic_server_config(&server)?;
                Some(Arc::new(Listener { server, quic }))
            }
            None => None,
        };
        self.quic.set_server_config(listener.as_ref().map(|listener| Arc::new(listener.quic.clone())));
        self.gate.listener = listener;
        Ok(())
    }

    /// Begins a session with the server at `server`, whose certificate must be valid for `server_name`
    /// (PROTOCOL.md §3). Streams may be opened at once; what is written leaves right after the handshake.
    ///
    /// # Errors
    /// Nothing was sent then. Whatever goes wrong later arrives as [`SessionEvent::Closed`].
    pub fn connect(
        &mut self,
        now: Instant,
        config: ClientConfig,
        server: SocketAddr,
        server_name: &str,
    ) -> Result<SessionHandle, ConnectError> {
        self.advance(now);
        config.check()?;
        let server = Address::new(server).ok_or(ConnectError::InvalidAddress(server))?;
        let limit = self.config.limits.sessions_max;
        if self.sessions.len() >= limit {
            return Err(ConnectError::TooManySessions { limit });
        }
        let crypto = config::client_crypto(&config.tls, None, &self.wall)?;
        let network = Network::of(SocketAddr::from(server).ip());
        self.settle();
        let memory_taken = ConnectError::MemoryTaken { limit: self.config.limits.endpoint_memory_max };
        let limits = self.afford(network, &config.limits, true).ok_or(memory_taken)?;
        let config = config.limits(limits);
        let setup = PathSetup::new(Side::Client, IdlePolicy::Suspect, config.limits.clone(), self.link());
        let path = self.dial_quic(now, crypto, setup, server, server_name)?;
        let connection = path.handle().0;
        let handle = self.next_session_handle();
        let key = Identity::generate(self.entropy.rng());
        self.sessions.insert(handle, Box::new(Session::dial(now, config, key, server, path)));
        self.enter_session(handle, network);
        self.owners.insert(connection, Owner::Session(handle, PathId::PRIMARY));
        self.work.push(Key::Session(handle));
        Ok(handle)
    }

    /// The wall clock was read again: it is `unix_now` since the Unix epoch. To be told at times, since a wall clock may be
    /// set and a monotonic one may stand still while the machine sleeps. Tickets and certificates are judged by it from
    /// now on (PROTOCOL.md §4); what was judged before stands.
    pub fn handle_wall_clock(&mut self, now: Instant, unix_now: Duration) {
        self.clock = Clock::new(now, unix_now);
        self.advance(now);
    }

    /// A session to look at; `None` once it was released and is gone.
    #[must_use]
    pub fn session(&self, session: SessionHandle) -> Option<&Session> {
        self.sessions.get(&session).map(Box::as_ref)
    }

    /// A session to do something with; `None` once it was released and is gone.
    pub fn session_mut(&mut self, session: SessionHandle) -> Option<SessionMut<'_>> {
        let clock = self.clock;
        self.borrow(session).map(|session| SessionMut::new(session, clock))
    }

    /// The application lets go of a session. If it is open, it is closed with code 0 after what was finished was
    /// delivered. No further event of it comes.
    pub fn release(&mut self, now: Instant, session: SessionHandle) {
        self.advance(now);
        if let Some(machine) = self.sessions.get_mut(&session) {
            machine.release(now);
            self.work.push(Key::Session(session));
        }
    }

    /// Ends a server's session that nobody can take care of; the client is told
    /// [`SERVER_BUSY`](crate::TransportCode::SERVER_BUSY). No further event of it comes.
    pub fn refuse(&mut self, now: Instant, session: SessionHandle) {
        self.advance(now);
        if let Some(machine) = self.sessions.get_mut(&session) {
            machine.refuse(now);
            self.work.push(Key::Session(session));
        }
    }

    /// Stops accepting sessions and closes all there are, as [`SessionMut::close`] does.
    pub fn close_all(&mut self, now: Instant, code: u32, reason: &str) {
        self.advance(now);
        self.quic.set_server_config(None);
        self.gate.listener = None;
        for (handle, machine) in &mut self.sessions {
            machine.close(now, code, reason);
            self.work.push(Key::Session(*handle));
        }
    }

    /// Whether no connection is left, not even one that is closing. To be asked after a full drain.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.quic.open_connections() == 0 && self.owners.is_empty() && self.responses.is_empty()
    }

    // ---- environment in

    /// A datagram arrived. It is copied into memory of its own, so that the little of it that may be kept keeps nothing
    /// else.
    pub fn handle_datagram(&mut self, now: Instant, meta: DatagramMeta, datagram: &[u8]) {
        self.advance(now);
        // What came from no host cannot be answered.
        let Some(remote) = Address::new(meta.remote).map(SocketAddr::from) else { return };
        let local_ip = meta.local_ip.map(|ip| ip.to_canonical());
        let meta = DatagramMeta { remote, local_ip, ecn: meta.ecn };
        let (long, short) = coalesced::split(datagram);
        for packets in [long, short] {
            if !packets.is_empty() {
                self.handle_packets(now, meta, packets);
            }
        }
    }

    fn handle_packets(&mut self, now: Instant, meta: DatagramMeta, packets: &[u8]) {
        let DatagramMeta { remote, local_ip, ecn } = meta;
        let mut response = Vec::new();
        let event = self.quic.handle(now, remote, local_ip, ecn, BytesMut::from(packets), &mut response);
        match event {
            None => {}
            Some(DatagramEvent::Response(transmit)) => self.respond(transmit, response),
            Some(DatagramEvent::NewConnection(incoming)) => self.on_incoming(now, incoming),
            Some(DatagramEvent::ConnectionEvent(ConnectionHandle(connection), event)) => {
                let Some((key, path)) = self.path_of(connection) else { return };
                path.handle_event(now, local_ip, event, packets.len());
                self.work.push(key);
            }
        }
    }

    /// The system or the network says that nothing reaches `remote`, for `reason`: no route leads there, or nobody listens
    /// on the port. Dials to it end with [`UNREACHABLE`](crate::TransportCode::UNREACHABLE) if they heard nothing yet;
    /// since such word can be forged, it harms nothing else. The number of sessions bounds the cost (PROTOCOL.md §8).
    pub fn handle_unreachable(&mut self, now: Instant, remote: SocketAddr, reason: &str) {
        self.advance(now);
        let Some(remote) = Address::new(remote) else { return };
        for (handle, machine) in &mut self.sessions {
            if machine.on_unreachable(now, remote, reason) {
                self.work.push(Key::Session(*handle));
            }
        }
    }

    /// Time passed: at the latest when [`Endpoint::poll_timeout`] said.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        while let Some(key) = self.timers.pop_due(now) {
            match key {
                Key::Incoming(connection) => {
                    if let Some(incoming) = self.incoming.get_mut(&connection) {
                        incoming.path.handle_timeout(now);
                    }
                }
                Key::Session(session) => {
                    if let Some(machine) = self.sessions.get_mut(&session) {
                        machine.paths_mut().for_each(|path| path.handle_timeout(now));
                    }
                }
            }
            self.work.push(key);
        }
    }

    // ---- out; drain in this order

    /// The next datagrams to send: `size` bytes at the start of `buf`, which must be empty, in segments of
    /// `segment_size` for at most `max_datagrams` datagrams.
    pub fn poll_transmit(&mut self, now: Instant, max_datagrams: usize, buf: &mut Vec<u8>) -> Option<Transmit> {
        self.advance(now);
        loop {
            self.run_work();
            if let Some((transmit, bytes)) = self.responses.pop_front() {
                buf.extend_from_slice(&bytes);
                return Some(transmit);
            }
            if let Some(transmit) = self.transmit(now, max_datagrams, buf) {
                return Some(transmit);
            }
            if self.work.is_empty() {
                return None;
            }
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<(SessionHandle, SessionEvent)> {
        while let Some(session) = self.eventful.front() {
            if let Some(event) = self.sessions.get_mut(&session).and_then(|machine| machine.poll_event()) {
                return Some((session, event));
            }
            self.eventful.pop();
        }
        None
    }

    /// What the protocol did, for logs, traces and metrics: as much of it as [`EndpointConfig::event_detail`] says, as of
    /// the last drain. It need not be asked; of more than [`PROTOCOL_EVENTS_MAX`](crate::limits::PROTOCOL_EVENTS_MAX) events
    /// that wait, the last ones are counted only.
    pub fn poll_protocol_event(&mut self) -> Option<ProtocolEvent> {
        self.log.poll()
    }

    /// When to call [`Endpoint::handle_timeout`] at the latest. Not later than the last `now` while anything is queued.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let queued = !self.work.is_empty()
            || self.has_commands()
            || !self.sending.is_empty()
            || !self.eventful.is_empty()
            || !self.responses.is_empty();
        if queued { Some(self.now) } else { self.timers.next() }
    }

    // ---- inside

    /// Gives a session to the application. It gets a turn if something is done with it.
    fn borrow(&mut self, session: SessionHandle) -> Option<&mut Session> {
        self.collect_commands();
        if self.lend(session) {
            self.work.push(Key::Session(session));
        }
        self.borrowed = Some(session);
        self.sessions.get_mut(&session).map(Box::as_mut)
    }

    /// The session that the application had has a turn, if something was done with it.
    fn collect_commands(&mut self) {
        if self.has_commands()
            && let Some(session) = self.borrowed
        {
            self.work.push(Key::Session(session));
        }
        self.borrowed = None;
    }

    fn has_commands(&self) -> bool {
        let borrowed = self.borrowed.and_then(|session| self.sessions.get(&session));
        borrowed.is_some_and(|machine| machine.is_commanded())
    }

    /// The next datagrams of the parts that have some, in turns.
    fn transmit(&mut self, now: Instant, max_datagrams: usize, buf: &mut Vec<u8>) -> Option<Transmit> {
        while let Some(key) = self.sending.pop() {
            let transmit = match key {
                Key::Incoming(connection) => self
                    .incoming
                    .get_mut(&connection)
                    .and_then(|incoming| incoming.path.poll_transmit(now, max_datagrams, buf)),
                Key::Session(session) => {
                    self.sessions.get_mut(&session).and_then(|machine| machine.poll_transmit(now, max_datagrams, buf))
                }
            };
            if transmit.is_some() {
                self.sending.push(key);
                return transmit;
            }
            self.rearm(key);
        }
        None
    }

    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.wall.set(self.clock.at(self.now).wall.since_epoch());
    }

    fn link(&self) -> LinkSettings {
        LinkSettings { mtu_max: self.config.mtu_max, congestion: self.config.congestion }
    }

    fn next_session_handle(&mut self) -> SessionHandle {
        let handle = SessionHandle(self.next_session);
        self.next_session += 1;
        handle
    }

    fn respond(&mut self, transmit: Transmit, mut bytes: Vec<u8>) {
        if self.responses.len() < Self::RESPONSES_MAX {
            bytes.truncate(transmit.size);
            self.responses.push_back((transmit, bytes));
        }
    }

    /// Gives every part that has something to handle one turn.
    fn run_work(&mut self) {
        self.collect_commands();
        for _ in 0..self.work.len() {
            let Some(key) = self.work.pop() else { return };
            match key {
                Key::Incoming(connection) => self.run_incoming(connection),
                Key::Session(session) => self.run_session(session),
            }
        }
    }

    fn run_session(&mut self, handle: SessionHandle) {
        let key = Key::Session(handle);
        let moment = self.clock.at(self.now);
        self.lend(handle);
        let Some(machine) = self.sessions.get_mut(&handle) else { return };
        let mut more = machine.pump(moment);
        if let Some(dial) = machine.poll_dial(moment) {
            let config = machine.client_config();
            let outcome = self.dial_secondary(handle, &dial, config);
            if let Some(machine) = self.sessions.get_mut(&handle) {
                machine.on_dialed(dial.path, outcome);
            }
            more = true;
        }
        more |= self.exchange_quic_events(handle);
        if self.log.detail() > EventDetail::Off
            && let Some(machine) = self.sessions.get_mut(&handle)
        {
            machine.drain_log(handle, &mut self.log);
        }
        self.settle();
        self.feed_next();
        if more {
            self.work.push(key);
        }
        self.sending.push(key);
        self.eventful.push(handle);
    }

    /// Carries events between the QUIC endpoint and the connections of a session. Returns whether a connection got one.
    fn exchange_quic_events(&mut self, handle: SessionHandle) -> bool {
        let Some(machine) = self.sessions.get_mut(&handle) else { return false };
        let mut answered = false;
        for path in machine.paths_mut().filter(|path| path.is_touched()) {
            answered |= exchange(&mut self.quic, &mut self.owners, path);
        }
        machine.reap();
        answered
    }

    /// A part has nothing more to send: it sleeps until its next deadline, or goes for good.
    fn rearm(&mut self, key: Key) {
        let now = self.now;
        let deadline = match key {
            Key::Incoming(connection) => {
                if self.incoming.get(&connection).is_some_and(|incoming| incoming.is_over()) {
                    self.forget_incoming(connection);
                }
                self.incoming.get_mut(&connection).and_then(|incoming| incoming.poll_timeout(now))
            }
            Key::Session(session) => {
                if self.sessions.get(&session).is_some_and(|machine| machine.is_finished()) {
                    self.sessions.remove(&session);
                    self.give_back(key);
                }
                self.sessions.get_mut(&session).and_then(|machine| machine.poll_timeout(now))
            }
        };
        self.timers.set(key, deadline);
    }

    fn path_of(&mut self, connection: usize) -> Option<(Key, &mut Path)> {
        match *self.owners.get(&connection)? {
            Owner::Incoming => {
                let incoming = self.incoming.get_mut(&connection)?;
                Some((Key::Incoming(connection), &mut incoming.path))
            }
            Owner::Session(session, path) => {
                let path = self.sessions.get_mut(&session)?.path_mut(path)?;
                Some((Key::Session(session), path))
            }
        }
    }

    fn dial_secondary(
        &mut self,
        session: SessionHandle,
        dial: &Dial,
        config: Option<ClientConfig>,
    ) -> Result<Path, DeadReason> {
        let unreachable = |detail: String| DeadReason::new(TransportCode::UNREACHABLE, detail);
        let config = config.ok_or_else(|| unreachable("not a client".to_owned()))?;
        self.settle();
        if !self.has_room_for_path(session) {
            return Err(DeadReason::new(TransportCode::PATH_LIMIT, "the endpoint's memory is taken"));
        }
        let crypto = config::client_crypto(&config.tls, Some(config.secondary_trust), &self.wall)
            .map_err(|error| unreachable(error.to_string()))?;
        let setup = PathSetup::new(Side::Client, IdlePolicy::Close, config.limits.clone(), self.link());
        let path = self
            .dial_quic(self.now, crypto, setup, dial.address, &dial.server_name)
            .map_err(|error| unreachable(error.to_string()))?;
        self.owners.insert(path.handle().0, Owner::Session(session, dial.path));
        Ok(path)
    }

    fn dial_quic(
        &mut self,
        now: Instant,
        crypto: Arc<dyn quinn_proto::crypto::ClientConfig>,
        setup: PathSetup,
        server: Address,
        server_name: &str,
    ) -> Result<Path, ConnectError> {
        let mut config = quinn_proto::ClientConfig::new(crypto);
        let ids = self.ids.clone();
        config
            .transport_config(setup.transport())
            .initial_dst_cid_provider(Arc::new(move || ids.initial_destination()));
        let (handle, connection) =
            self.quic.connect(now, config, server.into(), server_name).map_err(|error| match error {
                quinn_proto::ConnectError::InvalidServerName(name) => ConnectError::InvalidServerName(name),
                quinn_proto::ConnectError::InvalidRemoteAddress(address) => ConnectError::InvalidAddress(address),
                quinn_proto::ConnectError::CidsExhausted => {
                    ConnectError::TooManySessions { limit: self.config.limits.sessions_max }
                }
                other => ConnectError::Config(ConfigError::Tls(other.to_string())),
            })?;
        Ok(Path::new(setup, handle, connection, now))
    }
}

#[cfg(test)]
impl Endpoint {
    /// The machine behind a session, for inputs no honest peer sends.
    pub(crate) fn machine_mut(&mut self, session: SessionHandle) -> Option<&mut Session> {
        self.work.push(Key::Session(session));
        self.sessions.get_mut(&session).map(Box::as_mut)
    }

    pub(crate) fn moment(&self, now: Instant) -> crate::session::Moment {
        self.clock.at(now)
    }
}

/// Carries events between QUIC's endpoint and one connection.
fn exchange(quic: &mut quinn_proto::Endpoint, owners: &mut BTreeMap<usize, Owner>, path: &mut Path) -> bool {
    let mut answered = false;
    let handle = path.handle();
    while let Some(event) = path.poll_endpoint_event() {
        if event.is_drained() {
            owners.remove(&handle.0);
        }
        if let Some(answer) = quic.handle_event(handle, event) {
            path.handle_endpoint_answer(answer);
            answered = true;
        }
    }
    answered
}

/// A queue that holds each key at most once.
struct Queue<K> {
    order: VecDeque<K>,
    members: BTreeSet<K>,
}

impl<K: Copy + Ord> Queue<K> {
    fn new() -> Self {
        Self { order: VecDeque::new(), members: BTreeSet::new() }
    }

    fn push(&mut self, key: K) {
        if self.members.insert(key) {
            self.order.push_back(key);
        }
    }

    fn front(&self) -> Option<K> {
        self.order.front().copied()
    }

    fn pop(&mut self) -> Option<K> {
        let key = self.order.pop_front()?;
        self.members.remove(&key);
        Some(key)
    }

    fn len(&self) -> usize {
        self.order.len()
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}
