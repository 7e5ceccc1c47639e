//! What QUIC brings to a path: its events, the control plane, and carriers.

use std::time::Instant;

use quinn_proto::crypto::rustls::HandshakeData;
use quinn_proto::{Dir, StreamEvent};

use super::{Path, PathInput, loss};
use crate::ALPN;
use crate::error::TransportCode;
use crate::id::Side;
use crate::status::PathState;
use crate::wire::{ControlFrame, WireError};

impl Path {
    pub(super) fn on_quic_event(&mut self, event: quinn_proto::Event) {
        match event {
            quinn_proto::Event::Connected => self.inputs.push_back(self.check_protocol()),
            quinn_proto::Event::ConnectionLost { reason } => {
                // Reported only after everything that came before the loss was read: see `next_input`.
                let connecting = *self.lifecycle.state() == PathState::Connecting;
                self.lost = Some(loss::reason(reason, connecting));
            }
            quinn_proto::Event::Stream(event) => self.on_stream_event(event),
            quinn_proto::Event::HandshakeDataReady
            | quinn_proto::Event::DatagramReceived
            | quinn_proto::Event::DatagramsUnblocked => {}
        }
    }

    fn on_stream_event(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Opened { dir: Dir::Bi } => {
                // QUIC's stream limit of one keeps a client from opening a second.
                if self.side == Side::Server
                    && let Some(stream) = self.quic.streams().accept(Dir::Bi)
                {
                    self.control.open(&mut self.quic, stream);
                }
            }
            StreamEvent::Opened { dir: Dir::Uni } => self.inbound.on_opened(),
            StreamEvent::Readable { id } if self.control.is(id) => self.control.on_readable(),
            StreamEvent::Readable { id } => self.inbound.on_readable(id),
            // The control plane writes first: see `flush`.
            StreamEvent::Writable { .. } | StreamEvent::Available { .. } => {}
            StreamEvent::Finished { id } => self.carriers.on_finished(id),
            StreamEvent::Stopped { .. } => self.inputs.push_back(PathInput::Fault(WireError {
                code: TransportCode::PROTOCOL_VIOLATION,
                frame: "STOP_SENDING of QUIC",
                detail: "a carrier or the control plane was stopped",
            })),
        }
    }

    pub(super) fn has_heard_nothing(&self) -> bool {
        self.quic.stats().udp_rx.datagrams == 0
    }

    fn check_protocol(&self) -> PathInput {
        let data = self.quic.crypto_session().handshake_data();
        let agreed = data
            .and_then(|data| data.downcast::<HandshakeData>().ok())
            .is_none_or(|data| data.protocol.as_deref() == Some(ALPN));
        if agreed {
            return PathInput::Connected;
        }
        PathInput::Fault(WireError {
            code: TransportCode::TLS_FAILED,
            frame: "ALPN",
            detail: "the peer does not speak kwik/1",
        })
    }

    /// The window is larger for the control plane than for data.
    pub(super) fn flush_control(&mut self, now: Instant) {
        let window = self.send_window();
        if !self.control.is_flushed() {
            self.is_unsent = true;
            self.quic.set_send_window(window.saturating_add(Self::CONTROL_RESERVE));
            self.control.flush(&mut self.quic, now);
        }
        self.quic.untouched().set_send_window(window);
    }

    fn send_window(&self) -> u64 {
        self.windows.send(self.quic.congestion_state().window())
    }

    fn check_control(&mut self, now: Instant) -> Result<(), WireError> {
        if !self.control.is_suspect(now, &self.limits) {
            return Ok(());
        }
        // The peer is judged after QUIC took all that the peer has given credit for until now.
        self.flush_control(now);
        let verdict = self.control.check(&mut self.quic, now, self.health.unreached(now), &self.limits);
        // `check` may have lifted the window.
        let window = self.send_window();
        self.quic.set_send_window(window);
        verdict
    }

    pub(super) fn read(&mut self, now: Instant) -> Result<Option<PathInput>, WireError> {
        self.check_control(now)?;
        if self.carriers.is_broken() && self.lost.is_none() {
            return Err(WireError {
                code: TransportCode::PROTOCOL_VIOLATION,
                frame: "carrier",
                detail: "a carrier was stopped",
            });
        }
        while let Some(frame) = self.control.next(&mut self.quic)? {
            self.note_received(frame.name());
            let ControlFrame::PacketAck(ack) = frame else {
                if matches!(frame, ControlFrame::Close(_)) {
                    self.inbound.packets.on_peer_closing();
                }
                return Ok(Some(PathInput::Control(frame)));
            };
            let new = self.sent.on_ack(&ack.ranges)?;
            if new.is_empty() && !self.admit_no_op(now) {
                return Err(WireError {
                    code: TransportCode::CONTROL_FLOOD,
                    frame: "PACKET_ACK",
                    detail: "too many acknowledgements of nothing new",
                });
            }
            // A packet that was acknowledged makes up for one no-op frame ([P-5.16]).
            self.no_op_frames.give_back(new.len() as u64);
            self.inputs.extend(new.into_iter().map(PathInput::Acknowledged));
            if let Some(input) = self.inputs.pop_front() {
                return Ok(Some(input));
            }
        }
        // Carriers are not read before the peer has authenticated ([P-2.5]).
        if !self.data_open {
            return Ok(None);
        }
        let item = self.inbound.next(&mut self.quic, now)?;
        if let Some(item) = &item {
            self.note_received(item.name());
        }
        Ok(item.map(PathInput::Data))
    }
}
