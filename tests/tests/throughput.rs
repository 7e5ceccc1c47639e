//! What a download reaches over one to five paths, kept beside this file in `throughput.txt` so that a change is seen in review.
//!
//! The bound that efficiency is measured against is the least time T with Σ max(0, (T − dᵢ) · Cᵢ) ≥ S: S is the size of
//! the download, Cᵢ the rate of link i, and dᵢ the earliest moment after the dial at which a byte can arrive over it. On
//! the primary's path that is after two of its round trips, the handshake and the request with its answer; a secondary
//! hears of its part another round trip of its own after the handshake that the primary's first flight asks for, which
//! makes two round trips of each. Headers, losses, slow start and whatever the scheduling wastes count against it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kwik_sim::apps::bulk::Bulk;
use kwik_sim::{Link, WorldConfig};

const REWRITE: &str = "cargo test -p kwik-tests --test throughput -- --ignored";

const PATHS: [usize; 4] = [1, 2, 3, 5];
const ROUND_TRIPS_MS: [u64; 3] = [10, 50, 200];
const LOSSES_PER_MILLE: [u32; 3] = [0, 1, 10];
const QUEUES_MS: [u64; 2] = [20, 100];

/// Rate in Mbit/s, and the round trip in percent of the cell's; the primary's first.
const SERVERS: [(u64, u64); 5] = [(20, 100), (10, 150), (20, 50), (5, 200), (10, 100)];

/// The download would take so long if every link were full from the beginning.
const SPAN_MS: u64 = 3000;

/// Longer than any of the downloads takes.
const LIMIT: Duration = Duration::from_secs(120);

/// One line of the grid.
#[derive(Debug, Clone, Copy)]
struct GridCell {
    paths: usize,
    rtt_ms: u64,
    loss_per_mille: u32,
    queue_ms: u64,
}

/// What a cell reached.
struct Goodput {
    megabits_per_second: f64,
    percent_of_bound: f64,
}

impl GridCell {
    fn all() -> impl Iterator<Item = Self> {
        PATHS.into_iter().flat_map(|paths| ROUND_TRIPS_MS.into_iter().flat_map(move |rtt_ms| Self::of(paths, rtt_ms)))
    }

    fn of(paths: usize, rtt_ms: u64) -> impl Iterator<Item = Self> {
        LOSSES_PER_MILLE.into_iter().flat_map(move |loss_per_mille| {
            QUEUES_MS.into_iter().map(move |queue_ms| Self { paths, rtt_ms, loss_per_mille, queue_ms })
        })
    }

    /// Bits a second and the round trip of each link.
    fn servers(&self) -> Vec<(u64, Duration)> {
        let server =
            |(rate, percent): &(u64, u64)| (rate * 1_000_000, Duration::from_micros(self.rtt_ms * percent * 10));
        SERVERS[..self.paths].iter().map(server).collect()
    }

    fn bytes(&self) -> u64 {
        let rate: u64 = self.servers().iter().map(|(rate, _)| rate).sum();
        rate * SPAN_MS / 8000
    }

    fn run(&self) -> Goodput {
        let link = |(rate, rtt): (u64, Duration)| Link {
            loss: f64::from(self.loss_per_mille) / 1000.0,
            queue_time: Duration::from_millis(self.queue_ms),
            ..Link::with_rate(rate, rtt / 2)
        };
        let links: Vec<Link> = self.servers().into_iter().map(link).collect();
        let mut bulk = Bulk::new(WorldConfig::null_tls(1), self.bytes(), &links);
        assert!(bulk.run(LIMIT), "{self:?} has read {} of {} bytes after {LIMIT:?}", bulk.bytes_read(), self.bytes());
        assert_eq!(bulk.bytes_read(), self.bytes(), "{self:?}");
        let took = bulk.fleet.world.elapsed().as_secs_f64();
        Goodput {
            megabits_per_second: self.bytes() as f64 * 8e-6 / took,
            percent_of_bound: 100.0 * bound(&self.servers(), self.bytes()) / took,
        }
    }

    fn line(&self) -> String {
        let Self { paths, rtt_ms, loss_per_mille, queue_ms } = self;
        let Goodput { megabits_per_second, percent_of_bound } = self.run();
        let loss = f64::from(*loss_per_mille) / 10.0;
        format!("{paths:5} {rtt_ms:7} {loss:7.1} {queue_ms:9} {megabits_per_second:15.1} {percent_of_bound:11.0}")
    }
}

/// The least time in seconds, as the head of this file defines it.
fn bound(servers: &[(u64, Duration)], bytes: u64) -> f64 {
    let primary = servers[0].1.as_secs_f64();
    let begin = |index: usize, rtt: Duration| 2.0 * primary + if index > 0 { 2.0 * rtt.as_secs_f64() } else { 0.0 };
    let mut begins: Vec<(f64, f64)> =
        servers.iter().enumerate().map(|(index, (rate, rtt))| (begin(index, *rtt), *rate as f64)).collect();
    begins.sort_by(|a, b| a.0.total_cmp(&b.0));
    // The more links are counted, the later; a link counts if it begins before the others are through.
    let (mut rates, mut early, mut least) = (0.0, 0.0, f64::INFINITY);
    for (begin, rate) in begins {
        if begin >= least {
            break;
        }
        rates += rate;
        early += begin * rate;
        least = (bytes as f64 * 8.0 + early) / rates;
    }
    least
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("throughput.txt")
}

const HEAD: &str = "paths  rtt ms  loss %  queue ms  goodput Mbit/s  % of bound";

/// Runs the cells of some paths and a round trip, and compares their lines with those kept.
fn compare(paths: usize, rtt_ms: u64) {
    let kept = fs::read_to_string(file()).unwrap_or_default();
    let mut changes = String::new();
    for cell in GridCell::of(paths, rtt_ms) {
        let line = cell.line();
        let key = &line[..31];
        let before = kept.lines().find(|kept| kept.starts_with(key)).unwrap_or("nothing");
        if before != line {
            let _ = write!(changes, "\n  was {before}\n  now {line}");
        }
    }
    assert!(
        changes.is_empty(),
        "\n      {HEAD}{changes}\nIf that is as it should be, run `{REWRITE}` and commit what it writes.\n"
    );
}

#[test]
#[ignore = "writes the file that the others compare with"]
fn rewrite_the_grid() {
    let lines = GridCell::all().map(|cell| cell.line() + "\n").collect::<String>();
    fs::write(file(), format!("{HEAD}\n{lines}")).expect("the tree can be written to");
}

#[test]
fn bound_counts_every_link_from_when_it_can_begin() {
    let ms = Duration::from_millis;
    assert_eq!(bound(&[(8_000_000, ms(50))], 1_000_000), 1.1);
    // 1 s of the first, and the second from 0.2 s on.
    assert!((bound(&[(8_000_000, ms(0)), (8_000_000, ms(100))], 1_800_000) - 1.0).abs() < 1e-9);
    assert_eq!(bound(&[(8_000_000, ms(0)), (8_000_000, ms(1000))], 1_000_000), 1.0, "too late to be of use");
}

#[test]
fn one_path_with_round_trips_of_10_ms() {
    compare(1, 10);
}

#[test]
fn one_path_with_round_trips_of_50_ms() {
    compare(1, 50);
}

#[test]
fn one_path_with_round_trips_of_200_ms() {
    compare(1, 200);
}

#[test]
fn two_paths_with_round_trips_of_10_ms() {
    compare(2, 10);
}

#[test]
fn two_paths_with_round_trips_of_50_ms() {
    compare(2, 50);
}

#[test]
fn two_paths_with_round_trips_of_200_ms() {
    compare(2, 200);
}

#[test]
fn three_paths_with_round_trips_of_10_ms() {
    compare(3, 10);
}

#[test]
fn three_paths_with_round_trips_of_50_ms() {
    compare(3, 50);
}

#[test]
fn three_paths_with_round_trips_of_200_ms() {
    compare(3, 200);
}

#[test]
fn five_paths_with_round_trips_of_10_ms() {
    compare(5, 10);
}

#[test]
fn five_paths_with_round_trips_of_50_ms() {
    compare(5, 50);
}

#[test]
fn five_paths_with_round_trips_of_200_ms() {
    compare(5, 200);
}
