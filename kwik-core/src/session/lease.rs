//! How long a path may live: the primary says again and again that it wants it, the client carries that, and the
//! secondary ends a path that nobody wants (PROTOCOL.md §4).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::input::violation;
use super::notices::Notice;
use super::{Moment, RoleState, Session};
use crate::auth::{LEASE_MAX, LeaseTerm, UnixTime};
use crate::error::{Fault, FrameEffect, TransportCode};
use crate::id::PathId;
use crate::limits::Limits;
use crate::status::PathState;
use crate::wire::Lease;

/// When a primary renews the leases of its paths.
#[derive(Debug)]
pub(super) struct Renewals {
    every: Duration,
    next: Option<Instant>,
    /// Paths that are wanted, which was not said yet.
    due: BTreeSet<PathId>,
}

impl Renewals {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { every: limits.path_lease.min(LEASE_MAX) / 2, next: None, due: BTreeSet::new() }
    }

    /// There is a path to be renewed.
    pub(super) fn begin(&mut self, now: Instant) {
        self.next = self.next.or_else(|| now.checked_add(self.every));
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// The next path of which is to be said that it is wanted.
    pub(super) fn pop_due(&mut self) -> Option<PathId> {
        self.due.pop_first()
    }

    fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| now >= next)
    }

    fn begin_round(&mut self, now: Instant, wanted: BTreeSet<PathId>) {
        self.next = now.checked_add(self.every).filter(|_| !wanted.is_empty());
        self.due = wanted;
    }
}

/// Whether a primary that has a path in this state wants it to live.
pub(super) fn is_wanted(state: &PathState) -> bool {
    !state.is_dead() && *state != PathState::Closing
}

/// The lease of a secondary's path.
#[derive(Debug)]
pub(super) struct PathLease {
    term: LeaseTerm,
    /// `None` if no clock comes so far.
    end: Option<Instant>,
}

impl PathLease {
    pub(super) fn new(now: Instant, term: LeaseTerm) -> Self {
        Self { end: now.checked_add(term.span), term }
    }

    pub(super) fn end(&self) -> Option<Instant> {
        self.end
    }
}

impl Session {
    /// The primary's clock came to the time of a renewal.
    pub(super) fn renew_leases(&mut self, now: Instant) {
        let RoleState::Primary(primary) = &mut self.role else { return };
        if primary.renewals.is_due(now) {
            let wanted = primary.paths().filter(|info| is_wanted(&info.state)).map(|info| info.id).collect();
            primary.renewals.begin_round(now, wanted);
        }
    }

    /// The client passes a renewal on, when there is room: the newest counts.
    pub(super) fn on_lease_to_relay(&mut self, lease: Lease) -> Result<FrameEffect, Fault> {
        let RoleState::Client(client) = &mut self.role else { return Ok(FrameEffect::Progress) };
        if !client.members.was_added(lease.path) {
            return Err(violation("LEASE of a path that was never added"));
        }
        if client.members.get(lease.path).is_some() {
            client.notices.push(lease.path, Notice::Leased(lease));
        }
        Ok(FrameEffect::NoOp)
    }

    pub(super) fn on_lease(&mut self, moment: Moment, lease: &Lease) -> Result<FrameEffect, Fault> {
        let RoleState::Secondary(secondary) = &mut self.role else { return Ok(FrameEffect::Progress) };
        if lease.path != secondary.path {
            return Err(violation("LEASE of another path"));
        }
        let PathLease { term, end } = &mut secondary.lease;
        let left = term
            .renew(UnixTime::from_millis(lease.issued_at_ms), &lease.signature, moment.wall)
            .map_err(|error| Fault::new(error.code(), "a lease that the primary did not sign"))?;
        match left {
            // Clocks may differ: a renewal never takes time away.
            Some(left) => *end = end.and_then(|old| moment.now.checked_add(left).map(|new| new.max(old))),
            None => return Ok(FrameEffect::NoOp),
        }
        Ok(FrameEffect::Progress)
    }

    pub(super) fn check_lease(&mut self, moment: Moment) {
        let RoleState::Secondary(secondary) = &self.role else { return };
        if secondary.lease.end.is_some_and(|end| moment.now >= end) {
            self.fail(moment.now, TransportCode::LEASE_EXPIRED, "");
            return;
        }
        self.check_receipts(moment.now);
    }
}
