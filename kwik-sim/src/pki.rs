//! Certificates, identities and TLS settings for simulated servers and their clients, all from one seed.

use std::sync::Arc;

use kwik_core::{ClientConfig, Identity, PublicIdentity, ServerConfig};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;

use crate::clock::VirtualClock;
use crate::rng::SimRng;
use crate::tls::{NullClient, NullServer, TlsMode, ed25519_key, seeded_provider};

/// A certification authority for one server name, and servers numbered from 0 whose identities follow from their number.
///
/// Its configurations draw from one generator: for runs that repeat, make one for each world, with
/// [`World::pki`](crate::World::pki).
///
/// # Panics
/// Its methods panic if its name cannot be in a certificate.
pub struct Pki {
    name: String,
    seed: u64,
    trust: Trust,
}

enum Trust {
    Real { authority: Box<CertifiedIssuer<'static, KeyPair>>, provider: Arc<CryptoProvider> },
    Null { client: Arc<NullClient> },
}

/// What its generators are for.
const AUTHORITY: u64 = 1;
const TLS: u64 = 2;
const CERTIFICATE: u64 = 3;

impl Pki {
    /// An authority for servers called `name`, with real TLS and a seed of its own.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::seeded(name, 0, TlsMode::Real)
    }

    /// An authority for servers called `name`; every key and everything TLS draws follows from `seed`.
    #[must_use]
    pub fn seeded(name: &str, seed: u64, mode: TlsMode) -> Self {
        let rng = |part| SimRng::new(seed, &[part]);
        let trust = match mode {
            TlsMode::Null => Trust::Null { client: Arc::new(NullClient::new(rng(TLS))) },
            TlsMode::Real => {
                let mut params = CertificateParams::new(Vec::new()).expect("no names, no error");
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                let key = ed25519_key(rng(AUTHORITY).seed());
                let authority = CertifiedIssuer::self_signed(params, key).expect("the parameters are complete");
                Trust::Real { authority: Box::new(authority), provider: seeded_provider(rng(TLS)) }
            }
        };
        Self { name: name.to_owned(), seed, trust }
    }

    /// The name in every certificate.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The identity of the server with this number.
    #[must_use]
    pub fn identity(&self, number: u8) -> Identity {
        Identity::from_seed([number.wrapping_add(1); 32])
    }

    /// The public identity of the server with this number.
    #[must_use]
    pub fn public_identity(&self, number: u8) -> PublicIdentity {
        self.identity(number).public()
    }

    /// A server with a valid certificate. It trusts the primaries with numbers below 8.
    #[must_use]
    pub fn server(&self, number: u8) -> ServerConfig {
        let server = self.server_trusting_nobody(number);
        (0..8).fold(server, |server, primary| server.trust_primary(self.public_identity(primary)))
    }

    /// A server with a valid certificate that takes no clients from other primaries.
    #[must_use]
    pub fn server_trusting_nobody(&self, number: u8) -> ServerConfig {
        let identity = self.identity(number);
        match &self.trust {
            Trust::Null { .. } => {
                let entropy = SimRng::new(self.seed, &[TLS, u64::from(number)]);
                ServerConfig::with_crypto(identity, Arc::new(NullServer::new(&self.name, entropy)))
            }
            Trust::Real { authority, provider } => {
                let (chain, key) = self.certificate(authority, number);
                let config = ServerConfig::new(identity, chain, key).expect("key and certificate fit");
                config.crypto_provider(provider.clone())
            }
        }
    }

    /// A client that believes this authority.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        match &self.trust {
            Trust::Null { client } => ClientConfig::with_crypto(client.clone(), client.clone()),
            Trust::Real { authority, provider } => {
                let config = ClientConfig::with_roots(roots(authority)).expect("there is a root");
                config.crypto_provider(provider.clone())
            }
        }
    }

    /// QUIC's crypto configuration of [`Pki::client`], for a node that is no KWIK endpoint.
    pub(crate) fn quic_client(&self) -> Arc<dyn quinn_proto::crypto::ClientConfig> {
        let (authority, provider) = match &self.trust {
            Trust::Null { client } => return client.clone(),
            Trust::Real { authority, provider } => (authority, provider),
        };
        let mut config = rustls::ClientConfig::builder_with_details(provider.clone(), Arc::new(StoppedClock))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider speaks TLS 1.3")
            .with_root_certificates(roots(authority))
            .with_no_client_auth();
        config.alpn_protocols = vec![kwik_core::ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(QuicClientConfig::try_from(config).expect("the provider has QUIC's first cipher suite"))
    }

    /// QUIC's crypto configuration of [`Pki::server`], for a node that is no KWIK endpoint.
    pub(crate) fn quic_server(&self, number: u8) -> Arc<dyn quinn_proto::crypto::ServerConfig> {
        let (authority, provider) = match &self.trust {
            Trust::Null { .. } => {
                let entropy = SimRng::new(self.seed, &[TLS, u64::from(number)]);
                return Arc::new(NullServer::new(&self.name, entropy));
            }
            Trust::Real { authority, provider } => (authority, provider),
        };
        let (chain, key) = self.certificate(authority, number);
        let mut config = rustls::ServerConfig::builder_with_details(provider.clone(), Arc::new(StoppedClock))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider speaks TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("key and certificate fit");
        config.alpn_protocols = vec![kwik_core::ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        Arc::new(QuicServerConfig::try_from(config).expect("the provider has QUIC's first cipher suite"))
    }

    fn certificate(
        &self,
        authority: &CertifiedIssuer<'static, KeyPair>,
        number: u8,
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = ed25519_key(SimRng::new(self.seed, &[CERTIFICATE, u64::from(number)]).seed());
        let params = CertificateParams::new([self.name.clone()]).expect("the name can be in a certificate");
        let certificate = params.signed_by(&key, authority).expect("the parameters are complete");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key just made");
        (vec![certificate.der().clone()], key)
    }
}

fn roots(authority: &CertifiedIssuer<'static, KeyPair>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).expect("a certificate just made");
    roots
}

/// A clock that stands where a world begins. Certificates are good for centuries.
#[derive(Debug)]
struct StoppedClock;

impl TimeProvider for StoppedClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(VirtualClock::UNIX_AT_START))
    }
}
