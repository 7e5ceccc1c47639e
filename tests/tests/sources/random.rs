//! Random orders of writes, delegations, copies, distributions, losses and revocations on one stream.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use kwik_core::{Adaptive, Distributor, Limits, PathId, ReadOrder};
use kwik_sim::{Disturbance, Link, RestartState};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::play::{Conduct, Play};

/// The stream has so many pieces: of the first two distributions, and those that are written by hand.
const PIECE: u64 = 40_000;
const FIRST: u64 = 6;
const SECOND: u64 = 6;
const BY_HAND: u64 = 6;
const BYTES: u64 = PIECE * (FIRST + SECOND + BY_HAND);

/// Cases, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 96;
/// Far longer than anything takes once all works again.
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy)]
enum Op {
    Wait(u64),
    Write(u64),
    Delegate(usize, u64),
    Copy(usize, u64),
    Revoke,
    Extend(usize),
    RemoveSource(usize, usize),
    AddSource(usize, usize),
    Crash(usize),
    Restart(usize, bool),
    RemovePath(usize),
    AddPath(usize),
    Silence(usize),
    Lossy(usize, u32),
    Heal,
    Pause(bool),
    Conduct(usize, Conduct),
}

fn op() -> impl Strategy<Value = Op> {
    let (server, piece, part) = (1..4_usize, 0..BY_HAND, 0..2_usize);
    const CONDUCTS: &[Conduct] = &[Conduct::Honest, Conduct::Mute, Conduct::Trickle, Conduct::Refuse, Conduct::Half];
    prop_oneof![
        6 => (1..400_u64).prop_map(Op::Wait),
        2 => piece.clone().prop_map(Op::Write),
        3 => (server.clone(), piece.clone()).prop_map(|(server, piece)| Op::Delegate(server, piece)),
        2 => (server.clone(), piece).prop_map(|(server, piece)| Op::Copy(server, piece)),
        1 => Just(Op::Revoke),
        3 => part.clone().prop_map(Op::Extend),
        1 => (part.clone(), 0..4_usize).prop_map(|(part, server)| Op::RemoveSource(part, server)),
        1 => (part, 0..4_usize).prop_map(|(part, server)| Op::AddSource(part, server)),
        1 => server.clone().prop_map(Op::Crash),
        1 => (server.clone(), any::<bool>()).prop_map(|(server, is_new)| Op::Restart(server, is_new)),
        1 => server.clone().prop_map(Op::RemovePath),
        2 => server.clone().prop_map(Op::AddPath),
        1 => server.clone().prop_map(Op::Silence),
        1 => (0..4_usize, 1..200_u32).prop_map(|(server, loss)| Op::Lossy(server, loss)),
        1 => Just(Op::Heal),
        1 => any::<bool>().prop_map(Op::Pause),
        2 => (server, prop::sample::select(CONDUCTS)).prop_map(|(server, conduct)| Op::Conduct(server, conduct)),
    ]
}

struct Run {
    play: Play,
    /// Which pieces by hand were begun.
    begun: BTreeSet<u64>,
    extended: [u64; 2],
    /// Whether the primary writes itself; otherwise server 1 is spared, so that somebody lives.
    is_local: bool,
}

impl Run {
    fn new(seed: u64, is_ordered: bool, is_local: bool, window: u64) -> Self {
        let mut limits = Limits::default();
        limits.send_buffer_stream_bytes = 256 * 1024;
        let link = Link::with_rate(4_000_000 + window * 1_000_000, Duration::from_millis(5 + window));
        let mut play = Play::new(seed, 3, BYTES, &link, &limits);
        play.is_ordered = is_ordered;
        let order = if is_ordered { ReadOrder::Ordered } else { ReadOrder::Unordered };
        let now = play.fleet.world.now();
        for start in [0, FIRST] {
            let range = start * PIECE..(start + 1) * PIECE;
            let mut distributor = Distributor::new(play.there, range, Box::new(Adaptive::new(order)));
            play.paths.values().for_each(|path| distributor.add_source(now, *path));
            if is_local {
                distributor.add_source(now, PathId::PRIMARY);
            }
            play.distributors.push(distributor);
        }
        Self { play, begun: BTreeSet::new(), extended: [1, 1], is_local }
    }

    fn perform(&mut self, op: Op) {
        let now = self.play.fleet.world.now();
        let is_spared = |server: usize| !self.is_local && server == 1;
        match op {
            Op::Wait(ms) => self.play.run_for(Duration::from_millis(ms)),
            Op::Write(piece) => self.begin(piece).into_iter().for_each(|range| self.play.write_by_hand(range)),
            Op::Delegate(server, piece) => {
                let range = self.begin(piece);
                range.into_iter().for_each(|range| self.play.delegate_by_hand(server, range, false));
            }
            Op::Copy(server, piece) => {
                let start = (FIRST + SECOND + piece) * PIECE;
                self.play.delegate_by_hand(server, start..start + PIECE, true);
            }
            Op::Revoke => self.play.revoke_by_hand(),
            Op::Extend(part) => self.extend(part),
            Op::RemoveSource(part, server) => {
                let path = self.path(server);
                let spares = if self.is_local { server == 0 } else { server <= 1 };
                if !spares {
                    self.play.distributors[part].remove_source(path);
                }
            }
            Op::AddSource(part, server) if server > 0 => {
                let path = self.path(server);
                self.play.distributors[part].add_source(now, path);
            }
            Op::AddSource(..) => {}
            Op::Crash(server) | Op::RemovePath(server) | Op::Silence(server) | Op::Conduct(server, _)
                if is_spared(server) => {}
            Op::Crash(server) if !self.play.crashed().contains(&server) => self.play.crash(server),
            Op::Crash(_) => {}
            Op::Restart(server, is_new) => self.restart(server, is_new),
            Op::RemovePath(server) => self.play.remove_path(server),
            Op::AddPath(server) => self.play.add_path(server),
            Op::Silence(server) => {
                let (from, to) = (self.play.fleet.servers[server], self.play.fleet.client);
                self.play.fleet.world.inject(Disturbance::Blackhole { from, to });
            }
            Op::Lossy(server, loss) => {
                let (a, b) = (self.play.fleet.servers[server], self.play.fleet.client);
                let link = Link { loss: f64::from(loss) / 1000.0, ..self.play.fleet.world.link(a, b) };
                for (from, to) in [(a, b), (b, a)] {
                    self.play.fleet.world.inject(Disturbance::Link { from, to, link: link.clone() });
                }
            }
            Op::Heal => self.play.fleet.world.inject(Disturbance::HealAll),
            Op::Pause(is_paused) => self.play.is_paused = is_paused,
            Op::Conduct(server, conduct) => drop(self.play.conducts.insert(server, conduct)),
        }
    }

    fn begin(&mut self, piece: u64) -> Option<Range<u64>> {
        let start = (FIRST + SECOND + piece) * PIECE;
        self.begun.insert(piece).then_some(start..start + PIECE)
    }

    fn extend(&mut self, part: usize) {
        let (start, pieces) = [(0, FIRST), (FIRST, SECOND)][part];
        self.extended[part] = (self.extended[part] + 1).min(pieces);
        // What was given before is given again, and changes nothing.
        self.play.distributors[part].extend(start * PIECE..(start + self.extended[part]) * PIECE);
    }

    fn path(&self, server: usize) -> PathId {
        if server == 0 { PathId::PRIMARY } else { self.play.paths[&server] }
    }

    fn restart(&mut self, server: usize, is_new: bool) {
        if self.play.crashed().contains(&server) {
            self.play.restart(server, if is_new { RestartState::Lost } else { RestartState::Kept });
        }
    }

    /// Everything works again, but whoever misbehaves: all the rest is begun, and arrives.
    fn settle(mut self) -> bool {
        self.play.fleet.world.inject(Disturbance::HealAll);
        self.play.crashed().into_iter().for_each(|server| self.play.restart(server, RestartState::Lost));
        self.play.is_paused = false;
        for part in 0..2 {
            (0..FIRST.max(SECOND)).for_each(|_| self.extend(part));
        }
        for piece in 0..BY_HAND {
            self.perform(Op::Write(piece));
        }
        // Nobody takes back what the application left to a server by hand but the application.
        self.play.run_for(Duration::from_secs(1));
        self.play.revoke_by_hand();
        self.play.complete(LIMIT)
    }
}

fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let rng_seed = if asked.is_some() { RngSeed::Random } else { RngSeed::Fixed(1) };
    let cases = asked.unwrap_or(CASES);
    ProptestConfig { cases, rng_seed, failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_order_of_write_at_delegate_distribute_loss_and_revocation_leaves_a_stream_with_live_sources_stuck(
        (seed, is_ordered, is_local, window, ops) in
            (any::<u64>(), any::<bool>(), any::<bool>(), 0..40_u64, prop::collection::vec(op(), 1..40))
    ) {
        let mut run = Run::new(seed, is_ordered, is_local, window);
        ops.into_iter().for_each(|op| run.perform(op));
        prop_assert!(run.settle(), "the stream stands still");
    }
}
