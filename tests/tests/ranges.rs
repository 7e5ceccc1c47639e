//! Ranges of one stream from several servers: credit, stalled readers, and ranges that are taken back or given up.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use kwik_core::{
    Dir, ErrorCode, GrantId, GrantStatus, Limits, PathId, ReadError, SessionHandle, StreamHandle, StreamOffset,
    TransportCode, WriteError,
};
use kwik_sim::Link;
use kwik_tests::{Ends, Fleet, LONG, pattern};

const MIB: u64 = 1 << 20;

/// A secondary that joined a session.
#[derive(Clone, Copy)]
struct JoinedServer {
    server: usize,
    path: PathId,
    session: SessionHandle,
}

/// A session with every server of a fleet.
fn all_joined(fleet: &mut Fleet) -> (Ends, Vec<JoinedServer>) {
    // The window of a stream stays at 1 MiB, however much comes.
    let mut limits = Limits::default();
    limits.bandwidth_delay_bytes_max = 64 * 1024;
    let ends = fleet.connect_with(fleet.pki.client().limits(limits));
    let members = (1..fleet.servers.len()).map(|server| {
        let (path, session) = fleet.join(ends, server);
        JoinedServer { server, path, session }
    });
    (ends, members.collect())
}

fn delegate(fleet: &mut Fleet, ends: Ends, stream: StreamHandle, to: JoinedServer, range: Range<u64>) -> GrantId {
    let mut session = fleet.world.session_mut(fleet.servers[0], ends.primary).expect("a session");
    session.stream_mut(stream).delegate_range(to.path, range, Bytes::from_static(b"please")).expect("it can").grant
}

/// Hands a part the next bytes of `range`, as many as it takes, and returns how many those were.
fn write_some(fleet: &mut Fleet, at: JoinedServer, part: StreamHandle, range: Range<u64>) -> u64 {
    let data = pattern(range);
    let mut session = fleet.world.session_mut(fleet.servers[at.server], at.session).expect("a session");
    let mut taken = 0;
    loop {
        match session.stream_mut(part).write_chunk(data.slice(taken..)) {
            Ok(0) | Err(WriteError::Blocked) => return taken as u64,
            Ok(more) => taken += more,
            Err(error) => panic!("not written: {error}"),
        }
    }
}

fn is_delivered(fleet: &mut Fleet, ends: Ends, grant: GrantId) -> bool {
    let session = fleet.world.session_mut(fleet.servers[0], ends.primary).expect("a session");
    session.delegation(grant) == Some(GrantStatus::Delivered)
}

fn buffered_at_client(fleet: &mut Fleet, ends: Ends) -> u64 {
    fleet.world.session(fleet.client, ends.client).expect("a session").stats().bytes_buffered as u64
}

// [P-5.12] [P-6.16]
#[test]
fn tiny_frames_without_gaps_wait_ten_minutes_for_their_reader() {
    const WINDOW: u64 = 128 * 1024;
    let mut fleet = Fleet::null_tls(1, 1);
    let mut limits = Limits::default();
    limits.stream_window_bytes = WINDOW;
    let config = fleet.pki.client().limits(limits);
    let ends = fleet.connect_with(config);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let primary = fleet.servers[0];
    // Each write leaves in a frame of its own, until the window is full.
    for start in (0..WINDOW).step_by(32) {
        fleet.write_all(primary, ends.primary, there, &pattern(start..start + 32));
        fleet.world.run_for(Duration::from_micros(100));
    }
    fleet.world.run_for(Duration::from_secs(600));
    assert!(buffered_at_client(&mut fleet, ends) >= WINDOW, "the whole window is there");
    fleet.write_all(primary, ends.primary, there, &pattern(WINDOW..WINDOW + 1000));
    fleet.finish(primary, ends.primary, there);
    assert!(fleet.read_to_end(fleet.client, ends.client, here) == pattern(0..WINDOW + 1000));
    let left = buffered_at_client(&mut fleet, ends);
    assert!(left < 4096, "{left} bytes are more than what an open stream costs");
    let session = fleet.world.session_mut(fleet.client, ends.client).unwrap();
    let packets = session.stats().paths[0].packets_received;
    assert!(packets >= WINDOW / 32, "{packets} packets: the frames were not tiny");
}

// [P-5.10] [P-5.12]
#[test]
fn slow_server_at_the_head_may_always_send_while_a_fast_one_fills_the_window() {
    const HEAD: u64 = 64 * 1024;
    const TOTAL: u64 = 4 * MIB;
    let mut fleet = Fleet::null_tls(3, 1);
    let (ends, members) = all_joined(&mut fleet);
    let (client, slow, fast) = (fleet.client, members[0], members[1]);
    let link = Link::with_rate(200_000, Duration::from_millis(200));
    fleet.world.set_link_both(client, fleet.servers[slow.server], link);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let head = delegate(&mut fleet, ends, there, slow, 0..HEAD);
    let rest = delegate(&mut fleet, ends, there, fast, HEAD..TOTAL);
    fleet.finish(fleet.servers[0], ends.primary, there);
    let slow_part = fleet.accept(slow.server, slow.session, Dir::Bi);
    let fast_part = fleet.accept(fast.server, fast.session, Dir::Bi);

    // Nothing is read: the fast one comes as far as the window does, and its buffer.
    let mut written = HEAD;
    for _ in 0..100 {
        written += write_some(&mut fleet, fast, fast_part, written..TOTAL.min(written + MIB));
        fleet.world.run_for(Duration::from_millis(10));
    }
    assert!((MIB..3 * MIB).contains(&written), "{written} bytes were taken");
    assert_eq!(write_some(&mut fleet, fast, fast_part, written..TOTAL), 0, "it is held back");
    assert_eq!(write_some(&mut fleet, slow, slow_part, 0..HEAD), HEAD);
    assert_eq!(fleet.await_delegation(ends, head), GrantStatus::Delivered, "the slow one never is");
    let buffered = buffered_at_client(&mut fleet, ends);
    assert!((MIB..MIB * 5 / 4).contains(&buffered), "{buffered} bytes wait for the reader");

    let mut data = Vec::new();
    let all_came = fleet.world.run_until(LONG, |world| {
        let mut session = world.session_mut(fleet.servers[fast.server], fast.session).unwrap();
        while written < TOTAL {
            let piece = pattern(written..TOTAL.min(written + 65_536));
            let Ok(taken) = session.stream_mut(fast_part).write_chunk(piece) else { break };
            written += taken as u64;
        }
        let mut session = world.session_mut(client, ends.client).unwrap();
        while let Ok(chunk) = session.stream_mut(here).read(usize::MAX) {
            data.extend_from_slice(&chunk.data);
        }
        session.stream_mut(here).read(1) == Err(ReadError::Finished)
    });
    assert!(all_came, "stuck after {} bytes", data.len());
    assert!(data == pattern(0..TOTAL));
    assert_eq!(fleet.await_delegation(ends, rest), GrantStatus::Delivered);
}

/// How long three streams of one carrier take, if `unread` bytes of a fourth were written, and nobody reads it.
fn time_of_three_streams(unread: u64) -> Duration {
    const EACH: u64 = 512 * 1024;
    let mut fleet = Fleet::null_tls(1, 1);
    let (client, primary) = (fleet.client, fleet.servers[0]);
    fleet.world.set_link_both(client, primary, Link::with_rate(20_000_000, Duration::from_millis(10)));
    let ends = fleet.connect();
    let streams: Vec<_> = (0..4).map(|_| fleet.open(ends, Dir::Bi)).collect();
    let (_, ignored) = streams[3];
    let data = pattern(0..unread);
    let mut session = fleet.world.session_mut(primary, ends.primary).expect("a session");
    let taken = session.stream_mut(ignored).write_chunk(data.clone()).expect("it can");
    fleet.world.run_for(Duration::from_secs(10));
    // What waits for credit beyond that is in nobody's way either.
    let mut session = fleet.world.session_mut(primary, ends.primary).expect("a session");
    let more = session.stream_mut(ignored).write_chunk(data.slice(taken..)).expect("it can");
    assert!(unread == 0 || (taken as u64 >= MIB && more > 0));

    let before = fleet.world.elapsed();
    let mut written = [0u64; 3];
    let mut read = [0u64; 3];
    let mut carriers_most = 0;
    let done = fleet.world.run_until(LONG, |world| {
        let mut session = world.session_mut(primary, ends.primary).expect("a session");
        carriers_most = carriers_most.max(session.stats().paths[0].carriers);
        for ((_, there), written) in streams.iter().zip(&mut written) {
            while *written < EACH {
                let piece = pattern(*written..EACH.min(*written + 65_536));
                let Ok(taken) = session.stream_mut(*there).write_chunk(piece) else { break };
                *written += taken as u64;
            }
        }
        let mut session = world.session_mut(client, ends.client).expect("a session");
        for ((here, _), read) in streams.iter().zip(&mut read) {
            while let Ok(chunk) = session.stream_mut(*here).read(usize::MAX) {
                *read += chunk.data.len() as u64;
            }
        }
        read == [EACH; 3]
    });
    assert!(done, "{read:?} bytes came");
    assert!(carriers_most <= 2, "{carriers_most} carriers, one for each direction");
    fleet.world.elapsed() - before
}

// [P-6.8]
#[test]
fn stream_that_nobody_reads_costs_its_neighbours_on_the_carrier_nothing() {
    let (alone, beside) = (time_of_three_streams(0), time_of_three_streams(2 * MIB));
    assert!(beside.as_secs_f64() * 0.95 <= alone.as_secs_f64(), "{beside:?}, and {alone:?} without it");
}

// [P-8.15]
#[test]
fn revoked_range_that_another_server_writes_arrives_exactly_once() {
    const LEN: u64 = 100_000;
    let mut fleet = Fleet::null_tls(3, 1);
    let (ends, members) = all_joined(&mut fleet);
    let (client, old, new) = (fleet.client, members[0], members[1]);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let grant = delegate(&mut fleet, ends, there, old, 0..LEN);
    let part = fleet.accept(old.server, old.session, Dir::Bi);
    fleet.world.run_for(Duration::from_millis(100));
    // What the old server writes is under way for half a second, and differs in every byte.
    fleet.world.set_link(fleet.servers[old.server], client, Link::with_delay(Duration::from_millis(500)));
    let other: Vec<u8> = pattern(0..LEN).iter().map(|byte| !byte).collect();
    fleet.write_all(fleet.servers[old.server], old.session, part, &other);
    fleet.world.run_for(Duration::from_millis(50));
    fleet.world.session_mut(fleet.servers[0], ends.primary).unwrap().revoke(grant).unwrap();
    let GrantStatus::Lost { missing, .. } = fleet.await_delegation(ends, grant) else { panic!("not lost") };
    assert_eq!(missing, std::iter::once(0..LEN).collect::<Vec<_>>(), "all of it is on its way");

    let again = delegate(&mut fleet, ends, there, new, 0..LEN);
    fleet.finish(fleet.servers[0], ends.primary, there);
    let part = fleet.accept(new.server, new.session, Dir::Bi);
    assert_eq!(write_some(&mut fleet, new, part, 0..LEN / 2), LEN / 2);
    // The late bytes come between the two halves.
    fleet.world.run_for(Duration::from_secs(2));
    assert_eq!(write_some(&mut fleet, new, part, LEN / 2..LEN), LEN / 2);
    assert_eq!(fleet.await_delegation(ends, again), GrantStatus::Delivered);
    assert!(fleet.read_to_end(client, ends.client, here) == pattern(0..LEN));
    let session = fleet.world.session_mut(fleet.servers[0], ends.primary).unwrap();
    assert!(session.path(old.path).unwrap().state.is_usable(), "nobody is blamed for them");
    let session = fleet.world.session_mut(client, ends.client).unwrap();
    let stats = session.stats().paths.into_iter().find(|path| path.id == old.path).unwrap();
    assert!(stats.packets_received > 0, "late bytes came");
    assert_eq!(stats.bytes_received, 0, "they were dropped, and are no merit");
}

/// Who ends a stream that three servers write.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ender {
    Primary,
    Client,
    Both,
}

/// Ends a stream in the middle, and returns how long its writers went on.
fn end_in_the_middle(fleet: &mut Fleet, ends: Ends, members: &[JoinedServer], ender: Ender) -> Duration {
    let (client, primary) = (fleet.client, fleet.servers[0]);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let range = |number: u64| number * 100_000..(number + 1) * 100_000;
    let grants: Vec<_> =
        members.iter().zip(1..).map(|(member, number)| delegate(fleet, ends, there, *member, range(number))).collect();
    let parts: Vec<_> = members.iter().map(|member| fleet.accept(member.server, member.session, Dir::Bi)).collect();
    // Until nothing but the bytes of the stream is under way.
    fleet.world.run_for(Duration::from_millis(60));
    let mut writers = Vec::new();
    for ((member, part), number) in members.iter().zip(parts).zip(1..) {
        write_some(fleet, *member, part, range(number).start..range(number).end - 50_000);
        writers.push((fleet.servers[member.server], member.session, part));
    }
    let data = pattern(0..50_000);
    let mut session = fleet.world.session_mut(primary, ends.primary).expect("a session");
    session.stream_mut(there).write_at(StreamOffset(0), data).expect("it can");
    fleet.world.run_for(Duration::from_millis(12));

    let before = fleet.world.elapsed();
    if ender != Ender::Primary {
        fleet.world.session_mut(client, ends.client).expect("a session").stream_mut(here).stop(7).expect("it can");
    }
    if ender != Ender::Client {
        fleet.world.session_mut(primary, ends.primary).expect("a session").stream_mut(there).reset(8).expect("it can");
    }
    let stopped = fleet.world.run_until(LONG, |world| {
        let is_done = world.session(primary, ends.primary).expect("a session").stream(there).is_send_done();
        is_done
            && writers
                .iter()
                .all(|(node, at, part)| world.session(*node, *at).expect("a session").stream(*part).is_send_done())
    });
    assert!(stopped, "{ender:?}: somebody writes on");
    let took = fleet.world.elapsed() - before;
    for grant in grants {
        let state = fleet.await_delegation(ends, grant);
        let is_gone = matches!(state, GrantStatus::Lost { code, .. } if code == TransportCode::STREAM_GONE.into());
        assert!(is_gone, "{ender:?}: {state:?}");
    }
    let mut session = fleet.world.session_mut(client, ends.client).expect("a session");
    let end = session.stream_mut(here).read(1);
    let expected = if ender == Ender::Primary {
        Err(ReadError::Reset(ErrorCode::Application(8)))
    } else {
        Err(ReadError::ClosedStream)
    };
    assert_eq!(end, expected);
    release(fleet, client, ends.client, here);
    release(fleet, primary, ends.primary, there);
    for (node, session, part) in writers {
        release(fleet, node, session, part);
    }
    took
}

fn release(fleet: &mut Fleet, node: kwik_sim::NodeId, session: SessionHandle, stream: StreamHandle) {
    let mut session = fleet.world.session_mut(node, session).expect("a session");
    session.stream_mut(stream).release_send();
    session.stream_mut(stream).release_recv();
}

// [P-5.13] [P-8.17]
#[test]
fn reset_and_stop_end_three_writers_in_a_round_trip_and_leave_nothing() {
    let mut fleet = Fleet::null_tls(3, 1);
    let (ends, members) = all_joined(&mut fleet);
    // More often than streams may be open at once, and than their windows fit into the budget.
    for ender in [Ender::Primary, Ender::Client, Ender::Both].into_iter().cycle().take(150) {
        let took = end_in_the_middle(&mut fleet, ends, &members, ender);
        assert!(took <= Duration::from_millis(45), "{ender:?}: the writers went on for {took:?}");
        fleet.world.run_for(Duration::from_millis(40));
    }
    fleet.world.run_for(Duration::from_secs(1));
    let servers: Vec<_> = members.iter().map(|member| (fleet.servers[member.server], member.session)).collect();
    for (node, session) in [(fleet.client, ends.client), (fleet.servers[0], ends.primary)].into_iter().chain(servers) {
        let stats = fleet.world.session(node, session).unwrap().stats();
        assert_eq!((stats.streams_open, stats.bytes_buffered), (0, 0), "at {node}");
    }
}

// [P-5.10] [P-5.11]
#[test]
fn two_servers_may_fill_the_window_together() {
    let mut fleet = Fleet::null_tls(3, 1);
    let (ends, members) = all_joined(&mut fleet);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let mut grants = Vec::new();
    for (member, range) in members.iter().zip([0..MIB / 2, MIB / 2..MIB]) {
        grants.push(delegate(&mut fleet, ends, there, *member, range.clone()));
        let part = fleet.accept(member.server, member.session, Dir::Bi);
        assert_eq!(write_some(&mut fleet, *member, part, range), MIB / 2);
    }
    fleet.finish(fleet.servers[0], ends.primary, there);
    for grant in grants {
        assert_eq!(fleet.await_delegation(ends, grant), GrantStatus::Delivered, "nothing was read");
    }
    assert!(fleet.read_to_end(fleet.client, ends.client, here) == pattern(0..MIB));
}

// [P-5.10] [P-5.11]
#[test]
fn two_servers_that_want_more_than_the_window_wait_for_the_reader_and_no_longer() {
    const TOTAL: u64 = 3 * MIB;
    let mut fleet = Fleet::null_tls(3, 1);
    let (ends, members) = all_joined(&mut fleet);
    let (here, there) = fleet.open(ends, Dir::Bi);
    // Pieces in turns, so that both always have some inside the window and some beyond.
    let pieces: Vec<_> = (0..TOTAL / 131_072).map(|number| number * 131_072..(number + 1) * 131_072).collect();
    let mut parts = Vec::new();
    for (piece, member) in pieces.iter().zip(members.iter().cycle()) {
        let grant = delegate(&mut fleet, ends, there, *member, piece.clone());
        let part = fleet.accept(member.server, member.session, Dir::Bi);
        assert_eq!(write_some(&mut fleet, *member, part, piece.clone()), 131_072, "buffers take it");
        parts.push(grant);
    }
    fleet.finish(fleet.servers[0], ends.primary, there);
    fleet.world.run_for(Duration::from_secs(5));
    let count = parts.iter().filter(|grant| is_delivered(&mut fleet, ends, **grant)).count();
    assert_eq!(count, 8, "pieces in a window of 1 MiB");
    assert!(fleet.read_to_end(fleet.client, ends.client, here) == pattern(0..TOTAL));
    for grant in parts {
        assert_eq!(fleet.await_delegation(ends, grant), GrantStatus::Delivered);
    }
}
