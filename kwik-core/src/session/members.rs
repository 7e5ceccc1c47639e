//! The servers that the primary added, at the client: commands, dials and their deadlines (PROTOCOL.md §8).

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;

use super::client::PathReport;
use super::input::violation;
use super::{Moment, RoleState, Session, unconnected_stats};
use crate::address::Address;
use crate::allowance::Allowance;
use crate::auth::PublicIdentity;
use crate::config::{DialBudget, Fare, PathPolicy};
use crate::error::{DeadReason, ErrorCode, Fault, FrameEffect, TransportCode};
use crate::id::{Epoch, PathId};
use crate::limits::Limits;
use crate::path::Path;
use crate::protocol_event::ProtocolEventKind;
use crate::status::PathState;
use crate::wire::{AddPath, RemovePath};

/// The secondaries of a session, as the primary named them.
pub(super) struct Members {
    primary: Address,
    /// Those that are not dead.
    alive: BTreeMap<PathId, Member>,
    /// No command up to this epoch is executed again.
    epoch: Epoch,
    /// The largest path id that was added.
    last_path: PathId,
    dials: DialBudget,
    refusals: Refusals,
}

/// Paths that were refused, until the primary is told. A program that adds a server again as soon as it hears of a refusal is
/// slowed down by that: it never sends more ADD_PATHs in vain than are tolerated.
struct Refusals {
    waiting: VecDeque<(PathId, ErrorCode)>,
    pace: Allowance,
}

/// One secondary.
pub(super) struct Member {
    address: Address,
    server_name: String,
    pub(super) identity: PublicIdentity,
    pub(super) ticket: Bytes,
    fare: Fare,
    stage: Stage,
}

/// How far a secondary has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Queued,
    /// Until when the server must have joined; `None` if ever.
    Joining {
        deadline: Option<Instant>,
    },
    Joined,
    /// It said that it is closing.
    Leaving {
        deadline: Option<Instant>,
    },
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
        let (burst, per_second) = (limits.no_op_frames_burst / 2, limits.no_op_frames_per_second / 2);
        let refusals = Refusals { waiting: VecDeque::new(), pace: Allowance::new(now, burst, per_second) };
        Self {
            primary,
            alive: BTreeMap::new(),
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

    /// Those that joined and did not say that they leave.
    pub(super) fn joined(&self) -> impl Iterator<Item = PathId> {
        self.alive.iter().filter(|(_, member)| member.stage == Stage::Joined).map(|(id, _)| *id)
    }

    /// The server proved itself.
    pub(super) fn on_joined(&mut self, path: PathId, limits: &Limits) {
        if let Some(member) = self.alive.get_mut(&path) {
            member.stage = Stage::Joined;
            self.dials.on_joined(member.address, member.fare, limits);
        }
    }

    pub(super) fn poll_dial(&mut self, now: Instant, limits: &Limits) -> Option<Dial> {
        let joining = self.alive.values().filter(|member| matches!(member.stage, Stage::Joining { .. })).count();
        if joining >= limits.dials_parallel_max {
            return None;
        }
        let (path, member) = self.alive.iter_mut().find(|(_, member)| member.stage == Stage::Queued)?;
        member.stage = Stage::Joining { deadline: now.checked_add(limits.dial_timeout) };
        Some(Dial { path: *path, address: member.address, server_name: member.server_name.clone() })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadline = |member: &Member| match member.stage {
            Stage::Joining { deadline } | Stage::Leaving { deadline } => deadline,
            Stage::Queued | Stage::Joined => None,
        };
        self.alive.values().filter_map(deadline).min()
    }

    /// When the next refusal may be told.
    pub(super) fn refusal_deadline(&self) -> Option<Instant> {
        if self.refusals.waiting.is_empty() { None } else { self.refusals.pace.ready_at(1) }
    }

    /// Whether the primary is to be told that the path is refused.
    pub(super) fn has_refusal(&self, path: PathId) -> bool {
        self.refusals.waiting.iter().any(|(refused, _)| *refused == path)
    }

    /// The next refusal to be told.
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
    ) -> Result<(Address, Fare), DeadReason> {
        if self.alive.len() + 1 >= limits.paths_max {
            return Err(DeadReason::new(TransportCode::PATH_LIMIT, ""));
        }
        let refuse = |detail| DeadReason::new(TransportCode::PATH_POLICY, detail);
        let address = policy.judge(self.primary, own, add.address, &add.server_name).map_err(|why| refuse(why.0))?;
        let fare = self.dials.take(now, address).ok_or_else(|| refuse("too many dials for now"))?;
        Ok((address, fare))
    }

    fn remove(&mut self, path: PathId) -> Option<Member> {
        let member = self.alive.remove(&path)?;
        if member.stage == Stage::Queued {
            self.dials.give_back(member.address, member.fare);
        }
        Some(member)
    }

    /// Those whose stage has a deadline that is over, of the stages chosen.
    fn overdue(&self, now: Instant, chosen: fn(Stage) -> Option<Instant>) -> Vec<PathId> {
        let is_over = |member: &Member| chosen(member.stage).is_some_and(|deadline| now >= deadline);
        self.alive.iter().filter(|(_, member)| is_over(member)).map(|(id, _)| *id).collect()
    }
}

impl Session {
    /// The endpoint made a connection, or could not.
    pub(crate) fn on_dialed(&mut self, path: PathId, outcome: Result<Path, DeadReason>) {
        match outcome {
            Ok(mut connection) => {
                self.log_frames_of(&mut connection);
                self.paths.insert(path, Box::new(connection));
                self.count_windows();
            }
            Err(reason) => {
                self.log.change(path, || ProtocolEventKind::PathChanged { state: PathState::Dead(reason.clone()) });
                self.on_secondary_lost(path, &reason);
            }
        }
    }

    /// Nothing reaches an address, somebody says who need not speak the truth: ends dials to it that heard nothing yet.
    /// Returns whether there were any.
    pub(crate) fn on_unreachable(&mut self, now: Instant, remote: Address, reason: &str) -> bool {
        let dials =
            self.paths.iter().filter(|(_, path)| path.is_unheard_dial() && path.remote_address() == remote.into());
        let dials: Vec<PathId> = dials.map(|(id, _)| *id).collect();
        for id in &dials {
            self.close_path(now, *id, TransportCode::UNREACHABLE, reason);
        }
        !dials.is_empty()
    }

    pub(super) fn on_add_path(&mut self, moment: Moment, add: AddPath) -> Result<FrameEffect, Fault> {
        let own = self.home_mut().and_then(|home| home.local_address());
        let RoleState::Client(client) = &mut self.role else { return Ok(FrameEffect::Progress) };
        let members = &mut client.members;
        if add.epoch <= members.epoch || add.path <= members.last_path {
            return Err(violation("ADD_PATH with a used path id or an old epoch"));
        }
        let identity = PublicIdentity::from_bytes(&add.identity)
            .map_err(|_| violation("ADD_PATH names an identity that cannot be one"))?;
        members.epoch = add.epoch;
        members.last_path = add.path;
        match members.admit(moment.now, own, &add, &client.config.policy, &self.limits) {
            Ok((address, fare)) => {
                let AddPath { path, server_name, .. } = add;
                let remote = address.into();
                self.log.change(path, || ProtocolEventKind::PathAdded { remote, server_name: server_name.clone() });
                // A slice of what was received would hold much more for as long as the path lives.
                let ticket = Bytes::copy_from_slice(&add.ticket);
                let member = Member { address, server_name, identity, ticket, fare, stage: Stage::Queued };
                members.alive.insert(path, member);
            }
            Err(_) if members.refusals.waiting.len() >= self.limits.control_queue_frames_max => {
                return Err(Fault::new(
                    TransportCode::CONTROL_FLOOD,
                    "paths added without reading what became of them",
                ));
            }
            Err(reason) => {
                members.refusals.waiting.push_back((add.path, reason.code));
                let remote = add.address;
                self.log.change(add.path, || ProtocolEventKind::PathRefused { remote, reason: reason.clone() });
                self.remember(unconnected_stats(add.path, add.address, reason));
                return Ok(FrameEffect::NoOp);
            }
        }
        Ok(FrameEffect::Progress)
    }

    pub(super) fn on_remove_path(&mut self, now: Instant, remove: &RemovePath) -> Result<FrameEffect, Fault> {
        let RoleState::Client(client) = &mut self.role else { return Ok(FrameEffect::Progress) };
        let members = &mut client.members;
        if remove.epoch <= members.epoch {
            return Err(violation("REMOVE_PATH with an old epoch"));
        }
        members.epoch = remove.epoch;
        if !members.was_added(remove.path) {
            return Err(violation("REMOVE_PATH of a path that was never added"));
        }
        let reason = DeadReason::new(remove.code, "removed by the primary");
        if members.alive.contains_key(&remove.path) {
            if let Some(path) = self.paths.get_mut(&remove.path) {
                path.close(now, reason.clone());
            }
            self.on_path_lost(now, remove.path, reason);
        }
        Ok(FrameEffect::Progress)
    }

    /// A secondary is gone: what it owes is reported missing.
    pub(super) fn on_secondary_lost(&mut self, id: PathId, reason: &DeadReason) {
        let RoleState::Client(client) = &mut self.role else { return };
        let Some(member) = client.members.remove(id) else { return };
        client.grants.path_lost(id, reason.code);
        client.relay.on_path_lost(id);
        client.notices.on_path_lost(id);
        client.reports.insert(id, PathReport::Dead(reason.code));
        if !self.paths.contains_key(&id) {
            self.remember(unconnected_stats(id, member.address.into(), reason.clone()));
        }
    }

    /// A secondary announced its end. It may still deliver what it finished, for a while.
    pub(super) fn on_secondary_closing(&mut self, now: Instant, id: PathId) {
        let RoleState::Client(client) = &mut self.role else { return };
        if let Some(path) = self.paths.get_mut(&id) {
            path.move_to_closing();
            self.log.change(id, || ProtocolEventKind::PathChanged { state: PathState::Closing });
        }
        if let Some(member) = client.members.alive.get_mut(&id).filter(|member| member.stage == Stage::Joined) {
            member.stage = Stage::Leaving { deadline: now.checked_add(self.limits.drain_timeout) };
        }
    }

    pub(super) fn check_members(&mut self, now: Instant) {
        let RoleState::Client(client) = &self.role else { return };
        let leaving = client.members.overdue(now, |stage| match stage {
            Stage::Leaving { deadline } => deadline,
            Stage::Queued | Stage::Joining { .. } | Stage::Joined => None,
        });
        let joining = client.members.overdue(now, |stage| match stage {
            Stage::Joining { deadline } => deadline,
            Stage::Queued | Stage::Joined | Stage::Leaving { .. } => None,
        });
        for id in leaving {
            self.close_path(now, id, TransportCode::GOING_AWAY, "the server did not close in time");
        }
        for id in joining {
            let connecting = self.paths.get(&id).is_some_and(|path| *path.state() == PathState::Connecting);
            let code = if connecting { TransportCode::UNREACHABLE } else { TransportCode::AUTH_TIMEOUT };
            self.close_path(now, id, code, "the server did not answer in time");
        }
    }
}
