//! How much a small request costs: 10,000 streams of 1 KiB each way, 50 at a time, between a client and one server, without
//! TLS. Meant to be run under a counter of instructions.

use std::process::ExitCode;
use std::time::Duration;

use kwik_sim::apps::requests::{RequestPlan, Requests};
use kwik_sim::{Link, TlsMode, WorldConfig};

const PLAN: RequestPlan = RequestPlan { count: 10_000, at_once: 50, bytes: 1024, streams: 128 };

#[expect(clippy::print_stdout, reason = "a measurement")]
fn main() -> ExitCode {
    let mut config = WorldConfig::new(1);
    config.tls = TlsMode::Null;
    let mut requests = Requests::new(config, PLAN, Link::with_rate(1_000_000_000, Duration::from_millis(5)));
    let finished = requests.run(Duration::from_secs(600));
    println!("{} requests in {:.3} simulated seconds", PLAN.count, requests.fleet.world.elapsed().as_secs_f64());
    if finished { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
