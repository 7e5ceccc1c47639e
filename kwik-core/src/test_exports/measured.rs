//! Inner parts under work that is always the same. For benchmarks.

use bytes::{Bytes, BytesMut};
use smallvec::smallvec;

use crate::id::{Dir, PacketNumber, PathId, Side, StreamHandle, StreamId, StreamOffset};
use crate::limits::Limits;
use crate::stream::{ReadError, Reassembly, StreamControl, StreamEvent, StreamTable, TableRole};
use crate::wire::{
    CarrierItem, CarrierReader, ControlFrame, ControlReader, MaxStreamData, OpenStream, PacketAck,
    encode_carrier_header, encode_packet_header, encode_stream_header,
};

/// A control plane on which `count` streams are opened and get credit, and packets are acknowledged.
#[must_use]
pub fn encode_control(count: u64) -> Bytes {
    let mut out = BytesMut::new();
    for index in 0..count {
        let (stream, limit) = (StreamId::new(Side::Client, Dir::Bi, index), StreamOffset(1 << 20));
        let frames = [
            ControlFrame::OpenStream(OpenStream { stream, priority: 0, limit }),
            ControlFrame::MaxStreamData(MaxStreamData { stream, limit }),
            ControlFrame::PacketAck(PacketAck { ranges: smallvec![0..index + 1] }),
        ];
        frames.iter().for_each(|frame| frame.encode(&mut out));
    }
    out.freeze()
}

/// Reads a control plane and returns how many frames it had.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn decode_control(encoded: Bytes) -> usize {
    let mut reader = ControlReader::default();
    reader.push(encoded);
    let mut frames = 0;
    while reader.next().expect("frames that were encoded").is_some() {
        frames += 1;
    }
    frames
}

/// A carrier of `count` packets, each with one STREAM frame.
#[must_use]
pub fn encode_carrier(count: u64, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    encode_carrier_header(&mut out);
    let (stream, mut header) = (StreamId::new(Side::Server, Dir::Uni, 0), BytesMut::new());
    for number in 0..count {
        header.clear();
        let offset = StreamOffset(number * payload.len() as u64);
        encode_stream_header(stream, offset, payload.len(), false, &mut header);
        encode_packet_header(PacketNumber(number), header.len() + payload.len(), &mut out);
        out.extend_from_slice(&header);
        out.extend_from_slice(payload);
    }
    out.freeze()
}

/// Reads a carrier that comes in chunks of `chunk_bytes`, and returns how many bytes of streams it had.
///
/// # Panics
/// If it cannot be read, or `chunk_bytes` is 0.
#[must_use]
pub fn decode_carrier(mut encoded: Bytes, chunk_bytes: usize) -> usize {
    let (mut reader, mut payload) = (CarrierReader::default(), 0);
    while !encoded.is_empty() {
        reader.push(encoded.split_to(chunk_bytes.min(encoded.len())));
        while let Some(item) = reader.next().expect("packets that were encoded") {
            if let CarrierItem::Stream { data, .. } = item {
                payload += data.len();
            }
        }
    }
    payload
}

/// Brings `data` in pieces of `piece_bytes` from so many writers, each with a share of its own and all in turn, and reads
/// what can be read. Returns how many bytes were.
///
/// # Panics
/// If two writers disagree, which they do not.
#[must_use]
pub fn reassemble(data: &Bytes, writers: usize, piece_bytes: usize) -> usize {
    let (mut assembly, mut read) = (Reassembly::default(), 0);
    let share = data.len().div_ceil(writers);
    for within in (0..share).step_by(piece_bytes) {
        for writer in 0..writers {
            let start = writer * share + within;
            let end = (start + piece_bytes).min((writer + 1) * share).min(data.len());
            if start < end {
                let from = PathId(u32::try_from(writer).unwrap_or(u32::MAX));
                assembly.insert(from, start as u64, data.slice(start..end)).expect("the same bytes everywhere");
            }
        }
        while let Ok(Some(chunk)) = assembly.read(usize::MAX) {
            read += chunk.data.len();
        }
    }
    read
}

/// The tables of a client and a server that exchange requests and replies, without the packets between them.
#[derive(Debug)]
pub struct Exchange {
    client: StreamTable,
    server: StreamTable,
}

impl Default for Exchange {
    fn default() -> Self {
        let limits = Limits::default();
        let mut client = StreamTable::new(Side::Client, TableRole::Client, &limits);
        let mut server = StreamTable::new(Side::Server, TableRole::Primary, &limits);
        for table in [&mut client, &mut server] {
            table
                .on_peer_params(limits.streams_bidi_max, limits.streams_uni_max, limits.stream_window_initial_bytes)
                .expect("the parameters of an honest peer");
        }
        Self { client, server }
    }
}

impl Exchange {
    /// Opens `count` streams at once, sends a request on each and reads the reply to its end. Returns how many replies
    /// were whole. At most as many may be opened at once as the default limits allow.
    ///
    /// # Panics
    /// If a table refuses what is allowed.
    pub fn run(&mut self, count: usize, message: &[u8]) -> usize {
        for _ in 0..count {
            let handle = self.client.open(Dir::Bi, 0).expect("within the limit");
            send(&mut self.client, handle, message);
        }
        deliver(&mut self.client, &mut self.server);
        while let Some(handle) = self.server.accept(Dir::Bi) {
            assert!(is_read(&mut self.server, handle), "a request came whole");
            send(&mut self.server, handle, message);
        }
        deliver(&mut self.server, &mut self.client);
        let mut replies = 0;
        while let Some(event) = self.client.poll_event() {
            if let StreamEvent::Readable(handle) = event {
                replies += usize::from(is_read(&mut self.client, handle));
            }
        }
        while self.server.poll_event().is_some() {}
        deliver(&mut self.client, &mut self.server);
        deliver(&mut self.server, &mut self.client);
        replies
    }
}

fn send(table: &mut StreamTable, handle: StreamHandle, message: &[u8]) {
    table.write(handle, message).expect("a new stream has room");
    table.finish(handle).expect("it is open");
    table.release_send(handle);
}

fn is_read(table: &mut StreamTable, handle: StreamHandle) -> bool {
    loop {
        match table.read(handle, usize::MAX, true) {
            Ok(_) => {}
            Err(error) => {
                table.release_recv(handle);
                return error == ReadError::Finished;
            }
        }
    }
}

/// Brings what one end has to say to the other, and acknowledges it.
fn deliver(from: &mut StreamTable, to: &mut StreamTable) {
    while let Some(control) = from.poll_control() {
        let heard = match control {
            StreamControl::Open { id, priority, limit } => to.on_open(id, priority, limit),
            StreamControl::Reset { id, code, final_size } => to.on_reset(id, code, final_size),
            StreamControl::Stop { id, code, .. } => to.on_stop(id, code),
            StreamControl::MaxStreamData { id, limit } => to.on_max_stream_data(id, limit),
            StreamControl::MaxStreams { dir, max } => to.on_max_streams(dir, max),
            StreamControl::PartEnd { .. } => continue,
        };
        heard.expect("an honest peer");
    }
    while let Some(handle) = from.pop_sendable() {
        let (Some(id), Some(segment)) = (from.stream_id(handle), from.segment(handle, 1 << 14)) else { continue };
        from.on_segment_packed(handle);
        let end = segment.offset + segment.data.len() as u64;
        to.on_data(PathId::PRIMARY, id, segment.offset, segment.data, end, segment.fin).expect("an honest peer");
        from.push_sendable(handle);
        from.on_packet_acked(handle);
    }
    to.own_old_slices();
}
