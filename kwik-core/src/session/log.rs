//! What a session tells of what the protocol did (see [`crate::protocol_event`]).

use super::Session;
use crate::config::EventDetail;
use crate::id::{PathId, SessionHandle};
use crate::path::Path;
use crate::protocol_event::{EventLog, ProtocolEventKind};

impl Session {
    /// The session begins, and so much of it is told.
    pub(crate) fn begin_log(&mut self, detail: EventDetail) {
        self.log = EventLog::new(detail);
        if detail == EventDetail::Frames {
            self.paths.values_mut().for_each(|path| path.note_frames());
        }
        let remote = self.home_address();
        if let Some(remote) = remote {
            self.log.change(None, || ProtocolEventKind::SessionBegun { remote });
        }
        if let Some(id) = self.id {
            self.log.change(None, || ProtocolEventKind::SessionEstablished { id });
        }
    }

    pub(crate) fn drain_log(&mut self, session: SessionHandle, into: &mut EventLog) {
        into.append(session, &mut self.log);
    }

    /// The path is in the state it is in since now.
    pub(super) fn log_path(&mut self, id: PathId) {
        let Self { log, paths, .. } = self;
        if let Some(path) = paths.get(&id) {
            log.change(id, || ProtocolEventKind::PathChanged { state: path.state().clone() });
        }
    }

    pub(super) fn log_received(&mut self, path: PathId, frame: &'static str) {
        self.log.frame(path, || ProtocolEventKind::FrameReceived { frame });
    }

    pub(super) fn log_sent(&mut self) {
        if self.log.detail() < EventDetail::Frames {
            return;
        }
        for (id, path) in &mut self.paths {
            for frame in path.take_sent_frames() {
                self.log.frame(*id, || ProtocolEventKind::FrameSent { frame });
            }
        }
    }

    /// A further connection of the session was made.
    pub(super) fn log_frames_of(&self, path: &mut Path) {
        if self.log.detail() == EventDetail::Frames {
            path.note_frames();
        }
    }
}
