//! How fast a simulated download runs: 100 MB over three links, shared by their servers, without TLS. `--tls` is for TLS
//! after all, `--batches` for datagrams that arrive at whole milliseconds.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use kwik_sim::apps::bulk::Bulk;
use kwik_sim::{Link, TlsMode, WorldConfig};

const TOTAL: u64 = 100_000_000;

/// Rate in Mbit/s and round trip in ms of each link, the primary's first.
const LINKS: [(u64, u64); 3] = [(100, 20), (50, 40), (20, 80)];

#[expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement of this machine")]
fn main() -> ExitCode {
    let asked = |word: &str| std::env::args().any(|arg| arg == word);
    let mut config = WorldConfig::new(1);
    config.tls = if asked("--tls") { TlsMode::Real } else { TlsMode::Null };
    config.receive_every = if asked("--batches") { Duration::from_millis(1) } else { Duration::ZERO };
    let links = LINKS.map(|(rate, rtt)| Link::with_rate(rate * 1_000_000, Duration::from_millis(rtt / 2)));
    let begin = Instant::now();
    let mut bulk = Bulk::new(config, TOTAL, &links);
    let finished = bulk.run(Duration::from_secs(600));
    let (simulated, wall) = (bulk.fleet.world.elapsed().as_secs_f64(), begin.elapsed().as_secs_f64());
    let (read, events) = (bulk.bytes_read() as f64, bulk.fleet.world.trace().len() as f64);
    println!("{read} bytes in {simulated:.2} simulated seconds, {:.1} Mbit/s", read * 8e-6 / simulated);
    println!(
        "{wall:.3} seconds of wall time: {:.1} simulated seconds a second, {:.2} ms for a MB",
        simulated / wall,
        wall * 1e9 / read
    );
    println!("{events} events, {:.2} µs each", wall * 1e6 / events);
    println!("trace {:016x}", bulk.fleet.world.trace().hash());
    for server in &bulk.fleet.servers {
        println!("{:?}", bulk.fleet.world.link_stats(*server, bulk.fleet.client));
    }
    if finished { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
