//! What a seed stands for.

use std::fmt;
use std::time::Duration;

use kwik_core::limits::RAW_BYTES_MAX;
use kwik_core::{Congestion, Dir, Limits, TransportCode};

use super::disturbances::{self, DisturbancePlan};
use super::habits::Habit;
use crate::apps::{Header, ReadStyle, Reliability, Request, ServerPlan, SessionPlan};
use crate::byzantine::{Behaviour, Cost, Pair, PeerRole};
use crate::link::{Ecn, Link};
use crate::node::NodeId;
use crate::rng::SimRng;
use crate::tls::TlsMode;

/// Everything about one world.
#[derive(Debug, Clone)]
pub struct Options {
    /// All else follows from it.
    pub seed: u64,
    /// How connections are protected.
    pub tls: TlsMode,
    /// The congestion controller everywhere.
    pub congestion: Congestion,
    /// How many servers there are.
    pub servers: usize,
    /// The clients.
    pub clients: Vec<ClientOptions>,
    /// The links of each client to each server, both ways the same, by client and server.
    pub links: Vec<Vec<Link>>,
    /// What every server does.
    pub plan: ServerPlan,
    /// What is scarce.
    pub tight: Tight,
    /// What goes wrong.
    pub disturbances: DisturbancePlan,
    /// A path that every primary asks for and that cannot be.
    pub invalid_path: Option<InvalidPath>,
    /// A node that speaks as it likes, or two.
    pub byzantine: Option<ByzantinePeers>,
    /// What its applications have a habit of.
    pub habit: Option<Habit>,
}

/// One client.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// How many addresses it has.
    pub addresses: usize,
    /// Its sessions.
    pub sessions: Vec<SessionPlan>,
}

/// A node that keeps no rules, alone or with another one.
#[derive(Debug, Clone)]
pub struct ByzantinePeers {
    /// How.
    pub behaviour: Behaviour,
    /// The secondary that is one of a pair with it.
    pub accomplice: Option<Behaviour>,
    /// What they draw follows from it.
    pub seed: u64,
}

impl ByzantinePeers {
    /// What it is in the table of what was reached.
    pub(super) fn kind(&self) -> String {
        match self.accomplice {
            Some(accomplice) => format!("byzantine: {:?}", Pair { members: [self.behaviour, accomplice] }),
            None => format!("byzantine: {:?}", self.behaviour.role),
        }
    }
}

/// A path that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidPath {
    /// Nobody is at its address.
    Nowhere,
    /// The server there has another identity.
    OtherIdentity,
    /// The server there has no certificate for that name.
    OtherName,
    /// The address is one that no client dials.
    Forbidden,
}

impl InvalidPath {
    pub(super) const ALL: [Self; 4] = [Self::Nowhere, Self::OtherIdentity, Self::OtherName, Self::Forbidden];
}

/// What is scarce in a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tight {
    /// Nothing.
    Nothing,
    /// Streams, and the memory of an endpoint.
    Streams,
    /// Buffers and windows.
    Buffers,
    /// Grants.
    Grants,
    /// Raw packets.
    Raw,
    /// Paths and dials.
    Paths,
    /// The time a secondary may be used.
    Leases,
    /// Sessions of an endpoint.
    Sessions,
}

impl Tight {
    const ALL: [Self; 8] = [
        Self::Nothing,
        Self::Streams,
        Self::Buffers,
        Self::Grants,
        Self::Raw,
        Self::Paths,
        Self::Leases,
        Self::Sessions,
    ];

    /// The limits of every client. Some allow less than the servers count on.
    #[must_use]
    pub fn client_limits(self) -> Limits {
        let mut limits = self.limits();
        match self {
            Self::Raw => limits.raw_packets_max = 1,
            Self::Paths => limits.paths_max = 2,
            // A client's endpoint needs one for each of its sessions.
            Self::Sessions => limits.sessions_max = Limits::default().sessions_max,
            _ => {}
        }
        limits
    }

    /// The limits of every server, of its sessions and its endpoint.
    #[must_use]
    pub fn limits(self) -> Limits {
        let mut limits = Limits::default();
        match self {
            Self::Nothing => {}
            Self::Streams => {
                (limits.streams_bidi_max, limits.streams_uni_max) = (16, 16);
                limits.endpoint_memory_max = 64 << 20;
            }
            Self::Buffers => {
                limits.send_buffer_stream_bytes = 8 * 1024;
                limits.send_buffer_session_bytes = 32 * 1024;
                limits.stream_window_bytes = 32 * 1024;
                limits.bandwidth_delay_bytes_max = 32 * 1024;
                limits.reassembly_budget_bytes = 256 * 2 * 16 * 1024;
                limits.quic_receive_window_bytes = 64 * 1024;
                limits.quic_stream_receive_window_bytes = 64 * 1024;
            }
            Self::Grants => (limits.grants_session_max, limits.grants_path_max) = (4, 2),
            Self::Raw => (limits.raw_packets_max, limits.raw_queue_bytes_max) = (3, RAW_BYTES_MAX),
            Self::Paths => (limits.paths_max, limits.dials_per_minute_max, limits.dials_parallel_max) = (3, 4, 1),
            Self::Leases => limits.path_lease = Duration::from_millis(500),
            Self::Sessions => limits.sessions_max = 2,
        }
        limits
    }
}

impl Options {
    /// What `seed` stands for.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let rng = &mut SimRng::new(seed, &[0x5357]);
        let lies = rng.below(4) == 0;
        // A byzantine server needs a number that others trust as a primary.
        let servers = 1 + rng.index(if lies { 7 } else { 8 });
        let links: Vec<Vec<Link>> = (0..1 + rng.index(3)).map(|_| (0..servers).map(|_| link(rng)).collect()).collect();
        let tls = if rng.below(10) == 0 { TlsMode::Real } else { TlsMode::Null };
        let congestion = match rng.below(3) {
            0 => Congestion::Bbr,
            1 => Congestion::Cubic,
            _ => Congestion::NewReno,
        };
        let tight = if rng.below(3) == 0 { *rng.pick(&Tight::ALL).unwrap_or(&Tight::Nothing) } else { Tight::Nothing };
        let byzantine = lies.then(|| byzantine(rng)).flatten();
        let invalid_path = if rng.below(6) == 0 { rng.pick(&InvalidPath::ALL).copied() } else { None };
        let mut clients: Vec<ClientOptions> = links.iter().map(|_| client(rng, servers)).collect();
        let plan = plan(rng, lies);
        let nodes = |first: usize, count: usize| (first..first + count).map(NodeId).collect::<Vec<_>>();
        let habit = Habit::draw(seed);
        // Nothing honest ends a session, whatever its habit.
        let may_be_severe = habit.is_none();
        let (servers_at, clients_at) = (nodes(0, servers), nodes(servers, clients.len()));
        let disturbances = disturbances::draw(rng, &servers_at, &clients_at, &links, may_be_severe, |client| {
            clients.get(client).is_some_and(|client| client.addresses > 1)
        });
        if let Some(habit) = habit {
            habit.apply(seed, &mut clients);
        }
        Self {
            seed,
            tls,
            congestion,
            servers,
            clients,
            links,
            plan,
            tight,
            disturbances,
            invalid_path,
            byzantine,
            habit,
        }
    }

    /// The limits of every server, of its sessions and its endpoint.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.with_habit(self.tight.limits())
    }

    /// The limits of every client. Some allow less than the servers count on.
    #[must_use]
    pub fn client_limits(&self) -> Limits {
        self.with_habit(self.tight.client_limits())
    }

    fn with_habit(&self, limits: Limits) -> Limits {
        match self.habit {
            Some(habit) => habit.limits(self.seed, limits),
            None => limits,
        }
    }

    /// Bytes that the applications carry, at least.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let of_request = |request: &Request| request.up + request.down + u64::from(request.pushes) * request.push_size;
        self.clients
            .iter()
            .flat_map(|client| &client.sessions)
            .flat_map(|session| &session.requests)
            .map(of_request)
            .sum()
    }

    /// How long everything may take once all is well again: time to notice what is dead, to dial again, and to carry
    /// all bytes over the slowest link many times; and as long as readers pause.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let slowest = self.links.iter().flatten().filter_map(|link| link.rate).min().unwrap_or(1_000_000);
        let pauses: u64 = self.clients.iter().map(|client| client.sessions.len() as u64).sum();
        let carrying = Duration::from_secs(self.bytes() * 8 * 20 / slowest.max(1));
        let requests: usize =
            self.clients.iter().flat_map(|client| &client.sessions).map(|session| session.requests.len()).sum();
        // A byzantine peer may have to be waited for, request by request.
        let waiting = if self.byzantine.is_some() { 4 * requests as u64 } else { 0 };
        Duration::from_secs(60 + 5 * pauses + waiting) + carrying + self.resting()
    }

    /// How long the applications themselves pause while they read, about.
    fn resting(&self) -> Duration {
        let all = self.clients.iter().flat_map(|client| &client.sessions).flat_map(|session| &session.requests);
        let of_request = |request: &Request| request.read.pauses(request.down) + self.plan.read.pauses(request.up);
        all.map(of_request).sum()
    }
}

/// The fields of a link that are not as usual.
pub(super) fn describe(link: &Link) -> String {
    differences(link, &Link::default())
}

/// The fields that are not as usual.
fn differences<T: fmt::Debug>(value: &T, usual: &T) -> String {
    let (text, usual) = (format!("{value:?}"), format!("{usual:?}"));
    let fields = |text: &str| -> Vec<String> {
        let (_, fields) = text.split_once(" { ").unwrap_or_default();
        fields.trim_end_matches(" }").split(", ").map(str::to_owned).collect()
    };
    let usual = fields(&usual);
    fields(&text).into_iter().filter(|field| !usual.contains(field)).collect::<Vec<_>>().join(", ")
}

/// Few bytes often, many sometimes.
fn size(rng: &mut SimRng) -> u64 {
    match rng.below(10) {
        0 => 0,
        1 | 2 => rng.below(200),
        3..=5 => rng.below(8 * 1024),
        6..=8 => rng.below(64 * 1024),
        _ => rng.below(300 * 1024),
    }
}

fn link(rng: &mut SimRng) -> Link {
    let delay = Duration::from_micros(match rng.below(3) {
        0 => rng.below(2_000),
        1 => rng.below(40_000),
        _ => rng.below(200_000),
    });
    let rate = match rng.below(4) {
        0 => None,
        1 => Some(1_000_000 + rng.below(4_000_000)),
        2 => Some(5_000_000 + rng.below(20_000_000)),
        _ => Some(50_000_000 + rng.below(100_000_000)),
    };
    let ecn = if rng.below(4) == 0 { Ecn::MarkAfter(Duration::from_millis(5)) } else { Ecn::Pass };
    let mut link = rate.map_or_else(|| Link::with_delay(delay), |rate| Link::with_rate(rate, delay));
    link.ecn = ecn;
    link
}

fn client(rng: &mut SimRng, servers: usize) -> ClientOptions {
    let session = |rng: &mut SimRng| SessionPlan {
        primary: rng.index(servers),
        requests: if rng.below(12) == 0 {
            many_requests(rng)
        } else {
            (0..=rng.below(8)).map(|_| request(rng)).collect()
        },
        parallel: if rng.below(6) == 0 { 1 + rng.index(100) } else { 1 + rng.index(8) },
        early: rng.below(3) == 0,
        begin_after: Duration::from_millis(rng.below(3000)),
        give_up: None,
        patience: None,
    };
    let sessions = (0..=rng.below(3)).map(|_| session(rng)).collect();
    ClientOptions { addresses: if rng.below(6) == 0 { 2 } else { 1 }, sessions }
}

/// More streams than a session may have open, with little on them.
pub(super) fn many_requests(rng: &mut SimRng) -> Vec<Request> {
    let small = |rng: &mut SimRng| Request {
        dir: if rng.below(4) == 0 { Dir::Uni } else { Dir::Bi },
        up: Header::LEN as u64 + rng.below(100),
        down: rng.below(500),
        read: ReadStyle::default(),
        reset_answer: None,
        reset_upload: None,
        pushes: 0,
        push_size: 0,
        priority: 0,
    };
    (0..30 + rng.below(40)).map(|_| small(rng)).collect()
}

fn request(rng: &mut SimRng) -> Request {
    let dir = if rng.below(5) == 0 { Dir::Uni } else { Dir::Bi };
    let (up, down) = (size(rng).max(Header::LEN as u64), if dir == Dir::Bi { size(rng) } else { 0 });
    let partly = |rng: &mut SimRng, size: u64| (rng.below(12) == 0).then(|| rng.below(size.max(1)));
    let pause = (rng.below(8) == 0).then(|| (1 + rng.below(64 * 1024), Duration::from_millis(1 + rng.below(500))));
    let stop = partly(rng, down).map(|after| (after, 7));
    let reset_upload = partly(rng, up).map(|after| after.max(1));
    let chunk = if rng.below(4) == 0 { 1 + rng.index(2000) } else { usize::MAX };
    let pushes = if rng.below(4) == 0 && reset_upload.is_none() { 1 + rng.below(20) } else { 0 };
    Request {
        dir,
        up,
        down,
        read: ReadStyle { chunk, ordered: rng.below(4) != 0, pause, stop },
        reset_answer: if dir == Dir::Bi { partly(rng, down) } else { None },
        reset_upload,
        pushes: u32::try_from(pushes).unwrap_or(0),
        push_size: size(rng) / 4,
        priority: if rng.below(4) == 0 { i32::try_from(rng.below(5)).unwrap_or(0) - 2 } else { 0 },
    }
}

fn plan(rng: &mut SimRng, lies: bool) -> ServerPlan {
    let percent = |rng: &mut SimRng, most: u64| u32::try_from(rng.below(most + 1)).unwrap_or(0);
    let rarely = |rng: &mut SimRng, most: u64| if rng.below(3) == 0 { percent(rng, most) } else { 0 };
    // A secondary that keeps the rules finishes what it was granted or dies; only a byzantine one must not be waited for.
    let patience = (lies || rng.below(2) == 0).then_some(Duration::from_secs(3));
    ServerPlan {
        others: Vec::new(),
        patience,
        path_retries: percent(rng, 3),
        remove_path: rarely(rng, 50),
        delegate: percent(rng, 100),
        explicit: percent(rng, 100),
        revoke: rarely(rng, 30),
        raw_queries: percent(rng, 5),
        reliability: Reliability { short: rarely(rng, 30), reset: rarely(rng, 30), late: rarely(rng, 50) },
        read: ReadStyle {
            chunk: if rng.below(4) == 0 { 1 + rng.index(4000) } else { usize::MAX },
            ordered: rng.below(4) != 0,
            pause: (rng.below(6) == 0).then(|| (1 + rng.below(64 * 1024), Duration::from_millis(1 + rng.below(300)))),
            stop: None,
        },
    }
}

/// So few of the byzantine peers are pairs.
const PAIRS_ARE_ONE_IN: u64 = 3;

fn byzantine(rng: &mut SimRng) -> Option<ByzantinePeers> {
    let role =
        *rng.pick(&[PeerRole::Primary, PeerRole::Secondary, PeerRole::Secondary, PeerRole::Client, PeerRole::Joiner])?;
    let mut behaviours = Behaviour::all(role);
    // What nobody granted is what a secondary must be kept from above all.
    if rng.below(3) == 0 && role == PeerRole::Secondary {
        behaviours.retain(|behaviour| behaviour.cost == Cost::Code(TransportCode::GRANT_VIOLATION));
    }
    let behaviour = *rng.pick(&behaviours)?;
    let seed = rng.draw();
    let rng = &mut SimRng::new(seed, &[0x5061]);
    if rng.below(PAIRS_ARE_ONE_IN) == 0 {
        let Pair { members: [behaviour, accomplice] } = *rng.pick(&Pair::all())?;
        return Some(ByzantinePeers { behaviour, accomplice: Some(accomplice), seed });
    }
    Some(ByzantinePeers { behaviour, accomplice: None, seed })
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, tls, congestion, servers, clients, links, plan, tight, .. } = self;
        let Self { disturbances, invalid_path, byzantine, habit, .. } = self;
        writeln!(
            f,
            "seed {seed}: {tls:?} TLS, {congestion:?}, {servers} servers, scarce: {tight:?}, habit: {habit:?}, invalid path: {invalid_path:?}, byzantine: {byzantine:?}"
        )?;
        if *habit == Some(Habit::Extreme) {
            writeln!(f, "  limits: {}", differences(&self.limits(), &self.tight.limits()))?;
        }
        writeln!(f, "  servers: {plan:?}")?;
        for (number, (client, links)) in clients.iter().zip(links).enumerate() {
            writeln!(f, "  client {number} (n{}), {} addresses", servers + number, client.addresses)?;
            for (server, link) in links.iter().enumerate() {
                writeln!(f, "    to n{server}: {}", describe(link))?;
            }
            for session in &client.sessions {
                let SessionPlan { primary, requests, parallel, early, begin_after, give_up, .. } = session;
                writeln!(
                    f,
                    "    session with n{primary} at {begin_after:?}, early {early}, {parallel} at a time, gives up {give_up:?}"
                )?;
                for request in requests {
                    writeln!(f, "      {request:?}")?;
                }
            }
        }
        write!(f, "{disturbances}")
    }
}
