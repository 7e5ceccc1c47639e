//! KWIK's ends.

use std::net::SocketAddr;

use anyhow::Result;
use kwik_tokio::{
    ClientConfig, ClientSession, Congestion, Endpoint, EndpointConfig, Limits, Listener, Local, ServerConfig,
    generate_identity,
};
use rustls::RootCertStore;

use super::{Credentials, SERVER_NAME, Settings, loopback};
use crate::task::Task;

/// A configuration that dials again and again.
pub(crate) struct Dialer {
    server: SocketAddr,
    config: ClientConfig,
    is_equal: bool,
    shared: Option<Endpoint>,
}

impl Dialer {
    pub(crate) fn new(task: &Task, server: SocketAddr, roots: RootCertStore) -> Result<Self> {
        let config = ClientConfig::with_roots(roots)?.limits(limits(task.is_equal));
        let shared = if task.has_socket_each { None } else { Some(endpoint(task.is_equal)?) };
        Ok(Self { server, config, is_equal: task.is_equal, shared })
    }

    pub(crate) async fn dial(&self) -> Result<ClientSession> {
        let endpoint = match &self.shared {
            Some(shared) => shared.clone(),
            None => endpoint(self.is_equal)?,
        };
        Ok(endpoint.dial((self.server, SERVER_NAME), self.config.clone()).await?)
    }
}

pub(crate) fn listen(task: &Task, credentials: Credentials) -> Result<Listener> {
    let config = ServerConfig::new(generate_identity()?, vec![credentials.certificate], credentials.key)?;
    let endpoint = Endpoint::bind(loopback(), endpoint_config(task.is_equal))?;
    Ok(endpoint.listen(config.limits(limits(task.is_equal)))?)
}

fn endpoint(is_equal: bool) -> Result<Endpoint> {
    let local = if is_equal { loopback().into() } else { Local::any() };
    Ok(Endpoint::bind(local, endpoint_config(is_equal))?)
}

fn endpoint_config(is_equal: bool) -> EndpointConfig {
    let config = EndpointConfig::new().limits(limits(is_equal));
    if !is_equal {
        return config;
    }
    config
        .congestion(Congestion::Cubic)
        .mtu_initial(Settings::MTU_INITIAL)
        .mtu_max(Settings::MTU_MAX)
        .receive_buffer_bytes(Settings::SOCKET_BUFFER_BYTES)
        .send_buffer_bytes(Settings::SOCKET_BUFFER_BYTES)
}

/// Among equals, KWIK does without what the others do not have: a rate of handshakes, and a bound on the memory of all
/// sessions that so many clients at one address would meet.
fn limits(is_equal: bool) -> Limits {
    let mut limits = Limits::default();
    if is_equal {
        limits.streams_bidi_max = Settings::BIDI_STREAMS.into();
        limits.quic_stream_receive_window_bytes = Settings::STREAM_WINDOW;
        limits.quic_receive_window_bytes = Settings::CONNECTION_WINDOW;
        limits.bandwidth_delay_bytes_max = Settings::SEND_WINDOW / 2;
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
