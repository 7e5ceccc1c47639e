//! A server that answers each stream with the range that it asks for.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use quinn_proto::{Connection, Dir, Event, StreamEvent, StreamId, VarInt, WriteError};

use super::node::{Connections, Program};
use crate::content::RepeatedContent;

/// The object's content follows from it.
pub(super) const KEY: u64 = 0x7061_7274;

/// What a client writes on a stream: where the range begins and where it ends.
const REQUEST_BYTES: usize = 16;

/// The bytes that ask for a range.
pub(super) fn request(range: &Range<u64>) -> Vec<u8> {
    [range.start.to_be_bytes(), range.end.to_be_bytes()].concat()
}

/// The server.
pub(super) struct RangeServer {
    content: RepeatedContent,
    /// Answers that are not written whole, by connection and stream.
    answers: BTreeMap<(usize, StreamId), Answer>,
}

/// The answer to one stream.
#[derive(Default)]
struct Answer {
    /// What came of the request.
    request: Vec<u8>,
    /// How many bytes of the range are written.
    written: u64,
}

impl RangeServer {
    pub(super) fn new() -> Self {
        Self { content: RepeatedContent::new(KEY), answers: BTreeMap::new() }
    }
}

impl Program for RangeServer {
    fn on_event(&mut self, number: usize, quic: &mut Connection, event: &Event) {
        match event {
            Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                while let Some(stream) = quic.streams().accept(Dir::Bi) {
                    self.answers.insert((number, stream), Answer::default());
                }
            }
            // Answers that are written whole too: what QUIC has not sent of them is not sent any more.
            Event::Stream(StreamEvent::Stopped { id, error_code }) => {
                self.answers.remove(&(number, *id));
                let _ = quic.send_stream(*id).reset(*error_code);
            }
            Event::ConnectionLost { .. } => self.answers.retain(|(connection, _), _| *connection != number),
            _ => {}
        }
    }

    fn act(&mut self, _: Instant, connections: &mut Connections) {
        let content = &self.content;
        self.answers.retain(|(number, stream), answer| {
            connections.get_mut(number).is_some_and(|quic| answer.go_on(quic, *stream, content))
        });
    }
}

impl Answer {
    /// Reads and writes as far as QUIC lets it. Returns whether something is left to do.
    fn go_on(&mut self, quic: &mut Connection, stream: StreamId, content: &RepeatedContent) -> bool {
        if self.request.len() < REQUEST_BYTES {
            let mut recv = quic.recv_stream(stream);
            let Ok(mut chunks) = recv.read(true) else { return false };
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                self.request.extend_from_slice(&chunk.bytes);
            }
            let _ = chunks.finalize();
        }
        let Some(Range { start, end }) = self.range() else { return true };
        let mut send = quic.send_stream(stream);
        while start + self.written < end {
            let next = start + self.written;
            match send.write_chunks(&mut [content.at(next, end - next)]) {
                Ok(written) => self.written += written.bytes as u64,
                Err(WriteError::Blocked) => return true,
                Err(_) => {
                    let _ = send.reset(VarInt::from_u32(0));
                    return false;
                }
            }
        }
        let _ = send.finish();
        false
    }

    /// What the request asks for, once it is here.
    fn range(&self) -> Option<Range<u64>> {
        let number = |at: usize| self.request.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
        Some(number(0)?..number(8)?)
    }
}
