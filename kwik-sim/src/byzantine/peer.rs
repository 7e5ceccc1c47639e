//! What a behaviour works with: one connection, what was learnt on it, and ways to say anything at all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use kwik_core::__test_exports::{
    AddPath, Frame, Grant, GrantOpen, Join, PacketAck, Params, Ticket, WirePathState, carrier_header, join_proof,
};
use kwik_core::{Dir, Epoch, Identity, PathId, PublicIdentity, SessionId, Side, StreamId, UnixTime};
use quinn_proto::StreamId as QuicStreamId;
use rand::Rng;
use rand::rngs::StdRng;

use super::behaviour::PeerRole;
use super::quic::PeerConnection;

/// What the two know of each other: the grants of each, by session and path.
pub(super) type PairGrants = Rc<RefCell<BTreeMap<(SessionId, PathId), Vec<GrantOpen>>>>;

/// What is left to say.
#[derive(Debug, Clone, Default)]
pub(super) struct Script(Vec<u8>);

impl Script {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(super) fn take(&mut self, len: usize) -> Vec<u8> {
        let rest = self.0.split_off(len.min(self.0.len()));
        std::mem::replace(&mut self.0, rest)
    }
}

/// What the node knows over all its connections.
#[derive(Default)]
pub(super) struct PeerKnowledge {
    pub(super) session: Option<SessionId>,
    /// Paths a primary told this client to dial.
    pub(super) added: Vec<AddPath>,
    /// Grants a primary told this client of.
    pub(super) granted: Vec<Grant>,
}

/// What was learnt on one connection.
pub(super) struct PeerState {
    pub(super) role: PeerRole,
    pub(super) path: PathId,
    pub(super) exporter: [u8; 32],
    pub(super) client_key: Option<PublicIdentity>,
    /// The session that the connection is of, at a server.
    pub(super) session: Option<SessionId>,
    /// The first frame was answered, as the behaviour wanted.
    pub(super) is_welcomed: bool,
    /// Grants that came to this secondary.
    pub(super) grants: Vec<GrantOpen>,
    /// Raw packets that came to this server: who sent them, and their numbers.
    pub(super) raw: Vec<(PathId, u64)>,
    /// The path that this primary added last.
    pub(super) partner: Option<AddPath>,
    /// A stream that may be used: the client's first, bidirectional one.
    pub(super) stream: Option<StreamId>,
    /// The partner's path is active.
    pub(super) is_partnered: bool,
    /// Packets that came.
    pub(super) packets: u64,
    /// Streams this node may open, one way, as its peer last said.
    pub(super) streams_uni: u64,
    /// Such streams it opened.
    pub(super) opened_uni: u64,
    /// Ticks since it began to misbehave.
    pub(super) ticks: Option<u32>,
    pub(super) is_over: bool,
    carrier: Option<QuicStreamId>,
    pub(super) next_packet: u64,
}

impl PeerState {
    pub(super) fn new(role: PeerRole, path: PathId) -> Self {
        Self {
            role,
            path,
            exporter: [0; 32],
            client_key: None,
            session: None,
            is_welcomed: false,
            grants: Vec::new(),
            raw: Vec::new(),
            partner: None,
            stream: None,
            is_partnered: false,
            packets: 0,
            streams_uni: 16,
            opened_uni: 0,
            ticks: None,
            is_over: false,
            carrier: None,
            next_packet: 0,
        }
    }
}

/// What one act of a behaviour works with.
pub(super) struct PeerContext<'a> {
    pub(super) now: Instant,
    pub(super) wall: UnixTime,
    pub(super) connection: &'a mut PeerConnection,
    pub(super) state: &'a mut PeerState,
    pub(super) knowledge: &'a PeerKnowledge,
    pub(super) rng: &'a mut StdRng,
    /// A server's identity, or a client's key.
    pub(super) key: &'a Identity,
    pub(super) content: fn(u64) -> u8,
    pub(super) script: &'a mut Script,
    pub(super) pair_grants: &'a PairGrants,
    /// How often the act was called before.
    pub(super) tick: u32,
    /// Frames said so far.
    pub(super) said: &'a mut u64,
}

impl PeerContext<'_> {
    /// A frame in its proper form.
    pub(super) fn say(&mut self, frame: impl Into<Frame>) {
        let bytes = frame.into().encode();
        self.control(&bytes);
    }

    /// Bytes on the control plane.
    pub(super) fn control(&mut self, bytes: &[u8]) {
        *self.said += 1;
        self.connection.control(bytes);
    }

    /// The carrier in use, with its header.
    pub(super) fn carrier(&mut self) -> Option<QuicStreamId> {
        if self.state.carrier.is_none() {
            let stream = self.connection.open_uni()?;
            self.connection.write(stream, &carrier_header());
            self.state.carrier = Some(stream);
        }
        self.state.carrier
    }

    /// Bytes on the carrier in use.
    pub(super) fn carry(&mut self, bytes: &[u8]) {
        *self.said += 1;
        if let Some(carrier) = self.carrier() {
            self.connection.write(carrier, bytes);
        }
    }

    /// The next packet.
    pub(super) fn packet(&mut self, frames: &[u8]) {
        let number = self.state.next_packet;
        self.state.next_packet += 1;
        self.packet_numbered(number, frames);
    }

    pub(super) fn packet_numbered(&mut self, number: u64, frames: &[u8]) {
        let packet = [varint(number), varint(frames.len() as u64), frames.to_vec()].concat();
        self.carry(&packet);
    }

    /// A packet with one STREAM frame.
    pub(super) fn data(&mut self, stream: StreamId, offset: u64, len: u64, fin: bool) {
        let content = self.content;
        let data: Vec<u8> = (offset..offset.saturating_add(len)).map(content).collect();
        self.packet(&stream_frame(stream, offset, &data, fin));
    }

    /// Acknowledges what came so far.
    pub(super) fn acknowledge(&mut self) {
        if self.state.packets > 0 {
            self.say(PacketAck { ranges: std::iter::once(0..self.state.packets).collect() });
        }
    }

    /// A stream, and where in it this node may write.
    pub(super) fn place(&self) -> Option<(StreamId, u64)> {
        match self.state.role {
            PeerRole::Secondary => self.state.grants.first().map(|grant| (grant.stream, grant.start.0)),
            PeerRole::Primary | PeerRole::Client => self.state.stream.map(|stream| (stream, 0)),
            PeerRole::Joiner => None,
        }
    }

    /// The side this node is on.
    pub(super) fn side(&self) -> Side {
        match self.state.role {
            PeerRole::Secondary | PeerRole::Primary => Side::Server,
            PeerRole::Client | PeerRole::Joiner => Side::Client,
        }
    }

    /// A stream this node would have opened.
    pub(super) fn own_stream(&self, dir: Dir, index: u64) -> StreamId {
        StreamId::new(self.side(), dir, index)
    }

    /// A stream the peer would have opened.
    pub(super) fn peer_stream(&self, dir: Dir, index: u64) -> StreamId {
        StreamId::new(self.side().peer(), dir, index)
    }

    pub(super) fn session(&self) -> SessionId {
        self.state.session.or(self.knowledge.session).unwrap_or(SessionId([0; 16]))
    }

    /// JOIN as an honest client would send it on this connection.
    pub(super) fn join(&self) -> Option<Join> {
        let add = self.knowledge.added.iter().find(|add| add.path == self.state.path)?;
        let proof = join_proof(self.key, &self.state.exporter, &add.ticket);
        Some(Join { version: 1, params: params(), ticket: add.ticket.clone(), proof })
    }

    /// The paths of the session that lead to the other one of a pair, and the grants that came to them.
    pub(super) fn others(&self) -> Vec<(PathId, Vec<GrantOpen>)> {
        let (own, session) = (self.state.path, self.session());
        let pair_grants = self.pair_grants.borrow();
        let known = pair_grants.iter().filter(|((of, path), _)| *of == session && *path != own);
        known.map(|((_, path), grants)| (*path, grants.clone())).collect()
    }

    /// A ticket for `secondary`, as a primary writes it in its first words.
    pub(super) fn ticket(&self, path: PathId, secondary: PublicIdentity, name: &str) -> Option<Bytes> {
        self.ticket_of_epoch(path, Epoch(u64::from(path.0)), secondary, name)
    }

    pub(super) fn ticket_of_epoch(
        &self,
        path: PathId,
        epoch: Epoch,
        secondary: PublicIdentity,
        name: &str,
    ) -> Option<Bytes> {
        let ticket = Ticket {
            session: self.session(),
            path,
            epoch,
            issuer: self.key.public(),
            secondary,
            server_name: name.to_owned(),
            client_key: self.state.client_key?,
            issued_at: self.wall,
            expires_at: self.wall.saturating_add(Duration::from_secs(60)),
            lease: Duration::from_secs(3600),
        };
        Some(ticket.sign(self.key))
    }

    /// One of the numbers at which arithmetic goes wrong.
    pub(super) fn edge(&mut self) -> u64 {
        const EDGES: [u64; 12] =
            [0, 1, 63, 64, 16_383, 16_384, 65_536, 1 << 20, 1 << 32, (1 << 60) + 1, (1 << 62) - 2, (1 << 62) - 1];
        EDGES[self.rng.random_range(0..EDGES.len())]
    }
}

/// The parameters an honest node announces.
pub(super) fn params() -> Params {
    Params { streams_bidi: 128, streams_uni: 128, stream_window_initial: 16 * 1024 }
}

/// A random state of a path.
pub(super) fn any_state(rng: &mut StdRng) -> WirePathState {
    [WirePathState::Active, WirePathState::Suspect, WirePathState::Dead][rng.random_range(0..3)]
}

/// A varint, of what is left of `value` in 62 bits.
pub(super) fn varint(value: u64) -> Vec<u8> {
    let value = value & ((1 << 62) - 1);
    let mut out = Vec::new();
    match value {
        0..=0x3f => out.put_uint(value, 1),
        0x40..=0x3fff => out.put_uint(value | 1 << 14, 2),
        0x4000..=0x3fff_ffff => out.put_uint(value | 2 << 30, 4),
        _ => out.put_uint(value | 3 << 62, 8),
    }
    out
}

/// Type, length, body.
pub(super) fn frame(frame_type: u64, body: &[u8]) -> Vec<u8> {
    [varint(frame_type), varint(body.len() as u64), body.to_vec()].concat()
}

/// A STREAM frame.
pub(super) fn stream_frame(stream: StreamId, offset: u64, data: &[u8], fin: bool) -> Vec<u8> {
    frame(1 + u64::from(fin), &[varint(stream.0), varint(offset), data.to_vec()].concat())
}
