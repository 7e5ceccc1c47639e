//! Secondaries that crash, restart or fall silent while they have ranges to write.

use std::time::Duration;

use kwik_core::{PathEvent, PathId, SessionError};
use kwik_sim::{Disturbance, RestartState};
use kwik_tests::transfer::{Plan, Recorder, Transfer};

use super::{is_dead, is_joined, millis, secs, slow_plan};

/// One stream in ranges of 300 KB, which two secondaries write.
fn big_ranges() -> Plan {
    let (range, ahead, rejoin) = (300_000, 1, None);
    Plan { range, ahead, rejoin, ordered: false, primary_writes: false, ..slow_plan(3_000_000) }
}

/// What is told to be missing of each lost range, and what came of it, are the range.
fn losses_are_exact(recorder: &Recorder) {
    for loss in &recorder.losses {
        let missing: u64 = loss.missing.iter().map(|part| part.end - part.start).sum();
        let came = recorder.brought_of(loss.path, loss.stream, &loss.range);
        assert_eq!(came + missing, loss.range.end - loss.range.start, "{loss:?}");
        let twice: u64 = loss.missing.iter().map(|part| recorder.brought_of(loss.path, loss.stream, part)).sum();
        assert_eq!(twice, 0, "{loss:?}");
    }
}

fn first_death(recorder: &Recorder) -> Duration {
    recorder.paths.iter().find(|(_, event)| is_dead(event)).expect("a path that died").0
}

// [P-8.16] [P-9.3]
#[test]
fn secondary_that_crashes_before_its_first_byte_loses_all_of_its_range() {
    let mut transfer = Transfer::new(big_ranges());
    let server = transfer.servers[1];
    let granted = |transfer: &Transfer| transfer.recorder().count(is_joined) == 2;
    while !granted(&transfer) {
        transfer.world.run_for(millis(1));
    }
    let before = transfer.world.elapsed();
    transfer.world.crash(server);
    transfer.run(secs(30));
    let recorder = transfer.recorder();
    losses_are_exact(&recorder);
    assert_eq!(recorder.losses.len(), 1);
    assert!(recorder.losses[0].missing.iter().eq([&(0..300_000)]), "{:?}", recorder.losses);
    assert!(recorder.losses[0].at - before <= millis(3_500), "{:?}", recorder.losses[0].at - before);
}

// [P-8.16] [P-9.3]
#[test]
fn secondary_that_crashes_in_mid_range_loses_the_rest_of_it() {
    for written in [1_000, 100_000, 200_000, 400_000] {
        let mut transfer = Transfer::new(big_ranges());
        let server = transfer.servers[1];
        while transfer.recorder().brought_of(PathId(1), 0, &(0..u64::MAX)) < written {
            transfer.world.run_for(millis(1));
        }
        let before = transfer.world.elapsed();
        transfer.world.crash(server);
        transfer.run(secs(30));
        let recorder = transfer.recorder();
        losses_are_exact(&recorder);
        assert_eq!(recorder.losses.len(), 1, "{written}");
        let came = recorder.brought_of(PathId(1), 0, &recorder.losses[0].range);
        assert!(came > 0 && came < 300_000, "{written}: {came} bytes of the lost range came");
        assert!(recorder.losses[0].at - before <= millis(3_500), "{:?}", recorder.losses[0].at - before);
    }
}

// [P-8.18]
#[test]
fn secondary_that_crashes_after_its_last_byte_lost_nothing() {
    let mut transfer = Transfer::new(Plan { secondaries: 1, bytes: 300_000, ..big_ranges() });
    let server = transfer.servers[1];
    // The client has it all, and what says so is on its way.
    transfer.run_to(300_000);
    assert_eq!(transfer.recorder().delivered, 0);
    transfer.world.crash(server);
    transfer.run(secs(10));
    transfer.world.run_for(secs(4));
    let recorder = transfer.recorder();
    assert_eq!((recorder.losses.len(), recorder.delivered), (0, 1));
    assert_eq!(recorder.count(is_dead), 1);
    assert_eq!(recorder.closed, None);
}

/// What a hole in one direction costs: `(the affected path's gap, the other's, when the path died)`.
fn one_way(to_client: bool) -> (Duration, Duration, Duration) {
    let plan = Plan { ordered: false, primary_writes: false, rejoin: None, ..slow_plan(6_000_000) };
    let mut transfer = Transfer::new(plan);
    transfer.run_to(500_000);
    let (client, server) = (transfer.client, transfer.servers[1]);
    let (from, to) = if to_client { (server, client) } else { (client, server) };
    let begin = transfer.world.elapsed();
    transfer.world.inject(Disturbance::Blackhole { from, to });
    transfer.run(secs(60));
    assert!(transfer.world.link_stats(from, to).lost > transfer.world.link_stats(from, to).queue_full);
    let recorder = transfer.recorder();
    losses_are_exact(&recorder);
    assert!(
        recorder.losses.iter().all(|loss| loss.path == PathId(1)) && !recorder.losses.is_empty(),
        "{:?}",
        recorder.losses
    );
    (recorder.gap(PathId(1)), recorder.gap(PathId(2)), first_death(&recorder) - begin)
}

#[test]
fn hole_that_swallows_data_stalls_the_ranges_of_its_path_only() {
    let (_, other, died) = one_way(true);
    assert!(died < millis(3_500), "{died:?}");
    assert!(other < millis(500), "{other:?}");
}

#[test]
fn hole_that_swallows_acknowledgements_stalls_the_ranges_of_its_path_only() {
    let (own, other, died) = one_way(false);
    // The server is heard until its probes, each twice as far from the last, are 3 s apart: up to 6 s, and then 3 s of
    // silence.
    assert!(died < millis(9_000), "{died:?}");
    assert!(own < secs(4), "{own:?}");
    assert!(other < millis(500), "{other:?}");
}

#[test]
fn rolling_restart_of_all_secondaries_loses_no_byte() {
    let plan = Plan { secondaries: 3, streams: 4, rejoin: Some(secs(2)), ..slow_plan(3_000_000) };
    let mut transfer = Transfer::new(plan);
    for (turn, server) in (0..).zip(transfer.servers[1..].to_vec()) {
        transfer.world.at(secs(2 + 4 * turn), Disturbance::Crash { node: server });
        transfer.world.at(secs(4 + 4 * turn), Disturbance::Restart { node: server, state: RestartState::Lost });
    }
    transfer.run(secs(60));
    let recorder = transfer.recorder();
    losses_are_exact(&recorder);
    assert_eq!(recorder.count(is_dead), 3);
    assert_eq!(recorder.count(is_joined), 6);
    assert!(!recorder.losses.is_empty());
}

// [P-12.4]
#[test]
fn rolling_close_of_all_secondaries_loses_no_byte() {
    let plan = Plan { secondaries: 3, streams: 4, rejoin: Some(secs(1)), ..slow_plan(2_000_000) };
    let mut transfer = Transfer::new(plan);
    for server in 1..=3 {
        transfer.world.run_for(secs(2));
        let (_, session) = transfer.recorder().joined.iter().rfind(|(of, _)| *of == server).copied().unwrap();
        let (node, now) = (transfer.servers[server], transfer.world.now());
        transfer.world.session_mut(node, session).unwrap().close(now, 7, "restarting");
    }
    transfer.run(secs(60));
    let recorder = transfer.recorder();
    losses_are_exact(&recorder);
    assert_eq!(recorder.count(is_dead), 3);
    assert_eq!(recorder.count(is_joined), 6);
    let notified = |event: &PathEvent| matches!(event, PathEvent::Dead { reason, .. } if SessionError::from(reason.clone()).to_string().contains('7'));
    assert_eq!(recorder.count(notified), 3, "{:?}", recorder.paths);
}
