//! The world of a run: who is in it, what each application holds, and what it is notified of.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kwik_core::{
    Dir, ErrorCode, GrantId, GrantStatus, Limits, PathEvent, PathId, PathTarget, RawPacket, Role, SessionError,
    SessionEvent, SessionHandle, SessionMut, Side, StreamEvent, StreamHandle, StreamId, TransportCode,
};
use kwik_sim::byzantine::{Behaviour, Byzantine, PeerRole};
use kwik_sim::checks::{FlowModel as Audit, NEVER_HONEST, SharedModel, Watch};
use kwik_sim::{Fleet, FleetBuilder, NodeConfig, NodeId, World, WorldConfig};
use kwik_tests::SERVER_NAME;

use crate::model::{Spans, StreamHalf, StreamModel};
use crate::op::{RawParty, SLOTS, Setup, Who};

/// A handle that an application of the client or the primary holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) handle: StreamHandle,
    pub(crate) stream: StreamId,
    pub(crate) sends: bool,
    pub(crate) receives: bool,
}

/// The client's or the primary's end of the session.
#[derive(Debug)]
pub(crate) struct SessionEnd {
    pub(crate) side: Side,
    pub(crate) node: NodeId,
    /// Absent before it begins, and after its node forgot it.
    pub(crate) session: Option<SessionHandle>,
    pub(crate) slots: Vec<Option<Slot>>,
    /// What the application closed it with.
    pub(crate) closed: Option<u32>,
    pub(crate) over: Option<SessionError>,
}

/// A part that a secondary accepted.
#[derive(Debug)]
pub(crate) struct AcceptedGrant {
    pub(crate) handle: StreamHandle,
    pub(crate) half: StreamHalf,
    pub(crate) range: Range<u64>,
    pub(crate) cursor: u64,
    pub(crate) written: Spans,
    pub(crate) is_over: bool,
}

/// A secondary's end of the session.
#[derive(Debug)]
pub(crate) struct Secondary {
    pub(crate) node: NodeId,
    pub(crate) session: SessionHandle,
    pub(crate) path: PathId,
    pub(crate) parts: Vec<AcceptedGrant>,
    pub(crate) over: Option<SessionError>,
}

/// What the primary left to a path.
#[derive(Debug)]
pub(crate) struct DelegatedRange {
    pub(crate) half: StreamHalf,
    pub(crate) path: PathId,
    pub(crate) range: Range<u64>,
    pub(crate) request: Bytes,
    pub(crate) is_active: bool,
}

/// What wakes an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wake {
    Accept(NodeId, SessionHandle),
    Stream(NodeId, SessionHandle, StreamHandle),
    Raw(NodeId, SessionHandle),
    /// Something was lost, or is known of a stream of the primary's.
    Delegation(StreamHalf),
}

/// A raw packet by sender, receiver and number.
pub(crate) type RawPacketKey = (PathId, PathId, u64);

pub(crate) struct Fixture {
    pub(crate) world: World,
    pub(crate) model: StreamModel,
    pub(crate) client: NodeId,
    pub(crate) servers: Vec<NodeId>,
    pub(crate) byzantine: Option<NodeId>,
    /// The client's and the primary's.
    pub(crate) ends: [SessionEnd; 2],
    /// In the order in which they joined.
    pub(crate) secondaries: Vec<Secondary>,
    /// In the order in which they were added.
    pub(crate) paths: Vec<PathId>,
    pub(crate) delegations: BTreeMap<GrantId, DelegatedRange>,
    /// Raw packets without a receipt.
    pub(crate) raw_sent: BTreeSet<RawPacketKey>,
    /// The number of the next raw packet from one path to another.
    pub(crate) raw_next: BTreeMap<(PathId, PathId), u64>,
    raw_received: BTreeSet<RawPacketKey>,
    /// Streams by the end that has yet to accept them.
    pub(crate) offered: BTreeSet<(StreamId, Side)>,
    pub(crate) paused: BTreeMap<NodeId, Instant>,
    /// Whether something befell client or primary that can end the session.
    pub(crate) may_fail: bool,
    pub(crate) wakes: BTreeSet<Wake>,
    targets: Vec<PathTarget>,
    watch: Watch,
    audit: SharedModel,
}

impl Fixture {
    pub(crate) fn new(setup: &Setup) -> Self {
        let limits = limits();
        let limited = |_, node: &mut NodeConfig| node.adjust_server(|server| server.limits(limits.clone()));
        let builder = FleetBuilder::new(WorldConfig::null_tls(setup.seed)).client(|_| ());
        let mut fleet = builder.servers(setup.servers, limited).build();
        let byzantine = setup.byzantine.map(|behaviour| {
            let all = Behaviour::all(PeerRole::Secondary);
            let number = u8::try_from(setup.servers).expect("few servers");
            let node = Byzantine::server(&fleet, number, setup.seed, all[behaviour % all.len()]);
            fleet.add_raw_server(setup.servers, Box::new(node))
        });
        let targets =
            (0..setup.servers + usize::from(byzantine.is_some())).map(|number| fleet.target(number)).collect();
        let Fleet { mut world, pki, client, servers, .. } = fleet;
        let audit = Audit::shared(true, true);
        let config = pki.client().limits(limits.clone());
        let session = world.dial(client, servers[0], config, SERVER_NAME).expect("dialled");
        let watch = Watch::new(&mut world, audit.clone(), limits);
        let end = |side, node, session| SessionEnd {
            side,
            node,
            session,
            slots: vec![None; SLOTS],
            closed: None,
            over: None,
        };
        Self {
            ends: [end(Side::Client, client, Some(session)), end(Side::Server, servers[0], None)],
            world,
            model: StreamModel::default(),
            client,
            servers,
            byzantine,
            secondaries: Vec::new(),
            paths: Vec::new(),
            delegations: BTreeMap::new(),
            raw_sent: BTreeSet::new(),
            raw_next: BTreeMap::new(),
            raw_received: BTreeSet::new(),
            offered: BTreeSet::new(),
            paused: BTreeMap::new(),
            may_fail: false,
            wakes: BTreeSet::new(),
            targets,
            watch,
            audit,
        }
    }

    // ---- who is who

    pub(crate) fn end(&mut self, side: Side) -> &mut SessionEnd {
        &mut self.ends[usize::from(side == Side::Server)]
    }

    pub(crate) fn node(&self, who: Who) -> Option<NodeId> {
        match who {
            Who::Client => Some(self.client),
            Who::Server(number) => self.servers.get(number).copied(),
        }
    }

    /// The server of this number as a path to add; behind the last honest one is the byzantine one.
    pub(crate) fn target(&self, number: usize) -> Option<PathTarget> {
        self.targets.get(number).cloned()
    }

    pub(crate) fn secondary_of(&self, path: PathId) -> Option<usize> {
        self.secondaries.iter().position(|secondary| secondary.path == path)
    }

    /// The node and session of a server by its path.
    pub(crate) fn server_at(&self, at: RawParty) -> Option<(PathId, NodeId, SessionHandle)> {
        match at {
            RawParty::Primary => Some((PathId::PRIMARY, self.ends[1].node, self.ends[1].session?)),
            RawParty::Path(nth) => {
                let path = *self.paths.get(nth)?;
                let secondary = &self.secondaries[self.secondary_of(path)?];
                Some((path, secondary.node, secondary.session))
            }
        }
    }

    /// Whether the process on a node does anything.
    pub(crate) fn runs(&self, node: NodeId) -> bool {
        !self.world.is_crashed(node) && self.paused.get(&node).is_none_or(|until| self.world.now() >= *until)
    }

    /// A session that its application may use now.
    pub(crate) fn session_mut(&mut self, node: NodeId, session: SessionHandle) -> Option<SessionMut<'_>> {
        if self.runs(node) { self.world.session_mut(node, session) } else { None }
    }

    /// The session at one end.
    pub(crate) fn session_at(&mut self, side: Side) -> Option<SessionMut<'_>> {
        let (node, session) = (self.end(side).node, self.end(side).session?);
        self.session_mut(node, session)
    }

    /// A stream that both ends can have a handle of.
    pub(crate) fn opened(&mut self, side: Side, slot: usize, handle: StreamHandle, stream: StreamId) {
        let is_opener = stream.initiator() == side;
        let both_ways = stream.dir() == Dir::Bi;
        if is_opener {
            self.model.begins(StreamHalf { stream, writer: side });
            if both_ways {
                self.model.begins(StreamHalf { stream, writer: side.peer() });
            }
            self.offered.insert((stream, side.peer()));
        } else {
            assert!(self.offered.remove(&(stream, side)), "{stream} was accepted and not opened, or twice");
        }
        let slots = &mut self.end(side).slots;
        if slot >= slots.len() {
            slots.resize(slot + 1, None);
        }
        slots[slot] = Some(Slot { handle, stream, sends: both_ways || is_opener, receives: both_ways || !is_opener });
    }

    /// A node lost its memory, or a session is of no more use.
    pub(crate) fn forget_node(&mut self, node: NodeId) {
        self.secondaries.retain(|secondary| secondary.node != node);
        for end in self.ends.iter_mut().filter(|end| end.node == node) {
            (end.session, end.slots) = (None, vec![None; SLOTS]);
        }
    }

    // ---- time

    /// Lets time pass, looks at the world after every step, and handles the events of applications.
    pub(crate) fn run_for(&mut self, span: Duration) {
        let (watch, mut well) = (&mut self.watch, true);
        self.world.run_until(span, |world| {
            well = watch.look(world);
            !well
        });
        assert!(well, "{:?}", self.audit.borrow().violations());
        self.take_events();
    }

    /// As [`Self::run_for`], with the applications awake, until `done`.
    pub(crate) fn run_until(&mut self, limit: Duration, mut act: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.world.now() + limit;
        loop {
            self.take_events();
            if act(self) {
                return true;
            }
            let left = end.saturating_duration_since(self.world.now());
            if left.is_zero() {
                return false;
            }
            // What was done at this moment goes out, and then everything up to the next event of any application.
            let (watch, mut well) = (&mut self.watch, true);
            let mut notified = Vec::new();
            let nodes: Vec<NodeId> = self.servers.iter().copied().chain([self.client]).collect();
            self.world.run_until(left, |world| {
                well = watch.look(world);
                for node in &nodes {
                    while let Some((session, event)) = world.poll_event(*node) {
                        notified.push((*node, session, event));
                    }
                }
                !well || !notified.is_empty()
            });
            assert!(well, "{:?}", self.audit.borrow().violations());
            for (node, session, event) in notified {
                self.on_event(node, session, event);
            }
        }
    }

    /// Handles the events of applications.
    pub(crate) fn take_events(&mut self) {
        for node in self.servers.iter().copied().chain([self.client]).collect::<Vec<_>>() {
            while let Some((session, event)) = self.world.poll_event(node) {
                self.on_event(node, session, event);
            }
        }
    }

    fn on_event(&mut self, node: NodeId, session: SessionHandle, event: SessionEvent) {
        let path = self.secondaries.iter().find(|other| (other.node, other.session) == (node, session));
        let path = path.map_or(PathId::PRIMARY, |secondary| secondary.path);
        match event {
            SessionEvent::Incoming => self.on_incoming(node, session),
            SessionEvent::Closed(error) => self.on_closed(node, session, error),
            SessionEvent::Path(PathEvent::Dead { path, reason }) => {
                let judged = !self.model.is_byzantine(path);
                assert!(!judged || !is_never_honest(reason.code), "{path} died of {reason}, and its server is honest");
            }
            SessionEvent::Delegation(grant) => self.on_delegation(grant),
            SessionEvent::RawReadable => _ = self.wakes.insert(Wake::Raw(node, session)),
            SessionEvent::RawStatus { to, sequence, result } => {
                let is_awaited = self.raw_sent.remove(&(path, to, sequence));
                assert!(is_awaited, "a receipt of packet {sequence} from {path} to {to}");
                let lost = [TransportCode::PATH_UNKNOWN, TransportCode::RAW_LIMIT, TransportCode::SOURCE_LOST];
                let honest = result.is_ok() || lost.into_iter().any(|lost| result == Err(lost.into()));
                assert!(honest || self.model.is_byzantine(to), "packet {sequence} from {path} to {to}: {result:?}");
            }
            SessionEvent::Stream(event) => self.on_stream_event(node, session, event),
            SessionEvent::Path(_)
            | SessionEvent::DelegationRoom(_)
            | SessionEvent::Connected
            | SessionEvent::Welcomed => {}
        }
    }

    fn on_incoming(&mut self, node: NodeId, session: SessionHandle) {
        let view = self.world.session_mut(node, session).expect("it just began");
        let (role, path) = (view.role(), view.all_paths().first().map(|path| path.id));
        if role == Role::Primary {
            assert_eq!(self.ends[1].session.replace(session), None, "a second session");
            assert_eq!(node, self.ends[1].node);
            return;
        }
        let path = path.expect("a secondary knows its path");
        assert_eq!(self.secondary_of(path), None, "{path} has two servers");
        self.secondaries.push(Secondary { node, session, path, parts: Vec::new(), over: None });
        self.wakes.insert(Wake::Accept(node, session));
    }

    fn on_closed(&mut self, node: NodeId, session: SessionHandle, error: SessionError) {
        if let SessionError::Transport { code, .. } = &error {
            assert!(!is_never_honest((*code).into()), "a session ended with {error}, and everybody is honest");
        }
        if let Some(secondary) = self.secondaries.iter_mut().find(|it| (it.node, it.session) == (node, session)) {
            secondary.over = Some(error);
            return;
        }
        let Some(at) = self.ends.iter().position(|end| (end.node, end.session) == (node, Some(session))) else {
            return;
        };
        let (own, peers) = (self.ends[at].closed, self.ends[1 - at].closed);
        let is_right = match &error {
            SessionError::LocallyClosed => own.is_some(),
            SessionError::ClosedByPeer { code, reason, .. } => peers == Some(*code) && *reason == reason_of(*code),
            SessionError::Transport { .. } | SessionError::TimedOut => self.may_fail,
            SessionError::NotDriven => false,
        };
        assert!(is_right, "the {:?}'s session ended: {error}; closed with {own:?}, {peers:?}", self.ends[at].side);
        self.ends[at].over = Some(error);
    }

    fn on_delegation(&mut self, grant: GrantId) {
        let Some(session) = self.ends[1].session else { return };
        let view = self.world.session_mut(self.ends[1].node, session).expect("it had an event");
        let state = view.delegation(grant).expect("the delegation is known");
        let is_open = view.close_reason().is_none();
        let delegated = self.delegations.get_mut(&grant).expect("it was delegated");
        self.wakes.insert(Wake::Delegation(delegated.half));
        if !delegated.is_active {
            return;
        }
        match state {
            GrantStatus::Progress { delivered } => {
                assert!(delivered <= delegated.range.end - delegated.range.start);
                return;
            }
            GrantStatus::Delivered => {}
            GrantStatus::Lost { missing, code } => {
                let judged = !self.model.is_byzantine(delegated.path);
                assert!(!judged || !is_never_honest(code), "{grant:?} was lost with {code}");
                let record = self.model.record(delegated.half);
                for range in &missing {
                    let inside = delegated.range.start <= range.start && range.end <= delegated.range.end;
                    assert!(inside && !range.is_empty(), "{range:?} of {grant:?}, which is {:?}", delegated.range);
                    if is_open {
                        record.covered.remove(range);
                    }
                }
            }
        }
        delegated.is_active = false;
    }

    fn on_stream_event(&mut self, node: NodeId, session: SessionHandle, event: StreamEvent) {
        let wake = match event {
            StreamEvent::Opened { .. } => Wake::Accept(node, session),
            StreamEvent::Readable(stream) | StreamEvent::Writable(stream) | StreamEvent::Finished(stream) => {
                Wake::Stream(node, session, stream)
            }
            StreamEvent::Stopped { stream, code } => {
                let end = self.ends.iter().find(|end| (end.node, end.session) == (node, Some(session)));
                let slot = end.and_then(|end| end.slots.iter().flatten().find(|slot| slot.handle == stream));
                if let (Some(slot), Some(end)) = (slot, end) {
                    let half = StreamHalf { stream: slot.stream, writer: end.side };
                    assert!(self.model.may_stop(half, code), "the writer of {half:?} was stopped with {code}");
                }
                Wake::Stream(node, session, stream)
            }
            StreamEvent::Available { .. } => return,
        };
        self.wakes.insert(wake);
    }

    // ---- raw packets

    pub(crate) fn received_raw(&mut self, own: PathId, packet: &RawPacket) {
        if self.model.is_byzantine(packet.from) {
            return;
        }
        let mut numbers = packet.data.chunks_exact(8).map(|word| u64::from_be_bytes(word.try_into().expect("8 bytes")));
        let mut next = || numbers.next().expect("three numbers");
        let (from, to, sequence) = (next(), next(), next());
        assert_eq!((from, to), (u64::from(packet.from.0), u64::from(own.0)), "a raw packet went astray");
        assert_eq!(packet.data, raw_payload(packet.from, own, sequence, packet.data.len()), "another payload");
        let first_later = self.raw_received.range((packet.from, own, sequence)..=(packet.from, own, u64::MAX)).next();
        assert_eq!(first_later, None, "packet {sequence} from {} came late or twice", packet.from);
        self.raw_received.insert((packet.from, own, sequence));
    }
}

/// A payload that says what it is; at least three numbers long.
pub(crate) fn raw_payload(from: PathId, to: PathId, sequence: u64, len: usize) -> Bytes {
    let mut data = BytesMut::new();
    data.put_u64(from.0.into());
    data.put_u64(to.0.into());
    data.put_u64(sequence);
    data.resize(len.max(data.len()), sequence.to_be_bytes()[7]);
    data.freeze()
}

/// Small buffers and windows, so that few bytes fill them.
fn limits() -> Limits {
    let mut limits = Limits::default();
    (limits.send_buffer_stream_bytes, limits.send_buffer_session_bytes) = (20_000, 50_000);
    (limits.stream_window_bytes, limits.bandwidth_delay_bytes_max) = (40_000, 50_000);
    limits
}

/// The reason an application gives with a code.
pub(crate) fn reason_of(code: u32) -> String {
    format!("because of {code}")
}

fn is_never_honest(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Transport(code) if NEVER_HONEST.contains(&code))
}
