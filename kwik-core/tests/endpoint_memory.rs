//! What all peers together make an endpoint hold, measured with a counting allocator, against its budget.

use std::alloc::System;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cap::Cap;
use kwik_core::{
    ClientConfig, ConnectError, DatagramMeta, Dir, Endpoint, EndpointConfig, Identity, ReadError, ServerConfig,
    SessionError, SessionEvent, SessionHandle, StreamHandle, TransportCode,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// One scene at a time, since they share the allocator.
static TURN: Mutex<()> = Mutex::new(());

const SERVER: ([u8; 4], u16) = ([192, 0, 2, 1], 4433);
const BUDGET: u64 = 64 << 20;

struct Client {
    endpoint: Endpoint,
    session: SessionHandle,
    streams: Vec<StreamHandle>,
    end: Option<SessionError>,
}

impl Client {
    fn is_busy(&self) -> bool {
        matches!(self.end, Some(SessionError::Transport { code: TransportCode::SERVER_BUSY, .. }))
    }
}

/// A server and its clients without a network. The server reads nothing unless it is told to.
struct Scene {
    now: Instant,
    server: Endpoint,
    clients: BTreeMap<SocketAddr, Client>,
    config: ClientConfig,
    /// The sessions of the server, and where they came from.
    sessions: BTreeMap<SessionHandle, SocketAddr>,
    streams: Vec<(SessionHandle, StreamHandle)>,
    most: u64,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    #[expect(clippy::disallowed_methods, reason = "an instant to begin with; no time passes by itself")]
    fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["kwik.test".to_owned()]).expect("a valid configuration");
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a valid configuration");
        let now = Instant::now();
        let mut config = EndpointConfig::new([1; 32], Duration::from_secs(1_800_000_000));
        config.limits.endpoint_memory_max = BUDGET;
        let mut server = Endpoint::new(config, now).expect("a valid configuration");
        let config = ServerConfig::new(Identity::from_seed([3; 32]), vec![cert.der().clone()], key);
        server.listen(Some(config.expect("a valid configuration"))).expect("a valid configuration");
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).expect("a valid configuration");
        let config = ClientConfig::with_roots(roots).expect("a valid configuration");
        Self {
            now,
            server,
            clients: BTreeMap::new(),
            config,
            sessions: BTreeMap::new(),
            streams: Vec::new(),
            most: 0,
            _turn: turn,
        }
    }

    /// A client dials from an address, which no other has.
    fn dial(&mut self, address: SocketAddr) {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&address.port().to_be_bytes());
        seed[2] = u8::try_from(self.clients.len() % 251).expect("small");
        let config = EndpointConfig::new(seed, Duration::from_secs(1_800_000_000));
        let mut endpoint = Endpoint::new(config, self.now).expect("a valid configuration");
        let session = endpoint.connect(self.now, self.config.clone(), SocketAddr::from(SERVER), "kwik.test");
        let session = session.expect("dialled");
        self.clients.insert(address, Client { endpoint, session, streams: Vec::new(), end: None });
        self.settle();
    }

    /// Carries datagrams to and fro until nothing moves for a while.
    fn settle(&mut self) {
        for _ in 0..4 {
            while self.exchange() {}
            self.now += Duration::from_millis(25);
            self.server.handle_timeout(self.now);
            for client in self.clients.values_mut() {
                client.endpoint.handle_timeout(self.now);
            }
        }
        while self.exchange() {}
    }

    fn exchange(&mut self) -> bool {
        let Self { now, server, clients, sessions, most, .. } = self;
        let (now, mut buf, mut moved) = (*now, Vec::new(), false);
        let meta = |remote| DatagramMeta { remote, local_ip: None, ecn: None };
        for (address, client) in clients.iter_mut() {
            while let Some(transmit) = client.endpoint.poll_transmit(now, 1, &mut buf) {
                server.handle_datagram(now, meta(*address), &buf[..transmit.size]);
                buf.clear();
                moved = true;
            }
            while let Some((_, event)) = client.endpoint.poll_event() {
                if let SessionEvent::Closed(error) = event {
                    client.end = Some(error);
                }
            }
        }
        while let Some(transmit) = server.poll_transmit(now, 1, &mut buf) {
            if let Some(client) = clients.get_mut(&transmit.destination) {
                client.endpoint.handle_datagram(now, meta(SocketAddr::from(SERVER)), &buf[..transmit.size]);
            }
            buf.clear();
            moved = true;
            *most = (*most).max(server.stats().memory_bytes);
        }
        while let Some((session, event)) = server.poll_event() {
            match event {
                SessionEvent::Incoming => {
                    let remote = server.session(session).expect("a session").remote_address().expect("an address");
                    sessions.insert(session, remote);
                }
                SessionEvent::Closed(_) => server.release(now, session),
                _ => {}
            }
        }
        moved
    }

    /// Every client opens all streams that it may and writes all that is taken, while nobody reads.
    fn hoard(&mut self) {
        for _ in 0..6 {
            for client in self.clients.values_mut().filter(|client| client.end.is_none()) {
                let mut session = client.endpoint.session_mut(client.session).expect("a session");
                client.streams.extend(std::iter::from_fn(|| session.open_stream(Dir::Uni).ok()));
                let data = Bytes::from(vec![7; 256 << 10]);
                for stream in &client.streams {
                    while session.stream_mut(*stream).write_chunk(data.clone()).is_ok() {}
                }
            }
            self.settle();
            self.accept();
        }
    }

    fn accept(&mut self) {
        for handle in self.sessions.keys() {
            let Some(mut session) = self.server.session_mut(*handle) else { continue };
            let accepted = std::iter::from_fn(|| session.accept_stream(Dir::Uni));
            self.streams.extend(accepted.map(|stream| (*handle, stream)));
        }
    }

    /// The server reads what waits in every stream, once. Returns how much that was of each session.
    fn read(&mut self) -> BTreeMap<SessionHandle, usize> {
        let mut read = BTreeMap::new();
        for (handle, stream) in &self.streams {
            let Some(mut session) = self.server.session_mut(*handle) else { continue };
            let mut stream = session.stream_mut(*stream);
            loop {
                match stream.read(usize::MAX) {
                    Ok(chunk) => *read.entry(*handle).or_default() += chunk.data.len(),
                    Err(ReadError::Blocked) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        read
    }

    fn used(&self) -> u64 {
        self.server.stats().memory_bytes
    }

    fn sessions_of(&self, matches: impl Fn(&SocketAddr) -> bool) -> usize {
        self.clients.iter().filter(|(address, client)| matches(address) && client.end.is_none()).count()
    }

    /// What the server holds, in bytes, in the end.
    fn held(self) -> u64 {
        let before = ALLOCATOR.allocated();
        drop(self.server);
        (before - ALLOCATOR.allocated()) as u64
    }
}

fn of_host(host: u8, port: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], u16::try_from(2000 + port).expect("a port")))
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

#[test]
fn sessions_of_one_host_take_no_more_than_half_and_others_still_come_and_go_on() {
    let mut scene = Scene::new();
    for number in 0..60 {
        scene.dial(of_host(1, number));
        if number % 10 == 9 {
            scene.hoard();
        }
    }
    let (hoarders, used) = (scene.sessions_of(|_| true), scene.used());
    eprintln!("{hoarders} sessions of one host, {} MiB at most, {} MiB used", mib(scene.most), mib(used));
    assert!(scene.clients.values().filter(|client| client.end.is_some()).all(Client::is_busy));
    assert!((10..60).contains(&hoarders), "{hoarders} sessions");
    assert!(scene.most <= BUDGET / 2 + (1 << 20), "{} of {BUDGET} bytes", scene.most);
    // A second network comes, and its bytes are taken.
    let other = of_host(2, 0);
    scene.dial(other);
    scene.hoard();
    assert_eq!(scene.clients[&other].end, None);
    let first = scene.read();
    let session = *scene.sessions.iter().find(|(_, address)| **address == other).expect("a session").0;
    assert!(first[&session] >= 512 << 10, "{} bytes of the second network", first[&session]);
    // Who is read goes on, in every session, and no session ends.
    let mut total: BTreeMap<SessionHandle, usize> = BTreeMap::new();
    for _ in 0..6 {
        scene.hoard();
        for (session, read) in scene.read() {
            *total.entry(session).or_default() += read;
        }
    }
    assert_eq!(total.len(), hoarders + 1);
    assert!(total.values().all(|read| *read >= 1 << 20), "{total:?}");
    assert_eq!(scene.sessions_of(|_| true), hoarders + 1);
    scene.hoard();
    let used = scene.used();
    assert!(scene.most <= BUDGET, "{} of {BUDGET} bytes", scene.most);
    let held = scene.held();
    eprintln!("{} MiB used, {} MiB held", mib(used), mib(held));
    assert!(held <= BUDGET + BUDGET / 2, "{held} of {BUDGET} bytes");
}

#[test]
fn sessions_of_many_hosts_fill_the_budget_and_no_more_and_it_comes_back() {
    let mut scene = Scene::new();
    for number in 0..100 {
        scene.dial(SocketAddr::from(([10, 1, number, 1], 5000)));
        if number % 20 == 19 {
            scene.hoard();
        }
    }
    let hoarders = scene.sessions_of(|_| true);
    let used = scene.used();
    eprintln!("{hoarders} sessions of as many hosts, {} MiB at most, {} MiB used", mib(scene.most), mib(used));
    assert!(scene.clients.values().filter(|client| client.end.is_some()).all(Client::is_busy));
    assert!((20..100).contains(&hoarders), "{hoarders} sessions");
    assert!(scene.most <= BUDGET && scene.most >= BUDGET / 4 * 3, "{} of {BUDGET} bytes", scene.most);
    let before = ALLOCATOR.allocated();
    let now = scene.now;
    // One that came while memory was short stays.
    let last = scene.clients.iter().filter(|(_, client)| client.end.is_none()).map(|(address, _)| *address).max();
    let last = last.expect("a session");
    let survivor = *scene.sessions.iter().find(|(_, address)| **address == last).expect("a session").0;
    for (_, client) in scene.clients.iter_mut().filter(|(address, _)| **address != last) {
        client.endpoint.session_mut(client.session).into_iter().for_each(|mut session| session.close(now, 0, ""));
        client.endpoint.release(now, client.session);
    }
    for _ in 0..400 {
        scene.now += Duration::from_millis(100);
        scene.settle();
    }
    assert_eq!(scene.server.stats().sessions, 1);
    let fed = scene.used();
    assert!((2 << 20..4 << 20).contains(&fed), "{fed} bytes: the window is whole, streams are as few as at first");
    scene.server.release(scene.now, survivor);
    (0..200).for_each(|_| {
        scene.now += Duration::from_millis(100);
        scene.settle();
    });
    let stats = scene.server.stats();
    assert_eq!((stats.sessions, stats.unauthenticated, stats.memory_bytes), (0, 0, 0));
    assert!(scene.server.is_idle());
    eprintln!("{} MiB came back", mib((before - ALLOCATOR.allocated()) as u64));
    scene.dial(of_host(9, 1));
    assert_eq!(scene.sessions_of(|address| *address == of_host(9, 1)), 1, "there is room again");
}

#[test]
fn client_dials_as_many_sessions_as_there_is_memory_for() {
    let mut scene = Scene::new();
    let mut config = EndpointConfig::new([9; 32], Duration::from_secs(1_800_000_000));
    config.limits.endpoint_memory_max = BUDGET;
    let mut endpoint = Endpoint::new(config, scene.now).expect("a valid configuration");
    let mut sessions = Vec::new();
    let refused = loop {
        match endpoint.connect(scene.now, scene.config.clone(), SocketAddr::from(SERVER), "kwik.test") {
            Ok(session) => sessions.push(session),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, ConnectError::MemoryTaken { limit: BUDGET });
    assert!((12..80).contains(&sessions.len()), "{} sessions", sessions.len());
    for session in sessions {
        endpoint.release(scene.now, session);
    }
    let mut buf = Vec::new();
    for _ in 0..2000 {
        while endpoint.poll_transmit(scene.now, 1, &mut buf).is_some() {
            buf.clear();
        }
        while endpoint.poll_event().is_some() {}
        scene.now += Duration::from_millis(100);
        endpoint.handle_timeout(scene.now);
    }
    assert_eq!(endpoint.stats().memory_bytes, 0);
    assert!(endpoint.connect(scene.now, scene.config.clone(), SocketAddr::from(SERVER), "kwik.test").is_ok());
}
