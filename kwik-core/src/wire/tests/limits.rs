//! Lengths at and beyond every limit, and values no frame may hold.

use bytes::{Bytes, BytesMut};

use super::{carrier, encoded, hex, raw_frame, read_carrier, read_control, varint};
use crate::{
    error::{ErrorCode, TransportCode},
    id::{PathId, StreamId, StreamOffset},
    limits::{
        CONTROL_FRAME_BYTES_MAX, CREDENTIAL_BYTES_MAX, DATA_FRAME_PAYLOAD_MAX, PACKET_BYTES_MAX, RAW_BYTES_MAX,
        TICKET_BYTES_MAX, UNKNOWN_BYTES_PER_PATH_MAX, UNKNOWN_FRAME_BYTES_MAX, VARINT_MAX,
    },
    wire::{CarrierItem, Close, ControlFrame, ControlType, DataType, RawForward, SignedPayload, encode_stream_header},
};

const VIOLATION: Option<TransportCode> = Some(TransportCode::PROTOCOL_VIOLATION);
const TOO_LARGE: Option<TransportCode> = Some(TransportCode::FRAME_TOO_LARGE);
const UNKNOWN: u64 = 0x1f1f;

fn control_code(bytes: Vec<u8>) -> Option<TransportCode> {
    read_control([bytes.into()]).error.map(|error| error.code)
}

fn carrier_code(bytes: Vec<u8>) -> Option<TransportCode> {
    read_carrier([bytes.into()]).error.map(|error| error.code)
}

/// The error of a carrier whose only packet holds `frames`.
fn data_code(frames: &[u8]) -> Option<TransportCode> {
    carrier_code(carrier(frames))
}

// [P-5.2]
#[test]
fn control_lengths_are_refused_before_the_body_comes() {
    let max = CONTROL_FRAME_BYTES_MAX as u64;
    for frame_type in ControlType::ALL {
        for (len, code) in [
            (0, VIOLATION),
            (1, None),
            (max, None),
            (max + 1, TOO_LARGE),
            (1 << 32, TOO_LARGE),
            (VARINT_MAX, TOO_LARGE),
        ] {
            let header = [varint(frame_type.to_wire()), varint(len)].concat();
            assert_eq!(control_code(header), code, "{} of {len} bytes", frame_type.name());
        }
    }
}

// [P-5.4]
#[test]
fn unknown_frames_are_skipped_up_to_their_limits() {
    let max = UNKNOWN_FRAME_BYTES_MAX;
    for (len, code) in
        [(0, None), (1, None), (max, None), (max + 1, VIOLATION), (1 << 32, VIOLATION), (VARINT_MAX, VIOLATION)]
    {
        assert_eq!(control_code([varint(UNKNOWN), varint(len)].concat()), code, "{len} bytes");
    }
    for frame_type in [0, 0x15, UNKNOWN, VARINT_MAX] {
        let unknown = raw_frame(frame_type, &vec![0xff; usize::try_from(max).expect("4 KiB fit")]);
        let times = usize::try_from(UNKNOWN_BYTES_PER_PATH_MAX / UNKNOWN_FRAME_BYTES_MAX).expect("64 KiB fit");
        let bytes = [unknown.repeat(times), hex("0e 02 09 05")].concat();
        let outcome = read_control([bytes.clone().into()]);
        assert_eq!((outcome.items.len(), outcome.error), (1, None), "known frames still work");
        assert_eq!(control_code([bytes, raw_frame(frame_type, &[0])].concat()), VIOLATION);
    }
}

// [P-5.4]
#[test]
fn empty_unknown_frames_cannot_go_on_forever() {
    let times = usize::try_from(UNKNOWN_BYTES_PER_PATH_MAX).expect("64 KiB fit");
    let empty = raw_frame(0x3f, &[]);
    assert_eq!(control_code(empty.repeat(times)), None);
    assert_eq!(control_code(empty.repeat(times + 1)), VIOLATION);
    let packet = &carrier(&empty.repeat(1 << 12))[4..];
    assert_eq!(carrier_code([varint(0x4b57), packet.repeat(16)].concat()), None);
    assert_eq!(carrier_code([varint(0x4b57), packet.repeat(17)].concat()), VIOLATION);
}

// [P-6.1] [P-6.2] [P-6.3]
#[test]
fn packet_lengths_and_numbers_have_limits() {
    let max = PACKET_BYTES_MAX as u64;
    for (len, code) in [(0, VIOLATION), (max + 1, TOO_LARGE), (1 << 32, TOO_LARGE), (VARINT_MAX, TOO_LARGE)] {
        assert_eq!(carrier_code([varint(0x4b57), varint(0), varint(len)].concat()), code, "{len} bytes");
    }
    let outcome = read_carrier([[varint(0x4b57), varint(VARINT_MAX - 1), varint(max)].concat().into()]);
    assert!(matches!(outcome.items[..], [CarrierItem::PacketStart { len, .. }] if len == max));
    assert_eq!(carrier_code([varint(0x4b57), varint(VARINT_MAX)].concat()), VIOLATION);
    assert_eq!(carrier_code(varint(0x4b58)), VIOLATION);
}

// [P-6.9]
#[test]
fn data_frame_lengths_are_refused_before_the_body_comes() {
    let body_max = CONTROL_FRAME_BYTES_MAX as u64;
    for frame_type in DataType::ALL {
        let max = match frame_type {
            DataType::Stream | DataType::StreamFin => DATA_FRAME_PAYLOAD_MAX as u64 + 16,
            DataType::Grant | DataType::Raw => body_max,
        };
        for (len, code) in [(max + 1, TOO_LARGE), (1 << 32, TOO_LARGE), (VARINT_MAX, TOO_LARGE)] {
            let header = [varint(frame_type.to_wire()), varint(len)].concat();
            assert_eq!(data_code(&header), code, "{} of {len} bytes", frame_type.name());
        }
        for len in [0, 1] {
            let frame = raw_frame(frame_type.to_wire(), &[0x40].repeat(len));
            assert_eq!(data_code(&frame), VIOLATION, "{} of {len} bytes", frame_type.name());
        }
    }
    for len in [UNKNOWN_FRAME_BYTES_MAX + 1, 1 << 32, VARINT_MAX] {
        assert_eq!(data_code(&[varint(UNKNOWN), varint(len)].concat()), VIOLATION);
    }
}

// [P-6.9]
#[test]
fn payload_has_a_limit() {
    for (len, code) in [(0, None), (1, None), (DATA_FRAME_PAYLOAD_MAX, None), (DATA_FRAME_PAYLOAD_MAX + 1, TOO_LARGE)] {
        for (stream, offset) in [(4, 0), (VARINT_MAX, VARINT_MAX - len as u64)] {
            let frame = raw_frame(2, &[varint(stream), varint(offset), vec![0; len]].concat());
            assert_eq!(data_code(&frame), code, "{len} bytes at {offset}");
        }
    }
    let mut header = BytesMut::new();
    encode_stream_header(StreamId(VARINT_MAX), StreamOffset(VARINT_MAX - 100), 100, true, &mut header);
    assert!(header.len() <= 32);
}

// [P-6.9]
#[test]
fn payload_ends_where_the_wire_can_say() {
    for (offset, len, code) in
        [(VARINT_MAX, 0, None), (VARINT_MAX - 1, 1, None), (VARINT_MAX, 1, VIOLATION), (VARINT_MAX - 5, 6, VIOLATION)]
    {
        let frame = raw_frame(1, &[varint(4), varint(offset), vec![0; len]].concat());
        assert_eq!(data_code(&frame), code, "{len} bytes at {offset}");
    }
}

// [P-6.2]
#[test]
fn frames_fill_their_packet_exactly() {
    let frame = hex("01 03 04 10 61");
    assert_eq!(data_code(&frame), None);
    let violations = ["01 04 04 10 61", "01", "40", "01 40", "01 00", "01 01 04", "01 01 40", "02 02 04 40", "3f 01"];
    for frames in violations {
        let bytes = [carrier(&hex(frames)), vec![0; 8]].concat();
        assert_eq!(carrier_code(bytes), VIOLATION, "{frames}");
    }
}

#[test]
fn largest_raw_frame_fits() {
    let payload = Bytes::from(vec![1; RAW_BYTES_MAX]);
    let signed = SignedPayload { sequence: VARINT_MAX, payload, signature: [2; 64] };
    let raw = RawForward { from: PathId(u32::MAX), forwarded_ticket: vec![3; TICKET_BYTES_MAX].into(), signed };
    let mut out = BytesMut::new();
    raw.encode(&mut out);
    let outcome = read_carrier([carrier(&out).into()]);
    assert_eq!((&outcome.items[1], outcome.error), (&CarrierItem::Raw(raw), None));
}

// [P-5.6] [P-10.1]
#[test]
fn fields_have_limits() {
    let params = hex("03 01 01 10 02 01 10 03 04 80004000");
    let field = |len: usize| [varint(len as u64), vec![b'a'; len]].concat();
    let hello = |len| [varint(1), params.clone(), vec![0; 32 + 64], field(len)].concat();
    let join = |len| [varint(1), params.clone(), field(len), vec![0; 64]].concat();
    let name = |len| [hex("01 02 04 7f000001 1151"), field(len), vec![0; 32], field(0)].concat();
    let ticket = |len| [hex("01 02 04 7f000001 1151"), field(1), vec![0; 32], field(len)].concat();
    let raw = |len| [hex("01 00"), field(len), vec![0; 64]].concat();
    let close = |len| [varint(0), field(len)].concat();
    type Body<'a> = &'a dyn Fn(usize) -> Vec<u8>;
    let cases: [(u64, usize, Body<'_>); 6] = [
        (ControlType::HELLO, CREDENTIAL_BYTES_MAX, &hello),
        (ControlType::JOIN, TICKET_BYTES_MAX, &join),
        (ControlType::ADD_PATH, 255, &name),
        (ControlType::ADD_PATH, TICKET_BYTES_MAX, &ticket),
        (ControlType::RAW, RAW_BYTES_MAX, &raw),
        (ControlType::CLOSE, 256, &close),
    ];
    for (frame_type, max, body) in cases {
        assert_eq!(control_code(raw_frame(frame_type, &body(max))), None, "type {frame_type}");
        assert_eq!(control_code(raw_frame(frame_type, &body(max + 1))), VIOLATION, "type {frame_type}");
    }
    assert_eq!(control_code(raw_frame(ControlType::ADD_PATH, &name(0))), VIOLATION);
}

// [P-5.6]
#[test]
fn values_outside_their_range_are_violations() {
    let violations = [
        ("04 2a 01 02 05 7f000001 1151 01 61 00*32 00", "no such address family"),
        ("04 2a 01 02 04 7f000001 1151 01 20 00*32 00", "the server name is not visible ASCII"),
        ("04 2a 01 02 04 7f000001 1151 01 7f 00*32 00", "the server name is not visible ASCII"),
        ("04 2a 01 02 04 7f000001 1151 01 c3 00*32 00", "the server name is not visible ASCII"),
        ("05 0a c000000100000000 03 00", "a number is above 2^32 - 1"),
        ("06 06 01 00 00 00 00 00", "no such path state"),
        ("06 06 01 04 00 00 00 00", "no such path state"),
        ("07 0a 04 c000000100000000 00", "a number is above 2^32 - 1"),
        ("0b 02 02 10", "no such direction"),
        ("0b 09 00 d000000000000001", "more than 2^60 streams"),
        ("0c 01 00", "too many ranges or none"),
        ("0c 05 02 00 00 00 00", "ranges touch"),
        ("0c 0a 01 ff*8 00", "a range ends above 2^62 - 1"),
        ("0c 0a 01 00 ff*8", "a range ends above 2^62 - 1"),
        ("0c 11 01 ff*8 ff*8", "a range ends above 2^62 - 1"),
        ("0c 13 02 00 00 ff*8 ff*8", "a range ends above 2^62 - 1"),
        ("0d 4049 09 04 02 00 4064 00 01 00 88*64", "the range is empty"),
        ("0d 404f 09 04 02 00 ff*8 01 01 00 88*64", "the range ends above 2^62 - 1"),
        ("0f 02 09 00", "no such grant status"),
        ("0f 02 09 04", "no such grant status"),
        ("0f 04 09 03 00 00", "too many ranges or none"),
    ];
    for (frame, detail) in violations {
        let error = read_control([hex(frame).into()]).error;
        let told = error.map(|error| (error.code, error.detail));
        assert_eq!(told, Some((TransportCode::PROTOCOL_VIOLATION, detail)), "{frame}");
    }
    let grant = |range: &str| raw_frame(3, &hex(&format!("09 04 00 {range} 00 01 00 88*64")));
    assert_eq!(control_code(hex("0c 11 01 fffffffffffffff0 c00000000000000e")), None);
    assert_eq!(data_code(&grant("4064 01")), None);
    assert_eq!(data_code(&grant("fffffffffffffffe 01")), None);
    assert_eq!(data_code(&grant("4064 00")), VIOLATION);
    assert_eq!(data_code(&grant("ff*8 01")), VIOLATION);
}

// [P-5.6] [P-10.1]
#[test]
fn range_counts_have_limits() {
    for (frame_type, before, max) in [(ControlType::PACKET_ACK, "", 64), (ControlType::GRANT_STATUS, "09 03 00", 256)] {
        let body = |count: usize| [hex(before), varint(count as u64), hex("01 00").repeat(count)].concat();
        for (count, code) in [(0, VIOLATION), (1, None), (max, None), (max + 1, VIOLATION)] {
            assert_eq!(control_code(raw_frame(frame_type, &body(count))), code, "{count} ranges");
        }
        let claimed = [hex(before), varint(VARINT_MAX)].concat();
        assert_eq!(control_code(raw_frame(frame_type, &claimed)), VIOLATION);
    }
}

// [P-3.6]
#[test]
fn parameters_are_complete_and_in_range() {
    let cases = [
        ("03 01 01 10 02 01 10 03 04 80004000", None),
        ("03 03 04 80004000 02 01 10 01 01 10", None),
        ("04 01 01 10 4a00 02 ffff 02 01 10 03 04 80004000", None), // an unknown one
        ("05 01 01 10 4a00 00 4a00 00 02 01 10 03 04 80004000", None), // an unknown one twice
        ("03 01 08 d000000000000000 02 01 10 03 04 80004000", None), // 2^60
        ("03 01 08 d000000000000001 02 01 10 03 04 80004000", VIOLATION),
        ("03 01 01 0f 02 01 10 03 04 80004000", VIOLATION), // below the floor
        ("03 01 01 10 02 01 0f 03 04 80004000", VIOLATION),
        ("03 01 01 10 02 01 10 03 02 7fff", VIOLATION),
        ("02 01 01 10 02 01 10", VIOLATION), // one is missing
        ("00", VIOLATION),
        ("04 01 01 10 01 01 10 02 01 10 03 04 80004000", VIOLATION), // one came twice
        ("03 01 02 1000 02 01 10 03 04 80004000", VIOLATION),        // a value with more behind it
        ("03 01 00 02 01 10 03 04 80004000", VIOLATION),
        ("21 01 01 10 02 01 10 03 04 80004000", VIOLATION), // 33 of them
    ];
    for (params, code) in cases {
        let body = [varint(1), hex(params), vec![0; 32 + 64], varint(0)].concat();
        assert_eq!(control_code(raw_frame(ControlType::HELLO, &body)), code, "{params}");
    }
    let many = |count: usize| {
        let unknown = hex("3f 00").repeat(count - 3);
        let known = hex("01 01 10 02 01 10 03 04 80004000");
        let body = [varint(1), varint(count as u64), unknown, known, vec![0; 32 + 64], varint(0)].concat();
        control_code(raw_frame(ControlType::HELLO, &body))
    };
    assert_eq!((many(32), many(33)), (None, VIOLATION));
}

#[test]
fn round_trip_times_are_at_most_an_hour() {
    let outcome = read_control([hex("06 0e 01 01 00 ff*8 00 00 00").into()]);
    let [ControlFrame::PathStatus(status)] = &outcome.items[..] else { panic!("{outcome:?}") };
    assert_eq!(status.rtt.as_secs(), 3600);
}

// [P-12.2]
#[test]
fn close_reasons_are_cut_between_characters() {
    let code = ErrorCode::Application(0);
    let reason = |frame: Bytes| match &read_control([frame]).items[..] {
        [ControlFrame::Close(close)] => close.reason.clone(),
        items => panic!("{items:?}"),
    };
    let long = Close { code, reason: "é".repeat(200) };
    assert_eq!(reason(encoded(&long.into())), "é".repeat(128));
    let odd = Close { code, reason: format!("a{}", "é".repeat(200)) };
    assert_eq!(reason(encoded(&odd.into())), format!("a{}", "é".repeat(127)));
    assert_eq!(reason(hex("13 04 00 02 61ff").into()), "a\u{fffd}");
    let garbage = reason(raw_frame(0x13, &[varint(0), varint(256), vec![0xff; 256]].concat()).into());
    assert_eq!(garbage, "\u{fffd}".repeat(85));
}
