//! How large datagrams become on the loopback interface, and behind it.

use std::{io, net::SocketAddr};

use kwik_tokio::{ClientSession, Endpoint, EndpointConfig, ServerSession};
use tokio::{net::UdpSocket, task::JoinHandle};

use crate::{
    common::{ANY_PORT, Ca, NAME, within},
    endpoint::{download, endpoint},
};

/// The UDP payload of the way between the ends, as each sees it.
fn mtus(client: &ClientSession, server: &ServerSession) -> [u16; 2] {
    [client.stats(), server.stats()].map(|stats| stats.paths[0].mtu)
}

/// Downloads until both ends see `wanted`.
async fn download_until(client: &ClientSession, server: &ServerSession, wanted: [u16; 2]) {
    while mtus(client, server) != wanted {
        download(client, server, 100_000).await;
    }
}

/// Dials `at`, behind which the server is.
async fn session(
    ends: [EndpointConfig; 2],
    at: impl FnOnce(SocketAddr) -> SocketAddr,
) -> (ClientSession, ServerSession) {
    let [client, server] = ends.map(endpoint);
    let ca = Ca::new();
    let listener = server.listen(ca.server()).unwrap();
    let client = client.dial((at(listener.local_addr()), NAME), ca.client()).await.unwrap();
    let session = listener.accept().await.unwrap();
    (client, session)
}

/// Nobody has to configure it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn datagrams_are_as_large_as_loopback_carries() {
    within(async {
        let (client, server) = session([EndpointConfig::new(), EndpointConfig::new()], |at| at).await;
        download(&client, &server, 1_000_000).await;
        assert_eq!(mtus(&client, &server), [65_507; 2]);
    })
    .await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn datagrams_of_ipv6_leave_room_for_its_header() {
    within(async {
        let bind = || Endpoint::bind(([0, 0, 0, 0, 0, 0, 0, 1], 0), EndpointConfig::new());
        // A host may have no IPv6.
        let (Ok(client), Ok(server)) = (bind(), bind()) else { return };
        let ca = Ca::new();
        let listener = server.listen(ca.server()).unwrap();
        let client = client.dial((listener.local_addr(), NAME), ca.client()).await.unwrap();
        let server = listener.accept().await.unwrap();
        download(&client, &server, 1_000_000).await;
        assert_eq!(mtus(&client, &server), [65_488; 2]);
    })
    .await;
}

/// What one end configures holds for both: the other is told.
#[tokio::test]
async fn configured_largest_mtu_holds() {
    within(async {
        let bounded = || EndpointConfig::new().mtu_max(1300);
        for ends in [[bounded(), EndpointConfig::new()], [EndpointConfig::new(), bounded()], [bounded(), bounded()]] {
            let (client, server) = session(ends, |at| at).await;
            download_until(&client, &server, [1300; 2]).await;
            download(&client, &server, 1_000_000).await;
            assert_eq!(mtus(&client, &server), [1300; 2]);
        }
    })
    .await;
}

#[tokio::test]
async fn mtu_is_found_from_where_it_was_configured_to_begin() {
    within(async {
        let config = || EndpointConfig::new().mtu_initial(1200).mtu_max(9000);
        let (client, server) = session([config(), config()], |at| at).await;
        download_until(&client, &server, [9000; 2]).await;
    })
    .await;
}

/// Passes datagrams of at most so many bytes between a client and a server. It ends with its task.
async fn narrow_link(server: SocketAddr, carries: usize) -> io::Result<(SocketAddr, JoinHandle<io::Result<()>>)> {
    let (near, far) = (UdpSocket::bind(ANY_PORT).await?, UdpSocket::bind(ANY_PORT).await?);
    let address = near.local_addr()?;
    let task = tokio::spawn(async move {
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        let mut client = None;
        loop {
            tokio::select! {
                received = near.recv_from(&mut up) => {
                    let (len, from) = received?;
                    client = Some(from);
                    if len <= carries {
                        far.send_to(&up[..len], server).await?;
                    }
                }
                received = far.recv_from(&mut down) => {
                    let (len, _) = received?;
                    if let Some(client) = client.filter(|_| len <= carries) {
                        near.send_to(&down[..len], client).await?;
                    }
                }
            }
        }
    });
    Ok((address, task))
}

/// The interface is loopback, and what is behind it carries less than loopback does, as a relay to elsewhere would.
#[tokio::test]
async fn path_falls_back_where_large_datagrams_vanish() {
    within(async {
        let ca = Ca::new();
        let listener = endpoint(EndpointConfig::new()).listen(ca.server()).unwrap();
        let (address, link) = narrow_link(listener.local_addr(), 1400).await.unwrap();
        let client = endpoint(EndpointConfig::new()).dial((address, NAME), ca.client()).await.unwrap();
        let server = listener.accept().await.unwrap();
        download(&client, &server, 1_000_000).await;
        assert_eq!(server.stats().paths[0].mtu, 1200);
        link.abort();
    })
    .await;
}
