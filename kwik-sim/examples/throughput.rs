//! How fast a simulated download runs: 100 MB over three links, of which the primary delegates two servers' shares in
//! chunks of 1 MiB, without TLS. `--tls` is for TLS after all, `--batches` for datagrams that arrive at whole
//! milliseconds.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kwik_core::{
    DelegationState, Dir, GrantId, PathId, PathTarget, ReadError, SessionEvent, SessionHandle, StreamHandle,
};
use kwik_sim::{Link, NodeId, Pki, TlsMode, World, WorldConfig};

const NAME: &str = "server.test";
const TOTAL: u64 = 100_000_000;
const CHUNK: u64 = 1 << 20;

/// Rate in Mbit/s and delay in ms of each link, the primary's first.
const LINKS: [(u64, u64); 3] = [(100, 20), (50, 40), (20, 80)];

/// A source whose next chunk would be the last but keeps everybody waiting gets none.
const AHEAD: u64 = 2;

struct Download {
    pki: Pki,
    client: NodeId,
    servers: Vec<NodeId>,
    session: SessionHandle,
    stream: StreamHandle,
    read: u64,
    incoming: Option<SessionHandle>,
    primary: Option<(SessionHandle, StreamHandle)>,
    /// Path, and its unfinished delegations.
    paths: Vec<(PathId, Vec<GrantId>)>,
    /// What the primary writes itself at the moment, as offsets.
    own: (u64, u64),
    next: u64,
    /// Sessions of the secondaries, by server.
    joined: Vec<(NodeId, SessionHandle)>,
    parts: Vec<(NodeId, SessionHandle, StreamHandle, u64)>,
    zeros: Bytes,
}

#[expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement of this machine")]
fn main() -> ExitCode {
    let tls = if std::env::args().any(|arg| arg == "--tls") { TlsMode::Real } else { TlsMode::Null };
    let batches = std::env::args().any(|arg| arg == "--batches");
    let receive_every = if batches { Duration::from_millis(1) } else { Duration::ZERO };
    let begin = Instant::now();
    let Ok((mut world, mut download)) = build(tls, receive_every) else { return ExitCode::FAILURE };
    let finished = world.run_until(Duration::from_secs(600), |world| download.act(world));
    let (simulated, wall) = (world.elapsed().as_secs_f64(), begin.elapsed().as_secs_f64());
    println!(
        "{} bytes in {simulated:.2} simulated seconds, {:.1} Mbit/s",
        download.read,
        download.read as f64 * 8e-6 / simulated
    );
    println!("{wall:.3} seconds of wall time: {:.1} simulated seconds a second", simulated / wall);
    println!("{} events, {:.2} µs each", world.trace().len(), wall * 1e6 / world.trace().len() as f64);
    println!("trace {:016x}", world.trace().hash());
    for server in &download.servers {
        println!("{:?}", world.link_stats(*server, download.client));
    }
    if finished { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn build(tls: TlsMode, receive_every: Duration) -> Result<(World, Download), Box<dyn std::error::Error>> {
    let mut config = WorldConfig::new(1);
    config.tls = tls;
    config.receive_every = receive_every;
    let mut world = World::with_config(config);
    let pki = world.pki(NAME);
    let client = world.add_client("10.0.0.1:5000".parse()?)?;
    let mut servers = Vec::new();
    for (number, (rate, delay)) in (0..).zip(LINKS) {
        let server = world.add_server(format!("10.0.1.{}:4433", number + 1).parse()?, pki.server(number))?;
        world.set_link_both(client, server, Link::with_rate(rate * 1_000_000, Duration::from_millis(delay / 2)));
        servers.push(server);
    }
    let session = world.dial(client, servers[0], pki.client(), NAME)?;
    let stream = world.session(client, session).ok_or("no session")?.open_stream(Dir::Bi)?;
    let download = Download {
        pki,
        client,
        servers,
        session,
        stream,
        read: 0,
        incoming: None,
        primary: None,
        paths: Vec::new(),
        own: (0, 0),
        next: 0,
        joined: Vec::new(),
        parts: Vec::new(),
        zeros: Bytes::from(vec![0; 1 << 16]),
    };
    Ok((world, download))
}

impl Download {
    /// Whether it is done.
    fn act(&mut self, world: &mut World) -> bool {
        for server in self.servers.clone() {
            let mut woken = false;
            while let Some((session, event)) = world.poll_event(server) {
                woken = true;
                if event == SessionEvent::Incoming {
                    self.on_incoming(world, server, session);
                }
            }
            if woken && server == self.servers[0] {
                self.distribute(world);
            } else if woken {
                self.fill(world, server);
            }
        }
        let mut woken = false;
        while world.poll_event(self.client).is_some() {
            woken = true;
        }
        woken && self.consume(world)
    }

    fn on_incoming(&mut self, world: &mut World, server: NodeId, session: SessionHandle) {
        if server != self.servers[0] {
            self.joined.push((server, session));
            return;
        }
        self.incoming = Some(session);
        let now = world.now();
        for (number, secondary) in (0..).zip(self.servers.clone()).skip(1) {
            let identity = self.pki.public_identity(number);
            let target = PathTarget { address: world.address(secondary), server_name: NAME.to_owned(), identity };
            let added = world.server_session(server, session).and_then(|mut view| view.add_path(now, target).ok());
            self.paths.extend(added.map(|path| (path, Vec::new())));
        }
    }

    /// The primary hands out chunks, and writes its own.
    fn distribute(&mut self, world: &mut World) {
        let primary = self.servers[0];
        if self.primary.is_none() {
            let Some(session) = self.incoming else { return };
            let accepted = world.session(primary, session).and_then(|mut view| view.accept_stream(Dir::Bi));
            self.primary = accepted.map(|stream| (session, stream));
        }
        let Some((session, stream)) = self.primary else { return };
        let Some(mut view) = world.server_session(primary, session) else { return };
        for (path, grants) in &mut self.paths {
            grants.retain(|grant| matches!(view.delegation(*grant), Some(DelegationState::Active { .. })));
            while self.next < TOTAL && (grants.len() as u64) < AHEAD {
                let range = self.next..(self.next + CHUNK).min(TOTAL);
                let Ok(grant) = view.stream(stream).delegate_range(*path, range.clone(), Bytes::new()) else { break };
                grants.push(grant.grant);
                self.next = range.end;
            }
        }
        loop {
            if self.own.0 == self.own.1 {
                if self.next == TOTAL {
                    let _ = view.stream(stream).finish();
                    return;
                }
                self.own = (self.next, (self.next + CHUNK).min(TOTAL));
                self.next = self.own.1;
            }
            let data = chunk(&self.zeros, self.own.1 - self.own.0);
            let offset = kwik_core::StreamOffset(self.own.0);
            let Ok(taken) = view.stream(stream).write_at(offset, data) else { return };
            self.own.0 += taken as u64;
        }
    }

    fn fill(&mut self, world: &mut World, server: NodeId) {
        for (_, session) in self.joined.iter().filter(|(at, _)| *at == server) {
            let Some(mut view) = world.session(server, *session) else { continue };
            while let Some(stream) = view.accept_stream(Dir::Bi) {
                let len = view.stream(stream).grant().map_or(0, |grant| grant.range.end - grant.range.start);
                self.parts.push((server, *session, stream, len));
            }
        }
        for (_, session, stream, left) in self.parts.iter_mut().filter(|part| part.0 == server) {
            let Some(mut view) = world.session(server, *session) else { continue };
            while *left > 0 {
                let Ok(taken) = view.stream(*stream).write_chunk(chunk(&self.zeros, *left)) else { break };
                *left -= taken as u64;
            }
            if *left == 0 {
                view.stream(*stream).release_recv();
                view.stream(*stream).release_send();
            }
        }
        self.parts.retain(|part| part.3 > 0);
    }

    fn consume(&mut self, world: &mut World) -> bool {
        let Some(mut session) = world.session(self.client, self.session) else { return true };
        loop {
            match session.stream(self.stream).read(usize::MAX) {
                Ok(chunk) => self.read += chunk.data.len() as u64,
                Err(ReadError::Blocked) => return false,
                Err(_) => return true,
            }
        }
    }
}

fn chunk(zeros: &Bytes, len: u64) -> Bytes {
    zeros.slice(..usize::try_from(len).unwrap_or(usize::MAX).min(zeros.len()))
}
