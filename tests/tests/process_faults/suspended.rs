//! Nodes that stop for a while, or cannot send.

use std::time::Duration;

use kwik_core::{PathEvent, SessionError};
use kwik_sim::{Delivery, Disturbance, NodeId, TraceKind};
use kwik_tests::transfer::{Plan, Transfer};

use super::{is_dead, is_joined, millis, secs, slow_plan};

const HOUR: Duration = secs(60 * 60);

/// Suspends a node in mid-transfer; returns when that was.
fn suspend(transfer: &mut Transfer, node: NodeId, span: Duration) -> Duration {
    transfer.run_to(500_000);
    transfer.world.inject(Disturbance::Pause { node, span });
    transfer.world.elapsed()
}

// [P-9.3]
#[test]
fn client_that_slept_for_ten_seconds_blames_nobody() {
    let mut transfer = Transfer::new(slow_plan(3_000_000));
    let client = transfer.client;
    let begin = suspend(&mut transfer, client, secs(10));
    let took = transfer.run(secs(40));
    assert!(took > begin + secs(10), "{took:?}");
    let recorder = transfer.recorder();
    assert_eq!(recorder.count(is_dead), 0, "{:?}", recorder.paths);
    assert_eq!(recorder.losses, []);
}

#[test]
fn client_that_slept_for_an_hour_finds_its_session_over() {
    let mut transfer = Transfer::new(slow_plan(3_000_000));
    let client = transfer.client;
    let begin = suspend(&mut transfer, client, HOUR);
    transfer.world.run_for(HOUR + secs(60));
    let (at, _) = transfer.recorder().closed.clone().expect("an end");
    assert!(at - begin >= HOUR && at - begin < HOUR + secs(1), "{:?}", at - begin);
    let (at, error) = transfer.recorder().closed_at_primary.clone().expect("an end at the primary too");
    assert_eq!(error, SessionError::TimedOut);
    assert!(at - begin < secs(33), "{:?}", at - begin);
    for node in transfer.world.nodes().collect::<Vec<_>>() {
        assert!(transfer.world.endpoint(node).is_idle(), "{node}");
    }
}

#[test]
fn primary_that_slept_for_ten_seconds_goes_on() {
    let mut transfer = Transfer::new(slow_plan(3_000_000));
    let primary = transfer.servers[0];
    let begin = suspend(&mut transfer, primary, secs(10));
    let took = transfer.run(secs(40));
    assert!(took > begin + secs(10), "{took:?}");
    assert_eq!(transfer.recorder().count(is_dead), 0);
    assert_eq!(transfer.recorder().losses, []);
}

#[test]
fn primary_that_slept_for_an_hour_finds_its_session_over() {
    let mut transfer = Transfer::new(slow_plan(3_000_000));
    let primary = transfer.servers[0];
    let begin = suspend(&mut transfer, primary, HOUR);
    transfer.world.run_for(HOUR + secs(60));
    let (at, error) = transfer.recorder().closed.clone().expect("an end");
    assert_eq!(error, SessionError::TimedOut);
    assert!((secs(28)..secs(33)).contains(&(at - begin)), "{:?}", at - begin);
    let (at, _) = transfer.recorder().closed_at_primary.clone().expect("an end at the primary too");
    assert!(at - begin < HOUR + secs(1), "{:?}", at - begin);
    for node in transfer.world.nodes().collect::<Vec<_>>() {
        assert!(transfer.world.endpoint(node).is_idle(), "{node}");
    }
}

#[test]
fn secondary_that_slept_is_replaced_and_joins_again() {
    for span in [secs(10), HOUR] {
        let mut transfer = Transfer::new(Plan { rejoin: Some(secs(8)), ..slow_plan(12_000_000) });
        let node = transfer.servers[1];
        let begin = suspend(&mut transfer, node, span);
        transfer.run(secs(60));
        transfer.world.run_for(span + secs(60));
        let recorder = transfer.recorder();
        let (at, _) = recorder.paths.iter().find(|(_, event)| is_dead(event)).expect("it died");
        assert!(*at - begin < millis(3_500), "{:?}", *at - begin);
        assert!(!recorder.losses.is_empty());
        assert!(recorder.count(is_joined) > 2, "{span:?}: it never came back");
        let others = |event: &PathEvent| matches!(event, PathEvent::Dead { path, .. } if path.0 == 2);
        assert_eq!(recorder.count(others), 0);
        assert_eq!(recorder.closed, None);
    }
}

#[test]
fn node_that_cannot_send_for_a_second_loses_nothing() {
    for index in 0..3 {
        let mut transfer = Transfer::new(slow_plan(3_000_000));
        transfer.world.trace_mut().keep(usize::MAX);
        let node = [transfer.client, transfer.servers[0], transfer.servers[1]][index];
        transfer.run_to(500_000);
        transfer.world.inject(Disturbance::SendErrors { node, span: secs(1) });
        transfer.run(secs(20));
        let refused = |kind: &TraceKind| matches!(kind, TraceKind::Sent { delivery: Delivery::SendError, .. });
        let count = transfer.world.trace().events().filter(|event| refused(&event.kind)).count();
        assert!(count > 3, "{node}: {count}");
        assert_eq!(transfer.recorder().count(is_dead), 0, "{node}");
        assert_eq!(transfer.recorder().losses, [], "{node}");
    }
}
