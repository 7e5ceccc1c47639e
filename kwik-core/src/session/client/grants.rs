//! Grants at the client: the primary's commands, the bytes of secondaries, and the outcome. Raw packets are relayed
//! here too; the client reads the content of neither (PROTOCOL.md §7, §8).

use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;

use super::notices::Notice;
use super::{ClientRole, RelayRecord};
use crate::error::{ErrorCode, Fault, FrameEffect, TransportCode};
use crate::grant::{Access, Grant};
use crate::id::{Dir, PathId, Side, StreamId, StreamOffset};
use crate::protocol_event::ProtocolEventKind;
use crate::session::common::{Common, StreamData};
use crate::session::violation;
use crate::wire::{self, GrantEnd, GrantOpen, Raw, RawStatus, Revoke};

impl ClientRole {
    // ---- the primary's commands

    pub(in crate::session) fn on_grant(&mut self, cx: &mut Common, frame: wire::Grant) -> Result<FrameEffect, Fault> {
        let range = frame.start.0..frame.start.0.saturating_add(frame.len);
        if frame.signed.payload.len() > crate::limits::REQUEST_BYTES_MAX {
            return Err(Fault::new(TransportCode::FRAME_TOO_LARGE, "a request longer than its limit"));
        }
        if self.grants.is_known(frame.grant) {
            return Err(violation("a grant id was used twice"));
        }
        if !self.members.was_added(frame.path) {
            return Err(violation("GRANT for a path that was never added"));
        }
        // This opens the stream, if no other frame did yet ([P-5.7]).
        let limit = cx.streams.receive_limit(frame.stream)?;
        let missing = cx.streams.gaps(frame.stream, range.clone());
        let (id, path, stream) = (frame.grant, frame.path, frame.stream);
        let grant = Grant { id, epoch: frame.epoch, path, stream, range: range.clone() };
        let Some(limit) = limit else {
            self.grants.refuse(grant, &missing, TransportCode::STREAM_GONE.into())?;
            return Ok(FrameEffect::Progress);
        };
        if self.members.get(path).is_none() {
            self.grants.refuse(grant, &missing, TransportCode::PATH_UNKNOWN.into())?;
            return Ok(FrameEffect::Progress);
        }
        // Recorded before it is relayed: its bytes may come as soon as the secondary has it ([P-8.9]).
        self.grants.record(grant, &missing)?;
        // Not open if nothing of its range is missing, or if there are too many ranges to remember.
        if self.grants.is_open(id) {
            cx.log.change(path, || ProtocolEventKind::GrantRecorded { grant: id, stream, range });
            let open = GrantOpen {
                grant: id,
                epoch: frame.epoch,
                stream,
                start: frame.start,
                len: frame.len,
                limit: StreamOffset(limit),
                signed: frame.signed,
            };
            self.relay.push_grant(path, &open);
        }
        Ok(FrameEffect::Progress)
    }

    pub(in crate::session) fn on_revoke(&mut self, cx: &mut Common, revoke: &Revoke) -> FrameEffect {
        match self.grants.revoke(revoke.grant, revoke.epoch) {
            Some(grant) => {
                cx.log.change(grant.path, || ProtocolEventKind::GrantRevoked { grant: grant.id });
                // A grant that still waited here is never relayed, so its secondary needs no REVOKE.
                if !self.relay.drop_grant(grant.path, grant.id) {
                    self.notices.push(grant.path, Notice::Revoked(grant.id));
                }
                FrameEffect::Progress
            }
            None if self.grants.is_crossed_revoke() => FrameEffect::Progress,
            None => FrameEffect::NoOp,
        }
    }

    // ---- secondaries

    pub(in crate::session) fn on_grant_end(&mut self, from: PathId, end: &GrantEnd) -> Result<FrameEffect, Fault> {
        let was_open = self.grants.is_open(end.grant);
        self.grants.on_end(end.grant, from, end.end.0, end.code)?;
        // An end that does not settle its grant yet counts too, or GRANT_END could be repeated for ever.
        let is_useless = !was_open || self.grants.is_open(end.grant);
        if is_useless && !self.grants.is_crossed_end(from) {
            return Ok(FrameEffect::NoOp);
        }
        Ok(FrameEffect::Progress)
    }

    /// A server acknowledged the packet of a grant. The limit in the grant may be out of date by now, and a control
    /// frame that was sent meanwhile may have come before the grant and been ignored ([P-8.11]).
    pub(in crate::session) fn on_relayed_acknowledged(&mut self, cx: &mut Common, path: PathId, record: RelayRecord) {
        let RelayRecord::Grant { grant, stream, limit } = record else { return };
        if !self.grants.is_open(grant) {
            self.notices.push(path, Notice::Revoked(grant));
        } else if cx.streams.receive_limit(stream).ok().flatten() > Some(limit.0) {
            self.notices.push(path, Notice::Raised(stream));
        }
    }

    /// Bytes of a stream came, of the primary or of a secondary.
    pub(in crate::session) fn on_stream_data(
        &mut self,
        cx: &mut Common,
        now: Instant,
        from: PathId,
        bytes: StreamData,
    ) -> Result<FrameEffect, Fault> {
        let (stream, effect) = (bytes.stream, bytes.effect());
        if !from.is_primary() {
            let arrived = bytes.data.len() as u64;
            if !self.admit_secondary(cx, from, stream, bytes.rest_of_frame(), arrived, bytes.fin)? {
                return Ok(effect);
            }
        }
        let outcome = match cx.on_stream_data(now, from, bytes) {
            Ok(outcome) => outcome,
            Err(fault) => {
                if cx.streams.is_receiving(stream) == Some(false) {
                    self.on_stream_over(stream, fault.code.into());
                }
                return Err(fault);
            }
        };
        // Before the stream ends, if it does: a grant that these bytes complete is delivered, not lost.
        self.grants.on_new(stream, &outcome.inserted.new);
        if let Some(overflow) = &outcome.overflow {
            self.on_stream_over(overflow.stream, TransportCode::REASSEMBLY_LIMIT.into());
        } else if outcome.conflict.is_some() {
            self.on_stream_over(stream, TransportCode::RANGE_CONFLICT.into());
        }
        cx.judge_stream_data(stream, &outcome)?;
        Ok(effect)
    }

    /// Whether a frame of a secondary is within its grants and its bytes are still wanted.
    fn admit_secondary(
        &mut self,
        cx: &Common,
        from: PathId,
        stream: StreamId,
        frame: Range<u64>,
        arrived: u64,
        fin: bool,
    ) -> Result<bool, Fault> {
        if fin {
            return Err(Fault::new(TransportCode::FINAL_SIZE, "a secondary ended a stream"));
        }
        let violation = |detail| Err(Fault::new(TransportCode::GRANT_VIOLATION, detail));
        if stream.dir() == Dir::Uni && stream.initiator() == Side::Client {
            return violation("a stream that only the client writes");
        }
        let Some(is_receiving) = cx.streams.is_receiving(stream) else {
            return violation("a stream that was never opened");
        };
        let access = if is_receiving {
            self.grants.check(from, stream, frame, arrived)
        } else {
            self.grants.check_late(from, stream, frame, arrived)
        };
        match access {
            // Within the grants. If the stream takes no more, the bytes are dropped and nobody is blamed.
            Access::Allowed => Ok(is_receiving),
            Access::Fenced => Ok(false),
            Access::Excess => {
                Err(Fault::new(TransportCode::CONTROL_FLOOD, "more bytes of a stream than were granted of it"))
            }
            Access::Violation => violation("bytes outside every grant of the path"),
        }
    }

    /// The client takes nothing more of a stream: every secondary that writes it is stopped, and its open grants are
    /// reported as lost.
    pub(in crate::session) fn on_stream_over(&mut self, id: StreamId, code: ErrorCode) {
        for (path, grant) in self.grants.stream_gone(id, TransportCode::STREAM_GONE.into()) {
            // A grant that still waited here is never relayed, so its secondary has nothing to stop.
            if !self.relay.drop_grant(path, grant) {
                self.notices.push(path, Notice::Stopped(id, code));
            }
        }
    }

    /// The application wants nothing more of a stream.
    pub(in crate::session) fn on_stream_unwanted(&mut self, cx: &Common, id: StreamId, code: ErrorCode) {
        if cx.streams.is_receiving(id) == Some(true) && !cx.streams.is_received(id) {
            self.on_stream_over(id, code);
        }
    }

    // ---- raw packets

    pub(in crate::session) fn on_raw(&mut self, from: PathId, raw: Raw) -> Result<FrameEffect, Fault> {
        let known = raw.to.is_primary() || self.members.get(raw.to).is_some();
        if !known || raw.to == from {
            let sequence = raw.signed.sequence;
            self.relay.refuse_raw(from, raw.to, sequence, TransportCode::PATH_UNKNOWN)?;
            // Until the primary is notified that the path was refused, no sender can know it.
            let could_know = !self.members.has_refusal(raw.to);
            return Ok(if could_know { FrameEffect::NoOp } else { FrameEffect::Progress });
        }
        let between_secondaries = !from.is_primary() && !raw.to.is_primary();
        let sender = self.members.get(from).filter(|_| between_secondaries);
        let forwarded_ticket = sender.map_or_else(Bytes::new, |member| member.ticket.clone());
        self.relay.push_raw(from, raw.to, forwarded_ticket, raw.signed)?;
        Ok(FrameEffect::Progress)
    }

    /// The receiver of a raw packet answers with its raw status.
    pub(in crate::session) fn on_raw_status(
        &mut self,
        receiver: PathId,
        status: RawStatus,
    ) -> Result<FrameEffect, Fault> {
        // RAW_STATUS may cross the end of the path whose server sent the packet: then nobody waits for it any more.
        let from = status.from;
        let is_gone = self.members.was_added(from) && self.members.get(from).is_none();
        if status.to != receiver {
            return Err(violation("RAW_STATUS about another path than its own"));
        }
        if is_gone {
            return Ok(FrameEffect::NoOp);
        }
        if !self.relay.on_status(status) {
            return Err(violation("RAW_STATUS for a packet that was not relayed, or was answered"));
        }
        Ok(FrameEffect::Progress)
    }
}
