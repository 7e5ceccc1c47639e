//! The secondary's role: it accepts what the primary delegated, and trusts nothing but the primary's signature
//! (PROTOCOL.md §8).

use std::time::Instant;

use super::common::{Common, send_welcome};
use super::event::SessionEvent;
use super::lease::PathLease;
use super::raw::RawEnd;
use super::{Moment, RoleState, Session, violation};
use crate::auth::{self, AuthError, Identity, LeaseTerm, PublicIdentity, ReplayWindow, SignatureContext, Ticket};
use crate::error::{DeadReason, Fault, FrameEffect, TransportCode};
use crate::id::{PathId, SessionId, Side};
use crate::limits::Limits;
use crate::path::Path;
use crate::protocol_event::ProtocolEventKind;
use crate::stream::{StreamTable, TableRole};
use crate::wire::{GrantOpen, Lease, Params, RawForward};

/// What only a secondary keeps.
pub(super) struct SecondaryRole {
    session: SessionId,
    path: PathId,
    primary: PublicIdentity,
    identity: Identity,
    grants: ReplayWindow,
    lease: PathLease,
    pub(super) raw: RawEnd,
}

/// What a client joins with; its ticket and proof were verified.
pub(crate) struct NewSecondary {
    pub(crate) ticket: Ticket,
    pub(crate) identity: Identity,
    pub(crate) limits: Limits,
    pub(crate) params: Params,
    pub(crate) exporter: [u8; 32],
}

impl Session {
    /// A session that a client joins here.
    pub(crate) fn new_secondary(moment: Moment, new: NewSecondary, mut path: Path) -> Self {
        let NewSecondary { ticket, identity, limits, params: theirs, exporter } = new;
        let (session, id) = (ticket.session, ticket.path);
        let mut streams = StreamTable::new(Side::Server, TableRole::Secondary, &limits);
        let agreed = streams.on_peer_params(theirs.streams_bidi, theirs.streams_uni, theirs.stream_window_initial);
        send_welcome(&mut path, (session, id), (&identity, &ticket.client_key), &exporter, &limits);
        let term = LeaseTerm::new(ticket.issuer, session, id, ticket.lease, ticket.issued_at);
        let role = SecondaryRole {
            session,
            path: id,
            primary: ticket.issuer,
            raw: RawEnd::new(moment.now, (session, id), identity.clone(), &limits),
            identity,
            grants: ReplayWindow::default(),
            lease: PathLease::new(moment.now, term),
        };
        let mut common = Common::new(moment.now, Some(session), limits, (id, path), streams);
        common.emit(SessionEvent::Incoming);
        let mut new = Self::new(common, RoleState::Secondary(Box::new(role)));
        // The decoder refuses such parameters already. Were there any, the session must exist for its path to be
        // closed.
        if let Err(fault) = agreed {
            new.fail(moment.now, DeadReason::new(fault.code, fault.detail));
        }
        new
    }
}

impl SecondaryRole {
    pub(super) fn own_identity(&self) -> PublicIdentity {
        self.identity.public()
    }

    // ---- time

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.raw.deadline().into_iter().chain(self.lease.end()).min()
    }

    /// Gives the reason if the session cannot go on.
    pub(super) fn check_time(&mut self, cx: &mut Common, now: Instant) -> Option<DeadReason> {
        if self.lease.has_ended(now) {
            return Some(DeadReason::new(TransportCode::LEASE_EXPIRED, ""));
        }
        self.raw.give_up_overdue(cx, now);
        None
    }

    // ---- frames

    pub(super) fn on_grant(&mut self, cx: &mut Common, frame: GrantOpen) -> Result<FrameEffect, Fault> {
        let GrantOpen { grant, stream, start, len, limit, signed, .. } = frame;
        let range = start.0..start.0.saturating_add(len);
        let refused =
            |error: AuthError| Fault::new(error.code(), "a grant that the primary did not sign, or that came twice");
        // Cheap checks come first. A wrong signature closes the path, so a client wastes one verification for each
        // connection.
        if !self.grants.is_new(signed.sequence) {
            return Err(refused(AuthError::Replayed));
        }
        let (session, to, sequence) = (self.session, self.path, signed.sequence);
        let context = SignatureContext { session, from: PathId::PRIMARY, to, sequence };
        let (signature, request) = (&signed.signature, &signed.payload);
        // Verified first, used up second: see `ReplayWindow::accept`.
        auth::verify_grant(&self.primary, signature, context, grant, stream, range.clone(), request)
            .and_then(|()| self.grants.accept(sequence))
            .map_err(refused)?;
        cx.log.change(self.path, || ProtocolEventKind::GrantAccepted { grant, stream, range: range.clone() });
        cx.streams.open_part(grant, stream, range, limit.0, signed.payload)?;
        Ok(FrameEffect::Progress)
    }

    pub(super) fn on_lease(&mut self, moment: Moment, lease: &Lease) -> Result<FrameEffect, Fault> {
        if lease.path != self.path {
            return Err(violation("LEASE of another path"));
        }
        let renewed = self.lease.renew(moment, lease);
        renewed.map_err(|error| Fault::new(error.code(), "a lease that the primary did not sign"))
    }

    pub(super) fn on_raw_forward(
        &mut self,
        cx: &mut Common,
        now: Instant,
        forward: RawForward,
    ) -> Result<FrameEffect, Fault> {
        let (session, primary) = (self.session, self.primary);
        self.raw.on_forward(cx, now, forward, |frame| {
            if frame.from.is_primary() {
                return Some(primary);
            }
            auth::verify_forwarded_ticket(&frame.forwarded_ticket, session, frame.from, &primary).ok()
        })
    }

    // ---- out

    pub(super) fn flush(&mut self, cx: &mut Common, now: Instant) {
        if let Some(main) = cx.paths.main_mut() {
            self.raw.flush(main, now);
        }
    }
}
