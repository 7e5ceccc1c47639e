//! The receiving half of a stream.

use super::assembly::Assembly;
use super::flow::{Budget, Window, WindowRules};
use super::optional::{OptionalCode, OptionalSize};
use super::reassembly::{Chunk, Conflict, Inserted};
use crate::error::Fault;
use crate::error::{ErrorCode, TransportCode};
use crate::id::{PathId, StreamId};
use crate::limits::VARINT_MAX;
use bytes::Bytes;
use std::ops::Range;

/// Why a read returned no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The next bytes have not arrived; a `Readable` event follows.
    #[error("the next bytes of the stream have not arrived yet")]
    Blocked,
    /// Every byte was read.
    #[error("the stream was read to its end")]
    Finished,
    /// The stream ended early: the peer reset it, or what came could not be believed.
    #[error("the stream was reset with {0}")]
    Reset(ErrorCode),
    /// The stream is unknown, was stopped or was released here.
    #[error("the stream is not open for reading")]
    ClosedStream,
    /// Bytes were read out of order before.
    #[error("a stream that was read out of order cannot be read in order")]
    IllegalOrderedRead,
    /// The session ended and nothing more is buffered.
    #[error("the session is closed")]
    SessionClosed,
}

/// The result of handling a piece of stream data.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct DataOutcome {
    /// The ranges that were new, and how much was not.
    pub(crate) inserted: Inserted,
    /// Set when the bytes contradict those of another source.
    pub(crate) conflict: Option<Conflict>,
    /// Set when there are too many gaps. A stream is ended here with `REASSEMBLY_LIMIT`, maybe another.
    pub(crate) overflow: Option<Overflow>,
}

/// A stream with too many gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overflow {
    /// The stream, which is ended.
    pub(crate) stream: StreamId,
    /// The path that opened most of the gaps.
    pub(crate) offender: PathId,
}

/// Separate ranges that every stream may be received in, beside those that the session may have of all its streams.
const UNCOUNTED_SPANS: usize = 8;

#[derive(Debug)]
enum RecvState {
    /// Bytes are kept for the application.
    Open,
    /// The application wants no more; bytes are counted and dropped.
    Stopped,
    /// The stream ended early; bytes are ignored.
    Failed,
    /// The application read to the end.
    Finished,
}

#[derive(Debug)]
pub(super) struct RecvStream {
    assembly: Assembly,
    window: Window,
    /// Whether the stream was opened here, so that its window ends with it.
    opened_here: bool,
    /// The end of the furthest byte received.
    highest: u64,
    final_size: OptionalSize,
    reads_in_order: bool,
    state: RecvState,
    /// Why the stream failed.
    failure: OptionalCode,
}

impl RecvStream {
    pub(super) fn new(window: Window, opened_here: bool) -> Self {
        Self {
            assembly: Assembly::default(),
            window,
            opened_here,
            highest: 0,
            final_size: OptionalSize::NONE,
            reads_in_order: false,
            state: RecvState::Open,
            failure: OptionalCode::NONE,
        }
    }

    /// A half that yields the bytes of a grant's request and then ends.
    pub(super) fn request(request: Bytes) -> Self {
        let len = request.len() as u64;
        let mut assembly = Assembly::default();
        // The first bytes of a stream contradict nothing.
        let _ = assembly.insert(PathId::PRIMARY, 0, request);
        // A copy: a slice would keep the whole packet of the grant until the application reads the request.
        assembly.own_slice(len);
        Self {
            assembly,
            // It came whole and is no part of the session's credit.
            window: Window::without_credit(len),
            opened_here: false,
            highest: len,
            final_size: len.into(),
            reads_in_order: false,
            state: RecvState::Open,
            failure: OptionalCode::NONE,
        }
    }

    pub(super) fn on_data(
        &mut self,
        from: PathId,
        offset: u64,
        data: Bytes,
        frame_end: u64,
        fin: bool,
    ) -> Result<DataOutcome, Fault> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= frame_end && frame_end <= VARINT_MAX);
        let Some(end) = end else {
            return Err(Fault::new(TransportCode::PROTOCOL_VIOLATION, "stream data past the end of its frame"));
        };
        // The whole frame is judged, of which this may be the first piece: nothing of a frame that oversteps is taken.
        if frame_end > self.limit() {
            return Err(Fault::new(TransportCode::FLOW_CONTROL, "stream data beyond the stream's credit"));
        }
        if self.final_size().is_some_and(|size| frame_end > size) {
            return Err(Fault::new(TransportCode::FINAL_SIZE, "stream data beyond the final size"));
        }
        if fin {
            self.on_final_size(frame_end)?;
        }
        let is_empty = data.is_empty();
        let inserted = match self.state {
            RecvState::Open => match self.assembly.insert(from, offset, data) {
                Ok(inserted) => inserted,
                Err(conflict) => return Ok(DataOutcome { conflict: Some(conflict), ..DataOutcome::default() }),
            },
            RecvState::Stopped => self.assembly.insert_discarded(from, offset..end),
            RecvState::Finished | RecvState::Failed => Inserted::default(),
        };
        // A frame without data does not move the end of received data, wherever it is ([P-6.12]). Nor do bytes that
        // contradict others: they returned above.
        if !is_empty {
            self.highest = self.highest.max(end);
        }
        Ok(DataOutcome { inserted, ..DataOutcome::default() })
    }

    /// The peer ends the stream early. A stream that is already complete stays readable. The final size may lie
    /// beyond the credit: no byte up to it needs to be buffered.
    pub(super) fn on_reset(&mut self, code: ErrorCode, final_size: u64) -> Result<(), Fault> {
        // Asked first: a stream whose end only this reset names was not complete before.
        let is_complete = self.is_received();
        self.on_final_size(final_size)?;
        if matches!(self.state, RecvState::Open) && !is_complete {
            self.fail(code);
        }
        Ok(())
    }

    fn on_final_size(&mut self, size: u64) -> Result<(), Fault> {
        if self.final_size().is_some_and(|known| known != size) {
            return Err(Fault::new(TransportCode::FINAL_SIZE, "two different final sizes"));
        }
        if size < self.highest {
            return Err(Fault::new(TransportCode::FINAL_SIZE, "a final size below what was received"));
        }
        self.final_size = size.into();
        Ok(())
    }

    /// Ends the stream early: nothing more is kept, and the reader gets the code.
    pub(super) fn fail(&mut self, code: ErrorCode) {
        self.assembly = Assembly::default();
        if matches!(self.state, RecvState::Open | RecvState::Stopped) {
            (self.state, self.failure) = (RecvState::Failed, code.into());
        }
    }

    /// The application wants no more. Returns whether the peer is to be notified.
    pub(super) fn stop(&mut self) -> bool {
        if !matches!(self.state, RecvState::Open) {
            return false;
        }
        // Who has sent everything need not be stopped.
        let complete = self.is_received();
        self.assembly.discard();
        self.state = RecvState::Stopped;
        !complete
    }

    pub(super) fn read(&mut self, max: usize, ordered: bool) -> Result<Chunk, ReadError> {
        match self.state {
            RecvState::Open => {}
            RecvState::Stopped => return Err(ReadError::ClosedStream),
            RecvState::Failed => return Err(self.failure.get().map_or(ReadError::ClosedStream, ReadError::Reset)),
            RecvState::Finished => return Err(ReadError::Finished),
        }
        if max == 0 && !self.is_consumed() {
            return Ok(self.assembly.empty_chunk());
        }
        self.reads_in_order = ordered;
        let chunk = if ordered {
            self.assembly.read(max).map_err(|_| ReadError::IllegalOrderedRead)?
        } else {
            self.assembly.read_unordered(max)
        };
        if let Some(chunk) = chunk {
            return Ok(chunk);
        }
        if self.is_consumed() {
            self.state = RecvState::Finished;
            return Err(ReadError::Finished);
        }
        Err(ReadError::Blocked)
    }

    /// Gives back what the stream no longer needs of the budget.
    pub(super) fn settle(&mut self, budget: &mut Budget) {
        let (needed, done) = (self.needed(), self.is_done());
        self.window.settle(budget, needed);
        if done && self.opened_here {
            self.window.close(budget);
        }
    }

    /// Raises the limit when that is worth an announcement, which it returns. A stream nobody uses keeps its initial
    /// window.
    pub(super) fn advance(&mut self, budget: &mut Budget, rules: WindowRules) -> bool {
        let in_use = self.opened_here || self.highest > 0;
        if !in_use || self.final_size().is_some() || !matches!(self.state, RecvState::Open) {
            return false;
        }
        let (consumed, waits) = (self.assembly.consumed(), !self.assembly.is_readable());
        self.window.advance(budget, rules, consumed, waits)
    }

    /// Bytes that may still have to be buffered beyond what was consumed.
    pub(super) fn needed(&self) -> u64 {
        match self.state {
            RecvState::Open if !self.window.is_reserved() => 0,
            RecvState::Open => {
                let end = self.limit().min(self.final_size().unwrap_or(u64::MAX));
                end.saturating_sub(self.assembly.consumed())
            }
            RecvState::Stopped | RecvState::Failed | RecvState::Finished => 0,
        }
    }

    /// Bytes of the budget reserved for this stream.
    #[cfg(any(test, feature = "__test_exports"))]
    pub(super) fn charged(&self) -> u64 {
        self.window.charged()
    }

    pub(super) fn limit(&self) -> u64 {
        self.window.limit()
    }

    /// Whether a read would not be blocked.
    pub(super) fn is_readable(&self) -> bool {
        match self.state {
            RecvState::Open => {
                let head = self.assembly.is_readable();
                head || (!self.reads_in_order && self.assembly.buffered_bytes() > 0) || self.is_consumed()
            }
            RecvState::Failed => true,
            RecvState::Stopped | RecvState::Finished => false,
        }
    }

    /// Whether a read gives neither bytes nor the end.
    pub(super) fn is_empty(&self) -> bool {
        self.is_open() && self.assembly.buffered_bytes() == 0 && !self.is_consumed()
    }

    /// Whether nothing more can come of this half: late bytes may be ignored.
    pub(super) fn is_done(&self) -> bool {
        match self.state {
            RecvState::Open => false,
            RecvState::Finished => true,
            RecvState::Stopped | RecvState::Failed => self.final_size().is_some(),
        }
    }

    /// Whether bytes are still wanted.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, RecvState::Open)
    }

    /// Whether every byte up to the final size arrived.
    pub(super) fn is_received(&self) -> bool {
        self.final_size().is_some_and(|size| self.assembly.received_bytes() == size)
    }

    /// The parts of a range that were not received, in order.
    pub(super) fn missing_in(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.assembly.missing_in(range)
    }

    /// Below it everything was read.
    pub(super) fn floor(&self) -> u64 {
        self.assembly.floor()
    }

    #[cfg(test)]
    pub(super) fn consumed(&self) -> u64 {
        self.assembly.consumed()
    }

    pub(super) fn final_size(&self) -> Option<u64> {
        self.final_size.get()
    }

    /// The path that opened most of the separate ranges.
    pub(super) fn main_opener(&self) -> Option<PathId> {
        self.assembly.main_opener()
    }

    /// The separate ranges in which the stream was received: one more than there are gaps between them.
    pub(super) fn spans(&self) -> usize {
        self.assembly.spans()
    }

    /// Those of them that the session counts. A few are part of what a stream costs anyway.
    pub(super) fn counted_spans(&self) -> usize {
        self.spans().saturating_sub(UNCOUNTED_SPANS)
    }

    /// Bytes that wait as slices of datagrams.
    pub(super) fn slice_bytes(&self) -> &[(PathId, usize)] {
        self.assembly.slice_bytes()
    }

    /// Whether a slice that waits ends at `end`.
    pub(super) fn has_slice(&self, end: u64) -> bool {
        self.assembly.has_slice(end)
    }

    /// Copies the slice that ends at `end`, if one waits.
    pub(super) fn own_slice(&mut self, end: u64) {
        self.assembly.own_slice(end);
    }

    #[cfg(test)]
    pub(super) fn buffered_bytes(&self) -> usize {
        self.assembly.buffered_bytes()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.assembly.memory_bytes()
    }

    fn is_consumed(&self) -> bool {
        self.final_size().is_some_and(|size| self.assembly.consumed() == size)
    }
}
