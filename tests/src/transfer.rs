//! A download from several servers, as applications: the client asks the primary for streams, and whoever is free
//! writes the next range of them. What a server lost is written by another.

mod client;
mod primary;
mod recorder;
mod server;

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use kwik_core::{Limits, PathStats, PathTarget, SessionHandle};
use kwik_sim::content::bytes_at;
use kwik_sim::{Disturbance, Fleet, FleetBuilder, Link, LinkStats, NodeId, TlsMode, World, WorldConfig};

use self::client::TransferClient;
use self::server::TransferServer;

pub use self::recorder::{DownloadRecord, Loss, Recorder};

/// What is downloaded, over what, and by which rules.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of the world.
    pub seed: u64,
    /// How connections are protected.
    pub tls: TlsMode,
    /// Servers besides the primary.
    pub secondaries: usize,
    /// Every link, both ways.
    pub link: Link,
    /// Streams of each session.
    pub streams: u32,
    /// Bytes of each stream.
    pub bytes: u64,
    /// What one server is asked for at once, in bytes.
    pub range: u64,
    /// How many ranges of each secondary are under way.
    pub ahead: usize,
    /// Whether the primary writes ranges too.
    pub primary_writes: bool,
    /// Whether ranges of a path that became suspect are taken back at once.
    pub revokes: bool,
    /// Whether the client reads its streams in order.
    pub ordered: bool,
    /// How long after its death a path is added again.
    pub rejoin: Option<Duration>,
    /// Sessions, one after another. The last one stays open.
    pub sessions: u32,
    /// Whether a session that fails is begun again.
    pub redials: bool,
    /// Whether all addresses are of IPv6.
    pub ipv6: bool,
    /// Limits of every node, but for the buffer that keeps a primary from taking all ranges for itself.
    pub limits: Limits,
}

/// Whose link something is wrong with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinksOf {
    /// The primary's.
    Primary,
    /// The first secondary's.
    Secondary,
    /// Every server's.
    All,
}

impl LinksOf {
    /// Each of them.
    pub const EACH: [Self; 3] = [Self::Primary, Self::Secondary, Self::All];
}

impl Default for Plan {
    /// Two secondaries and one stream of 2 MB, over links of 10 Mbit/s and 15 ms with queues of 25 packets.
    fn default() -> Self {
        Self {
            seed: 1,
            tls: TlsMode::Null,
            secondaries: 2,
            link: line(),
            streams: 1,
            bytes: 2_000_000,
            range: 64 * 1024,
            ahead: 2,
            primary_writes: true,
            revokes: false,
            ordered: true,
            rejoin: Some(Duration::from_secs(1)),
            sessions: 1,
            redials: false,
            ipv6: false,
            limits: Limits::default(),
        }
    }
}

/// 10 Mbit/s, 15 ms, and a queue of 25 packets.
#[must_use]
pub fn line() -> Link {
    let queue_bytes = 25 * 1472;
    Link { rate: Some(10_000_000), queue_bytes, ..Link::with_delay(Duration::from_millis(15)) }
}

/// A world in which a [`Plan`] is carried out.
pub struct Transfer {
    /// The world.
    pub world: World,
    /// The node of the client.
    pub client: NodeId,
    /// The nodes of the servers, the primary's first.
    pub servers: Vec<NodeId>,
    /// What is done.
    pub plan: Plan,
    recorder: Rc<RefCell<Recorder>>,
}

impl Transfer {
    /// A world in which nothing happened yet.
    ///
    /// # Panics
    /// If the plan cannot be carried out.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let mut config = WorldConfig::new(plan.seed);
        config.tls = plan.tls;
        let mut limits = plan.limits.clone();
        limits.send_buffer_stream_bytes = limits.send_buffer_stream_bytes.min(64 * 1024);
        let builder = FleetBuilder::new(config).link(plan.link.clone()).ipv6(plan.ipv6).client(|_| ());
        let mut fleet = builder.servers(plan.secondaries + 1, |_, node| node.set_limits(&limits)).build();
        let recorder = Rc::new(RefCell::new(Recorder::new(fleet.world.now(), plan.clone())));
        let targets: Vec<PathTarget> = (1..fleet.servers.len()).map(|server| fleet.target(server)).collect();
        for (number, server) in fleet.servers.iter().enumerate() {
            let app = TransferServer::new(number, targets.clone(), recorder.clone());
            fleet.world.set_app(*server, Box::new(app));
        }
        let config = fleet.pki.client().limits(plan.limits.clone());
        let app = TransferClient::new(config, fleet.server_address(0), recorder.clone());
        fleet.world.set_app(fleet.client, Box::new(app));
        let Fleet { world, client, servers, .. } = fleet;
        Self { world, client, servers, plan, recorder }
    }

    /// Runs until everything was read; returns when that was.
    ///
    /// # Panics
    /// If it takes longer than `limit`, or a session fails that is not to be begun again.
    pub fn run(&mut self, limit: Duration) -> Duration {
        let recorder = self.recorder.clone();
        let ended = self.world.run_until(limit, |_| recorder.borrow().is_done() || recorder.borrow().closed.is_some());
        let recorder = self.recorder.borrow();
        assert_eq!(recorder.closed, None, "the session ended after {:?}", self.world.elapsed());
        assert!(ended, "not done after {limit:?}: {:#?}", recorder.downloads);
        self.world.elapsed()
    }

    /// Runs until that many bytes were read, of all streams together.
    ///
    /// # Panics
    /// If that takes longer than a minute.
    pub fn run_to(&mut self, bytes: u64) {
        let recorder = self.recorder.clone();
        let came = self.world.run_until(Duration::from_secs(60), |_| recorder.borrow().received() >= bytes);
        assert!(came, "{} of {bytes} bytes came", recorder.borrow().received());
    }

    /// What was noted so far.
    #[must_use]
    pub fn recorder(&self) -> std::cell::Ref<'_, Recorder> {
        self.recorder.borrow()
    }

    /// The servers of a place.
    #[must_use]
    pub fn at(&self, place: LinksOf) -> &[NodeId] {
        match place {
            LinksOf::Primary => &self.servers[..1],
            LinksOf::Secondary => &self.servers[1..2],
            LinksOf::All => &self.servers,
        }
    }

    /// Changes the links of a place, both ways, and what healing restores.
    pub fn change(&mut self, place: LinksOf, change: impl Fn(&mut Link)) {
        for server in self.at(place).to_vec() {
            let mut link = self.world.link(self.client, server);
            change(&mut link);
            self.world.set_link_both(self.client, server, link);
        }
    }

    /// Cuts the links of a place, from `begin` on for `span`.
    pub fn cut(&mut self, place: LinksOf, begin: Duration, span: Duration) {
        let right = self.at(place).to_vec();
        self.world.at(begin, Disturbance::Partition { left: vec![self.client], right: right.clone() });
        for server in right {
            self.world.at(begin + span, Disturbance::Heal { a: self.client, b: server });
        }
    }

    /// What the links of a place did, from the servers to the client.
    #[must_use]
    pub fn down(&self, place: LinksOf) -> LinkStats {
        let stats = self.at(place).iter().map(|server| self.world.link_stats(*server, self.client));
        stats.fold(LinkStats::default(), |sum, stats| sum + stats)
    }

    /// What the links of a place did, from the client to the servers.
    #[must_use]
    pub fn up(&self, place: LinksOf) -> LinkStats {
        let stats = self.at(place).iter().map(|server| self.world.link_stats(self.client, *server));
        stats.fold(LinkStats::default(), |sum, stats| sum + stats)
    }

    /// The paths of the client's last session, the dead ones too.
    ///
    /// # Panics
    /// If there is no session.
    #[must_use]
    pub fn paths(&mut self) -> Vec<PathStats> {
        let session: SessionHandle = self.recorder.borrow().session.expect("a session");
        self.world.session(self.client, session).expect("a session").stats().paths
    }

    /// Stream payload that each server brought, the primary first.
    #[must_use]
    pub fn shares(&mut self) -> Vec<u64> {
        let paths = self.paths();
        let share = |server: &NodeId| {
            let address = self.world.address(*server);
            paths.iter().filter(|path| path.address == address).map(|path| path.bytes_received).sum()
        };
        self.servers.iter().map(share).collect()
    }
}

/// The bytes of a range of a stream: other streams have others.
fn bytes_of(stream: u32, range: Range<u64>) -> Bytes {
    bytes_at(stream.into(), range)
}
