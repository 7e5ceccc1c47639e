//! What a session tells of its paths: at the server that sends, at the client, and at the primary of its secondaries.

use std::time::Duration;

use kwik_core::{BlockedBy, PathStats};
use kwik_sim::apps::bulk::Bulk;
use kwik_sim::{Link, NodeId, WorldConfig};

const RTT: Duration = Duration::from_millis(40);

/// A download over two links that lose one datagram of a hundred, under way for three seconds.
fn download() -> (Bulk, Link) {
    let link = Link { loss: 0.01, ..Link::with_rate(20_000_000, RTT / 2) };
    let mut bulk = Bulk::new(WorldConfig::null_tls(1), 1 << 30, &[link.clone(), link.clone()]);
    bulk.run(Duration::from_secs(3));
    (bulk, link)
}

fn paths(bulk: &Bulk, node: NodeId) -> Vec<PathStats> {
    let world = &bulk.fleet.world;
    world
        .sessions(node)
        .first()
        .and_then(|session| world.session(node, *session))
        .map_or(Vec::new(), |session| session.stats().paths)
}

#[test]
fn sender_tells_losses_and_what_it_waits_for() {
    let (bulk, _) = download();
    let sent = paths(&bulk, bulk.fleet.servers[0]).remove(0);
    let lost = bulk.fleet.world.link_stats(bulk.fleet.servers[0], bulk.fleet.client).lost;
    assert!(lost > 10 && sent.quic_packets_lost.abs_diff(lost) <= lost / 4, "{lost} were lost: {sent:?}");
    assert!(sent.quic_packets_sent > 50 * lost, "{sent:?}");
    assert!(sent.bytes_in_flight > 0 && sent.bytes_in_flight <= sent.congestion_window, "{sent:?}");
    assert_eq!(sent.blocked_by, BlockedBy::Window);
    assert!(sent.rtt_min >= RTT && sent.rtt_min <= sent.rtt && sent.rtt_min < RTT * 5 / 4, "{sent:?}");
    // The client has nothing to send but acknowledgements.
    assert_eq!(paths(&bulk, bulk.fleet.client).remove(0).blocked_by, BlockedBy::Application);
}

// [P-8.6]
#[test]
fn primary_hears_the_least_round_trip_of_its_secondary() {
    let (bulk, _) = download();
    let (world, primary) = (&bulk.fleet.world, bulk.fleet.servers[0]);
    let session =
        world.sessions(primary).first().and_then(|session| world.session(primary, *session)).expect("it is there");
    let info = session.all_paths().into_iter().find(|path| !path.id.is_primary()).expect("it joined");
    assert!(info.rtt_min >= RTT && info.rtt_min <= info.rtt && info.rtt_min < RTT * 5 / 4, "{info:?}");
    assert!(info.rate_bytes_per_second > 0, "{info:?}");
}

#[test]
fn rate_decays_when_nothing_comes() {
    let (mut bulk, link) = download();
    let rate = |bulk: &Bulk| paths(bulk, bulk.fleet.client).remove(1).rate_bytes_per_second;
    let before = rate(&bulk);
    assert!(before > 50_000, "{before}");
    let (client, secondary) = (bulk.fleet.client, bulk.fleet.servers[1]);
    bulk.fleet.world.set_link_both(client, secondary, Link { up: false, ..link });
    bulk.run(Duration::from_secs(2));
    let after = rate(&bulk);
    assert!(after < before / 3, "{after} bytes a second two seconds after {before}");
}
