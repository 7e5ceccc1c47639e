//! Streams between the client and its primary: limits, windows, carriers, ends.

use std::time::Duration;

use kwik_core::{Dir, ErrorCode, Limits, OpenError, ReadError, SessionEvent, StreamEvent, WriteError};
use kwik_sim::{Link, World};
use kwik_tests::{Fleet, LONG, pattern};

// [P-5.7]
#[test]
fn stream_is_accepted_before_any_byte_is_written() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let sent = |fleet: &mut Fleet| {
        let stats = fleet.world.session(fleet.client, ends.client).unwrap().stats();
        (stats.paths[0].bytes_sent, stats.paths[0].carriers)
    };
    let before = sent(&mut fleet);
    let (here, there) = fleet.open(ends, Dir::Bi);
    assert_eq!(sent(&mut fleet), before, "opening a stream used a carrier");
    let id = fleet.world.session(fleet.client, ends.client).unwrap().stream(here).id();
    assert_eq!(fleet.world.session(fleet.servers[0], ends.primary).unwrap().stream(there).id(), id);
}

#[test]
fn server_opens_streams_too() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let (client, server) = (fleet.client, fleet.servers[0]);
    for dir in [Dir::Bi, Dir::Uni] {
        let here = fleet.world.session_mut(server, ends.primary).unwrap().open_stream(dir).unwrap();
        let there = fleet.accept_at(client, ends.client, dir);
        fleet.write_all(server, ends.primary, here, b"news");
        fleet.finish(server, ends.primary, here);
        assert_eq!(fleet.read_to_end(client, ends.client, there), b"news");
    }
}

#[test]
fn open_fails_at_the_limit_and_an_event_tells_when_to_try_again() {
    let mut limits = Limits::default();
    limits.streams_bidi_max = 16;
    let mut fleet = Fleet::with(1, |config| config.limits(limits.clone()));
    let ends = fleet.connect();
    let (client, server) = (fleet.client, fleet.servers[0]);
    let streams: Vec<_> = (0..16).map(|_| fleet.open(ends, Dir::Bi)).collect();
    let refused = fleet.world.session_mut(client, ends.client).unwrap().open_stream(Dir::Bi);
    assert_eq!(refused, Err(OpenError::LimitReached { dir: Dir::Bi, limit: 16 }));

    let (here, there) = streams[3];
    for (node, session, stream) in [(client, ends.client, here), (server, ends.primary, there)] {
        let mut session = fleet.world.session_mut(node, session).unwrap();
        session.stream_mut(stream).release_send();
        session.stream_mut(stream).release_recv();
    }
    let available = SessionEvent::Stream(StreamEvent::Available { dir: Dir::Bi });
    fleet.await_event(client, |event| *event == available);
    assert!(fleet.world.session_mut(client, ends.client).unwrap().open_stream(Dir::Bi).is_ok());
}

#[test]
fn thousand_streams_share_few_carriers() {
    let mut limits = Limits::default();
    limits.streams_bidi_max = 1024;
    limits.reassembly_budget_bytes = 64 << 20;
    let mut fleet = Fleet::with(1, |config| config.limits(limits.clone()));
    let config = fleet.pki.client().limits(limits);
    let ends = fleet.connect_with(config);
    let (client, server) = (fleet.client, fleet.servers[0]);
    let streams: Vec<_> = (0..1000_u64)
        .map(|number| {
            let mut session = fleet.world.session_mut(client, ends.client).unwrap();
            let stream = session.open_stream(Dir::Bi).unwrap();
            session.stream_mut(stream).write(&pattern(number..number + 1000)).unwrap();
            session.stream_mut(stream).finish().unwrap();
            stream
        })
        .collect();
    for number in 0..1000_u64 {
        let there = fleet.accept(0, ends.primary, Dir::Bi);
        assert_eq!(fleet.read_to_end(server, ends.primary, there), pattern(number..number + 1000));
        fleet.finish(server, ends.primary, there);
    }
    let carriers = fleet.world.session(client, ends.client).unwrap().stats().paths[0].carriers;
    assert!(carriers <= Limits::default().carriers_max, "{carriers} carriers for 1,000 streams");
    for stream in streams {
        assert!(fleet.read_to_end(client, ends.client, stream).is_empty());
    }
    fleet.world.run_for(Duration::from_secs(1));
    let idle = fleet.world.session(client, ends.client).unwrap().stats().paths[0].carriers;
    assert!(idle <= 4, "{idle} carriers for no active stream");
}

// [P-5.12] [P-6.8]
#[test]
fn reader_that_does_not_read_holds_back_its_writer_only() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let (client, server) = (fleet.client, fleet.servers[0]);
    let stalled = fleet.open(ends, Dir::Bi);
    let mut written = 0;
    fleet.world.run_until(Duration::from_secs(5), |world| {
        let mut session = world.session_mut(client, ends.client).unwrap();
        while let Ok(len) = session.stream_mut(stalled.0).write(&[7; 10_000]) {
            written += len;
        }
        false
    });
    let window = usize::try_from(Limits::default().stream_window_bytes).unwrap();
    let buffer = Limits::default().send_buffer_stream_bytes;
    assert!((window..=window + buffer + 64 * 1024).contains(&written), "{written} bytes written");

    let data = pattern(0..3_000_000);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let mut received = Vec::new();
    let mut rest = &data[..];
    let done = fleet.world.run_until(LONG, |world| {
        let mut session = world.session_mut(client, ends.client).unwrap();
        while let Ok(len) = session.stream_mut(here).write(rest) {
            rest = &rest[len..];
            if rest.is_empty() {
                session.stream_mut(here).finish().unwrap();
                break;
            }
        }
        let mut session = world.session_mut(server, ends.primary).unwrap();
        loop {
            match session.stream_mut(there).read(usize::MAX) {
                Ok(chunk) => received.extend_from_slice(&chunk.data),
                Err(ReadError::Finished) => return true,
                Err(ReadError::Blocked) => return false,
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert!(done, "{} of {} bytes", received.len(), data.len());
    assert!(received == data);
}

/// A writer that was told of room and does nothing, since its write was cancelled, keeps nobody else waiting, even if nothing
/// more is ever sent.
#[test]
fn room_told_to_a_writer_that_does_not_come_is_told_to_the_next() {
    const WINDOW: usize = 16 * 1024;
    const BUFFER: usize = 28 * 1024;
    let small = |limits: &mut Limits| {
        limits.stream_window_initial_bytes = WINDOW as u64;
        limits.stream_window_bytes = WINDOW as u64;
        limits.bandwidth_delay_bytes_max = WINDOW as u64 / 4;
        limits.send_buffer_stream_bytes = BUFFER;
        limits.send_buffer_session_bytes = 4 * BUFFER + WINDOW;
    };
    let mut limits = Limits::default();
    small(&mut limits);
    let mut fleet = Fleet::with(1, |config| config.limits(limits.clone()));
    let ends = fleet.connect_with(fleet.pki.client().limits(limits.clone()));
    let client = fleet.client;
    let mut session = fleet.world.session_mut(client, ends.client).unwrap();
    let streams: Vec<_> = (0..10).map(|_| session.open_stream(Dir::Uni).unwrap()).collect();
    let (last, paused) = streams.split_last().unwrap();
    // Nobody reads: what comes after the window stays in the buffer.
    for stream in paused {
        assert_eq!(session.stream_mut(*stream).write(&[1; WINDOW]), Ok(WINDOW));
    }
    fleet.world.run_for(Duration::from_secs(1));
    let mut session = fleet.world.session_mut(client, ends.client).unwrap();
    let (full, waiting) = paused.split_at(4);
    for stream in full {
        assert_eq!(session.stream_mut(*stream).write(&[1; 2 * BUFFER]), Ok(BUFFER));
    }
    assert_eq!(session.stream_mut(*last).write(&[1; WINDOW]), Ok(WINDOW));
    for stream in waiting {
        assert_eq!(session.stream_mut(*stream).write(&[1; 100]), Err(WriteError::Blocked));
    }
    let is_notified = |world: &World, stream| {
        world.saw(client, |event| *event == SessionEvent::Stream(StreamEvent::Writable(stream)))
    };
    let notified =
        fleet.world.run_until(Duration::from_secs(1), |world| waiting.iter().all(|stream| is_notified(world, *stream)));
    let count = waiting.iter().filter(|stream| is_notified(&fleet.world, **stream)).count();
    assert!(notified, "{count} of {} were told", waiting.len());
}

#[test]
fn losses_cost_time_and_nothing_else() {
    let mut fleet = Fleet::new(1);
    let link = Link { loss: 0.05, ..Link::with_delay(Duration::from_millis(10)) };
    fleet.world.set_link_both(fleet.client, fleet.servers[0], link);
    let ends = fleet.connect();
    let (here, there) = fleet.open(ends, Dir::Uni);
    let data = pattern(0..500_000);
    fleet.write_all(fleet.client, ends.client, here, &data);
    fleet.finish(fleet.client, ends.client, here);
    let received = fleet.read_to_end(fleet.servers[0], ends.primary, there);
    assert!(received == data);
    assert!(fleet.world.link_stats(fleet.client, fleet.servers[0]).lost > 0);
}

#[test]
fn half_closed_stream_still_carries_the_other_way() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let (client, server) = (fleet.client, fleet.servers[0]);
    let (here, there) = fleet.open(ends, Dir::Bi);
    fleet.write_all(client, ends.client, here, b"question");
    fleet.finish(client, ends.client, here);
    assert_eq!(fleet.read_to_end(server, ends.primary, there), b"question");
    fleet.write_all(server, ends.primary, there, b"answer");
    fleet.finish(server, ends.primary, there);
    assert_eq!(fleet.read_to_end(client, ends.client, here), b"answer");
    let mut session = fleet.world.session_mut(client, ends.client).unwrap();
    assert_eq!(session.stream_mut(here).write(b"more"), Err(WriteError::Finished));
    assert_eq!(session.stream_mut(here).read(1), Err(ReadError::Finished));
}

// [P-5.13]
#[test]
fn reset_and_stop_carry_their_codes() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let (client, server) = (fleet.client, fleet.servers[0]);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let mut session = fleet.world.session_mut(client, ends.client).unwrap();
    session.stream_mut(here).reset(11).unwrap();
    session.stream_mut(here).stop(22).unwrap();
    let notified = fleet.world.run_until(LONG, |world| {
        let mut session = world.session_mut(server, ends.primary).unwrap();
        let mut stream = session.stream_mut(there);
        stream.read(1) == Err(ReadError::Reset(ErrorCode::Application(11)))
            && stream.write(b"x") == Err(WriteError::Stopped(ErrorCode::Application(22)))
    });
    assert!(notified);
}

#[test]
fn urgent_stream_overtakes_bulk() {
    let mut fleet = Fleet::new(1);
    let link = Link { rate: Some(8_000_000), queue_bytes: 40_000, ..Link::with_delay(Duration::from_millis(10)) };
    fleet.world.set_link_both(fleet.client, fleet.servers[0], link);
    let ends = fleet.connect();
    let (client, server) = (fleet.client, fleet.servers[0]);
    let (bulk, _) = fleet.open(ends, Dir::Uni);
    let (urgent, urgent_there) = fleet.open(ends, Dir::Uni);
    fleet.world.session_mut(client, ends.client).unwrap().stream_mut(bulk).write(&vec![0; 1 << 20]).unwrap();
    fleet.world.run_for(Duration::from_millis(300));
    let before = fleet.world.elapsed();
    let mut session = fleet.world.session_mut(client, ends.client).unwrap();
    session.stream_mut(urgent).set_priority(10).unwrap();
    session.stream_mut(urgent).write(b"now").unwrap();
    session.stream_mut(urgent).finish().unwrap();
    assert_eq!(fleet.read_to_end(server, ends.primary, urgent_there), b"now");
    let took = fleet.world.elapsed() - before;
    // The bulk alone takes a second; about two windows of it may be ahead.
    assert!(took < Duration::from_millis(500), "{took:?}");
}

// [P-5.1]
#[test]
fn control_plane_overtakes_data() {
    let mut fleet = Fleet::new(1);
    let link = Link { rate: Some(8_000_000), queue_bytes: 40_000, ..Link::with_delay(Duration::from_millis(10)) };
    fleet.world.set_link_both(fleet.client, fleet.servers[0], link);
    let ends = fleet.connect();
    let client = fleet.client;
    for _ in 0..4 {
        let (bulk, _) = fleet.open(ends, Dir::Uni);
        fleet.world.session_mut(client, ends.client).unwrap().stream_mut(bulk).write(&vec![0; 1 << 20]).unwrap();
    }
    fleet.world.run_for(Duration::from_millis(300));
    let before = fleet.world.elapsed();
    // Each is announced on the control plane, behind two seconds of data.
    for _ in 0..3 {
        fleet.open(ends, Dir::Bi);
    }
    let took = fleet.world.elapsed() - before;
    assert!(took < Duration::from_millis(300), "{took:?}");
}

#[test]
fn everything_takes_the_primary_path_unless_it_is_delegated() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    fleet.join(ends, 1);
    let (client, server) = (fleet.client, fleet.servers[0]);
    let (here, there) = fleet.open(ends, Dir::Bi);
    for (from, to) in [
        ((client, ends.client, here), (server, ends.primary, there)),
        ((server, ends.primary, there), (client, ends.client, here)),
    ] {
        fleet.write_all(from.0, from.1, from.2, &pattern(0..50_000));
        fleet.finish(from.0, from.1, from.2);
        assert!(fleet.read_to_end(to.0, to.1, to.2) == pattern(0..50_000));
    }
    let paths = fleet.world.session(client, ends.client).unwrap().stats().paths;
    let carried = |index: usize| (paths[index].bytes_sent, paths[index].bytes_received);
    assert!(carried(0).0 >= 50_000 && carried(0).1 >= 50_000, "{:?}", carried(0));
    assert_eq!((paths.len(), carried(1)), (2, (0, 0)));
}
