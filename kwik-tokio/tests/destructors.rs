//! Nothing that a program drops, in whatever state, takes the program with it.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::{Context, Wake, Waker},
};

use crate::common::{Pair, pair, spawn_echo, within};

/// Panics when it is woken.
struct Startled;

impl Wake for Startled {
    fn wake(self: Arc<Self>) {
        panic!("as this test wants it: woken");
    }
}

/// Panics when it is dropped.
struct Clinging;

impl Wake for Clinging {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Clinging {
    fn drop(&mut self) {
        panic!("as this test wants it: dropped");
    }
}

/// Polls a future that has to wait, so that the last reference to the waker is the one that is kept for it.
fn leave_waker<T>(future: impl Future<Output = T>, waker: Arc<impl Wake + Send + Sync + 'static>) {
    let waker = Waker::from(waker);
    let mut future = pin!(future);
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
}

#[tokio::test]
async fn what_is_dropped_while_a_program_unwinds_does_not_abort_it() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        spawn_echo(server.clone());
        let mut streams: Vec<_> = (0..2).map(|_| client.open_stream().unwrap()).collect();
        for stream in &mut streams {
            leave_waker(stream.read_exact(&mut [0; 1]), Arc::new(Clinging));
        }
        let held = streams.pop();
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _held = held;
            panic!("as this test wants it");
        }));
        assert!(unwound.is_err());
        drop(streams);
        let mut stream = client.open_stream().unwrap();
        stream.write_all(b"still here").await.unwrap();
        stream.finish().unwrap();
        assert_eq!(stream.read_to_end(100).await.unwrap(), b"still here");
    })
    .await;
}

#[tokio::test]
async fn waker_that_panics_keeps_nobody_else_asleep() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let (mut startled, mut calm) = (client.open_stream().unwrap(), client.open_stream().unwrap());
        leave_waker(startled.read_exact(&mut [0; 1]), Arc::new(Startled));
        let calm = tokio::spawn(async move { calm.read_to_end(100).await });
        for _ in 0..2 {
            let mut stream = server.accept_stream().await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.finish().unwrap();
        }
        assert_eq!(calm.await.unwrap().unwrap(), b"hello");
        assert_eq!(startled.read_to_end(100).await.unwrap(), b"hello");
        client.close(0, "").await.unwrap();
    })
    .await;
}
