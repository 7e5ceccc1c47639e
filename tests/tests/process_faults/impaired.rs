//! Paths that carry less than they did, or not what they were given.

use kwik_core::{Dir, PathId};
use kwik_sim::{Disturbance, Ecn, FleetBuilder, Link, NodeConfig, WorldConfig};
use kwik_tests::transfer::{LinksOf, Plan, Transfer, line};

use super::{is_dead, millis, secs, slow_plan};

#[test]
fn largest_datagram_may_shrink_in_mid_transfer() {
    for place in LinksOf::EACH {
        let mut transfer = Transfer::new(slow_plan(4_000_000));
        transfer.run_to(1_000_000);
        let paths = transfer.paths();
        assert!(paths.iter().all(|path| path.mtu == 1_452), "{paths:?}");
        for server in transfer.at(place).to_vec() {
            transfer.world.inject(Disturbance::Mtu { a: transfer.client, b: server, mtu: 1_280 });
        }
        let before = transfer.down(place);
        transfer.run(secs(20));
        let after = transfer.down(place);
        let dropped = (after.lost - after.queue_full) - (before.lost - before.queue_full);
        assert!(dropped > 5, "{place:?}: {dropped} datagrams were too large");
        assert!(dropped < 100 * transfer.at(place).len() as u64, "{place:?}: {dropped} datagrams were too large");
        assert_eq!(transfer.recorder().count(is_dead), 0, "{place:?}");
        assert!(transfer.recorder().longest_stall() < secs(3), "{place:?}: {:?}", transfer.recorder().longest_stall());
    }
}

#[test]
fn largest_datagram_differs_by_path() {
    let mut transfer = Transfer::new(Plan { bytes: 4_000_000, ..Plan::default() });
    for (server, mtu) in [(0, 1_300), (1, 1_472), (2, 1_200)] {
        let link = Link { mtu, ..line() };
        transfer.world.set_link_both(transfer.client, transfer.servers[server], link);
    }
    transfer.run(secs(10));
    let mtus: Vec<_> = transfer.paths().iter().map(|path| (path.id, path.mtu)).collect();
    assert!(mtus[0].0 == PathId(0) && (1_201..=1_300).contains(&mtus[0].1), "{mtus:?}");
    assert_eq!(mtus[1..], [(PathId(1), 1_452), (PathId(2), 1_200)]);
    assert!(transfer.shares().iter().all(|share| *share > 500_000), "{:?}", transfer.shares());
}

/// The datagrams of loopback, over links that carry them and links that do not.
#[test]
fn path_that_begins_with_too_large_datagrams_falls_back() {
    for carries in [65_507, 9_000, 1_472, 1_200] {
        let link = Link { mtu: carries, ..Link::with_rate(100_000_000, millis(5)) };
        let large = |node: &mut NodeConfig| {
            (node.transport.mtu_initial, node.transport.mtu_max) = (Some(65_507), Some(65_507));
        };
        let builder = FleetBuilder::new(WorldConfig::null_tls(1)).link(link).client(large);
        let mut fleet = builder.servers(1, |_, node| large(node)).build();
        let ends = fleet.connect();
        let (stream, there) = fleet.open(ends, Dir::Uni);
        let (begin, sent) = (fleet.world.elapsed(), vec![7; 2_000_000]);
        fleet.write_all(fleet.client, ends.client, stream, &sent);
        fleet.finish(fleet.client, ends.client, stream);
        assert_eq!(fleet.read_to_end(fleet.servers[0], ends.primary, there), sent);
        let took = fleet.world.elapsed() - begin;
        let mtu = fleet.world.session(fleet.client, ends.client).unwrap().stats().paths[0].mtu;
        assert_eq!(mtu, if carries == 65_507 { 65_507 } else { 1_200 });
        assert!(took < secs(5), "{carries} bytes: {took:?}");
    }
}

/// Each path has its own share of datagrams that come late, twice or damaged, up to 30 % each.
#[test]
fn paths_that_mangle_datagrams_are_only_slower() {
    for seed in 0..12 {
        let plan = Plan { seed, rejoin: Some(millis(200)), ..Plan::default() };
        let usual = Transfer::new(plan.clone()).run(secs(10));
        let mut transfer = Transfer::new(plan);
        for (number, server) in (0..).zip(transfer.servers.clone()) {
            let share = |salt: u64| ((seed * 7 + number * 11 + salt * 13) % 31) as f64 / 100.0;
            let link = Link {
                reordering: share(1),
                duplication: share(2),
                corruption: share(3),
                ecn: if (seed + number) % 2 == 0 { Ecn::Bleach } else { Ecn::Pass },
                ..line()
            };
            transfer.world.set_link_both(transfer.client, server, link);
        }
        let took = transfer.run(secs(60));
        let stats = transfer.down(LinksOf::All);
        assert!(stats.reordered > 10 && stats.duplicated > 10 && stats.corrupted > 10, "seed {seed}: {stats:?}");
        assert_eq!(transfer.shares().iter().sum::<u64>(), 2_000_000, "seed {seed}");
        assert!(took >= usual, "seed {seed}: {took:?}, and {usual:?} undisturbed");
    }
}

#[test]
fn path_that_flaps_every_second_for_ten_minutes_costs_few_grants() {
    let link = Link { rate: Some(200_000), ..line() };
    let plan = Plan { link, range: 16 * 1024, ..Plan::default() };
    let mut transfer = Transfer::new(Plan { bytes: 40_000_000, ..plan });
    for turn in 2..602 {
        transfer.cut(LinksOf::Secondary, secs(turn), millis(500));
    }
    transfer.world.run_for(secs(602));
    let shares = transfer.shares();
    let recorder = transfer.recorder();
    assert_eq!(recorder.closed, None);
    // Half of all probes are lost, and a path dies that loses some in a row. It comes back.
    let deaths = recorder.count(is_dead);
    assert!(deaths < 20, "{deaths}");
    assert!(recorder.losses.len() <= 2 * deaths, "{} losses, {deaths} deaths", recorder.losses.len());
    assert!(shares[1] * 3 > shares[2], "{shares:?}");
    assert!(recorder.longest_stall() < secs(5), "{:?}", recorder.longest_stall());
}

#[test]
fn path_that_dies_every_ten_seconds_costs_what_was_under_way_on_it() {
    let link = Link { rate: Some(200_000), ..line() };
    let mut transfer = Transfer::new(Plan { link, range: 16 * 1024, bytes: 20_000_000, ..Plan::default() });
    for round in 0..30 {
        transfer.cut(LinksOf::Secondary, secs(10 * round + 5), secs(5));
    }
    transfer.world.run_for(secs(300));
    let recorder = transfer.recorder();
    let deaths = recorder.count(is_dead);
    // A path that is only suspect when its link comes back goes on.
    assert!(deaths > 10, "{deaths}");
    assert!(recorder.losses.len() <= 2 * deaths, "{} losses, {deaths} deaths", recorder.losses.len());
    assert_eq!(recorder.closed, None);
    assert!(recorder.longest_stall() < secs(5), "{:?}", recorder.longest_stall());
}
