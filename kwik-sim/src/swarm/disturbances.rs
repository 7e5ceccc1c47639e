//! What goes wrong in a world, and when it is well again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::options::describe;
use crate::disturbance::{Disturbance, Rebind, RestartState};
use crate::link::{Bursts, Ecn, Link};
use crate::node::NodeId;
use crate::rng::SimRng;

/// The disturbances of one world.
#[derive(Debug, Clone, Default)]
pub struct DisturbancePlan {
    /// By time.
    pub disturbances: Vec<(Duration, Disturbance)>,
    /// Their kinds.
    pub kinds: Vec<&'static str>,
    /// When everything heals.
    pub end: Duration,
    /// Whether sessions may end for it.
    pub sessions_may_fail: bool,
}

/// Every kind of disturbance, and whether it may cost a session.
pub(super) const KINDS: &[(&str, bool)] = &[
    ("loss", false),
    ("heavy loss", true),
    ("burst loss", true),
    ("jitter", false),
    ("delay", false),
    ("reordering", false),
    ("duplication", false),
    ("corruption", false),
    ("slow link", false),
    ("short queue", false),
    ("ecn", false),
    ("mtu", false),
    ("mtu black hole", true),
    ("blip", false),
    ("partition", true),
    ("one-way black hole", true),
    ("rebind port", false),
    ("rebind address", false),
    ("other interface", true),
    ("crash and resume", true),
    ("crash and restart", true),
    ("hiccup", false),
    ("suspend", true),
    ("send errors", false),
    ("long send errors", true),
    ("clock offset", false),
];

/// The address at which a client's second interface is.
pub(super) fn second_address(client: usize) -> SocketAddr {
    SocketAddr::from(([10, 1, 2, u8::try_from(client + 1).unwrap_or(u8::MAX)], 5000))
}

struct Draw<'a> {
    rng: &'a mut SimRng,
    servers: &'a [NodeId],
    clients: &'a [NodeId],
    /// As they are at the time of the disturbance.
    links: BTreeMap<(usize, usize), Link>,
    has_two_addresses: &'a dyn Fn(usize) -> bool,
    at: Duration,
    end: Duration,
    disturbances: Vec<(Duration, Disturbance)>,
}

/// Draws the disturbances of a world. Severe ones may cost a session.
pub(super) fn draw(
    rng: &mut SimRng,
    servers: &[NodeId],
    clients: &[NodeId],
    links: &[Vec<Link>],
    may_be_severe: bool,
    has_two_addresses: impl Fn(usize) -> bool,
) -> DisturbancePlan {
    if rng.below(8) == 0 {
        return DisturbancePlan::default();
    }
    let end = Duration::from_millis(3000 + rng.below(9000));
    let may_be_severe = rng.below(3) != 0 && may_be_severe;
    let mut kinds: Vec<(&'static str, bool)> =
        KINDS.iter().copied().filter(|(_, severe)| (may_be_severe || !severe) && rng.below(6) == 0).collect();
    rng.shuffle(&mut kinds);
    let mut moments: Vec<(Duration, &'static str)> = Vec::new();
    for (kind, _) in &kinds {
        for _ in 0..=rng.below(3) {
            moments.push((rng.within(end.mul_f64(0.9)), *kind));
        }
    }
    moments.sort_by_key(|(at, _)| *at);
    let links = links.iter().enumerate().flat_map(|(client, links)| {
        links.iter().enumerate().map(move |(server, link)| ((client, server), link.clone()))
    });
    let mut draw = Draw {
        rng,
        servers,
        clients,
        links: links.collect(),
        has_two_addresses: &has_two_addresses,
        at: Duration::ZERO,
        end,
        disturbances: Vec::new(),
    };
    for (at, kind) in moments {
        draw.at = at;
        draw.add(kind);
    }
    let mut disturbances = draw.disturbances;
    disturbances.sort_by_key(|(at, _)| *at);
    DisturbancePlan {
        disturbances,
        kinds: kinds.iter().map(|(kind, _)| *kind).collect(),
        end,
        sessions_may_fail: kinds.iter().any(|(_, severe)| *severe),
    }
}

impl Draw<'_> {
    fn add(&mut self, kind: &'static str) {
        match kind {
            "loss" => self.change(|rng, link| link.loss = some(rng, 0.05)),
            "heavy loss" => self.change(|rng, link| link.loss = 0.05 + some(rng, 0.25)),
            "burst loss" => self.change(|rng, link| {
                let (to_bad, to_good) = (some(rng, 0.05), 0.1 + some(rng, 0.8));
                link.bursts = Some(Bursts { to_bad, to_good, loss: 0.5 + some(rng, 0.5) });
            }),
            "jitter" => self.change(|rng, link| link.jitter = Duration::from_millis(rng.below(60))),
            "delay" => self.change(|rng, link| link.delay = Duration::from_millis(rng.below(300))),
            "reordering" => self.change(|rng, link| {
                link.reordering = some(rng, 0.3);
                link.reordering_delay = Duration::from_millis(rng.below(50));
            }),
            "duplication" => self.change(|rng, link| link.duplication = some(rng, 0.3)),
            "corruption" => self.change(|rng, link| link.corruption = some(rng, 0.05)),
            "slow link" => self.change(|rng, link| {
                link.rate = Some(500_000 + rng.below(2_000_000));
                link.queue_time = Duration::from_millis(50 + rng.below(300));
            }),
            "short queue" => self.change(|rng, link| {
                link.rate = link.rate.or(Some(20_000_000));
                link.queue_bytes = 8_000 + rng.index(30_000);
            }),
            "ecn" => self.change(|rng, link| {
                link.ecn = if rng.below(2) == 0 { Ecn::Bleach } else { Ecn::Mark(some(rng, 0.5)) };
            }),
            "mtu" => self.mtu(1200, 252),
            "mtu black hole" => self.mtu(600, 600),
            "blip" => self.cut(100, 800),
            "partition" => self.cut(1000, 8000),
            "one-way black hole" => self.black_hole(),
            _ => self.strike(kind),
        }
    }

    /// Disturbances of a node.
    fn strike(&mut self, kind: &'static str) {
        let client = self.client();
        let (node, any) = (self.clients[client], self.any());
        let span = |rng: &mut SimRng, least: u64, most: u64| Duration::from_millis(least + rng.below(most - least));
        match kind {
            "rebind port" => self.push(Disturbance::Rebind { node, to: Rebind::Port }),
            "rebind address" => self.push(Disturbance::Rebind { node, to: Rebind::Address }),
            "other interface" if (self.has_two_addresses)(client) => {
                self.push(Disturbance::Prefer { node, address: second_address(client) });
            }
            "crash and resume" => self.crash(any, RestartState::Kept),
            "crash and restart" => self.crash(any, RestartState::Lost),
            "hiccup" => {
                let span = span(self.rng, 10, 400);
                self.push(Disturbance::Pause { node: any, span });
            }
            "suspend" => {
                let span = span(self.rng, 500, 10_000);
                self.push(Disturbance::Pause { node: any, span });
            }
            "send errors" => {
                let span = span(self.rng, 10, 400);
                self.push(Disturbance::SendErrors { node: any, span });
            }
            "long send errors" => {
                let span = span(self.rng, 500, 6000);
                self.push(Disturbance::SendErrors { node: any, span });
            }
            "clock offset" => {
                let millis = i64::try_from(self.rng.below(160_000)).unwrap_or(0) - 80_000;
                self.push(Disturbance::ClockOffset { node: any, millis });
            }
            _ => {}
        }
    }

    fn push(&mut self, disturbance: Disturbance) {
        self.disturbances.push((self.at, disturbance));
    }

    /// Changes one link in one direction, or in both.
    fn change(&mut self, change: impl FnOnce(&mut SimRng, &mut Link)) {
        let (client, server) = self.pair();
        let Some(link) = self.links.get_mut(&(client, server)) else { return };
        change(self.rng, link);
        let link = link.clone();
        let (a, b) = (self.clients[client], self.servers[server]);
        let directions = self.rng.below(3);
        if directions != 0 {
            self.push(Disturbance::Link { from: a, to: b, link: link.clone() });
        }
        if directions != 1 {
            self.push(Disturbance::Link { from: b, to: a, link });
        }
    }

    fn mtu(&mut self, least: usize, more: usize) {
        let (client, server) = self.pair();
        let mtu = least + self.rng.index(more);
        self.push(Disturbance::Mtu { a: self.clients[client], b: self.servers[server], mtu });
    }

    /// Separates some clients from some servers for a while, in milliseconds.
    fn cut(&mut self, least: u64, most: u64) {
        let some_of = |rng: &mut SimRng, nodes: &[NodeId]| -> Vec<NodeId> {
            let mut some: Vec<NodeId> = nodes.iter().copied().filter(|_| rng.below(2) == 0).collect();
            some.extend(nodes.first().copied().filter(|_| nodes.len() == 1));
            some.dedup();
            some
        };
        let (left, right) = (some_of(self.rng, self.clients), some_of(self.rng, self.servers));
        let until = self.later(least, most);
        self.push(Disturbance::Partition { left: left.clone(), right: right.clone() });
        for a in &left {
            for b in &right {
                self.disturbances.push((until, Disturbance::Heal { a: *a, b: *b }));
            }
        }
    }

    fn black_hole(&mut self) {
        let (client, server) = self.pair();
        let (a, b) = (self.clients[client], self.servers[server]);
        let until = self.later(200, 8000);
        let (from, to) = if self.rng.below(2) == 0 { (a, b) } else { (b, a) };
        self.push(Disturbance::Blackhole { from, to });
        self.disturbances.push((until, Disturbance::Heal { a, b }));
    }

    fn crash(&mut self, node: NodeId, state: RestartState) {
        let until = self.later(10, 8000);
        self.push(Disturbance::Crash { node });
        self.disturbances.push((until, Disturbance::Restart { node, state }));
    }

    fn later(&mut self, least: u64, most: u64) -> Duration {
        (self.at + Duration::from_millis(least + self.rng.below(most - least))).min(self.end)
    }

    fn client(&mut self) -> usize {
        self.rng.index(self.clients.len())
    }

    fn pair(&mut self) -> (usize, usize) {
        let server = self.rng.index(self.servers.len());
        (self.client(), server)
    }

    fn any(&mut self) -> NodeId {
        let all: Vec<NodeId> = self.servers.iter().chain(self.clients).copied().collect();
        self.rng.pick(&all).copied().unwrap_or(NodeId(0))
    }
}

/// Up to so much.
fn some(rng: &mut SimRng, most: f64) -> f64 {
    most * rng.below(1000) as f64 / 1000.0
}

impl fmt::Display for DisturbancePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { disturbances, kinds, end, sessions_may_fail } = self;
        writeln!(f, "  disturbances until {end:?}, sessions may fail: {sessions_may_fail}, kinds: {kinds:?}")?;
        disturbances.iter().try_for_each(|(at, disturbance)| match disturbance {
            Disturbance::Link { from, to, link } => writeln!(f, "    {at:?} {from} to {to}: {}", describe(link)),
            disturbance => writeln!(f, "    {at:?} {disturbance:?}"),
        })
    }
}
