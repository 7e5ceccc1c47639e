//! Honest nodes around a dishonest one, and what they do all the while.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use kwik_core::{
    ClientConfig, DeadReason, Dir, ErrorCode, PathEvent, PathId, PathTarget, ReadError, Role, SessionError,
    SessionEvent, SessionHandle, StreamHandle,
};
use kwik_sim::byzantine::{Byzantine, Report};
use kwik_sim::content::byte_at;
use kwik_sim::{Fleet, NodeId};
use kwik_tests::{SERVER_NAME, pattern};

/// What a session may have buffered at any time, in bytes, whatever its peer does.
const BUFFERED_MAX: usize = 24 << 20;
/// What a secondary writes of a grant, at most.
const PART_BYTES_MAX: u64 = 64 * 1024;
/// The numbers of the dishonest server, and of another one that is one of a pair with it.
pub(crate) const BYZANTINE: u8 = 2;
pub(crate) const ACCOMPLICE: u8 = 3;

/// A session as one honest node has it.
pub(crate) type SessionAt = (NodeId, SessionHandle);

/// A world with a client, two servers, and a dishonest node 10 ms from each.
pub(crate) struct ByzantineFixture {
    pub(crate) fleet: Fleet,
    /// Every session an honest node has or had, in the order they came.
    pub(crate) sessions: Vec<SessionAt>,
    pub(crate) closed: BTreeMap<SessionAt, SessionError>,
    pub(crate) path_events: Vec<(SessionAt, PathEvent)>,
    /// Codes with which streams of one direction ended that honest nodes accepted.
    pub(crate) stream_ends: Vec<ErrorCode>,
    /// The most any session had buffered, in bytes.
    pub(crate) buffered_most: usize,
    accepted: BTreeMap<SessionAt, Vec<StreamHandle>>,
}

impl ByzantineFixture {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            fleet: Fleet::null_tls(2, seed),
            sessions: Vec::new(),
            closed: BTreeMap::new(),
            path_events: Vec::new(),
            stream_ends: Vec::new(),
            buffered_most: 0,
            accepted: BTreeMap::new(),
        }
    }

    /// Puts the dishonest node into the world.
    pub(crate) fn add_byzantine(&mut self, node: Byzantine) -> (NodeId, Rc<RefCell<Report>>) {
        self.add_byzantine_at(BYZANTINE, node)
    }

    /// As well, where another one is there already.
    pub(crate) fn add_accomplice(&mut self, node: Byzantine) -> (NodeId, Rc<RefCell<Report>>) {
        self.add_byzantine_at(ACCOMPLICE, node)
    }

    fn add_byzantine_at(&mut self, number: u8, node: Byzantine) -> (NodeId, Rc<RefCell<Report>>) {
        let node = node.content(|offset| byte_at(0, offset));
        let report = node.report();
        (self.fleet.add_raw_server(number.into(), Box::new(node)), report)
    }

    pub(crate) fn primary(&self) -> NodeId {
        self.fleet.servers[0]
    }

    /// The dishonest server as a path to add.
    pub(crate) fn byzantine(&self) -> PathTarget {
        self.fleet.target(BYZANTINE.into())
    }

    /// The one that is one of a pair with it.
    pub(crate) fn accomplice(&self) -> PathTarget {
        self.fleet.target(ACCOMPLICE.into())
    }

    /// The honest secondary as a path to add.
    pub(crate) fn other(&self) -> PathTarget {
        self.fleet.target(1)
    }

    /// Dials a server as the honest client.
    pub(crate) fn dial(&mut self, server: NodeId, config: ClientConfig) -> SessionAt {
        let client = self.fleet.client;
        let session = self.fleet.world.dial(client, server, config, SERVER_NAME).expect("dialled");
        self.sessions.push((client, session));
        (client, session)
    }

    /// Runs the honest applications until `done`, for at most `limit`.
    pub(crate) fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.fleet.world.elapsed() + limit;
        loop {
            self.serve();
            if done(self) {
                return true;
            }
            if self.fleet.world.elapsed() >= end {
                return false;
            }
            self.fleet.world.run_for(Duration::from_millis(2));
        }
    }

    pub(crate) fn run_for(&mut self, span: Duration) {
        self.run_until(span, |_| false);
    }

    /// Waits for a session of this role at a server.
    pub(crate) fn await_incoming(&mut self, node: NodeId, role: Role, known: &[SessionAt]) -> Option<SessionAt> {
        let mut found = None;
        self.run_until(Duration::from_secs(10), |fixture| {
            let sessions = fixture.sessions.clone();
            found = sessions.into_iter().find(|at| {
                at.0 == node
                    && !known.contains(at)
                    && fixture.fleet.world.session(at.0, at.1).is_some_and(|session| session.role() == role)
            });
            found.is_some()
        });
        found
    }

    /// Why a path died, as its primary was told.
    pub(crate) fn death(&self, at: SessionAt, path: PathId) -> Option<DeadReason> {
        self.path_events.iter().find_map(|(of, event)| match event {
            PathEvent::Dead { path: dead, reason } if *of == at && *dead == path => Some(reason.clone()),
            _ => None,
        })
    }

    /// The client fetches a stream from an honest server of its own; returns whether every byte came.
    pub(crate) fn transfer(&mut self, client: SessionAt, server: SessionAt, bytes: u64) -> bool {
        let Some(mut session) = self.fleet.world.session_mut(client.0, client.1) else { return false };
        let Ok(here) = session.open_stream(Dir::Bi) else { return false };
        let mut there = None;
        let mut rest = pattern(0..bytes);
        let mut read = Vec::new();
        self.run_until(Duration::from_secs(20), |fixture| {
            let Some(mut session) = fixture.fleet.world.session_mut(server.0, server.1) else { return true };
            there = there.or_else(|| session.accept_stream(Dir::Bi));
            let Some(there) = there else { return false };
            if !rest.is_empty() {
                let taken = session.stream_mut(there).write_chunk(rest.clone()).unwrap_or(0);
                rest = rest.slice(taken..);
                if rest.is_empty() {
                    let _ = session.stream_mut(there).finish();
                }
            }
            fixture.read(client, here, &mut read) != Err(ReadError::Blocked)
        });
        read == pattern(0..bytes)
    }

    /// Reads all there is; says why there is no more.
    pub(crate) fn read(&mut self, at: SessionAt, stream: StreamHandle, into: &mut Vec<u8>) -> Result<(), ReadError> {
        let Some(mut session) = self.fleet.world.session_mut(at.0, at.1) else { return Err(ReadError::SessionClosed) };
        loop {
            match session.stream_mut(stream).read(usize::MAX) {
                Ok(chunk) => into.extend_from_slice(&chunk.data),
                Err(error) => return Err(error),
            }
        }
    }

    /// What every honest application does: secondaries write what they are granted, raw packets are taken, and streams of
    /// one direction are accepted, read and let go of.
    fn serve(&mut self) {
        for node in [self.fleet.client, self.fleet.servers[0], self.fleet.servers[1]] {
            while let Some((session, event)) = self.fleet.world.poll_event(node) {
                match event {
                    SessionEvent::Incoming => self.sessions.push((node, session)),
                    SessionEvent::Closed(error) => {
                        self.closed.insert((node, session), error);
                    }
                    SessionEvent::Path(event) => self.path_events.push(((node, session), event)),
                    _ => {}
                }
            }
        }
        for at in self.sessions.clone() {
            if let Some(mut session) = self.fleet.world.session_mut(at.0, at.1) {
                while session.recv_raw().is_some() {}
            }
            self.serve_session(at);
        }
    }

    fn serve_session(&mut self, at: SessionAt) {
        let Some(mut session) = self.fleet.world.session_mut(at.0, at.1) else { return };
        self.buffered_most = self.buffered_most.max(session.stats().bytes_buffered);
        assert!(self.buffered_most <= BUFFERED_MAX, "{} bytes buffered", self.buffered_most);
        if session.role() == Role::Secondary {
            while let Some(part) = session.accept_stream(Dir::Bi) {
                let mut stream = session.stream_mut(part);
                let range = stream.view().grant().expect("a part").range;
                let data = pattern(range.start..range.end.min(range.start + PART_BYTES_MAX));
                let _ = stream.write_chunk(data);
                let _ = stream.finish();
                stream.release_send();
                stream.release_recv();
            }
            return;
        }
        let accepted = self.accepted.entry(at).or_default();
        accepted.extend(std::iter::from_fn(|| session.accept_stream(Dir::Uni)));
        accepted.retain(|handle| {
            let mut stream = session.stream_mut(*handle);
            let end = loop {
                match stream.read(usize::MAX) {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            if let ReadError::Reset(code) = end {
                self.stream_ends.push(code);
            }
            let goes_on = end == ReadError::Blocked;
            if !goes_on {
                stream.release_recv();
            }
            goes_on
        });
    }
}
