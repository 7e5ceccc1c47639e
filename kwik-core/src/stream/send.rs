//! The sending half of a stream.

use super::buffer::{Buffer, Pending, SMALL_BYTES};
use super::optional::{OptionalCode, OptionalSize};
use crate::error::{ErrorCode, TransportCode};
use crate::limits::VARINT_MAX;
use crate::protocol_event::BlockedBy;
use crate::range_set::RangeSet;
use bytes::Bytes;
use std::ops::Range;

/// What a stream may always buffer of bytes that the peer's credit lets through. Otherwise bytes that wait for credit
/// could fill the buffers and keep out the very bytes whose arrival brings that credit.
const SENDABLE_BYTES_MIN: usize = 16 * 1024;
/// What a stream may buffer, beyond all that, of bytes for its lowest hole, if they were lost by another server. The
/// reader waits for them, so they do not wait for room behind bytes that were written ahead when nobody knew.
const HEAD_BYTES_MIN: usize = 16 * 1024;

/// Why bytes were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The send buffer is full; a `Writable` event follows.
    #[error("the send buffer is full")]
    Blocked,
    /// The peer wants no more of the stream, or the grant was revoked.
    #[error("the peer stopped the stream with {0}")]
    Stopped(ErrorCode),
    /// The stream was finished; only holes below its final size may be filled.
    #[error("the stream is finished")]
    Finished,
    /// The stream was reset here.
    #[error("the stream was reset")]
    Reset,
    /// Some of the bytes were written or delegated before.
    #[error("bytes {start}..{end} of the stream were already written or delegated")]
    Overlap {
        /// The first such byte.
        start: u64,
        /// The end of the first such range.
        end: u64,
    },
    /// Some of the bytes lie outside the granted range.
    #[error("the grant covers bytes {start}..{end} of the stream only")]
    BeyondGrant {
        /// Where the grant begins.
        start: u64,
        /// Where the grant ends.
        end: u64,
    },
    /// The stream would be longer than the wire can express.
    #[error("a stream holds at most 2^62 - 1 bytes")]
    TooLong,
    /// The stream is unknown or was released here.
    #[error("the stream is not open for writing")]
    ClosedStream,
    /// The stream carries bytes to this end only.
    #[error("the stream only receives")]
    WrongDirection,
    /// The session ended.
    #[error("the session is closed")]
    SessionClosed,
}

/// Bytes of a stream for one data frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where the bytes begin in the stream.
    pub(crate) offset: u64,
    /// The bytes.
    pub(crate) data: Bytes,
    /// Whether the stream's final size is where the bytes end.
    pub(crate) fin: bool,
}

/// Where a write begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Position {
    Cursor,
    At(u64),
}

#[derive(Debug)]
pub(super) struct SendStream {
    pending: Pending,
    buffered: usize,
    /// The end of plain writes and delegations.
    cursor: u64,
    /// Written here or delegated. What of it is neither pending nor delegated was handed to the path, or delivered by a
    /// delegation.
    covered: RangeSet,
    /// What a stream of one writer does without.
    shared: Option<Box<Shared>>,
    /// No byte beyond was ever handed out or delegated.
    promised_end: u64,
    limit: u64,
    final_size: OptionalSize,
    fin_sent: bool,
    reset: OptionalCode,
    /// Whether the peer wanted that reset.
    is_stopped: bool,
    /// Packets with bytes of the stream that are not acknowledged.
    outstanding: u32,
}

/// What only a stream of several writers has.
#[derive(Debug, Default)]
struct Shared {
    /// The range a grant allows; `None` for a stream of one's own.
    part: Option<Range<u64>>,
    /// Where a part ends that is shorter than its grant, and why.
    part_end: Option<(u64, ErrorCode)>,
    /// Delegated and not yet delivered.
    delegated: RangeSet,
    /// Delegated once, lost, and not written or delegated since.
    lost: RangeSet,
    /// Bytes taken for the lowest hole without room for them. What is sent next makes up for them.
    overdraft: usize,
}

impl SendStream {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            pending: Pending::default(),
            buffered: 0,
            cursor: 0,
            covered: RangeSet::default(),
            shared: None,
            promised_end: 0,
            limit,
            final_size: OptionalSize::NONE,
            fin_sent: false,
            reset: OptionalCode::NONE,
            is_stopped: false,
            outstanding: 0,
        }
    }

    /// The sending half of a granted stream: it may write the granted range and cannot end the stream.
    pub(super) fn of_part(range: Range<u64>, limit: u64) -> Self {
        let cursor = range.start;
        Self { cursor, shared: Some(Box::new(Shared { part: Some(range), ..Shared::default() })), ..Self::new(limit) }
    }

    /// How many of `len` bytes may be stored when the buffers have room for `room`; they are to be stored then. A
    /// little more than that is stored of what can be sent at once, and of what fills the lowest hole.
    pub(super) fn admit(&mut self, position: Position, len: usize, room: usize) -> Result<usize, WriteError> {
        self.check_open()?;
        let start = self.start(position);
        let end = start.checked_add(len as u64).filter(|end| *end <= VARINT_MAX).ok_or(WriteError::TooLong)?;
        match (position, self.final_size()) {
            (Position::Cursor, Some(_)) => return Err(WriteError::Finished),
            (Position::At(_), Some(size)) if end > size => return Err(WriteError::Finished),
            _ => {}
        }
        if let Some(part) = self.part().filter(|part| start < part.start || end > part.end) {
            return Err(WriteError::BeyondGrant { start: part.start, end: part.end });
        }
        // All bytes are checked, not only those that there is room for: whether a write overlaps does not depend on
        // room.
        self.check_free(&(start..end))?;
        let room = room.max(self.sendable_room(start));
        let admitted = len.min(room.max(self.head_room(start)));
        if admitted == 0 && len > 0 {
            return Err(WriteError::Blocked);
        }
        // Only what no other room had a place for.
        if let Some(shared) = &mut self.shared {
            shared.overdraft += admitted.saturating_sub(room);
        }
        Ok(admitted)
    }

    /// The room kept for the lowest hole, if `start` lies in it, was lost by another server, and need not wait for
    /// credit.
    fn head_room(&self, start: u64) -> usize {
        let Some(shared) = self.shared.as_ref().filter(|shared| shared.lost.contains(start)) else { return 0 };
        let begin = prefix_end(&self.covered, 0);
        // Nothing between the first gap and `start` is covered: then `start` lies in the lowest hole.
        if self.covered.intersects(&(begin..start)) {
            return 0;
        }
        let credit = usize::try_from(self.limit.saturating_sub(start)).unwrap_or(usize::MAX);
        HEAD_BYTES_MIN.saturating_sub(shared.overdraft).min(credit)
    }

    /// The room kept for bytes from `start` on that need not wait for credit.
    fn sendable_room(&self, start: u64) -> usize {
        let credit = usize::try_from(self.limit.saturating_sub(start)).unwrap_or(usize::MAX);
        self.room_at_head().min(credit)
    }

    fn room_at_head(&self) -> usize {
        let mut room = SENDABLE_BYTES_MIN;
        for buffer in self.pending.below(self.limit) {
            room = room.saturating_sub(buffer.len());
            if room == 0 {
                break;
            }
        }
        room
    }

    /// Whether there is room for some bytes that need not wait for credit, however full the buffers are.
    pub(super) fn has_room_at_head(&self) -> bool {
        let may_overdraw = |shared: &Shared| !shared.lost.is_empty() && shared.overdraft < HEAD_BYTES_MIN;
        self.room_at_head() > 0 || self.shared.as_deref().is_some_and(may_overdraw)
    }

    /// Stores admitted bytes as a copy.
    pub(super) fn store_copy(&mut self, position: Position, data: &[u8]) {
        let (mut offset, mut rest) = (self.cover(position, data.len()), data);
        if let Some(buffer) = self.pending.ending_at_mut(offset) {
            let appended = buffer.append(rest);
            offset += appended as u64;
            rest = &rest[appended..];
        }
        if !rest.is_empty() {
            self.pending.insert(offset, Buffer::copy(rest));
        }
    }

    /// Stores admitted bytes, without a copy if they are many.
    pub(super) fn store(&mut self, position: Position, data: Bytes) {
        if data.len() < SMALL_BYTES {
            return self.store_copy(position, &data);
        }
        let offset = self.cover(position, data.len());
        self.pending.insert(offset, Buffer::Slice(data));
    }

    /// Marks the bytes as written and returns where they begin. Only a plain write moves the cursor.
    fn cover(&mut self, position: Position, len: usize) -> u64 {
        let start = self.start(position);
        let end = start + len as u64;
        self.covered.insert(start..end);
        if let Some(shared) = &mut self.shared {
            shared.lost.remove(start..end);
        }
        self.buffered += len;
        if let Position::Cursor = position {
            self.cursor = end;
        }
        start
    }

    fn start(&self, position: Position) -> u64 {
        match position {
            Position::Cursor => self.cursor,
            Position::At(offset) => offset,
        }
    }

    /// Leaves the next `len` bytes to someone else.
    pub(super) fn reserve(&mut self, len: u64) -> Result<Range<u64>, WriteError> {
        self.check_open()?;
        if self.final_size().is_some() {
            return Err(WriteError::Finished);
        }
        let end = self.cursor.checked_add(len).ok_or(WriteError::TooLong)?;
        let range = self.cursor..end;
        // The cursor moves only if the range was free.
        self.reserve_range(range.clone())?;
        self.cursor = end;
        Ok(range)
    }

    /// Leaves a range that nobody wrote to someone else.
    pub(super) fn reserve_range(&mut self, range: Range<u64>) -> Result<(), WriteError> {
        self.check_open()?;
        if range.end > VARINT_MAX {
            return Err(WriteError::TooLong);
        }
        if self.final_size().is_some_and(|size| range.end > size) {
            return Err(WriteError::Finished);
        }
        self.check_free(&range)?;
        // The final size of a reset must not be below a delegated range ([P-5.14]).
        self.promised_end = self.promised_end.max(range.end);
        self.covered.insert(range.clone());
        let shared = self.shared.get_or_insert_default();
        shared.lost.remove(range.clone());
        shared.delegated.insert(range);
        Ok(())
    }

    /// Opens delegated bytes of the range again, so that they can be written or delegated once more.
    pub(super) fn unreserve(&mut self, range: Range<u64>) {
        let Some(shared) = &mut self.shared else { return };
        // Only what is still delegated: parts that were delivered meanwhile stay covered.
        for part in shared.delegated.overlaps(range).collect::<Vec<_>>() {
            shared.delegated.remove(part.clone());
            self.covered.remove(part.clone());
            shared.lost.insert(part);
        }
    }

    /// Has another write bytes besides, if all of the range is somebody's to write already. Returns whether it is.
    pub(super) fn promise_copy(&mut self, range: &Range<u64>) -> Result<bool, WriteError> {
        self.check_open()?;
        let is_covered = self.covered.covers(range);
        if is_covered {
            // The copy may arrive although what was written here is never sent ([P-5.14]).
            self.promised_end = self.promised_end.max(range.end);
        }
        Ok(is_covered)
    }

    /// Delegated bytes of the range arrived. Who was to write them besides may have lost them before.
    pub(super) fn on_delivered(&mut self, range: Range<u64>) {
        let Some(shared) = &mut self.shared else { return };
        shared.delegated.remove(range.clone());
        for part in shared.lost.overlaps(range).collect::<Vec<_>>() {
            shared.lost.remove(part.clone());
            self.covered.insert(part);
        }
    }

    /// No more plain writes. Holes below the final size may still be filled; a delegated range that was lost is one,
    /// since the application may not have heard of it yet. A second time changes nothing.
    pub(super) fn finish(&mut self) -> Result<(), WriteError> {
        self.check_open()?;
        if self.final_size().is_some() {
            return Ok(());
        }
        self.final_size = self.cursor.max(self.covered.end()).max(self.promised_end).into();
        if let Some(Shared { part: Some(part), part_end, .. }) = self.shared.as_deref_mut() {
            // A finished part announces how far it was written without a gap, unless that is all of it ([P-8.13]).
            let end = prefix_end(&self.covered, part.start);
            if end < part.end {
                *part_end = Some((end, TransportCode::NO_ERROR.into()));
            }
        }
        Ok(())
    }

    /// Drops what was not handed out and ends the half. Returns whether that changed anything.
    pub(super) fn reset(&mut self, code: ErrorCode) -> bool {
        if self.reset.is_some() || self.is_handed_out() {
            return false;
        }
        self.reset = code.into();
        if let Some(Shared { part: Some(part), part_end, .. }) = self.shared.as_deref_mut() {
            // What was written and not sent is dropped, so only sent bytes count ([P-8.13]).
            let written = prefix_end(&self.covered, part.start);
            *part_end = Some((self.pending.start().map_or(written, |unsent| unsent.min(written)), code));
        }
        self.drop_pending();
        true
    }

    /// The peer wants no more. Returns whether that changed anything.
    pub(super) fn on_stop(&mut self, code: ErrorCode) -> bool {
        let changed = self.reset(code);
        if changed {
            self.is_stopped = true;
        }
        changed
    }

    /// The grant of this part was revoked: the client already knows that no more comes. A part that was sent whole, and was
    /// not reset, ends as it would have.
    pub(super) fn revoke(&mut self) -> bool {
        if self.is_part_sent() {
            return false;
        }
        let changed = self.on_stop(TransportCode::REVOKED.into());
        // The client settled the grant itself: no GRANT_END follows REVOKE ([P-8.15]).
        if let Some(shared) = &mut self.shared {
            shared.part_end = None;
        }
        changed
    }

    /// Raises the peer's limit. Returns whether it advanced.
    pub(super) fn raise_limit(&mut self, limit: u64) -> bool {
        let raised = limit > self.limit;
        self.limit = self.limit.max(limit);
        raised
    }

    /// The next bytes to send, lowest first, at most `max_len`.
    pub(super) fn next_segment(&mut self, max_len: usize) -> Option<Segment> {
        if !self.is_sendable() {
            return None;
        }
        let Some((offset, mut buffer)) = self.pending.pop_first() else {
            self.fin_sent = true;
            return Some(Segment { offset: self.final_size()?, data: Bytes::new(), fin: true });
        };
        // The stream is sendable, so its first bytes are below the limit.
        let credit = usize::try_from(self.limit - offset).unwrap_or(usize::MAX);
        let data = buffer.split_to(max_len.min(credit));
        let end = offset + data.len() as u64;
        if buffer.len() > 0 {
            self.pending.insert(end, buffer);
        }
        if data.is_empty() {
            return None;
        }
        self.buffered -= data.len();
        if let Some(shared) = &mut self.shared {
            shared.overdraft = shared.overdraft.saturating_sub(data.len());
        }
        self.promised_end = self.promised_end.max(end);
        let fin = self.is_fin_due() && self.final_size() == Some(end);
        self.fin_sent |= fin;
        Some(Segment { offset, data, fin })
    }

    /// Whether [`Self::next_segment`] has something to send.
    pub(super) fn is_sendable(&self) -> bool {
        match self.pending.start() {
            Some(offset) => offset < self.limit,
            None => self.is_fin_due(),
        }
    }

    /// What the stream waits for, if it has nothing to send now and something may follow.
    pub(super) fn blocked_by(&self) -> Option<BlockedBy> {
        let is_open = !self.reset.is_some() && !self.fin_sent;
        match self.pending.is_empty() {
            _ if self.is_sendable() || !is_open => None,
            false => Some(BlockedBy::Credit),
            true if self.final_size().is_some_and(|size| size > self.limit) => Some(BlockedBy::Credit),
            true => Some(BlockedBy::Application),
        }
    }

    fn is_fin_due(&self) -> bool {
        let wanted = self.part().is_none() && !self.reset.is_some() && !self.fin_sent && self.pending.is_empty();
        // The end obeys the limit like data ([P-6.12]).
        wanted && self.final_size().is_some_and(|size| size <= self.limit)
    }

    pub(super) fn on_segment_packed(&mut self) {
        self.outstanding = self.outstanding.saturating_add(1);
    }

    pub(super) fn on_packet_acked(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// Whether every byte of the half was handed out or delivered, and its end announced.
    fn is_handed_out(&self) -> bool {
        match (self.part(), self.final_size()) {
            (_, None) => false,
            (Some(_), Some(_)) => self.pending.is_empty(),
            (None, Some(size)) => {
                let delegates = self.shared.as_ref().is_some_and(|shared| !shared.delegated.is_empty());
                self.fin_sent && self.pending.is_empty() && !delegates && self.covered.total() == size
            }
        }
    }

    /// Whether nothing more is to be done for this half.
    pub(super) fn is_done(&self) -> bool {
        self.reset.is_some() || (self.is_handed_out() && self.outstanding == 0)
    }

    /// Whether nothing more of a granted part will be handed out.
    pub(super) fn is_part_over(&self) -> bool {
        self.reset.is_some() || self.is_handed_out() || self.is_part_sent()
    }

    /// Whether all of a granted part was handed out.
    fn is_part_sent(&self) -> bool {
        let is_whole = self.part().is_some_and(|part| self.covered.covers(part));
        !self.reset.is_some() && self.pending.is_empty() && is_whole
    }

    fn part(&self) -> Option<&Range<u64>> {
        self.shared.as_ref()?.part.as_ref()
    }

    /// Whether the half was finished, and not everything was sent and acknowledged.
    pub(super) fn is_draining(&self) -> bool {
        self.final_size().is_some() && !self.is_done()
    }

    /// Whether the half was finished with bytes that nobody is to write.
    pub(super) fn has_abandoned_holes(&self) -> bool {
        let unending = self.part().is_none() && !self.reset.is_some();
        unending && self.final_size().is_some_and(|size| !self.covered.covers(&(0..size)))
    }

    /// The size to name in a reset: nothing was, or will be, received beyond it.
    pub(super) fn reset_size(&self) -> u64 {
        self.final_size().unwrap_or(self.promised_end)
    }

    pub(super) fn reset_code(&self) -> Option<ErrorCode> {
        self.reset.get()
    }

    pub(super) fn stop_code(&self) -> Option<ErrorCode> {
        self.reset.get().filter(|_| self.is_stopped)
    }

    pub(super) fn part_end(&self) -> Option<(u64, ErrorCode)> {
        self.shared.as_ref()?.part_end
    }

    pub(super) fn part_range(&self) -> Option<Range<u64>> {
        self.part().cloned()
    }

    /// How far the peer lets it be written.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffered
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.buffered + self.pending.len() * super::buffer::ENTRY_BYTES
    }

    pub(super) fn final_size(&self) -> Option<u64> {
        self.final_size.get()
    }

    fn check_open(&self) -> Result<(), WriteError> {
        match self.reset.get() {
            Some(code) if self.is_stopped => Err(WriteError::Stopped(code)),
            Some(_) => Err(WriteError::Reset),
            None => Ok(()),
        }
    }

    fn check_free(&self, range: &Range<u64>) -> Result<(), WriteError> {
        match self.covered.overlaps(range.clone()).next() {
            Some(Range { start, end }) => Err(WriteError::Overlap { start, end }),
            None => Ok(()),
        }
    }

    fn drop_pending(&mut self) {
        self.pending.clear();
        self.buffered = 0;
        if let Some(shared) = &mut self.shared {
            shared.overdraft = 0;
        }
    }
}

/// What only tests look at.
#[cfg(test)]
impl SendStream {
    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Ranges below the end that nobody wrote and nobody was asked to write.
    pub(super) fn holes(&self) -> Vec<Range<u64>> {
        let start = self.part().map_or(0, |part| part.start);
        self.covered.gaps_in(start..self.final_size().unwrap_or_else(|| self.cursor.max(self.covered.end())))
    }
}

/// Where the bytes that begin at `start` have their first gap.
fn prefix_end(set: &RangeSet, start: u64) -> u64 {
    set.span_at(start).map_or(start, |span| span.end)
}
