//! The client's part: it executes the primary's path commands, carries grants, and reports (PROTOCOL.md §8).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::event::SessionEvent;
use super::input::violation;
use super::members::Members;
use super::notices::{Notice, Notices};
use super::relay::{Relay, RelayRecord};
use super::{Moment, RoleState, Session};
use crate::VERSION;
use crate::address::Address;
use crate::auth::{self, Identity, PublicIdentity};
use crate::config::{ClientConfig, SecondaryTrust};
use crate::error::{ErrorCode, Fault, FrameEffect, TransportCode};
use crate::grant::{Grant, GrantTable};
use crate::id::{PathId, Side, StreamId, StreamOffset};
use crate::path::Path;
use crate::protocol_event::{ProtocolEventKind, grant_event};
use crate::status::PathState;
use crate::stream::{DataOutcome, StreamTable, TableRole};
use crate::wire::{
    self, GrantEnd, GrantOpen, GrantStatusFrame, Hello, Join, MaxStreamData, PathStatus, Raw, RawStatus, Revoke,
    StopSending, Welcome, WirePathState,
};

/// What only a client keeps.
pub(super) struct ClientRole {
    pub(super) config: ClientConfig,
    /// Drawn for this session; tickets name its public half.
    pub(super) key: Identity,
    pub(super) members: Members,
    pub(super) grants: GrantTable,
    pub(super) relay: Relay,
    /// For secondaries.
    pub(super) notices: Notices,
    /// Paths whose state is to be reported.
    pub(super) reports: BTreeMap<PathId, PathReport>,
    /// Until when the primary must have answered HELLO.
    welcome_deadline: Option<Instant>,
    /// When the figures of all paths were last reported.
    figures_at: Option<Instant>,
}

/// What is reported of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathReport {
    Alive,
    Dead(ErrorCode),
}

impl ClientRole {
    const FIGURES_EVERY: Duration = Duration::from_millis(250);

    /// When something is to be done. Without room on the control plane no refusal is told; room comes with a datagram.
    pub(super) fn deadline(&self, is_control_ready: bool) -> Option<Instant> {
        let refusal = self.members.refusal_deadline().filter(|_| is_control_ready);
        self.members.deadline().into_iter().chain(self.welcome_deadline).chain(refusal).min()
    }

    /// Has the figures of every secondary reported, if that was not done lately. They go with the progress of grants,
    /// since that is when a primary weighs its servers.
    fn report_figures(&mut self, now: Instant) {
        if self.figures_at.is_some_and(|at| now.saturating_duration_since(at) < Self::FIGURES_EVERY) {
            return;
        }
        self.figures_at = Some(now);
        for path in self.members.joined() {
            self.reports.entry(path).or_insert(PathReport::Alive);
        }
    }

    /// Whether streams may be spoken of on the home path. A pinned primary must prove itself first.
    pub(super) fn can_send_streams(&self, home: &PathState) -> bool {
        home.is_usable() || (*home == PathState::Authenticating && self.config.primary_identity.is_none())
    }

    /// Whether grants and raw packets may go to a server. One whose certificate was verified gets them together with
    /// JOIN; one that only its identity vouches for must prove it first.
    pub(super) fn can_relay(&self, path: PathId, state: &PathState) -> bool {
        let early = !path.is_primary() && self.config.secondary_trust == SecondaryTrust::Certificate;
        state.is_usable() || (early && *state == PathState::Authenticating)
    }
}

impl Session {
    /// A client's session around its first connection.
    pub(crate) fn dial(now: Instant, config: ClientConfig, key: Identity, primary: Address, path: Path) -> Self {
        let limits = config.limits.clone();
        let role = ClientRole {
            grants: GrantTable::new(&limits),
            config,
            key,
            members: Members::new(now, primary, &limits),
            relay: Relay::new(&limits),
            notices: Notices::new(&limits),
            reports: BTreeMap::new(),
            welcome_deadline: None,
            figures_at: None,
        };
        let streams = StreamTable::new(Side::Client, TableRole::Client, &limits);
        let role = RoleState::Client(Box::new(role));
        Self::assemble(now, None, limits, role, (PathId::PRIMARY, path), streams)
    }

    /// What a client's further connections are made with.
    pub(crate) fn client_config(&self) -> Option<ClientConfig> {
        match &self.role {
            RoleState::Client(client) => Some(client.config.clone()),
            RoleState::Primary(_) | RoleState::Secondary(_) => None,
        }
    }

    // ---- authentication

    pub(super) fn on_connected(&mut self, moment: Moment, id: PathId) {
        let params = self.params();
        let RoleState::Client(client) = &mut self.role else { return };
        let Some(path) = self.paths.get_mut(&id) else { return };
        path.move_to_authenticating();
        let exporter = path.exporter();
        let opened = path.open_control();
        if path.is_closed() {
            // It was closed meanwhile; why is told next.
            return;
        }
        let (Some(exporter), true) = (exporter, opened) else {
            self.on_fault(moment.now, id, TransportCode::INTERNAL, "no control plane on a new connection");
            return;
        };
        if id.is_primary() {
            let hello = Hello {
                version: VERSION,
                params,
                client_key: *client.key.public().as_bytes(),
                proof: auth::hello_proof(&client.key, &exporter),
                credential: client.config.credential.clone(),
            };
            path.queue_control(&hello.into());
            client.welcome_deadline = moment.now.checked_add(self.limits.auth_timeout);
            if client.config.primary_identity.is_none() {
                self.emit(SessionEvent::Connected);
            }
        } else if let Some(member) = client.members.get(id) {
            let ticket = member.ticket.clone();
            let proof = auth::join_proof(&client.key, &exporter, &ticket);
            path.queue_control(&Join { version: VERSION, params, ticket, proof }.into());
        }
    }

    pub(super) fn on_welcome(&mut self, moment: Moment, id: PathId, welcome: Welcome) -> Result<FrameEffect, Fault> {
        let RoleState::Client(client) = &mut self.role else { return Ok(FrameEffect::Progress) };
        let Some(path) = self.paths.get_mut(&id) else { return Ok(FrameEffect::Progress) };
        let mismatch = |detail| Fault::new(TransportCode::IDENTITY_MISMATCH, detail);
        let identity = PublicIdentity::from_bytes(&welcome.identity)
            .map_err(|_| mismatch("WELCOME names an identity that cannot be one"))?;
        let expected = if id.is_primary() {
            client.config.primary_identity
        } else {
            client.members.get(id).map(|member| member.identity)
        };
        if expected.is_some_and(|expected| expected != identity) {
            return Err(mismatch("WELCOME names another identity than the one expected"));
        }
        if welcome.path != id || self.id.is_some_and(|session| session != welcome.session) {
            return Err(mismatch("WELCOME is for another session or path"));
        }
        let exporter = path.exporter().ok_or_else(|| Fault::new(TransportCode::INTERNAL, "no exporter"))?;
        let key = client.key.public();
        auth::verify_welcome(&identity, &welcome.signature, &exporter, welcome.session, id, &key)
            .map_err(|_| mismatch("the signature of WELCOME does not prove the identity it names"))?;
        path.move_to_active();
        self.log.change(id, || ProtocolEventKind::PathChanged { state: PathState::Active });
        if !id.is_primary() {
            client.members.on_joined(id, &self.limits);
            client.reports.insert(id, PathReport::Alive);
            return Ok(FrameEffect::Progress);
        }
        client.welcome_deadline = None;
        self.id = Some(welcome.session);
        self.log.change(id, || ProtocolEventKind::SessionEstablished { id: welcome.session });
        let pinned = client.config.primary_identity.is_some();
        let params = welcome.params;
        self.streams.on_peer_params(params.streams_bidi, params.streams_uni, params.stream_window_initial)?;
        if pinned {
            self.emit(SessionEvent::Connected);
        }
        self.emit(SessionEvent::Welcomed);
        let _ = moment;
        Ok(FrameEffect::Progress)
    }

    pub(super) fn on_liveness_changed(&mut self, id: PathId) {
        if let RoleState::Client(client) = &mut self.role {
            client.reports.entry(id).or_insert(PathReport::Alive);
        }
    }

    pub(super) fn check_deadlines(&mut self, moment: Moment) {
        let RoleState::Client(client) = &self.role else { return };
        if client.welcome_deadline.is_some_and(|deadline| moment.now >= deadline) {
            self.fail(moment.now, TransportCode::AUTH_TIMEOUT, "the primary did not answer HELLO in time");
            return;
        }
        self.check_members(moment.now);
    }

    // ---- grants

    pub(super) fn on_grant(&mut self, frame: wire::Grant) -> Result<FrameEffect, Fault> {
        let RoleState::Client(client) = &mut self.role else { return Ok(FrameEffect::Progress) };
        let range = frame.start.0..frame.start.0.saturating_add(frame.len);
        if frame.signed.payload.len() > crate::limits::REQUEST_BYTES_MAX {
            return Err(Fault::new(TransportCode::FRAME_TOO_LARGE, "a request longer than its limit"));
        }
        if client.grants.is_known(frame.grant) {
            return Err(violation("a grant id was used twice"));
        }
        if !client.members.was_added(frame.path) {
            return Err(violation("GRANT for a path that was never added"));
        }
        let limit = self.streams.receive_limit(frame.stream)?;
        let missing = self.streams.gaps(frame.stream, range.clone());
        let grant =
            Grant { id: frame.grant, epoch: frame.epoch, path: frame.path, stream: frame.stream, range: range.clone() };
        let Some(limit) = limit else {
            client.grants.refuse(grant, &missing, TransportCode::STREAM_GONE.into())?;
            return Ok(FrameEffect::Progress);
        };
        if client.members.get(frame.path).is_none() {
            client.grants.refuse(grant, &missing, TransportCode::PATH_UNKNOWN.into())?;
            return Ok(FrameEffect::Progress);
        }
        client.grants.record(grant, &missing)?;
        let (grant, stream) = (frame.grant, frame.stream);
        let open = GrantOpen {
            grant,
            epoch: frame.epoch,
            stream,
            start: frame.start,
            len: frame.len,
            limit: StreamOffset(limit),
            signed: frame.signed,
        };
        if client.grants.is_open(grant) {
            self.log.change(frame.path, || ProtocolEventKind::GrantRecorded { grant, stream, range });
            client.relay.push_grant(frame.path, &open);
        }
        Ok(FrameEffect::Progress)
    }

    pub(super) fn on_revoke(&mut self, revoke: &Revoke) -> Result<FrameEffect, Fault> {
        let RoleState::Client(client) = &mut self.role else { return Ok(FrameEffect::Progress) };
        match client.grants.revoke(revoke.grant, revoke.epoch) {
            Some(grant) => {
                self.log.change(grant.path, || ProtocolEventKind::GrantRevoked { grant: grant.id });
                if !client.relay.drop_grant(grant.path, grant.id) {
                    client.notices.push(grant.path, Notice::Revoked(grant.id));
                }
            }
            None if client.grants.is_crossed_revoke() => {}
            None => return Ok(FrameEffect::NoOp),
        }
        Ok(FrameEffect::Progress)
    }

    pub(super) fn on_grant_end(&mut self, from: PathId, end: &GrantEnd) -> Result<FrameEffect, Fault> {
        let RoleState::Client(client) = &mut self.role else { return Ok(FrameEffect::Progress) };
        let was_open = client.grants.is_open(end.grant);
        client.grants.on_end(end.grant, from, end.end.0, end.code)?;
        let is_useless = !was_open || client.grants.is_open(end.grant);
        if is_useless && !client.grants.is_crossed_end(from) {
            return Ok(FrameEffect::NoOp);
        }
        Ok(FrameEffect::Progress)
    }

    /// A server has the grant: what it was told may be old by now, and what was said meanwhile it may have missed.
    pub(super) fn on_relayed_acknowledged(&mut self, path: PathId, record: RelayRecord) {
        let RoleState::Client(client) = &mut self.role else { return };
        let RelayRecord::Grant { grant, stream, limit } = record else { return };
        if !client.grants.is_open(grant) {
            client.notices.push(path, Notice::Revoked(grant));
        } else if self.streams.receive_limit(stream).ok().flatten() > Some(limit.0) {
            client.notices.push(path, Notice::Raised(stream));
        }
    }

    /// Bytes of a stream arrived.
    pub(super) fn on_stream_progress(&mut self, id: StreamId, outcome: &DataOutcome) {
        if let RoleState::Client(client) = &mut self.role {
            client.grants.on_new(id, &outcome.inserted.new);
        }
    }

    /// The client takes nothing more of a stream: every secondary that writes it is stopped, and the primary told what
    /// will not come.
    pub(super) fn on_stream_over(&mut self, id: StreamId, code: ErrorCode) {
        let RoleState::Client(client) = &mut self.role else { return };
        for (path, grant) in client.grants.stream_gone(id, TransportCode::STREAM_GONE.into()) {
            if !client.relay.drop_grant(path, grant) {
                client.notices.push(path, Notice::Stopped(id, code));
            }
        }
    }

    /// The application wants nothing more of a stream.
    pub(super) fn on_stream_unwanted(&mut self, id: StreamId, code: ErrorCode) {
        if self.streams.is_receiving(id) == Some(true) && !self.streams.is_received(id) {
            self.on_stream_over(id, code);
        }
    }

    // ---- raw packets

    pub(super) fn on_raw_to_relay(&mut self, from: PathId, raw: Raw) -> Result<FrameEffect, Fault> {
        let RoleState::Client(client) = &mut self.role else { return Ok(FrameEffect::Progress) };
        let known = raw.to.is_primary() || client.members.get(raw.to).is_some();
        if !known || raw.to == from {
            let sequence = raw.signed.sequence;
            client.relay.refuse_raw(from, raw.to, sequence, TransportCode::PATH_UNKNOWN)?;
            // Who was not told yet that the path is refused cannot know.
            let is_told = !client.members.has_refusal(raw.to);
            return Ok(if is_told { FrameEffect::NoOp } else { FrameEffect::Progress });
        }
        let between_secondaries = !from.is_primary() && !raw.to.is_primary();
        let forwarded_ticket = client
            .members
            .get(from)
            .filter(|_| between_secondaries)
            .map_or_else(Bytes::new, |member| member.ticket.clone());
        client.relay.push_raw(from, raw.to, forwarded_ticket, raw.signed)?;
        Ok(FrameEffect::Progress)
    }

    pub(super) fn on_receipt_to_relay(&mut self, receiver: PathId, status: RawStatus) -> Result<FrameEffect, Fault> {
        let RoleState::Client(client) = &mut self.role else { return Ok(FrameEffect::Progress) };
        // A receipt may cross the end of the path whose server sent the packet: nobody waits for it any more.
        let from = status.from;
        let is_gone = client.members.was_added(from) && client.members.get(from).is_none();
        if status.to != receiver {
            return Err(violation("RAW_STATUS about another path than its own"));
        }
        if is_gone {
            return Ok(FrameEffect::NoOp);
        }
        if !client.relay.on_receipt(status) {
            return Err(violation("RAW_STATUS for a packet that was not carried, or was answered"));
        }
        Ok(FrameEffect::Progress)
    }

    // ---- out

    pub(super) fn flush_client(&mut self, moment: Moment) {
        while let Some(stream) = self.streams.poll_gone() {
            if let RoleState::Client(client) = &mut self.role {
                client.grants.forget_stream(stream);
                client.notices.forget_stream(stream);
            }
        }
        self.flush_notices(moment.now);
        let RoleState::Client(client) = &mut self.role else { return };
        while let Some((path, grant)) = client.grants.poll_settled() {
            client.relay.drop_grant(path, grant);
        }
        for (id, path) in &mut self.paths {
            while path.state().is_usable() && path.is_control_ready() {
                let Some(receipt) = client.relay.pop_receipt(*id) else { break };
                path.queue_control(&receipt.into());
            }
        }
        while self.paths.get(&PathId::PRIMARY).is_some_and(|path| path.is_control_ready()) {
            let RoleState::Client(client) = &mut self.role else { return };
            let frame = if let Some((grant, report)) = client.grants.poll_status() {
                self.log.change(None, || grant_event(grant, &report));
                client.report_figures(moment.now);
                GrantStatusFrame { grant, status: report }.into()
            } else if let Some((id, state)) = client.reports.pop_first() {
                self.path_status(id, &state).into()
            } else if let Some((id, code)) = client.members.poll_refusal(moment.now) {
                self.path_status(id, &PathReport::Dead(code)).into()
            } else {
                return;
            };
            if let Some(home) = self.paths.get_mut(&PathId::PRIMARY) {
                home.queue_control(&frame);
            }
        }
    }

    fn path_status(&self, id: PathId, state: &PathReport) -> PathStatus {
        let path = self.paths.get(&id);
        let (state, code) = match (state, path.map(|path| path.state())) {
            (PathReport::Dead(code), _) => (WirePathState::Dead, *code),
            (PathReport::Alive, Some(PathState::Suspect)) => (WirePathState::Suspect, TransportCode::NO_ERROR.into()),
            (PathReport::Alive, _) => (WirePathState::Active, TransportCode::NO_ERROR.into()),
        };
        PathStatus {
            path: id,
            state,
            code,
            rtt: path.map(|path| path.rtt()).unwrap_or_default(),
            rate: path.map_or(0, |path| path.bytes_per_second()).min(crate::limits::VARINT_MAX),
            bytes: path.map_or(0, |path| path.bytes_received()).min(crate::limits::VARINT_MAX),
        }
    }

    fn flush_notices(&mut self, now: Instant) {
        let RoleState::Client(client) = &mut self.role else { return };
        for (id, path) in self.paths.iter_mut().filter(|(id, path)| !id.is_primary() && path.is_hearing()) {
            while path.is_control_ready() {
                let frame = match client.notices.pop(*id) {
                    Some(Notice::Leased(lease)) => lease.into(),
                    Some(Notice::Revoked(grant)) => Revoke { grant, epoch: client.members.epoch() }.into(),
                    Some(Notice::Stopped(stream, code)) => StopSending { stream, code, conflict: None }.into(),
                    Some(Notice::Raised(stream)) => match self.streams.receive_limit(stream) {
                        Ok(Some(limit)) => MaxStreamData { stream, limit: StreamOffset(limit) }.into(),
                        _ => continue,
                    },
                    None => break,
                };
                path.queue_control(&frame);
            }
        }
        if let Some(path) = client.notices.overfull() {
            self.on_fault(now, path, TransportCode::CONTROL_FLOOD, "the server hears of nothing that ended");
        }
    }
}
