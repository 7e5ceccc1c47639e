//! The servers that the primary added: commands, dials, and how they leave (PROTOCOL.md §8). A member's life is its
//! path's: see [`PathState`]. Before its path has a connection it waits for its turn to be dialled.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;

use super::ClientRole;
use crate::address::Address;
use crate::allowance::Allowance;
use crate::auth::PublicIdentity;
use crate::config::{DialBudget, DialCharge, PathPolicy};
use crate::error::{DeadReason, ErrorCode, Fault, FrameEffect, TransportCode};
use crate::id::{Epoch, PathId};
use crate::limits::Limits;
use crate::path::Path;
use crate::protocol_event::ProtocolEventKind;
use crate::session::common::Common;
use crate::session::paths::Paths;
use crate::session::violation;
use crate::status::PathState;
use crate::wire::{AddPath, RemovePath};

/// The secondaries of a session, as the primary named them.
pub(in crate::session) struct Members {
    primary: Address,
    /// Those that are not dead.
    alive: BTreeMap<PathId, Member>,
    /// Alive members that were not dialled yet, in the order they were added.
    undialled: VecDeque<PathId>,
    /// No command up to this epoch is executed again.
    epoch: Epoch,
    /// The largest path id that was added.
    last_path: PathId,
    dials: DialBudget,
    refusals: Refusals,
}

/// Paths that were refused, until the primary is notified. A primary that adds a server again after each refusal is
/// slowed down by their pace: it never sends more ADD_PATHs in vain than are tolerated.
struct Refusals {
    waiting: VecDeque<(PathId, ErrorCode)>,
    pace: Allowance,
}

/// One secondary.
pub(in crate::session) struct Member {
    address: Address,
    server_name: String,
    pub(super) identity: PublicIdentity,
    pub(super) ticket: Bytes,
    charge: DialCharge,
}

/// A connection to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dial {
    pub(crate) path: PathId,
    pub(crate) address: Address,
    pub(crate) server_name: String,
}

impl Members {
    pub(super) fn new(now: Instant, primary: Address, limits: &Limits) -> Self {
        // A refused ADD_PATH counts as a no-op frame, so refusals go out at half the rate of what is tolerated
        // ([P-5.16]).
        let (burst, per_second) = (limits.no_op_frames_burst / 2, limits.no_op_frames_per_second / 2);
        let refusals = Refusals { waiting: VecDeque::new(), pace: Allowance::new(now, burst, per_second) };
        Self {
            primary,
            alive: BTreeMap::new(),
            undialled: VecDeque::new(),
            epoch: Epoch::default(),
            last_path: PathId::PRIMARY,
            dials: DialBudget::new(limits),
            refusals,
        }
    }

    /// The largest epoch of a path command.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// One that is not dead.
    pub(super) fn get(&self, path: PathId) -> Option<&Member> {
        self.alive.get(&path)
    }

    /// Whether the primary ever added the path.
    pub(super) fn was_added(&self, path: PathId) -> bool {
        !path.is_primary() && path <= self.last_path
    }

    /// Members that joined and did not announce their end.
    pub(super) fn joined(&self, paths: &Paths) -> impl Iterator<Item = PathId> {
        let is_joined = |id: &PathId| paths.get(*id).is_some_and(|path| path.state().is_usable());
        self.alive.keys().copied().filter(is_joined)
    }

    /// The server proved itself.
    pub(super) fn on_joined(&mut self, path: PathId, limits: &Limits) {
        if let Some(member) = self.alive.get(&path) {
            self.dials.on_joined(member.address, member.charge, limits);
        }
    }

    /// The next server to dial, unless as many dials are under way as there may be.
    pub(in crate::session) fn poll_dial(&mut self, cx: &Common) -> Option<Dial> {
        if self.undialled.is_empty() {
            return None;
        }
        let is_joining = |state: &PathState| matches!(state, PathState::Connecting | PathState::Authenticating);
        let joining = cx.paths.iter().filter(|(id, path)| !id.is_primary() && is_joining(path.state())).count();
        if joining >= cx.limits.dials_parallel_max {
            return None;
        }
        let path = self.undialled.pop_front()?;
        // Whoever waits to be dialled is alive: `remove` takes a member out of both.
        let member = self.alive.get(&path)?;
        Some(Dial { path, address: member.address, server_name: member.server_name.clone() })
    }

    /// When the next refusal may be reported.
    pub(super) fn refusal_deadline(&self) -> Option<Instant> {
        if self.refusals.waiting.is_empty() { None } else { self.refusals.pace.ready_at(1) }
    }

    /// Whether the refusal of the path was not reported to the primary yet.
    pub(super) fn has_refusal(&self, path: PathId) -> bool {
        self.refusals.waiting.iter().any(|(refused, _)| *refused == path)
    }

    /// The next refusal to be reported.
    pub(super) fn poll_refusal(&mut self, now: Instant) -> Option<(PathId, ErrorCode)> {
        if self.refusals.waiting.is_empty() || !self.refusals.pace.take(now) {
            return None;
        }
        self.refusals.waiting.pop_front()
    }

    fn admit(
        &mut self,
        now: Instant,
        own: Option<IpAddr>,
        add: &AddPath,
        policy: &PathPolicy,
        limits: &Limits,
    ) -> Result<(Address, DialCharge), DeadReason> {
        // Path 0 counts too ([P-8.2]).
        if self.alive.len() + 1 >= limits.paths_max {
            return Err(DeadReason::new(TransportCode::PATH_LIMIT, ""));
        }
        let refuse = |detail| DeadReason::new(TransportCode::PATH_POLICY, detail);
        let address = policy.judge(self.primary, own, add.address, &add.server_name).map_err(|why| refuse(why.0))?;
        // The budget is charged last, so that only paths that will be dialled use it.
        let charge = self.dials.take(now, address).ok_or_else(|| refuse("too many dials for now"))?;
        Ok((address, charge))
    }

    fn remove(&mut self, path: PathId) -> Option<Member> {
        let member = self.alive.remove(&path)?;
        if let Some(place) = self.undialled.iter().position(|undialled| *undialled == path) {
            // No dial began, so the budget gets its charge back.
            self.undialled.remove(place);
            self.dials.give_back(member.address, member.charge);
        }
        Some(member)
    }
}

impl ClientRole {
    // ---- the primary's commands

    pub(in crate::session) fn on_add_path(
        &mut self,
        cx: &mut Common,
        now: Instant,
        add: AddPath,
    ) -> Result<FrameEffect, Fault> {
        let own = cx.paths.main().and_then(Path::local_address);
        let members = &mut self.members;
        if add.epoch <= members.epoch || add.path <= members.last_path {
            return Err(violation("ADD_PATH with a used path id or an old epoch"));
        }
        let identity = PublicIdentity::from_bytes(&add.identity)
            .map_err(|_| violation("ADD_PATH names an identity that cannot be one"))?;
        // A path that is refused uses up its id and its epoch as well ([P-8.1]).
        members.epoch = add.epoch;
        members.last_path = add.path;
        match members.admit(now, own, &add, &self.config.policy, &cx.limits) {
            Ok((address, charge)) => {
                let AddPath { path, server_name, .. } = add;
                let remote = address.into();
                cx.log.change(path, || ProtocolEventKind::PathAdded { remote, server_name: server_name.clone() });
                // A copy: a slice would hold all of the received chunk in memory for as long as the path lives.
                let ticket = Bytes::copy_from_slice(&add.ticket);
                members.alive.insert(path, Member { address, server_name, identity, ticket, charge });
                members.undialled.push_back(path);
                Ok(FrameEffect::Progress)
            }
            Err(_) if members.refusals.waiting.len() >= cx.limits.control_queue_frames_max => {
                Err(Fault::new(TransportCode::CONTROL_FLOOD, "paths added without reading what became of them"))
            }
            Err(reason) => {
                members.refusals.waiting.push_back((add.path, reason.code));
                let remote = add.address;
                cx.log.change(add.path, || ProtocolEventKind::PathRefused { remote, reason: reason.clone() });
                cx.paths.on_unconnected_dead(add.path, add.address, reason);
                Ok(FrameEffect::NoOp)
            }
        }
    }

    pub(in crate::session) fn on_remove_path(
        &mut self,
        cx: &mut Common,
        now: Instant,
        remove: &RemovePath,
    ) -> Result<FrameEffect, Fault> {
        if remove.epoch <= self.members.epoch {
            return Err(violation("REMOVE_PATH with an old epoch"));
        }
        self.members.epoch = remove.epoch;
        if !self.members.was_added(remove.path) {
            return Err(violation("REMOVE_PATH of a path that was never added"));
        }
        // Does nothing if the path is dead already: REMOVE_PATH may have crossed its PATH_STATUS ([P-8.5]).
        self.close_member(cx, now, remove.path, DeadReason::new(remove.code, "removed by the primary"));
        Ok(FrameEffect::Progress)
    }

    /// The primary renews a lease: the newest renewal goes to the server of the path, when there is room.
    pub(in crate::session) fn on_lease(&mut self, lease: crate::wire::Lease) -> Result<FrameEffect, Fault> {
        if !self.members.was_added(lease.path) {
            return Err(violation("LEASE of a path that was never added"));
        }
        // LEASE may have crossed the end of its path.
        if self.members.get(lease.path).is_some() {
            self.notices.push(lease.path, super::Notice::Leased(lease));
        }
        // A primary could repeat LEASE for ever, so even a useful one counts ([P-5.16]).
        Ok(FrameEffect::NoOp)
    }

    // ---- connections

    /// The endpoint made a connection to a member, or could not.
    pub(in crate::session) fn on_dialed(
        &mut self,
        cx: &mut Common,
        now: Instant,
        id: PathId,
        outcome: Result<Path, DeadReason>,
    ) {
        match outcome {
            Ok(mut path) => {
                let remote = path.remote_address();
                cx.log.change(id, || ProtocolEventKind::PathDialled { remote });
                path.expect_move_by(now.checked_add(cx.limits.dial_timeout));
                cx.paths.insert(id, path);
            }
            Err(reason) => self.lose_member(cx, id, reason),
        }
    }

    /// A member announced its end. It may still deliver what it finished, for a while.
    pub(in crate::session) fn on_member_closing(&mut self, cx: &mut Common, now: Instant, id: PathId) -> FrameEffect {
        let until = now.checked_add(cx.limits.drain_timeout);
        let begins = cx.paths.get_mut(id).is_some_and(|path| path.move_to_closing(until));
        if begins { FrameEffect::Progress } else { FrameEffect::NoOp }
    }

    /// The primary removes a member, or the member committed a fault.
    pub(in crate::session) fn close_member(&mut self, cx: &mut Common, now: Instant, id: PathId, reason: DeadReason) {
        if self.members.get(id).is_none() {
            return;
        }
        if let Some(path) = cx.paths.get_mut(id) {
            path.close(now, reason.clone());
        }
        self.lose_member(cx, id, reason);
    }

    /// A member is gone, whoever ended its path: bytes that it did not deliver are reported as missing.
    pub(in crate::session) fn lose_member(&mut self, cx: &mut Common, id: PathId, reason: DeadReason) {
        cx.transmit.on_path_lost(id);
        let Some(member) = self.members.remove(id) else { return };
        // The primary gets the plain code of the application, without the mark that its server's time was up
        // ([P-12.2]).
        let reason = DeadReason { code: reason.code.without_cut(), ..reason };
        self.grants.path_lost(id, reason.code);
        self.relay.on_path_lost(id);
        self.notices.on_path_lost(id);
        self.reports.on_dead(id, reason.code);
        // Without a connection there is no `Path` that notes its end.
        if cx.paths.get(id).is_none() {
            cx.log.change(id, || ProtocolEventKind::PathChanged { state: PathState::Dead(reason.clone()) });
            cx.paths.on_unconnected_dead(id, member.address.into(), reason);
        }
    }
}
