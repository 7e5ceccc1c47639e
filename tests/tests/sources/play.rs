//! A world whose primary distributes parts of one stream, stepped by hand: servers that behave as they are told, and a client
//! that checks every byte.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use kwik_core::{
    Dir, DistributeError, Distributor, GrantId, GrantStatus, Limits, PathId, ReadError, SessionHandle, StreamHandle,
    StreamOffset, WriteError,
};
use kwik_sim::{Disturbance, Link, RestartState, WorldConfig};
use kwik_tests::{Ends, Fleet, pattern};

/// So often everybody acts.
const STEP: Duration = Duration::from_millis(5);
/// More turns without any time between them than a distribution that becomes content takes.
const TURNS_MAX: usize = 200;
/// The most that the primary writes at once.
const PIECE_BYTES: u64 = 16 * 1024;

/// What a server does with the ranges it is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conduct {
    /// Writes them.
    Honest,
    /// Accepts them, and writes nothing.
    Mute,
    /// Writes one byte of each in each step.
    Trickle,
    /// Ends them at once.
    Refuse,
    /// Writes half of each and ends it.
    Half,
}

/// A range that a server was granted.
struct Part {
    server: usize,
    session: SessionHandle,
    stream: StreamHandle,
    next: u64,
    range: Range<u64>,
}

/// The world.
pub(super) struct Play {
    pub(super) fleet: Fleet,
    pub(super) ends: Ends,
    pub(super) here: StreamHandle,
    pub(super) there: StreamHandle,
    pub(super) distributors: Vec<Distributor>,
    pub(super) conducts: BTreeMap<usize, Conduct>,
    /// The path of each secondary that was added last.
    pub(super) paths: BTreeMap<usize, PathId>,
    /// How the client reads.
    pub(super) is_ordered: bool,
    pub(super) is_paused: bool,
    parts: Vec<Part>,
    /// What the primary's application writes by hand.
    writes: Vec<Range<u64>>,
    grants: BTreeMap<GrantId, (Range<u64>, bool)>,
    /// Which bytes the client has, by the byte.
    read: Vec<bool>,
    read_bytes: usize,
    is_ended: bool,
}

impl Play {
    /// A session over `secondaries` servers that joined, and a stream of so many bytes.
    pub(super) fn new(seed: u64, secondaries: usize, bytes: u64, link: &Link, limits: &Limits) -> Self {
        let builder = kwik_sim::FleetBuilder::new(WorldConfig::null_tls(seed)).link(link.clone()).client(|_| ());
        let mut fleet = builder.servers(secondaries + 1, |_, node| node.set_limits(limits)).build();
        let ends = fleet.connect();
        let paths = (1..=secondaries).map(|server| (server, fleet.join(ends, server).0)).collect();
        let (here, there) = fleet.open(ends, Dir::Bi);
        Self {
            fleet,
            ends,
            here,
            there,
            distributors: Vec::new(),
            conducts: BTreeMap::new(),
            paths,
            is_ordered: true,
            is_paused: false,
            parts: Vec::new(),
            writes: Vec::new(),
            grants: BTreeMap::new(),
            read: vec![false; usize::try_from(bytes).expect("few bytes")],
            read_bytes: 0,
            is_ended: false,
        }
    }

    /// Steps until the client read all, for at most so long. Returns whether it did.
    pub(super) fn run(&mut self, limit: Duration) -> bool {
        let end = self.fleet.world.elapsed() + limit;
        while !self.is_ended && self.fleet.world.elapsed() < end {
            self.step();
        }
        self.is_ended
    }

    /// Steps for so long.
    pub(super) fn run_for(&mut self, span: Duration) {
        let end = self.fleet.world.elapsed() + span;
        while self.fleet.world.elapsed() < end {
            self.step();
        }
    }

    fn step(&mut self) {
        self.distribute().expect("it can go on");
        self.write();
        self.serve();
        self.read();
        self.fleet.world.run_for(STEP);
    }

    // ---- the primary

    /// Finishes the stream once all of it is written.
    pub(super) fn finish_when_done(&mut self) -> bool {
        let is_written = self.writes.is_empty() && self.grants.is_empty();
        let is_done = is_written && self.distributors.iter().all(Distributor::is_done);
        if is_done {
            self.fleet.finish(self.fleet.servers[0], self.ends.primary, self.there);
        }
        is_done
    }

    /// Steps until all is written, and then until the client read it, for at most so long.
    pub(super) fn complete(&mut self, limit: Duration) -> bool {
        let end = self.fleet.world.elapsed() + limit;
        while !self.finish_when_done() {
            if self.fleet.world.elapsed() >= end {
                return false;
            }
            self.step();
        }
        self.run(limit)
    }

    /// Has every distribution act until it asks for nothing more.
    pub(super) fn distribute(&mut self) -> Result<(), DistributeError> {
        let now = self.fleet.world.now();
        let mut session = self.fleet.world.session_mut(self.fleet.servers[0], self.ends.primary).expect("a session");
        for distributor in &mut self.distributors {
            for turn in 0.. {
                assert!(turn < TURNS_MAX, "it is never content");
                distributor.act(now, &mut session)?;
                let mut is_answered = false;
                while let Some((path, range)) = distributor.poll_request() {
                    distributor.answer(path, range, Bytes::new());
                    is_answered = true;
                }
                while let Some(range) = distributor.poll_own() {
                    distributor.supply(range.start, pattern(range));
                    is_answered = true;
                }
                if !is_answered {
                    break;
                }
            }
            assert!(distributor.poll_timeout().is_none_or(|at| at > now), "a deadline that passed");
        }
        Ok(())
    }

    /// The primary's application writes a range.
    pub(super) fn write_by_hand(&mut self, range: Range<u64>) {
        self.writes.push(range);
    }

    /// The primary's application leaves a range to a server, or writes it itself if it cannot.
    pub(super) fn delegate_by_hand(&mut self, server: usize, range: Range<u64>, is_copy: bool) {
        let path = self.paths[&server];
        let mut session = self.fleet.world.session_mut(self.fleet.servers[0], self.ends.primary).expect("a session");
        let mut stream = session.stream_mut(self.there);
        let granted = if is_copy {
            stream.delegate_copy(path, range.clone(), Bytes::new())
        } else {
            stream.delegate_range(path, range.clone(), Bytes::new())
        };
        match granted {
            Ok(grant) => drop(self.grants.insert(grant.grant, (range, is_copy))),
            Err(_) if is_copy => {}
            Err(_) => self.writes.push(range),
        }
    }

    /// The primary's application takes back everything that it left to servers.
    pub(super) fn revoke_by_hand(&mut self) {
        let mut session = self.fleet.world.session_mut(self.fleet.servers[0], self.ends.primary).expect("a session");
        self.grants.keys().for_each(|grant| drop(session.revoke(*grant)));
    }

    fn write(&mut self) {
        let mut session = self.fleet.world.session_mut(self.fleet.servers[0], self.ends.primary).expect("a session");
        let writes = &mut self.writes;
        self.grants.retain(|grant, (_, is_copy)| {
            match session.delegation(*grant) {
                Some(GrantStatus::Progress { .. }) => return true,
                Some(GrantStatus::Lost { missing, .. }) if !*is_copy => writes.extend(missing),
                _ => {}
            }
            session.forget_delegation(*grant);
            false
        });
        writes.sort_by_key(|range| range.start);
        let mut blocked = Vec::new();
        while let Some(range) = writes.pop() {
            let piece = range.start..range.end.min(range.start + PIECE_BYTES);
            match session.stream_mut(self.there).write_at(StreamOffset(piece.start), pattern(piece.clone())) {
                Ok(taken) => push(writes, range.start + taken as u64..range.end),
                // What a copy delivered meanwhile needs no second writer.
                Err(WriteError::Overlap { start, end }) => {
                    push(writes, end.max(range.start)..range.end);
                    push(writes, range.start..start.max(range.start));
                }
                Err(WriteError::Blocked) => blocked.push(range),
                Err(error) => panic!("{error}"),
            }
        }
        *writes = blocked;
    }

    // ---- the network

    pub(super) fn crash(&mut self, server: usize) {
        self.fleet.world.inject(Disturbance::Crash { node: self.fleet.servers[server] });
    }

    pub(super) fn restart(&mut self, server: usize, state: RestartState) {
        self.fleet.world.inject(Disturbance::Restart { node: self.fleet.servers[server], state });
    }

    pub(super) fn remove_path(&mut self, server: usize) {
        let path = self.paths[&server];
        let mut session = self.fleet.world.session_mut(self.fleet.servers[0], self.ends.primary).expect("a session");
        // One that is dead already is no path.
        drop(session.remove_path(path));
    }

    /// Adds a path to a server again, if there is none, and gives it to the distributions.
    pub(super) fn add_path(&mut self, server: usize) {
        let (now, target) = (self.fleet.world.now(), self.fleet.target(server));
        let mut session = self.fleet.world.session_mut(self.fleet.servers[0], self.ends.primary).expect("a session");
        if session.path(self.paths[&server]).is_some_and(|path| !path.state.is_dead()) {
            return;
        }
        let Ok(path) = session.add_path(now, target) else { return };
        self.paths.insert(server, path);
        self.distributors.iter_mut().for_each(|distributor| distributor.add_source(now, path));
    }

    // ---- the secondaries

    fn serve(&mut self) {
        for (server, node) in self.fleet.servers.iter().enumerate().skip(1) {
            if self.fleet.world.is_crashed(*node) {
                continue;
            }
            for handle in self.fleet.world.sessions(*node) {
                let Some(mut session) = self.fleet.world.session_mut(*node, handle) else { continue };
                while let Some(stream) = session.accept_stream(Dir::Bi) {
                    let range = session.stream(stream).grant().map_or(0..0, |grant| grant.range);
                    self.parts.push(Part { server, session: handle, stream, next: range.start, range });
                }
            }
        }
        self.parts.sort_by_key(|part| part.next);
        let (fleet, conducts) = (&mut self.fleet, &self.conducts);
        self.parts.retain_mut(|part| {
            let node = fleet.servers[part.server];
            if fleet.world.is_crashed(node) {
                return true;
            }
            let Some(mut session) = fleet.world.session_mut(node, part.session) else { return false };
            let mut stream = session.stream_mut(part.stream);
            let len = part.range.end - part.range.start;
            let (most, end) = match conducts.get(&part.server).copied().unwrap_or(Conduct::Honest) {
                Conduct::Honest => (len, part.range.end),
                Conduct::Mute => (0, part.range.end),
                Conduct::Trickle => (1, part.range.end),
                Conduct::Refuse => (0, part.next),
                Conduct::Half => (len, part.range.start + len / 2),
            };
            let (mut left, mut is_stopped) = (most.min(end.saturating_sub(part.next)), false);
            while left > 0 {
                match stream.write_chunk(pattern(part.next..part.next + left.min(PIECE_BYTES))) {
                    Ok(taken) => (part.next, left) = (part.next + taken as u64, left - taken as u64),
                    Err(WriteError::Blocked) => return true,
                    Err(_) => (left, is_stopped) = (0, true),
                }
            }
            if part.next < end && !is_stopped {
                return true;
            }
            let _ = stream.finish();
            stream.release_recv();
            stream.release_send();
            false
        });
    }

    // ---- the client

    fn read(&mut self) {
        if self.is_paused {
            return;
        }
        let Some(mut session) = self.fleet.world.session_mut(self.fleet.client, self.ends.client) else { return };
        loop {
            let mut stream = session.stream_mut(self.here);
            let chunk = if self.is_ordered { stream.read(usize::MAX) } else { stream.read_unordered(usize::MAX) };
            match chunk {
                Ok(chunk) => {
                    let start = usize::try_from(chunk.offset.0).expect("few bytes");
                    let range = start..start + chunk.data.len();
                    assert_eq!(chunk.data, pattern(chunk.offset.0..range.end as u64), "wrong bytes");
                    for is_read in &mut self.read[range] {
                        assert!(!std::mem::replace(is_read, true), "a byte for the second time");
                        self.read_bytes += 1;
                    }
                }
                Err(ReadError::Finished) => {
                    assert_eq!(self.read_bytes, self.read.len(), "bytes are missing");
                    self.is_ended = true;
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Which servers were crashed, so that they can run again.
    pub(super) fn crashed(&self) -> BTreeSet<usize> {
        let servers = self.fleet.servers.iter().enumerate();
        servers.filter(|(_, node)| self.fleet.world.is_crashed(**node)).map(|(server, _)| server).collect()
    }
}

fn push(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    if !range.is_empty() {
        ranges.push(range);
    }
}
