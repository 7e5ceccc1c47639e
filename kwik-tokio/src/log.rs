//! What the protocol did, as `tracing` spans and events: `info` tells what happened to a session, `debug` why, `trace` every
//! frame. A session is a span, and so is each of its paths; a stream is a field.

use std::{collections::BTreeMap, net::SocketAddr};

use kwik_core::{EventDetail, PathId, PathState, ProtocolEvent, ProtocolEventKind as Kind, SessionHandle};
use tracing::{Level, Span, error_span, field, level_filters::LevelFilter};

/// As much as somebody listens to.
pub(crate) fn detail() -> EventDetail {
    match LevelFilter::current() {
        LevelFilter::OFF => EventDetail::Off,
        LevelFilter::TRACE => EventDetail::Frames,
        LevelFilter::DEBUG => EventDetail::Streams,
        _ => EventDetail::Changes,
    }
}

/// The log of one endpoint.
pub(crate) struct Log {
    endpoint: SocketAddr,
    sessions: BTreeMap<SessionHandle, SessionSpan>,
}

/// A session that is not over, and its paths that are not.
struct SessionSpan {
    span: Span,
    paths: BTreeMap<PathId, Span>,
}

/// One event in the span of its path, or else of its session.
macro_rules! tell {
    ($level:expr, $span:expr, $($field:tt)*) => {
        tracing::event!(target: "kwik", parent: $span, $level, $($field)*)
    };
}

impl Log {
    pub(crate) fn new(endpoint: SocketAddr) -> Self {
        Self { endpoint, sessions: BTreeMap::new() }
    }

    /// The endpoint has another address.
    pub(crate) fn set_endpoint(&mut self, endpoint: SocketAddr) {
        self.endpoint = endpoint;
    }

    /// Tells one event. To be called without a lock: who listens may do anything.
    pub(crate) fn emit(&mut self, event: &ProtocolEvent) {
        let ProtocolEvent { session, path, kind, .. } = event;
        let Some(session) = *session else { return self.emit_outside(kind) };
        if matches!(kind, Kind::SessionBegun { .. }) {
            let span = self.new_session(session);
            self.sessions.insert(session, SessionSpan { span, paths: BTreeMap::new() });
        }
        let span = self.span(session, *path, kind);
        if let Kind::SessionEstablished { id } = kind
            && let Some(session) = self.sessions.get(&session)
        {
            session.span.record("id", field::display(id));
        }
        // What is over goes before it is told of: who listens may panic.
        match (kind, path) {
            (Kind::SessionEnded { .. }, _) => drop(self.sessions.remove(&session)),
            (Kind::PathChanged { state: PathState::Dead(_) }, Some(path)) => {
                self.sessions.get_mut(&session).and_then(|session| session.paths.remove(path));
            }
            _ => {}
        }
        emit_session(&span, kind);
    }

    /// What belongs to no session.
    fn emit_outside(&mut self, kind: &Kind) {
        let endpoint = field::display(self.endpoint);
        match kind {
            Kind::Refused { remote, code, cause } => {
                tell!(Level::WARN, None, endpoint, %remote, %code, cause, "connection refused");
            }
            Kind::Missed { events } => {
                // Among them may be ends of sessions, whose spans nothing else would let go of.
                self.sessions.clear();
                tell!(Level::WARN, None, endpoint, events, "events were lost");
            }
            kind => tell!(Level::DEBUG, None, endpoint, ?kind, "event"),
        }
    }

    /// The span of a path, or of a session.
    fn span(&mut self, handle: SessionHandle, path: Option<PathId>, kind: &Kind) -> Span {
        let Some(session) = self.sessions.get_mut(&handle) else {
            // It is over, or its beginning was lost: its spans are made for this event only.
            let session = self.new_session(handle);
            let new = |path: PathId| error_span!(target: "kwik", parent: &session, "path", id = path.0);
            return path.map(new).unwrap_or(session);
        };
        let Some(path) = path else { return session.span.clone() };
        let parent = &session.span;
        if let Some(span) = session.paths.get(&path) {
            return span.clone();
        }
        let span = error_span!(target: "kwik", parent: parent, "path", id = path.0);
        // Only what is followed by the death of the path: of some paths nothing more is heard.
        let is_alive = match kind {
            Kind::PathAdded { .. } | Kind::PathDialled { .. } => true,
            Kind::PathChanged { state } => !matches!(state, PathState::Dead(_)),
            _ => false,
        };
        if is_alive {
            session.paths.insert(path, span.clone());
        }
        span
    }

    fn new_session(&self, handle: SessionHandle) -> Span {
        let (endpoint, session) = (field::display(self.endpoint), handle.index());
        error_span!(target: "kwik", parent: None, "session", endpoint, session, id = field::Empty)
    }
}

/// What happened to a session and its paths.
fn emit_session(span: &Span, kind: &Kind) {
    match kind {
        Kind::SessionBegun { remote } => tell!(Level::INFO, span, %remote, "session begins"),
        Kind::SessionEstablished { id } => tell!(Level::INFO, span, %id, "session established"),
        Kind::SessionEnded { error } if kind.is_defect() => tell!(Level::ERROR, span, %error, "session ended"),
        Kind::SessionEnded { error } => tell!(Level::INFO, span, %error, "session ended"),
        Kind::PathAdded { remote, server_name } => tell!(Level::INFO, span, %remote, server_name, "path added"),
        Kind::PathRefused { remote, reason } => tell!(Level::WARN, span, %remote, %reason, "path refused"),
        Kind::PathDialled { remote } => tell!(Level::DEBUG, span, %remote, "path dialled"),
        Kind::PathChanged { state: PathState::Dead(reason) } => tell!(Level::INFO, span, %reason, "path is over"),
        Kind::PathChanged { state: state @ (PathState::Active | PathState::Suspect | PathState::Closing) } => {
            tell!(Level::INFO, span, ?state, "path changed");
        }
        Kind::PathChanged { state } => tell!(Level::DEBUG, span, ?state, "path changed"),
        Kind::CarriersChanged { open } => tell!(Level::DEBUG, span, open, "carriers changed"),
        Kind::Fault { code, detail } if kind.is_defect() => tell!(Level::ERROR, span, %code, detail, "defect"),
        Kind::Fault { code, detail } => tell!(Level::WARN, span, %code, detail, "fault of the peer"),
        kind => emit_work(span, kind),
    }
}

/// What is done in a session: grants, streams and frames.
fn emit_work(span: &Span, kind: &Kind) {
    match kind {
        Kind::GrantIssued { grant, stream, range } => {
            tell!(Level::DEBUG, span, ?grant, %stream, ?range, "grant issued");
        }
        Kind::GrantRecorded { grant, stream, range } => {
            tell!(Level::DEBUG, span, ?grant, %stream, ?range, "grant recorded");
        }
        Kind::GrantAccepted { grant, stream, range } => {
            tell!(Level::DEBUG, span, ?grant, %stream, ?range, "grant accepted");
        }
        Kind::GrantProgressed { grant, delivered } => {
            tell!(Level::DEBUG, span, ?grant, delivered, "grant progressed");
        }
        Kind::GrantDelivered { grant } => tell!(Level::DEBUG, span, ?grant, "grant delivered"),
        Kind::GrantLost { grant, code, missing } => tell!(Level::INFO, span, ?grant, %code, missing, "grant lost"),
        Kind::GrantRevoked { grant } => tell!(Level::DEBUG, span, ?grant, "grant revoked"),
        Kind::StreamOpened { stream } => tell!(Level::DEBUG, span, %stream, "stream opened"),
        Kind::StreamFinished { stream } => tell!(Level::DEBUG, span, %stream, "stream finished"),
        Kind::StreamReset { stream, code } => tell!(Level::DEBUG, span, %stream, %code, "stream reset"),
        Kind::StreamStopped { stream, code } => tell!(Level::DEBUG, span, %stream, %code, "stream stopped"),
        Kind::StreamConflict { stream, offset } => {
            tell!(Level::WARN, span, %stream, offset, "two servers wrote different bytes");
        }
        Kind::StreamReceived { stream, range } => tell!(Level::TRACE, span, %stream, ?range, "bytes received"),
        Kind::StreamLimitRaised { stream, limit } => tell!(Level::TRACE, span, %stream, limit, "limit raised"),
        Kind::StreamBlocked { stream, by } => tell!(Level::TRACE, span, %stream, ?by, "stream blocked"),
        Kind::FrameReceived { frame } => tell!(Level::TRACE, span, frame, "received"),
        Kind::FrameSent { frame } => tell!(Level::TRACE, span, frame, "sent"),
        // Newer ones than this driver knows.
        kind => tell!(Level::DEBUG, span, ?kind, "event"),
    }
}
