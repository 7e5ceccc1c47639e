//! KWIK on tokio: sessions over UDP sockets.
//!
//! A client [`dial`]s one server and has the interface of a QUIC connection. The server it dialled, the session's
//! primary, may add others; each may write ranges of the client's streams, and the client reads one ordered stream.
//!
//! # A client
//!
//! ```no_run
//! use kwik_tokio::{ClientConfig, dial, rustls::RootCertStore};
//!
//! # async fn run(roots: RootCertStore) -> Result<(), Box<dyn std::error::Error>> {
//! let session = dial("example.com:4433", ClientConfig::with_roots(roots)?).await?;
//! let mut stream = session.open_stream_sync().await?;
//! stream.write_all(b"GET /movie").await?;
//! stream.finish()?;
//! let movie = stream.read_to_end(1 << 30).await?;
//! println!("{} bytes", movie.len());
//! session.close(0, "done").await?;
//! # Ok(())
//! # }
//! ```
//!
//! # A server
//!
//! The same program serves as a primary and as a secondary: a range that a primary delegates arrives as an accepted
//! stream, which yields the request and takes the bytes.
//!
//! ```no_run
//! use kwik_tokio::{Identity, ServerConfig, ServerSession, listen};
//! use kwik_tokio::rustls::pki_types::{CertificateDer, PrivateKeyDer};
//!
//! # async fn run(identity: Identity, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let listener = listen("[::]:4433", ServerConfig::new(identity, chain, key)?).await?;
//! while let Some(session) = listener.accept().await {
//!     tokio::spawn(serve(session));
//! }
//! # Ok(())
//! # }
//!
//! async fn serve(session: ServerSession) {
//!     while let Ok(mut stream) = session.accept_stream().await {
//!         tokio::spawn(async move {
//!             let request = stream.read_to_end(1024).await?;
//!             stream.write_all(&request).await?;
//!             stream.finish()?;
//!             Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
//!         });
//!     }
//! }
//! ```
//!
//! # A primary that shares its work
//!
//! ```no_run
//! use kwik_tokio::{PathTarget, ServerSession};
//!
//! # async fn run(session: ServerSession, target: PathTarget) -> Result<(), Box<dyn std::error::Error>> {
//! let path = session.add_path(target).await?;
//! let mut stream = session.accept_stream().await?;
//! stream.write_all(b"the head, ").await?;
//! let tail = stream.delegate(path, 1 << 20, "the tail, please")?;
//! stream.finish()?;
//! if let Err(lost) = tail.delivered().await {
//!     for range in lost.missing {
//!         // Its own bytes, or another server's.
//!         stream.delegate_range(path, range, "once more")?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Logs
//!
//! What happens is told to [`tracing`] with the target `kwik`: at `info` what became of sessions
//! and paths, at `warn` faults of peers and why a server refused somebody, at `debug` grants and streams, at `trace` every
//! frame, and at `error` defects of this implementation only. How much is told is decided when an endpoint starts: a
//! subscriber that comes later, or wants more later, hears no more than was asked for then. Without one nothing is made.
//!
//! One task for each worker of an endpoint moves datagrams between a socket and [`kwik_core`], which holds the protocol.

mod client;
mod config;
mod delegation;
mod distribution;
mod driver;
mod endpoint;
mod error;
mod listener;
mod log;
mod server;
mod session;
mod stream;
mod udp;
mod waiters;

use std::io;

pub use bytes;
pub use kwik_core::{
    AckFrequency, Adaptive, Assignment, Authorizer, Chunk, ClientConfig, ConfigError, Congestion, ConnectError,
    DeadReason, DelegateError, Dir, DistributionReport, EndpointStats, EqualSplit, ErrorCode, FixedChunks, GrantId,
    GrantInfo, HeldRange, Identity, IdentityError, Limits, OpenError, PathError, PathEvent, PathId, PathInfo,
    PathPolicy, PathState, PathStats, PathTarget, Pieces, Policy, PublicIdentity, RawPacket, ReadOrder, Role,
    SecondaryTrust, ServerConfig, SessionError, SessionId, SessionStats, Side, SourceReport, SourceView, StreamId,
    StreamOffset, TransportCode, View,
};
pub use rustls;

pub use self::{
    client::{ClientSession, Server, dial},
    config::{EndpointConfig, Local},
    delegation::Delegation,
    distribution::{Distribution, DistributionHandle},
    endpoint::{handle::Endpoint, workers::WorkerStats},
    error::{
        AddPathError, BindError, DialError, DistributeError, ListenError, Lost, ReadError, ReadExactError,
        ReadToEndError, RemovePathError, SendRawError, Undelivered, WriteError,
    },
    listener::{Listener, listen},
    server::{PathEvents, ServerSession},
    stream::{RangeWriter, RecvStream, SendStream, ServerSendStream, ServerStream, Stream},
};

/// Draws a new server identity from the operating system's randomness. Keep it: primaries name a server by it.
///
/// # Errors
/// When the system gives no randomness.
pub fn generate_identity() -> io::Result<Identity> {
    endpoint::os_seed().map(|seed| Identity::from_seed(*seed))
}

/// The programs of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

#[cfg(test)]
mod tests {
    use super::*;

    fn is_send<T: Send>(_: &T) {}

    fn is_send_and_sync<T: Send + Sync>() {}

    async fn spawnable(client: ClientSession, server: ServerSession, config: ClientConfig, target: PathTarget) {
        is_send(&dial("example.com:4433", config));
        is_send(&client.accept_stream());
        is_send(&client.close(0, ""));
        is_send(&server.add_path(target));
        is_send(&server.send_raw(PathId::PRIMARY, "data"));
        if let Ok(mut stream) = server.open_stream() {
            is_send(&stream.range_writer().write_at(StreamOffset::ZERO, "data"));
            is_send(&stream.write_at(StreamOffset::ZERO, "data"));
            is_send(&stream.read_to_end(1));
            is_send(&stream.finished());
        }
    }

    #[test]
    fn handles_can_be_shared_and_futures_spawned() {
        is_send_and_sync::<(ClientSession, ServerSession, Listener, PathEvents)>();
        is_send_and_sync::<(Stream, ServerStream, SendStream, ServerSendStream, RecvStream)>();
        is_send_and_sync::<(Delegation, RangeWriter)>();
        let _checked_by_the_compiler = spawnable;
    }
}
