//! The bytes of every frame, written out.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use smallvec::smallvec;

use super::{arbitrary::encode_item, carrier, encoded, hex, raw_frame, read_carrier, read_control};
use crate::{
    error::{ErrorCode, TransportCode},
    id::{Dir, Epoch, GrantId, PacketNumber, PathId, RangeConflict, SessionId, StreamId, StreamOffset},
    status::GrantStatus,
    wire::{
        AddPath, CarrierItem, Close, ControlFrame, ControlType, DataType, Grant, GrantEnd, GrantOpen, GrantStatusFrame,
        Hello, Join, Lease, MaxStreamData, MaxStreams, OpenStream, PacketAck, Params, PathStatus, Raw, RawForward,
        RawStatus, RemovePath, ResetStream, Revoke, SignedPayload, StopSending, Welcome, WirePathState,
        coding::varint_len, encode_carrier_header, encode_packet_header,
    },
};

const PARAMS: Params = Params { streams_bidi: 128, streams_uni: 16, stream_window_initial: 1 << 20 };

fn signed(sequence: u64, payload: &'static [u8]) -> SignedPayload {
    SignedPayload { sequence, payload: Bytes::from_static(payload), signature: [0x88; 64] }
}

fn session_frames() -> Vec<(ControlFrame, &'static str)> {
    let credential = Bytes::from_static(b"hi");
    let ticket = Bytes::from_static(&[0xaa, 0xbb, 0xcc]);
    vec![
        (
            Hello { version: 1, params: PARAMS, client_key: [0x11; 32], proof: [0x99; 64], credential }.into(),
            "01 4072  01  03 01 02 4080 02 01 10 03 04 80100000  11*32  99*64  02 6869",
        ),
        (
            Join { version: 1, params: PARAMS, ticket, proof: [0x22; 64] }.into(),
            "02 4053  01  03 01 02 4080 02 01 10 03 04 80100000  03 aabbcc  22*64",
        ),
        (
            Welcome {
                session: SessionId([0x33; 16]),
                path: PathId(0),
                params: PARAMS,
                identity: [0x44; 32],
                signature: [0x55; 64],
            }
            .into(),
            "03 407f  33*16  00  03 01 02 4080 02 01 10 03 04 80100000  44*32  55*64",
        ),
        (
            Close { code: ErrorCode::Application(0), reason: "bye".to_owned() }.into(),
            "13 0c  c000000100000000  03 627965",
        ),
    ]
}

fn path_frames() -> Vec<(ControlFrame, &'static str)> {
    let add_path = |path, address: &str| AddPath {
        path: PathId(path),
        epoch: Epoch(2),
        address: address.parse().expect("a socket address"),
        server_name: "a.test".to_owned(),
        identity: [0x66; 32],
        ticket: Bytes::from_static(&[0x77]),
    };
    vec![
        (add_path(1, "192.0.2.1:4433").into(), "04 32  01  02  04 c0000201 1151  06 612e74657374  66*32  01 77"),
        (
            add_path(u32::MAX, "[2001:db8::1]:443").into(),
            "04 4045  c0000000ffffffff  02  06 20010db8 00*11 01 01bb  06 612e74657374  66*32  01 77",
        ),
        (
            RemovePath { path: PathId(1), epoch: Epoch(3), code: TransportCode::PATH_REMOVED.into() }.into(),
            "05 06  01  03  80004b08",
        ),
        (
            PathStatus {
                path: PathId(1),
                state: WirePathState::Suspect,
                code: TransportCode::TIMED_OUT.into(),
                rtt: Duration::from_millis(25),
                rtt_min: Duration::from_millis(16),
                rate: 1_000_000,
                bytes: 100,
            }
            .into(),
            "06 12  01  02  80004b1b  800061a8  7e80  800f4240  4064",
        ),
        (
            Lease { path: PathId(2), issued_at_ms: 1_800_000_000_000, signature: [0x88; 64] }.into(),
            "14 4049  02  c00001a3185c5000  88*64",
        ),
        (PacketAck { ranges: smallvec![0..1, 5..10, 11..12] }.into(), "0c 07  03  00 00  04 04  01 00"),
    ]
}

fn stream_frames() -> Vec<(ControlFrame, &'static str)> {
    let stream = StreamId(4);
    let code = ErrorCode::Application(7);
    let conflict = RangeConflict { offset: StreamOffset(256), paths: [PathId(1), PathId(80)] };
    vec![
        (OpenStream { stream, priority: -1, limit: StreamOffset(16384) }.into(), "07 06  04  01  80004000"),
        (ResetStream { stream, code, final_size: StreamOffset(1000) }.into(), "08 0b  04  c000000100000007  43e8"),
        (StopSending { stream, code, conflict: None }.into(), "09 0a  04  c000000100000007  00"),
        (
            StopSending { stream, code: TransportCode::RANGE_CONFLICT.into(), conflict: Some(conflict) }.into(),
            "09 0b  04  80004b0c  01 4100 01 4050",
        ),
        (MaxStreamData { stream, limit: StreamOffset(1 << 20) }.into(), "0a 05  04  80100000"),
        (MaxStreams { dir: Dir::Bi, max: 16 }.into(), "0b 02  00  10"),
        (MaxStreams { dir: Dir::Uni, max: 20 }.into(), "0b 02  01  14"),
    ]
}

fn grant_frames() -> Vec<(ControlFrame, &'static str)> {
    let grant = GrantId(9);
    let lost = GrantStatus::Lost { code: TransportCode::SOURCE_LOST.into(), missing: vec![100..110, 200..201] };
    vec![
        (
            Grant {
                grant,
                epoch: Epoch(4),
                path: PathId(2),
                stream: StreamId(0),
                start: StreamOffset(100),
                len: 50,
                signed: signed(1, b"go"),
            }
            .into(),
            "0d 404b  09  04  02  00  4064  32  01 02 676f 88*64",
        ),
        (Revoke { grant, epoch: Epoch(5) }.into(), "0e 02  09  05"),
        (GrantStatusFrame { grant, status: GrantStatus::Progress { delivered: 10 } }.into(), "0f 03  09  01 0a"),
        (GrantStatusFrame { grant, status: GrantStatus::Delivered }.into(), "0f 02  09  02"),
        (GrantStatusFrame { grant, status: lost }.into(), "0f 0d  09  03 80004b16 02 4064 09 405a 00"),
        (
            GrantEnd { grant, end: StreamOffset(120), code: TransportCode::NO_ERROR.into() }.into(),
            "10 07  09  4078  80004b00",
        ),
        (Raw { to: PathId(2), signed: signed(0, b"") }.into(), "11 4043  02  00 00 88*64"),
        (
            RawStatus { from: PathId(1), to: PathId(2), sequence: 3, code: TransportCode::RAW_LIMIT.into() }.into(),
            "12 07  01  02  03  80004b12",
        ),
    ]
}

fn control_frames() -> Vec<(ControlFrame, &'static str)> {
    [session_frames(), path_frames(), stream_frames(), grant_frames()].concat()
}

fn data_frames() -> Vec<(CarrierItem, &'static str)> {
    let stream = |offset, data: &'static [u8], fin| CarrierItem::Stream {
        stream: StreamId(4),
        offset: StreamOffset(offset),
        data: Bytes::from_static(data),
        frame_end: StreamOffset(offset + data.len() as u64),
        fin,
    };
    let grant = GrantOpen {
        grant: GrantId(9),
        epoch: Epoch(4),
        stream: StreamId(0),
        start: StreamOffset(100),
        len: 50,
        limit: StreamOffset(16384),
        signed: signed(1, b"go"),
    };
    let raw = RawForward { from: PathId(1), forwarded_ticket: Bytes::from_static(&[0x99; 2]), signed: signed(2, b"x") };
    vec![
        (stream(16, b"abc", false), "01 05  04  10  616263"),
        (stream(16, b"", false), "01 02  04  10"),
        (stream(19, b"d", true), "02 03  04  13  64"),
        (stream(20, b"", true), "02 02  04  14"),
        (CarrierItem::Grant(grant), "03 404e  09  04  00  4064  32  80004000  01 02 676f 88*64"),
        (CarrierItem::Raw(raw), "04 4047  01  02 9999  02 01 78 88*64"),
    ]
}

#[test]
fn control_frames_have_these_bytes() {
    for (frame, golden) in control_frames() {
        let golden = hex(golden);
        assert_eq!(encoded(&frame).to_vec(), golden, "{frame:?}");
        let outcome = read_control([golden.into()]);
        assert_eq!((outcome.items, outcome.error), (vec![frame], None));
    }
}

#[test]
fn every_control_type_has_golden_bytes() {
    let golden = control_frames();
    for frame_type in ControlType::ALL {
        assert!(golden.iter().any(|(frame, _)| frame.frame_type() == *frame_type), "{}", frame_type.name());
        assert_eq!(ControlType::from_wire(frame_type.to_wire()), Some(*frame_type));
    }
    assert_eq!(ControlType::ALL.len(), 20);
    assert_eq!(ControlType::from_wire(ControlType::HELLO), Some(ControlType::Hello));
    assert_eq!(control_frames()[0].0.name(), "HELLO");
}

#[test]
fn data_frames_have_these_bytes() {
    for (item, golden) in data_frames() {
        let golden = hex(golden);
        let mut out = BytesMut::new();
        encode_item(&item, &mut out);
        assert_eq!(out.to_vec(), golden, "{item:?}");
        let outcome = read_carrier([carrier(&golden).into()]);
        assert_eq!((&outcome.items[1], outcome.error), (&item, None));
    }
    for frame_type in DataType::ALL {
        let wire = frame_type.to_wire();
        assert!(data_frames().iter().any(|(_, golden)| u64::from(hex(golden)[0]) == wire), "{}", frame_type.name());
        assert_eq!(DataType::from_wire(wire), Some(*frame_type));
    }
}

#[test]
fn carrier_and_packet_headers_have_these_bytes() {
    let mut out = BytesMut::new();
    encode_carrier_header(&mut out);
    encode_packet_header(PacketNumber(70), 4, &mut out);
    assert_eq!(out.to_vec(), hex("80004b57  4046 04"));
    let outcome = read_carrier([[out.as_ref(), &hex("01 02 04 10")].concat().into()]);
    let packet_start = CarrierItem::PacketStart { number: PacketNumber(70), len: 4 };
    let packet_end = CarrierItem::PacketEnd { number: PacketNumber(70), len: 4 };
    assert_eq!(outcome.items, [packet_start, data_frames()[1].0.clone(), packet_end]);
    assert_eq!(outcome.error, None);
}

// [P-5.3]
#[test]
fn numbers_longer_than_needed_are_accepted() {
    let minimal = read_control([hex("0b 02 01 14").into()]);
    let longer = read_control([hex("400b 80000004 4001 4014").into()]);
    assert_eq!(minimal, longer);
    assert_eq!(longer.error, None);
    let longer = read_carrier([hex("c000000000004b57 4000 400a  8000000240044001 4010").into()]);
    assert_eq!((longer.items.len(), longer.error), (3, None));
}

#[test]
fn varints_have_the_lengths_of_quic() {
    for (value, len) in [(0, 1), (63, 1), (64, 2), (16383, 2), (16384, 4), ((1 << 30) - 1, 4), (1 << 30, 8)] {
        assert_eq!((varint_len(value), super::varint(value).len()), (len, len), "{value}");
    }
    assert_eq!(super::varint(151_288_809_941_952_652), hex("c2197c5eff14e88c"));
    assert_eq!(super::varint((1 << 62) - 1), hex("ff*8"));
}

// [P-5.2]
#[test]
fn body_must_be_used_up_exactly() {
    for (frame, golden) in control_frames() {
        let golden = hex(golden);
        let header_len = varint_len(golden.len() as u64 - 2) + 1;
        let body = &golden[header_len..];
        for len in 0..=body.len() + 1 {
            let body = [body, &[0][..]].concat();
            let outcome = read_control([raw_frame(frame.frame_type().to_wire(), &body[..len]).into()]);
            let code = outcome.error.map(|error| error.code);
            let expected = (len + 1 != body.len()).then_some(TransportCode::PROTOCOL_VIOLATION);
            assert_eq!(code, expected, "{} with a body of {len} bytes", frame.name());
        }
    }
}
