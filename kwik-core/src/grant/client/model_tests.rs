//! The book against a list of all that ever happened.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const GONE: ErrorCode = ErrorCode::Application(7);
const REVOKED: ErrorCode = ErrorCode::Transport(TransportCode::REVOKED);
/// The model counts in units of this many bytes, so that few units make progress.
const UNIT: u64 = GRANT_PROGRESS_BYTES / 4;
const UNITS: u64 = 24;

#[derive(Debug, Clone)]
enum Operation {
    Record { path: u32, stream: u64, range: Range<u64> },
    Repeat { index: usize },
    Arrive { stream: u64, range: Range<u64> },
    Revoke { index: usize },
    End { index: usize, at: u64 },
    LosePath { path: u32 },
    StreamGone { stream: u64 },
    ForgetStream { stream: u64 },
    ForgetBelow { stream: u64, below: u64 },
    Check { path: u32, stream: u64, range: Range<u64> },
    Poll,
}

fn operation() -> impl Strategy<Value = Operation> {
    let range = || (0..UNITS, 1..10u64).prop_map(|(start, len)| start..(start + len).min(UNITS));
    let (path, stream, index) = (|| 0..3u32, || 0..2u64, || any::<usize>());
    prop_oneof![
        6 => (path(), stream(), range()).prop_map(|(path, stream, range)| Operation::Record { path, stream, range }),
        1 => index().prop_map(|index| Operation::Repeat { index }),
        6 => (stream(), range()).prop_map(|(stream, range)| Operation::Arrive { stream, range }),
        3 => index().prop_map(|index| Operation::Revoke { index }),
        2 => (index(), 0..10u64).prop_map(|(index, at)| Operation::End { index, at }),
        1 => path().prop_map(|path| Operation::LosePath { path }),
        1 => stream().prop_map(|stream| Operation::StreamGone { stream }),
        1 => stream().prop_map(|stream| Operation::ForgetStream { stream }),
        1 => (stream(), 0..UNITS).prop_map(|(stream, below)| Operation::ForgetBelow { stream, below }),
        8 => (path(), stream(), range()).prop_map(|(path, stream, range)| Operation::Check { path, stream, range }),
        2 => Just(Operation::Poll),
    ]
}

/// The history of one grant, in units and in steps of the test.
#[derive(Debug)]
struct Past {
    grant: Grant,
    range: Range<u64>,
    /// It was revoked, or given back in part.
    fenced: Option<usize>,
    settled: Option<usize>,
    report: Option<GrantStatus>,
    ended: Option<u64>,
    reported: u64,
    /// The path or the stream is gone, and with it what the path might write.
    is_void: bool,
}

/// The book as a list of all that ever happened, judged anew for every question.
#[derive(Default)]
struct Model {
    step: usize,
    arrived: BTreeSet<(StreamId, u64)>,
    history: Vec<Past>,
    floors: BTreeMap<(StreamId, PathId), u64>,
    fence_units_left: BTreeMap<(StreamId, PathId), u64>,
    /// What each may still send of its grants.
    units_left: BTreeMap<(StreamId, PathId), u64>,
}

impl Model {
    fn missing(&self, stream: StreamId, range: Range<u64>) -> Vec<Range<u64>> {
        let mut missing: Vec<Range<u64>> = Vec::new();
        for unit in range.filter(|unit| !self.arrived.contains(&(stream, *unit))) {
            let bytes = unit * UNIT..(unit + 1) * UNIT;
            match missing.last_mut() {
                Some(last) if last.end == bytes.start => last.end = bytes.end,
                _ => missing.push(bytes),
            }
        }
        missing
    }

    fn open(&self, id: GrantId) -> Option<&Past> {
        self.history.iter().find(|past| past.grant.id == id && past.settled.is_none())
    }

    fn settle(&mut self, wanted: impl Fn(&Past) -> bool, code: ErrorCode) {
        for index in 0..self.history.len() {
            let past = &self.history[index];
            if past.settled.is_none() && wanted(past) {
                let missing = self.missing(past.grant.stream, past.range.clone());
                let past = &mut self.history[index];
                past.settled = Some(self.step);
                let is_lost = !missing.is_empty();
                past.report = Some(if is_lost { GrantStatus::Lost { code, missing } } else { GrantStatus::Delivered });
            }
        }
    }

    /// Settles what is complete or ended.
    fn settle_due(&mut self) {
        let due: Vec<GrantId> = self
            .history
            .iter()
            .filter(|past| {
                let end = past.ended.unwrap_or(past.range.end);
                self.missing(past.grant.stream, past.range.start..end).is_empty()
            })
            .map(|past| past.grant.id)
            .collect();
        self.settle(|past| due.contains(&past.grant.id), GONE);
        let step = self.step;
        let is_new = |past: &&mut Past| past.settled == Some(step) && due.contains(&past.grant.id);
        for past in self.history.iter_mut().filter(is_new) {
            if past.fenced.is_none() && matches!(past.report, Some(GrantStatus::Lost { .. })) {
                past.fenced = Some(step);
                let left = self.fence_units_left.entry((past.grant.stream, past.grant.path)).or_default();
                *left += past.range.end - past.range.start;
            }
        }
    }

    fn void(&mut self, wanted: impl Fn(StreamId, PathId) -> bool) {
        for past in self.history.iter_mut().filter(|past| wanted(past.grant.stream, past.grant.path)) {
            past.is_void = true;
        }
        self.floors.retain(|(stream, path), _| !wanted(*stream, *path));
        self.fence_units_left.retain(|(stream, path), _| !wanted(*stream, *path));
        self.units_left.retain(|(stream, path), _| !wanted(*stream, *path));
    }

    fn check(&mut self, path: PathId, stream: StreamId, range: Range<u64>) -> Access {
        let writer = (stream, path);
        let past: Vec<&Past> = self
            .history
            .iter()
            .filter(|past| (past.grant.stream, past.grant.path) == writer && !past.is_void)
            .collect();
        let units = range.start.max(self.floors.get(&writer).copied().unwrap_or(0))..range.end;
        if past.is_empty() {
            return Access::Violation;
        }
        let mut is_fenced = false;
        for unit in units {
            let covering: Vec<&&Past> = past.iter().filter(|past| past.range.contains(&unit)).collect();
            if covering.is_empty() {
                return Access::Violation;
            }
            // A revoked or ended grant fences the unit, unless another that covers it was open at that time or came later.
            is_fenced |= covering
                .iter()
                .filter_map(|past| past.fenced)
                .any(|fenced| covering.iter().all(|other| other.settled.is_some_and(|settled| settled <= fenced)));
        }
        let len = range.end - range.start;
        let (left, fence_left) =
            (self.units_left.entry(writer).or_default(), self.fence_units_left.entry(writer).or_default());
        match (left.checked_sub(len), fence_left.checked_sub(len)) {
            (None, _) => Access::Excess,
            (Some(_), None) if is_fenced => Access::Violation,
            (Some(rest), fence_rest) => {
                *left = rest;
                *fence_left = fence_rest.filter(|_| is_fenced).unwrap_or(*fence_left);
                if is_fenced { Access::Fenced } else { Access::Allowed }
            }
        }
    }

    fn reports(&mut self) -> BTreeMap<GrantId, GrantStatus> {
        let mut reports = BTreeMap::new();
        for index in 0..self.history.len() {
            let past = &self.history[index];
            let missing: u64 =
                self.missing(past.grant.stream, past.range.clone()).iter().map(|r| r.end - r.start).sum();
            let delivered = (past.range.end - past.range.start) * UNIT - missing;
            let past = &mut self.history[index];
            if let Some(report) = past.report.take() {
                reports.insert(past.grant.id, report);
            } else if past.settled.is_none() && delivered >= past.reported + GRANT_PROGRESS_BYTES {
                past.reported = delivered;
                reports.insert(past.grant.id, GrantStatus::Progress { delivered });
            }
        }
        reports
    }
}

fn bytes(units: &Range<u64>) -> Range<u64> {
    units.start * UNIT..units.end * UNIT
}

/// Does one operation to both, and compares what they answer.
fn step(book: &mut GrantTable, model: &mut Model, operation: Operation) -> Result<(), TestCaseError> {
    // One index too many: the id of no grant.
    let place = |index: usize| index % (model.history.len() + 1);
    match operation {
        Operation::Record { path, stream, range } => {
            let (id, stream) = (GrantId(model.history.len() as u64), StreamId(stream));
            let grant = Grant { id, epoch: Epoch(0), path: PathId(path), stream, range: bytes(&range) };
            if let Err(fault) = book.record(grant.clone(), &model.missing(stream, range.clone())) {
                let open = model.history.iter().filter(|past| past.grant.stream == stream && past.settled.is_none());
                let overlaps = open.filter(|past| past.range.start < range.end && range.start < past.range.end);
                prop_assert!(overlaps.count() > GRANT_OVERLAP_MAX, "{:?}", fault);
                return Ok(());
            }
            *model.units_left.entry((stream, PathId(path))).or_default() += range.end - range.start;
            let (fenced, settled, report, ended) = (None, None, None, None);
            model.history.push(Past { grant, range, fenced, settled, report, ended, reported: 0, is_void: false });
        }
        Operation::Repeat { index } => {
            if let Some(past) = model.open(GrantId(place(index) as u64)) {
                prop_assert_eq!(book.record(past.grant.clone(), &[]), Ok(()));
            }
        }
        Operation::Arrive { stream, range } => {
            let stream = StreamId(stream);
            book.on_new(stream, &model.missing(stream, range.clone()));
            model.arrived.extend(range.map(|unit| (stream, unit)));
        }
        Operation::Revoke { index } => {
            let index = place(index);
            let id = GrantId(index as u64);
            let revoked = book.revoke(id, Epoch(0));
            prop_assert_eq!(revoked.as_ref(), model.open(id).map(|past| &past.grant));
            if let Some(grant) = revoked {
                model.settle(|past| past.grant.id == id, REVOKED);
                let past = &mut model.history[index];
                past.fenced = Some(model.step);
                let left = model.fence_units_left.entry((grant.stream, grant.path)).or_default();
                *left += past.range.end - past.range.start;
            }
        }
        Operation::End { index, at } => {
            let index = place(index);
            let id = GrantId(index as u64);
            if let Some(past) = model.open(id) {
                let end = past.ended.unwrap_or_else(|| (past.range.start + at).min(past.range.end));
                prop_assert_eq!(book.on_end(id, past.grant.path, end * UNIT, GONE), Ok(()));
                model.history[index].ended = Some(end);
            }
        }
        Operation::LosePath { path } => {
            book.path_lost(PathId(path), GONE);
            model.settle(|past| past.grant.path == PathId(path), GONE);
            model.void(|_, lost| lost == PathId(path));
        }
        Operation::StreamGone { stream } => {
            book.stream_gone(StreamId(stream), GONE);
            model.settle(|past| past.grant.stream == StreamId(stream), GONE);
        }
        Operation::ForgetStream { stream } => {
            book.forget_stream(StreamId(stream));
            model.settle(|past| past.grant.stream == StreamId(stream), TransportCode::STREAM_GONE.into());
            model.void(|gone, _| gone == StreamId(stream));
        }
        Operation::ForgetBelow { stream, below } => {
            book.forget_below(StreamId(stream), below * UNIT);
            for past in model.history.iter().filter(|past| past.grant.stream == StreamId(stream) && !past.is_void) {
                let floor = model.floors.entry((past.grant.stream, past.grant.path)).or_default();
                *floor = below.max(*floor);
            }
        }
        Operation::Check { path, stream, range } => {
            let (path, stream) = (PathId(path), StreamId(stream));
            let access = book.check(path, stream, bytes(&range), (range.end - range.start) * UNIT);
            prop_assert_eq!(access, model.check(path, stream, range));
        }
        Operation::Poll => {
            let mut reports = BTreeMap::new();
            while let Some((id, report)) = book.poll_status() {
                prop_assert_eq!(reports.insert(id, report), None);
            }
            prop_assert_eq!(reports, model.reports());
        }
    }
    model.settle_due();
    Ok(())
}

fn assert_consistent(book: &GrantTable, model: &Model) -> Result<(), TestCaseError> {
    for stream in [StreamId(0), StreamId(1)] {
        let open = model.history.iter().filter(|past| past.grant.stream == stream && past.settled.is_none());
        let paths: BTreeSet<PathId> = open.map(|past| past.grant.path).collect();
        prop_assert_eq!(book.writers(stream).collect::<Vec<_>>(), paths.into_iter().collect::<Vec<_>>());
    }
    prop_assert_eq!(book.ranges_held, book.writers.values().map(Writer::ranges_held).sum::<usize>());
    let open = model.history.iter().filter(|past| past.settled.is_none()).count();
    prop_assert_eq!(book.open_by_path.values().sum::<usize>(), open);
    prop_assert_eq!(book.open.values().flat_map(IntervalIndex::ids).count(), open);
    let kept = model.history.iter().filter(|past| past.settled.is_none() || past.report.is_some()).count();
    prop_assert_eq!(book.grants.len(), kept);
    Ok(())
}

proptest! {
    #[test]
    fn agrees_with_a_list_of_all_that_happened(operations in prop::collection::vec(operation(), 1..80)) {
        let (mut book, mut model) = (GrantTable::new(&Limits::default()), Model::default());
        for operation in operations.into_iter().chain([Operation::Poll]) {
            model.step += 1;
            step(&mut book, &mut model, operation)?;
            assert_consistent(&book, &model)?;
        }
    }
}
