//! Links that carry nothing for a while, and clients that move.

use kwik_core::{DeadReason, PathEvent, SessionError, TransportCode};
use kwik_sim::{Disturbance, Link, Rebind, TlsMode};
use kwik_tests::transfer::{LinksOf, Plan, Transfer, line};

use super::{at_each_place, millis, secs};

fn is_dead(event: &PathEvent) -> bool {
    matches!(event, PathEvent::Dead { .. })
}

/// Over links of 2 Mbit/s.
fn slow_plan(bytes: u64) -> Plan {
    Plan { bytes, link: Link { rate: Some(2_000_000), ..line() }, ..Plan::default() }
}

#[test]
fn black_holes_of_two_seconds_every_seven_are_waited_out() {
    for place in LinksOf::EACH {
        let mut transfer = Transfer::new(slow_plan(9_000_000));
        for round in 0..6 {
            transfer.cut(place, secs(5 + 7 * round), secs(2));
        }
        let took = transfer.run(secs(40));
        assert!(took > secs(12), "{place:?}: over before the second black hole, after {took:?}");
        let stats = transfer.down(place);
        assert!(stats.lost > stats.queue_full, "{place:?}: {stats:?}");
        assert_eq!(transfer.recorder().count(is_dead), 0, "{place:?}");
    }
}

#[test]
fn primary_that_is_gone_for_two_seconds_stops_nothing_that_was_granted() {
    let mut transfer = Transfer::new(Plan { ahead: 15, ordered: false, primary_writes: false, ..slow_plan(2_000_000) });
    transfer.run_to(50_000);
    let begin = transfer.world.elapsed();
    transfer.cut(LinksOf::Primary, begin, secs(2));
    transfer.world.run_for(secs(2));
    let meanwhile = transfer.recorder().received();
    transfer.run(secs(20));
    assert!(meanwhile > 600_000, "only {meanwhile} bytes came without the primary");
    assert_eq!(transfer.recorder().losses, []);
}

#[test]
fn secondary_that_is_gone_for_two_seconds_keeps_its_ranges() {
    let mut transfer = Transfer::new(slow_plan(3_000_000));
    transfer.cut(LinksOf::Secondary, secs(2), secs(2));
    transfer.run(secs(20));
    let recorder = transfer.recorder();
    assert_eq!(recorder.count(|event| matches!(event, PathEvent::Suspect(_))), 1);
    assert_eq!(recorder.count(|event| matches!(event, PathEvent::Recovered(_))), 1);
    assert_eq!(recorder.losses, []);
}

#[test]
fn one_path_that_lives_is_enough() {
    let mut transfer = Transfer::new(Plan { rejoin: None, ..slow_plan(3_000_000) });
    transfer.run_to(200_000);
    let begin = transfer.world.elapsed();
    let right = transfer.servers[1..].to_vec();
    transfer.world.inject(Disturbance::Partition { left: vec![transfer.client], right });
    transfer.run(secs(30));
    let recorder = transfer.recorder();
    let dead = recorder.paths.iter().filter(|(_, event)| is_dead(event));
    for (at, _) in dead.clone() {
        assert!(*at - begin < millis(3_500), "noticed after {:?}", *at - begin);
    }
    assert_eq!(dead.count(), 2);
    assert!(!recorder.losses.is_empty(), "nothing was under way on the paths that died");
}

#[test]
fn no_path_that_lives_is_an_error_and_no_silence() {
    let mut transfer = Transfer::new(slow_plan(3_000_000));
    transfer.run_to(200_000);
    let begin = transfer.world.elapsed();
    let right = transfer.servers.clone();
    transfer.world.inject(Disturbance::Partition { left: vec![transfer.client], right });
    transfer.world.run_for(secs(60));
    let (at, error) = transfer.recorder().closed.clone().expect("an end");
    assert_eq!(error, SessionError::TimedOut);
    let took = at - begin;
    assert!((secs(28)..secs(33)).contains(&took), "{took:?}");
    assert!(transfer.world.endpoint(transfer.client).is_idle());
}

/// Clogs the paths one after another and unclogs them in another order.
#[test]
fn paths_that_clog_in_turn_pass_the_transfer_on() {
    let orders = [([0, 1, 2], [2, 0, 1]), ([2, 1, 0], [1, 2, 0]), ([1, 2, 0], [1, 0, 2])];
    for (clog, unclog) in orders {
        let mut transfer = Transfer::new(slow_plan(4_000_000));
        let (client, servers) = (transfer.client, transfer.servers.clone());
        for (turn, server) in (0..).zip(clog) {
            let right = vec![servers[server]];
            transfer.world.at(millis(1_500 + 1_000 * turn), Disturbance::Partition { left: vec![client], right });
        }
        for (turn, server) in (0..).zip(unclog) {
            transfer.world.at(millis(5_000 + 1_000 * turn), Disturbance::Heal { a: client, b: servers[server] });
        }
        let took = transfer.run(secs(30));
        assert!(took > secs(5), "over before all paths were clogged, after {took:?}");
        let recorder = transfer.recorder();
        assert!(recorder.longest_stall() > secs(1), "{:?}", recorder.longest_stall());
        assert!(recorder.longest_stall() < secs(6), "{:?}", recorder.longest_stall());
    }
}

fn rebind(plan: Plan, to: Rebind, first: u64, every: u64, least: u64) {
    let mut transfer = Transfer::new(plan);
    let node = transfer.client;
    for round in 0..20 {
        transfer.world.at(millis(first + every * round), Disturbance::Rebind { node, to });
    }
    let before = transfer.world.address(node);
    let took = transfer.run(secs(40));
    let after = transfer.world.address(node);
    assert!(took > millis(first + every * (least - 1)), "the client moved too seldom within {took:?}");
    assert_eq!(before.ip() == after.ip(), to == Rebind::Port);
    let recorder = transfer.recorder();
    assert_eq!(recorder.count(is_dead), 0, "{:?}", recorder.paths);
    assert!(recorder.longest_stall() < secs(1), "{:?}", recorder.longest_stall());
}

#[test]
fn client_that_moves_every_five_seconds_keeps_its_session() {
    for to in [Rebind::Port, Rebind::Address] {
        rebind(slow_plan(6_000_000), to, 1_000, 5_000, 2);
        rebind(Plan { tls: TlsMode::Real, ..slow_plan(6_000_000) }, to, 1_000, 5_000, 2);
    }
}

#[test]
fn client_that_moves_every_second_keeps_its_session() {
    for to in [Rebind::Port, Rebind::Address] {
        rebind(slow_plan(6_000_000), to, 1_000, 1_000, 5);
    }
}

/// Secondaries that are gone for longer than a path lives come back on new paths.
#[test]
fn secondaries_that_were_gone_for_long_join_again() {
    let mut transfer = Transfer::new(slow_plan(8_000_000));
    transfer.cut(LinksOf::Secondary, secs(2), secs(6));
    transfer.run(secs(40));
    let recorder = transfer.recorder();
    let timed_out = |event: &PathEvent| matches!(event, PathEvent::Dead { reason: DeadReason { code, .. }, .. } if *code == TransportCode::TIMED_OUT.into());
    assert_eq!(recorder.count(timed_out), 1);
    assert_eq!(recorder.count(|event| matches!(event, PathEvent::Joined(_))), 3);
}

#[test]
fn jitter_and_reordering_cost_no_range() {
    let change = |link: &mut Link| {
        link.jitter = millis(10);
        link.reordering = 0.05;
    };
    at_each_place(&Plan::default(), secs(10), change, |transfer, place, _| {
        assert!(transfer.down(place).reordered > 10, "{place:?}");
        assert_eq!(transfer.recorder().losses, [], "{place:?}");
    });
}
