//! The client's role: it executes the primary's path commands, relays grants and raw packets, and reports (PROTOCOL.md
//! §8).

mod grants;
mod members;
mod notices;
mod relay;
mod reports;

use std::time::Instant;

pub(crate) use self::members::Dial;
use self::members::Members;
use self::notices::{Notice, Notices};
#[cfg(test)]
pub(in crate::session) use self::relay::Held;
pub(in crate::session) use self::relay::{Relay, RelayRecord};
use self::reports::Reports;
use super::common::Common;
use super::event::SessionEvent;
use super::{RoleState, Session};
use crate::VERSION;
use crate::address::Address;
use crate::auth::{self, Identity, PublicIdentity};
use crate::config::{ClientConfig, SecondaryTrust};
use crate::error::{Fault, FrameEffect, TransportCode};
use crate::grant::GrantTable;
use crate::id::{PathId, Side, StreamId, StreamOffset};
use crate::path::Path;
use crate::protocol_event::ProtocolEventKind;
use crate::status::PathState;
use crate::stream::{StreamTable, TableRole};
use crate::wire::{GrantStatusFrame, Hello, Join, MaxStreamData, Revoke, StopSending, Welcome};

/// What only a client keeps.
pub(super) struct ClientRole {
    pub(super) config: ClientConfig,
    /// Drawn for this session; tickets name its public half.
    pub(super) key: Identity,
    pub(super) members: Members,
    pub(super) grants: GrantTable,
    pub(super) relay: Relay,
    /// For secondaries.
    notices: Notices,
    /// For the primary.
    reports: Reports,
}

impl Session {
    /// A client's session around its first connection.
    pub(crate) fn dial(now: Instant, config: ClientConfig, key: Identity, primary: Address, path: Path) -> Self {
        let limits = config.limits.clone();
        let role = ClientRole {
            key,
            members: Members::new(now, primary, &limits),
            grants: GrantTable::new(&limits),
            relay: Relay::new(&limits),
            notices: Notices::new(&limits),
            reports: Reports::default(),
            config,
        };
        let streams = StreamTable::new(Side::Client, TableRole::Client, &limits);
        let common = Common::new(now, None, limits, (PathId::PRIMARY, path), streams);
        Self::new(common, RoleState::Client(Box::new(role)))
    }
}

impl ClientRole {
    /// When something is to be done. Without room on the control plane no refusal is reported; room comes with a
    /// datagram.
    pub(super) fn deadline(&self, cx: &Common) -> Option<Instant> {
        let has_room = cx.paths.main().is_some_and(Path::is_control_ready);
        self.members.refusal_deadline().filter(|_| has_room)
    }

    /// Whether frames about streams may be sent to the primary. A pinned primary must prove its identity first
    /// ([P-3.4]).
    pub(super) fn can_send_streams(&self, primary: &PathState) -> bool {
        primary.is_usable() || (*primary == PathState::Authenticating && self.config.primary_identity.is_none())
    }

    /// Whether grants and raw packets may go to a server. One whose certificate was verified gets them together with
    /// JOIN; one that only its identity vouches for must prove it first.
    pub(super) fn can_relay(&self, path: PathId, state: &PathState) -> bool {
        let early = !path.is_primary() && self.config.secondary_trust == SecondaryTrust::Certificate;
        state.is_usable() || (early && *state == PathState::Authenticating)
    }

    // ---- authentication

    pub(super) fn on_connected(&mut self, cx: &mut Common, now: Instant, id: PathId) -> Result<FrameEffect, Fault> {
        let params = cx.params();
        let Some(path) = cx.paths.get_mut(id) else { return Ok(FrameEffect::Progress) };
        path.move_to_authenticating();
        let exporter = path.exporter();
        let opened = path.open_control();
        if path.is_closed() {
            // It was closed meanwhile; why is the next input.
            return Ok(FrameEffect::Progress);
        }
        let (Some(exporter), true) = (exporter, opened) else {
            return Err(Fault::new(TransportCode::INTERNAL, "no control plane on a new connection"));
        };
        if id.is_primary() {
            let hello = Hello {
                version: VERSION,
                params,
                client_key: *self.key.public().as_bytes(),
                proof: auth::hello_proof(&self.key, &exporter),
                credential: self.config.credential.clone(),
            };
            path.queue_control(&hello.into());
            // The primary's time runs from HELLO on ([P-3.7]), a secondary's since its dial began ([P-8.4]).
            path.expect_move_by(now.checked_add(cx.limits.auth_timeout));
            if self.config.primary_identity.is_none() {
                cx.emit(SessionEvent::Connected);
            }
        } else if let Some(member) = self.members.get(id) {
            let ticket = member.ticket.clone();
            let proof = auth::join_proof(&self.key, &exporter, &ticket);
            path.queue_control(&Join { version: VERSION, params, ticket, proof }.into());
        }
        Ok(FrameEffect::Progress)
    }

    pub(super) fn on_welcome(&mut self, cx: &mut Common, id: PathId, welcome: Welcome) -> Result<FrameEffect, Fault> {
        let Some(path) = cx.paths.get_mut(id) else { return Ok(FrameEffect::Progress) };
        let mismatch = |detail| Fault::new(TransportCode::IDENTITY_MISMATCH, detail);
        let identity = PublicIdentity::from_bytes(&welcome.identity)
            .map_err(|_| mismatch("WELCOME names an identity that cannot be one"))?;
        // While a secondary's path is read it has a member, so there is always an identity to expect.
        let expected = if id.is_primary() {
            self.config.primary_identity
        } else {
            self.members.get(id).map(|member| member.identity)
        };
        if expected.is_some_and(|expected| expected != identity) {
            return Err(mismatch("WELCOME names another identity than the one expected"));
        }
        // The primary names the session. A secondary is dialled only after that, so then the id is known.
        if welcome.path != id || cx.id.is_some_and(|session| session != welcome.session) {
            return Err(mismatch("WELCOME is for another session or path"));
        }
        let exporter = path.exporter().ok_or_else(|| Fault::new(TransportCode::INTERNAL, "no exporter"))?;
        let key = self.key.public();
        auth::verify_welcome(&identity, &welcome.signature, &exporter, welcome.session, id, &key)
            .map_err(|_| mismatch("the signature of WELCOME does not prove the identity it names"))?;
        path.move_to_active();
        if id.is_primary() {
            self.on_primary_proved(cx, &welcome)?;
        } else {
            self.members.on_joined(id, &cx.limits);
            self.reports.on_changed(id);
        }
        Ok(FrameEffect::Progress)
    }

    fn on_primary_proved(&mut self, cx: &mut Common, welcome: &Welcome) -> Result<(), Fault> {
        let id = welcome.session;
        cx.id = Some(id);
        cx.log.change(PathId::PRIMARY, || ProtocolEventKind::SessionEstablished { id });
        let params = welcome.params;
        cx.streams.on_peer_params(params.streams_bidi, params.streams_uni, params.stream_window_initial)?;
        if self.config.primary_identity.is_some() {
            cx.emit(SessionEvent::Connected);
        }
        cx.emit(SessionEvent::Welcomed);
        Ok(())
    }

    pub(super) fn on_liveness_changed(&mut self, id: PathId) {
        self.reports.on_changed(id);
    }

    // ---- out

    /// The limit of a stream rose. A path that is still connecting gets the limit with its grants.
    pub(super) fn on_limit_raised(&mut self, cx: &Common, stream: StreamId) {
        let hears = |path: &PathId| cx.paths.get(*path).is_some_and(Path::is_hearing);
        for path in self.grants.writers(stream).filter(hears) {
            self.notices.push(path, Notice::Raised(stream));
        }
    }

    /// Gives the paths the frames for their servers. Returns a path, with the fault, whose server leaves too much
    /// unread.
    pub(super) fn flush(&mut self, cx: &mut Common, now: Instant) -> Option<(PathId, Fault)> {
        // Streams that are gone come first: this settles their last grants, which are reported below.
        while let Some(stream) = cx.streams.poll_gone() {
            self.grants.forget_stream(stream);
            self.notices.forget_stream(stream);
        }
        self.flush_notices(cx);
        // A grant that was settled while it waited must not be relayed any more ([P-8.9]).
        while let Some((path, grant)) = self.grants.poll_settled() {
            self.relay.drop_grant(path, grant);
        }
        for (id, path) in cx.paths.iter_mut() {
            while path.state().is_usable() && path.is_control_ready() {
                let Some(status) = self.relay.pop_status(id) else { break };
                path.queue_control(&status.into());
            }
        }
        self.flush_reports(cx, now);
        // Judged last: by now everything was sent for which the path has room.
        let flood = Fault::new(TransportCode::CONTROL_FLOOD, "the server hears of nothing that ended");
        self.notices.overfull().map(|path| (path, flood))
    }

    /// Sends what the primary is to be notified of, the outcome of grants first.
    fn flush_reports(&mut self, cx: &mut Common, now: Instant) {
        while cx.paths.main_with_room().is_some() {
            let frame = if let Some((grant, status)) = self.grants.poll_status() {
                cx.log.change(None, || ProtocolEventKind::of_grant(grant, &status));
                self.reports.measure(now, self.members.joined(&cx.paths));
                GrantStatusFrame { grant, status }.into()
            } else if let Some(status) = self.reports.pop(&cx.paths) {
                status.into()
            } else if let Some((id, code)) = self.members.poll_refusal(now) {
                reports::dead(&cx.paths, id, code).into()
            } else {
                return;
            };
            if let Some(main) = cx.paths.main_mut() {
                main.queue_control(&frame);
            }
        }
    }

    fn flush_notices(&mut self, cx: &mut Common) {
        let Common { paths, streams, .. } = cx;
        for (id, path) in paths.iter_mut().filter(|(id, path)| !id.is_primary() && path.is_hearing()) {
            while path.is_control_ready() {
                let frame = match self.notices.pop(id) {
                    Some(Notice::Leased(lease)) => lease.into(),
                    // A secondary does not judge the epoch: it is the client's word ([P-8.10]).
                    Some(Notice::Revoked(grant)) => Revoke { grant, epoch: self.members.epoch() }.into(),
                    Some(Notice::Stopped(stream, code)) => StopSending { stream, code, conflict: None }.into(),
                    Some(Notice::Raised(stream)) => match streams.receive_limit(stream) {
                        Ok(Some(limit)) => MaxStreamData { stream, limit: StreamOffset(limit) }.into(),
                        // The stream takes no more bytes, so nobody needs credit for it.
                        _ => continue,
                    },
                    None => break,
                };
                path.queue_control(&frame);
            }
        }
    }
}

#[cfg(test)]
impl ClientRole {
    /// As if a grant of a server had been revoked that it was told of.
    pub(super) fn pretend_revoked(&mut self, path: PathId, grant: u64) {
        self.notices.push(path, Notice::Revoked(crate::id::GrantId(grant)));
    }
}
