//! One stream that several servers write.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    future::{Future, poll_fn},
    io,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use bytes::Bytes;
use kwik_core::{
    Adaptive, DelegateError, DistributeError as CoreError, DistributionReport, Distributor, PathId, Policy, ReadOrder,
};
use tokio::{sync::Notify, time::sleep_until};

use crate::{
    endpoint::now,
    error::DistributeError,
    session::StreamRef,
    waiters::{Wakes, contained},
};

/// What the server of a path reads first with a range of the stream.
type RequestFn = Box<dyn FnMut(Range<u64>) -> Bytes + Send>;
/// Reads a range of the primary's own.
type ReadFn = Box<dyn FnMut(Range<u64>) -> ReadFuture + Send>;
type ReadFuture = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

/// A range of a stream that is about to be written by several servers. Made by
/// [`ServerSendStream::distribute`](crate::ServerSendStream::distribute); [`run`](Self::run) does it.
///
/// Each source gets what it can deliver, measured all the time; what it does not deliver when others would is taken back and
/// left to them. A source may come and go meanwhile, through a [`DistributionHandle`]. Secondaries need nothing for it: each
/// accepts the ranges it is granted as streams, as with [`delegate`](crate::ServerSendStream::delegate).
///
/// The stream is not finished by it, so that something may follow; call [`finish`](crate::SendStream::finish) when the end of
/// the stream is the end of the last range. (PROTOCOL.md §8)
pub struct Distribution {
    handle: DistributionHandle,
    range: Range<u64>,
    order: ReadOrder,
    policy: Option<Box<dyn Policy>>,
    read: Option<ReadFn>,
}

/// Changes a [`Distribution`] while it runs, and tells how it stands. Clones are handles of the same one.
#[derive(Clone)]
pub struct DistributionHandle {
    stream: StreamRef,
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Something happened that the distribution is to look at.
    changed: Arc<Notify>,
}

struct Inner {
    /// `None` until it runs.
    distributor: Option<Distributor>,
    requests: BTreeMap<PathId, RequestFn>,
    /// Sources that are to be added when it runs, in their order.
    sources: Vec<PathId>,
    /// Ranges that came besides the first.
    more: Vec<Range<u64>>,
    /// More ranges may come.
    is_live: bool,
    /// It ran, and does not any more.
    is_over: bool,
}

impl Distribution {
    pub(crate) fn new(stream: StreamRef, range: Range<u64>) -> Self {
        let (requests, sources, more) = (BTreeMap::new(), Vec::new(), Vec::new());
        let inner = Inner { distributor: None, requests, sources, more, is_live: false, is_over: false };
        let shared = Arc::new(Shared { inner: Mutex::new(inner), changed: Arc::default() });
        let handle = DistributionHandle { stream, shared };
        Self { handle, range, order: ReadOrder::Ordered, policy: None, read: None }
    }

    /// Has the server of `path` write ranges as well; it has to be able to write every byte. `request` gives what its
    /// application reads first with a range, at most 8,192 bytes. The path may be added to the session but not joined yet.
    #[must_use]
    pub fn source(self, path: PathId, request: impl FnMut(Range<u64>) -> Bytes + Send + 'static) -> Self {
        self.handle.add_source(path, request);
        self
    }

    /// Has the primary itself write ranges as well: `read` gives the bytes of a range, at least one of them. If it fails, the
    /// primary is left out, and the others write the rest.
    #[must_use]
    pub fn source_local<F>(mut self, mut read: impl FnMut(Range<u64>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<Bytes>> + Send + 'static,
    {
        self.handle.lock().sources.push(PathId::PRIMARY);
        self.read = Some(Box::new(move |range| Box::pin(read(range))));
        self
    }

    /// In which order the client reads: [`ReadOrder::Ordered`] by default. With [`ReadOrder::Unordered`] no server is hurried
    /// because the reader waits for its bytes.
    #[must_use]
    pub fn read_order(mut self, order: ReadOrder) -> Self {
        self.order = order;
        self
    }

    /// Who writes what: [`Adaptive`] by default. It is asked while the endpoint is locked, so it must not call anything of this
    /// crate.
    #[must_use]
    pub fn policy(mut self, policy: Box<dyn Policy>) -> Self {
        self.policy = Some(policy);
        self
    }

    /// More ranges will come, by [`DistributionHandle::extend`], until [`DistributionHandle::end`]: for a source that is
    /// written while it is distributed.
    #[must_use]
    pub fn live(self) -> Self {
        self.handle.lock().is_live = true;
        self
    }

    /// A handle for while it runs.
    #[must_use]
    pub fn handle(&self) -> DistributionHandle {
        self.handle.clone()
    }

    /// Distributes. Returns when the client has every range of the secondaries, and the stream took the primary's.
    ///
    /// # Errors
    /// [`DistributeError`], when the rest cannot be written: the client stopped the stream, the session ended, a request did
    /// not fit, or no source is left. What was written or delegated before still arrives.
    ///
    /// # Cancel safety
    /// A dropped call leaves holes in the stream: ranges that nobody was given, and those that are lost later.
    pub async fn run(self) -> Result<DistributionReport, DistributeError> {
        let Self { handle, range, order, policy, mut read } = self;
        let policy = policy.unwrap_or_else(|| Box::new(Adaptive::new(order)));
        handle.begin(Distributor::new(handle.stream.handle, range, policy));
        let registered = Registered::new(&handle);
        let mut reading: Option<(u64, ReadFuture)> = None;
        let mut failed = None;
        loop {
            let changed = handle.shared.changed.notified();
            tokio::pin!(changed);
            // Watched from before the look, so that nothing is missed.
            changed.as_mut().enable();
            registered.act()?;
            if let Some(end) = handle.end_now(&mut failed) {
                return end;
            }
            if reading.is_none() {
                reading = handle.next_own().and_then(|range| {
                    let start = range.start;
                    read.as_mut().map(|read| (start, read(range)))
                });
            }
            let timeout = handle.timeout();
            tokio::pin!(timeout);
            let read_now = poll_fn(|cx| {
                let data = reading.as_mut().map_or(Poll::Pending, |(_, read)| read.as_mut().poll(cx));
                if let Poll::Ready(data) = data {
                    return Poll::Ready(Some(data));
                }
                let is_woken = changed.as_mut().poll(cx).is_ready() || timeout.as_mut().poll(cx).is_ready();
                if is_woken { Poll::Ready(None) } else { Poll::Pending }
            });
            if let Some(data) = read_now.await
                && let Some((offset, _)) = reading.take()
            {
                handle.on_read(offset, data, &mut failed);
            }
        }
    }
}

impl DistributionHandle {
    /// As [`Distribution::source`]. A path that is a source already gives its requests by this from now on.
    pub fn add_source(&self, path: PathId, request: impl FnMut(Range<u64>) -> Bytes + Send + 'static) {
        if path.is_primary() {
            return;
        }
        let mut inner = self.lock();
        if inner.is_over {
            return;
        }
        let replaced = inner.requests.insert(path, Box::new(request));
        if let Some(distributor) = &mut inner.distributor {
            distributor.add_source(now(), path);
        } else if !inner.sources.contains(&path) {
            inner.sources.push(path);
        }
        drop(inner);
        drop(replaced);
        self.shared.changed.notify_waiters();
    }

    /// Leaves nothing more to a source, and takes back what it has. It may be added again.
    pub fn remove_source(&self, path: PathId) {
        let mut inner = self.lock();
        let removed = inner.requests.remove(&path);
        match &mut inner.distributor {
            Some(distributor) => distributor.remove_source(path),
            None => inner.sources.retain(|source| *source != path),
        }
        drop(inner);
        drop(removed);
        self.shared.changed.notify_waiters();
    }

    /// More of the stream is to be written. What was given before changes nothing; nor does a call after the end.
    pub fn extend(&self, range: Range<u64>) {
        let mut inner = self.lock();
        match &mut inner.distributor {
            Some(distributor) => distributor.extend(range),
            None => inner.more.push(range),
        }
        drop(inner);
        self.shared.changed.notify_waiters();
    }

    /// No more ranges come: [`Distribution::run`] returns when it is through with those that did.
    pub fn end(&self) {
        self.lock().is_live = false;
        self.shared.changed.notify_waiters();
    }

    /// What every source did so far; nothing before it runs.
    #[must_use]
    pub fn report(&self) -> Option<DistributionReport> {
        self.lock().distributor.as_ref().map(Distributor::report)
    }

    /// No closure of the application runs under this lock, and none is dropped: what it holds may want a lock as well. Only a
    /// policy is asked under it.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, mut distributor: Distributor) {
        let (mut inner, now) = (self.lock(), now());
        for path in std::mem::take(&mut inner.sources) {
            distributor.add_source(now, path);
        }
        for range in std::mem::take(&mut inner.more) {
            distributor.extend(range);
        }
        inner.distributor = Some(distributor);
    }

    fn next_own(&self) -> Option<Range<u64>> {
        self.lock().distributor.as_mut()?.poll_own()
    }

    /// The next range whose request is to be asked for, with who gives it.
    fn next_request(&self) -> Option<(PathId, Range<u64>, RequestFn)> {
        let mut inner = self.lock();
        loop {
            let (path, range) = inner.distributor.as_mut()?.poll_request()?;
            // The range of a source that was removed goes to another.
            if let Some(request) = inner.requests.remove(&path) {
                return Some((path, range, request));
            }
        }
    }

    fn on_read(&self, offset: u64, data: io::Result<Bytes>, failed: &mut Option<io::Error>) {
        let mut inner = self.lock();
        let Some(distributor) = &mut inner.distributor else { return };
        match data {
            Ok(data) if !data.is_empty() => distributor.supply(offset, data),
            data => {
                *failed = Some(data.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
                distributor.remove_source(PathId::PRIMARY);
            }
        }
    }

    /// How the distribution ended, if it did.
    fn end_now(&self, failed: &mut Option<io::Error>) -> Option<Result<DistributionReport, DistributeError>> {
        let inner = self.lock();
        let distributor = inner.distributor.as_ref()?;
        if distributor.is_stranded() && !inner.is_live {
            return Some(Err(DistributeError::NoSource { cause: failed.take(), report: distributor.report() }));
        }
        (distributor.is_done() && !inner.is_live).then(|| Ok(distributor.report()))
    }

    async fn timeout(&self) {
        let deadline = self.lock().distributor.as_ref().and_then(Distributor::poll_timeout);
        match deadline {
            Some(at) => sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }
}

/// A distribution that the session wakes. When it is dropped, nobody asks any more what becomes of its ranges.
struct Registered<'a> {
    handle: &'a DistributionHandle,
}

impl<'a> Registered<'a> {
    fn new(handle: &'a DistributionHandle) -> Self {
        let changed = Arc::clone(&handle.shared.changed);
        handle.stream.session.with(|waiters, _| waiters.distributions.push((handle.stream.handle, changed)));
        Self { handle }
    }

    /// Has the distributor act until it asks for nothing that can be answered at once.
    fn act(&self) -> Result<(), DistributeError> {
        let stream = &self.handle.stream;
        loop {
            let acted = stream.session.command(|session, _| {
                let mut inner = self.handle.lock();
                inner.distributor.as_mut().map_or(Ok(()), |distributor| distributor.act(now(), session))
            });
            acted.unwrap_or(Err(CoreError::SessionClosed)).map_err(|error| self.error(error))?;
            let mut is_answered = false;
            while let Some((path, range, mut request)) = self.handle.next_request() {
                let answer = request(range.clone());
                let mut inner = self.handle.lock();
                // It may have been added anew meanwhile, with another.
                let unused = match inner.requests.entry(path) {
                    Entry::Vacant(entry) => {
                        entry.insert(request);
                        None
                    }
                    Entry::Occupied(_) => Some(request),
                };
                if let Some(distributor) = &mut inner.distributor {
                    distributor.answer(path, range, answer);
                }
                drop(inner);
                drop(unused);
                is_answered = true;
            }
            if !is_answered {
                return Ok(());
            }
        }
    }

    fn error(&self, error: CoreError) -> DistributeError {
        match error {
            CoreError::Stopped(code) => DistributeError::Stopped(code),
            CoreError::ClosedStream => DistributeError::ClosedStream,
            CoreError::SessionClosed => DistributeError::Session(self.handle.stream.session.end()),
            CoreError::NotPrimary => DistributeError::Refused(DelegateError::NotPrimary),
            CoreError::Refused(error) => DistributeError::Refused(error),
        }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let handle = self.handle;
        // They may hold handles of this very distribution, and with them the session.
        let requests = {
            let mut inner = handle.lock();
            inner.is_over = true;
            std::mem::take(&mut inner.requests)
        };
        contained(|| drop(requests));
        let mut wakes = Wakes::default();
        contained(|| {
            handle.stream.session.with(|waiters, _| {
                waiters.distributions.retain(|(_, changed)| !Arc::ptr_eq(changed, &handle.shared.changed));
            });
            handle.stream.session.command(|session, waiters| {
                if let Some(distributor) = &mut handle.lock().distributor {
                    distributor.release(session);
                }
                // Room that it was told of is another's.
                session.stream_mut(handle.stream.handle).cancel_write();
                waiters.wake_writers(handle.stream.handle, &mut wakes);
            });
        });
        wakes.fire();
    }
}

impl fmt::Debug for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Distribution")
            .field("stream", &self.handle.stream.id)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DistributionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistributionHandle").field("stream", &self.stream.id).finish_non_exhaustive()
    }
}
