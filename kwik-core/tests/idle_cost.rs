//! What sessions cost that do nothing: memory and wake-ups of those that are open, and what those that are over leave
//! behind.

use std::alloc::System;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cap::Cap;
use kwik_core::{
    ClientConfig, DatagramMeta, Dir, Endpoint, EndpointConfig, Identity, Limits, ServerConfig, SessionEvent,
    SessionHandle,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// One test at a time, since they share the allocator.
static TURN: Mutex<()> = Mutex::new(());

const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 1], 5000);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 2], 4433);

/// A client's endpoint and a server's without a network between them.
struct Pair {
    now: Instant,
    client: Endpoint,
    server: Endpoint,
    config: ClientConfig,
    accepted: Vec<SessionHandle>,
    /// How often the client's and the server's was called because its time had come.
    wakes: [usize; 2],
}

impl Pair {
    fn new() -> Self {
        Self::with_slack(Duration::ZERO)
    }

    #[expect(clippy::disallowed_methods, reason = "an instant to begin with; no time passes by itself")]
    fn with_slack(timer_slack: Duration) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["kwik.test".to_owned()]).expect("a valid configuration");
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a valid configuration");
        let now = Instant::now();
        let endpoint = |seed| {
            let mut config = EndpointConfig::new([seed; 32], Duration::from_secs(1_800_000_000));
            config.timer_slack = timer_slack;
            let limits = &mut config.limits;
            (limits.handshakes_network_per_second, limits.handshakes_per_second) = (1_000_000, 1_000_000);
            (limits.verifications_network_per_second, limits.verifications_per_second) = (1_000_000, 1_000_000);
            limits.accept_queue_sessions = 10_000;
            Endpoint::new(config, now).expect("a valid configuration")
        };
        let (client, mut server) = (endpoint(1), endpoint(2));
        let identity = Identity::from_seed([3; 32]);
        let config = ServerConfig::new(identity, vec![cert.der().clone()], key).expect("a valid configuration");
        server.listen(Some(config.limits(Limits::default()))).expect("a valid configuration");
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).expect("a valid configuration");
        let config = ClientConfig::with_roots(roots).expect("a valid configuration");
        Self { now, client, server, config, accepted: Vec::new(), wakes: [0; 2] }
    }

    fn dial(&mut self, count: usize) -> Vec<SessionHandle> {
        (0..count)
            .map(|_| {
                let config = self.config.clone();
                self.client.connect(self.now, config, SocketAddr::from(SERVER), "kwik.test").expect("dialled")
            })
            .collect()
    }

    /// Carries all there is to and fro.
    fn exchange(&mut self) {
        let (now, mut buf) = (self.now, Vec::new());
        let meta = |remote| DatagramMeta { remote: SocketAddr::from(remote), local_ip: None, ecn: None };
        loop {
            let mut moved = false;
            while let Some(transmit) = self.client.poll_transmit(now, 1, &mut buf) {
                self.server.handle_datagram(now, meta(CLIENT), &buf[..transmit.size]);
                buf.clear();
                moved = true;
            }
            while let Some(transmit) = self.server.poll_transmit(now, 1, &mut buf) {
                self.client.handle_datagram(now, meta(SERVER), &buf[..transmit.size]);
                buf.clear();
                moved = true;
            }
            while self.client.poll_event().is_some() {}
            while let Some((session, event)) = self.server.poll_event() {
                match event {
                    SessionEvent::Incoming => self.accepted.push(session),
                    SessionEvent::Closed(_) => self.server.release(now, session),
                    _ => {}
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Lets time pass, as a loop around both endpoints does.
    fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.exchange();
            let next = [self.client.poll_timeout(), self.server.poll_timeout()].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            for (endpoint, wakes) in [&mut self.client, &mut self.server].into_iter().zip(&mut self.wakes) {
                if endpoint.poll_timeout().is_some_and(|at| at <= self.now) {
                    endpoint.handle_timeout(self.now);
                    *wakes += 1;
                }
            }
        }
        self.now = end;
    }

    /// A request and its answer on every session.
    fn ask(&mut self, sessions: &[SessionHandle]) {
        for session in sessions {
            let mut session = self.client.session_mut(*session).expect("a session");
            let stream = session.open_stream(Dir::Bi).expect("opened");
            session.stream_mut(stream).write(b"question").expect("room");
            session.stream_mut(stream).finish().expect("open");
            session.stream_mut(stream).release_send();
            session.stream_mut(stream).release_recv();
        }
        self.exchange();
        for session in self.accepted.clone() {
            let mut session = self.server.session_mut(session).expect("a session");
            while let Some(stream) = session.accept_stream(Dir::Bi) {
                while session.stream_mut(stream).read(usize::MAX).is_ok() {}
                session.stream_mut(stream).release_send();
                session.stream_mut(stream).release_recv();
            }
        }
        self.run_for(Duration::from_secs(1));
    }
}

/// Sessions are dialled, used, closed and released, by the hundred, round after round.
#[test]
fn sessions_that_are_over_leave_nothing_behind() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pair = Pair::new();
    let mut held = Vec::new();
    for _ in 0..8 {
        let sessions = pair.dial(150);
        pair.run_for(Duration::from_secs(1));
        assert_eq!(pair.accepted.len(), 150);
        pair.ask(&sessions);
        for session in sessions {
            pair.client.session_mut(session).expect("a session").close(pair.now, 0, "");
            pair.client.release(pair.now, session);
        }
        pair.run_for(Duration::from_secs(60));
        assert!(pair.client.is_idle() && pair.server.is_idle());
        assert_eq!(
            (pair.client.poll_timeout(), pair.server.poll_timeout()),
            (None, None),
            "something still has a time"
        );
        pair.accepted.clear();
        held.push(ALLOCATOR.allocated());
    }
    let growth = held[7].saturating_sub(held[3]);
    // A table of QUIC's, which holds what it is given at any time, may double once: 256 entries of 41 bytes.
    assert!(growth <= 600 * 8 + 256 * 41, "{growth} bytes grew over 600 sessions: {held:?}");
}

/// Sessions that are open and say nothing.
#[test]
fn idle_sessions_cost_little_memory_and_few_wakes() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pair = Pair::new();
    let first = pair.dial(10);
    pair.run_for(Duration::from_secs(1));
    pair.ask(&first);
    let before = ALLOCATOR.allocated();
    let sessions = pair.dial(200);
    pair.run_for(Duration::from_secs(1));
    pair.ask(&sessions);
    pair.run_for(Duration::from_secs(10));
    let both = (ALLOCATOR.allocated() - before) / 200;
    pair.wakes = [0; 2];
    pair.run_for(Duration::from_secs(600));
    let wakes = pair.wakes;
    // Two groups, each asked for a sign of life every 2 s: the deadline itself, what answers it, and what is late.
    let most = 2 * 300 * 3;
    assert!(wakes.iter().all(|wakes| *wakes <= most), "{wakes:?} wakes in 10 minutes, and not {most}");
    // Nearly all of it is QUIC's and TLS's.
    assert!(both <= 96 * 1024, "{both} bytes for both ends of a session");
}

/// However many sessions there are, and whenever they began.
#[test]
fn idle_sessions_wake_together_within_the_slack() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let wakes = |slack| {
        let mut pair = Pair::with_slack(slack);
        let mut sessions = Vec::new();
        for _ in 0..64 {
            sessions.extend(pair.dial(1));
            pair.run_for(Duration::from_millis(37));
        }
        pair.run_for(Duration::from_secs(10));
        pair.wakes = [0; 2];
        pair.run_for(Duration::from_secs(20));
        assert_eq!([pair.client.stats().sessions, pair.server.stats().sessions], [64; 2]);
        pair.wakes
    };
    let [client, server] = wakes(Duration::ZERO);
    assert!(client > 500 && server > 500, "64 sessions in 20 seconds, each every 2 seconds: {client} and {server}");
    let [client, server] = wakes(Duration::from_millis(250));
    assert!(client <= 90 && server <= 180, "80 moments, each with an acknowledgement: {client} and {server}");
}
