//! What only a server does with a session.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::event::{AddPathError, DelegateError, PathError, PathInfo, PathTarget, RawError, RawPacket};
use super::view::Session;
use super::{Clock, Machine, RoleState};
use crate::auth::PublicIdentity;
use crate::id::{GrantId, PathId};
use crate::path::{Path, PathState};
use crate::stream::DelegationState;

/// A server's session, borrowed from its [`Endpoint`](crate::Endpoint). It is a [`Session`] and more.
pub struct ServerSession<'a> {
    session: Session<'a>,
    clock: Clock,
}

impl<'a> ServerSession<'a> {
    /// `None` for a client's session.
    pub(crate) fn new(machine: &'a mut Machine, clock: Clock) -> Option<Self> {
        if matches!(machine.role, RoleState::Client(_)) {
            return None;
        }
        Some(Self { session: Session::new(machine), clock })
    }
}

impl ServerSession<'_> {
    /// Primary: makes the client dial another server. A [`PathEvent`](super::PathEvent) tells when it joined, or why it
    /// did not. The path may be delegated to before it joined (PROTOCOL.md §8).
    ///
    /// # Errors
    /// Nothing was sent then.
    pub fn add_path(&mut self, now: Instant, target: PathTarget) -> Result<PathId, AddPathError> {
        self.session.0.command().add_path(self.clock.at(now), target)
    }

    /// Primary: makes the client close a path. A [`PathEvent::Dead`](super::PathEvent::Dead) follows. Removing a path
    /// again changes nothing.
    ///
    /// # Errors
    /// If there is no such path.
    pub fn remove_path(&mut self, path: PathId) -> Result<(), PathError> {
        self.session.0.command().remove_path(path)
    }

    /// Signs a raw packet for the server of another path. A `RawStatus` event with the returned sequence number tells
    /// what became of it (PROTOCOL.md §7).
    ///
    /// # Errors
    /// [`RawError::Blocked`] passes when a receipt comes.
    pub fn send_raw(&mut self, to: PathId, payload: Bytes) -> Result<u64, RawError> {
        if !self.session.0.is_open() {
            return Err(RawError::SessionClosed);
        }
        match &mut self.session.0.command().role {
            RoleState::Client(_) => Err(RawError::NotServer),
            RoleState::Secondary(secondary) => secondary.raw.send(to, payload),
            RoleState::Primary(primary) => {
                let alive = primary.path(to).is_some_and(|path| !path.state.is_dead());
                if !alive && !to.is_primary() {
                    return Err(RawError::PathUnknown(to));
                }
                primary.raw.send(to, payload)
            }
        }
    }

    /// The next raw packet that another server sent here.
    pub fn recv_raw(&mut self) -> Option<RawPacket> {
        match &mut self.session.0.command().role {
            RoleState::Client(_) => None,
            RoleState::Primary(primary) => primary.raw.recv(),
            RoleState::Secondary(secondary) => secondary.raw.recv(),
        }
    }

    /// Primary: tells the client to take nothing more of a delegation. It ends as lost with `REVOKED`, unless it was
    /// delivered meanwhile.
    ///
    /// # Errors
    /// If the grant is unknown or over.
    pub fn revoke(&mut self, grant: GrantId) -> Result<(), DelegateError> {
        self.session.0.command().revoke(grant)
    }

    /// The application asks no more about this delegation.
    pub fn forget_delegation(&mut self, grant: GrantId) {
        if let RoleState::Primary(primary) = &mut self.session.0.command().role {
            primary.forget_delegation(grant);
        }
    }

    /// How far a delegation came; `None` if it is unknown or was forgotten.
    #[must_use]
    pub fn delegation(&self, grant: GrantId) -> Option<DelegationState> {
        match &self.session.0.role {
            RoleState::Primary(primary) => primary.delegation(grant).cloned(),
            RoleState::Client(_) | RoleState::Secondary(_) => None,
        }
    }

    /// One path of the session.
    #[must_use]
    pub fn path(&self, path: PathId) -> Option<PathInfo> {
        let machine = &*self.session.0;
        match &machine.role {
            _ if path == machine.home => own_path(machine),
            RoleState::Primary(primary) => primary.path(path).cloned(),
            RoleState::Client(_) | RoleState::Secondary(_) => None,
        }
    }

    /// The paths in use.
    #[must_use]
    pub fn active_paths(&self) -> Vec<PathInfo> {
        self.all_paths().into_iter().filter(|path| path.state.is_usable()).collect()
    }

    /// The paths that are gone.
    #[must_use]
    pub fn dead_paths(&self) -> Vec<PathInfo> {
        self.all_paths().into_iter().filter(|path| path.state.is_dead()).collect()
    }

    /// Every path since the session began, this server's own first. A secondary knows only its own.
    #[must_use]
    pub fn all_paths(&self) -> Vec<PathInfo> {
        let machine = &*self.session.0;
        let own = own_path(machine);
        let others = match &machine.role {
            RoleState::Primary(primary) => primary.paths().cloned().collect(),
            RoleState::Client(_) | RoleState::Secondary(_) => Vec::new(),
        };
        own.into_iter().chain(others).collect()
    }
}

impl<'a> Deref for ServerSession<'a> {
    type Target = Session<'a>;

    fn deref(&self) -> &Self::Target {
        &self.session
    }
}

impl DerefMut for ServerSession<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.session
    }
}

/// This server's own path, measured here; from its last figures once it is gone.
fn own_path(machine: &Machine) -> Option<PathInfo> {
    let id = machine.home;
    let identity = own_identity(machine)?;
    let info = |address, state: PathState, rtt: Duration, bytes| PathInfo {
        id,
        address,
        identity,
        state,
        rtt,
        rate_bytes_per_second: 0,
        bytes,
    };
    if let Some(path) = machine.paths.get(&id) {
        return Some(info(path.remote_address(), path.state().clone(), path.rtt(), Path::bytes_sent(path)));
    }
    let gone = machine.gone.iter().find(|stats| stats.id == id)?;
    Some(info(gone.address, gone.state.clone(), gone.rtt, gone.bytes_sent))
}

fn own_identity(machine: &Machine) -> Option<PublicIdentity> {
    match &machine.role {
        RoleState::Client(_) => None,
        RoleState::Primary(primary) => Some(primary.own_identity()),
        RoleState::Secondary(secondary) => Some(secondary.own_identity()),
    }
}
