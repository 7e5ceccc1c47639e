//! Streams of one direction that a server opens because a client asked for them.

use std::collections::{BTreeMap, VecDeque};

use kwik_core::{Dir, OpenError, SessionMut, Side, StreamHandle};

use super::message::Header;
use super::writer::{StreamWriter, WriteEnd};
use crate::checks::{Flow, FlowModel};

/// What one session was asked to push.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    /// Session number and size of those that are not open yet.
    waiting: VecDeque<(u64, u64)>,
    writers: BTreeMap<StreamHandle, StreamWriter>,
}

impl Pushes {
    pub(super) fn ask(&mut self, token: u64, count: u32, size: u64) {
        self.waiting.extend((0..count).map(|_| (token, size)));
    }

    /// Opens what may be opened, and writes.
    pub(super) fn open(&mut self, session: &mut SessionMut<'_>, model: &mut FlowModel) {
        while let Some((token, size)) = self.waiting.front().copied() {
            let stream = match session.open_stream(Dir::Uni) {
                Ok(stream) => stream,
                Err(OpenError::LimitReached { .. }) => return model.coverage.limit("streams of one direction"),
                Err(_) => return,
            };
            self.waiting.pop_front();
            let Some(id) = session.stream(stream).id() else { continue };
            let size = size.max(Header::LEN as u64);
            let header = Header { token, size, answer: 0, reset_after: None, pushes: 0, push_size: 0 };
            let flow = Flow { token, stream: id, writer: Side::Server };
            let mut writer = StreamWriter::new(stream, flow, header.encode(), size, None, model);
            model.coverage.work("push");
            writer.pump(session, model);
            self.writers.insert(stream, writer);
        }
    }

    /// A stream has room. Returns whether it is one of these.
    pub(super) fn on_writable(
        &mut self,
        stream: StreamHandle,
        session: &mut SessionMut<'_>,
        model: &mut FlowModel,
    ) -> bool {
        let Some(writer) = self.writers.get_mut(&stream) else { return false };
        writer.pump(session, model);
        if matches!(writer.end(), Some(WriteEnd::Stopped(_) | WriteEnd::Reset)) {
            session.stream_mut(stream).release_send();
            self.writers.remove(&stream);
        }
        true
    }

    /// The peer has all of a stream. Returns whether it is one of these.
    pub(super) fn on_finished(
        &mut self,
        stream: StreamHandle,
        session: &mut SessionMut<'_>,
        model: &mut FlowModel,
    ) -> bool {
        let Some(writer) = self.writers.remove(&stream) else { return false };
        model.acknowledged(writer.flow());
        session.stream_mut(stream).release_send();
        true
    }
}
