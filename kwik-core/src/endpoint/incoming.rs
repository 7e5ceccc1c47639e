//! Connections before they authenticate: what they may cost, and how they become sessions (PROTOCOL.md §4).

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::{ConnectionHandle, EndpointEvent};

use super::admission::{AdmissionVerdict, ListenConfig, Network, Place, TicketUse};
use super::{Endpoint, Key, Owner, exchange};
use crate::VERSION;
use crate::auth::{self, AuthError, PublicIdentity};
use crate::config::{self, ConfigError, ServerConfig};
use crate::error::{DeadReason, TransportCode};
use crate::id::{PathId, SessionHandle, Side};
use crate::path::{IdlePolicy, Path, PathInput, PathSetup};
use crate::protocol_event::ProtocolEventKind;
use crate::session::{NewPrimary, NewSecondary, Session};
use crate::wire::{ControlFrame, Hello, Join};

/// A connection that has not authenticated.
pub(super) struct Incoming {
    pub(super) path: Path,
    network: Network,
    place: Place,
    /// It was closed here and only drains.
    ended: bool,
    /// The far end is gone: once the answer was sent, the connection is dropped. QUIC would keep a connection that its
    /// very first packet closed until the idle timeout.
    lost: bool,
}

impl Incoming {
    /// Whether the connection can be forgotten when it has nothing more to send.
    pub(super) fn is_over(&self) -> bool {
        self.lost || self.path.is_drained()
    }
}

/// Why a client is refused. The client gets the code only.
struct Refusal {
    code: TransportCode,
    cause: String,
}

impl Refusal {
    fn new(code: TransportCode, cause: impl Into<String>) -> Self {
        Self { code, cause: cause.into() }
    }

    fn place_taken() -> Self {
        Self::new(TransportCode::SERVER_BUSY, "its place is a newcomer's")
    }

    fn gone() -> Self {
        Self::new(TransportCode::INTERNAL, "the connection is gone")
    }

    fn too_many() -> Self {
        Self::new(TransportCode::SERVER_BUSY, "sessions_max are there")
    }

    fn no_memory() -> Self {
        Self::new(TransportCode::SERVER_BUSY, "endpoint_memory_max is taken")
    }

    fn busy_verifying() -> Self {
        Self::new(TransportCode::SERVER_BUSY, "too many signatures of this network to verify")
    }

    fn of_ticket(code: TransportCode) -> Self {
        let is_used = code == TransportCode::SUPERSEDED;
        Self::new(code, if is_used { "the ticket was used before" } else { "no more used tickets can be remembered" })
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl Endpoint {
    /// How long a client may take to answer a Retry: four times as long as one with the default idle timeout tries.
    const RETRY_TOKEN_LIFETIME: Duration = Duration::from_secs(120);

    pub(super) fn quic_server_config(
        &mut self,
        config: &ServerConfig,
    ) -> Result<quinn_proto::ServerConfig, ConfigError> {
        let crypto = config::server_crypto(&config.tls, &self.wall)?;
        let token_key = Arc::clone(self.token_key.get_or_insert_with(|| self.entropy.token_key()));
        let mut quic = quinn_proto::ServerConfig::new(crypto, token_key);
        quic.time_source(Arc::new(self.wall.clone()))
            .retry_token_lifetime(Self::RETRY_TOKEN_LIFETIME)
            .max_incoming(self.config.limits.incoming_max)
            .incoming_buffer_size(64 * 1024)
            .incoming_buffer_size_total(16 * 1024 * 1024);
        Ok(quic)
    }

    /// A client began a handshake.
    pub(super) fn on_incoming(&mut self, now: Instant, incoming: quinn_proto::Incoming) {
        let Some(listener) = self.admission.listener.clone() else {
            self.quic.ignore(incoming);
            return;
        };
        if !self.memory.has_room_for_unauthenticated() {
            self.quic.ignore(incoming);
            return;
        }
        let network = Network::of(incoming.remote_address().ip());
        let validated = incoming.remote_address_validated();
        let mut buf = Vec::new();
        let verdict = self.admission.door().judge(now, network, validated, &self.config.limits);
        match verdict {
            AdmissionVerdict::Accept => {}
            AdmissionVerdict::Ignore => {
                self.quic.ignore(incoming);
                return;
            }
            AdmissionVerdict::Retry => {
                if let Ok(transmit) = self.quic.retry(incoming, &mut buf) {
                    self.respond(transmit, buf);
                }
                return;
            }
        }
        let settings = self.path_settings(incoming.remote_address());
        let setup = PathSetup::new(Side::Server, IdlePolicy::Off, listener.server.limits.clone(), settings);
        let mut quic = listener.quic.clone();
        quic.transport_config(setup.transport());
        match self.quic.accept(incoming, now, &mut buf, Some(Arc::new(quic))) {
            Ok((handle, connection)) => {
                // Only a handshake that QUIC accepted takes the place of another.
                let newcomer = (handle.0, validated);
                let (place, victim) = self.admission.enter(now, network, newcomer, &self.config.limits);
                if let Some(victim) = victim {
                    self.refuse_peer(victim, Refusal::place_taken());
                }
                let limits = &self.config.limits;
                let mut path = Path::new(setup, handle, connection, now);
                path.expect_move_by(now.checked_add(limits.auth_timeout));
                let incoming = Incoming { path, network, place, ended: false, lost: false };
                self.incoming.insert(handle.0, Box::new(incoming));
                self.enter_unauthenticated(handle.0, network);
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
        // An accepted HELLO or JOIN turns the connection into a path of a session, which ends this loop.
        while let Some(incoming) = self.incoming.get_mut(&connection) {
            let Some(input) = incoming.path.poll(now) else { break };
            match input {
                PathInput::Connected => {
                    incoming.path.move_to_authenticating();
                    // A handshake that is done proves the address of the client.
                    self.admission.door().validate(incoming.network, &mut incoming.place);
                }
                PathInput::Control(ControlFrame::Hello(hello)) => self.on_hello(connection, hello),
                PathInput::Control(ControlFrame::Join(join)) => self.on_join(connection, &join),
                PathInput::Control(_) => {
                    let detail = "the first frame must be HELLO or JOIN";
                    self.log_refusal(connection, TransportCode::PROTOCOL_VIOLATION, detail.to_owned());
                    self.refuse_incoming(connection, TransportCode::PROTOCOL_VIOLATION, detail);
                }
                PathInput::Fault(error) => {
                    self.log_refusal(connection, error.code, format!("{}: {}", error.frame, error.detail));
                    self.refuse_incoming(connection, error.code, error.detail);
                }
                PathInput::Overdue => {
                    self.refuse_peer(connection, Refusal::new(TransportCode::AUTH_TIMEOUT, "no HELLO or JOIN in time"));
                }
                PathInput::Lost(_) => (incoming.ended, incoming.lost) = (true, true),
                // None of these comes: carriers are not read, no packet was sent, and silence is not judged here.
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

    /// Ends a connection that has not authenticated. It gives its place to others at once.
    fn refuse_incoming(&mut self, connection: usize, code: TransportCode, detail: &str) {
        self.count_as_unauthenticated(connection);
        let Some(incoming) = self.incoming.get_mut(&connection) else { return };
        incoming.ended = true;
        incoming.path.close(self.now, DeadReason::new(code, detail));
        self.work.push(Key::Incoming(connection));
        if let Some(drained_enough) = self.admission.close(incoming.network, &mut incoming.place, &self.config.limits) {
            self.forget_incoming(drained_enough);
        }
    }

    /// Ends the connections whose places other workers took.
    pub(super) fn heed_notices(&mut self) {
        for place in self.admission.take_notices() {
            // What moved on since then has another place, or none.
            let Some(incoming) = self.incoming.get(&place.connection).filter(|incoming| incoming.place == place) else {
                continue;
            };
            if incoming.ended {
                self.forget_incoming(place.connection);
            } else {
                self.refuse_peer(place.connection, Refusal::place_taken());
            }
        }
    }

    /// Drops a connection that has not authenticated, without sending anything more.
    pub(super) fn forget_incoming(&mut self, connection: usize) {
        let Some(incoming) = self.incoming.remove(&connection) else { return };
        self.admission.door().leave(incoming.network, incoming.place);
        self.timers.set(Key::Incoming(connection), None);
        self.give_back(Key::Incoming(connection));
        // The connection did not drain by itself, so QUIC's endpoint must be made to forget it.
        if self.owners.remove(&connection).is_some() {
            self.quic.handle_event(ConnectionHandle(connection), EndpointEvent::drained());
        }
    }

    /// A client wants this server as its primary.
    fn on_hello(&mut self, connection: usize, hello: Hello) {
        if let Err(refusal) = self.begin_session(connection, hello) {
            self.refuse_peer(connection, refusal);
        }
    }

    /// Refuses a peer, which gets a code and no more; the cause is logged for the operator of this server.
    fn refuse_peer(&mut self, connection: usize, Refusal { code, cause }: Refusal) {
        self.log_refusal(connection, code, cause);
        self.refuse_incoming(connection, code, "");
    }

    fn log_refusal(&mut self, connection: usize, code: TransportCode, cause: String) {
        if let Some(incoming) = self.incoming.get(&connection) {
            let remote = incoming.path.remote_address();
            self.log.change(None, || ProtocolEventKind::Refused { remote, code, cause });
        }
    }

    /// What costs nothing is checked first, and signatures only if it is the turn of the client's network.
    fn begin_session(&mut self, connection: usize, hello: Hello) -> Result<(), Refusal> {
        self.check_capacity(hello.version)?;
        let listener = self.listener()?;
        let incoming = self.incoming.get(&connection).ok_or_else(Refusal::gone)?;
        let server = &listener.server;
        let limits = self.memory.afford(Key::Incoming(connection), incoming.network, &server.limits, true);
        let limits = limits.ok_or_else(Refusal::no_memory)?;
        let client_key = PublicIdentity::from_bytes(&hello.client_key)
            .map_err(|error| Refusal::new(TransportCode::AUTH_FAILED, format!("the key of the client: {error}")))?;
        let exporter = incoming.path.exporter().ok_or_else(Refusal::gone)?;
        if !self.admission.door().admit_verification(self.now, incoming.network, &self.config.limits) {
            return Err(Refusal::busy_verifying());
        }
        auth::verify_hello(&client_key, &hello.proof, &exporter)?;
        if !server.authorizes(&hello.credential, incoming.path.remote_address()) {
            return Err(Refusal::new(TransportCode::AUTH_FAILED, "the authorizer refuses the credential"));
        }
        let moment = self.clock.at(self.now);
        let identity = server.identity.clone();
        let session = self.entropy.session_id();
        let handle = self.next_session_handle();
        let new = NewPrimary { session, identity, limits, hello, exporter, client_key };
        self.admit(connection, handle, PathId::PRIMARY, |path| Session::new_primary(moment, new, path))
    }

    /// A client was sent here by its primary.
    fn on_join(&mut self, connection: usize, join: &Join) {
        if let Err(refusal) = self.join_session(connection, join) {
            self.refuse_peer(connection, refusal);
        }
    }

    fn join_session(&mut self, connection: usize, join: &Join) -> Result<(), Refusal> {
        self.check_capacity(join.version)?;
        let moment = self.clock.at(self.now);
        let listener = self.listener()?;
        let incoming = self.incoming.get(&connection).ok_or_else(Refusal::gone)?;
        let exporter = incoming.path.exporter().ok_or_else(Refusal::gone)?;
        let server = &listener.server;
        let granted = self.memory.afford(Key::Incoming(connection), incoming.network, &server.limits, false);
        let granted = granted.ok_or_else(Refusal::no_memory)?;
        let me = server.identity.public();
        let trusts = |issuer: &PublicIdentity| server.trusted_primaries.contains(issuer);
        let unverified = auth::read_join(&join.ticket, &me, moment.wall, trusts)?;
        let use_of = TicketUse::of(unverified.claims());
        let limits = &self.config.limits;
        self.admission.door().check_ticket(use_of, moment.wall, limits).map_err(Refusal::of_ticket)?;
        if !self.admission.door().admit_verification(self.now, incoming.network, limits) {
            return Err(Refusal::busy_verifying());
        }
        let ticket = unverified.verify(&join.proof, &exporter)?;
        // Only a verified ticket is used up: anybody can write one that names this session and path.
        let until = ticket.expires_at.saturating_add(auth::CLOCK_SKEW);
        self.admission.door().redeem_ticket(use_of, until, moment.wall, limits).map_err(Refusal::of_ticket)?;
        let (identity, limits, path) = (server.identity.clone(), granted, ticket.path);
        let handle = self.next_session_handle();
        let new = NewSecondary { ticket, identity, limits, params: join.params, exporter };
        self.admit(connection, handle, path, |path| Session::new_secondary(moment, new, path))
    }

    fn listener(&self) -> Result<Arc<ListenConfig>, Refusal> {
        let closed = || Refusal::new(TransportCode::GOING_AWAY, "the server stopped accepting");
        self.admission.listener.clone().ok_or_else(closed)
    }

    /// What is checked before anything else.
    fn check_capacity(&self, version: u64) -> Result<(), Refusal> {
        if version != VERSION {
            return Err(Refusal::new(TransportCode::VERSION, format!("the peer speaks version {version}")));
        }
        if self.memory.sessions() >= self.config.limits.sessions_max { Err(Refusal::too_many()) } else { Ok(()) }
    }

    /// The connection becomes the first path of a session.
    fn admit(
        &mut self,
        connection: usize,
        handle: SessionHandle,
        path: PathId,
        session: impl FnOnce(Path) -> Session,
    ) -> Result<(), Refusal> {
        // Looked for first: a session that is counted must come to be.
        if !self.incoming.contains_key(&connection) {
            return Err(Refusal::gone());
        }
        if !self.promote(connection, handle) {
            return Err(Refusal::too_many());
        }
        let incoming = self.incoming.remove(&connection).ok_or_else(Refusal::gone)?;
        self.admission.door().leave(incoming.network, incoming.place);
        self.sessions.insert(handle, Box::new(session(incoming.path)));
        self.enter_session(handle, incoming.network);
        self.owners.insert(connection, Owner::Session(handle, path));
        self.timers.set(Key::Incoming(connection), None);
        self.work.push(Key::Session(handle));
        Ok(())
    }
}
