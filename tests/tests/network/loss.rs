//! Datagrams that are lost, damaged or marked.

use kwik_core::PathEvent;
use kwik_sim::{Ecn, Link, TlsMode};
use kwik_tests::transfer::{LinksOf, Plan, Transfer};

use super::{at_each_place, bursts_of_three, millis, secs};

/// Loses or damages 2 % of all datagrams in mid-transfer; no path may die of that.
fn two_percent(change: impl Fn(&mut Link), happened: impl Fn(&Transfer, LinksOf) -> u64) {
    let plan = Plan { bytes: 4_000_000, ..Plan::default() };
    at_each_place(&plan, secs(10), change, |transfer, place, _| {
        let spoilt = happened(transfer, place);
        assert!(spoilt >= 5, "{place:?}: only {spoilt} datagrams were spoilt");
        assert_eq!(transfer.recorder().count(|event| matches!(event, PathEvent::Dead { .. })), 0, "{place:?}");
        assert_eq!(transfer.recorder().losses, [], "{place:?}");
    });
}

#[test]
fn random_loss_of_two_percent_costs_no_range() {
    let random = |transfer: &Transfer, place| transfer.down(place).lost - transfer.down(place).queue_full;
    two_percent(|link| link.loss = 0.02, random);
}

#[test]
fn bursts_of_three_lost_datagrams_cost_no_range() {
    let random = |transfer: &Transfer, place| transfer.down(place).lost - transfer.down(place).queue_full;
    two_percent(|link| link.bursts = Some(bursts_of_three(0.02)), random);
}

#[test]
fn corruption_of_two_percent_costs_no_range() {
    two_percent(|link| link.corruption = 0.02, |transfer, place| transfer.down(place).corrupted);
}

#[test]
fn congestion_that_is_marked_costs_no_datagram() {
    let plan = Plan { bytes: 4_000_000, ..Plan::default() };
    let drops = |ecn: Ecn, place: LinksOf| {
        let mut transfer = Transfer::new(plan.clone());
        transfer.change(place, |link| link.ecn = ecn);
        let took = transfer.run(secs(20));
        (transfer.down(place), took)
    };
    for place in LinksOf::EACH {
        let (unmarked, usual) = drops(Ecn::Pass, place);
        let (marked, took) = drops(Ecn::MarkAfter(millis(5)), place);
        assert!(marked.marked > 0 && unmarked.marked == 0, "{place:?}");
        // BBR may leave the queue short without being told.
        assert!(marked.queue_full * 2 <= unmarked.queue_full, "{place:?}: {marked:?}, and without marks {unmarked:?}");
        assert!(took < usual * 2, "{place:?}: {took:?}, and without marks {usual:?}");
        let (bleached, _) = drops(Ecn::Bleach, place);
        assert_eq!(bleached.marked, 0);
    }
}

#[test]
fn keys_change_under_loss_and_corruption() {
    // QUIC changes its keys within the first 1,000 packets of a connection, to find out early who cannot do it.
    let plan = Plan { tls: TlsMode::Real, bytes: 12_000_000, ..Plan::default() };
    let change = |link: &mut Link| (link.loss, link.corruption) = (0.01, 0.01);
    at_each_place(&plan, secs(30), change, |transfer, place, _| {
        for server in transfer.servers.clone() {
            let sent = transfer.world.link_stats(server, transfer.client).sent;
            assert!(sent > 1_000, "{place:?}: {sent} packets are too few to need other keys");
        }
        assert!(transfer.down(place).corrupted > 5, "{place:?}");
        assert_eq!(transfer.recorder().count(|event| matches!(event, PathEvent::Dead { .. })), 0, "{place:?}");
    });
}
