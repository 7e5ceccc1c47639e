//! Inputs to begin with where no change of a few bytes gets anywhere: one of each frame, and a ticket.

use std::time::Duration;

use bytes::Bytes;
use kwik_core::__test_exports::{
    AddPath, Close, Frame, Grant, GrantEnd, GrantOpen, GrantStatus, GrantStatusFrame, Hello, Join, Lease,
    MaxStreamData, MaxStreams, OpenStream, PacketAck, Params, PathStatus, Raw, RawForward, RawStatus, RemovePath,
    ResetStream, Revoke, SignedPayload, StopSending, Ticket, Welcome, WirePathState, carrier_header,
};
use kwik_core::{Dir, Epoch, GrantId, Identity, PathId, SessionId, StreamId, StreamOffset, TransportCode, UnixTime};

/// Inputs of a target that every search begins with.
#[must_use]
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        // The first byte says where the bytes are cut.
        "control" => control().into_iter().map(|frame| [&[1], &frame.encode()[..]].concat()).collect(),
        "data" => vec![[&[9], &carrier_header()[..], &packet()].concat()],
        "ticket" => vec![ticket().to_vec()],
        _ => Vec::new(),
    }
}

fn signed() -> SignedPayload {
    SignedPayload { sequence: 1, payload: Bytes::from_static(b"signed"), signature: [5; 64] }
}

fn ticket() -> Bytes {
    let issuer = Identity::from_seed([1; 32]);
    let at = UnixTime::new(Duration::from_secs(1_800_000_000));
    let ticket = Ticket {
        session: SessionId([1; 16]),
        path: PathId(1),
        epoch: Epoch(1),
        issuer: issuer.public(),
        secondary: Identity::from_seed([2; 32]).public(),
        server_name: "server.test".to_owned(),
        client_key: Identity::from_seed([3; 32]).public(),
        issued_at: at,
        expires_at: at.saturating_add(Duration::from_secs(60)),
        lease: Duration::from_secs(60),
    };
    ticket.sign(&issuer)
}

fn control() -> Vec<Frame> {
    let params = || Params { streams_bidi: 16, streams_uni: 16, stream_window_initial: 16_384 };
    let (path, epoch, stream, grant) = (PathId(1), Epoch(1), StreamId(4), GrantId(1));
    let (code, session, signature) = (TransportCode::NO_ERROR.into(), SessionId([1; 16]), [5; 64]);
    let server_name = "server.test".to_owned();
    let address = std::net::SocketAddr::from(([192, 0, 2, 1], 4433));
    let state = WirePathState::Active;
    let status = GrantStatus::Lost { code, missing: std::iter::once(1..2).collect() };
    vec![
        Hello { version: 1, params: params(), client_key: [1; 32], proof: signature, credential: Bytes::new() }.into(),
        Join { version: 1, params: params(), ticket: ticket(), proof: signature }.into(),
        Welcome { session, path, params: params(), identity: [1; 32], signature }.into(),
        AddPath { path, epoch, address, server_name, identity: [1; 32], ticket: ticket() }.into(),
        RemovePath { path, epoch, code }.into(),
        PathStatus { path, state, code, rtt: Duration::from_millis(1), rtt_min: Duration::ZERO, rate: 1, bytes: 1 }
            .into(),
        OpenStream { stream, priority: -1, limit: StreamOffset(1) }.into(),
        ResetStream { stream, code, final_size: StreamOffset(1) }.into(),
        StopSending { stream, code, conflict: None }.into(),
        MaxStreamData { stream, limit: StreamOffset(1) }.into(),
        MaxStreams { dir: Dir::Uni, max: 20 }.into(),
        PacketAck { ranges: [0..2, 4..5].into_iter().collect() }.into(),
        Grant { grant, epoch, path, stream, start: StreamOffset(1), len: 2, signed: signed() }.into(),
        Revoke { grant, epoch }.into(),
        GrantStatusFrame { grant, status }.into(),
        GrantEnd { grant, end: StreamOffset(2), code }.into(),
        Raw { to: path, signed: signed() }.into(),
        RawStatus { from: path, to: PathId(2), sequence: 1, code }.into(),
        Close { code, reason: "over".to_owned() }.into(),
        Lease { path, issued_at_ms: 1, signature }.into(),
    ]
}

/// A packet with a frame of each kind.
fn packet() -> Vec<u8> {
    let (start, limit) = (StreamOffset(1), StreamOffset(9));
    let grant =
        GrantOpen { grant: GrantId(1), epoch: Epoch(1), stream: StreamId(4), start, len: 2, limit, signed: signed() };
    let raw = RawForward { from: PathId(1), forwarded_ticket: Bytes::new(), signed: signed() };
    // Type 1, length 5, stream 4, offset 1, three bytes.
    let frames = [&[1, 5, 4, 1, 7, 8, 9][..], &grant.encode()[..], &raw.encode()[..]].concat();
    let len = u16::try_from(frames.len()).expect("it is short") | 1 << 14;
    [&[0][..], &len.to_be_bytes()[..], &frames[..]].concat()
}
