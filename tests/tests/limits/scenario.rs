//! A session from its dial to its close, whatever the limits of its three ends are.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use kwik_core::limits::RAW_BYTES_MAX;
use kwik_core::{
    AddPathError, DelegateError, Dir, GrantId, GrantStatus, Limits, PathEvent, PathId, PathTarget, RawError, ReadError,
    Role, SessionError, SessionEvent, SessionHandle, StreamHandle, StreamOffset, TransportCode, WriteError,
};
use kwik_sim::{Fleet, FleetBuilder, NodeConfig, NodeId, World, WorldConfig};
use kwik_tests::{SERVER_NAME, pattern};

/// Why a scenario did not go as it should.
pub(crate) type ScenarioResult = Result<(), String>;

/// What is drawn for one end.
#[derive(Debug, Clone, Default)]
pub(crate) struct EndConfig {
    pub(crate) limits: Limits,
    /// The largest UDP payload; 0 for the default.
    pub(crate) mtu_max: u16,
    pub(crate) bbr: bool,
}

/// What is drawn for the applications.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wishes {
    pub(crate) priority: i32,
    pub(crate) code: u32,
}

const TICK: Duration = Duration::from_millis(2);
/// Longer than anything but a minute of idleness takes.
const PATIENCE: Duration = Duration::from_secs(60);
const DOWNLOAD: u64 = 150_000;
/// What the secondary writes of it.
const DELEGATED: Range<u64> = 20_000..90_000;
const UPLOADS: usize = 40;
const UPLOAD: u64 = 1000;
/// A keep-alive and its answer on each of two paths, ten times a second from both ends, is 4,800 in a minute.
const IDLE_DATAGRAMS_MAX: u64 = 6_000;

pub(crate) fn play(ends: &[EndConfig; 3], wishes: Wishes) -> ScenarioResult {
    let mut scenario = Scenario::new(ends)?;
    scenario.connect()?;
    scenario.join(ends)?;
    scenario.download(wishes)?;
    scenario.upload()?;
    scenario.send_raw()?;
    scenario.idle()?;
    scenario.download(wishes)?;
    scenario.close(wishes)
}

struct Scenario {
    world: World,
    target: PathTarget,
    nodes: [NodeId; 3],
    /// Of the client and the primary.
    sessions: [SessionHandle; 2],
    secondaries: Vec<SessionHandle>,
    closed: BTreeMap<(NodeId, SessionHandle), SessionError>,
    paths: Vec<PathEvent>,
    receipts: Vec<bool>,
    path: Option<PathId>,
    lease: Duration,
}

impl Scenario {
    fn new(ends: &[EndConfig; 3]) -> Result<Self, String> {
        let adjust = |number: usize, node: &mut NodeConfig| {
            let end = &ends[number];
            node.set_limits(&end.limits);
            if end.mtu_max > 0 {
                node.transport.mtu_max = Some(end.mtu_max);
            }
            if end.bbr {
                node.transport.congestion = kwik_core::Congestion::Bbr;
            }
        };
        let builder = FleetBuilder::new(WorldConfig::null_tls(1)).client(|node| adjust(0, node));
        let fleet = builder.servers(2, |number, node| adjust(number + 1, node)).build();
        let target = fleet.target(1);
        let Fleet { mut world, pki, client, servers, .. } = fleet;
        let nodes = [client, servers[0], servers[1]];
        let config = pki.client().limits(ends[0].limits.clone());
        let client =
            world.dial(nodes[0], nodes[1], config, SERVER_NAME).map_err(|error| format!("no dial: {error}"))?;
        Ok(Self {
            world,
            target,
            nodes,
            // The first of each.
            sessions: [client, client],
            secondaries: Vec::new(),
            closed: BTreeMap::new(),
            paths: Vec::new(),
            receipts: Vec::new(),
            path: None,
            lease: ends[1].limits.path_lease,
        })
    }

    /// Runs until `done`, with the applications at work.
    fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Result<bool, String>) -> ScenarioResult {
        let end = self.world.elapsed() + PATIENCE;
        loop {
            self.serve();
            if done(self)? {
                return Ok(());
            }
            if self.world.elapsed() >= end {
                return Err(format!("{what}: not within {PATIENCE:?}; closed are {:?}", self.closed));
            }
            self.world.run_for(TICK);
        }
    }

    fn serve(&mut self) {
        for node in self.nodes {
            while let Some((session, event)) = self.world.poll_event(node) {
                match event {
                    SessionEvent::Incoming if node == self.nodes[1] => self.sessions[1] = session,
                    SessionEvent::Incoming => self.secondaries.push(session),
                    SessionEvent::Closed(error) => {
                        self.closed.insert((node, session), error);
                    }
                    SessionEvent::Path(event) => self.paths.push(event),
                    SessionEvent::RawStatus { result, .. } => self.receipts.push(result.is_ok()),
                    _ => {}
                }
            }
        }
        for secondary in self.secondaries.clone() {
            let Some(mut session) = self.world.session_mut(self.nodes[2], secondary) else { continue };
            while session.recv_raw().is_some() {}
            while let Some(part) = session.accept_stream(Dir::Bi) {
                let mut stream = session.stream_mut(part);
                let Some(grant) = stream.view().grant() else { continue };
                // With a small buffer it is less than the whole; the primary writes the rest.
                let _ = stream.write_chunk(pattern(grant.range));
                stream.release_send();
                stream.release_recv();
            }
        }
    }

    /// Why an end of the session is closed, if it is.
    fn check_open(&self) -> ScenarioResult {
        for (node, session) in self.nodes.iter().zip(self.sessions) {
            if let Some(error) = self.closed.get(&(*node, session)) {
                return Err(format!("{node} closed after {:?}: {error:?}", self.world.elapsed()));
            }
        }
        Ok(())
    }

    fn is_path_alive(&self) -> bool {
        let dead = |event: &PathEvent| matches!(event, PathEvent::Dead { path, .. } if Some(*path) == self.path);
        self.path.is_some() && !self.paths.iter().any(dead)
    }

    fn connect(&mut self) -> ScenarioResult {
        self.run_until("the session", |scenario| {
            scenario.check_open()?;
            let client = scenario.nodes[0];
            let welcomed = scenario.world.saw(client, |event| *event == SessionEvent::Welcomed);
            let primary = scenario.world.session_mut(scenario.nodes[1], scenario.sessions[1]);
            Ok(welcomed && primary.is_some_and(|session| session.role() == Role::Primary))
        })
    }

    fn join(&mut self, ends: &[EndConfig; 3]) -> ScenarioResult {
        let now = self.world.now();
        let target = self.target.clone();
        let Some(mut session) = self.world.session_mut(self.nodes[1], self.sessions[1]) else {
            return Err("no session to add a path to".into());
        };
        let path = match session.add_path(now, target) {
            Ok(path) => path,
            Err(AddPathError::LimitReached { .. }) if ends[1].limits.paths_max == 1 => return Ok(()),
            Err(error) => return Err(format!("no path: {error}")),
        };
        self.path = Some(path);
        self.run_until("the path", |scenario| {
            scenario.check_open()?;
            let of_it = |event: &&PathEvent| event.path() == path;
            Ok(scenario.paths.iter().any(|event| of_it(&event)))
        })?;
        match &self.paths[0] {
            PathEvent::Joined(_) => Ok(()),
            PathEvent::Dead { reason, .. }
                if reason.code == TransportCode::PATH_LIMIT.into() && ends[0].limits.paths_max == 1 =>
            {
                Ok(())
            }
            event => Err(format!("the path did not join: {event:?}")),
        }
    }

    /// The client asks, and gets its answer from both servers.
    fn download(&mut self, wishes: Wishes) -> ScenarioResult {
        let (client, primary) = ((self.nodes[0], self.sessions[0]), (self.nodes[1], self.sessions[1]));
        let mut asked = None;
        let mut answer = None;
        let mut read = 0;
        self.run_until("a download", |scenario| {
            scenario.check_open()?;
            let mut session = scenario.world.session_mut(client.0, client.1).ok_or("no session")?;
            let Some(here) = asked.or_else(|| session.open_stream(Dir::Bi).ok()) else { return Ok(false) };
            if asked.is_none() {
                asked = Some(here);
                let mut stream = session.stream_mut(here);
                stream.set_priority(wishes.priority).map_err(|error| error.to_string())?;
                stream.write(b"all of it").map_err(|error| error.to_string())?;
                stream.finish().map_err(|error| error.to_string())?;
            }
            if answer.is_none() {
                let mut session = scenario.world.session_mut(primary.0, primary.1).ok_or("no session")?;
                answer = session.accept_stream(Dir::Bi).map(PrimaryAnswer::new);
            }
            let path = scenario.path.filter(|_| scenario.is_path_alive());
            if let Some(answer) = &mut answer {
                answer.write(&mut scenario.world, primary, path, wishes)?;
            }
            let mut session = scenario.world.session_mut(client.0, client.1).ok_or("no session")?;
            let mut stream = session.stream_mut(here);
            loop {
                match stream.read(usize::MAX) {
                    Ok(chunk) if chunk.data == pattern(read..read + chunk.data.len() as u64) => {
                        read += chunk.data.len() as u64;
                    }
                    Ok(chunk) => return Err(format!("wrong bytes at {}", chunk.offset)),
                    Err(ReadError::Blocked) => return Ok(false),
                    Err(ReadError::Finished) if read == DOWNLOAD => break,
                    Err(error) => return Err(format!("after {read} bytes: {error}")),
                }
            }
            stream.release_send();
            stream.release_recv();
            Ok(true)
        })
        .map_err(|error| format!("{error}; {read} bytes were read"))
    }

    /// Many short streams, as many at a time as the primary takes.
    fn upload(&mut self) -> ScenarioResult {
        let (mut sent, mut taken, mut open) = (0, 0, Vec::new());
        self.run_until("uploads", |scenario| {
            scenario.check_open()?;
            let mut session =
                scenario.world.session_mut(scenario.nodes[0], scenario.sessions[0]).ok_or("no session")?;
            while sent < UPLOADS
                && let Ok(stream) = session.open_stream(Dir::Uni)
            {
                sent += 1;
                let mut stream = session.stream_mut(stream);
                let written = stream.write(&pattern(0..UPLOAD)).map_err(|error| error.to_string())?;
                if written as u64 != UPLOAD {
                    return Err(format!("{written} bytes of a short stream"));
                }
                stream.release_send();
            }
            let mut session =
                scenario.world.session_mut(scenario.nodes[1], scenario.sessions[1]).ok_or("no session")?;
            open.extend(std::iter::from_fn(|| session.accept_stream(Dir::Uni)));
            open.retain(|handle| {
                let mut stream = session.stream_mut(*handle);
                let end = loop {
                    match stream.read(usize::MAX) {
                        Ok(_) => {}
                        Err(error) => break error,
                    }
                };
                if end == ReadError::Finished {
                    taken += 1;
                    stream.release_recv();
                }
                end == ReadError::Blocked
            });
            Ok(taken == UPLOADS)
        })
    }

    fn send_raw(&mut self) -> ScenarioResult {
        let Some(path) = self.path else { return Ok(()) };
        let mut sent = 0;
        // A small queue refuses some; they are sent again.
        self.run_until("raw packets", |scenario| {
            scenario.check_open()?;
            if !scenario.is_path_alive() {
                return Ok(true);
            }
            let mut session =
                scenario.world.session_mut(scenario.nodes[1], scenario.sessions[1]).ok_or("no session")?;
            let delivered = scenario.receipts.iter().filter(|taken| **taken).count();
            while sent - (scenario.receipts.len() - delivered) < 3 {
                match session.send_raw(path, vec![0; RAW_BYTES_MAX].into()) {
                    Ok(_) => sent += 1,
                    Err(RawError::Blocked) => break,
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok(delivered == 3)
        })
    }

    /// A minute in which nobody does anything.
    fn idle(&mut self) -> ScenarioResult {
        let datagrams = |scenario: &Self| -> u64 {
            let [client, servers @ ..] = scenario.nodes;
            let both = |server| {
                scenario.world.link_stats(client, server).sent + scenario.world.link_stats(server, client).sent
            };
            servers.into_iter().map(both).sum()
        };
        let before = datagrams(self);
        let mut moments = 0_u64;
        self.world.run_until(Duration::from_secs(60), |_| {
            moments += 1;
            false
        });
        self.serve();
        self.check_open()?;
        let sent = datagrams(self) - before;
        if sent > IDLE_DATAGRAMS_MAX || moments > 4 * IDLE_DATAGRAMS_MAX {
            return Err(format!("idle ends sent {sent} datagrams in a minute, at {moments} moments"));
        }
        if self.path.is_some() && !self.is_path_alive() && self.lease > Duration::from_secs(100) {
            let unwelcome = |event: &&PathEvent| !matches!(event, PathEvent::Dead { reason, .. } if reason.code == TransportCode::PATH_LIMIT.into());
            if self.paths.iter().any(|event| unwelcome(&event)) {
                return Err(format!("an idle path died: {:?}", self.paths));
            }
        }
        Ok(())
    }

    fn close(&mut self, wishes: Wishes) -> ScenarioResult {
        let reason = "é".repeat(1000);
        let (client, primary) = ((self.nodes[0], self.sessions[0]), (self.nodes[1], self.sessions[1]));
        let now = self.world.now();
        self.world.session_mut(client.0, client.1).ok_or("no session")?.close(now, wishes.code, &reason);
        self.run_until("the close", |scenario| {
            Ok(scenario.closed.contains_key(&client) && scenario.closed.contains_key(&primary))
        })?;
        match (self.closed.get(&client), self.closed.get(&primary)) {
            (Some(SessionError::LocallyClosed), Some(SessionError::ClosedByPeer { code, .. }))
                if *code == wishes.code => {}
            ends => return Err(format!("the session ended with {ends:?}")),
        }
        self.run_until("all to be over", |scenario| {
            let now = scenario.world.now();
            let sessions =
                [client, primary].into_iter().chain(scenario.secondaries.iter().map(|at| (scenario.nodes[2], *at)));
            for (node, session) in sessions.collect::<Vec<_>>() {
                if scenario.closed.contains_key(&(node, session)) {
                    scenario.world.endpoint(node).release(now, session);
                }
            }
            Ok(scenario.nodes.iter().all(|node| scenario.world.endpoint(*node).is_idle()))
        })
    }
}

/// What the primary does about one question.
struct PrimaryAnswer {
    stream: StreamHandle,
    grant: Option<GrantId>,
    begun: bool,
    /// What is left for the primary itself, the lowest first.
    own: Vec<Range<u64>>,
    finished: bool,
}

impl PrimaryAnswer {
    fn new(stream: StreamHandle) -> Self {
        Self { stream, grant: None, begun: false, own: Vec::new(), finished: false }
    }

    fn write(
        &mut self,
        world: &mut World,
        (node, session): (NodeId, SessionHandle),
        path: Option<PathId>,
        wishes: Wishes,
    ) -> ScenarioResult {
        let mut session = world.session_mut(node, session).ok_or("no session")?;
        if !self.begun {
            self.begun = true;
            self.own = vec![0..DELEGATED.start, DELEGATED.end..DOWNLOAD];
            let mut stream = session.stream_mut(self.stream);
            stream.set_priority(wishes.priority).map_err(|error| error.to_string())?;
            match path.map(|path| stream.delegate_range(path, DELEGATED, Bytes::from_static(b"this"))) {
                Some(Ok(info)) => self.grant = Some(info.grant),
                None | Some(Err(DelegateError::PathDead(_))) => self.own.insert(1, DELEGATED),
                Some(Err(error)) => return Err(format!("not delegated: {error}")),
            }
        }
        match self.grant.and_then(|grant| session.delegation(grant)) {
            Some(GrantStatus::Lost { missing, .. }) => {
                self.grant = None;
                self.own.splice(0..0, missing);
            }
            Some(GrantStatus::Delivered) => self.grant = None,
            Some(GrantStatus::Progress { .. }) | None => {}
        }
        let mut stream = session.stream_mut(self.stream);
        while let Some(range) = self.own.first_mut() {
            match stream.write_at(StreamOffset(range.start), pattern(range.clone())) {
                Ok(taken) => range.start += taken as u64,
                Err(WriteError::Blocked) => break,
                Err(error) => return Err(format!("not written: {error}")),
            }
            if range.is_empty() {
                self.own.remove(0);
            }
        }
        if self.own.is_empty() && self.grant.is_none() && !self.finished {
            self.finished = true;
            stream.release_send();
            stream.release_recv();
        }
        Ok(())
    }
}
