//! Ranges of a stream that other servers write.

use kwik_tokio::{
    AddPathError, DelegateError, Delegation, ErrorCode, OpenError, PathError, PathId, ReadError, Role, SendRawError,
    ServerStream, StreamOffset, TransportCode, WriteError,
};

use crate::common::{Fleet, check, check_to_end, only, pattern, spawn_filler, target, within};

/// Delegates `[start, end)` of a stream in turns to the primary itself and to every secondary.
async fn share(fleet: &Fleet, stream: &mut ServerStream, len: u64, piece: u64) -> Vec<Delegation> {
    let mut delegations = Vec::new();
    let mut offset = 0;
    let mut turn = 0;
    while offset < len {
        let end = len.min(offset + piece);
        match fleet.secondaries.get(turn) {
            Some(secondary) => delegations.push(stream.delegate(secondary.path, end - offset, "share").unwrap()),
            None => stream.write_chunk(pattern(offset..end)).await.unwrap(),
        }
        turn = (turn + 1) % (fleet.secondaries.len() + 1);
        offset = end;
    }
    stream.finish().unwrap();
    delegations
}

async fn several_servers_write_one_stream(servers: usize) {
    const LEN: u64 = 6_000_001;
    let fleet = Fleet::new(servers - 1).await;
    for secondary in &fleet.secondaries {
        spawn_filler(secondary.session.clone());
    }
    let (mut client, mut primary) = fleet.stream().await;
    client.finish().unwrap();
    let sharing = async {
        for delegation in share(&fleet, &mut primary, LEN, 99_991).await {
            delegation.delivered().await.unwrap();
            assert_eq!(delegation.progress(), delegation.range().end - delegation.range().start);
        }
        primary.finished().await.unwrap();
    };
    let reading = async {
        let mut sources = std::collections::BTreeSet::new();
        let mut offset = 0;
        while let Some(chunk) = client.read_chunk(usize::MAX, true).await.unwrap() {
            assert_eq!(chunk.offset.0, offset);
            check(offset, &chunk.data);
            offset += chunk.data.len() as u64;
            sources.insert(chunk.source);
        }
        (offset, sources)
    };
    let (_, (end, sources)) = tokio::join!(sharing, reading);
    assert_eq!(end, LEN);
    assert_eq!(sources.len(), servers, "every server wrote some of it");
}

#[tokio::test]
async fn two_servers_write_one_stream() {
    within(several_servers_write_one_stream(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_servers_write_one_stream() {
    within(several_servers_write_one_stream(4)).await;
}

#[tokio::test]
async fn delegated_ranges_fit_at_odd_boundaries() {
    within(async {
        let fleet = Fleet::new(1).await;
        spawn_filler(fleet.secondaries[0].session.clone());
        for len in [1, (64 << 10) - 1, 64 << 10, (64 << 10) + 1] {
            let (mut client, mut primary) = fleet.stream().await;
            primary.write_chunk(pattern(0..3)).await.unwrap();
            let delegation = primary.delegate(fleet.secondaries[0].path, len, "").unwrap();
            assert_eq!((delegation.range(), delegation.path()), (3..3 + len, fleet.secondaries[0].path));
            primary.write_chunk(pattern(3 + len..3 + len + 2)).await.unwrap();
            primary.finish().unwrap();
            let received = client.read_to_end(usize::MAX).await.unwrap();
            assert_eq!(received.len() as u64, len + 5);
            check(0, &received);
            delegation.delivered().await.unwrap();
            primary.finished().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn whole_stream_may_come_from_a_secondary() {
    within(async {
        let fleet = Fleet::new(1).await;
        spawn_filler(fleet.secondaries[0].session.clone());
        let mut primary = fleet.primary.open_uni_stream().unwrap();
        let delegation = primary.delegate(fleet.secondaries[0].path, 3_000_000, "all of it").unwrap();
        // A delegation that nobody watches is served all the same.
        drop(delegation);
        primary.finish().unwrap();
        let mut client = fleet.client.accept_uni_stream().await.unwrap();
        assert_eq!(check_to_end(&mut client, 0).await, 3_000_000);
        primary.finished().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn secondary_reads_the_request_and_writes_its_range() {
    within(async {
        let fleet = Fleet::new(1).await;
        let secondary = &fleet.secondaries[0];
        assert_eq!((fleet.primary.role(), secondary.session.role()), (Role::Primary, Role::Secondary));
        assert_eq!(secondary.session.id(), fleet.primary.id());
        let (mut client, mut primary) = fleet.stream().await;
        primary.write_chunk(pattern(0..10)).await.unwrap();
        let delegation = primary.delegate(secondary.path, 20, "GET /tail").unwrap();
        primary.finish().unwrap();
        let mut part = secondary.session.accept_stream().await.unwrap();
        assert_eq!(part.id(), client.id());
        assert_eq!(part.grant().unwrap().range, 10..30);
        assert_eq!(part.read_to_end(100).await.unwrap(), b"GET /tail");
        part.write_all(&pattern(10..30)).await.unwrap();
        part.finish().unwrap();
        part.finished().await.unwrap();
        delegation.delivered().await.unwrap();
        delegation.delivered().await.unwrap();
        let error = delegation.revoke().unwrap_err();
        assert!(matches!(error, DelegateError::GrantUnknown(_)), "{error}");
        check(0, &client.read_to_end(30).await.unwrap());
        assert_eq!(primary.grant(), None);
    })
    .await;
}

#[tokio::test]
async fn holes_are_filled_by_whoever_comes() {
    within(async {
        let fleet = Fleet::new(1).await;
        spawn_filler(fleet.secondaries[0].session.clone());
        let path = fleet.secondaries[0].path;
        let (mut client, mut primary) = fleet.stream().await;
        primary.write_at(StreamOffset(200_000), pattern(200_000..300_000)).await.unwrap();
        let last = primary.delegate_range(path, 100_000..200_000, "hole").unwrap();
        let error = primary.delegate_range(path, 199_999..200_001, "taken").unwrap_err();
        assert_eq!(error, DelegateError::Overlap { start: 199_999, end: 200_001 });
        let error = primary.write_at(StreamOffset(150_000), pattern(150_000..150_001)).await.unwrap_err();
        assert_eq!(error, WriteError::Overlap { start: 150_000, end: 150_001 });
        primary.finish().unwrap();
        let error = primary.delegate_range(path, 299_999..300_001, "beyond").unwrap_err();
        assert_eq!(error, DelegateError::Finished);
        primary.write_at(StreamOffset(0), pattern(0..100_000)).await.unwrap();
        check(0, &client.read_to_end(300_000).await.unwrap());
        last.delivered().await.unwrap();
        primary.finished().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn delegation_that_cannot_be_is_refused_and_reserves_nothing() {
    within(async {
        let fleet = Fleet::new(1).await;
        let path = fleet.secondaries[0].path;
        let (mut client, mut primary) = fleet.stream().await;
        assert_eq!(primary.delegate(path, 0, "").unwrap_err(), DelegateError::EmptyRange);
        assert_eq!(primary.delegate_range(path, 5..5, "").unwrap_err(), DelegateError::EmptyRange);
        assert_eq!(primary.delegate(path, 1 << 62, "").unwrap_err(), DelegateError::EmptyRange);
        assert_eq!(primary.delegate(PathId(99), 1, "").unwrap_err(), DelegateError::PathUnknown(PathId(99)));
        assert_eq!(primary.delegate(PathId::PRIMARY, 1, "").unwrap_err(), DelegateError::OwnPath);
        let error = primary.delegate(path, 1, vec![0; 8 * 1024 + 1]).unwrap_err();
        assert_eq!(error, DelegateError::RequestTooLong { len: 8 * 1024 + 1 });
        fleet.primary.remove_path(path).await.unwrap();
        assert_eq!(primary.delegate(path, 1, "").unwrap_err(), DelegateError::PathDead(path));

        primary.write_chunk(pattern(0..10)).await.unwrap();
        primary.finish().unwrap();
        check(0, &client.read_to_end(10).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn write_outside_the_grant_is_refused_and_the_part_goes_on() {
    within(async {
        let fleet = Fleet::new(1).await;
        let secondary = &fleet.secondaries[0];
        let (mut client, mut primary) = fleet.stream().await;
        primary.write_chunk(pattern(0..10)).await.unwrap();
        let delegation = primary.delegate(secondary.path, 10, "").unwrap();
        primary.finish().unwrap();
        let mut part = secondary.session.accept_stream().await.unwrap();
        let beyond = WriteError::BeyondGrant { start: 10, end: 20 };
        assert_eq!(part.write(&[0; 11]).await.unwrap_err(), beyond);
        assert_eq!(part.write_at(StreamOffset(9), pattern(9..10)).await.unwrap_err(), beyond);
        part.write_at(StreamOffset(15), pattern(15..20)).await.unwrap();
        part.write_all(&pattern(10..15)).await.unwrap();
        assert!(part.write(&[0; 1]).await.is_err(), "the range is full");
        part.finish().unwrap();
        check(0, &client.read_to_end(20).await.unwrap());
        delegation.delivered().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn secondary_opens_no_stream_and_commands_no_path() {
    within(async {
        let fleet = Fleet::new(1).await;
        let Fleet { secondaries, listener, .. } = &fleet;
        let session = &secondaries[0].session;
        assert_eq!(session.open_stream().unwrap_err(), OpenError::NotAllowed);
        assert_eq!(session.open_uni_stream().unwrap_err(), OpenError::NotAllowed);
        assert_eq!(session.open_stream_sync().await.unwrap_err(), OpenError::NotAllowed);
        assert_eq!(session.open_uni_stream_sync().await.unwrap_err(), OpenError::NotAllowed);
        assert_eq!(session.add_path(target(listener)).await.unwrap_err(), AddPathError::NotPrimary);
        assert_eq!(session.remove_path(PathId(1)).await.unwrap_err(), PathError::NotPrimary.into());
        let error = session.send_raw(secondaries[0].path, "me").await.unwrap_err();
        assert_eq!(error, SendRawError::OwnPath(secondaries[0].path));

        let (mut client, mut primary) = fleet.stream().await;
        let _delegation = primary.delegate(secondaries[0].path, 5, "").unwrap();
        primary.finish().unwrap();
        let mut part = session.accept_stream().await.unwrap();
        assert_eq!(part.delegate(PathId(1), 1, "").unwrap_err(), DelegateError::NotPrimary);
        part.write_all(&pattern(0..5)).await.unwrap();
        check(0, &client.read_to_end(5).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn part_that_ends_early_is_lost_from_there_and_refilled() {
    within(async {
        let fleet = Fleet::new(2).await;
        let [first, second] = [&fleet.secondaries[0], &fleet.secondaries[1]];
        let (mut client, mut primary) = fleet.stream().await;
        let delegation = primary.delegate(first.path, 200_000, "").unwrap();
        primary.finish().unwrap();
        let mut part = first.session.accept_stream().await.unwrap();
        part.write_chunk(pattern(0..70_001)).await.unwrap();
        part.finish().unwrap();
        let lost = delegation.delivered().await.unwrap_err();
        assert_eq!(lost.code, TransportCode::NO_ERROR.into());
        assert_eq!(lost.missing, only(70_001..200_000));
        assert_eq!(lost.missing_bytes(), 129_999);
        assert_eq!(delegation.progress(), 70_001);

        let delegation = primary.delegate_range(second.path, 70_001..150_000, "").unwrap();
        let mut part = second.session.accept_stream().await.unwrap();
        part.write_chunk(pattern(70_001..70_002)).await.unwrap();
        part.reset(4).unwrap();
        let lost = delegation.delivered().await.unwrap_err();
        assert_eq!(lost.code, ErrorCode::Application(4));
        assert!(lost.to_string().contains("application code 4"), "{lost}");
        let missing = lost.missing.first().unwrap().clone();
        assert!([70_001, 70_002].contains(&missing.start) && missing.end == 150_000, "{missing:?}");

        primary.write_at(StreamOffset(missing.start), pattern(missing)).await.unwrap();
        primary.write_at(StreamOffset(150_000), pattern(150_000..200_000)).await.unwrap();
        check(0, &client.read_to_end(200_000).await.unwrap());
        primary.finished().await.unwrap();
    })
    .await;
}

// [P-8.15]
#[tokio::test]
async fn revoked_range_is_lost_and_its_writer_told() {
    within(async {
        let fleet = Fleet::new(1).await;
        let secondary = &fleet.secondaries[0];
        let (mut client, mut primary) = fleet.stream().await;
        let delegation = primary.delegate(secondary.path, 5_000_000, "").unwrap();
        let mut part = secondary.session.accept_stream().await.unwrap();
        part.write_chunk(pattern(0..1000)).await.unwrap();
        client.read_exact(&mut [0; 1000]).await.unwrap();
        delegation.revoke().unwrap();
        let lost = delegation.delivered().await.unwrap_err();
        assert_eq!(lost.code, TransportCode::REVOKED.into());
        assert_eq!(lost.missing, only(1000..5_000_000));
        assert_eq!(part.stopped().await.unwrap(), Some(TransportCode::REVOKED.into()));
        let error = part.write(&[0; 1]).await.unwrap_err();
        assert_eq!(error, WriteError::Stopped(TransportCode::REVOKED.into()));

        primary.write_at(StreamOffset(1000), pattern(1000..5000)).await.unwrap();
        let rest = primary.delegate_range(secondary.path, 5000..5_000_000, "").unwrap();
        spawn_filler(secondary.session.clone());
        primary.finish().unwrap();
        assert_eq!(check_to_end(&mut client.split().1, 1000).await, 5_000_000);
        rest.delivered().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn stream_the_client_stops_is_not_filled_further() {
    within(async {
        let fleet = Fleet::new(1).await;
        let secondary = &fleet.secondaries[0];
        let (mut client, mut primary) = fleet.stream().await;
        let delegation = primary.delegate(secondary.path, 5_000_000, "").unwrap();
        primary.finish().unwrap();
        let mut part = secondary.session.accept_stream().await.unwrap();
        part.write_chunk(pattern(0..1000)).await.unwrap();
        client.read_exact(&mut [0; 1000]).await.unwrap();
        client.stop(8).unwrap();
        let lost = delegation.delivered().await.unwrap_err();
        assert_eq!(lost.code, TransportCode::STREAM_GONE.into());
        assert_eq!(part.stopped().await.unwrap(), Some(ErrorCode::Application(8)));
        assert_eq!(primary.stopped().await.unwrap(), Some(ErrorCode::Application(8)));
        let error = primary.delegate_range(secondary.path, lost.missing[0].clone(), "").unwrap_err();
        assert_eq!(error, DelegateError::Stopped(ErrorCode::Application(8)));

        spawn_filler(secondary.session.clone());
        let (client, mut primary) = fleet.stream().await;
        let delegation = primary.delegate(secondary.path, 1000, "the session goes on").unwrap();
        primary.finish().unwrap();
        assert_eq!(check_to_end(&mut client.split().1, 0).await, 1000);
        delegation.delivered().await.unwrap();
    })
    .await;
}

// [P-5.11]
#[tokio::test]
async fn grant_far_beyond_the_window_waits_for_the_reader() {
    within(async {
        let fleet = Fleet::new(1).await;
        spawn_filler(fleet.secondaries[0].session.clone());
        let (client, mut primary) = fleet.stream().await;
        let tail = primary.delegate_range(fleet.secondaries[0].path, 4_000_000..8_000_000, "far").unwrap();
        let writing = async {
            primary.write_chunk(pattern(0..4_000_000)).await.unwrap();
            primary.finish().unwrap();
            tail.delivered().await.unwrap();
        };
        let ((), end) = tokio::join!(writing, async { check_to_end(&mut client.split().1, 0).await });
        assert_eq!(end, 8_000_000);
        assert_eq!(tail.range(), 4_000_000..8_000_000);
    })
    .await;
}

#[tokio::test]
async fn stream_the_primary_resets_ends_its_delegations() {
    within(async {
        let fleet = Fleet::new(1).await;
        let secondary = &fleet.secondaries[0];
        let (mut client, mut primary) = fleet.stream().await;
        let delegation = primary.delegate(secondary.path, 1000, "").unwrap();
        let mut part = secondary.session.accept_stream().await.unwrap();
        primary.reset(6).unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_err(), ReadError::Reset(ErrorCode::Application(6)));
        let lost = delegation.delivered().await.unwrap_err();
        assert_eq!((lost.code, lost.missing), (TransportCode::STREAM_GONE.into(), only(0..1000)));
        part.stopped().await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn delegated_stream_that_nobody_reads_does_not_hold_up_others() {
    within(async {
        let fleet = Fleet::new(1).await;
        let path = fleet.secondaries[0].path;
        spawn_filler(fleet.secondaries[0].session.clone());
        let mut stalled = fleet.primary.open_uni_stream().unwrap();
        let delegation = stalled.delegate(path, 30_000_000, "never read").unwrap();
        stalled.finish().unwrap();
        let unread = fleet.client.accept_uni_stream().await.unwrap();
        for _ in 0..4 {
            let (client, mut primary) = fleet.stream().await;
            let delegation = primary.delegate(path, 1_000_000, "").unwrap();
            primary.finish().unwrap();
            assert_eq!(check_to_end(&mut client.split().1, 0).await, 1_000_000);
            delegation.delivered().await.unwrap();
        }
        assert!(delegation.progress() < 30_000_000);
        drop(unread);
        delegation.delivered().await.unwrap_err();
    })
    .await;
}

#[tokio::test]
async fn a_thousand_delegations_at_once_are_delivered() {
    within(async {
        let fleet = Fleet::new(4).await;
        for secondary in &fleet.secondaries {
            spawn_filler(secondary.session.clone());
        }
        let (client, mut primary) = fleet.stream().await;
        let mut delegations = Vec::new();
        for secondary in &fleet.secondaries {
            let refused = loop {
                match primary.delegate(secondary.path, 101, "a little") {
                    Ok(delegation) => delegations.push(delegation),
                    Err(error) => break error,
                }
            };
            assert_eq!(refused, DelegateError::TooMany);
        }
        assert_eq!(delegations.len(), 1024);
        primary.finish().unwrap();
        assert_eq!(check_to_end(&mut client.split().1, 0).await, 1024 * 101);
        for delegation in delegations {
            delegation.delivered().await.unwrap();
        }
    })
    .await;
}

/// A write far ahead of the reader waits for credit, which comes when the reader has what is lost: that must find its way
/// beside the write.
#[tokio::test]
async fn lost_range_is_filled_while_a_write_far_ahead_waits() {
    const LOST: u64 = 1_000_000;
    const LEN: u64 = 9_000_000;
    within(async {
        for delegates in [false, true] {
            let fleet = Fleet::new(2).await;
            let [first, second] = [&fleet.secondaries[0], &fleet.secondaries[1]];
            spawn_filler(second.session.clone());
            let (client, mut primary) = fleet.stream().await;
            let reading = tokio::spawn(async move { check_to_end(&mut client.split().1, 0).await });
            let delegation = primary.delegate(first.path, LOST, "").unwrap();
            let ranges = primary.range_writer();
            let (mut send, _recv) = primary.split();
            let writing = async {
                send.write_chunk(pattern(LOST..LEN)).await.unwrap();
                send.finish().unwrap();
                send.finished().await.unwrap();
            };
            let filling = async {
                fleet.primary.remove_path(first.path).await.unwrap();
                let lost = delegation.delivered().await.unwrap_err();
                for missing in lost.missing {
                    if delegates {
                        ranges.delegate_range(second.path, missing, "").unwrap().delivered().await.unwrap();
                    } else {
                        let (before, after) = (missing.start..missing.end / 2, missing.end / 2..missing.end);
                        let [before, after] =
                            [before, after].map(|range| ranges.write_at(StreamOffset(range.start), pattern(range)));
                        let (before, after) = tokio::join!(before, after);
                        before.and(after).unwrap();
                    }
                }
            };
            tokio::join!(writing, filling);
            assert_eq!(reading.await.unwrap(), LEN);
        }
    })
    .await;
}
