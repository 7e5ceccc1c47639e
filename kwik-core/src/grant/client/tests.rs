use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const STREAM: StreamId = StreamId(0);
const SIBLING: StreamId = StreamId(4);
const ONE: PathId = PathId(1);
const TWO: PathId = PathId(2);
const GONE: ErrorCode = ErrorCode::Application(7);
const REVOKED: ErrorCode = ErrorCode::Transport(TransportCode::REVOKED);

fn grant(id: u64, path: PathId, range: Range<u64>) -> Grant {
    Grant { id: GrantId(id), epoch: Epoch(id), path, stream: STREAM, range }
}

/// A book that recorded grants of which nothing arrived.
fn book_with(grants: &[Grant]) -> GrantTable {
    let mut book = GrantTable::new(&Limits::default());
    for grant in grants {
        record(&mut book, grant.clone()).unwrap();
    }
    book
}

fn record(book: &mut GrantTable, grant: Grant) -> Result<(), Fault> {
    let missing = [grant.range.clone()];
    book.record(grant, &missing)
}

fn reports(book: &mut GrantTable) -> Vec<(u64, GrantStatus)> {
    std::iter::from_fn(|| book.poll_status()).map(|(id, report)| (id.0, report)).collect()
}

/// Bytes arrive for the first time.
fn arrive(book: &mut GrantTable, stream: StreamId, new: &[(u64, u64)]) {
    book.on_new(stream, &ranges(new));
}

fn lost(code: impl Into<ErrorCode>, missing: &[(u64, u64)]) -> GrantStatus {
    GrantStatus::Lost { code: code.into(), missing: ranges(missing) }
}

fn ranges(pairs: &[(u64, u64)]) -> Vec<Range<u64>> {
    pairs.iter().map(|(start, end)| *start..*end).collect()
}

fn code_of(result: Result<(), Fault>) -> TransportCode {
    result.unwrap_err().code
}

// [P-8.12]
#[test]
fn one_byte_outside_a_grant_is_a_violation() {
    let mut book = book_with(&[grant(1, ONE, 100..200), grant(2, ONE, 200..300), grant(3, TWO, 300..400)]);
    let mut check = |path, stream, range| book.check(path, stream, range, 1);
    assert_eq!(check(ONE, STREAM, 100..300), Access::Allowed);
    assert_eq!(check(ONE, STREAM, 150..150), Access::Allowed);
    assert_eq!(check(TWO, STREAM, 399..400), Access::Allowed);
    for outside in [99..100, 99..101, 299..301, 300..301, 0..u64::MAX] {
        assert_eq!(check(ONE, STREAM, outside), Access::Violation);
    }
    assert_eq!(check(ONE, SIBLING, 100..101), Access::Violation);
    assert_eq!(check(ONE, SIBLING, 100..100), Access::Violation);
    assert_eq!(check(PathId(3), STREAM, 100..101), Access::Violation);
}

// [P-8.18]
#[test]
fn grant_is_delivered_when_its_last_byte_arrives_from_anywhere() {
    let mut book = book_with(&[grant(1, ONE, 100..200), grant(2, TWO, 150..250)]);
    arrive(&mut book, STREAM, &[(0, 120), (130, 1000)]);
    assert_eq!(reports(&mut book), [(2, GrantStatus::Delivered)]);
    arrive(&mut book, SIBLING, &[(120, 130)]);
    assert_eq!(reports(&mut book), []);
    arrive(&mut book, STREAM, &[(120, 130)]);
    assert_eq!(reports(&mut book), [(1, GrantStatus::Delivered)]);
    assert!(book.grants.is_empty() && book.open.is_empty() && book.open_by_path.is_empty());
    assert_eq!(book.check(ONE, STREAM, 100..200, 100), Access::Allowed, "late duplicates are legal");
}

#[test]
fn grant_of_bytes_that_came_before_counts_them() {
    let mut book = GrantTable::new(&Limits::default());
    book.record(grant(1, ONE, 0..100), &ranges(&[(40, 50)])).unwrap();
    book.record(grant(2, ONE, 100..200), &[]).unwrap();
    assert_eq!(reports(&mut book), [(2, GrantStatus::Delivered)]);
    arrive(&mut book, STREAM, &[(40, 50)]);
    assert_eq!(reports(&mut book), [(1, GrantStatus::Delivered)]);
}

// [P-8.18]
#[test]
fn progress_is_told_in_steps() {
    const STEP: u64 = GRANT_PROGRESS_BYTES;
    let mut book = book_with(&[grant(1, ONE, 0..10 * STEP)]);
    arrive(&mut book, STREAM, &[(0, STEP - 1)]);
    assert_eq!(reports(&mut book), []);
    arrive(&mut book, STREAM, &[(STEP, STEP + 1), (2 * STEP, 4 * STEP)]);
    assert_eq!(reports(&mut book), [(1, GrantStatus::Progress { delivered: 3 * STEP })]);
    arrive(&mut book, STREAM, &[(5 * STEP, 6 * STEP - 1)]);
    assert_eq!(reports(&mut book), []);
    arrive(&mut book, STREAM, &[(9 * STEP, 10 * STEP)]);
    book.path_lost(ONE, GONE);
    let missing = [(STEP - 1, STEP), (STEP + 1, 2 * STEP), (4 * STEP, 5 * STEP), (6 * STEP - 1, 9 * STEP)];
    assert_eq!(reports(&mut book), [(1, lost(GONE, &missing))], "the end replaces progress not told yet");
}

// [P-8.15]
#[test]
fn late_bytes_of_a_revoked_grant_are_fenced_up_to_its_length() {
    let mut book = book_with(&[grant(5, ONE, 100..200), grant(6, ONE, 200..300)]);
    arrive(&mut book, STREAM, &[(100, 140)]);
    assert_eq!(book.revoke(GrantId(5), Epoch(4)), None, "a command older than the grant");
    assert_eq!(book.revoke(GrantId(9), Epoch(9)), None);
    assert_eq!(book.revoke(GrantId(5), Epoch(9)), Some(grant(5, ONE, 100..200)));
    assert_eq!(book.revoke(GrantId(5), Epoch(9)), None);
    assert_eq!(reports(&mut book), [(5, lost(REVOKED, &[(140, 200)]))]);

    assert_eq!(book.check(ONE, STREAM, 150..160, 60), Access::Fenced);
    assert_eq!(book.check(ONE, STREAM, 190..210, 40), Access::Fenced);
    assert_eq!(book.check(ONE, STREAM, 150..160, 1), Access::Violation);
    assert_eq!(book.check(ONE, STREAM, 90..160, 0), Access::Violation, "a fence excuses nothing outside");
    assert_eq!(book.check(ONE, STREAM, 200..300, 100), Access::Allowed);
}

// [P-6.15]
#[test]
fn grants_of_a_stream_add_up_to_what_a_path_may_send() {
    let mut book = book_with(&[grant(1, ONE, 0..100), grant(2, TWO, 0..100)]);
    assert_eq!(book.check(ONE, STREAM, 0..100, 60), Access::Allowed);
    arrive(&mut book, STREAM, &[(0, 100)]);
    assert_eq!(book.check(TWO, STREAM, 0..100, 100), Access::Allowed, "the other was faster");
    assert_eq!(book.check(ONE, STREAM, 0..100, 41), Access::Excess);
    record(&mut book, grant(3, ONE, 50..60)).unwrap();
    assert_eq!(book.check(ONE, STREAM, 0..100, 50), Access::Allowed);
    assert_eq!(book.check(ONE, STREAM, 0..100, 1), Access::Excess);
}

// [P-8.12]
#[test]
fn what_was_granted_of_a_forgotten_stream_may_still_come() {
    let late = StreamId(STREAM.0 + 4);
    let mut book = book_with(&[grant(1, ONE, 0..100), grant(2, TWO, 0..200)]);
    assert_eq!(book.check(ONE, STREAM, 0..60, 60), Access::Allowed);
    assert_eq!(book.check_late(ONE, STREAM, 90..101, 11), Access::Violation, "not forgotten yet");
    book.forget_stream(STREAM);
    assert_eq!(book.check(ONE, STREAM, 60..70, 10), Access::Violation, "of streams that are wanted");
    assert_eq!(book.check_late(ONE, STREAM, 60..90, 30), Access::Fenced);
    assert_eq!(book.check_late(ONE, STREAM, 90..101, 11), Access::Violation);
    assert_eq!(book.check_late(TWO, STREAM, 0..200, 200), Access::Fenced);
    assert_eq!(book.check_late(TWO, STREAM, 0..200, 1), Access::Violation);
    assert_eq!(book.check_late(PathId(9), STREAM, 0..1, 1), Access::Violation);
    // A grant that is refused was never passed on.
    let refused = Grant { stream: late, ..grant(3, PathId(9), 0..100) };
    book.refuse(refused, std::slice::from_ref(&(0..100)), GONE).unwrap();
    assert_eq!(book.check_late(PathId(9), late, 0..1, 1), Access::Violation);
    assert_eq!(reports(&mut book).last(), Some(&(3, lost(GONE, &[(0, 100)]))));
}

#[test]
fn fence_falls_where_the_path_is_granted_the_range_again() {
    let mut book = book_with(&[grant(1, ONE, 0..100), grant(2, ONE, 50..150), grant(3, TWO, 0..20)]);
    assert!(book.revoke(GrantId(1), Epoch(9)).is_some());
    assert_eq!(book.check(ONE, STREAM, 50..100, 1), Access::Allowed, "another grant covers it");
    assert_eq!(book.check(ONE, STREAM, 0..20, 1), Access::Fenced, "the grant of another path does not");
    assert_eq!(book.check(TWO, STREAM, 0..20, 1), Access::Allowed);
    record(&mut book, grant(4, ONE, 0..30)).unwrap();
    assert_eq!(book.check(ONE, STREAM, 0..30, 1), Access::Allowed);
    assert_eq!(book.check(ONE, STREAM, 29..31, 1), Access::Fenced);
}

// [P-8.14]
#[test]
fn ended_part_waits_for_the_bytes_before_its_end() {
    let mut book = book_with(&[grant(1, ONE, 100..200), grant(2, ONE, 200..300), grant(3, ONE, 300..400)]);
    arrive(&mut book, STREAM, &[(100, 120), (160, 170)]);
    book.on_end(GrantId(1), ONE, 150, GONE).unwrap();
    book.on_end(GrantId(2), ONE, 200, GONE).unwrap();
    book.on_end(GrantId(3), ONE, 400, GONE).unwrap();
    assert_eq!(reports(&mut book), [(2, lost(GONE, &[(200, 300)]))]);
    arrive(&mut book, STREAM, &[(120, 149)]);
    assert_eq!(reports(&mut book), []);
    arrive(&mut book, STREAM, &[(149, 150), (300, 400)]);
    assert_eq!(reports(&mut book), [(1, lost(GONE, &[(150, 160), (170, 200)])), (3, GrantStatus::Delivered)]);
    assert_eq!(book.on_end(GrantId(1), ONE, 150, GONE), Ok(()), "crossed with the settlement");
    assert_eq!(book.writers(STREAM).count(), 0);
}

/// Bytes that came after a part was lost were taken, although the primary may have ended the stream before them: the
/// secondary's word against the primary's cost the session.
// [P-8.14]
#[test]
fn regression_bytes_behind_the_end_of_a_lost_part_are_fenced() {
    let mut book = book_with(&[grant(1, ONE, 100..200)]);
    book.on_end(GrantId(1), ONE, 150, GONE).unwrap();
    assert_eq!(book.check(ONE, STREAM, 160..170, 10), Access::Allowed, "it is not lost before all is there");
    arrive(&mut book, STREAM, &[(100, 150), (160, 170)]);
    assert_eq!(reports(&mut book), [(1, lost(GONE, &[(150, 160), (170, 200)]))]);
    assert_eq!(book.check(ONE, STREAM, 170..180, 10), Access::Fenced);
    record(&mut book, grant(2, ONE, 150..200)).unwrap();
    assert_eq!(book.check(ONE, STREAM, 170..180, 10), Access::Allowed, "it was granted again");
}

#[test]
fn regression_grant_was_lost_with_nothing_missing() {
    let mut book = book_with(&[grant(1, ONE, 0..100)]);
    book.on_end(GrantId(1), ONE, 50, GONE).unwrap();
    arrive(&mut book, STREAM, &[(0, 50), (50, 100)]);
    assert_eq!(reports(&mut book), [(1, GrantStatus::Delivered)]);
}

/// The primary cannot make sense of a loss of nothing.
// [P-8.18]
#[test]
fn regression_grant_for_a_dead_path_was_lost_although_all_of_it_had_arrived() {
    let mut book = GrantTable::new(&Limits::default());
    book.refuse(grant(1, ONE, 0..100), &[], GONE).unwrap();
    book.refuse(grant(2, ONE, 100..200), &ranges(&[(150, 200)]), GONE).unwrap();
    assert_eq!(reports(&mut book), [(1, GrantStatus::Delivered), (2, lost(GONE, &[(150, 200)]))]);
}

// [P-8.14]
#[test]
fn false_end_of_a_part_is_a_violation_and_changes_nothing() {
    let mut book = book_with(&[grant(1, ONE, 100..200)]);
    for (path, end) in [(TWO, 100), (PathId::PRIMARY, 200), (ONE, 99), (ONE, 201), (ONE, u64::MAX)] {
        assert_eq!(code_of(book.on_end(GrantId(1), path, end, GONE)), TransportCode::PROTOCOL_VIOLATION);
    }
    assert_eq!(reports(&mut book), []);
    assert_eq!(book.on_end(GrantId(1), ONE, 150, GONE), Ok(()));
    assert_eq!(book.on_end(GrantId(1), ONE, 150, GONE), Ok(()));
    arrive(&mut book, STREAM, &[(100, 150)]);
    assert_eq!(reports(&mut book), [(1, lost(GONE, &[(150, 200)]))]);
}

/// A part that was finished short and then stopped tells its end twice.
// [P-8.14]
#[test]
fn regression_second_end_of_a_part_cost_the_path() {
    let mut book = book_with(&[grant(1, ONE, 100..200)]);
    assert_eq!(book.on_end(GrantId(1), ONE, 180, TransportCode::NO_ERROR.into()), Ok(()));
    assert_eq!(book.on_end(GrantId(1), ONE, 120, GONE), Ok(()));
    assert_eq!(book.on_end(GrantId(1), ONE, 190, GONE), Ok(()));
    arrive(&mut book, STREAM, &[(100, 120)]);
    assert_eq!(reports(&mut book), [(1, lost(GONE, &[(120, 200)]))]);
}

// [P-8.16] [P-8.18]
#[test]
fn lost_path_reports_exactly_what_is_missing_and_may_write_no_more() {
    let mut book = book_with(&[grant(1, ONE, 0..100), grant(2, TWO, 100..200), grant(3, ONE, 200..300)]);
    arrive(&mut book, STREAM, &[(0, 30), (40, 60), (200, 300)]);
    book.path_lost(ONE, GONE);
    assert_eq!(reports(&mut book), [(3, GrantStatus::Delivered), (1, lost(GONE, &[(30, 40), (60, 100)]))]);
    assert_eq!(book.check(ONE, STREAM, 30..40, 1), Access::Violation);
    assert_eq!(book.check(TWO, STREAM, 100..200, 1), Access::Allowed);
    assert_eq!(book.writers(STREAM).collect::<Vec<_>>(), [TWO]);
}

// [P-8.17]
#[test]
fn stream_that_is_gone_settles_its_grants_and_is_forgotten() {
    let other = Grant { stream: SIBLING, ..grant(3, ONE, 0..10) };
    let mut book = book_with(&[grant(1, ONE, 0..100), grant(2, TWO, 50..150), other]);
    arrive(&mut book, STREAM, &[(0, 60)]);
    book.stream_gone(STREAM, GONE);
    assert_eq!(reports(&mut book), [(1, lost(GONE, &[(60, 100)])), (2, lost(GONE, &[(60, 150)]))]);
    assert_eq!(book.check(ONE, STREAM, 60..100, 1), Access::Allowed, "late bytes are no fault");
    book.forget_stream(STREAM);
    assert_eq!(book.writers.keys().copied().collect::<Vec<_>>(), [(SIBLING, ONE)]);
    assert_eq!(book.ranges_held, 1);

    record(&mut book, grant(4, ONE, 0..10)).unwrap();
    book.forget_stream(STREAM);
    assert_eq!(reports(&mut book), [(4, lost(TransportCode::STREAM_GONE, &[(0, 10)]))], "a grant that came too late");
}

// [P-8.7]
#[test]
fn grant_id_names_one_grant() {
    let mut book = book_with(&[grant(1, ONE, 0..100)]);
    assert_eq!(record(&mut book, grant(1, ONE, 0..100)), Ok(()));
    let other_epoch = Grant { epoch: Epoch(9), ..grant(1, ONE, 0..100) };
    for other in [grant(1, TWO, 0..100), grant(1, ONE, 0..101), other_epoch, grant(2, ONE, 5..5)] {
        assert_eq!(code_of(record(&mut book, other)), TransportCode::PROTOCOL_VIOLATION);
    }
    arrive(&mut book, STREAM, &[(0, 100)]);
    assert_eq!(reports(&mut book), [(1, GrantStatus::Delivered)]);
}

// [P-8.8]
#[test]
fn every_cap_is_reached_and_left_again() {
    let limits = Limits { grant_spans_session: 5, ..Limits::default() };
    let mut book = GrantTable { grants_session_max: 4, grants_path_max: 3, ..GrantTable::new(&limits) };
    for id in 1..=3 {
        record(&mut book, grant(id, ONE, id * 10..id * 10 + 5)).unwrap();
    }
    assert_eq!(code_of(record(&mut book, grant(4, ONE, 40..45))), TransportCode::CONTROL_FLOOD, "path");
    record(&mut book, grant(4, TWO, 40..45)).unwrap();
    assert_eq!(code_of(record(&mut book, grant(5, TWO, 50..55))), TransportCode::CONTROL_FLOOD, "session");
    arrive(&mut book, STREAM, &[(0, 35)]);
    assert_eq!(code_of(record(&mut book, grant(5, TWO, 50..55))), TransportCode::CONTROL_FLOOD, "not reported yet");
    assert_eq!(reports(&mut book).len(), 3);
    record(&mut book, grant(5, TWO, 50..55)).unwrap();
    record(&mut book, grant(6, TWO, 60..65)).unwrap();
    let lost =
        GrantStatus::Lost { code: TransportCode::REASSEMBLY_LIMIT.into(), missing: std::iter::once(60..65).collect() };
    assert_eq!(reports(&mut book), [(6, lost)], "spans");
    assert_eq!(book.check(TWO, STREAM, 60..65, 1), Access::Violation, "a refused grant permits nothing");
    book.forget_below(STREAM, 35);
    record(&mut book, grant(7, TWO, 60..65)).unwrap();
    assert!(book.is_open(GrantId(7)));
}

// [P-8.8]
#[test]
fn grants_pile_up_only_so_high() {
    let mut book = GrantTable::new(&Limits::default());
    for id in 0..=GRANT_OVERLAP_MAX as u64 {
        record(&mut book, grant(id, ONE, id..100)).unwrap();
    }
    assert_eq!(code_of(record(&mut book, grant(99, ONE, 99..100))), TransportCode::CONTROL_FLOOD);
    assert_eq!(record(&mut book, grant(99, ONE, 100..101)), Ok(()));
    assert!(book.revoke(GrantId(3), Epoch(99)).is_some());
    assert_eq!(record(&mut book, grant(100, ONE, 99..100)), Ok(()));
}

// [P-8.18]
#[test]
fn many_missing_ranges_are_merged_with_their_nearest_neighbours() {
    let max = MISSING_RANGES_MAX as u64;
    let mut book = book_with(&[grant(1, ONE, 0..100 * max + 20)]);
    // Arrived: ten bytes before each hundred, and three single bytes that leave holes close to each other.
    for index in 0..max {
        arrive(&mut book, STREAM, &[(100 * index + 90, 100 * index + 100)]);
    }
    arrive(&mut book, STREAM, &[(10, 11), (520, 521), (100 * max + 5, 100 * max + 6)]);
    book.path_lost(ONE, GONE);
    let reports = reports(&mut book);
    let [(1, GrantStatus::Lost { missing, .. })] = reports.as_slice() else { panic!("{reports:?}") };
    assert_eq!(missing.len(), MISSING_RANGES_MAX);
    assert_eq!(missing[0], 0..290, "the narrow gaps are closed, and then the first of the wide ones");
    assert_eq!(missing[1], 300..390);
    assert_eq!(missing[3], 500..590);
    let tail = [100 * max..100 * max + 5, 100 * max + 6..100 * max + 20];
    assert_eq!(missing[missing.len() - 2..], tail, "what arrived last is not called missing");
}

#[test]
fn merging_joins_the_closest() {
    let apart = vec![0..10, 20..30, 31..40, 45..50, 60..70];
    assert_eq!(merge(apart.clone(), 5), apart);
    assert_eq!(merge(apart.clone(), 4), [0..10, 20..40, 45..50, 60..70]);
    assert_eq!(merge(apart.clone(), 3), [0..10, 20..50, 60..70]);
    assert_eq!(merge(apart, 2), ranges(&[(0, 50), (60, 70)]));
    assert_eq!(merge(ranges(&[(0, 10), (50, 60), (61, 70)]), 2), ranges(&[(0, 60), (61, 70)]), "never the last");
}

#[test]
fn book_of_a_long_stream_stays_short() {
    const PIECE: u64 = 64 * 1024;
    let mut book = GrantTable::new(&Limits::default());
    for index in 0..50_000u64 {
        let path = PathId(1 + u32::try_from(index % 4).unwrap());
        let range = index * PIECE..(index + 1) * PIECE;
        if index % 8 == 0 {
            record(&mut book, grant(index, PathId(6), range.clone())).unwrap();
            assert!(book.revoke(GrantId(index), Epoch(index)).is_some());
            assert_eq!(reports(&mut book), [(index, lost(REVOKED, &[(range.start, range.end)]))]);
        }
        record(&mut book, grant(index, path, range.clone())).unwrap();
        assert_eq!(book.check(path, STREAM, range.clone(), PIECE), Access::Allowed);
        book.on_new(STREAM, std::slice::from_ref(&range));
        assert_eq!(reports(&mut book), [(index, GrantStatus::Delivered)]);
        book.forget_below(STREAM, range.start.saturating_sub(16 * PIECE));
    }
    assert!(book.ranges_held <= 32, "{} ranges", book.ranges_held);
    assert_eq!(book.check(ONE, STREAM, 1..2, 0), Access::Allowed, "was read, and is dropped unseen");
    assert_eq!(book.check(ONE, STREAM, 1..2, 1), Access::Excess, "every byte was sent");
    assert_eq!(book.check(PathId(5), STREAM, 1..2, 1), Access::Violation);
}

proptest! {
    #[test]
    fn lanes_find_what_a_scan_finds(
        operations in prop::collection::vec((0..40u64, 1..20u64, any::<bool>()), 1..60),
        probe in (0..60u64, 1..20u64),
    ) {
        let (mut index, mut naive) = (IntervalIndex::default(), BTreeMap::new());
        for (id, (start, len, remove)) in (0..).map(GrantId).zip(operations) {
            let range = start..start + len;
            if remove && let Some((old, range)) = naive.pop_first() {
                index.remove(&range, old);
            } else if index.insert(&range, id) {
                naive.insert(id, range);
            } else {
                let overlaps = naive.values().filter(|other| other.start < range.end && range.start < other.end);
                prop_assert!(overlaps.count() > GRANT_OVERLAP_MAX);
            }
            prop_assert_eq!(index.ids().collect::<BTreeSet<_>>(), naive.keys().copied().collect());
            prop_assert_eq!(index.is_empty(), naive.is_empty());
        }
        let probe = probe.0..probe.0 + probe.1;
        let found: Vec<GrantId> = index.overlapping(&probe).collect();
        let scanned: BTreeSet<GrantId> = naive
            .iter()
            .filter(|(_, range)| range.start < probe.end && probe.start < range.end)
            .map(|(id, _)| *id)
            .collect();
        prop_assert_eq!(found.len(), scanned.len());
        prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), scanned);
    }
}
