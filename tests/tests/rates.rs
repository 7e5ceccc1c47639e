//! What a download reaches over one to five paths at rates up to 1 Gbit/s, kept beside this file in `rates.txt`, with
//! `quinn-proto` alone over one path in the same worlds.
//!
//! A cell runs for [`SPAN`] from the dial on, so that its start counts, and compares what was read by then with what the
//! links could have brought: Σ (T − dᵢ) · Cᵢ, where Cᵢ is the rate of link i, and dᵢ the earliest moment at which a byte
//! can arrive over it. On the primary's path that is after two of its round trips, and on a secondary's after two of its own
//! more. All links together have the rate of the cell.
//!
//! The figure of QUIC alone is left out where it came to a small part of KWIK's without any random loss: its one stream, with a
//! window that wide, stood still from some moment on. Of 1 Gbit/s, the table has the first rows only.
//!
//! The table is measured by hand, in release builds: it takes about an hour.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use kwik_sim::apps::bulk::Bulk;
use kwik_sim::plain::Plain;
use kwik_sim::{Link, WorldConfig};

const PATHS: [usize; 4] = [1, 2, 3, 5];
const RATES: [u64; 3] = [20, 100, 1000];
const ROUND_TRIPS_MS: [u64; 3] = [10, 50, 200];
const LOSSES_PER_MILLE: [u32; 4] = [0, 1, 10, 20];
const QUEUES_MS: [u64; 2] = [10, 100];
const SPAN: Duration = Duration::from_secs(12);

/// The part of the rate that a server has, and its round trip in percent of the cell's; the primary's first.
const SERVERS: [(u64, u64); 5] = [(20, 100), (10, 150), (20, 50), (5, 200), (10, 100)];

/// One line of the table: the rate in Mbit/s.
#[derive(Debug, Clone, Copy)]
struct Cell {
    rate: u64,
    paths: usize,
    rtt_ms: u64,
    loss_per_mille: u32,
    queue_ms: u64,
}

impl Cell {
    fn all() -> impl Iterator<Item = Self> {
        let of_rate =
            |rate| PATHS.into_iter().flat_map(move |paths| ROUND_TRIPS_MS.map(|rtt_ms| (rate, paths, rtt_ms)));
        let with_losses = |(rate, paths, rtt_ms)| {
            LOSSES_PER_MILLE.into_iter().flat_map(move |loss_per_mille| {
                QUEUES_MS.map(|queue_ms| Self { rate, paths, rtt_ms, loss_per_mille, queue_ms })
            })
        };
        RATES.into_iter().flat_map(of_rate).flat_map(with_losses)
    }

    fn links(&self) -> Vec<Link> {
        let parts: u64 = SERVERS[..self.paths].iter().map(|(part, _)| part).sum();
        let link = |(part, percent): &(u64, u64)| Link {
            loss: f64::from(self.loss_per_mille) / 1000.0,
            queue_time: Duration::from_millis(self.queue_ms),
            ..Link::with_rate(self.rate * 1_000_000 * part / parts, Duration::from_micros(self.rtt_ms * percent * 5))
        };
        SERVERS[..self.paths].iter().map(link).collect()
    }

    /// What KWIK reads and, over one path, what QUIC alone does, each in Mbit/s and in percent of the bound.
    fn line(&self) -> String {
        let Self { rate, paths, rtt_ms, loss_per_mille, queue_ms } = self;
        let (links, config) = (self.links(), WorldConfig::null_tls(1));
        let bound = bound(&links, SPAN);
        let mut bulk = Bulk::new(config.clone(), 2 * self.rate * 125_000 * SPAN.as_secs(), &links);
        assert!(!bulk.run(SPAN), "{self:?}: more than the links can bring");
        let loss = f64::from(*loss_per_mille) / 10.0;
        let mut line = format!("{rate:11} {paths:6} {rtt_ms:7} {loss:7.1} {queue_ms:9}");
        let mut add = |bytes: u64| {
            let (megabits, percent) = (bytes as f64 * 8e-6 / SPAN.as_secs_f64(), 100.0 * bytes as f64 / bound);
            let _ = write!(line, " {megabits:15.1} {percent:11.0}");
        };
        add(bulk.bytes_read());
        if let [link] = &links[..] {
            add(Plain::new(config, link.clone()).run(SPAN));
        }
        line
    }
}

/// What the links bring in `span`, in bytes.
fn bound(links: &[Link], span: Duration) -> f64 {
    let rtt = |link: &Link| 2.0 * link.delay.as_secs_f64();
    let bytes = links.iter().enumerate().map(|(index, link)| {
        let begin = 2.0 * rtt(&links[0]) + if index > 0 { 2.0 * rtt(link) } else { 0.0 };
        (span.as_secs_f64() - begin).max(0.0) * link.rate.unwrap_or_default() as f64 / 8.0
    });
    bytes.sum()
}

const HEAD: &str =
    "rate Mbit/s  paths  rtt ms  loss %  queue ms  goodput Mbit/s  % of bound    QUIC Mbit/s  % of bound";

/// Writes each line as soon as it is measured, and leaves lines that are there: remove what is to be measured anew.
#[test]
#[ignore = "takes about an hour in a release build, and writes the file"]
fn measure_the_table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("rates.txt");
    let kept = fs::read_to_string(&file).unwrap_or_default();
    let key = |line: &str| line.get(..43).map(str::to_owned);
    let mut table = format!("{HEAD}\n");
    for cell in Cell::all() {
        let Cell { rate, paths, rtt_ms, loss_per_mille, queue_ms } = cell;
        let loss = f64::from(loss_per_mille) / 10.0;
        let wanted = format!("{rate:11} {paths:6} {rtt_ms:7} {loss:7.1} {queue_ms:9}");
        let before = kept.lines().find(|line| key(line).as_ref() == Some(&wanted)).map(str::to_owned);
        let _ = writeln!(table, "{}", before.unwrap_or_else(|| cell.line()));
        fs::write(&file, &table).expect("the tree can be written to");
    }
}

#[test]
fn bound_counts_every_link_from_when_it_can_begin() {
    let link = |rtt: u64| Link::with_rate(8_000_000, Duration::from_millis(rtt / 2));
    assert_eq!(bound(&[link(50)], Duration::from_secs(1)), 900_000.0);
    assert_eq!(bound(&[link(50), link(100)], Duration::from_secs(1)), 1_600_000.0);
}

/// A short cell of each kind, so that what measures the table is known to work. With windows of 2 MiB, which is what a path
/// begins with, 100 Mbit/s over 200 ms would bring less than half.
#[test]
fn windows_follow_what_a_long_path_brings() {
    let cell = Cell { rate: 100, paths: 1, rtt_ms: 200, loss_per_mille: 0, queue_ms: 100 };
    let links = cell.links();
    let (mut kwik, mut quic) =
        (Bulk::new(WorldConfig::null_tls(1), 1 << 30, &links), Plain::new(WorldConfig::null_tls(1), links[0].clone()));
    kwik.run(Duration::from_secs(4));
    let before = kwik.bytes_read();
    kwik.run(Duration::from_secs(2));
    let megabits = (kwik.bytes_read() - before) as f64 * 8e-6 / 2.0;
    assert!(megabits > 90.0, "{megabits} Mbit/s");
    assert!(quic.run(Duration::from_secs(6)) > 0);
}
