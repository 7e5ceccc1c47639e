//! A socket that is bound anew, and a server that changes its certificate or its identity.

use std::net::UdpSocket;

use kwik_tokio::{
    AddPathError, BindError, DeadReason, DialError, EndpointConfig, Local, SessionError, TransportCode, dial,
    generate_identity, listen,
};

use crate::{
    common::{ANY_PORT, Ca, Fleet, NAME, check_to_end, pattern, spawn_echo, spawn_filler, target, within},
    endpoint::{echo, endpoint},
};

const MB: u64 = 1_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_transfers_survive_three_changes_of_their_port() {
    move_thrice(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_of_four_workers_survive_three_changes_of_their_port() {
    move_thrice(4).await;
}

fn workers(count: usize) -> EndpointConfig {
    EndpointConfig::new().workers(count)
}

/// Two megabytes down and one up in each session, while the endpoint is bound anew three times.
async fn move_thrice(workers: usize) {
    within(async {
        let ca = Ca::new();
        let listener = listen(ANY_PORT, ca.server()).await.unwrap();
        let dialling = endpoint(self::workers(workers));
        let mut addresses = vec![dialling.local_addr()];
        let mut transfers = tokio::task::JoinSet::new();
        let (moved, moves) = tokio::sync::watch::channel(0);
        let (half, mut halves) = tokio::sync::mpsc::unbounded_channel();
        let mut servers = Vec::new();
        for _ in 0..8 {
            let client = dialling.dial((listener.local_addr(), NAME), ca.client()).await.unwrap();
            let server = listener.accept().await.unwrap();
            servers.push(server.clone());
            let (mut moves, half) = (moves.clone(), half.clone());
            transfers.spawn(async move {
                let (mut up, mut down) = (client.open_uni_stream().unwrap(), server.open_uni_stream().unwrap());
                let write = async {
                    for part in 0..3 {
                        moves.wait_for(|moves| *moves >= part).await.unwrap();
                        down.write_chunk(pattern(part * 2 * MB / 3..(part + 1) * 2 * MB / 3)).await.unwrap();
                        up.write_chunk(pattern(part * MB / 3..(part + 1) * MB / 3)).await.unwrap();
                        half.send(()).unwrap();
                    }
                    down.finish().unwrap();
                    up.finish().unwrap();
                };
                let read_up = async { check_to_end(&mut server.accept_uni_stream().await.unwrap(), 0).await };
                let read_down = async { check_to_end(&mut client.accept_uni_stream().await.unwrap(), 0).await };
                let (_, up, down) = tokio::join!(write, read_up, read_down);
                assert_eq!((up, down), (MB, 2 * MB));
                moves.wait_for(|moves| *moves == 3).await.unwrap();
                echo_after(&client, &server).await;
                client
            });
        }
        // Whenever all have written a part, with the rest of it on its way.
        for move_number in 1..=3 {
            for _ in 0..8 {
                halves.recv().await.unwrap();
            }
            dialling.rebind(([127, 0, 0, 1], 0)).unwrap();
            addresses.push(dialling.local_addr());
            moved.send(move_number).unwrap();
        }
        let clients = transfers.join_all().await;
        assert_eq!(clients.len(), 8, "8 of 8 survive");
        for server in &servers {
            while server.stats().paths[0].address != dialling.local_addr() {
                tokio::task::yield_now().await;
            }
        }
        addresses.dedup();
        assert_eq!(addresses.len(), 4);
        // The sockets before are closed.
        for address in &addresses[..3] {
            while UdpSocket::bind(address).is_err() {
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
}

async fn echo_after(client: &kwik_tokio::ClientSession, server: &kwik_tokio::ServerSession) {
    let mut asked = client.open_stream().unwrap();
    asked.write_all(b"moved?").await.unwrap();
    asked.finish().unwrap();
    let mut answering = server.accept_stream().await.unwrap();
    assert_eq!(answering.read_to_end(100).await.unwrap(), b"moved?");
    answering.write_all(b"moved").await.unwrap();
    answering.finish().unwrap();
    assert_eq!(asked.read_to_end(100).await.unwrap(), b"moved");
}

/// The client says nothing of its own: without word of the new port its servers would send to the old one.
#[tokio::test]
async fn every_path_of_an_idle_client_moves() {
    within(async {
        let ca = Ca::new();
        let (primary, dialling) = (listen(ANY_PORT, ca.server()).await.unwrap(), endpoint(EndpointConfig::new()));
        let secondary = listen(ANY_PORT, ca.server().trust_primary(primary.identity())).await.unwrap();
        let client = dialling.dial((primary.local_addr(), NAME), ca.client()).await.unwrap();
        let session = primary.accept().await.unwrap();
        let path = session.add_path(target(&secondary)).await.unwrap();
        let joined = secondary.accept().await.unwrap();
        spawn_filler(joined.clone());

        dialling.rebind(Local::any()).unwrap();
        let port = dialling.local_addr().port();
        let mut stream = session.open_uni_stream().unwrap();
        let delegation = stream.delegate(path, 300_000, "").unwrap();
        stream.finish().unwrap();
        let mut reading = client.accept_uni_stream().await.unwrap();
        assert_eq!(check_to_end(&mut reading, 0).await, 300_000);
        delegation.delivered().await.unwrap();
        for server in [&session, &joined] {
            assert_eq!(server.stats().paths[0].address.port(), port);
        }
    })
    .await;
}

#[tokio::test]
async fn rebind_that_fails_changes_nothing() {
    within(async {
        let ca = Ca::new();
        let listener = listen(ANY_PORT, ca.server()).await.unwrap();
        let dialling = endpoint(EndpointConfig::new());
        let client = dialling.dial((listener.local_addr(), NAME), ca.client()).await.unwrap();
        spawn_echo(listener.accept().await.unwrap());
        let before = dialling.local_addr();
        let error = dialling.rebind(listener.local_addr()).unwrap_err();
        assert!(matches!(error, BindError::AddressInUse { .. }), "{error}");
        assert_eq!(dialling.local_addr(), before);
        echo(&client, b"as before").await;
        // A socket of one's own.
        let own = UdpSocket::bind(ANY_PORT).unwrap();
        let address = own.local_addr().unwrap();
        dialling.rebind(own).unwrap();
        assert_eq!(dialling.local_addr(), address);
        echo(&client, b"from another socket").await;
        dialling.close(0, "").await;
        let error = dialling.rebind(Local::any()).unwrap_err();
        assert!(matches!(error, BindError::EndpointClosed), "{error}");
    })
    .await;
}

/// Each worker needs a socket, and what was bound without sharing its port is one.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn workers_cannot_move_to_a_single_socket() {
    within(async {
        let ca = Ca::new();
        let listener = listen(ANY_PORT, ca.server()).await.unwrap();
        let dialling = endpoint(workers(2));
        let client = dialling.dial((listener.local_addr(), NAME), ca.client()).await.unwrap();
        spawn_echo(listener.accept().await.unwrap());
        let before = dialling.local_addr();
        let error = dialling.rebind(UdpSocket::bind(ANY_PORT).unwrap()).unwrap_err();
        assert!(matches!(error, BindError::System(_)) && error.to_string().contains("2 workers"), "{error}");
        assert_eq!(dialling.local_addr(), before);
        echo(&client, b"as before").await;
    })
    .await;
}

/// New clients find every worker of a server that moved, and workers agree on where they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_moved_is_dialled_where_it_is_now() {
    within(async {
        let ca = Ca::new();
        let listening = endpoint(workers(4));
        let listener = listening.listen(ca.server()).unwrap();
        let before = listener.local_addr();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| listening.rebind(([127, 0, 0, 1], 0)).unwrap());
            }
        });
        assert_ne!(listener.local_addr(), before);
        for _ in 0..16 {
            let client = dial((listener.local_addr(), NAME), ca.client()).await.unwrap();
            spawn_echo(listener.accept().await.unwrap());
            echo(&client, &[5; 20_000]).await;
        }
        let busy = listening.worker_stats().iter().filter(|worker| worker.endpoint.turns > 0).count();
        assert!(busy > 1 || cfg!(not(target_os = "linux")), "{:?}", listening.worker_stats());
    })
    .await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn new_socket_hears_of_ports_where_nobody_listens() {
    within(async {
        let ca = Ca::new();
        let listener = listen(ANY_PORT, ca.server()).await.unwrap();
        for count in [1, 3] {
            let dialling = endpoint(workers(count));
            dialling.dial((listener.local_addr(), NAME), ca.client()).await.unwrap();
            dialling.rebind(Local::any()).unwrap();
            for _ in 0..count {
                let closed = UdpSocket::bind(ANY_PORT).unwrap().local_addr().unwrap();
                let error = dialling.dial((closed, NAME), ca.client()).await.unwrap_err();
                assert!(matches!(error, DialError::Unreachable { .. }), "{error}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn renewed_certificate_is_seen_by_new_sessions_only() {
    within(async {
        let (old, new) = (Ca::new(), Ca::new());
        let identity = generate_identity().unwrap();
        let listener = listen(ANY_PORT, old.server_as(NAME, identity.clone())).await.unwrap();
        let server = (listener.local_addr(), NAME);
        let before = dial(server, old.client()).await.unwrap();
        spawn_echo(listener.accept().await.unwrap());
        assert!(matches!(dial(server, new.client()).await, Err(DialError::Handshake { .. })));

        listener.set_config(new.server_as(NAME, identity.clone())).unwrap();
        assert_eq!(listener.identity(), identity.public());
        let after = dial(server, new.client().primary_identity(identity.public())).await.unwrap();
        spawn_echo(listener.accept().await.unwrap());
        for client in [&before, &after] {
            echo(client, b"both live").await;
        }
        let error = dial(server, old.client()).await.unwrap_err();
        let DialError::Handshake { source: SessionError::Transport { code, .. }, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(code, TransportCode::TLS_FAILED);

        listener.close(0, "").await;
        let error = listener.set_config(new.server()).unwrap_err();
        assert!(error.to_string().contains("closed"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn every_worker_goes_on_with_the_new_configuration() {
    within(async {
        let (old, new) = (Ca::new(), Ca::new());
        let listener = endpoint(workers(4)).listen(old.server()).unwrap();
        let server = (listener.local_addr(), NAME);
        dial(server, old.client()).await.unwrap();
        listener.accept().await.unwrap();
        let renewed = new.server();
        listener.set_config(renewed.clone()).unwrap();
        for _ in 0..16 {
            let client = dial(server, new.client().primary_identity(renewed.identity())).await.unwrap();
            client.welcomed().await.unwrap();
            listener.accept().await.unwrap();
            assert!(matches!(dial(server, old.client()).await, Err(DialError::Handshake { .. })));
        }
        let stats = listener.endpoint().worker_stats();
        let busy = stats.iter().filter(|worker| worker.endpoint.turns > 0).count();
        assert!(busy > 1 || cfg!(not(target_os = "linux")), "{stats:?}");
    })
    .await;
}

/// A secondary with another identity refuses tickets for the old one; what joined before stays.
#[tokio::test]
async fn changed_identity_holds_for_new_sessions_and_tickets() {
    within(async {
        let fleet = Fleet::new(1).await;
        let secondary = &fleet.secondaries[0];
        let old = target(&secondary.listener);
        spawn_filler(secondary.session.clone());
        let renewed = fleet.ca.server().trust_primary(fleet.listener.identity());
        secondary.listener.set_config(renewed.clone()).unwrap();
        assert_eq!(secondary.listener.identity(), renewed.identity());
        assert_ne!(secondary.listener.identity(), old.identity);

        let error = fleet.primary.add_path(old).await.unwrap_err();
        let AddPathError::Died { reason: DeadReason { code, .. }, .. } = &error else { panic!("{error}") };
        assert_eq!(*code, TransportCode::AUTH_FAILED.into());
        let path = fleet.primary.add_path(target(&secondary.listener)).await.unwrap();
        let joined = secondary.listener.accept().await.unwrap();
        spawn_filler(joined);

        let (mut client, mut primary) = fleet.stream().await;
        let delegations = [secondary.path, path].map(|path| primary.delegate(path, 100_000, "").unwrap());
        primary.finish().unwrap();
        let mut offset = 0;
        while let Some(chunk) = client.read_chunk(usize::MAX, true).await.unwrap() {
            crate::common::check(offset, &chunk.data);
            offset += chunk.data.len() as u64;
        }
        assert_eq!(offset, 200_000);
        for delegation in delegations {
            delegation.delivered().await.unwrap();
        }
    })
    .await;
}

/// What a primary signs in a session it signs with the identity that the session began with.
#[tokio::test]
async fn session_keeps_the_identity_that_its_primary_had() {
    within(async {
        let fleet = Fleet::new(0).await;
        let old = fleet.listener.identity();
        // It trusts the old identity of the primary.
        let secondary = fleet.start_secondary().await;
        fleet.listener.set_config(fleet.ca.server()).unwrap();
        assert_ne!(fleet.listener.identity(), old);
        fleet.primary.add_path(target(&secondary)).await.unwrap();
        assert!(secondary.accept().await.is_some());

        let client = dial((fleet.listener.local_addr(), NAME), fleet.ca.client()).await.unwrap();
        let session = fleet.listener.accept().await.unwrap();
        let error = session.add_path(target(&secondary)).await.unwrap_err();
        let AddPathError::Died { reason: DeadReason { code, .. }, .. } = &error else { panic!("{error}") };
        assert_eq!(*code, TransportCode::AUTH_FAILED.into());
        client.close(0, "").await.unwrap();
    })
    .await;
}
