//! Bidirectional streams: a send half and a receive half.

mod recv;
mod send;

use std::{
    io,
    ops::{Deref, DerefMut, Range},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use kwik_core::{Chunk, DelegateError, ErrorCode, GrantInfo, PathId, StreamId, StreamOffset};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use self::{
    recv::RecvStream,
    send::{RangeWriter, SendStream, ServerSendStream},
};
use crate::{
    delegation::Delegation,
    distribution::Distribution,
    error::{ReadError, ReadExactError, ReadToEndError, WriteError},
    session::StreamRef,
};

/// A bidirectional stream.
///
/// Dropping it finishes what was written and stops what was not read. [`split`](Self::split) gives the halves to two
/// tasks. It implements [`AsyncRead`] and [`AsyncWrite`]; `shutdown` is [`finish`](Self::finish).
#[derive(Debug)]
pub struct Stream {
    send: SendStream,
    recv: RecvStream,
}

impl Stream {
    pub(crate) fn new(stream: StreamRef) -> Self {
        let (mut send, mut recv) = (SendStream::new(stream.clone()), RecvStream::new(stream));
        (send.releases_recv, recv.is_released_with_send) = (true, true);
        Self { send, recv }
    }

    /// The stream's id.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.send.id()
    }

    /// The two halves.
    #[must_use]
    pub fn split(self) -> (SendStream, RecvStream) {
        let Self { mut send, mut recv } = self;
        (send.releases_recv, recv.is_released_with_send) = (false, false);
        (send, recv)
    }

    /// See [`RecvStream::read`].
    ///
    /// # Errors
    /// As [`RecvStream::read`].
    pub async fn read(&mut self, buf: &mut [u8]) -> Result<usize, ReadError> {
        self.recv.read(buf).await
    }

    /// See [`RecvStream::read_exact`].
    ///
    /// # Errors
    /// As [`RecvStream::read_exact`].
    pub async fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), ReadExactError> {
        self.recv.read_exact(buf).await
    }

    /// See [`RecvStream::read_chunk`].
    ///
    /// # Errors
    /// As [`RecvStream::read_chunk`].
    pub async fn read_chunk(&mut self, max: usize, ordered: bool) -> Result<Option<Chunk>, ReadError> {
        self.recv.read_chunk(max, ordered).await
    }

    /// See [`RecvStream::read_chunks`].
    ///
    /// # Errors
    /// As [`RecvStream::read_chunks`].
    pub async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Option<usize>, ReadError> {
        self.recv.read_chunks(chunks).await
    }

    /// See [`RecvStream::read_to_end`].
    ///
    /// # Errors
    /// As [`RecvStream::read_to_end`].
    pub async fn read_to_end(&mut self, limit: usize) -> Result<Vec<u8>, ReadToEndError> {
        self.recv.read_to_end(limit).await
    }

    /// See [`RecvStream::stop`].
    ///
    /// # Errors
    /// As [`RecvStream::stop`].
    pub fn stop(&mut self, code: u32) -> Result<(), ReadError> {
        self.recv.stop(code)
    }

    /// See [`SendStream::write`].
    ///
    /// # Errors
    /// As [`SendStream::write`].
    pub async fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        self.send.write(data).await
    }

    /// See [`SendStream::write_all`].
    ///
    /// # Errors
    /// As [`SendStream::write`].
    pub async fn write_all(&mut self, data: &[u8]) -> Result<(), WriteError> {
        self.send.write_all(data).await
    }

    /// See [`SendStream::write_chunk`].
    ///
    /// # Errors
    /// As [`SendStream::write`].
    pub async fn write_chunk(&mut self, data: impl Into<Bytes>) -> Result<(), WriteError> {
        self.send.write_chunk(data).await
    }

    /// See [`SendStream::finish`].
    ///
    /// # Errors
    /// As [`SendStream::finish`].
    pub fn finish(&mut self) -> Result<(), WriteError> {
        self.send.finish()
    }

    /// See [`SendStream::reset`].
    ///
    /// # Errors
    /// As [`SendStream::reset`].
    pub fn reset(&mut self, code: u32) -> Result<(), WriteError> {
        self.send.reset(code)
    }

    /// See [`SendStream::set_priority`].
    ///
    /// # Errors
    /// As [`SendStream::set_priority`].
    pub fn set_priority(&mut self, priority: i32) -> Result<(), WriteError> {
        self.send.set_priority(priority)
    }

    /// See [`SendStream::finished`].
    ///
    /// # Errors
    /// As [`SendStream::finished`].
    pub async fn finished(&mut self) -> Result<(), WriteError> {
        self.send.finished().await
    }

    /// See [`SendStream::stopped`].
    ///
    /// # Errors
    /// As [`SendStream::stopped`].
    pub async fn stopped(&mut self) -> Result<Option<ErrorCode>, WriteError> {
        self.send.stopped().await
    }
}

/// A bidirectional stream at a server: a [`Stream`] whose ranges a primary may delegate.
///
/// At a secondary it is a delegated range: its read half yields the request, its write half fills the range that
/// [`grant`](Self::grant) tells.
#[derive(Debug)]
pub struct ServerStream {
    stream: Stream,
}

/// The names that tokio's extension traits use too. Were they only reached through `Deref`, an imported trait would take
/// their place.
impl ServerStream {
    /// See [`RecvStream::read`].
    ///
    /// # Errors
    /// As [`RecvStream::read`].
    pub async fn read(&mut self, buf: &mut [u8]) -> Result<usize, ReadError> {
        self.stream.read(buf).await
    }

    /// See [`RecvStream::read_exact`].
    ///
    /// # Errors
    /// As [`RecvStream::read_exact`].
    pub async fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), ReadExactError> {
        self.stream.read_exact(buf).await
    }

    /// See [`RecvStream::read_to_end`].
    ///
    /// # Errors
    /// As [`RecvStream::read_to_end`].
    pub async fn read_to_end(&mut self, limit: usize) -> Result<Vec<u8>, ReadToEndError> {
        self.stream.read_to_end(limit).await
    }

    /// See [`SendStream::write`].
    ///
    /// # Errors
    /// As [`SendStream::write`].
    pub async fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        self.stream.write(data).await
    }

    /// See [`SendStream::write_all`].
    ///
    /// # Errors
    /// As [`SendStream::write`].
    pub async fn write_all(&mut self, data: &[u8]) -> Result<(), WriteError> {
        self.stream.write_all(data).await
    }
}

impl ServerStream {
    pub(crate) fn new(stream: StreamRef) -> Self {
        Self { stream: Stream::new(stream) }
    }

    /// The two halves.
    #[must_use]
    pub fn split(self) -> (ServerSendStream, RecvStream) {
        let (send, recv) = self.stream.split();
        (ServerSendStream::new(send), recv)
    }

    /// See [`ServerSendStream::grant`].
    #[must_use]
    pub fn grant(&self) -> Option<GrantInfo> {
        self.stream.send.grant()
    }

    /// See [`ServerSendStream::range_writer`].
    #[must_use]
    pub fn range_writer(&self) -> RangeWriter {
        self.stream.send.range_writer()
    }

    /// See [`ServerSendStream::distribute`].
    #[must_use]
    pub fn distribute(&self, range: Range<u64>) -> Distribution {
        self.stream.send.distribute(range)
    }

    /// See [`RangeWriter::write_at`].
    ///
    /// # Errors
    /// As [`RangeWriter::write_at`].
    pub async fn write_at(&self, offset: StreamOffset, data: impl Into<Bytes>) -> Result<(), WriteError> {
        self.range_writer().write_at(offset, data).await
    }

    /// See [`ServerSendStream::delegate`].
    ///
    /// # Errors
    /// As [`ServerSendStream::delegate`].
    pub fn delegate(&mut self, path: PathId, len: u64, request: impl Into<Bytes>) -> Result<Delegation, DelegateError> {
        self.stream.send.delegate(path, len, request.into())
    }

    /// See [`RangeWriter::delegate_range`].
    ///
    /// # Errors
    /// As [`RangeWriter::delegate_range`].
    pub fn delegate_range(
        &self,
        path: PathId,
        range: Range<u64>,
        request: impl Into<Bytes>,
    ) -> Result<Delegation, DelegateError> {
        self.range_writer().delegate_range(path, range, request)
    }
}

impl Deref for ServerStream {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.stream
    }
}

impl DerefMut for ServerStream {
    fn deref_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

/// Implements [`AsyncRead`] by one field.
macro_rules! forward_async_read {
    ($stream:ty, $field:ident) => {
        impl AsyncRead for $stream {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$field).poll_read(cx, buf)
            }
        }
    };
}

/// Implements [`AsyncWrite`] by one field.
macro_rules! forward_async_write {
    ($stream:ty, $field:ident) => {
        impl AsyncWrite for $stream {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.$field).poll_write(cx, data)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$field).poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$field).poll_shutdown(cx)
            }
        }
    };
}

forward_async_read!(Stream, recv);
forward_async_read!(ServerStream, stream);
forward_async_write!(Stream, send);
forward_async_write!(ServerStream, stream);
forward_async_write!(ServerSendStream, stream);
