//! The state that the handles and the driver of one worker of an endpoint share.

pub(crate) mod handle;
pub(crate) mod workers;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::{Duration, Instant, SystemTime},
};

use kwik_core::{
    Endpoint, ErrorCode, ProtocolEvent, ServerConfig, SessionError, SessionEvent, SessionHandle, TransportCode,
};
use rand::{TryRngCore, rngs::OsRng};
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::{
    config::EndpointConfig,
    endpoint::workers::Group,
    error::{BindError, ListenError},
    log,
    udp::{UdpIo, mtu},
    waiters::{Signals, Waiters, Wakes},
};

/// One worker of an endpoint, as its handles and its driver see it.
pub(crate) struct Shared {
    state: Mutex<EndpointState>,
    /// Which of the endpoint's workers it is.
    pub(crate) index: usize,
    pub(crate) group: Arc<Group>,
    /// The driver ended and closed its socket.
    pub(crate) ended: Arc<Notify>,
}

/// What the lock guards.
pub(crate) struct EndpointState {
    pub(crate) core: Endpoint,
    sessions: BTreeMap<SessionHandle, Waiters>,
    index: usize,
    group: Arc<Group>,
    /// Whether there is a handle with which sessions may start.
    is_open: bool,
    /// Whether there is a listener.
    is_listening: bool,
    /// Whether this end dials, or did.
    dials: bool,
    /// What the driver is to go on with.
    socket: Option<Box<UdpIo>>,
    /// Whether the driver ends without waiting for handles to be dropped.
    is_closing: bool,
    pub(crate) is_ended: bool,
    /// The driver went before its time, with its runtime: what the core would still do, nobody carries out.
    is_abandoned: bool,
    /// The sleeping driver, and until when it sleeps.
    driver: Option<Waker>,
    driver_deadline: Option<Instant>,
    wake_requested: bool,
}

impl Shared {
    /// As many workers of one endpoint.
    pub(crate) fn workers(
        config: &EndpointConfig,
        local_addr: SocketAddr,
        count: usize,
    ) -> Result<Vec<Arc<Self>>, BindError> {
        let mut core = kwik_core::EndpointConfig::new(*os_seed()?, unix_now());
        core.transport = config.transport;
        core.timer_slack = Duration::from_millis(250);
        core.mtu_towards = Some(mtu::towards());
        core.limits = config.limits.clone();
        core.event_detail = log::detail();
        let (cores, routing) = Endpoint::workers(core, u16::try_from(count).unwrap_or(u16::MAX), now())?;
        let group = Arc::new(Group::new(cores.len(), routing, local_addr, config.limits.accept_queue_sessions));
        let workers = cores.into_iter().enumerate();
        let workers = workers.map(|(index, core)| Arc::new(Self::new(core, index, &group)));
        Ok(workers.collect())
    }

    fn new(core: Endpoint, index: usize, group: &Arc<Group>) -> Self {
        let state = EndpointState {
            core,
            sessions: BTreeMap::new(),
            index,
            group: Arc::clone(group),
            is_open: true,
            is_listening: false,
            dials: false,
            socket: None,
            is_closing: false,
            is_ended: false,
            is_abandoned: false,
            driver: None,
            driver_deadline: None,
            wake_requested: false,
        };
        Self { state: Mutex::new(state), index, group: Arc::clone(group), ended: Arc::default() }
    }

    /// Runs `command` under the lock, then wakes the driver if the command gave it work.
    pub(crate) fn with<R>(&self, command: impl FnOnce(&mut EndpointState) -> R) -> R {
        let (result, driver) = {
            let mut state = self.lock();
            let result = command(&mut state);
            (result, state.take_driver_if_due())
        };
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// The driver's way in: nobody is woken.
    pub(crate) fn lock(&self) -> MutexGuard<'_, EndpointState> {
        // The core holds its invariants between calls; a panic elsewhere under the lock does not spoil them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver is gone: nothing will move again.
    pub(crate) fn on_driver_ended(&self) {
        let mut wakes = Wakes::default();
        let socket = {
            let mut state = self.lock();
            state.is_abandoned = !state.is_finished();
            state.is_open = false;
            if std::mem::take(&mut state.is_listening) {
                // Their waiters hear below that nobody drives them any more.
                self.group.queue.close(self.index);
            }
            state.is_ended = true;
            for waiters in state.sessions.values_mut() {
                waiters.on_closed(SessionError::NotDriven, &mut wakes);
            }
            wakes.notify(&self.group.queue.changed);
            wakes.notify(&self.ended);
            wakes.notify(&self.group.idle);
            state.socket.take()
        };
        drop(socket);
        self.group.close_inbox(self.index);
        wakes.fire();
    }
}

impl EndpointState {
    /// Enters a new session; the driver lives at least until [`release`](Self::release).
    pub(crate) fn add_session(&mut self, session: SessionHandle) -> Arc<Signals> {
        Arc::clone(&self.waiters(session).0.signals)
    }

    /// The waiters of a session, which are there for as long as a handle of it is, and the core as long as it is driven.
    pub(crate) fn waiters(&mut self, session: SessionHandle) -> (&mut Waiters, Option<&mut Endpoint>) {
        let is_ended = self.is_ended;
        let waiters = self
            .sessions
            .entry(session)
            .or_insert_with(|| Waiters { closed: is_ended.then_some(SessionError::NotDriven), ..Waiters::default() });
        (waiters, Some(&mut self.core).filter(|_| !self.is_abandoned))
    }

    /// The last handle of a session is gone. What is returned may hold foreign wakers: drop it after the lock.
    #[must_use]
    pub(crate) fn release(&mut self, session: SessionHandle) -> Option<Waiters> {
        self.core.release(now(), session);
        self.wake_requested = true;
        self.sessions.remove(&session)
    }

    /// Whether sessions may start here.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closing || self.is_ended
    }

    /// Begins to accept sessions. There must be no listener.
    pub(crate) fn start_listening(&mut self, config: ServerConfig) -> Result<(), ListenError> {
        if self.is_closed() {
            return Err(ListenError::EndpointClosed);
        }
        if self.is_listening {
            return Err(ListenError::AlreadyListening);
        }
        self.core.listen(Some(config))?;
        self.is_listening = true;
        self.group.queue.open();
        Ok(())
    }

    /// Goes on to accept sessions, with another configuration.
    pub(crate) fn listen_anew(&mut self, config: ServerConfig) -> Result<(), ListenError> {
        if self.is_closed() {
            return Err(ListenError::EndpointClosed);
        }
        Ok(self.core.listen(Some(config))?)
    }

    /// No session is accepted any more; those nobody took are closed.
    #[must_use]
    pub(crate) fn stop_listening(&mut self) -> Vec<Waiters> {
        self.wake_requested = true;
        // Only a configuration can be refused.
        let _ = self.core.listen(None);
        if !std::mem::take(&mut self.is_listening) {
            return Vec::new();
        }
        let untaken = self.group.queue.close(self.index);
        untaken.into_iter().filter_map(|session| self.release(session)).collect()
    }

    /// Closes everything; the driver ends when the peers were told.
    pub(crate) fn close(&mut self, code: u32, reason: &str) -> Vec<Waiters> {
        self.core.close_all(now(), code, reason);
        self.is_closing = true;
        self.stop_listening()
    }

    /// The driver goes on with another socket. Returns one that it does not use, to be dropped after the lock.
    #[must_use]
    fn move_to(&mut self, socket: UdpIo) -> Option<Box<UdpIo>> {
        if self.is_ended {
            return Some(Box::new(socket));
        }
        self.wake_requested = true;
        self.socket.replace(Box::new(socket))
    }

    /// The last handle with which sessions may start is gone.
    fn close_door(&mut self) {
        self.is_open = false;
        self.wake_requested = true;
    }

    /// This end dials from now on: it hears of addresses that cannot be reached.
    pub(crate) fn note_dial(&mut self) {
        self.wake_requested |= !std::mem::replace(&mut self.dials, true);
    }

    /// Whether no session is left, or none is driven any more.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_ended || self.core.is_idle()
    }

    /// Drains at most `max` events of the core; returns whether there may be more.
    pub(crate) fn drain_events(&mut self, max: usize, wakes: &mut Wakes) -> bool {
        for _ in 0..max {
            let Some((session, event)) = self.core.poll_event() else { return false };
            if event == SessionEvent::Incoming {
                self.on_incoming(session);
                wakes.notify(&self.group.queue.changed);
            } else if let Some(waiters) = self.sessions.get_mut(&session) {
                waiters.on_event(event, wakes);
            }
        }
        true
    }

    /// What the protocol did since this was last asked.
    pub(crate) fn take_protocol_events(&mut self) -> Vec<ProtocolEvent> {
        std::iter::from_fn(|| self.core.poll_protocol_event()).collect()
    }

    /// Whether the driver has nothing left to do, ever.
    pub(crate) fn is_finished(&self) -> bool {
        self.core.is_idle() && (self.is_closing || (!self.is_open && self.sessions.is_empty()))
    }

    /// The driver goes to sleep until the deadline returned, or until a command gives it work. With a `tick` it sleeps
    /// until then even if more is due. The waker returned is to be dropped after the lock.
    pub(crate) fn park_driver(
        &mut self,
        now: Instant,
        tick: Option<Instant>,
        driver: &Waker,
    ) -> (Option<Instant>, Option<Waker>) {
        let next = if self.wake_requested { Some(now) } else { self.core.poll_timeout() };
        self.driver_deadline = match tick {
            Some(tick) => Some(next.map_or(tick, |next| next.max(tick))),
            None => next,
        };
        (self.driver_deadline, self.driver.replace(driver.clone()))
    }

    /// Takes what earlier commands asked of the driver: what wakes it, the socket to go on with, and whether it dials.
    pub(crate) fn unpark_driver(&mut self) -> (Option<Waker>, Option<Box<UdpIo>>, bool) {
        self.wake_requested = false;
        (self.driver.take(), self.socket.take(), self.dials)
    }

    /// The driver is polled again in any case: until it sleeps, nothing wakes it.
    #[must_use]
    pub(crate) fn stay_awake(&mut self) -> Option<Waker> {
        self.driver.take()
    }

    /// The core promises a deadline in the past while anything is queued, so an earlier deadline is new work.
    fn take_driver_if_due(&mut self) -> Option<Waker> {
        self.driver.as_ref()?;
        let is_earlier = match (self.core.poll_timeout(), self.driver_deadline) {
            (Some(next), Some(armed)) => next < armed,
            (next, _) => next.is_some(),
        };
        if is_earlier || self.wake_requested { self.driver.take() } else { None }
    }

    fn on_incoming(&mut self, session: SessionHandle) {
        if self.is_listening {
            // Before anybody can take it.
            self.add_session(session);
            if self.group.queue.push(self.index, session) {
                return;
            }
            self.sessions.remove(&session);
        }
        tracing::debug!("a session was refused: nobody accepts");
        self.core.refuse(now(), session);
    }
}

/// The time of the runtime, which tests may pause.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// 32 bytes of the operating system's randomness.
pub(crate) fn os_seed() -> io::Result<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    OsRng.try_fill_bytes(&mut *seed).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(seed)
}

/// The code that stands for the end of a session in what was lost by it.
pub(crate) fn close_code(error: &SessionError) -> ErrorCode {
    match error {
        SessionError::LocallyClosed | SessionError::NotDriven => TransportCode::ENDED_HERE.into(),
        SessionError::ClosedByPeer { code, .. } => ErrorCode::Application(*code),
        SessionError::Transport { code, .. } => (*code).into(),
        SessionError::TimedOut => TransportCode::TIMED_OUT.into(),
    }
}

pub(crate) fn unix_now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
