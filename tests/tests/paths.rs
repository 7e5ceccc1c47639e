//! How servers join and leave, and what a bad one costs.

use std::time::Duration;

use kwik_core::{
    AddPathError, Dir, ErrorCode, Limits, PathError, PathEvent, PathId, PathPolicy, PathState, PathTarget,
    SecondaryTrust, SessionEvent, TransportCode,
};
use kwik_sim::{Disturbance, Link, Pki};
use kwik_tests::{Fleet, LONG, SERVER_NAME};

fn transport(code: TransportCode) -> ErrorCode {
    ErrorCode::Transport(code)
}

#[test]
fn client_never_notices_that_servers_come_and_go() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let client = fleet.client;
    while fleet.world.poll_event(client).is_some() {}
    let (path, _) = fleet.join(ends, 1);
    fleet.world.session_mut(fleet.servers[0], ends.primary).unwrap().remove_path(path).unwrap();
    fleet.await_death(ends, path);
    assert_eq!(fleet.world.poll_event(client), None, "the client's application was told of a path");
}

#[test]
fn active_dead_and_all_paths_tell_the_history() {
    let mut fleet = Fleet::new(3);
    let ends = fleet.connect();
    let (one, _) = fleet.join(ends, 1);
    let (two, _) = fleet.join(ends, 2);
    let primary = fleet.servers[0];
    fleet.world.session_mut(primary, ends.primary).unwrap().remove_path(one).unwrap();
    fleet.await_death(ends, one);
    let session = fleet.world.session_mut(primary, ends.primary).unwrap();
    let ids = |paths: Vec<kwik_core::PathInfo>| paths.into_iter().map(|path| path.id).collect::<Vec<_>>();
    assert_eq!(ids(session.active_paths()), [PathId::PRIMARY, two]);
    assert_eq!(ids(session.dead_paths()), [one]);
    assert_eq!(ids(session.all_paths()), [PathId::PRIMARY, one, two]);
}

// [P-8.1]
#[test]
fn path_ids_are_never_reused() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (first, _) = fleet.join(ends, 1);
    fleet.world.session_mut(fleet.servers[0], ends.primary).unwrap().remove_path(first).unwrap();
    fleet.await_death(ends, first);
    let (second, _) = fleet.join(ends, 1);
    assert!(second > first);
}

// [P-8.4]
#[test]
fn path_to_nowhere_dies_unreachable_and_the_session_lives() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let identity = fleet.pki.public_identity(1);
    let target =
        PathTarget { address: "10.9.9.9:4433".parse().unwrap(), server_name: SERVER_NAME.to_owned(), identity };
    let path = fleet.add_path(ends, target);
    assert_eq!(fleet.await_death(ends, path).code, transport(TransportCode::UNREACHABLE));
    fleet.open(ends, Dir::Bi);
}

#[test]
fn server_with_another_identity_than_named_is_refused() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let target = PathTarget { identity: fleet.pki.public_identity(7), ..fleet.target(1) };
    let path = fleet.add_path(ends, target);
    // The server sees a ticket for somebody else, and does not say more than that it failed.
    assert_eq!(fleet.await_death(ends, path).code, transport(TransportCode::AUTH_FAILED));
    fleet.open(ends, Dir::Bi);
}

#[test]
fn server_that_does_not_trust_the_primary_refuses_its_clients() {
    let mut fleet = Fleet::new(1);
    fleet.add_server(fleet.pki.server_trusting_nobody(3));
    let ends = fleet.connect();
    let target = PathTarget { identity: fleet.pki.public_identity(3), ..fleet.target(1) };
    let path = fleet.add_path(ends, target);
    assert_eq!(fleet.await_death(ends, path).code, transport(TransportCode::AUTH_FAILED));
}

// [P-4.12]
#[test]
fn certificate_of_another_authority_is_refused_unless_identity_alone_counts() {
    for (trust, joins) in [(SecondaryTrust::Certificate, false), (SecondaryTrust::IdentityOnly, true)] {
        let mut fleet = Fleet::new(1);
        fleet.add_server(Pki::new("elsewhere.test").server(1));
        let config = fleet.pki.client().secondary_trust(trust);
        let ends = fleet.connect_with(config);
        let target = fleet.target(1);
        if joins {
            fleet.join(ends, 1);
        } else {
            let path = fleet.add_path(ends, target);
            assert_eq!(fleet.await_death(ends, path).code, transport(TransportCode::TLS_FAILED));
        }
    }
}

// [P-8.2]
#[test]
fn refused_path_costs_no_datagram() {
    let mut fleet = Fleet::new(2);
    let config = fleet.pki.client().path_policy(PathPolicy::refuse_all());
    let ends = fleet.connect_with(config);
    let target = fleet.target(1);
    let path = fleet.add_path(ends, target);
    assert_eq!(fleet.await_death(ends, path).code, transport(TransportCode::PATH_POLICY));
    assert_eq!(fleet.world.link_stats(fleet.client, fleet.servers[1]).sent, 0);
}

/// E-04: servers that are added and removed again and again.
// [P-8.2]
#[test]
fn paths_that_are_added_and_removed_in_turns_are_bounded() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let primary = fleet.servers[0];
    let (target, start) = (fleet.target(1), fleet.world.elapsed());
    let mut joined = 0;
    let refusal = loop {
        let path = fleet.add_path(ends, target.clone());
        let settled = |event: &SessionEvent| matches!(event, SessionEvent::Path(event) if event.path() == path);
        fleet.await_event(primary, settled);
        let session = fleet.world.session_mut(primary, ends.primary).unwrap();
        if let PathState::Dead(reason) = session.path(path).unwrap().state {
            break reason;
        }
        joined += 1;
        fleet.world.session_mut(primary, ends.primary).unwrap().remove_path(path).unwrap();
        fleet.await_death(ends, path);
    };
    assert_eq!(refusal.code, transport(TransportCode::PATH_POLICY));
    let limits = Limits::default();
    assert_eq!(joined, limits.paths_max * limits.dials_per_minute_max);
    let passed = fleet.world.elapsed() - start;
    fleet.world.run_for(Duration::from_secs(60).saturating_sub(passed));
    fleet.join(ends, 1);
}

// [P-8.2]
#[test]
fn session_gets_all_its_servers_back_after_every_outage() {
    let servers = 7;
    let mut fleet = Fleet::new(servers + 1);
    let ends = fleet.connect();
    let (client, primary) = (fleet.client, fleet.servers[0]);
    let mut missing: Vec<usize> = (1..=servers).collect();
    let mut server_of = std::collections::BTreeMap::new();
    let link = Link::with_delay(Duration::from_millis(10));
    for (round, outage) in [0, 4, 8, 4, 12, 30].into_iter().enumerate() {
        let healed = fleet.world.elapsed() + Duration::from_secs(outage);
        for node in &fleet.servers[1..] {
            fleet.world.set_link_both(client, *node, Link { up: outage == 0, ..link.clone() });
        }
        let mut is_down = outage > 0;
        let mut all_back = false;
        while !all_back {
            // What is dead is added again, without a thought.
            for server in std::mem::take(&mut missing) {
                let target = fleet.target(server);
                server_of.insert(fleet.add_path(ends, target), server);
            }
            fleet.world.run_for(Duration::from_millis(100));
            while let Some((_, event)) = fleet.world.poll_event(primary) {
                if let SessionEvent::Path(PathEvent::Dead { path, reason }) = event {
                    let policy = transport(TransportCode::PATH_POLICY);
                    assert_ne!(reason.code, policy, "round {round}: an honest dial was refused");
                    missing.push(server_of[&path]);
                }
            }
            let now = fleet.world.elapsed();
            if is_down && now >= healed {
                is_down = false;
                for node in &fleet.servers[1..] {
                    fleet.world.set_link_both(client, *node, link.clone());
                }
            }
            let session = fleet.world.session_mut(primary, ends.primary).unwrap();
            all_back = !is_down && session.active_paths().len() == servers + 1;
            assert!(now < healed + Duration::from_secs(25), "round {round}: not all came back");
        }
    }
}

#[test]
fn paths_of_a_session_are_bounded() {
    let mut limits = Limits::default();
    limits.paths_max = 2;
    let mut fleet = Fleet::with(3, |config| config.limits(limits.clone()));
    let ends = fleet.connect();
    fleet.join(ends, 1);
    let target = fleet.target(2);
    let now = fleet.world.now();
    let mut session = fleet.world.session_mut(fleet.servers[0], ends.primary).unwrap();
    assert_eq!(session.add_path(now, target), Err(AddPathError::LimitReached { limit: 2 }));
}

#[test]
fn path_commands_that_make_no_sense_are_refused() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (_, secondary) = fleet.join(ends, 1);
    let (target, now) = (fleet.target(1), fleet.world.now());
    let nameless = PathTarget { server_name: "two words".to_owned(), ..target.clone() };
    let mut session = fleet.world.session_mut(fleet.servers[0], ends.primary).unwrap();
    assert!(matches!(session.add_path(now, nameless), Err(AddPathError::InvalidServerName(_))));
    assert_eq!(session.remove_path(PathId::PRIMARY), Err(PathError::Primary));
    assert_eq!(session.remove_path(PathId(5)), Err(PathError::Unknown(PathId(5))));
    let mut session = fleet.world.session_mut(fleet.servers[1], secondary).unwrap();
    assert_eq!(session.add_path(now, target), Err(AddPathError::NotPrimary));
    assert_eq!(session.remove_path(PathId(1)), Err(PathError::NotPrimary));
}

// [P-8.6] [P-9.2]
#[test]
fn silent_secondary_is_suspect_then_recovers() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, _) = fleet.join(ends, 1);
    let (client, primary, secondary) = (fleet.client, fleet.servers[0], fleet.servers[1]);
    let link = Link::with_delay(Duration::from_millis(10));
    fleet.world.set_link_both(client, secondary, Link { up: false, ..link.clone() });
    let suspect = SessionEvent::Path(PathEvent::Suspect(path));
    fleet.await_event(primary, |event| *event == suspect);
    fleet.world.set_link_both(client, secondary, link);
    let recovered = SessionEvent::Path(PathEvent::Recovered(path));
    fleet.await_event(primary, |event| *event == recovered);
    let session = fleet.world.session_mut(primary, ends.primary).unwrap();
    assert_eq!(session.path(path).unwrap().state, PathState::Active);
}

// [P-4.10] [P-4.14]
#[test]
fn lease_of_a_path_is_renewed_while_the_primary_is_within_reach() {
    let mut limits = Limits::default();
    limits.path_lease = Duration::from_secs(4);
    let mut fleet = Fleet::with(2, |config| config.limits(limits.clone()));
    let ends = fleet.connect();
    let (path, _) = fleet.join(ends, 1);
    fleet.world.run_for(LONG);
    let (client, primary, secondary) = (fleet.client, fleet.servers[0], fleet.servers[1]);
    let session = fleet.world.session_mut(primary, ends.primary).unwrap();
    assert_eq!(session.path(path).unwrap().state, PathState::Active);

    // Out of reach for longer than the lease, and for less than after which the session would be given up.
    let link = fleet.world.link(primary, client);
    fleet.world.set_link_both(client, primary, Link { up: false, ..link.clone() });
    let cut = fleet.world.elapsed();
    let closed = |event: &SessionEvent| matches!(event, SessionEvent::Closed(_));
    fleet.await_event(secondary, closed);
    let lived = fleet.world.elapsed() - cut;
    assert!((Duration::from_secs(2)..=Duration::from_secs(4)).contains(&lived), "{lived:?}");
    fleet.world.set_link_both(client, primary, link);
    assert_eq!(fleet.await_death(ends, path).code, transport(TransportCode::LEASE_EXPIRED));
}

// [P-8.2]
#[test]
fn client_takes_so_many_paths_and_no_more() {
    let mut limits = Limits::default();
    limits.paths_max = 2;
    let mut fleet = Fleet::new(3);
    let config = fleet.pki.client().limits(limits);
    let ends = fleet.connect_with(config);
    let (one, _) = fleet.join(ends, 1);
    let target = fleet.target(2);
    let path = fleet.add_path(ends, target);
    assert_eq!(fleet.await_death(ends, path).code, transport(TransportCode::PATH_LIMIT));
    assert_eq!(fleet.world.link_stats(fleet.client, fleet.servers[2]).sent, 0);
    fleet.world.session_mut(fleet.servers[0], ends.primary).unwrap().remove_path(one).unwrap();
    fleet.await_death(ends, one);
    fleet.join(ends, 2);
}

// [P-8.4]
#[test]
fn two_dials_run_at_once_and_five_seconds_each() {
    let mut fleet = Fleet::new(1);
    let ends = fleet.connect();
    let identity = fleet.pki.public_identity(1);
    let before = fleet.world.elapsed();
    let paths = [1, 2, 3].map(|host| {
        let address = format!("10.9.9.{host}:4433").parse().unwrap();
        let target = PathTarget { address, server_name: SERVER_NAME.to_owned(), identity };
        fleet.add_path(ends, target)
    });
    let died = paths.map(|path| {
        assert_eq!(fleet.await_death(ends, path).code, transport(TransportCode::UNREACHABLE));
        (fleet.world.elapsed() - before).as_secs()
    });
    assert_eq!(died, [5, 5, 10]);
}

// [P-8.20]
#[test]
fn client_that_never_says_what_became_of_a_path_is_waited_for_a_minute() {
    let mut limits = Limits::default();
    (limits.dial_timeout, limits.answer_timeout) = (Duration::from_secs(600), Duration::from_secs(600));
    limits.idle_timeout = Duration::from_secs(600);
    let mut fleet = Fleet::new(1);
    let config = fleet.pki.client().limits(limits);
    let ends = fleet.connect_with(config);
    let identity = fleet.pki.public_identity(1);
    let target =
        PathTarget { address: "10.9.9.9:4433".parse().unwrap(), server_name: SERVER_NAME.to_owned(), identity };
    let before = fleet.world.elapsed();
    let path = fleet.add_path(ends, target);
    fleet.world.run_for(Duration::from_secs(50));
    assert_eq!(fleet.await_death(ends, path).code, transport(TransportCode::UNANSWERED));
    assert_eq!((fleet.world.elapsed() - before).as_secs(), 60);
    fleet.world.run_for(Duration::from_secs(1));
    assert!(path_state(&mut fleet, ends, path).is_some_and(|state| state.is_dead()), "the client was told");
    fleet.open(ends, Dir::Bi);
}

fn path_state(fleet: &mut Fleet, ends: kwik_tests::Ends, path: PathId) -> Option<PathState> {
    let stats = fleet.world.session(fleet.client, ends.client)?.stats();
    stats.paths.into_iter().find(|stats| stats.id == path).map(|stats| stats.state)
}

// [P-4.7]
#[test]
fn wall_clock_that_is_set_keeps_new_paths_out_and_leaves_others_alone() {
    for hours in [-1, 1] {
        let mut fleet = Fleet::new(3);
        let ends = fleet.connect();
        let (first, _) = fleet.join(ends, 1);
        for node in [fleet.servers[0], fleet.servers[2]] {
            let millis = if node == fleet.servers[0] { hours * 3_600_000 } else { 0 };
            fleet.world.inject(Disturbance::ClockOffset { node, millis });
        }
        let refused = fleet.add_path(ends, fleet.target(2));
        assert_eq!(fleet.await_death(ends, refused).code, transport(TransportCode::AUTH_TIME));
        fleet.world.run_for(Duration::from_secs(10));
        assert_eq!(path_state(&mut fleet, ends, first), Some(PathState::Active));
        fleet.world.inject(Disturbance::ClockOffset { node: fleet.servers[0], millis: 0 });
        fleet.join(ends, 2);
    }
}

/// Runs until the handshake with a secondary is done and JOIN is on its way.
fn await_authenticating(fleet: &mut Fleet, ends: kwik_tests::Ends, path: PathId) {
    while path_state(fleet, ends, path) != Some(PathState::Authenticating) {
        fleet.world.run_for(Duration::from_millis(1));
        assert!(fleet.world.elapsed() < LONG);
    }
}

// [P-8.4]
#[test]
fn server_that_does_not_answer_join_is_given_up() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let target = fleet.target(1);
    let path = fleet.add_path(ends, target);
    await_authenticating(&mut fleet, ends, path);
    fleet.world.crash(fleet.servers[1]);
    assert_eq!(fleet.await_death(ends, path).code, transport(TransportCode::AUTH_TIMEOUT));
}

// [P-4.12]
#[test]
fn server_that_only_its_identity_vouches_for_gets_nothing_before_welcome() {
    for (trust, early) in [(SecondaryTrust::Certificate, 1), (SecondaryTrust::IdentityOnly, 0)] {
        let mut fleet = Fleet::new(2);
        let config = fleet.pki.client().secondary_trust(trust);
        let ends = fleet.connect_with(config);
        let (_, there) = fleet.open(ends, Dir::Bi);
        let target = fleet.target(1);
        let path = fleet.add_path(ends, target);
        let mut session = fleet.world.session_mut(fleet.servers[0], ends.primary).unwrap();
        session.stream_mut(there).delegate(path, 100, bytes::Bytes::new()).unwrap();
        await_authenticating(&mut fleet, ends, path);
        fleet.world.run_for(Duration::from_millis(5));
        assert_eq!(path_state(&mut fleet, ends, path), Some(PathState::Authenticating));
        let stats = fleet.world.session(fleet.client, ends.client).unwrap().stats();
        let sent = stats.paths.iter().find(|stats| stats.id == path).unwrap().packets_sent;
        assert_eq!(sent, early, "{trust:?}");
        let secondary = fleet.await_incoming(1);
        fleet.accept(1, secondary, Dir::Bi);
    }
}

// [P-9.1]
#[test]
fn idle_paths_are_kept_alive_by_the_client() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, _) = fleet.join(ends, 1);
    fleet.world.run_for(Duration::from_secs(10));
    let sent = |fleet: &Fleet| fleet.world.link_stats(fleet.client, fleet.servers[1]).sent;
    for _ in 0..20 {
        let before = sent(&fleet);
        fleet.world.run_for(Duration::from_millis(2100));
        assert!(sent(&fleet) > before, "silent for 2.1 s");
    }
    assert_eq!(path_state(&mut fleet, ends, path), Some(PathState::Active));
    // Left alone, a server says nothing.
    fleet.world.crash(fleet.client);
    fleet.world.run_for(Duration::from_secs(1));
    let before = fleet.world.link_stats(fleet.servers[1], fleet.client).sent;
    fleet.world.run_for(Duration::from_secs(20));
    assert_eq!(fleet.world.link_stats(fleet.servers[1], fleet.client).sent, before);
}

// [P-9.3]
#[test]
fn idle_path_survives_an_outage_of_as_long_as_a_busy_one() {
    // Wherever in the time between two probes it begins.
    for begin in (0..2000).step_by(250).map(Duration::from_millis) {
        let mut fleet = Fleet::new(2);
        let ends = fleet.connect();
        let (path, _) = fleet.join(ends, 1);
        fleet.world.run_for(Duration::from_secs(5) + begin);
        let right = vec![fleet.servers[1]];
        fleet.world.inject(Disturbance::Partition { left: vec![fleet.client], right });
        fleet.world.run_for(Duration::from_millis(2500));
        fleet.world.inject(Disturbance::HealAll);
        fleet.world.run_for(Duration::from_secs(10));
        assert_eq!(path_state(&mut fleet, ends, path), Some(PathState::Active), "an outage {begin:?} later");
    }
}

// [P-9.1]
#[test]
fn server_of_little_patience_keeps_idle_paths_alive_itself() {
    let mut impatient = Limits::default();
    impatient.suspect_after = Duration::from_millis(100);
    impatient.dead_after = Duration::from_millis(200);
    impatient.idle_timeout = Duration::from_millis(400);
    impatient.keep_alive = Duration::from_millis(200);
    let mut fleet = Fleet::with(2, |config| config.limits(impatient.clone()));
    let ends = fleet.connect();
    let (path, _) = fleet.join(ends, 1);
    fleet.world.run_for(Duration::from_secs(10));
    assert_eq!(path_state(&mut fleet, ends, path), Some(PathState::Active));
    fleet.open(ends, Dir::Bi);
}

// [P-8.6]
#[test]
fn figures_of_active_paths_come_with_the_progress_of_grants() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (here, there) = fleet.open(ends, Dir::Bi);
    let (primary, node) = (fleet.servers[0], fleet.servers[1]);
    let len = 600_000;
    let mut session = fleet.world.session_mut(primary, ends.primary).unwrap();
    session.stream_mut(there).delegate(path, len, bytes::Bytes::new()).unwrap();
    let part = fleet.accept(1, secondary, Dir::Bi);
    fleet.write_all(node, secondary, part, &kwik_tests::pattern(0..len));
    let notified = fleet.world.run_until(Duration::from_secs(5), |world| {
        while world.session_mut(fleet.client, ends.client).unwrap().stream_mut(here).read(usize::MAX).is_ok() {}
        world.session(primary, ends.primary).unwrap().path(path).unwrap().bytes >= 256 * 1024
    });
    assert!(notified, "the path stayed active, and yet its figures are of interest");
}
