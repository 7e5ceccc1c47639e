//! Random frames, legal in themselves.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use proptest::{array::uniform, collection::vec, prelude::*};

use crate::{
    error::{ErrorCode, TransportCode},
    id::{Dir, Epoch, GrantId, PacketNumber, PathId, RangeConflict, SessionId, StreamId, StreamOffset},
    limits::{FLOOR_STREAM_BYTES, FLOOR_STREAMS, VARINT_MAX},
    status::GrantStatus,
    wire::{
        AddPath, CarrierItem, Close, ControlFrame, Grant, GrantEnd, GrantOpen, GrantStatusFrame, Hello, Join, Lease,
        MaxStreamData, MaxStreams, OpenStream, PacketAck, Params, PathStatus, Raw, RawForward, RawStatus, RemovePath,
        ResetStream, Revoke, SignedPayload, StopSending, Welcome, WirePathState, encode_carrier_header,
        encode_packet_header, encode_stream_header, packet_header_len,
    },
};

pub(super) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..64u64, 64..1u64 << 14, 1u64 << 14..1 << 30, 1u64 << 30..=VARINT_MAX, Just(VARINT_MAX)]
}

fn path() -> impl Strategy<Value = PathId> {
    prop_oneof![(0..4u32).boxed(), any::<u32>().boxed()].prop_map(PathId)
}

fn code() -> impl Strategy<Value = ErrorCode> {
    prop_oneof![
        any::<u32>().prop_map(ErrorCode::Application),
        prop::sample::select(TransportCode::ALL).prop_map(ErrorCode::Transport),
    ]
}

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=max).prop_map(Bytes::from)
}

fn params() -> impl Strategy<Value = Params> {
    let range = |floor: u64| prop_oneof![floor..floor + 100, Just(1 << 60)];
    (range(FLOOR_STREAMS), range(FLOOR_STREAMS), range(FLOOR_STREAM_BYTES)).prop_map(
        |(streams_bidi, streams_uni, stream_window_initial)| Params {
            streams_bidi,
            streams_uni,
            stream_window_initial,
        },
    )
}

fn signed() -> impl Strategy<Value = SignedPayload> {
    (number(), bytes(300), uniform(any::<u8>())).prop_map(|(sequence, payload, signature)| SignedPayload {
        sequence,
        payload,
        signature,
    })
}

/// Ranges that ascend and do not touch, built from gaps and lengths of at least 1.
fn ranges(max: usize) -> impl Strategy<Value = Vec<Range<u64>>> {
    (number(), vec((1..1u64 << 20, 1..1u64 << 20), 1..=max)).prop_map(|(first, steps)| {
        let mut end = first.min(1 << 60) - first.min(1);
        let range = |(gap, len)| {
            let start = end + gap;
            end = start + len;
            start..end
        };
        steps.into_iter().map(range).collect()
    })
}

fn granted_range() -> impl Strategy<Value = (StreamOffset, u64)> {
    number().prop_flat_map(|start| {
        let start = start.min(VARINT_MAX - 1);
        (Just(StreamOffset(start)), prop_oneof![Just(1), Just(VARINT_MAX - start), 1..=VARINT_MAX - start])
    })
}

pub(super) fn control_frame() -> impl Strategy<Value = ControlFrame> {
    prop_oneof![session_frame(), path_frame(), stream_frame(), grant_frame()]
}

fn session_frame() -> BoxedStrategy<ControlFrame> {
    prop_oneof![
        (number(), params(), uniform(any::<u8>()), uniform(any::<u8>()), bytes(200)).prop_map(
            |(version, params, client_key, proof, credential)| {
                Hello { version, params, client_key, proof, credential }.into()
            }
        ),
        (number(), params(), bytes(200), uniform(any::<u8>())).prop_map(|(version, params, ticket, proof)| Join {
            version,
            params,
            ticket,
            proof
        }
        .into()),
        (uniform(any::<u8>()), path(), params(), uniform(any::<u8>()), uniform(any::<u8>())).prop_map(
            |(session, path, params, identity, signature)| {
                Welcome { session: SessionId(session), path, params, identity, signature }.into()
            }
        ),
        (code(), "\\PC{0,64}").prop_map(|(code, reason)| Close { code, reason }.into()),
    ]
    .boxed()
}

fn path_frame() -> BoxedStrategy<ControlFrame> {
    let address = (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from);
    let state = prop::sample::select(vec![WirePathState::Active, WirePathState::Suspect, WirePathState::Dead]);
    let rtt = (0..=3_600_000_000u64).prop_map(Duration::from_micros);
    prop_oneof![
        (path(), number(), address, "[!-~]{1,255}", uniform(any::<u8>()), bytes(200)).prop_map(
            |(path, epoch, address, server_name, identity, ticket)| {
                AddPath { path, epoch: Epoch(epoch), address, server_name, identity, ticket }.into()
            }
        ),
        (path(), number(), code())
            .prop_map(|(path, epoch, code)| RemovePath { path, epoch: Epoch(epoch), code }.into()),
        (path(), number(), uniform(any::<u8>())).prop_map(|(path, issued_at_ms, signature)| Lease {
            path,
            issued_at_ms,
            signature
        }
        .into()),
        (path(), state, code(), rtt.clone(), rtt, number(), number()).prop_map(
            |(path, state, code, rtt, rtt_min, rate, bytes)| {
                PathStatus { path, state, code, rtt, rtt_min, rate, bytes }.into()
            }
        ),
        ranges(64).prop_map(|ranges| PacketAck { ranges: ranges.into() }.into()),
    ]
    .boxed()
}

fn stream_frame() -> BoxedStrategy<ControlFrame> {
    let stream = || number().prop_map(StreamId);
    let offset = || number().prop_map(StreamOffset);
    let dir = prop::sample::select(&Dir::ALL[..]);
    prop_oneof![
        (stream(), any::<i32>(), offset())
            .prop_map(|(stream, priority, limit)| OpenStream { stream, priority, limit }.into()),
        (stream(), code(), offset())
            .prop_map(|(stream, code, final_size)| ResetStream { stream, code, final_size }.into()),
        (stream(), code(), prop::option::of((offset(), path(), path()))).prop_map(|(stream, code, conflict)| {
            let conflict = conflict.map(|(offset, first, second)| RangeConflict { offset, paths: [first, second] });
            StopSending { stream, code, conflict }.into()
        }),
        (stream(), offset()).prop_map(|(stream, limit)| MaxStreamData { stream, limit }.into()),
        (dir, 0..=1u64 << 60).prop_map(|(dir, max)| MaxStreams { dir, max }.into()),
    ]
    .boxed()
}

fn grant_frame() -> BoxedStrategy<ControlFrame> {
    let grant = || number().prop_map(GrantId);
    let epoch = || number().prop_map(Epoch);
    let status = prop_oneof![
        number().prop_map(|delivered| GrantStatus::Progress { delivered }),
        Just(GrantStatus::Delivered),
        (code(), ranges(256)).prop_map(|(code, missing)| GrantStatus::Lost { code, missing }),
    ];
    prop_oneof![
        (grant(), epoch(), path(), number(), granted_range(), signed()).prop_map(
            |(grant, epoch, path, stream, (start, len), signed)| {
                Grant { grant, epoch, path, stream: StreamId(stream), start, len, signed }.into()
            }
        ),
        (grant(), epoch()).prop_map(|(grant, epoch)| Revoke { grant, epoch }.into()),
        (grant(), status).prop_map(|(grant, status)| GrantStatusFrame { grant, status }.into()),
        (grant(), number(), code())
            .prop_map(|(grant, end, code)| GrantEnd { grant, end: StreamOffset(end), code }.into()),
        (path(), signed()).prop_map(|(to, signed)| Raw { to, signed }.into()),
        (path(), path(), number(), code()).prop_map(|(from, to, sequence, code)| RawStatus {
            from,
            to,
            sequence,
            code
        }
        .into()),
    ]
    .boxed()
}

/// A type no version knows and a body for it.
pub(super) fn unknown_frame() -> impl Strategy<Value = (u64, Bytes)> {
    (0x40..VARINT_MAX, bytes(100))
}

#[derive(Debug, Clone)]
pub(super) enum DataFrame {
    Item(CarrierItem),
    Unknown(u64, Bytes),
}

fn data_frame() -> impl Strategy<Value = DataFrame> {
    let stream = (number(), number(), bytes(600), any::<bool>()).prop_map(|(stream, offset, data, fin)| {
        let offset = StreamOffset(offset.min(VARINT_MAX - data.len() as u64));
        let frame_end = StreamOffset(offset.0 + data.len() as u64);
        CarrierItem::Stream { stream: StreamId(stream), offset, data, frame_end, fin }
    });
    let grant = (number(), number(), number(), granted_range(), number(), signed()).prop_map(
        |(grant, epoch, stream, (start, len), limit, signed)| {
            let (grant, epoch, stream, limit) = (GrantId(grant), Epoch(epoch), StreamId(stream), StreamOffset(limit));
            CarrierItem::Grant(GrantOpen { grant, epoch, stream, start, len, limit, signed })
        },
    );
    let raw = (path(), bytes(200), signed())
        .prop_map(|(from, forwarded_ticket, signed)| CarrierItem::Raw(RawForward { from, forwarded_ticket, signed }));
    prop_oneof![
        4 => stream.prop_map(DataFrame::Item),
        1 => grant.prop_map(DataFrame::Item),
        1 => raw.prop_map(DataFrame::Item),
        1 => unknown_frame().prop_map(|(frame_type, body)| DataFrame::Unknown(frame_type, body)),
    ]
}

/// A carrier's bytes, and what a reader makes of them.
pub(super) fn carrier() -> impl Strategy<Value = (Bytes, Vec<CarrierItem>)> {
    vec((0..VARINT_MAX, vec(data_frame(), 1..6)), 0..5).prop_map(|packets| {
        let mut out = BytesMut::new();
        let mut items = Vec::new();
        encode_carrier_header(&mut out);
        for (number, frames) in packets {
            append_packet(PacketNumber(number), frames, &mut out, &mut items);
        }
        (out.freeze(), items)
    })
}

fn append_packet(number: PacketNumber, frames: Vec<DataFrame>, out: &mut BytesMut, items: &mut Vec<CarrierItem>) {
    let mut body = BytesMut::new();
    let mut known = Vec::new();
    for frame in frames {
        match frame {
            DataFrame::Unknown(frame_type, bytes) => body.extend_from_slice(&super::raw_frame(frame_type, &bytes)),
            DataFrame::Item(item) => {
                encode_item(&item, &mut body);
                known.push(item);
            }
        }
    }
    let start = out.len();
    encode_packet_header(number, body.len(), out);
    assert_eq!(out.len() - start, packet_header_len(number, body.len()));
    out.extend_from_slice(&body);
    let len = body.len() as u64;
    items.push(CarrierItem::PacketStart { number, len });
    items.append(&mut known);
    items.push(CarrierItem::PacketEnd { number, len });
}

pub(super) fn encode_item(item: &CarrierItem, out: &mut BytesMut) {
    match item {
        CarrierItem::Stream { stream, offset, data, fin, .. } => {
            encode_stream_header(*stream, *offset, data.len(), *fin, out);
            out.extend_from_slice(data);
        }
        CarrierItem::Grant(grant) => grant.encode(out),
        CarrierItem::Raw(raw) => raw.encode(out),
        item => panic!("{item:?} is no frame"),
    }
}
