//! Many sessions on one socket, which dials and listens.

use std::{net::UdpSocket, time::Duration};

use kwik_tokio::{
    AckFrequency, BindError, ClientConfig, ClientSession, ConfigError, DialError, Endpoint, EndpointConfig,
    ListenError, Local, ServerSession, SessionError, dial, listen,
};

use crate::common::{ANY_PORT, Ca, NAME, check_to_end, limits, pattern, spawn_echo, within};

/// An endpoint on a free port of the loopback interface.
pub(crate) fn endpoint(config: EndpointConfig) -> Endpoint {
    Endpoint::bind(([127, 0, 0, 1], 0), config).unwrap()
}

/// Says something and hears it.
pub(crate) async fn echo(client: &ClientSession, text: &[u8]) {
    let mut stream = client.open_stream_sync().await.unwrap();
    stream.write_all(text).await.unwrap();
    stream.finish().unwrap();
    assert_eq!(stream.read_to_end(text.len()).await.unwrap(), text);
}

#[tokio::test]
async fn many_sessions_share_one_socket() {
    within(async {
        let ca = Ca::new();
        let dialling = endpoint(EndpointConfig::new());
        let mut clients = tokio::task::JoinSet::new();
        let mut servers = Vec::new();
        for number in 0..16_u8 {
            let listener = listen(ANY_PORT, ca.server()).await.unwrap();
            let (server, config) = ((listener.local_addr(), NAME), ca.client());
            let endpoint = dialling.clone();
            clients.spawn(async move {
                let client = endpoint.dial(server, config).await.unwrap();
                echo(&client, &[number; 2000]).await;
                client
            });
            let session = listener.accept().await.unwrap();
            assert_eq!(session.remote_address(), dialling.local_addr());
            spawn_echo(session);
            servers.push(listener);
        }
        let clients = clients.join_all().await;
        assert_eq!(dialling.stats().sessions, 16);
        for client in clients {
            client.close(0, "").await.unwrap();
        }
        dialling.wait_idle().await;
        assert_eq!(dialling.stats().sessions, 0);
        // It dials on.
        let client = dialling.dial((servers[0].local_addr(), NAME), ca.client()).await.unwrap();
        assert!(client.welcomed().await.is_ok());
    })
    .await;
}

/// Two programs that dial each other from the port they listen on.
#[tokio::test]
async fn one_socket_dials_and_listens() {
    within(async {
        let ca = Ca::new();
        let ends = [endpoint(EndpointConfig::new()), endpoint(EndpointConfig::new())];
        let listeners = [ends[0].listen(ca.server()).unwrap(), ends[1].listen(ca.server()).unwrap()];
        let dial = |from: usize, to: usize| ends[from].dial((listeners[to].local_addr(), NAME), ca.client());
        let (there, back) = tokio::join!(dial(0, 1), dial(1, 0));
        let clients = [there.unwrap(), back.unwrap()];
        for (number, listener) in listeners.iter().enumerate() {
            let session = listener.accept().await.unwrap();
            assert_eq!(session.remote_address(), ends[1 - number].local_addr());
            spawn_echo(session);
        }
        for client in &clients {
            echo(client, b"hello").await;
        }
        // Whoever stops to listen dials on.
        let [first, second] = listeners;
        assert_eq!(second.endpoint().stats().sessions, 2);
        let address = second.local_addr();
        drop(second);
        echo(&clients[0], b"accepted before").await;
        let client = ends[1].dial((first.local_addr(), NAME), ca.client()).await.unwrap();
        spawn_echo(first.accept().await.unwrap());
        echo(&client, b"dialled after").await;
        let error = ends[0].dial((address, NAME), quick(&ca)).await.unwrap_err();
        assert!(matches!(error, DialError::NoAnswer { .. }), "{error}");
        // And may listen again.
        let again = ends[1].listen(ca.server()).unwrap();
        ends[0].dial((address, NAME), ca.client()).await.unwrap();
        again.accept().await.unwrap();
    })
    .await;
}

/// A client that does not wait long.
fn quick(ca: &Ca) -> ClientConfig {
    ca.client().limits(limits(|limits| limits.dial_timeout = Duration::from_millis(300)))
}

#[tokio::test]
async fn endpoint_has_one_listener_and_none_after_its_close() {
    within(async {
        let ca = Ca::new();
        let server = endpoint(EndpointConfig::new());
        let listener = server.listen(ca.server()).unwrap();
        let error = server.listen(ca.server()).unwrap_err();
        assert!(matches!(error, ListenError::AlreadyListening), "{error}");
        let client = dial((listener.local_addr(), NAME), ca.client()).await.unwrap();
        let dialled = server.dial((listen_elsewhere(&ca).await, NAME), ca.client()).await.unwrap();
        tokio::join!(server.close(4, "over"), async {
            assert_eq!(
                client.closed().await,
                SessionError::ClosedByPeer { code: 4, reason: "over".to_owned(), cut_short: false }
            );
            assert_eq!(dialled.closed().await, SessionError::LocallyClosed);
        });
        assert!(listener.accept().await.is_none());
        server.wait_idle().await;
        let error = server.dial((listener.local_addr(), NAME), ca.client()).await.unwrap_err();
        assert!(matches!(error, DialError::EndpointClosed), "{error}");
        drop(listener);
        let error = server.listen(ca.server()).unwrap_err();
        assert!(matches!(error, ListenError::EndpointClosed), "{error}");
        // The port is free.
        Endpoint::bind(server.local_addr(), EndpointConfig::new()).unwrap();
    })
    .await;
}

/// The address of a server that serves for as long as the test runs.
async fn listen_elsewhere(ca: &Ca) -> std::net::SocketAddr {
    let listener = listen(ANY_PORT, ca.server()).await.unwrap();
    let address = listener.local_addr();
    tokio::spawn(async move {
        while let Some(session) = listener.accept().await {
            spawn_echo(session);
        }
    });
    address
}

#[tokio::test]
async fn sessions_outlive_the_handles_of_their_endpoint() {
    within(async {
        let ca = Ca::new();
        let dialling = endpoint(EndpointConfig::new());
        let address = dialling.local_addr();
        let client = dialling.dial((listen_elsewhere(&ca).await, NAME), ca.client()).await.unwrap();
        drop(dialling);
        echo(&client, b"still there").await;
        client.close(0, "").await.unwrap();
        drop(client);
        // The task ends, and its socket with it.
        while let Err(error) = UdpSocket::bind(address) {
            assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn limits_of_the_endpoint_hold_for_all_its_sessions() {
    within(async {
        let ca = Ca::new();
        let server = listen_elsewhere(&ca).await;
        let dialling = endpoint(EndpointConfig::new().limits(limits(|limits| limits.sessions_max = 2)));
        let _sessions = [
            dialling.dial((server, NAME), ca.client()).await.unwrap(),
            dialling.dial((server, NAME), ca.client()).await.unwrap(),
        ];
        let error = dialling.dial((server, NAME), ca.client()).await.unwrap_err();
        assert!(matches!(error, DialError::Connect { .. }), "{error}");
        assert!(error.to_string().contains('2'), "{error}");
    })
    .await;
}

#[tokio::test]
async fn values_that_cannot_work_are_refused_by_name() {
    let asked = |delay| {
        let mut asked = AckFrequency::default();
        asked.max_ack_delay = Some(delay);
        EndpointConfig::new().ack_frequency(asked)
    };
    let config = EndpointConfig::new;
    for (name, config) in [
        ("mtu_max", config().mtu_max(1199)),
        ("mtu_max", config().mtu_max(65_528)),
        ("mtu_initial", config().mtu_initial(1000)),
        ("mtu_initial", config().mtu_initial(65_528)),
        ("mtu_initial", config().mtu_max(1452).mtu_initial(1453)),
        ("rtt_initial", config().rtt_initial(Duration::ZERO)),
        ("rtt_initial", config().rtt_initial(Duration::MAX)),
        ("max_ack_delay", asked(Duration::ZERO)),
        ("max_ack_delay", asked(Duration::MAX)),
        ("receive_buffer_bytes", config().receive_buffer_bytes(0)),
        ("receive_buffer_bytes", config().receive_buffer_bytes(usize::MAX)),
        ("send_buffer_bytes", config().send_buffer_bytes(65_535)),
        ("send_buffer_bytes", config().send_buffer_bytes(1 << 31)),
    ] {
        let error = Endpoint::bind(Local::any(), config).unwrap_err();
        let BindError::Config(ConfigError::Field { field, .. }) = &error else { panic!("{error}") };
        assert_eq!(*field, name);
        assert!(error.to_string().contains(name), "{error}");
    }
    let config = config().limits(limits(|limits| limits.sessions_max = 0));
    let error = Endpoint::bind(Local::any(), config).unwrap_err();
    assert!(error.to_string().contains("sessions_max"), "{error}");
}

#[test]
fn endpoint_without_a_runtime_is_an_error() {
    let error = Endpoint::bind(Local::any(), EndpointConfig::new()).unwrap_err();
    assert!(matches!(error, BindError::System(_)), "{error}");
}

/// What the checks let pass works, at the edges too.
#[tokio::test]
async fn extreme_configurations_carry_a_stream() {
    within(async {
        let ca = Ca::new();
        let asked = |threshold, delay, reordering| {
            let mut asked = AckFrequency::default();
            asked.ack_eliciting_threshold = threshold;
            asked.max_ack_delay = Some(delay);
            asked.reordering_threshold = reordering;
            asked
        };
        let least = EndpointConfig::new()
            .mtu_max(1200)
            .segmentation_offload(false)
            .rtt_initial(Duration::from_millis(1))
            .receive_buffer_bytes(64 * 1024)
            .send_buffer_bytes(64 * 1024)
            .ack_frequency(asked(0, Duration::from_millis(1), 0));
        let most = EndpointConfig::new()
            .mtu_max(65_527)
            .mtu_initial(65_527)
            .rtt_initial(Duration::from_secs(10))
            .receive_buffer_bytes(1 << 30)
            .send_buffer_bytes(1 << 30)
            .ack_frequency(asked(u32::MAX, Duration::from_secs(16), u32::MAX));
        for (client, server) in [(&least, &least), (&least, &most), (&most, &least), (&most, &most)] {
            let listener = endpoint(server.clone()).listen(ca.server()).unwrap();
            let dialled = endpoint(client.clone()).dial((listener.local_addr(), NAME), ca.client()).await;
            let client = dialled.unwrap_or_else(|error| panic!("{client:?} dials {server:?}: {error}"));
            let session = listener.accept().await.unwrap();
            download(&client, &session, 200_000).await;
        }
    })
    .await;
}

/// The server sends so many bytes to the client.
pub(crate) async fn download(client: &ClientSession, server: &ServerSession, bytes: u64) {
    let mut send = server.open_uni_stream_sync().await.unwrap();
    let mut recv = client.accept_uni_stream().await.unwrap();
    let write = async {
        send.write_chunk(pattern(0..bytes)).await.unwrap();
        send.finish().unwrap();
    };
    let (_, read) = tokio::join!(write, check_to_end(&mut recv, 0));
    assert_eq!(read, bytes);
}
