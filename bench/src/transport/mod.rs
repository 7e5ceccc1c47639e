//! One interface for the sessions and streams of all libraries.

mod kwik;
mod quic;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kwik_tokio::bytes::Bytes;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Protocol, Socket, Type};

use crate::task::{Library, Task};

/// The name in the certificate.
const SERVER_NAME: &str = "localhost";

/// What all libraries are set to when they are compared as equals.
struct Settings;

impl Settings {
    const BIDI_STREAMS: u32 = 128;
    const STREAM_WINDOW: u32 = 1 << 20;
    const CONNECTION_WINDOW: u32 = 2 << 20;
    const SEND_WINDOW: u64 = 2 << 20;
    const MTU_INITIAL: u16 = 1200;
    const MTU_MAX: u16 = 1452;
    const KEEP_ALIVE: Duration = Duration::from_secs(2);
    const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
    const SOCKET_BUFFER_BYTES: usize = 4 << 20;
}

/// Accepts sessions of one library.
pub(crate) enum Listener {
    Kwik(kwik_tokio::Listener),
    Quinn(quinn::Endpoint),
    Noq(noq::Endpoint),
}

/// Dials sessions of one library.
pub(crate) enum Dialer {
    Kwik(Box<kwik::Dialer>),
    Quinn(quic::quinn::Dialer),
    Noq(quic::noq::Dialer),
}

#[derive(Clone)]
pub(crate) enum Session {
    KwikClient(kwik_tokio::ClientSession),
    KwikServer(kwik_tokio::ServerSession),
    Quinn(quinn::Connection),
    Noq(noq::Connection),
}

pub(crate) enum Stream {
    KwikClient(kwik_tokio::Stream),
    KwikServer(kwik_tokio::ServerStream),
    Quinn(quinn::SendStream, quinn::RecvStream),
    Noq(noq::SendStream, noq::RecvStream),
}

/// A certificate made on the spot, and its key.
pub(crate) struct Credentials {
    pub(crate) certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    pub(crate) fn make() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()])?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let key = key.map_err(|error| anyhow!("the key that was made cannot be used: {error}"))?;
        Ok(Self { certificate: made.cert.der().clone(), key })
    }
}

impl Listener {
    pub(crate) fn bind(task: &Task, credentials: Credentials) -> Result<(Self, SocketAddr)> {
        Ok(match task.library {
            Library::Kwik => {
                let listener = kwik::listen(task, credentials)?;
                let address = listener.local_addr();
                (Self::Kwik(listener), address)
            }
            Library::Quinn => {
                let endpoint = quic::quinn::listen(task, credentials)?;
                let address = endpoint.local_addr()?;
                (Self::Quinn(endpoint), address)
            }
            Library::Noq => {
                let endpoint = quic::noq::listen(task, credentials)?;
                let address = endpoint.local_addr()?;
                (Self::Noq(endpoint), address)
            }
        })
    }

    /// The next session; `None` when there will be none any more.
    pub(crate) async fn accept(&self) -> Option<Result<Session>> {
        Some(match self {
            Self::Kwik(listener) => Ok(Session::KwikServer(listener.accept().await?)),
            Self::Quinn(endpoint) => endpoint.accept().await?.await.map(Session::Quinn).map_err(Into::into),
            Self::Noq(endpoint) => endpoint.accept().await?.await.map(Session::Noq).map_err(Into::into),
        })
    }
}

impl Dialer {
    pub(crate) fn new(task: &Task, server: SocketAddr, certificate: &[u8]) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(certificate.to_vec())).context("the certificate of the server")?;
        Ok(match task.library {
            Library::Kwik => Self::Kwik(Box::new(kwik::Dialer::new(task, server, roots)?)),
            Library::Quinn => Self::Quinn(quic::quinn::Dialer::new(task, server, roots)?),
            Library::Noq => Self::Noq(quic::noq::Dialer::new(task, server, roots)?),
        })
    }

    pub(crate) async fn dial(&self) -> Result<Session> {
        Ok(match self {
            Self::Kwik(dialer) => Session::KwikClient(dialer.dial().await?),
            Self::Quinn(dialer) => Session::Quinn(dialer.dial().await?),
            Self::Noq(dialer) => Session::Noq(dialer.dial().await?),
        })
    }
}

impl Session {
    pub(crate) async fn open(&self) -> Result<Stream> {
        Ok(match self {
            Self::KwikClient(session) => Stream::KwikClient(session.open_stream_sync().await?),
            Self::KwikServer(session) => Stream::KwikServer(session.open_stream_sync().await?),
            Self::Quinn(connection) => {
                let (send, recv) = connection.open_bi().await?;
                Stream::Quinn(send, recv)
            }
            Self::Noq(connection) => {
                let (send, recv) = connection.open_bi().await?;
                Stream::Noq(send, recv)
            }
        })
    }

    pub(crate) async fn accept(&self) -> Result<Stream> {
        Ok(match self {
            Self::KwikClient(session) => Stream::KwikClient(session.accept_stream().await?),
            Self::KwikServer(session) => Stream::KwikServer(session.accept_stream().await?),
            Self::Quinn(connection) => {
                let (send, recv) = connection.accept_bi().await?;
                Stream::Quinn(send, recv)
            }
            Self::Noq(connection) => {
                let (send, recv) = connection.accept_bi().await?;
                Stream::Noq(send, recv)
            }
        })
    }

    /// Ends the session as the library has it: KWIK waits until what was finished is delivered, the others send their
    /// goodbye and go on.
    pub(crate) async fn close(&self) -> Result<()> {
        match self {
            Self::KwikClient(session) => session.close(0, "done").await?,
            Self::KwikServer(session) => session.close(0, "done").await?,
            Self::Quinn(connection) => connection.close(0_u32.into(), b"done"),
            Self::Noq(connection) => connection.close(0_u32.into(), b"done"),
        }
        Ok(())
    }

    /// UDP datagrams sent and received so far.
    pub(crate) fn datagrams(&self) -> Option<u64> {
        match self {
            Self::KwikClient(_) | Self::KwikServer(_) => None,
            Self::Quinn(connection) => {
                let stats = connection.stats();
                Some(stats.udp_tx.datagrams + stats.udp_rx.datagrams)
            }
            Self::Noq(connection) => {
                let stats = connection.stats();
                Some(stats.udp_tx.datagrams + stats.udp_rx.datagrams)
            }
        }
    }
}

impl Stream {
    pub(crate) async fn write_all(&mut self, data: &[u8]) -> Result<()> {
        match self {
            Self::KwikClient(stream) => stream.write_all(data).await?,
            Self::KwikServer(stream) => stream.write_all(data).await?,
            Self::Quinn(send, _) => send.write_all(data).await?,
            Self::Noq(send, _) => send.write_all(data).await?,
        }
        Ok(())
    }

    pub(crate) async fn write_chunk(&mut self, data: Bytes) -> Result<()> {
        match self {
            Self::KwikClient(stream) => stream.write_chunk(data).await?,
            Self::KwikServer(stream) => stream.write_chunk(data).await?,
            Self::Quinn(send, _) => send.write_chunk(data).await?,
            Self::Noq(send, _) => send.write_chunk(data).await?,
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self) -> Result<()> {
        match self {
            Self::KwikClient(stream) => stream.finish()?,
            Self::KwikServer(stream) => stream.finish()?,
            Self::Quinn(send, _) => send.finish()?,
            Self::Noq(send, _) => send.finish()?,
        }
        Ok(())
    }

    pub(crate) async fn read_exact(&mut self, buf: &mut [u8]) -> Result<()> {
        match self {
            Self::KwikClient(stream) => stream.read_exact(buf).await?,
            Self::KwikServer(stream) => stream.read_exact(buf).await?,
            Self::Quinn(_, recv) => recv.read_exact(buf).await?,
            Self::Noq(_, recv) => recv.read_exact(buf).await?,
        }
        Ok(())
    }

    pub(crate) async fn read_to_end(&mut self, limit: usize) -> Result<Vec<u8>> {
        Ok(match self {
            Self::KwikClient(stream) => stream.read_to_end(limit).await?,
            Self::KwikServer(stream) => stream.read_to_end(limit).await?,
            Self::Quinn(_, recv) => recv.read_to_end(limit).await?,
            Self::Noq(_, recv) => recv.read_to_end(limit).await?,
        })
    }

    /// Reads to the end, several pieces at a time, and tells how many bytes came.
    pub(crate) async fn drain(&mut self) -> Result<u64> {
        let (mut total, mut pieces) = (0, [const { Bytes::new() }; PIECES]);
        while let Some(count) = self.read_chunks(&mut pieces).await? {
            let pieces = pieces.get_mut(..count).unwrap_or_default();
            total += pieces.iter_mut().map(|piece| std::mem::take(piece).len() as u64).sum::<u64>();
        }
        Ok(total)
    }

    async fn read_chunks(&mut self, pieces: &mut [Bytes]) -> Result<Option<usize>> {
        Ok(match self {
            Self::KwikClient(stream) => stream.read_chunks(pieces).await?,
            Self::KwikServer(stream) => stream.read_chunks(pieces).await?,
            Self::Quinn(_, recv) => recv.read_chunks(pieces).await?,
            Self::Noq(_, recv) => recv.read_many_chunks(pieces).await?,
        })
    }

    /// Writes so many bytes in pieces. They are zeros, whose making costs nothing.
    pub(crate) async fn fill(&mut self, bytes: u64, piece: &Bytes) -> Result<()> {
        let mut left = bytes;
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            self.write_chunk(piece.slice(..len)).await?;
            left -= len as u64;
        }
        Ok(())
    }
}

/// What is written and read at once.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;

/// Pieces that are read at a time.
const PIECES: usize = 32;

/// A socket as KWIK makes its own, or as the system makes it.
fn bind(address: SocketAddr, is_equal: bool) -> Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if is_equal {
        socket.set_recv_buffer_size(Settings::SOCKET_BUFFER_BYTES)?;
        socket.set_send_buffer_size(Settings::SOCKET_BUFFER_BYTES)?;
    }
    socket.bind(&address.into()).context("a UDP socket on the loopback interface")?;
    Ok(socket.into())
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
