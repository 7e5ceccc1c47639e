//! Accepting sessions.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use kwik_core::{EndpointStats, PublicIdentity, ServerConfig};
use tokio::net::ToSocketAddrs;

use crate::{
    driver::Driver,
    endpoint::{EndpointState, ListenGuard, NextSession, Shared, StartError},
    error::ListenError,
    server::ServerSession,
    session::SessionRef,
    udp::UdpIo,
};

/// Listens for sessions on `address`, as a primary to those who dial it and as a secondary to the primaries that
/// `config` trusts.
///
/// Port 0 takes a free port, which [`Listener::local_addr`] tells. `[::]` serves IPv4 as well. Must be called within
/// a tokio runtime. The configuration's [`Authorizer`](kwik_core::Authorizer) runs on the endpoint's task: it must
/// return quickly and must not use a session of this listener.
///
/// # Errors
/// [`ListenError`], when the address cannot be bound or the configuration cannot be used.
pub async fn listen(address: impl ToSocketAddrs, config: ServerConfig) -> Result<Listener, ListenError> {
    let addresses: Vec<_> = tokio::net::lookup_host(address).await?.collect();
    let socket = bind_first(&addresses)?;
    let identity = config.identity();
    let shared = Shared::new(config.limits_ref().clone(), socket.local_addr()?)?;
    shared.with(|state| state.core.listen(Some(config)))?;
    Driver::spawn(socket, Arc::clone(&shared));
    Ok(Listener { door: ListenGuard(shared), identity })
}

fn bind_first(addresses: &[SocketAddr]) -> Result<UdpIo, ListenError> {
    let mut last = ListenError::NoAddress;
    for &address in addresses {
        match UdpIo::bind(address) {
            Ok(socket) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = ListenError::AddressInUse { address },
            Err(source) => last = ListenError::Bind { address, source },
        }
    }
    Err(last)
}

impl From<StartError> for ListenError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::System(error) => Self::System(error),
            StartError::Config(error) => Self::Config(error),
        }
    }
}

/// Accepts sessions on one socket.
///
/// Dropping it stops accepting; sessions that were accepted live on until they end.
pub struct Listener {
    door: ListenGuard,
    identity: PublicIdentity,
}

impl Listener {
    /// Waits for the next session, authenticated already; `None` after [`close`](Self::close), or if the runtime that the
    /// listener was made in shut down.
    ///
    /// # Cancel safety
    /// Safe: a dropped call took no session.
    pub async fn accept(&self) -> Option<ServerSession> {
        loop {
            let notified = self.shared().incoming.notified();
            match self.shared().with(EndpointState::take_incoming) {
                NextSession::Session(handle, signals) => {
                    let session = SessionRef::new(Arc::clone(self.shared()), handle, signals);
                    if let Some(session) = ServerSession::new(session) {
                        return Some(session);
                    }
                }
                NextSession::NoneYet => notified.await,
                NextSession::NoneEver => return None,
            }
        }
    }

    /// The address that clients dial. For a listener on `[::]` or `0.0.0.0` only its port counts: clients dial an address
    /// of this host, and a [`PathTarget`](kwik_core::PathTarget) names one.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared().local_addr
    }

    /// The identity that proves this server, to name it in a [`PathTarget`](kwik_core::PathTarget).
    #[must_use]
    pub fn identity(&self) -> PublicIdentity {
        self.identity
    }

    /// How many sessions and strangers there are, and how much memory all peers can make this end hold, of how much.
    #[must_use]
    pub fn stats(&self) -> EndpointStats {
        self.shared().with(|state| state.core.stats())
    }

    /// Closes every session, accepted or not, after what it finished is delivered, at most for
    /// [`Limits::drain_timeout`](kwik_core::Limits); then frees the port.
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

    fn shared(&self) -> &Arc<Shared> {
        &self.door.0
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("local_addr", &self.local_addr())
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
