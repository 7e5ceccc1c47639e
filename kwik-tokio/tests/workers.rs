//! Endpoints with several workers: what they have in common, whoever is at work.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use kwik_tokio::{
    BindError, ClientConfig, ClientSession, DialError, Endpoint, EndpointConfig, ListenError, Listener, Local,
    SessionError, TransportCode, WorkerStats, dial, listen,
};

use crate::{
    common::{ANY_PORT, Ca, NAME, limits, spawn_echo, within},
    endpoint::echo,
};

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A listener with some workers, and who signs its certificates.
struct Site {
    ca: Ca,
    listener: Listener,
}

impl Site {
    fn new(config: EndpointConfig) -> Self {
        let ca = Ca::new();
        let endpoint = Endpoint::bind(LOOPBACK, config).unwrap();
        Self { listener: endpoint.listen(ca.server()).unwrap(), ca }
    }

    fn client(&self) -> ClientConfig {
        self.ca.client()
    }

    async fn dial(&self) -> ClientSession {
        dial((self.listener.local_addr(), NAME), self.client()).await.unwrap()
    }

    /// A session that echoes whatever comes.
    async fn dial_echo(&self) -> ClientSession {
        let client = self.dial().await;
        spawn_echo(self.listener.accept().await.unwrap());
        client
    }

    fn workers(&self) -> Vec<WorkerStats> {
        self.listener.endpoint().worker_stats()
    }
}

fn workers(count: usize) -> EndpointConfig {
    EndpointConfig::new().workers(count)
}

/// How many sessions each worker has.
fn spread(workers: &[WorkerStats]) -> Vec<usize> {
    workers.iter().map(|worker| worker.endpoint.sessions).collect()
}

fn is_refused(end: &SessionError) -> bool {
    matches!(end, SessionError::Transport { code: TransportCode::SERVER_BUSY, .. })
}

#[tokio::test]
async fn sessions_are_limited_over_all_workers() {
    within(async {
        let site = Site::new(workers(4).limits(limits(|limits| limits.sessions_max = 5)));
        let mut clients = Vec::new();
        for _ in 0..5 {
            let client = site.dial().await;
            client.welcomed().await.unwrap();
            clients.push((client, site.listener.accept().await.unwrap()));
        }
        assert_eq!(site.listener.stats().sessions, 5);
        let refused = site.dial().await;
        let end = refused.welcomed().await.unwrap_err();
        assert!(is_refused(&end), "{end}");
        assert_eq!(spread(&site.workers()).iter().sum::<usize>(), 5);
    })
    .await;
}

#[tokio::test]
async fn sessions_that_nobody_accepts_are_limited_over_all_workers() {
    within(async {
        let site = Site::new(workers(4).limits(limits(|limits| limits.accept_queue_sessions = 3)));
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let client = site.dial().await;
            client.welcomed().await.unwrap();
            waiting.push(client);
        }
        // It may be welcomed before it is refused.
        let end = site.dial().await.closed().await;
        assert!(is_refused(&end), "{end}");
        for _ in 0..3 {
            assert!(site.listener.accept().await.is_some());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_ends_the_sessions_of_all_workers_and_frees_the_port() {
    within(async {
        let site = Site::new(workers(4));
        let address = site.listener.local_addr();
        let mut clients = Vec::new();
        for _ in 0..16 {
            let client = site.dial_echo().await;
            echo(&client, b"hello").await;
            clients.push(client);
        }
        let busy = spread(&site.workers()).iter().filter(|sessions| **sessions > 0).count();
        assert!(busy > 1 || cfg!(not(target_os = "linux")), "{:?}", site.workers());
        site.listener.close(7, "shut").await;
        for client in clients {
            let end = SessionError::ClosedByPeer { code: 7, reason: "shut".to_owned(), cut_short: false };
            assert_eq!(client.closed().await, end);
        }
        assert!(site.listener.accept().await.is_none());
        assert_eq!(listen(address, site.ca.server()).await.unwrap().local_addr(), address);
    })
    .await;
}

/// Sockets that share a port share it among themselves only.
#[tokio::test]
async fn port_of_an_endpoint_with_workers_is_in_use() {
    within(async {
        let site = Site::new(workers(3));
        let address = site.listener.local_addr();
        for count in [1, 3] {
            let error = Endpoint::bind(address, workers(count)).unwrap_err();
            assert!(matches!(error, BindError::AddressInUse { address: named } if named == address), "{error}");
        }
        let error = listen(address, site.ca.server()).await.unwrap_err();
        assert!(matches!(error, ListenError::Bind(BindError::AddressInUse { .. })), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_outlive_the_listener_at_every_worker() {
    within(async {
        let site = Site::new(workers(4));
        let (address, mut sessions) = (site.listener.local_addr(), Vec::new());
        for _ in 0..8 {
            sessions.push(site.dial_echo().await);
        }
        let Site { ca, listener } = site;
        drop(listener);
        for client in &sessions {
            echo(client, &[1; 50_000]).await;
        }
        drop(sessions);
        while let Err(error) = listen(address, ca.server()).await {
            assert!(matches!(error, ListenError::Bind(BindError::AddressInUse { .. })), "{error}");
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn workers_dial_in_turns_and_hear_their_answers() {
    within(async {
        let site = Site::new(workers(2));
        let dialling = Endpoint::bind(LOOPBACK, workers(3)).unwrap();
        let mut clients = Vec::new();
        for _ in 0..6 {
            let client = dialling.dial((site.listener.local_addr(), NAME), site.client()).await.unwrap();
            spawn_echo(site.listener.accept().await.unwrap());
            echo(&client, &[3; 10_000]).await;
            clients.push(client);
        }
        let spread = spread(&dialling.worker_stats());
        assert!(spread == [2, 2, 2] || spread == [6], "{spread:?}");
    })
    .await;
}

/// The kernel tells one of the sockets, not the one that sent.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn closed_port_is_told_to_whichever_worker_dialled() {
    within(async {
        let site = Site::new(workers(1));
        let dialling = Endpoint::bind(LOOPBACK, workers(4)).unwrap();
        for _ in 0..8 {
            let closed = std::net::UdpSocket::bind(ANY_PORT).unwrap().local_addr().unwrap();
            let error = dialling.dial((closed, NAME), site.client()).await.unwrap_err();
            assert!(matches!(error, DialError::Unreachable { .. }), "{error}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn there_is_a_worker_for_each_thread_by_default() {
    let count = |local: Local| Endpoint::bind(local, EndpointConfig::new()).unwrap().worker_stats().len();
    assert_eq!(count(LOOPBACK.into()), if cfg!(target_os = "linux") { 3 } else { 1 });
    assert_eq!(count(Local::any()), 1, "it dials");
    assert_eq!(count(std::net::UdpSocket::bind(ANY_PORT).unwrap().into()), 1);
    for wrong in [0, 257] {
        let error = Endpoint::bind(LOOPBACK, workers(wrong)).unwrap_err();
        assert!(matches!(error, BindError::Config(_)) && error.to_string().contains("workers"), "{error}");
    }
}

#[tokio::test]
async fn there_is_one_worker_on_one_thread() {
    assert_eq!(Endpoint::bind(LOOPBACK, EndpointConfig::new()).unwrap().worker_stats().len(), 1);
}
