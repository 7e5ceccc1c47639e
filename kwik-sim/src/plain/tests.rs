//! What fetching by hand reaches, and what it does when servers fail.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::{TransportConfig, VarInt};

use super::chunks::{Chunks, Strategy};
use super::{PlainCongestion, transport};
use crate::disturbance::Disturbance;
use crate::link::{Link, LinkStats};
use crate::rng::SimRng;
use crate::world::WorldConfig;

const LIMIT: Duration = Duration::from_secs(60);
const BYTES: u64 = 100_000_000;
const STRATEGIES: [Strategy; 2] = [Strategy::Chunks, Strategy::Pieces];
const CONTROLLERS: [PlainCongestion; 2] = [PlainCongestion::Cubic, PlainCongestion::Bbr];

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// 100 Mbit/s and a round trip of 40 ms.
fn link() -> Link {
    Link::with_rate(100_000_000, ms(20))
}

fn chunks(servers: usize) -> Chunks {
    let links = vec![link(); servers];
    Chunks::new(WorldConfig::null_tls(1), BYTES, &links, Strategy::Chunks, PlainCongestion::Cubic)
}

/// Nothing comes from a server from one moment on, and until another if there is one.
fn silence(chunks: &mut Chunks, server: usize, from: Duration, until: Option<Duration>) {
    let (from_node, to) = (chunks.servers[server], chunks.client);
    let mut lay = |at, link| chunks.world.at(at, Disturbance::Link { from: from_node, to, link });
    lay(from, Link { loss: 1.0, ..link() });
    until.into_iter().for_each(|until| lay(until, link()));
}

/// Runs until all is there; gives how long that took.
fn fetch(chunks: &mut Chunks) -> Duration {
    assert!(chunks.run(LIMIT), "{} of {BYTES} bytes", chunks.bytes_read());
    assert_eq!(chunks.bytes_read(), BYTES);
    chunks.world.elapsed()
}

#[test]
fn three_equal_servers_bring_nearly_the_sum_of_their_rates() {
    let mut chunks = chunks(3);
    let bound = BYTES as f64 * 8.0 / 300e6;
    let took = fetch(&mut chunks);
    assert!((bound..1.25 * bound).contains(&took.as_secs_f64()), "{took:?}");
    assert!(chunks.longest_gap() < ms(150), "{:?}", chunks.longest_gap());
    assert!(chunks.bytes_twice() < 1 << 20, "{}", chunks.bytes_twice());
    for server in chunks.servers.clone() {
        let sent = chunks.world.link_stats(server, chunks.client).sent_bytes;
        assert!(sent > BYTES / 4, "{sent}");
    }
}

#[test]
fn chunks_of_a_crashed_server_are_fetched_from_the_others_after_a_second() {
    let mut chunks = chunks(3);
    chunks.world.at(ms(1000), Disturbance::Crash { node: chunks.servers[1] });
    let took = fetch(&mut chunks);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!((ms(1000)..ms(1300)).contains(&chunks.longest_gap()), "{:?}", chunks.longest_gap());
}

#[test]
fn chunks_of_a_silent_server_are_fetched_from_the_others_until_it_is_heard_of() {
    let took = [None, Some(ms(2200))].map(|until| {
        let mut chunks = chunks(3);
        silence(&mut chunks, 0, ms(1000), until);
        let took = fetch(&mut chunks);
        assert!((ms(1000)..ms(1300)).contains(&chunks.longest_gap()), "{:?}", chunks.longest_gap());
        took
    });
    assert!(took[0] < Duration::from_secs(5) && took[1] < took[0] - ms(200), "{took:?}");
}

#[test]
fn last_server_keeps_its_chunks_although_it_is_silent() {
    let mut chunks = chunks(2);
    chunks.world.at(ms(500), Disturbance::Crash { node: chunks.servers[1] });
    silence(&mut chunks, 0, ms(2000), Some(ms(5000)));
    fetch(&mut chunks);
    assert!(chunks.longest_gap() > ms(3000), "{:?}", chunks.longest_gap());
}

/// At a thirtieth of its rate it still brings something in every second.
#[test]
fn last_chunks_of_a_slow_server_are_fetched_twice() {
    let mut chunks = chunks(3);
    let (from, to) = (chunks.servers[2], chunks.client);
    chunks.world.at(ms(1000), Disturbance::Link { from, to, link: Link { rate: Some(3_000_000), ..link() } });
    let took = fetch(&mut chunks);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!((1..4 << 20).contains(&chunks.bytes_twice()), "{}", chunks.bytes_twice());
}

#[test]
fn no_piece_is_taken_back_from_a_server_before_its_connection_is_lost() {
    let links = vec![link(); 3];
    let mut pieces = Chunks::new(WorldConfig::null_tls(1), BYTES, &links, Strategy::Pieces, PlainCongestion::Cubic);
    pieces.world.at(ms(1000), Disturbance::Crash { node: pieces.servers[1] });
    let took = fetch(&mut pieces);
    assert!(took > Duration::from_secs(30), "{took:?}");
}

#[test]
fn servers_go_on_writing_when_windows_open() {
    let mut narrow = TransportConfig::default();
    let window = VarInt::from_u32(150_000);
    narrow.stream_receive_window(window).receive_window(window).send_window(100_000);
    let narrow = Arc::new(narrow);
    for strategy in STRATEGIES {
        let bytes = 5_000_000;
        let mut chunks = Chunks::with_transport(WorldConfig::new(1), bytes, &[link(), link()], strategy, &narrow);
        assert!(chunks.run(LIMIT), "{strategy:?}: {} of {bytes} bytes", chunks.bytes_read());
    }
}

#[test]
fn same_seed_gives_the_same_run() {
    let run = |seed, strategy, congestion| {
        let links: Vec<Link> =
            (1..4).map(|server| Link { loss: 0.001, ..Link::with_rate(server * 20_000_000, ms(20)) }).collect();
        let mut chunks =
            Chunks::with_transport(WorldConfig::null_tls(seed), 30_000_000, &links, strategy, &transport(congestion));
        assert!(chunks.run(LIMIT));
        let stats: Vec<LinkStats> =
            chunks.servers.iter().map(|server| chunks.world.link_stats(*server, chunks.client)).collect();
        (chunks.world.elapsed(), chunks.longest_gap(), chunks.bytes_twice(), stats)
    };
    for (strategy, congestion) in
        STRATEGIES.into_iter().flat_map(|strategy| CONTROLLERS.map(|controller| (strategy, controller)))
    {
        let once = run(1, strategy, congestion);
        assert_eq!(once, run(1, strategy, congestion), "{strategy:?} {congestion:?}");
        assert_ne!(once, run(2, strategy, congestion), "{strategy:?} {congestion:?}");
    }
}

/// Outages end, and no server stays away, so that nothing but a wrong turn of the client could leave it waiting.
#[test]
fn objects_arrive_whole_through_random_outages() {
    for seed in 0..24 {
        let mut rng = SimRng::new(seed, &[]);
        let mut links = Vec::new();
        for _ in 0..=rng.below(4) {
            let rate = 1_000_000 * (2 + rng.below(40));
            let disorder =
                Link { reordering: 0.01, duplication: 0.01, ..Link::with_rate(rate, ms(1 + rng.below(150))) };
            links.push(Link { loss: rng.below(10) as f64 / 1000.0, ..disorder });
        }
        let (strategy, congestion) = (STRATEGIES[rng.index(2)], CONTROLLERS[rng.index(2)]);
        let bytes = 1 + rng.below(8_000_000);
        let mut chunks = Chunks::new(WorldConfig::null_tls(seed), bytes, &links, strategy, congestion);
        for _ in 0..rng.below(5) {
            let (node, client) = (chunks.servers[rng.index(links.len())], chunks.client);
            let outage = match rng.below(4) {
                0 => Disturbance::Pause { node, span: ms(rng.below(3000)) },
                1 => Disturbance::Pause { node: client, span: ms(rng.below(3000)) },
                2 => Disturbance::Partition { left: vec![client], right: vec![node] },
                _ => Disturbance::Blackhole { from: node, to: client },
            };
            chunks.world.at(ms(rng.below(3000)), outage);
        }
        chunks.world.at(ms(4000), Disturbance::HealAll);
        let is_whole = chunks.run(4 * LIMIT);
        assert!(is_whole, "{seed}: {strategy:?} has {} of {bytes} bytes", chunks.bytes_read());
    }
}
