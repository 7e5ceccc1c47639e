//! KWIK beside what people build by hand over plain QUIC, in the same worlds.

use std::time::Duration;

use kwik_sim::apps::bulk::Bulk;
use kwik_sim::plain::{Chunks, PlainCongestion, Strategy};
use kwik_sim::{Disturbance, Link, WorldConfig};

const BYTES: u64 = 30_000_000;
const LIMIT: Duration = Duration::from_secs(60);

/// 60, 30 and 20 Mbit/s, with round trips of 40 ms.
fn links() -> Vec<Link> {
    [60, 30, 20].map(|rate| Link::with_rate(rate * 1_000_000, Duration::from_millis(20))).to_vec()
}

fn by_hand(strategy: Strategy, congestion: PlainCongestion) -> Chunks {
    Chunks::new(WorldConfig::null_tls(1), BYTES, &links(), strategy, congestion)
}

/// No download is faster than all links together, and each of them needs more than one.
#[test]
fn downloads_by_hand_and_by_kwik_bring_the_same_object_over_the_same_links() {
    let least = Duration::from_millis(BYTES * 8 / 110_000);
    let one_alone = Duration::from_millis(BYTES * 8 / 60_000);
    let mut bulk = Bulk::new(WorldConfig::null_tls(1), BYTES, &links());
    assert!(bulk.run(LIMIT));
    let mut all = vec![bulk.fleet.world.elapsed()];
    for congestion in [PlainCongestion::Cubic, PlainCongestion::Bbr] {
        let mut chunks = by_hand(Strategy::Chunks, congestion);
        assert!(chunks.run(LIMIT), "{congestion:?}: {} bytes", chunks.bytes_read());
        assert_eq!((chunks.bytes_read(), bulk.bytes_read()), (BYTES, BYTES));
        assert!(chunks.bytes_twice() < BYTES / 10, "{}", chunks.bytes_twice());
        all.push(chunks.world.elapsed());
    }
    assert!(all.iter().all(|took| (least..one_alone).contains(took)), "{all:?}: not {least:?} to {one_alone:?}");
}

#[test]
fn pieces_bring_the_object_too() {
    for congestion in [PlainCongestion::Cubic, PlainCongestion::Bbr] {
        let mut pieces = by_hand(Strategy::Pieces, congestion);
        assert!(pieces.run(LIMIT), "{congestion:?}: {} bytes", pieces.bytes_read());
        let sent = pieces.servers.iter().map(|server| pieces.world.link_stats(*server, pieces.client).sent_bytes);
        assert!(sent.min() > Some(4 << 20), "{congestion:?}: each server is asked for a piece");
    }
}

#[test]
fn crash_stops_chunks_for_a_second() {
    let mut chunks = by_hand(Strategy::Chunks, PlainCongestion::Cubic);
    chunks.world.at(Duration::from_secs(1), Disturbance::Crash { node: chunks.servers[0] });
    assert!(chunks.run(LIMIT), "{} bytes", chunks.bytes_read());
    let gap = chunks.longest_gap();
    assert!((Duration::from_secs(1)..Duration::from_millis(1400)).contains(&gap), "{gap:?}");
    assert!(chunks.world.elapsed() < Duration::from_secs(6), "{:?}", chunks.world.elapsed());
}
