//! What a peer may say, and what it may not.

use super::*;
use crate::error::{ErrorCode, Fault, TransportCode};
use crate::id::{RangeConflict, StreamOffset};
use crate::limits::VARINT_MAX;
use crate::stream::recv::Overflow;

const CODE: ErrorCode = ErrorCode::Application(9);

/// Every input of the peer that names a stream.
#[derive(Debug, Clone, Copy)]
enum Input {
    Open,
    Data,
    Reset,
    Stop,
    Credit,
    Limit,
}

fn give(table: &mut StreamTable, input: Input, id: StreamId) -> Result<(), Fault> {
    match input {
        Input::Open => table.on_open(id, 0, 1).map(drop),
        Input::Data => table.on_data(PathId::PRIMARY, id, 0, Bytes::new(), 0, false).map(|_| ()),
        Input::Reset => table.on_reset(id, CODE, 0).map(drop),
        Input::Stop => table.on_stop(id, CODE).map(drop),
        Input::Credit => table.on_max_stream_data(id, 1).map(drop),
        Input::Limit => table.receive_limit(id).map(|_| ()),
    }
}

// [P-5.8]
#[test]
fn every_input_is_checked_against_every_kind_of_stream() {
    use Input::{Credit, Data, Limit, Open, Reset, Stop};
    let (violation, limit) = (Some(TransportCode::PROTOCOL_VIOLATION), Some(TransportCode::STREAM_LIMIT));
    let receives = |id, fault: [Option<TransportCode>; 3]| {
        [(Open, fault[0]), (Data, fault[1]), (Reset, fault[1]), (Limit, fault[1]), (Stop, fault[2]), (Credit, fault[2])]
            .map(|(input, fault)| (input, id, fault))
    };
    let id = |side, dir, index| StreamId::new(side, dir, index);
    let cases = [
        receives(id(Side::Server, Dir::Bi, 0), [None, None, None]),
        receives(id(Side::Server, Dir::Uni, 15), [None, None, violation]),
        receives(id(Side::Server, Dir::Bi, 16), [limit, limit, limit]),
        receives(id(Side::Server, Dir::Uni, 1 << 40), [limit, limit, violation]),
        receives(id(Side::Client, Dir::Bi, 0), [violation, None, None]),
        receives(id(Side::Client, Dir::Uni, 0), [violation, violation, None]),
        receives(id(Side::Client, Dir::Bi, 1), [violation, violation, violation]),
        receives(id(Side::Client, Dir::Uni, 1 << 40), [violation, violation, violation]),
    ];
    for (input, id, expected) in cases.into_iter().flatten() {
        let mut table = client();
        table.open(Dir::Bi, 0).unwrap();
        table.open(Dir::Uni, 0).unwrap();
        let before = table.open_streams();
        let result = give(&mut table, input, id);
        assert_eq!(result.err().map(|fault| fault.code), expected, "{input:?} for {id}");
        assert!(expected.is_none() || table.open_streams() == before, "a fault changes nothing");
        table.assert_ledger();
    }
}

// [P-5.5] [P-5.8]
#[test]
fn a_secondary_hears_only_of_what_it_writes() {
    let mut table = secondary();
    for id in [client_bidi(0), server_uni(3)] {
        for input in [Input::Open, Input::Data, Input::Reset, Input::Limit] {
            let fault = give(&mut table, input, id).unwrap_err();
            assert_eq!(fault.code, TransportCode::PROTOCOL_VIOLATION, "{input:?}");
        }
        give(&mut table, Input::Stop, id).unwrap();
        give(&mut table, Input::Credit, id).unwrap();
    }
    assert!(table.on_max_streams(Dir::Bi, 100).is_err());
    assert_eq!(table.open(Dir::Bi, 0), Err(super::super::OpenError::NotAllowed));
    assert_eq!(table.open_streams(), 0);
}

// [P-6.13]
#[test]
fn frames_for_a_stream_that_is_gone_are_ignored() {
    let mut table = primary();
    bring(&mut table, 0, client_bidi(0), 0..10, true);
    let handle = table.accept(Dir::Bi).unwrap();
    table.reset(handle, CODE).unwrap();
    table.release_send(handle);
    table.release_recv(handle);
    controls(&mut table);
    assert_eq!(table.open_streams(), 0);
    for input in [Input::Open, Input::Data, Input::Reset, Input::Stop, Input::Credit, Input::Limit] {
        give(&mut table, input, client_bidi(0)).unwrap();
    }
    assert_eq!(table.open_streams(), 0);
    assert_eq!(controls(&mut table), []);
}

// [P-5.7]
#[test]
fn naming_a_stream_opens_all_lower_ones_of_its_kind() {
    let mut table = client();
    bring(&mut table, 0, server_uni(2), 0..1, false);
    let handles: Vec<_> = std::iter::from_fn(|| table.accept(Dir::Uni)).collect();
    let ids: Vec<_> = handles.into_iter().map(|handle| table.stream_id(handle).unwrap()).collect();
    assert_eq!(ids, [server_uni(0), server_uni(1), server_uni(2)]);
    assert_eq!(table.accept(Dir::Bi), None);
}

/// A secondary's frame without bytes, far behind them, contradicted the primary's final size, and that cost the session.
// [P-6.12]
#[test]
fn regression_frame_without_bytes_says_nothing_of_the_final_size() {
    let mut table = client();
    let here = table.open(Dir::Bi, 0).unwrap();
    let id = client_bidi(0);
    table.on_data(PathId(1), id, 500, Bytes::new(), 500, false).unwrap();
    bring(&mut table, 0, id, 0..10, true);
    assert_eq!(read_all(&mut table, here, id.0), (10, ReadError::Finished));
    let late = table.on_data(PathId(1), id, 500, Bytes::new(), 500, false);
    assert_eq!(late.unwrap_err().code, TransportCode::FINAL_SIZE, "of the path that brought it");
}

// [P-6.12]
#[test]
fn final_sizes_must_agree() {
    let id = server_uni(0);
    let data = |table: &mut StreamTable, range: Range<u64>, fin| {
        let result = table.on_data(PathId::PRIMARY, id, range.start, bytes(id.0, range.clone()), range.end, fin);
        table.assert_ledger();
        result.map(|_| ()).map_err(|fault| fault.code)
    };
    let fault = Err(TransportCode::FINAL_SIZE);
    let mut table = client();
    data(&mut table, 0..10, false).unwrap();
    assert_eq!(data(&mut table, 0..5, true), fault, "below what was received");
    data(&mut table, 20..20, true).unwrap();
    assert_eq!(data(&mut table, 15..21, false), fault, "beyond the final size");
    assert_eq!(data(&mut table, 10..19, true), fault, "another final size");
    assert_eq!(table.on_reset(id, CODE, 21).unwrap_err().code, TransportCode::FINAL_SIZE);
    data(&mut table, 10..20, true).unwrap();
    let handle = table.accept(Dir::Uni).unwrap();
    assert_eq!(read_all(&mut table, handle, id.0), (20, ReadError::Finished), "the stream is intact");
}

#[test]
fn only_the_owner_ends_a_stream() {
    let mut table = client();
    let result = table.on_data(PathId(1), server_uni(0), 0, Bytes::new(), 0, true);
    assert_eq!(result.unwrap_err().code, TransportCode::FINAL_SIZE);
}

#[test]
fn a_slice_may_not_leave_its_frame() {
    let mut table = client();
    for (offset, frame_end) in [(0, 9), (u64::MAX, u64::MAX), (5, 14)] {
        let result = table.on_data(PathId::PRIMARY, server_uni(0), offset, bytes(0, 0..10), frame_end, false);
        assert_eq!(result.unwrap_err().code, TransportCode::PROTOCOL_VIOLATION);
    }
}

// [P-6.13]
#[test]
fn data_after_a_reset_is_ignored() {
    let mut table = client();
    let id = server_uni(0);
    bring(&mut table, 0, id, 0..10, false);
    table.on_reset(id, CODE, 30).unwrap();
    bring(&mut table, 0, id, 10..30, true);
    let handle = table.accept(Dir::Uni).unwrap();
    assert_eq!(read_all(&mut table, handle, id.0), (0, ReadError::Reset(CODE)));
    assert_eq!(table.memory_bytes(), 1536, "nothing is kept");
}

#[test]
fn regression_reset_at_the_last_byte_received_is_no_clean_end() {
    let mut table = client();
    let id = server_uni(0);
    bring(&mut table, 0, id, 0..10, false);
    let handle = table.accept(Dir::Uni).unwrap();
    table.on_reset(id, CODE, 10).unwrap();
    assert_eq!(read_all(&mut table, handle, id.0), (0, ReadError::Reset(CODE)));
}

#[test]
fn a_complete_stream_stays_readable_after_a_reset() {
    let mut table = client();
    let id = server_uni(0);
    bring(&mut table, 0, id, 0..10, true);
    table.on_reset(id, CODE, 10).unwrap();
    let handle = table.accept(Dir::Uni).unwrap();
    assert_eq!(read_all(&mut table, handle, id.0), (10, ReadError::Finished));
}

// [P-5.10]
#[test]
fn credit_is_one_offset_for_all_writers() {
    let mut table = client();
    let id = server_uni(0);
    let limit = table.receive_limit(id).unwrap().unwrap();
    assert_eq!(limit, 16 * KIB);
    let over = table.on_data(PathId::PRIMARY, id, limit, bytes(0, 0..1), limit + 1, false);
    assert_eq!(over.unwrap_err().code, TransportCode::FLOW_CONTROL);
    let claimed = table.on_data(PathId::PRIMARY, id, 0, bytes(0, 0..1), limit + 1, false);
    assert_eq!(claimed.unwrap_err().code, TransportCode::FLOW_CONTROL, "a frame counts whole when it begins");
    let whole = bytes(id.0, 0..limit);
    for from in [1, 2] {
        // Together more than a window, and each byte below the limit.
        table.on_data(PathId(from), id, 0, whole.clone(), limit, false).unwrap();
        table.assert_ledger();
    }
}

// [P-5.12]
#[test]
fn windows_grow_with_what_comes_for_a_reader_that_keeps_up() {
    let mut table = client();
    let id = server_uni(0);
    bring(&mut table, 2, id, 16 * KIB - 1..16 * KIB, false);
    assert_eq!(table.receive_limit(id), Ok(Some(24 * KIB)), "in use");
    bring(&mut table, 1, id, 24 * KIB - 1..24 * KIB, false);
    assert_eq!(table.receive_limit(id), Ok(Some(24 * KIB)), "little comes");
    bring(&mut table, 1, id, 0..1, false);
    table.on_wanted_window(1 << 20);
    bring(&mut table, 1, id, 1..2, false);
    assert_eq!(table.receive_limit(id), Ok(Some(24 * KIB)), "nothing is read");
    let handle = table.accept(Dir::Uni).unwrap();
    for _ in 0..40 {
        let limit = table.receive_limit(id).unwrap().unwrap();
        let start = table.recv_info(handle).unwrap().consumed;
        bring(&mut table, 0, id, start..limit, false);
        assert_eq!(read_all(&mut table, handle, id.0), (limit - start, ReadError::Blocked));
        table.assert_ledger();
        let window = table.receive_limit(id).unwrap().unwrap() - limit;
        // A raise of less than a quarter is not announced.
        assert!(window > 18 * KIB && window <= 64 * KIB, "{window}");
    }
    let consumed = table.recv_info(handle).unwrap().consumed;
    let limit = table.receive_limit(id).unwrap().unwrap();
    assert!(limit - consumed > 48 * KIB);
    assert_eq!(controls(&mut table), [StreamControl::MaxStreamData { id, limit }], "only the latest");
}

// [P-3.5] [P-5.9]
#[test]
fn credit_of_the_peer_only_rises() {
    let mut table = client();
    let handle = table.open(Dir::Uni, 0).unwrap();
    let id = table.stream_id(handle).unwrap();
    let limit = |table: &StreamTable| table.send_info(handle).unwrap().limit;
    for (said, expected) in [(1, 16 * KIB), (20_000, 20_000), (19_999, 20_000), (u64::MAX, VARINT_MAX)] {
        table.on_max_stream_data(id, said).unwrap();
        assert_eq!(limit(&table), expected);
    }
    table.on_peer_params(0, 0, 0).unwrap();
    for _ in 0..15 {
        table.open(Dir::Uni, 0).unwrap();
    }
    assert!(table.open(Dir::Uni, 0).is_err());
    assert!(table.on_max_streams(Dir::Uni, (1 << 60) + 1).is_err());
    table.on_max_streams(Dir::Uni, 17).unwrap();
    assert_eq!(table.poll_event(), Some(StreamEvent::Available { dir: Dir::Uni }));
    table.open(Dir::Uni, 0).unwrap();
}

// [P-3.5]
#[test]
fn parameters_raise_streams_that_are_open_already() {
    let mut table = client();
    let handle = table.open(Dir::Bi, 0).unwrap();
    assert_eq!(table.write(handle, &[0; 20 * 1024]), Ok(20 * 1024));
    let popped = table.pop_sendable().unwrap();
    assert_eq!(table.segment(popped, 64 * 1024).unwrap().data.len(), 16 * 1024);
    assert_eq!(table.pop_sendable(), None);
    table.on_peer_params(16, 16, 1 << 20).unwrap();
    assert_eq!(table.pop_sendable(), Some(handle));
    assert_eq!(table.segment(handle, 64 * 1024).unwrap().data.len(), 4 * 1024);
}

// [P-6.14]
#[test]
fn different_bytes_end_the_stream_and_name_both_sources() {
    let mut table = client();
    let id = server_uni(0);
    bring(&mut table, 1, id, 10..20, false);
    let handle = table.accept(Dir::Uni).unwrap();
    let outcome = table.on_data(PathId(2), id, 5, Bytes::from_static(&[1; 10]), 15, false).unwrap();
    let conflict = outcome.conflict.unwrap();
    assert_eq!((conflict.at, conflict.first, conflict.second), (10, Some(PathId(1)), PathId(2)));
    let code = TransportCode::RANGE_CONFLICT.into();
    assert_eq!(read_all(&mut table, handle, id.0), (0, ReadError::Reset(code)));
    let conflict = Some(RangeConflict { offset: StreamOffset(10), paths: [PathId(1), PathId(2)] });
    assert_eq!(controls(&mut table), [StreamControl::Stop { id, code, conflict }]);
    table.assert_ledger();
}

// [P-6.14]
#[test]
fn whoever_contradicts_itself_or_the_owner_is_at_fault_alone() {
    let id = server_uni(0);
    for first in [PathId(1), PathId::PRIMARY] {
        let mut table = client();
        bring(&mut table, first.0, id, 10..20, false);
        let handle = table.accept(Dir::Uni).unwrap();
        let fault = table.on_data(PathId(1), id, 5, Bytes::from_static(&[1; 10]), 15, false).unwrap_err();
        assert_eq!((fault.code, fault.offender), (TransportCode::RANGE_CONFLICT, None));
        bring(&mut table, 0, id, 0..10, false);
        assert_eq!(read_all(&mut table, handle, id.0), (20, ReadError::Blocked), "the stream goes on");
        table.assert_ledger();
    }
    // The owner of a stream has nobody to blame but itself, and is believed no more.
    let mut table = primary();
    let id = client_bidi(0);
    bring(&mut table, 0, id, 10..20, false);
    let outcome = table.on_data(PathId::PRIMARY, id, 10, Bytes::from_static(&[1; 10]), 20, false).unwrap();
    assert!(outcome.conflict.is_some());
    let code = TransportCode::RANGE_CONFLICT.into();
    assert_eq!(controls(&mut table), [StreamControl::Stop { id, code, conflict: None }]);
}

/// Brings pieces with gaps until the table has enough of it, and returns how many it took.
fn flood(table: &mut StreamTable, id: StreamId, offsets: impl Iterator<Item = u64>, len: u64) -> Option<usize> {
    for (count, start) in offsets.enumerate() {
        let data = bytes(id.0, start..start + len);
        let outcome = table.on_data(PathId(1), id, start, data, start + len, false).unwrap();
        if let Some(overflow) = outcome.overflow {
            assert_eq!(overflow.offender, PathId(1));
            return Some(count);
        }
        assert!(table.memory_bytes() < 400 * 1024, "{}", table.memory_bytes());
        table.assert_ledger();
    }
    None
}

// [P-6.16]
#[test]
fn gap_floods_end_the_stream_and_blame_the_path() {
    let gaps: [(Vec<u64>, u64); 3] = [
        ((1..8000).map(|i| 2 * i).collect(), 1),
        ((1..2000).map(|i| 7 * i).collect(), 6),
        ((1..8000).rev().map(|i| 2 * i).collect(), 1),
    ];
    for (offsets, len) in gaps {
        let mut table = client();
        let id = server_uni(0);
        assert_eq!(flood(&mut table, id, offsets.into_iter(), len), Some(200));
        let handle = table.accept(Dir::Uni).unwrap();
        let reset = ReadError::Reset(TransportCode::REASSEMBLY_LIMIT.into());
        assert_eq!(table.read(handle, 10, true), Err(reset));
        assert!(matches!(controls(&mut table)[..], [StreamControl::Stop { .. }]));
        assert!(table.memory_bytes() < 4096);
    }
}

// [P-6.16]
#[test]
fn the_session_bounds_the_gaps_of_all_its_streams() {
    let mut table = client();
    let counts: Vec<_> = (0..3).map(|index| flood(&mut table, server_uni(index), (1..180).map(|i| 2 * i), 1)).collect();
    // Of each, the first 8 are not counted.
    assert_eq!(counts, [None, None, Some(400 - 2 * (179 - 8) + 8)]);
}

/// A secondary parked as many pieces as may be held, and the next piece of the primary cost the session.
// [P-6.16]
#[test]
fn regression_who_parked_the_pieces_is_blamed_for_them() {
    let mut table = client();
    let id = server_uni(0);
    assert_eq!(flood(&mut table, id, (1..=200).map(|i| 2 * i), 1), None);
    let outcome = table.on_data(PathId::PRIMARY, id, 1000, bytes(id.0, 1000..1001), 1001, false).unwrap();
    assert_eq!(outcome.overflow, Some(Overflow { stream: id, offender: PathId(1) }));
}

/// The stream with the most pieces ends when all of them have too many, not the one whose piece came last.
// [P-6.16]
#[test]
fn regression_who_parked_pieces_in_other_streams_is_blamed_for_them() {
    let mut table = client();
    for index in 0..2 {
        assert_eq!(flood(&mut table, server_uni(index), (1..=200).map(|i| 2 * i), 1), None);
    }
    let id = server_uni(2);
    let mut overflow = None;
    for start in (0..8 + 400 - 2 * 192 + 1).map(|i| 20 * i) {
        assert_eq!(overflow, None);
        let data = bytes(id.0, start..start + 10);
        overflow = table.on_data(PathId::PRIMARY, id, start, data, start + 10, false).unwrap().overflow;
    }
    assert_eq!(overflow.map(|overflow| overflow.offender), Some(PathId(1)));
    assert_ne!(overflow.map(|overflow| overflow.stream), Some(id));
    let handles: Vec<_> = (0..3).map(|_| table.accept(Dir::Uni).unwrap()).collect();
    assert_eq!(table.read(handles[2], 10, true).map(|chunk| chunk.data.len()), Ok(10));
    table.assert_ledger();
}

/// Who had many pieces in a row waiting was blamed for the gaps of another.
// [P-6.16]
#[test]
fn regression_pieces_in_a_row_are_no_fault() {
    let mut table = client();
    let id = server_uni(0);
    for piece in 0..8 {
        bring(&mut table, 0, id, 4000 + 1500 * piece..5500 + 1500 * piece, false);
    }
    let mut offender = None;
    for start in (1..1000).map(|step| 2 * step) {
        let outcome = table.on_data(PathId(1), id, start, bytes(id.0, start..start + 1), start + 1, false).unwrap();
        offender = offender.or_else(|| outcome.overflow.map(|overflow| overflow.offender));
    }
    assert_eq!(offender, Some(PathId(1)));
}

/// Each of many streams counted as a piece for its life, so that more of them than pieces may be ended the session.
// [P-6.16]
#[test]
fn regression_streams_without_a_gap_cost_nothing_of_what_gaps_may() {
    let limits = Limits { streams_uni_max: 1000, reassembly_budget_bytes: 64 << 20, ..small_limits() };
    let mut table = StreamTable::new(Side::Client, TableRole::Client, &limits);
    for index in 0..1000 {
        // What a secondary brings may come before the first byte of the primary's.
        bring_unchecked(&mut table, 1, server_uni(index), 100..200);
        bring_unchecked(&mut table, 0, server_uni(index), 0..50);
    }
    table.assert_ledger();
}

/// Brings bytes that may overflow nothing, without looking at every sum.
fn bring_unchecked(table: &mut StreamTable, from: u32, id: StreamId, range: Range<u64>) {
    let data = bytes(id.0, range.clone());
    let outcome = table.on_data(PathId(from), id, range.start, data, range.end, false).unwrap();
    assert_eq!(outcome.overflow, None, "{id}");
}

/// Whoever moved the beginning of its spans down was not blamed for them, but the next to bring a byte.
// [P-6.16]
#[test]
fn regression_spans_that_grew_downwards_are_still_their_openers() {
    let mut table = client();
    let id = server_uni(0);
    for start in (1..=200).map(|step| 3 * step) {
        bring(&mut table, 1, id, start + 1..start + 2, false);
        bring(&mut table, 1, id, start..start + 1, false);
    }
    let outcome = table.on_data(PathId::PRIMARY, id, 1000, bytes(id.0, 1000..1001), 1001, false).unwrap();
    assert_eq!(outcome.overflow.map(|overflow| overflow.offender), Some(PathId(1)));
}

/// Gaps whose bytes were read out of order were nobody's, and the next piece was blamed for them.
// [P-6.16]
#[test]
fn regression_gaps_that_were_read_are_still_their_openers() {
    let mut table = client();
    let id = server_uni(0);
    bring(&mut table, 1, id, 2..3, false);
    let handle = table.accept(Dir::Uni).unwrap();
    for start in (1..=200).map(|step| 2 * step) {
        bring(&mut table, 1, id, start..start + 1, false);
        while table.read(handle, 10, false).is_ok() {}
    }
    let outcome = table.on_data(PathId::PRIMARY, id, 1000, bytes(id.0, 1000..1001), 1001, false).unwrap();
    assert_eq!(outcome.overflow.map(|overflow| overflow.offender), Some(PathId(1)));
}

#[test]
fn gap_floods_on_a_stopped_stream_are_bounded_too() {
    let mut table = client();
    let id = server_uni(0);
    table.receive_limit(id).unwrap();
    let handle = table.accept(Dir::Uni).unwrap();
    table.stop(handle, CODE).unwrap();
    assert_eq!(flood(&mut table, id, (1..8000).map(|i| 2 * i), 1), Some(200));
}

#[test]
fn duplicates_are_no_fault_within_the_credit() {
    let mut table = client();
    let id = server_uni(0);
    bring(&mut table, 0, id, 5..15, false);
    let limit = table.receive_limit(id).unwrap().unwrap();
    for _ in 0..limit / 10 - 1 {
        assert_eq!(bring(&mut table, 0, id, 5..15, false).inserted.duplicate_bytes, 10);
    }
    let fault = table.on_data(PathId::PRIMARY, id, 5, bytes(id.0, 5..15), 15, false).unwrap_err();
    assert_eq!(fault.code, TransportCode::FLOW_CONTROL);
}

// [P-5.14]
#[test]
fn a_reset_may_name_a_size_that_credit_never_allowed() {
    let mut table = client();
    let id = server_uni(0);
    let limit = table.receive_limit(id).unwrap().unwrap();
    table.on_reset(id, CODE, limit + 1).unwrap();
    let handle = table.accept(Dir::Uni).unwrap();
    assert_eq!(table.read(handle, 1, true), Err(ReadError::Reset(CODE)));
}

// [P-5.13]
#[test]
fn a_stop_is_answered_unless_everything_was_sent() {
    for whole in [false, true] {
        let mut table = client();
        let handle = table.open(Dir::Uni, 0).unwrap();
        let id = table.stream_id(handle).unwrap();
        table.write(handle, &[0; 10]).unwrap();
        if whole {
            table.finish(handle).unwrap();
        }
        table.pop_sendable().unwrap();
        assert_eq!(table.segment(handle, 100).unwrap().fin, whole);
        table.on_segment_packed(handle);
        controls(&mut table);
        table.on_stop(id, CODE).unwrap();
        let reset = StreamControl::Reset { id, code: CODE, final_size: 10 };
        assert_eq!(controls(&mut table), if whole { vec![] } else { vec![reset] });
    }
}
