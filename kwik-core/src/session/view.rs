//! What an application does with a session and its streams: borrowed views of the machine.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;

use super::event::{DelegateError, GrantInfo, Role, SessionStats};
use super::primary::Extent;
use super::{Machine, RoleState, path_stats};
use crate::error::{ErrorCode, SessionError};
use crate::id::{Dir, PathId, SessionId, StreamHandle, StreamId, StreamOffset};
use crate::stream::{Chunk, ClosedStream, FinishError, OpenError, ReadError, WriteError};

/// A session, borrowed from its [`Endpoint`](crate::Endpoint). After every call that changes something the endpoint is
/// to be drained; to look costs nothing, and neither does a read that is blocked.
pub struct Session<'a>(pub(super) &'a mut Machine);

impl<'a> Session<'a> {
    pub(crate) fn new(machine: &'a mut Machine) -> Self {
        Self(machine)
    }
}

impl Session<'_> {
    /// Opens a stream. Its first bytes may be written at once; the peer hears of the stream even if none are
    /// (PROTOCOL.md §5).
    ///
    /// # Errors
    /// [`OpenError::LimitReached`] and [`OpenError::BudgetTaken`] pass; an `Available` event tells when.
    pub fn open_stream(&mut self, dir: Dir) -> Result<StreamHandle, OpenError> {
        if !self.0.is_open() {
            return Err(OpenError::SessionClosed);
        }
        self.0.command().streams.open(dir, 0)
    }

    /// The next stream that the peer opened; at a secondary, the next delegation.
    pub fn accept_stream(&mut self, dir: Dir) -> Option<StreamHandle> {
        self.0.command().streams.accept(dir)
    }

    /// A view of one stream. Calls on a stream that is gone return errors.
    pub fn stream(&mut self, stream: StreamHandle) -> Stream<'_> {
        Stream { machine: self.0, stream }
    }

    /// Closes the session: what was finished is delivered first, for at most
    /// [`Limits::drain_timeout`](crate::Limits::drain_timeout). A second call changes nothing (PROTOCOL.md §12).
    pub fn close(&mut self, now: Instant, code: u32, reason: &str) {
        self.0.command().close(now, code, reason);
    }

    /// The session's id. A client learns it from the primary's WELCOME, one round trip after the handshake.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.0.id
    }

    /// The part this end plays.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.0.role {
            RoleState::Client(_) => Role::Client,
            RoleState::Primary(_) => Role::Primary,
            RoleState::Secondary(_) => Role::Secondary,
        }
    }

    /// Why the session ended, once it has.
    #[must_use]
    pub fn close_reason(&self) -> Option<&SessionError> {
        self.0.phase.error()
    }

    /// Once the session ended: the streams that were finished at this end and of which the peer may not have every byte. At a
    /// primary, what it delegated of a stream counts too. Streams that were reset or stopped are not among them, nor those
    /// that nobody finished.
    #[must_use]
    pub fn undelivered(&self) -> &[StreamId] {
        &self.0.undelivered
    }

    /// The address of the far end of the path that was there first; `None` once that path is gone.
    #[must_use]
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.0.home_address()
    }

    /// Measurements. The number of paths bounds the cost.
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        let live = self.0.paths.iter().map(|(id, path)| path_stats(*id, path));
        let mut paths: Vec<_> = self.0.gone.iter().cloned().chain(live).collect();
        paths.sort_by_key(|path| path.id);
        SessionStats {
            paths,
            streams_open: self.0.streams.open_streams(),
            bytes_buffered: self.0.streams.memory_bytes(),
        }
    }
}

#[cfg(feature = "__test_exports")]
impl Session<'_> {
    /// Panics if what the streams keep of credit and buffers does not add up.
    #[doc(hidden)]
    pub fn assert_ledger(&self) {
        self.0.streams.assert_ledger();
    }

    /// What the session holds of the endpoint's memory, in bytes.
    #[doc(hidden)]
    #[must_use]
    pub fn claim(&self) -> u64 {
        self.0.claim()
    }

    /// Client: which path brought which range of which stream since the last call. The first call begins to note it.
    #[doc(hidden)]
    pub fn take_supplied(&mut self) -> Vec<(StreamId, Range<u64>, PathId)> {
        match &mut self.0.role {
            RoleState::Client(client) => std::mem::take(client.supplied.get_or_insert_default()),
            RoleState::Primary(_) | RoleState::Secondary(_) => Vec::new(),
        }
    }
}

/// One stream of a session, borrowed from its [`Session`].
pub struct Stream<'a> {
    machine: &'a mut Machine,
    stream: StreamHandle,
}

impl Stream<'_> {
    /// The next bytes in order, at most `max` of them.
    ///
    /// # Errors
    /// [`ReadError::Blocked`] passes; a `Readable` event tells when. [`ReadError::Finished`] is the end.
    pub fn read(&mut self, max: usize) -> Result<Chunk, ReadError> {
        self.take(max, true)
    }

    /// Any bytes that arrived, the lowest first. The stream cannot be read in order afterwards.
    ///
    /// # Errors
    /// As [`Stream::read`].
    pub fn read_unordered(&mut self, max: usize) -> Result<Chunk, ReadError> {
        self.take(max, false)
    }

    fn take(&mut self, max: usize, ordered: bool) -> Result<Chunk, ReadError> {
        let read = self.machine.streams.read(self.stream, max, ordered);
        if read == Err(ReadError::Blocked) {
            // That changed nothing.
            return read;
        }
        self.machine.command();
        let chunk = read?;
        if let (RoleState::Client(client), Some((id, floor))) =
            (&mut self.machine.role, self.machine.streams.read_floor(self.stream))
        {
            client.grants.forget_below(id, floor);
        }
        Ok(chunk)
    }

    /// Copies a prefix of `data` into the send buffer and returns its length.
    ///
    /// # Errors
    /// [`WriteError::Blocked`] passes; a `Writable` event tells when.
    pub fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        self.machine.command().streams.write(self.stream, data)
    }

    /// Takes a prefix of `data` without copying it, and returns its length.
    ///
    /// # Errors
    /// As [`Stream::write`].
    pub fn write_chunk(&mut self, data: Bytes) -> Result<usize, WriteError> {
        self.machine.command().streams.write_chunk(self.stream, data)
    }

    /// Takes a prefix of `data` to be sent at `offset`, where nothing was written or delegated yet, and returns its
    /// length. The cursor of [`Stream::write`] does not move (PROTOCOL.md §6).
    ///
    /// # Errors
    /// As [`Stream::write`], and [`WriteError::Overlap`].
    pub fn write_at(&mut self, offset: StreamOffset, data: Bytes) -> Result<usize, WriteError> {
        self.machine.command().streams.write_at(self.stream, offset.0, data)
    }

    /// A write that was [`Blocked`](WriteError::Blocked) is not wanted any more. The room that it waited for, or was told
    /// of, is another's; if nothing is said, that one may wait longer.
    pub fn cancel_write(&mut self) {
        self.machine.command().streams.cancel_write(self.stream);
    }

    /// Ends the stream after all that was written or delegated. Holes below its end may still be filled, and must be if a
    /// delegated range is lost: the reader waits for it. At a secondary: ends the part.
    ///
    /// # Errors
    /// [`FinishError::Stopped`] if the peer wants no more.
    pub fn finish(&mut self) -> Result<(), FinishError> {
        self.machine.command().streams.finish(self.stream)
    }

    /// Drops what was not sent; the peer's reader gets `code`. At a secondary: gives the rest of the part back.
    ///
    /// # Errors
    /// If the stream has no open sending half, or that changes nothing: it was reset before, or everything was sent, its end
    /// included.
    pub fn reset(&mut self, code: u32) -> Result<(), ClosedStream> {
        self.machine.command().streams.reset(self.stream, ErrorCode::Application(code))
    }

    /// Asks every writer of the stream to stop; what is unread is dropped.
    ///
    /// # Errors
    /// If the stream has no receiving half, or that has ended: it was read to its end, it was stopped, or the peer reset
    /// it.
    pub fn stop(&mut self, code: u32) -> Result<(), ClosedStream> {
        let code = ErrorCode::Application(code);
        if self.machine.streams.can_stop(self.stream) {
            self.on_unwanted(code);
        }
        self.machine.command().streams.stop(self.stream, code)
    }

    /// Streams of a higher priority are sent first; equals take turns. Streams begin with 0.
    ///
    /// # Errors
    /// If the stream has no sending half, or that has ended: everything was acknowledged, it was reset or stopped.
    pub fn set_priority(&mut self, priority: i32) -> Result<(), ClosedStream> {
        self.machine.command().streams.set_priority(self.stream, priority)
    }

    /// Primary: leaves the next `len` bytes to the server of `path`, which gets `request`. The cursor moves past them
    /// (PROTOCOL.md §8).
    ///
    /// # Errors
    /// Nothing was reserved then.
    pub fn delegate(&mut self, path: PathId, len: u64, request: Bytes) -> Result<GrantInfo, DelegateError> {
        self.machine.command().delegate(self.stream, path, Extent::Next(len), request)
    }

    /// Primary: leaves a range that nobody wrote to the server of `path`.
    ///
    /// # Errors
    /// As [`Stream::delegate`].
    pub fn delegate_range(
        &mut self,
        path: PathId,
        range: Range<u64>,
        request: Bytes,
    ) -> Result<GrantInfo, DelegateError> {
        self.machine.command().delegate(self.stream, path, Extent::At(range), request)
    }

    /// The application writes no more. What it wrote is finished.
    pub fn release_send(&mut self) {
        self.machine.command().streams.release_send(self.stream);
    }

    /// The application reads no more. An unfinished stream is stopped with code 0.
    pub fn release_recv(&mut self) {
        self.on_unwanted(ErrorCode::Application(0));
        self.machine.command().streams.release_recv(self.stream);
    }

    /// The stream's id; several handles of a secondary may share one. `None` once it is gone.
    #[must_use]
    pub fn id(&self) -> Option<StreamId> {
        self.machine.streams.stream_id(self.stream)
    }

    /// What a secondary was granted; `None` on other streams.
    #[must_use]
    pub fn grant(&self) -> Option<GrantInfo> {
        let (grant, range) = self.machine.streams.grant(self.stream)?;
        Some(GrantInfo { grant, range })
    }

    /// Whether everything was sent and acknowledged, or the sending half ended otherwise.
    #[must_use]
    pub fn is_send_done(&self) -> bool {
        self.machine.streams.is_send_done(self.stream)
    }

    /// Why the peer stopped this end's writing, if it did.
    #[must_use]
    pub fn stop_code(&self) -> Option<ErrorCode> {
        self.machine.streams.stop_code(self.stream)
    }

    fn on_unwanted(&mut self, code: ErrorCode) {
        if let Some(id) = self.machine.streams.stream_id(self.stream) {
            self.machine.on_stream_unwanted(id, code);
        }
    }
}
