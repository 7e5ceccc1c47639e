//! The one public machine: QUIC's endpoint, the connections that have not authenticated, and the sessions.

mod admission;
mod coalesced;
mod dial;
mod incoming;
mod memory;
mod routing;
mod seeded;
mod timer;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::{ConnectionHandle, DatagramEvent, EcnCodepoint, Transmit};
use rand::RngCore;
use rustc_hash::FxHashSet;

use self::admission::{Admission, ListenConfig};
pub use self::dial::ConnectError;
use self::incoming::Incoming;
pub use self::memory::EndpointStats;
use self::memory::Memory;
pub use self::routing::Routing;
use self::seeded::{Entropy, SeededIds};
use self::timer::Timers;
use self::workers::Part;
use crate::address::Address;
use crate::config::{ConfigError, EndpointConfig, MtuBounds, ServerConfig, WallClock};
use crate::id::{PathId, SessionHandle};
use crate::path::{Path, PathSettings};
use crate::protocol_event::{EventDetail, EventLog, ProtocolEvent};
use crate::session::{Clock, Role, Session, SessionEvent, SessionMut};

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
    admission: Admission,
    /// Of the tokens that prove an address. All workers have it in common, and it stays when the configuration changes, so that
    /// clients on their way are not turned away.
    token_key: Option<Arc<ring::hkdf::Prk>>,
    /// Who each connection belongs to.
    owners: BTreeMap<usize, Owner>,
    /// Connections that have not authenticated.
    incoming: BTreeMap<usize, Box<Incoming>>,
    sessions: BTreeMap<SessionHandle, Box<Session>>,
    next_session: u64,
    /// Between two handles, so that no two workers give one.
    handle_step: u64,
    /// Sessions with a dial that may have heard nothing yet.
    dialling: BTreeSet<SessionHandle>,
    memory: Memory,
    /// Parts with something to handle, to transmit, to report; each at most once.
    work: Queue<Key>,
    sending: Queue<Key>,
    eventful: Queue<SessionHandle>,
    /// The session that the application had last, since the last drain.
    borrowed: Option<SessionHandle>,
    timers: Timers<Key>,
    /// Datagrams that belong to no connection.
    responses: VecDeque<(Transmit, Vec<u8>)>,
    log: EventLog,
    /// Turns that parts had.
    turns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Incoming,
    Session(SessionHandle, PathId),
}

/// A part of the endpoint that is driven on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// If the limits, or the settings of QUIC, cannot work.
    pub fn new(mut config: EndpointConfig, now: Instant) -> Result<Self, ConfigError> {
        let part = Part::alone(&mut config, now)?;
        Self::with_part(config, now, part)
    }

    fn with_part(config: EndpointConfig, now: Instant, part: Part) -> Result<Self, ConfigError> {
        let Part { mut entropy, index, common } = part;
        let ids = entropy.connection_ids(common.secrets.as_ref().map(|secrets| (secrets.routing, index)));
        let reset_key = common.secrets.as_ref().map(|secrets| Arc::clone(&secrets.reset_key));
        let mut quic = quinn_proto::EndpointConfig::new(reset_key.unwrap_or_else(|| entropy.reset_key()));
        let generator = ids.clone();
        quic.rng_seed(Some(*entropy.seed())).cid_generator(move || Box::new(generator.clone()));
        quic.max_udp_payload_size(config.transport.mtu_receivable())
            .map_err(|error| ConfigError::Field { field: "mtu_max", rule: error.to_string() })?;
        let quic = quinn_proto::Endpoint::new(Arc::new(quic), None, true, None);
        Ok(Self {
            clock: Clock::new(now, config.unix_now),
            wall: WallClock::new(config.unix_now),
            now,
            entropy,
            ids,
            quic,
            admission: Admission::new(common.entrance, index),
            token_key: common.secrets.map(|secrets| secrets.token_key),
            owners: BTreeMap::new(),
            incoming: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_session: index.into(),
            handle_step: common.workers.into(),
            dialling: BTreeSet::new(),
            memory: Memory::new(common.pool),
            work: Queue::new(),
            sending: Queue::new(),
            eventful: Queue::new(),
            borrowed: None,
            timers: Timers::new(now, config.timer_slack),
            responses: VecDeque::new(),
            log: EventLog::new(config.event_detail),
            turns: 0,
            config,
        })
    }

    // ---- commands

    /// Begins to accept sessions with `config`, or stops with `None`. Another `config` takes the place of the one in force: who
    /// begins a handshake from now on sees its certificate, and who authenticates its identity, trust and authorizer.
    /// Sessions that exist go on as they began. With another identity, tickets that name the old one are refused as
    /// [`AUTH_FAILED`](crate::TransportCode::AUTH_FAILED): primaries must be told.
    ///
    /// # Errors
    /// If the limits or the certificate cannot be used; what was there before stays in force.
    pub fn listen(&mut self, config: Option<ServerConfig>) -> Result<(), ConfigError> {
        let listener = match config {
            Some(server) => {
                server.limits.check()?;
                let quic = self.quic_server_config(&server)?;
                Some(Arc::new(ListenConfig { server, quic }))
            }
            None => None,
        };
        self.quic.set_server_config(listener.as_ref().map(|listener| Arc::new(listener.quic.clone())));
        self.admission.listener = listener;
        Ok(())
    }

    /// The wall clock was read again: it is `unix_now` since the Unix epoch. To be called at times, since a wall clock
    /// may be set and a monotonic one may stand still while the machine sleeps. Tickets and certificates are judged by
    /// it from now on (PROTOCOL.md §4); what was judged before stands.
    pub fn handle_wall_clock(&mut self, now: Instant, unix_now: Duration) {
        self.clock = Clock::new(now, unix_now);
        self.advance(now);
    }

    /// A session to look at; `None` once it was released and is gone.
    #[must_use]
    pub fn session(&self, handle: SessionHandle) -> Option<&Session> {
        self.sessions.get(&handle).map(Box::as_ref)
    }

    /// A session to do something with; `None` once it was released and is gone.
    pub fn session_mut(&mut self, handle: SessionHandle) -> Option<SessionMut<'_>> {
        let clock = self.clock;
        self.borrow(handle).map(|session| SessionMut::new(session, clock))
    }

    /// The application lets go of a session. If it is open, it is closed with code 0 after what was finished was
    /// delivered. No further event of it comes.
    pub fn release(&mut self, now: Instant, handle: SessionHandle) {
        self.advance(now);
        if let Some(session) = self.sessions.get_mut(&handle) {
            session.release(now);
            self.work.push(Key::Session(handle));
        }
    }

    /// Ends a server's session that nobody can take care of; the client is told
    /// [`SERVER_BUSY`](crate::TransportCode::SERVER_BUSY). No further event of it comes.
    pub fn refuse(&mut self, now: Instant, handle: SessionHandle) {
        self.advance(now);
        if let Some(session) = self.sessions.get_mut(&handle) {
            session.refuse(now);
            self.work.push(Key::Session(handle));
        }
    }

    /// Stops accepting sessions and closes all there are, as [`SessionMut::close`] does.
    pub fn close_all(&mut self, now: Instant, code: u32, reason: &str) {
        self.advance(now);
        self.quic.set_server_config(None);
        self.admission.listener = None;
        for (handle, session) in &mut self.sessions {
            session.close(now, code, reason);
            self.work.push(Key::Session(*handle));
        }
    }

    /// Whether no connection is left, not even one that is closing. To be asked after a full drain.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.quic.open_connections() == 0 && self.owners.is_empty() && self.responses.is_empty()
    }

    // ---- environment in

    /// A datagram arrived. What it brings is there at once: events tell of it, and it can be read. It is copied into
    /// memory of its own, so that the little of it that may be kept keeps nothing else.
    pub fn handle_datagram(&mut self, now: Instant, meta: DatagramMeta, datagram: &[u8]) {
        self.handle_datagrams(now, [(meta, datagram)]);
    }

    /// Several datagrams arrived at once. As [`Self::handle_datagram`] for each, but cheaper: each session has one turn. A
    /// turn takes the first 512 frames of a path; the rest comes with the next call, which is due at once.
    pub fn handle_datagrams<'a>(
        &mut self,
        now: Instant,
        datagrams: impl IntoIterator<Item = (DatagramMeta, &'a [u8])>,
    ) {
        self.advance(now);
        for (meta, datagram) in datagrams {
            self.accept_datagram(now, meta, datagram);
        }
        self.run_work();
    }

    fn accept_datagram(&mut self, now: Instant, meta: DatagramMeta, datagram: &[u8]) {
        // What came from no host cannot be answered.
        let Some(remote) = Address::new(meta.remote).map(SocketAddr::from) else { return };
        let local_ip = meta.local_ip.map(|ip| ip.to_canonical());
        let meta = DatagramMeta { remote, local_ip, ecn: meta.ecn };
        // Each in memory of its own, so that stream data keeps no other packet in memory: see `coalesced`.
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

    /// The system or the network says that nothing reaches `remote`, for `reason`: no route leads there, or nobody
    /// listens on the port. Dials to it end with [`UNREACHABLE`](crate::TransportCode::UNREACHABLE) if they heard
    /// nothing yet; since such word can be forged, it harms nothing else (PROTOCOL.md §8). Only sessions that began a dial
    /// since this was called last, or still dial, are looked at.
    pub fn handle_unreachable(&mut self, now: Instant, remote: SocketAddr, reason: &str) {
        self.advance(now);
        let Some(remote) = Address::new(remote) else { return };
        self.dialling.retain(|handle| {
            let Some(session) = self.sessions.get_mut(handle) else { return false };
            if session.on_unreachable(now, remote, reason) {
                self.work.push(Key::Session(*handle));
            }
            session.has_unheard_dial()
        });
        self.run_work();
    }

    /// The socket was bound anew: what is sent leaves from another address. Servers that this end dialled are told at once,
    /// and their sessions go on (RFC 9000 §9). Clients do not follow: their sessions go on only if this end can be reached
    /// where it was. Neither do handshakes, which have to be begun anew.
    pub fn handle_rebind(&mut self, now: Instant) {
        self.advance(now);
        for (handle, session) in self.sessions.iter_mut().filter(|(_, session)| session.role() == Role::Client) {
            session.paths_mut().for_each(Path::on_rebind);
            self.work.push(Key::Session(*handle));
        }
        self.run_work();
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
                Key::Session(handle) => {
                    if let Some(session) = self.sessions.get_mut(&handle) {
                        session.paths_mut().for_each(|path| path.handle_timeout(now));
                    }
                }
            }
            self.work.push(key);
        }
        self.run_work();
    }

    // ---- out; drain in this order

    /// The next datagrams to send, with what commands left to be sent: `size` bytes at the start of `buf`, which must
    /// be empty, in segments of `segment_size` for at most `max_datagrams` datagrams.
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
            // A turn may leave work behind. Only when none is left, nothing can become ready to be sent.
            if self.work.is_empty() {
                return None;
            }
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<(SessionHandle, SessionEvent)> {
        while let Some(handle) = self.eventful.front() {
            if let Some(event) = self.sessions.get_mut(&handle).and_then(|session| session.poll_event()) {
                return Some((handle, event));
            }
            self.eventful.pop();
        }
        None
    }

    /// What the protocol did, for logs, traces and metrics: as much of it as [`EndpointConfig::event_detail`] says, as
    /// of the last drain. It need not be asked; of more than
    /// [`PROTOCOL_EVENTS_MAX`](crate::limits::PROTOCOL_EVENTS_MAX) events that wait, the last ones are counted only.
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
    fn borrow(&mut self, handle: SessionHandle) -> Option<&mut Session> {
        if self.borrowed == Some(handle) && self.is_lent_to(handle) {
            return self.sessions.get_mut(&handle).map(Box::as_mut);
        }
        self.collect_commands();
        // The room that is lent woke a writer, and events are reported after a turn.
        if self.lend(handle) {
            self.work.push(Key::Session(handle));
        }
        self.borrowed = Some(handle);
        self.sessions.get_mut(&handle).map(Box::as_mut)
    }

    /// The session that the application had has a turn, if something was done with it.
    fn collect_commands(&mut self) {
        if self.has_commands()
            && let Some(handle) = self.borrowed
        {
            self.work.push(Key::Session(handle));
        }
        self.borrowed = None;
    }

    fn has_commands(&self) -> bool {
        let borrowed = self.borrowed.and_then(|handle| self.sessions.get(&handle));
        borrowed.is_some_and(|session| session.is_commanded())
    }

    /// The next datagrams of the parts that have some, in turns.
    fn transmit(&mut self, now: Instant, max_datagrams: usize, buf: &mut Vec<u8>) -> Option<Transmit> {
        while let Some(key) = self.sending.pop() {
            let transmit = match key {
                Key::Incoming(connection) => self
                    .incoming
                    .get_mut(&connection)
                    .and_then(|incoming| incoming.path.poll_transmit(now, max_datagrams, buf)),
                Key::Session(handle) => {
                    self.sessions.get_mut(&handle).and_then(|session| session.poll_transmit(now, max_datagrams, buf))
                }
            };
            if transmit.is_some() {
                // Behind the others, so that parts take turns.
                self.sending.push(key);
                return transmit;
            }
            self.rearm(key);
        }
        None
    }

    fn advance(&mut self, now: Instant) {
        // Time never goes back here, whatever the caller says.
        self.now = self.now.max(now);
        self.wall.set(self.clock.at(self.now).wall.since_epoch());
    }

    /// For a connection with `remote`.
    fn path_settings(&mut self, remote: SocketAddr) -> PathSettings {
        let EndpointConfig { transport, event_detail, .. } = self.config;
        let interface = self.config.mtu_towards.as_ref().and_then(|towards| towards.ask(remote));
        PathSettings {
            transport,
            seed: self.entropy.rng().next_u64(),
            mtu: MtuBounds::new(&transport, interface),
            timer_slack: self.timers.slack(),
            event_detail,
        }
    }

    fn next_session_handle(&mut self) -> SessionHandle {
        let handle = SessionHandle(self.next_session);
        self.next_session += self.handle_step;
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
        self.heed_notices();
        // What this round adds waits for the next one, so that no part keeps the others waiting.
        for _ in 0..self.work.len() {
            let Some(key) = self.work.pop() else { return };
            self.turns += 1;
            match key {
                Key::Incoming(connection) => self.run_incoming(connection),
                Key::Session(handle) => self.run_session(handle),
            }
        }
    }

    fn run_session(&mut self, handle: SessionHandle) {
        let key = Key::Session(handle);
        let moment = self.clock.at(self.now);
        self.lend(handle);
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        let mut more = session.pump(moment);
        // One dial in a turn. The next turn handles what this one brought, and dials again.
        if let Some(dial) = session.poll_dial() {
            let config = session.client_config();
            let outcome = self.dial_secondary(handle, &dial, config);
            if let Some(session) = self.sessions.get_mut(&handle) {
                session.on_dialed(moment.now, dial.path, outcome);
            }
            more = true;
        }
        more |= self.exchange_quic_events(handle);
        if self.log.detail() > EventDetail::Off
            && let Some(session) = self.sessions.get_mut(&handle)
        {
            session.drain_log(handle, &mut self.log);
        }
        self.settle();
        self.feed_next();
        if more {
            self.work.push(key);
        }
        self.sending.push(key);
        self.eventful.push(handle);
    }

    /// Exchanges events between the QUIC endpoint and the connections of a session. Returns whether a connection got
    /// one.
    fn exchange_quic_events(&mut self, handle: SessionHandle) -> bool {
        let Some(session) = self.sessions.get_mut(&handle) else { return false };
        let mut answered = false;
        for path in session.paths_mut().filter(|path| path.is_touched()) {
            answered |= exchange(&mut self.quic, &mut self.owners, path);
        }
        // Only now does QUIC's endpoint know which connections are drained.
        session.reap();
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
                self.incoming.get_mut(&connection).and_then(|incoming| incoming.path.poll_timeout(now))
            }
            Key::Session(handle) => {
                if self.sessions.get(&handle).is_some_and(|session| session.is_finished()) {
                    self.sessions.remove(&handle);
                    self.dialling.remove(&handle);
                    self.give_back(key);
                }
                self.sessions.get_mut(&handle).and_then(|session| session.poll_timeout(now))
            }
        };
        self.timers.set_coarse(key, deadline, now);
    }

    fn path_of(&mut self, connection: usize) -> Option<(Key, &mut Path)> {
        match *self.owners.get(&connection)? {
            Owner::Incoming => {
                let incoming = self.incoming.get_mut(&connection)?;
                Some((Key::Incoming(connection), &mut incoming.path))
            }
            Owner::Session(handle, path) => {
                let path = self.sessions.get_mut(&handle)?.path_mut(path)?;
                Some((Key::Session(handle), path))
            }
        }
    }
}

#[cfg(test)]
impl Endpoint {
    /// A session, for inputs no honest peer sends.
    pub(crate) fn inner_mut(&mut self, handle: SessionHandle) -> Option<&mut Session> {
        self.work.push(Key::Session(handle));
        self.sessions.get_mut(&handle).map(Box::as_mut)
    }

    pub(crate) fn dialling(&self) -> usize {
        self.dialling.len()
    }

    pub(crate) fn moment(&self, now: Instant) -> crate::session::Moment {
        self.clock.at(now)
    }
}

/// Exchanges events between QUIC's endpoint and one connection.
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
    members: FxHashSet<K>,
}

impl<K: Copy + Eq + Hash> Queue<K> {
    fn new() -> Self {
        Self { order: VecDeque::new(), members: FxHashSet::default() }
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
