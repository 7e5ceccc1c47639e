//! Several endpoints that share one port: what they have in common, and where a datagram belongs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kwik_core::{
    ClientConfig, DatagramMeta, Dir, Endpoint, EndpointConfig, Identity, Limits, Routing, ServerConfig, SessionError,
    SessionEvent, SessionHandle, StreamHandle, TransportCode,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;

const SERVER: ([u8; 4], u16) = ([192, 0, 2, 1], 4433);
const UNIX_AT_START: Duration = Duration::from_secs(1_800_000_000);

struct Client {
    address: SocketAddr,
    endpoint: Endpoint,
    session: SessionHandle,
    is_welcomed: bool,
    end: Option<SessionError>,
    /// Nothing reaches it any more.
    is_deaf: bool,
}

/// Workers on one port, and their clients, without a network.
struct Site {
    now: Instant,
    workers: Vec<Endpoint>,
    routing: Routing,
    clients: Vec<Client>,
    config: ClientConfig,
    sessions: Vec<BTreeMap<SessionHandle, SocketAddr>>,
    /// Datagrams that came to another worker than the one they belong to.
    handed_over: usize,
    /// Which worker the system gives what comes from an address.
    lands_at: fn(SocketAddr, usize) -> usize,
}

impl Site {
    #[expect(clippy::disallowed_methods, reason = "an instant to begin with; no time passes by itself")]
    fn new(workers: u16, adjust: impl FnOnce(&mut Limits)) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["kwik.test".to_owned()]).expect("a valid configuration");
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a valid configuration");
        let now = Instant::now();
        let mut config = EndpointConfig::new([1; 32], UNIX_AT_START);
        adjust(&mut config.limits);
        let (mut workers, routing) = Endpoint::workers(config, workers, now).expect("a valid configuration");
        let server = ServerConfig::new(Identity::from_seed([3; 32]), vec![cert.der().clone()], key);
        let server = server.expect("a valid configuration");
        for worker in &mut workers {
            worker.listen(Some(server.clone())).expect("a valid configuration");
        }
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).expect("a valid configuration");
        let config = ClientConfig::with_roots(roots).expect("a valid configuration");
        let sessions = vec![BTreeMap::new(); workers.len()];
        let lands_at = |remote: SocketAddr, workers| usize::from(remote.port()) % workers;
        Self { now, workers, routing, clients: Vec::new(), config, sessions, handed_over: 0, lands_at }
    }

    fn dial(&mut self, address: SocketAddr) -> usize {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&(self.clients.len() as u64).to_be_bytes());
        let mut endpoint =
            Endpoint::new(EndpointConfig::new(seed, UNIX_AT_START), self.now).expect("a valid configuration");
        let session = endpoint.connect(self.now, self.config.clone(), SocketAddr::from(SERVER), "kwik.test");
        let session = session.expect("dialled");
        self.clients.push(Client { address, endpoint, session, is_welcomed: false, end: None, is_deaf: false });
        self.clients.len() - 1
    }

    fn settle(&mut self) {
        for _ in 0..4 {
            while self.exchange() {}
            self.now += Duration::from_millis(25);
            let clients = self.clients.iter_mut().map(|client| &mut client.endpoint);
            self.workers.iter_mut().chain(clients).for_each(|endpoint| endpoint.handle_timeout(self.now));
        }
        while self.exchange() {}
    }

    fn exchange(&mut self) -> bool {
        let mut sent = Vec::new();
        let mut buf = Vec::new();
        for client in &mut self.clients {
            while let Some(transmit) = client.endpoint.poll_transmit(self.now, 1, &mut buf) {
                sent.push((client.address, buf[..transmit.size].to_vec()));
                buf.clear();
            }
            while let Some((_, event)) = client.endpoint.poll_event() {
                match event {
                    SessionEvent::Welcomed => client.is_welcomed = true,
                    SessionEvent::Closed(error) => client.end = Some(error),
                    _ => {}
                }
            }
        }
        let mut moved = !sent.is_empty();
        for (remote, data) in sent {
            let lands_at = (self.lands_at)(remote, self.workers.len());
            let owner = self.routing.owner(&data).map_or(lands_at, usize::from);
            self.handed_over += usize::from(owner != lands_at);
            let meta = DatagramMeta { remote, local_ip: None, ecn: None };
            self.workers[owner].handle_datagram(self.now, meta, &data);
        }
        let meta = DatagramMeta { remote: SocketAddr::from(SERVER), local_ip: None, ecn: None };
        for (worker, sessions) in self.workers.iter_mut().zip(&mut self.sessions) {
            while let Some(transmit) = worker.poll_transmit(self.now, 1, &mut buf) {
                let to = self.clients.iter_mut().find(|client| client.address == transmit.destination);
                if let Some(client) = to.filter(|client| !client.is_deaf) {
                    client.endpoint.handle_datagram(self.now, meta, &buf[..transmit.size]);
                }
                buf.clear();
                moved = true;
            }
            while let Some((session, event)) = worker.poll_event() {
                match event {
                    SessionEvent::Incoming => {
                        let remote = worker.session(session).expect("a session").remote_address().expect("an address");
                        sessions.insert(session, remote);
                    }
                    SessionEvent::Closed(_) => worker.release(self.now, session),
                    _ => {}
                }
            }
        }
        moved
    }

    fn welcomed(&self) -> usize {
        self.clients.iter().filter(|client| client.is_welcomed && client.end.is_none()).count()
    }

    fn total(&self, of: impl Fn(kwik_core::EndpointStats) -> usize) -> usize {
        self.workers.iter().map(|worker| of(worker.stats())).sum()
    }

    /// A client opens a stream and writes to it; returns what its server reads.
    fn send(&mut self, client: usize, data: &'static [u8]) -> Vec<u8> {
        let Client { endpoint, session, .. } = &mut self.clients[client];
        let mut session = endpoint.session_mut(*session).expect("a session");
        let stream = session.open_stream(Dir::Uni).expect("opened");
        assert_eq!(session.stream_mut(stream).write(data), Ok(data.len()));
        self.settle();
        let mut read = Vec::new();
        for (worker, sessions) in self.workers.iter_mut().zip(&self.sessions) {
            for handle in sessions.keys() {
                let Some(mut session) = worker.session_mut(*handle) else { continue };
                while let Some(stream) = session.accept_stream(Dir::Uni) {
                    read.extend(drain(&mut session, stream));
                }
            }
        }
        read
    }
}

fn drain(session: &mut kwik_core::SessionMut<'_>, stream: StreamHandle) -> Bytes {
    session.stream_mut(stream).read(usize::MAX).map(|chunk| chunk.data).unwrap_or_default()
}

fn at(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, host], port))
}

#[test]
fn sessions_go_on_when_the_system_brings_their_datagrams_elsewhere() {
    let mut site = Site::new(4, |_| ());
    for host in 0..8 {
        site.dial(at(host, 5000 + u16::from(host)));
    }
    site.settle();
    assert_eq!((site.welcomed(), site.handed_over), (8, 0), "an address that stays costs nothing");
    assert!(site.workers.iter().all(|worker| worker.stats().sessions == 2), "two for each");
    for client in &mut site.clients {
        let port = client.address.port() + 1;
        client.address.set_port(port);
    }
    for client in 0..8 {
        assert_eq!(site.send(client, b"moved"), b"moved");
    }
    assert_eq!(site.welcomed(), 8);
    assert!(site.handed_over >= 8, "{} datagrams were handed over", site.handed_over);
    let remotes = site.workers.iter().zip(&site.sessions).flat_map(|(worker, sessions)| {
        sessions.keys().map(|handle| worker.session(*handle).expect("a session").remote_address())
    });
    let mut ports: Vec<_> = remotes.map(|remote| remote.expect("an address").port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, (5001..5009).collect::<Vec<_>>());
}

#[test]
fn handles_of_sessions_are_unique_among_workers() {
    let mut site = Site::new(3, |_| ());
    for host in 0..12 {
        site.dial(at(host, 5000 + u16::from(host)));
    }
    site.settle();
    let mut handles: Vec<_> = site.sessions.iter().flat_map(|sessions| sessions.keys().copied()).collect();
    handles.sort_unstable();
    handles.dedup();
    assert_eq!(handles.len(), 12);
}

/// The token that one worker gave is good at another, if the client's next packet lands there.
#[test]
fn address_is_validated_once_for_all_workers() {
    let mut site = Site::new(2, |limits| limits.incoming_before_retry = 0);
    let client = site.dial(at(1, 5000));
    let mut buf = Vec::new();
    let meta = |remote| DatagramMeta { remote, local_ip: None, ecn: None };
    let (now, server) = (site.now, SocketAddr::from(SERVER));
    // Each datagram of the client goes to the other worker.
    for (round, worker) in [0, 1, 1, 1, 1, 1].into_iter().enumerate() {
        let Client { address, endpoint, .. } = &mut site.clients[client];
        while let Some(transmit) = endpoint.poll_transmit(now, 1, &mut buf) {
            site.workers[worker].handle_datagram(now, meta(*address), &buf[..transmit.size]);
            buf.clear();
        }
        assert_eq!(round == 0, site.total(|stats| stats.unauthenticated + stats.sessions) == 0, "a Retry at first");
        while let Some(transmit) = site.workers[worker].poll_transmit(now, 1, &mut buf) {
            site.clients[client].endpoint.handle_datagram(now, meta(server), &buf[..transmit.size]);
            buf.clear();
        }
    }
    assert_eq!(site.workers[1].stats().sessions, 1);
}

#[test]
fn sessions_are_limited_over_all_workers_and_none_is_refused_while_there_is_room() {
    let mut site = Site::new(4, |limits| limits.sessions_max = 5);
    // All of them at one worker: the others have room for it.
    site.lands_at = |_, _| 2;
    (0..7).for_each(|host| {
        site.dial(at(host, 5000));
    });
    site.settle();
    assert_eq!((site.welcomed(), site.workers[2].stats().sessions), (5, 5));
    let busy =
        |client: &&Client| matches!(client.end, Some(SessionError::Transport { code: TransportCode::SERVER_BUSY, .. }));
    assert_eq!(site.clients.iter().filter(busy).count(), 2);

    site.lands_at = |_, _| 1;
    site.dial(at(8, 5000));
    site.settle();
    assert_eq!(site.welcomed(), 5, "none more at another worker");
    let now = site.now;
    let gone = site.clients.iter_mut().find(|client| client.is_welcomed).expect("a session");
    gone.endpoint.session_mut(gone.session).expect("a session").close(now, 0, "");
    site.settle();
    site.now += Duration::from_secs(10);
    site.settle();
    site.dial(at(9, 5000));
    site.settle();
    assert_eq!((site.welcomed(), site.workers[1].stats().sessions), (5, 1));
}

#[test]
fn memory_is_limited_over_all_workers_and_as_many_come_in_as_at_one() {
    let come = |workers, lands_at: fn(SocketAddr, usize) -> usize| {
        let mut site = Site::new(workers, |limits| limits.endpoint_memory_max = 64 << 20);
        site.lands_at = lands_at;
        for host in 0..80 {
            site.dial(at(host, 5000 + u16::from(host)));
            site.settle();
            let stats = site.workers.iter().map(Endpoint::stats);
            let used: u64 = stats.map(|stats| stats.memory_bytes).sum();
            assert!(used <= 64 << 20, "{used} bytes at {workers} workers");
        }
        site.welcomed()
    };
    let by_port: fn(SocketAddr, usize) -> usize = |remote, workers| usize::from(remote.port()) % workers;
    let alone = come(1, by_port);
    assert!((30..80).contains(&alone), "{alone} of 80");
    // A sixteenth is kept for what workers lend at the same time.
    for lands_at in [by_port, |_, _| 3] {
        let shared = come(4, lands_at);
        assert!(shared <= alone && shared >= alone * 7 / 8, "{shared} came in, and {alone} at one worker");
    }
}

/// Who floods one worker fills the places of all, and those who come to another have them nevertheless.
#[test]
fn flood_of_strangers_at_one_worker_keeps_nobody_out() {
    let mut site = Site::new(4, |limits| {
        (limits.unauthenticated_max, limits.unauthenticated_network_max) = (16, 8);
        (limits.incoming_before_retry, limits.incoming_network_before_retry) = (64, 64);
    });
    site.lands_at = |remote, workers| if remote.port() == 6666 { 0 } else { usize::from(remote.port()) % workers };
    for stranger in 0..60 {
        let stranger = site.dial(at(100 + stranger % 4, 6666));
        site.clients[stranger].is_deaf = true;
    }
    while site.exchange() {}
    assert_eq!(site.total(|stats| stats.unauthenticated), site.workers[0].stats().unauthenticated);
    let strangers = site.total(|stats| stats.unauthenticated);
    assert!((16..=32).contains(&strangers), "16 with a place and 16 on their way out, not {strangers}");
    for host in 0..8 {
        let client = site.dial(at(host, 5000 + u16::from(host)));
        while site.exchange() {}
        assert!(site.clients[client].is_welcomed, "host {host}");
    }
    assert!(site.workers[1..].iter().all(|worker| worker.stats().sessions == 2));
    // Those whose places were taken go once their worker has a turn; the rest when their time is up.
    site.clients.retain(|client| !client.is_deaf);
    site.now += Duration::from_secs(6);
    site.settle();
    site.now += Duration::from_secs(6);
    site.settle();
    assert_eq!((site.total(|stats| stats.unauthenticated), site.welcomed()), (0, 8));
}
