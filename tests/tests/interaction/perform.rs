//! What each operation does, and whether the answer fits what is known.

use std::time::Duration;

use kwik_core::{Dir, FinishError, OpenError, ReadError, Side, StreamOffset, WriteError};
use kwik_sim::{Disturbance, Link, Rebind, RestartState};

use crate::fixture::{Fixture, Slot, reason_of};
use crate::model::StreamHalf;
use crate::op::{Op, Setup, StreamPlace};

impl Fixture {
    /// Brings a world to where its operations begin.
    pub(crate) fn begin(&mut self, setup: &Setup) {
        if !setup.warm {
            return;
        }
        self.perform(&Op::Open { end: Side::Client, slot: 0, dir: Dir::Bi });
        self.run_for(Duration::from_millis(100));
        self.perform(&Op::Accept { end: Side::Server, slot: 0, dir: Dir::Bi });
        for server in 1..setup.servers + usize::from(setup.byzantine.is_some()) {
            self.perform(&Op::AddPath { server });
        }
        self.run_for(Duration::from_millis(200));
    }

    pub(crate) fn perform(&mut self, op: &Op) {
        match *op {
            Op::Run { ms } => self.run_for(Duration::from_millis(ms)),
            Op::AddPath { .. }
            | Op::RemovePath { .. }
            | Op::Delegate { .. }
            | Op::DelegateRange { .. }
            | Op::Revoke { .. }
            | Op::SendRaw { .. }
            | Op::RecvRaw { .. } => self.perform_at_primary(op),
            Op::AcceptPart { .. }
            | Op::WritePart { .. }
            | Op::WritePartAt { .. }
            | Op::ReadRequest { .. }
            | Op::FinishPart { .. }
            | Op::ResetPart { .. }
            | Op::ClosePart { .. } => _ = self.perform_at_secondary(op),
            Op::Link { .. }
            | Op::Blackhole { .. }
            | Op::Partition { .. }
            | Op::Heal { .. }
            | Op::Rebind { .. }
            | Op::Crash { .. }
            | Op::Restart { .. }
            | Op::Pause { .. }
            | Op::SendErrors { .. } => _ = self.perform_on_network(op),
            _ => _ = self.perform_on_stream(op),
        }
        self.run_for(Duration::ZERO);
    }

    // ---- streams of the client and the primary

    fn perform_on_stream(&mut self, op: &Op) -> Option<()> {
        match *op {
            Op::Open { end, slot, dir } => return self.open(end, slot, dir),
            Op::Accept { end, slot, dir } => return self.accept(end, slot, dir),
            Op::Close { end, code } => return self.close(end, code),
            _ => {}
        }
        let (Op::Write { end, slot: at, .. }
        | Op::WriteAt { end, slot: at, .. }
        | Op::Read { end, slot: at, .. }
        | Op::ReadUnordered { end, slot: at, .. }
        | Op::Finish { end, slot: at }
        | Op::Reset { end, slot: at, .. }
        | Op::Stop { end, slot: at, .. }
        | Op::Priority { end, slot: at, .. }
        | Op::Release { end, slot: at }) = *op
        else {
            return None;
        };
        let slot = (*self.end(end).slots.get(at)?)?;
        match *op {
            Op::Write { len, .. } => self.write(end, slot, None, len).map(|_| ()),
            Op::WriteAt { place, len, .. } => {
                let offset = self.offset(end, slot, place)?;
                self.write(end, slot, Some(offset), len).map(|_| ())
            }
            Op::Read { max, .. } => self.read(end, slot, max, true).map(|_| ()),
            Op::ReadUnordered { max, .. } => self.read(end, slot, max, false).map(|_| ()),
            Op::Finish { .. } => self.finish(end, slot).map(|_| ()),
            Op::Reset { code, .. } => self.reset(end, slot, code),
            Op::Stop { code, .. } => self.stop(end, slot, code),
            Op::Priority { priority, .. } => {
                let mut session = self.session_at(end)?;
                let is_over = session.close_reason().is_some();
                let mut stream = session.stream_mut(slot.handle);
                let is_sending = slot.sends && !is_over && !stream.view().is_send_done();
                assert_eq!(stream.set_priority(priority).is_ok(), is_sending);
                Some(())
            }
            _ => self.release(end, at, slot),
        }
    }

    fn open(&mut self, side: Side, slot: usize, dir: Dir) -> Option<()> {
        if self.end(side).slots[slot].is_some() {
            return None;
        }
        let is_closing = self.ends.iter().any(|end| end.closed.is_some() || end.over.is_some());
        let mut session = self.session_at(side)?;
        match session.open_stream(dir) {
            Ok(handle) => {
                let Some(stream) = session.stream(handle).id() else { panic!("it has no id") };
                assert_eq!((stream.initiator(), stream.dir()), (side, dir));
                self.opened(side, slot, handle, stream);
            }
            Err(OpenError::SessionClosed) => assert!(is_closing, "the session is open"),
            Err(OpenError::LimitReached { limit, .. }) => assert!(limit >= 16),
            Err(error) => panic!("not opened: {error}"),
        }
        Some(())
    }

    fn accept(&mut self, side: Side, slot: usize, dir: Dir) -> Option<()> {
        if self.end(side).slots[slot].is_some() {
            return None;
        }
        let mut session = self.session_at(side)?;
        let handle = session.accept_stream(dir)?;
        let Some(stream) = session.stream(handle).id() else { panic!("it has no id") };
        assert_eq!((stream.initiator(), stream.dir()), (side.peer(), dir));
        self.opened(side, slot, handle, stream);
        Some(())
    }

    /// How many bytes were taken.
    pub(crate) fn write(
        &mut self,
        side: Side,
        slot: Slot,
        at: Option<u64>,
        len: u64,
    ) -> Option<Result<usize, WriteError>> {
        let half = StreamHalf { stream: slot.stream, writer: side };
        let start = match at {
            Some(at) => at,
            None if slot.sends => self.model.record(half).cursor,
            None => 0,
        };
        let data = half.bytes(start..start + len);
        let mut session = self.session_at(side)?;
        let mut stream = session.stream_mut(slot.handle);
        let result = match at {
            Some(at) => stream.write_at(StreamOffset(at), data),
            None => stream.write_chunk(data),
        };
        let over = session.close_reason().is_some();
        if slot.sends {
            self.model.wrote(half, at, len, result, over);
        } else {
            let expected = if over { WriteError::SessionClosed } else { WriteError::WrongDirection };
            assert_eq!(result, Err(expected));
        }
        Some(result)
    }

    pub(crate) fn offset(&mut self, side: Side, slot: Slot, place: StreamPlace) -> Option<u64> {
        if !slot.sends {
            return None;
        }
        let record = self.model.record(StreamHalf { stream: slot.stream, writer: side });
        Some(match place {
            StreamPlace::Gap => record.first_gap().start,
            StreamPlace::Ahead(bytes) => record.cursor + bytes,
            StreamPlace::At(offset) => offset,
        })
    }

    pub(crate) fn read(&mut self, side: Side, slot: Slot, max: usize, ordered: bool) -> Option<Result<(), ReadError>> {
        let half = StreamHalf { stream: slot.stream, writer: side.peer() };
        let mut session = self.session_at(side)?;
        let mut stream = session.stream_mut(slot.handle);
        let result = if ordered { stream.read(max) } else { stream.read_unordered(max) };
        let over = session.close_reason().is_some();
        if !slot.receives {
            assert!(result.is_err());
            return None;
        }
        if !ordered && !self.model.is_read(half) {
            self.model.record(half).read_unordered = true;
        }
        Some(match result {
            Ok(chunk) if max == 0 => {
                assert!(chunk.data.is_empty() && !self.model.is_read(half));
                Ok(())
            }
            Ok(chunk) => {
                assert!(chunk.data.len() <= max);
                self.model.read(half, &chunk, ordered);
                Ok(())
            }
            Err(error) => {
                self.model.read_ended(half, error, over);
                Err(error)
            }
        })
    }

    pub(crate) fn finish(&mut self, side: Side, slot: Slot) -> Option<Result<(), FinishError>> {
        let half = StreamHalf { stream: slot.stream, writer: side };
        let mut session = self.session_at(side)?;
        let result = session.stream_mut(slot.handle).finish();
        let over = session.close_reason().is_some();
        if !slot.sends {
            assert_eq!(result, Err(FinishError::ClosedStream));
            return None;
        }
        let may_stop = matches!(result, Err(FinishError::Stopped(code)) if self.model.may_stop(half, code));
        let record = self.model.record(half);
        match result {
            Ok(()) => record.size = Some(record.end()),
            Err(FinishError::Stopped(code)) => assert!(may_stop, "the writer of {half:?} was stopped with {code}"),
            Err(FinishError::ClosedStream) => {
                assert!(over || record.reset.is_some(), "{half:?} is not open: {record:?}")
            }
        }
        Some(result)
    }

    fn reset(&mut self, side: Side, slot: Slot, code: u32) -> Option<()> {
        let mut session = self.session_at(side)?;
        let over = session.close_reason().is_some();
        let result = session.stream_mut(slot.handle).reset(code);
        if !slot.sends {
            assert!(result.is_err());
            return Some(());
        }
        let record = self.model.record(StreamHalf { stream: slot.stream, writer: side });
        if result.is_ok() {
            record.reset.get_or_insert(code);
        } else {
            assert!(over || record.size.is_some() || record.reset.is_some(), "an open half was not reset: {record:?}");
        }
        Some(())
    }

    fn stop(&mut self, side: Side, slot: Slot, code: u32) -> Option<()> {
        let mut session = self.session_at(side)?;
        let is_over = session.close_reason().is_some();
        let mut stream = session.stream_mut(slot.handle);
        let is_stopped = stream.stop(code).is_ok();
        let end = stream.read(0);
        let is_over =
            is_over || matches!(end, Err(ReadError::ClosedStream | ReadError::Finished | ReadError::Reset(_)));
        assert!(if is_stopped { slot.receives } else { is_over }, "{end:?}");
        let half = StreamHalf { stream: slot.stream, writer: side.peer() };
        if is_stopped && !self.model.is_read(half) {
            self.model.record(half).stop = Some(code);
        }
        Some(())
    }

    fn release(&mut self, side: Side, at: usize, slot: Slot) -> Option<()> {
        let mut session = self.session_at(side)?;
        session.stream_mut(slot.handle).release_send();
        session.stream_mut(slot.handle).release_recv();
        if slot.sends {
            let record = self.model.record(StreamHalf { stream: slot.stream, writer: side });
            record.size = Some(record.end());
            record.abandoned = true;
        }
        let half = StreamHalf { stream: slot.stream, writer: side.peer() };
        if slot.receives && !self.model.is_read(half) {
            self.model.record(half).stop = Some(0);
        }
        self.end(side).slots[at] = None;
        Some(())
    }

    pub(crate) fn close(&mut self, side: Side, code: u32) -> Option<()> {
        let now = self.world.now();
        self.session_at(side)?.close(now, code, &reason_of(code));
        self.end(side).closed.get_or_insert(code);
        Some(())
    }

    // ---- the network and the machines

    fn perform_on_network(&mut self, op: &Op) -> Option<()> {
        let (client, servers) = (self.client, self.servers.clone());
        let far = |server: usize| servers.get(server).copied();
        let (concerned, disturbances) = match *op {
            Op::Link { server, delay_ms, loss_percent, kbit } => {
                let server = far(server)?;
                let delay = Duration::from_millis(delay_ms);
                let link = kbit.map_or_else(|| Link::with_delay(delay), |kbit| Link::with_rate(kbit * 1000, delay));
                let link = Link { loss: f64::from(loss_percent) / 100.0, ..link };
                let disturbance = |from, to| Disturbance::Link { from, to, link: link.clone() };
                (vec![server], vec![disturbance(client, server), disturbance(server, client)])
            }
            Op::Blackhole { server, to_client } => {
                let server = far(server)?;
                let (from, to) = if to_client { (server, client) } else { (client, server) };
                (vec![server], vec![Disturbance::Blackhole { from, to }])
            }
            Op::Partition { server } => {
                let server = far(server)?;
                (vec![server], vec![Disturbance::Partition { left: vec![client], right: vec![server] }])
            }
            Op::Heal { server } => (vec![], vec![Disturbance::Heal { a: client, b: far(server)? }]),
            Op::Rebind { address } => {
                let to = if address { Rebind::Address } else { Rebind::Port };
                (vec![client], vec![Disturbance::Rebind { node: client, to }])
            }
            Op::Crash { who } => (vec![self.node(who)?], vec![Disturbance::Crash { node: self.node(who)? }]),
            Op::Restart { who, forgets } => {
                let node = self.node(who)?;
                let state = if forgets { RestartState::Lost } else { RestartState::Kept };
                (vec![node], vec![Disturbance::Restart { node, state }])
            }
            Op::Pause { who, ms } => {
                let (node, span) = (self.node(who)?, Duration::from_millis(ms));
                self.paused.insert(node, self.world.now() + span);
                (vec![node], vec![Disturbance::Pause { node, span }])
            }
            Op::SendErrors { who, ms } => {
                let (node, span) = (self.node(who)?, Duration::from_millis(ms));
                (vec![node], vec![Disturbance::SendErrors { node, span }])
            }
            _ => return None,
        };
        self.may_fail |= concerned.contains(&client) || concerned.contains(&self.servers[0]);
        for disturbance in disturbances {
            if let Disturbance::Restart { node, state: RestartState::Lost } = disturbance {
                self.forget_node(node);
            }
            self.world.inject(disturbance);
        }
        Some(())
    }
}
