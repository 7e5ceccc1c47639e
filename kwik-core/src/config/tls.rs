//! TLS settings from roots, certificates and a clock that the endpoint winds.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use quinn_proto::crypto;
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

use super::{ClientTls, ConfigError, SecondaryTrust, ServerTls};
use crate::ALPN;

/// Wall time as the endpoint was told it. Nothing in this crate asks the system for the time.
#[derive(Debug, Clone)]
pub(crate) struct WallClock(Arc<AtomicU64>);

impl WallClock {
    /// A clock that shows `unix`, time since the Unix epoch.
    pub(crate) fn new(unix: Duration) -> Self {
        let clock = Self(Arc::new(AtomicU64::new(0)));
        clock.set(unix);
        clock
    }

    /// Time since the Unix epoch, to the millisecond.
    pub(crate) fn unix(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, unix: Duration) {
        let millis = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis, Ordering::Relaxed);
    }
}

impl rustls::time_provider::TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.unix()))
    }
}

impl quinn_proto::TimeSource for WallClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH.checked_add(self.unix()).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// The crypto configuration for dialling the primary (`trust` = `None`) or a secondary.
pub(crate) fn client_crypto(
    tls: &ClientTls,
    trust: Option<SecondaryTrust>,
    clock: &WallClock,
) -> Result<Arc<dyn crypto::ClientConfig>, ConfigError> {
    let (roots, provider) = match (tls, trust) {
        #[cfg(any(test, feature = "__test_exports"))]
        (ClientTls::Custom { primary, .. }, None) => return Ok(primary.clone()),
        #[cfg(any(test, feature = "__test_exports"))]
        (ClientTls::Custom { secondary, .. }, Some(_)) => return Ok(secondary.clone()),
        (ClientTls::Roots { roots, provider }, _) => (roots, provider),
    };
    let builder = rustls::ClientConfig::builder_with_details(provider.clone(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| ConfigError::Tls(error.to_string()))?;
    let mut config = match trust {
        None | Some(SecondaryTrust::Certificate) => builder.with_root_certificates(roots.clone()).with_no_client_auth(),
        Some(SecondaryTrust::IdentityOnly) => {
            let verifier = AnyCertificate(provider.signature_verification_algorithms);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    let config = QuicClientConfig::try_from(config).map_err(|error| ConfigError::Tls(error.to_string()))?;
    Ok(Arc::new(config))
}

/// The crypto configuration a server listens with.
pub(crate) fn server_crypto(tls: &ServerTls, clock: &WallClock) -> Result<Arc<dyn crypto::ServerConfig>, ConfigError> {
    let (chain, key, provider) = match tls {
        #[cfg(any(test, feature = "__test_exports"))]
        ServerTls::Custom(config) => return Ok(config.clone()),
        ServerTls::Certificate { chain, key, provider } => (chain, key, provider),
    };
    let mut config = rustls::ServerConfig::builder_with_details(provider.clone(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| ConfigError::Tls(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(|error| ConfigError::Certificate(error.to_string()))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    let config = QuicServerConfig::try_from(config).map_err(|error| ConfigError::Tls(error.to_string()))?;
    Ok(Arc::new(config))
}

/// What TLS is built from unless the application says otherwise.
pub(super) fn default_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Accepts every certificate whose owner signed the handshake. Who that owner is, WELCOME proves
/// ([`SecondaryTrust::IdentityOnly`]).
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl fmt::Debug for AnyCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyCertificate")
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
