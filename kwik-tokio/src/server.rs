//! The session of a server: a client's interface, and what only a server may do.

use std::{fmt, net::SocketAddr};

use bytes::Bytes;
use kwik_core::{
    AddPathError as CoreAddPathError, Dir, ErrorCode, OpenError, PathEvent, PathId, PathInfo, PathState, PathTarget,
    RawError, RawPacket, Role, SessionError, SessionId, SessionStats, TransportCode,
};
use tokio::sync::broadcast;

use crate::{
    endpoint::now,
    error::{AddPathError, RemovePathError, SendRawError, Undelivered},
    session::SessionRef,
    stream::{RecvStream, SendStream, ServerSendStream, ServerStream},
    waiters::contained,
};

/// What a path ends with, and a raw packet, that the client said nothing of.
const UNANSWERED: ErrorCode = ErrorCode::Transport(TransportCode::UNANSWERED);

/// A session at a server.
///
/// Clones are handles of the same session. When the last one and the last stream are dropped, the session closes with
/// code 0, after what was finished is delivered. At a secondary a session is one path of the client's session: its
/// accepted streams are the ranges that the primary delegated to it.
#[derive(Clone)]
pub struct ServerSession {
    session: SessionRef,
    id: SessionId,
    role: Role,
    remote: SocketAddr,
}

impl ServerSession {
    /// `None` if the session is gone already.
    pub(crate) fn new(session: SessionRef) -> Option<Self> {
        let (id, role, remote) = session.look(|core| (core.id(), core.role(), core.remote_address()))?;
        Some(Self { session, id: id?, role, remote: remote? })
    }

    /// Opens a bidirectional stream at once. Primary only.
    ///
    /// # Errors
    /// [`OpenError`], when the client's limit is reached, this server is a secondary, or the session ended.
    pub fn open_stream(&self) -> Result<ServerStream, OpenError> {
        self.session.open(Dir::Bi).map(ServerStream::new)
    }

    /// Opens a bidirectional stream as soon as the client's limit allows it. Primary only.
    ///
    /// # Errors
    /// [`OpenError`], when this server is a secondary or the session ended.
    ///
    /// # Cancel safety
    /// Safe: a dropped call opened nothing.
    pub async fn open_stream_sync(&self) -> Result<ServerStream, OpenError> {
        self.session.open_sync(Dir::Bi).await.map(ServerStream::new)
    }

    /// Waits for a bidirectional stream that the client opened; at a secondary, for a range delegated to it.
    ///
    /// # Errors
    /// [`SessionError`], when the session ended.
    ///
    /// # Cancel safety
    /// Safe: a dropped call took no stream.
    pub async fn accept_stream(&self) -> Result<ServerStream, SessionError> {
        self.session.accept(Dir::Bi).await.map(ServerStream::new)
    }

    /// Opens a unidirectional stream at once. Primary only.
    ///
    /// # Errors
    /// [`OpenError`], when the client's limit is reached, this server is a secondary, or the session ended.
    pub fn open_uni_stream(&self) -> Result<ServerSendStream, OpenError> {
        self.session.open(Dir::Uni).map(SendStream::new).map(ServerSendStream::new)
    }

    /// Opens a unidirectional stream as soon as the client's limit allows it. Primary only.
    ///
    /// # Errors
    /// [`OpenError`], when this server is a secondary or the session ended.
    ///
    /// # Cancel safety
    /// Safe: a dropped call opened nothing.
    pub async fn open_uni_stream_sync(&self) -> Result<ServerSendStream, OpenError> {
        self.session.open_sync(Dir::Uni).await.map(SendStream::new).map(ServerSendStream::new)
    }

    /// Waits for a unidirectional stream that the client opened.
    ///
    /// # Errors
    /// [`SessionError`], when the session ended.
    ///
    /// # Cancel safety
    /// Safe: a dropped call took no stream.
    pub async fn accept_uni_stream(&self) -> Result<RecvStream, SessionError> {
        self.session.accept(Dir::Uni).await.map(RecvStream::new)
    }

    /// Delivers what was finished, at most for [`Limits::drain_timeout`](kwik_core::Limits), then closes the session.
    /// The peer learns `code` and `reason`. A second call waits for the first.
    ///
    /// # Errors
    /// [`Undelivered`] names the streams that were finished at this end and may not have arrived whole: time was up, or the
    /// session had ended otherwise. The peer is told that it does not have everything.
    ///
    /// # Cancel safety
    /// Safe: the session closes all the same.
    pub async fn close(&self, code: u32, reason: &str) -> Result<(), Undelivered> {
        self.session.close(code, reason).await
    }

    /// Waits until the session ends, and returns how.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn closed(&self) -> SessionError {
        self.session.closed().await
    }

    /// The session's id, the same at every server of the session.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whether this server is the session's primary or a secondary.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Where the client is now.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.session.look(|session| session.remote_address()).flatten().unwrap_or(self.remote)
    }

    /// What the session did so far.
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        self.session.stats()
    }

    /// Has the client dial another server, and waits until that path is active, at most for
    /// [`Limits::answer_timeout`](kwik_core::Limits). Primary only.
    ///
    /// # Errors
    /// [`AddPathError`], when the path was refused or died before it was active, with the reason, or when the client says
    /// nothing of it.
    ///
    /// # Cancel safety
    /// A dropped call leaves the dial under way; [`all_paths`](Self::all_paths) shows what becomes of it.
    pub async fn add_path(&self, target: PathTarget) -> Result<PathId, AddPathError> {
        let added = self.session.command(|session, _| session.add_path(now(), target));
        let path = added.unwrap_or(Err(CoreAddPathError::SessionClosed)).map_err(|error| match error {
            CoreAddPathError::NotPrimary => AddPathError::NotPrimary,
            CoreAddPathError::LimitReached { limit } => AddPathError::LimitReached { limit },
            CoreAddPathError::InvalidServerName(name) => AddPathError::InvalidServerName(name),
            CoreAddPathError::InvalidAddress(address) => AddPathError::InvalidAddress(address),
            CoreAddPathError::SessionClosed => AddPathError::Session(self.session.end()),
        })?;
        let settled = self.session.wait(&self.session.signals().paths, |_| match self.path_state(path)? {
            PathState::Active | PathState::Suspect => Some(Ok(path)),
            PathState::Dead(reason) if reason.code == UNANSWERED => Some(Err(AddPathError::Unanswered { path })),
            PathState::Dead(reason) => Some(Err(AddPathError::Died { path, reason })),
            PathState::Connecting | PathState::Authenticating | PathState::Closing => None,
        });
        settled.await.map_err(AddPathError::Session)?
    }

    /// Has the client leave a path, and waits until it did, at most for [`Limits::answer_timeout`](kwik_core::Limits).
    /// Ranges delegated to it and not delivered are lost. Primary only.
    ///
    /// # Errors
    /// [`RemovePathError`], when there is no such path to remove, or the client does not say that it left it.
    ///
    /// # Cancel safety
    /// A dropped call leaves the removal under way.
    pub async fn remove_path(&self, path: PathId) -> Result<(), RemovePathError> {
        // With the session its paths are gone as well.
        self.session.command(|session, _| session.remove_path(path)).unwrap_or(Ok(()))?;
        let removed = self.session.wait(&self.session.signals().paths, |_| match self.path_state(path) {
            Some(PathState::Dead(reason)) if reason.code == UNANSWERED => {
                Some(Err(RemovePathError::Unanswered { path }))
            }
            None | Some(PathState::Dead(_)) => Some(Ok(())),
            Some(_) => None,
        });
        removed.await.unwrap_or(Ok(()))
    }

    /// The paths that carry data now. A secondary knows only its own.
    #[must_use]
    pub fn active_paths(&self) -> Vec<PathInfo> {
        self.session.look(|session| session.active_paths()).unwrap_or_default()
    }

    /// The paths that died, each with its reason. A secondary knows only its own.
    #[must_use]
    pub fn dead_paths(&self) -> Vec<PathInfo> {
        self.session.look(|session| session.dead_paths()).unwrap_or_default()
    }

    /// Every path since the session began. A secondary knows only its own.
    #[must_use]
    pub fn all_paths(&self) -> Vec<PathInfo> {
        self.session.look(|session| session.all_paths()).unwrap_or_default()
    }

    /// What happens to the session's paths from now on.
    #[must_use]
    pub fn path_events(&self) -> PathEvents {
        PathEvents { events: self.session.with(|waiters, _| waiters.path_events()), missed: 0 }
    }

    /// Sends bytes through the client to the server at `path` and waits until they are delivered. At a secondary,
    /// `path` is [`PathId::PRIMARY`]. Waits while the queue to that path is full, and then for the receipt at most for
    /// [`Limits::answer_timeout`](kwik_core::Limits).
    ///
    /// # Errors
    /// [`SendRawError`], when the packet was refused, or no receipt came.
    ///
    /// # Cancel safety
    /// A dropped call may have sent the packet.
    pub async fn send_raw(&self, path: PathId, data: impl Into<Bytes>) -> Result<(), SendRawError> {
        let data = data.into();
        let signal = &self.session.signals().raw_sent;
        let queued = self.session.wait(signal, |_| self.queue_raw(path, &data)).await;
        let receipt = queued.map_err(SendRawError::Session)?.map_err(|error| match error {
            RawError::TooLong { len } => SendRawError::TooLong { len },
            RawError::PathUnknown(path) => SendRawError::PathUnknown(path),
            RawError::OwnPath(path) => SendRawError::OwnPath(path),
            RawError::Blocked | RawError::NotServer | RawError::SessionClosed => {
                SendRawError::Session(self.session.end())
            }
        })?;
        let answer = self.session.wait(signal, |_| receipt.answer()).await;
        answer.map_err(SendRawError::Session)?.map_err(|code| match code {
            UNANSWERED => SendRawError::Unanswered,
            code => SendRawError::Refused(code),
        })
    }

    /// Waits for a raw packet from another server of the session.
    ///
    /// # Errors
    /// [`SessionError`], when the session ended.
    ///
    /// # Cancel safety
    /// Safe: a dropped call took no packet.
    pub async fn recv_raw(&self) -> Result<RawPacket, SessionError> {
        let next = |session: &SessionRef| session.command(|session, _| session.recv_raw()).flatten();
        self.session.wait(&self.session.signals().raw_received, next).await
    }

    fn path_state(&self, path: PathId) -> Option<PathState> {
        self.session.look(|session| session.path(path)).flatten().map(|info| info.state)
    }

    /// Queues a raw packet; `None` while the queue is full.
    fn queue_raw(&self, path: PathId, data: &Bytes) -> Option<Result<Receipt<'_>, RawError>> {
        let queued = self.session.command(|session, waiters| {
            let sequence = session.send_raw(path, data.clone())?;
            waiters.receipts.insert((path, sequence), None);
            Ok(Receipt { session: &self.session, packet: (path, sequence) })
        });
        match queued.unwrap_or(Err(RawError::SessionClosed)) {
            Err(RawError::Blocked) => None,
            queued => Some(queued),
        }
    }
}

impl fmt::Debug for ServerSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSession").field("id", &self.id).field("role", &self.role).finish_non_exhaustive()
    }
}

/// The wait for what becomes of one raw packet.
struct Receipt<'a> {
    session: &'a SessionRef,
    packet: (PathId, u64),
}

impl Receipt<'_> {
    fn answer(&self) -> Option<Result<(), ErrorCode>> {
        self.session.with(|waiters, _| waiters.receipts.get(&self.packet).copied().flatten())
    }
}

impl Drop for Receipt<'_> {
    fn drop(&mut self) {
        contained(|| {
            self.session.with(|waiters, _| waiters.receipts.remove(&self.packet));
        });
    }
}

/// Receives what happens to the paths of a session.
#[derive(Debug)]
pub struct PathEvents {
    events: broadcast::Receiver<PathEvent>,
    missed: u64,
}

impl PathEvents {
    /// Waits for the next event; `None` once the session ended. Keeps the latest 256 events for a slow reader.
    ///
    /// # Cancel safety
    /// Safe: a dropped call took no event.
    pub async fn recv(&mut self) -> Option<PathEvent> {
        loop {
            match self.events.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(missed)) => self.missed = self.missed.saturating_add(missed),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// How many events were dropped because this reader was slow. [`ServerSession::all_paths`] tells the present state.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }
}
