//! What clients cost that are idle or over, by the thousand in one process: memory, sockets and tasks.

#[cfg(test)]
#[expect(dead_code, reason = "shared with the tests by topic")]
mod common;

use std::alloc::System;
use std::sync::{Mutex, PoisonError};

use cap::Cap;
use kwik_tokio::{ClientSession, Limits, ServerSession, dial, listen};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::common::{ANY_PORT, Ca, NAME, limits};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// One test at a time, since they share the allocator.
static TURN: Mutex<()> = Mutex::new(());

/// A runtime whose tasks run on this thread only, so that nothing happens between two looks at the memory.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("it works on loopback")
}

/// Limits for hundreds of clients of one address.
fn generous() -> Limits {
    limits(|limits| {
        (limits.handshakes_per_second, limits.handshakes_network_per_second) = (100_000, 100_000);
        (limits.verifications_per_second, limits.verifications_network_per_second) = (100_000, 100_000);
    })
}

/// Waits until only so many tasks are alive: those of clients that are over have ended.
async fn tasks_are(count: usize) {
    let ended = async {
        while Handle::current().metrics().num_alive_tasks() > count {
            tokio::task::yield_now().await;
        }
    };
    common::within(ended).await;
}

/// A question and its answer.
async fn ask(client: &ClientSession, server: &ServerSession) {
    let mut stream = client.open_stream().expect("it works on loopback");
    stream.write_all(b"question").await.expect("it works on loopback");
    stream.finish().expect("it works on loopback");
    let mut asked = server.accept_stream().await.expect("it works on loopback");
    assert_eq!(asked.read_to_end(100).await.expect("it works on loopback"), b"question"[..]);
    asked.write_all(b"answer").await.expect("it works on loopback");
    asked.finish().expect("it works on loopback");
    assert_eq!(stream.read_to_end(100).await.expect("it works on loopback"), b"answer"[..]);
}

#[cfg(target_os = "linux")]
fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("it works on loopback").count()
}

#[cfg(not(target_os = "linux"))]
fn open_files() -> usize {
    0
}

/// A port that was free a moment ago: a dial of it is refused.
#[cfg(target_os = "linux")]
fn closed_port() -> std::net::SocketAddr {
    std::net::UdpSocket::bind(ANY_PORT).expect("it works on loopback").local_addr().expect("it works on loopback")
}

// E-03
#[test]
fn clients_that_are_over_leave_nothing_behind() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    runtime().block_on(async {
        let ca = Ca::new();
        let listener = listen(ANY_PORT, ca.server().limits(generous())).await.unwrap();
        let config = ca.client().limits(generous());
        let tasks = Handle::current().metrics().num_alive_tasks();
        let (mut held, mut files) = (Vec::new(), Vec::new());
        for round in 0..8 {
            let clients: Vec<_> = (0..50)
                .map(|_| {
                    let (server, config) = ((listener.local_addr(), NAME), config.clone());
                    tokio::spawn(async move { dial(server, config).await.unwrap() })
                })
                .collect();
            let mut ends = Vec::new();
            for client in clients {
                ends.push((client.await.unwrap(), listener.accept().await.unwrap()));
            }
            // Which session at the server belongs to which client does not matter: all do the same.
            for (client, _) in &ends {
                let mut stream = client.open_uni_stream().unwrap();
                stream.write_all(b"hello").await.unwrap();
                stream.finish().unwrap();
            }
            for (_, server) in &ends {
                let mut stream = server.accept_uni_stream().await.unwrap();
                assert_eq!(stream.read_to_end(100).await.unwrap(), b"hello"[..]);
            }
            let closes: Vec<_> = ends.iter().map(|(client, _)| client.clone()).collect();
            let closes = closes.into_iter().map(|client| tokio::spawn(async move { client.close(0, "").await }));
            for close in closes.collect::<Vec<_>>() {
                close.await.unwrap().unwrap();
            }
            for (_, server) in &ends {
                server.closed().await;
            }
            drop(ends);
            #[cfg(target_os = "linux")]
            for _ in 0..if round % 4 == 3 { 20 } else { 0 } {
                dial((closed_port(), NAME), config.clone()).await.unwrap_err();
            }
            tasks_are(tasks).await;
            held.push(ALLOCATOR.allocated());
            files.push(open_files());
        }
        let growth = held[7].saturating_sub(held[3]);
        assert!(growth <= 200 * 32, "{growth} bytes grew over 200 clients: {held:?}");
        assert!(files[7] <= files[0], "sockets stay open: {files:?}");
    });
}

#[test]
fn idle_clients_cost_little_memory() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    runtime().block_on(async {
        let ca = Ca::new();
        let listener = listen(ANY_PORT, ca.server().limits(generous())).await.unwrap();
        let config = ca.client().limits(generous());
        let mut ends = Vec::new();
        let mut before = 0;
        for number in 0..60 {
            if number == 10 {
                before = ALLOCATOR.allocated();
            }
            let client = dial((listener.local_addr(), NAME), config.clone()).await.unwrap();
            let server = listener.accept().await.unwrap();
            ask(&client, &server).await;
            ends.push((client, server));
        }
        let each = (ALLOCATOR.allocated() - before) / 50;
        assert!(each <= 192 * 1024, "{each} bytes for a client, and its session at the server");
    });
}
