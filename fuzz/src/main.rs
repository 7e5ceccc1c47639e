//! Looks for inputs that break something. See `fuzz/run`.

mod coverage;

use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use coverage::Coverage;
use kwik_core::__test_exports::inside::Input;
use kwik_fuzz::{TARGETS, Target, target};

/// The longest input.
const BYTES_MAX: usize = 2048;
/// The longest input that is kept for everybody.
const KEPT_BYTES_MAX: usize = 700;
/// What a target keeps for everybody, in bytes.
const CORPUS_BYTES_MAX: usize = 48 * 1024;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let chosen = |name: Option<&String>| match name {
        None => TARGETS.to_vec(),
        Some(name) => target(name).into_iter().copied().collect(),
    };
    let done = match args.first().map(String::as_str) {
        Some("distil") => chosen(args.get(1)).iter().all(distil),
        Some("replay") => match (args.get(1).and_then(|name| target(name)), args.get(2)) {
            (Some(target), Some(file)) => replay(target, Path::new(file)),
            _ => false,
        },
        Some(seconds) => match seconds.parse() {
            Ok(seconds) => chosen(args.get(1)).iter().all(|target| search(target, Duration::from_secs(seconds))),
            Err(_) => false,
        },
        None => false,
    };
    if done {
        ExitCode::SUCCESS
    } else {
        say("usage: fuzz/run SECONDS [TARGET] | distil [TARGET] | replay TARGET FILE", 2)
    }
}

fn say(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(code)
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

/// What was found on this machine, and is not for everybody.
fn found(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz/corpus").join(name)
}

fn read_all(directory: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().flat_map(fs::read).collect()
}

/// Runs a target once. Returns what it panicked with.
fn run((_, body): &Target, data: &[u8]) -> Result<(), ()> {
    Coverage::clear();
    catch_unwind(AssertUnwindSafe(|| body(&mut Input::new(data)))).map_err(drop)
}

fn replay(target: &Target, file: &Path) -> bool {
    let Ok(data) = fs::read(file) else { return false };
    run(target, &data).is_ok()
}

/// Changes inputs that reached something new, for some time.
fn search(target: &Target, span: Duration) -> bool {
    let name = target.0;
    let mut rng = Rng(0x9E37_79B9_7F4A_7C15 ^ name.len() as u64 ^ u64::from(std::process::id()) << 32);
    let (mut coverage, mut pool) = (Coverage::default(), Vec::new());
    let mut seeds = [read_all(&corpus(name)), read_all(&found(name))].concat();
    seeds.extend(kwik_fuzz::seeds(name));
    seeds.push(Vec::new());
    seeds.extend((0..64).map(|_| rng.bytes(64)));
    let begun = Instant::now();
    let mut executions = 0_u64;
    let mut try_one = |data: Vec<u8>, pool: &mut Vec<Vec<u8>>, coverage: &mut Coverage| {
        executions += 1;
        if run(target, &data).is_err() {
            let file = found(name).with_file_name(format!("{name}-failed"));
            let written = fs::create_dir_all(found(name)).and_then(|()| fs::write(&file, &data));
            say(&format!("{name} failed ({written:?}); again with\n    fuzz/run replay {name} {}", file.display()), 1);
            return false;
        }
        if coverage.take() {
            pool.push(data);
        }
        true
    };
    for seed in seeds {
        if !try_one(seed, &mut pool, &mut coverage) {
            return false;
        }
    }
    while begun.elapsed() < span {
        let data = rng.mutate(&pool);
        if !try_one(data, &mut pool, &mut coverage) {
            return false;
        }
    }
    let kept = fs::create_dir_all(found(name));
    for (number, data) in pool.iter().enumerate() {
        let _ = fs::write(found(name).join(format!("{number:05}")), data);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let rate = executions as f64 / seconds;
    say(
        &format!(
            "{name}: {executions} executions in {seconds:.0} s, {rate:.0} a second; {} edges; {} inputs kept ({kept:?})",
            coverage.edges(),
            pool.len()
        ),
        0,
    );
    true
}

/// Keeps a few short inputs that together reach as much as they can.
fn distil(target: &Target) -> bool {
    let name = target.0;
    let mut inputs = [read_all(&corpus(name)), read_all(&found(name))].concat();
    inputs.sort_by_key(Vec::len);
    inputs.dedup();
    let (mut coverage, mut kept) = (Coverage::default(), kwik_fuzz::seeds(name));
    for data in &kept {
        let _ = run(target, data).is_ok() && coverage.take();
    }
    let mut bytes = kept.iter().map(Vec::len).sum::<usize>();
    for data in inputs.into_iter().filter(|data| data.len() <= KEPT_BYTES_MAX) {
        let is_new = run(target, &data).is_ok() && coverage.take();
        if is_new && bytes + data.len() <= CORPUS_BYTES_MAX && kept.len() < 120 {
            bytes += data.len();
            kept.push(data);
        }
    }
    let _ = fs::remove_dir_all(corpus(name));
    let written = fs::create_dir_all(corpus(name)).is_ok()
        && kept.iter().enumerate().all(|(at, data)| fs::write(corpus(name).join(format!("{at:03}")), data).is_ok());
    say(&format!("{name}: {} inputs of {bytes} bytes in all", kept.len()), 0);
    written
}

/// Splitmix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// Another input, made of what is there.
    fn mutate(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        const EDGES: [u8; 8] = [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff];
        let mut data = pool.get(self.below(pool.len())).cloned().unwrap_or_default();
        for _ in 0..=self.below(4) {
            let at = self.below(data.len() + 1);
            match self.below(8) {
                0 if at < data.len() => data[at] ^= 1 << self.below(8),
                1 if at < data.len() => data[at] = self.next().to_le_bytes()[0],
                2 if at < data.len() => data[at] = EDGES[self.below(EDGES.len())],
                3 => {
                    let len = 1 + self.below(16);
                    let new = self.bytes(len);
                    data.splice(at..at, new);
                }
                4 => {
                    let end = (at + 1 + self.below(16)).min(data.len());
                    data.drain(at.min(end)..end);
                }
                5 => {
                    let other = pool.get(self.below(pool.len())).cloned().unwrap_or_default();
                    let from = self.below(other.len() + 1);
                    data.truncate(at);
                    data.extend_from_slice(&other[from..]);
                }
                6 => {
                    let end = (at + 1 + self.below(64)).min(data.len());
                    let part = data[at.min(end)..end].to_vec();
                    data.splice(at..at, part);
                }
                _ => {
                    let len = self.below(8);
                    let more = self.bytes(len);
                    data.extend(more);
                }
            }
        }
        data.truncate(BYTES_MAX);
        data
    }
}
