//! The carriers this end opened on a path: how many there are, and what waits to be written on each (PROTOCOL.md §6).

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use quinn_proto::{Connection, Dir, StreamId as QuicStreamId};
use smallvec::SmallVec;

use crate::limits::Limits;
use crate::wire;

/// A local name of a carrier. Never reused on its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct CarrierId(u64);

/// A pool of unidirectional QUIC streams, as large as the load asks for.
#[derive(Debug, Default)]
pub(super) struct CarrierPool {
    next: u64,
    open: BTreeMap<CarrierId, Carrier>,
    by_quic: BTreeMap<QuicStreamId, CarrierId>,
    /// The carrier of grants and raw packets, which must arrive in order.
    relay: Option<CarrierId>,
    /// The peer allowed no stream for it yet; the next one is for it.
    relay_awaited: bool,
    /// From which carrier on those that wait for QUIC are tried next.
    turn: CarrierId,
    /// Bindings over all carriers but the relay's.
    bound: usize,
}

#[derive(Debug)]
struct Carrier {
    quic: QuicStreamId,
    backlog: VecDeque<Bytes>,
    written_bytes: u64,
    bound: usize,
    state: CarrierPhase,
}

/// ```text
///         has its fill, or the load asks for fewer          backlog written
///   Open ─────────────────────────────────────────▶ Retiring ─────────────▶ finished, and gone from the pool
///     │                                                │
///     └────────── the peer stopped the stream ─────────┴──▶ Broken (which ends the path)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CarrierPhase {
    /// Takes packets.
    Open,
    /// Takes nothing new.
    Retiring,
    /// Writes nothing more.
    Broken,
}

impl CarrierPool {
    /// Binds one more stream, to a new carrier if the open ones have their share.
    pub(super) fn bind(&mut self, quic: &mut Connection, limits: &Limits) -> Option<CarrierId> {
        let wanted = (self.bound + 1).div_ceil(limits.streams_per_carrier).min(limits.carriers_max);
        if self.shared().count() < wanted
            // The next stream that QUIC allows is for the relay's carrier.
            && !self.relay_awaited
            && let Some(id) = self.open_carrier(quic)
        {
            self.adopt(id);
            return Some(id);
        }
        let least = self.least_bound()?;
        self.adopt(least);
        Some(least)
    }

    /// Releases one binding; a carrier that the load no longer asks for is finished.
    pub(super) fn unbind(&mut self, quic: &mut Connection, id: CarrierId, limits: &Limits) {
        self.bound = self.bound.saturating_sub(1);
        // The carrier may be finished already; the sum counts its bindings until they are released.
        if let Some(carrier) = self.open.get_mut(&id) {
            carrier.bound = carrier.bound.saturating_sub(1);
        }
        // More may stay than are opened for a load, so that one that comes and goes keeps its carriers.
        let wanted = 2 * self.bound.div_ceil(limits.streams_per_carrier) + 1;
        if self.shared().count() > wanted {
            let idle = self.shared().find(|(_, carrier)| carrier.bound == 0).map(|(id, _)| *id);
            if let Some(idle) = idle {
                self.retire(quic, idle);
            }
        }
    }

    /// The carrier of grants and raw packets. If the peer allows no further stream, another carrier is finished for it.
    pub(super) fn relay(&mut self, quic: &mut Connection) -> Option<CarrierId> {
        if self.relay.is_none() {
            self.relay = self.open_carrier(quic);
            self.relay_awaited = self.relay.is_none();
            // Carriers are finished one after the other, until the peer allows one more stream. A finished one stays in
            // `by_quic` until the peer has acknowledged its end.
            let finishing = self.by_quic.len() > self.open.len()
                || self.open.values().any(|carrier| carrier.state == CarrierPhase::Retiring);
            if self.relay_awaited && !finishing && self.open.len() > 1 {
                self.least_bound().into_iter().for_each(|least| self.retire(quic, least));
            }
            if let Some(carrier) = self.relay.and_then(|id| self.open.get(&id)) {
                // A stream that was opened a moment ago takes a priority.
                let _ = quic.send_stream(carrier.quic).set_priority(1);
            }
        }
        self.relay
    }

    /// Whether a bound stream must be bound anew.
    pub(super) fn is_open(&self, id: CarrierId) -> bool {
        self.open.get(&id).is_some_and(|carrier| carrier.is_open())
    }

    /// Whether a packet may go on this carrier now.
    pub(super) fn is_ready(&self, id: CarrierId) -> bool {
        self.open.get(&id).is_some_and(|carrier| carrier.is_open() && carrier.backlog.is_empty())
    }

    /// Writes what QUIC takes; the rest waits. A carrier that reached its limit of bytes is finished.
    pub(super) fn submit(
        &mut self,
        quic: &mut Connection,
        id: CarrierId,
        chunks: impl IntoIterator<Item = Bytes>,
        limits: &Limits,
    ) {
        let carrier = self.open.get_mut(&id);
        debug_assert!(carrier.is_some(), "a packet for a carrier that is finished");
        let Some(carrier) = carrier else { return };
        carrier.backlog.extend(chunks);
        carrier.flush(quic);
        // The relay's carrier is never replaced: two would not keep the order of its frames ([P-8.9]).
        if carrier.written_bytes >= limits.carrier_bytes_max && self.relay != Some(id) {
            self.retire(quic, id);
        }
    }

    /// Tries every carrier that has something waiting: first that of relayed frames, then the others in turns, since
    /// each may take all the credit there is.
    pub(super) fn flush_all(&mut self, quic: &mut Connection) {
        let waits = |id: &CarrierId| self.open.get(id).is_some_and(|carrier| !carrier.backlog.is_empty());
        let (after, before) = (self.open.range(self.turn..), self.open.range(..self.turn));
        let shared = after.chain(before).map(|(id, _)| *id).filter(|id| self.relay != Some(*id));
        let waiting: SmallVec<[CarrierId; 8]> = self.relay.into_iter().chain(shared).filter(waits).collect();
        for id in waiting {
            self.flush(quic, id);
            let is_done = self.open.get(&id).is_none_or(|carrier| carrier.backlog.is_empty());
            // The next turn begins behind the last carrier that was written to the end.
            if is_done && self.relay != Some(id) {
                self.turn = CarrierId(id.0 + 1);
            }
        }
    }

    pub(super) fn on_finished(&mut self, stream: QuicStreamId) {
        self.by_quic.remove(&stream);
    }

    /// Carriers open for new packets.
    pub(super) fn count(&self) -> usize {
        self.open.values().filter(|carrier| carrier.is_open()).count()
    }

    /// Whether every packet submitted was handed to QUIC.
    pub(super) fn is_flushed(&self) -> bool {
        self.open.values().all(|carrier| carrier.backlog.is_empty())
    }

    /// Whether the peer stopped a carrier, which no KWIK peer does.
    pub(super) fn is_broken(&self) -> bool {
        self.open.values().any(|carrier| carrier.state == CarrierPhase::Broken)
    }

    fn shared(&self) -> impl Iterator<Item = (&CarrierId, &Carrier)> {
        self.open.iter().filter(|(id, carrier)| self.relay != Some(**id) && carrier.is_open())
    }

    fn least_bound(&self) -> Option<CarrierId> {
        self.shared().min_by_key(|(_, carrier)| carrier.bound).map(|(id, _)| *id)
    }

    fn adopt(&mut self, id: CarrierId) {
        self.bound += 1;
        if let Some(carrier) = self.open.get_mut(&id) {
            carrier.bound += 1;
        }
    }

    fn open_carrier(&mut self, quic: &mut Connection) -> Option<CarrierId> {
        let stream = quic.streams().open(Dir::Uni)?;
        let id = CarrierId(self.next);
        self.next += 1;
        let mut header = BytesMut::new();
        wire::encode_carrier_header(&mut header);
        let mut carrier = Carrier {
            quic: stream,
            backlog: VecDeque::from([header.freeze()]),
            written_bytes: 0,
            bound: 0,
            state: CarrierPhase::Open,
        };
        carrier.flush(quic);
        self.open.insert(id, carrier);
        self.by_quic.insert(stream, id);
        Some(id)
    }

    fn flush(&mut self, quic: &mut Connection, id: CarrierId) {
        let Some(carrier) = self.open.get_mut(&id) else { return };
        carrier.flush(quic);
        if carrier.state == CarrierPhase::Retiring && carrier.backlog.is_empty() {
            carrier.finish(quic);
            self.open.remove(&id);
        }
    }

    fn retire(&mut self, quic: &mut Connection, id: CarrierId) {
        if let Some(carrier) = self.open.get_mut(&id) {
            carrier.move_to_retiring();
        }
        self.flush(quic, id);
    }
}

impl Carrier {
    fn is_open(&self) -> bool {
        self.state == CarrierPhase::Open
    }

    /// One that is broken stays so.
    fn move_to_retiring(&mut self) {
        if self.is_open() {
            self.state = CarrierPhase::Retiring;
        }
    }

    fn flush(&mut self, quic: &mut Connection) {
        let mut stream = quic.send_stream(self.quic);
        while !self.backlog.is_empty() {
            match stream.write_chunks(self.backlog.make_contiguous()) {
                Ok(written) => {
                    self.written_bytes += written.bytes as u64;
                    self.backlog.drain(..written.chunks);
                }
                Err(quinn_proto::WriteError::Blocked) => return,
                Err(quinn_proto::WriteError::Stopped(_) | quinn_proto::WriteError::ClosedStream) => {
                    // No more can be written; `Path::read` reports the fault.
                    self.state = CarrierPhase::Broken;
                    self.backlog.clear();
                }
            }
        }
    }

    fn finish(&self, quic: &mut Connection) {
        // The stream may have been stopped by a peer that is closing; there is nothing left to lose on it.
        let _ = quic.send_stream(self.quic).finish();
    }
}
