//! A session with any number of servers in a simulated world, and what the tests by topic ask of it.

pub mod transfer;

use std::time::Duration;

use bytes::Bytes;
use kwik_core::{
    ClientConfig, Dir, GrantId, GrantStatus, PathEvent, PathId, PathTarget, ReadError, ServerConfig, SessionEvent,
    SessionHandle, StreamHandle, WriteError,
};
use kwik_sim::{Link, NodeId, Pki, World};

/// The name in every certificate.
pub const NAME: &str = "server.test";

/// Longer than any exchange in these tests takes.
pub const LONG: Duration = Duration::from_secs(60);

/// A world with one client, a primary (server 0) and secondaries (1, 2, …).
pub struct Fleet {
    /// The world.
    pub world: World,
    /// Certificates and identities.
    pub pki: Pki,
    /// The client's node.
    pub client: NodeId,
    /// The servers' nodes; the first is the primary.
    pub servers: Vec<NodeId>,
}

/// A session of a [`Fleet`]: the client's end and the primary's.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// At the client.
    pub client: SessionHandle,
    /// At the primary.
    pub primary: SessionHandle,
}

impl Fleet {
    /// `servers` servers, each 10 ms away.
    ///
    /// # Panics
    /// If the world cannot be built.
    #[must_use]
    pub fn new(servers: u8) -> Self {
        Self::with(servers, |config| config)
    }

    /// As [`Fleet::new`], with the servers' configuration adjusted.
    ///
    /// # Panics
    /// If the world cannot be built.
    #[must_use]
    pub fn with(servers: u8, adjust: impl Fn(ServerConfig) -> ServerConfig) -> Self {
        let pki = Pki::new(NAME);
        let mut world = World::new(1);
        let client = world.add_client("10.0.0.1:5000".parse().expect("an address")).expect("a client");
        let servers = (0..servers)
            .map(|number| {
                let address = format!("10.0.1.{}:4433", number + 1).parse().expect("an address");
                world.add_server(address, adjust(pki.server(number))).expect("a server")
            })
            .collect::<Vec<_>>();
        for server in &servers {
            world.set_link_both(client, *server, Link::with_delay(Duration::from_millis(10)));
        }
        Self { world, pki, client, servers }
    }

    /// Dials the primary and waits until both ends have the session.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn connect(&mut self) -> Ends {
        self.connect_with(self.pki.client())
    }

    /// As [`Fleet::connect`], with the client's configuration given.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn connect_with(&mut self, config: ClientConfig) -> Ends {
        let client = self.world.dial(self.client, self.servers[0], config, NAME).expect("dialled");
        let primary = self.await_incoming(0);
        let node = self.client;
        assert!(self.world.run_until(LONG, |world| world.saw(node, |event| *event == SessionEvent::Welcomed)));
        Ends { client, primary }
    }

    /// Waits for the next session at a server.
    ///
    /// # Panics
    /// If none comes.
    pub fn await_incoming(&mut self, server: usize) -> SessionHandle {
        let node = self.servers[server];
        let mut found = None;
        let came = self.world.run_until(LONG, |world| {
            while let Some((session, event)) = world.poll_event(node) {
                if event == SessionEvent::Incoming {
                    found = Some(session);
                    return true;
                }
            }
            false
        });
        assert!(came, "no session came to server {server}");
        found.expect("just found")
    }

    /// What names a server in `add_path`.
    ///
    /// # Panics
    /// If there is no such server.
    #[must_use]
    pub fn target(&self, server: usize) -> PathTarget {
        let number = u8::try_from(server).expect("few servers");
        PathTarget {
            address: self.world.address(self.servers[server]),
            server_name: NAME.to_owned(),
            identity: self.pki.public_identity(number),
        }
    }

    /// Adds a server to the session and waits until it joined; returns the path and the session at the secondary.
    ///
    /// # Panics
    /// If it does not join.
    pub fn join(&mut self, ends: Ends, server: usize) -> (PathId, SessionHandle) {
        let target = self.target(server);
        let path = self.add_path(ends, target);
        let session = self.await_incoming(server);
        let primary = self.servers[0];
        let joined = SessionEvent::Path(PathEvent::Joined(path));
        assert!(
            self.world.run_until(LONG, |world| world.saw(primary, |event| *event == joined)),
            "{path} never joined"
        );
        (path, session)
    }

    /// Adds a path without waiting.
    ///
    /// # Panics
    /// If the primary refuses to.
    pub fn add_path(&mut self, ends: Ends, target: PathTarget) -> PathId {
        let now = self.world.now();
        let primary = self.servers[0];
        let mut session = self.world.session_mut(primary, ends.primary).expect("a session");
        session.add_path(now, target).expect("added")
    }

    /// Waits until the primary hears of a path's death, and returns why it died.
    ///
    /// # Panics
    /// If it lives.
    pub fn await_death(&mut self, ends: Ends, path: PathId) -> kwik_core::DeadReason {
        let primary = self.servers[0];
        let is_dead = |event: &SessionEvent| matches!(event, SessionEvent::Path(PathEvent::Dead { path: dead, .. }) if *dead == path);
        assert!(self.world.run_until(LONG, |world| world.saw(primary, is_dead)), "{path} lives on");
        let mut session = self.world.session_mut(primary, ends.primary).expect("a session");
        let dead = session.dead_paths().into_iter().find(|info| info.id == path).expect("listed as dead");
        let _ = &mut session;
        match dead.state {
            kwik_core::PathState::Dead(reason) => reason,
            state => panic!("{path} is {state:?}"),
        }
    }

    /// Opens a stream at the client and accepts it at the primary.
    ///
    /// # Panics
    /// If it does not arrive.
    pub fn open(&mut self, ends: Ends, dir: Dir) -> (StreamHandle, StreamHandle) {
        let node = self.client;
        let here = self.world.session_mut(node, ends.client).expect("a session").open_stream(dir).expect("opened");
        let there = self.accept(0, ends.primary, dir);
        (here, there)
    }

    /// Waits for the next stream at a server.
    ///
    /// # Panics
    /// If none comes.
    pub fn accept(&mut self, server: usize, session: SessionHandle, dir: Dir) -> StreamHandle {
        let node = self.servers[server];
        self.accept_at(node, session, dir)
    }

    /// Waits for the next stream at a node.
    ///
    /// # Panics
    /// If none comes.
    pub fn accept_at(&mut self, node: NodeId, session: SessionHandle, dir: Dir) -> StreamHandle {
        let mut stream = None;
        let came = self.world.run_until(LONG, |world| {
            stream = world.session_mut(node, session).and_then(|mut session| session.accept_stream(dir));
            stream.is_some()
        });
        assert!(came, "no stream came");
        stream.expect("just accepted")
    }

    /// Writes all of `data`, running the world while the stream is blocked.
    ///
    /// # Panics
    /// If the stream fails.
    pub fn write_all(&mut self, node: NodeId, session: SessionHandle, stream: StreamHandle, data: &[u8]) {
        let mut rest = Bytes::copy_from_slice(data);
        let wrote = self.world.run_until(LONG, |world| {
            while !rest.is_empty() {
                let mut session = world.session_mut(node, session).expect("a session");
                match session.stream_mut(stream).write_chunk(rest.clone()) {
                    Ok(taken) => rest = rest.slice(taken..),
                    Err(WriteError::Blocked) => return false,
                    Err(error) => panic!("write failed: {error}"),
                }
            }
            true
        });
        assert!(wrote, "{} bytes stayed unwritten", rest.len());
    }

    /// Finishes a stream.
    ///
    /// # Panics
    /// If it cannot be.
    pub fn finish(&mut self, node: NodeId, session: SessionHandle, stream: StreamHandle) {
        self.world.session_mut(node, session).expect("a session").stream_mut(stream).finish().expect("finished");
    }

    /// Reads a stream to its end.
    ///
    /// # Panics
    /// If it fails before, or never ends.
    pub fn read_to_end(&mut self, node: NodeId, session: SessionHandle, stream: StreamHandle) -> Vec<u8> {
        let mut data = Vec::new();
        let ended = self.world.run_until(LONG, |world| {
            let mut session = world.session_mut(node, session).expect("a session");
            loop {
                match session.stream_mut(stream).read(usize::MAX) {
                    Ok(chunk) => data.extend_from_slice(&chunk.data),
                    Err(ReadError::Blocked) => return false,
                    Err(ReadError::Finished) => return true,
                    Err(error) => panic!("read failed after {} bytes: {error}", data.len()),
                }
            }
        });
        assert!(ended, "no end after {} bytes", data.len());
        data
    }

    /// Reads all there is now.
    ///
    /// # Panics
    /// If the session is gone.
    pub fn read_available(&mut self, node: NodeId, session: SessionHandle, stream: StreamHandle) -> Vec<u8> {
        let mut data = Vec::new();
        let mut session = self.world.session_mut(node, session).expect("a session");
        while let Ok(chunk) = session.stream_mut(stream).read(usize::MAX) {
            data.extend_from_slice(&chunk.data);
        }
        data
    }

    /// Waits until a delegation is over.
    ///
    /// # Panics
    /// If it never is.
    pub fn await_delegation(&mut self, ends: Ends, grant: GrantId) -> GrantStatus {
        let primary = self.servers[0];
        let mut last = None;
        let over = self.world.run_until(LONG, |world| {
            let session = world.session_mut(primary, ends.primary).expect("a session");
            last = session.delegation(grant);
            !matches!(last, Some(GrantStatus::Progress { .. }))
        });
        assert!(over, "the delegation stays {last:?}");
        last.expect("known")
    }
}

/// The byte every test expects at an offset.
#[must_use]
pub fn byte_at(offset: u64) -> u8 {
    let mixed = offset.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed.to_be_bytes()[0]
}

/// The bytes every test expects in a range.
#[must_use]
pub fn pattern(range: std::ops::Range<u64>) -> Vec<u8> {
    range.map(byte_at).collect()
}
