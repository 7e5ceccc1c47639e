//! Connections before they authenticate: what they may cost, and how they become sessions (PROTOCOL.md §4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Endpoint, Key, Owner, exchange};
use crate::VERSION;
use crate::auth::{AuthError, PublicIdentity, UnixTime, verify_join};
use crate::config::{self, ConfigError, ServerConfig};
use crate::error::{DeadReason, TransportCode};
use crate::id::{PathId, SessionHandle, SessionId, Side};
use crate::limits::Limits;
use crate::path::{Liveness, Path, PathInput, PathSetup};
use crate::session::{Founding, Joining, Machine};
use crate::wire::{ControlFrame, Hello, Join};

/// A connection that has not authenticated.
pub(super) struct Incoming {
    pub(super) path: Path,
    deadline: Instant,
    /// It was closed here and only drains.
    ended: bool,
    /// The far end is gone: once the answer is out, nothing is waited for. QUIC would keep a connection that its very
    /// first packet closed until the idle timeout.
    lost: bool,
}

impl Incoming {
    pub(super) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let deadline = Some(self.deadline).filter(|_| !self.ended);
        [self.path.poll_timeout(now), deadline].into_iter().flatten().min()
    }

    /// Whether the connection can be forgotten when it has nothing more to send.
    pub(super) fn is_over(&self) -> bool {
        self.lost || self.path.is_drained()
    }

    fn refuse(&mut self, now: Instant, code: TransportCode, detail: &str) {
        self.ended = true;
        self.path.close(now, DeadReason::new(code, detail));
    }
}

/// Who may come in.
pub(super) struct Gate {
    server: Option<(ServerConfig, quinn_proto::ServerConfig)>,
    verifications: Allowance,
    /// Tickets that were used and might be used again, until they expire.
    spent: BTreeMap<(SessionId, PathId), UnixTime>,
}

impl Gate {
    pub(super) fn new(now: Instant, limits: &Limits) -> Self {
        Self {
            server: None,
            verifications: Allowance::new(now, limits.verifications_per_second),
            spent: BTreeMap::new(),
        }
    }

    pub(super) fn listen(&mut self, server: Option<(ServerConfig, quinn_proto::ServerConfig)>) {
        self.server = server;
    }

    /// Notes that a ticket is used. Each is good for one connection.
    fn spend(
        &mut self,
        ticket: (SessionId, PathId),
        until: UnixTime,
        now: UnixTime,
        max: usize,
    ) -> Result<(), TransportCode> {
        if self.spent.len() >= max {
            self.spent.retain(|_, until| *until >= now);
        }
        if self.spent.contains_key(&ticket) {
            return Err(TransportCode::SUPERSEDED);
        }
        if self.spent.len() >= max {
            return Err(TransportCode::SERVER_BUSY);
        }
        self.spent.insert(ticket, until);
        Ok(())
    }
}

/// So many of something each second, and as many at once.
struct Allowance {
    per_second: u32,
    left: u32,
    since: Instant,
}

impl Allowance {
    fn new(now: Instant, per_second: u32) -> Self {
        Self { per_second, left: per_second, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.left = self.per_second;
        }
        let free = self.left > 0;
        self.left = self.left.saturating_sub(1);
        free
    }
}

impl Endpoint {
    pub(super) fn quic_server_config(
        &mut self,
        config: &ServerConfig,
    ) -> Result<quinn_proto::ServerConfig, ConfigError> {
        let crypto = config::server_crypto(&config.tls, &self.wall)?;
        let mut quic = quinn_proto::ServerConfig::new(crypto, self.entropy.token_key());
        quic.time_source(Arc::new(self.wall.clone()))
            .max_incoming(self.config.limits.incoming_max)
            .incoming_buffer_size(64 * 1024)
            .incoming_buffer_size_total(16 * 1024 * 1024);
        Ok(quic)
    }

    /// A client began a handshake.
    pub(super) fn on_incoming(&mut self, now: Instant, incoming: quinn_proto::Incoming) {
        let limits = &self.config.limits;
        let waiting = self.incoming.len();
        let Some((server, quic)) = self.gate.server.clone().filter(|_| waiting < limits.unauthenticated_max) else {
            self.quic.ignore(incoming);
            return;
        };
        let mut buf = Vec::new();
        if waiting >= limits.incoming_before_retry && !incoming.remote_address_validated() && incoming.may_retry() {
            if let Ok(transmit) = self.quic.retry(incoming, &mut buf) {
                self.respond(transmit, buf);
            }
            return;
        }
        let auth_timeout = limits.auth_timeout;
        let setup = PathSetup::new(Side::Server, Liveness::Trusted, server.limits.clone(), self.link());
        let mut quic = quic;
        quic.transport_config(setup.transport());
        match self.quic.accept(incoming, now, &mut buf, Some(Arc::new(quic))) {
            Ok((handle, connection)) => {
                let path = Path::new(setup, handle, connection, now);
                let incoming = Incoming { path, deadline: now + auth_timeout, ended: false, lost: false };
                self.incoming.insert(handle.0, incoming);
                self.owners.insert(handle.0, Owner::Incoming);
                self.work.push(Key::Incoming(handle.0));
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.respond(transmit, buf);
                }
            }
        }
    }

    pub(super) fn run_incoming(&mut self, connection: usize) {
        let now = self.now;
        while let Some(incoming) = self.incoming.get_mut(&connection) {
            if now >= incoming.deadline && !incoming.ended {
                incoming.refuse(now, TransportCode::AUTH_TIMEOUT, "");
            }
            let Some(input) = incoming.path.poll(now) else { break };
            match input {
                PathInput::Connected => incoming.path.move_to_authenticating(),
                PathInput::Control(ControlFrame::Hello(hello)) => self.on_hello(connection, hello),
                PathInput::Control(ControlFrame::Join(join)) => self.on_join(connection, &join),
                PathInput::Control(_) => {
                    incoming.refuse(now, TransportCode::PROTOCOL_VIOLATION, "the first frame must be HELLO or JOIN");
                }
                PathInput::Fault(error) => incoming.refuse(now, error.code, error.detail),
                PathInput::Lost(_) => (incoming.ended, incoming.lost) = (true, true),
                PathInput::Data(_) | PathInput::Acknowledged(_) | PathInput::Suspect | PathInput::Recovered => {}
            }
        }
        let key = Key::Incoming(connection);
        if let Some(incoming) = self.incoming.get_mut(&connection)
            && exchange(&mut self.quic, &mut self.owners, &mut incoming.path)
        {
            self.work.push(key);
        }
        self.sending.push(key);
    }

    /// A client wants this server as its primary.
    fn on_hello(&mut self, connection: usize, hello: Hello) {
        if let Err(code) = self.found_session(connection, hello)
            && let Some(incoming) = self.incoming.get_mut(&connection)
        {
            incoming.refuse(self.now, code, "");
        }
    }

    fn found_session(&mut self, connection: usize, hello: Hello) -> Result<(), TransportCode> {
        self.check_admission(hello.version)?;
        let (server, _) = self.gate.server.as_ref().ok_or(TransportCode::GOING_AWAY)?;
        let incoming = self.incoming.get(&connection).ok_or(TransportCode::INTERNAL)?;
        let client_key = PublicIdentity::from_bytes(&hello.client_key).map_err(|_| TransportCode::AUTH_FAILED)?;
        let exporter = incoming.path.exporter().ok_or(TransportCode::INTERNAL)?;
        if !server.authorizes(&hello.credential, incoming.path.remote_address()) {
            return Err(TransportCode::AUTH_FAILED);
        }
        let moment = self.clock.at(self.now);
        let (identity, limits) = (server.identity.clone(), server.limits.clone());
        let session = self.entropy.session_id();
        let handle = self.next_session_handle();
        let founding = Founding { session, identity, limits, hello, exporter, client_key };
        self.admit(connection, handle, PathId::PRIMARY, |path| Machine::found(moment, founding, path))
    }

    /// A client was sent here by its primary.
    fn on_join(&mut self, connection: usize, join: &Join) {
        if let Err(code) = self.join_session(connection, join)
            && let Some(incoming) = self.incoming.get_mut(&connection)
        {
            incoming.refuse(self.now, code, "");
        }
    }

    fn join_session(&mut self, connection: usize, join: &Join) -> Result<(), TransportCode> {
        self.check_admission(join.version)?;
        let moment = self.clock.at(self.now);
        let (server, _) = self.gate.server.as_ref().ok_or(TransportCode::GOING_AWAY)?;
        let incoming = self.incoming.get(&connection).ok_or(TransportCode::INTERNAL)?;
        let exporter = incoming.path.exporter().ok_or(TransportCode::INTERNAL)?;
        let me = server.identity.public();
        let trusts = |issuer: &PublicIdentity| server.trusted_primaries.contains(issuer);
        let ticket =
            verify_join(&join.ticket, &join.proof, &exporter, &me, moment.wall, trusts).map_err(AuthError::code)?;
        let (identity, limits) = (server.identity.clone(), server.limits.clone());
        let path = ticket.path;
        let until = ticket.expires_at.saturating_add(crate::auth::CLOCK_SKEW);
        let max = self.config.limits.tickets_remembered_max;
        self.gate.spend((ticket.session, path), until, moment.wall, max)?;
        let handle = self.next_session_handle();
        let joining = Joining { ticket, identity, limits, params: join.params, exporter };
        self.admit(connection, handle, path, |path| Machine::join(moment, joining, path))
    }

    /// What is checked before any signature.
    fn check_admission(&mut self, version: u64) -> Result<(), TransportCode> {
        if version != VERSION {
            return Err(TransportCode::VERSION);
        }
        if self.sessions.len() >= self.config.limits.sessions_max || !self.gate.verifications.take(self.now) {
            return Err(TransportCode::SERVER_BUSY);
        }
        Ok(())
    }

    /// The connection becomes the first path of a session.
    fn admit(
        &mut self,
        connection: usize,
        handle: SessionHandle,
        path: PathId,
        session: impl FnOnce(Path) -> Machine,
    ) -> Result<(), TransportCode> {
        let incoming = self.incoming.remove(&connection).ok_or(TransportCode::INTERNAL)?;
        self.sessions.insert(handle, session(incoming.path));
        self.owners.insert(connection, Owner::Session(handle, path));
        self.timers.set(Key::Incoming(connection), None);
        self.work.push(Key::Session(handle));
        Ok(())
    }
}
