//! The same seed gives the same run, to the last datagram.

use std::time::Duration;

use kwik_sim::apps::bulk::Bulk;
use kwik_sim::{Bursts, Disturbance, Link, Rebind, WorldConfig};

const BYTES: u64 = 95_000;

/// Two servers, lossy links, delegations, and a disturbance or two.
fn run(config: WorldConfig) -> (u64, u64, bool) {
    let seed = config.seed;
    let links = [5, 20 + seed % 30].map(|delay| Link {
        jitter: Duration::from_millis(seed % 4),
        loss: 0.02,
        bursts: (seed.is_multiple_of(3)).then_some(Bursts { to_bad: 0.01, to_good: 0.3, loss: 0.8 }),
        reordering: 0.02,
        duplication: 0.01,
        corruption: 0.01,
        ..Link::with_rate(20_000_000, Duration::from_millis(delay))
    });
    let mut download = Bulk::new(config, BYTES, &links);
    // Later than any handshake: QUIC takes no datagram of a handshake from elsewhere.
    if seed.is_multiple_of(2) {
        let to = if seed.is_multiple_of(4) { Rebind::Port } else { Rebind::Address };
        download.fleet.world.at(Duration::from_millis(200), Disturbance::Rebind { node: download.fleet.client, to });
    }
    let finished = download.run(Duration::from_secs(20));
    let trace = download.fleet.world.trace();
    (trace.hash(), trace.len(), finished)
}

fn runs_repeat(configs: impl Iterator<Item = WorldConfig>) {
    let (mut count, mut finished, mut hashes) = (0, 0, std::collections::BTreeSet::new());
    for config in configs {
        let seed = config.seed;
        let first = run(config.clone());
        assert_eq!(first, run(config), "seed {seed} gives two runs");
        assert!(first.1 > 50, "seed {seed}: {} lines", first.1);
        count += 1;
        finished += usize::from(first.2);
        hashes.insert(first.0);
    }
    assert_eq!(hashes.len(), count, "seeds share their runs");
    assert!(finished * 10 > count * 9, "only {finished} of {count} downloads finished");
}

#[test]
fn same_seed_gives_the_same_datagrams_without_tls() {
    runs_repeat((0..180).map(WorldConfig::null_tls));
}

#[test]
fn same_seed_gives_the_same_datagrams_with_tls() {
    runs_repeat((180..200).map(WorldConfig::new));
}

#[test]
fn what_is_kept_or_sampled_does_not_change_the_run() {
    let trace = |keep| {
        let mut download = Bulk::new(WorldConfig::null_tls(1), BYTES, &[Link::default(), Link::default()]);
        download.fleet.world.trace_mut().keep(keep);
        assert!(download.run(Duration::from_secs(20)));
        (download.fleet.world.trace().hash(), download.fleet.world.elapsed())
    };
    assert_eq!(trace(0), trace(100));
}
