//! How sessions and paths begin over bad networks.

use kwik_core::SessionEvent;
use kwik_sim::{Disturbance, Link, Rebind, TlsMode};
use kwik_tests::transfer::{LinksOf, Plan, Transfer};

use super::{bursts_of_three, millis, secs};

/// Fifty sessions of one range each, which a secondary writes; both connections are made for each of them.
fn fifty() -> Plan {
    Plan { secondaries: 1, sessions: 50, bytes: 1_000, primary_writes: false, redials: true, ..Plan::default() }
}

/// Nearly a third of all datagrams is spoilt, and every session carries its bytes in the end.
fn fifty_sessions(change: impl Fn(&mut Link)) {
    for place in LinksOf::EACH {
        let mut transfer = Transfer::new(fifty());
        transfer.change(place, &change);
        // Fifty connections within 300 s, or a hundred within twice as much.
        transfer.run(if place == LinksOf::All { secs(600) } else { secs(300) });
        assert_eq!(transfer.recorder().sessions_done, 50);
        let (up, down) = (transfer.up(place), transfer.down(place));
        let spoilt = up.lost + up.corrupted + down.lost + down.corrupted;
        assert!(spoilt * 4 > up.sent + down.sent, "{place:?}: {up:?} {down:?}");
    }
}

#[test]
fn fifty_sessions_begin_under_random_loss_of_thirty_percent() {
    fifty_sessions(|link| link.loss = 0.3);
}

#[test]
fn fifty_sessions_begin_under_bursts_of_three_lost_datagrams() {
    fifty_sessions(|link| link.bursts = Some(bursts_of_three(0.3)));
}

#[test]
fn fifty_sessions_begin_under_corruption_of_thirty_percent() {
    fifty_sessions(|link| link.corruption = 0.3);
}

/// When the first byte was read, and what servers had sent until the session was welcomed.
fn begin(plan: Plan) -> (std::time::Duration, Transfer) {
    let mut transfer = Transfer::new(plan);
    let client = transfer.client;
    assert!(transfer.world.run_until(secs(10), |world| world.saw(client, |event| *event == SessionEvent::Welcomed)));
    (transfer.world.elapsed(), transfer)
}

// [P-2.1]
#[test]
fn address_that_must_be_proved_first_costs_one_round_trip_on_each_path() {
    for tls in [TlsMode::Null, TlsMode::Real] {
        let plan = Plan { tls, ..Plan::default() };
        let (usual, mut plain) = begin(plan.clone());
        let mut limits = plan.limits.clone();
        limits.incoming_before_retry = 0;
        let (took, mut proved) = begin(Plan { limits, ..plan });
        // The Retry itself is a small datagram: its time on the wire is well below a millisecond.
        let extra = took - usual;
        assert!(extra >= millis(30) && extra < millis(33), "{extra:?}");
        let joined = |transfer: &mut Transfer| {
            transfer.run(secs(10));
            let joined = transfer.recorder().paths.iter().map(|(at, _)| *at).collect::<Vec<_>>();
            assert_eq!(joined.len(), 2);
            joined[1]
        };
        let extra = joined(&mut proved) - joined(&mut plain);
        // Once for the primary and once for the secondaries, which are dialled together.
        assert!(extra >= millis(60) && extra < millis(66), "{extra:?}");
    }
}

// [P-2.2]
#[test]
fn client_that_comes_back_makes_the_whole_handshake_again() {
    let plan = Plan { tls: TlsMode::Real, secondaries: 0, sessions: 5, bytes: 1_000, ..Plan::default() };
    let mut transfer = Transfer::new(plan);
    let (client, server) = (transfer.client, transfer.servers[0]);
    let mut sent = Vec::new();
    for session in 1..=5 {
        let before = transfer.world.link_stats(server, client).sent_bytes;
        let begun = transfer.world.elapsed();
        let done = |transfer: &Transfer| transfer.recorder().sessions_done >= session;
        while !done(&transfer) {
            transfer.world.run_for(millis(1));
            assert!(transfer.world.elapsed() < secs(20), "session {session} does not end");
        }
        let took = transfer.world.elapsed() - begun;
        sent.push((transfer.world.link_stats(server, client).sent_bytes - before, took));
        transfer.world.run_for(millis(50));
    }
    let (first, _) = sent[0];
    for (bytes, took) in &sent[1..] {
        // A certificate is some hundred bytes: whoever resumed would not get it again.
        assert!(bytes + 200 > first, "{sent:?}");
        assert!(*took >= millis(60), "answered before the handshake was done: {sent:?}");
    }
}

/// QUIC has no migration before the handshake is done: the server answers to where the client was until it gives up,
/// and takes what the client still repeats for a new beginning.
#[test]
fn client_that_moves_during_its_handshake_is_served_in_the_end() {
    for to in [Rebind::Port, Rebind::Address] {
        let mut transfer = Transfer::new(Plan::default());
        let node = transfer.client;
        // The first datagram is at the server, and its answer is on its way.
        transfer.world.at(millis(20), Disturbance::Rebind { node, to });
        let took = transfer.run(secs(20));
        assert!(took > secs(5), "{to:?}: {took:?}");
    }
}

// [P-2.1]
#[test]
fn server_sends_three_times_what_it_got_until_the_client_proves_its_address() {
    for tls in [TlsMode::Null, TlsMode::Real] {
        let mut transfer = Transfer::new(Plan { tls, secondaries: 1, primary_writes: false, ..Plan::default() });
        for place in [LinksOf::Primary, LinksOf::Secondary] {
            // The first datagram to the server arrives, the next six do not.
            let (client, server) = (transfer.client, transfer.at(place)[0]);
            let up = |world: &kwik_sim::World| world.link_stats(client, server).sent;
            assert!(transfer.world.run_until(secs(5), |world| up(world) == 1), "{place:?}");
            let received = transfer.up(place).sent_bytes;
            assert_eq!(received, 1_200);
            transfer.world.inject(Disturbance::Blackhole { from: client, to: server });
            let dropped = transfer.world.run_until(secs(5), |world| up(world) >= 7);
            assert!(dropped, "{place:?}: {:?}", transfer.up(place));
            transfer.world.run_for(secs(1));
            let sent = transfer.down(place).sent_bytes;
            assert!(sent > received, "{place:?}: {sent} bytes reach no limit");
            // A datagram that begins below the limit may end beyond it.
            assert!(sent < 3 * received + 1_200, "{place:?}: {sent} bytes to an address that sent {received}");
            transfer.world.inject(Disturbance::Heal { a: client, b: server });
        }
        transfer.run(secs(20));
        assert_eq!(transfer.shares(), [0, 2_000_000]);
    }
}
