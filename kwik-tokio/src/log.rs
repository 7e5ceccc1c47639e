//! What the protocol did, as `tracing` events: `info` tells what happened to a session, `debug` why, `trace` every frame.

use std::net::SocketAddr;

use kwik_core::{
    EventDetail, PathState, ProtocolEvent, ProtocolEventKind as Kind, SessionError, SessionHandle, TransportCode,
};
use tracing::{Level, level_filters::LevelFilter};

/// As much as somebody listens to.
pub(crate) fn detail() -> EventDetail {
    match LevelFilter::current() {
        LevelFilter::OFF => EventDetail::Off,
        LevelFilter::TRACE => EventDetail::Frames,
        _ => EventDetail::Changes,
    }
}

/// Where and in what an event happened; what is not known is left out.
macro_rules! tell {
    ($level:expr, $event:expr, $endpoint:expr, $($field:tt)*) => {{
        let session = $event.session.map(SessionHandle::index);
        let path = $event.path.map(tracing::field::display);
        tracing::event!(target: "kwik", $level, endpoint = %$endpoint, session, path, $($field)*)
    }};
}

/// Tells one event. To be called without a lock: who listens may do anything.
pub(crate) fn emit(endpoint: SocketAddr, event: &ProtocolEvent) {
    match &event.kind {
        Kind::SessionBegun { remote } => tell!(Level::INFO, event, endpoint, %remote, "session begins"),
        Kind::SessionEstablished { id } => tell!(Level::INFO, event, endpoint, %id, "session established"),
        Kind::SessionEnded { error } if is_defect(error) => {
            tell!(Level::ERROR, event, endpoint, %error, "session ended")
        }
        Kind::SessionEnded { error } => tell!(Level::INFO, event, endpoint, %error, "session ended"),
        Kind::Refused { remote, code, cause } => {
            tell!(Level::WARN, event, endpoint, %remote, %code, cause, "connection refused");
        }
        Kind::PathAdded { remote, server_name } => {
            tell!(Level::INFO, event, endpoint, %remote, server_name, "path added");
        }
        Kind::PathRefused { remote, reason } => tell!(Level::WARN, event, endpoint, %remote, %reason, "path refused"),
        Kind::PathChanged { state: PathState::Dead(reason) } => {
            tell!(Level::INFO, event, endpoint, %reason, "path is over");
        }
        Kind::PathChanged { state } => tell!(Level::INFO, event, endpoint, ?state, "path changed"),
        Kind::Fault { code: code @ TransportCode::INTERNAL, detail } => {
            tell!(Level::ERROR, event, endpoint, %code, detail, "defect");
        }
        Kind::Fault { code, detail } => tell!(Level::WARN, event, endpoint, %code, detail, "fault of the peer"),
        Kind::StreamConflict { stream, offset } => {
            tell!(Level::WARN, event, endpoint, %stream, offset, "two servers wrote different bytes");
        }
        Kind::Missed { events } => tell!(Level::WARN, event, endpoint, events, "events were not told"),
        Kind::FrameReceived { frame } => tell!(Level::TRACE, event, endpoint, frame, "received"),
        Kind::FrameSent { frame } => tell!(Level::TRACE, event, endpoint, frame, "sent"),
        kind => emit_work(endpoint, event, kind),
    }
}

/// What is done in a session: grants and streams.
fn emit_work(endpoint: SocketAddr, event: &ProtocolEvent, kind: &Kind) {
    match kind {
        Kind::GrantIssued { grant, stream, range } => {
            tell!(Level::DEBUG, event, endpoint, ?grant, %stream, ?range, "grant issued");
        }
        Kind::GrantRecorded { grant, stream, range } => {
            tell!(Level::DEBUG, event, endpoint, ?grant, %stream, ?range, "grant recorded");
        }
        Kind::GrantAccepted { grant, stream, range } => {
            tell!(Level::DEBUG, event, endpoint, ?grant, %stream, ?range, "grant accepted");
        }
        Kind::GrantProgressed { grant, delivered } => {
            tell!(Level::DEBUG, event, endpoint, ?grant, delivered, "grant progressed");
        }
        Kind::GrantDelivered { grant } => tell!(Level::DEBUG, event, endpoint, ?grant, "grant delivered"),
        Kind::GrantLost { grant, code, missing } => {
            tell!(Level::INFO, event, endpoint, ?grant, %code, missing, "grant lost");
        }
        Kind::GrantRevoked { grant } => tell!(Level::DEBUG, event, endpoint, ?grant, "grant revoked"),
        Kind::StreamOpened { stream } => tell!(Level::DEBUG, event, endpoint, %stream, "stream opened"),
        Kind::StreamReset { stream, code } => tell!(Level::DEBUG, event, endpoint, %stream, %code, "stream reset"),
        Kind::StreamStopped { stream, code } => tell!(Level::DEBUG, event, endpoint, %stream, %code, "stream stopped"),
        // Newer ones than this driver knows.
        kind => tell!(Level::DEBUG, event, endpoint, ?kind, "event"),
    }
}

fn is_defect(error: &SessionError) -> bool {
    matches!(error, SessionError::Transport { code: TransportCode::INTERNAL, .. })
}
