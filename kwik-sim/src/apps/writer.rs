//! Writes one flow from its first byte to its end.

use bytes::Bytes;
use kwik_core::{ErrorCode, FinishError, SessionMut, StreamHandle, WriteError};

use crate::checks::{Flow, FlowModel};
use crate::content::bytes_at;

/// Bytes made for one write.
pub(super) const PIECE_BYTES: u64 = 64 * 1024;

/// How writing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteEnd {
    Finished,
    Reset,
    Stopped(ErrorCode),
    SessionOver,
}

/// The writer of one flow.
#[derive(Debug)]
pub(super) struct StreamWriter {
    stream: StreamHandle,
    flow: Flow,
    head: Bytes,
    cursor: u64,
    size: u64,
    reset: Option<(u64, u32)>,
    end: Option<WriteEnd>,
}

impl StreamWriter {
    /// Writes `head` and then the pattern up to `size`. `reset` says after how many bytes to reset, and the code.
    pub(super) fn new(
        stream: StreamHandle,
        flow: Flow,
        head: Bytes,
        size: u64,
        reset: Option<(u64, u32)>,
        model: &mut FlowModel,
    ) -> Self {
        model.begins(flow, head.clone());
        Self { stream, flow, head, cursor: 0, size, reset, end: None }
    }

    pub(super) fn flow(&self) -> Flow {
        self.flow
    }

    pub(super) fn end(&self) -> Option<WriteEnd> {
        self.end
    }

    /// Writes what there is room for.
    pub(super) fn pump(&mut self, session: &mut SessionMut<'_>, model: &mut FlowModel) {
        while self.end.is_none() {
            if let Some((_, code)) = self.reset.filter(|(after, _)| self.cursor >= *after) {
                self.reset(session, code, model);
                return;
            }
            if self.cursor == self.size {
                self.finish(session, model);
                return;
            }
            let bytes = self.piece();
            // Noted before it is written: what was noted and not written does no harm.
            match session.stream_mut(self.stream).write_chunk(bytes) {
                Ok(taken) => {
                    note_size(taken as u64, model);
                    model.wrote(self.flow, self.cursor..self.cursor + taken as u64);
                    self.cursor += taken as u64;
                }
                Err(WriteError::Blocked) => {
                    model.coverage.limit("send buffer");
                    return;
                }
                Err(error) => self.fail(error, model),
            }
        }
    }

    fn piece(&self) -> Bytes {
        let limit = self.reset.map_or(self.size, |(after, _)| after.min(self.size));
        let head_len = self.head.len() as u64;
        if self.cursor < head_len {
            // The cursor is below a length in memory.
            return self.head.slice(usize::try_from(self.cursor).unwrap_or(0)..);
        }
        bytes_at(self.flow.key(), self.cursor..limit.min(self.cursor + self.piece_bytes()))
    }

    /// Writes of all sizes, mixed within a stream: by far the most bytes come in large ones.
    fn piece_bytes(&self) -> u64 {
        let mixed = (self.flow.key() ^ (self.cursor >> 13)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        match mixed % 24 {
            0 => 1 + (mixed >> 8) % 40,
            1 | 2 => 1_000 + (mixed >> 8) % 1_500,
            3 => 4_000 + (mixed >> 8) % 12_000,
            _ => PIECE_BYTES,
        }
    }

    pub(super) fn reset(&mut self, session: &mut SessionMut<'_>, code: u32, model: &mut FlowModel) {
        self.end = Some(WriteEnd::SessionOver);
        if session.stream_mut(self.stream).reset(code).is_ok() {
            self.end = Some(WriteEnd::Reset);
            model.reset(self.flow, code);
            model.coverage.work("reset");
        }
    }

    fn finish(&mut self, session: &mut SessionMut<'_>, model: &mut FlowModel) {
        self.end = Some(match session.stream_mut(self.stream).finish() {
            Ok(()) => {
                model.finished(self.flow, self.size);
                WriteEnd::Finished
            }
            Err(FinishError::Stopped(code)) => {
                model.notified_of_stop(self.flow, code);
                WriteEnd::Stopped(code)
            }
            Err(FinishError::ClosedStream) => WriteEnd::SessionOver,
        });
    }

    fn fail(&mut self, error: WriteError, model: &mut FlowModel) {
        self.end = Some(match error {
            WriteError::Stopped(code) => {
                model.notified_of_stop(self.flow, code);
                WriteEnd::Stopped(code)
            }
            WriteError::SessionClosed | WriteError::ClosedStream => WriteEnd::SessionOver,
            other => {
                model.violate(format!("a write of {:?} at {} failed: {other}", self.flow, self.cursor));
                WriteEnd::SessionOver
            }
        });
    }
}

/// The least and the most that one write takes.
fn note_size(bytes: u64, model: &mut FlowModel) {
    match bytes {
        1 => model.coverage.work("write of 1 byte"),
        PIECE_BYTES => model.coverage.work("write of 64 KiB"),
        _ => {}
    }
}
