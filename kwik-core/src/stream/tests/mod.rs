//! Tests of the streams of a session. Bytes are derived from their position, so that a misplaced one names its place.

mod ends;
mod model;
mod parts;
mod peer;
mod reassembly;
mod send;
mod table;
mod writers;

use super::{ReadError, StreamControl, StreamEvent, StreamTable, TableRole};
use crate::error::ErrorCode;
use crate::id::{Dir, PathId, Side, StreamHandle, StreamId};
use crate::limits::Limits;
use bytes::Bytes;
use std::ops::Range;

const KIB: u64 = 1024;
const CODE: ErrorCode = ErrorCode::Application(9);

/// The byte of stream `seed` at `offset`.
fn byte(seed: u64, offset: u64) -> u8 {
    let mixed = (offset ^ (seed << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 56) as u8
}

fn bytes(seed: u64, range: Range<u64>) -> Bytes {
    range.map(|offset| byte(seed, offset)).collect::<Vec<_>>().into()
}

/// A position as an index.
fn index(position: u64) -> usize {
    usize::try_from(position).unwrap()
}

/// Limits small enough that a test reaches them.
fn small_limits() -> Limits {
    Limits {
        streams_bidi_max: 16,
        streams_uni_max: 16,
        stream_window_initial_bytes: 16 * KIB,
        stream_window_bytes: 24 * KIB,
        bandwidth_delay_bytes_max: 16 * KIB,
        reassembly_budget_bytes: 1100 * KIB,
        reassembly_spans_stream: 200,
        reassembly_spans_session: 400,
        send_buffer_stream_bytes: 32 * 1024,
        send_buffer_session_bytes: 128 * 1024,
        ..Limits::default()
    }
}

fn client() -> StreamTable {
    StreamTable::new(Side::Client, TableRole::Client, &small_limits())
}

fn primary() -> StreamTable {
    StreamTable::new(Side::Server, TableRole::Primary, &small_limits())
}

fn secondary() -> StreamTable {
    StreamTable::new(Side::Server, TableRole::Secondary, &small_limits())
}

fn client_bidi(index: u64) -> StreamId {
    StreamId::new(Side::Client, Dir::Bi, index)
}

fn server_uni(index: u64) -> StreamId {
    StreamId::new(Side::Server, Dir::Uni, index)
}

fn controls(table: &mut StreamTable) -> Vec<StreamControl> {
    std::iter::from_fn(|| table.poll_control()).collect()
}

/// Brings position-derived bytes of a stream.
fn bring(table: &mut StreamTable, from: u32, id: StreamId, range: Range<u64>, fin: bool) -> super::DataOutcome {
    let data = bytes(id.0, range.clone());
    let outcome = table.on_data(PathId(from), id, range.start, data, range.end, fin).unwrap();
    table.assert_ledger();
    outcome
}

/// Reads in order until there is nothing more, checks every byte, and returns how many there were.
fn read_all(table: &mut StreamTable, handle: StreamHandle, seed: u64) -> (u64, ReadError) {
    let mut count = 0;
    loop {
        match table.read(handle, 10_000, true) {
            Ok(chunk) => {
                let end = chunk.offset.0 + chunk.data.len() as u64;
                assert_eq!(chunk.data, bytes(seed, chunk.offset.0..end));
                count += chunk.data.len() as u64;
            }
            Err(error) => return (count, error),
        }
    }
}

fn events(table: &mut StreamTable) -> Vec<StreamEvent> {
    std::iter::from_fn(|| table.poll_event()).collect()
}

/// Hands out and acknowledges everything that can be sent, and returns how many bytes that was.
fn send_all(table: &mut StreamTable) -> u64 {
    let mut sent = 0;
    while let Some(handle) = table.pop_sendable() {
        let segment = table.segment(handle, 1000).unwrap();
        table.on_segment_packed(handle);
        sent += segment.data.len() as u64;
        table.push_sendable(handle);
        table.on_packet_acked(handle);
        table.assert_ledger();
    }
    sent
}
