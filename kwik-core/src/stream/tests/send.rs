use super::bytes;
use crate::error::{ErrorCode, TransportCode};
use crate::limits::VARINT_MAX;
use crate::stream::WriteError;
use crate::stream::send::{Position, SendStream};

const ROOM: usize = 1 << 20;

fn write(send: &mut SendStream, position: Position, len: usize) -> Result<(), WriteError> {
    let start = match position {
        Position::Cursor => send.cursor(),
        Position::At(offset) => offset,
    };
    assert_eq!(send.admit(position, len, ROOM)?, len);
    send.store(position, bytes(1, start..start + len as u64));
    Ok(())
}

/// Takes segments of at most `max` bytes, checks them, and returns (offset, length, fin) of each.
fn drain(send: &mut SendStream, max: usize) -> Vec<(u64, usize, bool)> {
    let mut segments = Vec::new();
    while let Some(segment) = send.next_segment(max) {
        let end = segment.offset + segment.data.len() as u64;
        assert_eq!(segment.data, bytes(1, segment.offset..end));
        segments.push((segment.offset, segment.data.len(), segment.fin));
    }
    assert!(!send.is_sendable());
    segments
}

// [P-5.10]
#[test]
fn the_lowest_bytes_go_first_and_never_beyond_the_limit() {
    let mut send = SendStream::new(2500);
    write(&mut send, Position::At(2000), 1500).unwrap();
    write(&mut send, Position::Cursor, 2000).unwrap();
    assert_eq!(drain(&mut send, 1500), [(0, 1500, false), (1500, 500, false), (2000, 500, false)]);
    assert!(send.raise_limit(5000) && !send.raise_limit(4000));
    assert_eq!(drain(&mut send, 1500), [(2500, 1000, false)]);
    assert_eq!(send.buffered_bytes(), 0);
}

#[test]
fn small_writes_are_gathered() {
    let mut send = SendStream::new(VARINT_MAX);
    for _ in 0..100 {
        write(&mut send, Position::Cursor, 32).unwrap();
    }
    assert_eq!(drain(&mut send, ROOM), [(0, 3200, false)]);
}

#[test]
fn the_end_travels_with_the_last_byte_or_alone() {
    let mut send = SendStream::new(VARINT_MAX);
    write(&mut send, Position::Cursor, 10).unwrap();
    send.finish().unwrap();
    assert_eq!(drain(&mut send, 6), [(0, 6, false), (6, 4, true)]);
    let mut late = SendStream::new(VARINT_MAX);
    write(&mut late, Position::Cursor, 10).unwrap();
    drain(&mut late, 100);
    late.finish().unwrap();
    assert_eq!(drain(&mut late, 100), [(10, 0, true)]);
    assert!(late.is_done());
    late.on_segment_packed();
    assert!(!late.is_done() && late.is_draining());
    late.on_packet_acked();
    assert!(late.is_done());
}

// [P-6.12]
#[test]
fn the_end_waits_for_credit() {
    let mut send = SendStream::new(10);
    send.reserve(20).unwrap();
    send.finish().unwrap();
    assert!(!send.is_sendable(), "the final size is beyond the limit");
    send.raise_limit(20);
    assert_eq!(drain(&mut send, 100), [(20, 0, true)]);
}

#[test]
fn nothing_is_written_twice() {
    let mut send = SendStream::new(VARINT_MAX);
    write(&mut send, Position::At(10), 10).unwrap();
    let overlap = Err(WriteError::Overlap { start: 10, end: 11 });
    assert_eq!(send.admit(Position::Cursor, 11, ROOM).map(|_| ()), overlap);
    assert_eq!(write(&mut send, Position::At(5), 6), overlap);
    assert_eq!(send.reserve_range(0..11), overlap);
    assert_eq!(send.reserve(30), Err(WriteError::Overlap { start: 10, end: 20 }));
    write(&mut send, Position::Cursor, 10).unwrap();
    assert_eq!(send.cursor(), 10, "the cursor does not skip what was written elsewhere");
    assert_eq!(send.admit(Position::Cursor, 1, ROOM), Err(WriteError::Overlap { start: 10, end: 11 }));
}

#[test]
fn holes_stay_open_below_the_final_size() {
    let mut send = SendStream::new(VARINT_MAX);
    write(&mut send, Position::At(10), 10).unwrap();
    send.finish().unwrap();
    assert_eq!(drain(&mut send, 100), [(10, 10, true)]);
    assert!(send.has_abandoned_holes());
    assert_eq!(send.holes(), vec![0..10]);
    assert_eq!(send.admit(Position::Cursor, 1, ROOM), Err(WriteError::Finished));
    assert_eq!(write(&mut send, Position::At(20), 1), Err(WriteError::Finished));
    assert_eq!(send.reserve(1), Err(WriteError::Finished));
    send.reserve_range(0..5).unwrap();
    write(&mut send, Position::At(5), 5).unwrap();
    assert_eq!(drain(&mut send, 100), [(5, 5, false)], "the end is told once");
    assert!(!send.is_done());
    send.on_delivered(0..5);
    assert!(send.is_done() && !send.has_abandoned_holes());
}

/// The last range was lost before the application heard of it: its stream ended before that range, and nobody could write
/// what was lost.
#[test]
fn regression_loss_that_is_not_heard_of_yet_shortens_no_stream() {
    let mut send = SendStream::new(VARINT_MAX);
    write(&mut send, Position::At(0), 10).unwrap();
    send.reserve_range(10..30).unwrap();
    send.unreserve(10..30);
    send.finish().unwrap();
    assert_eq!(drain(&mut send, 100), [(0, 10, false), (30, 0, true)]);
    write(&mut send, Position::At(10), 20).unwrap();
    assert_eq!(drain(&mut send, 100), [(10, 20, false)]);
}

// [P-5.14]
#[test]
fn lost_ranges_reopen_and_only_them() {
    let mut send = SendStream::new(VARINT_MAX);
    write(&mut send, Position::Cursor, 10).unwrap();
    assert_eq!(send.reserve(20), Ok(10..30));
    send.on_delivered(10..15);
    send.unreserve(0..25);
    assert_eq!(send.holes(), vec![15..25]);
    write(&mut send, Position::At(15), 10).unwrap();
    assert_eq!(write(&mut send, Position::At(14), 1), Err(WriteError::Overlap { start: 14, end: 15 }));
    assert_eq!(send.reset_size(), 30, "a reset names all that was promised");
}

// [P-8.13]
#[test]
fn a_part_stays_in_its_range_and_ends_without_an_end_of_stream() {
    let mut part = SendStream::of_part(100..200, VARINT_MAX);
    let outside = Err(WriteError::BeyondGrant { start: 100, end: 200 });
    assert_eq!(write(&mut part, Position::Cursor, 101), outside);
    assert_eq!(write(&mut part, Position::At(99), 1), outside);
    write(&mut part, Position::Cursor, 60).unwrap();
    part.finish().unwrap();
    assert_eq!(part.part_end(), Some((160, TransportCode::NO_ERROR.into())));
    assert_eq!(drain(&mut part, 100), [(100, 60, false)]);
    assert!(part.is_done());
    let mut whole = SendStream::of_part(100..200, VARINT_MAX);
    write(&mut whole, Position::Cursor, 100).unwrap();
    whole.finish().unwrap();
    assert_eq!(whole.part_end(), None);
}

// [P-8.13] [P-8.15]
#[test]
fn a_part_that_is_cut_short_tells_what_it_handed_out() {
    let mut part = SendStream::of_part(100..200, VARINT_MAX);
    write(&mut part, Position::Cursor, 60).unwrap();
    assert_eq!(part.next_segment(25).unwrap().offset, 100);
    assert!(part.reset(ErrorCode::Application(7)));
    assert_eq!(part.part_end(), Some((125, ErrorCode::Application(7))));
    assert!(!part.is_sendable() && part.buffered_bytes() == 0);
    let mut revoked = SendStream::of_part(100..200, VARINT_MAX);
    assert!(revoked.revoke() && !revoked.revoke());
    assert_eq!(revoked.part_end(), None);
    assert_eq!(write(&mut revoked, Position::Cursor, 1), Err(WriteError::Stopped(TransportCode::REVOKED.into())));

    let mut sent = SendStream::of_part(100..110, VARINT_MAX);
    write(&mut sent, Position::Cursor, 10).unwrap();
    assert!(sent.next_segment(10).is_some());
    assert!(!sent.revoke(), "every byte was sent");
    assert_eq!(sent.finish(), Ok(()));
}

#[test]
fn only_the_lowest_hole_finds_room_where_there_is_none() {
    let mut send = SendStream::new(VARINT_MAX);
    send.reserve(300_000).unwrap();
    write(&mut send, Position::Cursor, 500_000).unwrap();
    send.unreserve(0..100_000);
    send.unreserve(200_000..300_000);
    assert_eq!(send.admit(Position::At(200_000), 1, 0), Err(WriteError::Blocked), "another hole is lower");
    assert_eq!(send.admit(Position::Cursor, 1, 0), Err(WriteError::Blocked), "no hole");
    let mut filled = 0;
    for sent in [0, 0, 5_000, 0, 11_384] {
        assert_eq!(send.next_segment(sent).map_or(0, |segment| segment.data.len()), sent);
        let taken = send.admit(Position::At(filled), 50_000, 0).unwrap_or_default();
        send.store(Position::At(filled), bytes(1, filled..filled + taken as u64));
        filled += taken as u64;
        assert!(send.buffered_bytes() <= 500_000 + 16 * 1024, "more than is kept for a hole");
    }
    assert_eq!(filled, 2 * 16 * 1024, "what is sent makes room again, and the lowest is sent first");
}

#[test]
fn the_number_space_is_not_left() {
    let mut send = SendStream::new(u64::MAX);
    assert_eq!(send.admit(Position::At(u64::MAX), 1, ROOM), Err(WriteError::TooLong));
    assert_eq!(send.admit(Position::At(VARINT_MAX), 1, ROOM), Err(WriteError::TooLong));
    assert_eq!(send.reserve(u64::MAX), Err(WriteError::TooLong));
    assert_eq!(send.reserve(VARINT_MAX), Ok(0..VARINT_MAX));
    assert_eq!(send.reserve(1), Err(WriteError::TooLong));
}

// [P-5.14]
#[test]
fn regression_reset_named_a_size_below_a_copy_of_what_was_not_sent() {
    let mut send = SendStream::new(1000);
    write(&mut send, Position::Cursor, 30).unwrap();
    assert!(!send.promise_copy(&(0..31)).unwrap(), "nobody was given the last byte");
    assert!(send.promise_copy(&(0..20)).unwrap());
    assert!(send.reset(ErrorCode::Application(7)));
    assert_eq!(send.reset_size(), 20, "another may have written so much");
}
