//! Networks as they are: slow, lossy, interrupted; on the path of the primary, of one secondary, and of all.

#[path = "network/begin.rs"]
mod begin;
#[path = "network/loss.rs"]
mod loss;
#[path = "network/outage.rs"]
mod outage;
#[path = "network/rate.rs"]
mod rate;
#[path = "network/thin.rs"]
mod thin;

use std::time::Duration;

use kwik_sim::{Bursts, Link};
use kwik_tests::transfer::{LinksOf, Plan, Transfer};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Loss in bursts of three datagrams on average.
fn bursts_of_three(share: f64) -> Bursts {
    let to_good = 1.0 / 3.0;
    Bursts { to_bad: to_good * share / (1.0 - share), to_good, loss: 1.0 }
}

/// Carries a plan out with the links of each place changed. `judge` is told how long it took.
fn at_each_place(
    plan: &Plan,
    limit: Duration,
    change: impl Fn(&mut Link),
    judge: impl Fn(&mut Transfer, LinksOf, Duration),
) {
    for place in LinksOf::EACH {
        let mut transfer = Transfer::new(plan.clone());
        transfer.change(place, &change);
        let took = transfer.run(limit);
        judge(&mut transfer, place, took);
    }
}
