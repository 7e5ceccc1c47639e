//! What an endpoint, a client and a server are told at the start.

mod dials;
mod mtu;
mod policy;
mod seed;
mod tls;
mod transport;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
#[cfg(any(test, feature = "__test_exports"))]
use quinn_proto::crypto;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::auth::{Identity, PublicIdentity};
use crate::limits::{self, LimitError, Limits};
use crate::protocol_event::EventDetail;

pub(crate) use dials::{DialBudget, DialCharge};
pub(crate) use mtu::MtuBounds;
pub use mtu::{InterfaceMtu, MtuTowards};
pub use policy::PathPolicy;
use seed::Seed;
use tls::default_provider;
pub(crate) use tls::{WallClock, client_crypto, server_crypto};
pub use transport::{AckFrequency, Congestion, TransportConfig};

/// A configuration that cannot work, and what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A limit contradicts the protocol or another limit.
    #[error("limits: {0}")]
    Limits(#[from] LimitError),
    /// A value is out of bounds, or contradicts another.
    #[error("{field} {rule}")]
    Field {
        /// The name of the value.
        field: &'static str,
        /// What it is, and what it must be.
        rule: String,
    },
    /// The certificate or its key cannot be used.
    #[error("certificate or private key not usable: {0}")]
    Certificate(String),
    /// TLS could not be set up.
    #[error("TLS could not be set up: {0}")]
    Tls(String),
    /// The credential is too long for HELLO.
    #[error("the credential has {len} bytes; at most {max} fit in HELLO", max = limits::CREDENTIAL_BYTES_MAX)]
    CredentialTooLong {
        /// Its length in bytes.
        len: usize,
    },
}

/// What an [`Endpoint`](crate::Endpoint) needs from its environment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EndpointConfig {
    pub(crate) rng_seed: Seed,
    /// Wall clock at creation, since the Unix epoch. It advances with the `now` arguments; see
    /// [`Endpoint::handle_wall_clock`](crate::Endpoint::handle_wall_clock).
    pub unix_now: Duration,
    /// How QUIC runs on every path.
    pub transport: TransportConfig,
    /// By how much what is due in six times as long, or later, may be late, so that many idle sessions wake together; at
    /// most a second. A PING comes earlier by as much, and so not too late. Zero, the default, wakes each session in its time.
    pub timer_slack: Duration,
    /// What the interface towards a peer carries, if the environment can tell. By default it cannot.
    pub mtu_towards: Option<MtuTowards>,
    /// Limits that hold for the endpoint as a whole.
    pub limits: Limits,
    /// How much [`Endpoint::poll_protocol_event`](crate::Endpoint::poll_protocol_event) tells. Nothing by default.
    pub event_detail: EventDetail,
}

impl EndpointConfig {
    /// Defaults around a seed and the wall clock. Everything the endpoint draws follows from the seed: in production it
    /// must come from the system's entropy. It is not shown, and overwritten when the endpoint has taken it.
    #[must_use]
    pub fn new(rng_seed: [u8; 32], unix_now: Duration) -> Self {
        Self {
            rng_seed: Seed::new(rng_seed),
            unix_now,
            transport: TransportConfig::default(),
            timer_slack: Duration::ZERO,
            mtu_towards: None,
            limits: Limits::default(),
            event_detail: EventDetail::Off,
        }
    }
}

/// How a client checks the TLS certificate of a secondary (PROTOCOL.md §4). Its identity is always checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecondaryTrust {
    /// The certificate chain must be valid for the server name, as for the primary.
    #[default]
    Certificate,
    /// Any certificate will do: only the identity named by the primary counts. For private fleets.
    IdentityOnly,
}

/// What a client brings to a session.
#[derive(Clone)]
pub struct ClientConfig {
    pub(crate) tls: ClientTls,
    pub(crate) credential: Bytes,
    pub(crate) primary_identity: Option<PublicIdentity>,
    pub(crate) secondary_trust: SecondaryTrust,
    pub(crate) policy: PathPolicy,
    pub(crate) limits: Limits,
}

/// Where the client's TLS settings come from.
#[derive(Clone)]
pub(crate) enum ClientTls {
    Roots {
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
    },
    #[cfg(any(test, feature = "__test_exports"))]
    Custom {
        primary: Arc<dyn crypto::ClientConfig>,
        secondary: Arc<dyn crypto::ClientConfig>,
    },
}

impl ClientConfig {
    /// Trusts certificates that chain to one of `roots`.
    ///
    /// # Errors
    /// [`ConfigError::Tls`] if `roots` is empty: no server could ever be verified.
    pub fn with_roots(roots: RootCertStore) -> Result<Self, ConfigError> {
        if roots.is_empty() {
            return Err(ConfigError::Tls("no root certificates: add the CA that signed the servers".into()));
        }
        Ok(Self::with_tls(ClientTls::Roots { roots: Arc::new(roots), provider: default_provider() }))
    }

    /// Uses the given QUIC crypto configurations for the primary and for secondaries. They must negotiate
    /// [`ALPN`](crate::ALPN), and keep the provider they have.
    #[cfg(any(test, feature = "__test_exports"))]
    #[doc(hidden)]
    #[must_use]
    pub fn with_crypto(primary: Arc<dyn crypto::ClientConfig>, secondary: Arc<dyn crypto::ClientConfig>) -> Self {
        Self::with_tls(ClientTls::Custom { primary, secondary })
    }

    fn with_tls(tls: ClientTls) -> Self {
        Self {
            tls,
            credential: Bytes::new(),
            primary_identity: None,
            secondary_trust: SecondaryTrust::default(),
            policy: PathPolicy::default(),
            limits: Limits::default(),
        }
    }

    /// Takes TLS's algorithms and its randomness from `provider` instead of ring.
    #[must_use]
    pub fn crypto_provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        match &mut self.tls {
            ClientTls::Roots { provider: own, .. } => *own = provider,
            #[cfg(any(test, feature = "__test_exports"))]
            ClientTls::Custom { .. } => {}
        }
        self
    }

    /// Opaque bytes for the primary's [`Authorizer`]; at most
    /// [`CREDENTIAL_BYTES_MAX`](crate::limits::CREDENTIAL_BYTES_MAX).
    #[must_use]
    pub fn credential(mut self, credential: impl Into<Bytes>) -> Self {
        self.credential = credential.into();
        self
    }

    /// Accepts only this identity as the primary. Nothing of the application is sent before it is proven, which costs
    /// one round trip.
    #[must_use]
    pub fn primary_identity(mut self, identity: PublicIdentity) -> Self {
        self.primary_identity = Some(identity);
        self
    }

    /// How the certificates of secondaries are checked.
    #[must_use]
    pub fn secondary_trust(mut self, trust: SecondaryTrust) -> Self {
        self.secondary_trust = trust;
        self
    }

    /// What the primary may make this client dial.
    #[must_use]
    pub fn path_policy(mut self, policy: PathPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Limits of the session.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The limits in force.
    #[must_use]
    pub fn limits_ref(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.credential.len() > limits::CREDENTIAL_BYTES_MAX {
            return Err(ConfigError::CredentialTooLong { len: self.credential.len() });
        }
        Ok(self.limits.check()?)
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("primary_identity", &self.primary_identity)
            .field("secondary_trust", &self.secondary_trust)
            .finish_non_exhaustive()
    }
}

/// Decides whether a client may open a session at a primary.
pub trait Authorizer: Send + Sync {
    /// Judges the credential a client presented from `remote`. It runs inside the endpoint: it must be quick, and must
    /// not block.
    fn authorize(&self, credential: &[u8], remote: SocketAddr) -> bool;
}

impl<F: Fn(&[u8], SocketAddr) -> bool + Send + Sync> Authorizer for F {
    fn authorize(&self, credential: &[u8], remote: SocketAddr) -> bool {
        self(credential, remote)
    }
}

/// What a server brings to its sessions. The same server serves as primary and as secondary.
#[derive(Clone)]
pub struct ServerConfig {
    pub(crate) tls: ServerTls,
    pub(crate) identity: Identity,
    pub(crate) trusted_primaries: BTreeSet<PublicIdentity>,
    pub(crate) authorizer: Option<Arc<dyn Authorizer>>,
    pub(crate) limits: Limits,
}

/// Where the server's TLS settings come from.
#[derive(Clone)]
pub(crate) enum ServerTls {
    Certificate {
        chain: Vec<CertificateDer<'static>>,
        key: Arc<PrivateKeyDer<'static>>,
        provider: Arc<CryptoProvider>,
    },
    #[cfg(any(test, feature = "__test_exports"))]
    Custom(Arc<dyn crypto::ServerConfig>),
}

impl ServerConfig {
    /// A server with an identity, and a certificate chain (its own first) with the private key.
    ///
    /// # Errors
    /// [`ConfigError::Certificate`] if the key does not fit the certificate.
    pub fn new(
        identity: Identity,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, ConfigError> {
        let tls = ServerTls::Certificate { chain, key: Arc::new(key), provider: default_provider() };
        server_crypto(&tls, &WallClock::new(Duration::ZERO))?;
        Ok(Self::with_tls(identity, tls))
    }

    /// A server with an identity and its own QUIC crypto configuration, which must negotiate [`ALPN`](crate::ALPN), and
    /// keeps the provider it has.
    #[cfg(any(test, feature = "__test_exports"))]
    #[doc(hidden)]
    #[must_use]
    pub fn with_crypto(identity: Identity, crypto: Arc<dyn crypto::ServerConfig>) -> Self {
        Self::with_tls(identity, ServerTls::Custom(crypto))
    }

    fn with_tls(identity: Identity, tls: ServerTls) -> Self {
        Self { tls, identity, trusted_primaries: BTreeSet::new(), authorizer: None, limits: Limits::default() }
    }

    /// Takes TLS's algorithms and its randomness from `provider` instead of ring.
    #[must_use]
    pub fn crypto_provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        match &mut self.tls {
            ServerTls::Certificate { provider: own, .. } => *own = provider,
            #[cfg(any(test, feature = "__test_exports"))]
            ServerTls::Custom(_) => {}
        }
        self
    }

    /// Accepts clients that the primary with this identity sends here.
    #[must_use]
    pub fn trust_primary(mut self, identity: PublicIdentity) -> Self {
        self.trusted_primaries.insert(identity);
        self
    }

    /// Judges every client that opens a session here. Without one, every client may.
    #[must_use]
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizer = Some(authorizer);
        self
    }

    /// Limits of each session.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The limits in force.
    #[must_use]
    pub fn limits_ref(&self) -> &Limits {
        &self.limits
    }

    /// Asks the authorizer. One that panics refuses.
    pub(crate) fn authorizes(&self, credential: &[u8], remote: SocketAddr) -> bool {
        let Some(authorizer) = &self.authorizer else { return true };
        catch_unwind(AssertUnwindSafe(|| authorizer.authorize(credential, remote))).unwrap_or(false)
    }

    /// The public half of this server's identity: what a primary names in
    /// [`PathTarget`](crate::PathTarget).
    #[must_use]
    pub fn identity(&self) -> PublicIdentity {
        self.identity.public()
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("identity", &self.identity.public())
            .field("trusted_primaries", &self.trusted_primaries)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["kwik.test".to_owned()]).unwrap();
        let der = signing_key.serialize_der();
        let key = PrivateKeyDer::try_from(der.clone()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let identity = Identity::from_seed([171; 32]);
        let shown = [
            format!("{:?}", EndpointConfig::new([171; 32], Duration::ZERO)),
            format!("{:?}", ClientConfig::with_roots(roots).unwrap().credential(vec![171; 32])),
            format!("{:?}", ServerConfig::new(identity.clone(), vec![cert.der().clone()], key).unwrap()),
            format!("{identity:?}"),
        ];
        for text in shown {
            for secret in ["171, 171", "abab", "ABAB", "\\xab"] {
                assert!(!text.contains(secret), "{text}");
            }
            let inside = format!("{:?}", &der[der.len() - 8..]);
            assert!(!text.contains(inside.trim_matches(['[', ']'])), "{text}");
        }
    }
}
