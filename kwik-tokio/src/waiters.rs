//! Who waits for what in a session, and how they are woken once the endpoint's lock is released.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::Waker,
};

use kwik_core::{Dir, ErrorCode, GrantId, PathEvent, PathId, SessionError, SessionEvent, StreamEvent, StreamHandle};
use tokio::sync::{Notify, broadcast};

/// Path events kept for a slow reader.
const PATH_EVENTS_KEPT: usize = 256;

/// What a session's tasks wait for. Reached without the lock.
#[derive(Default)]
pub(crate) struct Signals {
    /// Connected, welcomed or closed.
    pub(crate) life: Arc<Notify>,
    opened: [Arc<Notify>; 2],
    available: [Arc<Notify>; 2],
    /// A raw packet can be taken.
    pub(crate) raw_received: Arc<Notify>,
    /// A raw packet was acknowledged or refused, so that another fits.
    pub(crate) raw_sent: Arc<Notify>,
    /// A path changed its state.
    pub(crate) paths: Arc<Notify>,
}

impl Signals {
    /// The peer opened a stream.
    pub(crate) fn opened(&self, dir: Dir) -> &Arc<Notify> {
        by_dir(&self.opened, dir)
    }

    /// A stream can be opened.
    pub(crate) fn available(&self, dir: Dir) -> &Arc<Notify> {
        by_dir(&self.available, dir)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Notify>> {
        [&self.life, &self.raw_received, &self.raw_sent, &self.paths]
            .into_iter()
            .chain(&self.opened)
            .chain(&self.available)
    }
}

fn by_dir(pair: &[Arc<Notify>; 2], dir: Dir) -> &Arc<Notify> {
    let [bi, uni] = pair;
    match dir {
        Dir::Bi => bi,
        Dir::Uni => uni,
    }
}

/// The waiters of one session that are kept under the lock, beside what its events have told.
#[derive(Default)]
pub(crate) struct Waiters {
    pub(crate) signals: Arc<Signals>,
    pub(crate) is_connected: bool,
    /// How the session ended. Set once.
    pub(crate) closed: Option<SessionError>,
    // Every method of a half that waits borrows it mutably, so each half has one waiter at most.
    pub(crate) readers: BTreeMap<StreamHandle, Waker>,
    pub(crate) writers: BTreeMap<StreamHandle, Waker>,
    /// Tasks that write ranges beside the writer of a stream.
    pub(crate) range_writers: BTreeMap<StreamHandle, Arc<Notify>>,
    pub(crate) delegations: BTreeMap<GrantId, Arc<Notify>>,
    /// Distributions that run, with their streams. Each looks at all that concerns it when it is woken.
    pub(crate) distributions: Vec<(StreamHandle, Arc<Notify>)>,
    /// Raw packets whose sender waits, and the answer once there is one.
    pub(crate) receipts: BTreeMap<(PathId, u64), Option<Result<(), ErrorCode>>>,
    /// Made for the first who asks, since it has room for all events that are kept. `None` once the session is closed, so
    /// that its readers see the end.
    pub(crate) path_events: Option<broadcast::Sender<PathEvent>>,
}

impl Waiters {
    /// What happens to the paths from now on.
    pub(crate) fn path_events(&mut self) -> broadcast::Receiver<PathEvent> {
        if self.closed.is_some() {
            return broadcast::Sender::new(1).subscribe();
        }
        self.path_events.get_or_insert_with(|| broadcast::Sender::new(PATH_EVENTS_KEPT)).subscribe()
    }

    /// Notes what an event tells and collects whom it wakes.
    pub(crate) fn on_event(&mut self, event: SessionEvent, wakes: &mut Wakes) {
        match event {
            SessionEvent::Incoming => {}
            SessionEvent::DelegationRoom(_) => self.wake_distributions(wakes),
            SessionEvent::Connected => {
                self.is_connected = true;
                wakes.notify(&self.signals.life);
            }
            SessionEvent::Welcomed => wakes.notify(&self.signals.life),
            SessionEvent::Stream(event) => self.on_stream_event(&event, wakes),
            SessionEvent::Path(event) => {
                wakes.notify(&self.signals.paths);
                wakes.notify(&self.signals.raw_sent);
                self.wake_distributions(wakes);
                if let Some(events) = &self.path_events {
                    wakes.path_events.push((events.clone(), Some(event)));
                }
            }
            SessionEvent::RawReadable => wakes.notify(&self.signals.raw_received),
            SessionEvent::RawStatus { to, sequence, result } => {
                if let Some(answer) = self.receipts.get_mut(&(to, sequence)) {
                    *answer = Some(result);
                }
                wakes.notify(&self.signals.raw_sent);
            }
            SessionEvent::Delegation(grant) => match self.delegations.get(&grant) {
                Some(changed) => wakes.notify(changed),
                None => self.wake_distributions(wakes),
            },
            SessionEvent::Closed(error) => self.on_closed(error, wakes),
        }
    }

    /// Notes the end of the session and wakes everyone.
    pub(crate) fn on_closed(&mut self, error: SessionError, wakes: &mut Wakes) {
        self.closed.get_or_insert(error);
        self.signals.all().for_each(|signal| wakes.notify(signal));
        self.delegations.values().chain(self.range_writers.values()).for_each(|changed| wakes.notify(changed));
        self.wake_distributions(wakes);
        wakes.tasks.extend(std::mem::take(&mut self.readers).into_values());
        wakes.tasks.extend(std::mem::take(&mut self.writers).into_values());
        wakes.path_events.extend(self.path_events.take().map(|events| (events, None)));
    }

    /// Collects all that wait to write a stream.
    pub(crate) fn wake_writers(&mut self, stream: StreamHandle, wakes: &mut Wakes) {
        wakes.tasks.extend(self.writers.remove(&stream));
        if let Some(writers) = self.range_writers.get(&stream) {
            wakes.notify(writers);
        }
        let distributions = self.distributions.iter().filter(|(of, _)| *of == stream);
        distributions.for_each(|(_, changed)| wakes.notify(changed));
    }

    fn wake_distributions(&self, wakes: &mut Wakes) {
        self.distributions.iter().for_each(|(_, changed)| wakes.notify(changed));
    }

    fn on_stream_event(&mut self, event: &StreamEvent, wakes: &mut Wakes) {
        match event {
            StreamEvent::Opened { dir } => wakes.notify_one(self.signals.opened(*dir)),
            StreamEvent::Available { dir } => wakes.notify_one(self.signals.available(*dir)),
            StreamEvent::Readable(stream) => wakes.tasks.extend(self.readers.remove(stream)),
            StreamEvent::Writable(stream) | StreamEvent::Stopped { stream, .. } | StreamEvent::Finished(stream) => {
                self.wake_writers(*stream, wakes);
            }
        }
    }
}

/// Whom to wake when the lock is released. A waker is foreign code: it never runs under the lock.
#[derive(Default)]
pub(crate) struct Wakes {
    tasks: Vec<Waker>,
    notifies: Vec<Arc<Notify>>,
    turns: Vec<Arc<Notify>>,
    path_events: Vec<(broadcast::Sender<PathEvent>, Option<PathEvent>)>,
}

impl Wakes {
    pub(crate) fn notify(&mut self, notify: &Arc<Notify>) {
        self.notifies.push(Arc::clone(notify));
    }

    /// Wakes one of those that wait. It wakes the next when it got what it wanted.
    pub(crate) fn notify_one(&mut self, notify: &Arc<Notify>) {
        self.turns.push(Arc::clone(notify));
    }

    /// Wakes them. The lock must not be held. A waker that panics keeps nobody else asleep.
    pub(crate) fn fire(self) {
        self.notifies.iter().for_each(|notify| contained(|| notify.notify_waiters()));
        self.turns.iter().for_each(|notify| contained(|| notify.notify_one()));
        self.tasks.into_iter().for_each(|task| contained(|| task.wake()));
        for (events, event) in self.path_events {
            // No reader is no error.
            if let Some(event) = event {
                contained(|| drop(events.send(event)));
            }
        }
    }
}

/// Runs what must not unwind any further: foreign wakers, and destructors, which abort a program that unwinds already if
/// they panic as well.
pub(crate) fn contained(work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        tracing::error!("a waker or a destructor panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(waiters: &mut Waiters, event: SessionEvent) {
        let mut wakes = Wakes::default();
        waiters.on_event(event, &mut wakes);
        wakes.fire();
    }

    #[tokio::test]
    async fn a_closed_session_wakes_who_waits_for_anything() {
        let mut waiters = Waiters::default();
        let changed = Arc::clone(waiters.delegations.entry(GrantId(1)).or_default());
        let signals = Arc::clone(&waiters.signals);
        let waiting: Vec<_> = signals.all().chain([&changed]).map(|signal| signal.notified()).collect();
        apply(&mut waiters, SessionEvent::Closed(SessionError::TimedOut));
        for notified in waiting {
            notified.await;
        }
        assert_eq!(waiters.closed, Some(SessionError::TimedOut));
    }

    #[tokio::test]
    async fn path_events_end_with_the_session() {
        let mut waiters = Waiters::default();
        let mut events = waiters.path_events();
        apply(&mut waiters, SessionEvent::Path(PathEvent::Joined(PathId(1))));
        apply(&mut waiters, SessionEvent::Closed(SessionError::LocallyClosed));
        assert_eq!(events.recv().await, Ok(PathEvent::Joined(PathId(1))));
        for mut events in [events, waiters.path_events()] {
            assert_eq!(events.recv().await, Err(broadcast::error::RecvError::Closed));
        }
    }

    #[test]
    fn an_answer_reaches_only_a_sender_who_still_waits() {
        let mut waiters = Waiters::default();
        let status = |sequence| SessionEvent::RawStatus { to: PathId(1), sequence, result: Ok(()) };
        waiters.receipts.insert((PathId(1), 7), None);
        apply(&mut waiters, status(7));
        apply(&mut waiters, status(8));
        assert_eq!(waiters.receipts, BTreeMap::from([((PathId(1), 7), Some(Ok(())))]));
    }
}
