//! Nobody is there, nobody can be reached, or nobody says a word: it is told as it is, and soon.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use kwik_tokio::{
    AddPathError, DialError, Limits, PathEvent, PathId, PathState, PathTarget, RemovePathError, SendRawError,
    TransportCode, dial, listen,
};

use crate::common::{ANY_PORT, Ca, Fleet, NAME, check_to_end, limits, pattern, spawn_filler, target, within};

/// No test takes so long: what ends a dial here is not that its time is over.
const NEVER: Duration = Duration::from_secs(3600);

fn patient() -> Limits {
    limits(|limits| {
        (limits.dial_timeout, limits.answer_timeout) = (NEVER, NEVER);
        (limits.idle_timeout, limits.dead_after) = (NEVER, NEVER);
    })
}

/// A port that was free a moment ago.
fn closed_port() -> SocketAddr {
    UdpSocket::bind(ANY_PORT).unwrap().local_addr().unwrap()
}

async fn refused(address: SocketAddr) -> String {
    match dial((address, NAME), Ca::new().client().limits(patient())).await.unwrap_err() {
        DialError::Unreachable { address: told, reason } => {
            assert_eq!(told, address);
            reason
        }
        error => panic!("{error}"),
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn dial_of_a_port_where_nobody_listens_fails_at_once() {
    within(async {
        assert_eq!(refused(closed_port()).await, "nobody listens on the port");
        if let Ok(socket) = UdpSocket::bind("[::1]:0") {
            let closed = socket.local_addr().unwrap();
            drop(socket);
            assert_eq!(refused(closed).await, "nobody listens on the port");
        }
    })
    .await;
}

#[tokio::test]
async fn dial_without_a_way_to_the_address_fails_at_once() {
    within(async {
        let reason = refused("[fe80::1]:4433".parse().unwrap()).await;
        assert!(reason.contains("interface") || reason.contains("IPv6"), "{reason}");
        // Whether there is a route to the internet depends on where this runs.
        for address in ["[2001:db8::1]:4433", "192.0.2.1:4433"] {
            let address: SocketAddr = address.parse().unwrap();
            let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            let probed = UdpSocket::bind(any).and_then(|socket| socket.connect(address));
            if probed.is_err_and(|error| error.kind() == ErrorKind::NetworkUnreachable) {
                assert_eq!(refused(address).await, "there is no way to its network");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn address_that_names_no_host_is_refused_in_every_spelling() {
    within(async {
        for address in ["0.0.0.0:4433", "[::]:4433", "[::ffff:0.0.0.0]:4433", "[::ffff:224.0.0.1]:4433", "127.0.0.1:0"]
        {
            let error = dial((address.parse().unwrap(), NAME), Ca::new().client()).await.unwrap_err();
            assert!(matches!(&error, DialError::Connect { .. }), "{address}: {error}");
        }
    })
    .await;
}

#[tokio::test]
async fn ipv4_address_mapped_into_ipv6_is_dialled_as_itself() {
    within(async {
        let ca = Ca::new();
        let listener = listen(ANY_PORT, ca.server()).await.unwrap();
        let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), listener.local_addr().port());
        let client = dial((mapped, NAME), ca.client()).await.unwrap();
        let server = listener.accept().await.unwrap();
        assert_eq!(client.stats().paths[0].address, listener.local_addr());
        let secondary = listen(ANY_PORT, ca.server().trust_primary(listener.identity())).await.unwrap();
        let address = SocketAddr::new(mapped.ip(), secondary.local_addr().port());
        let path = server.add_path(PathTarget { address, ..target(&secondary) }).await.unwrap();
        let info = server.all_paths().into_iter().find(|info| info.id == path).unwrap();
        assert_eq!(info.address, secondary.local_addr());
    })
    .await;
}

/// What the network says of one server does no harm to the others, which share its socket.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn secondary_where_nobody_listens_is_dead_at_once_and_the_others_go_on() {
    within(async {
        let fleet = Fleet::with_limits(1, patient()).await;
        spawn_filler(fleet.secondaries[0].session.clone());
        let (mut client, mut primary) = fleet.stream().await;
        let delegation = primary.delegate(fleet.secondaries[0].path, 3_000_000, "").unwrap();
        primary.finish().unwrap();
        for round in 0..8_u64 {
            let nowhere = PathTarget { address: closed_port(), ..target(&fleet.listener) };
            match fleet.primary.add_path(nowhere).await.unwrap_err() {
                AddPathError::Died { reason, .. } => assert_eq!(reason.code, TransportCode::UNREACHABLE.into()),
                error => panic!("{error}"),
            }
            let mut bytes = vec![0; 100_000];
            client.read_exact(&mut bytes).await.unwrap();
            assert_eq!(bytes, pattern(round * 100_000..(round + 1) * 100_000));
        }
        assert_eq!(check_to_end(&mut client.split().1, 800_000).await, 3_000_000);
        delegation.delivered().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn path_that_the_client_says_nothing_of_is_not_waited_for_for_ever() {
    within(async {
        let hurried = limits(|limits| {
            (limits.dial_timeout, limits.answer_timeout) = (Duration::from_millis(200), Duration::from_millis(300));
        });
        let ca = Ca::new();
        let listener = listen(ANY_PORT, ca.server().limits(hurried)).await.unwrap();
        let _client = dial((listener.local_addr(), NAME), ca.client().limits(patient())).await.unwrap();
        let primary = listener.accept().await.unwrap();
        let silent = UdpSocket::bind(ANY_PORT).unwrap();
        let nowhere = PathTarget { address: silent.local_addr().unwrap(), ..target(&listener) };
        let mut events = primary.path_events();
        let error = primary.add_path(nowhere).await.unwrap_err();
        assert_eq!(error, AddPathError::Unanswered { path: PathId(1) });
        let event = events.recv().await.unwrap();
        assert!(matches!(event, PathEvent::Dead { path: PathId(1), reason }
            if reason.code == TransportCode::UNANSWERED.into()));
        // It counts as removed: the wish for the same is granted, and says what is not known.
        let again = primary.remove_path(PathId(1)).await.unwrap_err();
        assert_eq!(again, RemovePathError::Unanswered { path: PathId(1) });
        assert!(matches!(primary.dead_paths()[0].state, PathState::Dead(_)));
    })
    .await;
}

#[tokio::test]
async fn removal_and_raw_packet_that_nobody_answers_are_not_waited_for_for_ever() {
    within(async {
        let hurried = limits(|limits| {
            (limits.dial_timeout, limits.answer_timeout) = (Duration::from_millis(300), Duration::from_millis(300));
        });
        let ca = Ca::new();
        let listener = listen(ANY_PORT, ca.server().limits(hurried.clone())).await.unwrap();
        let server = ca.server().trust_primary(listener.identity()).limits(hurried);
        let secondary = listen(ANY_PORT, server).await.unwrap();
        // The client is stopped later on, as by a debugger: it neither speaks nor ends.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (address, config) = (listener.local_addr(), ca.client());
        let dialling = runtime.spawn(async move { dial((address, NAME), config).await.unwrap() });
        let _client = dialling.await.unwrap();
        let primary = listener.accept().await.unwrap();
        let path = primary.add_path(target(&secondary)).await.unwrap();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (tell, is_stopped) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            tell.send(()).unwrap();
            let _ = stopped.recv();
        });
        is_stopped.await.unwrap();
        let (sent, removed) = tokio::join!(primary.send_raw(path, "?"), async {
            // The packet goes first, to a path that is there.
            tokio::task::yield_now().await;
            primary.remove_path(path).await
        });
        assert_eq!(sent, Err(SendRawError::Unanswered));
        assert_eq!(removed, Err(RemovePathError::Unanswered { path }));
        drop(stop);
        runtime.shutdown_background();
    })
    .await;
}
