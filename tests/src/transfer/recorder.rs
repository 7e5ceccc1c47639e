//! What the applications of a transfer note for its test.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use kwik_core::{ErrorCode, PathEvent, PathId, SessionError, SessionHandle};

use super::Plan;

/// What happened in a transfer. Times are counted from the beginning of the world.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    pub(super) plan: Plan,
    /// The client's current session.
    pub session: Option<SessionHandle>,
    /// The streams of the current session, by number.
    pub downloads: BTreeMap<u32, DownloadRecord>,
    /// Sessions in which everything was read.
    pub sessions_done: u32,
    /// How sessions failed that were begun again.
    pub failures: Vec<SessionError>,
    /// How the session failed that was not begun again, and when.
    pub closed: Option<(Duration, SessionError)>,
    /// How the last session ended at the primary, and when.
    pub closed_at_primary: Option<(Duration, SessionError)>,
    /// Ranges that a secondary did not deliver.
    pub losses: Vec<Loss>,
    /// Delegations that were delivered.
    pub delivered: usize,
    /// The sessions of secondaries, by server.
    pub joined: Vec<(usize, SessionHandle)>,
    /// What the primary heard of its paths.
    pub paths: Vec<(Duration, PathEvent)>,
    /// Which path brought which range of which stream, neighbours joined.
    pub brought: Vec<(PathId, u32, Range<u64>)>,
    /// When each path last brought something, and the longest between two such moments.
    gaps: BTreeMap<PathId, (Duration, Duration)>,
}

/// One stream at the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadRecord {
    /// Bytes read, all of them right.
    pub received: u64,
    /// When the last byte was read so far.
    pub last: Duration,
    /// The longest that nothing could be read.
    pub stall: Duration,
    /// When the end was read.
    pub ended: Option<Duration>,
}

/// What a secondary did not deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// When the primary heard of it.
    pub at: Duration,
    /// Whose.
    pub path: PathId,
    /// Why.
    pub code: ErrorCode,
    /// Of which stream.
    pub stream: u32,
    /// What was delegated.
    pub range: Range<u64>,
    /// What is missing of it.
    pub missing: Vec<Range<u64>>,
}

impl Recorder {
    pub(super) fn new(start: Instant, plan: Plan) -> Self {
        Self {
            start,
            plan,
            session: None,
            downloads: BTreeMap::new(),
            sessions_done: 0,
            failures: Vec::new(),
            closed: None,
            closed_at_primary: None,
            losses: Vec::new(),
            delivered: 0,
            joined: Vec::new(),
            paths: Vec::new(),
            brought: Vec::new(),
            gaps: BTreeMap::new(),
        }
    }

    /// Whether everything was read in every session.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.sessions_done == self.plan.sessions
    }

    /// Bytes read in the current session.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.downloads.values().map(|download| download.received).sum()
    }

    /// The longest that any stream had nothing to read.
    #[must_use]
    pub fn longest_stall(&self) -> Duration {
        self.downloads.values().map(|download| download.stall).max().unwrap_or_default()
    }

    /// How often the primary heard this kind of thing about a path.
    #[must_use]
    pub fn count(&self, kind: impl Fn(&PathEvent) -> bool) -> usize {
        self.paths.iter().filter(|(_, event)| kind(event)).count()
    }

    /// The longest that a path brought nothing between its first bytes and its last.
    #[must_use]
    pub fn gap(&self, path: PathId) -> Duration {
        self.gaps.get(&path).map_or(Duration::ZERO, |(_, longest)| *longest)
    }

    /// Bytes of a range of a stream that a path brought.
    #[must_use]
    pub fn brought_of(&self, path: PathId, stream: u32, range: &Range<u64>) -> u64 {
        let of_it = self.brought.iter().filter(|(by, of, _)| (*by, *of) == (path, stream));
        of_it.map(|(_, _, granted)| granted.end.min(range.end).saturating_sub(granted.start.max(range.start))).sum()
    }

    pub(super) fn on_read(&mut self, stream: u32, now: Instant, source: Option<PathId>, range: Range<u64>) {
        let now = self.time(now);
        if let Some(download) = self.downloads.get_mut(&stream) {
            download.on_read(now, range.end - range.start);
        }
        // Who brought it matters where it was one.
        let Some(source) = source else { return };
        match self.brought.last_mut() {
            Some((path, of, last)) if (*path, *of, last.end) == (source, stream, range.start) => last.end = range.end,
            _ => self.brought.push((source, stream, range)),
        }
        let (last, longest) = self.gaps.entry(source).or_insert((now, Duration::ZERO));
        *longest = (*longest).max(now - *last);
        *last = now;
    }

    pub(super) fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }
}

impl DownloadRecord {
    pub(super) fn new(now: Duration) -> Self {
        Self { received: 0, last: now, stall: Duration::ZERO, ended: None }
    }

    fn on_read(&mut self, now: Duration, bytes: u64) {
        self.received += bytes;
        self.stall = self.stall.max(now - self.last);
        self.last = now;
    }
}
