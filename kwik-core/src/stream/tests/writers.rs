//! Many writers that wait for room: how often they are woken, and that none is forgotten.

use super::*;
use crate::error::ErrorCode;
use crate::stream::{Room, StreamEvent, WriteError};
use std::collections::BTreeMap;

/// What each writer has to write: as much as every stream may hold, and more.
const EACH: usize = 24 * 1024;

/// Writers that each write all they can, and wait.
struct Crowd {
    table: StreamTable,
    left: BTreeMap<StreamHandle, usize>,
}

impl Crowd {
    fn new(writers: usize) -> Self {
        let mut table = client();
        table.on_peer_params(16, 5000, 16 * KIB).unwrap();
        let mut crowd = Self { table, left: BTreeMap::new() };
        for _ in 0..writers {
            crowd.open(EACH, 1 << 20);
        }
        crowd
    }

    /// A writer of so many bytes, of which the peer takes so many at first.
    fn open(&mut self, bytes: usize, limit: u64) -> StreamHandle {
        let writer = self.table.open(Dir::Uni, 0).unwrap();
        let id = self.table.stream_id(writer).unwrap();
        self.table.on_max_stream_data(id, limit).unwrap();
        self.left.insert(writer, bytes);
        self.write(writer);
        writer
    }

    fn write(&mut self, writer: StreamHandle) {
        let Some(left) = self.left.get_mut(&writer) else { return };
        while *left > 0 {
            match self.table.write(writer, &vec![7; *left]) {
                Ok(written) => *left -= written,
                Err(WriteError::Blocked) => return,
                Err(error) => panic!("{error}"),
            }
        }
        self.left.remove(&writer);
    }

    /// Sends one segment, if there is any.
    fn send(&mut self) -> bool {
        let Some(stream) = self.table.pop_sendable() else { return false };
        self.table.segment(stream, 1200).unwrap();
        self.table.push_sendable(stream);
        true
    }

    /// The writers that are woken now.
    fn woken(&mut self) -> Vec<StreamHandle> {
        std::iter::from_fn(|| self.table.poll_event())
            .filter_map(|event| match event {
                StreamEvent::Writable(writer) => Some(writer),
                _ => None,
            })
            .collect()
    }
}

/// Thousands of writers that have no credit wait for room in a buffer that others filled: the little that each segment
/// gives back must not wake them all.
#[test]
fn as_many_writers_are_woken_as_there_is_room_for() {
    let mut crowd = Crowd::new(0);
    let paused: Vec<_> = (0..4000).map(|_| crowd.open(16 * 1024, 16 * KIB)).collect();
    while crowd.send() {}
    crowd.woken();
    for _ in 0..4 {
        crowd.open(32 * 1024, 1 << 20);
    }
    for writer in &paused {
        crowd.left.insert(*writer, 8 * 1024);
        crowd.write(*writer);
    }
    assert_eq!(crowd.left.len(), 4000, "all wait");
    let (mut segments, mut wakes) = (0, 0);
    while crowd.send() {
        segments += 1;
        for writer in crowd.woken() {
            wakes += 1;
            crowd.write(writer);
        }
    }
    assert!(wakes <= 2 * segments, "{wakes} wakes for {segments} segments");
    for writer in &paused {
        let id = crowd.table.stream_id(*writer).unwrap();
        crowd.table.on_max_stream_data(id, 1 << 20).unwrap();
    }
    while crowd.send() {
        for writer in crowd.woken() {
            crowd.write(writer);
        }
    }
    assert!(crowd.left.is_empty(), "{} writers were forgotten", crowd.left.len());
    crowd.table.assert_ledger();
}

#[test]
fn room_of_a_writer_that_does_not_come_is_anothers() {
    for how in 0..4 {
        let mut crowd = Crowd::new(200);
        let mut turn = 0;
        while crowd.send() {
            for writer in crowd.woken() {
                turn += 1;
                if turn % 3 > 0 {
                    crowd.write(writer);
                    continue;
                }
                crowd.left.remove(&writer);
                match how {
                    0 => crowd.table.cancel_write(writer),
                    1 => crowd.table.reset(writer, ErrorCode::Application(1)).unwrap(),
                    2 => crowd.table.release_send(writer),
                    // It says nothing: the others go on when the buffer is empty.
                    _ => {}
                }
            }
        }
        assert!(crowd.left.is_empty(), "{how}: {} writers were forgotten", crowd.left.len());
    }
}

/// A write that is polled and then not polled again says nothing. Bytes without credit keep the buffer from becoming empty,
/// and nothing else may ever be sent: the room was told to the one that is not there, and to nobody else.
#[test]
fn regression_room_told_to_a_writer_that_is_gone_was_told_to_nobody_else() {
    const AHEAD: u64 = 1 << 24;
    let mut crowd = Crowd::new(0);
    for _ in 0..4 {
        let paused = crowd.open(0, 16 * KIB);
        assert_eq!(crowd.table.write_at(paused, AHEAD, bytes(0, 0..28 * KIB)), Ok(28 * 1024));
    }
    crowd.open(16 * 1024, 16 * KIB);
    let waiting: Vec<_> = (0..15).map(|_| crowd.open(0, 16 * KIB)).collect();
    for writer in &waiting {
        assert_eq!(crowd.table.write_at(*writer, AHEAD, bytes(0, 0..100)), Err(WriteError::Blocked));
    }
    while crowd.send() {}
    let mut woken = crowd.woken();
    assert_eq!(woken, waiting[..1]);
    let mut rounds = 0;
    while crowd.table.has_unused_wakes() {
        rounds += 1;
        crowd.table.pass_on_wakes();
        woken.extend(crowd.woken());
    }
    assert_eq!((woken, rounds), (waiting, 3));
}

/// A writer without credit was told again and again of room in an empty buffer, while the endpoint had none to give: two
/// sessions that were lent it in turns kept the endpoint from ever coming to rest. (Swarm seed 11861.)
#[test]
fn regression_writer_was_woken_for_room_that_the_endpoint_does_not_have() {
    let mut crowd = Crowd::new(0);
    let writer = crowd.open(0, 16 * KIB);
    let nothing = Room { grow: 0, windows: 0, open: 0 };
    crowd.table.set_room(nothing);
    let write_ahead = |crowd: &mut Crowd| crowd.table.write_at(writer, 1 << 24, bytes(0, 0..100));
    assert_eq!(write_ahead(&mut crowd), Err(WriteError::Blocked));
    crowd.table.set_room(nothing);
    assert_eq!(crowd.woken(), []);
    crowd.table.set_room(Room { grow: 2, ..nothing });
    assert_eq!(crowd.woken(), [writer]);
    assert_eq!(write_ahead(&mut crowd), Ok(1));
}
