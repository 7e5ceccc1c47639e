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

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let done = match Cli::parse().command() {
        Command::Compare(plan) => compare::run(&plan),
        Command::Server(task) => server::run(&task),
        Command::Client { task, server } => client::run(&task, &server),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a place for errors there is still the exit code.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
