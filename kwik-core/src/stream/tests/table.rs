//! What the application may do, and what it is told.

use super::*;
use crate::error::TransportCode;
use crate::id::GrantId;
use crate::limits::GRANTS_PATH_MAX;
use crate::stream::{OpenError, ReserveError, WriteError};

// [P-5.7]
#[test]
fn a_stream_is_announced_before_anything_else_about_it() {
    let mut table = client();
    let handle = table.open(Dir::Bi, 3).unwrap();
    let id = table.stream_id(handle).unwrap();
    table.reset(handle, CODE).unwrap();
    table.stop(handle, CODE).unwrap();
    let told = controls(&mut table);
    assert_eq!(told[0], StreamControl::Open { id, priority: 3, limit: 24 * KIB }, "with its whole window");
    assert_eq!(told[1], StreamControl::Reset { id, code: CODE, final_size: 0 });
    assert_eq!(told[2], StreamControl::Stop { id, code: CODE, conflict: None });
    assert_eq!(told.len(), 3);
}

#[test]
fn a_slot_is_freed_once_when_both_halves_are_done_and_released() {
    let mut table = primary();
    let id = client_bidi(0);
    bring(&mut table, 0, id, 0..10, true);
    let handle = table.accept(Dir::Bi).unwrap();
    assert_eq!(read_all(&mut table, handle, id.0), (10, ReadError::Finished));
    table.write(handle, b"answer").unwrap();
    table.finish(handle).unwrap();
    table.release_recv(handle);
    table.release_recv(handle);
    assert_eq!(table.read(handle, 1, true), Err(ReadError::ClosedStream));
    assert_eq!(send_all(&mut table), 6);
    assert_eq!(
        events(&mut table),
        [StreamEvent::Opened { dir: Dir::Bi }, StreamEvent::Readable(handle), StreamEvent::Finished(handle)]
    );
    assert_eq!((controls(&mut table), table.open_streams()), (vec![], 1), "the sending half is still held");
    table.release_send(handle);
    table.release_send(handle);
    assert_eq!(table.open_streams(), 0);
    assert_eq!(controls(&mut table), [StreamControl::MaxStreams { dir: Dir::Bi, max: 17 }]);
    assert_eq!(table.write(handle, b"x"), Err(WriteError::ClosedStream));
    table.assert_ledger();
}

#[test]
fn no_stream_credit_is_given_while_too_many_wait_to_be_accepted() {
    let limits = Limits { accept_queue_streams: 2, ..small_limits() };
    let mut table = StreamTable::new(Side::Client, TableRole::Client, &limits);
    for index in 0..4 {
        bring(&mut table, 0, server_uni(index), 0..0, true);
    }
    let first = table.accept(Dir::Uni).unwrap();
    table.release_recv(first);
    assert_eq!(controls(&mut table), [], "three wait");
    table.accept(Dir::Uni).unwrap();
    assert_eq!(controls(&mut table), []);
    table.accept(Dir::Uni).unwrap();
    assert_eq!(controls(&mut table), [StreamControl::MaxStreams { dir: Dir::Uni, max: 17 }]);
    table.assert_ledger();
}

// [P-5.13]
#[test]
fn a_stop_resets_the_stream_and_crossing_resets_free_it_once() {
    let mut table = primary();
    let id = client_bidi(0);
    bring(&mut table, 0, id, 0..10, false);
    controls(&mut table);
    let handle = table.accept(Dir::Bi).unwrap();
    table.write(handle, &[0; 100]).unwrap();
    table.pop_sendable().unwrap();
    table.segment(handle, 40).unwrap();
    table.on_segment_packed(handle);
    table.on_stop(id, CODE).unwrap();
    table.on_stop(id, ErrorCode::Application(1)).unwrap();
    table.reset(handle, ErrorCode::Application(2)).unwrap();
    assert_eq!(table.write(handle, b"x"), Err(WriteError::Stopped(CODE)));
    assert_eq!(controls(&mut table), [StreamControl::Reset { id, code: CODE, final_size: 40 }]);
    assert!(events(&mut table).contains(&StreamEvent::Stopped { stream: handle, code: CODE }));
    table.stop(handle, CODE).unwrap();
    table.on_reset(id, CODE, 10).unwrap();
    table.release_send(handle);
    table.release_recv(handle);
    assert_eq!(controls(&mut table), [StreamControl::Stop { id, code: CODE, conflict: None }]);
    assert_eq!((table.withheld(Dir::Bi), table.take_completed(Dir::Bi)), (1, 0), "the peer gave it up");
    table.free_withheld(Dir::Bi, 5);
    assert_eq!(controls(&mut table), [StreamControl::MaxStreams { dir: Dir::Bi, max: 17 }], "once");
    table.on_packet_acked(handle);
    table.on_reset(id, CODE, 10).unwrap();
    assert_eq!((controls(&mut table), table.open_streams()), (vec![], 0));
    table.assert_ledger();
}

// [P-5.9]
#[test]
fn only_slots_of_streams_that_the_peer_gave_up_are_withheld() {
    type End = fn(&mut StreamTable, StreamHandle, StreamId);
    let cases: [(&str, End, u64); 6] = [
        ("it reset its half", |table, _, id| assert!(table.on_reset(id, CODE, 15).is_ok()), 1),
        ("it stopped the answer", |table, _, id| assert!(table.on_stop(id, CODE).is_ok()), 1),
        (
            "it contradicted itself",
            |table, _, id| {
                let outcome = table.on_data(PathId::PRIMARY, id, 5, Bytes::from_static(&[1; 10]), 15, false).unwrap();
                assert!(outcome.conflict.is_some());
            },
            1,
        ),
        ("the application reset the answer", |table, handle, _| table.reset(handle, CODE).unwrap(), 0),
        (
            "the application stopped it, and the reset is the answer to that",
            |table, handle, id| {
                table.stop(handle, CODE).unwrap();
                table.on_reset(id, CODE, 15).unwrap();
            },
            0,
        ),
        ("nobody", |_, _, _| (), 0),
    ];
    for (what, end, withheld) in cases {
        let mut table = primary();
        let id = client_bidi(0);
        bring(&mut table, 0, id, 0..10, false);
        let handle = table.accept(Dir::Bi).unwrap();
        table.write(handle, b"answer").unwrap();
        end(&mut table, handle, id);
        table.release_send(handle);
        table.release_recv(handle);
        send_all(&mut table);
        controls(&mut table);
        // If it did not end the stream already, it does so now.
        table.on_reset(id, CODE, 15).unwrap();
        controls(&mut table);
        assert_eq!(table.open_streams(), 0, "{what}");
        assert_eq!((table.withheld(Dir::Bi), table.take_completed(Dir::Bi)), (withheld, 1 - withheld), "{what}");
        table.assert_ledger();
    }
}

#[test]
fn withheld_slots_wait_like_all_others_for_the_application_to_accept() {
    let limits = Limits { accept_queue_streams: 1, ..small_limits() };
    let mut table = StreamTable::new(Side::Client, TableRole::Client, &limits);
    for index in 0..2 {
        bring(&mut table, 0, server_uni(index), 0..1, false);
        table.on_reset(server_uni(index), CODE, 1).unwrap();
    }
    controls(&mut table);
    let first = table.accept(Dir::Uni).unwrap();
    table.release_recv(first);
    assert_eq!(table.withheld(Dir::Uni), 0, "one waits");
    table.accept(Dir::Uni).unwrap();
    assert_eq!(table.withheld(Dir::Uni), 1);
}

#[test]
fn released_halves_end_as_a_user_of_quic_expects() {
    let mut table = primary();
    let id = client_bidi(0);
    bring(&mut table, 0, id, 5..10, false);
    let handle = table.accept(Dir::Bi).unwrap();
    table.write(handle, b"hello").unwrap();
    table.release_send(handle);
    table.release_recv(handle);
    assert_eq!(controls(&mut table), [StreamControl::Stop { id, code: ErrorCode::Application(0), conflict: None }]);
    table.pop_sendable().unwrap();
    let last = table.segment(handle, 100).unwrap();
    assert!(last.fin && last.data == "hello"[..]);
    assert_eq!(
        table.memory_bytes(),
        1536 + 64,
        "the unread bytes are gone, their place and who began it are remembered"
    );
}

// [P-5.14]
#[test]
fn a_released_stream_with_holes_is_reset() {
    let mut table = primary();
    let open = |table: &mut StreamTable| {
        let handle = table.open(Dir::Uni, 0).unwrap();
        (handle, table.stream_id(handle).unwrap())
    };
    let (handle, id) = open(&mut table);
    table.write_at(handle, 10, Bytes::from_static(b"tail")).unwrap();
    table.release_send(handle);
    let reset = |id, final_size| StreamControl::Reset { id, code: TransportCode::SOURCE_LOST.into(), final_size };
    assert!(controls(&mut table).contains(&reset(id, 14)));
    let (handle, id) = open(&mut table);
    assert_eq!(table.reserve(handle, 10), Ok(0..10));
    table.finish(handle).unwrap();
    table.release_send(handle);
    controls(&mut table);
    table.delivered(id, 0..4);
    table.unreserve(id, std::slice::from_ref(&(4..10)));
    assert_eq!(controls(&mut table), [reset(id, 10)]);
    assert_eq!(table.open_streams(), 0);
}

#[test]
fn delegated_ranges_complete_a_stream_when_they_arrive() {
    let mut table = primary();
    let handle = table.open(Dir::Uni, 0).unwrap();
    let id = table.stream_id(handle).unwrap();
    table.write(handle, b"head").unwrap();
    assert_eq!(table.reserve(handle, 100), Ok(4..104));
    table.write(handle, b"tail").unwrap();
    assert_eq!(table.reserve_range(handle, 0..2), Err(ReserveError::Overlap { start: 0, end: 2 }));
    assert_eq!(table.reserve(handle, 0), Err(ReserveError::Empty));
    table.finish(handle).unwrap();
    assert_eq!(send_all(&mut table), 8);
    controls(&mut table);
    assert!(!table.is_drained() && events(&mut table).is_empty());
    table.delivered(id, 4..50);
    table.unreserve(id, std::slice::from_ref(&(50..104)));
    assert_eq!(table.send_info(handle).unwrap().holes, vec![50..104]);
    assert_eq!(table.reserve_range(handle, 50..100), Ok(50..100));
    assert_eq!(table.write_at(handle, 100, Bytes::from_static(b"last")), Ok(4));
    assert_eq!(send_all(&mut table), 4);
    table.delivered(id, 50..100);
    assert_eq!(events(&mut table), [StreamEvent::Finished(handle)]);
    assert!(table.is_drained());
}

#[test]
fn only_a_primary_delegates() {
    let mut table = client();
    let handle = table.open(Dir::Bi, 0).unwrap();
    assert_eq!(table.reserve(handle, 1), Err(ReserveError::NotPrimary));
    assert_eq!(
        table.open_part(GrantId(1), client_bidi(0), 0..1, 9, Bytes::new()).unwrap_err().code,
        TransportCode::PROTOCOL_VIOLATION
    );
}

// [P-8.13]
#[test]
fn a_grant_is_a_stream_that_yields_its_request() {
    let mut table = secondary();
    let id = server_uni(5);
    let limit = 200;
    table.open_part(GrantId(7), id, 100..300, limit, Bytes::from_static(b"please")).unwrap();
    assert_eq!(events(&mut table), [StreamEvent::Opened { dir: Dir::Bi }]);
    let handle = table.accept(Dir::Bi).unwrap();
    assert_eq!(table.grant(handle), Some((GrantId(7), 100..300)));
    assert_eq!(table.read(handle, 100, true).unwrap().data, "please"[..]);
    assert_eq!(table.read(handle, 100, true), Err(ReadError::Finished));
    table.write_chunk(handle, bytes(1, 0..150)).unwrap();
    assert_eq!(send_all(&mut table), 100, "up to the stream's limit");
    table.on_max_stream_data(id, 1000).unwrap();
    table.finish(handle).unwrap();
    assert_eq!(send_all(&mut table), 50);
    let end = StreamControl::PartEnd { grant: GrantId(7), end: 250, code: TransportCode::NO_ERROR.into() };
    assert_eq!(controls(&mut table), [end]);
    table.release_send(handle);
    table.release_recv(handle);
    assert_eq!((controls(&mut table), table.open_streams()), (vec![], 0));
    table.assert_ledger();
}

// [P-5.13] [P-8.13] [P-8.15]
#[test]
fn revoked_and_stopped_parts_end_at_once() {
    let mut table = secondary();
    let id = server_uni(5);
    for (grant, start) in [(1, 0), (2, 100), (3, 200)] {
        table.open_part(GrantId(grant), id, start..start + 100, 1000, Bytes::new()).unwrap();
    }
    assert!(table.open_part(GrantId(3), id, 0..1, 0, Bytes::new()).is_err(), "in use");
    assert!(table.open_part(GrantId(4), id, 1..1, 0, Bytes::new()).is_err(), "empty");
    let handles: Vec<_> = std::iter::from_fn(|| table.accept(Dir::Bi)).collect();
    for handle in &handles {
        table.write(*handle, &[0; 50]).unwrap();
    }
    table.revoke_part(GrantId(2));
    table.revoke_part(GrantId(9));
    assert_eq!(table.write(handles[1], b"x"), Err(WriteError::Stopped(TransportCode::REVOKED.into())));
    assert_eq!(controls(&mut table), []);
    table.on_stop(id, CODE).unwrap();
    let ends = [(1, 0), (3, 200)].map(|(grant, end)| StreamControl::PartEnd { grant: GrantId(grant), end, code: CODE });
    assert_eq!(controls(&mut table), ends);
    assert_eq!(table.pop_sendable(), None);
}

// [P-8.8]
#[test]
fn a_secondary_bounds_the_parts_it_takes() {
    let mut table = secondary();
    let mut open = |grant| table.open_part(GrantId(grant), server_uni(0), 0..1, 0, Bytes::new());
    let most = 2 * GRANTS_PATH_MAX as u64;
    assert!((0..most).all(|grant| open(grant).is_ok()), "those that are over may not be heard of yet");
    assert_eq!(open(most).unwrap_err().code, TransportCode::CONTROL_FLOOD);
}

/// A secondary counted parts that the client had whole but had not acknowledged, and closed its path when the primary
/// granted more. (Swarm seed 91.)
#[test]
fn regression_parts_sent_whole_do_not_count_against_new_grants() {
    let mut table = secondary();
    for grant in 0..4 * GRANTS_PATH_MAX as u64 {
        let range = grant..grant + 1;
        let part = table.open_part(GrantId(grant), server_uni(0), range.clone(), 1 << 20, Bytes::new()).unwrap();
        table.write_chunk(part, bytes(1, range)).unwrap();
        assert_eq!(table.pop_sendable(), Some(part));
        assert_eq!(table.segment(part, 10).unwrap().data.len(), 1);
        table.on_segment_packed(part);
    }
}

#[test]
fn writers_wait_for_room_and_are_woken() {
    let mut table = client();
    table.on_peer_params(16, 16, 1 << 20).unwrap();
    let handles: Vec<_> = (0..5).map(|_| table.open(Dir::Uni, 0).unwrap()).collect();
    assert_eq!(table.write(handles[0], &[0; 40 * 1024]), Ok(32 * 1024), "the stream's buffer");
    assert_eq!(table.write(handles[0], b"x"), Err(WriteError::Blocked));
    for handle in &handles[1..4] {
        assert_eq!(table.write(*handle, &[0; 32 * 1024]), Ok(32 * 1024));
    }
    assert_eq!(table.write(handles[4], &[0; 32 * 1024]), Ok(16 * 1024), "what every stream may hold");
    assert_eq!(table.write(handles[4], b"x"), Err(WriteError::Blocked), "the session's buffer");
    events(&mut table);
    let first = table.pop_sendable().unwrap();
    table.segment(first, 100).unwrap();
    assert_eq!(events(&mut table), [StreamEvent::Writable(handles[0])]);
    assert_eq!(table.write(handles[0], b"x"), Err(WriteError::Blocked), "the session's buffer");
    table.segment(first, 16 * 1024).unwrap();
    assert_eq!(events(&mut table), [StreamEvent::Writable(handles[0]), StreamEvent::Writable(handles[4])]);
    assert_eq!(table.write(handles[4], &[0; 200]), Ok(100));
    table.assert_ledger();
}

#[test]
fn priorities_come_first_and_equals_take_turns() {
    let mut table = client();
    let handles: Vec<_> = [0, 0, 1].map(|priority| table.open(Dir::Uni, priority).unwrap()).into();
    for handle in &handles {
        table.write(*handle, &[0; 100]).unwrap();
    }
    table.set_priority(handles[0], 2).unwrap();
    table.set_priority(handles[0], 0).unwrap();
    let mut order = Vec::new();
    while let Some(handle) = table.pop_sendable() {
        order.push(handles.iter().position(|h| *h == handle).unwrap());
        table.segment(handle, 50).unwrap();
        table.push_sendable(handle);
    }
    assert_eq!(order, [2, 2, 1, 0, 1, 0]);
}

/// A reader waits for the lowest bytes: a little of every part would make it wait for almost all of them.
#[test]
fn regression_parts_of_a_stream_were_sent_in_turns() {
    let mut table = secondary();
    let part = |table: &mut StreamTable, grant, stream, start| {
        let range = start..start + 2000;
        let part =
            table.open_part(GrantId(grant), client_bidi(stream), range.clone(), KIB * KIB, Bytes::new()).unwrap();
        table.write_chunk(part, bytes(stream, range)).unwrap();
        part
    };
    part(&mut table, 0, 0, 8000);
    part(&mut table, 1, 1, 0);
    part(&mut table, 2, 0, 2000);
    let urgent = part(&mut table, 3, 0, 6000);
    table.set_priority(urgent, 1).unwrap();
    part(&mut table, 4, 0, 0);
    let mut sent = Vec::new();
    while let Some(handle) = table.pop_sendable() {
        let segment = table.segment(handle, 1000).unwrap();
        sent.push((table.stream_id(handle).unwrap().index(), segment.offset));
        table.push_sendable(handle);
    }
    let of = |stream| sent.iter().filter(|(of, _)| *of == stream).map(|(_, offset)| *offset).collect::<Vec<_>>();
    assert_eq!(of(0), [6000, 7000, 0, 1000, 2000, 3000, 8000, 9000], "by priority, then the lowest first");
    let between = sent.windows(2).filter(|pair| pair[0].0 != pair[1].0).count();
    assert!(between >= 4, "streams take turns as before: {sent:?}");
    assert_eq!(of(1), [0, 1000]);
}

#[test]
fn the_opener_chooses_the_priority_until_the_acceptor_does() {
    let mut table = primary();
    bring(&mut table, 0, client_bidi(0), 0..1, false);
    let handle = table.accept(Dir::Bi).unwrap();
    table.on_open(client_bidi(0), 5, 100_000).unwrap();
    assert_eq!(table.priority(handle), Some(5));
    assert_eq!(table.send_info(handle).unwrap().limit, 100_000);
    table.set_priority(handle, 6).unwrap();
    table.on_open(client_bidi(0), 7, 0).unwrap();
    assert_eq!(table.priority(handle), Some(6));
}

#[test]
fn the_slowest_source_owns_the_head_and_nothing_deadlocks() {
    let mut table = client();
    let id = server_uni(0);
    let total = 300 * KIB;
    let (mut slow, mut fast) = (0, KIB);
    let handle = table.receive_limit(id).map(|_| table.accept(Dir::Uni).unwrap()).unwrap();
    while slow < total {
        let limit = table.receive_limit(id).unwrap().unwrap().min(total);
        // The slow source writes every eighth KiB, the fast one the rest, as far as credit lets it.
        while fast + KIB <= limit {
            bring(&mut table, 1, id, fast..fast + KIB, false);
            fast += if fast / KIB % 8 == 7 { 2 * KIB } else { KIB };
        }
        bring(&mut table, 2, id, slow..slow + KIB, false);
        slow += 8 * KIB;
        let (_, error) = read_all(&mut table, handle, id.0);
        assert_eq!(error, ReadError::Blocked);
        table.assert_ledger();
    }
    assert_eq!(table.recv_info(handle).unwrap().consumed, total);
}

#[test]
fn every_stream_finds_credit_when_others_hold_much() {
    let limits = Limits { stream_window_bytes: 1 << 20, ..small_limits() };
    let mut table = StreamTable::new(Side::Client, TableRole::Client, &limits);
    table.on_peer_params(1 << 20, 0, 0).unwrap();
    for index in 0..16 {
        bring(&mut table, 0, server_uni(index), 0..1, false);
        assert!(table.receive_limit(server_uni(index)).unwrap().unwrap() >= 16 * KIB);
    }
    let opened = (0..1000).take_while(|_| table.open(Dir::Bi, 0).is_ok()).count();
    assert!(opened > 0, "a stream opened here finds its window too");
    assert_eq!(table.open(Dir::Bi, 0), Err(OpenError::BudgetTaken));
    table.assert_ledger();
    assert_eq!(events(&mut table), [StreamEvent::Opened { dir: Dir::Uni }]);
    table.on_reset(server_uni(0), CODE, 1).unwrap();
    assert_eq!(events(&mut table), [StreamEvent::Available { dir: Dir::Bi }]);
}

#[test]
fn a_closed_session_lets_what_arrived_be_read() {
    let mut table = client();
    let id = server_uni(0);
    bring(&mut table, 0, id, 0..10, false);
    let handle = table.accept(Dir::Uni).unwrap();
    let writer = table.open(Dir::Bi, 0).unwrap();
    table.write(writer, b"unsent").unwrap();
    events(&mut table);
    table.close();
    let woken = events(&mut table);
    assert!(woken.contains(&StreamEvent::Readable(handle)) && woken.contains(&StreamEvent::Writable(writer)));
    assert_eq!(read_all(&mut table, handle, id.0), (10, ReadError::SessionClosed));
    assert_eq!(table.write(writer, b"x"), Err(WriteError::SessionClosed));
    assert_eq!(table.open(Dir::Uni, 0), Err(OpenError::SessionClosed));
    assert_eq!((table.poll_control(), table.pop_sendable()), (None, None));
}

#[test]
fn a_stopped_stream_drops_what_comes_and_holds_no_credit() {
    let mut table = client();
    let id = server_uni(0);
    bring(&mut table, 0, id, 10..20, false);
    let handle = table.accept(Dir::Uni).unwrap();
    table.stop(handle, CODE).unwrap();
    assert_eq!(table.receive_limit(id), Ok(None));
    let outcome = bring(&mut table, 0, id, 0..20, false);
    assert_eq!(
        (outcome.inserted.new.as_slice(), outcome.inserted.duplicate_bytes),
        (std::slice::from_ref(&(0..10)), 10)
    );
    let info = table.recv_info(handle).unwrap();
    assert_eq!((info.consumed, info.buffered_bytes), (20, 0));
    assert_eq!(table.read(handle, 1, true), Err(ReadError::ClosedStream));
}

#[test]
fn regression_bytes_that_wait_for_credit_kept_out_the_hole_that_brings_it() {
    let mut table = primary();
    let id = client_bidi(0);
    bring(&mut table, 0, id, 0..0, false);
    let handle = table.accept(Dir::Bi).unwrap();
    let tail = 20 * KIB;
    table.reserve(handle, tail).unwrap();
    assert_eq!(table.write(handle, &[0; 40 * 1024]), Ok(32 * 1024), "all of it beyond the credit");
    assert_eq!(table.write(handle, b"x"), Err(WriteError::Blocked));
    table.unreserve(id, std::slice::from_ref(&(0..tail)));
    assert_eq!(table.write_at(handle, 0, bytes(0, 0..tail)), Ok(16 * 1024), "as far as credit goes");
    assert_eq!(table.write_at(handle, 16 * KIB, bytes(0, 16 * KIB..tail)), Err(WriteError::Blocked));
    assert_eq!(send_all(&mut table), 16 * KIB);
    events(&mut table);
    assert_eq!(table.write_at(handle, 16 * KIB, bytes(0, 16 * KIB..tail)), Err(WriteError::Blocked));
    table.on_max_stream_data(id, 64 * KIB).unwrap();
    assert_eq!(events(&mut table), [StreamEvent::Writable(handle)]);
    assert_eq!(send_all(&mut table), 32 * KIB);
    assert_eq!(table.write_at(handle, 16 * KIB, bytes(0, 16 * KIB..tail)), Ok(4 * 1024));
}

/// What was written ahead filled the buffer, and the hole that the reader waited for was to wait until all but 16 KiB of
/// that was sent.
#[test]
fn regression_bytes_written_ahead_kept_out_the_head_of_the_line() {
    let mut table = primary();
    let id = client_bidi(0);
    bring(&mut table, 0, id, 0..0, false);
    let handle = table.accept(Dir::Bi).unwrap();
    table.on_max_stream_data(id, 1 << 20).unwrap();
    table.reserve(handle, 20 * KIB).unwrap();
    assert_eq!(table.write(handle, &[0; 40 * 1024]), Ok(32 * 1024), "all of it within the credit");
    let others: Vec<_> = (0..3).map(|_| table.open(Dir::Uni, 0).unwrap()).collect();
    for other in others {
        assert_eq!(table.write(other, &[0; 32 * 1024]), Ok(32 * 1024), "the session's buffer is full as well");
    }
    table.unreserve(id, std::slice::from_ref(&(0..20 * KIB)));
    assert_eq!(table.write_at(handle, 0, bytes(0, 0..20 * KIB)), Ok(16 * 1024));
    assert_eq!(table.write_at(handle, 16 * KIB, bytes(0, 0..4 * KIB)), Err(WriteError::Blocked), "a bounded exemption");
    events(&mut table);
    assert_eq!(table.segment(handle, 4096).map(|segment| segment.offset), Some(0), "it is sent first");
    assert_eq!(events(&mut table), [StreamEvent::Writable(handle)]);
    assert_eq!(table.write_at(handle, 16 * KIB, bytes(0, 0..4 * KIB)), Ok(4096));
    table.assert_ledger();
}

/// A read that waited left no trace of how the stream is read: who read in any order was not woken by bytes behind a gap, and
/// who read in order was.
#[test]
fn regression_read_that_waits_says_how_the_stream_is_read() {
    let mut table = client();
    let id = server_uni(0);
    bring(&mut table, 0, id, 0..1, false);
    let handle = table.accept(Dir::Uni).unwrap();
    assert_eq!(table.read(handle, 10, true).map(|chunk| chunk.data.len()), Ok(1));
    assert_eq!(table.read(handle, 10, true), Err(ReadError::Blocked));
    events(&mut table);
    bring(&mut table, 0, id, 10..20, false);
    assert_eq!(events(&mut table), [], "nothing in order");
    assert_eq!(table.read(handle, 100, false).map(|chunk| chunk.offset.0), Ok(10));
    assert_eq!(table.read(handle, 100, false), Err(ReadError::Blocked));
    bring(&mut table, 0, id, 30..40, false);
    assert_eq!(events(&mut table), [StreamEvent::Readable(handle)]);
    assert_eq!(table.read(handle, 100, true), Err(ReadError::IllegalOrderedRead));

    let mut table = client();
    bring(&mut table, 0, id, 0..1, false);
    let handle = table.accept(Dir::Uni).unwrap();
    assert_eq!(table.read(handle, 10, true).map(|chunk| chunk.data.len()), Ok(1));
    assert_eq!(table.read(handle, 10, false), Err(ReadError::Blocked));
    assert_eq!(table.read(handle, 10, true), Err(ReadError::IllegalOrderedRead), "also while it waits");
    events(&mut table);
    bring(&mut table, 0, id, 10..20, false);
    assert_eq!(events(&mut table), [StreamEvent::Readable(handle)]);
}
