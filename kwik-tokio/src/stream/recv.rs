//! The receive half of a stream.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use kwik_core::{Chunk, ReadError as CoreReadError, StreamId};
use tokio::io::{AsyncRead, ReadBuf};

use crate::{
    error::{ReadError, ReadExactError, ReadToEndError},
    session::StreamRef,
    waiters::contained,
};

/// About as much as one read of [`RecvStream::read_to_end`] takes.
const READ_BYTES: usize = 64 * 1024;

/// The receive half of a stream. It implements [`AsyncRead`].
///
/// Dropping it before its end stops the stream with code 0: the peer learns that the rest is not wanted.
pub struct RecvStream {
    stream: StreamRef,
    is_ended: bool,
    /// Of a stream that was not split: see [`SendStream`](super::SendStream).
    pub(super) is_released_with_send: bool,
}

impl RecvStream {
    pub(crate) fn new(stream: StreamRef) -> Self {
        Self { stream, is_ended: false, is_released_with_send: false }
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
        poll_fn(|cx| self.poll_fill(cx, buf)).await
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

    /// Reads the next chunks in order, without copying, into the front of `chunks`, and returns how many; `None` at the end
    /// of the stream. Cheaper than a read for each of them.
    ///
    /// # Errors
    /// [`ReadError`], when no further byte will come.
    ///
    /// # Cancel safety
    /// Safe: a dropped read took nothing.
    pub async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Option<usize>, ReadError> {
        if chunks.is_empty() {
            return Ok(Some(0));
        }
        let read = poll_fn(|cx| {
            let mut places = chunks.iter_mut();
            self.poll_pieces(cx, |stream| {
                let Some(place) = places.next() else { return Ok(None) };
                *place = stream.read(usize::MAX)?.data;
                Ok(Some(1))
            })
        });
        Ok(Some(read.await?).filter(|count| *count > 0))
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
        loop {
            let before = bytes.len();
            let is_full = |bytes: &Vec<u8>| bytes.len() > limit || bytes.len() - before >= READ_BYTES;
            let read = poll_fn(|cx| {
                self.poll_pieces(cx, |stream| {
                    if is_full(&bytes) {
                        return Ok(None);
                    }
                    let piece = stream.read(READ_BYTES)?.data;
                    bytes.extend_from_slice(&piece);
                    Ok(Some(piece.len()))
                })
            });
            let count = read.await?;
            if bytes.len() > limit {
                return Err(ReadToEndError::TooLong { limit });
            }
            if count == 0 || self.is_ended {
                return Ok(bytes);
            }
        }
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

    /// Reads pieces under one lock, until `read` wants no more or there are no more, and sums up what it gives for each. 0
    /// is the end of the stream.
    fn poll_pieces(
        &mut self,
        cx: &Context<'_>,
        mut read: impl FnMut(&mut kwik_core::StreamMut<'_>) -> Result<Option<usize>, CoreReadError>,
    ) -> Poll<Result<usize, ReadError>> {
        if self.is_ended {
            return Poll::Ready(Ok(0));
        }
        let (mut sum, mut is_ended) = (0, false);
        let stopped = self.stream.poll_recv(cx, |stream| {
            loop {
                match read(stream) {
                    Ok(Some(count)) => sum += count,
                    Ok(None) => return Some(None),
                    Err(CoreReadError::Finished) => {
                        is_ended = true;
                        return Some(None);
                    }
                    // What was read comes first; the error is there for the next read too.
                    Err(_) if sum > 0 => return Some(None),
                    Err(CoreReadError::Blocked) => return None,
                    Err(error) => return Some(Some(error)),
                }
            }
        });
        self.is_ended = is_ended;
        Poll::Ready(match ready!(stopped).map_err(ReadError::Session)? {
            None => Ok(sum),
            Some(error) => Err(ReadError::from_core(&self.stream.session, error)),
        })
    }

    /// Copies what is there into `buf`, which must have room.
    fn poll_fill(&mut self, cx: &Context<'_>, buf: &mut [u8]) -> Poll<Result<usize, ReadError>> {
        let mut filled = 0;
        self.poll_pieces(cx, |stream| {
            let rest = &mut buf[filled..];
            if rest.is_empty() {
                return Ok(None);
            }
            let piece = stream.read(rest.len())?.data;
            rest[..piece.len()].copy_from_slice(&piece);
            filled += piece.len();
            Ok(Some(piece.len()))
        })
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
        let filled = ready!(self.poll_fill(cx, buf.initialize_unfilled()))?;
        buf.advance(filled);
        Poll::Ready(Ok(()))
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if self.is_released_with_send {
            return;
        }
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
