//! Every control frame at every role: legal, or a fault with the right blast radius.

use std::time::Duration;

use bytes::Bytes;

use super::{CLIENT, PRIMARY, PathInput, SECONDARY, Trio};
use crate::error::{ErrorCode, TransportCode};
use crate::id::{Dir, Epoch, GrantId, PathId, SessionId, StreamId, StreamOffset};
use crate::status::GrantStatus;
use crate::wire::{
    AddPath, CarrierItem, Close, ControlFrame, ControlType, Grant, GrantEnd, GrantOpen, GrantStatusFrame, Hello, Join,
    Lease, MaxStreamData, MaxStreams, OpenStream, PacketAck, Params, PathStatus, Raw, RawForward, RawStatus,
    RemovePath, ResetStream, Revoke, SignedPayload, StopSending, Welcome, WirePathState,
};

/// A frame of each type, about things that do not exist unless they must.
fn frame(frame_type: ControlType) -> ControlFrame {
    let params = Params { streams_bidi: 16, streams_uni: 16, stream_window_initial: 16 * 1024 };
    let signed = SignedPayload { sequence: 0, payload: Bytes::new(), signature: [0; 64] };
    let code = ErrorCode::Application(1);
    let (path, grant, epoch) = (PathId(1), GrantId(0), Epoch(0));
    // The first stream of the side that is not the receiver is set by `aim`.
    let stream = StreamId(0);
    match frame_type {
        ControlType::Hello => {
            Hello { version: 1, params, client_key: [0; 32], proof: [0; 64], credential: Bytes::new() }.into()
        }
        ControlType::Join => Join { version: 1, params, ticket: Bytes::new(), proof: [0; 64] }.into(),
        ControlType::Welcome => {
            Welcome { session: SessionId([0; 16]), path, params, identity: [0; 32], signature: [0; 64] }.into()
        }
        ControlType::AddPath => ControlFrame::from(AddPath {
            path: PathId(10),
            epoch: Epoch(1 << 20),
            address: "224.0.0.1:4433".parse().unwrap(),
            server_name: "kwik.test".to_owned(),
            identity: *crate::auth::Identity::from_seed([9; 32]).public().as_bytes(),
            ticket: Bytes::new(),
        }),
        ControlType::RemovePath => RemovePath { path: PathId(2), epoch: Epoch(1 << 20), code }.into(),
        ControlType::PathStatus => {
            let (rtt, state) = (Duration::ZERO, WirePathState::Active);
            PathStatus { path, state, code, rtt, rtt_min: rtt, rate: 0, bytes: 0 }.into()
        }
        ControlType::OpenStream => OpenStream { stream, priority: 0, limit: StreamOffset(0) }.into(),
        ControlType::ResetStream => ResetStream { stream, code, final_size: StreamOffset(0) }.into(),
        ControlType::StopSending => StopSending { stream, code, conflict: None }.into(),
        ControlType::MaxStreamData => MaxStreamData { stream, limit: StreamOffset(0) }.into(),
        ControlType::MaxStreams => MaxStreams { dir: Dir::Bi, max: 0 }.into(),
        ControlType::PacketAck => PacketAck { ranges: smallvec::smallvec![0..1] }.into(),
        ControlType::Grant => {
            Grant { grant: GrantId(40), epoch, path, stream, start: StreamOffset(0), len: 1, signed }.into()
        }
        ControlType::Revoke => Revoke { grant, epoch }.into(),
        ControlType::GrantStatus => GrantStatusFrame { grant, status: GrantStatus::Progress { delivered: 0 } }.into(),
        ControlType::GrantEnd => GrantEnd { grant, end: StreamOffset(0), code }.into(),
        ControlType::Raw => Raw { to: PathId(50), signed }.into(),
        ControlType::RawStatus => RawStatus { from: PathId(0), to: path, sequence: 0, code }.into(),
        ControlType::Close => Close { code, reason: String::new() }.into(),
        // So old that nobody looks at who signed it.
        ControlType::Lease => Lease { path, issued_at_ms: 0, signature: [0; 64] }.into(),
    }
}

/// Whether a frame is legal on a path of the client to its primary, of the client to a secondary, at the primary, and at
/// the secondary.
fn legal(frame_type: ControlType) -> [bool; 4] {
    match frame_type {
        // Answered inside the path, before the session sees it.
        ControlType::PacketAck => [false, false, false, false],
        ControlType::Hello | ControlType::Join | ControlType::Welcome => [false, false, false, false],
        ControlType::AddPath | ControlType::RemovePath | ControlType::Grant => [true, false, false, false],
        ControlType::Revoke | ControlType::Lease => [true, false, false, true],
        ControlType::OpenStream | ControlType::ResetStream | ControlType::MaxStreams => [true, false, true, false],
        ControlType::StopSending | ControlType::MaxStreamData => [true, false, true, true],
        ControlType::PathStatus | ControlType::GrantStatus => [false, false, true, false],
        ControlType::GrantEnd => [false, true, false, false],
        ControlType::Raw => [true, true, false, false],
        // The client relays a receipt only if it carried the packet; here it did not.
        ControlType::RawStatus => [false, false, true, true],
        ControlType::Close => [true, true, true, true],
    }
}

/// Points a frame about a stream at one that exists and that its sender may speak of.
fn aim(frame: ControlFrame, node: usize) -> ControlFrame {
    // Streams 0 and 1 exist, opened by the client and by the primary.
    let theirs = if node == CLIENT { StreamId(1) } else { StreamId(0) };
    match frame {
        ControlFrame::OpenStream(open) => OpenStream { stream: theirs, ..open }.into(),
        ControlFrame::ResetStream(reset) => ResetStream { stream: theirs, ..reset }.into(),
        ControlFrame::StopSending(stop) => StopSending { stream: theirs, ..stop }.into(),
        ControlFrame::MaxStreamData(max) => MaxStreamData { stream: theirs, ..max }.into(),
        ControlFrame::Grant(grant) => Grant { stream: theirs, ..grant }.into(),
        frame => frame,
    }
}

// [P-3.1] [P-5.5] [P-11.2]
#[test]
fn every_frame_is_legal_exactly_where_the_table_says() {
    for frame_type in ControlType::ALL {
        let places =
            [(CLIENT, PathId::PRIMARY), (CLIENT, PathId(1)), (PRIMARY, PathId::PRIMARY), (SECONDARY, PathId(1))];
        for ((node, path), legal) in places.into_iter().zip(legal(*frame_type)) {
            let mut trio = Trio::new();
            trio.delegated();
            let primary = trio.sessions[PRIMARY];
            trio.nodes[PRIMARY].1.session_mut(primary).unwrap().open_stream(Dir::Bi).unwrap();
            trio.settle();
            trio.forge_control(node, path, aim(frame(*frame_type), node));
            let place = format!("{frame_type:?} at node {node} over {path}");
            if node == CLIENT && !path.is_primary() {
                assert_eq!(trio.client_path_state(path).is_dead(), !legal, "{place}");
                assert!(trio.is_open(CLIENT), "{place}: a secondary's fault ended the session");
            } else {
                assert_eq!(trio.is_open(node), legal, "{place}");
            }
        }
    }
}

// [P-6.10]
#[test]
fn every_data_frame_is_legal_exactly_where_the_table_says() {
    let signed = || SignedPayload { sequence: 0, payload: Bytes::new(), signature: [0; 64] };
    let stream = |fin| {
        let (offset, frame_end) = (StreamOffset(0), StreamOffset(1));
        CarrierItem::Stream { stream: StreamId(0), offset, data: Bytes::from_static(b"x"), frame_end, fin }
    };
    let grant = || {
        let (grant, epoch, start) = (GrantId(40), Epoch(0), StreamOffset(0));
        let limit = StreamOffset(0);
        CarrierItem::Grant(GrantOpen { grant, epoch, stream: StreamId(0), start, len: 1, limit, signed: signed() })
    };
    let raw = || CarrierItem::Raw(RawForward { from: PathId(77), forwarded_ticket: Bytes::new(), signed: signed() });
    let (violation, unsigned) = (TransportCode::PROTOCOL_VIOLATION, TransportCode::AUTH_FAILED);
    // At the client from the primary and from a secondary, at the primary, and at the secondary.
    let table: [(&str, CarrierItem, [Option<TransportCode>; 4]); 4] = [
        ("STREAM", stream(false), [None, None, None, Some(violation)]),
        ("STREAM_FIN", stream(true), [None, Some(TransportCode::FINAL_SIZE), None, Some(violation)]),
        ("GRANT", grant(), [Some(violation), Some(violation), Some(violation), Some(unsigned)]),
        ("RAW", raw(), [Some(violation), Some(violation), None, None]),
    ];
    let places = [(CLIENT, PathId::PRIMARY), (CLIENT, PathId(1)), (PRIMARY, PathId::PRIMARY), (SECONDARY, PathId(1))];
    for (name, item, faults) in table {
        for ((node, path), fault) in places.into_iter().zip(faults) {
            let mut trio = Trio::new();
            trio.delegated();
            trio.forge(node, path, PathInput::Data(item.clone()));
            let place = format!("{name} at node {node} over {path}");
            match fault {
                Some(code) if node == CLIENT && !path.is_primary() => trio.assert_path_died(path, code),
                Some(code) => trio.assert_session_failed(node, code),
                None => assert!(trio.is_open(node) && trio.client_path_state(PathId(1)).is_usable(), "{place}"),
            }
        }
    }
}
