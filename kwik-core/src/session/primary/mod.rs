//! The primary's part: it begins the session, commands paths and delegates ranges (PROTOCOL.md §8).

mod commands;
mod delegate;
mod paths;

use std::collections::BTreeSet;
use std::time::Instant;

use self::commands::Commands;
pub(super) use self::delegate::Extent;
use self::paths::RemotePaths;
use super::common::{Common, send_welcome};
use super::event::{PathEvent, PathInfo, SessionEvent};
use super::lease::Renewals;
use super::raw::RawEnd;
use super::{Moment, RoleState, Session, violation};
use crate::auth::{self, Identity, PublicIdentity, UnixTime};
use crate::error::{DeadReason, ErrorCode, Fault, FrameEffect, TransportCode};
use crate::grant::Delegations;
use crate::id::{Epoch, GrantId, PathId, RangeConflict, SessionId, Side, StreamId};
use crate::limits::{self, Limits};
use crate::path::Path;
use crate::status::GrantStatus;
use crate::stream::{StreamTable, TableRole};
use crate::wire::{AddPath, ControlFrame, Hello, Lease, RawForward, RemovePath};

/// What only a primary keeps.
pub(super) struct PrimaryRole {
    session: SessionId,
    identity: Identity,
    client_key: PublicIdentity,
    /// The paths of the client to other servers.
    remote: RemotePaths,
    /// The epoch of the last command.
    epoch: Epoch,
    delegations: Delegations,
    /// Delegations that the application is to look at.
    changed: BTreeSet<GrantId>,
    /// Paths for which a delegation was refused for want of room, until the application hears that there is some.
    crowded: BTreeSet<PathId>,
    pub(super) raw: RawEnd,
    renewals: Renewals,
    pub(super) commands: Commands,
}

/// What a session begins with.
pub(crate) struct NewPrimary {
    pub(crate) session: SessionId,
    pub(crate) identity: Identity,
    pub(crate) limits: Limits,
    pub(crate) hello: Hello,
    pub(crate) exporter: [u8; 32],
    pub(crate) client_key: PublicIdentity,
}

impl Session {
    /// The session that a client's HELLO begins here.
    pub(crate) fn new_primary(moment: Moment, new: NewPrimary, mut path: Path) -> Self {
        let NewPrimary { session, identity, limits, hello, exporter, client_key } = new;
        let mut streams = StreamTable::new(Side::Server, TableRole::Primary, &limits);
        let theirs = hello.params;
        let agreed = streams.on_peer_params(theirs.streams_bidi, theirs.streams_uni, theirs.stream_window_initial);
        send_welcome(&mut path, (session, PathId::PRIMARY), (&identity, &client_key), &exporter, &limits);
        let role = PrimaryRole {
            session,
            raw: RawEnd::new(moment.now, (session, PathId::PRIMARY), identity.clone(), &limits),
            identity,
            client_key,
            remote: RemotePaths::default(),
            epoch: Epoch::default(),
            delegations: Delegations::new(&limits),
            changed: BTreeSet::new(),
            crowded: BTreeSet::new(),
            renewals: Renewals::new(&limits),
            commands: Commands::new(&limits),
        };
        let mut common = Common::new(moment.now, Some(session), limits, (PathId::PRIMARY, path), streams);
        common.emit(SessionEvent::Incoming);
        let mut new = Self::new(common, RoleState::Primary(Box::new(role)));
        // The decoder refuses such parameters already. Were there any, the session must exist for its path to be
        // closed.
        if let Err(fault) = agreed {
            new.fail(moment.now, DeadReason::new(fault.code, fault.detail));
        }
        new
    }

    pub(super) fn as_primary(&mut self) -> Option<(&mut PrimaryRole, &mut Common)> {
        match &mut self.role {
            RoleState::Primary(primary) => Some((primary, &mut self.common)),
            RoleState::Client(_) | RoleState::Secondary(_) => None,
        }
    }
}

impl PrimaryRole {
    // ---- looks

    pub(super) fn own_identity(&self) -> PublicIdentity {
        self.identity.public()
    }

    /// Every path but the primary's own.
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathInfo> {
        self.remote.infos()
    }

    pub(super) fn path(&self, id: PathId) -> Option<&PathInfo> {
        self.remote.info(id)
    }

    pub(super) fn delegation(&self, grant: GrantId) -> Option<&GrantStatus> {
        self.delegations.state(grant)
    }

    pub(super) fn has_active_delegations(&self) -> bool {
        !self.delegations.is_settled()
    }

    // ---- the application's calls

    pub(super) fn forget_delegation(&mut self, grant: GrantId) {
        self.delegations.forget(grant);
    }

    pub(super) fn poll_changed_delegation(&mut self) -> Option<GrantId> {
        self.changed.pop_first()
    }

    pub(super) fn drop_changed_delegations(&mut self) {
        self.changed.clear();
    }

    // ---- time, and the end

    /// When the client's next answer is overdue, or a lease is renewed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.remote.deadline().into_iter().chain(self.raw.deadline()).chain(self.renewals.deadline()).min()
    }

    /// Gives up waiting for what the client left without an answer for too long, and plans renewals.
    pub(super) fn check_time(&mut self, cx: &mut Common, now: Instant) {
        for path in self.remote.overdue(now) {
            self.give_up_path(cx, path);
        }
        self.raw.give_up_overdue(cx, now);
        if self.renewals.is_due(now) {
            let wanted = self.paths().filter(|info| paths::is_wanted(&info.state)).map(|info| info.id).collect();
            self.renewals.begin_round(now, wanted);
        }
    }

    /// The session is over: no status of a delegation comes any more.
    pub(super) fn on_session_end(&mut self) {
        let lost = self.delegations.session_lost(TransportCode::SOURCE_LOST.into());
        self.changed.extend(lost.into_iter().map(|change| change.grant));
    }

    // ---- frames

    /// Two writers of a stream contradict each other, the client says.
    pub(super) fn on_conflict(
        &mut self,
        cx: &mut Common,
        stream: StreamId,
        conflict: RangeConflict,
    ) -> Result<(), Fault> {
        // The client cannot know a path whose ADD_PATH still waits here.
        let is_known = |path: &PathId| self.remote.was_added(*path) && !self.commands.holds_add_path(*path);
        if !conflict.paths.iter().all(is_known) {
            return Err(violation("a conflict with a path that was never added"));
        }
        cx.emit(SessionEvent::Path(PathEvent::Conflict { stream, conflict }));
        Ok(())
    }

    pub(super) fn on_raw_forward(
        &mut self,
        cx: &mut Common,
        now: Instant,
        forward: RawForward,
    ) -> Result<FrameEffect, Fault> {
        let remote = &self.remote;
        self.raw.on_forward(cx, now, forward, |frame| remote.info(frame.from).map(|info| info.identity))
    }

    // ---- out

    pub(super) fn flush(&mut self, cx: &mut Common, moment: Moment) {
        let now = moment.now;
        let due = now.checked_add(cx.limits.answer_timeout);
        let Some(main) = cx.paths.main_mut() else { return };
        let mut sent = 0;
        while main.is_control_ready() {
            // Renewals go first: on a slow line, commands may wait for longer than a lease lasts.
            let Some(frame) = self.poll_lease(moment.wall).or_else(|| self.commands.pop()) else { break };
            if let ControlFrame::AddPath(AddPath { path, .. }) | ControlFrame::RemovePath(RemovePath { path, .. }) =
                &frame
            {
                // The time for the answer counts from when the command leaves ([P-8.20]).
                self.remote.await_answer(*path, due);
            }
            main.queue_control(&frame);
            sent += 1;
        }
        self.raw.flush(main, now);
        // Commands that left make room for others.
        if sent > 0 {
            self.announce_room(cx);
        }
    }

    /// The next renewal.
    fn poll_lease(&mut self, wall: UnixTime) -> Option<ControlFrame> {
        while let Some(path) = self.renewals.pop_due() {
            // LEASE for a path that the client does not know is a fault ([P-4.14]).
            let is_known = !self.commands.holds_add_path(path);
            if is_known && self.path(path).is_some_and(|info| paths::is_wanted(&info.state)) {
                let signature = auth::sign_lease(&self.identity, self.session, path, wall);
                return Some(Lease { path, issued_at_ms: wall.as_millis().min(limits::VARINT_MAX), signature }.into());
            }
        }
        None
    }

    fn next_epoch(&mut self) -> Epoch {
        self.epoch.0 += 1;
        self.epoch
    }

    fn remove_at_client(&mut self, path: PathId) {
        let epoch = self.next_epoch();
        let code: ErrorCode = TransportCode::PATH_REMOVED.into();
        self.commands.remove_path(RemovePath { path, epoch, code });
    }
}
