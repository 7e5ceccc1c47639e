//! One server. Primary and secondary are roles it has in a session, not kinds of program.

use std::{net::SocketAddr, sync::Arc, thread};

use anyhow::{Context, Result};
use kwik_tokio::{Listener, PathTarget, Role, ServerConfig, ServerSession, listen};
use tokio::{runtime, sync::oneshot};

use crate::{content::Library, limit::Limit, primary, secondary};

/// What a server has.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) library: Library,
    /// The servers that it asks to help when it is the primary.
    pub(crate) secondaries: Vec<PathTarget>,
    /// How fast it reads its files.
    pub(crate) limit: Arc<Limit>,
}

/// Serves every session until the listener is closed.
pub(crate) async fn serve(listener: &Listener, site: Arc<Site>) {
    while let Some(session) = listener.accept().await {
        tokio::spawn(serve_session(session, Arc::clone(&site)));
    }
}

async fn serve_session(session: ServerSession, site: Arc<Site>) {
    match session.role() {
        Role::Primary => primary::serve(&session, &site).await,
        Role::Secondary => secondary::serve(&session, &site).await,
        Role::Client => {}
    }
}

/// A server on a thread and a runtime of its own, as if it were another machine.
pub(crate) struct ServerThread {
    address: SocketAddr,
    stop: oneshot::Sender<Stop>,
    thread: thread::JoinHandle<()>,
}

enum Stop {
    Close,
    Crash,
}

impl ServerThread {
    /// Listens on a port of the loopback interface that the system chooses.
    pub(crate) async fn start(config: ServerConfig, site: Site) -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (started, address) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().spawn(move || {
            // A crash leaves this call at once and drops the runtime: every task stops where it is, and the peers hear
            // nothing.
            runtime.block_on(run(config, site, started, stopped));
        })?;
        let address = address.await.context("the server's thread ended before it listened")??;
        Ok(Self { address, stop, thread })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every session, and waits until it is done.
    pub(crate) async fn close(self) -> Result<()> {
        self.end(Stop::Close).await
    }

    /// Dies without a word to anybody.
    pub(crate) async fn crash(self) -> Result<()> {
        self.end(Stop::Crash).await
    }

    async fn end(self, how: Stop) -> Result<()> {
        // Nobody receives this if the thread is gone already.
        let _ = self.stop.send(how);
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await?;
        joined.map_err(|_| anyhow::anyhow!("the server at {} panicked", self.address))
    }
}

async fn run(
    config: ServerConfig,
    site: Site,
    started: oneshot::Sender<Result<SocketAddr>>,
    stopped: oneshot::Receiver<Stop>,
) {
    let listener = match listen("127.0.0.1:0", config).await {
        Ok(listener) => listener,
        Err(error) => return drop(started.send(Err(error.into()))),
    };
    if started.send(Ok(listener.local_addr())).is_err() {
        return;
    }
    tokio::select! {
        () = serve(&listener, Arc::new(site)) => {}
        stop = stopped => match stop {
            Ok(Stop::Crash) => {}
            Ok(Stop::Close) | Err(_) => listener.close(0, "the demonstration is over").await,
        }
    }
}
