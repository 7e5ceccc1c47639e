//! The send half of a stream.

use std::{
    fmt,
    future::poll_fn,
    io,
    ops::{Deref, DerefMut, Range},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use kwik_core::{DelegateError, ErrorCode, GrantInfo, PathId, StreamId, StreamOffset, WriteError as CoreWriteError};
use tokio::io::AsyncWrite;

use crate::{delegation::Delegation, error::WriteError, session::StreamRef, waiters::contained};

/// The send half of a stream. It implements [`AsyncWrite`]; `shutdown` is [`finish`](Self::finish).
///
/// Dropping it finishes the stream: what was written still arrives while the session lives. A task that panics resets
/// the streams it holds instead, with code 0, so that a part is not taken for the whole.
pub struct SendStream {
    stream: StreamRef,
    is_reset: bool,
}

impl SendStream {
    pub(crate) fn new(stream: StreamRef) -> Self {
        Self { stream, is_reset: false }
    }

    /// The stream's id.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.stream.id
    }

    /// Writes a prefix of `data`, at least one byte of it, and returns how many. Waits while the stream's buffer is
    /// full.
    ///
    /// # Errors
    /// [`WriteError`], when the stream takes no more bytes.
    ///
    /// # Cancel safety
    /// Safe: a dropped write wrote nothing.
    pub async fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        poll_fn(|cx| self.poll_write(cx, |stream| stream.write(data))).await
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    ///
    /// # Cancel safety
    /// Not safe: a dropped call may have written any prefix.
    pub async fn write_all(&mut self, mut data: &[u8]) -> Result<(), WriteError> {
        while !data.is_empty() {
            let written = self.write(data).await?;
            data = data.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes all of `data` without copying it.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    ///
    /// # Cancel safety
    /// Not safe: a dropped call may have written any prefix.
    pub async fn write_chunk(&mut self, data: impl Into<Bytes>) -> Result<(), WriteError> {
        let mut data = data.into();
        while !data.is_empty() {
            let written = poll_fn(|cx| self.poll_write(cx, |stream| stream.write_chunk(data.clone()))).await?;
            data.advance(written.min(data.len()));
        }
        Ok(())
    }

    /// Ends the stream after all that was written or delegated. A delegated range that is lost later is a hole below the
    /// end: the reader waits until it is written or delegated again, or the stream is reset. At a secondary it ends this
    /// server's part; the stream's end is the primary's to set.
    ///
    /// # Errors
    /// [`WriteError`], when the stream was reset or stopped before, or the session ended.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        self.command(|stream| Ok(stream.finish()?))
    }

    /// Gives the stream up: what did not arrive yet will not.
    ///
    /// # Errors
    /// [`WriteError`], when the session ended.
    pub fn reset(&mut self, code: u32) -> Result<(), WriteError> {
        self.is_reset |= self.command(|stream| {
            let was_done = stream.is_send_done();
            stream.reset(code)?;
            Ok(!was_done)
        })?;
        Ok(())
    }

    /// Sets the stream's priority, 0 at first. Streams of a higher priority are sent first, equal ones share.
    ///
    /// # Errors
    /// [`WriteError`], when the session ended.
    pub fn set_priority(&mut self, priority: i32) -> Result<(), WriteError> {
        self.command(|stream| Ok(stream.set_priority(priority)?))
    }

    /// Waits until the finished stream arrived whole at the peer.
    ///
    /// # Errors
    /// [`WriteError`], when it will not: it was stopped or reset, or the session ended.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn finished(&mut self) -> Result<(), WriteError> {
        match self.stopped().await? {
            None => Ok(()),
            Some(code) => Err(WriteError::Stopped(code)),
        }
    }

    /// Waits until the peer stops the stream and returns its code, or `None` once the finished stream arrived whole.
    ///
    /// # Errors
    /// [`WriteError`], when the stream was reset or the session ended.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn stopped(&mut self) -> Result<Option<ErrorCode>, WriteError> {
        if self.is_reset {
            return Err(WriteError::Reset);
        }
        let end = poll_fn(|cx| {
            self.stream.poll_send(cx, |stream| match stream.stop_code() {
                None if stream.is_send_done() => Some(None),
                None => None,
                stopped => Some(stopped),
            })
        });
        end.await.map_err(WriteError::Session)
    }

    pub(crate) fn grant(&self) -> Option<GrantInfo> {
        self.stream.command(|stream, _| stream.grant()).flatten()
    }

    pub(crate) async fn write_at(&mut self, offset: StreamOffset, mut data: Bytes) -> Result<(), WriteError> {
        let mut offset = offset.0;
        while !data.is_empty() {
            let attempt = |cx: &mut Context<'_>| {
                self.poll_write(cx, |stream| stream.write_at(StreamOffset(offset), data.clone()))
            };
            let written = poll_fn(attempt).await?;
            offset = offset.saturating_add(written as u64);
            data.advance(written.min(data.len()));
        }
        Ok(())
    }

    pub(crate) fn delegate(&mut self, path: PathId, len: u64, request: Bytes) -> Result<Delegation, DelegateError> {
        self.issue(path, |stream| stream.delegate(path, len, request))
    }

    pub(crate) fn delegate_range(
        &mut self,
        path: PathId,
        range: Range<u64>,
        request: Bytes,
    ) -> Result<Delegation, DelegateError> {
        self.issue(path, |stream| stream.delegate_range(path, range, request))
    }

    fn issue(
        &self,
        path: PathId,
        command: impl FnOnce(&mut kwik_core::Stream<'_>) -> Result<GrantInfo, DelegateError>,
    ) -> Result<Delegation, DelegateError> {
        let issued = self.stream.command(|stream, waiters| {
            let grant = command(stream)?;
            let changed = waiters.delegations.entry(grant.grant).or_default().clone();
            Ok((grant, changed))
        });
        let (grant, changed) = issued.unwrap_or(Err(DelegateError::SessionClosed))?;
        Ok(Delegation::new(self.stream.clone(), grant, path, changed))
    }

    fn command<R>(
        &self,
        command: impl FnOnce(&mut kwik_core::Stream<'_>) -> Result<R, CoreWriteError>,
    ) -> Result<R, WriteError> {
        self.stream
            .command(|stream, _| command(stream))
            .unwrap_or(Err(CoreWriteError::SessionClosed))
            .map_err(|error| WriteError::from_core(&self.stream.session, error))
    }

    fn poll_write(
        &self,
        cx: &Context<'_>,
        write: impl FnOnce(&mut kwik_core::Stream<'_>) -> Result<usize, CoreWriteError>,
    ) -> Poll<Result<usize, WriteError>> {
        let written = self.stream.poll_send(cx, |stream| match write(stream) {
            Err(CoreWriteError::Blocked) => None,
            written => Some(written),
        });
        let written = ready!(written).map_err(WriteError::Session)?;
        Poll::Ready(written.map_err(|error| WriteError::from_core(&self.stream.session, error)))
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write(cx, |stream| stream.write(data)).map_err(io::Error::from)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.finish() {
            Ok(()) | Err(WriteError::Finished) => Ok(()),
            Err(error) => Err(error.into()),
        })
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        let handle = self.stream.handle;
        contained(|| {
            // The waker is dropped after the lock.
            let _waker = self.stream.command(|stream, waiters| {
                if std::thread::panicking() {
                    // A half that is gone needs no reset.
                    let _ = stream.reset(0);
                }
                stream.release_send();
                waiters.writers.remove(&handle)
            });
        });
    }
}

impl fmt::Debug for SendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendStream").field("id", &self.stream.id).finish_non_exhaustive()
    }
}

/// The send half of a stream at a server: a [`SendStream`] whose ranges a primary may delegate.
#[derive(Debug)]
pub struct ServerSendStream {
    pub(super) stream: SendStream,
}

impl ServerSendStream {
    pub(crate) fn new(stream: SendStream) -> Self {
        Self { stream }
    }

    /// See [`SendStream::write`].
    ///
    /// # Errors
    /// As [`SendStream::write`].
    // As `write_all`: reached through `Deref` only, a trait of tokio's that is imported would take its place.
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

    /// At a secondary: the grant this stream stands for, and its range of the client's stream. `None` at a primary.
    #[must_use]
    pub fn grant(&self) -> Option<GrantInfo> {
        self.stream.grant()
    }

    /// Writes all of `data` at `offset` of the stream, into a hole that nobody writes or was delegated. Waits while
    /// the stream's buffer is full. Primary only.
    ///
    /// # Errors
    /// [`WriteError`], when the bytes are taken or the stream takes no more.
    ///
    /// # Cancel safety
    /// Not safe: a dropped call may have written any prefix.
    pub async fn write_at(&mut self, offset: StreamOffset, data: impl Into<Bytes>) -> Result<(), WriteError> {
        self.stream.write_at(offset, data.into()).await
    }

    /// Has the server at `path` write the next `len` bytes of the stream; plain writes go on after them. The
    /// `request` is what its application reads. Primary only.
    ///
    /// # Errors
    /// [`DelegateError`], when nothing was delegated.
    pub fn delegate(&mut self, path: PathId, len: u64, request: impl Into<Bytes>) -> Result<Delegation, DelegateError> {
        self.stream.delegate(path, len, request.into())
    }

    /// Has the server at `path` write `range` of the stream, a hole or a lost range. The `request` is what its
    /// application reads. Primary only.
    ///
    /// # Errors
    /// [`DelegateError`], when nothing was delegated.
    pub fn delegate_range(
        &mut self,
        path: PathId,
        range: Range<u64>,
        request: impl Into<Bytes>,
    ) -> Result<Delegation, DelegateError> {
        self.stream.delegate_range(path, range, request.into())
    }
}

impl Deref for ServerSendStream {
    type Target = SendStream;

    fn deref(&self) -> &SendStream {
        &self.stream
    }
}

impl DerefMut for ServerSendStream {
    fn deref_mut(&mut self) -> &mut SendStream {
        &mut self.stream
    }
}
