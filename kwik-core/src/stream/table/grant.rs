//! Ranges of a stream that others write: left to them at the primary, granted to this end at a secondary.

use super::{Granted, RecvHalf, SendHalf, Stream, StreamTable, TableRole};
use crate::error::{ErrorCode, Fault, FrameEffect, TransportCode};
use crate::id::{Dir, GrantId, StreamHandle, StreamId};
use crate::limits::VARINT_MAX;
use crate::stream::recv::RecvStream;
use crate::stream::send::{SendStream, WriteError};
use bytes::Bytes;
use std::ops::Range;

/// Why a range could not be left to another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReserveError {
    /// Only a primary delegates.
    #[error("only the primary of a session delegates")]
    NotPrimary,
    /// The range has no bytes.
    #[error("a delegated range holds at least one byte")]
    Empty,
    /// Some of the bytes were written or delegated before.
    #[error("bytes {start}..{end} of the stream were already written or delegated")]
    Overlap {
        /// The first such byte.
        start: u64,
        /// The end of the first such range.
        end: u64,
    },
    /// Some of the bytes of a copy are nobody's to write yet.
    #[error("bytes {start}..{end} of the stream were not all written or delegated")]
    Uncovered {
        /// Where the range begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// The stream was finished; only holes below its final size may be delegated.
    #[error("the stream is finished")]
    Finished,
    /// The stream would be longer than the wire can express.
    #[error("a stream holds at most 2^62 - 1 bytes")]
    TooLong,
    /// The peer wants no more of the stream.
    #[error("the peer stopped the stream with {0}")]
    Stopped(ErrorCode),
    /// The stream has no open sending half.
    #[error("the stream is not open for writing")]
    ClosedStream,
    /// The session ended.
    #[error("the session is closed")]
    SessionClosed,
}

impl From<WriteError> for ReserveError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Overlap { start, end } => Self::Overlap { start, end },
            WriteError::Finished => Self::Finished,
            WriteError::TooLong => Self::TooLong,
            WriteError::Stopped(code) => Self::Stopped(code),
            WriteError::SessionClosed => Self::SessionClosed,
            WriteError::BeyondGrant { .. } => Self::NotPrimary,
            WriteError::Blocked | WriteError::Reset | WriteError::ClosedStream | WriteError::WrongDirection => {
                Self::ClosedStream
            }
        }
    }
}

impl StreamTable {
    /// Leaves the next `len` bytes to another server. The cursor moves past them.
    pub(crate) fn reserve(&mut self, handle: StreamHandle, len: u64) -> Result<Range<u64>, ReserveError> {
        self.check_delegation(len)?;
        Ok(self.send_half(handle)?.stream.reserve(len)?)
    }

    /// Leaves a range that nobody wrote to another server. The cursor does not move.
    pub(crate) fn reserve_range(
        &mut self,
        handle: StreamHandle,
        range: Range<u64>,
    ) -> Result<Range<u64>, ReserveError> {
        self.check_delegation(range.end.saturating_sub(range.start))?;
        self.send_half(handle)?.stream.reserve_range(range.clone())?;
        Ok(range)
    }

    /// Whether all of a range was written here or left to another server, so that one more may write it.
    pub(crate) fn check_copy(&mut self, handle: StreamHandle, range: &Range<u64>) -> Result<(), ReserveError> {
        self.check_delegation(range.end.saturating_sub(range.start))?;
        let is_covered = self.send_half(handle)?.stream.promise_copy(range)?;
        if is_covered { Ok(()) } else { Err(ReserveError::Uncovered { start: range.start, end: range.end }) }
    }

    /// Delegated ranges were lost: they can be written or delegated again. A stream the application no longer holds
    /// is reset with `SOURCE_LOST`.
    pub(crate) fn unreserve(&mut self, id: StreamId, ranges: &[Range<u64>]) {
        for handle in self.handles_of(id) {
            self.with_send(handle, |send| ranges.iter().for_each(|range| send.unreserve(range.clone())));
            self.reset_if_abandoned(handle);
        }
    }

    /// A delegated range arrived at the client.
    pub(crate) fn delivered(&mut self, id: StreamId, range: Range<u64>) {
        for handle in self.handles_of(id) {
            self.with_send(handle, |send| send.on_delivered(range.clone()));
            self.announce_finished(handle);
            self.free_if_done(handle);
        }
    }

    /// A grant arrived: its range may be written up to `limit`. The application accepts it as a stream that yields
    /// the request and then ends.
    pub(crate) fn open_part(
        &mut self,
        grant: GrantId,
        id: StreamId,
        range: Range<u64>,
        limit: u64,
        request: Bytes,
    ) -> Result<StreamHandle, Fault> {
        let violation = |detail| Err(Fault::new(TransportCode::PROTOCOL_VIOLATION, detail));
        if self.role != TableRole::Secondary {
            return violation("a grant for a server that is no secondary");
        }
        if range.is_empty() || range.end > VARINT_MAX {
            return violation("a grant of an impossible range");
        }
        if self.parts.contains_key(&grant) {
            return violation("a grant that is in use already");
        }
        // Granted streams that are over do not count among those to write: the client may have reported their end to
        // the primary, which then grants more.
        let (unfinished, held) = (self.granted.len(), self.parts.len() - self.granted.len());
        if unfinished >= self.caps.parts || held > self.caps.parts_held + self.caps.parts {
            return Err(Fault::new(TransportCode::CONTROL_FLOOD, "more grants than a path may have"));
        }
        let send = SendHalf::new(SendStream::of_part(range, limit.min(VARINT_MAX)));
        let request_bytes = request.len();
        let recv = RecvHalf::new(RecvStream::request(request));
        let granted = Box::new(Granted { id: grant, request: request_bytes });
        let stream = Stream::new(id, Some(granted), Some(send), Some(recv));
        let flood = Fault::new(TransportCode::CONTROL_FLOOD, "more grants than a path may have");
        let handle = self.insert(stream).ok_or(flood)?;
        self.requests += request_bytes;
        self.parts.insert(grant, handle);
        // The application releases nothing: it never sees this grant, which ends at once ([P-8.8]).
        if held > self.caps.parts_held {
            self.with_send(handle, |send| send.reset(TransportCode::SERVER_BUSY.into()));
            self.withdraw(handle);
        } else {
            self.offer(handle, Dir::Bi);
        }
        Ok(handle)
    }

    /// A grant was revoked: nothing more of it is sent, and its writer, if there is one yet, gets `REVOKED`.
    pub(crate) fn revoke_part(&mut self, grant: GrantId) -> FrameEffect {
        let Some(&handle) = self.parts.get(&grant) else { return self.no_op() };
        if self.with_send(handle, SendStream::revoke) == Some(true) {
            self.on_cut_short(handle);
        }
        FrameEffect::Progress
    }

    /// The peer ended a sending half early. A granted stream that nobody accepted yet goes away unseen.
    pub(super) fn on_cut_short(&mut self, handle: StreamHandle) {
        if self.streams.get(handle).is_some_and(|stream| stream.grant.is_some() && !stream.accepted) {
            self.withdraw(handle);
        } else {
            self.announce_stopped(handle);
            self.after_send(handle);
        }
    }

    /// Releases both halves of a granted stream in place of an application that never saw it.
    fn withdraw(&mut self, handle: StreamHandle) {
        self.accept_bidi.retain(|waiting| *waiting != handle);
        if let Some(half) = self.streams.get_mut(handle).and_then(|stream| stream.send.as_mut()) {
            half.released = true;
        }
        self.after_send(handle);
        self.release_recv(handle);
    }

    fn check_delegation(&self, len: u64) -> Result<(), ReserveError> {
        match (self.closed, self.role) {
            (true, _) => Err(ReserveError::SessionClosed),
            (false, TableRole::Client | TableRole::Secondary) => Err(ReserveError::NotPrimary),
            (false, TableRole::Primary) if len == 0 => Err(ReserveError::Empty),
            (false, TableRole::Primary) => Ok(()),
        }
    }
}
