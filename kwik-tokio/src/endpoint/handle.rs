//! The handle of an endpoint: one port, and a socket and a task of each worker, for any number of sessions.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use kwik_core::EndpointStats;
use tokio::runtime::Handle;

use super::{
    EndpointState, Shared,
    workers::{Group, WorkerStats},
};
use crate::{
    config::{EndpointConfig, Local, SocketConfig},
    driver::Driver,
    error::BindError,
    udp::UdpIo,
    waiters::contained,
};

/// One UDP port from which any number of sessions is dialled, and on which others are accepted.
///
/// On it run [`EndpointConfig::workers`], each with a socket and a task of its own: a session belongs to one of them.
///
/// [`dial`](crate::dial()) and [`listen`](crate::listen()) make one each, with the defaults of [`EndpointConfig`]. An
/// endpoint of one's own saves sockets and tasks where there are many sessions, dials from the port it listens on, and
/// can be configured and bound anew.
///
/// Clones are handles of the same endpoint. When the last one and the [`Listener`](crate::Listener) are dropped, sessions
/// live on until they end; then the port is free.
/// From the first dial on its sockets listen to ICMP errors where the system tells them (Linux); those of one that only
/// listens do not.
///
/// ```no_run
/// use kwik_tokio::{ClientConfig, Endpoint, EndpointConfig, Local};
///
/// # async fn run(config: ClientConfig) -> Result<(), Box<dyn std::error::Error>> {
/// let endpoint = Endpoint::bind(Local::any(), EndpointConfig::new())?;
/// let first = endpoint.dial("one.example:4433", config.clone()).await?;
/// let second = endpoint.dial("two.example:4433", config).await?;
/// # let _ = (first, second);
/// endpoint.close(0, "done").await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Endpoint(Arc<Door>);

/// Holds an endpoint open for new sessions. Dropping it closes the door; sessions that started live on.
struct Door {
    workers: Vec<Arc<Shared>>,
    /// Dials so far: workers have them in turns.
    dials: AtomicUsize,
    /// Where the drivers run.
    runtime: Handle,
    socket: SocketConfig,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.workers.iter().for_each(|worker| contained(|| worker.with(EndpointState::close_door)));
    }
}

impl Endpoint {
    /// Opens the socket of each worker and starts the tasks that drive them, in the runtime of the caller.
    ///
    /// # Errors
    /// [`BindError`], when the address cannot be bound, the configuration cannot work, or the caller is in no tokio
    /// runtime.
    ///
    /// # Panics
    /// If the runtime has no I/O or no time enabled.
    pub fn bind(local: impl Into<Local>, config: EndpointConfig) -> Result<Self, BindError> {
        let (local, runtime) = (local.into(), Handle::try_current().map_err(io::Error::other)?);
        config.check()?;
        let count = config.workers.unwrap_or_else(|| local.workers_by_default(&runtime));
        let (sockets, address) = UdpIo::open_all(local, config.socket, count)?;
        let workers = Shared::workers(&config, address, sockets.len())?;
        let endpoint = Self(Arc::new(Door { workers, dials: AtomicUsize::new(0), runtime, socket: config.socket }));
        endpoint.group().steer(&sockets, config.socket);
        for (socket, worker) in sockets.into_iter().zip(endpoint.workers()) {
            Driver::spawn(socket, Arc::clone(worker));
        }
        Ok(endpoint)
    }

    /// Goes on with another port, from which everything is sent from now on: each worker has another socket there. The
    /// number of workers, the buffers and the rest of [`EndpointConfig`] stay. To be called when the host got another
    /// address, or to change the port.
    ///
    /// Sessions that this end dialled go on: their servers are told at once. What is still on its way to the old socket of
    /// a worker is taken until something arrives at the new one, or the worker has no session; then the old one is closed.
    /// Sessions that clients dialled go on only if they reach this end where it was, since QUIC lets a client move and no
    /// server. A dial that has not succeeded yet may fail.
    ///
    /// # Errors
    /// [`BindError`], when the new sockets cannot be had or the endpoint was closed; the old ones stay in use. A socket of
    /// one's own is for endpoints with one worker: others get [`BindError::System`].
    pub fn rebind(&self, local: impl Into<Local>) -> Result<(), BindError> {
        let _driver = self.0.runtime.enter();
        let workers = self.workers().len();
        let (sockets, address) = UdpIo::open_all(local.into(), self.0.socket, workers)?;
        if sockets.len() < workers {
            let why = format!("{workers} workers need a socket each on one port, and {} can share it", sockets.len());
            return Err(io::Error::new(io::ErrorKind::Unsupported, why).into());
        }
        self.group().steer(&sockets, self.0.socket);
        let unused: Vec<_> = {
            let mut local_addr = self.group().lock_local_addr();
            if self.workers().iter().any(|worker| worker.lock().is_closed()) {
                return Err(BindError::EndpointClosed);
            }
            *local_addr = address;
            let moves = sockets.into_iter().zip(self.workers());
            moves.map(|(socket, worker)| worker.with(|state| state.move_to(socket))).collect()
        };
        drop(unused);
        Ok(())
    }

    /// The address of the socket. For one that is bound to all addresses of this host only the port counts.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.group().local_addr()
    }

    /// How many sessions and strangers there are, and how much memory all peers can make this end hold, of how much. Of all
    /// workers together.
    #[must_use]
    pub fn stats(&self) -> EndpointStats {
        let mut sum = self.first().with(|state| state.core.stats());
        for worker in self.workers().iter().skip(1) {
            let more = worker.with(|state| state.core.stats());
            sum.sessions += more.sessions;
            sum.unauthenticated += more.unauthenticated;
            sum.turns += more.turns;
            sum.memory_bytes += more.memory_bytes;
        }
        sum
    }

    /// As [`stats`](Self::stats), of each worker.
    #[must_use]
    pub fn worker_stats(&self) -> Vec<WorkerStats> {
        let stats = |worker: &Arc<Shared>| worker.group.stats(worker.index, worker.with(|state| state.core.stats()));
        self.workers().iter().map(stats).collect()
    }

    /// Closes every session, dialled or accepted, after what it finished is delivered, at most for
    /// [`Limits::drain_timeout`](kwik_core::Limits); then frees the port. No session begins here any more.
    ///
    /// # Cancel safety
    /// Safe: everything closes all the same.
    pub async fn close(&self, code: u32, reason: &str) {
        for worker in self.workers() {
            drop(worker.with(|state| state.close(code, reason)));
        }
        self.group().queue.changed.notify_waiters();
        for worker in self.workers() {
            loop {
                let notified = worker.ended.notified();
                if worker.lock().is_ended {
                    break;
                }
                notified.await;
            }
        }
    }

    /// Waits until no session is left, and peers were told of those that ended. New ones may begin meanwhile, and after.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait_idle(&self) {
        loop {
            let notified = self.group().idle.notified();
            if self.workers().iter().all(|worker| worker.lock().is_idle()) {
                return;
            }
            notified.await;
        }
    }

    /// The worker that dials next. All hear of addresses that cannot be reached, since the system tells any of them.
    pub(crate) fn next_to_dial(&self) -> &Arc<Shared> {
        let dials = self.0.dials.fetch_add(1, Ordering::Relaxed);
        if dials == 0 {
            self.workers().iter().for_each(|worker| worker.with(EndpointState::note_dial));
        }
        self.workers().get(dials % self.workers().len().max(1)).unwrap_or_else(|| self.first())
    }

    pub(crate) fn workers(&self) -> &[Arc<Shared>] {
        &self.0.workers
    }

    pub(crate) fn group(&self) -> &Group {
        &self.first().group
    }

    fn first(&self) -> &Arc<Shared> {
        self.workers().first().expect("there is at least one worker")
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("local_addr", &self.local_addr())
            .field("workers", &self.workers().len())
            .finish_non_exhaustive()
    }
}
