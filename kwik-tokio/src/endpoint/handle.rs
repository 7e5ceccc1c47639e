//! The handle of an endpoint: one socket and one task for any number of sessions.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use kwik_core::EndpointStats;
use tokio::runtime::Handle;

use super::{EndpointState, Shared};
use crate::{
    config::{EndpointConfig, Local, SocketConfig},
    driver::Driver,
    error::BindError,
    udp::UdpIo,
    waiters::contained,
};

/// One UDP socket that dials any number of sessions and listens for others, driven by one task.
///
/// [`dial`](crate::dial()) and [`listen`](crate::listen()) make one each, with the defaults of [`EndpointConfig`]. An
/// endpoint of one's own saves sockets and tasks where there are many sessions, dials from the port it listens on, and
/// can be configured and bound anew.
///
/// Clones are handles of the same endpoint. When the last one and the [`Listener`](crate::Listener) are dropped, sessions
/// live on until they end; then the port is free.
/// From the first dial on the socket listens to ICMP errors where the system tells them (Linux); one that only listens does
/// not.
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
    shared: Arc<Shared>,
    /// Where the driver runs.
    runtime: Handle,
    socket: SocketConfig,
}

impl Drop for Door {
    fn drop(&mut self) {
        contained(|| self.shared.with(EndpointState::close_door));
    }
}

impl Endpoint {
    /// Opens a socket and starts the task that drives it, in the runtime of the caller.
    ///
    /// # Errors
    /// [`BindError`], when the address cannot be bound, the configuration cannot work, or the caller is in no tokio
    /// runtime.
    ///
    /// # Panics
    /// If the runtime has no I/O or no time enabled.
    pub fn bind(local: impl Into<Local>, config: EndpointConfig) -> Result<Self, BindError> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        config.check()?;
        let socket = UdpIo::open(local.into(), config.socket)?;
        let shared = Shared::new(&config, socket.local_addr()?)?;
        Driver::spawn(socket, Arc::clone(&shared));
        Ok(Self(Arc::new(Door { shared, runtime, socket: config.socket })))
    }

    /// Goes on with another socket, from which everything is sent from now on; the buffers and the rest of
    /// [`EndpointConfig`] stay. To be called when the host got another address, or to change the port.
    ///
    /// Sessions that this end dialled go on: their servers are told at once. What is still on its way to the old socket is
    /// taken until something arrives at the new one; then the old one is closed. Sessions that clients dialled go on only
    /// if they reach this end where it was, since QUIC lets a client move and no server. A dial that has not succeeded yet
    /// may fail.
    ///
    /// # Errors
    /// [`BindError`], when the new socket cannot be had or the endpoint was closed; the old one stays in use.
    pub fn rebind(&self, local: impl Into<Local>) -> Result<(), BindError> {
        let _driver = self.0.runtime.enter();
        let socket = UdpIo::open(local.into(), self.0.socket)?;
        self.shared().rebind(socket)
    }

    /// The address of the socket. For one that is bound to all addresses of this host only the port counts.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared().local_addr()
    }

    /// How many sessions and strangers there are, and how much memory all peers can make this end hold, of how much.
    #[must_use]
    pub fn stats(&self) -> EndpointStats {
        self.shared().with(|state| state.core.stats())
    }

    /// Closes every session, dialled or accepted, after what it finished is delivered, at most for
    /// [`Limits::drain_timeout`](kwik_core::Limits); then frees the port. No session begins here any more.
    ///
    /// # Cancel safety
    /// Safe: everything closes all the same.
    pub async fn close(&self, code: u32, reason: &str) {
        drop(self.shared().with(|state| state.close(code, reason)));
        self.shared().incoming.notify_waiters();
        loop {
            let notified = self.shared().ended.notified();
            if self.shared().lock().is_ended {
                return;
            }
            notified.await;
        }
    }

    /// Waits until no session is left, and peers were told of those that ended. New ones may begin meanwhile, and after.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait_idle(&self) {
        loop {
            let notified = self.shared().idle.notified();
            if self.shared().lock().is_idle() {
                return;
            }
            notified.await;
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("local_addr", &self.local_addr()).finish_non_exhaustive()
    }
}
