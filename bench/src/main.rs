//! Measures KWIK against quinn and noq on the loopback interface. docs/PERFORMANCE.md says how and what the figures mean.

mod cli;
mod client;
mod compare;
mod process;
mod report;
mod server;
mod statistics;
mod task;
mod transport;
mod usage;

use anyhow::Result;
use clap::Parser;

use cli::{Cli, Command};

fn main() -> Result<()> {
    match Cli::parse().command() {
        Command::Compare(plan) => compare::run(&plan),
        Command::Server(task) => server::run(&task),
        Command::Client { task, server } => client::run(&task, &server),
    }
}
