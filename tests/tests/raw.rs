//! Raw packets from server to server through the client.

use std::time::Duration;

use bytes::Bytes;
use kwik_core::limits::RAW_BYTES_MAX;
use kwik_core::{Dir, ErrorCode, Limits, PathId, RawError, RawPacket, SessionEvent, SessionHandle, TransportCode};
use kwik_sim::{Link, NodeId};
use kwik_tests::{Fleet, LONG, pattern};

fn send(fleet: &mut Fleet, from: NodeId, session: SessionHandle, to: PathId, data: &'static [u8]) -> u64 {
    let mut session = fleet.world.session_mut(from, session).expect("a session");
    session.send_raw(to, Bytes::from_static(data)).expect("taken")
}

fn receive(fleet: &mut Fleet, at: NodeId, session: SessionHandle) -> RawPacket {
    let mut packet = None;
    fleet.world.run_until(LONG, |world| {
        packet = world.session_mut(at, session).expect("a session").recv_raw();
        packet.is_some()
    });
    packet.expect("a raw packet")
}

fn await_receipt(fleet: &mut Fleet, at: NodeId, to: PathId, sequence: u64) -> Result<(), ErrorCode> {
    let mut receipt = None;
    fleet.world.run_until(LONG, |world| {
        while let Some((_, event)) = world.poll_event(at) {
            match event {
                SessionEvent::RawStatus { to: t, sequence: s, result } if (t, s) == (to, sequence) => {
                    receipt = Some(result);
                }
                _ => {}
            }
        }
        receipt.is_some()
    });
    receipt.expect("a receipt")
}

#[test]
fn raw_packet_goes_there_and_back_with_receipts() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (a, b) = (fleet.servers[0], fleet.servers[1]);

    let sequence = send(&mut fleet, a, ends.primary, path, b"have it?");
    let packet = receive(&mut fleet, b, secondary);
    assert_eq!((packet.from, &packet.data[..]), (PathId::PRIMARY, &b"have it?"[..]));
    assert_eq!(await_receipt(&mut fleet, a, path, sequence), Ok(()));

    let sequence = send(&mut fleet, b, secondary, PathId::PRIMARY, b"yes");
    let packet = receive(&mut fleet, a, ends.primary);
    assert_eq!((packet.from, &packet.data[..]), (path, &b"yes"[..]));
    assert_eq!(await_receipt(&mut fleet, b, PathId::PRIMARY, sequence), Ok(()));
}

// [P-7.2] [P-7.3]
#[test]
fn secondaries_reach_each_other_by_the_primarys_word() {
    let mut fleet = Fleet::new(3);
    let ends = fleet.connect();
    let (path_1, session_1) = fleet.join(ends, 1);
    let (path_2, session_2) = fleet.join(ends, 2);
    let (one, two) = (fleet.servers[1], fleet.servers[2]);
    for data in [&b"first"[..], b"second", b"third"] {
        send(&mut fleet, one, session_1, path_2, data);
        let packet = receive(&mut fleet, two, session_2);
        assert_eq!((packet.from, &packet.data[..]), (path_1, data));
    }
}

// [P-7.1] [P-7.2]
#[test]
fn raw_packets_arrive_in_order() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (a, b) = (fleet.servers[0], fleet.servers[1]);
    for number in 0..50_u8 {
        let data = Bytes::from(vec![number; 1000]);
        fleet.world.session_mut(a, ends.primary).unwrap().send_raw(path, data).unwrap();
    }
    for number in 0..50_u8 {
        assert_eq!(receive(&mut fleet, b, secondary).data[0], number);
    }
}

#[test]
fn over_long_and_misdirected_raw_packets_are_refused_at_once() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, _) = fleet.join(ends, 1);
    let mut session = fleet.world.session_mut(fleet.servers[0], ends.primary).unwrap();
    let len = RAW_BYTES_MAX + 1;
    assert_eq!(session.send_raw(path, Bytes::from(vec![0; len])), Err(RawError::TooLong { len }));
    assert_eq!(session.send_raw(PathId(7), Bytes::new()), Err(RawError::PathUnknown(PathId(7))));
    assert_eq!(session.send_raw(PathId::PRIMARY, Bytes::new()), Err(RawError::OwnPath(PathId::PRIMARY)));
}

// [P-7.2]
#[test]
fn raw_packet_of_a_secondary_to_nowhere_is_refused_by_the_client() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (_, secondary) = fleet.join(ends, 1);
    let node = fleet.servers[1];
    let sequence = send(&mut fleet, node, secondary, PathId(9), b"hello?");
    let receipt = await_receipt(&mut fleet, node, PathId(9), sequence);
    assert_eq!(receipt, Err(TransportCode::PATH_UNKNOWN.into()));
}

// [P-7.4]
#[test]
fn full_queue_of_the_receiver_refuses_and_full_queue_of_the_sender_blocks() {
    let mut limits = Limits::default();
    limits.raw_packets_max = 4;
    let mut fleet = Fleet::with(2, |config| config.limits(limits.clone()));
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (a, b) = (fleet.servers[0], fleet.servers[1]);
    let mut last = 0;
    for _ in 0..4 {
        last = send(&mut fleet, a, ends.primary, path, b"x");
    }
    let mut session = fleet.world.session_mut(a, ends.primary).unwrap();
    assert_eq!(session.send_raw(path, Bytes::new()), Err(RawError::Blocked));
    assert_eq!(await_receipt(&mut fleet, a, path, last), Ok(()));
    // All four are in the receiver's queue, which nobody empties.
    let fifth = send(&mut fleet, a, ends.primary, path, b"y");
    assert_eq!(await_receipt(&mut fleet, a, path, fifth), Err(TransportCode::RAW_LIMIT.into()));
    for _ in 0..4 {
        assert_eq!(&receive(&mut fleet, b, secondary).data[..], b"x");
    }
    let sixth = send(&mut fleet, a, ends.primary, path, b"z");
    assert_eq!(await_receipt(&mut fleet, a, path, sixth), Ok(()));
}

// [P-7.2]
#[test]
fn raw_packet_on_its_way_to_a_crashed_server_is_reported_lost() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, _) = fleet.join(ends, 1);
    let (a, b) = (fleet.servers[0], fleet.servers[1]);
    fleet.world.crash(b);
    let sequence = send(&mut fleet, a, ends.primary, path, b"anyone?");
    assert!(await_receipt(&mut fleet, a, path, sequence).is_err());
}

// [P-7.2]
#[test]
fn sender_that_knows_no_pause_is_slowed_by_a_thin_line_and_loses_nothing() {
    let mut fleet = Fleet::new(3);
    let ends = fleet.connect();
    let (_, session_1) = fleet.join(ends, 1);
    let (path_2, session_2) = fleet.join(ends, 2);
    let (one, two) = (fleet.servers[1], fleet.servers[2]);
    let thin = Link { rate: Some(400_000), ..Link::with_delay(Duration::from_millis(100)) };
    fleet.world.set_link_both(fleet.client, two, thin);
    let (mut sent, mut came, mut blocked, mut refused) = (0_u32, 0_u32, 0, 0);
    let packet = |number: u32| Bytes::from(number.to_be_bytes().repeat(1_000));
    let all = fleet.world.run_until(LONG, |world| {
        let mut session = world.session_mut(one, session_1).expect("a session");
        while sent < 500 {
            match session.send_raw(path_2, packet(sent)) {
                Ok(_) => sent += 1,
                Err(RawError::Blocked) => {
                    blocked += 1;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        while let Some((_, event)) = world.poll_event(one) {
            refused += u32::from(matches!(event, SessionEvent::RawStatus { result: Err(_), .. }));
        }
        while let Some(received) = world.session_mut(two, session_2).expect("a session").recv_raw() {
            assert_eq!(received.data, packet(came));
            came += 1;
        }
        came == 500
    });
    assert!(all, "{came} of {sent}");
    assert!(blocked > 10 && refused == 0, "blocked {blocked} times, refused {refused} times");
}

/// A client that opens many carriers to a primary that takes few left none for what others send to the primary.
#[test]
fn raw_packet_arrives_beside_more_streams_than_there_are_carriers() {
    let mut few = Limits::default();
    few.carriers_max = 2;
    let mut fleet = Fleet::with(2, |config| config.limits(few.clone()));
    let mut many = Limits::default();
    many.streams_per_carrier = 1;
    let config = fleet.pki.client().limits(many);
    let ends = fleet.connect_with(config);
    let (_, secondary) = fleet.join(ends, 1);
    let link = Link::with_rate(1_000_000, Duration::from_millis(10));
    fleet.world.set_link_both(fleet.client, fleet.servers[0], link);
    for _ in 0..30 {
        let mut session = fleet.world.session_mut(fleet.client, ends.client).expect("a session");
        let stream = session.open_stream(Dir::Uni).expect("opened");
        session.stream_mut(stream).write(&pattern(0..500_000)).expect("taken");
        fleet.accept(0, ends.primary, Dir::Uni);
    }
    let (a, b) = (fleet.servers[0], fleet.servers[1]);
    send(&mut fleet, b, secondary, PathId::PRIMARY, b"yes");
    let begun = fleet.world.elapsed();
    assert_eq!(receive(&mut fleet, a, ends.primary).data, b"yes"[..]);
    let took = fleet.world.elapsed() - begun;
    assert!(took < Duration::from_secs(5), "{took:?}");
}
