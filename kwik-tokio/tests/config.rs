//! What is configured for an endpoint reaches its socket and QUIC. What QUIC makes of it is tested in virtual time.

use std::{net::UdpSocket, time::Duration};

use kwik_tokio::{Congestion, DialError, Endpoint, EndpointConfig, dial};
use socket2::SockRef;

use crate::{
    common::{ANY_PORT, Ca, NAME, limits, within},
    endpoint::{download, endpoint},
};

#[tokio::test]
async fn own_socket_is_used_with_the_buffers_asked_for() {
    let sizes = |config: EndpointConfig| {
        let own = UdpSocket::bind(ANY_PORT).unwrap();
        let watched = own.try_clone().unwrap();
        let endpoint = Endpoint::bind(own, config).unwrap();
        assert_eq!(endpoint.local_addr(), watched.local_addr().unwrap());
        let watched = SockRef::from(&watched);
        (watched.recv_buffer_size().unwrap(), watched.send_buffer_size().unwrap())
    };
    const LEAST: usize = 64 * 1024;
    let (receive, send) = sizes(EndpointConfig::new());
    let (small, usual) = sizes(EndpointConfig::new().receive_buffer_bytes(LEAST));
    assert!((LEAST..=2 * LEAST).contains(&small) && small < receive, "{small}, {receive}");
    assert_eq!(usual, send);
    let (usual, small) = sizes(EndpointConfig::new().send_buffer_bytes(LEAST));
    assert!((LEAST..=2 * LEAST).contains(&small) && small < send, "{small}, {send}");
    assert_eq!(usual, receive);
}

#[tokio::test]
async fn sizes_of_datagrams_are_those_configured() {
    within(async {
        let ca = Ca::new();
        for (initial, max, least) in [(1200, 1200, 1200), (4_000, 4_000, 4_000), (1200, 8_000, 7_900)] {
            let config = EndpointConfig::new().mtu_initial(initial).mtu_max(max);
            let listener = endpoint(config.clone()).listen(ca.server()).unwrap();
            let client = endpoint(config).dial((listener.local_addr(), NAME), ca.client()).await.unwrap();
            let server = listener.accept().await.unwrap();
            let mtu = || server.stats().paths[0].mtu;
            if initial == max {
                assert_eq!(mtu(), max, "there is nothing to probe for");
            }
            // Probes go with what there is to send.
            while mtu() < least {
                download(&client, &server, 10_000).await;
            }
            assert!(mtu() <= max, "{} of {max}", mtu());
        }
    })
    .await;
}

/// The datagrams of a dial that nobody answers for 900 ms.
async fn unanswered(config: EndpointConfig) -> Vec<usize> {
    let silent = UdpSocket::bind(ANY_PORT).unwrap();
    silent.set_nonblocking(true).unwrap();
    let patience = limits(|limits| limits.dial_timeout = Duration::from_millis(900));
    let client = Ca::new().client().limits(patience);
    let error = endpoint(config).dial((silent.local_addr().unwrap(), NAME), client).await.unwrap_err();
    assert!(matches!(error, DialError::NoAnswer { .. }), "{error}");
    let mut buf = [0; 65_535];
    std::iter::from_fn(|| silent.recv(&mut buf).ok()).collect()
}

#[tokio::test]
async fn first_datagram_is_repeated_as_the_initial_round_trip_says() {
    within(async {
        // Three round trips are 999 ms, and no timer is early.
        assert_eq!(unanswered(EndpointConfig::new()).await, [1200]);
        let sizes = unanswered(EndpointConfig::new().rtt_initial(Duration::from_millis(20))).await;
        assert!(sizes.len() > 2, "{sizes:?}");
        // Whatever the network carries: a client begins with the least that QUIC allows.
        assert_eq!(unanswered(EndpointConfig::new().mtu_initial(1452)).await, [1200]);
    })
    .await;
}

#[tokio::test]
async fn every_congestion_controller_carries_a_stream() {
    within(async {
        let ca = Ca::new();
        for congestion in [Congestion::Cubic, Congestion::NewReno, Congestion::Bbr] {
            let listener = endpoint(EndpointConfig::new().congestion(congestion)).listen(ca.server()).unwrap();
            let client = dial((listener.local_addr(), NAME), ca.client()).await.unwrap();
            download(&client, &listener.accept().await.unwrap(), 500_000).await;
        }
    })
    .await;
}
