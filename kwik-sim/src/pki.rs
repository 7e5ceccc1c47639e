//! Certificates and identities for simulated servers.

use kwik_core::{ClientConfig, Identity, PublicIdentity, ServerConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ED25519};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;

/// A certification authority for one server name, and servers numbered from 0 whose identities follow from their number.
pub struct Pki {
    name: String,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    /// An authority for servers called `name`.
    ///
    /// # Panics
    /// If `name` cannot be in a certificate.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("Ed25519 is supported");
        let mut params = CertificateParams::new(Vec::new()).expect("no names, no error");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, key).expect("the parameters are complete");
        Self { name: name.to_owned(), authority }
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
    ///
    /// # Panics
    /// If the authority's name cannot be in a certificate.
    #[must_use]
    pub fn server(&self, number: u8) -> ServerConfig {
        let server = self.server_trusting_nobody(number);
        (0..8).fold(server, |server, primary| server.trust_primary(self.public_identity(primary)))
    }

    /// A server with a valid certificate that takes no clients from other primaries.
    ///
    /// # Panics
    /// If the authority's name cannot be in a certificate.
    #[must_use]
    pub fn server_trusting_nobody(&self, number: u8) -> ServerConfig {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("Ed25519 is supported");
        let params = CertificateParams::new([self.name.clone()]).expect("the name can be in a certificate");
        let certificate = params.signed_by(&key, &self.authority).expect("the parameters are complete");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key just made");
        let chain = vec![certificate.der().clone()];
        ServerConfig::new(self.identity(number), chain, key).expect("key and certificate fit")
    }

    /// A client that believes this authority.
    ///
    /// # Panics
    /// Never: the authority's certificate is well formed.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).expect("a certificate just made");
        ClientConfig::with_roots(roots).expect("there is a root")
    }
}
