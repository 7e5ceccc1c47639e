//! Turns the segments of streams into packets on carriers, and acknowledged packets back into streams.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use smallvec::{SmallVec, smallvec};

use super::client::{Relay, RelayRecord};
use crate::id::{PacketNumber, PathId, StreamHandle, StreamId, StreamOffset};
use crate::limits::PACKET_BYTES_MAX;
use crate::path::{CarrierId, Path};
use crate::protocol_event::{BlockedBy, EventDetail, ProtocolEventKind};
use crate::stream::{Segment, StreamTable};
use crate::wire;

/// The sending side of a session's data plane.
#[derive(Default)]
pub(super) struct Transmit {
    /// The carrier of each stream that has data to send.
    bindings: BTreeMap<StreamHandle, CarrierId>,
    /// Streams whose carrier has no room now.
    parked: BTreeMap<CarrierId, SmallVec<[StreamHandle; 4]>>,
    packets: SentStreams,
    /// The relayed frame in each packet that is not acknowledged.
    relayed: BTreeMap<(PathId, PacketNumber), RelayRecord>,
}

impl Transmit {
    /// Payloads from this size on go to QUIC as they are; smaller ones are gathered.
    const GATHER_BELOW: usize = 4 * 1024;
    /// Packets made in one go before other work gets its turn.
    const PACKETS_PER_TURN: usize = 64;
    /// Streams in one packet. About four streams share a carrier, and a lost packet holds up no more than these.
    const STREAMS_PER_PACKET: usize = 4;

    /// Fills the carriers of `path` with what streams have to send. Returns whether streams have more that could be
    /// sent now.
    pub(super) fn flush_streams(&mut self, streams: &mut StreamTable, path: &mut Path) -> bool {
        while let Some(stream) = streams.poll_cut_short() {
            // A half that ended early leaves the queue of sendable streams, so nothing below would unbind it.
            self.unbind(stream, path);
        }
        self.unpark(streams, path);
        for _ in 0..Self::PACKETS_PER_TURN {
            // Room comes with an acknowledgement, and that brings the next turn.
            if !path.has_packet_room() {
                return false;
            }
            let Some(stream) = streams.pop_sendable() else { return false };
            let Some(carrier) = self.bind(stream, path) else {
                // No carrier is open, and QUIC opens none until the peer allows one, which brings a turn as well.
                streams.push_sendable(stream);
                return false;
            };
            if !path.is_carrier_ready(carrier) {
                let parked = self.parked.entry(carrier).or_default();
                // Whoever writes to a parked stream puts it into the queue again, so it may come here twice.
                if !parked.contains(&stream) {
                    parked.push(stream);
                    note_blocked(path, streams, stream, |_| Some(BlockedBy::Window));
                }
                continue;
            }
            let (max, mut packet) = (path.packet_bytes(), PacketBuilder::default());
            let mut turn = PacketStreams::new();
            turn.push(stream);
            packet.fill(streams, stream, max);
            // What is short goes along, so that many short streams need few packets.
            while turn.len() < Self::STREAMS_PER_PACKET
                && let Some(space) = packet.space(max)
                && let Some(short) = streams.pop_short(space)
            {
                turn.push(short);
                packet.fill(streams, short, max);
            }
            if packet.len > 0 {
                let packed = packet.streams.clone();
                packed.iter().for_each(|stream| streams.on_segment_packed(*stream));
                // No other packet is submitted in between, so the header names the number that this one gets.
                let number = path.submit_packet(carrier, packet.into_chunks(path.next_packet()));
                self.packets.insert(number, packed);
            }
            // Only now, since a carrier that nobody is bound to any more may be finished.
            for stream in turn {
                self.requeue(streams, stream, path);
            }
        }
        true
    }

    /// A stream had its turn: it waits for the next one, or holds no binding, so that the number of carriers follows the
    /// load.
    fn requeue(&mut self, streams: &mut StreamTable, stream: StreamHandle, path: &mut Path) {
        if streams.is_sendable(stream) {
            streams.push_sendable(stream);
        } else {
            note_blocked(path, streams, stream, |streams| streams.blocked_by(stream));
            self.unbind(stream, path);
        }
    }

    /// Relays the frames that wait for the server of `path`.
    pub(super) fn flush_relay(&mut self, relay: &mut Relay, id: PathId, path: &mut Path) {
        while relay.has_frames(id) && path.has_packet_room() {
            let Some(carrier) = path.relay_carrier() else { return };
            if !path.is_carrier_ready(carrier) {
                return;
            }
            // Taken only now: as long as a grant waits in its route, it can still be dropped ([P-8.9]).
            let Some(relayed) = relay.pop_frame(id) else { return };
            let mut header = BytesMut::new();
            wire::encode_packet_header(path.next_packet(), relayed.frame.len(), &mut header);
            let number = path.submit_packet(carrier, smallvec![header.freeze(), relayed.frame]);
            self.relayed.insert((id, number), relayed.record);
        }
    }

    /// A packet on `path` was acknowledged. Returns the record of the frame that the packet relayed, if it relayed one.
    pub(super) fn on_acknowledged(
        &mut self,
        streams: &mut StreamTable,
        path: PathId,
        number: PacketNumber,
    ) -> Option<RelayRecord> {
        if let Some(record) = self.relayed.remove(&(path, number)) {
            return Some(record);
        }
        // Streams go on the main path alone. There a packet that relayed something is not among theirs.
        for stream in self.packets.remove(number) {
            streams.on_packet_acked(stream);
        }
        None
    }

    /// A path is gone: the packets that were on the way to its server are not acknowledged any more.
    pub(super) fn on_path_lost(&mut self, path: PathId) {
        self.relayed.retain(|(on, _), _| *on != path);
    }

    fn bind(&mut self, stream: StreamHandle, path: &mut Path) -> Option<CarrierId> {
        if let Some(carrier) = self.bindings.get(&stream).copied() {
            if path.is_carrier_open(carrier) {
                return Some(carrier);
            }
            self.unbind(stream, path);
        }
        let carrier = path.bind_carrier()?;
        self.bindings.insert(stream, carrier);
        Some(carrier)
    }

    fn unbind(&mut self, stream: StreamHandle, path: &mut Path) {
        if let Some(carrier) = self.bindings.remove(&stream) {
            path.unbind_carrier(carrier);
        }
    }

    fn unpark(&mut self, streams: &mut StreamTable, path: &Path) {
        if self.parked.is_empty() {
            return;
        }
        // A carrier that was finished meanwhile never becomes ready: its streams are bound anew.
        let ready: SmallVec<[CarrierId; 8]> = self
            .parked
            .keys()
            .copied()
            .filter(|carrier| path.is_carrier_ready(*carrier) || !path.is_carrier_open(*carrier))
            .collect();
        for carrier in ready {
            for stream in self.parked.remove(&carrier).unwrap_or_default() {
                streams.push_sendable(stream);
            }
        }
    }
}

/// Notes why no more of a stream is sent, for whoever wants to know.
fn note_blocked(
    path: &mut Path,
    streams: &StreamTable,
    stream: StreamHandle,
    by: impl FnOnce(&StreamTable) -> Option<BlockedBy>,
) {
    if path.log_mut().detail() >= EventDetail::Frames
        && let (Some(by), Some(stream)) = (by(streams), streams.stream_id(stream))
    {
        path.log_mut().frame(None, || ProtocolEventKind::StreamBlocked { stream, by });
    }
}

/// The streams with segments in each packet that is not acknowledged. Other packets have none.
#[derive(Default)]
struct SentStreams {
    /// The number of the first.
    first: u64,
    packets: VecDeque<PacketStreams>,
}

type PacketStreams = SmallVec<[StreamHandle; Transmit::STREAMS_PER_PACKET]>;

impl SentStreams {
    /// Notes the streams in a packet, whose number is larger than all before.
    fn insert(&mut self, number: PacketNumber, streams: PacketStreams) {
        if self.packets.is_empty() {
            self.first = number.0;
        }
        // Between them are packets that relay.
        while self.first + (self.packets.len() as u64) < number.0 {
            self.packets.push_back(PacketStreams::new());
        }
        self.packets.push_back(streams);
    }

    fn remove(&mut self, number: PacketNumber) -> PacketStreams {
        let place = number.0.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let streams = place.and_then(|place| self.packets.get_mut(place)).map(std::mem::take).unwrap_or_default();
        while self.packets.front().is_some_and(|streams| streams.is_empty()) {
            self.packets.pop_front();
            self.first += 1;
        }
        if self.packets.capacity() > 64 + 4 * self.packets.len() {
            self.packets.shrink_to(2 * self.packets.len());
        }
        streams
    }
}

/// The frames of one packet.
#[derive(Default)]
struct PacketBuilder {
    /// Whose frames they are.
    streams: PacketStreams,
    /// What goes before the first large payload, behind room for the packet's header; empty as long as none was added.
    head: BytesMut,
    /// What follows it.
    chunks: SmallVec<[Bytes; 4]>,
    /// Frame headers and small payloads since the last large one.
    gathered: BytesMut,
    len: usize,
}

impl PacketBuilder {
    /// Space in a packet below which no further frame is begun.
    const SPACE_MIN: usize = 512;
    /// Room for a packet's header, which is written last, since it says how long the frames are.
    const HEADER_ROOM: usize = 16;
    /// Room for the header of a frame.
    const FRAME_HEADER_ROOM: usize = 24;

    /// Adds what a stream has to send, as long as there is space.
    fn fill(&mut self, streams: &mut StreamTable, stream: StreamHandle, max: usize) {
        let (before, Some(id)) = (self.len, streams.stream_id(stream)) else { return };
        while let Some(space) = self.space(max)
            && let Some(segment) = streams.segment(stream, space)
        {
            let fin = segment.fin;
            self.push(id, segment);
            if fin {
                break;
            }
        }
        if self.len > before {
            self.streams.push(stream);
        }
    }

    /// What fits into the packet, if that is worth another frame.
    fn space(&self, max: usize) -> Option<usize> {
        max.checked_sub(self.len).filter(|space| *space >= Self::SPACE_MIN)
    }

    fn push(&mut self, stream: StreamId, segment: Segment) {
        let Segment { offset, data, fin } = segment;
        let is_small = data.len() < Transmit::GATHER_BELOW;
        if self.len == 0 {
            let payload = if is_small { data.len() } else { 0 };
            self.gathered = BytesMut::with_capacity(Self::HEADER_ROOM + Self::FRAME_HEADER_ROOM + payload);
            self.gathered.put_bytes(0, Self::HEADER_ROOM);
        }
        let before = self.gathered.len();
        wire::encode_stream_header(stream, StreamOffset(offset), data.len(), fin, &mut self.gathered);
        self.len += self.gathered.len() - before + data.len();
        if is_small {
            self.gathered.extend_from_slice(&data);
            return;
        }
        let gathered = self.gathered.split();
        if self.head.is_empty() {
            self.head = gathered;
        } else {
            self.chunks.push(gathered.freeze());
        }
        self.chunks.push(data);
    }

    /// Writes the packet's header into the room before the first frame.
    fn into_chunks(self, number: PacketNumber) -> SmallVec<[Bytes; 4]> {
        let Self { mut head, mut chunks, gathered, len, .. } = self;
        debug_assert!(len <= PACKET_BYTES_MAX, "{len} bytes");
        if head.is_empty() {
            head = gathered;
        } else if !gathered.is_empty() {
            chunks.push(gathered.freeze());
        }
        // Packets without a frame are not made, so the room for the header is there.
        let start = Self::HEADER_ROOM - wire::packet_header_len(number, len);
        wire::encode_packet_header(number, len, &mut &mut head[start..Self::HEADER_ROOM]);
        head.advance(start);
        chunks.insert(0, head.freeze());
        chunks
    }
}
