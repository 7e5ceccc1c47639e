//! How long a path may live: the primary renews the lease of each path it wants, the client relays the renewal, and the
//! secondary ends a path whose lease has passed (PROTOCOL.md §4).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Moment;
use crate::auth::{AuthError, LEASE_MAX, LeaseTerm, UnixTime};
use crate::error::FrameEffect;
use crate::id::PathId;
use crate::limits::Limits;
use crate::wire::Lease;

/// When a primary renews the leases of its paths.
#[derive(Debug)]
pub(super) struct Renewals {
    every: Duration,
    next: Option<Instant>,
    /// Paths that are wanted and whose renewal was not sent in this round yet.
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

    /// The next path whose lease is to be renewed.
    pub(super) fn pop_due(&mut self) -> Option<PathId> {
        self.due.pop_first()
    }

    /// Whether the next round of renewals begins.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| now >= next)
    }

    pub(super) fn begin_round(&mut self, now: Instant, wanted: BTreeSet<PathId>) {
        // Without a path there is no next round; `begin` plans one when a path is added.
        self.next = now.checked_add(self.every).filter(|_| !wanted.is_empty());
        self.due = wanted;
    }
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

    /// Whether the lease is over.
    pub(super) fn has_ended(&self, now: Instant) -> bool {
        self.end.is_some_and(|end| now >= end)
    }

    /// The client relayed a renewal, which the primary may or may not have signed.
    pub(super) fn renew(&mut self, moment: Moment, lease: &Lease) -> Result<FrameEffect, AuthError> {
        let issued_at = UnixTime::from_millis(lease.issued_at_ms);
        match self.term.renew(issued_at, &lease.signature, moment.wall)? {
            // Clocks may differ: a renewal never takes time away.
            Some(left) => {
                self.end = self.end.and_then(|old| moment.now.checked_add(left).map(|new| new.max(old)));
                Ok(FrameEffect::Progress)
            }
            None => Ok(FrameEffect::NoOp),
        }
    }
}
