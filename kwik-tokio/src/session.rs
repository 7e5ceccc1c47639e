//! What client and server sessions share: a counted reference to one session of an endpoint.

use std::{
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};

use kwik_core::{
    Dir, Endpoint, OpenError, SessionError, SessionHandle, SessionId, SessionStats, StreamHandle, StreamId,
};
use tokio::sync::Notify;

use crate::{
    endpoint::{Shared, now},
    error::Undelivered,
    waiters::{Signals, Waiters, contained},
};

/// A session, held by its handles and its streams. The last one dropped closes it.
#[derive(Clone)]
pub(crate) struct SessionRef(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    session: SessionHandle,
    signals: Arc<Signals>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        contained(|| drop(self.shared.with(|state| state.release(self.session))));
    }
}

/// A stream of a session, without ownership of its halves.
#[derive(Clone)]
pub(crate) struct StreamRef {
    pub(crate) session: SessionRef,
    pub(crate) handle: StreamHandle,
    pub(crate) id: StreamId,
}

impl SessionRef {
    pub(crate) fn new(shared: Arc<Shared>, session: SessionHandle, signals: Arc<Signals>) -> Self {
        Self(Arc::new(Inner { shared, session, signals }))
    }

    pub(crate) fn signals(&self) -> &Signals {
        &self.0.signals
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.0.shared.group.local_addr()
    }

    /// Runs `command` under the endpoint's lock.
    pub(crate) fn with<R>(&self, command: impl FnOnce(&mut Waiters, Option<&mut Endpoint>) -> R) -> R {
        self.0.shared.with(|state| {
            let (waiters, core) = state.waiters(self.0.session);
            command(waiters, core)
        })
    }

    /// Looks at the session; `None` if the core no longer has it.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&kwik_core::Session) -> R) -> Option<R> {
        self.with(|_, core| core?.session(self.0.session).map(look))
    }

    /// Runs `command` on the session; `None` if the core no longer has it.
    pub(crate) fn command<R>(
        &self,
        command: impl FnOnce(&mut kwik_core::SessionMut<'_>, &mut Waiters) -> R,
    ) -> Option<R> {
        self.with(|waiters, core| core?.session_mut(self.0.session).map(|mut session| command(&mut session, waiters)))
    }

    /// Waits on `signal` until `attempt` gives something, or the session ended. The signal is watched from before the
    /// attempt, so none is missed.
    pub(crate) async fn wait<T>(
        &self,
        signal: &Notify,
        mut attempt: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, SessionError> {
        loop {
            let notified = signal.notified();
            let closed = self.closed_now();
            if let Some(done) = attempt(self) {
                return Ok(done);
            }
            if let Some(error) = closed {
                return Err(error);
            }
            notified.await;
        }
    }

    /// As [`wait`](Self::wait), for what one task takes from all that wait for it. They are woken one by one: who got
    /// something wakes the next, for whom there may be something too.
    async fn wait_in_turn<T>(
        &self,
        signal: &Notify,
        mut attempt: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, SessionError> {
        // Mostly there is something, and nothing is to be watched.
        let taken = match attempt(self) {
            Some(taken) => Ok(taken),
            None => self.wait(signal, attempt).await,
        };
        signal.notify_one();
        taken
    }

    /// How the session ended, once it has.
    pub(crate) fn closed_now(&self) -> Option<SessionError> {
        self.with(|waiters, _| waiters.closed.clone())
    }

    /// How the session ended, asked because an operation was told that it did.
    pub(crate) fn end(&self) -> SessionError {
        self.with(|waiters, core| {
            let core_reason = || core?.session_mut(self.0.session)?.close_reason().cloned();
            waiters.closed.clone().or_else(core_reason).unwrap_or(SessionError::LocallyClosed)
        })
    }

    pub(crate) async fn closed(&self) -> SessionError {
        match self.wait(&self.signals().life, Self::closed_now).await {
            Ok(error) | Err(error) => error,
        }
    }

    pub(crate) async fn close(&self, code: u32, reason: &str) -> Result<(), Undelivered> {
        self.command(|session, _| session.close(now(), code, reason));
        self.closed().await;
        let streams = self.look(|session| session.undelivered().to_vec()).unwrap_or_default();
        if streams.is_empty() { Ok(()) } else { Err(Undelivered { streams }) }
    }

    pub(crate) fn id(&self) -> Option<SessionId> {
        self.look(|session| session.id()).flatten()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.with(|waiters, _| waiters.is_connected)
    }

    pub(crate) fn stats(&self) -> SessionStats {
        let ended = || SessionStats { paths: Vec::new(), streams_open: 0, bytes_buffered: 0 };
        self.look(|session| session.stats()).unwrap_or_else(ended)
    }

    pub(crate) fn open(&self, dir: Dir) -> Result<StreamRef, OpenError> {
        let (handle, id) = self
            .command(|session, _| {
                let handle = session.open_stream(dir)?;
                let id = session.stream(handle).id().ok_or(OpenError::SessionClosed)?;
                Ok((handle, id))
            })
            .unwrap_or(Err(OpenError::SessionClosed))?;
        Ok(StreamRef { session: self.clone(), handle, id })
    }

    pub(crate) async fn open_sync(&self, dir: Dir) -> Result<StreamRef, OpenError> {
        let opened = self.wait_in_turn(self.signals().available(dir), |session| match session.open(dir) {
            Err(OpenError::LimitReached { .. } | OpenError::BudgetTaken) => None,
            opened => Some(opened),
        });
        opened.await.unwrap_or(Err(OpenError::SessionClosed))
    }

    pub(crate) async fn accept(&self, dir: Dir) -> Result<StreamRef, SessionError> {
        self.wait_in_turn(self.signals().opened(dir), |session| session.accept_now(dir)).await
    }

    fn accept_now(&self, dir: Dir) -> Option<StreamRef> {
        let (handle, id) = self
            .command(|session, _| {
                let handle = session.accept_stream(dir)?;
                Some((handle, session.stream(handle).id()?))
            })
            .flatten()?;
        Some(StreamRef { session: self.clone(), handle, id })
    }
}

impl StreamRef {
    /// Runs `command` on the stream; `None` if the core no longer has its session.
    pub(crate) fn command<R>(
        &self,
        command: impl FnOnce(&mut kwik_core::StreamMut<'_>, &mut Waiters) -> R,
    ) -> Option<R> {
        self.session.command(|session, waiters| command(&mut session.stream_mut(self.handle), waiters))
    }

    /// One attempt of the read half. `attempt` gives `None` when it must wait: the task is then woken on its next
    /// event.
    pub(crate) fn poll_recv<T>(
        &self,
        cx: &Context<'_>,
        attempt: impl FnOnce(&mut kwik_core::StreamMut<'_>) -> Option<T>,
    ) -> Poll<Result<T, SessionError>> {
        self.poll_half(cx, attempt, |waiters| &mut waiters.readers)
    }

    /// One attempt of the write half, as [`poll_recv`](Self::poll_recv).
    pub(crate) fn poll_send<T>(
        &self,
        cx: &Context<'_>,
        attempt: impl FnOnce(&mut kwik_core::StreamMut<'_>) -> Option<T>,
    ) -> Poll<Result<T, SessionError>> {
        self.poll_half(cx, attempt, |waiters| &mut waiters.writers)
    }

    fn poll_half<T>(
        &self,
        cx: &Context<'_>,
        attempt: impl FnOnce(&mut kwik_core::StreamMut<'_>) -> Option<T>,
        half: fn(&mut Waiters) -> &mut std::collections::BTreeMap<StreamHandle, std::task::Waker>,
    ) -> Poll<Result<T, SessionError>> {
        // A waker is foreign code, also when it is dropped: the replaced one outlives the lock.
        let mut replaced = None;
        let done = self.command(|stream, waiters| {
            let done = attempt(stream);
            if done.is_none() && waiters.closed.is_none() {
                replaced = half(waiters).insert(self.handle, cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(done)
        });
        match done {
            Some(Poll::Pending) => Poll::Pending,
            Some(Poll::Ready(Some(done))) => Poll::Ready(Ok(done)),
            Some(Poll::Ready(None)) | None => Poll::Ready(Err(self.session.end())),
        }
    }
}
