//! A session at one end: the only place where paths, streams, grants and authentication meet.
//!
//! [`Common`] is what every end has; [`ClientRole`], [`PrimaryRole`] and [`SecondaryRole`] are what one role adds, and
//! work on it. [`Session`] holds both: it gives the parts their turns, hands each input to the role it is for, and
//! ends.

mod client;
mod close;
mod common;
mod credit;
mod event;
mod input;
mod lease;
mod memory;
mod paths;
mod primary;
mod raw;
mod secondary;
#[cfg(test)]
mod tests;
mod transmit;
mod view;
mod view_mut;

use std::time::{Duration, Instant};

use quinn_proto::Transmit as Datagrams;

use self::client::ClientRole;
use self::common::Common;
use self::primary::PrimaryRole;
use self::secondary::SecondaryRole;
use crate::address::Address;
use crate::auth::UnixTime;
use crate::config::ClientConfig;
use crate::error::{DeadReason, Fault, TransportCode};
use crate::id::{PathId, SessionHandle};
use crate::path::Path;
use crate::protocol_event::{EventDetail, EventLog, ProtocolEventKind};
use crate::status::PathState;

pub(crate) use self::client::Dial;
pub use self::event::{
    AddPathError, DelegateError, GrantInfo, PathError, PathEvent, PathInfo, PathStats, PathTarget, RawError, RawPacket,
    Role, SessionEvent, SessionStats,
};
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
    common: Common,
    role: RoleState,
    /// The application did something with the session since its last turn.
    commanded: bool,
}

/// What only one role has.
enum RoleState {
    Client(Box<ClientRole>),
    Primary(Box<PrimaryRole>),
    Secondary(Box<SecondaryRole>),
}

impl Session {
    /// Inputs of one path handled before others get their turn.
    const INPUTS_PER_TURN: usize = 512;

    fn new(common: Common, role: RoleState) -> Self {
        Self { common, role, commanded: false }
    }

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
        self.common.paths.get_mut(path)
    }

    /// The paths whose connections are still open.
    pub(crate) fn paths_mut(&mut self) -> impl Iterator<Item = &mut Path> {
        self.common.paths.iter_mut().map(|(_, path)| path)
    }

    /// Handles what the paths received, then gives them what the session has to send. Returns whether work is left.
    pub(crate) fn pump(&mut self, moment: Moment) -> bool {
        self.commanded = false;
        self.common.paths.look(moment.now);
        let mut more = false;
        // What was received comes before deadlines: an answer that is already here is not overdue.
        for id in self.common.paths.with_news() {
            more |= self.drain_path(moment, id);
        }
        if !more {
            // The age of a slice counts in datagrams whose content was handled, so not while some is left.
            self.common.streams.own_old_slices();
        }
        self.check_time(moment);
        self.fit_windows();
        more |= self.flush(moment);
        more | self.check_drained(moment)
    }

    /// The next thing that the application should know.
    pub(crate) fn poll_event(&mut self) -> Option<SessionEvent> {
        let Self { common, role, .. } = self;
        if common.released {
            return None;
        }
        if let Some(event) = common.events.pop_front() {
            return Some(event);
        }
        if let RoleState::Primary(primary) = role
            && let Some(grant) = primary.poll_changed_delegation()
        {
            return Some(SessionEvent::Delegation(grant));
        }
        if let Some(event) = common.streams.poll_event() {
            return Some(SessionEvent::Stream(event));
        }
        // The end of the session comes last, behind everything that happened before it.
        common.phase.take_notice().map(SessionEvent::Closed)
    }

    pub(crate) fn poll_transmit(&mut self, now: Instant, max_datagrams: usize, buf: &mut Vec<u8>) -> Option<Datagrams> {
        self.common.paths.poll_transmit(now, max_datagrams, buf)
    }

    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let Self { common, role, .. } = self;
        let paths = common.paths.poll_timeout(now);
        // The connections still have to drain.
        if common.phase.is_closed() {
            return paths;
        }
        let role = match role {
            RoleState::Client(client) => client.deadline(common),
            RoleState::Primary(primary) => primary.deadline(),
            RoleState::Secondary(secondary) => secondary.deadline(),
        };
        let credit = common.credit.deadline(&common.streams);
        [paths, role, credit, common.wakes_deadline(now), common.phase.deadline()].into_iter().flatten().min()
    }

    /// The next server to dial.
    pub(crate) fn poll_dial(&mut self) -> Option<Dial> {
        let Self { common, role, .. } = self;
        match role {
            RoleState::Client(client) if !common.phase.is_closed() => client.members.poll_dial(common),
            _ => None,
        }
    }

    /// The endpoint made a connection to a server, or could not.
    pub(crate) fn on_dialed(&mut self, now: Instant, path: PathId, outcome: Result<Path, DeadReason>) {
        if let RoleState::Client(client) = &mut self.role {
            client.on_dialed(&mut self.common, now, path, outcome);
        }
    }

    /// Somebody, who may lie, reports that nothing reaches `remote`: ends the dials to it that received nothing yet.
    /// Returns whether there were any.
    pub(crate) fn on_unreachable(&mut self, now: Instant, remote: Address, reason: &str) -> bool {
        let is_dial = |path: &Path| path.is_unheard_dial() && path.remote_address() == remote.into();
        let dials: Vec<PathId> = self.common.paths.iter().filter(|(_, path)| is_dial(path)).map(|(id, _)| id).collect();
        for id in &dials {
            self.close_path(now, *id, DeadReason::new(TransportCode::UNREACHABLE, reason));
        }
        !dials.is_empty()
    }

    /// Whether there is a dial that heard nothing yet.
    pub(crate) fn has_unheard_dial(&self) -> bool {
        self.common.paths.iter().any(|(_, path)| path.is_unheard_dial())
    }

    /// What a client's further connections are made with.
    pub(crate) fn client_config(&self) -> Option<ClientConfig> {
        match &self.role {
            RoleState::Client(client) => Some(client.config.clone()),
            RoleState::Primary(_) | RoleState::Secondary(_) => None,
        }
    }

    /// Drops connections that are drained, once QUIC's endpoint knows it.
    pub(crate) fn reap(&mut self) {
        self.common.paths.reap();
    }

    /// Whether nothing is left: the session is closed and released by its application, and every connection is drained.
    pub(crate) fn is_finished(&self) -> bool {
        self.common.released && self.common.phase.is_closed() && self.common.paths.is_empty()
    }

    /// The application lets go; what was finished is still delivered.
    pub(crate) fn release(&mut self, now: Instant) {
        self.drop_events();
        self.close(now, 0, "");
    }

    /// Ends the session since no application accepts it.
    pub(crate) fn refuse(&mut self, now: Instant) {
        self.drop_events();
        self.fail(now, DeadReason::new(TransportCode::SERVER_BUSY, "nobody accepts sessions"));
    }

    fn drop_events(&mut self) {
        self.common.released = true;
        self.common.events.clear();
        if let RoleState::Primary(primary) = &mut self.role {
            primary.drop_changed_delegations();
        }
    }

    // ---- protocol events

    /// The session begins, and so much of it is noted.
    pub(crate) fn begin_log(&mut self, detail: EventDetail) {
        let common = &mut self.common;
        common.log = EventLog::new(detail);
        if let Some(remote) = common.main_address() {
            common.log.change(None, || ProtocolEventKind::SessionBegun { remote });
        }
        if let Some(id) = common.id {
            common.log.change(None, || ProtocolEventKind::SessionEstablished { id });
        }
    }

    /// Hands over what was noted of the session and its paths.
    pub(crate) fn drain_log(&mut self, session: SessionHandle, into: &mut EventLog) {
        self.common.collect_path_logs();
        into.append(session, &mut self.common.log);
    }

    // ---- a turn

    fn drain_path(&mut self, moment: Moment, id: PathId) -> bool {
        for _ in 0..Self::INPUTS_PER_TURN {
            let common = &mut self.common;
            let Some(path) = common.paths.get_mut(id) else { return false };
            // Datagrams count before what they brought is handled, since slices are measured against them.
            let (bytes, input) = (path.take_datagram_bytes(), path.poll(moment.now));
            common.log.append_path(id, path.log_mut());
            if bytes > 0 {
                common.paths.on_received();
                common.streams.on_arrived(id, bytes);
            }
            let Some(input) = input else { return false };
            self.on_input(moment, id, input);
        }
        true
    }

    fn check_time(&mut self, moment: Moment) {
        let Self { common, role, .. } = self;
        if common.phase.is_closed() {
            return;
        }
        common.check_wakes(moment.now);
        match role {
            // What a client waits for is a state of its paths, and they say when it takes too long.
            RoleState::Client(_) => {}
            RoleState::Primary(primary) => primary.check_time(common, moment.now),
            RoleState::Secondary(secondary) => {
                if let Some(reason) = secondary.check_time(common, moment.now) {
                    self.fail(moment.now, reason);
                }
            }
        }
    }

    /// Gives the paths everything that is to be sent. Returns whether work is left.
    fn flush(&mut self, moment: Moment) -> bool {
        if self.common.phase.is_closed() {
            return false;
        }
        // Slots that come free now are announced in this turn.
        self.common.credit.give_out(moment.now, &mut self.common.streams);
        // Before commands: OPEN_STREAM must leave before a GRANT names its stream ([P-5.7]). Where there was no room
        // for it, there is none for commands either.
        self.flush_stream_control();
        let mut more = false;
        let Self { common, role, .. } = self;
        match role {
            RoleState::Client(client) => {
                if let Some((path, fault)) = client.flush(common, moment.now) {
                    self.on_fault(moment.now, path, &fault);
                    // The primary is still to hear of it.
                    more = true;
                }
            }
            RoleState::Primary(primary) => primary.flush(common, moment),
            RoleState::Secondary(secondary) => secondary.flush(common, moment.now),
        }
        // CLOSE goes behind what was said before it.
        self.flush_close();
        let Common { paths, streams, .. } = &mut self.common;
        let (main, has_sendable) = (paths.main_id(), streams.has_sendable());
        // The peer lets go of streams, and gives credit for others, when it knows that their bytes arrived.
        if streams.awaits_stream_credit()
            && let Some(path) = paths.main_mut()
        {
            path.hasten_report(moment.now);
        }
        for (id, path) in paths.iter_mut() {
            let is_sending = has_sendable && id == main;
            if !is_sending && !path.is_touched() {
                continue;
            }
            // State that found no room on the control plane goes next, if there is room now.
            let was_full = !path.is_control_ready();
            path.flush(moment.now, is_sending);
            more |= was_full && path.is_control_ready();
        }
        // Streams that were freed above may be worth credit at once.
        more |= self.common.credit.deadline(&self.common.streams).is_some_and(|at| at <= moment.now);
        more | self.flush_data()
    }

    fn flush_stream_control(&mut self) {
        if !self.can_send_streams() {
            return;
        }
        let Self { common, role, .. } = self;
        while common.paths.main_with_room().is_some() {
            let Some(control) = common.streams.poll_control() else { return };
            if let (Some(stream), RoleState::Client(client)) = (common.announce(control), &mut *role) {
                client.on_limit_raised(common, stream);
            }
        }
    }

    fn flush_data(&mut self) -> bool {
        if !self.can_send_streams() {
            return false;
        }
        let Self { common: Common { paths, streams, transmit, .. }, role, .. } = self;
        let Some(main) = paths.main_mut() else { return false };
        let more = transmit.flush_streams(streams, main);
        if let RoleState::Client(client) = role {
            for (id, path) in paths.iter_mut() {
                if client.can_relay(id, path.state()) {
                    transmit.flush_relay(&mut client.relay, id, path);
                }
            }
        }
        more
    }

    /// Whether frames about the application's streams may be sent on the main path.
    fn can_send_streams(&self) -> bool {
        let Some(main) = self.common.paths.main() else { return false };
        match &self.role {
            RoleState::Client(client) => client.can_send_streams(main.state()),
            RoleState::Primary(_) | RoleState::Secondary(_) => main.state().is_usable(),
        }
    }
}

fn violation(detail: &'static str) -> Fault {
    Fault::new(TransportCode::PROTOCOL_VIOLATION, detail)
}

/// The reason for closing a path that stays in a state for longer than it may.
fn overdue(state: &PathState, is_main: bool) -> DeadReason {
    match state {
        PathState::Connecting => DeadReason::new(TransportCode::UNREACHABLE, "the server did not answer in time"),
        PathState::Closing => DeadReason::new(TransportCode::GOING_AWAY, "the server did not close in time"),
        _ if is_main => DeadReason::new(TransportCode::AUTH_TIMEOUT, "the primary did not answer HELLO in time"),
        _ => DeadReason::new(TransportCode::AUTH_TIMEOUT, "the server did not answer in time"),
    }
}
