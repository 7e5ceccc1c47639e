//! Streams that are distributed over servers.

use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use kwik_tokio::{
    Adaptive, Assignment, DistributeError, Distribution, DistributionHandle, EqualSplit, ErrorCode, FixedChunks,
    HeldRange, PathId, Pieces, Policy, ReadOrder, RecvStream, StreamOffset, View, bytes::Bytes,
};
use tokio::sync::Notify;

use crate::common::{Fleet, check, check_to_end, pattern, spawn_filler, within};

const LEN: u64 = 12_000_001;

/// All secondaries of a fleet as sources.
fn with_secondaries(fleet: &Fleet, mut distribution: Distribution) -> Distribution {
    for secondary in &fleet.secondaries {
        distribution = distribution.source(secondary.path, |_| Bytes::new());
    }
    distribution
}

async fn read_pattern(range: Range<u64>) -> io::Result<Bytes> {
    Ok(pattern(range))
}

async fn fleet_with_fillers(secondaries: usize) -> Fleet {
    let fleet = Fleet::new(secondaries).await;
    for secondary in &fleet.secondaries {
        spawn_filler(secondary.session.clone());
    }
    fleet
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_servers_write_one_stream() {
    within(async {
        let fleet = fleet_with_fillers(2).await;
        let (client, mut primary) = fleet.stream().await;
        let (_send, mut client) = client.split();
        let distribution = with_secondaries(&fleet, primary.distribute(0..LEN)).source_local(read_pattern);
        let handle = distribution.handle();
        assert_eq!(handle.report(), None, "it does not run yet");
        let writing = async {
            let report = distribution.run().await.unwrap();
            primary.finish().unwrap();
            report
        };
        let (report, end) = tokio::join!(writing, check_to_end(&mut client, 0));
        assert_eq!((end, report.sources.len()), (LEN, 3));
        assert_eq!(report.sources[0].path, fleet.secondaries[0].path, "in the order they were added");
        assert!(report.bytes >= LEN, "{report:?}");
        assert_eq!(handle.report(), Some(report));
    })
    .await;
}

#[tokio::test]
async fn secondaries_alone_write_the_middle_of_a_stream() {
    within(async {
        let fleet = fleet_with_fillers(2).await;
        let (client, mut primary) = fleet.stream().await;
        let (_send, mut client) = client.split();
        primary.write_chunk(pattern(0..10)).await.unwrap();
        let distribution = primary.distribute(10..LEN).policy(Box::new(FixedChunks::default()));
        let distribution = with_secondaries(&fleet, distribution);
        let writing = async {
            distribution.run().await.unwrap();
            primary.write_at(StreamOffset(LEN), pattern(LEN..LEN + 10)).await.unwrap();
            primary.finish().unwrap();
        };
        let ((), end) = tokio::join!(writing, check_to_end(&mut client, 0));
        assert_eq!(end, LEN + 10);
    })
    .await;
}

/// Everything is the first source's.
#[derive(Debug)]
struct FirstOnly;

impl Policy for FirstOnly {
    fn next(&mut self, view: &View<'_>) -> Option<Assignment> {
        let first = view.sources.first()?;
        (first.can_take && first.ranges < 4).then_some(Assignment { source: 0, bytes: 100_000 })
    }

    fn takes_back(&mut self, _: &View<'_>, _: &HeldRange) -> bool {
        false
    }
}

#[tokio::test]
async fn every_policy_writes_all_of_a_stream() {
    within(async {
        let fleet = fleet_with_fillers(2).await;
        let policies: [Box<dyn Policy>; 4] = [
            Box::new(EqualSplit::default()),
            Box::new(Pieces),
            Box::new(Adaptive::new(ReadOrder::Unordered)),
            Box::new(FirstOnly),
        ];
        for policy in policies {
            let is_first_only = format!("{policy:?}") == "FirstOnly";
            let (client, mut primary) = fleet.stream().await;
            let (_send, mut client) = client.split();
            let distribution = with_secondaries(&fleet, primary.distribute(0..LEN)).policy(policy);
            let distribution = distribution.source_local(read_pattern).read_order(ReadOrder::Unordered);
            let writing = async {
                let report = distribution.run().await.unwrap();
                primary.finish().unwrap();
                report
            };
            let reading = async {
                let mut bytes = 0;
                while let Some(chunk) = client.read_chunk(usize::MAX, false).await.unwrap() {
                    check(chunk.offset.0, &chunk.data);
                    bytes += chunk.data.len() as u64;
                }
                bytes
            };
            let (report, bytes) = tokio::join!(writing, reading);
            assert_eq!(bytes, LEN);
            assert!(!is_first_only || report.sources[0].bytes >= LEN - 100_000, "{report:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn requests_name_the_ranges() {
    within(async {
        let fleet = fleet_with_fillers(1).await;
        let (client, mut primary) = fleet.stream().await;
        let (_send, mut client) = client.split();
        let asked = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        let distribution = primary.distribute(0..1_000_000).source(fleet.secondaries[0].path, move |range| {
            counted.fetch_add(range.end - range.start, Ordering::Relaxed);
            Bytes::new()
        });
        let writing = async {
            distribution.run().await.unwrap();
            primary.finish().unwrap();
        };
        let ((), end) = tokio::join!(writing, check_to_end(&mut client, 0));
        assert_eq!(end, 1_000_000);
        // What is taken back is asked for again.
        assert!(asked.load(Ordering::Relaxed) >= 1_000_000);
    })
    .await;
}

#[tokio::test]
async fn regression_stream_hung_when_one_of_two_secondaries_died() {
    within(async {
        let mut fleet = fleet_with_fillers(1).await;
        // This one accepts ranges and writes nothing.
        fleet.secondaries.push(fleet.join().await);
        let (client, mut primary) = fleet.stream().await;
        let (_send, mut client) = client.split();
        let distribution = with_secondaries(&fleet, primary.distribute(0..LEN)).source_local(read_pattern);
        let silent = fleet.secondaries.pop().unwrap();
        let dying = async {
            let granted = silent.session.accept_stream().await.unwrap();
            silent.listener.close(0, "").await;
            drop(granted);
        };
        let writing = async {
            let report = distribution.run().await.unwrap();
            primary.finish().unwrap();
            report
        };
        let (report, end, ()) = tokio::join!(writing, check_to_end(&mut client, 0), dying);
        assert_eq!(end, LEN);
        let lost = report.sources[1].lost_bytes + report.sources[1].taken_back_bytes;
        assert!(lost > 0 && report.sources[1].bytes == 0, "{report:?}");
    })
    .await;
}

#[tokio::test]
async fn live_source_grows_and_gets_another_server() {
    within(async {
        let fleet = fleet_with_fillers(1).await;
        let (client, mut primary) = fleet.stream().await;
        let (_send, mut client) = client.split();
        let distribution = primary.distribute(0..1000).source_local(read_pattern).live();
        let handle = distribution.handle();
        let growing = async {
            handle.add_source(fleet.secondaries[0].path, |_| Bytes::new());
            for step in 1..100 {
                handle.extend(step * 1000..(step + 1) * 1000);
                tokio::task::yield_now().await;
            }
            handle.end();
        };
        let writing = async {
            distribution.run().await.unwrap();
            primary.finish().unwrap();
        };
        let ((), (), end) = tokio::join!(growing, writing, check_to_end(&mut client, 0));
        assert_eq!(end, 100_000);
    })
    .await;
}

#[tokio::test]
async fn primary_that_cannot_read_is_left_out() {
    within(async {
        let fleet = fleet_with_fillers(1).await;
        let (client, mut primary) = fleet.stream().await;
        let (_send, mut client) = client.split();
        let failing = |_| async { Err(io::ErrorKind::NotFound.into()) };
        let distribution = with_secondaries(&fleet, primary.distribute(0..LEN)).source_local(failing);
        let writing = async {
            distribution.run().await.unwrap();
            primary.finish().unwrap();
        };
        let ((), end) = tokio::join!(writing, check_to_end(&mut client, 0));
        assert_eq!(end, LEN);
    })
    .await;
}

#[tokio::test]
async fn without_a_source_it_says_so() {
    within(async {
        let fleet = Fleet::new(0).await;
        let (_client, primary) = fleet.stream().await;
        let error = primary.distribute(0..LEN).run().await.unwrap_err();
        assert!(matches!(error, DistributeError::NoSource { cause: None, .. }), "{error:?}");
        let failing = |_| async { Err(io::ErrorKind::NotFound.into()) };
        let error = primary.distribute(0..LEN).source_local(failing).run().await.unwrap_err();
        assert!(matches!(&error, DistributeError::NoSource { cause: Some(_), .. }), "{error:?}");
        assert_eq!(error.to_string(), "no source is left for the rest of the stream; add another path");
        let unknown = primary.distribute(0..LEN).source(PathId(7), |_| Bytes::new()).run().await.unwrap_err();
        assert!(matches!(unknown, DistributeError::NoSource { .. }), "{unknown:?}");
    })
    .await;
}

#[tokio::test]
async fn client_that_stops_the_stream_ends_it() {
    within(async {
        let fleet = fleet_with_fillers(1).await;
        let (client, primary) = fleet.stream().await;
        let (_send, mut client) = client.split();
        let distribution = with_secondaries(&fleet, primary.distribute(0..u64::MAX / 8)).source_local(read_pattern);
        let reading = async {
            let chunk = client.read_chunk(1000, true).await.unwrap().unwrap();
            check(0, &chunk.data);
            client.stop(3).unwrap();
        };
        let (ended, ()) = tokio::join!(distribution.run(), reading);
        assert!(matches!(ended, Err(DistributeError::Stopped(ErrorCode::Application(3)))), "{ended:?}");
    })
    .await;
}

#[tokio::test]
async fn session_that_ends_ends_it() {
    within(async {
        let fleet = Fleet::new(1).await;
        let (client, primary) = fleet.stream().await;
        let distribution = with_secondaries(&fleet, primary.distribute(0..LEN));
        drop(client);
        let closing = fleet.client.close(0, "enough");
        let (ended, _) = tokio::join!(distribution.run(), closing);
        assert!(ended.is_err(), "{ended:?}");
    })
    .await;
}

#[tokio::test]
async fn dropped_distribution_leaves_holes_for_another() {
    within(async {
        let fleet = fleet_with_fillers(1).await;
        let (client, mut primary) = fleet.stream().await;
        let (_send, mut client) = client.split();
        let is_asked = Arc::new(Notify::new());
        let signal = Arc::clone(&is_asked);
        // It never gets a byte to write.
        let first = primary.distribute(0..LEN).source_local(move |_| {
            signal.notify_one();
            std::future::pending()
        });
        tokio::select! {
            ended = first.run() => panic!("{ended:?}"),
            () = is_asked.notified() => {}
        }
        let second = with_secondaries(&fleet, primary.distribute(0..LEN));
        let writing = async {
            second.run().await.unwrap();
            primary.finish().unwrap();
        };
        let ((), end) = tokio::join!(writing, check_to_end(&mut client, 0));
        assert_eq!(end, LEN);
    })
    .await;
}

#[tokio::test]
async fn two_servers_write_the_same_range_and_the_first_is_read() {
    within(async {
        let mut fleet = fleet_with_fillers(1).await;
        // This one accepts ranges and writes nothing.
        fleet.secondaries.push(fleet.join().await);
        let (client, mut primary) = fleet.stream().await;
        let (_send, mut client) = client.split();
        let writer = primary.range_writer();
        assert!(writer.credit() >= Some(16 * 1024));
        let silent = writer.delegate_range(fleet.secondaries[1].path, 0..LEN, "").unwrap();
        let copy = writer.delegate_copy(fleet.secondaries[0].path, 0..LEN, "").unwrap();
        primary.finish().unwrap();
        assert_eq!(check_to_end(&mut client, 0).await, LEN);
        copy.delivered().await.unwrap();
        silent.delivered().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn source_may_be_removed_and_added_again() {
    within(async {
        let fleet = fleet_with_fillers(1).await;
        let path = fleet.secondaries[0].path;
        let (client, mut primary) = fleet.stream().await;
        let (_send, mut client) = client.split();
        let distribution = primary.distribute(0..1000).live().source(path, |_| Bytes::new());
        let handle = distribution.handle();
        handle.remove_source(path);
        let writing = async {
            let report = distribution.run().await.unwrap();
            primary.finish().unwrap();
            report
        };
        let changing = async {
            handle.add_source(path, |_| Bytes::new());
            check_next(&mut client, 0..1000).await;
            handle.remove_source(path);
            // What was given before changes nothing.
            handle.extend(500..2000);
            tokio::task::yield_now().await;
            handle.add_source(path, |_| Bytes::new());
            check_next(&mut client, 1000..2000).await;
            handle.end();
        };
        let (report, ()) = tokio::join!(writing, changing);
        assert_eq!((report.bytes, report.sources.len()), (2000, 1));
    })
    .await;
}

async fn check_next(client: &mut RecvStream, range: Range<u64>) {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
    client.read_exact(&mut bytes).await.unwrap();
    check(range.start, &bytes);
}

#[tokio::test]
async fn stream_that_is_dropped_or_reset_ends_it() {
    within(async {
        let fleet = fleet_with_fillers(1).await;
        for is_reset in [true, false] {
            let (_client, mut primary) = fleet.stream().await;
            // Nobody ever writes.
            let distribution = primary.distribute(0..LEN).source_local(|_| std::future::pending());
            let ending = async {
                tokio::task::yield_now().await;
                if is_reset {
                    primary.reset(1).unwrap();
                }
                drop(primary);
            };
            let (ended, ()) = tokio::join!(distribution.run(), ending);
            assert!(matches!(ended, Err(DistributeError::ClosedStream)), "{ended:?}");
        }
    })
    .await;
}

/// Asks a distribution how it stands when it is dropped.
struct AsksAtItsEnd(DistributionHandle, Arc<AtomicU64>);

impl Drop for AsksAtItsEnd {
    fn drop(&mut self) {
        self.0.extend(0..0);
        let _ = self.0.report();
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_request_that_held_a_handle_of_its_distribution_was_dropped_under_its_lock_or_never() {
    within(async {
        let fleet = fleet_with_fillers(1).await;
        let (client, mut primary) = fleet.stream().await;
        let (_send, mut client) = client.split();
        let path = fleet.secondaries[0].path;
        let distribution = primary.distribute(0..100_000).source_local(read_pattern);
        let (handle, dropped) = (distribution.handle(), Arc::new(AtomicU64::new(0)));
        let add = || {
            let asks = AsksAtItsEnd(handle.clone(), Arc::clone(&dropped));
            handle.add_source(path, move |_| {
                let _ = &asks;
                Bytes::new()
            });
        };
        add();
        // The first is replaced, and the second removed.
        add();
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
        handle.remove_source(path);
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
        add();
        let writing = async {
            distribution.run().await.unwrap();
            primary.finish().unwrap();
        };
        tokio::join!(writing, check_to_end(&mut client, 0));
        assert_eq!(dropped.load(Ordering::Relaxed), 3, "nobody asks any more");
        add();
        assert_eq!(dropped.load(Ordering::Relaxed), 4, "it is over");
    })
    .await;
}
