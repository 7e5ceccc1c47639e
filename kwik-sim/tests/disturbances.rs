//! Every disturbance does what it says, and a download gets over those that end.

use std::time::Duration;

use kwik_core::{Dir, SessionEvent};
use kwik_sim::apps::bulk::Bulk;
use kwik_sim::content::bytes_at;
use kwik_sim::{
    Delivery, Disturbance, Fleet, FleetBuilder, Link, Rebind, RestartState, SERVER_NAME, TraceKind, World, WorldConfig,
};

const BYTES: u64 = 2_000_000;

/// 10 Mbit/s and 20 ms to each of two servers: about a second.
fn download() -> Bulk {
    let link = Link::with_rate(10_000_000, Duration::from_millis(10));
    let mut download = Bulk::new(WorldConfig::null_tls(7), BYTES, &[link.clone(), link]);
    download.fleet.world.trace_mut().keep(1_000_000);
    download
}

/// Runs a download with one disturbance in its middle; returns how long it took.
fn download_with(disturbance: impl Fn(&Fleet) -> Vec<(u64, Disturbance)>) -> (Duration, Fleet) {
    let mut download = download();
    for (at, disturbance) in disturbance(&download.fleet) {
        download.fleet.world.at(Duration::from_millis(at), disturbance);
    }
    assert!(download.run(Duration::from_secs(30)), "{} bytes read", download.bytes_read());
    assert_eq!(download.bytes_read(), BYTES);
    (download.fleet.world.elapsed(), download.fleet)
}

fn undisturbed() -> Duration {
    download_with(|_| Vec::new()).0
}

fn count(world: &World, wanted: impl Fn(&TraceKind) -> bool) -> usize {
    world.trace().events().filter(|event| wanted(&event.kind)).count()
}

fn deliveries(world: &World, wanted: Delivery) -> usize {
    count(world, |kind| matches!(kind, TraceKind::Sent { delivery, .. } if *delivery == wanted))
}

#[test]
fn partition_holds_up_until_it_heals() {
    let (took, download) = download_with(|download| {
        let (left, right) = (vec![download.client], download.servers.clone());
        vec![(200, Disturbance::Partition { left, right }), (900, Disturbance::HealAll)]
    });
    assert!(deliveries(&download.world, Delivery::Blocked) > 0);
    assert!(took > undisturbed() + Duration::from_millis(600), "{took:?}");
}

#[test]
fn black_hole_swallows_one_direction_only() {
    let (_, download) = download_with(|download| {
        let (from, to) = (download.client, download.servers[1]);
        vec![(250, Disturbance::Blackhole { from, to }), (600, Disturbance::Heal { a: from, b: to })]
    });
    let blocked = |node| {
        let events = download.world.trace().events().filter(|event| event.node == node);
        events.filter(|event| matches!(event.kind, TraceKind::Sent { delivery: Delivery::Blocked, .. })).count()
    };
    assert!(blocked(download.client) > 0);
    assert_eq!(blocked(download.servers[1]), 0);
}

#[test]
fn rebinding_changes_what_the_server_sees() {
    for to in [Rebind::Port, Rebind::Address] {
        let (_, download) = download_with(|download| vec![(250, Disturbance::Rebind { node: download.client, to })]);
        let before = "10.0.2.1:5000".parse().unwrap();
        let after = download.world.address(download.client);
        assert_ne!(after, before);
        assert_eq!(after.ip() == before.ip(), to == Rebind::Port);
        let server = download.servers[0];
        let session = download.world.sessions(server)[0];
        assert_eq!(download.world.session(server, session).unwrap().remote_address(), Some(after));
    }
}

#[test]
fn pause_makes_timers_late_and_fills_the_socket() {
    let (took, mut download) = download_with(|download| {
        vec![(250, Disturbance::Pause { node: download.client, span: Duration::from_millis(500) })]
    });
    assert!(took > undisturbed() + Duration::from_millis(300), "{took:?}");
    let silent = download.world.trace().events().filter(|event| event.node == download.client).all(|event| {
        let sends = matches!(event.kind, TraceKind::Sent { .. });
        !sends || event.at <= Duration::from_millis(250) || event.at >= Duration::from_millis(750)
    });
    assert!(silent, "a paused node sent");
    download.world.trace_mut().keep(0);

    let mut config = WorldConfig::null_tls(7);
    config.socket_buffer_bytes = 3_000;
    let mut small = Bulk::new(config, BYTES, &[Link::default(), Link::default()]);
    small.fleet.world.trace_mut().keep(1_000_000);
    let span = Duration::from_millis(500);
    small.fleet.world.at(Duration::from_millis(10), Disturbance::Pause { node: small.fleet.client, span });
    assert!(small.run(Duration::from_secs(30)));
    assert!(count(&small.fleet.world, |kind| matches!(kind, TraceKind::Note { text } if text.contains("no room"))) > 0);
}

#[test]
fn send_errors_lose_what_is_sent() {
    let (_, download) = download_with(|download| {
        let (node, span) = (download.servers[0], Duration::from_millis(50));
        vec![(200, Disturbance::SendErrors { node, span })]
    });
    assert!(deliveries(&download.world, Delivery::SendError) > 0);
}

#[test]
fn smaller_mtu_drops_what_is_larger() {
    let (_, download) = download_with(|download| {
        vec![(250, Disturbance::Mtu { a: download.client, b: download.servers[1], mtu: 1250 })]
    });
    assert!(deliveries(&download.world, Delivery::TooBig) > 0);
}

#[test]
fn corruption_is_never_read_without_tls() {
    let (_, download) = download_with(|download| {
        let change = |from, to| {
            let link = Link { corruption: 0.2, ..Link::with_rate(10_000_000, Duration::from_millis(10)) };
            (0, Disturbance::Link { from, to, link })
        };
        vec![change(download.servers[0], download.client), change(download.servers[1], download.client)]
    });
    assert!(deliveries(&download.world, Delivery::Corrupted) > 20);
}

#[test]
fn node_restarts_with_its_memory_or_without() {
    let (_, kept) = download_with(|download| {
        let node = download.servers[1];
        vec![(250, Disturbance::Crash { node }), (500, Disturbance::Restart { node, state: RestartState::Kept })]
    });
    assert!(!kept.world.is_crashed(kept.servers[1]));

    let mut download = download();
    let node = download.fleet.servers[0];
    download.fleet.world.at(Duration::from_millis(120), Disturbance::Crash { node });
    download.fleet.world.at(Duration::from_millis(300), Disturbance::Restart { node, state: RestartState::Lost });
    assert!(!download.run(Duration::from_secs(60)), "a download went on at a server that forgot it");
    let mut lost = download.fleet;
    assert!(lost.world.saw(lost.client, |event| matches!(event, SessionEvent::Closed(_))));
    // A new session finds the server where it was, with the identity it had.
    let (client, pki) = (lost.client, &lost.pki);
    let config = pki.client().primary_identity(pki.public_identity(0));
    let session = lost.world.dial(client, node, config, SERVER_NAME).unwrap();
    lost.world.session_mut(client, session).unwrap().open_stream(Dir::Bi).unwrap();
    let welcomed = |world: &mut World| world.session(client, session).is_some_and(|session| session.id().is_some());
    assert!(lost.world.run_until(Duration::from_secs(5), welcomed));
}

#[test]
fn wall_clocks_that_differ_keep_a_secondary_out() {
    let joined = |offset| {
        let mut download = download();
        let node = download.fleet.servers[1];
        download.fleet.world.at(Duration::ZERO, Disturbance::ClockOffset { node, millis: offset });
        assert!(download.run(Duration::from_secs(20)), "the primary alone is enough");
        download.fleet.world.saw(node, |event| *event == SessionEvent::Incoming)
    };
    assert!(joined(10_000));
    assert!(joined(-10_000));
    assert!(!joined(600_000));
    assert!(!joined(-600_000));
}

#[test]
fn node_with_two_addresses_uses_the_preferred_one_of_the_family() {
    let [first, second] = ["10.0.0.1:5000".parse().unwrap(), "10.0.2.1:5000".parse().unwrap()];
    let addresses = vec!["[fd00::1]:5000".parse().unwrap(), first, second];
    let builder = FleetBuilder::new(WorldConfig::null_tls(3)).link(Link::default()).servers(1, |_, _| ());
    let Fleet { mut world, pki, client, servers, .. } = builder.client(|node| node.addresses = addresses).build();
    let server = servers[0];
    let slow = Link::with_delay(Duration::from_millis(100));
    world.set_link_between(second, "10.0.1.1:4433".parse().unwrap(), slow);

    let session = world.dial(client, server, pki.client(), SERVER_NAME).unwrap();
    let stream = world.session_mut(client, session).unwrap().open_stream(Dir::Uni).unwrap();
    assert!(
        world.run_until(Duration::from_secs(1), |world| world.saw(server, |event| *event == SessionEvent::Incoming))
    );
    assert!(world.elapsed() < Duration::from_millis(50));
    let (at_server, _) = world.poll_event(server).unwrap();
    assert_eq!(world.session(server, at_server).unwrap().remote_address(), Some(first));

    world.inject(Disturbance::Prefer { node: client, address: second });
    let data = bytes_at(0, 0..5_000);
    world.session_mut(client, session).unwrap().stream_mut(stream).write(&data).unwrap();
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.session(server, at_server).unwrap().remote_address(), Some(second));
}

#[test]
fn download_in_batches_is_the_same_download() {
    let mut config = WorldConfig::new(7);
    config.receive_every = Duration::from_millis(1);
    let mut download = Bulk::new(config, BYTES, &[Link::default(), Link::default()]);
    assert!(download.run(Duration::from_secs(30)));
    assert_eq!(download.fleet.world.elapsed().subsec_nanos() % 1_000_000, 0);
}
