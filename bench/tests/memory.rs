//! What memory idle endpoints, sessions and streams hold, by a counting allocator, with quinn's beside it.

use std::alloc::System;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use cap::Cap;
use kwik_tokio::Limits;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::Builder;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// One test at a time, since they share the allocator.
static TURN: Mutex<()> = Mutex::new(());

const NAME: &str = "localhost";
const SESSIONS: usize = 40;
const STREAMS: usize = 1000;
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Bytes of the heap for one end of each.
#[derive(Debug, Clone, Copy)]
struct Held {
    endpoint: usize,
    session: usize,
    stream: usize,
}

/// Looks at what is held, again and again.
struct Scale(usize);

impl Scale {
    fn new() -> Self {
        Self(ALLOCATOR.allocated())
    }

    /// What one of `count` holds that came since the last look.
    fn look(&mut self, count: usize) -> usize {
        let (before, now) = (self.0, ALLOCATOR.allocated());
        self.0 = now;
        now.saturating_sub(before) / count
    }
}

fn run<F: Future<Output = Held>>(work: F) -> Held {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

/// Lets the tasks of endpoints begin.
async fn begin() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

fn credentials() -> (CertificateDer<'static>, PrivateKeyDer<'static>, RootCertStore) {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    (made.cert.der().clone(), key, roots)
}

async fn kwik() -> Held {
    let (certificate, key, roots) = credentials();
    let mut limits = Limits::default();
    (limits.handshakes_per_second, limits.handshakes_network_per_second) = (u32::MAX, u32::MAX);
    (limits.verifications_per_second, limits.verifications_network_per_second) = (u32::MAX, u32::MAX);
    limits.streams_bidi_max = STREAMS as u64;
    limits.reassembly_budget_bytes = 1 << 28;
    let config = || kwik_tokio::EndpointConfig::new().limits(limits.clone());
    let identity = kwik_tokio::generate_identity().expect("an identity");
    let server = kwik_tokio::ServerConfig::new(identity, vec![certificate], key).expect("a configuration");
    let client = kwik_tokio::ClientConfig::with_roots(roots).expect("a configuration").limits(limits.clone());
    let mut scale = Scale::new();
    let listener = kwik_tokio::Endpoint::bind(LOOPBACK, config()).expect("a socket");
    let listener = listener.listen(server.limits(limits.clone())).expect("a listener");
    let endpoint = kwik_tokio::Endpoint::bind(LOOPBACK, config()).expect("a socket");
    begin().await;
    let of_endpoint = scale.look(2);
    let mut sessions = Vec::with_capacity(SESSIONS + 1);
    for count in 0..=SESSIONS {
        if count == 1 {
            scale.look(1);
        }
        let address = (listener.local_addr(), NAME);
        let (dialled, accepted) = tokio::join!(endpoint.dial(address, client.clone()), listener.accept());
        sessions.push((dialled.expect("a session"), accepted.expect("a session")));
    }
    let of_session = scale.look(2 * SESSIONS);
    let (client, server) = &sessions[0];
    let mut streams = Vec::with_capacity(STREAMS);
    scale.look(1);
    for _ in 0..STREAMS {
        let mut opened = client.open_stream().expect("a stream");
        opened.write_all(b"?").await.expect("room");
        let mut accepted = server.accept_stream().await.expect("a stream");
        accepted.read_exact(&mut [0]).await.expect("a byte");
        accepted.write_all(b"!").await.expect("room");
        opened.read_exact(&mut [0]).await.expect("a byte");
        streams.push((opened, accepted));
    }
    Held { endpoint: of_endpoint, session: of_session, stream: scale.look(2 * STREAMS) }
}

async fn quinn() -> Held {
    let (certificate, key, roots) = credentials();
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_bidi_streams(quinn::VarInt::try_from(STREAMS as u64).expect("a small number"));
    let mut server = quinn::ServerConfig::with_single_cert(vec![certificate], key).expect("a configuration");
    server.transport_config(Arc::new(transport));
    let client = quinn::ClientConfig::with_root_certificates(Arc::new(roots)).expect("a configuration");
    let mut scale = Scale::new();
    let listener = quinn::Endpoint::server(server, LOOPBACK).expect("a socket");
    let endpoint = quinn::Endpoint::client(LOOPBACK).expect("a socket");
    begin().await;
    let of_endpoint = scale.look(2);
    let address = listener.local_addr().expect("bound");
    let mut sessions = Vec::with_capacity(SESSIONS + 1);
    for count in 0..=SESSIONS {
        if count == 1 {
            scale.look(1);
        }
        let dialled = async { endpoint.connect_with(client.clone(), address, NAME).expect("a dial").await };
        let accepted = async { listener.accept().await.expect("a dial").await };
        let (dialled, accepted) = tokio::join!(dialled, accepted);
        sessions.push((dialled.expect("a session"), accepted.expect("a session")));
    }
    let of_session = scale.look(2 * SESSIONS);
    let (client, server) = &sessions[0];
    let mut streams = Vec::with_capacity(STREAMS);
    scale.look(1);
    for _ in 0..STREAMS {
        let (mut send, mut recv) = client.open_bi().await.expect("a stream");
        send.write_all(b"?").await.expect("room");
        let mut accepted = server.accept_bi().await.expect("a stream");
        accepted.1.read_exact(&mut [0]).await.expect("a byte");
        accepted.0.write_all(b"!").await.expect("room");
        recv.read_exact(&mut [0]).await.expect("a byte");
        streams.push((send, recv, accepted));
    }
    Held { endpoint: of_endpoint, session: of_session, stream: scale.look(2 * STREAMS) }
}

#[test]
#[expect(clippy::print_stdout, reason = "a measurement")]
fn idle_ends_hold_little() {
    let (kwik, quinn) = (run(kwik()), run(quinn()));
    println!("kwik {kwik:?}\nquinn {quinn:?}");
    assert!(kwik.endpoint <= 2_000_000, "{kwik:?}");
    assert!(kwik.session <= 40_000, "{kwik:?}");
    assert!(kwik.stream <= 400, "{kwik:?}");
}
