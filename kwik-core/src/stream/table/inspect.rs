//! What only tests look at.

use super::StreamTable;
use crate::id::StreamHandle;
use std::ops::Range;

/// The state of a sending half.
#[derive(Debug)]
pub(crate) struct SendInfo {
    /// Where the next plain write begins.
    pub(crate) cursor: u64,
    /// How far the peer allows to send.
    pub(crate) limit: u64,
    /// Bytes written and not yet handed out.
    pub(crate) buffered_bytes: usize,
    /// Where the stream ends, once that is known.
    pub(crate) final_size: Option<u64>,
    /// Ranges that nobody wrote and that are left to nobody.
    pub(crate) holes: Vec<Range<u64>>,
}

/// The state of a receiving half.
#[derive(Debug)]
pub(crate) struct RecvInfo {
    /// Bytes the application took, or that were dropped on its behalf.
    pub(crate) consumed: u64,
    /// Bytes that wait for the application.
    pub(crate) buffered_bytes: usize,
    /// Where the stream ends, once that is known.
    pub(crate) final_size: Option<u64>,
}

impl StreamTable {
    pub(crate) fn send_info(&self, handle: StreamHandle) -> Option<SendInfo> {
        let send = &self.streams.get(handle)?.send.as_ref()?.stream;
        Some(SendInfo {
            cursor: send.cursor(),
            limit: send.limit(),
            buffered_bytes: send.buffered_bytes(),
            final_size: send.final_size(),
            holes: send.holes(),
        })
    }

    pub(crate) fn recv_info(&self, handle: StreamHandle) -> Option<RecvInfo> {
        let recv = &self.streams.get(handle)?.recv.as_ref()?.stream;
        Some(RecvInfo {
            consumed: recv.consumed(),
            buffered_bytes: recv.buffered_bytes(),
            final_size: recv.final_size(),
        })
    }

    /// Grants that are over, and those that are not, which frames of the peer are about.
    pub(crate) fn parts_in_books(&self) -> (usize, usize) {
        (self.parts.len() - self.granted.len(), self.granted.len())
    }

    pub(crate) fn priority(&self, handle: StreamHandle) -> Option<i32> {
        self.streams.get(handle).map(|stream| stream.priority)
    }
}
