//! Random operations on a client, a primary and two secondaries that exchange what their tables say. Whatever happens,
//! every sum holds after each step, every byte read is the one written there, and in the end nothing is left.

use super::*;
use crate::error::{ErrorCode, TransportCode};
use crate::id::GrantId;
use crate::stream::Segment;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

const CLIENT: usize = 0;
const PRIMARY: usize = 1;
const SECONDARIES: Range<usize> = 2..4;
const ENDS: usize = 4;

#[derive(Debug, Clone)]
enum Op {
    Open {
        end: usize,
        dir: Dir,
    },
    Write {
        end: usize,
        pick: usize,
        len: u64,
    },
    /// Leaves a hole of `gap` bytes after the cursor and writes behind it.
    WriteAt {
        pick: usize,
        gap: u64,
        len: u64,
    },
    Delegate {
        pick: usize,
        len: u64,
        to: usize,
    },
    Read {
        end: usize,
        pick: usize,
        max: usize,
        ordered: bool,
    },
    Finish {
        end: usize,
        pick: usize,
    },
    Reset {
        end: usize,
        pick: usize,
    },
    Stop {
        end: usize,
        pick: usize,
    },
    Release {
        end: usize,
        pick: usize,
        send: bool,
    },
    /// Hands out one segment, and lets the peer have the `late`-th of those under way.
    Data {
        end: usize,
        max: usize,
        late: usize,
    },
    Control {
        end: usize,
    },
    Revoke {
        pick: usize,
    },
    /// A secondary dies with all that is under way from it.
    Die {
        end: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let pick = 0..8usize;
    let dir = || prop_oneof![Just(Dir::Bi), Just(Dir::Uni)];
    prop_oneof![
        3 => (0..2usize, dir()).prop_map(|(end, dir)| Op::Open { end, dir }),
        8 => (0..ENDS, pick.clone(), 1..12_000u64).prop_map(|(end, pick, len)| Op::Write { end, pick, len }),
        2 => (pick.clone(), 1..3000u64, 1..3000u64).prop_map(|(pick, gap, len)| Op::WriteAt { pick, gap, len }),
        4 => (pick.clone(), 1..9000u64, SECONDARIES).prop_map(|(pick, len, to)| Op::Delegate { pick, len, to }),
        6 => (0..2usize, pick.clone(), 1..20_000usize, prop::bool::weighted(0.9))
            .prop_map(|(end, pick, max, ordered)| Op::Read { end, pick, max, ordered }),
        3 => (0..ENDS, pick.clone()).prop_map(|(end, pick)| Op::Finish { end, pick }),
        1 => (0..ENDS, pick.clone()).prop_map(|(end, pick)| Op::Reset { end, pick }),
        1 => (0..2usize, pick.clone()).prop_map(|(end, pick)| Op::Stop { end, pick }),
        1 => (0..2usize, pick.clone(), any::<bool>()).prop_map(|(end, pick, send)| Op::Release { end, pick, send }),
        12 => (0..ENDS, 1..6000usize, 0..4usize).prop_map(|(end, max, late)| Op::Data { end, max, late }),
        12 => (0..ENDS).prop_map(|end| Op::Control { end }),
        1 => pick.prop_map(|pick| Op::Revoke { pick }),
        1 => SECONDARIES.prop_map(|end| Op::Die { end }),
    ]
}

/// One table, and what it sent that has not arrived.
struct End {
    table: StreamTable,
    handles: Vec<StreamHandle>,
    data: VecDeque<(StreamHandle, StreamId, Segment)>,
    control: VecDeque<StreamControl>,
}

struct Grant {
    id: StreamId,
    range: Range<u64>,
    to: usize,
}

struct World {
    ends: Vec<End>,
    grants: BTreeMap<GrantId, Grant>,
    next_grant: u64,
    /// Bytes read, by receiving end and stream.
    read: BTreeMap<(usize, StreamId), u64>,
}

impl World {
    fn new() -> Self {
        let tables = [client(), primary(), secondary(), secondary()];
        let end = |table| End { table, handles: Vec::new(), data: VecDeque::new(), control: VecDeque::new() };
        let ends = tables.map(end).into_iter().collect();
        Self { ends, grants: BTreeMap::new(), next_grant: 0, read: BTreeMap::new() }
    }

    fn table(&mut self, end: usize) -> &mut StreamTable {
        &mut self.ends[end].table
    }

    fn pick(&self, end: usize, pick: usize) -> Option<StreamHandle> {
        let handles = &self.ends[end].handles;
        (!handles.is_empty()).then(|| handles[pick % handles.len()])
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Open { end, dir } => {
                if let Ok(handle) = self.table(end).open(dir, 0) {
                    self.ends[end].handles.push(handle);
                }
            }
            Op::Write { end, pick, len } => self.on_picked(end, pick, |world, h| world.write(end, h, len)),
            Op::WriteAt { pick, gap, len } => self.on_picked(PRIMARY, pick, |world, h| {
                let Some(info) = world.table(PRIMARY).send_info(h) else { return };
                world.write_at(h, info.cursor + gap..info.cursor + gap + len);
            }),
            Op::Delegate { pick, len, to } => self.on_picked(PRIMARY, pick, |world, h| {
                if let Ok(range) = world.table(PRIMARY).reserve(h, len) {
                    world.grant(h, range, to);
                }
            }),
            Op::Read { end, pick, max, ordered } => self.on_picked(end, pick, |world, h| {
                let _ = world.read(end, h, max, ordered);
            }),
            Op::Finish { end, pick } => self.on_picked(end, pick, |world, h| {
                let _ = world.table(end).finish(h);
            }),
            Op::Reset { end, pick } => self.on_picked(end, pick, |world, h| {
                let _ = world.table(end).reset(h, ErrorCode::Application(1));
            }),
            Op::Stop { end, pick } => self.on_picked(end, pick, |world, h| {
                let _ = world.table(end).stop(h, ErrorCode::Application(2));
            }),
            Op::Release { end, pick, send: true } => {
                self.on_picked(end, pick, |world, h| world.table(end).release_send(h));
            }
            Op::Release { end, pick, send: false } => {
                self.on_picked(end, pick, |world, h| world.table(end).release_recv(h));
            }
            Op::Data { end, max, late } => {
                self.pack(end, max);
                self.deliver_data(end, late);
            }
            Op::Control { end } => {
                self.deliver_control(end);
            }
            Op::Revoke { pick } => self.revoke(pick),
            Op::Die { end } => self.die(end),
        }
        self.settle();
        for end in 0..ENDS {
            self.accept(end);
            self.table(end).assert_ledger();
        }
    }

    fn on_picked(&mut self, end: usize, pick: usize, act: impl FnOnce(&mut Self, StreamHandle)) {
        if let Some(handle) = self.pick(end, pick) {
            act(self, handle);
        }
    }

    /// Bytes that flow from the servers differ from those that flow to them.
    fn seed(sender: usize, id: StreamId) -> u64 {
        id.0 * 2 + u64::from(sender != CLIENT)
    }

    fn write(&mut self, end: usize, handle: StreamHandle, len: u64) {
        let Some(info) = self.table(end).send_info(handle) else { return };
        let id = self.table(end).stream_id(handle).unwrap();
        let data = bytes(Self::seed(end, id), info.cursor..info.cursor + len);
        // The two ways to write take turns.
        if len.is_multiple_of(2) {
            let _ = self.table(end).write(handle, &data);
        } else {
            let _ = self.table(end).write_chunk(handle, data);
        }
    }

    fn write_at(&mut self, handle: StreamHandle, range: Range<u64>) {
        let id = self.table(PRIMARY).stream_id(handle).unwrap();
        let data = bytes(Self::seed(PRIMARY, id), range.clone());
        let _ = self.table(PRIMARY).write_at(handle, range.start, data);
    }

    fn read(&mut self, end: usize, handle: StreamHandle, max: usize, ordered: bool) -> Result<(), ReadError> {
        let chunk = self.table(end).read(handle, max, ordered)?;
        let id = self.table(end).stream_id(handle).unwrap();
        let stop = chunk.offset.0 + chunk.data.len() as u64;
        assert_eq!(chunk.data, bytes(Self::seed(1 - end, id), chunk.offset.0..stop), "{id} at {}", chunk.offset);
        *self.read.entry((end, id)).or_default() += chunk.data.len() as u64;
        Ok(())
    }

    fn grant(&mut self, handle: StreamHandle, range: Range<u64>, to: usize) {
        let id = self.table(PRIMARY).stream_id(handle).unwrap();
        let grant = GrantId(self.next_grant);
        self.next_grant += 1;
        self.grants.insert(grant, Grant { id, range: range.clone(), to });
        // A client that no longer wants the stream grants nothing; what is lost is settled below.
        if let Ok(Some(limit)) = self.table(CLIENT).receive_limit(id) {
            self.table(to).open_part(grant, id, range, limit, Bytes::new()).unwrap();
        }
    }

    fn accept(&mut self, end: usize) {
        for dir in Dir::ALL {
            while let Some(handle) = self.table(end).accept(dir) {
                self.ends[end].handles.push(handle);
            }
        }
    }

    fn pack(&mut self, end: usize, max: usize) -> bool {
        let Some(handle) = self.table(end).pop_sendable() else { return false };
        let table = self.table(end);
        let (id, segment) = (table.stream_id(handle).unwrap(), table.segment(handle, max).unwrap());
        table.on_segment_packed(handle);
        table.push_sendable(handle);
        self.ends[end].data.push_back((handle, id, segment));
        true
    }

    fn deliver_data(&mut self, from: usize, late: usize) -> bool {
        let under_way = self.ends[from].data.len();
        let Some((handle, id, segment)) = self.ends[from].data.remove(late.min(under_way.saturating_sub(1))) else {
            return false;
        };
        let (to, path) = match from {
            CLIENT => (PRIMARY, PathId::PRIMARY),
            _ => (CLIENT, PathId(u32::try_from(from - 1).unwrap())),
        };
        let end = segment.offset + segment.data.len() as u64;
        let outcome = self.table(to).on_data(path, id, segment.offset, segment.data, end, segment.fin).unwrap();
        assert_eq!(outcome.conflict, None);
        self.table(from).on_packet_acked(handle);
        true
    }

    fn deliver_control(&mut self, from: usize) -> bool {
        while let Some(control) = self.table(from).poll_control() {
            self.ends[from].control.push_back(control);
        }
        let Some(control) = self.ends[from].control.pop_front() else { return false };
        let to = if from == CLIENT { PRIMARY..ENDS } else { CLIENT..CLIENT + 1 };
        match control {
            StreamControl::Open { id, priority, limit } => {
                self.table(to.start).on_open(id, priority, limit).unwrap();
            }
            StreamControl::Reset { id, code, final_size } => {
                self.table(to.start).on_reset(id, code, final_size).unwrap();
                if from == PRIMARY {
                    // The client stops the other writers.
                    SECONDARIES
                        .for_each(|to| assert!(self.table(to).on_stop(id, TransportCode::STREAM_GONE.into()).is_ok()));
                }
            }
            StreamControl::MaxStreams { dir, max } => assert!(self.table(to.start).on_max_streams(dir, max).is_ok()),
            StreamControl::Stop { id, code, .. } => to.for_each(|to| assert!(self.table(to).on_stop(id, code).is_ok())),
            StreamControl::MaxStreamData { id, limit } => {
                to.for_each(|to| assert!(self.table(to).on_max_stream_data(id, limit).is_ok()));
            }
            StreamControl::PartEnd { grant, .. } => {
                // The path is not reordered against itself here: what was sent before has arrived first.
                while self.deliver_data(from, 0) {}
                self.settle();
                self.lose(grant);
            }
        }
        true
    }

    /// Tells the primary which grants are complete, or can never be.
    fn settle(&mut self) {
        for grant in self.grants.keys().copied().collect::<Vec<_>>() {
            let Grant { id, range, .. } = &self.grants[&grant];
            let (id, range) = (*id, range.clone());
            if self.table(CLIENT).gaps(id, range.clone()).is_empty() {
                self.table(PRIMARY).delivered(id, range);
                self.grants.remove(&grant);
            } else if self.table(CLIENT).receive_limit(id) == Ok(None) {
                self.lose(grant);
            }
        }
    }

    /// Reopens what is missing of a grant.
    fn lose(&mut self, grant: GrantId) {
        let Some(Grant { id, range, .. }) = self.grants.remove(&grant) else { return };
        let missing = self.table(CLIENT).gaps(id, range.clone());
        self.table(PRIMARY).unreserve(id, &missing);
        let ends = missing.iter().map(|part| part.start).chain([range.end]);
        let starts = [range.start].into_iter().chain(missing.iter().map(|part| part.end));
        starts.zip(ends).for_each(|(start, end)| self.table(PRIMARY).delivered(id, start..end));
    }

    fn revoke(&mut self, pick: usize) {
        let Some(grant) = self.grants.keys().nth(pick).copied() else { return };
        let (to, id, range) = (self.grants[&grant].to, self.grants[&grant].id, self.grants[&grant].range.clone());
        self.table(to).revoke_part(grant);
        // The fence: what the grant still brings is dropped.
        self.ends[to].data.retain(|(_, other, segment)| *other != id || !range.contains(&segment.offset));
        self.lose(grant);
    }

    fn die(&mut self, end: usize) {
        self.ends[end] =
            End { table: secondary(), handles: Vec::new(), data: VecDeque::new(), control: VecDeque::new() };
        let lost: Vec<_> = self.grants.iter().filter(|(_, grant)| grant.to == end).map(|(id, _)| *id).collect();
        lost.into_iter().for_each(|grant| self.lose(grant));
    }

    /// Applications that do what they should: fill, finish, read and let go, until all is quiet.
    fn heal(&mut self) {
        for _ in 0..400 {
            for end in 0..ENDS {
                self.accept(end);
                while self.deliver_control(end) {}
                while self.pack(end, 4000) {}
                while self.deliver_data(end, 1) {}
            }
            self.settle();
            for end in 0..ENDS {
                for handle in self.ends[end].handles.clone() {
                    self.complete(end, handle);
                }
                self.table(end).assert_ledger();
            }
            if self.ends.iter().all(|end| end.table.open_streams() == 0 && end.control.is_empty()) {
                return;
            }
        }
        panic!("not quiet: {:#?}", self.ends.iter().map(|end| &end.table).collect::<Vec<_>>());
    }

    fn complete(&mut self, end: usize, handle: StreamHandle) {
        if let Some(info) = self.table(end).send_info(handle) {
            match self.table(end).grant(handle) {
                Some((_, range)) if info.cursor < range.end => self.write(end, handle, range.end - info.cursor),
                Some(_) => {
                    let _ = self.table(end).finish(handle);
                }
                None => {
                    info.holes.into_iter().for_each(|hole| self.write_at(handle, hole));
                    let _ = self.table(end).finish(handle);
                }
            }
            let info = self.table(end).send_info(handle);
            if info.is_some_and(|info| info.holes.is_empty() && info.final_size.is_some() && info.buffered_bytes == 0) {
                let granted = self.table(end).grant(handle).is_some();
                let pending =
                    self.table(end).stream_id(handle).is_some_and(|id| self.grants.values().any(|g| g.id == id));
                if granted || !pending {
                    self.table(end).release_send(handle);
                }
            } else if self.table(end).finish(handle).is_err() {
                self.table(end).release_send(handle);
            }
        }
        let mut ordered = true;
        loop {
            match if SECONDARIES.contains(&end) {
                self.table(end).read(handle, 100, true).map(|_| ())
            } else {
                self.read(end, handle, 5000, ordered)
            } {
                Ok(()) => {}
                Err(ReadError::IllegalOrderedRead) if ordered => ordered = false,
                Err(ReadError::Blocked) => return,
                Err(error) => {
                    self.check_end(end, handle, error);
                    return self.table(end).release_recv(handle);
                }
            }
        }
    }

    fn check_end(&mut self, end: usize, handle: StreamHandle, error: ReadError) {
        let Some(info) = self.table(end).recv_info(handle) else { return };
        if error == ReadError::Finished && !SECONDARIES.contains(&end) {
            let id = self.table(end).stream_id(handle).unwrap();
            let read = self.read.get(&(end, id)).copied().unwrap_or(0);
            assert_eq!(Some(read), info.final_size, "everything written to {id} is read");
        }
        let lost = ReadError::Reset(TransportCode::RANGE_CONFLICT.into());
        assert_ne!(error, lost);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn everything_written_is_read_and_nothing_is_left(ops in prop::collection::vec(op(), 1..220)) {
        let mut world = World::new();
        ops.into_iter().for_each(|op| world.apply(op));
        world.heal();
    }
}
