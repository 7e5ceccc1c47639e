//! Dialling, and the session of a client.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use kwik_core::{ClientConfig, Dir, OpenError, SessionError, SessionId, SessionStats, TransportCode};

use crate::{
    config::{EndpointConfig, Local},
    endpoint::{handle::Endpoint, now},
    error::{DialError, Undelivered},
    session::SessionRef,
    stream::{RecvStream, SendStream, Stream},
    udp::canonical,
};

/// A server to dial: where it is, and the name its certificate must carry.
///
/// `"example.com:4433"` is resolved when it is dialled; `(address, "example.com")` gives both. A string that holds an
/// IP address, such as `"192.0.2.7:4433"`, is verified against that IP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server(Target);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    HostPort(String),
    Address(SocketAddr, String),
}

impl From<&str> for Server {
    fn from(host_port: &str) -> Self {
        Self(Target::HostPort(host_port.to_owned()))
    }
}

impl From<String> for Server {
    fn from(host_port: String) -> Self {
        Self(Target::HostPort(host_port))
    }
}

impl<N: Into<String>> From<(SocketAddr, N)> for Server {
    fn from((address, name): (SocketAddr, N)) -> Self {
        Self(Target::Address(address, name.into()))
    }
}

impl Server {
    /// The addresses to try, in order, and the server name.
    async fn resolve(self) -> Result<(Vec<SocketAddr>, String), DialError> {
        let server = match self.0 {
            Target::Address(address, name) => return Ok((vec![address], name)),
            Target::HostPort(server) => server,
        };
        if let Ok(address) = server.parse::<SocketAddr>() {
            let address = canonical(address);
            return Ok((vec![address], address.ip().to_string()));
        }
        let Some((host, port)) = split_host_port(&server) else { return Err(DialError::InvalidServer(server)) };
        let looked_up = tokio::net::lookup_host((host, port)).await.map(each_once);
        let name = host.to_owned();
        match looked_up {
            Ok(addresses) if addresses.is_empty() => Err(DialError::NoAddress(server)),
            Ok(addresses) => Ok((addresses, name)),
            Err(source) => Err(DialError::Resolve { server, source }),
        }
    }
}

/// A host may come more than once, spelled in several ways.
fn each_once(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut hosts = Vec::new();
    for address in addresses.map(canonical) {
        if !hosts.contains(&address) {
            hosts.push(address);
        }
    }
    hosts
}

fn split_host_port(server: &str) -> Option<(&str, u16)> {
    let (host, port) = server.rsplit_once(':')?;
    let is_name = !host.is_empty() && !host.contains([':', '/', '@']);
    Some((host, port.parse().ok()?)).filter(|_| is_name)
}

/// Dials one server and returns the session once the QUIC handshake is done: data may flow at once.
///
/// The addresses a name resolves to are tried in order; one that the network says is unreachable, at once the next. (On
/// Linux a closed port is told so; elsewhere it is known when [`Limits::dial_timeout`](kwik_core::Limits) is over.) The
/// client has a socket and a task of its own, which end when
/// the session is over and its last handle dropped. Must be called within a tokio runtime.
///
/// # Errors
/// [`DialError`] of the last address tried.
///
/// # Cancel safety
/// Safe: a dropped dial is given up.
pub async fn dial(server: impl Into<Server>, config: ClientConfig) -> Result<ClientSession, DialError> {
    let endpoint = EndpointConfig::new().limits(config.limits_ref().clone());
    Endpoint::bind(Local::any(), endpoint)?.dial(server, config).await
}

impl Endpoint {
    /// Dials one server from this port, as [`dial`](crate::dial()) does from a socket of its own. Many dials may run at
    /// once.
    ///
    /// # Errors
    /// [`DialError`] of the last address tried.
    ///
    /// # Cancel safety
    /// Safe: a dropped dial is given up.
    pub async fn dial(&self, server: impl Into<Server>, config: ClientConfig) -> Result<ClientSession, DialError> {
        let (addresses, name) = server.into().resolve().await?;
        let dial_timeout = config.limits_ref().dial_timeout;
        let mut last = DialError::NoAddress(name.clone());
        for address in addresses {
            match dial_address(self, address, &name, config.clone(), dial_timeout).await {
                Ok(session) => return Ok(session),
                Err(error) => {
                    tracing::debug!(%error, "a dial failed");
                    last = error;
                }
            }
        }
        Err(last)
    }
}

async fn dial_address(
    endpoint: &Endpoint,
    address: SocketAddr,
    name: &str,
    config: ClientConfig,
    dial_timeout: Duration,
) -> Result<ClientSession, DialError> {
    let worker = endpoint.next_to_dial();
    let (handle, signals) = worker.with(|state| {
        if state.is_closed() {
            return Err(DialError::EndpointClosed);
        }
        let connected = state.core.connect(now(), config, address, name);
        let handle = connected.map_err(|source| DialError::Connect { address, source })?;
        Ok((handle, state.add_session(handle)))
    })?;
    let session = SessionRef::new(Arc::clone(worker), handle, signals);
    let handshake = session.wait(&session.signals().life, |session| session.is_connected().then_some(()));
    match tokio::time::timeout(dial_timeout, handshake).await {
        Ok(Ok(())) => Ok(ClientSession { session }),
        Ok(Err(SessionError::Transport { code: TransportCode::UNREACHABLE, detail })) if !detail.is_empty() => {
            Err(DialError::Unreachable { address, reason: detail })
        }
        Ok(Err(source)) => Err(DialError::Handshake { address, source }),
        Err(_) => Err(DialError::NoAnswer { address, after: dial_timeout }),
    }
}

/// A session at the client: the interface of a QUIC connection, whatever number of servers feeds it.
///
/// Clones are handles of the same session. When the last one and the last stream are dropped, the session closes with
/// code 0, after what was finished is delivered; a program that is about to end calls [`close`](Self::close) instead
/// and waits.
#[derive(Clone)]
pub struct ClientSession {
    session: SessionRef,
}

impl ClientSession {
    /// Opens a bidirectional stream at once.
    ///
    /// # Errors
    /// [`OpenError`], when the server's limit is reached or the session ended.
    pub fn open_stream(&self) -> Result<Stream, OpenError> {
        self.session.open(Dir::Bi).map(Stream::new)
    }

    /// Opens a bidirectional stream as soon as the server's limit allows it.
    ///
    /// # Errors
    /// [`OpenError`], when the session ended.
    ///
    /// # Cancel safety
    /// Safe: a dropped call opened nothing.
    pub async fn open_stream_sync(&self) -> Result<Stream, OpenError> {
        self.session.open_sync(Dir::Bi).await.map(Stream::new)
    }

    /// Waits for a bidirectional stream that the server opened.
    ///
    /// # Errors
    /// [`SessionError`], when the session ended.
    ///
    /// # Cancel safety
    /// Safe: a dropped call took no stream.
    pub async fn accept_stream(&self) -> Result<Stream, SessionError> {
        self.session.accept(Dir::Bi).await.map(Stream::new)
    }

    /// Opens a unidirectional stream at once.
    ///
    /// # Errors
    /// [`OpenError`], when the server's limit is reached or the session ended.
    pub fn open_uni_stream(&self) -> Result<SendStream, OpenError> {
        self.session.open(Dir::Uni).map(SendStream::new)
    }

    /// Opens a unidirectional stream as soon as the server's limit allows it.
    ///
    /// # Errors
    /// [`OpenError`], when the session ended.
    ///
    /// # Cancel safety
    /// Safe: a dropped call opened nothing.
    pub async fn open_uni_stream_sync(&self) -> Result<SendStream, OpenError> {
        self.session.open_sync(Dir::Uni).await.map(SendStream::new)
    }

    /// Waits for a unidirectional stream that the server opened.
    ///
    /// # Errors
    /// [`SessionError`], when the session ended.
    ///
    /// # Cancel safety
    /// Safe: a dropped call took no stream.
    pub async fn accept_uni_stream(&self) -> Result<RecvStream, SessionError> {
        self.session.accept(Dir::Uni).await.map(RecvStream::new)
    }

    /// Delivers what was finished, at most for [`Limits::drain_timeout`](kwik_core::Limits), then closes the session.
    /// The peer learns `code` and `reason`. A second call waits for the first.
    ///
    /// # Errors
    /// [`Undelivered`] names the streams that were finished at this end and may not have arrived whole: time was up, or the
    /// session had ended otherwise. The peer is told that it does not have everything.
    ///
    /// # Cancel safety
    /// Safe: the session closes all the same.
    pub async fn close(&self, code: u32, reason: &str) -> Result<(), Undelivered> {
        self.session.close(code, reason).await
    }

    /// Waits until the session ends, and returns how.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn closed(&self) -> SessionError {
        self.session.closed().await
    }

    /// The session's id, once the primary's welcome arrived and was verified.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.session.id()
    }

    /// Waits for the primary's welcome: the session's id is known and the primary proved its identity. Data flows
    /// before.
    ///
    /// # Errors
    /// [`SessionError`], when the session ended before.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn welcomed(&self) -> Result<SessionId, SessionError> {
        self.session.wait(&self.session.signals().life, SessionRef::id).await
    }

    /// What the session and each of its paths did so far.
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        self.session.stats()
    }
}

impl fmt::Debug for ClientSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSession").field("local_addr", &self.session.local_addr()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_are_told_apart() {
        assert_eq!(split_host_port("example.com:4433"), Some(("example.com", 4433)));
        for wrong in ["example.com", "example.com:", ":4433", "example.com:65536", "https://example.com:1", "::1:4433"]
        {
            assert_eq!(split_host_port(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn an_ip_address_is_its_own_server_name() {
        let (addresses, name) = Server::from("[::1]:4433").resolve().await.expect("an address needs no resolver");
        assert_eq!(addresses, ["[::1]:4433".parse().expect("a literal address")]);
        assert_eq!(name, "::1");
    }

    #[tokio::test]
    async fn ipv4_mapped_into_ipv6_is_verified_as_ipv4() {
        let (addresses, name) = Server::from("[::ffff:192.0.2.7]:1").resolve().await.expect("it needs no resolver");
        assert_eq!((addresses, name.as_str()), (vec!["192.0.2.7:1".parse().expect("an address")], "192.0.2.7"));
    }

    #[test]
    fn a_host_is_tried_once_however_often_it_is_spelled() {
        let spelled = ["192.0.2.7:1", "[2001:db8::1]:1", "[::ffff:192.0.2.7]:1", "192.0.2.7:1"];
        let hosts = each_once(spelled.into_iter().map(|text| text.parse().expect("a literal address")));
        assert_eq!(hosts.len(), 2);
    }

    #[tokio::test]
    async fn a_server_without_a_port_is_refused_with_the_form_to_use() {
        let error = Server::from("example.com").resolve().await.expect_err("there is no port");
        assert!(error.to_string().contains("host:port"), "{error}");
    }
}
