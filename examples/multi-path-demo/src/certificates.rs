//! What proves the servers: certificates of a development CA, for TLS, and the identities that KWIK adds.
//!
//! A CA made at start is good for a demonstration and for tests. In production the certificates come from a CA that
//! clients trust already, and every server keeps its identity.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use kwik_tokio::{
    ClientConfig, Identity, Limits, PublicIdentity, ServerConfig,
    rustls::{
        RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use rand::TryRngCore;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// What the client promises to buffer of a file, in bytes: the window that it asks servers to keep to.
pub(crate) const WINDOW_BYTES: u64 = 16 * 1024 * 1024;

/// Signs the certificates of servers.
pub(crate) struct DevelopmentCa(CertifiedIssuer<'static, KeyPair>);

/// One server's certificate, its key, and its identity.
pub(crate) struct ServerKeys {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    identity: Identity,
    identity_seed: [u8; 32],
}

impl DevelopmentCa {
    pub(crate) fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "KWIK development CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?).context("no CA could be made")?;
        Ok(Self(issuer))
    }

    /// Makes what the server `name` needs.
    pub(crate) fn issue(&self, name: &str) -> Result<ServerKeys> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new([name.to_owned()])?;
        let certificate = params.signed_by(&key, &self.0).with_context(|| format!("no certificate for `{name}`"))?;
        let mut identity_seed = [0; 32];
        rand::rngs::OsRng.try_fill_bytes(&mut identity_seed).map_err(|error| anyhow!("no randomness: {error}"))?;
        Ok(ServerKeys {
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| anyhow!(error))?,
            identity: Identity::from_seed(identity_seed),
            identity_seed,
        })
    }

    /// What a client needs to trust this CA.
    pub(crate) fn client_config(&self) -> Result<ClientConfig> {
        trusting(self.0.der().clone())
    }
}

impl ServerKeys {
    pub(crate) fn identity(&self) -> PublicIdentity {
        self.identity.public()
    }

    pub(crate) fn server_config(self) -> Result<ServerConfig> {
        Ok(ServerConfig::new(self.identity, vec![self.certificate], self.key)?)
    }
}

/// A directory with a development CA's certificate and the keys of some servers: `init` writes it.
pub(crate) struct KeyDir(PathBuf);

impl KeyDir {
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// Makes a CA, and the keys of the servers `names`.
    pub(crate) fn init(&self, names: &[String]) -> Result<()> {
        fs::create_dir_all(&self.0).with_context(|| format!("`{}` cannot be made", self.0.display()))?;
        let ca = DevelopmentCa::new()?;
        self.write("ca.pem", ca.0.pem())?;
        for name in names {
            let keys = ca.issue(name)?;
            self.write(&format!("{name}.certificate.der"), &keys.certificate)?;
            self.write(&format!("{name}.key.der"), keys.key.secret_der())?;
            self.write(&format!("{name}.identity.secret"), keys.identity_seed)?;
            self.write(&format!("{name}.identity"), keys.identity().to_string())?;
        }
        Ok(())
    }

    /// The keys of a server.
    pub(crate) fn server(&self, name: &str) -> Result<ServerKeys> {
        let seed = self.read(&format!("{name}.identity.secret"))?;
        let identity_seed = seed.try_into().map_err(|_| anyhow!("the identity of `{name}` is not of 32 bytes"))?;
        let key = self.read(&format!("{name}.key.der"))?;
        Ok(ServerKeys {
            certificate: self.read(&format!("{name}.certificate.der"))?.into(),
            key: PrivateKeyDer::try_from(key).map_err(|error| anyhow!("the key of `{name}`: {error}"))?,
            identity: Identity::from_seed(identity_seed),
            identity_seed,
        })
    }

    /// What others know a server by.
    pub(crate) fn identity(&self, name: &str) -> Result<PublicIdentity> {
        let text = String::from_utf8(self.read(&format!("{name}.identity"))?)?;
        text.trim().parse().with_context(|| format!("`{text}` is not an identity"))
    }

    /// What a client needs to trust the servers.
    pub(crate) fn client_config(&self) -> Result<ClientConfig> {
        let pem = self.read("ca.pem")?;
        trusting(CertificateDer::from_pem_slice(&pem).map_err(|error| anyhow!("ca.pem: {error}"))?)
    }

    fn read(&self, file: &str) -> Result<Vec<u8>> {
        let path = self.0.join(file);
        fs::read(&path).with_context(|| format!("`{}` cannot be read; `init` makes it", path.display()))
    }

    fn write(&self, file: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        let path = self.0.join(file);
        fs::write(&path, bytes).with_context(|| format!("`{}` cannot be written", path.display()))
    }
}

/// The configuration of a client that trusts `ca`, with room for [`WINDOW_BYTES`] of one stream from its start.
fn trusting(ca: CertificateDer<'static>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(ca)?;
    let mut limits = Limits::default();
    // Credit is renewed a quarter of the window late, and one stream may have half of the budget.
    limits.stream_window_bytes = WINDOW_BYTES + WINDOW_BYTES / 2;
    limits.reassembly_budget_bytes = 4 * WINDOW_BYTES;
    Ok(ClientConfig::with_roots(roots)?.limits(limits))
}
