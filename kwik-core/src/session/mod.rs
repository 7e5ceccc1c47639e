//! A session at one end: the only place where paths, streams and authentication meet.

mod abuse;
mod client;
mod close;
mod commands;
mod credit;
mod event;
mod input;
mod lease;
mod log;
mod members;
mod memory;
mod notices;
mod primary;
mod raw;
mod relay;
mod secondary;
#[cfg(test)]
mod tests;
mod transmit;
mod view;
mod view_mut;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use quinn_proto::Transmit as Datagrams;
use smallvec::SmallVec;

use self::client::ClientRole;
use self::close::Phase;
use self::credit::StreamCredit;
use self::memory::PathWindows;
use self::notices::Notice;
use self::primary::PrimaryRole;
use self::secondary::SecondaryRole;
use self::transmit::Transmit;
use crate::auth::UnixTime;
use crate::error::{DeadReason, TransportCode};
use crate::id::{GrantId, PathId, SessionId, StreamId, StreamOffset};
use crate::limits::Limits;
use crate::path::Path;
use crate::protocol_event::EventLog;
use crate::status::PathState;
use crate::stream::{StreamControl, StreamTable};
use crate::wire::{ControlFrame, GrantEnd, MaxStreamData, MaxStreams, OpenStream, Params, ResetStream, StopSending};

pub use self::event::{
    AddPathError, DelegateError, GrantInfo, PathError, PathEvent, PathInfo, PathStats, PathTarget, RawError, RawPacket,
    Role, SessionEvent, SessionStats,
};
pub(crate) use self::members::Dial;
pub(crate) use self::primary::NewPrimary;
pub(crate) use self::secondary::NewSecondary;
pub use self::view::Stream;
pub use self::view_mut::{SessionMut, StreamMut};

/// The moment of a call: the monotonic clock, and the wall clock for tickets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    pub(crate) wall: UnixTime,
}

/// Turns the caller's monotonic time into moments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    unix_at_start: Duration,
}

impl Clock {
    pub(crate) fn new(start: Instant, unix_at_start: Duration) -> Self {
        Self { start, unix_at_start }
    }

    pub(crate) fn at(&self, now: Instant) -> Moment {
        let unix = self.unix_at_start.saturating_add(now.saturating_duration_since(self.start));
        Moment { now, wall: UnixTime::new(unix) }
    }
}

/// One end of one session. An [`Endpoint`](crate::Endpoint) lends it, to be looked at as it is, to be commanded as a
/// [`SessionMut`].
pub struct Session {
    id: Option<SessionId>,
    limits: Limits,
    role: RoleState,
    paths: BTreeMap<PathId, Box<Path>>,
    /// What remains of paths that are gone.
    gone: VecDeque<PathStats>,
    /// The path that carries what the application writes here.
    home: PathId,
    streams: StreamTable,
    windows: PathWindows,
    credit: StreamCredit,
    transmit: Transmit,
    /// When room that writers were told of and did not come for is told to others.
    wakes_due: Option<Instant>,
    phase: Phase,
    /// Streams that were finished here and of which the peer may not have all, once the session ended.
    undelivered: Vec<StreamId>,
    events: VecDeque<SessionEvent>,
    /// Delegations the application is to look at.
    delegations_changed: BTreeSet<GrantId>,
    /// The application let go of the session: no more events.
    released: bool,
    /// The application did something with the session since its last turn.
    commanded: bool,
    /// What the protocol did, for whoever wants to know.
    log: EventLog,
}

/// What only one role has.
enum RoleState {
    Client(Box<ClientRole>),
    Primary(Box<PrimaryRole>),
    Secondary(Box<SecondaryRole>),
}

impl Session {
    fn assemble(
        now: Instant,
        id: Option<SessionId>,
        limits: Limits,
        role: RoleState,
        (home, path): (PathId, Path),
        streams: StreamTable,
    ) -> Self {
        let mut machine = Self {
            id,
            windows: PathWindows::default(),
            credit: StreamCredit::new(now, &limits),
            limits,
            role,
            paths: BTreeMap::from([(home, Box::new(path))]),
            gone: VecDeque::new(),
            home,
            streams,
            transmit: Transmit::default(),
            wakes_due: None,
            phase: Phase::new(),
            undelivered: Vec::new(),
            events: VecDeque::new(),
            delegations_changed: BTreeSet::new(),
            released: false,
            commanded: false,
            log: EventLog::default(),
        };
        machine.count_windows();
        machine
    }

    /// Inputs of one path handled before others get their turn.
    const INPUTS_PER_TURN: usize = 512;
    const GONE_MAX: usize = 64;
    /// How long a writer that was woken may take to write before others are woken in its place.
    const WAKE_PATIENCE: Duration = Duration::from_millis(10);

    /// The application does something with the session, which is to have a turn.
    fn command(&mut self) -> &mut Self {
        self.commanded = true;
        self
    }

    // ---- the endpoint's calls

    /// Whether the application did something with the session since its last turn.
    pub(crate) fn is_commanded(&self) -> bool {
        self.commanded
    }

    pub(crate) fn path_mut(&mut self, path: PathId) -> Option<&mut Path> {
        self.paths.get_mut(&path).map(Box::as_mut)
    }

    /// The paths whose connections are still open.
    pub(crate) fn paths_mut(&mut self) -> impl Iterator<Item = &mut Path> {
        self.paths.values_mut().map(Box::as_mut)
    }

    /// Handles what paths received, then hands to them what the session has to say. Returns whether work is left.
    pub(crate) fn pump(&mut self, moment: Moment) -> bool {
        self.commanded = false;
        let mut more = false;
        let news = self.paths.iter().filter(|(_, path)| path.has_news());
        let ids: SmallVec<[PathId; 8]> = news.map(|(id, _)| *id).collect();
        for id in ids {
            more |= self.drain_path(moment, id);
        }
        if !more {
            self.streams.own_old_slices();
        }
        self.check_time(moment);
        self.fit_windows();
        more |= self.flush(moment);
        more | self.check_drained(moment)
    }

    /// The next thing to tell the application.
    pub(crate) fn poll_event(&mut self) -> Option<SessionEvent> {
        if self.released {
            return None;
        }
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if let Some(grant) = self.delegations_changed.pop_first() {
            return Some(SessionEvent::Delegation(grant));
        }
        if let Some(event) = self.streams.poll_event() {
            return Some(SessionEvent::Stream(event));
        }
        self.phase.take_notice().map(SessionEvent::Closed)
    }

    pub(crate) fn poll_transmit(&mut self, now: Instant, max_datagrams: usize, buf: &mut Vec<u8>) -> Option<Datagrams> {
        let mut touched = self.paths.values_mut().filter(|path| path.is_touched());
        touched.find_map(|path| path.poll_transmit(now, max_datagrams, buf))
    }

    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let paths = self.paths.values_mut().filter_map(|path| path.poll_timeout(now)).min();
        let role = match &self.role {
            RoleState::Client(client) => {
                client.deadline(self.paths.get(&self.home).is_some_and(|home| home.is_control_ready()))
            }
            RoleState::Primary(primary) => primary.deadline(),
            RoleState::Secondary(secondary) => secondary.deadline(),
        };
        let credit = self.credit.deadline(&self.streams);
        let wakes = self.wakes_deadline(now);
        let [role, credit, wakes] = [role, credit, wakes].map(|at| at.filter(|_| !self.phase.is_closed()));
        [paths, role, credit, wakes, self.phase.deadline()].into_iter().flatten().min()
    }

    /// The next server to dial.
    pub(crate) fn poll_dial(&mut self, moment: Moment) -> Option<Dial> {
        if self.phase.is_closed() {
            return None;
        }
        match &mut self.role {
            RoleState::Client(client) => client.members.poll_dial(moment.now, &self.limits),
            RoleState::Primary(_) | RoleState::Secondary(_) => None,
        }
    }

    /// Nothing is left: closed, told, and every connection drained.
    pub(crate) fn is_finished(&self) -> bool {
        self.released && self.phase.is_closed() && self.paths.is_empty()
    }

    /// The application lets go; what was finished is still delivered.
    pub(crate) fn release(&mut self, now: Instant) {
        self.released = true;
        self.events.clear();
        self.delegations_changed.clear();
        self.close(now, 0, "");
    }

    /// Nobody takes care of the session.
    pub(crate) fn refuse(&mut self, now: Instant) {
        self.released = true;
        self.events.clear();
        self.delegations_changed.clear();
        self.fail(now, TransportCode::SERVER_BUSY, "nobody accepts sessions");
    }

    // ---- what the roles share

    fn emit(&mut self, event: SessionEvent) {
        if !self.released {
            self.events.push_back(event);
        }
    }

    fn home_mut(&mut self) -> Option<&mut Path> {
        self.paths.get_mut(&self.home).map(Box::as_mut)
    }

    fn home_address(&self) -> Option<SocketAddr> {
        self.paths.get(&self.home).map(|path| path.remote_address())
    }

    fn params(&self) -> Params {
        params(&self.limits)
    }

    fn drain_path(&mut self, moment: Moment, id: PathId) -> bool {
        for _ in 0..Self::INPUTS_PER_TURN {
            let Some(path) = self.paths.get_mut(&id) else { return false };
            let (bytes, input) = (path.take_datagram_bytes(), path.poll(moment.now));
            if bytes > 0 {
                self.windows.on_heard();
                self.streams.on_arrived(id, bytes);
            }
            let Some(input) = input else { return false };
            self.on_input(moment, id, input);
        }
        true
    }

    /// Hands to the paths all there is to say. Returns whether work is left.
    fn flush(&mut self, moment: Moment) -> bool {
        if self.phase.is_closed() {
            return false;
        }
        self.credit.give_out(moment.now, &mut self.streams);
        self.flush_stream_control();
        match &self.role {
            RoleState::Client(_) => self.flush_client(moment),
            RoleState::Primary(_) => self.flush_primary(moment),
            RoleState::Secondary(_) => self.flush_secondary(moment.now),
        }
        self.flush_close();
        self.log_sent();
        let mut more = false;
        for path in self.paths.values_mut().filter(|path| path.is_touched()) {
            // State that found no room on the control plane goes next, if there is room now.
            let was_full = !path.is_control_ready();
            path.flush(moment.now);
            more |= was_full && path.is_control_ready();
        }
        // Streams that were freed above may be worth credit at once.
        more |= self.credit.deadline(&self.streams).is_some_and(|at| at <= moment.now);
        more |= self.flush_data();
        self.log_sent();
        more
    }

    fn flush_stream_control(&mut self) {
        if !self.can_send_streams() {
            return;
        }
        while self.home_mut().is_some_and(|home| home.is_control_ready()) {
            let Some(control) = self.streams.poll_control() else { return };
            self.route(control);
        }
    }

    /// Tells one piece of stream state on every path it concerns.
    fn route(&mut self, control: StreamControl) {
        let (frame, raised) = match control {
            StreamControl::Open { id, priority, limit } => {
                (OpenStream { stream: id, priority, limit: StreamOffset(limit) }.into(), None)
            }
            StreamControl::Reset { id, code, final_size } => {
                (ResetStream { stream: id, code, final_size: StreamOffset(final_size) }.into(), None)
            }
            // Secondaries were told when the stream was over for them.
            StreamControl::Stop { id, code, conflict } => (StopSending { stream: id, code, conflict }.into(), None),
            StreamControl::MaxStreamData { id, limit } => {
                (MaxStreamData { stream: id, limit: StreamOffset(limit) }.into(), Some(id))
            }
            StreamControl::MaxStreams { dir, max } => (MaxStreams { dir, max }.into(), None),
            StreamControl::PartEnd { grant, end, code } => {
                (ControlFrame::from(GrantEnd { grant, end: StreamOffset(end), code }), None)
            }
        };
        if let Some(home) = self.paths.get_mut(&self.home).filter(|home| home.is_hearing()) {
            home.queue_control(&frame);
        }
        if let (RoleState::Client(client), Some(stream)) = (&mut self.role, raised) {
            // What a path that hears nothing yet misses comes with its grants.
            let hears = |path: &PathId| self.paths.get(path).is_some_and(|path| path.is_hearing());
            for path in client.grants.writers(stream).filter(hears) {
                client.notices.push(path, Notice::Raised(stream));
            }
        }
    }

    fn flush_data(&mut self) -> bool {
        if !self.can_send_streams() {
            return false;
        }
        let Some(home) = self.paths.get_mut(&self.home) else { return false };
        let more = self.transmit.flush_streams(&mut self.streams, home);
        if let RoleState::Client(client) = &mut self.role {
            for (id, path) in &mut self.paths {
                if client.can_relay(*id, path.state()) {
                    self.transmit.flush_relay(&mut client.relay, *id, path);
                }
            }
        }
        more
    }

    /// Whether the application's streams may be spoken of on the home path.
    fn can_send_streams(&self) -> bool {
        let Some(home) = self.paths.get(&self.home) else { return false };
        match &self.role {
            RoleState::Client(client) => client.can_send_streams(home.state()),
            RoleState::Primary(_) | RoleState::Secondary(_) => home.state().is_usable(),
        }
    }

    fn wakes_deadline(&mut self, now: Instant) -> Option<Instant> {
        let due = self.wakes_due.or_else(|| now.checked_add(Self::WAKE_PATIENCE));
        self.wakes_due = due.filter(|_| self.streams.has_unused_wakes());
        self.wakes_due
    }

    fn check_time(&mut self, moment: Moment) {
        if self.phase.is_closed() {
            return;
        }
        if self.wakes_due.is_some_and(|due| due <= moment.now) {
            self.wakes_due = None;
            self.streams.pass_on_wakes();
        }
        match &self.role {
            RoleState::Client(_) => self.check_deadlines(moment),
            RoleState::Primary(_) => {
                self.check_answers(moment.now);
                self.renew_leases(moment.now);
            }
            RoleState::Secondary(_) => self.check_lease(moment),
        }
    }

    /// Forgets connections that are drained, once QUIC's endpoint was told so; keeps what they achieved.
    pub(crate) fn reap(&mut self) {
        while let Some(id) =
            self.paths.iter().find(|(_, path)| path.is_drained() && path.state().is_dead()).map(|(id, _)| *id)
        {
            let Some(path) = self.paths.remove(&id) else { return };
            self.count_windows();
            self.remember(path_stats(id, &path));
        }
    }

    fn remember(&mut self, stats: PathStats) {
        if self.gone.len() >= Self::GONE_MAX {
            self.gone.pop_front();
        }
        self.gone.push_back(stats);
    }
}

/// The transport parameters that follow from the limits.
pub(crate) fn params(limits: &Limits) -> Params {
    Params {
        streams_bidi: limits.streams_bidi_max,
        streams_uni: limits.streams_uni_max,
        stream_window_initial: limits.stream_window_initial_bytes,
    }
}

fn path_stats(id: PathId, path: &Path) -> PathStats {
    PathStats {
        id,
        address: path.remote_address(),
        state: path.state().clone(),
        bytes_received: path.bytes_received(),
        bytes_sent: path.bytes_sent(),
        packets_received: path.packets_received(),
        packets_sent: path.packets_sent(),
        carriers: path.carriers(),
        rtt: path.rtt(),
        rate_bytes_per_second: path.bytes_per_second(),
        mtu: path.mtu(),
    }
}

/// What a path that never connected leaves behind.
fn unconnected_stats(id: PathId, address: SocketAddr, reason: DeadReason) -> PathStats {
    PathStats {
        id,
        address,
        state: PathState::Dead(reason),
        bytes_received: 0,
        bytes_sent: 0,
        packets_received: 0,
        packets_sent: 0,
        carriers: 0,
        rtt: Duration::ZERO,
        rate_bytes_per_second: 0,
        mtu: 0,
    }
}
