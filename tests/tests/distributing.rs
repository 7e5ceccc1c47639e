//! Downloads that are distributed over servers while these crash, come back, fall silent and slow down: whatever the order,
//! all bytes arrive as long as the primary lives.

use std::time::Duration;

use kwik_core::{Adaptive, Congestion, EqualSplit, FixedChunks, Pieces, Policy, ReadOrder};
use kwik_sim::apps::bulk::{Bulk, BulkPlan};
use kwik_sim::{Disturbance, Link, NodeId, RestartState, WorldConfig};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Far longer than any of the downloads takes once everything works again.
const LIMIT: Duration = Duration::from_secs(120);
/// When everything works again.
const HEALED: Duration = Duration::from_secs(8);

/// One server's link: Mbit/s, round trip in ms, losses per mille, queue in ms.
type Server = (u64, u64, u32, u64);

/// What happens to which server, when, in ms.
#[derive(Debug, Clone, Copy)]
enum Event {
    Crash,
    Restart(bool),
    Silence,
    Deafness,
    Pause(u64),
    Rate(u64),
}

#[derive(Debug, Clone)]
struct Case {
    seed: u64,
    servers: Vec<Server>,
    events: Vec<(u64, usize, Event)>,
    bytes: u64,
    is_ordered: bool,
    policy: u8,
    congestion: Congestion,
}

fn cases() -> impl Strategy<Value = Case> {
    let server = (1..100_u64, 2..200_u64, prop_oneof![3 => Just(0_u32), 1 => 0..20_u32], 5..200_u64);
    let event = prop_oneof![
        Just(Event::Crash),
        any::<bool>().prop_map(Event::Restart),
        Just(Event::Silence),
        Just(Event::Deafness),
        (10..3000_u64).prop_map(Event::Pause),
        (1..100_u64).prop_map(Event::Rate),
    ];
    let congestion = prop_oneof![4 => Just(Congestion::Bbr), 1 => Just(Congestion::Cubic)];
    let events = prop::collection::vec((50..6000_u64, 0..5_usize, event), 0..8);
    let policy = prop_oneof![6 => Just(0_u8), 1 => 1..4_u8];
    let servers = prop::collection::vec(server, 1..6);
    (any::<u64>(), servers, events, 1000..4_000_000_u64, any::<bool>(), policy, congestion).prop_map(
        |(seed, servers, events, bytes, is_ordered, policy, congestion)| Case {
            seed,
            servers,
            events,
            bytes,
            is_ordered,
            policy,
            congestion,
        },
    )
}

impl Case {
    fn link(&(rate, rtt, loss, queue): &Server) -> Link {
        // Three datagrams fit into the shortest queue.
        let least = 3 * 12 / rate;
        Link {
            loss: f64::from(loss) / 1000.0,
            queue_time: Duration::from_millis(queue.max(least)),
            ..Link::with_rate(rate * 1_000_000, Duration::from_millis(rtt) / 2)
        }
    }

    fn policy(&self) -> fn(ReadOrder) -> Box<dyn Policy> {
        match self.policy {
            0 => |order| Box::new(Adaptive::new(order)),
            1 => |_| Box::<EqualSplit>::default(),
            2 => |_| Box::<FixedChunks>::default(),
            _ => |_| Box::<Pieces>::default(),
        }
    }

    /// Returns when all bytes were read; `None` if they were not.
    fn run(&self) -> Option<Duration> {
        let links: Vec<Link> = self.servers.iter().map(Self::link).collect();
        let order = if self.is_ordered { ReadOrder::Ordered } else { ReadOrder::Unordered };
        let plan =
            BulkPlan { order, policy: self.policy(), congestion: self.congestion, ..BulkPlan::new(self.bytes, &links) };
        let mut bulk = Bulk::of(WorldConfig::null_tls(self.seed), plan);
        let (client, servers) = (bulk.fleet.client, bulk.fleet.servers.clone());
        for (at, number, event) in &self.events {
            let number = number % servers.len();
            for disturbance in self.disturbances(client, servers[number], number, *event) {
                bulk.fleet.world.at(Duration::from_millis(*at), disturbance);
            }
        }
        bulk.fleet.world.at(HEALED, Disturbance::HealAll);
        let is_done = bulk.run(LIMIT);
        (is_done && bulk.bytes_read() == self.bytes).then(|| bulk.fleet.world.elapsed())
    }

    fn disturbances(&self, client: NodeId, node: NodeId, number: usize, event: Event) -> Vec<Disturbance> {
        // A session ends with its primary, so nothing kills that one.
        let is_primary = number == 0;
        match event {
            Event::Crash | Event::Restart(_) | Event::Silence | Event::Deafness if is_primary => Vec::new(),
            Event::Crash => vec![Disturbance::Crash { node }],
            Event::Restart(is_new) => {
                let state = if is_new { RestartState::Lost } else { RestartState::Kept };
                vec![Disturbance::Crash { node }, Disturbance::Restart { node, state }]
            }
            Event::Silence => vec![Disturbance::Blackhole { from: node, to: client }],
            Event::Deafness => vec![Disturbance::Blackhole { from: client, to: node }],
            Event::Pause(ms) => vec![Disturbance::Pause { node, span: Duration::from_millis(ms) }],
            Event::Rate(rate) => {
                let (_, rtt, loss, queue) = self.servers[number];
                let link = Self::link(&(rate, rtt, loss, queue));
                let both = [(node, client), (client, node)];
                both.map(|(from, to)| Disturbance::Link { from, to, link: link.clone() }).to_vec()
            }
        }
    }
}

fn check(cases_run: u32) {
    let mut runner = TestRunner::new(Config {
        cases: cases_run,
        max_shrink_iters: 100,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&cases(), |case| {
        prop_assert!(case.run().is_some(), "the stream stands still");
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn no_order_of_losses_leaves_a_stream_stuck() {
    check(48);
}

#[test]
#[ignore = "takes minutes"]
fn no_order_of_losses_leaves_a_stream_stuck_in_many_cases() {
    check(2000);
}

#[test]
fn same_seed_is_the_same_download() {
    let case = Case {
        seed: 7,
        servers: vec![(20, 40, 5, 50), (50, 20, 0, 20), (5, 100, 10, 100)],
        events: vec![(300, 1, Event::Silence), (800, 2, Event::Restart(true)), (500, 0, Event::Rate(3))],
        bytes: 3_000_000,
        is_ordered: true,
        policy: 0,
        congestion: Congestion::Bbr,
    };
    let first = case.run();
    assert!(first.is_some() && first == case.run());
}
