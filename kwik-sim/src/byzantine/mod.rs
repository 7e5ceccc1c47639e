//! Dishonest nodes: they complete the handshake, authenticate as they should or not, and then say what they like.
//!
//! A [`Byzantine`] node plays one [`PeerRole`] with one [`Behaviour`], after it has been honest for as long as the behaviour
//! wants. What it draws follows from its seed. What an honest peer must make of it is the behaviour's [`Cost`].

mod behaviour;
mod client;
mod common;
mod flood;
mod joiner;
mod mutate;
mod pair;
mod peer;
mod primary;
pub(crate) mod quic;
mod scripted;
mod secondary;
mod streams;
mod table;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kwik_core::__test_exports::{
    AddPath, Frame, Item, MaxStreams, OpenStream, PathStatus, Ticket, Welcome, WirePathState, welcome_proof,
};
use kwik_core::{
    Dir, Epoch, ErrorCode, Identity, PathId, PathTarget, PublicIdentity, SessionId, Side, StreamId, StreamOffset,
    TransportCode, UnixTime,
};
use quinn_proto::crypto;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

pub use self::behaviour::{Behaviour, Cost, PeerRole, When};
pub use self::flood::{Dialer, Flood};
pub use self::pair::Pair;
use self::peer::{PairGrants, PeerContext, PeerKnowledge, PeerState, Script, params};
use self::quic::{Heard, QuicEndpoint, SeededIds};
use crate::clock::VirtualClock;
use crate::fleet::Fleet;
use crate::raw_node::RawNode;
use crate::world::World;

/// What a dishonest node did and met; shared with whoever asked for it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Whether it came to misbehave.
    pub has_acted: bool,
    /// Frames and other pieces it sent then.
    pub said: u64,
    /// Its connections that ended, by role, with the code the peer gave, if the peer closed them.
    pub closed: Vec<(PeerRole, Option<ErrorCode>)>,
}

/// A dishonest node.
pub struct Byzantine {
    quic: QuicEndpoint,
    rng: StdRng,
    behaviour: Behaviour,
    /// A server's identity, or a client's key.
    key: Identity,
    content: fn(u64) -> u8,
    script: Script,
    client: Option<ClientSetup>,
    /// An honest server that a dishonest primary adds to the session.
    partner: Option<PathTarget>,
    start: Instant,
    unix_at_start: Duration,
    states: BTreeMap<usize, PeerState>,
    knowledge: PeerKnowledge,
    pair_grants: PairGrants,
    /// Secondaries to join, and when.
    dials: Vec<(Instant, AddPath)>,
    next_act: Option<Instant>,
    timeout: Option<Instant>,
    report: Rc<RefCell<Report>>,
}

struct ClientSetup {
    crypto: Arc<dyn crypto::ClientConfig>,
    server: SocketAddr,
    name: String,
}

impl Byzantine {
    /// The time between two acts.
    const ACT_EVERY: Duration = Duration::from_millis(5);
    /// When a ticket is good no more, the difference of clocks included.
    const TICKET_STALE_AFTER: Duration = Duration::from_secs(95);

    /// A server with the identity of this number: a primary or a secondary, as the behaviour wants.
    #[must_use]
    pub fn server(fleet: &Fleet, number: u8, seed: u64, behaviour: Behaviour) -> Self {
        let Fleet { world, pki, .. } = fleet;
        Self::new(world, pki.identity(number), seed, behaviour, Some(pki.quic_server(number)))
    }

    /// A client of the primary.
    #[must_use]
    pub fn client(fleet: &Fleet, seed: u64, behaviour: Behaviour) -> Self {
        let (Fleet { world, pki, .. }, server) = (fleet, fleet.server_address(0));
        let mut key = [0; 32];
        StdRng::seed_from_u64(seed ^ 0xc11e).fill_bytes(&mut key);
        let mut node = Self::new(world, Identity::from_seed(key), seed, behaviour, None);
        node.client = Some(ClientSetup { crypto: pki.quic_client(), server, name: pki.name().to_owned() });
        node.rearm(node.start);
        node
    }

    /// The bytes it writes where it writes what it should: by stream offset.
    #[must_use]
    pub fn content(mut self, content: fn(u64) -> u8) -> Self {
        self.content = content;
        self
    }

    /// What it says, if its behaviour is [`Behaviour::scripted`].
    #[must_use]
    pub fn script(mut self, script: &[u8]) -> Self {
        self.script = Script::new(script);
        self
    }

    /// The honest server that a primary adds to its sessions, as path 1.
    #[must_use]
    pub fn partner(mut self, partner: PathTarget) -> Self {
        self.partner = Some(partner);
        self
    }

    /// Another one of a pair: each of them knows what the other does.
    #[must_use]
    pub fn together_with(mut self, other: &Self) -> Self {
        self.pair_grants = other.pair_grants.clone();
        self
    }

    /// What it does and meets, as it happens.
    #[must_use]
    pub fn report(&self) -> Rc<RefCell<Report>> {
        self.report.clone()
    }

    fn new(
        world: &World,
        key: Identity,
        seed: u64,
        behaviour: Behaviour,
        server: Option<Arc<dyn crypto::ServerConfig>>,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let ids = SeededIds::new(&mut rng);
        Self {
            quic: QuicEndpoint::new(&mut rng, ids, server),
            rng,
            behaviour,
            key,
            content: |_| 0,
            script: Script::default(),
            client: None,
            partner: None,
            start: world.now(),
            unix_at_start: VirtualClock::UNIX_AT_START + world.elapsed(),
            states: BTreeMap::new(),
            knowledge: PeerKnowledge::default(),
            pair_grants: PairGrants::default(),
            dials: Vec::new(),
            next_act: None,
            timeout: None,
            report: Rc::default(),
        }
    }

    /// Hears all there is to hear, acts if it is time, and notes when to come back.
    fn pump(&mut self, now: Instant) {
        if self.client.is_some() && self.states.is_empty() {
            self.dial_primary(now);
        }
        for number in self.quic.connections() {
            while let Some(heard) = self.quic.connection(number).and_then(quic::PeerConnection::poll) {
                self.on_heard(now, number, heard);
            }
        }
        self.dial_secondaries(now);
        self.act(now);
        for number in self.quic.connections() {
            if let Some(connection) = self.quic.connection(number) {
                connection.flush();
            }
        }
        self.quic.exchange();
        self.rearm(now);
    }

    fn rearm(&mut self, now: Instant) {
        let dial = self.dials.iter().map(|(at, _)| *at).min();
        let first = (self.client.is_some() && self.states.is_empty()).then_some(now);
        let next = [self.quic.poll_timeout(), self.next_act, dial, first].into_iter().flatten().min();
        self.timeout = next.map(|at| at.max(now + Duration::from_micros(1)));
    }

    fn dial_primary(&mut self, now: Instant) {
        let Some(setup) = &self.client else { return };
        if let Some(number) = self.quic.dial(now, setup.crypto.clone(), setup.server, &setup.name) {
            self.states.insert(number, PeerState::new(PeerRole::Client, PathId::PRIMARY));
        }
    }

    fn dial_secondaries(&mut self, now: Instant) {
        let Some(setup) = &self.client else { return };
        let (due, later) = std::mem::take(&mut self.dials).into_iter().partition(|(at, _)| *at <= now);
        self.dials = later;
        let due: Vec<(Instant, AddPath)> = due;
        for (_, add) in due {
            if let Some(number) = self.quic.dial(now, setup.crypto.clone(), add.address, &add.server_name) {
                self.states.insert(number, PeerState::new(PeerRole::Joiner, add.path));
            }
        }
    }

    // ---- what it hears

    fn on_heard(&mut self, now: Instant, number: usize, heard: Heard) {
        match heard {
            Heard::Connected => self.on_connected(now, number),
            Heard::Frame(frame) => self.on_frame(now, number, frame),
            Heard::Item(item) => self.on_item(now, number, item),
            Heard::Closed(code) => {
                if let Some(state) = self.states.get_mut(&number) {
                    state.is_over = true;
                    self.report.borrow_mut().closed.push((state.role, code));
                }
            }
        }
    }

    fn on_connected(&mut self, now: Instant, number: usize) {
        let Some(exporter) = self.quic.connection(number).map(|connection| connection.exporter()) else { return };
        let Some(state) = self.states.get_mut(&number) else { return };
        state.exporter = exporter;
        if self.opens_dishonestly(number) {
            return;
        }
        self.on_peer(now, number, 0, |peer| match peer.state.role {
            PeerRole::Client => {
                let hello = client::plain_hello(peer);
                peer.say(hello);
            }
            PeerRole::Joiner => {
                if let Some(join) = peer.join() {
                    peer.say(join);
                }
            }
            PeerRole::Primary | PeerRole::Secondary => {}
        });
    }

    /// Begins to misbehave on a connection before anything honest was said.
    fn opens_dishonestly(&mut self, number: usize) -> bool {
        let behaviour = self.behaviour;
        let welcomed_before = self.states.values().any(|state| state.role == behaviour.role && state.is_welcomed);
        let Some(state) = self.states.get_mut(&number).filter(|state| state.role == behaviour.role) else {
            return false;
        };
        let opens = match behaviour.when {
            When::First | When::Late => true,
            When::Again => welcomed_before,
            _ => false,
        };
        if opens {
            state.ticks = Some(0);
        }
        opens
    }

    fn on_frame(&mut self, now: Instant, number: usize, frame: Frame) {
        match frame {
            Frame::Hello(hello) if !self.states.contains_key(&number) => {
                let mut session = [0; 16];
                self.rng.fill_bytes(&mut session);
                let ids = (SessionId(session), PathId::PRIMARY);
                self.welcome(now, number, PeerRole::Primary, ids, hello.client_key);
            }
            Frame::Join(join) if !self.states.contains_key(&number) => {
                let Some(ticket) = Ticket::decode(&join.ticket) else { return };
                let ids = (ticket.session, ticket.path);
                self.welcome(now, number, PeerRole::Secondary, ids, *ticket.client_key.as_bytes());
            }
            Frame::Welcome(welcome) => self.on_welcome(now, number, &welcome),
            Frame::AddPath(add) => {
                let late = if self.behaviour.when == When::Late { Self::TICKET_STALE_AFTER } else { Duration::ZERO };
                self.dials.push((now + late, add.clone()));
                self.knowledge.added.push(add);
            }
            Frame::Grant(grant) => {
                self.knowledge.granted.push(grant);
                self.forward_grants(now);
            }
            frame => {
                if let Some(state) = self.states.get_mut(&number) {
                    note(state, &frame);
                }
            }
        }
    }

    /// Answers a client's first frame, in its own way.
    fn welcome(
        &mut self,
        now: Instant,
        number: usize,
        role: PeerRole,
        (session, path): (SessionId, PathId),
        client_key: [u8; 32],
    ) {
        let Some(exporter) = self.quic.connection(number).map(|connection| connection.exporter()) else { return };
        let mut state = PeerState::new(role, path);
        (state.exporter, state.session) = (exporter, Some(session));
        state.client_key = PublicIdentity::from_bytes(&client_key).ok();
        self.states.insert(number, state);
        if self.opens_dishonestly(number) {
            return;
        }
        let partner = self.partner.clone();
        self.on_peer(now, number, 0, |peer| {
            let Some(client) = peer.state.client_key else { return };
            let (session, path) = (peer.session(), peer.state.path);
            let signature = welcome_proof(peer.key, &peer.state.exporter, session, path, &client);
            let identity = *peer.key.public().as_bytes();
            peer.say(Welcome { session, path, params: params(), identity, signature });
            peer.state.is_welcomed = true;
            peer.state.streams_uni = 128;
            let Some(partner) = partner.filter(|_| role == PeerRole::Primary) else { return };
            let PathTarget { address, server_name, identity: secondary } = partner;
            let path = PathId(1);
            let Some(ticket) = peer.ticket(path, secondary, &server_name) else { return };
            let identity = *secondary.as_bytes();
            let added = AddPath { path, epoch: Epoch(1), address, server_name, identity, ticket };
            peer.state.partner = Some(added.clone());
            peer.say(added);
        });
    }

    fn on_welcome(&mut self, now: Instant, number: usize, welcome: &Welcome) {
        self.knowledge.session.get_or_insert(welcome.session);
        let streams = welcome.params.streams_uni;
        self.on_peer(now, number, 0, |peer| {
            peer.state.is_welcomed = true;
            peer.state.streams_uni = streams;
            if peer.state.role == PeerRole::Client {
                let stream = peer.own_stream(Dir::Bi, 0);
                peer.say(OpenStream { stream, priority: 0, limit: StreamOffset(1 << 20) });
                peer.state.stream = Some(stream);
            }
        });
        self.forward_grants(now);
        let Some(path) =
            self.states.get(&number).filter(|state| state.role == PeerRole::Joiner).map(|state| state.path)
        else {
            return;
        };
        if self.behaviour.when == When::Again && self.behaviour.role == PeerRole::Joiner {
            let again = self.knowledge.added.iter().find(|add| add.path == path).cloned();
            self.dials.extend(again.map(|add| (now, add)));
        }
        let home = self.states.iter().find(|(_, state)| state.role == PeerRole::Client).map(|(number, _)| *number);
        if let Some(home) = home {
            let (state, code) = (WirePathState::Active, TransportCode::NO_ERROR.into());
            let (rtt, rtt_min) = (Duration::ZERO, Duration::ZERO);
            let status = PathStatus { path, state, code, rtt, rtt_min, rate: 0, bytes: 0 };
            self.on_peer(now, home, 0, |peer| peer.say(status));
        }
    }

    /// An honest client carries grants to the servers they are for.
    fn forward_grants(&mut self, now: Instant) {
        let dishonest = self.behaviour.role == PeerRole::Joiner && self.behaviour.when == When::Granted;
        if self.client.is_none() || dishonest {
            return;
        }
        let joiners: Vec<usize> = self
            .states
            .iter()
            .filter(|(_, state)| state.role == PeerRole::Joiner && state.is_welcomed && state.next_packet == 0)
            .map(|(number, _)| *number)
            .collect();
        for number in joiners {
            self.on_peer(now, number, 0, |peer| {
                joiner::grant(peer, |_| ());
            });
        }
    }

    fn on_item(&mut self, now: Instant, number: usize, item: Item) {
        let Some(state) = self.states.get_mut(&number) else { return };
        match item {
            Item::Grant(grant) => state.grants.push(grant),
            Item::Stream { stream, .. } => {
                if state.role == PeerRole::Primary && stream == StreamId::new(Side::Client, Dir::Bi, 0) {
                    state.stream = Some(stream);
                }
            }
            Item::Raw(raw) => state.raw.push((raw.from, raw.signed.sequence)),
            Item::PacketEnd(_) => {
                state.packets += 1;
                self.on_peer(now, number, 0, |peer| peer.acknowledge());
            }
        }
    }

    // ---- what it does

    fn act(&mut self, now: Instant) {
        if self.next_act.is_some_and(|at| now < at) && !self.is_waiting() {
            return;
        }
        let is_due = self.next_act.is_none_or(|at| now >= at);
        let behaviour = self.behaviour;
        let mut goes_on = false;
        for number in self.states.keys().copied().collect::<Vec<_>>() {
            let has_grant = !self.knowledge.granted.is_empty();
            let Some(state) = self.states.get_mut(&number) else { continue };
            if state.role != behaviour.role || state.is_over {
                continue;
            }
            let has_begun = state.ticks.is_some();
            if !has_begun && is_ready(behaviour.when, state, has_grant) {
                state.ticks = Some(0);
            }
            if let Some(session) = state.session.filter(|_| state.is_welcomed) {
                self.pair_grants.borrow_mut().insert((session, state.path), state.grants.clone());
            }
            let Some(tick) = state.ticks.filter(|tick| *tick != u32::MAX) else { continue };
            if has_begun && !is_due {
                goes_on = true;
                continue;
            }
            let blocked = self.quic.connection(number).is_none_or(|connection| connection.is_blocked());
            if blocked {
                goes_on = true;
                continue;
            }
            self.report.borrow_mut().has_acted = true;
            let again = self.on_peer(now, number, tick, behaviour.act).unwrap_or(false);
            if let Some(state) = self.states.get_mut(&number) {
                state.ticks = Some(if again { tick.saturating_add(1) } else { u32::MAX });
            }
            goes_on |= again;
        }
        if is_due || !goes_on {
            self.next_act = goes_on.then(|| now + Self::ACT_EVERY);
        }
    }

    /// Whether some connection has not come to the moment at which it begins.
    fn is_waiting(&self) -> bool {
        self.states.values().any(|state| state.role == self.behaviour.role && state.ticks.is_none() && !state.is_over)
    }

    /// Lets `act` speak on one connection.
    fn on_peer<T>(
        &mut self,
        now: Instant,
        number: usize,
        tick: u32,
        act: impl FnOnce(&mut PeerContext<'_>) -> T,
    ) -> Option<T> {
        let connection = self.quic.connection(number)?;
        let state = self.states.get_mut(&number)?;
        let wall = UnixTime::new(self.unix_at_start + now.saturating_duration_since(self.start));
        let mut said = 0;
        let result = act(&mut PeerContext {
            now,
            wall,
            connection,
            state,
            knowledge: &self.knowledge,
            rng: &mut self.rng,
            key: &self.key,
            content: self.content,
            script: &mut self.script,
            pair_grants: &self.pair_grants,
            tick,
            said: &mut said,
        });
        if state.ticks.is_some() {
            self.report.borrow_mut().said += said;
        }
        Some(result)
    }
}

/// Takes from a frame what a behaviour may want to know.
fn note(state: &mut PeerState, frame: &Frame) {
    match (state.role, frame) {
        (PeerRole::Primary, Frame::OpenStream(open)) if open.stream == StreamId::new(Side::Client, Dir::Bi, 0) => {
            state.stream = Some(open.stream);
        }
        (PeerRole::Primary, Frame::PathStatus(status)) if status.path == PathId(1) => {
            state.is_partnered |= status.state == WirePathState::Active;
        }
        (_, Frame::MaxStreams(MaxStreams { dir: Dir::Uni, max })) => state.streams_uni = state.streams_uni.max(*max),
        _ => {}
    }
}

fn is_ready(when: When, state: &PeerState, has_grant: bool) -> bool {
    let has_place = state.stream.is_some() || !state.grants.is_empty();
    state.is_welcomed
        && match when {
            When::First | When::Late | When::Again => false,
            When::Welcomed => true,
            When::Placed => has_place,
            When::Partnered => state.is_partnered && has_place,
            When::Granted => has_grant,
        }
}

impl RawNode for Byzantine {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, data: &[u8]) {
        self.quic.handle_datagram(now, from, data);
        self.pump(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.quic.handle_timeout(now);
        self.pump(now);
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        let transmit = self.quic.poll_transmit(now);
        if transmit.is_none() {
            self.quic.exchange();
            self.rearm(now);
        }
        transmit
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timeout
    }
}
