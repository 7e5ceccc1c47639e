//! The reference model: a second oracle beside the checks of the simulator, written apart from them and from the core, since
//! what two agree on is right. It says what every stream must contain: who wrote or may write which bytes, where a stream ends, and
//! how far it was read. Every byte follows from its stream, its side and its offset, so that a byte in the wrong place
//! names the place it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use kwik_core::{Chunk, DelegateError, ErrorCode, PathId, ReadError, Side, StreamId, TransportCode, WriteError};
use kwik_sim::content::bytes_at;

/// One direction of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamHalf {
    pub(crate) stream: StreamId,
    /// The side whose bytes these are.
    pub(crate) writer: Side,
}

impl StreamHalf {
    pub(crate) fn bytes(self, range: Range<u64>) -> Bytes {
        bytes_at(self.stream.0 * 2 + u64::from(self.writer == Side::Server) + 1, range)
    }
}

/// How reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HalfEnd {
    Finished,
    Reset(ErrorCode),
}

/// What is known of one flow.
#[derive(Debug, Default)]
pub(crate) struct HalfRecord {
    /// Who ever had leave to write what.
    pub(crate) leave: BTreeMap<PathId, Spans>,
    /// What was written or is left to somebody now.
    pub(crate) covered: Spans,
    pub(crate) cursor: u64,
    pub(crate) size: Option<u64>,
    pub(crate) reset: Option<u32>,
    /// The writing application let go.
    pub(crate) abandoned: bool,
    /// The code with which the reading application gave up.
    pub(crate) stop: Option<u32>,
    read: Spans,
    pub(crate) read_unordered: bool,
    pub(crate) read_end: Option<HalfEnd>,
}

/// Every flow of the session.
#[derive(Debug, Default)]
pub(crate) struct StreamModel {
    flows: BTreeMap<StreamHalf, HalfRecord>,
    /// Paths whose server writes what it likes.
    byzantines: BTreeSet<PathId>,
}

impl StreamModel {
    pub(crate) fn distrust(&mut self, path: PathId) {
        self.byzantines.insert(path);
    }

    pub(crate) fn is_byzantine(&self, path: PathId) -> bool {
        self.byzantines.contains(&path)
    }

    pub(crate) fn begins(&mut self, half: StreamHalf) {
        assert!(self.flows.insert(half, HalfRecord::default()).is_none(), "{half:?} began twice");
    }

    pub(crate) fn record(&mut self, half: StreamHalf) -> &mut HalfRecord {
        self.flows.get_mut(&half).unwrap_or_else(|| panic!("{half:?} never began"))
    }

    // ---- writing

    /// Judges what a write of `len` bytes at the cursor or at `at` came to, and takes note of it.
    pub(crate) fn wrote(
        &mut self,
        half: StreamHalf,
        at: Option<u64>,
        len: u64,
        result: Result<usize, WriteError>,
        over: bool,
    ) {
        let may_stop = |code| self.may_stop(half, code);
        if let Err(WriteError::Stopped(code)) = result {
            assert!(may_stop(code), "the writer of {half:?} was stopped with {code}");
            return;
        }
        let record = self.record(half);
        let start = at.unwrap_or(record.cursor);
        let range = start..start + len;
        match result {
            Ok(0) if len == 0 => {}
            Ok(taken) => {
                let taken = taken as u64;
                assert!(taken > 0 && taken <= len && !over, "{taken} of {len} bytes of {half:?} were taken");
                assert!(record.reset.is_none(), "{half:?} was written after its reset");
                assert!(
                    record.size.is_none_or(|size| at.is_some() && range.end <= size),
                    "{half:?} grew after its end"
                );
                assert!(!record.covered.overlaps(&range), "{range:?} of {half:?} was written twice");
                record.covers(PathId::PRIMARY, start..start + taken, at.is_none());
            }
            Err(WriteError::Blocked) => assert!(len > 0 && record.size.is_none_or(|_| at.is_some()) && !over),
            Err(WriteError::Finished) => assert!(record.size.is_some(), "{half:?} is not finished"),
            Err(WriteError::Reset) => assert!(record.reset.is_some(), "{half:?} was not reset"),
            Err(WriteError::Overlap { start, end }) => {
                let notified = start..end;
                assert!(
                    record.covered.covers(&notified) && notified.start < range.end && range.start < notified.end,
                    "{notified:?}"
                );
            }
            Err(WriteError::SessionClosed) => assert!(over, "the session is open"),
            error => panic!("writing {range:?} of {half:?}: {error:?}"),
        }
    }

    /// Judges a refused delegation of `range`.
    pub(crate) fn refused(&mut self, half: StreamHalf, range: &Range<u64>, error: &DelegateError) {
        if let DelegateError::Stopped(code) = error {
            assert!(self.may_stop(half, *code), "the writer of {half:?} was stopped with {code}");
            return;
        }
        let record = self.record(half);
        let is_right = match error {
            DelegateError::Overlap { start, end } => {
                record.covered.covers(&(*start..*end)) && record.covered.overlaps(range)
            }
            DelegateError::EmptyRange => range.is_empty(),
            DelegateError::Finished => record.size.is_some(),
            DelegateError::ClosedStream => record.reset.is_some(),
            _ => false,
        };
        assert!(is_right, "{range:?} of {half:?} was not delegated: {error}");
    }

    /// The owner of a flow left a range to a path.
    pub(crate) fn delegated(&mut self, half: StreamHalf, path: PathId, range: Range<u64>, at_cursor: bool) {
        let record = self.record(half);
        assert!(record.reset.is_none(), "{half:?} was delegated after its reset");
        assert!(record.size.is_none_or(|size| !at_cursor && range.end <= size), "{half:?} grew after its end");
        assert!(!record.covered.overlaps(&range), "{range:?} of {half:?} was delegated twice");
        assert!(!at_cursor || record.cursor == range.start, "{range:?} of {half:?} is not at {}", record.cursor);
        record.covers(path, range, at_cursor);
    }

    /// Whether the writer of a flow may be notified of such a code.
    pub(crate) fn may_stop(&self, half: StreamHalf, code: ErrorCode) -> bool {
        let record = &self.flows[&half];
        record.stop.map(ErrorCode::Application) == Some(code) || self.may_be_spoilt(record, code)
    }

    /// A byzantine server that may write into a stream can end it.
    fn may_be_spoilt(&self, record: &HalfRecord, code: ErrorCode) -> bool {
        let ends = [TransportCode::RANGE_CONFLICT, TransportCode::REASSEMBLY_LIMIT].map(ErrorCode::from);
        ends.contains(&code) && record.leave.keys().any(|path| self.is_byzantine(*path))
    }

    // ---- reading

    pub(crate) fn read(&mut self, half: StreamHalf, chunk: &Chunk, ordered: bool) {
        let range = chunk.offset.0..chunk.offset.0 + chunk.data.len() as u64;
        // Bytes that several brought may hold those of a byzantine server.
        let is_byzantine = chunk.source.is_none_or(|source| self.is_byzantine(source));
        let record = self.record(half);
        assert!(!range.is_empty() && record.read_end.is_none() && record.stop.is_none(), "{half:?} brought {range:?}");
        assert!(!ordered || range.start == record.read.total(), "{range:?} of {half:?} is not next: {:?}", record.read);
        assert!(!record.read.overlaps(&range), "{range:?} of {half:?} was read twice");
        if let Some(source) = chunk.source {
            let leave = record.leave.get(&source);
            assert!(
                leave.is_some_and(|leave| leave.covers(&range)),
                "{source} had no leave to write {range:?} of {half:?}"
            );
        }
        assert!(record.size.is_none_or(|size| range.end <= size), "{half:?} goes on at {range:?}, beyond its end");
        record.read.insert(range.clone());
        if !is_byzantine && half.bytes(range.clone()) != chunk.data {
            let found = self.place_of(&chunk.data);
            let source = chunk.source;
            panic!("{range:?} of {half:?}, from {source:?}, holds other bytes than were written: {found}");
        }
    }

    /// Judges why a read brought nothing. `over` says whether the session ended.
    pub(crate) fn read_ended(&mut self, half: StreamHalf, error: ReadError, over: bool) {
        let spoilt = matches!(error, ReadError::Reset(code) if self.may_be_spoilt(&self.flows[&half], code));
        let record = self.record(half);
        match error {
            ReadError::Blocked => assert!(!over, "nothing more can come"),
            ReadError::Finished => {
                let (read, size) = (record.read.total(), record.size);
                assert_eq!(Some(read), size, "{half:?} ended after {read} bytes");
                record.read_end = Some(HalfEnd::Finished);
            }
            ReadError::Reset(code) => {
                let of_writer = record.reset.map(ErrorCode::Application) == Some(code);
                let abandoned = record.abandoned && code == TransportCode::SOURCE_LOST.into();
                assert!(of_writer || abandoned || spoilt, "{half:?} was reset with {code}: {record:?}");
                record.read_end = Some(HalfEnd::Reset(code));
            }
            ReadError::ClosedStream => assert!(record.stop.is_some(), "{half:?} is closed for its reader"),
            ReadError::IllegalOrderedRead => assert!(record.read_unordered, "{half:?} was read in order only"),
            ReadError::SessionClosed => assert!(over, "the session is open"),
        }
    }

    /// Whether nothing more is to be read.
    pub(crate) fn is_read(&mut self, half: StreamHalf) -> bool {
        let record = self.record(half);
        record.read_end.is_some() || record.stop.is_some()
    }

    /// The flow and offset where some bytes belong, if they do anywhere.
    fn place_of(&self, data: &[u8]) -> String {
        let sample = &data[..data.len().min(16)];
        let places = self.flows.iter().flat_map(|(half, record)| {
            let all = half.bytes(0..record.covered.end());
            let found = all.windows(sample.len()).position(|window| window == sample);
            found.map(|at| format!("the first {} belong at {at} of {half:?}", sample.len()))
        });
        places.collect::<Vec<_>>().join("; ")
    }
}

impl HalfRecord {
    fn covers(&mut self, path: PathId, range: Range<u64>, at_cursor: bool) {
        self.leave.entry(path).or_default().insert(range.clone());
        self.covered.insert(range.clone());
        if at_cursor {
            self.cursor = range.end;
        }
    }

    /// Where the stream would end now: after all that was ever written or delegated, lost or not.
    pub(crate) fn end(&self) -> u64 {
        let furthest = self.leave.values().map(Spans::end).max();
        self.size.unwrap_or_else(|| furthest.unwrap_or(0).max(self.cursor))
    }

    /// The first offset that nobody is to write.
    pub(crate) fn first_gap(&self) -> Range<u64> {
        self.covered.gaps(0..self.end()).into_iter().next().unwrap_or_else(|| self.end()..u64::MAX)
    }
}

/// Disjoint ranges in order, kept the plain way.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Spans(Vec<Range<u64>>);

impl Spans {
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let mut joined = range;
        self.0.retain(|span| {
            let apart = span.end < joined.start || joined.end < span.start;
            if !apart {
                joined = joined.start.min(span.start)..joined.end.max(span.end);
            }
            apart
        });
        let at = self.0.partition_point(|span| span.start < joined.start);
        self.0.insert(at, joined);
    }

    pub(crate) fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        let rest = |span: &Range<u64>| [span.start..span.end.min(range.start), span.start.max(range.end)..span.end];
        self.0 = self.0.iter().flat_map(rest).filter(|span| !span.is_empty()).collect();
    }

    pub(crate) fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.0.iter().any(|span| span.start <= range.start && range.end <= span.end)
    }

    pub(crate) fn overlaps(&self, range: &Range<u64>) -> bool {
        !range.is_empty() && self.0.iter().any(|span| span.start < range.end && range.start < span.end)
    }

    pub(crate) fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Self(vec![range]);
        self.0.iter().for_each(|span| gaps.remove(span));
        gaps.0.into_iter().filter(|gap| !gap.is_empty()).collect()
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|span| span.end - span.start).sum()
    }

    pub(crate) fn end(&self) -> u64 {
        self.0.last().map_or(0, |span| span.end)
    }
}
