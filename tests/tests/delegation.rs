//! One stream, written by several servers.

use std::iter;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use kwik_core::{
    DelegateError, Dir, ErrorCode, GrantStatus, Limits, PathId, ReadError, Role, StreamOffset, TransportCode,
};
use kwik_sim::Link;
use kwik_tests::{Ends, Fleet, LONG, pattern};

/// Writes at the secondary what its grant asks for.
fn serve_grant(fleet: &mut Fleet, server: usize, session: kwik_core::SessionHandle) -> Range<u64> {
    let node = fleet.servers[server];
    let part = fleet.accept(server, session, Dir::Bi);
    let range = fleet.world.session(node, session).expect("a session").stream(part).grant().expect("a grant").range;
    fleet.write_all(node, session, part, &pattern(range.clone()));
    fleet.finish(node, session, part);
    range
}

fn delegate(
    fleet: &mut Fleet,
    ends: Ends,
    stream: kwik_core::StreamHandle,
    path: PathId,
    len: u64,
) -> kwik_core::GrantId {
    let node = fleet.servers[0];
    let mut session = fleet.world.session_mut(node, ends.primary).expect("a session");
    session.stream_mut(stream).delegate(path, len, Bytes::from_static(b"please")).expect("delegated").grant
}

fn lost(code: TransportCode, missing: Range<u64>) -> GrantStatus {
    GrantStatus::Lost { code: code.into(), missing: iter::once(missing).collect() }
}

// [P-6.11]
#[test]
fn secondary_fills_gap_left_by_primary() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let primary = fleet.servers[0];

    fleet.write_all(primary, ends.primary, there, &pattern(0..10));
    let grant = delegate(&mut fleet, ends, there, path, 90);
    fleet.write_all(primary, ends.primary, there, &pattern(100..110));
    fleet.finish(primary, ends.primary, there);

    assert_eq!(serve_grant(&mut fleet, 1, secondary), 10..100);
    let data = fleet.read_to_end(fleet.client, ends.client, here);
    assert_eq!(data, pattern(0..110));
    assert_eq!(fleet.await_delegation(ends, grant), GrantStatus::Delivered);
}

#[test]
fn delegated_stream_yields_the_request_then_ends() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (_here, there) = fleet.open(ends, Dir::Bi);
    delegate(&mut fleet, ends, there, path, 5);
    let node = fleet.servers[1];
    let part = fleet.accept(1, secondary, Dir::Bi);
    assert_eq!(fleet.read_to_end(node, secondary, part), b"please");
    let mut session = fleet.world.session_mut(node, secondary).unwrap();
    assert_eq!(session.role(), Role::Secondary);
    assert!(session.open_stream(Dir::Bi).is_err());
}

// [P-6.11]
#[test]
fn four_writers_fill_one_stream_in_any_order() {
    let mut fleet = Fleet::new(4);
    let ends = fleet.connect();
    let members: Vec<_> = (1..4).map(|server| (server, fleet.join(ends, server))).collect();
    let (here, there) = fleet.open(ends, Dir::Bi);
    let primary = fleet.servers[0];
    let part = 65_537;
    for _ in 0..5 {
        for (_, (path, _)) in &members {
            delegate(&mut fleet, ends, there, *path, part);
        }
    }
    let total = part * 15;
    fleet.write_all(primary, ends.primary, there, &pattern(total..total + 100));
    fleet.finish(primary, ends.primary, there);
    let mut data = Vec::new();
    for _ in 0..5 {
        for (server, (_, session)) in members.iter().rev() {
            serve_grant(&mut fleet, *server, *session);
            data.extend(fleet.read_available(fleet.client, ends.client, here));
        }
    }
    data.extend(fleet.read_to_end(fleet.client, ends.client, here));
    assert_eq!(data.len() as u64, total + 100);
    assert!(data == pattern(0..total + 100));
}

#[test]
fn primary_fills_a_hole_behind_its_cursor() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let (here, there) = fleet.open(ends, Dir::Bi);
    let primary = fleet.servers[0];
    let mut session = fleet.world.session_mut(primary, ends.primary).unwrap();
    session.stream_mut(there).write_at(StreamOffset(50), pattern(50..80)).unwrap();
    session.stream_mut(there).write_at(StreamOffset(0), pattern(0..50)).unwrap();
    session.stream_mut(there).finish().unwrap();
    assert_eq!(fleet.read_to_end(fleet.client, ends.client, here), pattern(0..80));
}

// [P-8.16] [P-9.3]
#[test]
fn crashed_secondary_is_lost_with_exactly_what_is_missing() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let primary = fleet.servers[0];
    let grant = delegate(&mut fleet, ends, there, path, 1000);
    fleet.finish(primary, ends.primary, there);

    let node = fleet.servers[1];
    let part = fleet.accept(1, secondary, Dir::Bi);
    fleet.write_all(node, secondary, part, &pattern(0..400));
    fleet.world.run_for(Duration::from_millis(50));
    let before = fleet.world.elapsed();
    fleet.world.crash(node);
    let state = fleet.await_delegation(ends, grant);
    let took = fleet.world.elapsed() - before;
    assert!(took <= Duration::from_millis(3500), "noticed after {took:?}");
    assert_eq!(state, lost(TransportCode::TIMED_OUT, 400..1000));
    assert_eq!(fleet.await_death(ends, path).code, TransportCode::TIMED_OUT.into());

    let mut session = fleet.world.session_mut(primary, ends.primary).unwrap();
    session.stream_mut(there).write_at(StreamOffset(400), pattern(400..1000)).unwrap();
    assert_eq!(fleet.read_to_end(fleet.client, ends.client, here), pattern(0..1000));
}

// [P-8.5] [P-8.16]
#[test]
fn removed_path_gives_back_its_grant() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (_here, there) = fleet.open(ends, Dir::Bi);
    let grant = delegate(&mut fleet, ends, there, path, 1000);
    fleet.accept(1, secondary, Dir::Bi);
    let primary = fleet.servers[0];
    fleet.world.session_mut(primary, ends.primary).unwrap().remove_path(path).unwrap();
    assert_eq!(fleet.await_delegation(ends, grant), lost(TransportCode::PATH_REMOVED, 0..1000));
    assert_eq!(fleet.await_death(ends, path).code, TransportCode::PATH_REMOVED.into());
    let mut session = fleet.world.session_mut(primary, ends.primary).unwrap();
    let refused = session.stream_mut(there).delegate(path, 1, Bytes::new());
    assert_eq!(refused, Err(DelegateError::PathDead(path)));
    let refused = session.stream_mut(there).delegate(PathId(9), 1, Bytes::new());
    assert_eq!(refused, Err(DelegateError::PathUnknown(PathId(9))));
}

// [P-8.13]
#[test]
fn secondary_that_finishes_short_loses_the_rest_only() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (_here, there) = fleet.open(ends, Dir::Bi);
    let grant = delegate(&mut fleet, ends, there, path, 1000);
    let node = fleet.servers[1];
    let part = fleet.accept(1, secondary, Dir::Bi);
    fleet.write_all(node, secondary, part, &pattern(0..300));
    fleet.finish(node, secondary, part);
    let state = fleet.await_delegation(ends, grant);
    assert!(matches!(state, GrantStatus::Lost { missing, .. } if missing.iter().eq([&(300..1000)])));
}

// [P-8.15]
#[test]
fn revoked_grant_ends_and_its_writer_hears_of_it() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let grant = delegate(&mut fleet, ends, there, path, 1000);
    let node = fleet.servers[1];
    let part = fleet.accept(1, secondary, Dir::Bi);
    let primary = fleet.servers[0];
    fleet.world.session_mut(primary, ends.primary).unwrap().revoke(grant).unwrap();
    let code = ErrorCode::Transport(TransportCode::REVOKED);
    assert_eq!(fleet.await_delegation(ends, grant), lost(TransportCode::REVOKED, 0..1000));
    let notified = fleet
        .world
        .run_until(LONG, |world| world.session(node, secondary).unwrap().stream(part).stop_code() == Some(code));
    assert!(notified);
    let mut session = fleet.world.session_mut(fleet.client, ends.client).unwrap();
    assert_eq!(session.stream_mut(here).read(1), Err(ReadError::Blocked));
}

// [P-8.17]
#[test]
fn client_that_wants_no_more_stops_every_writer() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let grant = delegate(&mut fleet, ends, there, path, 1000);
    let node = fleet.servers[1];
    let part = fleet.accept(1, secondary, Dir::Bi);
    fleet.world.session_mut(fleet.client, ends.client).unwrap().stream_mut(here).stop(7).unwrap();
    let state = fleet.await_delegation(ends, grant);
    assert!(matches!(state, GrantStatus::Lost { code, .. } if code == TransportCode::STREAM_GONE.into()));
    let primary = fleet.servers[0];
    let notified = fleet.world.run_until(LONG, |world| {
        let code = Some(ErrorCode::Application(7));
        world.session(primary, ends.primary).unwrap().stream(there).stop_code() == code
            && world.session(node, secondary).unwrap().stream(part).stop_code() == code
    });
    assert!(notified);
}

// [P-8.11] [P-8.15]
#[test]
fn grant_that_was_revoked_on_its_way_is_taken_back_behind_it() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (_, there) = fleet.open(ends, Dir::Bi);
    let (client, primary, node) = (fleet.client, fleet.servers[0], fleet.servers[1]);
    fleet.world.set_link_both(client, node, Link::with_delay(Duration::from_millis(300)));
    let grant = delegate(&mut fleet, ends, there, path, 1000);
    fleet.world.run_for(Duration::from_millis(100));
    fleet.world.session_mut(primary, ends.primary).unwrap().revoke(grant).unwrap();
    assert_eq!(fleet.await_delegation(ends, grant), lost(TransportCode::REVOKED, 0..1000));
    let part = fleet.accept(1, secondary, Dir::Bi);
    let notified = fleet.world.run_until(LONG, |world| {
        let code = world.session(node, secondary).unwrap().stream(part).stop_code();
        code == Some(TransportCode::REVOKED.into())
    });
    assert!(notified, "the secondary writes for nobody");
}

// [P-8.9]
#[test]
fn grant_that_was_revoked_before_it_was_forwarded_reaches_no_secondary() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (_, there) = fleet.open(ends, Dir::Bi);
    let primary = fleet.servers[0];
    let target = fleet.target(1);
    let path = fleet.add_path(ends, target);
    let revoked = delegate(&mut fleet, ends, there, path, 1000);
    // The client has it, and nobody to carry it to.
    fleet.world.run_for(Duration::from_millis(15));
    fleet.world.session_mut(primary, ends.primary).unwrap().revoke(revoked).unwrap();
    let next = delegate(&mut fleet, ends, there, path, 1000);
    assert_eq!(fleet.await_delegation(ends, revoked), lost(TransportCode::REVOKED, 0..1000));
    let secondary = fleet.await_incoming(1);
    let (node, part) = (fleet.servers[1], fleet.accept(1, secondary, Dir::Bi));
    let grant = fleet.world.session(node, secondary).unwrap().stream(part).grant().map(|granted| granted.grant);
    assert_eq!(grant, Some(next), "the first that the secondary hears of");
}

// [P-5.11] [P-8.11]
#[test]
fn credit_reaches_a_secondary_that_was_connecting_when_it_was_given() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (here, there) = fleet.open(ends, Dir::Bi);
    let (primary, client) = (fleet.servers[0], fleet.client);
    fleet.world.set_link_both(client, fleet.servers[1], Link::with_delay(Duration::from_millis(300)));
    let target = fleet.target(1);
    let path = fleet.add_path(ends, target);
    let start = 2 << 20;
    let mut session = fleet.world.session_mut(primary, ends.primary).unwrap();
    let range = start..start + 1000;
    let grant = session.stream_mut(there).delegate_range(path, range, Bytes::new()).unwrap().grant;
    // The client notes the grant with the limit of now; all further credit comes while nobody is there to hear it.
    let data = pattern(0..start);
    let (mut written, mut read) = (0, 0);
    let consumed = fleet.world.run_until(LONG, |world| {
        let mut server = world.session_mut(primary, ends.primary).unwrap();
        written += server.stream_mut(there).write_chunk(data.slice(written..)).unwrap_or(0);
        let mut session = world.session_mut(client, ends.client).unwrap();
        while let Ok(chunk) = session.stream_mut(here).read(usize::MAX) {
            read += chunk.data.len() as u64;
        }
        read == start
    });
    assert!(consumed);
    let secondary = fleet.await_incoming(1);
    let (node, part) = (fleet.servers[1], fleet.accept(1, secondary, Dir::Bi));
    fleet.write_all(node, secondary, part, &pattern(start..start + 1000));
    assert_eq!(fleet.await_delegation(ends, grant), GrantStatus::Delivered);
}

/// What is written far ahead of the client's credit fills the send buffer of the primary. What a dead secondary leaves has to
/// find room in it, since credit comes only when the client has that.
#[test]
fn range_of_a_dead_secondary_finds_room_behind_what_was_written_far_ahead() {
    const LEN: u64 = 16 << 20;
    const PART: u64 = LEN / 4;
    let plan = pattern(0..LEN);
    let bytes =
        |range: &Range<u64>| plan.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
    let mut fleet = Fleet::new(3);
    // Nothing far ahead of the reader has credit, however much comes.
    let mut limits = Limits::default();
    limits.bandwidth_delay_bytes_max = 1 << 20;
    let ends = fleet.connect_with(fleet.pki.client().limits(limits));
    let members = [1, 2].map(|server| (fleet.servers[server], fleet.join(ends, server)));
    let (here, there) = fleet.open(ends, Dir::Bi);
    let [doomed, _] = members.map(|(_, (path, _))| delegate(&mut fleet, ends, there, path, PART));
    let parts = [1, 2].map(|server: usize| fleet.accept(server, members[server - 1].1.1, Dir::Bi));
    let mut left = [0..PART, PART..2 * PART];
    let mut ahead: Vec<_> = iter::once(2 * PART..LEN).collect();
    let (mut read, mut lost) = (0, false);
    let (client, primary) = (fleet.client, fleet.servers[0]);
    let done = fleet.world.run_until(LONG, |world| {
        for ((node, (_, session)), (part, left)) in members.into_iter().zip(parts.into_iter().zip(&mut left)) {
            let Some(mut session) = world.session_mut(node, session) else { continue };
            while let Ok(taken @ 1..) = session.stream_mut(part).write_chunk(bytes(left)) {
                left.start += taken as u64;
            }
        }
        let mut session = world.session_mut(primary, ends.primary).expect("a session");
        for range in &mut ahead {
            while let Ok(taken @ 1..) = session.stream_mut(there).write_at(StreamOffset(range.start), bytes(range)) {
                range.start += taken as u64;
            }
        }
        if let Some(GrantStatus::Lost { missing, .. }) = session.delegation(doomed).filter(|_| !lost) {
            assert!(
                session.stream_mut(there).write_at(StreamOffset(ahead[0].start), bytes(&ahead[0])).is_err(),
                "it waits"
            );
            (lost, ahead) = (true, ahead.drain(..).chain(missing).collect());
        }
        let mut session = world.session_mut(client, ends.client).expect("a session");
        while let Ok(chunk) = session.stream_mut(here).read(usize::MAX) {
            assert_eq!(chunk.data, bytes(&(read..read + chunk.data.len() as u64)), "at {read}");
            read += chunk.data.len() as u64;
        }
        if read > PART / 2 && !world.is_crashed(members[0].0) {
            world.crash(members[0].0);
        }
        read == LEN
    });
    assert!(done && lost, "stalled after {read} bytes: {ahead:?} to be written");
}
