//! The send half of a stream.

use std::{
    fmt,
    future::poll_fn,
    io,
    ops::{Deref, DerefMut, Range},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use kwik_core::{DelegateError, ErrorCode, GrantInfo, PathId, StreamId, StreamOffset, WriteError as CoreWriteError};
use tokio::{io::AsyncWrite, sync::Notify};

use crate::{
    delegation::Delegation,
    distribution::Distribution,
    error::WriteError,
    session::{SessionRef, StreamRef},
    waiters::{Wakes, contained},
};

/// The send half of a stream. It implements [`AsyncWrite`]; `shutdown` is [`finish`](Self::finish).
///
/// Dropping it finishes the stream: what was written still arrives while the session lives. A task that panics resets
/// the streams it holds instead, with code 0, so that a part is not taken for the whole.
pub struct SendStream {
    stream: StreamRef,
    is_reset: bool,
    /// Of a stream that was not split: the receive half goes with this one, under one lock.
    pub(super) releases_recv: bool,
}

impl SendStream {
    pub(crate) fn new(stream: StreamRef) -> Self {
        Self { stream, is_reset: false, releases_recv: false }
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
        let mut turn = Turn::new(&self.stream);
        poll_fn(|cx| turn.poll(cx, |stream| stream.write(data))).await
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
            let mut turn = Turn::new(&self.stream);
            let written = poll_fn(|cx| turn.poll(cx, |stream| stream.write_chunk(data.clone()))).await?;
            drop(turn);
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

    /// Gives the stream up: what did not leave yet will not arrive.
    ///
    /// # Errors
    /// [`WriteError::Finished`] when everything was sent, the end of the stream included, [`WriteError::Reset`] when the
    /// stream was reset before: that changes nothing then. [`WriteError::Session`] when the session ended.
    pub fn reset(&mut self, code: u32) -> Result<(), WriteError> {
        self.command(|stream| stream.reset(code).map_err(|_| why_ended(stream)))?;
        self.is_reset = true;
        Ok(())
    }

    /// Sets the stream's priority, 0 at first. Streams of a higher priority are sent first, equal ones share.
    ///
    /// # Errors
    /// [`WriteError`], when the stream ended before: it arrived whole, was reset or stopped, or the session ended.
    pub fn set_priority(&mut self, priority: i32) -> Result<(), WriteError> {
        self.command(|stream| stream.set_priority(priority).map_err(|_| why_ended(stream)))
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
            self.stream.poll_send(cx, |stream| match stream.view().stop_code() {
                None if stream.view().is_send_done() => Some(None),
                None => None,
                stopped => Some(stopped),
            })
        });
        end.await.map_err(WriteError::Session)
    }

    pub(crate) fn grant(&self) -> Option<GrantInfo> {
        self.stream.command(|stream, _| stream.view().grant()).flatten()
    }

    pub(crate) fn range_writer(&self) -> RangeWriter {
        RangeWriter { stream: self.stream.clone() }
    }

    pub(crate) fn distribute(&self, range: Range<u64>) -> Distribution {
        Distribution::new(self.stream.clone(), range)
    }

    pub(crate) fn delegate(&mut self, path: PathId, len: u64, request: Bytes) -> Result<Delegation, DelegateError> {
        issue(&self.stream, path, |stream| stream.delegate(path, len, request))
    }

    fn command<R>(
        &self,
        command: impl FnOnce(&mut kwik_core::StreamMut<'_>) -> Result<R, CoreWriteError>,
    ) -> Result<R, WriteError> {
        self.stream
            .command(|stream, _| command(stream))
            .unwrap_or(Err(CoreWriteError::SessionClosed))
            .map_err(|error| WriteError::from_core(&self.stream.session, error))
    }
}

/// A write that may have to wait. One that waits and is dropped leaves the room it waited for to others.
struct Turn<'a> {
    stream: &'a StreamRef,
    waits: bool,
}

impl<'a> Turn<'a> {
    fn new(stream: &'a StreamRef) -> Self {
        Self { stream, waits: false }
    }

    fn poll(
        &mut self,
        cx: &Context<'_>,
        write: impl FnOnce(&mut kwik_core::StreamMut<'_>) -> Result<usize, CoreWriteError>,
    ) -> Poll<Result<usize, WriteError>> {
        let written = poll_write(self.stream, cx, write);
        self.waits = written.is_pending();
        written
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.waits {
            return;
        }
        let mut wakes = Wakes::default();
        contained(|| {
            self.stream.command(|stream, waiters| {
                stream.cancel_write();
                // Others that wait to write the same stream wait for the same room: they ask anew.
                waiters.wake_writers(self.stream.handle, &mut wakes);
            });
        });
        wakes.fire();
    }
}

fn poll_write(
    stream: &StreamRef,
    cx: &Context<'_>,
    write: impl FnOnce(&mut kwik_core::StreamMut<'_>) -> Result<usize, CoreWriteError>,
) -> Poll<Result<usize, WriteError>> {
    let written = stream.poll_send(cx, |stream| match write(stream) {
        Err(CoreWriteError::Blocked) => None,
        written => Some(written),
    });
    let written = ready!(written).map_err(WriteError::Session)?;
    Poll::Ready(written.map_err(|error| WriteError::from_core(&stream.session, error)))
}

fn issue(
    stream: &StreamRef,
    path: PathId,
    command: impl FnOnce(&mut kwik_core::StreamMut<'_>) -> Result<GrantInfo, DelegateError>,
) -> Result<Delegation, DelegateError> {
    let issued = stream.command(|stream, waiters| {
        let grant = command(stream)?;
        let changed = waiters.delegations.entry(grant.grant).or_default().clone();
        Ok((grant, changed))
    });
    let (grant, changed) = issued.unwrap_or(Err(DelegateError::SessionClosed))?;
    Ok(Delegation::new(stream.clone(), grant, path, changed))
}

/// Writes and delegates ranges of a stream at its primary, beside whoever writes the stream: a range that was lost can be
/// filled while a write far ahead of the reader waits, even if the reader waits for that range.
///
/// Clones are handles of the same stream. They do not keep it open: once its [`ServerSendStream`] is dropped, they are of no
/// use.
#[derive(Clone)]
pub struct RangeWriter {
    stream: StreamRef,
}

impl RangeWriter {
    /// The stream's id.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.stream.id
    }

    /// Writes all of `data` at `offset` of the stream, into a hole that nobody writes or was delegated. Waits while the
    /// stream's buffer is full; what the reader waits for always finds room. Several may wait at once. Primary only.
    ///
    /// # Errors
    /// [`WriteError`], when the bytes are taken or the stream takes no more.
    ///
    /// # Cancel safety
    /// Not safe: a dropped call may have written any prefix.
    pub async fn write_at(&self, offset: StreamOffset, data: impl Into<Bytes>) -> Result<(), WriteError> {
        let (mut offset, mut data) = (offset.0, data.into());
        let room = RoomSignal::new(&self.stream);
        while !data.is_empty() {
            let mut turn = Turn::new(&self.stream);
            let attempt = |_: &SessionRef| {
                let written = self.stream.command(|stream, _| stream.write_at(StreamOffset(offset), data.clone()));
                turn.waits = matches!(written, Some(Err(CoreWriteError::Blocked)));
                written.filter(|_| !turn.waits)
            };
            let written = self.stream.session.wait(&room.signal, attempt).await.map_err(WriteError::Session)?;
            let written = written.map_err(|error| WriteError::from_core(&self.stream.session, error))?;
            drop(turn);
            offset = offset.saturating_add(written as u64);
            data.advance(written.min(data.len()));
        }
        Ok(())
    }

    /// Has the server at `path` write `range` of the stream, a hole or a lost range. The `request` is what its
    /// application reads. Primary only.
    ///
    /// # Errors
    /// [`DelegateError`], when nothing was delegated.
    pub fn delegate_range(
        &self,
        path: PathId,
        range: Range<u64>,
        request: impl Into<Bytes>,
    ) -> Result<Delegation, DelegateError> {
        let request = request.into();
        issue(&self.stream, path, |stream| stream.delegate_range(path, range, request))
    }

    /// Has the server at `path` write a range as well that was written here, or left to another path, and may be late or
    /// never come. Whoever brings a byte first is the one who is read. A copy that is lost leaves its range with whom it was
    /// left to. Primary only.
    ///
    /// # Errors
    /// [`DelegateError`], when nothing was delegated.
    pub fn delegate_copy(
        &self,
        path: PathId,
        range: Range<u64>,
        request: impl Into<Bytes>,
    ) -> Result<Delegation, DelegateError> {
        let request = request.into();
        issue(&self.stream, path, |stream| stream.delegate_copy(path, range, request))
    }

    /// How far the client lets the stream be written now, as an offset; what lies beyond waits. `None` once the stream takes no
    /// more.
    #[must_use]
    pub fn credit(&self) -> Option<u64> {
        self.stream.session.look(|session| session.stream(self.stream.handle).credit()).flatten()
    }
}

impl fmt::Debug for RangeWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeWriter").field("id", &self.stream.id).finish_non_exhaustive()
    }
}

/// What a range writer waits for: known to the session for as long as somebody waits.
struct RoomSignal<'a> {
    stream: &'a StreamRef,
    signal: Arc<Notify>,
}

impl<'a> RoomSignal<'a> {
    fn new(stream: &'a StreamRef) -> Self {
        let signal = stream.session.with(|waiters, _| waiters.range_writers.entry(stream.handle).or_default().clone());
        Self { stream, signal }
    }
}

impl Drop for RoomSignal<'_> {
    fn drop(&mut self) {
        contained(|| {
            self.stream.session.with(|waiters, _| {
                // This one's, and that of the session.
                if Arc::strong_count(&self.signal) <= 2 {
                    waiters.range_writers.remove(&self.stream.handle);
                }
            });
        });
    }
}

/// How a half ended that takes no command any more: a write of nothing says it.
fn why_ended(stream: &mut kwik_core::StreamMut<'_>) -> CoreWriteError {
    stream.write(&[]).err().unwrap_or(CoreWriteError::SessionClosed)
}

impl AsyncWrite for SendStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        poll_write(&self.stream, cx, |stream| stream.write(data)).map_err(io::Error::from)
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
            // The wakers are dropped after the lock.
            let _wakers = self.stream.command(|stream, waiters| {
                if std::thread::panicking() {
                    // A half that is gone needs no reset.
                    let _ = stream.reset(0);
                }
                stream.release_send();
                if self.releases_recv {
                    stream.release_recv();
                }
                let reader = self.releases_recv.then(|| waiters.readers.remove(&handle));
                (waiters.writers.remove(&handle), reader)
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

    /// Writes and delegates ranges of the stream beside this. Primary only.
    #[must_use]
    pub fn range_writer(&self) -> RangeWriter {
        self.stream.range_writer()
    }

    /// Has several servers write `range` of the stream, each what it can deliver, the primary among them if it is to. Nobody
    /// may write the range otherwise. The cursor of plain writes does not move: what follows the range is written with
    /// [`write_at`](Self::write_at). Primary only.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     stream: &kwik_tokio::ServerSendStream,
    /// #     paths: &[kwik_tokio::PathId],
    /// #     file: kwik_tokio::bytes::Bytes,
    /// # ) -> Result<(), kwik_tokio::DistributeError> {
    /// let mut distribution = stream.distribute(0..file.len() as u64);
    /// for path in paths {
    ///     // What the server of the path reads first.
    ///     distribution = distribution.source(*path, |range| format!("{}..{}", range.start, range.end).into());
    /// }
    /// let report = distribution
    ///     .source_local(move |range| {
    ///         let bytes = file.slice(range.start as usize..range.end as usize);
    ///         async move { Ok(bytes) }
    ///     })
    ///     .run()
    ///     .await?;
    /// for source in report.sources {
    ///     println!("{}: {} bytes", source.path, source.bytes);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn distribute(&self, range: Range<u64>) -> Distribution {
        self.stream.distribute(range)
    }

    /// See [`RangeWriter::write_at`].
    ///
    /// # Errors
    /// As [`RangeWriter::write_at`].
    pub async fn write_at(&self, offset: StreamOffset, data: impl Into<Bytes>) -> Result<(), WriteError> {
        self.range_writer().write_at(offset, data).await
    }

    /// Has the server at `path` write the next `len` bytes of the stream; plain writes go on after them. The
    /// `request` is what its application reads. Primary only.
    ///
    /// # Errors
    /// [`DelegateError`], when nothing was delegated.
    pub fn delegate(&mut self, path: PathId, len: u64, request: impl Into<Bytes>) -> Result<Delegation, DelegateError> {
        self.stream.delegate(path, len, request.into())
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
