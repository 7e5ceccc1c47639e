//! Accepting sessions.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kwik_core::{EndpointStats, PublicIdentity, ServerConfig};
use tokio::net::ToSocketAddrs;

use crate::{
    config::EndpointConfig,
    endpoint::{EndpointState, handle::Endpoint, workers::NextSession},
    error::ListenError,
    server::ServerSession,
    session::SessionRef,
    waiters::contained,
};

/// Listens for sessions on `address`, as a primary to those who dial it and as a secondary to the primaries that
/// `config` trusts.
///
/// Port 0 takes a free port, which [`Listener::local_addr`] tells. `[::]` serves IPv4 as well. Must be called within
/// a tokio runtime. On one of several threads there is a worker for each, which accepts the sessions of some clients
/// ([`EndpointConfig::workers`]). The configuration's [`Authorizer`](kwik_core::Authorizer) runs on the tasks of the
/// workers, on several at once: it must return quickly and must not use a session of this listener.
///
/// # Errors
/// [`ListenError`], when the address cannot be bound or the configuration cannot be used.
pub async fn listen(address: impl ToSocketAddrs, config: ServerConfig) -> Result<Listener, ListenError> {
    let endpoint = EndpointConfig::new().limits(config.limits_ref().clone());
    let mut last = ListenError::NoAddress;
    for address in tokio::net::lookup_host(address).await? {
        match Endpoint::bind(address, endpoint.clone()) {
            Ok(endpoint) => return endpoint.listen(config),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

impl Endpoint {
    /// Accepts sessions on this port, as a primary to those who dial it and as a secondary to the primaries that
    /// `config` trusts. An endpoint has one listener at a time; after it was dropped there may be another.
    ///
    /// # Errors
    /// [`ListenError`], when there is a listener, the endpoint was closed or the configuration cannot be used.
    pub fn listen(&self, config: ServerConfig) -> Result<Listener, ListenError> {
        let identity = Mutex::new(config.identity());
        for (number, worker) in self.workers().iter().enumerate() {
            if let Err(error) = worker.with(|state| state.start_listening(config.clone())) {
                self.stop_listening(number);
                return Err(error);
            }
        }
        Ok(Listener { endpoint: self.clone(), identity })
    }

    /// The first workers accept no session any more.
    fn stop_listening(&self, workers: usize) {
        for worker in self.workers().iter().take(workers) {
            contained(|| drop(worker.with(EndpointState::stop_listening)));
        }
    }
}

/// Accepts sessions on the port of an endpoint.
///
/// Dropping it stops accepting; sessions that were accepted live on until they end.
pub struct Listener {
    endpoint: Endpoint,
    /// Locked for as long as it changes.
    identity: Mutex<PublicIdentity>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.endpoint.stop_listening(self.endpoint.workers().len());
    }
}

impl Listener {
    /// Waits for the next session, authenticated already; `None` after [`close`](Self::close), or if the runtime that the
    /// listener was made in shut down.
    ///
    /// # Cancel safety
    /// Safe: a dropped call took no session.
    pub async fn accept(&self) -> Option<ServerSession> {
        loop {
            let queue = &self.endpoint.group().queue;
            let notified = queue.changed.notified();
            match queue.pop() {
                NextSession::Session { worker, session } => {
                    let Some(worker) = self.endpoint.workers().get(worker) else { continue };
                    let signals = worker.with(|state| state.add_session(session));
                    let session = SessionRef::new(Arc::clone(worker), session, signals);
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
        self.endpoint.local_addr()
    }

    /// Goes on with another configuration, for a certificate that was renewed or a primary that is trusted from now on.
    ///
    /// Who begins a handshake from now on sees the new certificate, and who authenticates the new identity, trust,
    /// authorizer and limits. Sessions live on as they began: what a primary signs in them it signs with the identity they
    /// began with. If the identity changes, tickets that name the old one are refused: a primary that adds this server
    /// to a session must name the new one ([`identity`](Self::identity)), and secondaries must trust it.
    ///
    /// # Errors
    /// [`ListenError`], when the endpoint was closed or the configuration cannot be used; what was there before stays in
    /// force.
    pub fn set_config(&self, config: ServerConfig) -> Result<(), ListenError> {
        let mut identity = self.lock_identity();
        let new = config.identity();
        for worker in self.endpoint.workers() {
            worker.with(|state| state.listen_anew(config.clone()))?;
        }
        *identity = new;
        Ok(())
    }

    /// The identity that proves this server, to name it in a [`PathTarget`](kwik_core::PathTarget).
    #[must_use]
    pub fn identity(&self) -> PublicIdentity {
        *self.lock_identity()
    }

    /// How many sessions and strangers there are, and how much memory all peers can make this end hold, of how much.
    #[must_use]
    pub fn stats(&self) -> EndpointStats {
        self.endpoint.stats()
    }

    /// Closes the endpoint, as [`Endpoint::close`]: every session, accepted or not, after what it finished is delivered, at
    /// most for [`Limits::drain_timeout`](kwik_core::Limits); then the port is free. To stop accepting only, drop the
    /// listener.
    ///
    /// # Cancel safety
    /// Safe: everything closes all the same.
    pub async fn close(&self, code: u32, reason: &str) {
        self.endpoint.close(code, reason).await;
    }

    /// The endpoint that it listens on.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn lock_identity(&self) -> MutexGuard<'_, PublicIdentity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("local_addr", &self.local_addr())
            .field("identity", &self.identity())
            .finish_non_exhaustive()
    }
}
