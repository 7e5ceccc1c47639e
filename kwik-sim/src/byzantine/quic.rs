//! QUIC as a dishonest node drives it: a `quinn_proto::Endpoint` of its own, and streams without KWIK's rules.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kwik_core::__test_exports::{CarrierReader, ControlReader, EXPORTER_LABEL, Frame, Item};
use kwik_core::ErrorCode;
use quinn_proto::crypto::{self, CryptoError, HmacKey};
use quinn_proto::{
    ConnectionError, ConnectionHandle, ConnectionId, ConnectionIdGenerator, DatagramEvent, Dir, Event, StreamEvent,
    StreamId as QuicStreamId, TransportConfig, ValidationTokenConfig, VarInt,
};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

/// The endpoint and its connections.
pub(super) struct QuicEndpoint {
    endpoint: quinn_proto::Endpoint,
    connections: BTreeMap<usize, PeerConnection>,
    ids: SeededIds,
    out: VecDeque<(SocketAddr, Vec<u8>)>,
}

impl QuicEndpoint {
    /// A server with `server`, or a client without.
    pub(super) fn new(rng: &mut StdRng, ids: SeededIds, server: Option<Arc<dyn crypto::ServerConfig>>) -> Self {
        let config = endpoint_config(rng, &ids);
        let server = server.map(|crypto| {
            let mut config = quinn_proto::ServerConfig::with_crypto(crypto);
            let mut tokens = ValidationTokenConfig::default();
            tokens.sent(0);
            config.transport_config(Arc::new(transport())).validation_token_config(tokens);
            Arc::new(config)
        });
        let endpoint = quinn_proto::Endpoint::new(Arc::new(config), server, true, None);
        Self { endpoint, connections: BTreeMap::new(), ids, out: VecDeque::new() }
    }

    /// Dials; gives the number of the connection.
    pub(super) fn dial(
        &mut self,
        now: Instant,
        crypto: Arc<dyn crypto::ClientConfig>,
        server: SocketAddr,
        name: &str,
    ) -> Option<usize> {
        let mut config = quinn_proto::ClientConfig::new(crypto);
        let first = self.ids.draw(16);
        config.transport_config(Arc::new(transport())).initial_dst_cid_provider(Arc::new(move || first));
        let (handle, connection) = self.endpoint.connect(now, config, server, name).ok()?;
        self.connections.insert(handle.0, PeerConnection::new(handle, connection, true));
        Some(handle.0)
    }

    /// Takes a datagram; gives the number of the connection it was for.
    pub(super) fn handle_datagram(&mut self, now: Instant, from: SocketAddr, data: &[u8]) -> Option<usize> {
        let mut buf = Vec::new();
        match self.endpoint.handle(now, from, None, None, BytesMut::from(data), &mut buf)? {
            DatagramEvent::ConnectionEvent(handle, event) => {
                self.connections.get_mut(&handle.0)?.quic.handle_event(event);
                Some(handle.0)
            }
            DatagramEvent::NewConnection(incoming) => {
                let (handle, connection) = self.endpoint.accept(incoming, now, &mut buf, None).ok()?;
                self.connections.insert(handle.0, PeerConnection::new(handle, connection, false));
                Some(handle.0)
            }
            DatagramEvent::Response(transmit) => {
                buf.truncate(transmit.size);
                self.out.push_back((transmit.destination, buf));
                None
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for connection in self.connections.values_mut() {
            if connection.quic.poll_timeout().is_some_and(|at| at <= now) {
                connection.quic.handle_timeout(now);
            }
        }
    }

    /// The numbers of all connections.
    pub(super) fn connections(&self) -> Vec<usize> {
        self.connections.keys().copied().collect()
    }

    pub(super) fn connection(&mut self, number: usize) -> Option<&mut PeerConnection> {
        self.connections.get_mut(&number)
    }

    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        if let Some(response) = self.out.pop_front() {
            return Some(response);
        }
        self.connections.values_mut().find_map(|connection| connection.poll_transmit(now))
    }

    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        self.connections
            .values_mut()
            .filter(|connection| !connection.silent)
            .filter_map(|connection| connection.quic.poll_timeout())
            .min()
    }

    /// Carries events between the endpoint and its connections, and forgets those that drained.
    pub(super) fn exchange(&mut self) {
        self.connections().into_iter().for_each(|number| self.exchange_with(number));
        self.connections.retain(|_, connection| !connection.quic.is_drained());
    }

    pub(super) fn exchange_with(&mut self, number: usize) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        while let Some(event) = connection.quic.poll_endpoint_events() {
            if let Some(answer) = self.endpoint.handle_event(connection.handle, event) {
                connection.quic.handle_event(answer);
            }
        }
    }
}

/// What a connection reads.
#[derive(Debug)]
pub(super) enum Heard {
    Connected,
    Frame(Frame),
    Item(Item),
    Closed(Option<ErrorCode>),
}

/// One connection.
pub(super) struct PeerConnection {
    handle: ConnectionHandle,
    pub(super) quic: quinn_proto::Connection,
    is_client: bool,
    pub(super) control: Option<QuicStreamId>,
    control_in: ControlReader,
    carriers_in: BTreeMap<QuicStreamId, CarrierReader>,
    /// Bytes by stream that QUIC did not take yet.
    out: BTreeMap<QuicStreamId, BytesMut>,
    /// Neither sends nor acknowledges any more.
    pub(super) silent: bool,
    /// Leaves what arrives unread.
    pub(super) deaf: bool,
    heard: VecDeque<Heard>,
}

impl PeerConnection {
    /// Bytes that may wait for QUIC; what is added beyond is dropped, so that a flood does not flood its own memory.
    const BACKLOG_MAX: usize = 1 << 20;

    fn new(handle: ConnectionHandle, quic: quinn_proto::Connection, is_client: bool) -> Self {
        Self {
            handle,
            quic,
            is_client,
            control: None,
            control_in: ControlReader::default(),
            carriers_in: BTreeMap::new(),
            out: BTreeMap::new(),
            silent: false,
            deaf: false,
            heard: VecDeque::new(),
        }
    }

    /// The next thing that came.
    pub(super) fn poll(&mut self) -> Option<Heard> {
        while self.heard.is_empty() {
            match self.quic.poll() {
                Some(event) => self.on_event(event),
                None => break,
            }
        }
        if self.heard.is_empty() && !self.deaf {
            self.read();
        }
        self.heard.pop_front()
    }

    /// The next datagram, and to whom.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        let mut buf = Vec::new();
        let transmit = if self.silent { None } else { self.quic.poll_transmit(now, 1, &mut buf) }?;
        buf.truncate(transmit.size);
        Some((transmit.destination, buf))
    }

    /// Bytes on the control plane.
    pub(super) fn control(&mut self, bytes: &[u8]) {
        if let Some(stream) = self.control {
            self.write(stream, bytes);
        }
    }

    /// Opens a unidirectional stream, without a carrier's header.
    pub(super) fn open_uni(&mut self) -> Option<QuicStreamId> {
        self.quic.streams().open(Dir::Uni)
    }

    /// Tries to open a bidirectional stream.
    pub(super) fn open_bi(&mut self) -> Option<QuicStreamId> {
        self.quic.streams().open(Dir::Bi)
    }

    pub(super) fn write(&mut self, stream: QuicStreamId, bytes: &[u8]) {
        let waiting = self.out.entry(stream).or_default();
        if waiting.len() <= Self::BACKLOG_MAX {
            waiting.extend_from_slice(bytes);
        }
        self.flush();
    }

    /// Whether QUIC takes no more now.
    pub(super) fn is_blocked(&self) -> bool {
        self.out.values().any(|waiting| waiting.len() > 64 * 1024)
    }

    pub(super) fn finish(&mut self, stream: QuicStreamId) {
        let _ = self.quic.send_stream(stream).finish();
    }

    pub(super) fn reset(&mut self, stream: QuicStreamId) {
        self.out.remove(&stream);
        let _ = self.quic.send_stream(stream).reset(VarInt::from_u32(7));
    }

    /// Stops everything the peer sends on: its carriers, or its control plane.
    pub(super) fn stop_carriers(&mut self) -> usize {
        let carriers: Vec<_> = self.carriers_in.keys().copied().collect();
        carriers.into_iter().filter(|id| self.quic.recv_stream(*id).stop(VarInt::from_u32(7)).is_ok()).count()
    }

    pub(super) fn stop_control(&mut self) {
        if let Some(stream) = self.control {
            let _ = self.quic.recv_stream(stream).stop(VarInt::from_u32(7));
        }
    }

    pub(super) fn close(&mut self, now: Instant, code: u64) {
        let code = VarInt::from_u64(code).unwrap_or(VarInt::MAX);
        self.quic.close(now, code, Bytes::from_static(b"\xff not text \0"));
    }

    pub(super) fn exporter(&self) -> [u8; 32] {
        let mut secret = [0; 32];
        let _ = self.quic.crypto_session().export_keying_material(&mut secret, EXPORTER_LABEL, b"");
        secret
    }

    pub(super) fn flush(&mut self) {
        for (stream, waiting) in &mut self.out {
            while !waiting.is_empty() {
                match self.quic.send_stream(*stream).write(waiting) {
                    Ok(written) => drop(waiting.split_to(written)),
                    Err(quinn_proto::WriteError::Blocked) => break,
                    Err(_) => waiting.clear(),
                }
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected => {
                if self.is_client {
                    self.control = self.quic.streams().open(Dir::Bi);
                }
                self.heard.push_back(Heard::Connected);
            }
            Event::ConnectionLost { reason } => {
                let code = match reason {
                    ConnectionError::ApplicationClosed(close) => {
                        Some(ErrorCode::from_wire(close.error_code.into_inner()))
                    }
                    _ => None,
                };
                self.heard.push_back(Heard::Closed(code));
            }
            Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                while let Some(stream) = self.quic.streams().accept(Dir::Bi) {
                    self.control.get_or_insert(stream);
                }
            }
            Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                while let Some(stream) = self.quic.streams().accept(Dir::Uni) {
                    self.carriers_in.insert(stream, CarrierReader::default());
                }
            }
            _ => {}
        }
    }

    fn read(&mut self) {
        if let Some(stream) = self.control {
            while let Some(bytes) = take(&mut self.quic, stream) {
                self.control_in.push(bytes);
            }
            while let Ok(Some(frame)) = self.control_in.poll() {
                self.heard.push_back(Heard::Frame(frame));
            }
        }
        for (stream, reader) in &mut self.carriers_in {
            while let Some(bytes) = take(&mut self.quic, *stream) {
                reader.push(bytes);
            }
            while let Ok(Some(item)) = reader.poll() {
                self.heard.push_back(Heard::Item(item));
            }
        }
    }
}

fn take(quic: &mut quinn_proto::Connection, stream: QuicStreamId) -> Option<Bytes> {
    let mut recv = quic.recv_stream(stream);
    let mut chunks = recv.read(true).ok()?;
    let chunk = chunks.next(usize::MAX).unwrap_or_default();
    let _ = chunks.finalize();
    chunk.map(|chunk| chunk.bytes)
}

/// Everything random in the endpoint follows from `rng`.
pub(crate) fn endpoint_config(rng: &mut StdRng, ids: &SeededIds) -> quinn_proto::EndpointConfig {
    let mut config = quinn_proto::EndpointConfig::new(Arc::new(ResetKey(rng.next_u64())));
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    let generator = ids.clone();
    config.rng_seed(Some(seed)).cid_generator(move || Box::new(generator.clone()));
    config
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(256))
        .stream_receive_window(VarInt::from_u32(32 * 1024))
        .keep_alive_interval(Some(Duration::from_secs(2)));
    transport
}

/// Connection ids from a seed.
#[derive(Clone)]
pub(crate) struct SeededIds(StdRng);

impl SeededIds {
    pub(crate) fn new(rng: &mut StdRng) -> Self {
        Self(StdRng::from_rng(rng))
    }

    pub(crate) fn draw(&mut self, len: usize) -> ConnectionId {
        let mut bytes = [0; 20];
        self.0.fill_bytes(&mut bytes[..len]);
        ConnectionId::new(&bytes[..len])
    }
}

impl ConnectionIdGenerator for SeededIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.draw(8)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A key for stateless resets. Nobody is protected by it.
struct ResetKey(u64);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let mut state = self.0;
        for (position, out) in signature_out.iter_mut().enumerate() {
            for byte in data {
                state = (state ^ u64::from(*byte) ^ position as u64).wrapping_mul(0x0000_0100_0000_01b3);
            }
            *out = state.to_be_bytes()[2];
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let mut expected = [0; 32];
        self.sign(data, &mut expected);
        if expected == signature { Ok(()) } else { Err(CryptoError) }
    }
}
