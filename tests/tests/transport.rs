//! What an application configures of QUIC, an endpoint that is bound anew, and a server that goes on with another
//! configuration.

use std::time::Duration;

use kwik_core::{AckFrequency, Congestion, Dir, SessionEvent, TransportConfig};
use kwik_sim::{Disturbance, Fleet, FleetBuilder, Link, Rebind, WorldConfig};
use kwik_tests::{LONG, SERVER_NAME, pattern};

const DELAY: Duration = Duration::from_millis(10);

/// A client and a server with the same settings, and a link between them.
fn fleet(transport: TransportConfig, link: Link) -> Fleet {
    let builder = FleetBuilder::new(WorldConfig::null_tls(1)).link(link);
    let builder = builder.client(|node| node.transport = transport);
    builder.servers(1, |_, node| node.transport = transport).build()
}

fn with(change: impl FnOnce(&mut TransportConfig)) -> TransportConfig {
    let mut transport = TransportConfig::default();
    change(&mut transport);
    transport
}

/// The server sends `bytes`, which the client reads. Returns how many datagrams the client sent meanwhile.
fn download(fleet: &mut Fleet, bytes: u64) -> u64 {
    let (client, server) = (fleet.client, fleet.servers[0]);
    let ends = fleet.connect();
    let (here, there) = fleet.open(ends, Dir::Bi);
    let before = fleet.world.link_stats(client, server).sent;
    fleet.write_all(server, ends.primary, there, &pattern(0..bytes));
    fleet.finish(server, ends.primary, there);
    assert_eq!(fleet.read_to_end(client, ends.client, here), pattern(0..bytes));
    fleet.world.link_stats(client, server).sent - before
}

#[test]
fn peer_that_is_asked_to_acknowledges_less_often() {
    let mut asked = AckFrequency::default();
    asked.ack_eliciting_threshold = 30;
    let sent = |ack_frequency| {
        let transport = with(|transport| transport.ack_frequency = ack_frequency);
        download(&mut fleet(transport, Link::with_rate(20_000_000, DELAY)), 400_000)
    };
    let (usual, fewer) = (sent(None), sent(Some(asked)));
    assert!(fewer * 3 < usual * 2, "{fewer} datagrams, and {usual} of a client that was not asked");
}

#[test]
fn first_packet_is_repeated_after_three_initial_round_trips() {
    for (milliseconds, expected) in [(333, 1), (100, 2), (30, 4)] {
        let transport = with(|transport| transport.rtt_initial = Duration::from_millis(milliseconds));
        let mut fleet = fleet(transport, Link::with_delay(DELAY));
        let (client, server) = (fleet.client, fleet.servers[0]);
        fleet.world.inject(Disturbance::Blackhole { from: client, to: server });
        fleet.world.dial(client, server, fleet.pki.client(), SERVER_NAME).unwrap();
        fleet.world.run_for(Duration::from_millis(700));
        let sent = fleet.world.link_stats(client, server).sent;
        // The first, and then after 3, 9, 21 round trips one or two each.
        assert!((expected..2 * expected).contains(&sent), "{milliseconds} ms: {sent} datagrams in 700 ms");
    }
}

/// The size of the largest datagrams that the client uses right after the handshake, and in the end.
fn mtus(transport: TransportConfig, link: Link) -> [u16; 2] {
    let mut fleet = fleet(transport, link);
    let ends = fleet.connect();
    let mtu = |fleet: &Fleet| {
        fleet.world.session(fleet.client, ends.client).expect("the session is there").stats().paths[0].mtu
    };
    let first = mtu(&fleet);
    let (here, there) = fleet.open(ends, Dir::Bi);
    fleet.write_all(fleet.client, ends.client, here, &pattern(0..200_000));
    fleet.finish(fleet.client, ends.client, here);
    assert_eq!(fleet.read_to_end(fleet.servers[0], ends.primary, there), pattern(0..200_000));
    fleet.world.run_for(Duration::from_secs(1));
    [first, mtu(&fleet)]
}

#[test]
fn datagrams_begin_and_end_with_the_sizes_configured() {
    let link = |mtu| Link { mtu, ..Link::with_delay(DELAY) };
    let between =
        |initial, max| with(|transport| (transport.mtu_initial, transport.mtu_max) = (Some(initial), Some(max)));
    assert_eq!(mtus(between(1200, 1200), link(9_000)), [1200, 1200]);
    assert_eq!(mtus(between(4_000, 4_000), link(9_000)), [4_000, 4_000]);
    let [first, last] = mtus(between(1200, 8_000), link(9_000));
    assert!(first < 8_000 && (7_900..=8_000).contains(&last), "{first}, {last}");
    // What the network does not carry is given up, and what it carries is found.
    let [first, last] = mtus(between(1_400, 1_452), link(1_300));
    assert!(first == 1_400 && last <= 1_300, "{first}, {last}");
}

/// A datagram of such a size did not fit into the initial congestion window, and nothing was ever sent.
#[test]
fn regression_path_that_began_with_huge_datagrams_sent_nothing() {
    for congestion in [Congestion::Cubic, Congestion::NewReno, Congestion::Bbr] {
        let transport = with(|transport| {
            (transport.mtu_initial, transport.mtu_max) = (Some(60_000), Some(60_000));
            transport.congestion = congestion;
        });
        let link = Link { mtu: 65_000, ..Link::with_delay(DELAY) };
        download(&mut fleet(transport, link), 400_000);
    }
}

/// What leaves before any of it is acknowledged is the initial window. BBR's grew with what the handshake brought.
#[test]
fn every_congestion_controller_begins_with_its_window() {
    let sent = |congestion| {
        let mut fleet = fleet(with(|transport| transport.congestion = congestion), Link::with_delay(DELAY));
        let (client, server) = (fleet.client, fleet.servers[0]);
        let ends = fleet.connect();
        let (_, there) = fleet.open(ends, Dir::Bi);
        fleet.world.run_for(Duration::from_secs(1));
        fleet.world.inject(Disturbance::Blackhole { from: client, to: server });
        let before = fleet.world.link_stats(server, client).sent_bytes;
        let mut session = fleet.world.session_mut(server, ends.primary).unwrap();
        session.stream_mut(there).write(&pattern(0..100_000)).unwrap();
        fleet.world.run_for(Duration::from_millis(15));
        fleet.world.link_stats(server, client).sent_bytes - before
    };
    for (congestion, expected) in [
        (Congestion::Cubic, 10_000..20_000),
        (Congestion::NewReno, 10_000..20_000),
        // What leaves paced may be more.
        (Congestion::Bbr, 32_000..50_000),
    ] {
        let window = sent(congestion);
        assert!(expected.contains(&window), "{congestion:?}: {window}");
    }
}

/// How long the client takes to hear of a stream that the server opens after the client's address changed.
fn heard_after_move(is_told: bool) -> Duration {
    let mut fleet = fleet(TransportConfig::default(), Link::with_delay(DELAY));
    let (client, server) = (fleet.client, fleet.servers[0]);
    let ends = fleet.connect();
    fleet.world.run_for(Duration::from_millis(4_500));
    fleet.world.inject(Disturbance::Rebind { node: client, to: Rebind::Address });
    if is_told {
        let now = fleet.world.now();
        fleet.world.endpoint(client).handle_rebind(now);
    }
    fleet.world.run_for(3 * DELAY);
    let begun = fleet.world.elapsed();
    fleet
        .world
        .session_mut(server, ends.primary)
        .expect("the session is there")
        .open_stream(Dir::Bi)
        .expect("there is credit");
    let accepted = fleet.world.run_until(LONG, |world| {
        world.session_mut(client, ends.client).expect("the session is there").accept_stream(Dir::Bi).is_some()
    });
    assert!(accepted);
    fleet.world.elapsed() - begun
}

/// A client that is silent would be looked for where it was, until it says something.
#[test]
fn servers_are_told_at_once_that_their_client_was_bound_anew() {
    assert_eq!(heard_after_move(true), DELAY);
    assert!(heard_after_move(false) > 5 * DELAY, "{:?}", heard_after_move(false));
}

/// A client that was told to prove its address may do so to the configuration that comes after.
#[test]
fn client_on_its_way_comes_in_when_the_configuration_changes() {
    let builder = FleetBuilder::new(WorldConfig::null_tls(1)).client(|_| ());
    let mut fleet = builder.servers(1, |_, node| node.limits.incoming_before_retry = 0).build();
    let (client, server) = (fleet.client, fleet.servers[0]);
    fleet.world.dial(client, server, fleet.pki.client(), SERVER_NAME).unwrap();
    // The first packet was answered with a Retry, which has not arrived.
    fleet.world.run_for(DELAY * 3 / 2);
    let config = fleet.pki.server(7);
    fleet.world.endpoint(server).listen(Some(config)).unwrap();
    let welcomed = |world: &mut kwik_sim::World| world.saw(client, |event| *event == SessionEvent::Welcomed);
    assert!(fleet.world.run_until(Duration::from_millis(200), welcomed), "its proof is worth nothing any more");
}
