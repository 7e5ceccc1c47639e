//! A client: it dials, makes its requests on streams, and begins again when a session fails.

use std::net::SocketAddr;
use std::time::Duration;

use kwik_core::{ClientConfig, Dir, SessionEvent, SessionHandle};

use super::reader::ReadStyle;
use super::session::ClientSession;
use crate::app::{App, Context};
use crate::checks::SharedModel;

/// One request: a stream, and what is done on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Both ways, or only to the server.
    pub dir: Dir,
    /// Bytes sent, at least the header's.
    pub up: u64,
    /// Bytes wanted in return.
    pub down: u64,
    /// How the answer is read.
    pub read: ReadStyle,
    /// After how many bytes the server is to reset its answer.
    pub reset_answer: Option<u64>,
    /// After how many bytes the client resets what it sends; it wants no answer then.
    pub reset_upload: Option<u64>,
    /// Streams of one direction wanted in return.
    pub pushes: u32,
    /// Bytes of each of them.
    pub push_size: u64,
    /// The stream's priority.
    pub priority: i32,
}

impl Request {
    /// Whether the client can do without it.
    pub(super) fn is_optional(&self) -> bool {
        self.read.stop.is_some() && self.pushes == 0
    }
}

/// When a client wants nothing more of all that it can do without and that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUp {
    /// Again and again, as one who goes from page to page.
    Every(Duration),
    /// Whenever the answer to something else is whole, as one who asks several for the same.
    AtAnAnswer,
}

/// One session: its server, and what is done in it.
#[derive(Debug, Clone)]
pub struct SessionPlan {
    /// The number of the server that is dialled.
    pub primary: usize,
    /// What is done.
    pub requests: Vec<Request>,
    /// How many requests are under way at the same time.
    pub parallel: usize,
    /// Whether streams are opened before the handshake is done.
    pub early: bool,
    /// When it begins.
    pub begin_after: Duration,
    /// When it gives up what it can do without.
    pub give_up: Option<GiveUp>,
    /// When the server is not to be trusted: how long to stay at most. Nothing in the session is judged then.
    pub patience: Option<Duration>,
}

/// What a client does.
pub struct ClientPlan {
    /// What distinguishes it from other clients.
    pub number: u16,
    /// What it brings to every session.
    pub config: ClientConfig,
    /// Its sessions, at the same time.
    pub sessions: Vec<SessionPlan>,
    /// Where servers are, by their numbers.
    pub servers: Vec<SocketAddr>,
}

/// A client application.
pub struct ClientApp {
    plan: ClientPlan,
    model: SharedModel,
    sessions: Vec<ClientSession>,
}

impl ClientApp {
    /// A client that does as planned.
    #[must_use]
    pub fn new(plan: ClientPlan, model: SharedModel) -> Self {
        let session = |(index, session): (u64, &SessionPlan)| ClientSession::new(session.clone(), plan.number, index);
        let sessions = (0..).zip(&plan.sessions).map(session).collect();
        Self { plan, model, sessions }
    }

    fn rearm(&self, cx: &mut Context<'_>) {
        let now = cx.now();
        if let Some(at) = self.sessions.iter().filter_map(ClientSession::wake_at).min() {
            cx.wake_in(at.saturating_duration_since(now));
        }
    }
}

impl App for ClientApp {
    fn on_start(&mut self, cx: &mut Context<'_>) {
        self.model.borrow_mut().forgot();
        for session in &mut self.sessions {
            session.begin_again(cx.now());
        }
        self.rearm(cx);
    }

    fn on_event(&mut self, cx: &mut Context<'_>, handle: SessionHandle, event: SessionEvent) {
        let Some(session) = self.sessions.iter_mut().find(|session| session.handle() == Some(handle)) else { return };
        let model = &mut *self.model.borrow_mut();
        session.on_event(cx, handle, event, model);
        self.rearm(cx);
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        let model = &mut *self.model.borrow_mut();
        for session in &mut self.sessions {
            session.wake(cx, &self.plan, model);
        }
        self.rearm(cx);
    }

    fn is_done(&self) -> bool {
        self.sessions.iter().all(ClientSession::is_done)
    }
}
