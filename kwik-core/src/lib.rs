//! KWIK: one client session fed by several servers, as a state machine without sockets, clocks or threads.
//!
//! [`Endpoint`] is the machine. Its caller owns the environment: it brings datagrams and the time, and carries out what
//! comes back.
//!
//! ```no_run
//! use std::net::UdpSocket;
//! use std::time::Instant;
//! use kwik_core::{DatagramMeta, Endpoint};
//!
//! fn drive(endpoint: &mut Endpoint, socket: &UdpSocket) -> std::io::Result<()> {
//!     let mut out = Vec::new();
//!     let mut datagram = [0; 65_535];
//!     loop {
//!         // Drain, in this order, after everything that took `&mut endpoint`:
//!         // 1. what is to be sent,
//!         while let Some(transmit) = endpoint.poll_transmit(Instant::now(), 1, &mut out) {
//!             socket.send_to(&out[..transmit.size], transmit.destination)?;
//!             out.clear();
//!         }
//!         // 2. what happened,
//!         while let Some((session, event)) = endpoint.poll_event() {
//!             println!("{session:?}: {event:?}");
//!         }
//!         // 3. and when to come back at the latest.
//!         let wait = endpoint.poll_timeout().map(|at| at.saturating_duration_since(Instant::now()));
//!         if wait.is_some_and(|wait| wait.is_zero()) {
//!             endpoint.handle_timeout(Instant::now());
//!             continue;
//!         }
//!         socket.set_read_timeout(wait)?;
//!         match socket.recv_from(&mut datagram) {
//!             Ok((len, remote)) => {
//!                 let meta = DatagramMeta { remote, local_ip: None, ecn: None };
//!                 endpoint.handle_datagram(Instant::now(), meta, &datagram[..len]);
//!             }
//!             Err(_timeout) => endpoint.handle_timeout(Instant::now()),
//!         }
//!     }
//! }
//! ```
//!
//! The rules of the loop, each with a test:
//!
//! 1. After every call that takes `&mut`, drain transmits, then events, then ask for the timeout. To look at a session,
//!    and a read that is blocked, need no drain.
//! 2. While anything is queued, [`Endpoint::poll_timeout`] is not later than the last `now`.
//! 3. After `handle_timeout(t)` and a full drain, the next timeout is later than `t`.
//! 4. [`Endpoint::poll_timeout`] changes nothing.
//! 5. The same seed and the same calls give the same answers, as far as TLS is seeded too.
//! 6. Polling an idle endpoint costs the same however many sessions, paths and streams it has.
//! 7. What arrived can be read, and events tell of it, before anything is transmitted.
//! 8. Nothing a peer sends makes it panic. A panic is a bug.
//!
//! A loop that runs for long tells the endpoint at times what the wall clock shows:
//! [`Endpoint::handle_wall_clock`].

mod address;
mod allowance;
mod auth;
mod config;
mod congestion;
mod endpoint;
mod error;
mod grant;
mod id;
pub mod limits;
mod path;
mod protocol_event;
mod range_set;
mod sched;
mod session;
mod status;
mod stream;
#[cfg(test)]
mod test_support;
mod wire;

#[cfg(feature = "__test_exports")]
#[doc(hidden)]
#[path = "test_exports.rs"]
pub mod __test_exports;

pub use auth::{Identity, IdentityError, PublicIdentity, UnixTime};
pub use config::{
    AckFrequency, Authorizer, ClientConfig, ConfigError, Congestion, EndpointConfig, InterfaceMtu, MtuTowards,
    PathPolicy, SecondaryTrust, ServerConfig, TransportConfig,
};
pub use endpoint::{ConnectError, DatagramMeta, Endpoint, EndpointStats, Routing};
pub use error::{DeadReason, ErrorCode, SessionError, TransportCode};
pub use id::{
    Dir, Epoch, GrantId, PathId, RangeConflict, SessionHandle, SessionId, Side, StreamHandle, StreamId, StreamOffset,
};
pub use limits::{LimitError, Limits};
pub use protocol_event::{BlockedBy, EventDetail, ProtocolEvent, ProtocolEventKind};
pub use quinn_proto::{EcnCodepoint, Transmit};
pub use sched::{
    Adaptive, Assignment, DistributeError, DistributionReport, Distributor, EqualSplit, FixedChunks, HeldRange, Pieces,
    Policy, ReadOrder, SourceReport, SourceView, View,
};
pub use session::{
    AddPathError, DelegateError, GrantInfo, PathError, PathEvent, PathInfo, PathStats, PathTarget, RawError, RawPacket,
    Role, Session, SessionEvent, SessionMut, SessionStats, Stream, StreamMut,
};
pub use status::{GrantStatus, PathState};
pub use stream::{Chunk, ClosedStream, FinishError, OpenError, ReadError, StreamEvent, WriteError};

/// The protocol in TLS's ALPN (PROTOCOL.md §2).
pub const ALPN: &[u8] = b"kwik/1";

/// The version in HELLO and JOIN.
pub(crate) const VERSION: u64 = 1;
