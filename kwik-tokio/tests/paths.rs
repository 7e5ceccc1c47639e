//! Paths that come, go, break, and never were.

use std::{net::UdpSocket, time::Duration};

use kwik_tokio::{
    AddPathError, ErrorCode, Limits, PathError, PathEvent, PathId, PathPolicy, PathState, PathTarget, ServerSession,
    SessionError, StreamOffset, TransportCode,
};

use crate::common::{Ca, Doomed, Fleet, check_to_end, limits, only, pattern, spawn_filler, target, within};

/// A silent secondary is given up soon.
fn impatient() -> Limits {
    limits(|limits| {
        limits.keep_alive = Duration::from_millis(100);
        limits.suspect_after = Duration::from_millis(200);
        limits.dead_after = Duration::from_millis(600);
        limits.dial_timeout = Duration::from_millis(300);
    })
}

fn died(error: AddPathError) -> (PathId, ErrorCode) {
    match error {
        AddPathError::Died { path, reason } => (path, reason.code),
        error => panic!("{error}"),
    }
}

fn state(primary: &ServerSession, path: PathId) -> PathState {
    primary.all_paths().into_iter().find(|info| info.id == path).unwrap().state
}

#[tokio::test]
async fn removed_path_loses_exactly_what_it_owed() {
    within(async {
        let fleet = Fleet::new(2).await;
        let [first, second] = [&fleet.secondaries[0], &fleet.secondaries[1]];
        spawn_filler(second.session.clone());
        let (mut client, mut primary) = fleet.stream().await;
        let delegation = primary.delegate(first.path, 1_000_000, "").unwrap();
        primary.finish().unwrap();
        let mut part = first.session.accept_stream().await.unwrap();
        part.write_chunk(pattern(0..123_456)).await.unwrap();
        client.read_exact(&mut vec![0; 123_456]).await.unwrap();

        let mut events = fleet.primary.path_events();
        fleet.primary.remove_path(first.path).await.unwrap();
        fleet.primary.remove_path(first.path).await.unwrap();
        let lost = delegation.delivered().await.unwrap_err();
        assert_eq!(lost.code, TransportCode::PATH_REMOVED.into());
        assert_eq!(lost.missing, only(123_456..1_000_000));
        let event = events.recv().await.unwrap();
        assert!(matches!(event, PathEvent::Dead { path, reason }
            if path == first.path && reason.code == TransportCode::PATH_REMOVED.into()));
        let end = first.session.closed().await;
        assert!(matches!(&end, SessionError::Transport { code: TransportCode::PATH_REMOVED, .. }), "{end}");
        assert!(part.write(&[0; 1]).await.is_err(), "the session of the part is over");

        let refilled = primary.delegate_range(second.path, lost.missing[0].clone(), "").unwrap();
        assert_eq!(check_to_end(&mut client.split().1, 123_456).await, 1_000_000);
        refilled.delivered().await.unwrap();
        primary.finished().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn killed_secondary_is_lost_soon_and_its_range_refilled() {
    within(async {
        let fleet = Fleet::with_limits(1, impatient()).await;
        spawn_filler(fleet.secondaries[0].session.clone());
        let config = fleet.ca.server().trust_primary(fleet.listener.identity()).limits(impatient());
        let doomed = Doomed::start(config).await;
        let path = fleet.primary.add_path(target(&doomed.listener)).await.unwrap();
        let session = doomed.listener.accept().await.unwrap();

        let (mut client, mut primary) = fleet.stream().await;
        let delegation = primary.delegate(path, 2_000_000, "").unwrap();
        primary.finish().unwrap();
        let mut part = session.accept_stream().await.unwrap();
        part.write_chunk(pattern(0..55_555)).await.unwrap();
        client.read_exact(&mut vec![0; 55_555]).await.unwrap();
        let mut events = fleet.primary.path_events();
        let killed = std::time::Instant::now();
        doomed.kill();
        let lost = delegation.delivered().await.unwrap_err();
        let waited = killed.elapsed();
        assert!(waited < Duration::from_secs(2), "{waited:?}");
        assert_eq!(lost.code, TransportCode::TIMED_OUT.into());
        assert_eq!(lost.missing, only(55_555..2_000_000));
        assert_eq!(events.recv().await, Some(PathEvent::Suspect(path)));
        assert!(matches!(events.recv().await, Some(PathEvent::Dead { path: dead, .. }) if dead == path));

        let refilled = primary.delegate_range(fleet.secondaries[0].path, 55_555..2_000_000, "").unwrap();
        assert_eq!(check_to_end(&mut client.split().1, 55_555).await, 2_000_000);
        refilled.delivered().await.unwrap();
        assert!(part.write(&[0; 1]).await.is_err(), "its endpoint is gone");
    })
    .await;
}

// [P-12.4]
#[tokio::test]
async fn secondary_that_closes_gives_back_what_it_owed() {
    within(async {
        let fleet = Fleet::new(1).await;
        let secondary = &fleet.secondaries[0];
        let (client, mut primary) = fleet.stream().await;
        let delegation = primary.delegate(secondary.path, 50_000, "").unwrap();
        primary.finish().unwrap();
        let mut part = secondary.session.accept_stream().await.unwrap();
        part.write_chunk(pattern(0..20_000)).await.unwrap();
        part.finish().unwrap();
        secondary.session.close(12, "maintenance").await.unwrap();
        let lost = delegation.delivered().await.unwrap_err();
        assert_eq!(lost.missing, only(20_000..50_000));
        primary.write_at(StreamOffset(20_000), pattern(20_000..50_000)).await.unwrap();
        assert_eq!(check_to_end(&mut client.split().1, 0).await, 50_000);
        let mut events = fleet.primary.path_events();
        if !state(&fleet.primary, secondary.path).is_dead() {
            events.recv().await.unwrap();
        }
        let PathState::Dead(reason) = state(&fleet.primary, secondary.path) else { panic!("it lives") };
        assert_eq!(reason.code, ErrorCode::Application(12));
    })
    .await;
}

#[tokio::test]
async fn path_lists_and_events_tell_what_happened() {
    within(async {
        let fleet = Fleet::new(0).await;
        let mut events = fleet.primary.path_events();
        let first = fleet.join().await;
        let second = fleet.join().await;
        assert_eq!(events.recv().await, Some(PathEvent::Joined(first.path)));
        assert_eq!(events.recv().await, Some(PathEvent::Joined(second.path)));
        let ids = |paths: Vec<kwik_tokio::PathInfo>| paths.into_iter().map(|path| path.id).collect::<Vec<_>>();
        assert_eq!(ids(fleet.primary.active_paths()), [PathId::PRIMARY, first.path, second.path]);
        assert!(fleet.primary.dead_paths().is_empty());
        let info = fleet.primary.all_paths().pop().unwrap();
        assert_eq!((info.address, info.identity), (second.listener.local_addr(), second.listener.identity()));

        fleet.primary.remove_path(first.path).await.unwrap();
        assert_eq!(ids(fleet.primary.active_paths()), [PathId::PRIMARY, second.path]);
        assert_eq!(ids(fleet.primary.dead_paths()), [first.path]);
        assert_eq!(ids(fleet.primary.all_paths()), [PathId::PRIMARY, first.path, second.path]);
        let third = fleet.join().await;
        assert!(third.path > second.path, "ids are not used again");
        assert_eq!(ids(fleet.primary.dead_paths()), [first.path]);
        // The client sees as much, and can only look.
        let seen = fleet.client.stats().paths;
        assert_eq!(seen.iter().map(|path| path.id).collect::<Vec<_>>(), [PathId(0), PathId(1), PathId(2), PathId(3)]);
        assert!(seen[1].state.is_dead() && seen[2].state.is_usable());
        assert_eq!(events.missed(), 0);
    })
    .await;
}

#[tokio::test]
async fn path_to_nowhere_is_unreachable_and_harms_nothing() {
    within(async {
        let fleet = Fleet::with_limits(1, impatient()).await;
        spawn_filler(fleet.secondaries[0].session.clone());
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for address in [silent.local_addr().unwrap(), closed] {
            let nowhere = PathTarget { address, ..target(&fleet.listener) };
            let error = fleet.primary.add_path(nowhere).await.unwrap_err();
            let (path, code) = died(error);
            assert_eq!(code, TransportCode::UNREACHABLE.into());
            assert!(state(&fleet.primary, path).is_dead());
        }
        let (client, mut primary) = fleet.stream().await;
        let delegation = primary.delegate(fleet.secondaries[0].path, 1000, "").unwrap();
        primary.finish().unwrap();
        assert_eq!(check_to_end(&mut client.split().1, 0).await, 1000);
        delegation.delivered().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn delegation_to_a_path_that_dies_meanwhile_is_lost_whole() {
    within(async {
        let fleet = Fleet::with_limits(0, impatient()).await;
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let nowhere = PathTarget { address: silent.local_addr().unwrap(), ..target(&fleet.listener) };
        let adding = tokio::spawn({
            let primary = fleet.primary.clone();
            async move { primary.add_path(nowhere).await }
        });
        let (client, mut primary) = fleet.stream().await;
        primary.write_chunk(pattern(0..10)).await.unwrap();
        // The path is on its way: it may be delegated to before it joined.
        let delegation = primary.delegate(PathId(1), 990, "").unwrap();
        primary.finish().unwrap();
        let lost = delegation.delivered().await.unwrap_err();
        assert_eq!((lost.code, lost.missing), (TransportCode::UNREACHABLE.into(), only(10..1000)));
        assert_eq!(died(adding.await.unwrap().unwrap_err()), (PathId(1), TransportCode::UNREACHABLE.into()));
        primary.write_at(StreamOffset(10), pattern(10..1000)).await.unwrap();
        assert_eq!(check_to_end(&mut client.split().1, 0).await, 1000);
    })
    .await;
}

#[tokio::test]
async fn path_command_that_makes_no_sense_says_why() {
    within(async {
        let fleet = Fleet::with_limits(1, limits(|limits| limits.paths_max = 3)).await;
        let primary = &fleet.primary;
        assert_eq!(primary.remove_path(PathId(99)).await.unwrap_err(), PathError::Unknown(PathId(99)).into());
        assert_eq!(primary.remove_path(PathId::PRIMARY).await.unwrap_err(), PathError::Primary.into());
        let server = fleet.start_secondary().await;
        let named = PathTarget { server_name: "no name".into(), ..target(&server) };
        assert_eq!(primary.add_path(named).await.unwrap_err(), AddPathError::InvalidServerName("no name".into()));
        let address = ([0, 0, 0, 0], 4433).into();
        let nowhere = PathTarget { address, ..target(&server) };
        assert_eq!(primary.add_path(nowhere).await.unwrap_err(), AddPathError::InvalidAddress(address));
        primary.add_path(target(&server)).await.unwrap();
        let error = primary.add_path(target(&fleet.start_secondary().await)).await.unwrap_err();
        assert_eq!(error, AddPathError::LimitReached { limit: 3 });
        assert_eq!(primary.active_paths().len(), 3);
    })
    .await;
}

#[tokio::test]
async fn client_that_takes_no_secondaries_says_so() {
    within(async {
        let alone = |ca: &Ca| ca.client().path_policy(PathPolicy::refuse_all());
        let fleet = Fleet::with_client(0, Limits::default(), alone).await;
        let server = fleet.start_secondary().await;
        let error = fleet.primary.add_path(target(&server)).await.unwrap_err();
        assert_eq!(died(error).1, TransportCode::PATH_POLICY.into());
        let (client, mut primary) = fleet.stream().await;
        primary.write_chunk(pattern(0..10)).await.unwrap();
        drop(primary);
        assert_eq!(check_to_end(&mut client.split().1, 0).await, 10);
    })
    .await;
}

#[tokio::test]
async fn server_that_serves_two_sessions_of_one_primary_keeps_them_apart() {
    within(async {
        let fleet = Fleet::new(1).await;
        let secondary = &fleet.secondaries[0];
        let other =
            kwik_tokio::dial((fleet.listener.local_addr(), crate::common::NAME), fleet.ca.client()).await.unwrap();
        let other_primary = fleet.listener.accept().await.unwrap();
        let path = other_primary.add_path(target(&secondary.listener)).await.unwrap();
        let other_session = secondary.listener.accept().await.unwrap();
        assert_eq!(other_session.id(), other_primary.id());
        assert_ne!(other_session.id(), secondary.session.id());
        spawn_filler(secondary.session.clone());
        spawn_filler(other_session);
        for (client, primary, path) in [(&fleet.client, &fleet.primary, secondary.path), (&other, &other_primary, path)]
        {
            let mut stream = primary.open_uni_stream().unwrap();
            let delegation = stream.delegate(path, 100_000, "").unwrap();
            stream.finish().unwrap();
            let mut received = client.accept_uni_stream().await.unwrap();
            assert_eq!(check_to_end(&mut received, 0).await, 100_000);
            delegation.delivered().await.unwrap();
        }
    })
    .await;
}
