//! A server: what it does as a secondary, and its sessions as a primary.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use kwik_core::{Dir, PathTarget, Role, SessionEvent, SessionHandle, SessionMut, StreamEvent, StreamHandle};
use kwik_sim::{App, Context};

use super::bytes_of;
use super::client::StreamRequest;
use super::primary::TransferPrimary;
use super::recorder::Recorder;

pub(super) struct TransferServer {
    number: usize,
    others: Vec<PathTarget>,
    recorder: Rc<RefCell<Recorder>>,
    played: BTreeMap<SessionHandle, PlayedPart>,
}

enum PlayedPart {
    Primary(Box<TransferPrimary>),
    Secondary(BTreeMap<StreamHandle, GrantWrite>),
}

/// A range that this server writes for another.
#[derive(Debug, Default)]
struct GrantWrite {
    request: Vec<u8>,
    written: u64,
}

/// Pieces in which bytes are written.
pub(super) const PIECE: u64 = 16 * 1024;

impl TransferServer {
    pub(super) fn new(number: usize, others: Vec<PathTarget>, recorder: Rc<RefCell<Recorder>>) -> Self {
        Self { number, others, recorder, played: BTreeMap::new() }
    }

    fn rearm(&self, cx: &mut Context<'_>) {
        let now = cx.now();
        let wake_at = |played: &PlayedPart| match played {
            PlayedPart::Primary(primary) => primary.wake_at(),
            PlayedPart::Secondary(_) => None,
        };
        if let Some(at) = self.played.values().filter_map(wake_at).min() {
            cx.wake_in(at.saturating_duration_since(now));
        }
    }
}

impl App for TransferServer {
    fn on_start(&mut self, _: &mut Context<'_>) {
        self.played.clear();
    }

    fn on_event(&mut self, cx: &mut Context<'_>, handle: SessionHandle, event: SessionEvent) {
        let now = cx.now();
        let Some(mut session) = cx.session_mut(handle) else { return };
        if event == SessionEvent::Incoming {
            let played = match session.role() {
                Role::Primary => {
                    PlayedPart::Primary(Box::new(TransferPrimary::new(self.recorder.clone(), self.others.clone())))
                }
                Role::Secondary | Role::Client => {
                    self.recorder.borrow_mut().joined.push((self.number, handle));
                    PlayedPart::Secondary(BTreeMap::new())
                }
            };
            self.played.insert(handle, played);
        }
        match self.played.get_mut(&handle) {
            Some(PlayedPart::Primary(primary)) => primary.on_event(now, &event, &mut session),
            Some(PlayedPart::Secondary(granted)) => on_granted(granted, &event, &mut session),
            None => {}
        }
        if matches!(event, SessionEvent::Closed(_)) {
            self.played.remove(&handle);
            cx.release(handle);
        }
        self.rearm(cx);
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        let now: Instant = cx.now();
        for (handle, played) in &mut self.played {
            if let (PlayedPart::Primary(primary), Some(mut session)) = (played, cx.session_mut(*handle)) {
                primary.wake(now, &mut session);
            }
        }
        self.rearm(cx);
    }
}

fn on_granted(grants: &mut BTreeMap<StreamHandle, GrantWrite>, event: &SessionEvent, session: &mut SessionMut<'_>) {
    let SessionEvent::Stream(event) = event else { return };
    match event {
        StreamEvent::Opened { .. } => {
            while let Some(stream) = session.accept_stream(Dir::Bi) {
                grants.insert(stream, GrantWrite::default());
                write_granted(grants, stream, session);
            }
        }
        StreamEvent::Readable(stream) | StreamEvent::Writable(stream) => write_granted(grants, *stream, session),
        StreamEvent::Stopped { stream, .. } => {
            grants.remove(stream);
            session.stream_mut(*stream).release_send();
            session.stream_mut(*stream).release_recv();
        }
        StreamEvent::Available { .. } | StreamEvent::Finished(_) => {}
    }
}

fn write_granted(grants: &mut BTreeMap<StreamHandle, GrantWrite>, handle: StreamHandle, session: &mut SessionMut<'_>) {
    let Some(granted) = grants.get_mut(&handle) else { return };
    let mut stream = session.stream_mut(handle);
    while let Ok(chunk) = stream.read(usize::MAX) {
        granted.request.extend_from_slice(&chunk.data);
    }
    let (Some(request), Some(grant)) = (StreamRequest::decode(&granted.request), stream.view().grant()) else { return };
    loop {
        let begin = grant.range.start + granted.written;
        if begin == grant.range.end {
            break;
        }
        let data = bytes_of(request.stream, begin..grant.range.end.min(begin + PIECE));
        match stream.write_chunk(data) {
            Ok(taken) => granted.written += taken as u64,
            Err(_) => return,
        }
    }
    let _ = stream.finish();
    stream.release_send();
    stream.release_recv();
    grants.remove(&handle);
}
