//! Random operations of applications, network and machines on one session of a client and two to five servers, over a
//! few streams, paths and parts, beside a small model of what every stream must contain.
//!
//! After every operation: what was read is exactly what was written there, by somebody who had leave; every answer of
//! the interface fits what is known; no end that keeps the rules is blamed by another; the sums of credit and buffers
//! hold. Then the network heals and everything ends that can, each application woken by events alone, or somebody is
//! told a typed error; and when all sessions are closed, no connection and no timer is left.
//!
//! A failure prints the fewest operations that show it: they become a test in `interaction/regressions.rs`. The operation
//! lists are always the same; `PROPTEST_CASES` asks for so many others:
//!
//!     PROPTEST_CASES=20000 cargo test --release -p kwik-tests --test interaction

#[path = "interaction/fixture.rs"]
mod fixture;
#[path = "interaction/model.rs"]
mod model;
#[path = "interaction/op.rs"]
mod op;
#[path = "interaction/perform.rs"]
mod perform;
#[path = "interaction/regressions.rs"]
mod regressions;
#[path = "interaction/servers.rs"]
mod servers;
#[path = "interaction/settle.rs"]
mod settle;

use fixture::Fixture;
use op::{Op, Setup};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Operation lists that a test tries, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 512;

fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let rng_seed = if asked.is_some() { RngSeed::Random } else { RngSeed::Fixed(1) };
    let cases = asked.unwrap_or(CASES);
    ProptestConfig { cases, rng_seed, failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

/// Plays one run from its beginning until nothing is left.
fn play(setup: &Setup, ops: &[Op]) {
    let mut fixture = Fixture::new(setup);
    fixture.begin(setup);
    for op in ops {
        fixture.perform(op);
    }
    fixture.settle();
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn honest_ends_agree_whatever_is_done_to_them((setup, ops) in op::run(false)) {
        play(&setup, &ops);
    }

    #[test]
    fn one_byzantine_server_costs_its_own_path_alone((setup, ops) in op::run(true)) {
        play(&setup, &ops);
    }
}
