//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::{
    content::{Library, parse_size},
    limit::Rate,
};

/// Fetches one file over one KWIK stream that several servers fill.
///
/// Without a subcommand everything runs in this process: a primary, its secondaries and a client.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) demo: DemoArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    pub(crate) content: ContentArgs,
    /// Servers in all, the primary among them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(crate) servers: u8,
    /// How fast each server reads its file, in MiB a second, the primary first; 0 for no limit. Further servers are as fast
    /// as the last.
    #[arg(long = "limit", value_name = "RATE[,RATE…]", default_value = "50,30,20", value_delimiter = ',')]
    pub(crate) limits: Vec<Rate>,
    /// Crash a secondary when an eighth of the file has arrived, and something from every server.
    #[arg(long)]
    pub(crate) kill_one: bool,
    #[command(flatten)]
    pub(crate) result: ResultArgs,
}

/// What a server has to offer.
#[derive(Debug, Args)]
pub(crate) struct ContentArgs {
    /// Send this file.
    #[arg(long)]
    file: Option<PathBuf>,
    /// The length of the generated file that is sent otherwise, such as 64MiB or 1GiB.
    #[arg(long, default_value = "64MiB", value_parser = parse_size, conflicts_with = "file")]
    size: u64,
}

impl ContentArgs {
    pub(crate) fn library(self) -> Library {
        self.file.map_or(Library::Generated(self.size), Library::File)
    }
}

/// Where the result goes.
#[derive(Debug, Args)]
pub(crate) struct ResultArgs {
    /// Keep the file that arrived here.
    #[arg(long)]
    pub(crate) output: Option<PathBuf>,
    /// End with one line of JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a development CA and the keys of servers to a directory.
    Init {
        dir: PathBuf,
        /// Servers in all: `primary`, `secondary-1`, `secondary-2` and so on.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
        servers: u8,
    },
    /// Run one server until it is interrupted.
    Serve {
        #[command(subcommand)]
        role: ServeRole,
    },
    /// Fetch one file from a primary.
    Fetch {
        /// The primary's address.
        address: SocketAddr,
        /// The file's name.
        name: String,
        /// The directory that `init` wrote.
        #[arg(long)]
        keys: PathBuf,
        #[command(flatten)]
        result: ResultArgs,
    },
}

/// What the server is there for.
#[derive(Debug, Subcommand)]
pub(crate) enum ServeRole {
    /// Clients dial it.
    Primary {
        #[command(flatten)]
        server: ServeArgs,
        /// A server that helps, as `secondary-1@127.0.0.1:4434`. May be given several times.
        #[arg(long = "secondary", value_name = "NAME@ADDRESS", value_parser = parse_named_address)]
        secondaries: Vec<(String, SocketAddr)>,
    },
    /// A primary has clients dial it.
    Secondary {
        #[command(flatten)]
        server: ServeArgs,
        /// Its name among the keys.
        #[arg(long, default_value = "secondary-1")]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The address and port to listen on.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// The directory that `init` wrote.
    #[arg(long)]
    pub(crate) keys: PathBuf,
    /// How fast the server reads its files, in MiB a second; 0 for no limit.
    #[arg(long, value_name = "RATE", default_value = "0")]
    pub(crate) limit: Rate,
    /// Offer the files of this directory.
    #[arg(long, conflicts_with_all = ["file", "size"])]
    dir: Option<PathBuf>,
    #[command(flatten)]
    content: ContentArgs,
}

impl ServeArgs {
    pub(crate) fn library(self) -> Library {
        self.dir.map_or_else(|| self.content.library(), Library::Dir)
    }
}

/// The name of the server number `number`, the primary being number 0.
pub(crate) fn server_name(number: u8) -> String {
    match number {
        0 => "primary".to_owned(),
        number => format!("secondary-{number}"),
    }
}

fn parse_named_address(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('@').ok_or("write it as NAME@ADDRESS")?;
    let address = address.parse().map_err(|_| format!("`{address}` is not an address and port"))?;
    Ok((name.to_owned(), address))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
