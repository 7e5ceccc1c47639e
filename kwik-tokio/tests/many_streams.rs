//! Many streams of one session: carriers, limits, fairness.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use kwik_tokio::{Dir, Limits, OpenError, SessionStats};
use tokio::task::JoinSet;

use crate::common::{Pair, cancel_at_first_wait, check_to_end, limits, pair, pair_with, pattern, spawn_echo, within};

const STREAMS: usize = 1000;
const STREAM_BYTES: u64 = 20_000;
const CARRIERS_MAX: usize = 80;

fn room_for_a_thousand() -> Limits {
    limits(|limits| {
        limits.streams_bidi_max = 1024;
        limits.reassembly_budget_bytes = 64 << 20;
        // Of each direction; the statistics count both.
        limits.carriers_max = 32;
    })
}

fn carriers(stats: &SessionStats) -> usize {
    stats.paths.iter().map(|path| path.carriers).sum()
}

#[tokio::test]
async fn thousand_streams_at_once_share_few_carriers() {
    within(async {
        let Pair { client, server, .. } = pair_with(room_for_a_thousand()).await;
        // A new client may open a few streams until it heard how many the server takes.
        client.welcomed().await.unwrap();
        spawn_echo(server.clone());
        let mut streams: Vec<_> = (0..STREAMS).map(|_| client.open_stream().unwrap()).collect();
        for stream in &mut streams {
            stream.write_chunk(pattern(0..STREAM_BYTES)).await.unwrap();
        }
        let mut most = 0;
        let mut readers = JoinSet::new();
        for mut stream in streams {
            stream.finish().unwrap();
            readers.spawn(async move { check_to_end(&mut stream.split().1, 0).await });
        }
        while let Some(end) = readers.join_next().await {
            assert_eq!(end.unwrap(), STREAM_BYTES);
            most = most.max(carriers(&client.stats())).max(carriers(&server.stats()));
        }
        assert!((1..=CARRIERS_MAX).contains(&most), "{most} carriers");
    })
    .await;
}

#[tokio::test]
async fn stream_beyond_the_limit_is_refused_at_once_or_waited_for() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        client.welcomed().await.unwrap();
        let mut open: Vec<_> = (0..128).map(|_| client.open_stream().unwrap()).collect();
        let refused = client.open_stream().unwrap_err();
        assert_eq!(refused, OpenError::LimitReached { dir: Dir::Bi, limit: 128 });
        assert!(client.open_uni_stream().is_ok(), "the other direction has a limit of its own");
        cancel_at_first_wait(client.open_stream_sync()).await;

        let done = open.swap_remove(5);
        let id = done.id();
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.open_stream_sync().await.unwrap().id() }
        });
        drop(done);
        loop {
            let accepted = server.accept_stream().await.unwrap();
            if accepted.id() == id {
                break;
            }
            // The others stay open.
            std::mem::forget(accepted);
        }
        assert_eq!(waiting.await.unwrap().index(), 128);
    })
    .await;
}

#[tokio::test]
async fn streams_come_and_go_far_beyond_the_limit() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let served = tokio::spawn(async move {
            for index in 0..1000 {
                let mut stream = server.accept_uni_stream().await.unwrap();
                assert_eq!(stream.id().index(), index);
                assert_eq!(stream.read_to_end(100).await.unwrap(), index.to_be_bytes());
            }
            server
        });
        for index in 0..1000_u64 {
            let mut stream = client.open_uni_stream_sync().await.unwrap();
            stream.write_all(&index.to_be_bytes()).await.unwrap();
        }
        let server = served.await.unwrap();
        let mut last = client.open_uni_stream_sync().await.unwrap();
        last.finish().unwrap();
        last.finished().await.unwrap();
        drop(last);
        assert!(client.stats().streams_open <= 1, "{:?}", client.stats());
        drop(server);
    })
    .await;
}

#[tokio::test]
async fn client_that_gives_up_every_stream_waits_a_little_for_the_next_and_lives() {
    within(async {
        let limits = limits(|limits| limits.stream_credit_refill = std::time::Duration::from_millis(50));
        let Pair { client, server, .. } = pair_with(limits).await;
        client.welcomed().await.unwrap();
        spawn_echo(server.clone());
        // All at once, then one after the other, then all at once by the server.
        let mut page = Vec::new();
        while let Ok(mut stream) = client.open_stream() {
            stream.write_all(b"please").await.unwrap();
            page.push(stream);
        }
        assert_eq!(page.len(), 128);
        drop(page);
        for _ in 0..600 {
            let mut stream = client.open_stream_sync().await.unwrap();
            stream.write_all(b"please").await.unwrap();
            stream.reset(1).unwrap();
        }
        let mut pushes = Vec::new();
        while let Ok(stream) = server.open_uni_stream() {
            pushes.push(stream);
        }
        for mut push in pushes {
            push.reset(1).unwrap();
            drop(client.accept_uni_stream().await.unwrap());
        }
        let mut stream = client.open_stream_sync().await.unwrap();
        stream.write_all(b"still here").await.unwrap();
        stream.finish().unwrap();
        assert_eq!(stream.read_to_end(100).await.unwrap(), b"still here");
        drop(server.open_uni_stream_sync().await.unwrap());
    })
    .await;
}

// [P-6.8]
#[tokio::test]
async fn stream_that_nobody_reads_does_not_hold_up_its_neighbours() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut stalled = client.open_uni_stream().unwrap();
        let writing = tokio::spawn(async move {
            stalled.write_chunk(pattern(0..8_000_000)).await.unwrap();
            stalled
        });
        let unread = server.accept_uni_stream().await.unwrap();
        for _ in 0..8 {
            let mut stream = client.open_uni_stream_sync().await.unwrap();
            stream.write_chunk(pattern(0..500_000)).await.unwrap();
            drop(stream);
            let mut received = server.accept_uni_stream().await.unwrap();
            assert_eq!(check_to_end(&mut received, 0).await, 500_000);
        }
        assert!(!writing.is_finished(), "nobody read it");
        let mut unread = unread;
        let read = tokio::spawn(async move { check_to_end(&mut unread, 0).await });
        drop(writing.await.unwrap());
        assert_eq!(read.await.unwrap(), 8_000_000);
    })
    .await;
}

#[tokio::test]
async fn late_stream_is_not_held_up_by_bulk() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut bulk = client.open_uni_stream().unwrap();
        let bulk = tokio::spawn(async move {
            bulk.write_chunk(pattern(0..20_000_000)).await.unwrap();
            bulk.finish().unwrap();
            bulk.finished().await.unwrap();
        });
        let mut bulk_read = server.accept_uni_stream().await.unwrap();
        let bulk_read = tokio::spawn(async move { check_to_end(&mut bulk_read, 0).await });
        let mut late = client.open_uni_stream().unwrap();
        late.write_all(b"now").await.unwrap();
        drop(late);
        let mut late_read = server.accept_uni_stream().await.unwrap();
        assert_eq!(late_read.read_to_end(3).await.unwrap(), b"now");
        assert!(!bulk_read.is_finished(), "the bulk was there first");
        assert_eq!(bulk_read.await.unwrap(), 20_000_000);
        bulk.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn stream_of_a_higher_priority_is_sent_first() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        client.welcomed().await.unwrap();
        let mut streams: Vec<_> = (0..100).map(|_| client.open_uni_stream().unwrap()).collect();
        let urgent = streams.last_mut().unwrap();
        urgent.set_priority(10).unwrap();
        let urgent = urgent.id();
        // All of it is written before the first datagram can leave. What leaves at once is read in any order, and is less
        // than ten streams: no more than ten datagrams.
        for stream in &mut streams {
            stream.write_all(&pattern(0..100_000)).await.unwrap();
        }
        drop(streams);
        let mut readers = JoinSet::new();
        for _ in 0..100 {
            let mut stream = server.accept_uni_stream().await.unwrap();
            readers.spawn(async move {
                assert_eq!(check_to_end(&mut stream, 0).await, 100_000);
                stream.id()
            });
        }
        let mut arrived = Vec::new();
        while let Some(id) = readers.join_next().await {
            arrived.push(id.unwrap());
        }
        let rank = arrived.iter().position(|id| *id == urgent).unwrap();
        assert!(rank < 10, "it arrived as number {rank} of 100, opened as the last");
    })
    .await;
}

#[tokio::test]
async fn carriers_of_streams_that_were_reset_are_given_back() {
    within(async {
        // Nothing but the connection holds the bytes back.
        let limits = limits(|limits| {
            limits.stream_window_initial_bytes = 1 << 20;
            limits.reassembly_budget_bytes = 1 << 30;
        });
        let Pair { client, server, .. } = pair_with(limits).await;
        client.welcomed().await.unwrap();
        let mut streams: Vec<_> = (0..100).map(|_| client.open_uni_stream().unwrap()).collect();
        for stream in &mut streams {
            stream.write_chunk(pattern(0..150_000)).await.unwrap();
        }
        let mut accepted = Vec::new();
        for _ in 0..100 {
            accepted.push(server.accept_uni_stream().await.unwrap());
        }
        assert!(carriers(&client.stats()) > 10, "{} carriers", carriers(&client.stats()));
        for mut stream in streams {
            stream.reset(1).unwrap();
        }
        drop(accepted);
        let mut stream = client.open_stream_sync().await.unwrap();
        stream.write_all(b"one alone").await.unwrap();
        stream.finish().unwrap();
        stream.finished().await.unwrap();
        assert!(carriers(&client.stats()) < 10, "{} carriers", carriers(&client.stats()));
    })
    .await;
}

/// Counts how often a future is polled.
async fn counted<T>(polls: &AtomicUsize, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|cx| {
        polls.fetch_add(1, Ordering::Relaxed);
        future.as_mut().poll(cx)
    })
    .await
}

/// A slot that comes free woke all that waited for one.
#[tokio::test]
async fn tasks_that_wait_for_a_stream_are_woken_one_by_one() {
    const TASKS: usize = 2000;
    within(async {
        let Pair { client, server, .. } = pair().await;
        client.welcomed().await.unwrap();
        let (openers, acceptors) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let (client, server) = (client.clone(), server.clone());
            let (openers, acceptors) = (openers.clone(), acceptors.clone());
            tasks.spawn(async move {
                counted(&openers, client.open_uni_stream_sync()).await.unwrap();
            });
            tasks.spawn(async move {
                counted(&acceptors, server.accept_uni_stream()).await.unwrap();
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        // Once to ask, once to be woken for something, and once for nothing.
        for polls in [openers, acceptors] {
            let polls = polls.load(Ordering::Relaxed);
            assert!(polls <= 4 * TASKS, "{polls} polls of {TASKS} tasks");
        }
    })
    .await;
}
