//! Whether an endpoint leaves others their turn.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use kwik_tokio::bytes::Bytes;
use tokio::net::UdpSocket;

use crate::common::{ANY_PORT, Pair, pair, within};

/// The runtime looks for input after 61 polls of tasks that wake themselves, and those of two endpoints moved up to 8 MB
/// before a datagram for another socket of the same thread was seen.
#[tokio::test]
async fn regression_busy_endpoints_kept_other_sockets_waiting() {
    const ROUNDS: u64 = 50;
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut sent = server.open_uni_stream().unwrap();
        let bulk =
            tokio::spawn(async move { while sent.write_chunk(Bytes::from_static(&[7; 65_536])).await.is_ok() {} });
        let mut received = client.accept_uni_stream().await.unwrap();
        let moved = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&moved);
        let reader = tokio::spawn(async move {
            let mut chunks = vec![Bytes::new(); 32];
            while let Ok(Some(count)) = received.read_chunks(&mut chunks).await {
                counted.fetch_add(chunks[..count].iter().map(|chunk| chunk.len() as u64).sum(), Relaxed);
            }
        });
        let (here, there) = (UdpSocket::bind(ANY_PORT).await.unwrap(), UdpSocket::bind(ANY_PORT).await.unwrap());
        here.connect(there.local_addr().unwrap()).await.unwrap();
        there.connect(here.local_addr().unwrap()).await.unwrap();
        let mut buf = [0; 8];
        // Both wait for what was not sent yet when they were asked, so the runtime has to look for it.
        let echo = tokio::spawn(async move {
            let mut buf = [0; 8];
            while let Ok(len) = there.recv(&mut buf).await {
                there.send(&buf[..len]).await.unwrap();
            }
        });
        // It is under way.
        while moved.load(Relaxed) < 16 << 20 {
            tokio::task::yield_now().await;
        }
        let before = moved.load(Relaxed);
        for _ in 0..ROUNDS {
            here.send(b"a word").await.unwrap();
            here.recv(&mut buf).await.unwrap();
        }
        let each = (moved.load(Relaxed) - before) / ROUNDS;
        assert!(each < 3 << 18, "{each} bytes were read before a datagram of another socket");
        [reader, bulk, echo].iter().for_each(|task| task.abort());
    })
    .await;
}
