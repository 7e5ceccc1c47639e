//! One QUIC connection of a session: control plane, carriers, packet numbers, liveness. The only home of
//! [`quinn_proto::Connection`]. It knows no logical stream.

mod carriers;
mod control;
mod events;
mod health;
mod inbound;
mod liveness;
mod loss;
mod measured;
mod memory;
mod pacing;
mod packets;
mod probe;
mod quic;
mod state;
mod transport;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{ConnectionEvent, ConnectionHandle, Dir, EndpointEvent, Transmit, TransportConfig, VarInt};
use smallvec::SmallVec;

use self::carriers::CarrierPool;
use self::control::ControlStream;
use self::health::{Health, RateMeter};
use self::inbound::Inbound;
use self::memory::{RoundTrips, Windows};
use self::pacing::Pacer;
use self::packets::SentPackets;
use self::probe::Probe;
use self::quic::Quic;
use self::state::Lifecycle;
use crate::allowance::Allowance;
use crate::auth;
use crate::error::{DeadReason, cut_reason};
use crate::id::{PacketNumber, Side};
use crate::limits;
use crate::limits::Limits;
use crate::protocol_event::{EventDetail, EventLog, ProtocolEventKind};
use crate::status::PathState;
use crate::wire::{CarrierItem, ControlFrame, PacketAck, WireError};

pub(crate) use self::carriers::CarrierId;
pub(crate) use self::liveness::IdlePolicy;
pub(crate) use self::transport::PathSettings;

/// What a path reports to its session.
#[derive(Debug)]
pub(crate) enum PathInput {
    /// The QUIC handshake is done and the protocol agreed on.
    Connected,
    /// A control frame arrived.
    Control(ControlFrame),
    /// Something arrived on a carrier; never a packet boundary.
    Data(CarrierItem),
    /// The peer processed a packet.
    Acknowledged(PacketNumber),
    /// The peer owes an answer for too long.
    Suspect,
    /// A suspect path was heard again.
    Recovered,
    /// The path is in its state for longer than it may.
    Overdue,
    /// The peer broke a rule; the session decides what it costs.
    Fault(WireError),
    /// The connection is gone. Last input of a path.
    Lost(DeadReason),
}

/// What one connection is made with; prepared before the connection exists.
pub(crate) struct PathSetup {
    side: Side,
    idle_policy: IdlePolicy,
    limits: Limits,
    probe: Arc<Probe>,
    transport: Arc<TransportConfig>,
    event_detail: EventDetail,
}

impl PathSetup {
    pub(crate) fn new(side: Side, idle_policy: IdlePolicy, limits: Limits, settings: PathSettings) -> Self {
        let probe = Arc::new(Probe::default());
        let transport = Arc::new(transport::transport_config(side, &limits, settings, &probe));
        Self { side, idle_policy, limits, probe, transport, event_detail: settings.event_detail }
    }

    pub(crate) fn transport(&self) -> Arc<TransportConfig> {
        self.transport.clone()
    }
}

/// One path of a session, at either end.
pub(crate) struct Path {
    handle: ConnectionHandle,
    quic: Quic,
    side: Side,
    idle_policy: IdlePolicy,
    limits: Limits,
    probe: Arc<Probe>,
    lifecycle: Lifecycle,
    control: ControlStream,
    carriers: CarrierPool,
    /// How many there were when that was last noted.
    carriers_noted: usize,
    inbound: Inbound,
    data_open: bool,
    sent: SentPackets,
    pacer: Pacer,
    health: Health,
    /// How often the peer had acknowledged something when that was last looked at.
    acks: u64,
    /// When QUIC's timers were last handled.
    timers_handled: Option<Instant>,
    meter: RateMeter,
    /// No-op frames that are still tolerated.
    no_op_frames: Allowance,
    bytes_received: u64,
    bytes_sent: u64,
    /// Bytes of datagrams that the session did not count yet.
    datagram_bytes: u64,
    inputs: VecDeque<PathInput>,
    lost: Option<DeadReason>,
    /// Nothing more is read: the path was closed here, or its loss was reported.
    ended: bool,
    /// Nobody ever answered at an address that another end named: nothing more is sent to it.
    mute: bool,
    windows: Windows,
    round_trips: RoundTrips,
    /// Whether QUIC has something that it was not asked for yet.
    is_unsent: bool,
    /// Packets that were lost when QUIC was asked last and had something.
    lost_noted: u64,
    /// Whether something may have happened that the session did not handle yet.
    has_news: bool,
    /// When the path is to be woken, unless it was touched since that was asked.
    deadline: Option<Instant>,
    /// Where the peer reached this end last, if the socket tells.
    local_address: Option<IpAddr>,
}

impl Path {
    /// Credit that data leaves to the control plane, in bytes.
    const CONTROL_RESERVE: u64 = 256 * 1024;
    /// What a datagram in memory costs beside its bytes.
    const DATAGRAM_BYTES: usize = 64;
    const TIMER_GRANULARITY: Duration = Duration::from_millis(1);

    pub(crate) fn new(setup: PathSetup, handle: ConnectionHandle, quic: quinn_proto::Connection, now: Instant) -> Self {
        let (burst, per_second) = (setup.limits.no_op_frames_burst, setup.limits.no_op_frames_per_second);
        let no_op_frames = Allowance::new(now, burst, per_second);
        Self {
            handle,
            quic: Quic::new(quic),
            side: setup.side,
            idle_policy: setup.idle_policy,
            limits: setup.limits,
            probe: setup.probe,
            lifecycle: Lifecycle::new(setup.event_detail),
            control: ControlStream::default(),
            carriers: CarrierPool::default(),
            carriers_noted: 0,
            inbound: Inbound::default(),
            data_open: false,
            sent: SentPackets::default(),
            pacer: Pacer::new(now),
            health: Health::new(now),
            acks: 0,
            timers_handled: None,
            meter: RateMeter::new(now),
            no_op_frames,
            bytes_received: 0,
            bytes_sent: 0,
            datagram_bytes: 0,
            inputs: VecDeque::new(),
            lost: None,
            ended: false,
            mute: false,
            windows: Windows::default(),
            round_trips: RoundTrips::new(now),
            is_unsent: false,
            lost_noted: 0,
            has_news: true,
            deadline: None,
            local_address: None,
        }
    }

    // ---- environment in

    /// Packets of so many bytes arrived.
    pub(crate) fn handle_event(
        &mut self,
        now: Instant,
        local_address: Option<IpAddr>,
        event: ConnectionEvent,
        bytes: usize,
    ) {
        self.has_news = true;
        self.local_address = local_address.or(self.local_address);
        self.datagram_bytes = self.datagram_bytes.saturating_add((bytes + Self::DATAGRAM_BYTES) as u64);
        self.round_trips.on_bytes(now, self.quic.rtt(), bytes as u64);
        // Measured before this datagram ends it.
        let silence = self.health.silence(now);
        self.control.on_reached(now, silence, &self.limits);
        self.health.on_heard(now);
        if silence >= self.limits.suspect_after {
            // One datagram, which is less than the window in bytes.
            self.probe.lift_window_once(2 * u64::from(self.quic.current_mtu()));
        }
        if self.lifecycle.move_to_recovered() {
            self.inputs.push_back(PathInput::Recovered);
        }
        self.quic.handle_event(event);
        let acks = self.probe.acks();
        if acks != self.acks {
            self.acks = acks;
            self.control.on_reached(now, self.health.owing(now), &self.limits);
            self.health.on_acknowledged(now);
        }
    }

    /// This client sends from another address from now on. The server is told by a datagram that is due at once.
    pub(crate) fn on_rebind(&mut self) {
        if !self.ended {
            self.local_address = None;
            self.quic.local_address_changed();
        }
    }

    /// Time passed; nothing is done before the path's deadline.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if !self.quic.is_touched() && self.deadline.is_none_or(|at| at > now) {
            return;
        }
        self.has_news = true;
        if self.pacer.deadline().is_some_and(|at| at <= now) {
            self.quic.touch();
        }
        if self.quic.poll_timeout().is_some_and(|at| at <= now) {
            self.timers_handled = Some(now);
            self.quic.handle_timeout(now);
        }
    }

    // ---- out

    /// The next thing that happened. Everything QUIC has is read before a loss is reported.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<PathInput> {
        let input = self.next_input(now);
        self.has_news = input.is_some();
        input
    }

    fn next_input(&mut self, now: Instant) -> Option<PathInput> {
        if self.ended {
            // Events of a connection that is closing concern nobody and must not pile up.
            while self.quic.poll().is_some() {}
            return None;
        }
        if let Some(input) = self.inputs.pop_front() {
            return Some(input);
        }
        while let Some(event) = self.quic.poll() {
            self.on_quic_event(event);
            if let Some(input) = self.inputs.pop_front() {
                return Some(input);
            }
        }
        match self.read(now) {
            Ok(Some(input)) => return Some(input),
            Ok(None) => {}
            Err(fault) => return Some(PathInput::Fault(fault)),
        }
        if let Some(reason) = self.lost.take() {
            self.ended = true;
            self.lifecycle.move_to_dead(reason.clone());
            return Some(PathInput::Lost(reason));
        }
        if self.take_overdue(now) {
            return Some(PathInput::Overdue);
        }
        self.check_liveness(now)
    }

    /// Whether the path is in its state for longer than it may; once. [`Self::poll`] asks when nothing is left to read.
    fn take_overdue(&mut self, now: Instant) -> bool {
        let is_overdue = !self.ended && self.lifecycle.deadline().is_some_and(|deadline| now >= deadline);
        if is_overdue {
            // Reported once; the session then closes the path.
            self.lifecycle.expect_move_by(None);
        }
        is_overdue
    }

    pub(crate) fn poll_endpoint_event(&mut self) -> Option<EndpointEvent> {
        self.quic.poll_endpoint_events()
    }

    /// The answer of the QUIC endpoint to an event of [`Path::poll_endpoint_event`].
    pub(crate) fn handle_endpoint_answer(&mut self, event: ConnectionEvent) {
        self.has_news = true;
        self.quic.handle_event(event);
    }

    pub(crate) fn poll_transmit(&mut self, now: Instant, max_datagrams: usize, buf: &mut Vec<u8>) -> Option<Transmit> {
        if self.mute {
            self.pacer.stop_waiting();
            return None;
        }
        let mtu = usize::from(self.quic.current_mtu().max(1));
        // All datagrams of one call leave in one UDP send, which takes no more bytes than that.
        let fitting = max_datagrams.min(limits::UDP_BYTES_MAX / mtu).max(1);
        let max_datagrams = fitting.min(self.paced_datagrams(now, mtu));
        if max_datagrams == 0 {
            // QUIC was not asked: it has what was lost since it was, and what was given to it, which is noted then.
            self.is_unsent |= self.quic.stats().path.lost_packets != self.lost_noted;
            return None;
        }
        let before = self.probe.bytes_in_flight();
        let transmit = self.quic.untouched().poll_transmit(now, max_datagrams, buf);
        if let Some(transmit) = &transmit {
            let stats = self.quic.stats();
            self.lost_noted = stats.path.lost_packets;
            if self.probe.on_transmit(before, &stats.frame_tx) {
                self.pacer.on_sent(transmit.size);
            }
        }
        // Who fills fewer datagrams than it may has no more.
        self.is_unsent = transmit.as_ref().is_some_and(|transmit| transmit.size >= max_datagrams.saturating_mul(mtu));
        self.health.observe(now, self.probe.bytes_in_flight());
        transmit
    }

    /// How many datagrams may leave now at the rate that the congestion controller names, if it names one.
    fn paced_datagrams(&mut self, now: Instant, mtu: usize) -> usize {
        match self.quic.congestion_state().metrics().pacing_rate {
            // What ends a connection waits for nothing.
            Some(bits) if !self.ended => {
                let is_idle = self.probe.bytes_in_flight() == 0;
                self.pacer.datagrams(now, bits / 8, mtu as u64, is_idle)
            }
            _ => {
                self.pacer.stop_waiting();
                usize::MAX
            }
        }
    }

    /// When to call [`Path::handle_timeout`] at the latest. To be asked when there was nothing more to send.
    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        if self.quic.is_touched() {
            self.deadline = self.next_deadline(now);
            self.quic.rest();
        }
        self.deadline
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        // A timer that fires very late leaves its successor due as well; that comes a moment later.
        let quic = self.quic.untouched().poll_timeout().map(|at| match self.timers_handled {
            Some(handled) if at <= handled => handled.checked_add(Self::TIMER_GRANULARITY).unwrap_or(at),
            _ => at,
        });
        if self.ended {
            return quic;
        }
        let health = match self.idle_policy {
            IdlePolicy::Off => None,
            IdlePolicy::Close | IdlePolicy::Suspect => self.health.deadline(now, self.quic.rtt(), &self.limits),
        };
        let control = self.control.deadline(now, &self.limits);
        // Without room on the control plane no report leaves; room comes with a datagram.
        let report = self.inbound.packets.deadline().filter(|_| self.control.is_ready());
        [quic, health, control, report, self.pacer.deadline(), self.lifecycle.deadline()].into_iter().flatten().min()
    }

    // ---- commands of the session

    /// The client opens the control plane.
    pub(crate) fn open_control(&mut self) -> bool {
        if !self.control.is_open()
            && let Some(stream) = self.quic.streams().open(Dir::Bi)
        {
            self.control.open(&mut self.quic, stream);
        }
        self.control.is_open()
    }

    pub(crate) fn move_to_authenticating(&mut self) {
        self.lifecycle.move_to_authenticating();
    }

    /// The peer has authenticated: its carriers are read, and windows may grow.
    pub(crate) fn move_to_active(&mut self) {
        self.lifecycle.move_to_active();
        self.data_open = true;
        self.has_news = true;
        transport::open_carriers(&mut self.quic, &self.limits);
    }

    /// The peer announced its end, which is to come by the deadline. Returns whether that is new.
    pub(crate) fn move_to_closing(&mut self, deadline: Option<Instant>) -> bool {
        self.quic.touch();
        self.lifecycle.move_to_closing(deadline)
    }

    /// Says until when the path must have left its state, or have become active if it connects: else
    /// [`PathInput::Overdue`] comes.
    pub(crate) fn expect_move_by(&mut self, deadline: Option<Instant>) {
        self.lifecycle.expect_move_by(deadline);
        self.quic.touch();
    }

    /// A server learns whose limits hold when its client has authenticated.
    pub(crate) fn set_limits(&mut self, limits: &Limits) {
        self.limits = limits.clone();
        self.quic.touch();
    }

    /// Ends the path at once; what is unsent is lost.
    pub(crate) fn close(&mut self, now: Instant, reason: DeadReason) {
        if self.ended {
            return;
        }
        self.ended = true;
        let code = VarInt::from_u64(reason.code.to_wire()).unwrap_or(VarInt::MAX);
        let text = cut_reason(&reason.detail).to_owned();
        self.probe.lift_window();
        // Where nobody ever answered, not even the end of the dial is sent ([P-8.4]).
        self.mute = self.idle_policy == IdlePolicy::Close && self.has_heard_nothing();
        self.quic.close(now, code, Bytes::from(text));
        self.lifecycle.move_to_dead(reason);
    }

    /// Whether control frames may be queued for the peer. On a path that is still connecting, HELLO or JOIN must be the
    /// first.
    pub(crate) fn is_hearing(&self) -> bool {
        !self.state().is_dead() && *self.state() != PathState::Connecting
    }

    /// Whether more state may be turned into control frames now.
    pub(crate) fn is_control_ready(&self) -> bool {
        !self.ended && self.control.is_ready()
    }

    pub(crate) fn queue_control(&mut self, frame: &ControlFrame) {
        self.control.queue(frame);
        self.note_sent(frame.name());
        self.has_news = true;
        self.quic.touch();
    }

    /// What the path did, which its session takes over.
    pub(crate) fn log_mut(&mut self) -> &mut EventLog {
        self.lifecycle.log()
    }

    fn note_sent(&mut self, frame: &'static str) {
        self.lifecycle.log().frame(None, || ProtocolEventKind::FrameSent { frame });
    }

    fn note_received(&mut self, frame: &'static str) {
        self.lifecycle.log().frame(None, || ProtocolEventKind::FrameReceived { frame });
    }

    /// Whether something may have happened that the session did not handle yet.
    pub(crate) fn has_news(&self) -> bool {
        self.has_news
    }

    /// Whether the path may have something to send, or another deadline.
    pub(crate) fn is_touched(&self) -> bool {
        self.quic.is_touched()
    }

    /// Hands the control plane to QUIC, then what waits on carriers. Packets of streams follow if `is_sending`: then
    /// acknowledgements go along.
    pub(crate) fn flush(&mut self, now: Instant, is_sending: bool) {
        if self.ended || !self.control.is_open() {
            return;
        }
        if self.data_open
            && self.control.is_ready()
            && let Some(ranges) = self.inbound.packets.take_report(now, is_sending || !self.control.is_flushed())
        {
            self.control.queue(&PacketAck { ranges }.into());
            self.note_sent("PACKET_ACK");
        }
        // The control plane takes QUIC's window and the peer's credit before carriers do ([P-5.1]).
        self.flush_control(now);
        self.carriers.flush_all(&mut self.quic);
        self.note_carriers();
    }

    fn note_carriers(&mut self) {
        if self.lifecycle.log().detail() >= EventDetail::Streams {
            let open = self.carriers.count();
            if std::mem::replace(&mut self.carriers_noted, open) != open {
                self.lifecycle.log().stream(None, || ProtocolEventKind::CarriersChanged { open });
            }
        }
    }

    pub(crate) fn bind_carrier(&mut self) -> Option<CarrierId> {
        self.carriers.bind(&mut self.quic, &self.limits)
    }

    pub(crate) fn unbind_carrier(&mut self, carrier: CarrierId) {
        self.carriers.unbind(&mut self.quic, carrier, &self.limits);
    }

    pub(crate) fn relay_carrier(&mut self) -> Option<CarrierId> {
        self.carriers.relay(&mut self.quic)
    }

    pub(crate) fn is_carrier_open(&self, carrier: CarrierId) -> bool {
        self.carriers.is_open(carrier)
    }

    /// Whether a packet may go on this carrier now.
    pub(crate) fn is_carrier_ready(&self, carrier: CarrierId) -> bool {
        !self.ended && self.sent.has_room() && self.carriers.is_ready(carrier)
    }

    /// Whether packets may be sent on some carrier at all.
    pub(crate) fn has_packet_room(&self) -> bool {
        !self.ended && self.sent.has_room()
    }

    pub(crate) fn next_packet(&self) -> PacketNumber {
        self.sent.next()
    }

    /// Sends one packet, whose header must carry [`Path::next_packet`].
    pub(crate) fn submit_packet(&mut self, carrier: CarrierId, chunks: SmallVec<[Bytes; 4]>) -> PacketNumber {
        let number = self.sent.next();
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        self.sent.on_sent(bytes);
        self.bytes_sent = self.bytes_sent.saturating_add(bytes);
        self.carriers.submit(&mut self.quic, carrier, chunks, &self.limits);
        self.note_sent("PACKET");
        number
    }

    /// The largest packet worth making now: a slow path gets short ones, so that urgent data need not wait long.
    pub(crate) fn packet_bytes(&self) -> usize {
        let window = usize::try_from(self.quic.congestion_state().window()).unwrap_or(usize::MAX);
        (window / 2).clamp(4 * 1024, limits::DATA_FRAME_PAYLOAD_MAX)
    }

    /// What datagrams occupied that arrived since this was last asked, in bytes.
    pub(crate) fn take_datagram_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.datagram_bytes)
    }

    /// Stream data was taken: so many bytes for the first time, and so many that another path was faster with.
    pub(crate) fn on_data_taken(&mut self, now: Instant, new: u64, repeated: u64) {
        if new > 0 {
            self.no_op_frames.give_back(1);
        }
        let bytes = new.saturating_add(repeated);
        self.bytes_received = self.bytes_received.saturating_add(bytes);
        self.meter.on_bytes(now, bytes);
    }

    /// Whether one more no-op frame is tolerated; counts it.
    pub(crate) fn admit_no_op(&mut self, now: Instant) -> bool {
        self.no_op_frames.take(now)
    }

    // ---- what it is

    pub(crate) fn handle(&self) -> ConnectionHandle {
        self.handle
    }

    pub(crate) fn state(&self) -> &PathState {
        self.lifecycle.state()
    }

    /// Whether the connection is over, here or at the far end.
    pub(crate) fn is_closed(&self) -> bool {
        self.quic.is_closed()
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.quic.is_drained()
    }

    /// Makes an acknowledgement that this end owes due now. Returns whether it was not due before.
    pub(crate) fn hasten_report(&mut self, now: Instant) -> bool {
        let is_new = self.control.is_ready() && self.inbound.packets.hasten(now);
        if is_new {
            self.quic.touch();
        }
        is_new
    }

    /// Whether the peer knows what this end received, and received all of the control plane.
    pub(crate) fn has_announced_all(&self) -> bool {
        let said = self.control.is_flushed() && !self.is_unsent && self.probe.bytes_in_flight() == 0;
        said && self.inbound.packets.deadline().is_none()
    }

    /// Whether everything queued was handed to QUIC and every packet was processed by the peer.
    pub(crate) fn is_settled(&self) -> bool {
        self.control.is_flushed() && self.carriers.is_flushed() && self.sent.is_all_acknowledged()
    }

    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    /// This end's own address, as far as it is known.
    pub(crate) fn local_address(&self) -> Option<IpAddr> {
        self.local_address
    }

    /// Whether this end dials, and nobody answered yet.
    pub(crate) fn is_unheard_dial(&self) -> bool {
        self.side == Side::Client && !self.ended && self.has_heard_nothing()
    }

    /// A secret that only the two ends of this connection know.
    pub(crate) fn exporter(&self) -> Option<[u8; 32]> {
        let mut secret = [0; 32];
        self.quic.crypto_session().export_keying_material(&mut secret, auth::EXPORTER_LABEL, b"").ok()?;
        Some(secret)
    }
}

/// The connection of a path, for what no honest peer does with it.
#[cfg(test)]
pub(crate) type RawQuic = quinn_proto::Connection;

#[cfg(test)]
impl Path {
    pub(crate) fn quic(&mut self) -> &mut RawQuic {
        &mut self.quic
    }

    /// Expects acknowledgements of packets that a test writes itself.
    pub(crate) fn pretend_sent(&mut self) {
        (0..=limits::PACKETS_OUTSTANDING_MAX).for_each(|_| self.sent.on_sent(1));
    }
}
