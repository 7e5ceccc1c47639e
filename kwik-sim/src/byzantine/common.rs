//! What a dishonest node of any part does: the rules of frames, packets, carriers and silence.

use kwik_core::__test_exports::{PacketAck, carrier_header};
use kwik_core::TransportCode;

use super::behaviour::{Cost, FLOOD, Row, TOO_LARGE, VIOLATION, When};
use super::stage::{Stage, frame, stream_frame, varint};

/// A type that no frame has.
const UNKNOWN: u64 = 0x1f2a;

/// Frames a flood sends in one act.
const BURST: u32 = 100;

pub(super) const ROWS: &[Row] = &[
    ("unknown frames within the caps", When::Welcomed, Cost::Nothing, unknown_within_caps),
    ("an unknown frame that is too long", When::Welcomed, VIOLATION, |stage| {
        stage.control(&[varint(UNKNOWN), varint(4097)].concat());
        false
    }),
    ("too many bytes of unknown frames", When::Welcomed, VIOLATION, |stage| {
        (0..17).for_each(|_| stage.control(&frame(UNKNOWN, &[0; 4096])));
        false
    }),
    ("too many empty unknown frames", When::Welcomed, VIOLATION, |stage| {
        let frames = frame(UNKNOWN, &[]).repeat(1000);
        stage.control(&frames);
        stage.tick < 100
    }),
    ("a control frame that claims to be giant", When::Welcomed, TOO_LARGE, |stage| {
        stage.control(&[varint(0x13), varint((1 << 62) - 1)].concat());
        false
    }),
    ("a control frame one byte too long", When::Welcomed, TOO_LARGE, |stage| {
        stage.control(&[varint(0x12), varint(16 * 1024 + 1)].concat());
        false
    }),
    ("a body shorter than its fields", When::Welcomed, VIOLATION, |stage| {
        stage.control(&frame(0x12, &[0, 0]));
        false
    }),
    ("a body longer than its fields", When::Welcomed, VIOLATION, |stage| {
        stage.control(&frame(0x12, &[0, 0, 0, 0, 0]));
        false
    }),
    ("an acknowledgement of packets never sent", When::Welcomed, VIOLATION, |stage| {
        stage.say(PacketAck { ranges: std::iter::once(5000..5001).collect() });
        false
    }),
    ("an acknowledgement of every packet there can be", When::Welcomed, VIOLATION, |stage| {
        stage.say(PacketAck { ranges: std::iter::once(0..(1 << 62) - 1).collect() });
        false
    }),
    ("a stream that is no carrier", When::Welcomed, VIOLATION, |stage| {
        if let Some(stream) = stage.link.open_uni() {
            stage.link.write(stream, &varint(0x4b58));
        }
        false
    }),
    ("a carrier that ends inside a packet", When::Welcomed, VIOLATION, |stage| {
        if let Some(carrier) = stage.carrier() {
            stage.carry(&[varint(0), varint(100)].concat());
            stage.link.finish(carrier);
        }
        false
    }),
    ("a carrier that is reset", When::Welcomed, VIOLATION, |stage| {
        if let Some(carrier) = stage.carrier() {
            stage.link.reset(carrier);
        }
        false
    }),
    ("an empty packet", When::Welcomed, VIOLATION, |stage| {
        stage.carry(&[varint(0), varint(0)].concat());
        false
    }),
    ("a packet that claims to be giant", When::Welcomed, TOO_LARGE, |stage| {
        stage.carry(&[varint(0), varint((1 << 62) - 1)].concat());
        false
    }),
    ("the largest packet number", When::Welcomed, VIOLATION, |stage| {
        stage.packet_numbered((1 << 62) - 1, &frame(UNKNOWN, &[]));
        false
    }),
    ("a packet number used twice", When::Welcomed, VIOLATION, |stage| {
        stage.packet_numbered(0, &frame(UNKNOWN, &[]));
        stage.packet_numbered(0, &frame(UNKNOWN, &[]));
        false
    }),
    ("a packet number too far ahead", When::Welcomed, VIOLATION, |stage| {
        stage.packet_numbered(5000, &frame(UNKNOWN, &[]));
        false
    }),
    ("packet numbers that jump within the window", When::Welcomed, Cost::Nothing, |stage| {
        (1..2048).step_by(2).for_each(|number| stage.packet_numbered(number, &frame(UNKNOWN, &[])));
        false
    }),
    ("a frame that runs past its packet", When::Welcomed, VIOLATION, |stage| {
        stage.carry(&[varint(0), varint(4), varint(1), varint(100)].concat());
        false
    }),
    ("an unknown frame on a carrier that is too long", When::Welcomed, VIOLATION, |stage| {
        stage.carry(&[varint(0), varint(5000), varint(UNKNOWN), varint(4097)].concat());
        false
    }),
    ("unknown frames over many carriers", When::Welcomed, VIOLATION, |stage| {
        for _ in 0..2 {
            let number = stage.scene.next_packet;
            stage.scene.next_packet += 1;
            let Some(stream) = stage.link.open_uni() else { continue };
            let frames = frame(UNKNOWN, &[0; 4096]);
            let packet = [varint(number), varint(frames.len() as u64), frames].concat();
            stage.link.write(stream, &[&carrier_header()[..], &packet].concat());
            stage.link.finish(stream);
        }
        stage.tick < 50
    }),
    ("a second control plane", When::Welcomed, Cost::Nothing, |stage| {
        if let Some(stream) = stage.link.open_bi() {
            stage.link.write(stream, &[0x13, 2, 0, 0]);
            *stage.said += 1_000_000;
        }
        false
    }),
    ("a control plane that is finished", When::Welcomed, VIOLATION, |stage| {
        if let Some(control) = stage.link.control {
            stage.link.finish(control);
        }
        false
    }),
    ("a control plane that is reset", When::Welcomed, VIOLATION, |stage| {
        if let Some(control) = stage.link.control {
            stage.link.reset(control);
        }
        false
    }),
    ("a control plane that is stopped", When::Welcomed, VIOLATION, |stage| {
        stage.link.stop_control();
        false
    }),
    ("silence", When::Welcomed, Cost::Code(TransportCode::TIMED_OUT), |stage| {
        // What was said before must have left.
        stage.link.silent = stage.tick >= 40;
        stage.tick < 40
    }),
    ("one byte of a frame at a time", When::Welcomed, Cost::Nothing, |stage| {
        if stage.tick == 0 {
            stage.control(&[varint(UNKNOWN), varint(4000)].concat());
        } else if stage.tick.is_multiple_of(100) {
            stage.control(&[0]);
        }
        stage.tick < 2000
    }),
    ("a close that leaves the connection open", When::Welcomed, Cost::Anything, |stage| {
        stage.control(&[0x13, 9, 0xc0, 0, 0, 1, 0, 0, 0, 9, 0]);
        false
    }),
    ("a connection closed with a code that nobody knows", When::Welcomed, Cost::Anything, |stage| {
        let now = stage.now;
        let code = stage.edge();
        stage.link.close(now, code);
        false
    }),
    ("acknowledgements that acknowledge nothing new", When::Welcomed, FLOOD, |stage| {
        if stage.scene.packets > 0 {
            (0..BURST).for_each(|_| stage.acknowledge());
        }
        stage.tick < 2000
    }),
    ("carriers that are stopped", When::Welcomed, VIOLATION, |stage| {
        stage.link.stop_carriers() == 0 && stage.tick < 2000
    }),
];

pub(super) const PLACED_ROWS: &[Row] = &[
    ("a payload longer than a frame may have", When::Placed, TOO_LARGE, |stage| {
        let Some((stream, offset)) = stage.place() else { return false };
        let body = [varint(stream.0), varint(offset)].concat();
        let len = body.len() as u64 + 64 * 1024 + 1;
        stage.carry(&[varint(0), varint(len + 8), varint(1), varint(len), body].concat());
        false
    }),
    ("a payload past the last offset", When::Placed, VIOLATION, |stage| {
        let Some((stream, _)) = stage.place() else { return false };
        stage.packet(&stream_frame(stream, (1 << 62) - 1, b"x", false));
        false
    }),
    ("data frames without data", When::Placed, FLOOD, |stage| {
        let Some((stream, offset)) = stage.place() else { return false };
        (0..BURST).for_each(|_| stage.data(stream, offset, 0, false));
        stage.tick < 200
    }),
    ("a frame cut off for ever", When::Placed, Cost::Nothing, |stage| {
        let Some((stream, offset)) = stage.place() else { return false };
        let body = [varint(stream.0), varint(offset)].concat();
        stage.carry(&[varint(0), varint(500), varint(1), varint(400), body].concat());
        false
    }),
];

fn unknown_within_caps(stage: &mut Stage<'_>) -> bool {
    for len in [0, 1, 63, 64, 4096] {
        stage.control(&frame(UNKNOWN, &vec![0; len]));
        stage.packet(&frame(UNKNOWN, &vec![0; len]));
    }
    false
}
