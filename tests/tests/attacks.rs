//! Attacks that no topic of its own has: keys that are replaced, readers that hardly read, and dials into the void.

use std::time::Duration;

use bytes::Bytes;
use kwik_core::{Dir, ErrorCode, Limits, ServerConfig, SessionEvent, SessionHandle, TransportCode, WriteError};
use kwik_sim::{Link, NodeId, World};
use kwik_tests::{Fleet, SERVER_NAME, pattern};

const SECOND: Duration = Duration::from_secs(1);
const DELAY: Duration = Duration::from_millis(10);

/// The identities of a primary before and after it was given a new one.
const OLD: u8 = 0;
const NEW: u8 = 7;

/// A primary with one of the identities, and secondaries that trust the old one, both, and the new one.
fn rotating(identity: u8) -> Fleet {
    let mut fleet = Fleet::new(0);
    fleet.add_server(fleet.pki.server_trusting_nobody(identity));
    for (number, trusted) in [(1, &[OLD][..]), (2, &[OLD, NEW]), (3, &[NEW])] {
        let nobody = fleet.pki.server_trusting_nobody(number);
        let trusted = trusted.iter().map(|identity| fleet.pki.public_identity(*identity));
        let config = trusted.fold(nobody, ServerConfig::trust_primary);
        fleet.add_server(config);
    }
    fleet
}

// B-09: while a primary's identity is replaced, its secondaries trust both; an identity they do not know yet, or do not
// trust any more, opens nothing, and costs the session nothing.
#[test]
fn identity_of_a_primary_is_replaced_without_an_honest_client_refused() {
    for (identity, trusting) in [(OLD, [true, true, false]), (NEW, [false, true, true])] {
        let mut fleet = rotating(identity);
        let ends = fleet.connect();
        for (server, trusts) in (1..).zip(trusting) {
            for _ in 0..2 {
                if trusts {
                    fleet.join(ends, server);
                } else {
                    let target = fleet.target(server);
                    let path = fleet.add_path(ends, target);
                    let refused = ErrorCode::Transport(TransportCode::AUTH_FAILED);
                    assert_eq!(fleet.await_death(ends, path).code, refused, "identity {identity}, server {server}");
                }
            }
        }
        fleet.open(ends, Dir::Bi);
    }
}

/// The session of one client that downloads, and how much it read.
struct DownloadClient {
    client: (NodeId, SessionHandle),
    server: (NodeId, SessionHandle),
    streams: Vec<kwik_core::StreamHandle>,
}

impl DownloadClient {
    /// A client on a link of 20 Mbit/s, with a stream of its own for each file.
    fn new(fleet: &mut Fleet, address: &str, streams: usize) -> Self {
        let node = fleet.add_client(address, &Link::with_rate(20_000_000, DELAY));
        let session = fleet.world.dial(node, fleet.servers[0], fleet.pki.client(), SERVER_NAME).expect("dialled");
        let server = (fleet.servers[0], fleet.await_incoming(0));
        let streams = (0..streams)
            .map(|_| {
                let mut session = fleet.world.session_mut(node, session).expect("a session");
                let stream = session.open_stream(Dir::Bi).expect("opened");
                fleet.accept(0, server.1, Dir::Bi);
                stream
            })
            .collect();
        Self { client: (node, session), server, streams }
    }

    /// The server writes what is taken, of every stream.
    fn fill(&self, world: &mut World, block: &Bytes) {
        let mut session = world.session_mut(self.server.0, self.server.1).expect("the session lives");
        for stream in &self.streams {
            while session.stream_mut(*stream).write_chunk(block.clone()).is_ok() {}
            let error = session.stream_mut(*stream).write_chunk(block.clone()).expect_err("it was full");
            assert_eq!(error, WriteError::Blocked);
        }
    }

    /// The client reads up to `max` bytes of every stream.
    fn read(&self, world: &mut World, max: usize) -> usize {
        let mut session = world.session_mut(self.client.0, self.client.1).expect("the session lives");
        let mut read = 0;
        for stream in &self.streams {
            let mut rest = max;
            while rest > 0
                && let Ok(chunk) = session.stream_mut(*stream).read(rest)
            {
                rest -= chunk.data.len();
                read += chunk.data.len();
            }
        }
        read
    }

    fn buffered(&self, world: &mut World, end: (NodeId, SessionHandle)) -> usize {
        world.session(end.0, end.1).expect("the session lives").stats().bytes_buffered
    }
}

/// How much a client downloads in 20 s, beside so many readers of a byte a second. Checks what those cost.
fn download_beside(slow: u8) -> usize {
    let mut fleet = Fleet::new(1);
    let honest = DownloadClient::new(&mut fleet, "10.0.4.1:5000", 1);
    let slow: Vec<_> = (0..slow).map(|at| DownloadClient::new(&mut fleet, &format!("10.0.3.{at}:5000"), 100)).collect();
    let block = pattern(0..64 * 1024);
    let limits = Limits::default();
    let mut downloaded = 0;
    for _ in 0..20 {
        for _ in 0..50 {
            honest.fill(&mut fleet.world, &block);
            fleet.world.run_for(SECOND / 50);
            downloaded += honest.read(&mut fleet.world, usize::MAX);
        }
        for reader in &slow {
            reader.fill(&mut fleet.world, &block);
            reader.read(&mut fleet.world, 1);
            let given =
                limits.send_buffer_session_bytes + usize::try_from(limits.reassembly_budget_bytes).expect("small");
            let held = reader.buffered(&mut fleet.world, reader.server);
            assert!(held <= given + given / 4, "the server keeps {held} bytes");
            let held = reader.buffered(&mut fleet.world, reader.client);
            assert!(held as u64 <= limits.reassembly_budget_bytes * 5 / 4, "the client keeps {held} bytes");
        }
    }
    downloaded
}

// D-05: an authenticated client reads a byte a second and holds every window it can.
#[test]
fn readers_of_a_byte_a_second_cost_their_own_buffers_and_no_one_elses_time() {
    let alone = download_beside(0);
    assert!(alone > 20 * 20_000_000 / 8 / 2, "{alone} bytes");
    let beside = download_beside(10);
    assert!(beside * 100 >= alone * 95, "{beside} bytes of {alone}");
}

// E-03: dials into the void, many at once and again and again. Each ends with the idle timeout, and sends no more than
// the probes of QUIC before it.
#[test]
fn thousands_of_dials_that_nobody_answers_leave_nothing_behind() {
    let Fleet { mut world, pki, client, servers, .. } = Fleet::null_tls(1, 1);
    let nobody = servers[0];
    world.crash(nobody);
    for round in 0..20 {
        for _ in 0..250 {
            world.dial(client, nobody, pki.client(), SERVER_NAME).expect("dialled");
        }
        let mut ended = 0;
        let over = world.run_until(60 * SECOND, |world| {
            while let Some((_, event)) = world.poll_event(client) {
                ended += usize::from(matches!(event, SessionEvent::Closed(_)));
            }
            ended == 250
        });
        assert!(over, "round {round}: {ended} of 250 ended");
        assert!(
            world.run_until(7 * SECOND, |world| world.endpoint(client).is_idle()),
            "round {round}: something stays"
        );
    }
    let sent = world.link_stats(client, nobody).sent;
    assert!(sent <= 20 * 250 * 10, "{sent} datagrams of 5,000 dials");
    world.run_for(60 * SECOND);
    assert_eq!(world.link_stats(client, nobody).sent, sent, "what is over still sends");
}
