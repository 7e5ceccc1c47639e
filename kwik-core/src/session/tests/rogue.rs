//! A client that knows QUIC and nothing else: what a server lets it do before it has authenticated.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{ConnectionError, ConnectionHandle, DatagramEvent, Dir, Event, StreamId, TransportConfig, VarInt};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::RootCertStore;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
use rustls::pki_types::{PrivateKeyDer, ServerName};

use crate::auth::{self, Identity, Ticket, UnixTime};
use crate::config::{EndpointConfig, ServerConfig};
use crate::endpoint::{DatagramMeta, Endpoint};
use crate::error::TransportCode;
use crate::id::{Epoch, PathId, SessionHandle, SessionId};
use crate::limits::Limits;
use crate::path::RawQuic;
use crate::session::SessionEvent;
use crate::test_support::instant;
use crate::wire::{Close, ControlFrame, ControlReader, Hello, Join, Lease, Params, Welcome};

const UNIX_AT_START: Duration = Duration::from_secs(1_800_000_000);
const PARAMS: Params = Params { streams_bidi: 16, streams_uni: 16, stream_window_initial: 16 * 1024 };

/// The server and everything about it that a test may choose.
struct Server {
    endpoint: Endpoint,
    address: SocketAddr,
    roots: RootCertStore,
    events: Vec<(SessionHandle, SessionEvent)>,
}

impl Server {
    /// The server's identity; it trusts [`Server::issuer`] and [`Server::other_issuer`].
    fn identity() -> Identity {
        Identity::from_seed([1; 32])
    }

    fn issuer() -> Identity {
        Identity::from_seed([2; 32])
    }

    fn other_issuer() -> Identity {
        Identity::from_seed([6; 32])
    }

    fn new(adjust: impl Fn(&mut Limits)) -> Self {
        Self::with(None, adjust)
    }

    /// One whose TLS is made for another protocol.
    fn speaking(alpn: &[u8]) -> Self {
        Self::with(Some(alpn), |_| ())
    }

    fn with(alpn: Option<&[u8]>, adjust: impl Fn(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        adjust(&mut limits);
        let mut config = EndpointConfig::new([5; 32], UNIX_AT_START);
        config.limits = limits.clone();
        Self::listening(vec![Endpoint::new(config, instant()).unwrap()], alpn, &limits).remove(0)
    }

    /// Two endpoints that share a port.
    fn workers() -> [Self; 2] {
        let config = EndpointConfig::new([5; 32], UNIX_AT_START);
        let (endpoints, _) = Endpoint::workers(config, 2, instant()).unwrap();
        Self::listening(endpoints, None, &Limits::default()).try_into().ok().unwrap()
    }

    /// Endpoints that accept the same as one server.
    fn listening(endpoints: Vec<Endpoint>, alpn: Option<&[u8]>, limits: &Limits) -> Vec<Self> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["kwik.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let chain = vec![cert.der().clone()];
        let server = match alpn {
            None => ServerConfig::new(Self::identity(), chain, key).unwrap(),
            Some(alpn) => {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let tls = rustls::ServerConfig::builder_with_provider(provider);
                let tls = tls.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
                let mut tls = tls.with_no_client_auth().with_single_cert(chain, key).unwrap();
                tls.alpn_protocols = vec![alpn.to_vec()];
                let crypto = QuicServerConfig::try_from(tls).unwrap();
                ServerConfig::with_crypto(Self::identity(), Arc::new(crypto))
            }
        };
        let server = server.limits(limits.clone());
        let guard = |credential: &[u8], _: SocketAddr| credential == b"good";
        let server = server.trust_primary(Self::issuer().public()).trust_primary(Self::other_issuer().public());
        let server = server.authorizer(Arc::new(guard));
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let address = SocketAddr::from(([10, 0, 0, 1], 4433));
        let listening = endpoints.into_iter().map(|mut endpoint| {
            endpoint.listen(Some(server.clone())).unwrap();
            Self { endpoint, address, roots: roots.clone(), events: Vec::new() }
        });
        listening.collect()
    }
}

/// A QUIC connection to the server.
struct Rogue {
    now: Instant,
    server: Server,
    quic: quinn_proto::Endpoint,
    handle: ConnectionHandle,
    connection: RawQuic,
    key: Identity,
    /// Code and reason with which the server closed.
    closed: Option<(u64, Bytes)>,
    refused_by_tls: bool,
}

impl Rogue {
    fn new() -> Self {
        Self::at(Server::new(|_| ()), instant())
    }

    /// Dials a server that has all the sessions it takes.
    fn at_full_server() -> Self {
        let mut first = Self::at(Server::new(|limits| limits.sessions_max = 1), instant());
        let control = first.begin(first.hello());
        first.assert_welcomed(control);
        first.again()
    }

    fn with_key(key: Identity) -> Self {
        Self { key, ..Self::new() }
    }

    /// Dials as an honest client would.
    fn at(server: Server, now: Instant) -> Self {
        Self::with(server, now, &[b"kwik/1"], TransportConfig::default(), Resumption::disabled())
    }

    fn with(server: Server, now: Instant, alpn: &[&[u8]], transport: TransportConfig, resumption: Resumption) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider);
        let tls = tls.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
        let mut tls = tls.with_root_certificates(server.roots.clone()).with_no_client_auth();
        tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        tls.resumption = resumption;
        let mut config = quinn_proto::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(Arc::new(transport));
        let mut quic = quinn_proto::Endpoint::new(Arc::default(), None, true, None);
        let (handle, connection) = quic.connect(now, config, server.address, "kwik.test").unwrap();
        let key = Identity::from_seed([3; 32]);
        let mut rogue = Self { now, server, quic, handle, connection, key, closed: None, refused_by_tls: false };
        while rogue.exchange() {}
        rogue
    }

    /// Hangs up without a word and dials the same server again.
    fn again(self) -> Self {
        Self::at(self.server, self.now)
    }

    fn exchange(&mut self) -> bool {
        let mut moved = false;
        let mut buf = Vec::new();
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(answer) = self.quic.handle_event(self.handle, event) {
                self.connection.handle_event(answer);
            }
        }
        while let Some(transmit) = self.connection.poll_transmit(self.now, 1, &mut buf) {
            let remote = SocketAddr::from(([10, 0, 0, 2], 5000));
            let meta = DatagramMeta { remote, local_ip: None, ecn: None };
            self.server.endpoint.handle_datagram(self.now, meta, &buf[..transmit.size]);
            buf.clear();
            moved = true;
        }
        while let Some(transmit) = self.server.endpoint.poll_transmit(self.now, 1, &mut buf) {
            let data = BytesMut::from(&buf[..transmit.size]);
            buf.clear();
            moved = true;
            let event = self.quic.handle(self.now, self.server.address, None, None, data, &mut Vec::new());
            if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
                self.connection.handle_event(event);
            }
        }
        while let Some(event) = self.server.endpoint.poll_event() {
            self.server.events.push(event);
        }
        while let Some(event) = self.connection.poll() {
            match event {
                Event::ConnectionLost { reason: ConnectionError::ApplicationClosed(close) } => {
                    self.closed = Some((close.error_code.into_inner(), close.reason));
                }
                Event::ConnectionLost { reason } => {
                    self.refused_by_tls = matches!(reason, ConnectionError::ConnectionClosed(_));
                }
                _ => {}
            }
        }
        moved
    }

    /// Lets time pass in steps short enough for every timer.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            while self.exchange() {}
            self.now += Duration::from_millis(20);
            self.server.endpoint.handle_timeout(self.now);
            if self.connection.poll_timeout().is_some_and(|at| at <= self.now) {
                self.connection.handle_timeout(self.now);
            }
        }
        while self.exchange() {}
    }

    fn settle(&mut self) {
        self.pass(Duration::from_millis(200));
    }

    /// A further frame on the control plane.
    fn say(&mut self, control: StreamId, frame: impl Into<ControlFrame>) {
        let mut out = BytesMut::new();
        frame.into().encode(&mut out);
        assert_eq!(self.connection.send_stream(control).write(&out), Ok(out.len()));
        self.settle();
    }

    /// Opens the control plane with this frame.
    fn begin(&mut self, frame: impl Into<ControlFrame>) -> StreamId {
        let mut out = BytesMut::new();
        frame.into().encode(&mut out);
        let control = self.connection.streams().open(Dir::Bi).expect("one bidirectional stream");
        assert_eq!(self.connection.send_stream(control).write(&out), Ok(out.len()));
        self.settle();
        control
    }

    fn hello(&self) -> Hello {
        let client_key = *self.key.public().as_bytes();
        let proof = auth::hello_proof(&self.key, &self.exporter());
        Hello { version: 1, params: PARAMS, client_key, proof, credential: Bytes::from_static(b"good") }
    }

    fn ticket(&self) -> Ticket {
        Ticket {
            session: SessionId([9; 16]),
            path: PathId(1),
            epoch: Epoch(1),
            issuer: Server::issuer().public(),
            secondary: Server::identity().public(),
            server_name: "kwik.test".to_owned(),
            client_key: self.key.public(),
            issued_at: UnixTime::new(UNIX_AT_START),
            expires_at: UnixTime::new(UNIX_AT_START + Duration::from_secs(60)),
            lease: Duration::from_secs(60),
        }
    }

    fn exporter(&self) -> [u8; 32] {
        let mut exporter = [0; 32];
        let session = self.connection.crypto_session();
        session.export_keying_material(&mut exporter, auth::EXPORTER_LABEL, b"").unwrap();
        exporter
    }

    fn join(&self, ticket: &Ticket) -> Join {
        self.join_by(&Server::issuer(), ticket)
    }

    fn join_by(&self, issuer: &Identity, ticket: &Ticket) -> Join {
        let ticket = Ticket { issuer: issuer.public(), ..ticket.clone() }.sign(issuer);
        let proof = auth::join_proof(&self.key, &self.exporter(), &ticket);
        Join { version: 1, params: PARAMS, ticket, proof }
    }

    fn assert_welcomed(&mut self, control: StreamId) -> Welcome {
        let mut stream = self.connection.recv_stream(control);
        let mut chunks = stream.read(true).unwrap();
        let mut reader = ControlReader::default();
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            reader.push(chunk.bytes);
        }
        let _ = chunks.finalize();
        match reader.next() {
            Ok(Some(ControlFrame::Welcome(welcome))) => welcome,
            other => panic!("{other:?} instead of WELCOME; closed with {:?}", self.closed),
        }
    }

    fn assert_closed(&self, code: TransportCode, what: &str) {
        assert_eq!(self.closed.as_ref().map(|(code, _)| *code), Some(code.0), "{what}");
    }

    /// Closed with a code that says why, and nothing else that does.
    fn assert_refused(&self, code: TransportCode, what: &str) {
        assert_eq!(self.closed, Some((code.0, Bytes::new())), "{what}");
    }
}

// [P-2.1]
#[test]
fn connection_without_the_protocol_is_closed() {
    let dial = |server, alpn: &[&[u8]]| {
        let mut rogue = Rogue::with(server, instant(), alpn, TransportConfig::default(), Resumption::disabled());
        rogue.settle();
        rogue
    };
    let honest = || Server::new(|_| ());
    assert_eq!(dial(honest(), &[b"h3", b"kwik/1"]).closed, None);
    assert!(dial(honest(), &[]).refused_by_tls, "no protocol");
    assert!(dial(honest(), &[b"h3"]).refused_by_tls, "another protocol");
    let careless = dial(Server::speaking(b"h3"), &[b"h3"]);
    careless
        .assert_closed(TransportCode::TLS_FAILED, "TLS that was configured by the application for another protocol");
}

// [P-2.2]
#[test]
fn sessions_of_tls_are_not_resumed_and_datagram_frames_not_taken() {
    let cache = Arc::new(ClientSessionMemoryCache::new(8));
    let transport = TransportConfig::default();
    let mut rogue =
        Rogue::with(Server::new(|_| ()), instant(), &[b"kwik/1"], transport, Resumption::store(cache.clone()));
    let control = rogue.begin(rogue.hello());
    rogue.assert_welcomed(control);
    let name = ServerName::try_from("kwik.test").unwrap();
    assert!(cache.take_tls13_ticket(&name).is_none(), "the server sent a session ticket");
    assert_eq!(rogue.connection.datagrams().max_size(), None);
}

// [P-2.4]
#[test]
fn windows_are_small_before_authentication() {
    let mut rogue = Rogue::new();
    let carriers: Vec<_> = std::iter::from_fn(|| rogue.connection.streams().open(Dir::Uni)).collect();
    assert_eq!(carriers.len(), 8);
    let mut written = 0;
    for carrier in &carriers {
        while let Ok(len) = rogue.connection.send_stream(*carrier).write(&[0; 10_000]) {
            written += len;
        }
    }
    assert_eq!(written, 64 * 1024);
    rogue.settle();
    assert_eq!(rogue.connection.send_stream(carriers[0]).write(&[0]), Err(quinn_proto::WriteError::Blocked));
    assert_eq!(rogue.closed, None);

    let mut rogue = Rogue::new();
    rogue.begin(rogue.hello());
    assert_eq!(std::iter::from_fn(|| rogue.connection.streams().open(Dir::Uni)).count(), 72);
}

// [P-2.5]
#[test]
fn carriers_are_not_read_before_authentication() {
    let mut rogue = Rogue::new();
    let carrier = rogue.connection.streams().open(Dir::Uni).unwrap();
    assert_eq!(rogue.connection.send_stream(carrier).write(b"no carrier at all"), Ok(17));
    rogue.settle();
    assert_eq!(rogue.closed, None);
    rogue.begin(rogue.hello());
    rogue.assert_closed(TransportCode::PROTOCOL_VIOLATION, "read at last");
    assert!(rogue.server.events.iter().any(|(_, event)| *event == SessionEvent::Incoming));
}

// [P-3.1]
#[test]
fn first_frame_is_hello_or_join() {
    let mut rogue = Rogue::new();
    rogue.begin(Close { code: TransportCode::NO_ERROR.into(), reason: String::new() });
    rogue.assert_closed(TransportCode::PROTOCOL_VIOLATION, "CLOSE first");
    assert!(rogue.server.events.is_empty());
}

// [P-4.4] [P-4.6]
#[test]
fn hello_is_checked_in_order_and_refused_without_a_reason() {
    let weak = [0; 32];
    let mut rogue = Rogue::at_full_server();
    rogue.begin(Hello { version: 2, client_key: weak, credential: Bytes::new(), ..rogue.hello() });
    rogue.assert_refused(TransportCode::VERSION, "the version first");
    let mut rogue = rogue.again();
    rogue.begin(Hello { client_key: weak, credential: Bytes::new(), ..rogue.hello() });
    rogue.assert_refused(TransportCode::SERVER_BUSY, "then the capacity");
    let mut rogue = Rogue::new();
    rogue.begin(Hello { client_key: weak, ..rogue.hello() });
    rogue.assert_refused(TransportCode::AUTH_FAILED, "then the key");
    let mut rogue = rogue.again();
    rogue.begin(Hello { proof: [0; 64], ..rogue.hello() });
    rogue.assert_refused(TransportCode::AUTH_FAILED, "and its proof");
    let mut rogue = rogue.again();
    rogue.begin(Hello { credential: Bytes::from_static(b"bad"), ..rogue.hello() });
    rogue.assert_refused(TransportCode::AUTH_FAILED, "and the credential");
    assert!(rogue.server.events.is_empty());
    let mut rogue = rogue.again();
    let control = rogue.begin(rogue.hello());
    rogue.assert_welcomed(control);
}

/// Of all endpoints that share a port.
#[test]
fn ticket_opens_one_session_over_all_workers() {
    let [one, other] = Server::workers();
    let mut rogue = Rogue::at(one, instant());
    let ticket = rogue.ticket();
    let control = rogue.begin(rogue.join(&ticket));
    assert_eq!(rogue.assert_welcomed(control).path, PathId(1));
    let mut rogue = Rogue::at(other, rogue.now);
    rogue.begin(rogue.join(&ticket));
    rogue.assert_refused(TransportCode::SUPERSEDED, "it was used at another worker");
    let mut rogue = rogue.again();
    let control = rogue.begin(rogue.join(&Ticket { path: PathId(2), ..ticket }));
    assert_eq!(rogue.assert_welcomed(control).path, PathId(2));
}

// [P-4.5] [P-4.6]
#[test]
fn join_is_checked_in_order_and_refused_without_a_reason() {
    let mut rogue = Rogue::at_full_server();
    let garbage = Bytes::from_static(b"garbage");
    let join = rogue.join(&rogue.ticket());
    rogue.begin(Join { version: 2, ticket: garbage.clone(), ..join.clone() });
    rogue.assert_refused(TransportCode::VERSION, "the version first");
    let mut rogue = rogue.again();
    rogue.begin(Join { ticket: garbage.clone(), ..join.clone() });
    rogue.assert_refused(TransportCode::SERVER_BUSY, "then the capacity");
    let mut rogue = Rogue::new();
    rogue.begin(Join { ticket: garbage, ..join });
    rogue.assert_refused(TransportCode::AUTH_FAILED, "then the ticket");

    let mut rogue = rogue.again();
    let late = Ticket { expires_at: UnixTime::new(UNIX_AT_START - Duration::from_secs(1)), ..rogue.ticket() };
    rogue.begin(Join { proof: [0; 64], ..rogue.join(&late) });
    rogue.assert_refused(TransportCode::AUTH_TIME, "its time before any signature");
    let mut rogue = rogue.again();
    rogue.begin(Join { proof: [0; 64], ..rogue.join(&rogue.ticket()) });
    rogue.assert_refused(TransportCode::AUTH_FAILED, "and the proof");
    let mut rogue = rogue.again();
    let control = rogue.begin(rogue.join(&rogue.ticket()));
    assert_eq!(rogue.assert_welcomed(control).path, PathId(1));
    let mut rogue = rogue.again();
    rogue.begin(Join { proof: [0; 64], ..rogue.join(&rogue.ticket()) });
    rogue.assert_refused(TransportCode::SUPERSEDED, "whether it was used before any signature, too");
    let mut rogue = rogue.again();
    rogue.begin(rogue.join(&late));
    rogue.assert_refused(TransportCode::AUTH_TIME, "and the time before that");
}

// [P-4.4] [P-4.5]
#[test]
fn verifications_are_spent_on_what_passed_the_free_checks_only() {
    let mut rogue = Rogue::at(Server::new(|limits| limits.verifications_network_per_second = 1), instant());
    let stale = Ticket { issued_at: UnixTime::new(UNIX_AT_START - Duration::from_secs(600)), ..rogue.ticket() };
    let stranger = Identity::from_seed([8; 32]).public();
    for bad in [
        Join { version: 2, ..rogue.join(&rogue.ticket()) },
        Join { ticket: Bytes::from_static(b"garbage"), ..rogue.join(&rogue.ticket()) },
        rogue.join(&stale),
        rogue.join_by(&Identity::from_seed([8; 32]), &rogue.ticket()),
        rogue.join(&Ticket { secondary: stranger, ..rogue.ticket() }),
    ] {
        rogue.begin(bad);
        assert_ne!(rogue.closed.take().map(|(code, _)| code), Some(TransportCode::SERVER_BUSY.0));
        rogue = rogue.again();
    }
    rogue.begin(Hello { client_key: [0; 32], ..rogue.hello() });
    rogue.assert_refused(TransportCode::AUTH_FAILED, "a key that is none");

    let mut rogue = rogue.again();
    rogue.begin(Join { proof: [0; 64], ..rogue.join(&rogue.ticket()) });
    rogue.assert_refused(TransportCode::AUTH_FAILED, "the one verification of the second");
    // Dialling takes no virtual time, only `settle` does: a fifth of a second.
    let mut rogue = rogue.again();
    rogue.begin(rogue.hello());
    rogue.assert_refused(TransportCode::SERVER_BUSY, "no verification is left");
    rogue.pass(Duration::from_secs(1));
    let mut rogue = rogue.again();
    let control = rogue.begin(rogue.join(&rogue.ticket()));
    rogue.assert_welcomed(control);
}

// [P-4.8]
#[test]
fn ticket_is_good_for_one_connection_and_memory_of_them_is_bounded() {
    let mut rogue = Rogue::at(Server::new(|limits| limits.tickets_remembered_max = 2), instant());
    let first = rogue.ticket();
    let control = rogue.begin(rogue.join(&first));
    rogue.assert_welcomed(control);
    let mut rogue = rogue.again();
    rogue.begin(rogue.join(&first));
    rogue.assert_refused(TransportCode::SUPERSEDED, "used before");
    let mut rogue = rogue.again();
    let control = rogue.begin(rogue.join(&Ticket { path: PathId(2), ..first.clone() }));
    rogue.assert_welcomed(control);
    let mut rogue = rogue.again();
    rogue.begin(rogue.join(&Ticket { path: PathId(3), ..first.clone() }));
    rogue.assert_refused(TransportCode::SERVER_BUSY, "cannot be remembered");
    let mut rogue = rogue.again();
    rogue.begin(rogue.join(&first));
    rogue.assert_refused(TransportCode::SUPERSEDED, "and nothing was forgotten for it");

    rogue.pass(Duration::from_secs(91));
    let mut rogue = rogue.again();
    let now = UNIX_AT_START + Duration::from_secs(91);
    let expires_at = UnixTime::new(now + Duration::from_secs(60));
    let fresh = Ticket { path: PathId(4), issued_at: UnixTime::new(now), expires_at, ..first };
    let control = rogue.begin(rogue.join(&fresh));
    rogue.assert_welcomed(control);
}

// [P-4.2] [P-4.4]
#[test]
fn key_of_another_client_cannot_be_passed_on() {
    // What a primary has of its own client: the key it named, and what it signed on their connection.
    let victim = Rogue::new();
    let borrowed = victim.hello();
    let mut rogue = Rogue::with_key(Identity::from_seed([4; 32]));
    rogue.begin(borrowed.clone());
    rogue.assert_refused(TransportCode::AUTH_FAILED, "signed on another connection");
    let mut rogue = rogue.again();
    let own = auth::hello_proof(&Identity::from_seed([4; 32]), &rogue.exporter());
    rogue.begin(Hello { proof: own, ..borrowed });
    rogue.assert_refused(TransportCode::AUTH_FAILED, "signed by another key");
}

// [P-4.8]
#[test]
fn tickets_of_two_primaries_for_one_session_id_are_two() {
    let mut rogue = Rogue::new();
    let control = rogue.begin(rogue.join(&rogue.ticket()));
    rogue.assert_welcomed(control);
    let mut rogue = rogue.again();
    let control = rogue.begin(rogue.join_by(&Server::other_issuer(), &rogue.ticket()));
    rogue.assert_welcomed(control);
    let mut rogue = rogue.again();
    rogue.begin(rogue.join_by(&Server::other_issuer(), &rogue.ticket()));
    rogue.assert_refused(TransportCode::SUPERSEDED, "each is used once");
}

// [P-4.10] [P-4.14]
#[test]
fn path_lives_as_long_as_its_primary_wants_it_and_no_longer() {
    let joined = || {
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_secs(2)));
        let resumption = Resumption::disabled();
        let mut rogue = Rogue::with(Server::new(|_| ()), instant(), &[b"kwik/1"], transport, resumption);
        let control = rogue.begin(rogue.join(&rogue.ticket()));
        rogue.assert_welcomed(control);
        (rogue, control)
    };
    let lease = |rogue: &Rogue, at: Duration| {
        let (ticket, issued) = (rogue.ticket(), UnixTime::new(UNIX_AT_START + at));
        let signature = auth::sign_lease(&Server::issuer(), ticket.session, ticket.path, issued);
        Lease { path: ticket.path, issued_at_ms: issued.as_millis(), signature }
    };
    let secs = Duration::from_secs;

    // Nobody renews it: it ends a minute after JOIN, which came a fifth of a second after the beginning.
    let (mut rogue, _) = joined();
    rogue.pass(secs(59));
    assert_eq!(rogue.closed, None);
    rogue.pass(secs(2));
    rogue.assert_closed(TransportCode::LEASE_EXPIRED, "not renewed");

    // Renewed once, after 50 s; what is repeated or kept for later is worth nothing.
    let (mut rogue, control) = joined();
    let kept = lease(&rogue, secs(49));
    rogue.pass(secs(50));
    let renewal = lease(&rogue, secs(50));
    rogue.say(control, renewal);
    rogue.pass(secs(20));
    rogue.say(control, renewal);
    rogue.say(control, kept);
    rogue.say(control, lease(&rogue, secs(39)));
    rogue.pass(secs(25));
    // What came late, or was kept, counts from when it was made.
    rogue.say(control, lease(&rogue, secs(60)));
    rogue.pass(secs(22));
    assert_eq!(rogue.closed, None);
    rogue.pass(secs(3));
    rogue.assert_closed(TransportCode::LEASE_EXPIRED, "the primary wants it no more");

    let (mut rogue, control) = joined();
    let forged = Lease { signature: [7; 64], ..lease(&rogue, secs(1)) };
    rogue.say(control, forged);
    rogue.assert_closed(TransportCode::AUTH_FAILED, "nobody signed it");
    let (mut rogue, control) = joined();
    let other = Lease { path: PathId(2), ..lease(&rogue, secs(1)) };
    rogue.say(control, other);
    rogue.assert_closed(TransportCode::PROTOCOL_VIOLATION, "of another path");
}

// [P-4.9]
#[test]
fn connection_that_says_nothing_is_closed_after_five_seconds() {
    let mut rogue = Rogue::new();
    let control = rogue.connection.streams().open(Dir::Bi).unwrap();
    let mut hello = BytesMut::new();
    ControlFrame::from(rogue.hello()).encode(&mut hello);
    let all_but_one = hello.len() - 1;
    assert_eq!(rogue.connection.send_stream(control).write(&hello[..all_but_one]), Ok(all_but_one));
    rogue.pass(Duration::from_millis(4900));
    assert_eq!(rogue.closed, None);
    rogue.pass(Duration::from_millis(200));
    rogue.assert_closed(TransportCode::AUTH_TIMEOUT, "half a HELLO");
}

/// A client that is there and acknowledges, and has much to read on its control plane.
fn with_much_to_read() -> (Rogue, StreamId) {
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(400)).keep_alive_interval(Some(Duration::from_secs(1)));
    let resumption = Resumption::disabled();
    let mut rogue = Rogue::with(Server::new(|_| ()), instant(), &[b"kwik/1"], transport, resumption);
    let control = rogue.begin(rogue.hello());
    let (session, now) = (rogue.server.events[0].0, rogue.now);
    for port in 5000..5007 {
        let target = crate::session::PathTarget {
            address: SocketAddr::from(([10, 0, 0, 3], port)),
            server_name: "kwik.test".to_owned(),
            identity: rogue.key.public(),
        };
        rogue.server.endpoint.session_mut(session).unwrap().add_path(now, target).unwrap();
    }
    (rogue, control)
}

// [P-5.15]
#[test]
fn control_plane_that_is_read_by_the_drop_ends_the_session() {
    let (mut rogue, control) = with_much_to_read();
    let begin = rogue.now;
    while rogue.closed.is_none() && rogue.now < begin + Duration::from_secs(60) {
        rogue.pass(Duration::from_secs(9));
        // The least that QUIC gives credit for.
        let mut stream = rogue.connection.recv_stream(control);
        if let Ok(mut chunks) = stream.read(true) {
            let _ = chunks.next(50);
            let _ = chunks.finalize();
        }
    }
    rogue.assert_closed(TransportCode::CONTROL_FLOOD, "50 bytes in nine seconds");
    assert!(rogue.now <= begin + Duration::from_secs(18), "{:?}", rogue.now - begin);
}

// [P-5.15]
#[test]
fn control_plane_that_is_not_read_ends_the_session() {
    let (mut rogue, _) = with_much_to_read();
    rogue.pass(Duration::from_millis(9900));
    assert_eq!(rogue.closed, None);
    rogue.pass(Duration::from_millis(500));
    rogue.assert_closed(TransportCode::CONTROL_FLOOD, "ten seconds unread");
}

// [P-4.4]
#[test]
fn session_that_nobody_takes_is_refused_as_busy() {
    let mut rogue = Rogue::new();
    rogue.begin(rogue.hello());
    let (session, now) = (rogue.server.events[0].0, rogue.now);
    rogue.server.endpoint.refuse(now, session);
    rogue.settle();
    rogue.assert_closed(TransportCode::SERVER_BUSY, "refused");
}
