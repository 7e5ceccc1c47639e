//! What policies decide; what comes of it is measured in worlds (`tests/tests/distribution.rs`).

use std::time::Duration;

use super::*;
use crate::test_support::instant;

const MB: u64 = 1_000_000;
const MS: Duration = Duration::from_millis(1);

/// A source that delivers `rate` bytes a second over a control loop of 80 ms.
fn source(path: u32, rate: u64) -> SourceView {
    SourceView {
        path: PathId(path),
        rate,
        is_starting: false,
        is_joined: true,
        is_on_probation: false,
        can_take: true,
        owes: 0,
        unsent: 0,
        delivered: 0,
        ranges: 0,
        control_loop: 80 * MS,
        ready_in: 60 * MS,
    }
}

fn view(sources: &[SourceView], left: u64) -> View<'_> {
    View { now: instant(), sources, left, total: 100 * MB, window: 4 * MB, is_blocked: false }
}

/// Assigns until the policy is content, as if nothing arrived meanwhile. Returns the bytes of each source.
fn assign(policy: &mut dyn Policy, sources: &mut [SourceView], mut left: u64) -> Vec<u64> {
    let mut bytes = vec![0; sources.len()];
    while left > 0 {
        let Some(next) = policy.next(&view(sources, left)) else { break };
        let taken = next.bytes.min(left);
        left -= taken;
        bytes[next.source] += taken;
        let source = &mut sources[next.source];
        source.owes += taken;
        source.unsent += if source.is_own() { taken } else { 0 };
        source.ranges += 1;
        let queued = Duration::from_secs_f64(source.owes as f64 / source.rate.max(1) as f64);
        source.ready_in = queued.max(60 * MS).min(Duration::from_secs(3600));
    }
    bytes
}

#[test]
fn every_source_gets_what_its_rate_and_its_control_loop_ask_for() {
    let mut sources = [source(1, 10 * MB), source(2, MB)];
    let bytes = assign(&mut Adaptive::default(), &mut sources, 90 * MB);
    // 80 ms and a half, and some.
    assert!((1_600_000..2_400_000).contains(&bytes[0]), "{bytes:?}");
    assert!((160_000..300_000).contains(&bytes[1]), "{bytes:?}");
}

#[test]
fn small_window_is_shared_by_rate() {
    let mut sources = [source(1, 10 * MB), source(2, 10 * MB)];
    let mut policy = Adaptive::default();
    let small = View { window: MB, ..view(&sources, 90 * MB) };
    assert!(policy.next(&small).is_some());
    sources[0].owes = MB / 4;
    sources[1].owes = MB / 4;
    let small = View { window: MB / 4, ..view(&sources, 90 * MB) };
    assert!(policy.next(&small).is_none() || sources[0].owes < 600_000);
}

#[test]
fn primary_keeps_little_ready() {
    let mut sources = [source(0, 10 * MB)];
    let bytes = assign(&mut Adaptive::default(), &mut sources, 90 * MB);
    assert!((256 * 1024..640 * 1024).contains(&bytes[0]), "{bytes:?}");
}

#[test]
fn source_that_would_only_delay_the_end_is_left_out() {
    let mut sources = [source(1, 10 * MB), source(2, MB / 10)];
    let bytes = assign(&mut Adaptive::default(), &mut sources, MB / 2);
    assert_eq!(bytes.iter().sum::<u64>(), MB / 2, "nothing is left");
    assert!(bytes[1] <= 8 * 1024, "the others would be through before: {bytes:?}");
}

#[test]
fn unknown_source_gets_a_little_and_nothing_of_something_small_before_it_joined() {
    let mut sources = [source(0, 10 * MB), SourceView { is_joined: false, ..source(1, 0) }];
    let bytes = assign(&mut Adaptive::default(), &mut sources, 90 * MB);
    assert!((64 * 1024..=512 * 1024).contains(&bytes[1]), "{bytes:?}");
    sources[1].owes = 0;
    let small = View { total: 100_000, left: 100_000, ..view(&sources, 0) };
    assert!(Adaptive::default().next(&small).is_none_or(|next| next.source == 0));
}

fn held(expected: Duration, age: Duration) -> HeldRange {
    HeldRange { source: 1, missing: 100_000, owed_up_to: 2 * MB, ahead: 0, age, expected, is_stalled: false }
}

#[test]
fn range_is_taken_back_when_it_is_late_and_another_is_sooner() {
    let slow = [source(1, 10 * MB), source(2, MB)];
    let mut policy = Adaptive::default();
    assert!(policy.takes_back(&view(&slow, MB), &held(200 * MS, 900 * MS)));
    assert!(!policy.takes_back(&view(&slow, MB), &held(200 * MS, 300 * MS)), "it is not late");
    assert!(!policy.takes_back(&view(&slow, MB), &held(200 * MS, 10 * MS)), "it did not hear of it");
    let fast = [source(1, 10 * MB), source(2, 100 * MB)];
    assert!(!policy.takes_back(&view(&fast, MB), &held(200 * MS, 900 * MS)), "it is about to come");
    let alone = [SourceView { is_joined: false, ..source(1, 0) }, source(2, MB)];
    assert!(!policy.takes_back(&view(&alone, MB), &held(200 * MS, 900 * MS)), "there is nobody else");
}

#[test]
fn reader_that_does_not_need_a_range_yet_leaves_its_source_in_peace() {
    let sources = [source(1, MB), source(2, MB)];
    let far = HeldRange { ahead: 50 * MB, ..held(200 * MS, 900 * MS) };
    assert!(!Adaptive::new(ReadOrder::Ordered).takes_back(&view(&sources, MB), &far));
    assert!(Adaptive::new(ReadOrder::Unordered).takes_back(&view(&sources, MB), &far));
    let stalled = HeldRange { is_stalled: true, ..far };
    assert!(Adaptive::default().takes_back(&view(&sources, MB), &stalled));
}

#[test]
fn equal_split_gives_equal_shares() {
    let mut sources = [source(0, MB), source(1, 9 * MB)];
    assert_eq!(assign(&mut EqualSplit::default(), &mut sources, 100 * MB), [50 * MB, 50 * MB]);
}

#[test]
fn fixed_chunks_keep_so_many_under_way() {
    let mut sources = [source(0, MB), source(1, 9 * MB)];
    let mut policy = FixedChunks { bytes: 1000, under_way: 3 };
    assert_eq!(assign(&mut policy, &mut sources, 100 * MB), [3000, 3000]);
    sources[1].owes = 2000;
    assert_eq!(policy.next(&view(&sources, MB)), Some(Assignment { source: 1, bytes: 1000 }));
}

#[test]
fn pieces_go_to_the_fastest_once_all_were_tried() {
    let mut sources = [source(0, MB), source(1, 0), source(2, 9 * MB)];
    let bytes = assign(&mut Pieces, &mut sources, 100 * MB);
    let piece = 4 * 1024 * 1024;
    assert_eq!(bytes, [0, piece, 7 * piece], "the one that was not tried, then the fastest");
}
