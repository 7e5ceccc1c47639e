use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use kwik_core::{ClientConfig, Limits, ServerConfig, SessionError, TransportCode};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{RootCertStore, pki_types::PrivateKeyDer};
use tokio::{net::UdpSocket, sync::watch, task::JoinSet};

use super::*;
use crate::{
    BindError, ClientSession, DialError, Endpoint, EndpointConfig, ListenError, Listener, Local, ServerSession,
    generate_identity, listen,
};

const NAME: &str = "localhost";
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A listener with some workers, and clients that trust it.
struct Site {
    listener: Arc<Listener>,
    server: ServerConfig,
    client: ClientConfig,
}

impl Site {
    fn new(config: EndpointConfig) -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let server = ServerConfig::new(generate_identity().unwrap(), vec![cert.der().clone()], key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let endpoint = Endpoint::bind(LOOPBACK, config).unwrap();
        let listener = Arc::new(endpoint.listen(server.clone()).unwrap());
        Self { listener, server, client: ClientConfig::with_roots(roots).unwrap() }
    }

    /// One that echoes whatever comes.
    fn echoing(config: EndpointConfig) -> Self {
        let site = Self::new(config);
        let listener = Arc::clone(&site.listener);
        tokio::spawn(async move {
            while let Some(session) = listener.accept().await {
                tokio::spawn(echo(session));
            }
        });
        site
    }

    async fn dial(&self, server: SocketAddr) -> ClientSession {
        crate::dial((server, NAME), self.client.clone()).await.unwrap()
    }

    fn workers(&self) -> Vec<WorkerStats> {
        self.listener.endpoint().worker_stats()
    }

    fn handed_over(&self) -> u64 {
        self.workers().iter().map(|worker| worker.handed_over).sum()
    }
}

async fn echo(session: ServerSession) {
    while let Ok(mut stream) = session.accept_stream().await {
        let request = stream.read_to_end(1 << 20).await.unwrap();
        stream.write_all(&request).await.unwrap();
        stream.finish().unwrap();
    }
}

async fn say(client: &ClientSession, text: &[u8]) {
    let mut stream = client.open_stream_sync().await.unwrap();
    stream.write_all(text).await.unwrap();
    stream.finish().unwrap();
    assert_eq!(stream.read_to_end(text.len()).await.unwrap(), text);
}

async fn within<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test hangs")
}

/// Between a client and a server: the server sees another port whenever `moves` changes. Returns where the client dials.
async fn forwarder(server: SocketAddr, mut moves: watch::Receiver<u32>) -> SocketAddr {
    let front = UdpSocket::bind(LOOPBACK).await.unwrap();
    let address = front.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut to_server, mut to_client) = (vec![0; 65_536], vec![0; 65_536]);
        let mut client = address;
        let mut back = UdpSocket::bind(LOOPBACK).await.unwrap();
        loop {
            // What is full counts as lost.
            tokio::select! {
                changed = moves.changed() => match changed {
                    Ok(()) => back = UdpSocket::bind(LOOPBACK).await.unwrap(),
                    Err(_) => return,
                },
                Ok((len, from)) = front.recv_from(&mut to_server) => {
                    client = from;
                    let _ = back.send_to(&to_server[..len], server).await;
                }
                Ok((len, _)) = back.recv_from(&mut to_client) => {
                    let _ = front.send_to(&to_client[..len], client).await;
                }
            }
        }
    });
    address
}

fn workers(count: usize) -> EndpointConfig {
    EndpointConfig::new().workers(count)
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// Eight clients that move some times: whether the kernel or the workers bring their datagrams home.
async fn move_clients(config: EndpointConfig) -> Site {
    let site = Site::echoing(config);
    let (moves, moved) = watch::channel(0);
    let mut clients = Vec::new();
    for _ in 0..8 {
        let server = forwarder(site.listener.local_addr(), moved.clone()).await;
        clients.push(site.dial(server).await);
    }
    for client in &clients {
        say(client, b"hello").await;
    }
    assert_eq!(site.handed_over(), 0, "who stays costs nothing");
    for _ in 0..3 {
        moves.send_modify(|count| *count += 1);
        let mut talks = JoinSet::new();
        for client in clients.clone() {
            talks.spawn(async move { say(&client, &[7; 100_000]).await });
        }
        assert_eq!(talks.join_all().await.len(), 8);
    }
    assert_eq!(site.listener.stats().sessions, 8, "{:?}", site.workers());
    let dropped = |worker: &WorkerStats| worker.dropped;
    assert_eq!(site.workers().iter().map(dropped).sum::<u64>(), 0);
    site
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kernel_brings_datagrams_of_clients_that_moved_to_their_workers() {
    within(async {
        let site = move_clients(workers(4)).await;
        assert_eq!(site.workers().len(), 4);
        assert_eq!(site.handed_over(), 0);
    })
    .await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_hand_over_datagrams_of_clients_that_moved() {
    within(async {
        let mut config = workers(4);
        config.socket.steering = false;
        let site = move_clients(config).await;
        // The chance that the kernel finds the right one of four sockets for 8 clients 3 times is nothing.
        assert!(site.handed_over() > 0);
    })
    .await;
}

#[tokio::test]
async fn sessions_are_limited_over_all_workers() {
    within(async {
        let site = Site::new(workers(4).limits(limits(|limits| limits.sessions_max = 5)));
        let mut clients = Vec::new();
        for _ in 0..5 {
            let client = site.dial(site.listener.local_addr()).await;
            client.welcomed().await.unwrap();
            clients.push((client, site.listener.accept().await.unwrap()));
        }
        assert_eq!(site.listener.stats().sessions, 5);
        let refused = site.dial(site.listener.local_addr()).await;
        let end = refused.welcomed().await.unwrap_err();
        assert!(matches!(end, SessionError::Transport { code: TransportCode::SERVER_BUSY, .. }), "{end}");
        let sum: usize = site.workers().iter().map(|worker| worker.endpoint.sessions).sum();
        assert_eq!(sum, 5);
    })
    .await;
}

#[tokio::test]
async fn sessions_that_nobody_accepts_are_limited_over_all_workers() {
    within(async {
        let site = Site::new(workers(4).limits(limits(|limits| limits.accept_queue_sessions = 3)));
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let client = site.dial(site.listener.local_addr()).await;
            client.welcomed().await.unwrap();
            say_nothing(&client);
            waiting.push(client);
        }
        // It may be welcomed before it is refused.
        let end = site.dial(site.listener.local_addr()).await.closed().await;
        assert!(matches!(end, SessionError::Transport { code: TransportCode::SERVER_BUSY, .. }), "{end}");
        for _ in 0..3 {
            assert!(site.listener.accept().await.is_some());
        }
    })
    .await;
}

fn say_nothing(client: &ClientSession) {
    assert_eq!(client.stats().streams_open, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_ends_the_sessions_of_all_workers_and_frees_the_port() {
    within(async {
        let site = Site::echoing(workers(4));
        let address = site.listener.local_addr();
        let mut clients = Vec::new();
        for _ in 0..16 {
            let client = site.dial(address).await;
            say(&client, b"hello").await;
            clients.push(client);
        }
        let with_sessions = site.workers().iter().filter(|worker| worker.endpoint.sessions > 0).count();
        assert!(with_sessions > 1 || cfg!(not(target_os = "linux")), "{:?}", site.workers());
        site.listener.close(7, "shut").await;
        for client in clients {
            let end = SessionError::ClosedByPeer { code: 7, reason: "shut".to_owned(), cut_short: false };
            assert_eq!(client.closed().await, end);
        }
        assert!(site.listener.accept().await.is_none());
        assert_eq!(listen(address, site.server.clone()).await.unwrap().local_addr(), address);
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
        let error = listen(address, site.server.clone()).await.unwrap_err();
        assert!(matches!(error, ListenError::AddressInUse { .. }), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_outlive_the_listener_at_every_worker() {
    within(async {
        let site = Site::new(workers(4));
        let (address, mut sessions) = (site.listener.local_addr(), Vec::new());
        for _ in 0..8 {
            let client = site.dial(address).await;
            tokio::spawn(echo(site.listener.accept().await.unwrap()));
            sessions.push(client);
        }
        drop(site.listener);
        for client in &sessions {
            say(client, &[1; 50_000]).await;
        }
        drop(sessions);
        while let Err(error) = listen(address, site.server.clone()).await {
            assert!(matches!(error, ListenError::AddressInUse { .. }), "{error}");
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn workers_dial_in_turns_and_hear_their_answers() {
    within(async {
        let site = Site::echoing(workers(2));
        let dialling = Endpoint::bind(LOOPBACK, workers(3)).unwrap();
        for _ in 0..6 {
            let client = dialling.dial((site.listener.local_addr(), NAME), site.client.clone()).await.unwrap();
            say(&client, &[3; 10_000]).await;
            std::mem::forget(client);
        }
        let sessions = |worker: &WorkerStats| worker.endpoint.sessions;
        let spread: Vec<_> = dialling.worker_stats().iter().map(sessions).collect();
        assert_eq!(spread.iter().sum::<usize>(), 6);
        assert!(spread.iter().all(|sessions| *sessions == 2) || spread.len() == 1, "{spread:?}");
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
            let closed = std::net::UdpSocket::bind(LOOPBACK).unwrap().local_addr().unwrap();
            let error = dialling.dial((closed, NAME), site.client.clone()).await.unwrap_err();
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
    assert_eq!(count(std::net::UdpSocket::bind(LOOPBACK).unwrap().into()), 1);
    for wrong in [0, 257] {
        let error = Endpoint::bind(LOOPBACK, workers(wrong)).unwrap_err();
        assert!(matches!(error, BindError::Config(_)) && error.to_string().contains("workers"), "{error}");
    }
}

#[tokio::test]
async fn there_is_one_worker_on_one_thread() {
    assert_eq!(Endpoint::bind(LOOPBACK, EndpointConfig::new()).unwrap().worker_stats().len(), 1);
}

// ---- inboxes

fn meta() -> DatagramMeta {
    DatagramMeta { remote: SocketAddr::from(([192, 0, 2, 1], 4433)), local_ip: None, ecn: None }
}

fn inbox_counts(inbox: &Inbox) -> (u64, u64) {
    let state = inbox.lock();
    (state.handed_over, state.dropped)
}

#[test]
fn inbox_gives_back_what_came_in_order() {
    let inbox = Inbox::default();
    for text in ["one", "", "three"] {
        assert!(inbox.push(&[(0, meta(), text.as_bytes())]).is_none(), "no driver waits");
    }
    let post = std::mem::take(&mut inbox.lock().post);
    let came: Vec<_> = post.datagrams().map(|(_, datagram)| datagram.to_vec()).collect();
    assert_eq!(came, [b"one".to_vec(), b"".to_vec(), b"three".to_vec()]);
    assert_eq!(inbox_counts(&inbox), (3, 0));
}

#[test]
fn inbox_is_bounded_and_counts_what_it_drops() {
    let many = Inbox::default();
    for _ in 0..INBOX_DATAGRAMS + 5 {
        many.push(&[(0, meta(), &[1])]);
    }
    assert_eq!(inbox_counts(&many), (INBOX_DATAGRAMS as u64 + 5, 5));

    let large = Inbox::default();
    let datagram = vec![1; 65_536];
    let batch: Vec<_> = (0..INBOX_BYTES / datagram.len() + 2).map(|_| (0, meta(), &datagram[..])).collect();
    large.push(&batch);
    assert_eq!(inbox_counts(&large).1, 2);
    assert_eq!(large.lock().post.bytes.len(), INBOX_BYTES);

    large.push_unreachable(&vec![(meta().remote, "nobody listens"); 1000]);
    assert_eq!(large.lock().post.unreachable.len(), INBOX_UNREACHABLE);
}
