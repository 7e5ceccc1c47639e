//! A download over three servers in trouble, as a page to look at and as qlog:
//! `cargo run -p kwik-sim --example report -- DIRECTORY`.
//!
//! The primary delegates ranges to two secondaries. One secondary's link becomes slow, the other one vanishes and its
//! ranges are given to somebody else; later it joins again.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use kwik_sim::apps::bulk::Bulk;
use kwik_sim::report::{Ending, Summary, write_html, write_qlog};
use kwik_sim::{Disturbance, Fleet, Link, WorldConfig};

const SEED: u64 = 7;
const TOTAL: u64 = 30_000_000;
/// Rate in Mbit/s and round trip in ms of each server's link, the primary's first.
const LINKS: [(u64, u64); 3] = [(20, 30), (16, 50), (12, 80)];

#[expect(clippy::print_stdout, reason = "an example tells what it wrote")]
fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "report".to_owned()));
    let mut config = WorldConfig::new(SEED);
    config.sample_paths = Some(Duration::from_millis(20));
    let links = LINKS.map(|(rate, rtt)| Link::with_rate(rate * 1_000_000, Duration::from_millis(rtt / 2)));
    let mut download = Bulk::new(config, TOTAL, &links);
    download.fleet.world.trace_mut().keep(10_000_000);
    schedule(&mut download.fleet);
    let finished = download.run(Duration::from_secs(60));
    let outcome = if finished { Ending::Passed } else { Ending::Failed(vec!["the download stalled".to_owned()]) };
    let options = [
        ("download", format!("{} MB", TOTAL / 1_000_000)),
        ("links", LINKS.map(|(rate, rtt)| format!("{rate} Mbit/s, {rtt} ms")).join(" · ")),
        ("TLS", "real".to_owned()),
    ];
    let world = &download.fleet.world;
    let summary = Summary {
        seed: SEED,
        options: options.map(|(name, value)| (name.to_owned(), value)).into(),
        details: String::new(),
        nodes: ["client", "primary", "secondary A", "secondary B"].map(str::to_owned).into(),
        outcome,
        duration: world.elapsed(),
    };
    std::fs::create_dir_all(&directory)?;
    let page = directory.join("report.html");
    write_html(world.trace(), &summary, &page)?;
    println!("{}", page.display());
    for file in write_qlog(world.trace(), &summary, &directory.join("qlog"))? {
        println!("{}", file.display());
    }
    Ok(())
}

fn schedule(fleet: &mut Fleet) {
    let (world, client, a, b) = (&mut fleet.world, fleet.client, fleet.servers[1], fleet.servers[2]);
    let slow = Link { loss: 0.005, ..Link::with_rate(4_000_000, Duration::from_millis(40)) };
    world.at(Duration::from_millis(1500), Disturbance::Link { from: a, to: client, link: slow });
    world.at(Duration::from_millis(4000), Disturbance::Heal { a, b: client });
    world.at(Duration::from_millis(2200), Disturbance::Blackhole { from: b, to: client });
    world.at(Duration::from_millis(2200), Disturbance::Blackhole { from: client, to: b });
    world.at(Duration::from_millis(5500), Disturbance::Heal { a: b, b: client });
    world.at(Duration::from_millis(7000), Disturbance::Pause { node: a, span: Duration::from_millis(250) });
}
