//! What a peer must not do with QUIC's streams below a path.

use quinn_proto::{Dir, Side, StreamId, VarInt};

use super::{CLIENT, PRIMARY, SECONDARY, Trio};
use crate::error::TransportCode;
use crate::id::PathId;
use crate::wire::PacketAck;

fn control() -> StreamId {
    StreamId::new(Side::Client, Dir::Bi, 0)
}

impl Trio {
    /// Opens a carrier from a node, with these bytes on it.
    fn carrier(&mut self, node: usize, path: PathId, bytes: &[u8]) -> StreamId {
        self.machine(node).path_mut(path).expect("a path").pretend_sent();
        let quic = self.quic(node, path);
        let stream = quic.streams().open(Dir::Uni).expect("a carrier");
        assert_eq!(quic.send_stream(stream).write(bytes), Ok(bytes.len()));
        stream
    }

    /// What the secondary did cost its path, and no more.
    fn assert_violation(mut self, what: &str) {
        self.settle();
        let state = self.client_path_state(self.path);
        assert!(state.is_dead(), "{what}: {state:?}");
        self.assert_path_died(self.path, TransportCode::PROTOCOL_VIOLATION);
    }
}

/// The beginning of a carrier.
const HEADER: [u8; 4] = [0x80, 0, 0x4b, 0x57];

fn carrier(packets: &[&[u8]]) -> Vec<u8> {
    [&HEADER[..], &packets.concat()].concat()
}

// [P-5.1]
#[test]
fn control_plane_lives_as_long_as_its_path() {
    type Abuse = fn(&mut crate::path::RawQuic);
    let abuses: [(&str, Abuse); 3] = [
        ("finished", |quic| quic.send_stream(control()).finish().unwrap()),
        ("reset", |quic| quic.send_stream(control()).reset(VarInt::from_u32(0)).unwrap()),
        ("stopped", |quic| quic.recv_stream(control()).stop(VarInt::from_u32(0)).unwrap()),
    ];
    for (what, abuse) in abuses {
        let mut trio = Trio::new();
        let path = trio.path;
        abuse(trio.quic(SECONDARY, path));
        trio.assert_violation(what);

        let mut trio = Trio::new();
        abuse(trio.quic(CLIENT, PathId::PRIMARY));
        trio.settle();
        trio.assert_session_failed(PRIMARY, TransportCode::PROTOCOL_VIOLATION);
    }
}

// [P-2.3]
#[test]
fn one_bidirectional_stream_is_all_there_is() {
    let mut trio = Trio::new();
    let path = trio.path;
    assert_eq!(trio.quic(CLIENT, PathId::PRIMARY).streams().open(Dir::Bi), None);
    assert_eq!(trio.quic(CLIENT, path).streams().open(Dir::Bi), None);
    assert_eq!(trio.quic(SECONDARY, path).streams().open(Dir::Bi), None);
}

// [P-6.1] [P-6.2] [P-6.3] [P-6.4]
#[test]
fn packets_that_make_no_sense_cost_the_path() {
    let cases: [(&str, Vec<u8>); 6] = [
        ("not a carrier", vec![0x80, 0, 0x4b, 0x58]),
        ("an empty packet", carrier(&[&[0, 0]])),
        ("a frame beyond its packet", carrier(&[&[0, 2, 1, 9]])),
        ("a number twice", carrier(&[&[0, 2, 0x3f, 0], &[0, 2, 0x3f, 0]])),
        ("a number beyond the window", carrier(&[&[0x50, 0, 2, 0x3f, 0]])),
        ("the last number", carrier(&[&[0xff; 8], &[2, 0x3f, 0]])),
    ];
    for (what, bytes) in cases {
        let mut trio = Trio::new();
        trio.carrier(SECONDARY, trio.path, &bytes);
        trio.assert_violation(what);
    }
    let mut trio = Trio::new();
    trio.carrier(SECONDARY, trio.path, &carrier(&[&[0, 2, 0x3f, 0], &[0x4f, 0xff, 2, 0x3f, 0]]));
    trio.settle();
    assert!(trio.client_path_state(trio.path).is_usable(), "the highest number of the window");
}

// [P-6.5]
#[test]
fn carriers_end_behind_whole_packets_only() {
    let whole = [0, 2, 0x3f, 0];
    let mut trio = Trio::new();
    let path = trio.path;
    let stream = trio.carrier(SECONDARY, path, &carrier(&[&whole]));
    trio.quic(SECONDARY, path).send_stream(stream).finish().unwrap();
    trio.settle();
    assert!(trio.client_path_state(path).is_usable());
    let stream = trio.carrier(SECONDARY, path, &carrier(&[&[1, 2, 0x3f]]));
    trio.quic(SECONDARY, path).send_stream(stream).finish().unwrap();
    trio.assert_violation("an end inside a packet");

    let mut trio = Trio::new();
    let stream = trio.carrier(SECONDARY, path, &carrier(&[&whole]));
    trio.settle();
    trio.quic(SECONDARY, path).send_stream(stream).reset(VarInt::from_u32(0)).unwrap();
    trio.assert_violation("a reset");

    let mut trio = Trio::new();
    trio.delegated();
    let grants = StreamId::new(Side::Client, Dir::Uni, 0);
    trio.quic(SECONDARY, path).recv_stream(grants).stop(VarInt::from_u32(0)).unwrap();
    trio.assert_violation("a stopped carrier");
}

// [P-5.4]
#[test]
fn unknown_frames_are_counted_over_all_carriers() {
    let packet = |number: u8| {
        let unknown = [&[0x3f, 0x4f, 0xfd][..], &[0; 0xffd]].concat();
        [&[number, 0x80, 0, 0x10, 0][..], &unknown].concat()
    };
    let mut trio = Trio::new();
    let path = trio.path;
    for number in 0..16 {
        let stream = trio.carrier(SECONDARY, path, &carrier(&[&packet(number)]));
        if number % 2 == 0 {
            trio.quic(SECONDARY, path).send_stream(stream).finish().unwrap();
        }
        trio.settle();
        assert!(trio.client_path_state(path).is_usable(), "packet {number}");
    }
    trio.carrier(SECONDARY, path, &carrier(&[&packet(16)]));
    trio.assert_violation("too many bytes");
}

// [P-6.7]
#[test]
fn acknowledging_what_was_never_sent_costs_the_path() {
    let mut trio = Trio::new();
    let path = trio.path;
    let ack = PacketAck { ranges: smallvec::smallvec![0..1] };
    trio.machine(SECONDARY).path_mut(path).unwrap().queue_control(&ack.into());
    trio.assert_violation("nothing was sent on this path");

    let mut trio = Trio::new();
    trio.delegated();
    let ack = PacketAck { ranges: smallvec::smallvec![0..1] };
    trio.machine(SECONDARY).path_mut(path).unwrap().queue_control(&ack.into());
    trio.settle();
    assert!(trio.client_path_state(path).is_usable(), "a repetition is none");
}

// [P-5.16]
#[test]
fn acknowledging_nothing_new_for_ever_costs_the_path() {
    let ack = PacketAck { ranges: smallvec::smallvec![0..1] };
    let mut trio = Trio::new();
    trio.delegated();
    let path = trio.path;
    let acknowledge = |trio: &mut Trio, times: usize| {
        let path = trio.machine(SECONDARY).path_mut(path).expect("a path");
        (0..times).for_each(|_| path.queue_control(&ack.clone().into()));
        while trio.exchange() {}
    };
    acknowledge(&mut trio, 990);
    assert!(trio.client_path_state(path).is_usable());
    acknowledge(&mut trio, 20);
    trio.assert_path_died(path, TransportCode::CONTROL_FLOOD);
}

// [P-8.9]
#[test]
fn grants_travel_on_one_carrier_that_is_never_replaced() {
    let mut trio = Trio::with(|limits| limits.carrier_bytes_max = 1024);
    let delegated = trio.delegated();
    let (primary, path) = (trio.sessions[PRIMARY], trio.path);
    for _ in 0..10 {
        let mut session = trio.nodes[PRIMARY].1.session_mut(primary).unwrap();
        session.stream_mut(delegated.there).delegate(path, 1, bytes::Bytes::from(vec![0; 4000])).unwrap();
        trio.settle();
    }
    let next = trio.quic(CLIENT, path).streams().open(Dir::Uni).map(StreamId::index);
    assert_eq!(next, Some(1), "carriers were opened for the same frames");
    assert!(trio.is_open(SECONDARY), "what was out of order would have cost the path");
}
