//! What a dishonest node of any role does: the rules of frames, packets, carriers and silence.

use kwik_core::__test_exports::{PacketAck, carrier_header};
use kwik_core::TransportCode;

use super::behaviour::{BehaviourRow, Cost, FLOOD, TOO_LARGE, VIOLATION, When};
use super::peer::{PeerContext, frame, stream_frame, varint};

/// A type that no frame has.
const UNKNOWN: u64 = 0x1f2a;

/// Frames a flood sends in one act.
const BURST: u32 = 100;

pub(super) const BEHAVIOURS: &[BehaviourRow] = &[
    ("unknown frames within the caps", When::Welcomed, Cost::Nothing, unknown_within_caps),
    ("an unknown frame that is too long", When::Welcomed, VIOLATION, |peer| {
        peer.control(&[varint(UNKNOWN), varint(4097)].concat());
        false
    }),
    ("too many bytes of unknown frames", When::Welcomed, VIOLATION, |peer| {
        (0..17).for_each(|_| peer.control(&frame(UNKNOWN, &[0; 4096])));
        false
    }),
    ("too many empty unknown frames", When::Welcomed, VIOLATION, |peer| {
        let frames = frame(UNKNOWN, &[]).repeat(1000);
        peer.control(&frames);
        peer.tick < 100
    }),
    ("a control frame that claims to be giant", When::Welcomed, TOO_LARGE, |peer| {
        peer.control(&[varint(0x13), varint((1 << 62) - 1)].concat());
        false
    }),
    ("a control frame one byte too long", When::Welcomed, TOO_LARGE, |peer| {
        peer.control(&[varint(0x12), varint(16 * 1024 + 1)].concat());
        false
    }),
    ("a body shorter than its fields", When::Welcomed, VIOLATION, |peer| {
        peer.control(&frame(0x12, &[0, 0]));
        false
    }),
    ("a body longer than its fields", When::Welcomed, VIOLATION, |peer| {
        peer.control(&frame(0x12, &[0, 0, 0, 0, 0]));
        false
    }),
    ("an acknowledgement of packets never sent", When::Welcomed, VIOLATION, |peer| {
        peer.say(PacketAck { ranges: std::iter::once(5000..5001).collect() });
        false
    }),
    ("an acknowledgement of every packet there can be", When::Welcomed, VIOLATION, |peer| {
        peer.say(PacketAck { ranges: std::iter::once(0..(1 << 62) - 1).collect() });
        false
    }),
    ("a stream that is no carrier", When::Welcomed, VIOLATION, |peer| {
        if let Some(stream) = peer.connection.open_uni() {
            peer.connection.write(stream, &varint(0x4b58));
        }
        false
    }),
    ("a carrier that ends inside a packet", When::Welcomed, VIOLATION, |peer| {
        if let Some(carrier) = peer.carrier() {
            peer.carry(&[varint(0), varint(100)].concat());
            peer.connection.finish(carrier);
        }
        false
    }),
    ("a carrier that is reset", When::Welcomed, VIOLATION, |peer| {
        if let Some(carrier) = peer.carrier() {
            peer.connection.reset(carrier);
        }
        false
    }),
    ("an empty packet", When::Welcomed, VIOLATION, |peer| {
        peer.carry(&[varint(0), varint(0)].concat());
        false
    }),
    ("a packet that claims to be giant", When::Welcomed, TOO_LARGE, |peer| {
        peer.carry(&[varint(0), varint((1 << 62) - 1)].concat());
        false
    }),
    ("the largest packet number", When::Welcomed, VIOLATION, |peer| {
        peer.packet_numbered((1 << 62) - 1, &frame(UNKNOWN, &[]));
        false
    }),
    ("a packet number used twice", When::Welcomed, VIOLATION, |peer| {
        peer.packet_numbered(0, &frame(UNKNOWN, &[]));
        peer.packet_numbered(0, &frame(UNKNOWN, &[]));
        false
    }),
    ("a packet number too far ahead", When::Welcomed, VIOLATION, |peer| {
        peer.packet_numbered(5000, &frame(UNKNOWN, &[]));
        false
    }),
    ("packet numbers that jump within the window", When::Welcomed, Cost::Nothing, |peer| {
        (1..2048).step_by(2).for_each(|number| peer.packet_numbered(number, &frame(UNKNOWN, &[])));
        false
    }),
    ("a frame that runs past its packet", When::Welcomed, VIOLATION, |peer| {
        peer.carry(&[varint(0), varint(4), varint(1), varint(100)].concat());
        false
    }),
    ("an unknown frame on a carrier that is too long", When::Welcomed, VIOLATION, |peer| {
        peer.carry(&[varint(0), varint(5000), varint(UNKNOWN), varint(4097)].concat());
        false
    }),
    ("unknown frames over many carriers", When::Welcomed, VIOLATION, |peer| {
        for _ in 0..2 {
            let number = peer.state.next_packet;
            peer.state.next_packet += 1;
            let Some(stream) = peer.connection.open_uni() else { continue };
            let frames = frame(UNKNOWN, &[0; 4096]);
            let packet = [varint(number), varint(frames.len() as u64), frames].concat();
            peer.connection.write(stream, &[&carrier_header()[..], &packet].concat());
            peer.connection.finish(stream);
        }
        peer.tick < 50
    }),
    ("a second control plane", When::Welcomed, Cost::Nothing, |peer| {
        if let Some(stream) = peer.connection.open_bi() {
            peer.connection.write(stream, &[0x13, 2, 0, 0]);
            *peer.said += 1_000_000;
        }
        false
    }),
    ("a control plane that is finished", When::Welcomed, VIOLATION, |peer| {
        if let Some(control) = peer.connection.control {
            peer.connection.finish(control);
        }
        false
    }),
    ("a control plane that is reset", When::Welcomed, VIOLATION, |peer| {
        if let Some(control) = peer.connection.control {
            peer.connection.reset(control);
        }
        false
    }),
    ("a control plane that is stopped", When::Welcomed, VIOLATION, |peer| {
        peer.connection.stop_control();
        false
    }),
    ("silence", When::Welcomed, Cost::Code(TransportCode::TIMED_OUT), |peer| {
        // What was said before must have left.
        peer.connection.silent = peer.tick >= 40;
        peer.tick < 40
    }),
    ("one byte of a frame at a time", When::Welcomed, Cost::Nothing, |peer| {
        if peer.tick == 0 {
            peer.control(&[varint(UNKNOWN), varint(4000)].concat());
        } else if peer.tick.is_multiple_of(100) {
            peer.control(&[0]);
        }
        peer.tick < 2000
    }),
    ("a close that leaves the connection open", When::Welcomed, Cost::Anything, |peer| {
        peer.control(&[0x13, 9, 0xc0, 0, 0, 1, 0, 0, 0, 9, 0]);
        false
    }),
    ("a connection closed with a code that nobody knows", When::Welcomed, Cost::Anything, |peer| {
        let now = peer.now;
        let code = peer.edge();
        peer.connection.close(now, code);
        false
    }),
    ("acknowledgements that acknowledge nothing new", When::Welcomed, FLOOD, |peer| {
        if peer.state.packets > 0 {
            (0..BURST).for_each(|_| peer.acknowledge());
        }
        peer.tick < 2000
    }),
    ("carriers that are stopped", When::Welcomed, VIOLATION, |peer| {
        peer.connection.stop_carriers() == 0 && peer.tick < 2000
    }),
];

pub(super) const PLACED_BEHAVIOURS: &[BehaviourRow] = &[
    ("a payload longer than a frame may have", When::Placed, TOO_LARGE, |peer| {
        let Some((stream, offset)) = peer.place() else { return false };
        let body = [varint(stream.0), varint(offset)].concat();
        let len = body.len() as u64 + 64 * 1024 + 1;
        peer.carry(&[varint(0), varint(len + 8), varint(1), varint(len), body].concat());
        false
    }),
    ("a payload past the last offset", When::Placed, VIOLATION, |peer| {
        let Some((stream, _)) = peer.place() else { return false };
        peer.packet(&stream_frame(stream, (1 << 62) - 1, b"x", false));
        false
    }),
    ("data frames without data", When::Placed, FLOOD, |peer| {
        let Some((stream, offset)) = peer.place() else { return false };
        (0..BURST).for_each(|_| peer.data(stream, offset, 0, false));
        peer.tick < 200
    }),
    ("a frame cut off for ever", When::Placed, Cost::Nothing, |peer| {
        let Some((stream, offset)) = peer.place() else { return false };
        let body = [varint(stream.0), varint(offset)].concat();
        peer.carry(&[varint(0), varint(500), varint(1), varint(400), body].concat());
        false
    }),
];

fn unknown_within_caps(peer: &mut PeerContext<'_>) -> bool {
    for len in [0, 1, 63, 64, 4096] {
        peer.control(&frame(UNKNOWN, &vec![0; len]));
        peer.packet(&frame(UNKNOWN, &vec![0; len]));
    }
    false
}
