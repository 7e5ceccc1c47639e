//! What a dishonest peer in a test needs to speak the protocol: frames as plain data, their bytes, and what is signed.
//!
//! Behind the feature `__test_exports`; no part of the public interface, and it changes without notice.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::auth::{self, Identity, PublicIdentity, SignatureContext, UnixTime};
use crate::error::ErrorCode;
use crate::id::{Dir, Epoch, GrantId, PathId, RangeConflict, SessionId, StreamId, StreamOffset};
pub use crate::status::GrantStatus;
use crate::wire;

/// The label of the TLS exporter.
pub const EXPORTER_LABEL: &[u8] = auth::EXPORTER_LABEL;

/// A struct with the fields of the internal one of the same name, and conversions both ways.
macro_rules! mirror {
    ($($name:ident($inner:path) { $($field:ident: $type:ty),* })*) => {$(
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $(pub $field: $type),*
        }

        impl From<$inner> for $name {
            fn from(inner: $inner) -> Self {
                Self { $($field: inner.$field.into()),* }
            }
        }

        impl From<$name> for $inner {
            fn from(outer: $name) -> Self {
                Self { $($field: outer.$field.into()),* }
            }
        }
    )*};
}

mirror! {
    Params(wire::Params) { streams_bidi: u64, streams_uni: u64, stream_window_initial: u64 }
    SignedPayload(wire::SignedPayload) { sequence: u64, payload: Bytes, signature: [u8; 64] }
    Hello(wire::Hello) { version: u64, params: Params, client_key: [u8; 32], proof: [u8; 64], credential: Bytes }
    Join(wire::Join) { version: u64, params: Params, ticket: Bytes, proof: [u8; 64] }
    Welcome(wire::Welcome) {
        session: SessionId, path: PathId, params: Params, identity: [u8; 32], signature: [u8; 64]
    }
    AddPath(wire::AddPath) {
        path: PathId, epoch: Epoch, address: SocketAddr, server_name: String, identity: [u8; 32], ticket: Bytes
    }
    Lease(wire::Lease) { path: PathId, issued_at_ms: u64, signature: [u8; 64] }
    RemovePath(wire::RemovePath) { path: PathId, epoch: Epoch, code: ErrorCode }
    PathStatus(wire::PathStatus) {
        path: PathId, state: WirePathState, code: ErrorCode, rtt: Duration, rtt_min: Duration, rate: u64, bytes: u64
    }
    OpenStream(wire::OpenStream) { stream: StreamId, priority: i32, limit: StreamOffset }
    ResetStream(wire::ResetStream) { stream: StreamId, code: ErrorCode, final_size: StreamOffset }
    StopSending(wire::StopSending) { stream: StreamId, code: ErrorCode, conflict: Option<RangeConflict> }
    MaxStreamData(wire::MaxStreamData) { stream: StreamId, limit: StreamOffset }
    MaxStreams(wire::MaxStreams) { dir: Dir, max: u64 }
    PacketAck(wire::PacketAck) { ranges: SmallVec<[Range<u64>; 4]> }
    Grant(wire::Grant) {
        grant: GrantId, epoch: Epoch, path: PathId, stream: StreamId, start: StreamOffset, len: u64, signed: SignedPayload
    }
    Revoke(wire::Revoke) { grant: GrantId, epoch: Epoch }
    GrantStatusFrame(wire::GrantStatusFrame) { grant: GrantId, status: GrantStatus }
    GrantEnd(wire::GrantEnd) { grant: GrantId, end: StreamOffset, code: ErrorCode }
    Raw(wire::Raw) { to: PathId, signed: SignedPayload }
    RawStatus(wire::RawStatus) { from: PathId, to: PathId, sequence: u64, code: ErrorCode }
    Close(wire::Close) { code: ErrorCode, reason: String }
    GrantOpen(wire::GrantOpen) {
        grant: GrantId, epoch: Epoch, stream: StreamId, start: StreamOffset, len: u64, limit: StreamOffset, signed: SignedPayload
    }
    RawForward(wire::RawForward) { from: PathId, forwarded_ticket: Bytes, signed: SignedPayload }
    Ticket(auth::Ticket) {
        session: SessionId, path: PathId, epoch: Epoch, issuer: PublicIdentity, secondary: PublicIdentity,
        server_name: String, client_key: PublicIdentity, issued_at: UnixTime, expires_at: UnixTime, lease: Duration
    }
}

/// As the internal enum of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WirePathState {
    Active,
    Suspect,
    Dead,
}

impl From<wire::WirePathState> for WirePathState {
    fn from(state: wire::WirePathState) -> Self {
        match state {
            wire::WirePathState::Active => Self::Active,
            wire::WirePathState::Suspect => Self::Suspect,
            wire::WirePathState::Dead => Self::Dead,
        }
    }
}

impl From<WirePathState> for wire::WirePathState {
    fn from(state: WirePathState) -> Self {
        match state {
            WirePathState::Active => Self::Active,
            WirePathState::Suspect => Self::Suspect,
            WirePathState::Dead => Self::Dead,
        }
    }
}

macro_rules! frames {
    ($($variant:ident($body:ident);)*) => {
        /// A frame of the control plane.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Frame {
            $($variant($body)),*
        }

        impl From<wire::ControlFrame> for Frame {
            fn from(frame: wire::ControlFrame) -> Self {
                match frame {
                    $(wire::ControlFrame::$variant(body) => Self::$variant(body.into())),*
                }
            }
        }

        impl From<Frame> for wire::ControlFrame {
            fn from(frame: Frame) -> Self {
                match frame {
                    $(Frame::$variant(body) => Self::$variant(body.into())),*
                }
            }
        }

        $(impl From<$body> for Frame {
            fn from(body: $body) -> Self {
                Self::$variant(body)
            }
        })*
    };
}

frames! {
    Hello(Hello);
    Join(Join);
    Welcome(Welcome);
    AddPath(AddPath);
    RemovePath(RemovePath);
    PathStatus(PathStatus);
    OpenStream(OpenStream);
    ResetStream(ResetStream);
    StopSending(StopSending);
    MaxStreamData(MaxStreamData);
    MaxStreams(MaxStreams);
    PacketAck(PacketAck);
    Grant(Grant);
    Revoke(Revoke);
    GrantStatus(GrantStatusFrame);
    GrantEnd(GrantEnd);
    Raw(Raw);
    RawStatus(RawStatus);
    Close(Close);
    Lease(Lease);
}

impl Frame {
    /// Type, length and body. The fields must be inside the limits of the wire.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let mut out = BytesMut::new();
        wire::ControlFrame::from(self).encode(&mut out);
        out.freeze()
    }
}

impl GrantOpen {
    /// Type, length and body of the data frame.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let mut out = BytesMut::new();
        wire::GrantOpen::from(self).encode(&mut out);
        out.freeze()
    }
}

impl RawForward {
    /// Type, length and body of the data frame.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let mut out = BytesMut::new();
        wire::RawForward::from(self).encode(&mut out);
        out.freeze()
    }
}

/// What a carrier begins with.
#[must_use]
pub fn carrier_header() -> Bytes {
    let mut out = BytesMut::new();
    wire::encode_carrier_header(&mut out);
    out.freeze()
}

/// Reads a control plane.
#[derive(Debug, Default)]
pub struct ControlReader(wire::ControlReader);

impl ControlReader {
    pub fn push(&mut self, chunk: Bytes) {
        self.0.push(chunk);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn poll(&mut self) -> Result<Option<Frame>, String> {
        self.0.next().map(|frame| frame.map(Frame::from)).map_err(|error| error.to_string())
    }
}

/// Something on a carrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Stream { stream: StreamId, offset: StreamOffset, data: Bytes, fin: bool },
    Grant(GrantOpen),
    Raw(RawForward),
    PacketEnd(u64),
}

/// Reads a carrier.
#[derive(Debug, Default)]
pub struct CarrierReader(wire::CarrierReader);

impl CarrierReader {
    pub fn push(&mut self, chunk: Bytes) {
        self.0.push(chunk);
    }

    /// The next item.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn poll(&mut self) -> Result<Option<Item>, String> {
        loop {
            return match self.0.next().map_err(|error| error.to_string())? {
                Some(wire::CarrierItem::PacketStart { .. }) => continue,
                Some(wire::CarrierItem::PacketEnd { number, .. }) => Ok(Some(Item::PacketEnd(number.0))),
                Some(wire::CarrierItem::Stream { stream, offset, data, fin, .. }) => {
                    Ok(Some(Item::Stream { stream, offset, data, fin }))
                }
                Some(wire::CarrierItem::Grant(grant)) => Ok(Some(Item::Grant(grant.into()))),
                Some(wire::CarrierItem::Raw(raw)) => Ok(Some(Item::Raw(raw.into()))),
                None => Ok(None),
            };
        }
    }
}

impl Ticket {
    /// The ticket with the issuer's signature.
    #[must_use]
    pub fn sign(self, issuer: &Identity) -> Bytes {
        auth::Ticket::from(self).sign(issuer)
    }

    /// What a ticket claims; its signature is not looked at.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        auth::Ticket::decode(bytes).ok().map(|ticket| ticket.claims().clone().into())
    }
}

/// The proof of possession in HELLO.
#[must_use]
pub fn hello_proof(client_key: &Identity, exporter: &[u8; 32]) -> [u8; 64] {
    auth::hello_proof(client_key, exporter)
}

/// The proof of possession in JOIN.
#[must_use]
pub fn join_proof(client_key: &Identity, exporter: &[u8; 32], ticket: &[u8]) -> [u8; 64] {
    auth::join_proof(client_key, exporter, ticket)
}

/// The signature in WELCOME.
#[must_use]
pub fn welcome_proof(
    identity: &Identity,
    exporter: &[u8; 32],
    session: SessionId,
    path: PathId,
    client_key: &PublicIdentity,
) -> [u8; 64] {
    auth::welcome_proof(identity, exporter, session, path, client_key)
}

/// The signature of a primary on a grant to the path `to`.
#[must_use]
pub fn sign_grant(
    identity: &Identity,
    (session, to, sequence): (SessionId, PathId, u64),
    (grant, stream, range): (GrantId, StreamId, Range<u64>),
    request: Bytes,
) -> SignedPayload {
    let context = SignatureContext { session, from: PathId::PRIMARY, to, sequence };
    let signature = auth::sign_grant(identity, context, grant, stream, range, &request);
    SignedPayload { sequence, payload: request, signature }
}

/// The signature of a server on a raw packet.
#[must_use]
pub fn sign_raw(
    identity: &Identity,
    (session, from, to, sequence): (SessionId, PathId, PathId, u64),
    payload: Bytes,
) -> SignedPayload {
    let signature = auth::sign_raw(identity, SignatureContext { session, from, to, sequence }, &payload);
    SignedPayload { sequence, payload, signature }
}

#[path = "test_exports/inside.rs"]
pub mod inside;

#[path = "test_exports/measured.rs"]
pub mod measured;
