//! What a session holds, measured with a counting allocator, against what it says that it holds.

use std::alloc::System;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cap::Cap;
use kwik_core::{
    ClientConfig, Congestion, DatagramMeta, Dir, Endpoint, EndpointConfig, Identity, Limits, ReadError, ServerConfig,
    SessionEvent, SessionHandle, StreamHandle, StreamOffset, WriteError,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// One layout at a time, since they share the allocator.
static TURN: Mutex<()> = Mutex::new(());

/// What a layout makes of a datagram on its way to the client.
type Disguise = fn(&[u8]) -> Vec<Vec<u8>>;

const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 1], 5000);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 2], 4433);

/// A client and a server without a network. The client reads nothing unless a layout does.
struct Pair {
    now: Instant,
    client: Endpoint,
    server: Endpoint,
    here: SessionHandle,
    there: SessionHandle,
    disguise: Disguise,
}

impl Pair {
    #[expect(clippy::disallowed_methods, reason = "an instant to begin with; no time passes by itself")]
    fn new(mtu_max: u16, limits: &Limits) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["kwik.test".to_owned()]).expect("a valid configuration");
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a valid configuration");
        let now = Instant::now();
        let endpoint = |seed| {
            let mut config = EndpointConfig::new([seed; 32], Duration::from_secs(1_800_000_000));
            config.transport.mtu_max = Some(mtu_max);
            // No time passes, in which paced datagrams could leave.
            config.transport.congestion = Congestion::Cubic;
            Endpoint::new(config, now).expect("a valid configuration")
        };
        let (mut client, mut server) = (endpoint(1), endpoint(2));
        let identity = Identity::from_seed([3; 32]);
        let config = ServerConfig::new(identity, vec![cert.der().clone()], key).expect("a valid configuration");
        server.listen(Some(config.limits(limits.clone()))).expect("a valid configuration");
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).expect("a valid configuration");
        let config = ClientConfig::with_roots(roots).expect("a valid configuration").limits(limits.clone());
        let here = client.connect(now, config, SocketAddr::from(SERVER), "kwik.test").expect("dialled");
        let disguise: Disguise = |datagram| vec![datagram.to_vec()];
        let mut pair = Self { now, client, server, here, there: here, disguise };
        pair.there = pair.settle().expect("a session at the server");
        pair
    }

    /// Carries datagrams to and fro until nothing moves for a while. Returns the session that came to the server.
    fn settle(&mut self) -> Option<SessionHandle> {
        let mut incoming = None;
        for _ in 0..10 {
            while self.exchange(&mut incoming) {}
            self.now += Duration::from_millis(25);
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
        }
        incoming
    }

    fn exchange(&mut self, incoming: &mut Option<SessionHandle>) -> bool {
        let (now, mut buf, mut moved) = (self.now, Vec::new(), false);
        let meta = |remote| DatagramMeta { remote: SocketAddr::from(remote), local_ip: None, ecn: None };
        while let Some(transmit) = self.client.poll_transmit(now, 1, &mut buf) {
            self.server.handle_datagram(now, meta(CLIENT), &buf[..transmit.size]);
            buf.clear();
            moved = true;
        }
        while let Some(transmit) = self.server.poll_transmit(now, 1, &mut buf) {
            for datagram in (self.disguise)(&buf[..transmit.size]) {
                self.client.handle_datagram(now, meta(SERVER), &datagram);
            }
            buf.clear();
            moved = true;
        }
        while self.client.poll_event().is_some() {}
        while let Some((session, event)) = self.server.poll_event() {
            if event == SessionEvent::Incoming {
                *incoming = Some(session);
            }
        }
        moved
    }

    fn open(&mut self) -> StreamHandle {
        self.server.session_mut(self.there).expect("a session").open_stream(Dir::Uni).expect("within the limit")
    }

    fn accept(&mut self) -> Vec<StreamHandle> {
        self.settle();
        let mut session = self.client.session_mut(self.here).expect("a session");
        std::iter::from_fn(|| session.accept_stream(Dir::Uni)).collect()
    }

    /// Writes at the end of a stream what there is room for, and returns how much that was.
    fn write(&mut self, stream: StreamHandle, len: usize) -> usize {
        let mut rest = Bytes::from(vec![7; len]);
        while !rest.is_empty() {
            match self.server.session_mut(self.there).expect("a session").stream_mut(stream).write_chunk(rest.clone()) {
                Ok(taken) => rest = rest.slice(taken..),
                Err(WriteError::Blocked) if self.exchange(&mut None) => {}
                Err(WriteError::Blocked) => break,
                Err(error) => panic!("{error}"),
            }
        }
        len - rest.len()
    }

    fn read(&mut self, stream: StreamHandle) {
        let mut session = self.client.session_mut(self.here).expect("a session");
        loop {
            match session.stream_mut(stream).read(usize::MAX) {
                Ok(_) => {}
                Err(ReadError::Blocked) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// What the client says that its session holds, in bytes.
    fn accounted(&mut self) -> usize {
        self.settle();
        let session = self.client.session_mut(self.here).expect("a session");
        assert_eq!(session.close_reason(), None);
        session.stats().bytes_buffered
    }

    /// What the client holds, in bytes, in the end.
    fn held(self) -> usize {
        let before = ALLOCATOR.allocated();
        drop(self.client);
        before - ALLOCATOR.allocated()
    }
}

/// Lets `fill` bring bytes that wait, and compares what is said of them with what they take. Bytes without gaps cost about
/// what they are.
fn check(layout: &str, mtu_max: u16, has_gaps: bool, fill: impl Fn(&mut Pair) -> usize) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut limits = Limits::default();
    limits.streams_uni_max = 4096;
    limits.reassembly_budget_bytes = 256 << 20;
    // The second time, so that what is made once for the process is there.
    let _ = Pair::new(mtu_max, &limits).held();
    let mut idle = Pair::new(mtu_max, &limits);
    let (accounted_idle, held_idle) = (idle.accounted(), idle.held());
    let mut pair = Pair::new(mtu_max, &limits);
    let waiting = fill(&mut pair);
    let accounted = pair.accounted() - accounted_idle;
    let held = pair.held().saturating_sub(held_idle);
    eprintln!("{layout}: {waiting} bytes wait, {accounted} accounted, {held} held");
    assert!(accounted >= waiting, "{layout}: {accounted} bytes accounted for {waiting}");
    assert!(held <= accounted / 2 * 3 + 64 * 1024, "{layout}: {held} bytes held for {accounted} accounted");
    assert!(
        has_gaps || accounted <= waiting / 2 * 3 + 384 * 1024,
        "{layout}: {accounted} bytes accounted for {waiting}"
    );
}

#[test]
fn writes_of_any_size_cost_about_their_bytes() {
    for size in [1, 50, 1000, 1300, 2000, 65_536] {
        check(&format!("writes of {size} bytes"), 1452, false, |pair| {
            let stream = pair.open();
            let mut written = pair.write(stream, size);
            pair.accept();
            for number in 1..(900 << 10) / size {
                written += pair.write(stream, size);
                if size >= 50 && number % 8 == 0 {
                    pair.exchange(&mut None);
                }
            }
            written
        });
    }
}

/// 60 KiB of a packet that means nothing before the one that the datagram consists of.
fn behind_junk(datagram: &[u8]) -> Vec<Vec<u8>> {
    const JUNK: usize = 60_000;
    if datagram[0] & 0x80 != 0 {
        return vec![datagram.to_vec()];
    }
    let mut disguised = vec![0xe0, 0, 0, 0, 1, 8];
    disguised.extend_from_slice(&datagram[1..9]);
    disguised.extend([0, 0x80, 0, 0xea, 0x60]);
    disguised.extend(vec![9; JUNK]);
    disguised.extend_from_slice(datagram);
    vec![disguised]
}

/// Twenty datagrams for the same connection that mean nothing, behind every one that does.
fn among_junk(datagram: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![datagram.to_vec()];
    if datagram[0] & 0x80 == 0 {
        let mut junk = datagram.to_vec();
        junk.resize(1452, 9);
        junk.iter_mut().skip(9).for_each(|byte| *byte ^= 0x5a);
        all.extend(vec![junk; 20]);
    }
    all
}

#[test]
fn one_piece_of_each_datagram_costs_what_it_is() {
    for (layout, disguise) in [("behind junk", behind_junk as Disguise), ("among junk", among_junk)] {
        for size in [60, 1100] {
            check(&format!("pieces of {size} bytes {layout}"), 1452, false, |pair| {
                let stream = pair.open();
                let mut written = pair.write(stream, size);
                pair.accept();
                pair.disguise = disguise;
                for _ in 0..600 {
                    written += pair.write(stream, size);
                    while pair.exchange(&mut None) {}
                }
                written
            });
        }
    }
}

/// A little of every datagram waits, the rest is read at once.
#[test]
fn what_waits_of_datagrams_that_were_read_costs_what_it_is() {
    for (mtu_max, much, rounds) in [(1452, 20_000, 400), (65_000, 60_000, 400)] {
        for little in [100, 1200] {
            check(&format!("{little} bytes beside {much} of datagrams up to {mtu_max}"), mtu_max, false, |pair| {
                let (paused, busy) = (pair.open(), pair.open());
                let mut written = pair.write(paused, little);
                pair.write(busy, little);
                let streams = pair.accept();
                // The path learns how long its datagrams may be.
                (0..40).for_each(|_| {
                    pair.settle();
                });
                for _ in 0..rounds {
                    written += pair.write(paused, little);
                    pair.write(busy, much);
                    while pair.exchange(&mut None) {}
                    pair.read(streams[1]);
                }
                written
            });
        }
    }
}

#[test]
fn pieces_between_gaps_are_charged_for() {
    for len in [1, 400, 1100] {
        check(&format!("{len} bytes between gaps"), 1452, true, |pair| {
            let streams: Vec<_> = (0..8).map(|_| pair.open()).collect();
            streams.iter().for_each(|stream| assert_eq!(pair.write(*stream, 1), 1));
            pair.accept();
            for step in 1..800_u64 {
                for stream in &streams {
                    let data = Bytes::from(vec![7; len]);
                    let mut session = pair.server.session_mut(pair.there).expect("a session");
                    session.stream_mut(*stream).write_at(StreamOffset(step * 1200), data).expect("written");
                }
                if step % 20 == 0 {
                    while pair.exchange(&mut None) {}
                }
            }
            8 * 799 * len
        });
    }
}

#[test]
fn streams_with_a_byte_each_are_charged_for() {
    check("a byte of each of 3,000 streams", 1452, true, |pair| {
        for number in 0..3_000 {
            let stream = pair.open();
            pair.write(stream, 1);
            if number % 100 == 0 {
                pair.settle();
            }
        }
        pair.accept().len()
    });
}
