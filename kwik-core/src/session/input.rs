//! What arrives on paths: which frame is legal from whom, in one place, and what it costs when it is not (PROTOCOL.md
//! §5).

use std::time::Instant;

use super::common::{Common, StreamData};
use super::{ClientRole, Moment, PrimaryRole, RoleState, SecondaryRole, Session, overdue, violation};
use crate::error::{DeadReason, Fault, FrameEffect, TransportCode};
use crate::id::PathId;
use crate::path::{Path, PathInput};
use crate::protocol_event::ProtocolEventKind;
use crate::status::PathState;
use crate::wire::{CarrierItem, ControlFrame};

impl Session {
    pub(super) fn on_input(&mut self, moment: Moment, path: PathId, input: PathInput) {
        let Self { common, role, .. } = self;
        match input {
            PathInput::Connected => {
                let outcome = match role {
                    RoleState::Client(client) => client.on_connected(common, moment.now, path),
                    // A server's session begins when its connection is there and has authenticated.
                    _ => Err(Fault::new(TransportCode::INTERNAL, "a connection was made twice")),
                };
                self.close_on_fault(moment.now, path, outcome);
            }
            PathInput::Control(frame) => {
                let outcome = match role {
                    RoleState::Client(client) => client.on_control(common, moment, path, frame),
                    RoleState::Primary(primary) => primary.on_control(common, frame),
                    RoleState::Secondary(secondary) => secondary.on_control(common, moment, frame),
                };
                self.close_on_fault(moment.now, path, outcome);
            }
            PathInput::Data(item) => {
                let outcome = self.on_data(moment.now, path, item);
                self.close_on_fault(moment.now, path, outcome);
            }
            PathInput::Acknowledged(packet) => {
                let record = common.transmit.on_acknowledged(&mut common.streams, path, packet);
                if let (RoleState::Client(client), Some(record)) = (role, record) {
                    client.on_relayed_acknowledged(common, path, record);
                }
            }
            PathInput::Suspect | PathInput::Recovered => {
                // Never at a server: its idle policy leaves the judging to the client.
                if let RoleState::Client(client) = role {
                    client.on_liveness_changed(path);
                }
            }
            PathInput::Overdue => {
                let is_main = path == common.paths.main_id();
                if let Some(state) = common.paths.get(path).map(Path::state) {
                    let reason = overdue(state, is_main);
                    self.close_path(moment.now, path, reason);
                }
            }
            PathInput::Fault(error) => {
                let reason = DeadReason::new(error.code, format!("{}: {}", error.frame, error.detail));
                self.on_fault_of(moment.now, path, error.code, reason);
            }
            PathInput::Lost(reason) => self.on_path_lost(moment.now, path, reason),
        }
    }

    fn on_data(&mut self, now: Instant, from: PathId, item: CarrierItem) -> Result<FrameEffect, Fault> {
        let Self { common, role, .. } = self;
        match item {
            CarrierItem::Stream { stream, offset, data, frame_end, fin } => {
                let bytes = StreamData { stream, offset: offset.0, data, frame_end: frame_end.0, fin };
                match role {
                    RoleState::Client(client) => client.on_stream_data(common, now, from, bytes),
                    RoleState::Primary(_) => stream_data_at_primary(common, now, from, bytes),
                    RoleState::Secondary(_) => Err(violation("bytes of a stream for a secondary")),
                }
            }
            CarrierItem::Raw(raw) => match role {
                RoleState::Primary(primary) => primary.on_raw_forward(common, now, raw),
                RoleState::Secondary(secondary) => secondary.on_raw_forward(common, now, raw),
                RoleState::Client(_) => Err(violation("a relayed raw packet for a client")),
            },
            CarrierItem::Grant(grant) => match role {
                RoleState::Secondary(secondary) => secondary.on_grant(common, grant),
                RoleState::Client(_) | RoleState::Primary(_) => Err(violation("a relayed grant for no secondary")),
            },
            CarrierItem::PacketStart { .. } | CarrierItem::PacketEnd { .. } => Ok(FrameEffect::Progress),
        }
    }

    /// Handles the outcome of an input of `from`: a fault closes the path of the offender, and so do too many no-op
    /// frames. A few no-op frames are normal, since frames cross.
    fn close_on_fault(&mut self, now: Instant, from: PathId, outcome: Result<FrameEffect, Fault>) {
        let outcome = match outcome {
            Ok(FrameEffect::NoOp) => self.charge(now, from),
            Ok(FrameEffect::Progress) => Ok(()),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = outcome {
            // The frame of one path may reveal the fault of another: see `Common::judge_stream_data`.
            self.on_fault(now, fault.offender.unwrap_or(from), &fault);
        }
    }

    fn charge(&mut self, now: Instant, from: PathId) -> Result<(), Fault> {
        // A path that is gone cannot flood any more.
        let is_tolerated = self.common.paths.get_mut(from).is_none_or(|path| path.admit_no_op(now));
        let flood = Fault::new(TransportCode::CONTROL_FLOOD, "too many frames that achieve nothing");
        if is_tolerated { Ok(()) } else { Err(flood) }
    }

    /// The peer committed a fault on one path. A secondary's fault ends its path, any other fault ends the session.
    pub(super) fn on_fault(&mut self, now: Instant, path: PathId, fault: &Fault) {
        self.on_fault_of(now, path, fault.code, DeadReason::new(fault.code, fault.detail));
    }

    fn on_fault_of(&mut self, now: Instant, path: PathId, code: TransportCode, reason: DeadReason) {
        let detail = || reason.detail.clone();
        self.common.log.change(path, || ProtocolEventKind::Fault { code, detail: detail() });
        self.close_path(now, path, reason);
    }
}

fn stream_data_at_primary(
    common: &mut Common,
    now: Instant,
    from: PathId,
    bytes: StreamData,
) -> Result<FrameEffect, Fault> {
    let (stream, effect) = (bytes.stream, bytes.effect());
    let outcome = common.on_stream_data(now, from, bytes)?;
    common.judge_stream_data(stream, &outcome)?;
    Ok(effect)
}

impl ClientRole {
    fn on_control(
        &mut self,
        cx: &mut Common,
        moment: Moment,
        from: PathId,
        frame: ControlFrame,
    ) -> Result<FrameEffect, Fault> {
        let is_authenticating = cx.paths.get(from).is_some_and(|path| *path.state() == PathState::Authenticating);
        match frame {
            ControlFrame::Welcome(welcome) if is_authenticating => self.on_welcome(cx, from, welcome),
            // PACKET_ACK, which may come earlier ([P-3.2]), is handled by the path and never comes here.
            _ if is_authenticating => Err(violation("a frame before WELCOME")),
            frame if from.is_primary() => self.on_control_of_primary(cx, moment, frame),
            frame => self.on_control_of_secondary(cx, moment.now, from, frame),
        }
    }

    fn on_control_of_primary(
        &mut self,
        cx: &mut Common,
        moment: Moment,
        frame: ControlFrame,
    ) -> Result<FrameEffect, Fault> {
        match frame {
            ControlFrame::AddPath(add) => self.on_add_path(cx, moment.now, add),
            ControlFrame::RemovePath(remove) => self.on_remove_path(cx, moment.now, &remove),
            ControlFrame::Lease(lease) => self.on_lease(lease),
            ControlFrame::Grant(grant) => self.on_grant(cx, grant),
            ControlFrame::Revoke(revoke) => Ok(self.on_revoke(cx, &revoke)),
            ControlFrame::Raw(raw) => self.on_raw(PathId::PRIMARY, raw),
            ControlFrame::RawStatus(status) => self.on_raw_status(PathId::PRIMARY, status),
            ControlFrame::ResetStream(reset) => {
                let effect = cx.on_reset(&reset)?;
                self.on_stream_over(reset.stream, reset.code);
                Ok(effect)
            }
            ControlFrame::StopSending(stop) => match (cx.on_stop(&stop)?, stop.conflict) {
                (effect, None) => Ok(effect),
                (_, Some(_)) => Err(violation("a conflict of writers, which only a primary hears of")),
            },
            frame => cx.on_stream_control(frame),
        }
    }

    fn on_control_of_secondary(
        &mut self,
        cx: &mut Common,
        now: Instant,
        from: PathId,
        frame: ControlFrame,
    ) -> Result<FrameEffect, Fault> {
        match frame {
            ControlFrame::GrantEnd(end) => self.on_grant_end(from, &end),
            ControlFrame::Raw(raw) => self.on_raw(from, raw),
            ControlFrame::RawStatus(status) => self.on_raw_status(from, status),
            ControlFrame::Close(_) => Ok(self.on_member_closing(cx, now, from)),
            _ => Err(violation("a frame that a secondary may not send")),
        }
    }
}

impl PrimaryRole {
    fn on_control(&mut self, cx: &mut Common, frame: ControlFrame) -> Result<FrameEffect, Fault> {
        match frame {
            ControlFrame::PathStatus(status) => self.on_path_status(cx, &status),
            ControlFrame::GrantStatus(status) => self.on_grant_status(cx, status),
            ControlFrame::RawStatus(status) => Ok(self.raw.on_status(cx, &status)),
            ControlFrame::ResetStream(reset) => cx.on_reset(&reset),
            ControlFrame::StopSending(stop) => {
                // This checks the stream id, so no conflict is reported of a stream that was never opened.
                let effect = cx.on_stop(&stop)?;
                match stop.conflict {
                    Some(conflict) => self.on_conflict(cx, stop.stream, conflict).map(|()| effect),
                    None => Ok(effect),
                }
            }
            frame => cx.on_stream_control(frame),
        }
    }
}

impl SecondaryRole {
    fn on_control(&mut self, cx: &mut Common, moment: Moment, frame: ControlFrame) -> Result<FrameEffect, Fault> {
        match frame {
            ControlFrame::StopSending(stop) => match (cx.on_stop(&stop)?, stop.conflict) {
                (effect, None) => Ok(effect),
                (_, Some(_)) => Err(violation("a conflict of writers, which only a primary hears of")),
            },
            // OPEN_STREAM and MAX_STREAMS, which are handled there as well, do not go to a secondary ([P-5.5]).
            ControlFrame::MaxStreamData(_) | ControlFrame::Close(_) => cx.on_stream_control(frame),
            ControlFrame::Lease(lease) => self.on_lease(moment, &lease),
            ControlFrame::Revoke(revoke) => Ok(cx.streams.revoke_part(revoke.grant)),
            ControlFrame::RawStatus(status) => Ok(self.raw.on_status(cx, &status)),
            _ => Err(violation("a frame that a client may not send to a secondary")),
        }
    }
}
