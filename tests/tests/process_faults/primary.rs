//! Primaries that die: an error at the client, in time, and what was granted still comes.

use bytes::Bytes;
use kwik_core::{Dir, ReadError, SessionError, SessionEvent};
use kwik_sim::{Disturbance, RestartState, TlsMode};
use kwik_tests::transfer::{Plan, Transfer};
use kwik_tests::{Ends, Fleet, pattern};

use super::{millis, secs, slow_plan};

/// Crashes the primary now; the client is told that it is gone, in time.
fn crash_and_await_the_error(fleet: &mut Fleet, ends: Ends) {
    let (client, primary) = (fleet.client, fleet.servers[0]);
    let before = fleet.world.elapsed();
    fleet.world.crash(primary);
    let timed_out = SessionEvent::Closed(SessionError::TimedOut);
    assert!(fleet.world.run_until(secs(40), |world| world.saw(client, |event| *event == timed_out)));
    let took = fleet.world.elapsed() - before;
    assert!((secs(28)..secs(33)).contains(&took), "{took:?}");
    let session = fleet.world.session_mut(client, ends.client).expect("a session");
    assert_eq!(session.close_reason(), Some(&SessionError::TimedOut));
    assert!(fleet.world.run_until(secs(40), |world| {
        world
            .nodes()
            .collect::<Vec<_>>()
            .into_iter()
            .all(|node| world.is_crashed(node) || world.endpoint(node).is_idle())
    }));
}

// [P-9.4]
#[test]
fn primary_that_dies_before_it_grants_anything_is_an_error() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (_, secondary) = fleet.join(ends, 1);
    let (here, _) = fleet.open(ends, Dir::Bi);
    crash_and_await_the_error(&mut fleet, ends);
    let mut session = fleet.world.session_mut(fleet.client, ends.client).unwrap();
    assert_eq!(session.stream_mut(here).read(1), Err(ReadError::SessionClosed));
    assert!(fleet.world.session(fleet.servers[1], secondary).unwrap().close_reason().is_some());
}

// [P-9.4]
#[test]
fn primary_that_dies_while_a_path_is_added_is_an_error() {
    // The command is not yet at the client; the secondary's handshake is under way; JOIN is on its way.
    for after in [5, 15, 35] {
        let mut fleet = Fleet::new(2);
        let ends = fleet.connect();
        let target = fleet.target(1);
        fleet.add_path(ends, target);
        fleet.world.run_for(millis(after));
        crash_and_await_the_error(&mut fleet, ends);
    }
}

// [P-9.4]
#[test]
fn primary_that_dies_leaves_the_client_what_it_granted() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let (client, primary, node) = (fleet.client, fleet.servers[0], fleet.servers[1]);
    let mut session = fleet.world.session_mut(primary, ends.primary).unwrap();
    session.stream_mut(there).delegate(path, 200_000, Bytes::new()).unwrap();
    let part = fleet.accept(1, secondary, Dir::Bi);
    fleet.world.crash(primary);
    fleet.world.run_for(secs(5));
    fleet.write_all(node, secondary, part, &pattern(0..200_000));
    fleet.world.run_for(secs(1));
    assert!(fleet.read_available(client, ends.client, here) == pattern(0..200_000));
    let before = fleet.world.elapsed();
    let timed_out = SessionEvent::Closed(SessionError::TimedOut);
    assert!(fleet.world.run_until(secs(40), |world| world.saw(client, |event| *event == timed_out)));
    assert!(fleet.world.elapsed() - before < secs(27));
}

#[test]
fn primary_that_dies_in_mid_transfer_ends_it_with_an_error() {
    for tls in [TlsMode::Null, TlsMode::Real] {
        let mut transfer = Transfer::new(Plan { tls, ..slow_plan(3_000_000) });
        transfer.run_to(500_000);
        let (primary, begin) = (transfer.servers[0], transfer.world.elapsed());
        transfer.world.crash(primary);
        transfer.world.run_for(secs(40));
        let (at, error) = transfer.recorder().closed.clone().expect("an end");
        assert_eq!(error, SessionError::TimedOut);
        assert!((secs(28)..secs(33)).contains(&(at - begin)), "{:?}", at - begin);
        let nodes = [transfer.client, transfer.servers[1], transfer.servers[2]];
        assert!(transfer.world.run_until(secs(40), |world| nodes.iter().all(|node| world.endpoint(*node).is_idle())));
    }
}

/// Whichever direction is gone: both ends are told, and neither waits for the other's idle timeout more than once. An idle
/// timeout begins anew with the first datagram that is sent after the last that came (RFC 9000 §10.1), which may be a probe
/// of QUIC's up to another 30 s later.
// [P-9.4]
#[test]
fn primary_that_hears_or_is_heard_no_more_ends_the_session() {
    for is_heard in [false, true] {
        let mut transfer = Transfer::new(slow_plan(3_000_000));
        transfer.run_to(500_000);
        let (client, primary, begin) = (transfer.client, transfer.servers[0], transfer.world.elapsed());
        let (from, to) = if is_heard { (client, primary) } else { (primary, client) };
        transfer.world.inject(Disturbance::Blackhole { from, to });
        transfer.world.run_for(secs(100));
        let recorder = transfer.recorder();
        let ends = [recorder.closed.clone().expect("an end"), recorder.closed_at_primary.clone().expect("another")];
        for (at, _) in ends {
            assert!((secs(28)..secs(92)).contains(&(at - begin)), "heard {is_heard}: {:?}", at - begin);
        }
    }
}

/// A new process knows nothing of the session; its client is told within the time that silence would take too.
#[test]
fn primary_that_comes_back_without_its_memory_ends_the_session() {
    let mut transfer = Transfer::new(slow_plan(3_000_000));
    transfer.run_to(500_000);
    let (node, begin) = (transfer.servers[0], transfer.world.elapsed());
    transfer.world.inject(Disturbance::Restart { node, state: RestartState::Lost });
    transfer.world.run_for(secs(40));
    let (at, _) = transfer.recorder().closed.clone().expect("an end");
    assert!(at - begin < secs(33), "{:?}", at - begin);
}
