//! A trace sorted by what it is about: sessions, their paths and streams, disturbances, losses.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::Summary;
use super::disturbances::Mark;
use crate::disturbance::{Disturbance, RestartState};
use crate::node::NodeId;
use crate::trace::{Trace, TraceKind};

/// A session at a client. The same number may come again after the node restarted without its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionKey {
    pub(super) node: NodeId,
    pub(super) life: u32,
    pub(super) session: u64,
}

/// What a trace says of a run.
#[derive(Debug, Default)]
pub(super) struct TraceRun {
    pub(super) duration: Duration,
    pub(super) hash: u64,
    pub(super) events: u64,
    /// Of those, how many the trace did not keep.
    pub(super) dropped: u64,
    pub(super) sessions: BTreeMap<SessionKey, SessionRun>,
    pub(super) marks: Vec<Mark>,
    /// Datagrams that were lost, by sender and receiver.
    pub(super) losses: BTreeMap<(NodeId, NodeId), Vec<Duration>>,
}

/// What is known of one session of a client.
#[derive(Debug, Default)]
pub(super) struct SessionRun {
    pub(super) paths: BTreeMap<u32, PathRun>,
    pub(super) streams: BTreeMap<u64, Vec<Supply>>,
    pub(super) closed_at: Option<Duration>,
}

/// What is known of one path.
#[derive(Debug, Default)]
pub(super) struct PathRun {
    pub(super) server: Option<NodeId>,
    pub(super) samples: Vec<Sample>,
    /// Each state, and since when.
    pub(super) states: Vec<(Duration, String)>,
}

/// A path at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: Duration,
    pub(super) bytes: u64,
    /// `None` while it is only a guess.
    pub(super) rtt: Option<Duration>,
}

/// A range that a path brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Supply {
    pub(super) at: Duration,
    pub(super) path: u32,
    pub(super) range: Range<u64>,
}

impl TraceRun {
    pub(super) fn new(trace: &Trace, summary: &Summary) -> Self {
        let mut run = Self { hash: trace.hash(), events: trace.len(), ..Self::default() };
        let mut lives: BTreeMap<NodeId, u32> = BTreeMap::new();
        let mut disturbances: Vec<(Duration, Disturbance)> = Vec::new();
        let mut kept = 0;
        run.duration = summary.duration;
        for event in trace.events() {
            kept += u64::from(!event.kind.is_observation());
            run.duration = run.duration.max(event.at);
            let life = lives.get(&event.node).copied().unwrap_or_default();
            let key = |session| SessionKey { node: event.node, life, session };
            match &event.kind {
                TraceKind::Sent { to, delivery, .. } if delivery.is_loss() => {
                    run.losses.entry((event.node, *to)).or_default().push(event.at);
                }
                TraceKind::Disturbance { disturbance } => {
                    if let Disturbance::Restart { node, state: RestartState::Lost } = **disturbance {
                        *lives.entry(node).or_default() += 1;
                    }
                    disturbances.push((event.at, (**disturbance).clone()));
                }
                TraceKind::Path { session, path, server, state, bytes, rtt } => {
                    let known = run.sessions.entry(key(*session)).or_default().paths.entry(*path).or_default();
                    known.server = known.server.or(*server);
                    let rtt = Some(*rtt).filter(|_| state != "Connecting" && !state.starts_with("Dead"));
                    known.samples.push(Sample { at: event.at, bytes: *bytes, rtt });
                    if known.states.last().is_none_or(|(_, last)| last != state) {
                        known.states.push((event.at, state.clone()));
                    }
                }
                TraceKind::Supplied { session, stream, start, end, path } => {
                    let known = run.sessions.entry(key(*session)).or_default().streams.entry(*stream).or_default();
                    known.push(Supply { at: event.at, path: *path, range: *start..*end });
                }
                TraceKind::Session { session, text } if text.starts_with("Closed") => {
                    if let Some(known) = run.sessions.get_mut(&key(*session)) {
                        known.closed_at = Some(event.at);
                    }
                }
                _ => {}
            }
        }
        run.dropped = run.events - kept;
        run.marks = Mark::all(&disturbances, run.duration);
        run
    }

    /// The largest number of any path.
    pub(super) fn path_max(&self) -> u32 {
        let paths = self.sessions.values().flat_map(|session| session.paths.keys());
        let sources = self.sessions.values().flat_map(|session| session.streams.values().flatten());
        paths.copied().chain(sources.map(|supply| supply.path)).max().unwrap_or_default()
    }
}

impl PathRun {
    /// What was carried both ways until a moment, in bytes, as if it came evenly between two samples.
    pub(super) fn bytes_at(&self, at: Duration) -> f64 {
        let after = self.samples.partition_point(|sample| sample.at <= at);
        let Some(before) = after.checked_sub(1).and_then(|index| self.samples.get(index)) else { return 0.0 };
        let Some(next) = self.samples.get(after) else { return before.bytes as f64 };
        let share = (at - before.at).as_secs_f64() / (next.at - before.at).as_secs_f64();
        before.bytes as f64 + next.bytes.saturating_sub(before.bytes) as f64 * share
    }

    /// When it died.
    pub(super) fn dead_at(&self) -> Option<Duration> {
        self.states.iter().find(|(_, state)| state.starts_with("Dead")).map(|(at, _)| *at)
    }

    /// The longest round trip that was measured.
    pub(super) fn rtt_max(&self) -> Duration {
        self.samples.iter().filter_map(|sample| sample.rtt).max().unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.samples.last().map_or(0, |sample| sample.bytes)
    }
}

/// The ranges of a stream as a map of it: neighbours of one path are one piece, in the order of their offsets.
pub(super) fn pieces(supplies: &[Supply]) -> Vec<(u32, Range<u64>)> {
    let mut sorted: Vec<_> = supplies.iter().map(|supply| (supply.range.start, supply)).collect();
    sorted.sort_by_key(|(start, _)| *start);
    let mut pieces: Vec<(u32, Range<u64>)> = Vec::new();
    for (start, supply) in sorted {
        match pieces.last_mut() {
            Some((path, range)) if *path == supply.path && range.end == start => range.end = supply.range.end,
            _ => pieces.push((supply.path, supply.range.clone())),
        }
    }
    pieces
}
