//! What an application does with a session and its streams.

use std::ops::{Deref, Range};
use std::time::Instant;

use bytes::Bytes;

use super::event::{AddPathError, DelegateError, GrantInfo, PathError, PathTarget, RawError, RawPacket};
use super::primary::Extent;
use super::view::Stream;
use super::{Clock, RoleState, Session};
use crate::error::ErrorCode;
use crate::id::{Dir, GrantId, PathId, StreamHandle, StreamOffset};
use crate::protocol_event::ProtocolEventKind;
use crate::stream::{Chunk, ClosedStream, FinishError, OpenError, ReadError, WriteError};

/// A session, borrowed from its [`Endpoint`](crate::Endpoint) to do something with it. The endpoint is to be drained after
/// every call that changes something; a read that is blocked changes nothing.
pub struct SessionMut<'a> {
    session: &'a mut Session,
    clock: Clock,
}

impl<'a> SessionMut<'a> {
    pub(crate) fn new(session: &'a mut Session, clock: Clock) -> Self {
        Self { session, clock }
    }
}

impl Deref for SessionMut<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session
    }
}

impl SessionMut<'_> {
    /// Opens a stream. Its first bytes may be written at once; the peer hears of the stream even if none are
    /// (PROTOCOL.md §5).
    ///
    /// # Errors
    /// [`OpenError::LimitReached`] and [`OpenError::BudgetTaken`] pass; an `Available` event tells when.
    pub fn open_stream(&mut self, dir: Dir) -> Result<StreamHandle, OpenError> {
        if !self.session.common.is_open() {
            return Err(OpenError::SessionClosed);
        }
        let common = &mut self.session.command().common;
        let opened = common.streams.open(dir, 0)?;
        common.note_stream(common.noted_stream(opened), |stream| ProtocolEventKind::StreamOpened { stream });
        Ok(opened)
    }

    /// The next stream that the peer opened; at a secondary, the next delegation.
    pub fn accept_stream(&mut self, dir: Dir) -> Option<StreamHandle> {
        self.session.command().common.streams.accept(dir)
    }

    /// One stream, to do something with it. Calls on a stream that is gone return errors.
    pub fn stream_mut(&mut self, stream: StreamHandle) -> StreamMut<'_> {
        StreamMut { session: self.session, stream }
    }

    /// Closes the session: what was finished is delivered first, for at most
    /// [`Limits::drain_timeout`](crate::Limits::drain_timeout). A second call changes nothing (PROTOCOL.md §12).
    pub fn close(&mut self, now: Instant, code: u32, reason: &str) {
        self.session.command().close(now, code, reason);
    }

    /// Primary: makes the client dial another server. A [`PathEvent`](super::PathEvent) tells when it joined, or why it
    /// did not. The path may be delegated to before it joined (PROTOCOL.md §8).
    ///
    /// # Errors
    /// Nothing was sent then.
    pub fn add_path(&mut self, now: Instant, target: PathTarget) -> Result<PathId, AddPathError> {
        let moment = self.clock.at(now);
        let (primary, common) = self.session.command().as_primary().ok_or(AddPathError::NotPrimary)?;
        primary.add_path(common, moment, target)
    }

    /// Primary: makes the client close a path. A [`PathEvent::Dead`](super::PathEvent::Dead) follows. Removing a path
    /// again changes nothing.
    ///
    /// # Errors
    /// If there is no such path.
    pub fn remove_path(&mut self, path: PathId) -> Result<(), PathError> {
        let (primary, common) = self.session.command().as_primary().ok_or(PathError::NotPrimary)?;
        primary.remove_path(common, path)
    }

    /// Signs a raw packet for the server of another path. A `RawStatus` event with the returned sequence number tells
    /// what became of it (PROTOCOL.md §7).
    ///
    /// # Errors
    /// [`RawError::Blocked`] passes when a receipt comes.
    pub fn send_raw(&mut self, to: PathId, payload: Bytes) -> Result<u64, RawError> {
        if !self.session.common.is_open() {
            return Err(RawError::SessionClosed);
        }
        match &mut self.session.command().role {
            RoleState::Client(_) => Err(RawError::NotServer),
            RoleState::Secondary(secondary) => secondary.raw.send(to, payload),
            RoleState::Primary(primary) => {
                let alive = primary.path(to).is_some_and(|path| !path.state.is_dead());
                if !alive && !to.is_primary() {
                    return Err(RawError::PathUnknown(to));
                }
                primary.raw.send(to, payload)
            }
        }
    }

    /// The next raw packet that another server sent here.
    pub fn recv_raw(&mut self) -> Option<RawPacket> {
        match &mut self.session.command().role {
            RoleState::Client(_) => None,
            RoleState::Primary(primary) => primary.raw.recv(),
            RoleState::Secondary(secondary) => secondary.raw.recv(),
        }
    }

    /// Primary: tells the client to take nothing more of a delegation. It ends as lost with `REVOKED`, unless it was
    /// delivered meanwhile.
    ///
    /// # Errors
    /// If the grant is unknown or over.
    pub fn revoke(&mut self, grant: GrantId) -> Result<(), DelegateError> {
        let (primary, common) = self.session.command().as_primary().ok_or(DelegateError::NotPrimary)?;
        primary.revoke(common, grant)
    }

    /// The application asks no more about this delegation.
    pub fn forget_delegation(&mut self, grant: GrantId) {
        if let Some((primary, _)) = self.session.command().as_primary() {
            primary.forget_delegation(grant);
        }
    }
}

/// One stream of a [`SessionMut`], borrowed to do something with it.
pub struct StreamMut<'a> {
    session: &'a mut Session,
    stream: StreamHandle,
}

impl StreamMut<'_> {
    /// The same stream, to look at.
    #[must_use]
    pub fn view(&self) -> Stream<'_> {
        self.session.stream(self.stream)
    }

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
    /// As [`StreamMut::read`].
    pub fn read_unordered(&mut self, max: usize) -> Result<Chunk, ReadError> {
        self.take(max, false)
    }

    fn take(&mut self, max: usize, ordered: bool) -> Result<Chunk, ReadError> {
        let read = self.session.common.streams.read(self.stream, max, ordered);
        if read == Err(ReadError::Blocked) {
            // That changed nothing.
            return read;
        }
        self.session.command();
        let chunk = read?;
        if let (RoleState::Client(client), Some((id, floor))) =
            (&mut self.session.role, self.session.common.streams.read_floor(self.stream))
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
        self.session.command().common.streams.write(self.stream, data)
    }

    /// Takes a prefix of `data` without copying it, and returns its length.
    ///
    /// # Errors
    /// As [`StreamMut::write`].
    pub fn write_chunk(&mut self, data: Bytes) -> Result<usize, WriteError> {
        self.session.command().common.streams.write_chunk(self.stream, data)
    }

    /// Takes a prefix of `data` to be sent at `offset`, where nothing was written or delegated yet, and returns its
    /// length. The cursor of [`StreamMut::write`] does not move (PROTOCOL.md §6).
    ///
    /// # Errors
    /// As [`StreamMut::write`], and [`WriteError::Overlap`].
    pub fn write_at(&mut self, offset: StreamOffset, data: Bytes) -> Result<usize, WriteError> {
        self.session.command().common.streams.write_at(self.stream, offset.0, data)
    }

    /// A write that was [`Blocked`](WriteError::Blocked) is not wanted any more. The room that it waited for, or was told
    /// of, is another's; if nothing is said, that one may wait longer.
    pub fn cancel_write(&mut self) {
        self.session.command().common.streams.cancel_write(self.stream);
    }

    /// Ends the stream after all that was written or delegated. Holes below its end may still be filled, and must be if a
    /// delegated range is lost: the reader waits for it. At a secondary: ends the part.
    ///
    /// # Errors
    /// [`FinishError::Stopped`] if the peer wants no more.
    pub fn finish(&mut self) -> Result<(), FinishError> {
        let common = &mut self.session.command().common;
        let stream = common.noted_stream(self.stream);
        common.streams.finish(self.stream)?;
        common.note_stream(stream, |stream| ProtocolEventKind::StreamFinished { stream });
        Ok(())
    }

    /// Drops what was not sent; the peer's reader gets `code`. At a secondary: gives the rest of the part back.
    ///
    /// # Errors
    /// If the stream has no open sending half, or that changes nothing: it was reset before, or everything was sent, its end
    /// included.
    pub fn reset(&mut self, code: u32) -> Result<(), ClosedStream> {
        let (common, code) = (&mut self.session.command().common, ErrorCode::Application(code));
        let stream = common.noted_stream(self.stream);
        common.streams.reset(self.stream, code)?;
        common.note_stream(stream, |stream| ProtocolEventKind::StreamReset { stream, code });
        Ok(())
    }

    /// Asks every writer of the stream to stop; what is unread is dropped.
    ///
    /// # Errors
    /// If the stream has no receiving half, or that has ended: it was read to its end, it was stopped, or the peer reset
    /// it.
    pub fn stop(&mut self, code: u32) -> Result<(), ClosedStream> {
        let code = ErrorCode::Application(code);
        if self.session.common.streams.can_stop(self.stream) {
            self.on_unwanted(code);
        }
        let common = &mut self.session.command().common;
        let stream = common.noted_stream(self.stream);
        common.streams.stop(self.stream, code)?;
        common.note_stream(stream, |stream| ProtocolEventKind::StreamStopped { stream, code });
        Ok(())
    }

    /// Streams of a higher priority are sent first; equals take turns. Streams begin with 0.
    ///
    /// # Errors
    /// If the stream has no sending half, or that has ended: everything was acknowledged, it was reset or stopped.
    pub fn set_priority(&mut self, priority: i32) -> Result<(), ClosedStream> {
        self.session.command().common.streams.set_priority(self.stream, priority)
    }

    /// Primary: leaves the next `len` bytes to the server of `path`, which gets `request`. The cursor moves past them
    /// (PROTOCOL.md §8).
    ///
    /// # Errors
    /// Nothing was reserved then.
    pub fn delegate(&mut self, path: PathId, len: u64, request: Bytes) -> Result<GrantInfo, DelegateError> {
        let (primary, common) = self.session.command().as_primary().ok_or(DelegateError::NotPrimary)?;
        primary.delegate(common, self.stream, path, Extent::Next(len), request)
    }

    /// Primary: leaves a range that nobody wrote to the server of `path`.
    ///
    /// # Errors
    /// As [`StreamMut::delegate`].
    pub fn delegate_range(
        &mut self,
        path: PathId,
        range: Range<u64>,
        request: Bytes,
    ) -> Result<GrantInfo, DelegateError> {
        let (primary, common) = self.session.command().as_primary().ok_or(DelegateError::NotPrimary)?;
        primary.delegate(common, self.stream, path, Extent::At(range), request)
    }

    /// Primary: has the server of `path` write a range as well that was written here, or left to another path, and may be
    /// late or never come. Whoever brings a byte first is the one who is read. It is no use to lose a copy: its range stays
    /// with whom it was left to (PROTOCOL.md §8).
    ///
    /// # Errors
    /// As [`StreamMut::delegate`], and [`DelegateError::Uncovered`].
    pub fn delegate_copy(
        &mut self,
        path: PathId,
        range: Range<u64>,
        request: Bytes,
    ) -> Result<GrantInfo, DelegateError> {
        let (primary, common) = self.session.command().as_primary().ok_or(DelegateError::NotPrimary)?;
        primary.delegate(common, self.stream, path, Extent::Copy(range), request)
    }

    /// The application writes no more. What it wrote is finished.
    pub fn release_send(&mut self) {
        self.session.command().common.streams.release_send(self.stream);
    }

    /// The application reads no more. An unfinished stream is stopped with code 0.
    pub fn release_recv(&mut self) {
        self.on_unwanted(ErrorCode::Application(0));
        self.session.command().common.streams.release_recv(self.stream);
    }

    fn on_unwanted(&mut self, code: ErrorCode) {
        let Session { common, role, .. } = &mut *self.session;
        if let (RoleState::Client(client), Some(id)) = (role, common.streams.stream_id(self.stream)) {
            client.on_stream_unwanted(common, id, code);
        }
    }
}
