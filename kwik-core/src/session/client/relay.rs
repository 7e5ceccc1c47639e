//! The client relays grants and raw packets to servers, and raw statuses back (PROTOCOL.md §7). It reads none of them.
//!
//! A raw packet counts against its caps from the moment it comes until its raw status was passed on, so that neither a
//! receiver that takes nothing nor a sender that reads no statuses makes anything pile up.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::error::{Fault, TransportCode};
use crate::id::{GrantId, PathId, StreamId, StreamOffset};
use crate::limits::Limits;
use crate::wire::{GrantOpen, RawForward, RawStatus, SignedPayload};

/// A frame to be relayed to one server, as it goes on the wire. It is encoded when it comes: a slice of the received
/// chunk would hold much more in memory than its own bytes.
#[derive(Debug)]
pub(in crate::session) struct RelayFrame {
    pub(in crate::session) frame: Bytes,
    pub(in crate::session) record: RelayRecord,
}

/// What travels in a packet that is relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) enum RelayRecord {
    Grant { grant: GrantId, stream: StreamId, limit: StreamOffset },
    Raw { from: PathId, sequence: u64, payload_len: usize },
}

/// What waits for each server, and the raw packets of each.
pub(in crate::session) struct Relay {
    caps: RelayCaps,
    /// What waits for a carrier, by receiver.
    routes: BTreeMap<PathId, Route>,
    senders: BTreeMap<PathId, RawSender>,
}

struct RelayCaps {
    flow_packets: usize,
    flow_bytes: usize,
    /// Raw packets of one sender, and to one receiver, whatever became of the paths they were for and came from.
    packets: usize,
    bytes: usize,
    refusals: usize,
}

/// What waits for one receiver, in the order it came.
#[derive(Default)]
struct Route {
    queue: BTreeMap<u64, RelayFrame>,
    next: u64,
    /// The places of grants. Open grants only, which are bounded by the caps on grants.
    grants: BTreeMap<GrantId, u64>,
    raw_packets: usize,
    raw_bytes: usize,
}

/// The raw packets of one server, until their raw status was passed on to it.
#[derive(Default)]
struct RawSender {
    flows: BTreeMap<PathId, RawFlow>,
    /// Packets of all flows.
    packets: usize,
    answers: VecDeque<Answer>,
    /// Answers about packets that were never in a flow.
    refusals: usize,
}

/// Those for one receiver.
#[derive(Default)]
struct RawFlow {
    packets: BTreeMap<u64, RawProgress>,
    /// Bytes of the packets that have no raw status.
    bytes: usize,
}

#[derive(Clone, Copy)]
enum RawProgress {
    Waiting(usize),
    /// On its way to the receiver, or there.
    Carried(usize),
    /// What became of it is known, and not yet passed on.
    Answered,
}

struct Answer {
    status: RawStatus,
    is_refusal: bool,
}

impl Relay {
    pub(in crate::session) fn new(limits: &Limits) -> Self {
        let caps = RelayCaps {
            flow_packets: limits.raw_packets_max,
            flow_bytes: limits.raw_queue_bytes_max,
            packets: limits.raw_packets_max.saturating_mul(limits.paths_max),
            bytes: limits.raw_queue_bytes_max.saturating_mul(limits.paths_max),
            refusals: limits.control_queue_frames_max,
        };
        Self { caps, routes: BTreeMap::new(), senders: BTreeMap::new() }
    }

    /// Takes an open grant for `to`.
    pub(in crate::session) fn push_grant(&mut self, to: PathId, grant: &GrantOpen) {
        let record = RelayRecord::Grant { grant: grant.grant, stream: grant.stream, limit: grant.limit };
        let route = self.routes.entry(to).or_default();
        route.grants.insert(grant.grant, route.next);
        route.push(record, |out| grant.encode(out));
    }

    /// A grant is over: it is not relayed any more. Returns whether it still waited.
    pub(in crate::session) fn drop_grant(&mut self, to: PathId, grant: GrantId) -> bool {
        let Some(route) = self.routes.get_mut(&to) else { return false };
        route.grants.remove(&grant).is_some_and(|place| route.queue.remove(&place).is_some())
    }

    /// Takes a raw packet for `to`, or answers its sender with the code.
    pub(in crate::session) fn push_raw(
        &mut self,
        from: PathId,
        to: PathId,
        forwarded_ticket: Bytes,
        signed: SignedPayload,
    ) -> Result<(), Fault> {
        let (sequence, len) = (signed.sequence, signed.payload.len());
        let (caps, route) = (&self.caps, self.routes.entry(to).or_default());
        let sender = self.senders.entry(from).or_default();
        let flow = sender.flows.entry(to).or_default();
        // The first two bounds are those of a flow; the others keep paths that come and go from gaining anything
        // ([P-7.2]).
        let fits = flow.packets.len() < caps.flow_packets
            && flow.bytes.saturating_add(len) <= caps.flow_bytes
            && sender.packets < caps.packets
            && route.raw_packets < caps.packets
            && route.raw_bytes.saturating_add(len) <= caps.bytes;
        // A second packet with the same number could not be told from the first in a raw status.
        if !fits || flow.packets.contains_key(&sequence) {
            return self.refuse_raw(from, to, sequence, TransportCode::RAW_LIMIT);
        }
        flow.packets.insert(sequence, RawProgress::Waiting(len));
        flow.bytes += len;
        sender.packets += 1;
        route.raw_packets += 1;
        route.raw_bytes += len;
        let record = RelayRecord::Raw { from, sequence, payload_len: len };
        route.push(record, |out| RawForward { from, forwarded_ticket, signed }.encode(out));
        Ok(())
    }

    /// Answers a sender. One that sends on without reading its answers commits a fault.
    pub(in crate::session) fn refuse_raw(
        &mut self,
        from: PathId,
        to: PathId,
        sequence: u64,
        code: TransportCode,
    ) -> Result<(), Fault> {
        let sender = self.senders.entry(from).or_default();
        if sender.refusals >= self.caps.refusals {
            return Err(Fault::new(TransportCode::CONTROL_FLOOD, "raw packets sent on without reading the answers"));
        }
        sender.refusals += 1;
        let status = RawStatus { from, to, sequence, code: code.into() };
        sender.answers.push_back(Answer { status, is_refusal: true });
        Ok(())
    }

    /// A raw status came from the receiver. Returns whether a packet that was relayed to it waits for one.
    pub(in crate::session) fn on_status(&mut self, status: RawStatus) -> bool {
        let Some(sender) = self.senders.get_mut(&status.from) else { return false };
        let Some(flow) = sender.flows.get_mut(&status.to) else { return false };
        // The receiver cannot know a packet that still waits here ([P-7.5]).
        let Some(progress @ RawProgress::Carried(_)) = flow.packets.get_mut(&status.sequence) else { return false };
        flow.bytes -= progress.settle();
        sender.answers.push_back(Answer { status, is_refusal: false });
        true
    }

    /// The server at `path` is gone: nothing more is relayed to it, and it needs no raw status. What it sent is still
    /// relayed.
    pub(in crate::session) fn on_path_lost(&mut self, path: PathId) {
        self.routes.remove(&path);
        self.senders.remove(&path);
        for (&from, sender) in &mut self.senders {
            let Some(flow) = sender.flows.get_mut(&path) else { continue };
            if flow.packets.is_empty() {
                sender.flows.remove(&path);
                continue;
            }
            for (&sequence, progress) in
                flow.packets.iter_mut().filter(|(_, progress)| !matches!(progress, RawProgress::Answered))
            {
                flow.bytes -= progress.settle();
                let status = RawStatus { from, to: path, sequence, code: TransportCode::SOURCE_LOST.into() };
                sender.answers.push_back(Answer { status, is_refusal: false });
            }
        }
    }

    pub(in crate::session) fn pop_frame(&mut self, to: PathId) -> Option<RelayFrame> {
        let route = self.routes.get_mut(&to)?;
        let (_, frame) = route.queue.pop_first()?;
        match frame.record {
            RelayRecord::Grant { grant, .. } => {
                route.grants.remove(&grant);
            }
            RelayRecord::Raw { from, sequence, payload_len } => {
                route.raw_packets -= 1;
                route.raw_bytes -= payload_len;
                // The sender may be gone: its packets are still relayed, but nobody waits for their status.
                let flow = self.senders.get_mut(&from).and_then(|sender| sender.flows.get_mut(&to));
                if let Some(progress) = flow.and_then(|flow| flow.packets.get_mut(&sequence)) {
                    *progress = RawProgress::Carried(payload_len);
                }
            }
        }
        Some(frame)
    }

    pub(in crate::session) fn has_frames(&self, to: PathId) -> bool {
        self.routes.get(&to).is_some_and(|route| !route.queue.is_empty())
    }

    /// The next answer for a sender.
    pub(in crate::session) fn pop_status(&mut self, for_path: PathId) -> Option<RawStatus> {
        let sender = self.senders.get_mut(&for_path)?;
        let Answer { status, is_refusal } = sender.answers.pop_front()?;
        if is_refusal {
            sender.refusals -= 1;
        } else if let Some(flow) = sender.flows.get_mut(&status.to) {
            // Only now is its place free: a packet counts until its raw status was passed on ([P-7.2]).
            flow.packets.remove(&status.sequence);
            sender.packets -= 1;
            if flow.packets.is_empty() {
                sender.flows.remove(&status.to);
            }
        }
        Some(status)
    }
}

impl Route {
    fn push(&mut self, record: RelayRecord, encode: impl FnOnce(&mut BytesMut)) {
        let mut frame = BytesMut::new();
        encode(&mut frame);
        self.queue.insert(self.next, RelayFrame { frame: frame.freeze(), record });
        self.next += 1;
    }
}

impl RawProgress {
    /// What becomes of the packet is known. Returns the bytes that waited for that.
    fn settle(&mut self) -> usize {
        match std::mem::replace(self, Self::Answered) {
            Self::Waiting(len) | Self::Carried(len) => len,
            Self::Answered => 0,
        }
    }
}

/// What a relay holds.
#[cfg(test)]
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::session) struct Held {
    /// What waits for a carrier, and its bytes.
    pub(in crate::session) waiting: usize,
    pub(in crate::session) bytes: usize,
    /// Raw packets whose raw status was not passed on to the sender yet.
    pub(in crate::session) packets: usize,
    pub(in crate::session) answers: usize,
}

#[cfg(test)]
impl Relay {
    pub(in crate::session) fn held(&self) -> Held {
        let queues = || self.routes.values().map(|route| &route.queue);
        let (flows, senders) =
            (|| self.senders.values().flat_map(|sender| sender.flows.values()), || self.senders.values());
        for route in self.routes.values() {
            let raws = route.queue.values().filter(|frame| matches!(frame.record, RelayRecord::Raw { .. })).count();
            assert_eq!((raws, route.queue.len() - raws), (route.raw_packets, route.grants.len()));
        }
        let packets = flows().map(|flow| flow.packets.len()).sum();
        assert_eq!(packets, senders().map(|sender| sender.packets).sum::<usize>());
        Held {
            waiting: queues().map(BTreeMap::len).sum(),
            bytes: queues().flat_map(BTreeMap::values).map(|frame| frame.frame.len()).sum(),
            packets,
            answers: senders().map(|sender| sender.answers.len()).sum(),
        }
    }
}
