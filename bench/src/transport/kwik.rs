//! KWIK's ends.

use std::net::SocketAddr;

use anyhow::Result;
use kwik_tokio::{ClientConfig, ClientSession, Limits, Listener, ServerConfig, generate_identity};
use rustls::RootCertStore;

use super::{Credentials, SERVER_NAME, Settings, loopback};
use crate::task::Task;

/// A configuration that dials again and again.
pub(crate) struct Dialer {
    server: SocketAddr,
    config: ClientConfig,
}

impl Dialer {
    pub(crate) fn new(task: &Task, server: SocketAddr, roots: RootCertStore) -> Result<Self> {
        let config = ClientConfig::with_roots(roots)?.limits(limits(task.is_equal));
        Ok(Self { server, config })
    }

    pub(crate) async fn dial(&self) -> Result<ClientSession> {
        Ok(kwik_tokio::dial((self.server, SERVER_NAME), self.config.clone()).await?)
    }
}

pub(crate) async fn listen(task: &Task, credentials: Credentials) -> Result<Listener> {
    let config = ServerConfig::new(generate_identity()?, vec![credentials.certificate], credentials.key)?;
    Ok(kwik_tokio::listen(loopback(), config.limits(limits(task.is_equal))).await?)
}

/// Among equals, KWIK does without what the others do not have: a rate of handshakes, and a bound on the memory of all
/// sessions that so many clients at one address would meet.
fn limits(is_equal: bool) -> Limits {
    let mut limits = Limits::default();
    if is_equal {
        limits.streams_bidi_max = Settings::BIDI_STREAMS.into();
        limits.quic_stream_receive_window_bytes = Settings::STREAM_WINDOW;
        limits.quic_receive_window_bytes = Settings::CONNECTION_WINDOW;
        limits.quic_send_window_bytes = Settings::SEND_WINDOW;
        limits.keep_alive = Settings::KEEP_ALIVE;
        limits.idle_timeout = Settings::IDLE_TIMEOUT;
        limits.endpoint_memory_max = 64 << 30;
        limits.incoming_network_before_retry = usize::MAX;
        limits.incoming_before_retry = usize::MAX;
        limits.unauthenticated_network_max = usize::MAX;
        limits.handshakes_per_second = u32::MAX;
        limits.handshakes_network_per_second = u32::MAX;
        limits.verifications_per_second = u32::MAX;
        limits.verifications_network_per_second = u32::MAX;
    }
    limits
}
