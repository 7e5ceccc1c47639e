//! What goes into the trace of the sessions of clients, as seen from outside.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use kwik_core::{Endpoint, PathId, PathState, Role, SessionHandle, StreamId};

use super::World;
use crate::node::NodeId;
use crate::trace::TraceKind;

impl World {
    /// Notes what arrived since the last time and which paths changed their states; if `all`, where every path stands.
    /// Does nothing in a world that is not to be observed.
    pub(super) fn observe(&mut self, id: NodeId, all: bool) {
        let node = &mut self.nodes[id.0];
        if self.config.sample_paths.is_none() || node.crashed {
            return;
        }
        let at = self.clock.elapsed();
        node.touched = true;
        let sessions = std::mem::take(&mut node.sessions);
        for session in &sessions {
            self.observe_session(id, *session, at, all);
        }
        self.nodes[id.0].sessions = sessions;
    }

    fn observe_session(&mut self, id: NodeId, session: SessionHandle, at: Duration, all: bool) {
        let node = &mut self.nodes[id.0];
        for (stream, path, range) in arrived(&mut node.endpoint, session) {
            let kind = TraceKind::Supplied {
                session: session.index(),
                stream: stream.0,
                start: range.start,
                end: range.end,
                path: path.0,
            };
            self.trace.push(at, id, kind);
        }
        let Some(view) = node.endpoint.peek(session).filter(|view| view.role() == Role::Client) else { return };
        for path in view.stats().paths {
            let before = node.states.insert((session, path.id), path.state.clone());
            if !all && before.as_ref() == Some(&path.state) {
                continue;
            }
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
            self.trace.push(at, id, kind);
        }
    }
}

/// What arrived in a session since the last time, neighbours joined.
fn arrived(endpoint: &mut Endpoint, session: SessionHandle) -> Vec<(StreamId, PathId, Range<u64>)> {
    let supplied = endpoint.peek(session).map(|mut view| view.take_supplied()).unwrap_or_default();
    let mut ranges: BTreeMap<(StreamId, PathId, u64), u64> = BTreeMap::new();
    ranges.extend(supplied.into_iter().map(|(stream, range, path)| ((stream, path, range.start), range.end)));
    let mut joined: Vec<(StreamId, PathId, Range<u64>)> = Vec::new();
    for ((stream, path, start), end) in ranges {
        match joined.last_mut() {
            Some(last) if (last.0, last.1, last.2.end) == (stream, path, start) => last.2.end = end,
            _ => joined.push((stream, path, start..end)),
        }
    }
    joined
}
