//! Certificates, servers, clients, and bytes that tell where they belong.

use std::{
    future::{Future, poll_fn},
    ops::Range,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use kwik_tokio::{
    ClientConfig, ClientSession, Identity, Limits, Listener, PathId, PathTarget, RecvStream, ServerConfig,
    ServerSession, ServerStream,
    bytes::Bytes,
    dial, generate_identity, listen,
    rustls::{RootCertStore, pki_types::PrivateKeyDer},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::task::JoinHandle;

/// The name in the certificates, unless a test asks for another.
pub(crate) const NAME: &str = "localhost";

/// Where every test server listens.
pub(crate) const ANY_PORT: &str = "127.0.0.1:0";

/// Runs a test that must not hang.
pub(crate) async fn within<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test hangs")
}

/// Polls a future once, which must have to wait, and drops it.
pub(crate) async fn cancel_at_first_wait<T>(future: impl Future<Output = T>) {
    let mut future = pin!(future);
    let pending = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await;
    assert!(pending, "there was nothing to wait for");
}

/// A certificate authority of its own for each test.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A server with a fresh identity.
    pub(crate) fn server(&self) -> ServerConfig {
        self.server_as(NAME, generate_identity().unwrap())
    }

    pub(crate) fn server_as(&self, name: &str, identity: Identity) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        ServerConfig::new(identity, vec![certificate.der().clone()], key).unwrap()
    }

    /// A client that trusts this authority.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        ClientConfig::with_roots(roots).unwrap()
    }
}

/// The default limits with some of them changed.
pub(crate) fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// A client's session with one server.
pub(crate) struct Pair {
    pub(crate) client: ClientSession,
    pub(crate) server: ServerSession,
    pub(crate) listener: Listener,
}

pub(crate) async fn pair() -> Pair {
    pair_with(Limits::default()).await
}

/// Both ends with the same limits.
pub(crate) async fn pair_with(limits: Limits) -> Pair {
    let ca = Ca::new();
    let listener = listen(ANY_PORT, ca.server().limits(limits.clone())).await.unwrap();
    let client = dial((listener.local_addr(), NAME), ca.client().limits(limits)).await.unwrap();
    let server = listener.accept().await.unwrap();
    Pair { client, server, listener }
}

/// A client's session with a primary, to which secondaries may be added.
pub(crate) struct Fleet {
    pub(crate) ca: Ca,
    pub(crate) limits: Limits,
    pub(crate) client: ClientSession,
    pub(crate) primary: ServerSession,
    pub(crate) listener: Listener,
    pub(crate) secondaries: Vec<Secondary>,
}

/// A secondary's end of its path.
pub(crate) struct Secondary {
    pub(crate) path: PathId,
    pub(crate) session: ServerSession,
    pub(crate) listener: Listener,
}

impl Fleet {
    pub(crate) async fn new(secondaries: usize) -> Self {
        Self::with_limits(secondaries, Limits::default()).await
    }

    pub(crate) async fn with_limits(secondaries: usize, limits: Limits) -> Self {
        let client = |ca: &Ca| ca.client();
        Self::with_client(secondaries, limits, client).await
    }

    pub(crate) async fn with_client(
        secondaries: usize,
        limits: Limits,
        client: impl FnOnce(&Ca) -> ClientConfig,
    ) -> Self {
        let ca = Ca::new();
        let listener = listen(ANY_PORT, ca.server().limits(limits.clone())).await.unwrap();
        let client = client(&ca).limits(limits.clone());
        let client = dial((listener.local_addr(), NAME), client).await.unwrap();
        let primary = listener.accept().await.unwrap();
        let mut fleet = Self { ca, limits, client, primary, listener, secondaries: Vec::new() };
        for _ in 0..secondaries {
            let secondary = fleet.join().await;
            fleet.secondaries.push(secondary);
        }
        fleet
    }

    /// Starts a server that trusts the primary.
    pub(crate) async fn start_secondary(&self) -> Listener {
        let config = self.ca.server().trust_primary(self.listener.identity()).limits(self.limits.clone());
        listen(ANY_PORT, config).await.unwrap()
    }

    /// Adds one more server to the session.
    pub(crate) async fn join(&self) -> Secondary {
        let listener = self.start_secondary().await;
        let path = self.primary.add_path(target(&listener)).await.unwrap();
        let session = listener.accept().await.unwrap();
        Secondary { path, session, listener }
    }

    /// A stream that the client opened, at both ends.
    pub(crate) async fn stream(&self) -> (kwik_tokio::Stream, ServerStream) {
        let client = self.client.open_stream_sync().await.unwrap();
        let primary = self.primary.accept_stream().await.unwrap();
        assert_eq!(client.id(), primary.id());
        (client, primary)
    }
}

/// How a primary names a server.
pub(crate) fn target(listener: &Listener) -> PathTarget {
    PathTarget { address: listener.local_addr(), server_name: NAME.to_owned(), identity: listener.identity() }
}

/// One missing range.
pub(crate) fn only(range: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(range).collect()
}

/// The byte that belongs at an offset.
pub(crate) fn byte_at(offset: u64) -> u8 {
    offset.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[0]
}

/// The bytes that belong at a range of offsets.
pub(crate) fn pattern(range: Range<u64>) -> Bytes {
    range.map(byte_at).collect::<Vec<_>>().into()
}

/// Checks that bytes are where they belong.
pub(crate) fn check(start: u64, data: &[u8]) {
    let misplaced = data.iter().zip(start..).find(|(byte, offset)| **byte != byte_at(*offset));
    assert_eq!(misplaced, None, "the first misplaced byte, and its offset");
}

/// Reads a stream of position-derived bytes from `start` to its end, and returns where that is.
pub(crate) async fn check_to_end(stream: &mut RecvStream, start: u64) -> u64 {
    let mut offset = start;
    while let Some(chunk) = stream.read_chunk(usize::MAX, true).await.unwrap() {
        assert_eq!(chunk.offset.0, offset);
        check(offset, &chunk.data);
        offset += chunk.data.len() as u64;
    }
    offset
}

/// Writes back what comes on every bidirectional stream, as a server.
pub(crate) fn spawn_echo(session: ServerSession) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok(mut stream) = session.accept_stream().await {
            tokio::spawn(async move {
                while let Ok(Some(chunk)) = stream.read_chunk(64 * 1024, true).await {
                    stream.write_chunk(chunk.data).await.unwrap();
                }
            });
        }
    })
}

/// Fills every range that is delegated to a secondary with the bytes that belong there.
pub(crate) fn spawn_filler(session: ServerSession) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok(stream) = session.accept_stream().await {
            tokio::spawn(fill(stream));
        }
    })
}

async fn fill(mut stream: ServerStream) {
    let range = stream.grant().unwrap().range;
    let mut offset = range.start;
    while offset < range.end {
        let end = range.end.min(offset + 100_000);
        // The range may be taken back at any time.
        if stream.write_chunk(pattern(offset..end)).await.is_err() {
            return;
        }
        offset = end;
    }
    let _ = stream.finish();
}

/// A server in a runtime of its own, to be killed without a goodbye.
pub(crate) struct Doomed {
    runtime: tokio::runtime::Runtime,
    pub(crate) listener: Arc<Listener>,
}

impl Doomed {
    pub(crate) async fn start(config: ServerConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.spawn(async { listen(ANY_PORT, config).await.unwrap() }).await.unwrap();
        Self { runtime, listener: Arc::new(listener) }
    }

    /// Ends the server as a crash would: its socket is gone, and nobody was told.
    pub(crate) fn kill(self) {
        self.runtime.shutdown_background();
    }
}
