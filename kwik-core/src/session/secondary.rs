//! A secondary's part: it accepts what the primary delegated, and believes nothing but the primary's signature
//! (PROTOCOL.md §8).

use std::time::Instant;

use super::event::SessionEvent;
use super::lease::PathLease;
use super::raw::RawEnd;
use super::{Moment, RoleState, Session};
use crate::auth::{self, Identity, LeaseTerm, PublicIdentity, ReplayWindow, SignatureContext, Ticket};
use crate::error::{Fault, FrameEffect};
use crate::id::{PathId, SessionId, Side};
use crate::limits::Limits;
use crate::path::Path;
use crate::protocol_event::ProtocolEventKind;
use crate::stream::{StreamTable, TableRole};
use crate::wire::{ControlFrame, GrantOpen, Params, RawForward, Welcome};

/// What only a secondary keeps.
pub(super) struct SecondaryRole {
    session: SessionId,
    pub(super) path: PathId,
    primary: PublicIdentity,
    identity: Identity,
    grants: ReplayWindow,
    pub(super) lease: PathLease,
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

impl SecondaryRole {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.raw.deadline().into_iter().chain(self.lease.end()).min()
    }

    pub(super) fn own_identity(&self) -> PublicIdentity {
        self.identity.public()
    }

    pub(super) fn on_raw_forward(&mut self, now: Instant, forward: RawForward) -> Result<bool, Fault> {
        let (session, primary) = (self.session, self.primary);
        self.raw.on_forward(now, forward, |frame| {
            if frame.from.is_primary() {
                return Some(primary);
            }
            auth::verify_forwarded_ticket(&frame.forwarded_ticket, session, frame.from, &primary).ok()
        })
    }
}

impl Session {
    /// A session that a client joins here.
    pub(crate) fn new_secondary(moment: Moment, new: NewSecondary, mut path: Path) -> Self {
        let NewSecondary { ticket, identity, limits, params, exporter } = new;
        let (session, id) = (ticket.session, ticket.path);
        let signature = auth::welcome_proof(&identity, &exporter, session, id, &ticket.client_key);
        let mut streams = StreamTable::new(Side::Server, TableRole::Secondary, &limits);
        let agreed = streams.on_peer_params(params.streams_bidi, params.streams_uni, params.stream_window_initial);
        path.set_limits(&limits);
        path.queue_control(&ControlFrame::from(Welcome {
            session,
            path: id,
            params: super::params(&limits),
            identity: *identity.public().as_bytes(),
            signature,
        }));
        path.move_to_active();
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
        let role = RoleState::Secondary(Box::new(role));
        let mut machine = Self::assemble(moment.now, Some(session), limits, role, (id, path), streams);
        machine.emit(SessionEvent::Incoming);
        if let Err(fault) = agreed {
            machine.fail(moment.now, fault.code, fault.detail);
        }
        machine
    }

    pub(super) fn on_grant_forward(&mut self, grant: GrantOpen) -> Result<FrameEffect, Fault> {
        let RoleState::Secondary(secondary) = &mut self.role else { return Ok(FrameEffect::Progress) };
        let range = grant.start.0..grant.start.0.saturating_add(grant.len);
        let context = SignatureContext {
            session: secondary.session,
            from: PathId::PRIMARY,
            to: secondary.path,
            sequence: grant.signed.sequence,
        };
        let signed = &grant.signed;
        let refused =
            |error: auth::AuthError| Fault::new(error.code(), "a grant that the primary did not sign, or twice");
        if !secondary.grants.is_new(signed.sequence) {
            return Err(refused(auth::AuthError::Replayed));
        }
        auth::verify_grant(
            &secondary.primary,
            &signed.signature,
            context,
            grant.grant,
            grant.stream,
            range.clone(),
            &signed.payload,
        )
        .and_then(|()| secondary.grants.accept(signed.sequence))
        .map_err(refused)?;
        let (id, stream) = (grant.grant, grant.stream);
        self.log.change(self.home, || ProtocolEventKind::GrantAccepted { grant: id, stream, range: range.clone() });
        self.streams.open_part(id, stream, range, grant.limit.0, grant.signed.payload)?;
        Ok(FrameEffect::Progress)
    }

    pub(super) fn flush_secondary(&mut self, now: Instant) {
        let RoleState::Secondary(secondary) = &mut self.role else { return };
        let Some(home) = self.paths.get_mut(&self.home) else { return };
        while home.is_control_ready() {
            let Some(frame) = secondary.raw.poll_control(now) else { return };
            home.queue_control(&frame);
        }
    }
}
