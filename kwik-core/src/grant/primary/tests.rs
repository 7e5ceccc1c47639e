use proptest::prelude::*;

use super::*;
use crate::error::TransportCode;

const STREAM: StreamId = StreamId(1);
const ONE: PathId = PathId(1);
const TWO: PathId = PathId(2);
const CODE: ErrorCode = ErrorCode::Application(7);

fn new() -> Delegations {
    Delegations::new(&Limits::default())
}

fn issue(book: &mut Delegations, path: PathId, range: Range<u64>) -> GrantId {
    book.issue(path, STREAM, range, false).unwrap()
}

/// What has arrived, and what is missing, for good.
type Ranges = Vec<Range<u64>>;

fn change(grant: GrantId, (arrived, missing): (Ranges, Ranges)) -> Change {
    Change { grant, stream: STREAM, arrived, missing }
}

fn lost(missing: &[(u64, u64)]) -> GrantStatus {
    GrantStatus::Lost { code: CODE, missing: ranges(missing) }
}

fn ranges(pairs: &[(u64, u64)]) -> Vec<Range<u64>> {
    pairs.iter().map(|(start, end)| Range { start: *start, end: *end }).collect()
}

#[test]
fn delegation_goes_from_progress_to_delivered() {
    let mut book = new();
    let id = issue(&mut book, ONE, 100..200);
    assert_eq!(book.state(id), Some(&GrantStatus::Progress { delivered: 0 }));
    let progress = book.on_status(id, GrantStatus::Progress { delivered: 60 }).unwrap();
    assert_eq!(progress, Some(change(id, (vec![], vec![]))));
    assert_eq!(book.on_status(id, GrantStatus::Progress { delivered: 60 }), Ok(None), "no news");
    assert_eq!(book.state(id), Some(&GrantStatus::Progress { delivered: 60 }));
    let settled = book.on_status(id, GrantStatus::Delivered).unwrap();
    let (arrived, missing) = (ranges(&[(100, 200)]), vec![]);
    assert_eq!(settled, Some(change(id, (arrived, missing))));
    assert_eq!(book.state(id), Some(&GrantStatus::Delivered));
    book.forget(id);
    assert_eq!(book.state(id), None);
}

#[test]
fn delegation_is_revoked_once() {
    let mut book = new();
    let id = issue(&mut book, ONE, 0..10);
    assert_eq!((book.revoke(id), book.revoke(id)), (Some(true), Some(false)));
    assert_eq!(book.state(id), Some(&GrantStatus::Progress { delivered: 0 }), "until the client says what it has");
    book.on_status(id, lost(&[(0, 10)])).unwrap();
    assert_eq!(book.revoke(id), None, "it is over");
    assert_eq!(book.revoke(GrantId(id.0 + 1)), None, "it is unknown");
}

#[test]
fn lost_delegation_splits_its_range() {
    let mut book = new();
    for (missing, arrived) in [
        (&[(100, 110), (120, 130)][..], &[(110, 120), (130, 200)][..]),
        (&[(150, 200)], &[(100, 150)]),
        (&[(150, 160), (160, 170)], &[(100, 150), (170, 200)]),
        (&[(100, 200)], &[]),
    ] {
        let id = issue(&mut book, ONE, 100..200);
        let settled = book.on_status(id, lost(missing)).unwrap();
        let (arrived, missing) = (ranges(arrived), ranges(missing));
        assert_eq!(settled, Some(change(id, (arrived, missing.clone()))));
        assert_eq!(book.state(id), Some(&GrantStatus::Lost { code: CODE, missing }));
    }
}

// [P-8.19]
#[test]
fn false_status_is_a_violation_and_changes_nothing() {
    let mut book = new();
    let id = issue(&mut book, ONE, 100..200);
    assert!(book.on_status(id, GrantStatus::Progress { delivered: 50 }).unwrap().is_some());
    let last = issue(&mut book, ONE, 200..201);
    assert!(book.on_status(last, GrantStatus::Delivered).unwrap().is_some());
    for (grant, report) in [
        (id, GrantStatus::Progress { delivered: 49 }),
        (id, GrantStatus::Progress { delivered: 101 }),
        (id, GrantStatus::Progress { delivered: u64::MAX }),
        (id, lost(&[])),
        (id, lost(&[(99, 110)])),
        (id, lost(&[(190, 201)])),
        (id, lost(&[(0, u64::MAX)])),
        (id, lost(&[(120, 120)])),
        (id, lost(&[(130, 120)])),
        (id, lost(&[(120, 130), (129, 140)])),
        (id, lost(&[(150, 160), (110, 120)])),
        (last, GrantStatus::Delivered),
        (last, GrantStatus::Progress { delivered: 1 }),
        (last, lost(&[(200, 201)])),
        (GrantId(last.0 + 1), GrantStatus::Delivered),
        (GrantId(u64::MAX), GrantStatus::Progress { delivered: 0 }),
    ] {
        let fault = book.on_status(grant, report.clone()).unwrap_err();
        assert_eq!(fault.code, TransportCode::PROTOCOL_VIOLATION, "{report:?}");
        assert_eq!(book.state(id), Some(&GrantStatus::Progress { delivered: 50 }));
        assert_eq!(book.state(last), Some(&GrantStatus::Delivered));
    }
    assert_eq!(book.outstanding.get(&ONE), Some(&1));
}

#[test]
fn delegations_of_a_lost_path_are_given_up_at_once() {
    let mut book = new();
    let (first, other, done) =
        (issue(&mut book, ONE, 0..10), issue(&mut book, TWO, 10..20), issue(&mut book, ONE, 20..30));
    assert!(book.on_status(done, GrantStatus::Delivered).unwrap().is_some());
    let (arrived, missing) = (vec![], ranges(&[(0, 10)]));
    let expected = change(first, (arrived, missing.clone()));
    assert_eq!(book.path_lost(ONE, CODE), [expected]);
    assert_eq!(book.path_lost(ONE, CODE), []);
    assert_eq!(book.state(other), Some(&GrantStatus::Progress { delivered: 0 }));
    assert_eq!(book.session_lost(CODE).into_iter().map(|change| change.grant).collect::<Vec<_>>(), [other]);

    book.forget(first);
    assert_eq!(book.on_status(first, GrantStatus::Progress { delivered: 4 }), Ok(None), "crossed");
    assert!(book.on_status(first, GrantStatus::Progress { delivered: 11 }).is_err());
    assert_eq!(book.on_status(first, GrantStatus::Delivered), Ok(None), "crossed");
    assert!(book.on_status(first, GrantStatus::Delivered).is_err());
    assert!(!book.known.contains_key(&first));
}

#[test]
fn forgotten_delegation_still_settles() {
    let mut book = new();
    let id = issue(&mut book, ONE, 0..10);
    book.forget(id);
    assert_eq!(book.state(id), None);
    assert!(book.on_status(id, GrantStatus::Delivered).unwrap().is_some());
    assert!(book.known.is_empty() && book.outstanding.is_empty() && book.is_settled());
    book.forget(id);
}

#[test]
fn grant_that_the_client_never_got_leaves_nothing_behind() {
    let mut book = new();
    let id = issue(&mut book, ONE, 0..10);
    book.forget(id);
    let (arrived, missing) = (vec![], ranges(&[(0, 10)]));
    assert_eq!(book.annul(id, CODE), Some(change(id, (arrived, missing))));
    assert_eq!(book.annul(id, CODE), None);
    assert!(book.known.is_empty() && book.is_settled());
}

// [P-8.8]
#[test]
fn caps_count_what_the_client_did_not_finish() {
    let limits = Limits { grants_session_max: 3, grants_path_max: 2, ..Limits::default() };
    let mut book = Delegations::new(&limits);
    let first = issue(&mut book, ONE, 0..1);
    issue(&mut book, ONE, 1..2);
    assert!(!book.has_room(ONE) && book.has_room(TWO));
    assert_eq!(book.issue(ONE, STREAM, 2..3, false), Err(TooManyDelegations));
    issue(&mut book, TWO, 2..3);
    assert!(!book.has_room(TWO));
    assert_eq!(book.issue(TWO, STREAM, 3..4, false), Err(TooManyDelegations));
    assert!(book.on_status(first, GrantStatus::Delivered).unwrap().is_some());
    assert!(book.has_room(ONE) && book.has_room(TWO));
    assert_ne!(issue(&mut book, ONE, 3..4), first, "ids are never used again");
}

#[derive(Debug, Clone)]
enum Operation {
    Issue { path: u32, len: u64 },
    Progress { index: usize, delivered: u64 },
    Delivered { index: usize },
    Lost { index: usize, bits: u16 },
    LosePath { path: u32 },
    Forget { index: usize },
}

fn operation() -> impl Strategy<Value = Operation> {
    let index = || 0..12usize;
    prop_oneof![
        4 => (0..3u32, 1..12u64).prop_map(|(path, len)| Operation::Issue { path, len }),
        4 => (index(), 0..14u64).prop_map(|(index, delivered)| Operation::Progress { index, delivered }),
        2 => index().prop_map(|index| Operation::Delivered { index }),
        2 => (index(), any::<u16>()).prop_map(|(index, bits)| Operation::Lost { index, bits }),
        1 => (0..3u32).prop_map(|path| Operation::LosePath { path }),
        1 => index().prop_map(|index| Operation::Forget { index }),
    ]
}

/// One delegation as a few plain facts. Every range starts at 0, so that lost bits are offsets.
struct Fact {
    path: PathId,
    len: u64,
    delivered: u64,
    is_settled: bool,
    is_reported: bool,
    is_forgotten: bool,
}

fn runs(bits: u16, value: bool, len: u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for offset in (0..len).filter(|offset| (bits >> offset & 1 == 1) == value) {
        match runs.last_mut() {
            Some(last) if last.end == offset => last.end += 1,
            _ => runs.push(offset..offset + 1),
        }
    }
    runs
}

/// What a status must lead to: a fault, nothing, or a change.
fn expected(fact: Option<&Fact>, report: &GrantStatus, arrived: Ranges) -> Result<Option<(Ranges, Ranges)>, ()> {
    let fact = fact.filter(|fact| !fact.is_reported).ok_or(())?;
    let outcome = match report {
        GrantStatus::Progress { delivered } => {
            if *delivered > fact.len || (!fact.is_settled && *delivered < fact.delivered) {
                return Err(());
            }
            (*delivered != fact.delivered).then_some((vec![], vec![]))
        }
        GrantStatus::Delivered => Some((arrived, vec![])),
        GrantStatus::Lost { missing, .. } => {
            if missing.is_empty() || missing.last().is_some_and(|last| last.end > fact.len) {
                return Err(());
            }
            Some((arrived, missing.clone()))
        }
    };
    Ok(outcome.filter(|_| !fact.is_settled))
}

proptest! {
    #[test]
    fn agrees_with_a_list_of_facts(operations in prop::collection::vec(operation(), 1..80)) {
        let limits = Limits { grants_session_max: 6, grants_path_max: 3, ..Limits::default() };
        let mut book = Delegations::new(&limits);
        let mut facts: Vec<Fact> = Vec::new();
        for operation in operations {
            let (index, report, arrived) = match operation {
                Operation::Issue { path, len } => {
                    let path = PathId(path);
                    let untold: Vec<&Fact> = facts.iter().filter(|fact| !fact.is_reported).collect();
                    let room = untold.len() < 6 && untold.iter().filter(|fact| fact.path == path).count() < 3;
                    prop_assert_eq!(book.has_room(path), room);
                    let id = GrantId(facts.len() as u64);
                    let issued = book.issue(path, STREAM, 0..len, false);
                    prop_assert_eq!(issued, room.then_some(id).ok_or(TooManyDelegations));
                    if room {
                        let (is_settled, is_reported, is_forgotten) = (false, false, false);
                        facts.push(Fact { path, len, delivered: 0, is_settled, is_reported, is_forgotten });
                    }
                    continue;
                }
                Operation::LosePath { path } => {
                    let path = PathId(path);
                    let active = facts.iter_mut().filter(|fact| fact.path == path && !fact.is_settled);
                    let count = active.map(|fact| fact.is_settled = true).count();
                    prop_assert_eq!(book.path_lost(path, CODE).len(), count);
                    continue;
                }
                Operation::Forget { index } => {
                    book.forget(GrantId(index as u64));
                    if let Some(fact) = facts.get_mut(index) {
                        fact.is_forgotten = true;
                    }
                    continue;
                }
                Operation::Progress { index, delivered } => (index, GrantStatus::Progress { delivered }, vec![]),
                Operation::Delivered { index } => {
                    let len = facts.get(index).map_or(0, |fact| fact.len);
                    (index, GrantStatus::Delivered, ranges(&[(0, len)]))
                }
                Operation::Lost { index, bits } => {
                    let len = facts.get(index).map_or(0, |fact| fact.len);
                    let report = GrantStatus::Lost { code: CODE, missing: runs(bits, true, 16.min(len + 1)) };
                    (index, report, runs(bits, false, len))
                }
            };
            let id = GrantId(index as u64);
            let wanted = expected(facts.get(index), &report, arrived);
            let result = book.on_status(id, report.clone());
            prop_assert_eq!(result.clone().map(|c| c.map(|c| (c.arrived, c.missing))).map_err(|_| ()), wanted);
            if let (Ok(_), Some(fact)) = (result, facts.get_mut(index)) {
                match report {
                    GrantStatus::Progress { delivered } => fact.delivered = delivered.max(fact.delivered),
                    _ => (fact.is_settled, fact.is_reported) = (true, true),
                }
            }
            for (id, fact) in (0..).map(GrantId).zip(&facts) {
                prop_assert_eq!(book.known.contains_key(&id), !(fact.is_reported && fact.is_forgotten));
                let is_active = matches!(book.state(id), Some(GrantStatus::Progress { .. }));
                prop_assert_eq!(is_active, !fact.is_settled && !fact.is_forgotten);
            }
        }
    }
}
