//! Raw packets at a server: signed and sent, checked and queued (PROTOCOL.md §7).

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::common::Common;
use super::event::{RawError, RawPacket, SessionEvent};
use crate::allowance::Allowance;
use crate::auth::{self, Identity, PublicIdentity, ReplayWindow, SignatureContext};
use crate::error::{ErrorCode, Fault, FrameEffect, TransportCode};
use crate::id::{PathId, SessionId};
use crate::limits::{self, Limits};
use crate::path::Path;
use crate::wire::{ControlFrame, Raw, RawForward, RawStatus, SignedPayload};

/// One server's end of the raw packets of a session.
pub(super) struct RawEnd {
    session: SessionId,
    own: PathId,
    identity: Identity,
    packets_max: usize,
    bytes_max: usize,
    answers_max: usize,
    answer_timeout: Duration,
    /// How many wrong signatures are verified: at once, and more each second.
    forged_max: (u32, u32),
    /// How much more all paths together may have than one.
    paths_max: usize,
    targets: BTreeMap<PathId, RawTarget>,
    sources: BTreeMap<PathId, RawSource>,
    /// Packets that did not prove who their sender is.
    forged_tickets: Allowance,
    queue: VecDeque<RawPacket>,
    queued_bytes: usize,
    /// Packets and answers that were not sent yet.
    packets: VecDeque<Raw>,
    answers: VecDeque<RawStatus>,
}

/// The packets to one path that have no raw status yet.
#[derive(Default)]
struct RawTarget {
    next: u64,
    waiting: BTreeMap<u64, Unacknowledged>,
    waiting_bytes: usize,
}

/// A packet without a raw status.
struct Unacknowledged {
    len: usize,
    is_sent: bool,
    /// Until when the raw status must have come, once the packet was handed to the control plane.
    due: Option<Instant>,
}

/// What is known of a server that sends here.
struct RawSource {
    identity: PublicIdentity,
    window: ReplayWindow,
    /// Signatures that were not this sender's.
    forged: Allowance,
    queued: usize,
    queued_bytes: usize,
}

impl RawTarget {
    /// When the raw status of the oldest packet is overdue.
    fn due(&self) -> Option<Instant> {
        self.waiting.values().next().and_then(|sent| sent.due)
    }
}

impl RawEnd {
    pub(super) fn new(now: Instant, (session, own): (SessionId, PathId), identity: Identity, limits: &Limits) -> Self {
        let forged_max = (limits.forged_signatures_burst, limits.forged_signatures_per_second);
        Self {
            session,
            own,
            identity,
            packets_max: limits.raw_packets_max,
            bytes_max: limits.raw_queue_bytes_max,
            answers_max: limits.control_queue_frames_max,
            answer_timeout: limits.answer_timeout,
            forged_max,
            paths_max: limits.paths_max,
            targets: BTreeMap::new(),
            sources: BTreeMap::new(),
            forged_tickets: Allowance::new(now, forged_max.0, forged_max.1),
            queue: VecDeque::new(),
            queued_bytes: 0,
            packets: VecDeque::new(),
            answers: VecDeque::new(),
        }
    }

    /// Signs and queues a packet; returns its sequence number.
    pub(super) fn send(&mut self, to: PathId, payload: Bytes) -> Result<u64, RawError> {
        if payload.len() > limits::RAW_BYTES_MAX {
            return Err(RawError::TooLong { len: payload.len() });
        }
        if to == self.own {
            return Err(RawError::OwnPath(to));
        }
        let flow = self.targets.entry(to).or_default();
        let full = flow.waiting.len() >= self.packets_max
            || flow.waiting_bytes.saturating_add(payload.len()) > self.bytes_max
            || self.packets.len() >= self.packets_max.saturating_mul(self.paths_max);
        if full {
            return Err(RawError::Blocked);
        }
        let sequence = flow.next;
        flow.next += 1;
        flow.waiting.insert(sequence, Unacknowledged { len: payload.len(), is_sent: false, due: None });
        flow.waiting_bytes += payload.len();
        let context = SignatureContext { session: self.session, from: self.own, to, sequence };
        let signature = auth::sign_raw(&self.identity, context, &payload);
        self.packets.push_back(Raw { to, signed: SignedPayload { sequence, payload, signature } });
        Ok(sequence)
    }

    pub(super) fn recv(&mut self) -> Option<RawPacket> {
        let packet = self.queue.pop_front()?;
        self.queued_bytes -= packet.data.len();
        if let Some(sender) = self.sources.get_mut(&packet.from) {
            sender.queued -= 1;
            sender.queued_bytes -= packet.data.len();
        }
        Some(packet)
    }

    /// Hands to the control plane what it has room for.
    pub(super) fn flush(&mut self, path: &mut Path, now: Instant) {
        while path.is_control_ready() {
            let Some(frame) = self.poll_control(now) else { return };
            path.queue_control(&frame);
        }
    }

    /// The next frame for this server's control plane.
    pub(super) fn poll_control(&mut self, now: Instant) -> Option<ControlFrame> {
        // Answers go first: if too many pile up, the client is taken to be at fault.
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer.into());
        }
        let packet = self.packets.pop_front()?;
        // The time for the raw status counts from when the packet leaves ([P-8.20]).
        let flow = self.targets.get_mut(&packet.to);
        if let Some(waiting) = flow.and_then(|flow| flow.waiting.get_mut(&packet.signed.sequence)) {
            (waiting.is_sent, waiting.due) = (true, now.checked_add(self.answer_timeout));
        }
        Some(packet.into())
    }

    /// When the next raw status is overdue.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.targets.values().filter_map(RawTarget::due).min()
    }

    /// A packet without a raw status for too long may or may not have arrived: this end gives up waiting for it.
    pub(super) fn give_up_overdue(&mut self, cx: &mut Common, now: Instant) {
        while let Some((to, sequence)) = self.poll_overdue(now) {
            let result = Err(TransportCode::UNANSWERED.into());
            cx.emit(SessionEvent::RawStatus { to, sequence, result });
        }
    }

    fn poll_overdue(&mut self, now: Instant) -> Option<(PathId, u64)> {
        let (to, flow) = self.targets.iter_mut().find(|(_, flow)| flow.due().is_some_and(|due| now >= due))?;
        let (sequence, packet) = flow.waiting.pop_first()?;
        flow.waiting_bytes -= packet.len;
        Some((*to, sequence))
    }

    /// A path is over: packets for it that were not sent need not be. Returns their sequence numbers.
    pub(super) fn on_path_lost(&mut self, to: PathId) -> Vec<u64> {
        let Some(flow) = self.targets.get_mut(&to) else { return Vec::new() };
        self.packets.retain(|packet| packet.to != to);
        // What was sent may still be answered; if it is not, its time runs out.
        let unsent: Vec<u64> =
            flow.waiting.iter().filter(|(_, packet)| !packet.is_sent).map(|(sequence, _)| *sequence).collect();
        for sequence in &unsent {
            flow.waiting_bytes -= flow.waiting.remove(sequence).map_or(0, |packet| packet.len);
        }
        unsent
    }

    /// A packet came. `identity_of` names the sender's identity when it is not known yet. The application hears of it
    /// when the queue was empty before.
    pub(super) fn on_forward(
        &mut self,
        cx: &mut Common,
        now: Instant,
        forward: RawForward,
        identity_of: impl FnOnce(&RawForward) -> Option<PublicIdentity>,
    ) -> Result<FrameEffect, Fault> {
        // Before any verification: who reads no answers is not worth one.
        if self.answers.len() >= self.answers_max {
            return Err(Fault::new(TransportCode::CONTROL_FLOOD, "raw packets sent on without reading the answers"));
        }
        let (from, sequence) = (forward.from, forward.signed.sequence);
        let was_empty = self.queue.is_empty();
        let code = match self.take(now, forward, identity_of) {
            Ok(()) => TransportCode::NO_ERROR,
            Err(code) => code,
        };
        self.answers.push_back(RawStatus { from, to: self.own, sequence, code: code.into() });
        if was_empty && !self.queue.is_empty() {
            cx.emit(SessionEvent::RawReadable);
        }
        Ok(FrameEffect::Progress)
    }

    /// The client says what became of a packet, or that its receiver has it.
    pub(super) fn on_status(&mut self, cx: &mut Common, status: &RawStatus) -> FrameEffect {
        let Some(result) = self.settle(status) else { return FrameEffect::NoOp };
        cx.emit(SessionEvent::RawStatus { to: status.to, sequence: status.sequence, result });
        FrameEffect::Progress
    }

    /// Returns `None` if no packet that was sent waits for this raw status.
    fn settle(&mut self, status: &RawStatus) -> Option<Result<(), ErrorCode>> {
        let flow = self.targets.get_mut(&status.to)?;
        // The client cannot know a packet that was not sent yet ([P-7.5]).
        let len = flow.waiting.get(&status.sequence).filter(|packet| packet.is_sent)?.len;
        flow.waiting.remove(&status.sequence);
        flow.waiting_bytes -= len;
        let delivered = status.code == TransportCode::NO_ERROR.into();
        Some(if delivered { Ok(()) } else { Err(status.code) })
    }

    /// Verifies and queues a packet. Packets of a sender with many wrong signatures are not verified for a while: it is
    /// not known whether the sender or the client forged them, and other senders must not suffer.
    fn take(
        &mut self,
        now: Instant,
        forward: RawForward,
        identity_of: impl FnOnce(&RawForward) -> Option<PublicIdentity>,
    ) -> Result<(), TransportCode> {
        let from = forward.from;
        if from == self.own {
            return Err(TransportCode::PATH_UNKNOWN);
        }
        let is_full = self.sources.len() >= limits::RAW_SENDERS_MAX;
        let sender = match self.sources.entry(from) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if is_full => return Err(TransportCode::RAW_LIMIT),
            // Nothing proves whose a forged ticket is, so unknown senders share one allowance.
            Entry::Vacant(_) if !self.forged_tickets.has(now) => return Err(TransportCode::AUTH_FAILED),
            Entry::Vacant(vacant) => {
                let Some(identity) = identity_of(&forward) else {
                    self.forged_tickets.take(now);
                    return Err(TransportCode::AUTH_FAILED);
                };
                let forged = Allowance::new(now, self.forged_max.0, self.forged_max.1);
                vacant.insert(RawSource {
                    identity,
                    window: ReplayWindow::default(),
                    forged,
                    queued: 0,
                    queued_bytes: 0,
                })
            }
        };
        let SignedPayload { sequence, payload, signature } = forward.signed;
        // Without room in the queue there is no reason to verify.
        if payload.len() > limits::RAW_BYTES_MAX
            || sender.queued >= self.packets_max
            || sender.queued_bytes.saturating_add(payload.len()) > self.bytes_max
            || self.queue.len() >= self.packets_max.saturating_mul(self.paths_max)
            || self.queued_bytes.saturating_add(payload.len()) > self.bytes_max.saturating_mul(self.paths_max)
        {
            return Err(TransportCode::RAW_LIMIT);
        }
        if !sender.window.is_new(sequence) || !sender.forged.has(now) {
            return Err(TransportCode::AUTH_FAILED);
        }
        let context = SignatureContext { session: self.session, from, to: self.own, sequence };
        if let Err(error) = auth::verify_raw(&sender.identity, &signature, context, &payload) {
            sender.forged.take(now);
            return Err(error.code());
        }
        sender.window.accept(sequence).map_err(auth::AuthError::code)?;
        sender.queued += 1;
        sender.queued_bytes += payload.len();
        self.queued_bytes += payload.len();
        // A slice of what was received would hold much more than its own bytes, until the application takes it.
        self.queue.push_back(RawPacket { from, data: Bytes::copy_from_slice(&payload) });
        Ok(())
    }
}
