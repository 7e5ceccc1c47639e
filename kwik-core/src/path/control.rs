//! The control stream of a path: the first bidirectional stream the client opens (PROTOCOL.md §5).

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{Connection, ReadError, StreamId as QuicStreamId, WriteError};

use crate::error::TransportCode;
use crate::limits::Limits;
use crate::wire::{ControlFrame, ControlReader, WireError};

/// Both directions of the control plane.
#[derive(Debug, Default)]
pub(super) struct ControlStream {
    quic: Option<QuicStreamId>,
    reader: ControlReader,
    readable: bool,
    out: BytesMut,
    stalled_since: Option<Instant>,
}

impl ControlStream {
    /// Backlog above which no further state is turned into frames.
    const READY_BELOW_BYTES: usize = 16 * 1024;
    const READ_BYTES: usize = 16 * 1024;

    pub(super) fn is_open(&self) -> bool {
        self.quic.is_some()
    }

    pub(super) fn is(&self, stream: QuicStreamId) -> bool {
        self.quic == Some(stream)
    }

    /// Binds the control plane to its QUIC stream and puts it before all others.
    pub(super) fn open(&mut self, quic: &mut Connection, stream: QuicStreamId) {
        self.quic = Some(stream);
        self.readable = true;
        // A stream that was opened or accepted a moment ago takes a priority.
        let _ = quic.send_stream(stream).set_priority(i32::MAX);
    }

    pub(super) fn on_readable(&mut self) {
        self.readable = true;
    }

    /// The next whole frame, if it has arrived.
    pub(super) fn next(&mut self, quic: &mut Connection) -> Result<Option<ControlFrame>, WireError> {
        loop {
            if let Some(frame) = self.reader.next()? {
                return Ok(Some(frame));
            }
            if !self.readable {
                return Ok(None);
            }
            match self.read(quic)? {
                Some(chunk) => self.reader.push(chunk),
                None => self.readable = false,
            }
        }
    }

    /// Whether more state may be turned into frames now.
    pub(super) fn is_ready(&self) -> bool {
        self.quic.is_some() && self.out.len() < Self::READY_BELOW_BYTES
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    pub(super) fn queue(&mut self, frame: &ControlFrame) {
        frame.encode(&mut self.out);
    }

    /// Hands to QUIC what it takes.
    pub(super) fn flush(&mut self, quic: &mut Connection, now: Instant) {
        let Some(stream) = self.quic else { return };
        while !self.out.is_empty() {
            match quic.send_stream(stream).write(&self.out) {
                Ok(written) => {
                    let _ = self.out.split_to(written);
                    self.stalled_since = None;
                }
                Err(WriteError::Blocked) => {
                    self.stalled_since.get_or_insert(now);
                    return;
                }
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => self.out.clear(),
            }
        }
        self.stalled_since = None;
    }

    /// A peer that leaves too much unread for too long. `unreached` is for how long nothing may have reached it: if that is
    /// long it is excused, but not for ever: one that is only silent is gone before.
    pub(super) fn check(&self, now: Instant, unreached: Duration, limits: &Limits) -> Result<(), WireError> {
        let excused = is_long(unreached, limits) && unreached < limits.idle_timeout.saturating_mul(2);
        let stalled = !excused
            && self
                .stalled_since
                .is_some_and(|since| now.saturating_duration_since(since) >= limits.control_stall_timeout);
        let overfull = self.stalled_since.is_some() && self.out.len() > limits.control_queue_bytes_max;
        if stalled || overfull {
            return Err(WireError {
                code: TransportCode::CONTROL_FLOOD,
                frame: "control plane",
                detail: "the peer does not read its control plane",
            });
        }
        Ok(())
    }

    /// The peer was heard, or acknowledged something. If nothing may have reached it for long, it gets its time anew.
    pub(super) fn on_reached(&mut self, now: Instant, unreached: Duration, limits: &Limits) {
        if is_long(unreached, limits) {
            self.stalled_since = self.stalled_since.map(|_| now);
        }
    }

    pub(super) fn deadline(&self, now: Instant, limits: &Limits) -> Option<Instant> {
        self.stalled_since.and_then(|since| since.checked_add(limits.control_stall_timeout)).filter(|at| *at > now)
    }

    /// The next bytes, if any are there. The control plane lives as long as the path, so its end is a fault.
    fn read(&self, quic: &mut Connection) -> Result<Option<Bytes>, WireError> {
        let ended = || WireError {
            code: TransportCode::PROTOCOL_VIOLATION,
            frame: "control plane",
            detail: "the control stream ended before the connection",
        };
        let Some(stream) = self.quic else { return Ok(None) };
        let mut stream = quic.recv_stream(stream);
        let mut chunks = stream.read(true).map_err(|_| ended())?;
        let read = chunks.next(Self::READ_BYTES);
        // Window updates leave with the next transmit, which follows every read.
        let _ = chunks.finalize();
        match read {
            Ok(Some(chunk)) => Ok(Some(chunk.bytes)),
            Err(ReadError::Blocked) => Ok(None),
            Ok(None) | Err(ReadError::Reset(_)) => Err(ended()),
        }
    }
}

fn is_long(unreached: Duration, limits: &Limits) -> bool {
    unreached >= limits.control_stall_timeout / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::instant;

    // [P-5.15]
    #[test]
    fn unread_control_plane_is_excused_while_nothing_reaches_the_peer_and_not_for_ever() {
        let (start, limits) = (instant(), Limits::default());
        let seconds = Duration::from_secs;
        let mut control = ControlStream { stalled_since: Some(start), ..ControlStream::default() };
        assert!(control.check(start + seconds(9), Duration::ZERO, &limits).is_ok());
        assert!(control.check(start + seconds(10), Duration::ZERO, &limits).is_err());
        assert!(control.check(start + seconds(10), seconds(4), &limits).is_err());
        assert!(control.check(start + seconds(59), seconds(59), &limits).is_ok());
        assert!(control.check(start + seconds(60), seconds(60), &limits).is_err());
        control.on_reached(start + seconds(20), seconds(4), &limits);
        assert!(
            control.check(start + seconds(20), Duration::ZERO, &limits).is_err(),
            "a short silence changes nothing"
        );
        control.on_reached(start + seconds(20), seconds(5), &limits);
        assert!(control.check(start + seconds(29), Duration::ZERO, &limits).is_ok());
        assert!(control.check(start + seconds(30), Duration::ZERO, &limits).is_err());
    }
}
