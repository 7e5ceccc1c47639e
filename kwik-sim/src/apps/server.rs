//! A server: primary of the sessions dialled here, secondary of those it was added to.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kwik_core::{Dir, PathId, PathTarget, Role, SessionEvent, SessionHandle, StreamEvent};

use super::granted::{GrantedStreams, Reliability};
use super::primary::PrimarySession;
use super::raw::RawTalk;
use super::reader::ReadStyle;
use crate::app::{App, Context};
use crate::checks::{FlowModel, SharedModel};
use crate::rng::SimRng;

/// What a server does. Chances are in percent.
#[derive(Debug, Clone, Default)]
pub struct ServerPlan {
    /// The servers it adds to sessions as secondaries.
    pub others: Vec<PathTarget>,
    /// How often each is added again after it died.
    pub path_retries: u32,
    /// The chance that a joined path is removed after a while.
    pub remove_path: u32,
    /// The chance that a range is left to a secondary.
    pub delegate: u32,
    /// The chance that an answer is written at explicit offsets, in any order.
    pub explicit: u32,
    /// The chance that a delegation is revoked.
    pub revoke: u32,
    /// How long a secondary may take for a range, at least; for ever without it.
    pub patience: Option<Duration>,
    /// Raw queries to each path that joins.
    pub raw_queries: u32,
    /// How it behaves as a secondary.
    pub reliability: Reliability,
    /// How it reads.
    pub read: ReadStyle,
}

/// A server application.
pub struct ServerApp {
    plan: ServerPlan,
    model: SharedModel,
    rng: SimRng,
    roles: BTreeMap<SessionHandle, PlayedRole>,
}

/// The role it plays in one session.
enum PlayedRole {
    Primary(Box<PrimarySession>),
    Secondary { own: PathId, granted: GrantedStreams, raw: RawTalk },
}

/// What all of the application shares while it acts.
pub(super) struct Tools<'a> {
    pub(super) now: Instant,
    pub(super) plan: &'a ServerPlan,
    pub(super) model: &'a mut FlowModel,
    pub(super) rng: &'a mut SimRng,
}

impl Tools<'_> {
    /// Whether something with this chance, in percent, comes true.
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.rng.below(100) < u64::from(percent)
    }
}

impl ServerApp {
    /// A server that does as planned; what is left to chance follows from `seed`.
    #[must_use]
    pub fn new(plan: ServerPlan, seed: u64, model: SharedModel) -> Self {
        Self { plan, model, rng: SimRng::new(seed, &[]), roles: BTreeMap::new() }
    }

    fn on_incoming(&mut self, cx: &mut Context<'_>, handle: SessionHandle) {
        let now = cx.now();
        let model = &mut *self.model.borrow_mut();
        let mut tools = Tools { now, plan: &self.plan, model, rng: &mut self.rng };
        let Some(mut session) = cx.session_mut(handle) else { return };
        let own = session.all_paths().first().map_or(PathId::PRIMARY, |path| path.id);
        let role = match session.role() {
            Role::Secondary => {
                PlayedRole::Secondary { own, granted: GrantedStreams::default(), raw: RawTalk::default() }
            }
            Role::Primary | Role::Client => {
                PlayedRole::Primary(Box::new(PrimarySession::new(&mut session, &mut tools)))
            }
        };
        self.roles.insert(handle, role);
    }

    fn on_closed(&mut self, cx: &mut Context<'_>, handle: SessionHandle, error: &kwik_core::SessionError) {
        let Some(role) = self.roles.remove(&handle) else { return };
        let now = cx.now();
        let model = &mut *self.model.borrow_mut();
        if let (PlayedRole::Primary(mut role), Some(mut session)) = (role, cx.session_mut(handle)) {
            let mut tools = Tools { now, plan: &self.plan, model, rng: &mut self.rng };
            role.on_closed(error, &mut session, &mut tools);
        }
        cx.release(handle);
    }
}

impl PlayedRole {
    fn wake_at(&self) -> Option<Instant> {
        match self {
            Self::Primary(role) => role.wake_at(),
            Self::Secondary { granted, .. } => granted.wake_at(),
        }
    }
}

impl App for ServerApp {
    fn on_start(&mut self, _: &mut Context<'_>) {
        self.model.borrow_mut().forgot();
        self.roles.clear();
    }

    fn on_event(&mut self, cx: &mut Context<'_>, handle: SessionHandle, event: SessionEvent) {
        match event {
            SessionEvent::Incoming => self.on_incoming(cx, handle),
            SessionEvent::Closed(error) => return self.on_closed(cx, handle, &error),
            _ => {}
        }
        let now = cx.now();
        let model = &mut *self.model.borrow_mut();
        let mut tools = Tools { now, plan: &self.plan, model, rng: &mut self.rng };
        let (Some(role), Some(mut session)) = (self.roles.get_mut(&handle), cx.session_mut(handle)) else { return };
        match role {
            PlayedRole::Primary(role) => role.on_event(event, &mut session, &mut tools),
            PlayedRole::Secondary { own, granted, raw } => match event {
                SessionEvent::RawReadable => raw.receive(&mut session, *own, tools.model),
                SessionEvent::RawStatus { .. } => raw.on_status(&mut session, &event, tools.model),
                SessionEvent::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                    while let Some(stream) = session.accept_stream(Dir::Bi) {
                        granted.accept(now, stream, &mut session, (tools.rng, tools.plan.reliability));
                        granted.pump(now, *own, stream, &mut session, tools.model);
                    }
                }
                SessionEvent::Stream(StreamEvent::Readable(stream) | StreamEvent::Writable(stream)) => {
                    granted.pump(now, *own, stream, &mut session, tools.model);
                }
                SessionEvent::Stream(StreamEvent::Stopped { stream, code }) => {
                    granted.on_stopped(stream, code, &mut session, tools.model);
                }
                _ => {}
            },
        }
        if let Some(at) = role.wake_at() {
            cx.wake_in(at.saturating_duration_since(now));
        }
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        let model = &mut *self.model.borrow_mut();
        let mut tools = Tools { now, plan: &self.plan, model, rng: &mut self.rng };
        for (handle, role) in &mut self.roles {
            if role.wake_at().is_some_and(|at| at <= now)
                && let Some(mut session) = cx.session_mut(*handle)
            {
                match role {
                    PlayedRole::Primary(role) => role.wake(&mut session, &mut tools),
                    PlayedRole::Secondary { own, granted, .. } => granted.wake(now, *own, &mut session, tools.model),
                }
            }
            if let Some(at) = role.wake_at() {
                cx.wake_in(at.saturating_duration_since(now));
            }
        }
    }

    fn is_done(&self) -> bool {
        self.roles.is_empty()
    }
}
