//! Paths that are added and removed faster than anybody can follow, and addresses that do not answer.

use kwik_core::{Dir, ErrorCode, PathId, PathState, SessionEvent, SessionHandle, TransportCode};
use kwik_sim::{Link, NodeId};
use kwik_tests::{Ends, Fleet, SERVER_NAME};

use super::{millis, secs};

fn remove(fleet: &mut Fleet, ends: Ends, path: PathId) {
    let primary = fleet.servers[0];
    let mut session = fleet.world.session_mut(primary, ends.primary).expect("a session");
    session.remove_path(path).expect("it was added");
}

// [P-8.5]
#[test]
fn path_that_is_removed_while_it_begins_leaves_nothing_behind() {
    // Before the command left; on its way; during the handshake; during authentication; as the answer comes.
    for after in [0, 5, 12, 25, 32, 45] {
        let mut fleet = Fleet::new(2);
        let ends = fleet.connect();
        let target = fleet.target(1);
        let path = fleet.add_path(ends, target);
        fleet.world.run_for(millis(after));
        remove(&mut fleet, ends, path);
        assert_eq!(fleet.await_death(ends, path).code, ErrorCode::Transport(TransportCode::PATH_REMOVED), "{after} ms");
        let server = fleet.servers[1];
        let forgot = fleet.world.run_until(secs(10), |world| world.endpoint(server).is_idle());
        assert!(forgot, "{after} ms: the secondary still knows of it");
        fleet.join(ends, 1);
        fleet.open(ends, Dir::Bi);
    }
}

// [P-8.1] [P-8.2] [P-8.5]
#[test]
fn paths_added_and_removed_at_once_come_to_rest() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (client, primary) = (fleet.client, fleet.servers[0]);
    let mut last = PathId::PRIMARY;
    for round in 0..300 {
        let target = fleet.target(1);
        let path = fleet.add_path(ends, target);
        assert!(path > last);
        last = path;
        remove(&mut fleet, ends, path);
        if round % 3 > 0 {
            remove(&mut fleet, ends, path);
        }
        fleet.world.run_for(millis(round % 7));
    }
    fleet.world.run_for(secs(10));
    let session = fleet.world.session_mut(primary, ends.primary).unwrap();
    assert_eq!(session.active_paths().len(), 1);
    let dead = session.dead_paths();
    assert_eq!(dead.len(), 300);
    assert!(dead.iter().all(|path| matches!(path.state, PathState::Dead(_))));
    assert_eq!(fleet.world.session(client, ends.client).unwrap().close_reason(), None);
    fleet.world.run_for(secs(60));
    fleet.join(ends, 1);
}

/// A victim that never spoke of KWIK, and a primary that makes all its clients dial it.
// [P-8.4]
#[test]
fn silent_address_gets_five_datagrams_of_each_dial_and_eight_dials_a_minute() {
    let mut fleet = Fleet::new(1);
    let victim = fleet.add_server(fleet.pki.server(1));
    let (target, victim) = (fleet.target(victim), fleet.servers[victim]);
    fleet.world.crash(victim);
    let primary = fleet.servers[0];
    let (clients, sessions): (Vec<NodeId>, Vec<SessionHandle>) = (1..=20)
        .map(|number| {
            let client = fleet.add_client(&format!("10.0.3.{number}:5000"), &Link::default());
            fleet.world.dial(client, primary, fleet.pki.client(), SERVER_NAME).unwrap();
            (client, fleet.await_incoming(0))
        })
        .unzip();
    let sent = |fleet: &Fleet| clients.iter().map(|client| fleet.world.link_stats(*client, victim).sent).collect();
    for minute in 0..3 {
        let before: Vec<u64> = sent(&fleet);
        let mut ordered = 0;
        for _ in 0..60 {
            for session in &sessions {
                let now = fleet.world.now();
                let mut session = fleet.world.session_mut(primary, *session).unwrap();
                ordered += usize::from(session.add_path(now, target.clone()).is_ok());
            }
            fleet.world.run_for(secs(1));
        }
        assert!(ordered > 20 * clients.len(), "minute {minute}: only {ordered} paths were added");
        let after: Vec<u64> = sent(&fleet);
        for (before, after) in before.iter().zip(&after) {
            assert!((1..=8 * 5).contains(&(after - before)), "minute {minute}: {} datagrams", after - before);
        }
    }
    let is_closed = |event: &SessionEvent| matches!(event, SessionEvent::Closed(_));
    assert!(clients.iter().all(|client| !fleet.world.saw(*client, is_closed)));
}
