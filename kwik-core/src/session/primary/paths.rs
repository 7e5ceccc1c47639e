//! The paths of the client to other servers, at the primary: added, reported, and removed (PROTOCOL.md §8).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::PrimaryRole;
use crate::address::Address;
use crate::auth::{TICKET_LIFETIME, Ticket};
use crate::error::{DeadReason, Fault, FrameEffect, TransportCode};
use crate::id::PathId;
use crate::limits::{self, PATHS_REMEMBERED_MAX};
use crate::protocol_event::ProtocolEventKind;
use crate::session::common::Common;
use crate::session::event::{AddPathError, PathError, PathEvent, PathInfo, PathTarget, SessionEvent};
use crate::session::{Moment, violation};
use crate::status::{GrantStatus, PathState};
use crate::wire::{AddPath, PathStatus, WirePathState};

/// The paths of the client to other servers, as far as the primary knows them.
pub(super) struct RemotePaths {
    paths: BTreeMap<PathId, RemotePath>,
    /// The largest path id that was added.
    last: PathId,
    /// Until when the client must have answered ADD_PATH or REMOVE_PATH, by path.
    unanswered: BTreeMap<PathId, Instant>,
}

/// A path as the client reports it. Its state is what the client said last, or that it is to be removed:
///
/// ```text
///                  joined               suspect
///   Connecting ─────────────▶ Active ◀───────────▶ Suspect
///        │                       │    recovered        │
///        │ remove_path           │                     │
///        ▼                       ▼                     ▼
///     Closing ◀──────────────────┴─────────────────────┘
///        │
///        ▼  reported dead, refused, or never answered (from every state)
///      Dead
/// ```
struct RemotePath {
    info: PathInfo,
    next_grant_sequence: u64,
}

impl RemotePath {
    /// Returns what the application is to hear of the move, if the path moves.
    fn move_to(&mut self, state: PathState) -> Option<PathEvent> {
        let id = self.info.id;
        let before = &self.info.state;
        debug_assert!(!before.is_dead(), "{before:?} to {state:?}");
        let event = match (before, &state) {
            (before, state) if before == state => return None,
            // Until the client says that the path is dead.
            (PathState::Closing, PathState::Active | PathState::Suspect) => return None,
            (_, PathState::Dead(reason)) => PathEvent::Dead { path: id, reason: reason.clone() },
            (PathState::Suspect, PathState::Active) => PathEvent::Recovered(id),
            (_, PathState::Suspect) => PathEvent::Suspect(id),
            _ => PathEvent::Joined(id),
        };
        self.info.state = state;
        Some(event)
    }
}

/// Whether a primary that has a path in this state wants it to live.
pub(super) fn is_wanted(state: &PathState) -> bool {
    !state.is_dead() && *state != PathState::Closing
}

impl Default for RemotePaths {
    fn default() -> Self {
        Self { paths: BTreeMap::new(), last: PathId::PRIMARY, unanswered: BTreeMap::new() }
    }
}

impl RemotePaths {
    pub(super) fn infos(&self) -> impl Iterator<Item = &PathInfo> {
        self.paths.values().map(|path| &path.info)
    }

    pub(super) fn info(&self, id: PathId) -> Option<&PathInfo> {
        self.paths.get(&id).map(|path| &path.info)
    }

    /// Whether a path with this id, or the primary's own, was ever there.
    pub(super) fn was_added(&self, id: PathId) -> bool {
        id <= self.last
    }

    /// The number of the next grant for a path that may be delegated to.
    pub(super) fn grant_sequence(&mut self, id: PathId) -> Option<&mut u64> {
        self.paths.get_mut(&id).map(|path| &mut path.next_grant_sequence)
    }

    // ---- answers

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.unanswered.values().copied().min()
    }

    /// The paths about which an answer of the client is overdue.
    pub(super) fn overdue(&self, now: Instant) -> Vec<PathId> {
        self.unanswered.iter().filter(|(_, due)| now >= **due).map(|(path, _)| *path).collect()
    }

    /// A command about a path leaves, and the client must answer it.
    pub(super) fn await_answer(&mut self, id: PathId, due: Option<Instant>) {
        if !self.info(id).is_some_and(|info| info.state.is_dead()) {
            self.unanswered.extend(due.map(|due| (id, due)));
        }
    }

    // ---- ids

    fn alive(&self) -> usize {
        self.infos().filter(|info| !info.state.is_dead()).count()
    }

    fn insert(&mut self, info: PathInfo) {
        if self.paths.len() >= PATHS_REMEMBERED_MAX {
            self.forget_first_dead();
        }
        self.paths.insert(info.id, RemotePath { info, next_grant_sequence: 0 });
    }

    fn forget_first_dead(&mut self) {
        let first = self.infos().find(|info| info.state.is_dead()).map(|info| info.id);
        first.and_then(|id| self.paths.remove(&id));
    }
}

impl PrimaryRole {
    // ---- the application's calls

    pub(in crate::session) fn add_path(
        &mut self,
        cx: &Common,
        moment: Moment,
        target: PathTarget,
    ) -> Result<PathId, AddPathError> {
        let limit = cx.limits.paths_max;
        if !cx.is_open() {
            return Err(AddPathError::SessionClosed);
        }
        let name = &target.server_name;
        if name.is_empty()
            || name.len() > limits::SERVER_NAME_BYTES_MAX
            || !name.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(AddPathError::InvalidServerName(target.server_name));
        }
        let Some(address) = Address::new(target.address).map(SocketAddr::from) else {
            return Err(AddPathError::InvalidAddress(target.address));
        };
        // Path 0 counts too. A closing path counts until it is dead, since the client counts it so long.
        let next = self.remote.last.0.checked_add(1).filter(|_| self.remote.alive() + 1 < limit);
        let path = PathId(next.ok_or(AddPathError::LimitReached { limit })?);
        self.remote.last = path;
        let epoch = self.next_epoch();
        let ticket = Ticket {
            session: self.session,
            path,
            epoch,
            issuer: self.identity.public(),
            secondary: target.identity,
            server_name: target.server_name.clone(),
            client_key: self.client_key,
            issued_at: moment.wall,
            expires_at: moment.wall.saturating_add(TICKET_LIFETIME),
            lease: cx.limits.path_lease,
        };
        self.remote.insert(PathInfo {
            id: path,
            address,
            identity: target.identity,
            state: PathState::Connecting,
            rtt: Duration::ZERO,
            rtt_min: Duration::ZERO,
            rate_bytes_per_second: 0,
            bytes: 0,
            bytes_outstanding: 0,
        });
        self.commands.add_path(AddPath {
            path,
            epoch,
            address,
            server_name: target.server_name,
            identity: *target.identity.as_bytes(),
            ticket: ticket.sign(&self.identity),
        });
        self.renewals.begin(moment.now);
        Ok(path)
    }

    pub(in crate::session) fn remove_path(&mut self, cx: &mut Common, id: PathId) -> Result<(), PathError> {
        if id.is_primary() {
            return Err(PathError::Primary);
        }
        let path = self.remote.paths.get_mut(&id).ok_or(PathError::Unknown(id))?;
        if !is_wanted(&path.info.state) {
            return Ok(());
        }
        if self.commands.holds_add_path(id) {
            // ADD_PATH did not leave, so the client never knows the path.
            self.on_path_dead(cx, id, DeadReason::new(TransportCode::PATH_REMOVED, ""));
            return Ok(());
        }
        path.info.state = PathState::Closing;
        cx.log.change(id, || ProtocolEventKind::PathChanged { state: PathState::Closing });
        self.remove_at_client(id);
        Ok(())
    }

    // ---- the client's reports

    pub(in crate::session) fn on_path_status(
        &mut self,
        cx: &mut Common,
        status: &PathStatus,
    ) -> Result<FrameEffect, Fault> {
        let id = status.path;
        if id.is_primary() {
            return Ok(FrameEffect::NoOp);
        }
        if !self.remote.was_added(id) || self.commands.holds_add_path(id) {
            return Err(violation("PATH_STATUS of a path that was never added"));
        }
        // Nothing follows Dead but what crossed it. Paths that died long ago are forgotten.
        let path = self.remote.paths.get_mut(&id).filter(|path| !path.info.state.is_dead());
        let Some(RemotePath { info, .. }) = path else { return Ok(FrameEffect::NoOp) };
        let state = match status.state {
            WirePathState::Active => PathState::Active,
            WirePathState::Suspect => PathState::Suspect,
            WirePathState::Dead => PathState::Dead(DeadReason::new(status.code, "")),
        };
        if !state.is_dead() {
            (info.rtt, info.rtt_min) = (status.rtt, status.rtt_min);
            info.rate_bytes_per_second = status.rate;
            info.bytes = status.bytes;
        }
        // Only Dead answers REMOVE_PATH; any status answers ADD_PATH ([P-8.20]).
        if state.is_dead() || info.state != PathState::Closing {
            self.remote.unanswered.remove(&id);
        }
        if let PathState::Dead(reason) = state {
            self.on_path_dead(cx, id, reason);
            return Ok(FrameEffect::Progress);
        }
        let event = self.remote.paths.get_mut(&id).and_then(|path| path.move_to(state.clone()));
        let Some(event) = event else { return Ok(FrameEffect::NoOp) };
        cx.log.change(id, || ProtocolEventKind::PathChanged { state });
        // Measurements, Suspect and Recovered count as no-op frames, which are tolerated at their pace ([P-5.16]).
        let has_begun = matches!(event, PathEvent::Joined(_));
        cx.emit(SessionEvent::Path(event));
        Ok(if has_begun { FrameEffect::Progress } else { FrameEffect::NoOp })
    }

    /// The client did not answer about a path: the path is taken for dead, and its delegations for lost.
    pub(super) fn give_up_path(&mut self, cx: &mut Common, id: PathId) {
        self.remote.unanswered.remove(&id);
        let Some(info) = self.remote.info(id).filter(|info| !info.state.is_dead()) else { return };
        let was_removed = info.state == PathState::Closing;
        let code = TransportCode::UNANSWERED;
        let reason = DeadReason::new(code, "the client did not say what became of the path");
        let changes = self.delegations.path_lost(id, code.into());
        self.on_path_dead(cx, id, reason);
        changes.into_iter().for_each(|change| self.on_delegation_changed(cx, change));
        if !was_removed {
            // Behind `on_path_dead`, which drops every command about the path that still waits.
            self.remove_at_client(id);
        }
    }

    /// A path is over. Commands about it and raw packets for it that did not leave are dropped.
    fn on_path_dead(&mut self, cx: &mut Common, id: PathId, reason: DeadReason) {
        let code = reason.code;
        self.crowded.remove(&id);
        self.commands.drop_path(id);
        let mut changes = Vec::new();
        // The client does not know these. It still sends a last status for each of the others.
        for grant in self.commands.grants_for(id) {
            self.commands.drop_grant(grant);
            changes.extend(self.delegations.annul(grant, code));
        }
        let unsent = self.raw.on_path_lost(id);
        let state = PathState::Dead(reason);
        let event = self.remote.paths.get_mut(&id).and_then(|path| path.move_to(state.clone()));
        cx.log.change(id, || ProtocolEventKind::PathChanged { state });
        event.into_iter().for_each(|event| cx.emit(SessionEvent::Path(event)));
        for sequence in unsent {
            let result = Err(TransportCode::PATH_UNKNOWN.into());
            cx.emit(SessionEvent::RawStatus { to: id, sequence, result });
        }
        for change in changes {
            let status = GrantStatus::Lost { code, missing: change.missing.clone() };
            cx.log.change(id, || ProtocolEventKind::of_grant(change.grant, &status));
            self.on_delegation_changed(cx, change);
        }
        self.announce_room(cx);
    }
}
