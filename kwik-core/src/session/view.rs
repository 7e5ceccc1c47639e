//! What an application sees of a session and its streams, without any effect on them.

use std::net::SocketAddr;
use std::time::Duration;

use super::common::Common;
use super::event::GrantInfo;
use super::event::{PathInfo, Role, SessionStats};
use super::{RoleState, Session};
use crate::auth::PublicIdentity;
use crate::error::{ErrorCode, SessionError};
use crate::id::{GrantId, PathId, SessionId, StreamHandle, StreamId};
use crate::status::{GrantStatus, PathState};

/// Looks: they change nothing and cost no turn.
impl Session {
    /// A look at one stream. A stream that is gone has nothing to show.
    #[must_use]
    pub fn stream(&self, stream: StreamHandle) -> Stream<'_> {
        Stream { session: self, stream }
    }

    /// The session's id. A client learns it from the primary's WELCOME, one round trip after the handshake.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.common.id
    }

    /// The part this end plays.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.role {
            RoleState::Client(_) => Role::Client,
            RoleState::Primary(_) => Role::Primary,
            RoleState::Secondary(_) => Role::Secondary,
        }
    }

    /// Why the session ended, once it has.
    #[must_use]
    pub fn close_reason(&self) -> Option<&SessionError> {
        self.common.phase.error()
    }

    /// Once the session ended: the streams that were finished at this end and of which the peer may not have every byte. At a
    /// primary, what it delegated of a stream counts too. Streams that were reset or stopped are not among them, nor those
    /// that nobody finished.
    #[must_use]
    pub fn undelivered(&self) -> &[StreamId] {
        &self.common.undelivered
    }

    /// The address of the far end of the path that was there first; `None` once that path is gone.
    #[must_use]
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.common.main_address()
    }

    /// Measurements. The number of paths bounds the cost.
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        let Common { paths, streams, .. } = &self.common;
        SessionStats {
            paths: paths.stats(),
            streams_open: streams.open_streams(),
            bytes_buffered: streams.memory_bytes(),
        }
    }
}

/// What a server sees of its session. A client sees nothing of it.
impl Session {
    /// How far a delegation came; `None` if it is unknown or was forgotten.
    #[must_use]
    pub fn delegation(&self, grant: GrantId) -> Option<GrantStatus> {
        match &self.role {
            RoleState::Primary(primary) => primary.delegation(grant).cloned(),
            RoleState::Client(_) | RoleState::Secondary(_) => None,
        }
    }

    /// One path of the session.
    #[must_use]
    pub fn path(&self, path: PathId) -> Option<PathInfo> {
        match &self.role {
            _ if path == self.common.paths.main_id() => self.own_path(),
            RoleState::Primary(primary) => primary.path(path).cloned(),
            RoleState::Client(_) | RoleState::Secondary(_) => None,
        }
    }

    /// The paths in use.
    #[must_use]
    pub fn active_paths(&self) -> Vec<PathInfo> {
        self.all_paths().into_iter().filter(|path| path.state.is_usable()).collect()
    }

    /// The paths that are gone.
    #[must_use]
    pub fn dead_paths(&self) -> Vec<PathInfo> {
        self.all_paths().into_iter().filter(|path| path.state.is_dead()).collect()
    }

    /// Every path since the session began, this server's own first. A secondary knows only its own.
    #[must_use]
    pub fn all_paths(&self) -> Vec<PathInfo> {
        let own = self.own_path();
        let others = match &self.role {
            RoleState::Primary(primary) => primary.paths().cloned().collect(),
            RoleState::Client(_) | RoleState::Secondary(_) => Vec::new(),
        };
        own.into_iter().chain(others).collect()
    }

    /// This server's own path, measured here; from its last figures once it is gone.
    fn own_path(&self) -> Option<PathInfo> {
        let paths = &self.common.paths;
        let id = paths.main_id();
        let identity = self.own_identity()?;
        let info = |address, state: PathState, rtt: Duration, rtt_min: Duration, bytes, bytes_outstanding| PathInfo {
            id,
            address,
            identity,
            state,
            rtt,
            rtt_min,
            rate_bytes_per_second: 0,
            bytes,
            bytes_outstanding,
        };
        if let Some(path) = paths.main() {
            let (address, state) = (path.remote_address(), path.state().clone());
            let (bytes, outstanding) = (path.bytes_acknowledged(), path.bytes_outstanding());
            return Some(info(address, state, path.rtt(), path.rtt_min(), bytes, outstanding));
        }
        let closed = paths.closed(id)?;
        Some(info(closed.address, closed.state.clone(), closed.rtt, closed.rtt_min, closed.bytes_acknowledged, 0))
    }

    fn own_identity(&self) -> Option<PublicIdentity> {
        match &self.role {
            RoleState::Client(_) => None,
            RoleState::Primary(primary) => Some(primary.own_identity()),
            RoleState::Secondary(secondary) => Some(secondary.own_identity()),
        }
    }
}

#[cfg(feature = "__test_exports")]
impl Session {
    /// Panics if what the streams keep of credit and buffers does not add up.
    #[doc(hidden)]
    pub fn assert_ledger(&self) {
        self.common.streams.assert_ledger();
    }

    /// What the session holds of the endpoint's memory, in bytes.
    #[doc(hidden)]
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.claim()
    }
}

/// A look at one stream of a [`Session`].
#[derive(Clone, Copy)]
pub struct Stream<'a> {
    session: &'a Session,
    stream: StreamHandle,
}

impl Stream<'_> {
    /// The stream's id; several handles of a secondary may share one. `None` once it is gone.
    #[must_use]
    pub fn id(&self) -> Option<StreamId> {
        self.session.common.streams.stream_id(self.stream)
    }

    /// What a secondary was granted; `None` on other streams.
    #[must_use]
    pub fn grant(&self) -> Option<GrantInfo> {
        let (grant, range) = self.session.common.streams.grant(self.stream)?;
        Some(GrantInfo { grant, range })
    }

    /// Whether everything was sent and acknowledged, or the sending half ended otherwise.
    #[must_use]
    pub fn is_send_done(&self) -> bool {
        self.session.common.streams.is_send_done(self.stream)
    }

    /// How far the peer lets the stream be written now, as an offset. What lies beyond waits. `None` without a sending half.
    #[must_use]
    pub fn credit(&self) -> Option<u64> {
        self.session.common.streams.send_limit(self.stream)
    }

    /// Bytes written here that were not handed to QUIC yet.
    #[must_use]
    pub fn bytes_buffered(&self) -> usize {
        self.session.common.streams.send_buffered(self.stream)
    }

    /// Why the peer stopped this end's writing, if it did.
    #[must_use]
    pub fn stop_code(&self) -> Option<ErrorCode> {
        self.session.common.streams.stop_code(self.stream)
    }
}
