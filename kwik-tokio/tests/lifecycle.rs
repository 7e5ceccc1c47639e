//! How sessions and listeners begin and end.

use std::{net::UdpSocket, time::Duration};

use kwik_tokio::{
    AddPathError, BindError, DelegateError, DialError, ListenError, OpenError, PathId, ReadError, ReadToEndError,
    SendRawError, SessionError, TransportCode, WriteError, dial, listen,
};

use crate::common::{
    ANY_PORT, Ca, Doomed, Fleet, NAME, Pair, check, check_to_end, limits, only, pair, pattern, spawn_echo, target,
    within,
};

fn closed_by_peer(code: u32, reason: &str) -> SessionError {
    SessionError::ClosedByPeer { code, reason: reason.to_owned(), cut_short: false }
}

#[tokio::test]
async fn port_in_use_is_named() {
    within(async {
        let taken = UdpSocket::bind(ANY_PORT).unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen(address, Ca::new().server()).await.unwrap_err();
        assert!(
            matches!(error, ListenError::Bind(BindError::AddressInUse { address: named }) if named == address),
            "{error}"
        );
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        drop(taken);
        assert_eq!(listen(address, Ca::new().server()).await.unwrap().local_addr(), address);
    })
    .await;
}

#[tokio::test]
async fn address_that_is_not_ours_cannot_be_listened_on() {
    within(async {
        let error = listen("192.0.2.1:4433", Ca::new().server()).await.unwrap_err();
        assert!(
            matches!(error, ListenError::Bind(BindError::Bind { .. })) && error.to_string().contains("192.0.2.1:4433"),
            "{error}"
        );
    })
    .await;
}

#[tokio::test]
async fn limits_that_contradict_each_other_are_refused() {
    within(async {
        let wrong = || limits(|limits| limits.streams_bidi_max = 1);
        let error = listen(ANY_PORT, Ca::new().server().limits(wrong())).await.unwrap_err();
        assert!(matches!(&error, ListenError::Config(_)) && error.to_string().contains("streams_bidi_max"), "{error}");
        let error = dial(("127.0.0.1:1".parse().unwrap(), NAME), Ca::new().client().limits(wrong())).await.unwrap_err();
        assert!(matches!(&error, DialError::Config(_)) && error.to_string().contains("streams_bidi_max"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn dial_of_a_silent_address_gives_up() {
    within(async {
        let silent = UdpSocket::bind(ANY_PORT).unwrap();
        let nowhere = silent.local_addr().unwrap();
        let limits = limits(|limits| limits.dial_timeout = Duration::from_millis(300));
        let error = dial((nowhere, NAME), Ca::new().client().limits(limits)).await.unwrap_err();
        assert!(matches!(&error, DialError::NoAnswer { address, .. } if *address == nowhere), "{error}");
    })
    .await;
}

#[tokio::test]
async fn what_was_finished_arrives_before_the_close() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut stream = client.open_uni_stream().unwrap();
        let reading = tokio::spawn(async move {
            let mut received = server.accept_uni_stream().await.unwrap();
            let end = check_to_end(&mut received, 0).await;
            (end, server.closed().await)
        });
        stream.write_chunk(pattern(0..3_000_000)).await.unwrap();
        stream.finish().unwrap();
        client.close(5, "good night").await.unwrap();
        assert_eq!(reading.await.unwrap(), (3_000_000, closed_by_peer(5, "good night")));
        assert_eq!(client.closed().await, SessionError::LocallyClosed);
        stream.finished().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_the_server_finished_arrives_before_its_close() {
    within(async {
        let Pair { client, server, listener } = pair().await;
        let mut stream = server.open_stream().unwrap();
        stream.write_chunk(pattern(0..1_000_000)).await.unwrap();
        stream.finish().unwrap();
        let closing = tokio::spawn(async move { listener.close(6, "restart").await });
        let mut received = client.accept_stream().await.unwrap();
        let mut offset = 0;
        while let Some(chunk) = received.read_chunk(usize::MAX, true).await.unwrap() {
            check(offset, &chunk.data);
            offset += chunk.data.len() as u64;
        }
        assert_eq!(offset, 1_000_000);
        assert_eq!(client.closed().await, closed_by_peer(6, "restart"));
        closing.await.unwrap();
        assert_eq!(server.closed().await, SessionError::LocallyClosed);
    })
    .await;
}

#[tokio::test]
async fn delegated_range_arrives_before_the_close_of_the_primary() {
    within(async {
        let fleet = Fleet::new(1).await;
        crate::common::spawn_filler(fleet.secondaries[0].session.clone());
        let (client, mut primary) = fleet.stream().await;
        let delegation = primary.delegate(fleet.secondaries[0].path, 3_000_000, "").unwrap();
        primary.finish().unwrap();
        let reading = tokio::spawn(async move { check_to_end(&mut client.split().1, 0).await });
        fleet.primary.close(0, "done").await.unwrap();
        assert_eq!(reading.await.unwrap(), 3_000_000);
        delegation.delivered().await.unwrap();
        assert_eq!(fleet.client.closed().await, closed_by_peer(0, "done"));
        fleet.secondaries[0].session.closed().await;
    })
    .await;
}

#[tokio::test]
async fn what_arrived_is_read_after_the_close_and_the_rest_is_an_error() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut whole = client.open_stream().unwrap();
        whole.write_all(b"all of it").await.unwrap();
        whole.finish().unwrap();
        let mut half = client.open_uni_stream().unwrap();
        half.write_all(b"half of").await.unwrap();
        let mut whole_read = server.accept_stream().await.unwrap();
        let mut half_read = server.accept_uni_stream().await.unwrap();
        half_read.read_exact(&mut [0; 3]).await.unwrap();
        client.close(3, "bye").await.unwrap();
        let end = server.closed().await;
        assert_eq!(end, closed_by_peer(3, "bye"));

        assert_eq!(whole_read.read_to_end(100).await.unwrap(), b"all of it");
        let mut rest = [0; 4];
        half_read.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"f of".as_slice().first_chunk::<4>().unwrap());
        assert_eq!(half_read.read(&mut rest).await.unwrap_err(), ReadError::Session(end.clone()));
        assert_eq!(half_read.read_to_end(1).await.unwrap_err(), ReadToEndError::Read(ReadError::Session(end.clone())));
        assert_eq!(whole_read.write(b"late").await.unwrap_err(), WriteError::Session(end.clone()));
        assert_eq!(whole_read.finish().unwrap_err(), WriteError::Session(end.clone()));
        assert_eq!(whole_read.finished().await.unwrap_err(), WriteError::Session(end));
    })
    .await;
}

#[tokio::test]
async fn everything_after_a_close_is_an_error_that_says_so() {
    within(async {
        let fleet = Fleet::new(1).await;
        let (mut client_stream, mut primary_stream) = fleet.stream().await;
        let Fleet { client, primary, secondaries, .. } = &fleet;
        primary.close(4, "over").await.unwrap();
        primary.close(5, "the first counts").await.unwrap();
        let local = SessionError::LocallyClosed;
        assert_eq!(primary.open_stream().unwrap_err(), OpenError::SessionClosed);
        assert_eq!(primary.open_stream_sync().await.unwrap_err(), OpenError::SessionClosed);
        assert_eq!(primary.accept_stream().await.unwrap_err(), local);
        assert_eq!(primary.accept_uni_stream().await.unwrap_err(), local);
        assert_eq!(primary.recv_raw().await.unwrap_err(), local);
        assert_eq!(primary.send_raw(secondaries[0].path, "").await.unwrap_err(), SendRawError::Session(local.clone()));
        let error = primary.add_path(target(&secondaries[0].listener)).await.unwrap_err();
        assert_eq!(error, AddPathError::Session(local.clone()));
        primary.remove_path(secondaries[0].path).await.unwrap();
        assert_eq!(primary_stream.delegate(PathId(1), 1, "").unwrap_err(), DelegateError::SessionClosed);
        assert_eq!(primary_stream.write(b"x").await.unwrap_err(), WriteError::Session(local));

        let remote = closed_by_peer(4, "over");
        assert_eq!(client.closed().await, remote);
        assert_eq!(client.open_uni_stream().unwrap_err(), OpenError::SessionClosed);
        assert_eq!(client.accept_stream().await.unwrap_err(), remote);
        assert_eq!(client_stream.read(&mut [0; 1]).await.unwrap_err(), ReadError::Session(remote));
        client.close(0, "nothing to do").await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn last_handle_dropped_closes_the_session_and_delivers_what_was_finished() {
    within(async {
        let Pair { client, server, listener } = pair().await;
        let clone = client.clone();
        drop(client);
        let mut stream = clone.open_uni_stream().unwrap();
        drop(clone);
        stream.write_chunk(pattern(0..500_000)).await.unwrap();
        drop(stream);
        let mut received = server.accept_uni_stream().await.unwrap();
        assert_eq!(check_to_end(&mut received, 0).await, 500_000);
        assert_eq!(server.closed().await, closed_by_peer(0, ""));
        // Nothing is left that would hold up the end.
        listener.close(0, "").await;
    })
    .await;
}

#[tokio::test]
async fn sessions_outlive_their_listener_and_the_port_is_free_after_them() {
    within(async {
        let Pair { client, server, listener } = pair().await;
        let address = listener.local_addr();
        drop(listener);
        spawn_echo(server);
        let mut stream = client.open_stream().unwrap();
        stream.write_all(b"still there?").await.unwrap();
        stream.finish().unwrap();
        assert_eq!(stream.read_to_end(100).await.unwrap(), b"still there?");
        drop(stream);
        client.close(0, "").await.unwrap();
        loop {
            match listen(address, Ca::new().server()).await {
                Ok(_) => return,
                Err(ListenError::Bind(BindError::AddressInUse { .. })) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn closed_listener_ends_its_sessions_and_frees_the_port() {
    within(async {
        let ca = Ca::new();
        let listener = listen(ANY_PORT, ca.server()).await.unwrap();
        let address = listener.local_addr();
        let accepted = dial((address, NAME), ca.client()).await.unwrap();
        let server = listener.accept().await.unwrap();
        let waiting = dial((address, NAME), ca.client()).await.unwrap();
        waiting.welcomed().await.unwrap();
        tokio::join!(listener.close(2, "shut"), listener.close(3, "twice"));
        assert!(listener.accept().await.is_none());
        assert_eq!(accepted.closed().await, closed_by_peer(2, "shut"));
        assert_eq!(waiting.closed().await, closed_by_peer(2, "shut"));
        assert_eq!(server.closed().await, SessionError::LocallyClosed);
        assert_eq!(listen(address, ca.server()).await.unwrap().local_addr(), address);
    })
    .await;
}

#[tokio::test]
async fn server_does_not_wait_for_ever_for_a_client_that_vanished() {
    within(async {
        let ca = Ca::new();
        let limits = limits(|limits| {
            limits.suspect_after = Duration::from_millis(100);
            limits.dead_after = Duration::from_millis(200);
            limits.idle_timeout = Duration::from_millis(400);
            limits.keep_alive = Duration::from_millis(100);
        });
        let listener = listen(ANY_PORT, ca.server().limits(limits.clone())).await.unwrap();
        let (address, config) = (listener.local_addr(), ca.client().limits(limits));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let dialling = runtime.spawn(async move { dial((address, NAME), config).await.unwrap() });
        let client = dialling.await.unwrap();
        let server = listener.accept().await.unwrap();
        runtime.shutdown_background();
        assert_eq!(server.closed().await, SessionError::TimedOut);
        // The client's handles know it too, by another way: their task is gone. That is nobody's fault but this program's.
        assert_eq!(client.closed().await, SessionError::NotDriven);
    })
    .await;
}

#[tokio::test]
async fn runtime_that_shut_down_is_not_the_peers_fault() {
    within(async {
        let ca = Ca::new();
        let primary = Doomed::start(ca.server()).await;
        let server = ca.server().trust_primary(primary.listener.identity());
        let secondary = listen(ANY_PORT, server).await.unwrap();
        let client = dial((primary.listener.local_addr(), NAME), ca.client()).await.unwrap();
        let session = primary.listener.accept().await.unwrap();
        let path = session.add_path(target(&secondary)).await.unwrap();
        let mut requested = client.open_stream().unwrap();
        requested.write_all(b"?").await.unwrap();
        let mut stream = session.accept_stream().await.unwrap();
        stream.read_exact(&mut [0; 1]).await.unwrap();
        let delegation = stream.delegate(path, 10, "ten").unwrap();
        let listener = std::sync::Arc::clone(&primary.listener);
        let ending = tokio::spawn(async move { listener.accept().await.is_none() });
        primary.kill();

        let gone = SessionError::NotDriven;
        assert_eq!(session.closed().await, gone);
        assert!(ending.await.unwrap(), "a listener that is gone accepts nothing");
        assert_eq!(stream.read(&mut [0; 1]).await, Err(ReadError::Session(gone.clone())));
        assert_eq!(stream.write(b"!").await, Err(WriteError::Session(gone.clone())));
        assert_eq!(stream.reset(1), Err(WriteError::Session(gone.clone())));
        assert_eq!(stream.stop(1), Err(ReadError::Session(gone.clone())));
        assert_eq!(session.send_raw(path, "raw").await, Err(SendRawError::Session(gone.clone())));
        assert_eq!(session.add_path(target(&secondary)).await, Err(AddPathError::Session(gone.clone())));
        let lost = delegation.delivered().await.unwrap_err();
        assert_eq!((lost.code, lost.missing), (TransportCode::ENDED_HERE.into(), only(0..10)));
        for text in [gone.to_string(), std::io::Error::from(WriteError::Session(gone)).to_string()] {
            assert!(text.contains("this side's endpoint") && !text.contains("peer"), "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn close_does_not_wait_long_for_a_peer_that_is_silent() {
    within(async {
        let ca = Ca::new();
        let patience = Duration::from_millis(300);
        let doomed = Doomed::start(ca.server()).await;
        let config = ca.client().limits(limits(|limits| limits.drain_timeout = patience));
        let client = dial((doomed.listener.local_addr(), NAME), config).await.unwrap();
        let server = doomed.listener.accept().await.unwrap();
        let mut stream = client.open_uni_stream().unwrap();
        doomed.kill();
        stream.write_all(b"nobody hears it").await.unwrap();
        stream.finish().unwrap();
        let start = std::time::Instant::now();
        assert_eq!(client.close(0, "").await.unwrap_err().streams, [stream.id()]);
        assert!((patience..patience + Duration::from_secs(2)).contains(&start.elapsed()), "{:?}", start.elapsed());
        assert_eq!(stream.finished().await.unwrap_err(), WriteError::Session(SessionError::LocallyClosed));
        drop(server);
    })
    .await;
}

#[tokio::test]
async fn delegation_that_outlives_its_session_is_lost() {
    within(async {
        let limits = limits(|limits| limits.drain_timeout = Duration::from_millis(200));
        let fleet = Fleet::with_limits(1, limits).await;
        let (mut client, mut primary) = fleet.stream().await;
        primary.write_chunk(pattern(0..10)).await.unwrap();
        let delegation = primary.delegate(fleet.secondaries[0].path, 20, "never served").unwrap();
        fleet.primary.close(0, "").await.unwrap();
        let lost = delegation.delivered().await.unwrap_err();
        assert_eq!(lost.missing, only(10..30));
        client.read_exact(&mut [0; 10]).await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_err(), ReadError::Session(closed_by_peer(0, "")));
    })
    .await;
}

#[tokio::test]
async fn client_that_closes_ends_every_path_of_its_session() {
    within(async {
        let fleet = Fleet::new(2).await;
        let (client, mut primary) = fleet.stream().await;
        let delegation = primary.delegate(fleet.secondaries[0].path, 20, "too late").unwrap();
        fleet.client.close(9, "enough").await.unwrap();
        drop(client);
        assert_eq!(fleet.primary.closed().await, closed_by_peer(9, "enough"));
        for secondary in &fleet.secondaries {
            assert_eq!(secondary.session.closed().await, closed_by_peer(9, "enough"));
        }
        assert_eq!(delegation.delivered().await.unwrap_err().missing, only(0..20));
    })
    .await;
}

#[tokio::test]
async fn fifty_clients_at_once_are_served() {
    within(async {
        let ca = Ca::new();
        let listener = listen(ANY_PORT, ca.server()).await.unwrap();
        let address = listener.local_addr();
        let serving = tokio::spawn(async move {
            for _ in 0..50 {
                spawn_echo(listener.accept().await.unwrap());
            }
            listener
        });
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..50_u8 {
            let config = ca.client();
            clients.spawn(async move {
                let client = dial((address, NAME), config).await.unwrap();
                let mut stream = client.open_stream().unwrap();
                stream.write_all(&[number; 1000]).await.unwrap();
                stream.finish().unwrap();
                assert_eq!(stream.read_to_end(1000).await.unwrap(), [number; 1000]);
                client.close(0, "").await.unwrap();
            });
        }
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        serving.await.unwrap().close(0, "").await;
    })
    .await;
}
