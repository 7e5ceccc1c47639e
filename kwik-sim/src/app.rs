//! Applications: state machines that are notified of what happens at one endpoint and act on it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use kwik_core::{ClientConfig, ConnectError, Endpoint, Session, SessionEvent, SessionHandle, SessionMut};

/// An application around one endpoint. Nothing it is given tells whether the endpoint is simulated.
///
/// Whoever drives it calls [`App::on_event`] with every event, in order, and [`App::on_wake`] when the moment it asked
/// for has come; after every call the endpoint is drained.
pub trait App {
    /// The endpoint is new and has no session. Called again when the endpoint was replaced, as after a restart that
    /// kept nothing: sessions known before do not exist any more.
    fn on_start(&mut self, cx: &mut Context<'_>);

    /// Something happened in a session.
    fn on_event(&mut self, cx: &mut Context<'_>, session: SessionHandle, event: SessionEvent);

    /// The moment asked for with [`Context::wake_in`] has come.
    fn on_wake(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// Whether the application has nothing left that it wants to do of its own accord. A server usually has not.
    fn is_done(&self) -> bool {
        true
    }
}

/// What an application may do while it is called.
pub struct Context<'a> {
    now: Instant,
    endpoint: &'a mut Endpoint,
    wake_at: &'a mut Option<Instant>,
}

impl<'a> Context<'a> {
    /// A context for one call. `wake_at` is where the application notes when it wants to be woken; it is to be cleared
    /// before [`App::on_wake`] is called.
    pub fn new(now: Instant, endpoint: &'a mut Endpoint, wake_at: &'a mut Option<Instant>) -> Self {
        Self { now, endpoint, wake_at }
    }
}

impl Context<'_> {
    /// The time of this call.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A session of the endpoint, to look at.
    #[must_use]
    pub fn session(&self, session: SessionHandle) -> Option<&Session> {
        self.endpoint.session(session)
    }

    /// A session of the endpoint, to do something with.
    pub fn session_mut(&mut self, session: SessionHandle) -> Option<SessionMut<'_>> {
        self.endpoint.session_mut(session)
    }

    /// Begins a session.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub fn dial(
        &mut self,
        config: ClientConfig,
        server: SocketAddr,
        server_name: &str,
    ) -> Result<SessionHandle, ConnectError> {
        self.endpoint.connect(self.now, config, server, server_name)
    }

    /// Lets go of a session: no further event of it comes.
    pub fn release(&mut self, session: SessionHandle) {
        self.endpoint.release(self.now, session);
    }

    /// Asks for [`App::on_wake`] after `span`, or earlier if that was asked for before.
    pub fn wake_in(&mut self, span: Duration) {
        let at = self.now + span;
        *self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}
