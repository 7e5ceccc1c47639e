//! How many instructions fixed work in the simulator takes, compared with `instructions.txt`.
//!
//! The work runs in virtual time and without TLS: the same instructions each time, whatever else the machine does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use kwik_sim::apps::bulk::Bulk;
use kwik_sim::apps::requests::{RequestPlan, Requests};
use kwik_sim::{Link, TlsMode, WorldConfig};

/// Named in the environment of a process that does one work, to be counted.
const COUNTED: &str = "KWIK_COUNTED_WORK";
/// If it is in the environment, the baseline is written and nothing is compared.
const WRITE: &str = "KWIK_WRITE_INSTRUCTIONS";
/// How far a count may be from the baseline, as a part of it.
const TOLERANCE: f64 = 0.03;
const TRANSFER_BYTES: u64 = 20_000_000;
/// Virtual time, which no work needs.
const LIMIT: Duration = Duration::from_secs(600);
const HOW: &str = "KWIK_WRITE_INSTRUCTIONS=1 cargo test --release -p kwik-bench --test instructions -- --ignored";

/// What is counted, by name. It says whether it came to its end.
type Work = (&'static str, fn() -> bool);

const WORKS: [Work; 4] = [
    // What the others have in common: certificates, a handshake, and the frame of the test.
    ("one request", || requests(1)),
    ("2000 requests of 1 KiB, 50 at once", || requests(2000)),
    ("20 MB over one path", || transfer(&[(100, 20)])),
    ("20 MB over three paths", || transfer(&[(100, 20), (50, 40), (20, 80)])),
];

fn config() -> WorldConfig {
    let mut config = WorldConfig::new(1);
    config.tls = TlsMode::Null;
    config
}

fn requests(count: usize) -> bool {
    let link = Link::with_rate(1_000_000_000, Duration::from_millis(5));
    Requests::new(config(), RequestPlan { count, at_once: 50, bytes: 1024, streams: 128 }, link).run(LIMIT)
}

/// Over links of so many Mbit/s and so many milliseconds there and back.
fn transfer(links: &[(u64, u64)]) -> bool {
    let link = |(rate, rtt): &(u64, u64)| Link::with_rate(rate * 1_000_000, Duration::from_millis(rtt / 2));
    Bulk::new(config(), TRANSFER_BYTES, &links.iter().map(link).collect::<Vec<_>>()).run(LIMIT)
}

#[test]
#[ignore = "needs valgrind; run with -- --ignored"]
fn work_takes_as_many_instructions_as_before() {
    if let Ok(counted) = env::var(COUNTED) {
        let (_, work) = WORKS.iter().find(|(name, _)| *name == counted).expect("a work of this test");
        assert!(work(), "{counted} did not end");
        return;
    }
    if cfg!(debug_assertions) {
        panic!("the baseline is of a release build: {HOW}");
    }
    let counts: BTreeMap<_, _> = WORKS.iter().map(|(name, _)| ((*name).to_owned(), count(name))).collect();
    if env::var_os(WRITE).is_some() {
        fs::write(baseline_path(), to_text(&counts)).expect("the baseline can be written");
        return;
    }
    let text = fs::read_to_string(baseline_path()).expect("the baseline can be read");
    let complaints = compare(&from_text(&text), &counts);
    assert!(complaints.is_empty(), "\n{complaints}if that is meant, write the baseline anew:\n    {HOW}\n");
}

/// The instructions of a process that does one work.
fn count(work: &str) -> u64 {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions.callgrind");
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(env::current_exe().expect("this program has a path"))
        .args(["work_takes_as_many_instructions_as_before", "--exact", "--ignored", "--test-threads=1"])
        .env(COUNTED, work)
        .output()
        .expect("valgrind is there");
    assert!(output.status.success(), "{work}: {}", String::from_utf8_lossy(&output.stdout));
    let counted = fs::read_to_string(&file).expect("callgrind wrote what it counted");
    let total = counted.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a total");
    total.trim().parse().expect("a number of instructions")
}

fn baseline_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/instructions.txt")
}

fn to_text(counts: &BTreeMap<String, u64>) -> String {
    let mut text = format!("# Instructions of each work in a release build. {HOW}\n");
    for (work, count) in counts {
        writeln!(text, "{count:>13} {work}").expect("a string takes everything");
    }
    text
}

fn from_text(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let entries = lines.map(|line| {
        let (count, work) = line.trim_start().split_once(' ').expect("a count and a name");
        (work.to_owned(), count.parse().expect("a number of instructions"))
    });
    entries.collect()
}

/// A line for each work that takes more or fewer instructions than before, is new or is gone.
fn compare(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> String {
    let mut complaints = String::new();
    let mut complain = |work: &str, what: String| {
        writeln!(complaints, "{work}: {what}").expect("a string takes everything");
    };
    for (work, count) in now {
        let Some(known) = before.get(work) else {
            complain(work, format!("{count} instructions, and none in the baseline"));
            continue;
        };
        let change = *count as f64 / *known as f64 - 1.0;
        if change.abs() > TOLERANCE {
            complain(work, format!("{count} instructions, {:+.1} % of {known}", 100.0 * change));
        }
    }
    for work in before.keys().filter(|work| !now.contains_key(*work)) {
        complain(work, "in the baseline only".to_owned());
    }
    complaints
}

#[test]
fn baseline_names_every_work_and_no_other() {
    let text = fs::read_to_string(baseline_path()).expect("the baseline can be read");
    let mut works: Vec<_> = WORKS.iter().map(|(name, _)| *name).collect();
    works.sort_unstable();
    assert!(from_text(&text).keys().eq(works));
}

#[test]
fn change_beyond_the_tolerance_is_told() {
    let of = |entries: &[(&str, u64)]| entries.iter().map(|(work, count)| ((*work).to_owned(), *count)).collect();
    let before = of(&[("a", 1000), ("b", 1000), ("c", 1000), ("d", 1000)]);
    assert_eq!(from_text(&to_text(&before)), before);
    let told = compare(&before, &of(&[("a", 1029), ("b", 1031), ("c", 969), ("e", 1)]));
    let works: Vec<_> = told.lines().map(|line| line.split(':').next().unwrap_or_default()).collect();
    assert_eq!(works, ["b", "c", "e", "d"], "{told}");
    assert!(told.contains("+3.1 %") && told.contains("-3.1 %"), "{told}");
}
