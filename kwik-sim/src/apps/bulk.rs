//! One large download that several servers share, for measurements: a client reads one stream, the primary distributes it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kwik_core::{
    Adaptive, ClientConfig, Congestion, Dir, DistributionReport, Distributor, Limits, PathEvent, PathId, PathTarget,
    Policy, ReadError, ReadOrder, Role, SessionEvent, SessionHandle, SessionMut, StreamEvent, StreamHandle,
    TransportConfig, WriteError,
};

use crate::app::{App, Context};
use crate::content::RepeatedContent;
use crate::fleet::{Fleet, FleetBuilder, SERVER_NAME};
use crate::link::Link;
use crate::node::NodeConfig;
use crate::world::WorldConfig;

/// What is downloaded, and how.
#[derive(Clone)]
pub struct BulkPlan {
    /// Bytes of the stream.
    pub bytes: u64,
    /// The link to each server, the primary's first, each the same in both directions.
    pub links: Vec<Link>,
    /// In which order the client reads.
    pub order: ReadOrder,
    /// Who writes what.
    pub policy: fn(ReadOrder) -> Box<dyn Policy>,
    /// The congestion controller of every node.
    pub congestion: Congestion,
    /// The limits of every node.
    pub limits: Limits,
}

impl BulkPlan {
    /// A download that is read in order, by the policy that adapts itself.
    #[must_use]
    pub fn new(bytes: u64, links: &[Link]) -> Self {
        let policy = |order| -> Box<dyn Policy> { Box::new(Adaptive::new(order)) };
        let congestion = TransportConfig::default().congestion;
        Self { bytes, links: links.to_vec(), order: ReadOrder::Ordered, policy, congestion, limits: Limits::default() }
    }
}

/// A world with one client that downloads once, and a server for each link.
pub struct Bulk {
    /// The nodes.
    pub fleet: Fleet,
    progress: Rc<RefCell<Progress>>,
    report: Rc<RefCell<Option<DistributionReport>>>,
}

/// What the client has.
#[derive(Default)]
struct Progress {
    read: u64,
    /// When something was last read, or the download began.
    read_at: Option<Instant>,
    longest_gap: Duration,
}

/// The stream's content follows from it.
const KEY: u64 = 0x6275_6c6b;

impl Bulk {
    /// `bytes` bytes over `links`, as [`BulkPlan::new`] has it.
    ///
    /// # Panics
    /// As [`Bulk::of`].
    #[must_use]
    pub fn new(config: WorldConfig, bytes: u64, links: &[Link]) -> Self {
        Self::of(config, BulkPlan::new(bytes, links))
    }

    /// The download of a plan.
    ///
    /// # Panics
    /// If there is no link, or more links than a session has paths.
    #[must_use]
    pub fn of(config: WorldConfig, plan: BulkPlan) -> Self {
        let adjust = |node: &mut NodeConfig| {
            node.transport.congestion = plan.congestion;
            node.set_limits(&plan.limits);
        };
        let builder = FleetBuilder::new(config).client(adjust);
        let mut fleet = builder.servers(plan.links.len(), |_, node| adjust(node)).build();
        let targets: Vec<PathTarget> = (1..plan.links.len()).map(|number| fleet.target(number)).collect();
        let report = Rc::default();
        for (server, link) in fleet.servers.iter().zip(&plan.links) {
            fleet.world.set_link_both(fleet.client, *server, link.clone());
            let app = BulkServer::new(plan.clone(), targets.clone(), Rc::clone(&report));
            fleet.world.set_app(*server, Box::new(app));
        }
        let progress = Rc::default();
        let client = BulkClient {
            config: fleet.pki.client().limits(plan.limits.clone()),
            server: fleet.server_address(0),
            content: RepeatedContent::new(KEY),
            order: plan.order,
            stream: None,
            progress: Rc::clone(&progress),
            is_done: false,
        };
        fleet.world.set_app(fleet.client, Box::new(client));
        Self { fleet, progress, report }
    }

    /// Runs until the client read the stream to its end, for at most `limit` of virtual time. Returns whether it did.
    pub fn run(&mut self, limit: Duration) -> bool {
        let client = self.fleet.client;
        self.fleet.world.run_until(limit, |world| world.is_app_done(client))
    }

    /// Runs until the client read so many bytes, for at most `limit` of virtual time. Returns whether it did.
    pub fn run_until_read(&mut self, bytes: u64, limit: Duration) -> bool {
        let progress = Rc::clone(&self.progress);
        self.fleet.world.run_until(limit, |_| progress.borrow().read >= bytes)
    }

    /// What the client has read, in bytes.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.progress.borrow().read
    }

    /// The longest time in which the client read nothing, once it had begun.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        self.progress.borrow().longest_gap
    }

    /// What every server did, as the primary knows it; `None` before the session.
    #[must_use]
    pub fn report(&self) -> Option<DistributionReport> {
        self.report.borrow().clone()
    }
}

/// Reads one stream to its end.
struct BulkClient {
    config: ClientConfig,
    server: SocketAddr,
    content: RepeatedContent,
    order: ReadOrder,
    stream: Option<(SessionHandle, StreamHandle)>,
    progress: Rc<RefCell<Progress>>,
    is_done: bool,
}

impl App for BulkClient {
    fn on_start(&mut self, cx: &mut Context<'_>) {
        let Ok(session) = cx.dial(self.config.clone(), self.server, SERVER_NAME) else { return };
        let stream = cx.session_mut(session).and_then(|mut session| session.open_stream(Dir::Bi).ok());
        self.stream = stream.map(|stream| (session, stream));
    }

    fn on_event(&mut self, cx: &mut Context<'_>, session: SessionHandle, event: SessionEvent) {
        let SessionEvent::Stream(StreamEvent::Readable(stream)) = event else { return };
        if self.stream != Some((session, stream)) {
            return;
        }
        let now = cx.now();
        let Some(mut session) = cx.session_mut(session) else { return };
        loop {
            let mut stream = session.stream_mut(stream);
            let chunk = match self.order {
                ReadOrder::Ordered => stream.read(usize::MAX),
                ReadOrder::Unordered => stream.read_unordered(usize::MAX),
            };
            match chunk {
                Ok(chunk) => {
                    let wrong = self.content.first_difference(chunk.offset.0, &chunk.data);
                    assert_eq!(wrong, None, "wrong bytes at {}", chunk.offset.0);
                    let mut progress = self.progress.borrow_mut();
                    assert!(self.order == ReadOrder::Unordered || chunk.offset.0 == progress.read, "not the next");
                    progress.on_read(now, chunk.data.len() as u64);
                }
                Err(ReadError::Finished) => {
                    self.is_done = true;
                    return;
                }
                Err(_) => return,
            }
        }
    }

    fn is_done(&self) -> bool {
        self.is_done
    }
}

impl Progress {
    fn on_read(&mut self, now: Instant, bytes: u64) {
        let gap = self.read_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.longest_gap = self.longest_gap.max(gap);
        self.read_at = Some(now);
        self.read += bytes;
    }
}

/// Distributes a stream to the servers of the session, or writes what it was granted.
struct BulkServer {
    plan: BulkPlan,
    targets: Vec<PathTarget>,
    content: RepeatedContent,
    is_primary: bool,
    distributor: Option<Distributor>,
    session: Option<SessionHandle>,
    is_finished: bool,
    report: Rc<RefCell<Option<DistributionReport>>>,
    /// Where the paths lead that it added.
    paths: BTreeMap<PathId, PathTarget>,
    granted: VecDeque<GrantedRange>,
}

/// A granted range that is not written whole.
struct GrantedRange {
    stream: StreamHandle,
    next: u64,
    end: u64,
}

impl BulkServer {
    fn new(plan: BulkPlan, targets: Vec<PathTarget>, report: Rc<RefCell<Option<DistributionReport>>>) -> Self {
        Self {
            plan,
            targets,
            content: RepeatedContent::new(KEY),
            is_primary: false,
            distributor: None,
            session: None,
            is_finished: false,
            report,
            paths: BTreeMap::new(),
            granted: VecDeque::new(),
        }
    }

    /// The primary adds another server to the client's session. One that was there before is a source again once it joined.
    fn add_path(&mut self, now: Instant, session: &mut SessionMut<'_>, target: PathTarget) {
        if let Ok(path) = session.add_path(now, target.clone()) {
            self.paths.insert(path, target);
        }
    }

    fn distribute(&mut self, cx: &mut Context<'_>, handle: SessionHandle) {
        let now = cx.now();
        let Some(mut session) = cx.session_mut(handle) else { return };
        if self.distributor.is_none() {
            let Some(stream) = session.accept_stream(Dir::Bi) else { return };
            let policy = (self.plan.policy)(self.plan.order);
            let mut distributor = Distributor::new(stream, 0..self.plan.bytes, policy);
            distributor.add_source(now, PathId::PRIMARY);
            self.paths.keys().for_each(|path| distributor.add_source(now, *path));
            self.distributor = Some(distributor);
        }
        let Some(distributor) = &mut self.distributor else { return };
        let mut is_answered = true;
        while std::mem::take(&mut is_answered) {
            if distributor.act(now, &mut session).is_err() {
                return;
            }
            while let Some((path, range)) = distributor.poll_request() {
                distributor.answer(path, range, Bytes::new());
                is_answered = true;
            }
            while let Some(range) = distributor.poll_own() {
                distributor.supply(range.start, self.content.at(range.start, range.end - range.start));
                is_answered = true;
            }
        }
        *self.report.borrow_mut() = Some(distributor.report());
        if !self.is_finished && distributor.is_done() {
            self.is_finished = session.stream_mut(distributor.stream()).finish().is_ok();
        }
        if let Some(at) = distributor.poll_timeout() {
            cx.wake_in(at.saturating_duration_since(now));
        }
    }

    fn write_granted(&mut self, session: &mut SessionMut<'_>) {
        while let Some(stream) = session.accept_stream(Dir::Bi) {
            let range = session.stream(stream).grant().map_or(0..0, |grant| grant.range);
            self.granted.push_back(GrantedRange { stream, next: range.start, end: range.end });
        }
        // One after the other: the lowest is what the reader waits for.
        self.granted.make_contiguous().sort_by_key(|granted| granted.next);
        while self.granted.front_mut().is_some_and(|granted| granted.write(session, &self.content)) {
            self.granted.pop_front();
        }
    }
}

impl GrantedRange {
    /// Returns whether nothing is left to write.
    fn write(&mut self, session: &mut SessionMut<'_>, content: &RepeatedContent) -> bool {
        let mut stream = session.stream_mut(self.stream);
        while self.next < self.end {
            match stream.write_chunk(content.at(self.next, self.end - self.next)) {
                Ok(taken) => self.next += taken as u64,
                Err(WriteError::Blocked) => return false,
                Err(_) => break,
            }
        }
        stream.release_recv();
        stream.release_send();
        true
    }
}

impl App for BulkServer {
    fn on_start(&mut self, _: &mut Context<'_>) {}

    fn on_event(&mut self, cx: &mut Context<'_>, handle: SessionHandle, event: SessionEvent) {
        let now = cx.now();
        let Some(mut session) = cx.session_mut(handle) else { return };
        match event {
            SessionEvent::Incoming if session.role() == Role::Primary => {
                (self.is_primary, self.session) = (true, Some(handle));
                for target in self.targets.clone() {
                    self.add_path(now, &mut session, target);
                }
            }
            SessionEvent::Path(PathEvent::Joined(path)) => {
                if let Some(distributor) = &mut self.distributor {
                    distributor.add_source(now, path);
                }
            }
            // Its server may come back.
            SessionEvent::Path(PathEvent::Dead { path, .. }) => {
                if let Some(target) = self.paths.remove(&path) {
                    self.add_path(now, &mut session, target);
                }
            }
            _ => {}
        }
        if self.is_primary {
            self.distribute(cx, handle);
        } else {
            self.write_granted(&mut session);
        }
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        if let Some(session) = self.session.filter(|_| self.distributor.is_some()) {
            self.distribute(cx, session);
        }
    }
}
