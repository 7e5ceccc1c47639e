//! What a stream that ended answers.

use super::*;

#[test]
fn a_half_that_ended_takes_no_command() {
    fn answers(table: &mut StreamTable, handle: StreamHandle) -> [bool; 3] {
        let priority = table.set_priority(handle, 1).is_ok();
        [priority, table.stop(handle, CODE).is_ok(), table.reset(handle, CODE).is_ok()]
    }
    type End = fn(&mut StreamTable, StreamHandle, StreamId);
    let cases: [(&str, End, [bool; 3]); 8] = [
        ("it did not", |_, _, _| (), [true, true, true]),
        (
            "what was finished may still be lost",
            |table, handle, _| {
                table.finish(handle).unwrap();
                let sent = table.pop_sendable().unwrap();
                table.segment(sent, 1000).unwrap();
                table.on_segment_packed(sent);
            },
            [true, true, false],
        ),
        (
            "the peer has everything",
            |table, handle, _| {
                table.finish(handle).unwrap();
                assert_eq!(send_all(table), 6);
                assert_eq!(table.finish(handle), Ok(()), "the stream ends where it did");
            },
            [false, true, false],
        ),
        ("it was reset", |table, handle, _| table.reset(handle, CODE).unwrap(), [false, true, false]),
        ("the peer stopped it", |table, _, id| assert!(table.on_stop(id, CODE).is_ok()), [false, true, true]),
        ("it was stopped", |table, handle, _| table.stop(handle, CODE).unwrap(), [true, false, true]),
        (
            "it was read to its end",
            |table, handle, id| {
                bring(table, 0, id, 10..10, true);
                assert_eq!(read_all(table, handle, id.0).1, ReadError::Finished);
            },
            [true, false, true],
        ),
        ("the peer reset it", |table, _, id| assert!(table.on_reset(id, CODE, 10).is_ok()), [true, false, true]),
    ];
    for (what, end, expected) in cases {
        let mut table = primary();
        let id = client_bidi(0);
        bring(&mut table, 0, id, 0..10, false);
        let handle = table.accept(Dir::Bi).unwrap();
        table.write(handle, b"answer").unwrap();
        end(&mut table, handle, id);
        assert_eq!(answers(&mut table, handle), expected, "{what}");
        table.close();
        assert_eq!(answers(&mut table, handle), [false; 3], "{what}: the session is over");
        table.assert_ledger();
    }
}
