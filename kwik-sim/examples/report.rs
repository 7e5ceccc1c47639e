//! A download over three servers in trouble, as a page to look at and as qlog:
//! `cargo run -p kwik-sim --example report -- DIRECTORY`.
//!
//! The primary delegates pieces to two secondaries. One secondary's link becomes slow, the other one vanishes and its
//! pieces are given to somebody else; later it is added again.

use std::collections::VecDeque;
use std::error::Error;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use kwik_core::{
    Dir, GrantId, GrantStatus, PathEvent, PathId, PathTarget, ReadError, SessionEvent, SessionHandle, StreamHandle,
    StreamOffset,
};
use kwik_sim::report::{Outcome, Summary, write_html, write_qlog};
use kwik_sim::{Fault, Link, NodeId, Pki, TraceKind, World, WorldConfig};

const NAME: &str = "server.test";
const SEED: u64 = 7;
const TOTAL: u64 = 30_000_000;
const PIECE: u64 = 1_000_000;
/// Pieces that a secondary has at a time.
const AHEAD: usize = 2;
/// Rate in Mbit/s and round trip in ms of each server's link, the primary's first.
const LINKS: [(u64, u64); 3] = [(20, 30), (16, 50), (12, 80)];

struct Download {
    pki: Pki,
    client: NodeId,
    servers: Vec<NodeId>,
    /// At the client.
    session: SessionHandle,
    stream: StreamHandle,
    read: u64,
    /// At the primary.
    seat: Option<SessionHandle>,
    answer: Option<StreamHandle>,
    paths: Vec<(PathId, usize, Vec<GrantId>)>,
    todo: VecDeque<Range<u64>>,
    /// What a vanished server left undone.
    urgent: VecDeque<Range<u64>>,
    own: Range<u64>,
    /// At the secondaries.
    joined: Vec<(NodeId, SessionHandle)>,
    parts: Vec<(NodeId, SessionHandle, StreamHandle, u64)>,
    zeros: Bytes,
}

#[expect(clippy::print_stdout, reason = "an example tells what it wrote")]
fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "report".to_owned()));
    let (mut world, mut download) = build()?;
    schedule(&mut world, &download);
    let finished = world.run_until(Duration::from_secs(60), |world| download.act(world));
    let outcome = if finished { Outcome::Passed } else { Outcome::Failed(vec!["the download stalled".to_owned()]) };
    let links = LINKS.map(|(rate, rtt)| format!("{rate} Mbit/s, {rtt} ms")).join(" · ");
    let options = [
        ("download", format!("{} MB", TOTAL / 1_000_000)),
        ("pieces", format!("{} MB", PIECE / 1_000_000)),
        ("links", links),
        ("TLS", "real".to_owned()),
    ];
    let summary = Summary {
        seed: SEED,
        options: options.map(|(name, value)| (name.to_owned(), value)).into(),
        details: String::new(),
        nodes: ["client", "primary", "secondary A", "secondary B"].map(str::to_owned).into(),
        outcome,
        duration: world.elapsed(),
    };
    std::fs::create_dir_all(&directory)?;
    let page = directory.join("report.html");
    write_html(world.trace(), &summary, &page)?;
    println!("{}", page.display());
    for file in write_qlog(world.trace(), &summary, &directory.join("qlog"))? {
        println!("{}", file.display());
    }
    Ok(())
}

fn build() -> Result<(World, Download), Box<dyn Error>> {
    let mut config = WorldConfig::new(SEED);
    config.sample_paths = Some(Duration::from_millis(20));
    let mut world = World::with_config(config);
    world.trace_mut().keep(10_000_000);
    let pki = world.pki(NAME);
    let client = world.add_client("10.0.0.1:5000".parse()?)?;
    let mut servers = Vec::new();
    for (number, (rate, rtt)) in (0..).zip(LINKS) {
        let server = world.add_server(format!("10.0.1.{}:4433", number + 1).parse()?, pki.server(number))?;
        world.set_link_both(client, server, Link::with_rate(rate * 1_000_000, Duration::from_millis(rtt / 2)));
        servers.push(server);
    }
    let session = world.dial(client, servers[0], pki.client(), NAME)?;
    let stream = world.session_mut(client, session).ok_or("no session")?.open_stream(Dir::Bi)?;
    let pieces = (0..TOTAL.div_ceil(PIECE)).map(|piece| piece * PIECE..TOTAL.min((piece + 1) * PIECE));
    let download = Download {
        pki,
        client,
        servers,
        session,
        stream,
        read: 0,
        seat: None,
        answer: None,
        paths: Vec::new(),
        todo: pieces.collect(),
        urgent: VecDeque::new(),
        own: 0..0,
        joined: Vec::new(),
        parts: Vec::new(),
        zeros: Bytes::from(vec![0; 1 << 16]),
    };
    Ok((world, download))
}

fn schedule(world: &mut World, download: &Download) {
    let client = download.client;
    let &[_, a, b] = download.servers.as_slice() else { return };
    let slow = Link { loss: 0.005, ..Link::with_rate(4_000_000, Duration::from_millis(40)) };
    world.at(Duration::from_millis(1500), Fault::Link { from: a, to: client, link: slow });
    world.at(Duration::from_millis(4000), Fault::Heal { a, b: client });
    world.at(Duration::from_millis(2200), Fault::Blackhole { from: b, to: client });
    world.at(Duration::from_millis(2200), Fault::Blackhole { from: client, to: b });
    world.at(Duration::from_millis(5500), Fault::Heal { a: b, b: client });
    world.at(Duration::from_millis(7000), Fault::Pause { node: a, span: Duration::from_millis(250) });
}

impl Download {
    /// Whether it is done.
    fn act(&mut self, world: &mut World) -> bool {
        for index in 0..self.servers.len() {
            let server = self.servers[index];
            let mut woken = false;
            while let Some((session, event)) = world.poll_event(server) {
                woken = true;
                match event {
                    SessionEvent::Incoming if index == 0 => {
                        self.seat = Some(session);
                        self.add(world, 1);
                        self.add(world, 2);
                    }
                    SessionEvent::Incoming => self.joined.push((server, session)),
                    SessionEvent::Path(PathEvent::Dead { path, .. }) => self.replace(world, path),
                    _ => {}
                }
            }
            match (woken, index) {
                (false, _) => {}
                (true, 0) => self.distribute(world),
                (true, _) => self.fill(world, server),
            }
        }
        let mut woken = false;
        while world.poll_event(self.client).is_some() {
            woken = true;
        }
        woken && self.consume(world)
    }

    fn add(&mut self, world: &mut World, server: usize) {
        let Ok(number) = u8::try_from(server) else { return };
        let identity = self.pki.public_identity(number);
        let address = world.address(self.servers[server]);
        let target = PathTarget { address, server_name: NAME.to_owned(), identity };
        let now = world.now();
        let session = self.seat.and_then(|session| world.session_mut(self.servers[0], session));
        if let Some(path) = session.and_then(|mut session| session.add_path(now, target).ok()) {
            self.paths.push((path, server, Vec::new()));
        }
    }

    /// A server that vanished is tried again at once.
    fn replace(&mut self, world: &mut World, path: PathId) {
        self.distribute(world);
        if let Some(index) = self.paths.iter().position(|known| known.0 == path) {
            let (_, server, _) = self.paths.remove(index);
            self.add(world, server);
        }
    }

    /// The primary hands out pieces, and writes its own.
    fn distribute(&mut self, world: &mut World) {
        let primary = self.servers[0];
        let Some(seat) = self.seat else { return };
        let mut notes = Vec::new();
        let Some(mut session) = world.session_mut(primary, seat) else { return };
        self.answer = self.answer.or_else(|| session.accept_stream(Dir::Bi));
        let Some(answer) = self.answer else { return };
        let active: Vec<PathId> = session.active_paths().into_iter().map(|path| path.id).collect();
        for (path, _, grants) in &mut self.paths {
            grants.retain(|grant| match session.delegation(*grant) {
                Some(GrantStatus::Progress { .. }) => true,
                Some(GrantStatus::Lost { missing, .. }) => {
                    notes.push(format!("{path} lost {missing:?}"));
                    self.urgent.extend(missing);
                    false
                }
                _ => false,
            });
            while active.contains(path) && grants.len() < AHEAD {
                let Some(range) = self.todo.pop_front() else { break };
                let granted = session.stream_mut(answer).delegate_range(*path, range.clone(), Bytes::new());
                let Ok(grant) = granted else {
                    self.todo.push_front(range);
                    break;
                };
                notes.push(format!("{path} is to bring {range:?}"));
                grants.push(grant.grant);
            }
        }
        // Everybody waits for what was lost, so it goes to a path that answers, however busy that is.
        while let Some(range) = self.urgent.pop_front() {
            let busiest_last = |known: &&mut (PathId, usize, Vec<GrantId>)| known.2.len();
            let known = self.paths.iter_mut().filter(|known| active.contains(&known.0)).min_by_key(busiest_last);
            let granted = known.and_then(|(path, _, grants)| {
                let grant = session.stream_mut(answer).delegate_range(*path, range.clone(), Bytes::new()).ok()?;
                notes.push(format!("{path} is to bring {range:?} instead"));
                grants.push(grant.grant);
                Some(())
            });
            if granted.is_none() {
                self.todo.push_front(range);
            }
        }
        while let Some(next) = Some(&self.own).filter(|own| !own.is_empty()).cloned().or_else(|| self.todo.pop_front())
        {
            self.own = next;
            let data = slice(&self.zeros, self.own.end - self.own.start);
            let Ok(taken) = session.stream_mut(answer).write_at(StreamOffset(self.own.start), data) else { break };
            self.own.start += taken as u64;
        }
        if self.own.is_empty() && self.todo.is_empty() && self.paths.iter().all(|(.., grants)| grants.is_empty()) {
            let _ = session.stream_mut(answer).finish();
        }
        for text in notes {
            world.record(primary, TraceKind::Note { text });
        }
    }

    /// A secondary writes what it was granted.
    fn fill(&mut self, world: &mut World, server: NodeId) {
        for (_, session) in self.joined.iter().filter(|(at, _)| *at == server) {
            let Some(mut view) = world.session_mut(server, *session) else { continue };
            while let Some(stream) = view.accept_stream(Dir::Bi) {
                let len = view.stream(stream).grant().map_or(0, |grant| grant.range.end - grant.range.start);
                self.parts.push((server, *session, stream, len));
            }
        }
        for (_, session, stream, left) in self.parts.iter_mut().filter(|part| part.0 == server) {
            let Some(mut view) = world.session_mut(server, *session) else { continue };
            while *left > 0 {
                let Ok(taken) = view.stream_mut(*stream).write_chunk(slice(&self.zeros, *left)) else { break };
                *left -= taken as u64;
            }
            if *left == 0 {
                view.stream_mut(*stream).release_recv();
                view.stream_mut(*stream).release_send();
            }
        }
        self.parts.retain(|part| part.3 > 0);
    }

    fn consume(&mut self, world: &mut World) -> bool {
        let Some(mut session) = world.session_mut(self.client, self.session) else { return true };
        loop {
            match session.stream_mut(self.stream).read(usize::MAX) {
                Ok(chunk) => self.read += chunk.data.len() as u64,
                Err(ReadError::Blocked) => return self.read == TOTAL,
                Err(_) => return true,
            }
        }
    }
}

fn slice(zeros: &Bytes, len: u64) -> Bytes {
    zeros.slice(..usize::try_from(len).unwrap_or(usize::MAX).min(zeros.len()))
}
