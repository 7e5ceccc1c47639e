//! Paths: which there are, how they fare, and which of their packets arrived.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::{
    error::ErrorCode,
    id::{Epoch, PathId},
    limits::{ACK_RANGES_MAX, SERVER_NAME_BYTES_MAX, TICKET_BYTES_MAX},
    wire::{
        WireError,
        coding::{Decoder, Field, fields_in_order, put_bytes, put_ranges, put_varint},
    },
};

/// Longer round trips are reported as this one.
const RTT_MAX: Duration = Duration::from_secs(3600);

/// Primary → client: dial this server and join it to the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddPath {
    pub(crate) path: PathId,
    pub(crate) epoch: Epoch,
    /// Where to dial. Flow label and scope of an IPv6 address are not carried.
    pub(crate) address: SocketAddr,
    /// The name to verify: visible ASCII, 1 to [`SERVER_NAME_BYTES_MAX`] bytes.
    pub(crate) server_name: String,
    pub(crate) identity: [u8; 32],
    /// What the client shows there, at most [`TICKET_BYTES_MAX`].
    pub(crate) ticket: Bytes,
}

impl Field for AddPath {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(Self {
            path: from.field()?,
            epoch: from.field()?,
            address: from.field()?,
            server_name: take_server_name(from)?,
            identity: from.field()?,
            ticket: from.bytes(TICKET_BYTES_MAX)?,
        })
    }

    fn put(&self, out: &mut BytesMut) {
        debug_assert!((1..=SERVER_NAME_BYTES_MAX).contains(&self.server_name.len()));
        debug_assert!(self.ticket.len() <= TICKET_BYTES_MAX);
        self.path.put(out);
        self.epoch.put(out);
        self.address.put(out);
        put_bytes(out, self.server_name.as_bytes());
        self.identity.put(out);
        put_bytes(out, &self.ticket);
    }
}

fn take_server_name(from: &mut Decoder<'_>) -> Result<String, WireError> {
    let name = from.bytes(SERVER_NAME_BYTES_MAX)?;
    if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
        return Err(from.violation("the server name is not visible ASCII"));
    }
    String::from_utf8(name.into()).map_err(|_| from.violation("the server name is not visible ASCII"))
}

/// Primary → client: the path is no longer part of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemovePath {
    pub(crate) path: PathId,
    pub(crate) epoch: Epoch,
    pub(crate) code: ErrorCode,
}

/// Primary → client → secondary: the path is still wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) path: PathId,
    /// By the primary's clock, in milliseconds since the Unix epoch.
    pub(crate) issued_at_ms: u64,
    /// The primary's signature.
    pub(crate) signature: [u8; 64],
}

/// Client → primary: how a path fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathStatus {
    pub(crate) path: PathId,
    pub(crate) state: WirePathState,
    /// Why the path is dead or suspect.
    pub(crate) code: ErrorCode,
    /// The smoothed round trip, in whole microseconds and at most an hour.
    pub(crate) rtt: Duration,
    /// The least round trip, likewise.
    pub(crate) rtt_min: Duration,
    /// The delivery rate, in bytes per second.
    pub(crate) rate: u64,
    /// Bytes delivered over the path so far.
    pub(crate) bytes: u64,
}

/// What a client says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WirePathState {
    Active = 1,
    Suspect = 2,
    Dead = 3,
}

/// Both ways: packets of this path and of the other direction that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PacketAck {
    /// Packet numbers: 1 to [`ACK_RANGES_MAX`] ranges that ascend and neither overlap nor touch.
    pub(crate) ranges: SmallVec<[Range<u64>; 4]>,
}

impl Field for PacketAck {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(Self { ranges: from.ranges(ACK_RANGES_MAX)? })
    }

    fn put(&self, out: &mut BytesMut) {
        debug_assert!((1..=ACK_RANGES_MAX).contains(&self.ranges.len()));
        put_ranges(out, &self.ranges);
    }
}

fields_in_order! {
    RemovePath { path, epoch, code }
    Lease { path, issued_at_ms, signature }
    PathStatus { path, state, code, rtt, rtt_min, rate, bytes }
}

impl Field for WirePathState {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        match from.varint()? {
            1 => Ok(Self::Active),
            2 => Ok(Self::Suspect),
            3 => Ok(Self::Dead),
            _ => Err(from.violation("no such path state")),
        }
    }

    fn put(&self, out: &mut BytesMut) {
        put_varint(out, *self as u64);
    }
}

impl Field for Duration {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(Self::from_micros(from.varint()?).min(RTT_MAX))
    }

    fn put(&self, out: &mut BytesMut) {
        let rtt = (*self).min(RTT_MAX);
        put_varint(out, rtt.as_secs() * 1_000_000 + u64::from(rtt.subsec_micros()));
    }
}

impl Field for SocketAddr {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let ip = match from.varint()? {
            4 => IpAddr::V4(Ipv4Addr::from(from.field::<[u8; 4]>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(from.field::<[u8; 16]>()?)),
            _ => return Err(from.violation("no such address family")),
        };
        Ok(Self::new(ip, u16::from_be_bytes(from.field()?)))
    }

    fn put(&self, out: &mut BytesMut) {
        match self.ip() {
            IpAddr::V4(ip) => {
                put_varint(out, 4);
                ip.octets().put(out);
            }
            IpAddr::V6(ip) => {
                put_varint(out, 6);
                ip.octets().put(out);
            }
        }
        self.port().to_be_bytes().put(out);
    }
}
