//! The client: it asks for streams and checks every byte of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kwik_core::{
    ClientConfig, Dir, OpenError, ReadError, SessionError, SessionEvent, SessionHandle, SessionMut, StreamEvent,
    StreamHandle,
};
use kwik_sim::{App, Context};

use super::bytes_of;
use super::recorder::{DownloadRecord, Recorder};
use crate::SERVER_NAME;

pub(super) struct TransferClient {
    config: ClientConfig,
    primary: SocketAddr,
    recorder: Rc<RefCell<Recorder>>,
    session: Option<SessionHandle>,
    opened: u32,
    /// Everything was read in this session.
    done: bool,
    reading: BTreeMap<StreamHandle, u32>,
}

/// What the client asks of the primary, and the primary of a secondary: the stream's number and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamRequest {
    pub(super) stream: u32,
    pub(super) bytes: u64,
}

impl StreamRequest {
    const LEN: usize = 12;

    pub(super) fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::LEN);
        out.put_u32(self.stream);
        out.put_u64(self.bytes);
        out.freeze()
    }

    /// `None` as long as bytes are missing.
    pub(super) fn decode(data: &[u8]) -> Option<Self> {
        let (stream, bytes) = (data.get(..4)?, data.get(4..Self::LEN)?);
        let stream = u32::from_be_bytes(stream.try_into().ok()?);
        Some(Self { stream, bytes: u64::from_be_bytes(bytes.try_into().ok()?) })
    }
}

impl TransferClient {
    const REDIAL_AFTER: Duration = Duration::from_millis(100);

    pub(super) fn new(config: ClientConfig, primary: SocketAddr, recorder: Rc<RefCell<Recorder>>) -> Self {
        Self { config, primary, recorder, session: None, opened: 0, done: false, reading: BTreeMap::new() }
    }

    fn dial(&mut self, cx: &mut Context<'_>) {
        let session = cx.dial(self.config.clone(), self.primary, SERVER_NAME).expect("the configuration is sound");
        self.session = Some(session);
        self.opened = 0;
        self.done = false;
        self.reading.clear();
        let mut recorder = self.recorder.borrow_mut();
        recorder.session = Some(session);
        recorder.downloads.clear();
    }

    fn open(&mut self, now: std::time::Instant, session: &mut SessionMut<'_>) {
        let (streams, bytes) = {
            let recorder = self.recorder.borrow();
            (recorder.plan.streams, recorder.plan.bytes)
        };
        while self.opened < streams {
            let stream = match session.open_stream(Dir::Bi) {
                Ok(stream) => stream,
                Err(OpenError::LimitReached { .. } | OpenError::BudgetTaken | OpenError::SessionClosed) => return,
                Err(error) => panic!("a stream was not opened: {error}"),
            };
            let mut view = session.stream_mut(stream);
            let request = StreamRequest { stream: self.opened, bytes };
            assert_eq!(view.write_chunk(request.encode()), Ok(StreamRequest::LEN));
            view.finish().expect("nobody stopped it");
            view.release_send();
            let mut recorder = self.recorder.borrow_mut();
            let begun = DownloadRecord::new(recorder.time(now));
            recorder.downloads.insert(self.opened, begun);
            self.reading.insert(stream, self.opened);
            self.opened += 1;
        }
    }

    fn read(&mut self, now: std::time::Instant, session: &mut SessionMut<'_>, stream: StreamHandle) {
        let Some(number) = self.reading.get(&stream).copied() else { return };
        let mut recorder = self.recorder.borrow_mut();
        loop {
            let mut view = session.stream_mut(stream);
            let read = if recorder.plan.ordered { view.read(usize::MAX) } else { view.read_unordered(usize::MAX) };
            match read {
                Ok(chunk) => {
                    let range = chunk.offset.0..chunk.offset.0 + chunk.data.len() as u64;
                    let is_right = chunk.data == bytes_of(number, range.clone());
                    assert!(is_right, "wrong bytes in {range:?} of stream {number}, from {:?}", chunk.source);
                    recorder.on_read(number, now, chunk.source, range);
                }
                Err(ReadError::Blocked) => return,
                Err(ReadError::Finished) => break,
                Err(ReadError::SessionClosed) => return,
                Err(error) => panic!("stream {number} could not be read: {error}"),
            }
        }
        let (ended, bytes) = (recorder.time(now), recorder.plan.bytes);
        if let Some(download) = recorder.downloads.get_mut(&number) {
            assert_eq!(download.received, bytes, "stream {number} ended too early or too late");
            download.ended = Some(ended);
        }
        session.stream_mut(stream).release_recv();
        self.reading.remove(&stream);
    }

    fn end_if_done(&mut self, now: std::time::Instant, session: &mut SessionMut<'_>) {
        let mut recorder = self.recorder.borrow_mut();
        if self.opened < recorder.plan.streams || !self.reading.is_empty() || self.done {
            return;
        }
        self.done = true;
        recorder.sessions_done += 1;
        if !recorder.is_done() {
            session.close(now, 0, "done");
        }
    }

    fn on_closed(&mut self, cx: &mut Context<'_>, error: SessionError) {
        let mut recorder = self.recorder.borrow_mut();
        let was_meant = error == SessionError::LocallyClosed;
        if !was_meant && !recorder.plan.redials {
            let at = recorder.time(cx.now());
            recorder.closed = Some((at, error));
            return;
        }
        if !was_meant {
            recorder.failures.push(error);
        }
        drop(recorder);
        if let Some(session) = self.session.take() {
            cx.release(session);
        }
        cx.wake_in(Self::REDIAL_AFTER);
    }
}

impl App for TransferClient {
    fn on_start(&mut self, cx: &mut Context<'_>) {
        self.dial(cx);
    }

    fn on_event(&mut self, cx: &mut Context<'_>, handle: SessionHandle, event: SessionEvent) {
        if self.session != Some(handle) {
            return;
        }
        let now = cx.now();
        if let SessionEvent::Closed(error) = event {
            return self.on_closed(cx, error);
        }
        let Some(mut session) = cx.session_mut(handle) else { return };
        match event {
            SessionEvent::Connected | SessionEvent::Stream(StreamEvent::Available { .. }) => {
                self.open(now, &mut session);
            }
            SessionEvent::Stream(StreamEvent::Readable(stream)) => self.read(now, &mut session, stream),
            _ => {}
        }
        self.end_if_done(now, &mut session);
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        if self.session.is_none() {
            self.dial(cx);
        }
    }

    fn is_done(&self) -> bool {
        self.recorder.borrow().is_done()
    }
}
