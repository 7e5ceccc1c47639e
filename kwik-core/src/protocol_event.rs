//! What the protocol did, one event after the other: for the logs of an operator, for traces and for metrics.
//!
//! Nothing here changes what the protocol does. An endpoint that is not asked for events makes none, which costs one check
//! where one would be made. Events carry no secret and no byte of an application.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;

use crate::error::{DeadReason, ErrorCode, SessionError, TransportCode};
use crate::id::{GrantId, PathId, SessionHandle, SessionId, StreamId};
use crate::limits::PROTOCOL_EVENTS_MAX;
use crate::status::{GrantStatus, PathState};

/// How much an endpoint tells of what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum EventDetail {
    /// Nothing.
    #[default]
    Off,
    /// Whatever changes: sessions, paths, grants, faults and refusals.
    Changes,
    /// What becomes of every stream too, and the carriers that streams share.
    Streams,
    /// Every frame and packet too.
    Frames,
}

/// What a stream or a path waits for that sends no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockedBy {
    /// The reader of the stream, or the far end of the path, gave no more credit.
    Credit,
    /// The path takes no more: of a path, its congestion window is used; of a stream, that or the path's credit.
    Window,
    /// There is nothing more to send. Of a stream: the application wrote nothing more, and did not finish it.
    Application,
}

/// Something that the protocol did (see [`Endpoint::poll_protocol_event`](crate::Endpoint::poll_protocol_event)).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProtocolEvent {
    /// In which session; `None` if it concerns none yet.
    pub session: Option<SessionHandle>,
    /// On which path of it. What is told of a stream with a path came from the peer; without one, from the application here.
    pub path: Option<PathId>,
    /// What.
    pub kind: ProtocolEventKind,
}

/// What the protocol did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolEventKind {
    /// A session begins, at either end: the other end is at `remote`. A client dials; a server believes a client.
    SessionBegun {
        /// Where the other end is.
        remote: SocketAddr,
    },
    /// Both ends know the session by this id.
    SessionEstablished {
        /// Its id.
        id: SessionId,
    },
    /// The session is over.
    SessionEnded {
        /// Why.
        error: SessionError,
    },
    /// Server: a connection is refused. Its peer hears the code and no more.
    Refused {
        /// Where it came from.
        remote: SocketAddr,
        /// What the peer hears.
        code: TransportCode,
        /// What was wrong: of the issuer, the time, the name or the signature of a ticket, of a credential, or what is taken.
        cause: String,
    },
    /// Client: the primary added a path, and it will be dialled.
    PathAdded {
        /// Where to.
        remote: SocketAddr,
        /// Whose certificate it must show.
        server_name: String,
    },
    /// Client: the primary added a path, which is refused.
    PathRefused {
        /// Where to.
        remote: SocketAddr,
        /// Why.
        reason: DeadReason,
    },
    /// Client: a server that the primary added is dialled.
    PathDialled {
        /// Where to.
        remote: SocketAddr,
    },
    /// The path has another number of carriers of this end: it follows the load.
    CarriersChanged {
        /// Carriers that take packets.
        open: usize,
    },
    /// The path is in another state.
    PathChanged {
        /// Which one.
        state: PathState,
    },
    /// Somebody broke a rule, or ran into a limit. The offender's path is closed, and the session if the path carries it.
    Fault {
        /// How it is told.
        code: TransportCode,
        /// What was wrong.
        detail: String,
    },
    /// Primary: the path may write a range. It is told when the client is.
    GrantIssued {
        /// The grant.
        grant: GrantId,
        /// Of which stream.
        stream: StreamId,
        /// Which bytes.
        range: Range<u64>,
    },
    /// Client: a grant came from the primary, for the path.
    GrantRecorded {
        /// The grant.
        grant: GrantId,
        /// Of which stream.
        stream: StreamId,
        /// Which bytes.
        range: Range<u64>,
    },
    /// Secondary: a grant came that the primary signed.
    GrantAccepted {
        /// The grant.
        grant: GrantId,
        /// Of which stream.
        stream: StreamId,
        /// Which bytes.
        range: Range<u64>,
    },
    /// So many bytes of a grant arrived at the client.
    GrantProgressed {
        /// The grant.
        grant: GrantId,
        /// Bytes.
        delivered: u64,
    },
    /// All of a grant arrived at the client.
    GrantDelivered {
        /// The grant.
        grant: GrantId,
    },
    /// Some of a grant will not arrive.
    GrantLost {
        /// The grant.
        grant: GrantId,
        /// Why.
        code: ErrorCode,
        /// Bytes that are missing.
        missing: u64,
    },
    /// The primary takes a grant back.
    GrantRevoked {
        /// The grant.
        grant: GrantId,
    },
    /// A stream was opened.
    StreamOpened {
        /// Which.
        stream: StreamId,
    },
    /// A writer ended its stream: nothing follows what was written.
    StreamFinished {
        /// Which.
        stream: StreamId,
    },
    /// A writer ended its stream early.
    StreamReset {
        /// Which.
        stream: StreamId,
        /// Its code.
        code: ErrorCode,
    },
    /// A reader wants no more of a stream.
    StreamStopped {
        /// Which.
        stream: StreamId,
        /// Its code.
        code: ErrorCode,
    },
    /// Two writers of a stream contradict each other.
    StreamConflict {
        /// Which.
        stream: StreamId,
        /// Where the first byte differs.
        offset: u64,
    },
    /// A reader lets its stream be written up to here. It is told where frames are.
    StreamLimitRaised {
        /// Which.
        stream: StreamId,
        /// The first offset that may not be written.
        limit: u64,
    },
    /// Nothing more of a stream can be sent now. It is told where frames are.
    StreamBlocked {
        /// Which.
        stream: StreamId,
        /// What it waits for.
        by: BlockedBy,
    },
    /// Bytes of a stream came that were not here yet. It is told where frames are.
    StreamReceived {
        /// Which.
        stream: StreamId,
        /// Which bytes.
        range: Range<u64>,
    },
    /// A frame came.
    FrameReceived {
        /// Its name in docs/PROTOCOL.md.
        frame: &'static str,
    },
    /// A frame, or a packet on a carrier, was handed to QUIC.
    FrameSent {
        /// Its name in docs/PROTOCOL.md.
        frame: &'static str,
    },
    /// So many events were not taken in time, and are lost.
    Missed {
        /// How many.
        events: u64,
    },
}

impl ProtocolEventKind {
    /// Whether this end ended something for a defect of its own. An operator should report it.
    #[must_use]
    pub fn is_defect(&self) -> bool {
        match self {
            Self::SessionEnded { error } => {
                matches!(error, SessionError::Transport { code: TransportCode::INTERNAL, .. })
            }
            Self::Fault { code, .. } => *code == TransportCode::INTERNAL,
            _ => false,
        }
    }

    /// What the client says of a grant.
    pub(crate) fn of_grant(grant: GrantId, status: &GrantStatus) -> Self {
        match status {
            GrantStatus::Progress { delivered } => Self::GrantProgressed { grant, delivered: *delivered },
            GrantStatus::Delivered => Self::GrantDelivered { grant },
            GrantStatus::Lost { code, missing } => {
                let missing = missing.iter().map(|range| range.end - range.start).sum();
                Self::GrantLost { grant, code: *code, missing }
            }
        }
    }
}

/// Where events wait to be taken.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    detail: EventDetail,
    queue: VecDeque<ProtocolEvent>,
    missed: u64,
}

impl EventLog {
    pub(crate) fn new(detail: EventDetail) -> Self {
        Self { detail, ..Self::default() }
    }

    pub(crate) fn detail(&self) -> EventDetail {
        self.detail
    }

    /// Something changed.
    pub(crate) fn change(&mut self, path: impl Into<Option<PathId>>, kind: impl FnOnce() -> ProtocolEventKind) {
        if self.detail >= EventDetail::Changes {
            self.push(ProtocolEvent { session: None, path: path.into(), kind: kind() });
        }
    }

    /// Something became of a stream, or of the carriers.
    pub(crate) fn stream(&mut self, path: impl Into<Option<PathId>>, kind: impl FnOnce() -> ProtocolEventKind) {
        if self.detail >= EventDetail::Streams {
            self.push(ProtocolEvent { session: None, path: path.into(), kind: kind() });
        }
    }

    /// A frame went by.
    pub(crate) fn frame(&mut self, path: impl Into<Option<PathId>>, kind: impl FnOnce() -> ProtocolEventKind) {
        if self.detail >= EventDetail::Frames {
            self.push(ProtocolEvent { session: None, path: path.into(), kind: kind() });
        }
    }

    /// Takes over what happened in a session.
    pub(crate) fn append(&mut self, session: SessionHandle, of_session: &mut Self) {
        self.take_over(of_session, |event| event.session = Some(session));
    }

    /// Takes over what happened on a path.
    pub(crate) fn append_path(&mut self, path: PathId, of_path: &mut Self) {
        self.take_over(of_path, |event| event.path = Some(path));
    }

    fn take_over(&mut self, other: &mut Self, mark: impl Fn(&mut ProtocolEvent)) {
        if other.queue.is_empty() {
            // Only a queue that was full missed events.
            return;
        }
        self.missed = self.missed.saturating_add(std::mem::take(&mut other.missed));
        for mut event in other.queue.drain(..) {
            mark(&mut event);
            self.push(event);
        }
    }

    pub(crate) fn poll(&mut self) -> Option<ProtocolEvent> {
        if let Some(event) = self.queue.pop_front() {
            return Some(event);
        }
        let events = std::mem::take(&mut self.missed);
        (events > 0).then_some(ProtocolEvent { session: None, path: None, kind: ProtocolEventKind::Missed { events } })
    }

    fn push(&mut self, event: ProtocolEvent) {
        if self.queue.len() < PROTOCOL_EVENTS_MAX {
            self.queue.push_back(event);
        } else {
            self.missed = self.missed.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_nobody_takes_are_counted_and_cost_no_more_memory() {
        let mut log = EventLog::new(EventDetail::Frames);
        for _ in 0..PROTOCOL_EVENTS_MAX + 3 {
            log.frame(PathId(1), || ProtocolEventKind::FrameSent { frame: "GRANT" });
        }
        let taken = std::iter::from_fn(|| log.poll()).collect::<Vec<_>>();
        assert_eq!(taken.len(), PROTOCOL_EVENTS_MAX + 1);
        assert_eq!(taken.last().map(|event| &event.kind), Some(&ProtocolEventKind::Missed { events: 3 }));
    }

    #[test]
    fn what_is_not_asked_for_is_not_made() {
        let details = [EventDetail::Off, EventDetail::Changes, EventDetail::Streams, EventDetail::Frames];
        for (expected, detail) in details.into_iter().enumerate() {
            let mut log = EventLog::new(detail);
            let mut made = 0;
            log.change(None, || {
                made += 1;
                ProtocolEventKind::GrantRevoked { grant: GrantId(1) }
            });
            log.stream(None, || {
                made += 1;
                ProtocolEventKind::StreamOpened { stream: StreamId(0) }
            });
            log.frame(PathId(1), || {
                made += 1;
                ProtocolEventKind::FrameSent { frame: "GRANT" }
            });
            assert_eq!((made, std::iter::from_fn(|| log.poll()).count()), (expected, expected));
        }
    }
}
