//! Connections that this end makes: the first of a session, and those that its primary asks for (PROTOCOL.md §3, §8).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::admission::Network;
use super::{Endpoint, Key, Owner};
use crate::address::Address;
use crate::auth::Identity;
use crate::config::{self, ClientConfig, ConfigError};
use crate::error::{DeadReason, TransportCode};
use crate::id::{PathId, SessionHandle, Side};
use crate::path::{IdlePolicy, Path, PathSetup};
use crate::session::{Dial, Session};

/// Why a session was not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The name cannot be verified against a certificate.
    #[error("{0:?} is no server name that a certificate could carry")]
    InvalidServerName(String),
    /// The address names no host that could be dialled.
    #[error("{0} is no address to dial")]
    InvalidAddress(SocketAddr),
    /// The endpoint has as many sessions as it may.
    #[error("the endpoint has {limit} sessions, the most it may")]
    TooManySessions {
        /// The limit.
        limit: usize,
    },
    /// Sessions hold as much as they may together, or those to the same network.
    #[error("the endpoint's {limit} bytes of memory are taken by other sessions")]
    MemoryTaken {
        /// [`Limits::endpoint_memory_max`](crate::Limits::endpoint_memory_max), in bytes.
        limit: u64,
    },
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Endpoint {
    /// Begins a session with the server at `server`, whose certificate must be valid for `server_name`
    /// (PROTOCOL.md §3). Streams may be opened at once; what is written leaves right after the handshake.
    ///
    /// # Errors
    /// Nothing was sent then. Whatever goes wrong later arrives as [`SessionEvent::Closed`](crate::SessionEvent::Closed).
    pub fn connect(
        &mut self,
        now: Instant,
        config: ClientConfig,
        server: SocketAddr,
        server_name: &str,
    ) -> Result<SessionHandle, ConnectError> {
        self.advance(now);
        config.check()?;
        let server = Address::new(server).ok_or(ConnectError::InvalidAddress(server))?;
        let limit = self.config.limits.sessions_max;
        if self.memory.sessions() >= limit {
            return Err(ConnectError::TooManySessions { limit });
        }
        let crypto = config::client_crypto(&config.tls, None, &self.wall)?;
        let network = Network::of(SocketAddr::from(server).ip());
        // What the session with the loan took must count before memory is promised to another.
        self.settle();
        let memory_taken = ConnectError::MemoryTaken { limit: self.config.limits.endpoint_memory_max };
        let handle = self.next_session_handle();
        let key = Key::Session(handle);
        let limits = self.memory.afford(key, network, &config.limits, true).ok_or(memory_taken)?;
        // Other workers dial too.
        if self.memory.sessions() > limit {
            self.memory.leave(key);
            return Err(ConnectError::TooManySessions { limit });
        }
        let config = config.limits(limits);
        let settings = self.path_settings(server.into());
        let setup = PathSetup::new(Side::Client, IdlePolicy::Suspect, config.limits.clone(), settings);
        let path = self.dial_quic(now, crypto, setup, server, server_name).inspect_err(|_| self.memory.leave(key))?;
        let connection = path.handle().0;
        let identity = Identity::generate(self.entropy.rng());
        self.sessions.insert(handle, Box::new(Session::dial(now, config, identity, server, path)));
        self.enter_session(handle, network);
        self.owners.insert(connection, Owner::Session(handle, PathId::PRIMARY));
        self.dialling.insert(handle);
        self.work.push(key);
        Ok(handle)
    }

    pub(super) fn dial_secondary(
        &mut self,
        handle: SessionHandle,
        dial: &Dial,
        config: Option<ClientConfig>,
    ) -> Result<Path, DeadReason> {
        let unreachable = |detail: String| DeadReason::new(TransportCode::UNREACHABLE, detail);
        let config = config.ok_or_else(|| unreachable("not a client".to_owned()))?;
        self.settle();
        if !self.has_room_for_path(handle) {
            return Err(DeadReason::new(TransportCode::PATH_LIMIT, "the endpoint's memory is taken"));
        }
        let crypto = config::client_crypto(&config.tls, Some(config.secondary_trust), &self.wall)
            .map_err(|error| unreachable(error.to_string()))?;
        let settings = self.path_settings(dial.address.into());
        let setup = PathSetup::new(Side::Client, IdlePolicy::Close, config.limits.clone(), settings);
        let path = self
            .dial_quic(self.now, crypto, setup, dial.address, &dial.server_name)
            .map_err(|error| unreachable(error.to_string()))?;
        self.owners.insert(path.handle().0, Owner::Session(handle, dial.path));
        self.dialling.insert(handle);
        Ok(path)
    }

    fn dial_quic(
        &mut self,
        now: Instant,
        crypto: Arc<dyn quinn_proto::crypto::ClientConfig>,
        setup: PathSetup,
        server: Address,
        server_name: &str,
    ) -> Result<Path, ConnectError> {
        let mut config = quinn_proto::ClientConfig::new(crypto);
        let ids = self.ids.clone();
        config
            .transport_config(setup.transport())
            .initial_dst_cid_provider(Arc::new(move || ids.initial_destination()));
        let (handle, connection) =
            self.quic.connect(now, config, server.into(), server_name).map_err(|error| match error {
                quinn_proto::ConnectError::InvalidServerName(name) => ConnectError::InvalidServerName(name),
                quinn_proto::ConnectError::InvalidRemoteAddress(address) => ConnectError::InvalidAddress(address),
                quinn_proto::ConnectError::CidsExhausted => {
                    ConnectError::TooManySessions { limit: self.config.limits.sessions_max }
                }
                other => ConnectError::Config(ConfigError::Tls(other.to_string())),
            })?;
        Ok(Path::new(setup, handle, connection, now))
    }
}
