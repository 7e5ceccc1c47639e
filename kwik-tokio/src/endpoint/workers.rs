//! What the workers of one endpoint have in common: sessions that wait to be accepted, and datagrams that came to the
//! wrong worker.
//!
//! Each worker has a core, a lock, a socket and a driver of its own. Nobody holds the lock of one worker and takes that of
//! another.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};

use kwik_core::{DatagramMeta, EndpointStats, Routing, SessionHandle};
use tokio::sync::Notify;

use crate::{
    config::SocketConfig,
    udp::{UdpIo, Unreachable},
};

/// Datagrams that may wait for a worker, and their bytes: as much as a socket is asked to buffer by default. QUIC sends again what is
/// dropped beyond.
const INBOX_DATAGRAMS: usize = 4096;
const INBOX_BYTES: usize = 4 * 1024 * 1024;
/// Addresses that cannot be reached, of which a worker was not told yet.
const INBOX_UNREACHABLE: usize = 256;

/// What the workers of one endpoint share.
pub(crate) struct Group {
    /// `None` if there is one worker.
    routing: Option<Routing>,
    inboxes: Vec<Inbox>,
    pub(crate) queue: AcceptQueue,
    /// Locked for as long as it changes, so that all workers move to the same port.
    local_addr: Mutex<SocketAddr>,
    /// A worker has no session left.
    pub(crate) idle: Arc<Notify>,
    /// Workers that have nothing left to do. None closes its socket before the last one: the kernel counts them.
    finished: AtomicUsize,
}

/// What came to other workers for this one.
#[derive(Default)]
struct Inbox(Mutex<InboxState>);

#[derive(Default)]
struct InboxState {
    post: Post,
    driver: Option<Waker>,
    is_closed: bool,
    handed_over: u64,
    dropped: u64,
}

/// What a driver finds in its inbox.
#[derive(Default)]
pub(crate) struct Post {
    bytes: Vec<u8>,
    /// Each with the end of its bytes.
    datagrams: Vec<(DatagramMeta, usize)>,
    pub(crate) unreachable: Vec<Unreachable>,
}

impl Post {
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = (DatagramMeta, &[u8])> {
        let starts = std::iter::once(0).chain(self.datagrams.iter().map(|(_, end)| *end));
        let places = self.datagrams.iter().zip(starts);
        places.map(|((meta, end), start)| (*meta, self.bytes.get(start..*end).unwrap_or_default()))
    }

    pub(crate) fn has_datagrams(&self) -> bool {
        !self.datagrams.is_empty()
    }
}

/// One worker of an endpoint, as measured at this end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStats {
    /// What it has itself. `memory_bytes_max` is for all workers together.
    pub endpoint: EndpointStats,
    /// Datagrams that came to another worker and were handed over to this one. The system brings few elsewhere.
    pub handed_over: u64,
    /// Of those, the ones that were dropped, since more waited than it took.
    pub dropped: u64,
}

impl Group {
    pub(crate) fn new(workers: usize, routing: Routing, local_addr: SocketAddr, sessions_waiting_max: usize) -> Self {
        Self {
            routing: Some(routing).filter(|_| workers > 1),
            inboxes: (0..workers).map(|_| Inbox::default()).collect(),
            queue: AcceptQueue::new(sessions_waiting_max),
            local_addr: Mutex::new(local_addr),
            idle: Arc::default(),
            finished: AtomicUsize::new(0),
        }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        *self.lock_local_addr()
    }

    pub(super) fn lock_local_addr(&self) -> MutexGuard<'_, SocketAddr> {
        self.local_addr.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the kernel bring each datagram to the worker that it belongs to, if `config` says so. The `sockets` of a port
    /// are in the order of their workers.
    pub(super) fn steer(&self, sockets: &[UdpIo], config: SocketConfig) {
        if let (true, Some(routing), Some(socket)) = (config.steering, self.routing, sockets.first()) {
            socket.steer(routing);
        }
    }

    /// Whether there are several workers.
    pub(crate) fn is_shared(&self) -> bool {
        self.routing.is_some()
    }

    /// The worker that a datagram belongs to, if it is not `worker`.
    pub(crate) fn other_owner(&self, worker: usize, datagram: &[u8]) -> Option<usize> {
        self.routing?.owner(datagram).map(usize::from).filter(|owner| *owner != worker)
    }

    /// Gives datagrams to the workers that they belong to.
    pub(crate) fn hand_over(&self, mut strays: Vec<(usize, DatagramMeta, &[u8])>) {
        // In the order in which they came, for each.
        strays.sort_by_key(|(owner, ..)| *owner);
        for strays in strays.chunk_by(|(one, ..), (other, ..)| one == other) {
            let inbox = strays.first().and_then(|(owner, ..)| self.inboxes.get(*owner));
            let driver = inbox.and_then(|inbox| inbox.push(strays));
            wake(driver);
        }
    }

    /// Tells all workers but `worker` of addresses that cannot be reached: the system tells any of them.
    pub(crate) fn spread(&self, worker: usize, unreachable: &[Unreachable]) {
        for (_, inbox) in self.inboxes.iter().enumerate().filter(|(index, _)| *index != worker) {
            wake(inbox.push_unreachable(unreachable));
        }
    }

    /// What came for `worker`, whose driver is woken when there is more.
    pub(crate) fn take_post(&self, worker: usize, driver: &Waker) -> Post {
        let Some(inbox) = self.inboxes.get(worker).filter(|_| self.is_shared()) else { return Post::default() };
        let mut replaced = None;
        let post = {
            let mut state = inbox.lock();
            if state.driver.as_ref().is_none_or(|known| !known.will_wake(driver)) {
                replaced = state.driver.replace(driver.clone());
            }
            std::mem::take(&mut state.post)
        };
        // A waker is foreign code, also when it is dropped.
        drop(replaced);
        post
    }

    /// A worker has nothing left to do, ever. The last one wakes the others, which wait for that.
    pub(crate) fn on_finished(&self) {
        if self.finished.fetch_add(1, Ordering::AcqRel) + 1 == self.inboxes.len() {
            self.inboxes.iter().for_each(|inbox| wake(inbox.take_driver()));
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire) >= self.inboxes.len()
    }

    /// The driver of a worker is gone: nobody looks into its inbox.
    pub(crate) fn close_inbox(&self, worker: usize) {
        let Some(inbox) = self.inboxes.get(worker) else { return };
        let left = {
            let mut state = inbox.lock();
            state.is_closed = true;
            (std::mem::take(&mut state.post), state.driver.take())
        };
        drop(left);
    }

    pub(crate) fn stats(&self, worker: usize, endpoint: EndpointStats) -> WorkerStats {
        let counted = self.inboxes.get(worker).map(|inbox| {
            let state = inbox.lock();
            (state.handed_over, state.dropped)
        });
        let (handed_over, dropped) = counted.unwrap_or_default();
        WorkerStats { endpoint, handed_over, dropped }
    }
}

/// A waker is foreign code: no lock is held.
fn wake(driver: Option<Waker>) {
    if let Some(driver) = driver {
        driver.wake();
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, InboxState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_driver(&self) -> Option<Waker> {
        self.lock().driver.take()
    }

    /// Returns the driver if it is to be woken.
    fn push(&self, datagrams: &[(usize, DatagramMeta, &[u8])]) -> Option<Waker> {
        let mut state = self.lock();
        let InboxState { post, is_closed, handed_over, dropped, .. } = &mut *state;
        for (_, meta, datagram) in datagrams {
            let bytes = post.bytes.len() + datagram.len();
            *handed_over += 1;
            if *is_closed || post.datagrams.len() >= INBOX_DATAGRAMS || bytes > INBOX_BYTES {
                *dropped += 1;
            } else {
                post.bytes.extend_from_slice(datagram);
                post.datagrams.push((*meta, bytes));
            }
        }
        state.driver.take()
    }

    fn push_unreachable(&self, unreachable: &[Unreachable]) -> Option<Waker> {
        let mut state = self.lock();
        let room = INBOX_UNREACHABLE.saturating_sub(state.post.unreachable.len());
        state.post.unreachable.extend(unreachable.iter().take(room).copied());
        state.driver.take()
    }
}

/// Sessions that wait to be accepted, of all workers.
pub(crate) struct AcceptQueue {
    state: Mutex<Waiting>,
    max: usize,
    /// A session can be accepted, or none ever will.
    pub(crate) changed: Arc<Notify>,
}

#[derive(Default)]
struct Waiting {
    /// Each with its worker.
    sessions: VecDeque<(usize, SessionHandle)>,
    /// Workers that accept sessions.
    listening: usize,
}

/// What a listener finds when it looks for a session.
pub(crate) enum NextSession {
    Session { worker: usize, session: SessionHandle },
    NoneYet,
    NoneEver,
}

impl AcceptQueue {
    fn new(max: usize) -> Self {
        Self { state: Mutex::default(), max, changed: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker begins to accept sessions.
    pub(crate) fn open(&self) {
        self.lock().listening += 1;
    }

    /// A worker that accepted sessions stops. Returns those of its sessions that nobody took.
    pub(crate) fn close(&self, worker: usize) -> Vec<SessionHandle> {
        let mut waiting = self.lock();
        waiting.listening = waiting.listening.saturating_sub(1);
        let (own, others) = waiting.sessions.drain(..).partition(|(of, _)| *of == worker);
        waiting.sessions = others;
        let own: VecDeque<_> = own;
        own.into_iter().map(|(_, session)| session).collect()
    }

    /// Whether there was room for one more.
    pub(crate) fn push(&self, worker: usize, session: SessionHandle) -> bool {
        let mut waiting = self.lock();
        let has_room = waiting.sessions.len() < self.max;
        if has_room {
            waiting.sessions.push_back((worker, session));
        }
        has_room
    }

    pub(crate) fn pop(&self) -> NextSession {
        let mut waiting = self.lock();
        match waiting.sessions.pop_front() {
            Some((worker, session)) => NextSession::Session { worker, session },
            None if waiting.listening > 0 => NextSession::NoneYet,
            None => NextSession::NoneEver,
        }
    }
}

#[cfg(test)]
mod tests;
