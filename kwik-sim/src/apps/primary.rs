//! A session at its primary: it reads requests, answers them, and keeps the secondaries.

use std::collections::BTreeMap;
use std::time::Instant;

use kwik_core::{Dir, PathId, SessionError, SessionEvent, SessionMut, Side, StreamEvent, StreamHandle};

use super::message::Header;
use super::push::Pushes;
use super::raw::RawTalk;
use super::reader::StreamReader;
use super::response::Response;
use super::secondaries::Secondaries;
use super::server::Tools;
use crate::checks::Flow;

/// What a primary knows of one session.
pub(super) struct PrimarySession {
    /// The session as its client numbered it, once a header told.
    token: Option<u64>,
    exchanges: BTreeMap<StreamHandle, Exchange>,
    pushes: Pushes,
    raw: RawTalk,
    /// Paths that joined before the session's number was known.
    to_ask: Vec<PathId>,
    secondaries: Secondaries,
}

/// The code of streams that begin with what no honest client says.
const NOBODY_CODE: u32 = 13;

/// One stream that the client opened.
struct Exchange {
    reader: Option<StreamReader>,
    response: Option<Response>,
}

impl PrimarySession {
    pub(super) fn new(session: &mut SessionMut<'_>, tools: &mut Tools<'_>) -> Self {
        let mut secondaries = Secondaries::new(tools);
        secondaries.wake(session, tools);
        Self {
            token: None,
            exchanges: BTreeMap::new(),
            pushes: Pushes::default(),
            raw: RawTalk::default(),
            to_ask: Vec::new(),
            secondaries,
        }
    }

    pub(super) fn on_event(&mut self, event: SessionEvent, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        match event {
            SessionEvent::Stream(event) => self.on_stream(event, session, tools),
            SessionEvent::Path(event) => {
                if let Some(path) = self.secondaries.on_event(&event, session, tools) {
                    self.to_ask.push(path);
                    self.ask(session, tools);
                }
            }
            SessionEvent::Delegation(grant) => {
                let known = self
                    .exchanges
                    .values_mut()
                    .filter_map(|exchange| exchange.response.as_mut())
                    .any(|response| response.on_delegation(grant, session, tools));
                let mut responses = self.exchanges.values().filter_map(|exchange| exchange.response.as_ref());
                if !known && !responses.any(Response::is_distributed) {
                    session.forget_delegation(grant);
                }
            }
            SessionEvent::RawReadable => self.raw.receive(session, PathId::PRIMARY, tools.model),
            SessionEvent::RawStatus { .. } => self.raw.on_status(session, &event, tools.model),
            _ => {}
        }
        self.distribute(session, tools);
    }

    /// Whatever happened may be something for those who distribute.
    fn distribute(&mut self, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        let mut settled = Vec::new();
        for (stream, exchange) in &mut self.exchanges {
            if let Some(response) = exchange.response.as_mut().filter(|response| response.is_distributed()) {
                response.distribute(session, tools);
                settled.push(*stream);
            }
        }
        settled.into_iter().for_each(|stream| self.settle(stream, session));
    }

    pub(super) fn on_closed(&mut self, error: &SessionError, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        // What was opened and not accepted is read too.
        self.accept(session, tools);
        for exchange in self.exchanges.values_mut() {
            if let Some(reader) = &mut exchange.reader {
                reader.drain(tools.now, session, tools.model);
            }
        }
        tools.model.session_ended(self.token, "primary", error);
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        let of_exchange = |exchange: &Exchange| {
            let reader = exchange.reader.as_ref().and_then(StreamReader::paused_until);
            let response = exchange.response.as_ref().and_then(Response::wake_at);
            [reader, response].into_iter().flatten().min()
        };
        self.exchanges.values().filter_map(of_exchange).chain(self.secondaries.wake_at()).min()
    }

    pub(super) fn wake(&mut self, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        self.secondaries.wake(session, tools);
        let streams: Vec<StreamHandle> = self.exchanges.keys().copied().collect();
        for stream in streams {
            if let Some(response) = self.exchanges.get_mut(&stream).and_then(|exchange| exchange.response.as_mut()) {
                response.wake(session, tools);
            }
            self.read(stream, session, tools);
        }
        self.distribute(session, tools);
    }

    fn on_stream(&mut self, event: StreamEvent, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        match event {
            StreamEvent::Opened { .. } => self.accept(session, tools),
            StreamEvent::Available { .. } => self.pushes.open(session, tools.model),
            StreamEvent::Readable(stream) => self.read(stream, session, tools),
            StreamEvent::Writable(stream) => {
                if !self.pushes.on_writable(stream, session, tools.model) {
                    self.write(stream, session, tools);
                }
            }
            StreamEvent::Stopped { stream, code } => {
                if self.pushes.on_writable(stream, session, tools.model) {
                    return;
                }
                if let Some(response) = self.exchanges.get_mut(&stream).and_then(|exchange| exchange.response.as_mut())
                {
                    response.on_stopped(code, tools);
                }
                self.settle(stream, session);
            }
            StreamEvent::Finished(stream) => {
                if self.pushes.on_finished(stream, session, tools.model) {
                    return;
                }
                if let Some(response) = self.exchanges.get_mut(&stream).and_then(|exchange| exchange.response.as_mut())
                {
                    tools.model.acknowledged(response.flow());
                    response.abandon();
                }
                self.settle(stream, session);
            }
        }
    }

    fn accept(&mut self, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        for dir in Dir::ALL {
            while let Some(stream) = session.accept_stream(dir) {
                let Some(id) = session.stream(stream).id() else { continue };
                let reader = StreamReader::of_header(stream, id, Side::Client, tools.plan.read);
                self.exchanges.insert(stream, Exchange { reader: Some(reader), response: None });
                self.read(stream, session, tools);
            }
        }
    }

    fn read(&mut self, stream: StreamHandle, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        let Some(exchange) = self.exchanges.get_mut(&stream) else { return };
        let Some(reader) = &mut exchange.reader else { return };
        if let Some(header) = reader.pump(tools.now, session, tools.model) {
            self.on_header(stream, header, session, tools);
        }
        self.settle(stream, session);
    }

    fn on_header(&mut self, stream: StreamHandle, header: Header, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        if !tools.model.is_judged(header.token) {
            // Nobody honest asked for this.
            let _ = session.stream_mut(stream).reset(NOBODY_CODE);
            return;
        }
        self.token = Some(header.token);
        if header.pushes > 0 {
            self.pushes.ask(header.token, header.pushes, header.push_size);
            self.pushes.open(session, tools.model);
        }
        self.ask(session, tools);
        let Some(id) = session.stream(stream).id().filter(|id| id.dir() == Dir::Bi) else { return };
        let flow = Flow { token: header.token, stream: id, writer: Side::Server };
        let response = Response::new(stream, flow, header.answer, header.reset_after, tools);
        if let Some(exchange) = self.exchanges.get_mut(&stream) {
            exchange.response = Some(response);
        }
        self.write(stream, session, tools);
    }

    fn write(&mut self, stream: StreamHandle, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        let Some(exchange) = self.exchanges.get_mut(&stream) else { return };
        if let Some(response) = &mut exchange.response {
            response.pump(session, tools);
        }
        self.settle(stream, session);
    }

    /// Lets go of a stream when both halves are over.
    fn settle(&mut self, stream: StreamHandle, session: &mut SessionMut<'_>) {
        let Some(exchange) = self.exchanges.get_mut(&stream) else { return };
        if exchange.reader.as_ref().is_some_and(|reader| reader.end().is_some()) {
            exchange.reader = None;
            session.stream_mut(stream).release_recv();
        }
        let is_over = exchange.response.as_ref().is_none_or(Response::is_over);
        if exchange.reader.is_none() && is_over {
            exchange.response.iter_mut().for_each(|response| response.release(session));
            session.stream_mut(stream).release_send();
            self.exchanges.remove(&stream);
        }
    }

    /// Sends raw queries to the paths that joined.
    fn ask(&mut self, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        let Some(token) = self.token else { return };
        for path in std::mem::take(&mut self.to_ask) {
            for _ in 0..tools.plan.raw_queries {
                let padding = tools.rng.index(2000);
                self.raw.ask(session, (token, PathId::PRIMARY, path), padding, tools.model);
            }
        }
    }
}
