//! The primary's part: it founds the session, commands paths and delegates ranges (PROTOCOL.md §8).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::commands::Commands;
use super::event::{AddPathError, DelegateError, GrantInfo, PathError, PathEvent, PathInfo, PathTarget, SessionEvent};
use super::input::violation;
use super::lease::{Renewals, is_wanted};
use super::raw::RawEnd;
use super::{Moment, RoleState, Session};
use crate::address::Address;
use crate::auth::{self, Identity, PublicIdentity, SignatureContext, TICKET_LIFETIME, Ticket, UnixTime};
use crate::config::EventDetail;
use crate::error::{DeadReason, Fault, FrameEffect, TransportCode};
use crate::grant::{Change, Delegations};
use crate::id::{Epoch, GrantId, PathId, RangeConflict, SessionId, Side, StreamHandle, StreamId, StreamOffset};
use crate::limits::{self, Limits, PATHS_REMEMBERED_MAX};
use crate::path::Path;
use crate::protocol_event::{ProtocolEventKind, grant_event};
use crate::status::{GrantStatus, PathState};
use crate::stream::{StreamTable, TableRole};
use crate::wire::{
    self, AddPath, ControlFrame, GrantStatusFrame, Hello, Lease, PathStatus, RemovePath, Revoke, SignedPayload,
    Welcome, WirePathState,
};

/// What only a primary keeps.
pub(super) struct PrimaryRole {
    session: SessionId,
    identity: Identity,
    client_key: PublicIdentity,
    paths: BTreeMap<PathId, RemotePath>,
    epoch: Epoch,
    /// The largest path id that was added.
    last_path: PathId,
    /// Until when the client must have said what became of a path that it was told to add or to remove.
    unanswered: BTreeMap<PathId, Instant>,
    delegations: Delegations,
    pub(super) raw: RawEnd,
    pub(super) renewals: Renewals,
    pub(super) commands: Commands,
    /// Paths for which a delegation was refused for want of room, until the application is told that there is some.
    crowded: BTreeSet<PathId>,
}

/// A path of the client to another server, as the client reports it.
struct RemotePath {
    info: PathInfo,
    next_grant_sequence: u64,
}

/// What a session is founded with.
pub(crate) struct NewPrimary {
    pub(crate) session: SessionId,
    pub(crate) identity: Identity,
    pub(crate) limits: Limits,
    pub(crate) hello: Hello,
    pub(crate) exporter: [u8; 32],
    pub(crate) client_key: PublicIdentity,
}

impl PrimaryRole {
    /// Every path but the primary's own.
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathInfo> {
        self.paths.values().map(|path| &path.info)
    }

    pub(super) fn path(&self, id: PathId) -> Option<&PathInfo> {
        self.paths.get(&id).map(|path| &path.info)
    }

    pub(super) fn own_identity(&self) -> PublicIdentity {
        self.identity.public()
    }

    pub(super) fn delegation(&self, grant: GrantId) -> Option<&GrantStatus> {
        self.delegations.state(grant)
    }

    pub(super) fn forget_delegation(&mut self, grant: GrantId) {
        self.delegations.forget(grant);
    }

    pub(super) fn has_no_active_delegation(&self) -> bool {
        self.delegations.is_settled()
    }

    /// The session is over: what was delegated will not be reported any more.
    pub(super) fn on_session_end(&mut self) -> Vec<GrantId> {
        let changes = self.delegations.session_lost(TransportCode::SOURCE_LOST.into());
        changes.into_iter().map(|change| change.grant).collect()
    }

    /// When the client's next answer is overdue.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let renewal = self.renewals.deadline();
        self.unanswered.values().copied().chain(self.raw.deadline()).chain(renewal).min()
    }

    /// The next renewal to be told.
    fn poll_lease(&mut self, wall: UnixTime) -> Option<ControlFrame> {
        while let Some(path) = self.renewals.pop_due() {
            // A client must have heard of the path.
            let is_known = !self.commands.holds_add_path(path);
            if is_known && self.path(path).is_some_and(|info| is_wanted(&info.state)) {
                let signature = auth::sign_lease(&self.identity, self.session, path, wall);
                return Some(Lease { path, issued_at_ms: wall.as_millis().min(limits::VARINT_MAX), signature }.into());
            }
        }
        None
    }

    fn live_paths(&self) -> usize {
        self.paths.values().filter(|path| !path.info.state.is_dead()).count()
    }

    fn next_epoch(&mut self) -> Epoch {
        self.epoch.0 += 1;
        self.epoch
    }

    /// Forgets the path that died first, if there are too many to remember.
    fn forget_dead_path(&mut self) {
        if self.paths.len() >= PATHS_REMEMBERED_MAX
            && let Some(id) = self.paths.iter().find(|(_, path)| path.info.state.is_dead()).map(|(id, _)| *id)
        {
            self.paths.remove(&id);
        }
    }
}

impl Session {
    /// A session that a client's HELLO founds here.
    pub(crate) fn new_primary(moment: Moment, new: NewPrimary, mut path: Path) -> Self {
        let NewPrimary { session, identity, limits, hello, exporter, client_key } = new;
        let signature = auth::welcome_proof(&identity, &exporter, session, PathId::PRIMARY, &client_key);
        let mut streams = StreamTable::new(Side::Server, TableRole::Primary, &limits);
        let params = hello.params;
        let agreed = streams.on_peer_params(params.streams_bidi, params.streams_uni, params.stream_window_initial);
        path.set_limits(&limits);
        path.queue_control(&ControlFrame::from(Welcome {
            session,
            path: PathId::PRIMARY,
            params: super::params(&limits),
            identity: *identity.public().as_bytes(),
            signature,
        }));
        path.move_to_active();
        let role = PrimaryRole {
            session,
            raw: RawEnd::new(moment.now, (session, PathId::PRIMARY), identity.clone(), &limits),
            identity,
            client_key,
            paths: BTreeMap::new(),
            epoch: Epoch::default(),
            last_path: PathId::PRIMARY,
            unanswered: BTreeMap::new(),
            delegations: Delegations::new(&limits),
            renewals: Renewals::new(&limits),
            commands: Commands::new(&limits),
            crowded: BTreeSet::new(),
        };
        let role = RoleState::Primary(Box::new(role));
        let mut machine = Self::assemble(moment.now, Some(session), limits, role, (PathId::PRIMARY, path), streams);
        machine.emit(SessionEvent::Incoming);
        if let Err(fault) = agreed {
            machine.fail(moment.now, fault.code, fault.detail);
        }
        machine
    }

    // ---- commands of the application

    pub(super) fn add_path(&mut self, moment: Moment, target: PathTarget) -> Result<PathId, AddPathError> {
        let open = self.is_open();
        let limit = self.limits.paths_max;
        let RoleState::Primary(primary) = &mut self.role else { return Err(AddPathError::NotPrimary) };
        if !open {
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
        let next = primary.last_path.0.checked_add(1).filter(|_| primary.live_paths() + 1 < limit);
        let path = PathId(next.ok_or(AddPathError::LimitReached { limit })?);
        primary.last_path = path;
        let epoch = primary.next_epoch();
        let ticket = Ticket {
            session: primary.session,
            path,
            epoch,
            issuer: primary.identity.public(),
            secondary: target.identity,
            server_name: target.server_name.clone(),
            client_key: primary.client_key,
            issued_at: moment.wall,
            expires_at: moment.wall.saturating_add(TICKET_LIFETIME),
            lease: self.limits.path_lease,
        };
        primary.forget_dead_path();
        primary.commands.add_path(AddPath {
            path,
            epoch,
            address,
            server_name: target.server_name,
            identity: *target.identity.as_bytes(),
            ticket: ticket.sign(&primary.identity),
        });
        let info = PathInfo {
            id: path,
            address,
            identity: target.identity,
            state: PathState::Connecting,
            rtt: Duration::ZERO,
            rate_bytes_per_second: 0,
            bytes: 0,
        };
        primary.paths.insert(path, RemotePath { info, next_grant_sequence: 0 });
        primary.renewals.begin(moment.now);
        Ok(path)
    }

    pub(super) fn remove_path(&mut self, id: PathId) -> Result<(), PathError> {
        let RoleState::Primary(primary) = &mut self.role else { return Err(PathError::NotPrimary) };
        if id.is_primary() {
            return Err(PathError::Primary);
        }
        let path = primary.paths.get_mut(&id).ok_or(PathError::Unknown(id))?;
        if path.info.state.is_dead() || path.info.state == PathState::Closing {
            return Ok(());
        }
        if primary.commands.holds_add_path(id) {
            // The client never hears of it.
            self.on_remote_path_dead(id, DeadReason::new(TransportCode::PATH_REMOVED, ""));
            return Ok(());
        }
        path.info.state = PathState::Closing;
        let epoch = primary.next_epoch();
        let code = TransportCode::PATH_REMOVED.into();
        primary.commands.remove_path(RemovePath { path: id, epoch, code });
        Ok(())
    }

    /// A path is over. What the client was still to be told of it, or to carry there, goes away.
    fn on_remote_path_dead(&mut self, id: PathId, reason: DeadReason) {
        let RoleState::Primary(primary) = &mut self.role else { return };
        let code = reason.code;
        primary.crowded.remove(&id);
        primary.commands.drop_path(id);
        let mut changes = Vec::new();
        for grant in primary.commands.grants_for(id) {
            primary.commands.drop_grant(grant);
            changes.extend(primary.delegations.annul(grant, reason.code));
        }
        let unsent = primary.raw.on_path_lost(id);
        if let Some(path) = primary.paths.get_mut(&id) {
            path.info.state = PathState::Dead(reason.clone());
        }
        self.log.change(id, || ProtocolEventKind::PathChanged { state: PathState::Dead(reason.clone()) });
        self.emit(SessionEvent::Path(PathEvent::Dead { path: id, reason }));
        for sequence in unsent {
            let result = Err(TransportCode::PATH_UNKNOWN.into());
            self.emit(SessionEvent::RawStatus { to: id, sequence, result });
        }
        for change in changes {
            let report = GrantStatus::Lost { code, missing: change.missing.clone() };
            self.log.change(id, || grant_event(change.grant, &report));
            self.on_delegation_changed(change);
        }
        self.announce_room();
    }

    pub(super) fn delegate(
        &mut self,
        stream: StreamHandle,
        path: PathId,
        extent: Extent,
        request: Bytes,
    ) -> Result<GrantInfo, DelegateError> {
        let open = self.is_open();
        let RoleState::Primary(primary) = &mut self.role else { return Err(DelegateError::NotPrimary) };
        if !open {
            return Err(DelegateError::SessionClosed);
        }
        if path.is_primary() {
            return Err(DelegateError::OwnPath);
        }
        let remote = primary.paths.get_mut(&path).ok_or(DelegateError::PathUnknown(path))?;
        if remote.info.state.is_dead() || remote.info.state == PathState::Closing {
            return Err(DelegateError::PathDead(path));
        }
        if request.len() > limits::REQUEST_BYTES_MAX {
            return Err(DelegateError::RequestTooLong { len: request.len() });
        }
        if !primary.delegations.has_room(path) || !primary.commands.has_room(request.len()) {
            primary.crowded.insert(path);
            return Err(DelegateError::TooMany);
        }
        let id = self.streams.stream_id(stream).ok_or(DelegateError::ClosedStream)?;
        let range = match extent {
            Extent::Next(len) => self.streams.reserve(stream, len)?,
            Extent::At(range) => self.streams.reserve_range(stream, range)?,
        };
        let Ok(grant) = primary.delegations.issue(path, id, range.clone()) else {
            self.streams.unreserve(id, std::slice::from_ref(&range));
            return Err(DelegateError::TooMany);
        };
        let sequence = remote.next_grant_sequence;
        remote.next_grant_sequence += 1;
        let context = SignatureContext { session: primary.session, from: PathId::PRIMARY, to: path, sequence };
        let signature = auth::sign_grant(&primary.identity, context, grant, id, range.clone(), &request);
        let epoch = primary.next_epoch();
        self.log.change(path, || ProtocolEventKind::GrantIssued { grant, stream: id, range: range.clone() });
        primary.commands.grant(wire::Grant {
            grant,
            epoch,
            path,
            stream: id,
            start: StreamOffset(range.start),
            len: range.end - range.start,
            signed: SignedPayload { sequence, payload: request, signature },
        });
        Ok(GrantInfo { grant, range })
    }

    pub(super) fn revoke(&mut self, grant: GrantId) -> Result<(), DelegateError> {
        let RoleState::Primary(primary) = &mut self.role else { return Err(DelegateError::NotPrimary) };
        let is_news = primary.delegations.revoke(grant).ok_or(DelegateError::GrantUnknown(grant))?;
        if is_news {
            self.log.change(None, || ProtocolEventKind::GrantRevoked { grant });
        }
        if primary.commands.holds_grant(grant) {
            // The client never hears of it.
            primary.commands.drop_grant(grant);
            let change = primary.delegations.annul(grant, TransportCode::REVOKED.into());
            change.into_iter().for_each(|change| self.on_delegation_changed(change));
            self.announce_room();
        } else if is_news {
            let epoch = primary.next_epoch();
            primary.commands.revoke(Revoke { grant, epoch });
        }
        Ok(())
    }

    // ---- the client's reports

    pub(super) fn on_path_status(&mut self, status: &PathStatus) -> Result<FrameEffect, Fault> {
        let RoleState::Primary(primary) = &mut self.role else { return Ok(FrameEffect::Progress) };
        // Figures are welcome at their pace, and so is a path that wavers; only its beginning and its end are free.
        if status.path.is_primary() {
            return Ok(FrameEffect::NoOp);
        }
        if status.path > primary.last_path || primary.commands.holds_add_path(status.path) {
            return Err(violation("PATH_STATUS of a path that was never added"));
        }
        // Those that died long ago are forgotten.
        let Some(RemotePath { info, .. }) = primary.paths.get_mut(&status.path) else { return Ok(FrameEffect::NoOp) };
        if info.state.is_dead() {
            return Ok(FrameEffect::NoOp);
        }
        if status.state != WirePathState::Dead {
            info.rtt = status.rtt;
            info.rate_bytes_per_second = status.rate;
            info.bytes = status.bytes;
        }
        let state = match status.state {
            WirePathState::Active => PathState::Active,
            WirePathState::Suspect => PathState::Suspect,
            WirePathState::Dead => PathState::Dead(DeadReason::new(status.code, "")),
        };
        let removing = info.state == PathState::Closing;
        if state.is_dead() || !removing {
            primary.unanswered.remove(&status.path);
        }
        if info.state == state || (removing && !state.is_dead()) {
            return Ok(FrameEffect::NoOp);
        }
        let event = match (&info.state, &state) {
            (_, PathState::Dead(reason)) => {
                self.on_remote_path_dead(status.path, reason.clone());
                return Ok(FrameEffect::Progress);
            }
            (PathState::Suspect, PathState::Active) => PathEvent::Recovered(status.path),
            (_, PathState::Suspect) => PathEvent::Suspect(status.path),
            _ => PathEvent::Joined(status.path),
        };
        info.state = state.clone();
        self.log.change(status.path, || ProtocolEventKind::PathChanged { state });
        let has_begun = matches!(event, PathEvent::Joined(_));
        self.emit(SessionEvent::Path(event));
        Ok(if has_begun { FrameEffect::Progress } else { FrameEffect::NoOp })
    }

    pub(super) fn on_grant_status(&mut self, frame: GrantStatusFrame) -> Result<FrameEffect, Fault> {
        let RoleState::Primary(primary) = &mut self.role else { return Ok(FrameEffect::Progress) };
        let report = frame.status;
        if primary.commands.holds_grant(frame.grant) {
            return Err(violation("GRANT_STATUS of a grant that was never issued"));
        }
        let is_told = self.log.detail() > EventDetail::Off;
        let event = is_told.then(|| grant_event(frame.grant, &report));
        let is_last = report.is_settled();
        let change = primary.delegations.on_status(frame.grant, report)?;
        if is_last {
            // It need not be revoked any more.
            primary.commands.drop_grant(frame.grant);
        }
        let effect = if change.is_some() { FrameEffect::Progress } else { FrameEffect::NoOp };
        if let Some(change) = change {
            event.into_iter().for_each(|event| self.log.change(None, || event));
            self.on_delegation_changed(change);
        }
        if is_last {
            self.announce_room();
        }
        Ok(effect)
    }

    fn on_delegation_changed(&mut self, change: Change) {
        for range in change.arrived {
            self.streams.delivered(change.stream, range);
        }
        if !change.missing.is_empty() {
            self.streams.unreserve(change.stream, &change.missing);
        }
        self.delegations_changed.insert(change.grant);
    }

    /// Something was freed: tells an application that was refused for want of room.
    fn announce_room(&mut self) {
        let RoleState::Primary(primary) = &mut self.role else { return };
        if !primary.commands.has_room(0) {
            return;
        }
        let has_room = |path: &PathId| primary.delegations.has_room(*path);
        let (free, crowded) = std::mem::take(&mut primary.crowded).into_iter().partition(has_room);
        primary.crowded = crowded;
        let free: BTreeSet<PathId> = free;
        free.into_iter().for_each(|path| self.emit(SessionEvent::DelegationRoom(path)));
    }

    /// What the client left without an answer for too long is not waited for any more.
    pub(super) fn check_answers(&mut self, now: Instant) {
        let RoleState::Primary(primary) = &mut self.role else { return };
        let overdue: Vec<PathId> =
            primary.unanswered.iter().filter(|(_, due)| now >= **due).map(|(path, _)| *path).collect();
        for path in overdue {
            self.give_up_path(path);
        }
        self.check_receipts(now);
    }

    /// The client says nothing of a path: it is dead as far as this end can tell, and its ranges are free again.
    fn give_up_path(&mut self, id: PathId) {
        let RoleState::Primary(primary) = &mut self.role else { return };
        primary.unanswered.remove(&id);
        let Some(path) = primary.paths.get(&id) else { return };
        let code = TransportCode::UNANSWERED;
        let reason = DeadReason::new(code, "the client did not say what became of the path");
        let was_removed = path.info.state == PathState::Closing;
        let changes = primary.delegations.path_lost(id, code.into());
        self.on_remote_path_dead(id, reason);
        changes.into_iter().for_each(|change| self.on_delegation_changed(change));
        let RoleState::Primary(primary) = &mut self.role else { return };
        if !was_removed {
            let epoch = primary.next_epoch();
            let code = TransportCode::PATH_REMOVED.into();
            primary.commands.remove_path(RemovePath { path: id, epoch, code });
        }
    }

    /// Two writers of a stream contradict each other, the client says.
    pub(super) fn on_conflict_told(&mut self, stream: StreamId, conflict: RangeConflict) -> Result<(), Fault> {
        let RoleState::Primary(primary) = &self.role else {
            return Err(violation("a conflict of writers, which only a primary is told"));
        };
        if conflict.paths.iter().any(|path| *path > primary.last_path || primary.commands.holds_add_path(*path)) {
            return Err(violation("a conflict with a path that was never added"));
        }
        self.emit(SessionEvent::Path(PathEvent::Conflict { stream, conflict }));
        Ok(())
    }

    pub(super) fn flush_primary(&mut self, moment: Moment) {
        let now = moment.now;
        let due = now.checked_add(self.limits.answer_timeout);
        let RoleState::Primary(primary) = &mut self.role else { return };
        let Some(home) = self.paths.get_mut(&PathId::PRIMARY) else { return };
        let mut sent = 0;
        while home.is_control_ready() {
            // On a slow line commands may wait for longer than a lease is.
            let Some(frame) = primary.poll_lease(moment.wall).or_else(|| primary.commands.pop()) else { break };
            if let ControlFrame::AddPath(AddPath { path, .. }) | ControlFrame::RemovePath(RemovePath { path, .. }) =
                &frame
                && !primary.path(*path).is_some_and(|info| info.state.is_dead())
            {
                primary.unanswered.extend(due.map(|due| (*path, due)));
            }
            home.queue_control(&frame);
            sent += 1;
        }
        while home.is_control_ready() {
            let Some(frame) = primary.raw.poll_control(now) else { break };
            home.queue_control(&frame);
        }
        if sent > 0 {
            self.announce_room();
        }
    }

    // ---- raw packets, at either server

    pub(super) fn on_receipt(&mut self, status: &wire::RawStatus) -> FrameEffect {
        let raw = match &mut self.role {
            RoleState::Primary(primary) => &mut primary.raw,
            RoleState::Secondary(secondary) => &mut secondary.raw,
            RoleState::Client(_) => return FrameEffect::NoOp,
        };
        let Some(result) = raw.on_status(status) else { return FrameEffect::NoOp };
        self.emit(SessionEvent::RawStatus { to: status.to, sequence: status.sequence, result });
        FrameEffect::Progress
    }

    /// What has no receipt for too long may or may not have arrived.
    pub(super) fn check_receipts(&mut self, now: Instant) {
        loop {
            let overdue = match &mut self.role {
                RoleState::Primary(primary) => primary.raw.poll_overdue(now),
                RoleState::Secondary(secondary) => secondary.raw.poll_overdue(now),
                RoleState::Client(_) => None,
            };
            let Some((to, sequence)) = overdue else { return };
            let result = Err(TransportCode::UNANSWERED.into());
            self.emit(SessionEvent::RawStatus { to, sequence, result });
        }
    }

    /// Returns whether the application should be told that there is something to receive.
    pub(super) fn on_raw_forward(&mut self, now: Instant, forward: wire::RawForward) -> Result<bool, Fault> {
        match &mut self.role {
            RoleState::Primary(primary) => {
                let paths = &primary.paths;
                primary.raw.on_forward(now, forward, |frame| paths.get(&frame.from).map(|path| path.info.identity))
            }
            RoleState::Secondary(secondary) => secondary.on_raw_forward(now, forward),
            RoleState::Client(_) => Ok(false),
        }
    }
}

/// Which bytes of a stream are delegated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Extent {
    /// So many at the cursor.
    Next(u64),
    /// These.
    At(Range<u64>),
}
