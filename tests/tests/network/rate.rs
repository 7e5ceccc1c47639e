//! Rates and round trips, alike and unlike.

use kwik_core::{Limits, PathEvent, PathId};
use kwik_sim::{Link, TlsMode};
use kwik_tests::transfer::{LinksOf, Plan, Transfer, line};

use super::{at_each_place, millis, secs};

#[test]
fn every_server_takes_its_part_of_a_transfer() {
    for tls in [TlsMode::Null, TlsMode::Real] {
        for ipv6 in [false, true] {
            let mut transfer = Transfer::new(Plan { tls, ipv6, ..Plan::default() });
            assert_eq!(transfer.world.address(transfer.client).is_ipv6(), ipv6);
            transfer.run(millis(1_500));
            let shares = transfer.shares();
            assert_eq!(shares.iter().sum::<u64>(), 2_000_000, "{shares:?}");
            assert!(shares.iter().all(|share| *share > 300_000), "{shares:?}");
            assert_eq!(transfer.recorder().losses, []);
        }
    }
}

#[test]
fn three_links_carry_nearly_three_times_as_much_as_one() {
    let goodput = |secondaries| {
        let bytes = 8_000_000;
        let took = Transfer::new(Plan { secondaries, bytes, ..Plan::default() }).run(secs(20));
        (bytes * 8) as f64 / took.as_secs_f64()
    };
    let (one, three) = (goodput(0), goodput(2));
    assert!(one > 0.85 * 10e6, "{one} bits a second over one link");
    assert!(three > 0.7 * 30e6, "{three} bits a second over three links");
}

#[test]
fn round_trip_of_a_second_and_a_half_delays_and_breaks_nothing() {
    let plan = Plan { bytes: 10_000_000, ..Plan::default() };
    at_each_place(
        &plan,
        secs(60),
        |link| link.delay = millis(750),
        |transfer, place, took| {
            // The handshake and one answer at least, wherever the primary is far away.
            assert!(place == LinksOf::Secondary || took > secs(3), "{place:?}: {took:?}");
            let slow = transfer.paths().iter().filter(|path| path.rtt > secs(1)).count();
            assert_eq!(slow, transfer.at(place).len(), "{place:?}");
            assert_eq!(transfer.recorder().count(|event| matches!(event, PathEvent::Dead { .. })), 0, "{place:?}");
        },
    );
}

#[test]
fn six_hundred_streams_pass_through_a_limit_of_256() {
    let mut limits = Limits::default();
    limits.streams_bidi_max = 256;
    let plan = Plan { streams: 600, bytes: 3_000, limits, ..Plan::default() };
    at_each_place(
        &plan,
        secs(20),
        |link| link.loss = 0.01,
        |transfer, place, _| {
            assert_eq!(transfer.recorder().downloads.len(), 600);
            let ends: Vec<_> = transfer.recorder().downloads.values().filter_map(|download| download.ended).collect();
            assert!(ends[0] < ends[599], "{place:?}: the first stream waited for the last");
            assert!(transfer.shares().iter().all(|share| *share > 0), "{place:?}: {:?}", transfer.shares());
        },
    );
}

#[test]
fn paths_of_5_50_and_300_ms_are_used_together() {
    let mut transfer = Transfer::new(Plan { bytes: 6_000_000, ahead: 4, ..Plan::default() });
    for (server, rtt) in [(0, 50), (1, 5), (2, 300)] {
        let link = Link { delay: millis(rtt) / 2, ..line() };
        transfer.world.set_link_both(transfer.client, transfer.servers[server], link);
    }
    let took = transfer.run(secs(10));
    let shares = transfer.shares();
    assert!(shares[1] > shares[2], "the nearest server brought less than the farthest: {shares:?}");
    assert!(shares.iter().all(|share| *share > 200_000), "{shares:?}");
    // One server alone has 4.8 s to send.
    assert!(took < millis(3_600), "{took:?}");
}

#[test]
fn path_at_a_hundredth_of_the_rate_holds_up_its_own_range_only() {
    let plan =
        Plan { streams: 12, bytes: 300_000, range: 16 * 1024, ahead: 8, primary_writes: false, ..Plan::default() };
    let mut transfer = Transfer::new(plan);
    transfer.change(LinksOf::Secondary, |link| link.rate = Some(100_000));
    transfer.run(secs(20));
    let shares = transfer.shares();
    let mut ends: Vec<_> = transfer.recorder().downloads.values().filter_map(|download| download.ended).collect();
    ends.sort();
    assert!(shares[1] > 0 && shares[1] * 10 < shares[2], "{shares:?}");
    // 3.6 MB at 10 Mbit/s are 2.9 s: all but the streams that the slow server has a part of end by then.
    assert!(ends[8] < secs(5), "{ends:?}");
}

#[test]
fn slow_primary_does_not_hold_up_its_secondaries() {
    let mut transfer = Transfer::new(Plan { primary_writes: false, ..Plan::default() });
    transfer.change(LinksOf::Primary, |link| link.rate = Some(100_000));
    let took = transfer.run(secs(20));
    assert!(took < secs(5), "{took:?}");
    assert_eq!(transfer.recorder().count(|event| matches!(event, PathEvent::Suspect(PathId(1 | 2)))), 0);
}
