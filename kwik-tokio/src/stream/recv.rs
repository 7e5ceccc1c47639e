//! The receive half of a stream.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use kwik_core::{Chunk, ReadError as CoreReadError, StreamId};
use tokio::io::{AsyncRead, ReadBuf};

use crate::{
    error::{ReadError, ReadExactError, ReadToEndError},
    session::StreamRef,
    waiters::contained,
};

/// The most that one read of [`RecvStream::read_to_end`] takes.
const READ_BYTES: usize = 64 * 1024;

/// The receive half of a stream. It implements [`AsyncRead`].
///
/// Dropping it before its end stops the stream with code 0: the peer learns that the rest is not wanted.
pub struct RecvStream {
    stream: StreamRef,
    is_ended: bool,
}

impl RecvStream {
    pub(crate) fn new(stream: StreamRef) -> Self {
        Self { stream, is_ended: false }
    }

    /// The stream's id.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.stream.id
    }

    /// Reads the next bytes of the stream into `buf` and returns how many; 0 at the end of the stream.
    ///
    /// # Errors
    /// [`ReadError`], when no further byte will come.
    ///
    /// # Cancel safety
    /// Safe: a dropped read took nothing.
    pub async fn read(&mut self, buf: &mut [u8]) -> Result<usize, ReadError> {
        if buf.is_empty() {
            return Ok(0);
        }
        let chunk = self.read_chunk(buf.len(), true).await?;
        Ok(chunk.map_or(0, |chunk| {
            let len = chunk.data.len().min(buf.len());
            buf[..len].copy_from_slice(&chunk.data[..len]);
            len
        }))
    }

    /// Fills `buf`.
    ///
    /// # Errors
    /// [`ReadExactError`], when the stream ends or fails before.
    ///
    /// # Cancel safety
    /// Not safe: a dropped call loses what it had read.
    pub async fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), ReadExactError> {
        let mut read = 0;
        while read < buf.len() {
            match self.read(&mut buf[read..]).await? {
                0 => return Err(ReadExactError::FinishedEarly { read, wanted: buf.len() }),
                len => read += len,
            }
        }
        Ok(())
    }

    /// Reads the next chunk, at most `max` bytes of it, without copying; `None` at the end of the stream.
    ///
    /// Ordered reads give the stream's bytes in order. Unordered reads give whatever arrived, each chunk with its
    /// offset; after one, ordered reads of this stream are errors.
    ///
    /// # Errors
    /// [`ReadError`], when no further byte will come.
    ///
    /// # Cancel safety
    /// Safe: a dropped read took nothing.
    pub async fn read_chunk(&mut self, max: usize, ordered: bool) -> Result<Option<Chunk>, ReadError> {
        poll_fn(|cx| self.poll_chunk(cx, max, ordered)).await
    }

    /// Reads to the end of the stream, which may be at most `limit` bytes away. The stream must not be read unordered.
    ///
    /// # Errors
    /// [`ReadToEndError`], when the stream is longer or fails.
    ///
    /// # Cancel safety
    /// Not safe: a dropped call loses what it had read.
    pub async fn read_to_end(&mut self, limit: usize) -> Result<Vec<u8>, ReadToEndError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.read_chunk(READ_BYTES, true).await? {
            if chunk.data.len() > limit - bytes.len() {
                return Err(ReadToEndError::TooLong { limit });
            }
            bytes.extend_from_slice(&chunk.data);
        }
        Ok(bytes)
    }

    /// Tells the peer that the rest of the stream is not wanted, and why.
    ///
    /// # Errors
    /// [`ReadError`], when the stream ended before: it was read to its end, stopped or reset, or the session ended.
    pub fn stop(&mut self, code: u32) -> Result<(), ReadError> {
        let stopped = self.stream.command(|stream, _| {
            // A read of nothing says how a half ended that takes no command any more.
            stream.stop(code).map_err(|_| stream.read(0).err().unwrap_or(CoreReadError::SessionClosed))
        });
        let stopped = stopped.unwrap_or(Err(CoreReadError::SessionClosed));
        stopped.map_err(|error| ReadError::from_core(&self.stream.session, error))
    }

    fn poll_chunk(&mut self, cx: &Context<'_>, max: usize, ordered: bool) -> Poll<Result<Option<Chunk>, ReadError>> {
        if self.is_ended {
            return Poll::Ready(Ok(None));
        }
        let read = self.stream.poll_recv(cx, |stream| {
            match if ordered { stream.read(max) } else { stream.read_unordered(max) } {
                Err(CoreReadError::Blocked) => None,
                read => Some(read),
            }
        });
        Poll::Ready(match ready!(read).map_err(ReadError::Session)? {
            Ok(chunk) => Ok(Some(chunk)),
            Err(CoreReadError::Finished) => {
                self.is_ended = true;
                Ok(None)
            }
            Err(error) => Err(ReadError::from_core(&self.stream.session, error)),
        })
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(chunk) = ready!(self.poll_chunk(cx, buf.remaining(), true))? {
            buf.put_slice(&chunk.data);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        let handle = self.stream.handle;
        contained(|| {
            // The waker is dropped after the lock.
            let _waker = self.stream.command(|stream, waiters| {
                stream.release_recv();
                waiters.readers.remove(&handle)
            });
        });
    }
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvStream").field("id", &self.stream.id).finish_non_exhaustive()
    }
}
