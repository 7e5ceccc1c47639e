//! The paths of a session: those that have a connection, and what remains of the others.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use quinn_proto::Transmit as Datagrams;
use smallvec::SmallVec;

use super::event::PathStats;
use crate::error::DeadReason;
use crate::id::PathId;
use crate::path::Path;
use crate::protocol_event::BlockedBy;
use crate::status::PathState;
use crate::stream::StreamTable;

/// Every path of a session that has a connection, and the last measurements of those that had one.
pub(super) struct Paths {
    main: PathId,
    connected: BTreeMap<PathId, Box<Path>>,
    closed: VecDeque<PathStats>,
    windows: WindowTotals,
    suspect_after: Duration,
    /// When the session had its last turn.
    now: Instant,
}

/// What the windows of all paths hold together.
#[derive(Default)]
struct WindowTotals {
    bytes: u64,
    /// Whether some path should have a larger window to receive into.
    are_small: bool,
    /// Whether a path came, went, or received something.
    are_due: bool,
}

impl Paths {
    /// Closed paths that are remembered.
    const CLOSED_MAX: usize = 64;

    pub(super) fn new(main: PathId, path: Path) -> Self {
        let (suspect_after, now) = (path.suspect_after(), path.looked_at());
        let connected = BTreeMap::from([(main, Box::new(path))]);
        let (closed, windows) = (VecDeque::new(), WindowTotals::default());
        let mut paths = Self { main, connected, closed, windows, suspect_after, now };
        paths.count_windows();
        paths
    }

    /// The path that carries the streams of this end. The session ends with it. It is path 0 at a client and at a
    /// primary, and the only path at a secondary.
    pub(super) fn main_id(&self) -> PathId {
        self.main
    }

    pub(super) fn main(&self) -> Option<&Path> {
        self.get(self.main)
    }

    pub(super) fn main_mut(&mut self) -> Option<&mut Path> {
        self.get_mut(self.main)
    }

    /// The main path, while it has room for another control frame.
    pub(super) fn main_with_room(&mut self) -> Option<&mut Path> {
        self.main_mut().filter(|path| path.is_control_ready())
    }

    pub(super) fn get(&self, id: PathId) -> Option<&Path> {
        self.connected.get(&id).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, id: PathId) -> Option<&mut Path> {
        self.connected.get_mut(&id).map(Box::as_mut)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PathId, &Path)> {
        self.connected.iter().map(|(id, path)| (*id, path.as_ref()))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (PathId, &mut Path)> {
        self.connected.iter_mut().map(|(id, path)| (*id, path.as_mut()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connected.is_empty()
    }

    pub(super) fn insert(&mut self, id: PathId, path: Path) {
        self.connected.insert(id, Box::new(path));
        self.count_windows();
    }

    /// The session has a turn.
    pub(super) fn look(&mut self, now: Instant) {
        self.now = now;
    }

    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// The paths with news that the session has not handled yet.
    pub(super) fn with_news(&self) -> SmallVec<[PathId; 8]> {
        self.iter().filter(|(_, path)| path.has_news()).map(|(id, _)| id).collect()
    }

    pub(super) fn poll_transmit(&mut self, now: Instant, max_datagrams: usize, buf: &mut Vec<u8>) -> Option<Datagrams> {
        let mut touched = self.iter_mut().filter(|(_, path)| path.is_touched());
        touched.find_map(|(_, path)| path.poll_transmit(now, max_datagrams, buf))
    }

    pub(super) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        self.iter_mut().filter_map(|(_, path)| path.poll_timeout(now)).min()
    }

    /// Closes those that are not dead.
    pub(super) fn close_all(&mut self, now: Instant, reason: &DeadReason) {
        for (_, path) in self.iter_mut().filter(|(_, path)| !path.state().is_dead()) {
            path.close(now, reason.clone());
        }
    }

    /// Lets go of connections that are drained, once QUIC's endpoint knows it; keeps their last measurements.
    pub(super) fn reap(&mut self) {
        // QUIC may have drained before the session took the loss from the path; such a path is not dead yet.
        let is_over = |path: &Path| path.is_drained() && path.state().is_dead();
        let over: SmallVec<[PathId; 2]> = self.iter().filter(|(_, path)| is_over(path)).map(|(id, _)| id).collect();
        for id in over {
            let Some(path) = self.connected.remove(&id) else { return };
            self.count_windows();
            self.remember(measurements(self.now, id, &path));
        }
    }

    /// A path is dead that never had a connection.
    pub(super) fn on_unconnected_dead(&mut self, id: PathId, address: SocketAddr, reason: DeadReason) {
        self.remember(PathStats {
            id,
            address,
            state: PathState::Dead(reason),
            bytes_received: 0,
            bytes_sent: 0,
            bytes_acknowledged: 0,
            packets_received: 0,
            packets_sent: 0,
            carriers: 0,
            rtt: Duration::ZERO,
            rtt_min: Duration::ZERO,
            rate_bytes_per_second: 0,
            quic_packets_sent: 0,
            quic_packets_lost: 0,
            congestion_window: 0,
            bytes_in_flight: 0,
            blocked_by: BlockedBy::Application,
            mtu: 0,
        });
    }

    fn remember(&mut self, stats: PathStats) {
        if self.closed.len() >= Self::CLOSED_MAX {
            self.closed.pop_front();
        }
        self.closed.push_back(stats);
    }

    /// Measurements of all that are remembered, by id.
    pub(super) fn stats(&self) -> Vec<PathStats> {
        let connected = self.iter().map(|(id, path)| measurements(self.now, id, path));
        let mut stats: Vec<_> = self.closed.iter().cloned().chain(connected).collect();
        stats.sort_by_key(|path| path.id);
        stats
    }

    /// What remains of a path without a connection.
    pub(super) fn closed(&self, id: PathId) -> Option<&PathStats> {
        self.closed.iter().find(|stats| stats.id == id)
    }

    // ---- windows

    /// A path received something: what it needs may have changed.
    pub(super) fn on_received(&mut self) {
        self.windows.are_due = true;
    }

    /// What all windows hold, in bytes.
    pub(super) fn window_bytes(&self) -> u64 {
        self.windows.bytes
    }

    /// Whether some window would grow if there was memory.
    pub(super) fn want_memory(&self) -> bool {
        self.windows.are_small
    }

    /// Lets the windows of all paths grow and shrink, if there may be a reason to. Relayed frames wait for some.
    pub(super) fn fit_windows(&mut self, streams: &mut StreamTable, is_relaying: impl Fn(PathId) -> bool) {
        if !self.windows.are_due && !self.windows.are_small && !streams.has_sendable() {
            return;
        }
        let main = self.main;
        self.windows = WindowTotals::default();
        streams.on_wanted_window(self.stream_window());
        for (id, path) in &mut self.connected {
            // Each path is offered what those before it left: `on_window_changed` takes their part from the room.
            let is_sending = || (*id == main && streams.has_sendable()) || is_relaying(*id);
            let before = path.claim();
            path.fit_windows(is_sending, streams.room_for_windows());
            streams.on_window_changed(before, path.claim());
            self.windows.count(path);
        }
    }

    /// The window with which streams never hold up what the paths can bring, in bytes: what comes over all of them within
    /// the longest of their round trips, a few times. Where several servers write a stream, the others go on while the one
    /// that has its lowest bytes is silent, until it is suspect.
    fn stream_window(&self) -> u64 {
        let paths = || self.connected.values().map(|path| path.bandwidth_delay()).filter(|(bytes, _)| *bytes > 0);
        let longest = paths().map(|(_, rtt)| rtt).max().unwrap_or_default();
        let silence = if paths().count() > 1 { self.suspect_after } else { Duration::ZERO };
        let span = longest.saturating_mul(Path::WINDOW_ROUND_TRIPS).saturating_add(silence).as_micros();
        let bytes = paths().map(|(bytes, rtt)| u128::from(bytes).saturating_mul(span) / rtt.as_micros().max(1));
        u64::try_from(bytes.fold(0, u128::saturating_add)).unwrap_or(u64::MAX)
    }

    /// A path came or went.
    fn count_windows(&mut self) {
        self.windows = WindowTotals { are_due: true, ..WindowTotals::default() };
        self.connected.values().for_each(|path| self.windows.count(path));
    }

    /// Panics if a path came, went or changed its windows and that was not counted.
    #[cfg(any(test, feature = "__test_exports"))]
    pub(super) fn assert_windows(&self) {
        assert_eq!(self.windows.bytes, self.iter().map(|(_, path)| path.claim()).sum::<u64>(), "paths");
    }
}

impl WindowTotals {
    fn count(&mut self, path: &Path) {
        self.bytes += path.claim();
        self.are_small |= path.wants_window();
    }
}

fn measurements(now: Instant, id: PathId, path: &Path) -> PathStats {
    let (quic_packets_sent, quic_packets_lost) = path.quic_packets();
    PathStats {
        id,
        address: path.remote_address(),
        state: path.state().clone(),
        bytes_received: path.bytes_received(),
        bytes_sent: path.bytes_sent(),
        bytes_acknowledged: path.bytes_acknowledged(),
        packets_received: path.packets_received(),
        packets_sent: path.packets_sent(),
        carriers: path.carriers(),
        rtt: path.rtt(),
        rtt_min: path.rtt_min(),
        rate_bytes_per_second: path.bytes_per_second(now),
        quic_packets_sent,
        quic_packets_lost,
        congestion_window: path.congestion_window(),
        bytes_in_flight: path.bytes_in_flight(),
        blocked_by: path.blocked_by(),
        mtu: path.mtu(),
    }
}
