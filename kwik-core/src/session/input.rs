//! What arrives on paths: which frame is legal from whom, in one place.

use std::ops::Range;
use std::time::Instant;

use super::event::SessionEvent;
use super::{Moment, RoleState, Session};
use crate::error::{Fault, FrameEffect, TransportCode};
use crate::grant::Access;
use crate::id::{Dir, PathId, Side, StreamId};
use crate::path::PathInput;
use crate::protocol_event::ProtocolEventKind;
use crate::status::PathState;
use crate::stream::{Conflict, Inserted, Overflow};
use crate::wire::{CarrierItem, ControlFrame, ResetStream, StopSending};
use bytes::Bytes;

impl Session {
    pub(super) fn on_input(&mut self, moment: Moment, path: PathId, input: PathInput) {
        match input {
            PathInput::Connected => self.on_connected(moment, path),
            PathInput::Control(frame) => {
                self.log_received(path, frame.name());
                let outcome = self.on_control(moment, path, frame);
                self.close_on_fault(moment.now, path, outcome);
            }
            PathInput::Data(item) => {
                self.log_received(path, item.name());
                let outcome = self.on_data(moment.now, path, item);
                self.close_on_fault(moment.now, path, outcome);
            }
            PathInput::Acknowledged(packet) => {
                let record = self.transmit.on_acknowledged(&mut self.streams, path, packet);
                if let Some(record) = record {
                    self.on_relayed_acknowledged(path, record);
                }
            }
            PathInput::Suspect | PathInput::Recovered => {
                self.log_path(path);
                self.on_liveness_changed(path);
            }
            PathInput::Fault(error) => {
                self.on_fault(moment.now, path, error.code, &format!("{}: {}", error.frame, error.detail));
            }
            PathInput::Lost(reason) => self.on_path_lost(moment.now, path, reason),
        }
    }

    fn on_control(&mut self, moment: Moment, from: PathId, frame: ControlFrame) -> Result<FrameEffect, Fault> {
        match &self.role {
            RoleState::Client(_) => {
                let authenticating =
                    self.paths.get(&from).is_some_and(|path| *path.state() == PathState::Authenticating);
                match frame {
                    ControlFrame::Welcome(welcome) if authenticating => self.on_welcome(moment, from, welcome),
                    _ if authenticating => Err(violation("a frame before WELCOME")),
                    frame if from.is_primary() => self.on_control_from_primary(moment, frame),
                    frame => self.on_control_from_secondary(moment, from, frame),
                }
            }
            RoleState::Primary(_) => self.on_control_at_primary(frame),
            RoleState::Secondary(_) => self.on_control_at_secondary(moment, frame),
        }
    }

    fn on_control_from_primary(&mut self, moment: Moment, frame: ControlFrame) -> Result<FrameEffect, Fault> {
        match frame {
            ControlFrame::AddPath(add) => self.on_add_path(moment, add),
            ControlFrame::RemovePath(remove) => self.on_remove_path(moment.now, &remove),
            ControlFrame::Lease(lease) => self.on_lease_to_relay(lease),
            ControlFrame::Grant(grant) => self.on_grant(grant),
            ControlFrame::Revoke(revoke) => self.on_revoke(&revoke),
            ControlFrame::Raw(raw) => self.on_raw_to_relay(PathId::PRIMARY, raw),
            ControlFrame::RawStatus(status) => self.on_receipt_to_relay(PathId::PRIMARY, status),
            frame => self.on_stream_control(frame),
        }
    }

    fn on_control_from_secondary(
        &mut self,
        moment: Moment,
        from: PathId,
        frame: ControlFrame,
    ) -> Result<FrameEffect, Fault> {
        match frame {
            ControlFrame::GrantEnd(end) => self.on_grant_end(from, &end),
            ControlFrame::Raw(raw) => self.on_raw_to_relay(from, raw),
            ControlFrame::RawStatus(status) => self.on_receipt_to_relay(from, status),
            ControlFrame::Close(_) => {
                self.on_secondary_closing(moment.now, from);
                Ok(FrameEffect::Progress)
            }
            _ => Err(violation("a frame that a secondary may not send")),
        }
    }

    fn on_control_at_primary(&mut self, frame: ControlFrame) -> Result<FrameEffect, Fault> {
        match frame {
            ControlFrame::PathStatus(status) => self.on_path_status(&status),
            ControlFrame::GrantStatus(status) => self.on_grant_status(status),
            ControlFrame::RawStatus(status) => Ok(self.on_receipt(&status)),
            frame => self.on_stream_control(frame),
        }
    }

    fn on_control_at_secondary(&mut self, moment: Moment, frame: ControlFrame) -> Result<FrameEffect, Fault> {
        match frame {
            ControlFrame::StopSending(_) | ControlFrame::MaxStreamData(_) | ControlFrame::Close(_) => {
                self.on_stream_control(frame)
            }
            ControlFrame::Lease(lease) => self.on_lease(moment, &lease),
            ControlFrame::Revoke(revoke) => Ok(self.streams.revoke_part(revoke.grant)),
            ControlFrame::RawStatus(status) => Ok(self.on_receipt(&status)),
            _ => Err(violation("a frame that a client may not send to a secondary")),
        }
    }

    /// Frames about streams, legal between the client and the primary in both directions.
    fn on_stream_control(&mut self, frame: ControlFrame) -> Result<FrameEffect, Fault> {
        match frame {
            ControlFrame::OpenStream(open) => {
                let effect = self.streams.on_open(open.stream, open.priority, open.limit.0)?;
                self.log.change(self.home, || ProtocolEventKind::StreamOpened { stream: open.stream });
                Ok(effect)
            }
            ControlFrame::ResetStream(reset) => {
                let effect = self.streams.on_reset(reset.stream, reset.code, reset.final_size.0)?;
                let ResetStream { stream, code, .. } = reset;
                self.log.change(self.home, || ProtocolEventKind::StreamReset { stream, code });
                self.on_stream_over(stream, code);
                Ok(effect)
            }
            ControlFrame::StopSending(stop) => {
                let StopSending { stream, code, .. } = stop;
                let effect = self.streams.on_stop(stream, code)?;
                self.log.change(self.home, || ProtocolEventKind::StreamStopped { stream, code });
                stop.conflict.map_or(Ok(()), |conflict| self.on_conflict_told(stop.stream, conflict))?;
                Ok(effect)
            }
            ControlFrame::MaxStreamData(max) => self.streams.on_max_stream_data(max.stream, max.limit.0),
            ControlFrame::MaxStreams(max) => self.streams.on_max_streams(max.dir, max.max),
            ControlFrame::Close(close) => {
                self.on_close_frame(close);
                Ok(FrameEffect::Progress)
            }
            _ => Err(violation("a frame that this peer may not send")),
        }
    }

    fn on_data(&mut self, now: Instant, from: PathId, item: CarrierItem) -> Result<FrameEffect, Fault> {
        match (&self.role, item) {
            (
                RoleState::Client(_) | RoleState::Primary(_),
                CarrierItem::Stream { stream, offset, data, frame_end, fin },
            ) => {
                let piece = Piece { stream, offset: offset.0, data, frame_end: frame_end.0, fin };
                self.on_stream_data(now, from, piece)
            }
            (RoleState::Primary(_) | RoleState::Secondary(_), CarrierItem::Raw(raw)) => {
                if self.on_raw_forward(now, raw)? {
                    self.emit(SessionEvent::RawReadable);
                }
                Ok(FrameEffect::Progress)
            }
            (RoleState::Secondary(_), CarrierItem::Grant(grant)) => self.on_grant_forward(grant),
            (_, CarrierItem::PacketStart { .. } | CarrierItem::PacketEnd { .. }) => Ok(FrameEffect::Progress),
            _ => Err(violation("a data frame that this peer may not send")),
        }
    }

    fn on_stream_data(&mut self, now: Instant, from: PathId, piece: Piece) -> Result<FrameEffect, Fault> {
        let Piece { stream, offset, data, frame_end, fin } = piece;
        let effect = if data.is_empty() && !fin { FrameEffect::NoOp } else { FrameEffect::Progress };
        if !from.is_primary() && !self.admit_secondary(from, stream, offset..frame_end, data.len() as u64, fin)? {
            return Ok(effect);
        }
        match self.streams.on_data(from, stream, offset, data, frame_end, fin) {
            Ok(outcome) => {
                let Inserted { new, duplicate_bytes } = &outcome.inserted;
                let new = new.iter().map(|range| range.end - range.start).sum();
                if let Some(path) = self.paths.get_mut(&from) {
                    path.on_data_taken(now, new, *duplicate_bytes);
                }
                self.on_stream_progress(stream, &outcome);
                for range in &outcome.inserted.new {
                    self.log.frame(from, || ProtocolEventKind::StreamReceived { stream, range: range.clone() });
                }
                outcome.overflow.map_or(Ok(()), |overflow| Err(self.on_overflow(overflow)))?;
                outcome.conflict.map_or(Ok(()), |conflict| self.on_conflict(stream, conflict))?;
                Ok(effect)
            }
            Err(fault) => {
                if self.streams.is_receiving(stream) == Some(false) {
                    self.on_stream_over(stream, fault.code.into());
                }
                Err(fault)
            }
        }
    }

    /// Whether a frame of a secondary is within its grants and its bytes are still wanted.
    fn admit_secondary(
        &mut self,
        from: PathId,
        stream: StreamId,
        frame: Range<u64>,
        arrived: u64,
        fin: bool,
    ) -> Result<bool, Fault> {
        let RoleState::Client(client) = &mut self.role else { return Ok(true) };
        if fin {
            return Err(Fault::new(TransportCode::FINAL_SIZE, "a secondary ended a stream"));
        }
        let violation = |detail| Err(Fault::new(TransportCode::GRANT_VIOLATION, detail));
        if stream.dir() == Dir::Uni && stream.initiator() == Side::Client {
            return violation("a stream that only the client writes");
        }
        let Some(is_receiving) = self.streams.is_receiving(stream) else {
            return violation("a stream that was never opened");
        };
        let access = if is_receiving {
            client.grants.check(from, stream, frame, arrived)
        } else {
            client.grants.check_late(from, stream, frame, arrived)
        };
        match access {
            Access::Allowed => Ok(is_receiving),
            Access::Fenced => Ok(false),
            Access::Excess => {
                Err(Fault::new(TransportCode::CONTROL_FLOOD, "more bytes of a stream than were granted of it"))
            }
            Access::Violation => violation("bytes outside every grant of the path"),
        }
    }

    /// Two writers contradict each other, and the stream is over. The primary is told who they are; if it is one of them
    /// itself, its word counts.
    fn on_conflict(&mut self, stream: StreamId, conflict: Conflict) -> Result<(), Fault> {
        let offset = conflict.at;
        self.log.change(conflict.second, || ProtocolEventKind::StreamConflict { stream, offset });
        let code = TransportCode::RANGE_CONFLICT;
        self.on_stream_over(stream, code.into());
        match conflict.first.filter(|first| conflict.second.is_primary() && !first.is_primary()) {
            Some(_) => {
                let fault = Fault::new(code, "bytes that differ from the primary's");
                Err(Fault { offender: conflict.first, ..fault })
            }
            None => Ok(()),
        }
    }

    /// A stream was ended for its many gaps.
    fn on_overflow(&mut self, overflow: Overflow) -> Fault {
        let code = TransportCode::REASSEMBLY_LIMIT;
        self.on_stream_over(overflow.stream, code.into());
        let fault = Fault::new(code, "a stream with too many gaps");
        Fault { offender: Some(overflow.offender), ..fault }
    }
}

/// Bytes of a stream: a slice of a frame that ends at `frame_end`.
struct Piece {
    stream: StreamId,
    offset: u64,
    data: Bytes,
    frame_end: u64,
    /// Whether the stream ends with these bytes.
    fin: bool,
}

pub(super) fn violation(detail: &'static str) -> Fault {
    Fault::new(TransportCode::PROTOCOL_VIOLATION, detail)
}
