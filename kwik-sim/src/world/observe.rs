//! What goes into the trace of the sessions of clients, as seen from outside.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use kwik_core::{PathId, PathState, Role, SessionHandle, StreamId};

use super::World;
use crate::node::NodeId;
use crate::trace::TraceKind;

/// Which path brought which bytes of which stream of a session.
type Received = (SessionHandle, StreamId, PathId, Range<u64>);

impl World {
    /// Notes what arrived since the last time and which paths changed their states; if `all`, where every path stands.
    /// Does nothing in a world that is not to be observed.
    pub(super) fn observe(&mut self, id: NodeId, all: bool) {
        let node = &mut self.nodes[id.0];
        if self.config.sample_paths.is_none() || node.crashed {
            return;
        }
        let at = self.clock.elapsed();
        node.take_protocol_events();
        let received = std::mem::take(&mut node.received);
        for (session, stream, path, range) in joined(received) {
            let kind = TraceKind::Supplied {
                session: session.index(),
                stream: stream.0,
                start: range.start,
                end: range.end,
                path: path.0,
            };
            self.trace.push(at, id, kind);
        }
        let sessions = std::mem::take(&mut self.nodes[id.0].sessions);
        for session in &sessions {
            self.observe_session(id, *session, at, all);
        }
        self.nodes[id.0].sessions = sessions;
    }

    fn observe_session(&mut self, id: NodeId, session: SessionHandle, at: Duration, all: bool) {
        let node = &mut self.nodes[id.0];
        let Some(view) = node.endpoint.session(session).filter(|view| view.role() == Role::Client) else { return };
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
