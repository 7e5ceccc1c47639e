//! Futures that are dropped while they wait lose nothing.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use kwik_tokio::{PathId, listen};

use crate::common::{
    ANY_PORT, Ca, Fleet, NAME, Pair, cancel_at_first_wait, check, check_to_end, pair, pattern, target, within,
};

/// Polls a future once and drops it if it has to wait.
async fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn dropped_reads_lose_no_byte() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut stream = client.open_uni_stream().unwrap();
        let mut received = server.accept_uni_stream().await.unwrap();
        cancel_at_first_wait(received.read(&mut [0; 8])).await;
        cancel_at_first_wait(received.read_chunk(8, true)).await;
        let writing = tokio::spawn(async move {
            for start in (0..500_000).step_by(1000) {
                stream.write_all(&pattern(start..start + 1000)).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut offset = 0;
        let mut buf = [0; 777];
        loop {
            match once(received.read(&mut buf)).await {
                None => tokio::task::yield_now().await,
                Some(len) => {
                    let len = len.unwrap();
                    if len == 0 {
                        break;
                    }
                    check(offset, &buf[..len]);
                    offset += len as u64;
                }
            }
        }
        assert_eq!(offset, 500_000);
        writing.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn dropped_writes_wrote_nothing() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut stream = client.open_uni_stream().unwrap();
        let mut received = server.accept_uni_stream().await.unwrap();
        let reading = tokio::spawn(async move { check_to_end(&mut received, 0).await });
        let mut offset = 0;
        let mut dropped = 0;
        while offset < 5_000_000 {
            match once(stream.write(&pattern(offset..offset + 30_000))).await {
                Some(written) => offset += written.unwrap() as u64,
                None => {
                    dropped += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
        stream.finish().unwrap();
        assert_eq!(reading.await.unwrap(), offset);
        assert!(dropped > 0, "no write had to wait");
    })
    .await;
}

#[tokio::test]
async fn dropped_accepts_take_no_stream() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        cancel_at_first_wait(server.accept_stream()).await;
        cancel_at_first_wait(server.accept_uni_stream()).await;
        cancel_at_first_wait(client.accept_stream()).await;
        for index in 0..20 {
            let opened = client.open_stream_sync().await.unwrap();
            let accepted = loop {
                match once(server.accept_stream()).await {
                    Some(accepted) => break accepted.unwrap(),
                    None => tokio::task::yield_now().await,
                }
            };
            assert_eq!((accepted.id(), accepted.id().index()), (opened.id(), index));
        }
    })
    .await;
}

#[tokio::test]
async fn two_tasks_that_accept_get_a_stream_each() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let accept = || async { server.accept_uni_stream().await.unwrap().id().index() };
        let open = async { [client.open_uni_stream().unwrap(), client.open_uni_stream().unwrap()] };
        let (first, second, _streams) = tokio::join!(accept(), accept(), open);
        assert_eq!(first.min(second), 0);
        assert_eq!(first.max(second), 1);
    })
    .await;
}

#[tokio::test]
async fn dropped_listener_accept_takes_no_session() {
    within(async {
        let ca = Ca::new();
        let listener = listen(ANY_PORT, ca.server()).await.unwrap();
        cancel_at_first_wait(listener.accept()).await;
        let client = kwik_tokio::dial((listener.local_addr(), NAME), ca.client()).await.unwrap();
        let server = loop {
            match once(listener.accept()).await {
                Some(server) => break server.unwrap(),
                None => tokio::task::yield_now().await,
            }
        };
        assert_eq!(client.welcomed().await.unwrap(), server.id());
        cancel_at_first_wait(client.closed()).await;
    })
    .await;
}

#[tokio::test]
async fn dropped_dial_is_given_up() {
    within(async {
        let ca = Ca::new();
        let listener = listen(ANY_PORT, ca.server()).await.unwrap();
        cancel_at_first_wait(kwik_tokio::dial((listener.local_addr(), NAME), ca.client())).await;
        let client = kwik_tokio::dial((listener.local_addr(), NAME), ca.client()).await.unwrap();
        assert_eq!(client.welcomed().await.unwrap(), listener.accept().await.unwrap().id());
        listener.close(0, "").await;
    })
    .await;
}

#[tokio::test]
async fn dropped_path_commands_go_on_and_dropped_raw_receives_take_nothing() {
    within(async {
        let fleet = Fleet::new(0).await;
        let server = fleet.start_secondary().await;
        let mut events = fleet.primary.path_events();
        cancel_at_first_wait(events.recv()).await;
        cancel_at_first_wait(fleet.primary.add_path(target(&server))).await;
        let event = events.recv().await.unwrap();
        assert_eq!(event.path(), PathId(1));
        let session = server.accept().await.unwrap();

        cancel_at_first_wait(session.recv_raw()).await;
        cancel_at_first_wait(fleet.primary.send_raw(PathId(1), "sent all the same")).await;
        assert_eq!(session.recv_raw().await.unwrap().data, "sent all the same");

        let (client, mut primary) = fleet.stream().await;
        let delegation = primary.delegate(PathId(1), 10, "").unwrap();
        primary.finish().unwrap();
        cancel_at_first_wait(delegation.delivered()).await;
        cancel_at_first_wait(primary.finished()).await;
        let mut part = session.accept_stream().await.unwrap();
        part.write_all(&pattern(0..10)).await.unwrap();
        delegation.delivered().await.unwrap();
        primary.finished().await.unwrap();
        assert_eq!(check_to_end(&mut client.split().1, 0).await, 10);

        cancel_at_first_wait(fleet.primary.remove_path(PathId(1))).await;
        assert!(matches!(events.recv().await, Some(kwik_tokio::PathEvent::Dead { .. })));
    })
    .await;
}

#[tokio::test]
async fn dropped_close_closes_all_the_same() {
    within(async {
        let Pair { client, server, listener } = pair().await;
        cancel_at_first_wait(client.close(1, "dropped")).await;
        server.closed().await;
        client.closed().await;
        cancel_at_first_wait(listener.close(2, "dropped")).await;
        assert!(listener.accept().await.is_none());
    })
    .await;
}
