//! Bugs that were met, each with the fewest operations that showed it.

use std::time::Duration;

use bytes::Bytes;
use kwik_core::{Dir, ErrorCode, PathEvent, ReadError, SessionEvent};
use kwik_sim::Link;
use kwik_tests::{Fleet, LONG, pattern};

/// A reader that was dropped, not stopped, left the secondary writing for nobody.
#[test]
fn regression_dropped_reader_leaves_no_writer_behind() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let (primary, node) = (fleet.servers[0], fleet.servers[1]);
    let mut session = fleet.world.server_session(primary, ends.primary).unwrap();
    session.stream(there).delegate(path, 1000, Bytes::from_static(b"please")).unwrap();
    let part = fleet.accept(1, secondary, Dir::Bi);

    fleet.world.session(fleet.client, ends.client).unwrap().stream(here).release_recv();
    let told = fleet.world.run_until(LONG, |world| {
        let code = world.session(node, secondary).unwrap().stream(part).stop_code();
        code == Some(ErrorCode::Application(0))
    });
    assert!(told);
}

/// Credit for a stream went out on a path that was still connecting, ahead of JOIN.
#[test]
fn regression_credit_does_not_overtake_join() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (here, there) = fleet.open(ends, Dir::Bi);
    let (primary, client) = (fleet.servers[0], fleet.client);
    fleet.world.set_link_both(client, fleet.servers[1], Link::with_delay(Duration::from_millis(300)));
    let path = fleet.add_path(ends, fleet.target(1));
    let len = 4 << 20;
    let mut session = fleet.world.server_session(primary, ends.primary).unwrap();
    session.stream(there).delegate_range(path, len..len + 1000, Bytes::new()).unwrap();

    let data = Bytes::from(pattern(0..len));
    let (mut written, mut read) = (0, 0);
    let consumed = fleet.world.run_until(LONG, |world| {
        let mut server = world.session(primary, ends.primary).unwrap();
        written += server.stream(there).write_chunk(data.slice(written..)).unwrap_or(0);
        let mut session = world.session(client, ends.client).unwrap();
        loop {
            match session.stream(here).read(usize::MAX) {
                Ok(chunk) => read += chunk.data.len(),
                Err(ReadError::Blocked) => return read as u64 == len,
                Err(error) => panic!("read failed after {read} bytes: {error}"),
            }
        }
    });
    assert!(consumed);
    let joined = SessionEvent::Path(PathEvent::Joined(path));
    assert!(fleet.world.run_until(LONG, |world| world.saw(primary, |event| *event == joined)));
}
