//! Opaque packets from server to server, through the client.

use kwik_tokio::{DeadReason, PathId, RawPacket, SendRawError, SessionError, TransportCode, bytes::Bytes};

use crate::common::{Fleet, cancel_at_first_wait, pattern, within};

const RAW_BYTES_MAX: u64 = 12 * 1024;

fn packet(from: PathId, data: impl Into<Bytes>) -> RawPacket {
    RawPacket { from, data: data.into() }
}

#[tokio::test]
async fn raw_packets_cross_between_primary_and_secondary() {
    within(async {
        let fleet = Fleet::new(1).await;
        let secondary = &fleet.secondaries[0];
        let (sent, received) =
            tokio::join!(fleet.primary.send_raw(secondary.path, "ping"), secondary.session.recv_raw());
        assert_eq!((sent, received), (Ok(()), Ok(packet(PathId::PRIMARY, "ping"))));
        let (sent, received) =
            tokio::join!(secondary.session.send_raw(PathId::PRIMARY, "pong"), fleet.primary.recv_raw());
        assert_eq!((sent, received), (Ok(()), Ok(packet(secondary.path, "pong"))));
    })
    .await;
}

#[tokio::test]
async fn raw_packets_cross_between_two_secondaries() {
    within(async {
        let fleet = Fleet::new(2).await;
        let [first, second] = [&fleet.secondaries[0], &fleet.secondaries[1]];
        for round in 0..3_u8 {
            let (sent, received) =
                tokio::join!(first.session.send_raw(second.path, vec![round]), second.session.recv_raw());
            assert_eq!((sent, received), (Ok(()), Ok(packet(first.path, vec![round]))));
            let (sent, received) =
                tokio::join!(second.session.send_raw(first.path, vec![round, round]), first.session.recv_raw());
            assert_eq!((sent, received), (Ok(()), Ok(packet(second.path, vec![round, round]))));
        }
    })
    .await;
}

#[tokio::test]
async fn raw_packets_arrive_in_order_beyond_what_a_queue_holds() {
    within(async {
        let fleet = Fleet::new(1).await;
        let secondary = &fleet.secondaries[0];
        let sending = async {
            for number in 0..300_u64 {
                let data = pattern(number..number + number * 40);
                fleet.primary.send_raw(secondary.path, data).await.unwrap();
            }
        };
        let receiving = async {
            for number in 0..300_u64 {
                let received = secondary.session.recv_raw().await.unwrap();
                assert_eq!(received.data, pattern(number..number + number * 40));
            }
        };
        tokio::join!(sending, receiving);
    })
    .await;
}

#[tokio::test]
async fn raw_packets_that_nobody_takes_are_refused_not_lost() {
    within(async {
        let fleet = Fleet::new(1).await;
        let secondary = &fleet.secondaries[0];
        let mut taken = 0;
        let refused = loop {
            match fleet.primary.send_raw(secondary.path, vec![7; 1000]).await {
                Ok(()) => taken += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refused, SendRawError::Refused(TransportCode::RAW_LIMIT.into()));
        for _ in 0..taken {
            secondary.session.recv_raw().await.unwrap();
        }
        cancel_at_first_wait(secondary.session.recv_raw()).await;
        fleet.primary.send_raw(secondary.path, "room again").await.unwrap();
        assert_eq!(secondary.session.recv_raw().await.unwrap().data, "room again");
    })
    .await;
}

#[tokio::test]
async fn raw_packet_of_the_greatest_length_passes_and_a_longer_one_does_not() {
    within(async {
        let fleet = Fleet::new(1).await;
        let secondary = &fleet.secondaries[0];
        let error = fleet.primary.send_raw(secondary.path, pattern(0..RAW_BYTES_MAX + 1)).await.unwrap_err();
        assert_eq!(error, SendRawError::TooLong { len: 12 * 1024 + 1 });
        assert!(error.to_string().contains("12288"), "{error}");
        fleet.primary.send_raw(secondary.path, pattern(0..RAW_BYTES_MAX)).await.unwrap();
        assert_eq!(secondary.session.recv_raw().await.unwrap().data, pattern(0..RAW_BYTES_MAX));
        fleet.primary.send_raw(secondary.path, "").await.unwrap();
        assert_eq!(secondary.session.recv_raw().await.unwrap().data, "");
    })
    .await;
}

#[tokio::test]
async fn raw_packet_to_a_path_that_is_not_there_is_refused() {
    within(async {
        let fleet = Fleet::new(2).await;
        let [first, second] = [&fleet.secondaries[0], &fleet.secondaries[1]];
        let error = fleet.primary.send_raw(PathId(99), "?").await.unwrap_err();
        assert_eq!(error, SendRawError::PathUnknown(PathId(99)));
        let error = fleet.primary.send_raw(PathId::PRIMARY, "me").await.unwrap_err();
        assert_eq!(error, SendRawError::OwnPath(PathId::PRIMARY));
        // A secondary does not know the other paths: the client refuses.
        let error = first.session.send_raw(PathId(99), "?").await.unwrap_err();
        assert_eq!(error, SendRawError::Refused(TransportCode::PATH_UNKNOWN.into()));

        fleet.primary.remove_path(second.path).await.unwrap();
        let error = fleet.primary.send_raw(second.path, "gone").await.unwrap_err();
        assert_eq!(error, SendRawError::PathUnknown(second.path));
        let error = first.session.send_raw(second.path, "gone").await.unwrap_err();
        assert_eq!(error, SendRawError::Refused(TransportCode::PATH_UNKNOWN.into()));
        let removed = DeadReason { code: TransportCode::PATH_REMOVED.into(), detail: "removed by the primary".into() };
        let error = second.session.send_raw(PathId::PRIMARY, "late").await.unwrap_err();
        assert_eq!(error, SendRawError::Session(removed.clone().into()));
        assert_eq!(second.session.recv_raw().await.unwrap_err(), SessionError::from(removed));

        fleet.primary.send_raw(first.path, "the others go on").await.unwrap();
        assert_eq!(first.session.recv_raw().await.unwrap().data, "the others go on");
    })
    .await;
}
