use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use kwik_core::{ClientConfig, ServerConfig};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{RootCertStore, pki_types::PrivateKeyDer};
use tokio::{net::UdpSocket, sync::watch, task::JoinSet};

use super::*;
use crate::{ClientSession, Endpoint, EndpointConfig, Listener, ServerSession, generate_identity};

const NAME: &str = "localhost";
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A listener with some workers, and clients that trust it.
struct Site {
    listener: Listener,
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
        Self { listener: endpoint.listen(server).unwrap(), client: ClientConfig::with_roots(roots).unwrap() }
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

/// Eight clients that move some times: whether the kernel or the workers bring their datagrams home.
async fn move_clients(config: EndpointConfig) -> Site {
    let site = Site::new(config);
    let (moves, moved) = watch::channel(0);
    let mut clients = Vec::new();
    for _ in 0..8 {
        let server = forwarder(site.listener.local_addr(), moved.clone()).await;
        clients.push(site.dial(server).await);
        tokio::spawn(echo(site.listener.accept().await.unwrap()));
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

/// The kernel is told of the new sockets, or workers hand over what comes to them.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_find_their_workers_after_all_of_them_moved() {
    within(async {
        for steering in [true, false] {
            let site = Site::new(workers(1));
            let mut config = workers(4);
            config.socket.steering = steering;
            let dialling = Endpoint::bind(LOOPBACK, config).unwrap();
            let mut clients = Vec::new();
            for _ in 0..8 {
                clients.push(dialling.dial((site.listener.local_addr(), NAME), site.client.clone()).await.unwrap());
                tokio::spawn(echo(site.listener.accept().await.unwrap()));
            }
            let handed_over = || dialling.worker_stats().iter().map(|worker| worker.handed_over).sum::<u64>();
            for client in &clients {
                say(client, b"hello").await;
            }
            let before = handed_over();
            dialling.rebind(LOOPBACK).unwrap();
            for client in &clients {
                say(client, &[7; 100_000]).await;
            }
            if !steering {
                assert!(handed_over() > before, "{:?}", dialling.worker_stats());
                continue;
            }
            // The old sockets may still have brought something; now the servers answer the new ones, and the kernel knows whose
            // they are.
            let moved = handed_over();
            for client in &clients {
                say(client, &[8; 100_000]).await;
            }
            assert_eq!(handed_over(), moved, "{:?}", dialling.worker_stats());
        }
    })
    .await;
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
