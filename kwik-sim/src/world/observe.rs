//! What goes into the trace of a world that is watched: what the protocol's events tell of paths and streams, and what is
//! measured of paths from time to time.

use std::collections::BTreeMap;
use std::ops::Range;

use kwik_core::{
    PathId, PathState, PathStats, ProtocolEvent, ProtocolEventKind as Kind, Role, SessionHandle, StreamId,
};

use super::World;
use crate::node::NodeId;
use crate::trace::TraceKind;

/// Which path brought which bytes of which stream of a session.
type Received = (SessionHandle, StreamId, PathId, Range<u64>);

impl World {
    /// Notes what the endpoint of a node did since the last time, if the world is watched.
    pub(super) fn observe(&mut self, id: NodeId) {
        let node = &mut self.nodes[id.0];
        if node.crashed || node.unobserved.is_none() {
            return;
        }
        node.take_protocol_events();
        let events = node.unobserved.as_mut().map(std::mem::take).unwrap_or_default();
        let mut received = Vec::new();
        for ProtocolEvent { session, path, kind, .. } in events {
            let Some(session) = session else { continue };
            let path = path.unwrap_or(PathId::PRIMARY);
            let state = match kind {
                Kind::SessionBegun { .. } | Kind::PathAdded { .. } => PathState::Connecting,
                Kind::PathRefused { reason, .. } => PathState::Dead(reason),
                Kind::PathChanged { state } => state,
                Kind::StreamReceived { stream, range } => {
                    received.push((session, stream, path, range));
                    continue;
                }
                _ => continue,
            };
            let stats = self.paths_of_client(id, session).into_iter().find(|stats| stats.id == path);
            if let Some(stats) = stats {
                self.record_path(id, session, PathStats { state, ..stats });
            }
        }
        for (session, stream, path, Range { start, end }) in joined(received) {
            let (session, stream, path) = (session.index(), stream.0, path.0);
            self.record(id, TraceKind::Supplied { session, stream, start, end, path });
        }
    }

    /// Notes where every path of a node's clients stands.
    pub(super) fn sample(&mut self, id: NodeId) {
        if self.nodes[id.0].crashed {
            return;
        }
        for session in self.sessions(id) {
            for stats in self.paths_of_client(id, session) {
                self.record_path(id, session, stats);
            }
        }
    }

    fn paths_of_client(&self, id: NodeId, session: SessionHandle) -> Vec<PathStats> {
        let session = self.session(id, session).filter(|session| session.role() == Role::Client);
        session.map(|session| session.stats().paths).unwrap_or_default()
    }

    fn record_path(&mut self, id: NodeId, session: SessionHandle, path: PathStats) {
        let state = match &path.state {
            PathState::Dead(reason) => format!("Dead {}", reason.code),
            state => format!("{state:?}"),
        };
        let kind = TraceKind::Path {
            session: session.index(),
            path: path.id.0,
            server: self.by_address.get(&path.address).map(|(server, _)| *server),
            state,
            bytes: path.bytes_received.saturating_add(path.bytes_sent),
            rtt: path.rtt,
        };
        self.record(id, kind);
    }
}

/// The same ranges, neighbours joined.
fn joined(received: Vec<Received>) -> Vec<Received> {
    let mut ranges: BTreeMap<(SessionHandle, StreamId, PathId, u64), u64> = BTreeMap::new();
    ranges.extend(received.into_iter().map(|(session, stream, path, r)| ((session, stream, path, r.start), r.end)));
    let mut joined: Vec<Received> = Vec::new();
    for ((session, stream, path, start), end) in ranges {
        match joined.last_mut() {
            Some(last) if (last.0, last.1, last.2, last.3.end) == (session, stream, path, start) => last.3.end = end,
            _ => joined.push((session, stream, path, start..end)),
        }
    }
    joined
}
