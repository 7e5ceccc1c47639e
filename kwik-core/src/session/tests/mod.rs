//! Three endpoints joined without a network, and inputs that no honest peer would send.

mod abuse;
mod answers;
mod commands;
mod forged;
mod hoard;
mod rogue;
mod roles;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;

use super::{PathEvent, PathTarget, Session, SessionEvent};
use crate::auth::Identity;
use crate::config::{ClientConfig, EndpointConfig, SecondaryTrust, ServerConfig};
use crate::endpoint::{DatagramMeta, Endpoint};
use crate::error::{SessionError, TransportCode};
use crate::id::{Dir, GrantId, PathId, SessionHandle, StreamHandle, StreamId};
use crate::limits::Limits;
use crate::path::{PathInput, RawQuic};
use crate::status::PathState;
use crate::test_support::instant;
use crate::wire::{CarrierItem, ControlFrame};

const CLIENT: usize = 0;
const PRIMARY: usize = 1;
const SECONDARY: usize = 2;
const OTHER: usize = 3;

/// A client, a primary and two secondaries that joined.
struct Trio {
    now: Instant,
    nodes: Vec<(SocketAddr, Endpoint)>,
    events: BTreeMap<usize, Vec<SessionEvent>>,
    sessions: [SessionHandle; 4],
    path: PathId,
    other_path: PathId,
    config: ClientConfig,
}

impl Trio {
    fn new() -> Self {
        Self::with(|_| ())
    }

    /// With the client's limits adjusted.
    fn with(adjust: impl Fn(&mut Limits)) -> Self {
        Self::with_both(adjust, |_| ())
    }

    /// With the client's and the servers' limits adjusted.
    fn with_both(adjust: impl Fn(&mut Limits), adjust_servers: impl Fn(&mut Limits)) -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["kwik.test".to_owned()]).unwrap();
        let key = || PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let identity = |node: usize| Identity::from_seed([u8::try_from(node).unwrap() + 1; 32]);
        let now = instant();
        let mut nodes = Vec::new();
        for node in CLIENT..=OTHER {
            let config = EndpointConfig::new([u8::try_from(node).unwrap(); 32], Duration::from_secs(1_800_000_000));
            let mut endpoint = Endpoint::new(config, now).unwrap();
            if node != CLIENT {
                let server = ServerConfig::new(identity(node), vec![cert.der().clone()], key()).unwrap();
                let mut limits = Limits::default();
                adjust_servers(&mut limits);
                let server = server.trust_primary(identity(PRIMARY).public()).limits(limits);
                endpoint.listen(Some(server)).unwrap();
            }
            nodes.push((SocketAddr::from(([10, 0, 0, 1], 5000 + u16::try_from(node).unwrap())), endpoint));
        }
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let config = ClientConfig::with_roots(roots).unwrap().secondary_trust(SecondaryTrust::IdentityOnly);
        let mut limits = Limits::default();
        adjust(&mut limits);
        let config = config.limits(limits);
        let primary_address = nodes[PRIMARY].0;
        let client = nodes[CLIENT].1.connect(now, config.clone(), primary_address, "kwik.test").unwrap();
        let sessions = [client, SessionHandle(0), SessionHandle(0), SessionHandle(0)];
        let (path, other_path) = (PathId(1), PathId(2));
        let mut trio = Self { now, nodes, events: BTreeMap::new(), sessions, path, other_path, config };
        trio.settle();
        for node in [SECONDARY, OTHER] {
            let target = PathTarget {
                address: trio.nodes[node].0,
                server_name: "kwik.test".to_owned(),
                identity: identity(node).public(),
            };
            trio.nodes[PRIMARY].1.session_mut(SessionHandle(0)).unwrap().add_path(now, target).unwrap();
        }
        trio.settle();
        for path in [path, other_path] {
            assert!(trio.saw(PRIMARY, &SessionEvent::Path(PathEvent::Joined(path))));
        }
        trio
    }

    /// Carries datagrams to and fro until nothing moves, then lets owed acknowledgements be sent, some times.
    fn settle(&mut self) {
        for _ in 0..20 {
            while self.exchange() {}
            self.now += Duration::from_millis(25);
            for (_, endpoint) in &mut self.nodes {
                endpoint.handle_timeout(self.now);
            }
        }
        while self.exchange() {}
    }

    fn exchange(&mut self) -> bool {
        let mut moved = Vec::new();
        let mut buf = Vec::new();
        for (address, endpoint) in &mut self.nodes {
            while let Some(transmit) = endpoint.poll_transmit(self.now, 1, &mut buf) {
                moved.push((*address, transmit.destination, buf[..transmit.size].to_vec()));
                buf.clear();
            }
        }
        for (node, (_, endpoint)) in self.nodes.iter_mut().enumerate() {
            while let Some((_, event)) = endpoint.poll_event() {
                self.events.entry(node).or_default().push(event);
            }
        }
        let any = !moved.is_empty();
        for (remote, to, data) in moved {
            let meta = DatagramMeta { remote, local_ip: None, ecn: None };
            if let Some((_, endpoint)) = self.nodes.iter_mut().find(|(address, _)| *address == to) {
                endpoint.handle_datagram(self.now, meta, &data);
            }
        }
        any
    }

    /// A turn of the session at a node, whose datagrams go nowhere.
    fn turn(&mut self, node: usize) {
        let moment = self.nodes[node].1.moment(self.now);
        self.machine(node).pump(moment);
    }

    fn machine(&mut self, node: usize) -> &mut Session {
        let session = self.sessions[node];
        self.nodes[node].1.inner_mut(session).expect("a session")
    }

    /// As if `input` had come over `path` at `node`.
    fn forge(&mut self, node: usize, path: PathId, input: PathInput) {
        let now = self.now;
        let session = self.sessions[node];
        let moment = self.nodes[node].1.moment(now);
        self.nodes[node].1.inner_mut(session).expect("a session").on_input(moment, path, input);
    }

    fn forge_control(&mut self, node: usize, path: PathId, frame: impl Into<ControlFrame>) {
        self.forge(node, path, PathInput::Control(frame.into()));
    }

    fn forge_data(&mut self, node: usize, path: PathId, stream: StreamId, offset: u64, data: &[u8], fin: bool) {
        let item = CarrierItem::Stream {
            stream,
            offset: crate::id::StreamOffset(offset),
            data: Bytes::copy_from_slice(data),
            frame_end: crate::id::StreamOffset(offset + data.len() as u64),
            fin,
        };
        self.forge(node, path, PathInput::Data(item));
    }

    /// A stream from client to primary and back, with 100 bytes granted to the secondary.
    fn delegated(&mut self) -> Delegated {
        let client = self.sessions[CLIENT];
        let mut session = self.nodes[CLIENT].1.session_mut(client).unwrap();
        let here = session.open_stream(Dir::Bi).unwrap();
        let id = session.stream(here).id().unwrap();
        self.settle();
        let primary = self.sessions[PRIMARY];
        let mut session = self.nodes[PRIMARY].1.session_mut(primary).unwrap();
        let there = session.accept_stream(Dir::Bi).unwrap();
        let grant = session.stream_mut(there).delegate(self.path, 100, Bytes::from_static(b"go")).unwrap().grant;
        self.settle();
        Delegated { here, there, id, grant }
    }

    fn client_path_state(&mut self, path: PathId) -> PathState {
        let stats = self.machine(CLIENT).stats();
        stats.paths.into_iter().find(|stats| stats.id == path).expect("a path").state
    }

    /// The QUIC connection below a path at a node.
    fn quic(&mut self, node: usize, path: PathId) -> &mut RawQuic {
        self.machine(node).path_mut(path).expect("a path").quic()
    }

    fn state(&mut self, node: usize, path: PathId) -> Option<PathState> {
        self.machine(node).path_mut(path).map(|path| path.state().clone())
    }

    /// Runs until HELLO or JOIN is on its way and no answer has come.
    fn await_authenticating(&mut self, path: PathId) {
        while self.state(CLIENT, path) != Some(PathState::Authenticating) {
            assert!(self.exchange(), "{path} never got so far");
        }
    }

    /// Why the session at a node is over.
    fn close_reason(&mut self, node: usize) -> Option<SessionError> {
        let session = self.sessions[node];
        self.nodes[node].1.session(session)?.close_reason().cloned()
    }

    fn assert_path_died(&mut self, path: PathId, code: TransportCode) {
        let state = self.client_path_state(path);
        assert!(matches!(&state, PathState::Dead(reason) if reason.code == code.into()), "{path} is {state:?}");
        assert!(self.is_open(CLIENT), "a secondary's fault ended the session");
    }

    fn assert_session_failed(&mut self, node: usize, code: TransportCode) {
        let reason = self.close_reason(node);
        let failed = matches!(&reason, Some(SessionError::Transport { code: found, .. }) if *found == code);
        assert!(failed, "{reason:?} instead of {code:?}");
    }

    fn saw(&self, node: usize, wanted: &SessionEvent) -> bool {
        self.events.get(&node).is_some_and(|events| events.contains(wanted))
    }

    fn is_open(&mut self, node: usize) -> bool {
        let session = self.sessions[node];
        self.nodes[node].1.session(session).is_some_and(|session| session.close_reason().is_none())
    }
}

struct Delegated {
    here: StreamHandle,
    there: StreamHandle,
    id: StreamId,
    grant: GrantId,
}
