//! Readers that pause: whatever was written, in whatever pieces and by whomever, waits for them.

use std::time::Duration;

use bytes::Bytes;
use kwik_core::{Dir, Limits, PathId, ReadError, SessionHandle, StreamHandle, WriteError};
use kwik_sim::{NodeId, World};
use kwik_tests::{Ends, Fleet, LONG, pattern};

/// Sizes of writes: bytes, and both sides of what is gathered and of what a datagram holds.
const SIZES: [usize; 13] = [1, 7, 64, 1000, 1023, 1024, 1025, 1300, 1400, 1452, 2000, 4096, 65_536];
/// What the reader takes before it pauses, so that its window grows.
const BEFORE: u64 = 3 << 20;
/// More than any window.
const TOTAL: u64 = 12 << 20;
/// Longer than it takes to fill every window.
const PAUSE: Duration = Duration::from_secs(5);
/// What a session has beside what waits.
const BESIDE: usize = 384 * 1024;
/// The parts that several writers take turns with.
const PART: u64 = 100_000;

/// An end of a stream.
#[derive(Clone, Copy)]
struct StreamAt(NodeId, SessionHandle, StreamHandle);

/// Who writes one part of a stream, in writes of one size.
struct PieceWriter {
    at: StreamAt,
    next: u64,
    end: u64,
    size: usize,
}

impl PieceWriter {
    /// Writes as much as there is room for; returns whether that was all.
    fn go(&mut self, world: &mut World) -> bool {
        let StreamAt(node, session, stream) = self.at;
        let mut session = world.session_mut(node, session).expect("a session");
        while self.next < self.end {
            let end = self.end.min(self.next + self.size as u64);
            match session.stream_mut(stream).write_chunk(pattern(self.next..end)) {
                Ok(taken) => self.next += taken as u64,
                Err(WriteError::Blocked) => return false,
                Err(error) => panic!("byte {} of writes of {} bytes: {error}", self.next, self.size),
            }
        }
        true
    }
}

/// Reads what is there, until `until` bytes were read in all; returns whether the stream is over.
fn read(world: &mut World, at: StreamAt, size: usize, read: &mut u64, until: u64) -> bool {
    let mut session = world.session_mut(at.0, at.1).expect("a session");
    while *read < until {
        match session.stream_mut(at.2).read(usize::MAX) {
            Ok(chunk) => {
                let range = *read..*read + chunk.data.len() as u64;
                assert_eq!(chunk.data, pattern(range.clone()), "writes of {size} bytes, {range:?}");
                *read = range.end;
            }
            Err(ReadError::Blocked) => return false,
            Err(ReadError::Finished) => return true,
            Err(error) => panic!("writes of {size} bytes, after {read}: {error}"),
        }
    }
    false
}

/// A reader that takes some, pauses until its windows are full, and takes the rest.
fn pause(world: &mut World, reader: StreamAt, size: usize, mut write: impl FnMut(&mut World) -> bool) {
    let mut taken = 0;
    let before = BEFORE.min(size as u64 * 40_000);
    let came = world.run_until(LONG, |world| {
        write(world);
        read(world, reader, size, &mut taken, before);
        taken >= before
    });
    assert!(came, "writes of {size} bytes: {taken} bytes came");
    let mut written = false;
    world.run_until(PAUSE, |world| {
        written |= write(world);
        false
    });
    let memory = world.session(reader.0, reader.1).expect("a session").stats().bytes_buffered;
    let paused_at = taken;
    read(world, reader, size, &mut taken, u64::MAX);
    let waited = usize::try_from(taken - paused_at).expect("no more than a window");
    assert!(waited >= 1 << 20 || written, "writes of {size} bytes: {waited} bytes waited");
    assert!(memory <= waited / 8 * 11 + BESIDE, "writes of {size} bytes: {memory} bytes for {waited}");
    let ended = world.run_until(LONG, |world| {
        write(world);
        read(world, reader, size, &mut taken, u64::MAX)
    });
    assert!(ended, "writes of {size} bytes: no end after {taken}");
}

fn total(size: usize) -> u64 {
    TOTAL.min(size as u64 * 150_000)
}

fn finish(world: &mut World, StreamAt(node, session, stream): StreamAt) {
    world.session_mut(node, session).expect("a session").stream_mut(stream).finish().expect("finished");
}

/// A stream between a client and its primary, written by one of them.
fn one_writer(by_client: bool) {
    for size in SIZES {
        let mut fleet = Fleet::new(1);
        let ends = fleet.connect();
        let (here, there) = fleet.open(ends, Dir::Bi);
        let (here, there) =
            (StreamAt(fleet.client, ends.client, here), StreamAt(fleet.servers[0], ends.primary, there));
        let (from, to) = if by_client { (here, there) } else { (there, here) };
        let mut writer = PieceWriter { at: from, next: 0, end: total(size), size };
        let mut finished = false;
        pause(&mut fleet.world, to, size, |world| {
            if !finished && writer.go(world) {
                finish(world, from);
                finished = true;
            }
            finished
        });
    }
}

#[test]
fn client_that_pauses_gets_what_was_written_in_any_pieces() {
    one_writer(false);
}

#[test]
fn server_that_pauses_gets_what_was_written_in_any_pieces() {
    one_writer(true);
}

/// A stream that the primary and two secondaries write in turns, each in writes of the same size.
struct Turns {
    primary: StreamAt,
    secondaries: [(NodeId, SessionHandle); 2],
    paths: [PathId; 2],
    own: Option<PieceWriter>,
    others: Vec<PieceWriter>,
    next: u64,
    end: u64,
    size: usize,
    finished: bool,
}

impl Turns {
    fn go(&mut self, world: &mut World) -> bool {
        self.accept(world);
        let mut done = true;
        for writer in &mut self.others {
            if writer.next < writer.end {
                let all = writer.go(world);
                done &= all;
                if all {
                    finish(world, writer.at);
                }
            }
        }
        while !self.finished {
            if let Some(own) = &mut self.own
                && !own.go(world)
            {
                return false;
            }
            self.own = None;
            let StreamAt(node, session, stream) = self.primary;
            if self.next == self.end {
                finish(world, self.primary);
                self.finished = true;
                break;
            }
            let part = self.next..self.end.min(self.next + PART);
            self.next = part.end;
            let turn = usize::try_from(part.start / PART % 3).expect("one of three");
            if let Some(path) = self.paths.get(turn) {
                let mut session = world.session_mut(node, session).expect("a session");
                session.stream_mut(stream).delegate(*path, part.end - part.start, Bytes::new()).expect("delegated");
            } else {
                self.own = Some(PieceWriter { at: self.primary, next: part.start, end: part.end, size: self.size });
            }
        }
        done && self.finished
    }

    fn accept(&mut self, world: &mut World) {
        for (node, session) in self.secondaries {
            let mut view = world.session_mut(node, session).expect("a session");
            while let Some(part) = view.accept_stream(Dir::Bi) {
                let range = view.stream(part).grant().expect("a part").range;
                let at = StreamAt(node, session, part);
                self.others.push(PieceWriter { at, next: range.start, end: range.end, size: self.size });
            }
        }
    }
}

#[test]
fn client_that_pauses_gets_what_several_wrote_in_any_pieces() {
    for size in SIZES {
        let mut fleet = Fleet::new(3);
        let ends = fleet.connect();
        let joined = [1, 2].map(|server| fleet.join(ends, server));
        let (here, there) = fleet.open(ends, Dir::Bi);
        let mut turns = Turns {
            primary: StreamAt(fleet.servers[0], ends.primary, there),
            secondaries: [(fleet.servers[1], joined[0].1), (fleet.servers[2], joined[1].1)],
            paths: joined.map(|(path, _)| path),
            own: None,
            others: Vec::new(),
            next: 0,
            end: total(size),
            size,
            finished: false,
        };
        let client = fleet.client;
        pause(&mut fleet.world, StreamAt(client, ends.client, here), size, |world| turns.go(world));
        let stats = fleet.world.session(client, ends.client).expect("a session").stats();
        assert!(stats.paths.iter().all(|path| path.state.is_usable()), "{:?}", stats.paths);
    }
}

/// More streams than pieces may be, each with a byte that waits.
#[test]
fn streams_that_wait_are_limited_by_the_limit_of_streams_alone() {
    const STREAMS: u64 = 9_000;
    let mut limits = Limits::default();
    limits.streams_uni_max = STREAMS;
    limits.reassembly_budget_bytes = 1 << 30;
    let mut fleet = Fleet::new(1);
    let config = fleet.pki.client().limits(limits);
    let Ends { client, primary } = fleet.connect_with(config);
    let server = fleet.servers[0];
    for number in 0..STREAMS {
        let mut session = fleet.world.session_mut(server, primary).expect("a session");
        let stream = session.open_stream(Dir::Uni).expect("within the limit");
        session.stream_mut(stream).write(&pattern(number..number + 1)).expect("written");
        if number % 100 == 0 {
            fleet.world.run_for(Duration::from_millis(10));
        }
    }
    fleet.world.run_for(PAUSE);
    for number in 0..STREAMS {
        let mut session = fleet.world.session_mut(fleet.client, client).expect("a session");
        let stream = session.accept_stream(Dir::Uni).unwrap_or_else(|| panic!("no stream {number}"));
        let chunk = session.stream_mut(stream).read(10).expect("a byte");
        assert_eq!(chunk.data, pattern(number..number + 1));
    }
}
