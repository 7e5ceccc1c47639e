//! The client's table of grants: what each secondary's path may write, and what is reported of it to the primary.
//!
//! A grant is *open* from the moment it is recorded until its last byte arrived, whoever wrote it, or until it is clear
//! that the rest will not come. Then it is *settled*, and dropped once its last status was polled. What a path was ever
//! granted is remembered beyond that, since late duplicates are legal.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use smallvec::SmallVec;

use super::violation;
use crate::error::{ErrorCode, Fault, TransportCode};
use crate::id::{Epoch, GrantId, PathId, StreamId};
use crate::limits::{
    GRANT_OVERLAP_MAX, GRANT_PROGRESS_BYTES, GRANTS_PATH_MAX, GRANTS_SESSION_MAX, Limits, MISSING_RANGES_MAX,
};
use crate::range_set::RangeSet;
use crate::status::GrantStatus;

/// A permission for one path to write one range of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) id: GrantId,
    pub(crate) epoch: Epoch,
    pub(crate) path: PathId,
    pub(crate) stream: StreamId,
    pub(crate) range: Range<u64>,
}

/// What becomes of a frame of a secondary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Its bytes are taken.
    Allowed,
    /// It touches a range that was revoked or given back: its bytes are dropped, and nobody is blamed.
    Fenced,
    /// The path was never granted all of it, or sent too much of what is fenced.
    Violation,
    /// The path sent more bytes of the stream than its grants have together.
    Excess,
}

/// The grants of one session.
#[derive(Debug)]
pub(crate) struct GrantTable {
    grants_session_max: usize,
    grants_path_max: usize,
    ranges_max: usize,
    /// Open grants, and settled ones whose last status was not polled yet.
    grants: BTreeMap<GrantId, GrantEntry>,
    /// The open ones by position.
    open: BTreeMap<StreamId, IntervalIndex>,
    open_by_path: BTreeMap<PathId, usize>,
    writers: BTreeMap<(StreamId, PathId), Writer>,
    /// Sum of [`Writer::ranges_held`].
    ranges_held: usize,
    crossings: Crossings,
    /// Bytes of forgotten streams that each path may still send: they may be under way.
    late: BTreeMap<PathId, u64>,
    /// Grants with something to report, each at most once.
    due: VecDeque<GrantId>,
    /// Grants that were settled and not polled as such: frames of them that wait are not relayed any more.
    settled: Vec<(PathId, GrantId)>,
}

impl GrantTable {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            grants_session_max: GRANTS_SESSION_MAX,
            grants_path_max: GRANTS_PATH_MAX,
            ranges_max: limits.grant_spans_session,
            grants: BTreeMap::new(),
            open: BTreeMap::new(),
            open_by_path: BTreeMap::new(),
            writers: BTreeMap::new(),
            ranges_held: 0,
            crossings: Crossings::default(),
            late: BTreeMap::new(),
            due: VecDeque::new(),
            settled: Vec::new(),
        }
    }

    /// Takes note of a grant of which the `missing` parts did not arrive yet. A repetition changes nothing. With too
    /// many separate ranges to remember, the grant is refused with REASSEMBLY_LIMIT.
    ///
    /// # Errors
    /// PROTOCOL_VIOLATION if the grant is empty or its id names another one, CONTROL_FLOOD beyond a cap. Nothing is
    /// recorded then.
    pub(crate) fn record(&mut self, grant: Grant, missing: &[Range<u64>]) -> Result<(), Fault> {
        if let Some(known) = self.grants.get(&grant.id) {
            let repeated = known.grant == grant;
            return if repeated { Ok(()) } else { Err(violation("a grant id was used twice")) };
        }
        if self.ranges_held >= self.ranges_max {
            // The primary cannot know what the application did not read yet.
            return self.refuse(grant, missing, TransportCode::REASSEMBLY_LIMIT.into());
        }
        self.admit(&grant)?;
        let Grant { id, path, stream, ref range, .. } = grant;
        if !self.open.entry(stream).or_default().insert(range, id) {
            return Err(flood("a grant overlaps too many others"));
        }
        let writer = self.writers.entry((stream, path)).or_default();
        let before = writer.ranges_held();
        writer.granted.insert(range.clone());
        // What is granted anew may be written again.
        writer.fenced.remove(range.clone());
        writer.open += 1;
        writer.left = writer.left.saturating_add(range.end - range.start);
        self.ranges_held = self.ranges_held + writer.ranges_held() - before;
        *self.open_by_path.entry(path).or_default() += 1;
        self.crossings.on_granted(Some(path));

        self.grants.insert(id, GrantEntry::new(grant, missing));
        self.refresh(id);
        Ok(())
    }

    /// Takes note of a grant that is lost from the beginning, if anything of it is missing: its path never hears of it.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub(crate) fn refuse(&mut self, grant: Grant, missing: &[Range<u64>], code: ErrorCode) -> Result<(), Fault> {
        self.admit(&grant)?;
        self.crossings.on_granted(None);
        let id = grant.id;
        let mut entry = GrantEntry::new(grant, missing);
        let state = if missing.is_empty() { GrantState::Delivered } else { GrantState::Lost(code) };
        (entry.state, entry.is_due) = (state, true);
        self.grants.insert(id, entry);
        self.due.push_back(id);
        Ok(())
    }

    /// Judges bytes of `frame` that came over `path`; `arrived` of them are at hand. To be asked about every piece of a
    /// frame, with all of the frame that is still to come, so that nothing of a frame that oversteps is taken.
    ///
    /// An honest secondary sends every byte of a grant once at most.
    pub(crate) fn check(&mut self, path: PathId, stream: StreamId, frame: Range<u64>, arrived: u64) -> Access {
        match self.writers.get_mut(&(stream, path)) {
            Some(writer) => writer.check(frame, arrived),
            None => Access::Violation,
        }
    }

    /// As [`Self::check`], for a stream of which nothing is wanted any more. Who may write it may be forgotten; what
    /// the path was granted and had not sent may still come.
    pub(crate) fn check_late(&mut self, path: PathId, stream: StreamId, frame: Range<u64>, arrived: u64) -> Access {
        if self.writers.contains_key(&(stream, path)) {
            return self.check(path, stream, frame, arrived);
        }
        let Some(late) = self.late.get_mut(&path) else { return Access::Violation };
        let Some(left) = late.checked_sub(arrived) else { return Access::Violation };
        *late = left;
        Access::Fenced
    }

    /// Whether a grant with this id is known: open, or settled and not yet reported.
    pub(crate) fn is_known(&self, id: GrantId) -> bool {
        self.grants.contains_key(&id)
    }

    /// Whether bytes of a grant are still awaited.
    pub(crate) fn is_open(&self, id: GrantId) -> bool {
        self.grants.get(&id).is_some_and(GrantEntry::is_open)
    }

    /// Bytes of `stream` arrived for the first time, from whatever source.
    pub(crate) fn on_new(&mut self, stream: StreamId, new: &[Range<u64>]) {
        let Some(index) = self.open.get(&stream) else { return };
        let mut advanced = SmallVec::<[GrantId; 4]>::new();
        for range in new {
            for id in index.overlapping(range) {
                let Some(entry) = self.grants.get_mut(&id) else { continue };
                entry.missing.remove(range.clone());
                advanced.push(id);
            }
        }
        // Afterwards, since a grant that is settled leaves the index.
        for id in advanced {
            self.refresh(id);
        }
    }

    /// The primary takes a grant back. What did not arrive yet is lost, and late bytes of it are fenced. Gives the
    /// grant if this settled it: not if it is unknown, settled, or younger than the command.
    pub(crate) fn revoke(&mut self, id: GrantId, epoch: Epoch) -> Option<Grant> {
        let entry = self.grants.get(&id).filter(|entry| entry.is_open() && entry.grant.epoch <= epoch)?;
        let grant = entry.grant.clone();
        self.move_to(id, GrantState::Lost(TransportCode::REVOKED.into()));
        self.fence(&grant);
        Some(grant)
    }

    /// The secondary behind `path` ends its part of a grant at `end`: the rest will not come. What it wrote before may
    /// still be under way. An end of a settled grant crossed with its settlement, and changes nothing; of several ends
    /// the lowest counts, as when a part that was finished short is then stopped.
    ///
    /// # Errors
    /// PROTOCOL_VIOLATION if the grant is another path's, or `end` is outside it.
    pub(crate) fn on_end(&mut self, id: GrantId, path: PathId, end: u64, code: ErrorCode) -> Result<(), Fault> {
        let Some(entry) = self.grants.get_mut(&id) else { return Ok(()) };
        let range = &entry.grant.range;
        if entry.grant.path != path {
            return Err(violation("a path ended the grant of another"));
        }
        if end < range.start || end > range.end {
            return Err(violation("a grant ended outside its range"));
        }
        if entry.ended.is_none_or(|(earlier, _)| end < earlier) {
            entry.ended = Some((end, code));
        }
        self.refresh(id);
        Ok(())
    }

    /// A REVOKE came that settled nothing. Whether it may have crossed the last status of its grant.
    pub(crate) fn is_crossed_revoke(&mut self) -> bool {
        take_one(&mut self.crossings.revokes)
    }

    /// A GRANT_END of `path` came that settled nothing. Whether it may have crossed the end of its grant.
    pub(crate) fn is_crossed_end(&mut self, path: PathId) -> bool {
        self.crossings.ends.get_mut(&path).is_some_and(take_one)
    }

    /// A path is dead: what its open grants miss will not come. The path may write nothing from now on.
    pub(crate) fn path_lost(&mut self, path: PathId, code: ErrorCode) {
        let open = self.grants.iter().filter(|(_, entry)| entry.grant.path == path && entry.is_open());
        let lost: Vec<GrantId> = open.map(|(id, _)| *id).collect();
        for id in lost {
            self.move_to(id, GrantState::Lost(code));
        }
        let ranges_held = &mut self.ranges_held;
        self.late.remove(&path);
        self.crossings.ends.remove(&path);
        self.writers.retain(|(_, writer_path), writer| {
            let keep = *writer_path != path;
            if !keep {
                *ranges_held -= writer.ranges_held();
            }
            keep
        });
    }

    /// A stream is reset, or no longer read: what its open grants miss is not wanted. Gives them, each with its path.
    pub(crate) fn stream_gone(&mut self, stream: StreamId, code: ErrorCode) -> Vec<(PathId, GrantId)> {
        let open = self.open.get(&stream).into_iter().flat_map(IntervalIndex::ids);
        let gone: Vec<_> = open.filter_map(|id| Some((self.grants.get(&id)?.grant.path, id))).collect();
        for (_, id) in &gone {
            self.move_to(*id, GrantState::Lost(code));
        }
        gone
    }

    /// The slot of a stream was freed: who might write it need not be known any more. Grants that are still open, as
    /// after a grant that came too late, are settled with STREAM_GONE.
    pub(crate) fn forget_stream(&mut self, stream: StreamId) {
        self.stream_gone(stream, TransportCode::STREAM_GONE.into());
        let paths: Vec<PathId> = self.writers_of(stream).map(|(path, _)| path).collect();
        for path in paths {
            if let Some(writer) = self.writers.remove(&(stream, path)) {
                self.ranges_held -= writer.ranges_held();
                let late = self.late.entry(path).or_default();
                *late = late.saturating_add(writer.left);
            }
        }
    }

    /// The application read everything of `stream` below `offset`. What is written there again is dropped unseen, so
    /// who may write there need not be known any more. Keeps the table of a long stream short.
    pub(crate) fn forget_below(&mut self, stream: StreamId, offset: u64) {
        if self.writers.is_empty() {
            return;
        }
        for (_, writer) in self.writers.range_mut(stream_keys(stream)) {
            let before = writer.ranges_held();
            writer.forget_below(offset);
            self.ranges_held = self.ranges_held + writer.ranges_held() - before;
        }
    }

    /// The next status for the primary. Progress is reported in steps of [`GRANT_PROGRESS_BYTES`], the end of a grant
    /// once.
    pub(crate) fn poll_status(&mut self) -> Option<(GrantId, GrantStatus)> {
        let id = self.due.pop_front()?;
        let entry = self.grants.get_mut(&id)?;
        entry.is_due = false;
        let report = match entry.state {
            GrantState::Open => {
                entry.reported = entry.delivered();
                return Some((id, GrantStatus::Progress { delivered: entry.reported }));
            }
            GrantState::Delivered => GrantStatus::Delivered,
            GrantState::Lost(code) => {
                GrantStatus::Lost { code, missing: merge(entry.missing.iter().collect(), MISSING_RANGES_MAX) }
            }
        };
        self.grants.remove(&id);
        Some((id, report))
    }

    /// The next grant that was settled, and its path.
    pub(crate) fn poll_settled(&mut self) -> Option<(PathId, GrantId)> {
        self.settled.pop()
    }

    /// The paths with open grants of a stream.
    pub(crate) fn writers(&self, stream: StreamId) -> impl Iterator<Item = PathId> + '_ {
        self.writers_of(stream).filter(|(_, writer)| writer.open > 0).map(|(path, _)| path)
    }

    fn writers_of(&self, stream: StreamId) -> impl Iterator<Item = (PathId, &Writer)> {
        self.writers.range(stream_keys(stream)).map(|((_, path), writer)| (*path, writer))
    }

    fn admit(&self, grant: &Grant) -> Result<(), Fault> {
        if grant.range.is_empty() {
            return Err(violation("a grant of no bytes"));
        }
        if self.grants.len() >= self.grants_session_max {
            return Err(flood("too many grants in the session"));
        }
        if self.open_by_path.get(&grant.path).is_some_and(|open| *open >= self.grants_path_max) {
            return Err(flood("too many grants on one path"));
        }
        Ok(())
    }

    /// Settles a grant if what arrived and what was ended allow it. Bytes that are reported lost must not arrive later,
    /// since the primary may end the stream before them: they are fenced.
    fn refresh(&mut self, id: GrantId) {
        let Some(entry) = self.grants.get(&id).filter(|entry| entry.is_open()) else { return };
        let verdict = entry.verdict();
        let lost = matches!(verdict, GrantState::Lost(_)).then(|| entry.grant.clone());
        self.move_to(id, verdict);
        if let Some(grant) = lost {
            self.fence(&grant);
        }
    }

    /// Puts an open grant into its next state, and on the list of those with something to report if there is news.
    fn move_to(&mut self, id: GrantId, state: GrantState) {
        let Some(entry) = self.grants.get_mut(&id).filter(|entry| entry.is_open()) else { return };
        entry.state = state;
        if entry.has_news() && !entry.is_due {
            entry.is_due = true;
            self.due.push_back(id);
        }
        if state == GrantState::Open {
            return;
        }
        let Grant { path, stream, ref range, .. } = entry.grant;
        self.settled.push((path, id));
        if let Some(index) = self.open.get_mut(&stream) {
            index.remove(range, id);
            if index.is_empty() {
                self.open.remove(&stream);
            }
        }
        if let Some(writer) = self.writers.get_mut(&(stream, path)) {
            writer.open -= 1;
        }
        if let Some(open) = self.open_by_path.get_mut(&path) {
            *open -= 1;
            if *open == 0 {
                self.open_by_path.remove(&path);
            }
        }
    }

    /// Fences the range of a lost grant, except where an open grant of the same path still covers it.
    fn fence(&mut self, lost: &Grant) {
        let Some(writer) = self.writers.get_mut(&(lost.stream, lost.path)) else { return };
        let before = writer.ranges_held();
        writer.fenced.insert(lost.range.clone());
        if let Some(index) = self.open.get(&lost.stream) {
            for id in index.overlapping(&lost.range) {
                if let Some(other) = self.grants.get(&id).filter(|other| other.grant.path == lost.path) {
                    writer.fenced.remove(other.grant.range.clone());
                }
            }
        }
        // However large its windows are, an honest secondary has at most the grant under way.
        writer.fence_bytes_left = writer.fence_bytes_left.saturating_add(lost.range.end - lost.range.start);
        self.ranges_held = self.ranges_held + writer.ranges_held() - before;
    }
}

/// Frames that may come of grants that are over: they crossed what ended those.
#[derive(Debug, Default)]
struct Crossings {
    /// One REVOKE of each grant.
    revokes: u64,
    /// Two GRANT_ENDs of each grant that a path heard of.
    ends: BTreeMap<PathId, u64>,
}

impl Crossings {
    fn on_granted(&mut self, path: Option<PathId>) {
        self.revokes = self.revokes.saturating_add(1);
        if let Some(path) = path {
            let ends = self.ends.entry(path).or_default();
            *ends = ends.saturating_add(2);
        }
    }
}

fn take_one(left: &mut u64) -> bool {
    let has_one = *left > 0;
    *left = left.saturating_sub(1);
    has_one
}

/// One grant and how far it came.
#[derive(Debug)]
struct GrantEntry {
    grant: Grant,
    /// The parts of its range that did not arrive.
    missing: RangeSet,
    /// Where and why its secondary ended it.
    ended: Option<(u64, ErrorCode)>,
    state: GrantState,
    /// Delivered bytes the primary heard of.
    reported: u64,
    is_due: bool,
}

/// Moved by [`GrantTable::move_to`] only, which leaves what is settled as it is.
///
/// ```text
///           every byte arrived, whoever wrote it
///   Open ─────────────────────────────────────────▶ Delivered ──┐ last status polled:
///     │                                                         ├──────────────────────▶ gone
///     └──────────────────────────────────────────────▶ Lost ────┘
///           revoked, ended short, its path died, or its stream is over
/// ```
///
/// A grant that is refused begins as one of the last two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GrantState {
    Open,
    Delivered,
    Lost(ErrorCode),
}

impl GrantEntry {
    fn new(grant: Grant, missing: &[Range<u64>]) -> Self {
        let mut set = RangeSet::default();
        for range in missing {
            set.insert(range.clone());
        }
        Self { grant, missing: set, ended: None, state: GrantState::Open, reported: 0, is_due: false }
    }

    fn is_open(&self) -> bool {
        self.state == GrantState::Open
    }

    fn delivered(&self) -> u64 {
        self.grant.range.end - self.grant.range.start - self.missing.total()
    }

    fn has_news(&self) -> bool {
        !self.is_open() || self.delivered() - self.reported >= GRANT_PROGRESS_BYTES
    }

    /// The state that what arrived and what was ended amount to.
    fn verdict(&self) -> GrantState {
        if self.missing.is_empty() {
            return GrantState::Delivered;
        }
        match self.ended {
            Some((end, code)) if !self.missing.intersects(&(self.grant.range.start..end)) => GrantState::Lost(code),
            _ => GrantState::Open,
        }
    }
}

/// What one path may write on one stream.
#[derive(Debug, Default)]
struct Writer {
    /// Everything it was ever granted, from `floor` on.
    granted: RangeSet,
    /// The part of it that was revoked or given back, and not granted again.
    fenced: RangeSet,
    /// Bytes it may still send into the fenced part.
    fence_bytes_left: u64,
    /// Bytes of its grants that it may still send.
    left: u64,
    /// Below it everything was read.
    floor: u64,
    /// Its open grants.
    open: usize,
}

impl Writer {
    fn check(&mut self, frame: Range<u64>, arrived: u64) -> Access {
        // Below the floor grants are forgotten, and what comes there is dropped unseen. The range may be inverted:
        // empty.
        let frame = frame.start.max(self.floor)..frame.end;
        if !frame.is_empty() && !self.granted.covers(&frame) {
            return Access::Violation;
        }
        let Some(left) = self.left.checked_sub(arrived) else { return Access::Excess };
        let is_fenced = self.fenced.intersects(&frame);
        if is_fenced {
            let Some(left) = self.fence_bytes_left.checked_sub(arrived) else { return Access::Violation };
            self.fence_bytes_left = left;
        }
        self.left = left;
        if is_fenced { Access::Fenced } else { Access::Allowed }
    }

    fn forget_below(&mut self, offset: u64) {
        self.floor = self.floor.max(offset);
        self.granted.remove(0..self.floor);
        self.fenced.remove(0..self.floor);
    }

    fn ranges_held(&self) -> usize {
        self.granted.len() + self.fenced.len()
    }
}

/// The open grants of one stream by position. Within a layer they are disjoint, so that those at a place are found
/// without a look at the others; an honest primary rarely needs a second layer.
#[derive(Debug, Default)]
struct IntervalIndex(SmallVec<[BTreeMap<u64, (u64, GrantId)>; 1]>);

impl IntervalIndex {
    /// Whether there was room.
    fn insert(&mut self, range: &Range<u64>, id: GrantId) -> bool {
        let value = (range.end, id);
        if let Some(layer) = self.0.iter_mut().find(|layer| layer_overlaps(layer, range).next().is_none()) {
            layer.insert(range.start, value);
        } else if self.0.len() < GRANT_OVERLAP_MAX + 1 {
            self.0.push(BTreeMap::from([(range.start, value)]));
        } else {
            return false;
        }
        true
    }

    fn remove(&mut self, range: &Range<u64>, id: GrantId) {
        let value = (range.end, id);
        if let Some(layer) = self.0.iter_mut().find(|layer| layer.get(&range.start) == Some(&value)) {
            layer.remove(&range.start);
        }
    }

    fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = GrantId> {
        self.0.iter().flat_map(|layer| layer_overlaps(layer, range))
    }

    fn ids(&self) -> impl Iterator<Item = GrantId> {
        self.0.iter().flat_map(BTreeMap::values).map(|(_, id)| *id)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(BTreeMap::is_empty)
    }
}

fn layer_overlaps(layer: &BTreeMap<u64, (u64, GrantId)>, range: &Range<u64>) -> impl Iterator<Item = GrantId> {
    let start = range.start;
    layer.range(..range.end).rev().map(|(_, value)| *value).take_while(move |(end, _)| *end > start).map(|(_, id)| id)
}

/// Joins the ranges that are closest to each other until at most `max` are left. The last stays as it is, so that the
/// highest byte that arrived is never called missing: the primary may end the stream behind what it believes to be
/// there.
fn merge(ranges: Vec<Range<u64>>, max: usize) -> Vec<Range<u64>> {
    let Some(excess) = ranges.len().checked_sub(max).filter(|excess| *excess > 0) else { return ranges };
    let mut gaps: Vec<(u64, usize)> =
        // The last gap is left out, so the last range is never joined.
        ranges.windows(2).zip(1..ranges.len() - 1).map(|(pair, index)| (pair[1].start - pair[0].end, index)).collect();
    gaps.sort_unstable();
    let mut joins: Vec<usize> = gaps.into_iter().take(excess).map(|(_, index)| index).collect();
    joins.sort_unstable();

    let mut joins = joins.into_iter().peekable();
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(max);
    for (index, range) in ranges.into_iter().enumerate() {
        match merged.last_mut() {
            Some(last) if joins.next_if_eq(&index).is_some() => last.end = range.end,
            _ => merged.push(range),
        }
    }
    merged
}

fn stream_keys(stream: StreamId) -> std::ops::RangeInclusive<(StreamId, PathId)> {
    (stream, PathId(0))..=(stream, PathId(u32::MAX))
}

fn flood(detail: &'static str) -> Fault {
    Fault::new(TransportCode::CONTROL_FLOOD, detail)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod model_tests;
