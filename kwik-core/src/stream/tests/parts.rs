//! What a secondary keeps of the grants it was given.

use super::*;
use crate::error::{ErrorCode, TransportCode};
use crate::id::GrantId;
use crate::limits::{GRANTS_HELD_MAX, GRANTS_PATH_MAX};
use crate::stream::WriteError;

const PART: u64 = 8 * KIB;

fn part_range(number: u64) -> Range<u64> {
    number * PART..(number + 1) * PART
}

fn stream() -> StreamId {
    StreamId::new(Side::Client, Dir::Bi, 0)
}

fn open_part(table: &mut StreamTable, number: u64) -> Option<StreamHandle> {
    table.open_part(GrantId(number), stream(), part_range(number), 1 << 40, Bytes::from_static(b"go")).unwrap();
    table.accept(Dir::Bi)
}

/// Writes a part and hands it to a packet. The packet is never acknowledged.
fn send_part(table: &mut StreamTable, part: StreamHandle) {
    table.write_chunk(part, Bytes::from(vec![7; index(PART)])).unwrap();
    assert_eq!(table.pop_sendable(), Some(part));
    assert_eq!(table.segment(part, index(PART)).unwrap().data.len(), index(PART));
    table.on_segment_packed(part);
    assert_eq!(table.pop_sendable(), None);
}

fn release(table: &mut StreamTable, part: StreamHandle) {
    table.release_send(part);
    table.release_recv(part);
}

// [P-8.8]
#[test]
fn parts_that_were_sent_leave_nothing_however_many_they_were() {
    for parts in [8_000, 64_000] {
        let mut table = secondary();
        for number in 0..parts {
            let part = open_part(&mut table, number).unwrap();
            send_part(&mut table, part);
            release(&mut table, part);
            table.on_max_stream_data(stream(), (1 << 40) + number).unwrap();
            assert_eq!((table.open_streams(), table.parts_in_books()), (0, (0, 0)), "after {number} parts");
        }
        table.assert_ledger();
        assert!(table.is_drained() && table.memory_bytes() < 1024, "{} bytes", table.memory_bytes());
    }
}

/// The frames of a client about a stream, and each packet, walked over all parts that there ever were.
#[test]
fn parts_that_are_over_and_held_are_not_walked_over() {
    let mut table = secondary();
    for number in 0..GRANTS_HELD_MAX as u64 {
        let part = open_part(&mut table, number).unwrap();
        assert_eq!(table.parts_in_books(), (index(number), 1));
        send_part(&mut table, part);
        assert_eq!(table.parts_in_books(), (index(number) + 1, 0));
    }
    table.assert_ledger();
}

// [P-8.15]
#[test]
fn parts_revoked_before_anybody_accepted_them_leave_nothing() {
    let mut table = secondary();
    for number in 0..64_000 {
        table.open_part(GrantId(number), stream(), part_range(number), 0, bytes(1, 0..8192)).unwrap();
        table.revoke_part(GrantId(number));
        assert_eq!((table.open_streams(), table.parts_in_books()), (0, (0, 0)), "after {number} parts");
    }
    assert_eq!((table.accept(Dir::Bi), controls(&mut table)), (None, vec![]));
    table.assert_ledger();
}

// [P-5.13]
#[test]
fn parts_stopped_before_anybody_accepted_them_are_ended_and_leave_nothing() {
    let mut table = secondary();
    table.open_part(GrantId(3), stream(), part_range(3), 0, Bytes::new()).unwrap();
    table.on_stop(stream(), ErrorCode::Application(5)).unwrap();
    assert_eq!(table.accept(Dir::Bi), None);
    let end = StreamControl::PartEnd { grant: GrantId(3), end: 3 * PART, code: ErrorCode::Application(5) };
    assert_eq!((controls(&mut table), table.open_streams()), (vec![end], 0));
    table.assert_ledger();
}

// [P-8.13] [P-8.8]
#[test]
fn application_that_lets_go_of_nothing_is_given_no_more() {
    let mut table = secondary();
    let held: Vec<_> = (0..=GRANTS_HELD_MAX as u64)
        .map(|number| {
            let part = open_part(&mut table, number).unwrap();
            send_part(&mut table, part);
            part
        })
        .collect();
    let busy = TransportCode::SERVER_BUSY.into();
    let next = held.len() as u64;
    assert_eq!(open_part(&mut table, next), None);
    let end = |number| StreamControl::PartEnd { grant: GrantId(number), end: number * PART, code: busy };
    assert_eq!((controls(&mut table), table.open_streams()), (vec![end(next)], held.len()));
    release(&mut table, held[0]);
    let part = open_part(&mut table, next + 1).expect("room again");
    send_part(&mut table, part);
    let (mut number, most) = (next + 2, next + 2 + 4 * GRANTS_PATH_MAX as u64);
    let flood = loop {
        let opened = table.open_part(GrantId(number), stream(), part_range(number), 0, Bytes::new());
        match opened {
            Ok(_) => number += 1,
            Err(fault) => break fault,
        }
        assert!(number < most, "a client that hears nothing makes refusals pile up");
    };
    assert_eq!(flood.code, TransportCode::CONTROL_FLOOD);
    table.assert_ledger();
}

#[test]
fn part_that_ended_while_it_waited_gives_its_turn_to_the_next() {
    let mut table = secondary();
    let parts: Vec<_> = (0..4).map(|number| open_part(&mut table, number).unwrap()).collect();
    for part in parts.iter().rev() {
        table.write_chunk(*part, Bytes::from(vec![7; 10])).unwrap();
        table.assert_ledger();
    }
    table.revoke_part(GrantId(0));
    table.reset(parts[1], ErrorCode::Application(1)).unwrap();
    assert_eq!(table.write(parts[0], b"x"), Err(WriteError::Stopped(TransportCode::REVOKED.into())));
    table.assert_ledger();
    assert_eq!(table.pop_sendable(), Some(parts[2]));
    table.assert_ledger();
    release(&mut table, parts[3]);
    table.assert_ledger();
    table.set_priority(parts[3], 1).unwrap();
    assert_eq!(table.pop_sendable(), Some(parts[3]), "released, but not sent");
    table.assert_ledger();
}
