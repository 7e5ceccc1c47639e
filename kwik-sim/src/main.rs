//! Runs simulated worlds by the thousand, or one of them again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use kwik_sim::World;
use kwik_sim::report::{self, Summary, write_html, write_qlog};
use kwik_sim::swarm::{Options, Swarm, Sweep, WorldOutcome, coverage_gaps, coverage_table, run, sweep};

/// Deterministic simulation of KWIK: everything about a world follows from its seed.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the worlds of many seeds and checks each of them.
    Swarm {
        /// How many seeds; without it, until the time is over.
        #[arg(long)]
        seeds: Option<u64>,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many worlds run at the same time; one for each core without it.
        #[arg(long)]
        jobs: Option<usize>,
        /// No world begins after so many minutes.
        #[arg(long)]
        minutes: Option<f64>,
        /// Ends after so many worlds that failed.
        #[arg(long, default_value_t = 5)]
        failures: usize,
        /// Fails if a kind of disturbance, an error code or a limit was never reached.
        #[arg(long)]
        require_coverage: bool,
    },
    /// Runs the world of one seed.
    Replay {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// Prints everything that happens.
        #[arg(long)]
        trace: bool,
        /// Writes a qlog file for each node into this directory.
        #[arg(long)]
        qlog: Option<PathBuf>,
        /// Writes a page with a timeline of paths and streams.
        #[arg(long)]
        report: Option<PathBuf>,
    },
}

/// How often a report shows where paths stand.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Swarm { seeds, from, jobs, minutes, failures, require_coverage } => {
            let seeds_wanted = seeds.unwrap_or_else(|| if minutes.is_some() { u64::MAX } else { 1000 });
            let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
            let time = minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
            let plan = Sweep { from, seeds: seeds_wanted, jobs, time, failures_max: failures };
            Ok(run_swarm(plan, require_coverage))
        }
        Command::Replay { seed, trace, qlog, report } => replay(seed, trace, qlog, report),
    }
}

#[expect(clippy::disallowed_methods, reason = "the rate of a sweep is told in real time")]
fn run_swarm(plan: Sweep, require_coverage: bool) -> ExitCode {
    let start = Instant::now();
    let bar = if plan.seeds == u64::MAX { ProgressBar::no_length() } else { ProgressBar::new(plan.seeds) };
    let template = "{elapsed_precise} {wide_bar} {pos}/{len} worlds, {per_sec}, {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let found = sweep(plan, |failures| {
        bar.inc(1);
        bar.set_message(format!("{failures} failed"));
    });
    bar.finish_and_clear();
    for failure in &found.failures {
        say(&failure_report(failure));
    }
    say(&summary(&found, start.elapsed()));
    let gaps = coverage_gaps(&found.coverage);
    if require_coverage && !gaps.is_empty() {
        say(&format!("never reached: {}", gaps.join(", ")));
        return ExitCode::FAILURE;
    }
    if found.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn summary(found: &Swarm, took: Duration) -> String {
    let Swarm { worlds, events, virtual_time, slowest, coverage, failures } = found;
    let rate = |count: u64| count as f64 / took.as_secs_f64().max(1e-9);
    format!(
        "{}\n{worlds} worlds in {took:.1?}: {:.0} a minute, {:.0} events and {:.0} virtual seconds a second; \
         {} failed; the slowest recovery took {:.1?} (seed {})",
        coverage_table(coverage),
        rate(*worlds) * 60.0,
        rate(*events),
        rate(virtual_time.as_secs()),
        failures.len(),
        slowest.0,
        slowest.1,
    )
}

fn failure_report(failure: &WorldOutcome) -> String {
    let WorldOutcome { seed, violations, tail, elapsed, events, .. } = failure;
    let violations: Vec<String> = violations.iter().take(10).map(|violation| format!("  {violation}")).collect();
    format!(
        "==== seed {seed} failed after {events} events, {elapsed:?}\n{}\n---- the last events\n{}\n---- violations\n{}\n\
         ---- again with\ncargo run --release -p kwik-sim -- replay --seed {seed} --trace\n",
        Options::from_seed(*seed),
        tail.join("\n"),
        violations.join("\n"),
    )
}

fn replay(seed: u64, trace: bool, qlog: Option<PathBuf>, report: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let options = Options::from_seed(seed);
    let mut written = Ok(());
    let sample = (qlog.is_some() || report.is_some()).then_some(SAMPLE_EVERY);
    let outcome = run(&options, usize::MAX, sample, |world, outcome| {
        written = write_reports(world, outcome, &options, qlog.as_deref(), report.as_deref());
    });
    written?;
    if trace {
        say(&outcome.tail.join("\n"));
    }
    say(&options.to_string());
    if outcome.violations.is_empty() {
        let WorldOutcome { events, elapsed, recovery, hash, .. } = outcome;
        say(&format!("all is well: {events} events, {elapsed:?}, recovered in {recovery:?}, hash {hash:016x}"));
        return Ok(ExitCode::SUCCESS);
    }
    say(&outcome.violations.join("\n"));
    Ok(ExitCode::FAILURE)
}

fn write_reports(
    world: &World,
    outcome: &WorldOutcome,
    options: &Options,
    qlog: Option<&Path>,
    report: Option<&Path>,
) -> anyhow::Result<()> {
    let summary = report_summary(outcome, options);
    if let Some(directory) = qlog {
        write_qlog(world.trace(), &summary, directory)?;
    }
    if let Some(file) = report {
        write_html(world.trace(), &summary, file)?;
    }
    Ok(())
}

fn report_summary(outcome: &WorldOutcome, options: &Options) -> Summary {
    let clients = options.clients.len();
    let servers = (0..options.servers).map(|number| format!("server {number}"));
    let clients_named = (0..clients).map(|number| format!("client {number}"));
    let chosen = [
        ("TLS", format!("{:?}", options.tls)),
        ("congestion control", format!("{:?}", options.congestion)),
        ("servers", options.servers.to_string()),
        ("clients", clients.to_string()),
        ("scarce", format!("{:?}", options.tight)),
        ("recovery", format!("{:.1?}", outcome.recovery)),
    ];
    Summary {
        seed: outcome.seed,
        options: chosen.map(|(name, value)| (name.to_owned(), value)).into(),
        details: options.to_string(),
        nodes: servers.chain(clients_named).chain(byzantines(options)).collect(),
        outcome: match outcome.violations.as_slice() {
            [] => report::Ending::Passed,
            violations => report::Ending::Failed(violations.to_vec()),
        },
        duration: outcome.elapsed,
    }
}

/// The names of those who speak as they like.
fn byzantines(options: &Options) -> impl Iterator<Item = String> {
    let byzantine = options.byzantine.iter().map(|_| "byzantine");
    let accomplice = options.byzantine.iter().filter(|byzantine| byzantine.accomplice.is_some()).map(|_| "accomplice");
    byzantine.chain(accomplice).map(str::to_owned)
}

/// Prints a line. Who reads may stop before the end.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
