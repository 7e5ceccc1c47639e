//! The control stream of a path: the first bidirectional stream the client opens (PROTOCOL.md §5).

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{Connection, ReadError, StreamId as QuicStreamId, WriteError};

use crate::error::TransportCode;
use crate::limits::{CONTROL_PROGRESS_BYTES, Limits};
use crate::wire::{ControlFrame, ControlReader, WireError};

/// Both directions of the control plane.
#[derive(Debug, Default)]
pub(super) struct ControlStream {
    quic: Option<QuicStreamId>,
    reader: ControlReader,
    readable: bool,
    out: BytesMut,
    stall: Option<Stall>,
}

/// A time in which QUIC takes no more of the control plane.
#[derive(Debug, Clone, Copy)]
struct Stall {
    since: Instant,
    /// Bytes that QUIC took all the same.
    taken: usize,
}

/// How a stall is judged.
#[derive(Debug, PartialEq, Eq)]
enum Patience {
    /// The stall is tolerated.
    Left,
    /// A slow line is tolerated; a peer that gives no credit is at fault.
    WithALine,
    /// The peer is at fault, whatever the reason.
    Out,
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
                    if let Some(stall) = &mut self.stall {
                        stall.on_taken(now, written);
                    }
                }
                Err(WriteError::Blocked) => {
                    // A stall begins when QUIC first takes no more; further attempts do not renew it.
                    self.stall.get_or_insert(Stall { since: now, taken: 0 });
                    return;
                }
                // What is left cannot be written any more. QUIC reports a stop as an event, which is the fault.
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => self.out.clear(),
            }
        }
        self.stall = None;
    }

    /// Whether the peer is to be judged by [`Self::check`] now.
    pub(super) fn is_suspect(&self, now: Instant, limits: &Limits) -> bool {
        self.is_overfull(limits) || self.is_overdue(now, limits)
    }

    /// Returns a fault if the peer leaves too much unread for too long, or reads too little. To be asked when QUIC was
    /// given what it takes; changes QUIC's window. `unreached` is for how long nothing may have reached the peer.
    pub(super) fn check(
        &mut self,
        quic: &mut Connection,
        now: Instant,
        unreached: Duration,
        limits: &Limits,
    ) -> Result<(), WireError> {
        let at_fault = self.is_overfull(limits)
            || match self.patience(now, unreached, limits) {
                Patience::Left => false,
                Patience::WithALine => self.is_out_of_credit(quic),
                Patience::Out => true,
            };
        if at_fault {
            return Err(WireError {
                code: TransportCode::CONTROL_FLOOD,
                frame: "control plane",
                detail: "the peer does not read its control plane",
            });
        }
        // The line takes no more, which is nobody's fault: the time begins anew.
        if self.is_overdue(now, limits) && !is_long(unreached, limits) {
            self.stall = Some(Stall { since: now, taken: 0 });
        }
        Ok(())
    }

    fn is_overfull(&self, limits: &Limits) -> bool {
        self.stall.is_some() && self.out.len() > limits.control_queue_bytes_max
    }

    fn is_overdue(&self, now: Instant, limits: &Limits) -> bool {
        let waited = |stall: Stall| now.saturating_duration_since(stall.since) >= limits.control_stall_timeout;
        self.stall.is_some_and(waited)
    }

    /// Judges a stall. A peer that nothing may have reached for long is excused, but not for ever: the path of a peer
    /// that is only silent ends before.
    fn patience(&self, now: Instant, unreached: Duration, limits: &Limits) -> Patience {
        if !self.is_overdue(now, limits) {
            Patience::Left
        } else if unreached >= limits.idle_timeout.saturating_mul(2) {
            Patience::Out
        } else if is_long(unreached, limits) {
            Patience::Left
        } else {
            Patience::WithALine
        }
    }

    /// Whether the peer must give credit before QUIC takes more. Otherwise QUIC has its fill of what is not
    /// acknowledged, as on a line that is slow.
    fn is_out_of_credit(&self, quic: &mut Connection) -> bool {
        let Some(stream) = self.quic else { return false };
        // Without a window of QUIC's own, only the peer's credit can block. The caller restores the window.
        quic.set_send_window(u64::MAX);
        quic.send_stream(stream).write(&[]) == Err(WriteError::Blocked)
    }

    /// The peer was heard, or acknowledged something. If nothing may have reached it for long, it gets its time anew.
    pub(super) fn on_reached(&mut self, now: Instant, unreached: Duration, limits: &Limits) {
        if is_long(unreached, limits) {
            self.stall = self.stall.map(|_| Stall { since: now, taken: 0 });
        }
    }

    pub(super) fn deadline(&self, now: Instant, limits: &Limits) -> Option<Instant> {
        self.stall.and_then(|stall| stall.since.checked_add(limits.control_stall_timeout)).filter(|at| *at > now)
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

impl Stall {
    /// QUIC took bytes. A few bytes now and then do not end a stall.
    fn on_taken(&mut self, now: Instant, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken >= CONTROL_PROGRESS_BYTES {
            *self = Self { since: now, taken: 0 };
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
        let mut control = ControlStream { stall: Some(Stall { since: start, taken: 0 }), ..ControlStream::default() };
        let patience =
            |control: &ControlStream, at, unreached| control.patience(start + seconds(at), seconds(unreached), &limits);
        assert_eq!(patience(&control, 9, 0), Patience::Left);
        assert_eq!(patience(&control, 10, 0), Patience::WithALine);
        assert_eq!(patience(&control, 10, 4), Patience::WithALine);
        assert_eq!(patience(&control, 59, 59), Patience::Left);
        assert_eq!(patience(&control, 60, 60), Patience::Out);
        control.on_reached(start + seconds(20), seconds(4), &limits);
        assert_eq!(patience(&control, 20, 0), Patience::WithALine, "a short silence changes nothing");
        control.on_reached(start + seconds(20), seconds(5), &limits);
        assert_eq!(patience(&control, 29, 0), Patience::Left);
        assert_eq!(patience(&control, 30, 0), Patience::WithALine);
    }

    // [P-5.15]
    #[test]
    fn stall_ends_with_progress_and_not_with_a_drip() {
        let (start, limits) = (instant(), Limits::default());
        let at = |second| start + Duration::from_secs(second);
        let stalled = |drip: usize| {
            let mut control =
                ControlStream { stall: Some(Stall { since: start, taken: 0 }), ..ControlStream::default() };
            (0..100).find(|second| {
                if let Some(stall) = control.stall.as_mut().filter(|_| second % 9 == 0) {
                    stall.on_taken(at(*second), drip);
                }
                control.is_overdue(at(*second), &limits)
            })
        };
        assert_eq!(stalled(1), Some(10));
        assert_eq!(stalled(CONTROL_PROGRESS_BYTES / 2 - 1), Some(10));
        assert_eq!(stalled(CONTROL_PROGRESS_BYTES), None);
    }
}
