//! One session of a client, from the first dial until everything in it was done.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kwik_core::{Dir, OpenError, SessionEvent, SessionHandle, SessionMut, Side, StreamEvent, StreamHandle};

use super::client::{ClientPlan, GiveUp, Request, SessionPlan};
use super::message::Header;
use super::reader::{ReadStyle, StreamReader};
use super::writer::{StreamWriter, WriteEnd};
use crate::app::Context;
use crate::checks::{Flow, FlowModel, ReadEnd};
use crate::fleet::SERVER_NAME;

/// A session of a client under way.
pub(super) struct ClientSession {
    plan: SessionPlan,
    client: u64,
    index: u64,
    attempt: u64,
    token: u64,
    handle: Option<SessionHandle>,
    dial_at: Option<Instant>,
    /// When it closes the session whatever was done.
    leave_at: Option<Instant>,
    /// When it gives up what it can do without.
    give_up_at: Option<Instant>,
    /// Streams that were given up, and the most that were open at once.
    given_up: usize,
    open_most: usize,
    connected: bool,
    closing: bool,
    done: bool,
    /// Requests that are not under way and not done.
    waiting: VecDeque<usize>,
    running: BTreeMap<StreamHandle, RequestState>,
    /// Readers of streams that the server opened.
    pushed: BTreeMap<StreamHandle, StreamReader>,
    /// Such streams that were asked for, and those that came to an end.
    pushes_due: u64,
    pushes_over: u64,
}

/// A request under way.
struct RequestState {
    request: usize,
    reader: Option<StreamReader>,
    writer: Option<StreamWriter>,
}

impl ClientSession {
    const RETRY_AFTER: Duration = Duration::from_secs(1);
    /// The code of answers that are not wanted any more.
    const GIVEN_UP: u32 = 56;
    const MANY_GIVEN_UP: usize = 8;
    const CROWD: usize = 1000;
    /// The code of uploads that are reset.
    const UPLOAD_RESET: u32 = 55;

    pub(super) fn new(plan: SessionPlan, client: u16, index: u64) -> Self {
        Self {
            waiting: (0..plan.requests.len()).collect(),
            plan,
            client: client.into(),
            index,
            attempt: 0,
            token: 0,
            handle: None,
            dial_at: None,
            leave_at: None,
            give_up_at: None,
            given_up: 0,
            open_most: 0,
            connected: false,
            closing: false,
            done: false,
            running: BTreeMap::new(),
            pushed: BTreeMap::new(),
            pushes_due: 0,
            pushes_over: 0,
        }
    }

    pub(super) fn handle(&self) -> Option<SessionHandle> {
        self.handle
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// The endpoint is new: what was under way is forgotten.
    pub(super) fn begin_again(&mut self, now: Instant) {
        let wait = if self.attempt == 0 { self.plan.begin_after } else { Self::RETRY_AFTER };
        self.forget_session();
        if !self.done {
            self.dial_at = Some(now + wait);
        }
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        let readers = self.running.values().filter_map(|running| running.reader.as_ref()).chain(self.pushed.values());
        readers
            .filter_map(StreamReader::paused_until)
            .chain(self.dial_at)
            .chain(self.leave_at)
            .chain(self.give_up_at)
            .min()
    }

    pub(super) fn wake(&mut self, cx: &mut Context<'_>, client: &ClientPlan, model: &mut FlowModel) {
        let now = cx.now();
        if self.dial_at.is_some_and(|at| at <= now) {
            self.dial_at = None;
            self.dial(cx, client, model);
        }
        let gives_up = self.give_up_at.is_some_and(|at| at <= now);
        if gives_up {
            self.give_up_at = self.next_give_up(now);
        }
        let Some(mut session) = self.handle.and_then(|handle| cx.session_mut(handle)) else { return };
        let streams: Vec<StreamHandle> = self.running.keys().chain(self.pushed.keys()).copied().collect();
        for stream in streams {
            self.read(now, stream, &mut session, model);
        }
        if gives_up {
            self.give_up(now, &mut session, model);
        }
        self.close_when_done(now, &mut session, model);
    }

    pub(super) fn on_event(
        &mut self,
        cx: &mut Context<'_>,
        handle: SessionHandle,
        event: SessionEvent,
        model: &mut FlowModel,
    ) {
        let now = cx.now();
        let Some(mut session) = cx.session_mut(handle) else { return };
        match event {
            SessionEvent::Connected => {
                self.connected = true;
                self.start_requests(now, &mut session, model);
            }
            SessionEvent::Welcomed => {
                model.welcomed(self.token);
                if let Some(id) = session.id() {
                    model.bind(id, self.token);
                }
            }
            SessionEvent::Stream(event) => self.on_stream(now, event, &mut session, model),
            SessionEvent::Closed(error) => {
                self.drain(now, &mut session, model);
                model.session_ended(Some(self.token), "client", &error);
                cx.release(handle);
                if self.closing || self.plan.patience.is_some() {
                    self.done = true;
                    self.forget_session();
                } else {
                    model.coverage.work("session failed");
                    self.begin_again(now);
                }
                return;
            }
            _ => {}
        }
        self.close_when_done(now, &mut session, model);
    }

    fn dial(&mut self, cx: &mut Context<'_>, client: &ClientPlan, model: &mut FlowModel) {
        self.token = (self.client + 1) << 40 | self.index << 32 | self.attempt;
        self.attempt += 1;
        let now = cx.now();
        match cx.dial(client.config.clone(), client.servers[self.plan.primary], SERVER_NAME) {
            Ok(handle) => {
                model.coverage.work("dial");
                model.began(self.token, self.plan.patience.is_none());
                self.leave_at = self.plan.patience.map(|patience| now + patience);
                self.give_up_at = self.next_give_up(now);
                self.handle = Some(handle);
                if let Some(mut session) = cx.session_mut(handle).filter(|_| self.plan.early) {
                    self.start_requests(now, &mut session, model);
                }
            }
            Err(error) => model.violate(format!("a dial failed at once: {error}")),
        }
    }

    /// What was under way has to be done again in another session.
    fn forget_session(&mut self) {
        let interrupted = std::mem::take(&mut self.running);
        self.waiting.extend(interrupted.into_values().map(|running| running.request));
        self.pushed.clear();
        (self.pushes_due, self.pushes_over) = (0, 0);
        self.handle = None;
        (self.leave_at, self.give_up_at) = (None, None);
        (self.given_up, self.open_most) = (0, 0);
        self.connected = false;
        self.closing = false;
    }

    fn start_requests(&mut self, now: Instant, session: &mut SessionMut<'_>, model: &mut FlowModel) {
        while !self.closing && (self.connected || self.plan.early) && self.running.len() < self.plan.parallel {
            let Some(index) = self.waiting.front().copied() else { return };
            let request = self.plan.requests[index].clone();
            let stream = match session.open_stream(request.dir) {
                Ok(stream) => stream,
                Err(OpenError::LimitReached { .. }) => return model.coverage.limit("streams"),
                Err(OpenError::BudgetTaken) => return model.coverage.limit("receive budget"),
                Err(OpenError::NotAllowed | OpenError::SessionClosed) => return,
            };
            self.waiting.pop_front();
            self.begin(now, index, &request, stream, session, model);
        }
    }

    fn begin(
        &mut self,
        now: Instant,
        index: usize,
        request: &Request,
        stream: StreamHandle,
        session: &mut SessionMut<'_>,
        model: &mut FlowModel,
    ) {
        let Some(id) = session.stream(stream).id() else { return };
        let flow = Flow { token: self.token, stream: id, writer: Side::Client };
        let (head, size) = self.header(request);
        let reset = request.reset_upload.map(|after| (after, Self::UPLOAD_RESET));
        let writer = StreamWriter::new(stream, flow, head, size, reset, model);
        let reader = (request.dir == Dir::Bi)
            .then(|| StreamReader::of(stream, Flow { writer: Side::Server, ..flow }, request.read));
        if request.priority != 0 && session.stream_mut(stream).set_priority(request.priority).is_err() {
            model.violate(format!("{id} took no priority right after it was opened"));
        }
        self.running.insert(stream, RequestState { request: index, reader, writer: Some(writer) });
        self.open_most = self.open_most.max(self.running.len());
        self.write(now, stream, session, model);
    }

    fn header(&self, request: &Request) -> (Bytes, u64) {
        let size = request.up.max(Header::LEN as u64);
        let header = Header {
            token: self.token,
            size,
            answer: request.down,
            reset_after: request.reset_answer,
            pushes: request.pushes,
            push_size: request.push_size,
        };
        (header.encode(), size)
    }

    fn on_stream(&mut self, now: Instant, event: StreamEvent, session: &mut SessionMut<'_>, model: &mut FlowModel) {
        match event {
            StreamEvent::Opened { .. } => self.accept(now, session, model),
            StreamEvent::Available { .. } => self.start_requests(now, session, model),
            StreamEvent::Readable(stream) => self.read(now, stream, session, model),
            StreamEvent::Writable(stream) | StreamEvent::Stopped { stream, .. } => {
                self.write(now, stream, session, model);
            }
            StreamEvent::Finished(stream) => {
                if let Some(writer) = self.running.get_mut(&stream).and_then(|running| running.writer.take()) {
                    model.acknowledged(writer.flow());
                }
                self.settle(now, stream, session, model);
            }
        }
    }

    fn accept(&mut self, now: Instant, session: &mut SessionMut<'_>, model: &mut FlowModel) {
        while let Some(stream) = session.accept_stream(Dir::Uni) {
            let Some(id) = session.stream(stream).id() else { continue };
            self.pushed.insert(stream, StreamReader::of_header(stream, id, Side::Server, ReadStyle::default()));
            self.read(now, stream, session, model);
        }
    }

    fn read(&mut self, now: Instant, stream: StreamHandle, session: &mut SessionMut<'_>, model: &mut FlowModel) {
        if let Some(reader) = self.pushed.get_mut(&stream) {
            reader.pump(now, session, model);
            if reader.end().is_some() {
                session.stream_mut(stream).release_recv();
                self.pushed.remove(&stream);
                self.pushes_over += 1;
            }
        } else if let Some(reader) = self.running.get_mut(&stream).and_then(|running| running.reader.as_mut()) {
            reader.pump(now, session, model);
            self.settle(now, stream, session, model);
        }
    }

    fn write(&mut self, now: Instant, stream: StreamHandle, session: &mut SessionMut<'_>, model: &mut FlowModel) {
        let Some(running) = self.running.get_mut(&stream) else { return };
        if let Some(writer) = &mut running.writer {
            writer.pump(session, model);
            match writer.end() {
                None | Some(WriteEnd::Finished) => {}
                Some(WriteEnd::Reset) => {
                    running.writer = None;
                    if let Some(reader) = &mut running.reader {
                        reader.stop(session, Self::UPLOAD_RESET, model);
                    }
                }
                Some(WriteEnd::Stopped(_) | WriteEnd::SessionOver) => running.writer = None,
            }
        }
        self.settle(now, stream, session, model);
    }

    /// Lets go of a stream when both halves are over, and goes on with the next request.
    fn settle(&mut self, now: Instant, stream: StreamHandle, session: &mut SessionMut<'_>, model: &mut FlowModel) {
        let Some(running) = self.running.get_mut(&stream) else { return };
        let end = running.reader.as_ref().and_then(StreamReader::end);
        if end.is_some() {
            running.reader = None;
            session.stream_mut(stream).release_recv();
        }
        if end == Some(ReadEnd::Finished) && self.plan.give_up == Some(GiveUp::AtAnAnswer) {
            self.give_up(now, session, model);
        }
        let Some(running) = self.running.get_mut(&stream) else { return };
        if running.reader.is_some() || running.writer.is_some() {
            return;
        }
        let request = &self.plan.requests[running.request];
        if request.reset_upload.is_none() {
            self.pushes_due += u64::from(request.pushes);
        }
        session.stream_mut(stream).release_send();
        self.running.remove(&stream);
        self.start_requests(now, session, model);
    }

    /// Wants nothing more of all that is under way and that it can do without, all at once. Half of it is reset and stopped,
    /// of the other half it lets go.
    fn give_up(&mut self, now: Instant, session: &mut SessionMut<'_>, model: &mut FlowModel) {
        let mut streams = Vec::new();
        for (stream, running) in &mut self.running {
            if !self.plan.requests[running.request].is_optional() {
                continue;
            }
            if let Some(mut writer) = running.writer.take() {
                writer.reset(session, Self::UPLOAD_RESET, model);
            }
            match &mut running.reader {
                Some(reader) if streams.len() % 2 == 0 => reader.stop(session, Self::GIVEN_UP, model),
                Some(reader) => reader.leave(model),
                None => {}
            }
            streams.push(*stream);
        }
        self.given_up += streams.len();
        if streams.len() >= Self::MANY_GIVEN_UP {
            model.coverage.work("many streams given up at once");
        }
        for stream in streams {
            self.settle(now, stream, session, model);
        }
    }

    fn next_give_up(&self, now: Instant) -> Option<Instant> {
        match self.plan.give_up {
            Some(GiveUp::Every(span)) => Some(now + span),
            Some(GiveUp::AtAnAnswer) | None => None,
        }
    }

    fn close_when_done(&mut self, now: Instant, session: &mut SessionMut<'_>, model: &mut FlowModel) {
        if self.leave_at.is_some_and(|at| at <= now) {
            self.leave_at = None;
            self.closing = true;
            session.close(now, 1, "no patience left");
            return;
        }
        let idle = self.running.is_empty() && self.waiting.is_empty() && self.pushes_over >= self.pushes_due;
        if idle && self.pushed.is_empty() && !self.closing && (self.connected || self.plan.early) {
            self.closing = true;
            model.left(self.token);
            model.coverage.work("session done");
            if self.given_up >= Self::MANY_GIVEN_UP {
                model.coverage.work("session done beside streams given up");
            }
            if self.open_most >= Self::CROWD {
                model.coverage.work("session done with a thousand streams open");
            }
            session.close(now, 0, "done");
        }
    }

    fn drain(&mut self, now: Instant, session: &mut SessionMut<'_>, model: &mut FlowModel) {
        let readers = self.running.values_mut().filter_map(|running| running.reader.as_mut());
        for reader in readers.chain(self.pushed.values_mut()) {
            reader.drain(now, session, model);
        }
    }
}
