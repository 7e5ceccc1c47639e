//! Ranges that a second server writes as well.

use std::ops::Range;

use bytes::Bytes;
use kwik_core::{DelegateError, Dir, GrantId, GrantStatus, Limits, PathId, StreamHandle, StreamOffset};
use kwik_tests::{Ends, Fleet, pattern};

fn copy(
    fleet: &mut Fleet,
    ends: Ends,
    stream: StreamHandle,
    path: PathId,
    range: Range<u64>,
) -> Result<GrantId, DelegateError> {
    let mut session = fleet.world.session_mut(fleet.servers[0], ends.primary).expect("a session");
    Ok(session.stream_mut(stream).delegate_copy(path, range, Bytes::new())?.grant)
}

fn delegate(fleet: &mut Fleet, ends: Ends, stream: StreamHandle, path: PathId, range: Range<u64>) -> GrantId {
    let mut session = fleet.world.session_mut(fleet.servers[0], ends.primary).expect("a session");
    session.stream_mut(stream).delegate_range(path, range, Bytes::new()).expect("it can").grant
}

fn write_at(fleet: &mut Fleet, ends: Ends, stream: StreamHandle, range: Range<u64>) -> bool {
    let mut session = fleet.world.session_mut(fleet.servers[0], ends.primary).expect("a session");
    session.stream_mut(stream).write_at(StreamOffset(range.start), pattern(range)).is_ok()
}

fn fill(fleet: &mut Fleet, server: usize, session: kwik_core::SessionHandle, range: Range<u64>) {
    let part = fleet.accept(server, session, Dir::Bi);
    fleet.write_all(fleet.servers[server], session, part, &pattern(range));
    fleet.finish(fleet.servers[server], session, part);
}

// [P-8.8]
#[test]
fn who_is_first_with_a_range_delivers_it_for_both() {
    let mut fleet = Fleet::null_tls(3, 1);
    let ends = fleet.connect();
    let (first, _) = fleet.join(ends, 1);
    let (second, session) = fleet.join(ends, 2);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let original = delegate(&mut fleet, ends, there, first, 0..1000);
    let copied = copy(&mut fleet, ends, there, second, 0..1000).unwrap();
    fleet.finish(fleet.servers[0], ends.primary, there);
    // The first never writes.
    fill(&mut fleet, 2, session, 0..1000);
    for grant in [original, copied] {
        assert_eq!(fleet.await_delegation(ends, grant), GrantStatus::Delivered);
    }
    assert!(fleet.read_to_end(fleet.client, ends.client, here) == pattern(0..1000));
}

#[test]
fn copy_that_is_lost_leaves_the_range_with_whom_it_was_left_to() {
    let mut fleet = Fleet::null_tls(3, 1);
    let ends = fleet.connect();
    let (first, session) = fleet.join(ends, 1);
    let (second, _) = fleet.join(ends, 2);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let original = delegate(&mut fleet, ends, there, first, 0..1000);
    let copied = copy(&mut fleet, ends, there, second, 0..1000).unwrap();
    fleet.world.crash(fleet.servers[2]);
    assert!(matches!(fleet.await_delegation(ends, copied), GrantStatus::Lost { .. }));
    assert!(!write_at(&mut fleet, ends, there, 0..1000), "it is still the first one's");
    fill(&mut fleet, 1, session, 0..1000);
    fleet.finish(fleet.servers[0], ends.primary, there);
    assert_eq!(fleet.await_delegation(ends, original), GrantStatus::Delivered);
    assert!(fleet.read_to_end(fleet.client, ends.client, here) == pattern(0..1000));
}

#[test]
fn copy_outlives_the_range_it_was_made_of() {
    let mut fleet = Fleet::null_tls(3, 1);
    let ends = fleet.connect();
    let (first, _) = fleet.join(ends, 1);
    let (second, session) = fleet.join(ends, 2);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let original = delegate(&mut fleet, ends, there, first, 0..1000);
    let copied = copy(&mut fleet, ends, there, second, 0..1000).unwrap();
    fleet.world.crash(fleet.servers[1]);
    assert!(matches!(fleet.await_delegation(ends, original), GrantStatus::Lost { .. }));
    fill(&mut fleet, 2, session, 0..1000);
    assert_eq!(fleet.await_delegation(ends, copied), GrantStatus::Delivered);
    assert!(!write_at(&mut fleet, ends, there, 0..1000), "it has arrived");
    fleet.finish(fleet.servers[0], ends.primary, there);
    assert!(fleet.read_to_end(fleet.client, ends.client, here) == pattern(0..1000));
}

#[test]
fn what_the_primary_wrote_may_be_copied_and_what_nobody_was_given_not() {
    let mut fleet = Fleet::null_tls(2, 1);
    let ends = fleet.connect();
    let (path, _) = fleet.join(ends, 1);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let refused = copy(&mut fleet, ends, there, path, 0..1000);
    assert_eq!(refused, Err(DelegateError::Uncovered { start: 0, end: 1000 }));
    assert!(write_at(&mut fleet, ends, there, 0..1000));
    let copied = copy(&mut fleet, ends, there, path, 0..1000).unwrap();
    assert_eq!(copy(&mut fleet, ends, there, path, 500..1001), Err(DelegateError::Uncovered { start: 500, end: 1001 }));
    fleet.finish(fleet.servers[0], ends.primary, there);
    // The primary's bytes are there before the copy is asked for.
    assert_eq!(fleet.await_delegation(ends, copied), GrantStatus::Delivered);
    assert!(fleet.read_to_end(fleet.client, ends.client, here) == pattern(0..1000));
}

// [P-8.8]
#[test]
fn primary_makes_no_more_copies_than_a_client_bears_with() {
    let mut fleet = Fleet::null_tls(2, 1);
    let ends = fleet.connect_with(fleet.pki.client().limits(Limits::default()));
    let (path, _) = fleet.join(ends, 1);
    let (_, there) = fleet.open(ends, Dir::Bi);
    assert!(write_at(&mut fleet, ends, there, 0..1000));
    // What arrived is delivered at once; nothing is to arrive.
    fleet.world.set_link_both(fleet.client, fleet.servers[0], kwik_sim::Link { loss: 1.0, ..Default::default() });
    let copies = (0..20).map(|_| copy(&mut fleet, ends, there, path, 0..1000)).collect::<Vec<_>>();
    assert_eq!(copies.iter().filter(|copy| copy.is_ok()).count(), 16);
    assert_eq!(copies[16], Err(DelegateError::TooMany));
}
